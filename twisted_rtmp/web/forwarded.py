"""
The headers by which a proxy tells whom it speaks for: X-Forwarded-For together with
X-Forwarded-Proto, and Forwarded (RFC 7239).

Anybody can send them.  So only trusted proxies are believed, and only what they have
added themselves, which stands at the right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from itertools import islice
from typing import NamedTuple

from twisted.internet import address as addresses
from twisted.internet.interfaces import IAddress
from twisted.web.http_headers import Headers

#: How many proxies are followed.  Content delivery networks have 2 or 3 in a row; a
#: client may pretend a thousand.
MAX_HOPS = 32

#: Stands for all proxies that connect over a UNIX socket; nginx spells it so.
UNIX = "unix:"

#: A parameter of Forwarded, RFC 7239, 4, with what separates it from the next one.
_PARAMETER = re.compile(
    r"""[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=
        (?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)|"((?:[^"\\]|\\.)*)")[ \t]*([;,]|$)""",
    re.VERBOSE,
)

#: An address with an optional port: in brackets, bare, or IPv4.
_NODE = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::(\d{1,5}))?|([0-9.]+):(\d{1,5})|(.+)")


class Client(NamedTuple):
    """
    The client that sent a request, as far as it is known.

    @ivar address: its address; the port is 0 if no proxy has told it.
    @ivar scheme: the scheme that it used, such as C{"https"}; empty if no proxy has
        told it.
    """

    address: IAddress
    scheme: str


class _Hop(NamedTuple):
    """The peer of one proxy, as that proxy tells."""

    node: str
    scheme: str


def parseNetwork(text: str) -> IPv4Network | IPv6Network | str:
    """
    Read the address of a proxy, or of a network of proxies.

    @param text: such as C{10.0.0.0/8}, C{::1}, or L{UNIX}.
    @raise ValueError: the text is none of these.
    """
    if text == UNIX:
        return UNIX
    try:
        # People write 127.0.0.1/8, and nginx accepts it.
        return ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"must be an address, a network such as 10.0.0.0/8, or {UNIX}, not {text}"
        ) from None


class TrustedProxies:
    """The proxies that are believed when they tell whom they speak for."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        """
        @param networks: see L{parseNetwork}.
        @raise ValueError: one of them is not valid.
        """
        self._networks = [parseNetwork(each) for each in networks]

    def trusts(self, address: object) -> bool:
        """
        Decide whether a peer is a trusted proxy.

        @param address: an L{IAddress}, or L{None}.
        """
        if not self._networks:
            return False
        host = getattr(address, "host", None)
        if host is None:
            return isinstance(address, addresses.UNIXAddress) and (
                UNIX in self._networks
            )
        try:
            return self._trusted(_parseHost(host))
        except ValueError:
            return False

    def _trusted(self, host: IPv4Address | IPv6Address) -> bool:
        return any(
            host in network
            for network in self._networks
            if not isinstance(network, str)
        )

    def clientOf(self, address: IAddress, headers: Headers) -> Client:
        """
        Find out who sent a request.

        @param address: the address of the connection's other end.
        @param headers: the headers of the request.
        @return: the rightmost address that is not a trusted proxy's.  It is the proxy's
            own if that cannot be read, or if both kinds of headers are there and
            differ: one of them may be the client's forgery.
        """
        if not self.trusts(address):
            return Client(address, "")
        found = [
            self._follow(address, hops)
            for hops in (_xForwarded(headers), _forwarded(headers))
            if hops is not None
        ]
        if not found or found[0].address != found[-1].address:
            return Client(address, "")
        return found[0]

    def _follow(self, address: IAddress, hops: Iterable[_Hop]) -> Client:
        """
        Follow the proxies, as long as they are trusted.

        @param hops: their peers, from right to left.
        """
        client = Client(address, "")
        for hop in islice(hops, MAX_HOPS):
            try:
                host, port = _parseNode(hop.node)
            except ValueError:
                break
            kind = addresses.IPv4Address if host.version == 4 else addresses.IPv6Address
            client = Client(kind("TCP", str(host), port), hop.scheme or client.scheme)
            if not self._trusted(host):
                break
        return client


def _parseHost(text: str) -> IPv4Address | IPv6Address:
    """
    Read an address; an IPv4 address that is written as IPv6 becomes plain.

    @raise ValueError: the text is no address.
    """
    host = ip_address(text.partition("%")[0])
    mapped = host.ipv4_mapped if isinstance(host, IPv6Address) else None
    return mapped or host


def _parseNode(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    """
    Read an address with an optional port.

    @return: both; the port is 0 if there is none.
    @raise ValueError: the text is no address, such as C{unknown}.
    """
    match = _NODE.fullmatch(text)
    if match is None:
        raise ValueError("must be an address")
    bracketed, port6, plain, port4, bare = match.groups()
    port = int(port6 or port4 or 0)
    if port > 65_535:
        raise ValueError("must be a port")
    return _parseHost(bracketed or plain or bare), port


def _lines(headers: Headers, name: bytes) -> list[str] | None:
    """Give a header's values, last one first; L{None} if there is no such header."""
    values = headers.getRawHeaders(name)
    if values is None:
        return None
    return [value.decode("latin-1") for value in reversed(values)]


def _xForwarded(headers: Headers) -> Iterator[_Hop] | None:
    """Read X-Forwarded-For, with the schemes in X-Forwarded-Proto, from the right."""
    lines = _lines(headers, b"x-forwarded-for")
    if lines is None:
        return None
    schemes = [
        scheme.strip().lower()
        for line in _lines(headers, b"x-forwarded-proto") or ()
        for scheme in reversed(line.split(","))
    ]
    nodes = (node.strip() for line in lines for node in reversed(line.split(",")))
    # Most proxies replace the scheme, so there is only one.
    return (
        _Hop(node, schemes[min(index, len(schemes) - 1)] if schemes else "")
        for index, node in enumerate(nodes)
    )


def _forwarded(headers: Headers) -> Iterator[_Hop] | None:
    """Read Forwarded, from the right."""
    lines = _lines(headers, b"forwarded")
    if lines is None:
        return None
    return (hop for line in lines for hop in reversed(_parseForwarded(line)))


def _parseForwarded(line: str) -> list[_Hop]:
    """
    Read a line of Forwarded.

    @return: the peers of the proxies; a single unknown one if the line is malformed or
        has too many.
    """
    if line.count(",") >= MAX_HOPS:
        return [_Hop("", "")]
    hops = []
    element: dict[str, str] = {}
    at = 0
    while True:
        match = _PARAMETER.match(line, at)
        if match is None:
            return [_Hop("", "")]
        name, token, quoted, separator = match.groups()
        if name.lower() in element:
            return [_Hop("", "")]
        element[name.lower()] = (
            token if token is not None else re.sub(r"\\(.)", r"\1", quoted)
        )
        at = match.end()
        if separator != ";":
            hops.append(_Hop(element.get("for", ""), element.get("proto", "").lower()))
            element = {}
        if not separator:
            return hops
