"""ReconnectRequest: a server asks, clients and relays obey."""

from __future__ import annotations

import pytest
from clientkit import MemoryEndpoint, Outcome, accept, connected
from rtmpclient import AVC_HEADER, AVC_KEY_FRAME, VIDEO, Client
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from twisted_rtmp.client import RTMPURL, InvalidURL, ReconnectRequest, connectRTMP
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.protocol import MAX_DESCRIPTION_SIZE, MAX_TC_URL_SIZE
from twisted_rtmp.wire.amfvalues import UNDEFINED
from twisted_rtmp.wire.capabilities import Capabilities
from twisted_rtmp.wire.errors import UsageError

RECONNECT = "NetConnection.Connect.ReconnectRequest"


@pytest.fixture
def log():
    lines = []

    def observe(event):
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


# The server's side


@pytest.fixture
def factory():
    factory = RTMPFactory(Clock())
    yield factory
    for connection in list(factory.connections):
        connection.transport.abortConnection()


def joined(factory, **properties):
    client = Client(factory)
    client.connect("live", **properties)
    client.take()
    return client


def test_request(factory):
    client = joined(factory, capsEx=1.0)
    assert client.protocol.requestReconnect("rtmp://b/live", "We stop.")
    [reply] = client.take()
    assert reply.streamId == 0
    assert reply.csid == 3
    assert reply.values == [
        "onStatus",
        0.0,
        None,
        {
            "level": "status",
            "code": RECONNECT,
            "tcUrl": "rtmp://b/live",
            "description": "We stop.",
        },
    ]
    assert factory.counters.reconnectRequests == 1
    assert client.open


def test_requestWithoutAnAddress(factory):
    client = joined(factory, capsEx=15.0)
    assert client.protocol.requestReconnect()
    [reply] = client.take()
    assert reply.values[3] == {"level": "status", "code": RECONNECT}


@pytest.mark.parametrize("capsEx", [None, 0.0, 14.0, "1", float("nan"), -1.0, True])
def test_whoDoesNotObeyIsNotAsked(factory, capsEx):
    client = joined(factory, **({} if capsEx is None else {"capsEx": capsEx}))
    assert not client.protocol.requestReconnect("rtmp://b/live")
    assert client.take() == []
    assert factory.counters.reconnectRequests == 0


def test_nobodyIsAskedBeforeConnectNorAtTheEnd(factory):
    client = Client(factory)
    client.shakeHands()
    assert not client.protocol.requestReconnect()
    client.connect("live", capsEx=1.0)
    client.take()
    client.protocol.close()
    assert not client.protocol.requestReconnect()
    client.leave()
    assert not client.protocol.requestReconnect()
    assert factory.counters.reconnectRequests == 0


def test_itServesOn(factory):
    client = joined(factory, capsEx=1.0)
    client.command("createStream", 2.0, None)
    client.command("publish", 3.0, None, "key", "live", streamId=1)
    client.media(VIDEO, AVC_HEADER)
    client.take()
    assert client.protocol.requestReconnect()
    client.media(VIDEO, AVC_KEY_FRAME, 40)
    assert factory.streams["live", "key"].ledger.received.video == 1
    # Who does not leave may be asked again.
    assert client.protocol.requestReconnect()
    assert client.codes() == [RECONNECT, RECONNECT]


def test_allAreAsked(factory, log):
    obeying = [joined(factory, capsEx=1.0) for _ in range(3)]
    others = [joined(factory), joined(factory, capsEx=2.0), Client(factory)]
    assert factory.requestReconnect("//b:1936/live", "Moving.") == 3
    for client in obeying:
        [reply] = client.take()
        assert reply.values[3]["tcUrl"] == "//b:1936/live"
    assert [client.take() for client in others] == [[], [], []]
    assert any(line.startswith("3 peers") and "3 are not" in line for line in log)
    assert Client(factory).open, "newcomers are taken"


