"""The streams of a client's connection: publications and subscriptions."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, cast

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from twisted_rtmp.client.errors import ClientError, ConnectionEnded
from twisted_rtmp.link import Hold
from twisted_rtmp.live.packaging import RTMPPackaging
from twisted_rtmp.states import Stateful
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import ECMAArray
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.messages import Message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.logger import Logger

    from twisted_rtmp.interfaces import IMediaSink

_DATA: int = MessageType.DATA_AMF0

#: The beginnings of data messages that are about playing and not part of the stream.
_SAMPLE_ACCESS = b"\x02\x00\x11|RtmpSampleAccess"
_DATA_STATUS = b"\x02\x00\x08onStatus"
_PLAY_STATUS = b"\x02\x00\x0conPlayStatus"
_OVER = "The publication is over."
_OF_THE_PLAYING = (_SAMPLE_ACCESS, _DATA_STATUS, _PLAY_STATUS)


class StreamState(Enum):
    """The state of a publication or subscription."""

    STARTING = "the server has not answered yet"
    ACTIVE = "media flow"
    LEAVING = "the server has been told of the end"
    ENDED = "over"


#: The states that may follow each state.
TRANSITIONS = {
    StreamState.STARTING: {StreamState.ACTIVE, StreamState.ENDED},
    StreamState.ACTIVE: {StreamState.LEAVING, StreamState.ENDED},
    StreamState.LEAVING: {StreamState.ENDED},
    StreamState.ENDED: set(),
}


class StreamOwner(Protocol):
    """
    The connection of a stream, as far as the stream needs it.

    @ivar peer: the server's address, for log lines.
    @ivar congested: whether the server takes less than it is given.
    @ivar log: the connection's log.
    """

    peer: str
    congested: bool
    log: Logger

    def seconds(self) -> float:
        """Read the clock, in seconds."""

    def streamStarted(self, stream: ClientStream) -> None:
        """Await nothing for a stream any more."""

    def streamEnded(self, stream: ClientStream) -> None:
        """Forget a stream."""

    def deleteStream(self, stream: ClientStream) -> None:
        """Let the server forget a message stream."""

    def unpublish(self, publication: Publication) -> None:
        """End a publication at the server; call its C{end} when it knows."""

    def playStatus(self, subscription: Subscription, payload: bytes) -> None:
        """Take an C{onPlayStatus}."""

    def writeMedia(self, data: bytes) -> None:
        """Send whole messages."""

    def hold(self, reason: Hold, holder: object) -> None:
        """Read nothing for a reason, until that is released."""

    def release(self, reason: Hold, holder: object) -> None:
        """Read on, if there is no other reason not to."""

    def giveUp(self, waiting: Deferred[Any]) -> None:
        """Cancel a Deferred that waits for the server, and end the connection."""

    def disconnect(self) -> Deferred[None]:
        """End all streams, then the connection."""

    def warn(self, format: str, **fields: object) -> None:  # noqa: A002
        """Log something that the server loses, C{peer} in the format."""

    def abort(self, why: str) -> None:
        """End the connection at once, for a reason."""


class ClientStream(Stateful[StreamState]):
    """
    A message stream of a client's connection.

    @ivar client: the connection.
    @ivar streamId: the message stream id.
    @ivar name: the name that the server was asked for; not for logs, since it may be
        a key.
    @ivar peer: the server's address, for log lines.
    @ivar heard: when audio or video came last, in the clock's seconds.
    @ivar transactionId: of the command that started it.
    @ivar started: fires when the server lets it start; fails if it does not.
    """

    transitions = TRANSITIONS

    def __init__(self, client: StreamOwner, streamId: int, name: str) -> None:
        self.client = client
        self.streamId = streamId
        self.name = name
        self.peer = client.peer
        self.state = StreamState.STARTING
        self.heard = 0.0
        self.transactionId = 0.0
        self.started: Deferred[None] = Deferred(client.giveUp)
        self._error: ClientError | None = None
        self._waiting: list[Deferred[ClientError | None]] = []
        self._over = False

    def whenEnded(self) -> Deferred[ClientError | None]:
        """
        Learn of the end; each call gives a Deferred of its own, which never fails.

        @return: fires with L{None} if the stream ended as it should (either end said
            so), else with what went wrong: a L{ServerRefused
            <twisted_rtmp.client.errors.ServerRefused>}, L{ConnectionEnded
            <twisted_rtmp.client.errors.ConnectionEnded>} or L{TimeLimitPassed
            <twisted_rtmp.client.errors.TimeLimitPassed>}.
        """
        if self._over:
            return succeed(self._error)
        waiting: Deferred[ClientError | None] = Deferred(self._stopWaiting)
        self._waiting.append(waiting)
        return waiting

    def _stopWaiting(self, waiting: Deferred[Any]) -> None:
        self._waiting.remove(waiting)

    # For the connection

    def start(self) -> None:
        """Take note that the server lets it start."""
        if self.state is StreamState.STARTING:
            self._enter(StreamState.ACTIVE)
            self.heard = self.client.seconds()
            self.client.streamStarted(self)
            self.started.callback(None)

    def end(self, error: ClientError | None) -> None:
        """Take note of the end."""
        if self.state is StreamState.ENDED:
            return
        before = self.state
        self._enter(StreamState.ENDED)
        if before is StreamState.LEAVING and isinstance(error, ConnectionEnded):
            # A server may end the connection when it is told of the end.
            error = None if error.clean else error
        self._error = error
        self.client.streamEnded(self)
        if before is StreamState.STARTING and not self.started.called:
            self.started.errback(error or ConnectionEnded("Closed before it started."))
        self._finish()

    def close(self) -> Deferred[None]:
        """End it; the connection stays."""
        raise NotImplementedError

    def _finish(self) -> None:
        """Fire the Deferreds that wait for the end: all has been done."""
        self._over = True
        # One by one: a callback may cancel what another one waits for.
        while self._waiting:
            self._waiting.pop(0).callback(self._error)


class Publication(ClientStream):
    """
    A stream that this client publishes; also an L{Outlet
    <twisted_rtmp.live.player.Outlet>} of a player.

    While it is L{congested}, the server takes less than it is given: send nothing more
    until L{drained} is called or L{whenReady} fires, or it is queued without bound.

    @ivar packaging: how messages are written for it: see L{writeMedia}.
    @ivar drained: called without arguments when more may be sent after a congestion;
        to be set by the user.
    """

    def __init__(
        self, client: StreamOwner, streamId: int, name: str, chunkSize: int
    ) -> None:
        super().__init__(client, streamId, name)
        self.packaging = RTMPPackaging(streamId, chunkSize, setDataFrame=True)
        self.drained: Callable[[], object] | None = None
        self._ready: list[Deferred[None]] = []

    @property
    def chunkSize(self) -> int:
        """Bytes of data a chunk."""
        return self.packaging.chunkSize

    @property
    def congested(self) -> bool:
        """Tell whether the server takes less than it is given."""
        return self.client.congested

    def send(self, message: Message) -> None:
        """
        Send an audio, video or data message at its own time, on this stream.

        After the end nothing is sent.

        @raise UsageError: its payload does not fit a message.
        """
        self.writeMedia(self.packaging.encode(message))

    def sendMetadata(self, properties: Mapping[str, Any], timestamp: int = 0) -> None:
        """
        Send C{onMetaData}.

        @param timestamp: milliseconds.
        @raise UsageError: a value has no AMF0 form.
        """
        payload = amf0.encode("onMetaData", ECMAArray(properties))
        self.send(Message(_DATA, timestamp, self.streamId, payload))

    def writeMedia(self, data: bytes) -> None:
        """Send messages that L{packaging} has encoded."""
        if self.state is StreamState.ACTIVE:
            self.client.writeMedia(data)

    def whenReady(self) -> Deferred[None]:
        """
        Wait until more may be sent.

        @return: fires at once if it is not congested; fails with a L{ClientError} at
            the end.
        """
        if self.state is not StreamState.ACTIVE:
            return fail(self._error or ConnectionEnded(_OVER))
        if not self.congested:
            return succeed(None)
        ready: Deferred[None] = Deferred(self._ready.remove)
        self._ready.append(ready)
        return ready

    def close(self) -> Deferred[None]:
        """
        End the publication behind all that has been sent; the connection stays.

        @return: fires when the server has confirmed it, or has had its time to, or is
            gone.
        """
        if self.state is StreamState.ACTIVE:
            self._enter(StreamState.LEAVING)
            self._failReady(ConnectionEnded(_OVER))
            self.client.unpublish(self)
        return self.whenEnded().addCallback(_nothing)

    def end(self, error: ClientError | None) -> None:
        super().end(error)
        self._failReady(error or ConnectionEnded(_OVER))

    def _failReady(self, error: ClientError) -> None:
        while self._ready:
            self._ready.pop(0).errback(error)

    # For the connection

    def ready(self) -> None:
        """Take note that the server has taken all that was queued for it."""
        waiting, self._ready = self._ready, []
        for deferred in waiting:
            deferred.callback(None)
        if self.drained is not None and self.state is StreamState.ACTIVE:
            self.drained()

    # For a player

    def streamStarted(self, player: object, stream: object, again: bool) -> None:
        """Send nothing: the server learns of the stream by its messages."""

    def streamEnded(self, player: object) -> None:
        """End the publication behind all that has been sent."""
        self.close()

    def warn(self, format: str, **fields: object) -> None:  # noqa: A002
        """Log something that the server loses."""
        self.client.warn(format, **fields)

    def abort(self, why: str) -> None:
        """End the connection at once: the server is too far behind."""
        self.client.abort(why)


@implementer(IPushProducer)
class Subscription(ClientStream):
    """
    A stream that this client plays.

    Pausing it stops all reading from the connection, so that TCP slows the server
    down.

    @ivar code: the server's code for the end, such as
        C{"NetStream.Play.UnpublishNotify"}; empty where it gave none.
    @ivar messages: how many the sink got.
    """

    def __init__(
        self, client: StreamOwner, streamId: int, name: str, sink: IMediaSink
    ) -> None:
        super().__init__(client, streamId, name)
        self.code = ""
        self.messages = 0
        self._data = 0
        self._media = 0
        self._sink = sink

    # For the connection

    def messageReceived(self, message: Message) -> None:
        """Hand a message to the sink."""
        if self.state is StreamState.STARTING:
            # Not every server says that it starts.
            self.start()
        if self.state is not StreamState.ACTIVE:
            return
        if message.typeId == _DATA:
            self._data += 1
            if message.payload.startswith(_OF_THE_PLAYING):
                self._data -= 1
                if message.payload.startswith(_PLAY_STATUS):
                    self.client.playStatus(self, message.payload)
                return
        self.messages += 1
        self._sink.mediaReceived(message)

    def noteHeard(self, now: float) -> None:
        """Note when audio or video came."""
        media = self.messages - self._data
        if media != self._media:
            self._media = media
            self.heard = now

    def _finish(self) -> None:
        self.client.release(Hold.SINK, self)
        stored = maybeDeferred(cast("Any", self._sink.streamEnded))
        # An application's sink must not keep others from learning of the end.
        stored.addErrback(
            lambda failure: self.client.log.failure(
                "{peer}: a sink failed at its end", failure, peer=self.peer
            )
        )
        stored.addCallback(lambda _: ClientStream._finish(self))

    # For the user

    def pauseProducing(self) -> None:
        """Read nothing until L{resumeProducing}; some messages may still come."""
        if self.state is not StreamState.ENDED:
            self.client.hold(Hold.SINK, self)

    def resumeProducing(self) -> None:
        """Read on."""
        self.client.release(Hold.SINK, self)

    def stopProducing(self) -> None:
        """End it: the sink is gone."""
        self.close()

    def close(self) -> Deferred[None]:
        """
        Stop playing; the connection stays.  The sink gets nothing more.

        @return: fires when the sink has stored all.
        """
        if self.state is StreamState.ACTIVE:
            self._enter(StreamState.LEAVING)
            self.client.deleteStream(self)
            self.end(None)
        return self.whenEnded().addCallback(_nothing)


def _nothing(result: object) -> None:
    """Drop a result: only the end was waited for."""
