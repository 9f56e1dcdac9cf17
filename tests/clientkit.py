"""
Servers in memory for tests of the client: one that says what the test wants, under a
clock that the test turns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from rtmpclient import MemoryTransport
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableDescriptor, IStreamClientEndpoint
from twisted.internet.task import Clock
from zope.interface import implementer

from twisted_rtmp.client import ClientError, ClientLimits, RTMPClient, connectRTMP
from twisted_rtmp.interfaces import IMediaSink
from twisted_rtmp.wire.connection import Connection, Role
from twisted_rtmp.wire.constants import NEED_DATA
from twisted_rtmp.wire.messages import Command, HandshakeDone, Message, UserControl

SUCCESS = "NetConnection.Connect.Success"

LIMITS = ClientLimits(
    connectSeconds=7, commandSeconds=5, drainSeconds=4, farewellSeconds=3
)


@implementer(IHalfCloseableDescriptor)
class HalfCloseableTransport(MemoryTransport):
    """The client's end, whose writing side can end first."""

    halfClosed = False

    def writeConnectionLost(self, reason: object = None) -> None:
        raise AssertionError("the transport's own business")

    def readConnectionLost(self, reason: object) -> None:
        raise AssertionError("the transport's own business")

    def loseWriteConnection(self) -> None:
        assert self._producer is None, "TCP would wait for the producer"
        self.halfClosed = True

    def abortConnection(self) -> None:
        """As TCP does it: the protocol learns of it in a turn of its own."""
        self.aborted = True
        self.clock.callLater(0, self.lose, ConnectionAborted())


#: Those that a test has; what a client says is carried to them when the test looks.
_servers: WeakSet[ScriptedServer] = WeakSet()


def pumpAll() -> None:
    """Carry all bytes that are under way."""
    for server in list(_servers):
        server.pump()


class ScriptedServer:
    """
    One connection of a server that does what it is told.

    @ivar protocol: the client's end.
    @ivar transport: what that writes to.
    @ivar connection: the server's end, for everything that is sent.
    @ivar commands: what the client said.
    @ivar messages: media and data that it sent.
    @ivar controls: its user control messages.
    @ivar log: all that in order, and its end of file.
    @ivar digest: whether the handshake was the one with digests.
    @ivar answers: what is to be done for a command, by its name.
    """

    def __init__(self, protocol: Any, clock: Clock, **answers: Callable[..., Any]):
        self.address = IPv4Address("TCP", "192.0.2.1", 1935)
        self.transport = HalfCloseableTransport(clock, self)
        self.connection = Connection(Role.SERVER)
        self.commands: list[Command] = []
        self.messages: list[Message] = []
        self.controls: list[UserControl] = []
        self.log: list[str] = []
        self.digest = False
        self.answers: dict[str, Callable[..., Any]] = {
            "connect": accept,
            "createStream": createStream,
            "publish": startPublish,
            "play": startPlay,
            **answers,
        }
        self.streams = 0
        self._unread = bytearray()
        self._pumping = False
        self.protocol = protocol
        protocol.makeConnection(self.transport)
        _servers.add(self)
        self.pump()

    @property
    def open(self) -> bool:
        return not self.transport.disconnected

    def saw(self, what: str) -> None:
        if what not in self.log:
            self.log.append(what)

    def names(self) -> list[str]:
        """Of all commands so far."""
        self.pump()
        return [command.name for command in self.commands]

    def of(self, name: str) -> Command:
        """The last command of a name."""
        self.pump()
        return [command for command in self.commands if command.name == name][-1]

    # Saying things

    def command(
        self, name: str, tid: float, *arguments: object, streamId: int = 0
    ) -> None:
        self.connection.sendCommand(name, tid, *arguments, streamId=streamId)
        self.pump()

    def status(
        self, code: str, streamId: int = 1, level: str = "status", **more: object
    ) -> None:
        properties = {"level": level, "code": code, **more}
        self.command("onStatus", 0, None, properties, streamId=streamId)

    def media(
        self, typeId: int, timestamp: int, payload: bytes, streamId: int = 1
    ) -> Message:
        message = Message(typeId, timestamp, streamId, payload)
        self.connection.sendMessage(message, {8: 4, 9: 6}.get(typeId, 5))
        self.pump()
        return message

    def close(self) -> None:
        """End the connection, as TCP's FIN does."""
        self.pump()
        self.transport.lose(ConnectionDone())

    def breakOff(self) -> None:
        """End it as a reset does."""
        self.transport.lose(ConnectionLost())

    # Carrying bytes

    def pump(self) -> None:
        if self._pumping:
            return
        self._pumping = True
        moved = True
        while moved:
            data = self.transport.deliver()
            moved = bool(data)
            self.connection.feed(data)
            while (event := self.connection.nextEvent()) is not NEED_DATA:
                self._heard(event)
            if self.transport.halfClosed and not self.transport.queued:
                self.saw("end of file")
            self._unread += self.connection.dataToSend()
            if self._unread and self.transport.reading and self.open:
                data = bytes(self._unread)
                self._unread.clear()
                self.protocol.dataReceived(data)
                moved = True
        self._pumping = False

    def _heard(self, event: Any) -> None:
        if isinstance(event, HandshakeDone):
            self.digest = event.digest
        elif isinstance(event, Command):
            self.commands.append(event)
            self.log.append(event.name)
            answer = self.answers.get(event.name)
            if answer is not None:
                answer(self, event)
        elif isinstance(event, Message):
            self.messages.append(event)
            self.log.append(f"message at {event.timestamp}")
        elif isinstance(event, UserControl):
            self.controls.append(event)


