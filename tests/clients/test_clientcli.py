"""C{python -m twisted_rtmp.client} as its users run it, against our own server."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import pairwise

import pytest
from capture import (
    MEDIA,
    assertBeginning,
    assertSame,
    capturing,
    frames,
    mediaTags,
    metadata,
    tags,
)
from certificates import certificate
from serverprocess import PATIENCE, Server, environment

from twisted_rtmp.flv.tags import FLVReader
from twisted_rtmp.wire.constants import NEED_DATA

CLIENT = [sys.executable, "-m", "twisted_rtmp.client"]


def start(folder, *arguments):
    """Run a command; its standard error goes where its output goes."""
    return Server([*CLIENT, *map(str, arguments)], folder)


def run(folder, *arguments):
    """Run a command to its end: status, output and errors."""
    return subprocess.run(
        [*CLIENT, *map(str, arguments)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_publishAndPlay(capture, sample, tmp_path):
    played = tmp_path / "played.flv"
    with start(tmp_path, "play", capture.url("a"), played) as player:
        capture.server.expect("plays live/a")
        done = run(tmp_path, "publish", sample, capture.url("a"), "--speed", 4)
        assert done.returncode == 0, done.stderr
        assert player.wait() == 0, player.output
    sent = mediaTags(sample)
    assertSame(mediaTags(played), sent)
    assertSame(mediaTags(capture.recording("a")), sent)
    facts = metadata(played)
    assert facts["filesize"] == played.stat().st_size
    assert facts["duration"] == pytest.approx(2, abs=0.1)
    count = len(tags(sample))
    pattern = rf"published 2\.\d s, {count} messages, \d\.\d\d MB, \d+ kbit/s\n"
    assert re.fullmatch(pattern, done.stderr)
    assert re.fullmatch(r"played 2\.\d s, \d+ messages, .*\n", player.output)


def test_fullSpeed(capture, noisy, tmp_path):
    done = run(tmp_path, "publish", noisy, capture.url("a"), "--speed", "max")
    assert done.returncode == 0, done.stderr
    capture.ended("a")
    assertSame(mediaTags(capture.recording("a")), mediaTags(noisy))


def test_standardOutput(capture, sample, tmp_path):
    command = [*CLIENT, "play", capture.url("a"), "-"]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as player:
        capture.server.expect("plays live/a")
        run(tmp_path, "publish", sample, capture.url("a"), "--speed", "max")
        output, errors = player.communicate(timeout=PATIENCE)
    assert player.returncode == 0, errors
    reader = FLVReader()
    reader.feed(output)
    got = list(iter(reader.nextTag, NEED_DATA))
    assertSame([tag for tag in got if tag.typeId in MEDIA], mediaTags(sample))


def test_aReaderThatLeaves(capture, sample, tmp_path):
    command = [*CLIENT, "play", capture.url("a"), "-"]
    with (
        subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as player,
        start(tmp_path, "publish", sample, capture.url("a"), "--loop") as publisher,
    ):
        assert player.stdout is not None
        assert player.stdout.read(1000).startswith(b"FLV")
        player.stdout.close()
        assert player.wait(PATIENCE) == 0
        publisher.signal(signal.SIGTERM)
        assert publisher.wait() == 0


def test_interruptedPlay(capture, sample, tmp_path):
    """With the progress line that a terminal gets."""
    played = tmp_path / "played.flv"
    terminal, end = pty.openpty()
    shown = b""
    with start(tmp_path, "publish", sample, capture.url("a"), "--loop") as publisher:
        capture.server.expect("publishes live/a")
        player = subprocess.Popen(
            [*CLIENT, "play", capture.url("a"), str(played)],
            env=environment(),
            stderr=end,
        )
        os.close(end)
        progress = rb"\r([1-9]\d*\.\d) s, \d+ messages, "
        while (told := re.search(progress, shown)) is None:
            shown += os.read(terminal, 1000)
        player.send_signal(signal.SIGINT)
        with suppress(OSError):  # a terminal's other end has gone
            while more := os.read(terminal, 1000):
                shown += more
        os.close(terminal)
        assert player.wait(PATIENCE) == 0
        publisher.signal(signal.SIGTERM)
        assert publisher.wait() == 0
    assert re.search(rb"\r *\rplayed [\d.]+ s, \d+ messages", shown)
    facts = metadata(played)
    assert facts["duration"] >= float(told[1]) - 0.05  # told to a tenth
    assert facts["duration"] == max(tag.timestamp for tag in tags(played)) / 1000
    payloads = {tag.payload for tag in mediaTags(sample)}
    assert {tag.payload for tag in mediaTags(played)} <= payloads


def test_interruptedPublish(capture, sample, tmp_path):
    with start(
        tmp_path, "publish", sample, capture.url("a"), "--speed", 0.1
    ) as publisher:
        capture.server.expect("Recording live/a to")  # so media have come
        publisher.signal(signal.SIGTERM)
        assert publisher.wait() == 130
        assert publisher.output.startswith("published ")
    capture.ended("a")
    assertBeginning(mediaTags(capture.recording("a")), mediaTags(sample))


def test_loop(capture, sample, tmp_path):
    played = tmp_path / "played.flv"
    arguments = ("publish", sample, capture.url("a"), "--loop", "--speed", "8")
    with (
        start(tmp_path, "play", capture.url("a"), played, "--duration", 5) as player,
        start(tmp_path, *arguments) as publisher,
    ):
        assert player.wait() == 0
        publisher.signal(signal.SIGTERM)
        assert publisher.wait() == 0
    times = [tag.timestamp for tag in frames(tags(played), 9)]
    steps = {later - time for time, later in pairwise(times)}
    assert max(steps) < 200
    assert min(steps) > 0
    assert times[-1] - times[0] < 5000


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("publish", "no.flv", "{url}"), "no.flv: No such file or directory"),
        (("publish", "text", "{url}"), "not an FLV file of version 1"),
        (("publish", "cut.flv", "{url}"), "the file ends within a tag"),
        (("publish", "empty.flv", "{url}"), "there is nothing in the file"),
        (("play", "{url}", "text"), "text: File exists"),
        (("play", "{url}", "new", "--timeout", "4"), "Waited 4 s for audio or video"),
        (
            ("play", "rtmps://127.0.0.1:{port}/live/a", "new"),
            "The connection is lost: ",
        ),
        (("play", "{url}", "new", "--endpoint", "unix:/nowhere"), "no connection: "),
        (("play", "rtmp://127.0.0.1:{port}/no/a", "new"), "(NetConnection.Connect."),
    ],
)
def test_oneLineForWhatGoesWrong(sample, tmp_path, arguments, why):
    data = sample.read_bytes()
    (tmp_path / "text").write_text("text")
    (tmp_path / "cut.flv").write_bytes(data[:-1])
    (tmp_path / "empty.flv").write_bytes(data[:13])
    with capturing(tmp_path, "--application", "live") as capture:
        values = {"url": capture.url("a"), "port": capture.port}
        done = run(tmp_path, *(argument.format(**values) for argument in arguments))
    assert done.returncode == 1
    assert why in done.stderr
    assert done.stderr.startswith(f"python -m twisted_rtmp.client {arguments[0]}: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_theNameIsTaken(capture, sample, tmp_path):
    with start(tmp_path, "publish", sample, capture.url("a"), "--loop") as publisher:
        capture.server.expect("publishes live/a")
        done = run(tmp_path, "publish", sample, capture.url("a"))
        assert done.returncode == 1
        assert done.stderr.endswith("(NetStream.Publish.BadName)\n")
        publisher.signal(signal.SIGTERM)
        assert publisher.wait() == 0


def test_theServerStops(capture, sample, tmp_path):
    """What is played is finished; what is published is not."""
    played = tmp_path / "played.flv"
    with (
        start(tmp_path, "publish", sample, capture.url("a"), "--loop") as publisher,
        start(tmp_path, "play", capture.url("a"), played) as player,
    ):
        capture.server.expect("plays live/a")
        while not played.exists():
            assert player._process.poll() is None
        capture.server.signal(signal.SIGTERM)
        assert publisher.wait() == 1
        assert player.wait() == 0, player.output
    assert metadata(played)["filesize"] == played.stat().st_size


def test_unixSocketAndKey(sample, tmp_path):
    path = tmp_path / "rtmp.sock"
    with capturing(tmp_path, "--listen", f"unix:{path}") as capture:
        done = run(
            tmp_path,
            *("publish", sample, "rtmp://anything/live", "--speed", "max"),
            *("--key", "a?token=1", "--endpoint", f"unix:{path}"),
        )
        assert done.returncode == 0, done.stderr
        capture.ended("a")
        assertSame(mediaTags(capture.recording("a")), mediaTags(sample))


@pytest.mark.parametrize("trusted", [True, False])
def test_tls(sample, tmp_path, trusted):
    pem = tmp_path / "server.pem"
    pem.write_bytes(certificate("localhost"))
    listen = f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
    with capturing(tmp_path, "--listen", listen) as capture:
        port = capture.server.port()
        url = f"rtmps://localhost:{port}/live/a"
        arguments = ["publish", sample, url, "--speed", "max"]
        if trusted:
            arguments += ["--ca", pem]
        done = run(tmp_path, *arguments)
        if not trusted:
            assert done.returncode == 1
            assert "certificate verify failed" in done.stderr
            return
        assert done.returncode == 0, done.stderr
        capture.ended("a")
        assertSame(mediaTags(capture.recording("a")), mediaTags(sample))


def test_verbose(capture, sample, tmp_path):
    url = capture.url("s3cret?token=t0ken")
    done = run(tmp_path, "publish", sample, url, "--speed", "max", "--verbose")
    assert done.returncode == 0
    assert "connected to rtmp://127.0.0.1" in done.stderr
    assert "s3cret" not in done.stderr
    assert "t0ken" not in done.stderr
