"""
Push: live streams published at other servers.

Imports the client and players; the factory is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from twisted_rtmp.client.errors import ClientError, InvalidURL
from twisted_rtmp.client.limits import ClientLimits
from twisted_rtmp.client.protocol import CHUNK_SIZE
from twisted_rtmp.client.streams import Publication
from twisted_rtmp.client.url import RTMPURL
from twisted_rtmp.limits import QueueLimits
from twisted_rtmp.live.packaging import Packaging, RTMPPackaging
from twisted_rtmp.live.players import PlayedStream, Player
from twisted_rtmp.relay.base import Connect, Relay, RelayCounters, RelayState

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from twisted_rtmp.client.protocol import RTMPClient
    from twisted_rtmp.live.registry import Registry
    from twisted_rtmp.live.streams import LiveStream

#: How a player's messages are written until the target has said its stream id: nearly
#: all servers count from 1.
USUAL_PACKAGING = RTMPPackaging(1, CHUNK_SIZE, setDataFrame=True)

#: What stands for a stream's application and name in a target.
_APPLICATION = "{app}"
_STREAM = "{stream}"


@dataclass(frozen=True)
class PushTarget:
    """
    Where streams are pushed to, and which.

    @ivar url: the address; C{{app}} and C{{stream}} in its path stand for the
        stream's own.  Without a stream's name it gets the stream's own, too.
    @ivar pattern: which streams, as C{application/name} with C{*} for any text.
    """

    url: RTMPURL
    pattern: str = "*"

    @classmethod
    def parse(cls, text: str) -> PushTarget:
        """
        Read C{URL} or C{APP/STREAM=URL}.

        @raise InvalidURL: the URL is none.
        """
        pattern, separator, rest = text.partition("=")
        if separator and "://" not in pattern:
            if "/" not in pattern:
                raise InvalidURL("what stands before = is APP/STREAM, such as live/*")
            target = cls(RTMPURL.parse(rest), pattern)
        else:
            target = cls(RTMPURL.parse(text))
        url = target.url
        if "{" in url.authority + url.username + url.password:
            raise InvalidURL("{app} and {stream} have their place in the path")
        if not url.application:
            raise InvalidURL("there is no application in the URL")
        return target

    @property
    def fixed(self) -> bool:
        """Whether all streams would go to one address."""
        url = self.url
        return bool(url.name) and _STREAM not in url.application + url.name

    def wants(self, application: str, name: str) -> bool:
        """Whether a stream is to be pushed there."""
        return fnmatchcase(f"{application}/{name}", self.pattern)

    def addressOf(self, application: str, name: str) -> RTMPURL:
        """Where a stream is pushed to."""
        url = self.url

        def filled(text: str) -> str:
            # In one pass: a stream may be called {app}.
            parts = text.split(_STREAM)
            return name.join(part.replace(_APPLICATION, application) for part in parts)

        return replace(
            url,
            application=filled(url.application),
            name=filled(url.name) if url.name else name,
        )


class PushedPlayer(Player):
    """The play of one stream for a push."""

    def __init__(
        self,
        push: Push,
        packaging: Packaging,
        name: str,
        since: float,
        limits: QueueLimits,
    ) -> None:
        super().__init__(PushOutlet(push), packaging, name, since, limits=limits)
        self._push = push

    def end(self, now: float) -> None:
        super().end(now)
        self._push.sourceEnded()


class PushOutlet:
    """The way from a push's player to the target, as far as that is there."""

    def __init__(self, push: Push) -> None:
        self._push = push

    @property
    def peer(self) -> str:
        """The target's address, for log lines."""
        return self._push.peer

    @property
    def congested(self) -> bool:
        """Whether the target takes nothing for now."""
        publication = self._push.publication
        return publication is None or publication.congested

    def writeMedia(self, data: bytes) -> None:
        """Send to the target."""
        publication = self._push.publication
        if publication is not None:
            publication.writeMedia(data)

    def streamStarted(self, player: Player, stream: PlayedStream, again: bool) -> None:
        """The target learns of the stream by what is published."""

    def streamEnded(self, player: Player) -> None:
        """All has been handed over: end the publication behind it."""
        self._push.complete()

    def abort(self, why: str) -> None:
        """The target is too far behind: publish again from the current GOP on."""
        self._push.startAgain(why)