# What a server answers


def accept(server: ScriptedServer, command: Command) -> None:
    server.command(
        "_result",
        command.transactionId,
        {"fmsVer": "FMS/3,0,1,123"},
        {"level": "status", "code": SUCCESS, "description": "Welcome."},
    )


def createStream(server: ScriptedServer, command: Command) -> None:
    server.streams += 1
    server.command("_result", command.transactionId, None, float(server.streams))


def startPublish(server: ScriptedServer, command: Command) -> None:
    server.status("NetStream.Publish.Start", command.streamId)


def startPlay(server: ScriptedServer, command: Command) -> None:
    server.status("NetStream.Play.Reset", command.streamId)
    server.status("NetStream.Play.Start", command.streamId)


def silent(server: ScriptedServer, command: Command) -> None:
    """Leave the client waiting."""


def refusing(
    code: str, description: str = "No.", *, close: bool = False, **more: object
) -> Callable[..., None]:
    """Answer with an error; C{connect} and C{createStream} with C{_error}."""

    def answer(server: ScriptedServer, command: Command) -> None:
        properties = {
            "level": "error",
            "code": code,
            "description": description,
            **more,
        }
        if command.name in ("publish", "play"):
            server.command("onStatus", 0, None, properties, streamId=command.streamId)
        else:
            server.command("_error", command.transactionId, None, properties)
        if close:
            server.protocol.transport.clock.callLater(0, server.close)

    return answer


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """
    Connects to scripted servers.

    @ivar servers: one for each connection.
    """

    def __init__(self, clock: Clock, **answers: Callable[..., Any]) -> None:
        self.clock = clock
        self.servers: list[ScriptedServer] = []
        self._answers = answers

    def connect(self, factory: Any) -> Deferred[Any]:
        protocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1935))
        self.servers.append(ScriptedServer(protocol, self.clock, **self._answers))
        return succeed(protocol)


class Outcome:
    """What a Deferred came to; it has no unhandled error any more."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.deferred = deferred
        self.results: list[Any] = []
        self.errors: list[BaseException] = []
        deferred.addCallbacks(
            self.results.append, lambda failure: self.errors.append(failure.value)
        )
        pumpAll()

    @property
    def pending(self) -> bool:
        pumpAll()
        return not self.results and not self.errors

    @property
    def result(self) -> Any:
        pumpAll()
        assert not self.errors, self.errors
        (result,) = self.results
        return result

    @property
    def error(self) -> ClientError:
        pumpAll()
        assert not self.results, self.results
        (error,) = self.errors
        assert isinstance(error, ClientError), repr(error)
        return error


@implementer(IMediaSink)
class Collector:
    """A sink that keeps all."""

    def __init__(self, stored: Deferred[None] | None = None) -> None:
        self.messages: list[Message] = []
        self.ended = 0
        self._stored = stored

    def mediaReceived(self, message: Message) -> None:
        assert not self.ended
        self.messages.append(message)

    def streamEnded(self) -> Deferred[None] | None:
        self.ended += 1
        return self._stored


def connected(
    clock: Clock,
    url: str = "rtmp://server/live/key",
    limits: ClientLimits = LIMITS,
    **answers: Callable[..., Any],
) -> tuple[RTMPClient, ScriptedServer]:
    """A client whose C{connect} a scripted server has accepted."""
    endpoint = MemoryEndpoint(clock, **answers)
    client = Outcome(connectRTMP(clock, url, endpoint=endpoint, limits=limits)).result
    return client, endpoint.servers[-1]


def publishing(clock, **answers):
    client, server = connected(clock, **answers)
    return client, server, Outcome(client.publish()).result


def playing(clock, sink=None, **answers):
    client, server = connected(clock, **answers)
    sink = Collector() if sink is None else sink
    return client, server, Outcome(client.play(None, sink)).result, sink


def byResult(server):
    server.command("_result", server.of("FCUnpublish").transactionId, None)
