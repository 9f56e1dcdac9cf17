"""
Recording of live streams into FLV files.

A server is given L{Recordings}.  C{python -m twisted_rtmp.recording} finishes
files that a crash left behind.
"""

from twisted_rtmp.recording.names import DEFAULT_NAME, RecordName
from twisted_rtmp.recording.part import FinishedFile
from twisted_rtmp.recording.recorder import FLVRecorder
from twisted_rtmp.recording.recordings import Recordings
from twisted_rtmp.recording.settings import RecordingSettings, TrackFiles

__all__ = [
    "DEFAULT_NAME",
    "FLVRecorder",
    "FinishedFile",
    "RecordName",
    "RecordingSettings",
    "Recordings",
    "TrackFiles",
]
