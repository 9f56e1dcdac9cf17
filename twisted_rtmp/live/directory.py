"""The directory of streams, when more than one process serves them."""

from __future__ import annotations

from collections.abc import Awaitable

from zope.interface import Interface, implementer

from twisted_rtmp.interfaces import StreamRequest


class NameTaken(Exception):
    """Raised by L{IDirectory.claim}: the name is another server's for now."""


class IDirectory(Interface):
    """
    Knows which of several servers has a stream.

    Each method may answer at once, or with a Deferred or coroutine; the peer that waits
    for the answer is told nothing meanwhile.
    """

    def claim(application: str, name: str) -> Awaitable[None] | None:
        """
        Have a name for a stream that is about to be published here.

        @raise NameTaken: a stream of that name is published elsewhere.
        """

    def release(application: str, name: str) -> None:
        """Give a claimed name back: its stream has ended, or has not begun."""

    def locate(
        application: str, name: str, request: StreamRequest | None
    ) -> Awaitable[None] | None:
        """
        Look for a stream that is to be played and is not published here.

        A stream that is elsewhere is to be brought here, such as by a pull.  The player
        waits for it like for an encoder's, so nothing need be told when there is none.

        @param request: the player's; L{None} for a player of the server's own.
        """


@implementer(IDirectory)
class LocalDirectory:
    """The directory of a server that is alone: all streams are here, or nowhere."""

    def claim(self, application: str, name: str) -> None:
        """Every name is free that the registry has not got."""

    def release(self, application: str, name: str) -> None:
        """Nobody else has to know."""

    def locate(
        self, application: str, name: str, request: StreamRequest | None
    ) -> None:
        """No other server has streams."""
