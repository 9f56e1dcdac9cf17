"""
Hostile bytes, made of honest ones: whatever comes, there are events or a
ProtocolError, never another error, and never more in memory than the limits say.
"""

from __future__ import annotations

import random
from typing import get_args

import pytest
from feeding import (
    HANDSHAKE,
    CollectingSink,
    Outcome,
    Server,
    connected,
    outcome,
    randomPieces,
    readConnection,
    session,
)
from fuzzkit import (
    CONNECT,
    MEDIA,
    METADATA,
    SEED,
    SESSION_COUNT,
    command,
    conversation,
    corpus,
    inChunks,
    mutate,
    named,
)
from publisherkit import StubPublisher
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

EVENTS = get_args(Event)

#: So small that mutations reach them.
TIGHT = WireLimits(
    messageSize=3000, unfinishedBytes=4000, chunkStreams=6, amfDepth=3, amfValues=20
)

#: The longest header: basic 3, message 11, extended 4 bytes.
HEADER = 18


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


def test_wire():
    """The wire core alone, behind the handshake: most sessions are for it."""
    errors = events = 0
    kinds = set()
    for n in range(SESSION_COUNT):
        rng = random.Random(f"{SEED}/{n}")
        data = corpus().mutated(rng)
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


def test_media():
    """
    Payloads of audio, video and data, through a live stream: each one comes to the
    sink, or is booked as lost, and late players get headers that are well-formed.
    """
    flagsSeen = 0
    for n in range(max(SESSION_COUNT // 10, 500)):
        rng = random.Random(f"{SEED}/media/{n}")
        stream = LiveStream("a", "b", StubPublisher(mayBeHeld=False), Pacer(Clock()))
        sink = CollectingSink(stream)
        stream.addSink(sink)
        cleared = 0
        with named(SEED, "media", n):
            for time in range(10):
                typeId, payload = rng.choice(MEDIA)
                data = bytearray(payload)
                for _ in range(rng.randrange(3)):
                    mutate(data, [0], corpus().sessions, rng)
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
    read = 0
    count = max(SESSION_COUNT // 5, 500)
    for n in range(count):
        rng = random.Random(f"{SEED}/amf/{n}")
        data = bytearray(rng.choice(payloads))
        for _ in range(1 + rng.randrange(4)):
            mutate(data, [0, len(data) // 2], payloads, rng)
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


def test_server():
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
        data = corpus().mutated(rng) if n % 2 else conversation(rng)
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
