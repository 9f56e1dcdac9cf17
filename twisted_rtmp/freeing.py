"""
Memory given back to the system after a peak.

What peers have made a server keep is free when they are gone, but Python and the C
library keep most of it for the next ones: a server that has had 10,000 connections
would look for ever as if it still had half of them.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections import deque
from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorCore, IReactorTime
from twisted.internet.task import LoopingCall

from twisted_rtmp.wire.limits import MIB

#: How often it is looked whether a peak is over, in seconds, and how many looks in a
#: row must find it so: the GOPs of streams that began together end together, every some
#: seconds, and what they leave is needed again at once.
LOOK_SECONDS = 2.0
LOOKS = 4

#: By how much what peers take has to have fallen since its peak, in bytes, and to which
#: part of it, before memory is given back: that takes some milliseconds.
FALLEN_BYTES = 8 * MIB
FALLEN_TO = 1 / 2

#: As long as peers take more than this, in bytes, the lists of free objects that Python
#: keeps are left alone: they are freed with a collection of garbage, which looks at
#: each object of each connection.
COLLECTED_BYTES = 16 * MIB


#: Room for numbers that is made before there are peers: 2 MiB.  1,000 players and 200
#: publishers have 72,000 at a time.
NUMBERS = 65_536

#: Of so many numbers one is kept: some of each pool, which has room for 500 of them, or
#: for 127 where pools have 4 KiB.
_NUMBERS_KEPT = 100


class IFreeingReactor(IReactorCore, IReactorTime):
    """The parts of a reactor that L{MemoryFreeing} needs."""


def trim() -> None:
    """Let the C library give its free memory back; only glibc can be told."""
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def roomForNumbers() -> list[float]:
    """
    Make room in which numbers are put that live on when a peak is over.

    Times, counters and rates are replaced again and again.  Those that were replaced
    last during a peak would lie here and there in the memory of the peak, and Python
    gives back only whole MiB of its memory for small objects: thirty numbers kept 8 MB.

    @return: keeps the room.
    """
    numbers = [float(number) for number in range(NUMBERS)]
    return numbers[::_NUMBERS_KEPT]


def collect() -> None:
    """
    Free what Python keeps besides its objects in use.

    That is garbage, the lists of free objects, and the names in the cache of attributes
    of types: Python's own code asks for some by a new string each time, for two when
    it formats the time of a line of the log.  So a few hundred of them, which were made
    during a peak, each kept the MiB of memory around it: 10 MB after 10,000
    connections.
    """
    gc.collect()
    # The former from Python 3.13 on.
    for name in ("_clear_internal_caches", "_clear_type_cache"):
        clear = getattr(sys, name, None)
        if clear is not None:
            clear()
            break


class MemoryFreeing(Service):
    """
    Looks now and then whether a peak is over, and gives its memory back.

    For a process that is nothing but a server.  When it starts, all objects that there
    are stay for good, and no collection of garbage looks at them any more; and
    there is room for numbers that change.

    @ivar freed: how often memory was given back.
    """

    def __init__(
        self,
        reactor: IFreeingReactor,
        used: Callable[[], int],
        trim: Callable[[], object] = trim,
    ) -> None:
        """
        @param used: tells how many bytes peers take.
        @param trim: gives the C library's memory back.
        """
        self.freed = 0
        self._reactor = reactor
        self._used = used
        self._trim = trim
        self._peak = 0
        self._recent: deque[int] = deque(maxlen=LOOKS)
        self._room: list[float] = []
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def privilegedStartService(self) -> None:
        """Prepare before anything listens: it takes some dozens of milliseconds."""
        Service.privilegedStartService(self)
        self._prepare()

    def startService(self) -> None:
        Service.startService(self)
        if not self._room:
            self._prepare()
        self._reactor.callWhenRunning(self._begin)

    def _prepare(self) -> None:
        gc.collect()
        self._room = roomForNumbers()
        gc.freeze()

    def _begin(self) -> None:
        if self.running:
            self._looking.start(LOOK_SECONDS, now=False)

    def stopService(self) -> None:
        Service.stopService(self)
        if self._looking.running:
            self._looking.stop()

    def _look(self) -> None:
        self._recent.append(self._used())
        used = max(self._recent)
        self._peak = max(self._peak, used)
        if self._peak - used < FALLEN_BYTES or used > self._peak * FALLEN_TO:
            return
        self._peak = used
        self.freed += 1
        if used <= COLLECTED_BYTES:
            collect()
        self._trim()
