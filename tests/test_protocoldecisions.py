"""Decisions about a connection: allowed, refused, late, or never made."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from protocolkit import START, Ask, Sink, Sinks, SocketClient, later, refuse, soon
from rtmpclient import AVC_FRAME, AVC_KEY_FRAME, VIDEO, Client
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import (
    ConnectRequest,
    Refused,
    StreamRequest,
)
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.protocol import LEAVE_LOOK_SECONDS


def test_questions(clock: Clock) -> None:
    ask = Ask()
    client = Client(RTMPFactory(clock, authorizer=ask))
    client.connect("live?a=1", flashVer="x")
    client.command("createStream", 2.0, None)
    client.command("publish", 3.0, None, "key?token=2", "live", streamId=1)
    connect, publish = ask.asked
    assert isinstance(connect, ConnectRequest)
    assert (connect.application, connect.query) == ("live", "a=1")
    assert connect.address == client.address
    assert connect.properties["flashVer"] == "x"
    assert isinstance(publish, StreamRequest)
    assert (publish.application, publish.name, publish.query) == (
        "live",
        "key",
        "token=2",
    )
    assert publish.connect is connect
    assert "token" not in repr(publish)
    client.leave()


@pytest.mark.parametrize(
    "answer", ["public", lambda: succeed("public"), lambda: soon("public")]
)
def test_rename(clock: Clock, answer: Any) -> None:
    """The stream has the public name, the peer is told its own."""
    sinks = Sinks()
    client = Client(
        RTMPFactory(clock, sinkFactories=[sinks], authorizer=Ask(publish=answer))
    )
    client.publish("secret")
    assert sinks.labels == ["live/public"]
    assert client.take()[-1].values[3]["details"] == "secret"
    client.command("FCUnpublish", 4.0, None, "secret")
    assert sinks[0].ended
    client.leave()


@pytest.mark.parametrize("wrapped", [lambda d: d, later])
def test_nothingHappensMeanwhile(clock: Clock, wrapped: Any) -> None:
    """Bytes that come before the decision wait, in their order."""
    decision: Deferred[Any] = Deferred()
    sinks = Sinks()
    client = Client(
        RTMPFactory(
            clock,
            sinkFactories=[sinks],
            authorizer=Ask(publish=lambda: wrapped(decision)),
        )
    )
    client.connect()
    client.command("createStream", 2.0, None)
    client.take()
    connection = client.connection
    connection.sendCommand("publish", 3, None, "key", "live", streamId=1)
    connection.sendCommand("createStream", 4, None)
    data = connection.dataToSend()
    data += connection.writer.encode(6, VIDEO, 0, 1, AVC_KEY_FRAME)
    client.sendBytes(data)
    assert not client.transport.reading
    client.media(VIDEO, AVC_FRAME, 40)
    assert client.take() == []
    assert sinks.all == []
    decision.callback(None)
    client.pump()
    assert [r.name for r in client.commands()] == ["onStatus", "_result"]
    assert sinks[0].payloads == [AVC_KEY_FRAME, AVC_FRAME]
    assert client.transport.reading
    client.leave()


def test_sinkThatThrottlesAtItsOpening(clock: Clock) -> None:
    """What waits behind C{publish} is not stray where a sink lets reading go on."""
    decision: Deferred[Any] = Deferred()

    def make(stream: Any) -> Sink:
        throttle = stream.throttle()
        throttle.pauseProducing()
        throttle.resumeProducing()
        return Sink()

    sinks = Sinks(make)
    factory = RTMPFactory(
        clock, sinkFactories=[sinks], authorizer=Ask(publish=lambda: decision)
    )
    client = Client(factory)
    client.connect()
    connection = client.connection
    connection.sendCommand("publish", 3, None, "key", "live", streamId=1)
    data = connection.dataToSend()
    data += connection.writer.encode(6, VIDEO, 0, 1, AVC_KEY_FRAME)
    client.sendBytes(data)
    decision.callback(None)
    client.pump()
    assert factory.counters.strayMessages == 0
    assert sinks[0].payloads == [AVC_KEY_FRAME]
    client.leave()


@pytest.mark.parametrize("how", ["raise", "deferred", "coroutine"])
def test_connectRefused(clock: Clock, how: str) -> None:
    """The error goes out, then the connection closes."""
    decision: Deferred[Any] = Deferred()
    answers = {
        "raise": refuse,
        "deferred": lambda: decision,
        "coroutine": lambda: later(decision),
    }
    factory = RTMPFactory(clock, authorizer=Ask(connect=answers[how]))
    client = Client(factory)
    client.connect()
    if how != "raise":
        assert client.take() == []
        decision.errback(Refused("Not you."))
        client.pump()
    [reply] = client.take()
    assert (reply.csid, reply.streamId) == (3, 0)
    assert reply.values == [
        "_error",
        1.0,
        None,
        {
            "level": "error",
            "code": "NetConnection.Connect.Rejected",
            "description": "Not you.",
        },
    ]
    assert client.transport.disconnected
    assert not client.transport.aborted
    assert factory.counters.refused == 1
    assert not factory.connections
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("how", ["raise", "deferred", "coroutine"])
def test_publishRefused(clock: Clock, how: str) -> None:
    """OBS shows it and stays away; no Publish.Start was sent before."""
    decision: Deferred[Any] = Deferred()
    answers = {
        "raise": refuse,
        "deferred": lambda: decision,
        "coroutine": lambda: later(decision),
    }
    factory = RTMPFactory(clock, authorizer=Ask(publish=answers[how]))
    client = Client(factory)
    client.connect()
    client.command("createStream", 2.0, None)
    client.take()
    client.command("publish", 3.0, None, "key", "live", streamId=1)
    if how != "raise":
        decision.errback(Refused("Not you."))
        client.pump()
    [reply] = client.take()
    assert (reply.csid, reply.streamId) == (5, 1)
    status = reply.values[3]
    assert status["level"] == "error"
    assert status["code"] == "NetStream.Publish.Denied"
    assert status["description"] == "Not you."
    assert client.transport.disconnected
    assert not factory.streams
    assert factory.counters.refused == 1


def stumble() -> Any:
    raise ZeroDivisionError("a bug")


async def stumbleLater() -> Any:
    stumble()


@pytest.mark.parametrize("answer", [stumble, stumbleLater])
def test_decisionFails(clock: Clock, loggedFailures: Any, answer: Any) -> None:
    """A bug of the authorizer's is logged, and no permission."""
    factory = RTMPFactory(clock, authorizer=Ask(publish=answer))
    client = Client(factory)
    client.publish()
    assert client.codes()[-1] == "NetStream.Publish.Denied"
    assert client.transport.disconnected
    assert not factory.streams
    assert len(loggedFailures.take(ZeroDivisionError)) == 1


