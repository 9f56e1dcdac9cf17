"""
The chunk stream: bytes to messages and back.  RTMP 1.0, section 5.3.

Imports the standard library and its own package's constants, errors, limits
and messages.

The grammar, with the sizes in bytes::

    chunk          = basic header (1, 2 or 3), message header (11, 7, 3 or 0),
                     [extended timestamp (4)], data
    basic header   = format (2 bits), chunk stream id (6 bits; 0: one more
                     byte plus 64; 1: two more, little-endian, plus 64)
    format 0       = timestamp (3), length (3), type (1), message stream id
                     (4, little-endian)
    format 1       = timestamp delta (3), length (3), type (1)
    format 2       = timestamp delta (3)
    format 3       = nothing: the next piece of a message, or a message like
                     the one before
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from struct import Struct
from typing import Literal

from twisted_rtmp.wire.constants import (
    DEFAULT_CHUNK_SIZE,
    EXTENDED_TIMESTAMP,
    FIRST_CHUNK_STREAM_ID,
    LAST_CHUNK_STREAM_ID,
    MAX_MESSAGE_LENGTH,
    NEED_DATA,
    MessageType,
    NeedData,
)
from twisted_rtmp.wire.errors import ChunkError, LimitError, UsageError
from twisted_rtmp.wire.limits import DEFAULT_WIRE_LIMITS, WireLimits
from twisted_rtmp.wire.messages import Message

_WRAP = 1 << 32
_HALF = 1 << 31

#: Chunks of one message that are looked at in one go.  A peer that changes the
#: chunk stream with each chunk makes all of them a waste: without a bound that is
#: quadratic in the size of a read.  Longer runs are no faster a chunk.
_LONGEST_RUN = 256

#: Chunks that complete no message, and messages that are not returned, before
#: L{ChunkReader.nextMessage} says that it would go on.  Without a bound, a read of
#: 1-byte chunks in alternating chunk streams, or of Set Chunk Size messages, is seconds
#: of work in one call.
SWALLOWED_CHUNKS = 64

# Timestamp, length and type: high byte and low half of each 24-bit field.
_FORMAT_0 = Struct(">BBHBHB4s")
_FORMAT_1 = Struct(">BHBHB")
# The same with the basic header.
_CHUNK_1 = Struct(">BBHBHB")
_UNSIGNED_32 = Struct(">I")
_STREAM_ID = Struct("<I")
_SET_CHUNK_SIZE: int = MessageType.SET_CHUNK_SIZE
_ABORT: int = MessageType.ABORT
_MEDIA = (int(MessageType.VIDEO), int(MessageType.AUDIO))

# Basic headers of format 1 with a chunk stream id of one byte.
_FIRST_OF_FORMAT_1 = 0x42
_LAST_OF_FORMAT_1 = 0x7F


def nearest(timestamp: int, reference: int) -> int:
    """
    Unwrap a 32-bit timestamp: of all numbers that are the same modulo 2^32,
    the one nearest to a reference.

    @param timestamp: milliseconds, 32 bits.
    @param reference: milliseconds, unwrapped.
    """
    return reference + ((timestamp - reference + _HALF) & 0xFFFFFFFF) - _HALF


@lru_cache(maxsize=64)
def _basicHeader(headerFormat: int, csid: int) -> bytes:
    """A basic header in its shortest form.  RTMP 1.0, 5.3.1.1."""
    if FIRST_CHUNK_STREAM_ID <= csid < 64:
        return bytes((headerFormat << 6 | csid,))
    if 64 <= csid < 320:
        return bytes((headerFormat << 6, csid - 64))
    if 320 <= csid <= LAST_CHUNK_STREAM_ID:
        csid -= 64
        return bytes((headerFormat << 6 | 1, csid & 255, csid >> 8))
    raise UsageError(f"{csid} is no chunk stream id")


class _ChunkStream:
    """
    The state of one chunk stream that is read.

    @ivar basic: its basic header of format 3, in the shortest form.
    @ivar continuation: what stands before each further chunk of a message, if
        the peer goes by the specification.
    @ivar timestamp: of the newest message, in unwrapped milliseconds.
    @ivar delta: what a format 3 header that opens a message adds to it.
    @ivar extended: the extended timestamp field of the newest header, or
        empty if it had none.
    @ivar length: the newest message's, in bytes.
    @ivar missing: bytes of the open message that have not come; 0 if no
        message is open.
    @ivar partial: the bytes of the open message that have come.
    """

    __slots__ = (
        "basic",
        "continuation",
        "delta",
        "extended",
        "length",
        "missing",
        "partial",
        "streamId",
        "timestamp",
        "typeId",
    )

    def __init__(self, csid: int) -> None:
        self.basic = _basicHeader(3, csid)
        self.continuation = self.basic
        self.timestamp = 0
        self.delta = 0
        self.extended = b""
        self.length = 0
        self.typeId = 0
        self.streamId = 0
        self.missing = 0
        self.partial = bytearray()


class ChunkReader:
    """
    Reassembles messages from chunks, however the bytes are cut.

    Feed it, then take messages until it needs data.  Set Chunk Size and Abort
    take effect here and are not returned.

    Chunk data moves into its message as it comes, so between two reads the
    accumulator holds at most one unfinished header (18 bytes); and nothing is
    allocated for a length that a header only announces.

    @ivar chunkSize: bytes of data a chunk, as the peer has set it, but never
        more than the largest message, which makes no difference.
    @ivar unfinished: bytes of all unfinished messages together.
    @ivar dropped: messages that were given up unfinished: by an Abort, or by
        a new message header within the old message.
    @ivar droppedBytes: what had come of those.
    @ivar assumed: chunk streams opened without a message stream id (librtmp's
        pings, some edges): it was taken to be 0.
    """

    def __init__(
        self,
        limits: WireLimits = DEFAULT_WIRE_LIMITS,
        swallowed: int | None = None,
    ) -> None:
        """
        @param swallowed: chunks after which L{nextMessage} returns without a message;
            L{SWALLOWED_CHUNKS} where others wait for their turn.
        """
        self._limits = limits
        self._swallowed = swallowed
        self.chunkSize = min(DEFAULT_CHUNK_SIZE, max(limits.messageSize, 1))
        self.unfinished = 0
        self.dropped = 0
        self.droppedBytes = 0
        self.assumed = 0
        self._streams: dict[int, _ChunkStream] = {}
        # The newest audio or video timestamp of the connection: what a chunk
        # stream's first timestamp is unwrapped by.
        self._clock: int | None = None
        self._data = b""
        self._at = 0
        # The chunk stream in whose chunk the accumulator begins, and how many
        # bytes of that chunk are to come.
        self._current: _ChunkStream | None = None
        self._left = 0

    def feed(self, data: bytes) -> None:
        """Add what a read brought, of any length."""
        rest = self._data[self._at :]
        self._data = rest + data if rest else data
        self._at = 0

    @property
    def pending(self) -> int:
        """Bytes that were fed and not looked at."""
        return len(self._data) - self._at

    def nextMessage(self) -> Message | Literal[NeedData.NEED_DATA] | None:
        """
        Take the next whole message.

        @return: L{None} if it is to be called again: there is more, but others may
            have their turn first.
        @raise ChunkError: the chunk stream cannot be followed any further.
        @raise LimitError: the peer wants more than its limits allow.
        """
        return self.nextFrame() or self.nextOther()

    def nextOther(self) -> Message | Literal[NeedData.NEED_DATA] | None:
        """Take the next whole message, of any form: see L{nextMessage}."""
        left = self._swallowed
        while True:
            if left is not None:
                if not left:
                    return None
                left -= 1
            stream = self._current
            if stream is None:
                stream = self._readHeader()
                if stream is None:
                    # Not to keep a whole read for the piece of a header.
                    self._data = self._data[self._at :]
                    self._at = 0
                    return NEED_DATA
            payload = self._readData(stream)
            if payload is None:
                if self._current is None:
                    continue
                self._data = b""
                self._at = 0
                return NEED_DATA
            typeId = stream.typeId
            timestamp = stream.timestamp
            if typeId in _MEDIA:
                self._clock = timestamp
            elif typeId == _SET_CHUNK_SIZE:
                self._setChunkSize(payload)
                continue
            elif typeId == _ABORT:
                self._abort(payload)
                continue
            return Message(typeId, timestamp, stream.streamId, payload)

    def nextFrame(self) -> Message | Literal[NeedData.NEED_DATA] | None:
        """
        Take an audio or video message that is one whole chunk with a format 1 header:
        all but the first of most encoders' audio, and many a video frame.

        The same as what L{nextOther} does of it, in half the time: with hundreds of
        small streams the server does little else.

        @return: the message; L{None} if it is anything else, or not whole.
        """
        data = self._data
        at = self._at
        have = len(data) - at
        if have < 8:
            if have or self._current is not None:
                return None
            self._data = b""
            self._at = 0
            return NEED_DATA
        if self._current is not None:
            return None
        basic = data[at]
        if not _FIRST_OF_FORMAT_1 <= basic <= _LAST_OF_FORMAT_1:
            return None
        stream = self._streams.get(basic & 63)
        if stream is None or stream.missing or stream.extended or self.unfinished:
            return None
        high, low, longHigh, longLow, typeId = _FORMAT_1.unpack_from(data, at + 1)
        field = high << 16 | low
        length = longHigh << 16 | longLow
        begin = at + 8
        end = begin + length
        if (
            end > len(data)
            or typeId not in _MEDIA
            or field == EXTENDED_TIMESTAMP
            or length > self.chunkSize  # which is no more than a message may have
        ):
            return None
        stream.length = length
        stream.typeId = typeId
        stream.delta = field
        stream.timestamp = self._clock = timestamp = stream.timestamp + field
        self._at = end
        return Message(typeId, timestamp, stream.streamId, data[begin:end])

    def _readHeader(self) -> _ChunkStream | None:
        """
        Take a basic and a message header, if they are whole.

        @return: the chunk stream, which is L{_current} now; or L{None}.
        """
        data = self._data
        at = self._at
        have = len(data) - at
        if not have:
            return None
        basic = data[at]
        at += 1
        csid = basic & 63
        if csid < 2:
            if have < 2 + csid:
                return None
            if csid:
                csid = 64 + data[at] + (data[at + 1] << 8)
                at += 2
            else:
                csid = 64 + data[at]
                at += 1
        headerFormat = basic >> 6
        stream = self._streams.get(csid)
        if headerFormat == 3:
            if stream is None:
                raise ChunkError(
                    f"chunk stream {csid} opens with a format 3 header, which tells"
                    " neither length nor type",
                    section="RTMP 1.0, 5.3.1.2.4",
                    got=csid,
                )
            if stream.extended:
                length = self._repeatedExtended(stream.extended, at)
                if length is None:
                    return None
                at += length
            if not stream.missing:
                stream.timestamp += stream.delta
                stream.missing = stream.length
        else:
            if headerFormat == 2:
                size = 3
            elif headerFormat == 1:
                size = 7
            else:
                size = 11
            if len(data) - at < size:
                return None
            if size == 3:
                field = (data[at] << 16) | (data[at + 1] << 8) | data[at + 2]
            else:
                high, low, longHigh, longLow, typeId = _FORMAT_1.unpack_from(data, at)
                field = (high << 16) | low
            header = at
            at += size
            extended = b""
            if field == EXTENDED_TIMESTAMP:
                extended = data[at : at + 4]
                if len(extended) < 4:
                    return None
                at += 4
                field = int.from_bytes(extended, "big")
            if stream is None:
                stream = self._openStream(csid, headerFormat)
                fresh = True
            else:
                fresh = False
                if stream.missing:
                    self._drop(stream)
            if size != 3:
                length = (longHigh << 16) | longLow
                if length > self._limits.messageSize:
                    raise LimitError(
                        f"a message of {length} bytes is over the limit of"
                        f" {self._limits.messageSize}",
                        section="RTMP 1.0, 6.1.1",
                        limit=self._limits.messageSize,
                        got=length,
                    )
                stream.length = length
                stream.typeId = typeId
            if extended is not stream.extended:
                stream.extended = extended
                stream.continuation = stream.basic + extended
            # After a format 0 header the timestamp itself is the delta that a
            # format 3 header adds: RTMP 1.0, 5.3.1.2.4.
            stream.delta = field if field < _HALF else field - _WRAP
            if size == 11:
                stream.streamId = int.from_bytes(
                    data[header + 7 : header + 11], "little"
                )
            if size == 11 or fresh:
                reference = self._clock if fresh else stream.timestamp
                stream.timestamp = (
                    field if reference is None else nearest(field, reference)
                )
            else:
                stream.timestamp += stream.delta
            stream.missing = stream.length
        self._at = at
        self._current = stream
        missing = stream.missing
        self._left = min(missing, self.chunkSize)
        return stream

    def _openStream(self, csid: int, headerFormat: int) -> _ChunkStream:
        """Begin to remember a chunk stream."""
        if headerFormat == 2:
            raise ChunkError(
                f"chunk stream {csid} opens with a format 2 header, which tells"
                " neither length nor type",
                section="RTMP 1.0, 5.3.1.2.3",
                got=csid,
            )
        if len(self._streams) >= self._limits.chunkStreams:
            raise LimitError(
                f"more than {self._limits.chunkStreams} chunk streams",
                section="RTMP 1.0, 5.3.1.1",
                limit=self._limits.chunkStreams,
                got=len(self._streams) + 1,
            )
        if headerFormat == 1:
            self.assumed += 1
        stream = self._streams[csid] = _ChunkStream(csid)
        return stream

    def _repeatedExtended(self, extended: bytes, at: int) -> int | None:
        """
        Tell whether a format 3 header repeats the extended timestamp.

        The specification says so, and ffmpeg, GStreamer and nginx-rtmp do it;
        OBS before 31 and writers of Flash's time leave the field out, librtmp
        only where a message begins.  So four bytes that equal the last
        extended timestamp are one, and any others are data.

        @return: 4, 0, or L{None} if more data is needed to tell.
        """
        found = self._data[at : at + 4]
        if found == extended:
            return 4
        # Data may end short of four bytes: do not wait for what never comes.
        return None if extended.startswith(found) else 0

    def _readData(self, stream: _ChunkStream) -> bytes | None:
        """
        Take what there is of the current chunk, and the chunks after it that
        go on with the same message.

        Those all have the same format 3 header, so every n-th byte is known:
        strided slices compare and delete these bytes without a loop.  A
        message of 25 kB costs 2 us so, in chunks of 128 bytes as of 4096.

        @return: the message's payload if it is whole, or L{None}.
        """
        data = self._data
        at = self._at
        left = self._left
        missing = stream.missing
        have = len(data) - at
        partial = stream.partial
        if have < left:
            if have:
                self._at = len(data)
                self._left = left - have
                stream.missing = missing - have
                partial += data[at:] if at else data
                self._grow(have)
            return None
        self._current = None
        if left == missing:
            self._at = at = at + left
            stream.missing = 0
            if not partial:
                if self.unfinished:
                    self._grow(left)  # as if it had come in pieces
                    self.unfinished -= left
                return data[at - left : at]
            self._grow(left)
            partial += data[at - left : at]
            self.unfinished -= len(partial)
            payload = bytes(partial)
            partial.clear()
            return payload
        header = stream.continuation
        size = len(header)
        chunkSize = self.chunkSize
        stride = size + chunkSize
        # How many chunks follow for this message, and where their data ends.
        count = -(-(missing - left) // chunkSize)
        end = at + missing + count * size
        if end > len(data) or count > _LONGEST_RUN:
            count = min((have - left) // stride, _LONGEST_RUN)
            end = at + left + count * stride
        for i in range(size):
            column = data[at + left + i : end : stride]
            if column.count(header[i]) != len(column):
                # Another chunk stream's chunk, or a header of another form.
                count = len(column) - len(column.lstrip(header[i : i + 1]))
                end = at + left + count * stride
        window = bytearray(memoryview(data)[at:end])
        if count:
            for width in range(stride, chunkSize, -1):
                del window[left::width]
        self._at = end
        missing -= len(window)
        stream.missing = missing
        self._grow(len(window))
        if missing:
            partial += window
            return None
        if not partial:
            self.unfinished -= len(window)
            return bytes(window)
        partial += window
        self.unfinished -= len(partial)
        payload = bytes(partial)
        partial.clear()
        return payload

    def _grow(self, size: int) -> None:
        """Count bytes into unfinished messages, and keep their bound."""
        self.unfinished += size
        if self.unfinished > self._limits.unfinishedBytes:
            raise LimitError(
                f"{self.unfinished} bytes of unfinished messages are over the limit"
                f" of {self._limits.unfinishedBytes}",
                limit=self._limits.unfinishedBytes,
                got=self.unfinished,
            )

    def forget(self) -> None:
        """Free what has come of unfinished messages: nothing more is read."""
        self._data = b""
        self._at = 0
        self._current = None
        self._streams.clear()
        self.unfinished = 0

    def _drop(self, stream: _ChunkStream) -> None:
        """Give up a chunk stream's unfinished message."""
        size = len(stream.partial)
        self.dropped += 1
        self.droppedBytes += size
        self.unfinished -= size
        stream.partial.clear()
        stream.missing = 0

    def _setChunkSize(self, payload: bytes) -> None:
        """RTMP 1.0, 5.4.1: 31 bits, of which the first must be zero."""
        if len(payload) < 4:
            raise ChunkError(
                "Set Chunk Size is shorter than 4 bytes",
                section="RTMP 1.0, 5.4.1",
                got=len(payload),
            )
        size = _UNSIGNED_32.unpack_from(payload)[0]
        if not 0 < size < _HALF:
            raise ChunkError(
                f"a chunk size of {size} bytes is not from 1 to {_HALF - 1}",
                section="RTMP 1.0, 5.4.1",
                limit=_HALF - 1,
                got=size,
            )
        self.chunkSize = min(size, max(self._limits.messageSize, 1))

    def _abort(self, payload: bytes) -> None:
        """RTMP 1.0, 5.4.2; for a chunk stream without a message, nothing."""
        if len(payload) < 4:
            raise ChunkError(
                "Abort is shorter than 4 bytes",
                section="RTMP 1.0, 5.4.2",
                got=len(payload),
            )
        stream = self._streams.get(_UNSIGNED_32.unpack_from(payload)[0])
        if stream is not None and stream.missing:
            self._drop(stream)


