"""What peers make the server keep, and what they are refused of it."""

from __future__ import annotations

import pytest
from httpclient import Getter
from rtmpclient import AVC_FRAME, AVC_KEY_FRAME, COMMAND, DATA, VIDEO, Client
from twisted.internet.task import Clock

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.limits import (
    ALL_HEADER_BYTES,
    METADATA_BYTES,
    NAME_BYTES,
    QUERY_BYTES,
    SEQUENCE_HEADER_BYTES,
    SLOW_PLAYER_RATE,
    SLOW_PLAYER_SECONDS,
    STREAM_BURST,
    QueueLimits,
    ServerLimits,
)
from twisted_rtmp.web import HTTPSite
from twisted_rtmp.wire import amf0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def factory(clock: Clock) -> RTMPFactory:
    return RTMPFactory(clock)


def trackHeader(track: int, size: int) -> bytes:
    """A sequence header of one of several tracks, of a size in bytes."""
    header = b"\x96\x00avc1" + bytes((track,))
    return header + bytes(size - len(header))


# Sequence headers and metadata


def test_largeHeadersAreDiscarded(factory: RTMPFactory, lines: list[str]) -> None:
    client = Client(factory)
    client.publish()
    for track in range(32):
        client.media(VIDEO, trackHeader(track, SEQUENCE_HEADER_BYTES + 1))
    [stream] = factory.streams.values()
    assert stream.headers() == []
    assert stream.ledger.discarded == {"too large a header": 32}
    assert len([line for line in lines if "too large a header" in line]) == 1
    client.media(VIDEO, trackHeader(0, SEQUENCE_HEADER_BYTES))
    assert len(stream.headers()) == 1


