"""Streams of other servers, published here."""

from __future__ import annotations

import pytest
from clientkit import refusing, silent
from relaykit import METADATA, Studio, collected, message
from rtmpclient import (
    AAC_HEADER,
    AUDIO,
    AVC_FRAME,
    AVC_HEADER,
    AVC_KEY_FRAME,
    DATA,
    VIDEO,
    Client,
)
from twisted.application.service import IService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError
from zope.interface.verify import verifyObject

from twisted_rtmp.client import RTMPURL, InvalidURL
from twisted_rtmp.interfaces import IMediaSink
from twisted_rtmp.limits import HeaderLimits, MemoryLimits, ServerLimits
from twisted_rtmp.live.policy import TakeOver
from twisted_rtmp.relay import PullRelay, PushRelays, RelayState, parsePull
from twisted_rtmp.relay.base import SILENCE_SECONDS
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.limits import MIB, WireLimits


class Pulling(Studio):
    """A server that keeps a stream of another one."""

    def __init__(self, **options):
        super().__init__(**options)
        self.network.scripted("a")
        self.service = PullRelay(
            self.clock,
            self.factory.registry,
            "live",
            "key",
            "rtmp://a/there/s3cret",
            connect=self.network.connect,
        )

    def start(self):
        self.service.startService()
        self.network.pump()
        return self.service.pull

    @property
    def source(self):
        self.network.pump()
        servers = self.network.servers
        return [s for s in servers if s.protocol.url.host == "a"][-1]

    def give(self, *messages):
        """The source sends messages."""
        for each in messages:
            self.source.media(*each)
        self.network.pump()
        return list(messages)

    def giveHeaders(self):
        return self.give((DATA, 0, METADATA), (VIDEO, 0, AVC_HEADER)) + self.give(
            (AUDIO, 0, AAC_HEADER)
        )

    def giveGOP(self, time):
        return self.give((VIDEO, time, AVC_KEY_FRAME), (VIDEO, time + 33, AVC_FRAME))


@pytest.fixture
def studio():
    studio = Pulling()
    yield studio
    if studio.service.running:
        studio.service.stopService()
    studio.settle()
    assert studio.factory.streams == {}


@pytest.mark.parametrize(
    ("text", "stream"),
    [
        ("live/key=rtmp://a/app/name", ("live", "key", "app", "name")),
        ("a/b/c=rtmps://a:1/app/name?x=y", ("a/b", "c", "app", "name?x=y")),
        ("/key=rtmp://a/app/name", ("", "key", "app", "name")),
    ],
)
def test_options(text, stream):
    application, name, url = parsePull(text)
    assert (application, name, url.application, url.name) == stream


@pytest.mark.parametrize(
    "text",
    [
        *("rtmp://a/app/name", "key=rtmp://a/app/name", "live/=rtmp://a/app/name"),
        *("live/key=", "live/key=rtmp://a/app", "live/key=a/app/name"),
    ],
)
def test_noOptions(text):
    with pytest.raises(InvalidURL):
        parsePull(text)


def test_aURLNeedsAName(studio):
    with pytest.raises(InvalidURL):
        PullRelay(studio.clock, studio.factory.registry, "live", "key", "rtmp://a/app")


def test_interfaces(studio):
    assert verifyObject(IService, studio.service)
    pull = studio.start()
    assert verifyObject(IMediaSink, pull)


def test_whatTheSourceSendsIsPublishedHere(studio):
    pull = studio.start()
    assert studio.source.of("connect").argument(0)["app"] == "there"
    assert studio.source.of("play").argument(1) == "s3cret"
    assert pull.state is RelayState.EXPECTING
    assert studio.factory.streams == {}
    expected = studio.giveHeaders() + studio.giveGOP(0)
    assert pull.state is RelayState.RELAYING
    live = studio.factory.streams["live", "key"]
    assert live.publisher is pull
    (sink,) = studio.sinks
    assert collected(sink) == expected
    assert pull.counters.messages == len(expected)
    assert pull.counters.relayedBytes == sum(len(payload) for _, _, payload in expected)


