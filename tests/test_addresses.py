"""Limits for each address, by whatever protocol its connections come."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from httpclient import Getter
from protocolkit import START, Ask
from rtmpclient import Client
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twisted_rtmp.auth import AllowList
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.limits import AddressLimits, ServerLimits
from twisted_rtmp.live.addresses import Addresses, hostOf
from twisted_rtmp.web import HTTPSite


@pytest.fixture
def clock() -> Clock:
    return Clock()


def serving(clock: Clock, *, connections: int = 100, authorizer: Any = None, **bounds):
    """A server with bounds for each address."""
    limits = ServerLimits(connections=connections, addresses=AddressLimits(**bounds))
    return RTMPFactory(clock, limits=limits, authorizer=authorizer)


def at(factory, host: str) -> Client:
    """A client that comes from an address."""

    class Elsewhere(Client):
        @property
        def address(self):
            return self._address

        @address.setter
        def address(self, address):
            kind = IPv6Address if ":" in host else IPv4Address
            self._address = kind("TCP", host, address.port)

    return Elsewhere(factory)


@pytest.mark.parametrize(
    ("address", "host"),
    [
        (IPv4Address("TCP", "192.0.2.1", 1), "192.0.2.1"),
        (IPv6Address("TCP", "2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (IPv6Address("TCP", "2001:db8:1:2:ffff::", 1), "2001:db8:1:2::/64"),
        (IPv6Address("TCP", "fe80::1%eth0", 1), "fe80::/64"),
        (IPv6Address("TCP", "::ffff:192.0.2.1", 1), "192.0.2.1"),
        (UNIXAddress("/run/rtmp"), ""),
        (None, ""),
        (SimpleNamespace(host="nonsense:"), "nonsense:"),
    ],
)
def test_hosts(address, host):
    assert hostOf(address) == host


# Connections


@pytest.mark.parametrize(
    ("crowd", "other"),
    [
        (["192.0.2.1"] * 4, "192.0.2.2"),
        ([f"2001:db8:0:1::{n}" for n in range(4)], "2001:db8:0:2::1"),
    ],
    ids=["IPv4", "IPv6"],
)
def test_oneAddressNeverTakesAllPlaces(clock, lines, crowd, other):
    factory = serving(clock, connections=4)
    clients = [at(factory, host) for host in crowd]
    assert [client.turnedAway for client in clients] == [False] * 3 + [True]
    assert not at(factory, other).turnedAway
    assert any("3 are open from" in line for line in lines)
    clients[0].leave()
    assert not at(factory, crowd[0]).turnedAway, "there is one place again"


def test_anAddressCountsWhateverItSpeaks(clock):
    factory = serving(clock, connections=4)
    site = HTTPSite(factory.registry)
    here = "198.51.100.7"  # of every test's client
    clients = [Client(factory) for _ in range(3)]
    assert factory.registry.addresses.connections(here) == 3
    channel = site.buildProtocol(IPv4Address("TCP", here, 1))
    assert channel is None
    for client in clients:
        client.leave()
    assert factory.registry.addresses.connections(here) == 0


def test_theAddressBehindAProxyCounts(clock):
    factory = serving(clock, connections=8)
    addresses = factory.registry.addresses
    client = Client(factory)
    client.address = IPv4Address("TCP", "192.0.2.77", 1000)  # as the proxy says now
    client.connect()
    assert client.protocol.peer == "192.0.2.77:1000"
    assert addresses.connections("192.0.2.77") == 1
    assert addresses.connections("198.51.100.7") == 0
    [request] = [client.protocol.describe()]
    assert request.peer == "192.0.2.77:1000"
    client.leave()
    assert addresses.connections("192.0.2.77") == 0


def test_addressesAreForgotten(clock):
    addresses = Addresses(clock, AddressLimits(addresses=10))
    addresses.opened("kept", 5)
    for number in range(1000):
        addresses.opened(str(number), 5)
        addresses.closed(str(number))
    assert len(addresses) == 10
    assert addresses.connections("kept") == 1


# Publishes and plays


def test_publishesAreCounted(clock):
    factory = serving(clock, publishBurst=3, publishRate=1.0)
    clients = []
    for name in "abcd":
        clients.append(Client(factory))
        clients[-1].publish(name)
    assert [START in client.codes() for client in clients] == [True] * 3 + [False]
    other = at(factory, "192.0.2.2")
    other.publish("e")
    assert START in other.codes()
    clock.advance(1)
    again = Client(factory)
    again.publish("d")
    assert START in again.codes()


def test_playsAreCounted(clock):
    factory = serving(clock, playBurst=2, playRate=1.0)
    site = HTTPSite(factory.registry)
    targets = [Getter(site, f"/live/{name}.flv") for name in "abc"]
    for target in targets:
        target.pump()
    assert [target.status for target in targets] == [0, 0, 403]


# Guesses


def guess(factory, key="wrong"):
    client = Client(factory)
    client.publish(key)
    return client


def test_guessesAreSlowedDown(clock):
    factory = serving(clock, authorizer=AllowList(["live"], {"right": "stage"}))
    limits = factory.limits.addresses
    clients = [guess(factory) for _ in range(limits.refusalBurst + 50)]

    def told() -> int:
        for client in clients:
            client.pump()
        return sum(client.transport.disconnected for client in clients)

    assert told() == limits.refusalBurst
    # The right one would wait as well, so that nothing is learnt from that.
    late = guess(factory, "right")
    late.pump()
    assert factory.streams == {}
    elsewhere = at(factory, "192.0.2.2")
    elsewhere.publish("right")
    assert START in elsewhere.codes()
    elsewhere.leave()
    before = told()
    for _ in range(5):
        clock.advance(1)
        now = told()
        assert now - before <= 20
        before = now
    assert told() >= limits.refusalBurst + 49
    clock.advance(1)
    late.pump()
    assert START in late.codes()


def test_thoseThatMayAreNotSlowedDown(clock):
    factory = serving(clock, authorizer=AllowList(["live"], {"right": "stage"}))
    for _ in range(100):
        client = guess(factory, "right")
        assert START in client.codes()
        client.leave()


def test_decisionsThatTakeTimeGoOnAsTheyAreMade(clock):
    decisions: list[Deferred[None]] = []

    def later() -> Deferred[None]:
        decisions.append(Deferred())
        return decisions[-1]

    factory = serving(clock, authorizer=Ask(publish=later), refusalBurst=3)
    clients = []
    for number in range(9):
        clients.append(Client(factory))
        clients[-1].publish(f"s{number}")
    assert len(decisions) == 3
    answered = 0
    while answered < len(decisions):
        decisions[answered].callback(None)
        answered += 1
        for client in clients:
            client.pump()
    assert answered == 9
    for client in clients:
        assert START in client.codes()
        client.leave()


def test_whoWaitsTooLongIsToldSo(clock):
    factory = serving(
        clock,
        authorizer=AllowList(["live"], ["right"]),
        refusalBurst=1,
        refusalRate=0.01,
    )
    guess(factory)
    client = guess(factory)
    clock.advance(factory.limits.decisionSeconds)
    [reply] = client.take()
    assert reply.code == "NetConnection.Connect.Rejected"
    assert reply.values[3]["description"] == "Too many requests from this address."
    client.leave()
    assert clock.getDelayedCalls() == []


def test_whoLeavesWaitsNoMore(clock):
    addresses = Addresses(clock, AddressLimits(refusalBurst=1, refusalRate=1.0))
    assert addresses.turnToAsk("a") is None
    first, second = addresses.turnToAsk("a"), addresses.turnToAsk("a")
    assert first is not None
    assert second is not None
    first.addErrback(lambda _: None)
    first.cancel()
    clock.advance(1)
    assert second.called
    clock.advance(5)
    assert clock.getDelayedCalls() == []


def test_anyNumberMayWait(clock):
    """Whoever is allowed at once makes room for the next one, a thousand times over."""
    addresses = Addresses(clock, AddressLimits(refusalBurst=1, refusalRate=1.0))
    assert addresses.turnToAsk("a") is None
    allowed = []

    def allow(_):
        allowed.append(None)
        addresses.asked("a", refused=False)

    turns = [addresses.turnToAsk("a").addCallback(allow) for _ in range(2000)]
    clock.advance(1)
    assert len(allowed) == len(turns)
    assert all(turn.called and turn.result is None for turn in turns)
    assert clock.getDelayedCalls() == []


# Log lines


def test_aLineIsPaidFor(clock):
    bounds = replace(AddressLimits(), logBurst=100, logRate=10.0)
    addresses = Addresses(clock, bounds)
    assert addresses.mayLog("a", 60, 0) == 0
    assert addresses.mayLog("a", 60, 0) is None
    assert addresses.mayLog("a", 60, 0) is None
    assert addresses.mayLog("b", 60, 0) == 0
    assert addresses.mayLog("a", 60, 1000) == 2, "it has sent more than that"
    clock.advance(1000)
    assert addresses.mayLog("a", 60, 0) == 0
    assert addresses.mayLog("", 10_000, 0) == 0
