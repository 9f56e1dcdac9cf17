"""
Ordered writes to files, off the reactor's thread.

A L{Disk} owns one thread and one clock tick for all files; a L{FileWriter} is the
reactor's side of one file and a L{DiskFile} the thread's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IProducer,
    IReactorFromThreads,
    IReactorTime,
)
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from twisted_rtmp.limits import STOP_SECONDS
from twisted_rtmp.wire.errors import UsageError
from twisted_rtmp.wire.limits import MIB

#: From the first byte that waits to its hand-over to the disk thread, in seconds.  A
#: kill loses what has not been handed over, which is to be less than 0.5 s; shorter
#: batches cost more, since each hand-over to the thread and back takes 80 us of CPU.
FLUSH_SECONDS = 0.2

#: Bytes that are handed over at once, without waiting for the tick: the disk is kept
#: busy, and a tick's worth of a 40 Mb/s stream stays one batch.
BATCH_BYTES = 1 * MIB

#: Bytes on their way to the disk at which the producer is paused, and resumed.  8 MiB
#: are 1.6 s of a 40 Mb/s stream, which is longer than an ordinary disk's hiccup.
HIGH_WATER = 8 * MIB
LOW_WATER = 4 * MIB

#: From the pause of a producer until its file is given up, in seconds, if the disk
#: finishes nothing meanwhile: an encoder that cannot send gives up its connection.
STALL_SECONDS = 10.0

#: Seconds between two looks at the free space, and whether the file is still there.
CHECK_SECONDS = 1.0

#: Names that are tried after the wanted one is taken: -1, -2 ...
MAX_SUFFIX = 9999

#: Buffers in one C{writev}.  Linux and macOS have 1024, POSIX guarantees 16.
IOV_MAX = os.sysconf("SC_IOV_MAX") if "SC_IOV_MAX" in os.sysconf_names else 16

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


class LowSpace(OSError):
    """The disk has less free space than must remain."""


class FileRemoved(OSError):
    """The file has been removed from its directory while it was written."""


class DiskStalled(OSError):
    """The disk has not finished a write for a long time."""


class _DaemonThread(Thread):
    """A thread that does not keep the process, should the disk never answer."""

    def start(self) -> None:
        self.daemon = True
        super().start()


class _DiskPool(ThreadPool):
    """One thread, so that all work is done in the order in which it was given."""

    threadFactory = _DaemonThread

    def __init__(self) -> None:
        super().__init__(1, 1, "disk")


class Disk:
    """
    One thread for the writes of many files, and one tick.

    @ivar handOvers: how often work was handed to the thread.
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
        self._pool: Pool = _DiskPool() if pool is None else pool
        self._flushSeconds = flushSeconds
        self._started = False
        self._stopped = False
        self._woken: list[Callable[[], object]] = []
        self._tick: IDelayedCall | None = None
        self._jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self._gathering = False
        self._running = 0
        self._idle: list[Deferred[None]] = []

    def wake(self, flush: Callable[[], object]) -> None:
        """
        Call a function at the next tick, which is L{FLUSH_SECONDS} off at most.

        All work that comes from what one tick calls is handed over at once.
        """
        self._woken.append(flush)
        if self._tick is None:
            self._tick = self.reactor.callLater(self._flushSeconds, self._ticked)

    def _ticked(self) -> None:
        self._tick = None
        woken, self._woken = self._woken, []
        self._gathering = True
        for flush in woken:
            flush()
        self._gathering = False
        if self._jobs:
            self._handOver()

    def run(self, work: Callable[[], _T]) -> Deferred[_T]:
        """
        Run a function on the disk's thread, after all that was given before.

        @return: its result, or the L{OSError} it raised.  After L{stop} the
            Deferred fails with a L{DiskStalled} at once.
        """
        result: Deferred[_T] = Deferred()
        if self._stopped:
            result.errback(DiskStalled(errno.ESHUTDOWN, "the disk thread has ended"))
            return result
        self._jobs.append((work, result))
        if not self._gathering:
            self._handOver()
        return result

    def _handOver(self) -> None:
        if not self._started:
            # Not in the constructor: twistd forks after it, and threads do not.
            self._started = True
            self._pool.start()
        jobs, self._jobs = self._jobs, []
        self.handOvers += 1
        self._running += 1

        def done(success: bool, outcome: list[Any] | Failure) -> None:
            self.reactor.callFromThread(self._done, jobs, outcome)

        self._pool.callInThreadWithCallback(done, _runAll, [work for work, _ in jobs])

    def _done(
        self,
        jobs: list[tuple[Callable[[], Any], Deferred[Any]]],
        outcome: list[Any] | Failure,
    ) -> None:
        self._running -= 1
        for position, (_, result) in enumerate(jobs):
            if isinstance(outcome, Failure):
                result.errback(outcome)
            elif isinstance(outcome[position], Failure):
                result.errback(outcome[position])
            else:
                result.callback(outcome[position])
        if not self._running:
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
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        self._woken = []
        finished: Deferred[bool] = Deferred()
        if not self._running:
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


