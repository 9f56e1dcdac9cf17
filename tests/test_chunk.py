"""
The chunk stream: RTMP 1.0, 5.3.

Vectors of bytes and messages, read at every cut; chunk streams written at random
by a writer that uses every freedom of the format; bounds; and the writer.
"""

from __future__ import annotations

import random
import tracemalloc

import pytest
from feeding import (
    abort,
    basic,
    bytewise,
    chunk,
    outcome,
    payloadOf,
    readChunks,
    setChunkSize,
    ways,
)

from twisted_rtmp.wire.chunk import (
    ChunkReader,
    ChunkWriter,
    encodeMessage,
    encodeMessages,
    nearest,
)
from twisted_rtmp.wire.constants import NEED_DATA
from twisted_rtmp.wire.errors import ChunkError, LimitError, UsageError
from twisted_rtmp.wire.limits import MIB, WireLimits
from twisted_rtmp.wire.messages import Message

P = payloadOf(300)
DAY = 24 * 3600 * 1000


def video(time, payload, stream=1):
    return (9, stream, time, payload)


#: Name, bytes, messages: (type, message stream, milliseconds, payload).
VECTORS = [
    # 5.3.1.2.1
    ("format0", chunk(0, 6, b"abc", time=1000), [video(1000, b"abc")]),
    (
        "format0StreamIdIsLittleEndian",
        bytes.fromhex("06 0003e8 000001 08 01020304 ff"),
        [(8, 0x04030201, 1000, b"\xff")],
    ),
    # 5.3.1.2.2
    (
        "format1KeepsTheStreamId",
        chunk(0, 6, b"a", time=5, stream=7) + chunk(1, 6, b"bc", time=40, type=8),
        [(9, 7, 5, b"a"), (8, 7, 45, b"bc")],
    ),
    # 5.3.1.2.3
    (
        "format2KeepsLengthAndType",
        chunk(0, 6, b"ab", time=5) + chunk(2, 6, b"cd", time=7),
        [video(5, b"ab"), video(12, b"cd")],
    ),
    # 5.3.1.2.4
    (
        "format3AddsTheDeltaAgain",
        chunk(0, 6, b"ab", time=5)
        + chunk(2, 6, b"cd", time=7)
        + chunk(3, 6, b"ef")
        + chunk(3, 6, b"gh"),
        [video(5, b"ab"), video(12, b"cd"), video(19, b"ef"), video(26, b"gh")],
    ),
    # 5.3.2.1: the specification's first example
    (
        "specificationsAudioExample",
        chunk(0, 3, P[:32], time=1000, type=8, stream=12345)
        + chunk(2, 3, P[32:64], time=20)
        + chunk(3, 3, P[64:96])
        + chunk(3, 3, P[96:128]),
        [(8, 12345, 1000 + 20 * n, P[32 * n : 32 * n + 32]) for n in range(4)],
    ),
    # 5.3.2.2: its second example
    (
        "specificationsVideoExample",
        chunk(0, 4, P[:128], time=1000, length=300, stream=12346)
        + chunk(3, 4, P[128:256])
        + chunk(3, 4, P[256:300]),
        [(9, 12346, 1000, P)],
    ),
    (
        "messageOfExactlyOneChunk",
        chunk(0, 4, P[:128]) + chunk(3, 4, P[128:256]),
        [video(0, P[:128]), video(0, P[128:256])],
    ),
    ("emptyMessage", chunk(0, 4) + chunk(3, 4), [video(0, b""), video(0, b"")]),
    # 5.3.1.1
    *[
        (
            f"csid{csid}In{size}Bytes",
            chunk(0, csid, P[:128], length=200, time=9, size=size)
            + chunk(3, csid, P[128:200], size=size)
            + chunk(1, csid, b"x", time=1, size=size),
            [video(9, P[:200]), video(10, b"x")],
        )
        for csid, size in [
            (2, 1),
            (63, 1),
            (64, 2),
            (319, 2),
            (64, 3),
            (320, 3),
            (65599, 3),
        ]
    ],
    (
        "csidBytesAreLittleEndian",
        bytes.fromhex("01 0102") + chunk(0, 2, b"q")[1:] + chunk(1, 577, b"r"),
        [video(0, b"q"), video(0, b"r")],
    ),
    # 5.3.1.3
    (
        "extendedInFormat0",
        chunk(0, 6, P[:128], length=200, time=0x01020304)
        + chunk(3, 6, P[128:200], time=0x01020304),
        [video(0x01020304, P[:200])],
    ),
    (
        "extendedInFormat1",
        chunk(0, 6, b"a", time=3)
        + chunk(1, 6, P[:128], length=200, time=0x01020304)
        + chunk(3, 6, P[128:200], time=0x01020304),
        [video(3, b"a"), video(0x01020307, P[:200])],
    ),
    (
        "extendedInFormat2",
        chunk(0, 6, P[:128], length=200, time=3)
        + chunk(3, 6, P[128:200])
        + chunk(2, 6, P[:128], time=0x01020304)
        + chunk(3, 6, P[128:200], time=0x01020304),
        [video(3, P[:200]), video(0x01020307, P[:200])],
    ),
    (
        "extendedInFormat3ThatOpensAMessage",
        chunk(0, 6, b"a", time=3)
        + chunk(1, 6, b"b", time=0x01020304)
        + chunk(3, 6, b"c", time=0x01020304),
        [video(3, b"a"), video(0x01020307, b"b"), video(0x0204060B, b"c")],
    ),
    (
        "extendedNotRepeated",
        chunk(0, 6, P[:128], length=300, time=0x01020304)
        + chunk(3, 6, P[128:256])
        + chunk(3, 6, P[256:300]),
        [video(0x01020304, P)],
    ),
    (
        "extendedNotRepeatedAndAShortEnd",
        chunk(0, 6, P[:128], length=129, time=0x01020304)
        + chunk(3, 6, P[128:129])
        + chunk(1, 6, b"x", time=1),
        [video(0x01020304, P[:129]), video(0x01020305, b"x")],
    ),
    (
        "extendedEndsWithTheNextShortTime",
        chunk(0, 6, b"a", time=0x01020304)
        + chunk(1, 6, P[:128], length=200, time=20)
        + chunk(3, 6, P[128:200]),
        [video(0x01020304, b"a"), video(0x01020318, P[:200])],
    ),
    (
        "extendedIsForgottenWithTheNextShortTime",
        chunk(0, 6, b"a", time=0x01020304)
        + chunk(1, 6, P[:128], length=200, time=20)
        + chunk(3, 6, b"\1\2\3\4" + P[132:200]),
        [
            video(0x01020304, b"a"),
            video(0x01020318, P[:128] + b"\1\2\3\4" + P[132:200]),
        ],
    ),
    (
        "extendedIsEachChunkStreamsOwn",
        chunk(0, 6, P[:128], length=200, time=0x01020304)
        + chunk(0, 4, P[:128], length=200, time=0x01020304, type=8)
        + chunk(1, 5, b"z", time=0)
        + chunk(3, 4, P[128:200], time=0x01020304)
        + chunk(3, 6, P[128:200]),
        [
            video(0, b"z", 0),
            (8, 1, 0x01020304, P[:200]),
            video(0x01020304, P[:200]),
        ],
    ),
    # 5.4.1
    (
        "setChunkSizeAmidAnotherMessage",
        chunk(0, 6, P[:128], length=300)
        + setChunkSize(100)
        + chunk(3, 6, P[128:228])
        + setChunkSize(1000)
        + chunk(3, 6, P[228:300])
        + chunk(1, 6, P),
        [video(0, P), video(0, P)],
    ),
    (
        "setChunkSizeInOneByteChunks",
        setChunkSize(1)
        + chunk(0, 6, b"a", length=3)
        + chunk(3, 6, b"b")
        + chunk(3, 6, b"c")
        + chunk(0, 2, b"\0", type=1, length=4, stream=0)
        + chunk(3, 2, b"\0")
        + chunk(3, 2, b"\1")
        + chunk(3, 2, b"\0")
        + chunk(1, 6, P[:256]),
        [video(0, b"abc"), video(0, P[:256])],
    ),
    # 5.4.2
    (
        "abortOfAMessageBegun",
        chunk(0, 6, P[:128], length=300, time=10)
        + abort(6)
        + chunk(1, 6, b"x", time=5),
        [video(15, b"x")],
    ),
    (
        "abortOfAnother",
        chunk(0, 6, P[:128], length=200)
        + chunk(0, 4, P[:128], length=300, type=8)
        + abort(4)
        + chunk(3, 6, P[128:200]),
        [video(0, P[:200])],
    ),
    # 5.3: chunks of several messages may alternate
    (
        "interleaved",
        chunk(0, 6, P[:128], length=300, time=40)
        + chunk(0, 4, b"audio", time=41, type=8)
        + chunk(3, 6, P[128:256])
        + chunk(1, 4, P[:128], length=129, time=1, type=8)
        + chunk(3, 6, P[256:])
        + chunk(3, 4, P[128:129]),
        [(8, 1, 41, b"audio"), video(40, P), (8, 1, 42, P[:129])],
    ),
    (
        "headerAmidAMessageGivesItUp",
        chunk(0, 6, P[:128], length=300) + chunk(1, 6, b"x", time=5),
        [video(5, b"x")],
    ),
    # runs of chunks, which are read at once
    *[
        (
            f"run{name}",
            first(0x11223344)
            + b"".join(
                chunk(3, csid, P[at : at + 128], time=time)
                for at in range(128, 700, 128)
            )
            + chunk(1, csid, b"end", time=0),
            [video(0x11223344, P[:700]), video(0x11223344, b"end")],
        )
        for P in [payloadOf(700)]
        for name, csid, time in [
            ("Extended", 6, 0x11223344),
            ("Bare", 6, 0),
            ("ExtendedOf2Bytes", 100, 0x11223344),
            ("ExtendedOf3Bytes", 1000, 0x11223344),
            ("BareOf3Bytes", 1000, 0),
        ]
        for first in [
            lambda time, csid=csid, P=P: chunk(0, csid, P[:128], length=700, time=time)
        ]
    ],
    (
        "runBrokenByAudio",
        b"".join(
            chunk(0, 6, P[:128], length=1500)
            if at == 0
            else (chunk(0, 4, b"a", type=8) if at == 640 else b"")
            + chunk(3, 6, P[at : at + 128])
            for P in [payloadOf(1500)]
            for at in range(0, 1500, 128)
        ),
        [(8, 1, 0, b"a"), video(0, payloadOf(1500))],
    ),
    (
        "runWhoseDataLookLikeHeaders",
        chunk(0, 6, b"\xc6" * 128, length=1000)
        + (b"\xc6" + b"\xc6" * 128) * 6
        + b"\xc6"
        + b"\xc6" * 104,
        [video(0, b"\xc6" * 1000)],
    ),
    (
        "runThatMixesHeaderForms",
        chunk(0, 64, P[:128], length=300, size=2)
        + chunk(3, 64, P[128:256], size=3)
        + chunk(3, 64, P[256:], size=2),
        [video(0, P)],
    ),
]


