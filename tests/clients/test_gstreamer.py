"""What GStreamer's two RTMP sinks send is in the recording."""

import subprocess

import pytest
from capture import (
    assertAllStored,
    assertDecodes,
    assertSame,
    assertSeekable,
    frames,
    mediaTags,
    needed,
)
from serverprocess import PATIENCE, program

from twisted_rtmp.wire.constants import MessageType

SINKS = ["rtmp2sink", "rtmpsink"]

VIDEO = (
    "videotestsrc num-buffers=60 ! video/x-raw,width=320,height=240,framerate=30/1"
    " ! x264enc key-int-max=30 bframes={bframes} ! h264parse ! queue ! mux."
)
AUDIO = (
    "audiotestsrc num-buffers=87 samplesperbuffer=1024 ! audio/x-raw,rate=44100"
    " ! avenc_aac ! aacparse ! queue ! mux."
)


def launch(pipeline):
    for element in ("flvmux", "x264enc", "avenc_aac", "h264parse", *SINKS):
        found = subprocess.run(
            [program("gst-inspect-1.0"), "--exists", element], timeout=PATIENCE
        )
        if found.returncode:
            needed(f"GStreamer's element {element}")
    result = subprocess.run(
        [program("gst-launch-1.0"), "-q", *pipeline.split()],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 0, result.stderr


def check(capture, tmp_path, sink, sources, options=""):
    """Publish, compare everything; the tags that were sent."""
    local = tmp_path / "local.flv"
    launch(
        "flvmux name=mux streamable=true ! tee name=both"
        f" both. ! queue ! filesink location={local}"
        f" both. ! queue ! {sink} location={capture.url('test')} {options} {sources}"
    )
    summary = capture.ended("test")["test"]
    sent = mediaTags(local)
    assertSame(mediaTags(capture.recording("test")), sent)
    assertAllStored(summary, sent)
    return sent


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("bframes", [0, 2])
def test_videoAndAudio(capture, tmp_path, sink, bframes):
    sources = VIDEO.format(bframes=bframes) + " " + AUDIO
    sent = check(capture, tmp_path, sink, sources)
    assert len(frames(sent, MessageType.VIDEO)) == 60
    assert len(frames(sent, MessageType.AUDIO)) >= 87
    assertSeekable(capture.recording("test"))
    assertDecodes(capture.recording("test"))


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("source", [VIDEO.format(bframes=0), AUDIO])
def test_oneKindOnly(capture, tmp_path, sink, source):
    check(capture, tmp_path, sink, source)


def test_ownChunkSize(capture, tmp_path):
    """rtmp2sink sends chunks of 128 bytes unless it is told another size."""
    check(capture, tmp_path, "rtmp2sink", VIDEO.format(bframes=0), "chunk-size=1000")
