"""
The tracks of a live stream: what they are, and what came of each.

Encoders of several tracks send the first as if it were the only one, so that most
messages have no number.  Those are not counted here one by one: what came of them is
what came at all, less what was numbered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from twisted_rtmp.flv.kinds import Kinds
from twisted_rtmp.ledger import MediaCounts
from twisted_rtmp.live.timeline import (
    ENDED_INTERVALS,
    ENDED_MILLISECONDS,
    MediaTime,
    Timeline,
)
from twisted_rtmp.media.exheader import codecName
from twisted_rtmp.media.parts import trackIdsOf
from twisted_rtmp.media.payloads import (
    AUDIO_CODECS,
    CODED,
    FOREIGN,
    MALFORMED,
    METADATA,
    MOD_EX,
    MULTITRACK,
    SEQUENCE_HEADER,
    VIDEO_CODECS,
    parseAudio,
    parseVideo,
)
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.messages import Message

_AUDIO: int = MessageType.AUDIO
_VIDEO: int = MessageType.VIDEO

#: Flags of the messages that show that a track exists.
_EXISTS = CODED | SEQUENCE_HEADER

#: FourCCs of legacy codec ids.  Only 7 is in a specification.
_LEGACY_FOUR_CCS = {7: "avc1", 12: "hvc1", 13: "av01", 14: "vp08", 15: "vp09"}


class Track:
    """
    One track of a live stream.

    @ivar typeId: the message type id, of audio or of video.
    @ivar id: 0 to 255; 0 for what came without a number.
    @ivar codec: the FourCC; or the legacy codec id or sound format; or empty if none
        was said.
    @ivar frames: coded frames that came of it.
    @ivar headers: what else came of it: sequence headers, ends of sequence, metadata,
        empty messages, commands.
    @ivar size: bytes of their payloads; of a message with several tracks, those of the
        track's own part.
    @ivar last: the stream's time of its last frame, or of a header before the first
        one, milliseconds; L{None} if the present publisher has sent none.  Of
        unnumbered frames it is noted only at times.
    @ivar interval: from the frame before, milliseconds.
    @ivar ended: whether nothing came of it any more when the tracks were listed, so
        that players which join are not told of it.
    """

    __slots__ = (
        "codec",
        "ended",
        "frames",
        "headers",
        "id",
        "interval",
        "last",
        "size",
        "typeId",
    )

    def __init__(self, typeId: int, id: int) -> None:  # noqa: A002
        self.typeId = typeId
        self.id = id
        self.codec: int | str = ""
        self.frames = 0
        self.headers = 0
        self.size = 0
        self.last: int | None = None
        self.interval = 0
        self.ended = False

    def cameAt(self, timestamp: int) -> None:
        """Note the time of something of it."""
        if self.last is not None:
            self.interval = timestamp - self.last
        self.last = timestamp

    @property
    def kind(self) -> str:
        """C{"video"} or C{"audio"}."""
        return "video" if self.typeId == _VIDEO else "audio"

    @property
    def codecName(self) -> str:
        """The name of the codec, printable whatever the peer sent."""
        return codecName(
            self.codec, VIDEO_CODECS if self.typeId == _VIDEO else AUDIO_CODECS
        )

    @property
    def exists(self) -> bool:
        """Tell whether a frame or a sequence header of it has come."""
        return self.frames > 0 or self.codec != ""

    @property
    def messages(self) -> int:
        """The number of all messages of it."""
        return self.frames + self.headers

    def __repr__(self) -> str:
        return (
            f"<Track {self.kind} {self.id}, {self.codecName}: {self.frames} frames,"
            f" {self.headers} headers, {self.size} bytes>"
        )


@dataclass(frozen=True)
class Ended:
    """
    The part of a stream that has ended while the rest goes on.

    @ivar tracks: message type ids and numbers.
    @ivar kinds: the kinds of which every track has ended.
    """

    tracks: frozenset[tuple[int, int]]
    kinds: Kinds

    def __bool__(self) -> bool:
        return bool(self.tracks)


class _Numbered:
    """
    The part of a kind that came with numbers, to know what came without.

    @ivar frames: as they are counted in the ledger.
    @ivar size: bytes of their payloads, and of what is of no track.
    @ivar others: the unnumbered frames that had come when the last one of these did.
    """

    __slots__ = ("frames", "others", "size")

    def __init__(self) -> None:
        self.frames = 0
        self.size = 0
        self.others = 0


class Tracks:
    """
    All tracks of a stream.

    @ivar video: the ids of the video tracks that the present publisher has sent.
    """

    def __init__(self, received: MediaCounts, timeline: Timeline) -> None:
        """
        Begin without any.

        @param received: what came of the stream, of all tracks.
        @param timeline: the stream's.
        """
        self.video: set[int] = set()
        self._received = received
        self._timeline = timeline
        self._tracks: dict[tuple[int, int], Track] = {}
        self._numbered = {_AUDIO: _Numbered(), _VIDEO: _Numbered()}

    def __iter__(self) -> Iterator[Track]:
        """List each track, video first, by number."""
        for typeId in (_VIDEO, _AUDIO):
            own = self._timeline.video if typeId == _VIDEO else self._timeline.audio
            if (typeId, 0) in self._tracks or self._unnumberedFrames(typeId):
                track = self._withUnnumbered(self._of(typeId, 0), own)
                track.ended = self._hasEnded(track, own)
                yield track
            for key in sorted(self._tracks):
                if key[0] == typeId and key[1]:
                    track = self._tracks[key]
                    track.ended = self._hasEnded(track, own)
                    yield track

    def ended(self) -> Ended:
        """Tell which tracks of the present publisher have ended."""
        tracks = [track for track in self if track.last is not None]
        ended = frozenset((track.typeId, track.id) for track in tracks if track.ended)
        types = {track.typeId for track in tracks}
        types -= {track.typeId for track in tracks if not track.ended}
        return Ended(ended, Kinds(_AUDIO in types, _VIDEO in types))

    def _unnumberedFrames(self, typeId: int) -> int:
        """Count the frames that came without a number."""
        received = self._received
        frames = received.video if typeId == _VIDEO else received.audio
        return frames - self._numbered[typeId].frames

    def _withUnnumbered(self, track: Track, own: MediaTime) -> Track:
        """Make track 0, with what came of it without its number."""
        typeId = track.typeId
        received = self._received
        numbered = self._numbered[typeId]
        frames = self._unnumberedFrames(typeId)
        size = received.videoSize if typeId == _VIDEO else received.audioSize
        whole = Track(typeId, 0)
        whole.codec = track.codec
        whole.headers = track.headers
        whole.frames = track.frames + frames
        whole.size = track.size + size - numbered.size
        if frames != numbered.others and own.hasBegun:
            whole.last, whole.interval = own.last, own.interval
        else:
            whole.last, whole.interval = track.last, track.interval
        return whole

    def _hasEnded(self, track: Track, own: MediaTime) -> bool:
        """Decide whether a track is over, since others go on without it."""
        last = track.last
        if last is None:
            return True
        timeline = self._timeline
        if own.hasBegun:
            silence = timeline.silence(own) + own.last - last
        else:
            other = timeline.audio if own is timeline.video else timeline.video
            silence = other.last - max(other.first, last) if other.hasBegun else 0
        interval = max(track.interval, own.interval)
        return silence > max(ENDED_MILLISECONDS, ENDED_INTERVALS * interval)

    def _of(self, typeId: int, trackId: int) -> Track:
        """Find a track, or make it."""
        track = self._tracks.get((typeId, trackId))
        if track is None:
            track = self._tracks[typeId, trackId] = Track(typeId, trackId)
        return track

    def restart(self) -> None:
        """Forget which tracks there are: another publisher may have others."""
        self.video.clear()
        for track in self._tracks.values():
            track.last = None
            track.interval = 0
        for typeId, numbered in self._numbered.items():
            numbered.others = self._unnumberedFrames(typeId)

    @property
    def primaryVideo(self) -> int:
        """The number of the first video track."""
        return min(self.video, default=0)

    def isPrimary(self, message: Message) -> bool:
        """Tell whether a video message has something of the first video track."""
        flags = message.flags
        return not flags & MULTITRACK or self.primaryVideo in trackIdsOf(message)

    def noted(self, message: Message) -> None:
        """
        Learn what an unnumbered track is: from its headers, and from the first frame
        that came of a kind.
        """
        typeId, flags, payload = message.typeId, message.flags, message.payload
        if flags & MULTITRACK:
            return
        if flags & MALFORMED:
            self._numbered[typeId].size += len(payload)
            return
        track = self._of(typeId, 0)
        if typeId == _VIDEO:
            if flags & METADATA and self._isForeign(payload, track.codec):
                message.flags |= FOREIGN
                self._numbered[typeId].size += len(payload)
                return
            if flags & _EXISTS:
                self.video.add(0)
        if not flags & CODED:
            track.headers += 1
        if flags & _EXISTS:
            track.cameAt(message.timestamp)
            parse = parseVideo if typeId == _VIDEO else parseAudio
            track.codec = parse(payload).codec

    def _isForeign(self, payload: bytes, codec: int | str) -> bool:
        """Tell whether metadata are of another codec than the track's."""
        own = _LEGACY_FOUR_CCS.get(codec) if isinstance(codec, int) else codec
        return bool(own) and parseVideo(payload).codec != own

    def numbered(self, message: Message) -> None:
        """Count a message of numbered tracks: 0.6 us for one of a single track."""
        typeId, flags, payload = message.typeId, message.flags, message.payload
        timestamp = message.timestamp
        numbered = self._numbered[typeId]
        size = len(payload)
        numbered.size += size
        if flags & CODED:
            numbered.frames += 1
        if not flags & MOD_EX and payload[1] < 16:
            # OneTrack, which is what encoders send most.
            codec = payload[2:6].decode("latin-1")
            self._came(typeId, payload[6], codec, size, flags, timestamp)
        else:
            header = parseVideo(payload) if typeId == _VIDEO else parseAudio(payload)
            for part in header.tracks:
                size = part.end - part.start
                here = flags if size else flags & ~CODED
                self._came(typeId, part.trackId, part.fourCC, size, here, timestamp)
            message.trackIds = bytes(part.trackId for part in header.tracks)
        received = self._received
        others = received.video if typeId == _VIDEO else received.audio
        others -= numbered.frames
        if others != numbered.others:
            numbered.others = others
            self._of(typeId, 0).cameAt(timestamp)
            if typeId == _VIDEO:
                self.video.add(0)  # its first frame came after one of these

    def _came(
        self,
        typeId: int,
        trackId: int,
        codec: str,
        size: int,
        flags: int,
        timestamp: int,
    ) -> None:
        """Count a message, or a part of one, for its track."""
        track = self._tracks.get((typeId, trackId))
        if track is None:
            track = self._of(typeId, trackId)
        track.codec = codec
        track.size += size
        last = track.last
        if flags & CODED:
            track.frames += 1
            track.last = timestamp
            if last is not None:
                track.interval = timestamp - last
        else:
            track.headers += 1
            if last is None and flags & _EXISTS:
                track.last = timestamp
        if last is None and typeId == _VIDEO and flags & _EXISTS:
            self.video.add(trackId)
