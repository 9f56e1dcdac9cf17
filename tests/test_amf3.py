"""AMF3: vectors of the specification, reference tables, bounds, and fuzzing."""

from __future__ import annotations

import copy
import math
import random
import struct
import tracemalloc
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

from twisted_rtmp.wire import amf3
from twisted_rtmp.wire.amf3 import MAX_NAME_LENGTH
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


def u29(value):
    """An independent, slow U29: 7 bits an octet, 8 in a fourth one."""
    if value < 1 << 7:
        return bytes([value])
    if value < 1 << 14:
        return bytes([0x80 | value >> 7, value & 0x7F])
    if value < 1 << 21:
        return bytes([0x80 | value >> 14, 0x80 | value >> 7 & 0x7F, value & 0x7F])
    high = value >> 8
    return bytes(0x80 | high >> shift & 0x7F for shift in (14, 7, 0)) + bytes(
        [value & 0xFF]
    )


def text(value):
    data = value.encode()
    return u29(len(data) << 1 | 1) + data


ARRAY_COLLECTION = text("flex.messaging.io.ArrayCollection")
OBJECT_PROXY = text("flex.messaging.io.ObjectProxy")

#: Bytes that are also what the values are written as.
CANONICAL = {
    "3.2 undefined, 3.3 null": (hexed("0001"), [UNDEFINED, None]),
    "3.4 false, 3.5 true": (hexed("0203"), [False, True]),
    "3.6 integers of 1 octet": (hexed("0400 047f"), [0.0, 127.0]),
    "3.6 integers of 2 octets": (hexed("048100 04ff7f"), [128.0, 16383.0]),
    "3.6 integers of 3 octets": (hexed("04818000 04ffff7f"), [16384.0, 2097151.0]),
    "3.6 integers of 4 octets": (
        hexed("0480c08000 04bfffffff"),
        [2097152.0, 268435455.0],
    ),
    "3.6 negative integers": (hexed("04ffffffff 04c0808000"), [-1.0, -268435456.0]),
    "3.7 double": (hexed("053ff8000000000000"), [1.5]),
    "3.7 integers that are too large": (
        hexed("0541b0000000000000 05c1b0000001000000"),
        [268435456.0, -268435457.0],
    ),
    "3.7 minus zero": (hexed("058000000000000000"), [-0.0]),
    "3.7 infinity": (hexed("05fff0000000000000"), [-math.inf]),
    "3.8 string": (hexed("0607616263"), ["abc"]),
    "3.8 empty strings, never by reference": (hexed("0601 0601"), ["", ""]),
    "1.3.2 string references": (
        hexed("060361 060362 0600 0602"),
        ["a", "b", "a", "b"],
    ),
    "1.3.2 string of 100 bytes": (b"\x06\x81\x49" + b"a" * 100, ["a" * 100]),
    "1.3.2 no UTF-8": (hexed("0605e9ff"), ["\udce9\udcff"]),
    "3.9 XMLDocument": (hexed("07093c612f3e"), [XMLDocument("<a/>")]),
    "3.13 XML": (hexed("0b093c612f3e"), [XML("<a/>")]),
    "3.10 date": (hexed("0801405edd2f1a9fbe77"), [Date(123.456)]),
    "3.11 dense array": (hexed("0907010102 0603 61"), [[None, False, "a"]]),
    "3.11 empty array": (hexed("090101"), [[]]),
    "3.11 array with names": (
        hexed("0901 0361 01 01"),
        [ECMAArray({"a": None})],
    ),
    "3.11 array with names and without": (
        hexed("0905 0361 01 01 0401 0402"),
        [ECMAArray({"a": None}, dense=[1.0, 2.0])],
    ),
    "3.12 anonymous object": (
        hexed("0a0b01 0361 0403 0362 0603 63 01"),
        [{"a": 3.0, "b": "c"}],
    ),
    "3.12 names by reference": (
        hexed("0903 01 0a0b01 0361 0600 01 0600"),
        [[{"a": "a"}], "a"],
    ),
    "3.12 typed object": (
        hexed("0a0b 07612e62 0378 0a0b01 01 01"),
        [TypedObject("a.b", {"x": {}})],
    ),
    "3.14 ByteArray": (hexed("0c0900ff8001 0c01"), [b"\x00\xff\x80\x01", b""]),
    "3.15 Vector of ints": (
        hexed("0d0501 00000001 80000000"),
        [Vector(VectorType.INT, [1, -(2**31)], fixed=True)],
    ),
    "3.15 Vector of uints": (
        hexed("0e0300 ffffffff"),
        [Vector(VectorType.UINT, [2**32 - 1])],
    ),
    "3.15 Vector of doubles": (
        hexed("0f0300 3ff8000000000000"),
        [Vector(VectorType.DOUBLE, [1.5])],
    ),
    "3.15 Vector of anything": (
        hexed("100500 032a 01 0d0100"),
        [Vector(VectorType.OBJECT, [None, Vector(VectorType.INT)])],
    ),
    "3.15 Vector of a class": (
        hexed("100100 07612e62"),
        [Vector(VectorType.OBJECT, className="a.b")],
    ),
    "3.16 Dictionary": (
        hexed("110501 060361 0401 0a0b0101 090101"),
        [Dictionary([("a", 1.0), ({}, [])], weakKeys=True)],
    ),
}