@pytest.mark.parametrize(
    ("data", "messages"), [v[1:] for v in VECTORS], ids=[v[0] for v in VECTORS]
)
class TestVectors:
    def test_anyCut(self, data, messages):
        for how, pieces in ways(data):
            result = readChunks(pieces)
            assert result.events == messages, how
            assert result.error is None

    def test_theLongWay(self, data, messages):
        """What is read quickly where that goes is no other than what all else is."""
        for how, pieces in ways(data):
            reader = ChunkReader()
            result = outcome(reader.feed, reader.nextOther, pieces)
            assert result.events == messages, how

    def test_trailing(self, data, messages):
        """What comes after a message, whole or not, changes nothing in it."""
        following = chunk(0, 9, b"next", time=77, type=8)
        for size in range(len(following)):
            result = readChunks([data + following[:size]])
            assert result.events == messages
        assert readChunks([data + following]).events == [
            *messages,
            (8, 1, 77, b"next"),
        ]

    def test_truncated(self, data, messages):
        """Of less, there comes a beginning, and no error."""
        for size in range(len(data)):
            result = readChunks([data[:size]])
            assert result.error is None
            assert result.events == messages[: len(result.events)]
            assert len(result.events) < len(messages)


class RandomPeer:
    """
    Writes messages in any way that the format allows, each time another one.

    It keeps its own account of what a reader has to know, and so of when it may
    leave what out.  Time goes by no more than 2^31 - 1 at a time.
    """

    def __init__(self, rng):
        self.rng = rng
        self.chunkSize = 128
        self.known = {}
        self.messages = []
        self.open = []
        self.out = []

    def begin(self):
        rng = self.rng
        csids = [3, 4, 6, 63, 64, 319, 320, 5000, 65599]
        free = [c for c in csids if c not in {job["csid"] for job in self.open}]
        if not free:
            return
        csid = rng.choice(free)
        payload = rng.randbytes(
            rng.choice([0, 1, 3, 127, 128, 129, rng.randrange(3000)])
        )
        typeId = rng.choice([8, 9, 18, 20, 22])
        before = self.known.get(csid)
        if before is None:
            headerFormat, time = 0, rng.choice([0, 1, 0xFFFFFE, 0xFFFFFF, 5 * DAY])
            clocks = [m[2] for m in self.messages if m[0] in (8, 9)][-1:]
            # Of all times that look alike on the wire, the one nearest to the
            # newest audio or video.
            now = min(
                (time + n * 2**32 for n in range(-9, 99)),
                key=lambda t: abs(t - clocks[0]) if clocks else (t != time),
            )
        else:
            headerFormat = rng.randrange(4)
            time = rng.choice([0, 1, 20, 0xFFFFFE, 0xFFFFFF, 0x1000000, 2**31 - 1])
            if headerFormat == 3:
                time = before["delta"]
            now = before["time"] + time
            if headerFormat == 0:
                time = now & 0xFFFFFFFF
        stream = before["stream"] if headerFormat else rng.choice([0, 1, 2**32 - 1])
        if headerFormat >= 2:
            typeId = before["type"]
            payload = rng.randbytes(before["length"])
        extended = time if time >= 0xFFFFFF else 0
        if extended and payload[:4] == extended.to_bytes(4, "big"):
            return
        # A format 3 header adds what a format 0 header said, as a signed number.
        delta = time if time < 2**31 else time - 2**32
        if headerFormat == 3:
            extended = before["extended"]
        self.known[csid] = {
            "time": now,
            "delta": delta,
            "stream": stream,
            "type": typeId,
            "length": len(payload),
            "extended": extended,
        }
        first = chunk(
            headerFormat,
            csid,
            payload[: self.chunkSize],
            time=extended if headerFormat == 3 else time,
            length=len(payload),
            type=typeId,
            stream=stream,
            size=rng.choice([2, 3]) if 64 <= csid < 320 else 0,
        )
        self.out.append(first)
        job = {
            "csid": csid,
            "at": self.chunkSize,
            "payload": payload,
            "message": (typeId, stream, now, payload),
            # OBS until 31 and others do not repeat it.
            "extended": extended if rng.random() < 0.5 else 0,
        }
        if self.chunkSize >= len(payload):
            self.messages.append(job["message"])
        else:
            self.open.append(job)

    def goOn(self):
        rng = self.rng
        job = rng.choice(self.open)
        for _ in range(rng.choice([1, 1, 2, 50])):
            at = job["at"]
            piece = job["payload"][at : at + self.chunkSize]
            job["at"] = at + self.chunkSize
            self.out.append(chunk(3, job["csid"], piece, time=job["extended"]))
            if job["at"] >= len(job["payload"]):
                self.messages.append(job["message"])
                self.open.remove(job)
                break

    def write(self, steps):
        for _ in range(steps):
            what = self.rng.random()
            if what < 0.1:
                self.chunkSize = self.rng.choice([1, 2, 7, 128, 4096, 2**31 - 1])
                # On a chunk stream of its own, in chunks of the old size.
                self.out.append(self.control(1, self.chunkSize))
            elif what < 0.15 and self.open:
                job = self.rng.choice(self.open)
                self.out.append(self.control(2, job["csid"]))
                self.open.remove(job)
            elif what < 0.5 or not self.open:
                self.begin()
            else:
                self.goOn()
        while self.open:
            self.goOn()
        return b"".join(self.out)

    def control(self, typeId, value):
        payload = value.to_bytes(4, "big")
        size = self.controlSize
        self.controlSize = self.chunkSize
        return b"".join(
            chunk(3 if at else 0, 2, payload[at : at + size], length=4, type=typeId)
            for at in range(0, 4, size)
        )

    controlSize = 128


