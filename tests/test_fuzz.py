"""
Hostile bytes, made of honest ones: whatever comes, there are events or a
ProtocolError, never another error, and never more in memory than the limits say.

Every session is made from a seed and its number, which a failure names.  The
environment sets how many (RTMP_FUZZ_SESSIONS) and the seed (RTMP_FUZZ_SEED).
"""

from __future__ import annotations

import math
import os
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import pytest
from feeding import (
    HANDSHAKE,
    SESSIONS,
    CollectingSink,
    Outcome,
    Server,
    bytewise,
    chunk,
    connected,
    control,
    outcome,
    payloadOf,
    randomPieces,
    readConnection,
    session,
    setChunkSize,
)
from twisted.internet.task import Clock

from twisted_rtmp.live.pacing import Pacer
from twisted_rtmp.live.streams import LiveStream
from twisted_rtmp.media import payloads as media
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import UNDEFINED
from twisted_rtmp.wire.connection import Connection, Role
from twisted_rtmp.wire.constants import NEED_DATA
from twisted_rtmp.wire.errors import ProtocolError
from twisted_rtmp.wire.limits import WireLimits
from twisted_rtmp.wire.messages import Event, Message

SEED = os.environ.get("RTMP_FUZZ_SEED", "1")

#: Enough for each kind of mutation in each kind of session to come often; all of
#: it takes some seconds.
SESSION_COUNT = int(os.environ.get("RTMP_FUZZ_SESSIONS", "10000"))

EVENTS = get_args(Event)

#: So small that mutations reach them.
TIGHT = WireLimits(
    messageSize=3000, unfinishedBytes=4000, chunkStreams=6, amfDepth=3, amfValues=20
)

#: The longest header: basic 3, message 11, extended 4 bytes.
HEADER = 18

INTERESTING = [
    *(bytes((n,)) for n in (0, 1, 2, 3, 5, 8, 9, 0x0F, 0x7F, 0x80, 0xC0, 0xFE, 0xFF)),
    *(n.to_bytes(3, "big") for n in (0, 1, 0x7FFFFF, 0xFFFFFE, 0xFFFFFF)),
    *(n.to_bytes(4, "big") for n in (0, 1, 2**31 - 1, 2**31, 2**32 - 1)),
    setChunkSize(1),
    setChunkSize(2**31 - 1),
    control(2, 6),
    control(5, 1),
    chunk(0, 2, struct.pack(">IB", 77, 2), type=6, stream=0),
    chunk(0, 2, struct.pack(">HI", 6, 77), type=4, stream=0),
    chunk(0, 7, b"x", length=0xFFFFFF),
    chunk(0, 7, time=0xFFFFFFFF),
    *(bytes((headerFormat << 6 | 4,)) for headerFormat in range(4)),
]


