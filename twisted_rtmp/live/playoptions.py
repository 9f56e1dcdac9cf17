"""Play options: what a player asks for in the query of the stream's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from twisted_rtmp.live.selection import Selection
from twisted_rtmp.media.capabilities import Capabilities

#: The answers to C{gop=}.
_GOP = {"0": False, "1": True}


@dataclass(frozen=True)
class PlayOptions:
    """
    The wishes of one player.

    @ivar selection: the part of the stream that it gets.
    @ivar gopCache: whether it begins with the current GOP, or else with the next key
        frame.
    """

    selection: Selection
    gopCache: bool

    @classmethod
    def parse(
        cls, query: str, capabilities: Capabilities, gopDefault: bool
    ) -> PlayOptions:
        """
        Read the query of a stream's name.

        @param query: C{gop=0} for no GOP, C{gop=1} for one; C{tracks=all};
            C{track=1} for both kinds, C{video=1} and C{audio=2} for one of them.
            Anything else is ignored; the last of several values holds.
        @param capabilities: what the player announced.
        @param gopDefault: whether a player begins with the GOP that does not say.
        """
        values = parse_qs(query)
        both = _trackId(values, "track")
        video, audio = _trackId(values, "video"), _trackId(values, "audio")
        selection = Selection(
            capabilities,
            allTracks=_last(values, "tracks") == "all",
            videoTrack=both if video is None else video,
            audioTrack=both if audio is None else audio,
        )
        return cls(selection, _GOP.get(_last(values, "gop"), gopDefault))


def _last(values: Mapping[str, list[str]], name: str) -> str:
    """Read the last value of a name; it is empty where there is none."""
    return values.get(name, [""])[-1]


def _trackId(values: Mapping[str, list[str]], name: str) -> int | None:
    """Read a track's number; L{None} for anything that is not one."""
    value = _last(values, name)
    if not (value.isascii() and value.isdigit()) or len(value) > 3:
        return None
    return int(value) if int(value) < 256 else None
