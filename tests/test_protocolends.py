"""Deadlines of a connection, floods, and how it ends."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from certificates import certificate
from OpenSSL import SSL
from protocolkit import SMALL, Ask, Sink, Sinks, refuse
from rtmpclient import (
    AAC_FRAME,
    AAC_HEADER,
    AUDIO,
    AVC_KEY_FRAME,
    DATA,
    VIDEO,
    Client,
)
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import Refused
from twisted_rtmp.wire import amf0


def test_handshakeDeadline(clock: Clock) -> None:
    """Promise P4: a byte a second is no handshake."""
    factory = RTMPFactory(clock)
    client = Client(factory)
    client.protocol.dataReceived(b"\x03")
    for _ in range(9):
        clock.advance(1)
        client.protocol.dataReceived(b"\x00")
        assert client.open
    clock.advance(1)
    assert not client.open
    client.pump()
    assert client.transport.disconnected
    assert factory.counters.cut == 1
    assert clock.getDelayedCalls() == []


def test_connectDeadline(clock: Clock) -> None:
    """It counts from the handshake, and pings do not stretch it."""
    client = Client(RTMPFactory(clock))
    clock.advance(9)
    client.shakeHands()
    for _ in range(9):
        clock.advance(1)
        client.connection.sendUserControl(6, 1)
        client.flush()
        assert client.open
    clock.advance(1)
    assert not client.open
    client.pump()
    assert client.transport.disconnected


def test_idleDeadline(clock: Clock) -> None:
    client = Client(RTMPFactory(clock))
    clock.advance(5)
    client.connect()
    clock.advance(5)
    client.command("createStream", 2.0, None)
    clock.advance(4.99)
    assert client.open
    clock.advance(0.01)
    assert not client.open
    client.pump()
    assert client.transport.disconnected


@pytest.mark.parametrize("data", [False, True])
def test_publisherIdle(clock: Clock, data: bool, lines: list[str]) -> None:
    """Without audio or video, whatever metadata there is."""
    sinks = Sinks()
    factory = RTMPFactory(clock, sinkFactories=[sinks])
    client = Client(factory)
    client.publish()
    for _ in range(30):
        clock.advance(1)
        client.media(AUDIO, AAC_FRAME)
    for _ in range(9):
        clock.advance(1)
        if data:
            client.media(DATA, amf0.encode("onMetaData", {}))
        assert client.open
    clock.advance(1)
    assert not client.open
    assert sinks[0].ended
    client.pump()
    assert factory.counters.cut == 1
    assert any("no audio or video for 10 s" in line for line in lines)
    assert clock.getDelayedCalls() == []


def test_idleAfterPublication(clock: Clock) -> None:
    client = Client(RTMPFactory(clock))
    client.publish()
    clock.advance(8)
    client.command("closeStream", 0, None, streamId=1)
    clock.advance(9.9)
    assert client.open
    clock.advance(0.2)
    assert not client.open
    client.pump()


@pytest.mark.parametrize(
    "payload", [b"\x09\x00", b"", AAC_HEADER], ids=["malformed", "empty", "header"]
)
def test_whatIsNoFrameKeepsNoPublisher(clock: Clock, payload: bytes) -> None:
    """Frames that the stream takes do, and nothing else."""
    client = Client(RTMPFactory(clock))
    client.publish()
    client.media(AUDIO, AAC_FRAME)
    for _ in range(2):
        clock.advance(4.9)
        client.media(VIDEO if payload[:1] == b"\x09" else AUDIO, payload)
        assert client.open
    clock.advance(0.3)
    assert not client.open
    client.pump()


def useless(client: Client, clock: Clock, command: str, step: float) -> float:
    """Do something again and again until the server has enough of it."""
    client.connect()
    seconds = 0.0
    while client.open:
        client.command(command, 0, None, f"missing{seconds}", streamId=1)
        clock.advance(step)
        seconds += step
    client.pump()
    return seconds


@pytest.mark.parametrize("command", ["play", "publish"])
@pytest.mark.parametrize("step", [1, 7])
def test_commandsWithoutMediaKeepNoConnection(
    clock: Clock, lines: list[str], command: str, step: int
) -> None:
    """Neither plays of missing names, one after the other, nor publishes."""
    seconds = useless(Client(RTMPFactory(clock)), clock, command, step)
    assert 40 <= seconds <= 45
    assert any("no media, sent or played, for 40 s" in line for line in lines)
    assert clock.getDelayedCalls() == []


def test_slowDecisionsKeepNoConnectionEither(clock: Clock) -> None:
    """Of the time they take, no more counts as the server's than one may take."""

    def decide() -> Deferred[None]:
        answer: Deferred[None] = Deferred()
        clock.callLater(3, answer.callback, None)
        return answer

    factory = RTMPFactory(clock, authorizer=Ask(play=decide))
    seconds = useless(Client(factory), clock, "play", 4)
    assert 40 <= seconds <= 56


