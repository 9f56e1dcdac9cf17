"""The options of the command line with one value, and the fields that they set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, TypeVar

from twisted.python.usage import UsageError

from twisted_rtmp.fields import (
    memberOf,
    parseCount,
    parseDelay,
    parseDuration,
    parseSize,
)
from twisted_rtmp.limits import MemoryLimits, ServerLimits
from twisted_rtmp.live.policy import TakeOver
from twisted_rtmp.multitrack.offers import OfferFile
from twisted_rtmp.recording.settings import RecordingSettings, TrackFiles
from twisted_rtmp.settings import (
    ApplicationSettings,
    HTTPSettings,
    RelaySettings,
    Settings,
)
from twisted_rtmp.wire.limits import MIB, WireLimits

KIB = MIB // 1024
GIB = 1024 * MIB

_T = TypeVar("_T")


def _parseOfferFile(path: str) -> OfferFile:
    """
    Read the file with the offer to encoders of several tracks.

    @raise ValueError: it is invalid, or cannot be read.
    """
    try:
        return OfferFile(path)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None


def read(option: str, text: str, parse: Callable[[str], _T]) -> _T:
    """
    Read an option's value.

    @raise UsageError: it is invalid; the message is one line.
    """
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"--{option} {text!r}: {error}.") from None


def parameter(
    name: str,
    parse: Callable[[str], object],
    default: object,
    doc: str,
    short: str | None = None,
) -> list[object]:
    """Make an entry of C{optParameters}, whose errors name the option."""

    def coerce(text: str) -> object:
        return read(name, text, parse)

    return [name, short, _shown(parse, default), doc, coerce]


def _shown(parse: Callable[[str], object], default: Any) -> object:  # noqa: ANN401
    """Write a default value as it may be given."""
    if isinstance(default, Enum):
        return default.value
    if default is not None and parse in (parseDuration, parseDelay):
        return f"{default:g}s"
    if default and parse is parseSize:
        for unit, size in (("G", GIB), ("M", MIB), ("K", KIB)):
            if default % size == 0:
                return f"{default // size}{unit}"
    return default


class Option(NamedTuple):
    """
    An option with one value, which becomes a field of one of the settings' classes.

    @ivar name: the option's, without the hyphens.
    @ivar parse: reads the value; raises L{ValueError}.
    @ivar field: the name of the field.
    @ivar doc: the explanation in the help.
    """

    name: str
    parse: Callable[[str], object]
    field: str
    doc: str


class Group(NamedTuple):
    """
    The options that become fields of one class.

    @ivar prefix: what L{BadField} puts before the names of its fields.
    @ivar defaults: an object of that class with the values by default.
    @ivar options: the options.
    """

    prefix: str
    defaults: object
    options: Sequence[Option]

    def parameters(self) -> list[list[object]]:
        """Make the entries of C{optParameters}."""
        return [
            parameter(
                each.name, each.parse, getattr(self.defaults, each.field), each.doc
            )
            for each in self.options
        ]

    def given(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """
        Pick the values of options that were given.

        @param values: those, by option.
        @return: by field.
        """
        return {
            each.field: values[each.name]
            for each in self.options
            if each.name in values
        }


RECORDING = Group(
    "recording.",
    RecordingSettings("recordings"),
    [
        Option("record", str, "directory", "Folder for recordings."),
        Option(
            "record-name",
            str,
            "name",
            "Names of recordings, with {app}, {stream} and strftime's fields (UTC).",
        ),
        Option(
            "rotate-seconds",
            parseDuration,
            "rotateSeconds",
            "Begin a new file at the first key frame after this time.",
        ),
        Option(
            "rotate-size",
            parseSize,
            "rotateBytes",
            "Begin a new file at the first key frame after this size.",
        ),
        Option(
            "record-tracks",
            memberOf(TrackFiles),
            "tracks",
            "The tracks of a stream: together in one file as they came, or separate,"
            " each further track in a file beside it.",
        ),
        Option(
            "record-min-free",
            parseSize,
            "minFree",
            "Stop recording while the disk has less than this free.",
        ),
        Option(
            "record-fsync",
            parseDuration,
            "fsyncSeconds",
            "Wait for the disk itself this often: a power failure loses no more.",
        ),
    ],
)

APPLICATION = Group(
    "",
    ApplicationSettings(),
    [
        Option(
            "pipe",
            str,
            "pipe",
            "Run this command for each stream, with the stream as FLV on its standard"
            " input; {app} and {stream} are replaced.",
        ),
        Option(
            "takeover",
            memberOf(TakeOver),
            "takeOver",
            "When a second publisher may have a stream's name: silent (once the first"
            " has gone silent), never, or always.",
        ),
        Option(
            "grace",
            parseDelay,
            "grace",
            "Time that a stream, with its players and recording, waits for its"
            " publisher to come back.",
        ),
    ],
)

SERVER = Group(
    "",
    Settings(),
    [
        Option(
            "latency",
            parseDelay,
            "latency",
            "Time that a message may wait to be sent with others when there is much to"
            " do; 0 sends each at once.",
        ),
    ],
)

RELAYS = Group(
    "relays.",
    RelaySettings(),
    [
        Option(
            "origin-idle",
            parseDelay,
            "originIdleSeconds",
            "Time that a stream from the origin is kept without players.",
        ),
    ],
)

HTTP = Group(
    "http.",
    HTTPSettings(),
    [
        Option(
            "multitrack-config",
            _parseOfferFile,
            "multitrack",
            "JSON file of the tracks that are offered to encoders, which POST to"
            " /multitrack-config (needs --http).",
        ),
    ],
)

LIMITS = Group(
    "limits.",
    ServerLimits(),
    [
        Option("max-connections", parseCount, "connections", "Connections at once."),
        Option(
            "max-net-streams",
            parseCount,
            "netStreams",
            "Message streams of a connection.",
        ),
        Option(
            "max-queued-replies",
            parseSize,
            "queuedReplyBytes",
            "Size of the replies that a peer has not taken.",
        ),
        Option(
            "handshake-timeout",
            parseDuration,
            "handshakeSeconds",
            "Time from a new connection to the end of its handshake.",
        ),
        Option(
            "request-timeout",
            parseDuration,
            "requestSeconds",
            "Time from a new connection, or the last answer, to a whole HTTP request.",
        ),
        Option(
            "connect-timeout",
            parseDuration,
            "connectSeconds",
            "Time from the handshake to the connect command.",
        ),
        Option(
            "idle-timeout",
            parseDuration,
            "idleSeconds",
            "Time that a connection may neither publish nor play.",
        ),
        Option(
            "publisher-idle",
            parseDuration,
            "publisherIdleSeconds",
            "Time that a publisher may send no audio or video.",
        ),
        Option(
            "player-wait",
            parseDuration,
            "playerWaitSeconds",
            "Time that a player may wait for a stream that nobody publishes.",
        ),
        Option(
            "drain-timeout",
            parseDuration,
            "drainSeconds",
            "Time that a peer may take nothing of what is queued for it.",
        ),
        Option(
            "silent-seconds",
            parseDuration,
            "silentSeconds",
            "Silence after which another publisher may have a stream's name.",
        ),
        Option(
            "stop-timeout",
            parseDuration,
            "stopSeconds",
            "Time that finishing everything may take.",
        ),
    ],
)

WIRE = Group(
    "limits.wire.",
    WireLimits(),
    [
        Option(
            "max-message",
            parseSize,
            "messageSize",
            "Size of one message; a key frame has to fit.",
        ),
        Option(
            "max-unfinished",
            parseSize,
            "unfinishedBytes",
            "Size of all unfinished messages of a connection.",
        ),
        Option(
            "max-chunk-streams",
            parseCount,
            "chunkStreams",
            "Chunk streams of a connection.",
        ),
    ],
)

MEMORY = Group(
    "limits.memory.",
    MemoryLimits(),
    [
        Option(
            "max-memory",
            parseSize,
            "serverBytes",
            "Memory that all peers together may make the server keep.",
        ),
    ],
)

GROUPS = (RECORDING, APPLICATION, SERVER, RELAYS, HTTP, LIMITS, WIRE, MEMORY)

#: The order in which the help explains the options; those of L{LIMITS}, L{WIRE} and
#: L{MEMORY} come last.
HEADINGS = {
    "Listening": (
        "port",
        "listen",
        "http",
        "http-origin",
        "http-host",
        "http-trusted-proxy",
        "multitrack-config",
    ),
    "Publishing and playing": (
        "application",
        "stream-key",
        "stream-key-file",
        "takeover",
        "grace",
        "no-gop-cache",
        "latency",
        "once",
    ),
    "Recording": ("no-record", *(option.name for option in RECORDING.options), "pipe"),
    "Other servers": (
        "push",
        "push-file",
        "pull",
        "pull-file",
        "origin",
        "origin-file",
        "origin-idle",
    ),
    "Limits": tuple(
        option.name for group in (MEMORY, LIMITS, WIRE) for option in group.options
    ),
    "Help": ("help", "version"),
}

#: The option to name where a field is wrong.
OPTIONS_OF_FIELDS = {
    group.prefix + option.field: option.name
    for group in GROUPS
    for option in group.options
} | {
    "listen": "listen",
    "http.listen": "http",
    "http.origins": "http-origin",
    "http.hosts": "http-host",
    "http.trustedProxies": "http-trusted-proxy",
    "relays.pushes": "push",
    "streamKeys": "stream-key",
}
