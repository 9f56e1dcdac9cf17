"""
Audio and video payloads: FLV 10.1, E-RTMP v2, what is used in the field, and what
is cut off or makes no sense.
"""

from __future__ import annotations

import random
import tracemalloc

import pytest

from twisted_rtmp.media.parametersets import MAX_NAL_UNITS
from twisted_rtmp.media.payloads import (
    CODED,
    COMMAND,
    EMPTY,
    ENHANCED,
    KEY_FRAME,
    MALFORMED,
    MAX_MOD_EX,
    MAX_TRACKS,
    METADATA,
    MOD_EX,
    MULTICHANNEL,
    MULTITRACK,
    SEQUENCE_END,
    SEQUENCE_HEADER,
    MultichannelConfig,
    Track,
    audioFacts,
    audioFlags,
    flagsOf,
    parseAudio,
    parseVideo,
    videoFacts,
    videoFlags,
)
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.errors import MessageError

KEY = CODED | KEY_FRAME
BODY = b"a frame of some length"

# Configurations that ffmpeg 5.1 wrote with x264, x265 and its own encoders.
AVC_1080P = bytes.fromhex(
    "01640028ffe1001b67640028acd940780227e5c044000003000400000300c83c60c658"
)
HEVC_1080P = bytes.fromhex(
    "01016000000090000000000078f000fcfdf8f800000f02200001001840010c01ffff016000000300"
    "900000030000030078959809210001002a420101016000000300900000030000030078a003c08010"
    "e596566924caf0168080000003008000000c84"
)
AAC_48000_STEREO = bytes.fromhex("1190")
FLAC_44100 = bytes.fromhex(
    "664c6143 80000022 12001200000000004a580ac442f0"
    "0000000000000000000000000000000000000000"
)
OPUS_MONO = bytes.fromhex("4f707573486561640101380180bb0000000000")

NANO = b"\x02\x0f\x42\x3f"  # ModEx data of 3 bytes: 999,999 ns


def size24(data):
    return len(data).to_bytes(3, "big")


