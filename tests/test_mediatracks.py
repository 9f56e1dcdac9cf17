"""
Messages of several tracks taken apart and put together, and enhanced ones in their
legacy form, over all vectors of E-RTMP v2.
"""

from __future__ import annotations

import random

import pytest
from mediavectors import (
    AUDIO,
    MOD_EX_CHAINS,
    VIDEO,
    Vector,
    commands,
    everything,
    oneTrack,
    plainVector,
)

from twisted_rtmp.media.parts import (
    PlainTrack,
    onlyCodecs,
    partOf,
    splitTracks,
    toLegacy,
    withoutModEx,
)
from twisted_rtmp.media.payloads import (
    CODED,
    EMPTY,
    ENHANCED,
    KEY_FRAME,
    MALFORMED,
    MAX_TRACKS,
    MOD_EX,
    MULTITRACK,
    SEQUENCE_END,
    SEQUENCE_HEADER,
    audioFlags,
    flagsOf,
    parseAudio,
    parseVideo,
    videoFlags,
)
from twisted_rtmp.wire.errors import MessageError, UsageError
from twisted_rtmp.wire.messages import Message

BODY = b"a frame of some length"
CONFIGURATION = bytes.fromhex("0142c00dffe100046742c00d01000368ce3c")


def times(vector: Vector) -> list[int]:
    return [track[2] for track in vector.facts["tracks"]]


def plainOf(vector: Vector, fourCC: str, time: int) -> Vector:
    """What one track of a vector is as a message of its own."""
    facts = vector.facts
    return plainVector(
        vector.typeId, fourCC, facts["packetType"], 2, facts["modEx"], time
    )


