"""
Records live streams into FLV files.

An L{FLVRecorder} writes one file after the other: a new one when the file is to be
rotated, or when the disk would not take more.  Imports the files, the format and the
wire; not the protocol.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_rtmp.disk import (
    BATCH_BYTES,
    Disk,
    DiskFile,
    DiskStalled,
    FileRemoved,
    FileWriter,
    LowSpace,
)
from twisted_rtmp.flv import tags as flv
from twisted_rtmp.flv.muxer import (
    FLAGS_OFFSET,
    HEAD_SIZE,
    FLVMuxer,
    encodeHead,
    fileFacts,
    isMetadata,
    lowestTrack,
    readMetadata,
    tellsAll,
)
from twisted_rtmp.interfaces import IMediaSink
from twisted_rtmp.ledger import Ledger, MediaCounts
from twisted_rtmp.media import payloads as media
from twisted_rtmp.media.payloads import CODED, KEY_FRAME, MULTITRACK, SEQUENCE_HEADER
from twisted_rtmp.recording.names import EXTENSION, RecordName
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.messages import Message

#: After a file failed, the next one is begun so many seconds after the failed one was
#: begun: at once if that was long ago, and a full disk is tried six times a minute.
RETRY_SECONDS = 10.0

#: Between two lines about failures of one stream's recording, in seconds.
TELL_SECONDS = 10.0

#: A stream without video for so long, in milliseconds of its own time, is cut like one
#: without any: at an audio frame.
NO_VIDEO_MILLISECONDS = 10_000

_AUDIO: int = MessageType.AUDIO
_VIDEO: int = MessageType.VIDEO

_FACTS: dict[int, Callable[[bytes], dict[str, int]]] = {
    _AUDIO: media.audioFacts,
    _VIDEO: media.videoFacts,
}

_REASONS = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk full",
    errno.EROFS: "disk read-only",
    errno.EFBIG: "file size limit",
    errno.EMFILE: "out of descriptors",
    errno.ENFILE: "out of descriptors",
    errno.ENOENT: "folder gone",
}


def _reasonOf(error: BaseException | None) -> str:
    """Why messages are lost, in the ledger's few words."""
    if isinstance(error, LowSpace):
        return "disk nearly full"
    if isinstance(error, FileRemoved):
        return "file removed"
    if isinstance(error, DiskStalled):
        return "disk stalled"
    number = error.errno if isinstance(error, OSError) else None
    return _REASONS.get(number or 0, "disk error")


def _textOf(error: OSError) -> str:
    """An error for a log line; the path in it is one of ours."""
    return error.strerror or str(error)


@dataclass(frozen=True)
class FinishedFile:
    """
    A file that nothing more will be written to.

    @ivar path: where it is.
    @ivar application: the stream's application.
    @ivar name: the stream's name.
    @ivar duration: the last tag's time in the file, in seconds.
    @ivar size: bytes.
    @ivar finished: whether its length and index are written; if not, the repair
        command writes them.
    @ivar track: such as C{audio1}, of the file of one track; empty for the stream's
        own.
    """

    path: str
    application: str
    name: str
    duration: float
    size: int
    finished: bool = True
    track: str = ""


class Source(Protocol):
    """
    A stream that is recorded: a L{LiveStream<twisted_rtmp.live.streams.LiveStream>}, or
    a part of one.
    """

    @property
    def application(self) -> str:
        """The application's name."""

    @property
    def name(self) -> str:
        """The stream's own name."""

    @property
    def label(self) -> str:
        """Both, for log lines."""

    @property
    def ledger(self) -> Ledger:
        """What was stored, and what was lost."""

    def headers(self) -> list[Message]:
        """The newest metadata and sequence headers."""

    def throttle(self) -> IPushProducer:
        """By which the publisher is slowed down."""


