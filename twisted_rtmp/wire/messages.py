"""
Messages: what the chunk layer carries, and the values inside them.

Imports the standard library and its own package's constants, errors and AMF.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from twisted_rtmp.wire.errors import LimitError, MessageError

#: Messages in an aggregate.  Servers that send them put some hundred ms of media into
#: one; 8 MiB of empty messages are 550,000, and take a second of the server's time.
MAX_AGGREGATE_MESSAGES = 20_000

#: Type, length, time and message stream id of a message in an aggregate: the
#: layout of an FLV tag's header, bytes.
_SUBMESSAGE_HEADER_SIZE = 11

#: The size of the message before, which follows each, bytes.
_BACK_POINTER_SIZE = 4


class Message:
    """
    One message, whole: the unit of everything above the chunk layer.

    A slotted class and no dataclass, since one is made for every audio and
    video frame.

    @ivar typeId: the message type id (a L{MessageType<constants.MessageType>}
        where it is a known one).
    @ivar timestamp: milliseconds, unwrapped: it goes on past 2^32.
    @ivar streamId: the message stream id.
    @ivar payload: the message's bytes.
    @ivar flags: what L{media<twisted_rtmp.media.payloads>} found in an audio or
        video payload; 0 until a stream has looked at it.
    @ivar parts: its parts by tracks, while L{partsOf<twisted_rtmp.media.parts.partsOf>}
        keeps them; mostly unset, since it costs time, or L{None}.
    @ivar trackIds: the numbers of its tracks, where a stream has read them; mostly
        unset.
    """

    __slots__ = (
        "_sent",
        "_values",
        "flags",
        "parts",
        "payload",
        "streamId",
        "timestamp",
        "trackIds",
        "typeId",
    )

    parts: Sequence[Any] | None
    trackIds: Sequence[int]

    def __init__(
        self,
        typeId: int,
        timestamp: int,
        streamId: int,
        payload: bytes,
        flags: int = 0,
    ) -> None:
        self.typeId = typeId
        self.timestamp = timestamp
        self.streamId = streamId
        self.payload = payload
        self.flags = flags

    @property
    def senderTimestamp(self) -> int:
        """The timestamp as its sender gave it, milliseconds, unwrapped."""
        try:
            return self._sent
        except AttributeError:  # unset, as of most messages, since it costs time
            return self.timestamp

    @property
    def values(self) -> list[Any] | None:
        """
        The AMF values of a data message whose payload has been decoded, or L{None}.

        A connection gives those that it had to read to find AMF3.  A live stream keeps
        those of its present metadata only: they can take a hundred times the memory of
        the payload.
        """
        try:
            return self._values
        except AttributeError:
            return None

    @values.setter
    def values(self, values: list[Any] | None) -> None:
        self._values = values

    def moveTo(self, timestamp: int) -> None:
        """Give it another timestamp, once; the sender's is kept beside it."""
        self._sent = self.timestamp
        self.timestamp = timestamp

    def __repr__(self) -> str:
        return (
            f"<Message type {self.typeId} at {self.timestamp} ms on stream"
            f" {self.streamId}, {len(self.payload)} bytes>"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return (
            self.typeId == other.typeId
            and self.timestamp == other.timestamp
            and self.streamId == other.streamId
            and self.payload == other.payload
        )

    __hash__ = None  # type: ignore[assignment]


class Command:
    """
    A command message: a remote procedure call.  RTMP 1.0, 7.1.1.

    @ivar name: such as C{"connect"}.
    @ivar transactionId: what a reply repeats; 0 asks for none.
    @ivar arguments: all values behind the transaction id; the first of them
        is the command object or L{None}.
    @ivar streamId: the message stream that it came on.
    @ivar amf3: whether it came as message type 17.
    """

    __slots__ = ("amf3", "arguments", "name", "streamId", "transactionId")

    def __init__(
        self,
        name: str,
        transactionId: float,
        arguments: list[Any],
        streamId: int = 0,
        amf3: bool = False,
    ) -> None:
        self.name = name
        self.transactionId = transactionId
        self.arguments = arguments
        self.streamId = streamId
        self.amf3 = amf3

    def argument(self, index: int, default: Any = None) -> Any:  # noqa: ANN401
        """The argument at an index, or a default if the peer sent fewer."""
        return self.arguments[index] if index < len(self.arguments) else default

    def __repr__(self) -> str:
        return f"<Command {self.name!a} {self.transactionId:g} on {self.streamId}>"


class UserControl:
    """
    A user control message.  RTMP 1.0, 7.1.7.

    @ivar eventType: see L{UserControlType<constants.UserControlType>}.
    @ivar value: its first 32-bit field: a message stream id, mostly.
    @ivar extra: its second one (Set Buffer Length has milliseconds there).
    """

    __slots__ = ("eventType", "extra", "value")

    def __init__(self, eventType: int, value: int, extra: int | None = None) -> None:
        self.eventType = eventType
        self.value = value
        self.extra = extra

    def __repr__(self) -> str:
        return f"<UserControl {self.eventType} {self.value} {self.extra}>"


class HandshakeDone:
    """
    The handshake is complete; chunks follow.

    @ivar digest: whether it was the digest handshake.
    """

    __slots__ = ("digest",)

    def __init__(self, digest: bool) -> None:
        self.digest = digest


class Ignored:
    """
    The first message of its type that means nothing to us.

    @ivar typeId: its message type id.
    """

    __slots__ = ("typeId",)

    def __init__(self, typeId: int) -> None:
        self.typeId = typeId


class Swallowed:
    """
    Bytes were taken that nobody has to learn of; there may be an answer to send.

    An event, so that each answer to a flood is on its way before the next message is
    looked at, and so that others have their turn between bytes that mean nothing.
    """

    __slots__ = ()


#: What a connection tells its user about.
Event = Message | Command | UserControl | HandshakeDone | Ignored | Swallowed


def splitAggregate(aggregate: Message) -> Iterator[Message]:
    """
    The messages inside an aggregate message, one at a time.  RTMP 1.0, 7.1.6.

    Their times are relative to the first one, which has the aggregate's time.
    The last back pointer may be missing (Red5, Wowza relays).

    @raise MessageError: a message runs past the aggregate.
    @raise LimitError: there are more than L{MAX_AGGREGATE_MESSAGES}.
    """
    payload = aggregate.payload
    at = 0
    count = 0
    first: int | None = None
    while len(payload) - at >= _SUBMESSAGE_HEADER_SIZE:
        typeId = payload[at] & 31
        size = int.from_bytes(payload[at + 1 : at + 4], "big")
        time = int.from_bytes(payload[at + 4 : at + 7], "big") | payload[at + 7] << 24
        at += _SUBMESSAGE_HEADER_SIZE
        if len(payload) - at < size:
            raise MessageError(
                f"a message of {size} bytes runs past its aggregate message",
                section="RTMP 1.0, 7.1.6",
                limit=len(payload) - at,
                got=size,
            )
        count += 1
        if count > MAX_AGGREGATE_MESSAGES:
            raise LimitError(
                f"an aggregate message of more than {MAX_AGGREGATE_MESSAGES} messages",
                section="RTMP 1.0, 7.1.6",
                limit=MAX_AGGREGATE_MESSAGES,
                got=count,
            )
        if first is None:
            first = time
        offset = ((time - first + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
        yield Message(
            typeId,
            aggregate.timestamp + offset,
            aggregate.streamId,
            payload[at : at + size],
        )
        at += size + _BACK_POINTER_SIZE
    if at < len(payload):
        raise MessageError(
            "an aggregate message ends within a message header",
            section="RTMP 1.0, 7.1.6",
            limit=_SUBMESSAGE_HEADER_SIZE,
            got=len(payload) - at,
        )
