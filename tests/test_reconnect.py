"""ReconnectRequest: a server asks, clients and relays obey."""

from __future__ import annotations

import sys

import pytest
import pytest_twisted
from clientkit import MemoryEndpoint, Outcome, accept, connected, refusing, silent
from feeding import CollectingSink
from relaykit import METADATA, RECONNECT, Moving, Running, collected, published
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
from serverprocess import environment
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import Clock, LoopingCall
from twisted.internet.utils import getProcessOutputAndValue
from zope.interface.verify import verifyObject

from twisted_rtmp.client import (
    RTMPURL,
    InvalidURL,
    ReconnectRequest,
    commands,
    connectRTMP,
)
from twisted_rtmp.client.limits import (
    MAX_MOVES,
    REQUEST_LINE_RATE,
    REQUEST_LINES,
    STEADY_SECONDS,
)
from twisted_rtmp.client.mover import MoveLimit, MovingSink
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.flv import tags as flv
from twisted_rtmp.flv.tags import FLVReader
from twisted_rtmp.interfaces import IMediaSink
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.media.capabilities import Capabilities
from twisted_rtmp.reconnect import MAX_DESCRIPTION_BYTES, MAX_TC_URL_BYTES
from twisted_rtmp.relay import Origin, PushRelays, RelayState
from twisted_rtmp.relay.pull import MOVE_SECONDS
from twisted_rtmp.wire.amfvalues import UNDEFINED
from twisted_rtmp.wire.constants import NEED_DATA
from twisted_rtmp.wire.errors import UsageError
from twisted_rtmp.wire.messages import Message

# The server's side


@pytest.fixture
def factory():
    factory = RTMPFactory(Clock())
    yield factory
    for connection in list(factory.connections):
        connection.transport.abortConnection()


def joined(factory, **properties):
    client = Client(factory)
    client.connect("live", **properties)
    client.take()
    return client


def test_request(factory):
    client = joined(factory, capsEx=1.0)
    assert client.protocol.requestReconnect("rtmp://b/live", "We stop.")
    [reply] = client.take()
    assert reply.streamId == 0
    assert reply.csid == 3
    assert reply.values == [
        "onStatus",
        0.0,
        None,
        {
            "level": "status",
            "code": RECONNECT,
            "tcUrl": "rtmp://b/live",
            "description": "We stop.",
        },
    ]
    assert factory.counters.reconnectRequests == 1
    assert client.open


def test_requestWithoutAnAddress(factory):
    client = joined(factory, capsEx=15.0)
    assert client.protocol.requestReconnect()
    [reply] = client.take()
    assert reply.values[3] == {"level": "status", "code": RECONNECT}


@pytest.mark.parametrize("capsEx", [None, 0.0, 14.0, "1", float("nan"), -1.0, True])
def test_whoDoesNotObeyIsNotAsked(factory, capsEx):
    client = joined(factory, **({} if capsEx is None else {"capsEx": capsEx}))
    assert not client.protocol.requestReconnect("rtmp://b/live")
    assert client.take() == []
    assert factory.counters.reconnectRequests == 0


def test_nobodyIsAskedBeforeConnectNorAtTheEnd(factory):
    client = Client(factory)
    client.shakeHands()
    assert not client.protocol.requestReconnect()
    client.connect("live", capsEx=1.0)
    client.take()
    client.protocol.close()
    assert not client.protocol.requestReconnect()
    client.leave()
    assert not client.protocol.requestReconnect()
    assert factory.counters.reconnectRequests == 0


def test_itServesOn(factory):
    client = joined(factory, capsEx=1.0)
    client.command("createStream", 2.0, None)
    client.command("publish", 3.0, None, "key", "live", streamId=1)
    client.media(VIDEO, AVC_HEADER)
    client.take()
    assert client.protocol.requestReconnect()
    client.media(VIDEO, AVC_KEY_FRAME, 40)
    assert factory.streams["live", "key"].ledger.received.video == 1
    # Who does not leave may be asked again.
    assert client.protocol.requestReconnect()
    assert client.codes() == [RECONNECT, RECONNECT]


def test_allAreAsked(factory, lines):
    obeying = [joined(factory, capsEx=1.0) for _ in range(3)]
    others = [joined(factory), joined(factory, capsEx=2.0), Client(factory)]
    assert factory.requestReconnect("//b:1936/live", "Moving.") == 3
    for client in obeying:
        [reply] = client.take()
        assert reply.values[3]["tcUrl"] == "//b:1936/live"
    assert [client.take() for client in others] == [[], [], []]
    assert any(
        line.startswith("asked 3 peers") and "; 3 others" in line for line in lines
    )
    assert Client(factory).open, "newcomers are taken"


