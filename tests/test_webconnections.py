"""Connections of the HTTP site: bounds, deadlines, and how they end."""

from __future__ import annotations

import gc
import weakref

import pytest
from httpclient import Connection, Getter, Socket
from rtmpclient import AVC_FRAME, AVC_KEY_FRAME, VIDEO, Client, decideBy
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from webkit import LARGE_KEY_FRAME, Answers, Authorizer, Publisher

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.limits import (
    PLAYER_QUEUE_BYTES,
    AddressLimits,
    MemoryLimits,
    ServerLimits,
)
from twisted_rtmp.web import HTTPSite
from twisted_rtmp.web.channel import (
    EARLY_BYTES,
    MAX_BODY,
    MAX_HEADERS,
    MEDIA_SIZE,
    REQUEST_SIZE,
    TURN_SECONDS,
)


@pytest.fixture
def factory(clock):
    # Publishers that say nothing while tests wait for players.
    return RTMPFactory(clock, latency=0, limits=ServerLimits(publisherIdleSeconds=1000))


@pytest.fixture
def site(clock, factory):
    return HTTPSite(factory.registry)


@pytest.fixture(params=[Getter, Socket], ids=["response", "socket"])
def play(request):
    return Answers(request.param)


@pytest.fixture
def authorizer(factory):
    return decideBy(factory, Authorizer())


@pytest.fixture
def stalled(factory, site, play):
    """A publisher, and a player that has all so far and takes no more."""
    publisher = Publisher(factory)
    client = play(site)
    client.pump()
    client.transport.taking = False
    return publisher, client


def test_aPlayerThatLeavesIsForgottenAtOnce(factory, site, play, lines):
    publisher = Publisher(factory)
    client = play(site)
    client.leave()
    assert factory.players("live", "key") == []
    assert len(factory.connections) == 1
    publisher.media(VIDEO, AVC_KEY_FRAME)
    [line] = [line for line in lines if " messages of live/key, " in line]
    assert " got 3 messages of live/key, " in line
    publisher.leave()


def test_aPlayerThatLeavesWhileItWaits(factory, site, play):
    client = play(site)
    client.leave()
    assert factory.players("live", "key") == []
    Publisher(factory)


def test_changesOfTheNumberOfPlayersAreTold(factory, site, play):
    told = []
    factory.playersChanged.append(lambda *change: told.append(change))
    client = play(site)
    client.leave()
    assert told == [("live", "key", 1), ("live", "key", 0)]


def test_theEndIsTheEndOfItsPlayers(factory, site, play):
    """They do not wait for another publication."""
    told = []
    factory.playersChanged.append(lambda *change: told.append(change))
    publisher = Publisher(factory)
    client = play(site)
    client.transport.taking = False
    publisher.media(VIDEO, LARGE_KEY_FRAME)
    publisher.media(VIDEO, AVC_FRAME, 40)
    publisher.leave()
    assert told == [("live", "key", 1), ("live", "key", 0)]
    assert client.protocol in factory.connections


def test_aPlayerThatDoesNotReadIsBounded(clock, factory, site, play, lines):
    publisher = Publisher(factory)
    publisher.media(VIDEO, AVC_KEY_FRAME)
    client = play(site)
    assert play.isThere(client)
    client.transport.taking = False
    for time in range(0, 6000, 40):
        publisher.media(
            VIDEO,
            LARGE_KEY_FRAME if time % 1000 == 0 else AVC_FRAME + bytes(50_000),
            time,
        )
    [player] = factory.players("live", "key")
    assert player.dropped
    queued = len(client.transport.queued)
    assert queued <= 2 * len(LARGE_KEY_FRAME)
    assert player.queuedBytes <= PLAYER_QUEUE_BYTES
    client.transport.taking = True
    client.pump()
    assert player.queuedBytes == 0
    # It goes on with a key frame.
    times = [time for _, time, _ in client.tags]
    gap = next(i for i in range(4, len(times)) if times[i] - times[i - 1] > 40)
    assert client.tags[gap][2] == LARGE_KEY_FRAME
    assert any("does not keep up with live/key" in line for line in lines)
    client.leave()
    assert any(f"; {player.dropped} were dropped" in line for line in lines)
    publisher.leave()


def test_aPlayerThatReadsNothingIsCut(clock, factory, stalled, lines):
    publisher, client = stalled
    publisher.media(VIDEO, LARGE_KEY_FRAME)
    assert client.protocol in factory.connections
    seconds = factory.limits.drainSeconds
    clock.advance(seconds - 1)
    assert not client.transport.aborted
    clock.advance(1)
    assert client.transport.aborted
    assert factory.counters.cut == 1
    assert any("is cut: it takes nothing for 10 s" in line for line in lines)
    assert factory.players("live", "key") == []
    publisher.leave()


