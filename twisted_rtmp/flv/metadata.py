"""C{onMetaData}: what an encoder says of its stream, and what a file keeps of that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import ECMAArray
from twisted_rtmp.wire.constants import TagType
from twisted_rtmp.wire.errors import ProtocolError, UsageError
from twisted_rtmp.wire.messages import Message

#: The encoder's own metadata that the head of a file can hold, in bytes.  ffmpeg's has
#: 400, OBS' 600, one with maps of tracks 2,000.
METADATA_BYTES = 8192

#: The property of a file's C{onMetaData} that takes up the space which is left.
SPACE = "reservedSpace"

_METADATA = b"\x02\x00\x0aonMetaData"

#: Properties that the writer of a file sets: what an encoder says of them is about
#: another file, or a guess before the end.
_FILE_FACTS = frozenset(
    (
        "duration",
        "filesize",
        "lasttimestamp",
        "lastkeyframetimestamp",
        "lastkeyframelocation",
        "videosize",
        "audiosize",
        "datasize",
        "hasVideo",
        "hasAudio",
        "hasKeyframes",
        "hasMetadata",
        "canSeekToEnd",
        "keyframes",
    )
)


def isMetadata(message: Message) -> bool:
    """Tell whether a message is an C{onMetaData}."""
    return message.typeId == TagType.SCRIPT_DATA and message.payload.startswith(
        _METADATA
    )


def decodeMetadata(payload: bytes) -> dict[str, Any] | None:
    """
    Read the properties of an C{onMetaData}.

    @param payload: of a message for which L{isMetadata} is true.
    @return: L{None} if they cannot be read, or are not an object.
    """
    try:
        values = amf0.decode(payload)
    except ProtocolError:
        return None
    if len(values) < 2 or not isinstance(values[1], dict):
        return None
    return values[1]


def lastingProperties(properties: Mapping[str, Any]) -> dict[str, Any] | None:
    """
    Select the properties that are about the stream and not about one file of it.

    @return: L{None} if they have more than L{METADATA_BYTES}.
    """
    lasting = {
        name: value
        for name, value in properties.items()
        if name not in _FILE_FACTS and not name.startswith(SPACE)
    }
    try:
        size = len(amf0.encode(ECMAArray(lasting)))
    except UsageError:
        return None
    return lasting if size <= METADATA_BYTES else None
