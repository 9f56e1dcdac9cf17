"""FLV over HTTP and WebSocket: who gets what, when, and how it ends."""

from __future__ import annotations

import struct

import h11
import pytest
from httpclient import Connection, Getter, Socket
from rtmpclient import (
    AAC_FRAME,
    AAC_HEADER,
    AUDIO,
    AVC_FRAME,
    AVC_HEADER,
    AVC_KEY_FRAME,
    DATA,
    VIDEO,
    Client,
)
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from wsproto.events import CloseConnection
from wsproto.frame_protocol import FrameProtocol, Opcode
from zope.interface import implementer
from zope.interface.verify import verifyClass

from twisted_rtmp.auth import AllowList
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.flv.kinds import SETTLE_FRAMES
from twisted_rtmp.interfaces import IAuthorizer, Refused
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.live.players import PLAYER_QUEUE_BYTES
from twisted_rtmp.media.parts import wrapTrack
from twisted_rtmp.web import HTTPSite
from twisted_rtmp.web.channel import (
    MAX_BODY,
    MAX_HEADERS,
    MEDIA_SIZE,
    REQUEST_SIZE,
)
from twisted_rtmp.web.flv import (
    SETTLE_BYTES,
    SETTLE_SECONDS,
    FLVPlay,
    selectionFor,
    streamOfPath,
)
from twisted_rtmp.web.websocket import MAX_FRAMES, WINDOW_SECONDS, frameHeader
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.messages import Message

#: A key frame larger than what a transport likes to keep.
LARGE_KEY_FRAME = AVC_KEY_FRAME + bytes(100_000)

#: What most encoders send first.
METADATA = amf0.encode("onMetaData", {"videocodecid": 7.0, "audiocodecid": 10.0})
HEADERS = [
    (DATA, 0, METADATA),
    (VIDEO, 0, AVC_HEADER),
    (AUDIO, 0, AAC_HEADER),
]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def factory(clock):
    # Publishers that say nothing while tests wait for players.
    return RTMPFactory(clock, latency=0, limits=ServerLimits(publisherIdleSeconds=1000))


@pytest.fixture
def site(clock, factory):
    return HTTPSite(clock, factory)


class Publisher(Client):
    """Sends messages, and sees to it that the server passes them on."""

    def __init__(self, factory, name="key", app="live", headers=True):
        super().__init__(factory)
        self.publish(name, app)
        if headers:
            self.media(DATA, METADATA)
            self.media(VIDEO, AVC_HEADER)
            self.media(AUDIO, AAC_HEADER)

    def media(self, typeId, payload, timestamp=0, streamId=1):
        super().media(typeId, payload, timestamp, streamId)
        self.transport.clock.advance(0)


class Answers:
    """Both ways to get a stream, as one."""

    def __init__(self, kind):
        self.kind = kind

    def __call__(self, site, target="/live/key.flv", **headers):
        return self.kind(site, target, **headers)

    @staticmethod
    def isThere(client):
        client.pump()
        return client.status == 200 if isinstance(client, Getter) else client.accepted

    @staticmethod
    def status(client):
        client.pump()
        return client.status if isinstance(client, Getter) else client.rejected

    @staticmethod
    def failure(client):
        """With which status it got no stream after it had been allowed, and why."""
        client.pump()
        if isinstance(client, Getter):
            return client.status, client.text
        return client.closed - 4000, client.reason

    @staticmethod
    def ended(client):
        """Whether it was told that this is the end, and the connection closed."""
        client.pump()
        told = client.complete if isinstance(client, Getter) else client.closed == 1000
        return told and client.transport.disconnected


@pytest.fixture(params=[Getter, Socket], ids=["response", "socket"])
def play(request):
    return Answers(request.param)


def test_interfaces():
    assert verifyClass(IPushProducer, FLVPlay)


# Addresses


@pytest.mark.parametrize(
    ("path", "stream"),
    [
        (b"/live/key.flv", ("live", "key")),
        (b"/key.flv", ("", "key")),
        (b"/live/eu/north/key.flv", ("live/eu/north", "key")),
        (b"//live//key.flv", ("live", "key")),
        (b"/live/a.b.flv", ("live", "a.b")),
        (b"/live/_definst_/key.flv", ("live", "key")),
        (b"/live/stage%201.flv", ("live", "stage 1")),
        (b"/live/a%2Fb.flv", ("live", "a/b")),
        (b"/caf%C3%A9/%E2%82%AC.flv", ("caf\xe9", "\u20ac")),
        (b"/live/%FF.flv", ("live", "\udcff")),
        (b"/live/100%.flv", ("live", "100%")),
        (b"/live/what%3Fnow.flv", ("live", "what?now")),
    ],
)
def test_paths(path, stream):
    assert streamOfPath(path) == stream


@pytest.mark.parametrize("path", [b"/live/.flv", b"/live/%20.flv", b"/live/key", b"/"])
def test_pathsOfNothing(path):
    with pytest.raises(ValueError, match="no stream"):
        streamOfPath(path)


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/live",
        "/live/key",
        "/live/key.mp4",
        "/live/.flv",
        "/live/key.flv/",
        "/x.fl",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_otherAddressesAreNothing(site, target, method):
    client = Getter(site, target, method)
    if target == "/live/.flv" and method == "POST":
        assert client.status == 405
        return
    assert client.status == 404
    assert client.headers["access-control-allow-origin"] == "*"
    assert client.open
    if method != "HEAD":
        assert "/APPLICATION/STREAM.flv" in client.text


