"""
Hostile bytes, made of honest ones: recorded sessions and made ones, mutated, and
commands in any order.

Every session is made from a seed and its number, which a failure names.  The
environment sets how many (RTMP_FUZZ_SESSIONS) and the seed (RTMP_FUZZ_SEED).
"""

from __future__ import annotations

import functools
import math
import os
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from feeding import (
    HANDSHAKE,
    SESSIONS,
    bytewise,
    chunk,
    connected,
    control,
    outcome,
    payloadOf,
    session,
    setChunkSize,
)

from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import UNDEFINED

SEED = os.environ.get("RTMP_FUZZ_SEED", "1")

#: Enough for each kind of mutation in each kind of session to come often; all of
#: it takes some seconds.
SESSION_COUNT = int(os.environ.get("RTMP_FUZZ_SESSIONS", "10000"))

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

#: The command with it, which most conversations begin with.
CONNECTING = command("connect", 1, CONNECT)

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
            CONNECTING,
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
    tracks = CONNECTING
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


def mutate(
    data: bytearray, marks: list[int], others: list[bytes], rng: random.Random
) -> None:
    """
    Change something, near the beginning of a message or anywhere.

    @param marks: where messages begin.
    @param others: sessions of which a part may be put in.
    """
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
        other = rng.choice(others)
        start = rng.randrange(len(other))
        data[at:at] = other[start : start + length * 10]
    elif kind == 7:
        data[at:at] = rng.randbytes(length)
    elif rng.random() < 0.2:
        del data[at:]


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
            mutate(data, marks, self.sessions, rng)
        return bytes(data)


@functools.cache
def corpus() -> Corpus:
    """The sessions, which are taken apart once."""
    return Corpus()


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
        data += CONNECTING
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


# By HTTP

UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)

#: Requests by HTTP.
REQUESTS = (
    b"GET /live/key.flv HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /live/key.flv?x=%20 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /live/key.flv HTTP/1.1\r\nHost: a\r\n" + UPGRADE + b"\r\n",
    b"GET /live/none.flv HTTP/1.1\r\nHost: a\r\n" + UPGRADE + b"\r\n",
    b"GET /live/none.flv HTTP/1.0\r\n\r\n",
    b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    b"OPTIONS /live/key.flv HTTP/1.1\r\nOrigin: http://a\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\n\r\n",
)

#: Frames of a WebSocket: a ping, a text, the two halves of a message, a close.
FRAMES = (
    b"\x89\x84abcdping",
    b"\x81\x85\0\0\0\0hello",
    b"\x02\x82abcd\x01\x02",
    b"\x80\x82abcd\x03\x04",
    b"\x88\x82\0\0\0\0\x03\xe8",
)


def webSession(generator: random.Random) -> bytes:
    """Requests and frames with some bytes changed, put in, taken out, or copied."""
    parts = generator.choices(REQUESTS, k=generator.randint(1, 2))
    parts += generator.choices(FRAMES, k=generator.randint(0, 5))
    data = bytearray(b"".join(parts))
    for _ in range(generator.choice((0, 1, 1, 2, 5, 20))):
        at = generator.randrange(len(data))
        kind = generator.randrange(4)
        if kind == 0:
            data[at] = generator.randrange(256)
        elif kind == 1:
            data[at:at] = generator.randbytes(generator.randint(1, 10))
        elif kind == 2 and len(data) > 40:
            del data[at : at + generator.randint(1, 20)]
        else:
            start = generator.randrange(len(data))
            data[at:at] = data[start : start + generator.randint(1, 60)]
    return bytes(data)
