"""
Fan-out: the players of a live stream.

Imports C{twisted_rtmp.wire} and the interfaces; players reach their peer through
the small L{Outlet} that a protocol gives them: an RTMP player's message stream, an
HTTP response, a relay's publication.

Each message is serialised once for all players of a stream that take the same
L{Form}, and so that a player can begin, skip and resume at any message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs

from twisted.logger import Logger
from zope.interface import implementer

from twisted_rtmp.flv.tags import encodeTag
from twisted_rtmp.interfaces import IMediaSink
from twisted_rtmp.live.selection import EVERYTHING, Selection
from twisted_rtmp.media.metadata import isMetadata
from twisted_rtmp.media.parts import PlainTrack, splitTracks, trackIdsOf
from twisted_rtmp.media.payloads import (
    CODED,
    KEY_FRAME,
    METADATA,
    MULTITRACK,
    SEQUENCE_END,
    SEQUENCE_HEADER,
    flagsOf,
)
from twisted_rtmp.names import printable
from twisted_rtmp.wire.chunk import encodeMessage
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.limits import MIB
from twisted_rtmp.wire.messages import Message

if TYPE_CHECKING:
    from twisted_rtmp.live.pacing import Pacer

#: What waits for a player that does not keep up, in bytes and in seconds of media.
#: Past either, it loses whole GOPs.  3 MiB are 10 s of 2.5 Mb/s, 1 s of 25 Mb/s;
#: with the transport's own buffer it stays below 4 MB.
PLAYER_QUEUE_BYTES = 3 * MIB
PLAYER_QUEUE_SECONDS = 10.0

#: The same in messages: 10 s of 16 video tracks of 60 frames a second.  The smallest
#: ones cost 20 times their bytes, and all are looked through now and then.
PLAYER_QUEUE_MESSAGES = 10_000

#: What is kept of the current GOP for players that join, in bytes, in messages and in
#: seconds: 8 MiB are 10 s of 6 Mb/s.  SRS keeps 2500 frames, node-media-server 4096;
#: with audio these are half a minute.  A camera with a frame a second reaches neither
#: bound for long, but nobody wants to begin minutes behind.
GOP_BYTES = 8 * MIB
GOP_MESSAGES = 2500
GOP_SECONDS = 30.0

#: Bytes that are written to a player at once out of its queue.
QUEUE_WRITE_BYTES = 256 * 1024

#: Chunk streams by message type: one for each, and none that replies go on.
_CHUNK_STREAMS = {
    int(MessageType.AUDIO): 4,
    int(MessageType.VIDEO): 6,
    int(MessageType.DATA_AMF0): 7,
}

_AUDIO: int = MessageType.AUDIO
_VIDEO: int = MessageType.VIDEO
_DATA: int = MessageType.DATA_AMF0
_HEADER = SEQUENCE_HEADER | SEQUENCE_END | METADATA


def _isHeader(message: Message) -> bool:
    """Whether a message is kept for a player whatever it loses."""
    if message.typeId == _DATA:
        return isMetadata(message)
    return bool(message.flags & _HEADER)


def _timeOfFirst(entries: Iterable[tuple[Message, bytes]]) -> int | None:
    """The time of the first frame of a queue; headers and data may have any."""
    for message, _ in entries:
        if message.typeId != _DATA and not message.flags & _HEADER:
            return message.timestamp
    return None


def _isBefore(index: int, message: Message, ends: dict[int, int]) -> bool:
    """
    Whether a message of a queue is before the places at which its tracks go on.

    @param ends: the places, by the number of the track.
    """
    tracks = trackIdsOf(_VIDEO, message.payload, message.flags)
    return all(index < ends.get(track, 0) for track in tracks)


class Form(Hashable, Protocol):
    """What is written, and how; players of equal forms share the bytes."""

    @property
    def selection(self) -> Selection:
        """What of the stream is written at all."""

    def encode(self, message: Message) -> bytes:
        """
        Write a message such that nothing before it is needed to read it.

        @param message: what the selection made of one.
        """


@dataclass(frozen=True)
class RTMPForm:
    """
    Chunks with a format 0 header.

    @ivar streamId: the message stream id.
    @ivar chunkSize: payload bytes of a chunk.
    @ivar selection: what of the stream is written.
    """

    streamId: int
    chunkSize: int
    selection: Selection = EVERYTHING

    def encode(self, message: Message) -> bytes:
        typeId = message.typeId
        return encodeMessage(
            _CHUNK_STREAMS[typeId],
            typeId,
            message.timestamp,
            self.streamId,
            message.payload,
            self.chunkSize,
        )


@dataclass(frozen=True)
class FLVForm:
    """
    FLV tags, each with its back pointer.

    @ivar selection: what of the stream is written.
    """

    selection: Selection = EVERYTHING

    def encode(self, message: Message) -> bytes:
        return encodeTag(message.typeId, message.timestamp, message.payload)


def choose(
    selection: Selection,
    messages: list[Message],
    split: Callable[[int, bytes], list[PlainTrack]] = splitTracks,
) -> tuple[list[Message], int]:
    """
    Take out of messages what passes a selection.

    @param split: takes messages apart.
    @return: the same messages, or others in their place where only a part passes or
        another form; and how many tracks of them the player would have got, but cannot
        read.
    """
    chosen: list[Message] = []
    refused = 0
    for message in messages:
        typeId, payload = message.typeId, message.payload
        payloads, missing = selection.select(typeId, payload, message.flags, split)
        refused += missing
        for part in payloads:
            if part is payload:
                chosen.append(message)
            else:
                flags = flagsOf(typeId, part)
                chosen.append(
                    Message(typeId, message.timestamp, message.streamId, part, flags)
                )
    return chosen, refused


def wantsGOP(query: str, default: bool) -> bool:
    """
    Whether a player is to begin with the current GOP: C{gop=0} in the query of the
    stream's name says no, C{gop=1} yes.

    @param default: what goes when it says neither.
    """
    values = parse_qs(query).get("gop", [""])
    return {"0": False, "1": True}.get(values[-1], default)


class Outlet(Protocol):
    """What a player knows of where it sends."""

    @property
    def peer(self) -> str:
        """Who is at its other end, for log lines."""

    @property
    def congested(self) -> bool:
        """Whether the player is to queue, until its L{Player.drain} is called."""

    def writeMedia(self, data: bytes) -> None:
        """Send bytes; L{congested} may be set afterwards."""

    def streamBegan(self, player: Player, again: bool) -> None:
        """
        A stream is there, and its first bytes follow.

        @param again: whether the player had to wait for it, or played another
            publication before.
        """

    def streamOver(self, player: Player) -> None:
        """The stream has ended; all of it has been handed over."""

    def cut(self, why: str) -> None:
        """Close at once, whatever is queued: the player is too far behind."""


class PlayedStream(Protocol):
    """What a group of players needs to know of its live stream."""

    @property
    def label(self) -> str:
        """Application and name for log lines."""

    @property
    def enhanced(self) -> bool:
        """Whether anything of it had an enhanced header."""

    @property
    def hasVideoTracks(self) -> bool:
        """Whether there are several video tracks."""

    def headers(self) -> list[Message]:
        """List what a decoder needs before the first frame."""

    def videoTracks(self, selection: Selection) -> set[int]:
        """List which of several video tracks pass a selection with their numbers."""

    def isPrimary(self, message: Message) -> bool:
        """Decide whether a video message is of the first video track."""


class _Flow(Enum):
    """What a player does with the stream's frames."""

    FLOWING = "it gets all"
    KEY_FRAME = "it waits for a key frame"
    PAUSED = "its peer has paused it"


