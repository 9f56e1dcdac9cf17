"""
Hostile peers, 2 to 12 at once, beside an honest stream: it loses nothing and never
waits for long, and nothing is left of them.

Time here is work: the server's clock goes on with each function that is called, so
that turns end as they do in a process, and every machine measures the same.  Counting
calls is most of what a session costs: all but a few rounds count the looks that the
server takes at its clock, which it does after each piece of work.
"""

from __future__ import annotations

import gc
import math
import random
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from feeding import CollectingSink, chunk, setChunkSize
from fuzzkit import (
    CONNECTING,
    MEDIA,
    METADATA,
    SEED,
    SESSION_COUNT,
    command,
    conversation,
    corpus,
    inChunks,
    named,
    webSession,
)
from httpclient import FLV
from rtmpclient import HANDSHAKE, VIDEO, Chunks, MemoryTransport
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from zope.interface import implementer

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import ISinkFactory
from twisted_rtmp.live.streams import LiveStream
from twisted_rtmp.web import HTTPSite
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.messages import Message

#: A function call with what it does by itself, in seconds: as measured with these
#: sessions on a machine of 2020.
CALL_SECONDS = 0.3e-6

#: The same of a look at the clock, with what is done until the next one.
LOOK_SECONDS = 20e-6

#: One round in so many counts calls.
MEASURED = 20

#: Between two frames of the honest stream, in seconds.
FRAME_SECONDS = 0.01

#: The longest that the honest stream may wait, and that one peer may hold the loop, in
#: seconds.
SILENCE_SECONDS = 0.5
TURN_SECONDS = 0.05

#: What the server keeps, and awaits, for the honest stream and its players at most.
KEPT_BYTES = 512 * 1024
KEPT_CALLS = 8

#: Objects that all sessions but the first tenth may add, by which everything that is
#: made once has been made: fewer than there are sessions even in a short run.
KEPT_BLOCKS = 1000

#: C0, C1 and C2.
GREETING = b"\x03" + bytes(2 * 1536)

#: Bytes of what is sent again and again, at most: where calls are counted, and else.
LENGTH = 200_000
SHORT = 10_000


class WorkClock(Clock):
    """
    A clock that goes on by the work that is done.

    @ivar counting: whether that is told by the functions that are called while
        L{working}, or by the looks at the clock.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counting = True
        self._worked = 0.0

    def seconds(self) -> float:
        if not self.counting:
            self._worked += LOOK_SECONDS
        now: float = self.rightNow + self._worked
        return now

    def _count(self, frame: object, event: str, argument: object) -> None:
        if event in {"call", "c_call"}:
            self._worked += CALL_SECONDS

    @contextmanager
    def working(self) -> Iterator[None]:
        if not self.counting:
            yield
            return
        before = sys.getprofile()
        sys.setprofile(self._count)
        try:
            yield
        finally:
            sys.setprofile(before)


class Watch(CollectingSink):
    """
    A sink that notes how long it was given nothing.

    @ivar last: when it was given something last.
    @ivar silence: the longest time between two messages, in seconds.
    """

    def __init__(self, stream: LiveStream, clock: Clock) -> None:
        super().__init__(stream)
        self.clock = clock
        self.last = clock.seconds()
        self.silence = 0.0

    def mediaReceived(self, message: Message) -> None:
        now = self.clock.seconds()
        self.silence = max(self.silence, now - self.last)
        self.last = now
        super().mediaReceived(message)


class Peer:
    """
    One connection: its bytes are read when the loop comes to it.

    @ivar unread: bytes that it has sent and the server has not read.
    @ivar most: how many of them come with one read at most.
    @ivar received: all that it was sent.
    """

    most = 1 << 20

    _port = 1024

    def __init__(self, builder: Any, clock: Clock, data: bytes, host: int = 1) -> None:
        """@param builder: the factory of the server's end."""
        Peer._port = Peer._port % 60_000 + 1
        self.address = IPv4Address("TCP", f"198.51.100.{host}", Peer._port)
        self.unread = bytearray(data)
        self.received = bytearray()
        self.transport = MemoryTransport(clock, self)  # type: ignore[arg-type]
        self.protocol = builder.buildProtocol(self.address)
        self.protocol.makeConnection(self.transport)

    @property
    def isReadable(self) -> bool:
        transport = self.transport
        return bool(self.unread) and transport.reading and not transport.disconnected

    def read(self) -> None:
        """Let the server read once, as much as it wants to."""
        if self.isReadable:
            size = min(self.transport.bufferSize, self.most)
            data = bytes(self.unread[:size])
            del self.unread[:size]
            self.protocol.dataReceived(data)

    def take(self) -> None:
        """Take what it is sent, and hear that the server has closed."""
        if self.transport.queued or self.transport.disconnecting:
            self.received += self.transport.deliver()

    @property
    def isCut(self) -> bool:
        transport = self.transport
        return transport.disconnected or transport.disconnecting or transport.aborted


