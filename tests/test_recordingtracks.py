"""Recordings with a file for each further track."""

from __future__ import annotations

import errno
import re
import subprocess
from pathlib import Path

import pytest
from recordingkit import (
    World,
    aacHeader,
    asTags,
    audio,
    avcHeader,
    headOf,
    makeFLV,
    messagesOf,
    metadata,
    play,
    readTags,
    video,
)
from serverprocess import ROOT, program
from tapkit import parse, refused
from test_recordingcodecs import (
    AAC,
    AVC,
    COLOR_INFO,
    HEVC,
    HEVC_CONFIGURATION,
    OPUS,
    OPUS_HEAD,
    body,
    enhanced,
    header,
    many,
    number,
    numbered,
    picture,
    publication,
    sound,
)
from zope.interface.verify import verifyObject

from twisted_rtmp.disk import file as diskFile
from twisted_rtmp.interfaces import IMediaSink
from twisted_rtmp.media.parts import splitTracks, toLegacy
from twisted_rtmp.recording import RecordName, TrackFiles
from twisted_rtmp.recording.repair import repair
from twisted_rtmp.recording.trackfiles import MAX_TRACK_FILES
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.messages import Message

BASE = "test-20261123T093829Z"


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "record", tracks=TrackFiles.SEPARATE)


def send(world: World, stream, messages: list[Message]) -> None:
    """Publish, as time goes by."""
    for message in messages:
        world.clock.advance(max(0, message.timestamp / 1000 - world.clock.seconds()))
        stream.messageReceived(message)


def plain(messages: list[Message], typeId: int, track: int) -> list[tuple]:
    """What a file of one track has of messages, by its own reading of them."""
    found = []
    for message in messages:
        if message.typeId != typeId:
            continue
        for each in splitTracks(typeId, message.payload):
            if each.trackId == track:
                legacy = toLegacy(typeId, each.payload)
                payload = each.payload if legacy is None else legacy
                found.append((typeId, message.timestamp, payload))
                assert (legacy is None) == (each.codec in ("hvc1", "Opus"))
    return found


def tagsOf(world: World, name: str) -> list[tuple[int, int, bytes]]:
    return asTags(readTags(world.folder / "live" / f"{name}.flv")[1:])


def names(world: World) -> list[str]:
    return sorted(path.stem for path in world.paths())


def assertBooked(stream) -> None:
    """Every message has been written once, or lost once."""
    ledger = stream.ledger
    written, received = ledger.written["recording"], ledger.received
    assert written.messages + ledger.lost == received.messages
    if not ledger.lost:
        assert repr(written) == repr(received)


def test_interface(world):
    assert verifyObject(IMediaSink, world.recordings.openSink(world.stream()))


def test_anOrdinaryStreamHasOneFile(world, tmp_path):
    messages = publication(AVC, OPUS)
    stream = world.stream()
    send(world, stream, messages)
    stream.end()
    assert names(world) == [BASE]
    together = World(tmp_path / "together")
    other = together.stream()
    send(together, other, messages)
    other.end()
    assert world.path().read_bytes() == together.path().read_bytes()
    assertBooked(stream)


