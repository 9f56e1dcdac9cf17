"""What ffmpeg sends is in the recording."""

import pytest
from capture import (
    assertAllStored,
    assertDecodes,
    assertSame,
    assertSeekable,
    ffmpeg,
    frames,
    mediaTags,
    metadata,
    teed,
)

from twisted_rtmp.media import payloads as media
from twisted_rtmp.wire.constants import MessageType

#: 2^24 ms, where RTMP's timestamps change their form, in seconds.
EXTENDED = (1 << 24) / 1000

PICTURES = ("-f", "lavfi", "-i", "testsrc=size=320x240:rate=30")
SOUND = ("-f", "lavfi", "-i", "sine=sample_rate=48000")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", 30)
H264_B = ("-c:v", "libx264", "-preset", "veryfast", "-bf", 3, "-g", 30)
AAC = ("-c:a", "aac", "-b:a", "96k")


def check(capture, tmp_path, *arguments):
    """Publish, compare everything; the tags that were sent."""
    local = tmp_path / "local.flv"
    maps = [
        part for number in range(arguments.count("-i")) for part in ("-map", number)
    ]
    ffmpeg(*arguments, *maps, *teed(local, capture.url("test")))
    summary = capture.ended("test")["test"]
    sent = mediaTags(local)
    recording = capture.recording("test")
    assertSame(mediaTags(recording), sent)
    assertAllStored(summary, sent)
    return sent


@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize("sound", [False, True])
def test_readme(capture, attempt, sound):
    """The README's command, to the letter; and the same with audio."""
    ffmpeg(
        *("-re", *PICTURES, *(SOUND if sound else ()), "-t", 2),
        *("-c:v", "libx264", "-preset", "ultrafast", "-g", 30),
        *("-f", "flv", capture.url("test")),
    )
    summary = capture.ended("test")["test"]
    recording = capture.recording("test")
    assert len(frames(mediaTags(recording), MessageType.VIDEO)) == 60
    audio = len(frames(mediaTags(recording), MessageType.AUDIO))
    assert (audio > 50) == sound
    assert summary == (
        f"60 video {audio} audio received, 60 and {audio} written, 0 lost"
    )
    assertSeekable(recording)
    assertDecodes(recording)


def test_bFrames(capture, tmp_path):
    sent = check(capture, tmp_path, *PICTURES, *SOUND, "-t", 3, *H264_B, *AAC)
    offsets = {
        media.parseVideo(frame.payload).compositionTime
        for frame in frames(sent, MessageType.VIDEO)
    }
    assert len(offsets) > 2
    recording = capture.recording("test")
    assertSeekable(recording)
    assertDecodes(recording, seek=1.5)


def test_audioOnly(capture, tmp_path):
    sent = check(capture, tmp_path, *SOUND, "-t", 3, *AAC)
    assert not frames(sent, MessageType.VIDEO)
    assert metadata(capture.recording("test"))["hasVideo"] is False
    assertDecodes(capture.recording("test"))


def test_videoOnly(capture, tmp_path):
    sent = check(capture, tmp_path, *PICTURES, "-t", 3, *H264)
    assert not frames(sent, MessageType.AUDIO)
    assert metadata(capture.recording("test"))["hasAudio"] is False


@pytest.mark.parametrize("codecs", [("flv", "mp3"), ("flashsv", "pcm_s16le")])
def test_olderCodecs(capture, tmp_path, codecs):
    video, audio = codecs
    rate = ("-ar", 44100)
    check(
        capture,
        tmp_path,
        *(*PICTURES, *SOUND, "-t", 1, "-c:v", video, "-c:a", audio, *rate),
    )
    assertDecodes(capture.recording("test"))


@pytest.mark.parametrize("encode", [H264, H264_B], ids=["plain", "b-frames"])
@pytest.mark.parametrize("start", [EXTENDED - 1.5, EXTENDED + 5])
def test_acrossExtendedTimestamps(capture, tmp_path, encode, start):
    sent = check(
        capture,
        tmp_path,
        *(*PICTURES, *SOUND, "-t", 3, *encode, *AAC),
        *("-output_ts_offset", start),
    )
    times = [frame.timestamp for frame in frames(sent)]
    assert max(times) > 1 << 24
    assert (min(times) < 1 << 24) == (start < EXTENDED)


def test_metadata(capture, tmp_path):
    check(
        capture,
        tmp_path,
        *(*PICTURES, *SOUND, "-t", 1, *H264, *AAC, "-metadata", "title=Tür ✓"),
    )
    sent = metadata(tmp_path / "local.flv")
    kept = metadata(capture.recording("test"))
    assert kept["title"] == "Tür ✓"
    assert {"width", "videodatarate", "audiosamplerate", "encoder"} <= set(sent)
    for name in set(sent) - {"duration", "filesize"}:
        assert kept[name] == sent[name], name


def test_asFastAsPossible(capture, tmp_path):
    """A minute of 1080p without -re."""
    seconds = tmp_path / "seconds.flv"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=size=1920x1080:rate=30", *SOUND),
        *("-t", 3, *H264, *AAC, seconds),
    )
    sent = check(capture, tmp_path, "-stream_loop", 19, "-i", seconds, "-c", "copy")
    assert len(frames(sent, MessageType.VIDEO)) == 1800


@pytest.mark.parametrize("pace", [("-re",), ()], ids=["real time", "at once"])
def test_bigKeyFrames(capture, noisy, tmp_path, pace):
    """40 Mb/s, with key frames of a megabyte; and the same faster than it is stored."""
    sent = check(capture, tmp_path, *pace, "-i", noisy, "-c", "copy")
    keys = [
        len(frame.payload)
        for frame in frames(sent)
        if media.videoFlags(frame.payload) & media.KEY_FRAME
    ]
    assert len(keys) == 3
    assert min(keys) >= 1_000_000
    assert sum(len(tag.payload) for tag in sent) * 8 / 3 >= 40e6
