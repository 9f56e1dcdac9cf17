"""The package as twistd and Python see it."""

import re
import subprocess
import sys

import pytest
from serverprocess import ROOT, TWISTD, environment


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
