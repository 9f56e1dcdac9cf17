"""What a server's connections share: names, sinks, limits and the end."""

from __future__ import annotations

from typing import Any

import pytest
from rtmpclient import (
    AAC_FRAME,
    AUDIO,
    AVC_FRAME,
    AVC_KEY_FRAME,
    DATA,
    VIDEO,
    Client,
)
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import IMediaSink, ISinkFactory
from twisted_rtmp.limits import STOP_SECONDS, AddressLimits, ServerLimits
from twisted_rtmp.live.connections import TURNED_AWAY_LOG_SECONDS
from twisted_rtmp.live.packaging import FLVPackaging
from twisted_rtmp.live.player import Player
from twisted_rtmp.live.policy import TakeOver
from twisted_rtmp.live.streams import LiveStream

START = "NetStream.Publish.Start"
BAD_NAME = "NetStream.Publish.BadName"


@implementer(IMediaSink)
class Sink:
    """Keeps payloads; may hold its stream's publisher and be slow to store."""

    def __init__(self, stream: LiveStream, stored: Deferred[None] | None) -> None:
        self.label = stream.label
        self.payloads: list[bytes] = []
        self.ends = 0
        self.throttle = stream.throttle()
        self.blinking = False
        self._stored = stored

    def mediaReceived(self, message):
        assert not self.ends
        if self.blinking:
            self.throttle.pauseProducing()
            self.throttle.resumeProducing()
        self.payloads.append(message.payload)

    def streamEnded(self):
        self.ends += 1
        return self._stored


@implementer(ISinkFactory)
class Sinks(list[Sink]):
    """Gives every stream a sink, and keeps them all."""

    sinkName = "test"

    def __init__(self, stored: Deferred[None] | None = None) -> None:
        super().__init__()
        self._stored = stored

    def openSink(self, stream):
        self.append(Sink(stream, self._stored))
        return self[-1]


@implementer(ISinkFactory)
class BrokenSinks:
    """Gives nobody a sink."""

    sinkName = "broken"

    def openSink(self, stream):
        raise ZeroDivisionError("no sink")


def publish(factory: RTMPFactory, name: str = "key") -> Client:
    client = Client(factory)
    client.publish(name)
    return client


def test_interfaces(clock: Clock) -> None:
    verifyObject(IProtocolFactory, RTMPFactory(clock))
    verifyObject(ISinkFactory, Sinks())


def test_listens() -> None:
    """As a real reactor uses it."""
    reactor = MemoryReactorClock()
    factory = RTMPFactory(reactor)
    reactor.listenTCP(1935, factory)
    assert reactor.tcpServers[0][1] is factory
    client = Client(factory, reactor)
    client.publish("key")
    assert client.codes()[-1] == START
    reactor.pump([0.25] * 40)  # it turns all the time, as a reactor does
    client.pump()
    assert client.transport.disconnected
    assert not factory.connections
    assert reactor.getDelayedCalls() == []


# Two publishers of a name


def test_firstPublisherKeepsTheName(clock: Clock, lines: list[str]) -> None:
    """Promise P17; the second is told and closed, the first notices nothing."""
    sinks = Sinks()
    factory = RTMPFactory(clock, sinkFactories=[sinks])
    first = publish(factory)
    first.take()
    second = publish(factory)
    assert second.codes() == ["NetConnection.Connect.Success", BAD_NAME]
    assert second.transport.disconnected
    assert not second.transport.aborted
    second.media(VIDEO, AVC_FRAME)
    first.media(VIDEO, AVC_KEY_FRAME)
    assert first.take() == []
    assert [sink.payloads for sink in sinks] == [[AVC_KEY_FRAME]]
    assert factory.counters.refused == 1
    assert any("key is being published" in line for line in lines)
    first.leave()


def test_takeOverWhenSilent(clock: Clock, lines: list[str]) -> None:
    """A publisher that lost its network must not keep its own successor out."""
    sinks = Sinks()
    factory = RTMPFactory(clock, sinkFactories=[sinks])
    first = publish(factory)
    first.media(VIDEO, AVC_KEY_FRAME)
    first.take()
    clock.advance(2.99)
    assert publish(factory).codes()[-1] == BAD_NAME
    clock.advance(0.01)
    second = publish(factory)
    assert second.codes()[-1] == START
    [status] = first.take()
    assert status.streamId == 1
    assert (status.code, status.values[3]["level"]) == (BAD_NAME, "error")
    assert first.transport.disconnected
    assert [sink.ends for sink in sinks] == [1, 0]
    second.media(VIDEO, AVC_FRAME)
    assert sinks[1].payloads == [AVC_FRAME]
    assert factory.counters.takenOver == 1
    assert any("is taken over by" in line for line in lines)
    second.leave()
    assert not factory.streams


