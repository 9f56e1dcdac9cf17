"""P38, P40: what another server may cost, and what no command line and no log has."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import pytest
from promiseserver import KIB, MIB, Server
from scriptedpeer import COMMAND, PATIENCE, HonestStream, Peer, amf, command

#: The secret in the addresses of other servers.
SECRET = "s3cr3t"

RECONNECT = "NetConnection.Connect.ReconnectRequest"


class Accepted(Peer):
    """The other server's end of a connection of the server under test."""

    def __init__(self, accepted):
        self.socket = accepted
        self.socket.settimeout(PATIENCE)
        self.chunkSize = 128
        self.sentBytes = 0
        self.acknowledged = []
        self._data = bytearray()
        self._theirChunkSize = 128
        self._streams = {}

    def shakeHands(self):
        self._receive(1537)
        self.send(b"\x03" + bytes(1536) + bytes(self._data[1:1537]))
        self._receive(1537 + 1536)
        del self._data[:3073]

    def serve(self):
        """Let it publish or play whatever it wants."""
        self.shakeHands()
        while True:
            typeId, payload = self.nextMessage()
            if typeId == COMMAND and payload.startswith(amf("connect")):
                success = {"level": "status", "code": "NetConnection.Connect.Success"}
                self.send(command("_result", 1, {}, success))
            elif typeId == COMMAND and payload.startswith(amf("createStream")):
                # Its transaction id goes back as it came.
                at = len(amf("createStream"))
                self.send(command("_result", payload[at : at + 9], None, 1))
            elif typeId == COMMAND and payload.startswith(
                (amf("publish"), amf("play"))
            ):
                return

    def status(self, code, level="status", **more):
        properties = {"level": level, "code": code, **more}
        self.send(command("onStatus", 0, None, properties, streamId=1))


class OtherServer:
    """
    Another server, which treats each of its connections alike.

    @ivar connections: how many there have been.
    """

    def __init__(self, treat):
        """@param treat: called in a thread with each connection that wants a stream."""
        self.connections = 0
        self._treat = treat
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._listening.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._listening.accept()
                self.connections += 1
                threading.Thread(
                    target=self._serve, args=(accepted,), daemon=True
                ).start()

    def _serve(self, accepted):
        with contextlib.suppress(OSError), Accepted(accepted) as peer:
            peer.serve()
            self._treat(peer)


def askForMoves(done):
    """Ask for moves without end: to its own address, to nonsense, and at length."""

    def treat(peer):
        for number in range(400):
            large = "x" * 50_000
            for tcUrl in ("", f"/live?n={number}", f"rtmp://{large}", 7, "\x00"):
                peer.status(RECONNECT, tcUrl=tcUrl, description=large[: 9 * number])
        done.set()
        peer.waitForCut()

    return treat


# P38


def test_movesWithoutEnd(tmp_path):
    done = threading.Event()
    with (
        OtherServer(askForMoves(done)) as other,
        Server(
            tmp_path, "--push", f"honest/*=rtmp://127.0.0.1:{other.port}/live"
        ) as server,
    ):
        before = server.resetPeak()
        stream = HonestStream(server, "name")
        assert done.wait(PATIENCE)
        assert other.connections <= 8, "5 moves, and one connection before them"
        assert server.peak - before <= 32 * MIB
        assert len(server.text) <= 32 * KIB
        stream.compare()
        server.serves()
        server.noTraceback()
        assert server.terminate() == 0


def test_aTargetThatEndsAllTheTime(tmp_path):
    """It accepts each publication and resets the connection at once."""
    with (
        OtherServer(Peer.reset) as other,
        Server(
            tmp_path, "--push", f"honest/*=rtmp://127.0.0.1:{other.port}/live"
        ) as server,
    ):
        stream = HonestStream(server, "name")
        server.waitFor("push of honest/name .*: waiting, since ", 3)
        assert other.connections <= 4
        assert len(server.text) <= 16 * KIB
        stream.compare()
        server.noTraceback()
        assert server.terminate() == 0


# P40


def repeating(peer):
    """Repeat the key in every word, and end."""
    peer.status(RECONNECT, description=f"Key {SECRET}.", tcUrl=f"/live?{SECRET}")
    words = f"No {SECRET}: name?token={SECRET} is taken."
    peer.status(f"NetStream.{SECRET}.Failed", "error", description=words)
    peer.waitForCut()


@pytest.mark.parametrize("kind", ["push", "pull", "origin"])
def test_noSecretIsShown(tmp_path, kind):
    with OtherServer(repeating) as other:
        address = f"rtmp://user:{SECRET}@127.0.0.1:{other.port}/live"
        line = {
            "push": f"honest/*={address}/{SECRET}",
            "pull": f"live/copy={address} name?token={SECRET}",
            "origin": address,
        }[kind]
        file = tmp_path / "addresses"
        file.write_text(f"# where to\n{line}\n")
        with (
            Server(tmp_path, f"--{kind}-file", str(file)) as server,
            Peer(server.port) as player,
        ):
            stream = HonestStream(server, "name")
            if kind == "origin":
                player.open()
                player.createStream()
                player.send(command("play", 0, None, "wanted", streamId=1))
            server.waitFor(
                rf"{kind if kind == 'push' else 'pull'} of .*: waiting, since"
            )
            stream.compare()
            if kind != "origin":
                assert SECRET not in server.text
            assert f":{SECRET}" not in server.text, "no password"
            arguments = Path(f"/proc/{server.pid}/cmdline").read_bytes()
            assert SECRET.encode() not in arguments
            server.noTraceback()
            assert server.terminate() == 0
