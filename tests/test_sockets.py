"""What the system tells of sockets, and the watch on peers that take nothing."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection as TCPConnection
from twisted.internet.testing import StringTransport

from twisted_rtmp.sockets import (
    DrainWatch,
    HangUp,
    directSocket,
    setReadSize,
    unreadBy,
    unsentBy,
)

onLinux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


class SocketTransport(TCPConnection):
    """A transport that no reactor reads or writes."""

    connected = 1

    def startReading(self) -> None:
        pass

    stopReading = startWriting = stopWriting = startReading


class Layer:
    """A protocol that lies between a transport and another protocol, as TLS does."""

    def __init__(self, transport: object) -> None:
        self.transport = transport


class Pair:
    """A transport on one of two sockets, and the other one."""

    def __init__(self) -> None:
        self.ours, self.peer = socket.socketpair()
        self.ours.setblocking(False)
        self.peer.settimeout(10)
        from twisted.internet import reactor

        self.transport = SocketTransport(self.ours, Protocol(), reactor)

    def fill(self) -> None:
        """Write until the system takes nothing more, and some that waits here."""
        while not self.transport.dataBuffer:
            rest = directSocket(self.transport).send(bytes(1 << 16))
            if rest:
                self.transport.dataBuffer = rest

    def close(self) -> None:
        self.ours.close()
        self.peer.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


def test_onlyASocketsOwnTransportIsUsedDirectly(pair: Pair) -> None:
    assert directSocket(pair.transport) is not None
    assert directSocket(Layer(pair.transport)) is None
    assert directSocket(StringTransport()) is None


def test_theReadSizeIsTheSocketsOwn(pair: Pair) -> None:
    """However many protocols lie between."""
    setReadSize(Layer(Layer(pair.transport)), 1234)
    assert pair.transport.bufferSize == 1234


def test_whatIsSentComesBehindWhatWaits(pair: Pair) -> None:
    direct = directSocket(pair.transport)
    assert direct.send(b"first") == b""
    pair.transport.dataBuffer = b"waits"
    assert direct.send(b"behind") == b"behind"
    assert pair.peer.recv(100) == b"first"


def test_whatTheSystemDoesNotTakeIsLeft(pair: Pair) -> None:
    pair.fill()
    direct = directSocket(pair.transport)
    pair.transport.dataBuffer = b""
    assert direct.send(b"more") == b"more"
    pair.peer.close()
    assert direct.send(b"more") == b"more"


def test_receiving(pair: Pair) -> None:
    direct = directSocket(pair.transport)
    assert direct.receive(10) == b""
    pair.peer.sendall(b"0123456789abc")
    assert direct.receive(10) == b"0123456789"
    setReadSize(pair.transport, 2)
    assert direct.receive(10) == b"ab"
    pair.ours.close()
    assert direct.receive(10) is None


@onLinux
def test_bytesThatWait(pair: Pair) -> None:
    over = Layer(pair.transport)
    assert (unsentBy(over), unreadBy(over)) == (0, 0)
    pair.peer.sendall(b"12345")
    assert unreadBy(over) == 5
    pair.fill()
    before = unsentBy(over)
    assert before > len(pair.transport.dataBuffer)
    assert unsentBy(StringTransport()) == unreadBy(StringTransport()) == 0
    pair.ours.close()
    assert unsentBy(over) == len(pair.transport.dataBuffer)


@onLinux
def test_aPeerThatHasClosedItsEnd(pair: Pair) -> None:
    hangUp = HangUp(Layer(pair.transport))
    assert not hangUp
    assert not hangUp.final
    pair.peer.sendall(b"last words")
    pair.peer.shutdown(socket.SHUT_WR)
    assert hangUp
    assert not hangUp.final, "its last words are to be read"
    pair.ours.recv(100)
    assert hangUp.final


def test_aTransportWithoutASocketHasNoEnd() -> None:
    assert not HangUp(StringTransport())


# The watch on peers that take nothing


@pytest.fixture
def clock() -> Clock:
    return Clock()


@onLinux
def test_aPeerThatTakesNothing(pair: Pair, clock: Clock) -> None:
    pair.fill()
    passed: list[float] = []
    DrainWatch(clock, 10).start(pair.transport, lambda: passed.append(clock.seconds()))
    clock.pump([1] * 30)
    assert passed == [10]
    assert not clock.getDelayedCalls()


@onLinux
def test_aPeerThatTakesALittle(pair: Pair, clock: Clock) -> None:
    """It has the whole time again; no more than one look too late."""
    pair.fill()
    passed: list[float] = []
    DrainWatch(clock, 10).start(pair.transport, lambda: passed.append(clock.seconds()))
    for _ in range(2):
        clock.pump([0.5] * 16)
        pair.peer.recv(70_000)
    assert clock.seconds() == 16
    assert passed == []
    clock.pump([0.5] * 22)
    [when] = passed
    assert 26 <= when <= 27


def test_aWatchThatIsStopped(clock: Clock) -> None:
    watch = DrainWatch(clock, 10)
    watch.stop()
    watch.start(StringTransport(), lambda: pytest.fail("the watch goes on"))
    clock.advance(9)
    watch.stop()
    clock.advance(100)
    assert not clock.getDelayedCalls()
