"""The contents of a reconnect request.  E-RTMP v2, Reconnect Request."""

from __future__ import annotations

from twisted_rtmp.names import printable
from twisted_rtmp.wire.errors import UsageError

#: Largest address in a reconnect request, in bytes.  Web servers take request lines of
#: 8 KiB; with a description it is to stay far below the 64 KiB that a command may have.
MAX_TC_URL_BYTES = 8 * 1024

#: Largest description in a reconnect request, in bytes.
MAX_DESCRIPTION_BYTES = 8 * 1024


def checkReconnect(tcUrl: str, description: str) -> None:
    """
    Check whether a reconnect request can be sent.

    @param tcUrl: the server and application to connect to; may be empty.
    @param description: one sentence for people; may be empty.
    @raise UsageError: it cannot be sent.
    """
    for name, value, limit in (
        ("tcUrl", tcUrl, MAX_TC_URL_BYTES),
        ("description", description, MAX_DESCRIPTION_BYTES),
    ):
        if not isinstance(value, str):
            raise UsageError(f"the {name} of a reconnect request must be a string")
        try:
            size = len(value.encode())
        except UnicodeEncodeError as error:
            raise UsageError(
                f"the {name} of a reconnect request must be text: {error.reason}"
            ) from None
        if size > limit:
            raise UsageError(
                f"the {name} of a reconnect request must have at most {limit} bytes,"
                f" not {size}"
            )
    if any(character <= " " or character == "\x7f" for character in tcUrl):
        raise UsageError(
            "the tcUrl of a reconnect request must have no white space or control"
            " character"
        )
    scheme, separator, _ = tcUrl.partition("://")
    if separator and "/" not in scheme and not scheme.lower().startswith("rtmp"):
        raise UsageError(
            "the tcUrl of a reconnect request must begin with a scheme of RTMP, not"
            f" {scheme[:80]!a}"
        )


def shownURL(tcUrl: str) -> str:
    """Give an address for a log line: without credentials and query."""
    head, slashes, rest = tcUrl.partition("?")[0].partition("//")
    authority, slash, path = rest.partition("/")
    return printable(head + slashes + authority.rpartition("@")[2] + slash + path)
