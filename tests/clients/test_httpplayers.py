"""What programs get of a live stream by HTTP is what was sent."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from capture import Capture, assertSame, capturing, ffmpeg, frames, mediaTags, tags
from certificates import certificate
from playing import (
    Outcome,
    Performance,
    Player,
    Publisher,
    ffmpegCommand,
    headersOf,
    lastKeyFrame,
    mpvCommand,
    played,
    pyavCommand,
    vlcCommand,
)
from serverprocess import PATIENCE, program, publish

from twisted_rtmp.media import payloads as media
from twisted_rtmp.wire.messages import Message


def curlCommand(url: str, path: Path) -> list[str]:
    return [program("curl"), "-sSf", "-o", str(path), url]


def curl10Command(url: str, path: Path) -> list[str]:
    """HTTP/1.0 has no chunks."""
    return [program("curl"), "-sSf", "--http1.0", "-o", str(path), url]


def souphttpsrcCommand(url: str, path: Path) -> list[str]:
    sink = ["!", "filesink", "buffer-mode=unbuffered", f"location={path}"]
    launch = [program("gst-launch-1.0"), "-q"]
    return [*launch, "souphttpsrc", f"location={url}", *sink]


#: By name, what makes the command that plays a URL into a file.
PLAYERS: dict[str, Callable[[str, Path], list[str]]] = {
    "ffmpeg": ffmpegCommand,
    "mpv": mpvCommand,
    "vlc": vlcCommand,
    "pyav": pyavCommand,
    "curl": curlCommand,
    "curl10": curl10Command,
    "souphttpsrc": souphttpsrcCommand,
}

#: These pass on what they get; the others take it apart and put it together again.
VERBATIM = ("curl", "curl10", "souphttpsrc")

HTTP = ("--http", "tcp:0:interface=127.0.0.1")


def httpPort(capture: Capture) -> int:
    """Read on to the line that tells where HTTP is."""
    return int(capture.server.expect(r"Listening on [0-9.]+:(\d+) \(HTTP")[1])


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> list[Message]:
    """Three seconds of H.264 with B-frames and AAC, a key frame every half second."""
    path = tmp_path_factory.mktemp("sent") / "sent.flv"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc=size=160x120:rate=30"),
        *("-f", "lavfi", "-i", "sine=sample_rate=44100"),
        *("-c:v", "libx264", "-preset", "veryfast", "-bf", 2, "-g", 15),
        *("-c:a", "aac", "-b:a", "64k", "-t", 3),
        *("-flvflags", "no_duration_filesize", path),
    )
    return tags(path)


@pytest.fixture(scope="module", params=["before", "during"])
def performance(request, sent, tmp_path_factory) -> Performance:
    """One publication, played by all."""
    folder = tmp_path_factory.mktemp("played")
    skipped: dict[str, BaseException] = {}
    players: list[Player] = []
    with ExitStack() as stack:
        capture = stack.enter_context(capturing(folder, *HTTP))
        url = f"http://127.0.0.1:{httpPort(capture)}/live/show.flv"

        def start(later: str) -> None:
            for name in PLAYERS:
                try:
                    player = Player(name, url, folder, PLAYERS)
                except (pytest.skip.Exception, pytest.fail.Exception) as missing:
                    skipped[name] = missing
                    continue
                players.append(stack.enter_context(player))
                capture.server.expect(f"plays live/show by HTTP{later}$")

        since = 0
        half = 5 + len(sent) // 2
        if request.param == "before":
            start(", which is not being published yet")
            publisher = stack.enter_context(Publisher(capture.port, "show"))
        else:
            publisher = stack.enter_context(Publisher(capture.port, "show"))
            publisher.send(sent[:half])
            since = lastKeyFrame(sent[:half])
            start("")
        publisher.send(sent[half:] if since else sent)
        publisher.end()
        outcomes = {
            player.name: Outcome(player.written(), status, player.said)
            for player, status in [(player, player.wait()) for player in players]
        }
        capture.server.signal(signal.SIGTERM)
        assert capture.server.wait() == 0, capture.server.output
        assert "Traceback" not in capture.server.output
    return Performance([*headersOf(sent), *frames(sent[since:])], outcomes, skipped)


@pytest.mark.parametrize("player", PLAYERS)
def test_everyPacketByHTTP(performance: Performance, player: str) -> None:
    """From the join on, byte for byte and at their times; then the player leaves."""
    if player in performance.skipped:
        raise performance.skipped[player]
    outcome = performance.outcomes[player]
    assertSame(played(outcome.written), played(performance.expected))
    assert outcome.status == 0, outcome.said
    if player in VERBATIM:
        times = [(tag.typeId, tag.timestamp) for tag in outcome.written]
        assert times[: len(performance.expected)] == [
            (tag.typeId, tag.timestamp) for tag in performance.expected
        ]


def test_aMissingStreamIsAnErrorToItsPlayer(tmp_path: Path) -> None:
    with capturing(tmp_path, *HTTP, "--player-wait", "10ms") as capture:
        url = f"http://127.0.0.1:{httpPort(capture)}/live/nobody.flv"
        for options in ([], ["--head"]):
            result = subprocess.run(
                [program("curl"), "-sSf", *options, url],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            assert result.returncode == 22
            assert "404" in result.stderr


def test_byHTTPS(tmp_path: Path) -> None:
    """As by HTTP, to the end."""
    (tmp_path / "server.pem").write_bytes(certificate("localhost"))
    listen = ["--http", "ssl:0:interface=127.0.0.1"]
    with capturing(tmp_path, *listen) as capture:
        url = f"https://127.0.0.1:{httpPort(capture)}/live/secret.flv"
        path = tmp_path / "secret.flv"
        with subprocess.Popen(
            # It would like HTTP/2.
            [program("curl"), "-sSfk", "--http2", "-o", str(path), url]
        ) as curl:
            capture.server.expect("plays live/secret by HTTP, which is not being")
            publish(capture.url("secret"))
            assert curl.wait(PATIENCE) == 0
        written = mediaTags(path)
        assert len(frames(written)) == 30
        assert all(media.flagsOf(m.typeId, m.payload) & media.CODED for m in written)
