"""Over a real socket: Twisted's own client by WebSocket, and half-closed ones."""

from __future__ import annotations

import pytest
import pytest_twisted
from httpclient import FLV
from publisherkit import StubPublisher
from rtmpclient import AVC_HEADER, AVC_KEY_FRAME, DATA, VIDEO
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    connectProtocol,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.websocket import WebSocketClientEndpoint

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.web import HTTPSite
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.messages import Message

METADATA = amf0.encode("onMetaData", {"videocodecid": 7.0})


class Publisher(StubPublisher):
    """A publisher within the process."""

    def __init__(self, factory):
        super().__init__()
        self._factory = factory
        self._stream = factory.registry.publish("live", "key", self)

    def send(self):
        for typeId, time, payload in MESSAGES:
            self._stream.messageReceived(Message(typeId, time, 1, payload))

    def leave(self):
        self._factory.registry.unpublish(self._stream, self)


MESSAGES = [(DATA, 0, METADATA), (VIDEO, 0, AVC_HEADER)]
MESSAGES += [(VIDEO, time, AVC_KEY_FRAME) for time in range(0, 4000, 40)]


class Listening:
    """A site on a port of the system's choice."""

    def __init__(self, reactor):
        self.factory = RTMPFactory(reactor)
        self.site = HTTPSite(self.factory.registry)
        self._endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")

    async def __aenter__(self):
        self._port = await self._endpoint.listen(self.site)
        self.port = self._port.getHost().port
        self.address = f"127.0.0.1:{self.port}/live/key.flv"
        return self

    async def __aexit__(self, *exception):
        await self._port.stopListening()
        await self.factory.stop()


class SocketClient:
    """A client that gathers messages up to the end."""

    def __init__(self):
        self.flv = FLV()
        self.ended = Deferred()

    def buildProtocol(self, url):
        return self

    def negotiationStarted(self, transport):
        """Do nothing yet."""

    def negotiationFinished(self):
        """Do nothing yet."""

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


class HalfClosed(Protocol):
    """A client that sends a request, closes its own end, and gathers what comes."""

    def __init__(self, request):
        self._request = request
        self.received = b""
        self.ended = Deferred()

    def connectionMade(self):
        self.transport.write(self._request)
        self.transport.loseWriteConnection()

    def dataReceived(self, data):
        self.received += data

    def connectionLost(self, reason=connectionDone):
        self.ended.callback(None)


class Late(Resource):
    """A resource that answers when it is told to."""

    isLeaf = True

    def __init__(self):
        Resource.__init__(self)
        self.asked = Deferred()

    def render(self, request):
        self.asked.callback(request)
        return NOT_DONE_YET


def halfClosed(reactor, listening, request):
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", listening.port)
    return connectProtocol(endpoint, HalfClosed(request))


@pytest_twisted.ensureDeferred
async def test_aPeerThatSendsNoMoreGetsTheAnswers(reactor):
    head = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
    late = Late()
    async with Listening(reactor) as listening:
        listening.site.root.putChild(b"late", late)
        client = await halfClosed(reactor, listening, head * 3)
        await client.ended
        assert client.received.count(b"HTTP/1.1 404 ") == 3
        client = await halfClosed(reactor, listening, head.replace(b"/ ", b"/late "))
        request = await late.asked
        request.finish()
        await client.ended
        assert client.received.startswith(b"HTTP/1.1 200 ")
        client = await halfClosed(reactor, listening, head[:10])
        await client.ended


@pytest_twisted.ensureDeferred
async def test_aPlayerThatSendsNoMoreHasLeft(reactor):
    changes = []
    async with Listening(reactor) as listening:
        listening.factory.playersChanged.append(lambda *change: changes.append(change))
        request = b"GET /live/key.flv HTTP/1.1\r\nHost: a\r\n\r\n"
        client = await halfClosed(reactor, listening, request)
        await client.ended
    assert changes == [("live", "key", 1), ("live", "key", 0)]
