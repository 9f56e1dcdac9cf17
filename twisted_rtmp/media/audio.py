"""
Audio payloads: flags for every message, headers and facts for callers that need more.

The first byte, legacy (FLV 10.1, E.4.2) and enhanced (E-RTMP v2, Enhanced Audio)::

    sound format 4 | rate 2 | size 1 | type 1      AAC: packet type
    9 (4 bits)     | packet type 4                 FourCC 4
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from twisted_rtmp.media.exheader import (
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
)
from twisted_rtmp.media.flags import (
    CODED,
    EMPTY,
    ENHANCED,
    MALFORMED,
    MOD_EX,
    MULTICHANNEL,
    MULTITRACK,
    SEQUENCE_END,
    SEQUENCE_HEADER,
    Row,
    rowOf,
)
from twisted_rtmp.media.parametersets import CONFIGURATIONS
from twisted_rtmp.wire.errors import MessageError

_SECTION = "E-RTMP v2, Enhanced Audio"


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


class AudioChannelOrder(IntEnum):
    """The order of the channels of a MultichannelConfig.  E-RTMP v2, Enhanced Audio."""

    UNSPECIFIED = 0
    NATIVE = 1
    CUSTOM = 2


#: The sound format that announces an enhanced header.
EX_HEADER = 9

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

#: Legacy sound formats with a packet type: AAC, and Opus beside it.
_PACKET_FORMATS = frozenset((10, 13))

_RATES = (5512, 11025, 22050, 44100)

#: Formats whose rate is not the one that the two bits say.  FLV 10.1, E.4.2.1.
_FIXED_RATES = {4: 16000, 5: 8000, 7: 8000, 8: 8000, 11: 16000, 13: 48000, 14: 8000}

_PACKET_FLAGS: dict[int, int] = {
    AudioPacketType.SEQUENCE_START: SEQUENCE_HEADER,
    AudioPacketType.CODED_FRAMES: CODED,
    AudioPacketType.SEQUENCE_END: SEQUENCE_END,
    AudioPacketType.MULTICHANNEL_CONFIG: SEQUENCE_HEADER | MULTICHANNEL,
}


#: Packet types whose payload has to be read further.
_DEEP_PACKETS = (
    AudioPacketType.MULTICHANNEL_CONFIG,
    AudioPacketType.MULTITRACK,
    AudioPacketType.MOD_EX,
)


def _firstRow(first: int) -> Row | None:
    """
    Make the flags of audio that begins with one byte, by its second byte; L{None} if
    more must be read.
    """
    soundFormat = first >> 4
    packetType = first & 15
    if soundFormat in _PACKET_FORMATS:
        return rowOf(SEQUENCE_HEADER, CODED, 0)
    if soundFormat != EX_HEADER:
        return rowOf(CODED)
    if packetType in _DEEP_PACKETS:
        return None
    return rowOf(ENHANCED | _PACKET_FLAGS.get(packetType, 0))


_ROWS = tuple(_firstRow(first) for first in range(256))


def audioFlags(payload: bytes) -> int:
    """
    Say what an audio payload is: L{CODED}, L{SEQUENCE_HEADER} ...

    As fast as L{twisted_rtmp.media.video.videoFlags}.
    """
    if len(payload) > 5:
        row = _ROWS[payload[0]]
        if row is not None:
            return row[payload[1]]
        if payload[0] == 0x95 and payload[1] < 16 and len(payload) > 7:
            row = _ROWS[0x90 | payload[1]]
            if row is not None:
                return row[0] | MULTITRACK
    elif not payload:
        return EMPTY
    try:
        return parseAudio(payload).flags
    except MessageError:
        return MALFORMED


@dataclass(frozen=True)
class MultichannelConfig:
    """
    The speakers of an audio track.  E-RTMP v2, Enhanced Audio.

    @ivar order: an L{AudioChannelOrder}, or a number without a meaning yet.
    @ivar channelCount: how many there are.
    @ivar mapping: for a custom order, a byte for each channel.
    @ivar mask: for the native order, a bit for each speaker.
    """

    order: int
    channelCount: int
    mapping: bytes = b""
    mask: int = 0


@dataclass(frozen=True, kw_only=True)
class AudioHeader(MediaHeader):
    """
    The header of an audio message.

    @ivar soundRate: Hz, as the legacy header has it, which says 44100 for all AAC;
        L{None} after an enhanced one.
    @ivar soundSize: bits a sample, likewise.
    @ivar channels: 1 or 2, likewise.
    @ivar multichannel: of a MultichannelConfig; of the first track's, if numbered.
    """

    legacyCodecs = AUDIO_CODECS

    soundRate: int | None = None
    soundSize: int | None = None
    channels: int | None = None
    multichannel: MultichannelConfig | None = None


def parseAudio(payload: bytes) -> AudioHeader:
    """
    Read the header of an audio message.

    @raise MessageError: the payload is empty or too short for what it announces.
    """
    if not payload:
        raise MessageError("an audio message without a payload", section=_SECTION)
    first = payload[0]
    codec = first >> 4
    if codec == EX_HEADER:
        return _parseEnhanced(payload)
    packetType = None
    offset = 1
    if codec in _PACKET_FORMATS:
        need(payload, 2, "FLV 10.1, E.4.2.1")
        packetType = payload[1]
        offset = 2
    row = _ROWS[first]
    assert row is not None
    flags = checkBody(
        row[packetType or 0], len(payload) - offset, True, "FLV 10.1, E.4.2.1"
    )
    return AudioHeader(
        flags=flags,
        codec=codec,
        packetType=packetType,
        bodyOffset=offset,
        soundRate=_FIXED_RATES.get(codec) or _RATES[first >> 2 & 3],
        soundSize=16 if first & 2 else 8,
        channels=2 if first & 1 else 1,
    )


def _parseEnhanced(payload: bytes) -> AudioHeader:
    section = _SECTION
    packetType, offset, modEx = readModEx(payload, AudioPacketType.MOD_EX, section)
    nanoseconds = nanosecondsOf(modEx, section)
    multitrack = None
    if packetType == AudioPacketType.MULTITRACK:
        multitrack, packetType, offset = readMultitrack(payload, offset, section)
        if packetType == AudioPacketType.MULTITRACK:
            raise MessageError("multitrack inside multitrack", section=section)
    fourCC, offset = readFourCC(payload, offset, multitrack, section)
    flags = ENHANCED | _PACKET_FLAGS.get(packetType, 0)
    tracks: tuple[Track, ...] = ()
    bodies = [(offset, len(payload))]
    if multitrack is not None:
        tracks = readTracks(payload, offset, multitrack, fourCC, False, section)
        flags = MULTITRACK | flagsOfTracks(flags, tracks, False, section)
        bodies = [(track.start, track.end) for track in tracks]
    else:
        # An empty sequence start is legal: Opus then has its defaults, or a
        # MultichannelConfig.
        flags = checkBody(flags, len(payload) - offset, False, section)
    multichannel = None
    if flags & MULTICHANNEL:
        configs = [_readMultichannel(payload[a:b], section) for a, b in bodies]
        multichannel = configs[0]
    return AudioHeader(
        flags=flags | MOD_EX if modEx else flags,
        codec=fourCC,
        packetType=packetType,
        bodyOffset=offset,
        nanoseconds=nanoseconds,
        multitrackType=multitrack,
        tracks=tracks,
        multichannel=multichannel,
        modEx=modEx,
    )


def _readMultichannel(body: bytes, section: str) -> MultichannelConfig:
    need(body, 2, section)
    order, count = body[0], body[1]
    if order == AudioChannelOrder.CUSTOM:
        need(body, 2 + count, section)
        return MultichannelConfig(order, count, mapping=body[2 : 2 + count])
    if order == AudioChannelOrder.NATIVE:
        need(body, 6, section)
        return MultichannelConfig(order, count, mask=int.from_bytes(body[2:6], "big"))
    return MultichannelConfig(order, count)


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
    codec, body = header.defaultTrack(payload)
    if codec == "":
        return {}
    facts: dict[str, int | bool] = {"audiocodecid": codecNumber(codec)}
    read = CONFIGURATIONS.get(codec)
    rate = size = channels = None
    if read is None:
        rate, size, channels = header.soundRate, header.soundSize, header.channels
    elif header.flags & (SEQUENCE_HEADER | MULTICHANNEL) == SEQUENCE_HEADER:
        try:
            rate, size, channels = read(body)
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
