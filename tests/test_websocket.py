"""WebSockets: the upgrade, frames, and how they are closed."""

from __future__ import annotations

import gc

import h11
import pytest
from fuzzkit import REQUESTS
from httpclient import Connection, Getter, Socket
from rtmpclient import AVC_KEY_FRAME, VIDEO, decideBy
from twisted.internet.defer import Deferred
from webkit import Authorizer, Publisher
from wsproto.events import CloseConnection
from wsproto.frame_protocol import FrameProtocol, Opcode

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.web import HTTPSite
from twisted_rtmp.web.websocket import MAX_FRAMES, WINDOW_SECONDS, frameHeader


@pytest.fixture
def factory(clock):
    # Publishers that say nothing while tests wait for players.
    return RTMPFactory(clock, latency=0, limits=ServerLimits(publisherIdleSeconds=1000))


@pytest.fixture
def site(clock, factory):
    return HTTPSite(factory.registry)


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


@pytest.mark.parametrize("decided", [True, False])
@pytest.mark.parametrize(
    ("frame", "answer"),
    [
        (b"\x89\x81\0\0\0\0x", b"\x8a\x01x"),
        (b"\x88\x82\0\0\0\0\x03\xe8", b"\x88\x02\x03\xe8"),
    ],
)
def test_framesBehindTheRequest(factory, site, decided, frame, answer):
    """They are read once the request has been answered, which may take a while."""
    authorizer = decideBy(factory, Authorizer())
    Publisher(factory)
    authorizer.playAnswer = None if decided else Deferred()
    request = b"GET /live/key.flv HTTP/1.1\r\n"
    for name, value in UPGRADE.items():
        request += f"{name}: {value}\r\n".encode()
    client = Connection(site)
    client.sendBytes(request + b"\r\n" + frame)
    if not decided:
        assert not client.raw
        authorizer.playAnswer.callback(None)
    client.pump()
    head, _, frames = client.raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert answer in frames
    ended = frame.startswith(b"\x88")
    assert client.transport.disconnected == ended
    assert bool(factory.players("live", "key")) != ended
    assert not factory.counters.violations


def test_messagesOfAPlayerAreDiscarded(clock, factory, site):
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


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89\xfe",  # part of a header
        b"\x82\xff" + (1 << 20).to_bytes(8, "big") + bytes(4 + 1000),  # of a message
        b"\xc1\x80\0\0\0\0",  # a reserved bit
        b"\x88\x82\0\0\0\0\x03\xe8",  # a close
    ],
)
def test_nothingIsLeftOfAParser(factory, site, data):
    """What reads the frames goes with the connection, without a garbage collection."""
    Publisher(factory)
    gc.collect()
    gc.disable()
    try:
        before = countParsers()
        client = Connection(site)
        client.sendBytes(REQUESTS[2])
        assert countParsers() == before + 1
        client.sendBytes(data)
        client.leave()
        client.protocol = None
        assert countParsers() == before
    finally:
        gc.enable()


def countParsers():
    return sum(isinstance(each, FrameProtocol) for each in gc.get_objects())


def test_aPeerThatDoesNotAnswerACloseIsAborted(clock, factory, site):
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


def test_aHEADForAWebSocketIsAnsweredAsAnyOther(factory, site):
    Publisher(factory)
    client = Getter(site, "/live/key.flv", "HEAD", upgrade="websocket")
    assert client.status == 200
    assert isinstance(client.h11.their_state, type(h11.IDLE)) or client.complete