def _runAll(works: list[Callable[[], Any]]) -> list[Any]:
    """Run functions in turn; the L{OSError} of one does not stop the next."""
    results: list[Any] = []
    for work in works:
        try:
            results.append(work())
        except OSError:  # noqa: PERF203
            results.append(Failure())
    return results


class DiskFile:
    """
    A new file; everything here runs on the disk's thread.

    It is created by the first L{append}, under a name that nothing had, below its
    directory: no symbolic link is followed on the way.  After an error nothing more
    is written, and the file ends with the last batch that was stored whole.

    @ivar path: where it is; empty until it has been created.
    @ivar size: bytes of all batches that were stored.
    @ivar checkpoint: the object that was given with the last batch that was stored.
    """

    def __init__(
        self,
        directory: str,
        components: Sequence[str],
        *,
        suffix: str = "",
        minFree: int = 0,
    ) -> None:
        """
        @param directory: made if it is not there.
        @param components: names of folders below it, and of the file.
        @param suffix: the end of the file's name, such as C{".flv"}.
        @param minFree: bytes that must remain free on the disk.
        """
        self.path = ""
        self.size = 0
        self.checkpoint: Any = None
        self._directory = directory
        self._folders = list(components[:-1])
        self._name = components[-1]
        self._suffix = suffix
        self._minFree = minFree
        self._fd = -1
        self._error: OSError | None = None

    def append(
        self,
        buffers: list[bytes],
        checkpoint: object = None,
        *,
        sync: bool = False,
        check: bool = False,
    ) -> OSError | None:
        """
        Store a batch at the end, whole or not at all.

        @param checkpoint: kept with the file when the batch is stored.
        @param sync: whether to wait until it is on the disk itself.
        @param check: whether to look for free space and the file's name.
        @return: L{None}, or why no other batch can follow this one.
        @raise OSError: the batch is not stored.
        """
        if self._error is not None:
            raise self._error
        try:
            if self._fd < 0:
                self._create()
            size = _writeAll(self._fd, buffers)
            if sync:
                _syncData(self._fd)
            if check and not os.fstat(self._fd).st_nlink:
                raise FileRemoved(errno.ENOENT, "the file has been removed")
        except OSError as error:
            self._error = error
            self._cutBack()
            raise
        self.size += size
        self.checkpoint = checkpoint
        if check and self._minFree:
            self._error = self._lowSpace(self._fd)
        return self._error

    def overwrite(self, data: bytes, offset: int) -> None:
        """
        Replace bytes that have been stored.

        @raise OSError: the system refuses.
        """
        if self._fd >= 0 and self.size:
            _overwriteAll(self._fd, data, offset)

    def finish(
        self, makeHead: Callable[[int, Any], bytes], *, sync: bool = False
    ) -> bool:
        """
        Overwrite the beginning and close the file; remove it if it is empty.

        @param makeHead: makes the bytes at the start, given the size and the last
            checkpoint.
        @return: whether there is a file.
        @raise OSError: the beginning could not be written; the file is closed.
        """
        if self._fd < 0:
            return False
        try:
            if not self.size:
                os.unlink(self.path)
                return False
            _overwriteAll(self._fd, makeHead(self.size, self.checkpoint), 0)
            if sync:
                os.fsync(self._fd)
        finally:
            os.close(self._fd)
            self._fd = -1
        return True

    def _create(self) -> None:
        os.makedirs(self._directory, exist_ok=True)
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if self._minFree:
                low = self._lowSpace(folder)
                if low is not None:
                    raise low
            for name in self._folders:
                inner = _enter(folder, name)
                os.close(folder)
                folder = inner
            name = self._createIn(folder)
        finally:
            os.close(folder)
        self.path = os.path.join(self._directory, *self._folders, name)

    def _createIn(self, folder: int) -> str:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        for number in range(MAX_SUFFIX + 1):
            distinct = f"-{number}" if number else ""
            name = f"{self._name}{distinct}{self._suffix}"
            try:
                self._fd = os.open(name, flags, 0o666, dir_fd=folder)
            except FileExistsError:
                continue
            # So that the repair command lets it alone.  NFS may know no locks.
            with suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return name
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self._name)

    def _lowSpace(self, fd: int) -> LowSpace | None:
        figures = os.fstatvfs(fd)
        free = figures.f_bavail * figures.f_frsize
        if free >= self._minFree:
            return None
        return LowSpace(
            errno.ENOSPC, f"{free} bytes free, less than the {self._minFree} to keep"
        )

    def _cutBack(self) -> None:
        """Remove a batch that was stored in part."""
        # If this fails too, the file ends with a piece of a tag, as after a crash; the
        # error that is already on its way says why.
        if self._fd >= 0:
            with suppress(OSError):
                os.ftruncate(self._fd, self.size)


