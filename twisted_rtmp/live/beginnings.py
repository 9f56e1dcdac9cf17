"""
Beginnings: what newcomers get of a stream of which a track has ended.

A page that is told of sound waits for it for ever.  So a player that joins when a track
has ended gets neither its headers nor what the GOP has of it; when the track goes on,
its headers come before its first frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted_rtmp.flv.kinds import NEITHER, Kinds, propertiesOfKinds
from twisted_rtmp.flv.metadata import withoutProperties
from twisted_rtmp.media.metadata import isMetadata, propertiesOf
from twisted_rtmp.media.parts import trackIdsOf
from twisted_rtmp.media.payloads import CODED, SEQUENCE_HEADER
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.messages import Message

if TYPE_CHECKING:
    from twisted_rtmp.live.tracks import Ended

_DATA: int = MessageType.DATA_AMF0
_VIDEO: int = MessageType.VIDEO


def isVideoFrame(message: Message) -> bool:
    """Tell whether a message is a coded frame of video."""
    return message.typeId == _VIDEO and bool(message.flags & CODED)


class Beginnings:
    """
    The beginnings that the newcomers of one stream get.

    @ivar withheld: the tracks, by message type id and number, whose headers a newcomer
        did not get since they had ended.
    """

    def __init__(self) -> None:
        self.withheld: set[tuple[int, int]] = set()
        # The newest metadata that were changed, for the lack of which kinds, and what
        # became of them: all newcomers share it.
        self._changed: tuple[Message, Kinds, Message] | None = None

    def forget(self) -> None:
        """Forget what was withheld: another publisher continues the stream."""
        self.withheld.clear()
        self._changed = None

    def of(self, messages: Sequence[Message], ended: Ended) -> list[Message]:
        """Choose what is not of tracks that have ended, for a player that joins."""
        self.withheld |= ended.tracks
        kept = []
        for message in messages:
            if message.typeId == _DATA:
                kept.append(self._metadata(message, ended.kinds))
            elif any(
                (message.typeId, track) not in ended.tracks
                for track in trackIdsOf(message)
            ):
                kept.append(message)
        return kept

    def _metadata(self, message: Message, kinds: Kinds) -> Message:
        """Take out of metadata what promises kinds that have ended."""
        if kinds == NEITHER or not isMetadata(message):
            return message
        if self._changed is not None:
            before, lacking, after = self._changed
            if before is message and lacking == kinds:
                return after
        properties: dict[str, Any] = propertiesOf(message) or {}
        names = propertiesOfKinds(properties, kinds)
        if not names:
            return message
        payload = withoutProperties(message, names)
        after = Message(_DATA, message.timestamp, message.streamId, payload)
        self._changed = message, kinds, after
        return after

    def completed(
        self, messages: Sequence[Message], headers: Callable[[], list[Message]]
    ) -> list[Message]:
        """
        Put their headers before the first frames of tracks that go on after all, and
        the metadata that promise them.

        @param messages: what has come for all players.
        @param headers: lists the stream's metadata and headers.
        """
        completed: list[Message] = []
        for message in messages:
            if message.typeId != _DATA and message.flags & (CODED | SEQUENCE_HEADER):
                for track in trackIdsOf(message):
                    key = message.typeId, track
                    if key in self.withheld:
                        self.withheld.discard(key)
                        if message.flags & CODED:
                            completed += self._headersOf(
                                key, message.timestamp, headers()
                            )
            completed.append(message)
        return completed

    def _headersOf(
        self, key: tuple[int, int], timestamp: int, headers: list[Message]
    ) -> list[Message]:
        """Repeat the headers of a track, and the metadata if these were changed."""
        typeId, track = key
        changed, self._changed = self._changed, None
        return [
            Message(each.typeId, timestamp, each.streamId, each.payload, each.flags)
            for each in headers
            if (changed is not None and each.typeId == _DATA)
            or (each.typeId == typeId and track in trackIdsOf(each))
        ]
