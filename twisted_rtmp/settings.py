"""
The settings of a server: everything that can be set, whoever sets it.

The command line makes these objects, and so may an application.  Each checks its values
when it is made, and its errors name the field, as C{recording.rotateBytes}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from twisted_rtmp.client.url import RTMPURL
from twisted_rtmp.fields import BadField
from twisted_rtmp.interfaces import IAuthorizer, ISinkFactory
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.live.pacing import LATENCY_SECONDS
from twisted_rtmp.live.policy import TakeOver
from twisted_rtmp.multitrack.offers import OfferFile
from twisted_rtmp.pipes import Command
from twisted_rtmp.recording.settings import RecordingSettings
from twisted_rtmp.relay.origin import IDLE_SECONDS, MAX_PULLS, PULL_SHARE
from twisted_rtmp.relay.targets import PushTarget
from twisted_rtmp.web.cors import parseHost, parseOrigin
from twisted_rtmp.web.forwarded import parseNetwork
from twisted_rtmp.wire.constants import MAX_MESSAGE_LENGTH
from twisted_rtmp.wire.limits import WireLimits

__all__ = [
    "MAX_LATENCY_SECONDS",
    "RTMP_PORT",
    "ApplicationSettings",
    "HTTPSettings",
    "RecordingSettings",
    "RelaySettings",
    "Settings",
    "checkLimits",
    "wireLimits",
]

#: The port IANA has registered for RTMP (macromedia-fcs).
RTMP_PORT = 1935

#: The longest latency, in seconds.  A publisher is not read for that long: after ten
#: seconds it would be cut for its silence, and players would lose media that comes at
#: once.
MAX_LATENCY_SECONDS = 5.0

#: The room for other unfinished messages beside one of the largest size, in bytes.
_UNFINISHED_ROOM = WireLimits().unfinishedBytes - WireLimits().messageSize


@dataclass(frozen=True)
class ApplicationSettings:
    """
    The settings of one application.

    @ivar streamKeys: the keys with which a stream may be published, each with the name
        under which the stream is then known; empty: any name may be published.
    @ivar authorizer: decides who may connect, publish and play, instead of the keys.
    @ivar recording: how streams are recorded; L{None}: not at all.
    @ivar pipe: the command that is run for each stream; L{None}: none.
    @ivar sinkFactories: each gives every stream a further sink, or none.
    @ivar takeOver: the answer to a second publisher of a stream's name.
    @ivar grace: how long a stream waits for its publisher to come back, in seconds.
    @ivar gopCache: whether players begin with the current GOP.
    @ivar limits: the bounds of the application's peers.  Those of all connections
        together, of addresses and of the time to stop are the server's: only the
        default application's count.
    """

    streamKeys: Mapping[str, str] = field(default_factory=dict, repr=False)
    authorizer: IAuthorizer | None = None
    recording: RecordingSettings | None = None
    pipe: str | None = None
    sinkFactories: Sequence[ISinkFactory] = ()
    takeOver: TakeOver = TakeOver.WHEN_SILENT
    grace: float = 0.0
    gopCache: bool = True
    limits: ServerLimits = field(default_factory=ServerLimits)

    def __post_init__(self) -> None:
        """
        Check each value.

        @raise BadField: one is invalid.
        """
        if "" in self.streamKeys:
            raise BadField("streamKeys", "must not have an empty key")
        if self.authorizer is not None and self.streamKeys:
            raise BadField("authorizer", "must not stand beside streamKeys")
        if self.pipe is not None:
            try:
                Command(self.pipe)
            except ValueError as error:
                raise BadField("pipe", str(error)) from None
        if not self.grace >= 0:
            raise BadField("grace", "must not be negative")
        checkLimits(self.limits)


@dataclass(frozen=True)
class HTTPSettings:
    """
    The settings of HTTP and WebSocket.

    @ivar listen: the endpoints to listen on, as Twisted describes them.
    @ivar origins: the origins of web pages that may play, such as
        C{"https://example.org"}; C{"*"}: any.
    @ivar hosts: the names under which such pages find the server, besides those of the
        origins; C{".example.org"}: all that end so; C{"*"}: any.
    @ivar trustedProxies: the addresses and networks of proxies that are believed when
        they tell whom they speak for, such as C{"10.0.0.0/8"}; C{"unix:"}: all that
        come over a UNIX socket.
    @ivar multitrack: the offer to encoders of several tracks; L{None}: none.
    """

    listen: Sequence[str] = ()
    origins: Sequence[str] = ("*",)
    hosts: Sequence[str] = ()
    trustedProxies: Sequence[str] = ()
    multitrack: OfferFile | None = None

    def __post_init__(self) -> None:
        """
        Check each value.

        @raise BadField: one is invalid.
        """
        _checkUnique("http.listen", self.listen)
        for name, parse in (
            ("origins", parseOrigin),
            ("hosts", parseHost),
            ("trustedProxies", parseNetwork),
        ):
            _checkEach(f"http.{name}", getattr(self, name), parse)
        if self.hosts and "*" in self.origins:
            raise BadField("http.hosts", "must come with origins other than *")
        if not self.listen:
            for name in ("origins", "trustedProxies", "multitrack"):
                if getattr(self, name) != getattr(HTTPSettings, name):
                    raise BadField(f"http.{name}", "must come with an HTTP endpoint")


@dataclass(frozen=True)
class RelaySettings:
    """
    The settings of what takes streams to other servers and from them.

    @ivar pushes: the targets to which streams are published.
    @ivar pulls: the addresses of streams that are kept live here, by application and
        name.
    @ivar origin: the server from which streams are pulled that are played and not
        published here; L{None}: none.
    @ivar originIdleSeconds: how long such a stream is kept without players, in seconds.
    @ivar originPulls: the most streams that are pulled from there at once.
    @ivar originPullShare: the part of them that the players of one address may have,
        more than 0 and up to 1.
    """

    pushes: Sequence[PushTarget] = ()
    pulls: Mapping[tuple[str, str], RTMPURL] = field(default_factory=dict)
    origin: RTMPURL | None = None
    originIdleSeconds: float = IDLE_SECONDS
    originPulls: int = MAX_PULLS
    originPullShare: float = PULL_SHARE

    def __post_init__(self) -> None:
        """
        Check each value.

        @raise BadField: one is invalid.
        """
        seen = set()
        for target in self.pushes:
            if target in seen:
                # Not the target itself: its URL has keys and passwords.
                raise BadField("relays.pushes", f"must not have {target.url} twice")
            seen.add(target)
        for (application, name), url in self.pulls.items():
            if not url.name:
                raise BadField(
                    f"relays.pulls {application}/{name}", "must have a stream's name"
                )
        if not self.originIdleSeconds >= 0:
            raise BadField("relays.originIdleSeconds", "must not be negative")
        if not self.originPulls > 0:
            raise BadField("relays.originPulls", "must be more than 0")
        if not 0 < self.originPullShare <= 1:
            raise BadField(
                "relays.originPullShare", "must be more than 0, and at most 1"
            )


@dataclass(frozen=True)
class Settings:
    """
    The settings of a server.

    @ivar listen: the endpoints to listen on for RTMP, as Twisted describes them.
    @ivar http: see L{HTTPSettings}.
    @ivar relays: see L{RelaySettings}.
    @ivar default: the settings of every application that has none of its own.
    @ivar applications: the settings of those that have, by name.
    @ivar allowed: the applications that exist; empty: all do.
    @ivar latency: how long a message may wait to be handled with others, in seconds.
    @ivar once: whether the process ends when the first stream has ended.
    """

    listen: Sequence[str] = (f"tcp:{RTMP_PORT}",)
    http: HTTPSettings = field(default_factory=HTTPSettings)
    relays: RelaySettings = field(default_factory=RelaySettings)
    default: ApplicationSettings = field(default_factory=ApplicationSettings)
    applications: Mapping[str, ApplicationSettings] = field(default_factory=dict)
    allowed: Sequence[str] = ()
    latency: float = LATENCY_SECONDS
    once: bool = False

    def __post_init__(self) -> None:
        """
        Check each value.

        @raise BadField: one is invalid.
        """
        _checkUnique("listen", self.listen)
        if not 0 <= self.latency <= MAX_LATENCY_SECONDS:
            raise BadField("latency", f"must be at most {MAX_LATENCY_SECONDS:g} s")
        file = self.http.multitrack
        isLocal = all(each.startswith("unix:") for each in self.listen)
        if file is not None and not file.offer.endpoints and isLocal:
            raise BadField(
                "http.multitrack",
                f"{file.path}: ingest_endpoints: is missing, and needed since the"
                " server listens on no TCP port",
            )

    def everyApplication(self) -> Iterable[ApplicationSettings]:
        """List the settings of all applications, the default ones first."""
        return (self.default, *self.applications.values())


def wireLimits(**given: int) -> WireLimits:
    """
    Make limits of the wire of those that are given.

    A larger message gets room for other unfinished ones beside it, unless that is
    given too.
    """
    standard = WireLimits()
    size = given.get("messageSize", standard.messageSize)
    if size > standard.unfinishedBytes:
        given.setdefault("unfinishedBytes", size + _UNFINISHED_ROOM)
    return WireLimits(**given)


#: Limits whose 0 stands for none.
_MAY_BE_ZERO = frozenset(("slowRate",))


def checkLimits(limits: ServerLimits) -> None:
    """
    Check each bound.

    @raise BadField: one is invalid.
    """
    _checkEachLimit("limits", limits)
    wire = limits.wire
    if wire.messageSize > MAX_MESSAGE_LENGTH:
        raise BadField(
            "limits.wire.messageSize",
            f"must be at most {MAX_MESSAGE_LENGTH} bytes, RTMP's largest message",
        )
    if wire.unfinishedBytes < wire.messageSize:
        raise BadField(
            "limits.wire.unfinishedBytes",
            f"must be at least {wire.messageSize} bytes, the largest message",
        )


def _checkEachLimit(name: str, limits: Any) -> None:  # noqa: ANN401  any dataclass
    for each in fields(limits):
        value, where = getattr(limits, each.name), f"{name}.{each.name}"
        if is_dataclass(value):
            _checkEachLimit(where, value)
        elif value == 0 and each.name in _MAY_BE_ZERO:
            continue
        elif not value > 0:
            raise BadField(where, "must be more than 0")
        elif value > 1 and each.name.endswith("Share"):
            raise BadField(where, "must be at most 1, which is all")


def _checkEach(
    where: str, values: Iterable[str], parse: Callable[[str], object]
) -> None:
    try:
        for value in values:
            parse(value)
    except ValueError as error:
        raise BadField(where, str(error)) from None


def _checkUnique(where: str, values: Sequence[str]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise BadField(where, f"must not have {value} twice")