class Player:
    """
    One peer's play of one stream.

    @ivar form: how messages are written for it.
    @ivar name: the stream's name, as the peer calls it.
    @ivar key: the application and the stream's own name, once it plays or waits.
    @ivar gopCache: whether it begins with the current GOP, or with the next key frame.
    @ivar once: whether it is done after one publication, and waits for no other.
    @ivar dropped: messages that it did not get since it did not keep up.
    @ivar droppedBytes: of their payloads.
    @ivar sent: messages that it got.
    @ivar sentBytes: as they were written for it.
    @ivar refusedTracks: messages that were not sent, or tracks of them, since it did
        not announce that it can decode them.
    @ivar since: when it began to wait or to play, in the clock's seconds.
    """

    log = Logger()

    def __init__(
        self,
        outlet: Outlet,
        form: Form,
        name: str,
        since: float,
        *,
        gopCache: bool = True,
        once: bool = False,
    ) -> None:
        self.form = form
        self.name = name
        self.key = ("", "")
        self.since = since
        self.gopCache = gopCache
        self.once = once
        self.dropped = 0
        self.droppedBytes = 0
        self.sent = 0
        self.sentBytes = 0
        self.refusedTracks = 0
        self.group: PlayerGroup | None = None
        self._outlet = outlet
        self._flow = _Flow.FLOWING
        self._audio = True
        self._video = True
        self._queue: deque[tuple[Message, bytes]] = deque()
        self._queuedBytes = 0
        # How much at its head is what the player has begun with.
        self._first = 0
        self._firstBytes = 0
        self._ending = False
        self._told = False
        # Whether it waits for a key frame since it did not keep up.
        self._lagged = False
        # The video tracks whose key frames have come while it waits for them.
        self._begun: set[int] = set()

    @property
    def peer(self) -> str:
        """The other end, for log lines."""
        return self._outlet.peer

    @property
    def queuedBytes(self) -> int:
        """The bytes that wait for the peer, as they are to be written."""
        return self._queuedBytes

    @property
    def label(self) -> str:
        """The stream's application and name, for log lines."""
        return printable("/".join(self.key))

    # What its peer asks for

    def pause(self, paused: bool) -> None:
        """Stop getting frames, or go on with the next key frame."""
        if paused:
            self._flow = _Flow.PAUSED
            self._forget()
        elif self._flow is _Flow.PAUSED:
            self._flow = _Flow.FLOWING
            self.awaitKeyFrame()

    def receive(self, *, audio: bool | None = None, video: bool | None = None) -> None:
        """Turn audio or video off or on; video begins with a key frame."""
        if audio is not None:
            self._audio = audio
        if video is not None and video != self._video:
            self._video = video
            if video:
                self.awaitKeyFrame()

    def awaitKeyFrame(self) -> None:
        """
        Get no video before a key frame, if there is video; a pause goes on.

        Of several tracks each begins with a key frame of its own.
        """
        if self._flow is _Flow.PAUSED:
            return
        self._begun.clear()
        if self.group is not None and self.group.hasVideo:
            self._flow = _Flow.KEY_FRAME
        else:
            self._flow = _Flow.FLOWING

    @property
    def beginning(self) -> bool:
        """Whether some of what it has begun with waits for it."""
        return self._first > 0

    # What its group gives it

    def join(self, messages: list[Message], encoded: list[bytes]) -> None:
        """
        Take what a stream begins with.

        It may be more than a player may queue otherwise, since all who have joined
        within a GOP share its bytes; so it is written by and by, as far as it is
        taken.

        @param encoded: each as it is written.
        """
        for message, chunks in zip(messages, encoded, strict=True):
            if self._wants(message):
                self._queue.append((message, chunks))
                self._queuedBytes += len(chunks)
        self._first = len(self._queue)
        self._firstBytes = self._queuedBytes
        self.drain()

    def deliver(
        self, messages: list[Message], encoded: list[bytes], joined: bytes
    ) -> None:
        """
        Take messages.

        @param encoded: each as chunks.
        @param joined: all of them.
        """
        if (
            self._flow is _Flow.FLOWING
            and not self._queue
            and not self._outlet.congested
            and self._audio
            and self._video
        ):
            self.sent += len(messages)
            self.sentBytes += len(joined)
            self._outlet.writeMedia(joined)
            return
        for message, chunks in zip(messages, encoded, strict=True):
            if self._wants(message):
                self._queue.append((message, chunks))
                self._queuedBytes += len(chunks)
        self.drain()
        self._bound()

    def _wants(self, message: Message) -> bool:
        """Whether a message is for this player, in its state."""
        flags = message.flags
        if message.typeId == _VIDEO:
            if flags & _HEADER:
                return True
            if not self._video or self._flow is _Flow.PAUSED:
                return False
            if self._flow is _Flow.KEY_FRAME and not self._mayBegin(message):
                if self._lagged:
                    self._lose(message)
                return False
            return True
        if message.typeId == _AUDIO and not flags & _HEADER:
            return self._audio and self._flow is not _Flow.PAUSED
        return True

    def _mayBegin(self, message: Message) -> bool:
        """Whether video can be decoded that comes while it waits for key frames."""
        flags = message.flags
        tracks = trackIdsOf(_VIDEO, message.payload, flags)
        if not flags & KEY_FRAME:
            return not self._begun.isdisjoint(tracks)
        self._begun.update(tracks)
        if self.group is None or self._begun >= self.group.videoTracks(self.form):
            self._lagged = False
            self._flow = _Flow.FLOWING
        return True

    def refuse(self, tracks: int) -> None:
        """Count what is not sent since the player cannot decode it."""
        if not self.refusedTracks:
            self.log.warn(
                "{peer} is not sent all of {name}: it did not announce that it decodes"
                " the codec; further messages are counted only",
                peer=self._outlet.peer,
                name=self.group.label if self.group is not None else "",
            )
        self.refusedTracks += tracks

    def drain(self) -> None:
        """Send what waits, until the connection has enough."""
        queue = self._queue
        while queue and not self._outlet.congested:
            size = 0
            pieces = []
            while queue and size < QUEUE_WRITE_BYTES:
                _, chunks = queue.popleft()
                pieces.append(chunks)
                size += len(chunks)
            self._queuedBytes -= size
            if self._first:
                self._first = max(0, self._first - len(pieces))
                self._firstBytes = max(0, self._firstBytes - size) if self._first else 0
            self.sent += len(pieces)
            self.sentBytes += size
            self._outlet.writeMedia(b"".join(pieces))
        if self._ending and not queue:
            self._ending = False
            self._outlet.streamOver(self)

    def _bound(self) -> None:
        """
        Lose frames rather than queue without bound.

        Video goes first, up to a key frame; then the oldest audio and data.
        Headers stay: without them nothing could be decoded any more.
        """
        if not self._isOver():
            return
        self._first = self._firstBytes = 0
        if not self._told:
            self._told = True
            self.log.warn(
                "{peer} does not keep up with {name}: it loses frames up to the next"
                " key frame; further losses are counted only",
                peer=self._outlet.peer,
                name=self.group.label if self.group is not None else "",
            )
        self._loseVideo(upToKeyFrame=True)
        self._loseAudioOfLostVideo()
        if self._isOver():
            self._loseVideo(upToKeyFrame=False)
            self.awaitKeyFrame()
            self._lagged = self._flow is _Flow.KEY_FRAME
        if self._isOver():
            self._loseAudio()
        if self._isOver():
            self._queue.clear()
            self._queuedBytes = 0
            self._flow = _Flow.PAUSED
            self._outlet.cut("it does not take its stream's headers")

    def _isTooMuch(self) -> bool:
        """Whether more is queued than may be, in bytes or in messages."""
        return (
            self._queuedBytes - self._firstBytes > PLAYER_QUEUE_BYTES
            or len(self._queue) - self._first > PLAYER_QUEUE_MESSAGES
        )

    def _isOver(self) -> bool:
        """Whether more is queued than may be, or of too long a time."""
        if self._isTooMuch():
            return True
        queue = self._queue
        if not queue:
            return False
        newest = _timeOfFirst(reversed(queue))
        oldest = _timeOfFirst(islice(queue, self._first, None))
        if newest is None or oldest is None:
            return False
        # Where the stream's time has jumped back, the older ones have the later time.
        return abs(newest - oldest) > PLAYER_QUEUE_SECONDS * 1000

    def _loseVideo(self, *, upToKeyFrame: bool) -> None:
        """
        Take video frames out of the queue, all of them or those before the last key
        frame of their track in it.
        """
        queue = self._queue
        ends: dict[int, int] = {}
        if upToKeyFrame:
            for index, (message, _) in enumerate(queue):
                if index and message.typeId == _VIDEO and message.flags & KEY_FRAME:
                    for track in trackIdsOf(_VIDEO, message.payload, message.flags):
                        ends[track] = index
            if not ends:
                return
        kept: deque[tuple[Message, bytes]] = deque()
        for index, entry in enumerate(queue):
            message = entry[0]
            if (
                message.typeId == _VIDEO
                and not message.flags & _HEADER
                and (not upToKeyFrame or _isBefore(index, message, ends))
            ):
                self._queuedBytes -= len(entry[1])
                self._lose(message)
            else:
                kept.append(entry)
        self._queue = kept

    def _loseAudioOfLostVideo(self) -> None:
        """
        Take audio and data out of the queue that are older than its first frame, if
        it is too long: it is not shortened by losing that frame as well.
        """
        queue = self._queue
        if self._isTooMuch() or not self._isOver():
            return
        frames = (
            (index, message.timestamp)
            for index, (message, _) in enumerate(queue)
            if message.typeId == _VIDEO and not message.flags & _HEADER
        )
        place, first = next(frames, (0, 0))
        if not place:
            return
        latest = first + PLAYER_QUEUE_SECONDS * 1000
        kept: deque[tuple[Message, bytes]] = deque()
        for index, (message, chunks) in enumerate(queue):
            if (
                index < place
                and not first <= message.timestamp <= latest
                and not _isHeader(message)
            ):
                self._queuedBytes -= len(chunks)
                self._lose(message)
            else:
                kept.append((message, chunks))
        self._queue = kept

    def _loseAudio(self) -> None:
        """
        Take the oldest audio and data out of the queue, until it is half empty: so
        that it is not looked through again for each further message.
        """
        queue = self._queue
        newest = _timeOfFirst(reversed(queue))
        left = len(queue)
        kept: deque[tuple[Message, bytes]] = deque()
        for message, chunks in queue:
            if not _isHeader(message) and (
                self._queuedBytes > PLAYER_QUEUE_BYTES // 2
                or left > PLAYER_QUEUE_MESSAGES // 2
                or newest is None
                or abs(newest - message.timestamp) > PLAYER_QUEUE_SECONDS * 500
            ):
                self._queuedBytes -= len(chunks)
                left -= 1
                self._lose(message)
            else:
                kept.append((message, chunks))
        self._queue = kept

    def _lose(self, message: Message) -> None:
        """Count a message that the player does not get."""
        self.dropped += 1
        self.droppedBytes += len(message.payload)

    def _forget(self) -> None:
        """Empty the queue of frames, since the peer wants none; headers stay."""
        self._first = self._firstBytes = 0
        self._queue = deque(e for e in self._queue if _isHeader(e[0]))
        self._queuedBytes = sum(len(chunks) for _, chunks in self._queue)

    def setForm(self, form: Form) -> None:
        """
        Write everything in another form from here on, also what is queued.

        @param form: one with the same selection.
        """
        group = self.group
        if group is not None:
            group.remove(self)
        self.form = form
        self._queue = deque((m, form.encode(m)) for m, _ in self._queue)
        self._queuedBytes = sum(len(chunks) for _, chunks in self._queue)
        first = islice(self._queue, self._first)
        self._firstBytes = sum(len(chunks) for _, chunks in first)
        if group is not None:
            group.append(self)

    def begin(self, group: PlayerGroup, again: bool) -> None:
        """A stream is there to play."""
        if self._ending:
            # It is too late for the rest of the last one: behind that would come its
            # end, and players leave at it.
            for message, _ in self._queue:
                self._lose(message)
            self._queue.clear()
            self._queuedBytes = 0
            self.drain()
        self.group = group
        if self._flow is not _Flow.PAUSED:
            self._flow = _Flow.FLOWING
        self._outlet.streamBegan(self, again)

    def publisherChanged(self) -> None:
        """Get no video but from a key frame on."""
        if self._flow is not _Flow.PAUSED:
            self._begun.clear()
            self._flow = _Flow.KEY_FRAME

    def end(self, now: float) -> None:
        """The stream is over; say so when everything has been sent."""
        self.group = None
        self.since = now
        self._ending = True
        self.drain()


