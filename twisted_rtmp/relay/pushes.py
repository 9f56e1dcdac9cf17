"""Pushes: all live streams of a server published at other servers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from twisted_rtmp.client.limits import ClientLimits
from twisted_rtmp.client.url import RTMPURL
from twisted_rtmp.relay.base import Connect
from twisted_rtmp.relay.push import Push
from twisted_rtmp.relay.states import RelayCounters
from twisted_rtmp.relay.targets import PushTarget

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from twisted_rtmp.live.registry import Registry
    from twisted_rtmp.live.streams import LiveStream


class PushRelays(Service):
    """
    The pushes of a server's streams, each to all targets that want it.

    Where all streams of a target have one address, the first one has it until it ends.

    @ivar targets: the targets.
    @ivar pushes: the pushes that have not ended.
    @ivar total: the figures of those that have ended.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        registry: Registry,
        targets: Iterable[PushTarget | str],
        *,
        connect: Connect | None = None,
        limits: ClientLimits | None = None,
    ) -> None:
        """
        @param targets: as L{PushTarget.parse} reads them.
        @param connect: instead of L{connectRTMP
            <twisted_rtmp.client.connecting.connectRTMP>}, such as that with TLS
            options of one's own.
        @raise InvalidURL: a target is invalid.
        """
        self.targets = [
            PushTarget.parse(target) if isinstance(target, str) else target
            for target in targets
        ]
        self.pushes: list[Push] = []
        self.total = RelayCounters()
        self._reactor = reactor
        self._registry = registry
        self._connect = connect
        self._limits = limits
        # The newest push to each address of each target.
        self._newest: dict[tuple[PushTarget, RTMPURL], Push] = {}

    def startService(self) -> None:
        Service.startService(self)
        self._registry.streamStarted.append(self._streamStarted)
        for stream in list(self._registry.streams.values()):
            self._streamStarted(stream)

    def stopService(self) -> Deferred[None]:
        """
        End all pushes.

        @return: fires when what was queued has been sent, or cannot be.
        """
        Service.stopService(self)
        if self._streamStarted in self._registry.streamStarted:
            self._registry.streamStarted.remove(self._streamStarted)
        return _finished(self.pushes)

    def addTarget(self, target: PushTarget | str) -> PushTarget:
        """
        Push to one more target, also the streams that are live already.

        @raise InvalidURL: it is invalid.
        """
        if isinstance(target, str):
            target = PushTarget.parse(target)
        self.targets.append(target)
        if self.running:
            for stream in list(self._registry.streams.values()):
                self._consider(target, stream)
        return target

    def removeTarget(self, target: PushTarget) -> Deferred[None]:
        """
        Stop pushing to a target.

        @return: fires when what was queued has been sent, or cannot be.
        @raise ValueError: it is not one of the targets.
        """
        self.targets.remove(target)
        return _finished([p for key, p in self._newest.items() if key[0] == target])

    def _streamStarted(self, stream: LiveStream) -> None:
        for target in self.targets:
            self._consider(target, stream)

    def _consider(self, target: PushTarget, stream: LiveStream) -> None:
        """Push a stream to a target, if that wants it and there is room."""
        if not target.wants(stream.application, stream.name):
            return
        url = target.addressOf(stream.application, stream.name)
        present = self._newest.get((target, url))
        if present is not None and not present.ending:
            if present.stream is not stream:
                self.log.warn(
                    "{stream} is not pushed to {url}: {other} is being pushed there",
                    stream=stream.label,
                    url=str(url),
                    other=present.stream.label,
                )
            return
        push = Push(
            self._reactor,
            self._registry,
            stream,
            url,
            connect=self._connect,
            limits=self._limits,
            predecessor=present,
        )
        self._newest[target, url] = push
        self.pushes.append(push)
        push.whenEnded().addCallback(self._ended, target, push)
        push.start()

    def _ended(self, _: None, target: PushTarget, push: Push) -> None:
        """Push a stream that waits for the address, if there is one."""
        self.pushes.remove(push)
        self.total.add(push.counters)
        if self._newest.get((target, push.url)) is push:
            del self._newest[target, push.url]
            if self.running and target.fixed and target in self.targets:
                for stream in list(self._registry.streams.values()):
                    if stream is not push.stream:
                        self._consider(target, stream)


def _finished(pushes: Sequence[Push]) -> Deferred[None]:
    """
    Finish pushes.

    @return: fires when all have ended.
    """
    finishing = DeferredList([push.finish() for push in list(pushes)])
    return finishing.addCallback(lambda _: None)
