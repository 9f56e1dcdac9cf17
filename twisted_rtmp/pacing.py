"""
Fewer and larger reads from busy publishers.

A read event costs a server about 40 us, whatever it brings; an encoder causes one
for each of its frames and audio packets.  So when many messages come, each
publisher is read at most once a tick: what came meanwhile waits in the kernel and
is taken by one system call.

Knows no protocol: only what can be paused and resumed.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: How long a publisher's next read may be put off, in seconds.  It bounds what
#: pacing adds to the latency, and is below the time of one frame at 30 a second.
PACE_SECONDS = 0.025

#: Audio and video messages a second from which on reads are paced.  A camera with
#: 60 frames and 47 audio packets a second stays far below: alone it is read at
#: once; six of them are paced.
BUSY_MESSAGES = 500.0

#: How often it is looked whether the server is busy, in seconds.
WINDOW_SECONDS = 0.25

#: A read of so many bytes is not paced, since its sender is ahead of us: 25 ms of
#: 40 Mb/s, and half of what a kernel's receive buffer holds at first.
LARGE_READ = 128 * 1024


class Paced(Protocol):
    """What a pacer lets wait."""

    def holdPace(self) -> None:
        """Read nothing until L{releasePace}."""

    def releasePace(self) -> None:
        """Read what has come."""


class ReadPacer:
    """
    Gathers the reads of all publishers of a server.

    @ivar active: whether so many messages come that reads are paced.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        seconds: float = PACE_SECONDS,
        busyMessages: float = BUSY_MESSAGES,
    ) -> None:
        """
        @param seconds: how long a read may be put off; 0 turns pacing off.
        @param busyMessages: messages a second from which on it is.
        """
        self.active = False
        self._clock = clock
        self._seconds = seconds
        self._busyMessages = busyMessages
        self._messages = 0
        self._since = clock.seconds()
        self._held: list[Paced] = []
        self._tick: IDelayedCall | None = None

    def readDone(
        self, publisher: Paced, size: int, messages: int, now: float, full: bool
    ) -> None:
        """
        A publisher was read.

        @param size: the bytes that the read brought.
        @param messages: how many audio and video messages were in them.
        @param now: the clock's time.
        @param full: whether the read brought as much as it could.
        """
        self._messages += messages
        elapsed = now - self._since
        if elapsed >= WINDOW_SECONDS:
            self.active = (
                self._seconds > 0 and self._messages >= self._busyMessages * elapsed
            )
            self._messages = 0
            self._since = now
        if self.active and size < LARGE_READ and not full:
            publisher.holdPace()
            self._held.append(publisher)
            if self._tick is None:
                self._tick = self._clock.callLater(self._seconds, self._release)

    def _release(self) -> None:
        self._tick = None
        held, self._held = self._held, []
        for publisher in held:
            publisher.releasePace()

    def stop(self) -> None:
        """Let everything go that waits."""
        if self._tick is not None:
            self._tick.cancel()
            self._release()
