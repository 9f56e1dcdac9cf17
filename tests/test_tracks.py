"""
Streams of several tracks: what each player gets of them, and what is counted.

The publisher sends its first tracks as if they were the only ones, as OBS and FFmpeg
do.
"""

from __future__ import annotations

from typing import Any

import pytest
from feeding import Peer, Server
from mediavectors import everything
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

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.media import parts
from twisted_rtmp.media.capabilities import Capabilities, clientProperties
from twisted_rtmp.media.parts import partsOf, splitTracks, withoutModEx
from twisted_rtmp.media.payloads import KEY_FRAME, MALFORMED, flagsOf
from twisted_rtmp.wire import amf0

METADATA = amf0.encode("onMetaData", {"width": 64.0})
SAMPLE_ACCESS = amf0.encode("|RtmpSampleAccess")

#: What players announce.
LEGACY: dict[str, Any] = {}
RELAY: dict[str, Any] = dict(clientProperties())
#: A current FFmpeg that is told to name what it reads; it never sends capsEx.
CURRENT_FFMPEG = {
    "fourCcList": ["avc1", "hvc1", "av01", "vp09", "mp4a", "Opus", "fLaC", "ac-3"]
}
OLDER_FFMPEG = {"fourCcList": ["hvc1", "av01", "vp09"]}
#: Decodes AVC and AAC only, and several tracks of them.
WITHOUT_HEVC = {
    "videoFourCcInfoMap": {"avc1": 1.0, "hvc1": 2.0},
    "audioFourCcInfoMap": {"mp4a": 1.0},
    "capsEx": 2.0,
}


def avc(trackId, kind, mark=b""):
    """A numbered message of AVC: sequence start, key frame or inter frame."""
    first, packet = {"header": (1, 0), "key": (1, 1), "inter": (2, 1)}[kind]
    start = bytes((0x86 | first << 4, packet)) + b"avc1" + bytes((trackId,))
    return start + b"\0\0\0" * packet + b"a frame" + mark


def hevc(trackId, kind, mark=b""):
    return avc(trackId, kind, mark).replace(b"avc1", b"hvc1")


def aac(trackId, packet=1):
    return bytes((0x95, packet)) + b"mp4a" + bytes((trackId,)) + b"sound"


def opus(trackId, packet=1):
    return aac(trackId, packet).replace(b"mp4a", b"Opus")


#: What AVC and AAC look like as the only tracks.
PLAIN = {
    avc(1, "header"): b"\x17\x00\0\0\0a frame",
    avc(1, "key"): b"\x17\x01\0\0\0a frame",
    avc(1, "inter"): b"\x27\x01\0\0\0a frame",
    hevc(2, "header"): b"\x90hvc1a frame",
    hevc(2, "key"): b"\x91hvc1\0\0\0a frame",
    hevc(2, "inter"): b"\xa1hvc1\0\0\0a frame",
    aac(1, 0): b"\xaf\x00sound",
    aac(1): b"\xaf\x01sound",
    opus(2, 0): b"\x90Opussound",
    opus(2): b"\x91Opussound",
}

HEADERS = [
    (DATA, 0, METADATA),
    (VIDEO, 0, AVC_HEADER),
    (VIDEO, 0, avc(1, "header")),
    (VIDEO, 0, hevc(2, "header")),
    (AUDIO, 0, AAC_HEADER),
    (AUDIO, 0, aac(1, 0)),
    (AUDIO, 0, opus(2, 0)),
]


def picture(time, kind):
    """One of each track at a time."""
    first = AVC_KEY_FRAME if kind == "key" else AVC_FRAME
    return [
        (VIDEO, time, first),
        (VIDEO, time, avc(1, kind)),
        (VIDEO, time, hevc(2, kind)),
        (AUDIO, time + 1, AAC_FRAME),
        (AUDIO, time + 1, aac(1)),
        (AUDIO, time + 1, opus(2)),
    ]


def first(messages):
    """What a player gets that can take one track of each kind."""
    return [m for m in messages if m[0] == DATA or not flagsOf(m[0], m[2]) & 0x40]