def test_allHeadersTogetherAreBounded(factory: RTMPFactory) -> None:
    client = Client(factory)
    client.publish()
    metadata = amf0.encode("onMetaData", {"comment": "x" * (METADATA_BYTES // 2)})
    client.media(DATA, metadata)
    for track in range(32):
        for _ in range(2):  # the same kind once more takes the first one's place
            client.media(VIDEO, trackHeader(track, SEQUENCE_HEADER_BYTES))
    [stream] = factory.streams.values()
    kept = [len(message.payload) for message in stream.headers()]
    assert ALL_HEADER_BYTES - SEQUENCE_HEADER_BYTES < sum(kept) <= ALL_HEADER_BYTES
    assert stream.ledger.discarded == {"too large a header": 2 * (33 - len(kept))}


def test_largeMetadataAreDiscarded(factory: RTMPFactory) -> None:
    client = Client(factory)
    client.publish()
    small = amf0.encode("onMetaData", {"width": 640.0})
    client.media(DATA, small)
    client.media(DATA, amf0.encode("onMetaData", {"x": "y" * METADATA_BYTES}))
    [stream] = factory.streams.values()
    assert [message.payload for message in stream.headers()] == [small]
    assert stream.properties == {"width": 640.0}
    assert stream.ledger.discarded == {"too large metadata": 1}


# Names

LONG = "\N{PILE OF POO}" + "n" * (NAME_BYTES - 3)


@pytest.mark.parametrize("command", ["publish", "play"])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        (LONG, "The stream's name must be at most 1024 bytes long."),
        ("n?" + "q" * (QUERY_BYTES + 1), "The stream's query must be at most 8192"),
    ],
    ids=["name", "query"],
)
def test_longNamesAreRefused(factory, command, name, why):
    client = Client(factory)
    client.connect()
    client.command("createStream", 2, None)
    client.take()
    client.command(command, 0, None, name, streamId=1)
    [status] = [reply for reply in client.take() if reply.code]
    assert why in status.values[-1]["description"]
    assert not client.open
    assert not factory.streams
    assert not factory.registry.waiting()


def test_longApplicationsAreRefused(factory):
    client = Client(factory)
    client.connect(LONG)
    [reply] = [reply for reply in client.take() if reply.typeId == COMMAND]
    assert reply.name == "_error"
    assert reply.values[-1]["description"] == (
        "The application's name must be at most 1024 bytes long."
    )


def test_longNamesAreRefusedOverHTTP(factory, clock):
    site = HTTPSite(factory.registry)
    getter = Getter(site, f"/live/{'n' * (NAME_BYTES + 1)}.flv")
    assert getter.status == 403


def test_namesOfTheLargestLengthAreTaken(factory):
    client = Client(factory)
    client.publish("n" * NAME_BYTES + "?" + "q" * QUERY_BYTES)
    assert len(factory.streams) == 1


# Plays are paid for

KEY_FRAME = AVC_KEY_FRAME + bytes(1_000_000)


def player(factory: RTMPFactory) -> Client:
    """A client that is about to play."""
    client = Client(factory)
    client.connect()
    client.command("createStream", 2, None)
    client.take()
    return client


def gopsOf(client: Client) -> int:
    """How often a client has got a key frame since the last time."""
    return len([r for r in client.take() if r.typeId == VIDEO and r.payload])


@pytest.mark.parametrize("command", ["play", "publish"])
def test_streamsBegunOnAConnection(factory, clock, lines, command):
    client = player(factory)
    for _ in range(STREAM_BURST):
        client.command(command, 0, None, "key", streamId=1)
    assert client.open
    clock.advance(1)
    for _ in range(2):
        client.command(command, 0, None, "key", streamId=1)
    assert client.open
    for _ in range(100):
        client.connection.sendCommand(command, 0, None, "key", streamId=1)
    client.flush()
    assert client.transport.aborted
    assert factory.registry.idle
    assert factory.counters.cut == 1
    [line] = [line for line in lines if "is cut" in line]
    assert "it has begun more than 64 streams and more than 2 a second" in line


def test_cachedGOPsAreNotReplayedAtWill(factory, clock):
    """As much as two of the largest at once, and a MiB in each second after."""
    source = Client(factory)
    source.publish()
    source.media(VIDEO, KEY_FRAME)
    viewer = player(factory)
    got = 0
    for _ in range(STREAM_BURST):
        viewer.command("play", 0, None, "key", streamId=1)
        got += gopsOf(viewer)
    assert got == 16
    clock.advance(1)
    viewer.command("play", 0, None, "key", streamId=1)
    assert gopsOf(viewer) == 1
    viewer.command("play", 0, None, "key", streamId=1)
    assert gopsOf(viewer) == 0
    source.media(VIDEO, KEY_FRAME, 40)
    clock.advance(0)
    assert gopsOf(viewer) == 1, "it begins with the next key frame"


def slowly(client: Client, clock: Clock, source: Client, rate: int, seconds: int):
    """Play to a client that takes so many bytes a second, in the transport's way."""
    transport = client.transport
    transport.taking = False
    client.heard = lambda data: None  # what is cut off its queue is no chunks
    for second in range(seconds):
        source.media(VIDEO, AVC_KEY_FRAME + bytes(100_000), second * 1000)
        source.media(VIDEO, AVC_FRAME + bytes(100_000), second * 1000 + 500)
        clock.advance(1)
        del transport.queued[:rate]
        if rate and len(transport.queued) < transport.bufferSize:
            transport.taking = True
            client.pump()
            transport.taking = False


@pytest.mark.parametrize("plays", [1, 4])
def test_aPlayerThatTakesNextToNothing(clock, lines, plays):
    """Its queue is of use to nobody: it is cut, and the publisher stays."""
    limits = ServerLimits(playerQueue=QueueLimits(bytes=300_000), drainSeconds=1000)
    factory = RTMPFactory(clock, limits=limits)
    source, viewer = Client(factory), player(factory)
    source.publish()
    for streamId in range(1, plays + 1):
        viewer.command("play", 0, None, "key", streamId=streamId)
    slowly(viewer, clock, source, 1000, int(SLOW_PLAYER_SECONDS) + 5)
    assert viewer.transport.aborted
    assert source.open
    assert any("takes less than" in line for line in lines)


def test_aPlayerThatLosesMostButTakesSome(clock):
    """A slow link is no reason to be cut, as long as something useful comes through."""
    limits = ServerLimits(playerQueue=QueueLimits(bytes=300_000), drainSeconds=1000)
    factory = RTMPFactory(clock, limits=limits)
    source, viewer = Client(factory), player(factory)
    source.publish()
    viewer.command("play", 0, None, "key", streamId=1)
    slowly(viewer, clock, source, 4 * SLOW_PLAYER_RATE, 200)
    assert viewer.open
    [playing] = factory.players("live", "key")
    assert playing.dropped
