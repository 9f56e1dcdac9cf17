"""
Chunks written field by field, and every way in which a peer's bytes may be cut.

What comes out must not depend on the cuts: L{outcome} feeds pieces and says what
came out, in terms that can be compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from twisted_rtmp.wire.chunk import ChunkReader
from twisted_rtmp.wire.connection import Connection, Role
from twisted_rtmp.wire.constants import NEED_DATA
from twisted_rtmp.wire.errors import ProtocolError
from twisted_rtmp.wire.handshake import ServerHandshake
from twisted_rtmp.wire.limits import DEFAULT_WIRE_LIMITS, WireLimits
from twisted_rtmp.wire.messages import Command, Message, PassedOver, UserControl

# Chunks


def basic(headerFormat: int, csid: int, size: int = 0) -> bytes:
    """
    A basic header.

    @param size: of 1, 2 or 3 bytes; 0: the shortest that fits.
    """
    size = size or (1 if csid < 64 else 2 if csid < 320 else 3)
    if size == 1:
        return bytes((headerFormat << 6 | csid,))
    if size == 2:
        return bytes((headerFormat << 6, csid - 64))
    return bytes((headerFormat << 6 | 1,)) + (csid - 64).to_bytes(2, "little")


def chunk(
    headerFormat: int,
    csid: int,
    data: bytes = b"",
    *,
    time: int | None = None,
    length: int | None = None,
    type: int = 9,  # noqa: A002
    stream: int = 1,
    size: int = 0,
) -> bytes:
    """
    One chunk, with whatever the fields are told to be.

    @param time: timestamp or delta; from 0xFFFFFF on it is written extended.  A
        format 3 header has none but an extended one.
    @param length: the message's; the data's if not given.
    @param size: see L{basic}.
    """
    time = time or 0
    header = basic(headerFormat, csid, size)
    if headerFormat < 3:
        header += min(time, 0xFFFFFF).to_bytes(3, "big")
    if headerFormat < 2:
        header += (len(data) if length is None else length).to_bytes(3, "big")
        header += bytes((type,))
    if headerFormat < 1:
        header += stream.to_bytes(4, "little")
    if time >= 0xFFFFFF:
        header += time.to_bytes(4, "big")
    return header + data


def control(typeId: int, *values: int, size: int = 4) -> bytes:
    """A protocol control message of 32-bit numbers, on chunk stream 2."""
    payload = b"".join(value.to_bytes(size, "big") for value in values)
    return chunk(0, 2, payload, type=typeId, stream=0)


def setChunkSize(size: int) -> bytes:
    return control(1, size)


def abort(csid: int) -> bytes:
    return control(2, csid)


def payloadOf(size: int, seed: int = 0) -> bytes:
    """Bytes that look like nothing else, least of all like headers."""
    return random.Random(size * 1000 + seed).randbytes(size)


# Pieces


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def randomPieces(data: bytes, rng: random.Random, mean: float) -> list[bytes]:
    """Cut at random; some pieces are empty, since a read may bring nothing."""
    pieces = []
    at = 0
    while at < len(data):
        size = int(rng.expovariate(1 / mean))
        pieces.append(data[at : at + size])
        at += size
    return pieces


def ways(data: bytes, seed: int = 1) -> Iterator[tuple[str, list[bytes]]]:
    """
    Every way in which some bytes may come: whole, byte by byte, cut in two
    anywhere, and in random pieces.

    @return: pairs of a name for messages and the pieces.
    """
    yield "whole", [data]
    yield "byte by byte", bytewise(data)
    for cut in range(1, len(data)):
        yield f"cut at {cut}", [data[:cut], data[cut:]]
    for n in range(10):
        for mean in (3, 40, 500):
            rng = random.Random(f"{seed}/{n}/{mean}")
            yield f"seed {seed}/{n}/{mean}", randomPieces(data, rng, mean)


# What came out


@dataclass
class Outcome:
    """
    All that a peer's bytes led to.

    @ivar events: each event as a tuple of plain values.
    @ivar error: the class, section and limit of the error at the end.
    """

    events: list[tuple[Any, ...]] = field(default_factory=list)
    error: tuple[type[ProtocolError], str, int | None] | None = None


def plain(event: object) -> tuple[Any, ...]:
    """An event as plain values; a message as type, stream, time, payload."""
    if isinstance(event, Message):
        return (event.typeId, event.streamId, event.timestamp, event.payload)
    if isinstance(event, Command):
        # By its text, since an AMF value may be a NaN, which equals nothing.
        arguments = repr(event.arguments)
        identity = repr(event.transactionId)
        return (event.name, identity, arguments, event.streamId, event.amf3)
    if isinstance(event, UserControl):
        return ("user control", event.eventType, event.value, event.extra)
    if isinstance(event, PassedOver):
        return ("passed over", event.typeId)
    return (type(event).__name__,)


def outcome(
    feed: Callable[[bytes], None],
    following: Callable[[], object],
    pieces: Iterable[bytes],
) -> Outcome:
    """
    Feed pieces until an error.

    @param following: gives the next event, or NEED_DATA.
    """
    result = Outcome()
    try:
        for piece in pieces:
            feed(piece)
            while (event := following()) is not NEED_DATA:
                result.events.append(plain(event))
    except ProtocolError as error:
        result.error = (type(error), error.section, error.limit)
    return result


def readChunks(
    pieces: Iterable[bytes], limits: WireLimits = DEFAULT_WIRE_LIMITS
) -> Outcome:
    """What a new L{ChunkReader} makes of pieces."""
    reader = ChunkReader(limits)
    return outcome(reader.feed, reader.nextMessage, pieces)


class NoHandshake(ServerHandshake):
    """A handshake that is over before it began."""

    done = True  # type: ignore[assignment]


def connected(
    role: Role = Role.SERVER, limits: WireLimits = DEFAULT_WIRE_LIMITS
) -> Connection:
    """A L{Connection} behind its handshake."""
    connection = Connection(role, limits, handshake=NoHandshake())
    connection.nextEvent()
    return connection


def readConnection(
    pieces: Iterable[bytes],
    role: Role = Role.SERVER,
    limits: WireLimits = DEFAULT_WIRE_LIMITS,
) -> Outcome:
    """What a new L{Connection} behind its handshake makes of pieces."""
    connection = connected(role, limits)
    return outcome(connection.feed, connection.nextEvent, pieces)
