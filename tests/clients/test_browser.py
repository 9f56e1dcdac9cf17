"""A real browser plays live streams, by HTTP and by WebSocket."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest
from browser import Browser
from capture import Encoder, capturing
from serverprocess import ROOT

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
        hasAudio, hasVideo = STREAMS[name.split()[1]][1]
        assert (report["hasAudio"], report["hasVideo"]) == (hasAudio, hasVideo), name
        assert (report["audioBytes"] > 0) == hasAudio, name
        assert (report["frames"] > 0) == hasVideo, name
        assert report["width"] == (160 if hasVideo else 0), name
