"""Servers that send their clients to another one when these connect or begin."""

from __future__ import annotations

import pytest
from clientkit import MemoryEndpoint, Outcome, accept, connected, refusing
from relaykit import Moving, Running, published
from rtmpclient import AVC_HEADER, AVC_KEY_FRAME, VIDEO

from twisted_rtmp.client import RTMPURL, ConnectRejected, commands, connectRTMP
from twisted_rtmp.client.limits import FAREWELL_SECONDS, MAX_REDIRECTS
from twisted_rtmp.client.status import REJECTED, Status
from twisted_rtmp.reconnect import MAX_TC_URL_BYTES
from twisted_rtmp.relay import RelayState


def sendingTo(address, **more):
    """Refuse a C{connect}, and name another server."""
    ex = {"code": 302.0, "redirect": address}
    return refusing(REJECTED, "Moved.", ex=ex, **more)


def sendingOn(address):
    """Send a client away when it publishes or plays, as SRS does it."""

    def answer(server, command):
        ex = {"code": 302.0, "redirect": address}
        server.status(REJECTED, 0, level="error", description="Moved.", ex=ex)

    return answer


@pytest.fixture
def studio():
    studio = Moving()
    yield studio
    studio.service.stopService()
    studio.settle()


# What is read


@pytest.mark.parametrize(
    ("properties", "address"),
    [
        ({"ex": {"code": 302.0, "redirect": "rtmp://b/app"}}, "rtmp://b/app"),
        ({"ex": {"redirect": "rtmp://b/app"}}, "rtmp://b/app"),
        ({"ex": {"code": 404.0, "redirect": "rtmp://b/app"}}, ""),
        ({"ex": {"code": 302.0, "redirect": 7.0}}, ""),
        ({"ex": {"code": 302.0}}, ""),
        ({"ex": "rtmp://b/app"}, ""),
        ({}, ""),
    ],
)
def test_redirect(properties, address):
    assert Status({"code": REJECTED, **properties}).redirect == address
    other = {"code": "NetConnection.Connect.Closed", **properties}
    assert Status(other).redirect == ""


@pytest.mark.parametrize(
    ("address", "application"),
    [
        ("rtmp://b/app", "app"),
        ("rtmp://b/app/key", "app"),
        ("rtmp://b/app/key?vhost=c", "app"),
        ("rtmp://b/app/other", "app/other"),
        ("rtmp://b/key", "key"),
        ("/app/key", "app"),
    ],
)
def test_someGiveTheWholeAddress(address, application):
    url = RTMPURL.parse("rtmp://a/app/key?token=1").rejectedTo(address)
    assert (url.application, url.name) == (application, "key?token=1")
    nested = RTMPURL.parse("rtmp://a/app/key/key").rejectedTo("rtmp://b/app/key")
    assert (nested.application, nested.name) == ("app/key", "key")


# When it connects


def test_aPushFollows(studio, lines):
    studio.network.scripted("a", connect=sendingTo("rtmp://b:1936/other?vhost=c"))
    studio.network.scripted("b")
    studio.begin()
    [push] = studio.pushing().pushes
    assert push.state is RelayState.RELAYING
    studio.gop(0)
    server = studio.server("b")
    assert published(server) == studio.sent
    properties = server.of("connect").argument(0)
    assert properties["app"] == "other?vhost=c"
    assert properties["tcUrl"] == "rtmp://b:1936/other?vhost=c"
    assert server.of("publish").argument(1) == "s3cret"
    assert push.at.host == "b"
    assert push.counters.attempts == 1
    assert studio.server("a").transport.disconnected
    assert not any("s3cret" in line for line in lines)
    # After a failure the first server is asked again.
    server.breakOff()
    studio.until(push, RelayState.RELAYING)
    assert studio.hosts() == ["a", "b", "a", "b"]


def test_aPullFollows(studio):
    studio.network.scripted("a", connect=sendingTo("rtmp://b/there"))
    studio.network.scripted("b")
    pull = studio.pulling()
    studio.server("b").media(VIDEO, 0, AVC_HEADER)
    assert pull.live is not None


def test_twoThatSendToEachOther(studio, lines):
    studio.network.scripted("a", connect=sendingTo("rtmp://b/there"))
    studio.network.scripted("b", connect=sendingTo("rtmp://a/there"))
    pull = studio.pulling()
    assert pull.state is RelayState.WAITING
    assert f"{MAX_REDIRECTS} servers in a row" in pull.why
    assert len(studio.hosts()) == MAX_REDIRECTS + 1
    studio.advance(600, 1)
    assert len(studio.hosts()) <= 20 * (MAX_REDIRECTS + 1)
    assert sum(map(len, lines)) < 50_000


