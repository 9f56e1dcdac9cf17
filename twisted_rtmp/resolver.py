"""Look-ups of host names, which do not keep a process that is about to end."""

from __future__ import annotations

from collections.abc import Sequence
from socket import (
    AF_INET,
    AF_INET6,
    AF_UNSPEC,
    SOCK_DGRAM,
    SOCK_STREAM,
    gaierror,
    getaddrinfo,
)
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
)
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from twisted_rtmp.disk.thread import DaemonThread

if TYPE_CHECKING:
    from twisted.internet.interfaces import (
        IAddress,
        IReactorThreads,
        IResolutionReceiver,
    )
    from twisted.python.failure import Failure

#: The number of look-ups at the same time.  Each takes some milliseconds, or half a
#: minute if no name server answers; further hosts have to wait then.
RESOLVER_THREADS = 16

_FAMILIES: dict[Any, Any] = {IPv4Address: AF_INET, IPv6Address: AF_INET6}
_ADDRESSES: dict[Any, Any] = {family: each for each, family in _FAMILIES.items()}
_KINDS: dict[str, Any] = {"TCP": SOCK_STREAM, "UDP": SOCK_DGRAM}

#: The arguments of a look-up: host, port, family and kind of socket.
_Query = tuple[str, int, Any, Any]


class _ResolverPool(ThreadPool):
    """Threads that do not keep the process alive if no name server ever answers."""

    threadFactory = DaemonThread

    def __init__(self) -> None:
        super().__init__(0, RESOLVER_THREADS, "resolver")


@implementer(IHostResolution)
class _Resolution:
    """One host that is looked up."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Do nothing: the system's look-up cannot be cancelled."""


@implementer(IHostnameResolver)
class HostResolver:
    """
    The system's resolver, in threads of its own.

    A reactor that stops waits for its own threads, and so for a name server that does
    not answer.  A host is looked up once at a time, however often it is asked for; an
    address is not looked up at all.
    """

    def __init__(self, reactor: IReactorThreads) -> None:
        self._reactor = reactor
        self._pool = _ResolverPool()
        self._pool.start()
        self._waiting: dict[_Query, list[IResolutionReceiver]] = {}

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See L{IHostnameResolver}."""
        resolution = cast("IHostResolution", _Resolution(hostName))
        resolutionReceiver.resolutionBegan(resolution)
        types = tuple(addressTypes or _FAMILIES)
        family = _FAMILIES[types[0]] if len(types) == 1 else AF_UNSPEC
        query = hostName, portNumber, family, _KINDS[transportSemantics]
        if isIPAddress(hostName) and IPv4Address in types:
            _answer([resolutionReceiver], [_found(AF_INET, query)])
        elif isIPv6Address(hostName) and "%" not in hostName and IPv6Address in types:
            _answer([resolutionReceiver], [_found(AF_INET6, query)])
        elif query in self._waiting:
            self._waiting[query].append(resolutionReceiver)
        else:
            self._waiting[query] = [resolutionReceiver]
            looking = deferToThreadPool(self._reactor, self._pool, getaddrinfo, *query)
            looking.addErrback(_nothing).addCallback(self._lookedUp, query)
        return resolution

    def _lookedUp(self, found: list[Any], query: _Query) -> None:
        _answer(self._waiting.pop(query), found)


def _found(family: Any, query: _Query) -> tuple[Any, ...]:  # noqa: ANN401
    """Give what L{getaddrinfo} would for an address."""
    return family, query[3], 0, "", query[:2]


def _nothing(failure: Failure) -> list[Any]:
    """Find nothing: the name has no address, or could not be one."""
    failure.trap(gaierror, UnicodeError, ValueError)
    return []


def _answer(receivers: Sequence[IResolutionReceiver], found: list[Any]) -> None:
    """
    Tell those that wait for a host.

    @param found: as of L{getaddrinfo}.
    """
    for receiver in receivers:
        for family, kind, _, _, address in found:
            if family in _ADDRESSES:
                semantics = "TCP" if kind == SOCK_STREAM else "UDP"
                receiver.addressResolved(_ADDRESSES[family](semantics, *address))
        receiver.resolutionComplete()


def installResolver(reactor: object) -> None:
    """Let a reactor use a L{HostResolver}, if it takes a resolver at all."""
    if IReactorPluggableNameResolver.providedBy(reactor):
        resolver = HostResolver(cast("IReactorThreads", reactor))
        reactor.installNameResolver(cast("IHostnameResolver", resolver))
