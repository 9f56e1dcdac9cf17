"""The sink that writes a stream to a child process."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import (
    IDelayedCall,
    IProcessTransport,
    IPullProducer,
    IReactorProcess,
    IReactorTime,
)
from twisted.logger import Logger, LogLevel
from zope.interface import implementer

from twisted_rtmp.flv import tags as flv
from twisted_rtmp.flv.early import EarlyMessages
from twisted_rtmp.flv.muxer import FLVMuxer
from twisted_rtmp.flv.survey import MediaSurvey
from twisted_rtmp.interfaces import ILiveStream, IMediaSink, ISinkFactory
from twisted_rtmp.ledger import MediaCounts
from twisted_rtmp.limits import PIPES, RECORDING_SHARE
from twisted_rtmp.media.payloads import CODED
from twisted_rtmp.names import printable
from twisted_rtmp.pipes.child import ChildProtocol
from twisted_rtmp.pipes.command import Command
from twisted_rtmp.places import Places
from twisted_rtmp.states import Stateful
from twisted_rtmp.wire.limits import MIB
from twisted_rtmp.wire.messages import Message

#: From a message to the write of what has come since, in seconds.  A write each 20 ms
#: costs two thirds of one a message, and no viewer sees the difference.
FLUSH_SECONDS = 0.02

#: Bytes that are written at once, without waiting: four times a pipe's own buffer.
BATCH_BYTES = 256 * 1024

#: Bytes that wait for a child at which the publisher is paused, and resumed.
HIGH_WATER = 4 * MIB
LOW_WATER = 1 * MIB

#: A child that has not taken one batch for this long, in seconds, is cut off, since its
#: encoder is being held up: as long as a player that reads nothing may stay.
STALL_SECONDS = 10.0

#: From the end of its input to SIGTERM, in seconds: a child may have an index to write
#: or an upload to complete.  A server that stops does not wait for that long; then
#: the child finishes without it.
FINISH_SECONDS = 30.0

#: From SIGTERM to SIGKILL, in seconds.
TERMINATE_SECONDS = 5.0


class IPipeReactor(IReactorTime, IReactorProcess):
    """The parts of a reactor that L{PipeSinks} needs."""


class InputTransport(Protocol):
    """The part of a process transport that a L{PipeSink} uses."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Ask a producer for bytes."""

    def unregisterProducer(self) -> None:
        """Ask it no more."""

    def writeSequence(self, seq: Sequence[bytes]) -> None:
        """Write to the child's standard input."""

    def closeStdin(self) -> None:
        """End the child's standard input."""

    def signalProcess(self, signalID: str) -> None:
        """Send a signal."""

    def loseConnection(self) -> None:
        """Close all pipes."""


class _State(Enum):
    """The states of a L{PipeSink}."""

    IDLE = "nothing to write has come yet"
    RUNNING = "the child takes its input"
    ENDING = "the stream has ended, what waits is still written"
    CLOSED = "nothing more is written"


_TRANSITIONS = {
    _State.IDLE: (_State.RUNNING, _State.CLOSED),
    _State.RUNNING: (_State.ENDING, _State.CLOSED),
    _State.ENDING: (_State.CLOSED,),
    _State.CLOSED: (),
}


class _Batch:
    """Bytes that are written together, and what they are."""

    __slots__ = ("buffers", "counts", "size")

    def __init__(self, buffers: list[bytes], size: int, counts: MediaCounts) -> None:
        self.buffers = buffers
        self.size = size
        self.counts = counts


