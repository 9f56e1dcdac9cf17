"""Streams pushed to other servers."""

from __future__ import annotations

import socket
from itertools import pairwise

import pytest
import pytest_twisted
from clientkit import refusing, silent, startPublish
from relaykit import METADATA, Studio, published
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
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from zope.interface.verify import verifyObject

from twisted_rtmp.client import RTMPURL, InvalidURL
from twisted_rtmp.client.limits import CONNECT_SECONDS
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.limits import DRAIN_SECONDS, QueueLimits, ServerLimits
from twisted_rtmp.relay import PushRelays, PushTarget, RelayState

HEADERS = [(DATA, 0, METADATA), (VIDEO, 0, AVC_HEADER), (AUDIO, 0, AAC_HEADER)]


class Pushing(Studio):
    """A server that pushes."""

    def __init__(self, *targets, **options):
        super().__init__(**options)
        targets = targets or ("rtmp://b/live",)
        self.relays = PushRelays(
            self.clock, self.factory.registry, targets, connect=self.network.connect
        )
        self.relays.startService()

    @property
    def push(self):
        self.network.pump()
        (push,) = self.relays.pushes
        return push

    @property
    def server(self):
        self.network.pump()
        return self.network.servers[-1]


@pytest.fixture
def studio():
    studio = Pushing()
    yield studio
    studio.settle()


def queueing(size):
    """Limits of a server on which fewer bytes may wait for a player."""
    return ServerLimits(publisherIdleSeconds=600, playerQueue=QueueLimits(bytes=size))


@pytest.fixture
def shortQueue():
    studio = Pushing(limits=queueing(2_000))
    yield studio
    studio.settle()


# Targets


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("rtmp://b/live", ("live", "cam")),
        ("rtmp://b/live/", ("live", "cam")),
        ("rtmp://b/live/other", ("live", "other")),
        ("rtmp://b/live/{stream}", ("live", "cam")),
        ("rtmp://b/{app}/{stream}_hd?token=1", ("studio/a", "cam_hd?token=1")),
        ("rtmp://b/in/{app}-{stream}", ("in", "studio/a-cam")),
        ("rtmp://b/{app}", ("studio/a", "cam")),
        ("studio/*=rtmp://b/live/key?a=b", ("live", "key?a=b")),
    ],
)
def test_addresses(target, address):
    target = PushTarget.parse(target)
    assert target.wants("studio/a", "cam")
    url = target.addressOf("studio/a", "cam")
    assert (url.application, url.name) == address
    assert (url.host, url.port) == ("b", 1935)


def test_aNameIsNoTemplate():
    url = PushTarget.parse("rtmp://b/{app}/{stream}").addressOf("{stream}", "{app}")
    assert (url.application, url.name) == ("{stream}", "{app}")


@pytest.mark.parametrize(
    ("pattern", "wanted", "unwanted"),
    [
        ("live/cam", [("live", "cam")], [("live", "cam2"), ("other", "cam")]),
        ("live/*", [("live", "cam"), ("live", "")], [("other", "cam")]),
        ("*/cam", [("live", "cam"), ("a/b", "cam")], [("live", "camera")]),
    ],
)
def test_patterns(pattern, wanted, unwanted):
    target = PushTarget.parse(f"{pattern}=rtmps://b/live")
    assert target.url.port == 443
    assert all(target.wants(*stream) for stream in wanted)
    assert not any(target.wants(*stream) for stream in unwanted)


@pytest.mark.parametrize(
    "text",
    ["b/live", "http://b/live", "rtmp://{app}/live", "live=rtmp://b/live", "rtmp://b"],
)
def test_noTargets(text):
    with pytest.raises(InvalidURL):
        PushTarget.parse(text)


# A stream and its targets


def test_interfaces(studio):
    assert verifyObject(IService, studio.relays)


def test_aStreamIsPushedFromItsBeginning(studio):
    studio.network.scripted("b", publish=silent)
    studio.begin()
    studio.gop(0)
    assert studio.push.state is RelayState.CONNECTING
    assert published(studio.server) == []
    startPublish(studio.server, studio.server.of("publish"))
    assert studio.push.state is RelayState.RELAYING
    studio.gop(100)
    assert published(studio.server) == studio.sent
    assert studio.server.of("publish").arguments[1:] == ["key", "live"]
    assert studio.push.counters.messages == len(studio.sent)
    assert studio.push.counters.dropped == 0


