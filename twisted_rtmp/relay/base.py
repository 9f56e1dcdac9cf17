"""
What all relays have in common: a connection to another server, made again and again.

Imports the client, names and limits.  Knows neither whether media come or go, nor the
streams that they belong to.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_rtmp.client.connecting import connectRTMP
from twisted_rtmp.client.errors import ClientError, ServerRefused, StreamNotFound
from twisted_rtmp.client.limits import STEADY_SECONDS, ClientLimits
from twisted_rtmp.client.moving import MoveLimit
from twisted_rtmp.client.url import RTMPURL
from twisted_rtmp.live.connections import Description, connectionId
from twisted_rtmp.names import printable

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from twisted_rtmp.client.protocol import ReconnectRequest, RTMPClient
    from twisted_rtmp.live.registry import Registry

#: The shortest and the longest wait before the next attempt, in seconds, before up to
#: a second of jitter.  nginx-rtmp and SRS try every 3 s, ffmpeg users' loops every 1 s.
RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 30.0

#: The same after the other end has said no: it is a person who changes that.
REFUSED_SECONDS = 5.0
MAX_REFUSED_SECONDS = 120.0

#: A source that sends nothing for so long, in seconds, is left and asked again: also
#: one that has let us play a stream that has not begun.  Ours and MediaMTX' end a
#: silent publication after 10 s, ours a play that waits after 30.
SILENCE_SECONDS = 30.0

#: Delays, by how many attempts have failed in a row.
Backoff = Callable[[int], float]

#: The usual policies.
RETRY = backoffPolicy(RETRY_SECONDS, MAX_RETRY_SECONDS)
REFUSED = backoffPolicy(REFUSED_SECONDS, MAX_REFUSED_SECONDS)


class RelayState(Enum):
    """What a relay is doing."""

    IDLE = "not begun"
    CONNECTING = "connecting"
    EXPECTING = "waiting for the stream to begin"
    RELAYING = "relaying"
    WAITING = "waiting"
    ENDED = "ended"


#: The states that may follow each state.
TRANSITIONS = {
    RelayState.IDLE: {RelayState.CONNECTING, RelayState.WAITING, RelayState.ENDED},
    RelayState.CONNECTING: {
        RelayState.EXPECTING,
        RelayState.RELAYING,
        RelayState.WAITING,
        RelayState.ENDED,
    },
    RelayState.EXPECTING: {
        RelayState.RELAYING,
        RelayState.WAITING,
        RelayState.ENDED,
    },
    RelayState.RELAYING: {RelayState.WAITING, RelayState.ENDED},
    RelayState.WAITING: {RelayState.CONNECTING, RelayState.WAITING, RelayState.ENDED},
    RelayState.ENDED: set(),
}


class Connect(Protocol):
    """How to connect: L{connectRTMP}, or that with arguments of one's own."""

    def __call__(
        self,
        reactor: Any,  # noqa: ANN401
        url: RTMPURL,
        *,
        limits: ClientLimits | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> Deferred[RTMPClient]: ...


@dataclass
class RelayCounters:
    """
    What a relay came to.

    @ivar attempts: connections that were tried.
    @ivar refused: attempts to which the other end said no.
    @ivar reconnects: attempts that succeeded after an earlier one had.
    @ivar moves: requests of the other end to connect anew that were obeyed.
    @ivar messages: audio, video and data messages relayed.
    @ivar size: bytes of these, as they were written or came.
    @ivar dropped: messages that could not be relayed.
    @ivar droppedSize: bytes of their payloads.
    """

    attempts: int = 0
    refused: int = 0
    reconnects: int = 0
    moves: int = 0
    messages: int = 0
    size: int = 0
    dropped: int = 0
    droppedSize: int = 0

    def add(self, other: RelayCounters) -> None:
        """Add another relay's."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class Relay:
    """
    Keeps a stream of another server, or on it, until it is stopped.

    When the other end asks it to connect anew (E-RTMP v2, Reconnect Request), it does:
    it relays by the old connection until the new one is there.  After a failure it is
    the original address that is tried, whatever was asked for: who answers there knows
    best where to go now.

    The server counts it as one of its connections, and ends it as those.

    @ivar url: the stream's address at the other server.
    @ivar at: the address of the newest connection: L{url}, unless the other end has
        asked for another.
    @ivar label: what it relays and whereto, for log lines: without credentials.
    @ivar state: what it is doing.
    @ivar why: what it waits for, if it waits.
    @ivar ended: whether it is over.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        registry: Registry,
        url: RTMPURL,
        label: str,
        connect: Connect | None = None,
        limits: ClientLimits | None = None,
        public: Iterable[str] = (),
    ) -> None:
        """
        @param connect: instead of L{connectRTMP}.
        @param limits: those of the server's peers, by default.
        @param public: names that may appear in the log, though they are in the URL.
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
        self._public = tuple(public)
        self._secrets = _secretsOf(url, self._public)
        self._counters = RelayCounters()
        self._client: RTMPClient | None = None
        # The connection that takes over from that one, and its coming about.
        self._next: RTMPClient | None = None
        self._former: list[RTMPClient] = []
        self._moving: Deferred[None] | None = None
        self._moveLimit = MoveLimit()
        self._leaving = False
        self._stopping = False
        self._acceptedAt: float | None = None
        self._successes = 0
        self._run: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []

    @property
    def counters(self) -> RelayCounters:
        """What it came to so far."""
        return self._counters

    @property
    def peer(self) -> str:
        """The other server, for log lines."""
        return str(self.url)

    @property
    def ended(self) -> bool:
        return self.state is RelayState.ENDED

    # Its life

    def start(self) -> None:
        """Connect, and go on until L{stop}."""
        self.since = self._clock.seconds()
        self.registry.connections.opened(self)
        self._run = Deferred.fromCoroutine(self.goOn())
        if self._stopping:
            self._run.cancel()
        self._run.addErrback(self._failed).addBoth(self._finish)

    def stop(self) -> Deferred[None]:
        """
        End, after what has been sent; to be called after L{start}.

        @return: fires when the connection has ended; never fails.
        """
        if not self._stopping:
            self._stopping = True
            if self._run is not None and not self._leaving:
                self._run.cancel()
        return self.whenEnded()

    def abort(self) -> None:
        """End at once."""
        self.stop()
        for client in (self._client, self._next, *self._former):
            if client is not None:
                client.abort()

    def whenEnded(self) -> Deferred[None]:
        """Learn of the end; each call gives a Deferred of its own."""
        ended: Deferred[None] = Deferred()
        if self.ended:
            ended.callback(None)
        else:
            self._waiting.append(ended)
        return ended

    def _failed(self, failure: Failure) -> None:
        """It has been stopped; any other error is a bug, which ends it too."""
        if not failure.check(CancelledError):
            self.log.failure("{relay} failed", failure, relay=self.label)

    def _finish(self, _: object) -> None:
        self._enter(RelayState.ENDED)
        self.over()
        self.registry.connections.closed(self)
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)

    async def goOn(self) -> None:
        """Attempt it again and again."""
        failures = 0
        try:
            while not self._stopping:
                self._acceptedAt = None
                hindrance = self.hindrance()
                if hindrance:
                    why, backoff = hindrance, REFUSED
                    await self._dropNext()
                else:
                    self._enter(RelayState.CONNECTING)
                    self._counters.attempts += 1
                    why, backoff = await self._attempt()
                if self._moving is not None and not self.done():
                    await self._moving
                if self.done():
                    return
                if self._next is not None:
                    self._enter(RelayState.WAITING, f"it moves to {self._next.url}")
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
            if self._moving is not None:
                self._moving.cancel()
            await self._disconnect()
            await self._dropNext()
            for client in list(self._former):
                self._leaving = True
                await client.whenEnded()

    def _wasSteady(self) -> bool:
        """Whether the last connection was a good one."""
        accepted = self._acceptedAt
        return (
            accepted is not None and self._clock.seconds() - accepted >= STEADY_SECONDS
        )

    async def _attempt(self) -> tuple[str, Backoff]:
        """
        Connect, and relay as long as it goes well.

        @return: why it does no longer, and how long to wait.
        """
        error: Exception | None
        try:
            client, self._next = self._next, None
            self.at = self.url if client is None else client.url
            if client is None:
                client = await self._reach(self.url)
            self._client = client
            client.reconnectRequested.append(self._moveRequested)
            if client.reconnectRequest is not None:
                # It came while the old connection was being ended.
                self._moveRequested(client.reconnectRequest)
            # After the client's own limit, which says what is the matter.
            _boundSilence(self._client.transport, 2 * self._limits.drainSeconds)
            error = await self.relay(self._client)
        except (ClientError, ConnectError, DNSLookupError) as caught:
            error = caught
        finally:
            self.left()
        return self._judge(error)

    def _reach(self, url: RTMPURL) -> Deferred[RTMPClient]:
        return self._connect(
            self._clock, url, limits=self._limits, properties=self.properties()
        )

    async def _dropNext(self) -> None:
        """End a connection that is not needed after all."""
        if self._next is not None:
            self._leaving = True
            await self._next.disconnect()
            self._leaving = False
            self._next = None

    # Moving

    def _moveRequested(self, request: ReconnectRequest) -> None:
        """The other end asks us to connect anew."""
        if self._moving is not None or self._next is not None:
            return  # we are about to
        if self._stopping or not self.mayMove():
            return
        if not self._moveLimit.allows(self._clock.seconds()):
            self.log.warn(
                "{relay}: stays where it is, though it is asked to move: it did so"
                " {count} times without a connection of {seconds:g} s",
                relay=self.label,
                count=self._moveLimit.count,
                seconds=STEADY_SECONDS,
            )
            return
        self._moving = Deferred.fromCoroutine(self._move(request.url))
        self._moving.addErrback(self._failed).addCallback(self._moveDone)

    async def _move(self, url: RTMPURL) -> None:
        """Connect there; then leave the old connection, whose attempt ends so."""
        secrets = {*self._secrets, *_secretsOf(url, self._public)}
        self._secrets = sorted(secrets, key=len, reverse=True)
        try:
            client = await self._reach(url)
        except (ClientError, ConnectError, DNSLookupError) as error:
            self.log.warn(
                "{relay}: stays where it is, since it cannot move to {url}: {why}",
                relay=self.label,
                url=str(url),
                why=hidden(str(error), self._secrets),
            )
            return
        if self._stopping or not self.mayMove():
            await client.disconnect()
            return
        self._next = client
        self._counters.moves += 1
        old = self._client
        if old is not None:
            self._former.append(old)
            old.whenEnded().addCallback(lambda _: self._former.remove(old))
            self.leaving()
            old.disconnect()

    def _moveDone(self, _: None) -> None:
        self._moving = None

    async def _disconnect(self) -> None:
        """End the connection of the last attempt, behind what has been sent."""
        if self._client is not None:
            self._leaving = True
            await self._client.disconnect()
            self._leaving = False
            self._client = None

    def _judge(self, error: Exception | None) -> tuple[str, Backoff]:
        """What an attempt's end means."""
        why = self.reason() or ("the stream has ended" if error is None else str(error))
        why = hidden(why, self._secrets).rstrip(".")
        if isinstance(error, ServerRefused):
            self._counters.refused += 1
            # A stream that is not there may begin at any time.
            if not isinstance(error, StreamNotFound):
                return why, REFUSED
        return why, REFUSED if self.reason() else RETRY

    def accepted(self, state: RelayState) -> None:
        """The other end takes part."""
        self._acceptedAt = self._clock.seconds()
        if self._successes:
            self._counters.reconnects += 1
        self._successes += 1
        self._enter(state)

    def _enter(self, state: RelayState, why: str = "") -> None:
        """The only place that changes the state."""
        if state is self.state is RelayState.ENDED:
            return
        if state not in TRANSITIONS[self.state]:
            raise AssertionError(f"{self.state} does not lead to {state}")
        self.state = state
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

    # What is relayed, and how

    def relay(self, client: RTMPClient) -> Awaitable[ClientError | None]:
        """
        Relay by a connection.

        @return: fires when that is over, with the error if there was one.
        @raise ClientError: the other end does not want it.
        """
        raise NotImplementedError

    def hindrance(self) -> str:
        """Why an attempt makes no sense now; empty if it does."""
        return ""

    def reason(self) -> str:
        """Why the last attempt had to end, if that is known here; else empty."""
        return ""

    def properties(self) -> Mapping[str, Any] | None:
        """What C{connect} is to say besides."""
        return None

    def left(self) -> None:
        """The attempt is over."""

    def mayMove(self) -> bool:
        """Whether it makes sense to go on by another connection."""
        return True

    def leaving(self) -> None:
        """The connection is about to be ended, for another one."""

    @property
    def moving(self) -> bool:
        """Whether the next attempt has its connection already, or is about to."""
        if self._stopping:
            return False
        return self._next is not None or self._moving is not None

    def done(self) -> bool:
        """Whether there is nothing more to be done."""
        return False

    def over(self) -> None:
        """It has ended."""

    # What the server sees of it

    def close(self) -> None:
        """The server stops."""
        self.stop()

    #: The word for it among other kinds of connections.
    kind = "relay"

    def describe(self) -> Description:
        """Say what it is and does, of all its connections together."""
        clients = [c for c in (self._client, self._next, *self._former) if c]
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
    """What a relay allows its other end, as far as a server's peers are like that."""
    return ClientLimits(
        wire=registry.limits.wire,
        drainSeconds=registry.limits.drainSeconds,
        silenceSeconds=SILENCE_SECONDS,
    )


def _boundSilence(transport: object, seconds: float) -> None:
    """
    Let a connection end when the other end's system has not confirmed what was sent
    for so long: with little to send, it is minutes until the buffers are full.

    Where the system has no such option, it is these minutes.
    """
    below = getattr(transport, "transport", transport)  # TLS has one below
    connection = getattr(below, "socket", None)
    if (
        isinstance(connection, socket.socket)
        and connection.family in (socket.AF_INET, socket.AF_INET6)
        and hasattr(socket, "TCP_USER_TIMEOUT")
    ):
        milliseconds = round(seconds * 1000)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def _secretsOf(url: RTMPURL, public: Iterable[str]) -> list[str]:
    """What of a URL the log must not show, longest first."""
    name, _, query = url.name.partition("?")
    parts = {url.name, name, query, url.application.partition("?")[2], url.password}
    return sorted(parts - {"", *public}, key=len, reverse=True)


def hidden(text: str, secrets: Iterable[str]) -> str:
    """A server's words without what they repeat of our keys."""
    for secret in secrets:
        # As it is, and as a log line would spell it.
        for spelling in {secret, printable(secret)}:
            text = re.sub(rf"(?<!\w){re.escape(spelling)}(?!\w)", "(key)", text)
    return text
