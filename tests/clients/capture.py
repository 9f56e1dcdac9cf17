"""
A server that records, what encoders send it, and what it kept of that.

The encoders write what they send to a file of their own at the same time, which
is compared with the recording: every payload, and every frame's time.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest
from serverprocess import PATIENCE, Server, program

from twisted_rtmp.flv.tags import FLVReader
from twisted_rtmp.media import payloads as media
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.constants import NEED_DATA, MessageType
from twisted_rtmp.wire.messages import Message

#: Audio and video, which are to be stored as they came; metadata is rewritten.
MEDIA = (MessageType.AUDIO, MessageType.VIDEO)

_T = TypeVar("_T")


class Capture:
    """A server in a process of its own, and the folder where it records."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.port = server.port()

    def url(self, name: str, application: str = "live") -> str:
        return f"rtmp://127.0.0.1:{self.port}/{application}/{name}"

    def ended(self, *names: str) -> dict[str, str]:
        """Wait for the ends of streams of C{live}: the log's summary of each."""
        summaries: dict[str, str] = {}
        while set(names) - set(summaries):
            match = self.server.expect(r"live/(\S+) ended after [0-9.]+ s: (.*)")
            summaries[match[1]] = match[2]
        return summaries

    def recording(self, name: str) -> Path:
        """The one file of a stream of C{live}."""
        (path,) = self.folder.glob(f"live/{name}-*.flv")
        return path


@contextmanager
def capturing(folder: Path, *options: str) -> Iterator[Capture]:
    """Run a server."""
    recordings = folder / "recordings"
    arguments = ["--listen", "tcp:0:interface=127.0.0.1", "--record", str(recordings)]
    with Server.twistd([*arguments, *options], folder) as server:
        yield Capture(server, recordings)


def needed(what: str) -> NoReturn:
    """Skip the test for want of something; in CI nothing may be wanting."""
    message = f"{what} is not installed"
    if "CI" in os.environ:
        pytest.fail(message)
    pytest.skip(message)


# What is in a file


def tags(path: Path) -> list[Message]:
    """Every tag of a file that is whole."""
    reader = FLVReader()
    data = path.read_bytes()
    reader.feed(data)
    found = list(iter(reader.nextTag, NEED_DATA))
    assert reader.offset == len(data), f"{path} ends within a tag"
    assert not reader.badPreviousTagSizes
    return found


def mediaTags(path: Path) -> list[Message]:
    """Every audio and video tag."""
    return [tag for tag in tags(path) if tag.typeId in MEDIA]


def frames(messages: Sequence[Message], *types: int) -> list[Message]:
    """Those that are frames, and no headers; of these types, or of any."""
    return [
        message
        for message in messages
        if message.typeId in (types or MEDIA)
        and media.flagsOf(message.typeId, message.payload) & media.CODED
    ]


def metadata(path: Path) -> dict[str, object]:
    """What C{onMetaData} at a file's beginning says."""
    first = tags(path)[0]
    assert first.typeId == MessageType.DATA_AMF0
    name, values = amf0.decode(first.payload)
    assert name == "onMetaData"
    return values


def assertSame(recorded: Sequence[Message], sent: Sequence[Message]) -> None:
    """
    Every message is there, in order, byte for byte; the frames' times differ by
    one offset.
    """
    assert len(recorded) == len(sent)
    assertBeginning(recorded, sent)


def assertBeginning(recorded: Sequence[Message], sent: Sequence[Message]) -> None:
    """The same, where a crash may have taken the end."""
    assert recorded
    assert len(recorded) <= len(sent)
    offsets = set()
    for number, (one, other) in enumerate(zip(recorded, sent, strict=False)):
        assert one.typeId == other.typeId, f"message {number}: {one}, not {other}"
        # Not compared by the assertion itself: pytest would explain a megabyte.
        same = one.payload == other.payload
        assert same, f"message {number}: {one} and {other} differ"
        if media.flagsOf(one.typeId, one.payload) & media.CODED:
            # Both are 32 bits of a file.
            offsets.add((one.timestamp - other.timestamp) & 0xFFFFFFFF)
    assert len(offsets) == 1, f"the times differ by {sorted(offsets)[:9]} ms"


