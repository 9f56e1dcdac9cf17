"""AMF0: vectors of the specification and of real clients, bounds, and fuzzing."""

from __future__ import annotations

import math
import random
import struct
import tracemalloc
from enum import Enum
from itertools import count, repeat

import pytest
from amfkit import (
    Number,
    assertWorkIsLinear,
    check,
    doubledList,
    hexed,
    isSame,
    unfolded,
)

from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amf3 import DEPTH_CEILING
from twisted_rtmp.wire.amfvalues import (
    UNDEFINED,
    XML,
    Date,
    Dictionary,
    ECMAArray,
    TypedObject,
    Vector,
    VectorType,
    XMLDocument,
)
from twisted_rtmp.wire.constants import MAX_MESSAGE_LENGTH
from twisted_rtmp.wire.errors import AMFError, LimitError, UsageError
from twisted_rtmp.wire.limits import MIB, WireLimits

END = b"\x00\x00\x09"


def number(value):
    return b"\x00" + struct.pack(">d", value)


def name(text):
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def string(text):
    return b"\x02" + name(text)


def reference(index):
    return b"\x07" + struct.pack(">H", index)


def strict(*items, count=None):
    return (
        b"\x0a" + struct.pack(">I", len(items) if count is None else count)
    ) + b"".join(items)


# As captured from the programs, ports included.
FFMPEG_CONNECT = hexed(
    "020007636f6e6e656374003ff00000000000000300036170700200046c6976650004747970650200"
    "0a6e6f6e707269766174650008666c617368566572020024464d4c452f332e302028636f6d706174"
    "69626c653b204c61766635392e32372e313030290005746355726c02001b72746d703a2f2f313237"
    "2e302e302e313a35363633332f6c697665000009"
)
RTMP2SINK_CONNECT = hexed(
    "020007636f6e6e656374003ff00000000000000300036170700200046c6976650004747970650200"
    "0a6e6f6e707269766174650008666c61736856657202000e4c4e582031302c302c33322c31380005"
    "746355726c02001b72746d703a2f2f3132372e302e302e313a33323832312f6c697665000009"
)
FFMPEG_METADATA = hexed(
    "02000a6f6e4d65746144617461080000000d00086475726174696f6e003ff0000000000000000577"
    "696474680040500000000000000006686569676874004050000000000000000d766964656f646174"
    "61726174650040686a000000000000096672616d6572617465004014000000000000000c76696465"
    "6f636f6465636964004000000000000000000d617564696f6461746172617465004050d880000000"
    "00000f617564696f73616d706c65726174650040e5888000000000000f617564696f73616d706c65"
    "73697a65004030000000000000000673746572656f0100000c617564696f636f6465636964004024"
    "0000000000000007656e636f64657202000d4c61766635392e32372e313030000866696c6573697a"
    "65000000000000000000000009"
)
GSTREAMER_METADATA = hexed(
    "02000a6f6e4d65746144617461080000000a000c766964656f636f646563696400401c0000000000"
    "0000057769647468004074000000000000000668656967687400406e000000000000000c41737065"
    "6374526174696f58003ff0000000000000000c417370656374526174696f59003ff0000000000000"
    "00096672616d657261746500403e000000000000000d766964656f64617461726174650040a00000"
    "00000000000f6d6574616461746163726561746f7202001a4753747265616d657220312e32322e30"
    "20464c56206d757865720007656e636f64657202001a4753747265616d657220312e32322e302046"
    "4c56206d75786572000c6372656174696f6e646174650200184d6f6e204e6f762032332030393a34"
    "313a3332203230323600"
    "0009"
)
FFMPEG_PROPERTIES = {
    "duration": 1.0,
    "width": 64.0,
    "height": 64.0,
    "videodatarate": 195.3125,
    "framerate": 5.0,
    "videocodecid": 2.0,
    "audiodatarate": 67.3828125,
    "audiosamplerate": 44100.0,
    "audiosamplesize": 16.0,
    "stereo": False,
    "audiocodecid": 10.0,
    "encoder": "Lavf59.27.100",
    "filesize": 0.0,
}

