"""A server's own stalls, and the turns that peers take of it."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator

import pytest
from protocolkit import SocketClient
from rtmpclient import AVC_FRAME, VIDEO, Client
from twisted.internet.defer import Deferred
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import ILiveStream, IMediaSink, ISinkFactory
from twisted_rtmp.limits import HANDSHAKE_SECONDS, SILENT_SECONDS, STOP_SECONDS
from twisted_rtmp.live.policy import Policy
from twisted_rtmp.live.registry import Registry
from twisted_rtmp.live.snapshot import snapshot
from twisted_rtmp.live.turns import (
    BEAT_SECONDS,
    LEAST_TURN_SECONDS,
    LONG_TURN_LOG_SECONDS,
    LONG_TURN_SECONDS,
    ROUND_SECONDS,
    TURN_SECONDS,
    AwakeClock,
    Turns,
    awakeClock,
)
from twisted_rtmp.wire.messages import Message


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Reactor(MemoryReactorClock):
    """A reactor that turns all the time, but for its stalls."""

    def turn(self, seconds: float) -> None:
        self.pump([BEAT_SECONDS] * int(seconds / BEAT_SECONDS))

    def stall(self, seconds: float) -> None:
        self.advance(seconds)


@pytest.fixture
def reactor() -> Reactor:
    return Reactor()


@pytest.fixture
def awake(reactor: Reactor) -> Iterator[AwakeClock]:
    clock = AwakeClock(reactor)
    clock.start()
    yield clock
    clock.stop()
    assert not reactor.getDelayedCalls()


# A clock that stands still while the reactor does


def test_aStallIsNoTime(awake: AwakeClock, reactor: Reactor, lines: list[str]) -> None:
    reactor.turn(5)
    assert awake.seconds() == 5
    reactor.stall(60)
    assert 5 <= awake.seconds() <= 5 + BEAT_SECONDS
    reactor.turn(5)
    assert 10 <= awake.seconds() <= 10 + BEAT_SECONDS
    [line] = [line for line in lines if "stood still" in line]
    assert "59.8 s" in line


def test_timeNeverFallsBack(awake: AwakeClock, reactor: Reactor) -> None:
    """Not when what was told during a stall turns out to have been one."""
    reactor.turn(5)
    told: list[float] = []
    reactor.callLater(0.1, lambda: told.append(awake.seconds()))
    reactor.stall(60)
    told.append(awake.seconds())
    assert told == sorted(told)


def test_workIsNoStall(awake: AwakeClock, reactor: Reactor) -> None:
    """A busy server's turns are late all the time."""
    reactor.pump([BEAT_SECONDS + 0.2] * 20)
    assert awake.stalled == 0


def test_aCallThatWasMadeLeavesNoCircle(awake: AwakeClock, reactor: Reactor) -> None:
    """Thousands of timers would wait for the garbage collection otherwise."""
    call = awake.callLater(1, lambda: None)
    reactor.turn(2)
    gone = weakref.ref(call)
    assert not call.active()
    gc.disable()
    try:
        del call
        assert gone() is None
    finally:
        gc.enable()


def test_callsWaitOutAStall(awake: AwakeClock, reactor: Reactor) -> None:
    called: list[float] = []
    awake.callLater(10, lambda: called.append(awake.seconds()))
    reactor.turn(4)
    reactor.stall(100)
    reactor.turn(5.5)
    assert called == []
    reactor.turn(1)
    [when] = called
    assert when == pytest.approx(10, abs=BEAT_SECONDS)


def test_callsAreThoseOfAnyReactor(awake: AwakeClock, reactor: Reactor) -> None:
    called: list[object] = []
    first = awake.callLater(1, called.append, 1)
    assert first.active()
    assert first.getTime() == 1
    first.reset(3)
    first.delay(1)
    assert first.getTime() == 4
    reactor.turn(3.75)
    assert called == []
    reactor.turn(0.25)
    assert called == [1]
    assert not first.active()
    with pytest.raises(AlreadyCalled):
        first.cancel()
    second = awake.callLater(1, called.append, 2)
    second.cancel()
    with pytest.raises(AlreadyCancelled):
        second.cancel()
    reactor.turn(2)
    assert called == [1]


def test_clocksThatAreTurnedByHandNeverStall(clock: Clock, reactor: Reactor) -> None:
    assert awakeClock(clock) is clock
    assert isinstance(awakeClock(reactor), AwakeClock)


# Whose silence it is


def test_aStallEndsNoHandshake(reactor: Reactor) -> None:
    """The peer's bytes may come when the server listens again."""
    factory = RTMPFactory(reactor)
    client = Client(factory, reactor)
    reactor.stall(HANDSHAKE_SECONDS * 3)
    reactor.turn(HANDSHAKE_SECONDS - 1)
    assert not client.transport.disconnected
    reactor.turn(2)
    client.pump()
    assert client.transport.disconnected
    assert not factory.connections
    assert not reactor.getDelayedCalls()


