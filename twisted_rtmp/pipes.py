"""
Child processes that read live streams as FLV on their standard input.

Imports the interfaces, the recorder's muxer and C{wire}; no protocol.
"""

from __future__ import annotations

import os
import shlex
from enum import Enum
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IProcessTransport,
    IPushProducer,
    IReactorProcess,
    IReactorTime,
)
from twisted.internet.protocol import ProcessProtocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_rtmp.interfaces import IMediaSink, ISinkFactory
from twisted_rtmp.ledger import MediaCounts
from twisted_rtmp.names import printable
from twisted_rtmp.recording.flvfile import FLVMuxer
from twisted_rtmp.wire import flv
from twisted_rtmp.wire.messages import Message

if TYPE_CHECKING:
    from twisted_rtmp.streams import LiveStream

#: A child that takes nothing although its pipe is full: after so many seconds it is
#: cut off, so that it cannot hold the encoder and the recording for ever.
STALL_SECONDS = 10.0

#: What a child has for its end after its input was closed, in seconds; then it is sent
#: TERM, and after as long again KILL.  Below what a server has to stop.
END_SECONDS = 2.0

#: Tags are handed over together, at the latest after so many seconds.
FLUSH_SECONDS = 0.02

#: Lines of a child's output that go to the log, for each stream.
LOGGED_LINES = 100


class IPipeReactor(IReactorTime, IReactorProcess):
    """What pipes need of a reactor."""


class _State(Enum):
    """How far a child has come."""

    OPEN = "it takes tags"
    CLOSED = "its input is closed"
    ENDED = "it has ended"


@implementer(IPushProducer)
class _Stall:
    """Passes a child's pauses on to the stream, and watches how long they last."""

    def __init__(self, sink: PipeSink, throttle: IPushProducer) -> None:
        self._sink = sink
        self._throttle = throttle

    def pauseProducing(self) -> None:
        self._throttle.pauseProducing()
        self._sink.childPaused()

    def resumeProducing(self) -> None:
        self._sink.childResumed()
        self._throttle.resumeProducing()

    def stopProducing(self) -> None:
        self._sink.childResumed()
        self._throttle.stopProducing()