@pytest.mark.parametrize(
    ("tcUrl", "description"),
    [
        (None, ""),
        (b"rtmp://b/live", ""),
        (7, ""),
        ("rtmp://b/li ve", ""),
        ("rtmp://b/live\r\n", ""),
        ("rtmp://b/\x7f", ""),
        ("http://b/live", ""),
        ("rtmp://b/" + "x" * MAX_TC_URL_BYTES, ""),
        ("rtmp://\ud800/", ""),
        ("", None),
        ("", "x" * (MAX_DESCRIPTION_BYTES + 1)),
        ("", "\udfff"),
    ],
)
def test_wrongRequests(factory, tcUrl, description):
    client = joined(factory, capsEx=1.0)
    with pytest.raises(UsageError):
        client.protocol.requestReconnect(tcUrl, description)
    with pytest.raises(UsageError):
        factory.requestReconnect(tcUrl, description)
    assert client.take() == []


def test_theLargestRequestFits(factory):
    client = joined(factory, capsEx=1.0)
    tcUrl = "/" + "x" * (MAX_TC_URL_BYTES - 1)
    assert client.protocol.requestReconnect(tcUrl, "x" * MAX_DESCRIPTION_BYTES)
    assert client.take()[0].values[3]["tcUrl"] == tcUrl


@pytest.mark.parametrize(
    ("tcUrl", "shown"),
    [
        ("/live?token=s3cret", "/live"),
        ("rtmp://me:s3cret@b:1936/live/x?y", "rtmp://b:1936/live/x"),
        ("//me:s3@cret@b", "//b"),
        ("?s3cret//a@b", ""),
    ],
)
def test_secretsAreNotLogged(factory, lines, tcUrl, shown):
    joined(factory, capsEx=1.0).protocol.requestReconnect(tcUrl)
    assert lines[-1].endswith(f"is asked to reconnect, to {shown}")


# Where to

URL = "rtmp://u:p@a:1936/app/inst/key?token=1"


@pytest.mark.parametrize(
    ("url", "reference", "becomes"),
    [
        (URL, "", "rtmp://u:p@a:1936/app/inst/key?token=1"),
        # The examples of the specification.
        (
            URL,
            "rtmp://foo.mydomain.com:1935/realtimeapp",
            "rtmp://foo.mydomain.com:1935/realtimeapp/key?token=1",
        ),
        (URL, "rtmp://127.0.0.1/realtimeapp", "rtmp://127.0.0.1/realtimeapp/key"),
        (URL, "//192.0.2.0/realtimeapp", "rtmp://192.0.2.0:1935/realtimeapp/key"),
        (URL, "/realtimeapp", "rtmp://u:p@a:1936/realtimeapp/key"),
        # Relative in other ways.
        (URL, "other", "rtmp://u:p@a:1936/app/other/key"),
        (URL, "../other", "rtmp://u:p@a:1936/other/key"),
        (URL, "//[2001:db8::1]:1/x", "rtmp://[2001:db8::1]:1/x/key"),
        (URL, "//b", "rtmp://b/"),
        # The scheme.
        (URL, "rtmps://b/app", "rtmps://b:443/app/key"),
        (URL, "RTMPS://a:1936/app", "rtmps://u:p@a:1936/app/key"),
        ("rtmps://a/app/key", "//b/app", "rtmps://b:443/app/key"),
        ("rtmps://a/app/key", "/other", "rtmps://a/other/key"),
        (URL, "rtmp://A:1937/app", "rtmp://u:p@A:1937/app/key"),
        # Credentials of its own.
        (URL, "rtmp://v:q@b/app", "rtmp://v:q@b/app/key"),
        (URL, "rtmp://v:q@a/app", "rtmp://v:q@a/app/key"),
    ],
)
def test_redirected(url, reference, becomes):
    base = RTMPURL.parse(url)
    found = base.redirected(reference)
    wanted = RTMPURL.parse(becomes)
    assert found.name == base.name
    assert found.application == wanted.application
    assert (found.scheme, found.host, found.port) == (
        wanted.scheme,
        wanted.host,
        wanted.port,
    )
    assert (found.username, found.password) == (wanted.username, wanted.password)


def test_whereToIsPrintable():
    """A server's words go to the log."""
    url = RTMPURL.parse(URL).redirected("//b/a\x85b\u2028" + 1000 * "c")
    assert str(url).startswith("rtmp://b:1935/a\\x85b\\u2028ccc")
    assert len(str(url)) < 150


def test_redirectedWithAQuery():
    url = RTMPURL.ofServer("rtmp://a/app?x=1", "key")
    assert url.redirected("").application == "app?x=1"
    assert url.redirected("/app").application == "app"
    assert url.redirected("?y=2").application == "app?y=2"
    assert url.redirected("rtmp://b/c/d?y=2").application == "c/d?y=2"


WRONG = [
    *("http://b/app", "rtmpe://b/app", "b:1935/app", "mailto:x", "rtmp:///app"),
    *("rtmp://b:0/app", "rtmp://b:x/app", "rtmp://[::1/app", "//[::1/app", "//[x]/a"),
    *("rtmp://b/a b", "/a\nb", "/\x00", "rtmp://", "://", ":", "rtmp:b"),
]


@pytest.mark.parametrize("reference", WRONG)
def test_notRedirected(reference):
    base = RTMPURL.parse(URL)
    with pytest.raises(InvalidURL):
        base.redirected(reference)


