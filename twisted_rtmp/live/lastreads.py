"""
The last reads of a server that stops: of what its publishers have sent already.

What an encoder has sent may wait in the kernel: of a burst, or while the server was
busy with others.  The encoder cannot tell it from what was recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from twisted_rtmp.live.streams import Publisher

#: How long publishers are read on at the end, in seconds: a reader at full speed takes
#: hundreds of MB meanwhile, and kernels keep some MiB of each connection.
LAST_READ_SECONDS = 1.0

#: How often it is looked whether nothing is left, in seconds.
LAST_LOOK_SECONDS = 0.02


class Fed(Protocol):
    """A stream, as far as its last reads need it."""

    label: str
    publisher: Publisher | None


class LastReads:
    """
    Lets each publisher go once all is read that it has sent so far.

    One that sends on is not waited for: what comes after a moment without anything to
    be read was not sent before that.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        streams: Callable[[], Iterable[Fed]],
        letGo: Callable[[Publisher], object],
    ) -> None:
        """
        @param clock: the reactor's: whoever stops a server waits through its stalls.
        @param streams: lists those that have not ended.
        @param letGo: called with each publisher of which nothing is left to be read.
        """
        self._clock = clock
        self._streams = streams
        self._letGo = letGo
        self._until = clock.seconds() + LAST_READ_SECONDS
        self._done: Deferred[None] = Deferred()

    def start(self) -> Deferred[None]:
        """
        Let go those of which nothing is left, now and until the time is over.

        @return: fires when all are let go.
        """
        self._look()
        return self._done

    def _look(self) -> None:
        isLast = self._clock.seconds() >= self._until
        isLeft = False
        for stream in list(self._streams()):
            publisher = stream.publisher
            if publisher is None:
                continue
            if publisher.unread:
                if not isLast:
                    isLeft = True
                    continue
                self.log.warn(
                    "{stream}: the last bytes that {peer} has sent are lost: they could"
                    " not be read within {seconds:g} s before the server stops",
                    stream=stream.label,
                    peer=publisher.peer,
                    seconds=LAST_READ_SECONDS,
                )
            self._letGo(publisher)
        if isLeft:
            self._clock.callLater(LAST_LOOK_SECONDS, self._look)
        else:
            self._done.callback(None)
