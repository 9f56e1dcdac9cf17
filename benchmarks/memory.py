"""
The memory of a server: with many idle connections, publishers and players, and after.

Starts a server in a process of its own, connects to it over the loopback, and prints
its resident memory in each state::

    python benchmarks/memory.py

Publishers send as fast as real ones would, so it takes three minutes.  It ends with
status 1 if something that it waited for did not come, or if more memory remained than
a server may keep.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted_rtmp.freeing import LOOK_SECONDS
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

#: By how much larger the frames of the stream with players are while these take
#: nothing: the kernel keeps the first MB a player, and else nothing would wait in the
#: server.
LARGER = 10

#: The tracks of video and audio of the stream with players of many forms.
VIDEO_TRACKS = 4
AUDIO_TRACKS = 5
FORMS = VIDEO_TRACKS * AUDIO_TRACKS

#: Connections that are opened at once.
AT_ONCE = 200

#: Players that begin before the publishers send again, and for how long these do then.
PLAYERS_AT_ONCE = 25
SENDING_BETWEEN = 0.2

#: For players, in bytes: the largest segment, as over Ethernet, and the kernel's buffer
#: of what was received.  With the loopback's segments of 64 KiB the kernel would hold
#: 4 MB a player, and the server nothing of what players do not take.
SEGMENT = 1_448
RECEIVE_BUFFER = 8_192

#: For anything that is waited for, in seconds: far above what it takes.
PATIENCE = 60.0

#: Open files that are not those of connections, in this process and the server's.
OTHER_FILES = 64

#: What a server may keep of all that, in bytes, above one that has served one stream.
MAY_REMAIN = 16e6

#: Lines of the server's log that say that it did not serve everybody.
COMPLAINTS = re.compile(
    r"is cut|refused|turned away|Traceback|\bof memory\b|MiB of|left out"
)
SHOWN_COMPLAINTS = 10


class GoneWrong(Exception):
    """A server or a connection that is not as it must be."""


class Server:
    """
    A server in a process of its own.

    @ivar port: where it listens.
    """

    def __init__(self, folder: Path, connections: int) -> None:
        """
        @param folder: for its log.  A pipe would fill while nobody reads it, and then
            the server would wait.
        @param connections: as many may be open at a time, all from one address, which
            may have 7/8 of all.
        """
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-c", TWISTD, "-n", "--pidfile=", "rtmp"),
                    *("--listen", "tcp:0:interface=127.0.0.1", "--no-record"),
                    f"--max-connections={max(16_384, connections * 8 // 7 + 1)}",
                    # Nobody is cut for doing nothing: that is what is measured.
                    *("--idle-timeout=3600", "--drain-timeout=3600"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self.waitFor("its port in the log", self._listens)
        except BaseException:
            self._process.kill()
            raise

    def _listens(self) -> bool:
        found = re.search(r"Listening on [0-9.]+:(\d+) ", self._log.read_text())
        if found is not None:
            self.port = int(found[1])
        return found is not None

    def waitFor(self, what: str, happened: Callable[[], bool]) -> None:
        """Look again and again whether something has happened."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            if self._process.poll() is not None:
                raise GoneWrong(f"the server must run; status {self._process.poll()}")
            if time.monotonic() > deadline:
                raise GoneWrong(f"{what} must come within {PATIENCE:.0f} s")
            time.sleep(0.05)

    def memory(self) -> int:
        """Give its resident memory, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        if found is None:
            raise GoneWrong("the server must run; it has no memory any more")
        return int(found[1]) * 1024

    def cpuSeconds(self) -> float:
        """Give the processor time that it has taken."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / 100

    def descriptors(self) -> int:
        """Count its open descriptors."""
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    def complaints(self) -> list[str]:
        """List the lines of its log that must not be there."""
        lines = self._log.read_text(errors="replace").splitlines()
        return [line for line in lines if COMPLAINTS.search(line)]

    def end(self) -> None:
        """Stop it."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise GoneWrong(f"the server must stop within {PATIENCE:.0f} s") from None


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say what was waited for where that went wrong."""
    try:
        yield
    except TimeoutError:
        raise GoneWrong(f"{what} must come within {PATIENCE:.0f} s") from None
    except OSError as error:
        raise GoneWrong(f"{what} must come; instead: {error}") from None