def numbered(messages, video, audio):
    """What a player gets that asked for one track of each kind: as the only one."""
    found = []
    for typeId, time, payload in messages:
        wanted = {VIDEO: video, AUDIO: audio}.get(typeId)
        if typeId == DATA or (
            wanted == 0 and (typeId, time, payload) in first(messages)
        ):
            found.append((typeId, time, payload))
        elif wanted and payload in PLAIN and payload[6] == wanted:
            found.append((typeId, time, PLAIN[payload]))
    return found


class Splitter:
    """A sink that takes messages apart."""

    def mediaReceived(self, message):
        partsOf(message)

    def streamEnded(self):
        """Nothing is stored."""


class Source(Client):
    """Publishes."""

    def __init__(self, factory):
        super().__init__(factory)
        self.publish("key")

    def send(self, messages):
        for typeId, timestamp, payload in messages:
            sent = amf0.encode("@setDataFrame") * (payload == METADATA) + payload
            self.media(typeId, sent, timestamp)
        self.transport.clock.advance(0)
        return list(messages)


class Viewer(Client):
    """Plays."""

    def __init__(self, factory, properties, query=""):
        super().__init__(factory)
        others = set(factory.players("live", "key"))
        self.connect(**properties)
        self.command("createStream", 2.0, None)
        self.command("play", 0.0, None, "key" + query, streamId=1)
        (self.player,) = set(factory.players("live", "key")) - others

    def got(self):
        """Type, time and payload of each message since the last time."""
        return [
            (reply.typeId, reply.timestamp, reply.payload)
            for reply in self.take()
            if reply.typeId in (AUDIO, VIDEO, DATA)
            and not reply.payload.startswith(SAMPLE_ACCESS)
        ]


@pytest.fixture
def factory(clock):
    return RTMPFactory(clock)


@pytest.fixture
def logged():
    """The events of the log."""
    from twisted.logger import globalLogPublisher

    events: list[dict[str, Any]] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def videos(messages):
    return [payload for typeId, _, payload in messages if typeId == VIDEO]


class TestConnect:
    def test_whatAPeerAnnouncedIsKept(self, factory):
        client = Client(factory)
        client.connect(**WITHOUT_HEVC)
        assert client.protocol.capabilities == Capabilities.fromProperties(WITHOUT_HEVC)
        assert client.protocol.capabilities.canDecodeVideo("avc1")

    @pytest.mark.parametrize(
        "announced",
        [
            {"fourCcList": ["av01"]},
            {"capsEx": 0.0},
            {"videoFourCcInfoMap": {}},
            {"audioFourCcInfoMap": {"*": 4.0}},
        ],
    )
    def test_theAnswer(self, factory, announced):
        client = Client(factory)
        client.connect(**announced)
        (answer,) = (r for r in client.take() if r.name == "_result")
        information = answer.values[3]
        assert information["code"] == "NetConnection.Connect.Success"
        assert information["fourCcList"] == ["*"]
        assert information["videoFourCcInfoMap"] == {"*": 4.0}
        assert information["audioFourCcInfoMap"] == {"*": 4.0}
        assert information["capsEx"] == 15.0

    @pytest.mark.parametrize(
        "announced",
        [{}, {"videoFunction": 1.0}, {"fourCcList": 7.0, "capsEx": "all of them"}],
    )
    def test_nothingForWhoAnnouncedNothing(self, factory, announced):
        client = Client(factory)
        client.connect(**announced)
        (answer,) = (r for r in client.take() if r.name == "_result")
        assert set(answer.values[3]) == {
            "level",
            "code",
            "description",
            "objectEncoding",
        }
        assert not client.protocol.capabilities.announced

    def test_amf3(self):
        peer = Peer(Server())
        properties = {"app": "live", "objectEncoding": 3.0, **WITHOUT_HEVC}
        answer = peer.call("connect", 1, properties, amf3=True)[0]
        assert answer.amf3
        information = answer.argument(1)
        assert information["objectEncoding"] == 3.0
        assert information["fourCcList"] == ["*"]
        assert information["videoFourCcInfoMap"] == {"*": 4.0}
        assert information["capsEx"] == 15.0
        assert peer.protocol.capabilities == Capabilities.fromProperties(WITHOUT_HEVC)


