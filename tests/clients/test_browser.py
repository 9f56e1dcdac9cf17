"""A real browser plays live streams, by HTTP and by WebSocket."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from capture import Capture, Encoder, capturing, ffmpeg, tags
from serverprocess import ROOT, environment

from twisted_rtmp.flv.tags import encodeHeader, encodeTag

PICTURES = ("-f", "lavfi", "-i", "testsrc=size=160x120:rate=30")
SOUND = ("-f", "lavfi", "-i", "sine=sample_rate=44100")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", 30, "-pix_fmt", "yuv420p")
AAC = ("-c:a", "aac", "-b:a", "64k")

#: What ffmpeg makes, and what of it a page is to find.
STREAMS = {
    "both": ((*PICTURES, *SOUND, *H264, *AAC), (True, True)),
    "video": ((*PICTURES, *H264), (False, True)),
    "audio": ((*SOUND, *AAC), (True, False)),
}


#: Tells the test that the page of the documentation plays.
REPORTER = """
<script>
  const shown = document.getElementById("video");
  shown.addEventListener("timeupdate", () => {
    if (shown.currentTime < 1) return;
    const frames = shown.getVideoPlaybackQuality().totalVideoFrames;
    fetch("report", {
      method: "POST",
      body: JSON.stringify({id: "page", event: "playing", frames}),
    });
  });