#: Bytes that are read, but that are not how the values are written.
READ = {
    "1.3.1 an integer longer than it need be": (hexed("0480808005"), [5.0]),
    "3.7 an integer as a double": (hexed("053ff0000000000000"), [1.0]),
    "3.9 XMLDocument by reference": (
        hexed("07033c 0700"),
        [XMLDocument("<"), XMLDocument("<")],
    ),
    "3.10 date by reference": (hexed("080100000000000000000800"), [Date(0.0)] * 2),
    "3.11 array by reference": (hexed("0905 01 090101 0902"), [[[], []]]),
    "3.12 object by reference": (hexed("0905 01 0a0b0101 0a02"), [[{}, {}]]),
    "3.12 sealed members": (
        hexed("0a23 07612e62 0378 0379 0401 0402"),
        [TypedObject("a.b", {"x": 1.0, "y": 2.0})],
    ),
    "3.12 sealed members of an anonymous class": (
        hexed("0a13 01 0378 0401"),
        [{"x": 1.0}],
    ),
    "3.12 sealed and dynamic members": (
        hexed("0a1b 0363 0378 0401 0379 0402 01"),
        [TypedObject("c", {"x": 1.0, "y": 2.0})],
    ),
    "3.12 traits by reference": (
        hexed("0a13 0363 0378 0401 0a01 0402 0a0b01 0378 01 01 0a05 0379 01 01"),
        [
            TypedObject("c", {"x": 1.0}),
            TypedObject("c", {"x": 2.0}),
            {"x": None},
            {"y": None},
        ],
    ),
    "3.14 ByteArray by reference": (hexed("0c0361 0c00"), [b"a", b"a"]),
    "3.15 Vector by reference": (
        hexed("0d0300 00000001 0d00"),
        [Vector(VectorType.INT, [1])] * 2,
    ),
    "3.15 true is any byte but 0": (
        hexed("0d0107"),
        [Vector(VectorType.INT, fixed=True)],
    ),
    "3.16 Dictionary by reference": (hexed("110100 1100"), [Dictionary()] * 2),
    "Flex: ArrayCollection": (
        b"\x0a\x07" + ARRAY_COLLECTION + hexed("0903 01 0401"),
        [[1.0]],
    ),
    "Flex: ObjectProxy": (
        b"\x0a\x07" + OBJECT_PROXY + hexed("0a0b01 0361 01 01"),
        [{"a": None}],
    ),
    # The collection is object 0 and its array object 1: both are the array.
    "Flex: ArrayCollection by reference": (
        b"\x0a\x07" + ARRAY_COLLECTION + hexed("0903 01 0401 0a00 0902"),
        [[1.0], [1.0], [1.0]],
    ),
    # Traits 0 by reference: another ArrayCollection.
    "Flex: ArrayCollection, traits by reference": (
        b"\x0a\x07" + ARRAY_COLLECTION + hexed("090101 0a01 090101"),
        [[], []],
    ),
}
VECTORS = CANONICAL | READ
vectors = pytest.mark.parametrize(("data", "values"), VECTORS.values(), ids=VECTORS)
canonical = pytest.mark.parametrize(
    ("data", "values"), CANONICAL.values(), ids=CANONICAL
)


