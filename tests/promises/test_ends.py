"""P15, P23, P24, P28, P35: how connections, streams and the server end."""

from __future__ import annotations

import contextlib
import signal
import struct
import threading
from itertools import pairwise

from promiseserver import KIB, MIB, Server
from scriptedpeer import (
    AVC_HEADER,
    DATA,
    VIDEO,
    HonestStream,
    Peer,
    amf,
    header,
    numberedFrame,
    tagsOf,
)


def test_resetsFreeEverything(server, honest):
    connections = server.connections()
    server.waitFor(f"Recording honest/{honest.name} to")
    descriptors = server.descriptors
    for number in range(30):
        peer = Peer(server.port)
        if number % 3 == 0:
            peer.send(b"\x03" + bytes(700))
        elif number % 3 == 1:
            peer.open()
            peer.send(header(6, VIDEO, 100) + b"\x17")
        else:
            peer.publishes(f"reset{number}")
            peer.sendMedia(VIDEO, numberedFrame(0))
            peer.ping(1)
        peer.reset()
    server.waitUntil(
        lambda: server.connections() <= connections, "connections are left"
    )
    server.waitUntil(lambda: server.descriptors <= descriptors, "descriptors are left")
    server.waitFor(r"live/reset\d+ ended after", 10)


def test_halfCloseFreesEverything(server, honest):
    server.waitFor(f"Recording honest/{honest.name} to")
    descriptors = server.descriptors
    for number in range(30):
        with Peer(server.port) as peer:
            if number % 3 == 0:
                peer.send(b"\x03" + bytes(700))
            elif number % 3 == 1:
                peer.open()
                peer.send(header(6, VIDEO, 100) + b"\x17")
            else:
                peer.publishes(f"half{number}")
                peer.sendMedia(VIDEO, numberedFrame(0))
            peer.finishSending()
            peer.waitForCut()
    server.waitUntil(lambda: server.descriptors <= descriptors, "descriptors are left")
    server.waitFor(r"live/half\d+ ended after .* 1 video ", 10)


def test_thousandNamesLeaveNothing(server, honest):
    def publishMany(start, count):
        for number in range(start, start + count):
            with Peer(server.port) as peer:
                peer.publishes(f"name{number}")
                peer.sendMedia(VIDEO, numberedFrame(0))
                peer.end()

    server.waitFor(f"Recording honest/{honest.name} to")
    publishMany(0, 100)
    server.waitFor(r"live/name\d+ ended after", 100)
    descriptors = server.descriptors
    sizes = [server.resident]
    for start in (100, 600, 1100):
        publishMany(start, 500)
        server.waitFor(r"live/name\d+ ended after", start + 500)
        sizes.append(server.resident)
    server.waitUntil(lambda: server.descriptors <= descriptors, "descriptors are left")
    # What Python keeps for reuse comes once; what streams leave comes each time.
    growth = [later - size for size, later in pairwise(sizes)]
    assert min(growth) <= 8 * MIB, growth


def _metadata(data):
    """The payload of the onMetaData tag."""
    tags = [tag for tag in tagsOf(data) if tag[0] == DATA]
    assert tags[0][2].startswith(amf("onMetaData"))
    return tags[0][2]


def _number(metadata, name):
    at = metadata.index(struct.pack(">H", len(name)) + name.encode() + b"\x00")
    [value] = struct.unpack_from(">d", metadata, at + 3 + len(name))
    return value


def _recording(server, start):
    """Start streams that are alike, and wait until each has frames."""
    streams = [HonestStream(server, f"{start}{number}") for number in range(5)]
    for stream in streams:
        stream.goesOn(100)
    return streams


def _compare(server, stream, before, spare):
    """
    Compare what is recorded of a stream whose server has gone.

    @param before: how many messages had been sent when the server was told.
    @param spare: how many of these may be missing.
    @return: the recording, and its audio and video tags.
    """
    stream.abandon()
    recorded = server.recorded(f"honest/{stream.name}-")
    media = [tag for tag in tagsOf(recorded) if tag[0] != DATA]
    assert media == stream.sent[: len(media)]
    assert len(media) >= before - spare
    return recorded, media


def test_sigtermFinishesRecordings(tmp_path):
    with Server(tmp_path) as server:
        streams = _recording(server, "term")
        before = [stream.frames for stream in streams]
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        server.noTraceback()
        for stream, frames in zip(streams, before, strict=True):
            # 100 ms are 20 messages.
            recorded, media = _compare(server, stream, frames, 20)
            metadata = _metadata(recorded)
            assert _number(metadata, "duration") == media[-1][1] / 1000
            assert _number(metadata, "filesize") == len(recorded)


def test_sigtermLosesNothingThatHasBeenSent(tmp_path):
    """What waits in the kernel when the signal comes is recorded."""
    count = 800  # 90 kB: a kernel takes as much of each connection, whoever reads
    with Server(tmp_path) as server, contextlib.ExitStack() as peers:
        publishers = [peers.enter_context(Peer(server.port)) for _ in range(3)]
        for number, publisher in enumerate(publishers):
            publisher.publishes(f"last{number}")
            publisher.sendMedia(VIDEO, numberedFrame(0, 100))
            server.waitFor(f"Recording live/last{number} to")
        server.signal(signal.SIGSTOP)
        for publisher in publishers:
            for number in range(1, count):
                publisher.sendMedia(VIDEO, numberedFrame(number, 100), 40 * number)
        server.signal(signal.SIGTERM)
        server.signal(signal.SIGCONT)
        assert server.wait() == 0
        server.noTraceback()
        assert server.count("are lost") == 0
        for number in range(len(publishers)):
            recorded = server.recorded(f"live/last{number}-")
            times = [tag[1] for tag in tagsOf(recorded) if tag[0] == VIDEO]
            assert times == [40 * number for number in range(count)]


