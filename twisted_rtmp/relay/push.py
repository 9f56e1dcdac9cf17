"""Push: a live stream published at another server."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from twisted_rtmp.client.errors import ClientError
from twisted_rtmp.client.limits import ClientLimits
from twisted_rtmp.client.protocol import CHUNK_SIZE
from twisted_rtmp.client.streams import Publication
from twisted_rtmp.client.url import RTMPURL
from twisted_rtmp.limits import QueueLimits
from twisted_rtmp.live.packaging import Packaging, RTMPPackaging
from twisted_rtmp.live.player import PlayedStream, Player
from twisted_rtmp.relay.base import Connect, Relay
from twisted_rtmp.relay.states import RelayCounters, RelayState
from twisted_rtmp.states import Stateful

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from twisted_rtmp.client.protocol import RTMPClient
    from twisted_rtmp.live.registry import Registry
    from twisted_rtmp.live.streams import LiveStream

#: How a player's messages are written until the target has said its stream id: nearly
#: all servers count from 1.
USUAL_PACKAGING = RTMPPackaging(1, CHUNK_SIZE, setDataFrame=True)


class FeedState(Enum):
    """The state of what a push has to send."""

    LIVE = "the stream is live"
    LEAVING = "the stream is live, and the server stops"
    ENDED = "the stream has ended, and the rest is sent"
    LAST = "the same, on the present connection at most"
    COMPLETE = "all has been handed to the target"


class _Feed(Stateful[FeedState]):
    """The stream's end and the server's, as a push learns of them."""

    transitions = {  # noqa: RUF012
        FeedState.LIVE: {FeedState.LEAVING, FeedState.ENDED, FeedState.COMPLETE},
        FeedState.LEAVING: {FeedState.LAST, FeedState.COMPLETE},
        FeedState.ENDED: {FeedState.LAST, FeedState.COMPLETE},
        FeedState.LAST: {FeedState.COMPLETE},
        FeedState.COMPLETE: frozenset(),
    }

    def __init__(self) -> None:
        self.state = FeedState.LIVE

    @property
    def ended(self) -> bool:
        """Tell whether nothing more is added to what is queued."""
        return self.state not in (FeedState.LIVE, FeedState.LEAVING)

    @property
    def complete(self) -> bool:
        """Tell whether there is nothing left to send."""
        return self.state is FeedState.COMPLETE

    def streamEnded(self) -> None:
        """Take note of the stream's end; of the first only."""
        if not self.ended:
            leaving = self.state is FeedState.LEAVING
            self._enter(FeedState.LAST if leaving else FeedState.ENDED)

    def serverStops(self) -> None:
        """Take note that the server stops."""
        if self.state is FeedState.LIVE:
            self._enter(FeedState.LEAVING)
        elif self.state is FeedState.ENDED:
            self._enter(FeedState.LAST)

    def allSent(self) -> None:
        """Take note that the target has been given everything."""
        self._enter(FeedState.COMPLETE)


class PushedPlayer(Player):
    """
    The play of one stream for a push.

    @ivar stale: whether it has lost all that it had queued, so that another player has
        to start before anything is published.
    """

    def __init__(
        self,
        push: Push,
        packaging: Packaging,
        name: str,
        since: float,
        limits: QueueLimits,
    ) -> None:
        super().__init__(PushOutlet(push), packaging, name, since, limits=limits)
        self.stale = False
        self._push = push

    def end(self, now: float) -> None:
        super().end(now)
        self._push.sourceEnded()


class PushOutlet:
    """The way from a push's player to the target's publication, if there is one."""

    def __init__(self, push: Push) -> None:
        self._push = push

    @property
    def peer(self) -> str:
        """The target's address, for log lines."""
        return self._push.peer

    @property
    def congested(self) -> bool:
        """Tell whether the target takes nothing for now."""
        publication = self._push.publication
        return publication is None or publication.congested

    def writeMedia(self, data: bytes) -> None:
        """Send to the target."""
        publication = self._push.publication
        if publication is not None:
            publication.writeMedia(data)

    def streamStarted(self, player: Player, stream: PlayedStream, again: bool) -> None:
        """Send nothing: the target learns of the stream by its messages."""

    def streamEnded(self, player: Player) -> None:
        """End the publication behind all that has been sent."""
        self._push.allSent()

    def warn(self, format: str, **fields: object) -> None:  # noqa: A002
        """Log something that the target loses."""
        self._push.log.warn(format, peer=self.peer, **fields)

    def abort(self, why: str) -> None:
        """Publish again from the current GOP on: the target is too far behind."""
        self._push.startAgain(why)


