"""
What players get of a stream of several tracks, by what they announced and asked for.
"""

from __future__ import annotations

import pytest
from mediavectors import AUDIO, VIDEO, everything, oneTrack, plainVector

from twisted_rtmp.live.playoptions import PlayOptions
from twisted_rtmp.live.selection import EVERYTHING, Selection
from twisted_rtmp.media.capabilities import Capabilities, clientProperties
from twisted_rtmp.media.parts import splitTracks, toLegacy, withoutModEx
from twisted_rtmp.media.payloads import ENHANCED, FOREIGN, MOD_EX, MULTITRACK, flagsOf
from twisted_rtmp.wire.messages import Message

BODY = b"a frame of some length"
NANO = ((0, b"\0\0\7"),)

LEGACY = Capabilities()
RELAY = Capabilities.fromProperties(clientProperties())
HEVC_AND_OPUS = Capabilities.fromProperties({"fourCcList": ["hvc1", "Opus"]})
HEVC_OF_VERSION_1 = Capabilities.fromProperties({"fourCcList": ["hvc1"]})
TRACKS_OF_AV1 = Capabilities.fromProperties(
    {"videoFourCcInfoMap": {"av01": 1.0}, "capsEx": 2.0}
)


def messageOf(vector):
    return Message(vector.typeId, 0, 1, vector.payload, vector.flags)


def select(selection, typeId, payload):
    return selected(selection, Message(typeId, 0, 1, payload, flagsOf(typeId, payload)))


def selected(selection, message):
    """The payloads of what a player gets, and what it cannot read."""
    parts, missing = selection.select(message)
    for payload, flags in parts:
        assert flags & ~FOREIGN == flagsOf(message.typeId, payload)
    return [payload for payload, _ in parts], missing


# What OBS and FFmpeg send: the first track as if it were the only one.
AVC0 = b"\x27\x01\0\0\0" + BODY
AVC1 = b"\xa6\x01avc1\x01\0\0\x28" + BODY
HEVC2 = b"\xa6\x01hvc1\x02\0\0\x28" + BODY
AAC0 = b"\xaf\x01" + BODY
AAC1 = b"\x95\x01mp4a\x01" + BODY
OPUS2 = b"\x95\x01Opus\x02" + BODY

# Everything numbered.
MIXED = b"\x96\x21" + b"avc1\x00\0\0\x05\0\0\x28AA" + b"av01\x01\0\0\x02BB"


def selectionOf(capabilities, query):
    """What a player that asks for something gets."""
    return PlayOptions.parse(query, capabilities, True).selection


