"""States that follow each other as a table allows, and change in one place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from typing import Generic, TypeVar

_State = TypeVar("_State", bound=Enum)


class Stateful(Generic[_State]):
    """
    An object that is in one state at a time, and changes it by L{_enter} only.

    @cvar transitions: the states that may follow each state.
    @ivar state: the present one; a subclass sets the first.
    """

    transitions: Mapping[_State, Collection[_State]]
    state: _State

    def _enter(self, state: _State) -> None:
        """
        Change the state; extend this to act on a change.

        @raise AssertionError: the table does not allow it, which is a bug.
        """
        if state not in self.transitions[self.state]:
            raise AssertionError(f"{self.state} must not be followed by {state}")
        self.state = state