@contextmanager
def named(*what: object) -> Iterator[None]:
    """Say which session it was that failed."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"session {what}: {error!r}") from error


def submessage(typeId: int, time: int, payload: bytes) -> bytes:
    data = bytes((typeId,)) + len(payload).to_bytes(3, "big")
    data += (time & 0xFFFFFF).to_bytes(3, "big") + bytes((time >> 24,)) + bytes(3)
    return data + payload + struct.pack(">I", 11 + len(payload))


def inChunks(csid: int, payload: bytes, **fields: int) -> bytes:
    """A message in chunks of 128 bytes."""
    data = chunk(0, csid, payload[:128], length=len(payload), **fields)
    for at in range(128, len(payload), 128):
        data += chunk(3, csid, payload[at : at + 128])
    return data


def command(*values: object, stream: int = 0, type: int = 20) -> bytes:  # noqa: A002
    payload = b"\0" * (type == 17) + amf0.encode(*values)
    return inChunks(3, payload, type=type, stream=stream)


CONNECT = {
    "app": "live",
    "tcUrl": "rtmp://192.0.2.1/live",
    "fourCcList": ["av01", "hvc1", "Opus"],
    "videoFourCcInfoMap": {"*": 3, "hvc1": 1},
    "objectEncoding": 0.0,
    "capsEx": 15,
}

METADATA = amf0.encode(
    "@setDataFrame",
    "onMetaData",
    {
        "width": 1280.0,
        "stereo": True,
        "keyframes": {"times": [0.0, 2.0], "filepositions": [13.0, 9000.0]},
        "videoTrackIdInfoMap": {"1": {"width": 640.0}},
        "nothing": None,
        "text": "x" * 50,
    },
)

#: Video and audio of every kind: legacy, enhanced, of several tracks, with ModEx.
MEDIA = [
    (9, bytes.fromhex("17 00 000000 01 42c01e ff e100 00")),
    (9, bytes.fromhex("27 01 ffffd8 00000004 41888080")),
    (9, bytes.fromhex("17 02 000000")),
    (9, b"\x90hvc1" + bytes(30)),
    (9, b"\x91hvc1\0\0\x28" + bytes(30)),
    (9, b"\x93av01" + bytes(30)),
    (9, b"\x94av01" + amf0.encode("colorInfo", {"colorConfig": {"bitDepth": 10.0}})),
    (9, b"\x97\x02\0\0\x07\x01" + b"\x01hvc1\0\0\0" + bytes(20)),
    (9, b"\x97\xff\x00\x04" + bytes(5) + b"\x01hvc1\0\0\0" + bytes(20)),
    (9, b"\x96\x01hvc1\x01" + bytes(20)),
    (9, b"\x96\x11hvc1\x00\0\0\x05abcde\x01\0\0\x03abc"),
    (9, b"\x96\x21hvc1\x00\0\0\x05abcdeav01\x01\0\0\x03abc"),
    (9, b"\x52\x00"),
    (8, bytes.fromhex("af00 1210")),
    (8, bytes.fromhex("af01 21004900")),
    (8, b"\x90Opus" + b"OpusHead" + bytes(11)),
    (8, b"\x91Opus" + bytes(20)),
    (8, b"\x94Opus\x01\x02" + bytes(4)),
    (8, b"\x94Opus\x02\x03\0\1\2"),
    (8, b"\x95\x01Opus\x01" + bytes(20)),
    (8, b"\x95\x11Opus\x00\0\0\x05abcde\x01\0\0\x03abc"),
    (8, b"\x97\x02\0\0\x07\x01Opus" + bytes(20)),
    (8, b"\x2f" + bytes(20)),
    (18, METADATA),
    (18, amf0.encode("onCuePoint", [1.0, {"a": UNDEFINED}])),
    (18, amf0.encode("@clearDataFrame", "onMetaData")),
]


def made() -> list[bytes]:
    """Sessions that no recorded client shows."""
    everyFormat = b"".join(
        [
            chunk(0, 6, payloadOf(128), length=300, time=0xFFFFFF),
            chunk(0, 64, b"audio", type=8, time=0x1000000),
            chunk(3, 6, payloadOf(128), time=0xFFFFFF),
            setChunkSize(60),
            chunk(3, 6, payloadOf(44), time=0xFFFFFF),
            chunk(1, 64, payloadOf(60), length=70, type=8, time=23, size=3),
            chunk(1, 5, b"x", type=18),
            chunk(3, 64, payloadOf(10)),
            chunk(2, 64, payloadOf(60), time=2**32 - 40),
            chunk(3, 64, payloadOf(10), time=2**32 - 40),
            control(2, 64),
            control(3, 5000),
            control(5, 2_500_000),
            chunk(0, 1000, b"y", type=8),
        ]
    )
    aggregate = b"".join(
        inChunks(
            6,
            b"".join(
                submessage(typeId, 40 * n, payload)
                for n, (typeId, payload) in enumerate(MEDIA[at : at + 6])
            ),
            type=22,
            time=at,
            stream=1,
        )
        for at in range(0, len(MEDIA), 6)
    )
    commands = b"".join(
        [
            command("connect", 1, CONNECT),
            command("createStream", 2, None, type=17),
            command("publish", 3, None, "name?token=1", "live", stream=1),
            inChunks(4, METADATA, type=18, stream=1),
            inChunks(4, b"\0" + METADATA, type=15, stream=1),
            command("play", 4, None, "name", -2, -1, True, stream=2),
            command("pause", 0, None, True, 1000.0, stream=2),
            command("seek", 0, None, 5.0, stream=2),
            command("deleteStream", 5, None, 1.0),
        ]
    )
    tracks = command("connect", 1, CONNECT)
    tracks += command("publish", 3, None, "n", stream=1)
    for n, (typeId, payload) in enumerate(MEDIA):
        tracks += inChunks(4 + n % 3, payload, type=typeId, time=20 * n, stream=1)
    return [everyFormat, aggregate, commands, tracks]


def beginningsOf(data: bytes) -> list[int]:
    """Where messages begin, more or less: where the ones before end."""
    connection = connected()
    found = [0]
    for at, byte in enumerate(bytewise(data)):
        if outcome(connection.feed, connection.nextEvent, [byte]).events:
            found.append(at + 1)
    return found


class Corpus:
    """
    Honest sessions without their handshake, and what to make of them.

    Of a recorded session a random part is taken that begins with a message, so
    that most of the time is spent near a mutation.
    """

    LENGTH = 4000

    def __init__(self) -> None:
        recorded = [session(path.stem)[HANDSHAKE:] for path in SESSIONS.glob("*.rtmp")]
        self.sessions = sorted(recorded) + made()
        self.beginnings = [beginningsOf(data) for data in self.sessions]

    def mutated(self, rng: random.Random) -> bytes:
        which = rng.randrange(len(self.sessions))
        whole = self.sessions[which]
        beginnings = self.beginnings[which]
        # Small chunk sizes and open chunk streams come from before; some begin so.
        start = rng.choice(beginnings) if rng.random() < 0.5 else 0
        data = bytearray(whole[start : start + self.LENGTH])
        marks = [b - start for b in beginnings if 0 <= b - start < len(data)]
        for _ in range(1 + int(rng.expovariate(0.5))):
            self.mutate(data, marks, rng)
        return bytes(data)

    def mutate(self, data: bytearray, marks: list[int], rng: random.Random) -> None:
        """Once; near the beginning of a message or anywhere."""
        if marks and rng.random() < 0.6:
            at = rng.choice(marks) + rng.randrange(16)
        else:
            at = rng.randrange(len(data) + 1)
        at = min(at, len(data))
        length = 1 + int(rng.expovariate(0.1))
        kind = rng.randrange(9)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 2:
            value = rng.choice(INTERESTING)
            data[at : at + len(value)] = value
        elif kind == 3:
            data[at:at] = rng.choice(INTERESTING)
        elif kind == 4:
            del data[at : at + length]
        elif kind == 5:
            data[at:at] = data[at : at + length * 10]
        elif kind == 6:
            other = rng.choice(self.sessions)
            start = rng.randrange(len(other))
            data[at:at] = other[start : start + length * 10]
        elif kind == 7:
            data[at:at] = rng.randbytes(length)
        elif rng.random() < 0.2:
            del data[at:]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus()


def drive(connection: Connection, pieces: list[bytes], limits: WireLimits) -> Outcome:
    """Feed a connection, and hold it to its bounds after every read."""
    result = Outcome()
    reader = connection.reader
    received = 0
    for piece in pieces:
        connection.feed(piece)
        received += len(piece)
        error = None
        try:
            while (event := connection.nextEvent()) is not NEED_DATA:
                assert isinstance(event, EVENTS)
                result.events.append((event,))
        except ProtocolError as raised:
            error = raised
        if error is not None:
            result.error = (type(error), error.section, error.limit)
            with pytest.raises(ProtocolError) as again:
                connection.nextEvent()
            assert vars(again.value) == vars(error)
            assert str(again.value) == str(error)
            break
        assert reader.pending <= HEADER
        assert reader.unfinished <= min(received, limits.unfinishedBytes)
    assert reader.unfinished == sum(len(s.partial) for s in reader._streams.values())
    assert len(reader._streams) <= limits.chunkStreams
    assert len(connection.dataToSend()) <= 2 * received + 100
    return result


def test_wire(corpus):
    """The wire core alone, behind the handshake: most sessions are for it."""
    errors = events = 0
    kinds = set()
    for n in range(SESSION_COUNT):
        rng = random.Random(f"{SEED}/{n}")
        data = corpus.mutated(rng)
        limits = TIGHT if n % 4 == 3 else WireLimits()
        pieces = randomPieces(data, rng, rng.choice([50, 1000, 10_000]))
        role = Role.CLIENT if n % 8 == 1 else Role.SERVER
        with named(SEED, n):
            result = drive(connected(role, limits), pieces, limits)
            events += len(result.events)
            if result.error is not None:
                errors += 1
                kinds.add(result.error[0])
            if n % 10 == 0:
                assert readConnection(pieces) == readConnection([data])
    # Neither may all be refused at once nor all pass: then it tests nothing.
    assert SESSION_COUNT * 0.2 < errors < SESSION_COUNT * 0.9
    assert events > SESSION_COUNT * 5
    assert len(kinds) == 4


def test_handshake():
    """C0 to C2 and what follows, mutated."""
    whole = session("curl")[: HANDSHAKE + 300]
    for n in range(max(SESSION_COUNT // 20, 200)):
        rng = random.Random(f"{SEED}/handshake/{n}")
        data = bytearray(whole)
        for _ in range(rng.randrange(4)):
            # The version, the digest's offset and digest, or anywhere.
            places = [0, 1, 5, 9, 10, 11, 12, 773, 774, rng.randrange(len(data))]
            data[rng.choice(places)] = rng.randrange(256)
        if n % 3 == 0:
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(9)] = rng.randbytes(rng.randrange(9))
        pieces = randomPieces(bytes(data), rng, rng.choice([100, 1000, 5000]))
        with named(SEED, "handshake", n):
            connection = Connection(Role.SERVER)
            result = outcome(connection.feed, connection.nextEvent, pieces)
            assert len(connection.dataToSend()) <= HANDSHAKE + 100
            if result.error is None and len(data) >= HANDSHAKE:
                assert result.events[0] == ("HandshakeDone",)


class NoPublisher:
    """A live stream's publisher; nothing here holds it."""

    def pauseProducing(self) -> None:
        raise AssertionError("held")

    resumeProducing = pauseProducing


