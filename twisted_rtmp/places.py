"""Places: how many files, or children, the streams of a server may have at a time."""

from __future__ import annotations

from collections import Counter


class Places:
    """
    The places that the streams of a server share.

    @ivar limit: how many there are.
    @ivar limitPerAddress: how many of them one address may have.
    @ivar taken: how many are taken.
    """

    def __init__(self, things: str, limit: int, addressShare: float) -> None:
        """
        @param things: what there is in a place, in words for the log.
        @param addressShare: the share of all that one address may have.
        """
        self.limit = limit
        self.limitPerAddress = max(1, int(limit * addressShare))
        self.taken = 0
        self._things = things
        self._taken: Counter[str] = Counter()

    def take(self, host: str) -> str | None:
        """
        Take a place.

        @param host: the address that it counts for; empty for none.
        @return: L{None}, or why there is none.
        """
        if self.taken >= self.limit:
            return f"there are {self.limit} {self._things}"
        if host and self._taken[host] >= self.limitPerAddress:
            return f"there are {self.limitPerAddress} {self._things} of {host}"
        self.taken += 1
        self._taken[host] += 1
        return None

    def leave(self, host: str) -> None:
        """Give a place back."""
        self.taken -= 1
        self._taken[host] -= 1
        if not self._taken[host]:
            del self._taken[host]
