"""The ends of what a client does: by the server, by itself, midway."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from clientkit import (
    LIMITS,
    Collector,
    HalfCloseableTransport,
    MemoryEndpoint,
    Outcome,
    byResult,
    connected,
    playing,
    publishing,
    silent,
)
from rtmpclient import AAC_FRAME, AUDIO, DATA, VIDEO
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.testing import MemoryReactorClock

from twisted_rtmp.client import ConnectionEnded, InvalidURL, connectRTMP
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.constants import UserControlType
from twisted_rtmp.wire.messages import Message


@pytest.mark.parametrize(
    "code",
    [
        "NetStream.Play.Stop",
        "NetStream.Play.UnpublishNotify",
        "NetStream.Play.Complete",
    ],
)
def test_theStreamEnds(clock, code):
    client, server, subscription, sink = playing(clock)
    ended = Outcome(subscription.whenEnded())
    server.media(AUDIO, 0, AAC_FRAME)
    server.status(code)
    assert ended.result is None
    assert subscription.code == code
    assert sink.ended == 1
    assert server.of("deleteStream").arguments == [None, 1.0]
    server.media(AUDIO, 1, AAC_FRAME)
    server.status("NetStream.Play.Stop")
    assert len(sink.messages) == 1
    assert sink.ended == 1
    assert not client.whenEnded().called


def test_endOfFile(clock):
    _, server, subscription, sink = playing(clock)
    server.connection.sendUserControl(UserControlType.STREAM_EOF, 2)
    server.pump()
    assert not sink.ended
    server.connection.sendUserControl(UserControlType.STREAM_EOF, 1)
    server.pump()
    assert sink.ended == 1
    assert subscription.code == ""


def test_completeAsData(clock):
    _, server, subscription, sink = playing(clock)
    server.media(
        DATA, 0, amf0.encode("onPlayStatus", {"code": "NetStream.Play.Complete"})
    )
    assert sink.ended == 1
    assert subscription.code == "NetStream.Play.Complete"


def test_theEndWaitsForTheSink(clock):
    stored = Deferred()
    _, server, subscription, _ = playing(clock, Collector(stored))
    ended = Outcome(subscription.whenEnded())
    server.status("NetStream.Play.Stop")
    assert ended.pending
    stored.callback(None)
    assert ended.result is None


@pytest.mark.parametrize("clean", [True, False])
def test_connectionLost(clock, clean):
    client, server, subscription, sink = playing(clock)
    publication = Outcome(client.publish("x")).result
    outcomes = [
        Outcome(each.whenEnded()) for each in (client, subscription, publication)
    ]
    ready = publication
    waiting = Outcome(client.publish("y"))  # has been answered
    server.answers["createStream"] = silent
    creating = Outcome(client.publish("z"))
    if clean:
        server.close()
    else:
        server.breakOff()
    for outcome in outcomes:
        assert type(outcome.result) is ConnectionEnded
        assert outcome.result.clean == clean
    assert waiting.result.streamId == 3
    assert type(creating.error) is ConnectionEnded
    assert type(Outcome(ready.whenReady()).error) is ConnectionEnded
    assert sink.ended == 1
    # What is asked for afterwards is told the same.
    assert type(Outcome(client.publish()).error) is ConnectionEnded
    assert type(Outcome(client.play(None, Collector())).error) is ConnectionEnded
    assert type(Outcome(client.whenEnded()).result) is ConnectionEnded
    assert Outcome(publication.close()).result is None
    assert Outcome(client.disconnect()).result is None
    client.abort()
    assert not clock.getDelayedCalls()


def test_lostWhileConnecting(clock):
    endpoint = MemoryEndpoint(clock, connect=silent)
    outcome = Outcome(connectRTMP(clock, "rtmp://s/app", endpoint=endpoint))
    assert outcome.pending
    endpoint.servers[0].close()
    assert type(outcome.error) is ConnectionEnded
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize(
    "code", ["NetConnection.Connect.Closed", "NetConnection.Connect.AppShutdown"]
)
def test_closedByTheServer(clock, code):
    client, server, publication = publishing(clock)
    server.status(code, 0, description="Maintenance.")
    error = Outcome(client.whenEnded()).result
    assert type(error) is ConnectionEnded
    assert (error.code, error.description) == (code, "Maintenance.")
    assert Outcome(publication.whenEnded()).result is error


def test_closeCommand(clock):
    client, server = connected(clock)
    server.command("close", 0, None)
    assert type(Outcome(client.whenEnded()).result) is ConnectionEnded


def test_violation(clock):
    client, server, _, sink = playing(clock)
    client.dataReceived(bytes.fromhex("02 000000 000004 01 00000000 00000000"))
    server.pump()
    error = Outcome(client.whenEnded()).result
    assert type(error) is ConnectionEnded
    assert not error.clean
    assert "RTMP 1.0, 5.4.1" in str(error)
    assert sink.ended == 1


def test_notRTMP(clock):
    endpoint = MemoryEndpoint(clock)
    connection = HalfCloseableTransport(clock, None)

    def connect(factory):
        connection.client = SimpleNamespace(protocol=factory.buildProtocol(None))
        connection.client.protocol.makeConnection(connection)
        return succeed(connection.client.protocol)

    endpoint.connect = connect
    outcome = Outcome(connectRTMP(clock, "rtmp://s/app", endpoint=endpoint))
    connection.client.protocol.dataReceived(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert "not RTMP" in str(outcome.error)
    clock.advance(0)
    assert connection.disconnected


def test_noURL(clock):
    assert isinstance(Outcome(connectRTMP(clock, "http://s/a/b")).error, InvalidURL)


def test_disconnect(clock):
    client, server, publication = publishing(clock)
    sink = Collector()
    Outcome(client.play("x", sink))
    publication.send(Message(AUDIO, 0, 1, AAC_FRAME))
    gone = Outcome(client.disconnect())
    server.pump()
    assert server.log[-5:] == [
        "message at 0",
        "FCUnpublish",
        "deleteStream",
        "deleteStream",
        "end of file",
    ]
    assert gone.pending
    assert sink.ended == 1
    server.close()
    assert gone.result is None
    assert Outcome(client.whenEnded()).result is None
    assert Outcome(publication.whenEnded()).result is None
    assert not clock.getDelayedCalls()


def test_whoLearnsOfTheEndMayStopOthersWaiting(clock):
    client, server, publication = publishing(clock)
    for waitedFor in (client, publication):
        first, second = waitedFor.whenEnded(), waitedFor.whenEnded()
        first.addCallback(lambda _, second=second: second.cancel())
        second.addErrback(lambda failure: failure.trap(CancelledError))
    server.breakOff()
    assert first.called
    assert second.result is CancelledError
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("stored", [None, Deferred()])
def test_aSinkThatDoesNotEndWell(clock, stored, loggedFailures):
    """Everybody learns of the end, and the log of the bug."""

    class Failing(Collector):
        def streamEnded(self):
            if stored is None:
                raise ZeroDivisionError
            return stored

    client, server = connected(clock)
    subscriptions = [
        Outcome(client.play(name, sink)).result
        for name, sink in (("a", Failing()), ("b", Collector()))
    ]
    ends = [Outcome(subscription.whenEnded()) for subscription in subscriptions]
    gone = Outcome(client.whenEnded())
    server.breakOff()
    if stored is not None:
        stored.errback(ZeroDivisionError())
    for end in (*ends, gone):
        assert isinstance(end.result, ConnectionEnded)
    assert len(loggedFailures.take(ZeroDivisionError)) == 1


def test_disconnectReadsOn(clock):
    """Unread bytes would make the system throw away what is still to be sent."""
    client, server, _, sink = playing(clock)
    client.disconnect()
    server.media(AUDIO, 0, AAC_FRAME)
    server.command("_result", 99, None)
    assert server.transport.reading
    assert sink.messages == []
    server.close()


def test_disconnectFromAServerThatStays(clock):
    client, server = connected(clock)
    gone = Outcome(client.disconnect())
    again = Outcome(client.disconnect())
    clock.advance(LIMITS.farewellSeconds)
    server.pump()
    assert gone.result is None
    assert again.result is None
    assert not clock.getDelayedCalls()


def test_disconnectWhileCongested(clock):
    client, server, publication = publishing(clock)
    server.transport.taking = False
    payload = bytes(100_000)
    publication.send(Message(VIDEO, 0, 1, payload))
    assert publication.congested
    gone = Outcome(client.disconnect())
    assert server.transport.reading
    server.transport.taking = True
    server.pump()
    assert server.messages == [Message(VIDEO, 0, 1, payload)]
    assert server.log[-1] == "end of file"
    server.close()
    assert gone.result is None


def test_disconnectWhilePublishIsAwaited(clock):
    client, server = connected(clock, publish=silent)
    publishes = Outcome(client.publish())
    client.disconnect()
    assert type(publishes.error) is ConnectionEnded
    server.close()


def test_nothingNewAfterDisconnect(clock):
    client, server = connected(clock)
    client.disconnect()
    assert type(Outcome(client.publish()).error) is ConnectionEnded
    server.close()


def test_disconnectWhileConnecting(clock):
    """C{connectRTMP} gives out connected clients; but the protocol may be used."""
    endpoint = MemoryEndpoint(clock, connect=silent)
    outcome = Outcome(connectRTMP(clock, "rtmp://s/app", endpoint=endpoint))
    client = endpoint.servers[0].protocol
    gone = Outcome(client.disconnect())
    endpoint.servers[0].pump()
    assert gone.result is None
    assert type(outcome.error) is ConnectionEnded


def byError(server):
    server.command("_error", server.of("FCUnpublish").transactionId, None, {})


def byOnFCUnpublish(server):
    server.command("onFCUnpublish", 0, None, {"code": "NetStream.Unpublish.Success"})


def byStatus(server):
    server.status("NetStream.Unpublish.Success")


def byClosing(server):
    server.close()


def byNothing(server):
    server.transport.clock.advance(LIMITS.farewellSeconds)


@pytest.mark.parametrize(
    "tell", [byResult, byError, byOnFCUnpublish, byStatus, byClosing, byNothing]
)
def test_closePublication(clock, tell):
    _, server, publication = publishing(clock)
    publication.send(Message(AUDIO, 0, 1, AAC_FRAME))
    closed = Outcome(publication.close())
    again = Outcome(publication.close())
    assert type(Outcome(publication.whenReady()).error) is ConnectionEnded
    publication.send(Message(AUDIO, 1, 1, AAC_FRAME))
    server.pump()
    assert server.log[-3:] == ["message at 0", "FCUnpublish", "deleteStream"]
    assert server.of("FCUnpublish").arguments == [None, "key"]
    assert server.of("deleteStream").arguments == [None, 1.0]
    assert closed.pending
    tell(server)
    assert closed.result is None
    assert again.result is None
    assert Outcome(publication.whenEnded()).result is None
    if tell is byClosing:
        assert not clock.getDelayedCalls()


def test_aResetAmidTheEndIsNotHidden(clock):
    _, server, publication = publishing(clock)
    publication.close()
    server.breakOff()
    assert type(Outcome(publication.whenEnded()).result) is ConnectionEnded


def test_closeSubscription(clock):
    client, server, subscription, sink = playing(clock)
    closed = Outcome(subscription.close())
    assert closed.result is None
    assert Outcome(subscription.close()).result is None
    assert sink.ended == 1
    assert server.of("deleteStream").arguments == [None, 1.0]
    server.media(AUDIO, 0, AAC_FRAME)
    assert sink.messages == []
    # The next one is another.
    assert Outcome(client.play("x", Collector())).result.streamId == 2


def test_stopWaitingForTheEnd(clock):
    client, server, publication = publishing(clock)
    for each in (client, publication):
        waiting = Outcome(each.whenEnded())
        waiting.deferred.cancel()
        assert isinstance(waiting.errors[0], CancelledError)
    server.transport.taking = False
    publication.send(Message(VIDEO, 0, 1, bytes(100_000)))
    waiting = Outcome(publication.whenReady())
    waiting.deferred.cancel()
    assert isinstance(waiting.errors[0], CancelledError)
    server.transport.taking = True
    server.pump()
    assert not publication.congested
    server.close()


# Cancelling


def test_cancelConnectBeforeThereIsAConnection(clock):
    cancelled = []
    endpoint = MemoryEndpoint(clock)
    endpoint.connect = lambda factory: Deferred(cancelled.append)
    outcome = Outcome(connectRTMP(clock, "rtmp://s/app", endpoint=endpoint))
    outcome.deferred.cancel()
    assert isinstance(outcome.errors[0], CancelledError)
    assert cancelled
    assert not clock.getDelayedCalls()


def test_cancelConnectOfARealEndpoint():
    reactor = MemoryReactorClock()
    endpoint = TCP4ClientEndpoint(reactor, "192.0.2.1", 1935)
    outcome = Outcome(connectRTMP(reactor, "rtmp://192.0.2.1/live", endpoint=endpoint))
    outcome.deferred.cancel()
    assert isinstance(outcome.errors[0], CancelledError)
    [connector] = reactor.connectors
    assert connector.stoppedConnecting
    assert not reactor.getDelayedCalls()


def test_cancelConnect(clock):
    endpoint = MemoryEndpoint(clock, connect=silent)
    outcome = Outcome(connectRTMP(clock, "rtmp://s/app", endpoint=endpoint))
    outcome.deferred.cancel()
    assert isinstance(outcome.errors[0], CancelledError)
    assert endpoint.servers[0].transport.aborted
    clock.advance(0)
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("which", ["createStream", "publish"])
def test_cancelPublish(clock, which):
    client, server = connected(clock, **{which: silent})
    outcome = Outcome(client.publish())
    outcome.deferred.cancel()
    assert isinstance(outcome.errors[0], CancelledError)
    assert server.transport.aborted
    clock.advance(0)
    assert client.whenEnded().called
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("which", ["createStream", "play"])
def test_cancelPlay(clock, which):
    sink = Collector()
    client, server = connected(clock, **{which: silent})
    outcome = Outcome(client.play(None, sink))
    outcome.deferred.cancel()
    assert isinstance(outcome.errors[0], CancelledError)
    assert server.transport.aborted
    clock.advance(0)
    assert sink.ended == (which == "play")
    assert not clock.getDelayedCalls()


def test_cancelAmidARead(clock):
    """Whatever else the read brought is ignored."""
    client, server = connected(clock, publish=silent)
    sink = Collector()
    subscription = Outcome(client.play("x", sink)).result
    publishing = Outcome(client.publish())
    assert not subscription.whenEnded().called
    client.statusReceived.append(lambda status: publishing.deferred.cancel())
    for code, streamId in (("x", 1), ("NetStream.Publish.Start", 2)):
        properties = {"level": "status", "code": code}
        server.connection.sendCommand(
            "onStatus", 0, None, properties, streamId=streamId
        )
    server.connection.sendMessage(Message(AUDIO, 0, 1, AAC_FRAME), 4)
    server.pump()
    assert isinstance(publishing.errors[0], CancelledError)
    assert server.transport.aborted
    assert sink.messages == []
    assert sink.ended == 1
    clock.advance(0)
    assert Outcome(client.whenEnded()).result is None
    assert not clock.getDelayedCalls()