class Peer:
    """
    A connection to the server.

    @ivar socket: its socket, whose waits end.
    @ivar who: for messages.
    """

    def __init__(self, port: int, who: str, *, isPlayer: bool = False) -> None:
        """Open the connection, and say what can be said at once."""
        self.who = who
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        # Else the kernel keeps the second of two small messages until the server's
        # has acknowledged the first: for 40 ms, ten thousand times.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if isPlayer:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._wire = Connection(Role.CLIENT, handshake=ClientHandshake(digest=False))
        with waiting(f"the connection of {who}"):
            self.socket.connect(("127.0.0.1", port))
        self._wire.start()
        self._send()

    def finish(self) -> None:
        """Shake hands, and connect."""
        while not self._wire.handshakeDone:
            self._receive("the handshake")
        self._ask("connect", 1, {"app": "live", "tcUrl": "rtmp://127.0.0.1/live"})

    def _send(self) -> None:
        with waiting(f"room for what is sent by {self.who}"):
            self.socket.sendall(self._wire.dataToSend())

    def _receive(self, what: str) -> list[Command]:
        with waiting(f"{what} for {self.who}"):
            data = self.socket.recv(65_536)
        if not data:
            raise GoneWrong(
                f"{what} for {self.who} must come; the server closed the connection"
            )
        self._wire.feed(data)
        commands = []
        while (event := self._wire.nextEvent()) is not NEED_DATA:
            if isinstance(event, Command):
                commands.append(event)
        self._send()
        return commands

    def _await(self, name: str, what: str) -> None:
        while not any(each.name == name for each in self._receive(what)):
            pass

    def _ask(self, name: str, transactionId: float, *arguments: object) -> None:
        self._wire.sendCommand(name, transactionId, *arguments)
        self._send()
        self._await("_result", f"the answer to {name}")

    def begin(self, command: str, *arguments: object) -> None:
        """Publish or play."""
        self._ask("createStream", 2, None)
        self._wire.sendCommand(command, 3, None, *arguments, streamId=1)
        self._send()
        self._await("onStatus", f"the answer to {command}")

    def media(self, messages: list[Message]) -> None:
        """Send media."""
        for message in messages:
            self._wire.sendMessage(
                message, 4 if message.typeId == MessageType.AUDIO else 6
            )
        self._send()


def connected(
    port: int, count: int, who: str, *, arePlayers: bool = False
) -> list[Peer]:
    """Connect so many peers, some at a time."""
    peers: list[Peer] = []
    while len(peers) < count:
        batch = [
            Peer(port, f"{who} {number + 1} of {count}", isPlayer=arePlayers)
            for number in range(len(peers), min(len(peers) + AT_ONCE, count))
        ]
        for peer in batch:
            peer.finish()
        peers += batch
    return peers


#: Payloads, made before.
_VIDEO = [random.randbytes(LARGER * VIDEO_BYTES) for _ in range(FRAMES_A_SECOND)]
_AUDIO = [random.randbytes(AUDIO_BYTES) for _ in range(FRAMES_A_SECOND)]


