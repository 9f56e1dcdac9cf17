"""What peers make the server keep, and what they are refused of it."""

from __future__ import annotations

import pytest
from httpclient import Getter
from rtmpclient import COMMAND, DATA, VIDEO, Client
from twisted.internet.task import Clock

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.limits import (
    ALL_HEADER_BYTES,
    METADATA_BYTES,
    NAME_BYTES,
    QUERY_BYTES,
    SEQUENCE_HEADER_BYTES,
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
    site = HTTPSite(clock, factory.registry)
    getter = Getter(site, f"/live/{'n' * (NAME_BYTES + 1)}.flv")
    assert getter.status == 403


def test_namesOfTheLargestLengthAreTaken(factory):
    client = Client(factory)
    client.publish("n" * NAME_BYTES + "?" + "q" * QUERY_BYTES)
    assert len(factory.streams) == 1