class Push(Relay):
    """
    One live stream pushed to one target.

    The player queues from the stream's beginning, as long as the target has not
    accepted it.  When a publication is lost, a new player begins with the headers and
    the current GOP, and queues for the next one.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        registry: Registry,
        stream: LiveStream,
        url: RTMPURL,
        connect: Connect | None = None,
        limits: ClientLimits | None = None,
        predecessor: Push | None = None,
    ) -> None:
        """
        See L{Relay} for the other arguments.

        @param predecessor: what still publishes at the same address.
        """
        super().__init__(
            reactor,
            registry,
            url,
            f"push of {stream.label} to {url}",
            connect,
            limits,
            public=(stream.name, stream.application),
        )
        self.stream = stream
        self.publication: Publication | None = None
        self._predecessor = predecessor
        self._giveUpCall: IDelayedCall | None = None
        self._streamEnded = False
        self._complete = False
        self._closing = False
        self._stale = False
        self._reason = ""
        self._player = self._newPlayer()

    def _newPlayer(self) -> PushedPlayer:
        publication = self.publication
        return PushedPlayer(
            self,
            USUAL_PACKAGING if publication is None else publication.packaging,
            self.stream.name,
            self._clock.seconds(),
            self.stream.policy.limits.playerQueue,
        )

    @property
    def ending(self) -> bool:
        """Whether nothing more comes: its stream has ended, or it was told to."""
        return self._streamEnded

    @property
    def counters(self) -> RelayCounters:
        counters = replace(self._counters)
        _count(counters, self._player)
        return counters

    kind = "push"

    @property
    def application(self) -> str:
        """The live stream's application."""
        return self.stream.application

    @property
    def plays(self) -> tuple[str, ...]:
        return (self.stream.label,)

    # Its life

    def start(self) -> None:
        self._join()
        super().start()

    def _join(self) -> None:
        self.registry.play(self.stream.application, self.stream.name, self._player)

    def finish(self) -> Deferred[None]:
        """
        End the push, though the stream goes on: send what it has had so far.

        @return: fires when that is done, or cannot be.
        """
        player = self._player
        if not self._streamEnded:
            group = player.group
            if group is not None:
                group.flush()
            self.registry.stopPlaying(player)
            player.end(self._clock.seconds())
        self.close()
        return self.whenEnded()

    def sourceEnded(self) -> None:
        """The stream is over: what is queued is still sent, for a while."""
        self._streamEnded = True
        self.registry.stopPlaying(self._player)
        if self._complete or self.ended:
            return
        if not self._worthWaiting():
            self._giveUp()
            return
        self._giveUpCall = self._clock.callLater(
            self.registry.limits.drainSeconds, self._giveUp
        )

    def _worthWaiting(self) -> bool:
        """Whether anything of a stream that has ended can still be sent."""
        if self.publication is not None:
            return True
        if not self._player.queue:
            return False
        return not (self._closing and self.state is RelayState.WAITING)

    def _giveUp(self) -> None:
        """The rest does not get to the target any more."""
        self._giveUpCall = None
        if self._player.queue:
            self.log.warn(
                "{relay}: {count} messages are lost, since the stream has ended and"
                " the target does not take them",
                relay=self.label,
                count=len(self._player.queue),
            )
            self._player.queue.loseAll()
        self.abort()

    def close(self) -> None:
        # The streams end at the same time, and what is queued is to be sent first.
        self._closing = True
        if self._streamEnded and not self._worthWaiting():
            self._giveUp()

    def over(self) -> None:
        if self._giveUpCall is not None:
            self._giveUpCall.cancel()
            self._giveUpCall = None
        self.registry.stopPlaying(self._player)

    def done(self) -> bool:
        return self._complete or (self._streamEnded and not self._worthWaiting())

    # What is relayed

    async def goOn(self) -> None:
        if self._predecessor is not None:
            self._enter(RelayState.WAITING, "what was published there is being ended")
            await self._predecessor.whenEnded()
            self._predecessor = None
        await super().goOn()

    async def relay(self, client: RTMPClient) -> ClientError | None:
        publication = await client.publish()
        self.accepted(RelayState.RELAYING)
        self._reason = ""
        self.publication = publication
        publication.drained = self._drained
        player = self._replacePlayer() if self._stale else self._player
        if player.packaging != publication.packaging:
            player.repackage(publication.packaging)
        player.drain()
        return await publication.whenEnded()

    def _drained(self) -> None:
        self._player.drain()

    def mayMove(self) -> bool:
        return not self._streamEnded

    def leaving(self) -> None:
        """What comes from now on waits for the next publication."""
        self.left()

    def left(self) -> None:
        published, self.publication = self.publication, None
        if published is not None and not self._complete:
            self._replacePlayer()

    def _replacePlayer(self) -> PushedPlayer:
        """Start again as a new player does: with the headers and the current GOP."""
        self._stale = False
        old, self._player = self._player, self._newPlayer()
        self.registry.stopPlaying(old)
        if not self._streamEnded:
            self._join()
        old.queue.loseAll(successor=self._player.queue)
        _count(self._counters, old)
        return self._player

    # For its outlet

    def complete(self) -> None:
        """The player has handed all over: end the publication behind it."""
        if self.publication is not None:
            self._complete = True
            self.publication.close()

    def startAgain(self, why: str) -> None:
        """The target is too far behind: publish again from the current GOP on."""
        if self._client is not None and self.publication is not None:
            self._reason = why
            self._client.abort()
        else:
            self._stale = True

    def reason(self) -> str:
        return self._reason


