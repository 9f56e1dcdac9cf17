"""P25 to P27: timestamps, malformed media, acknowledgements."""

from __future__ import annotations

import random
import struct
from itertools import pairwise

import pytest
from promiseserver import MIB
from scriptedpeer import (
    AUDIO,
    DATA,
    VIDEO,
    HonestStream,
    Peer,
    amf,
    message,
    numberedFrame,
    tagsOf,
)

WRAP = 1 << 32


def _random(count):
    source = random.Random(25)
    return [source.randrange(WRAP) for _ in range(count)]


PATTERNS = {
    "zero": [0] * 100,
    "random": _random(100),
    "backwards": [10_000 - 40 * n for n in range(100)],
    "wrap": [(WRAP - 2000 + 40 * n) % WRAP for n in range(100)],
    "jumps": [(n // 10) * 3_600_000 + n * 40 for n in range(100)],
    "ones": [WRAP - 1] * 100,
    "alternating": [(0, WRAP - 1)[n % 2] for n in range(100)],
    "half": [(0, WRAP // 2)[n % 2] for n in range(100)],
    "extended": [0xFFFFFF - 2000 + 40 * n for n in range(100)],
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_anyTimestampsAreRecorded(server, honest, pattern):
    frames = [numberedFrame(n * 25, 200) for n in range(100)]
    with Peer(server.port) as peer:
        peer.publishes(pattern)
        for frame, timestamp in zip(frames, PATTERNS[pattern], strict=True):
            peer.sendMedia(VIDEO, frame, timestamp)
        peer.end()
    server.waitFor(f"live/{pattern} ended after .* 100 video .* 100 and 0 written")
    tags = [t for t in tagsOf(server.recorded(f"live/{pattern}-")) if t[0] == VIDEO]
    assert [payload for _, _, payload in tags] == frames
    if pattern in ("wrap", "extended"):
        times = [timestamp for _, timestamp, _ in tags]
        steps = [later - time for time, later in pairwise(times)]
        assert steps == [40] * 99


# P26


def malformedMedia():
    """Payloads of audio and video, most of which no encoder sends."""
    yield from ((typeId, b"") for typeId in (AUDIO, VIDEO))
    for typeId in (AUDIO, VIDEO):
        for first in range(256):
            # One byte, and a body that is too short for most codecs.
            yield typeId, bytes((first,))
            yield typeId, bytes((first,)) + b"\x01"
    for packetType in range(16):
        for frameType in range(8):
            first = 0x80 | frameType << 4 | packetType
            for fourCC in (b"hvc1", b"av01", b"avc1", b"\0\0\0\0", b"\xff" * 4, b"hv"):
                yield VIDEO, bytes((first,)) + fourCC
                yield VIDEO, bytes((first,)) + fourCC + b"\xff" * 9
    for packetType in range(16):
        for fourCC in (b"Opus", b"fLaC", b"mp4a", b"\0\0\0\0", b"Op"):
            yield AUDIO, bytes((0x90 | packetType,)) + fourCC
            yield AUDIO, bytes((0x90 | packetType,)) + fourCC + b"\xff" * 9
    # Multitrack: each kind, with sizes past the end.
    for kind in range(16):
        for packetType in range(16):
            nibbles = bytes((kind << 4 | packetType,))
            for tail in (b"", b"hvc1", b"hvc1\x00\xff\xff\xff", b"\xff" * 40):
                yield VIDEO, b"\x96" + nibbles + tail
                yield AUDIO, b"\x95" + nibbles + tail
    # ModEx: data that never ends.
    for size in (b"", b"\x00", b"\xff", b"\xff\xff", b"\xff\xff\xff"):
        yield VIDEO, b"\x97" + size
        yield AUDIO, b"\x97" + size
        yield VIDEO, b"\x97" + size + bytes(300)
        yield AUDIO, b"\x97" + size + bytes(300)
    yield VIDEO, b"\x97" + b"\x00\x00\x07" * 10_000
    # Metadata of HDR that is no AMF.
    yield VIDEO, b"\x94hvc1" + b"\x03\x00\x01a" * 10_000


MALFORMED = list(malformedMedia())


def test_malformedMediaIsDropped(server, honest):
    assert len(MALFORMED) >= 321
    with Peer(server.port) as peer:
        peer.publishes("malformed")
        peer.setChunkSize(1 << 16)
        for number, (typeId, payload) in enumerate(MALFORMED):
            peer.sendMedia(typeId, payload, number)
        peer.ping(1)
        # And what is well-formed still is recorded.
        frame = numberedFrame(25)
        peer.sendMedia(VIDEO, frame, len(MALFORMED))
        peer.end()
    server.waitFor("live/malformed ended after")
    payloads = [tag[2] for tag in tagsOf(server.recorded("live/malformed-"))]
    assert payloads[-1] == frame


def test_malformedFirstMessagesAreDropped(server, honest):
    """Each alone, as what a recording begins with."""
    for number, (typeId, payload) in enumerate(MALFORMED[:: len(MALFORMED) // 100]):
        with Peer(server.port) as peer:
            peer.publishes(f"first{number}")
            peer.setChunkSize(1 << 16)
            peer.sendMedia(typeId, payload)
            peer.sendMedia(VIDEO, numberedFrame(0), 40)
            peer.end()
        server.waitFor(f"live/first{number} ended after")
        payloads = [tag[2] for tag in tagsOf(server.recorded(f"live/first{number}-"))]
        assert numberedFrame(0) in payloads


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00" * 10,
        struct.pack(">B3s3sB3s", 9, b"\xff\xff\xff", bytes(3), 0, bytes(3)),
        struct.pack(">B3s3sB3s", 22, b"\0\0\x0b", bytes(3), 0, bytes(3)) * 20,
        struct.pack(">B3s3sB3s", 20, b"\0\0\x04", bytes(3), 0, bytes(3)) + bytes(8),
        b"\xff" * 1000,
        (struct.pack(">B3s3sB3s", 9, bytes(3), bytes(3), 0, bytes(3)) + b"\0\0\0\x0b")
        * 500_000,
    ],
    ids=["empty", "short", "past", "nested", "command", "ones", "many"],
)
def test_malformedAggregateEndsOnlyItsConnection(server, honest, payload):
    with Peer(server.port) as peer:
        peer.publishes("aggregate")
        before = server.count("live/aggregate ended after")
        peer.setChunkSize(1 << 23)
        peer.trySend(message(6, 22, payload, 0, 1, 1 << 23))
        peer.finishSending()
        peer.waitForCut()
    server.waitFor("live/aggregate ended after", before + 1)


def test_aggregateOfTooManyMessagesIsCut(server, honest):
    inner = struct.pack(">B3s3sB3s", 9, bytes(3), bytes(3), 0, bytes(3)) + bytes(4)
    with Peer(server.port) as peer:
        peer.publishes("many")
        peer.setChunkSize(1 << 23)
        peer.trySend(message(6, 22, inner * 20_001, 0, 1, 1 << 23))
        peer.waitForCut()
    server.waitFor(f"{peer.address} is cut for a protocol error: an aggregate message")
    server.waitFor("live/many ended after")


def test_malformedControlMessagesEndOnlyTheirConnection(server, honest):
    for typeId in (*range(8), *range(10, 26), 255):
        for payload in (b"", b"\x00", b"\xff" * 3, b"\xff" * 6, bytes(300)):
            with Peer(server.port) as peer:
                peer.publishes("control")
                peer.trySend(message(2, typeId, payload))
                peer.trySend(message(3, typeId, payload, 0, 1))
                peer.finishSending()
                peer.waitForCut()


def test_freshPlayerStartsAfterMalformedMedia(server, honest):
    with Peer(server.port) as publisher:
        publisher.publishes("played")
        publisher.setChunkSize(1 << 16)
        for number, (typeId, payload) in enumerate(MALFORMED):
            publisher.sendMedia(typeId, payload, number)
        publisher.ping(1)
        with Peer(server.port) as player:
            player.open()
            player.createStream()
            player.send(message(8, 20, amf("play", 0, None, "played"), 0, 1))
            while b"NetStream.Play.Start" not in player.reply("onStatus"):
                pass
            frame = numberedFrame(25)
            publisher.sendMedia(VIDEO, frame, 10_000)
            while player.nextMessage() != (VIDEO, frame):
                pass
        publisher.end()


# P27


def test_acknowledgementsAsAskedFor(server, honest):
    with Peer(server.port) as peer:
        peer.publishes("acknowledged")
        peer.setChunkSize(4096)
        peer.send(message(2, 5, (1000).to_bytes(4, "big"), chunkSize=4096))
        sent = 0
        for number in range(20):
            frame = numberedFrame(number, 2000)
            peer.sendMedia(VIDEO, frame, number * 40)
            sent += len(frame)
            peer.ping(number)
            # More than a window has come since the last one.
            assert len(peer.acknowledged) > number
        assert peer.acknowledged == sorted(peer.acknowledged)
        assert sent < peer.acknowledged[-1] < sent + 10_000
        peer.end()


@pytest.mark.parametrize("window", [0, 1, 999])
def test_tinyWindowsCostLittle(server, honest, window):
    """An acknowledgement a byte would be a flood."""
    with Peer(server.port) as peer:
        peer.publishes(f"window{window}")
        peer.setChunkSize(4096)
        peer.send(message(2, 5, window.to_bytes(4, "big"), chunkSize=4096))
        for number in range(500):
            peer.sendMedia(VIDEO, numberedFrame(number, 100), number * 40)
        peer.ping(1)
        assert len(peer.acknowledged) <= 500 * 120 // 400
        peer.end()


def test_playerThatNeverAcknowledgesIsServed(server):
    size = 13 * MIB
    with Peer(server.port) as publisher:
        publisher.publishes("unacknowledged")
        publisher.setChunkSize(1 << 16)
        with Peer(server.port) as player:
            player.open()
            player.createStream()
            player.send(message(8, 20, amf("play", 0, None, "unacknowledged"), 0, 1))
            while b"NetStream.Play.Start" not in player.reply("onStatus"):
                pass
            received = number = 0
            while received < size:
                frame = numberedFrame(number, 100_000)
                publisher.sendMedia(VIDEO, frame, number * 40)
                while player.nextMessage() != (VIDEO, frame):
                    pass
                received += len(frame)
                number += 1
        publisher.end()


def test_twoHonestStreamsDoNotMix(server):
    streams = [HonestStream(server, f"pair{number}") for number in range(4)]
    for stream in streams:
        stream.goesOn(100)
    for stream in streams:
        stream.compare()


def test_metadataOfEveryKindIsTaken(server, honest):
    """What encoders send as onMetaData does not decide about the frames."""
    values = [None, 1, "text", {}, {"duration": "x", "width": {}}, {"": 1}, True]
    for number, value in enumerate(values):
        with Peer(server.port) as peer:
            peer.publishes(f"meta{number}")
            peer.sendMedia(DATA, amf("@setDataFrame", "onMetaData", value))
            peer.sendMedia(VIDEO, numberedFrame(0), 40)
            peer.end()
        server.waitFor(f"live/meta{number} ended after")
        payloads = [tag[2] for tag in tagsOf(server.recorded(f"live/meta{number}-"))]
        assert numberedFrame(0) in payloads