def thirtySecond(server, command):
    """Answer C{createStream} with a number that is not the usual one."""
    server.command("_result", command.transactionId, None, 32.0)


def test_theStreamIdIsTheTargets(studio):
    studio.network.scripted("b", createStream=thirtySecond, publish=silent)
    studio.begin()
    studio.gop(0)
    startPublish(studio.server, studio.server.of("publish"))
    studio.gop(100)
    assert published(studio.server) == studio.sent
    assert {message.streamId for message in studio.server.messages} == {32}


def test_whatIsLiveAlreadyIsPushed(studio):
    studio.relays.stopService()
    studio.network.scripted("b")
    studio.begin()
    studio.gop(0)
    studio.relays.startService()
    assert studio.push.state is RelayState.RELAYING
    assert published(studio.server) == studio.sent


def test_targetsChangeAtRunTime(studio):
    studio.network.scripted("b")
    studio.network.scripted("c")
    studio.begin()
    studio.gop(0)
    target = studio.relays.addTarget("rtmp://c/other/{stream}")
    (b, c) = studio.network.servers
    assert c.of("publish").argument(1) == "key"
    removed = studio.relays.removeTarget(target)
    studio.advance(12)
    assert removed.called
    assert c.names()[-2:] == ["FCUnpublish", "deleteStream"]
    studio.gop(100)
    assert published(b) == studio.sent
    assert published(c) == studio.sent[:-4]
    assert studio.push.url.host == "b"
    assert studio.relays.total.messages == len(studio.sent) - 4


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ConnectError(111, "Connection refused"), "Connection refused"),
        (DNSLookupError("no such host"), "no such host"),
    ],
)
def test_aTargetThatIsNotThereYetGetsAll(studio, error, why, lines):
    studio.network.errors["b"] = error
    studio.begin()
    studio.gop(0)
    assert studio.push.state is RelayState.WAITING
    assert why in studio.push.why
    studio.advance(3)
    del studio.network.errors["b"]
    studio.network.scripted("b")
    studio.until(studio.push, RelayState.RELAYING)
    studio.gop(4000)
    assert published(studio.server) == studio.sent
    counters = studio.push.counters
    assert (counters.attempts >= 2, counters.reconnects, counters.dropped) == (
        *(True, 0, 0),
    )
    assert any(
        "push of live/key to rtmp://b:1935/live: waiting" in line for line in lines
    )


def test_aLostConnectionIsMadeAgain(studio):
    studio.network.scripted("b")
    studio.begin()
    studio.gop(0)
    studio.gop(100)
    gop = studio.sent[-4:]
    studio.server.breakOff()
    assert studio.push.state is RelayState.WAITING
    studio.gop(200)
    studio.until(studio.push, RelayState.RELAYING)
    studio.gop(300)
    first, second = studio.network.servers
    assert published(first) == studio.sent[:-8]
    assert published(second) == HEADERS + gop + studio.sent[-8:]
    counters = studio.push.counters
    assert (counters.attempts, counters.reconnects, counters.dropped) == (2, 1, 0)


def test_aLongOutageCostsWholeGOPs(studio):
    studio.network.scripted("b")
    studio.begin()
    studio.gop(0)
    del studio.network.answers["b"]
    studio.server.breakOff()
    for second in range(1, 31):
        studio.gop(second * 1000)
        studio.advance(1)
    studio.network.scripted("b")
    studio.until(studio.push, RelayState.RELAYING)
    got = published(studio.server)
    assert got[:3] == HEADERS
    # From a key frame on, in one piece, ten seconds at most.
    assert got[3:] == studio.sent[-(len(got) - 3) :]
    times = [time for _, time, _ in got[3:]]
    assert times[0] % 1000 == 0
    assert times[-1] - times[0] <= 10_000
    counters = studio.push.counters
    # The first GOP was sent to the first publication, and came into the queue again.
    missed = len(studio.sent) - 3 - (len(got) - 3)
    assert counters.dropped == missed
    assert counters.messages == len(got) + 7


