"""Turns: nobody's jobs wait for all that somebody else has to do."""

from __future__ import annotations

from twisted_rtmp.disk.turns import Turns


def taken(turns, count=None):
    """Take jobs: all of them, or so many."""
    jobs = []
    while turns and (count is None or len(jobs) < count):
        jobs.append(turns.take()[1])
    return jobs


def test_eachPartysJobsStayInOrder():
    turns = Turns()
    for number in range(20):
        turns.add(number % 3, 1 + number % 2, number)
    jobs = taken(turns)
    assert sorted(jobs) == list(range(20))
    for party in range(3):
        own = [job for job in jobs if job % 3 == party]
        assert own == sorted(own)
    assert not turns
    assert turns.take() is None


def test_aFloodDelaysNobodyElse():
    turns = Turns()
    for number in range(10_000):
        turns.add("flood", 10, number)
    served = []
    for number in range(100):
        turns.add("honest", 1, f"honest{number}")
        served += taken(turns, 3)
    assert [job for job in served if isinstance(job, str)] == [
        f"honest{number}" for number in range(100)
    ]


def test_turnsAreByCostAndNotByNumber():
    turns = Turns()
    for number in range(1000):
        turns.add("large", 1000, ("large", number))
        turns.add("small", 10, ("small", number))
    parties = [party for party, _ in taken(turns, 505)]
    assert 4 <= parties.count("large") <= 6


def test_oneThatWasIdleHasSavedNothingUp():
    turns = Turns()
    turns.add("other", 1, "first")
    for number in range(1000):
        turns.add("busy", 1, number)
    taken(turns, 900)
    for number in range(200):
        turns.add("idle", 1, f"idle{number}")
    served = taken(turns, 100)
    assert 40 <= sum(isinstance(job, str) for job in served) <= 60


def test_thoseWhoAreDoneAreForgotten():
    turns = Turns()
    for number in range(100):
        turns.add("flood", 1e9, number)
    for number in range(10_000):
        turns.add(f"peer{number}", 1, "job")
        turns.take()
    assert len(turns._parties) < 1000
    assert len(taken(turns)) == 100
    assert len(turns._parties) == 0