def test_metadataIsSilence(clock: Clock) -> None:
    factory = RTMPFactory(clock)
    first = publish(factory)
    clock.advance(2)
    first.media(DATA, b"\x02\x00\x01x")
    clock.advance(1)
    second = publish(factory)
    assert second.codes()[-1] == START
    second.leave()


def test_throttledIsNotSilent(clock: Clock) -> None:
    """Nothing is read from it: that is not its fault."""
    sinks = Sinks()
    factory = RTMPFactory(clock, sinkFactories=[sinks])
    first = publish(factory)
    sinks[0].throttle.pauseProducing()
    assert not first.transport.reading
    clock.pump([1] * 60)
    assert first.open
    assert publish(factory).codes()[-1] == BAD_NAME
    first.media(VIDEO, AVC_KEY_FRAME)
    assert sinks[0].payloads == []
    sinks[0].throttle.resumeProducing()
    assert publish(factory).codes()[-1] == BAD_NAME
    first.pump()
    assert sinks[0].payloads == [AVC_KEY_FRAME]
    clock.advance(9.9)
    assert first.open
    clock.advance(0.2)
    assert not first.open
    first.pump()
    assert clock.getDelayedCalls() == []


def test_takeOverNever(clock: Clock) -> None:
    factory = RTMPFactory(clock, takeOver=TakeOver.NEVER)
    first = publish(factory)
    clock.advance(9)
    assert publish(factory).codes()[-1] == BAD_NAME
    first.media(VIDEO, AVC_FRAME)
    assert first.open
    first.leave()


def test_takeOverAlways(clock: Clock) -> None:
    factory = RTMPFactory(clock, takeOver=TakeOver.ALWAYS)
    first = publish(factory)
    first.media(VIDEO, AVC_FRAME)
    second = publish(factory)
    assert first.codes()[-1] == BAD_NAME
    assert first.transport.disconnected
    assert second.codes()[-1] == START
    second.leave()


@pytest.mark.parametrize("takeOver", list(TakeOver))
def test_nobodyTakesItsOwnNameOver(clock: Clock, takeOver: TakeOver) -> None:
    """A second publish of a name on one connection is refused like any other."""
    sinks = Sinks()
    factory = RTMPFactory(clock, sinkFactories=[sinks], takeOver=takeOver)
    client = publish(factory)
    clock.advance(5)
    client.command("publish", 5.0, None, "key", "live", streamId=2)
    assert client.codes()[-1] == BAD_NAME
    assert client.transport.disconnected
    assert not factory.streams
    assert [sink.ends for sink in sinks] == [1]


def test_takenOverWhileHeld(clock: Clock) -> None:
    """A sink that lets go at the end wakes nothing up in the closing connection."""

    class Releasing(Sink):
        def streamEnded(self):
            self.throttle.resumeProducing()
            return super().streamEnded()

    class ReleasingSinks(Sinks):
        def openSink(self, stream):
            self.append(Releasing(stream, None))
            return self[-1]

    sinks = ReleasingSinks()
    factory = RTMPFactory(clock, sinkFactories=[sinks], takeOver=TakeOver.ALWAYS)
    first = publish(factory)
    sinks[0].throttle.pauseProducing()
    first.command("publish", 9.0, None, "other", "live", streamId=2)
    second = publish(factory)
    assert [sink.label for sink in sinks] == ["live/key", "live/key"]
    first.pump()
    assert first.transport.disconnected
    assert list(factory.streams) == [("live", "key")]
    second.leave()
    assert not factory.streams


def test_theSameNameElsewhere(clock: Clock) -> None:
    """Names are an application's own."""
    factory = RTMPFactory(clock)
    first, second = Client(factory), Client(factory)
    first.publish("key", "a")
    second.publish("key", "b")
    assert sorted(factory.streams) == [("a", "key"), ("b", "key")]
    first.leave()
    second.leave()


