"""Memory that is given back after a peak."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Iterator

import pytest
from twisted.internet.testing import MemoryReactorClock

from twisted_rtmp.freeing import (
    FALLEN_BYTES,
    LOOK_SECONDS,
    LOOKS,
    NUMBERS,
    MemoryFreeing,
    collect,
    roomForNumbers,
    trim,
)
from twisted_rtmp.wire.limits import MIB


class Peers:
    """What peers take, as a test says."""

    def __init__(self) -> None:
        self.used = 0
        self.trims = 0
        self.reactor = MemoryReactorClock()
        self.service = MemoryFreeing(self.reactor, lambda: self.used, self.trim)

    def trim(self) -> None:
        self.trims += 1

    def take(self, size: int) -> int:
        """Take so many bytes from here on: how often memory was given back since."""
        self.used = size
        before = self.trims
        for _ in range(LOOKS):
            self.reactor.advance(LOOK_SECONDS)
        return self.trims - before


@pytest.fixture
def peers() -> Iterator[Peers]:
    peers = Peers()
    peers.service.startService()
    peers.reactor.run()
    yield peers
    peers.service.stopService()
    gc.unfreeze()
    assert not peers.reactor.getDelayedCalls()


def test_memoryIsGivenBackOnceAPeakIsOver(peers: Peers) -> None:
    assert peers.take(160 * MIB) == 0
    assert peers.take(100 * MIB) == 0
    assert peers.take(79 * MIB) == 1
    assert peers.take(79 * MIB) == 0
    assert peers.take(0) == 1
    assert peers.take(0) == 0


def test_whatFallsAndRisesIsNoPeak(peers: Peers) -> None:
    """As the GOPs of streams that began together do."""
    for look in range(10 * LOOKS):
        peers.used = 0 if look % LOOKS else 100 * MIB
        peers.reactor.advance(LOOK_SECONDS)
    assert peers.trims == 0
    assert peers.take(0) == 1


def test_aFewConnectionsAreNoPeak(peers: Peers) -> None:
    for _ in range(10):
        assert peers.take(FALLEN_BYTES - 1) == 0
        assert peers.take(0) == 0


def test_garbageIsNotSearchedForWhileManyAreThere(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    collections: list[None] = []
    monkeypatch.setattr(gc, "collect", lambda: collections.append(None))
    peers.take(1000 * MIB)
    assert peers.take(400 * MIB) == 1
    assert not collections
    assert peers.take(10 * MIB) == 1
    assert len(collections) == 1


def test_allIsReadyBeforeAnythingListens() -> None:
    """The collection of garbage takes some dozens of milliseconds."""
    peers = Peers()
    peers.service.privilegedStartService()
    frozen = gc.get_freeze_count()
    assert frozen > 0
    peers.service.startService()
    peers.reactor.run()
    assert gc.get_freeze_count() == frozen
    peers.service.stopService()
    gc.unfreeze()


def test_nothingIsLookedForBeforeTheReactorRuns() -> None:
    """Nor if the service was stopped by then."""
    peers = Peers()
    peers.service.startService()
    peers.service.stopService()
    peers.reactor.run()
    assert not peers.reactor.getDelayedCalls()


def test_theLibraryCanBeAsked() -> None:
    trim()


def test_noNameOfAnAttributeIsKept() -> None:
    """Each would keep a MiB of memory around it."""
    names = [f"{part}attribute" for part in range(100)]
    counts = [sys.getrefcount(name) for name in names]
    assert not any(map(hasattr, [collect] * len(names), names))
    collect()
    assert [sys.getrefcount(name) for name in names] == counts


def test_numbersOfAPeakLieInTheirRoom(capfd: pytest.CaptureFixture[str]) -> None:
    """They take none of the memory that is given back after it."""
    if not hasattr(sys, "_debugmallocstats"):
        pytest.skip("this Python does not tell of its memory")

    def pools() -> int:
        sys._debugmallocstats()
        found = re.search(r"^ +\d+ +32 +(\d+) ", capfd.readouterr().err, re.MULTILINE)
        if found is None:
            pytest.skip("this Python has no pools for objects of 32 bytes")
        return int(found[1])

    room = roomForNumbers()
    before = pools()
    numbers = [float(number) for number in range(NUMBERS * 9 // 10)]
    assert pools() == before
    assert room
    assert numbers
