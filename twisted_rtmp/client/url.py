"""The addresses of streams: server, application and name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urljoin

from twisted_rtmp.client.errors import InvalidURL
from twisted_rtmp.names import printable

#: The ports of addresses that name none.  RTMPS has no registered one: 443 is what
#: ffmpeg, OBS and the platforms use.
DEFAULT_PORTS = {"rtmp": 1935, "rtmps": 443}

#: Schemes that other programs know, and why this one refuses them.
_OTHER_SCHEMES = {
    "rtmpe": "RTMPE is obsolete and not secure",
    "rtmpte": "RTMPE is obsolete and not secure",
    "rtmpt": "tunnels through HTTP are not supported",
    "rtmpts": "tunnels through HTTP are not supported",
}

#: Applications of one part whose streams have names with slashes, on Flash Media
#: Server; ffmpeg knows this one.
_ONDEMAND = "ondemand"

_WHITE_OR_CONTROL = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True)
class RTMPURL:
    """
    The address of a stream.

    @ivar scheme: C{"rtmp"} or C{"rtmps"}.
    @ivar host: a name or an IP address, without brackets.
    @ivar port: never 0.
    @ivar application: the application for C{connect}, with its query if it has one.
    @ivar name: the stream's name for C{publish} and C{play}, with its query; may be
        empty.  For the publisher this is the stream key, so it is not shown.
    @ivar username: for a server that asks for it, or empty.
    @ivar password: the same.
    """

    scheme: str
    host: str
    port: int
    application: str
    name: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> RTMPURL:
        """
        Read the address of a stream, as ffmpeg does: the application is the first part
        of the path, or the first two of three or more::

            rtmp://host/app/name             app "app",      name "name"
            rtmp://host/app/instance/name    app "app/instance", name "name"
            rtmp://host/app/a/b/c            app "app/a",    name "b/c"
            rtmp://host/app/mp4:a/b          app "app",      name "mp4:a/b"
            rtmp://host/app                  app "app",      name ""
            rtmp://host/app?token=1/name     app "app?token=1", name "name"

        C{.flv} is cut off a name, and C{.mp4} and C{.f4v} get C{mp4:} before it, if
        there is no query.  A query behind the first part of the path belongs to the
        application, and the name stands behind the query's first slash (or its second
        one).  A query further behind belongs to the name, whatever is in it; there
        ffmpeg differs, which looks for slashes and colons in all queries.  For other
        applications use L{ofServer}.

        @raise InvalidURL: it has no host, or another scheme.
        """
        server, path, query = _split(text)
        if query and path and "/" not in path[:-1]:
            # Content delivery networks want it so.
            return server._with(*_applicationAndName(path + query))
        application, name = _applicationAndName(path)
        return server._with(application, name + query if query else _suffixed(name))

    @classmethod
    def ofServer(cls, text: str, name: str = "") -> RTMPURL:
        """
        Join a server's address and a stream's name (or key): the two fields of OBS, and
        of the instructions of platforms.

        @param text: all of its path and query is the application.
        @raise InvalidURL: as of L{parse}.
        """
        server, path, query = _split(text)
        return server._with(path.rstrip("/") + query, name)

    @classmethod
    def read(cls, text: str) -> RTMPURL:
        """
        Read an address as L{parse} does, or as L{ofServer} with a name behind a space.

        @raise InvalidURL: it is invalid.
        """
        words = text.split()
        if len(words) == 2:
            return cls.ofServer(*words)
        if len(words) > 2:
            raise InvalidURL("must be a URL, and at most a stream's name behind it")
        return cls.parse(text)

    def redirected(self, reference: str) -> RTMPURL:
        """
        Make the address of the same stream at the server of a reconnect request.

        The stream's name stays.  Another host gets no credentials but those that the
        reference has: the user has given the present ones for the present host.

        @param reference: a C{tcUrl}, absolute or relative to this one's (C{"//b/live"},
            C{"/live"}, C{"live?x=1"}); empty for the same address.  E-RTMP v2,
            Reconnect Request.
        @raise InvalidURL: it is invalid, or leads from rtmps to rtmp, so that others
            could read the stream.
        """
        if not reference:
            return self
        _checkCharacters(reference)
        # The standard library resolves references of schemes that it knows only.
        _, _, rest = self.tcURL.partition("://")
        head = reference.partition("/")[0]
        if ":" in head:
            absolute = reference
        else:
            try:
                joined = urljoin(f"http://{rest}", reference)
            except ValueError as error:
                raise InvalidURL(f"the address is invalid: {error}") from None
            absolute = f"{self.scheme}://{joined.partition('://')[2]}"
        url = RTMPURL.ofServer(absolute, self.name)
        if self.secure and not url.secure:
            raise InvalidURL(f"{url} is not encrypted, but this connection is")
        if url.username or url.host.lower() != self.host.lower():
            return url
        return replace(url, username=self.username, password=self.password)

    def rejectedTo(self, reference: str) -> RTMPURL:
        """
        Make the address of the same stream at the server of a rejected C{connect}.

        Some servers give the stream's whole address instead of a C{tcUrl}.

        @param reference: the C{redirect} of C{ex}; see L{redirected}.
        @raise InvalidURL: as of L{redirected}.
        """
        url = self.redirected(reference)
        ending = "/" + self.name.partition("?")[0]
        application = url.application.partition("?")[0]
        if ending == "/" or self.application.partition("?")[0].endswith(ending):
            return url
        if not application.endswith(ending):
            return url
        return replace(url, application=application.removesuffix(ending))

    def _with(self, application: str, name: str) -> RTMPURL:
        return RTMPURL(
            self.scheme,
            self.host,
            self.port,
            application,
            name,
            self.username,
            self.password,
        )

    @property
    def secure(self) -> bool:
        """Tell whether the connection is encrypted with TLS."""
        return self.scheme == "rtmps"

    @property
    def authority(self) -> str:
        """Host and port, for C{tcUrl} and log lines."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def tcURL(self) -> str:
        """
        The C{tcUrl} of C{connect}: with the port, as ffmpeg has it, without
        credentials and without the stream's name.
        """
        return f"{self.scheme}://{self.authority}/{self.application}"

    def __str__(self) -> str:
        """
        Show it to people: without credentials, the stream's name and queries, and
        printable even if it is from a server.
        """
        application = self.application.partition("?")[0]
        return printable(f"{self.scheme}://{self.authority}/{application}")