@vectors
def test_decode(data, values):
    assert isSame(amf3.decode(data), values)


@canonical
def test_encode(data, values):
    assert amf3.encode(*values) == data


@vectors
def test_writtenIsReadAgain(data, values):
    assert isSame(amf3.decode(amf3.encode(*values)), values)


@vectors
def test_firstAlone(data, values):
    first, offset = amf3.decodeFirst(data)
    assert isSame(first, values[0])
    assert amf3.decodeFirst(data[:offset] + b"\xff") == (first, offset)
    assert (offset == len(data)) == (len(values) == 1)


@vectors
def test_truncated(data, values):
    # AMF3 values are cut or whole: what is read is the first so many of them.
    whole = 0
    for cut in range(len(data)):
        try:
            got = amf3.decode(data[:cut])
        except AMFError:
            continue
        assert isSame(got, values[: len(got)])
        whole += 1
    assert whole == len(values)  # after none of them, the first, ... but the last


@vectors
def test_copies(data, values):
    assert isSame(copy.deepcopy(values), values)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ("12", "unknown AMF3 marker 0x12"),
        ("ff", "unknown AMF3 marker 0xff"),
        ("0600", "string 0 of 0"),
        ("060361 0602", "string 1 of 1"),
        ("0601 0600", "string 0 of 0"),
        ("0a00", "object 0 of 0"),
        ("0900", "object 0 of 0"),
        ("0801 0000000000000000 0802", "object 1 of 1"),
        ("0a01", "traits 0 of 0"),
        ("0a0b0101 0a05", "traits 1 of 1"),
        ("0a13 01 01 01", "member without a name"),
        ("0a07 0361", "externalizable class 'a'"),
        ("0a07 01", "externalizable class ''"),
        ("04ffffff", "ends inside"),
        ("06ffffffff 61", "ends inside"),
        ("0bffffffff 61", "ends inside"),
        ("0cffffffff 61", "ends inside"),
        ("09ffffffff 01", "ends inside"),
        ("0d7f00 00000001", "ends inside"),
        ("0afffffff3 01", "ends inside"),
        ("11ffffffff 00", "ends inside"),
    ],
)
def test_malformed(data, match):
    with pytest.raises(AMFError, match=match):
        amf3.decode(hexed(data))


def test_nothing():
    assert amf3.decode(b"") == []
    assert amf3.encode() == b""
    with pytest.raises(AMFError):
        amf3.decodeFirst(b"")


@pytest.mark.parametrize("exponent", range(29))
def test_integers(exponent):
    for value in {
        sign * (1 << exponent) + off for sign in (1, -1) for off in (-1, 0, 1)
    }:
        data = amf3.encode(value)
        (got,) = amf3.decode(data)
        assert got == value
        if -(1 << 28) <= value < 1 << 28:
            assert data == b"\x04" + u29(value % (1 << 29))
        else:
            assert data == b"\x05" + struct.pack(">d", value)
        assert type(got) is float
        assert amf3.encode(got) == data


@pytest.mark.parametrize(
    "length", [0, 1, 63, 64, 8191, 8192, 65535, 65536, 1048575, 1048576]
)
def test_lengths(length):
    data = b"\x0c" + u29(length << 1 | 1) + bytes(length)
    assert amf3.encode(bytes(length)) == data
    assert amf3.decode(data) == [bytes(length)]


# -- values ----------------------------------------------------------------


