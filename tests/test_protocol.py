"""The server's end of a connection: what clients say, and what they are told."""

from __future__ import annotations

from typing import Any

import pytest
from protocolkit import ENDED, START, Ask, Sink, Sinks, shape
from rtmpclient import (
    AAC_FRAME,
    AAC_HEADER,
    AUDIO,
    AVC_FRAME,
    AVC_HEADER,
    AVC_KEY_FRAME,
    COMMAND,
    DATA,
    HANDSHAKE,
    VIDEO,
    Client,
)
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import (
    IAuthorizer,
    IMediaSink,
    ISinkFactory,
)
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import UNDEFINED


def test_doubles(clock: Clock) -> None:
    client = Client(RTMPFactory(clock))
    verifyObject(ITCPTransport, client.transport)
    client.leave()
    verifyObject(IMediaSink, Sink())
    verifyObject(ISinkFactory, Sinks())
    verifyObject(IAuthorizer, Ask())


# Clients, one by one


def test_connectReplies(clock: Clock) -> None:
    """Controls on chunk stream 2 before _result and onBWDone on 3: Larix insists."""
    client = Client(RTMPFactory(clock, chunkSize=60_000))
    client.connect("live")
    replies = client.take()
    assert [(r.csid, r.typeId, r.streamId) for r in replies] == [
        (2, 5, 0),
        (2, 6, 0),
        (2, 4, 0),
        (2, 1, 0),
        (3, COMMAND, 0),
        (3, COMMAND, 0),
    ]
    assert replies[0].number == 5_000_000
    assert replies[1].payload == (5_000_000).to_bytes(4, "big") + b"\x02"
    assert replies[3].number == 60_000
    name, tid, properties, information = replies[4].values
    assert (name, tid) == ("_result", 1.0)
    assert properties["fmsVer"].startswith("FMS/3")
    assert properties["capabilities"] == 31.0
    assert information["level"] == "status"
    assert information["code"] == "NetConnection.Connect.Success"
    assert information["objectEncoding"] == 0.0
    assert "fourCcList" not in information
    assert replies[5].values[:2] == ["onBWDone", 0.0]


def test_ffmpeg(clock: Clock) -> None:
    """It waits for each reply, publishes on chunk stream 8, and deletes its stream."""
    sinks = Sinks()
    client = Client(RTMPFactory(clock, sinkFactories=[sinks]))
    client.connect(
        "live",
        type="nonprivate",
        flashVer="FMLE/3.0 (compatible; Lavf61.1.100)",
        tcUrl="rtmp://localhost:1935/live",
        fourCcList=["av01", "hvc1"],
    )
    assert client.take()[4].values[3]["fourCcList"] == ["*"]
    client.command("releaseStream", 2.0, None, "key")
    client.command("FCPublish", 3.0, None, "key")
    client.command("createStream", 4.0, None)
    client.command("_checkbw", 5.0, None)
    replies = client.take()
    assert shape(replies) == [
        (3, 0, "_result", 2.0, ""),
        (3, 0, "onFCPublish", 0.0, START),
        (3, 0, "_result", 3.0, ""),
        (3, 0, "_result", 4.0, ""),
        (3, 0, "_result", 5.0, ""),
    ]
    assert replies[0].values == ["_result", 2.0, None, UNDEFINED]
    assert replies[1].values[3]["description"] == "key"
    assert replies[3].values == ["_result", 4.0, None, 1.0]
    client.command("publish", 6.0, None, "key", "live", streamId=1, csid=8)
    replies = client.take()
    assert [(r.csid, r.streamId, r.typeId) for r in replies] == [(2, 0, 4), (5, 1, 20)]
    assert replies[0].payload == bytes.fromhex("0000 00000001")
    name, tid, null, status = replies[1].values
    assert (name, tid, null) == ("onStatus", 0.0, None)
    assert status["level"] == "status"
    assert status["code"] == START
    assert status["details"] == "key"
    metadata = amf0.encode("onMetaData", {"width": 64.0})
    client.media(DATA, amf0.encode("@setDataFrame") + metadata)
    client.media(VIDEO, AVC_HEADER)
    client.media(VIDEO, AVC_KEY_FRAME)
    assert sinks[0].payloads == [metadata, AVC_HEADER, AVC_KEY_FRAME]
    client.command("FCUnpublish", 7.0, None, "key")
    client.command("deleteStream", 8.0, None, 1.0)
    assert shape(client.take()) == [
        (3, 0, "onFCUnpublish", 0.0, ENDED),
        (3, 0, "_result", 7.0, ""),
        (5, 1, "onStatus", 0.0, ENDED),
    ]
    assert sinks[0].ended
    assert client.open
    client.leave()