#: What players announce and ask for, and what they get of what is sent.
PLAYERS = {
    "legacy": (LEGACY, "", first),
    "older ffmpeg": (OLDER_FFMPEG, "", first),
    "older ffmpeg that asks": (
        OLDER_FFMPEG,
        "?tracks=all",
        lambda sent: [m for m in sent if m in first(sent) or b"hvc1" in m[2][:6]],
    ),
    "current ffmpeg": (CURRENT_FFMPEG, "", list),
    "legacy that asks for all": (LEGACY, "?tracks=all", list),
    "relay": (RELAY, "", list),
    "without HEVC": (
        WITHOUT_HEVC,
        "",
        lambda sent: [
            m for m in sent if b"hvc1" not in m[2][:6] and b"Opus" not in m[2][:6]
        ],
    ),
    "track 1": (LEGACY, "?track=1", lambda sent: numbered(sent, 1, 1)),
    "track 2": (LEGACY, "?track=2", lambda sent: numbered(sent, 2, 2)),
    "video 1, audio 2": (
        LEGACY,
        "?video=1&audio=2",
        lambda sent: numbered(sent, 1, 2),
    ),
    "video 2": (LEGACY, "?video=2", lambda sent: numbered(sent, 2, 0)),
    "none there": (LEGACY, "?track=9", lambda sent: numbered(sent, 9, 9)),
}


class TestPlayers:
    """Each from the beginning of a GOP, and each that joins within it."""

    @pytest.mark.parametrize("case", PLAYERS)
    def test_all(self, factory, case):
        announced, query, expected = PLAYERS[case]
        early = Viewer(factory, announced, query)
        source = Source(factory)
        sent = source.send(HEADERS + picture(0, "key") + picture(40, "inter"))
        assert early.got() == expected(sent)
        late = Viewer(factory, announced, query)
        assert late.got() == expected(sent)
        sent = source.send(picture(80, "inter") + picture(120, "key"))
        for viewer in (early, late):
            assert viewer.got() == expected(sent)
        later = Viewer(factory, announced, query)
        assert later.got() == expected(HEADERS + sent[6:])
        withoutGOP = Viewer(factory, announced, f"{query or '?'}&gop=0")
        assert withoutGOP.got() == expected(HEADERS)
        sent = source.send(picture(160, "inter") + picture(200, "key"))
        for viewer in (early, late, later):
            assert viewer.got() == expected(sent)
        audio = [m for m in expected(sent[:6]) if m[0] == AUDIO]
        assert withoutGOP.got() == audio + expected(sent[6:])

    @pytest.mark.parametrize("case", PLAYERS)
    def test_aStreamOfOneTrackPassesAsItCame(self, factory, case):
        """Also if its codec has no legacy form, and nobody announced anything."""
        announced, query, _ = PLAYERS[case]
        source = Source(factory)
        viewer = Viewer(factory, announced, query)
        sent = source.send([m for m in HEADERS if m in first(HEADERS)])
        sent += source.send(first(picture(0, "key") + picture(40, "inter")))
        if case in ("track 1", "track 2", "none there", "video 1, audio 2"):
            assert viewer.got() == sent[:1]
        elif case == "video 2":
            assert viewer.got() == [m for m in sent if m[0] != VIDEO]
        else:
            assert viewer.got() == sent
            assert viewer.player.sent == len(sent)

    @pytest.mark.parametrize("codec", [b"hvc1", b"avc1", b"av01", b"xyz9"])
    def test_enhancedOfOneTrack(self, factory, codec):
        """To who announced nothing, and to who announced the codec."""
        source = Source(factory)
        viewers = [
            Viewer(factory, announced)
            for announced in (LEGACY, RELAY, {"fourCcList": [codec.decode(), "Opus"]})
        ]
        sent = source.send(
            [
                (VIDEO, 0, b"\x90" + codec + b"configuration"),
                (AUDIO, 0, b"\x90OpusOpusHead"),
                (VIDEO, 0, b"\x93" + codec + b"key frame"),
                (AUDIO, 0, b"\x91Opussound"),
                (VIDEO, 40, b"\xa3" + codec + b"inter frame"),
            ]
        )
        viewers += [Viewer(factory, LEGACY)]
        for viewer in viewers:
            assert viewer.got() == sent
            assert viewer.player.refusedTracks == 0

    def test_everyVector(self, factory):
        """
        Whatever of E-RTMP v2 comes: a relay gets it all, and everybody else something
        that is well-formed; and all of it is counted.
        """
        source = Source(factory)
        viewers = [Viewer(factory, *case[:2]) for case in PLAYERS.values()]
        relay = Viewer(factory, RELAY)
        source.send([(VIDEO, 0, AVC_HEADER), (VIDEO, 0, AVC_KEY_FRAME)])
        relay.got()
        sent = [(v.typeId, 0, v.payload) for v in everything()]
        source.send(sent)
        assert relay.got() == sent
        assert source.open
        for viewer in viewers:
            for typeId, _, payload in viewer.got():
                assert not flagsOf(typeId, payload) & MALFORMED
            assert viewer.open
        (stream,) = factory.streams.values()
        kinds = {track.typeId for track in stream.tracks}
        assert kinds == {AUDIO, VIDEO}
        assert repr(stream.tracks)