def test_equality():
    assert ECMAArray({"a": 1}) == {"a": 1}
    assert ECMAArray({"a": 1}, dense=[1]) != {"a": 1}
    assert ECMAArray({"a": 1}, dense=[1]) == ECMAArray({"a": 1}, dense=[1])
    assert TypedObject("c", {"a": 1}) != {"a": 1}
    assert TypedObject("c", {"a": 1}) != TypedObject("d", {"a": 1})
    assert TypedObject("c", {"a": 1}) == TypedObject("c", {"a": 1})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (ECMAArray({"a": 1}), "ECMAArray({'a': 1})"),
        (ECMAArray({"a": 1}, dense=[2]), "ECMAArray({'a': 1}, dense=[2])"),
        (TypedObject("c", {"a": 1}), "TypedObject('c', {'a': 1})"),
        (Vector(VectorType.INT, [1]), "Vector(VectorType.INT, [1])"),
        (Dictionary([("a", 1)]), "Dictionary([('a', 1)])"),
    ],
)
def test_repr(value, shown):
    assert repr(value) == shown


# -- bounds ----------------------------------------------------------------

#: What opens one more level.
LEVELS = {
    "arrays": "090301",
    "arrays with names": "0901 0361",
    "objects": "0a0b01 0361",
    "sealed objects": "0a13 01 0361",
    "Vectors": "100300 01",
    "Dictionaries, in the value": "110300 01",
    "Dictionaries, in the key": "110300",
}


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_depth(level):
    level = hexed(level)
    # 32 are cut short only by the end of the bytes.
    with pytest.raises(AMFError, match="ends inside"):
        amf3.decode(level * 32)
    with pytest.raises(LimitError, match="deeper than 32"):
        amf3.decode(level * 33)
    for limits in (WireLimits(), WireLimits(amfDepth=10**9, amfValues=10**9)):
        with pytest.raises(LimitError, match="deeper"):
            amf3.decode(level * 200_000, limits)


def test_depthOfExternalizables():
    level = b"\x0a\x07" + ARRAY_COLLECTION
    again = b"\x0a\x01"  # by its traits
    assert amf3.decode(level + again * 31 + b"\x01") == [None]
    for levels in (33, 200_000):
        with pytest.raises(LimitError, match="deeper than 32"):
            amf3.decode(level + again * (levels - 1) + b"\x01")


@pytest.mark.parametrize(
    ("each", "head"),
    [
        ("01", "09{}01"),
        ("0401", "09{}01"),
        ("00000000", "0d{}00"),
        ("00000000", "0e{}00"),
        ("0000000000000000", "0f{}00"),
        ("01", "10{}00 01"),
    ],
)
def test_values(each, head):
    def data(length):
        counted = u29(length << 1 | 1).hex()
        return hexed(head.format(counted)) + hexed(each) * length

    assert len(amf3.decode(data(9_999))[0]) == 9_999
    with pytest.raises(LimitError) as caught:
        amf3.decode(data(10_000))
    assert (caught.value.limit, caught.value.got) == (10_000, 10_001)


def test_valuesOfAllVectors():
    vector = b"\x0d" + u29(5_000 << 1 | 1) + b"\x00" + bytes(4 * 5_000)
    assert amf3.decode(vector)
    with pytest.raises(LimitError):
        amf3.decode(vector * 2)
    with pytest.raises(LimitError):
        amf3.decode(vector + b"\x0d\x00")  # the same by reference


def test_valuesOfPairs():
    def dictionary(pairs):
        return b"\x11" + u29(pairs << 1 | 1) + b"\x00" + b"\x01\x01" * pairs

    assert len(amf3.decode(dictionary(4_999))[0]) == 4_999
    with pytest.raises(LimitError):
        amf3.decode(dictionary(5_000))


def test_valuesOfMembers():
    def sealed(members):
        names = b"\x03a" + b"\x00" * (members - 1)
        return b"\x0a" + u29(members << 4 | 3) + b"\x01" + names + b"\x01" * members

    assert amf3.decode(sealed(4_999)) == [{"a": None}]
    with pytest.raises(LimitError):
        amf3.decode(sealed(5_000))
    # The same by reference to the traits: a hundred values for two bytes.
    data = sealed(99) + (b"\x0a\x01" + b"\x01" * 99) * 49
    assert len(amf3.decode(data)) == 50
    with pytest.raises(LimitError):
        amf3.decode(data + b"\x0a\x01" + b"\x01" * 99)


