"""Time limits of a client, congestion, and pauses."""

from __future__ import annotations

import pytest
from clientkit import (
    LIMITS,
    Collector,
    MemoryEndpoint,
    Outcome,
    byResult,
    connected,
    playing,
    publishing,
    silent,
)
from rtmpclient import (
    AAC_FRAME,
    AAC_HEADER,
    AUDIO,
    AVC_HEADER,
    AVC_KEY_FRAME,
    DATA,
    VIDEO,
    Client,
)
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface.verify import verifyObject

from twisted_rtmp.client import (
    ClientLimits,
    ConnectionEnded,
    TimeLimitPassed,
    connectRTMP,
)
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.limits import QUEUED_REPLY_BYTES
from twisted_rtmp.live.player import Player
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import ECMAArray
from twisted_rtmp.wire.constants import UserControlType
from twisted_rtmp.wire.messages import Message


def test_disconnectFromASlowServer(clock):
    """As long as it acknowledges, it reads; but not for ever."""
    client, server = connected(clock)
    gone = Outcome(client.disconnect())
    for _ in range(30):
        clock.advance(1)
        server.connection.sendUserControl(UserControlType.PING_REQUEST, 1)
        assert gone.pending
    clock.advance(LIMITS.farewellSeconds)
    server.pump()
    assert gone.result is None
    assert not clock.getDelayedCalls()


# Time limits


def test_noConnectionInTime(clock):
    endpoint = MemoryEndpoint(clock)
    endpoint.connect = lambda factory: Deferred()
    outcome = Outcome(
        connectRTMP(clock, "rtmp://s/app", endpoint=endpoint, limits=LIMITS)
    )
    clock.advance(6.9)
    assert outcome.pending
    clock.advance(0.1)
    error = outcome.error
    assert isinstance(error, TimeLimitPassed)
    assert error.seconds == 7
    assert "s:1935" in str(error)


def test_noAnswerToConnectInTime(clock):
    endpoint = MemoryEndpoint(clock, connect=silent)
    outcome = Outcome(
        connectRTMP(clock, "rtmp://s/app", endpoint=endpoint, limits=LIMITS)
    )
    clock.advance(7)
    assert isinstance(outcome.error, TimeLimitPassed)
    endpoint.servers[0].pump()
    clock.advance(0)
    assert not endpoint.servers[0].open
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("which", ["createStream", "publish"])
def test_noAnswerToACommandInTime(clock, which):
    client, server = connected(clock, **{which: silent})
    clock.advance(1000)
    assert server.open
    outcome = Outcome(client.publish())
    clock.advance(4.9)
    assert outcome.pending
    clock.advance(0.1)
    error = outcome.error
    assert isinstance(error, TimeLimitPassed)
    assert error.seconds == 5
    assert which in str(error)
    server.pump()
    assert Outcome(client.whenEnded()).result is error
    assert not clock.getDelayedCalls()


def test_aServerThatTakesNothing(clock):
    client, server, publication = publishing(clock)
    server.transport.taking = False
    publication.send(Message(VIDEO, 0, 1, bytes(100_000)))
    clock.advance(3.9)
    assert server.open
    clock.advance(0.1)
    clock.advance(0)
    error = Outcome(client.whenEnded()).result
    assert isinstance(error, TimeLimitPassed)
    assert error.seconds == 4
    assert "takes nothing" in str(error)
    assert Outcome(publication.whenEnded()).result is error


def test_silence(clock):
    limits = ClientLimits(silenceSeconds=20)
    client, server = connected(clock, limits=limits)
    subscription = Outcome(client.play(None, Collector())).result
    clock.advance(19)
    server.media(AUDIO, 0, AAC_FRAME)
    clock.advance(19)
    assert server.open
    subscription.pauseProducing()
    clock.advance(100)
    assert server.open
    subscription.resumeProducing()
    clock.advance(19)
    assert server.open
    clock.advance(1)
    server.pump()
    error = Outcome(subscription.whenEnded()).result
    assert isinstance(error, TimeLimitPassed)
    assert error.seconds == 20
    assert "audio or video" in str(error)


def test_silenceIsNoMatterByDefault(clock):
    _, server, _, _ = playing(clock)
    clock.advance(100_000)
    assert server.open


# Backpressure


def test_congestion(clock):
    _, server, publication = publishing(clock)
    drained = []
    publication.drained = lambda: drained.append(publication.congested)
    server.transport.taking = False
    first = Message(VIDEO, 0, 1, bytes(100_000))
    publication.send(first)
    assert publication.congested
    ready = Outcome(publication.whenReady())
    assert ready.pending
    assert drained == []
    server.transport.taking = True
    server.pump()
    assert drained == [False]
    assert ready.result is None
    assert not publication.congested
    assert server.messages == [first]


def test_aCongestedServerIsReadOn(clock):
    """It may say why, and may wait itself until what it sends is taken."""
    client, server = connected(clock)
    publication = Outcome(client.publish()).result
    sink = Collector()
    Outcome(client.play("other", sink))
    server.transport.taking = False
    publication.send(Message(VIDEO, 0, 1, bytes(100_000)))
    assert publication.congested
    assert server.transport.reading
    server.media(AUDIO, 0, AAC_FRAME, streamId=2)
    assert len(sink.messages) == 1
    ended = Outcome(publication.whenEnded())
    server.status("NetStream.Publish.Denied", 1, "error", description="Too much.")
    [error] = ended.results
    assert "Too much." in str(error)


