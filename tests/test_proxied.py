"""PROXY headers: whole or in pieces, of both versions, and nonsense."""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from zope.interface.verify import verifyObject

from twisted_rtmp.proxied import SIGNATURE, GuardedEndpoint, proxiedEndpoint

PROXY = IPv4Address("TCP", "198.51.100.1", 4000)


class Received(Protocol):
    def __init__(self):
        self.data = b""
        self.lost = False

    def dataReceived(self, data):
        self.data += data

    def connectionLost(self, reason):
        self.lost = True


def connect():
    """One connection that is accepted: what it is given to, and its bytes."""
    reactor = MemoryReactorClock()
    factory = Factory.forProtocol(Received)
    proxiedEndpoint(TCP4ServerEndpoint(reactor, 1935)).listen(factory)
    [(_, outer, _, _)] = reactor.tcpServers
    protocol = outer.buildProtocol(PROXY)
    transport = StringTransport(peerAddress=PROXY)
    protocol.makeConnection(transport)
    received = protocol
    while not isinstance(received, Received):
        received = received.wrappedProtocol
    return protocol, transport, received


def binary(family: int, addresses: bytes, command: int = 0x21) -> bytes:
    length = len(addresses).to_bytes(2, "big")
    return SIGNATURE + bytes([command, family]) + length + addresses


HEADERS = [
    (b"PROXY TCP4 192.0.2.9 192.0.2.1 4001 1935\r\n", "192.0.2.9"),
    (b"PROXY TCP6 2001:db8::9 2001:db8::1 4001 1935\r\n", "2001:db8::9"),
    (b"PROXY UNKNOWN\r\n", PROXY.host),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", PROXY.host),
    (
        binary(0x11, bytes([192, 0, 2, 9, 192, 0, 2, 1]) + b"\x0f\xa1\x07\x8f"),
        "192.0.2.9",
    ),
    (
        # Something may follow the addresses.
        binary(0x11, bytes([192, 0, 2, 9, 192, 0, 2, 1]) + b"\x0f\xa1\x07\x8f" + b"x"),
        "192.0.2.9",
    ),
    (binary(0, b"", command=0x20), PROXY.host),
]


@pytest.mark.parametrize(("header", "host"), HEADERS)
def test_headers(header, host):
    for step in (1, 3, 7, len(header), len(header) + 5):
        protocol, transport, received = connect()
        data = header + b"and more"
        for at in range(0, len(data), step):
            protocol.dataReceived(data[at : at + step])
        assert received.data == b"and more"
        peer = received.transport.getPeer()
        assert peer.host == host
        assert isinstance(peer, (IPv4Address, IPv6Address))
        assert not transport.disconnecting


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x03" + bytes(1536), "it must begin with a PROXY header"),
        (b"GET / HTTP/1.1\r\n", "it must begin with a PROXY header"),
        (b"PROXY TCP4 x y z w\r\n", "its PROXY header is invalid"),
        (b"PROXY TCP4 192.0.2.9 192.0.2.1 70000\r\n", "its PROXY header is invalid"),
        (b"PROXY \x1b[2J\r\n", "its PROXY header is invalid"),
        (b"PROXY TCP4 " + b"1" * 200, "its PROXY header has more than 107 bytes"),
        (b"PROXY UNKNOWN " + b"1" * 200 + b"\r\n", "its PROXY header is invalid"),
        (SIGNATURE + b"\x21\x11\xff\xff", "its PROXY header has more than 4096 bytes"),
    ],
)
def test_nonsenseIsToldInOneLine(data, why, lines):
    protocol, transport, received = connect()
    for _ in range(3):
        protocol.dataReceived(data)
    assert transport.disconnected or transport.disconnecting
    assert received.data == b""
    [told] = [line for line in lines if "is cut" in line]
    assert told.startswith(f"198.51.100.1:4000 is cut: {why}")
    assert not any(character < " " for character in told)


def test_aConnectionThatEndsAmidItsHeader():
    protocol, _, received = connect()
    protocol.dataReceived(b"PROXY TCP4 ")
    protocol.connectionLost()
    assert received.lost


def test_interfaces():
    endpoint = TCP4ServerEndpoint(MemoryReactorClock(), 1935)
    assert verifyObject(IStreamServerEndpoint, GuardedEndpoint(endpoint))
    assert verifyObject(IStreamServerEndpoint, proxiedEndpoint(endpoint))