@implementer(IMediaSink)
class PipeSink(ProcessProtocol):
    """
    One child process, and the stream that goes into it.

    The process transport is the consumer of the stream's FLV tags; when its pipe is
    full, the encoder is slowed down by TCP as it is by a slow disk.
    """

    log = Logger()

    def __init__(self, reactor: IPipeReactor, stream: LiveStream, program: str) -> None:
        """@param program: the child's name, for log lines."""
        self._reactor = reactor
        self._stream = stream
        self._program = program
        self._written = stream.ledger.writer("pipe")
        self._muxer = FLVMuxer()
        self._state = _State.OPEN
        self._pending: list[Message] = []
        self._begun = False
        self._flushing: IDelayedCall | None = None
        self._timer: IDelayedCall | None = None
        self._ended: Deferred[None] | None = None
        self._lines = 0
        self._output = b""
        self.transport: IProcessTransport

    # From the child

    def connectionMade(self) -> None:
        producer = _Stall(self, self._stream.throttle())
        self.transport.registerProducer(producer, True)  # type: ignore[attr-defined]

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Its output goes to the log, line by line."""
        *lines, rest = (self._output + data).split(b"\n")
        self._output = rest[-1000:]
        for line in lines:
            self._lines += 1
            if self._lines <= LOGGED_LINES:
                self.log.info(
                    "{stream}: {program}: {line}",
                    stream=self._stream.label,
                    program=self._program,
                    line=printable(line.decode("utf-8", "replace")),
                )

    def inConnectionLost(self) -> None:
        """The child reads no more."""
        if self._state is _State.OPEN:
            self._state = _State.CLOSED

    def processEnded(self, reason: Failure = connectionDone) -> None:
        early = self._ended is None
        self._state = _State.ENDED
        self._cancel()
        if early or reason.check(ProcessDone) is None:
            self.log.warn(
                "{stream}: {program} ended{early}: {reason}",
                stream=self._stream.label,
                program=self._program,
                early=" before the stream did" if early else "",
                reason=printable(reason.getErrorMessage()),
            )
        if self._ended is not None:
            ended, self._ended = self._ended, None
            ended.callback(None)

    def childPaused(self) -> None:
        """Its pipe is full."""
        if self._timer is None and self._state is _State.OPEN:
            self._timer = self._reactor.callLater(STALL_SECONDS, self._stalled)

    def childResumed(self) -> None:
        """Its pipe has room again."""
        if self._timer is not None and self._ended is None:
            self._timer.cancel()
            self._timer = None

    def _stalled(self) -> None:
        self._timer = None
        self._state = _State.CLOSED
        self.log.warn(
            "{stream}: {program} has read nothing for {seconds:g} s and is ended",
            stream=self._stream.label,
            program=self._program,
            seconds=STALL_SECONDS,
        )
        self._kill("KILL")

    def _cancel(self) -> None:
        for call in (self._timer, self._flushing):
            if call is not None and call.active():
                call.cancel()
        self._timer = self._flushing = None

    def _kill(self, signal: str) -> None:
        if self._state is not _State.ENDED:
            self.transport.signalProcess(signal)

    # From the stream

    def mediaReceived(self, message: Message) -> None:
        if self._state is not _State.OPEN:
            self._stream.ledger.discard("pipe closed")
            return
        self._pending.append(message)
        if self._flushing is None:
            self._flushing = self._reactor.callLater(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        if self._flushing is not None and self._flushing.active():
            self._flushing.cancel()
        self._flushing = None
        messages, self._pending = self._pending, []
        if not messages:
            return
        if self._state is not _State.OPEN:
            self._stream.ledger.discard("pipe closed", len(messages))
            return
        counts = MediaCounts()
        buffers = self._muxer.mux(messages, counts)
        if not self._begun:
            self._begun = True
            buffers.insert(0, flv.encodeHeader())
        self._written.add(counts)
        self.transport.write(b"".join(buffers))

    def streamEnded(self) -> Deferred[None]:
        self._flush()
        if self._state is _State.ENDED:
            return succeed(None)
        ended = self._ended = Deferred()
        self._cancel()
        if self._state is _State.OPEN:
            self._state = _State.CLOSED
            self.transport.unregisterProducer()  # type: ignore[attr-defined]
            self.transport.closeStdin()
        self._timer = self._reactor.callLater(END_SECONDS, self._terminate)
        return ended

    def _terminate(self) -> None:
        self._kill("TERM")
        self._timer = self._reactor.callLater(END_SECONDS, self._kill, "KILL")


@implementer(ISinkFactory)
class PipeSinks:
    """
    Runs a command for each stream.

    The command is split into words as a shell does it, and then C{{app}} and
    C{{stream}} are replaced within each word, so that no name from the network can
    become a word or an option's quoting.  No shell runs; one that is wanted is named:
    C{sh -c '...'}, with the names in the environment variables C{RTMP_APP} and
    C{RTMP_STREAM}.
    """

    sinkName = "pipe"
    log = Logger()

    def __init__(self, reactor: IPipeReactor, command: str) -> None:
        """@raise ValueError: the command is empty, or its quotes are not closed."""
        self._words = shlex.split(command)
        if not self._words:
            raise ValueError("a command is needed")
        self._reactor = reactor

    def openSink(self, stream: LiveStream) -> IMediaSink | None:
        app = stream.application.replace("\0", "")
        name = stream.name.replace("\0", "")
        words = [
            name.join(app.join(part.split("{app}")) for part in word.split("{stream}"))
            for word in self._words
        ]
        sink = PipeSink(self._reactor, stream, os.path.basename(words[0]))
        arguments = [os.fsencode(word) for word in words]
        environment = dict(os.environb)
        environment[b"RTMP_APP"] = os.fsencode(app)
        environment[b"RTMP_STREAM"] = os.fsencode(name)
        try:
            self._reactor.spawnProcess(
                sink, arguments[0], arguments, env=environment, path=None
            )
        except OSError as error:
            self.log.error(
                "{stream}: {program} cannot be started: {error}",
                stream=stream.label,
                program=printable(words[0]),
                error=str(error),
            )
            return None
        return sink
