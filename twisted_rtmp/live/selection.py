"""
Selections: the tracks of a stream that one player gets, and in which form.

A player that announced that it reads several tracks gets all that it can decode.  Every
other one gets one track, without its number: FFmpeg up to 7 makes garbage of more.
FFmpeg's later players read several tracks, but announce so only when they are told to,
and so they may ask for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeAlias
from weakref import WeakValueDictionary

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
    onlyCodecs,
    partOf,
    partsOf,
    toLegacy,
    withoutModEx,
)
from twisted_rtmp.media.payloads import flagsOf
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.messages import Message

_AUDIO = MessageType.AUDIO.value
_VIDEO = MessageType.VIDEO.value

#: Codecs whose frames have a legacy form; and commands, which have no codec.
_LEGACY = ("", "avc1", "mp4a", ".mp3")

#: What a player gets of a message: a payload, and its flags.
Part: TypeAlias = tuple[bytes, int]


@dataclass(frozen=True)
class Selection:
    """
    The part of a stream that one player gets.

    Hashable: players of equal selections can share what is written for them.

    @ivar capabilities: what the player announced.
    @ivar allTracks: whether it asked for all tracks, whatever it announced.
    @ivar videoTrack: the number of the one that it asked for, or L{None}.
    @ivar audioTrack: likewise.
    """

    capabilities: Capabilities = UNANNOUNCED
    allTracks: bool = False
    videoTrack: int | None = None
    audioTrack: int | None = None

    @cached_property
    def everything(self) -> bool:
        """Tell whether every message passes as it came, and none is looked at."""
        return (
            self._all
            and self._modEx
            and self.videoTrack is None
            and self.audioTrack is None
            and self.capabilities.takesVideo(ANY_CODEC)
            and self.capabilities.takesAudio(ANY_CODEC)
        )

    @cached_property
    def asksForOtherTracks(self) -> bool:
        """Tell whether the player asked for another track than the first."""
        return bool(self.videoTrack or self.audioTrack)

    def wants(self, typeId: int, trackId: int) -> bool:
        """Tell whether the player is to get a track, if it can read it."""
        wanted = self.videoTrack if typeId == _VIDEO else self.audioTrack
        if wanted is None and self._all:
            return True
        return trackId == (wanted or 0)

    def passes(self, typeId: int, trackId: int, codec: int | str) -> bool:
        """Tell whether the player gets a track, with its number."""
        wanted = self.videoTrack if typeId == _VIDEO else self.audioTrack
        return wanted is None and self._all and self._takes(typeId, codec)

    def select(self, message: Message) -> tuple[list[Part], int]:
        """
        Choose what the player gets of a message.

        @param message: one that is not malformed, whose flags are set; of other kinds
            than audio and video everything passes.
        @return: the parts (none for a track that the player did not ask for, and seldom
            several), and how many tracks it would have got, but cannot read.
        """
        typeId, payload, flags = message.typeId, message.payload, message.flags
        if typeId == _VIDEO:
            wanted = self.videoTrack
        elif typeId == _AUDIO:
            wanted = self.audioTrack
        else:
            return [(payload, flags)], 0
        if not flags & ENHANCED:  # what has no number is track 0
            return ([] if wanted else [(payload, flags)]), 0
        everyTrack = wanted is None and self._all
        if flags & FOREIGN and not everyTrack:
            return [], 0
        if not flags & MULTITRACK:
            return self._unnumbered(message, wanted or 0)
        if everyTrack:
            return self._allOf(message)
        tracks = partOf(message, wanted or 0)
        if tracks is None:
            return [], 1  # a layout that is not known
        return self._plain(typeId, tracks)

    @cached_property
    def _all(self) -> bool:
        return self.allTracks or self.capabilities.readsTracks

    @cached_property
    def _modEx(self) -> bool:
        # All tracks as they came are for players that read this version of E-RTMP.
        return self.allTracks or self.capabilities.modEx

    def _takes(self, typeId: int, codec: int | str) -> bool:
        if typeId == _VIDEO:
            return self.capabilities.takesVideo(codec)
        return self.capabilities.takesAudio(codec)

    def _unnumbered(self, message: Message, wanted: int) -> tuple[list[Part], int]:
        """Choose what is track 0, in the form in which most players know it."""
        if wanted:
            return [], 0
        typeId, payload, flags = message.typeId, message.payload, message.flags
        if not flags & (MOD_EX | COMMAND):
            if not self.capabilities.namesCodecs or self._takes(
                typeId, payload[1:5].decode("latin-1")
            ):
                return [(payload, flags)], 0
        elif not self.capabilities.namesCodecs:
            return [self._withModEx(typeId, payload, flags)], 0
        return self._plain(typeId, partsOf(message))

    def _plain(
        self, typeId: int, tracks: Sequence[PlainTrack]
    ) -> tuple[list[Part], int]:
        """Write tracks, each as a message of its own that the player reads."""
        parts = []
        refused = 0
        for track in tracks:
            part = self._form(typeId, track)
            if part is not None:
                parts.append(part)
            elif track.codec not in _LEGACY:
                refused += 1
            # Else it is metadata or the like, and the player gets the frames.
        return parts, refused

    def _form(self, typeId: int, track: PlainTrack) -> Part | None:
        codec, payload, flags = track.codec, track.payload, track.flags
        # What has a legacy form is sent in the other one to players that announced it.
        named = not codec or self._takes(typeId, codec)
        if named and (self.capabilities.announced or self.allTracks):
            return self._withModEx(typeId, payload, flags)
        if codec in _LEGACY:
            legacy = toLegacy(typeId, payload)
            return None if legacy is None else (legacy, flagsOf(typeId, legacy))
        return self._withModEx(typeId, payload, flags) if named else None

    def _withModEx(self, typeId: int, payload: bytes, flags: int) -> Part:
        if flags & MOD_EX and not self._modEx:
            return withoutModEx(typeId, payload), flags & ~MOD_EX
        return payload, flags

    def _allOf(self, message: Message) -> tuple[list[Part], int]:
        """Choose every track that the player takes, numbered as they came."""
        typeId = message.typeId
        payload, flags = self._withModEx(typeId, message.payload, message.flags)
        missing = 0
        if not self._takes(typeId, ANY_CODEC):
            payload, flags, missing = onlyCodecs(
                typeId, payload, flags, partial(self._takes, typeId)
            )
        return ([(payload, flags)] if payload else []), missing


#: The selection that passes everything, whatever the player announced.
EVERYTHING = Selection(allTracks=True)


class ChosenPart(Message):
    """A message that a selection made of a part of another one."""

    __slots__ = ("__weakref__",)


#: The parts that something still holds, by what they are: players whose selections
#: make the same of a message share it, however many selections peers think of.
ChosenParts = WeakValueDictionary[tuple[int, int, bytes], ChosenPart]


def choose(
    selection: Selection, messages: list[Message], parts: ChosenParts
) -> tuple[list[Message], int]:
    """
    Take out of messages what passes a selection.

    @param parts: those that other selections made of the stream; more may be added.
    @return: the same messages, or others in their place where only a part passes or
        another form; and how many tracks of them the player would have got, but cannot
        read.
    """
    chosen: list[Message] = []
    refused = 0
    for message in messages:
        found, missing = selection.select(message)
        refused += missing
        for payload, flags in found:
            if payload is message.payload:
                chosen.append(message)
            else:
                chosen.append(_partOf(message, payload, flags, parts))
    return chosen, refused


def _partOf(
    message: Message, payload: bytes, flags: int, parts: ChosenParts
) -> ChosenPart:
    """Make a message of a part of another one, or find it."""
    typeId, timestamp = message.typeId, message.timestamp
    key = typeId, timestamp, payload
    part = parts.get(key)
    if part is None:
        part = ChosenPart(typeId, timestamp, message.streamId, payload, flags)
        parts[key] = part
    return part
