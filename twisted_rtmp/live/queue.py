"""
Queues of players: what waits for a peer that does not keep up, and what it loses.

A queue holds the stream's messages, which all players share, and not what is written
of them: a peer cannot make the server keep copies by asking for a form of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum

from twisted_rtmp.limits import QueueLimits
from twisted_rtmp.media.metadata import isMetadata
from twisted_rtmp.media.parts import trackIdsOf
from twisted_rtmp.media.payloads import (
    KEY_FRAME,
    METADATA,
    SEQUENCE_END,
    SEQUENCE_HEADER,
)
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.messages import Message

#: The header of a message as chunks, in bytes: a queue counts it for each, besides the
#: payload.
HEADER_BYTES = 12

#: Flags of what is kept for a player whatever it loses.
HEADERS = SEQUENCE_HEADER | SEQUENCE_END | METADATA

_VIDEO: int = MessageType.VIDEO
_DATA: int = MessageType.DATA_AMF0


class Loss(Enum):
    """The amount that was lost when a queue was shortened."""

    NOTHING = "the queue is within its limits"
    OLDEST = "whole GOPs: what is left can be decoded"
    VIDEO = "all frames of video: the next ones cannot be decoded"
    ALL = "everything: not even the headers are within the limits"


def isHeader(message: Message) -> bool:
    """Tell whether a message is kept for a player whatever it loses."""
    if message.typeId == _DATA:
        return isMetadata(message)
    return bool(message.flags & HEADERS)


def isFrame(message: Message) -> bool:
    """Tell whether a message is audio or video that has its time in the stream."""
    return message.typeId != _DATA and not message.flags & HEADERS


class PlayerQueue:
    """
    The messages that wait for one player, in order.

    What it begins with is not bounded, since it is shared with all players that joined
    within the same GOP.  Of what comes behind, no more is kept than the limits say.

    @ivar limits: the bounds.
    @ivar messages: what waits.  It is always the same object: its truth is asked once
        a player and write.
    @ivar bytes: of the payloads and headers.
    @ivar startedAt: how far the stream was, in bytes, at what the player begins with.
    @ivar dropped: messages that the player did not get since it did not keep up.
    @ivar droppedBytes: of their payloads.
    """

    def __init__(self, limits: QueueLimits) -> None:
        self.limits = limits
        self.messages: deque[Message] = deque()
        self.bytes = 0
        self.startedAt = 0
        self.dropped = 0
        self.droppedBytes = 0
        # How much at the head is what the player has begun with, and not bounded.
        self._exempt = 0
        self._exemptBytes = 0
        # How many have been taken, and the place, counted from the first that ever
        # came, and time of the oldest frame behind what is exempt: so that nothing is
        # searched at each message, of which thousands may be data without a frame.
        self._taken = 0
        self._oldestPlace: int | None = None
        self._oldestTime = 0
        self._newestTime = 0

    def __len__(self) -> int:
        return len(self.messages)

    def extend(self, messages: Sequence[Message]) -> None:
        """Add messages at the end."""
        queue = self.messages
        size = HEADER_BYTES * len(messages)
        for place, message in enumerate(messages, self._taken + len(queue)):
            size += len(message.payload)
            if not message.flags & HEADERS and message.typeId != _DATA:  # isFrame
                self._newestTime = message.timestamp
                if self._oldestPlace is None:
                    self._oldestPlace = place
                    self._oldestTime = message.timestamp
        queue.extend(messages)
        self.bytes += size

    def startWith(self, messages: Sequence[Message], position: int = 0) -> None:
        """
        Let that wait which a player begins with, however much it is.

        @param position: how far the stream is, in bytes.
        """
        self.startedAt = position
        self.extend(messages)
        self._exempt = len(self.messages)
        self._exemptBytes = self.bytes
        self._oldestPlace = None

    def bindStart(self, position: int) -> None:
        """
        Let what the player begins with be bounded as all else, once so much of the
        stream has come since that hardly any other player waits for it, too.

        @param position: see L{startWith}.
        """
        if self._exempt and position - self.startedAt > self.limits.bytes:
            self._exempt = self._exemptBytes = 0
            self._findOldest()

    def take(self, mostBytes: int) -> list[Message]:
        """
        Take messages from the head.

        @param mostBytes: no further one is taken when there is this much; one that is
            larger is taken alone.
        """
        queue = self.messages
        size = 0
        taken: list[Message] = []
        while queue and size < mostBytes:
            if taken and len(queue[0].payload) > mostBytes:
                break
            message = queue.popleft()
            taken.append(message)
            size += len(message.payload) + HEADER_BYTES
        self.bytes -= size
        self._taken += len(taken)
        if self._exempt:
            self._exempt = max(0, self._exempt - len(taken))
            self._exemptBytes = max(0, self._exemptBytes - size) if self._exempt else 0
        if self._oldestPlace is not None and self._oldestPlace < self._taken:
            self._findOldest()
        return taken

    # What is lost

    def lose(self, message: Message) -> None:
        """Count a message that the player does not get."""
        self.dropped += 1
        self.droppedBytes += len(message.payload)

    def loseAll(self, successor: PlayerQueue | None = None) -> None:
        """
        Count as lost what waits, and keep nothing.

        @param successor: what waits there as well is not lost.
        """
        there = set() if successor is None else {id(m) for m in successor.messages}
        for message in self.messages:
            if id(message) not in there:
                self.lose(message)
        self._replace([])

    def keepHeaders(self) -> None:
        """Let no frames wait: the player wants none, and so they are not lost."""
        self._replace([message for message in self.messages if isHeader(message)])

    def withdraw(self, typeId: int) -> None:
        """Let no frames of audio or of video wait: the player wants them no more."""
        self._replace(
            [
                message
                for message in self.messages
                if message.typeId != typeId or message.flags & HEADERS
            ]
        )

    def loseFrames(self) -> None:
        """Lose all that waits but headers."""
        self._loseIf(lambda _, message: not isHeader(message))

    def shorten(self) -> Loss:
        """
        Lose messages until the queue is within its limits.

        Video goes first, up to a key frame; then the oldest audio and data.
        Headers stay: without them nothing could be decoded any more.
        """
        if not self._isTooLong():
            return Loss.NOTHING
        self._exempt = self._exemptBytes = 0
        self._findOldest()
        self._loseVideoBeforeKeyFrames()
        self._loseAudioOfLostVideo()
        if not self._isTooLong():
            return Loss.OLDEST
        self._loseIf(lambda _, m: m.typeId == _VIDEO and not m.flags & HEADERS)
        if self._isTooLong():
            self._loseOldest()
        if self._isTooLong():
            self._replace([])
            return Loss.ALL
        return Loss.VIDEO

    def _isTooMuch(self) -> bool:
        """Tell whether more waits than may, in bytes or in messages."""
        limits = self.limits
        return (
            self.bytes - self._exemptBytes > limits.bytes
            or len(self.messages) - self._exempt > limits.messages
        )

    def _isTooLong(self) -> bool:
        """Tell whether more waits than may, or of too long a time."""
        if self._isTooMuch():
            return True
        if self._oldestPlace is None:
            return False
        # Where the stream's time has jumped back, the older ones have the later time.
        milliseconds = abs(self._newestTime - self._oldestTime)
        return milliseconds > self.limits.seconds * 1000

    def _loseVideoBeforeKeyFrames(self) -> None:
        """Lose the video frames before the last key frame of their track."""
        last: dict[int, int] = {}
        for index, message in enumerate(self.messages):
            if index and message.typeId == _VIDEO and message.flags & KEY_FRAME:
                for track in trackIdsOf(message):
                    last[track] = index
        if not last:
            return

        def isLost(index: int, message: Message) -> bool:
            if message.typeId != _VIDEO or message.flags & HEADERS:
                return False
            tracks = trackIdsOf(message)
            return all(index < last.get(track, 0) for track in tracks)

        self._loseIf(isLost)

    def _loseAudioOfLostVideo(self) -> None:
        """
        Lose the audio and data that are older than the first video frame, if the
        queue is too long: it is not shortened by losing that frame as well.
        """
        if self._isTooMuch() or not self._isTooLong():
            return
        frames = (
            (index, message.timestamp)
            for index, message in enumerate(self.messages)
            if message.typeId == _VIDEO and not message.flags & HEADERS
        )
        place, first = next(frames, (0, 0))
        if not place:
            return
        latest = first + self.limits.seconds * 1000
        self._loseIf(
            lambda index, message: (
                index < place
                and not first <= message.timestamp <= latest
                and not isHeader(message)
            )
        )

    def _loseOldest(self) -> None:
        """
        Lose the oldest audio and data, until the queue is half empty: so that it is
        not looked through again for each further message.
        """
        limits = self.limits
        newest = None if self._oldestPlace is None else self._newestTime
        left = len(self.messages) + self.dropped

        def isLost(_: int, message: Message) -> bool:
            return not isHeader(message) and (
                self.bytes > limits.bytes // 2
                or left - self.dropped > limits.messages // 2
                or newest is None
                or abs(newest - message.timestamp) > limits.seconds * 500
            )

        self._loseIf(isLost)

    def _loseIf(self, isLost: Callable[[int, Message], bool]) -> None:
        """
        Lose messages, the oldest first.

        @param isLost: is given the place of a message in the queue, and the message;
            L{bytes} and L{dropped} are without the ones that it has chosen.
        """
        kept = []
        for index, message in enumerate(self.messages):
            if isLost(index, message):
                self.bytes -= len(message.payload) + HEADER_BYTES
                self.lose(message)
            else:
                kept.append(message)
        self._replace(kept)

    def _replace(self, kept: list[Message]) -> None:
        """Keep these alone; none of them is exempt any more."""
        self._taken += len(self.messages) - len(kept)
        self.messages.clear()
        self.messages.extend(kept)
        self.bytes = sum(len(message.payload) for message in kept)
        self.bytes += HEADER_BYTES * len(kept)
        self._exempt = self._exemptBytes = 0
        self._findOldest()
        newest = (m.timestamp for m in reversed(kept) if isFrame(m))
        self._newestTime = next(newest, 0)

    def _findOldest(self) -> None:
        """Search for the oldest frame behind what is exempt."""
        self._oldestPlace = None
        for place, message in enumerate(self.messages, self._taken):
            if place >= self._taken + self._exempt and isFrame(message):
                self._oldestPlace = place
                self._oldestTime = message.timestamp
                break
