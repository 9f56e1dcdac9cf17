"""The options of the command line with one value, and the fields that they set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, TypeVar

from twisted.python.usage import UsageError

from twisted_rtmp.client.errors import InvalidURL
from twisted_rtmp.client.url import RTMPURL
from twisted_rtmp.fields import (
    memberOf,
    parseCount,
    parseDelay,
    parseDuration,
    parseSize,
)
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.live.policy import TakeOver
from twisted_rtmp.multitrack.offers import OfferFile
from twisted_rtmp.recording.settings import RecordingSettings, TrackFiles
from twisted_rtmp.relay import parseOrigin
from twisted_rtmp.settings import (
    ApplicationSettings,
    HTTPSettings,
    RelaySettings,
    Settings,
)
from twisted_rtmp.wire.limits import WireLimits

_T = TypeVar("_T")


def _parseOrigin(text: str) -> RTMPURL:
    """
    Read an origin's URL.

    @raise ValueError: it is invalid.
    """
    try:
        return parseOrigin(text)
    except InvalidURL as error:
        raise ValueError(error.description) from None


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

    shown = default.value if isinstance(default, Enum) else default
    return [name, short, shown, doc, coerce]


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
        Option("record", str, "directory", "Directory for recordings."),
        Option(
            "record-name",
            str,
            "name",
            "Names of recordings: strftime fields (UTC), {app} and {stream}.",
        ),
        Option(
            "rotate-seconds",
            parseDuration,
            "rotateSeconds",
            "Begin a new file after this time, at a key frame.",
        ),
        Option(
            "rotate-size",
            parseSize,
            "rotateBytes",
            "Begin a new file after this size, at a key frame.",
        ),
        Option(
            "record-tracks",
            memberOf(TrackFiles),
            "tracks",
            "Where the tracks of a stream go: together in its file as they came, or"
            " separate: each further track in a file beside it.",
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
            "Force recordings to the disk this often.",
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
            "Run this for each stream, fed its FLV; {app} and {stream} are replaced.",
        ),
        Option(
            "takeover",
            memberOf(TakeOver),
            "takeOver",
            "When a second publisher wants a name: silent (it gets it once the first"
            " has gone silent), never, or always.",
        ),
        Option(
            "grace",
            parseDelay,
            "grace",
            "Seconds that a stream, with its players and recording, waits for its"
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
            "Seconds that a message may wait to be sent with others when there is much"
            " to do; 0 sends each at once.",
        ),
    ],
)

RELAYS = Group(
    "relays.",
    RelaySettings(),
    [
        Option(
            "origin",
            _parseOrigin,
            "origin",
            "Pull streams that are played and not published here from this RTMP URL.",
        ),
        Option(
            "origin-idle",
            parseDelay,
            "originIdleSeconds",
            "Seconds that a stream from the origin is kept without players.",
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
            "Message streams a connection.",
        ),
        Option(
            "max-queued-replies",
            parseSize,
            "queuedReplyBytes",
            "Bytes queued for a peer that does not read its replies.",
        ),
        Option(
            "handshake-timeout",
            parseDuration,
            "handshakeSeconds",
            "Seconds from accept to the end of the handshake.",
        ),
        Option(
            "request-timeout",
            parseDuration,
            "requestSeconds",
            "Seconds from accept, or the last answer, to a complete HTTP request.",
        ),
        Option(
            "connect-timeout",
            parseDuration,
            "connectSeconds",
            "Seconds from the handshake to connect.",
        ),
        Option(
            "idle-timeout",
            parseDuration,
            "idleSeconds",
            "Seconds a connection may neither publish nor play.",
        ),
        Option(
            "publisher-idle",
            parseDuration,
            "publisherIdleSeconds",
            "Seconds a publisher may send no audio or video.",
        ),
        Option(
            "player-wait",
            parseDuration,
            "playerWaitSeconds",
            "Seconds a player may wait for a stream that nobody publishes.",
        ),
        Option(
            "drain-timeout",
            parseDuration,
            "drainSeconds",
            "Seconds a peer may leave what is queued for it.",
        ),
        Option(
            "silent-seconds",
            parseDuration,
            "silentSeconds",
            "Seconds without media after which a publisher's name may be taken over.",
        ),
        Option(
            "stop-timeout",
            parseDuration,
            "stopSeconds",
            "Seconds that finishing everything may take.",
        ),
    ],
)

WIRE = Group(
    "limits.wire.",
    WireLimits(),
    [
        Option("max-message", parseSize, "messageSize", "Bytes of one message."),
        Option(
            "max-unfinished",
            parseSize,
            "unfinishedBytes",
            "Bytes of all unfinished messages of a connection.",
        ),
        Option(
            "max-chunk-streams",
            parseCount,
            "chunkStreams",
            "Chunk streams a connection.",
        ),
    ],
)

GROUPS = (RECORDING, APPLICATION, SERVER, RELAYS, HTTP, LIMITS, WIRE)

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
