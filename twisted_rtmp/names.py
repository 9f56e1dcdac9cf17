"""The names of applications, streams and peers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

#: Characters of a peer's text that one log line shows.
SHOWN_CHARACTERS = 100

#: The instance name that Flash Media Server gives to what has none; encoders
#: configured for it append it to the application.
DEFAULT_INSTANCE = "_definst_"


def printable(text: str) -> str:
    """
    Make a peer's text fit for a log line: one line, printable, and short.

    Anything else is escaped as Python does it, so that nothing from the network can
    forge a line or control a terminal.
    """
    cut = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
    if cut.isascii() and cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


def peerName(address: object) -> str:
    """
    Name the other end of a connection, for log lines.

    @param address: an L{IAddress<twisted.internet.interfaces.IAddress>}, or L{None}.
    """
    host = getattr(address, "host", None)
    if host is None:
        return printable(os.fsdecode(getattr(address, "name", None) or "local"))
    if ":" in host:
        host = f"[{host}]"
    port = getattr(address, "port", 0)
    return f"{host}:{port}" if port else str(host)  # some proxies tell no port


def splitQuery(text: str) -> tuple[str, str]:
    """Split a text into the name before its first C{?} and the query behind that."""
    name, _, query = text.partition("?")
    return name, query


def parseApplication(properties: dict[str, Any]) -> tuple[str, str]:
    """
    Read the application, and its query, that a C{connect} asks for.

    Encoders put a query into C{app} or only into C{tcUrl}, append a slash or
    C{_definst_}, or send a C{tcUrl} only.

    @param properties: the command object.
    @return: the name without slashes at its ends, and the query; both may be empty.
    """
    app = properties.get("app")
    url = properties.get("tcUrl") or properties.get("tcurl")
    urlPath, urlQuery = _parsePath(url) if isinstance(url, str) else ("", "")
    if not isinstance(app, str):
        app = urlPath
    name, query = splitQuery(app.strip().strip("\"'"))
    parts = [part for part in name.split("/") if part]
    if parts and parts[-1] == DEFAULT_INSTANCE:
        del parts[-1]
    return "/".join(parts), query or urlQuery


def _parsePath(url: str) -> tuple[str, str]:
    """Read the path and the query of a URL, whatever stands before them."""
    rest = url.strip().strip("\"'").partition("://")[2]
    path, query = splitQuery(rest.partition("/")[2])
    return path, query


def parseStreamName(argument: object) -> tuple[str, str]:
    """
    Read the stream's name, and its query, that a C{publish} or C{play} asks for.

    @param argument: the command's first argument behind the command object; cameras
        send numbers, and some encoders nothing at all.
    @return: the name without slashes at its ends, and the query; both may be empty.
    """
    if isinstance(argument, float):
        argument = f"{argument:g}"
    if not isinstance(argument, str):
        return "", ""
    name, query = splitQuery(argument)
    return name.strip().strip("/"), query


def pathOf(application: str, name: str) -> str:
    """Join an application and a stream's name."""
    return f"{application}/{name}" if application else name


def parentsOf(path: str) -> Iterator[str]:
    """Give a path, what it is in, what that is in, and so on; no part is empty."""
    part = path
    while part:
        yield path
        path, _, part = path.rpartition("/")
        part = path if part else ""