@pytest.mark.parametrize(
    ("tcUrl", "description"),
    [
        (None, ""),
        (b"rtmp://b/live", ""),
        (7, ""),
        ("rtmp://b/li ve", ""),
        ("rtmp://b/live\r\n", ""),
        ("rtmp://b/\x7f", ""),
        ("http://b/live", ""),
        ("rtmp://b/" + "x" * MAX_TC_URL_SIZE, ""),
        ("rtmp://\ud800/", ""),
        ("", None),
        ("", "x" * (MAX_DESCRIPTION_SIZE + 1)),
        ("", "\udfff"),
    ],
)
def test_wrongRequests(factory, tcUrl, description):
    client = joined(factory, capsEx=1.0)
    with pytest.raises(UsageError):
        client.protocol.requestReconnect(tcUrl, description)
    with pytest.raises(UsageError):
        factory.requestReconnect(tcUrl, description)
    assert client.take() == []


def test_theLargestRequestFits(factory):
    client = joined(factory, capsEx=1.0)
    tcUrl = "/" + "x" * (MAX_TC_URL_SIZE - 1)
    assert client.protocol.requestReconnect(tcUrl, "x" * MAX_DESCRIPTION_SIZE)
    assert client.take()[0].values[3]["tcUrl"] == tcUrl


def test_theQueryIsNotLogged(factory, log):
    joined(factory, capsEx=1.0).protocol.requestReconnect("/live?token=s3cret")
    assert not any("s3cret" in line for line in log)


# Where to

URL = "rtmp://u:p@a:1936/app/inst/key?token=1"


@pytest.mark.parametrize(
    ("url", "reference", "becomes"),
    [
        (URL, "", "rtmp://u:p@a:1936/app/inst/key?token=1"),
        # The examples of the specification.
        (
            URL,
            "rtmp://foo.mydomain.com:1935/realtimeapp",
            "rtmp://u:p@foo.mydomain.com:1935/realtimeapp/key?token=1",
        ),
        (URL, "rtmp://127.0.0.1/realtimeapp", "rtmp://u:p@127.0.0.1/realtimeapp/key"),
        (URL, "//192.0.2.0/realtimeapp", "rtmp://u:p@192.0.2.0:1935/realtimeapp/key"),
        (URL, "/realtimeapp", "rtmp://u:p@a:1936/realtimeapp/key"),
        # Relative in other ways.
        (URL, "other", "rtmp://u:p@a:1936/app/other/key"),
        (URL, "../other", "rtmp://u:p@a:1936/other/key"),
        (URL, "//[2001:db8::1]:1/x", "rtmp://u:p@[2001:db8::1]:1/x/key"),
        (URL, "//b", "rtmp://u:p@b/"),
        # The scheme.
        (URL, "rtmps://b/app", "rtmps://u:p@b:443/app/key"),
        (URL, "RTMPS://a:1936/app", "rtmps://u:p@a:1936/app/key"),
        ("rtmps://a/app/key", "//b/app", "rtmps://b:443/app/key"),
        ("rtmps://a/app/key", "/other", "rtmps://a/other/key"),
        # Credentials of its own.
        (URL, "rtmp://v:q@b/app", "rtmp://v:q@b/app/key"),
    ],
)
def test_redirected(url, reference, becomes):
    base = RTMPURL.parse(url)
    found = base.redirected(reference)
    wanted = RTMPURL.parse(becomes)
    assert found.name == base.name
    assert found.application == wanted.application
    assert (found.scheme, found.host, found.port) == (
        wanted.scheme,
        wanted.host,
        wanted.port,
    )
    assert (found.username, found.password) == (wanted.username, wanted.password)


def test_redirectedWithAQuery():
    url = RTMPURL.ofServer("rtmp://a/app?x=1", "key")
    assert url.redirected("").application == "app?x=1"
    assert url.redirected("/app").application == "app"
    assert url.redirected("?y=2").application == "app?y=2"
    assert url.redirected("rtmp://b/c/d?y=2").application == "c/d?y=2"