class TestRandomPeer:
    @pytest.mark.parametrize("first", range(0, 300, 50))
    def test_everyFreedom(self, first):
        for seed in range(first, first + 50):
            peer = RandomPeer(random.Random(seed))
            data = peer.write(40)
            whole = readChunks([data])
            assert whole.error is None, seed
            assert whole.events == peer.messages, seed
            rng = random.Random(-seed)
            cuts = [rng.randrange(len(data)) for _ in range(10)]
            assert readChunks(bytewise(data)) == whole, seed
            for cut in cuts:
                assert readChunks([data[:cut], data[cut:]]) == whole, (seed, cut)


def readOne(*pieces, limits=None):
    reader = ChunkReader(limits or WireLimits())
    for piece in pieces:
        reader.feed(piece)
        while reader.nextMessage() is not NEED_DATA:
            pass
    return reader


class TestTime:
    """Timestamps are 32 bits on the wire, and 64 and more within."""

    @pytest.mark.parametrize("headerFormat", [0, 1])
    @pytest.mark.parametrize("wrap", [2**24, 2**31, 2**32, 2**33, 2**40])
    def test_pastAWrap(self, headerFormat, wrap):
        """4 h 39 min, 24.8 days, 49.7 days, 99 days and 34 years."""
        reader = ChunkReader()
        times = [0]
        while times[-1] < wrap - 2 * DAY:
            times.append(min(times[-1] + 20 * DAY, wrap - DAY))
            if len(times) > 3000:
                break
        if times[-1] < wrap - 2 * DAY:
            # 34 years in steps that still unwrap.
            times = list(range(0, wrap, 2**31 - 1))
        times += [wrap - 33, wrap - 1, wrap, wrap + 1, wrap + 33, wrap + DAY]
        times = sorted(t for t in set(times) if t >= 0)
        got = []
        before = None
        for time in times:
            if before is None or headerFormat == 0:
                data = chunk(0, 6, b"v", time=time & 0xFFFFFFFF)
            else:
                data = chunk(1, 6, b"v", time=time - before)
            before = time
            reader.feed(data)
            got.append(reader.nextMessage().timestamp)
        assert got == times

    def test_backwards(self):
        """A format 0 header may go back, also across the wrap."""
        reader = ChunkReader()
        times = [2**32 - 10, 2**32 + 10, 2**32 - 5, 2**32 + 20, 2**32 - 2**31 + 21]
        for time in times:
            reader.feed(chunk(0, 6, b"v", time=time & 0xFFFFFFFF))
            assert reader.nextMessage().timestamp == time

    def test_negativeDelta(self):
        reader = ChunkReader()
        reader.feed(chunk(0, 6, b"v", time=1000) + chunk(1, 6, b"w", time=2**32 - 40))
        assert [reader.nextMessage().timestamp for _ in "vw"] == [1000, 960]

    def test_newChunkStreamFollowsTheConnectionsTime(self):
        """
        After 49.7 days a client opens another chunk stream: its time is near that
        of the others, not 2^32 before.
        """
        reader = ChunkReader()
        reader.feed(
            chunk(0, 6, b"v", time=2**32 - 10)
            + chunk(1, 6, b"v", time=20)
            + chunk(0, 4, b"a", time=12, type=8)
            + chunk(0, 7, b"a", time=2**32 - 3, type=8)
        )
        times = [reader.nextMessage().timestamp for _ in range(4)]
        assert times == [2**32 - 10, 2**32 + 10, 2**32 + 12, 2**32 - 3]

    def test_newChunkStreamInFormat1(self):
        """Its field is taken for an absolute time: there is nothing to add it to."""
        reader = ChunkReader()
        reader.feed(
            chunk(0, 6, b"v", time=2**32 - 10)
            + chunk(1, 6, b"v", time=20)
            + chunk(1, 4, b"a", time=15, type=8)
            + chunk(1, 4, b"a", time=15, type=8)
        )
        times = [reader.nextMessage().timestamp for _ in range(4)]
        assert times[2:] == [2**32 + 15, 2**32 + 30]

    def test_controlTimeIsNoReference(self):
        """Commands and controls often have time 0, whatever the media's is."""
        reader = ChunkReader()
        reader.feed(
            chunk(0, 6, b"v", time=3 * 2**30)
            + chunk(0, 3, b"c", time=0, type=20)
            + chunk(0, 4, b"a", time=3 * 2**30 + 5, type=8)
        )
        times = [reader.nextMessage().timestamp for _ in range(3)]
        assert times[0] == 3 * 2**30
        assert times[2] == 3 * 2**30 + 5

    @pytest.mark.parametrize("reference", [0, 5, 2**31, 2**32 - 1, 7 * 2**40 + 3, -9])
    def test_nearest(self, reference):
        for offset in (0, 1, -1, 1000, -1000, 2**31 - 1, -(2**31)):
            time = reference + offset
            assert nearest(time & 0xFFFFFFFF, reference) == time


