"""
Going on by another connection, where a server has asked for it.

What decides how often, and what makes one stream of those that were played one after
the other.  Imports the wire, the client's limits and, for typing, its streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from twisted_rtmp.client.limits import MAX_MOVES, STEADY_SECONDS
from twisted_rtmp.interfaces import IMediaSink
from twisted_rtmp.media.flags import CODED
from twisted_rtmp.media.payloads import flagsOf

if TYPE_CHECKING:
    from twisted_rtmp.client.streams import Subscription
    from twisted_rtmp.wire.messages import Message

#: Between the last frame of one server and the first of the next, in milliseconds: one
#: of 25 a second.  A stream does not tell how long its last frame lasts.
FRAME_MILLISECONDS = 40


class MoveLimit:
    """
    Bounds the moves in a row: see L{MAX_MOVES}.

    @ivar count: those in a row so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._newest: float | None = None

    def allows(self, now: float) -> bool:
        """
        Ask for a move, and count it.

        @param now: the clock's time, in seconds.
        """
        if self._newest is None or now - self._newest >= STEADY_SECONDS:
            self.count = 0
        if self.count >= MAX_MOVES:
            return False
        self.count += 1
        self._newest = now
        return True


@implementer(IMediaSink, IPushProducer)
class MovingSink:
    """
    Gives a sink what is played of one server after the other, as one stream.

    Times go on where they stood, whatever the next server's are.  The end of what is
    played is not the sink's end: that is for the owner to tell it.

    @ivar subscription: what is played now; pausing this producer pauses it.
    """

    def __init__(self, sink: IMediaSink) -> None:
        self.subscription: Subscription | None = None
        self._sink = sink
        self._newest = 0
        self._floor = 0
        self._shift: int | None = 0
        self._paused = False

    def moved(self) -> None:
        """What comes from now on is another server's."""
        self.subscription = None
        self._floor = self._newest
        self._shift = None

    def begun(self, subscription: Subscription) -> None:
        """Another subscription is what is played now."""
        self.subscription = subscription
        if self._paused:
            subscription.pauseProducing()

    def mediaReceived(self, message: Message) -> None:
        if self._shift is None:
            if flagsOf(message.typeId, message.payload) & CODED:
                first = self._floor + FRAME_MILLISECONDS
                self._shift = first - message.timestamp
            else:
                # Headers have any time.
                message.timestamp = self._floor
        if self._shift:
            message.timestamp = max(self._floor, message.timestamp + self._shift)
        self._newest = max(self._newest, message.timestamp)
        self._sink.mediaReceived(message)

    def streamEnded(self) -> None:
        """The next one may follow."""

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
        """The sink is gone: end what is played."""
        if self.subscription is not None:
            self.subscription.stopProducing()