def test_aNameIsTheSameByRTMPAndHTTP(factory, site, play):
    Publisher(factory, "caf\xe9/1 2", "a/b")
    assert play.isThere(play(site, "/a/b/caf%C3%A9%2F1%202.flv"))


def test_otherResourcesCanBeAdded(factory, site):
    class Hello(Resource):
        isLeaf = True

        def render_GET(self, request):
            return request.path

    site.root.putChild(b"stats", Hello())
    site.root.putEnding(b".m3u8", Hello())
    assert Getter(site, "/stats/all").text == "/stats/all"
    assert Getter(site, "/live/eu/key.m3u8").text == "/live/eu/key.m3u8"
    assert Getter(site, "/live/eu/key.m4s").status == 404


# What is played


def test_playsFromTheBeginning(factory, site, play):
    client = play(site)
    publisher = Publisher(factory)
    publisher.media(VIDEO, AVC_KEY_FRAME, 40)
    publisher.media(AUDIO, AAC_FRAME, 43)
    publisher.media(VIDEO, AVC_FRAME, 80)
    assert play.isThere(client)
    assert client.tags == [
        *HEADERS,
        (VIDEO, 40, AVC_KEY_FRAME),
        (AUDIO, 43, AAC_FRAME),
        (VIDEO, 80, AVC_FRAME),
    ]
    publisher.leave()
    assert play.ended(client)
    assert not factory.connections
    assert factory.players("live", "key") == []


def test_joinsWithTheCurrentGroupOfPictures(factory, site, play):
    publisher = Publisher(factory)
    for time in (0, 1000):
        publisher.media(VIDEO, AVC_KEY_FRAME, time)
        publisher.media(AUDIO, AAC_FRAME, time + 5)
        publisher.media(VIDEO, AVC_FRAME, time + 40)
    client = play(site)
    assert client.tags == [
        *HEADERS,
        (VIDEO, 1000, AVC_KEY_FRAME),
        (AUDIO, 1005, AAC_FRAME),
        (VIDEO, 1040, AVC_FRAME),
    ]
    publisher.media(DATA, amf0.encode("onCuePoint", {}), 1050)
    assert client.tags[-1] == (DATA, 1050, amf0.encode("onCuePoint", {}))


def test_joinsWithTheNextKeyFrameIfAskedTo(factory, site, play):
    publisher = Publisher(factory)
    publisher.media(VIDEO, AVC_KEY_FRAME, 0)
    client = play(site, "/live/key.flv?gop=0")
    publisher.media(VIDEO, AVC_FRAME, 40)
    assert client.tags == HEADERS
    publisher.media(VIDEO, AVC_KEY_FRAME, 80)
    assert client.tags == [*HEADERS, (VIDEO, 80, AVC_KEY_FRAME)]


def test_theFirstOfSeveralTracks(factory, site, play):
    """As a plain stream, unless others are asked for: mpegts.js ends at others."""
    record, unit = AVC_HEADER[5:], AVC_KEY_FRAME[5:]
    header = wrapTrack(VIDEO, b"\x90avc1" + record, 1)
    frame = wrapTrack(VIDEO, b"\x91avc1\0\0\0" + unit, 1)
    publisher = Publisher(factory, headers=False)
    sent = [AVC_HEADER, header, AVC_KEY_FRAME, frame]
    publisher.media(DATA, METADATA)
    publisher.media(AUDIO, AAC_HEADER)
    for payload in sent:
        publisher.media(VIDEO, payload)

    def video(query):
        client = play(site, f"/live/key.flv{query}")
        return [payload for typeId, _, payload in client.tags if typeId == VIDEO]

    assert video("") == video("?track=0") == [AVC_HEADER, AVC_KEY_FRAME]
    assert video("?tracks=all") == sent
    # The other one in the form that all players know.
    assert video("?video=1") == [AVC_HEADER, AVC_KEY_FRAME]
    assert video("?video=2") == []


@pytest.mark.parametrize(
    ("query", "agent", "everything"),
    [
        ("", b"Lavf/62.3.100", True),
        ("gop=0", b"Lavf/70.0.1", True),
        ("", b"Lavf/61.7.100", False),
        ("", b"Lavf/59.27.100", False),
        ("", b"VLC/3.0.20 LibVLC/3.0.20", False),
        ("", b"Lavf/", False),
        ("", None, False),
        ("track=0", b"Lavf/62.3.100", False),
        ("tracks=all", None, True),
    ],
)
def test_whoGetsEveryTrack(query, agent, everything):
    assert selectionFor(query, agent).everything is everything


def test_manyGetTheSame(factory, site):
    publisher = Publisher(factory)
    clients = [kind(site, "/live/key.flv") for kind in (Getter, Socket) * 5]
    publisher.media(VIDEO, AVC_KEY_FRAME, 0)
    publisher.media(VIDEO, AVC_FRAME, 40)
    wanted = [*HEADERS, (VIDEO, 0, AVC_KEY_FRAME), (VIDEO, 40, AVC_FRAME)]
    assert all(client.tags == wanted for client in clients)
    assert len(factory.players("live", "key")) == 10


