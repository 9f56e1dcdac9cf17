"""
What every resource answers alike: short texts, and who may ask from another origin.

Imports C{twisted.web} only.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import Request

#: How long a browser may remember what a preflight told it, in seconds.  Browsers cut
#: it to what they like: Chromium to 2 hours, Firefox to 24.
PREFLIGHT_SECONDS = 7200


def answer(request: Request, code: int, text: str) -> bytes:
    """
    Make a request's answer a text for people.

    @param text: one line, without its end.
    @return: the body: what a resource's C{render} returns.
    """
    # In its words: twisted.web does not know all that there are.
    request.setResponseCode(code, HTTPStatus(code).phrase.encode("ascii"))
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    request.setHeader(b"cache-control", b"no-store")
    if request.method == b"HEAD":
        return b""
    return text.encode("utf-8", "backslashreplace") + b"\n"


def finish(request: Request, code: int, text: str) -> None:
    """Answer, and be done, where C{render} has returned long ago."""
    body = answer(request, code, text)
    request.setHeader(b"content-length", b"%d" % len(body))
    request.write(body)
    request.finish()


def notAllowed(request: Request, allowed: Iterable[bytes]) -> bytes:
    """
    Answer a method that a resource does not have.

    @return: the body.
    """
    methods = b", ".join(allowed)
    request.setHeader(b"allow", methods)
    return answer(
        request, http.NOT_ALLOWED, f"The methods here are {methods.decode('ascii')}."
    )


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


class NotFound(Resource):
    """The resource at every address that has no other one."""

    isLeaf = True

    def __init__(self, origins: Origins) -> None:
        Resource.__init__(self)
        self._origins = origins

    def render(self, request: Request) -> bytes:
        self._origins.mark(request)
        return answer(
            request,
            http.NOT_FOUND,
            "There is nothing here.  A live stream is at /APPLICATION/STREAM.flv.",
        )
