"""Streams into child processes: what the child reads, and what is lost."""

from __future__ import annotations

import errno
import os
import random
import re
import subprocess
import sys

import pytest
import pytest_twisted
from recordingkit import (
    DiskClock,
    LogLines,
    aacHeader,
    asTags,
    audio,
    avcHeader,
    makeFLV,
    makeStream,
    messagesOf,
    metadata,
    readTags,
    video,
)
from twisted.internet.error import (
    ProcessDone,
    ProcessExitedAlready,
    ProcessTerminated,
)
from twisted.internet.interfaces import IPullProducer
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from twisted_rtmp.flv import tags as flv
from twisted_rtmp.flv.early import EARLY_MESSAGES
from twisted_rtmp.flv.metadata import withoutFileFacts
from twisted_rtmp.interfaces import IMediaSink, ISinkFactory
from twisted_rtmp.pipes import Command, PipeSinks, pipePlaces
from twisted_rtmp.pipes.sink import BATCH_BYTES, HIGH_WATER
from twisted_rtmp.spelling import SPELT_BYTES, encodeWord
from twisted_rtmp.wire.constants import NEED_DATA

MIB = 1024 * 1024


@pytest.fixture
def lines():
    with LogLines("twisted_rtmp.pipes") as log:
        yield log.lines


class Child:
    """
    A child process that reads when it is told to.

    @ivar data: what it has read.
    """

    pid = 4711

    def __init__(self, protocol, arguments, environment):
        self.protocol = protocol
        self.arguments = arguments
        self.environment = environment
        self.data = b""
        self.reads = True
        self.buffered = []
        self.writes = 0
        self.signals = []
        self.exited = False
        self.stdinClosed = False
        self.closed = False
        self._producer = None
        protocol.makeConnection(self)

    # The transport.

    def registerProducer(self, producer, streaming):
        assert self._producer is None
        assert not streaming
        self._producer = producer
        producer.resumeProducing()

    def unregisterProducer(self):
        self._producer = None

    def writeSequence(self, buffers):
        assert not self.stdinClosed
        self.writes += 1
        self.buffered += buffers

    def closeStdin(self):
        self.stdinClosed = True

    def signalProcess(self, signal):
        if self.exited:
            raise ProcessExitedAlready
        self.signals.append(signal)

    def loseConnection(self):
        self.closed = True

    # The process.

    def read(self):
        """Take what is in the pipe, and what comes for it."""
        while self.buffered:
            self.data += b"".join(self.buffered)
            self.buffered = []
            if self._producer is not None:
                self._producer.resumeProducing()

    def exit(self, status=0, signal=None):
        self.exited = True
        reason = (
            ProcessDone(0)
            if status == 0 and signal is None
            else ProcessTerminated(status, signal, None)
        )
        if self._producer is not None:
            self._producer.stopProducing()
        self.protocol.processExited(Failure(reason))
        self.protocol.processEnded(Failure(reason))


class World(DiskClock):
    """A reactor that has children."""

    def __init__(self):
        super().__init__()
        self.children = []
        self.error = None
        self.endsAtOnce = False

    def spawnProcess(self, protocol, executable, args=(), env=None, **more):
        assert not more
        assert executable == args[0]
        if self.error is not None:
            raise self.error
        child = Child(protocol, list(args), env)
        self.children.append(child)
        if self.endsAtOnce:
            # As the reactor does when the child has ended before it is waited for.
            child.exit()
        return child

    def run(self, seconds=1.0, *children):
        """Let time pass, while children read."""
        for _ in range(round(seconds / 0.02)):
            self.advance(0.02)
            for child in children:
                child.read()


@pytest.fixture
def world():
    return World()


def open_(world, command="reader", application="live", name="test", **options):
    stream = makeStream(application, name)
    sinks = PipeSinks(world, command, **options)
    stream.addSink(sinks.openSink(stream), "pipe")
    return stream


def play(stream, messages):
    for message in messages:
        stream.messageReceived(message)


