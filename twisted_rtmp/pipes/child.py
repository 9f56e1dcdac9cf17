"""A child process, and its output in the log."""

from __future__ import annotations

import re
from collections.abc import Callable

from twisted.internet.error import ConnectionAborted, ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_rtmp.names import SHOWN_CHARACTERS, printable

#: From a child's end to the end of its output, which its own children may hold, in
#: seconds.
OUTPUT_SECONDS = 1.0

#: Characters of one line of a child's output in the log, and lines a second.  ffmpeg
#: writes one line of 100 characters in half a second.
LINE_CHARACTERS = 5 * SHOWN_CHARACTERS
LINES_A_SECOND = 10


class ChildProtocol(ProcessProtocol):
    """A child process: its output goes to the log, line by line."""

    log = Logger()

    def __init__(
        self,
        label: str,
        reactor: IReactorTime,
        inputLost: Callable[[], object],
        exited: Callable[[str, bool], object],
        ended: Callable[[], object],
    ) -> None:
        self._label = label
        self._reactor = reactor
        self._inputLost = inputLost
        self._exited = exited
        self._ended = ended
        self._line = {1: b"", 2: b""}
        self._second = -1
        self._lines = 0
        self._suppressed = 0
        self._closeCall: IDelayedCall | None = None

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        # ffmpeg ends the lines that it writes again and again with a return.
        *lines, rest = re.split(rb"[\r\n]+", self._line[childFD] + data)
        # A line that never ends is cut; four bytes is the longest character.
        self._line[childFD] = rest[: 4 * LINE_CHARACTERS]
        for line in lines:
            self._tell(line)

    def _tell(self, line: bytes) -> None:
        if not line.strip():
            return
        second = int(self._reactor.seconds())
        if second != self._second:
            self._second = second
            self._lines = 0
        self._lines += 1
        # A line with a NUL is not text but media, meant for a file.
        if self._lines > LINES_A_SECOND or b"\0" in line:
            self._suppressed += 1
            return
        text = line.decode("utf-8", "replace")[:LINE_CHARACTERS]
        self.log.info(
            "{stream}: {line}{more}",
            stream=self._label,
            line="".join(
                printable(text[start : start + SHOWN_CHARACTERS])
                for start in range(0, len(text), SHOWN_CHARACTERS)
            ),
            more=f" ({self._suppressed} lines left out)" if self._suppressed else "",
        )
        self._suppressed = 0

    def inConnectionLost(self) -> None:
        self._inputLost()

    def processExited(self, reason: Failure) -> None:
        self._closeCall = self._reactor.callLater(OUTPUT_SECONDS, self._closePipes)
        error = reason.value
        if isinstance(error, ProcessDone):
            self._exited("ended with status 0", True)
        elif isinstance(error, ProcessTerminated) and error.signal is not None:
            self._exited(f"was ended by signal {error.signal}", False)
        else:
            status = getattr(error, "exitCode", None)
            self._exited(f"ended with status {status}", False)

    def _closePipes(self) -> None:
        """Close what the child's own children still hold."""
        assert self.transport is not None
        self.transport.loseConnection()
        # That waits until they have read what was written.
        standardInput = getattr(self.transport, "pipes", {}).get(0)
        if standardInput is not None:
            standardInput.connectionLost(Failure(ConnectionAborted()))

    def processEnded(self, reason: Failure) -> None:
        for line in self._line.values():
            self._tell(line)
        if self._closeCall is not None and self._closeCall.active():
            self._closeCall.cancel()
        self._ended()
