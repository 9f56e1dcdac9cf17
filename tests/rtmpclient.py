"""
A client for tests: over memory, under a clock that the test turns, or over a socket.

What the server says is taken apart here once more, with the chunk stream ids that a
L{Connection} does not tell of.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.connection import Connection, Role
from twisted_rtmp.wire.constants import NEED_DATA
from twisted_rtmp.wire.handshake import ClientHandshake
from twisted_rtmp.wire.messages import Message

AUDIO, VIDEO, DATA, COMMAND = 8, 9, 18, 20

#: S0, S1 and S2, bytes.
HANDSHAKE = 1 + 1536 + 1536

AVC_HEADER = bytes.fromhex("17 00 000000 0142c01e ffe1 0004 6742c01e 01 0002 68ce")
AVC_KEY_FRAME = bytes.fromhex("17 01 000000 00000004 65888400")
AVC_FRAME = bytes.fromhex("27 01 000000 00000004 419a0000")
AAC_HEADER = bytes.fromhex("af 00 1210")
AAC_FRAME = bytes.fromhex("af 01 2110049000")


class Reply(NamedTuple):
    """One message of the server."""

    csid: int
    typeId: int
    streamId: int
    payload: bytes
    timestamp: int = 0

    @property
    def values(self) -> list[Any]:
        """Of a command or data message."""
        return amf0.decode(self.payload)

    @property
    def name(self) -> str:
        return self.values[0] if self.typeId in (COMMAND, DATA) else ""

    @property
    def code(self) -> str:
        """Of a status; empty for anything else."""
        values = self.values
        status = values[-1] if values else None
        return status.get("code", "") if isinstance(status, dict) else ""

    @property
    def number(self) -> int:
        """Of a protocol control message."""
        return int.from_bytes(self.payload[:4], "big")


class Chunks:
    """Takes a server's chunks apart, plainly."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._size = 128
        self._headers: dict[int, tuple[int, int, int, bool, int]] = {}
        self._parts: dict[int, bytearray] = {}

    def feed(self, data: bytes) -> list[Reply]:
        self._data += data
        replies = []
        while (reply := self._chunk()) is not None:
            if reply:
                replies.append(reply)
        return replies

    def _chunk(self) -> Reply | bool | None:
        """A message; or whether there was a chunk at all."""
        data = self._data
        if not data:
            return None
        fmt, csid, at = data[0] >> 6, data[0] & 63, 1
        assert csid > 1, "the server uses no large chunk stream ids"
        size = (11, 7, 3, 0)[fmt]
        if len(data) < at + size:
            return None
        length, typeId, streamId, extended, timestamp = self._headers.get(
            csid, (0, 0, 0, False, 0)
        )
        if fmt < 3:
            extended = data[at : at + 3] == b"\xff\xff\xff"
        if fmt < 2:
            length = int.from_bytes(data[at + 3 : at + 6], "big")
            typeId = data[at + 6]
        if fmt == 0:
            streamId = int.from_bytes(data[at + 7 : at + 11], "little")
        at += size + 4 * extended
        if fmt < 3:
            field = data[at - 4 : at] if extended else data[at - size : at - size + 3]
            time = int.from_bytes(field, "big")
            timestamp = time if fmt == 0 else timestamp + time
        part = self._parts.get(csid, bytearray())
        take = min(self._size, length - len(part))
        if len(data) < at + take:
            return None
        self._headers[csid] = (length, typeId, streamId, extended, timestamp)
        part += data[at : at + take]
        del data[: at + take]
        if len(part) < length:
            self._parts[csid] = part
            return False
        self._parts.pop(csid, None)
        if typeId == 1:
            self._size = int.from_bytes(part, "big")
        return Reply(csid, typeId, streamId, bytes(part), timestamp)


