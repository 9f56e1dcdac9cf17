"""Width and height of AV1, VP8, VP9 and VVC, from headers made bit by bit."""

from __future__ import annotations

import random

import pytest

from twisted_rtmp.media.framesizes import (
    CONFIGURATION_SIZES,
    KEY_FRAME_SIZES,
    MAX_UNITS,
)
from twisted_rtmp.media.payloads import videoFacts
from twisted_rtmp.wire.errors import MessageError

NUMBERS = {name: int.from_bytes(name.encode(), "big") for name in KEY_FRAME_SIZES}
NUMBERS["vvc1"] = int.from_bytes(b"vvc1", "big")


def packed(*fields: tuple[int, int]) -> bytes:
    """Fields of so many bits each, zeros up to the next byte, and one byte more."""
    bits = "".join(f"{value:0{count}b}" for value, count in fields)
    assert len(bits) == sum(count for _, count in fields), "a value too large"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big") + b"\x80"


def sequenceHeader(width: int, height: int, *, timing: bool = False) -> bytes:
    """AV1, 5.5.1, in a unit with a size."""
    fields = [(0, 3), (0, 1), (0, 1)]  # profile, still picture, reduced header
    if timing:
        fields += [(1, 1), (1, 32), (30, 32), (1, 1), (0b00101, 5)]  # uvlc 4
        # A decoder model: 10 bits of delay.
        fields += [(1, 1), (9, 5), (1, 32), (9, 5), (9, 5)]
        fields += [(1, 1), (1, 5)]  # initial display delay, two operating points
        fields += [(0x101, 12), (9, 5), (1, 1)]  # a level above 7 has a tier
        fields += [(1, 1), (0x3FF, 10), (0x3FF, 10), (1, 1), (1, 1), (15, 4)]
        fields += [(0x102, 12), (5, 5), (0, 1), (0, 1)]
    else:
        fields += [(0, 1), (0, 1), (0, 5), (0, 12), (4, 5)]
    widthBits, heightBits = (width - 1).bit_length(), (height - 1).bit_length()
    fields += [(widthBits - 1, 4), (heightBits - 1, 4)]
    body = packed(*fields, (width - 1, widthBits), (height - 1, heightBits))
    return bytes((0x0A, len(body))) + body


DELIMITER = b"\x12\x00"
METADATA = b"\x2e\x20\x80\x01" + bytes(128)  # an extension, a size of two octets


def vp9(
    profile: int, width: int, height: int, *, colorSpace: int = 2, show: int = 0
) -> bytes:
    """VP9, 6.2: a key frame."""
    fields = [(2, 2), (profile & 1, 1), (profile >> 1, 1)]
    if profile == 3:
        fields.append((0, 1))
    fields += [(show, 1), (0, 1), (1, 1), (0, 1), (0x498342, 24)]
    if profile >= 2:
        fields.append((1, 1))
    fields.append((colorSpace, 3))
    if colorSpace != 7:
        fields.append((1, 1))
        if profile & 1:
            fields += [(1, 1), (1, 1), (0, 1)]
    elif profile & 1:
        fields.append((0, 1))
    return packed(*fields, (width - 1, 16), (height - 1, 16))


def vp8(width: int, height: int) -> bytes:
    """RFC 6386, 9.1: a key frame, scaled by 5/4 and 5/3."""
    sizes = (width | 1 << 14).to_bytes(2, "little") + (height | 2 << 14).to_bytes(
        2, "little"
    )
    return b"\x50\x12\x00\x9d\x01\x2a" + sizes + b"\0"


def vvc(
    width: int,
    height: int,
    *,
    subLayers: int = 1,
    levels: tuple[int, ...] = (),
    constraints: int = 1,
    subProfiles: int = 0,
) -> bytes:
    """ISO/IEC 14496-15, 11.2.4.2, without parameter sets."""
    fields = [(31, 5), (3, 2), (1, 1), (0, 9), (subLayers, 3), (0, 2), (1, 2)]
    fields += [(0, 3), (31, 5), (0, 2), (constraints, 6), (1, 7), (0, 1), (51, 8)]
    fields += [(1, 1), (0, 1), (0, 8 * constraints - 2)]
    if subLayers > 1:
        given = range(subLayers - 2, -1, -1)
        fields += [(int(i in levels), 1) for i in given]
        fields += [(0, 1)] * (9 - subLayers)
        fields += [(35, 8)] * len(levels)
    fields += [(subProfiles, 8)] + [(7, 32)] * subProfiles
    return packed(*fields, (width, 16), (height, 16), (0, 16), (0, 8))


AV1C = b"\x81\x04\x0c\x00"

