"""Properties of C{onMetaData} that a file keeps of what an encoder says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import ECMAArray
from twisted_rtmp.wire.errors import UsageError

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