def test_aTargetThatClosesAtOnceIsNotHammered(studio):
    def startAndClose(server, command):
        startPublish(server, command)
        server.protocol.transport.clock.callLater(0, server.breakOff)

    studio.network.scripted("b", publish=startAndClose)
    studio.begin()
    attempts = []
    for second in range(120):
        studio.gop(1000 * second)
        studio.advance(1)
        attempts.append(studio.push.counters.attempts)
    assert 5 <= attempts[-1] <= 12
    assert attempts[-1] - attempts[60] <= 4
    # A good connection makes the waits short again.
    studio.network.scripted("b")
    studio.until(studio.push, RelayState.RELAYING)
    for second in range(120, 135):
        studio.gop(1000 * second)
        studio.advance(1)
    before = studio.clock.seconds()
    studio.server.breakOff()
    studio.until(studio.push, RelayState.RELAYING)
    assert studio.clock.seconds() - before < 3


def test_aRefusalIsToldOnceAndTriedSeldom(lines):
    studio = Pushing("rtmp://b/live/s3cret")
    studio.network.scripted(
        "b", publish=refusing("NetStream.Publish.BadName", "s3cret is being published.")
    )
    studio.begin()
    assert studio.push.state is RelayState.WAITING
    assert "(key) is being published" in studio.push.why
    assert "NetStream.Publish.BadName" in studio.push.why
    for second in range(60):
        studio.gop(1000 * second)
        studio.advance(1)
    assert 4 <= studio.push.counters.refused == studio.push.counters.attempts <= 6
    assert sum("waiting, since (key)" in line for line in lines) == (
        studio.push.counters.refused
    )
    assert not any("s3cret" in line for line in lines)
    studio.settle()


def test_credentialsAreRefusedAsWell(studio):
    why = "[ AccessManager.Reject ] : [ code=403 need auth; authmod=adobe ] : "
    studio.network.scripted(
        "b", connect=refusing("NetConnection.Connect.Rejected", why, close=True)
    )
    studio.begin()
    studio.network.pump()
    assert studio.push.state is RelayState.WAITING
    assert "wants a user name and a password" in studio.push.why
    assert studio.push.counters.refused == 1


# The end


def test_theEndIsPublishedBehindTheLastFrame(studio):
    studio.network.scripted("b")
    studio.begin()
    studio.gop(0)
    push = studio.push
    studio.leave()
    server = studio.server
    assert published(server) == studio.sent
    assert server.log[-2:] == ["FCUnpublish", "deleteStream"]
    assert server.log[-3] == "message at 66"
    studio.advance(12)
    assert push.state is RelayState.ENDED
    assert studio.relays.pushes == []
    assert studio.relays.total.messages == len(studio.sent)
    assert studio.factory.players("live", "key") == []


def test_aShortStreamIsSentThoughItHasEnded(studio):
    studio.network.scripted("b", publish=silent)
    studio.begin()
    studio.gop(0)
    studio.leave()
    studio.advance(2)
    startPublish(studio.server, studio.server.of("publish"))
    assert published(studio.server) == studio.sent
    assert studio.server.log[-2:] == ["FCUnpublish", "deleteStream"]


def test_aStreamOfNothingIsNotPushed(studio):
    studio.network.errors["b"] = ConnectError()
    client = Client(studio.factory)
    client.publish("empty")
    push = studio.push
    client.leave()
    assert push.state is RelayState.ENDED


def test_aDeadTargetIsGivenUpAfterTheEnd(studio, lines):
    studio.network.errors["b"] = ConnectError()
    studio.begin()
    studio.gop(0)
    push = studio.push
    studio.leave()
    assert push.state is RelayState.WAITING
    studio.advance(studio.factory.limits.drainSeconds + 1)
    assert push.state is RelayState.ENDED
    assert any("7 messages are lost" in line for line in lines)
    assert studio.relays.total.dropped == len(studio.sent)


def test_aPublicationLostAtTheEndIsNotBegunAgain(studio):
    studio.network.scripted("b")
    studio.begin()
    studio.gop(0)
    push = studio.push
    studio.leave()
    studio.server.breakOff()
    studio.network.pump()
    assert push.state is RelayState.ENDED
    assert len(studio.network.servers) == 1


