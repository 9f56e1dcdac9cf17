"""What the tests of recordings and pipes share: a disk and a stream under control."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from publisherkit import StubPublisher
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from twisted_rtmp.flv import tags as flv
from twisted_rtmp.flv.muxer import FLVMuxer
from twisted_rtmp.ledger import MediaCounts
from twisted_rtmp.live.pacing import Pacer
from twisted_rtmp.live.streams import LiveStream
from twisted_rtmp.media import payloads as media
from twisted_rtmp.places import Places
from twisted_rtmp.recording import Recordings, RecordingSettings
from twisted_rtmp.recording.recordings import recordingPlaces
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import ECMAArray
from twisted_rtmp.wire.constants import NEED_DATA
from twisted_rtmp.wire.messages import Message

#: 2026-11-23 09:38:29 UTC
NOW = 1795426709


class DiskClock(Clock):
    """A clock whose thread is the test's own."""

    def callFromThread(self, f: Callable[..., object], *args: Any, **kw: Any) -> None:
        f(*args, **kw)


class StepPool:
    """
    A thread that works when it is told to.

    @ivar hung: whether work is only queued.
    """

    def __init__(self) -> None:
        self.hung = False
        self.started = self.stopped = 0
        self.handOvers = 0
        self._works: list[Callable[[], None]] = []

    def start(self) -> None:
        self.started += 1

    def stop(self) -> None:
        self.stopped += 1

    def callInThreadWithCallback(self, onResult, func, *args):
        assert self.started > self.stopped
        self.handOvers += 1
        self._works.append(lambda: onResult(True, func(*args)))
        if not self.hung:
            self.work()

    def work(self) -> None:
        while self._works:
            self._works.pop(0)()


class LogLines:
    """Log lines of one namespace, formatted."""

    def __init__(self, namespace: str) -> None:
        self.lines: list[str] = []
        self._namespace = namespace

    def __call__(self, event: LogEvent) -> None:
        if event["log_namespace"].startswith(self._namespace):
            self.lines.append(formatEvent(event))

    def __enter__(self):
        globalLogPublisher.addObserver(self)
        return self

    def __exit__(self, *_: object) -> None:
        globalLogPublisher.removeObserver(self)


def makeStream(
    application: str = "live", name: str = "test", clock: Clock | None = None
) -> LiveStream:
    publisher = StubPublisher()
    stream = LiveStream(application, name, publisher, Pacer(clock or Clock()))
    stream.publisher = publisher  # for assertions
    return stream


class World:
    """A recorder of one folder, and everything around it."""

    def __init__(self, folder: Path, places: Places | None = None, **options) -> None:
        self.folder = folder
        self.places = places or recordingPlaces()
        self.clock = DiskClock()
        self.pool = StepPool()
        self.finished = []
        self.recordings = Recordings(
            self.clock,
            RecordingSettings(str(folder), **options),
            now=lambda: NOW + self.clock.seconds(),
            pool=self.pool,
            places=self.places,
        )
        self.recordings.finished.append(self.finished.append)

    def stream(self, application="live", name="test"):
        stream = makeStream(application, name, self.clock)
        stream.addSink(self.recordings.openSink(stream), "recording")
        return stream

    def paths(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def path(self) -> Path:
        (path,) = self.paths()
        return path

    def tick(self, seconds: float = 0.2) -> None:
        self.clock.advance(seconds)


def video(timestamp: int, key: bool = False, size: int = 50) -> Message:
    first = b"\x17" if key else b"\x27"
    body = bytes((timestamp + n) & 0xFF for n in range(size))
    return Message(9, timestamp, 1, first + b"\x01\0\0\0" + body)


def audio(timestamp: int, size: int = 20) -> Message:
    body = bytes((timestamp * 3 + n) & 0xFF for n in range(size))
    return Message(8, timestamp, 1, b"\xaf\x01" + body)


def play(stream, messages):
    for message in messages:
        stream.messageReceived(message)


def gop(start: int, frames: int = 10) -> list[Message]:
    """A key frame and others, 40 ms apart, with audio between."""
    messages = []
    for n in range(frames):
        messages += [
            video(start + 40 * n, key=not n),
            audio(start + 40 * n + 7),
        ]
    return messages


#: x264's, for 320x240.
AVC_CONFIGURATION = bytes.fromhex(
    "014d400dffe10018674d400deca0a0fd8088000003000800000301e078a14cb001000468ce0fc8"
)


def avcHeader(timestamp: int = 0) -> Message:
    return Message(9, timestamp, 1, b"\x17\0\0\0\0" + AVC_CONFIGURATION)


def aacHeader(timestamp: int = 0) -> Message:
    return Message(8, timestamp, 1, b"\xaf\x00\x12\x10")


def metadata(timestamp: int = 0, **values: Any) -> Message:
    return Message(
        18, timestamp, 1, amf0.encode("onMetaData", ECMAArray(values or {"a": 1.0}))
    )


def readTags(path: Any) -> list[Message]:
    """All tags of a file, which must be whole."""
    with open(path, "rb") as file:
        data = file.read()
    reader = flv.FLVReader()
    reader.feed(data)
    tags = []
    while (tag := reader.nextTag()) is not NEED_DATA:
        tags.append(tag)
    assert reader.offset == len(data), "a piece of a tag at the end"
    assert reader.badPreviousTagSizes == 0
    return tags


def headOf(path: Any) -> dict[str, Any]:
    """The values at the start of a file."""
    first = readTags(path)[0]
    name, values = amf0.decode(first.payload)
    assert name == "onMetaData"
    return values


def asTags(messages: list[Message], base: int = 0) -> list[tuple[int, int, bytes]]:
    return [(m.typeId, m.timestamp - base, m.payload) for m in messages]


def makeFLV(path: Any, *, seconds: int = 10, sound: bool = True) -> None:
    """Encode a real file: 30 frames and one key frame a second, B-frames, AAC."""
    source = ["-f", "lavfi", "-i", "testsrc=size=320x240:rate=30"]
    if sound:
        source += ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100"]
    subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-y", *source, "-t", str(seconds)),
            *("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "30"),
            *("-pix_fmt", "yuv420p", "-c:a", "aac", "-f", "flv", str(path)),
        ],
        check=True,
        stdin=subprocess.DEVNULL,
    )


def messagesOf(path: Any) -> list[Message]:
    """A file's tags, as an encoder would send them."""
    return readTags(path)


MIB = 1024 * 1024


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