def frames(number: int, *, tracks: bool, larger: int = 1) -> list[Message]:
    """Make the messages of a frame's time, of one track of each kind or of several."""
    milliseconds = number * 1000 // FRAMES_A_SECOND
    isKey = number % (2 * FRAMES_A_SECOND) == 0
    video, audio = random.choice(_VIDEO)[: larger * VIDEO_BYTES], random.choice(_AUDIO)
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

    @ivar publishers: the first of them sends several tracks, if so wished.
    @ivar latest: how much later than in real time a frame was sent at most, in seconds.
    """

    def __init__(self, publishers: list[Peer], *, tracks: bool) -> None:
        self.publishers = publishers
        self.latest = 0.0
        self._tracks = tracks
        self._number = 0
        self._buffer = bytearray(1 << 20)

    def play(self, players: list[Peer], seconds: float, larger: int = 1) -> int:
        """
        Send in real time, and let players read.

        @param larger: for frames of the first publisher, of so many times the size.
        @return: the bytes that the players got.
        """
        with selectors.DefaultSelector() as selector:
            for player in players:
                player.socket.setblocking(False)
                selector.register(player.socket, selectors.EVENT_READ, player)
            due = time.monotonic()
            got = 0
            for _ in range(int(seconds * FRAMES_A_SECOND)):
                self._sendFrames(larger)
                due += 1 / FRAMES_A_SECOND
                while True:
                    left = due - time.monotonic()
                    for key, _events in selector.select(max(0.0, left)):
                        got += self._read(key.data)
                    if left <= 0:
                        break
                self.latest = max(self.latest, -left)
            return got

    def _sendFrames(self, larger: int) -> None:
        """Send a frame's time from each publisher."""
        one = frames(self._number, tracks=False)
        many = frames(self._number, tracks=True, larger=larger) if self._tracks else one
        for index, publisher in enumerate(self.publishers):
            publisher.media(one if index else many)
        self._number += 1

    def _read(self, player: Peer) -> int:
        with waiting(f"media for {player.who}"):
            try:
                size = player.socket.recv_into(self._buffer)
            except BlockingIOError:
                return 0
        if not size:
            raise GoneWrong(f"{player.who} must be served; the server closed it")
        return size


