"""The client against servers that say what a test wants."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from clientkit import (
    LIMITS,
    SUCCESS,
    Collector,
    HalfCloseableTransport,
    MemoryEndpoint,
    Outcome,
    accept,
    connected,
    refusing,
    silent,
)
from rtmpclient import (
    AAC_FRAME,
    AAC_HEADER,
    AUDIO,
    AVC_HEADER,
    AVC_KEY_FRAME,
    DATA,
    VIDEO,
    Client,
)
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from zope.interface.verify import verifyObject

from twisted_rtmp.client import (
    ClientError,
    ClientLimits,
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
from twisted_rtmp.client.protocol import CHUNK_SIZE
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.live.players import Player
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import ECMAArray
from twisted_rtmp.wire.constants import UserControlType
from twisted_rtmp.wire.messages import Message


@pytest.fixture
def clock():
    return Clock()


def publishing(clock, **answers):
    client, server = connected(clock, **answers)
    return client, server, Outcome(client.publish()).result


def playing(clock, sink=None, **answers):
    client, server = connected(clock, **answers)
    sink = Collector() if sink is None else sink
    return client, server, Outcome(client.play(None, sink)).result, sink


# What the client says


def test_connect(clock):
    client, server = connected(clock, "rtmp://u:p@server:1936/app/inst/key?token=1")
    assert server.digest
    assert server.connection.reader.chunkSize == CHUNK_SIZE
    (connect,) = server.commands
    properties = connect.argument(0)
    assert properties["app"] == "app/inst"
    assert properties["tcUrl"] == "rtmp://server:1936/app/inst"
    assert properties["type"] == "nonprivate"
    assert properties["flashVer"].startswith("FMLE/3.0 ")
    assert properties["fourCcList"] == ["*"]
    assert properties["objectEncoding"] == 0.0
    assert client.properties["fmsVer"] == "FMS/3,0,1,123"
    assert client.properties["code"] == SUCCESS


def test_connectsOwnProperties(clock):
    endpoint = MemoryEndpoint(clock)
    own = {"swfUrl": "x", "type": "other"}
    connectRTMP(clock, "rtmp://server/app", endpoint=endpoint, properties=own)
    properties = endpoint.servers[0].commands[0].argument(0)
    assert properties["swfUrl"] == "x"
    assert properties["type"] == "other"


def test_setChunkSizeComesBeforeConnect(clock):
    sizes = []

    def look(server, command):
        sizes.append(server.connection.reader.chunkSize)
        accept(server, command)

    connected(clock, connect=look)
    assert sizes == [CHUNK_SIZE]


def test_publish(clock):
    _, server, publication = publishing(clock)
    assert server.names() == [
        "connect",
        "releaseStream",
        "FCPublish",
        "createStream",
        "publish",
    ]
    assert [command.transactionId for command in server.commands] == [1, 2, 3, 4, 5]
    assert server.of("releaseStream").arguments == [None, "key"]
    assert server.of("FCPublish").arguments == [None, "key"]
    assert server.of("createStream").arguments == [None]
    assert server.of("publish").arguments == [None, "key", "live"]
    assert server.of("publish").streamId == publication.streamId == 1
    assert publication.peer == "192.0.2.1:1935"
    assert not publication.congested


def test_publishUnderAnotherName(clock):
    client, server = connected(clock)
    Outcome(client.publish("other?a=b", "record"))
    assert server.of("publish").arguments == [None, "other?a=b", "record"]


def test_play(clock):
    _, server, subscription, sink = playing(clock)
    assert server.names() == ["connect", "createStream", "play"]
    assert server.of("play").arguments == [None, "key", -2.0]
    assert server.of("play").streamId == subscription.streamId == 1
    (control,) = server.controls
    assert control.eventType == UserControlType.SET_BUFFER_LENGTH
    assert (control.value, control.extra) == (1, 3000)
    assert sink.messages == []


@pytest.mark.parametrize(("start", "sent"), [(-1, -1), (0, 0), (2.5, 2500)])
def test_playFrom(clock, start, sent):
    client, server = connected(clock)
    Outcome(client.play("vod", Collector(), start))
    assert server.of("play").arguments == [None, "vod", sent]


def test_mediaAreSentAsTheyAre(clock):
    _, server, publication = publishing(clock)
    messages = [
        Message(AUDIO, 0, 1, AAC_HEADER),
        Message(VIDEO, 0, 1, AVC_KEY_FRAME * 9000),
        Message(AUDIO, 23, 1, AAC_FRAME),
        Message(VIDEO, 5, 1, AVC_KEY_FRAME),
        Message(AUDIO, 1 << 24, 1, AAC_FRAME),
        Message(DATA, 1 << 24, 1, amf0.encode("onCuePoint", {"a": 1.0})),
    ]
    for message in messages:
        publication.send(message)
    server.pump()
    assert server.messages == messages


def test_metadataAreToBeKept(clock):
    _, server, publication = publishing(clock)
    publication.sendMetadata({"width": 160.0}, 7)
    payload = amf0.encode("onMetaData", ECMAArray({"height": 90.0}))
    publication.send(Message(DATA, 8, 5, payload))
    server.pump()
    values = [amf0.decode(message.payload) for message in server.messages]
    assert values == [
        ["@setDataFrame", "onMetaData", {"width": 160.0}],
        ["@setDataFrame", "onMetaData", {"height": 90.0}],
    ]
    assert [m.timestamp for m in server.messages] == [7, 8]
    assert [m.streamId for m in server.messages] == [1, 1]


def test_encodedMediaAreSentAsTheyAre(clock):
    client, server = connected(clock)
    first = Outcome(client.publish("a")).result
    second = Outcome(client.publish("b")).result
    assert first.form != second.form
    assert hash(first.form) == hash(type(first.form)(1, CHUNK_SIZE))
    audio = Message(AUDIO, 5, 0, AAC_FRAME)
    first.writeMedia(first.form.encode(audio) * 2)
    second.writeMedia(second.form.encode(audio))
    first.send(audio)
    server.pump()
    assert [m.streamId for m in server.messages] == [1, 1, 2, 1]
    assert {m.timestamp for m in server.messages} == {5}


# What it is told


def test_mediaGoToTheSinkInOrder(clock):
    _, server, subscription, sink = playing(clock)
    sent = [
        server.media(DATA, 0, amf0.encode("onMetaData", ECMAArray({"a": 1.0}))),
        server.media(VIDEO, 0, AVC_KEY_FRAME * 99),
        server.media(AUDIO, 10, AAC_FRAME),
        server.media(VIDEO, 40, AVC_KEY_FRAME),
        server.media(DATA, 40, amf0.encode("onTextData", {"text": "x"})),
    ]
    assert sink.messages == sent
    assert subscription.messages == 5


def test_dataAboutThePlayingAreNotTheStreams(clock):
    _, server, subscription, sink = playing(clock)
    server.media(DATA, 0, amf0.encode("|RtmpSampleAccess", True, True))
    server.media(DATA, 0, amf0.encode("onStatus", {"code": "NetStream.Data.Start"}))
    server.media(
        DATA, 0, amf0.encode("onPlayStatus", {"code": "NetStream.Play.Switch"})
    )
    assert sink.messages == []
    assert subscription.messages == 0
    assert Outcome(subscription.whenEnded()).pending


def test_mediaBeforePlayStart(clock):
    client, server = connected(clock, play=silent)
    sink = Collector()
    outcome = Outcome(client.play(None, sink))
    assert outcome.pending
    message = server.media(AUDIO, 0, AAC_FRAME)
    assert sink.messages == [message]
    assert outcome.result.streamId == 1
    server.status("NetStream.Play.Start")
    clock.advance(LIMITS.commandSeconds + 1)
    assert client.whenEnded().called is False


def test_mediaOnMessageStream0(clock):
    _, server, _, sink = playing(clock)
    message = server.media(AUDIO, 0, AAC_FRAME, streamId=0)
    assert sink.messages == [message]


def test_mediaOfNobody(clock):
    client, server = connected(clock)
    sinks = [Collector(), Collector()]
    for sink in sinks:
        Outcome(client.play("x", sink))
    server.media(AUDIO, 0, AAC_FRAME, streamId=7)
    server.media(AUDIO, 1, AAC_FRAME, streamId=2)
    assert [len(sink.messages) for sink in sinks] == [0, 1]


@pytest.mark.parametrize("streamId", [0, 1, 5])
@pytest.mark.parametrize("level", ["status", ""])
def test_statusesOfSimpleServers(clock, streamId, level):
    def start(server, command):
        server.status("NetStream.Publish.Start", streamId, level)

    assert publishing(clock, publish=start)[2].streamId == 1


def test_aStatusWithoutAStreamIsOfTheOneThatWaits(clock):
    def start(server, command):
        server.status("NetStream.Publish.Start", 0)

    client, _ = connected(clock, publish=start)
    first = Outcome(client.publish("a")).result
    second = Outcome(client.publish("b")).result
    assert (first.streamId, second.streamId) == (1, 2)


def test_pingsAndWindows(clock):
    _, server = connected(clock)
    server.connection.sendUserControl(UserControlType.PING_REQUEST, 4711)
    server.connection.sendWindowAcknowledgementSize(2000)
    server.pump()
    (pong,) = server.controls
    assert (pong.eventType, pong.value) == (UserControlType.PING_RESPONSE, 4711)
    assert server.connection.acknowledged > 3000


def test_setChunkSizeIsObeyed(clock):
    _, server, _, sink = playing(clock)
    server.connection.sendChunkSize(5000)
    server.media(VIDEO, 0, bytes(20_000))
    assert len(sink.messages[0].payload) == 20_000


def test_bandwidthChecks(clock):
    _, server = connected(clock)
    server.command("onBWDone", 0, None)
    assert server.names()[-1] == "_checkbw"
    server.command("_error", server.of("_checkbw").transactionId, None, {"code": "x"})
    server.command("_onbwcheck", 77, None, "payload")
    assert server.names()[-1] == "_result"
    assert server.commands[-1].transactionId == 77
    assert server.open


def test_answersToNothing(clock):
    client, server, publication = publishing(clock)
    server.command("_result", 99, None, 5.0)
    server.command("_error", server.of("releaseStream").transactionId, None, {})
    server.command("_error", server.of("FCPublish").transactionId, None)
    server.command("_result", server.of("publish").transactionId, None)
    server.command("onFCPublish", 0, None, {"code": "NetStream.Publish.Start"})
    server.status("NetStream.Buffer.Full")
    server.status("")
    server.command("onStatus", 0)
    assert not publication.whenEnded().called
    assert not client.whenEnded().called


def test_statusesAreTold(clock):
    client, server, _ = publishing(clock)
    told = []
    client.statusReceived.append(told.append)
    server.status("NetConnection.Connect.ReconnectRequest", 0, tcUrl="rtmp://b/live")
    (status,) = told
    assert status.code == "NetConnection.Connect.ReconnectRequest"
    assert status.properties["tcUrl"] == "rtmp://b/live"
    assert server.open


# Refusals


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
        assert "one in use" in str(second.error)
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


# Ends


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
    """What C{connectRTMP} gives out is connected; but the protocol may be used."""
    endpoint = MemoryEndpoint(clock, connect=silent)
    outcome = Outcome(connectRTMP(clock, "rtmp://s/app", endpoint=endpoint))
    client = endpoint.servers[0].protocol
    gone = Outcome(client.disconnect())
    endpoint.servers[0].pump()
    assert gone.result is None
    assert type(outcome.error) is ConnectionEnded


def byResult(server):
    server.command("_result", server.of("FCUnpublish").transactionId, None)


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
    """What else the read brought is not looked at."""
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


def test_disconnectFromASlowServer(clock):
    """As long as it acknowledges, it reads; but not for ever."""
    client, server = connected(clock)
    gone = Outcome(client.disconnect())
    for _ in range(30):
        clock.advance(1)
        server.connection.sendUserControl(UserControlType.PING_REQUEST, 1)
        assert gone.pending
    clock.advance(LIMITS.farewellSeconds)
    server.pump()
    assert gone.result is None
    assert not clock.getDelayedCalls()


# Time limits


def test_noConnectionInTime(clock):
    endpoint = MemoryEndpoint(clock)
    endpoint.connect = lambda factory: Deferred()
    outcome = Outcome(
        connectRTMP(clock, "rtmp://s/app", endpoint=endpoint, limits=LIMITS)
    )
    clock.advance(6.9)
    assert outcome.pending
    clock.advance(0.1)
    error = outcome.error
    assert isinstance(error, TimeLimitPassed)
    assert error.seconds == 7
    assert "s:1935" in str(error)


def test_noAnswerToConnectInTime(clock):
    endpoint = MemoryEndpoint(clock, connect=silent)
    outcome = Outcome(
        connectRTMP(clock, "rtmp://s/app", endpoint=endpoint, limits=LIMITS)
    )
    clock.advance(7)
    assert isinstance(outcome.error, TimeLimitPassed)
    endpoint.servers[0].pump()
    clock.advance(0)
    assert not endpoint.servers[0].open
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("which", ["createStream", "publish"])
def test_noAnswerToACommandInTime(clock, which):
    client, server = connected(clock, **{which: silent})
    clock.advance(1000)
    assert server.open
    outcome = Outcome(client.publish())
    clock.advance(4.9)
    assert outcome.pending
    clock.advance(0.1)
    error = outcome.error
    assert isinstance(error, TimeLimitPassed)
    assert error.seconds == 5
    assert which in str(error)
    server.pump()
    assert Outcome(client.whenEnded()).result is error
    assert not clock.getDelayedCalls()


def test_aServerThatTakesNothing(clock):
    client, server, publication = publishing(clock)
    server.transport.taking = False
    publication.send(Message(VIDEO, 0, 1, bytes(100_000)))
    clock.advance(3.9)
    assert server.open
    clock.advance(0.1)
    clock.advance(0)
    error = Outcome(client.whenEnded()).result
    assert isinstance(error, TimeLimitPassed)
    assert error.seconds == 4
    assert "takes nothing" in str(error)
    assert Outcome(publication.whenEnded()).result is error


def test_silence(clock):
    limits = ClientLimits(silenceSeconds=20)
    client, server = connected(clock, limits=limits)
    subscription = Outcome(client.play(None, Collector())).result
    clock.advance(19)
    server.media(AUDIO, 0, AAC_FRAME)
    clock.advance(19)
    assert server.open
    subscription.pauseProducing()
    clock.advance(100)
    assert server.open
    subscription.resumeProducing()
    clock.advance(19)
    assert server.open
    clock.advance(1)
    server.pump()
    error = Outcome(subscription.whenEnded()).result
    assert isinstance(error, TimeLimitPassed)
    assert error.seconds == 20
    assert "audio or video" in str(error)


def test_silenceIsNoMatterByDefault(clock):
    _, server, _, _ = playing(clock)
    clock.advance(100_000)
    assert server.open


# Backpressure


def test_congestion(clock):
    _, server, publication = publishing(clock)
    drained = []
    publication.drained = lambda: drained.append(publication.congested)
    server.transport.taking = False
    first = Message(VIDEO, 0, 1, bytes(100_000))
    publication.send(first)
    assert publication.congested
    ready = Outcome(publication.whenReady())
    assert ready.pending
    assert drained == []
    server.transport.taking = True
    server.pump()
    assert drained == [False]
    assert ready.result is None
    assert not publication.congested
    assert server.messages == [first]


def test_congestedAgainByTheFirstThatIsDrained(clock):
    client, server = connected(clock)
    publications = [Outcome(client.publish(name)).result for name in "ab"]
    drained = []

    def fill(publication):
        def more():
            drained.append(publication.streamId)
            publication.send(Message(VIDEO, 0, 1, bytes(100_000)))

        return more

    for publication in publications:
        publication.drained = fill(publication)
    server.transport.taking = False
    publications[0].send(Message(VIDEO, 0, 1, bytes(100_000)))
    server.transport.taking = True
    server.transport.deliver()
    assert drained == [1]
    assert publications[1].congested
    publications[0].drained = publications[1].drained = None


def test_pauseASubscription(clock):
    _, server, subscription, sink = playing(clock)
    assert verifyObject(IPushProducer, subscription)
    subscription.pauseProducing()
    assert not server.transport.reading
    server.media(AUDIO, 0, AAC_FRAME)
    assert sink.messages == []
    subscription.resumeProducing()
    assert server.transport.reading
    server.pump()
    assert len(sink.messages) == 1


def test_aSinkMayPauseAndEndAnywhere(clock):
    class Fickle(Collector):
        subscription = None

        def mediaReceived(self, message):
            super().mediaReceived(message)
            if len(self.messages) == 2:
                self.subscription.pauseProducing()
                self.subscription.resumeProducing()
            if len(self.messages) == 3:
                self.subscription.stopProducing()

    sink = Fickle()
    _, server, sink.subscription, _ = playing(clock, sink)
    for time in range(5):
        server.connection.sendMessage(Message(AUDIO, time, 1, AAC_FRAME), 4)
    server.pump()
    assert [m.timestamp for m in sink.messages] == [0, 1, 2]
    assert sink.ended == 1
    assert server.open


def test_aPausedOneThatEndsReadsOn(clock):
    _, server, subscription, _ = playing(clock)
    subscription.pauseProducing()
    subscription.close()
    assert server.transport.reading
    subscription.pauseProducing()
    assert server.transport.reading


# As the outlet of a player


def relayed(clock):
    """A stream of ours that a player hands on to a scripted server."""
    factory = RTMPFactory(clock)
    source = Client(factory)
    source.publish()
    client, server, publication = publishing(clock)
    player = Player(publication, publication.form, "key", clock.seconds())
    publication.drained = player.drain
    assert factory.play("live", "key", player)
    return source, client, server, publication, player


def test_aPlayerHandsAStreamOn(clock):
    source, _, server, publication, player = relayed(clock)
    payload = amf0.encode("onMetaData", ECMAArray({"width": 1.0}))
    sent = [
        (DATA, 0, payload),
        (AUDIO, 0, AAC_HEADER),
        (VIDEO, 0, AVC_HEADER),
        (VIDEO, 40, AVC_KEY_FRAME),
        (AUDIO, 41, AAC_FRAME),
    ]
    for typeId, time, data in sent:
        source.media(typeId, data, time)
    clock.advance(1)
    server.pump()
    metadata, *media = [(m.typeId, m.timestamp, m.payload) for m in server.messages]
    assert metadata[2] == amf0.encode("@setDataFrame") + payload
    assert media == sent[1:]
    assert player.sent == 5
    source.leave()
    clock.advance(1)
    assert server.names()[-2:] == ["FCUnpublish", "deleteStream"]
    byResult(server)
    assert Outcome(publication.whenEnded()).result is None


def test_aPlayerWaitsForACongestedServer(clock):
    source, _, server, _, player = relayed(clock)
    source.media(VIDEO, AVC_HEADER)
    server.transport.taking = False
    payloads = [AVC_KEY_FRAME + bytes(50_000 + n) for n in range(9)]
    for number, payload in enumerate(payloads):
        source.media(VIDEO, payload, 40 * number)
        clock.advance(0.05)
    assert len(server.transport.queued) < 200_000
    server.transport.taking = True
    server.pump()
    clock.advance(1)
    server.pump()
    assert [m.payload for m in server.messages] == [AVC_HEADER, *payloads]
    assert not player.dropped
    source.leave()
    clock.advance(1)
    server.close()


def test_aPlayerThatIsTooFarBehindEndsTheConnection(clock):
    _, client, server, publication, _ = relayed(clock)
    publication.cut("it is too far behind")
    clock.advance(0)
    assert not server.open
    for each in (client, publication):
        error = Outcome(each.whenEnded()).result
        assert type(error) is ConnectionEnded
        assert "too far behind" in str(error)


@pytest.mark.parametrize("scheme", ["rtmp", "rtmps"])
@pytest.mark.parametrize("host", ["a..b", "a" * 64, "\u2028", "[::x]"])
def test_aHostThatCannotBe(scheme, host):
    """A server may name one, too, when it asks to connect anew."""
    reactor = MemoryReactorClock()
    outcome = Outcome(connectRTMP(reactor, f"{scheme}://{host}/app/key"))
    assert isinstance(outcome.error, InvalidURL)
    assert not reactor.getDelayedCalls()
