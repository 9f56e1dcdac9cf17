"""Targets: where streams are pushed to, and which."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from twisted_rtmp.client.errors import InvalidURL
from twisted_rtmp.client.url import RTMPURL

#: The placeholders for a stream's application and name in a target.
_APPLICATION = "{app}"
_STREAM = "{stream}"


@dataclass(frozen=True)
class PushTarget:
    """
    An address that streams are pushed to, and which streams.

    @ivar url: the address; C{{app}} and C{{stream}} in its path stand for the
        stream's own.  An address without a name gets the stream's own, too.
    @ivar pattern: the streams, as C{application/name} with C{*} for any text.
    """

    url: RTMPURL
    pattern: str = "*"

    @classmethod
    def parse(cls, text: str) -> PushTarget:
        """
        Read C{URL} or C{APP/STREAM=URL}, with a name behind it or without; see
        L{RTMPURL.read}.

        @raise InvalidURL: it is invalid.
        """
        pattern, separator, rest = text.partition("=")
        if separator and "://" not in pattern:
            if "/" not in pattern:
                raise InvalidURL("before = must be APP/STREAM, such as live/*")
            target = cls(RTMPURL.read(rest), pattern)
        else:
            target = cls(RTMPURL.read(text))
        url = target.url
        if "{" in url.authority + url.username + url.password:
            raise InvalidURL("{app} and {stream} must be in the path")
        if not url.application:
            raise InvalidURL("the URL must have an application")
        return target

    @property
    def fixed(self) -> bool:
        """Tell whether all streams have one address."""
        url = self.url
        return bool(url.name) and _STREAM not in url.application + url.name

    def wants(self, application: str, name: str) -> bool:
        """Tell whether a stream is to be pushed there."""
        return fnmatchcase(f"{application}/{name}", self.pattern)

    def addressOf(self, application: str, name: str) -> RTMPURL:
        """Make the address that a stream is pushed to."""
        url = self.url

        def filled(text: str) -> str:
            # In one pass: a stream may be called {app}.
            parts = text.split(_STREAM)
            return name.join(part.replace(_APPLICATION, application) for part in parts)

        return replace(
            url,
            application=filled(url.application),
            name=filled(url.name) if url.name else name,
        )