def test_oneWriteAFlush(clock):
    """What one read has brought is one chunk, and one message."""
    factory = RTMPFactory(clock)
    site = HTTPSite(clock, factory)
    publisher = Publisher(factory)
    publisher.media(VIDEO, AVC_KEY_FRAME, 0)
    getter = Getter(site, "/live/key.flv")
    socket = Socket(site, "/live/key.flv")
    before, messages = len(getter.raw), len(socket.messages)
    connection = publisher.connection
    for time in range(40, 400, 40):
        connection.sendMessage(Message(VIDEO, time, 1, AVC_FRAME), 6)
    publisher.flush()
    clock.advance(1)
    getter.pump()
    socket.pump()
    assert len(getter.tags) == len(socket.tags) == len(HEADERS) + 10
    assert len(socket.messages) == messages + 1
    size = 9 * (len(AVC_FRAME) + 15)
    assert getter.raw[before:].startswith(b"%x\r\n" % size)
    assert len(getter.raw) - before == size + len(b"%x\r\n\r\n" % size)


def test_timestampsAreThoseOfTheStream(factory, site, play):
    """32 bits, as RTMP players get them."""
    publisher = Publisher(factory)
    publisher.media(VIDEO, AVC_KEY_FRAME, 0xFFFFFFF0)
    client = play(site)
    publisher.media(VIDEO, AVC_FRAME, 0x10)
    assert [time for _, time, _ in client.tags[-2:]] == [0xFFFFFFF0, 0x10]


def test_aStreamGoesOnWithinItsGrace(clock, play):
    factory = RTMPFactory(clock, latency=0, grace=5)
    site = HTTPSite(clock, factory)
    publisher = Publisher(factory)
    publisher.media(VIDEO, AVC_KEY_FRAME, 0)
    client = play(site)
    publisher.leave()
    clock.advance(4)
    assert play.isThere(client)
    assert Getter(site, "/live/key.flv", "HEAD").status == 200
    publisher = Publisher(factory)
    publisher.media(VIDEO, AVC_KEY_FRAME, 0)
    assert [payload for _, _, payload in client.tags].count(AVC_KEY_FRAME) == 2
    publisher.leave()
    clock.advance(4)
    assert not play.ended(client)
    clock.advance(1)
    assert play.ended(client)


# The response


def test_headersOfAResponse(factory, site):
    Publisher(factory)
    client = Getter(site, "/live/key.flv")
    assert client.status == 200
    assert client.headers["content-type"] == "video/x-flv"
    assert client.headers["cache-control"] == "no-store"
    assert client.headers["transfer-encoding"] == "chunked"
    assert client.headers["connection"] == "close"
    assert client.headers["access-control-allow-origin"] == "*"
    assert client.headers["x-accel-buffering"] == "no"


def test_http10GetsAnEndByTheConnectionsEnd(factory, site):
    publisher = Publisher(factory)
    publisher.media(VIDEO, AVC_KEY_FRAME, 0)
    client = Connection(site)
    client.sendBytes(b"GET /live/key.flv HTTP/1.0\r\n\r\n")
    head, _, body = bytes(client.raw).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body.startswith(b"FLV\x01\x05")
    assert body.endswith(struct.pack(">I", len(AVC_KEY_FRAME) + 11))
    publisher.leave()
    client.pump()
    assert client.transport.disconnected


@pytest.mark.parametrize("live", [True, False])
def test_head(factory, site, live):
    if live:
        Publisher(factory)
    client = Getter(site, "/live/key.flv", "HEAD")
    assert client.status == (200 if live else 404)
    assert client.complete
    assert not client.body
    assert client.open
    if live:
        assert client.headers["content-type"] == "video/x-flv"
    assert factory.players("live", "key") == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "BREW"])
def test_otherMethods(factory, site, method):
    Publisher(factory)
    client = Getter(site, "/live/key.flv", method)
    assert client.status == 405
    assert client.headers["allow"] == "GET, HEAD, OPTIONS"
    assert client.complete


def test_aMissingStreamIsWaitedFor(clock, factory, site, play, lines):
    client = play(site)
    clock.advance(factory.limits.playerWaitSeconds - 1)
    client.pump()
    if play.kind is Getter:
        assert not client.raw
    else:
        # A browser opens no other one to this host before this one is open.
        assert client.accepted
        assert not client.messages
    assert len(factory.players("live", "key")) == 1
    clock.advance(1)
    assert play.failure(client) == (404, "Nobody publishes this stream.")
    assert client.open == (play.kind is Getter)
    assert factory.players("live", "key") == []
    assert factory.counters.cut == 0
    how = "HTTP" if play.kind is Getter else "WebSocket"
    assert any(
        f"plays live/key by {how}, which is not being published yet" in line
        for line in lines
    )


