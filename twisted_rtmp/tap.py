"""
The C{twistd rtmp} command: its options, and the service they describe.

Must not import a reactor, and decides nothing: each option becomes an argument
of the class that acts on it.
"""

from __future__ import annotations

import getopt
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from twisted.application.service import IService, MultiService, Service
from twisted.internet.endpoints import serverFromString
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from twisted_rtmp import __version__
from twisted_rtmp.auth import AllowList
from twisted_rtmp.client import RTMPURL, InvalidURL
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.fields import (
    memberOf,
    parseCount,
    parseDelay,
    parseDuration,
    parsePort,
    parseSize,
)
from twisted_rtmp.interfaces import ISinkFactory
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.live.pacing import LATENCY_SECONDS
from twisted_rtmp.live.policy import TakeOver
from twisted_rtmp.live.registry import Registry
from twisted_rtmp.multitrack.offers import OfferFile
from twisted_rtmp.multitrack.resource import MULTITRACK_PATH, MultitrackResource
from twisted_rtmp.pipes import PipeSinks, parseCommand
from twisted_rtmp.proxied import proxiedEndpoint
from twisted_rtmp.recording import DEFAULT_NAME, Recordings, RecordName
from twisted_rtmp.recording.recordings import MIN_FREE
from twisted_rtmp.relay import (
    Origin,
    PullRelay,
    PushRelays,
    PushTarget,
    parseOrigin,
    parsePull,
)
from twisted_rtmp.relay.origin import IDLE_SECONDS
from twisted_rtmp.service import Listener, RTMPService, ServerProcess
from twisted_rtmp.web import HTTPSite
from twisted_rtmp.web.answers import Origins
from twisted_rtmp.wire.constants import MAX_MESSAGE_LENGTH
from twisted_rtmp.wire.limits import WireLimits

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorCore, IStreamServerEndpoint

#: The port IANA has registered for RTMP (macromedia-fcs).
RTMP_PORT = 1935

#: Options that may be given several times.
_REPEATABLE = frozenset(
    (
        "application",
        "http",
        "http-origin",
        "listen",
        "pull",
        "push",
        "push-file",
        "stream-key",
        "stream-key-file",
    )
)

#: Connections that the system accepts before the server gets to them.  Twisted
#: asks for 50, and a second's burst of encoders after a network came back is
#: thousands; the system cuts the number to its own bound (net.core.somaxconn,
#: 4096 on Linux since 5.4, 128 on macOS).
LISTEN_BACKLOG = 1024

#: The longest latency that may be asked for, in seconds.  A publisher is not read for
#: so long: after ten it would be cut for its silence, and players would lose what they
#: got at once.
MAX_LATENCY_SECONDS = 5.0

_T = TypeVar("_T")


def _parseLatency(text: str) -> float:
    """
    Read a latency, in seconds.

    @raise ValueError: it is no time, or too long.
    """
    seconds = parseDelay(text)
    if seconds > MAX_LATENCY_SECONDS:
        raise ValueError(f"must be at most {MAX_LATENCY_SECONDS:g} s")
    return seconds


def _parseOrigin(text: str) -> RTMPURL:
    """
    Read an origin's URL.

    @raise ValueError: it is none.
    """
    try:
        return parseOrigin(text)
    except InvalidURL as error:
        raise ValueError(error.description) from None


def parseOfferFile(text: str) -> OfferFile:
    """
    Read the file of what encoders of several tracks are offered.

    @raise ValueError: it is not right, or not to be read.
    """
    try:
        return OfferFile(text)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None


def parseTracks(text: str) -> str:
    """
    Read where the tracks of a recording go: C{together} or C{separate}.

    @raise ValueError: it is neither.
    """
    if text not in ("together", "separate"):
        raise ValueError("must be one of together, separate")
    return text


def endpointFromString(
    reactor: IReactorCore, description: str
) -> IStreamServerEndpoint:
    """
    Make an endpoint whose backlog is L{LISTEN_BACKLOG}, if it has one and its
    description does not say another.

    @raise Exception: whatever the endpoint's own parser raises.
    """
    if not re.search(r"(?<!\\):backlog=", description):
        try:
            return _parsed(reactor, f"{description}:backlog={LISTEN_BACKLOG}")
        except (TypeError, ValueError):
            pass  # it takes no backlog, had it by position, or is wrong anyway
    return _parsed(reactor, description)


def _parsed(reactor: IReactorCore, description: str) -> IStreamServerEndpoint:
    kind, _, rest = description.partition(":")
    if kind == "haproxy":
        return proxiedEndpoint(_parsed(reactor, rest))
    endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    return endpoint