class TestRefusals:
    def test_areCountedAndToldOnce(self, factory, logged):
        source = Source(factory)
        viewer = Viewer(factory, WITHOUT_HEVC)
        source.send(HEADERS + picture(0, "key"))
        # The headers of track 2 of either kind, and a frame of each.
        assert viewer.player.refusedTracks == 4
        source.send(picture(40, "inter"))
        assert viewer.player.refusedTracks == 6
        assert viewer.player.sent == len(viewer.got()) == 5 + 4 + 4
        late = Viewer(factory, WITHOUT_HEVC)
        assert late.player.refusedTracks == 6
        told = [e for e in logged if "is not sent all of" in (e["log_format"] or "")]
        assert [event["name"] for event in told] == ["live/key"] * 2
        viewer.leave()
        (told,) = [
            e for e in logged if "not announce their codecs" in (e["log_format"] or "")
        ]
        assert (told["sent"], told["dropped"], told["refused"]) == (13, 0, 6)

    def test_whatWasNotAskedForIsNone(self, factory):
        source = Source(factory)
        viewers = [Viewer(factory, LEGACY), Viewer(factory, WITHOUT_HEVC, "?track=1")]
        source.send(HEADERS + picture(0, "key"))
        for viewer in viewers:
            assert viewer.player.refusedTracks == 0
            assert viewer.player.sent == len(viewer.got()) == 5

    def test_theFirstTrackToo(self, factory):
        """Whose codec was not announced: the others begin with frames of their own."""
        source = Source(factory)
        viewer = Viewer(factory, WITHOUT_HEVC)
        sent = source.send(
            [
                (VIDEO, 0, b"\x90hvc1configuration"),
                (VIDEO, 0, avc(1, "header")),
                (VIDEO, 0, b"\x93hvc1key frame"),
                (VIDEO, 0, avc(1, "key")),
                (VIDEO, 40, b"\xa3hvc1inter frame"),
            ]
        )
        assert viewer.got() == [sent[1], sent[3]]
        late = Viewer(factory, WITHOUT_HEVC)
        assert late.got() == [sent[1], sent[3]]
        source.send([(VIDEO, 80, avc(1, "inter"))])
        for each in (viewer, late):
            assert videos(each.got()) == [avc(1, "inter")]


