"""
FLV: tags to bytes, and bytes to tags.

A file or stream is a header of 9 bytes, then a back pointer of 4 bytes and a tag
in turn, with a back pointer at the end::

    "FLV" version flags DataOffset | PreviousTagSize0 | tag | PreviousTagSize | ...
      3      1      1       4               4                      4

    tag:  type  size  timestamp  timestamp bits 24-31  stream id  payload
           1     3        3               1                3        size

All numbers are big-endian.  FLV 10.1, E.2 to E.4.1.
"""

from __future__ import annotations

import struct

from twisted_rtmp.wire.constants import (
    MAX_MESSAGE_LENGTH,
    NEED_DATA,
    NeedData,
)
from twisted_rtmp.wire.errors import FLVError, UsageError
from twisted_rtmp.wire.messages import Message

#: The header with the first back pointer, in bytes: where the first tag begins.
HEADER_SIZE = 13

#: A tag's header, in bytes.
TAG_HEADER_SIZE = 11

#: A back pointer, in bytes.
PREVIOUS_TAG_SIZE = 4

#: Largest DataOffset that is read, in bytes.  The field exists for longer headers of
#: later versions, of which there are none; it has 32 bits, and a reader would wait for
#: all bytes up to it.
MAX_DATA_OFFSET = 4096

_SIGNATURE = b"FLV\x01"
_HAS_AUDIO = 0x04
_HAS_VIDEO = 0x01
_FILTERED = 0x20
_TYPE_MASK = 0x1F

_packTagHeader = struct.Struct(">II3x").pack
_unpackTagHeader = struct.Struct(">II").unpack_from
_pointer = struct.Struct(">I")
_packPointer = _pointer.pack


def encodeHeader(hasAudio: bool = True, hasVideo: bool = True) -> bytes:
    """
    Write the header and the first back pointer.  FLV 10.1, E.2 and E.3.

    @return: L{HEADER_SIZE} bytes.
    """
    flags = (_HAS_AUDIO if hasAudio else 0) | (_HAS_VIDEO if hasVideo else 0)
    return b"%b%c\0\0\0\x09\0\0\0\0" % (_SIGNATURE, flags)


def encodeTagHeader(typeId: int, timestamp: int, size: int) -> bytes:
    """
    Write a tag's header.  FLV 10.1, E.4.1.

    @param typeId: the tag type, which is the message type.
    @param timestamp: milliseconds; the file keeps the lower 32 bits.
    @param size: of the payload, in bytes.
    @return: L{TAG_HEADER_SIZE} bytes.
    @raise UsageError: the size needs more than 24 bits, or the type more than 5.
    """
    if not 0 <= size <= MAX_MESSAGE_LENGTH:
        raise UsageError(
            f"an FLV tag must have 0 to {MAX_MESSAGE_LENGTH} bytes, not {size}"
        )
    if not 0 < typeId <= _TYPE_MASK:
        raise UsageError(f"an FLV tag type must be 1 to {_TYPE_MASK}, not {typeId}")
    return _packTagHeader(
        typeId << 24 | size, (timestamp << 8 | timestamp >> 24 & 0xFF) & 0xFFFFFFFF
    )


def encodeTag(typeId: int, timestamp: int, payload: bytes) -> bytes:
    """
    Write a tag and the back pointer after it.

    @param typeId: the tag type, which is the message type.
    @param timestamp: milliseconds; the file keeps the lower 32 bits.
    @param payload: the message's bytes.
    @raise UsageError: as L{encodeTagHeader}.
    """
    size = len(payload)
    return b"".join(
        (
            encodeTagHeader(typeId, timestamp, size),
            payload,
            _packPointer(size + TAG_HEADER_SIZE),
        )
    )


def cutTag(
    typeId: int, timestamp: int, payload: bytes, pieceSize: int
) -> list[tuple[bytes, memoryview]]:
    """
    Write a tag as L{encodeTag} does, without a copy of its payload: in pieces, each of
    which is a few bytes and a part of the payload.

    @param pieceSize: of the payload, in bytes.
    """
    size = len(payload)
    view = memoryview(payload)
    before = encodeTagHeader(typeId, timestamp, size)
    pieces = []
    for at in range(0, size, pieceSize):
        pieces.append((before, view[at : at + pieceSize]))
        before = b""
    pieces.append((before + _packPointer(size + TAG_HEADER_SIZE), view[size:]))
    return pieces