def test_aPulledStreamIsPlayedAndPushed(studio):
    studio.network.scripted("b")
    pushes = PushRelays(
        studio.clock,
        studio.factory.registry,
        ["rtmp://b/live"],
        connect=studio.network.connect,
    )
    pushes.startService()
    player = Client(studio.factory)
    player.connect()
    player.command("createStream", 2, None)
    player.command("play", 3, None, "key", streamId=1)
    studio.network.encoders.append(player)
    studio.start()
    studio.giveHeaders()
    studio.network.pump()
    source, target = studio.network.servers
    source.media(VIDEO, 0, AVC_KEY_FRAME)
    studio.network.pump()
    assert [r.payload for r in player.take() if r.typeId == VIDEO] == [
        *(AVC_HEADER, AVC_KEY_FRAME)
    ]
    assert [m.payload for m in target.messages if m.typeId == VIDEO] == [
        *(AVC_HEADER, AVC_KEY_FRAME)
    ]
    source.status("NetStream.Play.UnpublishNotify")
    studio.network.pump()
    assert target.log[-1] == "deleteStream"
    assert "NetStream.Play.UnpublishNotify" in player.codes()


def test_theSourcesPublicationEndsAndBeginsAgain(studio):
    pull = studio.start()
    studio.giveHeaders()
    studio.source.status("NetStream.Play.UnpublishNotify")
    studio.network.pump()
    assert studio.factory.streams == {}
    assert studio.sinks[0].ended
    assert pull.state is RelayState.WAITING
    assert "the stream has ended" in pull.why
    studio.until(pull, RelayState.EXPECTING)
    expected = studio.giveHeaders()
    assert pull.state is RelayState.RELAYING
    assert collected(studio.sinks[1]) == expected
    assert pull.counters.reconnects == 1
    assert pull.counters.messages == 6


def test_aLostConnectionIsMadeAgain(studio):
    pull = studio.start()
    studio.giveHeaders()
    del studio.network.answers["a"]
    studio.source.breakOff()
    studio.network.pump()
    assert studio.factory.streams == {}
    studio.advance(20)
    assert pull.counters.attempts > 3
    studio.network.scripted("a")
    studio.until(pull, RelayState.EXPECTING)
    studio.giveHeaders()
    assert ("live", "key") in studio.factory.streams


def test_aGraceHoldsTheStream():
    studio = Pulling(grace=10.0)
    pull = studio.start()
    studio.giveHeaders()
    studio.giveGOP(0)
    live = studio.factory.streams["live", "key"]
    studio.source.breakOff()
    studio.until(pull, RelayState.EXPECTING)
    studio.giveHeaders()
    studio.giveGOP(0)
    assert studio.factory.streams["live", "key"] is live
    (sink,) = studio.sinks
    assert len(sink.messages) == 10
    assert pull.counters.messages == 10
    studio.service.stopService()
    studio.settle()


@pytest.mark.parametrize(
    ("code", "most"),
    [("NetStream.Play.StreamNotFound", 9), ("NetStream.Play.Failed", 6)],
)
def test_aRefusalIsNoReasonToHammer(studio, code, most):
    studio.network.scripted("a", play=refusing(code, "There is no s3cret."))
    pull = studio.start()
    studio.advance(60)
    assert pull.state is RelayState.WAITING
    assert "(key)" in pull.why
    assert most - 4 <= pull.counters.refused == pull.counters.attempts <= most


def test_aSourceThatIsNotThere(studio):
    studio.network.errors["a"] = ConnectError()
    pull = studio.start()
    assert pull.state is RelayState.WAITING
    studio.advance(5)
    assert pull.counters.attempts > 1
    del studio.network.errors["a"]
    studio.until(pull, RelayState.EXPECTING)


def test_aSilentSourceIsLeft(studio):
    pull = studio.start()
    studio.giveHeaders()
    studio.advance(SILENCE_SECONDS - 1)
    assert pull.state is RelayState.RELAYING
    studio.advance(2)
    assert pull.state is RelayState.WAITING
    assert "audio or video" in pull.why
    assert studio.factory.streams == {}


