"""P13, P14: players that do not keep up, and what is kept for those who join."""

from __future__ import annotations

import contextlib
import threading

import pytest
from promiseserver import KIB, MIB, Server
from scriptedpeer import (
    AUDIO,
    AVC_HEADER,
    VIDEO,
    Peer,
    numberedFrame,
)
from watching import GOP, Stream, Viewer


def lostOf(server, viewer):
    """What the log says of a player that has left: messages sent, and dropped."""
    match = server.waitFor(
        rf"{viewer.address} got (\d+) messages of \S+; (\d+) were dropped"
    )
    return int(match[1]), int(match[2])


def timesTold(server, viewer):
    return server.count(f"{viewer.address} does not keep up with")


def test_fiftyPlayersThatNeverRead(server):
    """They cost little, and another player nothing."""
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(Stream(server, "crowd"))
        normal = stack.enter_context(Viewer(server, "crowd", 1 * MIB))
        stream.go()
        normal.upTo(stream.frames)
        before = server.resetPeak()
        crowd = [stack.enter_context(Viewer(server, "crowd")) for _ in range(50)]
        for _ in range(100):
            stream.go()
            normal.upTo(stream.frames)
        # 100 MB for each of 50.  They share what waits for them; the transport of each
        # has some of its own.
        assert server.peak - before <= 64 * MIB
        stream.end()
        normal.upTo()
        assert normal.numbers == list(range(stream.frames))
        assert timesTold(server, normal) == 0
        for viewer in crowd:
            assert timesTold(server, viewer) == 1
    for viewer in crowd:
        assert lostOf(server, viewer)[1] > 80 * GOP


def test_aPlayerThatReadsATenth(server):
    """What it gets can be decoded, and what it does not get is counted."""
    with Stream(server, "tenth") as stream:
        with Viewer(server, "tenth") as slow:
            before = server.resetPeak()
            for _ in range(60):
                stream.go()
                slow.upTo(stream.frames // 10)
            assert server.peak - before <= 16 * MIB
            stream.end()
            slow.upTo()
            slow.checkDecodes()
            assert slow.numbers[0] == 0
            assert slow.numbers[-1] == stream.frames - 1
            assert timesTold(server, slow) == 1
        sent, dropped = lostOf(server, slow)
        assert sent == 1 + len(slow.numbers)  # the header is one
        assert sent + dropped == 1 + stream.frames
        assert dropped > 10 * GOP


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    """A server that does not wait for long."""
    folder = tmp_path_factory.mktemp("impatient")
    with Server(folder, "--drain-timeout=1") as server:
        yield server
        server.noTraceback()
        assert server.terminate() == 0


def test_whoReadsNothingIsCut(impatient):
    """From the start, or from the middle on; others stay, however slow they are."""
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(Stream(impatient, "cut"))
        never, stopping, slow = (
            stack.enter_context(Viewer(impatient, "cut")) for _ in range(3)
        )
        ending = threading.Event()

        def readSlowly():
            # 10 kB every tenth of a second: it takes much longer than the server's
            # patience to have taken what its transport alone holds.
            while not ending.wait(0.1):
                slow.receiveSome(10_000)

        stream.go()
        stopping.upTo(GOP)
        stream.go(20)
        reader = threading.Thread(target=readSlowly)
        reader.start()
        for viewer in (never, stopping):
            impatient.waitFor(f"{viewer.address} is cut: .* for 1 s")
        for _ in range(2):
            other = stack.enter_context(Viewer(impatient, "cut"))
            stream.go(20)
            impatient.waitFor(f"{other.address} is cut: .* for 1 s")
        ending.set()
        reader.join()
        stream.end()
        slow.upTo()
        slow.checkDecodes()
        assert impatient.count(f"{slow.address} is cut") == 0
        assert timesTold(impatient, slow) == 1


def test_newcomersThatNeverRead(server):
    """They are given a GOP of 7 MB at once, which they share."""
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(Stream(server, "newcomers", 280 * KIB))
        stream.go()
        normal = stack.enter_context(Viewer(server, "newcomers", 1 * MIB))
        normal.upTo(stream.frames)
        before = server.resetPeak()
        for _ in range(50):
            stack.enter_context(Viewer(server, "newcomers"))
        assert server.peak - before <= 64 * MIB
        stream.go()
        normal.upTo(stream.frames)
        assert normal.numbers == list(range(stream.frames))


# P14


def test_theGOPIsBounded(server):
    """Encoders that send no further key frame: what came since goes at the bound."""
    with contextlib.ExitStack() as stack:
        before = server.resetPeak()
        peers = []
        for index in range(5):
            peer = stack.enter_context(Peer(server.port))
            peer.publishes(f"endless{index}")
            peer.setChunkSize(1 << 20)
            peer.sendMedia(VIDEO, AVC_HEADER)
            peers.append(peer)
        # A key frame is each 25th.
        for number in (0, *(n for n in range(100) if n % GOP)):
            for peer in peers:
                frame = numberedFrame(number, 256 * KIB)
                peer.sendMedia(VIDEO, frame, number * 40)
        for peer in peers:
            peer.ping(1)
        # 25 MB of each have come, and at most 8 MB were kept of each at any time.
        assert server.peak - before <= 5 * 12 * MIB
        viewer = stack.enter_context(Viewer(server, "endless0", 1 * MIB))
        peers[0].sendMedia(VIDEO, numberedFrame(101), 4040)
        peers[0].sendMedia(VIDEO, numberedFrame(125), 5000)
        viewer.upTo(1)
        assert viewer.numbers == [125]


def test_soundAloneIsNotKept(server):
    """Nor what comes before the first key frame."""
    sound = bytes((0xAF, 1)) + bytes(64 * KIB)
    with Peer(server.port) as peer:
        peer.publishes("sound")
        peer.setChunkSize(1 << 20)
        before = server.resetPeak()
        peer.sendMedia(VIDEO, numberedFrame(1))
        for number in range(1000):
            peer.sendMedia(AUDIO, sound, number * 20)
        peer.ping(1)
        assert server.peak - before <= 16 * MIB
