"""What publishers have sent is read before the server stops, within a time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from twisted_rtmp.live.lastreads import (
    LAST_LOOK_SECONDS,
    LAST_READ_SECONDS,
    LastReads,
)


def feeding(name, *, unread):
    publisher = SimpleNamespace(unread=unread, peer=name)
    return SimpleNamespace(label=f"live/{name}", publisher=publisher)


class Stop:
    """A stop of a server with some streams."""

    def __init__(self, clock, *streams):
        self.clock = clock
        self.streams = list(streams)
        self.left = []
        self.done = []
        reads = LastReads(clock, lambda: self.streams, self._letGo)
        reads.start().addCallback(self.done.append)

    def _letGo(self, publisher):
        self.left.append(publisher.peer)
        self.streams = [s for s in self.streams if s.publisher is not publisher]


def test_withNothingLeftItIsDoneAtOnce(clock):
    stop = Stop(clock, feeding("a", unread=False), feeding("b", unread=False))
    assert stop.left == ["a", "b"]
    assert stop.done == [None]
    assert not clock.getDelayedCalls()


def test_eachGoesWhenItIsRead(clock):
    a, b, c = (feeding(name, unread=name != "b") for name in "abc")
    stop = Stop(clock, a, b, c)
    assert stop.left == ["b"]
    c.publisher.unread = False
    clock.advance(LAST_LOOK_SECONDS)
    assert stop.left == ["b", "c"]
    assert stop.done == []
    a.publisher.unread = False
    clock.advance(LAST_LOOK_SECONDS)
    assert stop.left == ["b", "c", "a"]
    assert stop.done == [None]
    assert not clock.getDelayedCalls()


def test_oneThatIsNeverReadIsLetGoWithAWord(clock, lines):
    stop = Stop(clock, feeding("a", unread=True))
    for _ in range(round(LAST_READ_SECONDS / LAST_LOOK_SECONDS) + 1):
        clock.advance(LAST_LOOK_SECONDS)
    assert stop.left == ["a"]
    assert stop.done == [None]
    [line] = [line for line in lines if "live/a" in line]
    assert "the last bytes that a has sent are lost" in line
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("leaves", [True, False])
def test_aStreamWithoutItsPublisherIsNotWaitedFor(clock, leaves):
    stream = feeding("a", unread=True)
    stop = Stop(clock, stream)
    if leaves:
        stop.streams.clear()
    else:
        stream.publisher = None
    clock.advance(LAST_LOOK_SECONDS)
    assert stop.left == []
    assert stop.done == [None]
