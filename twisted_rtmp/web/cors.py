"""
The web pages that may use the server.

A browser lets any page send requests to any server.  It tells the page's origin with
C{Origin}, or, where the page cannot read the answer, how the page is related to the
server, with C{Sec-Fetch-Site}.  By DNS rebinding, the owner of a page can make its own
name lead to this server: then the browser takes both for one site, and only C{Host}
shows the foreign name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address

from twisted.web import http
from twisted.web.server import Request

from twisted_rtmp.names import printable
from twisted_rtmp.web.headers import headerText, headerTokens

#: How long a browser may remember what a preflight told it, in seconds.  Browsers cut
#: it to what they like: Chromium to 2 hours, Firefox to 24.
PREFLIGHT_SECONDS = 7200

#: Stands for every origin, or every host.
ANY = "*"

#: The longest value of Host that is looked at: a name has 253 characters at most.
#: RFC 1035, 3.1.
MAX_HOST = 260

_PORTS = {"http": 80, "https": 443}

#: An origin as people may write it.
_ORIGIN = re.compile(
    r"(https?)://(\[[0-9a-f:.]+\]|[0-9a-z_.-]+)(?::(\d{1,5}))?", re.IGNORECASE
)

#: The value of Host: an address of IPv6, or a name or an address of IPv4, and a port.
_HOST = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]]+))(?::\d*)?")

_NAME = re.compile(r"\*|\.?[0-9a-z_-]+(\.[0-9a-z_-]+)*", re.IGNORECASE)

#: The values of Sec-Fetch-Site with which no page sends a request: it is not there, or
#: a person has entered the address.
_NO_PAGE = frozenset(("", "none"))


def parseOrigin(text: str) -> str:
    """
    Read an origin.

    @return: the origin as browsers send it, or L{ANY}.
    @raise ValueError: the text is no origin.
    """
    if text == ANY:
        return ANY
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise ValueError(f"must be like https://example.org, not {text}")
    scheme, host, port = match.groups()
    scheme, host = scheme.lower(), host.lower()
    if port is None or int(port) == _PORTS[scheme]:
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{int(port)}"


def parseHost(text: str) -> str:
    """
    Read a name of the server.

    @return: the name in lower case.
    @raise ValueError: the text is no name.
    """
    if not _NAME.fullmatch(text):
        raise ValueError(
            f"must be a name such as stream.example.org, or .example.org for all that"
            f" end so, without a port, not {text}"
        )
    return text.lower()


def _isAddress(text: str) -> bool:
    """Tell whether a text is an address of the Internet."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _dots(name: str) -> Iterable[int]:
    """List the positions of the dots in a name."""
    return (at for at, character in enumerate(name) if character == ".")


def _hostOf(origin: str) -> str:
    """Give the host of an origin; for L{ANY}, an empty text."""
    match = _ORIGIN.fullmatch(origin)
    return match[2] if match else ""


def _originOfURL(url: str) -> str:
    """Give the origin of a URL; empty if it has none."""
    parts = url.split("/", 3)
    return "/".join(parts[:3]) if len(parts) > 2 else ""


def _isLink(request: Request) -> bool:
    """Tell whether a person has followed a link, and no page shows the answer."""
    return (
        request.method in (b"GET", b"HEAD")
        and headerText(request, b"sec-fetch-mode").lower() == "navigate"
        and headerText(request, b"sec-fetch-dest").lower() == "document"
    )


class Forbidden(Exception):
    """
    Raised for a request from a page that may not use the server.

    @ivar problem: the reason, for the log.
    """

    def __init__(self, message: str, problem: str) -> None:
        super().__init__(message)
        self.problem = problem


class Origins:
    """
    The origins whose pages may play, and read the answers.  Fetch Standard, 3.2.

    @ivar allowed: the origins, such as C{"https://example.org"}; L{ANY} for any.
    """

    def __init__(
        self, allowed: Iterable[str] = (ANY,), hosts: Iterable[str] = ()
    ) -> None:
        """
        @param hosts: names of the server, besides those of the origins;
            C{".example.org"} for all that end so, L{ANY} for any.
        @raise ValueError: an origin or a host is not valid.
        """
        self.allowed = frozenset(map(parseOrigin, allowed))
        self._hosts = set(map(parseHost, hosts))
        self._hosts.update(map(_hostOf, self.allowed))

    @property
    def open(self) -> bool:
        """Tell whether pages of any origin may play."""
        return ANY in self.allowed

    def check(self, request: Request) -> None:
        """
        Check that a request does not come from a page that may not use the server.

        Requests of programs that are no browsers pass, and so do addresses that a
        person has entered and links that a person has followed.

        @raise Forbidden: it does.
        """
        if self.open:
            return
        host = headerText(request, b"host")
        several = len(request.requestHeaders.getRawHeaders(b"host", ())) > 1
        if several or not self._knows(host):
            raise Forbidden(
                "The server does not answer to this name.  Its operator can allow it.",
                f"it asks for the host {printable(host)}, which is in neither"
                " --http-host nor --http-origin",
            )
        relation = headerText(request, b"sec-fetch-site").lower()
        origin = headerText(request, b"origin")
        if relation == "same-origin" or (not origin and relation in _NO_PAGE):
            return
        if not origin:
            if _isLink(request):
                return
            # For an element such as <video>, browsers send this instead.
            origin = _originOfURL(headerText(request, b"referer"))
        if origin not in self.allowed:
            raise Forbidden(
                "Pages of this origin may not play here.",
                f"it comes from a page of {printable(origin) or 'another origin'},"
                " which is not in --http-origin",
            )

    def _knows(self, header: str) -> bool:
        """
        Tell whether a name is one of the server's.

        @param header: the value of C{Host}; empty if there is none, as in HTTP/1.0.
        """
        match = _HOST.fullmatch(header) if len(header) <= MAX_HOST else None
        if match is None:
            return not header
        literal, name = match.groups()
        name = (name or "").removesuffix(".").lower()
        return (
            ANY in self._hosts
            or _isAddress(literal or name)
            or name == "localhost"
            or name.endswith(".localhost")
            or name in self._hosts
            or any(name[at:] in self._hosts for at in _dots(name))
        )

    def mark(self, request: Request) -> None:
        """Tell the browser whether its page may read the answer."""
        if self.open:
            request.setHeader(b"access-control-allow-origin", b"*")
            return
        request.setHeader(b"vary", b"Origin")
        origin = headerText(request, b"origin")
        if origin in self.allowed:
            request.setHeader(b"access-control-allow-origin", origin.encode("ascii"))
            request.setHeader(b"access-control-allow-credentials", b"true")

    def preflight(self, request: Request, methods: Iterable[bytes]) -> bytes:
        """
        Answer a browser that asks what a page may ask.

        @return: the body.
        """
        request.setResponseCode(http.NO_CONTENT)
        allowed = b", ".join(methods)
        request.setHeader(b"allow", allowed)
        request.setHeader(b"access-control-allow-methods", allowed)
        # "*" does not stand for Authorization, nor for anything beside credentials.
        headers = [ANY, "Authorization"]
        if not self.open:
            headers = headerTokens(request, b"access-control-request-headers")
        if headers:
            request.setHeader(
                b"access-control-allow-headers", ", ".join(headers).encode("ascii")
            )
        request.setHeader(b"access-control-max-age", b"%d" % PREFLIGHT_SECONDS)
        return b""
