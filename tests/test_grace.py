"""A stream outlives its publisher, and another one continues it."""

from __future__ import annotations

import pytest
from feeding import CollectingSink
from rtmpclient import (
    AAC_FRAME,
    AUDIO,
    AVC_FRAME,
    AVC_HEADER,
    AVC_KEY_FRAME,
    DATA,
    VIDEO,
    Client,
)
from zope.interface import implementer

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import ISinkFactory
from twisted_rtmp.limits import AddressLimits, ServerLimits
from twisted_rtmp.live.policy import TakeOver
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.messages import Message

GRACE = 5.0
METADATA = amf0.encode("onMetaData", {"width": 2.0})


@implementer(ISinkFactory)
class Sinks(list[CollectingSink]):
    sinkName = "test"

    def openSink(self, stream):
        self.append(CollectingSink(stream))
        return self[-1]


@pytest.fixture
def sinks():
    return Sinks()


@pytest.fixture
def factory(clock, sinks):
    return RTMPFactory(clock, sinkFactories=[sinks], grace=GRACE)


def publish(factory, name="key", host="198.51.100.7"):
    client = Client(factory, host=host)
    client.publish(name)
    assert client.codes()[-1] == "NetStream.Publish.Start"
    client.take()
    return client


def play(factory):
    client = Client(factory)
    client.connect()
    client.command("createStream", 2, None)
    client.command("play", 0, None, "key", streamId=1)
    client.take()
    return client


def send(client, *messages):
    for typeId, timestamp, payload in messages:
        client.media(typeId, payload, timestamp)


def got(client, typeId):
    return [
        (reply.timestamp, reply.payload)
        for reply in client.take()
        if reply.typeId == typeId
    ]


def test_withoutGraceTheEndIsTheEnd(clock):
    factory = RTMPFactory(clock)
    publisher, player = publish(factory), play(factory)
    publisher.leave()
    assert "NetStream.Play.UnpublishNotify" in player.codes()
    assert factory.streams == {}


def test_theStreamIsContinued(clock, factory, sinks):
    first, player = publish(factory), play(factory)
    send(first, (VIDEO, 0, AVC_HEADER), (VIDEO, 7000, AVC_KEY_FRAME))
    send(first, (AUDIO, 7010, AAC_FRAME), (VIDEO, 7040, AVC_FRAME))
    [stream] = factory.streams.values()
    player.take()
    first.leave()
    assert stream.publisher is None
    assert player.codes() == []
    clock.advance(2)
    second = publish(factory)
    assert list(factory.streams.values()) == [stream]
    send(second, (DATA, 0, METADATA), (VIDEO, 0, AVC_HEADER))
    send(second, (AUDIO, 500, AAC_FRAME), (VIDEO, 480, AVC_KEY_FRAME))
    send(second, (VIDEO, 520, AVC_FRAME))
    replies = player.take()
    assert [(r.typeId, r.timestamp) for r in replies] == [
        (DATA, 9040),
        (VIDEO, 9040),
        (AUDIO, 9040),
        (VIDEO, 9020),
        (VIDEO, 9060),
    ]
    assert len(sinks) == 1
    assert not sinks[0].ended
    assert stream.publishers == 2
    assert factory.counters.continued == 1
    assert stream.ledger.received.video == 4
    second.leave()
    clock.advance(GRACE)
    assert sinks[0].ended
    assert "NetStream.Play.UnpublishNotify" in player.codes()
    assert factory.streams == {}


def test_noTimeIsBeforeTheBreak(clock, factory):
    first, player = publish(factory), play(factory)
    send(first, (AUDIO, 1000, AAC_FRAME))
    first.leave()
    clock.advance(0.01)
    second = publish(factory)
    send(second, (AUDIO, 5000, AAC_FRAME), (AUDIO, 4000, AAC_FRAME))
    assert [time for time, _ in got(player, AUDIO)] == [1000, 1010, 1000]


def test_timeGoesOnWhenItsOwnJumpsBack(clock, factory):
    first, player = publish(factory), play(factory)
    send(first, (AUDIO, 1000, AAC_FRAME))
    first.leave()
    clock.advance(1)
    second = publish(factory)
    send(second, (AUDIO, 3_600_000, AAC_FRAME), (AUDIO, 3_609_000, AAC_FRAME))
    send(second, (VIDEO, 40, AVC_KEY_FRAME), (AUDIO, 20, AAC_FRAME))
    send(second, (VIDEO, 80, AVC_FRAME), (DATA, 0, METADATA), (AUDIO, 90, AAC_FRAME))
    times = [r.timestamp for r in player.take() if r.typeId in (AUDIO, VIDEO, DATA)]
    assert times == [1000, 2000, 11_000, 11_040, 11_020, 11_080, 11_000, 11_090]


def test_itIsContinuedAnyNumberOfTimes(clock, factory):
    player = play(factory)
    for _ in range(4):
        publisher = publish(factory)
        send(publisher, (AUDIO, 0, AAC_FRAME), (AUDIO, 20, AAC_FRAME))
        publisher.leave()
        clock.advance(1)
    times = [time for time, _ in got(player, AUDIO)]
    assert times == [0, 20, 1020, 1040, 2040, 2060, 3060, 3080]


