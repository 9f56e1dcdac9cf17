"""
The memory that peers make the server keep: what it is charged to, and its bounds.

Whatever is kept for a peer is charged, in bytes, to the account of its connection or of
its stream, and with that to the server; what a connection has sent, and what it does
not take of its answers, is charged to its address as well.  Past a bound somebody gives
something up: the largest account, and a publisher last of all.

What is shared is charged once.  The messages that wait for the players of a stream are
the same objects for all of them, so they are the stream's, and not each player's.

Nothing here is done once a message: connections are charged once a read, streams once a
MiB.

Imports the limits only.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Protocol

from twisted_rtmp.limits import MemoryLimits
from twisted_rtmp.wire.limits import MIB

#: What a connection costs by itself, in bytes, with the objects and buffers of its
#: transport.  They are bounded by their number, so only the server is charged for it.
CONNECTION_BYTES = 16 * 1024

#: What a play or publication costs by itself, in bytes: its names, and its objects.
PLAY_BYTES = 4 * 1024

#: What a message costs besides its payload, in bytes.
MESSAGE_BYTES = 200

#: The parts of the server's bound from which on it is said that memory gets short, and
#: from which on newcomers are refused and what is not a publisher's is given up: the
#: rest is for what publishers are about to send.
NEARLY = 7 / 8
SHORT = 15 / 16

#: How much more than is needed is given up where a bound was passed, as a part of it,
#: and the smallest account that gives anything up, in bytes: so that accounts are not
#: searched for each further byte.
SLACK = 1 / 32
LEAST_BYTES = 32 * 1024


class Holder(Protocol):
    """Something whose memory is charged to an account."""

    @property
    def isPublishing(self) -> bool:
        """Whether others depend on it: it gives up after all that do not."""

    def giveUp(self, why: str) -> None:
        """
        Free what is kept, at once.

        @param why: for the log: C{"it takes 12.1 of 12 MiB of memory"}.
        """


class _Nobody:
    """The holder of what is not kept any more."""

    isPublishing = False

    def giveUp(self, why: str) -> None:
        """There is nothing to free."""


_NOBODY = _Nobody()


class Share:
    """
    One kind of what an account keeps.

    @ivar bytes: how much it is.
    """

    __slots__ = ("_account", "_forAddress", "bytes")

    def __init__(self, account: Account, *, forAddress: bool) -> None:
        self._account = account
        self._forAddress = forAddress
        self.bytes = 0

    def set(self, size: int) -> None:
        """
        Charge what is kept now, instead of what was before.

        If it is more, the holder, or another one, may have to give up before this
        returns.

        @param size: in bytes.
        """
        grown = size - self.bytes
        if grown:
            self.bytes = size
            self._account.grow(grown, forAddress=self._forAddress)


class Account:
    """
    What is kept for one connection or stream.

    @ivar holder: gives up what is kept.
    @ivar host: the address that it counts for; empty if for none.
    @ivar limit: its bound, in bytes.
    @ivar base: what the server is charged for it by itself, in bytes.
    @ivar bytes: all that is charged besides.
    @ivar addressBytes: the part that is charged to the address, too.
    """

    __slots__ = (
        "_budget",
        "_holds",
        "addressBytes",
        "base",
        "bytes",
        "holder",
        "host",
        "limit",
    )

    def __init__(
        self, budget: Budget, holder: Holder, limit: int, host: str, base: int
    ) -> None:
        self._budget = budget
        self.base = base
        self._holds = 1
        self.holder = holder
        self.host = host
        self.limit = limit
        self.bytes = 0
        self.addressBytes = 0

    def share(self, *, forAddress: bool = False) -> Share:
        """
        Keep something more.

        @param forAddress: whether the address is charged for it, too.
        """
        return Share(self, forAddress=forAddress)

    def grow(self, size: int, *, forAddress: bool) -> None:
        """Charge more, or less, than before."""
        if self._holds:
            self.bytes += size
            if forAddress:
                self.addressBytes += size
            self._budget.grown(self, size, size if forAddress else 0)

    def moveTo(self, host: str) -> None:
        """Count for another address, that a proxy has told of."""
        size = self.addressBytes
        self._budget.addressGrown(self.host, -size)
        self.host = host
        self._budget.addressGrown(host, size)

    def hold(self) -> None:
        """Keep the account open until one more L{close}."""
        self._holds += 1

    def close(self) -> None:
        """Charge nothing any more, if nobody else holds the account."""
        if self._holds:
            self._holds -= 1
            if not self._holds:
                self._budget.closed(self)
                self.holder = _NOBODY  # which has this account: no circle is left


class Budget:
    """
    The memory of one server.

    @ivar limits: the bounds.
    @ivar used: bytes that are charged.
    @ivar most: the most that has ever been charged, in bytes.
    @ivar gaveUp: how often an account had to give up.
    """

    def __init__(
        self,
        limits: MemoryLimits | None = None,
        getsShort: Callable[[], object] = lambda: None,
    ) -> None:
        """@param getsShort: called when little is left, and was not before."""
        self.limits = limits or MemoryLimits()
        self.used = 0
        self.most = 0
        self.gaveUp = 0
        self._getsShort = getsShort
        self._isShort = False
        self._accounts: dict[Account, None] = {}
        self._addresses: dict[str, int] = {}
        # How much was used when a search for somebody to give up found nobody.
        self._searchedAt = 0
        self._searching = False

    def connection(self, holder: Holder, host: str, limit: int = 0) -> Account:
        """
        Open the account of a connection.

        @param host: its address; see L{hostOf<twisted_rtmp.live.addresses.hostOf>}.
        @param limit: what its other limits let it keep, in bytes: if that is more than
            a connection's bound, it is the bound.
        """
        limit = max(limit, self.limits.connectionBytes)
        return self._open(Account(self, holder, limit, host, CONNECTION_BYTES))

    def stream(self, holder: Holder, limit: int = 0) -> Account:
        """
        Open the account of a stream.

        @param limit: its bound, in bytes; L{MemoryLimits.streamBytes} by default.
        """
        limit = limit or self.limits.streamBytes
        return self._open(Account(self, holder, limit, "", 0))

    def _open(self, account: Account) -> Account:
        self._accounts[account] = None
        self._use(account.base)
        return account

    def closed(self, account: Account) -> None:
        """Forget an account, and all that was charged to it."""
        del self._accounts[account]
        self.addressGrown(account.host, -account.addressBytes)
        self.used -= account.bytes + account.base
        self._relax()

    @property
    def isFull(self) -> bool:
        """Whether newcomers are to be refused."""
        return self.used > self.limits.serverBytes * SHORT

    def ofAddress(self, host: str) -> int:
        """Tell how much is charged to an address, in bytes."""
        return self._addresses.get(host, 0)

    def addresses(self, most: int) -> list[tuple[str, int]]:
        """List the addresses to which the most is charged, with the bytes."""
        return heapq.nlargest(most, self._addresses.items(), key=lambda item: item[1])

    # What accounts tell

    def grown(self, account: Account, size: int, addressSize: int) -> None:
        """An account has grown, or shrunk."""
        self._use(size)
        if addressSize:
            self.addressGrown(account.host, addressSize)
        if size <= 0:
            self._relax()
            return
        if account.bytes > account.limit:
            self._letGiveUp(account, _tooMuch("it takes", account.bytes, account.limit))
        limits = self.limits
        if addressSize and self.ofAddress(account.host) > limits.addressBytes:
            self._relieveAddress(account.host)
        if self.used > limits.serverBytes * SHORT:
            self._relieve()

    def addressGrown(self, host: str, size: int) -> None:
        """What is charged to an address has grown, or shrunk."""
        if host and size:
            now = self._addresses.get(host, 0) + size
            if now:
                self._addresses[host] = now
            else:
                self._addresses.pop(host, None)

    def _use(self, size: int) -> None:
        self.used += size
        if self.used > self.most:
            self.most = self.used
        if not self._isShort and self.used > self.limits.serverBytes * NEARLY:
            self._isShort = True
            self._getsShort()

    def _relax(self) -> None:
        """Note that there is more room again."""
        self._searchedAt = min(self._searchedAt, self.used)
        if self._isShort and self.used < self.limits.serverBytes * (NEARLY - SLACK):
            self._isShort = False

    # Who gives up

    def _relieveAddress(self, host: str) -> None:
        """Let the largest accounts of an address give up."""
        limit = self.limits.addressBytes
        why = _tooMuch("its address takes", self.ofAddress(host), limit)
        accounts = [a for a in self._accounts if a.host == host and a.addressBytes]
        accounts.sort(key=lambda a: (a.holder.isPublishing, -a.addressBytes))
        for account in accounts:
            if self.ofAddress(host) <= limit * (1 - SLACK):
                break
            self._letGiveUp(account, why)

    def _relieve(self) -> None:
        """Let the largest accounts give up; publishers only at the bound itself."""
        limit = self.limits.serverBytes
        if self._searching or self.used < self._searchedAt + limit * SLACK / 4:
            return
        self._searching = True
        try:
            self._giveUpDownTo(limit * (SHORT - SLACK), publishers=False)
            if self.used > limit:
                self._giveUpDownTo(limit * (1 - SLACK), publishers=True)
        finally:
            self._searching = False
            self._searchedAt = self.used if self.isFull else 0

    def _giveUpDownTo(self, size: float, *, publishers: bool) -> None:
        """
        Let accounts give up, the largest first.

        @param size: what may be left in use, in bytes.
        """
        accounts = [
            account
            for account in self._accounts
            if account.bytes >= LEAST_BYTES
            and (publishers or not account.holder.isPublishing)
        ]
        accounts.sort(key=lambda account: account.bytes, reverse=True)
        why = _tooMuch("all peers take", self.used, self.limits.serverBytes)
        for account in accounts:
            if self.used <= size:
                break
            self._letGiveUp(account, why)

    def _letGiveUp(self, account: Account, why: str) -> None:
        if account in self._accounts:  # another one's end may have been its own
            self.gaveUp += 1
            account.holder.giveUp(why)


def _tooMuch(what: str, size: int, limit: int) -> str:
    """Say that a bound is passed, or almost."""
    return f"{what} {size / MIB:.1f} of {limit / MIB:g} MiB of memory"