class TestLimits:
    def test_messageSize(self):
        """Refused by the header alone, at any cut before it is whole."""
        limits = WireLimits(messageSize=1000)
        assert readChunks([chunk(0, 6, b"", length=1000)], limits).error is None
        for headerFormat in (0, 1):
            data = chunk(0, 6) + chunk(headerFormat, 6, b"", length=1001)
            assert readChunks([data[:-1]], limits).error is None
            for _, pieces in ways(data):
                error = readChunks(pieces, limits).error
                assert error == (LimitError, "RTMP 1.0, 6.1.1", 1000)

    def test_defaultMessageSize(self):
        assert readChunks([chunk(0, 6, b"", length=8 * MIB)]).error is None
        error = readChunks([chunk(0, 6, b"", length=8 * MIB + 1)]).error
        assert error == (LimitError, "RTMP 1.0, 6.1.1", 8 * MIB)

    def test_chunkStreams(self):
        limits = WireLimits(chunkStreams=5)
        data = b"".join(chunk(0, csid, b"x") for csid in range(60, 66))
        for _, pieces in ways(data):
            result = readChunks(pieces, limits)
            assert len(result.events) == 5
            assert result.error == (LimitError, "RTMP 1.0, 5.3.1.1", 5)

    def test_manyMessagesOnFewChunkStreams(self):
        limits = WireLimits(chunkStreams=2)
        data = b"".join(chunk(0, csid, b"x") for csid in [6, 4] * 50)
        assert len(readChunks([data], limits).events) == 100

    def test_sumOfUnfinished(self):
        limits = WireLimits(unfinishedBytes=500)
        data = b"".join(
            chunk(0, csid, payloadOf(128), length=1000) for csid in range(3, 7)
        )
        assert readChunks([data[:-12]], limits).error is None
        assert readChunks([data[:-11]], limits).error is not None
        for how, pieces in ways(data):
            assert readChunks(pieces, limits).error == (LimitError, "", 500), how

    def test_unfinishedIsGivenBack(self):
        """Finished and aborted messages count no more."""
        reader = readOne(chunk(0, 6, P[:128], length=300))
        assert reader.unfinished == 128
        reader = readOne(chunk(0, 6, P[:128], length=300) + chunk(3, 6, P[128:200]))
        assert reader.unfinished == 200
        for end in (
            abort(6),
            chunk(3, 6, P[128:256]) + chunk(3, 6, P[256:]),
            chunk(1, 6, b"other"),
        ):
            for _, pieces in ways(chunk(0, 6, P[:128], length=300) + end):
                assert readOne(*pieces).unfinished == 0

    def test_nothingIsAllocatedForADeclaredLength(self):
        """32 connections that declare 8 MiB each on 60 chunk streams: P6."""
        data = b"".join(chunk(0, csid, b"x", length=8 * MIB) for csid in range(3, 63))
        data = setChunkSize(1) + data
        tracemalloc.start()
        readers = [readOne(data) for _ in range(32)]
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert {reader.unfinished for reader in readers} == {60}
        assert size < 1 * MIB + 32 * 60 * 700

    def test_oneByteChunksCostTheirBytes(self):
        """P10: not an object a byte, while the message grows."""
        count = 300_000
        data = setChunkSize(1) + chunk(0, 6, b"x", length=400_000) + b"\xc6x" * count
        pieces = [data[at : at + 4096] for at in range(0, len(data), 4096)]
        tracemalloc.start()
        reader = readOne(*pieces)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert reader.unfinished == count + 1
        assert size < 2 * (2 * count) + len(data)

    def test_pendingIsAHeaderAtMost(self):
        """Between two reads, data have gone to their messages."""
        peer = RandomPeer(random.Random(5))
        data = peer.write(40)
        reader = ChunkReader()
        for byte in bytewise(data):
            reader.feed(byte)
            while reader.nextMessage() is not NEED_DATA:
                pass
            assert reader.pending <= 18

    @pytest.mark.parametrize("size", [0, 2**31, 2**31 + 128, 2**32 - 1])
    def test_chunkSizesRefused(self, size):
        data = chunk(0, 6, b"before") + setChunkSize(size)
        for _, pieces in ways(data):
            result = readChunks(pieces)
            assert result.events == [video(0, b"before")]
            assert result.error == (ChunkError, "RTMP 1.0, 5.4.1", 2**31 - 1)

    @pytest.mark.parametrize("size", [1, 127, 8 * MIB, 0xFFFFFF, 2**31 - 1])
    def test_chunkSizesTaken(self, size):
        reader = readOne(setChunkSize(size))
        assert reader.chunkSize == min(size, 8 * MIB)

    @pytest.mark.parametrize("typeId", [1, 2])
    @pytest.mark.parametrize("length", range(4))
    def test_shortControls(self, typeId, length):
        data = chunk(0, 2, bytes(length), type=typeId, stream=0)
        error = readChunks([data]).error
        assert error is not None
        assert error[:2] == (ChunkError, f"RTMP 1.0, 5.4.{typeId}")

    @pytest.mark.parametrize(
        ("headerFormat", "section"),
        [(2, "RTMP 1.0, 5.3.1.2.3"), (3, "RTMP 1.0, 5.3.1.2.4")],
    )
    def test_opensWithoutLength(self, headerFormat, section):
        data = chunk(0, 4, b"x") + chunk(headerFormat, 6, b"y")
        for _, pieces in ways(data):
            result = readChunks(pieces)
            assert result.events == [video(0, b"x")]
            assert result.error == (ChunkError, section, None)