def test_aStreamThatWasPlayedMakesAConnectionUseful(clock: Clock) -> None:
    """It may wait as long as at first for the next one."""
    factory = RTMPFactory(clock)
    viewer = Client(factory)
    viewer.connect()
    viewer.command("play", 0, None, "key", streamId=1)
    clock.advance(25)
    source = Client(factory)
    source.publish()
    for _ in range(100):
        source.media(AUDIO, AAC_FRAME)
        viewer.take()
        clock.advance(1)
    source.leave()
    viewer.take()
    clock.advance(29)
    assert viewer.open
    clock.advance(2)
    assert not viewer.open
    viewer.pump()


def test_repliesNotTaken(clock: Clock) -> None:
    """Promise P12: a flood of questions, and no ear for the answers."""
    factory = RTMPFactory(clock, limits=SMALL)
    client = Client(factory)
    client.connect()
    client.transport.taking = False
    for _ in range(200):
        for _ in range(100):
            client.connection.sendCommand("_checkbw", 5, None)
        client.flush()
    assert not client.transport.reading
    assert client.transport.most < 2 * 65_536
    clock.advance(9.99)
    assert not client.transport.disconnected
    clock.advance(0.01)
    assert client.transport.aborted
    assert factory.counters.cut == 1
    assert not factory.connections
    assert clock.getDelayedCalls() == []


def test_aPeerThatDoesNotTakeItsMediaIsReadOn(clock: Clock) -> None:
    """It may be busy with sending its own, and wait for us in turn."""
    sinks = Sinks()
    factory = RTMPFactory(clock, sinkFactories=[sinks], limits=SMALL)
    client = Client(factory)
    client.publish("a")
    client.command("play", 0, None, "a", streamId=2)
    client.transport.taking = False
    frame = AVC_KEY_FRAME + bytes(20_000)
    for time in range(20):
        client.media(VIDEO, frame, time)
    assert client.protocol.congested
    assert len(sinks[0].messages) == 20
    assert client.transport.reading
    client.transport.taking = True
    client.pump()
    assert not client.protocol.congested
    client.leave()


def test_repliesTakenAfterAll(clock: Clock) -> None:
    """Dispatch stops meanwhile, goes on afterwards, and loses nothing."""
    client = Client(RTMPFactory(clock, limits=SMALL))
    client.connect()
    client.take()
    client.transport.taking = False
    connection = client.connection
    for tid in range(1, 5001):
        connection.sendCommand("_checkbw", tid, None)
    client.flush()
    assert not client.transport.reading
    clock.advance(9)
    client.transport.taking = True
    client.pump()
    assert [r.values[1] for r in client.commands()] == list(range(1, 5001))
    assert client.transport.reading
    assert client.open
    client.leave()


def test_pingFlood(clock: Clock) -> None:
    """The wire answers pings by itself: what it queues is bounded all the same."""
    client = Client(RTMPFactory(clock, limits=SMALL))
    client.connect()
    client.transport.taking = False
    for number in range(20_000):
        client.connection.sendUserControl(6, number)
    client.flush()
    assert not client.transport.reading
    assert client.transport.most < 2 * 65_536
    client.transport.taking = True
    client.pump()
    answers = [r for r in client.take() if r.typeId == 4 and r.payload[1] == 7]
    assert len(answers) == 20_000
    client.leave()


