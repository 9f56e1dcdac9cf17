"""Decoder configurations: dimensions of video, rate and channels of audio."""

from __future__ import annotations

from collections.abc import Callable

from twisted_rtmp.wire.errors import MessageError

#: Bytes of a parameter set that are looked at.  Dimensions stand before the parts that
#: may be long; with all scaling lists they begin within 900 bytes.
MAX_PARAMETER_SET = 1024

#: NAL units of an HEVC configuration that are skipped.  There are a VPS and maybe
#: some SEI before the SPS, and 16 VPS at most; a hostile configuration has millions,
#: each of them empty.
MAX_NAL_UNITS = 64


class Bits:
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


def _parameterSet(data: bytes) -> Bits:
    """Read the bits of a NAL unit without emulation prevention.  H.264, 7.4.1."""
    return Bits(data[:MAX_PARAMETER_SET].replace(b"\0\0\3", b"\0\0"))


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


def _skipScalingLists(bits: Bits, count: int) -> None:
    """H.264, 7.3.2.1.1.1."""
    for index in range(count):
        if not bits.read(1):
            continue
        scale = 8
        for _ in range(16 if index < 6 else 64):
            scale = (scale + bits.signedGolomb()) & 255
            if not scale:
                break  # the rest of the list is not sent


def _skipPictureOrder(bits: Bits) -> None:
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
    bits: Bits, width: int, height: int, across: int, down: int
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
    """Find the first SPS in an HEVCDecoderConfigurationRecord, with its header."""
    if len(record) < 23 or record[0] != 1:
        raise MessageError("not an HEVC configuration")
    offset = 23
    passed = 0
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
            passed += 1
            if passed > MAX_NAL_UNITS:
                raise MessageError(
                    f"an HEVC configuration without an SPS within {MAX_NAL_UNITS}"
                    " NAL units",
                    limit=MAX_NAL_UNITS,
                )
            offset += size
    raise MessageError("an HEVC configuration without an SPS")


#: Readers of width and height in pixels, by codec.
DIMENSIONS: dict[int | str, Callable[[bytes], tuple[int, int]]] = {
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
    bits = Bits(config)
    objectType = _aacObjectType(bits)
    rate = _aacRate(bits)
    channels = _AAC_CHANNELS.get(bits.read(4))
    if objectType in _AAC_EXTENSIONS:
        rate = _aacRate(bits)
        if objectType == 29:  # parametric stereo makes two of one
            channels = 2
    return rate, 16, channels


def _aacObjectType(bits: Bits) -> int:
    objectType = bits.read(5)
    return 32 + bits.read(6) if objectType == 31 else objectType


def _aacRate(bits: Bits) -> int | None:
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
    """
    Read "fLaC" and a STREAMINFO block.  RFC 9639, 8.2.

    FFmpeg leaves out what stands before the block's 34 bytes.
    """
    start = 8 if config[:4] == b"fLaC" else 0
    if len(config) < start + 34 or (not start and len(config) > 34):
        raise MessageError("not a FLAC sequence header")
    bits = Bits(config[start + 10 :])
    return bits.read(20), None, bits.read(3) + 1


#: Readers of rate in Hz, bits a sample and channels, by codec; each L{None} where it
#: is not said.
CONFIGURATIONS: dict[int | str, Callable[[bytes], _Sound]] = {
    10: _aacConfiguration,
    13: _opusConfiguration,
    "mp4a": _aacConfiguration,
    "Opus": _opusConfiguration,
    "fLaC": _flacConfiguration,
}
