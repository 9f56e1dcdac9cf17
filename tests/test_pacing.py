"""Reads and writes are gathered while there is much to do, and only then."""

from __future__ import annotations

import pytest

from twisted_rtmp.live.pacing import (
    BUSY_MESSAGES,
    LARGE_READ,
    LATENCY_SECONDS,
    TICK_BATCH,
    WINDOW_SECONDS,
    Pacer,
)


class Publisher:
    """A publisher that is to be read; what comes is called after it."""

    def __init__(self, name=b"", log=None):
        self.name = name
        self.calls = [] if log is None else log

    def holdPace(self):
        self.calls.append("hold")

    def readPaced(self):
        self.calls.append("read")
        return self.name

    def takePaced(self, data):
        assert data == self.name
        self.calls.append("take")


def busy(pacer, clock, publisher):
    """Make a pacer active by as many messages as it takes."""
    clock.advance(WINDOW_SECONDS)
    messages = int(BUSY_MESSAGES * WINDOW_SECONDS) + 1
    pacer.readDone(publisher, LARGE_READ, messages, clock.seconds(), 0.0, False)
    assert publisher.calls == []


def test_fewMessagesAreReadAtOnce(clock):
    pacer, publisher = Pacer(clock), Publisher()
    for _ in range(100):
        clock.advance(WINDOW_SECONDS / 10)
        messages = int(BUSY_MESSAGES * WINDOW_SECONDS / 10) - 1
        pacer.readDone(publisher, 1000, messages, clock.seconds(), 0.0, False)
    assert not pacer.active
    assert publisher.calls == []
    assert not clock.getDelayedCalls()


def test_manyMessagesWaitForTheTick(clock):
    pacer, one, other = Pacer(clock), Publisher(), Publisher()
    busy(pacer, clock, one)
    pacer.readDone(one, 1000, 1, clock.seconds(), 0.0, False)
    clock.advance(LATENCY_SECONDS / 2)
    pacer.readDone(other, 1000, 1, clock.seconds(), 0.0, False)
    assert (one.calls, other.calls) == (["hold"], ["hold"])
    clock.advance(LATENCY_SECONDS / 2)
    assert (one.calls, other.calls) == (["hold", "read"], ["hold", "read"])
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize(("size", "full"), [(LARGE_READ, False), (1000, True)])
def test_whoIsAheadIsReadOn(clock, size, full):
    pacer, publisher = Pacer(clock), Publisher()
    busy(pacer, clock, publisher)
    pacer.readDone(publisher, size, 1, clock.seconds(), 0.0, full)
    assert publisher.calls == []


def test_quietAgain(clock):
    pacer, publisher = Pacer(clock), Publisher()
    busy(pacer, clock, publisher)
    assert pacer.active
    clock.advance(WINDOW_SECONDS)
    pacer.readDone(publisher, 1000, 1, clock.seconds(), 0.0, False)
    assert not pacer.active
    assert publisher.calls == []


def test_off(clock):
    pacer, publisher = Pacer(clock, latency=0), Publisher()
    busy(pacer, clock, publisher)
    pacer.readDone(publisher, 1000, 1, clock.seconds(), 0.0, False)
    assert publisher.calls == []


def test_stopLetsEverybodyGo(clock):
    pacer, publisher = Pacer(clock), Publisher()
    busy(pacer, clock, publisher)
    pacer.readDone(publisher, 1000, 1, clock.seconds(), 0.0, False)
    pacer.stop()
    assert publisher.calls == ["hold", "read"]
    assert not clock.getDelayedCalls()
    clock.advance(WINDOW_SECONDS)
    for _ in range(2):
        pacer.readDone(publisher, 1000, 10**6, clock.seconds(), 0.0, False)
    assert not clock.getDelayedCalls(), "what comes then does not wait"


class Group:
    def __init__(self):
        self.flushes = 0

    def flush(self):
        self.flushes += 1