@pytest.mark.parametrize("reference", ["rtmp://a/app", "rtmp://b:443/app"])
def test_neverFromTLSDown(reference):
    base = RTMPURL.parse("rtmps://a/app/key")
    with pytest.raises(InvalidURL, match="encrypted"):
        base.redirected(reference)


# The client's side


def test_clientAnnouncesIt(clock):
    _, server = connected(clock)
    announced = Capabilities.fromProperties(server.of("connect").argument(0))
    assert announced.reconnect
    assert announced.multitrack
    assert announced.modEx
    assert announced.takesVideo("vvc1")
    assert announced.takesAudio("Opus")


def asked(client):
    requests = []
    client.reconnectRequested.append(requests.append)
    return requests


def test_clientIsAsked(clock):
    client, server = connected(clock, "rtmp://a/app/key")
    requests = asked(client)
    server.status(RECONNECT, 0, tcUrl="//b:1936/app", description="Moving.")
    url = RTMPURL.parse("rtmp://b:1936/app/key")
    assert requests == [ReconnectRequest(url, "Moving.")]
    assert client.reconnectRequest == requests[0]
    server.status(RECONNECT, 0)
    assert requests[1] == ReconnectRequest(RTMPURL.parse("rtmp://a/app/key"))
    assert server.open, "it is served on"
    assert not Outcome(client.disconnect()).errors


@pytest.mark.parametrize(
    "tcUrl",
    [None, UNDEFINED, 7.0, True, {"a": 1.0}, ["rtmp://b/app"], *WRONG],
)
def test_invalidRequests(clock, lines, tcUrl):
    client, server = connected(clock, "rtmp://a/app/s3cret")
    requests = asked(client)
    server.status(RECONNECT, 0, tcUrl=tcUrl)
    assert requests == []
    assert client.reconnectRequest is None
    [line] = [line for line in lines if "is ignored" in line]
    assert "s3cret" not in line
    assert "\n" not in line
    assert server.open
    # The next one may be better.
    server.status(RECONNECT, 0, tcUrl="/app")
    assert len(requests) == 1


def test_clientDoesNotLeaveTLS(clock, lines):
    client, server = connected(clock, "rtmps://a/app/key")
    requests = asked(client)
    server.status(RECONNECT, 0, tcUrl="rtmp://a/app")
    assert requests == []
    assert any("not encrypted" in line for line in lines)
    server.status(RECONNECT, 0, tcUrl="rtmps://b/app")
    assert requests[0].url.secure


def test_requestBeforeConnectIsAnswered(clock, lines):
    def early(server, command):
        server.status(RECONNECT, 0, tcUrl="/other")
        accept(server, command)

    endpoint = MemoryEndpoint(clock, connect=early)
    client = Outcome(connectRTMP(clock, "rtmp://a/app/key", endpoint=endpoint)).result
    assert client.reconnectRequest is None
    assert any("before connect" in line for line in lines)


def test_aRequestOfTheLargestAddressIsTaken(clock, lines):
    client, server = connected(clock, "rtmp://a/app/key")
    requests = asked(client)
    largest = "rtmp://b/app?token=".ljust(MAX_TC_URL_BYTES, "x")
    server.status(RECONNECT, 0, tcUrl=largest + "x")
    assert requests == []
    assert any("more than" in line for line in lines)
    server.status(RECONNECT, 0, tcUrl=largest, description="y" * 50_000)
    assert requests[0].url.tcURL.endswith("xxx")
    assert len(requests[0].description) == MAX_DESCRIPTION_BYTES


@pytest.mark.parametrize("tcUrl", [None, "", "rtmp://b/app", "rtmp://b/" + "x" * 9000])
def test_requestsDoNotFillTheLog(clock, lines, tcUrl):
    _, server = connected(clock, "rtmp://a/app/key")
    before = len(lines)
    for _ in range(1000):
        server.status(RECONNECT, 0, tcUrl=tcUrl, description="z" * 1000)
    assert len(lines) - before == REQUEST_LINES
    assert all(len(line) < 400 for line in lines)
    clock.advance(1 / REQUEST_LINE_RATE)
    server.status(RECONNECT, 0, tcUrl=tcUrl)
    left = 1000 - REQUEST_LINES
    assert lines[-1].endswith(f"({left} requests before it were not logged)")


def test_requestAtTheEnd(clock):
    client, server = connected(clock)
    requests = asked(client)
    client.disconnect()
    server.status(RECONNECT, 0, tcUrl="/other")
    assert requests == []


# Relays


@pytest.fixture
def studio():
    studio = Moving()
    yield studio
    if studio.service.running:
        studio.service.stopService()
    studio.settle()
    assert studio.factory.streams == {}
    assert not any(server.open for server in studio.network.servers)


