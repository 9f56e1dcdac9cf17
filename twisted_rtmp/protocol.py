"""The server's end of one connection over RTMP: its commands and deadlines."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from twisted_rtmp.connectobject import agentOf, bytesOf, isFFmpegPlayer, keptOf
from twisted_rtmp.interfaces import ConnectRequest, Refused, StreamRequest
from twisted_rtmp.link import (
    NO_DEADLINE,
    Deadline,
    Hold,
    Link,
    LinkState,
    MediaReceiver,
)
from twisted_rtmp.live.addresses import TokenBucket, hostOf
from twisted_rtmp.live.budget import PLAY_BYTES
from twisted_rtmp.live.connections import Description, connectionId
from twisted_rtmp.live.decisions import Action
from twisted_rtmp.live.registry import Registry
from twisted_rtmp.media.capabilities import (
    UNANNOUNCED,
    Capabilities,
    serverProperties,
)
from twisted_rtmp.names import parseApplication, parseStreamName, peerName, printable
from twisted_rtmp.netstream import STREAM_COMMANDS, NetStream
from twisted_rtmp.reconnect import checkReconnect, shownURL
from twisted_rtmp.wire.amfvalues import UNDEFINED
from twisted_rtmp.wire.connection import Role
from twisted_rtmp.wire.constants import (
    RECONNECT_REQUEST,
    MessageType,
    UserControlType,
)
from twisted_rtmp.wire.errors import (
    LimitError,
    MessageError,
    ProtocolError,
)
from twisted_rtmp.wire.messages import Command, HandshakeDone, Message

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IDelayedCall

_DATA: int = MessageType.DATA_AMF0

#: The window that is announced to peers, in bytes; nginx-rtmp's, lal's and
#: node-media-server's.
WINDOW = 5_000_000

#: How often it is looked, while a decision is awaited and nothing is read, whether the
#: peer has left, in seconds.
LEAVE_LOOK_SECONDS = 0.5

#: What is said in reply to C{connect}, as Flash Media Server 3 says it: some
#: encoders look for it.
SERVER_PROPERTIES = {"fmsVer": "FMS/3,0,1,123", "capabilities": 31.0, "mode": 1.0}

#: Unknown commands that are logged of one connection.  Encoders have two or three.
TOLD_COMMANDS = 32

#: Commands that are replies to ours: they are not answered.
REPLIES = frozenset(("_result", "_error", "onStatus", "onBWDone", "close"))

#: Commands on a message stream that the peer may not have created.
OPENING_COMMANDS = frozenset(("publish", "play"))


class RTMPProtocol(Link):
    """
    The server's end of one connection.

    @ivar registry: what the server's connections share.
    @ivar id: the connection's identifier, unique in this process.
    @ivar host: the address that it counts for; see L{hostOf}.
    @ivar chunkSize: of what is sent, in bytes.
    @ivar application: the application of C{connect}.
    @ivar policy: that application's, as it was then.
    @ivar capabilities: what the peer announced there.
    @ivar usefulAt: when media were sent or played last, in the clock's seconds.
    @ivar wantsSampleAccess: whether its players are told that they may read samples,
        as Flash Player wants it.
    """

    log = Logger()

    def __init__(
        self, registry: Registry, address: IAddress | None, *, chunkSize: int
    ) -> None:
        limits = registry.limits
        super().__init__(
            Role.SERVER,
            registry.clock,
            address,
            limits=limits.wire,
            queuedBytes=limits.queuedReplyBytes,
            drainSeconds=limits.drainSeconds,
            pacer=registry.pacer,
            turns=registry.turns,
        )
        self.registry = registry
        self.id = connectionId()
        self.host = hostOf(address)
        self.chunkSize = chunkSize
        self.application = ""
        self.capabilities = UNANNOUNCED
        self.wantsSampleAccess = True
        # Data that nobody has asked for are not worth reading: see setReceiver.
        self.wire.takesData = False
        self.policy = registry.policy
        self._limits = limits
        self._request: ConnectRequest | None = None
        self._requestBytes = 0
        self._netStreams: dict[int, NetStream] = {}
        self._lastStreamId = 0
        self._steps: Deferred[None] | None = None
        self._lookCall: IDelayedCall | None = None
        self._idleSince = 0.0
        self.usefulAt = 0.0
        # How long decisions have taken since then, and when that was.
        self._decided = 0.0
        self._decidedFor = 0.0
        self._askedAt = 0.0
        self._unpublished = 0
        self._paid = 0
        now = registry.clock.seconds()
        self._begun = TokenBucket(limits.streamBurst, now)
        self._gops = TokenBucket(limits.gopBurstBytes, now)
        # The hashes of the unknown commands that have been logged.
        self._unknown: set[int] = set()

    # From the transport

    def connectionMade(self) -> None:
        super().connectionMade()
        self.registry.connections.opened(self)
        self._account = self.registry.budget.connection(
            self, self.host, self._limits.wire.unfinishedBytes
        )
        self._streamShare = self._account.share(forAddress=True)
        self.chargeTo(self._account)

    def setCongested(self, congested: bool) -> None:
        super().setCongested(congested)
        for netStream in self._netStreams.values():
            netStream.congested = congested

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        wasClosing = self.state is LinkState.CLOSING
        connected = self.state is LinkState.CONNECTED or (
            wasClosing and self._request is not None
        )
        super().connectionLost(reason)
        self._stopLooking()
        if self._steps is not None:
            self._steps.cancel()
        self._netStreams.clear()
        self._account.close()
        self.registry.connections.closed(self)
        if connected:
            self.note(
                "{peer} disconnected{how}: {received} bytes received, {sent} sent",
                how="" if wasClosing else f" ({_reasonOf(reason)})",
                received=self.wire.bytesReceived,
                sent=self.wire.bytesSent,
            )

    def drained(self) -> None:
        players = [n.player for n in self._netStreams.values() if n.player is not None]
        # First the one that is in the middle of a message: no other may begin before.
        players.sort(key=lambda player: player.unfinished is None)
        for player in players:
            player.drain()

    def handshakeDone(self, event: HandshakeDone) -> None:
        self._identify()
        if self.state is LinkState.HANDSHAKE:
            super().handshakeDone(event)

    def _identify(self) -> None:
        """Learn the peer's address from its proxy, which has told it by now."""
        address = self.transport.getPeer()
        host = hostOf(address)
        if host == self.host:
            return
        before, self.host = self.host, ""
        self._address = address
        self.peer = peerName(address)
        self._account.moveTo(host)
        if self.registry.connections.identified(before, host):
            self.host = host
        else:
            self.close()

    # States, deadlines and the end

    def deadline(self) -> Deadline:
        if self._steps is not None:
            # What it waits for has a time limit of its own, and a reason to tell.
            return NO_DEADLINE
        limits = self._limits
        if self.state is LinkState.HANDSHAKE:
            seconds = limits.handshakeSeconds
            return self._since + seconds, "no complete handshake within", seconds
        if self.state is LinkState.CONNECTING:
            seconds = limits.connectSeconds
            return self._since + seconds, "not connected within", seconds
        return min(self._presentDeadline(), self._lastDeadline())

    def _presentDeadline(self) -> Deadline:
        """Find the deadline of what the connection does at present."""
        limits = self._limits
        if self.receivers:
            now = self._clock.seconds()
            heard = min(
                now if n.live.throttled else n.heard
                for n in self._netStreams.values()
                if n.live is not None
            )
            seconds = limits.publisherIdleSeconds
            return heard + seconds, "no audio or video for", seconds
        since = self._idleSince
        isPlayer = False
        for netStream in self._netStreams.values():
            player = netStream.player
            if player is not None:
                if player.group is not None:
                    return NO_DEADLINE
                since = max(since, player.since)
                isPlayer = True
        if isPlayer:
            seconds = limits.playerWaitSeconds
            return since + seconds, "no stream to play for", seconds
        seconds = limits.idleSeconds
        return since + seconds, "neither publishes nor plays for", seconds

    def _lastDeadline(self) -> Deadline:
        """
        Find the deadline that no command puts off: publishing again without media, or
        playing one missing stream after the other.
        """
        for netStream in self._netStreams.values():
            live, player = netStream.live, netStream.player
            if (live is not None and live.throttled) or (
                player is not None and player.group is not None
            ):
                return NO_DEADLINE
        limits = self._limits
        waiting = max(limits.publisherIdleSeconds, limits.playerWaitSeconds)
        seconds = limits.idleSeconds + waiting
        due = self.usefulAt + self._decisionSeconds + seconds
        return due, "no media, sent or played, for", seconds

    @property
    def _decisionSeconds(self) -> float:
        """
        Tell how long decisions have taken since it was of use: they are not its fault,
        up to the time limit of one.
        """
        return self._decided if self._decidedFor == self.usefulAt else 0.0

    def noteCut(self, why: str) -> None:
        self.registry.counters.cut += 1
        super().noteCut(why)

    def violated(self, error: ProtocolError) -> None:
        self.registry.counters.violations += 1
        super().violated(error)

    def idle(self) -> None:
        """Note that what was done on a message stream has ended: now it is idle."""
        self._idleSince = self._clock.seconds()
        self.setTimer()

    def ending(self) -> None:
        self.wire.forget()
        for netStream in self._netStreams.values():
            netStream.withdraw()

    def note(self, format: str, **fields: object) -> None:  # noqa: A002
        self._emit(LogLevel.info, format, fields)

    def warn(self, format: str, **fields: object) -> None:  # noqa: A002
        self._emit(LogLevel.warn, format, fields)

    def _emit(self, level: LogLevel, format: str, fields: dict[str, Any]) -> None:  # noqa: A002
        """Write a log line that the peer's bytes have paid for."""
        fields["peer"] = self.peer
        unpaid = self.unpaid()
        self.registry.peerLog.emit(self.log, level, format, fields, self.host, unpaid)

    def unpaid(self) -> int:
        """Take the bytes that came from the peer and have paid for no log line yet."""
        received = self.wire.bytesReceived
        unpaid, self._paid = received - self._paid, received
        return unpaid

    # Decisions

    def proceed(self, steps: Coroutine[Deferred[Any], Any, None]) -> None:
        """
        Take the steps that a command leads to, and dispatch nothing meanwhile.

        Mostly nothing has to be awaited; then the loop that dispatched the command
        goes on by itself, however many the peer has queued.

        @param steps: they begin at once, are cancelled when the peer leaves, and end by
            themselves when it is refused.
        """
        context = copy_context()  # as a Deferred gives each coroutine its own
        try:
            awaited = context.run(steps.send, None)
        except (StopIteration, CancelledError):
            return
        deferred = context.run(Deferred.fromCoroutine, _resumed(steps, awaited))
        deferred.addErrback(_unlessCancelled)
        if deferred.called:
            failures: list[Failure] = []
            deferred.addErrback(failures.append)
            for failure in failures:
                failure.raiseException()
            return
        self._steps = deferred
        self._askedAt = self._clock.seconds()
        self.hold(Hold.DECISION)
        self._lookLater()
        deferred.addBoth(self._proceeded)

    def _lookLater(self) -> None:
        """Look in a while whether the peer still waits: it is not read meanwhile."""
        self._lookCall = self._clock.callLater(LEAVE_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """End the connection if its peer has left, and nothing it sent is left."""
        self._lookCall = None
        if self.hasLeft:
            self.transport.abortConnection()
        else:
            self._lookLater()

    def _stopLooking(self) -> None:
        call, self._lookCall = self._lookCall, None
        if call is not None:
            call.cancel()

    def _proceeded(self, failure: Failure | None) -> None:
        """Dispatch again: the awaited steps have been taken."""
        self._steps = None
        self._stopLooking()
        if failure is not None:
            # As where a command is dispatched: a bug ends its own connection only.
            self.log.failure("{peer}: a command failed", failure, peer=self.peer)
            self.abort()
            return
        if self.state is LinkState.CONNECTED:
            # The peer could not go on: it has not been idle.
            self.idle()
            seconds = self._decisionSeconds + self._clock.seconds() - self._askedAt
            self._decided = min(seconds, self._limits.decisionSeconds)
            self._decidedFor = self.usefulAt
        self.flush()
        self.release(Hold.DECISION)

    async def decide(
        self, action: Action, request: ConnectRequest | StreamRequest
    ) -> str:
        """
        Ask whether the peer may do something.

        @return: the name under which it may.
        @raise Refused: it may not.
        @raise CancelledError: the connection has been closed meanwhile.
        """
        try:
            return await self.registry.decide(action, request)
        finally:
            self.goesOn()

    def goesOn(self) -> None:
        """
        Check, after something was awaited, that the connection is still of use.

        @raise CancelledError: it has been closed.
        """
        if self.state in (LinkState.CLOSING, LinkState.CLOSED):
            raise CancelledError

    # Events

    def commandReceived(self, command: Command) -> None:
        name = command.name
        if self.state is not LinkState.CONNECTED and name != "connect":
            raise MessageError(
                f"{printable(name)!r} came before connect",
                section="RTMP 1.0, 7.2.1",
            )
        if name in COMMANDS:
            COMMANDS[name](self, command)
        elif name in STREAM_COMMANDS:
            netStream = self._netStreamOf(command)
            if netStream is not None:
                STREAM_COMMANDS[name](netStream, command)
        elif name not in REPLIES:
            key = hash(name)
            if len(self._unknown) < TOLD_COMMANDS and key not in self._unknown:
                self._unknown.add(key)
                self.note(
                    "{peer} sent an unknown command, {name}",
                    name=printable(name),
                )
            # No error: FMLE and its kin end at one.
            self._reply(command, None)

    def strayMessage(self, message: Message) -> None:
        """Media on a message stream that publishes nothing."""
        if message.typeId in (8, 9) or self.receivers:
            if len(self.receivers) == 1:
                # node-media-server's client sends media on message stream 0.
                [receiver] = self.receivers.values()
                receiver.messageReceived(message)
                return
            if not self._unpublished:
                self.warn(
                    "{peer} sends media without publishing; they are discarded",
                )
            self._unpublished += 1
            self.registry.counters.strayMessages += 1

    # Replies

    def _reply(self, command: Command, *values: object) -> None:
        """Answer a command, if it asks for an answer."""
        if command.transactionId:
            self.wire.sendCommand(
                "_result", command.transactionId, *values, amf3=command.amf3
            )

    def requestReconnect(self, tcUrl: str = "", description: str = "") -> bool:
        """
        Ask the peer to reconnect, here or elsewhere.  E-RTMP v2, Reconnect Request.

        It is served on until it leaves, which takes it up to its next key frame and a
        new connection; nothing makes it.

        @param tcUrl: the server and application to connect to, absolute, or relative
            to the C{tcUrl} that the peer connected to: C{"rtmp://b:1935/live"},
            C{"//b/live"}, C{"/live"}; empty for the same once more.
        @param description: one sentence for people.
        @return: whether it was asked: only a connected peer is, that said in
            C{connect} that it obeys.
        @raise UsageError: the address or the description cannot be sent.
        """
        checkReconnect(tcUrl, description)
        if self.state is not LinkState.CONNECTED or not self.capabilities.reconnect:
            return False
        information = {"level": "status", "code": RECONNECT_REQUEST}
        if tcUrl:
            information["tcUrl"] = tcUrl
        if description:
            information["description"] = description
        self.wire.sendCommand("onStatus", 0, None, information)
        self.flush()
        self.registry.counters.reconnectRequests += 1
        self.note(
            "{peer} is asked to reconnect{where}",
            where=f", to {shownURL(tcUrl)}" if tcUrl else "",
        )
        return True

    # Commands of the connection.  RTMP 1.0, 7.2.1

    def command_connect(self, command: Command) -> None:
        if self.state is not LinkState.CONNECTING:
            raise MessageError("a second connect", section="RTMP 1.0, 7.2.1.1")
        properties = command.argument(0)
        if not isinstance(properties, dict):
            properties = {}
        application, query = parseApplication(properties)
        request = ConnectRequest(
            application,
            query,
            self._address,
            properties,
            kind=self._kind,
            connectionId=self.id,
        )
        self.proceed(self._connect(command, request))

    async def _connect(self, command: Command, request: ConnectRequest) -> None:
        try:
            await self.decide(Action.CONNECT, request)
        except Refused as refusal:
            self._connectRefused(command, request, refusal)
        else:
            self._connectAllowed(command, request)

    def _connectAllowed(self, command: Command, request: ConnectRequest) -> None:
        kept = keptOf(request.properties)
        if len(kept) < len(request.properties):
            request = replace(request, properties=kept)
        self._request = request
        self._requestBytes = bytesOf(request.properties)
        self.chargeStreams()
        self.application = request.application
        self.policy = self.registry.policyOf(request.application)
        self._limits = self.policy.limits
        self.capabilities = Capabilities.fromProperties(request.properties)
        self.wantsSampleAccess = not isFFmpegPlayer(request.properties)
        self._enter(LinkState.CONNECTED)
        self.usefulAt = self._clock.seconds()
        self.idle()
        connection = self.wire
        # In this order: peers size their buffers before they read on, and
        # ffmpeg takes the chunk size for its own sending.
        connection.sendWindowAcknowledgementSize(WINDOW)
        connection.sendPeerBandwidth(WINDOW)
        connection.sendUserControl(UserControlType.STREAM_BEGIN, 0)
        connection.sendChunkSize(self.chunkSize)
        encoding = request.properties.get("objectEncoding")
        information: dict[str, Any] = {
            "level": "status",
            "code": "NetConnection.Connect.Success",
            "description": "Connection succeeded.",
            # Those that there are; a client that wants another gets the older one.
            "objectEncoding": 3.0 if encoding == 3 else 0.0,
        }
        properties: dict[str, Any] = SERVER_PROPERTIES
        if self.capabilities.announced:
            # Only then: an older client may trip over what it does not know.
            information.update(serverProperties())
        connection.sendCommand(
            "_result",
            command.transactionId or 1,
            properties,
            information,
            amf3=command.amf3,
        )
        connection.sendCommand("onBWDone", 0, None)
        agent = agentOf(request.properties)
        self.note(
            "{peer} connected to {application}{agent}",
            application=printable(request.application) or "the empty application",
            agent=f" with {agent}" if agent else "",
        )

    def _connectRefused(
        self, command: Command, request: ConnectRequest, refusal: Refused
    ) -> None:
        self.wire.sendCommand(
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
        self.registry.counters.refused += 1
        self.warn(
            "{peer} is refused the application {application}: {why}",
            application=printable(request.application),
            why=printable(refusal.description),
        )
        self.close()

    def command_createStream(self, command: Command) -> None:
        if len(self._netStreams) >= self._limits.netStreams:
            self.wire.sendCommand(
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
        name, _ = parseStreamName(command.argument(1))
        self.wire.sendCommand(
            "onFCPublish",
            0,
            None,
            {"code": "NetStream.Publish.Start", "description": name},
        )
        self._reply(command, None, UNDEFINED)

    def command_FCUnpublish(self, command: Command) -> None:
        name, _ = parseStreamName(command.argument(1))
        self.wire.sendCommand(
            "onFCUnpublish",
            0,
            None,
            {"code": "NetStream.Unpublish.Success", "description": name},
        )
        self._reply(command, None, UNDEFINED)
        for netStream in list(self._netStreams.values()):
            if netStream.name == name:
                netStream.stopPublishing()

    def command_FCSubscribe(self, command: Command) -> None:
        name, _ = parseStreamName(command.argument(1))
        self.wire.sendCommand(
            "onFCSubscribe",
            0,
            None,
            {"code": "NetStream.Play.Start", "description": name},
        )
        self._reply(command, None, UNDEFINED)

    def command__checkbw(self, command: Command) -> None:
        self._reply(command, None)

    def command_getStreamLength(self, command: Command) -> None:
        """A live stream has no length."""
        self._reply(command, None, 0.0)

    def command_deleteStream(self, command: Command) -> None:
        argument = command.argument(1)
        if isinstance(argument, str):
            # GStreamer names the stream where its id belongs.
            name, _ = parseStreamName(argument)
            found = [n for n in self._netStreams.values() if n.name == name]
        else:
            streamId = int(argument) if _isStreamId(argument) else command.streamId
            found = [n for n in self._netStreams.values() if n.id == streamId]
        for netStream in found:
            netStream.end()
            del self._netStreams[netStream.id]

    def expel(self, why: str) -> None:
        """Cut the peer at once: nothing more of what it has sent is looked at."""
        self.noteCut(why)
        self.close()
        self.transport.abortConnection()

    # Message streams

    def mayBegin(self) -> bool:
        """Count a publish or play that begins; cut a peer that begins too many."""
        limits, now = self._limits, self._clock.seconds()
        if self._begun.take(limits.streamBurst, limits.streamRate, now):
            return True
        self.expel(
            f"it has begun more than {limits.streamBurst} streams and more than"
            f" {limits.streamRate:g} a second"
        )
        return False

    def mayBeginWith(self, gopBytes: int) -> bool:
        """Decide whether a player begins with a cached GOP of so many bytes."""
        limits, now = self._limits, self._clock.seconds()
        return self._gops.take(limits.gopBurstBytes, limits.gopRateBytes, now, gopBytes)

    def setReceiver(self, streamId: int, receiver: MediaReceiver | None) -> None:
        """Let a live stream take what comes on a message stream, or nothing."""
        if receiver is None:
            del self.receivers[streamId]
        else:
            self.receivers[streamId] = receiver
        self.wire.takesData = bool(self.receivers)

    def _netStreamOf(self, command: Command) -> NetStream | None:
        """
        The stream that a command came on, if there is one.

        A peer may publish or play on an id that it did not create: it is taken as
        it is, and replies go to it.
        """
        netStream = self._netStreams.get(command.streamId)
        if netStream is None and command.name in OPENING_COMMANDS:
            if len(self._netStreams) >= self._limits.netStreams:
                raise LimitError(
                    f"more than {self._limits.netStreams} message streams",
                    limit=self._limits.netStreams,
                    got=len(self._netStreams) + 1,
                )
            netStream = NetStream(self, command.streamId)
            self._netStreams[command.streamId] = netStream
        return netStream

    def streamRequest(self, name: str, query: str) -> StreamRequest:
        """Make the question that an authorizer is asked about a stream."""
        assert self._request is not None
        return StreamRequest(
            self.application, name, query, self._address, self._request
        )

    # Memory

    @property
    def isPublishing(self) -> bool:
        """Tell whether media of it have been taken."""
        return any(
            netStream.live is not None and netStream.live.frames
            for netStream in self._netStreams.values()
        )

    @property
    def sendsMedia(self) -> bool:
        return any(
            netStream.player is not None and netStream.player.group is not None
            for netStream in self._netStreams.values()
        )

    @property
    def inUse(self) -> bool:
        """Tell whether it publishes or plays something that is there."""
        return bool(self.receivers) or self.sendsMedia

    def giveUp(self, why: str) -> None:
        """Cut the peer: it takes too much memory."""
        self.expel(why)
        # Now, and not when the transport tells of the end: no other peer has to go.
        self._account.close()

    def chargeStreams(self) -> None:
        """Charge what the connect, publications and plays cost by themselves."""
        self._streamShare.set(
            self._requestBytes
            + PLAY_BYTES
            * sum(
                netStream.live is not None or netStream.player is not None
                for netStream in self._netStreams.values()
            )
        )

    # What others may know and do

    @property
    def _kind(self) -> str:
        """The protocol's name: C{"rtmp"} or C{"rtmps"}."""
        isTLS = ISSLTransport.providedBy(self.transport)
        return "rtmps" if isTLS else "rtmp"

    def describe(self) -> Description:
        request = self._request
        streams = self._netStreams.values()
        return Description(
            id=self.id,
            kind=self._kind,
            peer=self.peer,
            since=self.openedAt,
            state=self.state.value,
            bytesReceived=self.wire.bytesReceived,
            bytesSent=self.wire.bytesSent,
            application=self.application,
            agent="" if request is None else agentOf(request.properties),
            publishes=tuple(n.live.label for n in streams if n.live is not None),
            plays=tuple(n.player.label for n in streams if n.player is not None),
        )


#: The commands that are the connection's, by name.
COMMANDS: dict[str, Callable[[RTMPProtocol, Command], None]] = {
    name.removeprefix("command_"): method
    for name, method in vars(RTMPProtocol).items()
    if name.startswith("command_")
}


async def _resumed(
    steps: Coroutine[Deferred[Any], Any, None], awaited: Deferred[Any]
) -> None:
    """Go on with steps that have begun, and await something."""
    while True:
        try:
            result = await awaited
        except BaseException as error:
            resume = partial(steps.throw, error)
        else:
            resume = partial(steps.send, result)
        try:
            awaited = resume()
        except StopIteration:
            return


def _unlessCancelled(failure: Failure) -> None:
    """Take the end of steps that a closed connection has cancelled."""
    failure.trap(CancelledError)


def _isStreamId(value: object) -> TypeGuard[float]:
    """Tell whether an AMF number can be a message stream id."""
    return isinstance(value, (int, float)) and 0 <= value < 1 << 32


def _reasonOf(reason: Failure) -> str:
    """Why a connection was lost, in a few words."""
    return printable(reason.getErrorMessage()).rstrip(".")