def _of(option: str, parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """Make a parser whose errors name their option."""

    def coerce(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise UsageError(f"--{option} {text!r}: {error}.") from None

    return coerce


def _parameter(
    option: str,
    parse: Callable[[str], object],
    default: object,
    doc: str,
    short: str | None = None,
) -> list[object]:
    """Make an entry of C{optParameters}."""
    return [option, short, default, doc, _of(option, parse)]


# Option, parser, field of ServerLimits, what it says.
_SERVER_LIMITS: list[tuple[str, Callable[[str], object], str, str]] = [
    ("max-connections", parseCount, "connections", "Connections at once."),
    ("max-net-streams", parseCount, "netStreams", "Message streams a connection."),
    (
        "max-queued-replies",
        parseSize,
        "queuedReplyBytes",
        "Bytes queued for a peer that does not read its replies.",
    ),
    (
        "handshake-timeout",
        parseDuration,
        "handshakeSeconds",
        "Seconds from accept to the end of the handshake.",
    ),
    (
        "connect-timeout",
        parseDuration,
        "connectSeconds",
        "Seconds from the handshake to connect.",
    ),
    (
        "idle-timeout",
        parseDuration,
        "idleSeconds",
        "Seconds a connection may neither publish nor play.",
    ),
    (
        "publisher-idle",
        parseDuration,
        "publisherIdleSeconds",
        "Seconds a publisher may send no audio or video.",
    ),
    (
        "player-wait",
        parseDuration,
        "playerWaitSeconds",
        "Seconds a player may wait for a stream that nobody publishes.",
    ),
    (
        "drain-timeout",
        parseDuration,
        "drainSeconds",
        "Seconds a peer may leave what is queued for it.",
    ),
    (
        "silent-seconds",
        parseDuration,
        "silentSeconds",
        "Seconds without media after which a publisher's name may be taken over.",
    ),
    (
        "stop-timeout",
        parseDuration,
        "stopSeconds",
        "Seconds that finishing everything may take.",
    ),
]

# The same for WireLimits.
_WIRE_LIMITS: list[tuple[str, Callable[[str], object], str, str]] = [
    ("max-message", parseSize, "messageSize", "Bytes of one message."),
    (
        "max-unfinished",
        parseSize,
        "unfinishedBytes",
        "Bytes of all unfinished messages of a connection.",
    ),
    (
        "max-chunk-streams",
        parseCount,
        "chunkStreams",
        "Chunk streams a connection.",
    ),
]


class Options(UsageOptions):
    """
    What C{twistd rtmp} can be told.

    After parsing, C{self["listeners"]}, C{self["http-listeners"]},
    C{self["push-targets"]}, C{self["pull-sources"]}, C{self["limits"]} and
    C{self["authorizer"]} hold the finished parts.
    """

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
        _parameter(
            "port",
            parsePort,
            RTMP_PORT,
            "TCP port to listen on, on all IPv4 addresses; 0 lets the system choose"
            " one.  Not used when --listen is given.",
            "p",
        ),
        ["record", None, "recordings", "Directory for recordings."],
        [
            "record-name",
            None,
            DEFAULT_NAME,
            "Names of recordings: strftime fields (UTC), {app} and {stream}.",
        ],
        _parameter(
            "rotate-seconds",
            parseDuration,
            None,
            "Begin a new file after this time, at a key frame.",
        ),
        _parameter(
            "rotate-size",
            parseSize,
            None,
            "Begin a new file after this size, at a key frame.",
        ),
        _parameter(
            "record-tracks",
            parseTracks,
            "together",
            "Where the tracks of a stream go: together in its file as they came, or"
            " separate: each further track in a file beside it.",
        ),
        _parameter(
            "record-min-free",
            parseSize,
            MIN_FREE,
            "Stop recording while the disk has less than this free.",
        ),
        _parameter(
            "record-fsync",
            parseDuration,
            None,
            "Force recordings to the disk this often.",
        ),
        [
            "pipe",
            None,
            None,
            "Run this for each stream, fed its FLV; {app} and {stream} are replaced.",
        ],
        _parameter(
            "takeover",
            memberOf(TakeOver),
            TakeOver.WHEN_SILENT.value,
            "When a second publisher wants a name: silent (it gets it once the first"
            " has gone silent), never, or always.",
        ),
        _parameter(
            "grace",
            parseDelay,
            0.0,
            "Seconds that a stream, with its players and recording, waits for its"
            " publisher to come back.",
        ),
        _parameter(
            "latency",
            _parseLatency,
            LATENCY_SECONDS,
            "Seconds that a message may wait to be sent with others when there is much"
            " to do; 0 sends each at once.",
        ),
        _parameter(
            "origin",
            _parseOrigin,
            None,
            "Pull streams that are played and not published here from this RTMP URL.",
        ),
        _parameter(
            "origin-idle",
            parseDelay,
            IDLE_SECONDS,
            "Seconds that a stream from the origin is kept without players.",
        ),
        _parameter(
            "multitrack-config",
            parseOfferFile,
            None,
            "JSON file of the tracks that encoders are offered, by POST to"
            " /multitrack-config (needs --http).",
        ),
        *(
            _parameter(option, parse, getattr(limits, field), doc)
            for limits, table in (
                (ServerLimits(), _SERVER_LIMITS),
                (WireLimits(), _WIRE_LIMITS),
            )
            for option, parse, field, doc in table
        ),
    ]

    def __init__(self) -> None:
        UsageOptions.__init__(self)
        # Twisted takes a method's docstring as it stands, with its indentation.
        self.docs = {option: " ".join(doc.split()) for option, doc in self.docs.items()}
        self._parsing = False
        self._given: Counter[str] = Counter()
        self._descriptions: list[str] = []
        self._httpDescriptions: list[str] = []
        self._httpOrigins: list[str] = []
        self._pushTargets: list[PushTarget] = []
        self._pullSources: dict[tuple[str, str], RTMPURL] = {}
        self._applications: list[str] = []
        self._streamKeys: dict[str, str] = {}

    def opt_listen(self, description: str) -> None:
        """
        Listen on this Twisted endpoint, such as tcp6:1935 or
        ssl:443:privateKey=key.pem:certKey=cert.pem.  May be given several times.
        """
        if description in self._descriptions:
            raise UsageError(f"--listen {description}: given twice.")
        self._descriptions.append(description)

    def opt_http(self, description: str) -> None:
        """
        Play live streams by HTTP and WebSocket on this Twisted endpoint, or TCP port,
        at /APPLICATION/STREAM.flv.  May be given several times.
        """
        if description in self._httpDescriptions:
            raise UsageError(f"--http {description}: given twice.")
        self._httpDescriptions.append(description)

    def opt_http_origin(self, origin: str) -> None:
        """
        Only web pages of this origin, such as https://example.org, may play.  May be
        given several times.
        """
        if not re.fullmatch(r"https?://[^/\s]+", origin):
            raise UsageError(
                f"--http-origin {origin}: an origin is like https://example.org."
            )
        self._httpOrigins.append(origin)

    def opt_push(self, target: str) -> None:
        """
        Publish streams at this RTMP URL, too, under their own names if it has none;
        {app} and {stream} in it are replaced.  Only some streams: live/*=URL.  May be
        given several times.  Other users of the machine can see it: prefer
        --push-file.
        """
        self._addPush("push", target)

    def opt_push_file(self, path: str) -> None:
        """Read targets, as --push takes them, from this file, one a line."""
        try:
            with open(path, encoding="utf-8") as file:
                lines = [line.strip() for line in file]
        except UnicodeDecodeError:
            raise UsageError(f"--push-file {path}: it is not UTF-8.") from None
        except OSError as error:
            raise UsageError(f"--push-file {path}: {error}.") from None
        targets = [line for line in lines if line and not line.startswith("#")]
        if not targets:
            raise UsageError(f"--push-file {path}: there is no target in it.")
        for target in targets:
            self._addPush(f"push-file {path}", target)

    def _addPush(self, option: str, text: str) -> None:
        # What is wrong is told without the URL: it has keys and passwords.
        try:
            target = PushTarget.parse(text)
        except InvalidURL as error:
            raise UsageError(f"--{option}: {error.description}.") from None
        if target in self._pushTargets:
            raise UsageError(f"--{option}: {target.url} is given twice.")
        self._pushTargets.append(target)

    def opt_pull(self, source: str) -> None:
        """
        Keep a stream of another server live here: APP/STREAM=URL.  May be given
        several times.
        """
        try:
            application, name, url = parsePull(source)
        except InvalidURL as error:
            raise UsageError(f"--pull: {error.description}.") from None
        if (application, name) in self._pullSources:
            raise UsageError(f"--pull {application}/{name}: given twice.")
        self._pullSources[application, name] = url

    def opt_application(self, application: str) -> None:
        """Only this application may be published to.  May be given several times."""
        self._applications.append(application.strip("/"))

    def opt_stream_key(self, key: str) -> None:
        """
        Only a stream of this name may be published.  May be given several times.
        Other users of the machine can see it: prefer --stream-key-file.
        """
        if not key:
            raise UsageError("--stream-key: a key cannot be empty.")
        self._streamKeys[key] = key

    def opt_stream_key_file(self, path: str) -> None:
        """
        Read stream keys from this file, one a line; a second word on the line is
        the name under which the stream is known.
        """
        try:
            with open(path, encoding="utf-8") as file:
                keys = _readKeys(file)
        except UnicodeDecodeError:
            raise UsageError(f"--stream-key-file {path}: it is not UTF-8.") from None
        except (OSError, ValueError) as error:
            raise UsageError(f"--stream-key-file {path}: {error}.") from None
        if not keys:
            raise UsageError(f"--stream-key-file {path}: there is no key in it.")
        self._streamKeys.update(keys)

    def opt_version(self) -> NoReturn:
        """Print the version and leave."""
        print(f"twisted_rtmp {__version__}")  # noqa: T201
        raise SystemExit(0)

    def parseOptions(self, options: list[str] | None = None) -> None:
        """
        Parse, and note which options were given.

        @raise UsageError: something is wrong; the message is one line.
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
        Tell all options; or, after an error, where they are told: twistd prints
        this in front of the message, which is not to be lost in a page of text.
        """
        if self._parsing and "help" not in self._given:
            return "See twistd rtmp --help.\n"
        usage: str = UsageOptions.getUsage(self, width)
        return usage

    def postOptions(self) -> None:
        """
        Check what depends on more than one option, and build the parts.

        @raise UsageError: something is wrong; the message is one line.
        """
        for name, times in self._given.items():
            if times > 1 and name not in _REPEATABLE:
                raise UsageError(f"--{name}: given {times} times.")
        self._checkRecording()
        if self["pipe"] is not None:
            try:
                parseCommand(self["pipe"])
            except ValueError as error:
                raise UsageError(f"--pipe: {error}.") from None
        self["limits"] = self._limits()
        self["listeners"] = _listeners(
            "listen", self._descriptions or [f"tcp:{self['port']}"]
        )
        if self._httpOrigins and not self._httpDescriptions:
            raise UsageError("--http-origin: where?  There is no --http.")
        self["http-listeners"] = _listeners("http", self._httpDescriptions)
        self["http-origins"] = self._httpOrigins or ["*"]
        self._checkMultitrack()
        self["push-targets"] = self._pushTargets
        self["pull-sources"] = self._pullSources
        if "origin-idle" in self._given and self["origin"] is None:
            raise UsageError("--origin-idle: of what?  There is no --origin.")
        self["authorizer"] = None
        if self._applications or self._streamKeys:
            self["authorizer"] = AllowList(self._applications, self._streamKeys)

    def _checkMultitrack(self) -> None:
        file = self["multitrack-config"]
        if file is None:
            return
        if not self._httpDescriptions:
            raise UsageError("--multitrack-config: where?  There is no --http.")
        unix = (each.description.startswith("unix:") for each in self["listeners"])
        if not file.offer.endpoints and all(unix):
            raise UsageError(
                f"--multitrack-config {file.path}: ingest_endpoints: is missing, and"
                " needed since the server listens on no TCP port."
            )

    def _checkRecording(self) -> None:
        if self["no-record"]:
            for name in self._given:
                if name.startswith(("record", "rotate")):
                    raise UsageError(f"--no-record and --{name}: which of them?")
            return
        try:
            RecordName(self["record-name"])
        except ValueError as error:
            raise UsageError(f"--record-name: {error}.") from None
        if not self["record"]:
            raise UsageError("--record: a directory is needed, or --no-record.")
        # twistd changes its directory before the service starts.
        self["record"] = os.path.abspath(self["record"])
        folder = self["record"]
        while not os.path.lexists(folder):
            folder = os.path.dirname(folder)
        if not os.path.isdir(folder):
            raise UsageError(f"--record {self['record']}: {folder} is no directory.")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UsageError(f"--record {self['record']}: {folder} is not writable.")

    def _limits(self) -> ServerLimits:
        if self["max-message"] > MAX_MESSAGE_LENGTH:
            raise UsageError(
                f"--max-message: RTMP has messages up to {MAX_MESSAGE_LENGTH} bytes."
            )
        if self["max-unfinished"] < self["max-message"]:
            if "max-unfinished" in self._given:
                raise UsageError("--max-unfinished: less than --max-message.")
            standard = WireLimits()
            self["max-unfinished"] = self["max-message"] + (
                standard.unfinishedBytes - standard.messageSize
            )
        return ServerLimits(
            wire=WireLimits(
                **{field: self[option] for option, _, field, _ in _WIRE_LIMITS}
            ),
            **{field: self[option] for option, _, field, _ in _SERVER_LIMITS},
        )


def _listeners(option: str, descriptions: Iterable[str]) -> list[Listener]:
    """
    Make endpoints of their descriptions.

    @raise UsageError: one is wrong; the message is one line.
    """
    # twistd's own --reactor has been dealt with by now.
    from twisted.internet import reactor

    listeners = []
    for description in descriptions:
        try:
            if option == "http" and description.isdecimal():
                description = f"tcp:{parsePort(description)}"
            endpoint = endpointFromString(reactor, description)
        except Exception as error:  # parsers are plugins, which raise anything
            raise UsageError(f"--{option} {description}: {_said(error)}") from error
        listeners.append(Listener(description, endpoint))
    return listeners


def _said(error: Exception) -> str:
    """Put an endpoint parser's error into words for whoever wrote the endpoint."""
    text = str(error)
    if isinstance(error, LookupError):
        return f"there is nothing of that index or name ({text})."
    if isinstance(error, ImportError):
        return f"{text} (TLS: pip install 'twisted-rtmp[tls]')."
    # Python begins with the name of a function of Twisted's.
    return re.sub(r"^[\w.]+\(\) ", "", text) or type(error).__name__


def _readKeys(lines: Iterable[str]) -> dict[str, str]:
    """
    Read keys with their public names; empty lines and # comments are none.

    @raise ValueError: a line is wrong; the message does not show it.
    """
    keys: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 2:
            raise ValueError(f"line {number} has more than a key and a name")
        if words[0] in keys:
            raise ValueError(f"the key in line {number} is there twice")
        keys[words[0]] = words[-1]
    return keys


def makeService(options: Options) -> IService:
    """
    Build what the options say.

    @return: the server, and what a process of its own needs around it.
    """
    from twisted.internet import reactor as installed

    # Each part names the interfaces that it needs; the installed reactor has all.
    reactor: Any = installed
    recordings = None
    sinkFactories: list[ISinkFactory] = []
    if not options["no-record"]:
        arguments = _recordingOptions(options)
        recordings = Recordings(reactor, options["record"], **arguments)
        sinkFactories.append(recordings)
    if options["pipe"] is not None:
        sinkFactories.append(PipeSinks(reactor, options["pipe"]))
    factory = RTMPFactory(
        reactor,
        authorizer=options["authorizer"],
        sinkFactories=sinkFactories,
        limits=options["limits"],
        takeOver=TakeOver(options["takeover"]),
        grace=options["grace"],
        latency=options["latency"],
        gopCache=not options["no-gop-cache"],
    )
    process = ServerProcess(reactor)
    if options["once"]:
        factory.streamEnded.append(lambda stream: process.leave())
    site = HTTPSite(reactor, factory.registry, origins=options["http-origins"])
    httpListeners = [
        Listener(f"HTTP, {description}", endpoint, site)
        for description, endpoint, _ in options["http-listeners"]
    ]
    server = RTMPService(
        reactor,
        factory,
        [*options["listeners"], *httpListeners],
        recordings=recordings,
        relays=_relays(reactor, factory.registry, options),
        listenFailed=process.fail,
    )
    if options["multitrack-config"] is not None:
        multitrack = MultitrackResource(
            factory.registry,
            options["multitrack-config"],
            lambda: server.ingests,
            Origins(options["http-origins"]),
        )
        site.root.putChild(MULTITRACK_PATH, multitrack)
    service = MultiService()
    parts: tuple[Service, ...] = (process, server)
    for part in parts:
        part.setServiceParent(service)
    return service


def _relays(
    reactor: Any,  # noqa: ANN401  see makeService
    registry: Registry,
    options: Options,
) -> list[Service]:
    """Build what takes streams to other servers and from them."""
    relays: list[Service] = [
        PullRelay(reactor, registry, application, name, url)
        for (application, name), url in options["pull-sources"].items()
    ]
    if options["origin"] is not None:
        idle = options["origin-idle"]
        relays.append(Origin(reactor, registry, options["origin"], idleSeconds=idle))
    if options["push-targets"]:
        relays.append(PushRelays(reactor, registry, options["push-targets"]))
    return relays


def _recordingOptions(options: Options) -> dict[str, Any]:
    """Pick what was given: the recorder knows its own defaults."""
    arguments = {
        "name": options["record-name"],
        "rotateSeconds": options["rotate-seconds"],
        "rotateBytes": options["rotate-size"],
        "minFree": options["record-min-free"],
        "fsyncSeconds": options["record-fsync"],
        "separateTracks": options["record-tracks"] == "separate",
    }
    return {name: value for name, value in arguments.items() if value is not None}