def tagsOf(data: bytes):
    reader = flv.FLVReader()
    reader.feed(data)
    tags = []
    while (tag := reader.nextTag()) is not NEED_DATA:
        tags.append(tag)
    assert reader.offset == len(data)
    return tags


def lost(stream):
    return dict(stream.ledger.discarded)


def booked(stream):
    written = stream.ledger.written["pipe"].messages
    return written + stream.ledger.lost == stream.ledger.received.messages


def test_interfaces(world):
    sinks = PipeSinks(world, "x")
    assert verifyObject(ISinkFactory, sinks)
    sink = sinks.openSink(makeStream())
    assert verifyObject(IMediaSink, sink)
    assert verifyObject(IPullProducer, sink)


@pytest.mark.parametrize("command", ["", "  ", "x 'y", 'x "', "x \\"])
def test_wrongCommands(world, command):
    with pytest.raises(ValueError, match="command") as caught:
        PipeSinks(world, command)
    assert "\n" not in str(caught.value)


def test_fieldsAreReplacedAfterSplitting(world):
    stream = open_(
        world,
        "enc -i - 'a {stream} b' {app}/x{stream}.mp4 {other} {{x}} '$(id)'",
        "live/inst",
        "a '; rm -rf / #{app}",
    )
    stream.messageReceived(audio(0))
    (child,) = world.children
    name = "a+20+27+3B+20rm+20-rf+20+2F+20+23+7Bapp+7D"
    assert child.arguments == [
        "enc",
        "-i",
        "-",
        f"a {name} b",
        f"live/inst/x{name}.mp4",
        "{other}",
        "{{x}}",
        "$(id)",
    ]
    assert child.environment["RTMP_STREAM"] == name
    assert child.environment["RTMP_APP"] == "live/inst"
    assert child.environment["PATH"] == os.environ["PATH"]
    child.exit()


def test_parsedCommands():
    assert Command("sh -c 'a | b'").arguments == ["sh", "-c", "a | b"]


#: Names that some tool reads as more than a name, and what they become.
WORDS = {
    "cam_1": "cam_1",
    "x7Kq-2v.B9": "x7Kq-2v.B9",
    "": "_",
    "_": "_+5F",
    "%s": "_+25s",
    "a%25s": "a+2525s",
    "frame%d": "frame+25d",
    "@/etc/passwd": "_+40+2Fetc+2Fpasswd",
    "-y": "_+2Dy",
    "..": "_+2E.",
    "../../x": "_+2E.+2F..+2Fx",
    "concat:a|b": "concat+3Aa+7Cb",
    "file:x": "file+3Ax",
    "!": "_+21",
    "a\nb": "a+0Ab",
    "a\\b": "a+5Cb",
    "a'b\"c": "a+27b+22c",
    "~root": "_+7Eroot",
    "*?[a]": "_+2A+3F+5Ba+5D",
    "a+25s": "a+2B25s",
    "_+25s": "_+5F+2B25s",
    "é": "_+C3+A9",
    "放x": "_+E6+94+BEx",
    "a\0b": "a+00b",
    "\udcff": "_+ED+B3+BF",
    "\udcc3\udca9": "_+ED+B3+83+ED+B2+A9",
    "$(id)`id`": "_+24+28id+29+60id+60",
    "a=b,c;d&e": "a+3Db+2Cc+3Bd+26e",
}


@pytest.mark.parametrize("name", WORDS)
def test_hostileNamesMakePlainArguments(world, name):
    stream = open_(world, "enc {stream}", name, name)
    stream.messageReceived(audio(0))
    (child,) = world.children
    assert child.arguments[1] == WORDS[name]
    assert child.environment["RTMP_STREAM"] == WORDS[name]
    for folder in child.environment["RTMP_APP"].split("/"):
        assert re.fullmatch(r"_?[A-Za-z0-9+._-]*", folder)
        assert not folder.startswith((".", "-", "+"))
    child.exit()