def test_aConnectionIsUsedAgainAfterAnAnswer(factory, site):
    client = Connection(site)
    for _ in range(3):
        client.sendBytes(b"HEAD /live/key.flv HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.raw.count(b"HTTP/1.1 404 ") == 3
    Publisher(factory)
    client.sendBytes(b"GET /live/key.flv HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"FLV\x01" in client.raw


# Other origins


def test_preflight(site):
    client = Getter(
        site,
        "/live/key.flv",
        "OPTIONS",
        origin="https://example.org",
        access_control_request_method="GET",
        access_control_request_headers="range",
    )
    assert client.status == 204
    assert client.headers["access-control-allow-origin"] == "*"
    assert client.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
    assert client.headers["access-control-allow-headers"] == "*"
    assert client.complete


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_onlySomeOrigins(clock, factory, method):
    site = HTTPSite(clock, factory, origins=["https://a.example", "https://b.example"])
    Publisher(factory)

    def allowed(**headers):
        client = Getter(site, "/live/key.flv", method, **headers)
        assert client.headers["vary"] == "Origin"
        return client.headers.get("access-control-allow-origin")

    assert allowed(origin="https://b.example") == "https://b.example"
    assert allowed(origin="https://c.example") is None
    assert allowed() is None


def test_aWebSocketFromAnotherOriginIsRefused(clock, factory):
    """No browser asks before it opens one."""
    site = HTTPSite(clock, factory, origins=["https://a.example"])
    Publisher(factory)
    assert Socket(site, "/live/key.flv", origin="https://a.example").accepted
    assert Socket(site, "/live/key.flv").accepted
    assert Socket(site, "/live/key.flv", origin="https://b.example").rejected == 403
    assert Socket(HTTPSite(clock, factory), "/live/key.flv", origin="null").accepted


# Decisions


@implementer(IAuthorizer)
class Authorizer:
    """Asked by players; says what it is told to say."""

    def __init__(self):
        self.connects = []
        self.plays = []
        self.connectAnswer = None
        self.playAnswer = None

    def connect(self, request):
        self.connects.append(request)
        return self._say(self.connectAnswer)

    def publish(self, request):
        return None

    def play(self, request):
        self.plays.append(request)
        return self._say(self.playAnswer)

    @staticmethod
    def _say(said):
        if isinstance(said, Exception):
            raise said
        return said


@pytest.fixture
def authorizer(factory):
    factory.authorizer = Authorizer()
    return factory.authorizer


def test_theAuthorizerIsAskedAsForRTMP(factory, authorizer, site, play):
    publisher = Publisher(factory)
    authorizer.connects.clear()
    client = play(
        site,
        "/live/key.flv?token=1&x=%20",
        user_agent="Mozilla/5.0",
        referer="http://a/",
    )
    assert play.isThere(client)
    [connect], [request] = authorizer.connects, authorizer.plays
    assert (connect.application, connect.query) == ("live", "token=1&x=%20")
    assert connect.address == client.address
    host = "localhost" if play.kind is Socket else "localhost:8080"
    assert connect.properties == {
        "app": "live",
        "tcUrl": f"http://{host}/live",
        "flashVer": "Mozilla/5.0",
        "pageUrl": "http://a/",
    }
    assert (request.application, request.name) == ("live", "key")
    assert request.query == "token=1&x=%20"
    assert request.connect is connect
    publisher.leave()


@pytest.mark.parametrize("which", ["connectAnswer", "playAnswer"])
def test_refusals(factory, authorizer, site, play, lines, which):
    Publisher(factory)
    setattr(authorizer, which, Refused("Pay first, caf\xe9."))
    client = play(site)
    assert play.status(client) == 403
    body = client.body if isinstance(client, Getter) else client.rejection
    assert body.decode() == "Pay first, caf\xe9.\n"
    assert factory.counters.refused == 1
    assert any("is refused live/key to play: Pay first" in line for line in lines)
    assert factory.players("live", "key") == []
    head = Getter(site, "/live/key.flv", "HEAD")
    assert (head.status, head.body) == (403, b"")


def test_applicationsThatAreNotAllowed(factory, site, play):
    factory.authorizer = AllowList(["live"])
    assert play.status(play(site, "/other/key.flv")) == 403


def test_anotherName(factory, authorizer, site, play):
    Publisher(factory, "secret")
    authorizer.playAnswer = "secret"
    client = play(site, "/live/public.flv")
    assert play.isThere(client)
    assert Getter(site, "/live/public.flv", "HEAD").status == 200


def test_aDecisionThatTakesTime(factory, authorizer, site, play):
    Publisher(factory)
    authorizer.playAnswer = Deferred()
    client = play(site)
    client.pump()
    assert not client.raw
    authorizer.playAnswer.callback(None)
    assert play.isThere(client)


def test_aRefusalThatTakesTime(factory, authorizer, site, play):
    async def refuse():
        await waiting
        raise Refused("Too late.")

    waiting = Deferred()
    authorizer.playAnswer = refuse()
    client = play(site)
    waiting.callback(None)
    assert play.status(client) == 403


def test_whoLeavesAmidADecision(factory, authorizer, site, play):
    cancelled = []
    authorizer.connectAnswer = Deferred(cancelled.append)
    client = play(site)
    client.leave()
    assert len(cancelled) == 1
    assert authorizer.plays == []
    assert not factory.connections


def test_anAuthorizerThatFails(factory, authorizer, site, play, loggedFailures):
    authorizer.playAnswer = ZeroDivisionError("oh")
    client = play(site)
    assert play.status(client) == 500
    assert len(loggedFailures.take(ZeroDivisionError)) == 1


# Which tracks the header says there are


def flagsOf(client):
    client.pump()
    reader = client.flv.reader
    return reader.hasAudio, reader.hasVideo


def test_theHeaderWaitsForWhatMetadataPromise(factory, site, play):
    client = play(site)
    publisher = Publisher(factory, headers=False)
    publisher.media(DATA, METADATA)
    publisher.media(VIDEO, AVC_HEADER)
    publisher.media(VIDEO, AVC_KEY_FRAME)
    assert client.tags == []
    publisher.media(AUDIO, AAC_HEADER)
    assert flagsOf(client) == (True, True)
    assert len(client.tags) == 4


@pytest.mark.parametrize(
    ("facts", "payload", "typeId", "flags"),
    [
        ({"videocodecid": 7.0}, AVC_HEADER, VIDEO, (False, True)),
        ({"audiocodecid": 10.0}, AAC_HEADER, AUDIO, (True, False)),
        ({"hasAudio": False, "hasVideo": True}, AVC_HEADER, VIDEO, (False, True)),
        ({"width": 640.0, "audiocodecid": ""}, AVC_HEADER, VIDEO, (False, True)),
    ],
)
def test_oneTrackBeginsAtOnce(factory, site, play, facts, payload, typeId, flags):
    client = play(site)
    publisher = Publisher(factory, headers=False)
    publisher.media(DATA, amf0.encode("onMetaData", facts))
    publisher.media(typeId, payload)
    assert flagsOf(client) == flags
    assert len(client.tags) == 2


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        amf0.encode("onMetaData", {"encoder": "x"}),
        amf0.encode("onMetaData"),
        amf0.encode("onMetaData", 5.0),
        METADATA,
    ],
)
def test_withoutPromisesTheHeaderWaitsAWhile(clock, factory, site, play, metadata):
    client = play(site)
    publisher = Publisher(factory, headers=False)
    clock.advance(5)
    if metadata:
        publisher.media(DATA, metadata)
    publisher.media(VIDEO, AVC_KEY_FRAME)
    clock.advance(SETTLE_SECONDS - 0.1)
    assert client.tags == []
    clock.advance(0.1)
    assert flagsOf(client) == (False, True)
    assert client.tags[-1] == (VIDEO, 0, AVC_KEY_FRAME)


