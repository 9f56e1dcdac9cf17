"""The headers of a request as text, whatever bytes the peer has sent."""

from __future__ import annotations

import re

from twisted.web.server import Request

#: A token.  RFC 9110, 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def headerText(request: Request, name: bytes) -> str:
    """
    Give a header as text; empty if there is none.

    @param name: in lower case.
    @return: the text, in which bytes that are not UTF-8 are escaped.
    """
    return (request.getHeader(name) or b"").decode("utf-8", "backslashreplace")


def headerTokens(request: Request, name: bytes) -> list[str]:
    """
    Give the tokens of a header that is a list of them.

    @param name: in lower case.
    @return: the tokens; empty if there is no such header, or it is no list of tokens.
    """
    tokens = [token.strip(" \t") for token in headerText(request, name).split(",")]
    return tokens if all(map(_TOKEN.fullmatch, tokens)) else []
