"""Clients behind a proxy: X-Forwarded-For, X-Forwarded-Proto and Forwarded."""

from __future__ import annotations

import pytest
from httpclient import Connection, Getter, Socket
from rtmpclient import decideBy
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.web.http_headers import Headers
from webkit import Answers, Authorizer, Publisher

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import Refused
from twisted_rtmp.limits import AddressLimits, ServerLimits
from twisted_rtmp.web import HTTPSite
from twisted_rtmp.web.forwarded import TrustedProxies

PROXY = IPv4Address("TCP", "127.0.0.1", 40_000)


def found(lines, networks=("127.0.0.1", "10.0.0.0/8", "2001:db8:f::/48"), peer=PROXY):
    """Find a client's address, port and scheme."""
    headers = Headers()
    for name, value in lines:
        headers.addRawHeader(name, value)
    client = TrustedProxies(networks).clientOf(peer, headers)
    return client.address.host, client.address.port, client.scheme


def xff(*values):
    return [("X-Forwarded-For", value) for value in values]


def forwarded(*values):
    return [("Forwarded", value) for value in values]


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (xff("192.0.2.1"), ("192.0.2.1", 0)),
        (xff("192.0.2.1:81"), ("192.0.2.1", 81)),
        (xff("2001:db8::1"), ("2001:db8::1", 0)),
        (xff("[2001:db8::1]"), ("2001:db8::1", 0)),
        (xff("[2001:DB8::1]:4711"), ("2001:db8::1", 4711)),
        (xff("::ffff:192.0.2.1"), ("192.0.2.1", 0)),
        # The rightmost that is not trusted, whatever the client has put before it.
        (xff("198.51.100.1, 192.0.2.1"), ("192.0.2.1", 0)),
        (xff("192.0.2.1, 10.1.2.3 ,10.9.9.9"), ("192.0.2.1", 0)),
        (xff("198.51.100.1", "192.0.2.1", "10.1.2.3"), ("192.0.2.1", 0)),
        (xff("192.0.2.1, 2001:db8:f:1::2"), ("192.0.2.1", 0)),
        (xff("10.0.0.1, 10.0.0.2"), ("10.0.0.1", 0)),
        # What a proxy cannot or will not say, or what is broken.
        (xff("192.0.2.1, unknown"), ("127.0.0.1", 40_000)),
        (xff("192.0.2.1, unknown, 10.0.0.1"), ("10.0.0.1", 0)),
        (xff("192.0.2.1, "), ("127.0.0.1", 40_000)),
        (xff(""), ("127.0.0.1", 40_000)),
        (xff("192.0.2.1:99999"), ("127.0.0.1", 40_000)),
        (xff("192.0.2.256"), ("127.0.0.1", 40_000)),
        (xff("[192.0.2.1"), ("127.0.0.1", 40_000)),
        (xff("example.org"), ("127.0.0.1", 40_000)),
        (xff(b"\xff\xfe, \xff"), ("127.0.0.1", 40_000)),
        (forwarded("for=192.0.2.1"), ("192.0.2.1", 0)),
        (forwarded("For=192.0.2.1;By=10.0.0.1;host=a"), ("192.0.2.1", 0)),
        (forwarded('for="192.0.2.1:81"'), ("192.0.2.1", 81)),
        (forwarded('for="[2001:db8::1]:4711"'), ("2001:db8::1", 4711)),
        (forwarded('for="[2001:db8::1]"'), ("2001:db8::1", 0)),
        (forwarded(r'for="\192.0.2.1"'), ("192.0.2.1", 0)),
        (forwarded("for=198.51.100.1, for=192.0.2.1"), ("192.0.2.1", 0)),
        (forwarded("for=198.51.100.1", "for=192.0.2.1"), ("192.0.2.1", 0)),
        (forwarded("for=192.0.2.1 , for=10.0.0.1"), ("192.0.2.1", 0)),
        (forwarded('for="_hidden"'), ("127.0.0.1", 40_000)),
        (forwarded("for=unknown"), ("127.0.0.1", 40_000)),
        (forwarded("proto=https"), ("127.0.0.1", 40_000)),
        (forwarded("for=192.0.2.1;for=192.0.2.2"), ("127.0.0.1", 40_000)),
        (forwarded("for = 192.0.2.1"), ("127.0.0.1", 40_000)),
        (xff("192.0.2.1" + ",10.0.0.1" * 1500), ("10.0.0.1", 0)),
        (forwarded("for=192.0.2.1," * 1000 + "for=192.0.2.1"), ("127.0.0.1", 40_000)),
        (forwarded(""), ("127.0.0.1", 40_000)),
        (forwarded("nonsense"), ("127.0.0.1", 40_000)),
        # A client's open quotation mark hides nothing but the client.
        (forwarded('for="198.51.100.1, for=192.0.2.1'), ("127.0.0.1", 40_000)),
        (
            forwarded('for=198.51.100.1;a=", for="[2001:db8::1]"'),
            ("127.0.0.1", 40_000),
        ),
        (forwarded('for="198.51.100.1', "for=192.0.2.1"), ("192.0.2.1", 0)),
        # Both, as some proxies send them; and one that may be the client's own.
        (xff("192.0.2.1") + forwarded("for=192.0.2.1"), ("192.0.2.1", 0)),
        (xff("192.0.2.1") + forwarded("for=198.51.100.1"), ("127.0.0.1", 40_000)),
        (xff("192.0.2.1") + forwarded("nonsense"), ("127.0.0.1", 40_000)),
        ([("X-Forwarded-Proto", "https")], ("127.0.0.1", 40_000)),
        ([], ("127.0.0.1", 40_000)),
    ],
)
def test_addresses(lines, client):
    assert found(lines)[:2] == client


