"""Addresses of streams, and their errors."""

from __future__ import annotations

import pytest

from twisted_rtmp.client.errors import InvalidURL
from twisted_rtmp.client.url import RTMPURL

#: Paths as ffmpeg 5.1 splits them; tests/clients asks it again.
SPLITS = [
    ("/a", "a", ""),
    ("/a/", "a", ""),
    ("/a/b", "a", "b"),
    ("/a/b/c", "a/b", "c"),
    ("/a/b/c/d", "a/b", "c/d"),
    ("/a/b/c?x=y:z", "a/b", "c?x=y:z"),
    ("/a/mp4:b/c", "a", "mp4:b/c"),
    ("/a/b.mp4", "a", "mp4:b.mp4"),
    ("/a/b.f4v", "a", "mp4:b.f4v"),
    ("/a/flv:b.mp4", "a", "flv:b.mp4"),
    ("/a/b.flv", "a", "b"),
    ("/a/b.mp4?x", "a", "b.mp4?x"),
    ("/a/b/", "a/b", ""),
    ("/ondemand/x/y", "ondemand", "x/y"),
    ("/a/b%20c", "a", "b%20c"),
    ("/a?t=1", "a?t=1", ""),
    ("/a?t=1/b", "a?t=1", "b"),
    ("/a?t=1/b?x=y", "a?t=1", "b?x=y"),
    ("/a?t=1/b/c", "a?t=1/b", "c"),
    ("/a?t=1/b/c/d", "a?t=1/b", "c/d"),
    ("/a?t=1/mp4:b/c", "a?t=1", "mp4:b/c"),
    ("/a/?t=1/b", "a/?t=1", "b"),
    ("", "", ""),
]


@pytest.mark.parametrize(("path", "application", "name"), SPLITS)
def test_applicationAndName(path, application, name):
    url = RTMPURL.parse(f"rtmp://host{path}")
    assert (url.application, url.name) == (application, name)


@pytest.mark.parametrize(
    ("path", "application", "name"),
    [
        # Where ffmpeg takes the query for a part of the path.
        ("/a/b?x=1/2", "a", "b?x=1/2"),
        ("/a/b/c?x=1/2:3", "a/b", "c?x=1/2:3"),
        ("?q", "", "?q"),
        ("/a/b?x?y=z", "a", "b?x?y=z"),
        ("/a/b#c", "a", "b#c"),
        ("/a/b.flv?x", "a", "b.flv?x"),
        ("/a/b?x.flv", "a", "b?x.flv"),
    ],
)
def test_queriesBelongToTheName(path, application, name):
    url = RTMPURL.parse(f"rtmp://host{path}")
    assert (url.application, url.name) == (application, name)


@pytest.mark.parametrize(
    ("text", "application"),
    [
        ("rtmp://host/app", "app"),
        ("rtmp://host/app/", "app"),
        ("rtmp://host/a/b/c", "a/b/c"),
        ("rtmp://host/a?t=1/2", "a?t=1/2"),
        ("rtmp://host", ""),
    ],
)
def test_serverAndKey(text, application):
    url = RTMPURL.ofServer(text, "k/e?y=1.flv")
    assert (url.application, url.name) == (application, "k/e?y=1.flv")


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port"),
    [
        ("rtmp://example.com/a/b", "rtmp", "example.com", 1935),
        ("rtmps://example.com/a/b", "rtmps", "example.com", 443),
        ("RTMP://example.com:80/a/b", "rtmp", "example.com", 80),
        ("rtmp://example.com:/a/b", "rtmp", "example.com", 1935),
        ("rtmp://[::1]/a/b", "rtmp", "::1", 1935),
        ("rtmps://[2001:db8::1]:8443/a/b", "rtmps", "2001:db8::1", 8443),
        ("rtmp://u:p@[::1]:19350/a/b", "rtmp", "::1", 19350),
        ("  rtmp://127.0.0.1/a/b\n", "rtmp", "127.0.0.1", 1935),
        ("rtmp://example.com?a@b:c", "rtmp", "example.com", 1935),
    ],
)
def test_server(text, scheme, host, port):
    url = RTMPURL.parse(text)
    assert (url.scheme, url.host, url.port) == (scheme, host, port)
    assert url.secure == (scheme == "rtmps")


@pytest.mark.parametrize(
    ("credentials", "username", "password"),
    [
        ("", "", ""),
        ("me@", "me", ""),
        ("me:secret@", "me", "secret"),
        ("me:a:b@c@", "me", "a:b@c"),
        ("m%40e:s%2Fe%3Ac@", "m@e", "s/e:c"),
        (":@", "", ""),
    ],
)
def test_credentials(credentials, username, password):
    url = RTMPURL.parse(f"rtmp://{credentials}host/a/b@c")
    assert (url.username, url.password, url.host) == (username, password, "host")
    assert url.name == "b@c"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must begin with"),
        ("host/a/b", "must begin with"),
        ("rtmp:/host/a/b", "must begin with"),
        ("http://host/a/b", "http:// is not supported"),
        ("rtmpe://host/a/b", "obsolete"),
        ("rtmpt://host/a/b", "tunnels"),
        ("rtmp:///a/b", "must have a host"),
        ("rtmp://:1935/a/b", "must have a host"),
        ("rtmp://u:p@/a/b", "must have a host"),
        ("rtmp://host:0/a/b", "must be a number from 1 to 65535"),
        ("rtmp://host:65536/a/b", "must be a number from 1 to 65535"),
        ("rtmp://host:9999999999/a/b", "must be a number from 1 to 65535"),
        ("rtmp://host:x/a/b", "must be a number from 1 to 65535"),
        ("rtmp://host:-1/a/b", "must be a number from 1 to 65535"),
        ("rtmp://host:\u0661/a/b", "must be a number from 1 to 65535"),
        ("rtmp://::1/a/b", "must be in brackets"),
        ("rtmp://[::1/a/b", "brackets"),
        ("rtmp://[::1]1935/a/b", "brackets"),
        ("rtmp://host/a/b live=1", "' '"),
        ("rtmp://host/a/b\r\nc", "'\\r'"),
        ("rtmp://host/a/\x00", "'\\x00'"),
    ],
)
def test_refused(text, why):
    with pytest.raises(InvalidURL) as caught:
        RTMPURL.parse(text)
    assert why in str(caught.value)


def test_tcURLHasNoSecrets():
    url = RTMPURL.parse("rtmps://me:secret@[::1]/live/inst/key?token=t")
    assert url.tcURL == "rtmps://[::1]:443/live/inst"
    for shown in (str(url), repr(url), url.tcURL):
        for secret in ("secret", "key", "token"):
            assert secret not in shown


def test_tcURLHasTheApplicationsQuery():
    url = RTMPURL.ofServer("rtmp://host/app?token=1", "key")
    assert url.tcURL == "rtmp://host:1935/app?token=1"
    assert str(url) == "rtmp://host:1935/app"