@pytest.mark.parametrize("unnumbered", [True, False])
@pytest.mark.parametrize("shuffled", [True, False])
def test_eachTrackHasAFile(world, unnumbered, shuffled):
    messages = [metadata(encoder="x")]
    messages += numbered(plain=unnumbered, shuffled=shuffled)
    stream = world.stream()
    send(world, stream, messages)
    assert stream.end().called
    assert names(world) == sorted(
        [BASE, *(f"{BASE}.{track}" for track in ("video1", "audio1", "audio7"))]
    )
    first = tagsOf(world, BASE)
    for typeId, track in ((9, 1), (8, 1), (8, 7)):
        kind = "video" if typeId == 9 else "audio"
        assert tagsOf(world, f"{BASE}.{kind}{track}") == plain(messages, typeId, track)
    for typeId in (8, 9):
        of = [tag for tag in first if tag[0] == typeId]
        if unnumbered:  # as it came
            assert of == [
                (m.typeId, m.timestamp, m.payload)
                for m in messages
                if m.typeId == typeId
                and m.payload[0] & 0x0F != (6 if typeId == 9 else 5)
            ]
        else:
            assert of == plain(messages, typeId, 0)
            assert {tag[2][0] & 0x0F for tag in of} == {7 if typeId == 9 else 15}
    heads = {
        name: headOf(world.folder / "live" / f"{name}.flv") for name in names(world)
    }
    assert heads[BASE]["encoder"] == "x"
    assert "encoder" not in heads[f"{BASE}.audio1"]
    assert heads[BASE]["videocodecid"] == (number("avc1") if unnumbered else 7)
    assert heads[f"{BASE}.video1"]["videocodecid"] == number("hvc1")
    assert heads[f"{BASE}.video1"]["width"] == 160
    assert heads[f"{BASE}.video1"]["hasAudio"] is False
    assert len(heads[f"{BASE}.video1"]["keyframes"]["times"]) == 10
    assert heads[f"{BASE}.audio1"]["audiocodecid"] == number("Opus")
    assert heads[f"{BASE}.audio7"]["audiocodecid"] == 10
    assert {f.track for f in world.finished} == {"", "video1", "audio1", "audio7"}
    assert {(f.application, f.name) for f in world.finished} == {("live", "test")}
    assertBooked(stream)
    assert world.recordings.recorders == set()
    assert world.recordings.stop().called
    assert world.clock.getDelayedCalls() == []


def test_tracksOfOneMessage(world):
    headers = [
        Message(
            9, 0, 1, many(9, 0, "hvc1", True, HEVC_CONFIGURATION, HEVC_CONFIGURATION)
        ),
        Message(8, 0, 1, many(8, 0, "Opus", True, OPUS_HEAD, OPUS_HEAD, OPUS_HEAD)),
    ]
    messages = list(headers)
    for time in range(0, 2000, 40):
        pictures = [body(time + n, 300) for n in range(2)]
        sounds = [body(time + n, 40) for n in range(3)]
        messages += [
            Message(9, time, 1, many(9, 3, "hvc1", not time % 1000, *pictures)),
            Message(8, time, 1, many(8, 1, "Opus", False, *sounds)),
        ]
    stream = world.stream()
    send(world, stream, messages)
    stream.end()
    assert len(names(world)) == 4
    for typeId, track in ((9, 1), (8, 1), (8, 2)):
        kind = "video" if typeId == 9 else "audio"
        assert tagsOf(world, f"{BASE}.{kind}{track}") == plain(messages, typeId, track)
    assert (
        stream.ledger.received.video == stream.ledger.written["recording"].video == 50
    )
    assertBooked(stream)


def test_theFilesShareATimeLineAndAName(world):
    stream = world.stream()
    send(world, stream, [avcHeader(5000), video(5000, True)])
    messages = [video(time) for time in range(5040, 9000, 40)]
    messages += [header(8, OPUS, 9000, 1)]
    messages += [sound(OPUS, time, 1) for time in range(9000, 9200, 20)]
    send(world, stream, messages)
    stream.end()
    name = "test-20261123T093834Z"
    assert names(world) == [name, f"{name}.audio1"], "though it began 4 s later"
    assert tagsOf(world, f"{name}.audio1")[0][1] == 4000
    assert tagsOf(world, name)[-1][1] == 3960
    assertBooked(stream)


def test_anotherTrackMayComeFirst(world):
    stream = world.stream()
    send(world, stream, [sound(OPUS, 5000, 1), sound(OPUS, 6000, 2)])
    send(world, stream, [video(7000, True), sound(OPUS, 7000, 1), video(7040)])
    stream.end()
    name = "test-20261123T093834Z"
    assert names(world) == [name, f"{name}.audio1", f"{name}.audio2"]
    assert [time for _, time, _ in tagsOf(world, f"{name}.audio1")] == [0, 2000]
    assert [time for _, time, _ in tagsOf(world, f"{name}.audio2")] == [1000]
    assert [time for _, time, _ in tagsOf(world, name)] == [2000, 2040]
    assertBooked(stream)