def test_longNames():
    # What AMF0 could not write is not read.
    longest = "a" * MAX_NAME_LENGTH
    obj = b"\x0a\x0b\x01" + text(longest) + b"\x01\x01"
    assert amf3.decode(obj) == [{longest: None}]
    longer = longest + "a"
    for data in (
        b"\x0a\x0b\x01" + text(longer) + b"\x01\x01",
        b"\x0a\x0b" + text(longer) + b"\x01",
        b"\x0a\x13\x01" + text(longer) + b"\x01",
        b"\x09\x01" + text(longer) + b"\x01\x01",
        b"\x10\x01\x00" + text(longer),
        b"\x06" + text(longer) + b"\x0a\x0b\x01\x00\x01\x01",
    ):
        with pytest.raises(LimitError, match="name longer"):
            amf3.decode(data)


@pytest.mark.parametrize(
    "data",
    [
        "0a0b01 0361 0a00 01",
        "0a13 01 0361 0a00",
        "0901 0361 0900 01",
        "090301 0900",
        "090301 0a0b01 0361 0900 01",
        "100300 01 1000",
        "110300 01 1100",
        "110300 1100 01",
        # Whatever the marker says, the index decides.
        "090301 0800",
        "090301 0c00",
    ],
)
def test_loop(data):
    with pytest.raises(AMFError, match="contains itself"):
        amf3.decode(hexed(data))


def test_loopThroughAnExternalizable():
    with pytest.raises(AMFError, match="contains itself"):
        amf3.decode(b"\x0a\x07" + ARRAY_COLLECTION + b"\x0a\x00")


def test_referenceIsTheSameObject():
    value = amf3.decode(hexed("0907 01 0a0b0101 0a02 0a02"))[0]
    assert value[0] is value[1]
    assert value[1] is value[2]


def array(*items):
    return b"\x09" + u29(len(items) << 1 | 1) + b"\x01" + b"".join(items)


def reference(index):
    return b"\x09" + u29(index << 1)


def test_referencesDoNotMultiplyValues():
    def doubled(times):
        pairs = (array(reference(i), reference(i)) for i in range(1, times + 1))
        return array(array(), *pairs)

    for times in range(1, 12):
        (value,) = amf3.decode(doubled(times))
        values = unfolded(value)
        assert values <= 10_000
        assert amf3.decode(doubled(times), WireLimits(amfValues=values))
        with pytest.raises(LimitError):
            amf3.decode(doubled(times), WireLimits(amfValues=values - 1))
    for times in (12, 13, 20, 1000):
        with pytest.raises(LimitError, match="10000 AMF values"):
            amf3.decode(doubled(times))


def test_referencesDoNotNest():
    def chained(times):
        links = (array(reference(i)) for i in range(1, times + 1))
        return array(array(), *links)

    assert amf3.decode(chained(30))
    for times in (31, 100):
        with pytest.raises(LimitError, match="deeper than 32"):
            amf3.decode(chained(times))


MEBIBYTE = u29(MIB << 1 | 1) + bytes(MIB)


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"\x06" + MEBIBYTE, b"\x06\x00"),
        (b"\x07" + MEBIBYTE, b"\x07\x00"),
        (b"\x0b" + MEBIBYTE, b"\x0b\x00"),
        (b"\x0c" + MEBIBYTE, b"\x0c\x00"),
        (array(b"\x0c" + MEBIBYTE), b"\x09\x00"),
        (array(b"\x0c" + MEBIBYTE), b"\x0c\x02"),
        (b"\x0a\x0b\x01\x03a\x06" + MEBIBYTE + b"\x01", b"\x0a\x00"),
    ],
    ids=count(),
)
def test_referencesDoNotMultiplyBytes(first, again):
    values = amf3.decode(first + again * 6)
    assert len(values) == 7
    with pytest.raises(LimitError, match="stand for more than 8388608 bytes"):
        amf3.decode(first + again * 7)
    with pytest.raises(LimitError, match="stand for more"):
        amf3.decode(first + again * 5_000)
    assert amf3.decode(first + again * 7, WireLimits(messageSize=9 * MIB))


