"""Web pages that may play, and those that may not: CORS, and DNS rebinding."""

from __future__ import annotations

import json

import pytest
from httpclient import Connection, Getter, Socket
from multitrackkit import OFFER
from rtmpclient import decideBy
from webkit import Answers, Authorizer, Publisher

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.multitrack.offers import OfferFile
from twisted_rtmp.multitrack.resource import MULTITRACK_PATH, MultitrackResource
from twisted_rtmp.web import HTTPSite

PAGE = "https://a.example"
OTHER = "https://evil.example"


@pytest.fixture
def factory(clock):
    return RTMPFactory(clock, latency=0, limits=ServerLimits(publisherIdleSeconds=1000))


@pytest.fixture
def site(clock, factory, tmp_path):
    """A site for pages of some origins, with a configuration for encoders."""
    path = tmp_path / "offer.json"
    path.write_text(json.dumps({**OFFER, "check_stream_key": False}))
    site = HTTPSite(
        factory.registry,
        origins=[PAGE, "http://B.Example:8000", "https://c.example:443"],
        hosts=["stream.example", ".media.example"],
    )
    site.root.putChild(
        MULTITRACK_PATH,
        MultitrackResource(
            factory.registry,
            OfferFile(str(path)),
            lambda: [("RTMP", 1935)],
            site.origins,
        ),
    )
    Publisher(factory)
    return site


class Multitrack:
    """A request for the configuration for encoders."""

    def __new__(cls, site, target, **headers):
        return Getter(site, "/multitrack-config", **headers)


@pytest.fixture(
    params=[Getter, Socket, Multitrack], ids=["response", "socket", "multitrack"]
)
def play(request):
    return Answers(request.param)


def served(play, site, **headers):
    """Tell whether a request is served; otherwise it must be refused."""
    client = play(site, **{"host": "localhost", **headers})
    if isinstance(client, Socket):
        assert client.accepted == (client.rejected != 403)
        return client.accepted
    assert client.status in (200, 403)
    return client.status == 200


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (PAGE, True),
        ("http://b.example:8000", True),
        ("https://c.example", True),
        (OTHER, False),
        ("http://a.example", False),
        ("https://a.example:8443", False),
        ("http://b.example", False),
        ("null", False),
        ("https://a.example.evil.example", False),
        ("*", False),
    ],
)
def test_origins(site, play, lines, origin, allowed):
    assert served(play, site, origin=origin) == allowed
    told = any(f"it comes from a page of {origin}, which is not" in x for x in lines)
    assert told != allowed


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        # Programs, and an address that a person has entered.
        ({}, True),
        ({"sec_fetch_site": "none", "sec_fetch_mode": "navigate"}, True),
        ({"referer": f"{OTHER}/page"}, True),
        # Pages that do not, or cannot, say their origin.
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": "same-site", "sec_fetch_mode": "no-cors"}, False),
        ({"sec_fetch_site": "Cross-Site", "sec_fetch_dest": "video"}, False),
        ({"sec_fetch_site": "cross-site", "referer": f"{OTHER}/a.example"}, False),
        ({"sec_fetch_site": "cross-site", "referer": f"{PAGE}.evil.example/"}, False),
        ({"sec_fetch_site": "cross-site", "referer": f"{PAGE}/page?x"}, True),
        ({"sec_fetch_site": "cross-site", "referer": PAGE}, True),
        ({"sec_fetch_site": "cross-site", "origin": PAGE}, True),
        ({"sec_fetch_site": "same-site", "origin": OTHER}, False),
        ({"sec_fetch_site": "x", "origin": ""}, False),
        # Pages of the server's own.
        ({"sec_fetch_site": "same-origin"}, True),
        ({"sec_fetch_site": "same-origin", "origin": "http://localhost"}, True),
        # Links, in a window of their own or in a frame.
        (
            {
                "sec_fetch_site": "cross-site",
                "sec_fetch_mode": "navigate",
                "sec_fetch_dest": "document",
            },
            True,
        ),
        (
            {
                "sec_fetch_site": "cross-site",
                "sec_fetch_mode": "navigate",
                "sec_fetch_dest": "iframe",
            },
            False,
        ),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}, False),
    ],
)
def test_pagesWithoutAnOrigin(site, play, headers, allowed):
    assert served(play, site, **headers) == allowed


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("a.example", True),
        ("A.Example:8080", True),
        ("a.example.", True),
        ("b.example:9", True),
        ("stream.example:8080", True),
        ("eu.media.example", True),
        ("x.eu.media.example:1", True),
        ("127.0.0.1:8080", True),
        ("192.168.1.5", True),
        ("[::1]:8080", True),
        ("[fe80::1]", True),
        ("localhost:8080", True),
        ("x.localhost", True),
        ("evil.example:8080", False),
        ("media.example", False),
        ("evilmedia.example", False),
        ("a.example.evil.example", False),
        ("x.stream.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("notlocalhost", False),
        ("1.2.3", False),
        ("[1.2.3.4.evil]", False),
        ("::1", False),
        ("a.example:8080:1", False),
        ("a.example@evil.example", False),
        ("a.example, evil.example", False),
        (":8080", False),
        ("a." * 7000, False),
        ("", True),
    ],
)
def test_hosts(site, play, lines, host, known):
    """Not every name that leads here is the server's."""
    assert served(play, site, host=host) == known
    told = any(f"it asks for the host {host[:100]}" in line for line in lines)
    assert told != known


