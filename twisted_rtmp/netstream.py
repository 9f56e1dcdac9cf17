"""One message stream of a connection: what a peer publishes or plays on it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from twisted_rtmp.interfaces import ConnectRequest, Refused, StreamRequest
from twisted_rtmp.ledger import MediaCounts
from twisted_rtmp.link import Hold, LinkState, MediaReceiver
from twisted_rtmp.live.decisions import Action
from twisted_rtmp.live.directory import NameTaken
from twisted_rtmp.live.packaging import RTMPPackaging
from twisted_rtmp.live.player import PlayedStream, Player
from twisted_rtmp.live.playoptions import PlayOptions
from twisted_rtmp.live.policy import Policy
from twisted_rtmp.live.registry import Registry
from twisted_rtmp.live.streams import LiveStream
from twisted_rtmp.media.capabilities import Capabilities
from twisted_rtmp.names import parseStreamName, printable
from twisted_rtmp.wire.connection import Connection
from twisted_rtmp.wire.constants import UserControlType
from twisted_rtmp.wire.messages import Command, Message

#: Chunk stream of onStatus and its kin; clients take 4 or 5.
STATUS_CHUNK_STREAM = 5


class StreamConnection(Protocol):
    """
    The parts of a connection that its message streams need.

    See L{RTMPProtocol<twisted_rtmp.protocol.RTMPProtocol>} and L{Link} for each.
    """

    usefulAt: float

    @property
    def registry(self) -> Registry: ...
    @property
    def policy(self) -> Policy: ...
    @property
    def application(self) -> str: ...
    @property
    def capabilities(self) -> Capabilities: ...
    @property
    def wantsSampleAccess(self) -> bool: ...
    @property
    def chunkSize(self) -> int: ...
    @property
    def peer(self) -> str: ...
    @property
    def host(self) -> str: ...
    def unpaid(self) -> int: ...
    @property
    def state(self) -> LinkState: ...
    @property
    def congested(self) -> bool: ...
    @property
    def unread(self) -> bool: ...
    @property
    def wire(self) -> Connection: ...

    def streamRequest(self, name: str, query: str) -> StreamRequest: ...
    def proceed(self, steps: Coroutine[Deferred[Any], Any, None]) -> None: ...
    async def decide(
        self, action: Action, request: ConnectRequest | StreamRequest
    ) -> str: ...
    def goesOn(self) -> None: ...
    def mayBegin(self) -> bool: ...
    def mayBeginWith(self, gopBytes: int) -> bool: ...
    def hold(self, reason: Hold, holder: object = None) -> None: ...
    def release(self, reason: Hold, holder: object = None) -> None: ...
    def setReceiver(self, streamId: int, receiver: MediaReceiver | None) -> None: ...
    def watchHangUp(self) -> None: ...
    def setTimer(self) -> None: ...
    def idle(self) -> None: ...
    def note(self, format: str, **fields: object) -> None: ...  # noqa: A002
    def warn(self, format: str, **fields: object) -> None: ...  # noqa: A002
    def chargeStreams(self) -> None: ...
    def flush(self) -> None: ...
    def writeMedia(self, data: bytes) -> None: ...
    def close(self) -> None: ...
    def abort(self, why: str = "") -> None: ...


class NetStream:
    """
    One message stream of a server's connection.

    It is the publisher of the live stream that comes on it, and the outlet of the
    player that sends on it.

    @ivar protocol: its connection's.
    @ivar id: the message stream id.
    @ivar name: the name of the live stream as the peer calls it.
    @ivar live: the live stream that is published on it, or L{None}.
    @ivar player: what plays on it, or L{None}.
    @ivar heard: when frames of audio or video came last, in the clock's seconds.
    @ivar messageReceived: the live stream's, and only there while there is one: an
        attribute, since a method would be one call more for each message.
    @ivar writeMedia: the protocol's, for the same reason.
    @ivar congested: as the protocol's, which sets it: asked once a player and write.
    """

    __slots__ = (
        "_counts",
        "_frames",
        "congested",
        "heard",
        "id",
        "live",
        "messageReceived",
        "name",
        "player",
        "protocol",
        "writeMedia",
    )

    messageReceived: Callable[[Message], None]
    writeMedia: Callable[[bytes], None]

    def __init__(self, protocol: StreamConnection, id: int) -> None:  # noqa: A002
        self.protocol = protocol
        self.id = id
        self.name = ""
        self.live: LiveStream | None = None
        self.player: Player | None = None
        self.heard = 0.0
        self._counts = MediaCounts()
        self._frames = 0
        self.congested = protocol.congested
        self.writeMedia = protocol.writeMedia

    @property
    def peer(self) -> str:
        """The peer's address, for log lines."""
        return self.protocol.peer

    @property
    def host(self) -> str:
        """The address that it counts for."""
        return self.protocol.host

    @property
    def unread(self) -> bool:
        """Tell whether bytes of the peer have come and wait to be looked at."""
        return self.protocol.unread

    def unpaid(self) -> int:
        """Take the bytes that came from the peer and have paid for no log line yet."""
        return self.protocol.unpaid()

    @property
    def connection(self) -> object:
        """The connection, which it shares with other message streams."""
        return self.protocol

    # Its end

    def command_closeStream(self, command: Command) -> None:
        self.end()

    def end(self) -> None:
        """The peer ends what it does on this message stream, and stays."""
        self.stopPublishing()
        if self.player is not None:
            self._stopPlaying()
            self.protocol.idle()

    def withdraw(self) -> None:
        """The connection ends: end what is done on this message stream."""
        self._unpublish()
        self._stopPlaying()

    # Publishing.  RTMP 1.0, 7.2.2.6

    def command_publish(self, command: Command) -> None:
        if not self.protocol.mayBegin():
            return
        self.end()
        self.name, query = parseStreamName(command.argument(1))
        self.protocol.proceed(self._publish(query))

    async def _publish(self, query: str) -> None:
        protocol = self.protocol
        registry = protocol.registry
        request = protocol.streamRequest(self.name, query)
        application = protocol.application
        try:
            name = await protocol.decide(Action.PUBLISH, request)
            await registry.claim(application, name)
            protocol.goesOn()
        except Refused as refusal:
            self._refuse("NetStream.Publish.Denied", refusal.description)
            return
        except NameTaken:
            live = None
        else:
            live = registry.publish(application, name, self)
        if live is None:
            self._refuse(
                "NetStream.Publish.BadName", f"{printable(name)} is being published."
            )
            return
        self.live = live
        self._counts = live.ledger.received
        self._frames = self._counts.video + self._counts.audio
        self.heard = registry.clock.seconds()
        self.messageReceived = live.messageReceived
        protocol.setReceiver(self.id, self)
        protocol.chargeStreams()
        if protocol.state is not LinkState.CONNECTED:
            # Whoever was told of the stream has closed the connection.
            self._unpublish()
            return
        protocol.watchHangUp()
        protocol.setTimer()
        protocol.wire.sendUserControl(UserControlType.STREAM_BEGIN, self.id)
        self._sendStatus(
            "NetStream.Publish.Start",
            f"{printable(self.name)} is now published.",
            details=self.name,
        )
        protocol.note("{peer} publishes {stream}", stream=live.label)

    def noteHeard(self, now: float) -> None:
        """Note whether frames came: what is malformed keeps no connection open."""
        counts = self._counts
        frames = counts.video + counts.audio
        if frames != self._frames:
            self._frames = frames
            self.heard = self.protocol.usefulAt = now

    def stopPublishing(self) -> None:
        """The peer ends its publication, if there is one, and stays."""
        if self.live is None:
            return
        self._unpublish()
        self._sendStatus(
            "NetStream.Unpublish.Success",
            f"{printable(self.name)} is no longer published.",
        )
        self.protocol.idle()

    def _unpublish(self) -> None:
        """End the live stream."""
        live, self.live = self.live, None
        if live is not None:
            self.protocol.setReceiver(self.id, None)
            del self.messageReceived
            self.protocol.chargeStreams()
            self.protocol.registry.unpublish(live, self)

    def takenOver(self) -> None:
        """Another publisher has taken the stream's name over."""
        self._unpublish()
        self._sendStatus(
            "NetStream.Publish.BadName",
            "Another publisher has taken over.",
            level="error",
        )
        self.protocol.close()

    def pauseProducing(self) -> None:
        """A sink of the live stream is behind."""
        self.protocol.hold(Hold.SINK, self)

    def resumeProducing(self) -> None:
        """No sink is behind any more."""
        self.protocol.release(Hold.SINK, self)

    # Playing.  RTMP 1.0, 7.2.2.1

    def command_play(self, command: Command) -> None:
        """
        Play a live stream, or wait for it.

        Its start may be -2 (live, or else recorded), -1 (live) or a time in a
        recording, in any spelling of these that clients have; all of them mean
        the live stream here.
        """
        if not self.protocol.mayBegin():
            return
        self.end()
        self.name, query = parseStreamName(command.argument(1))
        reset = bool(command.argument(4, True))
        self.protocol.proceed(self._play(query, reset))

    async def _play(self, query: str, reset: bool) -> None:
        protocol = self.protocol
        request = protocol.streamRequest(self.name, query)
        try:
            name = await protocol.decide(Action.PLAY, request)
            await protocol.registry.locate(protocol.application, name, request)
            protocol.goesOn()
        except Refused as refusal:
            self._refuse("NetStream.Play.Failed", refusal.description, " to play")
        else:
            self._playAllowed(name, request, reset)

    def _playAllowed(self, name: str, request: StreamRequest, reset: bool) -> None:
        protocol = self.protocol
        registry = protocol.registry
        label = printable(self.name)
        policy = protocol.policy
        options = PlayOptions.parse(
            request.query, protocol.capabilities, policy.gopCache
        )
        self.player = player = Player(
            self,
            RTMPPackaging(self.id, protocol.chunkSize, options.selection),
            self.name,
            registry.clock.seconds(),
            gopCache=options.gopCache,
            limits=policy.limits.playerQueue,
            mayBeginWith=protocol.mayBeginWith,
            request=request,
        )
        protocol.wire.sendUserControl(UserControlType.STREAM_BEGIN, self.id)
        if reset:
            self._sendStatus(
                "NetStream.Play.Reset",
                f"Playing and resetting {label}.",
                details=self.name,
            )
        self._sendStatus(
            "NetStream.Play.Start", f"Started playing {label}.", details=self.name
        )
        if protocol.wantsSampleAccess:
            protocol.wire.sendData(
                "|RtmpSampleAccess",
                True,
                True,
                streamId=self.id,
                csid=STATUS_CHUNK_STREAM,
            )
        there = registry.play(protocol.application, name, player)
        protocol.chargeStreams()
        protocol.setTimer()
        protocol.note(
            "{peer} plays {application}/{name}{how}",
            application=printable(protocol.application),
            name=printable(name),
            how="" if there else ", which is not being published yet",
        )

    def _stopPlaying(self) -> None:
        """Take the player off."""
        player, self.player = self.player, None
        if player is not None:
            if player.group is not None:
                self._beUseful()
            self.protocol.registry.stopPlaying(player)
            self.protocol.chargeStreams()
            if player.dropped or player.refusedTracks:
                self.protocol.note(
                    "{peer} got {sent} messages of {name}; {dropped} were dropped"
                    " since it did not keep up, and {refused} not sent since it did"
                    " not announce their codecs",
                    sent=player.sent,
                    name=printable(player.name),
                    dropped=player.dropped,
                    refused=player.refusedTracks,
                )

    def command_pause(self, command: Command) -> None:
        if self.player is None:
            return
        paused = command.argument(1) is not False
        self.player.pause(paused)
        if paused:
            self._sendStatus("NetStream.Pause.Notify", "Paused.")
        else:
            self._sendStatus(
                "NetStream.Unpause.Notify", "Going on with the next key frame."
            )

    def command_pauseRaw(self, command: Command) -> None:
        self.command_pause(command)

    def command_receiveAudio(self, command: Command) -> None:
        if self.player is not None:
            self.player.receive(audio=command.argument(1) is not False)

    def command_receiveVideo(self, command: Command) -> None:
        if self.player is not None:
            self.player.receive(video=command.argument(1) is not False)

    def command_seek(self, command: Command) -> None:
        """Refuse: a live stream has no other time to go to."""
        if self.player is not None:
            self._sendStatus(
                "NetStream.Seek.Failed",
                "A live stream has no other time to seek to.",
                level="error",
            )

    # What the player tells

    def streamStarted(self, player: Player, stream: PlayedStream, again: bool) -> None:
        """Tell the peer that a stream it waits for is published."""
        self._beUseful()
        if again:
            self.protocol.wire.sendUserControl(UserControlType.STREAM_BEGIN, self.id)
            self._sendStatus(
                "NetStream.Play.PublishNotify",
                f"{printable(player.name)} is now published.",
                details=player.name,
            )
            self.protocol.flush()

    def streamEnded(self, player: Player) -> None:
        """
        Tell the peer that there is nothing more to come: players leave at this,
        and hang without it.
        """
        self._beUseful()
        name = printable(player.name)
        self._sendStatus(
            "NetStream.Play.UnpublishNotify",
            f"{name} is no longer published.",
            details=player.name,
        )
        self.protocol.wire.sendUserControl(UserControlType.STREAM_EOF, self.id)
        self._sendStatus(
            "NetStream.Play.Stop", f"Stopped playing {name}.", details=player.name
        )
        self.protocol.flush()
        self.protocol.setTimer()

    def _beUseful(self) -> None:
        """There is a stream for the player: its connection is of use."""
        self.protocol.usefulAt = self.protocol.registry.clock.seconds()

    def warn(self, format: str, **fields: object) -> None:  # noqa: A002
        """Log something that the player loses."""
        self.protocol.warn(format, **fields)

    def abort(self, why: str) -> None:
        """The player is too far behind: close at once, whatever is queued."""
        self.protocol.abort(why)

    # What the peer is told

    def _sendStatus(
        self, code: str, description: str, *, level: str = "status", **more: object
    ) -> None:
        """Tell the peer of the stream's state, on the stream's own message id."""
        self.protocol.wire.sendCommand(
            "onStatus",
            0,
            None,
            {"level": level, "code": code, "description": description, **more},
            streamId=self.id,
            csid=STATUS_CHUNK_STREAM,
        )

    def _refuse(self, code: str, why: str, what: str = "") -> None:
        """
        Tell why, then close: OBS shows it and does not come again.

        @param what: what the stream was asked for, for the log line.
        """
        protocol = self.protocol
        protocol.registry.counters.refused += 1
        self._sendStatus(code, why, level="error")
        protocol.warn(
            "{peer} is refused a stream of {application}{what}: {why}",
            application=printable(protocol.application) or "the empty application",
            what=what,
            why=printable(why),
        )
        protocol.close()


#: The commands that are a message stream's, by name.
STREAM_COMMANDS: dict[str, Callable[[NetStream, Command], None]] = {
    name.removeprefix("command_"): method
    for name, method in vars(NetStream).items()
    if name.startswith("command_")
}