class TestWithoutEnhancedCapabilities:
    def test_theOnlyTrackPasses(self):
        """Legacy codecs, and those that players take without a word."""
        selection = Selection(LEGACY)
        for typeId, payload in (
            (VIDEO, AVC0),
            (AUDIO, AAC0),
            (AUDIO, b""),
            (VIDEO, b"\x1c\x01\0\0\0" + BODY),
            (VIDEO, b"\x91hvc1\0\0\0" + BODY),
            (VIDEO, b"\x90av01" + BODY),
            (AUDIO, b"\x91Opus" + BODY),
            (18, b"\x02\0\x0aonMetaData"),
        ):
            assert select(selection, typeId, payload) == ([payload], 0)

    def test_otherTracksDoNot(self):
        selection = Selection(LEGACY)
        for typeId, payload in (
            (VIDEO, AVC1),
            (VIDEO, HEVC2),
            (AUDIO, AAC1),
            (AUDIO, OPUS2),
        ):
            assert select(selection, typeId, payload) == ([], 0)

    def test_trackZeroOfNumberedOnes(self):
        """As a plain stream, in legacy form where there is one."""
        selection = Selection(LEGACY)
        legacy = b"\x17\x01\0\0\x28AA"
        assert select(selection, VIDEO, MIXED) == ([legacy], 0)
        numbered = b"\x96\x01hvc1\x00\0\0\x28" + BODY
        plain = b"\x91hvc1\0\0\x28" + BODY
        assert select(selection, VIDEO, numbered) == ([plain], 0)
        assert select(selection, AUDIO, b"\x95\x00mp4a\x00\x11\x90") == (
            [b"\xaf\x00\x11\x90"],
            0,
        )

    def test_metadataOfAnotherTrack(self):
        """FFmpeg sends those of further tracks without a number."""
        metadata = plainVector(VIDEO, "av01", 4, 5).payload
        flags = flagsOf(VIDEO, metadata)
        selection = Selection(LEGACY)
        assert selected(selection, Message(VIDEO, 0, 1, metadata, flags)) == (
            [metadata],
            0,
        )
        foreign = flags | FOREIGN
        assert selected(selection, Message(VIDEO, 0, 1, metadata, foreign)) == ([], 0)
        whole = selectionOf(LEGACY, "tracks=all")
        assert selected(whole, Message(VIDEO, 0, 1, metadata, foreign)) == (
            [metadata],
            0,
        )
        whole = Selection(HEVC_AND_OPUS)
        assert selected(whole, Message(VIDEO, 0, 1, metadata, foreign)) == ([], 1)

    def test_modExIsTakenOff(self):
        selection = Selection(LEGACY)
        longer = plainVector(VIDEO, "hvc1", 1, 1, NANO)
        shorter = plainVector(VIDEO, "hvc1", 1, 1)
        assert select(selection, VIDEO, longer.payload) == ([shorter.payload], 0)

    def test_whatHasNoLegacyFormOfALegacyCodec(self):
        metadata = oneTrack(VIDEO, "avc1", 4, 0).payload
        assert flagsOf(VIDEO, metadata) & MULTITRACK
        channels = oneTrack(AUDIO, "mp4a", 4, 0).payload
        # Nobody misses it.
        assert select(Selection(LEGACY), VIDEO, metadata) == ([], 0)
        assert select(Selection(LEGACY), AUDIO, channels) == ([], 0)

    def test_unknownLayout(self):
        assert select(Selection(LEGACY), VIDEO, b"\x96\x31hvc1" + BODY) == ([], 1)

    def test_allTracksIfAskedFor(self):
        """FFmpeg 8 reads them and does not announce it."""
        selection = selectionOf(LEGACY, "tracks=all")
        assert selection.everything
        assert selection == EVERYTHING
        for vector in everything():
            found = selected(selection, messageOf(vector))
            assert found == ([vector.payload], 0)


