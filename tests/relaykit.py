"""
A server in memory with relays, and the other servers that they reach.

Other servers are scripted ones, or whole servers of the same kind, by host name; what
is not there refuses the connection.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from typing import Any

from clientkit import HalfCloseableTransport, Outcome, ScriptedServer, pumpAll
from feeding import CollectingSink
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
    MemoryTransport,
)
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from zope.interface import implementer

from twisted_rtmp.client import RTMPURL, ClientLimits, commands, connectRTMP
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.relay import PullRelay, PushRelays
from twisted_rtmp.relay.base import Relay
from twisted_rtmp.relay.states import RelayState
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.messages import Message

RECONNECT = "NetConnection.Connect.ReconnectRequest"

METADATA = amf0.encode("onMetaData", {"width": 2.0})
SET_METADATA = amf0.encode("@setDataFrame", "onMetaData", {"width": 2.0})


class Bridge:
    """A connection of one of our clients to a whole server in memory."""

    def __init__(self, client: Any, factory: RTMPFactory, clock: Clock) -> None:
        self.address = IPv4Address("TCP", "198.51.100.9", 50_000)
        self.protocol = client
        self.transport = HalfCloseableTransport(clock, self)
        self._far = _FarEnd(factory, clock)
        self._toClient = bytearray()
        self._toServer = bytearray()
        client.makeConnection(self.transport)
        self._pumping = False
        clock.callLater(0, self.pump)

    @property
    def open(self) -> bool:
        return not self.transport.disconnected and not self._far.transport.disconnected

    def pump(self) -> bool:
        """
        Carry bytes both ways.

        @return: whether there were any.
        """
        if self._pumping:
            return False
        self._pumping = True
        near, far = self.transport, self._far.transport
        moved = True
        some = False
        while moved:
            moved = False
            self._toServer += near.deliver()
            if self._toServer and far.reading and not far.disconnected:
                data = bytes(self._toServer)
                self._toServer.clear()
                self._far.protocol.dataReceived(data)
                moved = True
            self._toClient += far.deliver()
            if self._toClient and near.reading and not near.disconnected:
                data = bytes(self._toClient)
                self._toClient.clear()
                self.protocol.dataReceived(data)
                moved = True
            some = some or moved
        if (near.disconnected or near.halfClosed) and not self._toServer:
            far.lose(ConnectionDone())
        if far.disconnected and not self._toClient:
            near.lose(ConnectionDone())
        self._pumping = False
        return some


class _FarEnd:
    def __init__(self, factory: RTMPFactory, clock: Clock) -> None:
        self.address = IPv4Address("TCP", "198.51.100.9", 50_000)
        self.transport = MemoryTransport(clock, self)
        self.protocol: Any = factory.buildProtocol(self.address)
        self.protocol.makeConnection(self.transport)


class Network:
    """
    Where relays connect to.

    @ivar answers: what scripted servers answer, by host.
    @ivar factories: whole servers, by host.
    @ivar errors: why a host cannot be reached, by host.
    @ivar servers: all scripted connections, in order.
    @ivar bridges: all connections to whole servers, in order.
    @ivar urls: what was connected to, in order.
    @ivar encoders: connections of others that need carrying, too.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.answers: dict[str, dict[str, Callable[..., Any]]] = {}
        self.factories: dict[str, RTMPFactory] = {}
        self.errors: dict[str, Exception] = {}
        self.servers: list[ScriptedServer] = []
        self.bridges: list[Bridge] = []
        self.urls: list[Any] = []
        self.encoders: list[Client] = []

    def scripted(self, host: str, **answers: Callable[..., Any]) -> None:
        """Let a scripted server be at a host."""
        self.answers[host] = answers

    def connect(self, reactor: Any, url: Any, **settings: Any) -> Deferred[Any]:
        return connectRTMP(reactor, url, endpoint=self._endpointFor, **settings)

    def _endpointFor(self, url: Any) -> _Endpoint:
        self.urls.append(url)
        return _Endpoint(self, url.host)

    def pump(self) -> None:
        """Carry all bytes that are under way."""
        for _ in range(100):
            pumpAll()
            for encoder in self.encoders:
                encoder.pump()
            moved = [bridge.pump() for bridge in list(self.bridges)]
            self.clock.advance(0)
            if not any(moved):
                return
        raise AssertionError("it never comes to rest")


@implementer(IStreamClientEndpoint)
class _Endpoint:
    def __init__(self, network: Network, host: str) -> None:
        self._network = network
        self._host = host

    def connect(self, factory: Any) -> Deferred[Any]:
        network, host = self._network, self._host
        if host in network.errors:
            return fail(network.errors[host])
        protocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1935))
        if host in network.answers:
            network.servers.append(
                ScriptedServer(protocol, network.clock, **network.answers[host])
            )
        elif host in network.factories:
            network.bridges.append(
                Bridge(protocol, network.factories[host], network.clock)
            )
        else:
            return fail(ConnectError(string="it is not there"))
        return succeed(protocol)