def test_nothingThatCannotBeDecodedIsPlayed(clock, factory):
    first, player = publish(factory), play(factory)
    send(first, (VIDEO, 0, AVC_HEADER), (VIDEO, 0, AVC_KEY_FRAME))
    first.leave()
    player.take()
    second = publish(factory)
    send(second, (VIDEO, 0, AVC_FRAME), (VIDEO, 40, AVC_HEADER))
    latecomer = play(factory)  # it has taken the header already
    send(second, (VIDEO, 80, AVC_FRAME), (VIDEO, 120, AVC_KEY_FRAME))
    assert [p for _, p in got(player, VIDEO)] == [AVC_HEADER, AVC_KEY_FRAME]
    assert [p for _, p in got(latecomer, VIDEO)] == [AVC_KEY_FRAME]


def test_nobodyComes(clock, factory, sinks):
    first, player = publish(factory), play(factory)
    send(first, (AUDIO, 0, AAC_FRAME))
    first.leave()
    clock.advance(GRACE - 0.01)
    assert not sinks[0].ended
    clock.advance(0.02)
    assert sinks[0].ended
    assert "NetStream.Play.Stop" in player.codes()
    second = publish(factory)
    send(second, (AUDIO, 0, AAC_FRAME))
    assert [time for time, _ in got(player, AUDIO)] == [0]
    assert len(sinks) == 2


def test_aPlayerThatComesMeanwhileGetsTheRest(clock, factory):
    first = publish(factory)
    send(first, (AUDIO, 0, AAC_FRAME))
    first.leave()
    clock.advance(1)
    player = play(factory)
    send(publish(factory), (AUDIO, 0, AAC_FRAME))
    assert got(player, AUDIO) == [(1000, AAC_FRAME)]


def test_takingOverContinuesToo(clock, sinks):
    factory = RTMPFactory(
        clock, sinkFactories=[sinks], grace=GRACE, takeOver=TakeOver.ALWAYS
    )
    first, player = publish(factory), play(factory)
    send(first, (AUDIO, 300, AAC_FRAME))
    second = publish(factory)
    first.pump()
    assert first.transport.disconnected
    send(second, (AUDIO, 0, AAC_FRAME))
    assert [time for time, _ in got(player, AUDIO)] == [300, 301]
    assert len(sinks) == 1
    assert not sinks[0].ended


def test_aHoldOutlivesItsPublisher(clock, factory, sinks):
    first = publish(factory)
    send(first, (AUDIO, 0, AAC_FRAME))
    [stream] = factory.streams.values()
    throttle = stream.throttle()
    throttle.pauseProducing()
    first.leave()
    second = publish(factory)
    assert not second.transport.reading
    throttle.resumeProducing()
    assert second.transport.reading


def test_theOrphanEndsWithTheServer(clock, factory, sinks):
    first = publish(factory)
    send(first, (AUDIO, 0, AAC_FRAME))
    first.leave()
    stopped = []
    factory.stop().addCallback(stopped.append)
    clock.advance(0)
    assert sinks[0].ended
    assert stopped == [None]
    assert not clock.getDelayedCalls()


def test_aHoldEndsForAPublisherThatStays(clock, factory, sinks):
    """Nothing would be read of what it does next."""
    client = publish(factory)
    [stream] = factory.streams.values()
    throttle = stream.throttle()
    sinks[0].mediaReceived = lambda message: throttle.pauseProducing()
    client.connection.sendMessage(Message(AUDIO, 0, 1, AAC_FRAME), 4)
    client.command("closeStream", 0, None, streamId=1)
    assert stream.publisher is None
    assert stream.throttled
    assert client.transport.reading


# How many streams may wait


def orphan(factory, name, host="198.51.100.7"):
    """Publish a stream, and leave it."""
    publisher = publish(factory, name, host)
    send(publisher, (AUDIO, 0, AAC_FRAME))
    publisher.leave()


def names(factory):
    return [name for _, name in factory.streams]


def test_aStreamOfWhichNothingHasComeDoesNotWait(clock, factory, sinks):
    publish(factory).leave()
    assert factory.streams == {}
    assert sinks[0].ended


def test_anAddressHasItsShareOfTheStreamsThatWait(clock, sinks, lines):
    limits = ServerLimits(
        waitingStreams=8, addresses=AddressLimits(waitingStreamShare=0.5)
    )
    factory = RTMPFactory(clock, sinkFactories=[sinks], grace=GRACE, limits=limits)
    for number in range(100):
        orphan(factory, str(number))
    assert names(factory) == [*"0123"]
    assert sum(not sink.ended for sink in sinks) == 4
    assert any("live/99" in line and "does not wait" in line for line in lines)
    orphan(factory, "honest", "203.0.113.1")
    assert names(factory) == [*"0123", "honest"]
    clock.advance(GRACE)
    assert names(factory) == []
    orphan(factory, "later")
    assert names(factory) == ["later"]


def test_theAddressWithMostGivesAPlaceUp(clock, sinks):
    limits = ServerLimits(
        waitingStreams=4, addresses=AddressLimits(waitingStreamShare=1.0)
    )
    factory = RTMPFactory(clock, sinkFactories=[sinks], grace=GRACE, limits=limits)
    for number in range(4):
        orphan(factory, str(number))
    orphan(factory, "honest", "203.0.113.1")
    assert names(factory) == [*"012", "honest"]
    # One that is continued makes room.
    publish(factory, "honest", "203.0.113.1")
    orphan(factory, "5")
    assert names(factory) == [*"012", "honest", "5"]