class ChunkWriter:
    """
    Cuts messages into chunks that every known reader takes alike.

    Format 0 for a chunk stream's first message, for another message stream
    and whenever time goes back; format 1 for all others; format 3 only for
    the next piece of a message, with the extended timestamp repeated.  Never
    a format 2 or 3 header for a new message: peers differ on what these mean.
    It costs at most 7 bytes a message.
    """

    def __init__(self) -> None:
        self._chunkSize = DEFAULT_CHUNK_SIZE
        # By chunk stream id: the newest timestamp and message stream id.
        self._last: dict[int, tuple[int, int]] = {}

    @property
    def chunkSize(self) -> int:
        """Bytes of data a chunk.  Set it right after telling the peer."""
        return self._chunkSize

    @chunkSize.setter
    def chunkSize(self, size: int) -> None:
        if not 0 < size < _HALF:
            raise UsageError(f"a chunk size of {size} bytes is not legal")
        self._chunkSize = size

    def encode(
        self, csid: int, typeId: int, timestamp: int, streamId: int, payload: bytes
    ) -> bytes:
        """
        One message as chunks.

        @param csid: the chunk stream id, 2 to 65599.
        @param timestamp: milliseconds; wraps at 2^32 here.
        @param streamId: the message stream id.
        @raise UsageError: a number or the payload does not fit its field.
        """
        last = self._last.get(csid)
        if last is not None and last[1] == streamId and timestamp >= last[0]:
            delta = timestamp - last[0]
        else:
            delta = None
        if delta is not None and delta < _HALF:
            chunks = encodeMessage(csid, typeId, delta, None, payload, self._chunkSize)
        else:
            chunks = encodeMessage(
                csid, typeId, timestamp, streamId, payload, self._chunkSize
            )
        self._last[csid] = (timestamp, streamId)
        return chunks


