"""The account of a stream: what came, what was stored, what was lost, and why."""

from __future__ import annotations

from twisted_rtmp.media.payloads import CODED
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.messages import Message


class MediaCounts:
    """
    Messages by what they are, and their payloads' bytes.

    @ivar video: coded video frames.
    @ivar audio: coded audio frames.
    @ivar headers: audio and video messages that carry no frame: sequence
        headers, ends of sequence, empty messages, commands.
    @ivar data: metadata, cue points and other data messages.
    @ivar audioSize: the bytes of the payloads of audio, headers included; 0 where
        nobody tells them apart, as of what was written.
    @ivar videoSize: likewise.
    """

    __slots__ = (
        "_otherSize",
        "audio",
        "audioSize",
        "data",
        "headers",
        "video",
        "videoSize",
    )

    def __init__(self) -> None:
        self.video = 0
        self.audio = 0
        self.headers = 0
        self.data = 0
        self.audioSize = 0
        self.videoSize = 0
        self._otherSize = 0

    @property
    def size(self) -> int:
        """The bytes of all their payloads."""
        return self.audioSize + self.videoSize + self._otherSize

    @size.setter
    def size(self, size: int) -> None:
        self._otherSize = size - self.audioSize - self.videoSize

    def count(self, message: Message) -> None:
        """Count one message whose flags are set."""
        self._otherSize += len(message.payload)
        if message.typeId == MessageType.DATA_AMF0:
            self.data += 1
        elif not message.flags & CODED:
            self.headers += 1
        elif message.typeId == MessageType.VIDEO:
            self.video += 1
        else:
            self.audio += 1

    def add(self, other: MediaCounts) -> None:
        """Add another's figures to these."""
        self.video += other.video
        self.audio += other.audio
        self.headers += other.headers
        self.data += other.data
        self.audioSize += other.audioSize
        self.videoSize += other.videoSize
        self._otherSize += other._otherSize

    @property
    def messages(self) -> int:
        """The number of all messages, of every kind."""
        return self.video + self.audio + self.headers + self.data

    def __repr__(self) -> str:
        return (
            f"<MediaCounts {self.video} video {self.audio} audio"
            f" {self.headers} headers {self.data} data, {self.size} bytes>"
        )


class Ledger:
    """
    The account of one stream.

    @ivar received: what the publisher sent.
    @ivar written: for each sink that stores (by its name), what is stored: of
        a file, what the operating system has taken.
    @ivar discarded: messages that a sink or the stream did not keep, by
        reason.
    @ivar gaps: forward steps of the time of audio or video by more than
        L{GAP_MILLISECONDS<twisted_rtmp.live.timeline.GAP_MILLISECONDS>}.
    @ivar backwardSteps: backward steps of the time of audio or video.
    @ivar clockBreaks: how often the publisher's clock fell back or jumped ahead, and
        the stream's time went on where it stood.
    """

    def __init__(self) -> None:
        self.received = MediaCounts()
        self.written: dict[str, MediaCounts] = {}
        self.discarded: dict[str, int] = {}
        self.gaps = 0
        self.backwardSteps = 0
        self.clockBreaks = 0

    def writer(self, sinkName: str) -> MediaCounts:
        """Give the figures of one storing sink; all sinks of a name share them."""
        return self.written.setdefault(sinkName, MediaCounts())

    def discard(self, reason: str, messages: int = 1) -> None:
        """Book messages as lost, for a reason of a few words."""
        if messages:
            self.discarded[reason] = self.discarded.get(reason, 0) + messages

    @property
    def lost(self) -> int:
        """The number of all discarded messages."""
        return sum(self.discarded.values())

    def summary(self) -> str:
        """
        Make the line for the log.

        For example C{"60 video 87 audio received, 60 and 87 written, 0
        lost"}.
        """
        parts = [f"{self.received.video} video {self.received.audio} audio received"]
        for name, counts in self.written.items():
            where = "" if name == "recording" else f" to {name}"
            parts.append(f"{counts.video} and {counts.audio} written{where}")
        lost = f"{self.lost} lost"
        if self.discarded:
            reasons = ", ".join(f"{n} {why}" for why, n in self.discarded.items())
            lost += f" ({reasons})"
        parts.append(lost)
        if self.gaps or self.backwardSteps:
            parts.append(
                f"{self.gaps} gaps and {self.backwardSteps} backward steps in time"
            )
        if self.clockBreaks:
            parts.append(f"{self.clockBreaks} breaks of the publisher's clock repaired")
        return ", ".join(parts)
