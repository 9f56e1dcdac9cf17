"""Fan-out: what each player gets, and what it does not."""

from __future__ import annotations

import pytest
from publisherkit import StubPublisher
from zope.interface.verify import verifyObject

from twisted_rtmp.flv.tags import encodeTag
from twisted_rtmp.interfaces import IMediaSink
from twisted_rtmp.limits import (
    PLAYER_QUEUE_MESSAGES,
    GOPLimits,
    MemoryLimits,
    QueueLimits,
    ServerLimits,
)
from twisted_rtmp.live import queue as queueModule
from twisted_rtmp.live.budget import MESSAGE_BYTES
from twisted_rtmp.live.gop import CHARGED_MESSAGES
from twisted_rtmp.live.pacing import Pacer
from twisted_rtmp.live.packaging import FLVPackaging, RTMPPackaging
from twisted_rtmp.live.player import QUEUE_WRITE_BYTES, Player
from twisted_rtmp.live.policy import Policy
from twisted_rtmp.live.selection import Selection
from twisted_rtmp.live.streams import LiveStream
from twisted_rtmp.media.capabilities import Capabilities
from twisted_rtmp.media.payloads import flagsOf
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.chunk import ChunkReader
from twisted_rtmp.wire.constants import NEED_DATA
from twisted_rtmp.wire.messages import Message

CHUNK_SIZE = 65_536
AVC_HEADER = b"\x17\x00\0\0\0config"
AAC_HEADER = b"\xaf\x00\x12\x10"


class Outlet:
    """A peer that takes everything, until it is told not to."""

    def __init__(self):
        self.peer = "192.0.2.1:1"
        self.congested = False
        self.takes = None  # bytes until it is congested
        self.writes = []
        self.ended = 0
        self.started = []
        self.reasons = []

    def writeMedia(self, data):
        self.writes.append(data)
        if self.takes is not None:
            self.takes -= len(data)
            self.congested = self.takes <= 0

    def streamStarted(self, player, stream, again):
        assert player.group.stream is stream
        self.started.append(again)

    def warn(self, format, **fields):  # noqa: A002
        Player.log.warn(format, peer=self.peer, **fields)

    def streamEnded(self, player):
        self.ended += 1

    def abort(self, why):
        self.reasons.append(why)

    def messages(self):
        reader = ChunkReader()
        reader.chunkSize = CHUNK_SIZE
        reader.feed(b"".join(self.writes))
        found = []
        while (message := reader.nextMessage()) is not NEED_DATA:
            found.append(message)
        assert reader.unfinished == 0
        return found


def key(time, size=100):
    return Message(9, time, 1, b"\x17\x01\0\0\0" + bytes(size))


def inter(time, size=100):
    return Message(9, time, 1, b"\x27\x01\0\0\0" + bytes(size))


def audio(time):
    return Message(8, time, 1, b"\xaf\x01" + bytes(20))


@pytest.fixture
def pacer(clock):
    return Pacer(clock)


class ReadStream(LiveStream):
    """A stream of which each message comes by a read of its own."""

    def __init__(self, pacer, policy=None):
        LiveStream.__init__(
            self, "live", "s", StubPublisher(mayBeHeld=False), pacer, policy=policy
        )
        self.pacer = pacer

    def messageReceived(self, message):
        self.pacer.readBegins()
        LiveStream.messageReceived(self, message)
        self.pacer.readEnds()


@pytest.fixture
def stream(pacer):
    return ReadStream(pacer)


@pytest.fixture
def group(stream):
    return stream.players


def join(group, streamId=1, limits=None, packaging=None, **outlet):
    peer = Outlet()
    vars(peer).update(outlet)
    packaging = packaging or RTMPPackaging(streamId, CHUNK_SIZE)
    player = Player(peer, packaging, "s", 0.0, limits=limits)
    group.add(player)
    return player, peer


def send(stream, *messages):
    for message in messages:
        stream.messageReceived(message)
    return list(messages)


def straight(pacer, group, *messages):
    """Send to a group what its stream would not let pass as it is."""
    for message in messages:
        message.flags = flagsOf(message.typeId, message.payload)
        pacer.readBegins()
        group.mediaReceived(message)
        pacer.readEnds()
    return list(messages)


