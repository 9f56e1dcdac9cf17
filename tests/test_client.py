"""The client against servers that say what a test wants."""

from __future__ import annotations

import pytest
from clientkit import (
    LIMITS,
    SUCCESS,
    Collector,
    MemoryEndpoint,
    Outcome,
    accept,
    connected,
    playing,
    publishing,
    silent,
)
from rtmpclient import AAC_FRAME, AAC_HEADER, AUDIO, AVC_KEY_FRAME, DATA, VIDEO

from twisted_rtmp.client import connectRTMP
from twisted_rtmp.client.protocol import CHUNK_SIZE
from twisted_rtmp.live.packaging import RTMPPackaging
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import ECMAArray
from twisted_rtmp.wire.constants import UserControlType
from twisted_rtmp.wire.messages import Message


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
    assert first.packaging != second.packaging
    assert hash(first.packaging) == hash(
        RTMPPackaging(1, CHUNK_SIZE, setDataFrame=True)
    )
    audio = Message(AUDIO, 5, 0, AAC_FRAME)
    first.writeMedia(first.packaging.encode(audio) * 2)
    second.writeMedia(second.packaging.encode(audio))
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