def _enter(folder: int, name: str) -> int:
    """
    Open a folder in a folder; make it if it is not there.

    @raise OSError: it is a symbolic link, or not a folder.
    """
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=folder)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a folder"
        raise OSError(error.errno, f"{name} is {what}") from error


def _writeAll(fd: int, buffers: list[bytes]) -> int:
    """
    Write all buffers.

    @return: how many bytes they have.
    """
    written = 0
    for start in range(0, len(buffers), IOV_MAX):
        part: list[bytes | memoryview] = list(buffers[start : start + IOV_MAX])
        while part:
            count = os.writev(fd, part)
            written += count
            done = 0
            for buffer in part:
                if count < len(buffer):
                    break
                count -= len(buffer)
                done += 1
            del part[:done]
            if part and count:
                part[0] = memoryview(part[0])[count:]
    return written


def _overwriteAll(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view = view[count:]
        offset += count


def _syncData(fd: int) -> None:
    # macOS has no fdatasync.
    getattr(os, "fdatasync", os.fsync)(fd)


@implementer(IConsumer)
class FileWriter:
    """
    Takes bytes for one file, on the reactor's thread.

    C{write} never blocks.  A producer is paused while more than L{HIGH_WATER} bytes
    are on their way.

    @ivar file: the thread's side.
    @ivar waiting: bytes that were taken and are not stored yet.
    @ivar error: why nothing more is stored, or L{None}.
    """

    def __init__(
        self,
        disk: Disk,
        file: DiskFile,
        failed: Callable[[OSError], object],
        *,
        syncSeconds: float | None = None,
        stallSeconds: float = STALL_SECONDS,
        highWater: int = HIGH_WATER,
        lowWater: int = LOW_WATER,
    ) -> None:
        """
        @param failed: called at most once, with C{error}.
        @param syncSeconds: the disk is waited for about this often; L{None} leaves
            it to the operating system.
        @param stallSeconds: see L{STALL_SECONDS}.
        @param highWater: see L{HIGH_WATER}, in bytes.
        @param lowWater: see L{LOW_WATER}, in bytes.
        """
        self.file = file
        self.waiting = 0
        self.error: OSError | None = None
        self._disk = disk
        self._reactor = disk.reactor
        self._failed = failed
        self._syncSeconds = syncSeconds
        self._stallSeconds = stallSeconds
        self._highWater = highWater
        self._lowWater = lowWater
        self._producer: Any = None
        self._paused = False
        self._stall: IDelayedCall | None = None
        now = self._reactor.seconds()
        self._lastSync = now
        self._lastCheck = now

    # IConsumer

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """
        Let a producer be paused when the disk does not keep up.

        @raise UsageError: it is not a push producer, or there is one already.
        """
        if not streaming:
            raise UsageError("the producer of a file must be an IPushProducer")
        if self._producer is not None:
            raise UsageError("a file must have one producer at a time")
        self._producer = producer
        if self.error is None:
            self._checkWater()

    def unregisterProducer(self) -> None:
        """Forget the producer; one that is paused is resumed before."""
        self._resume()
        self._producer = None

    def write(self, data: bytes) -> None:
        """Store bytes, as one batch."""
        self.writeSequence([data])

    def writeSequence(self, buffers: Sequence[bytes]) -> None:
        """Store bytes, as one batch."""
        self.send(list(buffers), sum(map(len, buffers))).addErrback(_known)

    # Batches

    def send(
        self, buffers: list[bytes], size: int, checkpoint: object = None
    ) -> Deferred[None]:
        """
        Hand a batch over at once.

        @param size: the bytes in the buffers.
        @param checkpoint: kept with the file when the batch is stored.
        @return: fires when the operating system has taken the batch, or fails with
            the L{OSError} for which it has not taken any of it.
        """
        if self.error is not None:
            refused: Deferred[None] = Deferred()
            refused.errback(self.error)
            return refused
        now = self._reactor.seconds()
        sync = self._syncSeconds is not None and (
            now - self._lastSync >= self._syncSeconds
        )
        if sync:
            self._lastSync = now
        check = now - self._lastCheck >= CHECK_SECONDS
        if check:
            self._lastCheck = now
        self.waiting += size
        file = self.file
        sent = self._disk.run(
            lambda: file.append(buffers, checkpoint, sync=sync, check=check)
        ).addBoth(self._taken, size)
        self._checkWater()
        return sent

    def _taken(self, result: OSError | Failure | None, size: int) -> Failure | None:
        self.waiting -= size
        if isinstance(result, Failure):
            if isinstance(result.value, OSError):
                self._fail(result.value)
            return result
        if result is not None:
            self._fail(result)
        if self._stall is not None:
            self._stall.reset(self._stallSeconds)
        self._checkWater()
        return None

    def overwrite(self, data: bytes, offset: int) -> None:
        """Replace bytes that have been written, after all that was handed over."""
        file = self.file
        self._disk.run(lambda: file.overwrite(data, offset)).addErrback(
            lambda failure: self._fail(_known(failure))
        )

    def close(self, makeHead: Callable[[int, Any], bytes]) -> Deferred[bool]:
        """
        Rewrite the beginning and close the file.

        @param makeHead: see L{DiskFile.finish}; called on the disk's thread.
        @return: see L{DiskFile.finish}.
        """
        file = self.file
        sync = self._syncSeconds is not None
        closed = self._disk.run(lambda: file.finish(makeHead, sync=sync))

        def release(result: _T) -> _T:
            self.unregisterProducer()
            return result

        return closed.addBoth(release)

    def _fail(self, error: OSError) -> None:
        if self.error is None:
            self.error = error
            self.unregisterProducer()
            self._failed(error)

    # Pressure

    def _checkWater(self) -> None:
        """Pause or resume the producer, since something has been taken or stored."""
        if self._paused:
            if self.waiting <= self._lowWater:
                self._resume()
        elif self.waiting >= self._highWater and self._producer is not None:
            self._paused = True
            self._stall = self._reactor.callLater(self._stallSeconds, self._stalled)
            self._producer.pauseProducing()

    def _resume(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if self._paused:
            self._paused = False
            self._producer.resumeProducing()

    def _stalled(self) -> None:
        self._stall = None
        self._fail(
            DiskStalled(
                errno.ETIMEDOUT,
                f"the disk has stored nothing for {self._stallSeconds:g} s",
            )
        )


def _known(failure: Failure) -> OSError:
    """Take the error of a write, which is L{FileWriter.error} already."""
    failure.trap(OSError)
    error: OSError = failure.value  # type: ignore[assignment]
    return error