def test_aSourceIsSilentThoughItsReadsArePaced(studio):
    pull = studio.start()
    studio.giveHeaders()
    studio.advance(SILENCE_SECONDS - 0.5)
    client = studio.source.protocol
    client.holdPace()
    assert not studio.source.transport.reading
    # TLS, as this transport, is read by the reactor alone.
    assert client.readPaced() == b""
    assert studio.source.transport.reading
    client.holdPace()
    studio.advance(1)
    assert pull.state is RelayState.WAITING


def test_aSourceThatNeverAnswersIsLeft(studio):
    studio.network.scripted("a", play=silent)
    pull = studio.start()
    studio.advance(20)
    assert pull.counters.attempts == 1 + (pull.state is RelayState.CONNECTING)
    assert studio.network.servers[0].transport.disconnected


# Names that others have


def test_aLocalPublisherKeepsTheName(studio, lines):
    studio.begin("key")
    pull = studio.start()
    assert pull.state is RelayState.WAITING
    assert "publishes it here" in pull.why
    assert studio.network.urls == []
    studio.gop(0)
    studio.leave("key")
    studio.until(pull, RelayState.EXPECTING, 200)
    studio.giveHeaders()
    assert studio.factory.streams["live", "key"].publisher is pull


def test_aLocalPublisherComesWhileTheSourceIsAwaited(studio):
    pull = studio.start()
    studio.begin("key")
    studio.giveHeaders()
    assert pull.state is RelayState.WAITING
    assert "another publisher has the name" in pull.why
    assert studio.factory.streams["live", "key"].publisher is not pull
    assert studio.source.names()[-1] == "deleteStream"


def test_thePullIsTakenOver():
    studio = Pulling(takeOver=TakeOver.ALWAYS)
    pull = studio.start()
    studio.giveHeaders()
    studio.begin("key")
    studio.gop(0)
    assert pull.state is RelayState.WAITING
    assert "taken the name over" in pull.why
    first, second = studio.sinks
    assert first.ended
    assert collected(second) == studio.sent
    assert not studio.source.open or studio.source.names()[-1] == "deleteStream"
    studio.service.stopService()
    studio.settle()


def test_aReasonIsItsOwnAttempts():
    """Why an earlier connection was left says nothing of the present attempt."""
    studio = Pulling(takeOver=TakeOver.ALWAYS)
    pull = studio.start()
    studio.giveHeaders()
    studio.begin("key")
    assert "taken the name over" in pull.why
    studio.leave()
    del studio.network.answers["a"]
    while pull.counters.attempts == 1:
        studio.advance(1)
    studio.until(pull, RelayState.WAITING)
    assert pull.why.startswith("An error occurred while connecting: it is not there")
    studio.service.stopService()
    studio.settle()


def test_thePullIsNotTakenOverWhileItIsHeard(studio):
    pull = studio.start()
    studio.giveHeaders()
    newcomer = Client(studio.factory)
    newcomer.publish("key")
    assert "NetStream.Publish.BadName" in newcomer.codes()
    assert studio.factory.streams["live", "key"].publisher is pull


class LateSubscription:
    """A subscription that the client gives out after the first messages."""

    heard = 5.0
    unread = False

    def unpaid(self):
        return 0

    def __init__(self):
        self.paused = False
        self.closed = False
        self.ended = Deferred()

    def pauseProducing(self):
        self.paused = True

    def resumeProducing(self):
        self.paused = False

    def close(self):
        self.closed = True
        self.ended.callback(None)

    def whenEnded(self):
        return self.ended


class LateClient:
    """A client whose play begins before it is told of."""

    transport = pacer = reconnectRequest = None
    url = RTMPURL.parse("rtmp://a/live/key")

    def __init__(self):
        self.begun = Deferred()
        self.reconnectRequested = []

    def play(self, name, sink):
        self.sink = sink
        return self.begun

    def disconnect(self):
        return succeed(None)

    whenEnded = disconnect

    def chargeTo(self, account):
        """Keep nothing."""


