"""
The assembly of a server from its settings.

It decides nothing: each setting becomes an argument of the class that acts on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from twisted.application.service import IService, MultiService
from twisted.logger import Logger

from twisted_rtmp.auth import AllowList
from twisted_rtmp.disk import IDiskReactor
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.fields import BadField
from twisted_rtmp.freeing import IFreeingReactor, MemoryFreeing
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.live.policy import Policy
from twisted_rtmp.live.registry import Registry
from twisted_rtmp.multitrack.resource import MULTITRACK_PATH, MultitrackResource
from twisted_rtmp.pipes import IPipeReactor, PipeSinks, pipePlaces
from twisted_rtmp.process import IProcessReactor, ServerProcess
from twisted_rtmp.recording import Recordings
from twisted_rtmp.recording.recordings import recordingPlaces
from twisted_rtmp.relay import Origin, PullRelay, PushRelays
from twisted_rtmp.service import (
    IServiceReactor,
    Listener,
    RTMPService,
    endpointFromString,
)
from twisted_rtmp.settings import (
    ApplicationSettings,
    HTTPSettings,
    RecordingSettings,
    RelaySettings,
    Settings,
)
from twisted_rtmp.web import HTTPSite

if TYPE_CHECKING:
    from twisted_rtmp.interfaces import ISinkFactory


_log = Logger()


class IServerReactor(
    IFreeingReactor, IProcessReactor, IServiceReactor, IDiskReactor, IPipeReactor
):
    """The parts of a reactor that a whole server needs."""


def checkSurroundings(settings: Settings, reactor: IServerReactor) -> None:
    """
    Check what only the machine can tell: endpoints, and folders of recordings.

    Nothing is opened or made.

    @raise BadField: the server could not run so.
    """
    for where, descriptions in (
        ("listen", settings.listen),
        ("http.listen", settings.http.listen),
    ):
        for description in descriptions:
            _checkEndpoint(reactor, description, where)
    for application in settings.everyApplication():
        if application.recording is not None:
            application.recording.checkDirectory()


def _checkEndpoint(reactor: IServerReactor, description: str, where: str) -> None:
    try:
        endpointFromString(reactor, description)
    except ValueError as error:
        raise BadField(where, f"{description}: {error}") from error


def makeService(
    settings: Settings, reactor: IServerReactor, *, isDaemon: bool = False
) -> IService:
    """
    Make a server, and what a process of its own needs around it.

    @param isDaemon: whether the process runs in the background.
    @raise ValueError: an endpoint is invalid; see L{checkSurroundings}.
    """
    process = ServerProcess(reactor, isDaemon=isDaemon)
    server = makeServer(settings, reactor, listenFailed=process.fail)
    if settings.once:
        server.factory.streamEnded.append(lambda stream: process.leave())
    service = MultiService()
    budget = server.factory.registry.budget
    freeing = MemoryFreeing(reactor, lambda: budget.used)
    # The server last: when it listens, all is ready.
    parts: tuple[IService, ...] = (process, freeing, server)
    for part in parts:
        part.setServiceParent(service)
    return service


def makeServer(
    settings: Settings,
    reactor: IServerReactor,
    *,
    listenFailed: Callable[[], object] | None = None,
) -> RTMPService:
    """
    Make a server alone, for a process that has other services too.

    @param listenFailed: see L{RTMPService}.
    @raise ValueError: an endpoint is invalid; see L{checkSurroundings}.
    """
    policies = _Policies(reactor, settings.default.limits)
    registry = Registry(
        reactor,
        policies.make(settings.default),
        {name: policies.make(each) for name, each in settings.applications.items()},
        latency=settings.latency,
    )
    if settings.allowed:
        registry.guards.append(AllowList(settings.allowed))
    site = HTTPSite(
        registry,
        origins=settings.http.origins,
        hosts=settings.http.hosts,
        trustedProxies=settings.http.trustedProxies,
    )
    server = RTMPService(
        reactor,
        RTMPFactory(reactor, registry=registry),
        [
            *(
                Listener(each, endpointFromString(reactor, each))
                for each in settings.listen
            ),
            *(
                Listener(f"HTTP, {each}", endpointFromString(reactor, each), site)
                for each in settings.http.listen
            ),
        ],
        recordings=list(policies.recordings.values()),
        relays=_makeRelays(settings.relays, reactor, registry),
        listenFailed=listenFailed,
    )
    _addMultitrack(settings.http, site, server)
    return server


class _Policies:
    """
    The policies of a server's applications.

    @ivar recordings: one for all applications that record alike.
    """

    def __init__(self, reactor: IServerReactor, limits: ServerLimits) -> None:
        """@param limits: the server's."""
        self.recordings: dict[RecordingSettings, Recordings] = {}
        self._reactor = reactor
        share = limits.addresses.recordingShare
        self._recordingPlaces = recordingPlaces(limits.recordings, share)
        self._pipePlaces = pipePlaces(limits.pipes, share)

    def make(self, settings: ApplicationSettings) -> Policy:
        """Make the policy of one application."""
        authorizer = settings.authorizer
        if settings.streamKeys:
            authorizer = AllowList(streamKeys=settings.streamKeys)
            _tellPublicKeys(settings.streamKeys)
        return Policy(
            authorizer=authorizer,
            sinkFactories=self._sinkFactories(settings),
            takeOver=settings.takeOver,
            grace=settings.grace,
            gopCache=settings.gopCache,
            limits=settings.limits,
        )

    def _sinkFactories(self, settings: ApplicationSettings) -> list[ISinkFactory]:
        sinks: list[ISinkFactory] = []
        recording = settings.recording
        if recording is not None:
            if recording not in self.recordings:
                self.recordings[recording] = Recordings(
                    self._reactor, recording, places=self._recordingPlaces
                )
            sinks.append(self.recordings[recording])
        if settings.pipe is not None:
            sinks.append(
                PipeSinks(self._reactor, settings.pipe, places=self._pipePlaces)
            )
        return [*sinks, *settings.sinkFactories]


def _tellPublicKeys(keys: Mapping[str, str]) -> None:
    """Warn of keys that are their streams' names."""
    public = sum(key == name for key, name in keys.items())
    if public:
        _log.warn(
            "{public} of {count} stream keys are no secret: their streams are known"
            " by them, to players and in file names; a second word in the"
            " --stream-key-file is a name of its own",
            public=public,
            count=len(keys),
        )


def _makeRelays(
    settings: RelaySettings, reactor: IServerReactor, registry: Registry
) -> list[IService]:
    """Make what takes streams to other servers and from them."""
    relays: list[IService] = [
        PullRelay(reactor, registry, application, name, url)
        for (application, name), url in settings.pulls.items()
    ]
    if settings.origin is not None:
        relays.append(
            Origin(
                reactor,
                registry,
                settings.origin,
                idleSeconds=settings.originIdleSeconds,
                maxPulls=settings.originPulls,
                pullShare=settings.originPullShare,
            )
        )
    if settings.pushes:
        relays.append(PushRelays(reactor, registry, settings.pushes))
    return relays


def _addMultitrack(settings: HTTPSettings, site: HTTPSite, server: RTMPService) -> None:
    """Offer several tracks to encoders, if the operator does."""
    if settings.multitrack is not None:
        resource = MultitrackResource(
            server.factory.registry,
            settings.multitrack,
            lambda: server.ingests,
            site.origins,
        )
        site.root.putChild(MULTITRACK_PATH, resource)
