"""Totals of a server since its start."""

from __future__ import annotations


class Counters:
    """
    Totals of a server's connections and streams since its start.

    @ivar accepted: connections.
    @ivar turnedAway: connections closed at once, at the limit of their number.
    @ivar refused: connect, publish and play requests refused.
    @ivar violations: connections closed for a protocol error.
    @ivar cut: connections closed at a deadline.
    @ivar strayMessages: media messages of peers that published nothing.
    @ivar takenOver: publishers closed in favour of a newcomer.
    @ivar continued: publishers that continued a stream within its grace.
    @ivar reconnectRequests: reconnect requests sent.
    @ivar linesLeftOut: log lines that would have been more than their peers had sent.
    """

    __slots__ = (
        "accepted",
        "continued",
        "cut",
        "linesLeftOut",
        "reconnectRequests",
        "refused",
        "strayMessages",
        "takenOver",
        "turnedAway",
        "violations",
    )

    def __init__(self) -> None:
        self.accepted = 0
        self.turnedAway = 0
        self.refused = 0
        self.violations = 0
        self.cut = 0
        self.strayMessages = 0
        self.takenOver = 0
        self.continued = 0
        self.reconnectRequests = 0
        self.linesLeftOut = 0

    def asDict(self) -> dict[str, int]:
        """Give all totals by name."""
        return {name: getattr(self, name) for name in self.__slots__}