@implementer(ISinkFactory)
class World:
    """
    A server with an honest stream, which has a player by RTMP and one by HTTP.

    @ivar peers: all connections.
    @ivar frames: how many the honest stream has sent.
    @ivar compared: how many of them have been seen to come to its sink and its players.
    @ivar longest: what took longest, in seconds, and what it was.
    """

    sinkName = "watch"

    def __init__(self) -> None:
        self.clock = WorkClock()
        self.sinks: list[Watch] = []
        self.factory = RTMPFactory(self.clock, sinkFactories=[self])
        self.site = HTTPSite(self.factory.registry)
        self.peers: list[Peer] = []
        self.longest = 0.0, ""
        self.publisher = self.accept(
            self.factory,
            GREETING
            + CONNECTING
            + command("createStream", 2, None)
            + command("publish", 3, None, "honest", "live", stream=1),
        )
        self.publisher.read()
        [self.watch] = self.sinks
        self.frames = 0
        self.due = self.clock.seconds()
        self.player = self.accept(self.factory, self.playing("honest"))
        self.page = self.accept(self.site, b"GET /live/honest.flv HTTP/1.0\r\n\r\n")
        self.honest = [self.publisher, self.player, self.page]
        self.compared = 0
        self._chunks = Chunks()
        self._flv = FLV()
        self._played: list[bytes] = []
        while b"\r\n\r\n" not in self.page.received:
            self.wait(0.1)
            self.turn(random.Random(SEED))
        del self.player.received[:HANDSHAKE]
        del self.page.received[: self.page.received.index(b"\r\n\r\n") + 4]

    def openSink(self, stream: LiveStream) -> Watch:
        self.sinks.append(Watch(stream, self.clock))
        return self.sinks[-1]

    @staticmethod
    def playing(name: str) -> bytes:
        data = GREETING + CONNECTING
        data += command("createStream", 2, None)
        return data + command("play", 3, None, name, stream=1)

    def accept(self, builder: Any, data: bytes, host: int = 1) -> Peer:
        peer = Peer(builder, self.clock, data, host)
        self.peers.append(peer)
        return peer

    def frame(self, number: int) -> bytes:
        """Half a kilobyte that no other frame has; a key frame each 25th."""
        start = b"\x17\x01\0\0\0" if number % 25 == 0 else b"\x27\x01\0\0\0"
        return start + b"%9d" % number * 50

    def send(self) -> None:
        """Send all frames that are due, as an encoder does whatever the server does."""
        while self.due <= self.clock.seconds():
            data = inChunks(6, self.frame(self.frames), stream=1, time=10 * self.frames)
            self.publisher.unread += data
            self.frames += 1
            self.due += FRAME_SECONDS

    # The loop

    def turn(self, rng: random.Random) -> bool:
        """
        Do what is due, and read each connection once, in any order.

        @return: whether there was anything to do.
        """
        clock = self.clock
        now = clock.seconds()
        # What a call puts off to the next turn is not due in this one.
        due = [call for call in clock.calls if call.getTime() <= now]
        readable = [peer for peer in self.peers if peer.isReadable]
        busy = bool(due or readable)
        self.send()
        if self.publisher not in readable:
            readable.append(self.publisher)
        rng.shuffle(readable)
        with clock.working():
            for call in due:
                if call.active():
                    clock.calls.remove(call)
                    call.called = 1
                    call.func(*call.args, **call.kw)
                    now = self.took(now, call)
            for peer in readable:
                peer.read()
                now = self.took(now, peer)
            for peer in list(self.peers):
                peer.take()
            self.took(now, "taking")
        return busy

    def took(self, since: float, what: object) -> float:
        now = self.clock.seconds()
        if now - since > self.longest[0]:
            self.longest = now - since, str(what)  # which keeps nothing
        return now

    def wait(self, seconds: float) -> None:
        """Let time pass in which nobody works, or sends more than a frame."""
        self.clock.rightNow += seconds
        self.watch.last += seconds
        self.due = min(self.due + seconds, self.clock.seconds())

    def leave(self, peer: Peer) -> weakref.ref[Any]:
        """
        Let a peer close its connection, whatever has not been read.

        @return: what would keep the server's end of it, if anything did.
        """
        self.peers.remove(peer)
        peer.transport.lose(ConnectionDone())
        kept = weakref.ref(peer.protocol)
        vars(peer).clear()
        return kept

    # What the honest stream has come to

    def settle(self, rng: random.Random) -> None:
        """Send no frames, until all that have been sent have come, and compare them."""
        self.due = math.inf
        for _ in range(20):
            self.wait(0.1)
            self.turn(rng)
            if self.compare():
                break
        else:
            raise AssertionError("frames do not come")
        self.due = self.clock.seconds()

    def compare(self) -> bool:
        """
        Compare what has come with what was sent.

        @return: whether there is as much of it; if so, it is whole.
        """
        watched = [message[3] for message in self.watch.messages]
        replies = self._chunks.feed(self._received(self.player))
        self._played += [reply.payload for reply in replies if reply.typeId == VIDEO]
        self._flv.feed(self._received(self.page))
        shown = [tag[2] for tag in self._flv.tags if tag[0] == VIDEO]
        count = self.frames - self.compared
        if min(len(watched), len(self._played), len(shown)) < count:
            return False
        expected = [self.frame(n) for n in range(self.compared, self.frames)]
        assert watched == expected
        assert self._played == expected
        assert shown == expected
        for seen in (self.watch.messages, self._played, self._flv.tags):
            seen.clear()
        self.compared = self.frames
        return True

    def _received(self, peer: Peer) -> bytes:
        """Take what an honest peer has got since the last time."""
        received = bytes(peer.received)
        peer.received.clear()
        return received

    def assertNothingLeft(self) -> None:
        """Nothing is kept but for the honest stream, and none of it has been cut."""
        registry = self.factory.registry
        assert list(self.factory.streams) == [("live", "honest")]
        assert set(self.factory.connections) == {peer.protocol for peer in self.honest}
        assert not any(peer.isCut for peer in self.honest)
        assert registry.budget.used <= KEPT_BYTES
        assert len(self.clock.calls) <= KEPT_CALLS
        assert all(sink.ended for sink in self.sinks[1:])
        del self.sinks[1:]

    # Who comes

    def hostile(self, rng: random.Random) -> Peer:
        """Let a peer come that means no good, from one of a few addresses."""
        host = rng.randrange(2, 5)
        if rng.random() < 0.2:
            peer = self.accept(self.site, webSession(rng), host)
        else:
            length = LENGTH if self.clock.counting else SHORT
            peer = self.accept(self.factory, rtmpSession(rng, length), host)
        peer.most = max(
            rng.choice([50, 1000, Peer.most, Peer.most]), len(peer.unread) // 50
        )
        peer.transport.taking = rng.random() < 0.8
        return peer


