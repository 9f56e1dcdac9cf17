"""The site, and its root."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from twisted_rtmp.live.addresses import hostOf
from twisted_rtmp.live.registry import Registry
from twisted_rtmp.web.answers import NotFound, Refusal
from twisted_rtmp.web.channel import Channel, channelOf
from twisted_rtmp.web.cors import Forbidden, Origins
from twisted_rtmp.web.flv import FLVResource
from twisted_rtmp.web.forwarded import TrustedProxies

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IReactorTime


class Root(Resource):
    """
    What the site has: resources by the first part of their path, such as statistics,
    and those that every stream has, by the ending of the path.
    """

    def __init__(self, nothing: Resource) -> None:
        """
        Begin with nothing.

        @param nothing: what all other addresses lead to.
        """
        Resource.__init__(self)
        self._nothing = nothing
        self._byEnding: dict[bytes, Resource] = {}

    def putEnding(self, ending: bytes, resource: Resource) -> None:
        """
        Have every stream's resource of a kind.

        @param ending: of the path, such as C{b".flv"}.
        """
        self._byEnding[ending] = resource

    def getChild(self, path: bytes, request: Request) -> Resource:
        _, dot, ending = request.path.rpartition(b"/")[2].rpartition(b".")
        return self._byEnding.get(dot + ending, self._nothing)


class HTTPSite(Site):
    """
    A server's live streams, by HTTP.

    @ivar registry: the live streams.
    @ivar origins: the web pages that may play.
    @ivar proxies: those that are believed when they tell whom they speak for.
    @ivar root: where other resources can be added.
    """

    noisy = False
    # No HTTP/2: it has no Upgrade, and its requests have no transport of their own.
    protocol = Channel  # type: ignore[assignment]

    def __init__(
        self,
        reactor: IReactorTime,
        registry: Registry,
        *,
        origins: Iterable[str] = ("*",),
        hosts: Iterable[str] = (),
        trustedProxies: Iterable[str] = (),
    ) -> None:
        """
        @param registry: the live streams, with their limits and deciders.
        @param origins: of pages that may play, such as C{"https://example.org"};
            C{"*"} for any.
        @param hosts: names under which such pages may find the server, besides those
            of the origins; see L{Origins}.
        @param trustedProxies: see L{TrustedProxies}.
        @raise ValueError: one of these is invalid.
        """
        self.origins = Origins(origins, hosts)
        self.proxies = TrustedProxies(trustedProxies)
        self.registry = registry
        self.root = Root(NotFound(self.origins))
        self.root.putEnding(b".flv", FLVResource(registry, self.origins))
        Site.__init__(
            self,
            self.root,
            parsePOSTFormSubmission=False,
            timeout=registry.limits.requestSeconds,
            reactor=registry.clock,
        )

    def buildProtocol(self, addr: IAddress | None) -> Channel | None:  # type: ignore[override]
        # A proxy has as many connections as all for whom it speaks.
        host = "" if self.proxies.trusts(addr) else hostOf(addr)
        admitted = self.registry.connections.admit(host)
        channel = Site.buildProtocol(self, addr) if admitted else None
        if isinstance(channel, Channel):
            channel.host = host
        return channel

    def getResourceFor(self, request: Request) -> Resource:
        """Find the resource for a request, unless its page may not use the server."""
        try:
            self.origins.check(request)
        except Forbidden as error:
            self.registry.counters.refused += 1
            channelOf(request).warn(
                "{peer} is refused: {problem}", problem=error.problem
            )
            return Refusal(str(error))
        resource: Resource = Site.getResourceFor(self, request)
        return resource

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]

    def getContentFile(self, length: int | None) -> io.BytesIO:
        """Where a request's body is kept: it is bounded."""
        return io.BytesIO()

    # No log of its own: it would have the tokens that are in addresses.

    def startFactory(self) -> None:
        """There is no log to open, and no clock for it."""

    def stopFactory(self) -> None:
        """There is no log to close."""

    def log(self, request: HTTPRequest) -> None:
        """What players do is logged where they begin and end."""
