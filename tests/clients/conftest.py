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
