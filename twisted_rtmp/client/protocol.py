"""
The client's end of one connection: commands, their answers and time limits.

Parses nothing: that is C{wire}'s part.  What is published and played is in C{streams};
how a connection comes about in C{connecting}.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from twisted_rtmp import __version__
from twisted_rtmp.client.errors import (
    ClientError,
    CommandFailed,
    ConnectionEnded,
    ConnectRejected,
    InvalidURL,
    PlayRefused,
    PublishRefused,
    ServerRefused,
    TimeLimitPassed,
    refusal,
)
from twisted_rtmp.client.limits import ClientLimits
from twisted_rtmp.client.streams import (
    ClientStream,
    Publication,
    StreamState,
    Subscription,
)
from twisted_rtmp.link import Hold, Link, Phase
from twisted_rtmp.media.capabilities import clientProperties
from twisted_rtmp.names import printable
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.connection import COMMAND_CHUNK_STREAM, Role
from twisted_rtmp.wire.constants import RECONNECT_REQUEST, UserControlType
from twisted_rtmp.wire.errors import ProtocolError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IReactorTime, ITCPTransport

    from twisted_rtmp.client.url import RTMPURL
    from twisted_rtmp.interfaces import IMediaSink
    from twisted_rtmp.wire.messages import (
        Command,
        HandshakeDone,
        Message,
        UserControl,
    )

#: Bytes of data a chunk that is sent: our server's own size, so that what is encoded
#: for one player serves a publication; gortmplib's too, and SRS' largest.
CHUNK_SIZE = 65_536

#: From the time a server should have ended the connection to our end of it, in seconds,
#: as long as the server acknowledges what it reads: 2.5 MB, which a system may have
#: queued, take 20 s at 1 Mb/s.
LINGER_SECONDS = 30.0

#: Chunk stream of C{publish} and C{play}, as ffmpeg and librtmp have it.
STREAM_CHUNK_STREAM = 8

#: What a player keeps before it plays, in milliseconds, as ffmpeg says it: some
#: servers send ahead so much.
BUFFER_MILLISECONDS = 3000

#: What is said of this client in C{connect}: Wowza and Akamai's servers take
#: publishers whose software calls itself FMLE only.
FLASH_VERSION = f"FMLE/3.0 (compatible; twisted_rtmp/{__version__})"

#: Codecs of the time before Enhanced RTMP, as ffmpeg and GStreamer announce them.
#: RTMP 1.0, 7.2.1.1.
AUDIO_CODECS = 4071.0
VIDEO_CODECS = 252.0

#: Codes that say no, whatever level they come with.
_SAYS_NO = (".Rejected", ".Denied", ".BadName", ".Failed", "NotFound", "Unauthorized")

#: Codes that let a stream begin.
_BEGINS = frozenset(
    (
        "NetStream.Publish.Start",
        "NetStream.Play.Start",
        "NetStream.Play.PublishNotify",
    )
)

#: Codes that end a stream as it should.
_ENDS = frozenset(
    (
        "NetStream.Play.Stop",
        "NetStream.Play.Complete",
        "NetStream.Play.UnpublishNotify",
    )
)

#: Codes that end the connection.
_DISCONNECTS = frozenset(
    ("NetConnection.Connect.Closed", "NetConnection.Connect.AppShutdown")
)

_UNPUBLISHED = "NetStream.Unpublish.Success"


class Status:
    """
    What a server says with C{onStatus}.

    @ivar code: such as C{"NetStream.Play.Start"}.
    @ivar level: C{"status"}, C{"warning"}, C{"error"}, or empty.
    @ivar description: one sentence, or empty.
    @ivar streamId: the message stream that it came on.
    @ivar properties: all of it.
    """

    __slots__ = ("code", "description", "level", "properties", "streamId")

    def __init__(self, properties: Mapping[str, Any], streamId: int = 0) -> None:
        self.code = _text(properties.get("code"))
        self.level = _text(properties.get("level"))
        self.description = _text(properties.get("description"))
        self.streamId = streamId
        self.properties = properties

    @property
    def saysNo(self) -> bool:
        """Whether it is a refusal."""
        return self.level == "error" or self.code.endswith(_SAYS_NO)

    @property
    def redirect(self) -> str:
        """The address that the client is sent to, or empty: C{ex.redirect}."""
        more = self.properties.get("ex")
        return _text(more.get("redirect")) if isinstance(more, dict) else ""

    def refusal(self, otherwise: type[ServerRefused]) -> ServerRefused:
        """The error for it; see L{refusal}."""
        return refusal(self.code, self.description, otherwise, self.redirect)


@dataclass(frozen=True)
class ReconnectRequest:
    """
    What a server that is to be left, or would rather not have us, asks for.

    @ivar url: where to connect to: the stream's address at the other server, or the
        one that there was.
    @ivar description: one sentence, or empty.
    """

    url: RTMPURL
    description: str = ""


class _Call:
    """
    A command that the server has not answered yet.

    @ivar due: when it is too late, in the clock's seconds.
    @ivar answer: what fires with the answer, or L{None} where a stream waits.
    @ivar stream: what waits for an C{onStatus} instead.
    """

    __slots__ = ("answer", "due", "name", "stream")

    def __init__(
        self,
        name: str,
        due: float,
        answer: Deferred[Command] | None = None,
        stream: ClientStream | None = None,
    ) -> None:
        self.name = name
        self.due = due
        self.answer = answer
        self.stream = stream


class RTMPClient(Link):
    """
    The client's end of one connection; L{connectRTMP
    <twisted_rtmp.client.connecting.connectRTMP>} makes it.

    Several streams may be published and played on it at once.

    @ivar url: what it was made for.
    @ivar properties: what the server said of itself in answer to C{connect}: the
        command object and the information in one.
    @ivar statusReceived: called with each L{Status}, before it is acted upon.
    @ivar reconnectRequest: what the server has asked for last, or L{None}.
    @ivar reconnectRequested: called with each L{ReconnectRequest}: the server wishes
        that this client connects anew, and serves it until it does.  Nothing else
        is done about it here.
    """

    def __init__(
        self,
        clock: IReactorTime,
        url: RTMPURL,
        address: IAddress | None = None,
        *,
        limits: ClientLimits | None = None,
        query: str = "",
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        """
        @param query: for authentication; added to the application.
        @param properties: added to those of C{connect}.
        """
        limits = ClientLimits() if limits is None else limits
        super().__init__(
            Role.CLIENT,
            clock,
            address,
            limits=limits.wire,
            drainSeconds=limits.drainSeconds,
        )
        self.url = url
        self.properties: dict[str, Any] = {}
        self.statusReceived: list[Callable[[Status], object]] = []
        self.reconnectRequest: ReconnectRequest | None = None
        self.reconnectRequested: list[Callable[[ReconnectRequest], object]] = []
        self.accepted: Deferred[None] = Deferred(self.giveUp)
        self._limits = limits
        self._query = query
        self._moreProperties = dict(properties or {})
        self._calls: dict[float, _Call] = {}
        self._lastTransaction = 0
        self._streams: dict[int, ClientStream] = {}
        self._farewell = math.inf
        self._wanted = False
        self._error: ClientError | None = None
        self._waiting: list[Deferred[ClientError | None]] = []

    def seconds(self) -> float:
        """The clock's time."""
        return self._clock.seconds()

    # The beginning

    def connectionMade(self) -> None:
        super().connectionMade()
        self.wire.start()
        self.flush()

    def pauseProducing(self) -> None:
        if self.phase is Phase.HANDSHAKE:
            # TLS takes C0 and C1, but cannot send them before the server's part of its
            # own handshake has been read.
            self.congested = True
        else:
            super().pauseProducing()

    def handshakeDone(self, event: HandshakeDone) -> None:
        super().handshakeDone(event)
        url = self.url
        query = self._query
        if query:
            query = ("&" if "?" in url.application else "?") + query
        # Before connect, as OBS does it.
        self.wire.sendChunkSize(CHUNK_SIZE)
        self._ask(
            "connect",
            {
                "app": url.application + query,
                "type": "nonprivate",
                "flashVer": FLASH_VERSION,
                "tcUrl": url.tcURL + query,
                "fpad": False,
                "capabilities": 15.0,
                "audioCodecs": AUDIO_CODECS,
                "videoCodecs": VIDEO_CODECS,
                "objectEncoding": 0.0,
                **clientProperties(),
                **self._moreProperties,
            },
        ).addCallbacks(self._connectAnswered, self._connectFailed)

    def _connectAnswered(self, command: Command) -> None:
        status = Status(_information(command))
        if status.saysNo:
            self._connectRefused(status)
            return
        for argument in command.arguments:
            if isinstance(argument, dict):
                self.properties.update(argument)
        self._enter(Phase.CONNECTED)
        self.setTimer()
        self.log.info("connected to {url}", url=str(self.url))
        self.accepted.callback(None)

    def _connectFailed(self, failure: Failure) -> None:
        """The answer is an error, or there is none: then the connection has ended."""
        failure.trap(ClientError)
        error = failure.value
        if isinstance(error, CommandFailed):
            self._fail(
                refusal(error.code, error.description, ConnectRejected, error.redirect)
            )

    def _connectRefused(self, status: Status) -> None:
        self._fail(status.refusal(ConnectRejected))

    # What the user asks for

    def publish(
        self, name: str | None = None, kind: str = "live"
    ) -> Deferred[Publication]:
        """
        Publish a stream.

        @param name: the stream's name, with its query; the URL's by default.
        @param kind: C{"live"}; C{"record"} and C{"append"} are for servers that
            record on demand.  RTMP 1.0, 7.2.2.6.
        @return: fires when the server takes it; fails with a L{PublishRefused} or
            another L{ClientError}.  Cancelling it closes the connection.
        """
        return Deferred.fromCoroutine(self._publish(self._nameOf(name), kind))

    async def _publish(self, name: str, kind: str) -> Publication:
        self._checkConnected()
        # Servers answer these or not, and nothing follows from it.
        self._tell("releaseStream", None, name)
        self._tell("FCPublish", None, name)
        streamId = await self._createStream()
        publication = Publication(self, streamId, name, CHUNK_SIZE)
        self._askFor(publication, "publish", name, kind)
        await publication.started
        self.log.info("{peer} takes a stream of {url}", peer=self.peer, url=self.url)
        return publication

    def play(
        self, name: str | None, sink: IMediaSink, start: float = -2.0
    ) -> Deferred[Subscription]:
        """
        Play a stream.

        @param name: the stream's name, with its query; L{None} for the URL's.
        @param sink: gets the messages in order, from the first one on (which may be
            before the Deferred fires), and is told of the end.
        @param start: -2 for live or else recorded, -1 for live only, or a time in
            seconds in what is recorded.  RTMP 1.0, 7.2.2.1.
        @return: fires when the server begins; fails with a L{PlayRefused} or another
            L{ClientError}.  Cancelling it closes the connection.
        """
        return Deferred.fromCoroutine(self._play(self._nameOf(name), sink, start))

    async def _play(self, name: str, sink: IMediaSink, start: float) -> Subscription:
        self._checkConnected()
        streamId = await self._createStream()
        subscription = Subscription(self, streamId, name, sink)
        self.receivers[streamId] = subscription
        # The specification has seconds here; servers that have recorded streams, and
        # Flash, have milliseconds.
        when = start * 1000 if start > 0 else start
        self._askFor(subscription, "play", name, float(when))
        self.wire.sendUserControl(
            UserControlType.SET_BUFFER_LENGTH, streamId, BUFFER_MILLISECONDS
        )
        self.flush()
        await subscription.started
        self.log.info("{peer} gives a stream of {url}", peer=self.peer, url=self.url)
        return subscription

    def _nameOf(self, name: str | None) -> str:
        return self.url.name if name is None else name

    def _checkConnected(self) -> None:
        if self.phase is not Phase.CONNECTED or self._wanted:
            raise self._error or ConnectionEnded("The connection is closed.")

    async def _createStream(self) -> int:
        command = await self._ask("createStream", None)
        streamId = command.argument(1)
        if not isinstance(streamId, (int, float)) or not 0 < streamId < 1 << 32:
            raise CommandFailed("The server answers createStream without a stream.")
        if int(streamId) in self._streams:
            raise CommandFailed("The server answers createStream with one in use.")
        return int(streamId)

    def disconnect(self) -> Deferred[None]:
        """
        End what is published and played, then the connection, and lose nothing that
        has been sent.

        @return: fires when it has ended; never fails.
        """
        if self.phase is Phase.CONNECTED and not self._wanted:
            for stream in list(self._streams.values()):
                if stream.state is StreamState.STARTING:
                    stream.end(None)
                else:
                    stream.close()
            self._wanted = True
            self._farewell = self.seconds() + self._limits.farewellSeconds
            self.setTimer()
            transport = self.transport
            if ISSLTransport.providedBy(
                transport
            ) or not IHalfCloseableDescriptor.providedBy(transport):
                # TLS does what is below by itself.
                self.close()
            else:
                # A system that closes a connection with unread data throws away what
                # it has not sent yet.  So the server is to close it: it is sent all,
                # then our end, and is read until it does.  What is left to send is not
                # ours to wait for any more; the producer would be.
                transport.unregisterProducer()
                if self.congested:
                    self.congested = False
                    self.release(Hold.REPLIES)
                cast("ITCPTransport", transport).loseWriteConnection()
        elif self.phase in (Phase.HANDSHAKE, Phase.CONNECTING):
            self.close()
        return self.whenEnded().addCallback(lambda _: None)

    def abort(self, why: str = "") -> None:
        """
        End the connection at once.

        @param why: one sentence; empty if it is the user's wish.
        """
        if self.phase is not Phase.CLOSED:
            if why:
                self._failWith(ConnectionEnded(why, clean=False))
            self._wanted = True
            if self.phase is not Phase.CLOSING:
                # What has come already is not looked at any more.
                self._enter(Phase.CLOSING)
                self.ending()
            self.transport.abortConnection()

    def giveUp(self, waiting: Deferred[Any]) -> None:
        """
        Cancel what is waited for: there is no way to tell the server but to end the
        connection.
        """
        waiting.errback(CancelledError())
        self.abort()

    def whenEnded(self) -> Deferred[ClientError | None]:
        """
        Learn of the connection's end; each call gives a Deferred of its own, which
        never fails.

        @return: fires with L{None} if this end closed it, else with what went wrong.
        """
        if self.phase is Phase.CLOSED:
            return succeed(self._error)
        waiting: Deferred[ClientError | None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    # Commands to the server

    def _tell(self, name: str, *arguments: object, streamId: int = 0) -> float:
        """
        Send a command.

        @return: its transaction id.
        """
        self._lastTransaction += 1
        tid = float(self._lastTransaction)
        csid = STREAM_CHUNK_STREAM if streamId else COMMAND_CHUNK_STREAM
        self.wire.sendCommand(name, tid, *arguments, streamId=streamId, csid=csid)
        self.flush()
        return tid

    def _ask(self, name: str, *arguments: object) -> Deferred[Command]:
        """
        Send a command that is answered.

        @return: fires with C{_result}; fails with L{CommandFailed} for C{_error}, or
            with what ended the connection.
        """
        answer: Deferred[Command] = Deferred(self.giveUp)
        due = self.seconds() + self._limits.commandSeconds
        self._calls[self._tell(name, *arguments)] = _Call(name, due, answer)
        self.setTimer()
        return answer

    def _askFor(self, stream: ClientStream, name: str, *arguments: object) -> None:
        """Send C{publish} or C{play}, which C{onStatus} answers."""
        self._streams[stream.streamId] = stream
        due = self.seconds() + self._limits.commandSeconds
        tid = self._tell(name, None, *arguments, streamId=stream.streamId)
        self._calls[tid] = _Call(name, due, stream=stream)
        stream.transactionId = tid
        self.setTimer()

    def _refuse(self, stream: ClientStream, status: Status) -> None:
        """The server does not let a stream begin, or go on."""
        if isinstance(stream, Subscription):
            stream.code = status.code
            error = status.refusal(PlayRefused)
        else:
            error = status.refusal(PublishRefused)
        self.deleteStream(stream)
        stream.end(error)

    # What a stream asks for

    def deleteStream(self, stream: ClientStream) -> None:
        """Let the server forget a message stream.  RTMP 1.0, 7.2.2.3."""
        self._tell("deleteStream", None, float(stream.streamId))

    def unpublish(self, publication: Publication) -> None:
        """End a publication at the server: as ffmpeg, OBS and GStreamer do it."""
        told = self._ask("FCUnpublish", None, publication.name)
        # Many servers do not answer.
        self._calls[float(self._lastTransaction)].due = math.inf
        self.deleteStream(publication)

        def over(_: object) -> None:
            if farewell.active():
                farewell.cancel()
            publication.end(None)

        farewell = self._clock.callLater(self._limits.farewellSeconds, over, None)
        told.addBoth(over)
        publication.whenEnded().addCallback(over)

    def streamBegan(self, stream: ClientStream) -> None:
        """A stream has begun: nothing is awaited for it."""
        self._calls.pop(stream.transactionId, None)
        self.setTimer()

    def streamEnded(self, stream: ClientStream) -> None:
        """A stream is over: forget it."""
        self._streams.pop(stream.streamId, None)
        self.receivers.pop(stream.streamId, None)
        self._calls.pop(stream.transactionId, None)

    # What the server says

    def commandReceived(self, command: Command) -> None:
        name = command.name
        if name in ("_result", "_error"):
            self._answered(command)
        elif name == "onStatus":
            self._status(Status(_information(command), command.streamId))
        elif name == "onFCUnpublish":
            for stream in list(self._streams.values()):
                if stream.state is StreamState.LEAVING:
                    stream.end(None)
        elif name == "onBWDone":
            # Flash Media Server measures the way to us; it wants to be asked.
            self._tell("_checkbw", None)
        elif name == "close":
            self._fail(ConnectionEnded("The server closes the connection."))
        elif command.transactionId:
            # Such as _onbwcheck: some servers wait for an answer.
            self.wire.sendCommand("_result", command.transactionId, None, None)

    def _answered(self, command: Command) -> None:
        call = self._calls.get(command.transactionId)
        if call is None:
            return
        failed = command.name == "_error"
        if call.answer is not None:
            del self._calls[command.transactionId]
            if failed:
                call.answer.errback(
                    Status(_information(command)).refusal(CommandFailed)
                )
            else:
                call.answer.callback(command)
        elif failed and call.stream is not None:
            self._refuse(call.stream, Status(_information(command)))

    def _status(self, status: Status) -> None:
        for told in list(self.statusReceived):
            told(status)
        code = status.code
        if code == RECONNECT_REQUEST:
            self._reconnectRequested(status)
            return
        if code.startswith("NetConnection.Connect."):
            if self.phase is Phase.CONNECTING:
                if status.saysNo:
                    self._connectRefused(status)
            elif status.saysNo or code in _DISCONNECTS:
                why = status.description or "The server closes the connection."
                self._fail(ConnectionEnded(why, code=code))
            return
        stream = self._streamOf(status.streamId)
        if stream is None:
            return
        if status.saysNo:
            self._refuse(stream, status)
        elif code in _BEGINS:
            stream.begin()
        elif code in _ENDS and isinstance(stream, Subscription):
            self._endOf(stream, code)
        elif code == _UNPUBLISHED and isinstance(stream, Publication):
            if stream.state is StreamState.LEAVING:
                stream.end(None)
            else:
                self._refuse(stream, status)

    def _reconnectRequested(self, status: Status) -> None:
        """
        The server wishes that we connect anew.  E-RTMP v2, Reconnect Request.

        What makes no sense is logged and passed over; we stay.
        """
        reference = status.properties.get("tcUrl", "")
        try:
            if self.phase is not Phase.CONNECTED or self._wanted:
                raise InvalidURL("it comes before connect is answered, or at the end")
            if not isinstance(reference, str):
                raise InvalidURL("its tcUrl is not a string")
            url = self.url.redirected(reference)
        except InvalidURL as error:
            self.log.warn(
                "{url}: a request to connect anew is passed over: {why}",
                url=str(self.url),
                why=str(error),
            )
            return
        request = ReconnectRequest(url, status.description)
        self.log.info(
            "{url} asks to connect anew{where}{why}",
            url=str(self.url),
            where="" if url == self.url else f", to {url}",
            why=f": {printable(request.description)}" if request.description else "",
        )
        self.reconnectRequest = request
        for told in list(self.reconnectRequested):
            told(request)

    def _streamOf(self, streamId: int) -> ClientStream | None:
        """
        The stream that a status is about.  Some servers say it on message stream 0:
        then it is the one that waits for it, or the only one.
        """
        stream = self._streams.get(streamId)
        if stream is not None or not self._streams:
            return stream
        streams = list(self._streams.values())
        starting = [s for s in streams if s.state is StreamState.STARTING]
        if len(starting) == 1:
            return starting[0]
        return streams[0] if len(streams) == 1 else None

    def _endOf(self, stream: Subscription, code: str) -> None:
        """A stream that is played is over, as it should be."""
        stream.code = code
        self.deleteStream(stream)
        stream.end(None)

    def playStatus(self, subscription: Subscription, payload: bytes) -> None:
        """An C{onPlayStatus}, which comes as a data message."""
        values = amf0.decode(payload)
        if isinstance(values[-1], dict):
            code = _text(values[-1].get("code"))
            if code in _ENDS:
                self._endOf(subscription, code)

    def userControlReceived(self, event: UserControl) -> None:
        if event.eventType == UserControlType.STREAM_EOF:
            stream = self._streams.get(event.value)
            if isinstance(stream, Subscription) and stream.state is StreamState.ACTIVE:
                self._endOf(stream, "")

    def strayMessage(self, message: Message) -> None:
        # ffmpeg as a server sends its media on message stream 0.
        if len(self.receivers) == 1:
            [receiver] = self.receivers.values()
            receiver.heard = self._heard
            receiver.messageReceived(message)

    def drained(self) -> None:
        for stream in list(self._streams.values()):
            if self.congested:
                return
            if isinstance(stream, Publication):
                stream.ready()

    # Time limits and the end

    def deadline(self) -> tuple[float, str]:
        when, why, _ = self._limit()
        return when, why

    def _limit(self) -> tuple[float, str, float]:
        """
        What is to happen next at the latest.

        @return: when, in the clock's time; what has been waited for in vain, then; how
            long, in seconds.
        """
        limits = self._limits
        if self._farewell != math.inf:
            # As long as it says anything it may still be reading.
            when = max(self._farewell, self._heard + limits.farewellSeconds)
            return min(when, self._farewell + LINGER_SECONDS), "", 0.0
        if self.phase is not Phase.CONNECTED:
            return (
                self._since + limits.connectSeconds,
                "the server's answer",
                limits.connectSeconds,
            )
        when, why, seconds = math.inf, "", limits.commandSeconds
        for call in self._calls.values():
            if call.due < when:
                when, why = call.due, f"the answer to {call.name}"
        # A server is not silent while it is not heard; a pace holds for an instant.
        if limits.silenceSeconds and not self._holds - {(Hold.PACE, None)}:
            for receiver in self.receivers.values():
                # 0 as long as it has not begun.
                due = receiver.heard + limits.silenceSeconds
                if receiver.heard and due < when:
                    when, why, seconds = due, "audio or video", limits.silenceSeconds
        return when, why, seconds

    def cut(self, why: str) -> None:
        if (Hold.REPLIES, None) in self._holds:
            seconds = self._drainSeconds
            text = f"The server takes nothing for {seconds:g} s."
        else:
            _, awaited, seconds = self._limit()
            text = f"Waited {seconds:g} s for {awaited}."
        if not self._wanted:
            self._failWith(TimeLimitPassed(text, seconds=seconds))

    def release(self, reason: Hold, holder: object = None) -> None:
        super().release(reason, holder)
        if self.phase is Phase.CONNECTED:
            self.setTimer()

    def violated(self, error: ProtocolError) -> None:
        rule = f" ({error.section})" if error.section else ""
        self._fail(ConnectionEnded(f"Protocol error: {error}{rule}", clean=False))

    def _failWith(self, error: ClientError) -> None:
        """Note why the connection ends; the first reason is the one."""
        if self._error is None:
            self._error = error

    def _fail(self, error: ClientError) -> None:
        """End the connection for a reason."""
        self._failWith(error)
        self.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.phase is not Phase.CLOSING and not self._wanted:
            self._failWith(_endOf(reason))
        super().connectionLost(reason)
        self.log.info(
            "connection to {url} has ended: {why}",
            url=str(self.url),
            why="closed" if self._error is None else str(self._error),
        )
        # One by one: who is told may cancel what another waits for.
        while self._waiting:
            self._waiting.pop(0).callback(self._error)

    def ending(self) -> None:
        """Tell all who wait, and end the streams."""
        error = self._error or ConnectionEnded("The connection is closed.")
        if not self.accepted.called:
            self.accepted.errback(error)
        for stream in list(self._streams.values()):
            stream.end(self._error)
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if call.answer is not None and not call.answer.called:
                call.answer.errback(error)


def _endOf(reason: Failure) -> ClientError:
    """The error for the end of a transport."""
    if reason.check(ConnectionDone):
        return ConnectionEnded("The server has closed the connection.")
    if reason.check(ConnectionAborted):
        return ConnectionEnded("The connection was aborted.", clean=False)
    return ConnectionEnded(f"The connection is lost: {_reasonOf(reason)}", clean=False)


def _reasonOf(reason: Failure) -> str:
    """Why a transport ended, in a few words."""
    module = getattr(reason.type, "__module__", "")
    if module.startswith("OpenSSL"):
        # [('SSL routines', '', 'certificate verify failed')]
        arguments = getattr(reason.value, "args", ())
        errors = arguments[0] if arguments else ()
        texts = [e[-1] for e in errors if isinstance(e, tuple) and e]
        return f"TLS: {', '.join(texts) or 'the server ended it'}."
    if module.startswith("service_identity"):
        return "TLS: the server's certificate is not for this host."
    return printable(reason.getErrorMessage())


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _information(command: Command) -> Mapping[str, Any]:
    """The object of an C{onStatus} or of an answer that has a code."""
    found: Mapping[str, Any] = {}
    for argument in reversed(command.arguments):
        if isinstance(argument, dict):
            if "code" in argument:
                return argument
            found = found or argument
    return found