class Studio:
    """
    A server in memory, its network, and an encoder that publishes to it.

    @ivar sent: what the encoder has sent since it began: type, time, payload.
    """

    def __init__(self, **options: Any) -> None:
        # Encoders of tests send nothing while time passes.
        options.setdefault("limits", ServerLimits(publisherIdleSeconds=600))
        self.clock = Clock()
        self.clock.advance(1000)
        self.network = Network(self.clock)
        self.sinks: list[CollectingSink] = []
        self.factory = RTMPFactory(self.clock, **options)
        self.factory.streamStarted.append(self._started)
        self.encoders: dict[str, Client] = {}
        self.sent: list[tuple[int, int, bytes]] = []

    def _started(self, stream: Any) -> None:
        self.sinks.append(CollectingSink(stream))
        stream.addSink(self.sinks[-1])

    def begin(self, name: str = "key", app: str = "live") -> Client:
        """An encoder publishes, and sends its headers."""
        encoder = Client(self.factory)
        self.encoders[name] = encoder
        self.network.encoders.append(encoder)
        encoder.publish(name, app)
        self.sent = []
        self.send(DATA, 0, METADATA, name)
        self.send(VIDEO, 0, AVC_HEADER, name)
        self.send(AUDIO, 0, AAC_HEADER, name)
        return encoder

    def send(self, typeId: int, time: int, payload: bytes, name: str = "key") -> None:
        self.encoders[name].media(typeId, payload, time)
        self.sent.append((typeId, time, payload))
        self.network.pump()

    def gop(self, time: int, name: str = "key", more: bytes = b"") -> None:
        """A key frame and two frames, with audio."""
        self.send(VIDEO, time, AVC_KEY_FRAME + more, name)
        self.send(AUDIO, time + 10, AAC_FRAME, name)
        self.send(VIDEO, time + 33, AVC_FRAME + more, name)
        self.send(VIDEO, time + 66, AVC_FRAME + more, name)

    def leave(self, name: str = "key") -> None:
        """The encoder leaves."""
        encoder = self.encoders.pop(name)
        self.network.encoders.remove(encoder)
        encoder.leave()
        self.network.pump()

    def advance(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass, with the encoders still there."""
        self.network.pump()
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            self.network.pump()
            seconds -= step

    def until(self, relay: Relay, state: RelayState, seconds: float = 40.0) -> None:
        """Let time pass until a relay is in a state."""
        self.network.pump()
        while relay.state is not state:
            assert seconds > 0, f"{relay.label} is {relay.state}: {relay.why}"
            self.clock.advance(0.25)
            self.network.pump()
            seconds -= 0.25

    def settle(self) -> None:
        """Let everything that is under way end, so that nothing is left."""
        stopped = self.factory.stop()
        self.advance(30, 1)
        assert stopped.called


class Moving(Studio):
    """A server with relays, whose other ends ask them to move."""

    def relays(self, service):
        self.service = service
        service.startService()
        self.network.pump()
        return service

    def pushing(self, url="rtmp://a/there/s3cret"):
        service = PushRelays(
            self.clock, self.factory.registry, [url], connect=self.network.connect
        )
        return self.relays(service)

    def pulling(self, url="rtmp://a/there/s3cret"):
        service = PullRelay(
            self.clock,
            self.factory.registry,
            "live",
            "key",
            url,
            connect=self.network.connect,
        )
        return self.relays(service).pull

    def server(self, host):
        """The newest connection to a scripted server."""
        self.network.pump()
        servers = self.network.servers
        return [s for s in servers if s.protocol.url.host == host][-1]

    def ask(self, host, **properties):
        self.server(host).status(RECONNECT, 0, **properties)
        self.network.pump()

    def hosts(self):
        return [url.host for url in self.network.urls]


class Running(Moving):
    """A command that is run against servers in memory."""

    def __init__(self, monkeypatch, kind, **options):
        super().__init__()
        self.errors = io.StringIO()
        monkeypatch.setattr(sys, "stderr", self.errors)
        monkeypatch.setattr(commands, "connectRTMP", self._connect)
        values = {
            "url": RTMPURL.parse("rtmp://a/there/s3cret"),
            "endpoint": None,
            "tlsOptions": None,
            "ca": None,
            "limits": ClientLimits(),
            "duration": None,
            "overwrite": True,
            "loop": False,
            "speed": 1.0,
            **options,
        }
        self.clock.stop = lambda: None
        self.command = kind(self.clock, argparse.Namespace(**values))

    def _connect(self, reactor, url, *, endpoint, tlsOptions, limits):
        assert endpoint is None
        assert tlsOptions is None
        return self.network.connect(reactor, url, limits=limits)

    def start(self):
        self.outcome = Outcome(Deferred.fromCoroutine(self.command.run()))
        self.network.pump()

    def finish(self):
        """Let all servers close that are left, and the command end."""
        for _ in range(3):
            for server in self.network.servers:
                if server.open and server.transport.halfClosed:
                    server.close()
            self.advance(0.25)
        return self.outcome.result


def published(server: ScriptedServer) -> list[tuple[int, int, bytes]]:
    """List what a scripted server got of a publication, as the encoder sent it."""
    server.pump()
    return [
        (m.typeId, m.timestamp, METADATA if m.payload == SET_METADATA else m.payload)
        for m in server.messages
    ]


def collected(sink: CollectingSink) -> list[tuple[int, int, bytes]]:
    """List what a stream's sink got."""
    return [(typeId, time, payload) for typeId, _, time, payload in sink.messages]


def message(typeId: int, time: int, payload: bytes) -> Message:
    return Message(typeId, time, 1, payload)