def test_aPlayerThatReadsAgainIsNotCut(clock, factory, stalled):
    publisher, client = stalled
    publisher.media(VIDEO, LARGE_KEY_FRAME)
    publisher.media(VIDEO, AVC_FRAME, 40)
    clock.advance(factory.limits.drainSeconds - 1)
    client.transport.taking = True
    client.pump()
    assert client.tags[-1] == (VIDEO, 40, AVC_FRAME)
    clock.advance(5)
    assert client.open
    publisher.leave()


def test_theEndComesBehindWhatIsQueued(play, stalled):
    publisher, client = stalled
    publisher.media(VIDEO, LARGE_KEY_FRAME)
    publisher.media(VIDEO, AVC_FRAME, 40)
    publisher.leave()
    assert not client.transport.disconnecting
    client.transport.taking = True
    client.pump()
    assert client.tags[-1] == (VIDEO, 40, AVC_FRAME)
    assert play.ended(client)


def test_aPlayerThatDoesNotTakeTheEndIsCut(clock, factory, stalled):
    publisher, client = stalled
    publisher.leave()
    clock.advance(factory.limits.drainSeconds)
    assert client.transport.aborted
    assert not factory.connections


def test_aPlayerThatTakesTheEndSlowlyGetsAllOfIt(clock, factory, stalled, lines):
    publisher, client = stalled
    waiting = client.transport.transport = FileDescriptor(clock)
    waiting.dataBuffer = bytes(3)
    publisher.leave()
    seconds = factory.limits.drainSeconds
    for left in (2, 1):
        clock.pump([seconds / 20] * 19)
        waiting.dataBuffer = bytes(left)
    assert not client.transport.aborted
    clock.pump([seconds / 20] * 24)
    assert client.transport.aborted
    assert factory.counters.cut == 1
    assert any("is cut: it takes nothing for 10 s" in line for line in lines)


def test_aSuccessorComesWhileTheEndIsQueued(factory, play, stalled):
    """The answer ends with the stream that it began with."""
    publisher, client = stalled
    publisher.media(VIDEO, LARGE_KEY_FRAME)
    publisher.media(VIDEO, AVC_FRAME, 40)
    publisher.leave()
    Publisher(factory)
    client.transport.taking = True
    client.pump()
    assert (VIDEO, 40, AVC_FRAME) in client.tags
    assert play.ended(client)
    assert factory.players("live", "key") == []


# The connection


def test_connectionsCountAgainstTheLimit(clock, lines):
    limits = ServerLimits(connections=2, addresses=AddressLimits(connectionShare=1))
    factory = RTMPFactory(clock, limits=limits)
    site = HTTPSite(factory.registry)
    Publisher(factory)
    Connection(site)
    assert factory.counters.accepted == 2
    assert Connection(site).turnedAway
    assert Client(factory).turnedAway
    assert factory.counters.turnedAway == 2


def test_aRequestHasADeadlineThatNoBytePutsOff(clock, factory, site, lines):
    client = Connection(site)
    seconds = factory.limits.requestSeconds
    for byte in b"GET / HT":
        client.sendBytes(bytes([byte]))
        clock.advance(seconds / 8)
    client.pump()
    assert client.transport.disconnected
    assert factory.counters.cut == 1
    assert any("is cut: no complete request within 10 s" in line for line in lines)
    assert not factory.connections


def test_aConnectionThatSaysNothingIsClosed(clock, factory, site):
    client = Connection(site)
    clock.advance(factory.limits.requestSeconds)
    client.pump()
    assert client.transport.disconnected
    # Browsers open some in advance.
    assert factory.counters.cut == 0


def test_aConnectionThatAsksNoMoreIsClosed(clock, factory, site):
    client = Getter(site, "/live/key.flv", "HEAD")
    clock.advance(factory.limits.requestSeconds)
    client.pump()
    assert client.transport.disconnected
    assert factory.counters.cut == 0


