"""
What peers announce in connect, what they may be sent for it, and what we announce.
"""

from __future__ import annotations

import math
import random

import pytest
from mediavectors import AUDIO_FOUR_CCS, VIDEO_FOUR_CCS

from twisted_rtmp.media.capabilities import (
    MAX_FOUR_CCS,
    Capabilities,
    CapsEx,
    FourCCInfo,
    VideoFunction,
    clientProperties,
    serverProperties,
)
from twisted_rtmp.wire import amf0, amf3
from twisted_rtmp.wire.amfvalues import UNDEFINED, Date, ECMAArray, TypedObject

#: connect as clients send it, what they may be sent enhanced, and what besides.
#: (who, properties, video, audio, multitrack, modEx)
CLIENTS = [
    ("OBS", {"app": "live", "type": "nonprivate"}, None, None, False, False),
    ("Flash", {"videoFunction": 1.0, "capabilities": 239.0}, None, None, False, False),
    ("ffmpeg", {"fourCcList": ["hvc1", "av01"]}, {"hvc1", "av01"}, set(), False, False),
    ("RootEncoder", {"fourCcList": ["Opus"]}, set(), {"Opus"}, False, False),
    (
        "HaishinKit",
        {"fourCcList": ["hvc1", "Opus"]},
        {"hvc1"},
        {"Opus"},
        False,
        False,
    ),
    (
        "a recorder, as the specification has it",
        {"fourCcList": ["*"]},
        set(VIDEO_FOUR_CCS),
        set(AUDIO_FOUR_CCS),
        False,
        False,
    ),
    (
        "a relay that decodes VP9 and Opus, as the specification has it",
        {
            "videoFourCcInfoMap": {"*": 4.0, "vp09": 3.0},
            "audioFourCcInfoMap": {"*": 4.0, "Opus": 3.0},
            "capsEx": 3.0,
        },
        set(VIDEO_FOUR_CCS),
        set(AUDIO_FOUR_CCS),
        True,
        False,
    ),
    (
        "an encoder, which plays nothing of what it encodes",
        {"videoFourCcInfoMap": {"hvc1": 2.0}, "audioFourCcInfoMap": {"*": 2.0}},
        set(),
        set(),
        False,
        False,
    ),
    (
        "a wildcard that says nothing takes nothing away",
        {"videoFourCcInfoMap": {"*": 0.0, "av01": 1.0}, "capsEx": 4.0},
        {"av01"},
        set(),
        False,
        True,
    ),
    (
        "a list and maps beside it",
        {"fourCcList": ["vp09"], "videoFourCcInfoMap": {"hvc1": 1.0}, "capsEx": 15.0},
        {"vp09", "hvc1"},
        set(),
        True,
        True,
    ),
    ("capsEx alone names no codecs", {"capsEx": 8.0}, None, None, False, True),
    ("an empty list", {"fourCcList": []}, set(), set(), False, False),
    (
        "an array with names",
        {"fourCcList": ECMAArray({"0": "vvc1"})},
        {"vvc1"},
        set(),
        False,
        False,
    ),
]


def named(rows):
    return [pytest.param(*row[1:], id=row[0]) for row in rows]


