"""
Programs that play a live stream into a file, and a publisher under a test's control.

All of them write FLV, which is compared with what was sent: every payload, and every
frame's time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from capture import frames, needed, waitUntil
from rtmpclient import DATA, SocketClient
from serverprocess import PATIENCE, program

from twisted_rtmp.flv.tags import FLVReader
from twisted_rtmp.media import payloads as media
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.constants import NEED_DATA, MessageType, UserControlType
from twisted_rtmp.wire.messages import Message

#: Python for Debian's own modules.
DEBIAN_PYTHON = "/usr/bin/python3"

#: An account for VLC, which refuses to run as root.
NOBODY = "nobody"


def ffmpegCommand(url: str, path: Path) -> list[str]:
    copy = ["-map", "0", "-c", "copy", "-f", "flv", str(path)]
    return [program("ffmpeg"), "-nostdin", "-v", "error", "-y", "-i", url, *copy]


def rtmpdumpCommand(url: str, path: Path) -> list[str]:
    return [program("rtmpdump"), "-q", "--live", "-r", url, "-o", str(path)]


def gstCommand(source: str, location: str, path: Path) -> list[str]:
    sink = ["!", "filesink", "buffer-mode=unbuffered", f"location={path}"]
    launch = [program("gst-launch-1.0"), "-q"]
    return [*launch, source, f"location={location}", *sink]


def rtmpsrcCommand(url: str, path: Path) -> list[str]:
    return gstCommand("rtmpsrc", f"{url} live=1", path)


def rtmp2srcCommand(url: str, path: Path) -> list[str]:
    return gstCommand("rtmp2src", url, path)


def mpvCommand(url: str, path: Path) -> list[str]:
    """It decodes and shows, to nobody, as fast as it can, and records."""
    shown = ["--no-config", "--vo=null", "--ao=null", "--untimed", "--ao-null-untimed"]
    return [program("mpv"), *shown, f"--stream-record={path}", url]


def vlcCommand(url: str, path: Path) -> list[str]:
    """What it is given to demultiplex, as it came."""
    command = [program("cvlc"), "-q", "--no-interact", "--play-and-exit", url]
    command += ["--demux=demuxdump", "--demuxdump-file=-"]
    if os.getuid():
        return command
    return [program("runuser"), "-u", NOBODY, "--", "env", "HOME=/tmp", *command]


def curlCommand(url: str, path: Path) -> list[str]:
    command = program("curl")
    version = subprocess.run(
        [command, "--version"], capture_output=True, text=True, check=True
    )
    if "rtmp" not in version.stdout.split():
        needed("curl with RTMP")
    return [command, "-sS", "-o", str(path), url]


def librtmpCommand(url: str, path: Path) -> list[str]:
    found = subprocess.run([DEBIAN_PYTHON, "-c", "import librtmp"], check=False)
    if found.returncode:
        needed("python3-librtmp")
    script = Path(__file__).with_name("librtmpplayer.py")
    return [DEBIAN_PYTHON, str(script), url, str(path)]


def pyavCommand(url: str, path: Path) -> list[str]:
    try:
        import av  # noqa: F401
    except ImportError:
        needed("PyAV")
    script = Path(__file__).with_name("pyavplayer.py")
    return [sys.executable, str(script), url, str(path)]


#: By name, what makes the command that plays a URL into a file.
PLAYERS: dict[str, Callable[[str, Path], list[str]]] = {
    "ffmpeg": ffmpegCommand,
    "rtmpdump": rtmpdumpCommand,
    "rtmpsrc": rtmpsrcCommand,
    "rtmp2src": rtmp2srcCommand,
    "mpv": mpvCommand,
    "vlc": vlcCommand,
    "curl": curlCommand,
    "librtmp": librtmpCommand,
    "pyav": pyavCommand,
}

#: These write to standard output.
TO_OUTPUT = frozenset(("vlc",))

#: These may stay until the server goes, whatever they are told: curl waits at the
#: socket for what librtmp has read from there already, rtmpsrc may connect again.
STAYING = frozenset(("rtmpsrc", "curl"))

#: At the end of a stream this one throws away what it has not passed on yet.
FORGETFUL = frozenset(("rtmp2src",))


class Player:
    """
    A program that plays.

    As a context manager it is killed at the end if it still runs.

    @ivar path: what it writes.
    """

    def __init__(
        self,
        name: str,
        url: str,
        folder: Path,
        players: Mapping[str, Callable[[str, Path], list[str]]] = PLAYERS,
    ) -> None:
        self.name = name
        self.path = folder / f"{name}.flv"
        self._said = folder / f"{name}.log"
        command = players[name](url, self.path)
        said = self._said.open("wb")
        written = self.path.open("wb") if name in TO_OUTPUT else said
        with said, written:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=written, stderr=said
            )

    def __enter__(self):
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def said(self) -> str:
        return self._said.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait until it leaves: its status, or minus a signal."""
        return self._process.wait(PATIENCE)

    def written(self) -> list[Message]:
        """Every whole tag so far."""
        if not self.path.exists():
            return []
        reader = FLVReader()
        reader.feed(self.path.read_bytes())
        return list(iter(reader.nextTag, NEED_DATA))

    def has(self, count: int) -> None:
        """Wait until it has written so many frames."""
        waitUntil(
            lambda: len(frames(self.written())) >= count or not self.running,
            f"{count} frames from {self.name}",
        )


