"""Stores what a client plays: in an FLV file, or as FLV on a pipe."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IPushProducer
from twisted.internet.process import ProcessWriter
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_rtmp.flv import tags as flv
from twisted_rtmp.flv.head import HEAD_SIZE
from twisted_rtmp.flv.muxer import FLVMuxer
from twisted_rtmp.flv.survey import MediaSurvey
from twisted_rtmp.interfaces import IMediaSink
from twisted_rtmp.ledger import MediaCounts
from twisted_rtmp.media import payloads as media
from twisted_rtmp.media.payloads import CODED
from twisted_rtmp.wire.messages import Message

#: Messages and bytes that are kept until the first frame is there, which says where the
#: file's time begins.  Before it come metadata and sequence headers, some ten of 1 kB;
#: what is more belongs to a stream without frames, such as one of captions.
WAITING_MESSAGES = 500
WAITING_BYTES = 1024 * 1024


class Output(Protocol):
    """
    A place where bytes go.

    @ivar head: bytes at the beginning that can be overwritten at the end; 0 where
        nothing can be.
    """

    head: int

    def write(self, data: bytes) -> None:
        """
        Take bytes.

        @raise OSError: they cannot be stored.
        """

    def close(self, head: bytes) -> Deferred[None] | None:
        """
        Finish: nothing follows.

        @param head: what the beginning is to be, of L{head} bytes.
        @raise OSError: the end cannot be stored.
        """


class FileOutput:
    """
    A new file, which is made when there is something to write.  It is written in the
    reactor's thread: a client has nothing to do but wait for its disk.
    """

    head = HEAD_SIZE

    def __init__(self, path: str, overwrite: bool = False) -> None:
        """
        @raise FileExistsError: it exists, and is to be kept.
        @raise OSError: it cannot be made, as far as that can be told without making
            it.
        """
        self._path = path
        self._mode = "wb" if overwrite else "xb"
        self._file: BinaryIO | None = None
        number = _findError(path, overwrite)
        if number:
            raise OSError(number, os.strerror(number), path)

    def write(self, data: bytes) -> None:
        if self._file is None:
            self._file = cast(
                "BinaryIO",
                open(self._path, self._mode),  # noqa: SIM115
            )
        self._file.write(data)
        # If the process is killed, all but the last message is there.
        self._file.flush()

    def close(self, head: bytes) -> None:
        if self._file is None:
            return
        try:
            if head:
                self._file.seek(0)
                self._file.write(head)
        finally:
            self._file.close()


def _findError(path: str, overwrite: bool) -> int:
    """Find the error number with which a file could not be made; 0 if it could."""
    there = os.path.lexists(path)
    folder = os.path.dirname(path) or "."
    if there and not overwrite:
        return errno.EEXIST
    if os.path.isdir(path):
        return errno.EISDIR
    if not os.path.basename(path) or not os.path.isdir(folder):
        return errno.ENOENT
    return 0 if os.access(path if there else folder, os.W_OK) else errno.EACCES


class BlockingOutput:
    """Standard output that is a file."""

    head = 0

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()

    def close(self, head: bytes) -> None:
        """Do nothing: the file is the caller's."""


class PipeOutput:
    """
    Standard output that is a pipe: while its reader does not read, nothing is read
    from the server either.
    """

    head = 0

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401
        fd: int,
        lost: Callable[[], object],
    ) -> None:
        """
        @param fd: the pipe's descriptor; closed at the end.
        @param lost: called when the reader has gone.
        """
        self._fd = fd
        self._lost = lost
        self._gone = False
        self._closed: Deferred[None] | None = None
        self._writer = ProcessWriter(reactor, self, "output", fd)

    def throttle(self, producer: IPushProducer) -> None:
        """Pause a producer while the reader does not read."""
        self._writer.registerProducer(producer, True)

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def close(self, head: bytes) -> Deferred[None] | None:
        if self._gone:
            return None
        self._closed = Deferred()
        self._writer.unregisterProducer()
        self._writer.loseConnection()
        return self._closed

    def abandon(self) -> None:
        """Do not wait for the reader any longer."""
        if not self._gone:
            self._writer.connectionLost(Failure(ConnectionAborted()))

    def childConnectionLost(self, name: str, reason: object) -> None:
        """Close the pipe, which the writer has left open."""
        self._gone = True
        os.close(self._fd)
        closed, self._closed = self._closed, None
        if closed is not None:
            closed.callback(None)
        else:
            self._lost()