def test_aCongestedServerCannotMakeRepliesMany(clock):
    _, server, publication = publishing(clock)
    server.transport.taking = False
    publication.send(Message(VIDEO, 0, 1, bytes(100_000)))
    before = len(server.transport.queued)
    for _ in range(120):
        for _ in range(1000):
            server.connection.sendUserControl(UserControlType.PING_REQUEST, 7)
        server.pump()
    assert not server.transport.reading
    assert len(server.transport.queued) - before < QUEUED_REPLY_BYTES + 100_000
    server.transport.taking = True
    server.pump()
    assert server.transport.reading


def test_aServerThatTakesNothingIsLeftThoughItSpeaks(clock):
    client, server, publication = publishing(clock)
    server.transport.taking = False
    publication.send(Message(VIDEO, 0, 1, bytes(100_000)))
    ended = Outcome(client.whenEnded())
    for _ in range(LIMITS.drainSeconds * 2):
        server.connection.sendUserControl(UserControlType.PING_REQUEST, 7)
        server.pump()
        clock.advance(0.5)
    [error] = ended.results
    assert "takes nothing" in str(error)


def test_congestedAgainByTheFirstThatIsDrained(clock):
    client, server = connected(clock)
    publications = [Outcome(client.publish(name)).result for name in "ab"]
    drained = []

    def fill(publication):
        def more():
            drained.append(publication.streamId)
            publication.send(Message(VIDEO, 0, 1, bytes(100_000)))

        return more

    for publication in publications:
        publication.drained = fill(publication)
    server.transport.taking = False
    publications[0].send(Message(VIDEO, 0, 1, bytes(100_000)))
    server.transport.taking = True
    server.transport.deliver()
    assert drained == [1]
    assert publications[1].congested
    publications[0].drained = publications[1].drained = None


def test_pauseASubscription(clock):
    _, server, subscription, sink = playing(clock)
    assert verifyObject(IPushProducer, subscription)
    subscription.pauseProducing()
    assert not server.transport.reading
    server.media(AUDIO, 0, AAC_FRAME)
    assert sink.messages == []
    subscription.resumeProducing()
    assert server.transport.reading
    server.pump()
    assert len(sink.messages) == 1


def test_aSinkMayPauseAndEndAnywhere(clock):
    class Fickle(Collector):
        subscription = None

        def mediaReceived(self, message):
            super().mediaReceived(message)
            if len(self.messages) == 2:
                self.subscription.pauseProducing()
                self.subscription.resumeProducing()
            if len(self.messages) == 3:
                self.subscription.stopProducing()

    sink = Fickle()
    _, server, sink.subscription, _ = playing(clock, sink)
    for time in range(5):
        server.connection.sendMessage(Message(AUDIO, time, 1, AAC_FRAME), 4)
    server.pump()
    assert [m.timestamp for m in sink.messages] == [0, 1, 2]
    assert sink.ended == 1
    assert server.open


def test_aPausedOneThatEndsReadsOn(clock):
    _, server, subscription, _ = playing(clock)
    subscription.pauseProducing()
    subscription.close()
    assert server.transport.reading
    subscription.pauseProducing()
    assert server.transport.reading


# As the outlet of a player


def relayed(clock):
    """A stream of ours that a player hands on to a scripted server."""
    factory = RTMPFactory(clock)
    source = Client(factory)
    source.publish()
    client, server, publication = publishing(clock)
    player = Player(publication, publication.packaging, "key", clock.seconds())
    publication.drained = player.drain
    assert factory.registry.play("live", "key", player)
    return source, client, server, publication, player


def test_aPlayerHandsAStreamOn(clock):
    source, _, server, publication, player = relayed(clock)
    payload = amf0.encode("onMetaData", ECMAArray({"width": 1.0}))
    sent = [
        (DATA, 0, payload),
        (AUDIO, 0, AAC_HEADER),
        (VIDEO, 0, AVC_HEADER),
        (VIDEO, 40, AVC_KEY_FRAME),
        (AUDIO, 41, AAC_FRAME),
    ]
    for typeId, time, data in sent:
        source.media(typeId, data, time)
    clock.advance(1)
    server.pump()
    metadata, *media = [(m.typeId, m.timestamp, m.payload) for m in server.messages]
    assert metadata[2] == amf0.encode("@setDataFrame") + payload
    assert media == sent[1:]
    assert player.sent == 5
    source.leave()
    clock.advance(1)
    assert server.names()[-2:] == ["FCUnpublish", "deleteStream"]
    byResult(server)
    assert Outcome(publication.whenEnded()).result is None


def test_aPlayerWaitsForACongestedServer(clock):
    source, _, server, _, player = relayed(clock)
    source.media(VIDEO, AVC_HEADER)
    server.transport.taking = False
    payloads = [AVC_KEY_FRAME + bytes(50_000 + n) for n in range(9)]
    for number, payload in enumerate(payloads):
        source.media(VIDEO, payload, 40 * number)
        clock.advance(0.05)
    assert len(server.transport.queued) < 200_000
    server.transport.taking = True
    server.pump()
    clock.advance(1)
    server.pump()
    assert [m.payload for m in server.messages] == [AVC_HEADER, *payloads]
    assert not player.dropped
    source.leave()
    clock.advance(1)
    server.close()


def test_aPlayerThatIsTooFarBehindEndsTheConnection(clock):
    _, client, server, publication, _ = relayed(clock)
    publication.abort("it is too far behind")
    clock.advance(0)
    assert not server.open
    for each in (client, publication):
        error = Outcome(each.whenEnded()).result
        assert type(error) is ConnectionEnded
        assert "too far behind" in str(error)
