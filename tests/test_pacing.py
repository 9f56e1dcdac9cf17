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
        self.paced = False
        self.isAhead = True
        self.took = []

    def holdPace(self):
        self.calls.append("hold")
        self.paced = True

    def readPaced(self):
        self.calls.append("read")
        return self.name

    def takePaced(self, data, now):
        assert data == self.name
        self.calls.append("take")
        if self.isAhead:
            self.paced = False
        return 1

    def tookLong(self, seconds):
        self.took.append(seconds)


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


def test_aTickReadsDispatchesAndSends(clock):
    """In turns of many publishers, each turn to its end."""
    log = []
    pacer = Pacer(clock)
    busy(pacer, clock, Publisher())

    class Playing(Group):
        def flush(self):
            log.append("send")

    class Played(Publisher):
        def takePaced(self, data, now):
            pacer.pending(Playing())
            return Publisher.takePaced(self, data, now)

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
    assert not clock.getDelayedCalls(), "the reactor reads all of them again"


def test_whoSendsOnIsReadAtEachTick(clock):
    """And by nobody else meanwhile: the reactor is not told of it each time."""
    pacer = Pacer(clock)
    busy(pacer, clock, Publisher())
    publisher = Publisher(b"media")
    publisher.isAhead = False
    pacer.readDone(publisher, 1000, 1, clock.seconds(), 0.0, False)
    for _ in range(3):
        clock.advance(LATENCY_SECONDS)
    assert publisher.calls == ["hold", *["read", "take"] * 3]
    publisher.name = b""
    clock.advance(LATENCY_SECONDS)
    clock.advance(LATENCY_SECONDS)
    assert publisher.calls[7:] == ["read"]
    assert not clock.getDelayedCalls()


def test_aGroupThatFailsInATickStopsNoPublisher(clock, loggedFailures):
    class Failing(Group):
        def flush(self):
            raise ZeroDivisionError

    class Played(Publisher):
        def takePaced(self, data, now):
            pacer.pending(Failing() if self is publishers[0] else Group())
            return Publisher.takePaced(self, data, now)

    pacer = Pacer(clock)
    busy(pacer, clock, Publisher())
    publishers = [Played(b"media") for _ in range(TICK_BATCH + 1)]
    for publisher in publishers:
        publisher.isAhead = False
        pacer.readDone(publisher, 1000, 1, clock.seconds(), 0.0, False)
    clock.advance(LATENCY_SECONDS)
    clock.advance(LATENCY_SECONDS)
    assert {tuple(each.calls) for each in publishers} == {
        ("hold", *("read", "take") * 2)
    }
    assert len(loggedFailures.take(ZeroDivisionError)) == 2


def test_whoTakesLongIsTold(clock):
    class Slow(Publisher):
        def takePaced(self, data, now):
            clock.rightNow += 0.03
            return Publisher.takePaced(self, data, now)

    pacer = Pacer(clock)
    busy(pacer, clock, Publisher())
    publishers = [Publisher(b"media"), Slow(b"media"), Publisher(b"media")]
    for publisher in publishers:
        pacer.readDone(publisher, 1000, 1, clock.seconds(), 0.0, False)
    clock.advance(LATENCY_SECONDS)
    assert [publisher.took for publisher in publishers] == [
        [],
        [pytest.approx(0.03)],
        [],
    ]