class TestCounters:
    def test_dropped(self):
        for end in (abort(6), chunk(0, 6, b"x")):
            for _, pieces in ways(chunk(0, 6, P[:128], length=300) + end):
                reader = readOne(*pieces)
                assert (reader.dropped, reader.droppedBytes) == (1, 128)

    def test_abortWithoutAMessageDropsNothing(self):
        reader = readOne(chunk(0, 6, b"x") + abort(6) + abort(7) + abort(2**32 - 1))
        assert (reader.dropped, reader.droppedBytes) == (0, 0)

    def test_assumed(self):
        reader = readOne(chunk(1, 6, b"x") + chunk(1, 6, b"x") + chunk(0, 4, b"y"))
        assert reader.assumed == 1


class TestWriter:
    TIMES = (0, 0, 23, 0xFFFFFE, 0xFFFFFF, 0x1000000, 0x1000017, 5, 2**31, 2**32 - 1)

    @pytest.mark.parametrize("chunkSize", [1, 127, 128, 4096])
    @pytest.mark.parametrize("csid", [2, 63, 64, 319, 320, 65599])
    def test_readerUnderstands(self, csid, chunkSize):
        writer = ChunkWriter()
        data = setChunkSize(chunkSize)
        writer.chunkSize = chunkSize
        messages = []
        for n, time in enumerate((*self.TIMES, 2**32, 2**32 + 40)):
            payload = payloadOf(chunkSize * n + n % 3)
            streamId = 1 + (n == 4)
            data += writer.encode(csid, 9, time, streamId, payload)
            messages.append((9, streamId, time, payload))
        assert readChunks([data]).events == messages
        rng = random.Random(csid)
        for cut in [rng.randrange(len(data)) for _ in range(30)]:
            assert readChunks([data[:cut], data[cut:]]).events == messages

    def test_formats(self):
        """Format 0 first, when time goes back and for another stream; else 1."""
        writer = ChunkWriter()
        formats = [
            writer.encode(6, 9, time, streamId, b"x")[0] >> 6
            for time, streamId in [
                (10, 1),
                (10, 1),
                (50, 1),
                (40, 1),
                (60, 1),
                (60, 2),
                (60, 1),
                (60 + 2**31, 1),
                (60 + 2**32 - 1, 1),
            ]
        ]
        assert formats == [0, 1, 1, 0, 1, 0, 0, 0, 1]

    def test_eachChunkStreamForItself(self):
        writer = ChunkWriter()
        assert writer.encode(6, 9, 10, 1, b"x") == chunk(0, 6, b"x", time=10)
        assert writer.encode(4, 8, 12, 1, b"x") == chunk(0, 4, b"x", time=12, type=8)
        assert writer.encode(6, 9, 15, 1, b"x") == chunk(1, 6, b"x", time=5)

    @pytest.mark.parametrize("time", [0xFFFFFE, 0xFFFFFF, 0x1000000, 2**32 - 1])
    def test_extendedIsRepeated(self, time):
        data = encodeMessage(6, 9, time, 1, P, 128)
        repeated = time if time >= 0xFFFFFF else 0
        assert data == (
            chunk(0, 6, P[:128], length=300, time=time)
            + chunk(3, 6, P[128:256], time=repeated)
            + chunk(3, 6, P[256:], time=repeated)
        )

    def test_timeWraps(self):
        data = encodeMessage(6, 9, 2**32 + 5, 1, b"x", 128)
        assert data == chunk(0, 6, b"x", time=5)

    @pytest.mark.parametrize("streamId", [0, 1, 0xFFFFFFFF])
    def test_severalAreWrittenAsEachAlone(self, streamId):
        """The quick way and the general one write the same."""
        streams = {8: 2, 9: 63}
        times = (0, 1, 0x10000, 0xFFFFFE, 0xFFFFFF, 0x1000000, 2**32 - 1, 2**32 + 5)
        messages = [
            Message(typeId, time, 7, payloadOf(size))
            for typeId in streams
            for time in times
            for size in (0, 1, 127, 128, 129, 70_000)
        ]
        assert encodeMessages(messages, streams, streamId, 128) == b"".join(
            encodeMessage(
                streams[m.typeId], m.typeId, m.timestamp, streamId, m.payload, 128
            )
            for m in messages
        )
        assert encodeMessages([], streams, streamId, 128) == b""
        with pytest.raises(UsageError):
            encodeMessages([Message(9, 0, 1, bytes(2**24))], streams, 1, 2**31 - 1)

    def test_chunkSizeBounds(self):
        writer = ChunkWriter()
        for size in (0, -1, 2**31):
            with pytest.raises(UsageError):
                writer.chunkSize = size
        assert writer.chunkSize == 128
        writer.chunkSize = 2**31 - 1
        assert writer.encode(6, 9, 0, 1, P) == chunk(0, 6, P)

    @pytest.mark.parametrize("csid", [-1, 0, 1, 65600])
    def test_noChunkStream(self, csid):
        with pytest.raises(UsageError):
            encodeMessage(csid, 9, 0, 1, b"", 128)

    def test_tooLong(self):
        with pytest.raises(UsageError):
            encodeMessage(6, 9, 0, 1, bytes(2**24), 128)

    def test_basicHeader(self):
        for csid in (2, 63, 64, 319, 320, 65599):
            assert encodeMessage(csid, 9, 0, 1, b"", 128)[:3].startswith(basic(0, csid))