class Whole:
    """
    A message whose tracks go to files of their own.

    It is written when all of its pieces are, and lost, once, if one of them is.
    """

    __slots__ = ("_ledger", "_left", "_lost", "_message", "_written")

    def __init__(
        self, message: Message, pieces: int, ledger: Ledger, written: MediaCounts
    ) -> None:
        self._message = message
        self._left = pieces
        self._lost = False
        self._ledger = ledger
        self._written = written

    def stored(self) -> None:
        """One piece is written."""
        self._left -= 1
        if not self._left and not self._lost:
            self._written.count(self._message)

    def lost(self, reason: str) -> None:
        """One piece is not."""
        self._left -= 1
        if not self._lost:
            self._lost = True
            self._ledger.discard(reason)


class Piece(Message):
    """
    One track's part of a message.

    @ivar whole: the message's own account.
    """

    __slots__ = ("whole",)

    def __init__(
        self, message: Message, payload: bytes, flags: int, whole: Whole
    ) -> None:
        super().__init__(
            message.typeId, message.timestamp, message.streamId, payload, flags
        )
        self.whole = whole


def _piecesOf(messages: Sequence[Message]) -> list[Piece]:
    return [message for message in messages if isinstance(message, Piece)]


@dataclass
class Settings:
    """What all recorders of one folder share."""

    disk: Disk
    directory: str
    name: RecordName
    now: Callable[[], float]
    rotateMilliseconds: float | None
    rotateBytes: int | None
    minFree: int
    fsyncSeconds: float | None
    stallSeconds: float
    tellFinished: Callable[[FinishedFile], object]
    tellFailed: Callable[[OSError], object]


class _State(Enum):
    """Where an L{FLVRecorder} stands."""

    IDLE = "nothing to record has come yet"
    RECORDING = "into a file"
    SUSPENDED = "the last file failed"
    ENDED = "the stream is over"


_TRANSITIONS = {
    _State.IDLE: (_State.RECORDING, _State.ENDED),
    _State.RECORDING: (_State.SUSPENDED, _State.ENDED),
    _State.SUSPENDED: (_State.RECORDING, _State.ENDED),
    _State.ENDED: (),
}


class _Stored:
    """What is known of a file once one more batch is stored: its L{DiskFile.mark}."""

    __slots__ = ("lastTime",)

    def __init__(self, lastTime: int) -> None:
        self.lastTime = lastTime


