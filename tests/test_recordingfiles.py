"""Recordings with the real thing: disk, thread, players, a killed process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_twisted
from recordingkit import World, headOf, makeFLV, makeStream, messagesOf, readTags

from twisted_rtmp.flv.head import HEAD_SIZE
from twisted_rtmp.flv.metadata import withoutFileFacts
from twisted_rtmp.recording import Recordings, RecordingSettings
from twisted_rtmp.wire.messages import Message


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "record")


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

    recordings = Recordings(reactor, RecordingSettings(str(tmp_path), rotateSeconds=3))
    streams = [makeStream(name=f"s{n}") for n in range(5)]
    for stream in streams:
        stream.addSink(recordings.openSink(stream), "recording")
    messages = messagesOf(encoded)
    messages[0].payload = withoutFileFacts(messages[0])
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


#: Messages that the program below sends at a time.
EACH = 4

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
    for message in messages[position:position + {each}]:
        stream.messageReceived(message)
        print(message.timestamp, flush=True)
    position += {each}
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
        each=EACH,
    )
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    )


def test_aKilledProcessLosesLessThanHalfASecond(tmp_path, encoded):
    """
    Counted in turns of its reactor, 13 of which take half a second or more: so it does
    not matter how often the process is given the processor.
    """
    process = start(tmp_path, encoded, interval=0.04)
    sent = []
    with process:
        for line in process.stdout:
            sent.append(float(line))
            if sent[-1] >= 2000:
                process.send_signal(signal.SIGKILL)
                break
        sent += map(float, process.stdout.read().splitlines())
    (path,) = (tmp_path / "record").rglob("*.flv")
    found = output(
        *("ffprobe", "-v", "error", "-of", "csv=p=0"),
        *("-show_entries", "packet=dts_time", path),
    )
    last = max(float(line.strip(",")) for line in found.split())
    assert last * 1000 >= max(sent[: -13 * EACH])


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