@pytest.mark.parametrize(
    ("lines", "scheme"),
    [
        (xff("192.0.2.1"), ""),
        ([*xff("192.0.2.1"), ("X-Forwarded-Proto", "https")], "https"),
        ([*xff("192.0.2.1"), ("X-Forwarded-Proto", "HTTP")], "http"),
        # By the client's own hop.
        ([*xff("192.0.2.1, 10.1.1.1"), ("X-Forwarded-Proto", "https, http")], "https"),
        ([*xff("8.8.8.8, 192.0.2.1"), ("X-Forwarded-Proto", "https, http")], "http"),
        ([*xff("192.0.2.1, 10.1.1.1"), ("X-Forwarded-Proto", "https")], "https"),
        (forwarded("for=192.0.2.1;proto=https"), "https"),
        (forwarded("for=192.0.2.1;proto=https, for=10.1.1.1;proto=http"), "https"),
        (forwarded("for=192.0.2.1, for=10.1.1.1;proto=https"), "https"),
        (forwarded("proto=https"), ""),
    ],
)
def test_schemes(lines, scheme):
    assert found(lines)[2] == scheme


@pytest.mark.parametrize(
    "peer",
    [
        IPv4Address("TCP", "192.0.2.9", 1),
        IPv6Address("TCP", "2001:db8::9", 1),
        UNIXAddress(b"/run/socket"),
        UNIXAddress(None),
        IPv4Address("TCP", "nonsense", 1),
    ],
)
def test_otherPeersAreNotBelieved(peer):
    lines = Headers({"X-Forwarded-For": ["198.51.100.1"]})
    proxies = TrustedProxies(["127.0.0.1", "::1"])
    assert proxies.clientOf(peer, lines) == (peer, "")
    assert TrustedProxies().clientOf(PROXY, lines) == (PROXY, "")


@pytest.mark.parametrize(
    ("network", "peer"),
    [
        ("127.0.0.1", IPv6Address("TCP", "::ffff:127.0.0.1", 1)),
        ("fe80::/10", IPv6Address("TCP", "fe80::1%eth0", 1)),
        ("unix:", UNIXAddress(None)),
        ("127.0.0.1/8", IPv4Address("TCP", "127.9.9.9", 1)),
        # Everybody is one: the leftmost is the client.
        ("0.0.0.0/0", IPv4Address("TCP", "192.0.2.9", 1)),
    ],
)
def test_kindsOfProxies(network, peer):
    assert found(xff("198.51.100.1"), [network], peer)[0] == "198.51.100.1"


@pytest.mark.parametrize("text", ["", "proxy", "10.0.0.0/33", "1.2.3"])
def test_wrongNetworks(text):
    with pytest.raises(ValueError, match="must be an address, a network such as"):
        TrustedProxies([text])


# Requests


@pytest.fixture
def factory(clock):
    return RTMPFactory(clock, latency=0, limits=ServerLimits(publisherIdleSeconds=1000))


@pytest.fixture
def site(clock, factory):
    """A site whose connections all come from a trusted proxy."""
    return HTTPSite(factory.registry, trustedProxies=["198.51.100.0/24"])


@pytest.fixture(params=[Getter, Socket], ids=["response", "socket"])
def play(request):
    return Answers(request.param)


