"""The process of a server that has one to itself: signals, descriptors, exit status."""

from __future__ import annotations

import atexit
import os
import resource
import signal
import sys
from contextlib import suppress
from types import FrameType

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorCore, IReactorFromThreads
from twisted.logger import Logger

from twisted_rtmp.resolver import installResolver

#: The open files that the process asks for, where its hard limit allows more.
#: Containers set hard limits up to 2^30, and child processes may walk the whole range
#: to close it; 16,384 connections with a recording and a pipe each need about 50,000.
MAX_DESCRIPTORS = 1 << 20

#: macOS refuses a soft limit above this (OPEN_MAX), whatever its hard limit.
MACOS_DESCRIPTORS = 10_240


_log = Logger()


class IProcessReactor(IReactorCore, IReactorFromThreads):
    """The parts of a reactor that L{ServerProcess} needs."""


class ServerProcess(Service):
    """
    The manners of a process that is nothing but a server.

    It raises the soft limit of open files, keeps a file-size limit from killing
    the process and a silent name server from keeping it, and on SIGINT and SIGTERM
    leaves with status 0 when every service has stopped (twistd would die by the
    signal, which to systemd, containers and shells looks like a crash or an
    interruption).

    SIGHUP comes when a terminal closes, and ends the process likewise; to a daemon,
    which has none, it is a request to read its files again: there is nothing to read,
    and the log says so.
    """

    log = Logger()

    def __init__(self, reactor: IProcessReactor, *, isDaemon: bool = False) -> None:
        """@param isDaemon: whether the process runs in the background."""
        self._reactor = reactor
        self._isDaemon = isDaemon
        self._leaving = False

    def privilegedStartService(self) -> None:
        Service.privilegedStartService(self)
        self._raiseDescriptors()
        self._takeSignals()

    def startService(self) -> None:
        Service.startService(self)
        installResolver(self._reactor)
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
        # nohup ignores it.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(
                signal.SIGHUP, self._hungUp if self._isDaemon else self._signalled
            )

    def _hungUp(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(
            self.log.info,
            "Ignoring SIGHUP: settings are read at the start only; SIGUSR1 begins a new"
            " twistd.log",
        )

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


def removeStalePIDFile(path: str, cmdlines: str = "/proc/{pid}/cmdline") -> None:
    """
    Remove a pid file that no twistd has written that still runs.

    twistd would not start as long as there is a process with that number.  After a
    crash it may have become another program's, and in a container it is the new
    server's own, since numbers begin at 1 there.

    @param path: the file, which need not be there.
    @param cmdlines: where the system tells a process's command line; where it does not,
        every other process is taken to be twistd.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(100).strip(b"\0 \n")
        pid = int(text) if text else 0
    except (OSError, ValueError):
        return  # there is none, or twistd knows better what to say of it
    if not text:
        why = "it is empty"
    elif pid == os.getpid():
        why = f"process {pid} is this one"
    else:
        try:
            with open(cmdlines.format(pid=pid), "rb") as file:
                command = file.read()
        except OSError:
            return
        if b"twistd" in command:
            return
        why = f"process {pid} is another program"
    with suppress(OSError):
        os.remove(path)
        _log.warn("Removed {path}, which a crash has left: {why}", path=path, why=why)


def _exitWithFailure() -> None:
    """End the interpreter with status 1: twistd cannot be told a status."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
