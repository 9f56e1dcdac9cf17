"""The package as twistd and Python see it."""

import os
import re
import signal
import subprocess
import sys

import pytest
from serverprocess import ROOT, TWISTD, Server, environment


def run(code, *arguments, cwd="/"):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment(),
        cwd=cwd,
        capture_output=True,
        text=True,
    )


def test_twistdListsTheSubcommand():
    result = run(TWISTD, "--help")
    assert "    rtmp " in result.stdout, result.stderr


def test_twistListsTheSubcommand():
    result = subprocess.run(
        [sys.executable, "-m", "twisted", "--help"],
        env=environment(),
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert "    rtmp " in result.stdout


def test_twistdPrintsHelpAndVersion():
    text = run(TWISTD, "rtmp", "--help").stdout
    for option in ("--port", "--listen", "--record", "--once", "--pipe", "--takeover"):
        assert option in text
    described = [line[28:] for line in text.splitlines() if line.startswith("      ")]
    assert not [line for line in described if re.search(r"\S {3,}\S", line)]
    assert re.fullmatch(
        r"twisted_rtmp \d+\.\d+\.\d+\n", run(TWISTD, "rtmp", "--version").stdout
    )


def test_noPackageMarkers():
    assert not [*(ROOT / "twisted").rglob("__init__.py")]


@pytest.mark.parametrize(
    ("room", "known"), [("wire", "wire.connection"), ("media", "media.payloads")]
)
def test_needsNoTwisted(room, known):
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "twisted_rtmp" / room).glob("*.py"))
    ]
    assert f"twisted_rtmp.{known}" in modules
    code = (
        f"import sys, {', '.join(modules)}\n"
        "found = {m.split('.')[0] for m in sys.modules} & {'twisted', 'zope'}\n"
        "sys.exit(str(found) if found else 0)"
    )
    result = run(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "module",
    [
        "twisted_rtmp.tap",
        "twisted_rtmp.service",
        "twisted_rtmp.settings",
        "twisted_rtmp.assembly",
        "twisted_rtmp.factory",
        "twisted.plugins.twisted_rtmp_plugin",
    ],
)
def test_importingDoesNotChooseAReactor(module):
    code = f"import sys, {module}; sys.exit('twisted.internet.reactor' in sys.modules)"
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_pluginFileImportsNothingOfOurs():
    code = (
        "import sys, twisted.plugins.twisted_rtmp_plugin\n"
        "sys.exit(any(m.startswith('twisted_rtmp') for m in sys.modules))"
    )
    result = run(code)
    assert result.returncode == 0, result.stderr


# The pid file of a server that has not come to its end


def starts(folder, *options):
    """Run the server for as long as it takes to listen; give what it printed."""
    with Server.script([*options, "-n", "rtmp", "--port", "0"], folder) as server:
        server.port()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        return server.output


def test_aPIDFileOfThisProcessIsRemoved(tmp_path):
    """In a container the new server has the number of the one that crashed."""
    code = (
        "import os; open('twistd.pid', 'w').write(str(os.getpid()));"
        f"{TWISTD.replace('run()', '')}"
        "sys.argv[1:] = ['-n', 'rtmp', '--port', '0']; run()"
    )
    with Server([sys.executable, "-c", code], tmp_path) as server:
        server.port()
        assert f"process {server.pid} is this one" in server.output
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert not (tmp_path / "twistd.pid").exists()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc")
def test_aPIDFileOfAnotherProgramIsRemoved(tmp_path):
    with subprocess.Popen(["sleep", "60"]) as other:
        (tmp_path / "other.pid").write_text(f"{other.pid}\n")
        output = starts(tmp_path, "--pidfile=other.pid")
        other.kill()
    assert f"process {other.pid} is another program" in output


def test_anEmptyPIDFileIsRemoved(tmp_path):
    (tmp_path / "twistd.pid").write_bytes(bytes(3))
    assert "it is empty" in starts(tmp_path)


def test_aServerThatRunsKeepsItsPIDFile(tmp_path):
    with Server.twistd(["--port", "0"], tmp_path) as server:
        server.port()
        before = (tmp_path / "twistd.pid").read_text()
        result = run(TWISTD, "-n", "rtmp", "--port", "0", cwd=tmp_path)
        assert result.returncode == 1
        assert "Another twistd server is running" in result.stderr
        assert (tmp_path / "twistd.pid").read_text() == before == str(server.pid)


def test_anythingElseInAPIDFileIsForTwistd(tmp_path):
    (tmp_path / "twistd.pid").write_text("text")
    result = run(TWISTD, "-n", "rtmp", "--port", "0", cwd=tmp_path)
    assert "contains non-numeric value" in result.stderr
    assert (tmp_path / "twistd.pid").read_text() == "text"