def test_closingDeadline(clock: Clock) -> None:
    """loseConnection waits for the peer to read; we do not for ever."""
    client = Client(RTMPFactory(clock, authorizer=Ask(publish=refuse)))
    client.connect()
    client.command("createStream", 2.0, None)
    client.transport.taking = False
    client.command("publish", 3.0, None, "key", "live", streamId=1)
    assert client.transport.disconnecting
    clock.advance(9.99)
    assert not client.transport.disconnected
    clock.advance(0.01)
    assert client.transport.aborted
    assert clock.getDelayedCalls() == []


def test_closedWhileHeld(clock: Clock) -> None:
    """
    The holds go: TLS can end only when it may read, and what it reads then is
    neither dispatched nor kept.
    """
    throttles = []

    def make(stream: Any) -> Sink:
        throttles.append(stream.throttle())
        return Sink()

    sinks = Sinks(make)
    client = Client(RTMPFactory(clock, sinkFactories=[sinks]))
    client.publish()
    throttles[0].pauseProducing()
    assert not client.transport.reading
    resumed: list[bool] = []
    client.transport.resumeProducing = (  # type: ignore[method-assign]
        lambda: resumed.append(client.transport.disconnecting)
    )
    client.transport.taking = False
    client.transport.write(b"")
    client.protocol.close()
    assert resumed == [False]
    assert client.transport.disconnecting
    client.protocol.dataReceived(b"\xff" * 100_000)
    assert client.protocol.wire.bytesReceived < 100_000
    throttles[0].resumeProducing()
    client.transport.taking = True
    client.pump()
    assert client.transport.disconnected


class TLSClient(Client):
    """The same over TLS, as the server's end has it from Twisted."""

    def __init__(self, factory: RTMPFactory, contexts: ssl.ContextFactory):
        self.closeNotified = False
        self._tls = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        self._tls.set_connect_state()
        self._shaken = False
        super().__init__(
            TLSMemoryBIOFactory(contexts, False, factory, factory.clock),
            factory.clock,
        )
        self._shake()

    def _shake(self) -> None:
        with contextlib.suppress(SSL.WantReadError):
            self._tls.do_handshake()
            self._shaken = True
        self._carry()

    def _carry(self) -> None:
        with contextlib.suppress(SSL.WantReadError):
            while True:
                super().sendBytes(self._tls.bio_read(65_536))

    def sendBytes(self, data: bytes) -> None:
        self._tls.sendall(data)
        self._carry()

    def heard(self, data: bytes) -> None:
        self._tls.bio_write(data)
        if not self._shaken:
            self._shake()
        with contextlib.suppress(SSL.WantReadError):
            try:
                while True:
                    super().heard(self._tls.recv(65_536))
                    answer = self.connection.dataToSend()
                    if answer:
                        self.sendBytes(answer)
            except SSL.ZeroReturnError:
                self.closeNotified = True
                self._tls.shutdown()
                self._carry()


@pytest.fixture
def contexts(tmp_path: Path) -> ssl.ContextFactory:
    path = tmp_path / "server.pem"
    path.write_bytes(certificate("localhost"))
    return ssl.DefaultOpenSSLContextFactory(str(path), str(path))


@pytest.mark.parametrize("held", [False, True])
def test_TLSEndsUnderHolds(
    clock: Clock, contexts: ssl.ContextFactory, held: bool
) -> None:
    """
    The refusal arrives, then both ends say that they close: for that, the server
    reads on, though a decision has kept it from reading.
    """
    decision: Deferred[Any] = Deferred(lambda d: None)
    factory = RTMPFactory(clock, authorizer=Ask(publish=lambda: decision))
    client = TLSClient(factory, contexts)
    client.publish()
    [protocol] = factory.connections
    assert not client.transport.reading
    if held:
        protocol.close()
    else:
        decision.errback(Refused("Not you."))
    client.pump()
    assert client.closeNotified
    assert client.transport.disconnected
    assert not client.transport.aborted
    assert not factory.connections
    expected = ["NetStream.Publish.Denied"] * (not held)
    assert client.codes() == ["NetConnection.Connect.Success", *expected]
