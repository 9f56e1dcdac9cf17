"""Pull on demand, which makes a server an edge of another one."""

from __future__ import annotations

from collections.abc import Mapping
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
from twisted_rtmp.live.directory import IDirectory, LocalDirectory
from twisted_rtmp.live.paths import ByPath
from twisted_rtmp.names import printable
from twisted_rtmp.relay.base import Connect
from twisted_rtmp.relay.pull import Pull
from twisted_rtmp.relay.push import PushedPlayer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from twisted_rtmp.live.registry import Registry
    from twisted_rtmp.live.streams import LiveStream

#: The time that a stream is kept without players, in seconds: a player that reconnects,
#: or reloads its page, should not wait for the origin again.
IDLE_SECONDS = 10.0

#: Streams that are pulled or waited for at once.  Each is a connection, and players
#: choose the names: without a bound, each connection of one peer would become one at
#: the origin.
MAX_PULLS = 1000

#: Edges in a row on the way of one stream.  Each adds its delay; more than two or three
#: are a mistake.
MAX_HOPS = 8

#: Characters of a L{PATH_PROPERTY}; real ones have 17 an edge.  A thousand paths are
#: kept, and a command may have 64 KiB.
MAX_PATH_SIZE = 1024

#: The least time between two log lines about streams that are not pulled, in seconds.
LOG_SECONDS = 10.0

#: The property of C{connect} in which an edge names the edges on the stream's way from
#: this connection on, nearest last: identifiers, separated by spaces.  Servers ignore
#: properties that they do not know.
PATH_PROPERTY = "edgePath"

_Key = tuple[str, str]


