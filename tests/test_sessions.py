"""
What real encoders sent, read at every cut: recorded in sessions/.

The figures of librtmp's and curl's sessions were compared with the FLV files that
they had sent, ffmpeg's with what it wrote into a file.
"""

from __future__ import annotations

import hashlib
import random

import pytest
from feeding import (
    HANDSHAKE,
    SESSIONS,
    Server,
    bytewise,
    connected,
    outcome,
    randomPieces,
    readConnection,
    session,
    ways,
)

from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.connection import Connection, Role

#: Name, audio, video and data messages, the last time, and the digest of all that.
RECORDED = [
    ("ffmpeg", 46, 22, 1, 2197, "f857379b1290fbbf"),
    ("ffmpeg-late", 24, 12, 1, 16777675, "e696b4174a9fd04d"),
    ("ffmpeg-enhanced", 53, 12, 1, 1194, "48278b574b572bee"),
    ("rtmp2sink", 42, 22, 16, 1900, "fa3edf96e8b6d459"),
    ("rtmpsink", 42, 22, 16, 1900, "1fea68b6d8afe6fb"),
    ("librtmp", 46, 22, 1, 2043, "9aff4330349c9035"),
    ("librtmp-late", 24, 12, 1, 16777675, "e286841f63c87914"),
    ("curl", 46, 22, 1, 2043, "9aff4330349c9035"),
]
NAMES = [row[0] for row in RECORDED]

#: What each encoder says, apart from createStream and publish.
COMMANDS = {
    "rtmp2sink": [
        "connect",
        "releaseStream",
        "FCPublish",
        "createStream",
        "publish",
        "FCUnpublish",
        "deleteStream",
    ],
    "other": [
        "connect",
        "releaseStream",
        "FCPublish",
        "createStream",
        "_checkbw",
        "publish",
        "FCUnpublish",
        "deleteStream",
    ],
}

SET_DATA_FRAME = b"\x02\x00\x0d@setDataFrame"


def media(events):
    return [event for event in events if isinstance(event[0], int)]


def digestOf(messages):
    digest = hashlib.sha256()
    for typeId, streamId, timestamp, payload in messages:
        digest.update(b"%d %d %d %d " % (typeId, streamId, timestamp, len(payload)))
        digest.update(payload)
    return digest.hexdigest()[:16]


def readWhole(pieces):
    connection = Connection(Role.SERVER)
    result = outcome(connection.feed, connection.nextEvent, pieces)
    assert result.error is None
    assert connection.reader.pending == 0
    assert connection.reader.unfinished == 0
    assert connection.reader.dropped == 0
    assert connection.reader.assumed == 0
    return result.events


def test_allAreRead():
    assert sorted(path.stem for path in SESSIONS.glob("*.rtmp")) == sorted(NAMES)


@pytest.mark.parametrize("row", RECORDED, ids=NAMES)
def test_whole(row):
    name, audio, video, data, last, digest = row
    events = readWhole([session(name)])
    messages = media(events)
    counts = [sum(m[0] == typeId for m in messages) for typeId in (8, 9, 18)]
    assert counts == [audio, video, data]
    assert max(m[2] for m in messages) == last
    assert digestOf(messages) == digest
    commands = [e[0] for e in events if isinstance(e[0], str) and len(e) == 5]
    assert commands == COMMANDS.get(name, COMMANDS["other"])


@pytest.mark.parametrize("name", NAMES)
def test_byteByByte(name):
    data = session(name)
    assert readWhole(bytewise(data)) == readWhole([data])


@pytest.mark.parametrize("name", NAMES)
def test_randomPieces(name):
    data = session(name)
    expected = readWhole([data])
    seed = random.randrange(2**32)
    for n in range(60):
        rng = random.Random(seed + n)
        pieces = randomPieces(data, rng, rng.choice([2, 20, 200, 2000]))
        assert readWhole(pieces) == expected, f"seed {seed} + {n}"


@pytest.mark.parametrize("name", ["librtmp-late", "ffmpeg-late"])
def test_everyCut(name):
    """The two with extended timestamps, small chunks and the fewest messages."""
    data = session(name)[HANDSHAKE:]
    expected = readConnection([data])
    for cut in range(1, len(data)):
        assert readConnection([data[:cut], data[cut:]]) == expected, cut