class Talk:
    """
    What a client says, and what it was told.

    @ivar connection: the client's end, for everything that is not sent raw.
    @ivar replies: all messages of the server.
    """

    def __init__(self) -> None:
        self.connection = Connection(
            Role.CLIENT, handshake=ClientHandshake(digest=False)
        )
        self.replies: list[Reply] = []
        self.received = b""
        self._chunks = Chunks()

    # To be given by a subclass

    def sendBytes(self, data: bytes) -> None:
        """Send raw bytes."""
        raise NotImplementedError

    # What came

    def heard(self, data: bytes) -> None:
        """The server said something."""
        before = max(0, HANDSHAKE - len(self.received))
        self.received += data
        self.connection.feed(data)
        while self.connection.nextEvent() is not NEED_DATA:
            pass
        self.replies += self._chunks.feed(data[before:])

    def take(self) -> list[Reply]:
        """The replies since the last time."""
        replies, self.replies = self.replies, []
        return replies

    def commands(self) -> list[Reply]:
        """The commands among the replies since the last time."""
        return [reply for reply in self.take() if reply.typeId == COMMAND]

    def codes(self) -> list[str]:
        """The codes of the statuses since the last time."""
        return [reply.code for reply in self.commands() if reply.code]

    # What is said

    def flush(self) -> None:
        """Send what the connection has to say."""
        data = self.connection.dataToSend()
        if data:
            self.sendBytes(data)

    def shakeHands(self) -> None:
        """C0 and C1; C2 follows S1."""
        self.connection.start()
        self.flush()

    def command(
        self,
        name: str,
        tid: float,
        *arguments: object,
        streamId: int = 0,
        csid: int = 3,
    ) -> None:
        self.connection.sendCommand(name, tid, *arguments, streamId=streamId, csid=csid)
        self.flush()

    def connect(self, app: str = "live", **properties: object) -> None:
        """Shake hands, if need be, and connect."""
        if not self.connection.handshakeDone:
            self.shakeHands()
        values = {"app": app, "tcUrl": f"rtmp://localhost/{app}", **properties}
        self.command("connect", 1.0, values)

    def publish(self, name: str = "key", app: str = "live") -> int:
        """
        Go all the way to a publication.

        @return: its message stream id, 1.
        """
        self.connect(app)
        self.command("createStream", 2.0, None)
        self.command("publish", 3.0, None, name, "live", streamId=1)
        return 1

    def media(
        self, typeId: int, payload: bytes, timestamp: int = 0, streamId: int = 1
    ) -> None:
        self.connection.sendMessage(
            Message(typeId, timestamp, streamId, payload),
            {AUDIO: 4, VIDEO: 6}.get(typeId, 5),
        )
        self.flush()


