"""A server's refusals, and the client's errors for them."""

from __future__ import annotations

import pytest
from clientkit import (
    Collector,
    MemoryEndpoint,
    Outcome,
    connected,
    playing,
    publishing,
    refusing,
)
from rtmpclient import AAC_FRAME, AUDIO
from twisted.internet.testing import MemoryReactorClock

from twisted_rtmp.client import (
    ClientError,
    CommandFailed,
    ConnectionEnded,
    ConnectRejected,
    ConnectUnauthorized,
    InvalidApplication,
    InvalidURL,
    NameTaken,
    PlayRefused,
    PlayUnauthorized,
    PublishRefused,
    PublishUnauthorized,
    ServerRefused,
    StreamNotFound,
    TimeLimitPassed,
    Unauthorized,
    connectRTMP,
)
from twisted_rtmp.wire.messages import Message


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NetConnection.Connect.Rejected", ConnectRejected),
        ("NetConnection.Connect.Failed", ConnectRejected),
        ("", ConnectRejected),
        ("NetConnection.Connect.InvalidApp", InvalidApplication),
        ("NetConnection.Connect.Unauthorized", ConnectUnauthorized),
        ("NetStream.Play.StreamNotFound", ConnectRejected),
    ],
)
@pytest.mark.parametrize("how", ["_error", "_result", "onStatus"])
def test_connectRefused(clock, code, kind, how):
    def refuse(server, command):
        properties = {"level": "error", "code": code, "description": "Go away."}
        if how != "onStatus":
            server.command(how, command.transactionId, None, properties)
        else:
            properties["code"] = code or "NetConnection.Connect.Failed"
            if not properties["code"].startswith("NetConnection."):
                properties["code"] = "NetConnection.Connect.Rejected"
            server.command(how, 0, None, properties)

    endpoint = MemoryEndpoint(clock, connect=refuse)
    outcome = Outcome(connectRTMP(clock, "rtmp://server/app", endpoint=endpoint))
    assert isinstance(outcome.error, kind)
    assert outcome.error.description == "Go away."
    if how != "onStatus":
        assert outcome.error.code == code
    assert len(endpoint.servers) == 1
    assert not endpoint.servers[0].open


def test_redirect(clock):
    refuse = refusing(
        "NetConnection.Connect.Rejected",
        ex={"code": 302.0, "redirect": "rtmp://other/app"},
    )
    endpoint = MemoryEndpoint(clock, connect=refuse)
    error = Outcome(connectRTMP(clock, "rtmp://s/app", endpoint=endpoint)).error
    assert isinstance(error, ConnectRejected)
    assert error.redirect == "rtmp://other/app"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NetStream.Publish.BadName", NameTaken),
        ("NetStream.Publish.Denied", PublishRefused),
        ("NetStream.Publish.Rejected", PublishRefused),
        ("NetStream.Publish.Unauthorized", PublishUnauthorized),
        ("NetStream.Failed", PublishRefused),
        ("NetStream.Play.StreamNotFound", PublishRefused),
        ("", PublishRefused),
    ],
)
@pytest.mark.parametrize("close", [False, True])
def test_publishRefused(clock, code, kind, close):
    client, server = connected(clock, publish=refusing(code, "No way.", close=close))
    error = Outcome(client.publish()).error
    assert type(error) is kind
    assert (error.code, error.description) == (code, "No way.")
    assert server.names()[-1] == "deleteStream"
    clock.advance(0)
    assert server.open != close


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NetStream.Play.StreamNotFound", StreamNotFound),
        ("NetStream.Play.FileNotFound", StreamNotFound),
        ("NetStream.Play.Failed", PlayRefused),
        ("NetStream.Play.Unauthorized", PlayUnauthorized),
    ],
)
def test_playRefused(clock, code, kind):
    sink = Collector()
    client, _ = connected(clock, play=refusing(code))
    error = Outcome(client.play(None, sink)).error
    assert type(error) is kind
    assert error.code == code
    assert sink.ended == 1
    # The connection is good for another one.
    assert Outcome(client.publish("x")).result.streamId == 2


