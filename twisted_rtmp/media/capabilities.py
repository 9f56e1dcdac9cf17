"""
The capabilities that a peer tells in C{connect}, and those that we tell.

A peer that names codecs takes those and, enhanced, no others: "support for a FourCC
codec MUST be signaled via the enhanced connect command" (E-RTMP v2).  One that names
none is not known to be able to do anything; but OBS and FFmpeg publish HEVC and AV1
without a word, and play them without one, so that it gets those codecs as they are,
and neither several tracks nor ModEx, which only parsers that say so can read past.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntFlag
from functools import cached_property

from twisted_rtmp.wire.amfvalues import AMFValue, ECMAArray

#: FourCCs kept of each list and map of a peer.  The specification has 12; a command of
#: 64 KiB could name 5,000, to be kept as long as the connection lives.
MAX_FOUR_CCS = 64

#: What there is to name in E-RTMP v1, Enhancing NetConnection connect Command.
_VERSION_1 = frozenset(("av01", "hvc1", "vp09"))

#: Any codec.  E-RTMP v2, Enhancing NetConnection connect Command.
ANY_CODEC = "*"


class FourCCInfo(IntFlag):
    """The uses that a peer has for a codec.  E-RTMP v2, FourCcInfoMask."""

    CAN_DECODE = 0x01
    CAN_ENCODE = 0x02
    CAN_FORWARD = 0x04


class CapsEx(IntFlag):
    """Features beyond the legacy specification.  E-RTMP v2, CapsExMask."""

    RECONNECT = 0x01
    MULTITRACK = 0x02
    MOD_EX = 0x04
    TIMESTAMP_NANO_OFFSET = 0x08


class VideoFunction(IntFlag):
    """Further features of a client that concern video.  E-RTMP v2, Metadata Frame."""

    CLIENT_SEEK = 0x0001
    CLIENT_HDR = 0x0002
    PACKET_TYPE_METADATA = 0x0004
    LARGE_SCALE_TILE = 0x0008


#: A peer that decodes a codec wants it, and so does one that passes it on.
_TAKES = FourCCInfo.CAN_DECODE | FourCCInfo.CAN_FORWARD

#: All that this package supports.
_ALL_CAPS_EX = (
    CapsEx.RECONNECT | CapsEx.MULTITRACK | CapsEx.MOD_EX | CapsEx.TIMESTAMP_NANO_OFFSET
)

#: Whatever it is, it is recorded and passed on.
_FORWARD_ALL: Mapping[str, int] = {ANY_CODEC: FourCCInfo.CAN_FORWARD}


@dataclass(frozen=True)
class Capabilities:
    """
    The announcement of one peer.

    Hashable, by all of it: peers choose their maps, and thousands of different ones
    must not have one hash.

    @ivar fourCcList: the FourCCs that it supports, or C{"*"}; L{None} if it sent no
        such list, as the maps.
    @ivar videoFourCcInfoMap: L{FourCCInfo} flags by FourCC or C{"*"}.
    @ivar audioFourCcInfoMap: likewise.
    @ivar capsEx: L{CapsEx} flags, unknown ones included; L{None} if it sent none.
    @ivar videoFunction: L{VideoFunction} flags; Flash players send the first of them
        too, so that it announces nothing enhanced.
    """

    fourCcList: frozenset[str] | None = None
    videoFourCcInfoMap: Mapping[str, int] | None = None
    audioFourCcInfoMap: Mapping[str, int] | None = None
    capsEx: int | None = None
    videoFunction: int = 0

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        maps = (
            None if infoMap is None else frozenset(infoMap.items())
            for infoMap in (self.videoFourCcInfoMap, self.audioFourCcInfoMap)
        )
        return hash((self.fourCcList, *maps, self.capsEx, self.videoFunction))

    @classmethod
    def fromProperties(cls, properties: AMFValue) -> Capabilities:
        """
        Read the command object of C{connect}, or the object of its C{_result}.

        @param properties: whatever the peer sent there.  What is of a wrong type is
            taken as not sent.
        """
        if not isinstance(properties, dict):
            return cls()
        fourCCs = _listed(properties.get("fourCcList"))
        return cls(
            None if fourCCs is None else frozenset(_bounded(fourCCs)),
            _infoMap(properties.get("videoFourCcInfoMap")),
            _infoMap(properties.get("audioFourCcInfoMap")),
            _mask(properties.get("capsEx")),
            _mask(properties.get("videoFunction")) or 0,
        )

    @property
    def announced(self) -> bool:
        """Tell whether it announced anything enhanced."""
        return self.namesCodecs or self.capsEx is not None

    @property
    def namesCodecs(self) -> bool:
        """Tell whether it said which codecs it supports."""
        return not (
            self.fourCcList is None
            and self.videoFourCcInfoMap is None
            and self.audioFourCcInfoMap is None
        )

    @property
    def reconnect(self) -> bool:
        """Tell whether it obeys a ReconnectRequest."""
        return self._has(CapsEx.RECONNECT)

    @property
    def multitrack(self) -> bool:
        """Tell whether it reads several tracks in a stream."""
        return self._has(CapsEx.MULTITRACK)

    @property
    def readsTracks(self) -> bool:
        """
        Tell whether it can be sent several tracks: it says so, or says nothing about it
        and is of E-RTMP v2 by the codecs that it names.

        FFmpeg's players never send C{capsEx}.  Since 8.0 they read several tracks, and
        can be told to name the codecs of version 2; from 6.1 on they name those of
        version 1 only, and mistake further tracks for other codecs.
        """
        if self.capsEx is not None:
            return self.multitrack
        return (
            self.videoFourCcInfoMap is not None
            or self.audioFourCcInfoMap is not None
            or not (self.fourCcList or frozenset()) <= _VERSION_1
        )

    @property
    def modEx(self) -> bool:
        """Tell whether it reads past ModEx, as it must if it knows nanoseconds."""
        return self._has(CapsEx.MOD_EX | CapsEx.TIMESTAMP_NANO_OFFSET)

    def canDecodeVideo(self, fourCC: str) -> bool:
        """Tell whether it announced that it decodes a codec, or passes it on."""
        return self._names(self.videoFourCcInfoMap, fourCC)

    def canDecodeAudio(self, fourCC: str) -> bool:
        """Do as L{canDecodeVideo} does, for audio."""
        return self._names(self.audioFourCcInfoMap, fourCC)

    def takesVideo(self, codec: int | str) -> bool:
        """
        Tell whether it may be sent a codec.

        @param codec: as L{VideoHeader<twisted_rtmp.media.video.VideoHeader>} has it.
            Legacy codecs, which cannot be announced, go to everybody.
        """
        if isinstance(codec, int) or not self.namesCodecs:
            return True
        return self.canDecodeVideo(codec)

    def takesAudio(self, codec: int | str) -> bool:
        """Do as L{takesVideo} does, for audio."""
        if isinstance(codec, int) or not self.namesCodecs:
            return True
        return self.canDecodeAudio(codec)

    def _has(self, flags: int) -> bool:
        return bool((self.capsEx or 0) & flags)

    def _names(self, infoMap: Mapping[str, int] | None, fourCC: str) -> bool:
        """
        Tell whether the list names a codec, which is what older clients send, or a map
        does.  A wildcard adds its flags to those of each codec.
        """
        if self.fourCcList is not None and not self.fourCcList.isdisjoint(
            (fourCC, ANY_CODEC)
        ):
            return True
        if infoMap is None:
            return False
        flags = infoMap.get(fourCC, 0) | infoMap.get(ANY_CODEC, 0)
        return bool(flags & _TAKES)


#: What is known of a peer that announced nothing.
UNANNOUNCED = Capabilities()


def serverProperties() -> dict[str, AMFValue]:
    """
    Make what our server says of itself in the C{_result} of C{connect}.

    It belongs there only if the client announced something: a client that knows nothing
    of enhanced RTMP may trip over objects in it.  E-RTMP v2, Enhancing NetConnection
    connect Command.
    """
    return _properties(_FORWARD_ALL, _FORWARD_ALL)


def clientProperties(
    video: Mapping[str, int] = _FORWARD_ALL, audio: Mapping[str, int] = _FORWARD_ALL
) -> dict[str, AMFValue]:
    """
    Make what our client says of itself in the command object of C{connect}.

    @param video: L{FourCCInfo} flags by FourCC or C{"*"}; by default those of a relay
        or recorder, which takes every codec.
    @param audio: likewise.
    """
    properties = _properties(video, audio)
    properties["videoFunction"] = float(VideoFunction.PACKET_TYPE_METADATA)
    return properties


def _properties(
    video: Mapping[str, int], audio: Mapping[str, int]
) -> dict[str, AMFValue]:
    fourCCs = {*video, *audio}
    return {
        "fourCcList": [ANY_CODEC] if ANY_CODEC in fourCCs else sorted(fourCCs),
        "videoFourCcInfoMap": {name: float(flags) for name, flags in video.items()},
        "audioFourCcInfoMap": {name: float(flags) for name, flags in audio.items()},
        "capsEx": float(_ALL_CAPS_EX),
    }


def _listed(value: AMFValue) -> Iterable[AMFValue] | None:
    """List the items of an array, with names or without."""
    if isinstance(value, ECMAArray):
        return [*value.dense, *value.values()]
    return value if isinstance(value, list) else None


def _bounded(names: Iterable[AMFValue]) -> list[str]:
    """Keep as many FourCCs as may be; a wildcard is kept wherever it stands."""
    found = {name: None for name in names if isinstance(name, str) and len(name) == 4}
    kept = list(found)[:MAX_FOUR_CCS]
    return [*kept, ANY_CODEC] if ANY_CODEC in names else kept


def _infoMap(value: AMFValue) -> dict[str, int] | None:
    if not isinstance(value, dict):
        return None
    masks = {name: _mask(flags) for name, flags in value.items()}
    return {
        name: flags for name in _bounded(masks) if (flags := masks[name]) is not None
    }


def _mask(value: AMFValue) -> int | None:
    """Read flags from an AMF number; L{None} for anything else, and for NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if 0 <= value < 1 << 32 else None
