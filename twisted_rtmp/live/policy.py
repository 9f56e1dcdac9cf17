"""The rules of an application: its deciders, its sinks and its limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from twisted_rtmp.interfaces import IAuthorizer, ISinkFactory
from twisted_rtmp.limits import ServerLimits


class TakeOver(Enum):
    """The answer to a second publisher of a stream's name."""

    WHEN_SILENT = "silent"  # it is refused, unless the first has gone silent
    NEVER = "never"  # it is refused
    ALWAYS = "always"  # the first one is closed


@dataclass(frozen=True)
class Policy:
    """
    The rules of one application.

    They are looked up when a connection or a stream begins, and it keeps what it began
    with: a later change is for those that begin later.

    @ivar authorizer: decides who may connect, publish and play; without one, everybody
        may.
    @ivar sinkFactories: each gives every stream a sink, or none.
    @ivar takeOver: the answer to a second publisher of a name.
    @ivar grace: how long a stream waits for its next publisher when one has left, in
        seconds.
    @ivar gopCache: whether players begin with the current GOP, unless they ask for
        something else.
    @ivar limits: the bounds of its peers.  Until C{connect} names the application,
        those of the default policy hold.
    """

    authorizer: IAuthorizer | None = None
    sinkFactories: Sequence[ISinkFactory] = ()
    takeOver: TakeOver = TakeOver.WHEN_SILENT
    grace: float = 0.0
    gopCache: bool = True
    limits: ServerLimits = field(default_factory=ServerLimits)
