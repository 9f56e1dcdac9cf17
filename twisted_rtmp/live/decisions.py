"""The one way to ask whether a peer may do what it asks for, by whatever protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from enum import Enum
from typing import Any, TypeVar, cast

from twisted.internet import defer
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.reflect import qual

from twisted_rtmp.interfaces import (
    ConnectRequest,
    IAuthorizer,
    Refused,
    StreamRequest,
)
from twisted_rtmp.limits import NAME_BYTES, QUERY_BYTES
from twisted_rtmp.names import peerName, printable

_log = Logger()

_T = TypeVar("_T")


class Action(Enum):
    """The question; each value is the method of L{IAuthorizer} that is asked."""

    CONNECT = "connect"
    PUBLISH = "publish"
    PLAY = "play"


class Undecided(Refused):
    """There is no decision: a decider failed or did not answer in time."""


async def decide(
    deciders: Sequence[IAuthorizer],
    action: Action,
    request: ConnectRequest | StreamRequest,
    clock: IReactorTime,
    seconds: float,
) -> str:
    """
    Ask deciders in their order, until one refuses.

    A decision that is there at once is taken at once: nothing is awaited then.  The
    cancellation of this coroutine's Deferred cancels the decider's.

    @param seconds: how long all of them together may take.
    @return: the name under which it is to be done: of the application or the stream;
        the last decider that gives another name has its way.
    @raise Refused: it may not be done.
    @raise Undecided: a decider failed, or the time is over.  The log names it.
    """
    name = request.name if isinstance(request, StreamRequest) else request.application
    until = clock.seconds() + seconds
    for decider in deciders:
        renamed = await _ask(decider, action, request, clock, until, seconds)
        if renamed is not None:
            name = renamed
    return name


async def _ask(
    decider: IAuthorizer,
    action: Action,
    request: ConnectRequest | StreamRequest,
    clock: IReactorTime,
    until: float,
    seconds: float,
) -> str | None:
    """
    Ask one decider.

    @param until: when its answer must be there, in the clock's seconds.
    @raise Refused: as L{decide}.
    """
    try:
        answer = getattr(decider, action.value)(request)
        if isinstance(answer, Awaitable):
            answer = await inTime(answer, clock, until - clock.seconds())
        return cast("str | None", answer)
    except (Refused, defer.CancelledError):
        raise
    except defer.TimeoutError:
        _log.error(
            "{decider} has not decided within {seconds:g} s whether {peer} may"
            " {action}; the peer is refused",
            decider=_nameOf(decider),
            seconds=seconds,
            peer=peerName(request.address),
            action=_described(action, request),
        )
        raise Undecided("The server could not decide in time.") from None
    # An application's bug: no permission either, and the peer is told so.
    except Exception:
        _log.failure(
            "{decider} failed to decide whether {peer} may {action}",
            decider=_nameOf(decider),
            peer=peerName(request.address),
            action=_described(action, request),
        )
    raise Undecided("The server could not decide.")


def checkNames(request: ConnectRequest | StreamRequest) -> None:
    """
    Keep the bounds of names and queries, which are remembered, looked up and said.

    @raise Refused: one of them is too long.
    """
    if isinstance(request, StreamRequest):
        name, kind = request.name, "stream"
    else:
        name, kind = request.application, "application"
    if _isLonger(name, NAME_BYTES):
        raise Refused(f"The {kind}'s name must be at most {NAME_BYTES} bytes long.")
    if _isLonger(request.query, QUERY_BYTES):
        raise Refused(f"The {kind}'s query must be at most {QUERY_BYTES} bytes long.")


def _isLonger(text: str, limit: int) -> bool:
    """Decide whether a text is longer than a number of bytes, as UTF-8."""
    return len(text) > limit or len(text.encode("utf-8", "surrogatepass")) > limit


def inTime(answer: Awaitable[_T], clock: IReactorTime, seconds: float) -> Deferred[_T]:
    """
    Bound the time that an answer may take; after it, it is cancelled.

    @param answer: a Deferred, a coroutine, or another awaitable.
    @return: the answer; fails with L{defer.TimeoutError}.
    """
    deferred: Deferred[_T]
    if isinstance(answer, Deferred):
        deferred = answer
    else:
        deferred = ensureDeferred(cast("Any", answer))
    if not deferred.called:
        deferred.addTimeout(max(0.0, seconds), clock)
    return deferred


def _nameOf(decider: object) -> str:
    """Name a decider's class, for the log."""
    return qual(type(decider))


def _described(action: Action, request: ConnectRequest | StreamRequest) -> str:
    """
    Say what is asked for, for the log.

    A stream's name is left out: it may be a key that only its owner should know.
    """
    application = printable(request.application) or "the empty application"
    if action is Action.CONNECT:
        return f"connect to {application}"
    return f"{action.value} a stream of {application}"