def begin(stream):
    metadata = Message(18, 0, 1, amf0.encode("onMetaData", {"width": 2.0}))
    return send(stream, metadata, Message(9, 0, 1, AVC_HEADER)) + send(
        stream, Message(8, 0, 1, AAC_HEADER)
    )


def times(messages, typeId=9):
    return [m.timestamp for m in messages if m.typeId == typeId]


def test_interfaces(group):
    assert verifyObject(IMediaSink, group)


def test_aPlayerBeginsWithHeadersAndTheGOP(stream, group):
    headers = begin(stream)
    send(stream, key(0), inter(33))
    gop = send(stream, key(66), audio(70), inter(100))
    _, peer = join(group)
    later = send(stream, inter(133), audio(140))
    assert peer.messages() == headers + gop + later
    assert peer.started == [False]


def test_withoutAGOPItWaitsForTheNextKeyFrame(stream, group):
    group.gop.limits = GOPLimits(messages=3)
    begin(stream)
    send(stream, key(0), *(inter(t) for t in range(33, 300, 33)))
    player, peer = join(group)
    send(stream, inter(330), audio(340), inter(363), key(396), inter(429))
    assert times(peer.messages()) == [0, 396, 429]  # the first is the header
    assert times(peer.messages(), 8) == [0, 340]
    assert player.dropped == 0  # it does not lag: it came amid a GOP


def test_audioAloneBeginsAtOnce(stream, group):
    send(stream, Message(8, 0, 1, AAC_HEADER), audio(20))
    _, peer = join(group)
    send(stream, audio(40))
    assert times(peer.messages(), 8) == [0, 40]


def together(stream, pacer, *messages):
    """Let several messages come by one read."""
    pacer.readBegins()
    for message in messages:
        LiveStream.messageReceived(stream, message)
    pacer.readEnds()


def test_eachReadIsPassedOnAtOnce(stream, group):
    begin(stream)
    peers = [join(group)[1] for _ in range(20)]
    frame = send(stream, key(0))
    assert [peer.messages()[-1:] for peer in peers] == [frame] * 20


def test_whatOneReadBroughtIsOneWrite(stream, group, pacer):
    begin(stream)
    peers = [join(group)[1] for _ in range(20)]
    before = [len(peer.writes) for peer in peers]
    together(stream, pacer, key(0), audio(5), inter(33))
    assert [len(peer.writes) for peer in peers] == [n + 1 for n in before]
    assert len({id(peer.writes[-1]) for peer in peers}) == 1  # the same bytes
    assert times(peers[0].messages()) == [0, 0, 33]


def test_aNewcomerDoesNotGetWhatWaitsForOthersTwice(stream, group, pacer):
    begin(stream)
    join(group)
    pacer.readBegins()
    LiveStream.messageReceived(stream, key(0))
    LiveStream.messageReceived(stream, inter(33))
    _, peer = join(group)
    pacer.readEnds()
    assert times(peer.messages()) == [0, 0, 33]


def test_eachFormHasItsOwnBytes(stream, group):
    headers = begin(stream)
    send(stream, key(0))
    _, chunks = join(group)
    _, others = join(group)
    flv = Outlet()
    group.add(Player(flv, FLVPackaging(), "s", 0.0))
    frame = inter(33)
    send(stream, frame)
    assert chunks.writes[-1] is others.writes[-1]
    assert flv.writes[-1] == encodeTag(9, 33, frame.payload)
    assert b"".join(flv.writes) == b"".join(
        encodeTag(m.typeId, m.timestamp, m.payload) for m in [*headers, key(0), frame]
    )
    assert set(group.players) == {RTMPPackaging(1, CHUNK_SIZE), FLVPackaging()}


def test_aFormThatIsKnownLate(stream, group):
    begin(stream)
    player, peer = join(group, congested=True)
    send(stream, key(0))
    player.repackage(RTMPPackaging(7, CHUNK_SIZE))
    send(stream, inter(33))
    peer.congested = False
    player.drain()
    assert times(peer.messages()) == [0, 0, 33]
    assert {message.streamId for message in peer.messages()} == {7}


