"""
Live streams as FLV over HTTP, in the body of a response or in a WebSocket's binary
messages.

A peer that plays over HTTP is a L{Player<twisted_rtmp.live.player.Player>}: it joins,
is bounded, loses frames and is counted like one over RTMP.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from wsproto.frame_protocol import CloseReason
from zope.interface import implementer

from twisted_rtmp.flv.tags import encodeHeader
from twisted_rtmp.interfaces import Refused, StreamRequest
from twisted_rtmp.live.connections import Description
from twisted_rtmp.live.decisions import Action, Undecided
from twisted_rtmp.live.kinds import StreamKinds
from twisted_rtmp.live.packaging import FLVPackaging
from twisted_rtmp.live.player import PlayedStream, Player
from twisted_rtmp.live.playoptions import PlayOptions
from twisted_rtmp.live.registry import Registry
from twisted_rtmp.live.selection import EVERYTHING, Selection
from twisted_rtmp.media.capabilities import UNANNOUNCED
from twisted_rtmp.names import DEFAULT_INSTANCE, peerName, printable
from twisted_rtmp.sockets import DrainWatch
from twisted_rtmp.web.answers import answer, notAllowed
from twisted_rtmp.web.asking import connectRequest
from twisted_rtmp.web.bodies import Body, ResponseBody, SocketBody, setHeaders
from twisted_rtmp.web.channel import channelOf
from twisted_rtmp.web.cors import Origins
from twisted_rtmp.web.headers import headerText
from twisted_rtmp.web.websocket import VERSION, BadUpgrade, WebSocket, isUpgrade

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure


#: RFC 9110, 15.5.22.
UPGRADE_REQUIRED = 426

METHODS = (b"GET", b"HEAD", b"OPTIONS")

#: The first version of FFmpeg's libavformat that reads several tracks: FFmpeg 8.  It
#: says its version over HTTP, though not over RTMP.
LAVF_WITH_TRACKS = 62

#: How long a player's first bytes wait until it is known whether there is audio and
#: video, in seconds.  Encoders send metadata and both sequence headers at once; without
#: metadata, the first MP3 or PCM may come some frames later.
SETTLE_SECONDS = 1.0

#: How many bytes wait for that at most: two seconds of 4 Mb/s.
SETTLE_BYTES = 1024 * 1024


def streamOfPath(path: bytes) -> tuple[str, str]:
    """
    Read the application and the stream that a path names.

    @param path: such as C{b"/live/eu/stage%201.flv"}, which is C{stage 1} of
        C{live/eu}; percent-encoded UTF-8.
    @raise ValueError: the path names no stream.
    """
    *folders, file = (
        unquote_to_bytes(part).decode("utf-8", "surrogateescape")
        for part in path.split(b"/")
    )
    application = [folder for folder in folders if folder]
    if application and application[-1] == DEFAULT_INSTANCE:
        del application[-1]
    name, dot, _ = file.rpartition(".")
    name = name.strip().strip("/")
    if not dot or not name:
        raise ValueError("a path must be /APPLICATION/STREAM.flv")
    return "/".join(application), name


def queryOf(request: Request) -> str:
    """Read the query of a request's address, as it came."""
    return request.uri.partition(b"?")[2].decode("utf-8", "surrogateescape")


def playOptions(query: str, agent: bytes | None, gopDefault: bool) -> PlayOptions:
    """
    Read a player's wishes from its query.

    mpegts.js stops at a message of several tracks, and FFmpeg up to 7 makes garbage of
    it.  So players get such messages if they ask for them, as over RTMP, or if they
    are known to read them.

    @param agent: the software that the player says it is.
    @param gopDefault: see L{PlayOptions.parse}.
    """
    options = PlayOptions.parse(query, UNANNOUNCED, gopDefault)
    if options.selection == Selection():
        version = re.match(rb"Lavf/([0-9]{1,4})\.", agent or b"")
        if version is not None and int(version[1]) >= LAVF_WITH_TRACKS:
            return replace(options, selection=EVERYTHING)
    return options


