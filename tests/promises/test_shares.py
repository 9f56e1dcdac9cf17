"""P30, P31, P34, P36, P37: what one peer and one address may take of what all need."""

from __future__ import annotations

import contextlib
import signal
import time

import pytest
from promiseserver import KIB, MIB, Server
from scriptedpeer import (
    VIDEO,
    HonestStream,
    Peer,
    command,
    header,
    numberedFrame,
    setChunkSize,
)
from watching import GOP, Stream, Viewer

OPTIONS = ("--http", "tcp:0:interface=127.0.0.1")

#: An address beside that of the honest stream, and another one.
HOSTILE, OTHER = "127.0.0.2", "127.0.0.3"


# P30


def test_aStallOfTheServerIsNobodysSilence(tmp_path):
    """
    While the server stands still, longer than any of its limits, a publisher's bytes
    and an attacker's wait in the kernel: the publisher keeps its name.
    """
    limits = "--silent-seconds=1", "--publisher-idle=1", "--idle-timeout=1"
    with Server(tmp_path, *limits, "--drain-timeout=1") as server:
        stream = HonestStream(server, "name")
        with Peer(server.port, host=HOSTILE) as hostile:
            hostile.open("honest")
            hostile.createStream()
            stream.goesOn()
            server.signal(signal.SIGSTOP)
            hostile.send(command("publish", 0, None, "name", streamId=1))
            time.sleep(3)
            server.signal(signal.SIGCONT)
            server.waitFor(f"{hostile.address} is refused|{hostile.address} publishes")
        stream.compare()
        server.noTraceback()
        assert server.terminate() == 0


# P31


def test_oneAddressKeepsNoMoreThanItsShare(server, honest):
    """Each connection keeps less than its own bound, but all together too much."""
    size = 8 * MIB
    unfinished = setChunkSize(size) + header(6, VIDEO, size, 0, 1)
    before = server.resetPeak()
    with contextlib.ExitStack() as peers:
        other = peers.enter_context(Peer(server.port, host=OTHER))
        other.publishes("other")
        other.send(unfinished + numberedFrame(0, size)[:-1])
        for _ in range(30):
            peer = peers.enter_context(Peer(server.port, host=HOSTILE))
            # The address is over its bound already, or the peer takes it there.
            with contextlib.suppress(ConnectionError):
                peer.open()
                peer.send(unfinished + bytes(size - 1))
        server.waitFor(rf"{HOSTILE}:\d+ is cut: its address takes 64.0 of 64 MiB")
        assert server.peak - before <= (64 + 8 + 32) * MIB
        other.send(numberedFrame(0, size)[-1:])
        other.chunkSize = size
        other.end()
        server.waitFor("live/other ended after .* 1 video ")


# P34


def test_oneAddressNeverTakesAllPlaces(tmp_path):
    with Server(tmp_path, "--max-connections=40") as server:
        with contextlib.ExitStack() as peers:
            for _ in range(60):
                peers.enter_context(Peer(server.port, host=HOSTILE))
            for _ in range(3):
                peer = peers.enter_context(Peer(server.port, host=OTHER))
                peer.open()
            stream = HonestStream(server, "name")
            stream.compare()
        server.serves()
        server.noTraceback()
        assert server.terminate() == 0


# P36


def test_formsOfPlayersCostLittle(server):
    """Each of a hundred players has a message stream id that nobody else has."""
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(Stream(server, "forms", 280 * KIB))
        stream.go()
        normal = stack.enter_context(Viewer(server, "forms", 1 * MIB))
        normal.upTo(stream.frames)
        before = server.resetPeak()
        for number in range(100):
            stack.enter_context(Viewer(server, "forms", streamId=1000 + number))
        stream.go()
        normal.upTo(stream.frames)
        assert server.peak - before <= 64 * MIB
        assert normal.numbers == list(range(2 * GOP))


# P37

#: What the log may say of an address besides what it has paid for, in bytes: at once,
#: and in each second.
LOG_BURST = 64 * KIB
LOG_RATE = 1 * KIB

#: The longest lines that may be owed, and what is said of a short stream, in bytes.
SOME_LINES = 2 * KIB


def httpPort(server):
    return int(server.waitFor(r"Listening on [0-9.]+:(\d+) \(HTTP")[1])


def playsNothing(peer):
    """Play streams that are not there, by the shortest commands."""
    peer.open()
    peer.send(command("play", 0, None, "x", streamId=1) * 60)
    peer.ping(1)


def sendsGarbage(peer):
    peer.trySend(b"\xff")
    peer.waitForCut()


def breaksARule(peer):
    peer.open()
    peer.send(setChunkSize(0))
    peer.waitForCut()


def asksBadly(peer):
    peer.send(b"GET /live/x.flv HTTP/1.1\r\n\xff: \xff\r\nHost: a\r\n\r\n")
    peer.finishSending()
    peer.waitForCut()


ATTACKS = [playsNothing, sendsGarbage, breaksARule, asksBadly]


@pytest.mark.parametrize("attack", ATTACKS)
def test_theLogGrowsNoFasterThanWhatIsSent(server, attack):
    port = httpPort(server) if attack is asksBadly else server.port
    host = f"127.0.1.{ATTACKS.index(attack)}"  # for which nobody has paid yet
    server.serves()  # all that there was to say of others has been said
    before, sent, began = len(server.log), 0, time.monotonic()
    for _ in range(100):
        with Peer(port, host=host) as peer, contextlib.suppress(ConnectionError):
            attack(peer)
        sent += peer.sentBytes
        free = LOG_BURST + LOG_RATE * (time.monotonic() - began) + SOME_LINES
        assert len(server.log) - before <= sent + free
    server.serves()
    assert len(server.log) - before <= sent + free + SOME_LINES