def test_aConnectionThatDoesNotCloseIsAborted(clock, factory, site):
    """As TLS does, if the peer does not answer its end."""
    client = Connection(site)
    client.transport.taking = False
    clock.advance(factory.limits.requestSeconds)
    assert client.transport.disconnecting
    clock.advance(factory.limits.drainSeconds)
    assert client.transport.aborted


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (MAX_HEADERS + 2) + b"\r\n",
        b"GET / HTTP/1.1\r\n" + (b"A: " + b"b" * 1000 + b"\r\n") * 20 + b"\r\n",
        b"\x03\x00\x00\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: " + b"1" * 5000 + b"\r\n\r\n",
    ],
)
def test_badRequestsAreCut(factory, site, request_):
    client = Connection(site)
    client.sendBytes(request_)
    assert client.transport.disconnected
    assert client.raw == b"" or client.raw.startswith(b"HTTP/1.1 400 ")
    assert not factory.connections


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: %d\r\n" % (MAX_BODY + 1),
        b"Content-Length: 99999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
    ],
)
def test_largeBodiesAreRefused(factory, site, head, lines):
    client = Connection(site)
    client.sendBytes(b"POST / HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n")
    for _ in range(3):
        client.sendBytes(b"8000\r\n" + bytes(0x8000) + b"\r\n")
    assert client.raw.startswith(b"HTTP/1.1 413 ")
    assert client.transport.disconnected
    assert factory.counters.violations == 1
    assert any("is cut: a body of more than 16384 bytes" in line for line in lines)