@implementer(IMediaSink, IPullProducer)
class PipeSink(Stateful[_State]):
    """
    Writes one stream to one child.

    The child's pipe asks for a batch when it has taken the one before, so that it is
    known what the child can read and what is lost.
    """

    log = Logger()

    transitions = _TRANSITIONS

    def __init__(
        self,
        reactor: IPipeReactor,
        command: Command,
        stream: ILiveStream,
        places: Places,
        *,
        stallSeconds: float = STALL_SECONDS,
        finishSeconds: float = FINISH_SECONDS,
    ) -> None:
        """
        @param places: those of all children.
        @param stallSeconds: see L{STALL_SECONDS}.
        @param finishSeconds: see L{FINISH_SECONDS}.
        """
        self._reactor = reactor
        self._stream = stream
        self._places = places
        self._host: str | None = None  # whose place the child has
        self._stallSeconds = stallSeconds
        self._finishSeconds = finishSeconds
        self._written = stream.ledger.writer("pipe")
        self._fields = command.fieldsOf(stream.application, stream.name)
        self._arguments = command.fill(self._fields)
        self.state = _State.IDLE
        self._reason = "pipe closed"
        self._muxer = FLVMuxer()
        self._throttle = stream.throttle()
        self._throttled = False
        self._pending: list[Message] = []
        self._pendingBytes = 0
        self._early = EarlyMessages()
        self._superseded = MediaCounts()  # metadata before the newest early one
        self._introduction: Sequence[Message] = ()
        self._batches: deque[_Batch] = deque()
        self._waiting = 0  # bytes in the batches
        self._kept = stream.share()
        self._sending: _Batch | None = None
        self._sentAt = 0.0
        self._transport: InputTransport | None = None
        self._flushCall: IDelayedCall | None = None
        self._stallCall: IDelayedCall | None = None
        self._signalCall: IDelayedCall | None = None
        self._exited: list[Deferred[None]] = []
        self._streamHasEnded = False
        self._childHasEnded = True  # and its output

    # IMediaSink

    def mediaReceived(self, message: Message) -> None:
        if self.state is not _State.RUNNING:
            if self.state is _State.IDLE and not message.flags & CODED:
                self._keepEarly(message)
                return
            if not self._start():
                self._loseEarly(self._reason)
                self._stream.ledger.discard(self._reason)
                return
            self._pending, self._superseded = self._early.take()
        if self._flushCall is None:
            self._flushCall = self._reactor.callLater(FLUSH_SECONDS, self._flushNow)
        self._pending.append(message)
        self._pendingBytes += len(message.payload)
        if self._pendingBytes >= BATCH_BYTES:
            self._flush()

    def streamEnded(self) -> Deferred[None] | None:
        if self.state is _State.RUNNING:
            self._flush()
        if self.state is _State.RUNNING:
            self._enter(_State.ENDING)
            self._endInput()
        elif self.state is _State.IDLE:
            self._loseEarly("no media")
            self._enter(_State.CLOSED)
        self._streamHasEnded = True
        if self._childHasEnded:
            return None
        if self._signalCall is None and self._transport is not None:
            self._signalIn(self._finishSeconds)
        exited: Deferred[None] = Deferred()
        self._exited.append(exited)
        return exited

    # Before the first frame

    def _keepEarly(self, message: Message) -> None:
        """Keep a message until the first frame comes: without one there is no child."""
        if not self._early.add(message):
            self._loseEarly("before any media")
            self._introduction = self._stream.headers()
            self._early.add(message)
        self._kept.set(self._early.bytes)

    def _loseEarly(self, reason: str) -> None:
        messages, superseded = self._early.take()
        lost = len(messages) + superseded.messages
        if lost:
            self._stream.ledger.discard(reason, lost)
        self._kept.set(0)

    # The way to the child

    @property
    def running(self) -> bool:
        """Tell whether its child takes media."""
        return self.state is _State.RUNNING

    def _start(self) -> bool:
        """Run the command when the first frame has come."""
        if self.state is not _State.IDLE:
            return False
        host = self._stream.host
        why = self._places.take(host)
        if why is not None:
            self._notStarted(why)
            return False
        self._host = host
        environment = {
            **os.environ,
            "RTMP_APP": self._fields["app"],
            "RTMP_STREAM": self._fields["stream"],
        }
        protocol = ChildProtocol(
            self._stream.label,
            self._reactor,
            self._inputLost,
            self._childExited,
            self._childEnded,
        )
        try:
            # A child may end, and be reported, before its start has been.
            self._enter(_State.RUNNING)
            self._childHasEnded = False
            # Its own search in PATH; no shell.
            process: IProcessTransport = self._reactor.spawnProcess(
                protocol, self._arguments[0], self._arguments, environment
            )
        except OSError as error:
            self._notStarted(error.strerror or str(error))
            return False
        if not self.running:
            return False  # the log has said how it ended
        self._stream.tell(
            self.log,
            LogLevel.info,
            "{stream}: running {command} (process {pid})",
            stream=self._stream.label,
            command=printable(self._arguments[0]),
            pid=process.pid,
        )
        self._transport = process  # type: ignore[assignment]
        assert self._transport is not None
        self._transport.registerProducer(self, False)
        return True

    def _notStarted(self, why: str) -> None:
        """Go on without a child."""
        self._stream.tell(
            self.log,
            LogLevel.warn,
            "{stream}: cannot run {command}: {why}",
            stream=self._stream.label,
            command=printable(self._arguments[0]),
            why=why,
        )
        self._reason = "pipe not started"
        self._leavePlace()
        self._childHasEnded = True
        self._enter(_State.CLOSED)

    def _leavePlace(self) -> None:
        if self._host is not None:
            self._places.leave(self._host)
            self._host = None

    def _flushNow(self) -> None:
        self._flushCall = None
        self._flush()

    def _flush(self) -> None:
        """Make a batch of what has come."""
        if self._flushCall is not None:
            self._flushCall.cancel()
            self._flushCall = None
        messages, self._pending = self._pending, []
        self._pendingBytes = 0
        if not messages:
            return
        counts, self._superseded = self._superseded, MediaCounts()
        muxer = self._muxer
        first = muxer.timeline.base is None
        before = 0 if first else muxer.position
        buffers = muxer.mux(messages, counts)
        size = muxer.position - before
        if first:
            headers, self._introduction = self._introduction, ()
            tags = [flv.encodeTag(m.typeId, 0, m.payload) for m in headers]
            buffers[:0] = [_header([*headers, *messages]), *tags]
            size += sum(map(len, tags))
        self._waiting += size
        self._kept.set(self._waiting)
        self._batches.append(_Batch(buffers, size, counts))
        if self._sending is None:
            self._send()
        if self._waiting >= HIGH_WATER and not self._throttled:
            self._throttled = True
            self._throttle.pauseProducing()

    def _send(self) -> None:
        """Write the next batch; the pipe has taken all before."""
        transport = self._transport
        if transport is None or not self._batches:
            return
        batch = self._sending = self._batches.popleft()
        self._sentAt = self._reactor.seconds()
        if self._stallCall is None:
            self._stallCall = self._reactor.callLater(
                self._stallSeconds, self._checkStall
            )
        transport.writeSequence(batch.buffers)

    def resumeProducing(self) -> None:
        """The pipe has taken what it was given, and asks for more."""
        batch, self._sending = self._sending, None
        if batch is not None:
            self._written.add(batch.counts)
            self._waiting -= batch.size
            self._kept.set(self._waiting)
            if self._waiting <= LOW_WATER:
                self._release()
        self._send()
        if self.state is _State.ENDING:
            self._endInput()

    def stopProducing(self) -> None:
        """The child's standard input is closed."""
        self._abandon("pipe closed")

    def _endInput(self) -> None:
        """Close the child's input once all is written."""
        if self._sending is None and not self._batches:
            self._abandon("pipe closed")

    def _checkStall(self) -> None:
        self._stallCall = None
        if self._sending is None:
            return
        left = self._sentAt + self._stallSeconds - self._reactor.seconds()
        if left > 0:
            self._stallCall = self._reactor.callLater(left, self._checkStall)
            return
        self._stream.tell(
            self.log,
            LogLevel.warn,
            "{stream}: the child has read nothing for {seconds:g} s; terminating it",
            stream=self._stream.label,
            seconds=self._stallSeconds,
        )
        self._abandon("pipe stalled")
        self._signalIn(0)

    def _abandon(self, reason: str) -> None:
        """Write nothing more; book what the child has not taken as lost."""
        if self.state is _State.CLOSED:
            return
        self._enter(_State.CLOSED)
        self._reason = reason
        batches = list(self._batches)
        if self._sending is not None:
            batches.append(self._sending)
        lost = sum(batch.counts.messages for batch in batches) + len(self._pending)
        self._stream.ledger.discard(reason, lost)
        self._batches.clear()
        self._sending = None
        self._pending = []
        self._waiting = 0
        self._kept.set(0)
        for call in (self._flushCall, self._stallCall):
            if call is not None and call.active():
                call.cancel()
        self._flushCall = self._stallCall = None
        self._release()
        self._throttle.stopProducing()
        if self._transport is not None:
            self._transport.unregisterProducer()
            self._transport.closeStdin()

    def _release(self) -> None:
        if self._throttled:
            self._throttled = False
            self._throttle.resumeProducing()

    # The child's end

    def _signalIn(self, seconds: float, signal: str = "TERM") -> None:
        if self._signalCall is not None:
            self._signalCall.cancel()
        self._signalCall = self._reactor.callLater(seconds, self._signal, signal)

    def _signal(self, signal: str) -> None:
        self._signalCall = None
        if self._transport is None:
            return
        if self.state is not _State.CLOSED:
            self._abandon("pipe stalled")
        try:
            self._transport.signalProcess(signal)
        except ProcessExitedAlready:
            return
        if signal == "TERM":
            self._signalIn(TERMINATE_SECONDS, "KILL")

    def _inputLost(self) -> None:
        """The child has closed its standard input, or this server has."""
        self._abandon("pipe closed")

    def _childExited(self, status: str, well: bool) -> None:
        self._abandon("pipe closed")
        self._transport = None
        if self._signalCall is not None:
            self._signalCall.cancel()
            self._signalCall = None
        early = not self._streamHasEnded
        self._stream.tell(
            self.log,
            LogLevel.info if well and not early else LogLevel.warn,
            "{stream}: the child {status}{early}",
            stream=self._stream.label,
            status=status,
            early=" before the stream did" if early else "",
        )

    def _childEnded(self) -> None:
        """The child has ended, and its output."""
        self._childHasEnded = True
        self._leavePlace()
        exited, self._exited = self._exited, []
        for each in exited:
            each.callback(None)


