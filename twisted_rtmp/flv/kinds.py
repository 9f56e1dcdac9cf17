"""
Kinds of media: which of audio and video a stream has, as the header of an FLV stream
says.

It matters: with a kind too many mpegts.js waits for ever, ffmpeg for 5 s and GStreamer
for 6 s; with a kind too few GStreamer ignores what comes of it, and mpegts.js may.  So
there is one rule for files, pipes and HTTP.  A kind I{has come} once a sequence header
or a coded frame of it has; the metadata I{promise} it if they say anything of it.

    ============================  ==================================================
    A finished file               what has come
    A file that is written        what has come and what is promised; corrected when
                                  more comes
    HTTP                          waits until the stream is settled, or a second;
                                  then what has come and goes on
    A pipe, which cannot correct  what has come and what is promised; both if nothing
    and does not wait             is promised
    ============================  ==================================================

Where nothing is known at all, the answer is both: mpegts.js does not take a header
with neither for FLV.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

#: Properties of C{onMetaData} that promise audio, or video.
_AUDIO_PROMISES = ("audiocodecid", "audiosamplerate", "hasAudio")
_VIDEO_PROMISES = ("videocodecid", "width", "hasVideo")

#: Those that are about audio, or video, besides all that begin with that word.
_AUDIO_KEYS = frozenset(("stereo", "hasAudio"))
_VIDEO_KEYS = frozenset(("width", "height", "framerate", "fps", "hasVideo"))


class Kinds(NamedTuple):
    """The kinds of media that there are: audio, video, both or neither."""

    audio: bool
    video: bool

    def __or__(self, other: Kinds) -> Kinds:
        return Kinds(self.audio or other.audio, self.video or other.video)

    def orBoth(self) -> Kinds:
        """Give both if there is neither."""
        return self if self.audio or self.video else BOTH


NEITHER = Kinds(False, False)
BOTH = Kinds(True, True)


def promisedKinds(properties: Mapping[str, Any]) -> Kinds:
    """
    Tell which kinds metadata promise.

    @param properties: of an C{onMetaData}.
    """
    return Kinds(
        any(properties.get(key) not in (None, False, "") for key in _AUDIO_PROMISES),
        any(properties.get(key) not in (None, False, "") for key in _VIDEO_PROMISES),
    )


def propertiesOfKinds(properties: Mapping[str, Any], kinds: Kinds) -> list[str]:
    """List the properties of metadata that are about some kinds only."""
    return [
        name
        for name in properties
        if (kinds.audio and (name.startswith("audio") or name in _AUDIO_KEYS))
        or (kinds.video and (name.startswith("video") or name in _VIDEO_KEYS))
    ]


def lastingKinds(come: Kinds, promised: Kinds) -> Kinds:
    """Choose the kinds of a header that must be written now and stays as it is."""
    return come | promised if promised != NEITHER else BOTH
