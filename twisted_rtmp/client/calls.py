"""Calls: a client's commands that the server has not answered yet."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from twisted_rtmp.client.errors import ClientError, CommandFailed
from twisted_rtmp.client.status import Status

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from twisted_rtmp.client.errors import Show
    from twisted_rtmp.client.streams import ClientStream
    from twisted_rtmp.wire.messages import Command


class _Call:
    """
    One command.

    @ivar due: the clock's time at which the answer is too late, in seconds.
    @ivar answer: fires with the answer; L{None} where a stream waits.
    @ivar stream: waits for an C{onStatus} instead of an answer.
    """

    __slots__ = ("answer", "due", "name", "stream")

    def __init__(
        self,
        name: str,
        due: float,
        answer: Deferred[Command] | None,
        stream: ClientStream | None,
    ) -> None:
        self.name = name
        self.due = due
        self.answer = answer
        self.stream = stream


class Calls:
    """The unanswered commands of one connection, by transaction id."""

    def __init__(self, clock: IReactorTime, seconds: float, show: Show) -> None:
        """
        @param seconds: the time that the server has for each answer.
        @param show: makes its words fit for logs.
        """
        self._show = show
        self._clock = clock
        self._seconds = seconds
        self._calls: dict[float, _Call] = {}

    def add(
        self,
        transactionId: float,
        name: str,
        answer: Deferred[Command] | None = None,
        stream: ClientStream | None = None,
    ) -> None:
        """
        Wait for the answer to a command.

        @param answer: fires with C{_result}; fails with a L{CommandFailed} for
            C{_error}.
        @param stream: started or refused by an C{onStatus}; L{forget} the command then.
        """
        due = self._clock.seconds() + self._seconds
        self._calls[transactionId] = _Call(name, due, answer, stream)

    def forget(self, transactionId: float) -> None:
        """Wait no longer for an answer."""
        self._calls.pop(transactionId, None)

    def waitForEver(self, transactionId: float) -> None:
        """Set no limit to the time of an answer."""
        self._calls[transactionId].due = math.inf

    def answered(self, command: Command) -> ClientStream | None:
        """
        Give an answer to what waits for it.

        @return: the stream that the server refuses by it, or L{None}.
        """
        call = self._calls.get(command.transactionId)
        if call is None:
            return None
        failed = command.name == "_error"
        if call.answer is None:
            return call.stream if failed else None
        del self._calls[command.transactionId]
        if failed:
            status = Status.fromCommand(command, self._show)
            call.answer.errback(status.refusal(CommandFailed))
        else:
            call.answer.callback(command)
        return None

    def nextDue(self) -> tuple[float, str]:
        """
        Find the answer that is due next.

        @return: the clock's time in seconds, infinite where none is due; the command's
            name.
        """
        when, name = math.inf, ""
        for call in self._calls.values():
            if call.due < when:
                when, name = call.due, call.name
        return when, name

    def fail(self, error: ClientError) -> None:
        """Let all that wait for answers fail: there will be none."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if call.answer is not None and not call.answer.called:
                call.answer.errback(error)