class TestWithCapabilities:
    def test_aRelayGetsEverythingAsItCame(self):
        selection = Selection(RELAY)
        assert selection.everything
        for vector in everything():
            found = selected(selection, messageOf(vector))
            assert found == ([vector.payload], 0)
            assert found[0][0] is vector.payload

    def test_neverATrackThatItCannot(self):
        """Whatever the message, no payload names a codec that was not announced."""
        for capabilities, may in (
            (HEVC_AND_OPUS, {"hvc1", "Opus", ""}),
            (HEVC_OF_VERSION_1, {"hvc1", ""}),
            (TRACKS_OF_AV1, {"av01", ""}),
        ):
            for selection in (Selection(capabilities), Selection(capabilities, True)):
                assert not selection.everything
                refused = 0
                for vector in everything():
                    payloads, missing = selected(selection, messageOf(vector))
                    refused += missing
                    for payload in payloads:
                        flags = flagsOf(vector.typeId, payload)
                        if not flags & ENHANCED:
                            continue
                        codecs = splitTracks(vector.typeId, payload)
                        assert {track.codec for track in codecs} <= may, vector.name
                        if not selection.allTracks:
                            assert not flags & MOD_EX
                assert refused > 100

    def test_whatItCannotIsCounted(self):
        selection = Selection(HEVC_AND_OPUS)
        av1 = b"\x91av01" + BODY
        assert select(selection, VIDEO, av1) == ([], 1)
        assert select(selection, AUDIO, b"\x91fLaC" + BODY) == ([], 1)
        hevc = b"\x91hvc1\0\0\0" + BODY
        assert select(selection, VIDEO, hevc) == ([hevc], 0)
        assert select(selection, VIDEO, AVC1) == ([], 1)
        assert select(selection, VIDEO, HEVC2) == ([HEVC2], 0)

    def test_theOnlyTrackForWhoNamesCodecsOfVersion1(self):
        """FFmpeg from 6.1 on can say so, and reads several tracks since 8.0."""
        selection = Selection(HEVC_OF_VERSION_1)
        assert select(selection, VIDEO, AVC0) == ([AVC0], 0)
        assert select(selection, VIDEO, HEVC2) == ([], 0)
        assert select(selection, AUDIO, OPUS2) == ([], 0)
        numbered = b"\x96\x01hvc1\x00\0\0\x28" + BODY
        plain = b"\x91hvc1\0\0\x28" + BODY
        assert select(selection, VIDEO, numbered) == ([plain], 0)
        assert select(selection, VIDEO, b"\x91av01" + BODY) == ([], 1)
        asked = selectionOf(HEVC_OF_VERSION_1, "tracks=all")
        assert select(asked, VIDEO, HEVC2) == ([HEVC2], 0)

    def test_legacyFormOfWhatItDoesNotName(self):
        selection = Selection(HEVC_AND_OPUS)
        avc = b"\x91avc1\0\0\x28" + BODY
        assert select(selection, VIDEO, avc) == ([b"\x17\x01\0\0\x28" + BODY], 0)

        # Nor does taking several tracks make it take this one enhanced.
        found = select(Selection(TRACKS_OF_AV1), VIDEO, avc)
        assert found == ([b"\x17\x01\0\0\x28" + BODY], 0)

    def test_enhancedFormOfWhatItNames(self):
        named = Capabilities.fromProperties({"fourCcList": ["avc1"]})
        avc = b"\x91avc1\0\0\x28" + BODY
        assert select(Selection(named), VIDEO, avc) == ([avc], 0)

    def test_someOfSeveralTracks(self):
        """Those that it takes, each numbered as it was."""
        selection = Selection(TRACKS_OF_AV1)
        assert select(selection, VIDEO, MIXED) == ([b"\x96\x01av01\x01BB"], 1)
        av1 = b"\x96\x11av01\x00\0\0\x02AA\x01\0\0\x02BB"
        assert select(selection, VIDEO, av1) == ([av1], 0)
        assert select(selection, VIDEO, HEVC2) == ([], 1)

    def test_modExOfAllTracks(self):
        """Kept for who reads past it, and taken off for who does not say so."""
        longer = oneTrack(VIDEO, "av01", 1, 3, NANO).payload
        shorter = oneTrack(VIDEO, "av01", 1, 3).payload
        assert select(Selection(RELAY), VIDEO, longer) == ([longer], 0)
        assert select(Selection(TRACKS_OF_AV1), VIDEO, longer) == ([shorter], 0)