def assertAllStored(summary: str, sent: Sequence[Message]) -> None:
    """The log's summary says that all these messages came and were written."""
    video = len(frames(sent, MessageType.VIDEO))
    audio = len(frames(sent, MessageType.AUDIO))
    assert summary == (
        f"{video} video {audio} audio received, {video} and {audio} written, 0 lost"
    )


def assertSeekable(path: Path) -> None:
    """A finished file: duration, size, and an index of all its key frames."""
    facts = metadata(path)
    reader = FLVReader()
    reader.feed(path.read_bytes())
    times, positions, last = [], [], 0
    for tag in iter(reader.nextTag, NEED_DATA):
        flags = media.flagsOf(tag.typeId, tag.payload) if tag.typeId in MEDIA else 0
        if flags & media.CODED:
            last = max(last, tag.timestamp)
            if flags & media.KEY_FRAME and tag.typeId == MessageType.VIDEO:
                times.append(tag.timestamp / 1000)
                positions.append(reader.tagOffset)
    assert facts["filesize"] == path.stat().st_size
    assert facts["duration"] == last / 1000
    index = facts["keyframes"]
    assert isinstance(index, dict)
    # The array may begin with the file's headers, or be padded to its room.
    indexed = dict(zip(index["filepositions"], index["times"], strict=True))
    assert times
    for at, position in zip(times, positions, strict=True):
        assert indexed.get(position) == at


def assertDecodes(path: Path, seek: float | None = None) -> None:
    """ffmpeg finds nothing wrong with the file, from a time on in seconds."""
    where = [] if seek is None else ["-ss", str(seek)]
    result = subprocess.run(
        [
            *(program("ffmpeg"), "-nostdin", "-v", "warning"),
            *(*where, "-i", str(path), "-f", "framecrc", "-"),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(r"^0, ", result.stdout, re.MULTILINE), "there was no frame"


def waitUntil(condition: Callable[[], _T], what: str) -> _T:
    """Wait for something that tells nobody when it happens."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.01)
    raise AssertionError(f"this never came about: {what}")


# ffmpeg


def teed(local: Path, url: str) -> list[str]:
    """ffmpeg's arguments to send a stream and write the same to a file."""
    output = f"[f=flv:flush_packets=1]{local}|[f=flv]{url}"
    return ["-flags", "+global_header", "-f", "tee", output]


def ffmpeg(*arguments: object) -> None:
    """
    Run ffmpeg to its end.

    @raise AssertionError: it failed.
    """
    result = subprocess.run(
        [program("ffmpeg"), "-nostdin", "-v", "error", "-y", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 0, result.stderr


class Encoder:
    """
    ffmpeg while it runs, with its output as key=value lines.

    As a context manager it is killed at the end if it still runs.
    """

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [
                *(program("ffmpeg"), "-nostdin", "-v", "quiet", "-y"),
                *("-progress", "pipe:1", "-stats_period", "0.1"),
                *map(str, arguments),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.wait()

    def reached(self, seconds: float) -> float:
        """Wait until so much of the stream is out: how much it is, in seconds."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            key, _, value = line.strip().partition("=")
            if key == "out_time_us" and value.lstrip("-").isdecimal():
                out = int(value) / 1e6
                if out >= seconds:
                    return out
        raise AssertionError(f"ffmpeg ended before {seconds} s were out")

    def wait(self) -> int:
        """Wait for the end: its status, or minus a signal."""
        assert self.process.stdout is not None
        if not self.process.stdout.closed:
            self.process.stdout.read()
            self.process.stdout.close()
        return self.process.wait(PATIENCE)
