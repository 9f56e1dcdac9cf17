"""
The server as a Twisted service: it listens, and stops without losing anything.

It is for any process; L{twisted_rtmp.process} has what one needs that is nothing but a
server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from twisted.application.service import IService, MultiService, Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    maybeDeferred,
)
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IReactorCore,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_rtmp.names import peerName
from twisted_rtmp.proxied import proxiedEndpoint

if TYPE_CHECKING:
    from twisted_rtmp.factory import RTMPFactory
    from twisted_rtmp.recording import Recordings

#: The connections that the system accepts before the server gets to them.  Twisted
#: asks for 50, and a second's burst of encoders after a network came back is thousands;
#: the system cuts the number to its own bound (net.core.somaxconn, 4096 on Linux since
#: 5.4, 128 on macOS).
LISTEN_BACKLOG = 1024

#: The time that a working disk has for its last writes, however long the streams took,
#: in seconds.  With L{ServerLimits.stopSeconds} it stays within the 5 s that are
#: promised.
LAST_SECONDS = 0.25


class Listener(NamedTuple):
    """
    An endpoint to listen on.

    @ivar description: the endpoint as it was given, for the log.
    @ivar endpoint: the endpoint itself.
    @ivar factory: the one that listens there; L{None}: the service's.
    """

    description: str
    endpoint: IStreamServerEndpoint
    factory: IProtocolFactory | None = None


def endpointFromString(
    reactor: IReactorCore, description: str
) -> IStreamServerEndpoint:
    """
    Make an endpoint whose backlog is L{LISTEN_BACKLOG}, if it has one and its
    description does not set another.

    @raise ValueError: the description is invalid; the message is one line for the
        person who wrote it.
    """
    try:
        return _withBacklog(reactor, description) or _parsed(reactor, description)
    except Exception as error:  # parsers are plugins, which raise anything
        raise ValueError(_inWords(error)) from error


def _withBacklog(
    reactor: IReactorCore, description: str
) -> IStreamServerEndpoint | None:
    """Make an endpoint with L{LISTEN_BACKLOG}, if its description allows that."""
    if re.search(r"(?<!\\):backlog=", description):
        return None
    try:
        return _parsed(reactor, f"{description}:backlog={LISTEN_BACKLOG}")
    except (TypeError, ValueError):
        return None  # it takes no backlog, had it by position, or is wrong anyway


def _parsed(reactor: IReactorCore, description: str) -> IStreamServerEndpoint:
    kind, _, rest = description.partition(":")
    if kind == "haproxy":
        return proxiedEndpoint(_parsed(reactor, rest))
    endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    return endpoint


def _inWords(error: Exception) -> str:
    """Put an endpoint parser's error into words for the person who wrote it."""
    text = str(error)
    if isinstance(error, LookupError):
        return f"there is nothing with that index or name ({text})"
    if isinstance(error, ImportError):
        return f"{text} (TLS: pip install 'twisted-rtmp[tls]')"
    if isinstance(error, TypeError):
        # Python names the parameters of a function of Twisted's.
        missing = re.findall(r"'(\w+)'", text.partition(" missing ")[2])
        if missing:
            return f"must have a {' and a '.join(missing)}"
    text = re.sub(r"^[\w.]+\(\) ", "", text)
    text = re.sub(r"^Unknown endpoint type: (.*?)\.?$", r"\1 is no endpoint", text)
    text = re.sub(r"^invalid literal for int.*: ", "must be a number: ", text)
    return text.rstrip(".") or type(error).__name__