def test_levelsAreNotNeeded(clock):
    def refuse(server, command):
        server.status("NetStream.Publish.BadName", command.streamId, "")

    client, _ = connected(clock, publish=refuse)
    assert isinstance(Outcome(client.publish()).error, NameTaken)


def test_publishAnsweredWithAnError(clock):
    def refuse(server, command):
        properties = {"code": "NetStream.Publish.BadName", "level": "error"}
        server.command("_error", command.transactionId, None, properties)

    client, _ = connected(clock, publish=refuse)
    assert isinstance(Outcome(client.publish()).error, NameTaken)


def test_createStreamRefused(clock):
    client, _ = connected(clock, createStream=refusing("NetConnection.Call.Failed"))
    error = Outcome(client.publish()).error
    assert type(error) is CommandFailed
    assert error.code == "NetConnection.Call.Failed"


@pytest.mark.parametrize("streamId", [None, "1", 0.0, -1.0, 2.0**32, {}, 1.0])
def test_createStreamWithoutAStream(clock, streamId):
    def create(server, command):
        server.command("_result", command.transactionId, None, streamId)

    client, _ = connected(clock, createStream=create)
    first = Outcome(client.publish())
    second = Outcome(client.publish())
    if streamId == 1.0:
        assert first.result.streamId == 1
        assert "stream id in use" in str(second.error)
    else:
        assert type(first.error) is type(second.error) is CommandFailed


def test_refusedLater(clock):
    client, server, publication = publishing(clock)
    ended = Outcome(publication.whenEnded())
    ready = Outcome(publication.whenReady())
    assert ready.result is None
    server.status("NetStream.Publish.BadName", level="error", description="Taken.")
    assert isinstance(ended.result, NameTaken)
    assert isinstance(Outcome(publication.whenReady()).error, NameTaken)
    publication.send(Message(AUDIO, 0, 1, AAC_FRAME))
    server.pump()
    assert server.messages == []
    assert not client.whenEnded().called


def test_unpublishedByTheServer(clock):
    _, server, publication = publishing(clock)
    server.status("NetStream.Unpublish.Success", description="Kicked.")
    error = Outcome(publication.whenEnded()).result
    assert type(error) is PublishRefused
    assert error.description == "Kicked."


def test_refusedToPlayOn(clock):
    _, server, subscription, sink = playing(clock)
    server.status("NetStream.Play.Failed", level="error", description="Enough.")
    error = Outcome(subscription.whenEnded()).result
    assert type(error) is PlayRefused
    assert subscription.code == "NetStream.Play.Failed"
    assert sink.ended == 1


def test_errorsAreATree():
    for kind in (ConnectUnauthorized, PublishUnauthorized, PlayUnauthorized):
        assert issubclass(kind, Unauthorized)
    for kind in (ConnectRejected, PublishRefused, PlayRefused, CommandFailed):
        assert issubclass(kind, ServerRefused)
    for kind in (ServerRefused, TimeLimitPassed, ConnectionEnded, InvalidURL):
        assert issubclass(kind, ClientError)
    assert issubclass(NameTaken, PublishRefused)
    assert issubclass(StreamNotFound, PlayRefused)


def test_theServersWordsCannotForgeALine(clock):
    client, _ = connected(clock, publish=refusing("a\nb", "x\r\n\x1b[31m"))
    error = Outcome(client.publish()).error
    assert str(error) == "x\\r\\n\\x1b[31m (a\\nb)"
    assert error.description == "x\r\n\x1b[31m"


@pytest.mark.parametrize("scheme", ["rtmp", "rtmps"])
@pytest.mark.parametrize("host", ["a..b", "a" * 64, "\u2028", "[::x]"])
def test_aHostThatCannotBe(scheme, host):
    """A server may name one, too, when it asks a client to reconnect."""
    reactor = MemoryReactorClock()
    outcome = Outcome(connectRTMP(reactor, f"{scheme}://{host}/app/key"))
    assert isinstance(outcome.error, InvalidURL)
    assert not reactor.getDelayedCalls()