def rtmpSession(rng: random.Random, length: int) -> bytes:
    """
    A mutated session, a senseless conversation, or what is dear to read.

    @param length: how many bytes of that there are at most.
    """
    kind = rng.random()
    data = GREETING
    if rng.random() < 0.5:
        data += CONNECTING
    if kind < 0.48:
        return data + corpus().mutated(rng)
    if kind < 0.95:
        data += conversation(rng)
        for stream in range(1, rng.randrange(1, 4)):
            name = rng.choice(["honest", "honest", "other"])
            verb = rng.choice(["play", "play", "publish"])
            data += command(verb, 0, None, name, stream=stream)
        return data + conversation(rng)
    if rng.random() < 0.5:
        data += CHEAP
    dear = rng.choice(DEAR)
    return data + dear * rng.randint(1, max(1, length // len(dear)))


def values(count: int) -> bytes:
    """An AMF3 array of so many small objects."""
    value = b"\x0a\x0b\x01\x03a\x04\x01\x01"
    size = (count << 1 | 1).to_bytes(2, "big")
    return (
        b"\x11\x09" + bytes((size[0] | 0x80, size[1] & 0x7F)) + b"\x01" + value * count
    )


#: A large message that nobody takes: what follows is read in large pieces.
CHEAP = (
    setChunkSize(1 << 20) + chunk(0, 6, bytes(200_000), stream=9) + setChunkSize(128)
)

#: Messages that cost the server the most, each byte for itself.
DEAR = [
    chunk(0, 3, type=200, stream=0),
    chunk(0, 3, type=9, stream=7),
    chunk(0, 3, type=22, stream=0),
    chunk(0, 2, bytes(4), type=3, stream=0),
    setChunkSize(128),
    command("unknown", 0, None),
    command("createStream", 2, None),
    command("play", 0, None, "honest", stream=1),
    command("play", 0, None, "honest", stream=1)
    + command("closeStream", 0, None, stream=1),
    command("publish", 0, None, "other", stream=1)
    + command("deleteStream", 0, None, 1.0),
    inChunks(4, b"\0" + amf0.encode("onMetaData") + values(900), type=15, stream=1),
    inChunks(3, b"\0" + amf0.encode("connect", 1) + values(900), type=17, stream=0),
    inChunks(4, METADATA, type=18, stream=1),
    setChunkSize(1)
    + chunk(0, 4, b"x", length=5000)
    + chunk(0, 5, b"x", length=5000)
    + b"\xc4x\xc5x" * 4998,
    b"".join(inChunks(6, payload, type=typeId, stream=1) for typeId, payload in MEDIA),
]


@pytest.fixture
def noCollector() -> Iterator[None]:
    """Nothing that is garbage goes by itself, unless nothing refers to it."""
    gc.disable()
    yield
    gc.enable()


#: The sessions are for several processes, each of which has a server of its own.
PARTS = 4


@pytest.mark.usefixtures("noCollector")
@pytest.mark.parametrize("part", range(PARTS))
def test_manyAtOnce(part: int) -> None:
    """
    After each round the honest stream has come whole and its connections are open, and
    nothing is kept of the others: no state, no call, no connection, without a garbage
    collection.
    """
    world = World()
    blocks = sessions = rounds = 0
    while sessions < SESSION_COUNT // PARTS:
        rng = random.Random(f"{SEED}/together/{part}/{rounds}")
        with named(SEED, "together", part, rounds):
            world.clock.counting = rounds % MEASURED == 0
            hostile = [world.hostile(rng) for _ in range(rng.randint(2, 12))]
            for _ in range(1000):
                if not world.turn(rng):
                    break
            else:
                raise AssertionError("it never ends")
            # Now and then they stay, and run into all their deadlines.
            if rng.random() < 0.05:
                for _ in range(8):
                    world.wait(2)
                    world.turn(rng)
            kept = [world.leave(peer) for peer in hostile]
            world.turn(rng)
            world.settle(rng)
            world.assertNothingLeft()
            assert not any(reference() for reference in kept)
        rounds += 1
        sessions += len(hostile)
        if not blocks and sessions >= SESSION_COUNT // PARTS // 10:
            blocks = sys.getallocatedblocks()
    assert sys.getallocatedblocks() - blocks <= KEPT_BLOCKS
    assert world.watch.silence <= SILENCE_SECONDS
    seconds, what = world.longest
    assert seconds <= TURN_SECONDS, what
