"""Live streams by HTTP through the proxies that the documentation configures."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from capture import Capture, assertSame, capturing, frames, mediaTags, tags, waitUntil
from httpclient import FLV
from playing import Publisher
from serverprocess import PATIENCE, ROOT, program
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Request,
)

TEXT = (ROOT / "docs" / "http.md").read_text()


def indented(start: str) -> str:
    """The indented block of the documentation that begins so."""
    match = re.search(
        rf"^    {re.escape(start)}.*\n(?:(?:    .*)?\n)*", TEXT, re.MULTILINE
    )
    assert match is not None
    return match[0]


def httpPort(capture: Capture) -> int:
    return int(capture.server.expect(r"Listening on [0-9.]+:(\d+) \(HTTP")[1])


@contextmanager
def running(command: list[str], folder: Path, descriptors: list[int]) -> Iterator[None]:
    """Run a proxy."""
    with (folder / "proxy.log").open("wb") as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=folder,
            pass_fds=descriptors,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


@contextmanager
def nginx(folder: Path, port: int, listening: socket.socket) -> Iterator[None]:
    """Run nginx on a socket, as if it had been running before."""
    location = indented("location /live/ {").replace(":8080;", f":{port};")
    variables = indented("map $http_upgrade")
    assert str(port) in location
    (folder / "nginx.conf").write_text(
        f"""
        worker_processes 1;
        error_log stderr;
        pid {folder}/nginx.pid;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {folder}/body;
            proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/fastcgi;
            uwsgi_temp_path {folder}/uwsgi;
            scgi_temp_path {folder}/scgi;
            {variables}
            server {{
                listen 127.0.0.1:{listening.getsockname()[1]};
                {location}
            }}
        }}
        """
    )
    command = [program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    # By this it finds its sockets when its program has been replaced.
    environment = ["env", f"NGINX={listening.fileno()};"]
    with running(
        [*environment, *command, "-g", "daemon off;"], folder, [listening.fileno()]
    ):
        yield


@contextmanager
def haproxy(folder: Path, port: int, listening: socket.socket) -> Iterator[None]:
    backend = indented("backend flv").replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    assert str(port) in backend
    (folder / "haproxy.cfg").write_text(
        f"""
defaults
    mode http
    timeout connect 10s
    timeout client 1m
    timeout server 1m
frontend web
    bind fd@{listening.fileno()}
    default_backend flv
{backend}
"""
    )
    command = [program("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]
    with running(command, folder, [listening.fileno()]):
        yield


def tagsIn(path: Path) -> int:
    """How many there are so far."""
    flv = FLV()
    if path.exists():
        flv.feed(path.read_bytes())
    return len(flv.tags)


PROXIES = {
    "nginx": (
        nginx,
        ["tcp:0:interface=127.0.0.1", "--http-trusted-proxy", "127.0.0.1"],
    ),
    "haproxy": (haproxy, ["haproxy:tcp:0:interface=127.0.0.1"]),
}

#: The address of a player, which is not that of the proxy's connection.
PLAYER = "127.0.0.9"


class Socket:
    """A WebSocket by a blocking socket."""

    def __init__(self, port: int, target: str) -> None:
        self.flv = FLV()
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._socket = socket.create_connection(
            ("127.0.0.1", port), PATIENCE, (PLAYER, 0)
        )
        self._socket.sendall(self._ws.send(Request(host="localhost", target=target)))

    def __enter__(self):
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def events(self) -> Iterator[Event]:
        """What comes, to the end."""
        while data := self._socket.recv(65_536):
            self._ws.receive_data(data)
            for event in self._ws.events():
                if isinstance(event, BytesMessage):
                    self.flv.feed(bytes(event.data))
                elif isinstance(event, CloseConnection):
                    self._socket.sendall(self._ws.send(event.response()))
                yield event


@pytest.mark.parametrize("proxy", PROXIES)
def test_throughAProxy(tmp_path: Path, sample: Path, proxy: str) -> None:
    """Each piece comes at once, and the end is one."""
    runProxy, arguments = PROXIES[proxy]
    sent = tags(sample)
    half = len(sent) // 2
    with (
        capturing(tmp_path, "--http", *arguments) as capture,
        socket.create_server(("127.0.0.1", 0)) as listening,
        runProxy(tmp_path, httpPort(capture), listening),
    ):
        port = listening.getsockname()[1]
        url = f"http://127.0.0.1:{port}/live/show.flv"
        path = tmp_path / "curl.flv"
        with (
            subprocess.Popen([program("curl"), "-sSfN", "-o", str(path), url]) as curl,
            Publisher(capture.port, "show") as publisher,
        ):
            capture.server.expect(r"127\.0\.0\.1(:\d+)? plays live/show by HTTP")
            with Socket(port, "/live/show.flv") as client:
                events = client.events()
                assert isinstance(next(events), AcceptConnection)
                capture.server.expect(rf"{PLAYER}(:\d+)? plays live/show by WebSocket")
                # No more is sent before all of this has come.
                publisher.send(sent[:half])
                while len(client.flv.tags) < half:
                    next(events)
                waitUntil(lambda: tagsIn(path) == half, "curl has what was sent")
                publisher.send(sent[half:])
                publisher.end()
                *_, last = events
                assert isinstance(last, CloseConnection)
                assert last.code == 1000
                assert len(client.flv.tags) == len(sent)
            assert curl.wait(PATIENCE) == 0
        assertSame(frames(mediaTags(path)), frames(sent))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["X-Forwarded-For: 127.0.0.66"], "404"),
        (["Origin: https://www.example.org"], "404"),
        (["Origin: https://evil.example"], "403"),
        (["Host: evil.example"], "403"),
    ],
)
def test_nginxTellsWhoAsks(tmp_path: Path, headers: list[str], status: str) -> None:
    with (
        capturing(
            tmp_path,
            *("--http", "tcp:0:interface=127.0.0.1"),
            *("--http-trusted-proxy", "127.0.0.1", "--player-wait", "0.2"),
            *("--http-origin", "https://www.example.org"),
        ) as capture,
        socket.create_server(("127.0.0.1", 0)) as listening,
        nginx(tmp_path, httpPort(capture), listening),
    ):
        result = subprocess.run(
            [
                *(program("curl"), "-sS", "-o", str(tmp_path / "answer")),
                *("-w", "%{http_code}", "--interface", PLAYER),
                *(word for header in headers for word in ("-H", header)),
                f"http://127.0.0.1:{listening.getsockname()[1]}/live/show.flv",
            ],
            stdout=subprocess.PIPE,
            check=True,
            timeout=PATIENCE,
        )
        assert result.stdout == status.encode()
        event = "is refused" if status == "403" else "plays live/show"
        capture.server.expect(rf"{PLAYER}(:\d+)? {event}")