# fmt: off
#: (what, payload, flags, what the header says besides)
VIDEO = [
    (
        "AVC key frame",
        b"\x17\x01\0\0\x50" + BODY,
        KEY,
        {
            "codec": 7,
            "codecName": "AVC",
            "frameType": 1,
            "packetType": 1,
            "compositionTime": 80,
            "bodyOffset": 5,
            "keyFrame": True,
            "tracks": (),
        },
    ),
    (
        "AVC inter frame",
        b"\x27\x01\0\0\0" + BODY,
        CODED,
        {"frameType": 2, "keyFrame": False, "compositionTime": 0},
    ),
    (
        "AVC negative composition time",
        b"\x27\x01\xff\xff\xd8" + BODY,
        CODED,
        {"compositionTime": -40},
    ),
    (
        "AVC most negative composition time",
        b"\x27\x01\x80\0\0" + BODY,
        CODED,
        {"compositionTime": -0x800000},
    ),
    (
        "AVC sequence header, with a time that is none",
        b"\x17\x00\0\0\x50" + AVC_1080P,
        SEQUENCE_HEADER,
        {"packetType": 0, "compositionTime": 0, "keyFrame": False, "bodyOffset": 5},
    ),
    ("AVC end of sequence", b"\x17\x02\0\0\0", SEQUENCE_END, {"packetType": 2}),
    ("AVC, a packet type that is none", b"\x17\x03\0\0\0" + BODY, 0, {"packetType": 3}),
    ("AVC generated key frame", b"\x47\x01\0\0\0" + BODY, KEY, {"frameType": 4}),
    ("AVC frame without NAL units", b"\x17\x01\0\0\0", EMPTY, {"bodyOffset": 5}),
    ("AVC frame of one byte", b"\x27\x01\0\0\0x", CODED, {}),
    (
        "Sorenson H.263 key frame",
        b"\x12" + BODY,
        KEY,
        {"codec": 2, "packetType": None, "bodyOffset": 1},
    ),
    ("Sorenson H.263 disposable frame", b"\x32" + BODY, CODED, {"frameType": 3}),
    ("Screen video", b"\x13" + BODY, KEY, {"codecName": "Screen video"}),
    (
        "VP6 frame, second byte like a sequence header",
        b"\x24\x00" + BODY,
        CODED,
        {"codecName": "On2 VP6"},
    ),
    ("VP6 of one byte", b"\x14", EMPTY, {"bodyOffset": 1}),
    ("VP6 of two bytes", b"\x14x", KEY, {}),
    (
        "command: seek starts",
        b"\x52\x00",
        COMMAND,
        {"command": 0, "codec": 2, "bodyOffset": 2},
    ),
    (
        "AVC command, directly after the first byte",
        b"\x57\x01",
        COMMAND,
        {"command": 1, "packetType": None},
    ),
    (
        "AVC command, after a whole AVC header",
        b"\x57\x00\0\0\0\x01",
        COMMAND,
        {"command": 1, "packetType": 0, "bodyOffset": 6},
    ),
    ("AVC command, longer", b"\x57\x00\0\0\0\x01" + BODY, COMMAND, {"command": 1}),
    (
        "HEVC as codec 12: sequence header",
        b"\x1c\x00\0\0\0" + HEVC_1080P,
        SEQUENCE_HEADER,
        {"codec": 12, "codecName": "HEVC"},
    ),
    (
        "HEVC as codec 12: frame",
        b"\x2c\x01\0\0\x28" + BODY,
        CODED,
        {"compositionTime": 40, "bodyOffset": 5},
    ),
    ("AV1 as codec 13", b"\x1d\x01\0\0\0" + BODY, KEY, {"codecName": "AV1"}),
    (
        "codec 10, which is none",
        b"\x1a" + BODY,
        KEY,
        {"codecName": "unknown codec 10", "packetType": None},
    ),
    ("frame type 0, which is none", b"\x07\x01\0\0\0" + BODY, CODED, {"frameType": 0}),
    (
        "hvc1 SequenceStart",
        b"\x90hvc1" + HEVC_1080P,
        ENHANCED | SEQUENCE_HEADER,
        {"codec": "hvc1", "codecName": "HEVC", "packetType": 0, "bodyOffset": 5},
    ),
    (
        "hvc1 CodedFrames",
        b"\xa1hvc1\0\0\x21" + BODY,
        ENHANCED | CODED,
        {"compositionTime": 33, "bodyOffset": 8, "frameType": 2},
    ),
    (
        "hvc1 key frame",
        b"\x91hvc1\xff\xff\xff" + BODY,
        ENHANCED | KEY,
        {"compositionTime": -1, "keyFrame": True},
    ),
    (
        "hvc1 CodedFramesX",
        b"\xa3hvc1" + BODY,
        ENHANCED | CODED,
        {"compositionTime": 0, "bodyOffset": 5, "packetType": 3},
    ),
    ("hvc1 CodedFrames without a frame", b"\xa1hvc1\0\0\0", ENHANCED | EMPTY, {}),
    ("hvc1 SequenceEnd", b"\x92hvc1", ENHANCED | SEQUENCE_END, {}),
    (
        "hvc1 Metadata",
        b"\xd4hvc1\x02\0\x09colorInfo\x05",
        ENHANCED | METADATA,
        {"packetType": 4, "command": None},
    ),
    (
        "av01 CodedFrames have no composition time",
        b"\x91av01" + BODY,
        ENHANCED | KEY,
        {"bodyOffset": 5, "codecName": "AV1"},
    ),
    (
        "av01 MPEG2TSSequenceStart",
        b"\x95av01" + BODY,
        ENHANCED | SEQUENCE_HEADER,
        {"packetType": 5},
    ),
    ("vp09 CodedFramesX", b"\xb3vp09" + BODY, ENHANCED | CODED, {"frameType": 3}),
    (
        "vvc1 CodedFrames",
        b"\xa1vvc1\0\0\x01" + BODY,
        ENHANCED | CODED,
        {"compositionTime": 1, "bodyOffset": 8},
    ),
    (
        "avc1 CodedFrames",
        b"\xa1avc1\0\0\x01" + BODY,
        ENHANCED | CODED,
        {"compositionTime": 1, "codecName": "AVC"},
    ),
    (
        "a FourCC that is none",
        b"\x91\x1b[2J\x00" + BODY[1:],
        ENHANCED | KEY,
        {"codec": "\x1b[2J", "codecName": "unknown FourCC 1b5b324a"},
    ),
    ("packet type 9, which is none", b"\x99hvc1" + BODY, ENHANCED, {"packetType": 9}),
    (
        "enhanced command",
        b"\xd1\x01",
        ENHANCED | COMMAND,
        {"command": 1, "codec": "", "codecName": "no codec", "bodyOffset": 2},
    ),
    (
        "enhanced command before Multitrack",
        b"\xd6\x00" + BODY,
        ENHANCED | COMMAND,
        {"command": 0},
    ),
    (
        "ModEx with nanoseconds",
        b"\x97" + NANO + b"\x01hvc1\0\0\x01" + BODY,
        ENHANCED | MOD_EX | KEY,
        {
            "nanoseconds": 999_999,
            "packetType": 1,
            "compositionTime": 1,
            "bodyOffset": 13,
            "modEx": ((0, b"\x0f\x42\x3f"),),
        },
    ),
    (
        "ModEx of another type before nanoseconds",
        b"\xa7\x00x\x57" + b"\x02\0\0\x07" + b"\x03av01" + BODY,
        ENHANCED | MOD_EX | CODED,
        {"nanoseconds": 7, "modEx": ((5, b"x"), (0, b"\0\0\x07"))},
    ),
    (
        "ModEx with a 16-bit size",
        b"\xa7\xff\x01\x2b" + bytes(300) + b"\x13av01" + BODY,
        ENHANCED | MOD_EX | CODED,
        {"modEx": ((1, bytes(300)),), "nanoseconds": 0},
    ),
    (
        "ModEx as often as is read",
        b"\xa7" + b"\x00x\x17" * (MAX_MOD_EX - 1) + b"\x00x\x13av01" + BODY,
        ENHANCED | MOD_EX | CODED,
        {"packetType": 3},
    ),
    (
        "ModEx, then a command",
        b"\xd7\x00x\x11\x01",
        ENHANCED | MOD_EX | COMMAND,
        {"command": 1},
    ),
    (
        "OneTrack",
        b"\xa6\x01hvc1\x05\0\0\x02" + BODY,
        ENHANCED | CODED | MULTITRACK,
        {
            "multitrackType": 0,
            "packetType": 1,
            "codec": "hvc1",
            "bodyOffset": 6,
            "tracks": (Track(5, "hvc1", 2, 10, 10 + len(BODY)),),
        },
    ),
    (
        "OneTrack key frame",
        b"\x96\x03avc1\x01" + BODY,
        ENHANCED | KEY | MULTITRACK,
        {"tracks": (Track(1, "avc1", 0, 7, 7 + len(BODY)),)},
    ),
    (
        "OneTrack sequence header",
        b"\x96\x00avc1\x01" + AVC_1080P,
        ENHANCED | SEQUENCE_HEADER | MULTITRACK,
        {"packetType": 0},
    ),
    (
        "OneTrack without a frame",
        b"\x96\x03avc1\x01",
        ENHANCED | EMPTY | MULTITRACK,
        {"tracks": (Track(1, "avc1", 0, 7, 7),)},
    ),
    (
        "OneTrack end of sequence",
        b"\x96\x02avc1\x01",
        ENHANCED | SEQUENCE_END | MULTITRACK,
        {},
    ),
    (
        "ManyTracks",
        b"\x96\x11hvc1" + b"\x00\0\0\x05\0\0\x01AB" + b"\x02\0\0\x04\0\0\x02C",
        ENHANCED | KEY | MULTITRACK,
        {
            "multitrackType": 1,
            "tracks": (Track(0, "hvc1", 1, 13, 15), Track(2, "hvc1", 2, 22, 23)),
        },
    ),
    (
        "ManyTracksManyCodecs",
        b"\x96\x21" + b"av01\x00\0\0\x02AB" + b"hvc1\x01\0\0\x04\0\0\x02C",
        ENHANCED | KEY | MULTITRACK,
        {
            "multitrackType": 2,
            "codec": "",
            "tracks": (Track(0, "av01", 0, 10, 12), Track(1, "hvc1", 2, 23, 24)),
        },
    ),
    (
        "ModEx, then ManyTracks",
        b"\xa7" + NANO + b"\x06\x13av01\x09" + b"\0\0\x01Z",
        ENHANCED | MOD_EX | CODED | MULTITRACK,
        {"nanoseconds": 999_999, "tracks": (Track(9, "av01", 0, 15, 16),)},
    ),
    (
        "a layout of tracks that is none",
        b"\x96\x31hvc1" + BODY,
        ENHANCED | MULTITRACK,
        {"multitrackType": 3, "tracks": ()},
    ),
    (
        "ModEx inside Multitrack, which has no meaning",
        b"\x96\x07hvc1\x01" + BODY,
        ENHANCED | MULTITRACK,
        {"packetType": 7},
    ),
]

