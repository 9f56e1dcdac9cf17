"""
One peer's play of one stream.

A player reaches its peer through the small L{Outlet} that a protocol gives it: an RTMP
player's message stream, an HTTP response, a relay's publication.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from twisted.logger import Logger

from twisted_rtmp.limits import QueueLimits
from twisted_rtmp.live.packaging import Packaging
from twisted_rtmp.live.queue import HEADERS, Loss, PlayerQueue
from twisted_rtmp.live.selection import Selection
from twisted_rtmp.media.parts import trackIdsOf
from twisted_rtmp.media.payloads import KEY_FRAME
from twisted_rtmp.names import printable
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.messages import Message

if TYPE_CHECKING:
    from twisted_rtmp.interfaces import StreamRequest
    from twisted_rtmp.ledger import Ledger
    from twisted_rtmp.live.tracks import Ended, Track

#: Bytes that are written to a player at once, which its transport may have to copy and
#: keep: larger messages and batches are written bit by bit.
QUEUE_WRITE_BYTES = 128 * 1024

_AUDIO: int = MessageType.AUDIO
_VIDEO: int = MessageType.VIDEO


class PlayedStream(Protocol):
    """A live stream, as far as its players and their outlets know it."""

    @property
    def application(self) -> str:
        """The application's name."""

    @property
    def name(self) -> str:
        """The stream's own name."""

    @property
    def label(self) -> str:
        """Application and name for log lines."""

    @property
    def ledger(self) -> Ledger:
        """The figures of what has come."""

    @property
    def properties(self) -> Mapping[str, Any]:
        """The properties of the newest metadata."""

    @property
    def enhanced(self) -> bool:
        """Tell whether anything that its publisher sent had an enhanced header."""

    @property
    def frames(self) -> int:
        """The coded frames that its publisher has sent."""

    @property
    def tracks(self) -> Sequence[Track]:
        """The tracks, and what has come of each."""

    def ended(self) -> Ended:
        """Tell which tracks have ended, so that newcomers begin without them."""

    @property
    def hasVideoTracks(self) -> bool:
        """Tell whether there are several video tracks."""

    def headers(self) -> list[Message]:
        """List what a decoder needs before the first frame."""

    def videoTracks(self, selection: Selection) -> set[int]:
        """List which of several video tracks pass a selection with their numbers."""

    def isPrimary(self, message: Message) -> bool:
        """Decide whether a video message is of the first video track."""


class Outlet(Protocol):
    """The way from a player to its peer."""

    @property
    def peer(self) -> str:
        """The peer's address, for log lines."""

    @property
    def congested(self) -> bool:
        """Tell whether the player is to queue, until its L{Player.drain} is called."""

    def writeMedia(self, data: bytes) -> None:
        """Send bytes; L{congested} may be set afterwards."""

    def streamStarted(self, player: Player, stream: PlayedStream, again: bool) -> None:
        """
        Tell the peer that a stream is there; its first bytes follow.

        @param again: whether the player had to wait for it, or played another
            publication before.
        """

    def streamEnded(self, player: Player) -> None:
        """Tell the peer that the stream has ended; all of it has been handed over."""

    def warn(self, format: str, **fields: object) -> None:  # noqa: A002
        """Log something that the peer loses, C{peer} in the format."""

    def abort(self, why: str) -> None:
        """Close at once, whatever is queued: the player is too far behind."""


class Group(Protocol):
    """All players of a stream, as far as one of them knows them."""

    @property
    def stream(self) -> PlayedStream:
        """The live stream."""

    @property
    def hasVideo(self) -> bool:
        """Tell whether the stream has had a coded frame of video."""

    @property
    def now(self) -> float:
        """The clock's time, in seconds."""

    def videoTracks(self, packaging: Packaging) -> set[int]:
        """List which of several video tracks a packaging has, by their numbers."""

    def flush(self) -> None:
        """Send all that waits to every player."""

    def append(self, player: Player) -> None:
        """Send to a player what comes from here on."""

    def remove(self, player: Player) -> None:
        """Send nothing more to a player."""

    def keepFor(self, player: Player) -> None:
        """Be charged until a player has taken what waits, after the stream's end."""

    def keptEnough(self, player: Player) -> None:
        """Be charged no more for what has waited for a player."""


