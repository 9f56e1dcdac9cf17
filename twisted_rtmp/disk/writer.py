"""The reactor's side of a file: batches on their way to the disk, and their limits."""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IDelayedCall, IProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_rtmp.disk.file import DiskFile, MakeHead
from twisted_rtmp.disk.thread import Disk, DiskStalled
from twisted_rtmp.wire.errors import UsageError
from twisted_rtmp.wire.limits import MIB

#: Bytes that are handed over at once, without waiting for the tick: the disk is kept
#: busy, and a tick's worth of a 40 Mb/s stream stays one batch.
BATCH_BYTES = 1 * MIB

#: Bytes on their way to the disk at which the producer is paused, and resumed.  8 MiB
#: are 1.6 s of a 40 Mb/s stream, which is longer than an ordinary disk's hiccup.
HIGH_WATER = 8 * MIB
LOW_WATER = 4 * MIB

#: The same of all files together, in bytes.  As it fills up, each file is paused
#: earlier, at a quarter of what is left: those with little to write never are.
ALL_HIGH_WATER = 256 * MIB
LEAST_HIGH_WATER = 256 * 1024

#: From the pause of a producer until its file is given up, in seconds, if the disk
#: finishes nothing meanwhile: an encoder that cannot send gives up its connection.
STALL_SECONDS = 10.0

#: Seconds between two looks at the free space, and whether the file is still there.
CHECK_SECONDS = 1.0

#: A file that nothing has been written to for this long, in seconds, gives its
#: descriptor back: that of a stream whose publisher has left, and may come again.
REST_SECONDS = 2.0

#: The cost of creating a file, and of finishing one, in bytes that are written in the
#: same time, about 300 us.
FILE_BYTES = 256 * 1024

_T = TypeVar("_T")


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
        party: Hashable = None,
        kept: Callable[[int], object] = lambda size: None,
    ) -> None:
        """
        @param failed: called at most once, with C{error}.
        @param syncSeconds: the disk is waited for about this often; L{None} leaves
            it to the operating system.
        @param stallSeconds: see L{STALL_SECONDS}.
        @param highWater: see L{HIGH_WATER}, in bytes.
        @param lowWater: see L{LOW_WATER}, in bytes.
        @param kept: called with C{waiting} each time that changes.
        @param party: takes turns with those of other files; by default the file itself.
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
        self._kept = kept
        self._party: Hashable = self if party is None else party
        self._producer: Any = None
        self._paused = False
        self._stall: IDelayedCall | None = None
        self._isAwake = False
        now = self._reactor.seconds()
        self._sentAt: float | None = None
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
        self,
        buffers: list[bytes],
        size: int,
        checkpoint: object = None,
        *,
        hole: int = 0,
    ) -> Deferred[None]:
        """
        Hand a batch over at once.

        @param size: the bytes in the buffers.
        @param checkpoint: kept with the file when the batch is stored.
        @param hole: see L{DiskFile.append}.
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
        self._changeWaiting(size)
        file = self.file
        sent = self._disk.run(
            lambda: file.append(buffers, checkpoint, hole=hole, sync=sync, check=check),
            self._party,
            size if self._sentAt is not None else size + FILE_BYTES,
        ).addBoth(self._taken, size)
        self._sentAt = now
        if not self._isAwake:
            self._isAwake = True
            self._disk.watchRest(self)
        self._checkWater()
        return sent

    def _taken(self, result: OSError | Failure | None, size: int) -> Failure | None:
        self._changeWaiting(-size)
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

    def _changeWaiting(self, size: int) -> None:
        self.waiting += size
        self._disk.waiting += size
        self._kept(self.waiting)

    def restsAt(self, now: float) -> bool:
        """Let the file rest, unless something has been written to it lately."""
        assert self._sentAt is not None
        if now - self._sentAt < REST_SECONDS:
            return False
        self._isAwake = False
        self._disk.run(self.file.rest, self._party).addErrback(self._lost)
        return True

    def overwrite(self, data: bytes, offset: int) -> None:
        """Replace bytes that have been written, after all that was handed over."""
        file = self.file
        self._disk.run(
            lambda: file.overwrite(data, offset), self._party, len(data)
        ).addErrback(self._lost)

    def close(self, makeHead: MakeHead) -> Deferred[bool]:
        """
        Rewrite the beginning and close the file.

        @param makeHead: see L{DiskFile.finish}; called on the disk's thread.
        @return: see L{DiskFile.finish}.
        """
        file = self.file
        sync = self._syncSeconds is not None
        self._disk.unwatchRest(self)
        closed = self._disk.run(
            lambda: file.finish(makeHead, sync=sync), self._party, FILE_BYTES
        )

        def release(result: _T) -> _T:
            self.unregisterProducer()
            return result

        return closed.addBoth(release)

    def _lost(self, failure: Failure) -> None:
        self._fail(_known(failure))

    def _fail(self, error: OSError) -> None:
        if self.error is None:
            self.error = error
            self.unregisterProducer()
            self._failed(error)

    # Pressure

    def _checkWater(self) -> None:
        """Pause or resume the producer, since something has been taken or stored."""
        room = (ALL_HIGH_WATER - self._disk.waiting) // 4
        high = min(self._highWater, max(room, LEAST_HIGH_WATER))
        if self._paused:
            if self.waiting <= min(self._lowWater, high // 2):
                self._resume()
        elif self.waiting >= high and self._producer is not None:
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
