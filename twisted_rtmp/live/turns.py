"""
The reactor's turns: the time in which it turned, and those that held it long.

A server that was stopped for a while, by a slow disk or by the system, has heard
nobody meanwhile.  That is not its peers' silence: by its own clock, that time has not
passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IDelayedCall, IReactorCore, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

#: How long one peer's messages are dispatched before the others get their turn, in
#: seconds: a MiB can hold 90,000 commands.
TURN_SECONDS = 0.02

#: How long all those together may take that have more to be dispatched than a turn, in
#: seconds, before everybody else is served; each has its share of it.
ROUND_SECONDS = 0.1

#: The least share of a round, in seconds: some dozens of messages.
LEAST_TURN_SECONDS = 0.001

#: A turn is worth to be noted from so many seconds on: shorter ones are those of any
#: publisher or newcomer, and cost too little to count for a round.
NOTED_SECONDS = 0.002

#: The same of a timer: the work of a tick is everybody's, and no round has to wait for
#: it.
NOTED_TIMER_SECONDS = 0.01

#: A turn of so many seconds is logged, with whom it was for: at 25 frames a second,
#: two frames of everybody else have waited.
LONG_TURN_SECONDS = 0.1

#: The least time between two log lines on long turns, in seconds.
LONG_TURN_LOG_SECONDS = 5.0

#: How often it is seen that the reactor turns, in seconds, while it has connections.
BEAT_SECONDS = 0.25

#: A beat that comes so much too late, in seconds, was held up by a stall, and not by
#: the work of a busy server.
STALL_SECONDS = 0.5


class Turns:
    """
    The turns that peers and timers take of the reactor.

    @ivar longest: the longest one, in seconds.
    @ivar cause: what took it: a few words for people.
    @ivar long: how many took L{LONG_TURN_SECONDS} or more.
    @ivar waiting: how many peers wait for their next turn now.
    @ivar share: how long one peer's messages may be dispatched now, in seconds: the
        more peers wait for another turn, and the more time others have taken since all
        were served last, the shorter, so that nobody waits for all.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self.longest = 0.0
        self.cause = ""
        self.long = 0
        self.waiting = 0
        self.share = TURN_SECONDS
        self._clock = clock
        # What this round has taken, and the call that ends it.
        self._spent = 0.0
        self._roundCall: IDelayedCall | None = None
        self._logged: float | None = None
        self._unlogged = 0

    def waits(self, change: int) -> None:
        """Count one peer more, or less, that waits for another turn."""
        self.waiting += change
        self._setShare()

    def _setShare(self) -> None:
        share = min(ROUND_SECONDS / (self.waiting + 1), ROUND_SECONDS - self._spent)
        self.share = min(TURN_SECONDS, max(LEAST_TURN_SECONDS, share))

    def _roundEnds(self) -> None:
        """Begin the next round: the reactor has been to all that there was to do."""
        self._roundCall = None
        self._spent = 0.0
        self._setShare()

    def took(self, seconds: float, peer: str, what: str) -> None:
        """
        Note how long a turn was.

        @param seconds: by the clock; L{NOTED_SECONDS} or more.
        @param peer: whom it was for; empty if for nobody in particular.
        @param what: what was done: C{"reading"}.
        """
        self._spent += seconds
        if self._roundCall is None:
            self._roundCall = self._clock.callLater(0, self._roundEnds)
        self._setShare()
        isLong = seconds >= LONG_TURN_SECONDS
        if not isLong and seconds <= self.longest:
            return
        cause = f"{what} for {peer}" if peer else what
        if seconds > self.longest:
            self.longest = seconds
            self.cause = cause
        if isLong:
            self.long += 1
            self._logLong(seconds, cause)

    def _logLong(self, seconds: float, cause: str) -> None:
        now = self._clock.seconds()
        if self._logged is not None and now - self._logged < LONG_TURN_LOG_SECONDS:
            self._unlogged += 1
            return
        unlogged, self._unlogged = self._unlogged, 0
        self._logged = now
        self.log.warn(
            "all others waited {seconds:.2f} s: {cause}{more}",
            seconds=seconds,
            cause=cause,
            more=f" (and {unlogged} other long turns since the last line)"
            if unlogged
            else "",
        )


