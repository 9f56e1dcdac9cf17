"""Shares: places that addresses share, and within an address its connections."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

_T = TypeVar("_T", bound=Hashable)


class Payer(NamedTuple):
    """
    The peer that a place is counted for.

    @ivar host: its address; see L{hostOf<twisted_rtmp.live.addresses.hostOf>}.  Empty
        for one that has no share, such as the server itself.
    @ivar connection: the identifier of its connection.
    """

    host: str = ""
    connection: str = ""


class Shares(Generic[_T]):
    """
    A number of places, the things that have one, and those that wait for one.

    Each address has its share at most.  When no place is left, an address with more of
    them gives one up for an address with fewer, and so does a connection for another
    one of its address.  Those that wait are served in turn, one of each address.

    @ivar limit: how many places there are.
    @ivar perHost: how many of them one address may have.
    """

    def __init__(self, limit: int, share: float) -> None:
        """@param share: the part of all places that one address may have, up to 1."""
        self.limit = limit
        self.perHost = max(1, int(limit * share))
        self._taken: dict[_T, Payer] = {}
        self._hosts: dict[str, int] = {}
        # Those that wait, by address, and the address of each.
        self._waiting: OrderedDict[str, dict[_T, None]] = OrderedDict()
        self._waitsAs: dict[_T, str] = {}

    def __len__(self) -> int:
        """Count the places that are taken."""
        return len(self._taken)

    def __contains__(self, item: object) -> bool:
        """Tell whether something has a place."""
        return item in self._taken

    def _hasRoom(self, host: str) -> bool:
        """Tell whether an address may have one more place."""
        return len(self._taken) < self.limit and (
            not host or self._hosts.get(host, 0) < self.perHost
        )

    def take(self, item: _T, payer: Payer) -> bool:
        """
        Take a place, or change the peer that a place is counted for.

        @return: whether there is one.
        """
        if item in self._taken:
            self._uncount(item)
        elif not self._hasRoom(payer.host):
            return False
        self._unqueue(item)
        self._taken[item] = payer
        self._hosts[payer.host] = self._hosts.get(payer.host, 0) + 1
        return True

    def takeFrom(
        self, item: _T, payer: Payer, mayYield: Callable[[_T], bool]
    ) -> _T | None:
        """
        Take the place of another one whose peer has at least two more.

        @param mayYield: tells whether something may lose its place.
        @return: the one that has lost it; L{None} if there is none.
        """
        other = self._yielding(payer, mayYield)
        if other is not None:
            self.leave(other)
            self.take(item, payer)
        return other

    def _yielding(self, payer: Payer, mayYield: Callable[[_T], bool]) -> _T | None:
        """Find what is to lose its place to a newcomer."""
        # The newest first: they have waited least.
        yielding = [p for p in reversed(self._taken.items()) if mayYield(p[0])]
        host = payer.host
        if len(self._taken) >= self.limit:
            counts = Counter(each.host for _, each in yielding)
            richest = max(counts, key=counts.__getitem__, default=host)
            if counts[richest] >= self._hosts.get(host, 0) + 2:
                host = richest
        yielding = [pair for pair in yielding if pair[1].host == host]
        counts = Counter(each.connection for _, each in yielding)
        richest = max(counts, key=counts.__getitem__, default="")
        if host == payer.host:
            own = sum(each == payer for each in self._taken.values())
            if counts[richest] < own + 2:
                return None
        found = [item for item, each in yielding if each.connection == richest]
        return found[0] if found else None

    def wait(self, item: _T, payer: Payer) -> None:
        """Wait for a place, or for one that is counted for another peer."""
        self._unqueue(item)
        self._waiting.setdefault(payer.host, {})[item] = None
        self._waitsAs[item] = payer.host

    def leave(self, item: _T) -> None:
        """Give a place back, or wait for none any more."""
        if item in self._taken:
            self._uncount(item)
            del self._taken[item]
        else:
            self._unqueue(item)

    def next(self) -> _T | None:
        """Give the next one that waits and for which there is a place now."""
        for host, items in self._waiting.items():
            if self._hasRoom(host):
                self._waiting.move_to_end(host)
                return next(iter(items))
        return None

    def _uncount(self, item: _T) -> None:
        host = self._taken[item].host
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]

    def _unqueue(self, item: _T) -> None:
        host = self._waitsAs.pop(item, None)
        if host is not None:
            items = self._waiting[host]
            del items[item]
            if not items:
                del self._waiting[host]