def test_newcomersShareTheGOP(stream, group):
    """Each gets it in a packaging of its own, up to where it has come."""
    headers = begin(stream)
    gop = send(stream, key(0), inter(33))
    _, first = join(group)
    _, second = join(group)
    assert first.messages() == second.messages() == headers + gop
    gop += send(stream, inter(66))
    _, third = join(group)
    assert third.messages() == headers + gop
    _, other = join(group, streamId=2)
    assert [m.streamId for m in other.messages()] == [2] * len(headers + gop)
    _, fourth = join(group)
    assert fourth.messages() == headers + gop
    gop = send(stream, key(99))
    _, fifth = join(group)
    assert fifth.messages() == headers + gop


def test_whoDoNotKeepUpShareTheMessages(stream, group):
    """A peer that asks for bytes of its own makes nobody keep them."""
    headers = begin(stream)
    gop = send(stream, key(0, 1500), inter(33, 1500))
    packagings = [RTMPPackaging(n, 128 + n) for n in range(4)] + [FLVPackaging()]
    players = [join(group, packaging=p, congested=True)[0] for p in packagings]
    gop += send(stream, inter(66))
    for player in players:
        assert list(player.queue.messages) == headers + gop
        for one, other in zip(player.queue.messages, headers + gop, strict=True):
            assert one is other


def track(number, time, size=100):
    """An AV1 frame of a numbered track.  E-RTMP v2: OneTrack, CodedFramesX."""
    first = b"\x96" if not time else b"\xa6"
    return Message(9, time, 1, first + b"\x03av01" + bytes((number,)) + bytes(size))


