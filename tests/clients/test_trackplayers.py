"""
What real players get of several tracks that a current FFmpeg publishes: those that read
only one, those that say what they read, and those that ask.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from capture import Capture, capturing
from encoding import av, checkFFmpeg, publish
from playing import ffmpegCommand, librtmpCommand, rtmpdumpCommand
from serverprocess import PATIENCE

if av is not None:
    from pyavreader import read

READER = Path(__file__).with_name("pyavreader.py")

VIDEO = ["H.264", "H.264"]
AUDIO = ["AAC", "Opus", "AAC"]

#: What a current FFmpeg announces if it is told to.
NAMES = "rtmp_enhanced_codecs=avc1,mp4a,Opus"
WITHOUT_OPUS = "rtmp_enhanced_codecs=avc1,mp4a"
VERSION_1 = "rtmp_enhanced_codecs=hvc1,av01,vp09"

#: By name: the program, the query of its play name, its options, and the tracks that it
#: gets, by their places among video and audio.
PLAYERS: dict[str, tuple[str, str, tuple[str, ...], tuple[int, ...]]] = {
    "Debian's ffmpeg": ("ffmpeg", "", (), (0, 2)),
    "Debian's ffmpeg, track 1 of video": ("ffmpeg", "?video=1", (), (1, 2)),
    "Debian's ffmpeg, tracks 1 and 2": ("ffmpeg", "?video=1&audio=2", (), (1, 4)),
    "rtmpdump": ("rtmpdump", "", (), (0, 2)),
    "librtmp": ("librtmp", "?track=0", (), (0, 2)),
    "ffmpeg": ("pyav", "", (), (0, 2)),
    "ffmpeg that asks for all": ("pyav", "?tracks=all", (), (0, 1, 2, 3, 4)),
    "ffmpeg that asks for Opus": ("pyav", "?audio=1", (), (0, 3)),
    "ffmpeg that names codecs": ("pyav", "", (NAMES,), (0, 1, 2, 3, 4)),
    "ffmpeg that does not name Opus": ("pyav", "", (WITHOUT_OPUS,), (0, 1, 2, 4)),
    "ffmpeg that names those of version 1": ("pyav", "", (VERSION_1,), (0, 2)),
}


def pyavCommand(url: str, path: Path, *options: str) -> list[str]:
    return [sys.executable, str(READER), url, str(path), *options]


COMMANDS: dict[str, Any] = {
    "ffmpeg": ffmpegCommand,
    "rtmpdump": rtmpdumpCommand,
    "librtmp": librtmpCommand,
    "pyav": pyavCommand,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Capture]:
    with capturing(tmp_path_factory.mktemp("server")) as capture:
        yield capture


@pytest.fixture(scope="module")
def outcome(
    server: Capture, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[dict[str, Any]], dict[str, Path]]:
    """What FFmpeg reads of the tracks in a file, and what each player wrote."""
    checkFFmpeg()
    folder = tmp_path_factory.mktemp("players")
    written = {}
    with ExitStack() as stack:
        players = {}
        for number, (name, (program, query, options, _)) in enumerate(PLAYERS.items()):
            written[name] = folder / f"{number}.flv"
            url = server.url("tracks") + query
            player = subprocess.Popen(
                COMMANDS[program](url, written[name], *options),
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(player.wait)
            stack.callback(player.kill)
            players[name] = player
            server.server.expect(r"plays live/tracks, which is not being published")
        local = publish(server.url("tracks"), VIDEO, AUDIO)
        server.ended("tracks")
        statuses = {name: player.wait(PATIENCE) for name, player in players.items()}
    assert set(statuses.values()) == {0}, statuses
    return read(io.BytesIO(local)), written


def fromZero(streams: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With times from the first packet on, and as tuples."""
    first = min(packet[2] for stream in streams for packet in stream["packets"])
    return [
        {
            **stream,
            "packets": [(p[0], p[1] - first, p[2] - first) for p in stream["packets"]],
        }
        for stream in streams
    ]


@pytest.mark.parametrize("name", PLAYERS)
def test_whatAPlayerGets(outcome, name):
    """The packets, times and configuration of its tracks, and of no other."""
    streams, written = outcome
    program, _, _, tracks = PLAYERS[name]
    assert [stream["kind"] for stream in streams] == ["video"] * 2 + ["audio"] * 3
    if program == "pyav":
        got = json.loads(written[name].read_text())
    else:
        got = read(str(written[name]))
    assert fromZero(got) == fromZero([streams[track] for track in tracks])


def test_whatIsNotSentIsTold(server, outcome):
    """In the log: of the one player that named codecs, but not Opus."""
    pattern = r" 0 were dropped .*, and (\d+) not sent since it did not announce"
    said = server.server
    found = re.search(pattern, said.output) or said.expect(pattern)
    frames = len(outcome[0][3]["packets"])
    # And its header, its channels, and the end of its sequence.
    assert frames < int(found[1]) <= frames + 3
