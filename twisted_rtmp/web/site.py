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
    from twisted.internet.interfaces import IAddress


class Root(Resource):
    """
    The root of the site: it finds resources, such as statistics, by the first part of
    the path, and those that every stream has by the ending of the path.
    """

    def __init__(self, nothing: Resource) -> None:
        """
        Begin without any resource.

        @param nothing: the resource of all other addresses.
        """
        Resource.__init__(self)
        self._nothing = nothing
        self._byEnding: dict[bytes, Resource] = {}

    def putEnding(self, ending: bytes, resource: Resource) -> None:
        """
        Add a resource that every stream has.

        @param ending: the end of its path, such as C{b".flv"}.
        """
        self._byEnding[ending] = resource

    def getChild(self, path: bytes, request: Request) -> Resource:
        _, dot, ending = request.path.rpartition(b"/")[2].rpartition(b".")
        return self._byEnding.get(dot + ending, self._nothing)


class HTTPSite(Site):
    """
    A server's live streams over HTTP.

    @ivar registry: the live streams.
    @ivar origins: the web pages that may play.
    @ivar proxies: the proxies that are believed when they tell whom they speak for.
    @ivar root: the root, to which other resources can be added.
    """

    noisy = False
    # Not HTTP/2, which has no Upgrade and whose requests share one transport.
    protocol = Channel  # type: ignore[assignment]

    def __init__(
        self,
        registry: Registry,
        *,
        origins: Iterable[str] = ("*",),
        hosts: Iterable[str] = (),
        trustedProxies: Iterable[str] = (),
    ) -> None:
        """
        @param registry: the live streams, with their limits and deciders.
        @param origins: the origins of pages that may play, such as
            C{"https://example.org"}; C{"*"} for any.
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
        # A trusted proxy's connections are those of all for whom it speaks.
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
        """Keep a request's body in memory: it is bounded."""
        return io.BytesIO()

    # There is no access log, since addresses have tokens in them.

    def startFactory(self) -> None:
        """Open no access log."""

    def stopFactory(self) -> None:
        """Close no access log."""

    def log(self, request: HTTPRequest) -> None:
        """Write nothing: players are logged where they begin and end."""