@pytest.mark.parametrize("stalled", [True, False])
def test_aStallGivesNoNameAway(reactor: Reactor, stalled: bool) -> None:
    factory = RTMPFactory(reactor)
    first = Client(factory, reactor)
    first.publish("key")
    first.media(VIDEO, AVC_FRAME)
    (reactor.stall if stalled else reactor.turn)(SILENT_SECONDS + 1)
    second = Client(factory, reactor)
    second.publish("key")
    first.pump()
    assert first.transport.disconnected == (not stalled)
    assert factory.counters.takenOver == (0 if stalled else 1)
    for client in (first, second):
        client.leave()


@implementer(IMediaSink, ISinkFactory)
class Endless:
    """A sink that never has all stored."""

    sinkName = "endless"

    def openSink(self, stream: ILiveStream) -> Endless:
        return self

    def mediaReceived(self, message: Message) -> None:
        """Keep nothing."""

    def streamEnded(self) -> Deferred[None]:
        return Deferred()


def test_aStallDoesNotLengthenTheEnd(reactor: Reactor) -> None:
    """A service manager does not wait for longer, either."""
    registry = Registry(reactor, Policy(sinkFactories=[Endless()]))
    client = Client(RTMPFactory(reactor, registry=registry), reactor)
    client.publish("key")
    stopped = registry.stop()  # the client has not heard of it yet
    reactor.turn(1)
    reactor.stall(STOP_SECONDS - 1)
    assert stopped.called
    client.pump()


@pytest.fixture
def unread(clock: Clock) -> Iterator[SocketClient]:
    client = SocketClient(RTMPFactory(clock), clock)
    yield client
    client.leave()
    client.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_aNameIsKeptWhileItsBytesWait(unread: SocketClient, clock: Clock) -> None:
    factory = unread.protocol.factory
    unread.publish("key")
    unread.media(VIDEO, AVC_FRAME)
    clock.advance(SILENT_SECONDS + 1)
    unread.socket.sendall(b"media that nobody has read yet")
    second = Client(factory)
    second.publish("key")
    assert second.codes()[-1] == "NetStream.Publish.BadName"
    assert not unread.transport.disconnected
    unread.ours.recv(1000)
    third = Client(factory)
    third.publish("key")
    assert third.codes()[-1] == "NetStream.Publish.Start"
    unread.pump()
    assert unread.transport.disconnected


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_bytesThatWaitAreReadBeforeAPeerIsCut(
    unread: SocketClient, clock: Clock
) -> None:
    """One more turn of the reactor, in which it reads them, and no more."""
    factory = unread.protocol.factory
    unread.publish("key")
    unread.media(VIDEO, AVC_FRAME)
    limit = factory.limits.publisherIdleSeconds
    clock.advance(limit - 1)
    unread.socket.sendall(b"media")
    clock.callLater(1, unread.media, VIDEO, AVC_FRAME)  # in the same turn
    clock.advance(1)
    assert not unread.transport.disconnected
    clock.advance(limit)
    unread.pump()
    assert unread.transport.disconnected


# How long turns are


def test_longTurnsAreKeptAndLogged(clock: Clock, lines: list[str]) -> None:
    turns = Turns(clock)
    turns.took(LONG_TURN_SECONDS / 2, "192.0.2.1:5", "reading")
    assert (turns.longest, turns.cause) == (0.05, "reading for 192.0.2.1:5")
    assert lines == []
    turns.took(0.5, "192.0.2.2:5", "writing")
    for _ in range(3):
        turns.took(0.3, "", "a timer")
    assert (turns.longest, turns.cause) == (0.5, "writing for 192.0.2.2:5")
    assert turns.long == 4
    clock.advance(LONG_TURN_LOG_SECONDS)
    turns.took(0.4, "", "a timer")
    assert [line.partition("all others")[2] for line in lines] == [
        " waited 0.50 s: writing for 192.0.2.2:5",
        " waited 0.40 s: a timer (and 3 other long turns since the last line)",
    ]


def test_turnsOfPeersAreMeasured(clock: Clock) -> None:
    factory = RTMPFactory(clock)
    client = Client(factory)
    client.publish("key")

    def slow(message: object) -> None:
        clock.rightNow += 0.5

    client.protocol.receivers[1].messageReceived = slow
    client.media(VIDEO, AVC_FRAME)
    figures = snapshot(factory.registry)["turns"]
    assert figures["longest"] == 0.5
    assert figures["long"] == 1
    assert client.protocol.peer in figures["cause"]


def test_turnsOfTimersAreMeasured(reactor: Reactor) -> None:
    registry = Registry(reactor)

    def slow() -> None:
        reactor.rightNow += 0.2

    registry.clock.callLater(1, slow)
    reactor.advance(1)
    assert registry.turns.longest == pytest.approx(0.2)
    assert "slow" in registry.turns.cause


def test_theMoreARoundHasTakenTheShorterAreTheTurnsInIt(clock: Clock) -> None:
    """Sixty peers whose bytes are dear, and who all come at once, are one round."""
    turns = Turns(clock)
    took = 0.0
    for number in range(60):
        share = turns.share
        assert share <= TURN_SECONDS
        turns.took(share, f"192.0.2.1:{number}", "reading")
        took += share
    assert ROUND_SECONDS <= took <= ROUND_SECONDS + 60 * LEAST_TURN_SECONDS
    clock.advance(0)
    assert turns.share == TURN_SECONDS
    assert not clock.getDelayedCalls()
