"""
AMF3: the values behind AMF0's avmplus marker, to and from bytes.

Here too is what bounds the reading of both versions, since an AMF0 message may
switch to AMF3 for any of its values.  Imports the standard library and its
own package's constants, errors, limits and AMF values.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any, ClassVar

from twisted_rtmp.wire.amfvalues import (
    UNDEFINED,
    XML,
    AMFValue,
    Date,
    Dictionary,
    ECMAArray,
    TypedObject,
    Undefined,
    Vector,
    VectorType,
    XMLDocument,
)
from twisted_rtmp.wire.constants import MAX_MESSAGE_LENGTH
from twisted_rtmp.wire.errors import AMFError, LimitError, UsageError
from twisted_rtmp.wire.limits import WireLimits

#: The deepest nesting that C{WireLimits.amfDepth} can be set to, and that can
#: be written.  Reading and writing recurse, three frames a level, and Python
#: allows 1000 frames, of which the reactor and the caller need some.
DEPTH_CEILING = 128

#: Bytes of a name of a property or class.  An AMF0 name has a 16-bit length
#: (AMF0, 1.3.1); AMF3 would allow 256 MB, but what was read must be writable.
MAX_NAME_LENGTH = 0xFFFF

#: Externalizable classes whose contents are known: each wraps one value.
#: They are Flex's, and what Flash applications send lists and maps in.
TRANSPARENT_CLASSES = frozenset(
    {
        "flex.messaging.io.ArrayCollection",
        "flex.messaging.io.ArrayList",
        "flex.messaging.io.ObjectProxy",
    }
)

#: Integers are 29 bits signed; others are written as doubles.  AMF3, 3.6.
MIN_INTEGER = -(1 << 28)
MAX_INTEGER = (1 << 28) - 1

#: A length or count shares its U29 with one flag.  AMF3, 1.3.2.
MAX_LENGTH = (1 << 28) - 1

#: What a message may hold where the caller names no limits.
DEFAULT_LIMITS = WireLimits()

_DOUBLE = struct.Struct(">d")
_VECTOR_FORMATS = {VectorType.INT: "i", VectorType.UINT: "I", VectorType.DOUBLE: "d"}


class Marker:
    """Type markers.  AMF3, 3.1."""

    UNDEFINED = 0x00
    NULL = 0x01
    FALSE = 0x02
    TRUE = 0x03
    INTEGER = 0x04
    DOUBLE = 0x05
    STRING = 0x06
    XML_DOCUMENT = 0x07
    DATE = 0x08
    ARRAY = 0x09
    OBJECT = 0x0A
    XML = 0x0B
    BYTE_ARRAY = 0x0C
    VECTOR_INT = 0x0D
    VECTOR_UINT = 0x0E
    VECTOR_DOUBLE = 0x0F
    VECTOR_OBJECT = 0x10
    DICTIONARY = 0x11


def decode(data: bytes, limits: WireLimits = DEFAULT_LIMITS) -> list[Any]:
    """
    Read every value of C{data}; they share their reference tables.

    @raise AMFError: a value is malformed or runs past the end.
    @raise LimitError: there are too many values, too deeply nested, or their
        references stand for more than a message can hold.
    """
    reader = AMF3Reader(data, limits)
    values = []
    while reader.position < len(data):
        values.append(reader.readAMF3())
    return values


def decodeFirst(data: bytes, limits: WireLimits = DEFAULT_LIMITS) -> tuple[Any, int]:
    """
    Read the first value of C{data}.

    @return: the value and the offset behind it, in bytes.
    @raise AMFError: see L{decode}.
    @raise LimitError: see L{decode}.
    """
    reader = AMF3Reader(data, limits)
    return reader.readAMF3(), reader.position


def encode(*values: AMFValue) -> bytes:
    """
    Write values, which share their reference tables.

    @raise UsageError: a value has no AMF3 type, is nested too deeply or holds
        itself, or the result is larger than a message can be.
    """
    writer = AMF3Writer(bytearray())
    for value in values:
        writer.write(value, 0)
    return checkSize(writer.out)


# -- reading ---------------------------------------------------------------


class Shared:
    """
    A complex value that later references may name, and what it costs.

    @ivar values: how many values it is, with references counted as what they
        name; before it L{finished<finished>}, the count when it began.
    @ivar size: its bytes, likewise.
    @ivar height: the levels of containers in it, itself counted.
    """

    __slots__ = ("finished", "height", "outerDeepest", "size", "value", "values")

    def __init__(self, values: int, size: int, outerDeepest: int) -> None:
        self.value: AMFValue = None
        self.values = values
        self.size = size
        self.height = 0
        self.outerDeepest = outerDeepest
        self.finished = False


class Traits:
    """
    The properties that a class gives its objects.  AMF3, 3.12.

    @ivar size: bytes of its names, which each object of it stands for again.
    """

    __slots__ = ("className", "dynamic", "externalizable", "names", "size")

    def __init__(self, className: str, dynamic: bool, externalizable: bool) -> None:
        self.className = className
        self.dynamic = dynamic
        self.externalizable = externalizable
        self.names: list[str] = []
        self.size = 0


class BoundedReader:
    """
    A position in a message, and the bounds on what is made of it.

    A reference gives the very object it names, so that reading stays linear
    in the message's bytes.  But whoever prints, compares or writes such a
    value walks it as the tree it stands for, and twenty nested pairs of
    references stand for a million values.  So a reference is charged, in
    values, depth and bytes, for what it names; and one to a container that
    is still open, which makes a loop, is refused.  Hence whatever was read
    is a finite tree within the limits, and anyone may walk it.

    @ivar position: the offset of the next byte.
    """

    def __init__(self, data: bytes, limits: WireLimits) -> None:
        self._data = data
        self._end = len(data)
        self.position = 0
        self._maxDepth = min(limits.amfDepth, DEPTH_CEILING)
        self._maxValues = limits.amfValues
        self._maxSize = limits.messageSize
        self._values = 0
        # Properties and containers.
        self._dear = 0
        self._maxDear = limits.dearValues
        self._referred = 0  # bytes that references stand for
        self._depth = 0
        self._deepest = 0

    def _take(self, length: int) -> int:
        """Pass over C{length} bytes, and return where they start."""
        start = self.position
        if length > self._end - start:
            raise self._cut(length)
        self.position = start + length
        return start

    def _cut(self, length: int = 1) -> AMFError:
        return AMFError(
            f"the AMF data ends inside a value, at byte {self._end}",
            limit=self._end - self.position,
            got=length,
        )

    def _expect(self, count: int, size: int = 1) -> None:
        """
        Check a declared count before anything is made for it.

        @param count: of values that follow.
        @param size: the least bytes each has.
        """
        if count * size > self._end - self.position:
            raise self._cut(count * size)
        if self._values + count > self._maxValues:
            raise self._tooMany(self._values + count)

    def _tooMany(self, values: int) -> LimitError:
        return LimitError(
            f"more than {self._maxValues} AMF values in a message",
            limit=self._maxValues,
            got=values,
        )

    def _countDear(self, count: int = 1) -> None:
        """Count properties or a container, which take longer than other values."""
        self._dear += count
        if self._dear > self._maxDear:
            raise LimitError(
                f"more than {self._maxDear} properties and containers in a message",
                limit=self._maxDear,
                got=self._dear,
            )

    def _tooDeep(self, depth: int) -> LimitError:
        return LimitError(
            f"AMF values nested deeper than {self._maxDepth}",
            limit=self._maxDepth,
            got=depth,
        )

    def _enter(self, table: list[Shared]) -> Shared:
        """Begin a container, of which the marker or the whole head has been read."""
        self._depth += 1
        if self._depth > self._maxDepth:
            raise self._tooDeep(self._depth)
        self._countDear()
        # The marker and a count, at most 5 octets, are behind the position.
        size = self.position - 5 + self._referred
        shared = Shared(self._values - 1, size, self._deepest)
        self._deepest = self._depth
        table.append(shared)
        return shared

    def _leave(self, shared: Shared, value: AMFValue) -> None:
        """End a container, all of which has been read."""
        self._depth -= 1
        shared.value = value
        shared.values = self._values - shared.values
        shared.size = self.position + self._referred - shared.size
        shared.height = self._deepest - self._depth
        shared.finished = True
        if shared.outerDeepest > self._deepest:
            self._deepest = shared.outerDeepest

    def _refer(self, table: list[Shared], index: int) -> AMFValue:
        """Follow a reference, which itself has been counted as a value."""
        if index >= len(table):
            raise AMFError(
                f"reference to AMF object {index} of {len(table)}",
                section="AMF0, 2.9; AMF3, 2.2",
                limit=len(table) - 1,
                got=index,
            )
        shared = table[index]
        if not shared.finished:
            raise AMFError(
                f"AMF object {index} contains itself", section="AMF0, 2.9; AMF3, 2.2"
            )
        self._values += shared.values - 1
        if self._values > self._maxValues:
            raise self._tooMany(self._values)
        depth = self._depth + shared.height
        if depth > self._maxDepth:
            raise self._tooDeep(depth)
        if depth > self._deepest:
            self._deepest = depth
        self._charge(shared.size)
        return shared.value

    def _charge(self, size: int) -> None:
        """Account for C{size} bytes that are here by reference only."""
        self._referred += size
        if self._end + self._referred > self._maxSize:
            raise LimitError(
                f"AMF references stand for more than {self._maxSize} bytes",
                limit=self._maxSize,
                got=self._end + self._referred,
            )


class AMF3Reader(BoundedReader):
    """
    Reads AMF3 values.

    One is used up by one message: for all AMF3 values of a message the
    reference tables are the same.  AMF3, 4.1; so do BlazeDS and Red5.
    """

    def __init__(self, data: bytes, limits: WireLimits = DEFAULT_LIMITS) -> None:
        super().__init__(data, limits)
        self._strings: list[tuple[str, int]] = []
        self._objects: list[Shared] = []
        self._traits: list[Traits] = []

    def readAMF3(self) -> AMFValue:
        """
        Read the value at the position.

        @raise AMFError: it is malformed or runs past the end.
        @raise LimitError: it is too large, see L{decode}.
        """
        marker = self._data[self._take(1)]
        self._values += 1
        if self._values > self._maxValues:
            raise self._tooMany(self._values)
        if marker > Marker.DICTIONARY:
            raise AMFError(
                f"unknown AMF3 marker {marker:#04x}", section="AMF3, 3.1", got=marker
            )
        return self._READERS3[marker](self)

    def _readU29(self) -> int:
        """AMF3, 1.3.1: up to 3 octets of 7 bits, then one of 8."""
        data = self._data
        position = self.position
        value = 0
        try:
            for _ in range(3):
                octet = data[position]
                position += 1
                if octet < 0x80:
                    self.position = position
                    return value << 7 | octet
                value = value << 7 | octet & 0x7F
            value = value << 8 | data[position]
        except IndexError:
            raise self._cut() from None
        self.position = position + 1
        return value

    def _readText(self, length: int) -> str:
        start = self._take(length)
        return str(self._data[start : self.position], "utf-8", "surrogateescape")

    def _readDouble(self) -> float:
        value: float = _DOUBLE.unpack_from(self._data, self._take(8))[0]
        return value

    def _readUTF8(self, longest: int = MAX_LENGTH) -> str:
        """
        AMF3, 1.3.2: a string or a reference to one.

        @param longest: the most bytes it may have.
        """
        head = self._readU29()
        length = head >> 1
        if head & 1:
            self._checkLength(length, longest)
            text = self._readText(length)
            if length:  # the empty string is never in the table
                self._strings.append((text, length))
            return text
        if length >= len(self._strings):
            raise AMFError(
                f"reference to AMF3 string {length} of {len(self._strings)}",
                section="AMF3, 1.3.2",
                limit=len(self._strings) - 1,
                got=length,
            )
        text, size = self._strings[length]
        self._checkLength(size, longest)
        self._charge(size)
        return text

    def _checkLength(self, length: int, longest: int) -> None:
        if length > longest:
            raise LimitError(
                f"an AMF3 name longer than {longest} bytes", limit=longest, got=length
            )

    def _readName(self) -> str:
        return self._readUTF8(MAX_NAME_LENGTH)

    def _readUndefined(self) -> Undefined:
        return UNDEFINED

    def _readNull(self) -> None:
        return None

    def _readFalse(self) -> bool:
        return False

    def _readTrue(self) -> bool:
        return True

    def _readInteger(self) -> float:
        """AMF3, 3.6; a float as all numbers are, so that callers need no two types."""
        value = self._readU29()
        return float(value - (1 << 29) if value > MAX_INTEGER else value)

    def _readLeaf(self, read: Callable[[int], Any]) -> AMFValue:
        """
        A value by reference, or one that holds no others.

        @param read: makes the value of what shares the U29 with the flag.
        """
        start = self.position - 1
        head = self._readU29()
        if not head & 1:
            return self._refer(self._objects, head >> 1)
        shared = Shared(1, start, 0)
        self._objects.append(shared)
        shared.value = read(head >> 1)
        shared.size = self.position - start
        shared.finished = True
        return shared.value

    def _readXMLDocument(self) -> AMFValue:
        return self._readLeaf(lambda length: XMLDocument(self._readText(length)))

    def _readXML(self) -> AMFValue:
        return self._readLeaf(lambda length: XML(self._readText(length)))

    def _readDate(self) -> AMFValue:
        return self._readLeaf(lambda unused: Date(self._readDouble()))

    def _readByteArray(self) -> AMFValue:
        return self._readLeaf(self._readBytes)

    def _readBytes(self, length: int) -> bytes:
        start = self._take(length)
        return bytes(self._data[start : self.position])

    def _readArray(self) -> AMFValue:
        """AMF3, 3.11."""
        head = self._readU29()
        if not head & 1:
            return self._refer(self._objects, head >> 1)
        self._expect(head >> 1)
        shared = self._enter(self._objects)
        named: dict[str, Any] = {}
        while name := self._readName():
            self._countDear()
            named[name] = self.readAMF3()
        self._expect(head >> 1)
        dense = []
        for _ in range(head >> 1):
            dense.append(self.readAMF3())  # noqa: PERF401  one frame less a level
        value = ECMAArray(named, dense=dense) if named else dense
        self._leave(shared, value)
        return value

    def _readObject(self) -> AMFValue:
        """AMF3, 3.12."""
        head = self._readU29()
        if not head & 1:
            return self._refer(self._objects, head >> 1)
        shared = self._enter(self._objects)
        traits = self._readTraits(head)
        value: Any
        if traits.externalizable:
            value = self.readAMF3()
        else:
            name = traits.className
            value = TypedObject(name) if name else {}
            self._expect(len(traits.names))
            self._countDear(len(traits.names))
            for name in traits.names:
                value[name] = self.readAMF3()
            while traits.dynamic and (name := self._readName()):
                self._countDear()
                value[name] = self.readAMF3()
        self._leave(shared, value)
        return value

    def _readTraits(self, head: int) -> Traits:
        """
        The traits of an object.

        @param head: the object's U29, of which the lowest bit is 1.
        """
        if not head & 2:
            index = head >> 2
            if index >= len(self._traits):
                raise AMFError(
                    f"reference to AMF3 traits {index} of {len(self._traits)}",
                    section="AMF3, 3.12",
                    limit=len(self._traits) - 1,
                    got=index,
                )
            self._charge(self._traits[index].size)
            return self._traits[index]
        count = 0 if head & 4 else head >> 4
        self._expect(count, 2)  # a name and a value each
        start = self.position + self._referred
        traits = Traits(self._readName(), bool(head & 8), bool(head & 4))
        if traits.externalizable and traits.className not in TRANSPARENT_CLASSES:
            # Nobody can know where it ends.
            raise AMFError(
                f"AMF3 object of the externalizable class {traits.className[:80]!r}",
                section="AMF3, 3.12",
            )
        self._traits.append(traits)
        for _ in range(count):
            name = self._readName()
            if not name:
                raise AMFError("AMF3 member without a name", section="AMF3, 3.12")
            traits.names.append(name)
        traits.size = self.position + self._referred - start
        return traits

    def _readVector(self, kind: VectorType) -> AMFValue:
        """AMF3, 3.15."""
        head = self._readU29()
        if not head & 1:
            return self._refer(self._objects, head >> 1)
        count = head >> 1
        shared = self._enter(self._objects)
        value = Vector(kind, fixed=self._data[self._take(1)] != 0)
        if kind is VectorType.OBJECT:
            value.className = self._readName()
            self._expect(count)
            for _ in range(count):
                value.append(self.readAMF3())
        else:
            code = _VECTOR_FORMATS[kind]
            size = struct.calcsize(">" + code)
            self._expect(count, size)
            self._values += count
            start = self._take(count * size)
            value.extend(struct.unpack_from(f">{count}{code}", self._data, start))
        self._leave(shared, value)
        return value

    def _readVectorInt(self) -> AMFValue:
        return self._readVector(VectorType.INT)

    def _readVectorUInt(self) -> AMFValue:
        return self._readVector(VectorType.UINT)

    def _readVectorDouble(self) -> AMFValue:
        return self._readVector(VectorType.DOUBLE)

    def _readVectorObject(self) -> AMFValue:
        return self._readVector(VectorType.OBJECT)

    def _readDictionary(self) -> AMFValue:
        """AMF3, 3.16."""
        head = self._readU29()
        if not head & 1:
            return self._refer(self._objects, head >> 1)
        count = head >> 1
        shared = self._enter(self._objects)
        value = Dictionary(weakKeys=self._data[self._take(1)] != 0)
        self._expect(2 * count)
        for _ in range(count):
            key = self.readAMF3()
            value.append((key, self.readAMF3()))
        self._leave(shared, value)
        return value

    #: By marker.
    _READERS3: ClassVar[tuple[Callable[[AMF3Reader], Any], ...]] = (
        _readUndefined,
        _readNull,
        _readFalse,
        _readTrue,
        _readInteger,
        _readDouble,
        _readUTF8,
        _readXMLDocument,
        _readDate,
        _readArray,
        _readObject,
        _readXML,
        _readByteArray,
        _readVectorInt,
        _readVectorUInt,
        _readVectorDouble,
        _readVectorObject,
        _readDictionary,
    )


# -- writing ---------------------------------------------------------------


def checkSize(out: bytearray) -> bytes:
    """
    Finish what has been written.

    @raise UsageError: it is larger than a message can be.
    """
    if len(out) > MAX_MESSAGE_LENGTH:
        raise UsageError(f"AMF data larger than {MAX_MESSAGE_LENGTH} bytes")
    return bytes(out)


def checkContainer(out: bytearray, depth: int) -> None:
    """
    Check, before a container is written, that it can be.

    @param depth: the containers around it.
    @raise UsageError: it is nested too deeply, as a container that holds
        itself is, or too much has been written, as of one that holds another
        twice, which holds another twice, and so on.
    """
    if depth >= DEPTH_CEILING:
        raise UsageError(
            f"AMF values nested deeper than {DEPTH_CEILING}, or one holds itself"
        )
    if len(out) > MAX_MESSAGE_LENGTH:
        raise UsageError(f"AMF data larger than {MAX_MESSAGE_LENGTH} bytes")


def encodeText(out: bytearray, text: str) -> bytes:
    """
    A string's bytes, with those that were no UTF-8 as they came.

    @param out: what they will be written to.
    @raise UsageError: it has surrogates, or is larger than a message can be.
    """
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise UsageError(f"AMF cannot write this string: {error.reason}") from None
    if len(data) > 255 and len(out) + len(data) > MAX_MESSAGE_LENGTH:
        raise UsageError(f"AMF data larger than {MAX_MESSAGE_LENGTH} bytes")
    return data


def encodeDouble(value: float) -> bytes:
    """
    A number's 8 bytes.

    @raise UsageError: it is no number, or beyond what a double can hold.
    """
    try:
        return _DOUBLE.pack(value)
    except (struct.error, OverflowError):
        raise UsageError("AMF cannot write this as a number") from None


def checkedName(name: AMFValue) -> str:
    """
    A property's name.

    @raise UsageError: it is no string.
    """
    if not isinstance(name, str):
        raise UsageError(f"the AMF property name {name!r} is not a string")
    return name


class AMF3Writer:
    """
    Writes AMF3 values.

    Strings are written by reference when they come again; objects and traits
    never are, which every reader takes.

    @ivar out: what has been written.
    """

    def __init__(self, out: bytearray, references: bool = True) -> None:
        """
        @param out: where to write.
        @param references: whether strings may be written by reference.
        """
        self.out = out
        self._strings: dict[bytes, int] | None = {} if references else None

    def write(self, value: AMFValue, depth: int) -> None:
        """
        Write one value.

        @param depth: the containers around it.
        @raise UsageError: see L{encode}.
        """
        for kind in type(value).__mro__:
            writer = self._WRITERS.get(kind)
            if writer is not None:
                writer(self, value, depth)
                return
        raise UsageError(f"AMF3 has no type for {type(value).__name__}")

    def _writeU29(self, value: int) -> None:
        """AMF3, 1.3.1."""
        if value < 0x80:
            self.out.append(value)
        elif value < 0x4000:
            self.out += bytes((value >> 7 | 0x80, value & 0x7F))
        elif value < 0x200000:
            self.out += bytes(
                (value >> 14 | 0x80, value >> 7 & 0x7F | 0x80, value & 0x7F)
            )
        else:
            self.out += bytes(
                (
                    value >> 22 | 0x80,
                    value >> 15 & 0x7F | 0x80,
                    value >> 8 & 0x7F | 0x80,
                    value & 0xFF,
                )
            )

    def _writeLength(self, length: int) -> None:
        if length > MAX_LENGTH:
            raise UsageError(f"AMF3 counts to {MAX_LENGTH}, not to {length}")
        self._writeU29(length << 1 | 1)

    def _writeData(self, data: bytes) -> None:
        if len(self.out) + len(data) > MAX_MESSAGE_LENGTH:
            raise UsageError(f"AMF data larger than {MAX_MESSAGE_LENGTH} bytes")
        self._writeLength(len(data))
        self.out += data

    def _writeUTF8(self, text: str) -> None:
        """AMF3, 1.3.2."""
        data = encodeText(self.out, text)
        if data and self._strings is not None:
            index = self._strings.get(data)
            if index is not None:
                self._writeU29(index << 1)
                return
            self._strings[data] = len(self._strings)
        self._writeLength(len(data))
        self.out += data

    def _writeName(self, name: AMFValue) -> None:
        if not checkedName(name):
            raise UsageError("AMF3 has no property without a name")
        self._writeUTF8(name)

    def _writeUndefined(self, value: Undefined, depth: int) -> None:
        self.out.append(Marker.UNDEFINED)

    def _writeNull(self, value: None, depth: int) -> None:
        self.out.append(Marker.NULL)

    def _writeBoolean(self, value: bool, depth: int) -> None:
        self.out.append(Marker.TRUE if value else Marker.FALSE)

    def _writeNumber(self, value: float, depth: int) -> None:
        """
        AMF3, 3.6 and 3.7.

        ActionScript too takes the shorter form by the value, not by the type.
        """
        if (
            MIN_INTEGER <= value <= MAX_INTEGER
            and value == int(value)
            and (value or math.copysign(1.0, value) > 0)  # -0.0 is a double
        ):
            self.out.append(Marker.INTEGER)
            self._writeU29(int(value) & 0x1FFFFFFF)
            return
        self.out.append(Marker.DOUBLE)
        self.out += encodeDouble(value)

    def _writeString(self, value: str, depth: int) -> None:
        self.out.append(Marker.STRING)
        self._writeUTF8(value)

    def _writeXMLDocument(self, value: XMLDocument, depth: int) -> None:
        self.out.append(Marker.XML_DOCUMENT)
        self._writeData(encodeText(self.out, value))

    def _writeXML(self, value: XML, depth: int) -> None:
        self.out.append(Marker.XML)
        self._writeData(encodeText(self.out, value))

    def _writeDate(self, value: Date, depth: int) -> None:
        self.out += bytes((Marker.DATE, 1))
        self.out += encodeDouble(value.milliseconds)

    def _writeByteArray(self, value: bytes, depth: int) -> None:
        self.out.append(Marker.BYTE_ARRAY)
        self._writeData(value)

    def _writeArray(self, value: list[Any] | tuple[Any, ...], depth: int) -> None:
        self._writeArrayOf({}, value, depth)

    def _writeECMAArray(self, value: ECMAArray, depth: int) -> None:
        self._writeArrayOf(value, value.dense, depth)

    def _writeArrayOf(
        self, named: dict[str, Any], dense: list[Any] | tuple[Any, ...], depth: int
    ) -> None:
        checkContainer(self.out, depth)
        self.out.append(Marker.ARRAY)
        self._writeLength(len(dense))
        self._writeMembers(named, depth)
        for item in dense:
            self.write(item, depth + 1)

    def _writeMembers(self, members: dict[str, Any], depth: int) -> None:
        """Names and values, and the empty name that ends them."""
        for name, item in members.items():
            self._writeName(name)
            self.write(item, depth + 1)
        self.out.append(1)

    def _writeObject(self, value: dict[str, Any], depth: int) -> None:
        """AMF3, 3.12: all members are dynamic ones."""
        checkContainer(self.out, depth)
        self.out += bytes((Marker.OBJECT, 0b1011))
        self._writeUTF8(value.className if isinstance(value, TypedObject) else "")
        self._writeMembers(value, depth)

    def _writeVector(self, value: Vector, depth: int) -> None:
        checkContainer(self.out, depth)
        self.out.append(value.type.value)
        self._writeLength(len(value))
        self.out.append(1 if value.fixed else 0)
        if value.type is VectorType.OBJECT:
            self._writeUTF8(value.className)
            for item in value:
                self.write(item, depth + 1)
            return
        code = _VECTOR_FORMATS[value.type]
        try:
            self.out += struct.pack(f">{len(value)}{code}", *value)
        except (struct.error, OverflowError) as error:
            raise UsageError(f"not items of a {value.type}: {error}") from None

    def _writeDictionary(self, value: Dictionary, depth: int) -> None:
        checkContainer(self.out, depth)
        self.out.append(Marker.DICTIONARY)
        self._writeLength(len(value))
        self.out.append(1 if value.weakKeys else 0)
        for key, item in value:
            self.write(key, depth + 1)
            self.write(item, depth + 1)

    #: By type; a subclass is written as its nearest base class.
    _WRITERS: ClassVar[dict[type, Callable[[AMF3Writer, Any, int], None]]] = {
        Undefined: _writeUndefined,
        type(None): _writeNull,
        bool: _writeBoolean,
        int: _writeNumber,
        float: _writeNumber,
        str: _writeString,
        XMLDocument: _writeXMLDocument,
        XML: _writeXML,
        Date: _writeDate,
        bytes: _writeByteArray,
        bytearray: _writeByteArray,
        list: _writeArray,
        tuple: _writeArray,
        ECMAArray: _writeECMAArray,
        dict: _writeObject,
        Vector: _writeVector,
        Dictionary: _writeDictionary,
    }
