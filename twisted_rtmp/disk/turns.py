"""Turns: the order in which jobs of several parties are done, so that none starves."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

#: Parties that are kept in mind before the idle ones are forgotten.
_KEPT_PARTIES = 64

_Job = TypeVar("_Job")


class _Party(Generic[_Job]):
    """
    One of those that take turns.

    @ivar due: how much must have been done for each before its next job's turn.
    """

    __slots__ = ("due", "jobs")

    def __init__(self) -> None:
        self.due = 0.0
        self.jobs: deque[tuple[float, _Job]] = deque()


class Turns(Generic[_Job]):
    """
    Jobs that wait for their turn: each party's in order, and of the parties that one
    first whose jobs have cost least.

    A party with little to do waits for hardly more than the job that is being done,
    however much the others have.  This is start-time fair queueing (P. Goyal, H. M.
    Vin and H. Cheng, SIGCOMM 1996).
    """

    def __init__(self) -> None:
        self._parties: dict[Hashable, _Party[_Job]] = {}
        self._waiting: list[tuple[float, int, _Party[_Job]]] = []
        self._numbers = count()
        self._now = 0.0
        self._count = 0
        self._prune = _KEPT_PARTIES

    def __len__(self) -> int:
        return self._count

    def add(self, party: Hashable, cost: float, job: _Job) -> None:
        """
        Add a job behind the others of its party.

        @param cost: how much it is, in any measure that is the same for all.
        """
        known = self._parties.get(party)
        if known is None:
            if len(self._parties) >= self._prune:
                self._forget()
            known = self._parties[party] = _Party()
        self._count += 1
        known.jobs.append((cost, job))
        if len(known.jobs) == 1:
            known.due = max(known.due, self._now)
            self._enqueue(known)

    def take(self) -> tuple[float, _Job] | None:
        """
        Take the next job.

        @return: its cost, and the job; L{None} if there is none.
        """
        if not self._waiting:
            return None
        self._count -= 1
        self._now, _, party = heappop(self._waiting)
        turn = party.jobs.popleft()
        party.due += turn[0]
        if party.jobs:
            self._enqueue(party)
        elif not self._waiting:
            self._parties.clear()
            self._now = 0.0
        return turn

    def _enqueue(self, party: _Party[_Job]) -> None:
        heappush(self._waiting, (party.due, next(self._numbers), party))

    def _forget(self) -> None:
        """Forget the parties that are idle, and what each has had."""
        self._parties = {
            name: party for name, party in self._parties.items() if party.jobs
        }
        self._prune = 2 * len(self._parties) + _KEPT_PARTIES
