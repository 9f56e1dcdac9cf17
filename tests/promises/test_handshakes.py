"""P1 to P5, P9 and P21: what comes before a connection is one."""

from __future__ import annotations

import contextlib
import random
import select
import signal
import socket
import time

import pytest
from promiseserver import MIB
from scriptedpeer import PATIENCE, Peer, command, message

OPTIONS = (
    "--handshake-timeout=3",
    "--connect-timeout=1",
    "--idle-timeout=1",
    "--publisher-idle=1",
    "--player-wait=1",
    "--drain-timeout=1",
)

TLS_HELLO = bytes.fromhex(
    "16030100c8010000c40303" + "5a" * 32 + "20" + "a5" * 32 + "0004130213010100"
)


@pytest.mark.parametrize(
    "data",
    [
        b"GET /live/stream.flv HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /open/1 HTTP/1.1\r\nContent-Length: 1\r\n\r\n\x00",
        TLS_HELLO,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00" * 4000,
        b"\xff" * 4000,
        b"\n" * 4000,
        b"OPTIONS rtsp://localhost/ RTSP/1.0\r\nCSeq: 1\r\n\r\n",
    ],
    ids=["http", "rtmpt", "tls", "ssh", "zeros", "ones", "newlines", "rtsp"],
)
def test_anotherProtocolIsCut(server, honest, data):
    with Peer(server.port) as peer:
        peer.trySend(data)
        peer.waitForCut()


def test_garbageIsCut(server, honest):
    source = random.Random(77)
    for _ in range(50):
        with Peer(server.port) as peer:
            data = source.randbytes(source.randrange(1, 9000))
            if source.random() < 0.7:
                data = b"\x03" + data
            peer.trySend(data)
            peer.finishSending()
            peer.waitForCut()


def test_garbageAfterTheHandshakeIsCut(server, honest):
    source = random.Random(78)
    for _ in range(50):
        with Peer(server.port) as peer:
            peer.shakeHands()
            peer.trySend(source.randbytes(source.randrange(1, 9000)))
            peer.finishSending()
            peer.waitForCut()


def test_garbageAfterConnectIsCut(server, honest):
    source = random.Random(79)
    for _ in range(50):
        with Peer(server.port) as peer:
            peer.open()
            # Of a length that is let through, so that many types are reached.
            for _ in range(20):
                payload = source.randbytes(source.randrange(0, 300))
                typeId = source.choice((1, 2, 3, 4, 5, 6, 8, 9, 15, 17, 18, 20, 22))
                sent = peer.trySend(message(source.randrange(2, 9), typeId, payload))
                if not sent:
                    break
            peer.finishSending()
            peer.waitForCut()


def test_trickledHandshakeHasADeadlineFromAccept(server, honest):
    pattern = "no complete handshake within 3 s"
    cuts = server.count(pattern)
    with Peer(server.port) as peer:
        peer.send(b"\x03")
        sent = 1
        peer.socket.settimeout(0.1)
        while True:
            # A byte each 0.1 s: whatever restarts at a byte never ends, until the
            # handshake is complete 300 s later.
            try:
                if not peer.socket.recv(1 << 16):
                    break
            except TimeoutError:
                pass
            except ConnectionError:
                break
            if not peer.trySend(b"\x00"):
                break
            sent += 1
            assert sent < 1000
    server.waitFor(pattern, times=cuts + 1)
    assert server.count(pattern) == cuts + 1


def test_silenceIsCut(server, honest):
    with Peer(server.port) as peer:
        peer.waitForCut()


def test_silenceAfterTheHandshakeIsCut(server, honest):
    with Peer(server.port) as peer:
        peer.shakeHands()
        peer.waitForCut()
    server.waitFor(f"{peer.address} is cut: not connected within 1 s")


def test_uselessConnectionIsCutThoughItPings(server, honest):
    with Peer(server.port) as peer:
        peer.open()
        until = time.monotonic() + PATIENCE
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < until:
                peer.ping(1)
    server.waitFor(f"{peer.address} is cut: neither publishes nor plays for 1 s")


def test_publisherWithoutMediaIsCut(server, honest):
    with Peer(server.port) as peer:
        peer.publishes("nothing")
        peer.waitForCut()
    server.waitFor(f"{peer.address} is cut: no audio or video for 1 s")
    server.waitFor("live/nothing ended after")


def test_playerOfAMissingStreamIsCut(server, honest):
    with Peer(server.port) as peer:
        peer.open()
        peer.createStream()
        peer.send(command("play", 0, None, "missing", streamId=1))
        peer.waitForCut()


def test_thousandHalfOpenConnectionsAreCheap(server, honest):
    server.serves()
    before = server.resetPeak()
    with contextlib.ExitStack() as peers:
        for number in range(1000):
            peer = peers.enter_context(Peer(server.port))
            # Nothing at all; a piece of C1; and everything but the end of it.
            peer.trySend(bytes((3,)) * (0, 700, 1536)[number % 3])
        server.serves()
        assert server.peak - before <= 32 * MIB


def test_backlogHoldsABurst(server, honest):
    server.signal(signal.SIGSTOP)
    try:
        peers = _connectAll(server.port, 1000)
    finally:
        server.signal(signal.SIGCONT)
    for peer in peers:
        peer.close()


def test_thousandsOfQuickConnectsRefuseNobody(server, honest):
    for _ in range(10):
        peers = _connectAll(server.port, 500)
        for peer in peers:
            peer.settimeout(PATIENCE)
            peer.sendall(b"\x03" + bytes(1536))
        for peer in peers:
            assert peer.recv(1) == b"\x03"
            peer.close()


def _connectAll(port, count):
    """Connect so many at once, and wait for each: a refused one fails the test."""
    peers = [socket.socket() for _ in range(count)]
    poll = select.poll()
    for peer in peers:
        peer.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            peer.connect(("127.0.0.1", port))
        poll.register(peer, select.POLLOUT)
    connected = 0
    while connected < count:
        found = poll.poll(PATIENCE * 1000)
        assert found, f"{connected} of {count} are connected"
        for number, event in found:
            assert event == select.POLLOUT, event
            poll.unregister(number)
            connected += 1
    return peers