def encodeMessage(
    csid: int,
    typeId: int,
    timestamp: int,
    streamId: int | None,
    payload: bytes,
    chunkSize: int,
) -> bytes:
    """
    One message as chunks: the first of format 0, or of format 1 if no message
    stream id is given, the others of format 3.

    @param timestamp: milliseconds: absolute in format 0, else the delta.
    @param chunkSize: bytes of data a chunk.
    @raise UsageError: a number or the payload does not fit its field.
    """
    length = len(payload)
    if (
        length <= chunkSize
        and length <= MAX_MESSAGE_LENGTH
        and 0 <= timestamp < EXTENDED_TIMESTAMP
        and FIRST_CHUNK_STREAM_ID <= csid < 64
    ):
        # Most messages: one chunk, and a header of one of two forms.
        if streamId is None:
            return (
                _CHUNK_1.pack(
                    0x40 | csid,
                    timestamp >> 16,
                    timestamp & 0xFFFF,
                    length >> 16,
                    length & 0xFFFF,
                    typeId,
                )
                + payload
            )
        return (
            _FORMAT_0.pack(
                csid,
                timestamp >> 16,
                timestamp & 0xFFFF,
                length >> 16,
                length & 0xFFFF,
                typeId,
                _STREAM_ID.pack(streamId),
            )
            + payload
        )
    first, next_ = _chunkHeaders(csid, typeId, timestamp, streamId, length)
    if length <= chunkSize:
        return first + payload
    pieces = [first, payload[:chunkSize]]
    for at in range(chunkSize, length, chunkSize):
        pieces.append(next_)
        pieces.append(payload[at : at + chunkSize])
    return b"".join(pieces)


