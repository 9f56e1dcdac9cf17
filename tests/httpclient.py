"""
Clients by HTTP and WebSocket over memory: what they send is written by h11 and
wsproto, and what they are told is read by these.
"""

from __future__ import annotations

from typing import Any

import h11
from rtmpclient import MemoryTransport
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
)

from twisted_rtmp.flv.tags import FLVReader
from twisted_rtmp.wire.constants import NEED_DATA
from twisted_rtmp.wire.messages import Message


class FLV:
    """
    What came of an FLV stream.

    @ivar tags: as (type, timestamp, payload).
    """

    def __init__(self) -> None:
        self.reader = FLVReader()
        self.tags: list[tuple[int, int, bytes]] = []

    def feed(self, data: bytes) -> None:
        self.reader.feed(data)
        tag: Message
        for tag in iter(self.reader.nextTag, NEED_DATA):
            self.tags.append((tag.typeId, tag.timestamp, tag.payload))
        assert not self.reader.badPreviousTagSizes


class Connection:
    """
    A connection in memory to a protocol of a site.

    @ivar raw: all that came.
    """

    _port = 40_000

    def __init__(self, site: Any) -> None:
        Connection._port += 1
        self.address = IPv4Address("TCP", "198.51.100.8", Connection._port)
        self.transport = MemoryTransport(site.registry.clock, self)
        self.raw = bytearray()
        self.protocol = site.buildProtocol(self.address)
        self.turnedAway = self.protocol is None
        if not self.turnedAway:
            self.protocol.makeConnection(self.transport)

    @property
    def open(self) -> bool:
        return not self.transport.disconnected and not self.transport.disconnecting

    def sendBytes(self, data: bytes) -> None:
        if self.transport.reading and self.open:
            self.protocol.dataReceived(data)
        self.pump()

    def pump(self) -> None:
        """Take what the server has sent."""
        while data := self.transport.deliver():
            self.raw += data
            self.heard(data)

    def heard(self, data: bytes) -> None:
        """Take bytes that the server has sent."""

    def leave(self) -> None:
        """Close, as a peer does."""
        self.pump()
        self.transport.lose(ConnectionDone())


class Getter(Connection):
    """
    One request, and its response.

    @ivar status: of the response, or 0 before there is one.
    @ivar headers: by lower-case name.
    @ivar complete: whether the response has come to its end.
    """

    def __init__(
        self,
        site: Any,
        target: str,
        method: str = "GET",
        body: bytes = b"",
        **headers: str,
    ):
        super().__init__(site)
        self.h11 = h11.Connection(h11.CLIENT)
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self.flv = FLV()
        self.body = b""
        if self.turnedAway:
            return
        fields = {"host": "localhost:8080", **headers}
        if body:
            fields["content-length"] = str(len(body))
        request = h11.Request(
            method=method,
            target=target,
            headers=[(k.replace("_", "-"), v) for k, v in fields.items()],
        )
        data = self.h11.send(request)
        if body:
            data += self.h11.send(h11.Data(body))
        self.sendBytes(data + self.h11.send(h11.EndOfMessage()))

    def heard(self, data: bytes) -> None:
        self.h11.receive_data(data)
        self._read()

    def _read(self) -> None:
        while True:
            event = self.h11.next_event()
            if isinstance(event, h11.Response):
                self.status = event.status_code
                self.headers = {k.decode(): v.decode() for k, v in event.headers}
            elif isinstance(event, h11.Data):
                self.body += event.data
                if self.headers.get("content-type") == "video/x-flv":
                    self.flv.feed(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self.complete = True
                return
            else:
                assert event is h11.NEED_DATA, event
                return

    @property
    def text(self) -> str:
        return self.body.decode().rstrip("\n")

    @property
    def tags(self) -> list[tuple[int, int, bytes]]:
        self.pump()
        return self.flv.tags


class Socket(Connection):
    """
    One WebSocket.

    @ivar accepted: whether there is one.
    @ivar rejected: the status with which there is none, or 0.
    @ivar messages: the binary messages.
    @ivar closed: the code of the server's close, or L{None}.
    @ivar reason: the same in words.
    @ivar answers: whether to answer a close.
    """

    def __init__(
        self,
        site: Any,
        target: str,
        answers: bool = True,
        host: str = "localhost",
        **headers: str,
    ):
        super().__init__(site)
        self.ws = WSConnection(ConnectionType.CLIENT)
        self.accepted = False
        self.rejected = 0
        self.rejection = b""
        self.messages: list[bytes] = []
        self.pongs: list[bytes] = []
        self.closed: int | None = None
        self.reason: str | None = None
        self.answers = answers
        self.flv = FLV()
        extra = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
        request = Request(host=host, target=target, extra_headers=extra)
        self.sendBytes(self.ws.send(request))

    def heard(self, data: bytes) -> None:
        self.ws.receive_data(data)
        for event in self.ws.events():
            if isinstance(event, AcceptConnection):
                self.accepted = True
            elif isinstance(event, RejectConnection):
                self.rejected = event.status_code
            elif isinstance(event, RejectData):
                self.rejection += event.data
            elif isinstance(event, BytesMessage):
                assert event.message_finished
                self.messages.append(bytes(event.data))
                self.flv.feed(bytes(event.data))
            elif isinstance(event, Pong):
                self.pongs.append(bytes(event.payload))
            else:
                assert isinstance(event, CloseConnection), event
                self.closed, self.reason = event.code, event.reason
                if self.answers:
                    self.sendBytes(self.ws.send(event.response()))
                return

    def ping(self, payload: bytes = b"") -> None:
        self.sendBytes(self.ws.send(Ping(payload)))

    def close(self, code: int = 1000) -> None:
        self.sendBytes(self.ws.send(CloseConnection(code)))

    @property
    def tags(self) -> list[tuple[int, int, bytes]]:
        self.pump()
        return self.flv.tags
