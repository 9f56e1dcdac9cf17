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
import math
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
        """Tell whether others depend on it: it gives up after all others."""

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
        returns.  Half a microsecond, since it is done for most reads.

        @param size: in bytes.
        """
        grown = size - self.bytes
        self.bytes = size
        account = self._account
        if not account.holds:
            return
        account.bytes += grown
        budget = account.budget
        budget.used += grown
        if self._forAddress:
            account.addressBytes += grown
            address = account.address
            address.bytes += grown
            if address.bytes > address.limit and grown > 0:
                budget.relieveAddress(address)
        if grown > 0:
            if account.bytes > account.limit or budget.used > budget.mark:
                budget.grown(account)
        elif budget.used < budget.relaxedAt:
            budget.relax()


class _Address:
    """
    The memory kept for the connections of one address.

    @ivar host: see L{hostOf<twisted_rtmp.live.addresses.hostOf>}.
    @ivar limit: its bound, in bytes.
    @ivar bytes: how much it is.
    @ivar accounts: how many there are.
    """

    __slots__ = ("accounts", "bytes", "host", "limit")

    def __init__(self, host: str, limit: float) -> None:
        self.host = host
        self.limit = limit
        self.bytes = 0
        self.accounts = 0


class Account:
    """
    The memory that is kept for one connection or stream.

    @ivar budget: what it is a part of.
    @ivar holder: gives up what is kept.
    @ivar limit: its bound, in bytes.
    @ivar base: what the server is charged for it by itself, in bytes.
    @ivar address: what it counts for.
    @ivar bytes: all that is charged besides the base.
    @ivar addressBytes: the part that is charged to the address, too.
    @ivar holds: for how many it is open.
    """

    __slots__ = (
        "address",
        "addressBytes",
        "base",
        "budget",
        "bytes",
        "holder",
        "holds",
        "limit",
    )

    def __init__(
        self, budget: Budget, holder: Holder, limit: int, address: _Address, base: int
    ) -> None:
        self.budget = budget
        self.holder = holder
        self.limit = limit
        self.base = base
        self.address = address
        self.bytes = 0
        self.addressBytes = 0
        self.holds = 1

    def share(self, *, forAddress: bool = False) -> Share:
        """
        Keep something more.

        @param forAddress: whether the address is charged for it, too.
        """
        return Share(self, forAddress=forAddress)

    def moveTo(self, host: str) -> None:
        """Count for another address, that a proxy has told of."""
        if self.holds:
            self.budget.leaveAddress(self)
            self.budget.enterAddress(self, host)

    def hold(self) -> None:
        """Keep the account open until one more L{close}."""
        self.holds += 1

    def close(self) -> None:
        """Charge nothing any more, if nobody else holds the account."""
        if self.holds:
            self.holds -= 1
            if not self.holds:
                self.budget.closed(self)
                self.holder = _NOBODY  # which has this account: no circle is left


class Budget:
    """
    The memory of one server.

    @ivar limits: the bounds.
    @ivar used: bytes that are charged.
    @ivar gaveUp: how often an account had to give up.
    @ivar mark: from how many bytes on there is something to do.
    @ivar relaxedAt: below how many bytes there is nothing to do any more.
    """

    def __init__(
        self,
        limits: MemoryLimits | None = None,
        getsShort: Callable[[], object] = lambda: None,
    ) -> None:
        """@param getsShort: called when little is left, and was not before."""
        self.limits = limits or MemoryLimits()
        self.used = 0
        self.gaveUp = 0
        self.mark = self.limits.serverBytes * NEARLY
        self.relaxedAt = -1.0
        self._getsShort = getsShort
        self._accounts: dict[Account, None] = {}
        self._addresses: dict[str, _Address] = {}
        # Of streams, and of peers without an address.
        self._nowhere = _Address("", math.inf)
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
        return self._open(holder, limit, host, CONNECTION_BYTES)

    def stream(self, holder: Holder, limit: int = 0) -> Account:
        """
        Open the account of a stream.

        @param limit: its bound, in bytes; L{MemoryLimits.streamBytes} by default.
        """
        return self._open(holder, limit or self.limits.streamBytes, "", 0)

    def _open(self, holder: Holder, limit: int, host: str, base: int) -> Account:
        account = Account(self, holder, limit, self._nowhere, base)
        self._accounts[account] = None
        self.enterAddress(account, host)
        self.used += base
        if self.used > self.mark:
            self.grown(account)
        return account

    def closed(self, account: Account) -> None:
        """Forget an account, and all that was charged to it."""
        del self._accounts[account]
        self.leaveAddress(account)
        self.used -= account.bytes + account.base
        self.relax()

    def enterAddress(self, account: Account, host: str) -> None:
        """Let an account count for an address."""
        if not host:
            account.address = self._nowhere
            return
        address = self._addresses.get(host)
        if address is None:
            address = _Address(host, self.limits.addressBytes)
            self._addresses[host] = address
        account.address = address
        address.accounts += 1
        address.bytes += account.addressBytes

    def leaveAddress(self, account: Account) -> None:
        """Let an account count for its address no more."""
        address = account.address
        address.accounts -= 1
        address.bytes -= account.addressBytes
        if not address.accounts:
            self._addresses.pop(address.host, None)

    @property
    def isFull(self) -> bool:
        """Tell whether newcomers are to be refused."""
        return self.used > self.limits.serverBytes * SHORT

    def ofAddress(self, host: str) -> int:
        """Tell how much is charged to an address, in bytes."""
        address = self._addresses.get(host)
        return 0 if address is None else address.bytes

    def addresses(self, most: int) -> list[tuple[str, int]]:
        """List the addresses to which the most is charged, with the bytes."""
        largest = heapq.nlargest(
            most, self._addresses.values(), key=lambda address: address.bytes
        )
        return [(address.host, address.bytes) for address in largest if address.bytes]

    # What shares tell

    def grown(self, account: Account) -> None:
        """Look after an account that is past its bound, or one of the server's."""
        if account.bytes > account.limit:
            self._letGiveUp(account, _tooMuch("it takes", account.bytes, account.limit))
        serverBytes = self.limits.serverBytes
        if self.relaxedAt < 0 and self.used > serverBytes * NEARLY:
            self.relaxedAt = serverBytes * (NEARLY - SLACK)
            self._getsShort()
        if self.used > serverBytes * SHORT:
            self._relieve()

    def relax(self) -> None:
        """Note that there may be more room again."""
        self._searchedAt = min(self._searchedAt, self.used)
        if self.used < self.relaxedAt:
            self.relaxedAt = -1.0

    # Who gives up

    def relieveAddress(self, address: _Address) -> None:
        """Let the largest accounts of an address give up."""
        why = _tooMuch("its address takes", address.bytes, address.limit)
        accounts = [
            each
            for each in self._accounts
            if each.address is address and each.addressBytes
        ]
        accounts.sort(key=lambda each: (each.holder.isPublishing, -each.addressBytes))
        for account in accounts:
            if address.bytes <= address.limit * (1 - SLACK):
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


def _tooMuch(what: str, size: int, limit: float) -> str:
    """Say that a bound is passed, or almost."""
    return f"{what} {size / MIB:.1f} of {limit / MIB:g} MiB of memory"
