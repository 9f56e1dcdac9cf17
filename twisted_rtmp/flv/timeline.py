"""The time line of a file: it begins at 0 and goes on whatever the stream's does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twisted_rtmp.media.payloads import CODED
from twisted_rtmp.wire.messages import Message

#: The largest timestamp that is written, in milliseconds, 24.8 days: FLV's is a signed
#: number of 32 bits.  FLV 10.1, E.4.1.
MAX_TIME = 0x7FFFFFFF

#: A message this much earlier than the file's first, in milliseconds, or less,
#: gets the time 0: it belongs to the first frames.  Others are of another time line.
CLAMP_MILLISECONDS = 1000

#: Headers this much older than the first frame, in milliseconds, were sent to a sink
#: that was added in the middle of the stream; they do not move the file's start.
OLD_HEADER_MILLISECONDS = 10_000

#: A file whose time is this close to L{MAX_TIME}, in milliseconds, has reached the end
#: of what it can count.
_END_MILLISECONDS = 5000


class Timeline:
    """
    The times of a stream's messages in one file.

    Distances stay as they are.  Where the stream's clock falls back behind the file's
    beginning, or jumps further than a file can count, the file goes on from where it
    stands.

    @ivar base: the stream's timestamp that is the file's 0, in milliseconds; L{None}
        before the first message.
    @ivar time: the last message's in the file, in milliseconds.
    @ivar lastTime: the largest of all, in milliseconds.
    @ivar breaks: how often the file could not keep the stream's distances.
    """

    def __init__(self) -> None:
        self.base: int | None = None
        self.time = 0
        self.lastTime = 0
        self.breaks = 0

    def place(self, messages: Sequence[Message]) -> list[int]:
        """
        Give messages their times in the file, in milliseconds.

        For every message that is written: 0.1 us each.

        @param messages: at least one.
        """
        base = self.base
        if base is None:
            base = self.base = _baseOf(messages)
        last = self.lastTime
        times = []
        for message in messages:
            time = message.timestamp - base
            if time > last:
                last = time
            elif time < 0:
                break
            times.append(time)
        if len(times) < len(messages) or last > MAX_TIME:
            times = self._placeEach(messages, base)
            last = max(self.lastTime, *times)
        self.time = times[-1]
        self.lastTime = last
        return times

    def _placeEach(self, messages: Sequence[Message], base: int) -> list[int]:
        """Place messages that do not all fit the present base."""
        time = self.time
        times = []
        for message in messages:
            elapsed = message.timestamp - base
            if 0 <= elapsed <= MAX_TIME:
                time = elapsed
            # An old header says nothing of where frames will be.
            elif elapsed > 0 or message.flags & CODED:
                base, time = self._goOn(base, elapsed, time)
            times.append(time)
        self.base = base
        return times

    def _goOn(self, base: int, elapsed: int, time: int) -> tuple[int, int]:
        """
        Go on where the file's time line stands, since the stream's has left it.

        @return: the new base and the message's time.
        """
        self.breaks += 1
        if -CLAMP_MILLISECONDS <= elapsed < 0:
            return base, 0
        if elapsed > MAX_TIME and time > MAX_TIME - _END_MILLISECONDS:
            time = 0
        return base + elapsed - time, time


def _baseOf(messages: Iterable[Message]) -> int:
    """Choose the timestamp to begin with: the smallest, so that no time is negative."""
    first = min(message.timestamp for message in messages)
    frames = [message.timestamp for message in messages if message.flags & CODED]
    if frames and min(frames) - first > OLD_HEADER_MILLISECONDS:
        return min(frames)
    return first