class TestOfAPeer:
    @pytest.mark.parametrize(
        ("properties", "video", "audio", "multitrack", "modEx"), named(CLIENTS)
    )
    @pytest.mark.parametrize("amf", [amf0, amf3])
    def test_clients(self, amf, properties, video, audio, multitrack, modEx):
        (decoded,) = amf.decode(amf.encode(properties))
        peer = Capabilities.fromProperties(decoded)
        assert peer == Capabilities.fromProperties(properties)
        canVideo = {name for name in VIDEO_FOUR_CCS if peer.canDecodeVideo(name)}
        canAudio = {name for name in AUDIO_FOUR_CCS if peer.canDecodeAudio(name)}
        assert (canVideo, canAudio) == (video or set(), audio or set())
        takesVideo = {name for name in VIDEO_FOUR_CCS if peer.takesVideo(name)}
        takesAudio = {name for name in AUDIO_FOUR_CCS if peer.takesAudio(name)}
        # Who names no codecs gets those that come.
        assert takesVideo == (set(VIDEO_FOUR_CCS) if video is None else video)
        assert takesAudio == (set(AUDIO_FOUR_CCS) if audio is None else audio)
        assert peer.namesCodecs == (video is not None)
        assert (peer.multitrack, peer.modEx) == (multitrack, modEx)

    @pytest.mark.parametrize("bits", range(16))
    def test_capsEx(self, bits):
        peer = Capabilities.fromProperties({"capsEx": float(bits + 0x70)})
        assert peer.announced
        assert not peer.namesCodecs
        assert peer.reconnect == bool(bits & 1)
        assert peer.multitrack == bool(bits & 2)
        assert peer.modEx == bool(bits & (4 | 8))
        assert peer.capsEx == bits + 0x70

    def test_legacyCodecsGoToEverybody(self):
        for properties in ({}, {"fourCcList": []}, {"videoFourCcInfoMap": {}}):
            peer = Capabilities.fromProperties(properties)
            for codec in range(16):
                assert peer.takesVideo(codec)
                assert peer.takesAudio(codec)

    def test_announced(self):
        assert not Capabilities().announced
        assert not Capabilities.fromProperties({"videoFunction": 7.0}).announced
        for name, value in serverProperties().items():
            assert Capabilities.fromProperties({name: value}).announced

    def test_videoFunction(self):
        for flags in (1, 2, 4, 8, 15):
            peer = Capabilities.fromProperties({"videoFunction": float(flags)})
            assert peer.videoFunction == flags

    @pytest.mark.parametrize(
        "properties",
        [
            None,
            UNDEFINED,
            "connect",
            5.0,
            [],
            {"fourCcList": "hvc1", "capsEx": "3", "videoFourCcInfoMap": ["hvc1"]},
            {"fourCcList": 1.0, "capsEx": None, "audioFourCcInfoMap": 7.0},
            {"fourCcList": {"hvc1": 1.0}, "capsEx": True, "videoFunction": "1"},
            {"capsEx": math.nan, "videoFunction": math.nan},
            {"capsEx": math.inf, "videoFunction": -math.inf},
            {"capsEx": -1.0, "videoFunction": 1e300},
            {"capsEx": [1.0], "videoFourCcInfoMap": Date(0.0)},
        ],
    )
    def test_wrongTypesAreNotSent(self, properties):
        peer = Capabilities.fromProperties(properties)
        assert peer == Capabilities()
        assert not peer.announced
        assert peer.takesVideo("hvc1")

    def test_wrongItemsAreLeftOut(self):
        peer = Capabilities.fromProperties(
            TypedObject(
                "Connect",
                {
                    "fourCcList": [
                        "hvc1",
                        5.0,
                        None,
                        {"a": 1.0},
                        "toolong",
                        "",
                        "av01",
                    ],
                    "videoFourCcInfoMap": {"vp09": "1", "vp08": 1.0, "x": 1.0},
                    "audioFourCcInfoMap": {"Opus": None, "fLaC": -1.0},
                },
            )
        )
        assert peer.fourCcList == {"hvc1", "av01"}
        assert peer.videoFourCcInfoMap == {"vp08": 1}
        assert peer.audioFourCcInfoMap == {}

    def test_boundOfWhatIsKept(self):
        names = [f"{n:04}" for n in range(5000)]
        peer = Capabilities.fromProperties(
            {
                "fourCcList": [*names, "*"],
                "videoFourCcInfoMap": {**dict.fromkeys(names, 1.0), "*": 4.0},
                "audioFourCcInfoMap": dict.fromkeys(names, 1.0),
            }
        )
        # A wildcard is kept wherever it stands.
        assert peer.fourCcList == {*names[:MAX_FOUR_CCS], "*"}
        assert peer.videoFourCcInfoMap["*"] == 4
        assert len(peer.videoFourCcInfoMap) == MAX_FOUR_CCS + 1
        assert len(peer.audioFourCcInfoMap) == MAX_FOUR_CCS

    def test_differentMapsAreHashedApart(self):
        """4,000 that had one hash kept the server for 27 s."""
        maps = [{f"a{n:03}": 4.0} for n in range(500)]
        for name in ("videoFourCcInfoMap", "audioFourCcInfoMap"):
            peers = [Capabilities.fromProperties({name: each}) for each in maps]
            assert len({hash(peer) for peer in peers}) == len(maps)

    def test_hashable(self):
        """Players of equal capabilities can share what is encoded for them."""
        properties = clientProperties({"hvc1": 1}, {"Opus": 1})
        first = Capabilities.fromProperties(properties)
        second = Capabilities.fromProperties(dict(properties))
        assert first == second
        assert hash(first) == hash(second)
        other = Capabilities.fromProperties(clientProperties({"hvc1": 2}, {"Opus": 1}))
        assert first != other
        assert len({first, second, other}) == 2

    @pytest.mark.parametrize("seed", range(4))
    def test_anything(self, seed):
        """Whatever AMF holds, it is read without an error."""
        source = random.Random(seed)
        names = list(clientProperties())
        values = [
            *(None, True, UNDEFINED, Date(1.0), "hvc1", b"hvc1", "", "*", math.nan),
            *(1.0, -3.5, 1e308, 15, [], {}, ["*", []], {"*": 4.0}, {"hvc1": {}}),
            *(ECMAArray({"0": "av01"}, dense=["Opus"]), [[["hvc1"]]], {"": None}),
        ]
        for _ in range(2000):
            properties = {
                name: source.choice(values) for name in names if source.random() < 0.7
            }
            peer = Capabilities.fromProperties(properties)
            assert hash(peer) == hash(Capabilities.fromProperties(properties))
            for name in (*VIDEO_FOUR_CCS, *AUDIO_FOUR_CCS):
                assert peer.takesVideo(name) in (True, False)
                assert not (peer.canDecodeVideo(name) and not peer.takesVideo(name))
                assert not (peer.canDecodeAudio(name) and not peer.takesAudio(name))


