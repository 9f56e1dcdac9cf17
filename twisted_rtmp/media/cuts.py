"""Cuts: where a stream may be cut into files or segments, and when that is due."""

from __future__ import annotations

import math

from twisted_rtmp.media.flags import CODED, KEY_FRAME
from twisted_rtmp.media.parts import readTrackIds
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.messages import Message

#: A stream without video for this long, in milliseconds of its own time, is cut like
#: one that never had any: at an audio frame.
NO_VIDEO_MILLISECONDS = 10_000

_VIDEO: int = MessageType.VIDEO


class Cuts:
    """
    The places at which one stream may be cut.

    A decoder must be able to begin there: at a key frame of the leading video track, or
    at audio that goes alone.

    @ivar flags: a message that has any of these may be the first of the next file, so
        that L{isDue} must be asked about it; 0 as long as no cut is to come.
    """

    def __init__(
        self, milliseconds: float | None = None, sizeBytes: int | None = None
    ) -> None:
        """
        @param milliseconds: the time after which a file is due to end; L{None} for any.
        @param sizeBytes: the size at which it is; L{None} for any.
        """
        self.flags = 0
        self._milliseconds = milliseconds
        self._sizeBytes = sizeBytes
        self._dueTime = 0.0  # a timestamp, in milliseconds
        self._lastVideo: int | None = None  # a timestamp, in milliseconds
        # Of the newest file that had video.
        self._leadingTrack: int | None = None

    def fileBegan(self, base: int) -> None:
        """
        Look for the next cut in a file that begins.

        @param base: its first timestamp, in milliseconds, as far as it is known.
        """
        self.flags = 0
        self._schedule(base)

    def _schedule(self, base: int) -> None:
        if self._milliseconds is not None or self._sizeBytes is not None:
            limit = self._milliseconds
            self._dueTime = math.inf if limit is None else base + limit
            self.flags = KEY_FRAME | CODED

    def demand(self) -> None:
        """Cut as soon as possible, whatever the limits."""
        self._dueTime = -math.inf
        self.flags = KEY_FRAME | CODED

    def batchPassed(
        self, base: int, timestamp: int, hasVideo: bool, leadingTrack: int | None
    ) -> None:
        """
        Note what the messages were that went into the file.

        @param base: the file's first timestamp, in milliseconds.
        @param timestamp: the last message's, in milliseconds.
        @param hasVideo: whether there were frames of video.
        @param leadingTrack: the file's leading track so far, if it has one.
        """
        if hasVideo:
            self._lastVideo = timestamp
            if leadingTrack is not None:
                self._leadingTrack = leadingTrack
        if self.flags:
            self._schedule(base)
            if self._hasVideo(timestamp):
                self.flags = KEY_FRAME

    def messagePassed(self, message: Message) -> None:
        """Note a message that goes into no file; its flags are set."""
        if message.typeId == _VIDEO and message.flags & CODED:
            self._lastVideo = message.timestamp

    def isDue(self, message: Message, sizeBytes: int) -> bool:
        """
        Tell whether the file is to end before a message, or as soon as it may.

        @param sizeBytes: the file's size.
        """
        limit = self._sizeBytes
        return message.timestamp >= self._dueTime or (
            limit is not None and sizeBytes >= limit
        )

    def mayBegin(self, message: Message) -> bool:
        """Tell whether a file may begin with a message."""
        if message.typeId == _VIDEO:
            if not message.flags & KEY_FRAME:
                return False
            leading = self._leadingTrack
            return leading is None or leading >= lowestTrack(
                message.payload, message.flags
            )
        return bool(message.flags & CODED) and not self._hasVideo(message.timestamp)

    def _hasVideo(self, timestamp: int) -> bool:
        """Tell whether there has been video lately."""
        return (
            self._lastVideo is not None
            and timestamp - self._lastVideo < NO_VIDEO_MILLISECONDS
        )


def lowestTrack(payload: bytes, flags: int) -> int:
    """
    Tell the lowest number of the tracks in a video frame; 0 if they have none.

    @param payload: of a single track its beginning is enough.
    @param flags: of the payload, which has L{CODED} among them.
    """
    return min(readTrackIds(_VIDEO, payload, flags))
