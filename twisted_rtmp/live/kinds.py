"""The kinds of media that one player of a live stream gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_rtmp.flv.kinds import BOTH, NEITHER, Kinds, promisedKinds
from twisted_rtmp.wire.constants import MessageType

if TYPE_CHECKING:
    from twisted_rtmp.live.player import PlayedStream
    from twisted_rtmp.live.selection import Selection

#: Frames after which a stream has shown what it has, whatever its metadata promise:
#: about a second.
SETTLE_FRAMES = 100

_AUDIO: int = MessageType.AUDIO
_VIDEO: int = MessageType.VIDEO


class StreamKinds:
    """The kinds of a live stream, for a player that waits until they are known."""

    def __init__(self, stream: PlayedStream, selection: Selection) -> None:
        """@param selection: the part of the stream that the player gets."""
        self._stream = stream
        self._selection = selection

    @property
    def received(self) -> Kinds:
        """The kinds that have come from the present publisher, and have not ended."""
        selection = self._selection
        types = {
            track.typeId
            for track in self._stream.tracks
            if track.exists
            and not track.ended
            and selection.wants(track.typeId, track.id)
        }
        return Kinds(_AUDIO in types, _VIDEO in types)

    @property
    def settled(self) -> bool:
        """Tell whether what has come is what the stream has."""
        come = self.received
        if come == BOTH or self._stream.frames >= SETTLE_FRAMES:
            return True
        promised = promisedKinds(self._stream.properties)
        return promised != NEITHER and come | promised == come