class _Flow(Enum):
    """The things that a player does with the stream's frames."""

    FLOWING = "it gets all"
    KEY_FRAME = "it waits for a key frame"
    PAUSED = "its peer has paused it"


class Player:
    """
    One peer's play of one stream.

    @ivar packaging: how messages are written for it.
    @ivar name: the stream's name, as the peer calls it.
    @ivar key: the application and the stream's own name, once it plays or waits.
    @ivar gopCache: whether it begins with the current GOP, or with the next key frame.
    @ivar once: whether it is done after one publication, and waits for no other.
    @ivar request: the peer's; L{None} for a player of the server's own.
    @ivar sent: messages that it got.
    @ivar sentBytes: as they were written for it.
    @ivar refusedTracks: messages that were not sent, or tracks of them, since it did
        not announce that it can decode them.
    @ivar since: when it began to wait or to play, in the clock's seconds.
    @ivar group: the players of the stream that it plays; L{None} while it waits.
    @ivar queue: what waits for its peer.
    @ivar unfinished: a large message, of which a part has been sent: until the rest
        is, the outlet is congested, and nothing else of a stream is sent on it.
    """

    log = Logger()

    def __init__(
        self,
        outlet: Outlet,
        packaging: Packaging,
        name: str,
        since: float,
        *,
        gopCache: bool = True,
        once: bool = False,
        limits: QueueLimits | None = None,
        mayBeginWith: Callable[[int], bool] | None = None,
        request: StreamRequest | None = None,
    ) -> None:
        """
        Make a player that neither plays nor waits yet.

        @param since: the clock's time, in seconds.
        @param limits: the bounds of what may wait for the peer.
        @param mayBeginWith: decides whether a cached GOP that costs so many bytes is
            sent to the peer; all are by default.
        """
        self.packaging = packaging
        self.name = name
        self.key = ("", "")
        self.since = since
        self.gopCache = gopCache
        self.once = once
        self.request = request
        self._mayBeginWith = mayBeginWith
        self.sent = 0
        self.sentBytes = 0
        self.refusedTracks = 0
        self.group: Group | None = None
        self.queue = PlayerQueue(limits or QueueLimits())
        self._queued = self.queue.messages
        self.unfinished: Message | None = None
        self._pieces: deque[tuple[bytes, memoryview]] = deque()
        self._outlet = outlet
        self._flow = _Flow.FLOWING
        self._audio = True
        self._video = True
        # Whether the outlet is to learn of the stream's end when all is sent; and the
        # group that had the stream, as long as some is not.
        self._ending = False
        self._leftOver: Group | None = None
        self._lossLogged = False
        # Since when it has lost frames, and what it had got by then; None once it has
        # kept up again.
        self._slowSince: float | None = None
        self._slowBytes = 0
        # Whether it waits for a key frame since it did not keep up.
        self._lagged = False
        # The video tracks whose key frames have come while it waits for them.
        self._resumedTracks: set[int] = set()

    @property
    def peer(self) -> str:
        """The peer's address, for log lines."""
        return self._outlet.peer

    @property
    def queuedBytes(self) -> int:
        """The bytes that wait for the peer: payloads, and a header for each."""
        return self.queue.bytes

    @property
    def dropped(self) -> int:
        """The messages that the player did not get since it did not keep up."""
        return self.queue.dropped

    @property
    def droppedBytes(self) -> int:
        """The bytes of their payloads."""
        return self.queue.droppedBytes

    @property
    def label(self) -> str:
        """The stream's application and name, for log lines."""
        return printable("/".join(self.key))

    # What its peer asks for

    def pause(self, paused: bool) -> None:
        """Stop getting frames, or go on with the next key frame."""
        if paused:
            self._flow = _Flow.PAUSED
            self.queue.keepHeaders()
        elif self._flow is _Flow.PAUSED:
            self._flow = _Flow.FLOWING
            self.awaitKeyFrame()

    def receive(self, *, audio: bool | None = None, video: bool | None = None) -> None:
        """Turn audio or video off or on; video begins with a key frame."""
        if audio is not None and audio != self._audio:
            self._audio = audio
            if not audio:
                self.queue.withdraw(_AUDIO)
        if video is not None and video != self._video:
            self._video = video
            if video:
                self.awaitKeyFrame()
            else:
                self.queue.withdraw(_VIDEO)

    def awaitKeyFrame(self) -> None:
        """
        Get no video before a key frame, if there is video; a pause goes on.

        Of several tracks each begins with a key frame of its own.
        """
        if self._flow is _Flow.PAUSED:
            return
        self._resumedTracks.clear()
        if self.group is not None and self.group.hasVideo:
            self._flow = _Flow.KEY_FRAME
        else:
            self._flow = _Flow.FLOWING

    # Where it belongs

    def waitFor(self, application: str, name: str) -> None:
        """Wait for a stream that nobody publishes yet."""
        self.key = (application, name)

    def attach(self, group: Group, again: bool) -> None:
        """
        Begin to play a stream that is there.

        @param again: see L{Outlet.streamStarted}.
        """
        if self._ending:
            # It is too late for the rest of the last one: behind that would come its
            # end, and players leave at it.
            self.queue.loseAll()
            self._allSent()
        self.group = group
        stream = group.stream
        self.key = (stream.application, stream.name)
        if self._flow is not _Flow.PAUSED:
            self._flow = _Flow.FLOWING
        self._outlet.streamStarted(self, stream, again)

    def detach(self) -> None:
        """Leave the stream, which may go on."""
        self.group = None

    def publisherChanged(self) -> None:
        """Get no video but from a key frame on."""
        if self._flow is not _Flow.PAUSED:
            self._resumedTracks.clear()
            self._flow = _Flow.KEY_FRAME

    def end(self, now: float) -> None:
        """
        Tell the peer that the stream is over, when everything has been sent.

        @param now: the clock's time, in seconds.
        """
        group = self.group
        self.detach()
        self.since = now
        self._ending = True
        self.drain()
        if self._ending and group is not None:
            self._leftOver = group
            group.keepFor(self)

    def leave(self) -> None:
        """
        Forget the rest of a large message, and of a stream that has ended.

        Its peer asks for nothing else meanwhile: it is not read while congested.
        """
        self._pieces.clear()
        self.unfinished = None
        self._takenAll()

    def _takenAll(self) -> None:
        """Keep nothing of a stream that has ended any more."""
        if self._leftOver is not None:
            self._leftOver.keptEnough(self)
            self._leftOver = None

    def giveUp(self) -> None:
        """Lose what waits, all but headers: it takes too much memory."""
        self.queue.loseFrames()
        self._lost(Loss.VIDEO)
        self.drain()

    def fail(self) -> None:
        """End it: a bug keeps it from going on."""
        self._flow = _Flow.PAUSED
        self._outlet.abort("the server cannot send it its stream")

    def tooLate(self) -> None:
        """End it: it has not taken the rest of a stream that ended long ago."""
        seconds = self.queue.limits.slowSeconds
        self._outlet.abort(f"it has not taken the rest of its stream in {seconds:g} s")

    def giveUpUnfinished(self) -> None:
        """End it, if it has not taken the rest of a large message."""
        if self.unfinished is not None:
            self._outlet.abort("it takes a large message too slowly")

    def bindStart(self, position: int) -> None:
        """
        Lose what it begins with, if it is too much and no longer shared.

        @param position: how far the stream is, in bytes.
        """
        self.queue.bindStart(position)
        self._shorten()

    # What its group gives it

    def mayBeginWith(self, gopBytes: int) -> bool:
        """Decide whether it begins with a cached GOP."""
        mayBegin = self._mayBeginWith
        return self.gopCache and (mayBegin is None or mayBegin(gopBytes))

    def startWith(self, messages: list[Message], position: int = 0) -> None:
        """
        Take what a stream begins with.

        It may be more than a player may queue otherwise, since all players that joined
        within a GOP share its messages; so it is written bit by bit, as the peer takes
        it.

        @param position: how far the stream is, in bytes.
        """
        self.queue.startWith([m for m in messages if self._wants(m)], position)
        self.drain()

    def deliver(self, messages: list[Message], data: bytes) -> None:
        """
        Take messages.

        @param data: all of them, as they are written.
        """
        if self._flow is _Flow.FLOWING and self._audio and self._video:
            if (
                not self._queued
                and not self._outlet.congested
                and len(data) <= QUEUE_WRITE_BYTES
            ):
                self.sent += len(messages)
                self.sentBytes += len(data)
                self._outlet.writeMedia(data)
                return
            self.queue.extend(messages)
        else:
            self.queue.extend([m for m in messages if self._wants(m)])
        self.drain()
        self._shorten()

    def _wants(self, message: Message) -> bool:
        """Decide whether a message is for this player, in its state."""
        flags = message.flags
        if message.typeId == _VIDEO:
            if flags & HEADERS:
                return True
            if not self._video or self._flow is _Flow.PAUSED:
                return False
            if self._flow is _Flow.KEY_FRAME and not self._resumes(message):
                if self._lagged:
                    self.queue.lose(message)
                return False
            return True
        if message.typeId == _AUDIO and not flags & HEADERS:
            return self._audio and self._flow is not _Flow.PAUSED
        return True

    def _resumes(self, message: Message) -> bool:
        """Decide whether video can be decoded while key frames are waited for."""
        flags = message.flags
        tracks = trackIdsOf(message)
        resumed = self._resumedTracks
        if not flags & KEY_FRAME:
            return not resumed.isdisjoint(tracks)
        resumed.update(tracks)
        if self.group is None or resumed >= self.group.videoTracks(self.packaging):
            self._lagged = False
            self._flow = _Flow.FLOWING
        return True

    def refuse(self, tracks: int) -> None:
        """Count what is not sent since the player cannot decode it."""
        if not self.refusedTracks:
            self._outlet.warn(
                "{peer} is not sent all of {name}: it did not announce that it decodes"
                " the codec; further messages are counted only",
                name=self.label,
            )
        self.refusedTracks += tracks

    def drain(self) -> None:
        """Send what waits, until the connection has enough."""
        queued, pieces = self._queued, self._pieces
        while (pieces or queued) and not self._outlet.congested:
            if pieces:
                data = self._takePieces()
            else:
                messages = self.queue.take(QUEUE_WRITE_BYTES)
                self.sent += len(messages)
                if len(messages[0].payload) > QUEUE_WRITE_BYTES:
                    [self.unfinished] = messages
                    pieces.extend(self.packaging.cut(messages[0]))
                    continue
                data = self.packaging.encodeAll(messages)
            self.sentBytes += len(data)
            self._outlet.writeMedia(data)
        if not queued and not pieces:
            self._allSent()

    def _takePieces(self) -> bytes:
        """Go on with a large message."""
        pieces = self._pieces
        taken: list[bytes | memoryview] = []
        size = 0
        while pieces and size < QUEUE_WRITE_BYTES:
            piece = pieces.popleft()
            taken += piece
            size += len(piece[1])
        if not pieces:
            self.unfinished = None
        return b"".join(taken)

    def _allSent(self) -> None:
        self._slowSince = None
        if self._ending:
            self._ending = False
            self._takenAll()
            self._outlet.streamEnded(self)

    def _shorten(self) -> None:
        """Lose frames rather than queue without bound."""
        loss = self.queue.shorten()
        if loss is not Loss.NOTHING:
            self._lost(loss)

    def _lost(self, loss: Loss) -> None:
        """Go on where what comes can be decoded, or end it."""
        if not self._lossLogged:
            self._lossLogged = True
            self._outlet.warn(
                "{peer} does not keep up with {name}: it loses frames up to the next"
                " key frame; further losses are counted only",
                name=self.label,
            )
        if loss is Loss.VIDEO:
            self.awaitKeyFrame()
            self._lagged = self._flow is _Flow.KEY_FRAME
        elif loss is Loss.ALL:
            self._flow = _Flow.PAUSED
            self._outlet.abort("it does not take its stream's headers")
            return
        self._checkRate()

    def _checkRate(self) -> None:
        """Cut a peer that takes so little that it is of no use to anybody."""
        if self.group is None:
            return
        limits = self.queue.limits
        now = self.group.now
        since = self._slowSince
        if since is not None:
            if now - since < limits.slowSeconds:
                return
            if self.sentBytes - self._slowBytes < limits.slowRate * (now - since):
                self._flow = _Flow.PAUSED
                self.queue.loseAll()
                self._outlet.abort(
                    f"it has lost frames for {limits.slowSeconds:g} s and takes less"
                    f" than {limits.slowRate} bytes a second"
                )
                return
        self._slowSince = now
        self._slowBytes = self.sentBytes

    def repackage(self, packaging: Packaging) -> None:
        """
        Write everything in another way from here on, also what is queued.

        @param packaging: one with the same selection.
        """
        group = self.group
        if group is not None:
            group.remove(self)
        self.packaging = packaging
        if group is not None:
            group.append(self)
