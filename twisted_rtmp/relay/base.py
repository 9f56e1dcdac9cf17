"""
Relays: a connection to another server that is made again and again.

Push and pull are both built on this; it knows neither the direction of the media nor
their streams.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_rtmp.client.connecting import CONNECT_ERRORS, connectRTMP, rejectedTo
from twisted_rtmp.client.errors import (
    ClientError,
    ConnectRejected,
    ServerRefused,
    StreamNotFound,
)
from twisted_rtmp.client.limits import STEADY_SECONDS, ClientLimits
from twisted_rtmp.client.mover import Mover
from twisted_rtmp.client.url import RTMPURL
from twisted_rtmp.live.connections import Description, connectionId
from twisted_rtmp.relay.states import TRANSITIONS, RelayCounters, RelayState
from twisted_rtmp.states import Stateful

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from twisted_rtmp.client.protocol import RTMPClient
    from twisted_rtmp.live.registry import Registry

#: The shortest and the longest wait before the next attempt, in seconds, before up to
#: a second of jitter.  nginx-rtmp and SRS try every 3 s, ffmpeg users' loops every 1 s.
RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 30.0

#: The same after a refusal, which only a person can change.
REFUSED_SECONDS = 5.0
MAX_REFUSED_SECONDS = 120.0

#: A source that sends nothing for this time, in seconds, is left and asked again, even
#: if it has accepted the play of a stream that has not started.  This server and
#: MediaMTX end a silent publication after 10 s; this server ends a play that waits
#: after 30.
SILENCE_SECONDS = 30.0

#: Delays, by how many attempts have failed in a row.
Backoff = Callable[[int], float]

#: The usual policies.
RETRY = backoffPolicy(RETRY_SECONDS, MAX_RETRY_SECONDS)
REFUSED = backoffPolicy(REFUSED_SECONDS, MAX_REFUSED_SECONDS)


class Connect(Protocol):
    """A way to connect: L{connectRTMP}, or the same with other arguments."""

    def __call__(
        self,
        reactor: Any,  # noqa: ANN401
        url: RTMPURL,
        *,
        limits: ClientLimits | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> Deferred[RTMPClient]: ...


class _Kept:
    """The memory that one connection of a relay takes: see L{Holder}."""

    def __init__(self, relay: Relay, client: RTMPClient) -> None:
        self._relay = relay
        self._client = client

    @property
    def isPublishing(self) -> bool:
        """Tell whether others depend on it: it gives up after all others."""
        return bool(self._relay.publishes)

    def giveUp(self, why: str) -> None:
        """Leave the other end: it takes too much memory."""
        self._client.abort(f"The connection is cut: {why}.")


class Relay(Stateful[RelayState]):
    """
    A stream of another server, or on it, that is kept up until the relay is stopped.

    It obeys the other end's reconnect requests (E-RTMP v2, Reconnect Request), and
    relays on the old connection until the new one is there.  After a failure it tries
    the original address, whatever was asked for: the server there knows best where to
    go now.

    It is one of the server's connections, and ends with those.

    @cvar kind: the kind of connection, for its description.
    @ivar url: the stream's address at the other server.
    @ivar at: the address of the newest connection: L{url}, unless the other end has
        asked for another.
    @ivar label: the stream, the direction and the address, for log lines: without
        credentials.
    @ivar why: the reason of the state, if it waits.
    @ivar ended: whether it has ended.
    """

    transitions = TRANSITIONS
    kind = "relay"
    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        registry: Registry,
        url: RTMPURL,
        label: str,
        connect: Connect | None = None,
        limits: ClientLimits | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        """
        @param connect: instead of L{connectRTMP}.
        @param limits: those of the server's peers, by default.
        @param properties: added to those of C{connect}.
        """
        self.registry = registry
        self.url = self.at = url
        self.label = label
        self.state = RelayState.IDLE
        self.why = ""
        self.id = connectionId()
        self.host = ""  # it counts for no address: it is the server's own
        self.since = 0.0
        self._clock = reactor
        self._connect: Connect = connectRTMP if connect is None else connect
        self._limits = _limitsOf(registry) if limits is None else limits
        self._properties = properties
        self._counters = RelayCounters()
        self._client: RTMPClient | None = None
        # Connections that it has moved away from, and that have not ended yet.
        self._former: list[RTMPClient] = []
        self._mover = Mover(reactor, self)
        # Whether the end of a connection is waited for.
        self._leaving = False
        self._stopping = False
        # Why the attempt has to end, if it is this end's decision.
        self._whyLeft = ""
        self._acceptedAt: float | None = None
        self._successes = 0
        self._running: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []

    @property
    def counters(self) -> RelayCounters:
        """The figures so far."""
        return self._counters

    @property
    def peer(self) -> str:
        """The other server's address, for log lines."""
        return str(self.url)

    @property
    def ended(self) -> bool:
        return self.state is RelayState.ENDED

    # Its life

    def start(self) -> None:
        """Connect, and relay until L{stop}."""
        self.since = self._clock.seconds()
        self.registry.connections.opened(self)
        self._running = Deferred.fromCoroutine(self.run())
        if self._stopping:
            self._running.cancel()
        self._running.addErrback(self._failed).addBoth(self._finish)

    def stop(self) -> Deferred[None]:
        """
        End, when all that was sent has been taken; to be called after L{start}.

        @return: fires when the connection has ended; never fails.
        """
        if not self._stopping:
            self._stopping = True
            if self._running is not None and not self._leaving:
                self._running.cancel()
        return self.whenEnded()

    def abort(self) -> None:
        """End at once."""
        self.stop()
        for client in self._clients():
            client.abort()

    def whenEnded(self) -> Deferred[None]:
        """Learn of the end; each call gives a Deferred of its own."""
        ended: Deferred[None] = Deferred()
        if self.ended:
            ended.callback(None)
        else:
            self._waiting.append(ended)
        return ended

    def _clients(self) -> list[RTMPClient]:
        """List all its connections."""
        clients = (self._client, self._mover.next, *self._former)
        return [client for client in clients if client is not None]

    def _failed(self, failure: Failure) -> None:
        """Log an error that has ended the relay, unless it was stopped: it is a bug."""
        if not failure.check(CancelledError):
            self.log.failure("{relay} failed", failure, relay=self.label)

    def _finish(self, _: object) -> None:
        self._enter(RelayState.ENDED)
        self.relayEnded()
        self.registry.connections.closed(self)
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)

    async def run(self) -> None:
        """Connect and relay, again and again."""
        failures = 0
        mover = self._mover
        try:
            while not self._stopping:
                self._acceptedAt = None
                whyNot = self.whyNotNow()
                if whyNot:
                    why, backoff = whyNot, REFUSED
                    await self._dropNext()
                else:
                    self._enter(RelayState.CONNECTING)
                    self._counters.attempts += 1
                    why, backoff = await self._attempt()
                if mover.connecting is not None and not self.isDone():
                    await mover.connecting
                if self.isDone():
                    return
                if mover.next is not None:
                    self._enter(RelayState.WAITING, f"it moves to {mover.next.url}")
                    self._client = None
                    continue
                if self._wasSteady():
                    failures = 0
                delay = backoff(failures)
                failures += 1
                self._enter(RelayState.WAITING, f"{why}; next attempt in {delay:.1f} s")
                await self._disconnect()
                if not self._stopping:
                    await deferLater(self._clock, delay)
        finally:
            mover.cancel()
            await self._disconnect()
            await self._dropNext()
            for client in list(self._former):
                self._leaving = True
                await client.whenEnded()

    def _wasSteady(self) -> bool:
        """Tell whether the last connection has lasted: see L{STEADY_SECONDS}."""
        accepted = self._acceptedAt
        return (
            accepted is not None and self._clock.seconds() - accepted >= STEADY_SECONDS
        )

    async def _attempt(self) -> tuple[str, Backoff]:
        """
        Connect, and relay as long as that works.

        @return: why it has ended, and how long to wait.
        """
        url: RTMPURL | None = self.url
        redirects = 0
        error: Exception | None = None
        while url is not None:
            error = await self._relayAt(url)
            url = None
            if self._isRejected(error):
                try:
                    url = rejectedTo(self.at, error, redirects)
                except ConnectRejected as caught:
                    error = caught
            if url is not None:
                self._enter(RelayState.WAITING, f"it is redirected to {url}")
                if self._client is not None:
                    self._client.abort()
                    await self._disconnect()
                self._enter(RelayState.CONNECTING)
            redirects += 1
        return self._judge(error)

    def _isRejected(self, error: Exception | None) -> TypeGuard[ConnectRejected]:
        """Tell whether the other end has redirected it, and it is to follow."""
        return (
            isinstance(error, ConnectRejected)
            and bool(error.redirect)
            and not (self._stopping or self._mover.active or self.isDone())
        )

    async def _relayAt(self, url: RTMPURL) -> Exception | None:
        """
        Connect to an address, and relay as long as that works.

        @return: why it has ended.
        """
        self._whyLeft = ""
        try:
            client = self._mover.take()
            if client is None:
                self.at = url
                client = await self.reach(url)
            self.at = client.url
            self._client = client
            self._charge(client)
            self._mover.follow(client)
            # After the client's own limit, whose error says more.
            _boundSilence(client.transport, 2 * self._limits.drainSeconds)
            return await self.relay(client)
        except CONNECT_ERRORS as caught:
            return caught
        finally:
            self.attemptEnded()

    def _charge(self, client: RTMPClient) -> None:
        """Charge what is kept for the other end to the server's budget."""
        # To no address: an edge's origin has as many streams as there are.
        account = self.registry.budget.connection(
            _Kept(self, client), "", self._limits.wire.unfinishedBytes
        )
        client.chargeTo(account)
        client.whenEnded().addCallback(lambda _: account.close())

    async def _dropNext(self) -> None:
        """End a connection that is not needed after all."""
        client = self._mover.next
        if client is not None:
            await self._end(client)
            self._mover.take()

    async def _disconnect(self) -> None:
        """End the connection of the last attempt."""
        if self._client is not None:
            await self._end(self._client)
            self._client = None

    async def _end(self, client: RTMPClient) -> None:
        """End a connection, when all that was sent has been taken."""
        self._leaving = True
        await client.disconnect()
        self._leaving = False

    # Moving, where the other end asks for it

    def reach(self, url: RTMPURL) -> Deferred[RTMPClient]:
        return self._connect(
            self._clock, url, limits=self._limits, properties=self._properties
        )

    def mayMove(self) -> bool:
        return not self._stopping

    def moved(self) -> None:
        self._counters.moves += 1
        old = self._client
        if old is not None:
            self._former.append(old)
            old.whenEnded().addCallback(lambda _: self._former.remove(old))
            self.switching()
            old.disconnect()

    def moveFailed(self, url: RTMPURL, error: Exception) -> None:
        self.log.warn(
            "{relay}: cannot move to {url}, and stays where it is: {why}",
            relay=self.label,
            url=str(url),
            why=str(error),
        )

    def movesIgnored(self, count: int, seconds: float) -> None:
        self.log.warn(
            "{relay}: ignoring reconnect requests for {seconds:.0f} s: it has moved"
            " {count} times",
            relay=self.label,
            count=count,
            seconds=seconds,
        )

    def _judge(self, error: Exception | None) -> tuple[str, Backoff]:
        """
        Say why an attempt has ended, and how long to wait.

        @param error: the other end's or the network's reason; L{None} if there is none.
        """
        left = self._whyLeft
        why = left or ("the stream has ended" if error is None else str(error))
        why = why.rstrip(".")
        if isinstance(error, ServerRefused):
            self._counters.refused += 1
            # A stream that is not there may start at any time.
            if not isinstance(error, StreamNotFound):
                return why, REFUSED
        return why, REFUSED if left else RETRY

    def accepted(self, state: RelayState) -> None:
        """Take note that the other end has let it publish or play."""
        self._acceptedAt = self._clock.seconds()
        if self._successes:
            self._counters.reconnects += 1
        self._successes += 1
        self._enter(state)

    def _enter(self, state: RelayState, why: str = "") -> None:
        if state is self.state is RelayState.ENDED:
            return
        super()._enter(state)
        self.why = why
        if state is RelayState.ENDED:
            counters = self.counters
            self.log.info(
                "{relay}: ended: {messages} messages relayed, {dropped} dropped;"
                " attempts: {attempts}, reconnects: {reconnects}",
                relay=self.label,
                attempts=counters.attempts,
                reconnects=counters.reconnects,
                messages=counters.messages,
                dropped=counters.dropped,
            )
        else:
            self.log.info(
                "{relay}: {state}{why}",
                relay=self.label,
                state=state.value,
                why=f", since {why}" if why else "",
            )

    # For the kinds of relays

    def relay(self, client: RTMPClient) -> Awaitable[ClientError | None]:
        """
        Relay on a connection.

        @return: fires when that has ended, with the error if there was one.
        @raise ClientError: the other end does not let it publish or play.
        """
        raise NotImplementedError

    def whyNotNow(self) -> str:
        """Say why an attempt cannot succeed now; empty if it can."""
        return ""

    def switching(self) -> None:
        """Prepare for another connection: the present one is about to be ended."""

    def attemptEnded(self) -> None:
        """Clean up after an attempt."""

    def isDone(self) -> bool:
        """Tell whether there is nothing left to relay."""
        return False

    def relayEnded(self) -> None:
        """Clean up after the last attempt."""

    @property
    def moving(self) -> bool:
        """Tell whether the next attempt has its connection already, or is about to."""
        return not self._stopping and self._mover.active

    # For the server

    def close(self) -> None:
        self.stop()

    @property
    def inUse(self) -> bool:
        """Tell that its stream is wanted until it is stopped."""
        return True

    def describe(self) -> Description:
        """Describe the relay, with all its connections together."""
        clients = self._clients()
        state = self.state.value
        return Description(
            id=self.id,
            kind=self.kind,
            peer=self.peer,
            since=self.since,
            state=f"{state}: {self.why}" if self.why else state,
            bytesReceived=sum(client.wire.bytesReceived for client in clients),
            bytesSent=sum(client.wire.bytesSent for client in clients),
            application=self.application,
            publishes=self.publishes,
            plays=self.plays,
        )

    @property
    def application(self) -> str:
        """The application of the stream here."""
        raise NotImplementedError

    @property
    def publishes(self) -> tuple[str, ...]:
        """The streams that it publishes here, as C{application/name}."""
        return ()

    @property
    def plays(self) -> tuple[str, ...]:
        """The streams that it plays here, as C{application/name}."""
        return ()


def _limitsOf(registry: Registry) -> ClientLimits:
    """Make a relay's limits from those of the server's peers."""
    return ClientLimits(
        wire=registry.limits.wire,
        drainSeconds=registry.limits.drainSeconds,
        silenceSeconds=SILENCE_SECONDS,
    )


def _boundSilence(transport: object, seconds: float) -> None:
    """
    Let a connection end when the other end's system has not confirmed for some time
    what was sent: with little to send, it takes minutes until the buffers are full.

    Where the system has no such option, it takes these minutes.
    """
    below = getattr(transport, "transport", transport)  # TLS wraps another one
    connection = getattr(below, "socket", None)
    if (
        isinstance(connection, socket.socket)
        and connection.family in (socket.AF_INET, socket.AF_INET6)
        and hasattr(socket, "TCP_USER_TIMEOUT")
    ):
        milliseconds = round(seconds * 1000)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