class State(Enum):
    """The states of an answer."""

    ASKING = "being decided"
    WAITING = "waiting for the stream"
    PLAYING = "playing"
    OVER = "over"


#: The states that may follow each state.
TRANSITIONS = {
    State.ASKING: {State.WAITING, State.PLAYING, State.OVER},
    State.WAITING: {State.PLAYING, State.OVER},
    State.PLAYING: {State.OVER},
    State.OVER: set(),
}


@implementer(IPushProducer)
class FLVPlay:
    """
    One request for a stream: a player's outlet, and its producer.

    @ivar peer: the peer's address, for log lines.
    @ivar congested: whether more is queued for the peer than it takes.
    """

    log = Logger()

    def __init__(
        self, registry: Registry, request: Request, application: str, name: str
    ) -> None:
        """
        Check the request; answer nothing yet.

        @raise BadUpgrade: it asks for a WebSocket, and is not valid.
        """
        self.peer = peerName(request.getClientAddress())
        self.congested = False
        self._registry = registry
        self._clock = registry.clock
        self._policy = registry.policyOf(application)
        self._request = request
        self._channel = channelOf(request)
        self._application = application
        self._name = name
        self._label = printable(f"{application}/{name}")
        self._state = State.ASKING
        self._decision: Deferred[None] | None = None
        self._player: Player | None = None
        self._kinds: StreamKinds | None = None
        self._timer: IDelayedCall | None = None
        # What waits until the FLV header can be sent; L{None} once it has been.
        self._held: list[bytes] | None = []
        self._heldBytes = 0
        self._drain = DrainWatch(self._clock, self._policy.limits.drainSeconds)
        self._byWebSocket = request.method == b"GET" and isUpgrade(request)
        self._kind = "ws" if self._byWebSocket else "http"
        self._body: Body
        if self._byWebSocket:
            seconds = self._drain.seconds
            socket = WebSocket(request, self._clock, seconds, self._leave)
            self._body = SocketBody(request, socket)
        else:
            self._body = ResponseBody(request)

    def start(self) -> None:
        """Ask whether the peer may play, and go on when that is decided."""
        self._channel.answering = self
        self._request.notifyFinish().addErrback(self._lost)
        decision = Deferred.fromCoroutine(self._decide())
        decision.addErrback(self._failed)
        if self._state is State.ASKING:
            self._decision = decision

    async def _decide(self) -> None:
        """Serve the request, if the peer may play."""
        try:
            name, request = await self._allowed()
        except Refused as refusal:
            self._decision = None
            if self._state is not State.OVER:
                isFault = isinstance(refusal, Undecided)
                code = http.SERVICE_UNAVAILABLE if isFault else http.FORBIDDEN
                self._answer(code, refusal.description)
            return
        self._decision = None
        if self._state is State.OVER:
            return
        if self._request.method == b"HEAD":
            self._look(name)
        else:
            self._play(name, request)

    async def _allowed(self) -> tuple[str, StreamRequest]:
        """
        Ask as for a player over RTMP: C{connect}, then C{play}.

        @return: the name of the stream to play, and what the peer asked for.
        @raise Refused: the peer may not play.
        """
        registry, application = self._registry, self._application
        query = queryOf(self._request)
        connect = connectRequest(self._request, application, query, self._kind)
        await registry.decide(Action.CONNECT, connect)
        request = StreamRequest(
            application, self._name, query, connect.address, connect
        )
        name = await registry.decide(Action.PLAY, request)
        await registry.locate(application, name, request)
        return name, request

    def _failed(self, failure: Failure) -> None:
        """Abort the connection if a bug has ended the request."""
        if not failure.check(CancelledError):
            self.log.failure("{peer}: a request failed", failure, peer=self.peer)
            self._channel.abort()

    def _look(self, name: str) -> None:
        """Answer a HEAD: whether the stream is live."""
        if (self._application, name) not in self._registry.streams:
            self._notThere()
            return
        self._over()
        setHeaders(self._request)
        self._request.finish()

    def _play(self, name: str, request: StreamRequest) -> None:
        """Play the stream, or wait for it."""
        self._request.registerProducer(self, True)
        self._body.accept()
        if self._state is State.OVER:
            return  # the peer has closed its WebSocket already
        policy = self._policy
        options = playOptions(
            queryOf(self._request),
            self._request.getHeader(b"user-agent"),
            policy.gopCache,
        )
        self._player = Player(
            self,
            FLVPackaging(options.selection),
            self._name,
            self._clock.seconds(),
            gopCache=options.gopCache,
            once=True,
            limits=policy.limits.playerQueue,
            request=request,
        )
        there = self._registry.play(self._application, name, self._player)
        self._channel.note(
            "{peer} plays {application}/{name} by {how}{waiting}",
            application=printable(self._application),
            name=printable(name),
            how="WebSocket" if self._byWebSocket else "HTTP",
            waiting="" if there else ", which is not being published yet",
        )
        if self._state is State.ASKING:
            self._enter(State.WAITING)
            self._setTimer(self._policy.limits.playerWaitSeconds, self._notThere)

    def _notThere(self) -> None:
        """Answer that nobody has begun to publish the stream in time."""
        self._timer = None
        self._answer(http.NOT_FOUND, "Nobody publishes this stream.")

    # The states

    def _enter(self, state: State) -> None:
        """Change the state; nothing else does."""
        if state not in TRANSITIONS[self._state]:
            raise AssertionError(f"{self._state} does not lead to {state}")
        self._state = state

    def _setTimer(self, seconds: float, due: Callable[..., object]) -> None:
        """Set the deadline of the present state, instead of the last one."""
        self._stopTimer()
        self._timer = self._clock.callLater(seconds, due)

    def _stopTimer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _over(self) -> None:
        """Take the player off the stream, since nothing more is sent to it."""
        self._enter(State.OVER)
        self._stopTimer()
        self._drain.stop()
        self._held = None
        self._kinds = None
        if self._decision is not None:
            self._decision.cancel()
        player, self._player = self._player, None
        if player is not None:
            self._registry.stopPlaying(player)
            self._channel.note(
                "{peer} got {sent} messages of {name}, {size} bytes{lost}",
                sent=player.sent,
                name=self._label,
                size=player.sentBytes,
                lost=f"; {player.dropped} were dropped since it did not keep up"
                if player.dropped
                else "",
            )

    def _answer(self, code: int, text: str) -> None:
        """Answer with a text instead of a stream."""
        self._over()
        if code == http.FORBIDDEN:
            self._registry.counters.refused += 1
            self._channel.warn(
                "{peer} is refused {name} to play: {why}",
                name=self._label,
                why=printable(text),
            )
        self._body.fail(code, text)

    def _lost(self, reason: Failure) -> None:
        """Stop, since the connection is lost."""
        if self._state is not State.OVER:
            self._over()

    def _leave(self) -> None:
        """Stop, since the peer has closed its WebSocket."""
        if self._state is not State.OVER:
            self._over()

    def describe(self, connection: Description) -> Description:
        """Add what it does to the description of its connection."""
        suffix = "s" if self._request.isSecure() else ""
        return replace(
            connection,
            kind=self._kind + suffix,
            state=self._state.value,
            application=printable(self._application),
            agent=printable(headerText(self._request, b"user-agent")),
            plays=(self._label,),
        )

    def close(self) -> None:
        """End the answer, since the server stops."""
        if self._state is State.PLAYING:
            self._sendHeader()
            self._over()
            self._body.end(CloseReason.GOING_AWAY)
        elif self._state is not State.OVER:
            self._channel.persistent = 0
            self._answer(http.SERVICE_UNAVAILABLE, "The server is stopping.")

    # The player's outlet

    def streamStarted(self, player: Player, stream: PlayedStream, again: bool) -> None:
        """Tell the peer that its stream begins."""
        self._enter(State.PLAYING)
        self._stopTimer()
        self._kinds = StreamKinds(stream, player.packaging.selection)
        self._body.begin()

    def writeMedia(self, data: bytes) -> None:
        """Send FLV tags, or keep them until the header can be sent."""
        if self._held is None:
            self._body.write(data)
            return
        if not data:
            return  # nothing has come of the stream yet
        self._held.append(data)
        self._heldBytes += len(data)
        self._channel.chargeHeld(self._heldBytes)
        assert self._kinds is not None
        if self._heldBytes > SETTLE_BYTES or self._kinds.settled:
            self._sendHeader()
        elif self._timer is None:
            self._setTimer(SETTLE_SECONDS, self._settleDue)

    def _settleDue(self) -> None:
        self._timer = None
        self._sendHeader()

    def _sendHeader(self) -> None:
        """Send the FLV header with the kinds that have come, and the tags that wait."""
        held, self._held = self._held, None
        if held is None or self._kinds is None:
            return
        self._stopTimer()
        self._channel.chargeHeld(0)
        kinds = self._kinds.received.orBoth()
        self._body.write(b"".join([encodeHeader(*kinds), *held]))

    def streamEnded(self, player: Player) -> None:
        """End the answer, since all of the stream has been sent."""
        self._sendHeader()
        self._over()
        self._body.end(CloseReason.NORMAL_CLOSURE)

    def warn(self, format: str, **fields: object) -> None:  # noqa: A002
        """Log something that the player loses."""
        self._channel.warn(format, **fields)

    def abort(self, why: str) -> None:
        """Close at once, whatever is queued."""
        self._channel.noteCut(why)
        self._channel.abort()

    # The transport's producer

    def pauseProducing(self) -> None:
        """Let the player queue, since the peer does not take what it asked for."""
        if self._state is not State.PLAYING or self.congested:
            return  # a transport says so at each write
        self.congested = True
        self._drain.start(self._channel.transport, self._notDrained)

    def _notDrained(self) -> None:
        """Cut the peer, since it has taken nothing for too long."""
        self.abort(f"it takes nothing for {self._drain.seconds:g} s")

    def resumeProducing(self) -> None:
        """Let the player send again, since the peer has taken what was queued."""
        if not self.congested:
            return
        self.congested = False
        self._drain.stop()
        if self._player is not None:
            self._player.drain()

    def stopProducing(self) -> None:
        """Do nothing: when the connection is lost, L{_lost} is called, too."""


class FLVResource(Resource):
    """
    Every live stream, at C{/APPLICATION/STREAM.flv}.

    An L{IAuthorizer<twisted_rtmp.interfaces.IAuthorizer>} is asked as about a player
    over RTMP: C{connect}, then C{play}.
    """

    isLeaf = True

    def __init__(self, registry: Registry, origins: Origins) -> None:
        Resource.__init__(self)
        self._registry = registry
        self._origins = origins

    def render(self, request: Request) -> bytes | int:
        self._origins.mark(request)
        if request.method == b"OPTIONS":
            return self._origins.preflight(request, METHODS)
        if request.method not in METHODS:
            return notAllowed(request, METHODS)
        try:
            application, name = streamOfPath(request.path)
        except ValueError:
            return answer(
                request, http.NOT_FOUND, "A stream is at /APPLICATION/STREAM.flv."
            )
        try:
            play = FLVPlay(self._registry, request, application, name)
        except BadUpgrade as error:
            request.setHeader(b"sec-websocket-version", VERSION)
            code = UPGRADE_REQUIRED if error.wrongVersion else http.BAD_REQUEST
            return answer(request, code, str(error))
        play.start()
        return NOT_DONE_YET
