"""
The head of an FLV file: its header and its C{onMetaData}, with the index of key frames.

The head has a fixed size, so that it can be written again when the file is finished::

    header 9, back pointer 4 | tag header 11, onMetaData, back pointer 4 | tags ...

C{onMetaData} has a property at its end, an array of zeros, which takes what the others
leave: so every byte of the file is valid FLV and AMF0 before the index is known and
after.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from twisted_rtmp.flv import tags as flv
from twisted_rtmp.flv.kinds import Kinds
from twisted_rtmp.flv.metadata import METADATA_BYTES, SPACE
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import ECMAArray
from twisted_rtmp.wire.constants import TagType
from twisted_rtmp.wire.errors import UsageError

#: Key frames that the index holds.  One at 2 s lasts for 2 hours, then every second one
#: is dropped.  Two numbers each, which stays below the 10,000 values that our own and
#: other readers accept in one message.
INDEX_ENTRIES = 3600

#: The payload of the first tag, in bytes: the index of two numbers of 9 bytes for each
#: entry, the metadata, some room for their names.
HEAD_PAYLOAD = INDEX_ENTRIES * 18 + METADATA_BYTES + 512

#: Where the second tag begins, in bytes.
HEAD_SIZE = flv.HEADER_SIZE + flv.TAG_HEADER_SIZE + HEAD_PAYLOAD + flv.PREVIOUS_TAG_SIZE

#: Where the byte is that says whether there is audio and video.  FLV 10.1, E.2.
FLAGS_OFFSET = 4

_packLength = struct.Struct(">I").pack


class Head(NamedTuple):
    """
    The beginning of a file, in three pieces: most of it is zeros.

    @ivar start: the header and the properties.
    @ivar zeros: how many zeros follow, in bytes.
    @ivar end: the bytes behind them.
    """

    start: bytes
    zeros: int
    end: bytes

    @property
    def size(self) -> int:
        """Bytes of all pieces."""
        return len(self.start) + self.zeros + len(self.end)

    def whole(self) -> bytes:
        """Join the pieces."""
        return b"".join((self.start, bytes(self.zeros), self.end))


def fileFacts(size: int, lastTime: int, kinds: Kinds, entries: int) -> dict[str, Any]:
    """
    Make the properties of C{onMetaData} that are known when a file is finished.

    @param size: of the file, in bytes.
    @param lastTime: the largest of its timestamps, in milliseconds.
    @param kinds: what it holds.
    @param entries: of the index.
    """
    return {
        "duration": lastTime / 1000,
        "filesize": size,
        "lasttimestamp": lastTime / 1000,
        "hasAudio": kinds.audio,
        "hasVideo": kinds.video,
        "hasKeyframes": entries > 1,
        "hasMetadata": True,
    }


def encodeFlags(kinds: Kinds) -> bytes:
    """Make the byte that stands at L{FLAGS_OFFSET}."""
    return flv.encodeHeader(*kinds)[FLAGS_OFFSET : FLAGS_OFFSET + 1]


def encodeHead(
    metadata: Mapping[str, Any],
    kinds: Kinds,
    times: Sequence[int] = (),
    positions: Sequence[int] = (),
    payloadSize: int = HEAD_PAYLOAD,
) -> Head:
    """
    Write the beginning of a file: header, C{onMetaData}, back pointer.

    @param metadata: its properties, without the index.
    @param kinds: what the header says.
    @param times: of key frames, in milliseconds.  An index of less than two entries
        is left out: ffmpeg warns of it, and it says nothing.
    @param positions: their tags', in bytes.
    @param payloadSize: how large C{onMetaData} must be, in bytes.
    @return: as many bytes as it always has.
    @raise UsageError: the properties do not fit.
    """
    properties = amf0.encode(ECMAArray(metadata))[5:-3]
    count = len(metadata) + 1
    if len(times) > 1:
        properties += _property("keyframes") + _index(times, positions)
        count += 1
    body = b"".join(
        (
            amf0.encode("onMetaData"),
            b"\x08" + _packLength(count),
            properties,
        )
    )
    end = b"\x00\x00\x09"
    room = payloadSize - len(body) - len(_property(SPACE)) - 5 - len(end)
    if room < 0:
        raise UsageError(
            f"metadata must fit {payloadSize} bytes; these have {len(body)}"
        )
    # A zero is 9 bytes; the name grows by what is left of the division.
    zeros, rest = divmod(room, 9)
    start = b"".join(
        (
            flv.encodeHeader(*kinds),
            flv.encodeTagHeader(TagType.SCRIPT_DATA, 0, payloadSize),
            body,
            _property(SPACE + "_" * rest),
            b"\x0a" + _packLength(zeros),
        )
    )
    return Head(start, 9 * zeros, end + _packLength(flv.TAG_HEADER_SIZE + payloadSize))


def _property(name: str) -> bytes:
    return struct.pack(">H", len(name)) + name.encode("ascii")


def _index(times: Sequence[int], positions: Sequence[int]) -> bytes:
    """Write the C{keyframes} object; 1.5 ms for a full one."""
    return b"".join(
        (
            b"\x03",
            _property("times"),
            _numbers([time / 1000 for time in times]),
            _property("filepositions"),
            _numbers(positions),
            b"\x00\x00\x09",
        )
    )


def _numbers(values: Sequence[float]) -> bytes:
    pack = struct.Struct(">xd").pack
    return b"\x0a" + _packLength(len(values)) + b"".join(map(pack, values))
