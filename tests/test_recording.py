"""Recordings: what is in the files, whatever disk, clock and encoder do."""

from __future__ import annotations

import errno
import os
import random
import signal
import struct
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_twisted
from recordingkit import (
    NOW,
    DiskClock,
    LogLines,
    StepPool,
    World,
    aacHeader,
    asTags,
    audio,
    avcHeader,
    gop,
    headOf,
    makeFLV,
    makeStream,
    messagesOf,
    metadata,
    play,
    readTags,
    video,
)
from twisted.internet.interfaces import IConsumer
from zope.interface.verify import verifyObject

from twisted_rtmp import disk
from twisted_rtmp.disk import Disk, DiskFile, FileWriter
from twisted_rtmp.flv import tags as flv
from twisted_rtmp.flv.muxer import (
    HEAD_PAYLOAD,
    HEAD_SIZE,
    INDEX_ENTRIES,
    MAX_TIME,
    METADATA_BYTES,
    FLVMuxer,
    KeyFrameIndex,
    encodeHead,
    readMetadata,
)
from twisted_rtmp.interfaces import IMediaSink, ISinkFactory
from twisted_rtmp.ledger import MediaCounts
from twisted_rtmp.limits import STOP_SECONDS
from twisted_rtmp.media import payloads as media
from twisted_rtmp.recording import Recordings, RecordName, recorder
from twisted_rtmp.recording.names import encodeFolders, encodeName
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import ECMAArray
from twisted_rtmp.wire.constants import NEED_DATA
from twisted_rtmp.wire.errors import UsageError
from twisted_rtmp.wire.messages import Message

MIB = 1024 * 1024

#: Bytes of a path that may not be on the disk.
CONTROL = [chr(n) for n in range(32)] + ["\x7f"]


@pytest.fixture
def lines():
    with LogLines("twisted_rtmp.recording") as log:
        yield log.lines


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "record")


# -- names -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("camera-1", "camera-1"),
        ("", "_"),
        ("_", "%5F"),
        ("a/b", "a%2Fb"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("-rf", "%2Drf"),
        ("a.b-c", "a.b-c"),
        ("100%", "100%25"),
        ("%2F", "%252F"),
        ("a b\n\x00", "a%20b%0A%00"),
        ("~x", "%7Ex"),
        ("Zürich", "Zürich"),
        ("放送", "放送"),
        ("a\u202etxt", "a%E2%80%AEtxt"),
        ("\udce9", "%E9"),
        ("\ud800", "%ED%A0%80"),
        ("\\..\\x", "%5C..%5Cx"),
    ],
)
def test_namesBecomePlain(name, plain):
    assert encodeName(name) == plain


def test_differentNamesStayDifferent():
    random.seed(7)
    alphabet = "a%_-.~/ 2F5é\udce9\0"
    names = {
        "".join(random.choices(alphabet, k=random.randrange(7))) for _ in range(3000)
    }
    assert len({encodeName(name) for name in names}) == len(names)


def test_longNamesAreCutAndStayDifferent():
    one, other = encodeName("放" * 4000), encodeName("放" * 3999 + "x")
    assert one != other
    assert len(one.encode()) <= 200
    assert one.startswith("放放")
    assert one[-17] == "~"
    # No piece of an encoded character remains.
    assert len(encodeName("/" * 300)[:-17]) % 3 == 0


def test_applicationsMakeFolders():
    assert encodeFolders("live/inst") == "live/inst"
    assert encodeFolders("/../etc//.") == "%2E./etc/%2E"
    assert encodeFolders("") == encodeFolders("///") == "_"
    assert encodeFolders("/".join("abcdefghijk")) == "a/b/c/d/e/f/g/h%2Fi%2Fj%2Fk"
    assert encodeFolders("a/" * 5000).count("/") == 7


@pytest.mark.parametrize(
    ("template", "path"),
    [
        (None, ["live", "test-20261123T093829Z"]),
        ("{stream}", ["test"]),
        ("%Y/%m/%d/{app}_{stream}", ["2026", "11", "23", "live_test"]),
        ("{{x}}{stream}", ["{x}test"]),
        ("a//{stream}%%", ["a", "test%"]),
    ],
)
def test_templates(template, path):
    name = RecordName() if template is None else RecordName(template)
    assert name.render("live", "test", NOW) == path