#: Bytes that are also what the values are written as.
CANONICAL = {
    "2.2 number": (hexed("003ff0000000000000"), [1.0]),
    "2.2 infinity": (hexed("007ff0000000000000"), [math.inf]),
    "2.3 booleans": (hexed("01010100"), [True, False]),
    "2.4 string": (hexed("020003616263"), ["abc"]),
    "2.4 empty string": (hexed("020000"), [""]),
    "2.4 string of UTF-8": (hexed("020006c3a9e282ac78"), ["\xe9\u20acx"]),
    "2.4 string of 65535 bytes": (b"\x02\xff\xff" + b"a" * 65535, ["a" * 65535]),
    "2.5 object": (
        hexed("03 0001 61 05 0001 62 0100 000009"),
        [{"a": None, "b": False}],
    ),
    "2.5 empty object": (hexed("03000009"), [{}]),
    "2.5 property without a name": (
        hexed("03 0000 020001 78 000009"),
        [{"": "x"}],
    ),
    "2.5 object in an object": (
        hexed("03 0001 61 03 0001 62 03 000009 000009 000009 05"),
        [{"a": {"b": {}}}, None],
    ),
    "2.7 null, 2.8 undefined": (hexed("0506"), [None, UNDEFINED]),
    "2.10 ECMA array": (
        hexed("08 00000001 0001 30 020001 78 000009"),
        [ECMAArray({"0": "x"})],
    ),
    "2.12 strict array": (
        hexed("0a 00000003 05 0101 0a 00000000"),
        [[None, True, []]],
    ),
    "2.13 date": (
        hexed("0b 4273a5f5a3800000 0000"),
        [Date(struct.unpack(">d", hexed("4273a5f5a3800000"))[0])],
    ),
    "2.13 date with a time zone": (
        hexed("0b 0000000000000000 ffc4"),
        [Date(0.0, -60)],
    ),
    "2.14 long string": (
        b"\x0c\x00\x01\x00\x00" + b"a" * 65536,
        ["a" * 65536],
    ),
    "2.17 XML document": (hexed("0f 00000004 3c612f3e"), [XMLDocument("<a/>")]),
    "2.18 typed object": (
        hexed("10 0003 612e62 0001 78 05 000009"),
        [TypedObject("a.b", {"x": None})],
    ),
    "3.1 ByteArray in AMF3": (hexed("11 0c 05 0102 05"), [b"\x01\x02", None]),
    "3.1 Vector in AMF3": (
        hexed("11 0d 03 00 ffffffff"),
        [Vector(VectorType.INT, [-1])],
    ),
    "3.1 Dictionary in AMF3 in an object": (
        hexed("03 0001 64 11 11 03 00 0603 61 0603 61 000009"),
        [{"d": Dictionary([("a", "a")])}],
    ),
    "ffmpeg 5.1's connect": (
        FFMPEG_CONNECT,
        [
            "connect",
            1.0,
            {
                "app": "live",
                "type": "nonprivate",
                "flashVer": "FMLE/3.0 (compatible; Lavf59.27.100)",
                "tcUrl": "rtmp://127.0.0.1:56633/live",
            },
        ],
    ),
    "GStreamer 1.22 rtmp2sink's connect": (
        RTMP2SINK_CONNECT,
        [
            "connect",
            1.0,
            {
                "app": "live",
                "type": "nonprivate",
                "flashVer": "LNX 10,0,32,18",
                "tcUrl": "rtmp://127.0.0.1:32821/live",
            },
        ],
    ),
    "OBS's connect: swfUrl is tcUrl": (
        string("connect")
        + number(1)
        + b"\x03"
        + name("app")
        + string("live")
        + name("type")
        + string("nonprivate")
        + name("flashVer")
        + string("FMLE/3.0 (compatible; FMSc/1.0)")
        + name("swfUrl")
        + string("rtmp://127.0.0.1/live")
        + name("tcUrl")
        + string("rtmp://127.0.0.1/live")
        + END,
        [
            "connect",
            1.0,
            {
                "app": "live",
                "type": "nonprivate",
                "flashVer": "FMLE/3.0 (compatible; FMSc/1.0)",
                "swfUrl": "rtmp://127.0.0.1/live",
                "tcUrl": "rtmp://127.0.0.1/live",
            },
        ],
    ),
    "E-RTMP v2 connect: fourCcList, capability map": (
        string("connect")
        + number(1)
        + b"\x03"
        + name("fourCcList")
        + strict(string("av01"), string("hvc1"))
        + name("videoFourCcInfoMap")
        + b"\x03"
        + name("*")
        + number(4)
        + END
        + END,
        [
            "connect",
            1.0,
            {"fourCcList": ["av01", "hvc1"], "videoFourCcInfoMap": {"*": 4.0}},
        ],
    ),
    "publish": (
        string("publish")
        + number(5)
        + b"\x05"
        + string("key?token=1")
        + string("live"),
        ["publish", 5.0, None, "key?token=1", "live"],
    ),
    "ffmpeg 5.1's onMetaData": (
        FFMPEG_METADATA,
        ["onMetaData", ECMAArray(FFMPEG_PROPERTIES)],
    ),
    "a name in Latin-1": (
        hexed("03 0004 636166e9 020001 e9 000009"),
        [{"caf\udce9": "\udce9"}],
    ),
    "a surrogate in UTF-8": (hexed("020003eda080"), ["\udced\udca0\udc80"]),
}

