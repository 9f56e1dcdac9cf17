"""
The server's end of a WebSocket that only sends.  RFC 6455.

C{twisted.web.websocket} is not used: as of Twisted 26.10 it keeps all of a message that
never ends, answers any number of pings, and lets a peer raise errors in it.  Here, all
that a player says is discarded as it comes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import GeneratorType
from typing import TYPE_CHECKING

from h11 import ProtocolError as HTTPError
from twisted.web.server import Request
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping
from wsproto.frame_protocol import CloseReason
from wsproto.handshake import H11Handshake
from wsproto.utilities import RemoteProtocolError

from twisted_rtmp.sockets import DrainWatch
from twisted_rtmp.web.channel import channelOf

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

#: Frames, or parts of frames, that a peer may send within L{WINDOW_SECONDS}.  Players
#: ping every 5 to 30 s; ten thousand pings fit in one read, at 15 us each.
MAX_FRAMES = 100
WINDOW_SECONDS = 10.0

#: The version of the protocol.  RFC 6455, 4.1.
VERSION = b"13"

_HANDSHAKE = (b"upgrade", b"connection", b"sec-websocket-key", b"sec-websocket-version")
_BINARY = 0x82  # the only or last frame of a binary message
_TWO_BYTES = 126
_EIGHT_BYTES = 127


class BadUpgrade(Exception):
    """
    Raised for a request that says that it is for a WebSocket, and is not valid.

    @ivar wrongVersion: the peer speaks another version of the protocol.
    """

    def __init__(self, message: str, *, wrongVersion: bool) -> None:
        super().__init__(message)
        self.wrongVersion = wrongVersion


def isUpgrade(request: Request) -> bool:
    """Tell whether a request is for a WebSocket."""
    upgrade = request.getHeader(b"upgrade")
    return upgrade is not None and upgrade.strip().lower() == b"websocket"


def _nothing() -> None:
    """Do nothing, where nobody is told any more."""


def _closeParser(connection: Connection) -> None:
    """
    Let the memory of a WebSocket go with it, without a garbage collection.

    The parser of wsproto 1.3 is a generator that keeps the object which has it, and
    there is no other way to close it.
    """
    protocol = getattr(connection, "_proto", None)
    parser = getattr(protocol, "_parse_more", None)
    if isinstance(parser, GeneratorType):
        parser.close()


def frameHeader(size: int) -> bytes:
    """
    Encode the header of a binary message in one frame, not masked.  RFC 6455, 5.2.

    wsproto would copy the message three times: 3.8 us for one of 13 KB, instead of 0.2.

    @param size: the size of the message, in bytes.
    """
    if size < _TWO_BYTES:
        return bytes((_BINARY, size))
    if size < 1 << 16:
        return struct.pack(">BBH", _BINARY, _TWO_BYTES, size)
    return struct.pack(">BBQ", _BINARY, _EIGHT_BYTES, size)


class WebSocket:
    """One WebSocket, from its request to the end of its connection."""

    def __init__(
        self,
        request: Request,
        clock: IReactorTime,
        drainSeconds: float,
        peerEnded: Callable[[], object],
    ) -> None:
        """
        Check the request; answer nothing yet.

        @param drainSeconds: how long the peer may take nothing after a close, nor
            answer it.
        @param peerEnded: called when the peer ends it, or is cut for what it sends.
        @raise BadUpgrade: the request is not valid.
        """
        self._request = request
        self._channel = channelOf(request)
        self._transport = self._channel.transport
        self._clock = clock
        self._peerEnded = peerEnded
        self._drain = DrainWatch(clock, drainSeconds)
        self._frames = 0
        self._since = clock.seconds()
        self._ended = False
        if request.clientproto != b"HTTP/1.1":
            raise BadUpgrade("A WebSocket needs HTTP/1.1.", wrongVersion=False)
        headers = [(b"host", b"-")]
        for name in _HANDSHAKE:
            values = request.requestHeaders.getRawHeaders(name, [])
            headers += [(name, value) for value in values]
        handshake = H11Handshake(ConnectionType.SERVER)
        try:
            handshake.initiate_upgrade_connection(headers, b"/")
            self._accepted = handshake.send(AcceptConnection())
        except (RemoteProtocolError, HTTPError, UnicodeError) as error:
            version = request.getHeader(b"sec-websocket-version")
            raise BadUpgrade(
                "The request for a WebSocket is not valid.",
                wrongVersion=version is not None and version != VERSION,
            ) from error
        assert handshake.connection is not None
        self._connection: Connection = handshake.connection

    def accept(self) -> None:
        """Accept the WebSocket: from here on the peer sends frames."""
        self._request.notifyFinish().addErrback(lambda _: self._lost())
        self._channel.beginMedia()
        self._transport.write(self._accepted)
        self._channel.upgrade(self)

    def sendBytes(self, data: bytes) -> None:
        """Send a binary message."""
        self._channel.send(frameHeader(len(data)) + data)

    def close(self, code: int, reason: str = "") -> None:
        """
        Tell the peer that this is the end, and wait for its answer.

        If the connection ended at once, bytes that the peer has just sent could make it
        lose what it has not read yet.

        @param code: the reason; RFC 6455, 7.4.
        @param reason: the same in words.
        """
        if self._connection.state is not ConnectionState.OPEN:
            return
        self._transport.write(
            bytes(self._connection.send(CloseConnection(code, reason)))
        )
        self._drain.start(self._transport, self._channel.cutUndrained)

    def _lost(self) -> None:
        """Stop, since the connection is lost or about to close."""
        self._ended = True
        self._drain.stop()
        self._peerEnded = _nothing  # or else each keeps the other
        _closeParser(self._connection)

    def dataReceived(self, data: bytes) -> None:
        """Take bytes that the peer has sent."""
        if self._ended:
            return
        now = self._clock.seconds()
        if now - self._since >= WINDOW_SECONDS:
            self._since = now
            self._frames = 0
        self._connection.receive_data(data)
        for event in self._connection.events():
            self._frames += 1
            if self._frames > MAX_FRAMES:
                self._flooded()
                return
            if self._isEnd(event):
                self._end()
                return

    def _isEnd(self, event: Event) -> bool:
        """
        Take an event.

        @return: whether it is the last one.
        """
        connection = self._connection
        if isinstance(event, CloseConnection):
            # The peer ends it, answers our close, or has sent an invalid frame.
            if connection.state in (
                ConnectionState.OPEN,
                ConnectionState.REMOTE_CLOSING,
            ):
                self._transport.write(bytes(connection.send(event.response())))
            return True
        if isinstance(event, Ping) and connection.state is ConnectionState.OPEN:
            self._transport.write(bytes(connection.send(event.response())))
        return False

    def _flooded(self) -> None:
        """Cut a peer that sends more than any player does."""
        self._channel.site.registry.counters.violations += 1
        self._channel.warn(
            "{peer} is cut: more than {limit} WebSocket frames within {seconds:g} s",
            limit=MAX_FRAMES,
            seconds=WINDOW_SECONDS,
        )
        if self._connection.state is ConnectionState.OPEN:
            violation = CloseConnection(CloseReason.POLICY_VIOLATION)
            self._transport.write(bytes(self._connection.send(violation)))
        self._end()

    def _end(self) -> None:
        """Close the connection, since both ends have said all."""
        peerEnded = self._peerEnded
        self._lost()
        peerEnded()
        self._channel.loseConnection()