def _split(text: str) -> tuple[RTMPURL, str, str]:
    """
    Split a URL.

    @return: the server, as an address of the empty application; the path without its
        first slash; the query with its question mark.
    """
    text = text.strip()
    _checkCharacters(text)
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator:
        raise InvalidURL("the URL must begin with rtmp:// or rtmps://")
    if scheme not in DEFAULT_PORTS:
        why = _OTHER_SCHEMES.get(scheme, "the URL must begin with rtmp:// or rtmps://")
        raise InvalidURL(f"{scheme}:// is not supported: {why}")
    end = min((at for at in map(rest.find, "/?") if at >= 0), default=len(rest))
    authority, path = rest[:end], rest[end:]
    credentials, _, address = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    host, port = _hostAndPort(address, DEFAULT_PORTS[scheme])
    path, mark, query = path.partition("?")
    server = RTMPURL(scheme, host, port, "", "", unquote(username), unquote(password))
    return server, path.removeprefix("/"), mark + query


def _checkCharacters(text: str) -> None:
    # librtmp's users put parameters after a space.
    found = _WHITE_OR_CONTROL.search(text)
    if found is not None:
        raise InvalidURL(f"the URL must not have a character {found[0]!a}")


def _hostAndPort(address: str, defaultPort: int) -> tuple[str, int]:
    if address.startswith("["):
        host, bracket, port = address[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise InvalidURL("the IPv6 address must be in brackets, such as [::1]")
        port = port[1:]
    elif address.count(":") > 1:
        raise InvalidURL("the IPv6 address must be in brackets, such as [::1]")
    else:
        host, _, port = address.partition(":")
    if not host:
        raise InvalidURL("the URL must have a host")
    if not port:
        return host, defaultPort
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        # Without the text itself, which may be a part of a password.
        raise InvalidURL("the port must be a number from 1 to 65535")
    return host, int(port)


def _applicationAndName(path: str) -> tuple[str, str]:
    """Split a path as ffmpeg does; see L{RTMPURL.parse}."""
    first, _, rest = path.partition("/")
    if first == _ONDEMAND:
        return first, rest
    second, slash, name = rest.partition("/")
    if not slash or ":" in second:
        # What has a colon is the beginning of a name, such as mp4:folder/file.
        return first, rest
    return f"{first}/{second}", name


def _suffixed(name: str) -> str:
    """Spell a file's name as Flash Media Server requires it."""
    if name.endswith(".flv"):
        return name.removesuffix(".flv")
    if name.endswith((".mp4", ".f4v")) and ":" not in name:
        return f"mp4:{name}"
    return name