def test_allFilesAreCutTogether(tmp_path):
    world = World(tmp_path, tracks=TrackFiles.SEPARATE, rotateSeconds=1.5)
    messages = [metadata(encoder="x"), *numbered(plain=True)]
    stream = world.stream()
    send(world, stream, messages)
    stream.end()
    tracks = {file.track for file in world.finished}
    assert tracks == {"", "video1", "audio1", "audio7"}
    for track in tracks:
        parts = [file for file in world.finished if file.track == track]
        assert len(parts) == 2
        second = readTags(parts[1].path)[1:]
        kinds = {tag.typeId for tag in second}
        # A header of each kind, and then a frame to begin with.
        assert all(tag.timestamp == 0 for tag in second[: len(kinds)])
        first = second[len(kinds)]
        if track in ("", "video1"):
            assert first.payload[0] & 0xF0 == 0x90
        # The key frames of track 1 are 400 ms apart: it is cut at its first one after
        # the stream's own at 2 s.
        assert first.timestamp == 0
        assert "encoder" not in headOf(parts[1].path) or not track
        stem = Path(parts[1].path).stem
        assert stem == f"test-20261123T093831Z{'.' if track else ''}{track}"
    media = [m for m in messages if m.typeId != 18]
    of = [f for f in world.finished if f.track == "audio7"]
    frames = [tag.payload for f in of for tag in readTags(f.path)[2:]]
    assert frames == [payload for *_, payload in plain(media, 8, 7)[1:]]
    assertBooked(stream)


def test_aTracksOwnKeyFrameIsWaitedFor(tmp_path):
    world = World(tmp_path, tracks=TrackFiles.SEPARATE, rotateSeconds=1)
    messages = [header(9, AVC), header(9, HEVC, 0, 1)]
    for time in range(0, 3000, 40):
        messages += [
            picture(AVC, time, key=not time % 1000),
            picture(HEVC, time, key=time in (0, 1520), track=1),
        ]
    stream = world.stream()
    send(world, stream, messages)
    stream.end()
    parts = [file for file in world.finished if file.track]
    # The stream's own files begin at 0, 1 and 2 s.
    assert [file.duration for file in parts] == [1.48, 1.96]
    second = readTags(parts[1].path)[1:]
    assert second[1].payload[0] & 0xF0 == 0x90
    assert second[1].timestamp == 520, "the time line of the stream's second file"
    assertBooked(stream)


def test_metadataOfATrack(world):
    info = {"1": {"width": 160.0, "videodatarate": 99.0}, "2": "x"}
    stream = world.stream()
    play(stream, [metadata(encoder="x", width=320.0, videoTrackIdInfoMap=info)])
    play(stream, [header(9, AVC), picture(AVC, 0, key=True)])
    for track in (1, 2):
        play(stream, [header(9, HEVC, 0, track)])
        play(stream, [picture(HEVC, 0, key=True, track=track)])
    stream.end()
    first, second = (
        headOf(world.folder / "live" / f"{BASE}.video{n}.flv") for n in (1, 2)
    )
    assert first["videodatarate"] == 99
    assert "videodatarate" not in second
    assert "encoder" not in first
    assertBooked(stream)


def test_unnumberedMetadataOfAnotherTrack(tmp_path):
    """FFmpeg sends the colorInfo of further tracks without their numbers."""
    world = World(tmp_path, tracks=TrackFiles.SEPARATE, rotateSeconds=1)
    color = enhanced(9, 0, 4, "hvc1", COLOR_INFO)
    stream = world.stream()
    play(stream, [header(9, AVC), header(9, HEVC, 0, 1), header(9, HEVC, 0, 2)])
    send(world, stream, [picture(AVC, 0, key=True), color])
    for time in range(0, 2000, 40):
        frames = [picture(AVC, time, key=not time % 1000)] if time else []
        frames += [picture(HEVC, time, key=not time % 1000, track=n) for n in (1, 2)]
        send(world, stream, frames)
    stream.end()
    assert len(world.finished) == 6
    for file in world.finished:
        payloads = [tag.payload for tag in readTags(file.path)]
        assert payloads.count(color.payload) == (file.track == "video1")
    assertBooked(stream)


def test_whatHasNoLegacyFormIsLeftOut(world):
    """Older players would take it for another codec."""
    config = b"\x01\x02\0\0\0\3"
    stream = world.stream()
    play(stream, [header(9, HEVC), picture(HEVC, 0, key=True), header(9, AVC, 0, 1)])
    play(stream, [enhanced(9, 0, 4, "avc1", COLOR_INFO)])
    play(stream, [enhanced(9, 0, 4, "avc1", COLOR_INFO, track=1)])
    play(stream, [picture(AVC, 0, key=True, track=1)])
    play(stream, [header(8, AAC, 0, 1), enhanced(8, 0, 4, "mp4a", config, track=1)])
    play(stream, [sound(AAC, 0, 1)])
    stream.end()
    for track, first in (("video1", 0x17), ("audio1", 0xAF)):
        tags = tagsOf(world, f"{BASE}.{track}")
        assert [payload[0] for *_, payload in tags] == [first] * 2
    assert len(tagsOf(world, BASE)) == 2
    assertBooked(stream)


