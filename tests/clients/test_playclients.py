"""What real players get of a live stream is what was sent."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from capture import Capture, assertSame, capturing, ffmpeg, frames, needed, tags
from playing import (
    FORGETFUL,
    PLAYERS,
    STAYING,
    Outcome,
    Performance,
    Player,
    Publisher,
    headersOf,
    lastKeyFrame,
    played,
)
from test_pyav import av, publish

from twisted_rtmp.media import payloads as media
from twisted_rtmp.wire.messages import Message

PICTURES = ("-f", "lavfi", "-i", "testsrc=size=160x120:rate=30")
SOUND = ("-f", "lavfi", "-i", "sine=sample_rate=44100")
H264_B = ("-c:v", "libx264", "-preset", "veryfast", "-bf", 2, "-g", 15)
AAC = ("-c:a", "aac", "-b:a", "64k")

#: What is published: three seconds, a key frame every half second.
STREAMS = {
    "both": (*PICTURES, *SOUND, *H264_B, *AAC),
    "audio": (*SOUND, *AAC),
    "video": (*PICTURES, *H264_B),
}

JOINS = ["before", "during"]


def perform(
    capture: Capture, folder: Path, sent: list[Message], join: str, names: list[str]
) -> Performance:
    """
    Publish, with all these players; it ends when all of them have left, which some
    do only when the server does.
    """
    stream = "-".join(names)
    outcomes: dict[str, Outcome] = {}
    skipped: dict[str, BaseException] = {}
    with ExitStack() as stack:
        players: list[Player] = []

        def start() -> None:
            later = ", which is not being published yet" if join == "before" else ""
            for name in names:
                try:
                    player = Player(name, capture.url(stream), folder)
                except (pytest.skip.Exception, pytest.fail.Exception) as missing:
                    skipped[name] = missing
                    continue
                players.append(stack.enter_context(player))
                capture.server.expect(f"plays live/{stream}{later}$")

        half = 5 + len(sent) // 2
        since = 0
        if join == "before":
            start()
        publisher = stack.enter_context(Publisher(capture.port, stream))
        if join == "during":
            publisher.send(sent[:half])
            since = lastKeyFrame(sent[:half])
            start()
            publisher.send(sent[half:])
        else:
            publisher.send(sent)
        expected = played([*headersOf(sent), *frames(sent[since:])])
        for player in players:
            if player.name in FORGETFUL:
                player.has(len(frames(expected)))
        publisher.end()
        capture.ended(stream)
        if STAYING.issuperset(names):
            capture.server.signal(signal.SIGTERM)
        for player in players:
            status = player.wait()
            written = played(player.written())
            outcomes[player.name] = Outcome(written, status, player.said)
    return Performance(expected, outcomes, skipped)


@pytest.fixture(scope="module", params=STREAMS)
def sent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("sent") / "sent.flv"
    live = ("-flvflags", "no_duration_filesize")
    ffmpeg(*STREAMS[request.param], "-t", 3, *live, path)
    found = tags(path)
    assert len(frames(found)) > 80
    return found


@pytest.fixture(scope="module", params=JOINS)
def performances(request, sent, tmp_path_factory):
    """
    One publication for all players; one that lets nothing wait at its end; and one
    that the server ends, for who does not leave by itself.
    """
    folder = tmp_path_factory.mktemp("played")
    others = [name for name in PLAYERS if name not in FORGETFUL | STAYING]
    with capturing(folder) as capture:
        found = [
            perform(capture, folder, sent, request.param, names)
            for names in (others, sorted(FORGETFUL), sorted(STAYING))
        ]
        assert capture.server.wait() == 0, capture.server.output
    return found


def check(performance: Performance, player: str) -> None:
    """The player got all that it should, and left."""
    outcome = performance.outcomes[player]
    assertSame(outcome.written, performance.expected)
    assert outcome.status == 0 or player in STAYING, outcome.said


@pytest.mark.parametrize("player", PLAYERS)
def test_everyPacket(performances: list[Performance], player: str) -> None:
    """
    From the join on, byte for byte and at their times; then the player leaves, and
    finds nothing wrong, if it is one that leaves.
    """
    for performance in performances:
        if player in performance.skipped:
            raise performance.skipped[player]
        if player in performance.outcomes:
            check(performance, player)
            return
    raise AssertionError(f"{player} did not play")


@pytest.mark.parametrize("join", JOINS)
@pytest.mark.parametrize("codecs", [("libx265", "aac"), ("libsvtav1", "libopus")])
def test_enhancedCodecs(capture, tmp_path, codecs, join):
    """A current FFmpeg gets the codecs' configuration, and every packet."""
    if av is None:
        needed("PyAV")
    path = tmp_path / "sent.flv"
    publish(str(tmp_path / "again.flv"), path, *codecs)
    sent = tags(path)
    assert media.videoFlags(headersOf(sent)[1].payload) & media.ENHANCED
    check(perform(capture, tmp_path, sent, join, ["pyav"]), "pyav")