AUDIO = [
    (
        "AAC frame",
        b"\xaf\x01" + BODY,
        CODED,
        {
            "codec": 10,
            "codecName": "AAC",
            "packetType": 1,
            "bodyOffset": 2,
            "soundRate": 44100,
            "soundSize": 16,
            "channels": 2,
            "tracks": (),
        },
    ),
    (
        "AAC sequence header",
        b"\xaf\x00" + AAC_48000_STEREO,
        SEQUENCE_HEADER,
        {"packetType": 0},
    ),
    ("AAC frame of four bytes", b"\xaf\x01\x21\x10\x04\x60", CODED, {}),
    ("AAC without a frame", b"\xaf\x01", EMPTY, {"bodyOffset": 2}),
    ("AAC, a packet type that is none", b"\xaf\x02" + BODY, 0, {"packetType": 2}),
    (
        "MP3, second byte like a sequence header",
        b"\x2e\x00" + BODY,
        CODED,
        {"codecName": "MP3", "packetType": None, "bodyOffset": 1, "channels": 1},
    ),
    (
        "PCM, 5.5 kHz, 8 bits",
        b"\x00" + BODY,
        CODED,
        {"soundRate": 5512, "soundSize": 8, "channels": 1},
    ),
    (
        "PCM little-endian, 11 kHz",
        b"\x37" + BODY,
        CODED,
        {"soundRate": 11025, "soundSize": 16, "channels": 2},
    ),
    ("Nellymoser 16 kHz", b"\x42" + BODY, CODED, {"soundRate": 16000}),
    ("Speex", b"\xb2" + BODY, CODED, {"soundRate": 16000, "codecName": "Speex"}),
    ("G.711", b"\x82" + BODY, CODED, {"soundRate": 8000}),
    ("MP3 8 kHz", b"\xe2" + BODY, CODED, {"soundRate": 8000}),
    (
        "DJI's device-specific sound",
        b"\xff" + BODY,
        CODED,
        {"codec": 15, "codecName": "device-specific sound"},
    ),
    (
        "format 12, which is none",
        b"\xc0" + BODY,
        CODED,
        {"codecName": "unknown codec 12"},
    ),
    ("one byte of MP3", b"\x2e", EMPTY, {}),
    (
        "Opus as format 13: sequence header",
        b"\xdf\x00" + OPUS_MONO,
        SEQUENCE_HEADER,
        {"codecName": "Opus"},
    ),
    ("Opus as format 13: frame", b"\xdf\x01" + BODY, CODED, {"bodyOffset": 2}),
    (
        "Opus SequenceStart",
        b"\x90Opus" + OPUS_MONO,
        ENHANCED | SEQUENCE_HEADER,
        {"codec": "Opus", "packetType": 0, "bodyOffset": 5, "soundRate": None},
    ),
    (
        "Opus SequenceStart, empty: the defaults",
        b"\x90Opus",
        ENHANCED | SEQUENCE_HEADER,
        {"bodyOffset": 5},
    ),
    ("Opus CodedFrames", b"\x91Opus" + BODY, ENHANCED | CODED, {"packetType": 1}),
    ("Opus frame of one byte", b"\x91Opusx", ENHANCED | CODED, {}),
    ("Opus CodedFrames without a frame", b"\x91Opus", ENHANCED | EMPTY, {}),
    ("fLaC SequenceEnd", b"\x92fLaC", ENHANCED | SEQUENCE_END, {"codecName": "FLAC"}),
    (
        "packet type 3, which is none",
        b"\x93ac-3" + BODY,
        ENHANCED,
        {"codecName": "AC-3", "packetType": 3},
    ),
    (
        "DJI's FourCC that is none",
        b"\x91\0\0\0\0" + BODY,
        ENHANCED | CODED,
        {"codecName": "unknown FourCC 00000000"},
    ),
    (
        "MultichannelConfig, native",
        b"\x94mp4a\x01\x06\0\0\x06\x0f",
        ENHANCED | SEQUENCE_HEADER | MULTICHANNEL,
        {"multichannel": MultichannelConfig(1, 6, mask=0x060F)},
    ),
    (
        "MultichannelConfig, custom",
        b"\x94Opus\x02\x03\x00\x01\xff",
        ENHANCED | SEQUENCE_HEADER | MULTICHANNEL,
        {"multichannel": MultichannelConfig(2, 3, mapping=b"\x00\x01\xff")},
    ),
    (
        "MultichannelConfig, unspecified",
        b"\x94Opus\x00\x08",
        ENHANCED | SEQUENCE_HEADER | MULTICHANNEL,
        {"multichannel": MultichannelConfig(0, 8)},
    ),
    (
        "MultichannelConfig, an order that is none",
        b"\x94Opus\x07\x08" + BODY,
        ENHANCED | SEQUENCE_HEADER | MULTICHANNEL,
        {"multichannel": MultichannelConfig(7, 8)},
    ),
    (
        "MultichannelConfig of one track",
        b"\x95\x04Opus\x03\x00\x08",
        ENHANCED | SEQUENCE_HEADER | MULTICHANNEL | MULTITRACK,
        {
            "multichannel": MultichannelConfig(0, 8),
            "tracks": (Track(3, "Opus", 0, 7, 9),),
        },
    ),
    (
        "ModEx with nanoseconds",
        b"\x97" + NANO + b"\x01Opus" + BODY,
        ENHANCED | MOD_EX | CODED,
        {"nanoseconds": 999_999, "bodyOffset": 10},
    ),
    (
        "OneTrack",
        b"\x95\x01mp4a\x02" + BODY,
        ENHANCED | CODED | MULTITRACK,
        {
            "multitrackType": 0,
            "bodyOffset": 6,
            "tracks": (Track(2, "mp4a", 0, 7, 7 + len(BODY)),),
        },
    ),
    (
        "OneTrack sequence header",
        b"\x95\x00mp4a\x02" + AAC_48000_STEREO,
        ENHANCED | SEQUENCE_HEADER | MULTITRACK,
        {},
    ),
    (
        "ManyTracks",
        b"\x95\x11Opus" + b"\x00\0\0\x01A" + b"\x01\0\0\x02BC",
        ENHANCED | CODED | MULTITRACK,
        {"tracks": (Track(0, "Opus", 0, 10, 11), Track(1, "Opus", 0, 15, 17))},
    ),
    (
        "ManyTracksManyCodecs",
        b"\x95\x21" + b"Opus\x00\0\0\x01A" + b"fLaC\x01\0\0\0",
        ENHANCED | CODED | MULTITRACK,
        {
            "codec": "",
            "tracks": (Track(0, "Opus", 0, 10, 11), Track(1, "fLaC", 0, 19, 19)),
        },
    ),
    (
        "a layout of tracks that is none",
        b"\x95\xf1Opus" + BODY,
        ENHANCED | MULTITRACK,
        {"multitrackType": 15, "tracks": ()},
    ),
]
# fmt: on

