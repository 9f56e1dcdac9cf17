"""Places: one address cannot have all the files that may be recorded to."""

from __future__ import annotations

import pytest
from recordingkit import LogLines, World, audio, gop, headOf, play

from twisted_rtmp.recording.recordings import recordingPlaces


@pytest.fixture
def lines():
    with LogLines("twisted_rtmp.recording") as log:
        yield log.lines


def world(folder, *, limit=8, share=0.5, **options):
    return World(folder, places=recordingPlaces(limit, share), **options)


def begin(world, host, number):
    stream = world.stream(name=f"{host}-{number}")
    stream.publisher.host = host
    stream.messageReceived(audio(0))
    return stream


def test_anAddressHasItsShare(tmp_path, lines):
    here = world(tmp_path)
    flood = [begin(here, "192.0.2.7", number) for number in range(20)]
    honest = begin(here, "2001:db8::/64", 0)
    here.tick()
    assert len(here.paths()) == 5
    refusals = [line for line in lines if "not recorded" in line]
    assert len(refusals) == 1
    assert refusals[0].startswith(
        "live/192.0.2.7-4 is live but not recorded: there are 4 "
    )
    for stream in (*flood, honest):
        stream.end()
    assert [stream.ledger.lost for stream in flood] == [0] * 4 + [1] * 16
    assert flood[4].ledger.discarded == {"too many recordings": 1}
    assert honest.ledger.lost == 0
    assert here.recordings.refused == 16
    assert here.places.taken == 0


def test_allAddressesTogetherHaveABound(tmp_path, lines):
    here = world(tmp_path)
    streams = [begin(here, f"192.0.2.{number}", 0) for number in range(20)]
    here.tick()
    assert len(here.paths()) == 8
    assert any("there are 8 unfinished recordings" in line for line in lines)
    for stream in streams:
        stream.end()
    assert here.places.taken == 0


def test_aPlaceIsTakenUntilTheFileIsFinished(tmp_path):
    here = world(tmp_path, limit=1)
    first = begin(here, "192.0.2.7", 0)
    here.tick()
    here.pool.hung = True
    first.end()
    second = begin(here, "192.0.2.7", 1)
    assert second.ledger.discarded == {"too many recordings": 1}
    here.pool.hung = False
    here.pool.work()
    third = begin(here, "192.0.2.7", 2)
    third.end()
    assert third.ledger.lost == 0


def test_oneWithoutAPlaceIsRecordedOnceThereIsOne(tmp_path, lines):
    here = world(tmp_path, limit=1)
    first = begin(here, "192.0.2.7", 0)
    second = here.stream(name="second")
    play(second, gop(0))
    here.tick()
    first.end()
    for second10 in range(4):
        play(second, gop(3000 * second10))
        here.tick(3)
    play(second, gop(12_000))
    second.end()
    path = next(path for path in here.paths() if path.name.startswith("second"))
    assert headOf(path)["duration"] == pytest.approx(0.367)
    assert second.ledger.discarded == {"too many recordings": 100}
    assert here.places.taken == 0


def test_aRecordingKeepsItsPlaceWhenItIsCut(tmp_path):
    here = world(tmp_path, limit=1, rotateSeconds=1)
    stream = here.stream()
    for second in range(5):
        play(stream, gop(1000 * second, 25))
        here.tick(1)
    stream.end()
    assert len(here.paths()) == 5
    assert stream.ledger.lost == 0
    assert here.places.taken == 0
