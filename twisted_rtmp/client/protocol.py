"""
The client's end of one connection: its commands, its time limits, and its end.

What is published and played is in C{streams}; how a connection is made is in
C{connecting}.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from twisted_rtmp import __version__
from twisted_rtmp.client.calls import Calls
from twisted_rtmp.client.errors import (
    ClientError,
    CommandFailed,
    ConnectionEnded,
    ConnectRejected,
    InvalidURL,
    PlayRefused,
    PublishRefused,
    TimeLimitPassed,
    refusal,
)
from twisted_rtmp.client.limits import (
    REQUEST_LINE_RATE,
    REQUEST_LINES,
    ClientLimits,
)
from twisted_rtmp.client.secrets import Secrets
from twisted_rtmp.client.status import (
    DISCONNECTS,
    ENDS,
    STARTS,
    UNPUBLISHED,
    ReconnectRequest,
    Status,
)
from twisted_rtmp.client.streams import (
    ClientStream,
    Publication,
    StreamState,
    Subscription,
)
from twisted_rtmp.link import Deadline, Hold, Link, LinkState
from twisted_rtmp.live.addresses import TokenBucket
from twisted_rtmp.media.capabilities import clientProperties
from twisted_rtmp.names import printable
from twisted_rtmp.reconnect import MAX_DESCRIPTION_BYTES, MAX_TC_URL_BYTES
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

#: The time that a player buffers before it plays, in milliseconds, as ffmpeg says it:
#: some servers send that much ahead.
BUFFER_MILLISECONDS = 3000

#: This client's name in C{connect}: Wowza and Akamai's servers take publishers only
#: whose software calls itself FMLE.
FLASH_VERSION = f"FMLE/3.0 (compatible; twisted_rtmp/{__version__})"

#: Codecs of the time before Enhanced RTMP, as ffmpeg and GStreamer announce them.
#: RTMP 1.0, 7.2.1.1.
AUDIO_CODECS = 4071.0
VIDEO_CODECS = 252.0


class RTMPClient(Link):
    """
    The client's end of one connection; L{connectRTMP
    <twisted_rtmp.client.connecting.connectRTMP>} makes it.

    Several streams may be published and played on it at once.

    @ivar url: the address that it was made for.
    @ivar properties: the server's own, from its answer to C{connect}: the command
        object and the information in one.
    @ivar statusReceived: called with each L{Status}, before it is acted upon.
    @ivar reconnectRequest: the server's newest request, or L{None}.
    @ivar reconnectRequested: called with each L{ReconnectRequest}.  The server goes on
        serving this connection, and nothing else is done about it here.
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
        self._show = Secrets(url).shown
        self._requestLines = TokenBucket(REQUEST_LINES, clock.seconds())
        self._requestsLeftOut = 0
        self._calls = Calls(clock, limits.commandSeconds, self._show)
        self._lastTransaction = 0
        self._streams: dict[int, ClientStream] = {}
        self._farewell = math.inf
        self._wanted = False
        self._error: ClientError | None = None
        self._waiting: list[Deferred[ClientError | None]] = []

    def seconds(self) -> float:
        """Read the clock, in seconds."""
        return self._clock.seconds()

    # The beginning

    def connectionMade(self) -> None:
        super().connectionMade()
        self.wire.start()
        self.flush()

    def pauseProducing(self) -> None:
        if self.state is LinkState.HANDSHAKE:
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
        status = Status.fromCommand(command, self._show)
        if status.saysNo:
            self._connectRefused(status)
            return
        for argument in command.arguments:
            if isinstance(argument, dict):
                self.properties.update(argument)
        self._enter(LinkState.CONNECTED)
        self.setTimer()
        self.log.info("connected to {url}", url=str(self.url))
        self.accepted.callback(None)

    def _connectFailed(self, failure: Failure) -> None:
        """Fail for an error; without an answer the connection has ended already."""
        failure.trap(ClientError)
        error = failure.value
        if isinstance(error, CommandFailed):
            self._fail(
                refusal(
                    error.code,
                    error.description,
                    ConnectRejected,
                    error.redirect,
                    self._show,
                )
            )

    def _connectRefused(self, status: Status) -> None:
        self._fail(status.refusal(ConnectRejected))

    # For the user

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
        return Deferred.fromCoroutine(self._publish(self._name(name), kind))

    async def _publish(self, name: str, kind: str) -> Publication:
        self._checkConnected()
        # Servers may answer these; it makes no difference.
        self._tell("releaseStream", None, name)
        self._tell("FCPublish", None, name)
        streamId = await self._createStream()
        publication = Publication(self, streamId, name, CHUNK_SIZE)
        self._askFor(publication, "publish", name, kind)
        await publication.started
        self.log.info("publishing to {url} ({peer})", peer=self.peer, url=self.url)
        return publication

    def play(
        self, name: str | None, sink: IMediaSink, start: float = -2.0
    ) -> Deferred[Subscription]:
        """
        Play a stream.

        @param name: the stream's name, with its query; L{None} for the URL's.
        @param sink: gets the messages in order, from the first one on (which may be
            before the Deferred fires), and its C{streamEnded} is called.
        @param start: -2 for live or else recorded, -1 for live only, or a time in
            seconds in what is recorded.  RTMP 1.0, 7.2.2.1.
        @return: fires when the server starts; fails with a L{PlayRefused} or another
            L{ClientError}.  Cancelling it closes the connection.
        """
        return Deferred.fromCoroutine(self._play(self._name(name), sink, start))

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
        self.log.info("playing from {url} ({peer})", peer=self.peer, url=self.url)
        return subscription

    def _name(self, name: str | None) -> str:
        return self.url.name if name is None else name

    def _checkConnected(self) -> None:
        if self.state is not LinkState.CONNECTED or self._wanted:
            raise self._error or ConnectionEnded("The connection is closed.")

    async def _createStream(self) -> int:
        command = await self._ask("createStream", None)
        streamId = command.argument(1)
        if not isinstance(streamId, (int, float)) or not 0 < streamId < 1 << 32:
            raise CommandFailed("The server's answer to createStream has no stream id.")
        if int(streamId) in self._streams:
            raise CommandFailed(
                "The server's answer to createStream has a stream id in use."
            )
        return int(streamId)

    def disconnect(self) -> Deferred[None]:
        """
        End the publications and subscriptions, then the connection, and lose nothing
        that has been sent.

        @return: fires when it has ended; never fails.
        """
        if self.state is LinkState.CONNECTED and not self._wanted:
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
                    self._drain.stop()
                    self.release(Hold.REPLIES)
                cast("ITCPTransport", transport).loseWriteConnection()
        elif self.state in (LinkState.HANDSHAKE, LinkState.CONNECTING):
            self.close()
        return self.whenEnded().addCallback(lambda _: None)

    def abort(self, why: str = "") -> None:
        """
        End the connection at once.

        @param why: one sentence; empty if it is the user's wish.
        """
        if self.state is not LinkState.CLOSED:
            if why:
                self._failWith(ConnectionEnded(why, clean=False))
            self._wanted = True
            if self.state is not LinkState.CLOSING:
                # What has been received already is ignored.
                self._enter(LinkState.CLOSING)
                self.ending()
            self.transport.abortConnection()

    def giveUp(self, waiting: Deferred[Any]) -> None:
        """
        Cancel a Deferred that waits for the server: there is no way to tell it but to
        end the connection.
        """
        waiting.errback(CancelledError())
        self.abort()

    def whenEnded(self) -> Deferred[ClientError | None]:
        """
        Learn of the connection's end; each call gives a Deferred of its own, which
        never fails.

        @return: fires with L{None} if this end closed it, else with the error.
        """
        if self.state is LinkState.CLOSED:
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
        self._calls.add(self._tell(name, *arguments), name, answer)
        self.setTimer()
        return answer

    def _askFor(self, stream: ClientStream, name: str, *arguments: object) -> None:
        """Send C{publish} or C{play}, which C{onStatus} answers."""
        self._streams[stream.streamId] = stream
        tid = self._tell(name, None, *arguments, streamId=stream.streamId)
        self._calls.add(tid, name, stream=stream)
        stream.transactionId = tid
        self.setTimer()

    def _refuse(self, stream: ClientStream, status: Status) -> None:
        """End a stream that the server does not let start, or go on."""
        if isinstance(stream, Subscription):
            stream.code = status.code
            error = status.refusal(PlayRefused)
        else:
            error = status.refusal(PublishRefused)
        self.deleteStream(stream)
        stream.end(error)

    # For its streams

    def deleteStream(self, stream: ClientStream) -> None:
        """Let the server forget a message stream.  RTMP 1.0, 7.2.2.3."""
        self._tell("deleteStream", None, float(stream.streamId))

    def unpublish(self, publication: Publication) -> None:
        """End a publication at the server: as ffmpeg, OBS and GStreamer do it."""
        confirmed = self._ask("FCUnpublish", None, publication.name)
        # Many servers do not answer.
        self._calls.waitForEver(float(self._lastTransaction))
        self.deleteStream(publication)

        def over(_: object) -> None:
            if farewell.active():
                farewell.cancel()
            publication.end(None)

        farewell = self._clock.callLater(self._limits.farewellSeconds, over, None)
        confirmed.addBoth(over)
        publication.whenEnded().addCallback(over)

    def streamStarted(self, stream: ClientStream) -> None:
        """Await nothing for a stream any more."""
        self._calls.forget(stream.transactionId)
        self.setTimer()

    def streamEnded(self, stream: ClientStream) -> None:
        """Forget a stream."""
        self._streams.pop(stream.streamId, None)
        self.receivers.pop(stream.streamId, None)
        self._calls.forget(stream.transactionId)

    # From the server

    def commandReceived(self, command: Command) -> None:
        name = command.name
        if name in ("_result", "_error"):
            stream = self._calls.answered(command)
            if stream is not None:
                self._refuse(stream, Status.fromCommand(command, self._show))
        elif name == "onStatus":
            self._status(Status.fromCommand(command, self._show))
        elif name == "onFCUnpublish":
            for stream in list(self._streams.values()):
                if stream.state is StreamState.LEAVING:
                    stream.end(None)
        elif name == "onBWDone":
            # Flash Media Server measures the bandwidth when it is asked to.
            self._tell("_checkbw", None)
        elif name == "close":
            self._fail(ConnectionEnded("The server closes the connection."))
        elif command.transactionId:
            # Such as _onbwcheck: some servers wait for an answer.
            self.wire.sendCommand("_result", command.transactionId, None, None)

    def _status(self, status: Status) -> None:
        for callback in list(self.statusReceived):
            callback(status)
        code = status.code
        if code == RECONNECT_REQUEST:
            self._reconnectRequested(status)
            return
        if code.startswith("NetConnection.Connect."):
            if self.state is LinkState.CONNECTING:
                if status.saysNo:
                    self._connectRefused(status)
            elif status.saysNo or code in DISCONNECTS:
                # A server may redirect a client when it begins a stream, too.
                rejected = status.redirect and status.refusal(ConnectRejected)
                self._fail(rejected or status.ended())
            return
        stream = self._findStream(status.streamId)
        if stream is None:
            return
        if status.saysNo:
            self._refuse(stream, status)
        elif code in STARTS:
            stream.start()
        elif code in ENDS and isinstance(stream, Subscription):
            self._endPlay(stream, code)
        elif code == UNPUBLISHED and isinstance(stream, Publication):
            if stream.state is StreamState.LEAVING:
                stream.end(None)
            else:
                self._refuse(stream, status)

    def _reconnectRequested(self, status: Status) -> None:
        """
        Take a request to connect again.  E-RTMP v2, Reconnect Request.

        An invalid one is logged and ignored.
        """
        reference = status.properties.get("tcUrl", "")
        try:
            if self.state is not LinkState.CONNECTED or self._wanted:
                raise InvalidURL("it comes before connect is answered, or at the end")
            if not isinstance(reference, str):
                raise InvalidURL("its tcUrl is not a string")
            if len(reference) > MAX_TC_URL_BYTES:
                raise InvalidURL(f"its tcUrl has more than {MAX_TC_URL_BYTES} bytes")
            url = self.url.redirected(reference)
        except InvalidURL as error:
            self._tellOf(f"a reconnect request is ignored: {error}")
            return
        description = status.description[:MAX_DESCRIPTION_BYTES]
        request = ReconnectRequest(url, description)
        where = "" if url == self.url else f", to {url}"
        why = f": {self._show(description)}" if description else ""
        self._tellOf(f"the server asks to reconnect{where}{why}")
        self.reconnectRequest = request
        for callback in list(self.reconnectRequested):
            callback(request)

    def _tellOf(self, request: str) -> None:
        """Log a request of the server's, unless there are too many."""
        if not self._requestLines.take(
            REQUEST_LINES, REQUEST_LINE_RATE, self.seconds()
        ):
            self._requestsLeftOut += 1
            return
        leftOut, self._requestsLeftOut = self._requestsLeftOut, 0
        self.log.info(
            "{url}: {request}{more}",
            url=str(self.url),
            request=request,
            more=f" ({leftOut} requests before it were not logged)" if leftOut else "",
        )

    def _findStream(self, streamId: int) -> ClientStream | None:
        """
        Find the stream that a status is about.  Some servers send it on message stream
        0: then it is for the one that waits for it, or the only one.
        """
        stream = self._streams.get(streamId)
        if stream is not None or not self._streams:
            return stream
        streams = list(self._streams.values())
        starting = [s for s in streams if s.state is StreamState.STARTING]
        if len(starting) == 1:
            return starting[0]
        return streams[0] if len(streams) == 1 else None

    def _endPlay(self, stream: Subscription, code: str) -> None:
        """End a subscription whose stream has ended as it should."""
        stream.code = code
        self.deleteStream(stream)
        stream.end(None)

    def playStatus(self, subscription: Subscription, payload: bytes) -> None:
        """Take an C{onPlayStatus}, which is a data message."""
        values = amf0.decode(payload)
        if isinstance(values[-1], dict):
            code = Status(values[-1]).code
            if code in ENDS:
                self._endPlay(subscription, code)

    def userControlReceived(self, event: UserControl) -> None:
        if event.eventType == UserControlType.STREAM_EOF:
            stream = self._streams.get(event.value)
            if isinstance(stream, Subscription) and stream.state is StreamState.ACTIVE:
                self._endPlay(stream, "")

    def strayMessage(self, message: Message) -> None:
        # ffmpeg as a server sends its media on message stream 0.
        if len(self.receivers) == 1:
            [receiver] = self.receivers.values()
            receiver.messageReceived(message)

    @property
    def sendsMedia(self) -> bool:
        return any(isinstance(each, Publication) for each in self._streams.values())

    def drained(self) -> None:
        for stream in list(self._streams.values()):
            if self.congested:
                return
            if isinstance(stream, Publication):
                stream.ready()

    # Time limits and the end

    def deadline(self) -> Deadline:
        """Find the limit that is due next, and what the server has not done by then."""
        limits = self._limits
        if self._farewell != math.inf:
            # As long as it sends anything it may still be reading.
            when = max(self._farewell, self._heard + limits.farewellSeconds)
            return min(when, self._farewell + LINGER_SECONDS), "", 0.0
        if self.state is not LinkState.CONNECTED:
            return (
                self._since + limits.connectSeconds,
                "the server's answer",
                limits.connectSeconds,
            )
        when, name = self._calls.nextDue()
        why, seconds = f"the answer to {name}", limits.commandSeconds
        # A server that is not read from is not silent.
        if limits.silenceSeconds and not self._holds:
            for receiver in self.receivers.values():
                # 0 before it has started.
                due = receiver.heard + limits.silenceSeconds
                if receiver.heard and due < when:
                    when, why, seconds = due, "audio or video", limits.silenceSeconds
        return when, why, seconds

    def noteCut(self, why: str) -> None:
        _, awaited, seconds = self.deadline()
        if not self._wanted:
            text = f"Waited {seconds:g} s for {awaited}."
            self._failWith(TimeLimitPassed(text, seconds=seconds))

    def notDrained(self) -> None:
        seconds = self._drain.seconds
        if not self._wanted:
            text = f"The server takes nothing for {seconds:g} s."
            self._failWith(TimeLimitPassed(text, seconds=seconds))
        self.transport.abortConnection()

    def release(self, reason: Hold, holder: object = None) -> None:
        super().release(reason, holder)
        if self.state is LinkState.CONNECTED:
            self.setTimer()

    def violated(self, error: ProtocolError) -> None:
        rule = f" ({error.section})" if error.section else ""
        self._fail(ConnectionEnded(f"Protocol error: {error}{rule}", clean=False))

    def _failWith(self, error: ClientError) -> None:
        """Note why the connection ends; the first reason counts."""
        if self._error is None:
            self._error = error

    def _fail(self, error: ClientError) -> None:
        """End the connection for a reason."""
        self._failWith(error)
        self.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.state is not LinkState.CLOSING and not self._wanted:
            self._failWith(_errorFor(reason))
        super().connectionLost(reason)
        self.log.info(
            "connection to {url} has ended: {why}",
            url=str(self.url),
            why="closed" if self._error is None else str(self._error),
        )
        # One by one: a callback may cancel what another one waits for.
        while self._waiting:
            self._waiting.pop(0).callback(self._error)

    def ending(self) -> None:
        """End the streams, and let all that wait know."""
        error = self._error or ConnectionEnded("The connection is closed.")
        if not self.accepted.called:
            self.accepted.errback(error)
        for stream in list(self._streams.values()):
            stream.end(self._error)
        self._calls.fail(error)


def _errorFor(reason: Failure) -> ClientError:
    """Make the error for the end of a transport."""
    if reason.check(ConnectionDone):
        return ConnectionEnded("The server has closed the connection.")
    if reason.check(ConnectionAborted):
        return ConnectionEnded("The connection was aborted.", clean=False)
    return ConnectionEnded(f"The connection is lost: {_describe(reason)}", clean=False)


def _describe(reason: Failure) -> str:
    """Say in a few words why a transport ended."""
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
