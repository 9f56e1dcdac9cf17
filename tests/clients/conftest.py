"""What tests with real encoders share: a server each, and a stream to send."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from capture import Capture, capturing, ffmpeg


@pytest.fixture
def capture(tmp_path: Path) -> Iterator[Capture]:
    with capturing(tmp_path) as server:
        yield server


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of H.264 with B-frames and AAC, as ffmpeg writes them."""
    path = tmp_path_factory.mktemp("sample") / "sample.flv"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc=size=160x120:rate=30"),
        *("-f", "lavfi", "-i", "sine=sample_rate=44100"),
        *("-t", 2, "-c:v", "libx264", "-preset", "veryfast", "-bf", 2, "-g", 15),
        *("-c:a", "aac", "-b:a", "64k", path),
    )
    return path


@pytest.fixture(scope="session")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of H.264 at 40 Mb/s, with key frames of a megabyte."""
    path = tmp_path_factory.mktemp("noisy") / "noisy.flv"
    # Noise that stands still fills the key frames, and some that moves the others.
    noise = "noise=alls=60,noise=alls=8:allf=t"
    ffmpeg(
        *("-f", "lavfi", "-i", f"testsrc2=size=1280x720:rate=30,{noise}"),
        *("-t", 3, "-c:v", "libx264", "-preset", "ultrafast", "-g", 30, "-qp", 24),
        *("-x264-params", "ipratio=4:scenecut=0", path),
    )
    return path