@pytest.mark.parametrize("wrapped", [lambda d: d, later])
def test_lostWhileDeciding(clock: Clock, wrapped: Any) -> None:
    """The question is withdrawn, and nothing is logged as unhandled."""
    withdrawn: list[object] = []
    decision: Deferred[Any] = Deferred(withdrawn.append)
    factory = RTMPFactory(clock, authorizer=Ask(publish=lambda: wrapped(decision)))
    client = Client(factory)
    client.publish()
    client.leave()
    assert withdrawn == [decision]
    assert not factory.streams
    assert clock.getDelayedCalls() == []


def test_decidedAfterTheEnd(clock: Clock) -> None:
    """A decision that comes once the connection is closing changes nothing."""
    decision: Deferred[Any] = Deferred(lambda d: None)
    sinks = Sinks()
    factory = RTMPFactory(
        clock, sinkFactories=[sinks], authorizer=Ask(publish=lambda: decision)
    )
    client = Client(factory)
    client.publish()
    client.transport.taking = False
    assert not client.transport.reading
    resumed: list[bool] = []
    client.transport.resumeProducing = (  # type: ignore[method-assign]
        lambda: resumed.append(client.transport.disconnecting)
    )
    client.protocol.close()
    assert resumed == [False]
    decision.callback(None)
    assert sinks.all == []
    assert resumed == [False]
    client.transport.taking = True
    client.pump()
    assert client.transport.disconnected
    assert START not in client.codes()


def test_onlyWhatIsOfUseIsKept(clock: Clock) -> None:
    """The decider sees all of a connect; the connection keeps a part of it."""
    ask = Ask()
    factory = RTMPFactory(clock, authorizer=ask)
    client = Client(factory)
    many = {f"p{number}": [float(number)] * 3 for number in range(100)}
    client.connect(token="t" * 40, long="x" * 40_000, **many, last="z")
    client.command("publish", 0, None, "key", streamId=1)
    connect, publish = ask.asked
    assert len(connect.properties["long"]) == 40_000
    assert connect.properties["p99"] == [99.0] * 3
    kept = publish.connect.properties
    assert kept["app"] == "live"
    assert kept["token"] == "t" * 40
    assert "long" not in kept
    assert kept["p0"] == [0.0] * 3
    assert "p99" not in kept
    assert kept["last"] == "z"