class TestOurs:
    def test_server(self):
        """The names and values of the tables in the specification."""
        assert serverProperties() == {
            "fourCcList": ["*"],
            "videoFourCcInfoMap": {"*": 4.0},
            "audioFourCcInfoMap": {"*": 4.0},
            "capsEx": 15.0,
        }

    def test_client(self):
        assert clientProperties() == {**serverProperties(), "videoFunction": 4.0}

    def test_clientOfCertainCodecs(self):
        decode = FourCCInfo.CAN_DECODE
        properties = clientProperties(
            {"hvc1": decode, "av01": decode | FourCCInfo.CAN_ENCODE}, {"Opus": decode}
        )
        assert properties["fourCcList"] == ["Opus", "av01", "hvc1"]
        assert properties["videoFourCcInfoMap"] == {"hvc1": 1.0, "av01": 3.0}
        assert properties["audioFourCcInfoMap"] == {"Opus": 1.0}

    @pytest.mark.parametrize("amf", [amf0, amf3])
    def test_weUnderstandOurselves(self, amf):
        for properties in (serverProperties(), clientProperties()):
            (decoded,) = amf.decode(amf.encode(properties))
            peer = Capabilities.fromProperties(decoded)
            assert peer.reconnect
            assert peer.multitrack
            assert peer.modEx
            assert peer.takesVideo("xyz9")
            assert peer.canDecodeAudio("xyz9")

    def test_eachIsOnesOwn(self):
        """What one connection adds to its answer is in no other's."""
        serverProperties()["videoFourCcInfoMap"]["hvc1"] = 1.0
        serverProperties()["fourCcList"].append("hvc1")
        assert serverProperties()["videoFourCcInfoMap"] == {"*": 4.0}
        assert serverProperties()["fourCcList"] == ["*"]


def test_numbers():
    """E-RTMP v2: FourCcInfoMask, CapsExMask, flag values for videoFunction."""
    assert [flag.value for flag in FourCCInfo] == [1, 2, 4]
    assert [flag.value for flag in CapsEx] == [1, 2, 4, 8]
    assert [flag.value for flag in VideoFunction] == [1, 2, 4, 8]
