"""
Recording of live streams into FLV files.

L{Recordings} is what a server is given.  C{python -m twisted_rtmp.recording} finishes
files that a crash left behind.
"""

from twisted_rtmp.recording.names import DEFAULT_NAME, RecordName
from twisted_rtmp.recording.part import FinishedFile
from twisted_rtmp.recording.recorder import FLVRecorder
from twisted_rtmp.recording.recordings import Recordings

__all__ = ["DEFAULT_NAME", "FLVRecorder", "FinishedFile", "RecordName", "Recordings"]
