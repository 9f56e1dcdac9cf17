"""A ready-made decider: lists of applications and of stream keys."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping

from zope.interface import implementer

from twisted_rtmp.interfaces import (
    ConnectRequest,
    IAuthorizer,
    Refused,
    StreamRequest,
)
from twisted_rtmp.names import parentsOf


@implementer(IAuthorizer)
class AllowList:
    """
    Lets only listed applications be connected to, and only listed keys publish.

    Playing is not decided here.

    @ivar applications: the applications that exist, each with all that is below it:
        C{live/eu} is part of C{live}.  Empty: all exist.
    @ivar streamKeys: keys with which a stream may be published, each with the
        name under which that stream is then known; empty: any name will do.
    """

    def __init__(
        self,
        applications: Iterable[str] = (),
        streamKeys: Iterable[str] | Mapping[str, str] = (),
    ) -> None:
        """
        @param applications: see the class.
        @param streamKeys: a mapping from key to public name, or just keys,
            which then are the public names too.
        """
        self.applications = frozenset(applications)
        if isinstance(streamKeys, Mapping):
            self.streamKeys = dict(streamKeys)
        else:
            self.streamKeys = {key: key for key in streamKeys}

    def connect(self, request: ConnectRequest) -> None:
        # An encoder may take a part of the stream's name for one of the application's.
        if self.applications and self.applications.isdisjoint(
            parentsOf(request.application) if request.application else [""]
        ):
            raise Refused("There is no such application.")

    def publish(self, request: StreamRequest) -> str | None:
        if not self.streamKeys:
            return None
        # All keys are compared, each in constant time: the time an answer takes
        # tells nothing about how much of a key was right.
        name: str | None = None
        given = _octets(request.name)
        for key, publicName in self.streamKeys.items():
            if hmac.compare_digest(given, _octets(key)):
                name = publicName
        if name is None:
            raise Refused("The stream key is not valid.")
        return name

    def play(self, request: StreamRequest) -> None:
        return None


def _octets(text: str) -> bytes:
    """Encode what the network sent, which may hold lone surrogates."""
    return text.encode("utf-8", "surrogatepass")
