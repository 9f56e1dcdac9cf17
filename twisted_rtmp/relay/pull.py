"""Pull: a stream of another server, published here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from twisted_rtmp.client.errors import ClientError, InvalidURL
from twisted_rtmp.client.limits import ClientLimits
from twisted_rtmp.client.streams import Subscription
from twisted_rtmp.client.url import RTMPURL
from twisted_rtmp.interfaces import IMediaSink
from twisted_rtmp.live.decisions import Undecided
from twisted_rtmp.live.directory import NameTaken
from twisted_rtmp.names import printable
from twisted_rtmp.relay.base import Connect, Relay
from twisted_rtmp.relay.states import RelayCounters, RelayState

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from twisted_rtmp.client.protocol import RTMPClient
    from twisted_rtmp.live.registry import Registry
    from twisted_rtmp.live.streams import LiveStream
    from twisted_rtmp.wire.messages import Message

#: The time that a stream waits for its source when that has asked the pull to move, in
#: seconds: the next connection is there already.  An origin that has nothing of the
#: stream yet must get its encoder first.
MOVE_SECONDS = 10.0


@implementer(IMediaSink)
class Pull(Relay):
    """
    A stream of another server, and the publisher of a live stream here.

    @ivar name: the live stream's name.
    @ivar live: the live stream, while there is one.
    @ivar mediaReceived: takes a message; the live stream's own method while there is
        one, since another method would be one call more for each message.
    """

    mediaReceived: Callable[[Message], None]

    def __init__(
        self,
        reactor: IReactorTime,
        registry: Registry,
        application: str,
        name: str,
        url: RTMPURL,
        *,
        connect: Connect | None = None,
        limits: ClientLimits | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        """
        See L{Relay} for the other arguments.

        @param properties: added to those of C{connect}.
        """
        label = printable(f"{application}/{name}")
        super().__init__(
            reactor,
            registry,
            url,
            f"pull of {label} from {url}",
            connect,
            limits,
            properties=properties,
        )
        self._application = application
        self.name = name
        self.live: LiveStream | None = None
        self.mediaReceived = self._firstReceived
        self._subscription: Subscription | None = None
        self._paused = False
        # Messages that were received while the name was being claimed.
        self._unclaimed: list[Message] = []
        # The live stream's figures when this became its publisher.
        self._before = 0, 0

    @property
    def counters(self) -> RelayCounters:
        live = self.live
        return self._counters if live is None else self._countersWith(live)

    def _countersWith(self, live: LiveStream) -> RelayCounters:
        """Add what the live stream has received."""
        received = live.ledger.received
        messages, payloadBytes = self._before
        return replace(
            self._counters,
            messages=self._counters.messages + received.messages - messages,
            relayedBytes=self._counters.relayedBytes + received.size - payloadBytes,
        )

    kind = "pull"

    @property
    def application(self) -> str:
        """The live stream's application."""
        return self._application

    @property
    def publishes(self) -> tuple[str, ...]:
        return () if self.live is None else (self.live.label,)

    # Relaying

    def whyNotNow(self) -> str:
        present = self.registry.streams.get((self.application, self.name))
        if present is None or present.publisher is None:
            return ""
        return f"{present.publisher.peer} publishes it here"

    async def relay(self, client: RTMPClient) -> ClientError | None:
        client.pacer = self.registry.pacer
        self._paused = False
        subscription = await client.play(None, self)
        self._subscription = subscription
        if self._acceptedAt is None:
            self.accepted(RelayState.EXPECTING)
        if self._paused:
            subscription.pauseProducing()
        if self._whyLeft:
            subscription.close()
        return await subscription.whenEnded()

    def attemptEnded(self) -> None:
        self._unpublish()
        self._subscription = None

    def _firstReceived(self, message: Message) -> None:
        """Claim the name, and publish there."""
        if self._whyLeft:
            return
        self._unclaimed.append(message)
        if len(self._unclaimed) > 1:
            return
        claim = Deferred.fromCoroutine(self._claim())
        if not claim.called:
            # What the source sends meanwhile waits in its connection.
            self.pauseProducing()
            claim.addBoth(self._claimed)

    def _claimed(self, failure: Failure | None) -> None:
        """Read on: the claim has been decided."""
        if failure is not None:
            self._failed(failure)
        self.resumeProducing()

    async def _claim(self) -> None:
        """Get the name, and publish what has been received."""
        try:
            await self.registry.claim(self.application, self.name)
        except (NameTaken, Undecided):
            live = None
        else:
            live = self.registry.publish(self.application, self.name, self)
        unclaimed, self._unclaimed = self._unclaimed, []
        if live is None:
            self._leave("another publisher has the name")
            return
        self._begin(live)
        if self.live is live:
            for message in unclaimed:
                live.messageReceived(message)

    def _begin(self, live: LiveStream) -> None:
        """Become the publisher of the live stream."""
        if self._stopping:
            # A callback of the stream's start has stopped this pull.
            self.registry.unpublish(live, self)
            return
        if self._acceptedAt is None:
            self.accepted(RelayState.RELAYING)
        else:
            self._enter(RelayState.RELAYING)
        received = live.ledger.received
        self._before = received.messages, received.size
        self.live = live
        self.mediaReceived = live.messageReceived

    def streamEnded(self) -> None:
        """End the live stream: no message follows."""
        self._unpublish()

    def _unpublish(self) -> None:
        live, self.live = self.live, None
        if live is not None:
            self.mediaReceived = self._firstReceived
            self._counters = self._countersWith(live)
            # While it moves, the players stay and notice nothing.
            self.registry.unpublish(live, self, MOVE_SECONDS if self.moving else 0.0)

    def _leave(self, why: str) -> None:
        """End the subscription for a reason."""
        self._whyLeft = why
        if self._subscription is not None:
            self._subscription.close()

    # For the live stream

    @property
    def heard(self) -> float:
        """The time when audio or video came last, by the registry's clock."""
        now = self.registry.clock.seconds()
        if self._subscription is None:
            return now
        return now - (self._clock.seconds() - self._subscription.heard)

    @property
    def unread(self) -> bool:
        """Tell whether bytes of the source have come that nobody has looked at yet."""
        return self._client is not None and self._client.unread

    def unpaid(self) -> int:
        """Give 0: its log lines have no bound."""
        return 0

    @property
    def connection(self) -> object:
        """An object of its own: it shares its connection with no other publisher."""
        return self

    def pauseProducing(self) -> None:
        """Read nothing from the source for now."""
        self._paused = True
        if self._subscription is not None:
            self._subscription.pauseProducing()

    def resumeProducing(self) -> None:
        """Go on reading."""
        self._paused = False
        if self._subscription is not None:
            self._subscription.resumeProducing()

    def takenOver(self) -> None:
        """Leave the source: another publisher has the name now."""
        self._unpublish()
        self._leave("another publisher has taken the name over")


