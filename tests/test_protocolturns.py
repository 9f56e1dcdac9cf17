"""A connection among others: turns, paced reads, gathered writes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from protocolkit import Ask
from rtmpclient import AAC_FRAME, AUDIO, VIDEO, Client
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection as TCPConnection
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import IMediaSink
from twisted_rtmp.link import GATHERED_BYTES, TURN_MESSAGES, TURN_SECONDS
from twisted_rtmp.wire.chunk import encodeMessage
from twisted_rtmp.wire.connection import Connection, Role
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

    def setTcpNoDelay(self, enabled):
        """A socket of a pair has no such option."""

    def setTcpKeepAlive(self, enabled):
        """Nor this one."""


@pytest.fixture
def pair(clock: Clock) -> Iterator[PacedPair]:
    pair = PacedPair(RTMPFactory(clock))
    yield pair
    pair.close()


def test_aPacedReadTakesWhatHasCome(pair: PacedPair) -> None:
    pair.protocol.holdPace()
    assert not pair.transport.reading
    client = Connection(Role.CLIENT, handshake=ClientHandshake(digest=False))
    client.start()
    pair.peer.sendall(client.dataToSend())
    data = pair.protocol.readPaced()
    assert len(data) == 1537
    assert not pair.transport.reading
    pair.protocol.takePaced(data)
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
    pair: PacedPair, loggedFailures: Any, monkeypatch: Any
) -> None:
    def broken(data: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(pair.protocol, "dataReceived", broken)
    pair.protocol.holdPace()
    pair.peer.sendall(b"x")
    pair.protocol.takePaced(pair.protocol.readPaced())
    assert not pair.transport.connected
    assert len(loggedFailures.take(ZeroDivisionError)) == 1


def test_whatIsGatheredIsSentBehindWhatWasWritten(clock: Clock) -> None:
    factory = RTMPFactory(clock)
    client = Client(factory)
    client.connect()
    client.command("createStream", 2, None)
    client.take()
    protocol = client.protocol
    pacer = factory.registry.pacer
    pacer.gathering = gathered = []
    protocol.writeMedia(encodeMessage(4, AUDIO, 1, 1, AAC_FRAME, 65536))
    protocol.wire.sendUserControl(0, 7)
    protocol.flush()
    protocol.writeMedia(encodeMessage(4, AUDIO, 2, 1, AAC_FRAME, 65536))
    pacer.gathering = None
    assert gathered == [protocol]
    assert client.take() == []
    protocol.sendGathered()
    assert [reply.typeId for reply in client.take()] == [AUDIO, 4, AUDIO]
    protocol.sendGathered()
    assert client.take() == []


def test_whatIsGatheredIsSentBeforeTheEnd(clock: Clock) -> None:
    factory = RTMPFactory(clock)
    client = Client(factory)
    client.connect()
    client.take()
    factory.registry.pacer.gathering = []
    client.protocol.writeMedia(encodeMessage(4, AUDIO, 1, 1, AAC_FRAME, 65536))
    client.protocol.close()
    factory.registry.pacer.gathering = None
    assert [reply.typeId for reply in client.take()] == [AUDIO]
    assert client.transport.disconnected


def test_muchIsNotGathered(clock: Clock) -> None:
    factory = RTMPFactory(clock)
    client = Client(factory)
    client.connect()
    client.take()
    factory.registry.pacer.gathering = []
    frame = bytes(GATHERED_BYTES)
    client.protocol.writeMedia(encodeMessage(6, VIDEO, 1, 1, frame, 65536))
    factory.registry.pacer.gathering = None
    assert [len(reply.payload) for reply in client.take()] == [GATHERED_BYTES]
