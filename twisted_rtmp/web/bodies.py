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

#: What is added to a status of HTTP to make the code with which a WebSocket is closed:
#: one of those for private use.  RFC 6455, 7.4.2.
CLOSE_STATUS = 4000


class Body(Protocol):
    """The way in which a peer gets its stream."""

    def accept(self) -> None:
        """Tell the peer that it may play, if that can be told before the stream."""

    def begin(self) -> None:
        """Tell the peer that its stream begins."""

    def write(self, data: bytes) -> None:
        """Send some of the stream."""

    def end(self, code: int) -> None:
        """
        Tell the peer that its stream has ended.

        @param code: the reason, as a WebSocket gives it.
        """

    def fail(self, status: int, text: str) -> None:
        """
        Tell the peer that it gets no stream.

        @param status: the reason, as HTTP gives it.
        @param text: the same in words.
        """


class ResponseBody:
    """The body of a response: chunked, or in HTTP/1.0 up to the connection's end."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._channel = channelOf(request)

    def accept(self) -> None:
        """Say nothing: a response begins with its status, which is not known yet."""

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
    """Tell what is in the body, and that it must not be stored."""
    request.setHeader(b"content-type", b"video/x-flv")
    request.setHeader(b"cache-control", b"no-store")
    # Makes nginx pass each piece on at once, whatever its configuration says.
    request.setHeader(b"x-accel-buffering", b"no")


class SocketBody:
    """
    The messages of a WebSocket.

    It is accepted before the stream is there: a browser opens one WebSocket to a host
    at a time (RFC 6455, 4.1), so one that waited would keep the others from playing.
    """

    def __init__(self, request: Request, socket: WebSocket) -> None:
        self._request = request
        self._socket = socket
        self._accepted = False

    def accept(self) -> None:
        self._accepted = True
        self._socket.accept()

    def begin(self) -> None:
        """Say nothing: the first message tells it."""

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
