"""
AMF0: the values of commands and metadata, to and from bytes.

    message  = *value
    value    = marker data
    object   = 0x03 *(name value) 0x0000 0x09        name = U16 length, UTF-8
    array    = 0x08 U32 *(name value) 0x0000 0x09    the U32 is only a hint

Imports the standard library and its own package's constants, errors, limits,
AMF values and AMF3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar, NoReturn

from twisted_rtmp.wire.amf3 import (
    DEFAULT_LIMITS,
    MAX_NAME_LENGTH,
    AMF3Reader,
    AMF3Writer,
    Shared,
    checkContainer,
    checkedName,
    checkSize,
    encodeDouble,
    encodeText,
)
from twisted_rtmp.wire.amfvalues import (
    XML,
    AMFValue,
    Date,
    Dictionary,
    ECMAArray,
    TypedObject,
    Undefined,
    Vector,
    XMLDocument,
)
from twisted_rtmp.wire.errors import AMFError, UsageError
from twisted_rtmp.wire.limits import WireLimits


class Marker:
    """
    Type markers.  AMF0, 2.1 and 3.1.

    Plain integers and no IntEnum, which would double the time to read one.
    """

    NUMBER = 0x00
    BOOLEAN = 0x01
    STRING = 0x02
    OBJECT = 0x03
    MOVIE_CLIP = 0x04
    NULL = 0x05
    UNDEFINED = 0x06
    REFERENCE = 0x07
    ECMA_ARRAY = 0x08
    OBJECT_END = 0x09
    STRICT_ARRAY = 0x0A
    DATE = 0x0B
    LONG_STRING = 0x0C
    UNSUPPORTED = 0x0D
    RECORD_SET = 0x0E
    XML_DOCUMENT = 0x0F
    TYPED_OBJECT = 0x10
    AVM_PLUS = 0x11


#: A string's or name's length is 16 bits; longer strings have a type of their
#: own.  AMF0, 2.4 and 2.14.
MAX_SHORT_LENGTH = 0xFFFF

#: An empty name and the marker.  AMF0, 2.11.
OBJECT_END = b"\x00\x00\x09"

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_DOUBLE = struct.Struct(">d")
_DATE = struct.Struct(">dh")
_SHORT_HEAD = struct.Struct(">BH")
_LONG_HEAD = struct.Struct(">BI")


def decode(data: bytes, limits: WireLimits = DEFAULT_LIMITS) -> list[Any]:
    """
    Read every value of a message's body.

    An ECMA array's count is not looked at, and objects and ECMA arrays may
    lack their end at the end of the message, since there are encoders that
    write both wrong.  Bytes that are no UTF-8, as in Latin-1 names, become
    surrogates and L{encode} writes them as they came.

    @raise AMFError: a value is malformed or runs past the end.
    @raise LimitError: there are too many values, too deeply nested, or their
        references stand for more than a message can hold.
    """
    reader = AMF0Reader(data, limits)
    read = reader.readAMF0
    end = len(data)
    values = []
    while reader.position < end:
        values.append(read())
    return values


def decodeFirst(data: bytes, limits: WireLimits = DEFAULT_LIMITS) -> tuple[Any, int]:
    """
    Read the first value of a message's body, such as a command's name.

    @return: the value and the offset behind it, in bytes.
    @raise AMFError: see L{decode}; also where C{data} is empty.
    @raise LimitError: see L{decode}.
    """
    reader = AMF0Reader(data, limits)
    return reader.readAMF0(), reader.position


def encode(*values: AMFValue) -> bytes:
    """
    Write values.

    What only AMF3 has (L{bytes}, L{Vector}, L{Dictionary}) is written in AMF3,
    behind the avmplus marker.  Nothing is written by reference.

    @raise UsageError: a value has no type in AMF, is nested too deeply or holds
        itself, or the result is larger than a message can be.
    """
    out = bytearray()
    for value in values:
        _write(out, value, 0)
    return checkSize(out)


# -- reading ---------------------------------------------------------------


class AMF0Reader(AMF3Reader):
    """
    Reads AMF0 values, and AMF3 ones where the message switches to them.

    One is used up by one message.

    @ivar switched: whether any value was an AMF3 one.
    """

    def __init__(self, data: bytes, limits: WireLimits = DEFAULT_LIMITS) -> None:
        super().__init__(data, limits)
        self.switched = False
        self._complex: list[Shared] = []

    def readAMF0(self) -> AMFValue:
        """
        Read the value at the position.

        @raise AMFError: it is malformed or runs past the end.
        @raise LimitError: it is too large, see L{decode}.
        """
        position = self.position
        if position >= self._end:
            raise self._cut()
        marker = self._data[position]
        self.position = position + 1
        self._values += 1
        if self._values > self._maxValues:
            raise self._tooMany(self._values)
        if marker > Marker.AVM_PLUS:
            self._refuse()
        return self._READERS0[marker](self)

    def _readNumber(self) -> float:
        return self._readDouble()

    def _readBoolean(self) -> bool:
        return self._data[self._take(1)] != 0

    def _readString(self) -> str:
        start = self._take(2)
        return self._readText(_U16.unpack_from(self._data, start)[0])

    def _readLength(self) -> int:
        length: int = _U32.unpack_from(self._data, self._take(4))[0]
        return length

    def _readLongString(self) -> str:
        return self._readText(self._readLength())

    def _readXMLDocument0(self) -> XMLDocument:
        return XMLDocument(self._readLongString())

    def _readDate0(self) -> Date:
        return Date(*_DATE.unpack_from(self._data, self._take(10)))

    def _readReference(self) -> AMFValue:
        """AMF0, 2.9."""
        return self._refer(
            self._complex, _U16.unpack_from(self._data, self._take(2))[0]
        )

    def _readObject0(self) -> dict[str, Any]:
        """AMF0, 2.5."""
        shared = self._enter(self._complex)
        value: dict[str, Any] = {}
        self._readProperties(value)
        self._leave(shared, value)
        return value

    def _readTypedObject(self) -> TypedObject:
        """AMF0, 2.18."""
        shared = self._enter(self._complex)
        value = TypedObject(self._readString())
        self._readProperties(value)
        self._leave(shared, value)
        return value

    def _readECMAArray(self) -> ECMAArray:
        """AMF0, 2.10; the count is wrong in too many encoders to be of use."""
        shared = self._enter(self._complex)
        self._take(4)
        value = ECMAArray()
        self._readProperties(value)
        self._leave(shared, value)
        return value

    def _readProperties(self, into: dict[str, Any]) -> None:
        """
        Read properties up to their end, or to that of the message.

        Only an empty name I{and} the end marker are the end: a property may
        have an empty name.
        """
        data = self._data
        end = self._end
        while self.position < end:
            name = self._readString()
            position = self.position
            if not name and position < end and data[position] == Marker.OBJECT_END:
                self.position = position + 1
                return
            self._dear += 1
            if self._dear > self._maxDear:
                self._countDear(0)
            into[name] = self.readAMF0()

    def _readStrictArray(self) -> list[Any]:
        """AMF0, 2.12."""
        shared = self._enter(self._complex)
        count = self._readLength()
        self._expect(count)
        value = []
        for _ in range(count):
            value.append(self.readAMF0())  # noqa: PERF401  one frame less a level
        self._leave(shared, value)
        return value

    def _readAVMPlus(self) -> AMFValue:
        """AMF0, 3.1."""
        self.switched = True
        return self.readAMF3()

    def _refuse(self) -> NoReturn:
        marker = self._data[self.position - 1]
        name = {
            Marker.MOVIE_CLIP: "the reserved type movieclip",
            Marker.RECORD_SET: "the reserved type recordset",
            Marker.OBJECT_END: "an end of an object that did not begin",
        }.get(marker, f"the unknown marker {marker:#04x}")
        raise AMFError(f"AMF0 data holds {name}", section="AMF0, 2.1", got=marker)

    #: By marker.
    _READERS0: ClassVar[tuple[Callable[[AMF0Reader], Any], ...]] = (
        _readNumber,
        _readBoolean,
        _readString,
        _readObject0,
        _refuse,
        AMF3Reader._readNull,
        AMF3Reader._readUndefined,
        _readReference,
        _readECMAArray,
        _refuse,
        _readStrictArray,
        _readDate0,
        _readLongString,
        AMF3Reader._readUndefined,
        _refuse,
        _readXMLDocument0,
        _readTypedObject,
        _readAVMPlus,
    )


#: Names of so many characters at most are kept as they are written, in memory.
_KNOWN_LENGTH = 32


# -- writing ---------------------------------------------------------------


def _write(out: bytearray, value: AMFValue, depth: int) -> None:
    """
    Write one value.

    @param depth: the containers around it.
    @raise UsageError: see L{encode}.
    """
    writer = _WRITERS.get(type(value))
    if writer is None:
        for kind in type(value).__mro__:
            writer = _WRITERS.get(kind)
            if writer is not None:
                break
        else:
            raise UsageError(f"AMF0 has no type for {type(value).__name__}")
    writer(out, value, depth)


def _writeUndefined(out: bytearray, value: Undefined, depth: int) -> None:
    out.append(Marker.UNDEFINED)


def _writeNull(out: bytearray, value: None, depth: int) -> None:
    out.append(Marker.NULL)


def _writeBoolean(out: bytearray, value: bool, depth: int) -> None:
    out += b"\x01\x01" if value else b"\x01\x00"


def _writeNumber(out: bytearray, value: float, depth: int) -> None:
    out.append(Marker.NUMBER)
    out += encodeDouble(value)


def _writeString(out: bytearray, value: str, depth: int) -> None:
    data = encodeText(out, value)
    if len(data) <= MAX_SHORT_LENGTH:
        out += _SHORT_HEAD.pack(Marker.STRING, len(data))
    else:
        out += _LONG_HEAD.pack(Marker.LONG_STRING, len(data))
    out += data


def _writeXMLDocument(out: bytearray, value: XMLDocument, depth: int) -> None:
    data = encodeText(out, value)
    out += _LONG_HEAD.pack(Marker.XML_DOCUMENT, len(data))
    out += data


def _writeDate(out: bytearray, value: Date, depth: int) -> None:
    try:
        data = _DATE.pack(value.milliseconds, value.timezone)
    except (struct.error, OverflowError) as error:
        raise UsageError(f"AMF0 cannot write {value}: {error}") from None
    out.append(Marker.DATE)
    out += data


@lru_cache(maxsize=256)
def _knownName(name: str) -> bytes:
    """Encode a short name; what is written has the same few names again and again."""
    data = encodeText(bytearray(), name)
    return _U16.pack(len(data)) + data


def _writeName(out: bytearray, name: AMFValue) -> None:
    if name.__class__ is str and len(name) <= _KNOWN_LENGTH:
        out += _knownName(name)
        return
    data = encodeText(out, checkedName(name))
    if len(data) > MAX_NAME_LENGTH:
        raise UsageError(f"an AMF0 name longer than {MAX_NAME_LENGTH} bytes")
    out += _U16.pack(len(data))
    out += data


def _writeProperties(out: bytearray, value: dict[str, Any], depth: int) -> None:
    depth += 1
    for name, item in value.items():
        _writeName(out, name)
        _write(out, item, depth)
    out += OBJECT_END


def _writeObject(out: bytearray, value: dict[str, Any], depth: int) -> None:
    checkContainer(out, depth)
    out.append(Marker.OBJECT)
    _writeProperties(out, value, depth)


def _writeTypedObject(out: bytearray, value: TypedObject, depth: int) -> None:
    checkContainer(out, depth)
    out.append(Marker.TYPED_OBJECT)
    _writeName(out, value.className)
    _writeProperties(out, value, depth)


def _writeECMAArray(out: bytearray, value: ECMAArray, depth: int) -> None:
    checkContainer(out, depth)
    out.append(Marker.ECMA_ARRAY)
    out += _U32.pack(len(value.dense) + len(value))
    for index, item in enumerate(value.dense):
        _writeName(out, str(index))
        _write(out, item, depth + 1)
    _writeProperties(out, value, depth)


def _writeStrictArray(
    out: bytearray, value: list[Any] | tuple[Any, ...], depth: int
) -> None:
    checkContainer(out, depth)
    out += _LONG_HEAD.pack(Marker.STRICT_ARRAY, len(value))
    depth += 1
    for item in value:
        _write(out, item, depth)


def _writeAMF3(out: bytearray, value: AMFValue, depth: int) -> None:
    """
    Write in AMF3.

    Without references: whether a message's AMF3 values have their tables in
    common (AMF3, 4.1) or each its own, peers do not agree.
    """
    out.append(Marker.AVM_PLUS)
    AMF3Writer(out, references=False).write(value, depth)


#: By type; a subclass is written as its nearest base class.
_WRITERS: dict[type, Callable[[bytearray, Any, int], None]] = {
    Undefined: _writeUndefined,
    type(None): _writeNull,
    bool: _writeBoolean,
    int: _writeNumber,
    float: _writeNumber,
    str: _writeString,
    XMLDocument: _writeXMLDocument,
    XML: _writeXMLDocument,
    Date: _writeDate,
    list: _writeStrictArray,
    tuple: _writeStrictArray,
    ECMAArray: _writeECMAArray,
    TypedObject: _writeTypedObject,
    dict: _writeObject,
    bytes: _writeAMF3,
    bytearray: _writeAMF3,
    Vector: _writeAMF3,
    Dictionary: _writeAMF3,
}
