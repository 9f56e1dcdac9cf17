"""Twisted's own client by WebSocket, over a real socket."""

from __future__ import annotations

import pytest
import pytest_twisted
from httpclient import FLV
from rtmpclient import AVC_HEADER, AVC_KEY_FRAME, DATA, VIDEO
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.websocket import WebSocketClientEndpoint

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.web import HTTPSite
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.messages import Message

METADATA = amf0.encode("onMetaData", {"videocodecid": 7.0})


class Publisher:
    """Publishes within the process."""

    peer = "here"
    host = ""
    heard = 0.0
    unread = False

    def __init__(self, factory):
        self.connection = self
        self._factory = factory
        self._stream = factory.registry.publish("live", "key", self)

    def send(self):
        for typeId, time, payload in MESSAGES:
            self._stream.messageReceived(Message(typeId, time, 1, payload))

    def leave(self):
        self._factory.registry.unpublish(self._stream, self)

    def pauseProducing(self):
        """Nothing holds it."""

    def resumeProducing(self):
        """Nothing has held it."""

    def takenOver(self):
        """Nobody does."""


MESSAGES = [(DATA, 0, METADATA), (VIDEO, 0, AVC_HEADER)]
MESSAGES += [(VIDEO, time, AVC_KEY_FRAME) for time in range(0, 4000, 40)]


class Listening:
    """A site on a port of the system's choice."""

    def __init__(self, reactor):
        self.factory = RTMPFactory(reactor)
        self._site = HTTPSite(reactor, self.factory.registry)
        self._endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")

    async def __aenter__(self):
        self._port = await self._endpoint.listen(self._site)
        self.address = f"127.0.0.1:{self._port.getHost().port}/live/key.flv"
        return self

    async def __aexit__(self, *exception):
        await self._port.stopListening()
        await self.factory.stop()


class SocketClient:
    """Gathers messages up to the end."""

    def __init__(self):
        self.flv = FLV()
        self.ended = Deferred()

    def buildProtocol(self, url):
        return self

    def negotiationStarted(self, transport):
        """The connection is there."""

    def negotiationFinished(self):
        """The WebSocket is there."""

    def pongReceived(self, payload):
        raise AssertionError("nobody asked")

    def textMessageReceived(self, message):
        raise AssertionError(message)

    def bytesMessageReceived(self, data):
        self.flv.feed(bytes(data))

    def connectionLost(self, reason):
        self.ended.callback(None)


@pytest.fixture
def reactor():
    from twisted.internet import reactor

    return reactor


@pytest_twisted.ensureDeferred
async def test_twistedsWebSocket(reactor):
    client = SocketClient()
    async with Listening(reactor) as listening:
        endpoint = WebSocketClientEndpoint.new(reactor, f"ws://{listening.address}")
        # It is there before its stream.
        await endpoint.connect(client)
        publisher = Publisher(listening.factory)
        publisher.send()
        publisher.leave()
        await client.ended
    assert client.flv.tags == MESSAGES