class PullRelay(Service):
    """
    A service that keeps a stream of another server live here.

    @ivar application: the live stream's application.
    @ivar streamName: the live stream's name; a service's C{name} is something else.
    @ivar url: the stream's address at the other server.
    @ivar pull: the relay, while the service runs.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        registry: Registry,
        application: str,
        name: str,
        url: RTMPURL | str,
        *,
        connect: Connect | None = None,
        limits: ClientLimits | None = None,
    ) -> None:
        """
        @param application: of the live stream here.
        @param name: of the live stream here.
        @param url: the stream's address at the other server.
        @param connect: instead of L{connectRTMP
            <twisted_rtmp.client.connecting.connectRTMP>}.
        @raise InvalidURL: the address is invalid, or has no stream's name.
        """
        self.application = application
        self.streamName = name
        self.url = RTMPURL.parse(url) if isinstance(url, str) else url
        if not self.url.name:
            raise InvalidURL("the URL must have a stream's name")
        self.pull: Pull | None = None
        self._reactor = reactor
        self._registry = registry
        self._connect = connect
        self._limits = limits

    def startService(self) -> None:
        Service.startService(self)
        self.pull = Pull(
            self._reactor,
            self._registry,
            self.application,
            self.streamName,
            self.url,
            connect=self._connect,
            limits=self._limits,
        )
        self.pull.start()

    def stopService(self) -> Deferred[None]:
        """
        End the stream here, and the connection.

        @return: fires when both have ended.
        """
        Service.stopService(self)
        pull, self.pull = self.pull, None
        return succeed(None) if pull is None else pull.stop()


def parsePull(text: str) -> tuple[str, str, RTMPURL]:
    """
    Read C{APP/STREAM=URL}, with a name behind it or without; see L{RTMPURL.read}.

    @return: application, name and address; the name is what follows the last slash.
    @raise InvalidURL: it is not of that form.
    """
    path, separator, rest = text.partition("=")
    application, slash, name = path.rpartition("/")
    if not separator or not slash or not name or "://" in path:
        raise InvalidURL("must be APP/STREAM=URL, such as live/a=rtmp://host/live/a")
    url = RTMPURL.read(rest)
    if not url.name:
        raise InvalidURL("the URL must have a stream's name")
    return application.strip("/"), name, url