def test_OBS(clock: Clock) -> None:
    """Its chunk size comes before connect; media and metadata on chunk stream 4."""
    sinks = Sinks()
    client = Client(RTMPFactory(clock, sinkFactories=[sinks]))
    client.shakeHands()
    client.connection.sendChunkSize(4096)
    client.connect(
        "live", type="nonprivate", flashVer="FMLE/3.0 (compatible; FMSc/1.0)"
    )
    client.command("releaseStream", 2.0, None, "key?clientConfigId=7")
    client.command("FCPublish", 3.0, None, "key?clientConfigId=7")
    client.command("createStream", 4.0, None)
    client.take()
    client.command("publish", 5.0, None, "key?clientConfigId=7", "live", streamId=1)
    assert client.codes() == [START]
    payload = AVC_KEY_FRAME + bytes(10_000)
    client.media(VIDEO, payload)
    assert sinks.labels == ["live/key"]
    assert sinks[0].payloads == [payload]
    client.leave()
    assert sinks[0].ended


def test_FMLE(clock: Clock) -> None:
    """It sends everything in one go, and goes on at onFCPublish."""
    client = Client(RTMPFactory(clock))
    client.connect("live", capabilities=239.0, objectEncoding=3.0, fpad=False)
    assert client.take()[4].values[3]["objectEncoding"] == 3.0
    connection = client.connection
    connection.sendCommand("releaseStream", 2, None, "key")
    connection.sendCommand("FCPublish", 3, None, "key")
    client.flush()
    assert [r.name for r in client.take()] == ["_result", "onFCPublish", "_result"]
    client.command("createStream", 4.0, None)
    client.command("publish", 5.0, None, "key", "live", streamId=1)
    assert client.codes() == [START]
    client.leave()


def test_GStreamer(clock: Clock) -> None:
    """No transaction ids, so no replies; deleteStream names the stream, on 0."""
    sinks = Sinks()
    client = Client(RTMPFactory(clock, sinkFactories=[sinks]))
    client.connect("live")
    client.take()
    client.command("releaseStream", 0, None, "key")
    client.command("FCPublish", 0, None, "key")
    assert [r.name for r in client.take()] == ["onFCPublish"]
    client.command("createStream", 4.0, None)
    client.command("publish", 0, None, "key", "live", streamId=1)
    assert shape(client.take()) == [
        (3, 0, "_result", 4.0, ""),
        (5, 1, "onStatus", 0.0, START),
    ]
    client.command("FCUnpublish", 0, None, "key")
    client.command("closeStream", 0, None, streamId=1)
    client.command("deleteStream", 0, None, "key")
    assert client.codes() == [ENDED, ENDED]
    assert sinks[0].ended
    assert client.open
    # The message stream is gone, and its id is not given again.
    client.command("createStream", 5.0, None)
    assert client.take()[0].values[3] == 2.0
    client.leave()


def test_HaishinKit(clock: Clock) -> None:
    """Its application has a query, its chunk size comes late, FC* not at all."""
    sinks, ask = Sinks(), Ask()
    client = Client(RTMPFactory(clock, sinkFactories=[sinks], authorizer=ask))
    client.connect("live?token=1", swfUrl=None, fourCcList=["hvc1", "Opus"])
    client.connection.sendChunkSize(8192)
    client.command("createStream", 2.0, None)
    client.command("publish", 3.0, None, "key", "live", streamId=1)
    assert START in client.codes()
    assert (ask.asked[0].application, ask.asked[0].query) == ("live", "token=1")
    client.command("FCUnpublish", 4.0, None, "key")
    client.command("deleteStream", 5.0, None, 1.0)
    assert sinks.labels == ["live/key"]
    assert sinks[0].ended
    client.leave()


