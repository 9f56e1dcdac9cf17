"""States and the table of what may follow them."""

from __future__ import annotations

from enum import Enum

import pytest

from twisted_rtmp.states import Stateful


class Light(Enum):
    RED = "red"
    GREEN = "green"
    BROKEN = "broken"


TRANSITIONS = {
    Light.RED: {Light.GREEN, Light.BROKEN},
    Light.GREEN: {Light.RED, Light.BROKEN},
    Light.BROKEN: set(),
}


class Lamp(Stateful[Light]):
    transitions = TRANSITIONS

    def __init__(self) -> None:
        self.state = Light.RED

    def turn(self, light: Light) -> None:
        self._enter(light)


def test_aStateIsFollowedByThoseOfTheTable():
    lamp = Lamp()
    lamp.turn(Light.GREEN)
    lamp.turn(Light.RED)
    lamp.turn(Light.BROKEN)
    assert lamp.state is Light.BROKEN


def test_anyOtherStateIsABugThatNamesBoth():
    lamp = Lamp()
    lamp.turn(Light.BROKEN)
    with pytest.raises(AssertionError, match=r"Light\.BROKEN must .* Light\.GREEN"):
        lamp.turn(Light.GREEN)
    assert lamp.state is Light.BROKEN
