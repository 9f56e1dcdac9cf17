"""The process of a server that has one to itself: signals, descriptors, exit status."""

from __future__ import annotations

import atexit
import os
import resource
import signal
import sys
from types import FrameType

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorCore, IReactorFromThreads
from twisted.logger import Logger

#: The open files that the process asks for, where its hard limit allows more.
#: Containers set hard limits up to 2^30, and child processes may walk the whole range
#: to close it; 16,384 connections with a recording and a pipe each need about 50,000.
MAX_DESCRIPTORS = 1 << 20

#: macOS refuses a soft limit above this (OPEN_MAX), whatever its hard limit.
MACOS_DESCRIPTORS = 10_240


class IProcessReactor(IReactorCore, IReactorFromThreads):
    """The parts of a reactor that L{ServerProcess} needs."""


class ServerProcess(Service):
    """
    The manners of a process that is nothing but a server.

    It raises the soft limit of open files, keeps a file-size limit from killing
    the process, and on SIGINT and SIGTERM leaves with status 0 when every
    service has stopped (twistd would die by the signal, which to systemd,
    containers and shells looks like a crash or an interruption).
    """

    log = Logger()

    def __init__(self, reactor: IProcessReactor) -> None:
        self._reactor = reactor
        self._leaving = False

    def privilegedStartService(self) -> None:
        Service.privilegedStartService(self)
        self._raiseDescriptors()
        self._takeSignals()

    def startService(self) -> None:
        Service.startService(self)
        # A write past the limit of a file's size must fail with EFBIG.  Python ignores
        # the signal since 1.5, but a program that embeds Python may not.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self._takeSignals()
        # The reactor takes SIGTERM when it starts.
        self._reactor.callWhenRunning(self._takeSignals)

    def leave(self) -> None:
        """Stop the reactor, and with it every service; any number of times."""
        if not self._leaving:
            self._leaving = True
            self._reactor.callFromThread(self._reactor.stop)

    def fail(self) -> None:
        """Leave with exit status 1."""
        atexit.register(_exitWithFailure)
        self.leave()

    def _takeSignals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        self._reactor.callFromThread(self._announce, name)
        self.leave()

    def _announce(self, name: str) -> None:
        self.log.info("Received {name}, finishing", name=name)

    def _raiseDescriptors(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MACOS_DESCRIPTORS if sys.platform == "darwin" else MAX_DESCRIPTORS
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:
            self.log.warn(
                "The limit of open files stays at {soft}: {error}",
                soft=soft,
                error=error,
            )
        else:
            self.log.info(
                "Raised the limit of open files from {soft} to {wanted}",
                soft=soft,
                wanted=wanted,
            )


def _exitWithFailure() -> None:
    """End the interpreter with status 1: twistd cannot be told a status."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
