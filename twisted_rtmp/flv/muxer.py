"""
A stream's messages as the bytes of an FLV file: its time line, its beginning, its
index of key frames.

A recorded file begins with a space of fixed size, which holds C{onMetaData}::

    header 9, back pointer 4 | tag header 11, onMetaData, back pointer 4 | tags ...

C{onMetaData} has a property at its end, an array of zeros, which takes what the others
leave: so every byte of the file is valid FLV and AMF0 before the index is known and
after.  No I/O here; this module must not import the server.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from twisted_rtmp.flv import tags as flv
from twisted_rtmp.ledger import MediaCounts
from twisted_rtmp.media.parts import trackIdsOf
from twisted_rtmp.media.payloads import CODED, KEY_FRAME, MULTITRACK
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import ECMAArray
from twisted_rtmp.wire.constants import TagType
from twisted_rtmp.wire.errors import ProtocolError, UsageError
from twisted_rtmp.wire.messages import Message

#: The largest timestamp that is written, in milliseconds, 24.8 days: FLV's is a signed
#: number of 32 bits.  FLV 10.1, E.4.1.
MAX_TIME = 0x7FFFFFFF

#: What comes this much before the file's first timestamp, in milliseconds, gets 0: it
#: belongs to the first frames.  What is earlier is another time line.
CLAMP_MILLISECONDS = 1000

#: Headers this much older than the first frame, in milliseconds, were sent to a sink
#: that was added in the middle of the stream; they do not move the file's start.
OLD_HEADER_MILLISECONDS = 10_000

#: Key frames that the index holds.  One at 2 s lasts for 2 hours, then every second one
#: is dropped.  Two numbers each, which stays below the 10,000 values that our own and
#: other readers accept in one message.
INDEX_ENTRIES = 3600

#: Between two entries of a file without video, in milliseconds: its tags are all alike,
#: and a reader that searches from one entry on reads 5 s of audio, 80 kB.
AUDIO_INDEX_MILLISECONDS = 5000

#: The encoder's own metadata that the head can hold, in bytes.  ffmpeg's has 400, OBS'
#: 600, one with maps of tracks 2,000.
METADATA_BYTES = 8192

#: The payload of the first tag, in bytes: the index of two numbers of 9 bytes for each
#: entry, the metadata, some room for their names.
HEAD_PAYLOAD = INDEX_ENTRIES * 18 + METADATA_BYTES + 512

#: Where the second tag begins, in bytes.
HEAD_SIZE = flv.HEADER_SIZE + flv.TAG_HEADER_SIZE + HEAD_PAYLOAD + flv.PREVIOUS_TAG_SIZE

#: Where the byte is that says whether there is audio and video.  FLV 10.1, E.2.
FLAGS_OFFSET = 4

#: The property that takes up the space which is left.
SPACE = "reservedSpace"

_METADATA = b"\x02\x00\x0aonMetaData"

#: What an encoder says of these is about another file, or a guess before the end.
_OURS = frozenset(
    (
        "duration",
        "filesize",
        "lasttimestamp",
        "lastkeyframetimestamp",
        "lastkeyframelocation",
        "videosize",
        "audiosize",
        "datasize",
        "hasVideo",
        "hasAudio",
        "hasKeyframes",
        "hasMetadata",
        "canSeekToEnd",
        "keyframes",
    )
)

# A back pointer and the tag header after it at once, without the checks of
# flv.encodeTagHeader, since this is done for every message: 0.06 us against 0.3 us.
_packTag = struct.Struct(">III3x").pack
_packPointer = struct.Struct(">I").pack


class KeyFrameIndex:
    """
    Times and positions of the key frames of a file, as many as fit.

    When it is full, every second entry is dropped, and from then on every second one
    is not taken: so it is bounded, and even over the whole file.

    @ivar times: milliseconds, rising.
    @ivar positions: where the tags begin, in bytes.
    """

    def __init__(self, entries: int = INDEX_ENTRIES) -> None:
        self.times = array("q")
        self.positions = array("q")
        self._entries = entries
        self._stride = 1
        self._skipped = 0

    def add(self, time: int, position: int) -> None:
        """Take a key frame, if it is not before the last one in time."""
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

    def clear(self) -> None:
        """Forget all."""
        del self.times[:]
        del self.positions[:]
        self._stride = 1
        self._skipped = 0

    def before(self, end: int) -> tuple[Sequence[int], Sequence[int]]:
        """
        The entries before a position in the file, in bytes.

        @return: times and positions.
        """
        count = len(self.positions)
        while count and self.positions[count - 1] >= end:
            count -= 1
        return self.times[:count], self.positions[:count]


class FLVMuxer:
    """
    Turns messages into tags on a file's own time line, which begins at 0.

    @ivar base: the timestamp that is the file's 0, in milliseconds; L{None} before the
        first message.
    @ivar position: bytes so far, where the next tag begins.
    @ivar time: the last tag's, in milliseconds.
    @ivar lastTime: the largest of all, in milliseconds.
    @ivar anchors: how often the time line could not go on as the stream's does.
    @ivar index: the key frames of its leading track.
    @ivar leadingTrack: the video track that a reader seeks by: number 0, or the lowest
        whose key frame has come; L{None} before any.
    @ivar hasVideo: whether there is a coded frame of video.
    """

    def __init__(self, position: int = flv.HEADER_SIZE) -> None:
        """@param position: bytes before the first tag."""
        self.base: int | None = None
        self.position = position
        self.time = 0
        self.lastTime = 0
        self.anchors = 0
        self.index = KeyFrameIndex()
        self.leadingTrack: int | None = None
        self.hasVideo = False
        self._nextAudio = 0

    def mux(self, messages: Sequence[Message], counts: MediaCounts) -> list[bytes]:
        """
        Make tags; payloads are not copied.

        Once a message in the hot path: 0.5 us each.

        @param counts: the messages are added to it.
        @return: whole tags, each with its back pointer.
        """
        if not messages:
            return []
        if self.base is None:
            self.base = _baseOf(messages)
        base = self.base
        time = self.time
        last = self.lastTime
        position = start = self.position
        video = audio = headers = data = 0
        pack = _packTag
        buffers: list[bytes] = []
        append = buffers.append
        tagSize = 0
        for message in messages:
            payload = message.payload
            typeId = message.typeId
            flags = message.flags
            elapsed = message.timestamp - base
            if 0 <= elapsed <= MAX_TIME:
                time = elapsed
            else:
                base, time = self._anchor(base, elapsed, time, flags)
            if flags & CODED:
                if typeId == 9:
                    video += 1
                    if flags & KEY_FRAME:
                        self._addKeyFrame(message, time, position)
                else:
                    audio += 1
            elif typeId == 18:
                data += 1
            else:
                headers += 1
            size = len(payload)
            append(
                pack(
                    tagSize,
                    typeId << 24 | size,
                    (time << 8 | time >> 24) & 0xFFFFFFFF,
                )
            )
            append(payload)
            tagSize = size + 11
            position += size + 15
            if time > last:
                last = time
        buffers[0] = buffers[0][4:]
        append(_packPointer(tagSize))
        counts.video += video
        counts.audio += audio
        counts.headers += headers
        counts.data += data
        counts.size += position - start - 15 * len(messages)
        if video:
            self.hasVideo = True
        elif audio and not self.hasVideo:
            self._addAudio(messages[0], start)
        self.base = base
        self.time = time
        self.lastTime = last
        self.position = position
        return buffers

    def _anchor(
        self, base: int, elapsed: int, time: int, flags: int
    ) -> tuple[int, int]:
        """
        Go on where the file's time line stands, since the stream's has left it.

        @return: the new base and the message's time.
        """
        if elapsed < 0 and not flags & CODED:
            return base, time  # an old header says nothing of where frames will be
        self.anchors += 1
        if -CLAMP_MILLISECONDS <= elapsed < 0:
            return base, 0
        if elapsed > MAX_TIME and time > MAX_TIME - AUDIO_INDEX_MILLISECONDS:
            # The file has come to the end of what it can count.
            self._nextAudio = 0
            time = 0
        return base + elapsed - time, time

    def _addKeyFrame(self, message: Message, time: int, position: int) -> None:
        track = lowestTrack(message.payload, message.flags)
        leading = self.leadingTrack
        if leading is None or track < leading:
            self.leadingTrack = track
            self.index.clear()  # of audio, or of a track that leads no more
        elif track > leading:
            return
        self.index.add(time, position)

    def _addAudio(self, message: Message, position: int) -> None:
        """Enter a batch of a file without video."""
        assert self.base is not None
        time = message.timestamp - self.base
        if message.flags & CODED and self._nextAudio <= time <= MAX_TIME:
            self.index.add(time, position)
            self._nextAudio = time + AUDIO_INDEX_MILLISECONDS


def _baseOf(messages: Iterable[Message]) -> int:
    """The timestamp to begin with: the smallest, so that no time is negative."""
    first = min(message.timestamp for message in messages)
    frames = [message.timestamp for message in messages if message.flags & CODED]
    if frames and min(frames) - first > OLD_HEADER_MILLISECONDS:
        return min(frames)
    return first


def lowestTrack(payload: bytes, flags: int) -> int:
    """
    The lowest number of the tracks in a video frame; 0 if they have none.

    @param payload: of a single track its beginning is enough.
    @param flags: of the payload, which has L{CODED} among them.
    """
    return min(trackIdsOf(TagType.VIDEO, payload, flags))


def tellsAll(typeId: int, payload: bytes, flags: int) -> bool:
    """
    Whether a frame says of the first track's codec what there is to be said: other
    video frames than key frames say nothing of dimensions.

    @param payload: of a single track its beginning is enough.
    """
    if not flags & (CODED if typeId == TagType.AUDIO else KEY_FRAME):
        return False
    return not flags & MULTITRACK or 0 in trackIdsOf(typeId, payload, flags)


def isMetadata(message: Message) -> bool:
    """Whether this is an C{onMetaData}."""
    return message.typeId == TagType.SCRIPT_DATA and message.payload.startswith(
        _METADATA
    )


def readMetadata(payload: bytes) -> dict[str, Any] | None:
    """
    Read what an encoder says of its stream.

    @return: the properties that a head can take over; L{None} if they cannot be read,
        are no object or are too large.
    """
    try:
        values = amf0.decode(payload)
    except ProtocolError:
        return None
    if len(values) < 2 or not isinstance(values[1], dict):
        return None
    metadata = {
        name: value
        for name, value in values[1].items()
        if name not in _OURS and not name.startswith(SPACE)
    }
    try:
        size = len(amf0.encode(ECMAArray(metadata)))
    except UsageError:
        return None
    return metadata if size <= METADATA_BYTES else None


def fileFacts(
    size: int, lastTime: int, hasAudio: bool, hasVideo: bool, entries: int
) -> dict[str, Any]:
    """
    What a finished file says of itself in C{onMetaData}.

    @param size: of the file, in bytes.
    @param lastTime: the largest of its timestamps, in milliseconds.
    @param entries: of the index.
    """
    return {
        "duration": lastTime / 1000,
        "filesize": size,
        "lasttimestamp": lastTime / 1000,
        "hasAudio": hasAudio,
        "hasVideo": hasVideo,
        "hasKeyframes": entries > 1,
        "hasMetadata": True,
    }


def encodeHead(
    metadata: Mapping[str, Any],
    hasAudio: bool,
    hasVideo: bool,
    times: Sequence[int] = (),
    positions: Sequence[int] = (),
    payloadSize: int = HEAD_PAYLOAD,
) -> bytes:
    """
    Write the beginning of a file: header, C{onMetaData}, back pointer.

    @param metadata: its properties, without the index.
    @param times: of key frames, in milliseconds.  An index of less than two entries
        is left out: ffmpeg warns of it, and it says nothing.
    @param positions: their tags', in bytes.
    @param payloadSize: how large C{onMetaData} must be, in bytes.
    @return: as many bytes as it always has.
    @raise UsageError: the properties do not fit.
    """
    properties = amf0.encode(ECMAArray(metadata))[5:-3]
    count = len(metadata) + 1
    if len(times) > 1:
        properties += _property("keyframes") + _index(times, positions)
        count += 1
    body = b"".join(
        (
            amf0.encode("onMetaData"),
            b"\x08" + _packPointer(count),
            properties,
        )
    )
    end = b"\x00\x00\x09"
    room = payloadSize - len(body) - len(_property(SPACE)) - 5 - len(end)
    if room < 0:
        raise UsageError(f"metadata of {len(body)} bytes does not fit {payloadSize}")
    # A zero is 9 bytes; the name grows by what is left of the division.
    zeros, rest = divmod(room, 9)
    payload = b"".join(
        (
            body,
            _property(SPACE + "_" * rest),
            b"\x0a" + _packPointer(zeros),
            bytes(9 * zeros),
            end,
        )
    )
    return flv.encodeHeader(hasAudio, hasVideo) + flv.encodeTag(
        TagType.SCRIPT_DATA, 0, payload
    )


def _property(name: str) -> bytes:
    return struct.pack(">H", len(name)) + name.encode("ascii")


def _index(times: Sequence[int], positions: Sequence[int]) -> bytes:
    """Write the C{keyframes} object; 1.5 ms for a full one."""
    return b"".join(
        (
            b"\x03",
            _property("times"),
            _numbers([time / 1000 for time in times]),
            _property("filepositions"),
            _numbers(positions),
            b"\x00\x00\x09",
        )
    )


def _numbers(values: Sequence[float]) -> bytes:
    pack = struct.Struct(">xd").pack
    return b"\x0a" + _packPointer(len(values)) + b"".join(map(pack, values))