@pytest.mark.parametrize(
    ("name", "arguments", "streamId"),
    [
        ("releaseStream", ("key",), 0),
        ("FCUnpublish", ("key",), 0),
        ("deleteStream", ("key",), 0),
        ("deleteStream", (1.0,), 0),
        ("deleteStream", (), 1),
        ("closeStream", (), 1),
    ],
)
def test_nobodyEndsAnothersStream(
    clock: Clock, name: str, arguments: tuple[object, ...], streamId: int
) -> None:
    """Promise P17."""
    sinks = Sinks()
    factory = RTMPFactory(clock, sinkFactories=[sinks])
    owner = publish(factory)
    owner.take()
    other = Client(factory)
    other.connect()
    other.command("createStream", 2.0, None)
    other.command(name, 5.0, None, *arguments, streamId=streamId)
    assert other.open
    owner.media(VIDEO, AVC_KEY_FRAME)
    assert sinks[0].payloads == [AVC_KEY_FRAME]
    assert not sinks[0].ends
    assert owner.take() == []
    owner.leave()
    other.leave()


# Sinks


def test_blinkingSinkKeepsTheOrder(clock: Clock) -> None:
    """A sink that pauses and resumes amid a message disturbs no other one."""
    blinking, steady = Sinks(), Sinks()
    factory = RTMPFactory(clock, sinkFactories=[blinking, steady])
    client = publish(factory)
    blinking[0].blinking = True
    writer = client.connection.writer
    payloads = [AVC_KEY_FRAME + bytes((n,)) for n in range(200)]
    client.sendBytes(
        b"".join(writer.encode(6, VIDEO, n, 1, p) for n, p in enumerate(payloads))
    )
    assert steady[0].payloads == payloads
    assert blinking[0].payloads == payloads
    client.leave()


def test_sinkCannotBeOpened(clock: Clock, loggedFailures: Any) -> None:
    """The stream goes on without it, and its name is free afterwards."""
    sinks = Sinks()
    factory = RTMPFactory(clock, sinkFactories=[BrokenSinks(), sinks])
    client = publish(factory)
    assert client.codes()[-1] == START
    client.media(AUDIO, AAC_FRAME)
    assert sinks[0].payloads == [AAC_FRAME]
    client.leave()
    assert not factory.streams
    assert len(loggedFailures.take(ZeroDivisionError)) == 1


def test_streamEnded(clock: Clock, lines: list[str], loggedFailures: Any) -> None:
    """Hooks are called when all is stored; one that fails keeps nobody waiting."""
    stored: Deferred[None] = Deferred()
    factory = RTMPFactory(clock, sinkFactories=[Sinks(stored)])
    ended: list[str] = []
    factory.streamEnded.append(lambda stream: 1 / 0)
    factory.streamEnded.append(lambda stream: ended.append(stream.label))
    client = publish(factory)
    client.media(VIDEO, AVC_KEY_FRAME)
    clock.advance(2.5)
    client.leave()
    assert ended == []
    stopped: list[object] = []
    factory.stop().addCallback(stopped.append)
    assert stopped == []
    stored.callback(None)
    assert ended == ["live/key"]
    assert stopped == [None]
    assert "live/key ended after 2.5 s: 1 video 0 audio received, 0 lost" in lines
    assert len(loggedFailures.take(ZeroDivisionError)) == 1
    assert clock.getDelayedCalls() == []


def test_nothingIsLeft(clock: Clock) -> None:
    """Promise P15: a thousand names leave nothing."""
    factory = RTMPFactory(clock, sinkFactories=[Sinks()])
    for number in range(1000):
        publish(factory, f"s{number}").leave()
    assert factory.counters.accepted == 1000
    for held in (
        factory.connections,
        factory.streams,
    ):
        assert not held
    assert factory.registry.idle
    assert clock.getDelayedCalls() == []


# Limits


def test_connectionLimit(clock: Clock, lines: list[str]) -> None:
    limits = ServerLimits(connections=2, addresses=AddressLimits(connectionShare=1))
    factory = RTMPFactory(clock, limits=limits)
    first, second = Client(factory), Client(factory)
    assert not second.turnedAway
    for _ in range(50):
        assert Client(factory).turnedAway
    told = [line for line in lines if "turned away" in line]
    assert told == ["a connection is turned away: 2 are open (1 so far)"]
    clock.advance(TURNED_AWAY_LOG_SECONDS - 1)
    first.leave()
    third = Client(factory)
    assert not third.turnedAway
    clock.advance(1)
    assert not second.open
    assert Client(factory).turnedAway
    assert sum("turned away" in line for line in lines) == 2
    assert factory.counters.turnedAway == 51
    assert factory.counters.accepted == 3
    second.leave()
    third.leave()


# The end


def test_stopWithoutConnections(clock: Clock) -> None:
    factory = RTMPFactory(clock)
    assert factory.stop().called
    assert clock.getDelayedCalls() == []
    assert Client(factory).turnedAway


