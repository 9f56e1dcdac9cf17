"""
One connection by HTTP, with its limits and deadlines.

A connection by HTTP is one of the server's: it is counted, bounded and ended like one
by RTMP.  In C{twisted.web} each byte puts the deadline off, bodies have any size, and a
peer that does not take what it asked for is waited for without end: not here.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger, LogLevel
from twisted.web import http
from twisted.web.http import HTTPChannel
from twisted.web.server import Request
from zope.interface import implementer

from twisted_rtmp.live.addresses import hostOf
from twisted_rtmp.live.connections import Description, connectionId
from twisted_rtmp.live.turns import NOTED_SECONDS
from twisted_rtmp.names import peerName
from twisted_rtmp.sockets import (
    DirectSocket,
    DrainWatch,
    directSocket,
    setReadSize,
    unreadBy,
    unsentBy,
    waitingIn,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from twisted_rtmp.live.budget import Account, Share
    from twisted_rtmp.live.registry import Registry
    from twisted_rtmp.sockets import IStreamTransport
    from twisted_rtmp.web.forwarded import TrustedProxies

#: The largest body of a request, in bytes.  A player's request has none; a
#: configuration that an encoder asks for takes some KiB.
MAX_BODY = 16 * 1024

#: Headers of a request.  Browsers send about 15, proxies add 5; Apache allows 100.
MAX_HEADERS = 100


#: What is kept of requests that come while one is being answered, in bytes, before no
#: more is read.  Those who wait for a stream ask for nothing else meanwhile.
EARLY_BYTES = 16 * 1024

#: What is read between two looks at the clock, in bytes: some 20 of the smallest
#: requests.
PIECE_BYTES = 512

#: How long one connection is read in one turn, in seconds, before the others have
#: theirs, but for what one request takes: the largest ones take 10 ms.
TURN_SECONDS = 0.01

#: The digits of a body's length.  That of the largest body has 5; Python takes no more
#: than 4300, and raises an error of its own.
MAX_LENGTH_DIGITS = 20

#: What is read at a time, and queued for a peer before no further request of it is
#: answered, in bytes.  A browser's request has less than 2 KiB.
REQUEST_SIZE = 4 * 1024

#: The same while media are sent: as much as Twisted takes, which a key frame may have.
MEDIA_SIZE = 64 * 1024


class ChannelSite(Protocol):
    """The site of a connection, as far as the connection needs it."""

    @property
    def registry(self) -> Registry:
        """The live streams, the connections and their limits."""

    @property
    def proxies(self) -> TrustedProxies:
        """The proxies that are believed when they tell whom they speak for."""


class Answering(Protocol):
    """An answer to a request that takes long."""

    def describe(self, connection: Description) -> Description:
        """Add to its connection's description what it does there."""

    def close(self) -> None:
        """The server stops: end the answer, and the connection."""


class Upgraded(Protocol):
    """What a connection has been given to, after its last request."""

    def dataReceived(self, data: bytes) -> None:
        """Take what came."""