def test_RootEncoder(clock: Clock) -> None:
    """All in one read with running ids; closeStream is all it says at the end."""
    sinks = Sinks()
    client = Client(RTMPFactory(clock, sinkFactories=[sinks]))
    client.connect("live", flashVer="FMLE/3.0 (compatible; Lavf57.56.101)")
    client.take()
    connection = client.connection
    connection.sendCommand("releaseStream", 2, None, "key")
    connection.sendCommand("FCPublish", 3, None, "key")
    connection.sendCommand("createStream", 4, None)
    connection.sendCommand("publish", 5, None, "key", "live", streamId=1)
    client.flush()
    assert [(r.values[0], r.values[1]) for r in client.commands()] == [
        ("_result", 2.0),
        ("onFCPublish", 0.0),
        ("_result", 3.0),
        ("_result", 4.0),
        ("onStatus", 0.0),
    ]
    client.media(VIDEO, AVC_KEY_FRAME)
    client.command("closeStream", 0, None, streamId=1)
    assert client.codes() == [ENDED]
    assert sinks[0].ended
    client.media(VIDEO, AVC_FRAME)
    assert sinks[0].payloads == [AVC_KEY_FRAME]
    client.leave()


def test_Haivision(clock: Clock) -> None:
    """createStream comes before FCPublish."""
    client = Client(RTMPFactory(clock))
    client.connect("live")
    client.take()
    client.command("createStream", 2.0, None)
    client.command("FCPublish", 3.0, None, "key")
    client.command("publish", 4.0, None, "key", "live", streamId=1)
    client.command("_checkbw", 5.0, None)
    assert shape(client.take()) == [
        (3, 0, "_result", 2.0, ""),
        (3, 0, "onFCPublish", 0.0, START),
        (3, 0, "_result", 3.0, ""),
        (5, 1, "onStatus", 0.0, START),
        (3, 0, "_result", 5.0, ""),
    ]
    client.leave()


def test_everyByteAlone(clock: Clock) -> None:
    """A publication in one-byte reads is the same publication."""
    said = Recorded(clock)
    sinks = Sinks()
    client = Client(RTMPFactory(clock, sinkFactories=[sinks]))
    for byte in said:
        client.protocol.dataReceived(bytes((byte,)))
    assert sinks[0].payloads == [AVC_HEADER, AVC_KEY_FRAME, AAC_HEADER, AAC_FRAME]
    client.leave()


def Recorded(clock: Clock) -> bytes:
    """All that a client says from C0 to its last frame."""
    client = Client(RTMPFactory(clock))
    said = bytearray()
    received = client.protocol.dataReceived

    def record(data: bytes) -> None:
        said.extend(data)
        received(data)

    client.protocol.dataReceived = record  # type: ignore[method-assign]
    client.publish()
    for typeId, payload in [
        (VIDEO, AVC_HEADER),
        (VIDEO, AVC_KEY_FRAME),
        (AUDIO, AAC_HEADER),
        (AUDIO, AAC_FRAME),
    ]:
        client.media(typeId, payload)
    client.leave()
    return bytes(said)


def test_amf3Command(clock: Clock) -> None:
    """Quirk 23: a command of type 17 is answered with one."""
    client = Client(RTMPFactory(clock))
    client.shakeHands()
    client.connection.sendCommand("connect", 1, {"app": "live"}, amf3=True)
    client.flush()
    result = next(r for r in client.take() if r.typeId == 17)
    assert amf0.decode(result.payload[1:])[:2] == ["_result", 1.0]
    client.leave()


def test_unknownCommand(clock: Clock, lines: list[str]) -> None:
    """It is answered with nothing much, and logged once."""
    client = Client(RTMPFactory(clock))
    client.connect()
    client.take()
    client.command("setPeerInfo\r\n", 7.0, None)
    client.command("setPeerInfo\r\n", 8.0, None)
    client.command("setPeerInfo\r\n", 0, None)
    client.command("_error", 9.0, None)
    assert [r.values for r in client.take()] == [
        ["_result", 7.0, None],
        ["_result", 8.0, None],
    ]
    assert sum("setPeerInfo" in line for line in lines) == 1
    client.leave()


def test_connectWithoutTransactionId(clock: Clock) -> None:
    client = Client(RTMPFactory(clock))
    client.shakeHands()
    client.command("connect", 0, {"app": "live"})
    assert client.take()[4].values[:2] == ["_result", 1.0]
    client.leave()


