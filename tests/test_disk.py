"""Ordered writes in a thread of their own, whatever the disk does."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import struct
from functools import partial

import pytest
from recordingkit import DiskClock, StepPool
from twisted.internet.interfaces import IConsumer
from zope.interface.verify import verifyObject

from twisted_rtmp import disk
from twisted_rtmp.disk import Disk, DiskFile, FileWriter
from twisted_rtmp.disk.file import IOV_MAX
from twisted_rtmp.disk.thread import FLUSH_SECONDS, REST_LOOK_SECONDS, TICK_SECONDS
from twisted_rtmp.disk.writer import ALL_HIGH_WATER, LEAST_HIGH_WATER, REST_SECONDS
from twisted_rtmp.wire.errors import UsageError
from twisted_rtmp.wire.limits import MIB


class Producer:
    def __init__(self):
        self.events = []

    def pauseProducing(self):
        self.events.append("pause")

    def resumeProducing(self):
        self.events.append("resume")

    def stopProducing(self):
        self.events.append("stop")


class Writing:
    """A file writer and what is around it."""

    def __init__(self, folder, **options):
        self.clock = DiskClock()
        self.pool = StepPool()
        self.disk = Disk(self.clock, self.pool)
        self.errors = []
        self.file = DiskFile(str(folder), ["file"])
        self.writer = FileWriter(self.disk, self.file, self.errors.append, **options)
        self.path = folder / "file"


@pytest.fixture
def writing(tmp_path):
    return Writing(tmp_path)


def test_writerIsAConsumer(writing):
    assert verifyObject(IConsumer, writing.writer)
    with pytest.raises(UsageError):
        writing.writer.registerProducer(Producer(), False)
    writing.writer.registerProducer(Producer(), True)
    with pytest.raises(UsageError):
        writing.writer.registerProducer(Producer(), True)


def test_aWriteIsOneBatch(writing):
    writing.writer.write(b"one ")
    assert writing.path.read_bytes() == b"one "
    writing.writer.writeSequence([b"two ", b"three"])
    assert writing.path.read_bytes() == b"one two three"
    assert writing.writer.waiting == 0
    assert writing.disk.handOvers == 2


def test_aTickHandsOverOnce(writing, tmp_path):
    others = [
        FileWriter(writing.disk, DiskFile(str(tmp_path), [f"f{n}"]), pytest.fail)
        for n in range(20)
    ]
    for second in range(5):
        for writer in others:
            writing.disk.wake(lambda writer=writer: writer.write(b"x"))
        writing.clock.advance(0.19)
        assert writing.pool.handOvers == second
        writing.clock.advance(0.02)
        assert writing.pool.handOvers == second + 1


def test_aTickThatTakesLongLeavesTheRestForLater(writing):
    """All else has its turn between, and each party has its own soon."""
    disk, clock = writing.disk, writing.clock
    called = []

    def flush(name):
        called.append(name)
        if len(called) % 10 == 1:
            clock.callLater(0, called.append, "all else")
        clock.rightNow += TICK_SECONDS / 9.5  # ten are just too long

    for number in range(100):
        disk.wake(partial(flush, f"many{number}"), "many")
    disk.wake(partial(flush, "one"), "one")
    clock.advance(FLUSH_SECONDS)
    assert "one" in called[:2], "it does not wait for all of the other's"
    for tick in range(9):
        assert called[tick * 11 + 10] == "all else"
    many = [name for name in called if name.startswith("many")]
    assert many == [f"many{number}" for number in range(100)]


def test_whatATickWakesIsForTheNext(writing):
    called = []

    def again():
        called.append(writing.clock.seconds())
        if len(called) < 3:
            writing.disk.wake(again)

    writing.disk.wake(again)
    for count in (1, 2, 3, 3):
        writing.clock.advance(FLUSH_SECONDS * 1.01)
        assert len(called) == count


def test_partOfAWriteIsGoneOnWith(writing, monkeypatch):
    chance = random.Random(3)
    calls = []
    write = os.write

    def writev(fd, buffers):
        assert len(buffers) <= IOV_MAX
        data = b"".join(buffers)
        calls.append(len(data))
        return write(fd, data[: chance.randrange(1, max(2, len(data) // 3))])

    monkeypatch.setattr(os, "writev", writev)
    buffers = [bytes([n % 251]) * chance.randrange(9) for n in range(3000)]
    writing.writer.writeSequence(buffers)
    writing.clock.advance(0.2)
    assert writing.path.read_bytes() == b"".join(buffers)
    assert len(calls) > 6


def test_manyBuffersAreWritten(writing):
    buffers = [struct.pack(">I", n) for n in range(5000)]
    writing.writer.writeSequence(buffers)
    writing.clock.advance(0.2)
    assert writing.path.read_bytes() == b"".join(buffers)


def test_aSlowDiskPausesTheProducer(tmp_path):
    writing = Writing(tmp_path, highWater=1000, lowWater=400)
    writing.pool.hung = True
    producer = Producer()
    writing.writer.registerProducer(producer, True)
    writing.writer.send([b"x" * 999], 999)
    assert producer.events == []
    writing.writer.send([b"x"], 1)
    assert producer.events == ["pause"]
    writing.clock.advance(9)
    writing.writer.send([b"x"], 1)
    writing.pool.work()
    assert producer.events == ["pause", "resume"]
    writing.clock.advance(10)
    assert writing.clock.getDelayedCalls() == []
    assert writing.errors == []


def test_allFilesTogetherHaveABound(tmp_path):
    """The fuller it gets, the less each may leave waiting; little is always taken."""
    writing = Writing(tmp_path)
    writing.pool.hung = True
    floods = []
    for number in range(400):
        file = DiskFile(str(tmp_path), [f"flood{number}"])
        writer = FileWriter(writing.disk, file, pytest.fail)
        producer = Producer()
        writer.registerProducer(producer, True)
        floods.append(producer)
        while not producer.events:
            writer.send([b""], MIB // 4)
        assert producer.events == ["pause"]
    assert writing.disk.waiting <= ALL_HIGH_WATER + 400 * LEAST_HIGH_WATER
    honest = Producer()
    writing.writer.registerProducer(honest, True)
    writing.writer.send([b"x"], LEAST_HIGH_WATER - 1)
    assert honest.events == []
    writing.pool.work()
    assert {tuple(producer.events) for producer in floods} == {("pause", "resume")}
    assert writing.disk.waiting == 0


def test_whatWaitsIsTold(tmp_path):
    kept = []
    writing = Writing(tmp_path, kept=kept.append)
    writing.pool.hung = True
    writing.writer.send([b"x" * 100], 100)
    writing.writer.send([b"x" * 50], 50)
    writing.pool.work()
    assert kept == [100, 150, 50, 0]


def test_aHungDiskIsGivenUp(tmp_path):
    writing = Writing(tmp_path, highWater=1000, lowWater=10)
    writing.pool.hung = True
    producer = Producer()
    writing.writer.registerProducer(producer, True)
    sent = writing.writer.send([b"x" * 1000], 1000)
    writing.clock.advance(5)
    writing.writer.send([b"x"], 1)
    writing.clock.advance(4.9)
    assert writing.errors == []
    writing.clock.advance(0.2)
    (error,) = writing.errors
    assert isinstance(error, disk.DiskStalled)
    assert producer.events == ["pause", "resume"]
    # What is under way may still arrive; nothing more is taken.
    writing.pool.work()
    assert sent.result is None
    assert writing.path.stat().st_size == 1001
    writing.writer.write(b"more")
    assert writing.writer.waiting == 0
    failure = []
    writing.writer.send([b"more"], 4).addErrback(failure.append)
    assert failure[0].check(disk.DiskStalled)


def test_progressIsNoStall(tmp_path, monkeypatch):
    writing = Writing(tmp_path, highWater=100, lowWater=10)
    writing.pool.hung = True
    producer = Producer()
    writing.writer.registerProducer(producer, True)
    for _ in range(4):
        writing.writer.send([b"x" * 50], 50)
    writev = os.writev

    def slow(fd, buffers):
        assert producer.events == ["pause"]
        writing.clock.advance(6)
        return writev(fd, buffers)

    monkeypatch.setattr(os, "writev", slow)
    writing.pool.work()
    assert writing.clock.seconds() == 24
    assert producer.events == ["pause", "resume"]
    assert writing.errors == []


def test_aFailedBatchLeavesNothing(writing, monkeypatch):
    writing.writer.send([b"whole"], 5, "mark")
    writev = os.writev
    calls = []

    def full(fd, buffers):
        calls.append(buffers)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return writev(fd, [b"".join(buffers)[:3]])

    monkeypatch.setattr(os, "writev", full)
    failures = []
    writing.writer.send([b"broken"], 6, "other").addErrback(failures.append)
    writing.writer.send([b"late"], 4).addErrback(failures.append)
    assert [failure.value.errno for failure in failures] == [errno.ENOSPC] * 2
    assert [error.errno for error in writing.errors] == [errno.ENOSPC]
    assert writing.path.read_bytes() == b"whole"
    closed = writing.writer.close(lambda size, mark, _: f"{size}{mark[:1]}".encode())
    assert closed.result is True
    assert writing.path.read_bytes() == b"5mole"


def test_namesThatAreTakenGetANumber(tmp_path):
    for expected in ("file.flv", "file-1.flv", "file-2.flv"):
        file = DiskFile(str(tmp_path), ["file"], suffix=".flv")
        file.append([expected.encode()])
        assert file.path == str(tmp_path / expected)
        file.finish(lambda size, mark, _: b"")
    assert (tmp_path / "file.flv").read_bytes() == b"file.flv"


def test_symbolicLinksAreNotFollowed(tmp_path):
    record, outside = tmp_path / "record", tmp_path / "outside"
    record.mkdir()
    outside.mkdir()
    (record / "live").symlink_to(outside)
    (record / "file.flv").symlink_to(outside / "new.flv")
    with pytest.raises(OSError, match="live is a symbolic link"):
        DiskFile(str(record), ["live", "x"]).append([b"x"])
    file = DiskFile(str(record), ["file"], suffix=".flv")
    file.append([b"x"])
    assert file.path == str(record / "file-1.flv")
    assert list(outside.iterdir()) == []
    (record / "plain").write_bytes(b"")
    with pytest.raises(OSError, match="plain is not a folder"):
        DiskFile(str(record), ["plain", "x"]).append([b"x"])


def test_aFileOfNothingIsRemoved(tmp_path, monkeypatch):
    def fail(fd, buffers):
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(os, "writev", fail)
    file = DiskFile(str(tmp_path), ["file"])
    with pytest.raises(OSError, match="I/O"):
        file.append([b"x"])
    assert not file.finish(lambda size, mark, _: b"head")
    assert list(tmp_path.iterdir()) == []


def test_theDiskIsWaitedForWhenAsked(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append, raising=False)
    writing = Writing(tmp_path, syncSeconds=5)
    for _ in range(100):
        writing.writer.write(b"x")
        writing.clock.advance(0.2)
    assert len(synced) == 3  # at 5, 10 and 15 of 20 s
    writing = Writing(tmp_path)
    for _ in range(100):
        writing.writer.write(b"x")
        writing.clock.advance(0.2)
    assert len(synced) == 3


def test_diskStops(writing):
    writing.writer.write(b"x")
    writing.clock.advance(0.2)
    assert writing.disk.stop().result is True
    assert writing.pool.stopped == 1
    failures = []
    writing.disk.run(lambda: 1).addErrback(failures.append)
    assert failures[0].check(disk.DiskStalled)


def test_aHungDiskIsNotWaitedForForEver(writing):
    writing.pool.hung = True
    writing.writer.send([b"x"], 1)
    stopped = writing.disk.stop(4)
    writing.clock.advance(3.9)
    assert not stopped.called
    writing.clock.advance(0.2)
    assert stopped.result is False
    assert writing.pool.stopped == 0
    writing.pool.work()  # nothing fails when it answers after all


def test_stopWaitsForWork(writing):
    writing.pool.hung = True
    writing.writer.send([b"x"], 1)
    writing.writer.close(lambda size, mark, _: b"")
    stopped = writing.disk.stop()
    assert not stopped.called
    writing.pool.work()
    assert stopped.result is True
    assert writing.clock.getDelayedCalls() == []


def test_filesTakeTurns(tmp_path):
    """A file with little to write does not wait for what others have to."""
    writing = Writing(tmp_path)
    writing.pool.hung = True
    order = []
    for name in ("first", "flood"):
        writer = FileWriter(writing.disk, DiskFile(str(tmp_path), [name]), pytest.fail)
        for number in range(100):
            sent = writer.send([b"x" * 1000], 1000)
            sent.addCallback(lambda _, job: order.append(job), (name, number))
    writing.writer.send([b"x"], 1).addCallback(lambda _: order.append("late"))
    writing.pool.work()
    assert len(order) == 201
    assert order.index("late") <= 2


def test_filesOfOnePartyShareItsTurns(tmp_path):
    writing = Writing(tmp_path)
    writing.pool.hung = True
    order = []
    for number in range(1000):
        file = DiskFile(str(tmp_path), [f"f{number}"])
        writer = FileWriter(writing.disk, file, pytest.fail, party="one")
        writer.send([b"x"], 1).addCallback(lambda _, n=number: order.append(n))
        writer.close(lambda size, mark, _: b"")
    writing.writer.send([b"x"], 1).addCallback(lambda _: order.append("late"))
    writing.pool.work()
    assert order.index("late") <= 2


def test_aBugIsToldToItsFileOnly(writing):
    writing.pool.hung = True
    failures = []
    writing.disk.run(lambda: 1 / 0).addErrback(failures.append)
    writing.writer.write(b"x")
    writing.pool.work()
    assert failures[0].check(ZeroDivisionError)
    assert writing.path.read_bytes() == b"x"


def descriptorsOf(path):
    """List the descriptors with which this process has a file open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/self/fd/{name}") == str(path):
                found.append(int(name))
    return found


