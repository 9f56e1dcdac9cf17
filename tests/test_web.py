"""FLV over HTTP and WebSocket: what players get, and when."""

from __future__ import annotations

import struct

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
)
from twisted.internet.interfaces import IPushProducer
from twisted.web.resource import Resource
from webkit import HEADERS, METADATA, Answers, Publisher
from zope.interface.verify import verifyClass

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.web import HTTPSite
from twisted_rtmp.web.flv import FLVPlay, playOptions, streamOfPath
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.messages import Message


@pytest.fixture
def factory(clock):
    # Publishers that say nothing while tests wait for players.
    return RTMPFactory(clock, latency=0, limits=ServerLimits(publisherIdleSeconds=1000))


@pytest.fixture
def site(clock, factory):
    return HTTPSite(factory.registry)


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
def test_pathsWithoutAStream(path):
    with pytest.raises(ValueError, match="must be /APPLICATION/STREAM"):
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
def test_otherAddressesAreNotFound(site, target, method):
    client = Getter(site, target, method)
    if target == "/live/.flv" and method == "POST":
        assert client.status == 405
        return
    assert client.status == 404
    assert client.headers["access-control-allow-origin"] == "*"
    assert client.open
    if method != "HEAD":
        assert "/APPLICATION/STREAM.flv" in client.text


def test_aNameIsTheSameOverRTMPAndHTTP(factory, site, play):
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
    """As a plain stream, unless others are asked for: mpegts.js stops at others."""
    record, unit = AVC_HEADER[5:], AVC_KEY_FRAME[5:]
    header = b"\x96\x00avc1\x01" + record
    frame = b"\x96\x01avc1\x01\0\0\0" + unit
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
def test_playersThatGetEveryTrack(query, agent, everything):
    options = playOptions(query, agent, True)
    assert options.selection.everything is everything
    assert options.gopCache is (query != "gop=0")


def test_manyGetTheSame(factory, site):
    publisher = Publisher(factory)
    clients = [kind(site, "/live/key.flv") for kind in (Getter, Socket) * 5]
    publisher.media(VIDEO, AVC_KEY_FRAME, 0)
    publisher.media(VIDEO, AVC_FRAME, 40)
    wanted = [*HEADERS, (VIDEO, 0, AVC_KEY_FRAME), (VIDEO, 40, AVC_FRAME)]
    assert all(client.tags == wanted for client in clients)
    assert len(factory.players("live", "key")) == 10


def test_oneWriteAFlush(clock):
    """All that one read has brought is one chunk, or one message."""
    factory = RTMPFactory(clock)
    site = HTTPSite(factory.registry)
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
    site = HTTPSite(factory.registry)
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


def test_inHTTP10TheConnectionsEndIsTheEnd(factory, site):
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
    assert client.headers["access-control-allow-headers"] == "*, Authorization"
    assert client.complete