class Outcome(NamedTuple):
    """What became of a player: what it wrote, its status, and what it said."""

    written: list[Message]
    status: int
    said: str


class Performance(NamedTuple):
    """A stream, and what its players made of it."""

    expected: list[Message]
    outcomes: dict[str, Outcome]
    skipped: dict[str, BaseException]


class Publisher(SocketClient):
    """Sends a file's tags over a socket when it is told to."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__("127.0.0.1", port)
        self._streamId = self.publish(name)
        self._pings = 0

    def send(self, messages: Sequence[Message]) -> None:
        """Send tags, and wait until the server has them all."""
        for message in messages:
            payload = message.payload
            if message.typeId == DATA:
                payload = amf0.encode("@setDataFrame") + payload
            self.media(message.typeId, payload, message.timestamp, self._streamId)
        self._pings += 1
        number = self._pings.to_bytes(4, "big")
        request = UserControlType.PING_REQUEST.to_bytes(2, "big") + number
        answer = UserControlType.PING_RESPONSE.to_bytes(2, "big") + number
        self.sendBytes(self.connection.writer.encode(2, 4, 0, 0, request))
        self.until(lambda reply: (reply.typeId, reply.payload) == (4, answer))

    def end(self) -> None:
        self.command("deleteStream", 4.0, None, float(self._streamId))


# What is to be seen of a stream


def played(messages: Sequence[Message]) -> list[Message]:
    """
    Audio and video, but for the ends of sequence, since librtmp passes over messages
    of five bytes, and for enhanced metadata, since FFmpeg writes its own.
    """
    ignored = media.SEQUENCE_END | media.METADATA
    return [
        message
        for message in messages
        if message.typeId in (MessageType.AUDIO, MessageType.VIDEO)
        and not media.flagsOf(message.typeId, message.payload) & ignored
    ]


def headersOf(messages: Sequence[Message]) -> list[Message]:
    """What comes before the first frame."""
    first = next(n for n, message in enumerate(messages) if frames([message]))
    return list(messages[:first])


def isKeyFrame(message: Message) -> bool:
    flags = media.flagsOf(message.typeId, message.payload)
    return message.typeId == MessageType.VIDEO and bool(
        flags & media.CODED and flags & media.KEY_FRAME
    )


def lastKeyFrame(messages: Sequence[Message]) -> int:
    """Where the GOP begins that a newcomer gets; the end if there is no video."""
    keys = [n for n, message in enumerate(messages) if isKeyFrame(message)]
    return keys[-1] if keys else len(messages)
