"""The command's files: published, and stored."""

from __future__ import annotations

import argparse
import io
import os
import sys
import threading

import pytest
import pytest_twisted
from clientkit import Outcome, connected
from rtmpclient import (
    AAC_FRAME,
    AAC_HEADER,
    AUDIO,
    AVC_FRAME,
    AVC_HEADER,
    AVC_KEY_FRAME,
    DATA,
    VIDEO,
)
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from zope.interface.verify import verifyObject

from twisted_rtmp.client.__main__ import main, parse
from twisted_rtmp.client.commands import Progress, figures
from twisted_rtmp.client.publishing import KEPT_HEADERS, FilePublisher, readMessages
from twisted_rtmp.client.storing import (
    WAITING_MESSAGES,
    BlockingOutput,
    FileOutput,
    FLVSink,
    PipeOutput,
    outputFor,
)
from twisted_rtmp.flv import tags as flv
from twisted_rtmp.flv.tags import FLVReader
from twisted_rtmp.interfaces import IMediaSink
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import ECMAArray
from twisted_rtmp.wire.constants import NEED_DATA
from twisted_rtmp.wire.errors import FLVError
from twisted_rtmp.wire.messages import Message


def metadata(**properties):
    return amf0.encode("onMetaData", ECMAArray(properties))


def writeFile(path, *tags):
    data = b"".join(flv.encodeTag(*tag) for tag in tags)
    path.write_bytes(flv.encodeHeader() + data)
    return str(path)


def stream(start=0, frames=4):
    """Headers, and a frame of each kind every 40 ms."""
    yield AUDIO, start, AAC_HEADER
    yield VIDEO, start, AVC_HEADER
    for number in range(frames):
        yield VIDEO, start + 40 * number, AVC_FRAME if number else AVC_KEY_FRAME
        yield AUDIO, start + 40 * number, AAC_FRAME


def readTags(data):
    reader = FLVReader()
    reader.feed(data)
    tags = list(iter(reader.nextTag, NEED_DATA))
    assert reader.offset == len(data)
    return tags


# Publishing


class Published:
    """A file on its way to a server in memory."""

    def __init__(self, path, speed=1.0, again=lambda: False):
        self.clock = Clock()
        self.client, self.server = connected(self.clock)
        self.publication = Outcome(self.client.publish()).result
        self.publisher = FilePublisher(self.clock, self.publication, path, speed)
        self.done = Outcome(Deferred.fromCoroutine(self.publisher.run(again)))

    def times(self):
        """Of what the server has got, by now."""
        self.server.pump()
        return [m.timestamp for m in self.server.messages]

    def got(self):
        self.server.pump()
        return [(m.typeId, m.timestamp, m.payload) for m in self.server.messages]


def test_inItsOwnTime(tmp_path):
    tags = list(stream())
    published = Published(writeFile(tmp_path / "a.flv", *tags))
    assert published.times() == [0, 0, 0, 0]
    published.clock.advance(0.039)
    assert published.times() == [0, 0, 0, 0]
    published.clock.advance(0.001)
    assert published.times() == [0, 0, 0, 0, 40, 40]
    published.clock.advance(0.04)
    assert published.done.pending
    published.clock.advance(0.04)
    assert published.done.result is None
    assert published.got() == tags
    assert published.publisher.messages == len(tags)
    assert published.publisher.sent == sum(len(tag[2]) for tag in tags)
    assert published.publisher.time == 120