#: Bytes that are read, but that are not how the values are written.
TOLERATED = {
    "2.3 true is any byte but 0": (hexed("01ff"), [True]),
    "2.15 unsupported": (hexed("0d"), [UNDEFINED]),
    "2.14 long string that is short": (hexed("0c 00000001 61"), ["a"]),
    "GStreamer's onMetaData": (
        GSTREAMER_METADATA,
        [
            "onMetaData",
            ECMAArray(
                {
                    "videocodecid": 7.0,
                    "width": 320.0,
                    "height": 240.0,
                    "AspectRatioX": 1.0,
                    "AspectRatioY": 1.0,
                    "framerate": 30.0,
                    "videodatarate": 2048.0,
                    "metadatacreator": "GStreamer 1.22.0 FLV muxer",
                    "encoder": "GStreamer 1.22.0 FLV muxer",
                    "creationdate": "Mon Nov 23 09:41:32 2026",
                }
            ),
        ],
    ),
    "ECMA array, count 0": (
        FFMPEG_METADATA.replace(b"\x08\x00\x00\x00\x0d", b"\x08\x00\x00\x00\x00"),
        ["onMetaData", ECMAArray(FFMPEG_PROPERTIES)],
    ),
    "ECMA array, count 2^32 - 1": (
        FFMPEG_METADATA.replace(b"\x08\x00\x00\x00\x0d", b"\x08\xff\xff\xff\xff"),
        ["onMetaData", ECMAArray(FFMPEG_PROPERTIES)],
    ),
    "ECMA array without its end": (
        FFMPEG_METADATA[:-3],
        ["onMetaData", ECMAArray(FFMPEG_PROPERTIES)],
    ),
    "object in an object without their ends": (
        hexed("03 0001 61 03 0001 62 05"),
        [{"a": {"b": None}}],
    ),
    "2.9 reference": (
        hexed("0a 00000003 03 0001 61 05 000009 070001 070001"),
        [[{"a": None}, {"a": None}, {"a": None}]],
    ),
    "2.9 reference to a value before": (
        hexed("03000009 070000 0a 00000001 070000"),
        [{}, {}, [{}]],
    ),
    "3.1 strings shared by two AMF3 values": (
        hexed("11 0a0b01 0361 0603 62 01 05 11 0a01 00 0602 01"),
        [{"a": "b"}, None, {"a": "b"}],
    ),
}
VECTORS = CANONICAL | TOLERATED
vectors = pytest.mark.parametrize(("data", "values"), VECTORS.values(), ids=VECTORS)
canonical = pytest.mark.parametrize(
    ("data", "values"), CANONICAL.values(), ids=CANONICAL
)


def isBeginning(short, whole):
    """Whether C{short} is C{whole} with properties missing at its very end."""
    if isSame(short, whole):
        return True
    if not isinstance(short, dict) or type(short) is not type(whole):
        return False
    names = list(whole)[: len(short)]
    return list(short) == names and all(
        isBeginning(short[key], whole[key]) if key == names[-1] else True
        for key in names
    )