class _Part:
    """
    One file of a recording.

    @ivar muxer: its time line.
    @ivar writer: its way to the disk.
    @ivar begun: when, on the reactor's clock, in seconds.
    @ivar named: the time in its name, in seconds since 1970.
    @ivar error: why it takes nothing more, or L{None}.
    """

    def __init__(
        self,
        settings: Settings,
        stream: Source,
        headers: Sequence[Message],
        failed: Callable[[_Part, OSError], object],
        track: str = "",
        beside: _Part | None = None,
    ) -> None:
        """
        @param headers: metadata and sequence headers to begin with.
        @param track: what the name gets at its end.
        @param beside: a file whose name and time line this one shares.
        """
        self.muxer = FLVMuxer(HEAD_SIZE)
        if beside is not None:
            self.muxer.base = beside.muxer.base
        self.begun = settings.disk.reactor.seconds()
        self.named: float = settings.now() if beside is None else beside.named
        self.error: OSError | None = None
        self._empty = True
        self._headers = list(headers)
        self._headerTags: list[bytes] = []
        self._metadata: dict[str, Any] = {}
        self._facts: dict[str, Any] = {}
        self._kinds: set[int] = set()
        # Kinds of which the frame has not come that tells what a header does not.
        self._untold = {_AUDIO, _VIDEO}
        components = settings.name.render(stream.application, stream.name, self.named)
        if track:
            components[-1] += f".{track}"
        self.writer = FileWriter(
            settings.disk,
            DiskFile(
                settings.directory,
                components,
                suffix=EXTENSION,
                minFree=settings.minFree,
            ),
            lambda error: failed(self, error),
            syncSeconds=settings.fsyncSeconds,
            stallSeconds=settings.stallSeconds,
        )
        self.writer.registerProducer(stream.throttle(), True)

    def send(self, messages: Sequence[Message], counts: MediaCounts) -> Deferred[None]:
        """
        Hand a batch to the disk.

        @param counts: the messages are added to it.
        @return: as L{FileWriter.send}.
        """
        muxer = self.muxer
        first = self._empty
        if first:
            self._empty = False
            messages = self._begin(messages, counts)
            before = 0
        else:
            before = muxer.position
        buffers = muxer.mux(messages, counts)
        known = self._learn(messages, counts)
        size = muxer.position - before
        if first:
            head = encodeHead({**self._metadata, **self._facts}, *self._tracks())
            buffers[:0] = [head, *self._headerTags]
        elif known:
            header = flv.encodeHeader(*self._tracks())
            self.writer.overwrite(header[FLAGS_OFFSET : FLAGS_OFFSET + 1], FLAGS_OFFSET)
        return self.writer.send(buffers, size, _Stored(muxer.lastTime))

    def _begin(
        self, messages: Sequence[Message], counts: MediaCounts
    ) -> Sequence[Message]:
        """
        Take the metadata that comes before the first frame for the head.

        @return: what is left to write as tags.
        """
        headers = [m for m in self._headers if not self._take(m)]
        self._learn(headers, None)
        self._headerTags = [flv.encodeTag(m.typeId, 0, m.payload) for m in headers]
        self.muxer.position += sum(map(len, self._headerTags))
        rest: list[Message] = []
        for position, message in enumerate(messages):
            if message.flags & CODED:
                return [*rest, *messages[position:]]
            if self._take(message):
                counts.count(message)
            else:
                rest.append(message)
        return rest

    def _take(self, message: Message) -> bool:
        if not isMetadata(message):
            return False
        metadata = readMetadata(message.payload)
        if metadata is None:
            return False
        self._metadata = metadata
        return True

    def _learn(self, messages: Sequence[Message], counts: MediaCounts | None) -> bool:
        """
        Look for what C{onMetaData} tells of the media.

        @param counts: what the messages are; most batches have nothing to look for.
        @return: whether there is audio or video for the first time.
        """
        kinds = self._kinds
        untold = self._untold
        known = len(kinds)
        if (
            counts is None
            or counts.headers
            or (counts.video and _VIDEO in untold)
            or (counts.audio and _AUDIO in untold)
        ):
            for message in messages:
                flags = message.flags
                typeId = message.typeId
                if flags & SEQUENCE_HEADER:
                    tells = False
                elif flags & CODED and typeId in untold:
                    tells = tellsAll(typeId, message.payload, flags)
                    if not tells and typeId in kinds:
                        continue
                else:
                    continue
                kinds.add(typeId)
                for name, value in _FACTS[typeId](message.payload).items():
                    self._facts.setdefault(name, value)
                if tells:
                    untold.discard(typeId)
        return len(kinds) > known

    def _tracks(self) -> tuple[bool, bool]:
        """Whether there is audio, and video."""
        return _AUDIO in self._kinds, _VIDEO in self._kinds

    def finish(self) -> Deferred[bool]:
        """
        Write duration and index, and close the file.

        @return: as L{FileWriter.close}.
        """
        return self.writer.close(self._finalHead)

    def _finalHead(self, size: int, stored: _Stored) -> bytes:
        """Runs on the disk's thread, when nothing is added any more."""
        times, positions = self.muxer.index.before(size)
        hasAudio, hasVideo = self._tracks()
        metadata = {
            **self._metadata,
            **self._facts,
            **fileFacts(size, stored.lastTime, hasAudio, hasVideo, len(times)),
        }
        return encodeHead(metadata, hasAudio, hasVideo, times, positions)

    @property
    def path(self) -> str:
        """Where the file is; empty as long as there is none."""
        return self.writer.file.path

    @property
    def size(self) -> int:
        """Bytes stored."""
        return self.writer.file.size

    @property
    def duration(self) -> float:
        """The last time stored, in seconds."""
        stored = self.writer.file.mark
        return stored.lastTime / 1000 if stored else 0.0