def test_noTwoNamesMakeOneWord():
    chance = random.Random(7)
    names = {"", *WORDS, *WORDS.values()}
    letters = "ab_+.-%2F~é/\0"
    while len(names) < 20_000:
        names.add("".join(chance.choices(letters, k=chance.randrange(1, 8))))
    names |= {"x" * 250 + name for name in list(names)[:2000]}
    words = [encodeWord(name) for name in names]
    assert len(set(words)) == len(words)
    for word in words:
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9+._-]*", word)
        assert len(word) <= SPELT_BYTES


def test_childrenAreBounded(world, lines):
    places = pipePlaces(4, 0.5)
    streams = [open_(world, "enc", name=f"s{n}", places=places) for n in range(4)]
    streams[3].publisher.host = "192.0.2.99"
    for stream in streams:
        stream.messageReceived(audio(0))
    assert len(world.children) == 3
    assert lost(streams[2]) == {"pipe not started": 1}
    (line,) = [line for line in lines if "cannot run" in line]
    assert line == "live/s2: cannot run enc: there are 2 children of 192.0.2.1"
    for child in world.children:
        child.exit()
    assert places.taken == 0
    open_(world, "enc", name="again", places=places).messageReceived(audio(0))
    assert len(world.children) == 4
    world.children[-1].exit()


def test_nothingRunsBeforeTheFirstMessage(world):
    stream = open_(world)
    assert world.children == []
    assert stream.end().called
    assert world.getDelayedCalls() == []


def test_theChildReadsTheStream(world, lines):
    stream = open_(world, "reader --fast")
    messages = [
        metadata(990, videocodecid=7.0),
        avcHeader(1000),
        video(1000, True),
        video(1040),
    ]
    play(stream, messages)
    (child,) = world.children
    assert child.writes == 0
    world.run(0.02, child)
    assert child.writes == 1
    play(stream, [video(1080)])
    world.run(0.02, child)
    ended = stream.end()
    assert child.stdinClosed
    assert not ended.called
    child.exit()
    assert ended.called
    assert asTags(tagsOf(child.data)) == asTags([*messages, video(1080)], 990)
    assert child.data[4] == 1, "the metadata announces video only"
    assert lost(stream) == {}
    assert repr(stream.ledger.written["pipe"]) == repr(stream.ledger.received)
    assert lines == [
        "live/test: running reader (process 4711)",
        "live/test: the child ended with status 0",
    ]
    assert world.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("messages", "flags"),
    [
        ([audio(0)], 5),
        ([metadata(audiocodecid=10.0), audio(0)], 4),
        ([metadata(audiocodecid=10.0), avcHeader(), video(0, True)], 5),
        ([metadata(a=1.0), audio(0)], 5),
        ([metadata(width=640.0), avcHeader(), video(0, True)], 1),
    ],
)
def test_theHeaderAnnouncesWhatComes(world, messages, flags):
    stream = open_(world)
    play(stream, messages)
    (child,) = world.children
    world.run(0.02, child)
    assert child.data[4] == flags
    child.exit()


def test_withoutAFrameThereIsNoChild(world, lines):
    """A peer that publishes names and headers only starts no process."""
    stream = open_(world)
    play(stream, [metadata(width=640.0), avcHeader(), aacHeader()])
    world.advance(60)
    assert world.children == []
    assert stream.keptBytes > 0, "it is charged for what is kept meanwhile"
    assert stream.end().called
    assert lost(stream) == {"no media": 3}
    assert lines == []
    assert world.getDelayedCalls() == []


def test_whatComesBeforeTheFirstFrameIsWritten(world):
    """In its order; of the metadata the newest."""
    stream = open_(world)
    messages = [metadata(width=1.0), avcHeader(), metadata(width=2.0), video(0, True)]
    play(stream, messages)
    (child,) = world.children
    world.run(0.02, child)
    assert asTags(tagsOf(child.data)) == asTags(messages[1:])
    assert stream.ledger.written["pipe"].messages == 4
    child.exit()


