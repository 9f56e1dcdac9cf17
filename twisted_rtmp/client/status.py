"""Statuses: what a server says with C{onStatus}, and with its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted_rtmp.client.errors import ConnectionEnded, ServerRefused, Show, refusal
from twisted_rtmp.names import printable

if TYPE_CHECKING:
    from twisted_rtmp.client.url import RTMPURL
    from twisted_rtmp.wire.messages import Command

#: Codes that say no, whatever level they come with.
_SAYS_NO = (".Rejected", ".Denied", ".BadName", ".Failed", "NotFound", "Unauthorized")

#: Codes that let a stream start.
STARTS = frozenset(
    (
        "NetStream.Publish.Start",
        "NetStream.Play.Start",
        "NetStream.Play.PublishNotify",
    )
)

#: Codes that end a stream as it should.
ENDS = frozenset(
    (
        "NetStream.Play.Stop",
        "NetStream.Play.Complete",
        "NetStream.Play.UnpublishNotify",
    )
)

#: Codes that end the connection.
DISCONNECTS = frozenset(
    ("NetConnection.Connect.Closed", "NetConnection.Connect.AppShutdown")
)

#: The code that refuses a connection.  With an C{ex} of code 302 it redirects the
#: client to another server: Flash Media Server and Wowza do so at C{connect}, SRS at
#: C{play}.
REJECTED = "NetConnection.Connect.Rejected"

#: The code that confirms the end of a publication.
UNPUBLISHED = "NetStream.Unpublish.Success"


class Status:
    """
    The information of an C{onStatus}, or of an answer that has a code.

    @ivar code: such as C{"NetStream.Play.Start"}.
    @ivar level: C{"status"}, C{"warning"}, C{"error"}, or empty.
    @ivar description: one sentence, or empty.
    @ivar streamId: the message stream that it came on.
    @ivar properties: all of it.
    """

    __slots__ = (
        "_show",
        "code",
        "description",
        "level",
        "properties",
        "streamId",
    )

    def __init__(
        self,
        properties: Mapping[str, Any],
        streamId: int = 0,
        show: Show = printable,
    ) -> None:
        """@param show: makes its words fit for logs."""
        self._show = show
        self.code = _text(properties.get("code"))
        self.level = _text(properties.get("level"))
        self.description = _text(properties.get("description"))
        self.streamId = streamId
        self.properties = properties

    @classmethod
    def fromCommand(cls, command: Command, show: Show = printable) -> Status:
        """
        Read the object of a command that has a code, or else its last object.

        @param show: makes its words fit for logs.
        """
        found: Mapping[str, Any] = {}
        for argument in reversed(command.arguments):
            if isinstance(argument, dict):
                if "code" in argument:
                    return cls(argument, command.streamId, show)
                found = found or argument
        return cls(found, command.streamId, show)

    @property
    def saysNo(self) -> bool:
        """Tell whether it is a refusal."""
        return self.level == "error" or self.code.endswith(_SAYS_NO)

    @property
    def redirect(self) -> str:
        """The address that the client is redirected to, or empty: C{ex.redirect}."""
        more = self.properties.get("ex")
        if self.code != REJECTED or not isinstance(more, dict):
            return ""
        return _text(more.get("redirect")) if more.get("code", 302.0) == 302 else ""

    def refusal(self, otherwise: type[ServerRefused]) -> ServerRefused:
        """Make the error for it; see L{refusal}."""
        return refusal(
            self.code, self.description, otherwise, self.redirect, self._show
        )

    def ended(self) -> ConnectionEnded:
        """Make the error for a connection that ends with it."""
        why = self.description or "The server closes the connection."
        return ConnectionEnded(why, code=self.code, show=self._show)


@dataclass(frozen=True)
class ReconnectRequest:
    """
    A server's request to connect again, there or elsewhere, and leave this connection.

    @ivar url: the address to connect to: the stream's at the other server, or the
        present one.
    @ivar description: one sentence, or empty.
    """

    url: RTMPURL
    description: str = ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
