"""
The parts of Twisted's transports that no public interface has, and what the system
tells of their sockets.

A transport may lie on others: TLS on a socket's own, and so may a proxy's headers.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITransport,
)
from twisted.internet.main import CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import Attribute

if sys.platform == "linux":
    import fcntl
    import termios

#: How often a peer is looked at within the time in which it must take something: it is
#: cut so much of that time too late, at most.
PROGRESS_LOOKS = 10

#: Transports that may lie on each other: TLS, a proxy's headers, and some to spare.
_MAX_LAYERS = 8

#: The most bytes that TLS 1.2 and 1.3 say goodbye with; a record with a message of RTMP
#: is longer.
_CLOSE_NOTIFY = 31


class IStreamTransport(ITransport, IConsumer, IPushProducer):
    """The common parts of the transports of TCP, TLS and UNIX sockets."""

    def abortConnection() -> None:
        """Close at once, whatever is queued."""

    disconnecting = Attribute("""Whether it closes when all has been sent.""")


def _socketTransport(transport: object) -> Any:  # noqa: ANN401  private parts
    """Find the socket's own transport, which may lie below others."""
    for _ in range(_MAX_LAYERS):
        if isinstance(transport, FileDescriptor):
            break
        below = getattr(transport, "transport", None)
        if below is None:
            break
        transport = below
    return transport


def setReadSize(transport: object, size: int) -> None:
    """
    Set how much one read may bring, and how much is queued before the producer is
    paused, in bytes.
    """
    _socketTransport(transport).bufferSize = size


class DirectSocket:
    """
    A socket's own transport, read and written without the reactor.

    The reactor would do the same at its next turn, but would have to be told of it
    before and after: that costs more than the reading and writing.
    """

    __slots__ = ("_transport",)

    def __init__(self, transport: Any) -> None:  # noqa: ANN401  private parts
        """Use a transport; L{directSocket} knows which."""
        self._transport = transport

    def send(self, data: bytes) -> bytes:
        """
        Send as much as the system takes at once, behind all that waits.

        @return: the rest, for the transport's C{write}.
        """
        transport = self._transport
        # Whether nothing waits there; no public attribute tells.
        if not transport.connected or transport.dataBuffer or transport._tempDataBuffer:
            return data
        try:
            sent = transport.socket.send(data)
        # The kernel's buffer is full, or an error that the reactor will meet, too.
        except OSError:
            return data
        return data[sent:] if sent else data

    @property
    def waiting(self) -> int:
        """The bytes that wait to be sent."""
        transport = self._transport
        waiting: int = transport._tempDataLen
        return waiting + len(transport.dataBuffer) - int(transport.offset)

    def receive(self, most: int) -> bytes | None:
        """
        Receive what has come, C{most} bytes or a read's usual size at most.

        @return: empty if nothing has come or the peer has closed: the reactor will
            tell; L{None} if the connection is lost.
        """
        transport = self._transport
        try:
            data: bytes = transport.socket.recv(min(transport.bufferSize, most))
        except BlockingIOError:
            return b""
        except OSError:
            return None
        return data

    def lose(self) -> None:
        """Do what the reactor does with a connection that is lost."""
        transport = self._transport
        transport.stopReading()
        transport.stopWriting()
        transport.connectionLost(Failure(CONNECTION_LOST))


def directSocket(transport: object) -> DirectSocket | None:
    """
    Give access to a transport's socket, if no other protocol lies between.

    @return: L{None} for TLS and others.
    """
    # TLS says that it provides what its socket does.
    return DirectSocket(transport) if isinstance(transport, FileDescriptor) else None


def waitingIn(transport: object) -> int:
    """Count the bytes that wait in a transport; 0 where it does not tell."""
    descriptor = _socketTransport(transport)
    if not isinstance(descriptor, FileDescriptor):
        return 0
    return DirectSocket(descriptor).waiting


def unsentBy(transport: object) -> int:
    """
    Count the bytes that wait in a transport and in its socket, for the peer to take;
    0 where they do not tell.

    A socket takes nothing of its transport before a third of what it holds has gone,
    which may be a megabyte.
    """
    descriptor = _socketTransport(transport)
    waiting = waitingIn(descriptor)
    if sys.platform == "linux" and isinstance(descriptor, FileDescriptor):
        waiting += _askSocket(descriptor, termios.TIOCOUTQ)
    return waiting


def unreadBy(transport: object) -> int:
    """
    Count the bytes that a peer has sent and nobody has read yet; 0 where the system
    does not tell.
    """
    if sys.platform != "linux":
        return 0
    return _askSocket(_socketTransport(transport), termios.FIONREAD)


def _askSocket(descriptor: Any, request: int) -> int:  # noqa: ANN401  private parts
    """Ask the system for a number of bytes."""
    fileno = getattr(descriptor, "fileno", None)
    if sys.platform == "linux" and fileno is not None and fileno() >= 0:
        answer = fcntl.ioctl(fileno(), request, bytes(4))
        return int.from_bytes(answer, sys.byteorder)
    return 0


class HangUp:
    """Tells whether a transport's peer has closed its end of the connection."""

    __slots__ = ("_poll", "_transport")

    def __init__(self, transport: object) -> None:
        self._transport = transport
        self._poll: select.poll | None = None
        fileno = getattr(_socketTransport(transport), "fileno", None)
        # Other systems than Linux do not tell, nor do transports without a socket.
        if hasattr(select, "POLLRDHUP") and fileno is not None and fileno() >= 0:
            self._poll = select.poll()
            self._poll.register(fileno(), select.POLLRDHUP)

    def __bool__(self) -> bool:
        """Tell whether it has."""
        return self._poll is not None and bool(self._poll.poll(0))

    @property
    def final(self) -> bool:
        """Tell whether it has, and nothing that it sent is left to be read."""
        goodbye = _CLOSE_NOTIFY if ISSLTransport.providedBy(self._transport) else 0
        return bool(self) and unreadBy(self._transport) <= goodbye


class DrainWatch:
    """
    A watch on a peer, which must take some of what is queued for it within a time.

    A peer that takes a little of it is slow, but not dead.
    """

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        """Set how long the peer may take nothing."""
        self.seconds = seconds
        self._clock = clock
        self._transport: object = None
        self._passed: Callable[[], object] | None = None
        self._unsent = 0
        self._since = 0.0
        self._look: IDelayedCall | None = None

    def start(self, transport: object, passed: Callable[[], object]) -> None:
        """
        Begin to watch a transport's peer.

        @param passed: called once, when it has taken nothing for too long.
        """
        self.stop()
        self._transport = transport
        self._passed = passed
        self._unsent = unsentBy(transport)
        self._since = self._clock.seconds()
        self._lookLater()

    def stop(self) -> None:
        """Watch no longer, and keep nothing of what was watched."""
        look, self._look = self._look, None
        self._transport = self._passed = None
        if look is not None:
            look.cancel()

    def _lookLater(self) -> None:
        left = self._since + self.seconds - self._clock.seconds()
        delay = min(left, self.seconds / PROGRESS_LOOKS)
        self._look = self._clock.callLater(max(0.0, delay), self._lookForProgress)

    def _lookForProgress(self) -> None:
        self._look = None
        now = self._clock.seconds()
        before, self._unsent = self._unsent, unsentBy(self._transport)
        if self._unsent < before:
            self._since = now
        if now < self._since + self.seconds:
            self._lookLater()
            return
        passed = self._passed
        self.stop()
        if passed is not None:
            passed()