def test_ofTooManyHeadersTheNewestRemain(world):
    stream = open_(world)
    play(stream, [avcHeader()] * (EARLY_MESSAGES + 1))
    assert lost(stream) == {"before any media": EARLY_MESSAGES}
    play(stream, [video(0, True)])
    (child,) = world.children
    world.run(0.02, child)
    assert [tag.typeId for tag in tagsOf(child.data)] == [9, 9, 9]
    assert stream.ledger.written["pipe"].messages == 2
    child.exit()


def test_muchIsWrittenAtOnce(world):
    stream = open_(world)
    (message, large) = video(0, True, 100), video(0, True, BATCH_BYTES)
    stream.messageReceived(message)
    (child,) = world.children
    assert child.writes == 0
    stream.messageReceived(large)
    assert child.writes == 1
    child.exit()


def test_aSlowChildSlowsTheEncoder(world):
    stream = open_(world)
    sent = 0
    while not stream.publisher.paused:
        stream.messageReceived(video(sent, size=200_000))
        world.advance(0.02)
        sent += 1
        assert sent < 100
    assert HIGH_WATER <= sent * 200_100 < HIGH_WATER + MIB
    assert stream.keptBytes >= HIGH_WATER, "it is charged for what waits"
    (child,) = world.children
    child.read()
    assert not stream.publisher.paused
    assert len(tagsOf(child.data)) == sent
    assert lost(stream) == {}
    child.exit()
    assert world.getDelayedCalls() == []


def test_aChildThatDoesNotReadIsCutOff(world, lines):
    stream = open_(world)
    play(stream, [aacHeader(), audio(0)])
    world.run(0.02, *world.children)
    (child,) = world.children
    for n in range(100):
        stream.messageReceived(video(40 * n, size=100_000))
        world.advance(0.05)
    assert stream.publisher.paused
    assert child.signals == []
    world.advance(5.1)
    world.advance(0)
    assert child.signals == ["TERM"]
    assert not stream.publisher.paused
    assert lost(stream) == {"pipe stalled": 100}
    assert stream.ledger.written["pipe"].messages == 2
    assert "read nothing for 10 s" in lines[-1]
    # It goes on without the child, and without keeping anything.
    play(stream, [video(9000 + n, size=100_000) for n in range(100)])
    assert lost(stream) == {"pipe stalled": 200}
    assert len(child.buffered) < 20
    ended = stream.end()
    world.advance(5)
    assert child.signals == ["TERM", "KILL"]
    assert not ended.called
    child.exit(status=None, signal=9)
    assert ended.called
    assert "was ended by signal 9" in lines[-1]
    assert booked(stream)
    assert world.getDelayedCalls() == []


def test_aChildThatReadsALittleStays(world):
    stream = open_(world)
    for n in range(20):
        stream.messageReceived(video(n, size=300_000))
        world.advance(0.02)
    (child,) = world.children
    for _ in range(5):
        world.advance(9)
        child.data += b"".join(child.buffered)
        child.buffered = []
        child._producer.resumeProducing()
    assert child.signals == []
    assert lost(stream) == {}
    world.advance(11)
    world.advance(0)
    assert child.signals == ["TERM"]
    assert lost(stream) == {"pipe stalled": 15}
    child.exit()


@pytest.mark.parametrize(
    ("status", "text"),
    [(0, "ended with status 0 before"), (3, "ended with status 3 before")],
)
def test_aChildThatLeavesEarly(world, lines, status, text):
    stream = open_(world)
    play(stream, [video(0, True)])
    (child,) = world.children
    world.run(0.02, child)
    play(stream, [video(40)])
    child.exit(status)
    play(stream, [video(80), audio(80)])
    assert lost(stream) == {"pipe closed": 3}
    assert booked(stream)
    assert text in lines[-1]
    assert stream.end().called
    assert len(lines) == 2, "no line a message"
    assert world.getDelayedCalls() == []


def test_aChildThatEndsBeforeItsStartIsKnown(world, loggedFailures):
    world.endsAtOnce = True
    stream = open_(world)
    play(stream, [video(0, True), video(40)])
    assert lost(stream) == {"pipe closed": 2}
    assert booked(stream)
    assert stream.end().called
    assert world.getDelayedCalls() == []


