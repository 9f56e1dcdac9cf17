"""The headers of a request, as text: peers may send any bytes in them."""

from __future__ import annotations

import re

from twisted.web.server import Request

#: A token.  RFC 9110, 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def headerText(request: Request, name: bytes) -> str:
    """
    Give a header as text; empty if there is none.

    @param name: in lower case.
    @return: what is not UTF-8 is shown as it is escaped.
    """
    return (request.getHeader(name) or b"").decode("utf-8", "backslashreplace")


def headerTokens(request: Request, name: bytes) -> list[str]:
    """
    Give the tokens of a header that is a list of them.

    @param name: in lower case.
    @return: empty if there is none, or if it is no such list.
    """
    tokens = [token.strip(" \t") for token in headerText(request, name).split(",")]
    return tokens if all(map(_TOKEN.fullmatch, tokens)) else []