class TestSplit:
    def test_plainOnesComeBack(self):
        count = 0
        for vector in (*everything(), *commands()):
            if vector.flags & MULTITRACK:
                continue
            count += 1
            codec = vector.facts["codec"]
            found = splitTracks(vector.typeId, vector.payload)
            assert found == [PlainTrack(0, codec, vector.payload, vector.flags)]
        assert count > 1000

    def test_numberedOnesAreTakenApart(self):
        count = 0
        for vector in everything():
            if not vector.flags & MULTITRACK:
                continue
            count += 1
            typeId, facts = vector.typeId, vector.facts
            found = splitTracks(typeId, vector.payload)
            assert [(track.trackId, track.codec) for track in found] == [
                track[:2] for track in facts["tracks"]
            ]
            for track, time in zip(found, times(vector), strict=True):
                plain = plainOf(vector, track.codec, time)
                assert track.payload == plain.payload, vector.name
                assert track.flags == plain.flags, vector.name
        assert count > 1000

    def test_frameTypes(self):
        for frameType in (0, 1, 2, 3, 4, 6, 7):
            vector = oneTrack(VIDEO, "hvc1", 1, 3, frameType=frameType)
            (track,) = splitTracks(VIDEO, vector.payload)
            expected = plainVector(VIDEO, "hvc1", 1, frameType)
            assert track == (3, "hvc1", expected.payload, expected.flags)
            assert bool(track.flags & KEY_FRAME) == (frameType in (1, 4))

    def test_legacyAndSilence(self):
        """What has no number is track 0."""
        for typeId, payload, codec in (
            (VIDEO, b"\x17\x01\0\0\0" + BODY, 7),
            (VIDEO, b"\x1c\x00\0\0\0" + CONFIGURATION, 12),
            (VIDEO, b"\x52\x00", 2),
            (AUDIO, b"\xaf\x01" + BODY, 10),
            (AUDIO, b"\x2f" + BODY, 2),
        ):
            (track,) = splitTracks(typeId, payload)
            assert track == (0, codec, payload, flagsOf(typeId, payload))
        for typeId in (VIDEO, AUDIO):
            assert splitTracks(typeId, b"") == [(0, "", b"", EMPTY)]

    def test_tracksWithoutAFrameOrTwice(self):
        payload = b"\xa6\x13hvc1" + b"\x05\0\0\0" + b"\x05\0\0\x01B"
        assert splitTracks(VIDEO, payload) == [
            (5, "hvc1", b"\xa3hvc1", ENHANCED | EMPTY),
            (5, "hvc1", b"\xa3hvc1B", ENHANCED | CODED),
        ]

    def test_unknownLayouts(self):
        """They are passed on whole, and no track can be had of them."""
        for payload in (b"\x96\x31hvc1" + BODY, b"\x96\x07hvc1\x01" + BODY):
            assert not videoFlags(payload) & MALFORMED
            assert splitTracks(VIDEO, payload) == []
        for payload in (b"\x95\xf1Opus" + BODY, b"\x95\x07Opus\x01" + BODY):
            assert not audioFlags(payload) & MALFORMED
            assert splitTracks(AUDIO, payload) == []

    def test_commandsHaveNone(self):
        """Even where Multitrack stands, and a FourCC could."""
        command = b"\xd6\x00hvc1\x01" + BODY
        (track,) = splitTracks(VIDEO, command)
        assert track == (0, "", command, videoFlags(command))

    def test_whatWouldReadWellWithoutItsWrapper(self):
        """ModEx inside Multitrack means nothing, and Multitrack twice is malformed."""
        video = b"\x96\x07" + b"\x00x\x11h" + b"\x05" + b"vc1\0\0\0" + BODY
        assert videoFlags(b"\x97\x00x\x11hvc1\0\0\0" + BODY) & KEY_FRAME
        assert splitTracks(VIDEO, video) == []
        audio = b"\x95\x07" + b"\x00x\x11O" + b"\x05" + b"pus" + BODY
        assert splitTracks(AUDIO, audio) == []
        with pytest.raises(MessageError):
            splitTracks(VIDEO, b"\x96\x06" + b"\x01hvc" + b"\x05" + b"1\0\0\0\0" + BODY)
        with pytest.raises(MessageError):
            splitTracks(AUDIO, b"\x95\x05" + b"\x01Opu" + b"\x05" + b"s\0" + BODY)

    def test_asManyTracksAsAreRead(self):
        tracks = b"".join(bytes((i,)) + b"\0\0\x01x" for i in range(MAX_TRACKS))
        found = splitTracks(VIDEO, b"\x96\x13hvc1" + tracks)
        assert [track.trackId for track in found] == list(range(MAX_TRACKS))
        with pytest.raises(MessageError):
            splitTracks(VIDEO, b"\x96\x13hvc1" + tracks + b"\0\0\0\x01x")

    def test_cutOff(self):
        """An error exactly where the flags say malformed."""
        for vector in list(everything())[::5]:
            for size in range(1, min(len(vector.payload), 120)):
                piece = vector.payload[:size]
                if flagsOf(vector.typeId, piece) == MALFORMED:
                    with pytest.raises(MessageError):
                        splitTracks(vector.typeId, piece)
                else:
                    splitTracks(vector.typeId, piece)

    def test_otherMessagesHaveNoTracks(self):
        for function in (splitTracks, toLegacy, withoutModEx):
            with pytest.raises(UsageError):
                function(18, b"\x91av01" + BODY)


class TestChoice:
    """Without taking all of a message apart; with the same result."""

    def test_oneTrack(self):
        count = 0
        for vector in everything():
            if not vector.flags & MULTITRACK:
                continue
            whole = splitTracks(vector.typeId, vector.payload)
            message = Message(vector.typeId, 0, 1, vector.payload, vector.flags)
            for trackId in (0, 1, 2, 255):
                found = partOf(message, trackId)
                assert found == [t for t in whole if t.trackId == trackId], vector.name
                count += len(found)
        assert count > 1000

    def test_someCodecs(self):
        count = 0
        for vector in everything():
            if not vector.flags & MULTITRACK:
                continue
            typeId, payload = vector.typeId, vector.payload
            whole = splitTracks(typeId, payload)
            for codec in {track.codec for track in whole}:
                taken = [track for track in whole if track.codec != codec]
                found, flags, missing = onlyCodecs(
                    typeId, payload, vector.flags, lambda each, no=codec: each != no
                )
                assert missing == len(whole) - len(taken)
                assert (found == b"") == (not taken)
                if taken:
                    count += 1
                    assert splitTracks(typeId, found) == taken, vector.name
                    assert flags == flagsOf(typeId, found), vector.name
            everyOne = onlyCodecs(typeId, payload, vector.flags, lambda each: True)
            assert everyOne == (payload, vector.flags, 0)
        assert count > 100

    def test_unknownLayouts(self):
        payload = b"\x96\x31hvc1" + BODY
        message = Message(VIDEO, 0, 1, payload, videoFlags(payload))
        assert partOf(message, 0) is None
        found = onlyCodecs(VIDEO, payload, message.flags, lambda each: False)
        assert found == (payload, message.flags, 0)


