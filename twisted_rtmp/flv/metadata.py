"""
Properties of C{onMetaData}: those that are about the stream, and those about one file
of it, which neither another file nor a live player is to be told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any

from twisted_rtmp.media.metadata import isMetadata, propertiesOf
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import ECMAArray
from twisted_rtmp.wire.errors import UsageError
from twisted_rtmp.wire.messages import Message

#: The encoder's own metadata that the head of a file can hold, in bytes.  ffmpeg's has
#: 400, OBS' 600, one with maps of tracks 2,000.
METADATA_BYTES = 8192

#: The property of a file's C{onMetaData} that takes up the space which is left.
SPACE = "reservedSpace"

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

#: Those that change while a stream is live, so that even a denial may be wrong soon:
#: mpegts.js believes them more than the header of the FLV stream.
_KIND_FACTS = frozenset(("hasVideo", "hasAudio"))


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


def withoutFileFacts(message: Message) -> bytes:
    """
    Write a message without the properties that are about a file.

    Players take a stream with a duration, a size or an index for a file, and seek in
    it.  A fact that is 0 or false says nothing, and stays: ffmpeg sends a duration of
    0 with every live stream.

    @param message: any; only the payload of an C{onMetaData} is changed.
    @return: its payload as it is to be sent.
    """
    properties = propertiesOf(message) if isMetadata(message) else None
    facts = [
        name
        for name, value in (properties or {}).items()
        if name.startswith(SPACE)
        or (name in _FILE_FACTS and (value != 0 or name in _KIND_FACTS))
    ]
    if properties is None or not facts:
        return message.payload
    return withoutProperties(message, facts)


def withoutProperties(message: Message, names: Iterable[str]) -> bytes:
    """
    Write an C{onMetaData} without some of its properties.

    @param message: one that has properties.
    @return: its payload as it is to be sent.
    """
    name, properties, *others = message.values or amf0.decode(message.payload)
    properties = copy(properties)
    for each in names:
        properties.pop(each, None)
    try:
        return amf0.encode(name, properties, *others)
    except UsageError:  # its references stand for more than a message can hold
        return amf0.encode(name, ECMAArray())