@implementer(IHalfCloseableProtocol)
class Channel(HTTPChannel):
    """
    One connection, and its requests one after the other.

    @ivar id: the connection's identifier, unique in this process.
    @ivar host: the address that it counts for; see L{hostOf}.  A trusted proxy's counts
        for that of the present request's client.
    @ivar peer: the client's address, for log lines.
    @ivar answering: what answers the present request, if that takes long.
    """

    log = Logger()
    site: ChannelSite
    transport: IStreamTransport

    maxHeaders = MAX_HEADERS

    def __init__(self) -> None:
        HTTPChannel.__init__(self)
        self.answering: Answering | None = None
        self._direct: DirectSocket | None = None
        self._upgraded: Upgraded | None = None
        self._drain: DrainWatch | None = None
        # Whether a request has begun that is not complete.
        self._begun = False
        self._complete = False
        self._refused = False
        self._congested = False
        # Whether it is looked once more for what the peer has sent in time.
        self._lastLook = False
        self._bodyBytes = 0
        # What is read in the next turn, which comes with the call.
        self._unread = bytearray()
        self._turnCall: IDelayedCall | None = None
        # What has come of later requests while one is being answered.
        self._early = bytearray()
        # What has come of the present request and of later ones.
        self._requestBytes = 0
        self._account: Account | None = None
        self._kept: Share | None = None
        # What waits to be sent: in the transport, and before it comes there.
        self._sending: Share | None = None
        self._held: Share | None = None
        self.id = connectionId()
        self.host = ""
        self.peer = "?"
        # The scheme by which the present request came, if a proxy has told.
        self._scheme = ""
        self._openedAt = 0.0
        self._received = 0
        # As much of that as has paid for log lines.
        self._paid = 0
        self._sent = 0

    def connectionMade(self) -> None:
        HTTPChannel.connectionMade(self)
        transport = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpKeepAlive(True)
        self._direct = directSocket(transport)
        setReadSize(transport, REQUEST_SIZE)
        self.peer = peerName(transport.getPeer())
        registry = self.site.registry
        self._openedAt = registry.clock.seconds()
        self._account = registry.budget.connection(self, self.host)
        self._kept = self._account.share(forAddress=True)
        self._sending = self._account.share()
        self._held = self._account.share()
        registry.connections.opened(self)

    def readConnectionLost(self) -> None:
        """
        The peer sends no more.  Some do so behind their last request, and get their
        answer; one that plays has left.
        """
        if self.answering is not None:
            self.abort()
        elif self._complete and self._upgraded is None:
            self.persistent = 0
        else:
            self.loseConnection()

    def writeConnectionLost(self) -> None:
        """The peer takes no more: it has left."""
        self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._drain is not None:
            self._drain.stop()
        if self._turnCall is not None:
            self._turnCall.cancel()
            self._turnCall = None
        HTTPChannel.connectionLost(self, reason)
        self.site.registry.connections.closed(self)
        if self._account is not None:
            self._account.close()

    # What comes

    def dataReceived(self, data: bytes) -> None:
        self._received += len(data)
        if self._turnCall is None:
            self._read(data)
        else:
            self._unread += data
            self.transport.pauseProducing()

    def _read(self, data: bytes) -> None:
        """Take what has come, as far as that goes in one turn."""
        clock = self.site.registry.clock
        began = clock.seconds()
        seconds = 0.0
        for at in range(0, len(data), PIECE_BYTES):
            if self._upgraded is not None:
                self._upgraded.dataReceived(data[at:])
                break
            if self.transport.disconnecting or self._refused or self._isLast:
                break
            if seconds > TURN_SECONDS:
                self._unread += data[at:]
                self.transport.pauseProducing()
                self._turnCall = clock.callLater(0, self._turn)
                break
            piece = data[at : at + PIECE_BYTES]
            self._begun = True
            self._requestBytes += len(piece)
            HTTPChannel.dataReceived(self, piece)
            seconds = clock.seconds() - began
        self._charge()
        if seconds > NOTED_SECONDS:
            self.site.registry.turns.took(seconds, self.peer, "reading")

    def _turn(self) -> None:
        """Go on when the other peers have been heard."""
        self._turnCall = None
        data = bytes(self._unread)
        self._unread.clear()
        if not self._congested and len(self._early) <= EARLY_BYTES:
            self.transport.resumeProducing()
        self._read(data)

    @property
    def _isLast(self) -> bool:
        """Whether the request that is being answered is the connection's last one."""
        return self._complete and not self.persistent

    def _charge(self) -> None:
        """Charge what is kept of requests."""
        if self._kept is not None and self._kept.bytes != self._requestBytes:
            self._kept.set(self._requestBytes)

    def setLineMode(self, extra: bytes = b"") -> None:
        """Go on with the next request, some of which has come."""
        extra += self._early
        self._early.clear()
        HTTPChannel.setLineMode(self)
        if self._turnCall is None:
            self._read(extra)
        else:
            self._unread[:0] = extra

    def rawDataReceived(self, data: bytes) -> None:
        if self._upgraded is not None:
            self._upgraded.dataReceived(data)  # it has come with the request
        elif self._complete:
            self._keepEarly(data)
        elif not self._refused:
            self._bodyBytes += len(data)
            if self._bodyBytes > MAX_BODY:
                self._refuseBody()
            else:
                HTTPChannel.rawDataReceived(self, data)

    def _keepEarly(self, data: bytes) -> None:
        """
        Keep what comes before the last request has been answered.

        In C{twisted.web} each byte that comes alone costs the more, the more of them
        are kept: ten peers with 16 KiB each took all of the server's time.
        """
        if self.persistent and not self._refused:
            self._early += data
            if len(self._early) > EARLY_BYTES:
                self.transport.pauseProducing()

    def headerReceived(self, line: bytes) -> bool:
        """
        Take a header.

        @return: whether to go on.
        """
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and len(value) > MAX_LENGTH_DIGITS:
            self._refuse(http.BAD_REQUEST)
            return False
        # Resources read headers as text, and that must not fail for any.
        if not line.isascii():
            line = line.decode("utf-8", "backslashreplace").encode("utf-8")
        goOn: bool = HTTPChannel.headerReceived(self, line)
        return goOn

    def allHeadersReceived(self) -> None:
        if self.length is not None and self.length > MAX_BODY:
            self._refuseBody()
            return
        if self._identify():
            HTTPChannel.allHeadersReceived(self)

    def _identify(self) -> bool:
        """
        Learn from the proxies in front who sends this request: the PROXY protocol has
        told it by now, or else the headers do.

        @return: whether that address may have one more connection.
        """
        request = self.requests[-1]
        client = self.site.proxies.clientOf(
            self.transport.getPeer(), request.requestHeaders
        )
        request.client = client.address
        self._scheme = client.scheme
        self.peer = peerName(client.address)
        if self._countFor(hostOf(client.address)):
            return True
        self._refuse(http.SERVICE_UNAVAILABLE)
        return False

    def _countFor(self, host: str) -> bool:
        """
        Have an address for which the connection counts.

        @return: whether it may have one more.
        """
        before, self.host = self.host, ""
        if host != before and not self.site.registry.connections.identified(
            before, host
        ):
            return False
        self.host = host
        if host != before and self._account is not None:
            self._account.moveTo(host)
        return True

    def _refuseBody(self) -> None:
        """Take no more of a body that is too large."""
        self.site.registry.counters.violations += 1
        self.warn("{peer} is cut: a body of more than {limit} bytes", limit=MAX_BODY)
        self._refuse(http.REQUEST_ENTITY_TOO_LARGE)

    def _refuse(self, code: int) -> None:
        """Answer a request that is not complete, and take no more."""
        self._refused = True
        phrase = HTTPStatus(code).phrase.encode("ascii")
        self.transport.write(
            b"HTTP/1.1 %d %b\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            % (code, phrase)
        )
        self.loseConnection()

    def allContentReceived(self) -> None:
        if self._refused:
            return
        self._complete = True
        self._bodyBytes = 0
        HTTPChannel.allContentReceived(self)

    def requestDone(self, request: Request) -> None:
        self.answering = None
        self._complete = self._begun = self._lastLook = False
        self._requestBytes = 0
        if self.site.proxies.trusts(self.transport.getPeer()):
            self._countFor("")  # the next request may be anybody's
        HTTPChannel.requestDone(self, request)
        if self._congested and self.persistent:
            # twisted.web does not when it was the answer itself that was too much.
            self.transport.pauseProducing()
        self._charge()

    def pauseProducing(self) -> None:
        """The peer does not take its answers: read no more from it."""
        self._congested = True
        HTTPChannel.pauseProducing(self)
        if self._sending is not None:
            self._sending.set(waitingIn(self.transport))

    def resumeProducing(self) -> None:
        """The peer has taken what was queued for it."""
        self._congested = False
        if self._sending is not None:
            self._sending.set(0)
        HTTPChannel.resumeProducing(self)
        if self._turnCall is not None:
            self.transport.pauseProducing()

    def isSecure(self) -> bool:
        """Tell whether the client asked by https, of the server or of a proxy."""
        if self._scheme:
            return self._scheme == "https"
        return ISSLTransport.providedBy(self.transport)

    def upgrade(self, protocol: Upgraded) -> None:
        """Give all that comes behind the present request to another protocol."""
        self._upgraded = protocol
        early = bytes(self._early)
        self._early.clear()
        if early:
            protocol.dataReceived(early)

    # Memory

    def chargeHeld(self, size: int) -> None:
        """Charge what is held back of an answer now, in bytes."""
        if self._held is not None:
            self._held.set(size)

    @property
    def isPublishing(self) -> bool:
        """Nobody publishes over HTTP."""
        return False

    def giveUp(self, why: str) -> None:
        """Cut the peer: it takes too much memory."""
        self.noteCut(why)
        self.abort()
        if self._account is not None:
            # Now, and not when the transport tells of the end: no other peer has to go.
            self._account.close()

    # What is sent

    def beginMedia(self) -> None:
        """From here on L{send} is used."""
        setReadSize(self.transport, MEDIA_SIZE)

    def send(self, data: bytes) -> None:
        """Send media, at once as far as that goes."""
        self._sent += len(data)
        if self._direct is not None:
            data = self._direct.send(data)
        if data:
            self.transport.write(data)

    def write(self, data: bytes) -> None:
        self._sent += len(data)
        HTTPChannel.write(self, data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        pieces = list(iovec)
        self._sent += sum(map(len, pieces))
        HTTPChannel.writeSequence(self, pieces)

    def describe(self) -> Description:
        """Say what it is and does."""
        description = Description(
            id=self.id,
            kind="https" if self.isSecure() else "http",
            peer=self.peer,
            since=self._openedAt,
            state="between requests",
            bytesReceived=self._received,
            bytesSent=self._sent,
        )
        answering = self.answering
        return description if answering is None else answering.describe(description)

    # The log

    def note(self, format: str, **fields: object) -> None:  # noqa: A002
        """Log something about the peer, C{peer} in the format."""
        self._emit(LogLevel.info, format, fields)

    def warn(self, format: str, **fields: object) -> None:  # noqa: A002
        """Log something that the peer has done wrong, or lost."""
        self._emit(LogLevel.warn, format, fields)

    def noteCut(self, why: str) -> None:
        """Log and count that the connection is about to be closed for a reason."""
        self.site.registry.counters.cut += 1
        self.warn("{peer} is cut: {why}", why=why)

    def _emit(self, level: LogLevel, format: str, fields: dict[str, Any]) -> None:  # noqa: A002
        """Write a log line that the peer's bytes have paid for."""
        unpaid, self._paid = self._received - self._paid, self._received
        host = self.host or hostOf(self.transport.getPeer())
        fields["peer"] = self.peer
        self.site.registry.peerLog.emit(self.log, level, format, fields, host, unpaid)

    # Deadlines and the end

    def resetTimeout(self) -> None:
        """A byte puts nothing off: a whole request has to come in time."""

    def timeoutConnection(self) -> None:
        """No request came in time, or only a part of one."""
        if not self._lastLook and (self._unread or unreadBy(self.transport)):
            # It may have come in time: read that first.
            self._lastLook = True
            HTTPChannel.setTimeout(self, 0)
            return
        if self._begun and not self.transport.disconnecting:
            seconds = self.site.registry.limits.requestSeconds
            self.noteCut(f"no complete request within {seconds:g} s")
        self.loseConnection()

    def loseConnection(self) -> None:
        """Close when everything has been sent, or when the peer takes no more of it."""
        if self._drain is None:
            registry = self.site.registry
            self._drain = DrainWatch(registry.clock, registry.limits.drainSeconds)
            self._drain.start(self.transport, self.cutUndrained)
        HTTPChannel.loseConnection(self)

    def cutUndrained(self) -> None:
        """Close at once; the peer is cut if something is still queued for it."""
        if unsentBy(self.transport):
            seconds = self.site.registry.limits.drainSeconds
            self.noteCut(f"it takes nothing for {seconds:g} s")
        self.abort()

    def abort(self) -> None:
        """Close at once, whatever is queued."""
        self.transport.abortConnection()

    def close(self) -> None:
        """The server stops: end what is being answered, and the connection."""
        answering, self.answering = self.answering, None
        if answering is not None:
            answering.close()
        else:
            self.loseConnection()


def channelOf(request: Request) -> Channel:
    """The connection on which a request came."""
    channel = request.channel
    assert isinstance(channel, Channel)
    return channel