def test_namesAreNoTemplates():
    assert RecordName("{app}-{stream}").render("%Y", "{app}", 0) == ["%25Y-%7Bapp%7D"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{key}", "unknown field {key}"),
        ("{}", "unknown field {}"),
        ("{stream!r}", "unknown field"),
        ("{stream:>400}", "unknown field"),
        ("{stream", "'{stream'"),
        ("x%", "nothing after it"),
        ("%{stream}", "nothing after it"),
        ("", "a path below"),
        ("/tmp/{stream}", "a path below"),
        ("../{stream}", "leave the record folder"),
        ("a/./{stream}", "leave the record folder"),
        (".{stream}", "hidden"),
        ("{stream}/", "no name for the file"),
        ("{stream}\n", "a control character"),
        ("%n{stream}", "a control character"),
        ("x" * 100 + "{stream}", "too long"),
    ],
)
def test_wrongTemplatesAreExplained(template, message):
    with pytest.raises(ValueError, match="record name") as caught:
        RecordName(template)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


HOSTILE = [
    "../../etc/passwd",
    "..",
    ".",
    "/etc/passwd",
    "//x",
    "..\\..\\x",
    "a\x00b",
    "\x00",
    "x" * 10_000,
    "é" * 10_000,
    "😀" * 300,
    "../" * 3000,
    "a/" * 5000,
    "a\nb\r",
    "\x1b[31m",
    "\u202e\u200b",
    ".htaccess",
    "-rf",
    "~root",
    "$(touch x)",
    "`id`",
    "con",
    "%2e%2e%2f",
    "..%00/",
    "\udcff\udcfe",
    "\ud800",
    "",
    " ",
    "\u2044\uff0f\uff0e\uff0e",
]


def test_hostileNamesStayInTheFolder(tmp_path):
    world = World(tmp_path / "a" / "record")
    for name in HOSTILE:
        for stream in (world.stream(name, "x"), world.stream("x", name)):
            stream.messageReceived(audio(0))
            stream.end()
    paths = world.paths()
    assert len(paths) == len(world.finished) == 2 * len(HOSTILE)
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == set(paths)
    for path in paths:
        for part in path.relative_to(world.folder).parts:
            assert len(os.fsencode(part)) <= 255
            assert not part.startswith((".", "-"))
            assert not any(character in part for character in CONTROL)


# -- the time line -----------------------------------------------------------


def mux(messages, muxer=None):
    muxer = muxer or FLVMuxer()
    for message in messages:
        message.flags = media.flagsOf(message.typeId, message.payload)
    counts = MediaCounts()
    data = b"".join(muxer.mux(messages, counts))
    return data, counts, muxer


def timesOf(data):
    reader = flv.FLVReader()
    reader.feed(flv.encodeHeader() + data)
    times = []
    while (tag := reader.nextTag()) is not NEED_DATA:
        times.append(tag.timestamp)
    return times


def test_muxedTagsAreThoseOfTheWire():
    messages = [
        metadata(5),
        avcHeader(5),
        video(5, True),
        Message(8, 6, 1, b""),
        Message(9, 0x1234567, 1, b"\xff" * 70_000),
        audio(MAX_TIME + 5),
    ]
    data, counts, muxer = mux(messages)
    assert data == b"".join(
        flv.encodeTag(m.typeId, m.timestamp - 5, m.payload) for m in messages
    )
    assert muxer.position == flv.HEADER_SIZE + len(data)
    expected = MediaCounts()
    for message in messages:
        expected.count(message)
    assert repr(counts) == repr(expected)
    assert muxer.mux([], counts) == []


@pytest.mark.parametrize(
    ("batches", "times", "anchors"),
    [
        ([[100, 90, 110], [95, 130]], [10, 0, 20, 5, 40], 0),
        # A little before the start: belongs to the first frames.
        ([[100, 140], [80, 180]], [0, 40, 0, 80], 1),
        # The encoder starts again at 0.
        ([[5000, 5040], [0, 40, 80]], [0, 40, 40, 80, 120], 1),
        # Far ahead: 2^31 and more do not fit.
        ([[0, 40], [2**33, 2**33 + 40]], [0, 40, 40, 80], 1),
        # Back and forth.
        ([[5000], [0], [2**40], [2**40 + 7]], [0, 0, 0, 7], 2),
        # 24.8 days: the time line starts again.
        ([[0], [MAX_TIME], [MAX_TIME + 40], [MAX_TIME + 80]], [0, MAX_TIME, 0, 40], 1),
        # The wrap of 32 bits has been unwrapped before.
        ([[2**32 - 40], [2**32], [2**32 + 40]], [0, 40, 80], 0),
    ],
)
def test_timeGoesOn(batches, times, anchors):
    muxer = FLVMuxer()
    data = b"".join(mux([video(t) for t in batch], muxer)[0] for batch in batches)
    assert timesOf(data) == times
    assert muxer.anchors == anchors


