"""A connection among others: turns, paced reads, replies that are sent together."""

from __future__ import annotations

import gc
import socket
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from protocolkit import Ask
from rtmpclient import AAC_FRAME, AUDIO, Client
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection as TCPConnection
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_rtmp.auth import AllowList
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import IMediaSink
from twisted_rtmp.link import GATHERED_BYTES, TURN_MESSAGES, Hold
from twisted_rtmp.live.turns import ROUND_SECONDS, TURN_SECONDS
from twisted_rtmp.wire.connection import Connection, Role
from twisted_rtmp.wire.constants import NEED_DATA
from twisted_rtmp.wire.handshake import ClientHandshake
from twisted_rtmp.wire.messages import Message


def test_othersHaveTheirTurn(clock: Clock) -> None:
    """A peer whose messages take long is dispatched by and by, in order."""
    factory = RTMPFactory(clock)
    client = Client(factory)
    client.publish("key")
    [stream] = factory.streams.values()
    taken: list[int] = []

    @implementer(IMediaSink)
    class SlowSink:
        def mediaReceived(self, message):
            taken.append(message.timestamp)
            clock.rightNow += TURN_SECONDS / TURN_MESSAGES * 1.5

        def streamEnded(self):
            pass

    stream.addSink(SlowSink())
    count = TURN_MESSAGES * 3
    for time in range(count):
        client.connection.sendMessage(Message(AUDIO, time, 1, AAC_FRAME), 4)
    data = client.connection.dataToSend()
    client.protocol.dataReceived(data)
    assert taken == list(range(TURN_MESSAGES))
    assert not client.transport.reading
    [turn] = [call for call in clock.getDelayedCalls() if call.func.__name__ == "_turn"]
    assert turn.getTime() <= clock.seconds()
    clock.advance(0)
    assert taken == list(range(count))
    assert client.transport.reading


def test_theTurnOfAPeerThatIsGone(clock: Clock) -> None:
    def slow() -> None:
        clock.rightNow += TURN_SECONDS

    authorizer = Ask(publish=slow)
    client = Client(RTMPFactory(clock, authorizer=authorizer))
    client.connect()
    for number in range(2):
        client.connection.sendCommand(
            "publish", 0, None, str(number), "live", streamId=number + 1
        )
    for _ in range(TURN_MESSAGES):
        client.connection.sendCommand("unknown", 0, None)
    client.protocol.dataReceived(client.connection.dataToSend())
    assert [request.name for request in authorizer.asked[1:]] == ["0", "1"]
    assert not client.transport.reading
    client.leave()
    assert not clock.getDelayedCalls()


# Paced reads, on real sockets


class PacedPair:
    """A publisher's connection whose reads are called as at a tick."""

    def __init__(self, factory: RTMPFactory) -> None:
        from twisted.internet import reactor

        ours, self.peer = socket.socketpair()
        self.protocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        assert self.protocol is not None
        ours.setblocking(False)
        self.transport = ConnectedSocket(ours, self.protocol, reactor)
        self.protocol.makeConnection(self.transport)

    def close(self) -> None:
        self.peer.close()
        if self.transport.connected:
            self.transport.connectionLost(Failure(ConnectionDone()))


class ConnectedSocket(TCPConnection):
    """A transport that notes whether the reactor would read it."""

    connected = 1
    reading = True

    def startReading(self):
        self.reading = True

    def stopReading(self):
        self.reading = False

    def getPeer(self):
        return IPv4Address("TCP", "192.0.2.1", 1)

    def setTcpNoDelay(self, enabled):
        """A socket of a pair has no such option."""

    def setTcpKeepAlive(self, enabled):
        """Nor this one."""


@pytest.fixture
def pair(clock: Clock) -> Iterator[PacedPair]:
    pair = PacedPair(RTMPFactory(clock))
    yield pair
    pair.close()


def test_aPacedReadTakesWhatHasCome(pair: PacedPair, clock: Clock) -> None:
    pair.protocol.holdPace()
    assert not pair.transport.reading
    client = Connection(Role.CLIENT, handshake=ClientHandshake(digest=False))
    client.start()
    pair.peer.sendall(client.dataToSend())
    data = pair.protocol.readPaced()
    assert len(data) == 1537
    assert not pair.transport.reading
    pair.protocol.takePaced(data, clock.seconds())
    assert pair.transport.reading