def test_pushMoves(studio):
    """It goes on elsewhere, with the headers and the current GOP."""
    for host in "ab":
        studio.network.scripted(host)
    studio.begin()
    relays = studio.pushing()
    [push] = relays.pushes
    studio.gop(0)
    studio.gop(100)
    before = len(studio.sent)
    studio.ask("a", tcUrl="//b/elsewhere")
    old, new = studio.server("a"), studio.server("b")
    assert new.of("connect").argument(0)["app"] == "elsewhere"
    # The name may be one and the same there: it is to be free first.
    assert "FCUnpublish" in old.names()
    assert "publish" not in new.names()
    told = old.of("FCUnpublish")
    old.command("_result", told.transactionId, None, None)
    studio.network.pump()
    assert old.open, "not all servers close at once"
    assert new.of("publish").argument(1) == "s3cret"
    studio.gop(200)
    assert published(old) == studio.sent[:before]
    headers = [(DATA, 0, METADATA), (VIDEO, 0, AVC_HEADER), (AUDIO, 0, AAC_HEADER)]
    assert published(new) == headers + studio.sent[before - 4 :]
    assert push.state is RelayState.RELAYING
    assert push.at == RTMPURL.parse("rtmp://b/elsewhere/s3cret")
    assert push.counters.moves == 1
    assert push.counters.dropped == 0


def test_pushStaysUntilTheNewConnectionIsThere(studio):
    studio.network.scripted("a")
    studio.network.scripted("b", connect=silent)
    studio.begin()
    [push] = studio.pushing().pushes
    studio.ask("a", tcUrl="rtmp://b/there")
    studio.gop(0)
    assert studio.server("a").open
    assert published(studio.server("a")) == studio.sent
    # It has its time to answer, and the old server is still there.
    studio.advance(16)
    studio.gop(100)
    assert published(studio.server("a")) == studio.sent
    assert push.state is RelayState.RELAYING
    assert push.counters.moves == 0
    # And now it does.
    studio.network.scripted("b")
    studio.ask("a", tcUrl="rtmp://b/there")
    studio.server("a").close()
    studio.network.pump()
    assert studio.server("b").of("publish").argument(1) == "s3cret"


def test_pushStaysWhereNobodyIs(studio, lines):
    studio.network.scripted("a")
    studio.begin()
    [push] = studio.pushing().pushes
    studio.ask("a", tcUrl="rtmp://nowhere/there?token=t0ken")
    studio.gop(0)
    assert published(studio.server("a")) == studio.sent
    assert push.counters.moves == 0
    assert any("stays where it is" in line for line in lines)
    assert not any("s3cret" in line or "t0ken" in line for line in lines)


def test_pushIsRefusedElsewhere(studio):
    """After a failure it is the original address that is asked again."""
    studio.network.scripted("a")
    studio.network.scripted("b", publish=refusing("NetStream.Publish.Denied"))
    studio.begin()
    [push] = studio.pushing().pushes
    old = studio.server("a")
    studio.ask("a", tcUrl="rtmp://b/there")
    old.close()
    studio.advance(5)
    assert push.state is RelayState.WAITING
    studio.until(push, RelayState.RELAYING)
    assert studio.hosts() == ["a", "b", "a"]
    assert push.at == push.url
    assert studio.server("a") is not old


def test_pushIsAskedToComeAgain(studio):
    """Without an address it is the same server, such as one that restarts."""
    studio.network.scripted("a")
    studio.begin()
    [push] = studio.pushing().pushes
    studio.gop(0)
    old = studio.server("a")
    studio.ask("a")
    assert studio.server("a") is not old
    old.close()
    studio.network.pump()
    studio.gop(100)
    assert published(studio.server("a"))[-4:] == studio.sent[-4:]
    assert push.counters.moves == 1


def sendingTo(host):
    """Answer C{connect} with a request to go elsewhere behind it."""

    def answer(server, command):
        accept(server, command)
        server.status(RECONNECT, 0, tcUrl=f"rtmp://{host}/there")

    return answer