def test_getStreamLength(clock: Clock) -> None:
    client = Client(RTMPFactory(clock))
    client.connect()
    client.take()
    client.command("getStreamLength", 3.0, None, "key")
    assert [r.values for r in client.take()] == [["_result", 3.0, None, 0.0]]
    client.leave()


@pytest.mark.parametrize(
    ("properties", "key", "label"),
    [
        ({"app": "live"}, "key", "live/key"),
        ({"app": "live?a=b"}, "key?c=d?e=f", "live/key"),
        ({"app": "live/"}, "?token", "live/"),
        ({"app": "live/_definst_"}, "key", "live/key"),
        ({"app": "a/b"}, "c", "a/b/c"),
        ({"tcUrl": "rtmp://host:1935/live?x=1"}, "key", "live/key"),
        ({"tcurl": '"rtmp://host/live"'}, "key", "live/key"),
        ({"app": ""}, "", "/"),
        ({"app": "live"}, 42.0, "live/42"),
        ({"app": "live"}, None, "live/"),
    ],
)
def test_names(clock: Clock, properties: dict[str, Any], key: Any, label: str) -> None:
    """Quirk 22: however encoders spell application and key."""
    sinks = Sinks()
    client = Client(RTMPFactory(clock, sinkFactories=[sinks]))
    client.shakeHands()
    client.command("connect", 1.0, properties)
    client.command("createStream", 2.0, None)
    client.command("publish", 3.0, None, key, "live", streamId=1)
    assert sinks.labels == [label]
    client.leave()


# What is not allowed


@pytest.mark.parametrize("name", ["publish", "createStream", "whatever"])
def test_commandBeforeConnect(clock: Clock, name: str) -> None:
    factory = RTMPFactory(clock)
    client = Client(factory)
    client.shakeHands()
    client.command(name, 1.0, None)
    assert not client.open
    assert factory.counters.violations == 1
    assert not factory.connections


def test_secondConnect(clock: Clock) -> None:
    factory = RTMPFactory(clock)
    client = Client(factory)
    client.connect()
    client.connect()
    assert not client.open
    assert factory.counters.violations == 1


def test_whatCameBeforeAViolationCounts(clock: Clock) -> None:
    """One read with a frame and then a command that is none."""
    sinks = Sinks()
    client = Client(RTMPFactory(clock, sinkFactories=[sinks]))
    client.publish()
    connection = client.connection
    data = connection.writer.encode(6, VIDEO, 0, 1, AVC_KEY_FRAME)
    data += connection.writer.encode(3, COMMAND, 0, 0, b"\x05")
    data += connection.writer.encode(6, VIDEO, 0, 1, AVC_FRAME)
    client.sendBytes(data)
    assert sinks[0].payloads == [AVC_KEY_FRAME]
    assert sinks[0].ended
    assert client.transport.disconnected


def test_tooManyNetStreams(clock: Clock) -> None:
    """Promise P16."""
    factory = RTMPFactory(clock, limits=ServerLimits(netStreams=3))
    client = Client(factory)
    client.connect()
    client.take()
    for tid in range(2, 6):
        client.command("createStream", float(tid), None)
    replies = client.commands()
    assert [r.values[0] for r in replies] == ["_result"] * 3 + ["_error"]
    assert replies[3].values[1] == 5.0
    assert client.open
    client.command("publish", 6.0, None, "key", "live", streamId=9)
    assert not client.open
    assert factory.counters.violations == 1


# Message streams


def test_publishOnAnUnknownStream(clock: Clock) -> None:
    """Quirk 19: replies go to the id that the client uses."""
    client = Client(RTMPFactory(clock))
    client.connect()
    client.take()
    client.command("publish", 2.0, None, "key", "live", streamId=7)
    assert shape(client.take()) == [(5, 7, "onStatus", 0.0, START)]
    client.command("createStream", 3.0, None)
    assert client.take()[0].values[3] == 1.0
    client.leave()


def test_mediaOnStreamZero(clock: Clock) -> None:
    """node-media-server's client sends its media there."""
    sinks = Sinks()
    client = Client(RTMPFactory(clock, sinkFactories=[sinks]))
    client.publish()
    client.media(VIDEO, AVC_KEY_FRAME, streamId=0)
    assert sinks[0].payloads == [AVC_KEY_FRAME]
    client.leave()


