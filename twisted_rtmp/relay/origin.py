"""Pull on demand, which makes a server an edge of another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from zope.interface import implementer

from twisted_rtmp.client.errors import InvalidURL
from twisted_rtmp.client.limits import ClientLimits
from twisted_rtmp.client.url import RTMPURL
from twisted_rtmp.interfaces import (
    ConnectRequest,
    IAuthorizer,
    Refused,
    StreamRequest,
)
from twisted_rtmp.live.addresses import hostOf
from twisted_rtmp.live.paths import ByPath, Key
from twisted_rtmp.live.shares import Payer, Shares
from twisted_rtmp.names import printable
from twisted_rtmp.relay.base import Connect
from twisted_rtmp.relay.pull import Pull
from twisted_rtmp.relay.push import PushedPlayer
from twisted_rtmp.relay.states import RelayState

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from twisted_rtmp.live.player import Player
    from twisted_rtmp.live.registry import Registry
    from twisted_rtmp.live.streams import LiveStream

#: The time that a stream is kept without players, in seconds: a player that reconnects,
#: or reloads its page, should not wait for the origin again.
IDLE_SECONDS = 10.0

#: Streams that are pulled or waited for at once.  Each is a connection, and players
#: choose the names: without a bound, each connection of one peer would become one at
#: the origin.
MAX_PULLS = 1000

#: The part of these that the players of one address may have.  The players of many
#: streams may come through one proxy; the others have places left.
PULL_SHARE = 7 / 8

#: Edges in a row that one stream may pass.  Each adds its delay; more than two or three
#: are a mistake.
MAX_HOPS = 8

#: Characters of a L{PATH_PROPERTY}; real ones have 17 an edge.
MAX_PATH_SIZE = 1024

#: The least time between two log lines about streams that are not pulled, in seconds.
LOG_SECONDS = 10.0

#: The property of C{connect} in which an edge names the edges that the stream passes
#: from this connection on: identifiers, the nearest last, separated by spaces.  Servers
#: ignore properties that they do not know.
PATH_PROPERTY = "edgePath"

#: The edges that a stream passes, the farthest first.
Path = Sequence[str]


class _Demand:
    """
    A stream that is played or waited for, and its players.

    @ivar key: its application and name, as its first player spells them.
    @ivar players: its players, and the edges before each.
    @ivar path: the edges that it is pulled for.
    """

    __slots__ = ("key", "path", "players")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.players: dict[Player, Path] = {}
        self.path: Path = ()

    @property
    def payer(self) -> Payer:
        """The peer that its place is counted for: its first player."""
        return _payerOf(next(iter(self.players)))

    def nearest(self) -> Player:
        """Find the player with the fewest edges before it, the first of several."""
        return min(self.players, key=lambda player: len(self.players[player]))


class Origin(Service):
    """
    The server from which streams are pulled that are played here and not published
    here, each as long as it is played.

    @ivar pulls: the pulls that have not ended, by application and name.
    @ivar idleSeconds: the time that a stream is kept without players.
    @ivar identifier: this edge's name in streams' paths, so that none is a circle.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        registry: Registry,
        url: RTMPURL | str,
        *,
        idleSeconds: float = IDLE_SECONDS,
        maxPulls: int = MAX_PULLS,
        pullShare: float = PULL_SHARE,
        connect: Connect | None = None,
        limits: ClientLimits | None = None,
    ) -> None:
        """
        @param url: the other server's address; its path, if it has one, is put before
            the applications' names.
        @param idleSeconds: the time that a stream is kept without players.
        @param maxPulls: the most streams that are pulled or waited for at once.
        @param pullShare: the part of them that the players of one address may have.
        @param connect: instead of L{connectRTMP
            <twisted_rtmp.client.connecting.connectRTMP>}.
        @raise InvalidURL: the address is invalid.
        """
        self.url = parseOrigin(url) if isinstance(url, str) else url
        self.pulls: ByPath[Pull] = ByPath()
        self.identifier = uuid4().hex[:16]
        self._reactor = reactor
        self._registry = registry
        self.idleSeconds = idleSeconds
        self._connect = connect
        self._limits = limits
        self._idle: ByPath[IDelayedCall] = ByPath()
        self._ending: set[Deferred[None]] = set()
        self._toldFull: float | None = None
        self._guard = LoopGuard(self.identifier)
        self._demands: ByPath[_Demand] = ByPath()
        self._places: Shares[_Demand] = Shares(maxPulls, pullShare)

    def startService(self) -> None:
        Service.startService(self)
        registry = self._registry
        registry.guards.append(cast("IAuthorizer", self._guard))
        registry.playerJoined.append(self._playerJoined)
        registry.playerLeft.append(self._playerLeft)
        registry.streamStarted.append(self._streamStarted)
        registry.streamEnded.append(self._streamEnded)
        for application, name, _ in registry.waiting():
            for player in registry.players(application, name):
                self._playerJoined(player)
        for stream in list(registry.streams.values()):
            for player in stream.players.everyone():
                self._playerJoined(player)

    def stopService(self) -> Deferred[None]:
        """
        End all pulls and their streams.

        @return: fires when they have ended.
        """
        Service.stopService(self)
        registry = self._registry
        registry.guards.remove(cast("IAuthorizer", self._guard))
        registry.playerJoined.remove(self._playerJoined)
        registry.playerLeft.remove(self._playerLeft)
        registry.streamStarted.remove(self._streamStarted)
        registry.streamEnded.remove(self._streamEnded)
        for key in list(self.pulls):
            self._drop(key)
        self._demands.clear()
        return DeferredList(list(self._ending)).addCallback(lambda _: None)

    # What happens at the server

    def _playerJoined(self, player: Player) -> None:
        """Pull a stream that a player waits for; pushes do not count."""
        if isinstance(player, PushedPlayer):
            return
        key = player.key
        demand = self._demands.get(key)
        if demand is None:
            demand = self._demands[key] = _Demand(key)
        demand.players[player] = path = _pathOf(player)
        pull = self.pulls.get(key)
        if pull is None:
            if key not in self._registry.streams:
                self._serve(demand, _payerOf(player))
            return
        idle = self._idle.pop(key, None)
        if idle is not None:
            idle.cancel()
        # The path that the first player has given may be a circle, or a lie; and an
        # origin of another kind may know the stream only as another player spells it.
        isNearer = len(path) < len(demand.path)
        isFailing = pull.state is RelayState.WAITING
        isSpelt = key == (pull.application, pull.name)
        if pull.live is None and (
            isNearer or (isFailing and not isSpelt and len(path) == len(demand.path))
        ):
            self._pullAgain(demand, player)

    def _playerLeft(self, player: Player) -> None:
        """Stop pulling a stream that nobody wants; one that is there, after a while."""
        key = player.key
        demand = self._demands.get(key)
        if demand is None or player not in demand.players:
            return
        del demand.players[player]
        pull = self.pulls.get(key)
        if demand.players:
            if demand in self._places:
                self._places.take(demand, demand.payer)
            if pull is not None and pull.live is None:
                spelling = pull.application, pull.name
                if not any(other.key == spelling for other in demand.players):
                    self._pullAgain(demand, demand.nearest())
        elif pull is None:
            self._forget(demand)
        elif pull.live is None:
            self._drop(key)
        else:
            self._idle[key] = self._reactor.callLater(
                self.idleSeconds, self._idleDue, key
            )

    def _streamStarted(self, stream: LiveStream) -> None:
        """Do not pull a stream that another publisher has here."""
        key = stream.application, stream.name
        pull = self.pulls.get(key)
        if pull is None:
            demand = self._demands.get(key)
            if demand is not None:
                self._places.leave(demand)
        elif stream.publisher is not pull:
            self._drop(key)

    def _streamEnded(self, stream: LiveStream) -> None:
        """Pull the stream for players that have not left: the origin may have it."""
        key = stream.application, stream.name
        pull, demand = self.pulls.get(key), self._demands.get(key)
        if demand is None or key in self._registry.streams:
            return
        if pull is None:
            if demand.players:
                self._serve(demand, demand.payer)
        elif not demand.players and pull.live is None:
            self._drop(key)

    # Places

    def _serve(self, demand: _Demand, payer: Payer) -> None:
        """Pull a stream, if there is a place for it."""
        if not demand.key[1] or self._registry.stopping:
            return
        places = self._places
        if places.take(demand, payer):
            self._pull(demand, demand.nearest())
            return
        other = places.takeFrom(demand, payer, self._mayYield)
        if other is None:
            places.wait(demand, payer)
            self._tellFull(demand.key)
            return
        self.pulls.pop(other.key).stop()
        places.wait(other, other.payer)
        self._tellFull(other.key)
        self._pull(demand, demand.nearest())

    def _mayYield(self, demand: _Demand) -> bool:
        """Tell whether a pull may lose its place: it has no stream yet."""
        return self.pulls[demand.key].live is None

    def _serveNext(self) -> None:
        """Give places that have become free to streams that wait for one."""
        while self.running and (demand := self._places.next()) is not None:
            self._serve(demand, demand.payer)

    # Pulls

    def _pullAgain(self, demand: _Demand, player: Player) -> None:
        """Pull a stream that has not come for another player."""
        self.pulls.pop(demand.key).stop()
        self._pull(demand, player)

    def _pull(self, demand: _Demand, player: Player) -> None:
        """Start to pull a stream for one of its players, as that one spells it."""
        application, name = key = player.key
        demand.path = demand.players[player]
        pull = Pull(
            self._reactor,
            self._registry,
            application,
            name,
            self.addressOf(application, name),
            connect=self._connect,
            limits=self._limits,
            properties={PATH_PROPERTY: " ".join((*demand.path, self.identifier))},
        )
        self.pulls[key] = pull
        ended = pull.whenEnded()
        self._ending.add(ended)
        ended.addCallback(self._pullEnded, key, pull, ended)
        pull.start()

    def addressOf(self, application: str, name: str) -> RTMPURL:
        """Make the address of a stream at the origin."""
        prefix, mark, query = self.url.application.partition("?")
        path = "/".join(part for part in (prefix, application) if part)
        return replace(self.url, application=path + mark + query, name=name)

    def _idleDue(self, key: Key) -> None:
        """Stop pulling a stream that has been without players for a while."""
        del self._idle[key]
        self._drop(key)

    def _drop(self, key: Key) -> None:
        """Stop pulling a stream."""
        idle = self._idle.pop(key, None)
        if idle is not None:
            idle.cancel()
        self.pulls.pop(key).stop()
        demand = self._demands[key]
        self._places.leave(demand)
        if not demand.players:
            self._forget(demand)
        self._serveNext()

    def _forget(self, demand: _Demand) -> None:
        """Forget a stream that nobody wants."""
        self._places.leave(demand)
        del self._demands[demand.key]

    def _pullEnded(self, _: None, key: Key, pull: Pull, ended: Deferred[None]) -> None:
        self._ending.discard(ended)
        if self.pulls.get(key) is pull:
            # The server has ended it, since it stops.
            self._drop(key)

    def _tellFull(self, key: Key) -> None:
        """Log, at most every L{LOG_SECONDS}, that a stream is not pulled."""
        now = self._reactor.seconds()
        if self._toldFull is None or now - self._toldFull >= LOG_SECONDS:
            self._toldFull = now
            self.log.warn(
                "{stream} is not pulled from the origin yet: {count} of {limit} places"
                " are taken, or its players' address has its share of them",
                stream=printable("/".join(key)),
                count=len(self._places),
                limit=self._places.limit,
            )


