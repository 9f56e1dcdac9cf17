"""
The common parts of the enhanced headers of audio and video: ModEx extensions, FourCCs,
numbered tracks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from twisted_rtmp.media.flags import CODED, EMPTY, ENHANCED, SEQUENCE_HEADER
from twisted_rtmp.wire.errors import MessageError

#: ModEx extensions in one message.  One is defined; each has a length of its own, so
#: that a message of megabytes could hold a million.
MAX_MOD_EX = 16

#: Tracks in one message.  A track id is one byte, but OBS sends up to 10 tracks, and a
#: stream's headers are kept of 16 of a kind.  To look through a message costs 0.4 us a
#: track, however small: a GOP of 2500 messages with 256 tracks each took 0.3 s to join.
MAX_TRACKS = 16


class MultitrackType(IntEnum):
    """The layout of the tracks of one message.  E-RTMP v2, Enhanced Video."""

    ONE_TRACK = 0
    MANY_TRACKS = 1
    MANY_TRACKS_MANY_CODECS = 2


#: The ModEx extension whose three bytes are nanoseconds to add to the timestamp.
TIMESTAMP_OFFSET_NANO = 0

#: FourCCs of either kind.  E-RTMP v2.
FOUR_CCS = {
    "vp08": "VP8",
    "vp09": "VP9",
    "av01": "AV1",
    "avc1": "AVC",
    "hvc1": "HEVC",
    "vvc1": "VVC",
    "ac-3": "AC-3",
    "ec-3": "E-AC-3",
    "Opus": "Opus",
    ".mp3": "MP3",
    "fLaC": "FLAC",
    "mp4a": "AAC",
}

#: Those whose coded frames carry a composition time (but CodedFramesX never).
TIMED = frozenset(("avc1", "hvc1", "vvc1"))


@dataclass(frozen=True)
class Track:
    """
    One track of a multitrack message.

    @ivar trackId: 0 to 255; 0 is the default track.
    @ivar fourCC: of its codec, four characters of Latin 1.
    @ivar compositionTime: milliseconds; 0 where the codec has none.
    @ivar start: where its body starts in the payload, in bytes.
    @ivar end: where it ends.
    """

    trackId: int
    fourCC: str
    compositionTime: int
    start: int
    end: int


def codecName(codec: int | str, legacy: Mapping[int, str]) -> str:
    """Name a codec for people; printable whatever the peer sent."""
    if isinstance(codec, int):
        return legacy.get(codec) or f"unknown codec {codec}"
    if not codec:
        return "no codec"
    return FOUR_CCS.get(codec) or f"unknown FourCC {codec.encode('latin-1').hex()}"


def codecNumber(codec: int | str) -> int:
    """Give a codec as C{onMetaData} has it: a FourCC as a big-endian number."""
    if isinstance(codec, int):
        return codec
    return int.from_bytes(codec.encode("latin-1"), "big")


@dataclass(frozen=True, kw_only=True)
class MediaHeader:
    """
    The header of an audio or video message: all that comes before its body.

    @ivar flags: see L{twisted_rtmp.media.flags}.
    @ivar codec: the legacy codec id or sound format, or the FourCC as four characters
        of Latin 1; empty where none is said: commands, and tracks of many codecs.
    @ivar packetType: of an enhanced header, or of a legacy codec that has packets; it
        may be a number without a meaning yet; L{None} where there is none.
    @ivar bodyOffset: where the body begins in the payload, in bytes.
    @ivar nanoseconds: to add to the message's timestamp.
    @ivar multitrackType: a L{MultitrackType}, or a number without a meaning yet;
        L{None} where the tracks are not numbered.
    @ivar tracks: the numbered tracks, in their order.
    @ivar modEx: the extensions, as types and data.
    """

    legacyCodecs: ClassVar[Mapping[int, str]]

    flags: int
    codec: int | str
    packetType: int | None
    bodyOffset: int
    nanoseconds: int = 0
    multitrackType: int | None = None
    tracks: tuple[Track, ...] = ()
    modEx: tuple[tuple[int, bytes], ...] = ()

    @property
    def codecName(self) -> str:
        """The name of the codec, printable whatever the peer sent."""
        return codecName(self.codec, self.legacyCodecs)

    def defaultTrack(self, payload: bytes) -> tuple[int | str, bytes]:
        """
        Find the track that players begin with, number 0.

        @param payload: the whole message's.
        @return: its codec and its body; both empty if there is no such track.
        """
        if self.multitrackType is None:
            return self.codec, payload[self.bodyOffset :]
        for track in self.tracks:
            if track.trackId == 0:
                return track.fourCC, payload[track.start : track.end]
        return "", b""


def need(payload: bytes, size: int, section: str) -> None:
    """Raise L{MessageError} unless the payload has so many bytes."""
    if len(payload) < size:
        raise MessageError(
            f"a media message of {len(payload)} bytes announces at least {size}",
            section=section,
            limit=size,
            got=len(payload),
        )


def signed24(payload: bytes, offset: int) -> int:
    """Read a composition time: signed, big-endian, 3 octets."""
    return int.from_bytes(payload[offset : offset + 3], "big", signed=True)


def checkBody(flags: int, size: int, strict: bool, section: str) -> int:
    """
    Give the flags of a message with a body of so many bytes: without one it is no
    frame, and a configuration needs one.
    """
    if size:
        return flags
    if flags & SEQUENCE_HEADER and strict:
        raise MessageError("a sequence header without a configuration", section=section)
    if flags & CODED:
        return flags & ENHANCED | EMPTY
    return flags


def readModEx(
    payload: bytes, modExType: int, section: str
) -> tuple[int, int, tuple[tuple[int, bytes], ...]]:
    """
    Read the extensions that may stand before the packet type.

    @return: the packet type, where the header goes on, the extensions.
    """
    packetType = payload[0] & 15
    offset = 1
    extensions: list[tuple[int, bytes]] = []
    while packetType == modExType:
        if len(extensions) == MAX_MOD_EX:
            raise MessageError(
                f"more than {MAX_MOD_EX} ModEx extensions",
                section=section,
                limit=MAX_MOD_EX,
            )
        need(payload, offset + 1, section)
        size = payload[offset] + 1
        offset += 1
        if size == 256:
            need(payload, offset + 2, section)
            size = int.from_bytes(payload[offset : offset + 2], "big") + 1
            offset += 2
        need(payload, offset + size + 1, section)
        following = payload[offset + size]
        extensions.append((following >> 4, payload[offset : offset + size]))
        packetType = following & 15
        offset += size + 1
    return packetType, offset, tuple(extensions)


def nanosecondsOf(modEx: tuple[tuple[int, bytes], ...], section: str) -> int:
    """Read the last TimestampOffsetNano of the extensions; 0 if there is none."""
    nanoseconds = 0
    for extension, data in modEx:
        if extension == TIMESTAMP_OFFSET_NANO:
            if len(data) < 3:
                raise MessageError(
                    "a TimestampOffsetNano of less than 3 bytes",
                    section=section,
                    limit=3,
                    got=len(data),
                )
            nanoseconds = int.from_bytes(data[:3], "big")
    return nanoseconds


def readMultitrack(payload: bytes, offset: int, section: str) -> tuple[int, int, int]:
    """
    Read the byte behind Multitrack.

    @return: the multitrack type, the packet type of all tracks, where it goes on.
    """
    need(payload, offset + 1, section)
    return payload[offset] >> 4, payload[offset] & 15, offset + 1


def readFourCC(
    payload: bytes, offset: int, multitrack: int | None, section: str
) -> tuple[str, int]:
    """
    Read the FourCC of the message.

    @return: the FourCC, empty where each track has its own; where the header goes on.
    """
    if multitrack == MultitrackType.MANY_TRACKS_MANY_CODECS:
        return "", offset
    need(payload, offset + 4, section)
    return payload[offset : offset + 4].decode("latin-1"), offset + 4


def readTracks(
    payload: bytes, offset: int, multitrack: int, fourCC: str, timed: bool, section: str
) -> tuple[Track, ...]:
    """
    Read the numbered tracks.

    @param timed: whether the packet type is one with a composition time.
    @return: none if the layout is not one of those known.
    """
    if multitrack > MultitrackType.MANY_TRACKS_MANY_CODECS:
        return ()
    tracks: list[Track] = []
    while True:
        if len(tracks) == MAX_TRACKS:
            raise MessageError(
                f"more than {MAX_TRACKS} tracks", section=section, limit=MAX_TRACKS
            )
        if multitrack == MultitrackType.MANY_TRACKS_MANY_CODECS:
            fourCC, offset = readFourCC(payload, offset, None, section)
        need(payload, offset + 1, section)
        trackId = payload[offset]
        offset += 1
        end = len(payload)
        if multitrack != MultitrackType.ONE_TRACK:
            need(payload, offset + 3, section)
            end = offset + 3 + int.from_bytes(payload[offset : offset + 3], "big")
            need(payload, end, section)
            offset += 3
        compositionTime = 0
        if timed and fourCC in TIMED:
            if end - offset < 3:
                raise MessageError(
                    "a track without its composition time", section=section
                )
            compositionTime = signed24(payload, offset)
            offset += 3
        tracks.append(Track(trackId, fourCC, compositionTime, offset, end))
        offset = end
        if offset == len(payload):
            return tuple(tracks)


def flagsOfTracks(
    flags: int, tracks: tuple[Track, ...], strict: bool, section: str
) -> int:
    """
    Give the flags of a multitrack message, from those of its packet type: a frame if
    any track has one.  The contents of an unknown layout cannot be known, so that is no
    frame either.
    """
    if not tracks:
        return ENHANCED
    found = 0
    for track in tracks:
        found |= checkBody(flags, track.end - track.start, strict, section)
    return found & ~EMPTY if found & CODED else found
