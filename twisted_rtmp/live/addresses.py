"""
Limits for each address: what one host may take, however many connections it makes.

A host is one IPv4 address, or the /64 network of an IPv6 address, which is what one
customer is given; a peer over a UNIX socket has no limit.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from twisted_rtmp.limits import AddressLimits

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall


class TokenBucket:
    """
    A number of things that may be done at once, and a rate at which more come.

    @ivar tokens: those left at L{since}; below 0 are those taken in advance.
    @ivar since: when that was, in the clock's seconds.
    """

    __slots__ = ("since", "tokens")

    def __init__(self, tokens: float, now: float) -> None:
        self.tokens = tokens
        self.since = now

    def take(self, burst: float, rate: float, now: float, count: float = 1) -> bool:
        """Take tokens, if there are as many."""
        tokens = min(burst, self.tokens + (now - self.since) * rate)
        self.since = now
        isEnough = tokens >= count
        self.tokens = tokens - count if isEnough else tokens
        return isEnough

    def wait(self, burst: float, rate: float, now: float) -> float:
        """Tell in how many seconds there is a token; a little later at most."""
        self.take(burst, rate, now, 0)
        # Less than that is lost when it is added to the clock's seconds.
        return max(0.001, (1 - self.tokens) / rate)


class _Host:
    """The record of one address."""

    __slots__ = (
        "call",
        "connections",
        "isGiving",
        "leftOut",
        "lines",
        "plays",
        "publishes",
        "refusals",
        "waiting",
    )

    def __init__(self, limits: AddressLimits, now: float) -> None:
        self.connections = 0
        self.publishes = TokenBucket(limits.publishBurst, now)
        self.plays = TokenBucket(limits.playBurst, now)
        self.refusals = TokenBucket(limits.refusalBurst, now)
        self.lines = TokenBucket(limits.logBurst, now)
        self.leftOut = 0
        # Those that wait for their turn to ask, and the call that gives it to the next.
        self.waiting: deque[Deferred[None]] = deque()
        self.call: IDelayedCall | None = None
        # Whether they are being given their turns.
        self.isGiving = False

    @property
    def forgettable(self) -> bool:
        """Tell whether nothing of it is under way."""
        return not self.connections and not self.waiting


def hostOf(address: object) -> str:
    """
    Give the part of an address that one host has.

    @param address: an L{IAddress<twisted.internet.interfaces.IAddress>}, or L{None}.
    @return: empty for a peer that has no address of the Internet.
    """
    host = getattr(address, "host", None)
    if not isinstance(host, str):
        return ""
    if ":" not in host:
        return host
    try:
        number = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if number.ipv4_mapped is not None:
        return str(number.ipv4_mapped)
    return str(IPv6Address(int(number) >> 64 << 64)) + "/64"


class Addresses:
    """
    The record of what each address has taken of a server.

    @ivar limits: the bounds of one address.
    """

    def __init__(self, clock: IReactorTime, limits: AddressLimits) -> None:
        self.limits = limits
        self._clock = clock
        self._hosts: OrderedDict[str, _Host] = OrderedDict()

    def __len__(self) -> int:
        return len(self._hosts)

    def _host(self, host: str) -> _Host:
        """Remember an address; forget the one that was longest unheard of."""
        known = self._hosts.get(host)
        if known is None:
            known = self._hosts[host] = _Host(self.limits, self._clock.seconds())
            if len(self._hosts) > self.limits.addresses:
                self._forget()
        else:
            self._hosts.move_to_end(host)
        return known

    def _forget(self) -> None:
        """Make room: what has connections stays, and there are only that many."""
        for host, known in self._hosts.items():
            if known.forgettable:
                del self._hosts[host]
                return

    def opened(self, host: str, most: int) -> bool:
        """
        Count a connection, if the address may have one more.

        @param most: of all connections, how many one address may have.
        """
        if not host:
            return True
        known = self._host(host)
        if known.connections >= most:
            return False
        known.connections += 1
        return True

    def closed(self, host: str) -> None:
        """Count a connection no longer."""
        known = self._hosts.get(host)
        if known is not None and known.connections:
            known.connections -= 1

    def connections(self, host: str) -> int:
        """Give the number of an address's connections."""
        known = self._hosts.get(host)
        return 0 if known is None else known.connections

    def mayPublish(self, host: str) -> bool:
        """Count a publish that begins, if the address may begin one more."""
        limits = self.limits
        return not host or self._host(host).publishes.take(
            limits.publishBurst, limits.publishRate, self._clock.seconds()
        )

    def mayPlay(self, host: str) -> bool:
        """Count a play that begins, if the address may begin one more."""
        limits = self.limits
        return not host or self._host(host).plays.take(
            limits.playBurst, limits.playRate, self._clock.seconds()
        )

    # Guesses

    def turnToAsk(self, host: str) -> Deferred[None] | None:
        """
        Wait until the address may be told one more refusal, before a decider is asked.

        L{asked} is to be called when there is an answer.

        @return: L{None} if it may be at once.
        """
        if not host:
            return None
        known = self._host(host)
        limits, now = self.limits, self._clock.seconds()
        if not known.waiting and known.refusals.take(
            limits.refusalBurst, limits.refusalRate, now
        ):
            return None

        def leave(turn: Deferred[None]) -> None:
            known.waiting.remove(turn)
            self._schedule(known)

        turn: Deferred[None] = Deferred(leave)
        known.waiting.append(turn)
        self._schedule(known)
        return turn

    def asked(self, host: str, refused: bool) -> None:
        """Learn of an answer: only a refusal is a guess."""
        known = self._hosts.get(host)
        if known is not None and not refused:
            known.refusals.tokens += 1
            self._next(known)

    def _schedule(self, known: _Host) -> None:
        """Set the call for the next that waits, if there is one."""
        limits = self.limits
        if not known.waiting:
            if known.call is not None:
                known.call.cancel()
                known.call = None
        elif known.call is None:
            seconds = known.refusals.wait(
                limits.refusalBurst, limits.refusalRate, self._clock.seconds()
            )
            known.call = self._clock.callLater(seconds, self._due, known)

    def _due(self, known: _Host) -> None:
        known.call = None
        self._next(known)

    def _next(self, known: _Host) -> None:
        """Give their turn to those that wait, as far as there are tokens."""
        if known.isGiving:
            return  # an answer came at once: the loop below sees its token
        limits, now = self.limits, self._clock.seconds()
        known.isGiving = True
        while known.waiting and known.refusals.take(
            limits.refusalBurst, limits.refusalRate, now
        ):
            known.waiting.popleft().callback(None)
        known.isGiving = False
        self._schedule(known)

    # The log

    def mayLog(self, host: str, size: int, received: int) -> int | None:
        """
        Count a log line on an address, if there may be one more.

        @param size: of the line, in bytes.
        @param received: bytes that came from there and have paid for no line yet.
        @return: how many lines have been left out since the last one; L{None} if this
            one is to be left out too.
        """
        if not host:
            return 0
        known = self._host(host)
        limits, lines = self.limits, known.lines
        lines.tokens += received
        most = max(limits.logBurst, lines.tokens)
        if not lines.take(most, limits.logRate, self._clock.seconds(), size):
            known.leftOut += 1
            return None
        leftOut, known.leftOut = known.leftOut, 0
        return leftOut
