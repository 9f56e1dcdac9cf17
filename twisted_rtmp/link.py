"""
The common part of both ends of a connection: the transport, its pressure, and the
loop that dispatches what has come.

It knows no command and no stream: these are for the methods that the server's and the
client's protocol override.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_rtmp.limits import DRAIN_SECONDS, QUEUED_REPLY_BYTES
from twisted_rtmp.live.budget import Account, Share
from twisted_rtmp.live.pacing import LARGE_READ
from twisted_rtmp.live.turns import NOTED_SECONDS, Turns
from twisted_rtmp.names import peerName
from twisted_rtmp.sockets import (
    DirectSocket,
    DrainWatch,
    HangUp,
    IStreamTransport,
    directSocket,
    setReadSize,
    unreadBy,
    waitingIn,
)
from twisted_rtmp.states import Stateful
from twisted_rtmp.wire.connection import Connection, Role
from twisted_rtmp.wire.constants import NEED_DATA, MessageType
from twisted_rtmp.wire.errors import ProtocolError
from twisted_rtmp.wire.limits import DEFAULT_WIRE_LIMITS, WireLimits
from twisted_rtmp.wire.messages import (
    Command,
    HandshakeDone,
    Ignored,
    Message,
    Swallowed,
    UserControl,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime

    from twisted_rtmp.live.pacing import Pacer

_DATA: int = MessageType.DATA_AMF0

#: Bytes that one read takes at most, and that are queued for a peer before nothing
#: more is read from it.  A read costs more than its bytes: at full speed a server
#: spends 1.5 s of CPU a GB in reads of 64 KiB, and a third of that in these.
READ_SIZE = 1024 * 1024

#: What is read at a time at first, until full reads turn out to be quick work, and of
#: a peer that has taken L{SLOW_READ_SECONDS} for one read, in bytes.  Chunks of one
#: byte, each of another chunk stream, cost 2 us a byte: in larger reads, a few such
#: peers leave the others without service for seconds.
SMALL_READ_SIZE = 16 * 1024
SLOW_READ_SECONDS = 0.02

#: How many times as much the next read may take, after one that was full and quick:
#: three of them lead to the largest.
READ_STEP = 4

#: How many frames are dispatched before it is looked how long that took.  After
#: anything else it is looked at once: 10,000 AMF values take 6 to 12 ms.
TURN_MESSAGES = 64

#: Replies to what one read brought are sent together; from so many bytes on at once, so
#: that a flood of commands is answered, and held up, before it is all looked at.
GATHERED_BYTES = 4 * 1024

#: Bytes by which what is kept for a peer has to change, before that is charged: seldom
#: for those that send small messages.
CHARGED_BYTES = 16 * 1024


class LinkState(Enum):
    """The states of a connection."""

    HANDSHAKE = "handshake"
    CONNECTING = "connect command"
    CONNECTED = "streams"
    CLOSING = "closing"
    CLOSED = "closed"


#: The states that may follow each state.
TRANSITIONS = {
    LinkState.HANDSHAKE: {LinkState.CONNECTING, LinkState.CLOSING, LinkState.CLOSED},
    LinkState.CONNECTING: {LinkState.CONNECTED, LinkState.CLOSING, LinkState.CLOSED},
    LinkState.CONNECTED: {LinkState.CLOSING, LinkState.CLOSED},
    LinkState.CLOSING: {LinkState.CLOSED},
    LinkState.CLOSED: set(),
}


class Hold(Enum):
    """The reasons for which nothing is read from a peer for now."""

    DECISION = "a decision is awaited"
    REPLIES = "the peer does not take its replies"
    SINK = "a recording or another sink is behind"
    TURN = "others have their turn"


_TURN = (Hold.TURN, None)
_DECISION = (Hold.DECISION, None)
_REPLIES = (Hold.REPLIES, None)

_TURN_RANGE = range(TURN_MESSAGES)


#: When a connection is to be cut, in the clock's seconds; why, for the log; and how
#: long it has had, in seconds, which goes behind that: C{"no audio or video for"}, 15.
Deadline = tuple[float, str, float]

NO_DEADLINE: Deadline = (math.inf, "", 0.0)


class MediaReceiver(typing.Protocol):
    """
    A receiver of the media of one message stream.

    @ivar heard: when audio or video came last, in the clock's seconds.
    """

    heard: float

    def messageReceived(self, message: Message) -> None:
        """Take an audio, video or data message."""

    def noteHeard(self, now: float) -> None:
        """
        Note that media may have come: once a read.

        @param now: the clock's time when they did.
        """


@implementer(IPushProducer)
class Link(Stateful[LinkState], Protocol):
    """
    One end of a connection.

    Bytes go into a L{Connection}; its events are dispatched one by one until
    it needs data, or a decision is awaited, or the peer does not take its
    replies.  Then the rest waits in the accumulator, and TCP slows the peer
    down.

    @ivar wire: the connection's state on the wire.
    @ivar peer: the peer's address, for log lines.
    @ivar state: how far the connection has come.
    @ivar openedAt: when it began, in the clock's seconds.
    @ivar congested: whether more is queued for the peer than it takes.
    @ivar paced: whether the pacer reads it, and the reactor does not.
    @ivar receivers: what takes the media that come, by message stream id.
    """

    log = Logger()
    transport: IStreamTransport
    transitions = TRANSITIONS

    def __init__(
        self,
        role: Role,
        clock: IReactorTime,
        address: IAddress | None,
        *,
        limits: WireLimits = DEFAULT_WIRE_LIMITS,
        queuedBytes: int = QUEUED_REPLY_BYTES,
        drainSeconds: float = DRAIN_SECONDS,
        pacer: Pacer | None = None,
        turns: Turns | None = None,
    ) -> None:
        """
        @param role: the end that this is.
        @param clock: what times and deadlines are counted by.
        @param address: the peer's.
        @param queuedBytes: what may be queued for the peer before nothing more is
            read from it; one read takes no more either.
        @param drainSeconds: how long the peer may take nothing of that.
        @param pacer: is told of each read that brings media.
        @param turns: is told how long each turn was.
        """
        self.wire = Connection(role, limits)
        self.peer = "?"
        self.state = LinkState.HANDSHAKE
        self.openedAt = 0.0
        self.congested = False
        self.paced = False
        # Bytes of replies that were written since the peer took no more.
        self._untaken = 0
        self.receivers: dict[int, MediaReceiver] = {}
        self.pacer = pacer
        self._turns = Turns(clock) if turns is None else turns
        self._clock = clock
        self._address = address
        self._queuedBytes = queuedBytes
        self._drain = DrainWatch(clock, drainSeconds)
        self._dispatching = True
        self._running = False
        # Each hold, with whom it is for; and whether the reactor reads.
        self._holds: set[tuple[Hold, object]] = set()
        self._reads = True
        self._direct: DirectSocket | None = None
        self._readSize = min(SMALL_READ_SIZE, queuedBytes)
        self._hangUp: HangUp | None = None
        self._heard = 0.0
        self._since = 0.0
        self._lastLook = False
        self._timer: IDelayedCall | None = None
        self._turnCall: IDelayedCall | None = None
        self._kept: Share | None = None
        self._sending: Share | None = None
        # Whether something may wait in the transport that is not charged.
        self._unsettled = False

    # From the transport

    def connectionMade(self) -> None:
        self.peer = peerName(self._address)
        transport = self.transport
        # A UNIX socket's transport has neither.
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        self._direct = directSocket(transport)
        setReadSize(transport, self._readSize)
        transport.registerProducer(self, True)
        self._heard = self._since = self.openedAt = self._clock.seconds()
        self.setTimer()

    def dataReceived(self, data: bytes) -> None:
        if self.state is LinkState.CLOSING:
            return  # TLS reads on, for the peer's word that it closes too
        self._heard = now = self._clock.seconds()
        self.wire.feed(data)
        size = len(data)
        full = size >= self._readSize
        pacer = self.pacer
        if pacer is None or not self.receivers:
            self._run(now)
            seconds = self._clock.seconds() - now
        else:
            pacer.readBegins()
            try:
                messages = self._run(now)
            finally:
                pacer.readEnds()
            seconds = self._clock.seconds() - now
            if self.receivers:
                pacer.readDone(self, size, messages, now, seconds, full)
        if full:
            self._fitReads(full, seconds)
        if seconds > NOTED_SECONDS:
            self.tookLong(seconds)

    def tookLong(self, seconds: float) -> None:
        """Note a read that took long; the next one is to take less."""
        if seconds > SLOW_READ_SECONDS:
            self._fitReads(False, seconds)
        self._turns.took(seconds, self.peer, "reading")

    def _fitReads(self, full: bool, seconds: float) -> None:
        """
        Read less of a peer whose bytes are dear, so that others get their turn.

        @param full: whether a read brought as much as it may.
        @param seconds: what that took.
        """
        size = self._readSize
        if seconds > SLOW_READ_SECONDS:
            size = min(SMALL_READ_SIZE, size)
        elif full:
            # Step by step: what was quick work may be followed by what is not.
            most = min(size * READ_STEP, READ_SIZE, self._queuedBytes)
            if seconds * most < SLOW_READ_SECONDS * size:
                size = most
        if size != self._readSize:
            self._readSize = size
            setReadSize(self.transport, size)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        wasClosing = self.state is LinkState.CLOSING
        self._enter(LinkState.CLOSED)
        self.paced = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._turnCall is not None:
            self._turnCall.cancel()
            self._turnCall = None
            self._turns.waits(-1)
        self._drain.stop()
        if not wasClosing:
            self.ending()

    # The transport's producer: it has more to send than it likes to keep

    def pauseProducing(self) -> None:
        """
        The peer does not take what is sent: write no more media.

        It is read on, until it has caused too many replies: each end of a connection
        would else wait for the other one where both send media.
        """
        if self.congested:
            return  # a transport says so at each write
        self.setCongested(True)
        self._untaken = 0
        if self.state not in (LinkState.CLOSING, LinkState.CLOSED):
            self._drain.start(self.transport, self.notDrained)
            self._settle()

    def resumeProducing(self) -> None:
        """The peer has taken what was queued for it."""
        self.setCongested(False)
        began = self._clock.seconds()
        self.drained()
        seconds = self._clock.seconds() - began
        if seconds > NOTED_SECONDS:
            self._turns.took(seconds, self.peer, "writing")
        if not self.congested:
            self._settle()
            self._drain.stop()
            self.release(Hold.REPLIES)
            self.setTimer()

    def stopProducing(self) -> None:
        """Do nothing: the connection is lost, and L{connectionLost} ends all."""

    def setCongested(self, congested: bool) -> None:
        """Note whether more is queued for the peer than it takes."""
        self.congested = congested

    # Reading, and not reading

    def hold(self, reason: Hold, holder: object = None) -> None:
        """Read nothing from the peer until the same hold is released."""
        if self.state in (LinkState.CLOSING, LinkState.CLOSED):
            return
        self._holds.add((reason, holder))
        self._setReading()
        self._setDispatching()

    def release(self, reason: Hold, holder: object = None) -> None:
        """End a hold; with the last one, reading goes on."""
        if (reason, holder) not in self._holds:
            return
        self._holds.remove((reason, holder))
        self._setDispatching()
        if self.state is LinkState.CLOSED:
            return
        if reason is not Hold.REPLIES and reason is not Hold.TURN:
            # The peer could not be heard: it has not been silent.
            now = self._clock.seconds()
            for receiver in self.receivers.values():
                receiver.heard = now
        self._setReading()
        self._run(self._clock.seconds())

    def _setReading(self) -> None:
        """Let the reactor read, unless something speaks against it."""
        reads = not self._holds and not self.paced
        if reads is self._reads or self.state is LinkState.CLOSED:
            return
        self._reads = reads
        if reads:
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()

    def holdPace(self) -> None:
        """Leave the reading to the pacer: it calls L{readPaced}."""
        self.paced = True
        self._setReading()

    def readPaced(self) -> bytes:
        """
        Read what has come meanwhile, without the reactor, which would have to be told
        of it before and after: that costs more than the read.

        No more than what a paced read may bring: many reads are kept at a time, and
        each has as much memory at first as it may take.

        @return: what L{takePaced} is to be given; empty if the reactor reads on.
        """
        if self.paced and not self._holds and self._direct is not None:
            data = self._direct.receive(LARGE_READ)
            if data:
                return data
            if data is None:
                self._direct.lose()
        # Also at the end of what comes: that is for the reactor to find.
        self._readOn()
        return b""

    def takePaced(self, data: bytes, now: float) -> int:
        """
        Take what L{readPaced} has read; L{paced} tells whether the pacer reads on.

        @param now: the clock's time.
        @return: how many audio, video and data messages there were.
        """
        messages = 0
        try:
            if self.state is not LinkState.CLOSED:
                self._heard = now
                self.wire.feed(data)
                messages = self._run(now)
        # As where the reactor reads: a bug is logged, and ends one connection only.
        except Exception:
            self.log.failure("{peer}: reading failed", peer=self.peer)
            assert self._direct is not None
            self._direct.lose()
        size = len(data)
        full = size >= self._readSize
        if full:
            self._fitReads(full, self._clock.seconds() - now)
        pacer = self.pacer
        isAhead = full or size >= LARGE_READ
        if isAhead or pacer is None or not pacer.active or not self.receivers:
            self._readOn()
        return messages

    def _readOn(self) -> None:
        """Let the reactor read again, unless something speaks against it."""
        self.paced = False
        self._setReading()

    def _setDispatching(self) -> None:
        """Note whether events may be dispatched: asked once a message."""
        self._dispatching = (
            self.state not in (LinkState.CLOSING, LinkState.CLOSED)
            and _DECISION not in self._holds
            and _REPLIES not in self._holds
            and _TURN not in self._holds
        )

    # What came

    def _run(self, now: float) -> int:
        """
        Dispatch events until none is left or something is to be awaited.

        @param now: the clock's time.
        @return: how many audio, video and data messages there were.
        """
        if self._running:
            # A sink has let us go on within a message: the loop below does so, in
            # order and without nesting.
            return 0
        self._running = True
        messages = 0
        wire = self.wire
        receivers = self.receivers
        until = now + self._turns.share
        event: Any = None
        try:
            while self._dispatching and event is not NEED_DATA:
                if event is not None and self._clock.seconds() > until:
                    self._waitForTurn()
                    break
                for _ in _TURN_RANGE:
                    event = wire.nextFrame() or wire.nextEvent()
                    if event.__class__ is Message:
                        messages += 1
                        receiver = receivers.get(event.streamId)
                        if receiver is None:
                            self.strayMessage(event)
                        elif event.typeId != _DATA:
                            receiver.messageReceived(event)
                        else:
                            receiver.messageReceived(event)
                            break
                    elif event is NEED_DATA:
                        break
                    else:
                        _EVENTS[event.__class__](self, event)
                        if wire.outgoingBytes > GATHERED_BYTES:
                            self.flush()
                        break
                    if not self._dispatching:
                        break  # type: ignore[unreachable]  # an event may end it
        except ProtocolError as error:
            self.violated(error)
        finally:
            self._running = False
        if messages:
            for receiver in receivers.values():
                receiver.noteHeard(now)
        if wire.outgoing:
            self.flush()
        if self._kept is not None:
            change = wire.reader.unfinished - self._kept.bytes
            if (
                self._unsettled
                or not self._dispatching
                or not -CHARGED_BYTES < change < CHARGED_BYTES
            ):
                self._settle()
        return messages

    # Memory

    def chargeTo(self, account: Account) -> None:
        """Charge what is kept for the peer to an account, from here on."""
        self._kept = account.share(forAddress=True)
        self._sending = account.share()

    @property
    def sendsMedia(self) -> bool:
        """Tell whether more than replies may wait for the peer."""
        return False

    def _settle(self) -> None:
        """Charge what is kept: once a read, and when the peer takes no more."""
        if self._kept is None or self._sending is None:
            return
        kept = self.wire.keptBytes
        direct = self._direct
        sending = waitingIn(self.transport) if direct is None else direct.waiting
        self._unsettled = sending > 0
        if sending and not self.sendsMedia:
            kept += sending
            sending = 0
        if kept != self._kept.bytes:
            self._kept.set(kept)
        if sending != self._sending.bytes:
            self._sending.set(sending)

    def _waitForTurn(self) -> None:
        """Go on when the other peers have been heard."""
        self.hold(Hold.TURN)
        if self._turnCall is None and _TURN in self._holds:
            self._turns.waits(1)
            self._turnCall = self._clock.callLater(0, self._turn)

    def _turn(self) -> None:
        self._turnCall = None
        self._turns.waits(-1)
        began = self._clock.seconds()
        self.release(Hold.TURN)
        seconds = self._clock.seconds() - began
        if seconds > NOTED_SECONDS:
            self._turns.took(seconds, self.peer, "reading")

    @property
    def unread(self) -> bool:
        """Tell whether bytes of the peer have come and wait to be looked at."""
        waits = not self._dispatching and self.wire.reader.pending
        return bool(waits or unreadBy(self.transport))

    @property
    def hasLeft(self) -> bool:
        """Tell whether the peer has closed its end, and all it sent has been read."""
        return not self.wire.reader.pending and HangUp(self.transport).final

    def handshakeDone(self, event: HandshakeDone) -> None:
        """Chunks may be sent and are read."""
        self._enter(LinkState.CONNECTING)
        self.setTimer()

    def commandReceived(self, command: Command) -> None:
        """
        The peer asks for something, or answers.

        @raise ProtocolError: it may not.
        """
        raise NotImplementedError

    def userControlReceived(self, event: UserControl) -> None:
        """A user control message; a ping is answered already."""

    def ignored(self, event: Ignored) -> None:
        """A message of a type that means nothing to us, the first of its type."""
        self.note(
            "{peer} sends messages of type {type}, which are ignored",
            type=event.typeId,
        )

    def strayMessage(self, message: Message) -> None:
        """Media on a message stream that nothing receives."""

    def violated(self, error: ProtocolError) -> None:
        """The peer did what is not allowed."""
        rule = f" ({error.section})" if error.section else ""
        self.warn(
            "{peer} is cut for a protocol error: {error}{rule}",
            error=str(error),
            rule=rule,
        )
        self.close()

    # What is sent

    def flush(self) -> None:
        """Send what the wire has for the peer."""
        data = self.wire.dataToSend()
        if not data or self._hangUp:
            return
        if self.congested:
            self._untaken += len(data)
            if self._untaken > self._queuedBytes:
                self.hold(Hold.REPLIES)
        self._write(data)

    def _write(self, data: bytes) -> None:
        """Write, at once as far as that goes."""
        if self._direct is not None:
            data = self._direct.send(data)
        if data:
            self.transport.write(data)
            self._unsettled = True

    def writeMedia(self, data: bytes) -> None:
        """
        Send media that are chunks already, behind all that the wire has: at once as far
        as that goes.
        """
        wire = self.wire
        if wire.outgoing:
            self.flush()
        wire.bytesSent += len(data)
        # As L{_write} does, which would be one call more for each player.
        if self._direct is not None:
            data = self._direct.send(data)
        if data:
            self.transport.write(data)

    def drained(self) -> None:
        """The peer has taken what was queued for it: more may be written."""

    def watchHangUp(self) -> None:
        """
        Send a peer that sends media nothing more once it has closed its end.

        It would answer with a reset, and an error on writing ends a connection
        before all that came has been read.  The end of a fast encoder's stream
        gets lost so, since it closes while megabytes wait in the kernel.
        """
        self._hangUp = HangUp(self.transport)

    # States, deadlines and the end

    def _enter(self, state: LinkState) -> None:
        super()._enter(state)
        self._since = self._clock.seconds()
        self._setDispatching()

    def deadline(self) -> Deadline:
        """
        Tell when this connection is to be cut; asked as long as it is neither closing
        nor held up by its peer.
        """
        return NO_DEADLINE

    def setTimer(self) -> None:
        """Look at the deadline when it is due."""
        if self.state is LinkState.CLOSED:
            return  # a stream that ends with the connection may tell its player
        if self.state is LinkState.CLOSING:
            when = self._since + self._drain.seconds
        else:
            when = self.deadline()[0]
        if when == math.inf:
            return  # a timer that is due meanwhile sets no other one
        if self._timer is not None:
            if self._timer.getTime() <= when:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(
            max(0.0, when - self._clock.seconds()), self._timerDue
        )

    def _timerDue(self) -> None:
        self._timer = None
        isLastLook, self._lastLook = self._lastLook, False
        now = self._clock.seconds()
        if self.state is LinkState.CLOSING:
            if now < self._since + self._drain.seconds:
                self.setTimer()
            else:
                self.transport.abortConnection()
        elif _REPLIES not in self._holds:  # or else L{resumeProducing} sets it again
            when, why, seconds = self.deadline()
            if now < when:
                self.setTimer()
            elif not isLastLook and self.unread:
                # It may have said what is awaited: read that first.
                self._lastLook = True
                self._timer = self._clock.callLater(0, self._timerDue)
                return
            else:
                self.noteCut(f"{why} {seconds:g} s")
                self.close()

    def notDrained(self) -> None:
        """Cut the peer, which has taken nothing for too long."""
        self.noteCut(f"it takes nothing for {self._drain.seconds:g} s")
        self.transport.abortConnection()

    def note(self, format: str, **fields: object) -> None:  # noqa: A002
        """Log something about the peer, C{peer} in the format."""
        self.log.info(format, peer=self.peer, **fields)

    def warn(self, format: str, **fields: object) -> None:  # noqa: A002
        """Log something that the peer has done wrong, or lost."""
        self.log.warn(format, peer=self.peer, **fields)

    def noteCut(self, why: str) -> None:
        """Log and count that the connection is about to be closed for a reason."""
        self.warn("{peer} is cut: {why}", why=why)

    def close(self) -> None:
        """
        Close the connection when what is queued has been sent; at the drain
        limit at the latest.
        """
        if self.state is LinkState.CLOSING or self.state is LinkState.CLOSED:
            return
        # First of all: a sink of a stream that ends may release its hold.
        self._enter(LinkState.CLOSING)
        self.ending()
        self.flush()
        self._drain.stop()
        self.transport.unregisterProducer()
        # TLS ends only when the peer's answer to its end can be read.
        self._holds.clear()
        self._readOn()
        self.transport.loseConnection()
        self.setTimer()

    def abort(self, why: str = "") -> None:
        """
        Close at once, whatever is queued.

        @param why: for the log and the count of those that were cut; without a
            reason it is neither.
        """
        if why:
            self.noteCut(why)
        self.transport.abortConnection()

    def ending(self) -> None:
        """The connection is about to be closed, or is lost: end what is on it."""


#: What takes each event but a L{Message}; an answer to protocol control is sent as
#: any other.
_EVENTS: dict[type, Callable[[Link, Any], None]] = {
    HandshakeDone: lambda link, event: link.handshakeDone(event),
    Command: lambda link, event: link.commandReceived(event),
    UserControl: lambda link, event: link.userControlReceived(event),
    Ignored: lambda link, event: link.ignored(event),
    Swallowed: lambda link, event: None,
}
