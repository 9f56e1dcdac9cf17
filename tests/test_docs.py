"""What the documentation tells people to type works."""

import os
import re
import shlex
import signal
import subprocess
import sys

import pytest
from certificates import certificate
from serverprocess import (
    ROOT,
    PublishError,
    Server,
    environment,
    program,
    publish,
)
from twisted.python.systemd import ListenFDs

from twisted_rtmp.tap import Options

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commandsOf(text):
    """Each line of each shell block, continued lines joined."""
    return [
        line.strip()
        for block in blocks(text, "sh")
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip() and not line.startswith("#")
    ]


COMMANDS = commandsOf(README)

#: Who runs each of README's commands.
RUN_BY = {
    "venv/bin/twistd -n rtmp --port 1935": ".ci/run",
    "venv/bin/python -m pytest": ".ci/run",
    "ffmpeg -re": "test_readmesFfmpeg",
    "venv/bin/twistd -n rtmp": "test_serversOptionsAreRight",
    "venv/bin/twistd -n rtmp --no-record --once --pipe": "test_readmesPipe",
    "venv/bin/twistd -ny docs/server.tac": "test_tac",
    "venv/bin/python docs/embed.py": "test_embed",
    "venv/bin/python -m twisted_rtmp.recording": "test_readmesRepair",
    "venv/bin/python -m twisted_rtmp.client": "test_readmesClient",
}


def test_readmeBeginsWithTheTwoCommands():
    first, second, *_ = COMMANDS
    venv = "python3 -m venv venv && venv/bin/pip install "
    assert first == venv + ". && venv/bin/twistd -n rtmp --port 1935"
    assert second == venv + "'.[test]' && venv/bin/python -m pytest"
    # .ci/run takes them from here, by their numbers.
    code = [sys.executable, str(ROOT / ".ci" / "readme.py")]
    for number, command in (("1", first), ("2", second)):
        printed = subprocess.run([*code, number], capture_output=True, text=True)
        assert printed.stdout.strip() == command
        script = (ROOT / ".ci" / "run").read_text()
        assert f"python3 .ci/readme.py {number}" in script


@pytest.mark.parametrize("command", COMMANDS)
def test_everyReadmeCommandIsRun(command):
    by = [runner for start, runner in RUN_BY.items() if start in command]
    assert by
    assert all(runner == ".ci/run" or runner in globals() for runner in by)


def serverCommands():
    for page in PAGES:
        text = page.read_text()
        lines = commandsOf(text)
        units = re.sub(r"\\\n\s*", "", text)
        lines += re.findall(r"^ExecStart=(.*)$", units, re.MULTILINE)
        for line in lines:
            match = re.search(r"twistd\S* (?:-\S+ )*rtmp\b(.*)", line)
            if match is not None:
                yield pytest.param(match[1], id=f"{page.name}:{match[1].strip()}")


