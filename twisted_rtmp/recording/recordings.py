"""All recordings of a server: L{Recordings} gives each new stream its recorder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from zope.interface import implementer

from twisted_rtmp.disk import STALL_SECONDS, Disk, IDiskReactor, Pool
from twisted_rtmp.interfaces import ILiveStream, ISinkFactory
from twisted_rtmp.limits import STOP_SECONDS
from twisted_rtmp.recording.names import DEFAULT_NAME, RecordName
from twisted_rtmp.recording.part import FinishedFile, Settings
from twisted_rtmp.recording.recorder import FLVRecorder
from twisted_rtmp.recording.trackfiles import TrackRecorder

if TYPE_CHECKING:
    pass

#: Free bytes on the disk below which nothing is recorded.  None: only the operator
#: knows how much others need, and a full disk does not end a stream.
MIN_FREE = 0


@implementer(ISinkFactory)
class Recordings:
    """
    Records every stream below one folder.

    @ivar finished: called with each L{FinishedFile}; an application may add to it.
    @ivar recorders: those of the streams (and of tracks with files of their own) that
        are live, or not all stored.
    @ivar files: how many files have been finished.
    @ivar failures: how often a file could not go on.
    """

    sinkName = "recording"

    log = Logger()

    def __init__(
        self,
        reactor: IDiskReactor,
        directory: str,
        *,
        name: str = DEFAULT_NAME,
        rotateSeconds: float | None = None,
        rotateBytes: int | None = None,
        minFree: int = MIN_FREE,
        fsyncSeconds: float | None = None,
        stallSeconds: float = STALL_SECONDS,
        separateTracks: bool = False,
        now: Callable[[], float] | None = None,
        pool: Pool | None = None,
    ) -> None:
        """
        @param directory: made when the first stream is recorded.
        @param name: see L{RecordName}.
        @param rotateSeconds: the length of a file, in seconds: the next one begins at
            the first key frame after that.
        @param rotateBytes: the size of a file, in bytes, likewise.
        @param minFree: bytes that must remain free on the disk.
        @param fsyncSeconds: wait for the disk itself about this often; L{None} leaves
            it to the operating system when its cache is written.
        @param stallSeconds: how long a stream is held up by a disk that does not
            answer, before its file is given up.
        @param separateTracks: whether each further track of a stream has a file of its
            own; otherwise a stream's file has all of them, as they came.
        @param now: the time for names, in seconds since 1970; the reactor's by default.
        @param pool: see L{Disk}.
        @raise ValueError: an argument is invalid; the message is one line.
        """
        for what, value in (
            ("rotateSeconds", rotateSeconds),
            ("rotateBytes", rotateBytes),
            ("fsyncSeconds", fsyncSeconds),
        ):
            if value is not None and value <= 0:
                raise ValueError(f"{what} must be more than 0, not {value}")
        self.finished: list[Callable[[FinishedFile], object]] = []
        self.recorders: set[FLVRecorder] = set()
        self.files = 0
        self.failures = 0
        self._disk = Disk(reactor, pool)
        self._stopped = False
        self._separateTracks = separateTracks
        self._settings = Settings(
            disk=self._disk,
            directory=directory,
            name=RecordName(name),
            now=now or reactor.seconds,
            rotateMilliseconds=None if rotateSeconds is None else rotateSeconds * 1000,
            rotateBytes=rotateBytes,
            minFree=minFree,
            fsyncSeconds=fsyncSeconds,
            stallSeconds=stallSeconds,
            tellFinished=self._tellFinished,
            tellFailed=self._tellFailed,
        )

    def openSink(self, stream: ILiveStream) -> FLVRecorder | TrackRecorder | None:
        """Record a stream; L{None} once L{stop} has been called."""
        if self._stopped:
            return None
        if self._separateTracks:
            return TrackRecorder(self._settings, stream, self.recorders)
        recorder = FLVRecorder(self._settings, stream, self.recorders.discard)
        self.recorders.add(recorder)
        return recorder

    def _tellFinished(self, file: FinishedFile) -> None:
        self.files += 1
        for callback in self.finished:
            # An application's fault is not the recording's.
            maybeDeferred(callback, file).addErrback(
                lambda failure: self.log.failure(
                    "A callback of a finished recording failed", failure
                )
            )

    def _tellFailed(self, error: OSError) -> None:
        self.failures += 1

    def stop(self, seconds: float = STOP_SECONDS) -> Deferred[None]:
        """
        Finish every recording and end the disk's thread.

        @param seconds: how long to wait for a disk that does not answer.
        @return: fires when all is done, or given up; it never fails.
        """
        self._stopped = True
        for recorder in list(self.recorders):
            recorder.streamEnded()
        return self._disk.stop(seconds).addCallback(self._tellStopped)

    def _tellStopped(self, complete: bool) -> None:
        if not complete:
            self.log.warn(
                "The disk does not answer; {count} recordings are left unfinished",
                count=len(self.recorders),
            )