needsProc = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="there is no /proc"
)


@needsProc
def test_aFileThatNothingIsWrittenToRests(writing):
    for _ in range(3):
        writing.writer.write(b"one ")
        writing.clock.advance(1.9)
        assert len(descriptorsOf(writing.path)) == 1
        writing.clock.advance(0.1 + REST_LOOK_SECONDS)
        assert descriptorsOf(writing.path) == []
        writing.clock.advance(3600)
    writing.writer.overwrite(b"two ", 4)
    assert writing.path.read_bytes() == b"one two one "
    writing.clock.advance(3600)
    assert writing.writer.close(lambda size, mark, _: b"ONE").result is True
    assert writing.path.read_bytes() == b"ONE two one "
    assert descriptorsOf(writing.path) == []
    assert writing.clock.getDelayedCalls() == []


@needsProc
def test_filesThatRestHaveOneTimer(writing, tmp_path):
    """Each of its own would turn the loop for nothing, hundreds of times a second."""
    others = [
        FileWriter(writing.disk, DiskFile(str(tmp_path), [f"f{n}"]), pytest.fail)
        for n in range(20)
    ]
    for writer in others:
        writer.write(b"x")
    assert len(writing.clock.getDelayedCalls()) == 1
    writing.clock.advance(REST_SECONDS + REST_LOOK_SECONDS)
    for n in range(20):
        assert descriptorsOf(tmp_path / f"f{n}.flv") == []
    assert writing.clock.getDelayedCalls() == []
    for writer in others:
        writer.write(b"x")
        assert writer.close(lambda size, mark, _: b"y").result is True
    assert writing.clock.getDelayedCalls() == []


