"""
The addresses of streams: what of one is the server, the application, the name.

Imports nothing but the client's errors, and what makes texts printable.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urljoin

from twisted_rtmp.client.errors import InvalidURL
from twisted_rtmp.names import printable

#: The ports of addresses that name none.  RTMPS has no registered one: 443 is what
#: ffmpeg, OBS and the platforms use.
DEFAULT_PORTS = {"rtmp": 1935, "rtmps": 443}

#: Schemes that other programs know, and why they are refused here.
_OTHER_SCHEMES = {
    "rtmpe": "RTMPE is obsolete and not secure",
    "rtmpte": "RTMPE is obsolete and not secure",
    "rtmpt": "tunnels through HTTP are not supported",
    "rtmpts": "tunnels through HTTP are not supported",
}

#: Applications of one part whose streams have names with slashes, on Flash Media
#: Server; ffmpeg knows this one.
_ONDEMAND = "ondemand"


@dataclass(frozen=True)
class RTMPURL:
    """
    The address of a stream.

    @ivar scheme: C{"rtmp"} or C{"rtmps"}.
    @ivar host: a name or an IP address, without brackets.
    @ivar port: never 0.
    @ivar application: what C{connect} asks for, with its query if it has one.
    @ivar name: what C{publish} and C{play} ask for, with its query; may be empty.
        For the publisher this is the stream key, so it is not shown.
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
        Take the address of a stream apart, as ffmpeg does: the application has one
        part if two follow, and else two::

            rtmp://host/app/name             app "app",      name "name"
            rtmp://host/app/instance/name    app "app/instance", name "name"
            rtmp://host/app/a/b/c            app "app/a",    name "b/c"
            rtmp://host/app/mp4:a/b          app "app",      name "mp4:a/b"
            rtmp://host/app                  app "app",      name ""

        C{.flv} is cut off a name, and C{.mp4} and C{.f4v} get C{mp4:} before it, if
        there is no query.  A query belongs to the name, whatever is in it; there
        ffmpeg differs, which looks for slashes and colons in queries too.  For other
        applications use L{ofServer}.

        @raise InvalidURL: there is no host in it, or the scheme is another.
        """
        server, path, query = _split(text)
        application, name = _applicationAndName(path)
        return server._with(application, name + query if query else _suffixed(name))

    @classmethod
    def ofServer(cls, text: str, name: str = "") -> RTMPURL:
        """
        Take a server's address and a stream's name (or key), as they stand in two
        fields of OBS and of what platforms tell their users.

        @param text: all of its path and query is the application.
        @raise InvalidURL: as L{parse}.
        """
        server, path, query = _split(text)
        return server._with(path.rstrip("/") + query, name)

    def redirected(self, reference: str) -> RTMPURL:
        """
        The same stream at another server, as a reconnect request names it.

        The stream's name stays.  Another host gets no credentials but those that the
        reference has: the user has given these for the host that they are with.

        @param reference: a C{tcUrl}, absolute or relative to this one's (C{"//b/live"},
            C{"/live"}, C{"live?x=1"}); empty for the same address.  E-RTMP v2,
            Reconnect Request.
        @raise InvalidURL: it is none, or leads from rtmps to rtmp: whoever asks for
            that would read along.
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
                raise InvalidURL(f"this is no address: {error}") from None
            absolute = f"{self.scheme}://{joined.partition('://')[2]}"
        url = RTMPURL.ofServer(absolute, self.name)
        if self.secure and not url.secure:
            raise InvalidURL(f"{url} is not encrypted, as the connection so far is")
        if url.username or url.host.lower() != self.host.lower():
            return url
        return replace(url, username=self.username, password=self.password)

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
        """Whether it is TLS."""
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
        For people: without credentials, the stream's name and queries, and printable
        if it is a server that has named it.
        """
        application = self.application.partition("?")[0]
        return printable(f"{self.scheme}://{self.authority}/{application}")


def _split(text: str) -> tuple[RTMPURL, str, str]:
    """
    Everything before the path as an address of the empty application; then the path
    without its first slash, and the query with its question mark.
    """
    text = text.strip()
    _checkCharacters(text)
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator:
        raise InvalidURL("a URL begins with rtmp:// or rtmps://")
    if scheme not in DEFAULT_PORTS:
        why = _OTHER_SCHEMES.get(scheme, "only rtmp:// and rtmps:// are")
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
    for character in text:
        # librtmp's users put parameters after a space.
        if character <= " " or character == "\x7f":
            raise InvalidURL(f"a character {character!a} is in the URL")


def _hostAndPort(address: str, defaultPort: int) -> tuple[str, int]:
    if address.startswith("["):
        host, bracket, port = address[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise InvalidURL("the brackets around the IPv6 address do not match")
        port = port[1:]
    elif address.count(":") > 1:
        raise InvalidURL("an IPv6 address needs brackets, such as rtmp://[::1]/live/a")
    else:
        host, _, port = address.partition(":")
    if not host:
        raise InvalidURL("there is no host in the URL")
    if not port:
        return host, defaultPort
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise InvalidURL(f"{port} is not a port")
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
    """A file's name as Flash Media Server wants it."""
    if name.endswith(".flv"):
        return name.removesuffix(".flv")
    if name.endswith((".mp4", ".f4v")) and ":" not in name:
        return f"mp4:{name}"
    return name