CONFIGURATIONS = [
    ("av01", AV1C + sequenceHeader(1280, 720), 1280, 720),
    ("av01", AV1C + sequenceHeader(65535, 3, timing=True), 65535, 3),
    ("av01", AV1C + METADATA + sequenceHeader(160, 120), 160, 120),
    ("vvc1", vvc(3840, 2160), 3840, 2160),
    ("vvc1", vvc(160, 120, subLayers=4, levels=(0, 2)), 160, 120),
    ("vvc1", vvc(162, 122, subLayers=7, constraints=12, subProfiles=2), 162, 122),
]
KEY_FRAMES = [
    ("av01", DELIMITER + sequenceHeader(320, 240) + b"\x32\x01\0", 320, 240),
    ("av01", sequenceHeader(2, 2) + b"\x32\x01\0", 2, 2),
    ("vp08", vp8(640, 360), 640, 360),
    ("vp08", vp8(16383, 1), 16383, 1),
    *(("vp09", vp9(n, 854, 480 + n), 854, 480 + n) for n in range(4)),
    ("vp09", vp9(1, 65535, 1, colorSpace=7), 65535, 1),
]


@pytest.mark.parametrize(("codec", "record", "width", "height"), CONFIGURATIONS)
def test_configurations(codec, record, width, height):
    facts = {"videocodecid": NUMBERS[codec], "width": width, "height": height}
    name = codec.encode()
    assert videoFacts(b"\x90" + name + record) == facts
    assert videoFacts(b"\x96\x00" + name + b"\0" + record) == facts
    # Another track's says nothing of the file's own dimensions.
    assert videoFacts(b"\x96\x00" + name + b"\1" + record) == {}


@pytest.mark.parametrize(("codec", "frame", "width", "height"), KEY_FRAMES)
def test_keyFrames(codec, frame, width, height):
    facts = {"videocodecid": NUMBERS[codec], "width": width, "height": height}
    name = codec.encode()
    assert videoFacts(b"\x91" + name + frame) == facts
    assert videoFacts(b"\x93" + name + frame) == facts
    assert videoFacts(b"\x96\x01" + name + b"\0" + frame) == facts
    assert videoFacts(b"\xa1" + name + frame) == {"videocodecid": NUMBERS[codec]}


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        ("av01", b"\x01\0\0\0" + sequenceHeader(2, 2)),
        ("av01", AV1C),
        ("vvc1", b"\xfe" + bytes(20)),  # without the profile, tier and level
    ],
)
def test_configurationsWithoutDimensions(codec, data):
    with pytest.raises(MessageError):
        CONFIGURATION_SIZES[codec](data)
    assert videoFacts(b"\x90" + codec.encode() + data) == {
        "videocodecid": NUMBERS[codec]
    }


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        ("av01", b"\x32\x01\0"),
        ("av01", b"\x0a" + b"\xff" * 9),
        ("av01", DELIMITER * MAX_UNITS + sequenceHeader(2, 2)),
        ("vp09", b"\0" * 20),
        ("vp09", vp9(0, 2, 2, show=1)),
        ("vp09", vp9(0, 2, 2).replace(b"\x49\x83", b"\x49\x84")),
        ("vp08", vp8(2, 2).replace(b"\x9d", b"\x9e")),
    ],
)
def test_keyFramesWithoutDimensions(codec, data):
    with pytest.raises(MessageError):
        KEY_FRAME_SIZES[codec](data)
    assert videoFacts(b"\x91" + codec.encode() + data) == {
        "videocodecid": NUMBERS[codec]
    }


def test_reducedStillPictures():
    # A level, then sizes of 4 and 3 bits.
    body = packed(
        *((0, 3), (1, 1), (1, 1), (4, 5), (3, 4), (2, 4), (9, 4), (6, 3)),
    )
    assert KEY_FRAME_SIZES["av01"](bytes((0x0A, len(body))) + body) == (10, 7)


def test_everyCutIsAnErrorOrNothingNew():
    for table, rows in (
        (CONFIGURATION_SIZES, CONFIGURATIONS),
        (KEY_FRAME_SIZES, KEY_FRAMES),
    ):
        for codec, data, width, height in rows:
            for size in range(len(data)):
                try:
                    found = table[codec](data[:size])
                except MessageError:
                    continue
                assert found == (width, height)


def test_noiseGivesDimensionsOrAnError():
    chance = random.Random(17)
    for _ in range(3000):
        for table in (CONFIGURATION_SIZES, KEY_FRAME_SIZES):
            for codec, read in table.items():
                row = chance.choice(
                    [r[1] for r in CONFIGURATIONS + KEY_FRAMES if r[0] == codec]
                )
                data = bytearray(row)
                for _ in range(3):
                    data[chance.randrange(len(data))] = chance.randrange(256)
                try:
                    width, height = read(bytes(data))
                except MessageError:
                    continue
                assert 0 <= width <= 65536
                assert 0 <= height <= 65536
