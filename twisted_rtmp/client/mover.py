"""
Moving: continuing on another connection where a server asks for it.

E-RTMP v2, Reconnect Request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from twisted_rtmp.client.connecting import CONNECT_ERRORS
from twisted_rtmp.client.limits import MAX_MOVE_SECONDS, MAX_MOVES, STEADY_SECONDS
from twisted_rtmp.interfaces import IMediaSink
from twisted_rtmp.media.flags import CODED
from twisted_rtmp.media.payloads import flagsOf

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from twisted_rtmp.client.protocol import RTMPClient
    from twisted_rtmp.client.status import ReconnectRequest
    from twisted_rtmp.client.streams import Subscription
    from twisted_rtmp.client.url import RTMPURL
    from twisted_rtmp.wire.messages import Message

#: Between the last frame of one stream and the first of the next, in milliseconds: one
#: of 25 a second.  A stream does not tell how long its last frame lasts.
FRAME_MILLISECONDS = 40


class MoveLimit:
    """
    A bound on moves: some at once, then ever rarer ones; see L{MAX_MOVES}.

    @ivar count: the moves that were remembered at the newest one.
    """

    def __init__(self) -> None:
        self.count = 0
        self._newest = 0.0

    def allows(self, now: float) -> bool:
        """
        Ask for a move, and count it.

        @param now: the clock's time, in seconds.
        """
        if self.wait(now):
            return False
        self.count = self._remembered(now) + 1
        self._newest = now
        return True

    def wait(self, now: float) -> float:
        """Tell in how many seconds the next move may be made."""
        tooMany = self._remembered(now) - MAX_MOVES
        if tooMany < 0:
            return 0.0
        between = MAX_MOVE_SECONDS
        if tooMany < 32:
            between = min(between, STEADY_SECONDS * (1 << tooMany))
        return max(0.0, self._newest + between - now)

    def _remembered(self, now: float) -> int:
        return max(0, self.count - int((now - self._newest) / MAX_MOVE_SECONDS))


class Movable(Protocol):
    """The owner of a connection that may move to another server."""

    def reach(self, url: RTMPURL) -> Deferred[RTMPClient]:
        """
        Connect to a server.

        @return: fails with one of L{CONNECT_ERRORS}.
        """

    def mayMove(self) -> bool:
        """Tell whether it would continue on another connection now."""

    def moved(self) -> None:
        """The next connection is there: leave the present one, and take it."""

    def moveFailed(self, url: RTMPURL, error: Exception) -> None:
        """The other server cannot be reached: the present connection stays."""

    def movesIgnored(self, count: int, seconds: float) -> None:
        """
        Requests are ignored for a while.

        @param count: the moves that are remembered.
        @param seconds: the time until one is obeyed again.
        """


class Mover:
    """
    The way from one connection to the next where a server asks for it.

    The present connection serves until the next one is there, and stays if that does
    not come about.

    @ivar next: the connection to continue on, until L{take} hands it over.
    @ivar connecting: fires when it is known whether there is a next connection, never
        fails; L{None} while none is being made.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, owner: Movable) -> None:
        self.next: RTMPClient | None = None
        self.connecting: Deferred[None] | None = None
        self._clock = clock
        self._owner = owner
        self._limit = MoveLimit()
        # Until when its owner knows that requests are ignored.
        self._ignoring = 0.0

    @property
    def active(self) -> bool:
        """Tell whether there is a next connection, or one is being made."""
        return self.next is not None or self.connecting is not None

    def follow(self, client: RTMPClient) -> None:
        """Obey the requests that a connection's server makes, or has made."""
        client.reconnectRequested.append(self._requested)
        if client.reconnectRequest is not None:
            self._requested(client.reconnectRequest)

    def take(self) -> RTMPClient | None:
        """Hand the next connection over, if there is one."""
        client, self.next = self.next, None
        return client

    def cancel(self) -> None:
        """Make no next connection, if one is being made."""
        if self.connecting is not None:
            self.connecting.cancel()

    def _requested(self, request: ReconnectRequest) -> None:
        if self.active or not self._owner.mayMove():
            return
        now = self._clock.seconds()
        if not self._limit.allows(now):
            if now >= self._ignoring:
                seconds = self._limit.wait(now)
                self._ignoring = now + seconds
                self._owner.movesIgnored(self._limit.count, seconds)
            return
        self.connecting = Deferred.fromCoroutine(self._move(request.url))
        self.connecting.addErrback(self._cancelled).addCallback(self._done)

    async def _move(self, url: RTMPURL) -> None:
        try:
            client = await self._owner.reach(url)
        except CONNECT_ERRORS as error:
            self._owner.moveFailed(url, error)
            return
        if not self._owner.mayMove():
            await client.disconnect()
            return
        self.next = client
        self._owner.moved()

    def _cancelled(self, failure: Failure) -> None:
        """Log any other error: it is a bug."""
        if not failure.check(CancelledError):
            self.log.failure("moving to another server failed", failure)

    def _done(self, _: None) -> None:
        self.connecting = None


class SuccessiveTimes:
    """
    The times of streams that are sent or stored one after the other, as one stream.

    @ivar newest: the largest time so far, in milliseconds.
    """

    def __init__(self) -> None:
        self.newest = 0
        self._floor = 0
        # Unknown until a stream's first frame.
        self._shift: int | None = 0

    def streamFollows(self) -> None:
        """Place what comes from now on behind what there was."""
        self._floor = self.newest
        self._shift = None

    def place(self, message: Message) -> None:
        """Give a message its time: of the first stream it is its own."""
        if self._shift is None:
            first = self._floor + FRAME_MILLISECONDS
            if flagsOf(message.typeId, message.payload) & CODED:
                self._shift = first - message.timestamp
            else:
                # Headers may have any time.
                message.timestamp = first
        if self._shift:
            message.timestamp = max(self._floor, message.timestamp + self._shift)
        self.newest = max(self.newest, message.timestamp)


@implementer(IMediaSink, IPushProducer)
class MovingSink:
    """
    A sink's source, which plays from one server after the other as one stream.

    The end of one server's stream is not the sink's end: the owner tells it of that.

    @ivar subscription: the stream that is played now; pausing this producer pauses it.
    """

    def __init__(self, sink: IMediaSink) -> None:
        self.subscription: Subscription | None = None
        self._sink = sink
        self._times = SuccessiveTimes()
        self._paused = False

    def moved(self) -> None:
        """Expect another server's stream."""
        self.subscription = None
        self._times.streamFollows()

    def started(self, subscription: Subscription) -> None:
        """Pause and end this subscription from now on."""
        self.subscription = subscription
        if self._paused:
            subscription.pauseProducing()

    def mediaReceived(self, message: Message) -> None:
        self._times.place(message)
        self._sink.mediaReceived(message)

    def streamEnded(self) -> None:
        """Expect the next server's stream, or the owner's end."""

    def pauseProducing(self) -> None:
        """Read nothing for now, from whatever server."""
        self._paused = True
        if self.subscription is not None:
            self.subscription.pauseProducing()

    def resumeProducing(self) -> None:
        """Read on."""
        self._paused = False
        if self.subscription is not None:
            self.subscription.resumeProducing()

    def stopProducing(self) -> None:
        """End the stream that is played: the sink is gone."""
        if self.subscription is not None:
            self.subscription.stopProducing()