class Push(Relay):
    """
    One live stream pushed to one target.

    The player queues from the stream's beginning, as long as the target has not
    accepted it.  When a publication is lost, a new player starts with the headers and
    the current GOP, and queues for the next one.

    @ivar stream: the live stream.
    @ivar publication: the publication at the target, while there is one.
    """

    kind = "push"

    def __init__(
        self,
        reactor: IReactorTime,
        registry: Registry,
        stream: LiveStream,
        url: RTMPURL,
        connect: Connect | None = None,
        limits: ClientLimits | None = None,
        predecessor: Push | None = None,
    ) -> None:
        """
        See L{Relay} for the other arguments.

        @param predecessor: the push that still publishes at the same address.
        """
        super().__init__(
            reactor,
            registry,
            url,
            f"push of {stream.label} to {url}",
            connect,
            limits,
        )
        self.stream = stream
        self.publication: Publication | None = None
        self._predecessor = predecessor
        self._giveUpCall: IDelayedCall | None = None
        self._feed = _Feed()
        self._player = self._newPlayer()

    def _newPlayer(self) -> PushedPlayer:
        publication = self.publication
        return PushedPlayer(
            self,
            USUAL_PACKAGING if publication is None else publication.packaging,
            self.stream.name,
            self._clock.seconds(),
            self.stream.policy.limits.playerQueue,
        )

    @property
    def ending(self) -> bool:
        """Tell whether its stream has ended, or it has been told to L{finish}."""
        return self._feed.ended

    @property
    def counters(self) -> RelayCounters:
        counters = replace(self._counters)
        _count(counters, self._player)
        return counters

    @property
    def application(self) -> str:
        """The live stream's application."""
        return self.stream.application

    @property
    def plays(self) -> tuple[str, ...]:
        return (self.stream.label,)

    # Its life

    def start(self) -> None:
        self._join()
        super().start()

    def _join(self) -> None:
        self.registry.play(self.stream.application, self.stream.name, self._player)

    def finish(self) -> Deferred[None]:
        """
        End the push, though the stream goes on: send what it has had so far.

        @return: fires when that is done, or cannot be.
        """
        player = self._player
        if not self._feed.ended:
            group = player.group
            if group is not None:
                group.flush()
            self.registry.stopPlaying(player)
            player.end(self._clock.seconds())
        self.close()
        return self.whenEnded()

    def sourceEnded(self) -> None:
        """Send what is queued, for a while: the stream has ended."""
        self._feed.streamEnded()
        self.registry.stopPlaying(self._player)
        if self._feed.complete or self.ended:
            return
        if not self._canSendRest():
            self._giveUp()
            return
        self._giveUpCall = self._clock.callLater(
            self.registry.limits.drainSeconds, self._giveUp
        )

    def _canSendRest(self) -> bool:
        """Tell whether anything of a stream that has ended can still be sent."""
        if self.publication is not None:
            return True
        if not self._player.queue:
            return False
        last = self._feed.state is FeedState.LAST
        return not (last and self.state is RelayState.WAITING)

    def _giveUp(self) -> None:
        """Lose what is queued: the target does not take it."""
        self._giveUpCall = None
        if self._player.queue:
            self.log.warn(
                "{relay}: {count} messages are lost: the stream has ended, and the"
                " target does not take them",
                relay=self.label,
                count=len(self._player.queue),
            )
            self._player.queue.loseAll()
        self.abort()

    def close(self) -> None:
        # The streams end at the same time, and what is queued is to be sent first.
        self._feed.serverStops()
        if self._feed.ended and not self._canSendRest():
            self._giveUp()

    def relayEnded(self) -> None:
        if self._giveUpCall is not None:
            self._giveUpCall.cancel()
            self._giveUpCall = None
        self.registry.stopPlaying(self._player)

    def isDone(self) -> bool:
        feed = self._feed
        return feed.complete or (feed.ended and not self._canSendRest())

    # Relaying

    async def run(self) -> None:
        if self._predecessor is not None:
            self._enter(
                RelayState.WAITING, "the publication before it is still being ended"
            )
            await self._predecessor.whenEnded()
            self._predecessor = None
        await super().run()

    async def relay(self, client: RTMPClient) -> ClientError | None:
        publication = await client.publish()
        self.accepted(RelayState.RELAYING)
        self.publication = publication
        publication.drained = self._drained
        player = self._player
        if player.stale:
            player = self._replacePlayer()
        if player.packaging != publication.packaging:
            player.repackage(publication.packaging)
        player.drain()
        return await publication.whenEnded()

    def _drained(self) -> None:
        self._player.drain()

    def mayMove(self) -> bool:
        return super().mayMove() and not self._feed.ended

    def switching(self) -> None:
        # What is received from now on waits for the next publication.
        self.attemptEnded()

    def attemptEnded(self) -> None:
        published, self.publication = self.publication, None
        if published is not None and not self._feed.complete:
            self._replacePlayer()

    def _replacePlayer(self) -> PushedPlayer:
        """Start again as a new player does: with the headers and the current GOP."""
        old, self._player = self._player, self._newPlayer()
        self.registry.stopPlaying(old)
        if not self._feed.ended:
            self._join()
        old.queue.loseAll(successor=self._player.queue)
        _count(self._counters, old)
        return self._player

    # For its outlet

    def allSent(self) -> None:
        """End the publication behind all that the player has given it."""
        if self.publication is not None:
            self._feed.allSent()
            self.publication.close()

    def startAgain(self, why: str) -> None:
        """
        Publish again from the current GOP on, if need be later.

        @param why: the reason, in a few words.
        """
        if self._client is not None and self.publication is not None:
            self._whyLeft = why
            self._client.abort()
        else:
            self._player.stale = True


def _count(counters: RelayCounters, player: Player) -> None:
    """Add the figures of a player."""
    counters.messages += player.sent
    counters.relayedBytes += player.sentBytes
    counters.dropped += player.dropped
    counters.droppedBytes += player.droppedBytes