def test_aChildThatClosesItsInputIsEnded(world):
    stream = open_(world)
    play(stream, [video(0, True)])
    (child,) = world.children
    child.protocol.childConnectionLost(0)
    play(stream, [video(40)])
    assert lost(stream) == {"pipe closed": 2}
    ended = stream.end()
    world.advance(30)
    assert child.signals == ["TERM"]
    child.exit(None, 15)
    assert ended.called
    assert world.getDelayedCalls() == []


def test_theEndWaitsForTheChild(world):
    stream = open_(world)
    play(stream, [video(40 * n, size=200_000) for n in range(10)])
    (child,) = world.children
    ended = stream.end()
    assert not child.stdinClosed
    world.advance(5)
    child.read()
    assert child.stdinClosed
    assert len(tagsOf(child.data)) == 10
    assert lost(stream) == {}
    world.advance(24.9)
    assert child.signals == []
    world.advance(0.2)
    assert child.signals == ["TERM"]
    world.advance(5.1)
    assert child.signals == ["TERM", "KILL"]
    assert not ended.called
    child.exit(None, 9)
    assert ended.called
    assert world.getDelayedCalls() == []


def test_aChildThatStallsAtTheEnd(world):
    stream = open_(world, finishSeconds=3)
    play(stream, [video(40 * n, size=200_000) for n in range(10)])
    (child,) = world.children
    stream.end()
    world.advance(3.1)
    assert child.signals == ["TERM"]
    assert lost(stream) == {"pipe stalled": 10}
    child.exit(None, 15)
    assert booked(stream)
    assert world.getDelayedCalls() == []


def test_aCommandThatCannotBeRun(world, lines):
    world.error = OSError(errno.ENOENT, "No such file or directory")
    stream = open_(world)
    play(stream, [video(0, True), audio(0), audio(20)])
    assert lost(stream) == {"pipe not started": 3}
    assert lines == ["live/test: cannot run reader: No such file or directory"]
    assert stream.end().called


def test_whatTheChildSaysIsLogged(world, lines):
    stream = open_(world, name="x\x1b[31m")
    play(stream, [video(0, True)])
    (child,) = world.children
    del lines[:]
    say = child.protocol.childDataReceived
    say(2, b"first\nsec")
    say(1, b"other\n")
    say(2, b"ond\r\n\n\x1b[31mred\xff\n")
    assert [line.partition(": ")[2] for line in lines] == [
        "first",
        "other",
        "second",
        "\\x1b[31mred\ufffd",
    ]
    for line in lines:
        assert line.isprintable()
    del lines[:]
    world.advance(1)
    for n in range(100):
        say(2, b"%d\r" % n)
    assert len(lines) == 10
    world.advance(1)
    say(2, b"more\n")
    assert lines[-1].endswith(": more (90 lines left out)")
    del lines[:]
    say(1, b"\0\x17media\n" * 100)
    assert lines == []
    world.advance(1)
    say(1, b"x" * MIB)
    say(1, b"y" * MIB + b"\nlast")
    assert len(lines) == 1
    assert len(lines[0]) < 600
    child.exit()
    assert lines[-1].endswith("last")


