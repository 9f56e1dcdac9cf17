"""Live streams: one publisher, many sinks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger, LogLevel
from zope.interface import implementer

from twisted_rtmp.flv.metadata import withoutFileFacts
from twisted_rtmp.interfaces import ILiveStream, IMediaSink
from twisted_rtmp.ledger import Ledger
from twisted_rtmp.live.budget import Budget, Share
from twisted_rtmp.live.headers import HEADER, Headers
from twisted_rtmp.live.pacing import Pacer
from twisted_rtmp.live.peerlog import PeerLog
from twisted_rtmp.live.players import PlayerGroup
from twisted_rtmp.live.policy import Policy
from twisted_rtmp.live.timeline import GAP_MILLISECONDS, NEVER, MediaTime, Timeline
from twisted_rtmp.live.tracks import Ended, Track, Tracks
from twisted_rtmp.media import payloads as media
from twisted_rtmp.media.metadata import propertiesOf
from twisted_rtmp.media.payloads import audioFlags, videoFlags
from twisted_rtmp.names import printable
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.errors import ProtocolError
from twisted_rtmp.wire.messages import Message

if TYPE_CHECKING:
    from twisted_rtmp.live.selection import Selection

#: Flags of the messages that are more than frames to be passed on.
_NOTEWORTHY = (
    media.KEY_FRAME
    | media.ENHANCED
    | media.MALFORMED
    | media.SEQUENCE_HEADER
    | media.METADATA
)
_CODED = media.CODED

#: Before every timestamp: follows no frame.
_NO_FRAME = -NEVER

_AUDIO: int = MessageType.AUDIO
_VIDEO: int = MessageType.VIDEO


class Publisher(Protocol):
    """The source of a stream, as far as the stream knows it."""

    @property
    def peer(self) -> str:
        """The peer's address, for log lines."""

    @property
    def host(self) -> str:
        """The address that it counts for; empty for none."""

    @property
    def heard(self) -> float:
        """The time at which media came last, in the seconds of the registry's clock."""

    @property
    def unread(self) -> bool:
        """Tell whether bytes of it have come that nobody has looked at yet."""

    def unpaid(self) -> int:
        """Take the bytes that came from its peer and have paid for no log line yet."""

    @property
    def connection(self) -> object:
        """An object that all publishers of one connection share."""

    def takenOver(self) -> None:
        """Unpublish, and tell the peer: another publisher gets the name."""

    def pauseProducing(self) -> None:
        """Read nothing from the peer for now."""

    def resumeProducing(self) -> None:
        """Go on reading."""


@implementer(IPushProducer)
class Throttle:
    """
    One sink's hold on a stream's publisher.

    The publisher is paused as long as any throttle of the stream is.
    """

    def __init__(self, stream: LiveStream) -> None:
        self._stream = stream

    def pauseProducing(self) -> None:
        self._stream.hold(self)

    def resumeProducing(self) -> None:
        self._stream.release(self)

    def stopProducing(self) -> None:
        """Hold the publisher no more: the consumer is gone."""
        self._stream.release(self)


