"""Recordings on a disk that refuses, hangs, or is full."""

from __future__ import annotations

import errno
import os
from itertools import pairwise

import pytest
from recordingkit import (
    MIB,
    LogLines,
    World,
    aacHeader,
    audio,
    avcHeader,
    gop,
    headOf,
    makeStream,
    metadata,
    play,
    readTags,
    video,
)

from twisted_rtmp.limits import STOP_SECONDS
from twisted_rtmp.recording import RecordingSettings


@pytest.fixture
def lines():
    with LogLines("twisted_rtmp.recording") as log:
        yield log.lines


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "record")


class Faults:
    """Makes writes fail."""

    def __init__(self, monkeypatch):
        self.number = 0
        self._writev = os.writev
        monkeypatch.setattr(os, "writev", self.writev)

    def writev(self, fd, buffers):
        if self.number:
            raise OSError(self.number, os.strerror(self.number))
        return self._writev(fd, buffers)


@pytest.fixture
def faults(monkeypatch):
    return Faults(monkeypatch)


def run(world, stream, start, seconds):
    """Send 25 frames a second and as many audio packets; a key frame each second."""
    for second in range(seconds):
        for message in gop(start + 1000 * second, 25):
            stream.messageReceived(message)
            world.tick(0.02)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "disk full"),
        (errno.EROFS, "disk read-only"),
        (errno.EFBIG, "file size limit"),
        (errno.EIO, "disk error"),
        (errno.EMFILE, "out of descriptors"),
    ],
)
def test_aDiskThatRefuses(world, faults, lines, number, reason):
    stream = world.stream()
    play(stream, [metadata(encoder="x"), avcHeader(), aacHeader()])
    run(world, stream, 0, 15)
    faults.number = number
    run(world, stream, 15_000, 35)
    assert stream.publisher.pauses == 0, "the live stream goes on"
    assert len(world.paths()) == 1, "files of nothing are removed"
    faults.number = 0
    run(world, stream, 50_000, 12)
    before = list(lines)
    stream.end()
    ledger = stream.ledger
    written = ledger.written["recording"]
    assert list(ledger.discarded) == [reason]
    assert ledger.lost + written.messages == ledger.received.messages
    first, second = [readTags(file.path) for file in world.finished]
    assert [t.payload for t in second[1:3]] == [
        avcHeader().payload,
        aacHeader().payload,
    ]
    assert second[3].payload[0] == 0x17
    # The headers of the second file are copies.
    assert len(first) - 1 + 1 + len(second) - 3 == written.messages
    assert headOf(world.finished[0].path)["duration"] == pytest.approx(15, abs=0.3)
    assert headOf(world.finished[1].path)["encoder"] == "x"
    # Lost while it refused, and until the next attempt and key frame.
    assert 35 * 50 <= ledger.lost <= 46 * 50 + 25
    troubles = [line for line in before if "Recording of" in line]
    assert 1 <= len(troubles) <= 6
    assert os.strerror(number) in troubles[0]
    assert world.finished[0].path in troubles[0]
    assert "continues in" in troubles[-1]
    assert world.recordings.failures >= 2


def test_linesAboutTroubleAreFarApart(world, faults, lines):
    stamps = []
    stream = world.stream()
    faults.number = errno.ENOSPC
    log = LogLines("twisted_rtmp.recording")
    log.lines = type(
        "", (), {"append": lambda _, s: stamps.append(world.clock.rightNow)}
    )()
    with log:
        run(world, stream, 0, 60)
    assert 5 <= len(stamps) <= 6
    steps = [b - a for a, b in pairwise(stamps)]
    assert min(steps) >= 10
    assert world.paths() == []


def test_aFileThatIsRemovedIsNoticed(world):
    stream = world.stream()
    run(world, stream, 0, 11)
    path = world.path()
    path.unlink()
    path.parent.rmdir()
    world.folder.rmdir()
    run(world, stream, 11_000, 5)
    stream.end()
    assert world.path() != path
    assert list(stream.ledger.discarded) == ["file removed"]
    assert stream.ledger.lost < 2.5 * 50
    assert headOf(world.path())["duration"] > 2


def test_aFolderThatCannotBeMade(tmp_path, lines):
    (tmp_path / "file").write_bytes(b"")
    world = World(tmp_path / "file" / "record")
    stream = world.stream()
    run(world, stream, 0, 2)
    stream.end()
    assert stream.ledger.received.messages == stream.ledger.lost == 100
    assert len(lines) == 1
    assert "Not a directory" in lines[0]
    assert world.finished == []