@implementer(ITCPTransport, IConsumer, IPushProducer)
class MemoryTransport:
    """
    The server's end of a connection in memory, as TCP would have it.

    @ivar taking: whether the peer reads what it is sent.
    @ivar queued: what it has not read yet.
    @ivar reading: whether the server reads.
    @ivar most: the most that was ever queued, bytes.
    @ivar options: what was set of the socket's.
    """

    bufferSize = 65_536

    def __init__(self, clock: Clock, client: Client) -> None:
        self.clock = clock
        self.client = client
        self.taking = True
        self.queued = bytearray()
        self.reading = True
        self.disconnecting = False
        self.disconnected = False
        self.aborted = False
        self.most = 0
        self.options: dict[str, bool] = {}
        self._producer: Any = None
        self._producerPaused = False

    def write(self, data: bytes) -> None:
        if self.disconnected or self.aborted:
            return
        self.queued += data
        self.most = max(self.most, len(self.queued))
        producer = self._producer
        if producer and len(self.queued) > self.bufferSize:
            self._producerPaused = True
            producer.pauseProducing()  # at each write, as Twisted's do

    def writeSequence(self, data: list[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.reading = False
        self.disconnecting = True

    def abortConnection(self) -> None:
        """Nothing more is read or sent; the protocol is told at the next turn."""
        if not self.aborted and not self.disconnected:
            self.aborted = True
            self.reading = False
            self.queued.clear()
            self.clock.callLater(0, self.lose, ConnectionAborted())

    def lose(self, error: Exception) -> None:
        if not self.disconnected:
            self.disconnected = True
            self._producer = None  # as Twisted's transports do
            self.client.protocol.connectionLost(Failure(error))

    def deliver(self) -> bytes:
        """What the peer takes now."""
        if not self.taking or self.disconnected:
            return b""
        data = bytes(self.queued)
        self.queued.clear()
        if self._producerPaused and self._producer:
            self._producerPaused = False
            self._producer.resumeProducing()
        if self.disconnecting and not self.queued:
            self.lose(ConnectionDone())
        return data

    def loseWriteConnection(self) -> None:
        raise NotImplementedError("nobody here closes half a connection")

    def getTcpNoDelay(self) -> bool:
        return self.options["noDelay"]

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.options["noDelay"] = enabled

    def getTcpKeepAlive(self) -> bool:
        return self.options["keepAlive"]

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.options["keepAlive"] = enabled

    def getPeer(self) -> IPv4Address:
        return self.client.address

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 1935)

    def registerProducer(self, producer: object, streaming: bool) -> None:
        assert streaming
        assert self._producer is None
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        if not self.disconnecting and not self.aborted:
            self.reading = True

    def stopProducing(self) -> None:
        self.loseConnection()


def decideBy(factory: Any, authorizer: Any) -> Any:
    """Let an authorizer decide from here on, and give it back."""
    registry = factory.registry
    registry.policy = replace(registry.policy, authorizer=authorizer)
    return authorizer


class Client(Talk):
    """
    A client in memory, connected to a protocol of a factory.

    @ivar protocol: the server's end.
    @ivar transport: what the server's end writes to.
    """

    _port = 50_000

    def __init__(
        self, factory: Any, clock: Clock | None = None, host: str = "198.51.100.7"
    ) -> None:
        """
        @param factory: an L{RTMPFactory}, or what is wrapped around one.
        @param clock: the factory's, if it does not tell.
        @param host: the client's own address.
        """
        super().__init__()
        Client._port += 1
        self.address = IPv4Address("TCP", host, Client._port)
        self._unread = bytearray()
        self._pumping = False
        self.transport = MemoryTransport(clock or factory.clock, self)
        protocol = factory.buildProtocol(self.address)
        self.turnedAway = protocol is None
        if protocol is not None:
            self.protocol = protocol
            protocol.makeConnection(self.transport)

    @property
    def open(self) -> bool:
        """Whether the server has not closed yet."""
        return not self.transport.disconnected and not self.transport.disconnecting

    def sendBytes(self, data: bytes) -> None:
        self._unread += data
        self.pump()

    def flush(self) -> None:
        if not self._pumping:
            super().flush()

    def pump(self) -> None:
        """Carry bytes both ways until there are none that can go."""
        if self._pumping:
            return
        self._pumping = True
        moved = True
        while moved:
            moved = False
            if self._unread and self.transport.reading and self.open:
                data = bytes(self._unread)
                self._unread.clear()
                self.protocol.dataReceived(data)
                moved = True
            self.transport.clock.advance(0)  # TLS gathers what it writes in a turn
            data = self.transport.deliver()
            if data:
                self.heard(data)
                moved = True
            self._unread += self.connection.dataToSend()
            moved = moved or bool(self._unread and self.transport.reading and self.open)
        self._pumping = False

    def take(self) -> list[Reply]:
        self.pump()
        return super().take()

    def leave(self) -> None:
        """Close the connection, as a peer does: the server sees its FIN."""
        self.pump()
        self.transport.lose(ConnectionDone())


class SocketClient(Talk):
    """A client over a blocking socket, for servers in processes of their own."""

    def __init__(self, host: str, port: int, patience: float = 30) -> None:
        super().__init__()
        self.socket = socket.create_connection((host, port), patience)
        self._looked = 0  # how many of the replies L{until} has seen

    def __enter__(self):
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def sendBytes(self, data: bytes) -> None:
        self.socket.sendall(data)

    def until(self, wanted: Callable[[Reply], bool]) -> Reply:
        """
        Read on to the first reply that is wanted, from where the last call stopped;
        all replies are kept.
        """
        while True:
            for reply in self.replies[self._looked :]:
                self._looked += 1
                if wanted(reply):
                    return reply
            data = self.socket.recv(65_536)
            assert data, f"closed before; told {self.replies}"
            self.heard(data)
            self.flush()

    def take(self) -> list[Reply]:
        self._looked = 0
        return super().take()

    def untilCode(self, code: str) -> Reply:
        """Read on to a status."""
        return self.until(lambda reply: reply.typeId == COMMAND and reply.code == code)

    def untilResult(self, tid: float) -> Reply:
        """Read on to the answer to a command."""
        return self.until(
            lambda reply: reply.name == "_result" and reply.values[1] == tid
        )

    def shakeHands(self) -> None:
        super().shakeHands()
        while not self.connection.handshakeDone:
            data = self.socket.recv(65_536)
            assert data, "closed amid the handshake"
            self.heard(data)
            self.flush()

    def publish(self, name: str = "key", app: str = "live") -> int:
        self.connect(app)
        self.untilResult(1)
        self.command("createStream", 2.0, None)
        streamId = int(self.untilResult(2).values[3])
        self.command("publish", 3.0, None, name, "live", streamId=streamId)
        self.untilCode("NetStream.Publish.Start")
        return streamId