def test_aPacedReadOfNothingGoesOnAsUsual(pair: PacedPair) -> None:
    pair.protocol.holdPace()
    assert pair.protocol.readPaced() == b""
    assert pair.transport.reading


def test_theEndIsLeftToTheReactor(pair: PacedPair) -> None:
    pair.protocol.holdPace()
    pair.peer.close()
    assert pair.protocol.readPaced() == b""
    assert pair.transport.connected
    assert pair.transport.reading


def test_aPacedReadThatFailsEndsTheConnection(pair: PacedPair, clock: Clock) -> None:
    pair.protocol.holdPace()
    pair.transport.socket.close()
    assert pair.protocol.readPaced() == b""
    assert not pair.transport.connected
    assert not pair.protocol.factory.connections
    assert not clock.getDelayedCalls()


def test_aBugInAPacedReadEndsItsConnectionOnly(
    pair: PacedPair, clock: Clock, loggedFailures: Any, monkeypatch: Any
) -> None:
    def broken(data: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(pair.protocol.wire, "feed", broken)
    pair.protocol.holdPace()
    pair.peer.sendall(b"x")
    pair.protocol.takePaced(pair.protocol.readPaced(), clock.seconds())
    assert not pair.transport.connected
    assert len(loggedFailures.take(ZeroDivisionError)) == 1


def test_aPublisherStaysWithThePacer(pair: PacedPair, clock: Clock) -> None:
    """As long as it sends, and nothing else speaks against it."""
    client = Connection(Role.CLIENT, handshake=ClientHandshake(digest=False))
    client.start()

    def exchange() -> None:
        pair.peer.sendall(client.dataToSend())
        pair.protocol.dataReceived(pair.transport.socket.recv(65536))
        client.feed(pair.peer.recv(65536))
        while client.nextEvent() is not NEED_DATA:
            pass

    exchange()
    client.sendCommand("connect", 1, {"app": "live"})
    client.sendCommand("publish", 0, None, "key", "live", streamId=1)
    exchange()
    protocol = pair.protocol
    assert protocol.receivers
    protocol.pacer.active = True
    protocol.holdPace()
    for time in range(3):
        client.sendMessage(Message(AUDIO, time, 1, AAC_FRAME), 4)
        pair.peer.sendall(client.dataToSend())
        data = protocol.readPaced()
        assert protocol.takePaced(data, clock.seconds()) == 1
        assert protocol.paced
        assert not pair.transport.reading
    # A sink that is behind goes before: its release lets the reactor read.
    protocol.hold(Hold.SINK)
    assert protocol.readPaced() == b""
    assert not pair.transport.reading
    protocol.release(Hold.SINK)
    assert pair.transport.reading


# Replies


def answersTo(commands: int, clock: Clock) -> list[bytes]:
    """Let a connection come with so many commands at once, and take what is written."""
    client = Client(RTMPFactory(clock))
    client.connect()
    client.take()
    writes: list[bytes] = []
    client.transport.write = writes.append
    for number in range(commands):
        client.connection.sendCommand("getStreamLength", number + 1, None, "key")
    client.protocol.dataReceived(client.connection.dataToSend())
    return writes


def test_repliesToOneReadAreSentTogether(clock: Clock) -> None:
    assert len(answersTo(3, clock)) == 1


def test_aFloodIsAnsweredBeforeAllOfItIsLookedAt(clock: Clock) -> None:
    [reply] = answersTo(1, clock)
    replies = answersTo(GATHERED_BYTES, clock)
    assert sum(map(len, replies)) >= GATHERED_BYTES * (len(reply) - 4)
    assert max(map(len, replies)) <= GATHERED_BYTES + len(reply)


# Bytes that mean nothing


def small(csid: int, typeId: int, payload: bytes = b"", streamId: int = 0) -> bytes:
    """A message of one chunk with a format 0 header."""
    return (
        bytes([csid])
        + bytes(3)
        + len(payload).to_bytes(3, "big")
        + bytes([typeId])
        + streamId.to_bytes(4, "little")
        + payload
    )


def alternating(count: int) -> bytes:
    """Two messages whose 1-byte chunks take turns, with what it takes to begin."""
    size = (1).to_bytes(4, "big")
    header = bytes(3) + count.to_bytes(3, "big") + b"\x09" + bytes(4)
    begin = small(2, 1, size) + b"\x04" + header + b"x" + b"\x05" + header + b"x"
    return begin + b"\xc4x\xc5x" * (count - 2)


class SlowClock(Clock):
    """A clock each look at which takes a millisecond."""

    def seconds(self):
        self.rightNow += 0.001
        return self.rightNow


@pytest.mark.parametrize(
    "data",
    [
        small(2, 3, bytes(4)) * 20_000,
        small(2, 1, (128).to_bytes(4, "big")) * 20_000,
        small(2, 2, bytes(4)) * 20_000,
        small(2, 4, bytes(6)) * 20_000,
        small(3, 200) * 20_000,
        small(3, 18, b"\x02\x00\x01a", streamId=7) * 20_000,
        small(3, 9, streamId=7) * 20_000,
        small(3, 22) * 20_000,
        alternating(60_000),
    ],
    ids=[
        "acknowledgements",
        "chunk sizes",
        "aborts",
        "user control",
        "unknown types",
        "stray data",
        "empty strays",
        "empty aggregates",
        "alternating chunks",
    ],
)
def test_nothingIsSwallowedWithoutAnEnd(data):
    """However little bytes mean, others have their turn amid them."""
    clock = SlowClock()
    factory = RTMPFactory(clock)
    client = Client(factory)
    client.connect()
    before = clock.rightNow
    client.protocol.dataReceived(data)
    # A turn is 20 ms, and each look at the clock takes one: where it is looked at only
    # when all is done, that is after two.
    assert clock.rightNow - before > 0.02
    assert client.protocol.wire.reader.pending, "the rest waits for its turn"
    due = min(call.getTime() for call in clock.getDelayedCalls())
    assert due <= clock.rightNow, "which is the next"
    client.leave()


def test_manyShareARound():
    """However many peers send what means nothing, nobody waits for all their turns."""
    clock = SlowClock()
    factory = RTMPFactory(clock)
    clients = [Client(factory) for _ in range(60)]
    for client in clients:
        client.connect()
    for client in clients:
        client.protocol.dataReceived(small(2, 3, bytes(4)) * 20_000)
    assert factory.registry.turns.waiting == 60
    for _ in range(3):
        before = clock.rightNow
        calls = [c for c in clock.getDelayedCalls() if c.func.__name__ == "_turn"]
        for call in calls:
            turn = call.func
            call.cancel()
            turn()
        assert factory.registry.turns.waiting == 60
        # A turn is some looks at the least.
        assert clock.rightNow - before < ROUND_SECONDS * 4
        assert clock.rightNow - before < 60 * TURN_SECONDS / 2
    for client in clients:
        client.protocol.connectionLost()
    assert factory.registry.turns.waiting == 0


@pytest.mark.parametrize("how", ["violation", "leaves", "refused"])
def test_memoryGoesWithTheConnection(how):
    """No garbage collection is needed, neither after an error nor otherwise."""
    clock = Clock()
    factory = RTMPFactory(clock, authorizer=AllowList(["live"]))
    client = Client(factory)
    client.connect("other" if how == "refused" else "live")
    protocol = weakref.ref(client.protocol)
    if how != "refused":
        reader = client.protocol.wire.reader
        client.sendBytes(small(2, 1, (1 << 20).to_bytes(4, "big")))
        header = bytes(3) + (4 << 20).to_bytes(3, "big") + b"\x09" + bytes(4)
        data = bytes(1 << 20)
        client.sendBytes(b"\x04" + header + data + b"\xc4" + data + b"\xc4" + data)
        assert reader.unfinished == 3 << 20
        if how == "violation":
            client.sendBytes(small(2, 1, bytes(4)))
            assert client.transport.disconnected
        else:
            client.leave()
        assert reader.unfinished == 0
        del reader
    client.leave()
    client.__dict__.clear()
    gc.disable()
    try:
        assert protocol() is None
    finally:
        gc.enable()