@pytest.mark.parametrize("later", [False, True])
def test_whatSelectionsMakeIsShared(stream, group, later):
    """Peers can think of any number of them; there are few ways to write a message."""
    send(stream, track(0, 0), track(1, 0))
    if not later:
        send(stream, track(0, 40), track(1, 40))
    players = [
        join(
            group,
            packaging=FLVPackaging(Selection(Capabilities(videoFunction=n))),
            congested=True,
        )[0]
        for n in range(3)
    ]
    if later:
        send(stream, track(0, 40), track(1, 40))
    first, *others = (player.queue.messages for player in players)
    assert [m.payload[:5] for m in first][-1] == b"\xa3av01"
    for other in others:
        assert all(a is b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("time", [5, 1 << 24, 1 << 33])
def test_ownMessageStreamsShareWhatIsWritten(stream, group, pacer, time, monkeypatch):
    headers = begin(stream)
    peers = [join(group, streamId=n)[1] for n in (1, 0, 77, 0xFFFFFFFF)]
    _, marked = join(group, packaging=RTMPPackaging(1, CHUNK_SIZE, setDataFrame=True))
    written = []
    encode = RTMPPackaging.encode

    def counted(packaging, message):
        written.append(packaging.setDataFrame)
        return encode(packaging, message)

    monkeypatch.setattr(RTMPPackaging, "encode", counted)
    metadata = Message(18, time, 1, amf0.encode("onMetaData", {"width": 2.0}))
    # Of two chunks: those behind the first have no message stream id.
    frames = [metadata, key(time), inter(time + 1, CHUNK_SIZE), audio(time + 2)]
    together(stream, pacer, *frames)
    assert sorted(written) == [False] * 4 + [True] * 4
    for peer, streamId in zip(peers, (1, 0, 77, 0xFFFFFFFF), strict=True):
        expected = [
            Message(m.typeId, m.timestamp & 0xFFFFFFFF, streamId, m.payload)
            for m in headers + frames
        ]
        assert peer.messages() == expected
    assert amf0.decode(marked.messages()[-4].payload)[0] == "@setDataFrame"


def test_playersLeaveWithoutASearch(stream, group):
    """16,000 that left at once took 6 s."""

    class Compared(Player):
        comparisons = 0

        def __eq__(self, other):
            Compared.comparisons += 1
            return self is other

        __hash__ = Player.__hash__

    packaging = RTMPPackaging(1, CHUNK_SIZE)
    players = [Compared(Outlet(), packaging, "s", 0.0) for _ in range(100)]
    for player in players:
        group.add(player)
    assert list(group.everyone()) == players
    for player in reversed(players):
        group.remove(player)
    assert len(group) == Compared.comparisons == 0


def test_dataAloneAreNotSearchedForFrames(stream, group, monkeypatch):
    """With 10,000 of them a further one took 74 ms."""
    searched = []
    isFrame = queueModule.isFrame

    def counted(message):
        searched.append(message)
        return isFrame(message)

    monkeypatch.setattr(queueModule, "isFrame", counted)
    player, _ = join(group, congested=True)
    cue = Message(18, 0, 1, amf0.encode("onCuePoint", {}))
    send(stream, *[cue] * 1000)
    assert len(player.queue) == 1000
    assert len(searched) <= 1000


def test_withoutTheGOP(stream, group):
    headers = begin(stream)
    send(stream, key(0), inter(33))
    peer = Outlet()
    player = Player(peer, RTMPPackaging(1, CHUNK_SIZE), "s", 0.0, gopCache=False)
    group.add(player)
    assert peer.messages() == headers
    send(stream, inter(66), audio(70))
    later = send(stream, key(99))
    assert peer.messages() == [*headers, audio(70), *later]
    assert player.dropped == 0


def test_aSlowPlayerLosesWholeGOPs(stream, group):
    limits = QueueLimits(bytes=1000)
    begin(stream)
    _, other = join(group)
    player, peer = join(group, limits=limits)
    send(stream, key(0), inter(33))
    peer.congested = True
    lost = [inter(66 + i * 33, 300) for i in range(4)]  # the fourth is too much
    send(stream, *lost, inter(231), audio(240), Message(8, 250, 1, AAC_HEADER))
    peer.congested = False
    player.drain()
    send(stream, inter(264), key(297), inter(330))
    assert times(peer.messages()) == [0, 0, 33, 297, 330]
    assert times(peer.messages(), 8) == [0, 240, 250]
    assert player.dropped == len(lost) + 2
    assert player.droppedBytes == 4 * 305 + 2 * 105
    assert times(other.messages())[-1] == 330
    assert len(times(other.messages())) == 2 + 1 + len(lost) + 4
    assert player.sent == len(peer.messages())
    assert player.sentBytes == len(b"".join(peer.writes))


@pytest.mark.parametrize("headers", [False, True])
def test_theQueueIsBoundedInMessages(stream, group, headers):
    """Small ones cost far more than their bytes, and each looks at all others."""
    player, peer = join(group, congested=True)
    send(stream, audio(0))
    name = "onMetaData" if headers else "onCuePoint"
    message = Message(18, 0, 1, amf0.encode(name, {}))
    limit = PLAYER_QUEUE_MESSAGES
    for _ in range(limit + 1):
        stream.messageReceived(message)
        assert len(player.queue) <= limit
    assert bool(peer.reasons) is headers
    assert player.dropped == (1 if headers else limit // 2 + 1)


def test_theNewestGOPIsKept(stream, group):
    limits = QueueLimits(bytes=1000)
    begin(stream)
    player, peer = join(group, limits=limits)
    send(stream, key(0))
    peer.congested = True
    send(stream, inter(33, 400), audio(40), key(66, 300), inter(99, 300))
    peer.congested = False
    player.drain()
    assert times(peer.messages()) == [0, 0, 66, 99]
    assert times(peer.messages(), 8) == [0, 40]
    assert player.dropped == 1


def test_audioIsLostLast(stream, group):
    limits = QueueLimits(bytes=340)
    begin(stream)
    player, peer = join(group, limits=limits)
    send(stream, key(0))
    peer.congested = True
    # An audio message is 34 bytes as chunks: half of the bound is five of them.
    send(stream, inter(5), *(audio(t) for t in range(10, 120, 10)))
    peer.congested = False
    player.drain()
    assert times(peer.messages(), 8) == [0, *range(70, 120, 10)]
    assert player.dropped == 1 + 6


def test_aPlayerIsBoundedInTimeToo(stream, group):
    limits = QueueLimits(seconds=1.0)
    begin(stream)
    player, peer = join(group, limits=limits)
    send(stream, key(0))
    peer.congested = True
    send(stream, inter(100), inter(1100))
    assert player.dropped == 0
    send(stream, inter(1134))
    assert player.dropped == 3


@pytest.mark.parametrize("jump", [36_000_000, -36_000_000])
def test_theBoundInTimeHoldsWhereTimeJumps(pacer, stream, group, jump):
    headers = begin(stream)
    player, peer = join(group, congested=True)
    start = 72_000_000
    lost = straight(pacer, group, key(start), audio(start + 10), inter(start + 40))
    kept = straight(pacer, group, audio(start + jump))
    assert player.dropped == len(lost)
    kept += straight(pacer, group, key(start + jump + 40), audio(start + jump + 9990))
    assert player.dropped == len(lost)
    peer.congested = False
    player.drain()
    assert peer.messages() == headers + kept


def test_headersOfAnyTimeAreNotTakenForTheQueuesAge(stream, group):
    begin(stream)
    player, _ = join(group, congested=True)
    send(stream, key(36_000_000), inter(36_000_040))
    begin(stream)
    send(stream, Message(18, 0, 1, amf0.encode("onTextData", {"text": "a"})))
    assert player.dropped == 0


def test_aWholeGOPIsLostWithItsAudio(stream, group):
    headers = begin(stream)
    player, peer = join(group, congested=True)
    lost = []
    for second in range(10):
        lost += send(stream, key(1000 * second), audio(1000 * second + 1))
        lost += send(stream, inter(1000 * second + 33))
    kept = send(stream, key(10_000), audio(10_100))
    assert player.dropped == len(lost)
    peer.congested = False
    player.drain()
    assert peer.messages() == headers + kept


def test_aPlayerThatTakesNoHeadersIsCut(stream, group):
    limits = QueueLimits(bytes=1000)
    begin(stream)
    _, other = join(group)
    _, peer = join(group, limits=limits, congested=True)
    changed = [Message(9, t, 1, AVC_HEADER + bytes(300)) for t in range(5)]
    send(stream, *changed)
    assert peer.reasons == ["it does not take its stream's headers"]
    assert peer.writes == []
    assert other.messages()[-5:] == changed
    assert other.reasons == []


def test_headersAreNeverLost(stream, group):
    limits = QueueLimits(bytes=500)
    begin(stream)
    player, peer = join(group, limits=limits)
    send(stream, key(0))
    peer.congested = True
    changed = Message(9, 20, 1, AVC_HEADER + b"new")
    send(stream, changed, inter(33, 600))
    peer.congested = False
    player.drain()
    assert peer.messages()[-1] == changed


def test_headersMayBeOlderThanTheQueueIsLong(stream, group):
    headers = begin(stream)
    hour = 3_600_000
    gop = send(stream, key(hour), audio(hour + 5), inter(hour + 33))
    player, peer = join(group, congested=True)
    gop += send(stream, inter(hour + 66))
    assert player.dropped == 0
    peer.congested = False
    player.drain()
    assert peer.messages() == headers + gop


def test_metadataAreNeverLost(stream, group):
    limits = QueueLimits(bytes=2000)
    metadata, *_ = begin(stream)
    player, peer = join(group, limits=limits, congested=True)
    captions = Message(18, 20, 1, amf0.encode("onCaption", "x" * 1500))
    send(stream, captions, *(audio(30 * i) for i in range(1, 60)))
    assert player.dropped > 0
    peer.congested = False
    player.drain()
    kept = [message for message in peer.messages() if message.typeId == 18]
    assert kept == [metadata]


def test_theQueueIsWrittenUntilThePeerHasEnough(stream, group):
    begin(stream)
    player, peer = join(group)
    send(stream, key(0))
    peer.congested = True
    waiting = send(stream, *(inter(33 * i, 100_000) for i in range(1, 8)))
    peer.congested, peer.takes = False, 300_000
    player.drain()
    assert peer.congested
    assert len(peer.messages()) < 3 + 1 + len(waiting)
    peer.congested, peer.takes = False, None
    player.drain()
    assert peer.messages()[-len(waiting) :] == waiting
    assert player.dropped == 0


@pytest.mark.parametrize(
    "packaging", [RTMPPackaging(1, CHUNK_SIZE), FLVPackaging()], ids=["chunks", "tags"]
)
def test_aLargeMessageIsWrittenByAndBy(stream, group, packaging):
    """Each player would keep a copy of the rest otherwise."""
    begin(stream)
    players = [join(group, packaging=packaging, takes=200_000) for _ in range(3)]
    large, after = send(stream, key(0, 2_000_000), inter(33))
    for player, peer in players:
        assert peer.congested
        assert sum(map(len, peer.writes)) < 200_000 + QUEUE_WRITE_BYTES + 100
        assert player.unfinished is large
        assert list(player.queue.messages) == [after]
        while peer.congested:
            peer.congested, peer.takes = False, 100
            before = len(peer.writes)
            player.drain()
            assert len(peer.writes) <= before + 1
        assert player.unfinished is None
        assert b"".join(peer.writes).endswith(
            packaging.encode(large) + packaging.encode(after)
        )
        assert player.sentBytes == sum(map(len, peer.writes))


def test_theEndIsToldBehindALargeMessage(stream, group, clock):
    begin(stream)
    player, peer = join(group, takes=1)
    send(stream, key(0, 2_000_000))
    stream.end()
    player.end(clock.seconds())
    assert peer.ended == 0
    peer.congested, peer.takes = False, None
    player.drain()
    assert peer.ended == 1
    assert len(peer.messages()[-1].payload) == 2_000_005


def test_aLargeMessageThatIsNotTakenIsCharged(pacer):
    """Once for all who wait for it; past the stream's bound, they are cut."""
    policy = Policy(limits=ServerLimits(memory=MemoryLimits(streamBytes=8_000_000)))
    stream = ReadStream(pacer, policy)
    begin(stream)
    peers = []

    def joinAndSend(number):
        for _ in range(2):
            _, peer = join(stream.players)
            peer.takes = 1
            peers.append(peer)
        send(stream, key(number * 40, 2_000_000))

    for number in range(3):
        joinAndSend(number)
    assert 6_000_000 < stream.keptBytes < 8_000_000
    assert not any(peer.reasons for peer in peers)
    joinAndSend(3)
    joinAndSend(4)
    for peer in peers[:2]:
        assert set(peer.reasons) == {"it takes a large message too slowly"}


def test_theEndIsToldBehindTheLastFrame(stream, group, clock):
    begin(stream)
    player, peer = join(group)
    send(stream, key(0))
    peer.congested = True
    send(stream, inter(33))
    stream.end()
    player.end(clock.seconds())
    assert peer.ended == 0
    peer.congested = False
    player.drain()
    assert times(peer.messages()) == [0, 0, 33]
    assert peer.ended == 1
    player.drain()
    assert peer.ended == 1


def test_whatIsGatheredIsSentAtTheEnd(stream, group, pacer):
    begin(stream)
    peers = [join(group)[1] for _ in range(20)]
    pacer.readBegins()
    LiveStream.messageReceived(stream, key(0))
    stream.end()
    assert all(times(peer.messages()) == [0, 0] for peer in peers)
    pacer.readEnds()
    assert all(times(peer.messages()) == [0, 0] for peer in peers)


def test_pauseAndOn(stream, group):
    begin(stream)
    player, peer = join(group)
    send(stream, key(0))
    player.pause(True)
    send(stream, inter(33), audio(40))
    player.pause(False)
    send(stream, inter(66), audio(70), key(99))
    assert times(peer.messages()) == [0, 0, 99]
    assert times(peer.messages(), 8) == [0, 70]


def test_withoutVideoAndWithItAgain(stream, group):
    begin(stream)
    player, peer = join(group)
    send(stream, key(0))
    player.receive(video=False)
    send(stream, inter(33), audio(40))
    player.receive(video=True)
    send(stream, inter(66), key(99))
    assert times(peer.messages()) == [0, 0, 99]
    assert times(peer.messages(), 8) == [0, 40]


def test_videoOnAgainDoesNotEndAPause(stream, group):
    begin(stream)
    player, peer = join(group)
    player.pause(True)
    player.receive(video=False)
    player.receive(video=True)
    send(stream, key(0), inter(33))
    assert times(peer.messages()) == [0]


def test_withoutAudio(stream, group):
    begin(stream)
    player, peer = join(group)
    player.receive(audio=False)
    send(stream, key(0), audio(10), inter(33))
    assert times(peer.messages()) == [0, 0, 33]
    assert times(peer.messages(), 8) == [0]


def test_aPlayerThatIsGoneGetsNothing(stream, group):
    begin(stream)
    player, peer = join(group)
    group.remove(player)
    send(stream, key(0))
    assert times(peer.messages()) == [0]
    assert group.players == {}


def test_theGOPIsBoundedInBytes(stream, group):
    group.gop.limits = GOPLimits(bytes=1000)
    begin(stream)
    send(stream, key(0, 900), inter(33, 900), inter(66))
    _, peer = join(group)
    assert times(peer.messages()) == [0]
    send(stream, key(99, 10))
    _, second = join(group)
    assert times(second.messages()) == [0, 99]


def test_everyTracksHeaderIsKept(stream, group):
    def header(track, body):
        # E-RTMP v2: enhanced, Multitrack; OneTrack, SequenceStart; FourCC, track id
        return Message(9, 0, 1, b"\x96\x00avc1" + bytes((track,)) + body)

    headers = begin(stream) + send(stream, header(1, b"one"), header(2, b"two"))
    changed = send(stream, header(1, b"new"))
    headers[3:4] = changed
    send(stream, key(0))
    _, peer = join(group)
    assert peer.messages()[:-1] == headers


def test_aGOPIsPaidForByItsMessages(stream, group):
    """Thousands of small ones are as much work as some large ones."""
    begin(stream)
    messages = [key(0), *(inter(n, 0) for n in range(1, 50))]
    send(stream, *messages)
    costs = []
    player = Player(
        Outlet(),
        FLVPackaging(),
        "s",
        0.0,
        mayBeginWith=lambda cost: costs.append(cost) or True,
    )
    group.add(player)
    assert costs[0] > MESSAGE_BYTES * len(messages)


def test_aPlayerThatFailsEndsAloneInItsGroup(group, stream, loggedFailures):
    """A bug in what one player needs is logged, and costs no other player anything."""

    def broken(data):
        raise ZeroDivisionError

    begin(stream)
    first, firstPeer = join(group)
    _, peer = join(group)
    vars(peer).update(writeMedia=broken)
    _, lastPeer = join(group)
    firstPeer.writes.clear()
    lastPeer.writes.clear()
    sent = send(stream, key(40), inter(80))
    assert len(loggedFailures.take(ZeroDivisionError)) >= 1
    assert peer.reasons
    assert [m.timestamp for m in firstPeer.messages()] == [m.timestamp for m in sent]
    assert [m.timestamp for m in lastPeer.messages()] == [m.timestamp for m in sent]
    assert len(group) == 2
    group.remove(first)
    assert len(group) == 1


def tracks(time, count, isKey=False):
    """A video message of several tracks."""
    frame = b"\0\0\0picture"  # composition time, and something to see
    parts = (
        bytes((track,)) + len(frame).to_bytes(3, "big") + frame
        for track in range(count)
    )
    start = b"\x96" if isKey else b"\xa6"
    return Message(9, time, 1, start + b"\x11avc1" + b"".join(parts))


def test_aGOPIsBoundedByTheTracksOfItsMessages(group, stream):
    """Out of which each newcomer's are chosen: a message may have 16 of them."""
    group.gop.limits = GOPLimits(tracks=CHARGED_MESSAGES * 16)
    send(stream, tracks(0, 16, isKey=True))
    send(stream, *(tracks(10 * n, 16) for n in range(1, CHARGED_MESSAGES - 1)))
    assert len(group.gop.messages) == CHARGED_MESSAGES - 1
    send(stream, *(tracks(10 * n, 16) for n in range(1, CHARGED_MESSAGES + 1)))
    assert group.gop.messages == []
    send(stream, tracks(30_000, 1, isKey=True))
    send(stream, *(tracks(30_000 + 10 * n, 1) for n in range(1, CHARGED_MESSAGES * 2)))
    assert len(group.gop.messages) >= CHARGED_MESSAGES * 2
