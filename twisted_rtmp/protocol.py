"""
The server's end of one connection: commands, streams and deadlines.

Parses nothing: that is C{wire}'s part.  What is shared between connections is
the factory's.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_rtmp.interfaces import ConnectRequest, Refused, StreamRequest
from twisted_rtmp.link import Hold, Link, Phase
from twisted_rtmp.names import applicationOf, printable, streamOf
from twisted_rtmp.players import Player, RTMPForm
from twisted_rtmp.wire.amfvalues import UNDEFINED
from twisted_rtmp.wire.connection import Role
from twisted_rtmp.wire.constants import MessageType, UserControlType
from twisted_rtmp.wire.errors import LimitError, MessageError, ProtocolError
from twisted_rtmp.wire.messages import Command, Message

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from twisted_rtmp.factory import RTMPFactory
    from twisted_rtmp.streams import LiveStream

_T = TypeVar("_T")

_DATA: int = MessageType.DATA_AMF0

#: The window that is announced to peers, in bytes; nginx-rtmp's, lal's and
#: node-media-server's.
WINDOW = 5_000_000

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


class NetStream:
    """
    One message stream of a connection.

    @ivar id: the message stream id.
    @ivar live: the live stream that is published on it, or L{None}.
    @ivar player: what plays on it, or L{None}.
    @ivar name: the name the peer uses for it.
    @ivar heard: when audio or video came last, in the clock's seconds.
    @ivar messageReceived: the live stream's; an attribute, since one call fewer a
        message is noticeable.
    """

    __slots__ = (
        "heard",
        "id",
        "live",
        "messageReceived",
        "name",
        "player",
        "protocol",
    )

    messageReceived: Callable[[Message], None]

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


class RTMPProtocol(Link):
    """
    The server's end of one connection.

    @ivar factory: what the connections share.
    @ivar application: the application of C{connect}.
    """

    log = Logger()
    factory: RTMPFactory

    def __init__(self, factory: RTMPFactory, address: IAddress | None) -> None:
        limits = factory.limits
        super().__init__(
            Role.SERVER,
            factory.clock,
            address,
            limits=limits.wire,
            queuedBytes=limits.queuedReplyBytes,
            drainSeconds=limits.drainSeconds,
            pacer=factory.pacer,
        )
        self.factory = factory
        self.application = ""
        self._limits = limits
        self._request: ConnectRequest | None = None
        self._netStreams: dict[int, NetStream] = {}
        self._lastStreamId = 0
        self._decision: Deferred[Any] | None = None
        self._idleSince = 0.0
        self._unpublished = 0
        self._unknown: set[str] = set()

    # From the transport

    def connectionMade(self) -> None:
        super().connectionMade()
        self.factory.connectionOpened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        wasClosing = self.phase is Phase.CLOSING
        connected = self.phase is Phase.CONNECTED or (
            wasClosing and self._request is not None
        )
        super().connectionLost(reason)
        if self._decision is not None:
            self._decision.cancel()
        self._netStreams.clear()
        self.factory.connectionClosed(self)
        if connected:
            self.log.info(
                "{peer} disconnected{how}: {received} bytes received, {sent} sent",
                peer=self.peer,
                how="" if wasClosing else f" ({_reasonOf(reason)})",
                received=self.wire.bytesReceived,
                sent=self.wire.bytesSent,
            )

    def drained(self) -> None:
        for netStream in list(self._netStreams.values()):
            if netStream.player is not None:
                netStream.player.drain()

    # Phases, deadlines and the end

    def deadline(self) -> tuple[float, str]:
        limits = self._limits
        if self.phase is Phase.HANDSHAKE:
            return (
                self._since + limits.handshakeSeconds,
                f"no complete handshake within {limits.handshakeSeconds:g} s",
            )
        if self.phase is Phase.CONNECTING:
            return (
                self._since + limits.connectSeconds,
                f"not connected within {limits.connectSeconds:g} s",
            )
        seconds = 0.0
        if self.receivers:
            now = self._clock.seconds()
            heard = min(
                now if n.live.throttled else n.heard
                for n in self._netStreams.values()
                if n.live is not None
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

    def cut(self, why: str) -> None:
        self.factory.counters.cut += 1
        super().cut(why)

    def violated(self, error: ProtocolError) -> None:
        self.factory.counters.violations += 1
        super().violated(error)

    def ending(self) -> None:
        for netStream in self._netStreams.values():
            self._unpublish(netStream)
            self._stopPlaying(netStream)

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
            if self.phase in (Phase.CLOSING, Phase.CLOSED):
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
                self.flush()
                self.release(Hold.DECISION)

        self._decision = deferred
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

    def commandReceived(self, command: Command) -> None:
        method = _COMMANDS.get(command.name)
        if self.phase is not Phase.CONNECTED and command.name != "connect":
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

    def strayMessage(self, message: Message) -> None:
        """Media on a message stream that publishes nothing."""
        if message.typeId in (8, 9) or self.receivers:
            if len(self.receivers) == 1:
                # node-media-server's client sends media on message stream 0.
                [receiver] = self.receivers.values()
                if message.typeId != _DATA:
                    receiver.heard = self._heard
                receiver.messageReceived(message)
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
            self.wire.sendCommand(
                "_result", command.transactionId, *values, amf3=command.amf3
            )

    def _sendStatus(
        self, streamId: int, level: str, code: str, description: str, **more: object
    ) -> None:
        """Tell the peer of a stream's state, on the stream's own message id."""
        self.wire.sendCommand(
            "onStatus",
            0,
            None,
            {"level": level, "code": code, "description": description, **more},
            streamId=streamId,
            csid=STATUS_CHUNK_STREAM,
        )

    # Commands of the connection.  RTMP 1.0, 7.2.1

    def command_connect(self, command: Command) -> None:
        if self.phase is not Phase.CONNECTING:
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
        self.setTimer()
        connection = self.wire
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
        name, _ = streamOf(command.argument(1))
        self.wire.sendCommand(
            "onFCPublish",
            0,
            None,
            {"code": "NetStream.Publish.Start", "description": name},
        )
        self._reply(command, None, UNDEFINED)

    def command_FCUnpublish(self, command: Command) -> None:
        name, _ = streamOf(command.argument(1))
        self.wire.sendCommand(
            "onFCUnpublish",
            0,
            None,
            {"code": "NetStream.Unpublish.Success", "description": name},
        )
        self._reply(command, None, UNDEFINED)
        for netStream in list(self._netStreams.values()):
            if netStream.name == name:
                self._stopPublishing(netStream)

    def command_FCSubscribe(self, command: Command) -> None:
        name, _ = streamOf(command.argument(1))
        self.wire.sendCommand(
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
        self.wire.sendUserControl(UserControlType.STREAM_BEGIN, netStream.id)
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
        self.setTimer()
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

    def streamBegan(self, netStream: NetStream, player: Player, again: bool) -> None:
        """Tell the peer that a stream it waits for is published."""
        if again:
            self.wire.sendUserControl(UserControlType.STREAM_BEGIN, netStream.id)
            self._sendStatus(
                netStream.id,
                "status",
                "NetStream.Play.PublishNotify",
                f"{printable(player.name)} is now published.",
                details=player.name,
            )
            self.flush()

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
        self.wire.sendUserControl(UserControlType.STREAM_EOF, netStream.id)
        self._sendStatus(
            netStream.id,
            "status",
            "NetStream.Play.Stop",
            f"Stopped playing {name}.",
            details=player.name,
        )
        self.flush()
        self.setTimer()

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
            self.setTimer()

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
        self.watchHangUp()
        netStream.heard = self._clock.seconds()
        netStream.messageReceived = live.messageReceived
        self.receivers[netStream.id] = netStream
        self.setTimer()
        self.wire.sendUserControl(UserControlType.STREAM_BEGIN, netStream.id)
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
        self.setTimer()

    def _unpublish(self, netStream: NetStream) -> None:
        """End a live stream of this connection."""
        live, netStream.live = netStream.live, None
        if live is not None:
            del self.receivers[netStream.id]
            del netStream.messageReceived
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


_COMMANDS: dict[str, Callable[[RTMPProtocol, Command], None]] = {
    name.removeprefix("command_"): method
    for name, method in vars(RTMPProtocol).items()
    if name.startswith("command_")
}


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