@pytest.mark.parametrize(
    ("first", "again"),
    [
        # A class of one member with a long name, and of a long name.
        (b"\x0a\x13\x01" + text("n" * 60_000) + b"\x01", b"\x0a\x01\x01"),
        (b"\x0a\x13" + text("c" * 60_000) + b"\x03a\x01", b"\x0a\x01\x01"),
        # A dynamic member's name.
        (
            b"\x0a\x0b\x01" + text("n" * 60_000) + b"\x01\x01",
            b"\x0a\x01\x00\x01\x01",
        ),
        # A Vector's class.
        (b"\x10\x01\x00" + text("c" * 60_000), b"\x10\x01\x00\x00"),
    ],
    ids=count(),
)
def test_referencesDoNotMultiplyNames(first, again):
    assert len(amf3.decode(first + again * 135)) == 136
    with pytest.raises(LimitError, match="stand for more"):
        amf3.decode(first + again * 140)


def test_referencesToReferencesDoNotMultiplyBytes():
    # 1 MiB; twice that; twice or three times that.
    data = array(b"\x0c" + MEBIBYTE) + array(reference(0), reference(0))
    values = amf3.decode(data + array(reference(2), reference(2)))
    assert len(amf3.encode(values)) < 8 * MIB
    with pytest.raises(LimitError, match="stand for more"):
        amf3.decode(data + array(*repeat(reference(2), 3)))


def test_traitsOfReferencesDoNotMultiplyNames():
    # A class of 9 members, whose names are one long string.
    long = b"\x06" + text("n" * 60_000)
    first = b"\x0a" + u29(9 << 4 | 3) + b"\x01" + b"\x00" * 9 + b"\x01" * 9
    again = b"\x0a\x01" + b"\x01" * 9
    assert amf3.decode(long + first + again * 14)
    with pytest.raises(LimitError, match="stand for more"):
        amf3.decode(long + first + again * 15)


def test_namesAreNotCollectedBeyondTheLimit():
    members = 2_000_000
    data = b"\x06\x03a\x0a" + u29(members << 4 | 3) + b"\x01" + bytes(members)
    data += b"\x01" * members
    tracemalloc.start()
    try:
        with pytest.raises(LimitError):
            amf3.decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000


SHAPES = {
    "wide array": lambda n: array(*repeat(b"\x04\x01", n)),
    "array with names": lambda n: b"\x09\x01" + b"\x03a\x01" * n + b"\x01",
    "objects": lambda n: b"\x0a\x0b\x01\x03a\x01\x01" * n,
    "references": lambda n: array(array(), *repeat(reference(1), n)),
    "strings": lambda n: (b"\x06" + text("a" * 100)) + b"\x06\x00" * n,
    "traits": lambda n: b"\x0a\x13\x01\x03a\x01" + b"\x0a\x01\x01" * n,
    "new traits": lambda n: b"\x0a\x13\x01\x03a\x01" * n,
    "sealed names": lambda n: (
        b"\x0a" + u29(n << 4 | 3) + b"\x01" + b"\x03a" * n + b"\x01" * n
    ),
    "Dictionary": lambda n: b"\x11" + u29(n << 1 | 1) + b"\x00" + b"\x01\x01" * n,
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_workIsLinear(shape):
    assertWorkIsLinear(amf3, shape)


# -- writing ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (Number.EIGHT, "0408"),
        (8.0, "0408"),
        (-8.5, "05c021000000000000"),
        (True, "03"),
        ((1, 2), "0905010401 0402"),
        (bytearray(b"a"), "0c0361"),
        (Date(0), "08010000000000000000"),
        (Date(0.0, 60), "08010000000000000000"),  # AMF3 has no time zone
    ],
    ids=count(),
)
def test_write(value, data):
    assert amf3.encode(value) == hexed(data)