class FLVReader:
    """
    Reads an FLV file or stream as its bytes come.

    L{feed} takes bytes, cut anywhere; L{nextTag} returns one tag a call.  After an
    L{FLVError} the reader stands where it stood and raises the same again.

    A tag is returned when its back pointer has come too, so that a file which is cut
    at C{offset} is whole.  Tags with the filter bit are encrypted: nothing here could
    read them, so they are skipped and counted.  Reserved bits and the stream id are
    ignored.

    @ivar offset: bytes from the start of the input to the end of the last tag
        returned (or, before the first tag, of the header), its back pointer included.
    @ivar tagOffset: bytes from the start of the input to the beginning of that tag.
    @ivar hasAudio: the header promises audio; L{False} until it has been read.
    @ivar hasVideo: the header promises video; L{False} until it has been read.
    @ivar badPreviousTagSizes: back pointers that did not fit their tag.  Several
        writers leave 0 there, and reading forward does not need them.
    @ivar filteredTags: tags that were skipped since they are encrypted.
    """

    def __init__(self) -> None:
        self.offset = 0
        self.tagOffset = 0
        self.hasAudio = False
        self.hasVideo = False
        self.badPreviousTagSizes = 0
        self.filteredTags = 0
        self._buffer = bytearray()
        self._start = 0  # in the buffer: what comes before it has been consumed
        self._bufferOffset = 0  # of the buffer's first byte, in the input
        self._headerRead = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the input, however many."""
        start = self._start
        if start:
            # Once a feed and not once a tag; a bytearray drops a prefix without
            # moving the rest.
            del self._buffer[:start]
            self._bufferOffset += start
            self._start = 0
        self._buffer += data

    def nextTag(self) -> Message | NeedData:
        """
        Read one tag.

        @return: a message with the tag's type, its timestamp in milliseconds
            (unsigned, 32 bits, as in the file), stream id 0 and the payload;
            NEED_DATA when the rest of it has not come yet.
        @raise FLVError: this is not FLV; C{offset} says where.
        """
        buffer = self._buffer
        if not self._headerRead and not self._readHeader():
            return NEED_DATA
        while True:
            start = self._start
            available = len(buffer) - start
            if available < 1:
                return NEED_DATA
            if not buffer[start] & _TYPE_MASK:
                # What a file holds where a crash left a hole; it would read as
                # empty tags without end.
                raise FLVError(
                    "an FLV tag type must not be 0", offset=self._bufferOffset + start
                )
            if available < TAG_HEADER_SIZE:
                return NEED_DATA
            first, time = _unpackTagHeader(buffer, start)
            size = first & 0xFFFFFF
            end = start + TAG_HEADER_SIZE + size
            if available < TAG_HEADER_SIZE + size + PREVIOUS_TAG_SIZE:
                return NEED_DATA
            if _pointer.unpack_from(buffer, end)[0] != size + TAG_HEADER_SIZE:
                self.badPreviousTagSizes += 1
            self._start = end + PREVIOUS_TAG_SIZE
            typeAndBits = first >> 24
            if not typeAndBits & _FILTERED:
                break
            self.filteredTags += 1
        self.tagOffset = self._bufferOffset + start
        self.offset = self._bufferOffset + self._start
        # The view lives for this statement only: a bytearray that has one cannot
        # grow.  It saves copying the payload twice.
        with memoryview(buffer) as view:
            payload = bytes(view[start + TAG_HEADER_SIZE : end])
        return Message(
            typeAndBits & _TYPE_MASK, time >> 8 | (time & 0xFF) << 24, 0, payload
        )

    def _readHeader(self) -> bool:
        """Read the header and the first back pointer once they are there."""
        buffer = self._buffer
        signature = bytes(buffer[: len(_SIGNATURE)])
        if not _SIGNATURE.startswith(signature):
            raise FLVError("not an FLV file of version 1", offset=0)
        if len(buffer) < HEADER_SIZE - PREVIOUS_TAG_SIZE:
            return False
        flags, dataOffset = struct.unpack_from(">BI", buffer, len(_SIGNATURE))
        if not HEADER_SIZE - PREVIOUS_TAG_SIZE <= dataOffset <= MAX_DATA_OFFSET:
            raise FLVError(
                f"an FLV header must have 9 to {MAX_DATA_OFFSET} bytes, not"
                f" {dataOffset}",
                offset=5,
            )
        if len(buffer) < dataOffset + PREVIOUS_TAG_SIZE:
            return False
        if any(buffer[dataOffset : dataOffset + PREVIOUS_TAG_SIZE]):
            self.badPreviousTagSizes += 1
        self.hasAudio = bool(flags & _HAS_AUDIO)
        self.hasVideo = bool(flags & _HAS_VIDEO)
        self._start = dataOffset + PREVIOUS_TAG_SIZE
        self.offset = self.tagOffset = self._start
        self._headerRead = True
        return True
