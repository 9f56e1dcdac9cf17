"""
The command line of C{twistd rtmp}: it becomes the settings of a server.

It decides nothing and builds nothing: L{twisted_rtmp.settings} checks the values, and
L{twisted_rtmp.assembly} makes the server.
"""

from __future__ import annotations

import getopt
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NoReturn, cast

from twisted.application.service import IService
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from twisted_rtmp import __version__, assembly
from twisted_rtmp.client.errors import InvalidURL
from twisted_rtmp.client.url import RTMPURL
from twisted_rtmp.fields import BadField, parsePort, readLines
from twisted_rtmp.limits import MemoryLimits, ServerLimits
from twisted_rtmp.options import (
    APPLICATION,
    GROUPS,
    HEADINGS,
    HTTP,
    LIMITS,
    MEMORY,
    OPTIONS_OF_FIELDS,
    RECORDING,
    RELAYS,
    SERVER,
    WIRE,
    parameter,
    read,
)
from twisted_rtmp.process import removeStalePIDFile
from twisted_rtmp.recording.settings import RecordingSettings
from twisted_rtmp.relay import PushTarget, parseOrigin, parsePull
from twisted_rtmp.settings import (
    RTMP_PORT,
    ApplicationSettings,
    HTTPSettings,
    RelaySettings,
    Settings,
    wireLimits,
)

#: Options that may be given several times.
_REPEATABLE = frozenset(
    (
        "application",
        "http",
        "http-host",
        "http-origin",
        "http-trusted-proxy",
        "listen",
        "pull",
        "pull-file",
        "push",
        "push-file",
        "stream-key",
        "stream-key-file",
    )
)


