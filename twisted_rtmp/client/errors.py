"""
The errors of a client and its server.

Every refusal has a class of its own, and the server's code.

::

    ClientError
        InvalidURL                  the address is invalid
        ServerRefused               the server says no; its code says to what
            ConnectRejected
                InvalidApplication
                ConnectUnauthorized (also Unauthorized)
            PublishRefused
                NameTaken
                PublishUnauthorized (also Unauthorized)
            PlayRefused
                StreamNotFound
                PlayUnauthorized    (also Unauthorized)
            CommandFailed
        TimeLimitPassed             the server does not answer, or takes nothing
        ConnectionEnded             the connection has ended, and why

The network's errors before there is a connection (no such host, connection refused) are
Twisted's own.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted_rtmp.names import printable
from twisted_rtmp.wire.errors import RTMPError

#: Makes a server's words fit for a log line.
Show = Callable[[str], str]


class ClientError(RTMPError):
    """
    The base of all errors of a client.

    @ivar code: the server's code, such as C{"NetStream.Publish.BadName"}; empty where
        it gave none.
    @ivar description: one sentence for people, the server's where it gave one: unlike
        the error's own text it may be long, and repeat keys.
    """

    def __init__(
        self, description: str, *, code: str = "", show: Show = printable
    ) -> None:
        """@param show: makes the server's words fit for logs."""
        # They go to logs and terminals: on one line, and short.
        text = show(description)
        super().__init__(f"{text} ({show(code)})" if code else text)
        self.code = code
        self.description = description


class InvalidURL(ClientError):
    """An address that no server can be reached at."""


class ServerRefused(ClientError):
    """
    The server says no.

    @ivar redirect: the address that it sends the client to instead, or empty.
    """

    def __init__(
        self,
        description: str,
        *,
        code: str = "",
        redirect: str = "",
        show: Show = printable,
    ) -> None:
        super().__init__(description, code=code, show=show)
        self.redirect = redirect


class Unauthorized(ServerRefused):
    """The server requires credentials, or refuses those that it got."""


class ConnectRejected(ServerRefused):
    """The server does not accept C{connect}."""


class InvalidApplication(ConnectRejected):
    """The server has no such application."""


class ConnectUnauthorized(ConnectRejected, Unauthorized):
    """The server accepts C{connect} with the right credentials only."""


class PublishRefused(ServerRefused):
    """The server does not accept the stream, or no more of it."""


class NameTaken(PublishRefused):
    """Another client publishes under this name."""


class PublishUnauthorized(PublishRefused, Unauthorized):
    """The key or the credentials do not permit publishing."""


class PlayRefused(ServerRefused):
    """The server does not send the stream, or no more of it."""


class StreamNotFound(PlayRefused):
    """The server has no such stream."""


class PlayUnauthorized(PlayRefused, Unauthorized):
    """The credentials do not permit playing."""


class CommandFailed(ServerRefused):
    """The server answers a command with an error."""


class TimeLimitPassed(ClientError):
    """
    The server does not answer, or takes nothing of what is sent to it.

    @ivar seconds: the limit.
    """

    def __init__(self, description: str, *, seconds: float) -> None:
        super().__init__(description)
        self.seconds = seconds


class ConnectionEnded(ClientError):
    """
    The connection has ended.

    @ivar clean: whether it was closed, and did not break.
    """

    def __init__(
        self,
        description: str,
        *,
        code: str = "",
        clean: bool = True,
        show: Show = printable,
    ) -> None:
        super().__init__(description, code=code, show=show)
        self.clean = clean


#: The classes of the codes that say more than what was refused.  Servers disagree on
#: many; these are nginx-rtmp's, SRS's, MediaMTX', Wowza's and Flash Media Server's.
REFUSALS: dict[str, type[ServerRefused]] = {
    "NetConnection.Connect.InvalidApp": InvalidApplication,
    "NetConnection.Connect.AppShutdown": InvalidApplication,
    "NetConnection.Connect.Unauthorized": ConnectUnauthorized,
    "NetStream.Publish.BadName": NameTaken,
    "NetStream.Publish.Unauthorized": PublishUnauthorized,
    "NetStream.Play.StreamNotFound": StreamNotFound,
    "NetStream.Play.FileNotFound": StreamNotFound,
    "NetStream.Play.Unauthorized": PlayUnauthorized,
}


def refusal(
    code: str,
    description: str,
    otherwise: type[ServerRefused],
    redirect: str = "",
    show: Show = printable,
) -> ServerRefused:
    """
    Make the error for a server's code.

    @param otherwise: the class for a code that says no more than that.
    @param show: makes the server's words fit for logs.
    """
    found = REFUSALS.get(code)
    if found is None or not issubclass(found, otherwise):
        found = otherwise
    return found(
        description or "The server refuses.",
        code=code,
        redirect=redirect,
        show=show,
    )
