"""The factory: builds a protocol for each connection over RTMP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from twisted_rtmp.interfaces import IAuthorizer, ISinkFactory
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.live.addresses import hostOf
from twisted_rtmp.live.connections import Connections
from twisted_rtmp.live.counters import Counters
from twisted_rtmp.live.pacing import LATENCY_SECONDS
from twisted_rtmp.live.player import Player
from twisted_rtmp.live.policy import Policy, TakeOver
from twisted_rtmp.live.registry import Registry
from twisted_rtmp.live.streams import LiveStream
from twisted_rtmp.protocol import RTMPProtocol
from twisted_rtmp.reconnect import checkReconnect

__all__ = ["CHUNK_SIZE", "RTMPFactory"]

#: The chunk size that is announced and sent, in bytes.  ffmpeg takes it over
#: for its own sending; large chunks cost both ends least.  Precedents:
#: gortmplib 65536, node-media-server 65535, SRS 60000.
CHUNK_SIZE = 65_536


class RTMPFactory(Factory[RTMPProtocol]):
    """
    Builds a protocol for each connection, all of one L{Registry}.

    Its own part is RTMP; what an application asks of a server most often is at hand
    here too, and is the registry's.

    @ivar registry: the live streams, and the connections of every kind.
    @ivar chunkSize: of what is sent, in bytes.
    """

    log = Logger()
    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        authorizer: IAuthorizer | None = None,
        sinkFactories: Sequence[ISinkFactory] = (),
        limits: ServerLimits | None = None,
        takeOver: TakeOver = TakeOver.WHEN_SILENT,
        grace: float = 0.0,
        gopCache: bool = True,
        policies: Mapping[str, Policy] | None = None,
        latency: float = LATENCY_SECONDS,
        chunkSize: int = CHUNK_SIZE,
        registry: Registry | None = None,
    ) -> None:
        """
        See L{Policy} for C{authorizer}, C{sinkFactories}, C{limits}, C{takeOver},
        C{grace} and C{gopCache}: together they are that of every application that has
        none of its own.

        @param policies: those of applications, by name.
        @param latency: how long a message may wait, in seconds, to be handled together
            with others when there is much to do; 0 passes each on at once.
        @param chunkSize: of what is sent, in bytes.
        @param registry: shared with other factories; it has a policy already, and the
            arguments of one have no effect then.
        """
        if registry is None:
            policy = Policy(
                authorizer=authorizer,
                sinkFactories=tuple(sinkFactories),
                takeOver=takeOver,
                grace=grace,
                gopCache=gopCache,
                limits=limits or ServerLimits(),
            )
            registry = Registry(reactor, policy, policies, latency=latency)
        self.registry = registry
        self.chunkSize = chunkSize

    def buildProtocol(self, addr: IAddress | None) -> RTMPProtocol | None:
        if not self.registry.connections.admit(hostOf(addr)):
            return None
        protocol = RTMPProtocol(self.registry, addr, chunkSize=self.chunkSize)
        protocol.factory = self
        return protocol

    def requestReconnect(self, tcUrl: str = "", description: str = "") -> int:
        """
        Ask all connected peers that obey it to reconnect, as before this server stops;
        newcomers are taken as before, and all are served until they leave.

        Those that did not say in C{connect} that they obey are not asked: their number
        goes to the log.  Players over HTTP have no such thing.

        @param tcUrl: see L{RTMPProtocol.requestReconnect}.
        @param description: the same.
        @return: how many were asked.
        @raise UsageError: the address or the description cannot be sent.
        """
        checkReconnect(tcUrl, description)
        asked = unable = 0
        for connection in self.registry.connections:
            if isinstance(connection, RTMPProtocol):
                if connection.requestReconnect(tcUrl, description):
                    asked += 1
                else:
                    unable += 1
        self.log.info(
            "asked {asked} peers to reconnect; {unable} others did not announce that"
            " they support it",
            asked=asked,
            unable=unable,
        )
        return asked

    # The registry's

    @property
    def clock(self) -> IReactorTime:
        """See L{Registry.clock}."""
        return self.registry.clock

    @property
    def limits(self) -> ServerLimits:
        """See L{Registry.limits}."""
        return self.registry.limits

    @property
    def connections(self) -> Connections:
        """See L{Registry.connections}."""
        return self.registry.connections

    @property
    def counters(self) -> Counters:
        """See L{Registry.counters}."""
        return self.registry.counters

    @property
    def streams(self) -> Mapping[tuple[str, str], LiveStream]:
        """See L{Registry.streams}."""
        return self.registry.streams

    @property
    def streamStarted(self) -> list[Callable[[LiveStream], None]]:
        """See L{Registry.streamStarted}."""
        return self.registry.streamStarted

    @property
    def streamEnded(self) -> list[Callable[[LiveStream], None]]:
        """See L{Registry.streamEnded}."""
        return self.registry.streamEnded

    @property
    def playersChanged(self) -> list[Callable[[str, str, int], None]]:
        """See L{Registry.playersChanged}."""
        return self.registry.playersChanged

    def players(self, application: str, name: str) -> list[Player]:
        """See L{Registry.players}."""
        return self.registry.players(application, name)

    def stop(self) -> Deferred[None]:
        """See L{Registry.stop}."""
        return self.registry.stop()