@pytest.mark.parametrize(
    "headers",
    [
        {"x_forwarded_for": "6.6.6.6, 192.0.2.1", "x_forwarded_proto": "https"},
        {"forwarded": "for=6.6.6.6, for=192.0.2.1;proto=https"},
    ],
)
def test_everybodySeesThePeer(factory, site, play, lines, headers):
    authorizer = decideBy(factory, Authorizer())
    publisher = Publisher(factory)
    authorizer.connects.clear()
    client = play(site, **headers)
    assert play.isThere(client)
    [connect] = authorizer.connects
    assert connect.address.host == authorizer.plays[0].address.host == "192.0.2.1"
    assert connect.kind == ("https" if play.kind is Getter else "wss")
    assert connect.properties["tcUrl"].startswith("https://localhost")
    assert any(line.startswith("192.0.2.1 plays live/key") for line in lines)
    assert client.protocol.describe().peer == "192.0.2.1"
    assert client.protocol.describe().kind == connect.kind
    assert factory.registry.addresses.connections("192.0.2.1") == 1
    assert factory.registry.addresses.connections("198.51.100.8") == 0
    client.leave()
    assert factory.registry.addresses.connections("192.0.2.1") == 0
    publisher.leave()


def test_nobodyElseIsBelieved(clock, factory, play):
    authorizer = decideBy(factory, Authorizer())
    site = HTTPSite(factory.registry)
    client = play(site, x_forwarded_for="192.0.2.1", x_forwarded_proto="https")
    [connect] = authorizer.connects
    assert connect.address == client.address
    assert connect.kind == ("http" if play.kind is Getter else "ws")
    assert factory.registry.addresses.connections("198.51.100.8") == 1


def test_eachRequestOfAConnectionIsSomebodyElses(factory, site):
    authorizer = decideBy(factory, Authorizer())
    client = Connection(site)
    addresses = factory.registry.addresses
    head = b"HEAD /live/key.flv HTTP/1.1\r\nHost: a\r\n"
    for line in (
        b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n",
        b"X-Forwarded-For: 192.0.2.2\r\n",
        b"",
        b"Forwarded: for=192.0.2.3\r\n",
    ):
        client.sendBytes(head + line + b"\r\n")
        for number in range(1, 4):
            assert addresses.connections(f"192.0.2.{number}") == 0
    # Together, as pipelining has it.
    lines = [b"X-Forwarded-For: 192.0.2.%d\r\n\r\n" % number for number in (4, 5)]
    client.sendBytes(head + head.join(lines))
    asked = [(connect.address.host, connect.kind) for connect in authorizer.connects]
    assert asked == [
        ("192.0.2.1", "https"),
        ("192.0.2.2", "http"),
        ("198.51.100.8", "http"),
        ("192.0.2.3", "http"),
        ("192.0.2.4", "http"),
        ("192.0.2.5", "http"),
    ]
    assert client.raw.count(b"HTTP/1.1 404 ") == len(asked)
    client.leave()
    assert not any(addresses.connections(host) for host, _ in asked)


def test_theLimitsAreThePeers(clock):
    limits = ServerLimits(connections=4, addresses=AddressLimits(connectionShare=0.5))
    factory = RTMPFactory(clock, limits=limits)
    site = HTTPSite(factory.registry, trustedProxies=["198.51.100.8"])
    players = [
        Getter(site, "/live/key.flv", x_forwarded_for="192.0.2.1") for _ in range(3)
    ]
    assert [player.status for player in players] == [0, 0, 503]
    assert players[2].transport.disconnected
    assert factory.counters.turnedAway == 1
    assert len(factory.connections) == 2
    other = Getter(site, "/live/key.flv", "HEAD", x_forwarded_for="192.0.2.2")
    assert other.status == 404
    # The proxy has room for one more of anybody.
    assert not Connection(site).turnedAway


def test_refusalsSlowTheirOwnPeerDown(clock, factory, site):
    """Guesses through a proxy count for the client that guesses."""
    authorizer = decideBy(factory, Authorizer())
    authorizer.playAnswer = Refused()
    limits = factory.limits.addresses
    guesses = [
        Getter(site, "/live/key.flv", "HEAD", x_forwarded_for="192.0.2.1")
        for _ in range(int(limits.refusalBurst) * 2)
    ]
    assert {guess.status for guess in guesses} == {403, 0}
    other = Getter(site, "/live/key.flv", "HEAD", x_forwarded_for="192.0.2.2")
    assert other.status == 403
    clock.pump([1 / limits.refusalRate] * len(guesses))
    for guess in guesses:
        guess.pump()
    assert {guess.status for guess in guesses} == {403}
