"""
The tracks of a live stream: what they are, and what came of each.

Encoders of several tracks send the first as if it were the only one, so that most
messages have no number.  Those are not counted here one by one: what came of them is
what came at all, less what was numbered.

Imports C{twisted_rtmp.wire} and the ledger's figures.
"""

from __future__ import annotations

from collections.abc import Iterator

from twisted_rtmp.ledger import MediaCounts
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

#: What there is of a track that is going to be shown.
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
    """

    __slots__ = ("codec", "frames", "headers", "id", "size", "typeId")

    def __init__(self, typeId: int, id: int) -> None:  # noqa: A002
        self.typeId = typeId
        self.id = id
        self.codec: int | str = ""
        self.frames = 0
        self.headers = 0
        self.size = 0

    @property
    def kind(self) -> str:
        """What it is, in a word."""
        return "video" if self.typeId == _VIDEO else "audio"

    @property
    def codecName(self) -> str:
        """The codec, for people; printable whatever the peer sent."""
        return codecName(
            self.codec, VIDEO_CODECS if self.typeId == _VIDEO else AUDIO_CODECS
        )

    @property
    def messages(self) -> int:
        """All that came of it."""
        return self.frames + self.headers

    def __repr__(self) -> str:
        return (
            f"<Track {self.kind} {self.id}, {self.codecName}: {self.frames} frames,"
            f" {self.headers} headers, {self.size} bytes>"
        )


class Tracks:
    """
    All tracks of a stream.

    @ivar video: the ids of the video tracks that the present publisher has sent.
    """

    def __init__(self, received: MediaCounts) -> None:
        """
        Begin without any.

        @param received: what came of the stream, of all tracks.
        """
        self.video: set[int] = set()
        self._received = received
        self._tracks: dict[tuple[int, int], Track] = {}
        # What is in the ledger and not of an unnumbered track: how many frames, and
        # bytes.
        self._others = {_AUDIO: [0, 0], _VIDEO: [0, 0]}
        # Unnumbered video frames of publishers before this one.
        self._before = 0

    def __iter__(self) -> Iterator[Track]:
        """Each track, video first, by number."""
        for typeId in (_VIDEO, _AUDIO):
            frames, size = self._unnumbered(typeId)
            track = self._tracks.get((typeId, 0))
            if track is None and frames:
                track = self._of(typeId, 0)
            if track is not None:
                yield self._withUnnumbered(track, frames, size)
            for key in sorted(self._tracks):
                if key[0] == typeId and key[1]:
                    yield self._tracks[key]

    def _unnumbered(self, typeId: int) -> tuple[int, int]:
        """Frames and bytes that came without a number."""
        received = self._received
        frames, size = self._others[typeId]
        if typeId == _VIDEO:
            return received.video - frames, received.videoSize - size
        return received.audio - frames, received.audioSize - size

    def _withUnnumbered(self, track: Track, frames: int, size: int) -> Track:
        """Track 0, with what came of it without its number."""
        whole = Track(track.typeId, 0)
        whole.codec = track.codec
        whole.headers = track.headers
        whole.frames = track.frames + frames
        whole.size = track.size + size
        return whole

    def _of(self, typeId: int, trackId: int) -> Track:
        """A track that may be new."""
        track = self._tracks.get((typeId, trackId))
        if track is None:
            track = self._tracks[typeId, trackId] = Track(typeId, trackId)
        return track

    def restart(self) -> None:
        """Another publisher continues the stream; it may have other tracks."""
        self.video.clear()
        self._before = self._unnumbered(_VIDEO)[0]

    @property
    def primaryVideo(self) -> int:
        """The number of the first video track."""
        return min(self.video, default=0)

    def isPrimary(self, message: Message) -> bool:
        """Whether a video message is of the first video track, maybe among others."""
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
            self._others[typeId][1] += len(payload)
            return
        track = self._of(typeId, 0)
        if typeId == _VIDEO:
            if flags & METADATA and self._isForeign(payload, track.codec):
                message.flags |= FOREIGN
                self._others[typeId][1] += len(payload)
                return
            if flags & _EXISTS:
                self.video.add(0)
        if not flags & CODED:
            track.headers += 1
        if flags & _EXISTS:
            parse = parseVideo if typeId == _VIDEO else parseAudio
            track.codec = parse(payload).codec

    def _isForeign(self, payload: bytes, codec: int | str) -> bool:
        """Whether metadata are of another codec than the track's."""
        own = _LEGACY_FOUR_CCS.get(codec) if isinstance(codec, int) else codec
        return bool(own) and parseVideo(payload).codec != own

    def numbered(self, message: Message) -> None:
        """Count a message of numbered tracks."""
        typeId, flags, payload = message.typeId, message.flags, message.payload
        coded = bool(flags & CODED)
        others = self._others[typeId]
        others[0] += coded
        others[1] += len(payload)
        if not flags & MOD_EX and payload[1] < 16:
            # OneTrack, which is what encoders send most.
            fourCC = payload[2:6].decode("latin-1")
            parts = [(payload[6], fourCC, len(payload))]
        else:
            header = parseVideo(payload) if typeId == _VIDEO else parseAudio(payload)
            parts = [(t.trackId, t.fourCC, t.end - t.start) for t in header.tracks]
            message.trackIds = bytes(trackId for trackId, _, _ in parts)
        for trackId, fourCC, size in parts:
            track = self._of(typeId, trackId)
            track.codec = fourCC
            track.size += size
            if coded and size:
                track.frames += 1
            else:
                track.headers += 1
            if typeId == _VIDEO and flags & _EXISTS:
                self.video.add(trackId)
        if typeId == _VIDEO and self._unnumbered(_VIDEO)[0] > self._before:
            self.video.add(0)  # its first frame came after one of these
