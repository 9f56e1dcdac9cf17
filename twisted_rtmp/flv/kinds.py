"""
Kinds of media: which of audio and video a stream has, as the header of an FLV stream
says.

It matters: with a kind too many mpegts.js waits for ever, ffmpeg for 5 s and GStreamer
for 6 s; with a kind too few GStreamer ignores what comes of it, and mpegts.js may.  So
there is one rule for files, pipes and HTTP.  A kind I{has come} once a sequence header
or a coded frame of it has; the metadata I{promise} it if they say anything of it.

    ============================  ==================================================
    A finished file               what has come
    A file that is written        what has come and what is promised; corrected when
                                  more comes
    HTTP                          waits until the stream is settled, or a second;
                                  then what has come
    A pipe, which cannot correct  what has come and what is promised; both if nothing
    and does not wait             is promised
    ============================  ==================================================

Where nothing is known at all, the answer is both: mpegts.js does not take a header
with neither for FLV.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from twisted_rtmp.ledger import Ledger
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.messages import Message

#: Frames after which a stream has shown what it has, whatever its metadata promise:
#: about a second.
SETTLE_FRAMES = 100

_AUDIO: int = MessageType.AUDIO
_VIDEO: int = MessageType.VIDEO

#: Properties of C{onMetaData} that promise audio, or video.
_AUDIO_KEYS = ("audiocodecid", "audiosamplerate", "hasAudio")
_VIDEO_KEYS = ("videocodecid", "width", "hasVideo")


class Kinds(NamedTuple):
    """Which of audio and video there is."""

    audio: bool
    video: bool

    def __or__(self, other: Kinds) -> Kinds:
        return Kinds(self.audio or other.audio, self.video or other.video)

    def orBoth(self) -> Kinds:
        """Give both if there is neither."""
        return self if self.audio or self.video else BOTH


NEITHER = Kinds(False, False)
BOTH = Kinds(True, True)


class Source(Protocol):
    """The part of a live stream that tells its kinds."""

    @property
    def ledger(self) -> Ledger:
        """The figures of what has come."""

    @property
    def properties(self) -> Mapping[str, Any]:
        """The properties of the newest metadata."""

    def headers(self) -> list[Message]:
        """List the newest metadata and sequence headers."""


def promisedKinds(properties: Mapping[str, Any]) -> Kinds:
    """
    Tell which kinds metadata promise.

    @param properties: of an C{onMetaData}.
    """
    return Kinds(
        any(properties.get(key) not in (None, False, "") for key in _AUDIO_KEYS),
        any(properties.get(key) not in (None, False, "") for key in _VIDEO_KEYS),
    )


def lastingKinds(come: Kinds, promised: Kinds) -> Kinds:
    """Choose the kinds of a header that must be written now and stays as it is."""
    return come | promised if promised != NEITHER else BOTH


class StreamKinds:
    """The kinds of a live stream, for a player that waits until they are known."""

    def __init__(self, stream: Source) -> None:
        self._stream = stream

    @property
    def received(self) -> Kinds:
        """The kinds that have come."""
        received = self._stream.ledger.received
        types = {header.typeId for header in self._stream.headers()}
        return Kinds(
            received.audio > 0 or _AUDIO in types,
            received.video > 0 or _VIDEO in types,
        )

    @property
    def settled(self) -> bool:
        """Whether what has come is what the stream has."""
        come = self.received
        if come == BOTH:
            return True
        received = self._stream.ledger.received
        if received.audio + received.video >= SETTLE_FRAMES:
            return True
        promised = promisedKinds(self._stream.properties)
        return promised != NEITHER and come | promised == come