class TestKeyFrames:
    """Of tracks whose key frames do not come together."""

    def test_theGOPBeginsWithTheFirstTracks(self, factory):
        source = Source(factory)
        source.send(HEADERS)
        gop = source.send(
            [
                (VIDEO, 0, AVC_KEY_FRAME),
                (VIDEO, 0, avc(1, "key")),
                (VIDEO, 40, AVC_FRAME),
                (VIDEO, 40, avc(1, "inter")),
                (VIDEO, 80, avc(1, "key")),
                (VIDEO, 80, AVC_FRAME),
            ]
        )
        for announced, expected in ((LEGACY, first), (RELAY, list)):
            assert Viewer(factory, announced).got() == expected(HEADERS + gop)

    def test_eachTrackBeginsWithItsOwn(self, factory):
        source = Source(factory)
        source.send(HEADERS)
        source.send([(VIDEO, 0, AVC_KEY_FRAME), (VIDEO, 0, avc(1, "key"))])
        gop = source.send(
            [
                (VIDEO, 40, AVC_KEY_FRAME),
                (VIDEO, 40, avc(1, "inter")),
                (VIDEO, 80, AVC_FRAME),
                (VIDEO, 80, avc(1, "inter")),
            ]
        )
        relay, legacy = Viewer(factory, RELAY), Viewer(factory, LEGACY)
        second = Viewer(factory, LEGACY, "?video=1")
        assert relay.got() == [*HEADERS, gop[0], gop[2]]
        assert legacy.got() == first(HEADERS + gop)
        assert videos(second.got()) == [PLAIN[avc(1, "header")]]
        more = source.send(
            [
                (VIDEO, 120, AVC_FRAME),
                (VIDEO, 120, avc(1, "inter")),
                (VIDEO, 160, hevc(2, "inter")),
                (VIDEO, 160, avc(1, "key")),
                (VIDEO, 200, avc(1, "inter")),
                (VIDEO, 200, AVC_FRAME),
            ]
        )
        assert relay.got() == [more[0], *more[3:]]
        assert legacy.got() == [more[0], more[5]]
        assert videos(second.got()) == [PLAIN[avc(1, "key")], PLAIN[avc(1, "inter")]]
        more = source.send(
            [(VIDEO, 240, hevc(2, "key")), (VIDEO, 240, hevc(2, "inter"))]
        )
        assert relay.got() == more
        assert relay.player.dropped == 0

    def test_amidTheFirstGOP(self, factory):
        """A player waits that was there when a publisher began without key frames."""
        source = Source(factory)
        viewers = [Viewer(factory, LEGACY), Viewer(factory, RELAY)]
        source.send(HEADERS)
        for viewer in viewers:
            viewer.got()
        source.send(picture(0, "inter")[:3])
        sent = source.send([(VIDEO, 40, avc(1, "key")), (VIDEO, 80, AVC_FRAME)])
        sent += source.send([(VIDEO, 120, AVC_KEY_FRAME), (VIDEO, 160, AVC_FRAME)])
        assert viewers[0].got() == sent[2:]
        assert viewers[1].got() == [sent[0], *sent[2:]]

    def test_ofAPause(self, factory):
        source, viewer = Source(factory), Viewer(factory, RELAY)
        source.send(HEADERS + picture(0, "key"))
        viewer.got()
        for paused in (True, False):
            viewer.command("pause", 0.0, None, paused, 0.0, streamId=1)
            source.send(picture(40, "inter"))
        assert videos(viewer.got()) == []
        source.send([(VIDEO, 80, avc(1, "key")), (VIDEO, 80, AVC_FRAME)])
        assert videos(viewer.got()) == [avc(1, "key")]
        sent = source.send(picture(120, "key"))
        assert viewer.got() == sent

    def test_ofAPauseBeforeAllTracksHaveBegun(self, factory):
        """What had begun is to begin again."""
        source = Source(factory)
        source.send([*HEADERS, (VIDEO, 0, AVC_KEY_FRAME), (VIDEO, 0, avc(1, "inter"))])
        viewer = Viewer(factory, RELAY)
        assert videos(viewer.got())[-1] == AVC_KEY_FRAME
        for paused in (True, False):
            viewer.command("pause", 0.0, None, paused, 0.0, streamId=1)
        source.send([(VIDEO, 40, AVC_FRAME), (VIDEO, 80, avc(1, "key"))])
        assert videos(viewer.got()) == [avc(1, "key")]

    def test_ofTheFirstTrackThatComesLater(self, factory):
        """And without a header: it is the first from then on."""
        source = Source(factory)
        source.send([(VIDEO, 0, avc(1, "key")), (VIDEO, 20, AVC_KEY_FRAME)])
        gop = source.send([(VIDEO, 40, avc(1, "inter")), (VIDEO, 60, AVC_KEY_FRAME)])
        gop += source.send([(VIDEO, 80, avc(1, "key")), (VIDEO, 100, AVC_FRAME)])
        assert Viewer(factory, RELAY).got() == gop[1:]

    def test_ofSeveralTracksInAMessage(self, factory):
        """A key frame of the first track is one, whatever else is in its message."""

        def many(firstByte, *ids):
            body = b"".join(bytes((n,)) + b"\0\0\5" + b"frame" for n in ids)
            return bytes((firstByte, 0x13)) + b"av01" + body

        source = Source(factory)
        headers = source.send(
            [(VIDEO, 0, b"\x96\x10av01" + b"\0\0\0\3abc" + b"\1\0\0\3abc")]
        )
        source.send([(VIDEO, 0, many(0x96, 0, 1)), (VIDEO, 40, many(0x96, 1))])
        gop = source.send([(VIDEO, 80, many(0x96, 0)), (VIDEO, 120, many(0xA6, 0, 1))])
        relay, legacy = Viewer(factory, RELAY), Viewer(factory, LEGACY)
        assert relay.got() == headers + gop
        assert legacy.got() == [
            (VIDEO, 0, b"\x90av01abc"),
            (VIDEO, 80, b"\x93av01frame"),
            (VIDEO, 120, b"\xa3av01frame"),
        ]
        second = Viewer(factory, LEGACY, "?video=1")
        assert videos(second.got()) == [b"\x90av01abc"]
        source.send([(VIDEO, 160, many(0x96, 0, 1))])
        assert videos(second.got()) == [b"\x93av01frame"]

    def test_aMessageIsTakenApartOnceForAll(self, factory, monkeypatch):
        """For all sinks; then it is forgotten."""
        taken = []

        def split(typeId, payload, flags):
            taken.append(payload)
            return splitTracks(typeId, payload, flags)

        tracks = b"".join(bytes((n,)) + b"\0\0\5" + b"frame" for n in range(3))
        source = Source(factory)
        source.send([(VIDEO, 0, b"\x96\x13av01" + tracks)])
        viewers = [Viewer(factory, LEGACY, f"?video={n}") for n in range(3)]
        for viewer in viewers:
            viewer.got()
        [stream] = factory.streams.values()
        for _ in range(2):
            stream.addSink(Splitter())
        monkeypatch.setattr(parts, "splitTracks", split)
        source.send([(VIDEO, 40, b"\x96\x13av01" + tracks)])
        assert [videos(viewer.got()) for viewer in viewers] == [[b"\x93av01frame"]] * 3
        assert len(taken) == 1
        [kept] = stream.players.gop.messages
        assert kept.parts is None
        Viewer(factory, LEGACY, "?video=1")
        assert len(taken) == 1, "a player's own track is found without the others"

    def test_whenAPlayerDoesNotKeepUp(self, factory):
        """Each track goes on with its own last key frame."""
        source, viewer = Source(factory), Viewer(factory, RELAY)
        source.send(HEADERS + picture(0, "key"))
        viewer.got()
        viewer.transport.taking = False
        bulk = viewer.transport.bufferSize
        queued = source.send([(VIDEO, 1, AVC_FRAME + bytes(2 * bulk))])
        times = range(1000, 13_000, 1000)
        for time in times:
            keys = {3000: AVC_KEY_FRAME, 9000: AVC_KEY_FRAME}
            queued += source.send([(VIDEO, time, keys.get(time, AVC_FRAME))])
            kind = "key" if time == 6000 else "inter"
            queued += source.send([(VIDEO, time, avc(1, kind))])
        viewer.transport.taking = True
        got = viewer.got()
        assert viewer.player.dropped == len(queued) - len(got) > 0
        assert [m for m in got if m[1] > 1] == [
            m
            for m in queued
            if (m[2] in (AVC_KEY_FRAME, AVC_FRAME) and m[1] >= 9000)
            or (m[2][6] == 1 and m[1] >= 6000)
        ]

    def test_ofTheNextPublisher(self, clock):
        """It may have other tracks than the one before."""
        factory = RTMPFactory(clock, grace=5.0)
        source, viewer = Source(factory), Viewer(factory, RELAY)
        source.send(HEADERS + picture(0, "key"))
        viewer.got()
        source.leave()
        source = Source(factory)
        # Now there is track 1 alone, which is the first then.
        source.send([(VIDEO, 0, avc(1, "header")), (VIDEO, 0, avc(1, "inter"))])
        assert videos(viewer.got()) == [avc(1, "header")]
        source.send([(VIDEO, 40, avc(1, "key")), (VIDEO, 80, avc(1, "inter"))])
        assert videos(viewer.got()) == [avc(1, "key"), avc(1, "inter")]
        late = Viewer(factory, RELAY)
        expected = [avc(1, kind) for kind in ("header", "key", "inter")]
        assert videos(late.got()) == expected

    def test_ofTheNextPublisherBeforeAllTracksHaveBegun(self, clock):
        factory = RTMPFactory(clock, grace=5.0)
        source = Source(factory)
        source.send([*HEADERS, (VIDEO, 0, AVC_KEY_FRAME), (VIDEO, 0, avc(1, "key"))])
        viewer = Viewer(factory, RELAY)
        viewer.got()
        source.leave()
        source = Source(factory)
        sent = source.send([*HEADERS[1:3], (VIDEO, 0, AVC_KEY_FRAME)])
        source.send([(VIDEO, 0, avc(1, "inter"))])
        sent += source.send([(VIDEO, 40, AVC_FRAME), (VIDEO, 40, avc(1, "key"))])
        assert videos(viewer.got()) == videos(sent)


