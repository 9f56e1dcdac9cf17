"""The measurements that the documentation tells people to repeat still run."""

from __future__ import annotations

import subprocess
import sys

from serverprocess import PATIENCE, ROOT, environment

MEMORY = (
    *("--idle=20", "--publishers=2", "--players=4"),
    *("--seconds=0.1", "--settle=0"),
)


def test_memoryIsMeasured() -> None:
    """Every state is reached, and a few peers leave nothing to speak of."""
    ended = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "memory.py", *MEMORY],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    states = [line.split("  ")[0] for line in lines if not line.startswith(" ")]
    assert states[:-1] == [
        "a server that has served a stream",
        "20 idle connections",
        "gone",
        "2 publishers of 1 Mb/s",
        "and 4 players of 4 forms",
        "that take nothing any more, for 0.1 s",
        "gone",
    ]
    assert states[-1].startswith("remained: ")
