"""
Payloads of audio and video messages: what they are, and what their headers say.

Two ways in.  L{videoFlags}, L{audioFlags} and L{flagsOf} look at every message that
passes and say in one integer what a server needs: key frame, sequence header, coded
frame.  L{parseVideo}, L{parseAudio}, L{videoFacts} and L{audioFacts} read whole
headers, for logs, tools and C{onMetaData}.

An enhanced packet type may announce ModEx extensions before it, or several tracks
after it.  What is unknown (codecs, FourCCs, packet types) passes; what is too short
for what it announces is malformed.

This is the front of C{flags}, C{exheader}, C{video}, C{audio} and C{parametersets}.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_rtmp.media.audio import (
    AUDIO_CODECS,
    EX_HEADER,
    AudioHeader,
    AudioPacketType,
    MultichannelConfig,
    audioFacts,
    audioFlags,
    parseAudio,
)
from twisted_rtmp.media.exheader import (
    FOUR_CCS,
    MAX_MOD_EX,
    MAX_TRACKS,
    MultitrackType,
    Track,
)
from twisted_rtmp.media.flags import (
    CODED,
    COMMAND,
    EMPTY,
    ENHANCED,
    FOREIGN,
    KEY_FRAME,
    MALFORMED,
    METADATA,
    MOD_EX,
    MULTICHANNEL,
    MULTITRACK,
    SEQUENCE_END,
    SEQUENCE_HEADER,
)
from twisted_rtmp.media.video import (
    VIDEO_CODECS,
    FrameType,
    VideoHeader,
    VideoPacketType,
    parseVideo,
    videoFacts,
    videoFlags,
)

if TYPE_CHECKING:
    from twisted_rtmp.wire.messages import Message

__all__ = [
    "AUDIO_CODECS",
    "CODED",
    "COMMAND",
    "EMPTY",
    "ENHANCED",
    "EX_HEADER",
    "FOREIGN",
    "FOUR_CCS",
    "KEY_FRAME",
    "MALFORMED",
    "MAX_MOD_EX",
    "MAX_TRACKS",
    "METADATA",
    "MOD_EX",
    "MULTICHANNEL",
    "MULTITRACK",
    "SEQUENCE_END",
    "SEQUENCE_HEADER",
    "VIDEO_CODECS",
    "AudioHeader",
    "AudioPacketType",
    "FrameType",
    "MultichannelConfig",
    "MultitrackType",
    "Track",
    "VideoHeader",
    "VideoPacketType",
    "audioFacts",
    "audioFlags",
    "exactTime",
    "flagsOf",
    "parseAudio",
    "parseVideo",
    "videoFacts",
    "videoFlags",
]


def flagsOf(typeId: int, payload: bytes) -> int:
    """
    Say what a message's payload is.

    @param typeId: the message type id.
    @return: 0 for anything but audio and video.
    """
    if typeId == 9:  # the numbers, since an enum member costs 40 ns here
        return videoFlags(payload)
    if typeId == 8:
        return audioFlags(payload)
    return 0


def exactTime(message: Message) -> int:
    """
    Give the exact time at which a message is to be presented or decoded.

    @return: nanoseconds: the timestamp, which goes on past 2^32 milliseconds, and what
        a TimestampOffsetNano adds, up to 999,999 if the encoder keeps to E-RTMP v2.
        Only the timestamp of a malformed payload.
    """
    nanoseconds = message.timestamp * 1_000_000
    flags = message.flags or flagsOf(message.typeId, message.payload)
    if flags & MOD_EX:
        parse = parseVideo if message.typeId == 9 else parseAudio
        nanoseconds += parse(message.payload).nanoseconds
    return nanoseconds
