"""Print the README's N-th shell command: python3 .ci/readme.py N."""

import re
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def commands(text: str) -> list[str]:
    """Find the fenced shell blocks."""
    return [
        block.strip()
        for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


if __name__ == "__main__":
    print(commands(README.read_text())[int(sys.argv[1]) - 1])