def test_theHeaderWaitsForSoManyBytes(factory, site, play):
    client = play(site)
    publisher = Publisher(factory, headers=False)
    publisher.media(VIDEO, AVC_KEY_FRAME + bytes(SETTLE_BYTES // 2))
    assert client.tags == []
    publisher.media(VIDEO, AVC_FRAME + bytes(SETTLE_BYTES // 2))
    assert flagsOf(client) == (False, True)
    assert len(client.tags) == 2


def test_aStreamThatHasShownWhatItHasIsBelieved(factory, site, play):
    publisher = Publisher(factory, headers=False)
    publisher.media(DATA, METADATA)
    publisher.media(VIDEO, AVC_KEY_FRAME)
    assert play(site).tags == []
    for time in range(1, SETTLE_FRAMES):
        publisher.media(VIDEO, AVC_FRAME, time)
    client = play(site)
    assert flagsOf(client) == (False, True)
    assert len(client.tags) == 1 + SETTLE_FRAMES


def test_whatWaitedForTheHeaderComesBeforeTheEnd(factory, site, play):
    client = play(site)
    publisher = Publisher(factory, headers=False)
    publisher.media(VIDEO, AVC_KEY_FRAME)
    publisher.leave()
    assert client.tags == [(VIDEO, 0, AVC_KEY_FRAME)]
    assert play.ended(client)


def test_aStreamOfNothingIsAnFLVHeader(factory, site, play):
    client = play(site)
    publisher = Publisher(factory, headers=False)
    publisher.leave()
    assert play.ended(client)
    assert flagsOf(client) == (True, True)
    assert client.tags == []


# Who does not keep up, and who leaves


def test_whoLeavesIsForgottenAtOnce(factory, site, play, lines):
    publisher = Publisher(factory)
    client = play(site)
    client.leave()
    assert factory.players("live", "key") == []
    assert len(factory.connections) == 1
    publisher.media(VIDEO, AVC_KEY_FRAME)
    [line] = [line for line in lines if " messages of live/key, " in line]
    assert " got 3 messages of live/key, " in line
    publisher.leave()


def test_whoLeavesWhileWaiting(factory, site, play):
    client = play(site)
    client.leave()
    assert factory.players("live", "key") == []
    Publisher(factory)


def test_changesOfTheNumberOfPlayersAreTold(factory, site, play):
    told = []
    factory.playersChanged.append(lambda *change: told.append(change))
    client = play(site)
    client.leave()
    assert told == [("live", "key", 1), ("live", "key", 0)]


def test_theEndIsTheEndOfItsPlayers(factory, site, play):
    """They wait for no other publication."""
    told = []
    factory.playersChanged.append(lambda *change: told.append(change))
    publisher = Publisher(factory)
    client = play(site)
    client.transport.taking = False
    publisher.media(VIDEO, LARGE_KEY_FRAME)
    publisher.media(VIDEO, AVC_FRAME, 40)
    publisher.leave()
    assert told == [("live", "key", 1), ("live", "key", 0)]
    assert client.protocol in factory.connections


def test_whoDoesNotReadIsBounded(clock, factory, site, play, lines):
    publisher = Publisher(factory)
    publisher.media(VIDEO, AVC_KEY_FRAME)
    client = play(site)
    assert play.isThere(client)
    client.transport.taking = False
    for time in range(0, 6000, 40):
        publisher.media(
            VIDEO,
            LARGE_KEY_FRAME if time % 1000 == 0 else AVC_FRAME + bytes(50_000),
            time,
        )
    [player] = factory.players("live", "key")
    assert player.dropped
    queued = len(client.transport.queued)
    assert queued <= 2 * len(LARGE_KEY_FRAME)
    assert player._queuedBytes <= PLAYER_QUEUE_BYTES
    client.transport.taking = True
    client.pump()
    assert player._queuedBytes == 0
    # It goes on with a key frame.
    times = [time for _, time, _ in client.tags]
    gap = next(i for i in range(4, len(times)) if times[i] - times[i - 1] > 40)
    assert client.tags[gap][2] == LARGE_KEY_FRAME
    assert any("does not keep up with live/key" in line for line in lines)
    client.leave()
    assert any(f"; {player.dropped} were dropped" in line for line in lines)
    publisher.leave()


def test_whoReadsNothingIsCut(clock, factory, site, play, lines):
    publisher = Publisher(factory)
    client = play(site)
    client.pump()
    client.transport.taking = False
    publisher.media(VIDEO, LARGE_KEY_FRAME)
    assert client.protocol in factory.connections
    seconds = factory.limits.drainSeconds
    clock.advance(seconds - 1)
    assert not client.transport.aborted
    clock.advance(1)
    assert client.transport.aborted
    assert factory.counters.cut == 1
    assert any("is cut: it takes nothing for 10 s" in line for line in lines)
    assert factory.players("live", "key") == []
    publisher.leave()


def test_whoReadsAgainIsNotCut(clock, factory, site, play):
    publisher = Publisher(factory)
    client = play(site)
    client.pump()
    client.transport.taking = False
    publisher.media(VIDEO, LARGE_KEY_FRAME)
    publisher.media(VIDEO, AVC_FRAME, 40)
    clock.advance(factory.limits.drainSeconds - 1)
    client.transport.taking = True
    client.pump()
    assert client.tags[-1] == (VIDEO, 40, AVC_FRAME)
    clock.advance(5)
    assert client.open
    publisher.leave()


def test_theEndComesBehindWhatIsQueued(clock, factory, site, play):
    publisher = Publisher(factory)
    client = play(site)
    client.pump()
    client.transport.taking = False
    publisher.media(VIDEO, LARGE_KEY_FRAME)
    publisher.media(VIDEO, AVC_FRAME, 40)
    publisher.leave()
    assert not client.transport.disconnecting
    client.transport.taking = True
    client.pump()
    assert client.tags[-1] == (VIDEO, 40, AVC_FRAME)
    assert play.ended(client)


def test_whoDoesNotTakeTheEndIsCut(clock, factory, site, play):
    publisher = Publisher(factory)
    client = play(site)
    client.pump()
    client.transport.taking = False
    publisher.leave()
    clock.advance(factory.limits.drainSeconds)
    assert client.transport.aborted
    assert not factory.connections


def test_aSuccessorComesWhileTheEndIsQueued(factory, site, play):
    """The answer ends with the stream that it began with."""
    publisher = Publisher(factory)
    client = play(site)
    client.pump()
    client.transport.taking = False
    publisher.media(VIDEO, LARGE_KEY_FRAME)
    publisher.media(VIDEO, AVC_FRAME, 40)
    publisher.leave()
    Publisher(factory)
    client.transport.taking = True
    client.pump()
    assert (VIDEO, 40, AVC_FRAME) in client.tags
    assert play.ended(client)
    assert factory.players("live", "key") == []


# The connection


def test_connectionsCountAgainstTheLimit(clock, lines):
    factory = RTMPFactory(clock, limits=ServerLimits(connections=2))
    site = HTTPSite(clock, factory)
    Publisher(factory)
    Connection(site)
    assert factory.counters.accepted == 2
    assert Connection(site).turnedAway
    assert Client(factory).turnedAway
    assert factory.counters.turnedAway == 2


def test_aRequestHasADeadlineThatNoBytePutsOff(clock, factory, site, lines):
    client = Connection(site)
    seconds = factory.limits.handshakeSeconds
    for byte in b"GET / HT":
        client.sendBytes(bytes([byte]))
        clock.advance(seconds / 8)
    client.pump()
    assert client.transport.disconnected
    assert factory.counters.cut == 1
    assert any("is cut: no complete request within 10 s" in line for line in lines)
    assert not factory.connections


def test_aConnectionThatSaysNothingIsClosed(clock, factory, site):
    client = Connection(site)
    clock.advance(factory.limits.handshakeSeconds)
    client.pump()
    assert client.transport.disconnected
    # Browsers open some in advance.
    assert factory.counters.cut == 0


def test_aConnectionThatAsksNoMoreIsClosed(clock, factory, site):
    client = Getter(site, "/live/key.flv", "HEAD")
    clock.advance(factory.limits.handshakeSeconds)
    client.pump()
    assert client.transport.disconnected
    assert factory.counters.cut == 0


def test_aConnectionThatDoesNotCloseIsAborted(clock, factory, site):
    """As TLS without an answer to its end."""
    client = Connection(site)
    client.transport.taking = False
    clock.advance(factory.limits.handshakeSeconds)
    assert client.transport.disconnecting
    clock.advance(factory.limits.drainSeconds)
    assert client.transport.aborted


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (MAX_HEADERS + 2) + b"\r\n",
        b"GET / HTTP/1.1\r\n" + (b"A: " + b"b" * 1000 + b"\r\n") * 20 + b"\r\n",
        b"\x03\x00\x00\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ],
)
def test_badRequestsAreCut(factory, site, request_):
    client = Connection(site)
    client.sendBytes(request_)
    assert client.transport.disconnected
    assert client.raw == b"" or client.raw.startswith(b"HTTP/1.1 400 ")
    assert not factory.connections


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: %d\r\n" % (MAX_BODY + 1),
        b"Content-Length: 99999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
    ],
)
def test_largeBodiesAreRefused(factory, site, head, lines):
    client = Connection(site)
    client.sendBytes(b"POST / HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n")
    for _ in range(3):
        client.sendBytes(b"8000\r\n" + bytes(0x8000) + b"\r\n")
    assert client.raw.startswith(b"HTTP/1.1 413 ")
    assert client.transport.disconnected
    assert factory.counters.violations == 1
    assert any("is cut: a body of more than 65536 bytes" in line for line in lines)


def test_smallBodiesAreRead(site):
    client = Connection(site)
    body = b"x" * MAX_BODY
    for _ in range(3):
        client.sendBytes(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
    assert client.raw.count(b"HTTP/1.1 404 ") == 3


def test_requestsAreReadInSmallPieces(factory, site):
    """Thousands of them fit into what is read otherwise."""
    client = Connection(site)
    assert client.transport.bufferSize == REQUEST_SIZE
    client.transport.taking = False
    client.sendBytes(b"HEAD / HTTP/1.1\r\n\r\n" * (REQUEST_SIZE // 19))
    assert not client.transport.reading
    client.transport.taking = True
    client.pump()
    assert client.transport.reading
    assert client.raw.count(b"HTTP/1.1 404 ") == REQUEST_SIZE // 19


def test_whoReadsNoAnswersIsBoundedAndCut(clock, factory, site):
    client = Connection(site)
    client.transport.taking = False
    for _ in range(1000):
        client.sendBytes(b"HEAD / HTTP/1.1\r\n\r\n" * 20)
    assert client.transport.most < 20 * REQUEST_SIZE
    clock.advance(factory.limits.handshakeSeconds)
    clock.advance(factory.limits.drainSeconds)
    assert client.transport.aborted


def test_mediaAreQueuedInLargerOnes(factory, site, play):
    Publisher(factory)
    assert play(site).transport.bufferSize == MEDIA_SIZE


def test_noAddressIsLogged(factory, site, lines):
    """They may have tokens in them."""
    site.doStart()
    Publisher(factory)
    Getter(site, "/live/key.flv?token=s3cret").leave()
    Getter(site, "/live/key.flv?token=s3cret", "POST")
    Getter(site, "/s3cret").leave()
    site.doStop()
    assert lines
    assert "s3cret" not in "\n".join(lines)


def test_namesAreLoggedPrintable(factory, site, lines):
    Getter(site, "/li%0Ave/k%1B[31m.flv").leave()
    assert any(r"li\nve/k\x1b[31m" in line for line in lines)
    assert not any("\x1b" in line or "\n" in line for line in lines)


def test_theServersEnd(clock, factory, site, play):
    """Everybody gets a clean one."""
    publisher = Publisher(factory)
    publisher.media(VIDEO, AVC_KEY_FRAME)
    playing = play(site)
    waiting = play(site, "/live/other.flv")
    idle = Connection(site)
    stopped = factory.stop()
    publisher.pump()
    playing.pump()
    if isinstance(playing, Getter):
        assert playing.complete
    else:
        # The publisher is closed first, or the player.
        assert playing.closed in (1000, 1001)
    assert playing.tags[-1] == (VIDEO, 0, AVC_KEY_FRAME)
    waiting.pump()
    if isinstance(waiting, Getter):
        assert (waiting.status, waiting.text) == (503, "The server is stopping.")
    else:
        assert (waiting.closed, waiting.reason) == (1001, "The server is stopping.")
    idle.pump()
    for client in (playing, waiting, idle):
        assert client.transport.disconnected
    assert stopped.called
    assert not factory.connections
    assert Connection(site).turnedAway


def test_theServersEndAmidADecision(factory, authorizer, site, play):
    authorizer.playAnswer = Deferred(lambda _: None)
    client = play(site)
    stopped = factory.stop()
    assert play.status(client) == 503
    assert client.transport.disconnected
    assert stopped.called


def test_theServersEndWithoutTheirs(clock, factory, site):
    """Who does not answer is not waited for."""
    Publisher(factory).leave()
    Publisher(factory)
    client = Socket(site, "/live/key.flv", answers=False)
    stopped = factory.stop()
    for connection in list(factory.connections):
        if connection is not client.protocol:
            connection.transport.client.pump()
    client.pump()
    assert client.closed in (1000, 1001)
    assert not stopped.called
    clock.advance(factory.limits.stopSeconds)
    assert client.transport.aborted
    assert stopped.called


# WebSockets


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20])
def test_frameHeaders(size):
    protocol = FrameProtocol(client=True, extensions=[])
    protocol.receive_bytes(frameHeader(size) + bytes(size))
    frames = list(protocol.received_frames())
    assert {frame.opcode for frame in frames} == {Opcode.BINARY}
    assert frames[-1].message_finished
    assert sum(len(frame.payload) for frame in frames) == size


def test_pingsAreAnswered(factory, site):
    Publisher(factory)
    client = Socket(site, "/live/key.flv")
    client.ping(b"are you there")
    assert client.pongs == [b"are you there"]


def test_whatAPlayerSaysIsThrownAway(clock, factory, site):
    """A message without end is not kept."""
    Publisher(factory)
    client = Socket(site, "/live/key.flv")
    mask = bytes(4)
    client.sendBytes(b"\x02\xfe\xff\xff" + mask + bytes(65_535))
    for _ in range(MAX_FRAMES // 2 - 1):
        client.sendBytes(b"\x00\xfe\xff\xff" + mask + bytes(65_535))
    client.sendBytes(b"\x80\x80" + mask)
    client.sendBytes(b"\x81\x82" + mask + b"hi")
    client.ping(b"x")
    assert client.pongs == [b"x"]


@pytest.mark.parametrize("frame", [b"\x89\x80\0\0\0\0", b"\x81\x81\0\0\0\0x"])
def test_floodsAreCut(clock, factory, site, lines, frame):
    Publisher(factory)
    client = Socket(site, "/live/key.flv")
    client.sendBytes(frame * MAX_FRAMES)
    clock.advance(WINDOW_SECONDS)
    client.sendBytes(frame * MAX_FRAMES)
    assert client.open
    client.sendBytes(frame * 10_000)
    assert client.closed == 1008
    assert client.transport.disconnected
    assert factory.counters.violations == 1
    assert any("is cut: more than 100 WebSocket frames" in line for line in lines)
    assert factory.players("live", "key") == []


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x01x", 1002),  # not masked
        (b"\xf1\x80\0\0\0\0", 1002),  # reserved bits
        (b"\x83\x80\0\0\0\0", 1002),  # reserved opcode
        (b"\x89\xfe\x00\x7e\0\0\0\0" + bytes(126), 1002),  # a long control frame
        (b"\x80\x80\0\0\0\0", 1002),  # the end of no message
        (b"\x81\x81\0\0\0\0\xff", 1007),  # no UTF-8
        (b"\x88\x81\0\0\0\0x", 1002),  # a close with half a code
    ],
)
def test_brokenFramesEndIt(factory, site, frame, code):
    publisher = Publisher(factory)
    client = Socket(site, "/live/key.flv", answers=False)
    client.sendBytes(frame + b"\x89\x80\0\0\0\0" * 5)
    assert client.closed == code
    assert client.transport.disconnected
    assert factory.players("live", "key") == []
    publisher.media(VIDEO, AVC_KEY_FRAME)


def test_thePeersClose(factory, site):
    publisher = Publisher(factory)
    client = Socket(site, "/live/key.flv", answers=False)
    client.sendBytes(client.ws.send(CloseConnection(1001)))
    assert client.closed == 1001
    assert client.transport.disconnected
    assert factory.players("live", "key") == []
    publisher.leave()
    assert not factory.connections


def test_aCloseFrameAndMoreBehindIt(factory, site):
    Publisher(factory)
    client = Socket(site, "/live/key.flv", answers=False)
    client.protocol.dataReceived(b"\x88\x82\0\0\0\0\x03\xe8")
    client.protocol.dataReceived(b"\x89\x80\0\0\0\0")
    client.pump()
    assert client.closed == 1000
    assert client.transport.disconnected


def test_whoDoesNotAnswerACloseIsAborted(clock, factory, site):
    publisher = Publisher(factory)
    client = Socket(site, "/live/key.flv", answers=False)
    publisher.leave()
    client.pump()
    assert client.closed == 1000
    assert not client.transport.disconnected
    clock.advance(factory.limits.drainSeconds)
    assert client.transport.aborted
    assert not factory.connections


UPGRADE = {
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-version": "13",
}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"connection": "close"}, 400),
        ({"connection": "Upgrade\xe9"}, 400),
        ({"sec-websocket-key": None}, 400),
        ({"sec-websocket-version": None}, 400),
        ({"sec-websocket-version": "8"}, 426),
        ({"host": "\xe9\xe9"}, 101),  # nobody looks at it
        ({"upgrade": "WebSocket", "connection": "keep-alive, upgrade"}, 101),
        ({"upgrade": "h2c"}, 200),
    ],
)
def test_upgrades(factory, site, change, status):
    Publisher(factory)
    headers = {**UPGRADE, **change}
    text = "".join(f"{k}: {v}\r\n" for k, v in headers.items() if v is not None)
    client = Connection(site)
    client.sendBytes(f"GET /live/key.flv HTTP/1.1\r\n{text}\r\n".encode("latin-1"))
    head = bytes(client.raw).partition(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/1.1 %d " % status)
    if status == 101:
        # RFC 6455, 1.3.
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    if status == 426:
        assert b" Upgrade Required\r\n" in head
        assert b"sec-websocket-version: 13" in head.lower()
    assert (len(factory.players("live", "key")) == 1) == (status in (101, 200))


def test_noWebSocketByHTTP10(factory, site):
    Publisher(factory)
    text = "".join(f"{k}: {v}\r\n" for k, v in UPGRADE.items())
    client = Connection(site)
    client.sendBytes(f"GET /live/key.flv HTTP/1.0\r\n{text}\r\n".encode())
    assert b" 400 " in bytes(client.raw)[:14]


def test_theHeadOfAWebSocketIsThatOfAResponse(factory, site):
    Publisher(factory)
    client = Getter(site, "/live/key.flv", "HEAD", upgrade="websocket")
    assert client.status == 200
    assert isinstance(client.h11.their_state, type(h11.IDLE)) or client.complete
