"""Recordings: what is in the files, whatever clock and encoder do."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest
from recordingkit import (
    MIB,
    LogLines,
    World,
    aacHeader,
    asTags,
    audio,
    avcHeader,
    gop,
    headOf,
    makeStream,
    metadata,
    play,
    readTags,
    video,
)
from rtmpclient import AVC_HEADER, AVC_KEY_FRAME, VIDEO
from zope.interface.verify import verifyObject

from twisted_rtmp import disk
from twisted_rtmp.flv.early import EARLY_MESSAGES
from twisted_rtmp.flv.head import HEAD_SIZE
from twisted_rtmp.interfaces import IMediaSink, ISinkFactory
from twisted_rtmp.recording import recorder
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.messages import Message


@pytest.fixture
def lines():
    with LogLines("twisted_rtmp.recording") as log:
        yield log.lines


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "record")


def test_interfaces(world):
    assert verifyObject(ISinkFactory, world.recordings)
    sink = world.recordings.openSink(makeStream())
    assert verifyObject(IMediaSink, sink)


def test_everythingIsInTheFile(world, lines):
    stream = world.stream()
    messages = [
        avcHeader(1000),
        aacHeader(1000),
        *gop(1000),
        Message(8, 1400, 1, b""),
        Message(9, 1401, 1, b"\xff\xff unknown"),
        Message(18, 1402, 1, amf0.encode("onCuePoint", {"name": "x"})),
        *gop(1410),
    ]
    play(stream, [metadata(990, width=1.0, framerate=25.0, duration=0.0), *messages])
    world.tick()
    assert len(readTags(world.path())) == len(messages) + 1, "also before the end"
    play(stream, gop(2000))
    assert stream.end().called
    path = world.path()
    assert path == world.folder / "live" / "test-20261123T093829Z.flv"
    tags = readTags(path)
    assert asTags(tags[1:]) == asTags([*messages, *gop(2000)], 1000)
    head = headOf(path)
    assert head["framerate"] == 25
    assert (head["width"], head["height"]) == (320, 240)
    assert (head["videocodecid"], head["audiocodecid"]) == (7, 10)
    assert head["audiosamplerate"] == 44100
    assert head["duration"] == head["lasttimestamp"] == 1.367
    assert head["filesize"] == path.stat().st_size
    assert head["hasVideo"]
    assert head["hasAudio"]
    assert head["hasKeyframes"]
    assert head["keyframes"]["times"] == [0, 0.41, 1]
    data = path.read_bytes()
    for position in head["keyframes"]["filepositions"]:
        position = int(position)
        assert data[position] == 9
        assert data[position + 11] == 0x17
    ledger = stream.ledger
    assert ledger.lost == 0
    assert repr(ledger.written["recording"]) == repr(ledger.received)
    assert lines == [
        f"Recording live/test to {path}",
        f"Recorded live/test: {path}, 1.367 s, {len(data)} bytes",
    ]
    (finished,) = world.finished
    assert (finished.path, finished.size) == (str(path), len(data))
    assert (finished.application, finished.name) == ("live", "test")
    assert finished.duration == 1.367
    assert finished.finished
    assert world.recordings.recorders == set()
    assert world.recordings.stop().called
    assert world.clock.getDelayedCalls() == []


def test_messagesWaitForTheTick(world):
    streams = [world.stream(name=f"s{n}") for n in range(20)]
    for stream in streams:
        stream.messageReceived(audio(0))
    world.tick(0.1)
    for stream in streams:
        stream.messageReceived(audio(100))
    world.tick(0.09)
    assert world.paths() == []
    world.tick(0.02)
    assert world.pool.handOvers == 1
    assert [len(readTags(path)) for path in world.paths()] == [3] * 20


def test_muchIsWrittenAtOnce(world):
    stream = world.stream()
    stream.messageReceived(video(0, True, MIB // 2))
    assert world.pool.handOvers == 0
    stream.messageReceived(video(40, size=MIB // 2))
    assert world.pool.handOvers == 1
    assert len(readTags(world.path())) == 3


def test_theFileIsWholeAfterEveryBatch(world):
    stream = world.stream()
    stream.messageReceived(audio(0))
    world.tick()
    path = world.path()
    assert path.read_bytes()[4] == 4, "audio only, so far"
    seen = 1
    for n in range(1, 50):
        stream.messageReceived(video(40 * n, key=n == 1))
        stream.messageReceived(audio(40 * n))
        seen += 2
        world.tick()
        assert len(readTags(path)) == seen + 1
        assert path.read_bytes()[4] == 5
    stream.end()
    assert len(readTags(path)) == seen + 1


def test_onlyTheNewestEarlyMetadataIsTaken(world):
    stream = world.stream()
    late = metadata(40, c=3.0)
    play(stream, [metadata(0, a=1.0), metadata(0, b=2.0), avcHeader(), video(0, True)])
    play(stream, [late, video(80)])
    stream.end()
    tags = readTags(world.path())
    head = headOf(world.path())
    assert "a" not in head
    assert head["b"] == 2
    assert [tag.payload for tag in tags if tag.typeId == 18][1:] == [late.payload]
    assert repr(stream.ledger.written["recording"]) == repr(stream.ledger.received)


def test_metadataThatDoesNotFitIsKeptAsItCame(world):
    stream = world.stream()
    large = metadata(0, text="x" * 20_000)
    play(stream, [large, video(0, True), video(40)])
    stream.end()
    tags = readTags(world.path())
    assert [tag.payload for tag in tags[1:2]] == [large.payload]
    assert "text" not in headOf(world.path())
    assert stream.ledger.written["recording"].data == 1


def test_withoutMediaThereIsNoFile(world, lines):
    stream = world.stream()
    play(stream, [metadata(), metadata(a=2.0), avcHeader(), aacHeader()])
    play(stream, [Message(18, 0, 1, amf0.encode("onCuePoint", {"name": "x"}))])
    world.tick(1)
    assert stream.end().called
    assert world.paths() == []
    assert lines == []
    assert stream.ledger.discarded == {"no media": 5}
    assert world.recordings.recorders == set()


def test_whatComesBeforeTheFirstFrameIsInTheFile(world):
    early = [
        Message(18, 100 + n, 1, amf0.encode("onCuePoint", {"name": f"{n}"}))
        for n in range(EARLY_MESSAGES - 2)
    ]
    stream = world.stream()
    play(stream, [avcHeader(100), *early, aacHeader(400)])
    world.tick(8)
    play(stream, gop(400))
    stream.end()
    tags = readTags(world.path())
    assert asTags(tags[1:]) == asTags(
        [avcHeader(100), *early, aacHeader(400), *gop(400)], 100
    )
    assert stream.ledger.lost == 0


def test_endlessDataBeforeTheFirstFrameAreCounted(world):
    stream = world.stream()
    play(stream, [metadata(b=3.0), avcHeader(), aacHeader()])
    cue = amf0.encode("onCuePoint", {"name": "x" * 1000})
    play(stream, [Message(18, 0, 1, cue) for _ in range(5000)])
    play(stream, gop(0))
    stream.end()
    tags = readTags(world.path())
    assert [tag.payload for tag in tags[1:3]] == [
        avcHeader().payload,
        aacHeader().payload,
    ]
    assert headOf(world.path())["b"] == 3
    ledger = stream.ledger
    assert list(ledger.discarded) == ["before any media"]
    assert 4700 < ledger.lost < 5003
    # The headers are written, though they were counted as lost when they came.
    written = ledger.written["recording"].messages
    assert written + ledger.lost == ledger.received.messages


def test_aSinkAddedLateStartsAtZero(world):
    stream = makeStream(clock=world.clock)
    play(stream, [metadata(width=7.0), avcHeader(), video(0, True)])
    world.clock.advance(3600)
    stream.addSink(world.recordings.openSink(stream), "recording")
    play(stream, gop(3_600_000, 3))
    stream.end()
    tags = readTags(world.path())
    assert [tag.timestamp for tag in tags] == [0, 0, 0, 7, 40, 47, 80, 87]
    assert tags[1].payload == avcHeader().payload


def test_rotationByTime(tmp_path):
    world = World(tmp_path, rotateSeconds=2)
    stream = world.stream()
    play(stream, [metadata(encoder="x"), avcHeader(), aacHeader()])
    messages = [m for n in range(10) for m in gop(400 * n)]
    for n, message in enumerate(messages):
        stream.messageReceived(message)
        if not n % 7:
            world.tick(0.1)
    world.clock.advance(1)
    stream.end()
    paths = [Path(f.path) for f in world.finished]
    assert len(paths) == 2
    frames = []
    for number, path in enumerate(paths):
        tags = readTags(path)
        assert [t.payload for t in tags[1:3]] == [
            avcHeader().payload,
            aacHeader().payload,
        ]
        assert tags[3].payload[0] == 0x17
        assert tags[3].timestamp == 0
        head = headOf(path)
        assert head["encoder"] == "x"
        assert head["width"] == 320
        assert head["duration"] == pytest.approx(1.967)
        assert len(head["keyframes"]["times"]) == 5
        assert path.name.startswith("test-2026")
        frames += asTags(tags[3:], -2000 * number)
    assert frames == asTags(messages)
    ledger = stream.ledger
    assert repr(ledger.written["recording"]) == repr(ledger.received)
    assert world.clock.getDelayedCalls() == []


def test_rotationBySize(tmp_path):
    world = World(tmp_path, rotateBytes=HEAD_SIZE + 30_000)
    stream = world.stream()
    messages = [video(40 * n, key=not n % 10, size=1000) for n in range(100)]
    for message in messages:
        stream.messageReceived(message)
        world.tick(0.04)
    stream.end()
    frames = []
    for finished in world.finished[:-1]:
        assert HEAD_SIZE + 30_000 <= finished.size <= HEAD_SIZE + 42_000
    for finished in world.finished:
        tags = readTags(finished.path)
        assert tags[1].payload[0] == 0x17
        frames += [tag.payload for tag in tags[1:]]
    assert len(world.finished) == 4
    assert frames == [m.payload for m in messages]


def test_rotationWithoutVideo(tmp_path):
    world = World(tmp_path, rotateSeconds=1)
    stream = world.stream()
    play(stream, [aacHeader()])
    for n in range(150):
        stream.messageReceived(audio(20 * n))
        world.tick(0.02)
    stream.end()
    assert [f.duration for f in world.finished] == [0.98, 0.98, 0.98]
    for finished in world.finished:
        assert readTags(finished.path)[1].payload == aacHeader().payload
    assert stream.ledger.written["recording"].audio == 150


def test_rotationWaitsForAKeyFrame(tmp_path):
    world = World(tmp_path, rotateSeconds=0.1, rotateBytes=1)
    stream = world.stream()
    play(stream, gop(0, 50))
    world.tick()
    play(stream, [m for m in gop(2000, 50) if m.payload[0] != 0x17])
    stream.end()
    assert len(world.finished) == 1
    # Where the video has ended, audio does not wait for it for ever.
    world = World(tmp_path / "2", rotateSeconds=1)
    stream = world.stream()
    play(stream, gop(0))
    for n in range(1000):
        stream.messageReceived(audio(400 + 20 * n))
        world.tick(0.02)
    stream.end()
    assert len(world.finished) > 5


def test_sameSecondTwice(world):
    first, second = world.stream(), world.stream()
    first.messageReceived(audio(0))
    second.messageReceived(audio(0))
    first.end()
    second.end()
    assert [p.name for p in world.paths()] == [
        "test-20261123T093829Z-1.flv",
        "test-20261123T093829Z.flv",
    ]


def test_timestampsThatStartAgain(world):
    stream = world.stream()
    sink = next(iter(world.recordings.recorders))
    play(stream, gop(50_000))
    world.tick()
    play(stream, gop(0))
    stream.end()
    assert (sink.timelineBreaks, stream.ledger.clockBreaks) == (0, 1)
    times = [tag.timestamp for tag in readTags(world.path())[1:]]
    assert times == sorted(times)
    assert len(times) == 40
    assert stream.ledger.lost == 0


def test_shortFilesTakeLittleSpace(world):
    for number in range(50):
        stream = world.stream(name=f"s{number}")
        stream.messageReceived(audio(0))
        world.tick()
        stream.end()
    assert len(world.paths()) == 50
    for path in world.paths():
        assert path.stat().st_blocks * 512 <= 16 * 1024
        assert headOf(path)["hasAudio"]


def test_recorderDoesNotKnowTheProtocol():
    for module in (disk, recorder):
        source = Path(module.__file__).read_text()
        assert "twisted_rtmp.protocol" not in source
        assert "twisted_rtmp.factory" not in source


def test_whatWasRecordedIsFreeWithoutACollection(tmp_path):
    """A few streams' sequence headers, kept until a collection, were many MiB."""
    world = World(tmp_path)
    payload = AVC_HEADER + bytes(10_000)
    own = sys.getrefcount(payload)
    stream = world.stream()
    stream.messageReceived(Message(VIDEO, 0, 1, payload))
    stream.messageReceived(Message(VIDEO, 0, 1, AVC_KEY_FRAME))
    world.tick()
    assert sys.getrefcount(payload) > own
    gc.disable()
    try:
        stream.end()
        world.tick()
        assert world.finished
        stream.forget()
        del stream
        assert sys.getrefcount(payload) == own
    finally:
        gc.enable()