class Options(UsageOptions):
    """
    The options of C{twistd rtmp}.

    @ivar settings: the settings that they make, once they are parsed.
    """

    settings: Settings

    synopsis = "[options]"
    longdesc = (
        "Takes streams from RTMP encoders and records each in an FLV file."
        "  Sizes are bytes, or such as 500M or 2G; times are seconds, or such as"
        " 30m or 1h."
    )

    optFlags = [  # noqa: RUF012  usage.Options reads them from the class
        ["no-record", None, "Do not record."],
        ["once", None, "Leave when the first stream has ended."],
        [
            "no-gop-cache",
            None,
            "Let players begin with the next key frame, not with the current GOP.",
        ],
    ]

    optParameters = [  # noqa: RUF012
        parameter(
            "port",
            parsePort,
            RTMP_PORT,
            "TCP port to listen on, on all IPv4 addresses; 0 lets the system choose"
            " one.  Not used when --listen is given.",
            "p",
        ),
        *(entry for group in GROUPS for entry in group.parameters()),
    ]

    def __init__(self) -> None:
        UsageOptions.__init__(self)
        # Twisted takes a method's docstring as it stands, with its indentation.
        self.docs = {option: " ".join(doc.split()) for option, doc in self.docs.items()}
        self._parsing = False
        self._given: Counter[str] = Counter()
        self._listen: list[str] = []
        self._http: list[str] = []
        self._origins: list[str] = []
        self._hosts: list[str] = []
        self._proxies: list[str] = []
        self._pushes: list[PushTarget] = []
        self._pulls: dict[tuple[str, str], RTMPURL] = {}
        self._origin: RTMPURL | None = None
        self._applications: list[str] = []
        self._streamKeys: dict[str, str] = {}

    def opt_listen(self, description: str) -> None:
        """
        Listen on this Twisted endpoint, such as tcp6:1935 or
        ssl:443:privateKey=key.pem:certKey=cert.pem.  May be given several times.
        """
        self._listen.append(description)

    def opt_http(self, description: str) -> None:
        """
        Play live streams over HTTP and WebSocket on this Twisted endpoint, or TCP
        port, at /APPLICATION/STREAM.flv.  May be given several times.
        """
        if description.isdecimal():
            description = f"tcp:{read('http', description, parsePort)}"
        self._http.append(description)

    def opt_http_origin(self, origin: str) -> None:
        """
        Only web pages of this origin, such as https://example.org, may play.  May be
        given several times.
        """
        self._origins.append(origin)

    def opt_http_host(self, name: str) -> None:
        """
        With --http-origin: this server is also known by this name, besides those of
        the origins; .example.org means all that end so.  May be given several times.
        """
        self._hosts.append(name)

    def opt_http_trusted_proxy(self, network: str) -> None:
        """
        Believe the proxy at this address, such as 127.0.0.1, or in this network, such
        as 10.0.0.0/8, when it tells with X-Forwarded-For or Forwarded whom it speaks
        for.  May be given several times.
        """
        self._proxies.append(network)

    def opt_push(self, target: str) -> None:
        """
        Publish streams to this RTMP URL, too, under their own names if it has none;
        {app} and {stream} in it are replaced.  Only some streams: live/*=URL.  A name
        behind a space is the stream's name or key; then all of the URL's path is the
        application.  May be given several times.  Other users of the machine can see
        it: prefer --push-file.
        """
        self._addPush("--push", target)

    def opt_push_file(self, path: str) -> None:
        """Read targets, as --push takes them, from this file, one a line."""
        self._readFile("push-file", path, self._addPush)

    def _addPush(self, where: str, text: str) -> None:
        # The messages go without the URLs, which have keys and passwords.
        try:
            target = PushTarget.parse(text)
        except InvalidURL as error:
            raise UsageError(f"{where}: {error.description}.") from None
        self._pushes.append(target)

    def opt_pull(self, source: str) -> None:
        """
        Keep a stream of another server live here: APP/STREAM=URL, maybe with a name
        behind a space as of --push.  May be given several times.  Other users of the
        machine can see it: prefer --pull-file.
        """
        self._addPull("--pull", source)

    def opt_pull_file(self, path: str) -> None:
        """Read sources, as --pull takes them, from this file, one a line."""
        self._readFile("pull-file", path, self._addPull)

    def _addPull(self, where: str, text: str) -> None:
        try:
            application, name, url = parsePull(text)
        except InvalidURL as error:
            raise UsageError(f"{where}: {error.description}.") from None
        if (application, name) in self._pulls:
            raise UsageError(f"{where}: {application}/{name} must not be there twice.")
        self._pulls[application, name] = url

    def opt_origin(self, url: str) -> None:
        """
        Pull streams that are played and not published here from this RTMP URL.  Other
        users of the machine can see it: prefer --origin-file.
        """
        self._setOrigin("--origin", url)

    def opt_origin_file(self, path: str) -> None:
        """Read the URL, as --origin takes it, from this file."""
        self._readFile("origin-file", path, self._setOrigin)

    def _setOrigin(self, where: str, text: str) -> None:
        if self._origin is not None:
            raise UsageError(f"{where}: an origin must not be given twice.")
        try:
            self._origin = parseOrigin(text)
        except InvalidURL as error:
            raise UsageError(f"{where}: {error.description}.") from None

    def _readFile(
        self, option: str, path: str, take: Callable[[str, str], None]
    ) -> None:
        """
        Read a file of addresses.

        @param take: called with a place for messages, and with a line.
        @raise UsageError: it is invalid.
        """
        for number, line in _linesOf(option, path):
            take(f"--{option} {path}: line {number}", line)

    def opt_application(self, application: str) -> None:
        """
        Only this application may be published to and played.  May be given several
        times.
        """
        if not application:
            raise UsageError("--application: must not be empty; / is the empty one.")
        name = application.strip("/")
        if name in self._applications:
            raise UsageError(f"--application {application}: must not be given twice.")
        self._applications.append(name)

    def opt_stream_key(self, key: str) -> None:
        """
        Only a stream of this name may be published.  May be given several times.
        Other users of the machine can see it: prefer --stream-key-file.
        """
        if not key:
            raise UsageError("--stream-key: must not be empty.")
        self._streamKeys[key] = key

    def opt_stream_key_file(self, path: str) -> None:
        """
        Read stream keys from this file, one a line; a second word on the line is
        the name under which the stream is known.
        """
        try:
            keys = _readKeys(_linesOf("stream-key-file", path))
        except ValueError as error:
            raise UsageError(f"--stream-key-file {path}: {error}.") from None
        self._streamKeys.update(keys)

    def opt_version(self) -> NoReturn:
        """Print the version and leave."""
        print(f"twisted_rtmp {__version__}")  # noqa: T201
        raise SystemExit(0)

    def parseOptions(self, options: list[str] | None = None) -> None:
        """
        Parse, and note which options were given.

        @raise UsageError: an option is wrong; the message is one line.
        """
        try:
            given, _ = getopt.getopt(options or [], self.shortOpt, self.longOpt)
        except getopt.error:
            given = []  # the parser proper raises it again
        names = [name.lstrip("-") for name, _ in given]
        self._given = Counter(self.synonyms.get(name, name) for name in names)
        self._parsing = True
        UsageOptions.parseOptions(self, options)
        self._parsing = False

    def getUsage(self, width: int | None = None) -> str:
        """
        Explain all options; or, after an error, say where they are explained: twistd
        prints this before the message, which would be lost behind a page of text.
        """
        if self._parsing and "help" not in self._given:
            return "See twistd rtmp --help.\n"
        return _underHeadings(UsageOptions.getUsage(self, width))

    def parseArgs(self, *arguments: str) -> None:
        """
        Refuse words that belong to no option.

        @raise UsageError: there are some.
        """
        if arguments:
            raise UsageError(f"{arguments[0]!r}: must follow an option.")

    def postOptions(self) -> None:
        """
        Make the settings, and check that the server could run so.

        @raise UsageError: an option is wrong; the message is one line.
        """
        for name, times in self._given.items():
            if times > 1 and name not in _REPEATABLE:
                raise UsageError(f"--{name}: must not be given {times} times.")
        if "origin-idle" in self._given and self._origin is None:
            raise UsageError("--origin-idle: must come with --origin.")
        try:
            self.settings = self._settings()
            assembly.checkSurroundings(self.settings, _reactor())
        except BadField as error:
            option = OPTIONS_OF_FIELDS.get(error.where, error.where)
            raise UsageError(f"--{option}: {error.problem}.") from error
        if self.parent is not None and self.parent.get("pidfile"):
            removeStalePIDFile(self.parent["pidfile"])  # twistd looks at it next

    def _settings(self) -> Settings:
        given = {name: self[name] for name in self._given if name in self}
        http = HTTP.given(given)
        if self._origins:
            http["origins"] = tuple(self._origins)
        return Settings(
            listen=tuple(self._listen) or (f"tcp:{self['port']}",),
            http=HTTPSettings(
                listen=tuple(self._http),
                hosts=tuple(self._hosts),
                trustedProxies=tuple(self._proxies),
                **http,
            ),
            relays=RelaySettings(
                pushes=tuple(self._pushes),
                pulls=self._pulls,
                origin=self._origin,
                **RELAYS.given(given),
            ),
            default=ApplicationSettings(
                streamKeys=self._streamKeys,
                recording=self._recording(given),
                gopCache=not self["no-gop-cache"],
                limits=ServerLimits(
                    wire=wireLimits(**WIRE.given(given)),
                    memory=MemoryLimits(**MEMORY.given(given)),
                    **LIMITS.given(given),
                ),
                **APPLICATION.given(given),
            ),
            allowed=tuple(self._applications),
            once=bool(self["once"]),
            **SERVER.given(given),
        )

    def _recording(self, given: dict[str, object]) -> RecordingSettings | None:
        if self["no-record"]:
            for option in RECORDING.options:
                if option.name in self._given:
                    raise UsageError(
                        f"--{option.name}: must not be given with --no-record."
                    )
            return None
        # twistd changes its directory before the service starts.
        directory = self["record"] and os.path.abspath(self["record"])
        return RecordingSettings(**{**RECORDING.given(given), "directory": directory})


