"""
Video payloads: flags for every message, headers and facts for callers that need more.

The first byte, legacy (FLV 10.1, E.4.3) and enhanced (E-RTMP v2, Enhanced Video)::

    0 | frame type 3 | codec id 4           AVC: packet type, composition time 3
    1 | frame type 3 | packet type 4        FourCC 4 [composition time 3]
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from twisted_rtmp.media.exheader import (
    TIMED,
    MediaHeader,
    Track,
    checkBody,
    codecNumber,
    flagsOfTracks,
    nanosecondsOf,
    need,
    readFourCC,
    readModEx,
    readMultitrack,
    readTracks,
    signed24,
)
from twisted_rtmp.media.flags import (
    CODED,
    COMMAND,
    EMPTY,
    ENHANCED,
    KEY_FRAME,
    MALFORMED,
    METADATA,
    MOD_EX,
    MULTITRACK,
    SEQUENCE_END,
    SEQUENCE_HEADER,
    Row,
    rowOf,
)
from twisted_rtmp.media.framesizes import CONFIGURATION_SIZES, KEY_FRAME_SIZES
from twisted_rtmp.media.parametersets import DIMENSIONS
from twisted_rtmp.wire.errors import MessageError

_SECTION = "E-RTMP v2, Enhanced Video"


class FrameType(IntEnum):
    """Types of video frames.  FLV 10.1, E.4.3.1."""

    KEY_FRAME = 1
    INTER_FRAME = 2
    DISPOSABLE_INTER_FRAME = 3
    GENERATED_KEY_FRAME = 4
    COMMAND = 5


class VideoPacketType(IntEnum):
    """
    Packet types of enhanced video; 0 to 2 mean the same after a legacy header.
    E-RTMP v2, Enhanced Video.
    """

    SEQUENCE_START = 0
    CODED_FRAMES = 1
    SEQUENCE_END = 2
    CODED_FRAMES_X = 3
    METADATA = 4
    MPEG2TS_SEQUENCE_START = 5
    MULTITRACK = 6
    MOD_EX = 7


#: Legacy video codecs.  2 to 7: FLV 10.1, E.4.3.1; the rest is what is used in the
#: field: 8 and 9 by ffmpeg, 12 by Chinese CDNs and cameras, 13 by SRS, 14 and 15 by
#: patched ffmpegs.
VIDEO_CODECS = {
    1: "JPEG",
    2: "Sorenson H.263",
    3: "Screen video",
    4: "On2 VP6",
    5: "On2 VP6 with alpha",
    6: "Screen video 2",
    7: "AVC",
    8: "H.263",
    9: "MPEG-4 Visual",
    12: "HEVC",
    13: "AV1",
    14: "VP8",
    15: "VP9",
}

#: Legacy video codecs with a packet type and a composition time: AVC, and those that
#: were fitted in beside it.
_PACKET_CODECS = frozenset((7, 9, 12, 13))

_KEY_FRAME_TYPES = (FrameType.KEY_FRAME, FrameType.GENERATED_KEY_FRAME)

#: Pixels a side; more is garbage that happened to be readable.
_MAX_DIMENSION = 65535

_PACKET_FLAGS: dict[int, int] = {
    VideoPacketType.SEQUENCE_START: SEQUENCE_HEADER,
    VideoPacketType.CODED_FRAMES: CODED,
    VideoPacketType.SEQUENCE_END: SEQUENCE_END,
    VideoPacketType.CODED_FRAMES_X: CODED,
    VideoPacketType.MPEG2TS_SEQUENCE_START: SEQUENCE_HEADER,
}


def _firstRow(first: int) -> Row | None:
    """
    Make the flags of video that begins with one byte, by its second byte; L{None} if
    more must be read.
    """
    frameType = first >> 4 & 7
    low = first & 15  # packet type or codec
    coded = CODED | KEY_FRAME if frameType in _KEY_FRAME_TYPES else CODED
    if not first & 0x80:
        if frameType == FrameType.COMMAND:
            return rowOf(COMMAND)
        if low in _PACKET_CODECS:
            return rowOf(SEQUENCE_HEADER, coded, SEQUENCE_END, 0)
        return rowOf(coded)
    if low == VideoPacketType.MOD_EX:
        return None
    if low == VideoPacketType.METADATA:
        return rowOf(ENHANCED | METADATA)
    if frameType == FrameType.COMMAND:
        return rowOf(ENHANCED | COMMAND)
    if low == VideoPacketType.MULTITRACK:
        return None
    flags = _PACKET_FLAGS.get(low, 0)
    return rowOf(ENHANCED | (coded if flags == CODED else flags))


_ROWS = tuple(_firstRow(first) for first in range(256))


def videoFlags(payload: bytes) -> int:
    """
    Say what a video payload is: L{CODED}, L{KEY_FRAME}, L{SEQUENCE_HEADER} ...

    For every message that passes: 0.06 us beyond the call itself for a frame of any
    codec, legacy or enhanced (CPython 3.11), 0.16 us for one track of several, some
    7 us for the rare rest: ModEx, several tracks in one message.
    """
    # 8 bytes are the longest simple header, so a ninth is the frame's.
    if len(payload) > 8:
        row = _ROWS[payload[0]]
        if row is not None:
            return row[payload[1]]
        # Encoders with several tracks send most messages as Multitrack, OneTrack
        # (high bits of the second byte 0): 7 bytes of header, up to 3 of time.
        if payload[0] & 0x8F == 0x86 and payload[1] < 16 and len(payload) > 10:
            row = _ROWS[payload[0] & 0xF0 | payload[1]]
            if row is not None:
                return row[0] | MULTITRACK
    elif not payload:
        return EMPTY
    try:
        return parseVideo(payload).flags
    except MessageError:
        return MALFORMED


@dataclass(frozen=True, kw_only=True)
class VideoHeader(MediaHeader):
    """
    The header of a video message.

    @ivar frameType: a L{FrameType}, or a reserved number.
    @ivar compositionTime: milliseconds to add for the time of presentation.
    @ivar command: of a command frame: 0 when seeking starts, 1 when it ends.
    """

    legacyCodecs = VIDEO_CODECS

    frameType: int
    compositionTime: int = 0
    command: int | None = None

    @property
    def keyFrame(self) -> bool:
        """Tell whether decoding can start at this frame."""
        return bool(self.flags & KEY_FRAME)


def parseVideo(payload: bytes) -> VideoHeader:
    """
    Read the header of a video message.

    @raise MessageError: the payload is empty or too short for what it announces.
    """
    if not payload:
        raise MessageError("a video message without a payload", section=_SECTION)
    first = payload[0]
    if first & 0x80:
        return _parseEnhanced(payload)
    frameType = first >> 4
    codec = first & 15
    packetType = None
    compositionTime = 0
    offset = 1
    if codec in _PACKET_CODECS and (frameType != FrameType.COMMAND or len(payload) > 5):
        need(payload, 5, "FLV 10.1, E.4.3.1")
        packetType = payload[1]
        if packetType == VideoPacketType.CODED_FRAMES:
            compositionTime = signed24(payload, 2)
        offset = 5
    if frameType == FrameType.COMMAND:
        need(payload, offset + 1, "FLV 10.1, E.4.3.1")
        return VideoHeader(
            flags=COMMAND,
            codec=codec,
            frameType=frameType,
            packetType=packetType,
            bodyOffset=offset + 1,
            command=payload[offset],
        )
    row = _ROWS[first]
    assert row is not None
    flags = checkBody(
        row[packetType or 0], len(payload) - offset, True, "FLV 10.1, E.4.3.1"
    )
    return VideoHeader(
        flags=flags,
        codec=codec,
        frameType=frameType,
        packetType=packetType,
        compositionTime=compositionTime,
        bodyOffset=offset,
    )


def _parseEnhanced(payload: bytes) -> VideoHeader:
    section = _SECTION
    frameType = payload[0] >> 4 & 7
    packetType, offset, modEx = readModEx(payload, VideoPacketType.MOD_EX, section)
    nanoseconds = nanosecondsOf(modEx, section)
    extended = MOD_EX if modEx else 0
    if frameType == FrameType.COMMAND and packetType != VideoPacketType.METADATA:
        need(payload, offset + 1, section)
        return VideoHeader(
            flags=ENHANCED | COMMAND | extended,
            codec="",
            frameType=frameType,
            packetType=packetType,
            bodyOffset=offset + 1,
            command=payload[offset],
            nanoseconds=nanoseconds,
            modEx=modEx,
        )
    multitrack = None
    if packetType == VideoPacketType.MULTITRACK:
        multitrack, packetType, offset = readMultitrack(payload, offset, section)
        if packetType == VideoPacketType.MULTITRACK:
            raise MessageError("multitrack inside multitrack", section=section)
    fourCC, offset = readFourCC(payload, offset, multitrack, section)
    row = _ROWS[payload[0] & 0xF0 | packetType]
    flags = ENHANCED if row is None else row[0]
    tracks: tuple[Track, ...] = ()
    compositionTime = 0
    timed = packetType == VideoPacketType.CODED_FRAMES
    if multitrack is not None:
        tracks = readTracks(payload, offset, multitrack, fourCC, timed, section)
        flags = MULTITRACK | flagsOfTracks(flags, tracks, True, section)
    else:
        if timed and fourCC in TIMED:
            need(payload, offset + 3, section)
            compositionTime = signed24(payload, offset)
            offset += 3
        flags = checkBody(flags, len(payload) - offset, True, section)
    return VideoHeader(
        flags=flags | extended,
        codec=fourCC,
        frameType=frameType,
        packetType=packetType,
        compositionTime=compositionTime,
        bodyOffset=offset,
        nanoseconds=nanoseconds,
        multitrackType=multitrack,
        tracks=tracks,
        modEx=modEx,
    )


def videoFacts(payload: bytes) -> dict[str, int]:
    """
    Say what a video message tells for C{onMetaData}.

    @return: C{videocodecid} (a FourCC as a big-endian number) if it names a codec;
        C{width} and C{height}, in pixels, from a sequence header of AVC, HEVC, AV1 or
        VVC, or a key frame of AV1, VP8 or VP9.  Of numbered tracks, those of the
        default one, number 0.  Empty for anything that cannot be read.
    """
    try:
        header = parseVideo(payload)
    except MessageError:
        return {}
    codec, body = header.defaultTrack(payload)
    if codec == "":
        return {}
    facts = {"videocodecid": codecNumber(codec)}
    read = None
    if header.flags & SEQUENCE_HEADER:
        read = DIMENSIONS.get(codec) or CONFIGURATION_SIZES.get(codec)
    elif header.flags & KEY_FRAME:
        read = KEY_FRAME_SIZES.get(codec)
    if read is not None:
        try:
            width, height = read(body)
        except MessageError:
            return facts
        if 0 < width <= _MAX_DIMENSION and 0 < height <= _MAX_DIMENSION:
            facts["width"] = width
            facts["height"] = height
    return facts
