"""Recordings of enhanced streams: every codec, every track, and after a crash."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from recordingkit import (
    AVC_CONFIGURATION,
    World,
    aacHeader,
    asTags,
    audio,
    avcHeader,
    headOf,
    metadata,
    readTags,
    video,
)

from twisted_rtmp.flv import tags as flv
from twisted_rtmp.recording.repair import PREFIX_BYTES, repair
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.constants import NEED_DATA
from twisted_rtmp.wire.messages import Message

#: x265's and SVT-AV1's, for 160x120.
HEVC_CONFIGURATION = bytes.fromhex(
    "0101600000009000000000001ef000fcfdf8f800000f03200001001840010c01ffff016000000300"
    "90000003000003001e959809210001002842010101600000030090000003000003001ea014207965"
    "959a4932b9a0200000030020000003032122000100074401c172b46240"
)
AV1_CONFIGURATION = bytes.fromhex("81000c000a0a00000003b4ff700be001")
#: By the tables of ISO/IEC 14496-15, without parameter sets.
VVC_CONFIGURATION = bytes.fromhex("ff00111f010233800000a0007800000080")
VP9_CONFIGURATION = bytes.fromhex("01000000000a8202020200000000")
#: The beginnings of key frames of 160x120.
VP8_KEY_FRAME = bytes.fromhex("5012009d012aa040788000")
VP9_KEY_FRAME = bytes.fromhex("824983425009f0077080")

COLOR_INFO = amf0.encode("colorInfo", {"colorConfig": {"bitDepth": 10.0}})


class Codec(NamedTuple):
    """
    What an encoder sends of a codec.

    @ivar configuration: empty if it has none.
    @ivar keyFrame: how a key frame begins.
    @ivar facts: what the head of a file says.
    """

    fourCC: str
    configuration: bytes
    keyFrame: bytes = b""
    facts: dict[str, float] = {}  # noqa: RUF012  never changed


SIZE = {"width": 160, "height": 120}
VIDEO = [
    Codec("avc1", AVC_CONFIGURATION, b"", {"width": 320, "height": 240}),
    Codec("hvc1", HEVC_CONFIGURATION, b"", SIZE),
    Codec("vvc1", VVC_CONFIGURATION, b"", SIZE),
    Codec("av01", AV1_CONFIGURATION, b"", SIZE),
    # The sequence header is optional in the configuration.
    Codec("av01", AV1_CONFIGURATION[:4], AV1_CONFIGURATION[4:], SIZE),
    Codec("vp09", VP9_CONFIGURATION, VP9_KEY_FRAME, SIZE),
    Codec("vp09", b"", VP9_KEY_FRAME, SIZE),
    Codec("vp08", b"", VP8_KEY_FRAME, SIZE),
    Codec("xyz9", b"configuration"),
]
OPUS_HEAD = b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0"
STREAM_INFO = bytes.fromhex("120012000000000000000ac442f0") + bytes(20)
AUDIO = [
    Codec("mp4a", b"\x12\x10", b"", {"audiosamplerate": 44100, "audiochannels": 2}),
    Codec("Opus", OPUS_HEAD, b"", {"audiosamplerate": 48000, "audiochannels": 2}),
    Codec("fLaC", STREAM_INFO, b"", {"audiosamplerate": 44100, "audiochannels": 2}),
    Codec("ac-3", b""),
    Codec("ec-3", b""),
    Codec(".mp3", b""),
    Codec("xyz9", b"configuration"),
]

TIMED = ("avc1", "hvc1", "vvc1")


def number(name: str) -> int:
    """A FourCC as onMetaData has it."""
    return int.from_bytes(name.encode(), "big")


def body(timestamp: int, size: int) -> bytes:
    return bytes((timestamp * 7 + n) & 0xFF for n in range(size))


def enhanced(
    typeId: int,
    timestamp: int,
    packetType: int,
    codec: str,
    data: bytes,
    *,
    key: bool = False,
    track: int | None = None,
) -> Message:
    """One track, numbered or not."""
    high = (0x90 if key else 0xA0) if typeId == 9 else 0x90
    name = codec.encode()
    if track is None:
        return Message(typeId, timestamp, 1, bytes((high | packetType,)) + name + data)
    multitrack = high | (6 if typeId == 9 else 5)
    start = bytes((multitrack, packetType)) + name + bytes((track,))
    return Message(typeId, timestamp, 1, start + data)


def header(
    typeId: int, codec: Codec, timestamp: int = 0, track: int | None = None
) -> Message:
    data = codec.configuration
    return enhanced(typeId, timestamp, 0, codec.fourCC, data, key=True, track=track)


def picture(
    codec: Codec, timestamp: int, *, key: bool = False, track: int | None = None
) -> Message:
    """A frame, some of them with a composition time."""
    packetType, time = 3, b""
    if timestamp % 80:
        packetType, time = 1, b"\0\0\x28" if codec.fourCC in TIMED else b""
    data = time + (codec.keyFrame if key else b"") + body(timestamp, 300)
    return enhanced(9, timestamp, packetType, codec.fourCC, data, key=key, track=track)


def sound(codec: Codec, timestamp: int, track: int | None = None) -> Message:
    return enhanced(8, timestamp, 1, codec.fourCC, body(timestamp, 30), track=track)


def publication(videoCodec: Codec | None, audioCodec: Codec | None) -> list[Message]:
    """Four seconds, 25 frames and one key frame a second."""
    messages = [metadata(encoder="x")]
    for typeId, codec in ((9, videoCodec), (8, audioCodec)):
        if codec is not None and codec.configuration:
            messages.append(header(typeId, codec))
    if videoCodec is not None:
        color = enhanced(9, 0, 4, videoCodec.fourCC, COLOR_INFO)
        messages.append(color)
    for time in range(0, 4000, 40):
        if videoCodec is not None:
            messages.append(picture(videoCodec, time, key=not time % 1000))
        if audioCodec is not None:
            messages.append(sound(audioCodec, time + 5))
    return messages


def tagsWithPositions(path: Path) -> list[tuple[int, Message]]:
    reader = flv.FLVReader()
    reader.feed(Path(path).read_bytes())
    return [(reader.tagOffset, tag) for tag in iter(reader.nextTag, NEED_DATA)]


def indexed(path: Path) -> list[tuple[float, bytes]]:
    """The times of the index, and the first bytes of the tags that it points at."""
    keyframes = headOf(path)["keyframes"]
    found = dict(tagsWithPositions(path))
    return [
        (time, found[int(position)].payload[:7])
        for time, position in zip(
            keyframes["times"], keyframes["filepositions"], strict=True
        )
    ]


def recordAll(world: World, messages: list[Message]):
    """Record a publication, as time goes by."""
    stream = world.stream()
    for message in messages:
        world.clock.advance(max(0, message.timestamp / 1000 - world.clock.seconds()))
        stream.messageReceived(message)
    # What the disk has before the end, as a crash would leave it.
    world.tick()
    finished = {Path(file.path) for file in world.finished}
    crashed = {
        path: path.read_bytes() for path in world.paths() if path not in finished
    }
    stream.end()
    return stream, crashed


def assertRepaired(crashed: dict[Path, bytes], folder: Path) -> None:
    """The repair command makes of a crashed file what it would have become."""
    assert crashed
    for path, data in crashed.items():
        copy = folder / "crashed.flv"
        copy.write_bytes(data)
        assert repair(str(copy)).changed
        assert copy.read_bytes() == path.read_bytes()


PAIRS = [
    *((codec, AUDIO[n % len(AUDIO)]) for n, codec in enumerate(VIDEO)),
    *((None, codec) for codec in AUDIO),
]


@pytest.mark.parametrize(("videoCodec", "audioCodec"), PAIRS)
def test_everyCodec(tmp_path, videoCodec, audioCodec):
    world = World(tmp_path / "record")
    messages = publication(videoCodec, audioCodec)
    stream, crashed = recordAll(world, messages)
    path = world.path()
    assert asTags(readTags(path)[1:]) == asTags(messages[1:], messages[1].timestamp)
    head = headOf(path)
    assert head["encoder"] == "x"
    for name, codec in (("videocodecid", videoCodec), ("audiocodecid", audioCodec)):
        if codec is None:
            assert name not in head
        else:
            assert head[name] == number(codec.fourCC)
            assert head.items() >= codec.facts.items()
    assert head["hasVideo"] == (videoCodec is not None)
    assert head["hasAudio"]
    if videoCodec is not None:
        times = [time for time, first in indexed(path) if first[0] & 0xF0 == 0x90]
        assert times == [0, 1, 2, 3]
        assert len(head["keyframes"]["times"]) == 4
    assert repr(stream.ledger.written["recording"]) == repr(stream.ledger.received)
    assertRepaired(crashed, tmp_path)


def isHeader(message: Message) -> bool:
    low = message.payload[0] & 15
    return message.typeId != 18 and (low == 0 or (message.typeId == 9 and low == 4))


@pytest.mark.parametrize(("videoCodec", "audioCodec"), PAIRS)
def test_everyCodecIsCut(tmp_path, videoCodec, audioCodec):
    world = World(tmp_path / "record", rotateSeconds=1.5)
    messages = publication(videoCodec, audioCodec)
    stream, crashed = recordAll(world, messages)
    headers = [m.payload for m in messages if isHeader(m)]
    frames = []
    for file in world.finished:
        tags = readTags(file.path)[1:]
        assert [t.payload for t in tags[: len(headers)]] == headers
        first = tags[len(headers)]
        if videoCodec:
            assert first.payload[0] & 0xF0 == 0x90
            assert first.timestamp == 0
        frames += [(t.typeId, t.payload) for t in tags[len(headers) :]]
        head = headOf(file.path)
        assert head["encoder"] == "x"
        for codec in (videoCodec, audioCodec):
            if codec is not None:
                assert head.items() >= codec.facts.items()
    # At key frames, which are a second apart; audio alone is cut at any frame.
    assert len(world.finished) == (2 if videoCodec else 3)
    assert frames == [(m.typeId, m.payload) for m in messages[1:] if not isHeader(m)]
    assert repr(stream.ledger.written["recording"]) == repr(stream.ledger.received)
    assertRepaired(crashed, tmp_path)


# -- tracks ------------------------------------------------------------------

AVC, HEVC = VIDEO[0], VIDEO[1]
AAC, OPUS = AUDIO[0], AUDIO[1]


def numbered(*, plain: bool, shuffled: bool = False) -> list[Message]:
    """
    Two video and three audio tracks.  Track 1 has a key frame each 400 ms, track 0 one
    a second.

    @param plain: whether the first tracks have no number, as OBS and FFmpeg send them.
    @param shuffled: whether the others come before them.
    """
    first = None if plain else 0
    messages = [
        header(9, AVC, 0, first),
        header(9, HEVC, 0, 1),
        header(8, AAC, 0, first),
        header(8, OPUS, 0, 1),
        header(8, AAC, 0, 7),
    ]
    if shuffled:
        messages.reverse()
    for time in range(0, 4000, 40):
        frames = [
            picture(AVC, time, key=not time % 1000, track=first),
            picture(HEVC, time, key=not time % 400, track=1),
            sound(AAC, time, first),
            sound(OPUS, time, 1),
            sound(AAC, time, 7),
        ]
        if shuffled:
            frames.reverse()
        messages += frames
    return messages


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("shuffled", [True, False])
def test_theFirstTrackIsIndexed(tmp_path, plain, shuffled):
    world = World(tmp_path / "record")
    messages = numbered(plain=plain, shuffled=shuffled)
    stream, crashed = recordAll(world, messages)
    path = world.path()
    assert asTags(readTags(path)[1:]) == asTags(messages)
    assert [time for time, _ in indexed(path)] == [0, 1, 2, 3]
    for _, first in indexed(path):
        assert first[2 if not plain else 1 :][:4] == b"avc1"
    head = headOf(path)
    assert head["videocodecid"] == number("avc1")
    assert head["audiocodecid"] == number("mp4a")
    assert (head["width"], head["audiosamplerate"]) == (320, 44100)
    assert repr(stream.ledger.written["recording"]) == repr(stream.ledger.received)
    assertRepaired(crashed, tmp_path)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("shuffled", [True, False])
def test_theFirstTrackIsCut(tmp_path, plain, shuffled):
    world = World(tmp_path / "record", rotateSeconds=0.9)
    messages = numbered(plain=plain, shuffled=shuffled)
    stream, crashed = recordAll(world, messages)
    headers = sorted(m.payload for m in messages[:5])
    frames = []
    for file in world.finished:
        tags = readTags(file.path)[1:]
        assert sorted(t.payload for t in tags[:5]) == headers
        if len(frames):
            assert tags[5].payload[0] >> 4 == 9
            assert b"avc1" in tags[5].payload[:6]
        frames += [(t.typeId, t.payload) for t in tags[5:]]
    assert len(world.finished) == 4
    assert frames == [(m.typeId, m.payload) for m in messages[5:]]
    assert repr(stream.ledger.written["recording"]) == repr(stream.ledger.received)
    assertRepaired(crashed, tmp_path)


def test_withoutTheFirstTrackTheLowestLeads(tmp_path):
    world = World(tmp_path / "record", rotateSeconds=1.5)
    messages = [header(9, HEVC, 0, 5), header(9, AVC, 0, 3)]
    for time in range(0, 4000, 40):
        messages += [
            picture(HEVC, time, key=not time % 400, track=5),
            picture(AVC, time, key=not time % 1000, track=3),
        ]
    recordAll(world, messages)
    assert [file.duration for file in world.finished] == [2.0, 1.96]
    for file in world.finished:
        assert [time for time, _ in indexed(file.path)] == [0, 1]
        assert all(first[6] == 3 for _, first in indexed(file.path))


def many(typeId: int, packetType: int, codec: str, key: bool, *tracks: bytes):
    """ManyTracks: one codec."""
    high = (0x90 if key else 0xA0) | 6 if typeId == 9 else 0x95
    payload = bytes((high, 0x10 | packetType)) + codec.encode()
    for index, track in enumerate(tracks):
        payload += bytes((index,)) + len(track).to_bytes(3, "big") + track
    return payload


def test_severalTracksInAMessage(tmp_path, monkeypatch):
    monkeypatch.setattr("twisted_rtmp.recording.repair.HEADER_BYTES", 32 * 1024)
    world = World(tmp_path / "record", rotateSeconds=1.5)
    configuration = HEVC_CONFIGURATION + bytes(40_000)  # more than repair looks at
    headers = [
        Message(9, 0, 1, many(9, 0, "hvc1", True, configuration, HEVC_CONFIGURATION)),
        Message(8, 0, 1, many(8, 0, "Opus", True, OPUS_HEAD, OPUS_HEAD)),
    ]
    messages = list(headers)
    for time in range(0, 4000, 40):
        pictures = [body(time + n, 300) for n in range(2)]
        sounds = [body(time + n, PREFIX_BYTES) for n in range(2)]
        messages += [
            Message(9, time, 1, many(9, 3, "hvc1", not time % 1000, *pictures)),
            Message(8, time, 1, many(8, 1, "Opus", False, *sounds)),
        ]
    stream, crashed = recordAll(world, messages)
    assert len(world.finished) == 2
    for file in world.finished:
        assert [t.payload for t in readTags(file.path)[1:3]] == [
            m.payload for m in headers
        ]
        assert [time for time, _ in indexed(file.path)] == [0, 1]
        head = headOf(file.path)
        assert head["videocodecid"] == number("hvc1")
        assert (head["width"], head["audiosamplerate"]) == (160, 48000)
    assert repr(stream.ledger.written["recording"]) == repr(stream.ledger.received)
    assertRepaired(crashed, tmp_path)


# -- HEVC before it had a FourCC ---------------------------------------------


def legacyHEVC(timestamp: int, packetType: int, data: bytes, key: bool) -> Message:
    start = bytes((0x1C if key else 0x2C, packetType, 0, 0, 40))
    return Message(9, timestamp, 1, start + data)


def test_legacyHEVC(tmp_path):
    """Cameras and CDNs send it with codec id 12, framed like AVC."""
    world = World(tmp_path / "record", rotateSeconds=1.5)
    headers = [legacyHEVC(0, 0, HEVC_CONFIGURATION, True), aacHeader()]
    messages = list(headers)
    for time in range(0, 4000, 40):
        messages += [
            legacyHEVC(time, 1, body(time, 300), not time % 1000),
            audio(time),
        ]
    messages.append(Message(9, 3960, 1, b"\x1c\x02\0\0\0"))
    stream, crashed = recordAll(world, messages)
    assert stream.ledger.received.video == 100
    tags = []
    for file in world.finished:
        assert [t.payload for t in readTags(file.path)[1:3]] == [
            m.payload for m in headers
        ]
        tags += [(t.typeId, t.payload) for t in readTags(file.path)[3:]]
        assert [time for time, first in indexed(file.path)] == [0, 1]
        assert {first[:2] for _, first in indexed(file.path)} == {b"\x1c\x01"}
        head = headOf(file.path)
        assert (head["videocodecid"], head["width"], head["height"]) == (12, 160, 120)
    assert len(world.finished) == 2
    assert tags == [(m.typeId, m.payload) for m in messages[2:]]
    assert repr(stream.ledger.written["recording"]) == repr(stream.ledger.received)
    assertRepaired(crashed, tmp_path)


def test_videoThatBeginsWithoutAKeyFrame(tmp_path):
    """The audio's entries make room for the key frames', as repair has it."""
    world = World(tmp_path / "record")
    messages = [avcHeader(), aacHeader()]
    messages += [audio(time) for time in range(0, 12_000, 20)]
    messages += [
        video(time, key=time in (13_000, 14_000)) for time in range(12_000, 15_000, 40)
    ]
    _, crashed = recordAll(world, messages)
    assert headOf(world.path())["keyframes"]["times"] == [13, 14]
    assertRepaired(crashed, tmp_path)