class TestMetadata:
    COLORS = amf0.encode("colorInfo", {"colorConfig": {"bitDepth": 10.0}})

    def colors(self, codec):
        """As FFmpeg sends them, without the number of their track."""
        return VIDEO, 0, b"\xd4" + codec + self.COLORS

    @pytest.mark.parametrize(
        ("header", "codec"),
        [
            ((VIDEO, 0, AVC_HEADER), b"avc1"),
            ((VIDEO, 0, b"\x1c\x00\0\0\0configuration"), b"hvc1"),
            ((VIDEO, 0, b"\x90av01configuration"), b"av01"),
            ((VIDEO, 0, b"\x96\x00vp09\x00configuration"), b"vp09"),
        ],
    )
    def test_ofAnotherTrack(self, factory, header, codec):
        source = Source(factory)
        legacy, relay = Viewer(factory, LEGACY), Viewer(factory, RELAY)
        sent = source.send(
            [header, (VIDEO, 0, hevc(1, "header").replace(b"hvc1", b"vvc1"))]
        )
        before = source.send([self.colors(codec)])
        other = source.send([self.colors(b"vvc1")])
        assert legacy.got()[1:] == before
        assert relay.got() == sent + before + other
        # Both are kept for who comes later.
        assert Viewer(factory, LEGACY).got()[1:] == before
        assert set(Viewer(factory, RELAY).got()) == set(sent + before + other)

    def test_ofATrackThatIsNotKnown(self, factory):
        """Before anything else came, it can only be the first one's."""
        source = Source(factory)
        viewer = Viewer(factory, LEGACY)
        sent = source.send([self.colors(b"hvc1")])
        assert viewer.got() == sent