@pytest.mark.parametrize("arguments", list(serverCommands()))
def test_serversOptionsAreRight(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # What the reader of the page has: certificates, keys, sockets from systemd.
    for name in ("key.pem", "cert.pem", "chain.pem"):
        (tmp_path / name).write_bytes(certificate("localhost"))
    for name in ("keys", "keys.txt"):
        (tmp_path / name).write_text("s3cret stage\n")
    tracks, *_ = blocks((ROOT / "docs" / "obs-multitrack.md").read_text(), "json")
    (tmp_path / "tracks.json").write_text(tracks)
    monkeypatch.setattr(ListenFDs, "inheritedNamedDescriptors", lambda _: {"rtmp": 3})
    # systemd's %d is a folder with credentials; other folders are not ours to write.
    words = shlex.split(arguments.replace("%d/", "/credentials/"))
    absolute = re.compile(r"(?<![\w./])(?!//)(?:/[\w.-]+)*/([\w.-]+)")
    options = Options()
    options.parseOptions([absolute.sub(rf"{tmp_path}/\1", word) for word in words])
    assert options.settings.listen


def test_readmesFfmpeg(tmp_path):
    (command,) = (line for line in COMMANDS if line.startswith("ffmpeg "))
    ffmpeg = program("ffmpeg")
    with Server.twistd(["--port", "0"], tmp_path) as server:
        port = server.port()
        words = shlex.split(command.replace(":1935/", f":{port}/"))
        subprocess.run(
            [ffmpeg, "-nostdin", "-v", "error", *words[1:]], check=True, timeout=50
        )
        server.expect("live/test ended after .* 60 video 0 audio received, 60 and 0")
        server.signal(signal.SIGINT)
        assert server.wait() == 0, server.output
    (recording,) = tmp_path.glob("recordings/live/test-*Z.flv")
    assert recording.stat().st_size > 10_000


def test_readmesPipe(tmp_path):
    program("ffmpeg")
    (command,) = (line for line in COMMANDS if "--pipe" in line)
    words = shlex.split(command.partition(" rtmp ")[2])
    with Server.twistd([*words, "--port", "0"], tmp_path) as server:
        publish(f"rtmp://127.0.0.1:{server.port()}/live/test")
        assert server.wait() == 0, server.output
        assert "30 video 0 audio received" in server.output
    assert (tmp_path / "test.mkv").stat().st_size > 1000
    assert not (tmp_path / "recordings").exists()


def test_readmesRepair(tmp_path):
    (command,) = (line for line in COMMANDS if "twisted_rtmp.recording" in line)
    with Server.twistd(["--port", "0"], tmp_path) as server:
        publish(f"rtmp://127.0.0.1:{server.port()}/live/test")
        server.expect("live/test ended after")
    (recording,) = tmp_path.glob("recordings/live/test-*Z.flv")
    *words, _ = shlex.split(command)
    result = subprocess.run(
        [sys.executable, *words[1:], str(recording)],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


def test_readmesClient(tmp_path):
    commands = [line for line in COMMANDS if "twisted_rtmp.client" in line]
    with Server.twistd(["--port", "0"], tmp_path) as server:
        url = f"rtmp://localhost:{server.port()}/live"
        publish(f"{url}/first")
        server.expect("live/first ended after")
        (recording,) = tmp_path.glob("recordings/live/first-*Z.flv")
        recording.rename(tmp_path / "recording.flv")
        publishing, playing = (
            [
                sys.executable,
                *shlex.split(command.replace("rtmp://localhost/live", url))[1:],
            ]
            for command in commands
        )
        with Server(playing, tmp_path) as player:
            server.expect("plays live/test")
            with Server(publishing, tmp_path) as publisher:
                assert publisher.wait() == 0, publisher.output
            assert player.wait() == 0, player.output
        server.expect("live/test ended after .* 30 video 0 audio received, 30 and 0")
    assert (tmp_path / "copy.flv").stat().st_size > 1000


def test_clientsProgram(tmp_path):
    code, _ = blocks((ROOT / "docs" / "client.md").read_text(), "python")
    with Server.twistd(["--port", "0"], tmp_path) as server:
        address = f"rtmp://localhost:{server.port()}/"
        assert "rtmp://localhost/" in code
        code = code.replace("rtmp://localhost/", address)
        subprocess.run(
            [sys.executable, "-c", code], env=environment(), check=True, timeout=50
        )
        server.expect("publishes live/test")
        server.expect("live/test ended after")


def test_readmesProgram(tmp_path):
    (code,) = blocks(README, "python")
    assert '"tcp:1935"' in code
    code = code.replace('"tcp:1935"', '"tcp:0:interface=127.0.0.1"')
    # What a reader learns from the port being 1935, the test has to be told.
    code = code.replace("    await serverFrom", "    port = await serverFrom").replace(
        "    await Deferred()",
        "    print('Listening on 127.0.0.1:%d ' % port.getHost().port, flush=True)\n"
        "    await Deferred()",
    )
    with Server([sys.executable, "-c", code], tmp_path) as server:
        publish(f"rtmp://127.0.0.1:{server.port()}/live/test")
        server.expect("^30 video 0 audio received")
        server.signal(signal.SIGINT)
        assert server.wait() == 0, server.output


def test_tac(tmp_path, monkeypatch):
    monkeypatch.setenv("RTMP_ENDPOINT", "tcp:0:interface=127.0.0.1")
    command = ["-ny", str(ROOT / "docs" / "server.tac")]
    with Server.script(command, tmp_path) as server:
        url = f"rtmp://127.0.0.1:{server.port()}"
        publish(f"{url}/live/s3cret", frames=75)
        server.expect(r"live/stage: \d+ kbit/s")
        server.expect("live/stage: no more")
        server.expect("live/stage ended .* 75 video 0 audio received")
        assert "s3cret" not in server.output
        with pytest.raises(PublishError):
            publish(f"{url}/live/guess")
        with pytest.raises(PublishError):
            publish(f"{url}/other/s3cret")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output
        assert "This key is not known." in server.output
        assert "There is only one application here: live." in server.output
        assert "Traceback" not in server.output


def test_embed(tmp_path):
    command = [sys.executable, str(ROOT / "docs" / "embed.py")]
    with Server([*command, "tcp:0:interface=127.0.0.1"], tmp_path) as server:
        port = int(server.expect(r"Listening on 127\.0\.0\.1:(\d+)$")[1])
        url = f"rtmp://127.0.0.1:{port}"
        publish(f"{url}/live/stage?token=1234", frames=30)
        server.expect("^live/stage: 3 key frames$")
        with pytest.raises(PublishError):
            publish(f"{url}/live/stage?token=1")
        with pytest.raises(PublishError):
            publish(f"{url}/other/stage?token=1234")
        server.signal(signal.SIGINT)
        assert server.wait() == 0, server.output
        assert "Traceback" not in server.output


def test_linksLeadSomewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith("http"):
                assert os.path.exists(page.parent / target), f"{page}: {target}"
