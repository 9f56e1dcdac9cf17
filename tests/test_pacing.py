"""Reads are gathered while many messages come, and only then."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from twisted_rtmp.pacing import (
    BUSY_MESSAGES,
    LARGE_READ,
    PACE_SECONDS,
    WINDOW_SECONDS,
    ReadPacer,
)


class Publisher:
    def __init__(self):
        self.calls = []

    def holdPace(self):
        self.calls.append("hold")

    def releasePace(self):
        self.calls.append("release")


@pytest.fixture
def clock():
    return Clock()


def busy(pacer, clock, publisher):
    """Make a pacer active by as many messages as it takes."""
    clock.advance(WINDOW_SECONDS)
    messages = int(BUSY_MESSAGES * WINDOW_SECONDS) + 1
    pacer.readDone(publisher, LARGE_READ, messages, clock.seconds(), False)
    assert publisher.calls == []


def test_fewMessagesAreReadAtOnce(clock):
    pacer, publisher = ReadPacer(clock), Publisher()
    for _ in range(100):
        clock.advance(WINDOW_SECONDS / 10)
        messages = int(BUSY_MESSAGES * WINDOW_SECONDS / 10) - 1
        pacer.readDone(publisher, 1000, messages, clock.seconds(), False)
    assert not pacer.active
    assert publisher.calls == []
    assert not clock.getDelayedCalls()


def test_manyMessagesWaitForTheTick(clock):
    pacer, one, other = ReadPacer(clock), Publisher(), Publisher()
    busy(pacer, clock, one)
    pacer.readDone(one, 1000, 1, clock.seconds(), False)
    clock.advance(PACE_SECONDS / 2)
    pacer.readDone(other, 1000, 1, clock.seconds(), False)
    assert (one.calls, other.calls) == (["hold"], ["hold"])
    clock.advance(PACE_SECONDS / 2)
    assert (one.calls, other.calls) == (["hold", "release"], ["hold", "release"])
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize(("size", "full"), [(LARGE_READ, False), (1000, True)])
def test_whoIsAheadIsReadOn(clock, size, full):
    pacer, publisher = ReadPacer(clock), Publisher()
    busy(pacer, clock, publisher)
    pacer.readDone(publisher, size, 1, clock.seconds(), full)
    assert publisher.calls == []


def test_quietAgain(clock):
    pacer, publisher = ReadPacer(clock), Publisher()
    busy(pacer, clock, publisher)
    assert pacer.active
    clock.advance(WINDOW_SECONDS)
    pacer.readDone(publisher, 1000, 1, clock.seconds(), False)
    assert not pacer.active
    assert publisher.calls == []


def test_off(clock):
    pacer, publisher = ReadPacer(clock, seconds=0), Publisher()
    busy(pacer, clock, publisher)
    pacer.readDone(publisher, 1000, 1, clock.seconds(), False)
    assert publisher.calls == []


def test_stopLetsEverybodyGo(clock):
    pacer, publisher = ReadPacer(clock), Publisher()
    busy(pacer, clock, publisher)
    pacer.readDone(publisher, 1000, 1, clock.seconds(), False)
    pacer.stop()
    assert publisher.calls == ["hold", "release"]
    assert not clock.getDelayedCalls()