@implementer(IReactorTime)
class AwakeClock:
    """
    A reactor's clock that stands still while the reactor does.

    All times and deadlines of a server's peers are counted by it.

    @ivar turns: notes how long each call took.
    @ivar stalled: how long the reactor has stood still, in seconds.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime) -> None:
        self.turns = Turns(reactor)
        self.stalled = 0.0
        self._told = -math.inf
        self._reactor = reactor
        self._seconds: Callable[[], float] = reactor.seconds
        self._beat: IDelayedCall | None = None
        self._beatDue = 0.0

    def seconds(self) -> float:
        """Tell the time, in seconds; it never falls back when a stall is noticed."""
        now = self._seconds() - self.stalled
        if now > self._told:
            self._told = now
        return self._told

    def callLater(
        self,
        delay: float,
        callable: Callable[..., object],  # noqa: A002  the interface's name
        *args: object,
        **kw: object,
    ) -> IDelayedCall:
        """Call something when so much time has passed by this clock."""
        return _AwakeCall(self, self._reactor, delay, partial(callable, *args, **kw))

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """List the reactor's calls."""
        return self._reactor.getDelayedCalls()

    # The beat

    def start(self) -> None:
        """See from now on whether the reactor turns."""
        if self._beat is None:
            self._beatAgain()

    def stop(self) -> None:
        """Nobody waits for anything: let the reactor do what it likes."""
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    def _beatAgain(self) -> None:
        self._beatDue = self._seconds() + BEAT_SECONDS
        self._beat = self._reactor.callLater(BEAT_SECONDS, self._beats)

    def _beats(self) -> None:
        late = self._seconds() - self._beatDue
        if late >= STALL_SECONDS:
            self.stalled += late
            self.log.warn(
                "the server stood still for {seconds:.1f} s; that counts as nobody's"
                " silence",
                seconds=late,
            )
        self._beatAgain()


def _nothing(call: object) -> None:
    """Have nothing to do with a call that is over."""


#: Any call that has been made: it can be neither cancelled nor put off.
_CALLED = DelayedCall(0.0, _nothing, (), {}, _nothing, _nothing)
_CALLED.called = True


@implementer(IDelayedCall)
class _AwakeCall:
    """A call that waits for an L{AwakeClock}."""

    __slots__ = ("__weakref__", "_call", "_clock", "_due", "_reactor", "_run")

    _call: DelayedCall

    def __init__(
        self,
        clock: AwakeClock,
        reactor: Any,  # noqa: ANN401  IReactorTime, whose calls mypy does not know
        delay: float,
        run: partial[object],
    ) -> None:
        self._clock = clock
        self._reactor = reactor
        self._run = run
        self._due = clock.seconds() + delay
        self._call = reactor.callLater(delay, self._isDue)

    def _isDue(self) -> None:
        now = self._clock.seconds()
        if now < self._due:
            self._call = self._reactor.callLater(self._due - now, self._isDue)
            return
        run = self._run
        del self._run
        self._call = _CALLED  # the reactor's knows this one: no circle is left
        try:
            run()
        finally:
            seconds = self._clock.seconds() - now
            if seconds > NOTED_TIMER_SECONDS:
                what = getattr(run.func, "__qualname__", repr(run.func))
                self._clock.turns.took(seconds, "", f"a timer called {what}")

    def cancel(self) -> None:
        self._call.cancel()
        del self._run

    def delay(self, secondsLater: float) -> None:
        self._due += secondsLater
        self._call.delay(secondsLater)

    def reset(self, secondsFromNow: float) -> None:
        self._due = self._clock.seconds() + secondsFromNow
        self._call.reset(secondsFromNow)

    def active(self) -> bool:
        return bool(self._call.active())

    def getTime(self) -> float:
        return self._due


def awakeClock(clock: IReactorTime) -> IReactorTime:
    """
    Give a clock that stands still while the reactor does.

    @param clock: a reactor; any other clock is turned by hand, and given back.
    """
    return AwakeClock(clock) if IReactorCore.providedBy(clock) else clock
