"""
The memory of a server: with many idle connections, players and publishers, and after.

Starts a server in a process of its own, connects to it over the loopback, and prints
its resident memory in each state::

    python benchmarks/memory.py

Publishers send as fast as real ones would, so it takes a minute and a half.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path

from twisted_rtmp.wire.connection import Connection, Role
from twisted_rtmp.wire.constants import NEED_DATA, MessageType
from twisted_rtmp.wire.handshake import ClientHandshake
from twisted_rtmp.wire.messages import Command, Message

TWISTD = (
    "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
)

#: Of one publisher: 25 frames of video a second and as many of audio, 1 Mb/s in all.
FRAMES_A_SECOND = 25
VIDEO_BYTES = 4_600
AUDIO_BYTES = 400

#: The tracks of video and audio of the stream with players of many forms.
VIDEO_TRACKS = 4
AUDIO_TRACKS = 5

SECONDS = 20

#: Connections that are opened at once.
AT_ONCE = 200
MIB = 1 << 20


class Server:
    """A server in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", TWISTD, "-n", "--pidfile=", "rtmp"),
                *("--listen", "tcp:0:interface=127.0.0.1", "--no-record"),
                *("--idle-timeout=3600", "--max-connections=16384"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found = re.search(r"Listening on [0-9.]+:(\d+) ", line)
            if found is not None:
                self.port = int(found[1])
                break
        else:
            raise SystemExit("the server did not start")
        self._log = subprocess.Popen(
            ["grep", "-aE", "is cut|refused|turned away|Traceback|memory"],
            stdin=self._process.stdout,
        )

    def memory(self) -> int:
        """Give its resident memory, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def descriptors(self) -> int:
        """Count its open descriptors."""
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    def end(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(30)
        self._log.wait(30)


class Peer:
    """
    A connection to the server.

    @ivar socket: its socket.
    """

    def __init__(self, port: int) -> None:
        """Open the connection, and say what can be said at once."""
        self.socket = socket.create_connection(("127.0.0.1", port), 60)
        self._wire = Connection(Role.CLIENT, handshake=ClientHandshake(digest=False))
        self._wire.start()
        self._send()

    def finish(self) -> None:
        """Shake hands, and connect."""
        while not self._wire.handshakeDone:
            self._receive()
        self._ask("connect", 1, {"app": "live", "tcUrl": "rtmp://127.0.0.1/live"})

    def _send(self) -> None:
        self.socket.sendall(self._wire.dataToSend())

    def _receive(self) -> list[Command]:
        data = self.socket.recv(65_536)
        if not data:
            raise SystemExit("the server has closed a connection")
        self._wire.feed(data)
        commands = []
        while (event := self._wire.nextEvent()) is not NEED_DATA:
            if isinstance(event, Command):
                commands.append(event)
        self._send()
        return commands

    def _ask(self, name: str, transactionId: float, *arguments: object) -> None:
        self._wire.sendCommand(name, transactionId, *arguments)
        self._send()
        while not any(each.name == "_result" for each in self._receive()):
            pass

    def begin(self, command: str, *arguments: object) -> None:
        """Publish or play."""
        self._ask("createStream", 2, None)
        self._wire.sendCommand(command, 3, None, *arguments, streamId=1)
        self._send()
        while not any(each.name == "onStatus" for each in self._receive()):
            pass
        self.socket.setblocking(False)

    def media(self, messages: list[Message]) -> None:
        """Send media; a peer that is not read loses none of the rest."""
        for message in messages:
            self._wire.sendMessage(
                message, 4 if message.typeId == MessageType.AUDIO else 6
            )
        self.socket.setblocking(True)
        self._send()
        self.socket.setblocking(False)


def connected(port: int, count: int) -> list[Peer]:
    """Connect so many peers, some at a time."""
    peers: list[Peer] = []
    while len(peers) < count:
        batch = [Peer(port) for _ in range(min(AT_ONCE, count - len(peers)))]
        for peer in batch:
            peer.finish()
        peers += batch
    return peers


def frames(number: int, tracks: bool) -> list[Message]:
    """Make the messages of a frame's time, of one track of each kind or of several."""
    milliseconds = number * 1000 // FRAMES_A_SECOND
    isKey = number % (2 * FRAMES_A_SECOND) == 0
    video, audio = random.randbytes(VIDEO_BYTES), random.randbytes(AUDIO_BYTES)
    if not tracks:
        start = b"\x17\x01\0\0\0" if isKey else b"\x27\x01\0\0\0"
        return [
            Message(MessageType.VIDEO, milliseconds, 1, start + video),
            Message(MessageType.AUDIO, milliseconds, 1, b"\xaf\x01" + audio),
        ]
    # Enhanced RTMP: one message a track, with its number.
    start = b"\x96" if isKey else b"\xa6"
    return [
        *(
            Message(
                MessageType.VIDEO,
                milliseconds,
                1,
                start
                + b"\x01avc1"
                + bytes((track, 0, 0, 0))
                + video[track::VIDEO_TRACKS],
            )
            for track in range(VIDEO_TRACKS)
        ),
        *(
            Message(
                MessageType.AUDIO,
                milliseconds,
                1,
                b"\x95\x01mp4a" + bytes((track,)) + audio[track::AUDIO_TRACKS],
            )
            for track in range(AUDIO_TRACKS)
        ),
    ]


class Studio:
    """
    The publishers.

    @ivar publishers: the first of them may send several tracks.
    """

    def __init__(self, publishers: list[Peer], *, tracks: bool) -> None:
        self.publishers = publishers
        self._tracks = tracks
        self._number = 0

    def play(self, players: list[Peer], seconds: float) -> int:
        """
        Send in real time, and let players read.

        @return: the bytes that the players got.
        """
        selector = selectors.DefaultSelector()
        for player in players:
            selector.register(player.socket, selectors.EVENT_READ)
        due = time.monotonic()
        got = 0
        for _ in range(int(seconds * FRAMES_A_SECOND)):
            for index, publisher in enumerate(self.publishers):
                publisher.media(frames(self._number, self._tracks and not index))
            self._number += 1
            due += 1 / FRAMES_A_SECOND
            while True:
                left = due - time.monotonic()
                for key, _ in selector.select(max(0.0, left)):
                    with contextlib.suppress(BlockingIOError):
                        got += len(key.fileobj.recv(1 << 20))  # type: ignore[union-attr]
                if left <= 0:
                    break
        selector.close()
        return got


class Table:
    """What is measured."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._first = self._last = server.memory()
        print(f"{'':52} {'MB':>7} {'more':>7} {'KB each':>8}")
        self.line("a server that has served a stream", 0)

    def line(self, what: str, count: int) -> None:
        """Measure."""
        now = self._server.memory()
        more = now - self._last
        each = f"{more / count / 1000:8.1f}" if count else ""
        print(f"{what:52} {now / 1e6:7.1f} {more / 1e6:7.1f} {each}", flush=True)
        self._last = now

    def end(self) -> None:
        """Tell what has remained."""
        remained = (self._server.memory() - self._first) / MIB
        print(f"remained: {remained:.1f} MiB")


def closeAll(server: Server, peers: list[Peer]) -> None:
    """Close connections, and wait until the server has."""
    left = server.descriptors() - len(peers)
    for peer in peers:
        peer.socket.close()
    peers.clear()
    while server.descriptors() > left:
        time.sleep(0.1)
    time.sleep(1)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--players", type=int, default=1000)
    parser.add_argument("--publishers", type=int, default=200)
    options = parser.parse_args()
    server = Server()
    try:
        measure(server, options.idle, options.players, options.publishers)
    finally:
        server.end()


def measure(server: Server, idle: int, players: int, publishers: int) -> None:
    """Bring a server into each state, and back."""
    publisher, player = connected(server.port, 2)
    publisher.begin("publish", "warm")
    player.begin("play", "warm")
    Studio([publisher], tracks=False).play([player], 2)
    closeAll(server, [publisher, player])
    table = Table(server)

    peers = connected(server.port, idle)
    table.line(f"{idle} idle connections", idle)
    closeAll(server, peers)
    table.line("gone", 0)

    sources = connected(server.port, publishers)
    for index, source in enumerate(sources):
        source.begin("publish", f"s{index}")
    studio = Studio(sources, tracks=True)
    studio.play([], 8)
    table.line(f"{publishers} publishers of 1 Mb/s", publishers)
    for index in range(players):
        if index % 25 == 0:
            studio.play(peers, 0.2)
        [viewer] = connected(server.port, 1)
        form = index % (VIDEO_TRACKS * AUDIO_TRACKS)
        video, audio = form % VIDEO_TRACKS, form // VIDEO_TRACKS
        viewer.begin("play", f"s0?video={video}&audio={audio}")
        peers.append(viewer)
    got = studio.play(peers, SECONDS)
    table.line(f"and {players} players of {VIDEO_TRACKS * AUDIO_TRACKS} forms", players)
    print(f"  (each has got {got / players / 1000:.0f} kB)")
    studio.play([], SECONDS)
    table.line("that take nothing any more for 20 s", players)
    closeAll(server, [*sources, *peers])
    table.line("gone", 0)
    table.end()


if __name__ == "__main__":
    main()
