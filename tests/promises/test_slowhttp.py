"""P4, P9, P13 by HTTP: who asks slowly, and who does not take what it asked for."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from httpclient import FLV
from promiseserver import MIB, Server
from scriptedpeer import AVC_HEADER, PATIENCE, VIDEO
from watching import GOP, RECEIVE_BUFFER, Stream

OPTIONS = ("--http", "tcp:0:interface=127.0.0.1", "--request-timeout", "3")

UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def httpPort(server):
    return int(server.waitFor(r"Listening on [0-9.]+:(\d+) \(HTTP")[1])


class Viewer:
    """
    A player, by a response or a WebSocket.

    @ivar numbers: of the frames that it has got, in order.
    """

    def __init__(self, server, name, byWebSocket, receiveBuffer=RECEIVE_BUFFER):
        self._socket = socket.socket()
        self._socket.settimeout(PATIENCE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receiveBuffer)
        self._socket.connect(("127.0.0.1", httpPort(server)))
        host, port = self._socket.getsockname()
        self.address = f"{host}:{port}"
        self._byWebSocket = byWebSocket
        self._flv = FLV()
        request = f"GET /live/{name}.flv HTTP/1.1\r\nHost: localhost\r\n"
        request += UPGRADE if byWebSocket else ""
        self._socket.sendall(f"{request}\r\n".encode())
        how = "WebSocket" if byWebSocket else "HTTP"
        server.waitFor(f"{self.address} plays live/{name} by {how}")
        self._file = self._socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._file.close()
        self._socket.close()

    @property
    def numbers(self):
        return [
            int.from_bytes(payload[5:9], "big")
            for typeId, _, payload in self._flv.tags
            if typeId == VIDEO and payload != AVC_HEADER
        ]

    def begin(self):
        """Read the head of the response."""
        status = self._file.readline()
        assert status.split()[1] == (b"101" if self._byWebSocket else b"200")
        while self._file.readline() != b"\r\n":
            pass

    def readPiece(self):
        """
        Read a chunk or a message.

        @return: whether it was not the end.
        """
        if self._byWebSocket:
            opcode, size = self._file.read(2)
            if size > 125:
                size = int.from_bytes(self._file.read(2 if size == 126 else 8), "big")
            data = self._file.read(size)
            if opcode == 0x88:
                return False
            assert opcode == 0x82
        else:
            data = self._file.read(int(self._file.readline(), 16))
            assert self._file.readline() == b"\r\n"
            if not data:
                assert not self._file.read()
                return False
        self._flv.feed(data)
        return True

    def readSome(self, size):
        """Read so many bytes, of whatever it is."""
        assert len(self._file.read(size)) == size

    def upTo(self, frames):
        """Read until there have been so many frames."""
        while len(self.numbers) < frames:
            assert self.readPiece()


def test_manyPlayersThatNeverRead(server):
    """They cost little, and others nothing."""
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(Stream(server, "crowd"))
        normal = [
            stack.enter_context(Viewer(server, "crowd", byWebSocket, MIB))
            for byWebSocket in (False, True)
        ]
        stream.go()
        for viewer in normal:
            viewer.begin()
            viewer.upTo(stream.frames)
        before = server.resetPeak()
        crowd = [
            stack.enter_context(Viewer(server, "crowd", byWebSocket))
            for byWebSocket in (False, True) * 20
        ]
        for _ in range(20):
            stream.go()
            for viewer in normal:
                viewer.upTo(stream.frames)
        # 20 MB for each of 40.  They share what waits for them; the transport of each
        # has some of its own.
        assert server.peak - before <= 64 * MIB
        stream.end()
        for viewer in normal:
            while viewer.readPiece():
                pass
            assert viewer.numbers == list(range(stream.frames))
            assert server.count(f"{viewer.address} does not keep up with") == 0
        for viewer in crowd:
            assert server.count(f"{viewer.address} does not keep up with") == 1
    for viewer in crowd:
        lost = server.waitFor(rf"{viewer.address} got .* bytes; (\d+) were dropped")
        assert int(lost[1]) > 10 * GOP


def test_aThousandThatAskSlowly(server, honest):
    """They are cheap, none of their bytes puts anything off, and nobody minds."""
    before = server.resident
    with contextlib.ExitStack() as stack:
        sockets = []
        for _ in range(1000):
            slow = socket.create_connection(("127.0.0.1", httpPort(server)), PATIENCE)
            sockets.append(stack.enter_context(slow))
            slow.sendall(b"GET /live/key.flv HTTP/1.1\r\nHost: ")
        server.waitUntil(lambda: server.descriptors > 1000, "they are not taken in")
        honest.goesOn()
        assert server.resident - before <= 32 * MIB
        server.waitFor("is cut: no complete request within 3 s", 1000)
        for slow in sockets:
            assert slow.recv(1) == b""


def test_manyRequestsWhoseAnswersNobodyReads(server, honest):
    """P12: the server stops to read them, and cuts who sends them."""
    before = server.resetPeak()
    requests = b"HEAD / HTTP/1.1\r\n\r\n" * 50_000
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            peer = stack.enter_context(socket.socket())
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            peer.connect(("127.0.0.1", httpPort(server)))
            peer.settimeout(1)
            # The system takes some megabytes.
            with contextlib.suppress(TimeoutError, ConnectionError):
                for _ in range(100):
                    peer.sendall(requests)
                raise AssertionError("it reads on")
        honest.goesOn()
        assert server.peak - before <= 16 * MIB


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    """A server that does not wait for long."""
    folder = tmp_path_factory.mktemp("impatient")
    with Server(folder, *OPTIONS, "--drain-timeout=1") as server:
        yield server
        server.noTraceback()
        assert server.terminate() == 0


@pytest.mark.parametrize("byWebSocket", [False, True], ids=["response", "socket"])
def test_whoReadsNothingByHTTPIsCut(impatient, byWebSocket):
    """From the start, or from the middle on, or at the end; others stay."""
    name = f"cut{byWebSocket}"
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(Stream(impatient, name))
        never = stack.enter_context(Viewer(impatient, name, byWebSocket))
        stopping = stack.enter_context(Viewer(impatient, name, byWebSocket))
        slow = stack.enter_context(Viewer(impatient, name, byWebSocket))
        stream.go()
        stopping.begin()
        stopping.upTo(GOP)
        stream.go(10)
        ending = threading.Event()

        def readSlowly():
            # It takes much longer than the server's patience to have taken what its
            # transport alone holds.
            while not ending.wait(0.1):
                slow.readSome(10_000)

        reader = threading.Thread(target=readSlowly)
        reader.start()
        for viewer in (never, stopping):
            impatient.waitFor(f"{viewer.address} is cut: it takes nothing for 1 s")
        last = stack.enter_context(Viewer(impatient, name, byWebSocket))
        stream.go(10)
        stream.end()
        impatient.waitFor(rf"{last.address} got \d+ messages")
        ending.set()
        reader.join()
        assert impatient.count(f"{slow.address} is cut") == 0
        for viewer in (never, stopping, last):
            assert impatient.count(f"{viewer.address} is cut: ") == 1
