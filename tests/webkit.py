"""Publishers and players for tests of FLV over HTTP and WebSocket."""

from __future__ import annotations

import pytest
from httpclient import Getter, Socket
from rtmpclient import AAC_HEADER, AUDIO, AVC_HEADER, AVC_KEY_FRAME, DATA, VIDEO, Client
from zope.interface import implementer

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import IAuthorizer
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.web import HTTPSite
from twisted_rtmp.wire import amf0

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
def factory(clock):
    # Publishers that say nothing while tests wait for players.
    return RTMPFactory(clock, latency=0, limits=ServerLimits(publisherIdleSeconds=1000))


@pytest.fixture
def site(clock, factory):
    return HTTPSite(factory.registry)


class Publisher(Client):
    """A publisher whose messages the server has passed on at once."""

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
    """Responses and WebSockets, used in the same way."""

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
        """Give the status and text with which an allowed player got no stream."""
        client.pump()
        if isinstance(client, Getter):
            return client.status, client.text
        return client.closed - 4000, client.reason

    @staticmethod
    def ended(client):
        """Tell whether the player was told of the end and its connection closed."""
        client.pump()
        told = client.complete if isinstance(client, Getter) else client.closed == 1000
        return told and client.transport.disconnected


@pytest.fixture(params=[Getter, Socket], ids=["response", "socket"])
def play(request):
    return Answers(request.param)


@implementer(IAuthorizer)
class Authorizer:
    """An authorizer that says what it is told to say."""

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


def flagsOf(client):
    client.pump()
    reader = client.flv.reader
    return reader.hasAudio, reader.hasVideo
