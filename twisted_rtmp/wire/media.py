"""
What the payload of an audio or video message is.

Two ways in.  L{videoFlags}, L{audioFlags} and L{flagsOf} look at every message that
passes and say in one integer what a server needs: key frame, sequence header, coded
frame.  L{parseVideo}, L{parseAudio}, L{videoFacts} and L{audioFacts} read whole
headers, for logs, tools and C{onMetaData}.

The first byte, legacy (FLV 10.1, E.4.2 and E.4.3) and enhanced (E-RTMP v2, Enhanced
Audio and Enhanced Video)::

    video  0 | frame type 3 | codec id 4           AVC: packet type, composition time 3
           1 | frame type 3 | packet type 4        FourCC 4 [composition time 3]
    audio  sound format 4 | rate 2 | size 1 | type 1      AAC: packet type
           9 (4 bits)     | packet type 4                 FourCC 4

An enhanced packet type may announce ModEx extensions before it, or several tracks
after it.  What is unknown (codecs, FourCCs, packet types) passes; what is too short
for what it announces is malformed.  Imports the standard library and its own
package's errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

from twisted_rtmp.wire.errors import MessageError

#: A coded frame, with something in it: what a ledger counts as a frame.
CODED = 0x001

#: A coded frame of video that decoding can start at; never without L{CODED}.
KEY_FRAME = 0x002

#: A decoder configuration, which a late player needs first.
SEQUENCE_HEADER = 0x004

#: The end of a sequence.
SEQUENCE_END = 0x008

#: Metadata in a video message, such as C{colorInfo}.
METADATA = 0x010

#: A video info or command frame: client-side seeking.
COMMAND = 0x020

#: The enhanced header, with FourCCs.
ENHANCED = 0x040

#: Enhanced, and the tracks are numbered.
MULTITRACK = 0x080

#: With L{SEQUENCE_HEADER}: an enhanced audio MultichannelConfig, which goes with the
#: other sequence header of its track and does not replace it.
MULTICHANNEL = 0x100

#: Nothing in it: a zero-length payload (legal, and silence for audio), or the header
#: of a coded frame without the frame.
EMPTY = 0x200

#: Too short for what it announces, or nested deeper than can be meant.
MALFORMED = 0x400

#: ModEx extensions in one message.  One is defined; each has a length of its own, so
#: that a message of megabytes could hold a million.
MAX_MOD_EX = 16

#: Tracks in one message: a track id is one byte.
MAX_TRACKS = 256

#: Bytes of a parameter set that are looked at.  Dimensions stand before the parts that
#: may be long; with all scaling lists they begin within 900 bytes.
MAX_PARAMETER_SET = 1024

_VIDEO_SECTION = "E-RTMP v2, Enhanced Video"
_AUDIO_SECTION = "E-RTMP v2, Enhanced Audio"


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


class AudioPacketType(IntEnum):
    """
    Packet types of enhanced audio; 0 and 1 mean the same for legacy AAC.
    E-RTMP v2, Enhanced Audio.
    """

    SEQUENCE_START = 0
    CODED_FRAMES = 1
    SEQUENCE_END = 2
    MULTICHANNEL_CONFIG = 4
    MULTITRACK = 5
    MOD_EX = 7


class MultitrackType(IntEnum):
    """How the tracks of one message are laid out.  E-RTMP v2, Enhanced Video."""

    ONE_TRACK = 0
    MANY_TRACKS = 1
    MANY_TRACKS_MANY_CODECS = 2


class AudioChannelOrder(IntEnum):
    """How a MultichannelConfig orders its channels.  E-RTMP v2, Enhanced Audio."""

    UNSPECIFIED = 0
    NATIVE = 1
    CUSTOM = 2


#: The ModEx extension whose three bytes are nanoseconds to add to the timestamp.
TIMESTAMP_OFFSET_NANO = 0

#: The sound format that announces an enhanced header.
EX_HEADER = 9

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

#: Legacy sound formats.  FLV 10.1, E.4.2.1; 13 is used in the field, by SRS and others.
AUDIO_CODECS = {
    0: "PCM",
    1: "ADPCM",
    2: "MP3",
    3: "PCM little-endian",
    4: "Nellymoser 16 kHz",
    5: "Nellymoser 8 kHz",
    6: "Nellymoser",
    7: "G.711 A-law",
    8: "G.711 mu-law",
    10: "AAC",
    11: "Speex",
    13: "Opus",
    14: "MP3 8 kHz",
    15: "device-specific sound",
}

#: FourCCs of either kind.  E-RTMP v2.
FOUR_CCS = {
    "vp08": "VP8",
    "vp09": "VP9",
    "av01": "AV1",
    "avc1": "AVC",
    "hvc1": "HEVC",
    "vvc1": "VVC",
    "ac-3": "AC-3",
    "ec-3": "E-AC-3",
    "Opus": "Opus",
    ".mp3": "MP3",
    "fLaC": "FLAC",
    "mp4a": "AAC",
}

#: Legacy video codecs with a packet type and a composition time: AVC, and those that
#: were fitted in beside it.
_PACKET_VIDEO = frozenset((7, 9, 12, 13))

#: Legacy sound formats with a packet type: AAC, and Opus beside it.
_PACKET_AUDIO = frozenset((10, 13))

#: Those whose coded frames carry a composition time (but CodedFramesX never).
_TIMED = frozenset(("avc1", "hvc1", "vvc1"))

_KEY_FRAME_TYPES = (FrameType.KEY_FRAME, FrameType.GENERATED_KEY_FRAME)

_RATES = (5512, 11025, 22050, 44100)

# Flags by first byte, then by second.  A row of 256 is shared by all first bytes that
# mean the same: some 15 rows of 2 kB altogether.

_Row = tuple[int, ...]

_VIDEO_PACKET_FLAGS: dict[int, int] = {
    VideoPacketType.SEQUENCE_START: SEQUENCE_HEADER,
    VideoPacketType.CODED_FRAMES: CODED,
    VideoPacketType.SEQUENCE_END: SEQUENCE_END,
    VideoPacketType.CODED_FRAMES_X: CODED,
    VideoPacketType.MPEG2TS_SEQUENCE_START: SEQUENCE_HEADER,
}

_AUDIO_PACKET_FLAGS: dict[int, int] = {
    AudioPacketType.SEQUENCE_START: SEQUENCE_HEADER,
    AudioPacketType.CODED_FRAMES: CODED,
    AudioPacketType.SEQUENCE_END: SEQUENCE_END,
    AudioPacketType.MULTICHANNEL_CONFIG: SEQUENCE_HEADER | MULTICHANNEL,
}


#: Packet types whose payload has to be read further.
_DEEP_AUDIO_PACKETS = (
    AudioPacketType.MULTICHANNEL_CONFIG,
    AudioPacketType.MULTITRACK,
    AudioPacketType.MOD_EX,
)


@cache
def _row(*flags: int) -> _Row:
    """A row: the flags for second bytes 0, 1, ..., the last for all that follow."""
    return flags + flags[-1:] * (256 - len(flags))


def _videoRow(first: int) -> _Row | None:
    """
    The flags of video that begins with one byte, by its second; L{None} if more
    must be read.
    """
    frameType = first >> 4 & 7
    low = first & 15  # packet type or codec
    coded = CODED | KEY_FRAME if frameType in _KEY_FRAME_TYPES else CODED
    if not first & 0x80:
        if frameType == FrameType.COMMAND:
            return _row(COMMAND)
        if low in _PACKET_VIDEO:
            return _row(SEQUENCE_HEADER, coded, SEQUENCE_END, 0)
        return _row(coded)
    if low == VideoPacketType.MOD_EX:
        return None
    if low == VideoPacketType.METADATA:
        return _row(ENHANCED | METADATA)
    if frameType == FrameType.COMMAND:
        return _row(ENHANCED | COMMAND)
    if low == VideoPacketType.MULTITRACK:
        return None
    flags = _VIDEO_PACKET_FLAGS.get(low, 0)
    return _row(ENHANCED | (coded if flags == CODED else flags))


def _audioRow(first: int) -> _Row | None:
    """The flags of audio that begins with one byte, as L{_videoRow}."""
    soundFormat = first >> 4
    packetType = first & 15
    if soundFormat in _PACKET_AUDIO:
        return _row(SEQUENCE_HEADER, CODED, 0)
    if soundFormat != EX_HEADER:
        return _row(CODED)
    if packetType in _DEEP_AUDIO_PACKETS:
        return None
    return _row(ENHANCED | _AUDIO_PACKET_FLAGS.get(packetType, 0))


_VIDEO_ROWS = tuple(_videoRow(first) for first in range(256))
_AUDIO_ROWS = tuple(_audioRow(first) for first in range(256))


def videoFlags(payload: bytes) -> int:
    """
    Say what a video payload is: L{CODED}, L{KEY_FRAME}, L{SEQUENCE_HEADER} ...

    For every message that passes: 0.06 us beyond the call itself for a frame of any
    codec, legacy or enhanced (CPython 3.11), 0.16 us for one track of several, some
    7 us for the rare rest: ModEx, several tracks in one message.
    """
    # 8 bytes are the longest simple header, so a ninth is the frame's.
    if len(payload) > 8:
        row = _VIDEO_ROWS[payload[0]]
        if row is not None:
            return row[payload[1]]
        # Encoders with several tracks send most messages as Multitrack, OneTrack
        # (high bits of the second byte 0): 7 bytes of header, up to 3 of time.
        if payload[0] & 0x8F == 0x86 and payload[1] < 16 and len(payload) > 10:
            row = _VIDEO_ROWS[payload[0] & 0xF0 | payload[1]]
            if row is not None:
                return row[0] | MULTITRACK
    elif not payload:
        return EMPTY
    try:
        return parseVideo(payload).flags
    except MessageError:
        return MALFORMED


def audioFlags(payload: bytes) -> int:
    """
    Say what an audio payload is: L{CODED}, L{SEQUENCE_HEADER} ...

    As fast as L{videoFlags}.
    """
    if len(payload) > 5:
        row = _AUDIO_ROWS[payload[0]]
        if row is not None:
            return row[payload[1]]
        if payload[0] == 0x95 and payload[1] < 16 and len(payload) > 7:
            row = _AUDIO_ROWS[0x90 | payload[1]]
            if row is not None:
                return row[0] | MULTITRACK
    elif not payload:
        return EMPTY
    try:
        return parseAudio(payload).flags
    except MessageError:
        return MALFORMED


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


@dataclass(frozen=True)
class Track:
    """
    One track of a multitrack message.

    @ivar trackId: 0 to 255; 0 is the default track.
    @ivar fourCC: of its codec, four characters of Latin 1.
    @ivar compositionTime: milliseconds; 0 where the codec has none.
    @ivar start: where its body starts in the payload, in bytes.
    @ivar end: where it ends.
    """

    trackId: int
    fourCC: str
    compositionTime: int
    start: int
    end: int


@dataclass(frozen=True)
class MultichannelConfig:
    """
    The speakers of an audio track.  E-RTMP v2, Enhanced Audio.

    @ivar order: an L{AudioChannelOrder}, or a number that is none yet.
    @ivar channelCount: how many there are.
    @ivar mapping: for a custom order, a byte for each channel.
    @ivar mask: for the native order, a bit for each speaker.
    """

    order: int
    channelCount: int
    mapping: bytes = b""
    mask: int = 0


@dataclass(frozen=True)
class VideoHeader:
    """
    What stands before the body of a video message.

    @ivar flags: as L{videoFlags} gives them.
    @ivar codec: the legacy codec id, or the FourCC as four characters of Latin 1;
        empty where none is said: commands, and tracks of many codecs.
    @ivar frameType: a L{FrameType}, or a reserved number.
    @ivar packetType: a L{VideoPacketType} or a number that is none yet; L{None}
        where there is none: legacy codecs without packets, commands.
    @ivar compositionTime: milliseconds to add for the time of presentation.
    @ivar bodyOffset: where the body begins in the payload, in bytes.
    @ivar command: of a command frame: 0 when seeking starts, 1 when it ends.
    @ivar nanoseconds: to add to the message's timestamp.
    @ivar multitrackType: a L{MultitrackType} or a number that is none yet; L{None}
        where the tracks are not numbered.
    @ivar tracks: the numbered tracks, in their order.
    @ivar modEx: the extensions, as types and data.
    """

    flags: int
    codec: int | str
    frameType: int
    packetType: int | None
    compositionTime: int
    bodyOffset: int
    command: int | None = None
    nanoseconds: int = 0
    multitrackType: int | None = None
    tracks: tuple[Track, ...] = ()
    modEx: tuple[tuple[int, bytes], ...] = ()

    @property
    def keyFrame(self) -> bool:
        """Whether this is a coded frame that decoding can start at."""
        return bool(self.flags & KEY_FRAME)

    @property
    def codecName(self) -> str:
        """The codec, for people; printable whatever the peer sent."""
        return _codecName(self.codec, VIDEO_CODECS)


@dataclass(frozen=True)
class AudioHeader:
    """
    What stands before the body of an audio message.

    @ivar flags: as L{audioFlags} gives them.
    @ivar codec: the legacy sound format, or the FourCC as four characters of
        Latin 1; empty for tracks of many codecs.
    @ivar packetType: an L{AudioPacketType} or a number that is none yet; L{None}
        for legacy formats without packets.
    @ivar bodyOffset: where the body begins in the payload, in bytes.
    @ivar soundRate: Hz, as the legacy header has it, which says 44100 for all AAC;
        L{None} after an enhanced one.
    @ivar soundSize: bits a sample, likewise.
    @ivar channels: 1 or 2, likewise.
    @ivar nanoseconds: to add to the message's timestamp.
    @ivar multitrackType: a L{MultitrackType} or a number that is none yet; L{None}
        where the tracks are not numbered.
    @ivar tracks: the numbered tracks, in their order.
    @ivar multichannel: of a MultichannelConfig; of the first track's, if numbered.
    @ivar modEx: the extensions, as types and data.
    """

    flags: int
    codec: int | str
    packetType: int | None
    bodyOffset: int
    soundRate: int | None = None
    soundSize: int | None = None
    channels: int | None = None
    nanoseconds: int = 0
    multitrackType: int | None = None
    tracks: tuple[Track, ...] = ()
    multichannel: MultichannelConfig | None = None
    modEx: tuple[tuple[int, bytes], ...] = ()

    @property
    def codecName(self) -> str:
        """The codec, for people; printable whatever the peer sent."""
        return _codecName(self.codec, AUDIO_CODECS)


def _codecName(codec: int | str, legacy: dict[int, str]) -> str:
    if isinstance(codec, int):
        return legacy.get(codec) or f"unknown codec {codec}"
    if not codec:
        return "no codec"
    return FOUR_CCS.get(codec) or f"unknown FourCC {codec.encode('latin-1').hex()}"


def parseVideo(payload: bytes) -> VideoHeader:
    """
    Read the header of a video message.

    @raise MessageError: the payload is empty or too short for what it announces.
    """
    if not payload:
        raise MessageError("a video message without a payload", section=_VIDEO_SECTION)
    first = payload[0]
    if first & 0x80:
        return _parseEnhancedVideo(payload)
    frameType = first >> 4
    codec = first & 15
    packetType = None
    compositionTime = 0
    offset = 1
    if codec in _PACKET_VIDEO and (frameType != FrameType.COMMAND or len(payload) > 5):
        _need(payload, 5, "FLV 10.1, E.4.3.1")
        packetType = payload[1]
        if packetType == VideoPacketType.CODED_FRAMES:
            compositionTime = _signed24(payload, 2)
        offset = 5
    if frameType == FrameType.COMMAND:
        _need(payload, offset + 1, "FLV 10.1, E.4.3.1")
        return VideoHeader(
            COMMAND, codec, frameType, packetType, 0, offset + 1, payload[offset]
        )
    row = _VIDEO_ROWS[first]
    assert row is not None
    flags = _checkBody(
        row[packetType or 0], len(payload) - offset, True, "FLV 10.1, E.4.3.1"
    )
    return VideoHeader(flags, codec, frameType, packetType, compositionTime, offset)


def _parseEnhancedVideo(payload: bytes) -> VideoHeader:
    section = _VIDEO_SECTION
    frameType = payload[0] >> 4 & 7
    packetType, offset, modEx = _readModEx(payload, VideoPacketType.MOD_EX, section)
    nanoseconds = _nanoseconds(modEx, section)
    if frameType == FrameType.COMMAND and packetType != VideoPacketType.METADATA:
        _need(payload, offset + 1, section)
        return VideoHeader(
            ENHANCED | COMMAND,
            "",
            frameType,
            packetType,
            0,
            offset + 1,
            payload[offset],
            nanoseconds,
            modEx=modEx,
        )
    multitrack = None
    if packetType == VideoPacketType.MULTITRACK:
        multitrack, packetType, offset = _readMultitrack(payload, offset, section)
        if packetType == VideoPacketType.MULTITRACK:
            raise MessageError("multitrack inside multitrack", section=section)
    fourCC, offset = _readFourCC(payload, offset, multitrack, section)
    row = _VIDEO_ROWS[payload[0] & 0xF0 | packetType]
    flags = ENHANCED if row is None else row[0]
    tracks: tuple[Track, ...] = ()
    compositionTime = 0
    timed = packetType == VideoPacketType.CODED_FRAMES
    if multitrack is not None:
        tracks = _readTracks(payload, offset, multitrack, fourCC, timed, section)
        flags = MULTITRACK | _flagsOfTracks(flags, tracks, True, section)
    else:
        if timed and fourCC in _TIMED:
            _need(payload, offset + 3, section)
            compositionTime = _signed24(payload, offset)
            offset += 3
        flags = _checkBody(flags, len(payload) - offset, True, section)
    return VideoHeader(
        flags,
        fourCC,
        frameType,
        packetType,
        compositionTime,
        offset,
        None,
        nanoseconds,
        multitrack,
        tracks,
        modEx,
    )


def parseAudio(payload: bytes) -> AudioHeader:
    """
    Read the header of an audio message.

    @raise MessageError: the payload is empty or too short for what it announces.
    """
    if not payload:
        raise MessageError("an audio message without a payload", section=_AUDIO_SECTION)
    first = payload[0]
    codec = first >> 4
    if codec == EX_HEADER:
        return _parseEnhancedAudio(payload)
    packetType = None
    offset = 1
    if codec in _PACKET_AUDIO:
        _need(payload, 2, "FLV 10.1, E.4.2.1")
        packetType = payload[1]
        offset = 2
    row = _AUDIO_ROWS[first]
    assert row is not None
    flags = _checkBody(
        row[packetType or 0], len(payload) - offset, True, "FLV 10.1, E.4.2.1"
    )
    return AudioHeader(
        flags,
        codec,
        packetType,
        offset,
        _FIXED_RATES.get(codec) or _RATES[first >> 2 & 3],
        16 if first & 2 else 8,
        2 if first & 1 else 1,
    )


def _parseEnhancedAudio(payload: bytes) -> AudioHeader:
    section = _AUDIO_SECTION
    packetType, offset, modEx = _readModEx(payload, AudioPacketType.MOD_EX, section)
    nanoseconds = _nanoseconds(modEx, section)
    multitrack = None
    if packetType == AudioPacketType.MULTITRACK:
        multitrack, packetType, offset = _readMultitrack(payload, offset, section)
        if packetType == AudioPacketType.MULTITRACK:
            raise MessageError("multitrack inside multitrack", section=section)
    fourCC, offset = _readFourCC(payload, offset, multitrack, section)
    flags = ENHANCED | _AUDIO_PACKET_FLAGS.get(packetType, 0)
    tracks: tuple[Track, ...] = ()
    start, end = offset, len(payload)
    if multitrack is not None:
        tracks = _readTracks(payload, offset, multitrack, fourCC, False, section)
        flags = MULTITRACK | _flagsOfTracks(flags, tracks, False, section)
        if tracks:
            start, end = tracks[0].start, tracks[0].end
    else:
        # An empty sequence start is legal: Opus then has its defaults, or a
        # MultichannelConfig.
        flags = _checkBody(flags, end - start, False, section)
    multichannel = None
    if flags & MULTICHANNEL:
        multichannel = _readMultichannel(payload[start:end], section)
    return AudioHeader(
        flags,
        fourCC,
        packetType,
        offset,
        nanoseconds=nanoseconds,
        multitrackType=multitrack,
        tracks=tracks,
        multichannel=multichannel,
        modEx=modEx,
    )


#: Formats whose rate is not the one that the two bits say.  FLV 10.1, E.4.2.1.
_FIXED_RATES = {4: 16000, 5: 8000, 7: 8000, 8: 8000, 11: 16000, 13: 48000, 14: 8000}


def _need(payload: bytes, size: int, section: str) -> None:
    """Raise MessageError unless the payload has so many bytes."""
    if len(payload) < size:
        raise MessageError(
            f"a media message of {len(payload)} bytes announces at least {size}",
            section=section,
            limit=size,
            got=len(payload),
        )


def _signed24(payload: bytes, offset: int) -> int:
    return int.from_bytes(payload[offset : offset + 3], "big", signed=True)


def _checkBody(flags: int, size: int, strict: bool, section: str) -> int:
    """Take the frame from a header that none follows; a configuration needs bytes."""
    if size:
        return flags
    if flags & SEQUENCE_HEADER and strict:
        raise MessageError("a sequence header without a configuration", section=section)
    if flags & CODED:
        return flags & ENHANCED | EMPTY
    return flags


def _readModEx(
    payload: bytes, modExType: int, section: str
) -> tuple[int, int, tuple[tuple[int, bytes], ...]]:
    """
    Read the extensions that may stand before the packet type.

    @return: the packet type, where the header goes on, the extensions.
    """
    packetType = payload[0] & 15
    offset = 1
    extensions: list[tuple[int, bytes]] = []
    while packetType == modExType:
        if len(extensions) == MAX_MOD_EX:
            raise MessageError(
                f"more than {MAX_MOD_EX} ModEx extensions",
                section=section,
                limit=MAX_MOD_EX,
            )
        _need(payload, offset + 1, section)
        size = payload[offset] + 1
        offset += 1
        if size == 256:
            _need(payload, offset + 2, section)
            size = int.from_bytes(payload[offset : offset + 2], "big") + 1
            offset += 2
        _need(payload, offset + size + 1, section)
        following = payload[offset + size]
        extensions.append((following >> 4, payload[offset : offset + size]))
        packetType = following & 15
        offset += size + 1
    return packetType, offset, tuple(extensions)


def _nanoseconds(modEx: tuple[tuple[int, bytes], ...], section: str) -> int:
    """The last TimestampOffsetNano of the extensions, or 0."""
    nanoseconds = 0
    for extension, data in modEx:
        if extension == TIMESTAMP_OFFSET_NANO:
            if len(data) < 3:
                raise MessageError(
                    "a TimestampOffsetNano of less than 3 bytes",
                    section=section,
                    limit=3,
                    got=len(data),
                )
            nanoseconds = int.from_bytes(data[:3], "big")
    return nanoseconds


def _readMultitrack(payload: bytes, offset: int, section: str) -> tuple[int, int, int]:
    """
    Read what Multitrack announces.

    @return: the multitrack type, the packet type of all tracks, where it goes on.
    """
    _need(payload, offset + 1, section)
    return payload[offset] >> 4, payload[offset] & 15, offset + 1


def _readFourCC(
    payload: bytes, offset: int, multitrack: int | None, section: str
) -> tuple[str, int]:
    """
    Read the FourCC of the message.

    @return: the FourCC, empty where each track has its own; where the header goes on.
    """
    if multitrack == MultitrackType.MANY_TRACKS_MANY_CODECS:
        return "", offset
    _need(payload, offset + 4, section)
    return payload[offset : offset + 4].decode("latin-1"), offset + 4


def _readTracks(
    payload: bytes, offset: int, multitrack: int, fourCC: str, timed: bool, section: str
) -> tuple[Track, ...]:
    """
    Read the numbered tracks.

    @param timed: whether the packet type is one with a composition time.
    @return: none if the layout is not one of those known.
    """
    if multitrack > MultitrackType.MANY_TRACKS_MANY_CODECS:
        return ()
    tracks: list[Track] = []
    while True:
        if len(tracks) == MAX_TRACKS:
            raise MessageError(
                f"more than {MAX_TRACKS} tracks", section=section, limit=MAX_TRACKS
            )
        if multitrack == MultitrackType.MANY_TRACKS_MANY_CODECS:
            fourCC, offset = _readFourCC(payload, offset, None, section)
        _need(payload, offset + 1, section)
        trackId = payload[offset]
        offset += 1
        end = len(payload)
        if multitrack != MultitrackType.ONE_TRACK:
            _need(payload, offset + 3, section)
            end = offset + 3 + int.from_bytes(payload[offset : offset + 3], "big")
            _need(payload, end, section)
            offset += 3
        compositionTime = 0
        if timed and fourCC in _TIMED:
            if end - offset < 3:
                raise MessageError(
                    "a track without its composition time", section=section
                )
            compositionTime = _signed24(payload, offset)
            offset += 3
        tracks.append(Track(trackId, fourCC, compositionTime, offset, end))
        offset = end
        if offset == len(payload):
            return tuple(tracks)


def _flagsOfTracks(
    flags: int, tracks: tuple[Track, ...], strict: bool, section: str
) -> int:
    """
    The flags of a multitrack message, from those of its packet type.  What a layout
    that is not defined holds cannot be known, so it is not a frame either.
    """
    if not tracks:
        return ENHANCED
    size = sum(track.end - track.start for track in tracks)
    return _checkBody(flags, size, strict, section)


def _readMultichannel(body: bytes, section: str) -> MultichannelConfig:
    _need(body, 2, section)
    order, count = body[0], body[1]
    if order == AudioChannelOrder.CUSTOM:
        _need(body, 2 + count, section)
        return MultichannelConfig(order, count, mapping=body[2 : 2 + count])
    if order == AudioChannelOrder.NATIVE:
        _need(body, 6, section)
        return MultichannelConfig(order, count, mask=int.from_bytes(body[2:6], "big"))
    return MultichannelConfig(order, count)


def videoFacts(payload: bytes) -> dict[str, int]:
    """
    Say what a video message tells for C{onMetaData}.

    @return: C{videocodecid} (a FourCC as a big-endian number) if it names a codec;
        C{width} and C{height}, in pixels, from a sequence header of AVC or HEVC.  Of
        numbered tracks, those of the default one, number 0.  Empty for anything that
        cannot be read.
    """
    try:
        header = parseVideo(payload)
    except MessageError:
        return {}
    codec, start, end = _defaultTrack(header, len(payload))
    if codec == "":
        return {}
    facts = {"videocodecid": _codecNumber(codec)}
    read = _DIMENSIONS.get(codec)
    if read is not None and header.flags & SEQUENCE_HEADER:
        try:
            width, height = read(payload[start:end])
        except MessageError:
            return facts
        if 0 < width <= _MAX_DIMENSION and 0 < height <= _MAX_DIMENSION:
            facts["width"] = width
            facts["height"] = height
    return facts


def audioFacts(payload: bytes) -> dict[str, int | bool]:
    """
    Say what an audio message tells for C{onMetaData}.

    @return: C{audiocodecid} (a FourCC as a big-endian number) if it names a codec;
        C{audiosamplerate} in Hz, C{audiosamplesize} in bits, C{stereo} and
        C{audiochannels} (a name that OBS introduced) as far as they are known: from
        the legacy header, but for AAC, FLAC and Opus from a sequence header.  Of
        numbered tracks, those of the default one, number 0.  Empty for anything that
        cannot be read.
    """
    try:
        header = parseAudio(payload)
    except MessageError:
        return {}
    codec, start, end = _defaultTrack(header, len(payload))
    if codec == "":
        return {}
    facts: dict[str, int | bool] = {"audiocodecid": _codecNumber(codec)}
    read = _CONFIGURATIONS.get(codec)
    rate = size = channels = None
    if read is None:
        rate, size, channels = header.soundRate, header.soundSize, header.channels
    elif header.flags & (SEQUENCE_HEADER | MULTICHANNEL) == SEQUENCE_HEADER:
        try:
            rate, size, channels = read(payload[start:end])
        except MessageError:
            return facts
    if rate:
        facts["audiosamplerate"] = rate
    if size:
        facts["audiosamplesize"] = size
    if channels:
        facts["stereo"] = channels > 1
        facts["audiochannels"] = channels
    return facts


#: Pixels a side; more is garbage that happened to be readable.
_MAX_DIMENSION = 65535


def _codecNumber(codec: int | str) -> int:
    if isinstance(codec, int):
        return codec
    return int.from_bytes(codec.encode("latin-1"), "big")


def _defaultTrack(
    header: VideoHeader | AudioHeader, size: int
) -> tuple[int | str, int, int]:
    """The codec, start and end of the body that the default track has."""
    if header.multitrackType is None:
        return header.codec, header.bodyOffset, size
    for track in header.tracks:
        if track.trackId == 0:
            return track.fourCC, track.start, track.end
    return "", 0, 0


class _Bits:
    """Reads bits, most significant first, and Exp-Golomb codes.  H.264, 9.1."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def read(self, count: int) -> int:
        """Read a number of so many bits."""
        start = self._position
        end = start + count
        if end > len(self._data) * 8:
            raise MessageError("a decoder configuration is cut off")
        self._position = end
        value = int.from_bytes(self._data[start >> 3 : end + 7 >> 3], "big")
        return value >> (-end & 7) & (1 << count) - 1

    def golomb(self) -> int:
        """Read an unsigned Exp-Golomb code."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 32:
                raise MessageError("an Exp-Golomb code of more than 32 bits")
        return (1 << zeros) - 1 + self.read(zeros)

    def signedGolomb(self) -> int:
        """Read a signed Exp-Golomb code."""
        code = self.golomb()
        return code + 1 >> 1 if code & 1 else -(code >> 1)


def _parameterSet(data: bytes) -> _Bits:
    """The bits of a NAL unit without emulation prevention.  H.264, 7.4.1."""
    return _Bits(data[:MAX_PARAMETER_SET].replace(b"\0\0\3", b"\0\0"))


#: Profiles whose SPS has the chroma format and scaling lists.  H.264, 7.3.2.1.1.
_CHROMA_PROFILES = frozenset(
    (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)
)

#: Luma samples a chroma sample, across and down, by chroma format.  H.264, 6.2.
_SUBSAMPLING = ((1, 1), (2, 2), (2, 1), (1, 1))


def _avcDimensions(record: bytes) -> tuple[int, int]:
    """
    Read width and height from an AVCDecoderConfigurationRecord.

    ISO/IEC 14496-15, 5.3.3.1; the SPS: H.264, 7.3.2.1.1.
    """
    if len(record) < 8 or record[0] != 1 or not record[5] & 31:
        raise MessageError("an AVC configuration without an SPS")
    # 6 bytes of record, 2 of length, 1 of NAL unit header.
    bits = _parameterSet(record[9 : 8 + int.from_bytes(record[6:8], "big")])
    profile = bits.read(8)
    bits.read(16)
    bits.golomb()
    chroma, separate = 1, 0
    if profile in _CHROMA_PROFILES:
        chroma = bits.golomb()
        if chroma == 3:
            separate = bits.read(1)
        bits.golomb()
        bits.golomb()
        bits.read(1)
        if bits.read(1):
            _skipScalingLists(bits, 12 if chroma == 3 else 8)
    bits.golomb()
    _skipPictureOrder(bits)
    bits.golomb()
    bits.read(1)
    width = (bits.golomb() + 1) * 16
    height = (bits.golomb() + 1) * 16
    framesOnly = bits.read(1)
    if not framesOnly:
        height *= 2
        bits.read(1)
    bits.read(1)
    across, down = _subsampling(chroma, separate)
    return _crop(bits, width, height, across, down * (2 - framesOnly))


def _skipScalingLists(bits: _Bits, count: int) -> None:
    """H.264, 7.3.2.1.1.1."""
    for index in range(count):
        if not bits.read(1):
            continue
        scale = 8
        for _ in range(16 if index < 6 else 64):
            scale = (scale + bits.signedGolomb()) & 255
            if not scale:
                break  # the rest of the list is not sent


def _skipPictureOrder(bits: _Bits) -> None:
    kind = bits.golomb()
    if kind == 0:
        bits.golomb()
    elif kind == 1:
        bits.read(1)
        bits.golomb()
        bits.golomb()
        for _ in range(bits.golomb()):  # ends with the bits
            bits.golomb()


def _subsampling(chroma: int, separate: int) -> tuple[int, int]:
    if chroma >= len(_SUBSAMPLING):
        raise MessageError(f"there is no chroma format {chroma}")
    return (1, 1) if separate else _SUBSAMPLING[chroma]


def _crop(
    bits: _Bits, width: int, height: int, across: int, down: int
) -> tuple[int, int]:
    """Read the cropping window and apply it."""
    if bits.read(1):
        width -= across * (bits.golomb() + bits.golomb())
        height -= down * (bits.golomb() + bits.golomb())
    return width, height


def _hevcDimensions(record: bytes) -> tuple[int, int]:
    """
    Read width and height from an HEVCDecoderConfigurationRecord.

    ISO/IEC 14496-15, 8.3.3.1; the SPS: H.265, 7.3.2.2.
    """
    bits = _parameterSet(_hevcParameterSet(record))
    bits.read(16 + 4)
    subLayers = bits.read(3)
    bits.read(1 + 88 + 8)
    if subLayers:
        present = [(bits.read(1), bits.read(1)) for _ in range(subLayers)]
        bits.read(2 * (8 - subLayers))
        for profile, level in present:
            bits.read(88 * profile + 8 * level)
    bits.golomb()
    chroma = bits.golomb()
    separate = bits.read(1) if chroma == 3 else 0
    width = bits.golomb()
    height = bits.golomb()
    return _crop(bits, width, height, *_subsampling(chroma, separate))


#: The NAL unit type of an SPS.  H.265, table 7-1.
_HEVC_SPS = 33


def _hevcParameterSet(record: bytes) -> bytes:
    """The first SPS in an HEVCDecoderConfigurationRecord, its header included."""
    if len(record) < 23 or record[0] != 1:
        raise MessageError("not an HEVC configuration")
    offset = 23
    for _ in range(record[22]):
        kind = record[offset] & 63 if offset < len(record) else 0
        count = int.from_bytes(record[offset + 1 : offset + 3], "big")
        offset += 3
        for _ in range(count):
            size = int.from_bytes(record[offset : offset + 2], "big")
            offset += 2
            if offset + size > len(record):
                raise MessageError("an HEVC configuration is cut off")
            if kind == _HEVC_SPS:
                return record[offset : offset + size]
            offset += size
    raise MessageError("an HEVC configuration without an SPS")


_DIMENSIONS: dict[int | str, Callable[[bytes], tuple[int, int]]] = {
    7: _avcDimensions,
    12: _hevcDimensions,
    "avc1": _avcDimensions,
    "hvc1": _hevcDimensions,
}

#: Sample rates in Hz by index, and channels by configuration.  ISO/IEC 14496-3,
#: tables 1.18 and 1.19.
_AAC_RATES = (
    96000,
    88200,
    64000,
    48000,
    44100,
    32000,
    24000,
    22050,
    16000,
    12000,
    11025,
    8000,
    7350,
)
_AAC_CHANNELS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 8, 11: 7, 12: 8, 14: 8}

#: Audio object types that say the rate before and after spectral band replication.
_AAC_EXTENSIONS = (5, 29)

_Sound = tuple[int | None, int | None, int | None]


def _aacConfiguration(config: bytes) -> _Sound:
    """
    Read rate, sample size and channels from an AudioSpecificConfig.

    ISO/IEC 14496-3, 1.6.2.1.  A decoder makes samples of 16 bits.
    """
    bits = _Bits(config)
    objectType = _aacObjectType(bits)
    rate = _aacRate(bits)
    channels = _AAC_CHANNELS.get(bits.read(4))
    if objectType in _AAC_EXTENSIONS:
        rate = _aacRate(bits)
        if objectType == 29:  # parametric stereo makes two of one
            channels = 2
    return rate, 16, channels


def _aacObjectType(bits: _Bits) -> int:
    objectType = bits.read(5)
    return 32 + bits.read(6) if objectType == 31 else objectType


def _aacRate(bits: _Bits) -> int | None:
    index = bits.read(4)
    if index == 15:
        return bits.read(24)
    return _AAC_RATES[index] if index < len(_AAC_RATES) else None


def _opusConfiguration(config: bytes) -> _Sound:
    """Read an Opus ID header.  RFC 7845, 5.1; Opus decodes to 48 kHz always."""
    if config[:8] != b"OpusHead" or len(config) < 19:
        return 48000, 16, None
    return 48000, 16, config[9]


def _flacConfiguration(config: bytes) -> _Sound:
    """Read "fLaC" and a STREAMINFO block.  RFC 9639, 8.2."""
    if config[:4] != b"fLaC" or len(config) < 42:
        raise MessageError("not a FLAC sequence header")
    bits = _Bits(config[18:])
    return bits.read(20), None, bits.read(3) + 1


_CONFIGURATIONS: dict[int | str, Callable[[bytes], _Sound]] = {
    10: _aacConfiguration,
    13: _opusConfiguration,
    "mp4a": _aacConfiguration,
    "Opus": _opusConfiguration,
    "fLaC": _flacConfiguration,
}
