"""What is left when a server or an encoder ends before its time."""

import re
import signal
import subprocess
import sys

import pytest
from capture import (
    MEDIA,
    Encoder,
    assertBeginning,
    assertDecodes,
    assertSeekable,
    frames,
    mediaTags,
    teed,
)
from serverprocess import environment

from twisted_rtmp.flv.tags import FLVReader
from twisted_rtmp.wire.constants import NEED_DATA

#: What may be missing after a kill, in milliseconds.
LOSS = 500

STREAM = (
    *("-re", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=30"),
    *("-re", "-f", "lavfi", "-i", "sine=sample_rate=48000", "-map", 0, "-map", 1),
    *("-t", 60, "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency"),
    *("-g", 15, "-c:a", "aac"),
)


def interrupt(capture, tmp_path, end, seconds=2):
    """Publish for some seconds, then end it: the time that was out, in ms."""
    local = tmp_path / "local.flv"
    with Encoder(*STREAM, *teed(local, capture.url("test"))) as encoder:
        out = encoder.reached(seconds) * 1000
        end(encoder)
    return out


def beginning(path):
    """The media of a file that may end anywhere."""
    reader = FLVReader()
    reader.feed(path.read_bytes())
    found = iter(reader.nextTag, NEED_DATA)
    return [tag for tag in found if tag.typeId in MEDIA]


def assertNearlyAll(capture, tmp_path, out):
    """All that was sent is there, but for what a kill may take."""
    recorded = mediaTags(capture.recording("test"))
    sent = beginning(tmp_path / "local.flv")
    assertBeginning(recorded, sent)
    last = max(frame.timestamp for frame in frames(sent[: len(recorded)]))
    assert last >= out - LOSS


def test_killedServer(capture, tmp_path):
    def end(encoder):
        capture.server.signal(signal.SIGKILL)
        assert capture.server.wait() == -signal.SIGKILL

    out = interrupt(capture, tmp_path, end)
    assertNearlyAll(capture, tmp_path, out)
    path = capture.recording("test")
    assertDecodes(path)
    # What the server can no longer do.
    subprocess.run(
        [sys.executable, "-m", "twisted_rtmp.recording", path],
        check=True,
        env=environment(),
        capture_output=True,
    )
    assertNearlyAll(capture, tmp_path, out)
    assertSeekable(path)
    assertDecodes(path, seek=1)


def test_killedEncoder(capture, tmp_path):
    def end(encoder):
        encoder.process.kill()
        assert encoder.wait() == -signal.SIGKILL

    out = interrupt(capture, tmp_path, end)
    summary = capture.ended("test")["test"]
    assert summary.endswith(", 0 lost")
    assertNearlyAll(capture, tmp_path, out)
    assertSeekable(capture.recording("test"))
    assertDecodes(capture.recording("test"), seek=1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stoppedServer(capture, tmp_path, number):
    def end(encoder):
        capture.server.signal(number)
        assert capture.server.wait() == 0

    out = interrupt(capture, tmp_path, end)
    assert re.search("live/test ended after .*, 0 lost", capture.server.output)
    assertNearlyAll(capture, tmp_path, out)
    assertSeekable(capture.recording("test"))
    assertDecodes(capture.recording("test"), seek=1)


def test_readableWhileItGrows(capture, tmp_path):
    """At any instant the file is whole tags."""
    lengths = []

    def end(encoder):
        for seconds in (1.5, 2, 2.5):
            encoder.reached(seconds)
            recorded = mediaTags(capture.recording("test"))
            assertBeginning(recorded, beginning(tmp_path / "local.flv"))
            lengths.append(len(recorded))

    interrupt(capture, tmp_path, end, seconds=1)
    assert lengths[0] < lengths[1] < lengths[2]
