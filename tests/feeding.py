"""
Chunks written field by field, and every way in which a peer's bytes may be cut.

What comes out must not depend on the cuts: L{outcome} feeds pieces and says what
came out, in terms that can be compared.  L{Server} is a whole server in memory.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import IMediaSink, ISinkFactory
from twisted_rtmp.live.streams import LiveStream
from twisted_rtmp.protocol import RTMPProtocol
from twisted_rtmp.wire.chunk import ChunkReader
from twisted_rtmp.wire.connection import Connection, Role
from twisted_rtmp.wire.constants import NEED_DATA
from twisted_rtmp.wire.errors import ProtocolError
from twisted_rtmp.wire.handshake import ServerHandshake
from twisted_rtmp.wire.limits import DEFAULT_WIRE_LIMITS, WireLimits
from twisted_rtmp.wire.messages import Command, Ignored, Message, UserControl

# Chunks


def basic(headerFormat: int, csid: int, size: int = 0) -> bytes:
    """
    A basic header.

    @param size: of 1, 2 or 3 bytes; 0: the shortest that fits.
    """
    size = size or (1 if csid < 64 else 2 if csid < 320 else 3)
    if size == 1:
        return bytes((headerFormat << 6 | csid,))
    if size == 2:
        return bytes((headerFormat << 6, csid - 64))
    return bytes((headerFormat << 6 | 1,)) + (csid - 64).to_bytes(2, "little")


def chunk(
    headerFormat: int,
    csid: int,
    data: bytes = b"",
    *,
    time: int | None = None,
    length: int | None = None,
    type: int = 9,  # noqa: A002
    stream: int = 1,
    size: int = 0,
) -> bytes:
    """
    One chunk, with whatever the fields are told to be.

    @param time: timestamp or delta; from 0xFFFFFF on it is written extended.  A
        format 3 header has none but an extended one.
    @param length: the message's; the data's if not given.
    @param size: see L{basic}.
    """
    time = time or 0
    header = basic(headerFormat, csid, size)
    if headerFormat < 3:
        header += min(time, 0xFFFFFF).to_bytes(3, "big")
    if headerFormat < 2:
        header += (len(data) if length is None else length).to_bytes(3, "big")
        header += bytes((type,))
    if headerFormat < 1:
        header += stream.to_bytes(4, "little")
    if time >= 0xFFFFFF:
        header += time.to_bytes(4, "big")
    return header + data


def control(typeId: int, *values: int, size: int = 4) -> bytes:
    """A protocol control message of 32-bit numbers, on chunk stream 2."""
    payload = b"".join(value.to_bytes(size, "big") for value in values)
    return chunk(0, 2, payload, type=typeId, stream=0)


def setChunkSize(size: int) -> bytes:
    return control(1, size)


def abort(csid: int) -> bytes:
    return control(2, csid)


def payloadOf(size: int, seed: int = 0) -> bytes:
    """Bytes that look like nothing else, least of all like headers."""
    return random.Random(size * 1000 + seed).randbytes(size)


# Pieces


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def randomPieces(data: bytes, rng: random.Random, mean: float) -> list[bytes]:
    """Cut at random; some pieces are empty, since a read may bring nothing."""
    pieces = []
    at = 0
    while at < len(data):
        size = int(rng.expovariate(1 / mean))
        pieces.append(data[at : at + size])
        at += size
    return pieces


def ways(data: bytes, seed: int = 1) -> Iterator[tuple[str, list[bytes]]]:
    """
    Every way in which some bytes may come: whole, byte by byte, cut in two
    anywhere, and in random pieces.

    @return: pairs of a name for messages and the pieces.
    """
    yield "whole", [data]
    yield "byte by byte", bytewise(data)
    for cut in range(1, len(data)):
        yield f"cut at {cut}", [data[:cut], data[cut:]]
    for n in range(10):
        for mean in (3, 40, 500):
            rng = random.Random(f"{seed}/{n}/{mean}")
            yield f"seed {seed}/{n}/{mean}", randomPieces(data, rng, mean)


# What came out


@dataclass
class Outcome:
    """
    All that a peer's bytes led to.

    @ivar events: each event as a tuple of plain values.
    @ivar error: the class, section and limit of the error at the end.
    """

    events: list[tuple[Any, ...]] = field(default_factory=list)
    error: tuple[type[ProtocolError], str, int | None] | None = None


def plain(event: object) -> tuple[Any, ...]:
    """An event as plain values; a message as type, stream, time, payload."""
    if isinstance(event, Message):
        return (event.typeId, event.streamId, event.timestamp, event.payload)
    if isinstance(event, Command):
        # By its text, since an AMF value may be a NaN, which equals nothing.
        arguments = repr(event.arguments)
        identity = repr(event.transactionId)
        return (event.name, identity, arguments, event.streamId, event.amf3)
    if isinstance(event, UserControl):
        return ("user control", event.eventType, event.value, event.extra)
    if isinstance(event, Ignored):
        return ("ignored", event.typeId)
    return (type(event).__name__,)


def outcome(
    feed: Callable[[bytes], None],
    following: Callable[[], object],
    pieces: Iterable[bytes],
) -> Outcome:
    """
    Feed pieces until an error.

    @param following: gives the next event, or NEED_DATA.
    """
    result = Outcome()
    try:
        for piece in pieces:
            feed(piece)
            while (event := following()) is not NEED_DATA:
                result.events.append(plain(event))
    except ProtocolError as error:
        result.error = (type(error), error.section, error.limit)
    return result


def readChunks(
    pieces: Iterable[bytes], limits: WireLimits = DEFAULT_WIRE_LIMITS
) -> Outcome:
    """What a new L{ChunkReader} makes of pieces."""
    reader = ChunkReader(limits)
    return outcome(reader.feed, reader.nextMessage, pieces)


class NoHandshake(ServerHandshake):
    """A handshake that is over before it began."""

    done = True  # type: ignore[assignment]


def connected(
    role: Role = Role.SERVER, limits: WireLimits = DEFAULT_WIRE_LIMITS
) -> Connection:
    """A L{Connection} behind its handshake."""
    connection = Connection(role, limits, handshake=NoHandshake())
    connection.nextEvent()
    return connection


def readConnection(
    pieces: Iterable[bytes],
    role: Role = Role.SERVER,
    limits: WireLimits = DEFAULT_WIRE_LIMITS,
) -> Outcome:
    """What a new L{Connection} behind its handshake makes of pieces."""
    connection = connected(role, limits)
    return outcome(connection.feed, connection.nextEvent, pieces)


# A server in memory


@implementer(IMediaSink)
class CollectingSink:
    """
    Keeps what a live stream gives it.

    @ivar messages: as L{plain} has them.
    """

    def __init__(self, stream: LiveStream) -> None:
        self.stream = stream
        self.messages: list[tuple[Any, ...]] = []
        self.ended = False

    def mediaReceived(self, message: Message) -> None:
        assert not self.ended
        self.messages.append(plain(message))

    def streamEnded(self) -> None:
        assert not self.ended
        self.ended = True


class Transport(StringTransport):
    """A transport that ends the connection when the test says so."""

    bufferSize = 65536

    def take(self) -> bytes:
        """What was written since the last time."""
        data: bytes = self.value()
        self.clear()
        return data


@implementer(ISinkFactory)
class Server:
    """
    A server with a clock of its own and a collecting sink for every stream.

    @ivar sinks: of all streams, in the order in which they began.
    """

    sinkName = "collection"

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.sinks: list[CollectingSink] = []
        self.factory = RTMPFactory(self.clock, sinkFactories=[self], **options)

    def openSink(self, stream: LiveStream) -> CollectingSink:
        self.sinks.append(CollectingSink(stream))
        return self.sinks[-1]

    def accept(self) -> tuple[RTMPProtocol, Transport]:
        """A new connection."""
        address = IPv4Address("TCP", "192.0.2.1", 40000)
        protocol = self.factory.buildProtocol(address)
        assert protocol is not None
        transport = Transport(peerAddress=address)
        protocol.makeConnection(transport)
        return protocol, transport

    def play(self, pieces: Iterable[bytes]) -> RTMPProtocol:
        """A connection that sends pieces and is closed."""
        protocol, transport = self.accept()
        for piece in pieces:
            if transport.disconnecting:
                break
            protocol.dataReceived(piece)
        protocol.connectionLost(Failure(ConnectionDone()))
        return protocol

    @property
    def streams(self) -> list[list[tuple[Any, ...]]]:
        """What each stream came to; all of them must have ended."""
        assert all(sink.ended for sink in self.sinks)
        return [sink.messages for sink in self.sinks]


class Peer:
    """
    A client of a L{Server}, which does what it is told and hears the answers.

    @ivar wire: its own end of the connection, for sending.
    @ivar answers: all events that came, as L{plain} has them.
    """

    def __init__(self, server: Server) -> None:
        self.protocol, self.transport = server.accept()
        self.wire = Connection(Role.CLIENT)
        self.wire.start()
        self.answers: list[tuple[Any, ...]] = []
        self.commands: list[Command] = []
        self.lost = False
        self.exchange()

    def exchange(self, *raw: bytes) -> None:
        """Send what is to be sent, and chunks of one's own; hear the answers."""
        self.protocol.dataReceived(self.wire.dataToSend() + b"".join(raw))
        while data := self.transport.take():
            self.wire.feed(data)
            while (event := self.wire.nextEvent()) is not NEED_DATA:
                self.answers.append(plain(event))
                if isinstance(event, Command):
                    self.commands.append(event)
            if not self.lost:
                self.protocol.dataReceived(self.wire.dataToSend())

    def call(self, name: str, *arguments: object, **options: Any) -> list[Command]:
        """Send a command; return the commands that came in answer."""
        before = len(self.commands)
        self.wire.sendCommand(name, *arguments, **options)
        self.exchange()
        return self.commands[before:]

    def connect(self, **properties: object) -> list[Command]:
        """The C{connect} command."""
        return self.call("connect", 1, {"app": "live", **properties})

    def publish(self, name: str = "s", streamId: int = 1) -> list[Command]:
        """Create a message stream and publish on it."""
        self.call("createStream", 2, None)
        return self.call("publish", 3, None, name, "live", streamId=streamId)

    def close(self) -> None:
        """TCP's end."""
        self.lost = True
        self.protocol.connectionLost(Failure(ConnectionDone()))


def codes(commands: Iterable[Command]) -> list[str]:
    """The status codes of answers."""
    return [
        argument["code"]
        for command in commands
        for argument in command.arguments
        if isinstance(argument, dict) and "code" in argument
    ]


# Recorded sessions

SESSIONS = Path(__file__).parent / "sessions"

#: C0, C1 and C2.
HANDSHAKE = 1 + 1536 + 1536


def session(name: str) -> bytes:
    """What a client sent, handshake included."""
    return (SESSIONS / f"{name}.rtmp").read_bytes()
