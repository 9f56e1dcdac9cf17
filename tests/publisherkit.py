"""A publisher for a live stream that no connection publishes."""

from __future__ import annotations


class StubPublisher:
    """
    A publisher that only notes whether it is held.

    @ivar calls: C{"pause"} and C{"resume"}, in turns.
    """

    peer = "here"
    host = "192.0.2.1"
    heard = 0.0
    unread = False

    def __init__(self, *, mayBeHeld: bool = True) -> None:
        """@param mayBeHeld: whether holding it is no error of what is tested."""
        self.calls: list[str] = []
        self._mayBeHeld = mayBeHeld

    @property
    def connection(self) -> object:
        return self

    @property
    def paused(self) -> bool:
        return self.calls[-1:] == ["pause"]

    @property
    def pauses(self) -> int:
        """How often it has been paused."""
        return self.calls.count("pause")

    def unpaid(self) -> int:
        return 0

    def pauseProducing(self) -> None:
        assert self._mayBeHeld, "the publisher is held"
        assert not self.paused
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        assert self.paused
        self.calls.append("resume")

    def takenOver(self) -> None:
        """Nothing is left to end."""