def test_severalPublications(clock: Clock) -> None:
    """Quirk 20: each has its own media; what belongs to none is discarded."""
    sinks = Sinks()
    factory = RTMPFactory(clock, sinkFactories=[sinks])
    client = Client(factory)
    client.publish("one")
    client.command("createStream", 4.0, None)
    client.command("publish", 5.0, None, "two", "live", streamId=2)
    assert sorted(factory.streams) == [("live", "one"), ("live", "two")]
    client.media(VIDEO, AVC_KEY_FRAME, streamId=1)
    client.media(AUDIO, AAC_FRAME, streamId=2)
    client.media(AUDIO, AAC_HEADER, streamId=0)
    assert sinks[0].payloads == [AVC_KEY_FRAME]
    assert sinks[1].payloads == [AAC_FRAME]
    assert factory.counters.strayMessages == 1
    client.command("createStream", 6.0, None)
    client.command("publish", 7.0, None, "three", "live", streamId=3)
    client.command("deleteStream", 0, None, "nothing")
    client.command("deleteStream", 0, None, "three")
    assert sorted(factory.streams) == [("live", "one"), ("live", "two")]
    client.command("deleteStream", 8.0, None, 1.0)
    assert list(factory.streams) == [("live", "two")]
    client.command("FCUnpublish", 9.0, None, "one")
    assert list(factory.streams) == [("live", "two")]
    client.leave()
    assert not factory.streams
    assert sinks[1].ended


def test_publishAgain(clock: Clock) -> None:
    """On the same message stream, a new stream begins."""
    sinks = Sinks()
    client = Client(RTMPFactory(clock, sinkFactories=[sinks]))
    client.publish("one")
    client.take()
    client.command("publish", 4.0, None, "two", "live", streamId=1)
    assert client.codes() == [ENDED, START]
    assert sinks.labels == ["live/one", "live/two"]
    assert sinks[0].ended
    assert not sinks[1].ended
    client.leave()


def test_strayMedia(clock: Clock, lines: list[str]) -> None:
    """Of a peer that publishes nothing: counted, logged once, and no sign of life."""
    factory = RTMPFactory(clock)
    client = Client(factory)
    client.connect()
    for _ in range(9):
        clock.advance(1)
        client.media(VIDEO, AVC_KEY_FRAME)
    assert factory.counters.strayMessages == 9
    assert sum("without publishing" in line for line in lines) == 1
    clock.advance(1.01)
    assert not client.open


# The log


def test_logIsClean(clock: Clock, lines: list[str]) -> None:
    """Promise P19: no control character of a peer's, no query, no forged line."""
    evil = "a\r\n2026-01-01 forged\x1b[31m\u202e\x00"
    factory = RTMPFactory(clock, sinkFactories=[Sinks()])
    client = Client(factory)
    client.connect(f"{evil}?pass=hunter2", flashVer=evil)
    client.command(evil, 2.0, None)
    client.command("createStream", 3.0, None)
    client.command("publish", 4.0, None, f"{evil}?key=hunter2", "live", streamId=1)
    client.media(VIDEO, b"\x90")
    other = Client(factory)
    other.connect(f"{evil}?pass=hunter2")
    other.command("publish", 4.0, None, f"{evil}?key=hunter2", "live", streamId=1)
    third = Client(factory)
    third.shakeHands()
    third.command(evil, 1.0, None)
    fourth = Client(factory)
    fourth.sendBytes(b"GET /\x1b[31m\r\n HTTP/1.1\r\n" + bytes(2000))
    client.leave()
    assert len(lines) >= 9
    for line in lines:
        assert line.isprintable(), line
        assert "hunter2" not in line


def test_handshake(clock: Clock) -> None:
    """What the server says first is S0, S1 and S2, once C1 is there."""
    client = Client(RTMPFactory(clock))
    client.protocol.dataReceived(b"\x03" + bytes(1535))
    assert client.transport.queued == b""
    client.protocol.dataReceived(bytes(1))
    assert len(client.transport.queued) == HANDSHAKE
    assert client.transport.options == {"noDelay": True, "keepAlive": True}
    client.transport.taking = False
    client.leave()
