"""Short answers that all resources give alike."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import Request

from twisted_rtmp.web.cors import Origins


def answer(request: Request, code: int, text: str) -> bytes:
    """
    Answer a request with a text for people.

    @param text: one line, without its end.
    @return: the body: what a resource's C{render} returns.
    """
    # With its words: twisted.web does not know all codes.
    request.setResponseCode(code, HTTPStatus(code).phrase.encode("ascii"))
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    request.setHeader(b"cache-control", b"no-store")
    if request.method == b"HEAD":
        return b""
    return text.encode("utf-8", "backslashreplace") + b"\n"


def finish(request: Request, code: int, text: str) -> None:
    """Answer a request whose C{render} has returned, and finish it."""
    body = answer(request, code, text)
    request.setHeader(b"content-length", b"%d" % len(body))
    request.write(body)
    request.finish()


def notAllowed(request: Request, allowed: Iterable[bytes]) -> bytes:
    """
    Answer a request whose method a resource does not have.

    @return: the body.
    """
    methods = b", ".join(allowed)
    request.setHeader(b"allow", methods)
    return answer(
        request, http.NOT_ALLOWED, f"The method must be {methods.decode('ascii')}."
    )


class Refusal(Resource):
    """The resource that a page gets at every address if it may not use the server."""

    isLeaf = True

    def __init__(self, text: str) -> None:
        Resource.__init__(self)
        self._text = text

    def render(self, request: Request) -> bytes:
        return answer(request, http.FORBIDDEN, self._text)


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
            "Nothing is at this address.  A stream is at /APPLICATION/STREAM.flv.",
        )