@implementer(IDirectory)
class Origin(Service):
    """
    The server from which streams are pulled that are played here and not published
    here, each as long as it is played.

    @ivar pulls: the pulls that have not ended, by application and name.
    @ivar idleSeconds: the time that a stream is kept without players.
    @ivar maxPulls: the most streams that are pulled or waited for at once.
    @ivar identifier: this edge's name on the ways of streams, so that none is a circle.
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
        connect: Connect | None = None,
        limits: ClientLimits | None = None,
    ) -> None:
        """
        @param url: the other server's address; its path, if it has one, is put before
            the applications' names.
        @param idleSeconds: the time that a stream is kept without players.
        @param maxPulls: the most streams that are pulled or waited for at once.
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
        self.maxPulls = maxPulls
        self._connect = connect
        self._limits = limits
        self._idle: ByPath[IDelayedCall] = ByPath()
        self._ending: set[Deferred[None]] = set()
        self._toldFull: float | None = None
        self._guard = LoopGuard(self.identifier)
        # The edges that asked for a stream, the farthest first; the oldest goes first.
        self._paths: ByPath[list[str]] = ByPath()

    def startService(self) -> None:
        Service.startService(self)
        registry = self._registry
        registry.guards.append(cast("IAuthorizer", self._guard))
        registry.directory = cast("IDirectory", self)
        registry.playersChanged.append(self._playersChanged)
        registry.streamStarted.append(self._streamStarted)
        registry.streamEnded.append(self._streamEnded)

    def stopService(self) -> Deferred[None]:
        """
        End all pulls and their streams.

        @return: fires when they have ended.
        """
        Service.stopService(self)
        registry = self._registry
        registry.guards.remove(cast("IAuthorizer", self._guard))
        registry.directory = cast("IDirectory", LocalDirectory())
        registry.playersChanged.remove(self._playersChanged)
        registry.streamStarted.remove(self._streamStarted)
        registry.streamEnded.remove(self._streamEnded)
        for key in list(self.pulls):
            self._drop(key)
        return DeferredList(list(self._ending)).addCallback(lambda _: None)

    # The server's directory

    def claim(self, application: str, name: str) -> None:
        """Allow every name: the origin is asked only for those that are free here."""

    def release(self, application: str, name: str) -> None:
        """Do nothing: the origin does not have to know."""

    def locate(
        self, application: str, name: str, request: StreamRequest | None
    ) -> None:
        """
        Note the way by which an edge is about to play a stream.

        The stream is pulled when its player waits for it.
        """
        if request is not None and PATH_PROPERTY in request.connect.properties:
            self._paths[application, name] = _parsePath(request.connect.properties)
            if len(self._paths) > self.maxPulls:
                del self._paths[next(iter(self._paths))]

    def pathTo(self, key: _Key) -> list[str]:
        """Take the edges that have asked for a stream, the farthest first."""
        return self._paths.pop(key, [])

    # What happens at the server

    def _playersChanged(self, application: str, name: str, count: int) -> None:
        key = application, name
        pull = self.pulls.get(key)
        if self._isPlayed(key):
            idle = self._idle.pop(key, None)
            if idle is not None:
                idle.cancel()
            if pull is None and key not in self._registry.streams:
                self._pull(key)
        elif pull is not None:
            if pull.live is None:
                self._drop(key)
            elif key not in self._idle:
                self._idle[key] = self._reactor.callLater(
                    self.idleSeconds, self._idleDue, key
                )

    def _isPlayed(self, key: _Key) -> bool:
        """Tell whether a player plays a stream or waits for it; pushes do not count."""
        players = self._registry.players(*key)
        return any(not isinstance(player, PushedPlayer) for player in players)

    def _streamStarted(self, stream: LiveStream) -> None:
        """Do not pull a stream that another publisher has here."""
        key = stream.application, stream.name
        pull = self.pulls.get(key)
        if pull is not None and stream.publisher is not pull:
            self._drop(key)

    def _streamEnded(self, stream: LiveStream) -> None:
        """Pull the stream for players that have not left: the origin may have it."""
        key = stream.application, stream.name
        self._playersChanged(*key, 0)

    # Pulls

    def _pull(self, key: _Key) -> None:
        """Start to pull a stream."""
        application, name = key
        if not name or self._registry.stopping:
            return
        if len(self.pulls) >= self.maxPulls:
            self._tellFull(key)
            return
        path = [*self.pathTo(key), self.identifier]
        pull = Pull(
            self._reactor,
            self._registry,
            application,
            name,
            self.addressOf(application, name),
            connect=self._connect,
            limits=self._limits,
            properties={PATH_PROPERTY: " ".join(path)},
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

    def _idleDue(self, key: _Key) -> None:
        """Stop pulling a stream that has been without players for a while."""
        del self._idle[key]
        self._drop(key)

    def _drop(self, key: _Key) -> None:
        """Stop pulling a stream."""
        idle = self._idle.pop(key, None)
        if idle is not None:
            idle.cancel()
        self.pulls.pop(key).stop()

    def _pullEnded(self, _: None, key: _Key, pull: Pull, ended: Deferred[None]) -> None:
        self._ending.discard(ended)
        if self.pulls.get(key) is pull:
            # The server has ended it, since it stops.
            self._drop(key)

    def _tellFull(self, key: _Key) -> None:
        """Log, at most every L{LOG_SECONDS}, that a stream is not pulled."""
        now = self._reactor.seconds()
        if self._toldFull is None or now - self._toldFull >= LOG_SECONDS:
            self._toldFull = now
            self.log.warn(
                "{stream} is not pulled from the origin: {limit} streams are already",
                stream=printable("/".join(key)),
                limit=self.maxPulls,
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


def _parsePath(properties: Mapping[str, Any]) -> list[str]:
    """Read the identifiers that an edge's C{connect} names."""
    path = properties.get(PATH_PROPERTY)
    if not isinstance(path, str) or len(path) > MAX_PATH_SIZE:
        return []
    return path.split()


def parseOrigin(text: str) -> RTMPURL:
    """
    Read an origin's address: C{rtmp://host[:port][/prefix...]}.

    @raise InvalidURL: it is invalid.
    """
    if "=" in text.partition("://")[0]:
        raise InvalidURL("must be a URL alone: an origin has all streams")
    return RTMPURL.ofServer(text)
