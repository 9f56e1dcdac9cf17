"""The interfaces that an embedding application may plug in, and those it may use."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IAddress
from zope.interface import Attribute, Interface

from twisted_rtmp.ledger import Ledger
from twisted_rtmp.wire.messages import Message

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IPushProducer
    from twisted.logger import Logger, LogLevel


class Refused(Exception):
    """
    Raised by an L{IAuthorizer}: the peer may not do what it asked for.

    @ivar description: one sentence for the person at the other end; it is
        sent to the peer and logged.
    """

    def __init__(self, description: str = "Not allowed.") -> None:
        super().__init__(description)
        self.description = description


@dataclass(frozen=True)
class ConnectRequest:
    """
    A peer's C{connect}.

    @ivar application: the application's name without query, without slashes
        at its ends; may be empty.
    @ivar query: what followed the C{?} in the application or the tcUrl.
    @ivar address: the peer's address.
    @ivar properties: the whole command object as it came; over HTTP, as much of one as
        the request's headers say.
    @ivar kind: the protocol: C{"rtmp"}, C{"rtmps"}, C{"http"}, C{"https"}, C{"ws"} or
        C{"wss"}.
    @ivar connectionId: the connection's identifier, unique in this process.
    @ivar credentials: over HTTP the headers C{authorization} and C{cookie}, as far as
        they came, by these names; never to be logged.
    """

    application: str
    query: str
    address: IAddress | None
    properties: dict[str, Any] = field(repr=False)
    kind: str = "rtmp"
    connectionId: str = ""
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class StreamRequest:
    """
    A peer's C{publish} or C{play}.

    @ivar application: see L{ConnectRequest}.
    @ivar name: the stream's name without its query; may be empty.
    @ivar query: what followed the C{?} in the name, such as C{"token=1"}.
    @ivar address: the peer's address.
    @ivar connect: the connection's L{ConnectRequest}.
    """

    application: str
    name: str
    query: str = field(repr=False)
    address: IAddress | None
    connect: ConnectRequest = field(repr=False)


class IAuthorizer(Interface):
    """
    Decides who may connect, publish and play.

    Each method may answer at once or with a Deferred or coroutine.  It allows
    by returning L{None}; it refuses by raising L{Refused}.  Nothing else of
    that connection is looked at until the answer is there, and the peer has
    been told nothing: encoders take an error after C{Publish.Start} for a
    network failure and try again for ever.
    """

    def connect(request: ConnectRequest) -> Awaitable[None] | None:
        """Decide on a peer's C{connect}."""

    def publish(request: StreamRequest) -> Awaitable[str | None] | str | None:
        """
        Decide on a peer's C{publish}.

        @return: L{None}, or another name under which the stream is to be
            known (so that the key which the encoder uses stays private).
        """

    def play(request: StreamRequest) -> Awaitable[str | None] | str | None:
        """
        Decide on a peer's C{play}.

        @return: L{None}, or the name of the stream to play instead.
        """


class TrackFacts(Protocol):
    """The facts of one track of a stream."""

    @property
    def kind(self) -> str:
        """C{"video"} or C{"audio"}."""

    @property
    def id(self) -> int:
        """The number of the track, 0 where it has none."""

    @property
    def codecName(self) -> str:
        """The codec, for people."""

    @property
    def frames(self) -> int:
        """Coded frames."""

    @property
    def headers(self) -> int:
        """Messages without a frame, such as sequence headers."""

    @property
    def size(self) -> int:
        """Bytes of payload."""


class Share(Protocol):
    """The memory that one sink keeps for a stream."""

    def set(self, size: int) -> None:
        """Charge the stream for this many bytes, instead of those before."""


class IStreamPart(Interface):
    """A live stream, or one of its tracks, as far as it can be stored by itself."""

    application = Attribute("""The application's name; may be empty.""")
    name = Attribute("""The stream's own name; may be empty.""")
    label = Attribute("""Application and name for log lines: printable and short.""")
    host: str = Attribute(
        """The address that its publisher counts for, or the /64 network of one of
        IPv6; empty while it has none, and for a source of this server's own."""
    )
    connection: object = Attribute(
        """What its publisher shares with the others of its connection; L{None} while it
        has none."""
    )
    ledger: Ledger = Attribute("""What came, what was stored and what was lost.""")

    def headers() -> list[Message]:
        """
        List what a decoder needs before the first frame: the newest metadata, then
        the newest sequence header of each kind.
        """

    def throttle() -> IPushProducer:
        """Make a producer by which one sink can slow the encoder down."""

    def tell(
        log: Logger,
        level: LogLevel,
        format: str,  # noqa: A002  as Twisted's Logger calls it
        **fields: object,
    ) -> None:
        """
        Write a log line that comes of the stream, as long as its publisher's address
        may cause more.

        @param format: as for L{Logger.emit}, with its C{fields}.
        """

    def share() -> Share:
        """Make an account of what one sink keeps, which the stream is charged for."""


class ILiveStream(IStreamPart):
    """A live stream, as far as its sinks may use it."""

    tracks: Sequence[TrackFacts] = Attribute("""What has come of each track so far.""")
    metadata: Message | None = Attribute(
        """The newest C{onMetaData} message, or L{None}."""
    )
    properties: Mapping[str, Any] = Attribute(
        """The properties of the newest metadata, decoded; empty if there are none."""
    )


class IMediaSink(Interface):
    """
    Takes the media of one live stream: a recorder, a child process, a player
    or an application's own object.

    A sink that cannot keep up asks the stream for an
    L{IPushProducer<twisted.internet.interfaces.IPushProducer>} with
    L{ILiveStream.throttle} and pauses it: then the encoder is slowed down by TCP.
    """

    def mediaReceived(message: Message) -> None:
        """
        Take one audio, video or data message.

        Never blocks.  The message is shared by all sinks and must not be
        changed.  Metadata and sequence headers come first, also when the sink
        was added in the middle of the stream.
        """

    def streamEnded() -> Deferred[None] | None:
        """
        The stream is over, or the sink was taken off it; no message follows.

        @return: L{None}, or a Deferred that fires when all is stored; it
            never fails.
        """


class ISinkFactory(Interface):
    """Gives each stream that begins a sink."""

    sinkName = Attribute("""A word for log lines, such as C{"recording"}.""")

    def openSink(stream: ILiveStream) -> IMediaSink | None:
        """
        A stream begins.

        @return: its sink, or L{None} if the stream is not wanted.
        """
