"""The disk's thread: jobs of many files, each done when its turn comes."""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable
from threading import Lock, Thread
from typing import Any, NamedTuple, Protocol, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorFromThreads,
    IReactorTime,
)
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from twisted_rtmp.disk.turns import Turns
from twisted_rtmp.limits import STOP_SECONDS
from twisted_rtmp.wire.limits import MIB

#: From the first byte that waits to its hand-over to the disk thread, in seconds.  A
#: kill loses what has not been handed over, which is to be less than 0.5 s; shorter
#: batches cost more, since each hand-over to the thread and back takes 80 us of CPU.
FLUSH_SECONDS = 0.2

#: The cost of a job beside the bytes that it writes, in bytes that are written in the
#: same time, about 40 us.
JOB_BYTES = 32 * 1024

#: Work after which the thread tells what it has done, in bytes: of a flood of small
#: batches every 100 or so, and of large ones before producers have waited for long.
REPORT_BYTES = 4 * MIB

#: The same in seconds: a disk that is slow has not stalled.
REPORT_SECONDS = 0.5

#: What a tick may take at once, in seconds, before all else has its turn; what is left
#: follows then.  3,200 recordings take 0.2 s.
TICK_SECONDS = 0.02

#: How often it is looked which files may rest, in seconds: all at once, since a timer
#: of each would turn the loop for nothing.
REST_LOOK_SECONDS = 1.0

_T = TypeVar("_T")


class IDiskReactor(IReactorTime, IReactorFromThreads):
    """The parts of a reactor that a L{Disk} needs."""


class Pool(Protocol):
    """The part of a L{ThreadPool} that a L{Disk} uses."""

    def start(self) -> None:
        """Begin to run what is called in the thread."""

    def callInThreadWithCallback(
        self,
        onResult: Callable[[bool, Any], object] | None,
        func: Callable[..., Any],
        *args: object,
    ) -> None:
        """Run a function in the thread and hand its result over there."""

    def stop(self) -> None:
        """Join the thread."""


class DiskStalled(OSError):
    """The disk has not finished a write for a long time."""


class DaemonThread(Thread):
    """A thread that does not keep the process, should the disk never answer."""

    def start(self) -> None:
        self.daemon = True
        super().start()


class _DiskPool(ThreadPool):
    """One thread, so that a file's jobs are done in the order in which they came."""

    threadFactory = DaemonThread

    def __init__(self) -> None:
        super().__init__(1, 1, "disk")


class _Job(NamedTuple):
    """A function to run, and where its result goes."""

    work: Callable[[], Any]
    result: Deferred[Any]


#: Jobs that have been done, and what came of each.
_Done = list[tuple[_Job, Any]]


class Restful(Hashable, Protocol):
    """Something that may rest when it has not been used for a while."""

    def restsAt(self, now: float) -> bool:
        """
        Rest, if it has not been used lately.

        @param now: the reactor's time, in seconds.
        @return: whether it rests now.
        """


