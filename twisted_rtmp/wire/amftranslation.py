"""
AMF3 values in AMF0's terms: what publishers of either encoding send is to be read by
players of the other.

ffmpeg, librtmp and all else that reads FLV end at AMF0's avmplus marker.  Imports the
standard library and its own package's AMF, errors and limits.
"""

from __future__ import annotations

from base64 import b64encode

from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amf3 import DEFAULT_LIMITS, MAX_NAME_LENGTH
from twisted_rtmp.wire.amfvalues import (
    AMFValue,
    Dictionary,
    ECMAArray,
    TypedObject,
)
from twisted_rtmp.wire.errors import ProtocolError, UsageError
from twisted_rtmp.wire.limits import WireLimits

#: What a message may become in AMF0, in bytes, however small it was, and how many times
#: its size if it was larger.  AMF3 says a thing that comes again in two bytes, so that
#: a kilobyte can stand for megabytes, which would be sent to every player.  Numbers
#: become 4.5 times as large at most; metadata are some hundred bytes to some kB.
MAX_TRANSLATED_SIZE = 64 * 1024
MAX_GROWTH = 5

_MARKER = bytes((amf0.Marker.AVM_PLUS,))


def withoutAMF3(data: bytes, limits: WireLimits = DEFAULT_LIMITS) -> bytes:
    """
    Write a message's values in AMF0 alone.

    A ByteArray becomes a string of Base64, as Flash Media Server's C{onCaptionInfo}
    has binary captions; a Vector an array; a Dictionary an object if its keys are
    strings and numbers, else an array of pairs; XML an XMLDocument.

    @param data: the body of a data message.
    @return: C{data} itself where it holds no AMF3 value, and where it cannot be
        translated: it is malformed, or would be larger than L{MAX_TRANSLATED_SIZE}
        and L{MAX_GROWTH} allow.
    """
    return inAMF0(data, limits)[0]


def inAMF0(
    data: bytes, limits: WireLimits = DEFAULT_LIMITS
) -> tuple[bytes, list[AMFValue] | None]:
    """
    Do as L{withoutAMF3}, and keep what was read.

    @return: also the values, where they had to be read and are those of what is
        returned: they need not be read again.
    """
    if _MARKER not in data:
        return data, None
    reader = amf0.AMF0Reader(data, limits)
    values = []
    try:
        while reader.position < len(data):
            values.append(reader.readAMF0())
        if not reader.switched:
            return data, values
        translated = amf0.encode(*map(_translated, values))
    except (ProtocolError, UsageError):
        return data, None
    if len(translated) > max(MAX_TRANSLATED_SIZE, MAX_GROWTH * len(data)):
        return data, None
    return translated, None


def _translated(value: AMFValue) -> AMFValue:
    """A value without what only AMF3 has."""
    if isinstance(value, (bytes, bytearray)):
        return b64encode(value).decode("ascii")
    if isinstance(value, Dictionary):
        return _ofDictionary(value)
    if isinstance(value, list):  # a Vector is one, too
        return [_translated(item) for item in value]
    if isinstance(value, dict):
        items = {name: _translated(item) for name, item in value.items()}
        if isinstance(value, ECMAArray):
            return ECMAArray(items, dense=[_translated(item) for item in value.dense])
        if isinstance(value, TypedObject):
            return TypedObject(value.className, items)
        return items
    return value


def _ofDictionary(dictionary: Dictionary) -> AMFValue:
    names = [_nameOf(key) for key, _ in dictionary]
    if None in names or len(set(names)) < len(names):
        return [[_translated(key), _translated(item)] for key, item in dictionary]
    return {
        name: _translated(item)
        for name, (_, item) in zip(names, dictionary, strict=True)
    }


def _nameOf(key: AMFValue) -> str | None:
    """A key as ActionScript spells it, if it can be a property's name in AMF0."""
    if isinstance(key, str):
        size = len(key.encode("utf-8", "surrogateescape"))
        return key if 0 < size <= MAX_NAME_LENGTH else None
    if isinstance(key, float):
        return str(int(key)) if key.is_integer() else repr(key)
    return None
