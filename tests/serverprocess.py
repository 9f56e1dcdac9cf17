"""A server in a process of its own, as its users start it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: What the twistd script does; it does not put the working directory on the path.
TWISTD = (
    "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
)

#: For anything that is waited for, in seconds: far above what it takes, far below
#: a build machine's patience.
PATIENCE = 60


def environment() -> dict[str, str]:
    """The surroundings in which a child process finds this checkout."""
    return dict(os.environ, PYTHONPATH=str(ROOT), PYTHONUNBUFFERED="1")


class Server:
    """
    A child process, and what it printed; standard error goes to the same place.

    As a context manager it is killed at the end if it still runs.
    """

    def __init__(
        self, command: Sequence[str], cwd: Path, descriptors: Sequence[int] = ()
    ) -> None:
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=descriptors,
        )
        self._watchdog = threading.Timer(PATIENCE, self._process.kill)
        self._watchdog.start()

    @classmethod
    def twistd(cls, arguments: Sequence[str], cwd: Path) -> Server:
        """Run C{twistd -n rtmp} with these arguments."""
        return cls.script(["-n", "rtmp", *arguments], cwd)

    @classmethod
    def script(cls, arguments: Sequence[str], cwd: Path) -> Server:
        """Run C{twistd} with these arguments."""
        return cls([sys.executable, "-c", TWISTD, *arguments], cwd)

    def __enter__(self):
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def expect(self, pattern: str) -> re.Match[str]:
        """Read on to the first line in which the pattern is found."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
            match = re.search(pattern, line)
            if match is not None:
                return match
        raise AssertionError(f"it never printed {pattern!r}:\n{self.output}")

    def port(self) -> int:
        """Read on to the line that tells the port."""
        return int(self.expect(r"Listening on [0-9.]+:(\d+) ")[1])

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Read the rest, and wait for the end: the status, or minus a signal."""
        assert self._process.stdout is not None
        if not self._process.stdout.closed:
            self.lines.extend(self._process.stdout)
            self._process.stdout.close()
        self._watchdog.cancel()
        return self._process.wait()


class PublishError(Exception):
    """The server did not want it, or was not there."""


def publish(url: str, frames: int = 30) -> None:
    """
    Publish so many frames of video, a key frame every ten, with FFmpeg's
    libraries from PyPI.

    @raise PublishError: it did not work.
    """
    av = pytest.importorskip("av") if "CI" not in os.environ else import_module("av")
    try:
        with av.open(url, "w", format="flv") as out:
            stream = out.add_stream("flv", rate=30)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.gop_size = 10
            for number in range(frames):
                frame = av.VideoFrame(64, 48, "yuv420p")
                for plane in frame.planes:
                    plane.update(bytes([128]) * plane.buffer_size)
                frame.pts = number
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    except av.FFmpegError as error:
        raise PublishError(str(error)) from error


def program(name: str) -> str:
    """
    Find a program; where it is missing the test is skipped, but fails in CI.
    """
    path = shutil.which(name)
    if path is None:
        if "CI" in os.environ:
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    return path