</script>
"""


@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_thePageOfTheDocumentation(tmp_path: Path, scheme: str) -> None:
    text = (ROOT / "docs" / "http.md").read_text()
    [page] = re.findall(r"^```html\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    with capturing(tmp_path, "--http", "tcp:0:interface=127.0.0.1") as capture:
        port = capture.server.expect(r"Listening on [0-9.]+:(\d+) \(HTTP")[1]
        for pattern, ours in (
            (r"https://[^\"]*/mpegts\.js", "mpegts.js"),
            (r"ws://localhost:8080/", f"{scheme}://127.0.0.1:{port}/"),
        ):
            page, count = re.subn(pattern, ours, page)
            assert count == 1
        arguments, _ = STREAMS["both"]
        with (
            Encoder("-re", *arguments, "-f", "flv", capture.url("test")),
            Browser({}, tmp_path, page + REPORTER) as browser,
        ):
            [report] = browser.reported("playing", ["page"]).values()
    assert report["frames"] > 0


@pytest.mark.parametrize("join", ["before", "during"])
def test_playsInABrowser(tmp_path: Path, join: str) -> None:
    """Whatever tracks there are; and it learns of the end."""
    with ExitStack() as stack:
        capture = stack.enter_context(
            capturing(tmp_path, "--http", "tcp:0:interface=127.0.0.1")
        )
        port = capture.server.expect(r"Listening on [0-9.]+:(\d+) \(HTTP")[1]
        urls = {
            f"{scheme} {name}": f"{scheme}://127.0.0.1:{port}/live/{name}.flv"
            for scheme in ("http", "ws")
            for name in STREAMS
        }

        def publish() -> list[Encoder]:
            return [
                stack.enter_context(
                    Encoder("-re", *arguments, "-f", "flv", capture.url(name))
                )
                for name, (arguments, _) in STREAMS.items()
            ]

        if join == "during":
            encoders = publish()
            for encoder in encoders:
                encoder.reached(2)
        browser = stack.enter_context(Browser(urls, tmp_path))
        if join == "before":
            for _ in urls:
                capture.server.expect("plays live/.* is not being published yet")
            encoders = publish()
        playing = browser.reported("playing", list(urls))
        for encoder in encoders:
            encoder.process.terminate()
        browser.reported("ended", list(urls))
    for name, report in playing.items():
        assertPlays(report, *STREAMS[name.split()[1]][1])


def assertPlays(report: dict[str, Any], hasAudio: bool, hasVideo: bool) -> None:
    """A page found these kinds, and played them."""
    name = report["id"]
    assert (report["hasAudio"], report["hasVideo"]) == (hasAudio, hasVideo), name
    assert (report["audioBytes"] > 0) == hasAudio, name
    assert (report["frames"] > 0) == hasVideo, name
    assert report["width"] == (160 if hasVideo else 0), name


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[Capture, str]]:
    """Run a server: what tells of it, and where its streams are."""
    with capturing(folder, "--http", "tcp:0:interface=127.0.0.1", *options) as capture:
        port = capture.server.expect(r"Listening on [0-9.]+:(\d+) \(HTTP")[1]
        yield capture, f"http://127.0.0.1:{port}/live/"


#: What is sent at first, and by the encoder that continues it.
CONTINUED = {
    "a": ("both", "video"),
    "b": ("both", "audio"),
    "c": ("audio", "both"),
    "d": ("video", "audio"),
}


def test_anEncoderThatComesBackWithOtherMedia(tmp_path: Path) -> None:
    """A page that joins then plays what there is then."""
    with serving(tmp_path, "--grace", "30") as (capture, base), ExitStack() as stack:

        def publish(which: int) -> list[Encoder]:
            return [
                stack.enter_context(
                    Encoder(
                        "-re", *STREAMS[kinds[which]][0], "-f", "flv", capture.url(name)
                    )
                )
                for name, kinds in CONTINUED.items()
            ]

        for encoder in publish(0):
            encoder.reached(1)
            encoder.process.terminate()
            capture.server.expect("has lost its publisher")
        publish(1)
        for _ in CONTINUED:
            capture.server.expect("is continued by")
        urls = {name: f"{base}{name}.flv" for name in CONTINUED}
        browser = stack.enter_context(Browser(urls, tmp_path))
        playing = browser.reported("playing", list(urls))
    for name, report in playing.items():
        assertPlays(report, *STREAMS[CONTINUED[name][1]][1])


def test_soundThatHasEnded(tmp_path: Path) -> None:
    """A page that joins later does not wait for it."""
    short = ("-f", "lavfi", "-i", "sine=sample_rate=44100:duration=1")
    with (
        serving(tmp_path) as (capture, base),
        Encoder(
            *("-re", *PICTURES, *short, *H264, *AAC),
            # Or else it lets pictures wait for sound for 10 s.
            *("-max_interleave_delta", 100_000, "-f", "flv", capture.url("test")),
        ) as encoder,
    ):
        encoder.reached(7)
        with Browser({"page": f"{base}test.flv"}, tmp_path) as browser:
            report = browser.reported("playing", ["page"])["page"]
    assertPlays(report, False, True)


CLIENT = (sys.executable, "-m", "twisted_rtmp.client")

#: The times of a sender whose clock breaks after 3 s, in milliseconds.
CLOCKS = {
    "back": lambda time: time + (20_000 if time < 3000 else -3000),
    "ahead": lambda time: time + (0 if time < 3000 else 3_600_000),
}


def test_aClockThatBreaks(tmp_path: Path) -> None:
    """The page plays on."""
    sample = tmp_path / "sample.flv"
    ffmpeg(*PICTURES, *SOUND, *H264, *AAC, "-t", 8, sample)
    with serving(tmp_path) as (capture, base), ExitStack() as stack:
        urls = {name: f"{base}{name}.flv" for name in CLOCKS}
        browser = stack.enter_context(Browser(urls, tmp_path, seconds=6))
        for _ in urls:
            capture.server.expect("plays live/.* is not being published yet")
        for name, clock in CLOCKS.items():
            path = tmp_path / f"{name}.flv"
            with path.open("wb") as file:
                file.write(encodeHeader(True, True))
                for tag in tags(sample):
                    time = clock(tag.timestamp)
                    file.write(encodeTag(tag.typeId, time, tag.payload))
            publish = (*CLIENT, "publish", path, capture.url(name))
            stack.enter_context(running(*publish))
        playing = browser.reported("playing", list(urls))
    for report in playing.values():
        assertPlays(report, True, True)


@contextmanager
def running(*command: object) -> Iterator[None]:
    """Run a program until it is not needed any more."""
    process = subprocess.Popen(list(map(str, command)), env=environment())
    try:
        yield
    finally:
        process.kill()
        process.wait()