class Disk:
    """
    One thread for the writes of many files, and one tick.

    @ivar handOvers: how often work was handed to the thread.
    @ivar waiting: bytes of all files that have not been stored yet.
    """

    def __init__(
        self,
        reactor: IDiskReactor,
        pool: Pool | None = None,
        flushSeconds: float = FLUSH_SECONDS,
    ) -> None:
        """
        @param pool: runs the work, in order; one daemon thread by default.
        @param flushSeconds: how long data may wait before it is handed over.
        """
        self.reactor = reactor
        self.handOvers = 0
        self.waiting = 0
        self._pool: Pool = _DiskPool() if pool is None else pool
        self._flushSeconds = flushSeconds
        self._started = False
        self._stopped = False
        self._woken: Turns[Callable[[], object]] = Turns()
        self._tick: IDelayedCall | None = None
        self._awake: dict[Restful, None] = {}
        self._restLook: IDelayedCall | None = None
        self._turns: Turns[_Job] = Turns()
        self._lock = Lock()  # of the turns, which both threads use
        self._gathering = False
        self._working = False
        self._idle: list[Deferred[None]] = []

    def wake(self, flush: Callable[[], object], party: Hashable = None) -> None:
        """
        Call a function at the next tick, which is L{FLUSH_SECONDS} off at most.

        All work that comes from what one tick calls is handed over at once; where that
        would take longer than L{TICK_SECONDS}, what is left is called a little later.

        @param party: as for L{run}.
        """
        self._woken.add(party, 1, flush)
        if self._tick is None:
            self._tick = self.reactor.callLater(self._flushSeconds, self._ticked)

    def _ticked(self) -> None:
        seconds = self.reactor.seconds
        until = seconds() + TICK_SECONDS
        self._gathering = True
        try:
            # What is woken meanwhile is for the next tick.
            for _ in range(len(self._woken)):
                turn = self._woken.take()
                assert turn is not None
                turn[1]()
                if seconds() >= until:
                    break
        finally:
            self._gathering = False
            self._tick = None
            if self._woken:
                delay = 0.0 if seconds() >= until else self._flushSeconds
                self._tick = self.reactor.callLater(delay, self._ticked)
        self._handOver()

    def watchRest(self, file: Restful) -> None:
        """Let a file rest when it may."""
        self._awake[file] = None
        if self._restLook is None:
            self._restLook = self.reactor.callLater(REST_LOOK_SECONDS, self._lookAtRest)

    def unwatchRest(self, file: Restful) -> None:
        """Let a file be: it rests, or is closed."""
        self._awake.pop(file, None)
        if not self._awake and self._restLook is not None:
            self._restLook.cancel()
            self._restLook = None

    def _lookAtRest(self) -> None:
        self._restLook = None
        now = self.reactor.seconds()
        for file in list(self._awake):
            if file in self._awake and file.restsAt(now):
                self._awake.pop(file, None)
        if self._awake:
            self._restLook = self.reactor.callLater(REST_LOOK_SECONDS, self._lookAtRest)

    def run(
        self, work: Callable[[], _T], party: Hashable = None, size: int = 0
    ) -> Deferred[_T]:
        """
        Run a function on the disk's thread.

        What is given for one party is done in order.  The parties take turns, so that
        one with little to write does not wait for what the others have.

        @param size: how many bytes it writes.
        @return: its result, or the error it raised.  After L{stop} the Deferred fails
            with a L{DiskStalled} at once.
        """
        result: Deferred[_T] = Deferred()
        if self._stopped:
            result.errback(DiskStalled(errno.ESHUTDOWN, "the disk thread has ended"))
            return result
        with self._lock:
            self._turns.add(party, JOB_BYTES + size, _Job(work, result))
        if not self._gathering:
            self._handOver()
        return result

    def _handOver(self) -> None:
        """Let the thread do what waits, unless it is at work already."""
        if self._working or not self._turns:
            return
        if not self._started:
            # Not in the constructor: twistd forks after it, and threads do not.
            self._started = True
            self._pool.start()
        self._working = True
        self.handOvers += 1

        def done(success: bool, rest: _Done) -> None:
            self.reactor.callFromThread(self._workDone, rest)

        self._pool.callInThreadWithCallback(done, self._work)

    def _work(self) -> _Done:
        """Do what waits, on the thread."""
        done: _Done = []
        size = 0.0
        seconds = self.reactor.seconds
        since = seconds()
        while True:
            with self._lock:
                turn = self._turns.take()
            if turn is None:
                return done
            cost, job = turn
            try:
                outcome = job.work()
            # Its file is told of a bug, too; the other files go on.
            except Exception:
                outcome = Failure()
            done.append((job, outcome))
            size += cost
            if size >= REPORT_BYTES or seconds() - since >= REPORT_SECONDS:
                self.reactor.callFromThread(self._report, done)
                done, size, since = [], 0.0, seconds()

    def _report(self, done: _Done) -> None:
        for job, outcome in done:
            job.result.callback(outcome)  # a Failure is taken as one

    def _workDone(self, rest: _Done) -> None:
        self._working = False
        self._report(rest)
        self._handOver()  # what came when the thread had looked for the last time
        if not self._working:
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)

    def stop(self, seconds: float = STOP_SECONDS) -> Deferred[bool]:
        """
        End the thread once all work given so far is done.

        @param seconds: how long to wait for it.
        @return: whether all was done; if not, the thread has been left alone.
        """
        self._stopped = True
        if self._tick is not None and self._tick.active():
            self._tick.cancel()
        self._tick = None
        self._woken = Turns()
        for file in list(self._awake):
            self.unwatchRest(file)
        finished: Deferred[bool] = Deferred()
        if not self._working:
            self._join()
            return succeed(True)

        def gaveUp() -> None:
            self._idle.remove(idle)
            finished.callback(False)

        def done(_: None) -> None:
            deadline.cancel()
            self._join()
            finished.callback(True)

        deadline = self.reactor.callLater(seconds, gaveUp)
        idle: Deferred[None] = Deferred()
        idle.addCallback(done)
        self._idle.append(idle)
        return finished

    def _join(self) -> None:
        if self._started:
            self._started = False
            self._pool.stop()
