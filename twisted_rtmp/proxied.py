"""
PROXY headers, with which a proxy in front of the server tells whom it speaks for.

Twisted reads them (C{haproxy:} endpoints).  What stands before it here makes sure that
a header comes in one piece and can be read, says in the log why it cannot, and lets
C{PROXY UNKNOWN} through, which proxies send to look whether the server is there.
"""

from __future__ import annotations

import re

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamServerEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.haproxy import proxyEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_rtmp.names import peerName, printable

#: The longest header of version 1, in bytes.  PROXY protocol, 2.1.
MAX_LINE_BYTES = 107

#: The longest header of version 2, in bytes.  Its addresses have 36 bytes or, of UNIX
#: sockets, 216; certificates' names may follow.
MAX_BINARY_BYTES = 4096

#: How version 2 begins.  PROXY protocol, 2.2.
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"

#: The fixed part of version 2, in bytes: what follows it has the length at its end.
BINARY_START = 16

_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: .*)?|TCP4 [0-9.]{7,15} [0-9.]{7,15} \d{1,5} \d{1,5}"
    rb"|TCP6 [0-9A-Fa-f:.]{2,45} [0-9A-Fa-f:.]{2,45} \d{1,5} \d{1,5})\r\n"
)


class HeaderGuard(ProtocolWrapper):
    """A connection from a proxy, until its header is whole."""

    log = Logger()
    transport: ITCPTransport

    def __init__(self, factory: WrappingFactory, wrapped: IProtocol) -> None:
        ProtocolWrapper.__init__(self, factory, wrapped)
        self._header: bytes | None = b""
        self._refused = False

    def dataReceived(self, data: bytes) -> None:
        if self._refused:
            return
        if self._header is None:
            ProtocolWrapper.dataReceived(self, data)
            return
        self._header += data
        problem = self._look(self._header)
        if problem:
            self._refused = True
            self.log.warn(
                "{peer} is cut: {problem}",
                peer=peerName(self.transport.getPeer()),
                problem=problem,
            )
            self.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._header = None
        ProtocolWrapper.connectionLost(self, reason)

    def _look(self, header: bytes) -> str:
        """
        Pass the header on if it is whole.

        @return: why it can be none; empty if it may.
        """
        if SIGNATURE.startswith(header[: len(SIGNATURE)]):
            if len(header) >= BINARY_START:
                size = BINARY_START + int.from_bytes(header[14:16], "big")
                if size > MAX_BINARY_BYTES:
                    return f"its PROXY header has more than {MAX_BINARY_BYTES} bytes"
                if len(header) >= size:
                    self._pass(header)
            return ""
        if not (b"PROXY ".startswith(header[:6]) and b"\n" not in header[:6]):
            return "it must begin with a PROXY header"
        line, end, rest = header.partition(b"\n")
        if not end:
            if len(header) >= MAX_LINE_BYTES:
                return f"its PROXY header has more than {MAX_LINE_BYTES} bytes"
            return ""
        line += end
        if len(line) > MAX_LINE_BYTES or not _LINE.fullmatch(line):
            return f"its PROXY header is invalid: {printable(ascii(line)[2:-1])}"
        if line == b"PROXY UNKNOWN\r\n":
            line = b"PROXY UNKNOWN \r\n"  # Twisted wants something behind it
        self._pass(line + rest)
        return ""

    def _pass(self, data: bytes) -> None:
        """Let all through from here on."""
        self._header = None
        ProtocolWrapper.dataReceived(self, data)


@implementer(IStreamServerEndpoint)
class GuardedEndpoint:
    """An endpoint whose connections begin with a whole PROXY header."""

    def __init__(self, endpoint: IStreamServerEndpoint) -> None:
        self._endpoint = endpoint

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen, as L{IStreamServerEndpoint} says."""
        guarded: WrappingFactory[HeaderGuard] = WrappingFactory(factory)
        guarded.protocol = HeaderGuard
        guarded.noisy = False
        listening: Deferred[IListeningPort] = self._endpoint.listen(guarded)
        return listening


def proxiedEndpoint(endpoint: IStreamServerEndpoint) -> IStreamServerEndpoint:
    """
    Make an endpoint that takes a PROXY header before everything else.

    Its transports' C{getPeer} and C{getHost} give what the header says.
    """
    proxied: IStreamServerEndpoint = proxyEndpoint(GuardedEndpoint(endpoint))
    return proxied
