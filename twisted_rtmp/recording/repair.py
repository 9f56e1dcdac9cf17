"""
Finishes FLV files that a crash left behind.

A file is read once from start to end, without its payloads where they do not matter;
then its tail is cut off after the last whole tag, and length and index are written
into the space at its start.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from twisted_rtmp.flv import tags as flv
from twisted_rtmp.flv.head import HEAD_PAYLOAD, HEAD_SIZE
from twisted_rtmp.flv.metadata import SPACE
from twisted_rtmp.flv.survey import KeyFrameIndex, MediaSurvey
from twisted_rtmp.flv.timeline import MAX_TIME
from twisted_rtmp.media import payloads as media
from twisted_rtmp.media.metadata import isMetadata
from twisted_rtmp.wire.constants import TagType
from twisted_rtmp.wire.errors import UsageError
from twisted_rtmp.wire.limits import MIB
from twisted_rtmp.wire.messages import Message

#: Bytes that are read at once; larger payloads are skipped without reading.
WINDOW_BYTES = 256 * 1024

#: Bytes that are copied at once into a new file.
COPY_BYTES = 1 * MIB

#: Bytes at the beginning of a payload that say what it is.  More are read of several
#: tracks.
PREFIX_BYTES = 64

#: Bytes of a sequence header that are looked at.  HEVC's largest have some hundred.
HEADER_BYTES = 64 * 1024

_TAG_TYPES = (TagType.AUDIO, TagType.VIDEO, TagType.SCRIPT_DATA)
_FILTERED = 0x20
# A type, and a stream id of 0 behind size and time; a candidate may lie in another.
_ANY_TAG = re.compile(rb"(?=[\x08\x09\x12\x28\x29\x32]([\s\S]{3})[\s\S]{4}\0\0\0)")

_AUDIO: int = TagType.AUDIO
_VIDEO: int = TagType.VIDEO

_unpackHeader = struct.Struct(">II3s").unpack
_unpackPointer = struct.Struct(">I").unpack
_packPointer = struct.Struct(">I").pack


class RepairError(Exception):
    """A file cannot be repaired as it was asked for; the message says how it can be."""


@dataclass
class Repaired:
    """
    The result of a repair.

    @ivar path: the file that is whole now.
    @ivar changed: whether anything had to be done.
    @ivar size: bytes.
    @ivar duration: the last tag's time, in seconds.
    @ivar tags: audio, video and data tags that it holds.
    @ivar cut: bytes at the end that were not a whole tag.
    @ivar damaged: bytes in the middle that were left out.
    """

    path: str
    changed: bool
    size: int
    duration: float
    tags: int
    cut: int
    damaged: int = 0


class _Window:
    """Reads small pieces of a file through a larger buffer."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._start = 0
        self._data = b""

    def read(self, offset: int, size: int) -> bytes:
        """@return: fewer bytes at the end of the file."""
        first = offset - self._start
        if first < 0 or first + size > len(self._data):
            self._data = os.pread(self._fd, max(size, WINDOW_BYTES), offset)
            self._start = offset
            first = 0
        return self._data[first : first + size]

    def peek(self, offset: int, size: int) -> bytes:
        """Read as L{read}, and stay where the window is."""
        first = offset - self._start
        if first >= 0 and first + size <= len(self._data):
            return self._data[first : first + size]
        return os.pread(self._fd, size, offset)


@dataclass
class _Scan:
    """
    The contents of a file.

    @ivar size: of the file, in bytes.
    @ivar ranges: where whole tags stand, as starts and ends.
    @ivar head: the first tag's payload, if that is C{onMetaData}.
    @ivar isHeadTaken: whether the new head has the properties of that tag.
    @ivar headEnd: where that tag ends; where tags begin if there is none.
    @ivar survey: what the new head is to say of the media.
    """

    size: int
    ranges: list[tuple[int, int]] = field(default_factory=list)
    head: bytes | None = None
    isHeadTaken: bool = False
    headEnd: int = 0
    tags: int = 0
    lastTime: int = 0
    survey: MediaSurvey = field(default_factory=MediaSurvey)
    index: KeyFrameIndex = field(default_factory=KeyFrameIndex)

    @property
    def end(self) -> int:
        """The position at which the last whole tag ends."""
        return self.ranges[-1][1] if self.ranges else self.headEnd

    @property
    def damaged(self) -> int:
        """Bytes before and between whole tags."""
        whole = sum(end - start for start, end in self.ranges)
        return self.end - self.headEnd - whole