def test_severalHosts(site):
    client = Connection(site)
    client.sendBytes(
        b"HEAD /live/key.flv HTTP/1.1\r\nHost: evil.example\r\nHost: a.example\r\n\r\n"
    )
    assert client.raw.startswith(b"HTTP/1.1 403 ")


def test_oldRequestsHaveNoHost(site):
    client = Connection(site)
    client.sendBytes(b"HEAD /live/key.flv HTTP/1.0\r\n\r\n")
    assert client.raw.startswith(b"HTTP/1.0 200 ")


def test_anyHost(clock, factory):
    site = HTTPSite(factory.registry, origins=[PAGE], hosts=["*"])
    Publisher(factory)
    assert Getter(site, "/live/key.flv", "HEAD", host="x.example").status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("target", ["/live/key.flv", "/multitrack-config"])
def test_pagesThatMayRead(site, method, target):
    client = Getter(site, target, method, host="localhost", origin=PAGE)
    assert client.headers["access-control-allow-origin"] == PAGE
    assert client.headers["access-control-allow-credentials"] == "true"
    assert client.headers["vary"] == "Origin"
    client = Getter(site, target, method, host="localhost")
    assert client.headers["vary"] == "Origin"
    for headers in (client.headers, Getter(site, target, method, origin=OTHER).headers):
        assert "access-control-allow-origin" not in headers
        assert "access-control-allow-credentials" not in headers


def test_noCredentialsWhereAllPagesMayRead(clock, factory):
    site = HTTPSite(factory.registry, origins=["*", PAGE])
    Publisher(factory)
    client = Getter(site, "/live/key.flv", origin=PAGE, host="x.example")
    assert client.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in client.headers


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ("authorization, x-token", "authorization, x-token"),
        ("authorization", "authorization"),
        ("a b", None),
        ("a,\xe9", None),
        ("", None),
    ],
)
def test_headersThatPagesMaySend(site, asked, allowed):
    """Beside credentials, a wildcard would not stand for them."""
    client = Connection(site)
    client.sendBytes(
        b"OPTIONS /live/key.flv HTTP/1.1\r\nHost: localhost\r\nOrigin: https://a.example"
        b"\r\nAccess-Control-Request-Headers: %b\r\n\r\n" % asked.encode("latin-1")
    )
    line = f"Access-Control-Allow-Headers: {allowed}\r\n".encode()
    assert (line in client.raw) == (allowed is not None)
    assert (b"Access-Control-Allow-Headers" in client.raw) == (allowed is not None)


def test_credentialsReachTheAuthorizer(factory, site, play, lines):
    authorizer = decideBy(factory, Authorizer())
    assert served(play, site, authorization="Bearer s3cret", cookie="a=s3cret; b=2")
    if play.kind is Multitrack:
        return  # nobody is asked about a GET
    [connect], [request] = authorizer.connects, authorizer.plays
    assert connect.credentials == {
        "authorization": "Bearer s3cret",
        "cookie": "a=s3cret; b=2",
    }
    assert request.connect is connect
    assert "s3cret" not in repr(connect) + repr(request) + "".join(lines)
    assert served(play, site)
    assert authorizer.connects[1].credentials == {}


@pytest.mark.parametrize(
    ("origins", "hosts"),
    [
        (["a.example"], []),
        (["https://a.example/"], []),
        (["https://a.example:x"], []),
        (["https://"], []),
        (["https://b\xfccher.example"], []),
        ([PAGE], ["stream.example:8080"]),
        ([PAGE], ["https://stream.example"]),
        ([PAGE], [""]),
        ([PAGE], ["*.example"]),
    ],
)
def test_wrongOriginsAndHosts(clock, factory, origins, hosts):
    with pytest.raises(ValueError, match="must be "):
        HTTPSite(factory.registry, origins=origins, hosts=hosts)