def test_stop(clock: Clock) -> None:
    """Connections in every phase close, and streams end."""
    sinks = Sinks()
    factory = RTMPFactory(clock, sinkFactories=[sinks])
    silent, connected, publisher = Client(factory), Client(factory), publish(factory)
    connected.connect()
    publisher.media(VIDEO, AVC_KEY_FRAME)
    stopped: list[object] = []
    factory.stop().addCallback(stopped.append)
    assert sinks[0].ends == 1
    assert stopped == []
    for client in (silent, connected, publisher):
        client.pump()
        assert client.transport.disconnected
        assert not client.transport.aborted
    assert stopped == [None]
    assert clock.getDelayedCalls() == []


def test_stopWaitsForSinks(clock: Clock) -> None:
    stored: Deferred[None] = Deferred()
    factory = RTMPFactory(clock, sinkFactories=[Sinks(stored)])
    client = publish(factory)
    stopped: list[object] = []
    factory.stop().addCallback(stopped.append)
    client.pump()
    assert client.transport.disconnected
    clock.advance(STOP_SECONDS - 0.01)
    assert stopped == []
    stored.callback(None)
    assert stopped == [None]
    assert clock.getDelayedCalls() == []


def test_stopTakesNoLonger(clock: Clock, lines: list[str]) -> None:
    """Promise P23: whatever peers and sinks do."""
    stored: Deferred[None] = Deferred()
    factory = RTMPFactory(clock, sinkFactories=[Sinks(stored)])
    client = publish(factory)
    client.transport.taking = False
    stopped: list[object] = []
    factory.stop().addCallback(stopped.append)
    clock.advance(STOP_SECONDS - 0.01)
    assert stopped == []
    clock.advance(0.01)
    assert stopped == [None]
    assert client.transport.aborted
    assert any(
        "1 connections are aborted, 1 streams have not stored" in line for line in lines
    )
    stored.callback(None)
    assert clock.getDelayedCalls() == []


def test_stopWhileDeciding(clock: Clock) -> None:
    """A decision that comes later begins no stream."""

    class Slow:
        def connect(self, request):
            return None

        def publish(self, request):
            return decision

        def play(self, request):
            return None

    decision: Deferred[None] = Deferred(lambda d: None)
    factory = RTMPFactory(clock, authorizer=Slow())  # type: ignore[arg-type]
    client = publish(factory)
    client.transport.taking = False
    stopped = factory.stop()
    decision.callback(None)
    assert not factory.streams
    client.transport.taking = True
    client.pump()
    assert stopped.called
    assert clock.getDelayedCalls() == []


# Hooks that end connections


def test_aHookEndsThePublisher(clock: Clock) -> None:
    """A stream that is turned away as it begins does not stay without an end."""
    factory = RTMPFactory(clock, sinkFactories=[sinks := Sinks()])

    def turnAway(stream: LiveStream) -> None:
        stream.publisher.connection.close()  # type: ignore[union-attr]

    factory.streamStarted.append(turnAway)
    client = Client(factory)
    client.publish("key")
    client.pump()
    assert client.transport.disconnected
    assert not factory.streams
    assert [sink.ends for sink in sinks] == [1]
    assert clock.getDelayedCalls() == []


def test_theLossOfOnesOwnStream(clock: Clock, lines: list[str]) -> None:
    """Who plays what it publishes is not cut once more when it has gone."""
    factory = RTMPFactory(clock)
    client = publish(factory)
    client.command("createStream", 4, None)
    client.command("play", 0, None, "key", streamId=2)
    client.leave()
    assert clock.getDelayedCalls() == []
    clock.advance(3600)
    assert factory.counters.cut == 0


def test_aPlayerLeavesAsAnotherIsToldOfTheEnd(clock: Clock) -> None:
    factory = RTMPFactory(clock)
    publisher = publish(factory)

    class Outlet:
        peer = "198.51.100.8:1"
        congested = False
        other: Player

        def writeMedia(self, data):
            """It goes nowhere."""

        def streamStarted(self, player, stream, again):
            """It is known."""

        def streamEnded(self, player):
            assert player is not self.other
            factory.registry.stopPlaying(self.other)

    outlet = Outlet()
    first, outlet.other = (Player(outlet, FLVPackaging(), "key", 0.0) for _ in range(2))
    for player in (first, outlet.other):
        assert factory.registry.play("live", "key", player)
    publisher.leave()
    assert factory.players("live", "key") == [first]