@pytest.mark.parametrize("replaced", [False, True])
def test_aFileThatIsRemovedWhileItRestsIsNotWritten(writing, replaced):
    writing.writer.write(b"one")
    writing.clock.advance(5)
    if replaced:
        other = writing.path.with_name("other")
        other.write_bytes(b"another")
        other.rename(writing.path)
    else:
        writing.path.unlink()
    writing.writer.write(b"two")
    (error,) = writing.errors
    assert isinstance(error, disk.FileRemoved)
    if replaced:
        assert writing.path.read_bytes() == b"another"
    else:
        assert not writing.path.exists()


HOLE = 65536


def test_holesTakeNoSpace(writing):
    writing.writer.send([b"start", b"end"], 8, hole=HOLE)
    writing.writer.write(b"more")
    data = writing.path.read_bytes()
    assert data == b"start" + bytes(HOLE) + b"endmore"
    assert writing.file.size == len(data)
    assert writing.path.stat().st_blocks * 512 <= 16 * 1024
    writing.writer.write(b"x" * (HOLE + 100))
    writing.writer.write(b"x")
    assert writing.path.stat().st_blocks * 512 >= 2 * HOLE, "there is room for a head"
    assert writing.path.read_bytes()[: len(data)] == data


def test_withoutRoomTheHeadIsShort(writing, monkeypatch):
    def full(fd, offset, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    writing.writer.send([b"start", b"end"], 8, hole=HOLE)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    heads = {True: b"x" * 5000, False: b"short"}
    assert writing.writer.close(lambda size, mark, room: heads[room]).result is True
    assert writing.path.read_bytes() == b"short" + bytes(HOLE) + b"end"


def test_aLargeFileWithoutRoomForItsHeadEnds(writing, monkeypatch):
    def full(fd, offset, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    writing.writer.send([b"start", b"end"], 8, hole=HOLE)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    writing.writer.write(b"x" * (HOLE + 100))
    size = writing.path.stat().st_size
    writing.writer.write(b"x")
    assert [error.errno for error in writing.errors] == [errno.ENOSPC]
    assert writing.path.stat().st_size == size
