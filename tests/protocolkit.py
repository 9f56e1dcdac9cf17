"""Sinks and an authorizer for tests of the server's end of a connection."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from rtmpclient import COMMAND, Client
from twisted.internet.defer import Deferred
from zope.interface import implementer

from twisted_rtmp.interfaces import IAuthorizer, IMediaSink, ISinkFactory, Refused
from twisted_rtmp.limits import ServerLimits

#: Replies fill a small buffer soon.
SMALL = ServerLimits(queuedReplyBytes=65_536)

START = "NetStream.Publish.Start"

BAD_NAME = "NetStream.Publish.BadName"

ENDED = "NetStream.Unpublish.Success"


@implementer(IMediaSink)
class Sink:
    """Keeps what it got."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.ended = False

    def mediaReceived(self, message):
        assert not self.ended
        self.messages.append(message)

    def streamEnded(self):
        assert not self.ended
        self.ended = True

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]


@implementer(ISinkFactory)
class Sinks:
    """Gives every stream a sink, and keeps them all by the stream's label."""

    sinkName = "test"

    def __init__(self, make: Callable[[Any], Any] = lambda stream: Sink()) -> None:
        self.all: list[tuple[str, Any]] = []
        self._make = make

    def openSink(self, stream):
        sink = self._make(stream)
        self.all.append((stream.label, sink))
        return sink

    def __getitem__(self, index: int) -> Any:
        return self.all[index][1]

    @property
    def labels(self) -> list[str]:
        return [label for label, _ in self.all]


@implementer(IAuthorizer)
class Ask:
    """Answers as the test says; keeps the questions."""

    def __init__(
        self, connect: Any = None, publish: Any = None, play: Any = None
    ) -> None:
        self.asked: list[Any] = []
        self._connect = connect
        self._publish = publish
        self._play = play

    def connect(self, request):
        self.asked.append(request)
        return self._connect() if callable(self._connect) else self._connect

    def publish(self, request):
        self.asked.append(request)
        return self._publish() if callable(self._publish) else self._publish

    def play(self, request):
        self.asked.append(request)
        return self._play() if callable(self._play) else self._play


class SocketClient(Client):
    """A client whose bytes may wait in the server's socket."""

    def __init__(self, factory: Any, clock: Any) -> None:
        super().__init__(factory, clock)
        ours, self.socket = socket.socketpair()
        self.ours = ours
        self.transport.fileno = ours.fileno

    def close(self) -> None:
        self.ours.close()
        self.socket.close()


def refuse(why: str = "Not you.") -> Any:
    raise Refused(why)


def shape(replies: list[Any]) -> list[tuple[Any, ...]]:
    """Chunk stream, message stream, name, transaction id; code where there is one."""
    return [
        (r.csid, r.streamId, r.values[0], r.values[1], r.code)
        for r in replies
        if r.typeId == COMMAND
    ]


async def soon(value: Any) -> Any:
    return value


async def later(deferred: Deferred[Any]) -> Any:
    return await deferred