def _count(counters: RelayCounters, player: Player) -> None:
    """Add the figures of a player."""
    counters.messages += player.sent
    counters.size += player.sentBytes
    counters.dropped += player.dropped
    counters.droppedSize += player.droppedBytes


class PushRelays(Service):
    """
    Pushes the streams of a server to targets, each to all that want it.

    Where all streams of a target have one address, the first one has it until it ends.

    @ivar targets: where to.
    @ivar pushes: those that have not ended.
    @ivar total: what those came to that have ended.
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
        @raise InvalidURL: a target is none.
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
        Push nothing more.

        @return: fires when what was queued has been sent, or cannot be.
        """
        Service.stopService(self)
        if self._streamStarted in self._registry.streamStarted:
            self._registry.streamStarted.remove(self._streamStarted)
        return _finished(self.pushes)

    def addTarget(self, target: PushTarget | str) -> PushTarget:
        """
        Push to a further target, also what is live already.

        @raise InvalidURL: it is none.
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
        Push to a target no longer.

        @return: fires when what was queued has been sent, or cannot be.
        @raise ValueError: it is not there.
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
                    "{stream} is not pushed to {url}, where {other} is pushed to",
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
        """There is room at an address: another stream may wait for it."""
        self.pushes.remove(push)
        self.total.add(push.counters)
        if self._newest.get((target, push.url)) is push:
            del self._newest[target, push.url]
            if self.running and target.fixed and target in self.targets:
                for stream in list(self._registry.streams.values()):
                    if stream is not push.stream:
                        self._consider(target, stream)


def _finished(pushes: Sequence[Push]) -> Deferred[None]:
    """Finish them; fires when all have ended."""
    finishing = DeferredList([push.finish() for push in list(pushes)])
    return finishing.addCallback(lambda _: None)
