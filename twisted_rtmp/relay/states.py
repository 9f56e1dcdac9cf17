"""The states and the figures of relays."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class RelayState(Enum):
    """The present activity of a relay."""

    IDLE = "not started"
    CONNECTING = "connecting"
    EXPECTING = "waiting for the stream to start"
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


@dataclass
class RelayCounters:
    """
    The figures of a relay.

    @ivar attempts: connections that were tried.
    @ivar refused: attempts to which the other end said no.
    @ivar reconnects: attempts that succeeded after an earlier one had.
    @ivar moves: reconnect requests of the other end that were obeyed.
    @ivar messages: audio, video and data messages relayed.
    @ivar relayedBytes: bytes of these, as they were sent or received.
    @ivar dropped: messages that could not be relayed.
    @ivar droppedBytes: bytes of their payloads.
    """

    attempts: int = 0
    refused: int = 0
    reconnects: int = 0
    moves: int = 0
    messages: int = 0
    relayedBytes: int = 0
    dropped: int = 0
    droppedBytes: int = 0

    def add(self, other: RelayCounters) -> None:
        """Add another relay's figures."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