@vectors
def test_decode(data, values):
    assert isSame(amf0.decode(data), values)


@canonical
def test_encode(data, values):
    assert amf0.encode(*values) == data


@vectors
def test_writtenIsReadAgain(data, values):
    assert isSame(amf0.decode(amf0.encode(*values)), values)


@vectors
def test_firstAlone(data, values):
    first, offset = amf0.decodeFirst(data)
    assert isSame(first, values[0])
    if len(values) == 1:
        assert offset == len(data)
    else:
        # What follows is not looked at.
        assert amf0.decodeFirst(data[:offset] + b"\xff") == (first, offset)


@vectors
def test_truncated(data, values):
    cuts = range(len(data)) if len(data) < 1000 else [*range(20), len(data) - 1]
    whole = errors = 0
    for cut in cuts:
        try:
            got = amf0.decode(data[:cut])
        except AMFError:
            errors += 1
            continue
        whole += 1
        assert len(got) <= len(values)
        assert all(map(isSame, got[:-1], values))
        assert not got or isBeginning(got[-1], values[len(got) - 1])
    assert whole + errors == len(cuts)
    assert whole  # no bytes are no values
    assert errors or len(data) == len(values)


def test_truncatedProperties():
    # After a property is where a missing end is tolerated, and nowhere else.
    data = hexed("03 0001 61 05 0001 62 020001 63 000009")
    good = {0: [], 1: [{}], 5: [{"a": None}], 12: [{"a": None, "b": "c"}]}
    for cut in range(len(data)):
        if cut in good:
            assert amf0.decode(data[:cut]) == good[cut]
        else:
            with pytest.raises(AMFError, match="ends inside"):
                amf0.decode(data[:cut])


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ("04", "movieclip"),
        ("0e", "recordset"),
        ("09", "end of an object"),
        ("0a 00000001 09", "end of an object"),
        ("12", "unknown marker 0x12"),
        ("ff", "unknown marker 0xff"),
        ("070000", "object 0 of 0"),
        ("03000009 070001", "object 1 of 1"),
        ("11 12", "unknown AMF3 marker"),
        ("0c ffffffff 61", "ends inside"),
        ("0f 7fffffff 61", "ends inside"),
        ("0a ffffffff 05", "ends inside"),
    ],
)
def test_malformed(data, match):
    with pytest.raises(AMFError, match=match):
        amf0.decode(hexed(data))


def test_sameNameTwice():
    data = hexed("03 0001 61 05 0001 61 06 000009")
    assert amf0.decode(data) == [{"a": UNDEFINED}]


def test_nothing():
    assert amf0.decode(b"") == []
    assert amf0.encode() == b""
    with pytest.raises(AMFError):
        amf0.decodeFirst(b"")


def test_undefined():
    assert not UNDEFINED
    assert repr(UNDEFINED) == "UNDEFINED"


# -- bounds ----------------------------------------------------------------

#: What opens one more level, and what ends the innermost.
LEVELS = {
    "objects": (b"\x03\x00\x01a", b"\x05"),
    "ECMA arrays": (b"\x08\x00\x00\x00\x01\x00\x01a", b"\x05"),
    "strict arrays": (b"\x0a\x00\x00\x00\x01", b"\x05"),
    "typed objects": (b"\x10\x00\x01c\x00\x01a", b"\x05"),
    "typed objects without a class": (b"\x10\x00\x00\x00\x00", b"\x05"),
}


@pytest.mark.parametrize(("level", "inner"), LEVELS.values(), ids=LEVELS)
def test_depth(level, inner):
    value = amf0.decode(level * 32 + inner)[0]
    levels = 0
    while value is not None:
        levels += 1
        value = value[0] if isinstance(value, list) else next(iter(value.values()))
    assert levels == 32
    with pytest.raises(LimitError) as caught:
        amf0.decode(level * 33 + inner)
    assert (caught.value.limit, caught.value.got) == (32, 33)
    # A bomb ends as fast, whatever the limits are set to.
    for limits in (WireLimits(), WireLimits(amfDepth=10**9, amfValues=10**9)):
        for end in (inner, b""):
            with pytest.raises(LimitError, match="deeper"):
                amf0.decode(level * 200_000 + end, limits)
    # What can be read at the greatest depth can be printed and written.
    value = amf0.decode(level * DEPTH_CEILING + inner, WireLimits(amfDepth=10**9))
    assert repr(value)
    assert amf0.encode(*value)


