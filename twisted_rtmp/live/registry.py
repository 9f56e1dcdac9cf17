"""
The registry of live streams: who publishes and plays what, by whatever protocol.

RTMP, HTTP, relays and the multitrack service all come through this one door.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, cast

from twisted.internet import defer
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel

from twisted_rtmp.interfaces import (
    ConnectRequest,
    IAuthorizer,
    Refused,
    StreamRequest,
)
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.live.addresses import Addresses, hostOf
from twisted_rtmp.live.budget import SHORT, Budget
from twisted_rtmp.live.connections import Connection, Connections
from twisted_rtmp.live.counters import Counters
from twisted_rtmp.live.decisions import Action, Undecided, checkNames, decide, inTime
from twisted_rtmp.live.directory import IDirectory, LocalDirectory
from twisted_rtmp.live.lastreads import LastReads
from twisted_rtmp.live.pacing import LATENCY_SECONDS, Pacer
from twisted_rtmp.live.paths import ByPath, Key
from twisted_rtmp.live.peerlog import PeerLog
from twisted_rtmp.live.player import Player
from twisted_rtmp.live.policy import Policy, TakeOver
from twisted_rtmp.live.shares import Payer, Shares
from twisted_rtmp.live.streams import LiveStream, Publisher
from twisted_rtmp.live.turns import AwakeClock, Turns, awakeClock
from twisted_rtmp.names import parentsOf, pathOf
from twisted_rtmp.wire.limits import MIB

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

#: The least time between two log lines on memory that gets short, in seconds.
MEMORY_LOG_SECONDS = 60.0


class Registry:
    """
    All live streams of a server, their publishers and players, and its connections.

    Two of its answers may come from elsewhere, and so later: whether a name may be
    claimed, and where a stream to play is.  A server that is alone has both at once.

    @ivar clock: the clock of all deadlines: with a reactor, its L{AwakeClock}.
    @ivar turns: how long its peers and timers have held the reactor.
    @ivar policy: the rules of every application that has none of its own.
    @ivar policies: the rules of those that have, by name.
    @ivar guards: deciders that are asked before an application's own.
    @ivar directory: knows the streams of other servers.
    @ivar addresses: what each address has taken of the server.
    @ivar peerLog: the log of what peers do, bounded for each address.
    @ivar budget: the memory that peers make it keep.
    @ivar connections: the open ones, of every kind.
    @ivar streams: the live ones, by application and name; wherever these are divided,
        since what is one path is one stream.
    @ivar streamStarted: called with each stream that begins.
    @ivar streamEnded: called with each stream whose publisher has left and whose sinks
        have stored what they got.
    @ivar playersChanged: called with an application, a stream's name and the number
        of players that play it or wait for it, each time that number changes.
    @ivar playerJoined: called with each player that begins to play or to wait.
    @ivar playerLeft: called with each player that does neither any more.
    @ivar counters: totals since the start.
    @ivar pacer: lets publishers be read and players be written to in ticks.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        policy: Policy | None = None,
        policies: Mapping[str, Policy] | None = None,
        *,
        directory: IDirectory | None = None,
        latency: float = LATENCY_SECONDS,
    ) -> None:
        """
        @param latency: how long a message may wait, in seconds, to be handled together
            with others when there is much to do; 0 passes each on at once.
        """
        self._reactor = clock
        self.clock = clock = awakeClock(clock)
        self.turns = clock.turns if isinstance(clock, AwakeClock) else Turns(clock)
        self.policy = policy or Policy()
        self.policies: Mapping[str, Policy] = policies or {}
        self.guards: list[IAuthorizer] = []
        self.directory: IDirectory = directory or cast("IDirectory", LocalDirectory())
        self.counters = Counters()
        limits = self.policy.limits
        self.addresses = Addresses(clock, limits.addresses)
        self.peerLog = PeerLog(self.addresses, self.counters)
        self.budget = Budget(limits.memory, self._memoryGetsShort)
        self.connections = Connections(
            clock, self.counters, self.addresses, self.budget, limits.connections
        )
        self.streams: ByPath[LiveStream] = ByPath()
        self.streamStarted: list[Callable[[LiveStream], None]] = []
        self.streamEnded: list[Callable[[LiveStream], None]] = []
        self.playersChanged: list[Callable[[str, str, int], None]] = []
        self.playerJoined: list[Callable[[Player], None]] = []
        self.playerLeft: list[Callable[[Player], None]] = []
        self.pacer = Pacer(clock, latency=latency)
        # Streams without a publisher: since when, and the call that ends them.
        self._orphans: dict[LiveStream, tuple[float, IDelayedCall]] = {}
        self._orphanPlaces: Shares[LiveStream] = Shares(
            limits.waitingStreams, limits.addresses.waitingStreamShare
        )
        # Players of streams that nobody publishes, in the order in which they came.
        self._waiting: ByPath[dict[Player, None]] = ByPath()
        self._ending: set[Deferred[None]] = set()
        self._stopping = False
        self._toldShort: float | None = None

    @property
    def limits(self) -> ServerLimits:
        """The bounds that hold where no application is known."""
        return self.policy.limits

    @property
    def stopping(self) -> bool:
        """Tell whether it has been told to stop: nothing new may begin."""
        return self._stopping

    @property
    def idle(self) -> bool:
        """Tell whether nothing is kept: no stream, player or unfinished end."""
        return not (self.streams or self._orphans or self._waiting or self._ending)

    def policyOf(self, application: str) -> Policy:
        """
        Look up the rules of an application, or of the one that it is part of.

        @param application: for a stream, all of its path but the last part, however
            its peer divides it: nobody gets round an application's rules so.
        """
        if not self.policies:
            return self.policy
        for path in parentsOf(application):
            policy = self.policies.get(path)
            if policy is not None:
                return policy
        return self.policy

    def policyFor(self, application: str, name: str) -> Policy:
        """Look up the rules of the application that a stream is in."""
        if not self.policies:
            return self.policy
        return self.policyOf(pathOf(application, name).rpartition("/")[0])

    # Decisions

    async def decide(
        self,
        action: Action,
        request: ConnectRequest | StreamRequest,
        seconds: float | None = None,
    ) -> str:
        """
        Ask the application's deciders; see L{decide}.

        @param seconds: how long they may take; L{ServerLimits.decisionSeconds} by
            default.
        @return: the name under which it is to be done.
        @raise Refused: it may not be done.
        """
        if isinstance(request, StreamRequest):
            policy = self.policyFor(request.application, request.name)
        else:
            policy = self.policyOf(request.application)
        host = hostOf(request.address)
        if self.budget.isFull and action is not Action.CONNECT:
            raise Refused("The server has no memory left for more streams.")
        if not self._mayBegin(action, host):
            raise Refused("Too many streams are begun from this address.")
        checkNames(request)
        deciders = list(self.guards)
        if seconds is None:
            seconds = policy.limits.decisionSeconds
        until = self.clock.seconds() + seconds
        if policy.authorizer is None:
            return await decide(deciders, action, request, self.clock, seconds)
        deciders.append(policy.authorizer)
        await self._turnToAsk(host, seconds)
        refused = True
        try:
            seconds = until - self.clock.seconds()
            name = await decide(deciders, action, request, self.clock, seconds)
            refused = False
        except Undecided:
            refused = False
            raise
        finally:
            # One that leaves before it is told is taken to have guessed as well.
            self.addresses.asked(host, refused)
        return name

    def _mayBegin(self, action: Action, host: str) -> bool:
        """Count a stream that is begun, if its address may begin one more."""
        if action is Action.PUBLISH:
            return self.addresses.mayPublish(host)
        return action is not Action.PLAY or self.addresses.mayPlay(host)

    async def _turnToAsk(self, host: str, seconds: float) -> None:
        """
        Wait while an address has been refused too often.

        @raise Undecided: its turn has not come in time.
        """
        turn = self.addresses.turnToAsk(host)
        if turn is not None:
            try:
                await inTime(turn, self.clock, seconds)
            except defer.TimeoutError:
                raise Undecided("Too many requests from this address.") from None

    # Publishing

    async def claim(self, application: str, name: str) -> None:
        """
        Have a name among all servers, before L{publish}.

        @raise NameTaken: it is another server's.
        @raise Undecided: the directory failed, or did not answer in time.
        """
        if (application, name) not in self.streams:  # or else L{publish} decides
            answer = self.directory.claim(application, name)
            if isinstance(answer, Awaitable):
                await self._within(answer)

    async def _within(self, answer: Awaitable[None]) -> None:
        """
        Await the directory.

        @raise Undecided: it did not answer in time.
        """
        seconds = self.limits.decisionSeconds
        try:
            await inTime(answer, self.clock, seconds)
        except defer.TimeoutError:
            self.log.error(
                "the directory of streams has not answered within {seconds:g} s",
                seconds=seconds,
            )
            raise Undecided("The server could not decide in time.") from None

    def publish(
        self, application: str, name: str, publisher: Publisher
    ) -> LiveStream | None:
        """
        Begin a live stream, or continue one that waits for a publisher.

        @return: the stream, or L{None} if another publisher keeps the name.
        """
        key = (application, name)
        present = self.streams.get(key)
        if present is not None and present.publisher is not None:
            if not self._takeOver(present, present.publisher, publisher):
                return None
            present = self.streams.get(key)
        if present is not None:
            self._continue(present, publisher)
            return present
        stream = LiveStream(
            application,
            name,
            publisher,
            policy=self.policyFor(application, name),
            pacer=self.pacer,
            budget=self.budget,
            peerLog=self.peerLog,
        )
        self.streams[key] = stream
        self._openSinks(stream)
        for player in self._waiting.pop(key, ()):
            stream.players.add(player, again=True)
        for started in list(self.streamStarted):
            self._call(started, stream)
        return stream

    def _openSinks(self, stream: LiveStream) -> None:
        """Give a stream that begins the sinks of its application."""
        for sinkFactory in stream.policy.sinkFactories:
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

    def _takeOver(
        self, stream: LiveStream, present: Publisher, newcomer: Publisher
    ) -> bool:
        """
        Take a stream's name from its publisher, if a newcomer may have it.

        @return: whether it may.
        """
        if present.connection is newcomer.connection or not self._mayTakeOver(
            stream, present
        ):
            return False
        self.counters.takenOver += 1
        self.log.warn(
            "{stream} is taken over by {new} from {old}",
            stream=stream.label,
            new=newcomer.peer,
            old=present.peer,
        )
        present.takenOver()
        return True

    def _mayTakeOver(self, stream: LiveStream, publisher: Publisher) -> bool:
        """Decide whether a newcomer may have a live stream's name."""
        takeOver = stream.policy.takeOver
        if takeOver is TakeOver.WHEN_SILENT:
            # What this server has not come to read is not its publisher's silence.
            if stream.throttled or publisher.unread:
                return False
            silent = self.clock.seconds() - publisher.heard
            return silent >= stream.policy.limits.silentSeconds
        return takeOver is TakeOver.ALWAYS

    def _continue(self, stream: LiveStream, publisher: Publisher) -> None:
        """Give a stream that waits for a publisher its next one."""
        since, end = self._orphans.pop(stream)
        self._orphanPlaces.leave(stream)
        end.cancel()
        seconds = self.clock.seconds() - since
        self.counters.continued += 1
        stream.resume(publisher, round(seconds * 1000))
        stream.tell(
            self.log,
            LogLevel.info,
            "{stream} is continued by {peer} after {seconds:.1f} s",
            stream=stream.label,
            peer=publisher.peer,
            seconds=seconds,
        )

    def unpublish(
        self, stream: LiveStream, publisher: Publisher, grace: float = 0.0
    ) -> None:
        """
        End a live stream whose publisher has left, or let it wait for the next one.

        @param grace: how long it is to wait at least, in seconds.
        """
        if stream.publisher is not publisher:
            return
        grace = max(grace, stream.policy.grace)
        stream.publisherLeft()
        # One of which nothing has come has nothing to be continued.
        if grace <= 0 or self._stopping or not stream.ledger.received.messages:
            self._end(stream)
        elif not self._mayWait(stream, Payer(publisher.host, stream.label)):
            self.log.warn(
                "{stream} has lost its publisher {peer} and does not wait for one:"
                " {count} streams do",
                stream=stream.label,
                peer=publisher.peer,
                count=len(self._orphans),
            )
            self._end(stream)
        else:
            stream.awaitPublisher()
            end = self.clock.callLater(grace, self._endOrphan, stream)
            self._orphans[stream] = self.clock.seconds(), end
            stream.tell(
                self.log,
                LogLevel.info,
                "{stream} has lost its publisher {peer} and waits {grace:g} s for one",
                stream=stream.label,
                peer=publisher.peer,
                grace=grace,
            )

    def _mayWait(self, stream: LiveStream, payer: Payer) -> bool:
        """
        Decide whether a stream may wait for its publisher, maybe instead of another.

        @param payer: the publisher that has left.
        """
        places = self._orphanPlaces
        if places.take(stream, payer):
            return True
        other = places.takeFrom(stream, payer, self._orphans.__contains__)
        if other is None:
            return False
        self._endOrphan(other)
        return True

    def _endOrphan(self, stream: LiveStream) -> None:
        """End a stream that nobody has come to continue."""
        _, end = self._orphans.pop(stream)
        if end.active():
            end.cancel()
        self._orphanPlaces.leave(stream)
        self._end(stream)

    def _end(self, stream: LiveStream) -> None:
        """End a stream, its sinks and what its players get of it."""
        key = stream.application, stream.name
        del self.streams[key]
        self.directory.release(*key)
        now = self.clock.seconds()
        seconds = now - stream.startedAt
        ended = stream.end()
        players = list(stream.players.everyone())
        for player in players:
            if player.group is None:
                continue  # it has left since another one was told of the end
            if not player.once:
                self._waiting.setdefault(player.key, {})[player] = None
            player.end(now)
        done = [player for player in players if player.once]
        for player in done:
            self._tell(self.playerLeft, player)
        if done:
            self._tellPlayers(key)
        self._ending.add(ended)

        def finished(_: None) -> None:
            self._ending.discard(ended)
            stream.tell(
                self.log,
                LogLevel.info,
                "{stream} ended after {seconds:.1f} s: {summary}",
                stream=stream.label,
                seconds=seconds,
                summary=stream.ledger.summary(),
            )
            for hook in list(self.streamEnded):
                self._call(hook, stream)
            stream.forget()

        ended.addCallback(finished)

    # Playing

    async def locate(
        self, application: str, name: str, request: StreamRequest | None = None
    ) -> None:
        """
        Look for a stream among all servers, before L{play}.

        @param request: the player's, if it has asked for the stream.
        @raise Undecided: the directory failed, or did not answer in time.
        """
        if (application, name) not in self.streams:
            answer = self.directory.locate(application, name, request)
            if isinstance(answer, Awaitable):
                await self._within(answer)

    def play(self, application: str, name: str, player: Player) -> bool:
        """
        Begin to play a live stream to a player, or let it wait for one.

        @return: whether the stream is there.
        """
        key = application, name
        stream = self.streams.get(key)
        if stream is None:
            player.waitFor(application, name)
            self._waiting.setdefault(key, {})[player] = None
        else:
            stream.players.add(player)
        self._tell(self.playerJoined, player)
        self._tellPlayers(key)
        return stream is not None

    def stopPlaying(self, player: Player) -> None:
        """Take off a player that leaves."""
        player.leave()
        if player.group is not None:
            player.group.remove(player)
            player.detach()
        else:
            waiting = self._waiting.get(player.key)
            if waiting is None or player not in waiting:
                return
            del waiting[player]
            if not waiting:
                del self._waiting[player.key]
        self._tell(self.playerLeft, player)
        self._tellPlayers(player.key)

    def players(self, application: str, name: str) -> list[Player]:
        """List those that play a stream, or wait for it."""
        key = (application, name)
        stream = self.streams.get(key)
        if stream is None:
            return list(self._waiting.get(key, ()))
        return list(stream.players.everyone())

    def spelling(self, application: str, name: str) -> Key:
        """
        Give the application and name of a stream as they are spelt here: by its
        publisher, or by the first that waits for it.
        """
        return self.streams.spelling(self._waiting.spelling((application, name)))

    def waiting(self) -> list[tuple[str, str, int]]:
        """List the streams that players wait for: application, name, players."""
        return [(*key, len(players)) for key, players in self._waiting.items()]

    def _tellPlayers(self, key: Key) -> None:
        """Tell the hooks that the number of a stream's players has changed."""
        if self.playersChanged:
            stream = self.streams.get(key)
            if stream is None:
                count = len(self._waiting.get(key, ()))
            else:
                count = len(stream.players)
            key = self.spelling(*key)
            for changed in list(self.playersChanged):
                self._call(changed, *key, count)

    def _memoryGetsShort(self) -> None:
        """Say that newcomers may soon be refused, now and then."""
        now = self.clock.seconds()
        told = self._toldShort
        if told is None or now - told >= MEMORY_LOG_SECONDS:
            self._toldShort = now
            limit = self.budget.limits.serverBytes
            self.log.warn(
                "peers take {used} of the {limit} MiB of memory that they may take"
                " together; from {full} MiB on, newcomers are refused",
                used=self.budget.used // MIB,
                limit=limit // MIB,
                full=int(limit * SHORT) // MIB,
            )

    def _tell(self, hooks: list[Callable[[Player], None]], player: Player) -> None:
        """Tell hooks of a player that has joined or left."""
        for hook in list(hooks):
            self._call(hook, player)

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
        for stream in list(self._orphans):
            self._endOrphan(stream)
        self.connections.closeUnused()
        stopped: Deferred[None] = Deferred()
        # By the reactor's own clock: whoever stops the server waits through its stalls.
        timer: IDelayedCall = self._reactor.callLater(
            self.limits.stopSeconds, self._abortAll, stopped
        )

        def done(_: object) -> None:
            if timer.active():
                timer.cancel()
                stopped.callback(None)

        def isRead(_: object) -> None:
            closed = self.connections.close()
            waiting = [_after(ended) for ended in self._ending]
            DeferredList([*waiting, closed]).addCallback(done)

        lastReads = LastReads(self._reactor, self.streams.values, self._letGo)
        lastReads.start().addCallback(isRead)
        return stopped

    def _letGo(self, publisher: Publisher) -> None:
        """Close the connection of a publisher, if it is one of ours."""
        connection = publisher.connection
        if connection in self.connections:
            cast("Connection", connection).close()

    def _abortAll(self, stopped: Deferred[None]) -> None:
        """End what has not ended by itself in the time to stop."""
        connections = len(self.connections)
        if connections or self._ending:
            self.log.warn(
                "stopping: {connections} connections are aborted, {sinks} streams"
                " have not stored everything",
                connections=connections,
                sinks=len(self._ending),
            )
        self.connections.abort()
        stopped.callback(None)


def _after(deferred: Deferred[None]) -> Deferred[None]:
    """Make a Deferred of one's own that fires after another one."""
    mine: Deferred[None] = Deferred()

    def passOn(result: None) -> None:
        mine.callback(None)

    deferred.addCallback(passOn)
    return mine
