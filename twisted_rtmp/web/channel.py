"""
One HTTP connection, with its limits and deadlines.

It is counted, bounded and ended like a connection over RTMP.  C{twisted.web} alone
would let each byte put the deadline off, accept bodies of any size, and wait for ever
for a peer that does not read its answers.
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

#: Bytes of further requests that are kept while one is being answered; then reading
#: stops.  A peer that waits for a stream asks for nothing else meanwhile.
EARLY_BYTES = 16 * 1024

#: Bytes that are parsed between two looks at the clock: some 20 of the smallest
#: requests.
PIECE_BYTES = 512

#: How long one connection is read before the others have their turn, in seconds: a
#: hundred that do nothing but ask keep the others waiting for a third of a second.  A
#: single request may take longer: the largest ones take 10 ms.
TURN_SECONDS = 0.003

#: Characters of Content-Length.  The largest body's length has 5 digits; Python reads
#: no number of more than 4300, and raises an error of its own.
MAX_LENGTH_DIGITS = 20

#: Bytes that one read may bring, and that may be queued for a peer before its requests
#: are read no further.  A browser's request has less than 2 KiB.
REQUEST_SIZE = 4 * 1024

#: The same while media are sent: Twisted's own figure, which a key frame may reach.
MEDIA_SIZE = 64 * 1024


# Of the module, since one of the class keeps the connection in its events.
_log = Logger()


class ChannelSite(Protocol):
    """The site of a connection, as far as the connection needs it."""

    @property
    def registry(self) -> Registry:
        """The live streams, the connections and their limits."""

    @property
    def proxies(self) -> TrustedProxies:
        """The proxies that are believed when they tell whom they speak for."""


class Answering(Protocol):
    """An answer that takes long."""

    def describe(self, connection: Description) -> Description:
        """Add what it does to the description of its connection."""

    def close(self) -> None:
        """End the answer and the connection, since the server stops."""


class Upgraded(Protocol):
    """The protocol that a connection speaks after its last request."""

    def dataReceived(self, data: bytes) -> None:
        """Take bytes that have come."""


@implementer(IHalfCloseableProtocol)
class Channel(HTTPChannel):
    """
    One connection, which takes requests one after the other.

    @ivar id: the connection's identifier, unique in this process.
    @ivar host: the address that it counts for; see L{hostOf}.  A connection from a
        trusted proxy counts for the client of its present request.
    @ivar peer: the client's address, for log lines.
    @ivar answering: the answer to the present request, if it takes long.
    """

    site: ChannelSite
    transport: IStreamTransport

    maxHeaders = MAX_HEADERS

    def __init__(self) -> None:
        HTTPChannel.__init__(self)
        self.answering: Answering | None = None
        self._direct: DirectSocket | None = None
        self._upgraded: Upgraded | None = None
        self._drain: DrainWatch | None = None
        # Whether a request has begun, and whether it is complete.
        self._begun = False
        self._complete = False
        self._refused = False
        self._congested = False
        # Whether this is the last look for a request that came in time.
        self._lastLook = False
        self._bodyBytes = 0
        # The bytes that wait for the connection's next turn, and the call for it.
        self._unread = bytearray()
        self._turnCall: IDelayedCall | None = None
        # The bytes of further requests that came while one is being answered.
        self._early = bytearray()
        # How many bytes of requests are kept.
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
        # How much of that has paid for log lines.
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
        End the connection of a peer that has closed its own end.

        Some do that right behind their last request, and still get the answer; a
        player that does it has left.
        """
        if self.answering is not None:
            self.abort()
        elif self._complete and self._upgraded is None:
            self.persistent = 0
        else:
            self.loseConnection()

    def writeConnectionLost(self) -> None:
        """End the connection of a peer that takes no more."""
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
        # Nothing of it is to wait for the garbage collection.
        HTTPChannel.unregisterProducer(self)
        for request in self.requests:
            request.producer = None
        self.requests.clear()
        self.answering = self._upgraded = self._transferDecoder = None

    # Receiving

    def dataReceived(self, data: bytes) -> None:
        self._received += len(data)
        if self._turnCall is None:
            self._read(data)
        else:
            self._unread += data
            self.transport.pauseProducing()

    def _read(self, data: bytes) -> None:
        """Parse bytes until they end or the turn does."""
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
        """Go on, since the other peers have had their turn."""
        self._turnCall = None
        data = bytes(self._unread)
        self._unread.clear()
        if not self._congested and len(self._early) <= EARLY_BYTES:
            self.transport.resumeProducing()
        self._read(data)

    @property
    def _isLast(self) -> bool:
        """Tell whether the present request is the connection's last one."""
        return self._complete and not self.persistent

    def _charge(self) -> None:
        """Charge the bytes of requests that are kept."""
        if self._kept is not None and self._kept.bytes != self._requestBytes:
            self._kept.set(self._requestBytes)

    def setLineMode(self, extra: bytes = b"") -> None:
        """Go on with the next request, of which some may have come."""
        extra += self._early
        self._early.clear()
        HTTPChannel.setLineMode(self)
        if self._turnCall is None:
            self._read(extra)
        else:
            self._unread[:0] = extra

    def rawDataReceived(self, data: bytes) -> None:
        if self._upgraded is not None:
            self._upgraded.dataReceived(data)  # it came with the request
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
        Keep bytes of further requests until the present one has been answered.

        C{twisted.web} would add up all pieces that it keeps each time one comes: ten
        peers that send 16 KiB byte by byte took all of the server's time.
        """
        if self.persistent and not self._refused:
            self._early += data
            if len(self._early) > EARLY_BYTES:
                self.transport.pauseProducing()

    def headerReceived(self, line: bytes) -> bool:
        """
        Take one header.

        @return: whether the request may go on.
        """
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and len(value) > MAX_LENGTH_DIGITS:
            self._refuse(http.BAD_REQUEST)
            return False
        # Resources may read any header as text.
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
        Find out whose request this is, as proxies in front of the server tell: the
        PROXY protocol has by now, or else the headers do.

        @return: whether its address may have one more connection.
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
        Count the connection for another address.

        @return: whether that address may have one more.
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
        """Refuse a request with too large a body."""
        self.site.registry.counters.violations += 1
        self.warn("{peer} is cut: a body of more than {limit} bytes", limit=MAX_BODY)
        self._refuse(http.REQUEST_ENTITY_TOO_LARGE)

    def _refuse(self, code: int) -> None:
        """Refuse a request before it is complete, and read no further."""
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
            # twisted.web does not, if it was this answer that filled the queue.
            self.transport.pauseProducing()
        self._charge()

    def pauseProducing(self) -> None:
        """Read no further, since the peer does not take its answers."""
        self._congested = True
        HTTPChannel.pauseProducing(self)
        if self._sending is not None:
            self._sending.set(waitingIn(self.transport))

    def resumeProducing(self) -> None:
        """Read on, since the peer has taken what was queued for it."""
        self._congested = False
        if self._sending is not None:
            self._sending.set(0)
        HTTPChannel.resumeProducing(self)
        if self._turnCall is not None:
            self.transport.pauseProducing()

    def isSecure(self) -> bool:
        """Tell whether the client uses https, with the server or with a proxy."""
        if self._scheme:
            return self._scheme == "https"
        return ISSLTransport.providedBy(self.transport)

    def upgrade(self, protocol: Upgraded) -> None:
        """Let another protocol take all that comes behind the present request."""
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
        """Tell whether others depend on the connection: nobody publishes over HTTP."""
        return False

    @property
    def inUse(self) -> bool:
        """Tell whether it may be playing: a request under way may be one to play."""
        return True

    def giveUp(self, why: str) -> None:
        """Cut the peer, since it takes too much memory."""
        self.noteCut(why)
        self.abort()
        if self._account is not None:
            # Now, and not when the transport tells of the end: no other peer has to go.
            self._account.close()

    # Sending

    def beginMedia(self) -> None:
        """Get ready for media, which L{send} sends."""
        setReadSize(self.transport, MEDIA_SIZE)

    def send(self, data: bytes) -> None:
        """Send media, at once as far as the system takes them."""
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
        """Describe the connection and what it does."""
        state = "between requests"
        if self._begun:
            state = "answering" if self._complete else "receiving a request"
        description = Description(
            id=self.id,
            kind="https" if self.isSecure() else "http",
            peer=self.peer,
            since=self._openedAt,
            state=state,
            bytesReceived=self._received,
            bytesSent=self._sent,
        )
        answering = self.answering
        return description if answering is None else answering.describe(description)

    # The log

    def note(self, format: str, **fields: object) -> None:  # noqa: A002
        """Log something about the peer, which the format calls C{peer}."""
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
        self.site.registry.peerLog.emit(_log, level, format, fields, host, unpaid)

    # Deadlines and the end

    def resetTimeout(self) -> None:
        """Let no byte put the deadline off: a whole request must come in time."""

    def timeoutConnection(self) -> None:
        """Close, since no complete request came in time."""
        if not self._lastLook and (self._unread or unreadBy(self.transport)):
            # It may have come in time: read it first.
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
        """Close at once; a peer that did not take all of its answer is cut."""
        if unsentBy(self.transport):
            seconds = self.site.registry.limits.drainSeconds
            self.noteCut(f"it takes nothing for {seconds:g} s")
        self.abort()

    def abort(self) -> None:
        """Close at once, whatever is queued."""
        self.transport.abortConnection()

    def close(self) -> None:
        """End the present answer and the connection, since the server stops."""
        answering, self.answering = self.answering, None
        if answering is not None:
            answering.close()
        else:
            self.loseConnection()


def channelOf(request: Request) -> Channel:
    """Give the connection on which a request came."""
    channel = request.channel
    assert isinstance(channel, Channel)
    return channel