def test_whatAReadBringsIsSentAtItsEnd(clock):
    pacer, group, other = Pacer(clock), Group(), Group()
    pacer.readBegins()
    pacer.pending(group)
    pacer.pending(other)
    assert (group.flushes, other.flushes) == (0, 0)
    pacer.readEnds()
    assert (group.flushes, other.flushes) == (1, 1)
    pacer.readBegins()
    pacer.readEnds()
    assert group.flushes == 1
    assert not clock.getDelayedCalls()


def test_whatComesOtherwiseIsSentInTheNextTurn(clock):
    pacer, group = Pacer(clock), Group()
    pacer.pending(group)
    assert group.flushes == 0
    clock.advance(0)
    assert group.flushes == 1


def test_andWithinTheLatencyWhenThereIsMuchToDo(clock):
    pacer, group = Pacer(clock), Group()
    busy(pacer, clock, Publisher())
    pacer.pending(group)
    clock.advance(LATENCY_SECONDS / 2)
    pacer.pending(group)
    assert group.flushes == 0
    clock.advance(LATENCY_SECONDS / 2)
    assert group.flushes == 2
    assert not clock.getDelayedCalls()


def test_whatIsSentCountsToo(clock):
    pacer, publisher = Pacer(clock), Publisher()
    clock.advance(WINDOW_SECONDS)
    pacer.sent(int(BUSY_MESSAGES * WINDOW_SECONDS))
    pacer.readDone(publisher, 1000, 1, clock.seconds(), 0.0, False)
    assert pacer.active
    assert publisher.calls == ["hold"]


def test_stopSendsWhatIsGathered(clock):
    pacer, group = Pacer(clock), Group()
    pacer.pending(group)
    pacer.stop()
    assert group.flushes == 1
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("taken", "wait"),
    [
        (0.0, LATENCY_SECONDS),
        (LATENCY_SECONDS / 4, LATENCY_SECONDS * 3 / 4),
        (LATENCY_SECONDS * 3, LATENCY_SECONDS / 2),
    ],
)
def test_whatSendingTakesIsPartOfTheLatency(clock, taken, wait):
    pacer, publisher = Pacer(clock), Publisher()
    pacer.readDone(publisher, LARGE_READ, 1, clock.seconds(), taken, False)
    busy(pacer, clock, publisher)
    pacer.readDone(publisher, 1000, 1, clock.seconds(), 0.0, False)
    clock.advance(wait * 0.99)
    assert publisher.calls == ["hold"]
    clock.advance(wait * 0.02)
    assert publisher.calls == ["hold", "read"]


def test_aGroupThatFailsStopsNoOther(clock):
    class Failing(Group):
        def flush(self):
            raise ZeroDivisionError

    pacer, groups = Pacer(clock), [Group(), Failing(), Group()]
    pacer.readBegins()
    for group in groups:
        pacer.pending(group)
    with pytest.raises(ZeroDivisionError):
        pacer.readEnds()
    clock.advance(0)
    assert [groups[0].flushes, groups[2].flushes] == [1, 1]
    assert not clock.getDelayedCalls()


class Connection:
    def __init__(self, log):
        self.log = log

    def sendGathered(self):
        self.log.append("send")


def test_aTickReadsDispatchesAndSends(clock):
    """In turns of many publishers, each turn to its end."""
    log = []
    pacer = Pacer(clock)
    busy(pacer, clock, Publisher())

    class Played(Publisher):
        def takePaced(self, data):
            Publisher.takePaced(self, data)
            assert pacer.gathering
            pacer.gather(Connection(log))

    for _ in range(TICK_BATCH + 2):
        pacer.readDone(Played(b"media", log), 1000, 1, clock.seconds(), 0.0, False)
    del log[:]
    clock.advance(LATENCY_SECONDS)
    assert log == [
        *["read"] * TICK_BATCH,
        *["take"] * TICK_BATCH,
        *["send"] * TICK_BATCH,
        *["read"] * 2,
        *["take"] * 2,
        *["send"] * 2,
    ]
    assert not pacer.gathering
