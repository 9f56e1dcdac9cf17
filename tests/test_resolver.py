"""Hosts are looked up in threads that nothing waits for."""

from __future__ import annotations

import signal
import sys
import threading
from socket import AF_INET, AF_INET6, EAI_NONAME, SOCK_STREAM, gaierror

import pytest
import pytest_twisted
from serverprocess import TWISTD, Server
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IHostnameResolver, IResolutionReceiver
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_rtmp import resolver as resolving
from twisted_rtmp.resolver import RESOLVER_THREADS, HostResolver, installResolver

#: A resolver of the system that never answers.
SILENT = (
    "import socket, threading;"
    "socket.getaddrinfo = lambda *arguments: threading.Event().wait();"
)


@implementer(IResolutionReceiver)
class Receiver:
    """Waits for addresses."""

    def __init__(self):
        self.name = None
        self.addresses = []
        self.complete = Deferred()

    def resolutionBegan(self, resolution):
        self.name = resolution.name
        resolution.cancel()

    def addressResolved(self, address):
        self.addresses.append(address)

    def resolutionComplete(self):
        self.complete.callback(self.addresses)


class System:
    """The system's resolver: it answers when the test lets it."""

    def __init__(self, monkeypatch):
        self.asked = []
        self.go = threading.Event()
        self.go.set()
        monkeypatch.setattr(resolving, "getaddrinfo", self)

    def __call__(self, host, port, family, kind):
        self.asked.append(host)
        self.go.wait()
        if host == "nowhere.test":
            raise gaierror(EAI_NONAME, "no such host")
        if len(host) > 63:
            raise UnicodeError("label too long")
        return [
            (AF_INET, SOCK_STREAM, 6, "", ("192.0.2.1", port)),
            (AF_INET6, SOCK_STREAM, 6, "", ("2001:db8::1", port, 0, 0)),
            (99, SOCK_STREAM, 6, "", ("another", "family")),
        ]


@pytest.fixture
def system(monkeypatch):
    return System(monkeypatch)


@pytest.fixture
def resolver():
    from twisted.internet import reactor

    return HostResolver(reactor)


def resolve(resolver, host, *arguments):
    receiver = Receiver()
    resolver.resolveHostName(receiver, host, 1935, *arguments)
    assert receiver.name == host
    return receiver.complete


BOTH = [
    IPv4Address("TCP", "192.0.2.1", 1935),
    IPv6Address("TCP", "2001:db8::1", 1935, 0, 0),
]


@pytest_twisted.ensureDeferred
async def test_names(system, resolver):
    assert verifyObject(IHostnameResolver, resolver)
    assert await resolve(resolver, "somewhere.test") == BOTH
    assert await resolve(resolver, "nowhere.test") == []
    assert await resolve(resolver, "x" * 70) == []


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.7", IPv4Address("TCP", "192.0.2.7", 1935)),
        ("2001:db8::7", IPv6Address("TCP", "2001:db8::7", 1935)),
    ],
)
def test_addressesAreNotLookedUp(system, resolver, host, address):
    found = []
    resolve(resolver, host).addCallback(found.append)
    assert found == [[address]]
    assert system.asked == []


@pytest_twisted.ensureDeferred
async def test_aHostIsLookedUpOnceAtATime(system, resolver):
    """Those who ask while no name server answers are not queued one by one."""
    system.go.clear()
    waiting = [resolve(resolver, "somewhere.test") for _ in range(100)]
    system.go.set()
    assert await gatherResults(waiting) == [BOTH] * 100
    assert system.asked == ["somewhere.test"]
    await resolve(resolver, "somewhere.test")
    assert len(system.asked) == 2


@pytest_twisted.ensureDeferred
async def test_addressesNeedNoThread(system, resolver):
    system.go.clear()
    hosts = [f"{number}.test" for number in range(RESOLVER_THREADS + 1)]
    waiting = [resolve(resolver, host) for host in hosts]
    assert len(await resolve(resolver, "127.0.0.1")) == 1
    system.go.set()
    await gatherResults(waiting)


@pytest_twisted.ensureDeferred
async def test_anEndpointUsesIt(system):
    from twisted.internet import reactor

    before = reactor.nameResolver
    installResolver(reactor)
    try:
        endpoint = HostnameEndpoint(reactor, "nowhere.test", 1935)
        with pytest.raises(DNSLookupError):
            await endpoint.connect(Factory())
    finally:
        reactor.installNameResolver(before)
    assert system.asked == ["nowhere.test"]


def test_aReactorThatCannotBeToldIsLeftAlone():
    installResolver(object())
    reactor = MemoryReactorClock()
    installResolver(reactor)
    assert isinstance(reactor.nameResolver, HostResolver)


# Processes whose name servers do not answer


@pytest.mark.parametrize("scheme", ["rtmp", "rtmps"])
def test_aServerEndsWhileAHostIsLookedUp(scheme, tmp_path):
    command = [sys.executable, "-c", SILENT + TWISTD, "-n", "rtmp", "--no-record"]
    command += ["--listen", "tcp:0:interface=127.0.0.1"]
    command += ["--pull", f"live/a={scheme}://b.test/live/a"]
    with Server(command, tmp_path) as server:
        server.expect("pull of live/a from .*: connecting")
        server.port()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_aClientEndsWhileAHostIsLookedUp(tmp_path):
    code = f"{SILENT} from twisted_rtmp.client.__main__ import main; main()"
    arguments = ["play", "--timeout", "0.1", "rtmp://b.test/live/a", "out.flv"]
    with Server([sys.executable, "-c", code, *arguments], tmp_path) as client:
        assert client.wait() == 1
        assert "Waited 0.1 s" in client.output