#: Too short for what they announce, or impossible.
BAD_VIDEO = [
    ("AVC without a packet type", b"\x17"),
    ("AVC without a time", b"\x17\x01\0\0"),
    ("AVC sequence header without a configuration", b"\x17\x00\0\0\0"),
    ("HEVC as codec 12, cut off", b"\x1c\x01\0"),
    ("command without a command", b"\x57"),
    ("command without a command, H.263", b"\x52"),
    ("enhanced command without a command", b"\xd1"),
    ("FourCC cut off", b"\x91hvc"),
    ("no FourCC", b"\x91"),
    ("composition time cut off", b"\x91hvc1\0\0"),
    ("SequenceStart without a configuration", b"\x90hvc1"),
    ("MPEG2TSSequenceStart without a descriptor", b"\x95av01"),
    ("ModEx without a size", b"\x97"),
    ("ModEx without data", b"\x97\x02"),
    ("ModEx cut off", b"\x97\x02\0\0\0"),
    ("ModEx without a 16-bit size", b"\x97\xff\x01"),
    ("ModEx with a 16-bit size, cut off", b"\x97\xff\xff\xff" + BODY),
    ("ModEx that goes on into nothing", b"\x97\x00x\x07"),
    ("ModEx too often", b"\xa7" + b"\x00x\x17" * MAX_MOD_EX + b"\x00x\x13av01" + BODY),
    ("nanoseconds of two bytes", b"\x97\x01\0\0\x01hvc1\0\0\0" + BODY),
    ("Multitrack without a type", b"\x96"),
    ("Multitrack without a FourCC", b"\x96\x01hvc"),
    ("Multitrack without a track", b"\x96\x01hvc1"),
    ("OneTrack without its time", b"\x96\x01hvc1\x01\0\0"),
    ("OneTrack sequence header without a configuration", b"\x96\x00hvc1\x01"),
    ("Multitrack inside Multitrack", b"\x96\x06hvc1\x01" + BODY),
    ("ManyTracks without a size", b"\x96\x11hvc1\x01\0\0"),
    ("ManyTracks of a track past the end", b"\x96\x13hvc1\x01\0\0\x02A"),
    ("ManyTracks, the second cut off", b"\x96\x13hvc1\x01\0\0\x01A\x02"),
    ("ManyTracks of too little for a time", b"\x96\x11hvc1\x01\0\0\x02AB\x02\0\0\0"),
    ("ManyTracksManyCodecs without a FourCC", b"\x96\x21hvc"),
    ("too many tracks", b"\x96\x13hvc1" + b"\x01\0\0\0" * (MAX_TRACKS + 1)),
]