def test_manyStrings():
    # References of more than one octet.
    strings = [f"s{i}" for i in range(300)] * 2
    data = amf3.encode(strings)
    assert amf3.decode(data) == [strings]
    assert data.endswith(b"\x06\x84\x56")  # string 299


def cyclic(make, add):
    value = make()
    add(value)
    return value


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (object, "no type for object"),
        (lambda: {1: 2}, "not a string"),
        (lambda: {"": 2}, "without a name"),
        (lambda: ECMAArray({"": 2}), "without a name"),
        (lambda: 10**400, "as a number"),
        (lambda: "\ud800", "cannot write this string"),
        (lambda: XML("\udfff"), "cannot write this string"),
        (lambda: Date("now"), "as a number"),
        (lambda: Vector(VectorType.INT, [2**31]), "not items"),
        (lambda: Vector(VectorType.UINT, [-1]), "not items"),
        (lambda: Vector(VectorType.INT, ["1"]), "not items"),
        (lambda: Vector(VectorType.DOUBLE, [10**400]), "not items"),
        (lambda: cyclic(list, lambda v: v.append(v)), "holds itself"),
        (lambda: cyclic(dict, lambda v: v.update(a=v)), "holds itself"),
        (lambda: cyclic(ECMAArray, lambda v: v.dense.append(v)), "holds itself"),
        (lambda: cyclic(Dictionary, lambda v: v.append((v, 1))), "holds itself"),
        (
            lambda: cyclic(lambda: Vector(VectorType.OBJECT), lambda v: v.append(v)),
            "holds itself",
        ),
        (lambda: bytes(MAX_MESSAGE_LENGTH), "larger"),
        (lambda: [bytes(MIB)] * 16, "larger"),
        (lambda: [XML("a" * MIB)] * 16, "larger"),
        (lambda: Vector(VectorType.DOUBLE, bytes(2**21)), "larger"),
    ],
    ids=count(),
)
def test_cannotWrite(make, match):
    with pytest.raises(UsageError, match=match):
        amf3.encode(make())


def test_writeDoesNotMultiply(monkeypatch):
    monkeypatch.setattr("twisted_rtmp.wire.amf3.MAX_MESSAGE_LENGTH", 10_000)
    with pytest.raises(UsageError, match="larger"):
        amf3.encode(doubledList())


# -- fuzzing ---------------------------------------------------------------

SEED = 20130100


def mutated(source, data):
    """C{data} with a few bytes changed, cut out, doubled or put in."""
    data = bytearray(data)
    for _ in range(source.randint(1, 3)):
        at = source.randrange(len(data) + 1)
        kind = source.randrange(4)
        if kind == 0:
            data[at : at + 1] = bytes([source.choice((source.randrange(256), 1, 0))])
        elif kind == 1:
            del data[at : at + source.randint(1, 4)]
        elif kind == 2:
            data[at:at] = data[at : at + source.randint(1, 20)]
        else:
            data[at:at] = bytes([source.randrange(0x12)])
    return bytes(data)


def test_fuzzMutations():
    source = random.Random(SEED)
    corpus = [data for data, values in VECTORS.values()]
    good = 0
    rounds = 40_000
    for index in range(rounds):
        data = mutated(source, b"".join(source.choices(corpus, k=source.randint(1, 3))))
        try:
            good += check(amf3, data)
        except Exception as error:
            raise AssertionError(f"seed {SEED}, {index}: {data.hex()}") from error
    assert rounds / 20 < good < rounds * 19 / 20  # both ways are walked


def test_fuzzMarkers():
    # Bytes that are mostly markers, references and small lengths.
    source = random.Random(SEED)
    alphabet = bytes(range(0x14)) * 3 + b"\x01\x03\x0b\x13\x02\x00" * 6 + b"a\xff"
    good = 0
    for index in range(20_000):
        data = bytes(source.choices(alphabet, k=source.randint(1, 30)))
        try:
            good += check(amf3, data)
        except Exception as error:
            raise AssertionError(f"seed {SEED}, {index}: {data.hex()}") from error
    assert good