def test_depthIsThatOfBothVersions():
    # An AMF3 array of one in an AMF0 array of one, and so on.
    with pytest.raises(LimitError) as caught:
        amf0.decode(strict(b"\x11" + b"\x09\x03\x01" * 32 + b"\x01"))
    assert caught.value.got == 33
    assert amf0.decode(strict(b"\x11" + b"\x09\x03\x01" * 31 + b"\x01"))


def test_propertiesAndContainersCountDouble():
    """They take twice as long: one message must not hold everybody up."""
    pair = b"\x00\x01a\x05"
    assert amf0.decode(b"\x03" + pair * 4_999 + END)
    assert amf0.decode(strict(*repeat(b"\x0a\0\0\0\0", 4_999)))
    named = b"\x03a\x01"
    assert amf0.decode(b"\x11\x09\x01" + named * 4_999 + b"\x01")
    for data in (
        b"\x03" + pair * 5_000 + END,
        b"\x08" + bytes(4) + pair * 5_000 + END,
        strict(*repeat(b"\x0a\0\0\0\0", 5_000)),
        strict(*repeat(b"\x03" + END, 5_000)),
        b"\x11\x09\x01" + named * 5_000 + b"\x01",
        b"\x11\x0a\x0b\x01" + named * 5_000 + b"\x01",
    ):
        with pytest.raises(LimitError, match="5000 properties and containers"):
            amf0.decode(data)


def test_values():
    assert len(amf0.decode(b"\x05" * 10_000)) == 10_000
    with pytest.raises(LimitError) as caught:
        amf0.decode(b"\x05" * 10_001)
    assert (caught.value.limit, caught.value.got) == (10_000, 10_001)
    assert amf0.decode(strict(*repeat(b"\x05", 9_999)))
    with pytest.raises(LimitError):
        amf0.decode(strict(*repeat(b"\x05", 10_000)))
    with pytest.raises(LimitError):
        amf0.decode(b"\x03" + (b"\x00\x01a\x05") * 10_000 + END)
    with pytest.raises(LimitError):
        amf0.decode(b"\x11\x09\x81\x9c\x23\x01" + b"\x01" * 10_001)
    with pytest.raises(LimitError):
        amf0.decode(b"\x05" * 5, WireLimits(amfValues=4))


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a\xff\xff\xff\xff" + bytes(9),
        b"\x0a\x00\x7f\xff\xff" + b"\x05" * 0x7FFFFF,
        b"\x0c\x00\xff\xff\xff" + bytes(9),
        b"\x08\xff\xff\xff\xff" + b"\x00\x01a",
        b"\x11\x0d\xff\xff\xff\xff" + bytes(9),
        b"\x11\x0c\xff\xff\xff\xff" + bytes(9),
        b"\x11\x11\xff\xff\xff\xff" + bytes(9),
        b"\x11\x0a\xff\xff\xff\xf3\x01" + bytes(9),
    ],
    ids=count(),
)
def test_nothingIsMadeForADeclaredCount(data):
    tracemalloc.start()
    try:
        with pytest.raises((AMFError, LimitError)):
            amf0.decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000


def test_referenceIsTheSameObject():
    value = amf0.decode(hexed("0a 00000003 03 000009 070001 070001"))[0]
    assert value[0] is value[1]
    assert value[1] is value[2]


@pytest.mark.parametrize(
    "data",
    [
        "03 0001 61 070000 000009",
        "08 00000001 0001 61 070000 000009",
        "0a 00000001 070000",
        "10 0001 63 0001 61 070000 000009",
        "03 0001 61 03 0001 62 070000 000009 000009",
        "03 0001 61 0a 00000001 070000",
    ],
)
def test_loop(data):
    with pytest.raises(AMFError, match="contains itself"):
        amf0.decode(hexed(data))