class TestModEx:
    NANO = bytes.fromhex("97 02 00007b 01") + b"hvc1\0\0\0frame"

    def test_isForWhoReadsIt(self, factory):
        source = Source(factory)
        legacy, relay = Viewer(factory, LEGACY), Viewer(factory, RELAY)
        named = Viewer(factory, CURRENT_FFMPEG)
        told = Viewer(factory, {**CURRENT_FFMPEG, "capsEx": 4.0})
        assert flagsOf(VIDEO, self.NANO) & KEY_FRAME
        sent = source.send([(VIDEO, 7, self.NANO)])
        plain = [(VIDEO, 7, withoutModEx(VIDEO, self.NANO))]
        assert plain[0][2] == b"\x91hvc1\0\0\0frame"
        assert relay.got() == told.got() == sent
        assert legacy.got() == named.got() == plain
        assert Viewer(factory, LEGACY).got() == plain
        assert Viewer(factory, RELAY).got() == sent


class TestTracks:
    def figures(self, factory):
        (stream,) = factory.streams.values()
        return {
            (track.kind, track.id): (
                track.codec,
                track.frames,
                track.headers,
                track.size,
            )
            for track in stream.tracks
        }

    def test_areCounted(self, factory):
        source = Source(factory)
        assert self.figures(factory) == {}
        source.send(
            HEADERS + picture(0, "key") + picture(40, "inter") + [(AUDIO, 41, b"")]
        )

        def size(*payloads):
            return sum(len(payload) for payload in payloads)

        def three(make, codec):
            return codec, 2, 1, size(make("header"), make("key"), make("inter"))

        assert self.figures(factory) == {
            ("video", 0): (7, 2, 1, size(AVC_HEADER, AVC_KEY_FRAME, AVC_FRAME)),
            ("video", 1): three(lambda kind: avc(1, kind), "avc1"),
            ("video", 2): three(lambda kind: hevc(2, kind), "hvc1"),
            ("audio", 0): (10, 2, 2, size(AAC_HEADER, AAC_FRAME, AAC_FRAME)),
            ("audio", 1): ("mp4a", 2, 1, size(aac(1, 0), aac(1), aac(1))),
            ("audio", 2): ("Opus", 2, 1, size(opus(2, 0), opus(2), opus(2))),
        }
        (stream,) = factory.streams.values()
        received = stream.ledger.received
        tracks = stream.tracks
        data = len(amf0.encode("@setDataFrame") + METADATA)
        assert sum(track.size for track in tracks) + data == received.size
        assert sum(track.messages for track in tracks) + 1 == received.messages
        assert [track.codecName for track in tracks] == [
            *("AVC", "AVC", "HEVC", "AAC", "AAC", "Opus")
        ]

    def test_numberedFromZero(self, factory):
        source = Source(factory)
        source.send([(VIDEO, 0, avc(0, "key")), (VIDEO, 0, avc(1, "key"))])
        size = len(avc(0, "key"))
        assert self.figures(factory) == {
            ("video", 0): ("avc1", 1, 0, size),
            ("video", 1): ("avc1", 1, 0, size),
        }
        # An encoder may say the number at times only.
        source.send([(VIDEO, 40, AVC_FRAME)])
        assert self.figures(factory)["video", 0] == (
            "avc1",
            2,
            0,
            size + len(AVC_FRAME),
        )

    def test_anEmptyMessageMakesNoFirstTrack(self, factory):
        """The GOP of what there is begins with its own key frames."""
        source = Source(factory)
        source.send([(VIDEO, 0, b""), (VIDEO, 0, avc(2, "header"))])
        source.send([(VIDEO, 0, avc(1, "key")), (VIDEO, 0, avc(2, "key"))])
        gop = source.send([(VIDEO, 40, avc(1, "key")), (VIDEO, 40, avc(2, "inter"))])
        relay = Viewer(factory, RELAY)
        assert videos(relay.got()) == [avc(2, "header"), gop[0][2]]

    def test_severalInAMessage(self, factory):
        source = Source(factory)
        parts = b"avc1\0\0\0\7\0\0\0aaaa" + b"av01\1\0\0\2bb"
        source.send([(VIDEO, 0, b"\x96\x21" + parts)])
        assert self.figures(factory) == {
            ("video", 0): ("avc1", 1, 0, 4),
            ("video", 1): ("av01", 1, 0, 2),
        }

    def test_anEmptyPart(self, factory):
        source = Source(factory)
        source.send([(VIDEO, 0, b"\x96\x13av01\0\0\0\3abc" + b"\1\0\0\0")])
        assert self.figures(factory) == {
            ("video", 0): ("av01", 1, 0, 3),
            ("video", 1): ("av01", 0, 1, 0),
        }

    def test_withoutHeaders(self, factory):
        """MP3 has none: the first frame says what it is."""
        source = Source(factory)
        source.send([(AUDIO, 0, b"\x2fsound"), (AUDIO, 20, b"\x2fsound")])
        assert self.figures(factory) == {("audio", 0): (2, 2, 0, 12)}

    def test_malformedAreNoOnes(self, factory):
        source = Source(factory)
        source.send([(VIDEO, 0, AVC_HEADER), (VIDEO, 0, b"\x96\x01avc")])
        assert self.figures(factory) == {("video", 0): (7, 0, 1, len(AVC_HEADER))}
        (stream,) = factory.streams.values()
        assert stream.ledger.discarded == {"malformed": 1}

    def test_ofSeveralPublishers(self, clock):
        """They are the stream's, one after the other."""
        factory = RTMPFactory(clock, grace=5.0)
        for _ in range(2):
            source = Source(factory)
            source.send(HEADERS + picture(0, "key"))
            source.leave()
        figures = self.figures(factory)
        assert {name: figure[1:3] for name, figure in figures.items()} == {
            (kind, number): (2, 2) for kind in ("video", "audio") for number in range(3)
        }
