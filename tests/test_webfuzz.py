"""
Mutated requests and WebSocket frames: nothing is logged as a failure, and nothing is
left of them.
"""

from __future__ import annotations

import random

from fuzzkit import SEED, SESSION_COUNT, webSession
from httpclient import Connection
from rtmpclient import AVC_FRAME, AVC_HEADER, AVC_KEY_FRAME, VIDEO, Client
from twisted.internet.task import Clock

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.web import HTTPSite

#: A fifth of those by RTMP: a session takes a millisecond.
WEB_SESSION_COUNT = SESSION_COUNT // 5


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
    for _ in range(WEB_SESSION_COUNT):
        data = webSession(generator)
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