def doubled(times):
    """An array of an array, and of pairs of references, each to the one before."""
    pairs = (strict(reference(i), reference(i)) for i in range(1, times + 1))
    return strict(strict(), *pairs)


def test_referencesDoNotMultiplyValues():
    # After n pairs the last alone is 2^(n+1) - 1 values.
    for times in range(1, 12):
        (value,) = amf0.decode(doubled(times))
        values = unfolded(value)
        assert values <= 10_000
        # The bound is on just what the value is when somebody walks it.
        assert amf0.decode(doubled(times), WireLimits(amfValues=values))
        with pytest.raises(LimitError):
            amf0.decode(doubled(times), WireLimits(amfValues=values - 1))
    for times in (12, 13, 20, 1000):
        with pytest.raises(LimitError, match="10000 AMF values"):
            amf0.decode(doubled(times))


def chained(times):
    """As L{doubled}, but each holds the one before only once."""
    return strict(strict(), *(strict(reference(i)) for i in range(1, times + 1)))


def test_referencesDoNotNest():
    # Two levels, and one more for each link.
    assert amf0.decode(chained(30))
    for times in (31, 100):
        with pytest.raises(LimitError, match="deeper than 32") as caught:
            amf0.decode(chained(times))
        assert caught.value.got == 33
    # Within another container the level of the reference counts.
    data = chained(30) + strict(strict(strict(reference(0))))
    with pytest.raises(LimitError, match="deeper than 32"):
        amf0.decode(data)
    # The depth of one value is not that of the next.
    assert amf0.decode(chained(30) + strict(strict(reference(1))))


def test_referenceIsAsDeepAsTheDeepestBranch():
    # Not as the last: 31 levels, the deep branch first.
    data = strict(strict(b"\x0a\x00\x00\x00\x01" * 29 + b"\x05", strict()))
    assert amf0.decode(data + strict(reference(0)))
    with pytest.raises(LimitError, match="deeper than 32"):
        amf0.decode(data + strict(strict(reference(0))))


def test_referencesDoNotMultiplyBytes():
    mebibyte = b"\x0c\x00\x10\x00\x00" + bytes(MIB)
    data = strict(strict(mebibyte), *repeat(reference(1), 6))
    assert len(amf0.encode(*amf0.decode(data))) < 8 * MIB
    data = strict(strict(mebibyte), *repeat(reference(1), 7))
    with pytest.raises(LimitError, match="stand for more"):
        amf0.decode(data)
    assert amf0.decode(data, WireLimits(messageSize=9 * MIB))


SHAPES = {
    "wide array": lambda n: strict(*repeat(number(1), n)),
    "wide object": lambda n: (
        b"\x03" + b"".join(name(str(i)) + b"\x05" for i in range(n)) + END
    ),
    "names alike": lambda n: b"\x03" + (b"\x00\x01a\x05") * n + END,
    "references": lambda n: strict(strict(), *repeat(reference(1), n)),
    "strings": lambda n: string("a" * 100) * n,
    "AMF3": lambda n: (b"\x11\x0a\x0b\x01\x03a\x06\x03b\x01") * n,
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_workIsLinear(shape):
    assertWorkIsLinear(amf0, shape)


# -- writing ---------------------------------------------------------------


class Text(str, Enum):
    LIVE = "live"


class Loud(dict):
    pass


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (1, number(1.0)),
        (-(2**53), number(-(2.0**53))),
        (Number.EIGHT, number(8.0)),
        (True, b"\x01\x01"),
        (Text.LIVE, string("live")),
        ((1, 2), strict(number(1), number(2))),
        (Loud(a=None), hexed("03 0001 61 05 000009")),
        (bytearray(b"a"), hexed("11 0c 03 61")),
        (XML("<a/>"), hexed("0f 00000004 3c612f3e")),
        (
            ECMAArray({"a": None}, dense=[True]),
            hexed("08 00000002 0001 30 0101 0001 61 05 000009"),
        ),
        ({"\xff" * 32767: None}, b"\x03\xff\xfe" + b"\xc3\xbf" * 32767 + b"\x05" + END),
        ("\xff" * 32768, b"\x0c\x00\x01\x00\x00" + b"\xc3\xbf" * 32768),
    ],
    ids=count(),
)
def test_write(value, data):
    assert amf0.encode(value) == data


