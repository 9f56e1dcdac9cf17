"""
The factory: what a server's connections share.

Imports the protocol and what is below it; it listens nowhere itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from twisted_rtmp.interfaces import IAuthorizer, ISinkFactory
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.live.pacing import LATENCY_SECONDS, Pacer
from twisted_rtmp.live.players import Player, PlayerGroup
from twisted_rtmp.live.streams import LiveStream, Publisher, TakeOver
from twisted_rtmp.protocol import RTMPProtocol, checkReconnect

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["CHUNK_SIZE", "Counters", "RTMPFactory"]

#: The chunk size that is announced and sent, in bytes.  ffmpeg takes it over
#: for its own sending; large chunks cost both ends least.  Precedents:
#: gortmplib 65536, node-media-server 65535, SRS 60000.
CHUNK_SIZE = 65_536

#: The least time between two log lines on newcomers turned away, in seconds.
TURNED_AWAY_LOG_SECONDS = 10.0


class Counters:
    """
    What a server's connections came to.

    @ivar accepted: connections, all in all.
    @ivar turnedAway: connections closed at once, at the limit of their number.
    @ivar refused: connect and publish commands refused.
    @ivar violations: connections closed for a protocol error.
    @ivar cut: connections closed at a deadline.
    @ivar strayMessages: media messages of peers that published nothing.
    @ivar takenOver: publishers closed in favour of a newcomer.
    @ivar continued: publishers that continued a stream within its grace.
    @ivar reconnectRequests: requests to connect anew that were sent.
    """

    __slots__ = (
        "accepted",
        "continued",
        "cut",
        "reconnectRequests",
        "refused",
        "strayMessages",
        "takenOver",
        "turnedAway",
        "violations",
    )

    def __init__(self) -> None:
        self.accepted = 0
        self.turnedAway = 0
        self.refused = 0
        self.violations = 0
        self.cut = 0
        self.strayMessages = 0
        self.takenOver = 0
        self.continued = 0
        self.reconnectRequests = 0


class Served(Hashable, Protocol):
    """A connection that counts against the limit and ends with the factory."""

    transport: Any

    def close(self) -> None:
        """Close when what is queued has been sent, or at a deadline."""


class RTMPFactory(Factory[RTMPProtocol]):
    """
    Builds a protocol a connection, and knows all live streams.

    @ivar clock: what all deadlines are counted by.
    @ivar connections: the open ones, those by HTTP included.
    @ivar streams: the live ones, by application and name.
    @ivar streamStarted: called with each stream that begins.
    @ivar streamEnded: called with each stream whose publisher has gone and
        whose sinks have stored what they got.
    @ivar playersChanged: called with an application, a stream's name and the number
        of players that play it or wait for it, each time that number changes.
    @ivar counters: see L{Counters}.
    """

    log = Logger()
    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        authorizer: IAuthorizer | None = None,
        sinkFactories: Sequence[ISinkFactory] = (),
        limits: ServerLimits | None = None,
        takeOver: TakeOver = TakeOver.WHEN_SILENT,
        chunkSize: int = CHUNK_SIZE,
        latency: float = LATENCY_SECONDS,
        grace: float = 0.0,
        gopCache: bool = True,
    ) -> None:
        """
        @param authorizer: who may connect, publish and play; without one,
            everybody.
        @param sinkFactories: each gives every stream a sink, or none.
        @param takeOver: what happens to a second publisher of a name.
        @param chunkSize: of what is sent, in bytes.
        @param latency: how long a message may wait, in seconds, to be handled together
            with others when there is much to do; 0 passes each on at once.
        @param grace: how long a stream waits for its next publisher when one has
            gone, in seconds.
        @param gopCache: whether players begin with the current GOP, unless they ask
            for something else.
        """
        self.clock = reactor
        self.authorizer = authorizer
        self.limits = limits or ServerLimits()
        self.chunkSize = chunkSize
        self.connections: set[Served] = set()
        self.streams: dict[tuple[str, str], LiveStream] = {}
        self.streamStarted: list[Callable[[LiveStream], None]] = []
        self.streamEnded: list[Callable[[LiveStream], None]] = []
        self.playersChanged: list[Callable[[str, str, int], None]] = []
        self.counters = Counters()
        self.pacer = Pacer(reactor, latency=latency)
        self._sinkFactories = list(sinkFactories)
        self.gopCache = gopCache
        self._takeOver = takeOver
        self._grace = grace
        # Streams without a publisher: since when, and the call that ends them.
        self._orphans: dict[LiveStream, tuple[float, IDelayedCall]] = {}
        self._publishers: dict[LiveStream, Publisher] = {}
        self._started: dict[LiveStream, float] = {}
        self._groups: dict[LiveStream, PlayerGroup] = {}
        # Players of streams that nobody publishes, by application and name.
        self._waiting: dict[tuple[str, str], list[Player]] = {}
        self._ending: set[Deferred[None]] = set()
        self._stopping = False
        self._toldTurnedAway: float | None = None
        self._allClosed: Deferred[None] | None = None

    @property
    def stopping(self) -> bool:
        """Whether it has been told to stop: nothing new is to begin."""
        return self._stopping

    # Connections

    def buildProtocol(self, addr: IAddress | None) -> RTMPProtocol | None:
        return RTMPProtocol(self, addr) if self.admit() else None

    def admit(self) -> bool:
        """Decide whether there is room for a newcomer, by whatever protocol."""
        if self._stopping or len(self.connections) >= self.limits.connections:
            self._turnAway()
            return False
        self.counters.accepted += 1
        return True

    def _turnAway(self) -> None:
        """Count a newcomer that there is no room for; log now and then."""
        self.counters.turnedAway += 1
        now = self.clock.seconds()
        told = self._toldTurnedAway
        if not self._stopping and (
            told is None or now - told >= TURNED_AWAY_LOG_SECONDS
        ):
            self._toldTurnedAway = now
            self.log.warn(
                "a connection is turned away: {limit} are open ({count} so far)",
                limit=self.limits.connections,
                count=self.counters.turnedAway,
            )

    def connectionOpened(self, protocol: Served) -> None:
        """A protocol has its transport."""
        self.connections.add(protocol)

    def connectionClosed(self, protocol: Served) -> None:
        """A protocol has lost its transport."""
        self.connections.discard(protocol)
        if not self.connections and self._allClosed is not None:
            allClosed, self._allClosed = self._allClosed, None
            allClosed.callback(None)

    def requestReconnect(self, tcUrl: str = "", description: str = "") -> int:
        """
        Ask all connected peers that obey it to connect anew, as before this server
        stops; newcomers are taken as before, and all are served until they leave.

        Those that did not say in C{connect} that they obey are not asked: their number
        goes to the log.  Players by HTTP have no such thing.

        @param tcUrl: see L{RTMPProtocol.requestReconnect}.
        @param description: the same.
        @return: how many were asked.
        @raise UsageError: the address or the description is none.
        """
        checkReconnect(tcUrl, description)
        asked = unable = 0
        for connection in list(self.connections):
            if isinstance(connection, RTMPProtocol):
                if connection.requestReconnect(tcUrl, description):
                    asked += 1
                else:
                    unable += 1
        self.log.info(
            "{asked} peers are asked to connect anew; {unable} are not, since they"
            " did not say that they obey it",
            asked=asked,
            unable=unable,
        )
        return asked

    # Streams

    def publish(
        self, application: str, name: str, publisher: Publisher
    ) -> LiveStream | None:
        """
        Begin a live stream.

        @return: the stream, or L{None} if its name is taken.
        """
        key = (application, name)
        present = self.streams.get(key)
        old = None if present is None else self._publishers.get(present)
        if present is not None and old is not None:
            if old.connection is publisher.connection or not self._mayTakeOver(
                present, old
            ):
                return None
            self.counters.takenOver += 1
            self.log.warn(
                "{stream} is taken over by {new} from {old}",
                stream=present.label,
                new=publisher.peer,
                old=old.peer,
            )
            old.takenOver()
        present = self.streams.get(key)
        if present is not None:
            self._continue(present, publisher)
            return present
        stream = LiveStream(application, name, publisher)
        group = PlayerGroup(stream, self.pacer)
        self._groups[stream] = group
        stream.addSink(group, "players")
        self.streams[key] = stream
        self._publishers[stream] = publisher
        self._started[stream] = self.clock.seconds()
        for sinkFactory in self._sinkFactories:
            try:
                sink = sinkFactory.openSink(stream)
            # An application's sink must not end the stream.
            except Exception:
                self.log.failure(
                    "{stream}: its {sink} could not be opened",
                    stream=stream.label,
                    sink=sinkFactory.sinkName,
                )
                continue
            if sink is not None:
                stream.addSink(sink, sinkFactory.sinkName)
        for player in self._waiting.pop(key, ()):
            group.add(player, again=True)
        for started in list(self.streamStarted):
            self._call(started, stream)
        return stream

    def play(self, application: str, name: str, player: Player) -> bool:
        """
        Begin to play a live stream to a player, or let it wait for one.

        @return: whether the stream is there.
        """
        key = player.key = (application, name)
        stream = self.streams.get(key)
        if stream is None:
            self._waiting.setdefault(key, []).append(player)
        else:
            self._groups[stream].add(player)
        self._tellPlayers(key)
        return stream is not None

    def stopPlaying(self, player: Player) -> None:
        """A player is gone."""
        if player.group is not None:
            player.group.remove(player)
            player.group = None
        else:
            waiting = self._waiting.get(player.key)
            if waiting is None or player not in waiting:
                return
            waiting.remove(player)
            if not waiting:
                del self._waiting[player.key]
        self._tellPlayers(player.key)

    def players(self, application: str, name: str) -> list[Player]:
        """Those that play a stream, or wait for it."""
        key = (application, name)
        stream = self.streams.get(key)
        if stream is None:
            return list(self._waiting.get(key, ()))
        return list(self._groups[stream].everyone())

    def _tellPlayers(self, key: tuple[str, str]) -> None:
        """The number of a stream's players has changed."""
        if self.playersChanged:
            count = len(self.players(*key))
            for changed in list(self.playersChanged):
                self._call(changed, *key, count)

    def _continue(self, stream: LiveStream, publisher: Publisher) -> None:
        """A publisher comes while its stream waits for one."""
        since, end = self._orphans.pop(stream)
        end.cancel()
        seconds = self.clock.seconds() - since
        self.counters.continued += 1
        self._publishers[stream] = publisher
        self._groups[stream].publisherChanged()
        stream.resume(publisher, round(seconds * 1000))
        self.log.info(
            "{stream} is continued by {peer} after {seconds:.1f} s",
            stream=stream.label,
            peer=publisher.peer,
            seconds=seconds,
        )

    def _mayTakeOver(self, stream: LiveStream, publisher: Publisher) -> bool:
        """Whether a newcomer may have a live stream's name."""
        if self._takeOver is TakeOver.WHEN_SILENT:
            silent = self.clock.seconds() - publisher.heard
            return silent >= self.limits.silentSeconds and not stream.throttled
        return self._takeOver is TakeOver.ALWAYS

    def unpublish(
        self, stream: LiveStream, publisher: Publisher, grace: float = 0.0
    ) -> None:
        """
        A live stream's publisher has gone: end the stream, or let it wait for the
        next one.

        @param grace: how long it is to wait at least, in seconds.
        """
        if self._publishers.get(stream) is not publisher:
            return
        del self._publishers[stream]
        grace = max(grace, self._grace)
        if grace > 0 and not self._stopping:
            stream.publisherLeft()
            end = self.clock.callLater(grace, self._endOrphan, stream)
            self._orphans[stream] = self.clock.seconds(), end
            self.log.info(
                "{stream} has lost its publisher {peer} and waits {grace:g} s for one",
                stream=stream.label,
                peer=publisher.peer,
                grace=grace,
            )
        else:
            self._end(stream)

    def _endOrphan(self, stream: LiveStream) -> None:
        """Nobody has come to continue a stream."""
        del self._orphans[stream]
        self._end(stream)

    def _end(self, stream: LiveStream) -> None:
        """A stream is over."""
        del self.streams[stream.application, stream.name]
        seconds = self.clock.seconds() - self._started.pop(stream)
        ended = stream.end()
        group = self._groups.pop(stream)
        now = self.clock.seconds()
        players = list(group.everyone())
        for player in players:
            if player.group is None:
                continue  # it has left since another one was told of the end
            if not player.once:
                self._waiting.setdefault(player.key, []).append(player)
            player.end(now)
        if any(player.once for player in players):
            self._tellPlayers((stream.application, stream.name))
        self._ending.add(ended)

        def finished(_: None) -> None:
            self._ending.discard(ended)
            self.log.info(
                "{stream} ended after {seconds:.1f} s: {summary}",
                stream=stream.label,
                seconds=seconds,
                summary=stream.ledger.summary(),
            )
            for hook in list(self.streamEnded):
                self._call(hook, stream)

        ended.addCallback(finished)

    def _call(self, hook: Callable[..., None], *arguments: object) -> None:
        """Call what an application has hooked in; it must not end a stream."""
        try:
            hook(*arguments)
        except Exception:
            self.log.failure("{hook} failed", hook=hook)

    # The end

    def stop(self) -> Deferred[None]:
        """
        Close every connection, end every stream, and take no new ones.

        @return: fires when all is stored and closed; after
            L{ServerLimits.stopSeconds} in any case.
        """
        self._stopping = True
        self.pacer.stop()
        for stream, (_, end) in list(self._orphans.items()):
            end.cancel()
            self._endOrphan(stream)
        for protocol in list(self.connections):
            protocol.close()
        waiting = [_after(ended) for ended in self._ending]
        if self.connections:
            self._allClosed = Deferred()
            waiting.append(self._allClosed)
        stopped: Deferred[None] = Deferred()
        timer: IDelayedCall = self.clock.callLater(
            self.limits.stopSeconds, self._abortAll, stopped
        )

        def done(_: object) -> None:
            if timer.active():
                timer.cancel()
                stopped.callback(None)

        DeferredList(waiting).addCallback(done)
        return stopped

    def _abortAll(self, stopped: Deferred[None]) -> None:
        """The time to stop is over."""
        self._allClosed = None
        left = list(self.connections)
        if left or self._ending:
            self.log.warn(
                "stopping: {connections} connections are aborted, {sinks} streams"
                " have not stored everything",
                connections=len(left),
                sinks=len(self._ending),
            )
        for protocol in left:
            protocol.transport.abortConnection()
        stopped.callback(None)


def _after(deferred: Deferred[None]) -> Deferred[None]:
    """A Deferred of one's own that fires after another one."""
    mine: Deferred[None] = Deferred()

    def passOn(result: None) -> None:
        mine.callback(None)

    deferred.addCallback(passOn)
    return mine
