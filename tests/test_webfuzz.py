"""
Mutated requests and WebSocket frames: nothing is logged as a failure, and nothing is
left of them.

The environment sets how many sessions and the seed, as for C{test_fuzz}.
"""

from __future__ import annotations

import os
import random

from httpclient import Connection
from rtmpclient import AVC_FRAME, AVC_HEADER, AVC_KEY_FRAME, VIDEO, Client
from twisted.internet.task import Clock

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.web import HTTPSite

SEED = os.environ.get("RTMP_FUZZ_SEED", "1")

#: A fifth of those by RTMP: a session takes a millisecond.
SESSION_COUNT = int(os.environ.get("RTMP_FUZZ_SESSIONS", "10000")) // 5

UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)

#: What sessions are made of.
PARTS = (
    b"GET /live/key.flv HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /live/key.flv?x=%20 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /live/key.flv HTTP/1.1\r\nHost: a\r\n" + UPGRADE + b"\r\n",
    b"GET /live/none.flv HTTP/1.1\r\nHost: a\r\n" + UPGRADE + b"\r\n",
    b"GET /live/none.flv HTTP/1.0\r\n\r\n",
    b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    b"OPTIONS /live/key.flv HTTP/1.1\r\nOrigin: http://a\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\n\r\n",
)

#: A ping, a text, the two halves of a message, a close.
FRAMES = (
    b"\x89\x84abcdping",
    b"\x81\x85\0\0\0\0hello",
    b"\x02\x82abcd\x01\x02",
    b"\x80\x82abcd\x03\x04",
    b"\x88\x82\0\0\0\0\x03\xe8",
)


def mutated(data: bytearray, generator: random.Random) -> bytes:
    """The same with some bytes changed, put in, taken out, or copied."""
    for _ in range(generator.choice((0, 1, 1, 2, 5, 20))):
        at = generator.randrange(len(data))
        kind = generator.randrange(4)
        if kind == 0:
            data[at] = generator.randrange(256)
        elif kind == 1:
            data[at:at] = generator.randbytes(generator.randint(1, 10))
        elif kind == 2 and len(data) > 40:
            del data[at : at + generator.randint(1, 20)]
        else:
            start = generator.randrange(len(data))
            data[at:at] = data[start : start + generator.randint(1, 60)]
    return bytes(data)


def test_mutatedSessions() -> None:
    generator = random.Random(SEED)
    clock = Clock()
    factory = RTMPFactory(
        clock, latency=0, limits=ServerLimits(publisherIdleSeconds=1e9)
    )
    site = HTTPSite(clock, factory.registry)
    publisher = Client(factory)
    publisher.publish()
    publisher.media(VIDEO, AVC_HEADER)
    publisher.media(VIDEO, AVC_KEY_FRAME)
    connections = []
    for _ in range(SESSION_COUNT):
        parts = generator.choices(PARTS, k=generator.randint(1, 2))
        parts += generator.choices(FRAMES, k=generator.randint(0, 5))
        data = mutated(bytearray(b"".join(parts)), generator)
        connection = Connection(site)
        connection.transport.taking = generator.random() < 0.9
        while data:
            size = generator.choice((1, 7, 100, 10_000))
            connection.sendBytes(data[:size])
            data = data[size:]
            if generator.random() < 0.05:
                clock.advance(generator.choice((0.1, 1, 11)))
            if generator.random() < 0.1:
                publisher.media(VIDEO, AVC_FRAME)
        if generator.random() < 0.5:
            connection.leave()
        else:
            connections.append(connection)
    for connection in connections:
        connection.transport.taking = True
        connection.pump()
        if not connection.transport.disconnected:
            connection.leave()
    assert set(factory.connections) == {publisher.protocol}
    assert factory.players("live", "key") == factory.players("live", "none") == []
    publisher.leave()
    clock.advance(0)
    assert clock.getDelayedCalls() == []