@pytest.mark.parametrize("name", NAMES)
def test_cutsNearEachMessage(name):
    """
    The others, cut at each byte around the beginnings of messages: by feeding a
    byte at a time it is known where these are.
    """
    data = session(name)[HANDSHAKE:]
    expected = readConnection([data])
    connection = connected()
    ends = []
    for at, byte in enumerate(bytewise(data)):
        if outcome(connection.feed, connection.nextEvent, [byte]).events:
            ends.append(at + 1)
    rng = random.Random(1)
    for end in rng.sample(ends, 40):
        for cut in range(max(end - 3, 0), end + 13):
            assert readConnection([data[:cut], data[cut:]]) == expected, cut


def test_everyCutOfTheHandshake():
    data = session("curl")
    beginning = data[: HANDSHAKE + 40]
    expected = Connection(Role.SERVER)
    whole = outcome(expected.feed, expected.nextEvent, [beginning])
    assert whole.events == [("HandshakeDone",)]
    for how, pieces in ways(beginning):
        connection = Connection(Role.SERVER)
        result = outcome(connection.feed, connection.nextEvent, pieces)
        assert result == whole, how
        assert len(connection.dataToSend()) == HANDSHAKE


def asLive(payload: bytes) -> bytes:
    """Leave the facts of a file out of metadata: librtmp and curl sent one."""
    if not payload.startswith(amf0.encode("onMetaData")):
        return payload
    name, properties = amf0.decode(payload)
    for fact in ("duration", "filesize"):
        if properties.get(fact):
            del properties[fact]
    return amf0.encode(name, properties)


class TestThroughTheServer:
    """From the bytes to a sink: every message, whatever the cuts."""

    def expected(self, data):
        return [
            (*m[:3], asLive(m[3].removeprefix(SET_DATA_FRAME)))
            for m in media(readWhole([data]))
        ]

    def playAll(self, data, cutting):
        """One server, and one connection for each way of cutting."""
        server = Server()
        for pieces in cutting:
            server.play(pieces)
        assert server.factory.streams == {}
        assert set(server.factory.connections) == set()
        assert server.factory.counters.violations == 0
        assert server.factory.counters.strayMessages == 0
        return server

    @pytest.mark.parametrize("name", NAMES)
    def test_sinkGetsAll(self, name):
        data = session(name)
        seed = random.randrange(2**32)
        rng = random.Random(seed)
        cutting = [[data], bytewise(data)]
        cutting += [randomPieces(data, rng, mean) for mean in [5, 50, 500] * 4]
        server = self.playAll(data, cutting)
        expected = self.expected(data)
        assert len(server.streams) == len(cutting)
        for messages in server.streams:
            assert messages == expected, f"seed {seed}"

    def test_manyCuts(self):
        data = session("librtmp-late")
        cuts = range(HANDSHAKE - 20, len(data), 11)
        cutting = [[data[:cut], data[cut:]] for cut in cuts]
        server = self.playAll(data, cutting)
        expected = self.expected(data)
        assert len(server.streams) == len(cutting)
        for cut, messages in zip(cuts, server.streams, strict=True):
            assert messages == expected, cut

    def test_ledger(self):
        server = Server()
        server.play([session("ffmpeg")])
        [sink] = server.sinks
        received = sink.stream.ledger.received
        assert (received.video, received.audio) == (20, 45)
        assert (received.headers, received.data) == (3, 1)
        assert sink.stream.ledger.lost == 0
        assert received.size == sum(
            len(m[3]) for m in media(readWhole([session("ffmpeg")]))
        )

    @pytest.mark.parametrize("name", NAMES)
    def test_brokenOff(self, name):
        """
        A connection that breaks at any byte: what came whole got through, and the
        stream ends.
        """
        data = session(name)
        expected = self.expected(data)
        lengths = []
        for size in range(HANDSHAKE, len(data), 97):
            server = Server()
            server.play([data[:size]])
            assert server.factory.streams == {}
            assert len(server.streams) <= 1
            if server.streams:
                [messages] = server.streams
                assert messages == expected[: len(messages)]
                lengths.append(len(messages))
        assert lengths == sorted(lengths)
        assert lengths[-1] >= len(expected) - 1
