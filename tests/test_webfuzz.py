"""
Mutated requests and WebSocket frames, and requests put together of odd parts: nothing
is logged as a failure or answered as one, and nothing is left of them.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from fuzzkit import FRAMES, SEED, SESSION_COUNT, UPGRADE, webSession
from httpclient import Connection
from multitrackkit import OFFER
from rtmpclient import AVC_FRAME, AVC_HEADER, AVC_KEY_FRAME, VIDEO, Client
from twisted.internet.task import Clock

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.multitrack.offers import OfferFile
from twisted_rtmp.multitrack.resource import MULTITRACK_PATH, MultitrackResource
from twisted_rtmp.web import HTTPSite

#: A fifth of those by RTMP: a session takes a millisecond.
WEB_SESSION_COUNT = SESSION_COUNT // 5

METHODS = (b"GET", b"HEAD", b"POST", b"OPTIONS", b"PUT", b"get", b"\xff", b"GE\0T", b"")

PATHS = (
    b"*",
    b"/",
    b"//",
    b"/%",
    b"/..%2f.flv",
    b"/%00.flv",
    b"/live/%ed%a0%80.flv",
    b"/\xb0\xa0.flv",
    b"/live/key.flv",
    b"/live/key.flv?token=%ff&tracks=all",
    b"/live/key.flv?track=-1&audio=\xb2&video=" + b"9" * 5000,
    b"/live/key.flv?" + b"&".join([b"a=%"] * 500),
    b"/" + b"a/" * 2000 + b"k.flv",
    b"http://example.org/live/key.flv",
    b"/multitrack-config",
    b"/multitrack-config?%",
)

VERSIONS = (*[b"HTTP/1.1"] * 8, b"HTTP/1.0", b"HTTP/2.0", b"", b"http/1.1")

#: All that are looked at, and one that is not.
HEADERS = (
    b"Access-Control-Request-Headers Authorization Connection Content-Length"
    b" Content-Type Cookie Expect Forwarded Host Origin Referer Sec-Fetch-Dest"
    b" Sec-Fetch-Mode Sec-Fetch-Site Sec-WebSocket-Extensions Sec-WebSocket-Key"
    b" Sec-WebSocket-Protocol Sec-WebSocket-Version Trailer Transfer-Encoding Upgrade"
    b" User-Agent X-Forwarded-For X-Forwarded-Proto X"
).split()

VALUES = (
    *(b"", b"a", b"\xff", b"\0", b"\r", b"\xc3(", b"\xed\xa0\x80", b"\xa0", b"\xb2"),
    *(b"0", b"5", b"-1", b"+5", b"0x5", b"99999", b"1" * 5000, b"a" * 3000),
    *(b"localhost", b"a.example:80", b"[::1]:80", b"[::1", b"https://a.example"),
    *(b"websocket", b"Upgrade", b"close", b"13", b"14", b"dGhlIHNhbXBsZSBub25jZQ=="),
    *(b"chunked", b"gzip, chunked", b"identity", b"100-continue", b'x; y="'),
    *(b"cross-site", b"navigate", b"document", b"a=b; \xff; =", b"1.2.3.4, 5.6.7.8"),
    *(b"for=1.2.3.4;proto=https", b'for="[::1]:99"', b'for="'),
    *(b"multipart/form-data; boundary=x", b"application/x-www-form-urlencoded"),
)

BODIES = (
    b"",
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5;x=\xff\r\nhello\r\n0\r\nTrailer: \xff\r\n\r\n",
    b"-5\r\n",
    b"F" * 21 + b"\r\n",
    b'{"authentication": "x", "preferences": {"width": 1e400}}',
    b'{"authentication": "\\ud800"}',
    b"[" * 3000,
    b"9" * 5000,
    b'"\xff\0',
    *FRAMES,
)


def oddRequest(generator: random.Random) -> bytes:
    """Put a request together of odd parts."""
    headers = []
    if generator.random() < 0.8:
        headers.append(b"Host: localhost")
    if generator.random() < 0.25:
        headers += UPGRADE.split(b"\r\n")[:-1]
    for _ in range(generator.choice((0, 1, 1, 2, 4))):
        colon = generator.choice((*[b": "] * 6, b":", b" : ", b"", b":\r\n "))
        headers.append(generator.choice(HEADERS) + colon + generator.choice(VALUES))
    body = generator.choice(BODIES)
    if generator.random() < 0.5:
        headers.append(b"Content-Length: %d" % len(body))
    elif generator.random() < 0.3:
        headers.append(b"Transfer-Encoding: chunked")
    line = [generator.choice(each) for each in (METHODS[:5], PATHS, VERSIONS)]
    if generator.random() < 0.2:
        line[0] = generator.choice(METHODS)
    separator = generator.choice((*[b"\r\n"] * 12, b"\n", b"\r\n "))
    return separator.join([b" ".join(line), *headers]) + b"\r\n\r\n" + body


class Fuzzed:
    """A server with two sites, of which one checks origins and believes proxies."""

    def __init__(self, folder: Path, generator: random.Random) -> None:
        self._generator = generator
        self.clock = Clock()
        self.factory = RTMPFactory(
            self.clock, latency=0, limits=ServerLimits(publisherIdleSeconds=1e9)
        )
        path = folder / "offer.json"
        path.write_text(json.dumps(OFFER))
        registry = self.factory.registry
        self.sites = [
            HTTPSite(registry),
            HTTPSite(
                registry,
                origins=["https://a.example"],
                trustedProxies=["198.51.100.0/24"],
            ),
        ]
        for site in self.sites:
            resource = MultitrackResource(
                registry, OfferFile(str(path)), lambda: [("RTMP", 1935)], site.origins
            )
            site.root.putChild(MULTITRACK_PATH, resource)
        self.publisher = Client(self.factory)
        self.publisher.publish()
        self.publisher.media(VIDEO, AVC_HEADER)
        self.publisher.media(VIDEO, AVC_KEY_FRAME)
        self.connections: list[Connection] = []

    def send(self, data: bytes) -> None:
        """Let a peer send data in pieces."""
        generator = self._generator
        connection = Connection(generator.choice(self.sites))
        connection.transport.taking = generator.random() < 0.9
        while data:
            size = generator.choice((1, 7, 100, 10_000))
            connection.sendBytes(data[:size])
            data = data[size:]
            if generator.random() < 0.05:
                self.clock.advance(generator.choice((0.1, 1, 11)))
            if generator.random() < 0.1:
                self.publisher.media(VIDEO, AVC_FRAME)
        self.connections.append(connection)
        if generator.random() < 0.5:
            connection.leave()

    def end(self) -> None:
        """Let all peers leave, and check that nothing is left of them."""
        for connection in self.connections:
            connection.transport.taking = True
            connection.pump()
            if not connection.transport.disconnected:
                connection.leave()
            assert not re.search(rb"HTTP/1\.[01] 5", connection.raw)
        factory = self.factory
        assert set(factory.connections) == {self.publisher.protocol}
        assert factory.players("live", "key") == factory.players("live", "none") == []
        self.publisher.leave()
        self.clock.advance(0)
        assert self.clock.getDelayedCalls() == []


@pytest.fixture
def generator() -> random.Random:
    return random.Random(SEED)


@pytest.fixture
def fuzzed(tmp_path: Path, generator: random.Random) -> Fuzzed:
    return Fuzzed(tmp_path, generator)


def test_mutatedSessions(fuzzed: Fuzzed, generator: random.Random) -> None:
    for _ in range(WEB_SESSION_COUNT):
        fuzzed.send(webSession(generator))
    fuzzed.end()


def test_oddRequests(fuzzed: Fuzzed, generator: random.Random) -> None:
    for _ in range(WEB_SESSION_COUNT):
        count = generator.choice((1, 1, 1, 2, 3))
        fuzzed.send(b"".join(oddRequest(generator) for _ in range(count)))
    fuzzed.end()
