"""C{--http} and C{--http-origin}, and the service that they describe."""

from __future__ import annotations

import signal

import pytest
from httpclient import Getter
from serverprocess import Server, publish
from tapkit import parse, refused, serverOf
from twisted.internet.testing import MemoryReactorClock

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.service import Listener, RTMPService, endpointFromString
from twisted_rtmp.web import HTTPSite


@pytest.mark.parametrize(
    ("arguments", "descriptions"),
    [
        ([], []),
        (["--http", "8080"], ["tcp:8080"]),
        (["--http", "0", "--http", "tcp6:8080"], ["tcp:0", "tcp6:8080"]),
        (["--http", "unix:http.sock"], ["unix:http.sock"]),
    ],
)
def test_endpoints(arguments, descriptions):
    settings = parse("--no-record", *arguments)
    assert list(settings.http.listen) == descriptions
    assert list(settings.http.origins) == ["*"]
    assert len(settings.listen) == 1


def test_origins():
    origins = ["--http-origin", "https://a.example", "--http-origin", "http://b:8000"]
    settings = parse("--http", "0", *origins)
    assert settings.http.origins == ("https://a.example", "http://b:8000")


def test_hostsAndProxies():
    settings = parse(
        *("--http", "0", "--http-origin", "https://a.example"),
        *("--http-host", "b.example", "--http-host", ".c.example"),
        *("--http-trusted-proxy", "127.0.0.1", "--http-trusted-proxy", "10.0.0.0/8"),
    )
    assert settings.http.hosts == ("b.example", ".c.example")
    assert settings.http.trustedProxies == ("127.0.0.1", "10.0.0.0/8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--http", "70000"], "--http '70000': must be a port"),
        (["--http", "8080", "--http", "8080"], "--http: must not have tcp:8080 twice"),
        (["--http", "nonsense:1"], "--http: nonsense:1: 'nonsense' is no endpoint"),
        (["--http", "tcp:x"], "--http: tcp:x: "),
        (
            ["--http-origin", "https://a.example"],
            "--http-origin: must come with an HTTP endpoint",
        ),
        (
            ["--http", "0", "--http-origin", "a.example"],
            "--http-origin: must be like https://example.org, not a.example",
        ),
        (
            ["--http", "0", "--http-host", "a.example"],
            "--http-host: must come with origins other than *",
        ),
        (
            ["--http", "0", "--http-origin", "https://a", "--http-host", "a:80"],
            "--http-host: must be a name such as stream.example.org, or",
        ),
        (
            ["--http-trusted-proxy", "127.0.0.1"],
            "--http-trusted-proxy: must come with an HTTP endpoint",
        ),
        (
            ["--http", "0", "--http-trusted-proxy", "proxy.example"],
            "--http-trusted-proxy: must be an address, a network such as 10.0.0.0/8",
        ),
        (
            ["--http", "0", "--http-origin", "https://a/"],
            "--http-origin: must be like https://example.org, not https://a/",
        ),
    ],
)
def test_wrongOptions(arguments, message):
    assert refused("--no-record", *arguments).startswith(message)


def test_theServiceListensWithASite():
    server = serverOf(
        *("--no-record", "--http", "0", "--http", "unix:h"),
        *("--http-origin", "http://a", "--http-host", "b"),
        *("--http-trusted-proxy", "198.51.100.8"),
    )
    rtmp, tcp, unix = server.listeners
    assert rtmp.factory is None
    assert (tcp.description, unix.description) == ("HTTP, tcp:0", "HTTP, unix:h")
    assert tcp.factory is unix.factory
    assert isinstance(tcp.factory, HTTPSite)
    assert tcp.factory.registry is server.factory.registry
    for headers, status in (
        ({"host": "b", "origin": "http://a"}, 404),
        ({"host": "b", "origin": "http://b"}, 403),
        ({"host": "c", "origin": "http://a"}, 403),
    ):
        client = Getter(tcp.factory, "/live/key.flv", "HEAD", **headers)
        client.leave()
        assert client.status == status
    client = Getter(tcp.factory, "/live/key.flv", host="b", x_forwarded_for="10.0.0.1")
    assert client.protocol.describe().peer.startswith("10.0.0.1")
    client.leave()


def test_aListenerMayHaveAFactoryOfItsOwn():
    reactor = MemoryReactorClock()
    factory = RTMPFactory(reactor)
    site = HTTPSite(factory.registry)
    listeners = [
        Listener("one", endpointFromString(reactor, "tcp:1")),
        Listener("other", endpointFromString(reactor, "tcp:2"), site),
    ]
    RTMPService(reactor, factory, listeners).startService()
    assert [call[:2] for call in reactor.tcpServers] == [(1, factory), (2, site)]


def test_aServerOfItsOwn(tmp_path):
    """The log tells both addresses, and SIGTERM leaves with 0."""
    arguments = ["--listen", "tcp:0:interface=127.0.0.1", "--no-record"]
    arguments += ["--http", "tcp:0:interface=127.0.0.1"]
    with Server.twistd(arguments, tmp_path) as server:
        port = server.port()
        server.expect(
            r"Listening on 127\.0\.0\.1:\d+ \(HTTP, tcp:0:interface=127\.0\.0\.1\)"
        )
        publish(f"rtmp://127.0.0.1:{port}/live/test")
        server.expect("live/test ended after")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output
        assert "Traceback" not in server.output
