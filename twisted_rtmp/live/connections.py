"""The connections of a server, whatever protocol they speak."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twisted_rtmp.live.addresses import Addresses
from twisted_rtmp.live.budget import Budget
from twisted_rtmp.live.counters import Counters
from twisted_rtmp.live.turns import AwakeClock
from twisted_rtmp.wire.limits import MIB

#: The least time between two log lines on newcomers turned away, in seconds.
TURNED_AWAY_LOG_SECONDS = 10.0

_numbers = count(1)


def connectionId() -> str:
    """Make an identifier for a connection: unique in this process, short in logs."""
    return f"c{next(_numbers)}"


@dataclass(frozen=True)
class Description:
    """
    One connection as plain values, at one moment.

    @ivar id: unique in this process.
    @ivar kind: C{"rtmp"}, C{"rtmps"}, C{"http"}, C{"https"}, C{"ws"}, C{"wss"},
        C{"pull"} or C{"push"}.
    @ivar peer: the address of the other end, for people.
    @ivar since: when it began, in the clock's seconds.
    @ivar state: how far it has come, in a word or two.
    @ivar bytesReceived: all that came, in bytes.
    @ivar bytesSent: all that was sent, in bytes.
    @ivar application: the application it is connected to; empty before that is known.
    @ivar agent: the peer's software, as it says; may be empty.
    @ivar publishes: the streams it publishes, as C{application/name}.
    @ivar plays: the streams it plays or waits for, as C{application/name}.
    """

    id: str
    kind: str
    peer: str
    since: float
    state: str
    bytesReceived: int = 0
    bytesSent: int = 0
    application: str = ""
    agent: str = ""
    publishes: tuple[str, ...] = ()
    plays: tuple[str, ...] = ()


class Connection(Protocol):
    """A connection that counts against the limit and ends with the server."""

    @property
    def id(self) -> str:
        """See L{Description}."""

    @property
    def host(self) -> str:
        """The address that it counts for; see L{hostOf}.  Empty if for none."""

    @property
    def inUse(self) -> bool:
        """Tell whether it publishes or plays something that is there."""

    def describe(self) -> Description:
        """Say what it is and does."""

    def close(self) -> None:
        """Close when what is queued has been sent, or at a deadline."""

    def abort(self) -> None:
        """Close at once, whatever is queued."""


class Connections:
    """
    The open connections of a server.

    @ivar counters: L{Counters} of the server.
    @ivar addresses: what each address has taken.
    @ivar budget: the memory that peers make the server keep.
    @ivar limit: how many there may be.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        counters: Counters,
        addresses: Addresses,
        budget: Budget,
        limit: int,
    ) -> None:
        self.counters = counters
        self.addresses = addresses
        self.budget = budget
        self.limit = limit
        self._clock = clock
        self._open: dict[Connection, None] = {}
        self._closing = False
        self._toldTurnedAway: float | None = None
        self._allClosed: Deferred[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        """Give the connections, oldest first; they may change meanwhile."""
        return iter(list(self._open))

    def __contains__(self, connection: object) -> bool:
        return connection in self._open

    def byId(self, id: str) -> Connection | None:  # noqa: A002
        """Find a connection by its identifier."""
        return next((each for each in self._open if each.id == id), None)

    @property
    def limitPerAddress(self) -> int:
        """The number of connections that one address may have."""
        return max(1, int(self.limit * self.addresses.limits.connectionShare))

    def admit(self, host: str) -> bool:
        """
        Decide whether there is room for a newcomer, by whatever protocol.

        @param host: where it comes from; see L{hostOf}.
        """
        if self._closing or len(self._open) >= self.limit:
            self._turnAway(f"{self.limit} are open")
            return False
        if self.budget.isFull:
            self._turnAway(f"peers take {self.budget.used // MIB} MiB of memory")
            return False
        if not self.addresses.opened(host, self.limitPerAddress):
            self._turnAway(f"{self.limitPerAddress} are open from {host}")
            return False
        self.counters.accepted += 1
        return True

    def identified(self, before: str, host: str) -> bool:
        """
        Count a connection for the address that a proxy has told of, not for the
        proxy's own.

        @param before: what it has counted for.
        @return: whether that address may have one more; if not it counts for none.
        """
        self.addresses.closed(before)
        if self.addresses.opened(host, self.limitPerAddress):
            return True
        self._turnAway(f"{self.limitPerAddress} are open from {host}")
        return False

    def _turnAway(self, why: str) -> None:
        """Count a newcomer that there is no room for; log now and then."""
        self.counters.turnedAway += 1
        now = self._clock.seconds()
        told = self._toldTurnedAway
        if not self._closing and (
            told is None or now - told >= TURNED_AWAY_LOG_SECONDS
        ):
            self._toldTurnedAway = now
            self.log.warn(
                "a connection is turned away: {why} ({count} so far)",
                why=why,
                count=self.counters.turnedAway,
            )

    def opened(self, connection: Connection) -> None:
        """Take a connection that has its transport."""
        if not self._open and isinstance(self._clock, AwakeClock):
            self._clock.start()
        self._open[connection] = None

    def closed(self, connection: Connection) -> None:
        """Forget a connection that has lost its transport."""
        if connection in self._open:
            del self._open[connection]
            self.addresses.closed(connection.host)
        if self._open:
            return
        if isinstance(self._clock, AwakeClock):
            self._clock.stop()
        if self._allClosed is not None:
            allClosed, self._allClosed = self._allClosed, None
            allClosed.callback(None)

    def closeUnused(self) -> None:
        """Take no new connections, and close those that are in nobody's use."""
        self._closing = True
        for connection in self:
            if not connection.inUse:
                connection.close()

    def close(self) -> Deferred[None]:
        """
        Close all connections, and take no new ones.

        @return: fires when all have closed.
        """
        self._closing = True
        for connection in self:
            connection.close()
        if not self._open:
            return succeed(None)
        self._allClosed = Deferred()
        return self._allClosed

    def abort(self) -> int:
        """
        Close all connections at once.

        @return: how many there were.
        """
        self._allClosed = None
        left = list(self)
        for connection in left:
            connection.abort()
        return len(left)