@implementer(IAuthorizer)
class LoopGuard:
    """
    A decider that refuses the connection of an edge that would play from itself.

    It allows everything else.
    """

    def __init__(self, identifier: str) -> None:
        """@param identifier: this edge's own."""
        self._identifier = identifier

    def connect(self, request: ConnectRequest) -> None:
        """
        Refuse an edge that this edge's own streams come from, or that is behind too
        many others.

        @raise Refused: it is such an edge.
        """
        path = _parsePath(request.properties)
        if self._identifier in path:
            raise Refused("This edge would play from itself: its origin leads here.")
        if len(path) >= MAX_HOPS:
            raise Refused(f"There are {MAX_HOPS} edges on the way already.")

    def publish(self, request: StreamRequest) -> None:
        """Allow it: edges may publish like other clients."""

    def play(self, request: StreamRequest) -> None:
        """Allow it: edges may play like other clients."""


def _payerOf(player: Player) -> Payer:
    """Name the peer of a player."""
    request = player.request
    if request is None:
        return Payer()
    return Payer(hostOf(request.address), request.connect.connectionId)


def _pathOf(player: Player) -> Path:
    """Give the edges before a player, as its peer names them."""
    request = player.request
    return () if request is None else _parsePath(request.connect.properties)


def _parsePath(properties: Mapping[str, Any]) -> Path:
    """Read the identifiers that an edge's C{connect} names."""
    path = properties.get(PATH_PROPERTY)
    if not isinstance(path, str) or len(path) > MAX_PATH_SIZE:
        return ()
    return path.split()


def parseOrigin(text: str) -> RTMPURL:
    """
    Read an origin's address: C{rtmp://host[:port][/prefix...]}.

    @raise InvalidURL: it is invalid.
    """
    if "=" in text.partition("://")[0]:
        raise InvalidURL("must be a URL alone: an origin has all streams")
    return RTMPURL.ofServer(text)