BAD_AUDIO = [
    ("AAC without a packet type", b"\xaf"),
    ("AAC sequence header without a configuration", b"\xaf\x00"),
    ("Opus as format 13 without a packet type", b"\xdf"),
    ("no FourCC", b"\x91"),
    ("FourCC cut off", b"\x91Opu"),
    ("MultichannelConfig without anything", b"\x94Opus"),
    ("MultichannelConfig without a count", b"\x94Opus\x00"),
    ("MultichannelConfig, native, cut off", b"\x94Opus\x01\x02\0\0\0"),
    ("MultichannelConfig, custom, cut off", b"\x94Opus\x02\x05\0\0\0\0"),
    ("ModEx cut off", b"\x97\x02\0\0\0"),
    ("nanoseconds of one byte", b"\x97\x00\0\x01Opus" + BODY),
    ("Multitrack inside Multitrack", b"\x95\x05Opus\x01" + BODY),
    ("OneTrack cut off", b"\x95\x01Opus"),
    ("ManyTracks of a track past the end", b"\x95\x11Opus\x01\0\0\x02A"),
    ("too many tracks", b"\x95\x11Opus" + b"\x01\0\0\0" * (MAX_TRACKS + 1)),
]


def named(table):
    return [pytest.param(*row[1:], id=row[0]) for row in table]


class TestVectors:
    @pytest.mark.parametrize(("payload", "flags", "facts"), named(VIDEO))
    def test_video(self, payload, flags, facts):
        assert videoFlags(payload) == flags
        header = parseVideo(payload)
        assert header.flags == flags
        assert {name: getattr(header, name) for name in facts} == facts

    @pytest.mark.parametrize(("payload", "flags", "facts"), named(AUDIO))
    def test_audio(self, payload, flags, facts):
        assert audioFlags(payload) == flags
        header = parseAudio(payload)
        assert header.flags == flags
        assert {name: getattr(header, name) for name in facts} == facts

    @pytest.mark.parametrize("payload", named(BAD_VIDEO))
    def test_malformedVideo(self, payload):
        assert videoFlags(payload) == MALFORMED
        with pytest.raises(MessageError):
            parseVideo(payload)
        assert videoFacts(payload) == {}

    @pytest.mark.parametrize("payload", named(BAD_AUDIO))
    def test_malformedAudio(self, payload):
        assert audioFlags(payload) == MALFORMED
        with pytest.raises(MessageError):
            parseAudio(payload)
        assert audioFacts(payload) == {}

    def test_emptyPayloads(self):
        """Legal, and never looked into."""
        assert videoFlags(b"") == audioFlags(b"") == EMPTY
        assert videoFacts(b"") == audioFacts(b"") == {}
        with pytest.raises(MessageError):
            parseVideo(b"")
        with pytest.raises(MessageError):
            parseAudio(b"")

    def test_flagsOf(self):
        payload = b"\x27\x00" + BODY  # an MP3 frame; an AVC sequence header
        assert flagsOf(MessageType.VIDEO, payload) == SEQUENCE_HEADER
        assert flagsOf(MessageType.AUDIO, payload) == CODED
        for typeId in (MessageType.DATA_AMF0, MessageType.COMMAND_AMF0, 0, 255):
            assert flagsOf(typeId, payload) == 0

    def test_longErrorsSayTheirBounds(self):
        with pytest.raises(MessageError) as caught:
            parseVideo(b"\x96\x13hvc1" + b"\x01\0\0\0" * (MAX_TRACKS + 1))
        assert caught.value.limit == MAX_TRACKS
        with pytest.raises(MessageError) as caught:
            parseVideo(b"\x17\x01\0")
        assert (caught.value.limit, caught.value.got) == (5, 3)
        assert caught.value.section == "FLV 10.1, E.4.3.1"

    def test_asManyTracksAsAreRead(self):
        tracks = b"".join(bytes((i,)) + b"\0\0\x01x" for i in range(MAX_TRACKS))
        header = parseVideo(b"\x96\x13hvc1" + tracks)
        assert [track.trackId for track in header.tracks] == list(range(MAX_TRACKS))
        assert header.flags == ENHANCED | KEY | MULTITRACK


def check(payload):
    """What holds for any bytes at all."""
    for flagsOfPayload, parse, facts in (
        (videoFlags, parseVideo, videoFacts),
        (audioFlags, parseAudio, audioFacts),
    ):
        flags = flagsOfPayload(payload)
        found = facts(payload)
        try:
            header = parse(payload)
        except MessageError:
            assert flags == (MALFORMED if payload else EMPTY)
            assert found == {}
            continue
        assert header.flags == flags
        assert not flags & MALFORMED
        assert flags & (CODED | KEY_FRAME) != KEY_FRAME
        assert header.codecName.isprintable()
        assert 0 < header.bodyOffset <= len(payload)
        end = 0
        for track in header.tracks:
            assert end < track.start <= track.end <= len(payload)
            end = track.end
        # What onMetaData takes.
        assert all(type(value) in (int, bool) for value in found.values())