def test_freeSpaceIsKept(tmp_path, monkeypatch, lines):
    free = [1000]
    real = os.fstatvfs

    class Figures:
        f_frsize = MIB

        def __init__(self, fd):
            real(fd)
            self.f_bavail = free[0]

    monkeypatch.setattr(os, "fstatvfs", Figures)
    world = World(tmp_path, minFree=500 * MIB)
    stream = world.stream()
    run(world, stream, 0, 15)
    free[0] = 499
    run(world, stream, 15_000, 30)
    assert len(world.paths()) == 1
    free[0] = 500
    run(world, stream, 45_000, 12)
    stream.end()
    assert len(world.paths()) == 2
    ledger = stream.ledger
    assert list(ledger.discarded) == ["disk nearly full"]
    written = sum(len(readTags(path)) - 1 for path in world.paths())
    assert written == ledger.written["recording"].messages
    assert written + ledger.lost == ledger.received.messages
    assert "523239424 bytes free" in next(line for line in lines if "stopped" in line)


def test_withoutVideoRecordingGoesOnAtOnce(world, faults):
    stream = world.stream()
    for n in range(1000):
        faults.number = errno.ENOSPC if n == 900 else 0
        stream.messageReceived(audio(20 * n))
        world.tick(0.02 if n != 900 else 0.2)
    stream.end()
    assert len(world.finished) == 2
    assert stream.ledger.lost <= 12


def test_aDiskThatHangs(tmp_path, lines):
    world = World(tmp_path)
    stream = world.stream()
    play(stream, gop(0))
    world.tick()
    world.pool.hung = True
    start = world.clock.seconds()
    sent = 0
    while not stream.publisher.paused:
        sent += 1
        play(stream, [video(400 + sent, size=300_000)])
        world.tick(0.05)
        assert sent < 100
    assert sent * 300_000 < 10 * MIB
    assert stream.keptBytes > 0.8 * sent * 300_000, "it is charged for what waits"
    world.tick(9.8)
    assert stream.publisher.paused
    world.tick(0.3)
    assert not stream.publisher.paused
    assert world.clock.seconds() - start < 15
    assert "has stored nothing for 10 s" in lines[-1]
    # Goes on, counted, without more memory, and without a queue of attempts.
    before = world.pool.handOvers
    run(world, stream, 5000, 30)
    assert world.pool.handOvers == before
    assert stream.ledger.discarded == {"disk stalled": 1500}
    # The disk wakes up: all that was under way is in the file.
    world.pool.hung = False
    world.pool.work()
    assert stream.ledger.written["recording"].messages == 20 + sent
    run(world, stream, 35_000, 3)
    stream.end()
    assert len(world.finished) == 2
    assert len(readTags(world.finished[0].path)) == 1 + 20 + sent
    assert stream.keptBytes < MIB


def test_stop(world):
    streams = [world.stream(name=f"s{n}") for n in range(20)]
    for stream in streams:
        play(stream, gop(0))
    stopped = world.recordings.stop()
    assert stopped.called
    assert world.pool.stopped == 1
    assert len(world.finished) == 20
    for path in world.paths():
        assert headOf(path)["duration"] == pytest.approx(0.367)
    # The streams' own end comes after, or before; nothing is lost silently.
    streams[0].messageReceived(audio(1000))
    assert streams[0].ledger.discarded == {"not recording": 1}
    assert streams[0].end().called
    assert world.recordings.openSink(makeStream()) is None


def test_stopWithADiskThatHangs(world, lines):
    stream = world.stream()
    play(stream, gop(0))
    world.pool.hung = True
    stopped = world.recordings.stop()
    world.tick(STOP_SECONDS - 0.1)
    assert not stopped.called
    world.tick(0.2)
    assert stopped.called
    assert "1 recordings are left unfinished" in lines[-1]


def test_aFailingCallbackHarmsNothing(world, loggedFailures):
    world.recordings.finished.insert(0, lambda file: 1 / 0)
    stream = world.stream()
    stream.messageReceived(audio(0))
    assert stream.end().called
    assert len(world.finished) == 1
    assert len(loggedFailures.take(ZeroDivisionError)) == 1


def test_aHeadThatCannotBeWritten(world, lines, monkeypatch):
    stream = world.stream()
    play(stream, gop(0))
    world.tick()

    def pwrite(fd, data, offset):
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(os, "pwrite", pwrite)
    assert stream.end().called
    assert "I/O error" in lines[-1]
    assert not world.finished[0].finished
    assert len(readTags(world.path())) == 21


@pytest.mark.parametrize(
    "options",
    [{"rotateSeconds": 0}, {"rotateBytes": -1}, {"fsyncSeconds": 0}, {"name": "{x}"}],
)
def test_wrongOptions(tmp_path, options):
    with pytest.raises(ValueError, match=r"must be more than 0|fields must be"):
        RecordingSettings(str(tmp_path), **options)
