"""
Dimensions of AV1, VP8, VP9 and VVC: from decoder configurations where those have them,
else from the first key frame.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted_rtmp.media.parametersets import Bits
from twisted_rtmp.wire.errors import MessageError

#: Open bitstream units before an AV1 sequence header that are skipped.  It is the
#: first, or the second after a temporal delimiter; a hostile frame has a million.
MAX_UNITS = 16

#: Bytes of a sequence header that are looked at; with 32 operating points the
#: dimensions begin within 250.
MAX_SEQUENCE_HEADER = 1024

_SEQUENCE_HEADER_UNIT = 1

#: Octets of a leb128 number.  AV1, 4.10.5.
_LEB128_OCTETS = 8

_Size = tuple[int, int]


def _av1Configuration(record: bytes) -> _Size:
    """
    Read width and height from an AV1CodecConfigurationRecord.

    AV1 in ISOBMFF, 2.3.3.  The sequence header in it is optional, though all known
    encoders put it there.
    """
    if len(record) < 4 or record[0] != 0x81:
        raise MessageError("not an AV1 configuration")
    return _av1Size(record[4:])


def _av1Size(units: bytes) -> _Size:
    """Read the largest width and height that a sequence header allows.  AV1, 5.3."""
    offset = 0
    for _ in range(MAX_UNITS):
        if offset >= len(units):
            break
        header = units[offset]
        offset += 2 if header & 4 else 1
        size = len(units) - offset
        if header & 2:
            size, offset = _leb128(units, offset)
        if header >> 3 & 15 == _SEQUENCE_HEADER_UNIT:
            end = offset + min(size, MAX_SEQUENCE_HEADER)
            return _av1SequenceSize(Bits(units[offset:end]))
        offset += size
    raise MessageError("AV1 without a sequence header")


def _leb128(data: bytes, offset: int) -> tuple[int, int]:
    value = 0
    for index, octet in enumerate(data[offset : offset + _LEB128_OCTETS]):
        value |= (octet & 0x7F) << 7 * index
        if octet < 0x80:
            return value, offset + index + 1
    raise MessageError("an AV1 unit's size without an end")


def _av1SequenceSize(bits: Bits) -> _Size:
    """AV1, 5.5.1."""
    bits.read(3 + 1)
    if bits.read(1):  # reduced_still_picture_header
        bits.read(5)
    else:
        _skipOperatingPoints(bits)
    widthBits = bits.read(4) + 1
    heightBits = bits.read(4) + 1
    return bits.read(widthBits) + 1, bits.read(heightBits) + 1


def _skipOperatingPoints(bits: Bits) -> None:
    """AV1, 5.5.1, 5.5.3 and 5.5.4."""
    delayBits = 0
    if bits.read(1):  # timing_info_present_flag
        bits.read(32 + 32)
        if bits.read(1):
            bits.golomb()  # the same code as AV1's uvlc up to 32 bits
        if bits.read(1):  # decoder_model_info_present_flag
            delayBits = bits.read(5) + 1
            bits.read(32 + 5 + 5)
    displayDelay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delayBits and bits.read(1):
            bits.read(2 * delayBits + 1)
        if displayDelay and bits.read(1):
            bits.read(4)


#: VP9, table 7.2: the color space that is RGB.
_VP9_RGB = 7


def _vp9Size(frame: bytes) -> _Size:
    """Read width and height from a key frame's uncompressed header.  VP9, 6.2."""
    bits = Bits(frame[:16])
    if bits.read(2) != 2:
        raise MessageError("not a VP9 frame")
    profile = bits.read(1) | bits.read(1) << 1
    if profile == 3:
        bits.read(1)
    if bits.read(2):  # show_existing_frame, then frame_type: 0 is a key frame
        raise MessageError("a VP9 frame without dimensions")
    bits.read(2)
    if bits.read(24) != 0x498342:
        raise MessageError("a VP9 key frame without its sync code")
    if profile >= 2:
        bits.read(1)
    if bits.read(3) != _VP9_RGB:
        bits.read(1)
        if profile & 1:
            bits.read(3)
    elif profile & 1:
        bits.read(1)
    return bits.read(16) + 1, bits.read(16) + 1


def _vp8Size(frame: bytes) -> _Size:
    """Read width and height from a key frame.  RFC 6386, 9.1."""
    if len(frame) < 10 or frame[0] & 1 or frame[3:6] != b"\x9d\x01\x2a":
        raise MessageError("not a VP8 key frame")
    width = int.from_bytes(frame[6:8], "little") & 0x3FFF
    return width, int.from_bytes(frame[8:10], "little") & 0x3FFF


def _vvcConfiguration(record: bytes) -> _Size:
    """
    Read width and height from a VvcDecoderConfigurationRecord.

    ISO/IEC 14496-15, 11.2.4.2.
    """
    bits = Bits(record)
    bits.read(5 + 2)
    if not bits.read(1):  # ptl_present_flag
        raise MessageError("a VVC configuration without dimensions")
    bits.read(9)
    subLayers = bits.read(3)
    bits.read(2 + 2 + 3 + 5)
    bits.read(2)
    constraints = bits.read(6)
    bits.read(8 + 8)
    # Two flags of the profile's are in the first of these octets.
    bits.read(8 * constraints)
    present = 0
    if subLayers > 1:
        present = (bits.read(8) >> 9 - subLayers).bit_count()
    bits.read(8 * present)
    bits.read(32 * bits.read(8))
    return bits.read(16), bits.read(16)


#: Readers of width and height in pixels from a decoder configuration, by FourCC.
CONFIGURATION_SIZES: dict[int | str, Callable[[bytes], _Size]] = {
    "av01": _av1Configuration,
    "vvc1": _vvcConfiguration,
}

#: The same from a key frame, for codecs whose configuration may not have them.
KEY_FRAME_SIZES: dict[int | str, Callable[[bytes], _Size]] = {
    "av01": _av1Size,
    "vp08": _vp8Size,
    "vp09": _vp9Size,
}
