"""
Enhanced audio and video messages of every packet type, put together field by field as
the tables of E-RTMP v2 have them, by code that shares nothing with the readers.

Each L{Vector} says where its header ends, so that a test knows what every truncation
of it must come to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from twisted_rtmp.media.payloads import (
    CODED,
    COMMAND,
    EMPTY,
    ENHANCED,
    KEY_FRAME,
    METADATA,
    MOD_EX,
    MULTICHANNEL,
    MULTITRACK,
    SEQUENCE_END,
    SEQUENCE_HEADER,
)
from twisted_rtmp.wire import amf0

AUDIO, VIDEO = 8, 9

VIDEO_FOUR_CCS = ("vp08", "vp09", "av01", "avc1", "hvc1", "vvc1")
AUDIO_FOUR_CCS = ("ac-3", "ec-3", "Opus", ".mp3", "fLaC", "mp4a")

#: FourCCs that no table has: of a codec to come, and of what a drone sends.
UNKNOWN_FOUR_CCS = ("xyz9", "\0\xff\x1b\0")

#: Those whose CodedFrames have a composition time.
TIMED = ("avc1", "hvc1", "vvc1")

#: The enumerations VideoPacketType and AudioPacketType, and numbers that they reserve.
VIDEO_PACKETS = {
    "SequenceStart": 0,
    "CodedFrames": 1,
    "SequenceEnd": 2,
    "CodedFramesX": 3,
    "Metadata": 4,
    "MPEG2TSSequenceStart": 5,
    "reserved 8": 8,
    "reserved 14": 14,
    "reserved 15": 15,
}
AUDIO_PACKETS = {
    "SequenceStart": 0,
    "CodedFrames": 1,
    "SequenceEnd": 2,
    "reserved 3": 3,
    "MultichannelConfig": 4,
    "reserved 6": 6,
    "reserved 8": 8,
    "reserved 15": 15,
}
MULTITRACK_PACKET = {VIDEO: 6, AUDIO: 5}
MOD_EX_PACKET = 7

#: The enumeration VideoFrameType without Command.
FRAME_TYPES = {"key": 1, "inter": 2, "disposable": 3, "generated key": 4}

#: Bodies by packet type; what is in them concerns no header.
_VIDEO_BODIES = {
    0: bytes.fromhex("01640028ffe1000967640028acd940780201000468eb"),
    1: b"\0\0\0\x07\x65coded",
    2: b"",
    3: b"\0\0\0\x05\x41x-less",
    4: amf0.encode("colorInfo", {"hdrCll": {"maxFall": 400.0}}),
    5: bytes.fromhex("800481040c00"),
}
_AUDIO_BODIES = {
    0: b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0",
    1: b"\xfc\xff\xfecoded",
    2: b"",
    4: b"\x01\x06\0\0\x06\x0f",  # native; front and side left and right, centre, LFE
}

_VIDEO_FLAGS = {
    0: SEQUENCE_HEADER,
    1: CODED,
    2: SEQUENCE_END,
    3: CODED,
    4: METADATA,
    5: SEQUENCE_HEADER,
}
_AUDIO_FLAGS = {
    0: SEQUENCE_HEADER,
    1: CODED,
    2: SEQUENCE_END,
    4: SEQUENCE_HEADER | MULTICHANNEL,
}

#: Chains of ModEx: none, one, several of which the last TimestampOffsetNano counts, one
#: with the data's size in 16 bits.
MOD_EX_CHAINS: dict[str, tuple[tuple[int, bytes], ...]] = {
    "": (),
    "nano": ((0, (999_999).to_bytes(3, "big")),),
    "nested": ((5, b"?"), (0, b"\0\0\1"), (15, b"of another type"), (0, b"\0\x10\0+")),
    "256 bytes": ((3, bytes(range(256))),),
}


@dataclass(frozen=True)
class Vector:
    """
    One message.

    @ivar ends: sizes at which the message may end, with the flags that it then has:
        L{None} for malformed, as it is at every size that is not named, but behind
        the last it stays what it is if C{open}.
    @ivar facts: what the header must say.
    """

    name: str
    typeId: int
    payload: bytes
    flags: int
    ends: dict[int, int | None]
    open: bool
    facts: dict[str, Any] = field(default_factory=dict)


def four(fourCC: str) -> bytes:
    return fourCC.encode("latin-1")


def size24(size: int) -> bytes:
    return size.to_bytes(3, "big")


def start(high: int, packetType: int, chain: tuple[tuple[int, bytes], ...]) -> bytes:
    """The first byte, ModEx extensions, and the packet type in the last of them."""
    out = bytearray((high << 4 | (MOD_EX_PACKET if chain else packetType),))
    for index, (extension, data) in enumerate(chain):
        if len(data) < 256:
            out.append(len(data) - 1)
        else:
            out += b"\xff" + (len(data) - 1).to_bytes(2, "big")
        out += data
        following = MOD_EX_PACKET if index + 1 < len(chain) else packetType
        out.append(extension << 4 | following)
    return bytes(out)


def nanosecondsOf(chain: tuple[tuple[int, bytes], ...]) -> int:
    offsets = [int.from_bytes(data[:3], "big") for kind, data in chain if kind == 0]
    return offsets[-1] if offsets else 0


def flagsOf(typeId: int, packetType: int, frameType: int) -> int:
    table = _VIDEO_FLAGS if typeId == VIDEO else _AUDIO_FLAGS
    flags = table.get(packetType, 0)
    if flags & CODED and typeId == VIDEO and frameType in (1, 4):
        flags |= KEY_FRAME
    return ENHANCED | flags


def bodyOf(typeId: int, packetType: int) -> bytes:
    table = _VIDEO_BODIES if typeId == VIDEO else _AUDIO_BODIES
    return table.get(packetType, b"what is not known yet")


def timeOf(typeId: int, packetType: int, fourCC: str, time: int) -> bytes:
    if typeId == VIDEO and packetType == 1 and fourCC in TIMED:
        return time.to_bytes(3, "big", signed=True)
    return b""


def ending(typeId: int, packetType: int, flags: int) -> int | None:
    """The flags of a message that ends with its header; None: it must not."""
    if flags & CODED:
        return ENHANCED | EMPTY | flags & (MULTITRACK | MOD_EX)
    if flags & MULTICHANNEL or (flags & SEQUENCE_HEADER and typeId == VIDEO):
        return None
    return flags


def plainVector(
    typeId: int,
    fourCC: str,
    packetType: int,
    frameType: int = 2,
    chain: tuple[tuple[int, bytes], ...] = (),
    time: int = 0,
    name: str = "",
) -> Vector:
    """A message of one track that has no number."""
    high = 8 | frameType if typeId == VIDEO else 9
    header = start(high, packetType, chain) + four(fourCC)
    header += timeOf(typeId, packetType, fourCC, time)
    body = bodyOf(typeId, packetType)
    flags = flagsOf(typeId, packetType, frameType) | (MOD_EX if chain else 0)
    facts: dict[str, Any] = {
        "codec": fourCC,
        "packetType": packetType,
        "bodyOffset": len(header),
        "nanoseconds": nanosecondsOf(chain),
        "modEx": chain,
        "multitrackType": None,
        "tracks": (),
    }
    if typeId == VIDEO:
        facts["frameType"] = frameType
        facts["compositionTime"] = time if header[-4:] != four(fourCC) else 0
    if flags & MULTICHANNEL:
        ends = {len(header) + size: None for size in range(len(body))}
        ends[len(header) + len(body)] = flags
    else:
        ends = {len(header): ending(typeId, packetType, flags)}
    return Vector(name, typeId, header + body, flags, ends, True, facts)


def oneTrack(
    typeId: int,
    fourCC: str,
    packetType: int,
    trackId: int,
    chain: tuple[tuple[int, bytes], ...] = (),
    time: int = 0,
    name: str = "",
    frameType: int = 2,
) -> Vector:
    """Multitrack, OneTrack: the track goes to the end of the message."""
    high = 8 | frameType if typeId == VIDEO else 9
    header = start(high, MULTITRACK_PACKET[typeId], chain)
    header += bytes((0 << 4 | packetType,)) + four(fourCC) + bytes((trackId,))
    header += timeOf(typeId, packetType, fourCC, time)
    body = bodyOf(typeId, packetType)
    flags = flagsOf(typeId, packetType, frameType) | MULTITRACK
    flags |= MOD_EX if chain else 0
    stop = len(header) + len(body)
    hasTime = timeOf(typeId, packetType, fourCC, time) != b""
    facts = {
        "codec": fourCC,
        "packetType": packetType,
        "nanoseconds": nanosecondsOf(chain),
        "modEx": chain,
        "multitrackType": 0,
        "tracks": [(trackId, fourCC, time if hasTime else 0, len(header), stop)],
    }
    if flags & MULTICHANNEL:
        ends = {len(header) + size: None for size in range(len(body))}
        ends[stop] = flags
    else:
        ends = {len(header): ending(typeId, packetType, flags)}
    return Vector(name, typeId, header + body, flags, ends, True, facts)


def manyTracks(
    typeId: int,
    packetType: int,
    tracks: list[tuple[int, str, int]],
    many: bool,
    chain: tuple[tuple[int, bytes], ...] = (),
    name: str = "",
    frameType: int = 2,
) -> Vector:
    """
    Multitrack, ManyTracks or ManyTracksManyCodecs.

    @param tracks: ids, FourCCs and composition times.
    @param many: whether each track has a FourCC of its own.
    """
    high = 8 | frameType if typeId == VIDEO else 9
    payload = start(high, MULTITRACK_PACKET[typeId], chain)
    payload += bytes(((2 if many else 1) << 4 | packetType,))
    if not many:
        payload += four(tracks[0][1])
    flags = flagsOf(typeId, packetType, frameType) | MULTITRACK
    flags |= MOD_EX if chain else 0
    expected = []
    ends: dict[int, int | None] = {}
    for trackId, fourCC, time in tracks:
        if many:
            payload += four(fourCC)
        before = timeOf(typeId, packetType, fourCC, time)
        body = bodyOf(typeId, packetType)
        payload += bytes((trackId,)) + size24(len(before) + len(body))
        begin = len(payload) + len(before)
        payload += before + body
        shown = time if before else 0
        expected.append((trackId, fourCC, shown, begin, len(payload)))
        ends[len(payload)] = flags
    facts = {
        "codec": "" if many else tracks[0][1],
        "packetType": packetType,
        "nanoseconds": nanosecondsOf(chain),
        "modEx": chain,
        "multitrackType": 2 if many else 1,
        "tracks": expected,
    }
    return Vector(name, typeId, payload, flags, ends, False, facts)


def ofPacketType(typeId: int, packetType: int) -> Iterator[Vector]:
    """All vectors of one packet type: every FourCC, form and chain of ModEx."""
    fourCCs = VIDEO_FOUR_CCS if typeId == VIDEO else AUDIO_FOUR_CCS
    for fourCC in fourCCs + UNKNOWN_FOUR_CCS:
        for label, chain in MOD_EX_CHAINS.items():
            name = f"{fourCC!r} {label}"
            for frameType in FRAME_TYPES.values() if typeId == VIDEO else (1,):
                for time in (0, 40, -40, 0x7FFFFF, -0x800000):
                    yield plainVector(
                        typeId, fourCC, packetType, frameType, chain, time, name
                    )
                    if fourCC not in TIMED or packetType != 1 or typeId == AUDIO:
                        break
            for trackId in (0, 1, 255):
                yield oneTrack(
                    typeId, fourCC, packetType, trackId, chain, -33, f"One {name}"
                )
            same = [(0, fourCC, 33), (7, fourCC, -1), (255, fourCC, 0)]
            yield manyTracks(typeId, packetType, same, False, chain, f"Many {name}")
            mixed = [
                (index, other, index * 20)
                for index, other in enumerate((fourCC, *fourCCs))
            ]
            yield manyTracks(typeId, packetType, mixed, True, chain, f"Mixed {name}")


def commands() -> Iterator[Vector]:
    """Video commands: StartSeek and EndSeek, whatever the packet type but Metadata."""
    for packetType in (0, 1, 2, 3, 5, 6, 8, 15):
        for label, chain in MOD_EX_CHAINS.items():
            for command in (0, 1):
                header = start(8 | 5, packetType, chain)
                flags = ENHANCED | COMMAND | (MOD_EX if chain else 0)
                yield Vector(
                    f"command {command} {packetType} {label}",
                    VIDEO,
                    header + bytes((command,)),
                    flags,
                    {len(header): None, len(header) + 1: flags},
                    True,
                    {"command": command, "codec": "", "packetType": packetType},
                )


def everything() -> Iterator[Vector]:
    """All of them."""
    for packetType in VIDEO_PACKETS.values():
        yield from ofPacketType(VIDEO, packetType)
    for packetType in AUDIO_PACKETS.values():
        yield from ofPacketType(AUDIO, packetType)
    yield from commands()