def test_AMF3ValuesReferToNothing():
    # Readers that share tables among a message's values and readers that do
    # not must both understand it.
    pair = Dictionary([("a", "a")])
    assert amf0.encode(pair, pair) == 2 * hexed("11 11 03 00 0603 61 0603 61")


def cyclicList():
    value = []
    value.append(value)
    return value


def cyclicDict():
    value = {"a": {}}
    value["a"]["b"] = ECMAArray({"c": value})
    return value


def cyclicDictionary():
    value = Dictionary()
    value.append(("a", [value]))
    return value


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (object, "no type for object"),
        (lambda: {1: 2}, "not a string"),
        (lambda: {"a": {None: 2}}, "not a string"),
        (lambda: {"a" * 65536: 2}, "name longer"),
        (lambda: TypedObject("a" * 65536), "name longer"),
        (lambda: TypedObject(None), "not a string"),
        (lambda: 10**400, "as a number"),
        (lambda: "\ud800", "cannot write this string"),
        (lambda: Date(0.0, 32768), "cannot write Date"),
        (lambda: Date(10**400), "cannot write Date"),
        (lambda: {1, 2}, "no type for set"),
        (cyclicList, "holds itself"),
        (cyclicDict, "holds itself"),
        (cyclicDictionary, "holds itself"),
        (lambda: ["a" * 60_000] * 100_000, "larger"),
        (lambda: "a" * MAX_MESSAGE_LENGTH, "larger"),
        (lambda: bytes(MAX_MESSAGE_LENGTH), "larger"),
        (lambda: [["a" * MIB] * 5] * 4, "larger"),
    ],
    ids=count(),
)
def test_cannotWrite(make, match):
    with pytest.raises(UsageError, match=match):
        amf0.encode(make())


def test_writeDoesNotMultiply(monkeypatch):
    monkeypatch.setattr("twisted_rtmp.wire.amf3.MAX_MESSAGE_LENGTH", 10_000)
    with pytest.raises(UsageError, match="larger"):
        amf0.encode(doubledList())


# -- fuzzing ---------------------------------------------------------------

SEED = 20090206


def mutated(source, data):
    """C{data} with a few bytes changed, cut out, doubled or put in."""
    data = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(data) + 1)
        kind = source.randrange(5)
        if kind == 0:
            data[at : at + 1] = bytes([source.randrange(256)])
        elif kind == 1:
            data[at : at + 1] = bytes([source.choice(b"\x00\x01\x7f\x80\xff\x09")])
        elif kind == 2:
            del data[at : at + source.randint(1, 8)]
        elif kind == 3:
            data[at:at] = data[at : at + source.randint(1, 30)]
        else:
            data[at:at] = bytes([source.randrange(0x12)])
    return bytes(data)


def test_fuzzMutations():
    source = random.Random(SEED)
    corpus = [data for data, values in VECTORS.values() if len(data) < 1000]
    corpus += [doubled(5), chained(5)]
    good = 0
    rounds = 40_000
    for index in range(rounds):
        data = mutated(source, source.choice(corpus))
        try:
            good += check(amf0, data)
        except Exception as error:
            raise AssertionError(f"seed {SEED}, {index}: {data.hex()}") from error
    assert rounds / 10 < good < rounds * 9 / 10  # both ways are walked


def test_fuzzMarkers():
    # Bytes that are mostly markers and small lengths reach deeper than noise.
    source = random.Random(SEED)
    alphabet = bytes(range(0x12)) * 3 + b"\x00" * 20 + b"\x01\x02\x03" * 4 + b"a\xff"
    for index in range(20_000):
        data = bytes(source.choices(alphabet, k=source.randint(1, 40)))
        try:
            check(amf0, data)
        except Exception as error:
            raise AssertionError(f"seed {SEED}, {index}: {data.hex()}") from error
