"""What librtmp sends is in the recording, from curl and from the library itself."""

import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest
from capture import (
    assertAllStored,
    assertDecodes,
    assertSame,
    ffmpeg,
    frames,
    mediaTags,
    needed,
)
from serverprocess import PATIENCE, program


def publish(path, url):
    library = find_library("rtmp")
    if library is None:
        needed("librtmp")
    sender = Path(__file__).with_name("librtmpsender.py")
    result = subprocess.run(
        [sys.executable, sender, library, path, url],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("options", ["", " live=1 flashVer=FMLE/3.0"])
def test_library(capture, sample, options):
    publish(sample, capture.url("test") + options)
    summary = capture.ended("test")["test"]
    sent = mediaTags(sample)
    assertSame(mediaTags(capture.recording("test")), sent)
    assertAllStored(summary, sent)
    assertDecodes(capture.recording("test"))


def test_fasterThanItIsStored(capture, noisy):
    """The library reads nothing while it publishes, and closes at the end."""
    publish(noisy, capture.url("test"))
    summary = capture.ended("test")["test"]
    sent = mediaTags(noisy)
    assertSame(mediaTags(capture.recording("test")), sent)
    assertAllStored(summary, sent)


def test_curl(capture, sample):
    version = subprocess.run(
        [program("curl"), "--version"], capture_output=True, text=True, check=True
    )
    if "rtmp" not in version.stdout.split():
        needed("curl with RTMP")
    subprocess.run(
        [program("curl"), "-sS", "-T", sample, capture.url("test")],
        check=True,
        timeout=PATIENCE,
    )
    summary = capture.ended("test")["test"]
    sent = mediaTags(sample)
    assertSame(mediaTags(capture.recording("test")), sent)
    assertAllStored(summary, sent)


def test_acrossExtendedTimestamps(capture, sample, tmp_path):
    """Absolute times, and chunks that repeat the long form or leave it out."""
    late = tmp_path / "late.flv"
    ffmpeg("-i", sample, "-c", "copy", "-output_ts_offset", (1 << 24) / 1000 - 1, late)
    publish(late, capture.url("test"))
    capture.ended("test")
    sent = mediaTags(late)
    times = [frame.timestamp for frame in frames(sent)]
    assert min(times) < 1 << 24 < max(times)
    assertSame(mediaTags(capture.recording("test")), sent)
