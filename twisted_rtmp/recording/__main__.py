"""
C{python -m twisted_rtmp.recording FILE...}: finishes FLV files after a crash.

Prints one line a file.  The exit status is 0 if all files are whole now, 1 if one of
them is not, 2 if the command line is invalid.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from twisted_rtmp.recording.repair import Repaired, RepairError, repair

#: Seconds between two lines of progress, and before the first: small files need none.
PROGRESS_SECONDS = 1.0


class Progress:
    """A line of progress through a file, once a second."""

    def __init__(
        self,
        path: str,
        show: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shown = False
        self._path = path
        self._show = show
        self._clock = clock
        self._last = clock()

    def __call__(self, done: int, total: int) -> None:
        now = self._clock()
        if now - self._last >= PROGRESS_SECONDS:
            self._last = now
            self.shown = True
            percent = 100 * done // max(total, 1)
            self._show(f"{self._path}: {done} of {total} bytes, {percent} %")


def describe(repaired: Repaired) -> str:
    """Make one line about a file that is whole now."""
    what = "repaired" if repaired.changed else "nothing to do"
    line = (
        f"{repaired.path}: {what}, {repaired.duration:.3f} s, {repaired.tags} tags,"
        f" {repaired.size} bytes"
    )
    if repaired.cut:
        line += f"; {repaired.cut} bytes of an unfinished tag cut off"
    if repaired.damaged:
        line += f"; {repaired.damaged} damaged bytes left out"
    return line


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command.

    @return: the exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m twisted_rtmp.recording",
        description="Finish FLV recordings that a crash left behind: cut an unfinished"
        " tag off the end, write duration and index at the start.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument(
        "--output",
        metavar="NEW",
        help="write a new file and leave FILE as it is; needed for files of other"
        " programs and for damage in the middle, which is left out",
    )
    options = parser.parse_args(arguments)
    if options.output is not None and len(options.files) > 1:
        parser.error("--output is for one FILE")
    status = 0
    terminal = sys.stderr.isatty()

    def show(line: str) -> None:
        sys.stderr.write(f"\r{line}" if terminal else f"{line}\n")
        sys.stderr.flush()

    for path in options.files:
        progress = Progress(path, show)
        try:
            line = describe(repair(path, options.output, progress))
            stream = sys.stdout
        except (OSError, RepairError) as error:
            text = (error.strerror if isinstance(error, OSError) else None) or str(
                error
            )
            line = f"{path}: not repaired: {text}"
            stream = sys.stderr
            status = 1
        if progress.shown and terminal:
            sys.stderr.write("\n")
        stream.write(line + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