class TestWithoutModEx:
    def test_leavesTheMessage(self):
        chains = {chain for chain in MOD_EX_CHAINS.values() if chain}
        for chain in chains:
            for typeId, fourCC in ((VIDEO, "hvc1"), (VIDEO, "av01"), (AUDIO, "fLaC")):
                for packetType in (0, 1, 2, 4, 8):
                    for make in (plainVector, oneTrack):
                        third = 2 if make is plainVector else 9
                        longer = make(typeId, fourCC, packetType, third, chain, 40)
                        shorter = make(typeId, fourCC, packetType, third, (), 40)
                        found = withoutModEx(typeId, longer.payload)
                        assert found == shorter.payload
                        assert flagsOf(typeId, found) == longer.flags & ~MOD_EX
                        same = withoutModEx(typeId, found)
                        assert same is found

    def test_ofACommand(self):
        assert withoutModEx(VIDEO, b"\xd7\x00x\x11\x01") == b"\xd1\x01"

    def test_legacyComesBack(self):
        for typeId, payload in ((VIDEO, b"\x17\x01\0\0\0B"), (AUDIO, b"\xaf\x01B")):
            assert withoutModEx(typeId, payload) is payload
            assert withoutModEx(typeId, b"") == b""

    def test_malformed(self):
        with pytest.raises(MessageError):
            withoutModEx(VIDEO, b"\x97\x02\0\0")