def _header(messages: Sequence[Message]) -> bytes:
    """Write the FLV header, which cannot be corrected later."""
    survey = MediaSurvey()
    for message in messages:
        survey.takeMetadata(message)
        survey.learnMessage(message)
    return flv.encodeHeader(*survey.lastingKinds)


def pipePlaces(limit: int = PIPES, addressShare: float = RECORDING_SHARE) -> Places:
    """Make the places for all children of a server."""
    return Places("children", limit, addressShare)


@implementer(ISinkFactory)
class PipeSinks:
    """
    Runs a command for each stream, with the stream as FLV on its standard input.

    C{{app}} and C{{stream}} in its arguments are replaced, after they were split, by
    the stream's names; the child has the same in its environment as C{RTMP_APP} and
    C{RTMP_STREAM}.  There is no shell; a command that needs one is
    C{sh -c '... "$RTMP_STREAM" ...'}.
    """

    sinkName = "pipe"

    def __init__(
        self,
        reactor: IPipeReactor,
        command: str,
        *,
        places: Places | None = None,
        stallSeconds: float = STALL_SECONDS,
        finishSeconds: float = FINISH_SECONDS,
    ) -> None:
        """
        @param places: those of the server; by default as many for this command alone.
        @param stallSeconds: see L{STALL_SECONDS}.
        @param finishSeconds: see L{FINISH_SECONDS}.
        @raise ValueError: see L{Command}.
        """
        self._reactor = reactor
        self._command = Command(command)
        self._places = places or pipePlaces()
        self._stallSeconds = stallSeconds
        self._finishSeconds = finishSeconds

    def openSink(self, stream: ILiveStream) -> PipeSink:
        return PipeSink(
            self._reactor,
            self._command,
            stream,
            self._places,
            stallSeconds=self._stallSeconds,
            finishSeconds=self._finishSeconds,
        )