def test_media(corpus):
    """
    Payloads of audio, video and data, through a live stream: each one comes to the
    sink, or is booked as lost, and late players get headers that are well-formed.
    """
    flagsSeen = 0
    for n in range(max(SESSION_COUNT // 10, 500)):
        rng = random.Random(f"{SEED}/media/{n}")
        stream = LiveStream("a", "b", NoPublisher(), Pacer(Clock()))
        sink = CollectingSink(stream)
        stream.addSink(sink)
        cleared = 0
        with named(SEED, "media", n):
            for time in range(10):
                typeId, payload = rng.choice(MEDIA)
                data = bytearray(payload)
                for _ in range(rng.randrange(3)):
                    corpus.mutate(data, [0], rng)
                message = Message(typeId, 40 * time, 1, bytes(data))
                before = len(sink.messages) + stream.ledger.lost
                stream.messageReceived(message)
                flagsSeen |= message.flags
                if len(sink.messages) + stream.ledger.lost == before:
                    assert amf0.decode(bytes(data))[0] in CLEARING
                    cleared += 1
            assert stream.ledger.received.messages == 10
            assert len(sink.messages) + stream.ledger.lost + cleared == 10
            for header in stream.headers():
                assert not media.flagsOf(header.typeId, header.payload) & (
                    media.MALFORMED
                )
    for flag in (media.MALFORMED, media.MULTITRACK, media.ENHANCED, media.EMPTY):
        assert flagsSeen & flag


CLEARING = ("@clearDataFrame", "@setDataFrame")


def test_amf():
    """
    What a command brings of AMF: mutated, read within bounds, and what is read can
    be written again.
    """
    payloads = [
        amf0.encode("connect", 1, CONNECT),
        METADATA,
        amf0.encode("f", 0, [[[[1.0]], {"a": {"b": [UNDEFINED, None]}}], "x" * 300]),
        b"\x02\0\1f\0" + bytes(8) + b"\x11\x0a\x0b\x01\x03a\x04\x05\x03b\x06\x05hi\x01",
        b"\x02\0\1f\0" + bytes(8) + b"\x03\0\1a\x07\0\0\0\0\x09" * 3,
    ]
    corpus = Corpus.__new__(Corpus)
    corpus.sessions = payloads
    read = 0
    count = max(SESSION_COUNT // 5, 500)
    for n in range(count):
        rng = random.Random(f"{SEED}/amf/{n}")
        data = bytearray(rng.choice(payloads))
        for _ in range(1 + rng.randrange(4)):
            corpus.mutate(data, [0, len(data) // 2], rng)
        limits = TIGHT if n % 3 == 0 else WireLimits()
        with named(SEED, "amf", n):
            try:
                values = amf0.decode(bytes(data), limits)
            except ProtocolError:
                continue
            read += 1
            # By their texts, since a NaN equals nothing.
            assert repr(amf0.decode(amf0.encode(*values))) == repr(values)
    assert count * 0.05 < read < count * 0.95


ARGUMENTS = [
    None,
    UNDEFINED,
    True,
    False,
    0.0,
    1.0,
    2.0,
    -2.0,
    0.5,
    1e308,
    math.nan,
    math.inf,
    -math.inf,
    2.0**32,
    "",
    "s",
    "s?a=b",
    "live",
    "../../etc/passwd",
    "\0\n\x1b[31m",
    "\udcff",
    "x" * 3000,
    {},
    {"app": "live"},
    CONNECT,
    [],
    [1.0, [2.0]],
]

NAMES = [
    "connect",
    "createStream",
    "publish",
    "publish",
    "play",
    "play",
    "play2",
    "pause",
    "pauseRaw",
    "seek",
    "receiveAudio",
    "receiveVideo",
    "deleteStream",
    "closeStream",
    "releaseStream",
    "FCPublish",
    "FCUnpublish",
    "FCSubscribe",
    "getStreamLength",
    "_checkbw",
    "_result",
    "_error",
    "onStatus",
    "close",
    "__init__",
    "\n",
    "",
]


def conversation(rng: random.Random) -> bytes:
    """Commands in any order with arguments of any type, and media in between."""
    data = b""
    if rng.random() < 0.9:
        data += command("connect", 1, CONNECT)
    for _ in range(rng.randrange(20)):
        stream = rng.choice([0, 1, 1, 1, 2, 3, 2**32 - 1])
        if rng.random() < 0.3:
            typeId, payload = rng.choice(MEDIA)
            data += inChunks(4, payload, type=typeId, stream=stream)
        else:
            arguments = rng.choices(ARGUMENTS, k=rng.randrange(6))
            values = [rng.choice([0, 1, 2.5, math.nan]), *arguments]
            if rng.random() < 0.1:
                values = arguments
            typeId = rng.choice([20, 20, 17])
            data += command(rng.choice(NAMES), *values, stream=stream, type=typeId)
    return data


def test_server(corpus):
    """
    The whole server: no error leaves it, and nothing is left of a connection, with
    an honest publisher beside it that loses nothing.
    """
    greeting = b"\x03" + bytes(2 * 1536)
    honest = b"".join(
        [
            greeting,
            command("connect", 1, CONNECT),
            command("createStream", 2, None),
            command("publish", 3, None, "honest", "live", stream=1),
        ]
    )
    server = Server()
    publisher, transport = server.accept()
    publisher.dataReceived(honest)
    [sink] = server.sinks
    count = max(SESSION_COUNT // 10, 500)
    for n in range(count):
        rng = random.Random(f"{SEED}/server/{n}")
        data = corpus.mutated(rng) if n % 2 else conversation(rng)
        if n % 4 == 1:
            data = command("connect", 1, CONNECT) + data
        pieces = [greeting, *randomPieces(data, rng, rng.choice([50, 1000, 10_000]))]
        with named(SEED, "server", n):
            server.play(pieces)
            publisher.dataReceived(inChunks(6, b"\x17\x01" + b"%9d" % n, stream=1))
            assert list(server.factory.streams) == [("live", "honest")]
            assert set(server.factory.connections) == {publisher}
            assert not transport.disconnecting
    assert [m[3][2:] for m in sink.messages] == [b"%9d" % n for n in range(count)]
    assert all(other.ended for other in server.sinks[1:])
    assert len(server.sinks) > count // 20
    assert server.factory.counters.violations > count // 20
    server.clock.advance(60)
    assert transport.disconnecting
