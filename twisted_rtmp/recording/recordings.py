"""All recordings of a server: L{Recordings} gives each new stream its recorder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from zope.interface import implementer

from twisted_rtmp.disk import Disk, IDiskReactor, Pool
from twisted_rtmp.interfaces import ILiveStream, ISinkFactory
from twisted_rtmp.limits import RECORDING_SHARE, RECORDINGS, STOP_SECONDS
from twisted_rtmp.places import Places
from twisted_rtmp.recording.names import RecordName
from twisted_rtmp.recording.part import FinishedFile, Shared
from twisted_rtmp.recording.recorder import TELL_SECONDS, FLVRecorder
from twisted_rtmp.recording.settings import RecordingSettings, TrackFiles
from twisted_rtmp.recording.trackfiles import TrackRecorder


def recordingPlaces(
    limit: int = RECORDINGS, addressShare: float = RECORDING_SHARE
) -> Places:
    """Make the places for all recordings of a server."""
    return Places("unfinished recordings", limit, addressShare)


@implementer(ISinkFactory)
class Recordings:
    """
    Records every stream below one folder.

    @ivar finished: called with each L{FinishedFile}; an application may add to it.
    @ivar recorders: those of the streams (and of tracks with files of their own) that
        are live, or not all stored.
    @ivar files: how many files have been finished.
    @ivar failures: how often a file could not go on.
    @ivar refused: how often a stream could not be recorded, since there were too many.
    """

    sinkName = "recording"

    log = Logger()

    def __init__(
        self,
        reactor: IDiskReactor,
        settings: RecordingSettings | str,
        *,
        now: Callable[[], float] | None = None,
        pool: Pool | None = None,
        places: Places | None = None,
    ) -> None:
        """
        @param settings: the settings; of a path, those by default below that folder.
        @param now: the time for names, in seconds since 1970; the reactor's by default.
        @param pool: see L{Disk}.
        @param places: those of the server; by default as many for this folder alone.
        """
        if isinstance(settings, str):
            settings = RecordingSettings(settings)
        self.finished: list[Callable[[FinishedFile], object]] = []
        self.recorders: set[FLVRecorder] = set()
        self.files = 0
        self.failures = 0
        self.refused = 0
        self._toldRefused: float | None = None
        self._disk = Disk(reactor, pool)
        self._stopped = False
        self._shared = Shared(
            settings=settings,
            disk=self._disk,
            name=RecordName(settings.name),
            now=now or reactor.seconds,
            places=places or recordingPlaces(),
            tellFinished=self._tellFinished,
            tellFailed=self._tellFailed,
            tellRefused=self._tellRefused,
        )

    def openSink(self, stream: ILiveStream) -> FLVRecorder | TrackRecorder | None:
        """Record a stream; L{None} once L{stop} has been called."""
        if self._stopped:
            return None
        if self._shared.settings.tracks is TrackFiles.SEPARATE:
            return TrackRecorder(self._shared, stream, self.recorders)
        recorder = FLVRecorder(self._shared, stream, self.recorders.discard)
        self.recorders.add(recorder)
        return recorder

    def describe(self) -> dict[str, Any]:
        """Give its figures, as plain values."""
        return {
            "directory": self._shared.settings.directory,
            "recorders": len(self.recorders),
            "files": self.files,
            "failures": self.failures,
            "refused": self.refused,
        }

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

    def _tellRefused(self, stream: str, why: str) -> None:
        """Count a stream that is not recorded; log now and then."""
        self.refused += 1
        now = self._disk.reactor.seconds()
        told = self._toldRefused
        if told is None or now - told >= TELL_SECONDS:
            self._toldRefused = now
            self.log.warn(
                "{stream} is live but not recorded: {why} ({count} refusals so far)",
                stream=stream,
                why=why,
                count=self.refused,
            )

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
