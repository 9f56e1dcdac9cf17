"""
What of a stream one player gets: all tracks or one, in which form.

Who announced that it reads several tracks gets every one that it takes, and everybody
else one, as the only one: FFmpeg up to 7 makes garbage of more, and its later players,
which read them, announce nothing unless they are told to, so that they have to ask for
them.  Imports the standard library and its own package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qs

from twisted_rtmp.media.capabilities import ANY_CODEC, UNANNOUNCED, Capabilities
from twisted_rtmp.media.flags import (
    COMMAND,
    ENHANCED,
    FOREIGN,
    MOD_EX,
    MULTITRACK,
)
from twisted_rtmp.media.parts import (
    PlainTrack,
    splitTracks,
    toLegacy,
    withoutModEx,
    wrapTrack,
)
from twisted_rtmp.wire.constants import MessageType

_AUDIO = MessageType.AUDIO.value
_VIDEO = MessageType.VIDEO.value

#: Codecs whose frames have a legacy form; and commands, which have no codec.
_LEGACY = ("", "avc1", "mp4a", ".mp3")


@dataclass(frozen=True)
class Selection:
    """
    What one player gets.  Hashable: players of equal selections can share what is
    written for them.

    @ivar capabilities: what the player announced.
    @ivar allTracks: whether it asked for all tracks, whatever it announced.
    @ivar videoTrack: the one that it asked for, or L{None}.
    @ivar audioTrack: likewise.
    """

    capabilities: Capabilities = UNANNOUNCED
    allTracks: bool = False
    videoTrack: int | None = None
    audioTrack: int | None = None

    @classmethod
    def fromQuery(cls, capabilities: Capabilities, query: str) -> Selection:
        """
        Read what a player asks for in the query of the stream's name.

        @param query: C{tracks=all}; C{track=1} for both kinds, C{video=1} and
            C{audio=2} for one of them.  Anything else there is passed over.
        """
        values = parse_qs(query)
        both = _trackId(values, "track")
        video, audio = _trackId(values, "video"), _trackId(values, "audio")
        return cls(
            capabilities,
            values.get("tracks", [""])[-1] == "all",
            both if video is None else video,
            both if audio is None else audio,
        )

    @cached_property
    def everything(self) -> bool:
        """Whether every message passes as it came, so that none need be looked at."""
        return (
            self._all
            and self._modEx
            and self.videoTrack is None
            and self.audioTrack is None
            and self.capabilities.takesVideo(ANY_CODEC)
            and self.capabilities.takesAudio(ANY_CODEC)
        )

    @cached_property
    def further(self) -> bool:
        """Whether it asked for another track than the first."""
        return bool(self.videoTrack or self.audioTrack)

    def passes(self, typeId: int, trackId: int, codec: int | str) -> bool:
        """Whether the player gets a track, with its number."""
        wanted = self.videoTrack if typeId == _VIDEO else self.audioTrack
        return wanted is None and self._all and self._takes(typeId, codec)

    def select(
        self,
        typeId: int,
        payload: bytes,
        flags: int,
        split: Callable[[int, bytes], list[PlainTrack]] = splitTracks,
    ) -> tuple[list[bytes], int]:
        """
        Say what the player gets of a message.

        @param typeId: the message type id; of other kinds than audio and video
            everything passes.
        @param flags: of the payload; not malformed.
        @param split: takes messages apart; it may remember those of other selections.
        @return: the payloads, which are none for a track that the player did not ask
            for, and seldom several; and how many tracks it would have got, but cannot
            read.
        """
        if typeId == _VIDEO:
            wanted = self.videoTrack
        elif typeId == _AUDIO:
            wanted = self.audioTrack
        else:
            return [payload], 0
        if not flags & ENHANCED:  # what has no number is track 0
            return ([] if wanted else [payload]), 0
        everyTrack = wanted is None and self._all
        if flags & FOREIGN and not everyTrack:
            return [], 0
        if not flags & MULTITRACK:
            return self._unnumbered(typeId, payload, flags, wanted or 0)
        if everyTrack:
            return self._allOf(typeId, payload, flags, split)
        tracks = split(typeId, payload)
        if not tracks:
            return [], 1  # a layout that is not known
        return self._plain(
            typeId, [track for track in tracks if track.trackId == (wanted or 0)]
        )

    @cached_property
    def _all(self) -> bool:
        return self.allTracks or self.capabilities.readsTracks

    @cached_property
    def _modEx(self) -> bool:
        # All tracks as they came are for who reads this specification's version.
        return self.allTracks or self.capabilities.modEx

    def _takes(self, typeId: int, codec: int | str) -> bool:
        if typeId == _VIDEO:
            return self.capabilities.takesVideo(codec)
        return self.capabilities.takesAudio(codec)

    def _unnumbered(
        self, typeId: int, payload: bytes, flags: int, wanted: int
    ) -> tuple[list[bytes], int]:
        """What is track 0, in the form in which most players know it."""
        if wanted:
            return [], 0
        if not flags & (MOD_EX | COMMAND):
            if not self.capabilities.namesCodecs or self._takes(
                typeId, payload[1:5].decode("latin-1")
            ):
                return [payload], 0
        elif not self.capabilities.namesCodecs:
            return [payload if self._modEx else withoutModEx(typeId, payload)], 0
        return self._plain(typeId, splitTracks(typeId, payload))

    def _plain(self, typeId: int, tracks: list[PlainTrack]) -> tuple[list[bytes], int]:
        """Tracks of which each message has one, in a form that the player reads."""
        payloads = []
        refused = 0
        for track in tracks:
            payload = self._form(typeId, track)
            if payload is not None:
                payloads.append(payload)
            elif track.codec not in _LEGACY:
                refused += 1
            # Else it is metadata or the like, and the player gets the frames.
        return payloads, refused

    def _form(self, typeId: int, track: PlainTrack) -> bytes | None:
        codec = track.codec
        # An enhanced form of what has a legacy one only for who said that it reads it.
        named = not codec or self._takes(typeId, codec)
        if named and (self.capabilities.announced or self.allTracks):
            return self._withModEx(typeId, track)
        if codec in _LEGACY:
            return toLegacy(typeId, track.payload)
        return self._withModEx(typeId, track) if named else None

    def _withModEx(self, typeId: int, track: PlainTrack) -> bytes:
        if track.flags & MOD_EX and not self._modEx:
            return withoutModEx(typeId, track.payload)
        return track.payload

    def _allOf(
        self,
        typeId: int,
        payload: bytes,
        flags: int,
        split: Callable[[int, bytes], list[PlainTrack]],
    ) -> tuple[list[bytes], int]:
        """Every track that the player takes, numbered as they came."""
        if flags & MOD_EX and not self._modEx:
            payload = withoutModEx(typeId, payload)
        if self._takes(typeId, ANY_CODEC):
            return [payload], 0
        tracks = split(typeId, payload)
        taken = [track for track in tracks if self._takes(typeId, track.codec)]
        if len(taken) == len(tracks):
            return [payload], 0
        wrapped = [wrapTrack(typeId, track.payload, track.trackId) for track in taken]
        return wrapped, len(tracks) - len(taken)


#: What passes everything, whoever it is.
EVERYTHING = Selection(allTracks=True)


def _trackId(values: Mapping[str, list[str]], name: str) -> int | None:
    """A track id from a query; L{None} for what is none."""
    value = values.get(name, [""])[-1]
    if not (value.isascii() and value.isdigit()) or len(value) > 3:
        return None
    return int(value) if int(value) < 256 else None
