"""
A real browser without a window, and the server of the page that it shows.

The page plays with mpegts.js and reports what it sees of that.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

from capture import needed
from serverprocess import PATIENCE, program

HERE = Path(__file__).parent
PAGE = (HERE / "player.html").read_text()
MPEGTS = HERE / "node_modules" / "mpegts.js" / "dist" / "mpegts.js"

#: Without a sandbox, since tests in containers run as root; sound goes nowhere, and
#: videos may begin without a click.
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
)


class PageServer(ThreadingHTTPServer):
    """
    Serves a page on a port of its own, so that it asks another origin to play.

    @ivar page: what it serves.
    @ivar origin: the page's origin.
    @ivar reports: what the page said.
    """

    daemon_threads = True

    def __init__(self, page: str) -> None:
        super().__init__(("127.0.0.1", 0), PageRequest)
        self.page = page
        self.origin = f"http://127.0.0.1:{self.server_port}"
        self.reports: queue.Queue[dict[str, Any]] = queue.Queue()
        self._thread = threading.Thread(target=self.serve_forever)
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class PageRequest(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        if self.path == "/":
            kind, data = "html", self.server.page.encode()
        elif self.path == "/mpegts.js":
            kind, data = "javascript", MPEGTS.read_bytes()
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("content-type", f"text/{kind}; charset=utf-8")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        size = int(self.headers["content-length"])
        self.server.reports.put(json.loads(self.rfile.read(size)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class Browser:
    """
    Chromium with the page open.

    As a context manager it is killed at the end.
    """

    def __init__(
        self,
        urls: dict[str, str],
        folder: Path,
        page: str | PageServer = PAGE,
        seconds: float = 1,
    ) -> None:
        """
        Open the page.

        @param urls: what to play, by names for the reports.
        @param page: the page, or its server, which is stopped at the end.
        @param seconds: of each, until it is reported to be playing.
        """
        command = program("chromium")
        if not MPEGTS.exists():
            needed("mpegts.js (npm ci --prefix tests/clients)")
        self._pages = PageServer(page) if isinstance(page, str) else page
        players = json.dumps(
            [{"id": name, "url": url, "seconds": seconds} for name, url in urls.items()]
        )
        url = f"{self._pages.origin}/#{quote(players)}"
        self._said = folder / "chromium.log"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [command, *OPTIONS, f"--user-data-dir={folder / 'profile'}", url],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def __enter__(self):
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        self._pages.__exit__()

    def reported(self, event: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """
        Wait until all these players have reported an event: what they reported.

        @raise AssertionError: one reports an error, or they do not.
        """
        found: dict[str, dict[str, Any]] = {}
        while set(ids) - set(found):
            try:
                report = self._pages.reports.get(timeout=PATIENCE)
            except queue.Empty:
                said = self._said.read_text(errors="replace")
                raise AssertionError(f"only {sorted(found)}: {said}") from None
            assert report["event"] != "error", report
            assert report["event"] == event, report
            found[report["id"]] = report
        return found