def repair(
    path: str,
    output: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Repaired:
    """
    Finish a file.

    In place, only bytes at the start and the end are touched: the space that our
    recordings reserve, and what follows the last whole tag.

    @param output: a new file to write instead; the old one stays as it is.  This works
        for files of other programs and for those with damage in the middle, which is
        left out.
    @param progress: called with bytes done and bytes to do.
    @raise RepairError: it needs C{output}, is not FLV, or holds nothing.
    @raise OSError: the file cannot be read or written.
    """
    flags = os.O_RDONLY if output is not None else os.O_RDWR
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RepairError("it is still being recorded") from None
        scan = _scanFile(fd, output is not None, progress)
        if output is None:
            return _repairInPlace(path, fd, scan)
        return _writeNew(output, fd, scan, progress)
    finally:
        os.close(fd)


# Reading


def _scanFile(
    fd: int, copying: bool, progress: Callable[[int, int], object] | None
) -> _Scan:
    """Read a file from start to end."""
    window = _Window(fd)
    scan = _Scan(os.fstat(fd).st_size)
    work = 2 * scan.size if copying else scan.size
    position = scan.headEnd = _readHeader(window)
    while position < scan.size:
        if progress is not None:
            progress(position, work)
        start = position
        for header in _tagsFrom(window, position, scan.size):
            tagStart, end = header[0], header[1]
            if tagStart == scan.headEnd and not scan.tags and scan.head is None:
                metadata = _metadataIn(window, header)
                if metadata is not None:
                    scan.head = metadata.payload
                    scan.isHeadTaken = scan.survey.takeMetadata(metadata)
                    scan.headEnd = start = position = end
                    continue
            _learn(scan, window, header)
            position = end
            if progress is not None and not scan.tags % 1000:
                progress(position, work)
        if position > start:
            scan.ranges.append((start, position))
        position = _resynchronise(window, position, scan.size)
    if not scan.tags:
        raise RepairError("it holds no audio, video or data")
    return scan


def _readHeader(window: _Window) -> int:
    """
    @return: where the first tag begins.
    @raise RepairError: this is not FLV.
    """
    data = window.read(0, flv.HEADER_SIZE)
    if not data.startswith(b"FLV\x01"):
        raise RepairError("it is not an FLV file of version 1")
    if len(data) < flv.HEADER_SIZE:
        raise RepairError("it is shorter than an FLV header")
    dataOffset: int = _unpackPointer(data[5:9])[0]
    return dataOffset + flv.PREVIOUS_TAG_SIZE


#: Where a tag begins and ends (its back pointer included), type, time, payload's size,
#: and how the payload begins.
_Header = tuple[int, int, int, int, int, bytes]

_PEEK_BYTES = flv.TAG_HEADER_SIZE + PREFIX_BYTES


def _readTag(window: _Window, position: int, size: int) -> _Header | None:
    """
    Read a tag's header.

    @param size: of the file, in bytes.
    @return: L{None} where no whole tag stands.
    """
    data = window.read(position, _PEEK_BYTES)
    if len(data) < flv.TAG_HEADER_SIZE:
        return None
    first, time, streamId = _unpackHeader(data[: flv.TAG_HEADER_SIZE])
    payloadSize = first & 0xFFFFFF
    typeId = first >> 24
    end = position + flv.TAG_HEADER_SIZE + payloadSize + flv.PREVIOUS_TAG_SIZE
    if typeId & ~_FILTERED not in _TAG_TYPES or any(streamId) or end > size:
        return None
    prefix = data[flv.TAG_HEADER_SIZE : flv.TAG_HEADER_SIZE + payloadSize]
    return position, end, typeId, time >> 8 | (time & 0xFF) << 24, payloadSize, prefix


def _pointsBack(window: _Window, header: _Header) -> bool:
    """Tell whether the right back pointer follows a tag."""
    pointer = window.peek(header[1] - flv.PREVIOUS_TAG_SIZE, flv.PREVIOUS_TAG_SIZE)
    size: int = _unpackPointer(pointer)[0]
    return size == header[4] + flv.TAG_HEADER_SIZE


def _tagsFrom(window: _Window, position: int, size: int) -> Iterator[_Header]:
    """
    Read tags as far as they follow each other.

    A back pointer that is wrong makes a tag doubtful: it counts if another tag or the
    end of the file follows it.
    """
    header = _readTag(window, position, size)
    while header is not None:
        end = header[1]
        right = _pointsBack(window, header)
        following = _readTag(window, end, size)
        if not right and following is None and end != size:
            return
        yield header
        header = following


def _resynchronise(window: _Window, position: int, size: int) -> int:
    """
    Look for a tag after damage.

    @return: where a tag with the right back pointer stands; the file's end if none
        does.
    """
    while position < size:
        data = window.read(position, min(WINDOW_BYTES, size - position))
        # In the worst case every eleventh byte may begin a tag: 2 us each.
        for match in _ANY_TAG.finditer(data):
            tagSize = flv.TAG_HEADER_SIZE + int.from_bytes(match[1], "big")
            end = position + match.start() + tagSize
            pointer = window.peek(end, flv.PREVIOUS_TAG_SIZE) if end < size else b""
            if pointer == _packPointer(tagSize):
                return position + match.start()
        # A header may begin in these bytes and end in the next.
        position += max(len(data) - flv.TAG_HEADER_SIZE + 1, 1)
    return size


def _metadataIn(window: _Window, header: _Header) -> Message | None:
    """Read a tag that is C{onMetaData}."""
    start, _, typeId, time, size, _ = header
    payload = window.read(start + flv.TAG_HEADER_SIZE, size)
    message = Message(typeId, time, 0, payload)
    return message if isMetadata(message) else None


def _learn(scan: _Scan, window: _Window, header: _Header) -> None:
    """Learn what a tag tells about the file."""
    start, _, typeId, time, size, payload = header
    scan.tags += 1
    if time > MAX_TIME:
        return
    scan.lastTime = max(scan.lastTime, time)
    if typeId not in (_AUDIO, _VIDEO):
        return
    position = start + flv.TAG_HEADER_SIZE
    if size > PREFIX_BYTES and _isDeep(typeId, payload):
        payload = window.read(position, size)
    flags = media.flagsOf(typeId, payload)
    if scan.survey.wants(typeId, payload, flags):
        if len(payload) < size:
            payload = window.read(position, min(size, HEADER_BYTES))
        scan.survey.learn(typeId, payload, flags)
    if not flags & media.CODED:
        return
    index = scan.index
    if typeId == _AUDIO:
        index.addAudio(time, start)
        return
    index.hasVideo = True
    if flags & media.KEY_FRAME:
        index.addKeyFrame(payload, flags, time, start)


def _isDeep(typeId: int, payload: bytes) -> bool:
    """
    Tell whether extensions, several tracks or a configuration stand before what says
    what the payload is.  A single track does not, of which encoders with many make most
    messages.
    """
    first, second = payload[0], payload[1]
    packetType = first & 0x0F
    if typeId == _VIDEO:
        return first & 0x80 != 0 and (
            packetType == 7 or (packetType == 6 and second > 0x0F)
        )
    return first >> 4 == media.EX_HEADER and (
        packetType in (4, 7) or (packetType == 5 and second > 3)
    )


# Writing


def _headOf(scan: _Scan, size: int, shift: int, payloadSize: int) -> bytes:
    """
    Make the beginning of the finished file.

    @param size: the finished file's, in bytes.
    @param shift: bytes that the tags have moved.
    """
    times, positions = scan.index.before(scan.size)
    moved = _moved(scan, positions, shift)
    head = scan.survey.encodeFinalHead(size, scan.lastTime, times, moved, payloadSize)
    return head.whole()


def _moved(scan: _Scan, positions: Sequence[int], shift: int) -> list[int]:
    """Compute positions in the finished file, which has no damage in it."""
    moved = []
    ranges = iter(scan.ranges)
    end = next(ranges)[1]
    for position in positions:
        while position >= end:
            start, nextEnd = next(ranges)
            shift -= start - end
            end = nextEnd
        moved.append(position + shift)
    return moved


def _isOurs(head: bytes | None) -> bool:
    """Tell whether a first tag reserves space, also if a crash has damaged it."""
    return head is not None and (len(head) == HEAD_PAYLOAD or SPACE.encode() in head)


def _repairInPlace(path: str, fd: int, scan: _Scan) -> Repaired:
    if not _isOurs(scan.head) or _readHeader(_Window(fd)) != flv.HEADER_SIZE:
        raise RepairError(
            "it has no room for an index at its start; --output writes a new file"
        )
    if scan.damaged:
        raise RepairError(
            f"{scan.damaged} bytes in its middle are damaged; --output writes a new"
            " file without them"
        )
    end = scan.end
    try:
        head = _headOf(scan, end, 0, len(scan.head or b""))
    except UsageError:
        raise RepairError(
            "the room for an index at its start is too small; --output writes a new"
            " file"
        ) from None
    cut = scan.size - end
    changed = bool(cut) or os.pread(fd, len(head), 0) != head
    if cut:
        os.ftruncate(fd, end)
    if changed:
        _writeAt(fd, head, 0)
        os.fsync(fd)
    return Repaired(path, changed, end, scan.lastTime / 1000, scan.tags, cut)


def _writeNew(
    output: str, fd: int, scan: _Scan, progress: Callable[[int, int], object] | None
) -> Repaired:
    foreign = scan.head is not None and not _isOurs(scan.head)
    if foreign and not scan.isHeadTaken:
        # Nothing that the new head could take over, but not ours to throw away.
        scan.ranges.insert(0, (_readHeader(_Window(fd)), scan.headEnd))
    size = HEAD_SIZE + sum(end - start for start, end in scan.ranges)
    head = _headOf(scan, size, HEAD_SIZE - scan.ranges[0][0], HEAD_PAYLOAD)
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    new = os.open(output, flags, 0o666)
    try:
        _writeAt(new, head, 0)
        written = len(head)
        for start, end in scan.ranges:
            for position in range(start, end, COPY_BYTES):
                data = os.pread(fd, min(COPY_BYTES, end - position), position)
                _writeAt(new, data, written)
                written += len(data)
                if progress is not None:
                    progress(scan.size + position, 2 * scan.size)
        os.fsync(new)
    finally:
        os.close(new)
    return Repaired(
        output,
        True,
        written,
        scan.lastTime / 1000,
        scan.tags,
        scan.size - scan.end,
        scan.damaged,
    )


def _writeAt(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view = view[count:]
        offset += count
