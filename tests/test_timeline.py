"""The time line of a live stream, whatever its publisher's clock does."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from httpclient import Getter
from publisherkit import StubPublisher
from recordingkit import World, readTags
from relaykit import Studio, published
from rtmpclient import (
    AAC_FRAME,
    AAC_HEADER,
    AUDIO,
    AVC_FRAME,
    AVC_HEADER,
    AVC_KEY_FRAME,
    DATA,
    VIDEO,
    Client,
)
from twisted.internet.task import Clock

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.live.pacing import Pacer
from twisted_rtmp.live.streams import LiveStream
from twisted_rtmp.live.timeline import (
    AHEAD_MILLISECONDS,
    BACK_MILLISECONDS,
    BREAK_MILLISECONDS,
)
from twisted_rtmp.relay import PushRelays
from twisted_rtmp.web import HTTPSite
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.messages import Message

HOUR = 3_600_000
WRAP = 1 << 32
METADATA = amf0.encode("onMetaData", {"width": 2.0})
PAYLOADS = {
    "K": (VIDEO, AVC_KEY_FRAME),
    "V": (VIDEO, AVC_FRAME),
    "A": (AUDIO, AAC_FRAME),
    "VH": (VIDEO, AVC_HEADER),
    "AH": (AUDIO, AAC_HEADER),
    "D": (DATA, METADATA),
    "S": (AUDIO, b""),
}


class Sink:
    def __init__(self):
        self.messages = []

    def mediaReceived(self, message):
        self.messages.append(message)

    def streamEnded(self):
        """Nothing is stored."""


class Timed:
    """
    A stream whose messages come when a pattern says.

    @ivar times: the stream's time of each message.
    """

    def __init__(self):
        self.clock = Clock()
        self.stream = LiveStream(
            "live", "s", StubPublisher(mayBeHeld=False), Pacer(self.clock)
        )
        self.sink = Sink()
        self.stream.addSink(self.sink)

    @property
    def times(self):
        return [message.timestamp for message in self.sink.messages]

    @property
    def ledger(self):
        return self.stream.ledger

    def send(self, kind, sent, at=None):
        """
        Send a message.

        @param at: when, in milliseconds; by default no time passes.
        """
        if at is not None:
            self.clock.advance(at / 1000 - self.clock.seconds())
        typeId, payload = PAYLOADS[kind]
        self.stream.messageReceived(Message(typeId, sent, 1, payload))

    def run(self, pattern):
        """Send what a pattern says, and compare the times."""
        for kind, at, sent, _ in pattern:
            self.send(kind, sent, at)
        assert self.times == [expected for *_, expected in pattern]
        assert [m.senderTimestamp for m in self.sink.messages] == [
            sent for _, _, sent, _ in pattern
        ]


@pytest.fixture
def timed():
    return Timed()


#: By what they show: messages as kind, time on the clock, the sender's timestamp and,
#: where it is another one, the stream's, milliseconds; how often the clock broke.
PATTERNS = {
    "ordinary": (
        "D 0 0, VH 0 0, AH 0 0, K 0 0, A 5 5, V 40 40, A 45 26, V 80 80",
        0,
    ),
    "far from 0, headers at 0": (
        "VH 0 0, K 0 3600000, AH 1 0 3600000, A 2 3600009, V 40 3600040",
        0,
    ),
    "headers at 0 in the middle": (
        (
            "K 0 0, V 2000 2000, VH 2000 0, V 4000 4000, V 5000 5000, "
            "VH 5040 0 5000, D 5040 0 5000, K 5040 5040, S 5050 5050"
        ),
        0,
    ),
    "an hour apart from the beginning": (
        "V 0 3600000, A 1 0, V 40 3600040, A 41 40",
        0,
    ),
    "an hour ahead": (
        "K 0 0, V 40 40, V 80 3600000 80, V 120 3600040 120, V 160 3600080 160",
        1,
    ),
    "starts again at 0": (
        (
            "K 0 50000, V 40 50040, D 900 0 50040, VH 900 0 50040, K 900 0 50900, "
            "V 940 40 50940, VH 960 60 50960"
        ),
        1,
    ),
    "starts again at 0 at once": (
        "K 0 50000, K 0 0 50040, V 40 40 50080",
        1,
    ),
    "a break takes no longer than a silent publisher may live": (
        "K 0 50000, K 3600000 0 60000, V 3600040 40 60040",
        1,
    ),
    "audio and video fall back at different messages": (
        (
            "K 0 50000, A 1 50000, V 40 50040, A 41 50040, K 80 0 50080, A 81 50080, "
            "V 120 40 50120, A 121 50120, V 160 80 50160, A 161 84 50164, "
            "V 200 120 50200, A 201 124 50204"
        ),
        1,
    ),
    "audio first, and a second apart": (
        (
            "K 0 50000, A 1 49000, A 40 3600000 50040, V 41 50040, "
            "V 80 3601000 51040, A 81 3600040 50080"
        ),
        1,
    ),
    "what leads has led less before": (
        "K 0 50000, A 1 50000, K 40 1000 50040, A 41 0 50000, A 42 1020 50060",
        1,
    ),
    "sound begins after a break": (
        "K 0 3600000, V 40 0 3600040, A 60 20 3600060, V 80 40 3600080",
        1,
    ),
    "one frame at 0": (
        "V 0 3600000, V 40 0 3600040, V 80 3600080, V 120 3600120",
        1,
    ),
    "one frame an hour ahead": (
        "V 0 0, A 1 1, V 40 3600000 41, A 41 41, V 80 80, A 81 81, V 110 60",
        1,
    ),
    "two frames that are wrong differently": (
        "V 0 0, A 1 1, V 40 3600000 41, V 80 7200000 81, V 120 120, A 121 121",
        2,
    ),
    "an encoder that was paused": (
        "K 0 0, V 40 40, K 600040 600040, V 600080 600080",
        0,
    ),
    "an encoder that was paused, and its clock with it": (
        "K 0 0, V 40 40, V 600080 80",
        0,
    ),
    "a burst after congestion": (
        "K 0 0, V 40 40, V 20000 80, V 20000 19960, V 20040 20000",
        0,
    ),
    "back by as much as may be": (
        "V 0 90000, V 1 86000",
        0,
    ),
    "back by a little more": (
        "V 0 90000, V 1 85999 90040",
        1,
    ),
    "ahead by as much as may be": (
        "V 0 0, V 0 10000",
        0,
    ),
    "ahead by a little more": (
        "V 0 0, V 0 10001 40",
        1,
    ),
}

#: Likewise, of many messages that keep their times.
KEPT = {
    "presentation times of B-frames": [
        ("V", 40 * n, sent)
        for n, sent in enumerate((158, 191, 224, 235, 221, 231, 257, 290, 324))
    ],
    "audio and video a second apart": [
        part for n in range(0, 400, 40) for part in (("V", n, 1000 + n), ("A", n, n))
    ],
    "audio and video six seconds apart": [
        part for n in range(0, 400, 40) for part in (("V", n, n), ("A", n, 6000 + n))
    ],
    "a frame a minute": [("K", n * 60_000, n * 60_000) for n in range(5)],
    "a frame a minute beside sound, faster than in real time": [
        part
        for n in range(0, 180_000, 1500)
        for part in [("A", 0, n)] + [("V", 0, n)] * (n % 60_000 == 0)
    ],
    "a file with gaps, much faster than in real time": [
        ("V", n // 100, n) for n in [*range(0, 60_000, 1000), 90_000, 91_000]
    ],
    "the wrap of 32 bits, unwrapped": [
        ("V", n, WRAP + n) for n in range(-200, 200, 40)
    ],
}


def read(pattern):
    for part in pattern.split(", "):
        kind, *times = part.split()
        at, sent, expected = (*map(int, times), int(times[1]))[:3]
        yield kind, at, sent, expected


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns(timed, name):
    pattern, breaks = PATTERNS[name]
    timed.run(list(read(pattern)))
    assert timed.ledger.clockBreaks == breaks


@pytest.mark.parametrize("name", KEPT)
def test_whatKeepsItsTimes(timed, name):
    for kind, at, sent in KEPT[name]:
        timed.send(kind, sent, max(at, timed.clock.seconds() * 1000))
    assert timed.times == [sent for _, _, sent in KEPT[name]]
    assert timed.ledger.clockBreaks == 0


def test_aClockThatBeginsAgainAndAgain(timed):
    timed.run([("V", n, n % 20_000, n) for n in range(0, 50_000, 100)])
    assert timed.ledger.clockBreaks == 2


def test_aBreakIsLoggedOnce(timed, lines):
    for n in range(4):
        timed.send("V", 50_000 + n * HOUR)
    assert [line for line in lines if "clock" in line] == [
        (
            "live/s: the publisher's clock went from 50000 to 3650000 ms; the stream"
            " goes on at 50040 ms, and further breaks are counted only"
        )
    ]
    assert timed.ledger.summary().endswith(
        ", 0 lost, 3 breaks of the publisher's clock repaired"
    )
    assert (timed.ledger.gaps, timed.ledger.backwardSteps) == (0, 0)


def test_anotherPublisherWithAnotherClock(timed):
    """It may break, too; and audio and video of one that begins are in step."""
    timed.run([("K", 0, HOUR, HOUR), ("A", 5, HOUR, HOUR)])
    timed.stream.publisherLeft()
    timed.stream.resume(StubPublisher(mayBeHeld=False), 2000)
    timed.send("VH", 0)
    timed.send("A", 20, 2005)
    timed.send("K", 0, 2005)
    timed.send("A", 40, 2045)
    timed.send("V", 9 * HOUR, 2045)
    timed.send("A", 9 * HOUR + 20, 2065)
    begin = HOUR + 2000
    assert timed.times[2:] == [
        *(begin, begin, begin - 20, begin + 20),
        *(begin + 60, begin + 80),
    ]
    assert timed.ledger.clockBreaks == 1


def test_anyClockGivesATimeLineThatGoesOn(timed):
    """No step of it is much larger than one that is no break."""
    chance = random.Random(8)
    for _ in range(3000):
        sent = chance.choice((0, 0, HOUR, 2 * HOUR, WRAP // 2)) + chance.randrange(9000)
        timed.send(chance.choice("KVAAD"), sent, timed.clock.seconds() * 1000 + 20)
    assert len(timed.times) == 3000
    newest = {}
    for message in timed.sink.messages:
        time = message.timestamp
        step = time - newest.get(message.typeId, time)
        if message.typeId != DATA:
            assert -BACK_MILLISECONDS <= step <= 3 * AHEAD_MILLISECONDS
        newest[message.typeId] = max(time, newest.get(message.typeId, 0))


# P25


def randomTimes():
    source = random.Random(25)
    return [source.randrange(WRAP) for _ in range(100)]


TIMES = {
    "zero": [0] * 100,
    "random": randomTimes(),
    "backwards": [10_000 - 40 * n for n in range(100)],
    "wrap": [(WRAP - 2000 + 40 * n) % WRAP for n in range(100)],
    "jumps": [(n // 10) * HOUR + n * 40 for n in range(100)],
    "ones": [WRAP - 1] * 100,
    "alternating": [(0, WRAP - 1)[n % 2] for n in range(100)],
    "half": [(0, WRAP // 2)[n % 2] for n in range(100)],
    "extended": [0xFFFFFF - 2000 + 40 * n for n in range(100)],
}


@pytest.mark.parametrize("pattern", TIMES)
def test_anyTimestampsOnTheWire(pattern):
    """Promise P25: as long as there is no break, they stay what they are."""
    clock = Clock()
    factory = RTMPFactory(clock)
    encoder = Client(factory)
    encoder.publish("key")
    [stream] = factory.streams.values()
    sink = Sink()
    stream.addSink(sink)
    for time in TIMES[pattern]:
        clock.advance(0.04)
        encoder.media(VIDEO, AVC_KEY_FRAME, time)
    times = [message.timestamp for message in sink.messages]
    assert len(times) == 100
    steps = [later - earlier for earlier, later in pairwise(times)]
    # "half" goes back by 2^31 ms each time, as it is unwrapped.
    broken = {"random": 99, "jumps": 9, "half": 99}.get(pattern, 0)
    assert stream.ledger.clockBreaks == broken
    if broken:
        assert all(abs(step) <= BREAK_MILLISECONDS for step in steps)
        assert abs(times[-1] - times[0] - 99 * 40) <= 40 * 99
    else:
        sent = TIMES[pattern]
        assert [time % WRAP for time in times] == sent
    if pattern in ("wrap", "extended", "jumps"):
        assert steps == [40] * 99


# All outputs

#: What an encoder sends that starts again, and what everybody is to get.
SENT = [50_000, 50_010, 50_033, 0, 10, 33]
GOT = [50_000, 50_010, 50_033, 50_073, 50_083, 50_106]


def send(encoder, clock):
    for n in (0, 3):
        encoder.media(VIDEO, AVC_KEY_FRAME, SENT[n])
        encoder.media(AUDIO, AAC_FRAME, SENT[n + 1])
        encoder.media(VIDEO, AVC_FRAME, SENT[n + 2])
        clock.advance(0.05)


def frames(messages):
    return [m.timestamp for m in messages if m.typeId in (AUDIO, VIDEO)]


def test_aPlayerGetsItsTimeLine():
    clock = Clock()
    factory = RTMPFactory(clock)
    encoder, player = Client(factory), Client(factory)
    encoder.publish("key")
    player.connect()
    player.command("createStream", 2, None)
    player.command("play", 0, None, "key", streamId=1)
    player.take()
    send(encoder, clock)
    assert frames(player.take()) == GOT


def test_aWebPageGetsItsTimeLine():
    clock = Clock()
    factory = RTMPFactory(clock, latency=0)
    encoder = Client(factory)
    encoder.publish("key")
    page = Getter(HTTPSite(factory.registry), "/live/key.flv")
    send(encoder, clock)
    page.pump()
    assert [time for typeId, time, _ in page.flv.tags if typeId != DATA] == GOT


def test_aRecordingGetsItsTimeLine(tmp_path):
    world = World(tmp_path)
    factory = RTMPFactory(world.clock, sinkFactories=[world.recordings])
    encoder = Client(factory)
    encoder.publish("key")
    send(encoder, world.clock)
    encoder.leave()
    world.tick()
    assert frames(readTags(world.path())) == [time - SENT[0] for time in GOT]


def test_aPushRelayGetsItsTimeLine():
    studio = Studio()
    studio.network.scripted("b")
    relays = PushRelays(
        studio.clock,
        studio.factory.registry,
        ["rtmp://b/live"],
        connect=studio.network.connect,
    )
    relays.startService()
    encoder = studio.begin()
    studio.advance(1)
    send(encoder, studio.clock)
    studio.network.pump()
    got = published(studio.network.servers[-1])
    assert [time for typeId, time, _ in got if typeId != DATA][2:] == GOT
    studio.settle()