def cutMessage(
    csid: int,
    typeId: int,
    timestamp: int,
    streamId: int,
    payload: bytes,
    chunkSize: int,
) -> list[tuple[bytes, memoryview]]:
    """
    One message as L{encodeMessage} writes it, without a copy of its payload: the
    header and the data of each chunk.
    """
    length = len(payload)
    first, next_ = _chunkHeaders(csid, typeId, timestamp, streamId, length)
    view = memoryview(payload)
    chunks = [
        (next_, view[at : at + chunkSize]) for at in range(0, length, chunkSize)
    ] or [(first, view)]
    chunks[0] = (first, chunks[0][1])
    return chunks


def _chunkHeaders(
    csid: int, typeId: int, timestamp: int, streamId: int | None, length: int
) -> tuple[bytes, bytes]:
    """Make what stands before a message's first chunk, and before each further one."""
    if length > MAX_MESSAGE_LENGTH:
        raise UsageError(f"a message of {length} bytes does not fit 24 bits")
    timestamp &= 0xFFFFFFFF
    if timestamp >= EXTENDED_TIMESTAMP:
        extended = _UNSIGNED_32.pack(timestamp)
        timestamp = EXTENDED_TIMESTAMP
    else:
        extended = b""
    if streamId is not None and FIRST_CHUNK_STREAM_ID <= csid < 64:
        # What media have; once a message and player that does not keep up.
        first = _FORMAT_0.pack(
            csid,
            timestamp >> 16,
            timestamp & 0xFFFF,
            length >> 16,
            length & 0xFFFF,
            typeId,
            _STREAM_ID.pack(streamId),
        )
    else:
        first = _FORMAT_1.pack(
            timestamp >> 16, timestamp & 0xFFFF, length >> 16, length & 0xFFFF, typeId
        )
        if streamId is None:
            first = _basicHeader(1, csid) + first
        else:
            first = _basicHeader(0, csid) + first + _STREAM_ID.pack(streamId)
    return first + extended, _basicHeader(3, csid) + extended