def _underHeadings(usage: str) -> str:
    """Put the options in Twisted's explanation of them under headings."""
    start, *explained = re.split(r"^(?=  .{4}--)", usage, flags=re.MULTILINE)
    explained[-1], _, rest = explained[-1].partition("\n\n")
    options = {re.findall(r"--([\w-]+)", text)[0]: text for text in explained}
    lines = [start.replace("Options:\n", "")]
    for heading, names in HEADINGS.items():
        lines += [f"\n{heading}:\n", *(options.pop(n, "") for n in names)]
    return "".join((*lines, *options.values(), "\n\n" + rest))


def _linesOf(option: str, path: str) -> list[tuple[int, str]]:
    """
    Read an option's file: see L{readLines}.

    @raise UsageError: it cannot be read.
    """
    try:
        return readLines(path)
    except ValueError as error:
        raise UsageError(f"--{option} {path}: {error}.") from None


def _readKeys(lines: Iterable[tuple[int, str]]) -> dict[str, str]:
    """
    Read keys with their public names.

    @param lines: each with its number.
    @raise ValueError: a line is wrong; the message does not show it.
    """
    keys: dict[str, str] = {}
    for number, line in lines:
        words = line.split()
        if len(words) > 2:
            raise ValueError(f"line {number} must have a key, and at most a name")
        if words[0] in keys:
            raise ValueError(f"line {number} must not repeat a key")
        keys[words[0]] = words[-1]
    return keys


def _reactor() -> assembly.IServerReactor:
    # twistd's own --reactor has been dealt with by now.
    from twisted.internet import reactor

    return cast("assembly.IServerReactor", reactor)


def makeService(options: Options) -> IService:
    """Make the server that the options describe, and its process."""
    isDaemon = options.parent is not None and not options.parent.get("nodaemon")
    return assembly.makeService(options.settings, _reactor(), isDaemon=isDaemon)
