"""
The server's end of one connection: commands, streams and deadlines.

Parses nothing: that is C{wire}'s part.  What is shared between connections is
the factory's.
"""

from __future__ import annotations

import math
import select
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail
from twisted.internet.interfaces import (
    IConsumer,
    IPushProducer,
    ITCPTransport,
    ITransport,
    IWriteDescriptor,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Attribute, implementer

from twisted_rtmp.interfaces import ConnectRequest, Refused, StreamRequest
from twisted_rtmp.names import applicationOf, printable, streamOf
from twisted_rtmp.players import Player, RTMPForm
from twisted_rtmp.wire.amfvalues import UNDEFINED
from twisted_rtmp.wire.connection import Connection, Role
from twisted_rtmp.wire.constants import NEED_DATA, MessageType, UserControlType
from twisted_rtmp.wire.errors import LimitError, MessageError, ProtocolError
from twisted_rtmp.wire.messages import (
    Command,
    ControlAnswered,
    HandshakeDone,
    Message,
    PassedOver,
    UserControl,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IDelayedCall

    from twisted_rtmp.factory import RTMPFactory
    from twisted_rtmp.streams import LiveStream

_T = TypeVar("_T")

_DATA: int = MessageType.DATA_AMF0

#: The window that is announced to peers, in bytes; nginx-rtmp's, lal's and
#: node-media-server's.
WINDOW = 5_000_000

#: Bytes that one read takes at most, and that are queued for a peer before nothing
#: more is read from it.  A read costs more than its bytes: at full speed a server
#: spends 1.5 s of CPU a GB in reads of 64 KiB, and a third of that in these.
READ_SIZE = 1024 * 1024

#: What the first reads take at most, until full ones turn out to be quick work: a
#: MiB of the smallest messages would be three seconds of it.
FIRST_READ_SIZE = 64 * 1024

#: What is read at a time of a peer that has taken L{SLOW_READ_SECONDS} for one read,
#: in bytes.  Chunks of one byte, each of another chunk stream, cost 2 us a byte: in
#: full reads, four such peers leave the others without service for seconds.
SLOW_READ_SIZE = 16 * 1024
SLOW_READ_SECONDS = 0.02

#: Chunk stream of onStatus and its kin; clients take 4 or 5.
STATUS_CHUNK_STREAM = 5

#: What is said in reply to C{connect}, as Flash Media Server 3 says it: some
#: encoders look for it.
SERVER_PROPERTIES = {"fmsVer": "FMS/3,0,1,123", "capabilities": 31.0, "mode": 1.0}

#: E-RTMP properties of C{connect}; a client that sends any gets an answer.
ENHANCED_PROPERTIES = frozenset(
    ("fourCcList", "videoFourCcInfoMap", "audioFourCcInfoMap", "capsEx")
)

#: Commands that are replies to ours: they are not answered.
REPLIES = frozenset(("_result", "_error", "onStatus", "onBWDone", "close"))


class IStreamTransport(ITransport, IConsumer, IPushProducer):
    """What the transports of TCP, TLS and UNIX sockets have in common."""

    bufferSize = Attribute("""Bytes of one read, and queued before a pause.""")

    def abortConnection() -> None:
        """Close at once, whatever is queued."""


class Phase(Enum):
    """How far a connection has come."""

    HANDSHAKE = "handshake"
    CONNECTING = "connect command"
    CONNECTED = "streams"
    CLOSING = "closing"
    CLOSED = "closed"


#: The phases that may follow each phase.
TRANSITIONS = {
    Phase.HANDSHAKE: {Phase.CONNECTING, Phase.CLOSING, Phase.CLOSED},
    Phase.CONNECTING: {Phase.CONNECTED, Phase.CLOSING, Phase.CLOSED},
    Phase.CONNECTED: {Phase.CLOSING, Phase.CLOSED},
    Phase.CLOSING: {Phase.CLOSED},
    Phase.CLOSED: set(),
}


class Hold(Enum):
    """Why nothing is read from a peer for now."""

    DECISION = "a decision is awaited"
    REPLIES = "the peer does not take its replies"
    SINK = "a recording or another sink is behind"
    PACE = "reads are gathered"


_PACE = (Hold.PACE, None)


class NetStream:
    """
    One message stream of a connection.

    @ivar id: the message stream id.
    @ivar live: the live stream that is published on it, or L{None}.
    @ivar player: what plays on it, or L{None}.
    @ivar name: the name the peer uses for it.
    @ivar heard: when audio or video came last, in the clock's seconds.
    """

    __slots__ = ("heard", "id", "live", "name", "player", "protocol")

    def __init__(self, protocol: RTMPProtocol, id: int) -> None:  # noqa: A002
        self.protocol = protocol
        self.id = id
        self.live: LiveStream | None = None
        self.player: Player | None = None
        self.name = ""
        self.heard = 0.0

    # What a live stream knows as its publisher

    @property
    def peer(self) -> str:
        return self.protocol.peer

    @property
    def connection(self) -> object:
        return self.protocol

    def takenOver(self) -> None:
        self.protocol.takenOver(self)

    # What a player knows as its outlet

    @property
    def congested(self) -> bool:
        return self.protocol.congested

    def writeMedia(self, data: bytes) -> None:
        self.protocol.writeMedia(data)

    def streamBegan(self, player: Player, again: bool) -> None:
        self.protocol.streamBegan(self, player, again)

    def streamOver(self, player: Player) -> None:
        self.protocol.streamOver(self, player)

    def cut(self, why: str) -> None:
        self.protocol.abort(why)

    def pauseProducing(self) -> None:
        self.protocol.hold(Hold.SINK, self)

    def resumeProducing(self) -> None:
        self.protocol.release(Hold.SINK, self)


@implementer(IPushProducer)
class RTMPProtocol(Protocol):
    """
    The server's end of one connection.

    Bytes go into a L{Connection}; its events are dispatched one by one until
    it needs data, or a decision is awaited, or the peer does not take its
    replies.  Then the rest waits in the accumulator, and TCP slows the peer
    down.

    @ivar factory: what the connections share.
    @ivar application: the application of C{connect}.
    @ivar peer: the peer's address, for log lines.
    @ivar congested: whether more is queued for the peer than it takes.
    """

    log = Logger()
    factory: RTMPFactory
    transport: IStreamTransport

    def __init__(self, factory: RTMPFactory, address: IAddress | None) -> None:
        self.factory = factory
        self.application = ""
        self.peer = "?"
        self._address = address
        self._clock = factory.clock
        self._limits = factory.limits
        self._connection = Connection(Role.SERVER, factory.limits.wire)
        self._phase = Phase.HANDSHAKE
        self._dispatching = True
        self._running = False
        self._request: ConnectRequest | None = None
        self._netStreams: dict[int, NetStream] = {}
        self._lastStreamId = 0
        self._publishing: dict[int, NetStream] = {}
        self.congested = False
        self._writeNow: Callable[[], object] | None = None
        # Tells whether a publisher has closed its end.  Then it is sent nothing: it
        # would answer with a reset, and an error on writing ends a connection before
        # all that came has been read.  The end of a fast encoder's stream gets lost
        # so, since it closes while megabytes wait in the kernel.
        self._hangUp: select.poll | None = None
        # Each hold, with whom it is for.
        self._holds: set[tuple[Hold, object]] = set()
        self._decision: Deferred[Any] | None = None
        self._heard = 0.0
        self._heldSince = 0.0
        self._since = 0.0
        self._idleSince = 0.0
        self._timer: IDelayedCall | None = None
        self._unpublished = 0
        self._unknown: set[str] = set()

    # From the transport

    def connectionMade(self) -> None:
        address = self._address
        host = getattr(address, "host", None)
        if host is None:
            self.peer = printable(str(getattr(address, "name", "local") or "local"))
        else:
            self.peer = f"{host}:{getattr(address, 'port', 0)}"
        transport = self.transport
        # A UNIX socket's transport has neither.
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        if IWriteDescriptor.providedBy(transport):
            self._writeNow = transport.doWrite
        transport.bufferSize = min(FIRST_READ_SIZE, self._limits.queuedReplyBytes)
        transport.registerProducer(self, True)
        self._heard = self._since = self._clock.seconds()
        self.factory.connectionOpened(self)
        self._setTimer()

    def dataReceived(self, data: bytes) -> None:
        if self._phase is Phase.CLOSING:
            return  # TLS reads on, for the peer's word that it closes too
        self._heard = now = self._clock.seconds()
        self._connection.feed(data)
        size = len(data)
        full = size >= self.transport.bufferSize
        messages = self._run()
        self._fitReads(full, self._clock.seconds() - now)
        if self._publishing:
            self.factory.pacer.readDone(self, size, messages, now, full)

    def _fitReads(self, full: bool, seconds: float) -> None:
        """
        Read less of a peer whose bytes are dear, so that others get their turn.

        @param full: whether a read brought as much as it may.
        @param seconds: what that took.
        """
        transport = self.transport
        if seconds > SLOW_READ_SECONDS:
            transport.bufferSize = min(SLOW_READ_SIZE, transport.bufferSize)
        elif full:
            # At once, where the largest read would be quick work, too: sizes between
            # are seldom filled, and would stay.
            most = min(READ_SIZE, self._limits.queuedReplyBytes)
            if seconds * most < SLOW_READ_SECONDS * transport.bufferSize:
                transport.bufferSize = most

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        wasClosing = self._phase is Phase.CLOSING
        connected = self._phase is Phase.CONNECTED or (
            wasClosing and self._request is not None
        )
        self._enter(Phase.CLOSED)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._decision is not None:
            self._decision.cancel()
        self._endStreams()
        self._netStreams.clear()
        self.factory.connectionClosed(self)
        if connected:
            self.log.info(
                "{peer} disconnected{how}: {received} bytes received, {sent} sent",
                peer=self.peer,
                how="" if wasClosing else f" ({_reasonOf(reason)})",
                received=self._connection.bytesReceived,
                sent=self._connection.bytesSent,
            )

    # The transport's producer: it has more to send than it likes to keep

    def pauseProducing(self) -> None:
        """The peer does not take its replies: read no more from it."""
        self.congested = True
        self._heldSince = self._clock.seconds()
        self.hold(Hold.REPLIES)
        self._setTimer()

    def resumeProducing(self) -> None:
        """The peer has taken what was queued for it."""
        self.congested = False
        for netStream in list(self._netStreams.values()):
            if netStream.player is not None:
                netStream.player.drain()
        if not self.congested:
            self.release(Hold.REPLIES)
            if self._phase is Phase.CONNECTED:
                self._setTimer()

    def stopProducing(self) -> None:
        """The connection is lost; L{connectionLost} sees to all."""

    # Reading, and not reading

    def hold(self, reason: Hold, holder: object = None) -> None:
        """Read nothing from the peer until the same hold is released."""
        if self._phase in (Phase.CLOSING, Phase.CLOSED):
            return
        if not self._holds:
            self.transport.pauseProducing()
        self._holds.add((reason, holder))
        self._setDispatching()

    def release(self, reason: Hold, holder: object = None) -> None:
        """End a hold; with the last one, reading goes on."""
        if (reason, holder) not in self._holds:
            return
        self._holds.remove((reason, holder))
        self._setDispatching()
        if self._phase is Phase.CLOSED:
            return
        if reason is not Hold.REPLIES:
            # The peer could not be heard: it has not been silent.
            now = self._clock.seconds()
            for netStream in self._publishing.values():
                netStream.heard = now
        if not self._holds:
            self.transport.resumeProducing()
        self._run()

    def holdPace(self) -> None:
        """Put the next read off."""
        if not self._holds and self._phase is not Phase.CLOSED:
            self.transport.pauseProducing()
        self._holds.add(_PACE)

    def releasePace(self) -> None:
        """Read what has come meanwhile."""
        self._holds.discard(_PACE)
        if not self._holds and self._phase is not Phase.CLOSED:
            self.transport.resumeProducing()

    def _setDispatching(self) -> None:
        """Note whether events may be dispatched: asked once a message."""
        self._dispatching = (
            self._phase not in (Phase.CLOSING, Phase.CLOSED)
            and self._decision is None
            and (Hold.REPLIES, None) not in self._holds
        )

    def _run(self) -> int:
        """
        Dispatch events until none is left or something is to be awaited.

        @return: how many audio, video and data messages there were.
        """
        if self._running:
            # A sink has let us go on amid a message: the loop below does so, in
            # order and without nesting.
            return 0
        self._running = True
        messages = 0
        connection = self._connection
        nextEvent = connection.nextEvent
        publishing = self._publishing
        try:
            while self._dispatching:
                event = nextEvent()
                if event is NEED_DATA:
                    break
                if event.__class__ is Message:
                    messages += 1
                    netStream = publishing.get(event.streamId)
                    if netStream is not None:
                        live = netStream.live
                        assert live is not None
                        if event.typeId != _DATA:
                            netStream.heard = self._heard
                        live.messageReceived(event)
                    else:
                        self._strayMessage(event)
                    continue
                _EVENTS[event.__class__](self, event)
                self._flush()
        except ProtocolError as error:
            self._violated(error)
        finally:
            self._running = False
        self._flush()
        return messages

    def _flush(self) -> None:
        data = self._connection.dataToSend()
        if not data or (self._hangUp is not None and self._hangUp.poll(0)):
            return
        self.transport.write(data)
        if self._publishing and self._writeNow is not None and not self.congested:
            self._writeNow()

    # Phases, deadlines and the end

    def _enter(self, phase: Phase) -> None:
        """The only place that changes the phase."""
        if phase not in TRANSITIONS[self._phase]:
            raise AssertionError(f"{self._phase} does not lead to {phase}")
        self._phase = phase
        self._since = self._clock.seconds()
        self._setDispatching()

    def _deadline(self) -> tuple[float, str]:
        """When this connection is to be cut, in the clock's time, and why."""
        limits = self._limits
        if self._phase is Phase.CLOSING:
            return self._since + limits.drainSeconds, ""
        if (Hold.REPLIES, None) in self._holds:
            when = self._heldSince + limits.drainSeconds
            return when, f"it takes no replies for {limits.drainSeconds:g} s"
        if self._phase is Phase.HANDSHAKE:
            return (
                self._since + limits.handshakeSeconds,
                f"no complete handshake within {limits.handshakeSeconds:g} s",
            )
        if self._phase is Phase.CONNECTING:
            return (
                self._since + limits.connectSeconds,
                f"not connected within {limits.connectSeconds:g} s",
            )
        seconds = 0.0
        if self._publishing:
            now = self._clock.seconds()
            heard = min(
                now if n.live is not None and n.live.throttled else n.heard
                for n in self._publishing.values()
            )
            return (
                heard + limits.publisherIdleSeconds,
                f"no audio or video for {limits.publisherIdleSeconds:g} s",
            )
        waiting = self._idleSince
        for netStream in self._netStreams.values():
            player = netStream.player
            if player is not None:
                if player.group is not None:
                    return math.inf, ""
                waiting = max(waiting, player.since)
                seconds = limits.playerWaitSeconds
        if seconds:
            return waiting + seconds, f"no stream to play for {seconds:g} s"
        return (
            self._idleSince + limits.idleSeconds,
            f"neither publishes nor plays for {limits.idleSeconds:g} s",
        )

    def _setTimer(self) -> None:
        """See to it that the deadline is looked at when it is due."""
        when, _ = self._deadline()
        if when == math.inf:
            return  # a timer that is due meanwhile sets no other one
        if self._timer is not None:
            if self._timer.getTime() <= when:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(
            max(0.0, when - self._clock.seconds()), self._timerDue
        )

    def _timerDue(self) -> None:
        self._timer = None
        when, why = self._deadline()
        if self._clock.seconds() < when:
            self._setTimer()
        elif self._phase is Phase.CLOSING or (Hold.REPLIES, None) in self._holds:
            if why:
                self._cut(why)
            self.transport.abortConnection()
        else:
            self._cut(why)
            self.close()

    def _cut(self, why: str) -> None:
        self.factory.counters.cut += 1
        self.log.warn("{peer} is cut: {why}", peer=self.peer, why=why)

    def abort(self, why: str) -> None:
        """Close at once, whatever is queued."""
        self._cut(why)
        self.transport.abortConnection()

    def close(self) -> None:
        """
        Close the connection when what is queued has been sent; at the drain
        limit at the latest.
        """
        if self._phase is Phase.CLOSING or self._phase is Phase.CLOSED:
            return
        # First of all: a sink of a stream that ends may release its hold.
        self._enter(Phase.CLOSING)
        self._endStreams()
        self._flush()
        self.transport.unregisterProducer()
        if self._holds:
            # TLS ends only when the peer's answer to its end can be read.
            self._holds.clear()
            self.transport.resumeProducing()
        self.transport.loseConnection()
        self._setTimer()

    def _violated(self, error: ProtocolError) -> None:
        """The peer did what is not allowed."""
        self.factory.counters.violations += 1
        rule = f" ({error.section})" if error.section else ""
        self.log.warn(
            "{peer} is cut for a protocol error: {error}{rule}",
            peer=self.peer,
            error=str(error),
            rule=rule,
        )
        self.close()

    # Decisions

    def _decide(
        self,
        asked: Awaitable[_T] | _T,
        allowed: Callable[[_T], None],
        refused: Callable[[Refused], None],
    ) -> None:
        """
        Go on when a decision is there; dispatch nothing meanwhile.

        @param asked: what the authorizer returned.
        """
        if not isinstance(asked, Awaitable):
            allowed(asked)
            return
        if isinstance(asked, Deferred):
            deferred: Deferred[_T] = asked
        else:
            deferred = ensureDeferred(cast("Any", asked))

        # Most decisions are there at once; then the loop that asked goes on by
        # itself, however many questions the peer has queued.
        atOnce = True

        def decided(result: _T | Failure) -> None:
            self._decision = None
            self._setDispatching()
            if self._phase in (Phase.CLOSING, Phase.CLOSED):
                if isinstance(result, Failure):
                    result.trap(Refused, CancelledError)
                return
            if not isinstance(result, Failure):
                allowed(result)
            elif result.check(Refused):
                refused(cast("Refused", result.value))
            else:
                self.log.failure("{peer}: no decision", result, peer=self.peer)
                refused(Refused("The server could not decide."))
            if not atOnce:
                self._flush()
                self.release(Hold.DECISION)

        self._decision = deferred
        self._setDispatching()
        deferred.addBoth(decided)
        atOnce = False
        if self._decision is not None:
            # It is not the peer that is idle.
            self._idleSince = self._clock.seconds()
            self.hold(Hold.DECISION)

    def _ask(
        self,
        method: Callable[[Any], Any] | None,
        request: ConnectRequest | StreamRequest,
        allowed: Callable[[Any], None],
        refused: Callable[[Refused], None],
    ) -> None:
        """Ask the authorizer, if there is one."""
        if method is None:
            allowed(None)
            return
        try:
            asked = method(request)
        except Refused as refusal:
            refused(refusal)
            return
        except Exception:
            # An application's bug: no permission either, and the peer is told so.
            asked = fail()
        self._decide(asked, allowed, refused)

    # Events

    def _handshakeDone(self, event: HandshakeDone) -> None:
        self._enter(Phase.CONNECTING)
        self._setTimer()

    def _commandReceived(self, command: Command) -> None:
        method = _COMMANDS.get(command.name)
        if self._phase is not Phase.CONNECTED and command.name != "connect":
            raise MessageError(
                f"{printable(command.name)!r} came before connect",
                section="RTMP 1.0, 7.2.1",
            )
        if method is not None:
            method(self, command)
        elif command.name not in REPLIES:
            if len(self._unknown) < self._limits.netStreams:
                if command.name not in self._unknown:
                    self.log.info(
                        "{peer} sent an unknown command, {name}",
                        peer=self.peer,
                        name=printable(command.name),
                    )
                self._unknown.add(command.name)
            # No error: FMLE and its kin end at one.
            self._reply(command, None)

    def _userControl(self, event: UserControl) -> None:
        """Set Buffer Length and the like: nothing that a live server needs."""

    def _controlAnswered(self, event: ControlAnswered) -> None:
        """The answer is sent as any other."""

    def _passedOver(self, event: PassedOver) -> None:
        self.log.info(
            "{peer} sends messages of type {type}, which are passed over",
            peer=self.peer,
            type=event.typeId,
        )

    def _strayMessage(self, message: Message) -> None:
        """Media on a message stream that publishes nothing."""
        if message.typeId in (8, 9) or self._publishing:
            if len(self._publishing) == 1:
                # node-media-server's client sends media on message stream 0.
                [netStream] = self._publishing.values()
                assert netStream.live is not None
                if message.typeId != _DATA:
                    netStream.heard = self._heard
                netStream.live.messageReceived(message)
                return
            if not self._unpublished:
                self.log.warn(
                    "{peer} sends media without publishing; they are discarded",
                    peer=self.peer,
                )
            self._unpublished += 1
            self.factory.counters.strayMessages += 1

    # Replies

    def _reply(self, command: Command, *values: object) -> None:
        """Answer a command, if it asks for an answer."""
        if command.transactionId:
            self._connection.sendCommand(
                "_result", command.transactionId, *values, amf3=command.amf3
            )

    def _sendStatus(
        self, streamId: int, level: str, code: str, description: str, **more: object
    ) -> None:
        """Tell the peer of a stream's state, on the stream's own message id."""
        self._connection.sendCommand(
            "onStatus",
            0,
            None,
            {"level": level, "code": code, "description": description, **more},
            streamId=streamId,
            csid=STATUS_CHUNK_STREAM,
        )

    # Commands of the connection.  RTMP 1.0, 7.2.1

    def command_connect(self, command: Command) -> None:
        if self._phase is not Phase.CONNECTING:
            raise MessageError("a second connect", section="RTMP 1.0, 7.2.1.1")
        properties = command.argument(0)
        if not isinstance(properties, dict):
            properties = {}
        application, query = applicationOf(properties)
        request = ConnectRequest(application, query, self._address, properties)
        authorizer = self.factory.authorizer
        self._ask(
            None if authorizer is None else authorizer.connect,
            request,
            lambda _: self._connectAllowed(command, request),
            lambda refusal: self._connectRefused(command, request, refusal),
        )

    def _connectAllowed(self, command: Command, request: ConnectRequest) -> None:
        self._request = request
        self.application = request.application
        self._enter(Phase.CONNECTED)
        self._idleSince = self._clock.seconds()
        self._setTimer()
        connection = self._connection
        # In this order: peers size their buffers before they read on, and
        # ffmpeg takes the chunk size for its own sending.
        connection.sendWindowAcknowledgementSize(WINDOW)
        connection.sendPeerBandwidth(WINDOW)
        connection.sendUserControl(UserControlType.STREAM_BEGIN, 0)
        connection.sendChunkSize(self.factory.chunkSize)
        encoding = request.properties.get("objectEncoding")
        information: dict[str, Any] = {
            "level": "status",
            "code": "NetConnection.Connect.Success",
            "description": "Connection succeeded.",
            "objectEncoding": encoding if isinstance(encoding, float) else 0.0,
        }
        properties: dict[str, Any] = SERVER_PROPERTIES
        if ENHANCED_PROPERTIES & request.properties.keys():
            # Everything is passed on as it comes, whatever its codec.
            information["fourCcList"] = ["*"]
        connection.sendCommand(
            "_result",
            command.transactionId or 1,
            properties,
            information,
            amf3=command.amf3,
        )
        connection.sendCommand("onBWDone", 0, None)
        self.log.info(
            "{peer} connected to {application}{agent}",
            peer=self.peer,
            application=printable(request.application) or "the empty application",
            agent=_agentOf(request.properties),
        )

    def _connectRefused(
        self, command: Command, request: ConnectRequest, refusal: Refused
    ) -> None:
        self._connection.sendCommand(
            "_error",
            command.transactionId or 1,
            None,
            {
                "level": "error",
                "code": "NetConnection.Connect.Rejected",
                "description": refusal.description,
            },
            amf3=command.amf3,
        )
        self.factory.counters.refused += 1
        self.log.warn(
            "{peer} is refused the application {application}: {why}",
            peer=self.peer,
            application=printable(request.application),
            why=printable(refusal.description),
        )
        self.close()

    def command_createStream(self, command: Command) -> None:
        if len(self._netStreams) >= self._limits.netStreams:
            self._connection.sendCommand(
                "_error",
                command.transactionId,
                None,
                {
                    "level": "error",
                    "code": "NetConnection.Call.Failed",
                    "description": f"No more than {self._limits.netStreams} streams.",
                },
                amf3=command.amf3,
            )
            return
        self._lastStreamId += 1
        while self._lastStreamId in self._netStreams:
            self._lastStreamId += 1
        self._netStreams[self._lastStreamId] = NetStream(self, self._lastStreamId)
        self._reply(command, None, float(self._lastStreamId))

    def command_releaseStream(self, command: Command) -> None:
        """Asks to free a name.  A name is only ever its publisher's to free."""
        self._reply(command, None, UNDEFINED)

    def command_FCPublish(self, command: Command) -> None:
        """FMLE goes on only after C{onFCPublish}."""
        name, _ = streamOf(command.argument(1))
        self._connection.sendCommand(
            "onFCPublish",
            0,
            None,
            {"code": "NetStream.Publish.Start", "description": name},
        )
        self._reply(command, None, UNDEFINED)

    def command_FCUnpublish(self, command: Command) -> None:
        name, _ = streamOf(command.argument(1))
        self._connection.sendCommand(
            "onFCUnpublish",
            0,
            None,
            {"code": "NetStream.Unpublish.Success", "description": name},
        )
        self._reply(command, None, UNDEFINED)
        for netStream in list(self._publishing.values()):
            if netStream.name == name:
                self._stopPublishing(netStream)

    def command_FCSubscribe(self, command: Command) -> None:
        name, _ = streamOf(command.argument(1))
        self._connection.sendCommand(
            "onFCSubscribe",
            0,
            None,
            {"code": "NetStream.Play.Start", "description": name},
        )
        self._reply(command, None, UNDEFINED)

    def command__checkbw(self, command: Command) -> None:
        self._reply(command, None)

    def command_play(self, command: Command) -> None:
        """
        Play a live stream, or wait for it.

        Its start may be -2 (live, or else recorded), -1 (live) or a time in a
        recording, in any spelling of these that clients have; all of them mean
        the live stream here.
        """
        netStream = self._netStreamFor(command)
        self._endStream(netStream)
        name, query = streamOf(command.argument(1))
        netStream.name = name
        reset = command.argument(4, True)
        request = self._streamRequest(name, query)
        authorizer = self.factory.authorizer
        self._ask(
            None if authorizer is None else authorizer.play,
            request,
            lambda renamed: self._playAllowed(netStream, renamed, bool(reset)),
            lambda refusal: self._playRefused(netStream, refusal.description),
        )

    def _playAllowed(
        self, netStream: NetStream, renamed: str | None, reset: bool
    ) -> None:
        now = self._clock.seconds()
        name = netStream.name if renamed is None else renamed
        label = printable(netStream.name)
        form = RTMPForm(netStream.id, self.factory.chunkSize)
        player = Player(netStream, form, netStream.name, now)
        netStream.player = player
        self._connection.sendUserControl(UserControlType.STREAM_BEGIN, netStream.id)
        if reset:
            self._sendStatus(
                netStream.id,
                "status",
                "NetStream.Play.Reset",
                f"Playing and resetting {label}.",
                details=netStream.name,
            )
        self._sendStatus(
            netStream.id,
            "status",
            "NetStream.Play.Start",
            f"Started playing {label}.",
            details=netStream.name,
        )
        there = self.factory.play(self.application, name, player)
        self._setTimer()
        self.log.info(
            "{peer} plays {application}/{name}{how}",
            peer=self.peer,
            application=printable(self.application),
            name=printable(name),
            how="" if there else ", which is not being published yet",
        )

    def _playRefused(self, netStream: NetStream, why: str) -> None:
        self.factory.counters.refused += 1
        self._sendStatus(netStream.id, "error", "NetStream.Play.Failed", why)
        self.log.warn(
            "{peer} is refused a stream of {application} to play: {why}",
            peer=self.peer,
            application=printable(self.application) or "the empty application",
            why=printable(why),
        )
        self.close()

    def command_pause(self, command: Command) -> None:
        netStream = self._netStreams.get(command.streamId)
        if netStream is None or netStream.player is None:
            return
        paused = command.argument(1) is not False
        netStream.player.pause(paused)
        self._sendStatus(
            netStream.id,
            "status",
            "NetStream.Pause.Notify" if paused else "NetStream.Unpause.Notify",
            "Paused." if paused else "Going on with the next key frame.",
        )

    def command_pauseRaw(self, command: Command) -> None:
        self.command_pause(command)

    def command_receiveAudio(self, command: Command) -> None:
        netStream = self._netStreams.get(command.streamId)
        if netStream is not None and netStream.player is not None:
            netStream.player.receive(audio=command.argument(1) is not False)

    def command_receiveVideo(self, command: Command) -> None:
        netStream = self._netStreams.get(command.streamId)
        if netStream is not None and netStream.player is not None:
            netStream.player.receive(video=command.argument(1) is not False)

    def command_seek(self, command: Command) -> None:
        """There is no other time in a live stream to go to."""
        netStream = self._netStreams.get(command.streamId)
        if netStream is not None and netStream.player is not None:
            self._sendStatus(
                netStream.id,
                "error",
                "NetStream.Seek.Failed",
                "A live stream cannot be sought in.",
            )

    # What a player needs

    def writeMedia(self, data: bytes) -> None:
        """Send a player's messages, behind all replies."""
        self._flush()
        self._connection.bytesSent += len(data)
        self.transport.write(data)
        if self._writeNow is not None and not self.congested:
            # Not to wait for the reactor's next turn: it would only call this.  A
            # failure shows again when the reactor reads.
            self._writeNow()

    def streamBegan(self, netStream: NetStream, player: Player, again: bool) -> None:
        """Tell the peer that a stream it waits for is published."""
        if again:
            self._connection.sendUserControl(UserControlType.STREAM_BEGIN, netStream.id)
            self._sendStatus(
                netStream.id,
                "status",
                "NetStream.Play.PublishNotify",
                f"{printable(player.name)} is now published.",
                details=player.name,
            )
            self._flush()

    def streamOver(self, netStream: NetStream, player: Player) -> None:
        """
        Tell the peer that there is nothing more to come: players leave at this,
        and hang without it.
        """
        name = printable(player.name)
        self._sendStatus(
            netStream.id,
            "status",
            "NetStream.Play.UnpublishNotify",
            f"{name} is no longer published.",
            details=player.name,
        )
        self._connection.sendUserControl(UserControlType.STREAM_EOF, netStream.id)
        self._sendStatus(
            netStream.id,
            "status",
            "NetStream.Play.Stop",
            f"Stopped playing {name}.",
            details=player.name,
        )
        self._flush()
        self._setTimer()

    def command_getStreamLength(self, command: Command) -> None:
        """A live stream has no length."""
        self._reply(command, None, 0.0)

    # Commands of a stream.  RTMP 1.0, 7.2.2

    def command_deleteStream(self, command: Command) -> None:
        argument = command.argument(1)
        if isinstance(argument, str):
            # GStreamer names the stream where its id belongs.
            name, _ = streamOf(argument)
            found = [n for n in self._netStreams.values() if n.name == name]
        else:
            streamId = int(argument) if _isStreamId(argument) else command.streamId
            found = [n for n in self._netStreams.values() if n.id == streamId]
        for netStream in found:
            self._endStream(netStream)
            del self._netStreams[netStream.id]

    def command_closeStream(self, command: Command) -> None:
        netStream = self._netStreams.get(command.streamId)
        if netStream is not None:
            self._endStream(netStream)

    def _endStream(self, netStream: NetStream) -> None:
        """The peer ends what it does on a message stream, and stays."""
        self._stopPublishing(netStream)
        if netStream.player is not None:
            self._stopPlaying(netStream)
            self._idleSince = self._clock.seconds()
            self._setTimer()

    def _endStreams(self) -> None:
        """The connection ends: take its streams off."""
        for netStream in self._netStreams.values():
            self._unpublish(netStream)
            self._stopPlaying(netStream)

    def _stopPlaying(self, netStream: NetStream) -> None:
        player, netStream.player = netStream.player, None
        if player is not None:
            self.factory.stopPlaying(player)
            if player.dropped:
                self.log.info(
                    "{peer} got {sent} messages of {name}; {dropped} were dropped"
                    " since it did not keep up",
                    peer=self.peer,
                    sent=player.sent,
                    name=printable(player.name),
                    dropped=player.dropped,
                )

    def _netStreamFor(self, command: Command) -> NetStream:
        """
        The stream that a command came on.

        A peer may use an id that it did not create: it is taken as it is, and
        replies go to it.
        """
        netStream = self._netStreams.get(command.streamId)
        if netStream is None:
            if len(self._netStreams) >= self._limits.netStreams:
                raise LimitError(
                    f"more than {self._limits.netStreams} message streams",
                    limit=self._limits.netStreams,
                    got=len(self._netStreams) + 1,
                )
            netStream = NetStream(self, command.streamId)
            self._netStreams[command.streamId] = netStream
        return netStream

    def _streamRequest(self, name: str, query: str) -> StreamRequest:
        """What an authorizer is asked about."""
        assert self._request is not None
        return StreamRequest(
            self.application, name, query, self._address, self._request
        )

    def command_publish(self, command: Command) -> None:
        netStream = self._netStreamFor(command)
        self._endStream(netStream)
        name, query = streamOf(command.argument(1))
        netStream.name = name
        request = self._streamRequest(name, query)
        authorizer = self.factory.authorizer
        self._ask(
            None if authorizer is None else authorizer.publish,
            request,
            lambda renamed: self._publishAllowed(netStream, renamed),
            lambda refusal: self._publishRefused(
                netStream, "NetStream.Publish.Denied", refusal.description
            ),
        )

    def _publishAllowed(self, netStream: NetStream, renamed: str | None) -> None:
        name = netStream.name if renamed is None else renamed
        live = self.factory.publish(self.application, name, netStream)
        if live is None:
            self._publishRefused(
                netStream,
                "NetStream.Publish.BadName",
                f"{printable(name)} is being published.",
            )
            return
        netStream.live = live
        self._hangUp = _hangUpPoll(self.transport)
        netStream.heard = self._clock.seconds()
        self._publishing[netStream.id] = netStream
        self._setTimer()
        self._connection.sendUserControl(UserControlType.STREAM_BEGIN, netStream.id)
        self._sendStatus(
            netStream.id,
            "status",
            "NetStream.Publish.Start",
            f"{printable(netStream.name)} is now published.",
            details=netStream.name,
        )
        self.log.info("{peer} publishes {stream}", peer=self.peer, stream=live.label)

    def _publishRefused(self, netStream: NetStream, code: str, why: str) -> None:
        """Tell why, then close: OBS shows it and does not come again."""
        self.factory.counters.refused += 1
        self._sendStatus(netStream.id, "error", code, why)
        self.log.warn(
            "{peer} is refused a stream of {application}: {why}",
            peer=self.peer,
            application=printable(self.application) or "the empty application",
            why=printable(why),
        )
        self.close()

    def _stopPublishing(self, netStream: NetStream) -> None:
        """The peer ends its publication, and stays."""
        if netStream.live is None:
            return
        self._unpublish(netStream)
        self._sendStatus(
            netStream.id,
            "status",
            "NetStream.Unpublish.Success",
            f"{printable(netStream.name)} is no longer published.",
        )
        self._idleSince = self._clock.seconds()
        self._setTimer()

    def _unpublish(self, netStream: NetStream) -> None:
        """End a live stream of this connection."""
        live, netStream.live = netStream.live, None
        if live is not None:
            del self._publishing[netStream.id]
            self.factory.unpublish(live, netStream)

    def takenOver(self, netStream: NetStream) -> None:
        """Another publisher has taken a stream's name over."""
        self._unpublish(netStream)
        self._sendStatus(
            netStream.id,
            "error",
            "NetStream.Publish.BadName",
            "Another publisher has taken over.",
        )
        self.close()


_EVENTS: dict[type, Callable[[RTMPProtocol, Any], None]] = {
    HandshakeDone: RTMPProtocol._handshakeDone,
    Command: RTMPProtocol._commandReceived,
    UserControl: RTMPProtocol._userControl,
    PassedOver: RTMPProtocol._passedOver,
    ControlAnswered: RTMPProtocol._controlAnswered,
}

_COMMANDS: dict[str, Callable[[RTMPProtocol, Command], None]] = {
    name.removeprefix("command_"): method
    for name, method in vars(RTMPProtocol).items()
    if name.startswith("command_")
}


def _hangUpPoll(transport: object) -> select.poll | None:
    """
    What tells whether a transport's peer has closed its end.

    @return: L{None} where the system or the transport cannot tell.
    """
    socketTransport = getattr(transport, "transport", transport)  # TLS has one below
    fileno = getattr(socketTransport, "fileno", None)
    if fileno is None or not hasattr(select, "POLLRDHUP"):
        return None
    poll = select.poll()
    poll.register(fileno(), select.POLLRDHUP)
    return poll


def _isStreamId(value: object) -> TypeGuard[float]:
    """Whether an AMF number can be a message stream id."""
    return isinstance(value, (int, float)) and 0 <= value < 1 << 32


def _agentOf(properties: dict[str, Any]) -> str:
    """The peer's software, for a log line."""
    agent = properties.get("flashVer")
    return f" with {printable(agent)}" if isinstance(agent, str) and agent else ""


def _reasonOf(reason: Failure) -> str:
    """Why a connection was lost, in a few words."""
    return printable(reason.getErrorMessage()).rstrip(".")