def test_smallBodiesAreRead(site):
    client = Connection(site)
    body = b"x" * MAX_BODY
    for _ in range(3):
        client.sendBytes(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
    assert client.raw.count(b"HTTP/1.1 404 ") == 3


def test_requestsAreReadInSmallPieces(factory, site):
    """Thousands of requests would fit into a read of the usual size."""
    client = Connection(site)
    assert client.transport.bufferSize == REQUEST_SIZE
    client.transport.taking = False
    client.sendBytes(b"HEAD / HTTP/1.1\r\n\r\n" * (REQUEST_SIZE // 19))
    assert not client.transport.reading
    client.transport.taking = True
    client.pump()
    assert client.transport.reading
    assert client.raw.count(b"HTTP/1.1 404 ") == REQUEST_SIZE // 19


class BusyClock(Clock):
    """A clock that goes on each time it is looked at."""

    def seconds(self):
        self.rightNow += 0.0001
        return self.rightNow


def test_otherPeersHaveTheirTurn():
    """They need not wait until all requests of one piece are answered."""
    clock = BusyClock()
    factory = RTMPFactory(clock)
    site = HTTPSite(factory.registry)
    count = REQUEST_SIZE // 19
    client = Connection(site)
    client.sendBytes(b"HEAD / HTTP/1.1\r\n\r\n" * count)
    assert not client.transport.reading
    assert 0 < client.raw.count(b"HTTP/1.1 404 ") < count
    other = Getter(site, "/", "HEAD")
    assert other.status == 404
    other.leave()
    clock.advance(0)
    client.pump()
    assert client.transport.reading
    assert client.raw.count(b"HTTP/1.1 404 ") == count
    assert factory.registry.turns.longest < 2 * TURN_SECONDS
    client.leave()
    assert not factory.connections


def test_aPeerThatLeavesBeforeItsTurnIsForgotten():
    clock = BusyClock()
    factory = RTMPFactory(clock)
    client = Connection(HTTPSite(factory.registry))
    client.sendBytes(b"HEAD / HTTP/1.1\r\n\r\n" * (REQUEST_SIZE // 19))
    client.leave()
    assert not factory.connections
    clock.advance(0)  # its round ends
    assert clock.getDelayedCalls() == []


def test_connectionsDescribeThemselves(factory, site):
    class Late(Resource):
        isLeaf = True

        def render(self, request):
            asked.append(request)
            return NOT_DONE_YET

    asked = []
    site.root.putChild(b"late", Late())
    client = Connection(site)
    states = [client.protocol.describe().state]
    for data in (b"GET /late", b" HTTP/1.1\r\n\r\n"):
        client.sendBytes(data)
        states.append(client.protocol.describe().state)
    asked[0].finish()
    states.append(client.protocol.describe().state)
    assert states == [
        "between requests",
        "receiving a request",
        "answering",
        "between requests",
    ]
    assert client.protocol.describe().bytesReceived == 22


def test_requestsThatComeEarlyAreBounded(factory, authorizer, site):
    """While a request waits for its decision, further ones wait, too."""
    authorizer.playAnswer = Deferred()
    client = Connection(site)
    head = b"HEAD /live/key.flv HTTP/1.1\r\n\r\n"
    client.sendBytes(head * 2)
    for byte in head:
        client.sendBytes(bytes([byte]))
    count = 3
    while client.transport.reading:
        client.sendBytes(head)
        count += 1
    assert EARLY_BYTES < (count - 1) * len(head) < EARLY_BYTES + REQUEST_SIZE
    authorizer.playAnswer, waiting = None, authorizer.playAnswer
    assert not client.raw
    waiting.callback(None)
    client.pump()
    assert client.transport.reading
    assert client.raw.count(b"HTTP/1.1 404 ") == len(authorizer.plays) == count


def test_nothingIsKeptThatComesWhileItPlays(factory, site):
    """So its end is seen at once, whatever the peer has sent before."""
    publisher = Publisher(factory)
    client = Getter(site, "/live/key.flv")
    for _ in range(20):
        client.sendBytes(bytes(10_000))
    assert client.transport.reading
    assert factory.registry.budget.ofAddress("198.51.100.8") < 1000
    client.leave()
    assert factory.players("live", "key") == []
    publisher.leave()


def test_requestsAreChargedUntilTheyAreAnswered(factory, authorizer, site):
    authorizer.playAnswer = Deferred()
    budget = factory.registry.budget
    before = budget.used
    client = Connection(site)
    head = b"HEAD /live/key.flv HTTP/1.1\r\n"
    client.sendBytes(head)
    assert budget.ofAddress("198.51.100.8") == len(head)
    client.sendBytes(b"\r\n" + head)
    assert budget.ofAddress("198.51.100.8") == 2 * len(head) + 2
    authorizer.playAnswer.callback(None)
    assert budget.ofAddress("198.51.100.8") == len(head)
    client.leave()
    assert budget.ofAddress("198.51.100.8") == 0
    assert budget.used == before


def test_peersThatTakeTooMuchMemoryAreCut(clock, lines):
    factory = RTMPFactory(
        clock,
        limits=ServerLimits(memory=MemoryLimits(addressBytes=100_000)),
    )
    site = HTTPSite(factory.registry)
    data = b"POST / HTTP/1.1\r\nContent-Length: 16000\r\n\r\n" + bytes(15_000)
    clients = [Connection(site) for _ in range(10)]
    for client in clients:
        client.sendBytes(data)
    assert any(client.transport.aborted for client in clients)
    assert factory.registry.budget.ofAddress("198.51.100.8") <= 100_000
    assert any("is cut: its address takes 0.1 of " in line for line in lines)


def test_aRefusedRequestIsNotCutForItsSilence(clock, factory, site):
    client = Connection(site)
    client.transport.taking = False
    client.sendBytes(b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n")
    clock.advance(factory.limits.requestSeconds)
    assert factory.counters.cut == 0


def test_aPeerThatReadsNoAnswersIsBoundedAndCut(clock, factory, site):
    client = Connection(site)
    client.transport.taking = False
    for _ in range(1000):
        client.sendBytes(b"HEAD / HTTP/1.1\r\n\r\n" * 20)
    assert client.transport.most < 20 * REQUEST_SIZE
    clock.advance(factory.limits.requestSeconds)
    clock.advance(factory.limits.drainSeconds)
    assert client.transport.aborted


def test_mediaAreQueuedInLargerPieces(factory, site, play):
    Publisher(factory)
    assert play(site).transport.bufferSize == MEDIA_SIZE


def test_noAddressIsLogged(factory, site, lines):
    """Addresses may have tokens in them."""
    site.doStart()
    Publisher(factory)
    Getter(site, "/live/key.flv?token=s3cret").leave()
    Getter(site, "/live/key.flv?token=s3cret", "POST")
    Getter(site, "/s3cret").leave()
    site.doStop()
    assert lines
    assert "s3cret" not in "\n".join(lines)


def test_namesInTheLogArePrintable(factory, site, lines):
    Getter(site, "/li%0Ave/k%1B[31m.flv").leave()
    assert any(r"li\nve/k\x1b[31m" in line for line in lines)
    assert not any("\x1b" in line or "\n" in line for line in lines)


def test_aServerThatStops(clock, factory, site, play):
    """Everybody is told that it is the end."""
    publisher = Publisher(factory)
    publisher.media(VIDEO, AVC_KEY_FRAME)
    playing = play(site)
    waiting = play(site, "/live/other.flv")
    idle = Connection(site)
    stopped = factory.stop()
    publisher.pump()
    playing.pump()
    if isinstance(playing, Getter):
        assert playing.complete
    else:
        # The publisher is closed first, or the player.
        assert playing.closed in (1000, 1001)
    assert playing.tags[-1] == (VIDEO, 0, AVC_KEY_FRAME)
    waiting.pump()
    if isinstance(waiting, Getter):
        assert (waiting.status, waiting.text) == (503, "The server is stopping.")
    else:
        assert (waiting.closed, waiting.reason) == (1001, "The server is stopping.")
    idle.pump()
    for client in (playing, waiting, idle):
        assert client.transport.disconnected
    assert stopped.called
    assert not factory.connections
    assert Connection(site).turnedAway


def test_aServerThatStopsDuringADecision(factory, authorizer, site, play):
    authorizer.playAnswer = Deferred(lambda _: None)
    client = play(site)
    stopped = factory.stop()
    assert play.status(client) == 503
    assert client.transport.disconnected
    assert stopped.called


def test_aServerThatStopsWaitsForNobodyForLong(clock, factory, site):
    """Peers that do not answer are aborted."""
    Publisher(factory).leave()
    Publisher(factory)
    client = Socket(site, "/live/key.flv", answers=False)
    stopped = factory.stop()
    for connection in list(factory.connections):
        if connection is not client.protocol:
            connection.transport.client.pump()
    client.pump()
    assert client.closed in (1000, 1001)
    assert not stopped.called
    clock.advance(factory.limits.stopSeconds)
    assert client.transport.aborted
    assert stopped.called


HEADER_NAMES = (
    b"Host Origin Referer User-Agent Cookie Authorization Forwarded X-Forwarded-For"
    b" X-Forwarded-Proto Sec-Fetch-Site Access-Control-Request-Headers Upgrade X"
).split()


@pytest.mark.parametrize("value", [b"\xff", b"\xc3(", b"\xed\xa0\x80", b"a\r\n \xff"])
@pytest.mark.parametrize("target", [b"/live/key.flv", b"/text"])
def test_headersMayHaveAnyBytes(factory, authorizer, target, value, lines):
    """Also headers that an application's own resource reads as text."""

    class Text(Resource):
        isLeaf = True

        def render(self, request):
            return "".join(
                str(request.getHeader(name.decode())) for name in HEADER_NAMES
            ).encode()

    site = HTTPSite(
        factory.registry,
        origins=["https://a.example"],
        hosts=["*"],
        trustedProxies=["0.0.0.0/0"],
    )
    site.root.putChild(b"text", Text())
    client = Connection(site)
    for name in HEADER_NAMES:
        client.sendBytes(b"HEAD %b HTTP/1.1\r\n%b: %b\r\n\r\n" % (target, name, value))
    assert client.raw.count(b"HTTP/1.1 ") == len(HEADER_NAMES)
    assert b"HTTP/1.1 5" not in client.raw
    assert all(line.isprintable() and line.isascii() for line in lines)


@pytest.mark.parametrize(
    ("request_", "closes"),
    [
        (b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", False),
        (b"GET /a.flv HTTP/1.0\r\n\r\n", True),
    ],
)
def test_theLogIsPaidFor(factory, lines, request_, closes):
    """It has no more bytes of a peer than the peer has sent, but for a few lines."""
    site = HTTPSite(factory.registry, origins=["https://a.example"])
    count = 0
    client = Connection(site)
    while not factory.counters.linesLeftOut or count < 1000:
        client.sendBytes(request_ * (1 if closes else 20))
        count += 1 if closes else 20
        if closes:
            client.leave()
            client = Connection(site)
    logged = sum(len(line) for line in lines)
    assert logged <= count * len(request_) + factory.limits.addresses.logBurst
    assert factory.counters.linesLeftOut > 0


def test_pipelinedBytesAreCountedOnce(factory, site):
    client = Connection(site)
    data = b"HEAD / HTTP/1.1\r\n\r\n" * 50
    client.sendBytes(data)
    assert client.protocol.describe().bytesReceived == len(data)


@pytest.mark.parametrize("kind", ["response", "socket", "waiting", "request"])
def test_nothingIsLeftOfAConnection(factory, site, kind):
    """Not even for the garbage collection."""
    publisher = Publisher(factory)
    gc.disable()
    try:
        if kind == "request":
            client = Connection(site)
            client.sendBytes(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx")
        else:
            ask = Socket if kind == "socket" else Getter
            client = ask(site, f"/live/{'none' if kind == 'waiting' else 'key'}.flv")
        channel = weakref.ref(client.protocol)
        answering = client.protocol.answering
        answer = weakref.ref(answering) if answering is not None else lambda: None
        del answering
        client.leave()
        client.protocol = None
        assert (channel(), answer()) == (None, None)
    finally:
        gc.enable()
    publisher.leave()