class TestAskingForATrack:
    def test_isNotEverything(self):
        for query in ("video=0", "audio=0", "track=1", "audio=1&tracks=all"):
            assert not selectionOf(RELAY, query).everything
        assert selectionOf(RELAY, "x=1").everything

    @pytest.mark.parametrize("capabilities", [LEGACY, RELAY])
    def test_one(self, capabilities):
        selection = selectionOf(capabilities, "track=1")
        assert not selection.everything
        form = (lambda _, p: p) if capabilities is RELAY else toLegacy
        for typeId, payload in ((VIDEO, AVC1), (AUDIO, AAC1)):
            (track,) = splitTracks(typeId, payload)
            expected = form(typeId, track.payload)
            assert select(selection, typeId, payload) == ([expected], 0)
        for typeId, payload in (
            (VIDEO, AVC0),
            (VIDEO, HEVC2),
            (AUDIO, AAC0),
            (AUDIO, OPUS2),
        ):
            assert select(selection, typeId, payload) == ([], 0)

    def test_oneOfAKind(self):
        selection = selectionOf(LEGACY, "audio=2&x=1")
        assert (selection.videoTrack, selection.audioTrack) == (None, 2)
        assert select(selection, VIDEO, AVC0) == ([AVC0], 0)
        assert select(selection, VIDEO, AVC1) == ([], 0)
        assert select(selection, AUDIO, AAC0) == ([], 0)
        assert select(selection, AUDIO, OPUS2) == ([b"\x91Opus" + BODY], 0)

    def test_zeroOfAStreamForARelay(self):
        """Asked for, track 0 is a plain stream also for who takes all of them."""
        selection = selectionOf(RELAY, "video=0")
        assert select(selection, VIDEO, AVC0) == ([AVC0], 0)
        assert select(selection, VIDEO, AVC1) == ([], 0)
        assert select(selection, VIDEO, MIXED) == ([b"\x91avc1\0\0\x28AA"], 0)
        assert select(selection, AUDIO, AAC1) == ([AAC1], 0)

    @pytest.mark.parametrize(
        ("query", "video", "audio"),
        [
            ("", None, None),
            ("track=3", 3, 3),
            ("track=3&video=1", 1, 3),
            ("video=0&audio=255", 0, 255),
            ("track=256", None, None),
            ("track=-1", None, None),
            ("track=1e1", None, None),
            ("track=0001", None, None),
            ("track=\u0661", None, None),
            ("track=", None, None),
            ("track=1&track=2", 2, 2),
            ("gop=0&key=track", None, None),
        ],
    )
    def test_queries(self, query, video, audio):
        selection = selectionOf(LEGACY, query)
        assert (selection.videoTrack, selection.audioTrack) == (video, audio)
        assert not selection.allTracks


@pytest.mark.parametrize(
    ("capabilities", "tracks"),
    [
        (LEGACY, set()),
        (HEVC_OF_VERSION_1, set()),
        (HEVC_AND_OPUS, {2}),
        (RELAY, {0, 1, 2}),
    ],
)
def test_whichTracksPass(capabilities, tracks):
    """With their numbers; a legacy codec is everybody's."""
    found = {
        trackId
        for trackId, codec in enumerate(("av01", "avc1", "hvc1"))
        if Selection(capabilities).passes(VIDEO, trackId, codec)
    }
    assert found == tracks
    assert Selection(capabilities).passes(VIDEO, 0, 7) == bool(tracks)
    assert not Selection(capabilities, videoTrack=0).passes(VIDEO, 0, "hvc1")


def test_equalSelectionsShare():
    """Players of one kind are one key, so that messages are written once for them."""
    first = selectionOf(Capabilities.fromProperties(clientProperties()), "")
    assert first == Selection(RELAY)
    assert hash(first) == hash(Selection(RELAY))
    assert len({first, Selection(RELAY), Selection(LEGACY), Selection()}) == 2


def test_everyPlayerOfEveryVector():
    """Plain for one, whole for all; nothing that a player gets is malformed."""
    one, relay = Selection(HEVC_OF_VERSION_1), Selection(RELAY)
    for vector in everything():
        typeId = vector.typeId
        for selection in (one, Selection(LEGACY), Selection(RELAY, False, 0, 0)):
            payloads, missing = selected(selection, messageOf(vector))
            assert len(payloads) + missing <= 1
            for payload in payloads:
                assert not flagsOf(typeId, payload) & MULTITRACK
        (payload,), _ = selected(relay, messageOf(vector))
        if vector.flags & MOD_EX:
            assert withoutModEx(typeId, payload) != payload
