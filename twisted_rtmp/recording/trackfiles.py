"""
A file for each further track of a stream.

The stream's own file has track 0 of each kind and all data; each other track has a file
beside it, with the same name and the same time line.  Each holds plain messages, which
any player reads: their tracks have no numbers any more, and what has a legacy form is
written in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger, LogLevel
from zope.interface import implementer

from twisted_rtmp.interfaces import ILiveStream, IMediaSink, IStreamPart, Share
from twisted_rtmp.ledger import Ledger, MediaCounts
from twisted_rtmp.media import payloads as media
from twisted_rtmp.media.metadata import propertiesOf
from twisted_rtmp.media.parts import PlainTrack, partsOf, toLegacy
from twisted_rtmp.media.payloads import FOREIGN, MULTITRACK
from twisted_rtmp.recording.part import Shared
from twisted_rtmp.recording.recorder import Account, FLVRecorder
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import ECMAArray
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.messages import Message

#: Files of one stream beside its own: as many tracks as a stream keeps headers of, 16
#: of each kind.  OBS sends up to 5.  A hostile encoder could have 510, of 73 kB each.
MAX_TRACK_FILES = 32

_VIDEO: int = MessageType.VIDEO

_KINDS: dict[int, str] = {MessageType.AUDIO: "audio", MessageType.VIDEO: "video"}

#: Where C{onMetaData} says what of a track.  E-RTMP v2, Enhancing onMetaData.
_INFO_MAPS = {"audio": "audioTrackIdInfoMap", "video": "videoTrackIdInfoMap"}


#: Codecs whose messages have a legacy form.
_LEGACY = frozenset(("avc1", "mp4a", ".mp3"))


def _plainOf(typeId: int, track: PlainTrack) -> bytes | None:
    """
    Write a track's payload in the form that most players read.

    @return: L{None} for what their form of the codec does not have: C{colorInfo}, which
        the SPS says as well, and MultichannelConfig.  In between older players take
        it for another codec, and give up.
    """
    legacy = toLegacy(typeId, track.payload)
    return track.payload if legacy is None and track.codec not in _LEGACY else legacy


class SplitMessage:
    """
    A message whose tracks go to files of their own.

    It is written when all of its parts are, and lost, once, if one of them is.
    """

    __slots__ = ("_ledger", "_left", "_lost", "_message", "_written")

    def __init__(
        self, message: Message, parts: int, ledger: Ledger, written: MediaCounts
    ) -> None:
        self._message = message
        self._left = parts
        self._lost = False
        self._ledger = ledger
        self._written = written

    def partStored(self) -> None:
        """Book one part as written."""
        self._left -= 1
        if not self._left and not self._lost:
            self._written.count(self._message)

    def partLost(self, reason: str) -> None:
        """Book one part as lost."""
        self._left -= 1
        if not self._lost:
            self._lost = True
            self._ledger.discard(reason)


class TrackPart(Message):
    """
    One track's part of a message.

    @ivar whole: the message.
    """

    __slots__ = ("whole",)

    def __init__(
        self, message: Message, payload: bytes, flags: int, whole: SplitMessage
    ) -> None:
        super().__init__(
            message.typeId, message.timestamp, message.streamId, payload, flags
        )
        self.whole = whole


class _PartAccount(Account):
    """Books parts of messages with the messages that they are of."""

    def stored(self, messages: Sequence[Message], counts: MediaCounts) -> None:
        parts = MediaCounts()
        for message in messages:
            if isinstance(message, TrackPart):
                parts.count(message)
                message.whole.partStored()
        counts.video -= parts.video
        counts.audio -= parts.audio
        counts.headers -= parts.headers
        counts.size -= parts.size
        super().stored(messages, counts)

    def lost(self, reason: str, messages: Sequence[Message], others: int = 0) -> None:
        whole = []
        for message in messages:
            if isinstance(message, TrackPart):
                message.whole.partLost(reason)
            else:
                whole.append(message)
        super().lost(reason, whole, others)


@implementer(IStreamPart)
class _TrackSource:
    """
    The part of a stream that one file has: track 0 of both kinds, or another track.

    @ivar application: the stream's.
    @ivar name: the stream's.
    @ivar label: for log lines.
    @ivar host: the stream's.
    @ivar connection: the stream's.
    @ivar ledger: the stream's.
    @ivar track: such as C{audio1}; empty for track 0.
    @ivar metadataCodec: the codec of which metadata without a number are the track's;
        L{None} if none are.
    """

    def __init__(self, stream: ILiveStream, typeId: int = 0, trackId: int = 0) -> None:
        """@param typeId: the message type id of the track; any of track 0."""
        self.application = stream.application
        self.name = stream.name
        self.ledger: Ledger = stream.ledger
        self.track = f"{_KINDS[typeId]}{trackId}" if typeId else ""
        self.label = f"{stream.label} {self.track}" if typeId else stream.label
        self.metadataCodec: int | str | None = None
        self._stream = stream
        self._typeId = typeId
        self._trackId = trackId

    @property
    def host(self) -> str:
        return self._stream.host

    @property
    def connection(self) -> object:
        return self._stream.connection

    def throttle(self) -> IPushProducer:
        """Make a producer by which the publisher is slowed down."""
        return self._stream.throttle()

    def tell(
        self,
        log: Logger,
        level: LogLevel,
        format: str,  # noqa: A002  as Twisted's Logger calls it
        **fields: object,
    ) -> None:
        """Write a log line that comes of the stream."""
        self._stream.tell(log, level, format, **fields)

    def share(self) -> Share:
        """Make an account of what waits for the disk."""
        return self._stream.share()

    def headers(self) -> list[Message]:
        """List what the newest metadata and sequence headers have of the part."""
        found = [] if self._typeId == 0 else self.introduction()
        for message in self._stream.headers():
            flags = message.flags
            if flags & MULTITRACK:
                if self._typeId in (0, message.typeId):
                    found += self._of(message)
            elif flags & FOREIGN:
                if self.metadataCodec is not None:
                    found += self._of(message)
            elif self._typeId == 0:
                found.append(message)
        return found

    def _of(self, message: Message) -> list[Message]:
        typeId = message.typeId
        foreign = message.flags & FOREIGN
        headers = []
        for track in partsOf(message):
            if (
                track.codec == self.metadataCodec
                if foreign
                else track.trackId == self._trackId
            ):
                payload = _plainOf(typeId, track)
                if payload is not None:
                    flags = media.flagsOf(typeId, payload)
                    headers.append(
                        Message(typeId, message.timestamp, 0, payload, flags)
                    )
        return headers

    def introduction(self) -> list[Message]:
        """Make metadata of the track, if the stream's say anything of it."""
        metadata = self._stream.metadata
        if metadata is None:
            return []
        properties = propertiesOf(metadata) or {}
        infos = properties.get(_INFO_MAPS[self.track.rstrip("0123456789")])
        info = infos.get(str(self._trackId)) if isinstance(infos, dict) else None
        if not isinstance(info, dict):
            return []
        payload = amf0.encode("onMetaData", ECMAArray(info))
        return [Message(MessageType.DATA_AMF0, metadata.timestamp, 0, payload)]