@pytest.mark.parametrize("taken", [False, True])
def test_mediaMayComeBeforeTheAnswer(taken):
    studio = Studio()
    client = LateClient()
    service = PullRelay(
        *(studio.clock, studio.factory.registry, "live", "key", "rtmp://a/live/key"),
        connect=lambda reactor, url, **settings: succeed(client),
    )
    service.startService()
    if taken:
        studio.begin("key")
    client.sink.mediaReceived(message(VIDEO, 0, AVC_HEADER))
    client.sink.mediaReceived(message(VIDEO, 0, AVC_KEY_FRAME))
    subscription = LateSubscription()
    if taken:
        client.begun.callback(subscription)
        assert subscription.closed
        assert service.pull.state is RelayState.WAITING
    else:
        assert service.pull.state is RelayState.RELAYING
        assert service.pull.heard == studio.clock.seconds()
        throttle = studio.factory.streams["live", "key"].throttle()
        throttle.pauseProducing()
        client.begun.callback(subscription)
        assert subscription.paused
        throttle.resumeProducing()
        assert not subscription.paused
        assert service.pull.heard == 5.0
        assert len(studio.sinks[0].messages) == 2
    service.stopService()
    studio.settle()


def test_aRelayThatIsStoppedAsItBegins():
    studio = Studio()
    ended = []

    def connect(reactor, url, **settings):
        ended.append(service.stopService())
        return Deferred()

    service = PullRelay(
        *(studio.clock, studio.factory.registry, "live", "key", "rtmp://a/live/key"),
        connect=connect,
    )
    service.startService()
    assert ended[0].called
    assert set(studio.factory.connections) == set()


def test_aRelayThatFailsIsLogged(loggedFailures):
    studio = Studio()
    service = PullRelay(
        *(studio.clock, studio.factory.registry, "live", "key", "rtmp://a/live/key"),
        connect=lambda reactor, url, **settings: fail(ZeroDivisionError()),
    )
    service.startService()
    assert len(loggedFailures.take(ZeroDivisionError)) == 1
    assert service.pull.state is RelayState.ENDED
    assert set(studio.factory.connections) == set()
    assert service.stopService().called


# Pressure


def test_aSinkThatIsBehindHoldsTheSource(studio):
    studio.start()
    studio.giveHeaders()
    throttle = studio.factory.streams["live", "key"].throttle()
    transport = studio.source.transport
    assert transport.reading
    throttle.pauseProducing()
    assert not transport.reading
    studio.advance(SILENCE_SECONDS + 5)  # it cannot be heard: it is not silent
    studio.source.media(VIDEO, 0, AVC_KEY_FRAME)
    assert len(studio.sinks[0].messages) == 3
    throttle.resumeProducing()
    studio.network.pump()
    assert transport.reading
    assert len(studio.sinks[0].messages) == 4


# The end


def test_theServiceStops(studio):
    pull = studio.start()
    studio.giveHeaders()
    stopped = studio.service.stopService()
    assert studio.factory.streams == {}
    assert studio.service.pull is None
    studio.source.close()
    studio.network.pump()
    assert stopped.called
    assert pull.state is RelayState.ENDED
    assert set(studio.factory.connections) == set()
    studio.service.startService()
    studio.network.pump()
    assert len(studio.network.servers) == 2


@pytest.mark.parametrize("host", ["a", "nowhere"])
def test_theServiceStopsBeforeAnythingCame(host):
    studio = Studio()
    studio.network.scripted("a", connect=silent)
    service = PullRelay(
        studio.clock,
        studio.factory.registry,
        "live",
        "key",
        RTMPURL.parse(f"rtmp://{host}/live/key"),
        connect=studio.network.connect,
    )
    service.startService()
    stopped = service.stopService()
    studio.advance(1)
    assert stopped.called
    assert studio.clock.getDelayedCalls() == []