@pytest.fixture(scope="session")
def encoded(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoded") / "encoded.flv"
    makeFLV(path, seconds=3)
    return path


async def through(command, path, name="a b", **options):
    from twisted.internet import reactor

    stream = open_(reactor, command, name=name, **options)
    play(stream, messagesOf(path))
    await stream.end()
    assert booked(stream)
    return stream


@pytest_twisted.ensureDeferred
async def test_realChildGetsEveryByte(tmp_path, encoded):
    stream = await through(f"sh -c 'cat > {tmp_path}/$RTMP_STREAM.flv'", encoded)
    assert lost(stream) == {}
    expected = messagesOf(encoded)
    expected[0].payload = withoutFileFacts(expected[0])
    assert asTags(readTags(tmp_path / "a+20b.flv")) == asTags(expected)


@pytest_twisted.ensureDeferred
async def test_realFfmpeg(tmp_path, encoded, lines):
    out = tmp_path / "out"
    await through(f"ffmpeg -v error -i - -c copy {out}-{{stream}}.mkv", encoded)
    found = subprocess.run(
        [
            *("ffprobe", "-v", "error", "-count_packets", "-of", "csv=p=0"),
            *("-show_entries", "stream=nb_read_packets", f"{out}-a+20b.mkv"),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    tags = messagesOf(encoded)
    frames = [sum(t.typeId == kind for t in tags) - 1 for kind in (9, 8)]
    # ffmpeg's AVC has an end of sequence beside its header.
    assert list(map(int, found.stdout.split())) == [frames[0] - 1, frames[1]]
    assert len(lines) == 2


@pytest_twisted.ensureDeferred
async def test_realGStreamer(tmp_path, encoded):
    out = tmp_path / "out.h264"
    await through(
        "gst-launch-1.0 -q fdsrc ! flvdemux ! h264parse !"
        " 'video/x-h264,stream-format=byte-stream,alignment=au' !"
        f" filesink location={out}",
        encoded,
    )
    assert out.read_bytes().startswith(b"\0\0\0\1")
    assert out.stat().st_size > encoded.stat().st_size / 3


@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("sh -c 'cat > {stream}'", "{}"),
        ("sh -c 'cat > $RTMP_STREAM'", "{}"),
        ("ffmpeg -v error -i - -c copy -f flv {stream}", "{}"),
        ("ffmpeg -v error -i - -c copy -f segment {stream}-%03d.mkv", "{}-000.mkv"),
        ("ffmpeg -v error -i - -frames:v 1 -f image2 {stream}-%d.png", "{}-1.png"),
        ("gst-launch-1.0 -q fdsrc ! filesink location={stream}", "{}"),
        ("gst-launch-1.0 -q fdsrc ! multifilesink location={stream}-%d", "{}-0"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_realToolsReadNamesAsNames(tmp_path, monkeypatch, encoded, command, file):
    monkeypatch.chdir(tmp_path)
    names = ("%s%n%d", "@/etc/passwd", "-y", "concat:a|b", "*?[a]{x}", "~root", "!")
    for name in (*names, "a\nb'c\"d\\e", "é放", ".", "$HOME", "pipe:1"):
        await through(command, encoded, name)
        path = tmp_path / file.format(encodeWord(name))
        assert path.stat().st_size > 100
        for each in tmp_path.iterdir():
            assert each.name.startswith(path.name.partition("-")[0])
            each.unlink()


@pytest_twisted.ensureDeferred
async def test_realChildThatLeaves(encoded, lines):
    stream = await through("sh -c 'exit 3'", encoded)
    assert lost(stream).keys() == {"pipe closed"}
    assert "status 3" in lines[-1]


@pytest_twisted.ensureDeferred
async def test_realGrandchildHoldsThePipes(tmp_path, encoded):
    large = tmp_path / "large.flv"
    tags = b"".join(
        flv.encodeTag(9, n, b"\x27\1\0\0\0" + bytes(99_000)) for n in range(9)
    )
    large.write_bytes(flv.encodeHeader() + tags)
    program = "import subprocess, sys; subprocess.Popen(['sleep', '5'])"
    stream = await through(f'{sys.executable} -c "{program}"', large)
    assert lost(stream).keys() == {"pipe closed"}


@pytest_twisted.ensureDeferred
async def test_realChildThatNeverReads(encoded, lines):
    program = "import signal; signal.pause()"
    stream = await through(
        f'{sys.executable} -c "{program}"', encoded, stallSeconds=0.2, finishSeconds=20
    )
    assert lost(stream).keys() == {"pipe stalled"}
    assert "was ended by signal 15" in lines[-1]


@pytest_twisted.ensureDeferred
async def test_realCommandThatIsNotThere(encoded):
    stream = await through("/nonexistent/command", encoded)
    assert stream.ledger.lost == stream.ledger.received.messages