@pytest.mark.parametrize(
    ("url", "address", "why"),
    [
        ("rtmps://a/there/s3cret", "rtmp://b/there", "is not encrypted"),
        ("rtmp://a/there/s3cret", "http://b/there", "is not supported"),
        ("rtmp://a/there/s3cret", "rtmp://b/\n", "must not have a character"),
        ("rtmp://a/there/s3cret", "rtmp://b/" + "x" * MAX_TC_URL_BYTES, "more than"),
    ],
)
def test_wrongAddresses(studio, url, address, why):
    studio.network.scripted("a", connect=sendingTo(address))
    studio.network.scripted("b")
    pull = studio.pulling(url)
    assert pull.state is RelayState.WAITING
    assert why in pull.why
    assert studio.hosts() == ["a"]


def test_noCredentialsForAnotherHost(clock):
    url = RTMPURL.parse("rtmp://me:pass@a/app/key").rejectedTo("rtmp://b/app")
    assert (url.username, url.password) == ("", "")


def test_anEndpointAloneIsForOneServer(clock):
    endpoint = MemoryEndpoint(clock, connect=sendingTo("rtmp://b/app"))
    connecting = Outcome(connectRTMP(clock, "rtmp://a/app/key", endpoint=endpoint))
    assert isinstance(connecting.error, ConnectRejected)
    assert connecting.error.redirect == "rtmp://b/app"
    assert len(endpoint.servers) == 1


def test_anEndpointForEachServer(clock):
    endpoints = {
        "a": MemoryEndpoint(clock, connect=sendingTo("rtmp://b/app")),
        "b": MemoryEndpoint(clock, connect=accept),
    }
    client = Outcome(
        connectRTMP(clock, "rtmp://a/app/key", endpoint=lambda url: endpoints[url.host])
    ).result
    assert client.url == RTMPURL.parse("rtmp://b/app/key")


# When it begins


@pytest.mark.parametrize("url", ["rtmp://b/there", "rtmp://b/there/s3cret"])
def test_aPushIsSentOn(studio, url):
    studio.network.scripted("a", publish=sendingOn(url))
    studio.network.scripted("b")
    studio.begin()
    [push] = studio.pushing().pushes
    studio.network.pump()
    assert push.state is RelayState.RELAYING
    assert push.at == RTMPURL.parse("rtmp://b/there/s3cret")
    studio.gop(0)
    assert published(studio.server("b")) == studio.sent
    assert push.counters.attempts == 1


def test_aPullIsSentOn(studio):
    studio.network.scripted("a", play=sendingOn("rtmp://b/there"))
    studio.network.scripted("b")
    pull = studio.pulling()
    studio.network.pump()
    studio.server("b").media(VIDEO, 0, AVC_HEADER)
    assert pull.live is not None
    assert studio.hosts() == ["a", "b"]


def test_noneIsSentOnForEver(studio):
    studio.network.scripted("a", play=sendingOn("rtmp://b/there"))
    studio.network.scripted("b", play=sendingOn("rtmp://a/there"))
    pull = studio.pulling()
    studio.network.pump()
    studio.until(pull, RelayState.WAITING)
    studio.advance(FAREWELL_SECONDS * (MAX_REDIRECTS + 1))
    assert f"{MAX_REDIRECTS} servers in a row" in pull.why
    studio.advance(600, 1)
    assert len(studio.hosts()) <= 600 / 30 * 2 * (MAX_REDIRECTS + 1)


@pytest.mark.parametrize("level", ["error", "status"])
def test_withoutAnAddressTheConnectionEnds(clock, level):
    client, server = connected(clock)
    ended = Outcome(client.whenEnded())
    server.status(REJECTED, 0, level=level, description="Enough.")
    server.close()
    [error] = ended.results
    assert str(error) == f"Enough. ({REJECTED})"
    assert client.reconnectRequest is None


def test_thePlayCommandIsSentOn(monkeypatch, tmp_path):
    path = tmp_path / "out.flv"
    running = Running(monkeypatch, commands.PlayCommand, file=str(path))
    running.network.scripted("a", play=sendingOn("rtmp://b/there"))
    running.network.scripted("b")
    running.start()
    running.network.pump()
    running.server("b").media(VIDEO, 0, AVC_HEADER)
    running.server("b").media(VIDEO, 0, AVC_KEY_FRAME)
    running.server("b").status("NetStream.Play.Stop")
    running.network.pump()
    assert running.finish() == 0
    assert path.stat().st_size > len(AVC_HEADER + AVC_KEY_FRAME)


def test_thePlayCommandIsSentToNobody(monkeypatch, tmp_path):
    path = tmp_path / "out.flv"
    running = Running(monkeypatch, commands.PlayCommand, file=str(path))
    running.network.scripted("a", play=sendingOn("rtmp://b/there"))
    running.start()
    running.network.pump()
    for _ in range(3):
        running.advance(1)
    [error] = running.outcome.errors
    assert "it is not there" in str(error)