def outputFor(
    path: str,
    overwrite: bool,
    reactor: Any,  # noqa: ANN401
    stdout: BinaryIO,
    lost: Callable[[], object],
) -> FileOutput | BlockingOutput | PipeOutput:
    """
    Open the output that a path means.

    @param path: C{"-"} is standard output.
    @param lost: see L{PipeOutput}.
    @raise OSError: it cannot be written.
    """
    if path != "-":
        return FileOutput(path, overwrite)
    fd = stdout.fileno()
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return BlockingOutput(stdout)
    return PipeOutput(reactor, os.dup(fd), lost)


@implementer(IMediaSink)
class FLVSink:
    """
    Writes a stream as FLV, whose time begins at 0.

    @ivar counts: what has been written.
    @ivar error: why nothing more is, or L{None}.
    """

    def __init__(
        self,
        output: Output,
        enough: Callable[[], object],
        seconds: float | None = None,
    ) -> None:
        """
        @param enough: called when nothing more is taken.
        @param seconds: how much of the stream's time is wanted, from its first frame;
            L{None} for all.
        """
        self.counts = MediaCounts()
        self.error: OSError | None = None
        self._over = False
        self._storing: Deferred[None] | None = None
        self._output = output
        self._enough = enough
        self._milliseconds = None if seconds is None else seconds * 1000
        self._first: int | None = None
        self._full = False
        self._muxer = FLVMuxer(output.head or flv.HEADER_SIZE)
        self._begun = False
        self._waiting: list[Message] = []
        self._waitingSize = 0
        self._survey = MediaSurvey()

    @property
    def duration(self) -> float:
        """The time of the last message in the file, in seconds."""
        return self._muxer.timeline.lastTime / 1000

    def mediaReceived(self, message: Message) -> None:
        message.flags = media.flagsOf(message.typeId, message.payload)
        if message.flags & CODED and self._milliseconds is not None:
            if self._first is None:
                self._first = message.timestamp
            self._full = (
                self._full or message.timestamp - self._first >= self._milliseconds
            )
        if self._full:
            self._enough()
            return
        self._survey.learnMessage(message)
        if self._begun:
            self._write([message])
            return
        if self._survey.takeMetadata(message) and self._output.head:
            self.counts.count(message)
            return
        self._waiting.append(message)
        self._waitingSize += len(message.payload)
        if (
            message.flags & CODED
            or len(self._waiting) > WAITING_MESSAGES
            or self._waitingSize > WAITING_BYTES
        ):
            self._begin()

    def _begin(self) -> None:
        """Write the head, and all that waits: it is known where the time begins."""
        self._begun = True
        messages, self._waiting = self._waiting, []
        frame = messages[-1]
        if frame.flags & CODED:
            # A player that joins a stream gets headers as old as they are.
            for message in messages:
                message.timestamp = max(message.timestamp, frame.timestamp)
        survey = self._survey
        self._write(
            messages,
            survey.encodeHead().whole()
            if self._output.head
            else flv.encodeHeader(*survey.lastingKinds),
        )

    def _write(self, messages: list[Message], head: bytes = b"") -> None:
        if self.error is not None:
            return
        buffers = self._muxer.mux(messages, self.counts)
        try:
            self._output.write(head + b"".join(buffers))
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.error = error
        self._full = True
        self._enough()

    def streamEnded(self) -> Deferred[None] | None:
        """Write what is left, the duration and the index; may be called again."""
        if not self._over:
            self._over = True
            self._storing = self._close()
        storing = self._storing
        if storing is None or storing.called:
            return None
        stored: Deferred[None] = Deferred()

        def tell(_: None) -> None:
            stored.callback(None)

        storing.addCallback(tell)
        return stored

    def _close(self) -> Deferred[None] | None:
        if self._waiting:
            self._begin()
        head = b""
        if self._begun and self._output.head and self.error is None:
            muxer = self._muxer
            head = self._survey.encodeFinalHead(
                muxer.position,
                muxer.timeline.lastTime,
                muxer.index.times,
                muxer.index.positions,
            ).whole()
        try:
            return self._output.close(head)
        except OSError as error:
            if self.error is None:
                self._fail(error)
            return None
