"""The settings of recordings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum

from twisted_rtmp.disk import STALL_SECONDS
from twisted_rtmp.fields import BadField
from twisted_rtmp.recording.names import DEFAULT_NAME, RecordName

#: Free bytes on the disk below which nothing is recorded.  None: only the operator
#: knows how much others need, and a full disk does not end a stream.
MIN_FREE = 0


class TrackFiles(Enum):
    """The files of a stream with several tracks."""

    TOGETHER = "together"  # all tracks are in the stream's file, as they came
    SEPARATE = "separate"  # each further track has a file of its own beside it


@dataclass(frozen=True)
class RecordingSettings:
    """
    The settings of recordings below one folder.

    @ivar directory: the folder; made when the first stream is recorded.
    @ivar name: see L{RecordName}.
    @ivar rotateSeconds: the length of a file, in seconds: the next one begins at the
        first key frame after that; L{None}: any.
    @ivar rotateBytes: the size of a file, in bytes, likewise.
    @ivar tracks: where the further tracks of a stream go.
    @ivar minFree: bytes that must remain free on the disk.
    @ivar fsyncSeconds: wait for the disk itself about this often; L{None} leaves it to
        the operating system when its cache is written.
    @ivar stallSeconds: how long a stream is held up by a disk that does not answer,
        before its file is given up.
    """

    directory: str
    name: str = DEFAULT_NAME
    rotateSeconds: float | None = None
    rotateBytes: int | None = None
    tracks: TrackFiles = TrackFiles.TOGETHER
    minFree: int = MIN_FREE
    fsyncSeconds: float | None = None
    stallSeconds: float = STALL_SECONDS

    def __post_init__(self) -> None:
        """
        Check each value.

        @raise BadField: one is invalid.
        """
        if not self.directory:
            raise BadField("recording.directory", "must not be empty")
        try:
            RecordName(self.name)
        except ValueError as error:
            raise BadField("recording.name", str(error)) from None
        for field in ("rotateSeconds", "rotateBytes", "fsyncSeconds", "stallSeconds"):
            value = getattr(self, field)
            if value is not None and not value > 0:
                raise BadField(f"recording.{field}", "must be more than 0")
        if self.minFree < 0:
            raise BadField("recording.minFree", "must not be negative")

    def checkDirectory(self) -> None:
        """
        Check that the folder is there, or can be made, and can be written to.

        @raise BadField: recording would fail.
        """
        folder = os.path.abspath(self.directory)
        while not os.path.lexists(folder):
            folder = os.path.dirname(folder)
        problem = ""
        if not os.path.isdir(folder):
            problem = "not a directory"
        elif not os.access(folder, os.W_OK | os.X_OK):
            problem = "not writable"
        if problem:
            raise BadField(
                "recording.directory",
                f"must be a directory to write to: {folder} is {problem}",
            )
