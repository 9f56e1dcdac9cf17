"""The server as its users start it, watched from outside."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from scriptedpeer import PATIENCE, VIDEO, Peer, numberedFrame

ROOT = Path(__file__).parent.parent.parent

#: What the twistd script does; it does not put the working directory on the path.
TWISTD = (
    "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
)

KIB = 1024
MIB = 1024 * KIB


class Server:
    """
    A twistd process that records into a folder of its own.

    @ivar folder: where it runs; its recordings are in C{record}.
    @ivar log: what it printed, as bytes.
    """

    def __init__(self, folder, *options, descriptors=None, fileSize=None):
        """
        @param descriptors: the hard limit of open files.
        @param fileSize: the limit of a file's size, in bytes.
        """
        self.folder = folder
        self.record = folder / "recordings"
        self.log = bytearray()
        self._changed = threading.Condition()
        self._marks = 0
        path = [str(ROOT), os.environ.get("PYTHONPATH", "")]

        def limit():
            if descriptors is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
            if fileSize is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (fileSize, fileSize))

        arguments = ["--listen", "tcp:0:interface=127.0.0.1"]
        if "--record" not in options:
            arguments += ["--record", str(self.record)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", TWISTD, "-n", "rtmp", *arguments, *options],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, path)),
                "PYTHONUNBUFFERED": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=limit,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.port = int(self.waitFor(r"Listening on [0-9.]+:(\d+) ")[1])
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.kill()
        self._process.wait()
        self._reader.join(PATIENCE)
        self._process.stdout.close()

    def _read(self):
        while True:
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            with self._changed:
                self.log += data
                self._changed.notify_all()
            if not data:
                return

    # What it says

    @property
    def text(self):
        with self._changed:
            return self.log.decode("utf-8", "backslashreplace")

    def count(self, pattern):
        """How many lines of the log have the pattern."""
        return sum(re.search(pattern, line) is not None for line in self.lines)

    @property
    def lines(self):
        return self.text.split("\n")

    def waitFor(self, pattern, times=1):
        """
        Wait until so many log lines have the pattern.

        @return: the last one's match.
        """
        until = time.monotonic() + PATIENCE
        while True:
            with self._changed:
                size = len(self.log)
            complete = self.text.rpartition("\n")[0]
            found = list(re.finditer(pattern, complete))
            if len(found) >= times:
                return found[times - 1]
            assert self.running or not self._ended(size), f"it ended:\n{self.text}"
            left = until - time.monotonic()
            assert left > 0, (
                f"it never said {pattern!r} {times} times:\n{self.text[-5000:]}"
            )
            with self._changed:
                if len(self.log) == size:
                    self._changed.wait(min(left, 1))

    def _ended(self, size):
        self._reader.join(PATIENCE)
        return len(self.log) == size

    def waitUntil(self, condition, what):
        """Look again and again until something is so."""
        until = time.monotonic() + PATIENCE
        while not condition():
            assert self.running, f"it ended:\n{self.text[-5000:]}"
            assert time.monotonic() < until, what
            time.sleep(0.02)

    def noTraceback(self):
        text = self.text
        assert "Traceback (most recent call last)" not in text, text[-5000:]
        assert "Unhandled" not in text, text[-5000:]

    # What it uses

    @property
    def pid(self):
        return self._process.pid

    @property
    def running(self):
        return self._process.poll() is None

    def _status(self, name):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * KIB
        raise AssertionError(name)

    @property
    def resident(self):
        """Its memory, in bytes."""
        return self._status("VmRSS")

    @property
    def peak(self):
        """The most memory it had since L{resetPeak}, in bytes."""
        return self._status("VmHWM")

    def resetPeak(self):
        """@return: its memory now, in bytes."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self.resident

    @property
    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def cpuSeconds(self):
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def connections(self):
        """How many TCP connections of its port are open at its end."""
        port = f":{self.port:04X}"
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        # Local address, state: 01 is established, 08 is closed by the peer only.
        fields = (line.split() for line in lines)
        return sum(f[1].endswith(port) and f[3] in ("01", "08") for f in fields)

    # What it does

    def signal(self, number):
        self._process.send_signal(number)

    def wait(self):
        """@return: the exit status, or minus a signal."""
        status = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def serves(self):
        """Publish a short stream as a new client, to the end."""
        self._marks += 1
        name = f"mark{self._marks}"
        with Peer(self.port) as peer:
            peer.publishes(name)
            for number in range(3):
                peer.sendMedia(VIDEO, numberedFrame(number), number * 40)
            peer.end()
        self.waitFor(rf"live/{name} ended after .* 3 video ")
        assert self.running

    def files(self, start=""):
        """Paths in the record folder, relative to it, in order."""
        return sorted(
            str(path.relative_to(self.record))
            for path in self.record.rglob("*")
            if path.is_file() and str(path.relative_to(self.record)).startswith(start)
        )

    def recorded(self, start):
        """The only recording whose path starts so."""
        [path] = self.files(start)
        return (self.record / path).read_bytes()

    def terminate(self):
        self.signal(signal.SIGTERM)
        return self.wait()