class CannotListen(Exception, SystemExit):
    """
    The error of an endpoint that does not open, so that there is nothing to serve.

    As an L{Exception} it makes twistd remove its pid file and tell a waiting
    parent; as a L{SystemExit} it then ends the process without a traceback.
    The log has the message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = 1


class IServiceReactor(IReactorCore, IReactorTime):
    """The parts of a reactor that L{RTMPService} needs."""


class RTMPService(MultiService):
    """
    A server that listens on any number of endpoints.

    L{stopService} stops listening, closes every connection, and fires when every
    stream's media is stored.  Its child services are relays of its streams: started
    with it, and stopped together with the streams, so that pushes get all of each
    stream.

    @ivar factory: the factory, for its streams and connections.
    @ivar listeners: the endpoints.
    @ivar recordings: the recordings that are stopped last.
    @ivar addresses: the addresses where it listens, once it does.
    @ivar ingests: where encoders can publish, once they can: the protocol, C{"RTMP"}
        or C{"RTMPS"}, and the TCP port.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IServiceReactor,
        factory: RTMPFactory,
        listeners: Sequence[Listener],
        *,
        recordings: Sequence[Recordings] = (),
        relays: Sequence[IService] = (),
        listenFailed: Callable[[], object] | None = None,
    ) -> None:
        """
        @param reactor: the log says that the server listens once this one runs.
        @param factory: builds the protocols; it is stopped with the service.
        @param listeners: the endpoints to listen on.
        @param recordings: those of the factory's streams; stopped last.
        @param relays: those of the factory's streams; they become child services.
        @param listenFailed: called when an endpoint fails later than at once; without
            it the failure is only logged.
        """
        MultiService.__init__(self)
        self.factory = factory
        self.listeners = listeners
        self.recordings = recordings
        self.addresses: list[IAddress] = []
        self.ingests: list[tuple[str, int]] = []
        self._reactor = reactor
        self._listenFailed = listenFailed
        self._opening: list[Deferred[None]] = []
        self._ports: list[IListeningPort] = []
        for relay in relays:
            relay.setServiceParent(self)

    @property
    def relays(self) -> list[IService]:
        """The services that take streams to other servers and from them."""
        return list(self.services)

    def privilegedStartService(self) -> None:
        """
        Listen, while twistd still has the rights to use low ports.

        @raise CannotListen: an endpoint cannot be opened.
        """
        MultiService.privilegedStartService(self)
        self._listen()

    def startService(self) -> None:
        """
        Listen, unless L{privilegedStartService} has been called.

        @raise CannotListen: an endpoint cannot be opened.
        """
        if not self._opening:
            self._listen()
        MultiService.startService(self)

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
            # A reader of the line may act on it, so it comes once the reactor runs and
            # everything that waited for this has been called.
            self._reactor.callWhenRunning(
                self._reactor.callLater, 0, self._logListening, port, description
            )

        def failed(failure: Failure, description: str) -> None:
            if failure.check(CancelledError):
                return
            message = f"{description}: {failure.getErrorMessage()}"
            failures.append(message)
            self.log.critical("Cannot listen on {message}", message=message)
            if not atOnce and self._listenFailed is not None:
                self._listenFailed()

        for description, endpoint, factory in self.listeners:
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
            return  # it has been stopped since
        self.log.info(
            "Listening on {where} ({description})",
            where=peerName(port.getHost()),
            description=description,
        )

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, end every connection and stream, store everything.

        @return: fires when all that is done; it logs failures and never fails.
        """
        # Not that of MultiService: the children are stopped in their turn.
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
        """Stop something; a failure is logged."""
        stopping: Deferred[None] = maybeDeferred(cast("Any", stop))
        return stopping.addErrback(
            lambda failure: self.log.failure("While stopping:", failure)
        )

    def _steps(
        self, ports: Sequence[IListeningPort], since: float
    ) -> Iterator[Callable[[], Deferred[None] | None]]:
        for port in ports:
            yield port.stopListening
        yield self._stopStreams
        # The streams have waited for the disk already, if it does not answer.
        left = self.factory.limits.stopSeconds - (self._reactor.seconds() - since)
        seconds = max(left, LAST_SECONDS)
        yield partial(
            self._stopAll, [partial(each.stop, seconds) for each in self.recordings]
        )

    def _stopStreams(self) -> Deferred[None]:
        """End all streams, then their relays, and wait for both."""
        return self._stopAll(
            [self.factory.stop, *(relay.stopService for relay in self.relays)]
        )

    def _stopAll(
        self, stops: Sequence[Callable[[], Deferred[None] | None]]
    ) -> Deferred[None]:
        """Stop several things at once, and wait for all of them."""
        stopping = DeferredList([self._stopped(stop) for stop in stops])
        return stopping.addCallback(lambda _: None)