# fmt: off
#: (what, message type, enhanced, legacy)
LEGACY = [
    (
        "avc1 SequenceStart",
        VIDEO, b"\x90avc1" + CONFIGURATION, b"\x17\x00\0\0\0" + CONFIGURATION,
    ),
    (
        "avc1 key frame",
        VIDEO, b"\x91avc1\0\0\x50" + BODY, b"\x17\x01\0\0\x50" + BODY,
    ),
    (
        "avc1 inter frame, negative time",
        VIDEO, b"\xa1avc1\xff\xff\xd8" + BODY, b"\x27\x01\xff\xff\xd8" + BODY,
    ),
    ("avc1 CodedFramesX", VIDEO, b"\xa3avc1" + BODY, b"\x27\x01\0\0\0" + BODY),
    ("avc1 without a frame", VIDEO, b"\xa3avc1", b"\x27\x01\0\0\0"),
    ("avc1 SequenceEnd", VIDEO, b"\x92avc1", b"\x17\x02\0\0\0"),
    (
        "avc1 with nanoseconds",
        VIDEO,
        b"\x97\x02\x0f\x42\x3f\x01avc1\0\0\x01" + BODY,
        b"\x17\x01\0\0\x01" + BODY,
    ),
    ("a command", VIDEO, b"\xd1\x01", b"\x57\x01"),
    ("a command with ModEx", VIDEO, b"\xd7\x00x\x11\x00", b"\x57\x00"),
    ("avc1 Metadata", VIDEO, b"\xd4avc1\x02\0\x09colorInfo\x05", None),
    ("avc1 MPEG2TSSequenceStart", VIDEO, b"\x95avc1" + BODY, None),
    ("avc1, packet type 9", VIDEO, b"\x99avc1" + BODY, None),
    ("avc1, numbered", VIDEO, b"\x96\x03avc1\x00" + BODY, None),
    ("hvc1", VIDEO, b"\x91hvc1\0\0\x50" + BODY, None),
    ("av01", VIDEO, b"\x91av01" + BODY, None),
    ("legacy AVC", VIDEO, b"\x17\x01\0\0\0" + BODY, b"\x17\x01\0\0\0" + BODY),
    ("legacy HEVC", VIDEO, b"\x1c\x01\0\0\0" + BODY, b"\x1c\x01\0\0\0" + BODY),
    ("nothing", VIDEO, b"", b""),
    ("mp4a SequenceStart", AUDIO, b"\x90mp4a\x11\x90", b"\xaf\x00\x11\x90"),
    ("mp4a without a configuration", AUDIO, b"\x90mp4a", None),
    ("mp4a CodedFrames", AUDIO, b"\x91mp4a" + BODY, b"\xaf\x01" + BODY),
    ("mp4a without a frame", AUDIO, b"\x91mp4a", b"\xaf\x01"),
    ("mp4a SequenceEnd is silence", AUDIO, b"\x92mp4a", b""),
    ("mp4a MultichannelConfig", AUDIO, b"\x94mp4a\x00\x06", None),
    ("mp4a, packet type 8", AUDIO, b"\x98mp4a" + BODY, None),
    ("mp4a, numbered", AUDIO, b"\x95\x01mp4a\x00" + BODY, None),
    ("mp4a with ModEx", AUDIO, b"\x97\x00x\x11mp4a" + BODY, b"\xaf\x01" + BODY),
    (".mp3 SequenceStart", AUDIO, b"\x90.mp3" + BODY, None),
    (".mp3 SequenceEnd is silence", AUDIO, b"\x92.mp3", b""),
    (".mp3 without a frame header", AUDIO, b"\x91.mp3" + BODY, b"\x2f" + BODY),
    ("Opus", AUDIO, b"\x91Opus" + BODY, None),
    ("Opus SequenceEnd", AUDIO, b"\x92Opus", None),
    ("legacy AAC", AUDIO, b"\xaf\x01" + BODY, b"\xaf\x01" + BODY),
    ("silence", AUDIO, b"", b""),
]
# fmt: on