def test_aGraceIsNoEnd():
    studio = Pushing(grace=5.0)
    studio.network.scripted("b")
    studio.begin()
    studio.gop(0)
    studio.leave()
    studio.advance(2)
    assert "FCUnpublish" not in studio.server.names()
    studio.begin()
    studio.gop(0)
    assert len(studio.network.servers) == 1
    assert len(published(studio.server)) == 14
    studio.leave()
    studio.advance(6)
    assert studio.server.names()[-2:] == ["FCUnpublish", "deleteStream"]
    studio.settle()


def test_theNextStreamWaitsForItsTurn(studio):
    studio.network.scripted("b", FCUnpublish=silent)
    studio.begin()
    studio.gop(0)
    first = studio.push
    studio.leave()
    assert first.state is not RelayState.ENDED
    studio.begin()
    studio.gop(0)
    _, second = studio.relays.pushes
    assert second.state is RelayState.WAITING
    assert len(studio.network.servers) == 1
    studio.until(second, RelayState.RELAYING)
    assert first.state is RelayState.ENDED
    assert published(studio.server) == studio.sent


def test_oneAddressIsForOneStream(lines):
    studio = Pushing("rtmp://b/live/fixed")
    studio.network.scripted("b")
    studio.begin("one")
    studio.begin("two")
    assert [push.stream.name for push in studio.relays.pushes] == ["one"]
    assert any("live/two is not pushed to rtmp://b:1935/live" in line for line in lines)
    studio.gop(0, "two")
    studio.leave("one")
    studio.advance(12)
    assert [push.stream.name for push in studio.relays.pushes] == ["two"]
    assert published(studio.server) == studio.sent
    studio.settle()


# Slow and dead targets


def test_aSlowTargetLosesFramesAlone():
    limits = queueing(300_000)
    studio = Pushing("rtmp://b/live", "rtmp://c/live", limits=limits)
    studio.network.scripted("b")
    studio.network.scripted("c")
    studio.begin()
    slow, quick = studio.network.servers
    slow.transport.taking = False
    filler = bytes(10_000)
    for number in range(40):
        studio.gop(100 * number, more=filler)
    assert published(quick) == studio.sent
    assert len(studio.sinks[0].messages) == len(studio.sent)
    b, c = studio.relays.pushes
    assert c.counters.dropped == 0
    assert b.counters.dropped > 0
    slow.transport.taking = True
    studio.gop(4000)
    got = published(slow)
    assert len(got) + b.counters.dropped == len(studio.sent)
    assert b.counters.messages == len(got)
    # No frame that cannot be decoded.
    video = [entry for entry in got if entry[0] == VIDEO]
    for one, other in pairwise(video):
        if other[2].startswith(AVC_FRAME):
            assert other[1] - one[1] <= 33
    studio.settle()


def test_aTargetThatTakesNothingIsLeft(studio):
    studio.network.scripted("b")
    studio.begin()
    studio.gop(0)
    stuck = studio.server
    stuck.transport.taking = False
    push = studio.push
    filler = bytes(200_000)
    for second in range(1, 30):
        studio.gop(1000 * second, more=filler)
        studio.advance(1)
        if push.counters.reconnects:
            break
    assert push.counters.reconnects == 1
    assert stuck.transport.disconnected
    got = published(studio.server)
    assert got[:3] == HEADERS
    assert got[-4:] == studio.sent[-4:]
    assert push.counters.dropped > 0


def test_aTargetThatSaysNothingIsLeft(studio):
    studio.network.scripted("b", connect=silent)
    studio.begin()
    for second in range(40):
        studio.gop(1000 * second)
        studio.advance(1)
        if studio.push.state is RelayState.WAITING:
            break
    assert second + 1 == CONNECT_SECONDS
    assert "Waited 15 s" in studio.push.why
    assert studio.network.servers[0].transport.disconnected


class Local:
    """A publisher of the application's own."""

    peer = "the application"
    host = ""
    heard = 0.0
    unread = False

    def unpaid(self):
        return 0

    def __init__(self):
        self.connection = self

    def takenOver(self):
        raise AssertionError("nobody else publishes")

    pauseProducing = resumeProducing = takenOver


@pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such option"
)
@pytest_twisted.ensureDeferred
async def test_aTargetWhoseNetworkIsGoneIsNoticed():
    from twisted.internet import reactor

    target = RTMPFactory(reactor)
    port = reactor.listenTCP(0, target, interface="127.0.0.1")
    source = RTMPFactory(reactor)
    url = f"rtmp://127.0.0.1:{port.getHost().port}/live"
    relays = PushRelays(reactor, source.registry, [url])
    relays.startService()
    began = Deferred()
    target.streamStarted.append(began.callback)
    source.registry.publish("live", "key", Local())
    await began
    (push,) = relays.pushes
    connection = push._client.transport.socket
    assert (
        connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        == 2 * DRAIN_SECONDS * 1000
    )
    await relays.stopService()
    await source.stop()
    await target.stop()
    await port.stopListening()


def test_headersThatAreTooManyBeginAnew(shortQueue):
    studio = shortQueue
    studio.network.scripted("b", publish=silent, createStream=thirtySecond)
    studio.begin()
    for number in range(10):
        studio.send(VIDEO, number, AVC_HEADER + bytes(300))
    newest = studio.sent[-1]
    startPublish(studio.server, studio.server.of("publish"))
    studio.gop(20)
    assert published(studio.server)[:3] == [HEADERS[0], newest, HEADERS[2]]
    assert published(studio.server)[3:] == studio.sent[-4:]
    assert {message.streamId for message in studio.server.messages} == {32}
    assert studio.push.counters.dropped > 0


def test_aTargetThatTakesNoHeadersIsLeft(shortQueue):
    studio = shortQueue
    studio.network.scripted("b")
    studio.begin()
    stuck = studio.server
    stuck.transport.taking = False
    studio.send(VIDEO, 0, AVC_KEY_FRAME + bytes(2_000_000))  # fills the transport
    for number in range(10):
        studio.send(VIDEO, number, AVC_HEADER + bytes(300))
    assert studio.push.state is RelayState.WAITING
    assert "does not take its stream's headers" in studio.push.why
    assert stuck.transport.aborted
    studio.until(studio.push, RelayState.RELAYING)
    studio.gop(20)
    assert published(studio.server)[-4:] == studio.sent[-4:]


# The server stops


def test_stoppingWaitsForWhatIsQueued(studio):
    studio.network.scripted("b", publish=silent)
    studio.begin()
    studio.gop(0)
    stopped = studio.factory.stop()
    studio.advance(2)
    assert not stopped.called
    startPublish(studio.server, studio.server.of("publish"))
    assert published(studio.server) == studio.sent
    assert studio.server.log[-2:] == ["FCUnpublish", "deleteStream"]
    studio.server.command("onFCUnpublish", 0, None, {})
    studio.server.close()
    studio.advance(1)
    assert stopped.called
    assert studio.relays.pushes == []


def test_stoppingDoesNotWaitForTheDead(studio):
    studio.network.errors["b"] = ConnectError()
    studio.begin()
    studio.gop(0)
    stopped = studio.factory.stop()
    studio.network.pump()
    assert stopped.called
    assert studio.relays.pushes == []


def test_stoppingIsBounded():
    studio = Pushing(limits=ServerLimits(stopSeconds=3))
    studio.network.scripted("b", publish=silent)
    studio.begin()
    studio.gop(0)
    stopped = studio.factory.stop()
    studio.advance(3.5)
    assert stopped.called
    assert studio.relays.pushes == []
    assert studio.server.transport.disconnected


def test_theServiceEndsAlone(studio):
    studio.network.scripted("b")
    studio.begin()
    studio.gop(0)
    stopped = studio.relays.stopService()
    assert published(studio.server) == studio.sent
    assert studio.server.log[-2:] == ["FCUnpublish", "deleteStream"]
    studio.advance(12)
    assert stopped.called
    studio.gop(100)
    assert list(studio.factory.streams) == [("live", "key")]
    assert len(studio.network.servers) == 1
    studio.relays.startService()
    assert len(studio.network.servers) == 2


def test_theServiceBeginsAgainAtOnce(studio):
    studio.network.scripted("b")
    studio.begin()
    studio.gop(0)
    studio.relays.stopService()
    studio.relays.startService()
    first, second = studio.relays.pushes
    assert second.state is RelayState.WAITING
    studio.gop(100)
    studio.until(second, RelayState.RELAYING)
    assert first.state is RelayState.ENDED
    assert published(studio.server) == studio.sent


def test_urlsMayBeGivenTakenApart():
    target = PushTarget(RTMPURL.parse("rtmp://b/live"))
    studio = Pushing(target)
    assert studio.relays.targets == [target]