def test_noPushMovesForEver(studio, lines):
    """Two servers that send it to each other."""
    studio.network.scripted("a", connect=sendingTo("b"))
    studio.network.scripted("b", connect=sendingTo("a"))
    studio.begin()
    [push] = studio.pushing().pushes
    studio.advance(6 * (MAX_MOVES + 1))
    assert push.counters.moves == MAX_MOVES
    assert studio.hosts() == ["a", "b"] * ((MAX_MOVES + 1) // 2)
    assert push.state is RelayState.RELAYING
    assert len([line for line in lines if "ignoring reconnect requests" in line]) == 1
    # Much later it may again.
    studio.advance(STEADY_SECONDS)
    studio.ask(push.at.host, tcUrl="rtmp://a/there")
    assert push.counters.moves == MAX_MOVES + 1


def test_aHostileTargetCostsLittle(studio, lines):
    """It asks for another address all the time, and each refuses the stream."""
    studio.network.scripted("a")
    studio.begin()
    [push] = studio.pushing().pushes
    names = iter(range(100_000))
    for _ in range(600):
        for _ in range(10):
            query = str(next(names)).rjust(4000, "x")
            studio.ask("a", tcUrl=f"rtmp://b/there?token={query}", description=query)
        studio.advance(1, 1)
    # All refuse the connection: it stays.
    assert push.state is RelayState.RELAYING
    assert len(studio.network.urls) - 1 <= MAX_MOVES + 6
    assert len(lines) < 100
    assert sum(map(len, lines)) < 30_000


def test_pushIsStoppedWhileItMoves(studio):
    studio.network.scripted("a")
    studio.network.scripted("b", connect=silent)
    studio.begin()
    relays = studio.pushing()
    studio.ask("a", tcUrl="rtmp://b/there")
    relays.stopService()
    studio.advance(12)
    assert relays.pushes == []
    assert not any(server.open for server in studio.network.servers)


def test_pushEndsWhileItMoves(studio):
    """The rest goes where the stream was."""
    studio.network.scripted("a")
    studio.network.scripted("b", connect=silent)
    studio.begin()
    relays = studio.pushing()
    studio.gop(0)
    studio.ask("a", tcUrl="rtmp://b/there")
    studio.leave()
    studio.advance(12)
    assert published(studio.server("a")) == studio.sent
    assert relays.pushes == []
    assert not any(server.open for server in studio.network.servers)


@pytest.mark.parametrize("tcUrl", [7.0, "http://b/there", "rtmp://b/th ere"])
def test_relaysIgnoreInvalidRequests(studio, tcUrl):
    studio.network.scripted("a")
    studio.begin()
    studio.pushing()
    studio.ask("a", tcUrl=tcUrl)
    assert studio.hosts() == ["a"]
    studio.gop(0)
    assert published(studio.server("a")) == studio.sent


def give(studio, host, *messages):
    for message in messages:
        studio.server(host).media(*message)
    studio.network.pump()


HEADERS = [(DATA, 0, METADATA), (VIDEO, 0, AVC_HEADER), (AUDIO, 0, AAC_HEADER)]


def test_pullMoves(studio):
    """Players and recordings stay with one stream, whose time goes on."""
    for host in "ab":
        studio.network.scripted(host)
    pull = studio.pulling()
    give(studio, "a", *HEADERS, (VIDEO, 5000, AVC_KEY_FRAME), (VIDEO, 5040, AVC_FRAME))
    playing = Client(studio.factory)
    studio.network.encoders.append(playing)
    playing.connect("live")
    playing.command("createStream", 2.0, None)
    playing.command("play", 3.0, None, "key", streamId=1)
    playing.take()
    studio.ask("a", tcUrl="rtmp://b/there")
    assert studio.server("a").open, "not all servers close at once"
    assert studio.server("b").of("play").argument(1) == "s3cret"
    studio.advance(0.5)
    give(studio, "b", *HEADERS, (VIDEO, 70, AVC_KEY_FRAME), (VIDEO, 110, AVC_FRAME))
    assert pull.state is RelayState.RELAYING
    assert pull.counters.moves == 1
    assert pull.counters.messages == 10
    [sink] = studio.sinks
    assert not sink.ended
    assert [m[2] for m in collected(sink)][-2:] == [AVC_KEY_FRAME, AVC_FRAME]
    times = [time for typeId, time, _ in collected(sink) if time]
    assert times == sorted(times)
    assert times[-1] - times[-2] == 40
    replies = playing.take()
    assert [r.code for r in replies if r.typeId == 20] == []
    assert [r.payload for r in replies if r.typeId == VIDEO][-2:] == [
        AVC_KEY_FRAME,
        AVC_FRAME,
    ]


def test_pullThatMovesToNothing(studio):
    """A server without the stream ends it here after a while; then it starts again."""
    studio.network.scripted("a")
    studio.network.scripted("b", play=refusing("NetStream.Play.StreamNotFound"))
    pull = studio.pulling()
    give(studio, "a", *HEADERS, (VIDEO, 40, AVC_KEY_FRAME))
    studio.ask("a", tcUrl="rtmp://b/there")
    studio.server("a").close()
    assert studio.factory.streams
    studio.until(pull, RelayState.EXPECTING)
    assert studio.hosts() == ["a", "b", "a"]
    studio.advance(MOVE_SECONDS)
    assert studio.factory.streams == {}
    give(studio, "a", *HEADERS)
    assert len(studio.sinks) == 2


def test_pullWhoseSourceDiesBeforeItHasMoved(studio):
    """The stream waits for the new connection, and goes on there."""
    studio.network.scripted("a")
    studio.network.scripted("b", connect=silent)
    pull = studio.pulling()
    give(studio, "a", *HEADERS, (VIDEO, 40, AVC_KEY_FRAME))
    studio.ask("a", tcUrl="rtmp://b/there")
    studio.server("a").breakOff()
    studio.advance(1)
    new = studio.server("b")
    accept(new, new.of("connect"))
    studio.network.pump()
    give(studio, "b", *HEADERS, (VIDEO, 40, AVC_KEY_FRAME))
    assert pull.state is RelayState.RELAYING
    assert len(studio.sinks) == 1
    assert studio.hosts() == ["a", "b"]


def test_pullIsStoppedWhileItMoves(studio):
    """Nobody is going to continue its stream."""
    studio.network.scripted("a")
    studio.network.scripted("b", connect=silent)
    studio.pulling()
    give(studio, "a", *HEADERS, (VIDEO, 40, AVC_KEY_FRAME))
    studio.ask("a", tcUrl="rtmp://b/there")
    stopped = studio.service.stopService()
    studio.server("a").close()
    studio.network.pump()
    assert stopped.called
    assert studio.factory.streams == {}


def test_edgeMoves():
    """Whole servers: the origin asks all to leave, an edge obeys, its player stays."""
    studio = Moving(limits=ServerLimits(publisherIdleSeconds=600, idleSeconds=600))
    origins = [RTMPFactory(studio.clock, limits=studio.factory.limits) for _ in "ab"]
    studio.network.factories.update(zip("ab", origins, strict=True))
    encoders = []
    for origin in origins:
        encoder = Client(origin)
        encoders.append(encoder)
        studio.network.encoders.append(encoder)
        encoder.publish()
        for message in HEADERS:
            encoder.media(message[0], message[2], message[1])
        encoder.media(VIDEO, AVC_KEY_FRAME, 1000)
    edge = Origin(
        studio.clock,
        studio.factory.registry,
        "rtmp://a",
        connect=studio.network.connect,
    )
    studio.relays(edge)
    playing = Client(studio.factory)
    studio.network.encoders.append(playing)
    playing.connect("live")
    playing.command("createStream", 2.0, None)
    playing.command("play", 3.0, None, "key", streamId=1)
    studio.network.pump()
    assert VIDEO in {reply.typeId for reply in playing.take()}
    assert origins[0].requestReconnect("rtmp://b/live", "Maintenance.") == 1
    studio.advance(1)
    assert studio.hosts() == ["a", "b"]
    assert len(origins[0].connections) == 1, "the encoder announced nothing"
    encoders[1].media(VIDEO, AVC_FRAME, 1040)
    studio.network.pump()
    replies = playing.take()
    assert [r.payload for r in replies if r.typeId == VIDEO][-1] == AVC_FRAME
    assert not [r for r in replies if r.typeId == 20]
    edge.stopService()
    for encoder in (*encoders, playing):
        studio.network.encoders.remove(encoder)
        encoder.leave()
    studio.settle()
    for origin in origins:
        assert Outcome(origin.stop()).result is None


# The commands


def test_moveLimit():
    limit = MoveLimit()
    assert [limit.allows(0.0) for _ in range(MAX_MOVES + 2)] == (
        [True] * MAX_MOVES + [False] * 2
    )
    assert not limit.allows(STEADY_SECONDS - 0.1)
    assert limit.allows(STEADY_SECONDS)
    assert limit.wait(STEADY_SECONDS) == 2 * STEADY_SECONDS
    assert not limit.allows(3 * STEADY_SECONDS - 0.1)
    assert limit.allows(3 * STEADY_SECONDS)


def test_movesGetRarerAndRarer():
    """A server that asks all the time: 5 moves at once, and 6 an hour in the end."""
    limit = MoveLimit()
    moves = [second for second in range(3 * 3600) if limit.allows(float(second))]
    assert len([at for at in moves if at < 3600]) <= MAX_MOVES + 12
    assert len([at for at in moves if at >= 7200]) <= 6
    # A server that is restarted now and then is obeyed each time.
    now = 3 * 3600 + 7200.0
    assert all(limit.allows(now + 3600 * hour) for hour in range(100))


class Kept:
    def __init__(self):
        self.messages = []
        self.paused = []

    def mediaReceived(self, message):
        self.messages.append((message.typeId, message.timestamp))

    def pauseProducing(self):
        self.paused.append(True)

    def resumeProducing(self):
        self.paused.append(False)

    def stopProducing(self):
        self.paused.append(None)


def test_oneStreamOfSeveral():
    kept = Kept()
    sink = MovingSink(kept)
    verifyObject(IMediaSink, sink)
    for time in (1000, 1040):
        sink.mediaReceived(Message(VIDEO, time, 1, AVC_KEY_FRAME))
    sink.streamEnded()
    sink.moved()
    sink.mediaReceived(Message(VIDEO, 0, 1, AVC_HEADER))
    # B-frames and audio may be a little before the first one.
    for time in (70, 60, 110):
        sink.mediaReceived(Message(VIDEO, time, 1, AVC_FRAME))
    sink.moved()
    sink.mediaReceived(Message(VIDEO, 1 << 40, 1, AVC_FRAME))
    times = [time for _, time in kept.messages]
    assert times == [1000, 1040, 1080, 1080, 1070, 1120, 1160]


def test_aPauseHoldsForTheNext():
    sink = MovingSink(Kept())
    sink.stopProducing()
    sink.pauseProducing()
    first, second = Kept(), Kept()
    sink.started(first)
    sink.moved()
    sink.started(second)
    sink.resumeProducing()
    sink.stopProducing()
    assert (first.paused, second.paused) == ([True], [True, False, None])


def fileTags(path):
    reader = FLVReader()
    reader.feed(path.read_bytes())
    tags = list(iter(reader.nextTag, NEED_DATA))
    return [(t.typeId, t.timestamp, t.payload) for t in tags if t.typeId != DATA]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "in.flv"
    tags = list(HEADERS)
    for number in range(4):
        tags.append((VIDEO, 80 * number, AVC_KEY_FRAME))
        tags.append((VIDEO, 80 * number + 40, AVC_FRAME))
    data = b"".join(flv.encodeTag(*tag) for tag in tags)
    path.write_bytes(flv.encodeHeader() + data)
    return path


def test_playMoves(monkeypatch, tmp_path):
    path = tmp_path / "out.flv"
    running = Running(monkeypatch, commands.PlayCommand, file=str(path))
    for host in "ab":
        running.network.scripted(host)
    running.start()
    give(running, "a", *HEADERS, (VIDEO, 0, AVC_KEY_FRAME), (VIDEO, 40, AVC_FRAME))
    running.ask("a", tcUrl="rtmp://b/elsewhere")
    assert running.server("b").of("play").argument(1) == "s3cret"
    assert "deleteStream" in running.server("a").names()
    give(running, "b", *HEADERS, (VIDEO, 9070, AVC_KEY_FRAME), (VIDEO, 9110, AVC_FRAME))
    running.server("b").status("NetStream.Play.UnpublishNotify")
    assert running.finish() == 0
    frames = [t for t in fileTags(path) if t[2] in (AVC_KEY_FRAME, AVC_FRAME)]
    assert frames == [
        (VIDEO, 0, AVC_KEY_FRAME),
        (VIDEO, 40, AVC_FRAME),
        (VIDEO, 80, AVC_KEY_FRAME),
        (VIDEO, 120, AVC_FRAME),
    ]
    assert "played 0.1 s" in running.errors.getvalue()


def test_playStays(monkeypatch, tmp_path):
    path = tmp_path / "out.flv"
    running = Running(monkeypatch, commands.PlayCommand, file=str(path))
    running.network.scripted("a")
    running.start()
    give(running, "a", *HEADERS, (VIDEO, 0, AVC_KEY_FRAME))
    running.ask("a", tcUrl="rtmp://nowhere/elsewhere")
    assert "but stays: rtmp://nowhere:1935/elsewhere" in running.errors.getvalue()
    give(running, "a", (VIDEO, 40, AVC_FRAME))
    running.server("a").status("NetStream.Play.UnpublishNotify")
    assert running.finish() == 0
    assert fileTags(path)[-1] == (VIDEO, 40, AVC_FRAME)


def test_playIsSentOn(monkeypatch, tmp_path):
    """The next server has another place, too, and says so at once."""
    path = tmp_path / "out.flv"
    running = Running(monkeypatch, commands.PlayCommand, file=str(path))
    running.network.scripted("a")
    running.network.scripted("b", connect=sendingTo("c"))
    running.network.scripted("c")
    running.start()
    give(running, "a", *HEADERS, (VIDEO, 0, AVC_KEY_FRAME))
    running.ask("a", tcUrl="rtmp://b/there")
    assert running.hosts() == ["a", "b", "c"]
    give(running, "c", *HEADERS, (VIDEO, 9070, AVC_KEY_FRAME))
    running.server("c").status("NetStream.Play.UnpublishNotify")
    assert running.finish() == 0
    assert fileTags(path)[-1] == (VIDEO, 40, AVC_KEY_FRAME)


def test_playIsInterruptedWhileItMoves(monkeypatch, tmp_path):
    path = tmp_path / "out.flv"
    running = Running(monkeypatch, commands.PlayCommand, file=str(path))
    running.network.scripted("a")
    running.network.scripted("b", play=silent)
    running.start()
    give(running, "a", *HEADERS, (VIDEO, 0, AVC_KEY_FRAME))
    running.ask("a", tcUrl="rtmp://b/elsewhere")
    running.command.interrupt()
    assert running.finish() == 0
    assert fileTags(path)[-1] == (VIDEO, 0, AVC_KEY_FRAME)
    assert not any(server.open for server in running.network.servers)


def test_playIsRefusedElsewhere(monkeypatch, tmp_path):
    path = tmp_path / "out.flv"
    running = Running(monkeypatch, commands.PlayCommand, file=str(path))
    running.network.scripted("a")
    running.network.scripted("b", play=refusing("NetStream.Play.StreamNotFound"))
    running.start()
    give(running, "a", *HEADERS, (VIDEO, 0, AVC_KEY_FRAME))
    running.ask("a", tcUrl="rtmp://b/elsewhere")
    for server in running.network.servers:
        server.close()
    running.advance(1)
    assert running.outcome.error.code == "NetStream.Play.StreamNotFound"
    assert fileTags(path)[-1] == (VIDEO, 0, AVC_KEY_FRAME)


def test_publishMoves(monkeypatch, file):
    """At the next key frame, with the headers; the old name is given back first."""
    running = Running(monkeypatch, commands.PublishCommand, file=str(file))
    for host in "ab":
        running.network.scripted(host)
    running.start()
    running.ask("a", tcUrl="rtmp://b/elsewhere")
    running.advance(0.05, 0.05)
    old, new = running.server("a"), running.server("b")
    assert [m.timestamp for m in old.messages] == [0, 0, 0, 0, 40]
    assert "publish" not in new.names()
    running.advance(0.05, 0.05)
    assert "FCUnpublish" in old.names()
    told = old.of("FCUnpublish")
    old.command("_result", told.transactionId, None, None)
    running.advance(0.3, 0.01)
    assert running.finish() == 0
    assert len(old.messages) == 5
    assert new.of("publish").argument(1) == "s3cret"
    assert [(m[0], m[2]) for m in published(new)[:3]] == [
        (typeId, payload) for typeId, _, payload in HEADERS
    ]
    assert [m[1] for m in published(new)] == [80, 80, 80, 80, 120, 160, 200, 240, 280]
    assert "published 0.3 s, 11 messages" in running.errors.getvalue()


def test_publishIsRefusedElsewhere(monkeypatch, file):
    running = Running(monkeypatch, commands.PublishCommand, file=str(file))
    running.network.scripted("a")
    running.network.scripted("b", publish=refusing("NetStream.Publish.BadName"))
    running.start()
    running.ask("a", tcUrl="rtmp://b/elsewhere")
    running.advance(0.1, 0.01)
    for server in running.network.servers:
        server.close()
    running.advance(1)
    assert running.outcome.error.code == "NetStream.Publish.BadName"


# Over sockets


class Frames(CollectingSink):
    """Tells of the first key frame."""

    def __init__(self, stream, began):
        super().__init__(stream)
        self._began = began

    def mediaReceived(self, message):
        super().mediaReceived(message)
        if message.payload == AVC_KEY_FRAME and not self._began.called:
            self._began.callback(self.stream)


class Listening:
    """A whole server on a port of the system's choice."""

    def __init__(self, reactor):
        self.factory = RTMPFactory(reactor)
        self.began = Deferred()
        self.factory.streamStarted.append(self._started)
        self.relay = None
        self._endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")

    def _started(self, stream):
        if not self.began.called:
            self.sink = Frames(stream, self.began)
            stream.addSink(self.sink)

    def url(self, application="live", name=""):
        number = self._port.getHost().port
        return f"rtmp://127.0.0.1:{number}/{application}" + (name and f"/{name}")

    async def __aenter__(self):
        self._port = await self._endpoint.listen(self.factory)
        return self

    async def __aexit__(self, *exception):
        if self.relay is not None:
            await self.relay.stopService()
        await self._port.stopListening()
        await self.factory.stop()


class Encoder:
    """Publishes within the process, a key frame every 40 ms."""

    peer = "here"
    host = ""
    heard = 0.0
    unread = False

    def unpaid(self):
        return 0

    def __init__(self, factory, reactor):
        self.connection = self
        self._factory = factory
        self._stream = factory.registry.publish("live", "key", self)
        for typeId, time, payload in HEADERS:
            self._stream.messageReceived(Message(typeId, time, 1, payload))
        self._time = 0
        self._loop = LoopingCall(self._send)
        self._loop.clock = reactor
        self._loop.start(0.04)

    def _send(self):
        message = Message(VIDEO, self._time, 1, AVC_KEY_FRAME)
        self._stream.messageReceived(message)
        self._time += 40

    def leave(self):
        self._loop.stop()
        self._factory.registry.unpublish(self._stream, self)

    def pauseProducing(self):
        """Nothing holds it."""

    def resumeProducing(self):
        """Nothing has held it."""

    def takenOver(self):
        """Nobody does."""


@pytest_twisted.ensureDeferred
async def test_pushMovesOverSockets():
    from twisted.internet import reactor

    async with (
        Listening(reactor) as a,
        Listening(reactor) as b,
        Listening(reactor) as c,
    ):
        c.relay = PushRelays(reactor, c.factory.registry, [a.url("live", "key")])
        c.relay.startService()
        encoder = Encoder(c.factory, reactor)
        await a.began
        assert a.factory.requestReconnect(b.url()) == 1
        stream = await b.began
        assert (stream.application, stream.name) == ("live", "key")
        assert a.factory.streams == {}
        encoder.leave()
    assert a.sink.stream.ledger.received.video >= 1
    assert b.sink.stream.ledger.received.video >= 1
    got = [message[3] for message in b.sink.messages]
    assert got[:3] == [payload for _, _, payload in HEADERS]
    assert c.relay.total.moves == 1


@pytest_twisted.ensureDeferred
async def test_publishCommandMovesOverSockets(file):
    """The program itself, which is sent from one server to the other."""
    from twisted.internet import reactor

    async with Listening(reactor) as a, Listening(reactor) as b:
        program = [
            *("-m", "twisted_rtmp.client", "publish", str(file)),
            *(a.url("live", "key"), "--loop"),
        ]
        ended = getProcessOutputAndValue(sys.executable, program, environment())
        await a.began
        assert a.factory.requestReconnect(b.url("other")) == 1
        stream = await b.began
        assert (stream.application, stream.name) == ("other", "key")
        assert a.factory.streams == {}
        await b.factory.stop()
        _, errors, status = await ended
        assert status == 1, errors
    got = [(message[0], message[3]) for message in b.sink.messages]
    assert got[:4] == [*((t, p) for t, _, p in HEADERS), (VIDEO, AVC_KEY_FRAME)]