def test_aLayoutThatIsNotKnownStaysAsItCame(world):
    unknown = Message(9, 40, 1, b"\x96\x71avc1 of a version to come")
    stream = world.stream()
    play(stream, [avcHeader(), video(0, True), unknown])
    stream.end()
    assert names(world) == [BASE]
    assert tagsOf(world, BASE)[-1] == (9, 40, unknown.payload)
    assertBooked(stream)


def test_aStreamWithoutAFirstTrack(world):
    messages = [header(9, HEVC, 0, 3)]
    messages += [picture(HEVC, t, key=not t, track=3) for t in range(0, 400, 40)]
    stream = world.stream()
    send(world, stream, messages)
    stream.end()
    assert names(world) == [f"{BASE}.video3"]
    assert tagsOf(world, names(world)[0]) == plain(messages, 9, 3)
    assertBooked(stream)


def test_tooManyTracks(world):
    stream = world.stream()
    play(stream, [avcHeader(), video(0, True)])
    for track in range(1, 256):
        play(stream, [sound(OPUS, 0, track)])
    tracks = b"\0\0\0\1a" + b"\xfe\0\0\1b" + b"\xff\0\0\1c"
    both = Message(8, 0, 1, b"\x95\x11Opus" + tracks)
    play(stream, [both])
    stream.end()
    assert len(names(world)) == 1 + MAX_TRACK_FILES
    assert stream.ledger.discarded == {"too many tracks": 256 - MAX_TRACK_FILES}
    assertBooked(stream)


def test_aFileThatFailsLeavesTheOthers(world, monkeypatch):
    """A message is lost, and once, if a piece of it is."""
    whole = diskFile._writeAll
    refused = []

    def write(fd, buffers):
        if any(b"OpusHead" in each for each in buffers) or refused:
            name = Path(f"/proc/self/fd/{fd}").resolve().name
            if ".audio1" in name:
                refused.append(name)
                raise OSError(errno.ENOSPC, "No space left on device")
        return whole(fd, buffers)

    monkeypatch.setattr(diskFile, "_writeAll", write)
    messages = [Message(8, 0, 1, many(8, 0, "Opus", True, OPUS_HEAD, OPUS_HEAD))]
    for time in range(0, 2000, 40):
        sounds = [body(time + n, 40) for n in range(2)]
        messages.append(Message(8, time, 1, many(8, 1, "Opus", False, *sounds)))
    stream = world.stream()
    send(world, stream, [avcHeader(), video(0, True), *messages])
    stream.end()
    assert refused
    assert names(world) == [BASE]
    assert len(tagsOf(world, BASE)) == 2 + len(messages)
    assert stream.ledger.discarded == {"disk full": len(messages)}
    assertBooked(stream)


def test_theFilesShareATimeLineAgainAfterAFault(world, monkeypatch):
    """Audio goes on at once, but the stream's own file begins with a key frame."""
    whole = diskFile._writeAll

    def write(fd, buffers):
        if world.clock.seconds() < 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(fd, buffers)

    monkeypatch.setattr(diskFile, "_writeAll", write)
    messages = [avcHeader(), header(8, OPUS, 0, 1)]
    for time in range(0, 20_000, 40):
        messages += [video(time, key=time % 4000 == 0), sound(OPUS, time, 1)]
    stream = world.stream()
    send(world, stream, messages)
    stream.end()
    name = "test-20261123T093841Z"
    early = "test-20261123T093839Z.audio1"
    assert names(world) == [early, name, f"{name}.audio1"]
    assert len(tagsOf(world, early)) == 1 + 2000 // 40
    for each in (name, f"{name}.audio1"):
        tags = tagsOf(world, each)
        assert [time for _, time, _ in tags[1:]] == list(range(0, 8000, 40))
    assertBooked(stream)