@implementer(IMediaSink)
class TrackRecorder:
    """
    Records one stream, each further track in files of its own.

    Messages without a number, and those that cannot be taken apart, are in the stream's
    own file as they came.

    A message costs 7 us more than in a file of all tracks if it is numbered (CPython
    3.11), and otherwise the same.
    """

    def __init__(
        self, shared: Shared, stream: ILiveStream, recorders: set[FLVRecorder]
    ) -> None:
        """@param recorders: gets those that are not done yet."""
        self._stream = stream
        self._written = stream.ledger.writer("recording")
        self._recorders = recorders
        # The others are cut when the first one's file is.
        self._shared = replace(
            shared,
            settings=replace(shared.settings, rotateSeconds=None, rotateBytes=None),
        )
        self._account = _PartAccount(stream.ledger)
        self._first = FLVRecorder(
            shared, _TrackSource(stream), recorders.discard, account=self._account
        )
        recorders.add(self._first)
        self._others: dict[tuple[int, int], FLVRecorder] = {}
        # The FourCCs of further video tracks, with their numbers.
        self._codecs: dict[int | str, int] = {}

    def mediaReceived(self, message: Message) -> None:
        """Give each track's recorder its part of a message."""
        flags = message.flags
        if flags & MULTITRACK:
            tracks = partsOf(message)
            if tracks:
                self._tracksReceived(message, tracks)
                return
        elif flags & FOREIGN:
            (track,) = partsOf(message)
            trackId = self._codecs.get(track.codec)
            if trackId is not None:
                self._tracksReceived(message, [track._replace(trackId=trackId)])
                return
        self._first.mediaReceived(message)

    def _tracksReceived(self, message: Message, tracks: Sequence[PlainTrack]) -> None:
        typeId = message.typeId
        whole = SplitMessage(message, len(tracks), self._stream.ledger, self._written)
        for track in tracks:
            recorder = self._recorderOf(typeId, track)
            if recorder is None:
                whole.partLost("too many tracks")
                continue
            payload = _plainOf(typeId, track)
            if payload is None:
                whole.partStored()  # as far as it can be
                continue
            flags = media.flagsOf(typeId, payload)
            recorder.mediaReceived(TrackPart(message, payload, flags, whole))

    def _recorderOf(self, typeId: int, track: PlainTrack) -> FLVRecorder | None:
        """Find or make a track's recorder; L{None} if there are too many."""
        trackId = track.trackId
        if trackId == 0:
            return self._first
        recorder = self._others.get((typeId, trackId))
        if recorder is None:
            if len(self._others) == MAX_TRACK_FILES:
                return None
            source = _TrackSource(self._stream, typeId, trackId)
            recorder = self._others[typeId, trackId] = FLVRecorder(
                self._shared,
                source,
                self._recorders.discard,
                track=source.track,
                leader=self._first,
                introduction=source.introduction(),
                account=self._account,
            )
            self._recorders.add(recorder)
            if typeId == _VIDEO and track.codec not in self._codecs:
                self._codecs[track.codec] = trackId
                source.metadataCodec = track.codec
        return recorder

    def streamEnded(self) -> Deferred[None]:
        """Finish the files."""
        ended = [each.streamEnded() for each in (self._first, *self._others.values())]
        return DeferredList(ended).addCallback(lambda _: None)