def test_aCommandHasFewValues(clock: Clock) -> None:
    factory = RTMPFactory(clock)
    client = Client(factory)
    client.connect(**{f"p{number}": float(number) for number in range(600)})
    assert client.transport.disconnected
    assert factory.counters.violations == 1


def test_decisionTakesTooLong(clock: Clock, lines: list[str]) -> None:
    failures: list[Any] = []
    decision: Deferred[Any] = Deferred()
    decision.addErrback(lambda f: (failures.append(f.trap(CancelledError)), f)[1])
    factory = RTMPFactory(clock, authorizer=Ask(connect=lambda: decision))
    client = Client(factory)
    client.connect()
    clock.advance(10)
    client.pump()
    assert client.transport.disconnected
    assert failures == [CancelledError]
    [reply] = client.take()
    assert reply.values[3]["description"] == "The server could not decide in time."
    assert (factory.counters.refused, factory.counters.cut) == (1, 0)
    # The operator is told who hung: it was not the encoder.
    [line] = [line for line in lines if "has not decided" in line]
    peer = f"{client.address.host}:{client.address.port}"
    assert line == (
        f"{Ask.__module__}.Ask has not decided within 10 s whether {peer} may connect"
        " to live; the peer is refused"
    )


def test_slowDecisionIsNotIdleness(clock: Clock) -> None:
    """A peer that asked late has its answer all the same."""
    decision: Deferred[Any] = Deferred()
    client = Client(RTMPFactory(clock, authorizer=Ask(publish=lambda: decision)))
    client.connect()
    clock.advance(8)
    client.command("publish", 3.0, None, "key", "live", streamId=1)
    clock.advance(9.9)
    decision.callback(None)
    assert client.codes()[-1] == START
    clock.advance(9.9)
    assert client.open
    client.leave()


def test_manyDecisionsAtOnce(clock: Clock) -> None:
    """Two thousand publish commands in one read nest nothing."""
    sinks = Sinks()
    client = Client(
        RTMPFactory(
            clock,
            sinkFactories=[sinks],
            authorizer=Ask(publish=lambda: soon(None)),
            limits=ServerLimits(streamBurst=2001),
        )
    )
    client.publish("first")
    client.take()
    connection = client.connection
    for number in range(2000):
        connection.sendCommand("publish", 0, None, f"s{number}", "live", streamId=1)
    client.flush()
    assert sinks.labels[-1] == "live/s1999"
    assert len(sinks.all) == 2001
    client.leave()


# A peer that does not wait for its decision


@pytest.fixture
def waiting(clock: Clock) -> Iterator[tuple[SocketClient, list[object]]]:
    """A client whose publish nobody decides, and the end of that."""
    ends: list[object] = []
    decision: Deferred[None] = Deferred(ends.append)
    factory = RTMPFactory(clock, authorizer=Ask(publish=lambda: decision))
    client = SocketClient(factory, clock)
    client.publish("key")
    yield client, ends
    client.leave()
    client.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_aDecisionIsCancelledWhenThePeerHasLeft(
    waiting: tuple[SocketClient, list[object]], clock: Clock
) -> None:
    """Nothing is read from it meanwhile, so its end has to be looked for."""
    client, cancelled = waiting
    clock.advance(LEAVE_LOOK_SECONDS)
    assert not cancelled
    client.socket.close()
    clock.advance(LEAVE_LOOK_SECONDS)
    assert cancelled
    assert client.transport.aborted


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
@pytest.mark.parametrize("where", ["kernel", "accumulator"])
def test_mediaOfAPeerThatHasLeftAwaitTheDecision(
    waiting: tuple[SocketClient, list[object]], clock: Clock, where: str
) -> None:
    """A short file may have been sent whole before it is decided."""
    client, cancelled = waiting
    if where == "kernel":
        client.socket.sendall(b"media")
    else:
        client.protocol.dataReceived(b"media")
    client.socket.close()
    clock.advance(LEAVE_LOOK_SECONDS * 3)
    assert not cancelled
    assert not client.transport.aborted
