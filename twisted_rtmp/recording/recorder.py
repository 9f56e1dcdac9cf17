"""
Records live streams into FLV files.

An L{FLVRecorder} writes one file after the other: a new one when the file is to be
rotated, or when the disk would not take more.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from enum import Enum

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_rtmp.disk import BATCH_BYTES, DiskStalled, FileRemoved, LowSpace
from twisted_rtmp.flv.early import EarlyMessages
from twisted_rtmp.interfaces import IMediaSink, IStreamPart
from twisted_rtmp.ledger import Ledger, MediaCounts
from twisted_rtmp.media.cuts import Cuts
from twisted_rtmp.media.payloads import CODED, MULTITRACK
from twisted_rtmp.recording.part import FinishedFile, RecordedFile, Shared
from twisted_rtmp.states import Stateful
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.messages import Message

#: From the beginning of a file that failed to that of the next, in seconds: it follows
#: at once if the first was begun long ago, and a full disk is tried six times a minute.
RETRY_SECONDS = 10.0

#: Between two lines about failures of one stream's recording, in seconds.
TELL_SECONDS = 10.0

_VIDEO: int = MessageType.VIDEO

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
    """Say why messages are lost, in the ledger's few words."""
    if isinstance(error, LowSpace):
        return "disk nearly full"
    if isinstance(error, FileRemoved):
        return "file removed"
    if isinstance(error, DiskStalled):
        return "disk stalled"
    number = error.errno if isinstance(error, OSError) else None
    return _REASONS.get(number or 0, "disk error")


def _textOf(error: OSError) -> str:
    """Describe an error in a log line; the path in it is one of ours."""
    return error.strerror or str(error)