@implementer(IMediaSink)
class FLVRecorder:
    """
    Records one stream, or one track of it.

    @ivar anchors: how often a file's time line could not go on as the stream's did.
    """

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        stream: Source,
        gone: Callable[[FLVRecorder], object],
        *,
        track: str = "",
        leader: FLVRecorder | None = None,
        introduction: Sequence[Message] = (),
        divided: bool = False,
    ) -> None:
        """
        @param gone: called when the stream has ended and all is stored.
        @param track: what the names of the files get at their ends.
        @param leader: the recorder whose files these go with: they have their names
            and their time line, and are cut when those are.
        @param introduction: what the first file begins with.
        @param divided: whether L{Piece}s come.
        """
        self._settings = settings
        self._disk = settings.disk
        self._stream = stream
        self._gone = gone
        self._track = track
        self._leader = leader
        self._followers: list[FLVRecorder] = []
        if leader is not None:
            leader._followers.append(self)
        self._introduction = introduction
        self._divided = divided
        self._written = stream.ledger.writer("recording")
        self._state = _State.IDLE
        self._part: _Part | None = None
        self._pending: list[Message] = []
        self._pendingSize = 0
        self._metadata: Message | None = None  # came before all media
        self._superseded = MediaCounts()  # metadata before that
        # What a message has of that a new file may begin with; 0 to look at none.
        self._cutFlags = 0
        self._cutTime = 0.0  # a timestamp, in milliseconds
        self._lastVideo: int | None = None  # a timestamp, in milliseconds
        self._leadingTrack: int | None = None  # of the newest file that had video
        self._error: OSError | None = None  # of the file before; none once one works
        self._retryAt = 0.0
        self._announced = False
        self._unfinished = 0
        self._waiting: list[Deferred[None]] = []
        self._told: float | None = None
        self._pastAnchors = 0

    @property
    def anchors(self) -> int:
        """How often a file's time line could not go on as the stream's did."""
        return self._pastAnchors + (self._part.muxer.anchors if self._part else 0)

    # -- IMediaSink --------------------------------------------------------

    def mediaReceived(self, message: Message) -> None:
        """Take a message: 0.6 us, and 0.5 us more when its batch is handed over."""
        if self._state is not _State.RECORDING:
            if not self._admit(message):
                return
        elif message.flags & self._cutFlags and self._isDue(message):
            self._rotate(message)
        pending = self._pending
        if not pending:
            self._disk.wake(self.flush)
        pending.append(message)
        self._pendingSize += len(message.payload) + 15
        if self._pendingSize >= BATCH_BYTES:
            self.flush()

    def streamEnded(self) -> Deferred[None]:
        if self._state is not _State.ENDED:
            self.flush()
            # Handing over may have failed at once, and closed the file.
            if self._part is not None:
                self._finish()
            self._moveTo(_State.ENDED)
        if not self._unfinished:
            self._gone(self)
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    # -- files -------------------------------------------------------------

    def _moveTo(self, state: _State) -> None:
        assert state in _TRANSITIONS[self._state], f"{self._state} to {state}"
        self._state = state

    def _admit(self, message: Message) -> bool:
        """
        Look at a message while there is no file.

        @return: whether one has been begun, for the message.
        """
        if self._state is _State.IDLE:
            if isMetadata(message):
                if self._metadata is not None:
                    self._superseded.count(self._metadata)
                self._metadata = message
                return False
            self._begin(message, self._introduction)
            if self._metadata is not None:
                self._pending.append(self._metadata)
                self._disk.wake(self.flush)
            return True
        if self._state is _State.SUSPENDED and self._mayResume(message):
            self._begin(message, self._stream.headers())
            return True
        self._discard(
            "not recording" if self._error is None else _reasonOf(self._error),
            [message],
        )
        return False

    def _mayResume(self, message: Message) -> bool:
        """Whether a new file may be tried, with this message as its first."""
        if message.typeId == _VIDEO and message.flags & CODED:
            self._lastVideo = message.timestamp
        return (
            not self._unfinished
            and self._disk.reactor.seconds() >= self._retryAt
            and self._isCut(message)
        )

    def _isCut(self, message: Message) -> bool:
        """
        Whether a file may begin here: a key frame of the leading track, or audio that
        goes alone.
        """
        if message.typeId == _VIDEO:
            if not message.flags & KEY_FRAME:
                return False
            leading = self._leadingTrack
            return leading is None or leading >= lowestTrack(
                message.payload, message.flags
            )
        return bool(message.flags & CODED) and not self._hasVideo(message.timestamp)

    def _hasVideo(self, timestamp: int) -> bool:
        """Whether there has been video lately."""
        return (
            self._lastVideo is not None
            and timestamp - self._lastVideo < NO_VIDEO_MILLISECONDS
        )

    def _isDue(self, message: Message) -> bool:
        """Whether the file is to end before this message."""
        assert self._part is not None
        limit = self._settings.rotateBytes
        due = message.timestamp >= self._cutTime or (
            limit is not None and self._part.muxer.position + self._pendingSize >= limit
        )
        if due and (message.typeId != _VIDEO or message.flags & MULTITRACK):
            self.flush()  # to know of video, and of tracks, that have been waiting
        return due and self._isCut(message)

    def _rotate(self, message: Message) -> None:
        self.flush()
        self._finish()
        self._open(message, self._stream.headers())

    def _cut(self) -> None:
        """End the file as soon as another can begin."""
        self._cutTime = -math.inf
        self._cutFlags = KEY_FRAME | CODED

    def _begin(self, message: Message, headers: Sequence[Message]) -> None:
        first = self._state is _State.IDLE
        self._moveTo(_State.RECORDING)
        self._open(message, headers, first=first)

    def _open(
        self, message: Message, headers: Sequence[Message], *, first: bool = False
    ) -> None:
        """@param first: whether this is the first file."""
        self._part = _Part(
            self._settings,
            self._stream,
            headers,
            self._failed,
            self._track,
            self._beside(first),
        )
        self._cutFlags = 0
        self._setCut(message.timestamp)
        if not first:
            for follower in self._followers:
                follower._cut()  # some may have resumed before this one

    def _beside(self, first: bool) -> _Part | None:
        """The file whose name and time line the next one shares, if there is one."""
        group: Sequence[FLVRecorder] = ()
        if self._leader is not None:
            group = (self._leader, *self._leader._followers)
        elif first:
            group = self._followers  # one of which came before
        for other in group:
            if other is not self:
                other.flush()  # to know where its time line begins
                if other._part is not None:
                    return other._part
        return None

    def _setCut(self, base: int) -> None:
        """
        Say when the file is to end.

        @param base: the timestamp at which it begins, in milliseconds.
        """
        settings = self._settings
        if settings.rotateMilliseconds is None and settings.rotateBytes is None:
            return
        limit = settings.rotateMilliseconds
        self._cutTime = math.inf if limit is None else base + limit
        # Of these, _isCut has the last word.
        self._cutFlags = KEY_FRAME | CODED

    def flush(self) -> None:
        """Hand over what waits."""
        messages = self._pending
        part = self._part
        if not messages or part is None:
            return
        self._pending = []
        self._pendingSize = 0
        counts = MediaCounts()
        counts.add(self._superseded)
        self._superseded = MediaCounts()
        sent = part.send(messages, counts)
        pieces = _piecesOf(messages) if self._divided else []
        if counts.video:
            self._lastVideo = messages[-1].timestamp
            if part.muxer.leadingTrack is not None:
                self._leadingTrack = part.muxer.leadingTrack
        if self._cutFlags:
            assert part.muxer.base is not None
            self._setCut(part.muxer.base)
            if self._hasVideo(messages[-1].timestamp):
                self._cutFlags = KEY_FRAME
        if pieces:
            _takeOff(pieces, counts)
        sent.addCallbacks(
            self._stored,
            self._lost,
            callbackArgs=(part, counts, pieces),
            errbackArgs=(counts, pieces),
        )

    def _stored(
        self, _: None, part: _Part, counts: MediaCounts, pieces: list[Piece]
    ) -> None:
        self._written.add(counts)
        for piece in pieces:
            piece.whole.stored()
        if not self._announced:
            self._announced = True
            self._log.info(
                "Recording {stream} to {path}",
                stream=self._stream.label,
                path=part.path,
            )
        elif self._error is not None and part is self._part:
            self._error = None
            self._tell("goes on in {path}", path=part.path)

    def _lost(self, failure: Failure, counts: MediaCounts, pieces: list[Piece]) -> None:
        if failure.check(OSError) is None:
            self._log.failure(
                "Recording {stream} failed", failure, stream=self._stream.label
            )
        reason = _reasonOf(failure.value)
        self._stream.ledger.discard(reason, counts.messages)
        for piece in pieces:
            piece.whole.lost(reason)

    def _discard(self, reason: str, messages: Sequence[Message]) -> None:
        pieces = _piecesOf(messages)
        self._stream.ledger.discard(reason, len(messages) - len(pieces))
        for piece in pieces:
            piece.whole.lost(reason)

    def _failed(self, part: _Part, error: OSError) -> None:
        """A file takes nothing more."""
        self._settings.tellFailed(error)
        part.error = error
        if part is not self._part:
            return  # it is being finished already, which will tell
        self._error = error
        self._discard(_reasonOf(error), self._pending)
        self._pending = []
        self._pendingSize = 0
        self._retryAt = part.begun + RETRY_SECONDS
        if isinstance(error, DiskStalled):
            # Its end may never come, to be told with.
            self._tell("stops: {error}", error=_textOf(error))
        self._moveTo(_State.SUSPENDED)
        self._finish()

    def _finish(self) -> None:
        """Close the file, while others go on."""
        part = self._part
        assert part is not None
        self._pastAnchors += part.muxer.anchors
        self._part = None
        self._unfinished += 1
        part.finish().addBoth(self._finished, part)

    def _finished(self, result: bool | Failure, part: _Part) -> None:
        """A file is closed, or cannot be."""
        self._unfinished -= 1
        complete = result is True
        if isinstance(result, Failure):
            if isinstance(result.value, OSError):
                part.error = part.error or result.value
            else:
                self._log.failure(
                    "Recording {stream} failed", result, stream=self._stream.label
                )
        self._tellEnd(part)
        if part.size:
            self._settings.tellFinished(
                FinishedFile(
                    part.path,
                    self._stream.application,
                    self._stream.name,
                    part.duration,
                    part.size,
                    complete,
                    self._track,
                )
            )
        if self._state is _State.ENDED and not self._unfinished:
            self._gone(self)
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)

    def _tellEnd(self, part: _Part) -> None:
        if part.error is not None:
            self._tell(
                "stops: {error}; {path} has {duration:.3f} s, {size} bytes",
                error=_textOf(part.error),
                path=part.path if part.size else "its file",
                duration=part.duration,
                size=part.size,
            )
        elif part.size:
            self._log.info(
                "Recorded {stream}: {path}, {duration:.3f} s, {size} bytes",
                stream=self._stream.label,
                path=part.path,
                duration=part.duration,
                size=part.size,
            )

    def _tell(self, message: str, **fields: object) -> None:
        """Log a line about trouble, unless there was one just now."""
        now = self._disk.reactor.seconds()
        if self._told is None or now - self._told >= TELL_SECONDS:
            self._told = now
            self._log.warn(
                "Recording of {stream} " + message,
                stream=self._stream.label,
                **fields,
            )


def _takeOff(pieces: Sequence[Piece], counts: MediaCounts) -> None:
    """Leave the pieces to the accounts of the messages that they are of."""
    apart = MediaCounts()
    for piece in pieces:
        apart.count(piece)
    counts.video -= apart.video
    counts.audio -= apart.audio
    counts.headers -= apart.headers
    counts.size -= apart.size
