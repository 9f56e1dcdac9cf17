"""P20 and P22: no descriptors, no disk."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import time

import pytest
from promiseserver import KIB, MIB, Server
from scriptedpeer import DATA, VIDEO, HonestStream, Peer, numberedFrame, tagsOf

# P20


def test_outOfDescriptors(tmp_path):
    with Server(tmp_path, descriptors=100) as server:
        stream = HonestStream(server, "beside")
        server.waitFor("Recording honest/beside to")
        with contextlib.ExitStack() as peers:
            for _ in range(300):
                peer = peers.enter_context(socket.socket())
                peer.connect(("127.0.0.1", server.port))
            server.waitUntil(lambda: server.descriptors >= 95, "descriptors are left")
            # The stream goes on, and the accept loop does not spin.
            before = server.cpuSeconds
            began = time.monotonic()
            stream.goesOn(200)
            seconds = time.monotonic() - began
            assert server.cpuSeconds - before <= 0.4 * seconds + 0.2
        server.serves()
        stream.compare()
        server.noTraceback()
        assert len(server.lines) < 1500
        assert server.terminate() == 0


def test_noDescriptorForARecording(tmp_path):
    """The stream goes on without its file."""
    with Server(tmp_path) as server:
        stream = HonestStream(server, "beside")
        server.waitFor("Recording honest/beside to")
        # Room for two connections, not for their files.
        limit = server.descriptors + 2
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, 1000))
        with Peer(server.port) as first, Peer(server.port) as second:
            first.publishes("first")
            second.publishes("second")
            for number in range(50):
                first.sendMedia(VIDEO, numberedFrame(number), number * 40)
                second.sendMedia(VIDEO, numberedFrame(number), number * 40)
            server.waitFor("Recording of live/first stopped: ")
            server.waitFor("Recording of live/second stopped: ")
            first.ping(1)
            second.ping(1)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (1000, 1000))
        server.serves()
        stream.compare()
        server.noTraceback()


# P22


@contextlib.contextmanager
def smallDisk(folder, size):
    """A file system of its own, or the test is not run."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            command, check=False, stderr=subprocess.DEVNULL
        ).returncode
    )
    if not mounted:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(peer, start=0):
    """Publish 3 MB, in frames that a recording cannot lack unnoticed."""
    for number in range(start, start + 100):
        peer.sendMedia(VIDEO, numberedFrame(number, 30_000), number * 40)
    peer.ping(start)


def test_diskFull(tmp_path):
    with smallDisk(tmp_path / "disk", 2 * MIB):
        record = tmp_path / "disk" / "recordings"
        with Server(tmp_path, "--record", str(record)) as server:
            server.record = record
            with Peer(server.port) as peer:
                peer.publishes("full")
                peer.setChunkSize(1 << 16)
                _fill(peer)
                line = "Recording of live/full stopped: "
                server.waitFor(line)
                # The stream goes on: it is read, and says no more than one line.
                for number in range(1, 4):
                    _fill(peer, number * 100)
                # A key frame comes each second of the stream's time, while the disk
                # is full and after it is not.
                filler = record / "live"
                for name in os.listdir(filler):
                    (filler / name).unlink()
                number = 400

                def goesOn():
                    nonlocal number
                    peer.sendMedia(VIDEO, numberedFrame(number), number * 40)
                    number += 1
                    return server.count("Recording of live/full goes on") > 0 or any(
                        "full" in name for name in server.files()
                    )

                # Ten seconds after the failure, says the promise.
                server.waitUntil(goesOn, "it is never recorded again")
                assert server.count("live/full stopped: ") == 1
                peer.end()
            server.waitFor("live/full ended after .* lost")
            server.serves()
            server.noTraceback()
            assert server.count("No space left|disk full") <= 3
            assert server.terminate() == 0


def test_fileSizeLimit(tmp_path):
    limit = 200 * KIB
    with Server(tmp_path, fileSize=limit) as server:
        stream = HonestStream(server, "beside")
        with Peer(server.port) as peer:
            peer.publishes("large")
            peer.setChunkSize(1 << 16)
            _fill(peer)
            server.waitFor("Recording of live/large stopped: ")
            _fill(peer, 100)
            assert server.count("Recording of live/large stopped: ") == 1
            peer.end()
        server.waitFor("live/large ended after .* lost")
        # All that fits is there, and nothing but whole tags.
        for path in server.files("live/large-"):
            data = (server.record / path).read_bytes()
            assert len(data) <= limit
            tags = [tag for tag in tagsOf(data) if tag[0] != DATA]
            for tag in tags:
                assert tag[2] == numberedFrame(tag[1] // 40, 30_000)
        stream.stop()
        server.waitFor("honest/beside ended after")
        media = [
            tag for tag in tagsOf(server.recorded("honest/beside-")) if tag[0] != DATA
        ]
        assert media == stream.sent[: len(media)]
        server.serves()
        server.noTraceback()
        assert server.terminate() == 0


def test_removedFolder(tmp_path):
    with Server(tmp_path) as server:
        stream = HonestStream(server, "removed")
        server.waitFor("Recording honest/removed to")
        shutil.rmtree(server.record)
        server.waitFor("Recording of honest/removed stopped: ")
        # It is made again for what comes next.
        server.serves()
        assert server.files("live/")
        stream.goesOn(100)
        assert server.count("Recording of honest/removed stopped: ") == 1
        stream.stop()
        server.waitFor("honest/removed ended after")
        server.noTraceback()


def test_readOnlyFolder(tmp_path):
    """Where even the superuser cannot write: a folder's name is a file's."""
    with Server(tmp_path) as server:
        stream = HonestStream(server, "beside")
        server.waitFor("Recording honest/beside to")
        (server.record / "live").write_text("in the way")
        with Peer(server.port) as peer:
            peer.publishes("blocked")
            for number in range(100):
                peer.sendMedia(VIDEO, numberedFrame(number), number * 40)
            server.waitFor("Recording of live/blocked stopped: ")
            for number in range(100, 400):
                peer.sendMedia(VIDEO, numberedFrame(number), number * 40)
            peer.ping(1)
            assert server.count("live/blocked stopped: ") == 1
            peer.end()
        server.waitFor("live/blocked ended after .* lost")
        stream.compare()
        server.noTraceback()
