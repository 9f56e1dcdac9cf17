"""
Runs a factory as a Twisted service: listens, and stops without losing anything.

L{RTMPService} is for any application.  L{ServerProcess} is for a process that
is nothing but this server: it deals with signals, descriptors and the exit
status.  Nothing here knows about command lines, nor imports the tap.
"""

from __future__ import annotations

import atexit
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from twisted.application.service import IService, Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    maybeDeferred,
)
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IReactorCore,
    IReactorFromThreads,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from twisted_rtmp.factory import RTMPFactory
    from twisted_rtmp.recording import Recordings

#: Open files that the process asks for where its hard limit allows more.
#: Containers set hard limits up to 2^30, and child processes may walk the
#: whole range to close it; 16,384 connections with a recording and a pipe each
#: need about 50,000.
MAX_DESCRIPTORS = 1 << 20

#: What a disk that works has to end its last writes, however long the streams took, in
#: seconds.  With L{ServerLimits.stopSeconds} it stays within the 5 s that are promised.
LAST_SECONDS = 0.25

#: macOS refuses a soft limit above this (OPEN_MAX), whatever its hard limit.
MACOS_DESCRIPTORS = 10_240


class Listener(NamedTuple):
    """
    Something to listen on.

    @ivar description: what people read of it: the endpoint as it was given.
    @ivar endpoint: the endpoint itself.
    @ivar factory: what listens there; without one, the service's.
    """

    description: str
    endpoint: IStreamServerEndpoint
    factory: IProtocolFactory | None = None


