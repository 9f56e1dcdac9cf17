"""Places for recordings: the number of them that may be unfinished."""

from __future__ import annotations

from collections import Counter

from twisted_rtmp.limits import RECORDING_SHARE, RECORDINGS


class Places:
    """
    The places that recordings of a server share.

    @ivar limit: how many there are.
    @ivar limitPerAddress: how many of them one address may have.
    @ivar taken: how many are taken.
    """

    def __init__(
        self, limit: int = RECORDINGS, addressShare: float = RECORDING_SHARE
    ) -> None:
        """@param addressShare: the share of all that one address may have."""
        self.limit = limit
        self.limitPerAddress = max(1, int(limit * addressShare))
        self.taken = 0
        self._taken: Counter[str] = Counter()

    def take(self, host: str) -> str | None:
        """
        Take a place.

        @param host: the address that it counts for; empty for none.
        @return: L{None}, or why there is none.
        """
        if self.taken >= self.limit:
            return f"{self.limit} recordings are unfinished"
        if host and self._taken[host] >= self.limitPerAddress:
            return f"{self.limitPerAddress} recordings of {host} are unfinished"
        self.taken += 1
        self._taken[host] += 1
        return None

    def leave(self, host: str) -> None:
        """Give a place back."""
        self.taken -= 1
        self._taken[host] -= 1
        if not self._taken[host]:
            del self._taken[host]