@implementer(ILiveStream)
class LiveStream:
    """
    The media of one publisher, on their way to the stream's sinks.

    @ivar application: the application's name; may be empty.
    @ivar name: the stream's own name; may be empty.
    @ivar ledger: what came, what was stored and what was lost.
    @ivar enhanced: whether anything that the present publisher sent had an enhanced
        header.
    @ivar label: application and name for log lines.
    @ivar throttled: whether a sink holds the publisher.
    @ivar publisher: its source; L{None} while it waits for its next publisher, and when
        it has ended.
    @ivar publishers: how many have sent it, one after the other.
    @ivar players: its players.
    @ivar policy: the rules of its application, as they were when it began.
    @ivar startedAt: when it began, in the clock's seconds.
    """

    log = Logger()

    def __init__(
        self,
        application: str,
        name: str,
        publisher: Publisher,
        pacer: Pacer,
        *,
        policy: Policy | None = None,
        budget: Budget | None = None,
        peerLog: PeerLog | None = None,
    ) -> None:
        """
        @param pacer: gathers what is written to the players; has the clock.
        @param budget: is charged for what is kept.
        @param peerLog: bounds the log lines that come of it.
        """
        self.application = application
        self.name = name
        self.ledger = Ledger()
        self.enhanced = False
        self.label = printable(f"{application}/{name}")
        self._received = self.ledger.received
        self.publisher: Publisher | None = publisher
        self.publishers = 1
        self._peerLog = peerLog
        self._payingHost = ""
        self._unpaid = 0
        self._timeline = Timeline(pacer.clock.seconds)
        self._tracks = Tracks(self._received, self._timeline)
        # The tracks as they were listed last, and the figures at that time.
        self._listed: Sequence[Track] = ()
        self._listedAt: tuple[int, ...] | None = None
        # The frames of the publishers before the present one.
        self._framesBefore = 0
        self._videoTime = self._timeline.video
        self._audioTime = self._timeline.audio
        self._holds: set[Throttle] = set()
        self._sinks: list[IMediaSink] = []
        self._sinkNames: dict[IMediaSink, str] = {}
        self._told: set[str] = set()
        # The ends of sinks that have not stored all yet.
        self._ending: set[Deferred[None]] = set()
        self._over = False
        self.policy = policy or Policy()
        limits = self.policy.limits
        self._account = (budget or Budget(limits.memory)).stream(
            self, limits.memory.streamBytes
        )
        self._gaveUp = False
        self._headers = Headers(limits.headers, self._account.share())
        self.startedAt = pacer.clock.seconds()
        self.players = PlayerGroup(self, pacer, self._account, limits.gop)
        self.addSink(self.players, "players")

    # From the publisher

    def messageReceived(self, message: Message) -> None:
        """
        Take an audio, video or data message from the publisher.

        The hot path: once a message.
        """
        typeId = message.typeId
        received = self._received
        if typeId == _VIDEO:
            flags = message.flags = videoFlags(message.payload)
            received.videoSize += len(message.payload)
            time = self._videoTime
            if flags & _CODED:
                received.video += 1
                timestamp = message.timestamp + time.shift
            else:
                timestamp = _NO_FRAME
        elif typeId == _AUDIO:
            flags = message.flags = audioFlags(message.payload)
            received.audioSize += len(message.payload)
            time = self._audioTime
            if flags & _CODED:
                received.audio += 1
                timestamp = message.timestamp + time.shift
            else:
                timestamp = _NO_FRAME
        else:
            self._dataReceived(message)
            return
        if 0 <= timestamp - time.last <= GAP_MILLISECONDS:
            time.last = timestamp
            if time.shift:
                message.moveTo(timestamp)
        else:
            self._placeMessage(message, time)
        if flags & _NOTEWORTHY:
            if flags & media.MALFORMED:
                self._discard("malformed", f"{len(message.payload)} bytes")
                return
            if flags & media.KEY_FRAME:
                self._timeline.keyFrameAt(message.timestamp)
            if flags & media.ENHANCED:
                self.enhanced = True
                if flags & media.MULTITRACK:
                    self._tracks.numbered(message)
            if flags & HEADER and not self._headers.keep(message):
                self._discard("too large a header", f"{len(message.payload)} bytes")
                return
        # As L{_passOn} does.
        sinks = self._sinks
        for sink in sinks:
            if sinks is not self._sinks and sink not in self._sinkNames:
                continue
            try:
                sink.mediaReceived(message)
            except Exception:
                self._sinkFailed(sink)

    def _placeMessage(self, message: Message, time: MediaTime) -> None:
        """Give its time to what is not a frame that just follows the one before."""
        if not message.flags & _CODED:
            self._received.headers += 1
            self._timeline.placeHeader(message, time)
            self._tracks.noted(message)
            return
        isFirst = not time.hasBegun
        last = self._timeline.newest if isFirst else time.last
        before = last - time.shift
        step = self._timeline.place(message, time)
        if isFirst:
            self._tracks.noted(message)
        if step is None:
            self._clockBroke(before, message)
        elif step < 0:
            self.ledger.backwardSteps += 1
        elif step > GAP_MILLISECONDS:
            self.ledger.gaps += 1

    def _clockBroke(self, before: int, message: Message) -> None:
        """Count a break of the publisher's clock; log the first one."""
        self.ledger.clockBreaks += 1
        if self.ledger.clockBreaks == 1:
            self.tell(
                self.log,
                LogLevel.warn,
                "{stream}: the publisher's clock went from {before} to {after} ms; the"
                " stream goes on at {time} ms, and further breaks are counted only",
                stream=self.label,
                before=before,
                after=message.senderTimestamp,
                time=message.timestamp,
            )

    def _passOn(self, message: Message) -> None:
        """Give a message to every sink."""
        sinks = self._sinks
        for sink in sinks:
            # One sink may take another one off.
            if sinks is not self._sinks and sink not in self._sinkNames:
                continue
            try:
                sink.mediaReceived(message)
            # An application's sink must not end the stream.
            except Exception:
                self._sinkFailed(sink)

    def _dataReceived(self, message: Message) -> None:
        """Pass metadata, cue points and captions on; keep well-formed metadata."""
        self._timeline.placeHeader(message)
        self.ledger.received.count(message)
        try:
            values, message.values = message.values, None
            if values is None:
                values = amf0.decode(message.payload)
            if values and values[0] == "@setDataFrame":
                message.payload = message.payload[
                    amf0.decodeFirst(message.payload)[1] :
                ]
                del values[0]
        except ProtocolError as error:
            self._discard("malformed data", str(error))
            return
        if not values or not isinstance(values[0], str):
            self._discard("malformed data", "it begins with no name")
            return
        if values[0] == "onMetaData":
            message.values = values
            message.payload = withoutFileFacts(message)
            if not self._headers.keepMetadata(message):
                self._discard("too large metadata", f"{len(message.payload)} bytes")
                return
        elif values[0] == "@clearDataFrame":
            self._headers.keepMetadata(None)
            return
        self._passOn(message)

    @property
    def host(self) -> str:
        """The address that its publisher counts for; empty for none."""
        return "" if self.publisher is None else self.publisher.host

    @property
    def connection(self) -> object:
        """An object that all publishers of its publisher's connection share."""
        return None if self.publisher is None else self.publisher.connection

    @property
    def metadata(self) -> Message | None:
        """The newest C{onMetaData} message, or L{None}."""
        return self._headers.metadata

    @property
    def properties(self) -> Mapping[str, Any]:
        """The properties of the newest metadata; empty if there are none."""
        return {} if self.metadata is None else propertiesOf(self.metadata) or {}

    def _discard(self, reason: str, detail: str) -> None:
        """Book a message as lost; log the first of its reason."""
        self.ledger.discard(reason)
        if reason not in self._told:
            self._told.add(reason)
            self.tell(
                self.log,
                LogLevel.warn,
                "{stream}: a message is discarded as {reason} ({detail}); further"
                " ones are counted only",
                stream=self.label,
                reason=reason,
                detail=detail,
            )

    def _sinkFailed(self, sink: IMediaSink) -> None:
        """Take a sink off that raised; its error goes to the log."""
        self.log.failure(
            "{stream}: its {sink} failed and is taken off",
            stream=self.label,
            sink=self._sinkNames.get(sink, "former sink"),
        )
        self.removeSink(sink)

    # Its tracks

    @property
    def tracks(self) -> Sequence[Track]:
        """The tracks and what has come of each: video first, by number."""
        received = self._received
        state = (
            received.video,
            received.audio,
            received.headers,
            received.videoSize,
            received.audioSize,
        )
        if state != self._listedAt:
            # Once for all players that wait to know which kinds there are.
            self._listedAt = state
            self._listed = list(self._tracks)
        return self._listed

    def ended(self) -> Ended:
        """Tell which tracks have ended, so that newcomers begin without them."""
        return self._tracks.ended()

    @property
    def frames(self) -> int:
        """The coded frames that the present publisher has sent."""
        return self._received.video + self._received.audio - self._framesBefore

    @property
    def hasVideoTracks(self) -> bool:
        """Tell whether there are several video tracks."""
        return len(self._tracks.video) > 1

    def videoTracks(self, selection: Selection) -> set[int]:
        """List which of several video tracks pass a selection with their numbers."""
        if not self.hasVideoTracks:
            return set()
        video = self._tracks.video
        return {
            track.id
            for track in self._tracks
            if track.typeId == _VIDEO
            and track.id in video
            and selection.passes(_VIDEO, track.id, track.codec)
        }

    def isPrimary(self, message: Message) -> bool:
        """Tell whether a video message has something of the first video track."""
        return self._tracks.isPrimary(message)

    # To the sinks

    def headers(self) -> list[Message]:
        """
        List what a decoder needs before the first frame: the newest metadata, then
        the newest sequence header of each kind.
        """
        return self._headers.all()

    def addSink(self, sink: IMediaSink, name: str = "sink") -> None:
        """
        Pass the stream's messages on to a sink, its headers first.

        @param name: a word for log lines.
        """
        # A new list, since a sink may be added or removed by another one.
        self._sinks = [*self._sinks, sink]
        self._sinkNames[sink] = name
        try:
            for message in self.headers():
                sink.mediaReceived(message)
        except Exception:
            self._sinkFailed(sink)
        if self._over:
            self.removeSink(sink)

    @property
    def sinkNames(self) -> list[str]:
        """The names of its sinks, in the order in which they get its messages."""
        return [self._sinkNames[sink] for sink in self._sinks]

    def removeSink(self, sink: IMediaSink) -> Deferred[None]:
        """
        Take a sink off and end it.

        @return: fires when it has stored what it got.
        """
        if sink not in self._sinkNames:
            return succeed(None)
        self._sinks = [other for other in self._sinks if other is not sink]
        del self._sinkNames[sink]
        return self._endSink(sink)

    def _endSink(self, sink: IMediaSink) -> Deferred[None]:
        ended: Deferred[None] = maybeDeferred(cast("Any", sink.streamEnded))
        ended.addErrback(
            lambda failure: self.log.failure(
                "{stream}: a sink did not end well", failure, stream=self.label
            )
        )
        self._ending.add(ended)
        ended.addCallback(lambda _: self._ending.discard(ended))
        return _after(ended)

    def end(self) -> Deferred[None]:
        """
        End every sink: the publisher has gone.

        @return: fires when all of them have stored what they got.
        """
        self._over = True
        sinks = self._sinks
        self._sinks = []
        self._sinkNames.clear()
        if self._holds:
            self._holds.clear()
            if self.publisher is not None:
                self.publisher.resumeProducing()
        for sink in sinks:
            self._endSink(sink)
        waiting = DeferredList([_after(ended) for ended in self._ending])
        return waiting.addCallback(lambda _: None)

    # The log

    def tell(
        self,
        log: Logger,
        level: LogLevel,
        format: str,  # noqa: A002  as Twisted's Logger calls it
        **fields: object,
    ) -> None:
        """Write a log line that comes of the stream, if its publisher has paid."""
        if self._peerLog is None:
            log.emit(level, format, **fields)
            return
        self._collect()
        unpaid, self._unpaid = self._unpaid, 0
        self._peerLog.emit(log, level, format, fields, self._payingHost, unpaid)

    def _collect(self) -> None:
        """Take what the publisher pays for log lines, now or when it has left."""
        if self._peerLog is not None and self.publisher is not None:
            self._payingHost = self.publisher.host
            self._unpaid += self.publisher.unpaid()

    # Memory

    def share(self) -> Share:
        """Make an account of what one sink keeps."""
        return self._account.share()

    @property
    def keptBytes(self) -> int:
        """The bytes that are kept of it, for players and sinks."""
        return self._account.bytes

    @property
    def isPublishing(self) -> bool:
        """Tell whether it can give nothing up without a loss to its publisher."""
        return False

    def forget(self) -> None:
        """
        Be free: it has ended, and all have been told.

        What players have not taken yet is charged until they have.
        """
        self._account.close()
        self.players.forget()

    def giveUp(self, why: str) -> None:
        """
        Keep no GOP, and nothing for players that do not keep up.

        @param why: for the log.
        """
        if not self._gaveUp:
            self._gaveUp = True
            self.tell(
                self.log,
                LogLevel.warn,
                "{stream} loses its cached GOP, and what waits for slow players: {why};"
                " further losses are counted only",
                stream=self.label,
                why=why,
            )
        self.players.giveUp()

    # One publisher after the other

    def publisherLeft(self) -> None:
        """Do without a publisher."""
        self._collect()
        before, self.publisher = self.publisher, None
        if self._holds and before is not None:
            # Its connection may stay; the hold is the next publisher's.
            before.resumeProducing()

    def awaitPublisher(self) -> None:
        """
        Wait for the next publisher: the stream and its sinks stay.

        What is known of the media is forgotten, since the next publisher may send
        others: a player that joins begins with what that one sends.
        """
        self.players.publisherChanged()
        self._headers.forget()
        self._tracks.restart()
        self._listedAt = None
        self.enhanced = False
        self._framesBefore += self.frames

    def resume(self, publisher: Publisher, milliseconds: int) -> None:
        """
        Go on with another publisher.

        Its timestamps are moved behind those that came before.

        @param milliseconds: the time since the one before left.
        """
        self.publisher = publisher
        self.publishers += 1
        self._timeline.resume(milliseconds)
        if self._holds:
            publisher.pauseProducing()

    # Back to the publisher

    def throttle(self) -> IPushProducer:
        """Make a producer by which one sink can slow the encoder down."""
        return Throttle(self)

    @property
    def throttled(self) -> bool:
        return bool(self._holds)

    def hold(self, throttle: Throttle) -> None:
        """Pause the publisher for a throttle, as long as there is one."""
        if self._over:
            return
        if not self._holds and self.publisher is not None:
            self.publisher.pauseProducing()
        self._holds.add(throttle)

    def release(self, throttle: Throttle) -> None:
        """Let the publisher go on, if no other throttle holds it."""
        if throttle in self._holds:
            self._holds.remove(throttle)
            if not self._holds and self.publisher is not None:
                self.publisher.resumeProducing()


def _after(deferred: Deferred[None]) -> Deferred[None]:
    """Make another Deferred that fires after one."""
    mine: Deferred[None] = Deferred()
    deferred.addCallback(lambda _: mine.callback(None))
    return mine