class TestAnyBytes:
    """The short way and the long way agree, and only MessageError is raised."""

    def test_everyFirstTwoBytesAtEveryLength(self):
        for first in range(256):
            for second in (*range(9), 0x11, 0x21, 0x31, 0x57, 0xFF):
                whole = bytes((first, second)) + b"hvc1\x01\0\0\x02abcdefgh"
                for size in range(len(whole) + 1):
                    check(whole[:size])

    @pytest.mark.parametrize("table", [VIDEO, AUDIO, BAD_VIDEO, BAD_AUDIO])
    def test_truncatedAndExtended(self, table):
        for _, payload, *_ in table:
            for size in range(min(len(payload), 400)):
                check(payload[:size])
            check(payload + bytes(7))

    @pytest.mark.parametrize("seed", range(4))
    def test_mutations(self, seed):
        source = random.Random(seed)
        corpus = [row[1] for row in VIDEO + AUDIO + BAD_VIDEO + BAD_AUDIO]
        for _ in range(4000):
            payload = bytearray(source.choice(corpus)[:200])
            for _ in range(source.randrange(1, 5)):
                payload[source.randrange(len(payload))] = source.choice(
                    (0, 1, 0x7F, 0x80, 0xFF, source.randrange(256))
                )
            check(bytes(payload))

    @pytest.mark.parametrize("seed", range(4))
    def test_configurationMutations(self, seed):
        source = random.Random(seed)
        corpus = [
            b"\x17\0\0\0\0" + AVC_1080P,
            b"\x90hvc1" + HEVC_1080P,
            b"\xaf\0" + AAC_48000_STEREO + b"\x56\xe5\0",
            b"\x90fLaC" + FLAC_44100,
            b"\x90Opus" + OPUS_MONO,
        ]
        for _ in range(2000):
            payload = bytearray(source.choice(corpus))
            for _ in range(source.randrange(1, 4)):
                payload[source.randrange(5, len(payload))] = source.randrange(256)
            check(bytes(payload[: source.randrange(len(payload) + 1)]))

    def test_hugePayloadsCostNothing(self):
        """Millions of tracks or extensions, or a parameter set of golomb zeros."""
        mib = 1 << 20
        payloads = [
            b"\x96\x13hvc1" + b"\x01\0\0\0" * mib,
            b"\xa7" + b"\x00x\x17" * mib,
            b"\x17\0\0\0\0\x01\x64\0\x28\xff\xe1\xff\xff\x67\x64\0\x28" + bytes(mib),
            b"\x17\0\0\0\0\x01\x64\0\x28\xff\xe1\xff\xff\x67\x64\0\x28" + b"\xff" * mib,
            b"\x90hvc1\x01" + bytes(21) + b"\xff" * mib,
            b"\x90hvc1\x01" + bytes(21) + b"\xff" + b"\x21\xff\xff" + bytes(mib),
        ]
        tracemalloc.start()
        try:
            for payload in payloads:
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                videoFlags(payload)
                videoFacts(payload)
                # One copy of the body at most.
                spent = tracemalloc.get_traced_memory()[1] - before
                assert spent < len(payload) + 100_000
        finally:
            tracemalloc.stop()


