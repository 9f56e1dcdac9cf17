"""
Packaging: how messages are written for a player, as chunks or as FLV tags.

Players of equal packagings share what is written.  The message stream id is not part
of that: the peer chooses it, and it stands at a known place of each message's first
chunk, so that the same bytes serve with another one in it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from twisted_rtmp.flv.tags import cutTag, encodeTag
from twisted_rtmp.live.selection import EVERYTHING, Selection
from twisted_rtmp.media.metadata import isMetadata
from twisted_rtmp.wire.chunk import cutMessage, encodeMessage, encodeMessages
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.messages import Message

#: Chunk streams of media, by message type.  None of them carries anything else, and
#: each message begins with a format 0 header: so media need nothing that was written
#: before, and nothing else is written by what they left.
CHUNK_STREAMS = {
    int(MessageType.AUDIO): 4,
    int(MessageType.VIDEO): 6,
    int(MessageType.DATA_AMF0): 7,
}

#: The message stream id in a format 0 header: behind the chunk stream id (these fit
#: one byte), time, length and type.  RTMP 1.0, 5.3.1.2.1.
_ID_BEGINS = 8
_ID_ENDS = 12

#: What goes before metadata so that a server keeps them for players that come later:
#: nginx-rtmp, SRS and ours do without, Flash Media Server and its kin do not.
_SET_DATA_FRAME = b"\x02\x00\x0d@setDataFrame"

#: The part of a large payload that is in one piece of a tag, in bytes: as much as in a
#: chunk.
PIECE_BYTES = 64 * 1024


class Packaging(Hashable, Protocol):
    """The way in which messages are written, and the choice of them."""

    @property
    def selection(self) -> Selection:
        """The part of the stream that is written at all."""

    @property
    def streamId(self) -> int:
        """The message stream id that is written; 0 where there is none."""

    @property
    def shared(self) -> Hashable:
        """Everything but the message stream id."""

    def encode(self, message: Message) -> bytes:
        """
        Write a message such that nothing before it is needed to read it.

        @param message: one of those that the selection chose.
        @raise UsageError: its payload does not fit a message.
        """

    def encodeAll(self, messages: Sequence[Message]) -> bytes:
        """Write messages one behind the other; see L{encode}."""

    def cut(self, message: Message) -> list[tuple[bytes, memoryview]]:
        """
        Write a message in pieces that share its payload; see L{encode}.

        @return: each piece's own bytes, and the part of the payload behind them.
        """


@dataclass(frozen=True)
class RTMPPackaging:
    """
    The form of chunks; the first of each message has a format 0 header.

    @ivar streamId: the message stream id.
    @ivar chunkSize: bytes of payload in a chunk.
    @ivar selection: the part of the stream that is written.
    @ivar setDataFrame: whether metadata are marked to be kept, as servers want them of
        a publisher.
    """

    streamId: int
    chunkSize: int
    selection: Selection = EVERYTHING
    setDataFrame: bool = False

    @cached_property
    def shared(self) -> Hashable:
        return self.chunkSize, self.selection, self.setDataFrame

    def encode(self, message: Message) -> bytes:
        typeId = message.typeId
        return encodeMessage(
            CHUNK_STREAMS[typeId],
            typeId,
            message.timestamp,
            self.streamId,
            self._payloadOf(message) if self.setDataFrame else message.payload,
            self.chunkSize,
        )

    def cut(self, message: Message) -> list[tuple[bytes, memoryview]]:
        typeId = message.typeId
        return cutMessage(
            CHUNK_STREAMS[typeId],
            typeId,
            message.timestamp,
            self.streamId,
            self._payloadOf(message),
            self.chunkSize,
        )

    def _payloadOf(self, message: Message) -> bytes:
        if self.setDataFrame and isMetadata(message):
            return _SET_DATA_FRAME + message.payload
        return message.payload

    def encodeAll(self, messages: Sequence[Message]) -> bytes:
        if len(messages) == 1:
            return self.encode(messages[0])
        if self.setDataFrame:
            return b"".join([self.encode(message) for message in messages])
        return encodeMessages(messages, CHUNK_STREAMS, self.streamId, self.chunkSize)


@dataclass(frozen=True)
class FLVPackaging:
    """
    The form of FLV tags, each with its back pointer.

    @ivar selection: the part of the stream that is written.
    """

    selection: Selection = EVERYTHING
    streamId: int = 0

    @property
    def shared(self) -> Hashable:
        return self

    def encode(self, message: Message) -> bytes:
        return encodeTag(message.typeId, message.timestamp, message.payload)

    def encodeAll(self, messages: Sequence[Message]) -> bytes:
        if len(messages) == 1:
            return self.encode(messages[0])
        return b"".join([self.encode(message) for message in messages])

    def cut(self, message: Message) -> list[tuple[bytes, memoryview]]:
        return cutTag(message.typeId, message.timestamp, message.payload, PIECE_BYTES)


class Batch:
    """
    Messages that are written at once, for all whose packagings share what is written.

    @ivar messages: what the selection chose.
    @ivar refused: how many tracks of them a player would have got, but cannot read.
    """

    __slots__ = ("_data", "_encoded", "_pieces", "_streamId", "messages", "refused")

    def __init__(
        self, packaging: Packaging, messages: list[Message], refused: int = 0
    ) -> None:
        self.messages = messages
        self.refused = refused
        self._streamId = packaging.streamId
        if len(messages) == 1:
            self._data = packaging.encode(messages[0])
            self._encoded = [self._data]
        else:
            self._encoded = [packaging.encode(message) for message in messages]
            self._data = b"".join(self._encoded)
        self._pieces: list[memoryview] | None = None

    def writtenFor(self, packaging: Packaging) -> bytes:
        """Write the messages with the message stream id of a packaging."""
        if packaging.streamId == self._streamId:
            return self._data
        if self._pieces is None:
            self._pieces = self._cutAtIds()
        return packaging.streamId.to_bytes(4, "little").join(self._pieces)

    def _cutAtIds(self) -> list[memoryview]:
        """Cut what is written where a message stream id stands, which is left out."""
        data = memoryview(self._data)
        pieces = []
        begin = end = 0
        for encoded in self._encoded:
            pieces.append(data[begin : end + _ID_BEGINS])
            begin = end + _ID_ENDS
            end += len(encoded)
        pieces.append(data[begin:])
        return pieces