def test_oneTrackAfterACrash(world, tmp_path):
    stream = world.stream()
    send(world, stream, numbered(plain=False))
    world.tick()
    crashed = {path: path.read_bytes() for path in world.paths()}
    stream.end()
    for path, data in crashed.items():
        copy = tmp_path / "crashed.flv"
        copy.write_bytes(data)
        assert repair(str(copy)).changed
        assert copy.read_bytes() == path.read_bytes()


def test_namesStayUniqueAndSafe(world):
    """A stream that is called like a track's file does not get into it."""
    world = World(world.folder, tracks=TrackFiles.SEPARATE, name="{stream}")
    hostile = world.stream("live", "../../etc")
    stream = world.stream("live", "a")
    other = world.stream("live", "a.audio1")
    for each in (hostile, stream, other):
        play(each, [avcHeader(), video(0, True), aacHeader(), audio(0)])
        play(each, [header(8, OPUS, 0, 1), sound(OPUS, 0, 1)])
    for each in (hostile, stream, other):
        each.end()
    assert [path.relative_to(world.folder).as_posix() for path in world.paths()] == [
        "%2E.%2F..%2Fetc.audio1.flv",
        "%2E.%2F..%2Fetc.flv",
        "a.audio1-1.flv",
        "a.audio1.audio1.flv",
        "a.audio1.flv",
        "a.flv",
    ]
    tracks = {Path(file.path).name: file for file in world.finished}
    assert {tracks[name].name for name in ("a.audio1-1.flv", "a.flv")} <= {
        "a",
        "a.audio1",
    }


def test_longNamesHaveRoomForATrack(tmp_path):
    template = "{stream}" + "x" * (255 - 200 - 4 - 5 - 9)
    RecordName(template)
    with pytest.raises(ValueError, match="must have at most 37 bytes"):
        RecordName(template + "x")
    world = World(tmp_path, tracks=TrackFiles.SEPARATE, name=template)
    for _ in range(2):
        stream = world.stream("live", "y" * 500)
        play(stream, [sound(OPUS, 0, 255), sound(AAC, 0)])
        stream.end()
    assert len(world.paths()) == 4


def test_theMetadataThatCannotBeRead(world):
    stream = world.stream()
    # Well-formed to the stream, which looks at the name only.
    bare = Message(18, 0, 1, amf0.encode("onMetaData"))
    play(stream, [bare, avcHeader(), video(0, True), sound(OPUS, 0, 1)])
    stream.end()
    assert len(names(world)) == 2
    assertBooked(stream)


def test_filesArePutTogetherAgain(world, tmp_path):
    """By the documentation's command, with what Debian's ffmpeg reads."""
    page = (ROOT / "docs" / "recording.md").read_text()
    (command,) = re.findall(r"^ +(ffmpeg -copyts .*)$", page, re.MULTILINE)
    source = tmp_path / "source.flv"
    makeFLV(source, seconds=2)
    stream = world.stream()
    for message in messagesOf(source)[1:]:
        isSound = message.typeId == 8
        if isSound and message.payload[1] == 1 and message.timestamp < 1000:
            continue  # it begins late
        if isSound:  # number 1 of several
            frame = b"mp4a\x01" + message.payload[2:]
            message.payload = bytes((0x95, message.payload[1])) + frame
        stream.messageReceived(message)
    stream.end()
    words = command.replace("NAME", str(world.folder / "live" / BASE)).split()
    words[0:1] = [program("ffmpeg"), "-v", "error", "-nostdin"]
    subprocess.run(words, check=True, cwd=tmp_path)
    for kind, first in (("v", 0), ("a", 1)):
        ffprobe = [program("ffprobe"), "-v", "error", "-select_streams", kind]
        entries = ["-show_entries", "packet=pts_time", "-of", "csv=p=0"]
        times = subprocess.run(
            [*ffprobe, *entries, str(tmp_path / "all.mkv")],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        assert first <= float(times[0]) < first + 0.1


def test_theOption(tmp_path):
    for value in ("together", "separate"):
        settings = parse("--record", str(tmp_path), "--record-tracks", value)
        assert settings.default.recording.tracks is TrackFiles(value)
    message = refused("--record-tracks", "apart")
    assert message.endswith("'apart': must be one of together, separate.")
    message = refused("--no-record", "--record-tracks", "separate")
    assert message == "--record-tracks: must not be given with --no-record."
