"""
A survey of a file's media: what its C{onMetaData} and its index say, learnt from its
messages as they pass.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted_rtmp.flv.head import (
    HEAD_PAYLOAD,
    INDEX_ENTRIES,
    Head,
    encodeHead,
    fileFacts,
)
from twisted_rtmp.flv.kinds import NEITHER, Kinds, lastingKinds, promisedKinds
from twisted_rtmp.flv.metadata import lastingProperties
from twisted_rtmp.ledger import MediaCounts
from twisted_rtmp.media.cuts import lowestTrack
from twisted_rtmp.media.metadata import isMetadata, propertiesOf
from twisted_rtmp.media.parts import readTrackIds
from twisted_rtmp.media.payloads import (
    CODED,
    KEY_FRAME,
    MULTITRACK,
    SEQUENCE_HEADER,
    audioFacts,
    videoFacts,
)
from twisted_rtmp.wire.constants import TagType
from twisted_rtmp.wire.messages import Message

#: Between two entries of a file without video, in milliseconds: its tags are all alike,
#: and a reader that searches from one entry on reads 5 s of audio, 80 kB.
AUDIO_INDEX_MILLISECONDS = 5000

_AUDIO: int = TagType.AUDIO
_VIDEO: int = TagType.VIDEO

_FACTS: dict[int, Callable[[bytes], Mapping[str, Any]]] = {
    _AUDIO: audioFacts,
    _VIDEO: videoFacts,
}


class KeyFrameIndex:
    """
    Times and positions of the key frames of a file, as many as fit.

    When it is full, every second entry is dropped, and from then on every second one
    is not taken: so it is bounded, and even over the whole file.

    @ivar times: milliseconds, rising.
    @ivar positions: where the tags begin, in bytes.
    @ivar leadingTrack: the video track that a reader seeks by: number 0, or the lowest
        whose key frame has come; L{None} before any.
    @ivar hasVideo: whether a coded frame of video has come, so that audio is not
        entered any more.
    """

    def __init__(self, entries: int = INDEX_ENTRIES) -> None:
        self.times = array("q")
        self.positions = array("q")
        self.leadingTrack: int | None = None
        self.hasVideo = False
        self._entries = entries
        self._stride = 1
        self._skipped = 0
        self._nextAudio = 0

    def addKeyFrame(self, payload: bytes, flags: int, time: int, position: int) -> None:
        """
        Enter a key frame, unless it is of a track that does not lead.

        @param payload: of a single track its beginning is enough.
        @param time: milliseconds.
        @param position: where its tag begins, in bytes.
        """
        track = lowestTrack(payload, flags)
        leading = self.leadingTrack
        if leading is None or track < leading:
            self.leadingTrack = track
            self._clear()  # of audio, or of a track that leads no more
        elif track > leading:
            return
        self.add(time, position)

    def addAudio(self, time: int, position: int) -> None:
        """Enter an audio frame, if there is no video and it is time for one."""
        if not self.hasVideo and self._nextAudio <= time:
            self.add(time, position)
            self._nextAudio = time + AUDIO_INDEX_MILLISECONDS

    def add(self, time: int, position: int) -> None:
        """Enter a frame, if it is later than the last one."""
        times = self.times
        if times and time <= times[-1]:
            return
        self._skipped += 1
        if self._skipped < self._stride and times:
            return
        self._skipped = 0
        times.append(time)
        self.positions.append(position)
        if len(times) >= self._entries:
            if not len(times) % 2:
                self._skipped = self._stride  # the one just taken is dropped, too
            del times[1::2]
            del self.positions[1::2]
            self._stride *= 2

    def _clear(self) -> None:
        del self.times[:]
        del self.positions[:]
        self._stride = 1
        self._skipped = 0

    def before(self, end: int) -> tuple[Sequence[int], Sequence[int]]:
        """
        List the entries before a position in the file, in bytes.

        @return: times and positions.
        """
        count = len(self.positions)
        while count and self.positions[count - 1] >= end:
            count -= 1
        return self.times[:count], self.positions[:count]


class MediaSurvey:
    """
    The kinds of media in a file, and the facts for its C{onMetaData}: sizes, rates,
    codecs.

    @ivar metadata: the encoder's own properties, for the head.
    @ivar facts: what the messages tell; it replaces what the encoder says.
    """

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}
        self.facts: dict[str, Any] = {}
        self._promised = NEITHER
        self._come: set[int] = set()
        # Kinds of which the frame has not come that tells what a header does not.
        self._untold = {_AUDIO, _VIDEO}

    def takeMetadata(self, message: Message) -> bool:
        """
        Take a message's properties for the head, if it is an C{onMetaData}.

        @return: whether they are in the head now, so that the message need not be in
            the file.
        """
        if not isMetadata(message):
            return False
        properties = propertiesOf(message)
        if properties is None:
            return False
        self._promised = promisedKinds(properties)
        lasting = lastingProperties(properties)
        if lasting is None:
            return False
        self.metadata = lasting
        return True

    def learnBatch(self, messages: Sequence[Message], counts: MediaCounts) -> bool:
        """
        Learn from messages; most batches have nothing to look for, and cost nothing.

        @param counts: what the messages are; there may be more in it.
        @return: whether a kind has come for the first time.
        """
        untold = self._untold
        if (
            counts.headers
            or (counts.video and _VIDEO in untold)
            or (counts.audio and _AUDIO in untold)
        ):
            known = len(self._come)
            for message in messages:
                self.learnMessage(message)
            return len(self._come) > known
        return False

    def learnMessage(self, message: Message) -> None:
        """Learn from one message whose flags are set."""
        if self.wants(message.typeId, message.payload, message.flags):
            self.learn(message.typeId, message.payload, message.flags)

    def wants(self, typeId: int, payload: bytes, flags: int) -> bool:
        """
        Tell whether anything may be learnt from a payload.

        @param payload: of a single track its beginning is enough.
        """
        if flags & SEQUENCE_HEADER:
            return True
        if not flags & CODED or typeId not in self._untold:
            return False
        return typeId not in self._come or _tellsAll(typeId, payload, flags)

    def learn(self, typeId: int, payload: bytes, flags: int) -> None:
        """Learn from a payload that is wanted; what came first stays."""
        self._come.add(typeId)
        for name, value in _FACTS[typeId](payload).items():
            self.facts.setdefault(name, value)
        if not flags & SEQUENCE_HEADER and _tellsAll(typeId, payload, flags):
            self._untold.discard(typeId)

    @property
    def kinds(self) -> Kinds:
        """The kinds that have come: those of a finished file."""
        return Kinds(_AUDIO in self._come, _VIDEO in self._come)

    @property
    def expectedKinds(self) -> Kinds:
        """The kinds of a file that is being written; see L{twisted_rtmp.flv.kinds}."""
        return (self.kinds | self._promised).orBoth()

    @property
    def lastingKinds(self) -> Kinds:
        """The kinds of a stream whose header cannot be corrected."""
        return lastingKinds(self.kinds, self._promised)

    def encodeHead(self) -> Head:
        """Write the beginning of a file that is being written."""
        return encodeHead({**self.metadata, **self.facts}, self.expectedKinds)

    def encodeFinalHead(
        self,
        size: int,
        lastTime: int,
        times: Sequence[int],
        positions: Sequence[int],
        payloadSize: int = HEAD_PAYLOAD,
    ) -> Head:
        """
        Write the beginning of a file that is finished.

        @param size: of the file, in bytes.
        @param lastTime: the largest of its timestamps, in milliseconds.
        @param times: see L{encodeHead<twisted_rtmp.flv.head.encodeHead>}, like
            C{positions} and C{payloadSize}.
        @raise UsageError: the properties do not fit.
        """
        kinds = self.kinds
        facts = fileFacts(size, lastTime, kinds, len(times))
        metadata = {**self.metadata, **self.facts, **facts}
        return encodeHead(metadata, kinds, times, positions, payloadSize)


def _tellsAll(typeId: int, payload: bytes, flags: int) -> bool:
    """
    Tell whether a frame says of the first track's codec what there is to be said: other
    video frames than key frames say nothing of dimensions.
    """
    if not flags & (CODED if typeId == _AUDIO else KEY_FRAME):
        return False
    return not flags & MULTITRACK or 0 in readTrackIds(typeId, payload, flags)
