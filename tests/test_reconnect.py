"""ReconnectRequest: a server asks, clients and relays obey."""

from __future__ import annotations

import pytest
from rtmpclient import AVC_HEADER, AVC_KEY_FRAME, VIDEO, Client
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.protocol import MAX_DESCRIPTION_SIZE, MAX_TC_URL_SIZE
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
