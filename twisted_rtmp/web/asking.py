"""The requests by which deciders are asked about peers over HTTP."""

from __future__ import annotations

from typing import Any

from twisted.web.server import Request

from twisted_rtmp.interfaces import ConnectRequest
from twisted_rtmp.web.channel import channelOf
from twisted_rtmp.web.headers import headerText


def connectRequest(
    request: Request, application: str, query: str, kind: str = "http"
) -> ConnectRequest:
    """
    Make the request that stands for a C{connect} over RTMP, as far as the peer tells.

    @param kind: C{"http"} or C{"ws"}; over TLS it gets an C{s}.
    """
    suffix = "s" if request.isSecure() else ""
    host = headerText(request, b"host")
    properties: dict[str, Any] = {
        "app": application,
        "tcUrl": f"http{suffix}://{host}/{application}",
    }
    for key, header in (("flashVer", b"user-agent"), ("pageUrl", b"referer")):
        value = headerText(request, header)
        if value:
            properties[key] = value
    return ConnectRequest(
        application,
        query,
        request.getClientAddress(),
        properties,
        kind=kind + suffix,
        connectionId=channelOf(request).id,
        credentials=_credentials(request),
    )


def _credentials(request: Request) -> dict[str, str]:
    """Pick the headers by which a peer shows who it is."""
    credentials = {}
    for name, separator in ((b"authorization", b", "), (b"cookie", b"; ")):
        values = request.requestHeaders.getRawHeaders(name)
        if values:
            text = separator.join(values).decode("utf-8", "backslashreplace")
            credentials[name.decode("ascii")] = text
    return credentials