def test_fewHeadersAreKept(tmp_path):
    """A file may have a header for each of 2 ** 24 sets of tracks."""
    tracks = [
        b"\x96\x10avc1" + b"".join(bytes((n % 256, 0, 0, 1, 0)) for n in (k, k // 9, 7))
        for k in range(1000)
    ]
    tags = [*stream(), *((VIDEO, 150, header) for header in tracks)]
    large = b"\x90avc1" + bytes(300_000)
    tags += [(VIDEO, 150, large), (VIDEO, 160, AVC_KEY_FRAME)]
    published = Published(writeFile(tmp_path / "a.flv", *tags))
    later = Published(writeFile(tmp_path / "b.flv"))

    async def move():
        return later.publication

    for _ in range(15):
        published.clock.advance(0.01)
    assert len(published.got()) == len(tags) - 1
    published.publisher.move = move
    published.clock.advance(0.01)
    assert published.done.result is None
    headers = [payload for _, _, payload in later.got()[:-1]]
    assert len(headers) == KEPT_HEADERS
    assert headers[-1] == tracks[-1]


@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_fasterAndSlower(tmp_path, speed):
    published = Published(writeFile(tmp_path / "a.flv", *stream()), speed)
    published.clock.advance(0.04 / speed)
    assert len(published.times()) == 6
    published.clock.advance(0.08 / speed)
    assert published.done.result is None


def test_atFullSpeed(tmp_path):
    tags = list(stream(frames=20_000))
    published = Published(writeFile(tmp_path / "a.flv", *tags), 0)
    while published.done.pending:
        published.clock.advance(0)
    assert published.got() == tags
    assert published.clock.seconds() == 0
    assert published.publisher.time == 40 * 19_999


def test_aServerThatDoesNotKeepUp(tmp_path):
    tags = list(stream(frames=20_000))
    published = Published(writeFile(tmp_path / "a.flv", *tags), 0)
    transport = published.server.transport
    transport.taking = False
    for _ in range(1000):
        published.clock.advance(0)
    assert published.done.pending
    assert len(transport.queued) < 200_000
    transport.taking = True
    while published.done.pending:
        published.clock.advance(0)
    assert published.got() == tags


def test_itBeginsWhereverTheFileDoes(tmp_path):
    tags = [(DATA, 0, metadata(width=1.0)), *stream(start=7_000_000)]
    published = Published(writeFile(tmp_path / "a.flv", *tags))
    published.clock.advance(0.12)
    assert published.done.result is None
    assert published.times() == [tag[1] for tag in tags]


def test_holesAndStepsBackAreNotWaitedFor(tmp_path):
    times = [0, 40, 3_600_000, 3_600_040, 1000, 1040]
    tags = [(AUDIO, time, AAC_FRAME) for time in times]
    published = Published(writeFile(tmp_path / "a.flv", *tags))
    for _ in range(3):
        published.clock.advance(0.04)
    assert published.done.result is None
    assert published.times() == times
    assert published.publisher.time == 120


def test_interleavedTracksAreNotWaitedForTwice(tmp_path):
    tags = [
        (VIDEO, 0, AVC_KEY_FRAME),
        (VIDEO, 80, AVC_FRAME),
        (AUDIO, 20, AAC_FRAME),
        (AUDIO, 60, AAC_FRAME),
        (VIDEO, 120, AVC_FRAME),
    ]
    published = Published(writeFile(tmp_path / "a.flv", *tags))
    published.clock.advance(0.08)
    assert published.times() == [0, 80, 20, 60]
    published.clock.advance(0.04)
    assert published.done.result is None


def test_again(tmp_path):
    rounds = []

    def again():
        rounds.append(None)
        return len(rounds) < 3

    tags = [(DATA, 0, metadata(width=1.0)), *stream(start=500, frames=2)]
    published = Published(writeFile(tmp_path / "a.flv", *tags), 1.0, again)
    for _ in range(10):
        published.clock.advance(0.04)
    assert published.done.result is None
    first = [0, 500, 500, 500, 500, 540, 540]
    later = [500 + n for n in (0, 0, 0, 0, 0, 40, 40)]
    assert published.times() == [
        *first,
        *(80 + time for time in later),
        *(160 + time for time in later),
    ]


def test_aFileWithNothingInItIsNotRepeated(tmp_path):
    published = Published(writeFile(tmp_path / "a.flv"), 1.0, lambda: True)
    assert published.done.result is None


def test_theServerRefusesAmidTheFile(tmp_path):
    published = Published(writeFile(tmp_path / "a.flv", *stream(frames=20_000)), 0)
    published.server.transport.taking = False
    for _ in range(100):
        published.clock.advance(0)
    published.server.breakOff()
    assert "lost" in str(published.done.error)


def test_cancelled(tmp_path):
    published = Published(writeFile(tmp_path / "a.flv", *stream()))
    published.done.deferred.cancel()
    assert isinstance(published.done.errors[0], CancelledError)
    assert published.times() == [0, 0, 0, 0]


def test_whatIsAboutTheFileIsLeftOut(tmp_path):
    about = metadata(
        width=160.0, duration=5.0, filesize=9.0, keyframes={}, reservedSpace=[0.0]
    )
    plain = metadata(width=160.0)
    other = amf0.encode("onCuePoint", {"name": "x"})
    damaged = b"\x02\x00\x0aonMetaData\x03\x00"
    path = writeFile(
        tmp_path / "a.flv",
        *((DATA, 0, data) for data in (about, plain, other, damaged)),
        (10, 0, b"unknown"),
        (AUDIO, 0, AAC_FRAME),
    )
    with open(path, "rb") as file:
        payloads = [message.payload for message in readMessages(file)]
    assert payloads == [plain, plain, other, damaged, AAC_FRAME]


@pytest.mark.parametrize(
    "data",
    [
        b"RIFF",
        flv.encodeHeader() + flv.encodeTag(AUDIO, 0, AAC_FRAME)[:-1],
        flv.encodeHeader()[:-1],
        b"",
    ],
)
def test_noFLV(data):
    if not data:
        assert list(readMessages(io.BytesIO(data))) == []
        return
    with pytest.raises(FLVError):
        list(readMessages(io.BytesIO(data)))


# Storing


def sinkFor(path, seconds=None, output=None):
    enough = []
    sink = FLVSink(
        FileOutput(str(path)) if output is None else output,
        lambda: enough.append(None),
        seconds,
    )
    assert verifyObject(IMediaSink, sink)
    return sink, enough


def feed(sink, tags):
    for tag in tags:
        sink.mediaReceived(Message(tag[0], tag[1], 1, tag[2]))


def test_theFileIsFinished(tmp_path):
    path = tmp_path / "a.flv"
    sink, enough = sinkFor(path)
    tags = list(stream(start=5000, frames=50))
    feed(sink, [(DATA, 0, metadata(encoder="me", duration=0.0)), *tags])
    assert sink.streamEnded() is None
    assert sink.streamEnded() is None
    head, *rest = readTags(path.read_bytes())
    assert [(t.typeId, t.timestamp + 5000, t.payload) for t in rest] == tags
    _, values = amf0.decode(head.payload)
    assert values["encoder"] == "me"
    assert values["duration"] == 1.96
    assert values["filesize"] == path.stat().st_size
    assert (values["hasAudio"], values["hasVideo"]) == (True, True)
    assert values["videocodecid"] == 7
    assert sink.duration == 1.96
    assert sink.counts.messages == len(tags) + 1
    assert not enough


def test_theIndexLeadsToKeyFrames(tmp_path):
    path = tmp_path / "a.flv"
    sink, _ = sinkFor(path)
    feed(sink, [(VIDEO, 1000 * n, AVC_KEY_FRAME) for n in range(5)])
    sink.streamEnded()
    data = path.read_bytes()
    index = amf0.decode(readTags(data)[0].payload)[1]["keyframes"]
    assert index["times"] == [0, 1, 2, 3, 4]
    for position in index["filepositions"]:
        assert data[int(position)] == VIDEO


def test_headersBeforeTheFirstFrameHaveNoTime(tmp_path):
    path = tmp_path / "a.flv"
    sink, _ = sinkFor(path)
    joined = 3_600_000
    tags = [(VIDEO, 0, AVC_HEADER), (AUDIO, 0, AAC_HEADER)]
    feed(sink, [*tags, (VIDEO, joined, AVC_KEY_FRAME), (VIDEO, joined + 40, AVC_FRAME)])
    sink.streamEnded()
    assert [t.timestamp for t in readTags(path.read_bytes())] == [0, 0, 0, 0, 40]


def test_theTimeBeginsWithTheFirstFrame(tmp_path):
    path = tmp_path / "a.flv"
    sink, _ = sinkFor(path)
    feed(sink, [(VIDEO, 0, AVC_HEADER), (DATA, 0, amf0.encode("onCuePoint"))])
    feed(sink, [(VIDEO, 3000, AVC_KEY_FRAME), (VIDEO, 3040, AVC_FRAME)])
    sink.streamEnded()
    assert [t.timestamp for t in readTags(path.read_bytes())] == [0, 0, 0, 0, 40]
    assert sink.duration == 0.04


def test_allButTheLastMessageIsThereAtAnyTime(tmp_path):
    path = tmp_path / "a.flv"
    sink, _ = sinkFor(path)
    feed(sink, stream(frames=3))
    assert len(readTags(path.read_bytes())) == 1 + 8
    sink.streamEnded()


def test_aStreamWithoutFrames(tmp_path):
    path = tmp_path / "a.flv"
    sink, _ = sinkFor(path)
    text = amf0.encode("onTextData", {"text": "x"})
    feed(sink, [(DATA, n, text) for n in range(WAITING_MESSAGES + 5)])
    assert path.exists()
    sink.streamEnded()
    assert len(readTags(path.read_bytes())) == 1 + WAITING_MESSAGES + 5


def test_onlyHeaders(tmp_path):
    path = tmp_path / "a.flv"
    sink, _ = sinkFor(path)
    feed(sink, [(AUDIO, 0, AAC_HEADER)])
    sink.streamEnded()
    assert len(readTags(path.read_bytes())) == 2


def test_nothing(tmp_path):
    path = tmp_path / "a.flv"
    sink, _ = sinkFor(path)
    assert sink.streamEnded() is None
    assert not path.exists()


def test_malformedMediaAreStoredAsTheyAre(tmp_path):
    path = tmp_path / "a.flv"
    sink, _ = sinkFor(path)
    tags = [(VIDEO, 0, b""), (VIDEO, 0, b"\x17"), (AUDIO, 0, b"\xaf"), *stream()]
    feed(sink, tags)
    sink.streamEnded()
    assert [t.payload for t in readTags(path.read_bytes())[1:]] == [t[2] for t in tags]


def test_enough(tmp_path):
    path = tmp_path / "a.flv"
    sink, enough = sinkFor(path, 0.08)
    feed(sink, stream(start=1000, frames=5))
    assert enough
    sink.streamEnded()
    times = [t.timestamp for t in readTags(path.read_bytes())]
    assert max(times) == 40


def test_aFileThatIsThereIsKept(tmp_path):
    path = tmp_path / "a.flv"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        FileOutput(str(path))
    output = FileOutput(str(path), overwrite=True)
    assert path.read_bytes() == b"old"
    output.write(b"new")
    output.close(b"")
    assert path.read_bytes() == b"new"


def test_whereNoFileCanBeMadeNothingIsBegun(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.flv"):
        FileOutput(str(tmp_path / "no" / "a.flv"))
    with pytest.raises(IsADirectoryError):
        FileOutput(str(tmp_path), overwrite=True)
    with pytest.raises(FileNotFoundError):
        FileOutput("", overwrite=True)


def test_aFolderThatHasGone(tmp_path):
    folder = tmp_path / "no"
    folder.mkdir()
    sink, enough = sinkFor(folder / "a.flv")
    folder.rmdir()
    feed(sink, stream())
    assert enough
    assert isinstance(sink.error, FileNotFoundError)
    assert sink.streamEnded() is None


def test_aFullDisk():
    """/dev/full takes nothing."""
    output = FileOutput("/dev/full", overwrite=True)
    sink, enough = sinkFor(None, output=output)
    feed(sink, stream())
    assert enough
    assert "space" in str(sink.error)
    assert sink.streamEnded() is None
    assert sink.counts.messages <= 3


def test_standardOutputThatIsAFile(tmp_path):
    path = tmp_path / "a.flv"
    with path.open("wb") as file:
        output = outputFor("-", False, Clock(), file, lambda: None)
        assert isinstance(output, BlockingOutput)
        sink, _ = sinkFor(None, output=output)
        feed(sink, [(DATA, 0, metadata(a=1.0)), *stream(start=3_600_000)])
        sink.streamEnded()
    first, *rest = readTags(path.read_bytes())
    assert first.payload == metadata(a=1.0)
    assert [t.timestamp for t in rest] == [
        tag[1] - 3_600_000 for tag in stream(start=3_600_000)
    ]


@pytest.mark.parametrize(
    ("facts", "flags"),
    [
        ({"a": 1.0}, 5),  # nothing is promised, so that more may come
        ({"audiocodecid": 10.0}, 4),
        ({"audiocodecid": 10.0, "videocodecid": 7.0}, 5),
    ],
)
def test_theHeaderOfStandardOutput(tmp_path, facts, flags):
    path = tmp_path / "a.flv"
    with path.open("wb") as file:
        sink, _ = sinkFor(None, output=BlockingOutput(file))
        feed(sink, [(DATA, 0, metadata(**facts)), (AUDIO, 0, AAC_FRAME)])
        sink.streamEnded()
    assert path.read_bytes()[4] == flags


def test_standardOutputThatIsAPipe():
    from twisted.internet import reactor

    read, write = os.pipe()
    lost = []
    with os.fdopen(write, "wb") as file:
        output = outputFor("-", False, reactor, file, lambda: lost.append(None))
        assert isinstance(output, PipeOutput)
        output.abandon()
        assert lost
        assert output.close(b"") is None
    os.close(read)


class Producer:
    """Notes what it is told."""

    def __init__(self):
        self.told = []

    def pauseProducing(self):
        self.told.append("pause")

    def resumeProducing(self):
        self.told.append("resume")

    def stopProducing(self):
        self.told.append("stop")


@pytest_twisted.ensureDeferred
async def test_aReaderThatDoesNotRead():
    from twisted.internet import reactor

    read, write = os.pipe()
    output = PipeOutput(reactor, write, lambda: None)
    producer = Producer()
    output.throttle(producer)
    data = os.urandom(1 << 20)
    output.write(data)
    assert producer.told == ["pause"]

    got = []

    def readAll():
        with os.fdopen(read, "rb") as file:
            got.append(file.read())

    reading = threading.Thread(target=readAll, daemon=True)
    reading.start()
    while producer.told != ["pause", "resume"]:
        await deferLater(reactor, 0)
    await output.close(b"")
    reading.join()
    assert got == [data]


# The command's own


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress():
    clock, stderr = Clock(), Terminal()
    texts = iter(["one message", "two", "three"])
    with Progress(clock, stderr, lambda: next(texts)):
        assert stderr.getvalue() == ""
        clock.advance(0.5)
        assert stderr.getvalue() == "\rone message"
        clock.advance(0.5)
        assert stderr.getvalue() == "\rone message\rtwo        "
    assert stderr.getvalue().endswith("\r" + 11 * " " + "\r")
    assert not clock.getDelayedCalls()


def test_noProgressWithoutATerminal():
    clock, stderr = Clock(), io.StringIO()
    with Progress(clock, stderr, lambda: "x"):
        clock.advance(5)
    assert stderr.getvalue() == ""


def test_figures():
    assert figures(0, 0, 0) == "0.0 s, 0 messages, 0.00 MB"
    assert figures(2000, 9, 500_000) == "2.0 s, 9 messages, 0.50 MB, 2000 kbit/s"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "required"),
        (["record"], "invalid choice"),
        (["play", "rtmp://host/live/a"], "FILE"),
        (["play", "http://host/live/a", "x"], "http:// is not supported"),
        (["play", "rtmp://host/live", "x"], "rtmp://host:1935/live must name a stream"),
        (["play", "rtmp://host/live", "x", "--key", ""], "must name a stream"),
        (
            ["publish", "x", "rtmp://h/a/b", "--speed", "0"],
            "above 0, not '0'",
        ),
        (
            ["publish", "x", "rtmp://h/a/b", "--speed", "fast"],
            "must be max, realtime or",
        ),
        (
            ["play", "rtmp://h/a/b", "x", "--duration", "-1"],
            "must be a number",
        ),
        (
            ["play", "rtmp://h/a/b", "x", "--timeout", "inf"],
            "not 'inf'",
        ),
        (["play", "rtmps://h/a/b", "x", "--ca", "/nowhere"], "No such file"),
        (["play", "rtmps://h/a/b", "x", "--ca", os.devnull], "must have a certificate"),
        (["play", "rtmp://h/a/b", "x", "--endpoint", "pigeon:x"], "endpoint"),
    ],
)
def test_wrongCommandLines(arguments, why, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert why in capsys.readouterr().err


def test_options():
    options = parse(
        Clock(), ["publish", "f", "rtmp://h/a/b", "--speed", "max", "--timeout", "3"]
    )
    assert isinstance(options, argparse.Namespace)
    assert options.speed == 0
    assert options.url.name == "b"
    assert options.limits.connectSeconds == options.limits.silenceSeconds == 3
    assert options.endpoint is None
    options = parse(Clock(), ["play", "rtmp://h/a/b/c", "-", "--key", "k"])
    assert (options.url.application, options.url.name) == ("a/b/c", "k")
    assert options.duration is None
    assert sys.modules["twisted_rtmp.client"].connectRTMP


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_argumentsMayStandInFiles(clock, tmp_path, mark):
    file = tmp_path / "where"
    file.write_text(
        f"{mark}rtmp://u:pass@host/live?token=1\n\n# the key\n--key\ns3cret\n"
    )
    options = parse(clock, ["play", f"@{file}", "out.flv"])
    assert options.url.application == "live?token=1"
    assert (options.url.name, options.url.password) == ("s3cret", "pass")
    assert options.file == "out.flv"
