"""Metadata of a stream: the properties that C{onMetaData} gives it."""

from __future__ import annotations

from typing import Any

from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.errors import ProtocolError
from twisted_rtmp.wire.messages import Message

#: How C{onMetaData} begins, in AMF0.
METADATA_START = b"\x02\x00\x0aonMetaData"

_DATA: int = MessageType.DATA_AMF0


def isMetadata(message: Message) -> bool:
    """Tell whether a message is an C{onMetaData}."""
    return message.typeId == _DATA and message.payload.startswith(METADATA_START)


def propertiesOf(message: Message) -> dict[str, Any] | None:
    """
    Read the properties of an C{onMetaData}; those of a live stream's present metadata
    have been read already.

    @param message: one for which L{isMetadata} is true.
    @return: L{None} if they cannot be read, or are not an object.
    """
    values = message.values
    if values is None:
        try:
            values = amf0.decode(message.payload)
        except ProtocolError:
            return None
    if len(values) < 2 or not isinstance(values[1], dict):
        return None
    return values[1]
