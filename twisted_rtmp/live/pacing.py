"""
The times at which publishers are read and players are written to.

A read event costs a server about 40 us and a write 20 us, whatever they carry; an
encoder causes one for each of its frames and audio packets, and each player another.
So when there is much to do, each publisher is read at most once a tick: what came
meanwhile waits in the kernel and is taken by one system call, and what one read
brought goes to each player in one write.

It knows no protocol: only what can be paused, resumed and flushed.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from twisted_rtmp.live.turns import NOTED_SECONDS

#: What pacing may add to a message's latency, in seconds: the wait for the tick, and
#: for what else that read has to send then.
LATENCY_SECONDS = 0.05

#: The part of the latency that is waited for the tick at the least, however long it
#: takes to send.
LEAST_WAIT = 0.5

#: Messages received and sent, a second, from which on reads are paced: about 3 % of
#: a core.  A camera with 60 frames and 47 audio packets a second and eight players
#: stays below, and is passed on at once.
BUSY_MESSAGES = 1000.0

#: How often it is looked whether the server is busy, in seconds.
WINDOW_SECONDS = 0.25

#: A read of so many bytes is not paced, since its sender is ahead of us: half of what
#: a kernel's receive buffer holds at first.
LARGE_READ = 128 * 1024

#: How many publishers are read, before what they have sent is dispatched, and then
#: written: receiving, dispatching and sending in turns of many cost a fifth less CPU
#: than one publisher after the other, since the processor keeps at hand what it is
#: about.  More of them save no more, and put the first one off.
TICK_BATCH = 64


class Paced(Protocol):
    """
    A publisher that a pacer lets wait.

    @ivar paced: whether the pacer reads it, and the reactor does not.
    """

    paced: bool

    def holdPace(self) -> None:
        """Leave the reading to the pacer."""

    def readPaced(self) -> bytes:
        """
        Read what has come, and go on reading as usual if nothing has.

        @return: what L{takePaced} is to be given.
        """

    def takePaced(self, data: bytes, now: float) -> int:
        """
        Dispatch what was read, and go on reading as usual if the sender is ahead.

        @param now: the clock's time, in seconds.
        @return: how many audio, video and data messages were in it.
        """

    def tookLong(self, seconds: float) -> None:
        """Learn that others have waited while this one's bytes were dispatched."""


class Flushed(Protocol):
    """A group that gathers messages until it is told to send them."""

    def flush(self) -> None:
        """Send everything."""


class Pacer:
    """
    Gathers the reads of all publishers of a server, and the writes that they cause.

    @ivar clock: the clock of the server.
    @ivar active: whether there is so much to do that reads are paced.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        *,
        latency: float = LATENCY_SECONDS,
        busyMessages: float = BUSY_MESSAGES,
    ) -> None:
        """
        @param latency: how long a message may wait, in seconds; 0 turns pacing off.
        @param busyMessages: messages a second from which on they do.
        """
        self.active = False
        self.clock = clock
        self._latency = latency
        self._busyMessages = busyMessages
        self._messages = 0
        self._longest = 0.0
        self._wait = latency
        self._since = clock.seconds()
        self._reading = False
        self._held: list[Paced] = []
        self._pending: list[Flushed] = []
        self._tick: IDelayedCall | None = None
        self._flushCall: IDelayedCall | None = None

    # Reads

    def readBegins(self) -> None:
        """A publisher's bytes are taken in: L{readEnds} follows."""
        self._reading = True

    def readEnds(self) -> None:
        """Send what a read has brought."""
        self._reading = False
        if self._pending:
            self.flush()

    def readDone(
        self,
        publisher: Paced,
        size: int,
        messages: int,
        now: float,
        seconds: float,
        full: bool,
    ) -> None:
        """
        A publisher was read: it may have to wait for the next time.

        @param size: the bytes that the read brought.
        @param messages: how many audio, video and data messages were in them.
        @param now: the clock's time at its begin.
        @param seconds: how long it took, to the last player.
        @param full: whether the read brought as much as it could.
        """
        self._count(messages, now)
        self._noteSeconds(seconds)
        if self.active and size < LARGE_READ and not full:
            publisher.holdPace()
            self._held.append(publisher)
            self._setTick()

    def _setTick(self) -> None:
        """Read those that wait within the latency."""
        if self._held and self._tick is None:
            self._tick = self.clock.callLater(self._wait, self._release)

    def _count(self, messages: int, now: float) -> None:
        """Note what there was to do, and now and then whether it is much."""
        self._messages += messages
        elapsed = now - self._since
        if elapsed >= WINDOW_SECONDS:
            self.active = (
                self._latency > 0 and self._messages >= self._busyMessages * elapsed
            )
            self._wait = max(self._latency - self._longest, self._latency * LEAST_WAIT)
            self._longest = 0.0
            self._messages = 0
            self._since = now

    def _release(self) -> None:
        """Read those that wait; they go on waiting for the next tick, if need be."""
        self._tick = None
        held, self._held = self._held, []
        for first in range(0, len(held), TICK_BATCH):
            self._releaseBatch(held[first : first + TICK_BATCH])

    def _releaseBatch(self, publishers: list[Paced]) -> None:
        """Receive from some publishers, dispatch, and send what comes of it."""
        seconds = self.clock.seconds
        began = now = seconds()
        messages = 0
        reads = [(publisher, publisher.readPaced()) for publisher in publishers]
        self.readBegins()
        for publisher, data in reads:
            if data:
                messages += publisher.takePaced(data, now)
                before, now = now, seconds()
                if now - before > NOTED_SECONDS:
                    publisher.tookLong(now - before)
                if publisher.paced:
                    self._held.append(publisher)
        self._setTick()
        self._count(messages, now)
        try:
            self.readEnds()
        # A bug in what sends: the other publishers are read on.
        except Exception:
            self.log.failure("what was read is not all sent")
        self._noteSeconds(seconds() - began)

    def _noteSeconds(self, seconds: float) -> None:
        """Note how long it took from a read to the last player."""
        if seconds > self._longest:
            self._longest = seconds

    # Writes

    def pending(self, group: Flushed) -> None:
        """
        Flush a group at the end of the read that is going on; what comes by other
        ways than reads is flushed within the latency.
        """
        self._pending.append(group)
        if not self._reading and self._flushCall is None:
            delay = self._wait if self.active else 0.0
            self._flushCall = self.clock.callLater(delay, self._flushDue)

    def _flushDue(self) -> None:
        self._flushCall = None
        self.flush()
        self._count(0, self.clock.seconds())

    def sent(self, messages: int) -> None:
        """Note how many messages were sent, to all players together."""
        self._messages += messages

    def flush(self) -> None:
        """Send what all groups have gathered."""
        groups, self._pending = iter(self._pending), []
        try:
            for group in groups:
                group.flush()
        finally:
            # A bug ends what it is in; the other streams go on.
            for group in groups:
                self.pending(group)

    def stop(self) -> None:
        """Let everything go that waits, and nothing wait any more."""
        self.active = False
        self._latency = 0.0
        if self._tick is not None:
            self._tick.cancel()
            self._release()
        if self._flushCall is not None:
            self._flushCall.cancel()
            self._flushDue()
