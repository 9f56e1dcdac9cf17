"""
CPU seconds a GB of a server process that receives one publication over loopback.

Starts C{twistd rtmp} with recording and without, publishes the synthetic minute of
L{chunks} as fast as the server takes it, and prints the server's own CPU time::

    python benchmarks/ingest.py
"""

from __future__ import annotations

import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time

from chunks import encode, publication

TWISTD = (
    "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
)
TURNS = 24


def serve(options: list[str], folder: str) -> tuple[subprocess.Popen[str], int]:
    """Start a server; its process and its port."""
    command = [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "rtmp"]
    command += ["--listen", "tcp:0:interface=127.0.0.1", *options]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=os.getcwd(), PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"Listening on 127\.0\.0\.1:(\d+)", line)
        if found:
            return process, int(found[1])
    raise SystemExit("the server did not start")


def measure(options: list[str], commands: bytes, media: bytes) -> tuple[float, float]:
    """Seconds that the publication took, and the server's CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process, port = serve(options, folder)
        with process, socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(commands)
            started = time.monotonic()
            for _ in range(TURNS):
                client.sendall(media)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65_536):
                pass  # the server closes when it has read everything
            seconds = time.monotonic() - started
            process.terminate()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    user = after.ru_utime - before.ru_utime
    return seconds, user + after.ru_stime - before.ru_stime


def main() -> None:
    """Measure and print a table."""
    messages = publication()
    print("chunk size  recorded      MB/s  CPU s/GB (starting the process included)")
    for chunkSize in (4096, 65_536):
        commands, media = encode(messages, chunkSize)
        size = TURNS * len(media)
        for what, options in (("no", ["--no-record"]), ("yes", ["--record", "rec"])):
            seconds, cpu = measure(options, commands, media)
            print(
                f"{chunkSize:10d}  {what:8s}  {size / seconds / 1e6:8.0f}"
                f"  {1e9 * cpu / size:8.2f}"
            )


if __name__ == "__main__":
    main()