class Account:
    """Books what becomes of one recorder's messages."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._written = ledger.writer("recording")

    def stored(self, messages: Sequence[Message], counts: MediaCounts) -> None:
        """
        Book messages as stored.

        @param counts: what they are; there may be more in it.
        """
        self._written.add(counts)

    def lost(self, reason: str, messages: Sequence[Message], others: int = 0) -> None:
        """
        Book messages as lost.

        @param others: how many were lost beside them.
        """
        self._ledger.discard(reason, len(messages) + others)


class _State(Enum):
    """The states of an L{FLVRecorder}."""

    IDLE = "no frame has come yet"
    RECORDING = "messages go into a file"
    SUSPENDED = "the last file failed, or there is no place for one"
    ENDED = "the stream has ended"


_TRANSITIONS = {
    _State.IDLE: (_State.RECORDING, _State.SUSPENDED, _State.ENDED),
    _State.RECORDING: (_State.SUSPENDED, _State.ENDED),
    _State.SUSPENDED: (_State.RECORDING, _State.ENDED),
    _State.ENDED: (),
}


_NO_PLACE = "too many recordings"

# Looked up for every message.
_RECORDING = _State.RECORDING


@implementer(IMediaSink)
class FLVRecorder(Stateful[_State]):
    """Records one stream, or one track of it."""

    log = Logger()

    transitions = _TRANSITIONS

    def __init__(
        self,
        shared: Shared,
        stream: IStreamPart,
        done: Callable[[FLVRecorder], object],
        *,
        track: str = "",
        leader: FLVRecorder | None = None,
        introduction: Sequence[Message] = (),
        account: Account | None = None,
    ) -> None:
        """
        @param done: called when the stream has ended and all is stored.
        @param track: what the names of the files get at their ends.
        @param leader: the recorder whose files these go with: they have their names
            and their time line, and are cut when those are.
        @param introduction: what the first file begins with.
        @param account: where messages are booked; by default in the stream's ledger.
        """
        self._shared = shared
        self._disk = shared.disk
        self._stream = stream
        self._done = done
        self._track = track
        self._leader = leader
        self._followers: list[FLVRecorder] = []
        if leader is not None:
            leader._followers.append(self)
        self._introduction = introduction
        self._account = account or Account(stream.ledger)
        self.state = _State.IDLE
        self._part: RecordedFile | None = None
        self._pending: list[Message] = []
        self._pendingBytes = 0
        self._early = EarlyMessages()
        self._superseded = MediaCounts()  # metadata before the newest early one
        self._host: str | None = None  # whose place this has
        seconds = shared.settings.rotateSeconds
        self._cuts = Cuts(
            None if seconds is None else seconds * 1000, shared.settings.rotateBytes
        )
        self._error: OSError | None = None  # of the file before; none once one works
        self._retryAt = 0.0
        self._announced = False
        self._unfinished = 0
        self._waiting: list[Deferred[None]] = []
        self._told: float | None = None
        self._pastBreaks = 0

    @property
    def timelineBreaks(self) -> int:
        """The times that a file's time line could not go on as the stream's did."""
        part = self._part
        return self._pastBreaks + (part.muxer.timeline.breaks if part else 0)

    # IMediaSink

    def mediaReceived(self, message: Message) -> None:
        """Take a message: 0.6 us, and 0.5 us more when its batch is handed over."""
        if self.state is not _RECORDING:
            if not self._admit(message):
                return
        elif message.flags & self._cuts.flags and self._isDue(message):
            self._rotate(message)
        pending = self._pending
        if not pending:
            self._disk.wake(self.flush, self._stream.connection)
        pending.append(message)
        self._pendingBytes += len(message.payload) + 15
        if self._pendingBytes >= BATCH_BYTES:
            self.flush()

    def streamEnded(self) -> Deferred[None]:
        if self.state is not _State.ENDED:
            self.flush()
            # Handing over may have failed at once, and closed the file.
            if self._part is not None:
                self._finish()
            self._loseEarly("no media")
            self._enter(_State.ENDED)
        if not self._unfinished:
            self._leave()
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    # Files

    def _admit(self, message: Message) -> bool:
        """
        Look at a message while there is no file.

        @return: whether one has been begun, for the message.
        """
        if self.state is _State.IDLE:
            if not message.flags & CODED:
                self._keepEarly(message)
                return False
            if self._hasPlace():
                self._beginFirst(message)
                return True
            self._loseEarly(_NO_PLACE)
            self._enter(_State.SUSPENDED)
        elif (
            self.state is _State.SUSPENDED
            and self._mayResume(message)
            and self._hasPlace()
        ):
            self._enter(_State.RECORDING)
            self._open(message, self._stream.headers())
            return True
        self._account.lost(self._whyNot(), [message])
        return False

    def _whyNot(self) -> str:
        """Say in the ledger's words why nothing is recorded."""
        if self._error is not None:
            return _reasonOf(self._error)
        return "not recording" if self.state is _State.ENDED else _NO_PLACE

    def _hasPlace(self) -> bool:
        """Take a place among all recordings, unless there is one."""
        if self._host is None:
            host = self._stream.host
            why = self._shared.places.take(host)
            if why is not None:
                self._shared.tellRefused(self._stream.label, why)
                self._retryAt = self._disk.reactor.seconds() + RETRY_SECONDS
                return False
            self._host = host
        return True

    def _leave(self) -> None:
        """All is stored."""
        if self._host is not None:
            self._shared.places.leave(self._host)
            self._host = None
        self._done(self)

    def _keepEarly(self, message: Message) -> None:
        """Keep a message until the first frame comes: without one there is no file."""
        if not self._early.add(message):
            self._loseEarly("before any media")
            self._introduction = self._stream.headers()
            self._early.add(message)

    def _loseEarly(self, reason: str) -> None:
        messages, superseded = self._early.take()
        if messages:
            self._account.lost(reason, messages, superseded.messages)

    def _beginFirst(self, message: Message) -> None:
        self._enter(_State.RECORDING)
        self._open(message, self._introduction, first=True)
        self._pending, self._superseded = self._early.take()
        if self._pending:
            self._disk.wake(self.flush, self._stream.connection)

    def _mayResume(self, message: Message) -> bool:
        """Tell whether a new file may be tried, with this message as its first."""
        self._cuts.messagePassed(message)
        return (
            not self._unfinished
            and self._disk.reactor.seconds() >= self._retryAt
            and self._cuts.mayBegin(message)
        )

    def _isDue(self, message: Message) -> bool:
        """Tell whether the file is to end before this message."""
        assert self._part is not None
        due = self._cuts.isDue(message, self._part.muxer.position + self._pendingBytes)
        if due and (message.typeId != _VIDEO or message.flags & MULTITRACK):
            self.flush()  # to know of video, and of tracks, that have been waiting
        return due and self._cuts.mayBegin(message)

    def _rotate(self, message: Message) -> None:
        self.flush()
        self._finish()
        self._open(message, self._stream.headers())

    def _open(
        self, message: Message, headers: Sequence[Message], *, first: bool = False
    ) -> None:
        """@param first: whether this is the first file."""
        self._part = RecordedFile(
            self._shared,
            self._stream,
            headers,
            self._failed,
            self._track,
            self._beside(first),
        )
        self._cuts.fileBegan(message.timestamp)
        if not first:
            for follower in self._followers:
                follower._cuts.demand()  # some may have resumed before this one

    def _beside(self, first: bool) -> RecordedFile | None:
        """Find the file whose name and time line the next one shares."""
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

    def flush(self) -> None:
        """Hand over what waits."""
        messages = self._pending
        part = self._part
        if not messages or part is None:
            return
        self._pending = []
        self._pendingBytes = 0
        counts = MediaCounts()
        counts.add(self._superseded)
        self._superseded = MediaCounts()
        sent = part.send(messages, counts)
        muxer = part.muxer
        base = muxer.timeline.base
        assert base is not None
        self._cuts.batchPassed(
            base, messages[-1].timestamp, counts.video > 0, muxer.index.leadingTrack
        )
        sent.addCallbacks(
            self._stored,
            self._lost,
            callbackArgs=(part, messages, counts),
            errbackArgs=(messages, counts),
        )

    def _stored(
        self,
        _: None,
        part: RecordedFile,
        messages: Sequence[Message],
        counts: MediaCounts,
    ) -> None:
        self._account.stored(messages, counts)
        if not self._announced:
            self._announced = True
            self._stream.tell(
                self.log,
                LogLevel.info,
                "Recording {stream} to {path}",
                stream=self._stream.label,
                path=part.path,
            )
        elif self._error is not None and part is self._part:
            self._error = None
            self._tell("continues in {path}", path=part.path)

    def _lost(
        self, failure: Failure, messages: Sequence[Message], counts: MediaCounts
    ) -> None:
        if failure.check(OSError) is None:
            self.log.failure(
                "Recording {stream} failed", failure, stream=self._stream.label
            )
        superseded = counts.messages - len(messages)
        self._account.lost(_reasonOf(failure.value), messages, superseded)

    def _failed(self, part: RecordedFile, error: OSError) -> None:
        """Give a file up that takes nothing more."""
        self._shared.tellFailed(error)
        part.error = error
        if part is not self._part:
            return  # it is being finished already, which will tell
        self._error = error
        self._account.lost(_reasonOf(error), self._pending)
        self._pending = []
        self._pendingBytes = 0
        self._retryAt = part.begun + RETRY_SECONDS
        if isinstance(error, DiskStalled):
            # Its end may never come, to be told with.
            self._tell("stopped: {error}", error=_textOf(error))
        self._enter(_State.SUSPENDED)
        self._finish()

    def _finish(self) -> None:
        """Close the file; the next one need not wait for that."""
        part = self._part
        assert part is not None
        self._pastBreaks += part.muxer.timeline.breaks
        self._part = None
        self._unfinished += 1
        part.finish().addBoth(self._finished, part)

    def _finished(self, result: bool | Failure, part: RecordedFile) -> None:
        """Report a file that is closed, or cannot be."""
        self._unfinished -= 1
        complete = result is True
        if isinstance(result, Failure):
            if isinstance(result.value, OSError):
                part.error = part.error or result.value
            else:
                self.log.failure(
                    "Recording {stream} failed", result, stream=self._stream.label
                )
        self._tellEnd(part)
        if part.size:
            self._shared.tellFinished(
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
        part.forget()
        if self.state is _State.ENDED and not self._unfinished:
            self._leave()
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)

    def _tellEnd(self, part: RecordedFile) -> None:
        if part.error is not None:
            self._tell(
                "stopped: {error}; {path} has {duration:.3f} s, {size} bytes",
                error=_textOf(part.error),
                path=part.path if part.size else "its file",
                duration=part.duration,
                size=part.size,
            )
        elif part.size:
            self._stream.tell(
                self.log,
                LogLevel.info,
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
            self._stream.tell(
                self.log,
                LogLevel.warn,
                "Recording of {stream} " + message,
                stream=self._stream.label,
                **fields,
            )
