"""
Messages: what the chunk layer carries, and the values inside them.

Imports the standard library and its own package's constants, errors and AMF.
"""

from __future__ import annotations


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
    @ivar flags: what L{media<twisted_rtmp.wire.media>} found in an audio or
        video payload; 0 until a stream has looked at it.
    """

    __slots__ = ("flags", "payload", "streamId", "timestamp", "typeId")

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
