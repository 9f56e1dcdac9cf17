"""
One RTMP connection without its transport: bytes in, events and bytes out.

Imports the standard library and its own package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from enum import Enum
from typing import Literal

from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amftranslation import inAMF0
from twisted_rtmp.wire.chunk import SWALLOWED_CHUNKS, ChunkReader, ChunkWriter
from twisted_rtmp.wire.constants import (
    NEED_DATA,
    MessageType,
    NeedData,
    PeerBandwidthLimit,
    UserControlType,
)
from twisted_rtmp.wire.errors import LimitError, MessageError, ProtocolError
from twisted_rtmp.wire.handshake import ClientHandshake, ServerHandshake
from twisted_rtmp.wire.limits import DEFAULT_WIRE_LIMITS, WireLimits
from twisted_rtmp.wire.messages import (
    Command,
    Event,
    HandshakeDone,
    Ignored,
    Message,
    Swallowed,
    UserControl,
    splitAggregate,
)

#: Bytes after which a peer that names no window gets an acknowledgement.  ffmpeg and
#: librtmp name none, and do not read what comes while they publish; a system that
#: closes a connection with unread data resets it, and throws away what it has not
#: sent yet: the last seconds of a fast stream.  SRS and gortmplib send none either.
NEVER = 1 << 63

#: The smallest window that is honoured, in bytes: a smaller one would cost
#: more acknowledgements than it is worth.
MIN_WINDOW = 1000

#: Largest command, in bytes.  Commands are names, tokens and lists of codecs: some
#: kB.  What they name is remembered and said in replies, so a command of 8 MiB would
#: cost many times that.
MAX_COMMAND_SIZE = 64 * 1024

#: Messages that mean nothing to us, in a row, before L{Connection.nextEvent} returns
#: all the same: a read can hold 90,000 of them, which are a second of work.
SWALLOWED_MESSAGES = 16

#: Chunk stream of protocol control messages.  RTMP 1.0, 5.3.1.1.
CONTROL_CHUNK_STREAM = 2

#: Chunk stream of replies to commands; on any other, Larix drops the
#: connection (SRS 7.0 had to learn it).
COMMAND_CHUNK_STREAM = 3

_FRAMES = (int(MessageType.VIDEO), int(MessageType.AUDIO))
_MEDIA = frozenset(
    (
        MessageType.AUDIO,
        MessageType.VIDEO,
        MessageType.DATA_AMF0,
        MessageType.DATA_AMF3,
    )
)


def _noFrame() -> None:
    """Have no message that comes before what L{Connection.nextEvent} tells."""


_SWALLOWED = Swallowed()
_SWALLOWED_RANGE = range(SWALLOWED_MESSAGES)


class Role(Enum):
    """The end of the connection that a L{Connection} is."""

    SERVER = "server"
    CLIENT = "client"


class Connection:
    """
    The state of one connection: handshake, chunks, protocol control.

    Feed it what comes, take events until L{NEED_DATA}, send what
    L{dataToSend} gives.  Acknowledgements, pings, Set Chunk Size, Abort and
    Set Peer Bandwidth are seen to here; so are the two forms that commands and data
    have: what comes with AMF3 values is given out as AMF0 has it.

    @ivar role: which end this is.
    @ivar handshakeDone: whether chunks may be sent and are read.
    @ivar bytesReceived: everything fed, the handshake included.
    @ivar bytesSent: everything that L{dataToSend} gave.
    @ivar acknowledged: the last sequence number the peer acknowledged, 32
        bits.
    @ivar window: bytes after which the peer wants an acknowledgement; 0 until it
        has asked for any.
    @ivar outgoing: what L{dataToSend} gives next, in pieces: always the same list.
    @ivar outgoingBytes: how much that is.
    @ivar nextFrame: gives the next audio or video message where that is quick work, and
        else something false, L{NEED_DATA} or L{None}: then L{nextEvent} tells.
    @ivar reader: the chunk reader, for its counters.
    @ivar writer: the chunk writer.
    @ivar takesData: whether data messages are wanted; those that are not are given out
        as they came, AMF3 or not, since reading them costs more than their bytes.
    @ivar ignored: messages of types that mean nothing to us, by type id.
    @ivar amf3: whether a server's peer sends its commands as message type 17: then
        it is told everything so.  A client is what it said in C{connect}.
    """

    def __init__(
        self,
        role: Role,
        limits: WireLimits = DEFAULT_WIRE_LIMITS,
        *,
        handshake: ServerHandshake | ClientHandshake | None = None,
    ) -> None:
        self.role = role
        self._limits = limits
        self._handshake: ServerHandshake | ClientHandshake | None = handshake or (
            ServerHandshake() if role is Role.SERVER else ClientHandshake()
        )
        self.handshakeDone = False
        self.bytesReceived = 0
        self.bytesSent = 0
        self.acknowledged = 0
        self.window = 0
        self.reader = ChunkReader(limits, SWALLOWED_CHUNKS)
        self.writer = ChunkWriter()
        self.takesData = True
        self.ignored: dict[int, int] = {}
        self.amf3 = False
        self._lastAcknowledged = 0
        self._acknowledgeAt = NEVER
        self._announcedWindow = 0
        self._aggregate: Iterator[Message] | None = None
        self._aggregateBytes = 0
        self._error: ProtocolError | None = None
        self.nextFrame: Callable[[], Message | Literal[NeedData.NEED_DATA] | None]
        self.nextFrame = _noFrame
        self.outgoing: list[bytes] = []
        self.outgoingBytes = 0

    # Bytes in, events out

    def feed(self, data: bytes) -> None:
        """Add what a read brought."""
        self.bytesReceived += len(data)
        if self._error is not None:
            return
        if self._handshake is not None:
            self._handshake.receive(data)
        else:
            self.reader.feed(data)
            if self.bytesReceived >= self._acknowledgeAt:
                self._acknowledge()

    def nextEvent(self) -> Event | Literal[NeedData.NEED_DATA]:
        """
        The next thing that the peer did.

        @raise ProtocolError: what the peer did is not allowed.  All that came
            before it has been returned; all further calls raise it again.
        """
        if self._error is not None:
            raise copy(self._error)
        try:
            if self._handshake is not None:
                return self._shakeHands(self._handshake)
            for _ in _SWALLOWED_RANGE:
                message: Message | Literal[NeedData.NEED_DATA] | None
                if self._aggregate is None:
                    message = self.reader.nextOther()
                    if message is None:
                        break
                else:
                    message = self._nextOfAggregate(self._aggregate)
                    if message is None:
                        continue
                if message is NEED_DATA or message.typeId in _FRAMES:
                    return message
                event = self._dispatch(message)
                if event is not None:
                    return event
            return _SWALLOWED
        except ProtocolError as error:
            # Never the error that is raised: its traceback holds this object, and so
            # would keep all that has come until a garbage collection.
            self._error = copy(error)
            self.forget()
            self.nextFrame = _noFrame
            raise

    @property
    def keptBytes(self) -> int:
        """The bytes that have come and were not returned: not read, or unfinished."""
        reader = self.reader
        kept = reader.unfinished + reader.pending
        return kept if self._aggregate is None else kept + self._aggregateBytes

    def forget(self) -> None:
        """Free what has come and was not returned: nothing more is read."""
        self.reader.forget()
        self._closeAggregate()

    def _shakeHands(
        self, handshake: ServerHandshake | ClientHandshake
    ) -> Event | Literal[NeedData.NEED_DATA]:
        """Go on with the handshake; at its end, begin with chunks."""
        reply = handshake.dataToSend()
        if reply:
            self._add(reply)
        if not handshake.done:
            return NEED_DATA
        self._handshake = None
        self.handshakeDone = True
        self.reader.feed(handshake.trailing())
        self.nextFrame = self.reader.nextFrame
        return HandshakeDone(handshake.digest)

    def _nextOfAggregate(self, aggregate: Iterator[Message]) -> Message | None:
        """The next message of the open aggregate that is media or data."""
        message = next(aggregate, None)
        if message is None:
            self._closeAggregate()
        elif message.typeId not in _MEDIA:
            self._countIgnored(message.typeId)
            return None
        return message

    def _closeAggregate(self) -> None:
        """Go on with what comes behind the open aggregate, if there is one."""
        if self._aggregate is not None:
            self._aggregate = None
            self.nextFrame = self.reader.nextFrame

    def _dispatch(self, message: Message) -> Event | None:
        """Anything but audio and video."""
        typeId = message.typeId
        payload = message.payload
        if typeId == MessageType.DATA_AMF0:
            if self.takesData:
                message.payload, message.values = inAMF0(payload, self._limits)
            return message
        if typeId == MessageType.DATA_AMF3:
            # A byte that says AMF0, and AMF0 with AMF3 values marked as such.
            message.typeId = MessageType.DATA_AMF0
            if payload[:1] == b"\x00":
                payload = payload[1:]
            message.payload = payload
            if self.takesData:
                message.payload, message.values = inAMF0(payload, self._limits)
            return message
        if typeId == MessageType.COMMAND_AMF0:
            return self._command(payload, message.streamId, amf3=False)
        if typeId == MessageType.COMMAND_AMF3:
            if payload[:1] == b"\x00":
                payload = payload[1:]
            return self._command(payload, message.streamId, amf3=True)
        if typeId == MessageType.AGGREGATE:
            self._aggregate = splitAggregate(message)
            self._aggregateBytes = len(payload)
            self.nextFrame = _noFrame
            return None
        if typeId == MessageType.USER_CONTROL:
            return self._userControl(payload)
        if typeId == MessageType.ACKNOWLEDGEMENT:
            self.acknowledged = self._number(payload, "Acknowledgement", "5.4.3")
            return None
        if typeId == MessageType.WINDOW_ACKNOWLEDGEMENT_SIZE:
            window = self._number(payload, "Window Acknowledgement Size", "5.4.4")
            self.window = max(window, MIN_WINDOW)
            self._acknowledge()
            return None
        if typeId == MessageType.SET_PEER_BANDWIDTH:
            window = self._number(payload, "Set Peer Bandwidth", "5.4.5")
            if window and window != self._announcedWindow:
                self.sendWindowAcknowledgementSize(window)
                return _SWALLOWED
            return None
        return self._countIgnored(typeId)

    def _countIgnored(self, typeId: int) -> Ignored | None:
        """Count a message without meaning; tell of the first of its type."""
        count = self.ignored.get(typeId, 0)
        self.ignored[typeId] = count + 1
        return None if count else Ignored(typeId)

    @staticmethod
    def _number(payload: bytes, name: str, section: str) -> int:
        """The 32-bit number that a protocol control message is."""
        if len(payload) < 4:
            raise MessageError(
                f"{name} is shorter than 4 bytes",
                section=f"RTMP 1.0, {section}",
                limit=4,
                got=len(payload),
            )
        return int.from_bytes(payload[:4], "big")

    def _command(self, payload: bytes, streamId: int, amf3: bool) -> Command:
        if len(payload) > MAX_COMMAND_SIZE:
            raise LimitError(
                f"a command of {len(payload)} bytes is over the limit of"
                f" {MAX_COMMAND_SIZE}",
                section="RTMP 1.0, 7.1.1",
                limit=MAX_COMMAND_SIZE,
                got=len(payload),
            )
        values = amf0.decode(payload, self._limits.forCommands)
        if not values or not isinstance(values[0], str):
            raise MessageError(
                "a command begins with no name", section="RTMP 1.0, 7.1.1"
            )
        # Some cameras leave the transaction id out, or send null.
        transactionId = values[1] if len(values) > 1 else 0.0
        if not isinstance(transactionId, (int, float)):
            transactionId = 0.0
        self.amf3 = amf3 and self.role is Role.SERVER
        return Command(values[0], transactionId, values[2:], streamId, amf3)

    def _userControl(self, payload: bytes) -> UserControl | None:
        if len(payload) < 6:
            # An event type alone tells nothing; seen as padding from cameras.
            self._countIgnored(MessageType.USER_CONTROL)
            return None
        eventType = int.from_bytes(payload[:2], "big")
        value = int.from_bytes(payload[2:6], "big")
        if eventType == UserControlType.PING_REQUEST:
            # Answered here; it is an event all the same, so that each answer to
            # a flood is on its way before the next ping is looked at.
            self.sendUserControl(UserControlType.PING_RESPONSE, value)
        extra = int.from_bytes(payload[6:10], "big") if len(payload) >= 10 else None
        return UserControl(eventType, value, extra)

    def _acknowledge(self) -> None:
        """
        Tell the peer how much came, half a window early as ffmpeg and SRS do:
        a peer that stops at a full window never stops.
        """
        received = self.bytesReceived
        half = self.window // 2
        if received >= self._lastAcknowledged + half:
            self._lastAcknowledged = received
            self._send(
                CONTROL_CHUNK_STREAM,
                MessageType.ACKNOWLEDGEMENT,
                (received & 0xFFFFFFFF).to_bytes(4, "big"),
            )
        self._acknowledgeAt = self._lastAcknowledged + half

    # Bytes out

    def dataToSend(self) -> bytes:
        """Take the bytes to be sent to the peer now; each is given once."""
        outgoing = self.outgoing
        if not outgoing:
            return b""
        data = b"".join(outgoing) if len(outgoing) > 1 else outgoing[0]
        outgoing.clear()
        self.outgoingBytes = 0
        self.bytesSent += len(data)
        return data

    def _add(self, data: bytes) -> None:
        """Send something behind all else."""
        self.outgoing.append(data)
        self.outgoingBytes += len(data)

    def start(self) -> None:
        """Begin the handshake, if it is this end that speaks first."""
        if self._handshake is not None:
            self._add(self._handshake.dataToSend())

    def _send(self, csid: int, typeId: int, payload: bytes, streamId: int = 0) -> None:
        self._add(self.writer.encode(csid, typeId, 0, streamId, payload))

    def sendMessage(self, message: Message, csid: int) -> None:
        """Send an audio, video or data message, at its own time."""
        self._add(
            self.writer.encode(
                csid,
                message.typeId,
                message.timestamp,
                message.streamId,
                message.payload,
            )
        )

    def sendCommand(
        self,
        name: str,
        transactionId: float,
        *arguments: object,
        streamId: int = 0,
        csid: int = COMMAND_CHUNK_STREAM,
        amf3: bool | None = None,
    ) -> None:
        """
        Send a command or the reply to one.

        @param amf3: whether to send message type 17; as L{amf3} says by default.
        @raise UsageError: a value has no AMF0 form.
        """
        payload = amf0.encode(name, transactionId, *arguments)
        if self.amf3 if amf3 is None else amf3:
            self._send(csid, MessageType.COMMAND_AMF3, b"\x00" + payload, streamId)
        else:
            self._send(csid, MessageType.COMMAND_AMF0, payload, streamId)

    def sendData(self, *values: object, streamId: int, csid: int) -> None:
        """Send a data message, at time 0."""
        self._send(csid, MessageType.DATA_AMF0, amf0.encode(*values), streamId)

    def sendUserControl(self, eventType: int, *values: int) -> None:
        """Send a user control message with its 32-bit fields."""
        payload = eventType.to_bytes(2, "big") + b"".join(
            value.to_bytes(4, "big") for value in values
        )
        self._send(CONTROL_CHUNK_STREAM, MessageType.USER_CONTROL, payload)

    def sendChunkSize(self, size: int) -> None:
        """Announce a chunk size in bytes, and use it from here on."""
        self._send(
            CONTROL_CHUNK_STREAM, MessageType.SET_CHUNK_SIZE, size.to_bytes(4, "big")
        )
        self.writer.chunkSize = size

    def sendWindowAcknowledgementSize(self, window: int) -> None:
        """Ask for an acknowledgement each so many bytes."""
        self._announcedWindow = window
        self._send(
            CONTROL_CHUNK_STREAM,
            MessageType.WINDOW_ACKNOWLEDGEMENT_SIZE,
            window.to_bytes(4, "big"),
        )

    def sendPeerBandwidth(
        self, window: int, limitType: int = PeerBandwidthLimit.DYNAMIC
    ) -> None:
        """Bound what the peer sends without an acknowledgement, in bytes."""
        self._send(
            CONTROL_CHUNK_STREAM,
            MessageType.SET_PEER_BANDWIDTH,
            window.to_bytes(4, "big") + bytes((limitType,)),
        )