class CannotListen(Exception, SystemExit):
    """
    An endpoint did not open, so that there is nothing to serve.

    As an L{Exception} it makes twistd remove its pid file and tell a waiting
    parent; as a L{SystemExit} it then ends the process without a traceback.
    The log has the message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = 1


class IServiceReactor(IReactorCore, IReactorTime):
    """What L{RTMPService} needs of a reactor."""


class RTMPService(Service):
    """
    Listens with one factory on any number of endpoints.

    L{stopService} stops listening, closes every connection, and fires when
    every stream's media is stored.

    @ivar factory: the factory, for its streams and connections.
    @ivar addresses: where it listens, once it does.
    @ivar ingests: where encoders can publish, once they can: the protocol, C{"RTMP"}
        or C{"RTMPS"}, and the TCP port.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IServiceReactor,
        factory: RTMPFactory,
        listeners: Sequence[Listener],
        *,
        recordings: Recordings | None = None,
        relays: Sequence[IService] = (),
        listenFailed: Callable[[], object] | None = None,
    ) -> None:
        """
        @param reactor: the log says that it listens when this one runs.
        @param factory: builds the protocols; it is stopped with the service.
        @param listeners: what to listen on.
        @param relays: of the factory's streams; started with the service, and
            stopped with the factory, so that pushes get all of each stream.
        @param recordings: stopped last, if there are any.
        @param listenFailed: called when an endpoint fails that does not know
            at once; without it the failure is only logged.
        """
        self.factory = factory
        self.addresses: list[IAddress] = []
        self.ingests: list[tuple[str, int]] = []
        self._reactor = reactor
        self._listeners = listeners
        self._recordings = recordings
        self._relays = relays
        self._listenFailed = listenFailed
        self._opening: list[Deferred[None]] = []
        self._ports: list[IListeningPort] = []

    def privilegedStartService(self) -> None:
        """
        Listen, while twistd still has the rights to use low ports.

        @raise CannotListen: an endpoint is not to be had.
        """
        Service.privilegedStartService(self)
        self._listen()

    def startService(self) -> None:
        """
        Listen, unless L{privilegedStartService} has been called.

        @raise CannotListen: an endpoint is not to be had.
        """
        Service.startService(self)
        if not self._opening:
            self._listen()
        for relay in self._relays:
            relay.startService()

    def _listen(self) -> None:
        failures: list[str] = []
        atOnce = True

        def opened(
            port: IListeningPort, description: str, factory: IProtocolFactory | None
        ) -> None:
            self._ports.append(port)
            address = port.getHost()
            self.addresses.append(address)
            if factory is None and isinstance(address, (IPv4Address, IPv6Address)):
                # ssl:443, or haproxy:ssl:443.
                isTLS = "ssl" in description.split(":")[:2]
                protocol = "RTMPS" if isTLS else "RTMP"
                if (protocol, address.port) not in self.ingests:
                    self.ingests.append((protocol, address.port))
            # Who reads the line may act on it: not before the reactor has started
            # and everything that waited for this has been called.
            self._reactor.callWhenRunning(
                self._reactor.callLater, 0, self._logListening, port, description
            )

        def failed(failure: Failure, description: str) -> None:
            if failure.check(CancelledError):
                return
            message = f"{description}: {failure.getErrorMessage()}"
            failures.append(message)
            self._log.critical("Cannot listen on {message}", message=message)
            if not atOnce and self._listenFailed is not None:
                self._listenFailed()

        for description, endpoint, factory in self._listeners:
            opening = maybeDeferred(endpoint.listen, factory or self.factory)
            self._opening.append(
                opening.addCallbacks(
                    opened,
                    failed,
                    callbackArgs=(description, factory),
                    errbackArgs=(description,),
                )
            )
        atOnce = False
        if failures:
            for port in self._ports:
                port.stopListening()
            raise CannotListen("Cannot listen on " + "; ".join(failures))

    def _logListening(self, port: IListeningPort, description: str) -> None:
        if port not in self._ports:
            return  # stopped meanwhile
        address = port.getHost()
        if isinstance(address, IPv4Address):
            where = f"{address.host}:{address.port}"
        elif isinstance(address, IPv6Address):
            where = f"[{address.host}]:{address.port}"
        elif isinstance(address, UNIXAddress):
            where = os.fsdecode(address.name or b"")
        else:
            where = str(address)
        self._log.info(
            "Listening on {where} ({description})", where=where, description=description
        )

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, end every connection and stream, store everything.

        @return: fires when all that is done; it never fails, but logs.
        """
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for opening in self._opening:
            opening.cancel()
        ports = self._ports
        self._opening, self._ports, self.addresses, self.ingests = [], [], [], []
        for step in self._steps(ports, self._reactor.seconds()):
            await self._stopped(step)

    def _stopped(self, stop: Callable[[], Deferred[None] | None]) -> Deferred[None]:
        """Stop something; what goes wrong is logged."""
        stopping: Deferred[None] = maybeDeferred(cast("Any", stop))
        return stopping.addErrback(
            lambda failure: self._log.failure("While stopping:", failure)
        )

    def _steps(
        self, ports: Sequence[IListeningPort], since: float
    ) -> Iterator[Callable[[], Deferred[None] | None]]:
        for port in ports:
            yield port.stopListening
        yield self._stopStreams
        if self._recordings is not None:
            # The streams have waited for the disk already, if it does not answer.
            left = self.factory.limits.stopSeconds - (self._reactor.seconds() - since)
            yield partial(self._recordings.stop, max(left, LAST_SECONDS))

    def _stopStreams(self) -> Deferred[None]:
        """End all streams, then what relays them, and wait for both."""
        stops = [self.factory.stop, *(relay.stopService for relay in self._relays)]
        stopping = DeferredList([self._stopped(stop) for stop in stops])
        return stopping.addCallback(lambda _: None)


class IProcessReactor(IReactorCore, IReactorFromThreads):
    """What L{ServerProcess} needs of a reactor."""


class ServerProcess(Service):
    """
    Makes a process behave as a server should.

    It raises the soft limit of open files, keeps a file-size limit from killing
    the process, and on SIGINT and SIGTERM leaves with status 0 when every
    service has stopped (twistd would die by the signal, which to systemd,
    containers and shells looks like a crash or an interruption).
    """

    _log = Logger()

    def __init__(self, reactor: IProcessReactor) -> None:
        self._reactor = reactor
        self._leaving = False

    def privilegedStartService(self) -> None:
        Service.privilegedStartService(self)
        self._raiseDescriptors()
        self._takeSignals()

    def startService(self) -> None:
        Service.startService(self)
        # Python ignores it since 1.5, an embedding program may not: a write
        # past the limit is to fail with EFBIG instead.
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
        """Leave, with a status that says that something went wrong."""
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
        self._log.info("Received {name}, finishing", name=name)

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
            self._log.warn(
                "The limit of open files stays at {soft}: {error}",
                soft=soft,
                error=error,
            )
        else:
            self._log.info(
                "Raised the limit of open files from {soft} to {wanted}",
                soft=soft,
                wanted=wanted,
            )


def _exitWithFailure() -> None:
    """Replace the status with which the interpreter would end: twistd has none."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