def test_oldHeadersDoNotMoveTheStart():
    data, _, muxer = mux([avcHeader(0), video(3_600_000, True), video(3_600_040)])
    assert timesOf(data) == [0, 0, 40]
    assert muxer.anchors == 0


def test_headersJustBeforeKeepTheirDistance():
    data, _, _ = mux([avcHeader(0), video(80, True), video(120)])
    assert timesOf(data) == [0, 80, 120]


def test_anyTimestampsGiveAFileThatCanBeRead():
    seed = 11
    chance = random.Random(seed)
    for _ in range(50):
        muxer = FLVMuxer()
        times = []
        for _ in range(10):
            batch = [
                video(chance.choice((0, 40, 2**31, 2**32, 2**40)) + chance.randrange(9))
                for _ in range(5)
            ]
            times += timesOf(mux(batch, muxer)[0])
        assert len(times) == 50, seed
        assert max(times) <= MAX_TIME, seed


def test_indexThinsByHalves():
    index = KeyFrameIndex(8)
    for n in range(1000):
        index.add(2000 * n, 10 * n)
    assert 4 <= len(index.times) <= 8
    steps = {b - a for a, b in pairwise(index.times)}
    assert len(steps) == 1, "even over the whole file"
    assert index.times[0] == 0
    assert index.times[-1] > 2000 * 700
    assert list(index.positions) == [t // 200 for t in index.times]
    index.add(0, 99_999)
    assert index.positions[-1] != 99_999, "times rise"
    assert index.before(10 * 300)[1][-1] < 3000


def test_audioAloneHasAnIndexUntilVideoComes():
    muxer = FLVMuxer()
    for start in range(0, 20_000, 200):
        mux([audio(start), audio(start + 100)], muxer)
    assert list(muxer.index.times) == [0, 5000, 10_000, 15_000]
    mux([video(20_000, True), video(20_040)], muxer)
    mux([audio(26_000)], muxer)
    assert list(muxer.index.times) == [20_000]


# -- the head ----------------------------------------------------------------


@pytest.mark.parametrize("extra", range(12))
@pytest.mark.parametrize("entries", [0, 1, 2, 500, INDEX_ENTRIES])
def test_headsAreOfOneSizeAndPlainAMF(entries, extra):
    times = [2000 * n for n in range(entries)]
    positions = [HEAD_SIZE + 7 * n for n in range(entries)]
    head = encodeHead({"encoder": "x" * extra}, True, False, times, positions)
    assert len(head) == HEAD_SIZE
    reader = flv.FLVReader()
    reader.feed(head)
    tag = reader.nextTag()
    assert reader.offset == HEAD_SIZE
    assert (reader.hasAudio, reader.hasVideo) == (True, False)
    assert len(tag.payload) == HEAD_PAYLOAD
    name, values = amf0.decode(tag.payload)  # with its limit of values
    assert name == "onMetaData"
    assert values["encoder"] == "x" * extra
    if entries > 1:
        assert values["keyframes"]["times"] == [t / 1000 for t in times]
        assert values["keyframes"]["filepositions"] == positions
    else:
        assert "keyframes" not in values


def test_metadataThatDoesNotFit():
    with pytest.raises(UsageError):
        encodeHead({"x": "y" * 100_000}, True, True)
    large = amf0.encode("onMetaData", {"x": "y" * METADATA_BYTES})
    assert readMetadata(large) is None
    assert readMetadata(amf0.encode("onMetaData", "text")) is None
    assert readMetadata(amf0.encode("onMetaData")) is None
    assert readMetadata(b"\x02\x00\x0aonMetaData\x03\x00") is None
    largest = {"x": "y" * (METADATA_BYTES - 20)}
    payload = amf0.encode("onMetaData", ECMAArray(largest))
    assert readMetadata(payload) == largest
    full = range(INDEX_ENTRIES)
    facts = dict.fromkeys(f"fact number {n}" for n in range(20))
    assert len(encodeHead({**largest, **facts}, True, True, full, full)) == HEAD_SIZE


def test_theEncodersGuessesAreDropped():
    payload = metadata(duration=0.0, keyframes={}, width=5.0, reservedSpace_=[0.0])
    assert readMetadata(payload.payload) == {"width": 5.0}


# -- writing -----------------------------------------------------------------


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


def test_writesWaitForTheTick(writing):
    writing.writer.write(b"one ")
    writing.clock.advance(0.1)
    writing.writer.writeSequence([b"two ", b"three"])
    writing.clock.advance(0.09)
    assert not writing.path.exists()
    writing.clock.advance(0.02)
    assert writing.path.read_bytes() == b"one two three"
    assert writing.writer.waiting == 0
    assert writing.disk.trips == 1


def test_muchIsWrittenAtOnce(writing):
    writing.writer.write(b"x" * (MIB - 1))
    assert writing.pool.trips == 0
    writing.writer.write(b"y")
    assert writing.path.stat().st_size == MIB


def test_filesShareOneTrip(writing, tmp_path):
    others = [
        FileWriter(writing.disk, DiskFile(str(tmp_path), [f"f{n}"]), pytest.fail)
        for n in range(20)
    ]
    for second in range(5):
        for writer in others:
            writer.write(b"x")
        writing.clock.advance(0.2)
        assert writing.pool.trips == second + 1


def test_partOfAWriteIsGoneOnWith(writing, monkeypatch):
    chance = random.Random(3)
    calls = []
    write = os.write

    def writev(fd, buffers):
        assert len(buffers) <= disk.IOV_MAX
        data = b"".join(buffers)
        calls.append(len(data))
        return write(fd, data[: chance.randrange(1, max(2, len(data) // 3))])

    monkeypatch.setattr(disk.os, "writev", writev)
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
    assert writing.clock.getDelayedCalls() == []
    assert writing.errors == []


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


def test_progressIsNoStall(tmp_path):
    writing = Writing(tmp_path, highWater=100, lowWater=10)
    writing.pool.hung = True
    producer = Producer()
    writing.writer.registerProducer(producer, True)
    for _ in range(4):
        writing.writer.send([b"x" * 50], 50)
    for _ in range(3):
        writing.clock.advance(6)
        writing.pool._works.pop(0)()
        assert producer.events == ["pause"]
    writing.clock.advance(6)
    writing.pool.work()
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

    monkeypatch.setattr(disk.os, "writev", full)
    failures = []
    writing.writer.send([b"broken"], 6, "other").addErrback(failures.append)
    writing.writer.send([b"late"], 4).addErrback(failures.append)
    assert [failure.value.errno for failure in failures] == [errno.ENOSPC] * 2
    assert [error.errno for error in writing.errors] == [errno.ENOSPC]
    assert writing.path.read_bytes() == b"whole"
    closed = writing.writer.close(lambda size, mark: f"{size}{mark[:1]}".encode())
    assert closed.result is True
    assert writing.path.read_bytes() == b"5mole"


def test_namesThatAreTakenGetANumber(tmp_path):
    for expected in ("file.flv", "file-1.flv", "file-2.flv"):
        file = DiskFile(str(tmp_path), ["file"], suffix=".flv")
        file.append([expected.encode()])
        assert file.path == str(tmp_path / expected)
        file.finish(lambda size, mark: b"")
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
    with pytest.raises(OSError, match="plain is no folder"):
        DiskFile(str(record), ["plain", "x"]).append([b"x"])


def test_aFileOfNothingIsRemoved(tmp_path, monkeypatch):
    def fail(fd, buffers):
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(disk.os, "writev", fail)
    file = DiskFile(str(tmp_path), ["file"])
    with pytest.raises(OSError, match="I/O"):
        file.append([b"x"])
    assert not file.finish(lambda size, mark: b"head")
    assert list(tmp_path.iterdir()) == []


def test_theDiskIsWaitedForWhenAsked(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(disk.os, "fdatasync", synced.append, raising=False)
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
    stopped = writing.disk.stop()
    assert not stopped.called
    writing.pool.work()
    assert stopped.result is True
    assert writing.clock.getDelayedCalls() == []


# -- recordings --------------------------------------------------------------


def test_interfaces(world):
    assert verifyObject(ISinkFactory, world.recordings)
    sink = world.recordings.openSink(makeStream())
    assert verifyObject(IMediaSink, sink)


def test_everythingIsInTheFile(world, lines):
    stream = world.stream()
    messages = [
        avcHeader(1000),
        aacHeader(1000),
        *gop(1000),
        Message(8, 1400, 1, b""),
        Message(9, 1401, 1, b"\xff\xff unknown"),
        Message(18, 1402, 1, amf0.encode("onCuePoint", {"name": "x"})),
        *gop(1410),
    ]
    play(stream, [metadata(990, width=1.0, framerate=25.0, duration=0.0), *messages])
    world.tick()
    assert len(readTags(world.path())) == len(messages) + 1, "also before the end"
    play(stream, gop(2000))
    assert stream.end().called
    path = world.path()
    assert path == world.folder / "live" / "test-20261123T093829Z.flv"
    tags = readTags(path)
    assert asTags(tags[1:]) == asTags([*messages, *gop(2000)], 1000)
    head = headOf(path)
    assert head["framerate"] == 25
    assert (head["width"], head["height"]) == (320, 240)
    assert (head["videocodecid"], head["audiocodecid"]) == (7, 10)
    assert head["audiosamplerate"] == 44100
    assert head["duration"] == head["lasttimestamp"] == 1.367
    assert head["filesize"] == path.stat().st_size
    assert head["hasVideo"]
    assert head["hasAudio"]
    assert head["hasKeyframes"]
    assert head["keyframes"]["times"] == [0, 0.41, 1]
    data = path.read_bytes()
    for position in head["keyframes"]["filepositions"]:
        position = int(position)
        assert data[position] == 9
        assert data[position + 11] == 0x17
    ledger = stream.ledger
    assert ledger.lost == 0
    assert repr(ledger.written["recording"]) == repr(ledger.received)
    assert lines == [
        f"Recording live/test to {path}",
        f"Recorded live/test: {path}, 1.367 s, {len(data)} bytes",
    ]
    (finished,) = world.finished
    assert (finished.path, finished.size) == (str(path), len(data))
    assert (finished.application, finished.name) == ("live", "test")
    assert finished.duration == 1.367
    assert finished.finished
    assert world.recordings.recorders == set()
    assert world.recordings.stop().called
    assert world.clock.getDelayedCalls() == []


def test_theFileIsWholeAfterEveryBatch(world):
    stream = world.stream()
    stream.messageReceived(audio(0))
    world.tick()
    path = world.path()
    assert path.read_bytes()[4] == 4, "audio only, so far"
    seen = 1
    for n in range(1, 50):
        stream.messageReceived(video(40 * n, key=n == 1))
        stream.messageReceived(audio(40 * n))
        seen += 2
        world.tick()
        assert len(readTags(path)) == seen + 1
        assert path.read_bytes()[4] == 5
    stream.end()
    assert len(readTags(path)) == seen + 1


def test_onlyTheNewestEarlyMetadataIsTaken(world):
    stream = world.stream()
    late = metadata(40, c=3.0)
    play(stream, [metadata(0, a=1.0), metadata(0, b=2.0), avcHeader(), video(0, True)])
    play(stream, [late, video(80)])
    stream.end()
    tags = readTags(world.path())
    head = headOf(world.path())
    assert "a" not in head
    assert head["b"] == 2
    assert [tag.payload for tag in tags if tag.typeId == 18][1:] == [late.payload]
    assert repr(stream.ledger.written["recording"]) == repr(stream.ledger.received)


def test_metadataThatDoesNotFitIsKeptAsItCame(world):
    stream = world.stream()
    large = metadata(0, text="x" * 20_000)
    play(stream, [large, video(0, True), video(40)])
    stream.end()
    tags = readTags(world.path())
    assert [tag.payload for tag in tags[1:2]] == [large.payload]
    assert "text" not in headOf(world.path())
    assert stream.ledger.written["recording"].data == 1


def test_metadataAloneMakesNoFile(world):
    stream = world.stream()
    stream.messageReceived(metadata())
    world.tick(1)
    assert stream.end().called
    assert world.paths() == []
    assert world.recordings.recorders == set()


def test_aSinkAddedLateStartsAtZero(world):
    stream = makeStream()
    play(stream, [metadata(width=7.0), avcHeader(), video(0, True)])
    stream.addSink(world.recordings.openSink(stream), "recording")
    play(stream, gop(3_600_000, 3))
    stream.end()
    tags = readTags(world.path())
    assert [tag.timestamp for tag in tags] == [0, 0, 0, 7, 40, 47, 80, 87]
    assert tags[1].payload == avcHeader().payload


def test_rotationByTime(tmp_path):
    world = World(tmp_path, rotateSeconds=2)
    stream = world.stream()
    play(stream, [metadata(encoder="x"), avcHeader(), aacHeader()])
    messages = [m for n in range(10) for m in gop(400 * n)]
    for n, message in enumerate(messages):
        stream.messageReceived(message)
        if not n % 7:
            world.tick(0.1)
    world.clock.advance(1)
    stream.end()
    paths = [Path(f.path) for f in world.finished]
    assert len(paths) == 2
    frames = []
    for number, path in enumerate(paths):
        tags = readTags(path)
        assert [t.payload for t in tags[1:3]] == [
            avcHeader().payload,
            aacHeader().payload,
        ]
        assert tags[3].payload[0] == 0x17
        assert tags[3].timestamp == 0
        head = headOf(path)
        assert head["encoder"] == "x"
        assert head["width"] == 320
        assert head["duration"] == pytest.approx(1.967)
        assert len(head["keyframes"]["times"]) == 5
        assert path.name.startswith("test-2026")
        frames += asTags(tags[3:], -2000 * number)
    assert frames == asTags(messages)
    ledger = stream.ledger
    assert repr(ledger.written["recording"]) == repr(ledger.received)
    assert world.clock.getDelayedCalls() == []


def test_rotationBySize(tmp_path):
    world = World(tmp_path, rotateBytes=HEAD_SIZE + 30_000)
    stream = world.stream()
    messages = [video(40 * n, key=not n % 10, size=1000) for n in range(100)]
    for message in messages:
        stream.messageReceived(message)
        world.tick(0.04)
    stream.end()
    frames = []
    for finished in world.finished[:-1]:
        assert HEAD_SIZE + 30_000 <= finished.size <= HEAD_SIZE + 42_000
    for finished in world.finished:
        tags = readTags(finished.path)
        assert tags[1].payload[0] == 0x17
        frames += [tag.payload for tag in tags[1:]]
    assert len(world.finished) == 4
    assert frames == [m.payload for m in messages]


def test_rotationWithoutVideo(tmp_path):
    world = World(tmp_path, rotateSeconds=1)
    stream = world.stream()
    play(stream, [aacHeader()])
    for n in range(150):
        stream.messageReceived(audio(20 * n))
        world.tick(0.02)
    stream.end()
    assert [f.duration for f in world.finished] == [0.98, 0.98, 0.98]
    for finished in world.finished:
        assert readTags(finished.path)[1].payload == aacHeader().payload
    assert stream.ledger.written["recording"].audio == 150


def test_rotationWaitsForAKeyFrame(tmp_path):
    world = World(tmp_path, rotateSeconds=0.1, rotateBytes=1)
    stream = world.stream()
    play(stream, gop(0, 50))
    world.tick()
    play(stream, [m for m in gop(2000, 50) if m.payload[0] != 0x17])
    stream.end()
    assert len(world.finished) == 1
    # Where the video has ended, audio does not wait for it for ever.
    world = World(tmp_path / "2", rotateSeconds=1)
    stream = world.stream()
    play(stream, gop(0))
    for n in range(1000):
        stream.messageReceived(audio(400 + 20 * n))
        world.tick(0.02)
    stream.end()
    assert len(world.finished) > 5


def test_sameSecondTwice(world):
    first, second = world.stream(), world.stream()
    first.messageReceived(audio(0))
    second.messageReceived(audio(0))
    first.end()
    second.end()
    assert [p.name for p in world.paths()] == [
        "test-20261123T093829Z-1.flv",
        "test-20261123T093829Z.flv",
    ]


def test_timestampsThatStartAgain(world):
    stream = world.stream()
    sink = next(iter(world.recordings.recorders))
    play(stream, gop(50_000))
    world.tick()
    play(stream, gop(0))
    stream.end()
    assert sink.anchors == 1
    times = [tag.timestamp for tag in readTags(world.path())[1:]]
    assert times == sorted(times)
    assert len(times) == 40
    assert stream.ledger.lost == 0


# -- faults ------------------------------------------------------------------


class Faults:
    """Makes writes fail."""

    def __init__(self, monkeypatch):
        self.number = 0
        self._writev = os.writev
        monkeypatch.setattr(disk.os, "writev", self.writev)

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
    assert "goes on in" in troubles[-1]
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

    monkeypatch.setattr(disk.os, "fstatvfs", Figures)
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
    assert "523239424 bytes free" in next(line for line in lines if "stops" in line)


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
    world.tick(9.8)
    assert stream.publisher.paused
    world.tick(0.3)
    assert not stream.publisher.paused
    assert world.clock.seconds() - start < 15
    assert "has stored nothing for 10 s" in lines[-1]
    # Goes on, counted, without more memory, and without a queue of attempts.
    trips = world.pool.trips
    run(world, stream, 5000, 30)
    assert world.pool.trips == trips
    assert stream.ledger.discarded == {"disk stalled": 1500}
    # The disk wakes up: all that was under way is in the file.
    world.pool.hung = False
    world.pool.work()
    assert stream.ledger.written["recording"].messages == 20 + sent
    run(world, stream, 35_000, 3)
    stream.end()
    assert len(world.finished) == 2
    assert len(readTags(world.finished[0].path)) == 1 + 20 + sent


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

    monkeypatch.setattr(disk.os, "pwrite", pwrite)
    assert stream.end().called
    assert "I/O error" in lines[-1]
    assert not world.finished[0].finished
    assert len(readTags(world.path())) == 21


@pytest.mark.parametrize(
    "options",
    [{"rotateSeconds": 0}, {"rotateBytes": -1}, {"fsyncSeconds": 0}, {"name": "{x}"}],
)
def test_wrongOptions(tmp_path, options):
    with pytest.raises(ValueError, match=r"must be more than 0|unknown field"):
        Recordings(DiskClock(), str(tmp_path), **options)


# -- with the real thing -----------------------------------------------------


@pytest.fixture(scope="session")
def encoded(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoded") / "encoded.flv"
    makeFLV(path, seconds=10)
    return path


@pytest.fixture(scope="session")
def recorded(encoded, tmp_path_factory):
    """What ffmpeg encoded, recorded and finished."""
    world = World(tmp_path_factory.mktemp("recorded"))
    stream = world.stream()
    for message in messagesOf(encoded):
        stream.messageReceived(message)
        world.tick(0.01)
    stream.end()
    return world.path()


def output(*arguments) -> str:
    done = subprocess.run(
        [str(argument) for argument in arguments],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.stdout


def test_ffmpegSeesTheSamePackets(encoded, recorded):
    options = ("-show_entries", "packet=stream_index,pts,dts,size,flags", "-of", "csv")
    packets = [
        output("ffprobe", "-v", "warning", *options, path)
        for path in (encoded, recorded)
    ]
    assert packets[0] == packets[1]
    assert packets[0].count("packet") > 600


def test_ffmpegKnowsDurationAndIndex(recorded):
    found = output(
        *("ffprobe", "-v", "warning", "-of", "csv=p=0"),
        *("-show_entries", "format=duration:stream=codec_name,width,height", recorded),
    )
    assert "h264,320,240" in found
    assert "aac" in found
    assert "warning" not in found
    assert 9.9 < float(found.split()[-1]) < 10.2
    log = output(
        *("ffmpeg", "-v", "debug", "-ss", 9, "-i", recorded, "-c", "copy"),
        *("-frames:v", 1, "-f", "null", "-"),
    )
    assert "Invalid keyframes" not in log
    # Reads the head, some seconds to know the codecs, and the last one.
    read = max(int(part.split()[0]) for part in log.split("Statistics: ")[1:])
    assert read < 0.7 * recorded.stat().st_size


def test_gstreamerPlays(recorded):
    out = output(
        *("gst-launch-1.0", "-q", "filesrc", f"location={recorded}", "!"),
        *("flvdemux", "name=d", "d.video", "!", "queue", "!", "h264parse", "!"),
        *("fakesink", "sync=false", "d.audio", "!", "queue", "!", "aacparse"),
        *("!", "fakesink", "sync=false"),
    )
    assert out == ""


def test_mpvSeeks(recorded):
    log = output(
        *("mpv", "--no-config", "--vo=null", "--ao=null", "--start=8", "--frames=1"),
        *("--untimed", "--term-playing-msg=at ${=time-pos} of ${=duration}", recorded),
    )
    place = log[log.rindex("at ") :].split()
    assert 7.5 < float(place[1]) < 9
    assert 9.9 < float(place[3]) < 10.2


@pytest_twisted.ensureDeferred
async def test_realThread(tmp_path, encoded):
    from twisted.internet import reactor

    recordings = Recordings(reactor, str(tmp_path), rotateSeconds=3)
    streams = [makeStream(name=f"s{n}") for n in range(5)]
    for stream in streams:
        stream.addSink(recordings.openSink(stream), "recording")
    messages = messagesOf(encoded)
    for message in messages:
        for stream in streams:
            stream.messageReceived(
                Message(message.typeId, message.timestamp, 1, message.payload)
            )
    for stream in streams:
        await stream.end()
        assert repr(stream.ledger.written["recording"]) == repr(stream.ledger.received)
        assert stream.ledger.lost == 0
    assert recordings.files == 5 * 4
    await recordings.stop()
    first = sorted((tmp_path / "live").glob("s0-*"))
    frames = [
        t.payload for path in first for t in readTags(path) if len(t.payload) > 99
    ]
    assert len(frames) >= 300


#: Publishes to itself until it is killed, and says what it has sent.
PROGRAM = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
import resource
from twisted.internet import reactor, task
from recordingkit import makeStream, messagesOf
from twisted_rtmp.recording import Recordings
messages = messagesOf({encoded!r})
recordings = Recordings(reactor, {folder!r})
stream = makeStream()
stream.addSink(recordings.openSink(stream))
{setup}
position = 0
def send():
    global position
    for message in messages[position:position + 4]:
        stream.messageReceived(message)
        print(message.timestamp, reactor.seconds(), flush=True)
    position += 4
    if position >= len(messages):
        {end}
loop = task.LoopingCall(send)
loop.start({interval})
reactor.run()
"""


def start(tmp_path, encoded, setup="", end="loop.stop()", interval=0.04):
    tests = str(Path(__file__).parent)
    program = PROGRAM.format(
        tests=tests,
        root=str(Path(tests).parent),
        encoded=str(encoded),
        folder=str(tmp_path / "record"),
        setup=setup,
        end=end,
        interval=interval,
    )
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    )


def test_aKilledProcessLosesLessThanHalfASecond(tmp_path, encoded):
    process = start(tmp_path, encoded)
    sent = []
    with process:
        for line in process.stdout:
            sent.append(tuple(map(float, line.split())))
            if sent[-1][0] >= 2000 and process.returncode is None:
                process.send_signal(signal.SIGKILL)
                killed = time.time()
                break
        rest = process.stdout.read()
    sent += [tuple(map(float, line.split())) for line in rest.splitlines() if line]
    (path,) = (tmp_path / "record").rglob("*.flv")
    found = output(
        *("ffprobe", "-v", "error", "-of", "csv=p=0"),
        *("-show_entries", "packet=dts_time", path),
    )
    last = max(float(line.strip(",")) for line in found.split())
    due = [timestamp for timestamp, moment in sent if moment < killed - 0.5]
    assert last * 1000 >= max(due)


def test_aFileSizeLimitEndsFilesNotTheStream(tmp_path, encoded):
    limit = HEAD_SIZE + 150_000
    process = start(
        tmp_path,
        encoded,
        interval=0.01,
        setup=f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))",
        end="""loop.stop(); print(stream.ledger.received.messages,
            stream.ledger.written["recording"].messages, stream.ledger.lost,
            end="\\n", flush=True)
        stream.end().addCallback(lambda _: recordings.stop()).addCallback(
            lambda _: reactor.stop())""",
    )
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    received, written, lost = map(int, out.splitlines()[-1].split())
    assert received > written > 0
    assert lost > 0
    for path in (tmp_path / "record").rglob("*.flv"):
        assert path.stat().st_size <= limit
        assert len(readTags(path)) > 10
        assert headOf(path)["duration"] > 0


def test_recorderDoesNotKnowTheProtocol():
    for module in (disk, recorder):
        source = Path(module.__file__).read_text()
        assert "twisted_rtmp.protocol" not in source
        assert "twisted_rtmp.factory" not in source
