"""
What an authorizer is asked about who comes by HTTP.

Imports C{twisted.web} and the interfaces.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

from twisted.web.server import Request

from twisted_rtmp.interfaces import ConnectRequest

_T = TypeVar("_T")


def connectOf(request: Request, application: str, query: str) -> ConnectRequest:
    """What C{connect} by RTMP would have been, as far as a request says."""
    scheme = "https" if request.isSecure() else "http"
    host = request.getHeader("host") or ""
    properties: dict[str, Any] = {
        "app": application,
        "tcUrl": f"{scheme}://{host}/{application}",
    }
    for key, header in (("flashVer", "user-agent"), ("pageUrl", "referer")):
        value = request.getHeader(header)
        if value is not None:
            properties[key] = value
    return ConnectRequest(application, query, request.getClientAddress(), properties)


async def said(asked: Awaitable[_T] | _T) -> _T:
    """What an authorizer answered, at once or later."""
    return await asked if isinstance(asked, Awaitable) else asked