def encodeMessages(
    messages: Iterable[Message],
    chunkStreams: Mapping[int, int],
    streamId: int,
    chunkSize: int,
) -> bytes:
    """
    Messages as chunks, each as L{encodeMessage} writes it: for a player that does not
    keep up, in less than half of the time.

    @param chunkStreams: the chunk stream id, 2 to 63, of each message type id.
    @param streamId: the message stream id.
    @param chunkSize: bytes of data a chunk.
    @raise UsageError: a payload does not fit its field.
    """
    pieces = []
    streamIdBytes = _STREAM_ID.pack(streamId)
    longest = min(chunkSize, MAX_MESSAGE_LENGTH)
    for message in messages:
        typeId, timestamp = message.typeId, message.timestamp
        payload = message.payload
        length = len(payload)
        csid = chunkStreams[typeId]
        if length <= longest and 0 <= timestamp < EXTENDED_TIMESTAMP:
            pieces.append(
                _FORMAT_0.pack(
                    csid,
                    timestamp >> 16,
                    timestamp & 0xFFFF,
                    length >> 16,
                    length & 0xFFFF,
                    typeId,
                    streamIdBytes,
                )
            )
            pieces.append(payload)
        else:
            pieces.append(
                encodeMessage(csid, typeId, timestamp, streamId, payload, chunkSize)
            )
    return b"".join(pieces)
