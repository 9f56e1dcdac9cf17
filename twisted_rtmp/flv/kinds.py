"""
Which of audio and video a stream has: what the header of an FLV stream says.

Imports C{twisted_rtmp.wire}, and the streams for typing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.errors import ProtocolError

if TYPE_CHECKING:
    from twisted_rtmp.live.streams import LiveStream

#: Frames after which a stream has shown what it has, whatever its metadata says: about
#: a second.
SETTLE_FRAMES = 100

_AUDIO: int = MessageType.AUDIO
_VIDEO: int = MessageType.VIDEO

#: What in C{onMetaData} tells that there is audio, or video.
_AUDIO_KEYS = ("audiocodecid", "audiosamplerate", "hasAudio")
_VIDEO_KEYS = ("videocodecid", "width", "hasVideo")


def tracksSeen(stream: LiveStream) -> tuple[bool, bool]:
    """Whether a stream has had audio, and video."""
    received = stream.ledger.received
    types = {header.typeId for header in stream.headers()}
    return (
        received.audio > 0 or _AUDIO in types,
        received.video > 0 or _VIDEO in types,
    )


def tracksPromised(stream: LiveStream) -> tuple[bool, bool]:
    """Whether a stream's metadata tell of audio, and of video."""
    if stream.metadata is None:
        return False, False
    try:
        values = amf0.decode(stream.metadata.payload)
    except ProtocolError:
        return False, False
    facts = values[1] if len(values) > 1 else None
    if not isinstance(facts, dict):
        return False, False
    return (
        any(facts.get(key) not in (None, False, "") for key in _AUDIO_KEYS),
        any(facts.get(key) not in (None, False, "") for key in _VIDEO_KEYS),
    )


def isSettled(stream: LiveStream) -> bool:
    """
    Whether it is known which of audio and video a stream has.

    The header of an FLV stream says so, and it matters: with a track too many
    mpegts.js waits for ever and ffmpeg for 5 s, with one too few mpegts.js may play
    without it.
    """
    seen = tracksSeen(stream)
    if all(seen):
        return True
    received = stream.ledger.received
    if received.audio + received.video >= SETTLE_FRAMES:
        return True
    promised = tracksPromised(stream)
    return any(promised) and all(
        there for there, wanted in zip(seen, promised, strict=True) if wanted
    )
