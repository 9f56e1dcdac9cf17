"""The web pages of other origins that may read what is answered."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.web import http
from twisted.web.server import Request

#: How long a browser may remember what a preflight told it, in seconds.  Browsers cut
#: it to what they like: Chromium to 2 hours, Firefox to 24.
PREFLIGHT_SECONDS = 7200


class Origins:
    """
    The origins whose pages may read what is answered.  Fetch Standard, 3.2.

    @ivar allowed: such as C{"https://example.org"}; C{"*"} for any.
    """

    def __init__(self, allowed: Iterable[str] = ("*",)) -> None:
        self.allowed = frozenset(allowed)

    def mark(self, request: Request) -> None:
        """Tell the browser whether the page may read the answer."""
        if "*" in self.allowed:
            request.setHeader(b"access-control-allow-origin", b"*")
            return
        request.setHeader(b"vary", b"Origin")
        origin = request.getHeader("origin")
        if origin in self.allowed:
            request.setHeader(b"access-control-allow-origin", origin.encode("utf-8"))

    def permits(self, request: Request) -> bool:
        """
        Whether to accept a WebSocket: browsers ask nobody before they open one to
        another origin.  What has no origin is no browser.
        """
        origin = request.getHeader("origin")
        return origin is None or "*" in self.allowed or origin in self.allowed

    def preflight(self, request: Request, methods: Iterable[bytes]) -> bytes:
        """
        Answer a browser that asks whether it may ask.

        @return: the body.
        """
        request.setResponseCode(http.NO_CONTENT)
        allowed = b", ".join(methods)
        request.setHeader(b"allow", allowed)
        request.setHeader(b"access-control-allow-methods", allowed)
        request.setHeader(b"access-control-allow-headers", b"*")
        request.setHeader(b"access-control-max-age", b"%d" % PREFLIGHT_SECONDS)
        return b""