class TestLegacy:
    @pytest.mark.parametrize(
        ("typeId", "enhanced", "legacy"),
        [pytest.param(*row[1:], id=row[0]) for row in LEGACY],
    )
    def test_forms(self, typeId, enhanced, legacy):
        assert toLegacy(typeId, enhanced) == legacy
        if legacy:
            flags = flagsOf(typeId, enhanced)
            assert flagsOf(typeId, legacy) == flags & ~(ENHANCED | MOD_EX)

    # MPEG-1 layer III at 128 kb/s, MPEG-2 and 2.5 at 64; the fourth byte's high bits
    # are the channel mode, of which 3 is mono.
    @pytest.mark.parametrize(
        ("header", "rate", "channels"),
        [
            ("fffb9000", 44100, 2),
            ("fffb90c0", 44100, 1),
            ("fffb9440", 44100, 2),  # 48000
            ("fffb9800", 22050, 2),  # 32000
            ("fff38000", 22050, 2),
            ("fff384c0", 22050, 1),  # 24000
            ("fff38800", 11025, 2),  # 16000
            ("ffe38000", 11025, 2),
            ("ffe38480", 11025, 2),  # 12000
            ("ffe388c0", 5512, 1),  # 8000
            ("fffb9c00", 44100, 2),  # a rate that is none
            ("ffeb9000", 44100, 2),  # a version that is none
            ("fffb90", 44100, 2),  # cut off
            ("494433c0", 44100, 2),  # an ID3 tag
        ],
    )
    def test_mp3(self, header, rate, channels):
        frame = bytes.fromhex(header)
        legacy = toLegacy(AUDIO, b"\x91.mp3" + frame)
        assert legacy[1:] == frame
        parsed = parseAudio(legacy)
        assert (parsed.codec, parsed.soundSize) == (2, 16)
        assert (parsed.soundRate, parsed.channels) == (rate, channels)

    def test_allVectors(self):
        """Time, frame and meaning stay; what has no legacy form is refused."""
        written = 0
        for vector in (*everything(), *commands()):
            legacy = toLegacy(vector.typeId, vector.payload)
            codec = vector.facts["codec"]
            known = codec in ("avc1", "mp4a", ".mp3") or "command" in vector.facts
            if vector.flags & MULTITRACK or not known:
                assert legacy is None
            if not legacy:
                continue
            written += 1
            parse = parseVideo if vector.typeId == VIDEO else parseAudio
            before, after = parse(vector.payload), parse(legacy)
            assert after.flags == before.flags & ~(ENHANCED | MOD_EX)
            body = vector.payload[before.bodyOffset :]
            assert legacy[after.bodyOffset :] == body
            if vector.typeId == VIDEO:
                assert after.compositionTime == before.compositionTime
                assert after.frameType == before.frameType
                assert after.command == before.command
        assert written > 200

    def test_trackZeroOfAMultitrackStream(self):
        """H.264 and AAC in several tracks, for a player of 2008."""
        avc = b"\x96\x10avc1" + b"".join(
            bytes((n,)) + len(CONFIGURATION).to_bytes(3, "big") + CONFIGURATION
            for n in range(3)
        )
        frames = (
            b"\x96\x21" + b"avc1\x01\0\0\x04\0\0\0B" + b"avc1\x00\0\0\x05\0\0\x21AA"
        )
        aac = b"\x95\x01mp4a\x00" + BODY
        found = [
            toLegacy(typeId, track.payload)
            for typeId, payload in ((VIDEO, avc), (VIDEO, frames), (AUDIO, aac))
            for track in splitTracks(typeId, payload)
            if track.trackId == 0
        ]
        assert found == [
            b"\x17\x00\0\0\0" + CONFIGURATION,
            b"\x17\x01\0\0\x21AA",
            b"\xaf\x01" + BODY,
        ]
        flags = [SEQUENCE_HEADER, CODED | KEY_FRAME]
        assert [videoFlags(payload) for payload in found[:2]] == flags

    def test_malformed(self):
        for payload in (b"\x91avc", b"\x91avc1\0\0", b"\x90avc1", b"\x97\x02avc1"):
            with pytest.raises(MessageError):
                toLegacy(VIDEO, payload)


@pytest.mark.parametrize("seed", range(4))
def test_anyBytes(seed):
    """Sound payloads or MessageError, and what was split can be wrapped."""
    source = random.Random(seed)
    corpus = [(v.typeId, v.payload) for v in list(everything())[::3]]
    corpus += [row[1:3] for row in LEGACY if row[2]]
    for _ in range(5000):
        typeId, payload = source.choice(corpus)
        mutated = bytearray(payload[:100])
        for _ in range(source.randrange(4)):
            at = source.randrange(min(len(mutated), 12))
            mutated[at] = source.choice((0, 1, 0x7F, 0xFF, source.randrange(256)))
        payload = bytes(mutated[: source.randrange(1, len(mutated) + 1)])
        flags = flagsOf(typeId, payload)
        if flags == MALFORMED:
            for function in (splitTracks, toLegacy):
                if function is toLegacy and not isEnhanced(typeId, payload):
                    continue
                with pytest.raises(MessageError):
                    function(typeId, payload)
            continue
        plain = withoutModEx(typeId, payload)
        assert flagsOf(typeId, plain) == flags & ~MOD_EX
        for track in splitTracks(typeId, payload):
            assert not track.flags & (MALFORMED | MULTITRACK)
            assert track.flags == flagsOf(typeId, track.payload)
            legacy = toLegacy(typeId, track.payload)
            if legacy:
                assert not flagsOf(typeId, legacy) & (MALFORMED | ENHANCED)
            elif legacy == b"":
                assert track.flags & SEQUENCE_END


def isEnhanced(typeId, payload):
    return payload[0] >= 0x80 if typeId == VIDEO else payload[0] >> 4 == 9