WRONG = [
    *("http://b/app", "rtmpe://b/app", "b:1935/app", "mailto:x", "rtmp:///app"),
    *("rtmp://b:0/app", "rtmp://b:x/app", "rtmp://[::1/app", "//[::1/app", "//[x]/a"),
    *("rtmp://b/a b", "/a\nb", "/\x00", "rtmp://", "://", ":", "rtmp:b"),
]


@pytest.mark.parametrize("reference", WRONG)
def test_notRedirected(reference):
    base = RTMPURL.parse(URL)
    with pytest.raises(InvalidURL):
        base.redirected(reference)


@pytest.mark.parametrize("reference", ["rtmp://a/app", "rtmp://b:443/app"])
def test_neverFromTLSDown(reference):
    base = RTMPURL.parse("rtmps://a/app/key")
    with pytest.raises(InvalidURL, match="encrypted"):
        base.redirected(reference)


# The client's side


@pytest.fixture
def clock():
    return Clock()


def test_clientAnnouncesIt(clock):
    _, server = connected(clock)
    announced = Capabilities.fromProperties(server.of("connect").argument(0))
    assert announced.reconnect
    assert announced.multitrack
    assert announced.timestampNanoOffset
    assert announced.takesVideo("vvc1")
    assert announced.takesAudio("Opus")


def asked(client):
    requests = []
    client.reconnectRequested.append(requests.append)
    return requests


def test_clientIsAsked(clock):
    client, server = connected(clock, "rtmp://a/app/key")
    requests = asked(client)
    server.status(RECONNECT, 0, tcUrl="//b:1936/app", description="Moving.")
    url = RTMPURL.parse("rtmp://b:1936/app/key")
    assert requests == [ReconnectRequest(url, "Moving.")]
    assert client.reconnectRequest == requests[0]
    server.status(RECONNECT, 0)
    assert requests[1] == ReconnectRequest(RTMPURL.parse("rtmp://a/app/key"))
    assert server.open, "it is served on"
    assert not Outcome(client.disconnect()).errors


@pytest.mark.parametrize(
    "tcUrl",
    [None, UNDEFINED, 7.0, True, {"a": 1.0}, ["rtmp://b/app"], *WRONG],
)
def test_requestsThatMakeNoSense(clock, log, tcUrl):
    client, server = connected(clock, "rtmp://a/app/s3cret")
    requests = asked(client)
    server.status(RECONNECT, 0, tcUrl=tcUrl)
    assert requests == []
    assert client.reconnectRequest is None
    [line] = [line for line in log if "passed over" in line]
    assert "s3cret" not in line
    assert "\n" not in line
    assert server.open
    # The next one may be better.
    server.status(RECONNECT, 0, tcUrl="/app")
    assert len(requests) == 1


def test_clientDoesNotLeaveTLS(clock, log):
    client, server = connected(clock, "rtmps://a/app/key")
    requests = asked(client)
    server.status(RECONNECT, 0, tcUrl="rtmp://a/app")
    assert requests == []
    assert any("not encrypted" in line for line in log)
    server.status(RECONNECT, 0, tcUrl="rtmps://b/app")
    assert requests[0].url.secure


def test_requestBeforeConnectIsAnswered(clock, log):
    def early(server, command):
        server.status(RECONNECT, 0, tcUrl="/other")
        accept(server, command)

    endpoint = MemoryEndpoint(clock, connect=early)
    client = Outcome(connectRTMP(clock, "rtmp://a/app/key", endpoint=endpoint)).result
    assert client.reconnectRequest is None
    assert any("before connect" in line for line in log)


def test_requestAtTheEnd(clock):
    client, server = connected(clock)
    requests = asked(client)
    client.disconnect()
    server.status(RECONNECT, 0, tcUrl="/other")
    assert requests == []