class BitWriter:
    def __init__(self):
        self.bits = ""

    def u(self, count, value=0):
        self.bits += f"{value:0{count}b}" if count else ""
        return self

    def ue(self, *values):
        for value in values:
            code = f"{value + 1:b}"
            self.bits += "0" * (len(code) - 1) + code
        return self

    def se(self, value):
        return self.ue(2 * value - 1 if value > 0 else -2 * value)

    def nal(self, header):
        bits = self.bits + "1"
        bits += "0" * (-len(bits) % 8)
        data = int(bits, 2).to_bytes(len(bits) // 8, "big")
        out = bytearray(header)
        zeros = 0
        for byte in data:  # emulation prevention
            if zeros >= 2 and byte <= 3:
                out.append(3)
                zeros = 0
            out.append(byte)
            zeros = zeros + 1 if byte == 0 else 0
        return bytes(out)


def avcRecord(sps):
    return b"\x01\x64\0\x28\xff\xe1" + len(sps).to_bytes(2, "big") + sps + b"\0"


def hevcRecord(sps):
    return (
        b"\x01"
        + bytes(21)
        + b"\x02"
        + b"\xa0\x00\x01\x00\x02vp"  # a VPS before it
        + b"\xa1\x00\x01"
        + len(sps).to_bytes(2, "big")
        + sps
    )


def scalingLists():
    """High profile with scaling lists: one full, one that stops, one unchanged."""
    bits = BitWriter().u(8, 100).u(16).ue(0, 1, 0, 0).u(1).u(1, 1)
    bits.u(1, 1)
    for _ in range(16):
        bits.se(3)
    bits.u(1, 1).se(-8)  # 8 - 8 = 0: the rest repeats the last
    bits.u(4).u(1, 1)
    for index in range(64):
        bits.se(-2 if index % 2 else 2)
    bits.u(1)
    return bits


def baseline():
    """A baseline SPS up to its width."""
    return BitWriter().u(8, 66).u(16).ue(0, 0, 2, 0).u(1)


class TestVideoFacts:
    @pytest.mark.parametrize(
        ("record", "width", "height"),
        [
            pytest.param(AVC_1080P.hex(), 1920, 1080, id="x264 cropped"),
            pytest.param(
                "01f4000dffe1001a67f4000d919b282a10f1f1f808800000030080000019078a14cb",
                322,
                242,
                id="x264 4:4:4",
            ),
            pytest.param(
                "01640015ffe1001a67640015acd941410f526022000003000200000300643e28532c",
                318,
                244,
                id="x264 interlaced",
            ),
            pytest.param(
                "017a000dffe1001a677a000dbcd9414087a8fc0440000003004000000c83c50a6580",
                318,
                242,
                id="x264 4:2:2",
            ),
            pytest.param(
                "0164000dffe1001b6764000df36505021ee3f016c80000030008000003019078a14c"
                "b0",
                318,
                242,
                id="x264 gray",
            ),
            pytest.param(
                "0142c00dffe100186742c00dd9014087a88c0440000003004000000c83c50a92",
                318,
                242,
                id="x264 baseline",
            ),
        ],
    )
    def test_avc(self, record, width, height):
        facts = {"width": width, "height": height}
        body = bytes.fromhex(record)
        assert videoFacts(b"\x17\0\0\0\0" + body) == {"videocodecid": 7, **facts}
        enhanced = {"videocodecid": 0x61766331, **facts}
        assert videoFacts(b"\x90avc1" + body) == enhanced
        assert videoFacts(b"\x96\x00avc1\x00" + body) == enhanced
        many = b"\x96\x10avc1" + b"\x07\0\0\x01x" + b"\0" + size24(body) + body
        assert videoFacts(many) == enhanced
        # Not the default track's, so it says nothing about the stream.
        assert videoFacts(b"\x96\x00avc1\x01" + body) == {}

    @pytest.mark.parametrize(
        ("record", "width", "height"),
        [
            pytest.param(HEVC_1080P.hex(), 1920, 1080, id="x265"),
            pytest.param(
                "0104080000009e08000000003cf000fcfff8f800000f02200001001740010c01ffff"
                "0408000003009e0800000300003c959809210001002b4201010408000003009e0800"
                "000300003c90014901f39e7cb2b349265780b4040000030004000003006420",
                322,
                242,
                id="x265 4:4:4",
            ),
            pytest.param(
                "0104080000009d08000000003cf000fcfefafa00000f02200001001740010c01ffff"
                "0408000003009d0800000300003c959809210001002b4201010408000003009d0800"
                "000300003cb00a480f9c93b65959a4932bc05a020000030002000003003210",
                322,
                242,
                id="x265 4:2:2 10 bits",
            ),
        ],
    )
    def test_hevc(self, record, width, height):
        facts = {"width": width, "height": height}
        body = bytes.fromhex(record)
        assert videoFacts(b"\x1c\0\0\0\0" + body) == {"videocodecid": 12, **facts}
        enhanced = {"videocodecid": 0x68766331, **facts}
        assert videoFacts(b"\x90hvc1" + body) == enhanced

    @pytest.mark.parametrize("pictureOrder", [(0, 4), (2,), (1,)])
    @pytest.mark.parametrize("crop", [0, 1])
    def test_avcInFull(self, pictureOrder, crop):
        """Scaling lists, all kinds of picture order, fields, cropping."""
        bits = scalingLists().ue(0, *pictureOrder)
        if pictureOrder == (1,):
            bits.u(1).se(-5).se(9).ue(3).se(1).se(-70000).se(0)
        bits.ue(1).u(1).ue(44, 16).u(1, 0).u(1).u(1).u(1, crop)
        if crop:
            bits.ue(1, 2, 0, 3)
        sps = bits.u(1).nal(b"\x67")
        facts = videoFacts(b"\x17\0\0\0\0" + avcRecord(sps))
        # Cropped by 2 across; by 2 down, for 4:2:0, and by 2 again, for fields.
        size = (720 - 6, 544 - 12) if crop else (720, 544)
        assert (facts["width"], facts["height"]) == size

    @pytest.mark.parametrize(("chroma", "across", "down"), [(0, 1, 1), (2, 2, 1)])
    def test_hevcSubLayers(self, chroma, across, down):
        bits = BitWriter().u(4).u(3, 2).u(1).u(88).u(8)
        bits.u(2, 0b11).u(2, 0b01).u(12)  # both and only the level
        bits.u(88).u(8).u(8)
        bits.ue(0, chroma, 640, 480).u(1, 1).ue(1, 2, 3, 4)
        facts = videoFacts(b"\x90hvc1" + hevcRecord(bits.nal(b"\x42\x01")))
        assert (facts["width"], facts["height"]) == (640 - 3 * across, 480 - 7 * down)

    def test_hevcSeparatePlanes(self):
        bits = BitWriter().u(4).u(3).u(1).u(88).u(8).ue(0, 3).u(1, 1).ue(640, 480)
        bits.u(1, 1).ue(1, 0, 0, 1)
        facts = videoFacts(b"\x90hvc1" + hevcRecord(bits.nal(b"\x42\x01")))
        assert (facts["width"], facts["height"]) == (639, 479)

    @pytest.mark.parametrize(
        "sps",
        [
            baseline().ue(70000, 16).u(3, 4),
            baseline().ue(3, 3).u(3, 5).ue(99, 0, 0, 0),
            baseline().ue(3),
            BitWriter().u(8, 100).u(16).ue(0, 4).ue(0, 0),
        ],
        ids=["too wide", "cropped to nothing", "cut off", "no chroma format"],
    )
    def test_senselessDimensionsAreLeftOut(self, sps):
        record = avcRecord(sps.nal(b"\x67"))
        assert videoFacts(b"\x17\0\0\0\0" + record) == {"videocodecid": 7}

    @pytest.mark.parametrize(
        ("payload", "facts"),
        [
            (b"\x27\x01\0\0\0" + BODY, {"videocodecid": 7}),
            (b"\x12" + BODY, {"videocodecid": 2}),
            (b"\x90av01" + BODY, {"videocodecid": 0x61763031}),
            (b"\x90hvc1" + BODY, {"videocodecid": 0x68766331}),
            (b"\x96\x31hvc1" + BODY, {}),
            (b"\xd1\x00", {}),
        ],
    )
    def test_otherPayloads(self, payload, facts):
        assert videoFacts(payload) == facts


def hevcAfter(empty: int) -> bytes:
    """An HEVC configuration whose SPS comes after so many empty NAL units."""
    units = b"\x20" + empty.to_bytes(2, "big") + bytes(2 * empty)
    start = HEVC_1080P.index(b"\x21\0\1")
    return HEVC_1080P[:22] + b"\2" + units + HEVC_1080P[start:]


def test_emptyUnitsOfAnHEVCConfiguration():
    """A configuration of 8 MB could have four million of them."""
    facts = videoFacts(b"\x90hvc1" + hevcAfter(MAX_NAL_UNITS))
    assert (facts["width"], facts["height"]) == (1920, 1080)
    assert "width" not in videoFacts(b"\x90hvc1" + hevcAfter(MAX_NAL_UNITS + 1))


AAC = 0x6D703461


def sound(codec, rate, channels, size=16):
    facts = {"audiocodecid": codec, "audiosamplerate": rate, "audiosamplesize": size}
    facts |= {"stereo": channels > 1, "audiochannels": channels}
    return {name: value for name, value in facts.items() if value is not None}


def aac(*fields):
    """An AudioSpecificConfig, in hex, of (bits, value)."""
    bits = BitWriter()
    for count, value in fields:
        bits.u(count, value)
    bits.u(-len(bits.bits) % 8)
    return f"{int(bits.bits, 2):0{len(bits.bits) // 4}x}"


class TestAudioFacts:
    @pytest.mark.parametrize(
        ("config", "rate", "channels"),
        [
            pytest.param("1190", 48000, 2, id="ffmpeg, stereo"),
            pytest.param("11b056e500", 48000, 6, id="ffmpeg, 5.1"),
            pytest.param(aac((5, 2), (4, 4), (4, 1)), 44100, 1, id="mono"),
            pytest.param(aac((5, 2), (4, 4), (4, 7)), 44100, 8, id="7.1"),
            pytest.param(aac((5, 2), (4, 15), (24, 1800), (4, 2)), 1800, 2, id="rate"),
            pytest.param(
                aac((5, 5), (4, 6), (4, 2), (4, 3), (5, 2)), 48000, 2, id="HE-AAC"
            ),
            pytest.param(
                aac((5, 29), (4, 7), (4, 1), (4, 4), (5, 2)), 44100, 2, id="HE-AAC v2"
            ),
            pytest.param(
                aac((5, 31), (6, 10), (4, 3), (4, 2)), 48000, 2, id="long object type"
            ),
        ],
    )
    def test_aac(self, config, rate, channels):
        body = bytes.fromhex(config)
        assert audioFacts(b"\xaf\0" + body) == sound(10, rate, channels)
        assert audioFacts(b"\x90mp4a" + body) == sound(AAC, rate, channels)
        assert audioFacts(b"\x95\0mp4a\0" + body) == sound(AAC, rate, channels)
        assert audioFacts(b"\x95\0mp4a\1" + body) == {}

    @pytest.mark.parametrize(
        ("payload", "facts"),
        [
            (b"\xaf\x01" + BODY, {"audiocodecid": 10}),
            (b"\xaf\x00\x12", {"audiocodecid": 10}),
            # No table has rate 13; no number of channels stands in the header.
            (b"\xaf\x00\x16\x80", {"audiocodecid": 10, "audiosamplesize": 16}),
            (b"\x2f" + BODY, sound(2, 44100, 2)),
            (b"\x22" + BODY, sound(2, 5512, 1)),
            (b"\x82" + BODY, sound(8, 8000, 1)),
            (b"\xb2" + BODY, sound(11, 16000, 1)),
            (b"\x90Opus" + OPUS_MONO, sound(0x4F707573, 48000, 1)),
            (b"\xdf\x00" + OPUS_MONO, sound(13, 48000, 1)),
            (
                b"\x90Opus",
                {
                    "audiocodecid": 0x4F707573,
                    "audiosamplerate": 48000,
                    "audiosamplesize": 16,
                },
            ),
            (b"\x91Opus" + BODY, {"audiocodecid": 0x4F707573}),
            (b"\x94Opus\x00\x08", {"audiocodecid": 0x4F707573}),
            (b"\x90fLaC" + FLAC_44100, sound(0x664C6143, 44100, 2, None)),
            # As FFmpeg 8.1 writes it: without the signature and the block's header.
            (b"\x90fLaC" + FLAC_44100[8:], sound(0x664C6143, 44100, 2, None)),
            (b"\x90fLaC" + FLAC_44100[8:-1], {"audiocodecid": 0x664C6143}),
            (b"\x90fLaC" + FLAC_44100[8:] + b"x", {"audiocodecid": 0x664C6143}),
            (b"\x90fLaC" + BODY, {"audiocodecid": 0x664C6143}),
            (b"\x91ac-3" + BODY, {"audiocodecid": 0x61632D33}),
            (b"\x95\xf1Opus" + BODY, {}),
        ],
    )
    def test_otherPayloads(self, payload, facts):
        assert audioFacts(payload) == facts