def test_sigtermAmidAFlood(tmp_path):
    """A peer that never reads and never stops does not hold the end up."""
    with Server(tmp_path) as server:
        stream = HonestStream(server, "beside")
        stream.goesOn()
        peer = Peer(server.port, receiveBuffer=4096).open()
        flood = threading.Thread(target=_flood, args=(peer,), daemon=True)
        flood.start()
        stream.goesOn()
        before = stream.frames
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        flood.join()
        peer.close()
        recorded, media = _compare(server, stream, before, 20)
        assert _number(_metadata(recorded), "duration") == media[-1][1] / 1000


def _publishMany(peer, start, streams=range(1, 32)):
    """Publish a stream with one frame on each of a connection's message streams."""
    for streamId in streams:
        peer.publish(f"{start}-{streamId}", streamId)
        peer.sendMedia(VIDEO, numberedFrame(0, 20), streamId=streamId)


def test_sigtermFinishesAFloodOfRecordings(tmp_path):
    """Many names cost little space, and keep no file from being finished."""
    with Server(tmp_path) as server, contextlib.ExitStack() as peers:
        stream = HonestStream(server, "beside")
        server.waitFor("Recording honest/beside to")
        for number in range(10):
            peer = peers.enter_context(Peer(server.port)).open()
            for streamId in range(1, 32):
                peer.createStream(streamId + 1)
            # The first ones have ended, the others are live when the server stops.
            _publishMany(peer, f"first{number}")
            _publishMany(peer, f"second{number}")
        # The log leaves lines on so many streams out.
        server.waitUntil(
            lambda: len(server.files("live/")) == 620, "streams are not recorded"
        )
        files = [server.record / path for path in server.files("live/")]
        assert sum(path.stat().st_blocks * 512 for path in files) <= 620 * 16 * KIB
        before = stream.frames
        assert server.terminate() == 0
        server.noTraceback()
        assert server.count("unfinished") == 0
        recorded, media = _compare(server, stream, before, 20)
        assert _number(_metadata(recorded), "duration") == media[-1][1] / 1000
        for path in files:
            data = path.read_bytes()
            assert _number(_metadata(data), "filesize") == len(data)


def test_streamsThatWaitHoldNoDescriptor(tmp_path):
    """With --grace the file of a stream whose publisher has left is not kept open."""
    with Server(tmp_path, "--grace", "300") as server:
        stream = HonestStream(server, "beside")
        server.waitFor("Recording honest/beside to")
        descriptors = server.descriptors
        for number in range(4):
            with Peer(server.port) as peer:
                peer.open()
                for streamId in range(1, 32):
                    peer.createStream(streamId + 1)
                _publishMany(peer, f"left{number}")
                peer.ping(1)
        server.waitUntil(
            lambda: len(server.files("live/")) == 124, "streams are not recorded"
        )
        server.waitUntil(
            lambda: server.descriptors <= descriptors, "descriptors are left"
        )
        before = stream.frames
        assert server.terminate() == 0
        _compare(server, stream, before, 20)
        for path in server.files("live/"):
            data = (server.record / path).read_bytes()
            assert _number(_metadata(data), "filesize") == len(data)


def test_withoutMediaThereIsNoFile(server, honest):
    server.waitFor(f"Recording honest/{honest.name} to")
    with Peer(server.port) as peer:
        peer.publishes("silent")
        peer.sendMedia(VIDEO, AVC_HEADER)
        peer.sendMedia(DATA, amf("onMetaData", {"width": 320.0}))
        peer.end()
    server.waitFor("live/silent ended after .* no media")
    assert server.files("live/silent") == []


def _flood(peer):
    while peer.trySend(b"\x02\0\0\0\0\0\x06\x04\0\0\0\0\0\x06\0\0\0\x01" * 1000):
        pass


def test_sigkillLeavesReadableRecordings(tmp_path):
    with Server(tmp_path) as server:
        streams = _recording(server, "kill")
        before = [stream.frames for stream in streams]
        server.signal(signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
        for stream, frames in zip(streams, before, strict=True):
            # 1000 ms are 200 messages.
            _compare(server, stream, frames, 200)


def test_sigkillAfterOneSecondHasWhatCameBefore(tmp_path):
    """What was sent a second before is in the file, while the stream goes on."""
    with Server(tmp_path) as server:
        stream = HonestStream(server, "second")
        stream.goesOn(100)
        before = stream.frames
        server.waitUntil(
            lambda: (
                server.files("honest/second-")
                and len(tagsOf(server.recorded("honest/second-"))) > before
            ),
            "it is not written while the stream goes on",
        )
        server.signal(signal.SIGKILL)
        server.wait()
        stream.abandon()