def test_theServerStops(studio):
    pull = studio.start()
    studio.giveHeaders()
    stopped = studio.factory.stop()
    assert studio.factory.streams == {}
    studio.source.close()
    studio.network.pump()
    assert stopped.called
    assert pull.state is RelayState.ENDED


def test_aHookStopsIt(studio):
    """A stream that is turned away as it begins does not stay without an end."""
    pull = studio.start()
    studio.factory.streamStarted.append(lambda stream: stream.publisher.close())
    studio.give((VIDEO, 0, AVC_HEADER))
    assert studio.factory.streams == {}
    studio.source.close()
    studio.network.pump()
    assert pull.ended


def test_aServiceThatHasNotBegun(studio):
    assert studio.service.stopService().called


# What a source may cost


def test_anUnfinishedMessageIsCharged():
    studio = Pulling()
    pull = studio.start()
    studio.giveHeaders()
    used = studio.factory.registry.budget.used
    source = studio.source
    frame = AVC_KEY_FRAME + bytes(6 * MIB)
    data = source.connection.writer.encode(6, VIDEO, 0, 1, frame)
    source.protocol.dataReceived(data[: 5 * MIB])
    assert studio.factory.registry.budget.used - used >= 4 * MIB
    source.close()
    studio.network.pump()
    assert studio.factory.registry.budget.used <= used
    studio.until(pull, RelayState.EXPECTING)
    studio.service.stopService()
    studio.settle()


def test_aSourceThatTakesTooMuchIsLeft():
    limits = ServerLimits(
        wire=WireLimits(messageSize=2 * MIB, unfinishedBytes=2 * MIB),
        memory=MemoryLimits(connectionBytes=MIB, serverBytes=2 * MIB),
    )
    studio = Pulling(limits=limits)
    pull = studio.start()
    source = studio.source
    data = source.connection.writer.encode(
        6, VIDEO, 0, 1, AVC_KEY_FRAME + bytes(2 * MIB - 64)
    )
    source.protocol.dataReceived(data[:-1])
    studio.network.pump()
    assert pull.state is RelayState.WAITING
    assert "of memory" in pull.why
    assert source.transport.disconnected
    assert studio.factory.registry.budget.used < MIB
    studio.service.stopService()
    studio.settle()


@pytest.mark.parametrize(
    ("typeId", "payload"),
    [
        (DATA, amf0.encode("onMetaData", {"x": "y" * 60_000, "z": "y" * 60_000})),
        (DATA, amf0.encode("onMetaData", {str(n): float(n) for n in range(999)})),
        (DATA, amf0.encode("onMetaData", {"x": ["y" * 60_000] * 9})),
        (DATA, b"\x02\xff\xff"),
        (VIDEO, AVC_HEADER + bytes(1 << 20)),
        (VIDEO, b"\x57" * 20),
        (VIDEO, b""),
        (AUDIO, AAC_HEADER + bytes(1 << 20)),
        (AUDIO, b"\xaf"),
    ],
)
def test_floodsOfOneMessageCostNoMore(studio, lines, typeId, payload):
    studio.start()
    studio.giveHeaders()
    [stream] = studio.factory.streams.values()
    before = len(lines)
    source = studio.source
    for number in range(50):
        source.media(typeId, number, payload)
    studio.network.pump()
    kept = sum(len(message.payload) for message in stream.headers())
    assert kept <= HeaderLimits().allBytes
    assert len(lines) - before <= 3
    assert studio.service.pull.state is RelayState.RELAYING


def test_statusesWithoutEndAreIgnored(studio, lines):
    studio.start()
    studio.giveHeaders()
    before = len(lines)
    source = studio.source
    for code in ("NetStream.Play.Start", "NetStream.Data.Start", "No.Such.Code", ""):
        for _ in range(500):
            studio.source.connection.sendCommand(
                "onStatus",
                0,
                None,
                {"code": code, "description": "x" * 900},
                streamId=1,
            )
        source.pump()
    assert len(lines) == before
    assert studio.service.pull.state is RelayState.RELAYING