@implementer(IMediaSink)
class PlayerGroup:
    """
    All players of one live stream, and the GOP that newcomers begin with.

    @ivar players: by the form of what they take.
    @ivar hasVideo: whether the stream has had a coded frame of video.
    @ivar label: the stream's, for log lines.
    """

    def __init__(self, stream: PlayedStream, pacer: Pacer) -> None:
        self.players: dict[Form, list[Player]] = {}
        self.hasVideo = False
        self.label = stream.label
        self._stream = stream
        self._pacer = pacer
        self._count = 0
        # How many of them asked for another track than the first.
        self._further = 0
        # The headers that the GOP was coded with, then the GOP, in which others may
        # come.
        self._gop: list[Message] = []
        self._gopBytes = 0
        self._gopSince = 0
        # The GOP as the newest player took it, since the next one mostly takes the
        # same: one form only, as a peer can have as many as it likes.
        self._gopForm: Form | None = None
        self._gopDone = 0
        self._gopChosen: list[Message] = []
        self._gopEncoded: list[bytes] = []
        self._gopRefused = 0
        self._pending: list[Message] = []

    def __len__(self) -> int:
        return self._count

    # From the stream

    def mediaReceived(self, message: Message) -> None:
        """Keep the GOP, and gather what the players get."""
        gop = self._gop
        flags = message.flags
        if (
            flags & KEY_FRAME
            and message.typeId == _VIDEO
            and (not flags & MULTITRACK or self._stream.isPrimary(message))
        ):
            self.hasVideo = True
            self._setGOP([*self._stream.headers(), message])
            self._gopSince = message.timestamp
        elif gop:
            gop.append(message)
            self._gopBytes += len(message.payload)
            if (
                self._gopBytes > GOP_BYTES
                or len(gop) > GOP_MESSAGES
                or message.timestamp - self._gopSince > GOP_SECONDS * 1000
            ):
                # A newcomer waits for the next key frame then.
                self._setGOP([])
        elif message.typeId == _VIDEO and flags & CODED and not self.hasVideo:
            # The publisher has begun amid a GOP.
            self.hasVideo = True
            for player in self.everyone():
                player.awaitKeyFrame()
        if self._count:
            if not self._pending:
                self._pacer.pending(self)
            self._pending.append(message)

    def flush(self) -> None:
        """Send all that waits to every player."""
        messages = self._pending
        if not messages:
            return
        self._pending = []
        self._pacer.sent(len(messages) * self._count)
        # What has no enhanced header passes as it is: most streams have no other.
        choosing = self._stream.enhanced or self._further
        split: Callable[[int, bytes], list[PlainTrack]] = splitTracks
        if choosing and len(self.players) > 1:
            # Each message is taken apart once, whatever each of them has of it.
            split = cache(splitTracks)
        for form, players in list(self.players.items()):
            chosen = messages
            if choosing:
                chosen, refused = self._choose(form.selection, messages, split)
                if refused:
                    for player in players:
                        player.refuse(refused)
                if not chosen:
                    continue
            encoded = [form.encode(message) for message in chosen]
            joined = b"".join(encoded) if len(encoded) > 1 else encoded[0]
            for player in list(players):
                player.deliver(chosen, encoded, joined)

    def _choose(
        self,
        selection: Selection,
        messages: list[Message],
        split: Callable[[int, bytes], list[PlainTrack]] = splitTracks,
    ) -> tuple[list[Message], int]:
        """As L{choose}, at once where everything passes."""
        if (self._stream.enhanced or selection.further) and not selection.everything:
            return choose(selection, messages, split)
        return messages, 0

    def streamEnded(self) -> None:
        """Send what is left, and tell the players."""
        self.flush()
        self._setGOP([])

    def publisherChanged(self) -> None:
        """
        Another publisher continues the stream: what it sends can be decoded from its
        first key frame on.
        """
        self.flush()
        self._setGOP([])
        self.hasVideo = False
        for player in self.everyone():
            player.publisherChanged()

    # Players

    def add(self, player: Player, again: bool = False) -> None:
        """
        Begin to send to a player: headers, then the GOP or the next key frame.

        @param again: whether it has been told of a stream before.
        """
        self.flush()
        player.begin(self, again)
        form = player.form
        if self._gop and player.gopCache:
            if self._stream.hasVideoTracks:
                # It begins with a key frame of the first of them.
                player.awaitKeyFrame()
            self._encodeGOP(form)
            refused = self._gopRefused
            player.join(self._gopChosen, self._gopEncoded)
            if self._gopBytes * 2 > GOP_BYTES and not player.beginning:
                # The GOP and what was written of it stay within its bound together;
                # but what waits for one newcomer is kept for the next one too.
                self._forgetEncoded()
        else:
            headers, refused = self._choose(form.selection, self._stream.headers())
            encoded = [form.encode(message) for message in headers]
            player.join(headers, encoded)
            player.awaitKeyFrame()
        if refused:
            player.refuse(refused)
        self.append(player)

    def videoTracks(self, form: Form) -> set[int]:
        """Which of several video tracks a form has, by their numbers."""
        return self._stream.videoTracks(form.selection)

    def _encodeGOP(self, form: Form) -> None:
        """Write the GOP in a form; what was written for an earlier player is kept."""
        if form != self._gopForm:
            self._gopForm = form
            self._forgetEncoded()
        more = self._gop[self._gopDone :]
        self._gopDone = len(self._gop)
        chosen, refused = self._choose(form.selection, more)
        self._gopChosen += chosen
        self._gopRefused += refused
        self._gopEncoded += [form.encode(message) for message in chosen]

    def _forgetEncoded(self) -> None:
        """The GOP that was written is of no use any more."""
        self._gopDone = 0
        self._gopChosen = []
        self._gopEncoded = []
        self._gopRefused = 0

    def _setGOP(self, gop: list[Message]) -> None:
        """Begin a GOP, or have none."""
        self._gop = gop
        self._gopBytes = sum(len(message.payload) for message in gop)
        self._forgetEncoded()

    def append(self, player: Player) -> None:
        """Send to a player what comes from here on."""
        self.players.setdefault(player.form, []).append(player)
        self._count += 1
        self._further += player.form.selection.further

    def remove(self, player: Player) -> None:
        """Send nothing more to a player."""
        players = self.players.get(player.form)
        if players is not None and player in players:
            players.remove(player)
            self._count -= 1
            self._further -= player.form.selection.further
            if not players:
                del self.players[player.form]

    def everyone(self) -> Iterable[Player]:
        """All players."""
        return [player for players in self.players.values() for player in players]