class Table:
    """
    What is measured.

    @ivar remained: how much more the server takes than it did first, in bytes.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._first = self._last = server.memory()
        print(f"{'':56} {'MB':>7} {'more':>7} {'KB each':>8}")
        self.line("a server that has served a stream")

    @property
    def remained(self) -> int:
        return self._last - self._first

    def line(self, what: str, count: int = 0) -> None:
        """Measure."""
        now = self._server.memory()
        more = now - self._last
        each = f"{more / count / 1000:8.1f}" if count else ""
        print(f"{what:56} {now / 1e6:7.1f} {more / 1e6:7.1f} {each}", flush=True)
        self._last = now


@contextmanager
def keepingUp(server: Server, studio: Studio) -> Iterator[None]:
    """Print the work of the server and of this process meanwhile."""
    studio.latest = 0.0
    began, own, others = time.monotonic(), time.process_time(), server.cpuSeconds()
    yield
    seconds = time.monotonic() - began
    print(
        f"  (sent at most {1000 * studio.latest:.0f} ms late; the load took"
        f" {100 * (time.process_time() - own) / seconds:.0f} % of a core, the server"
        f" {100 * (server.cpuSeconds() - others) / seconds:.0f} %)",
        flush=True,
    )


def closeAll(server: Server, peers: list[Peer], settle: float) -> None:
    """Close connections, and wait until the server has, and has freed their memory."""
    left = server.descriptors() - len(peers)
    for peer in peers:
        peer.socket.close()
    what = f"the end of {len(peers)} connections in the server"
    peers.clear()
    server.waitFor(what, lambda: server.descriptors() <= left)
    time.sleep(settle)


def allowFiles(count: int) -> None:
    """
    Let this process, and the server with it, open so many files.

    @raise GoneWrong: the system does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            raise GoneWrong(f"{count} open files must be allowed: ulimit -Hn {count}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


class Measurement:
    """
    The states into which a server is brought, one after the other.

    @ivar table: what was measured.
    """

    def __init__(self, server: Server, seconds: float, settle: float) -> None:
        """
        Serve one stream, and begin.

        @param seconds: for each state with streams.
        @param settle: how long the server has to give memory back.
        """
        self._server = server
        self._seconds = seconds
        self._settle = settle
        [publisher] = connected(server.port, 1, "publisher")
        [player] = connected(server.port, 1, "player")
        publisher.begin("publish", "warm")
        player.begin("play", "warm")
        Studio([publisher], tracks=False).play([player], min(seconds, 2))
        closeAll(server, [publisher, player], settle)
        self.table = Table(server)

    def idle(self, count: int) -> None:
        """Measure connections that do nothing."""
        peers = connected(self._server.port, count, "idle connection")
        self.table.line(f"{count} idle connections", count)
        closeAll(self._server, peers, self._settle)
        self.table.line("gone")

    def streams(self, publishers: int, players: int) -> None:
        """Measure publishers, and players of the first one's stream."""
        server, table = self._server, self.table
        sources = connected(server.port, publishers, "publisher")
        for index, source in enumerate(sources):
            source.begin("publish", f"s{index}")
        studio = Studio(sources, tracks=True)
        with keepingUp(server, studio):
            studio.play([], self._seconds)
        table.line(f"{publishers} publishers of 1 Mb/s", publishers)
        viewers = self._viewers(studio, players)
        with keepingUp(server, studio):
            got = studio.play(viewers, self._seconds)
        table.line(f"and {players} players of {min(players, FORMS)} forms", players)
        print(f"  (each has got {got / players / 1000:.0f} kB)")
        with keepingUp(server, studio):
            studio.play([], self._seconds, LARGER)
        table.line(f"that take nothing any more, for {self._seconds:g} s", players)
        closeAll(server, [*sources, *viewers], self._settle)
        table.line("gone")

    def _viewers(self, studio: Studio, count: int) -> list[Peer]:
        """Connect players, a few at a time, while the publishers go on."""
        viewers: list[Peer] = []
        while len(viewers) < count:
            batch = connected(
                self._server.port,
                min(PLAYERS_AT_ONCE, count - len(viewers)),
                f"player, after {len(viewers)},",
                arePlayers=True,
            )
            for index, viewer in enumerate(batch, len(viewers)):
                form = index % FORMS
                video, audio = form % VIDEO_TRACKS, form // VIDEO_TRACKS
                viewer.begin("play", f"s0?video={video}&audio={audio}")
            viewers += batch
            studio.play(viewers, SENDING_BETWEEN)
        return viewers


def positive(text: str) -> int:
    """Read a number of peers."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--idle", type=positive, default=10_000)
    parser.add_argument("--players", type=positive, default=1000)
    parser.add_argument("--publishers", type=positive, default=200)
    parser.add_argument(
        "--seconds", type=float, default=20, help="for each state with streams"
    )
    parser.add_argument(
        "--settle",
        type=float,
        default=2 * LOOK_SECONDS + 2,
        help="seconds that the server has to give memory back",
    )
    options = parser.parse_args()
    connections = max(options.idle, options.players + options.publishers)
    try:
        allowFiles(connections + OTHER_FILES)
        with tempfile.TemporaryDirectory() as folder:
            server = Server(Path(folder), connections)
            try:
                measurement = Measurement(server, options.seconds, options.settle)
                measurement.idle(options.idle)
                measurement.streams(options.publishers, options.players)
            finally:
                complaints = server.complaints()
                for line in complaints[:SHOWN_COMPLAINTS]:
                    print(line, file=sys.stderr)
                server.end()
        if complaints:
            raise GoneWrong(
                f"the log must have no complaints; it has {len(complaints)}"
            )
        remained = measurement.table.remained
        print(f"remained: {remained / 1e6:.1f} MB")
        if remained > MAY_REMAIN:
            raise GoneWrong(f"at most {MAY_REMAIN / 1e6:.0f} MB must remain")
    except GoneWrong as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
