"""
Ordered writes to files, off the reactor's thread.

A L{Disk} owns one thread and one clock tick for all files; a L{FileWriter} is the
reactor's side of one file and a L{DiskFile} the thread's.
"""

from twisted_rtmp.disk.file import DiskFile, FileRemoved, LowSpace
from twisted_rtmp.disk.thread import Disk, DiskStalled, IDiskReactor, Pool
from twisted_rtmp.disk.writer import BATCH_BYTES, STALL_SECONDS, FileWriter

__all__ = [
    "BATCH_BYTES",
    "STALL_SECONDS",
    "Disk",
    "DiskFile",
    "DiskStalled",
    "FileRemoved",
    "FileWriter",
    "IDiskReactor",
    "LowSpace",
    "Pool",
]
