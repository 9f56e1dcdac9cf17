"""
The ways in which the bytes of a stream reach a peer: in the body of a response, or in a
WebSocket's messages.
"""

from __future__ import annotations

from typing import Protocol

from twisted.web import http
from twisted.web.server import Request
from wsproto.frame_protocol import CloseReason

from twisted_rtmp.web.answers import finish
from twisted_rtmp.web.channel import channelOf
from twisted_rtmp.web.websocket import WebSocket

#: Added to the status of HTTP, it is the code with which a WebSocket is closed: one of
#: those for private use, RFC 6455, 7.4.2.
CLOSE_STATUS = 4000


class Body(Protocol):
    """How a peer is answered."""

    def accept(self) -> None:
        """Tell the peer, if there is a way, that it may play: a stream may come."""

    def begin(self) -> None:
        """Tell the peer that its stream is there."""

    def write(self, data: bytes) -> None:
        """Send some of it."""

    def end(self, code: int) -> None:
        """
        Send that there is no more.

        @param code: why, as a WebSocket says it.
        """

    def fail(self, status: int, text: str) -> None:
        """
        Tell the peer that it gets no stream.

        @param status: why, as HTTP says it.
        """


class ResponseBody:
    """The body of an HTTP response: chunked, or for HTTP/1.0 up to the end."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._channel = channelOf(request)

    def accept(self) -> None:
        """A response begins with its status: it waits for the stream."""

    def begin(self) -> None:
        request = self._request
        setHeaders(request)
        request.setHeader(b"connection", b"close")
        self._channel.persistent = 0
        self._channel.beginMedia()
        request.write(b"")

    def write(self, data: bytes) -> None:
        if self._request.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._channel.send(data)

    def end(self, code: int) -> None:
        self._request.unregisterProducer()
        self._request.finish()

    def fail(self, status: int, text: str) -> None:
        self._request.unregisterProducer()
        finish(self._request, status, text)


def setHeaders(request: Request) -> None:
    """Say what is in the body, and that nobody is to keep it."""
    request.setHeader(b"content-type", b"video/x-flv")
    request.setHeader(b"cache-control", b"no-store")
    # nginx passes each piece on at once then, whatever its configuration says.
    request.setHeader(b"x-accel-buffering", b"no")


class SocketBody:
    """
    The messages of a WebSocket.

    It is accepted before the stream is there: browsers open one WebSocket to a host at
    a time (RFC 6455, 4.1), so that one which waits would keep all others from playing.
    """

    def __init__(self, request: Request, socket: WebSocket) -> None:
        self._request = request
        self._socket = socket
        self._accepted = False

    def accept(self) -> None:
        self._accepted = True
        self._socket.accept()

    def begin(self) -> None:
        """The first message tells it."""

    def write(self, data: bytes) -> None:
        self._socket.sendBytes(data)

    def end(self, code: int) -> None:
        self._socket.close(code)

    def fail(self, status: int, text: str) -> None:
        if not self._accepted:
            finish(self._request, status, text)
        elif status == http.SERVICE_UNAVAILABLE:
            self._socket.close(CloseReason.GOING_AWAY, text)
        else:
            self._socket.close(CLOSE_STATUS + status, text)
