"""The server's end of a connection: what clients say, and what they are told."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
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
from serverprocess import selfSigned
from twisted.internet import ssl
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection as TCPConnection
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import (
    ConnectRequest,
    IAuthorizer,
    IMediaSink,
    ISinkFactory,
    Refused,
    StreamRequest,
)
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.link import GATHERED_BYTES, TURN_MESSAGES, TURN_SECONDS
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import UNDEFINED
from twisted_rtmp.wire.chunk import encodeMessage
from twisted_rtmp.wire.connection import Connection, Role
from twisted_rtmp.wire.handshake import ClientHandshake
from twisted_rtmp.wire.messages import Message

#: Replies fill a small buffer soon.
SMALL = ServerLimits(queuedReplyBytes=65_536)

START = "NetStream.Publish.Start"
BAD_NAME = "NetStream.Publish.BadName"
ENDED = "NetStream.Unpublish.Success"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@implementer(IMediaSink)
class Sink:
    """Keeps what it got."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.ended = False

    def mediaReceived(self, message):
        assert not self.ended
        self.messages.append(message)

    def streamEnded(self):
        assert not self.ended
        self.ended = True

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]


@implementer(ISinkFactory)
class Sinks:
    """Gives every stream a sink, and keeps them all by the stream's label."""

    sinkName = "test"

    def __init__(self, make: Callable[[Any], Any] = lambda stream: Sink()) -> None:
        self.all: list[tuple[str, Any]] = []
        self._make = make

    def openSink(self, stream):
        sink = self._make(stream)
        self.all.append((stream.label, sink))
        return sink

    def __getitem__(self, index: int) -> Any:
        return self.all[index][1]

    @property
    def labels(self) -> list[str]:
        return [label for label, _ in self.all]


@implementer(IAuthorizer)
class Ask:
    """Answers as the test says; keeps the questions."""

    def __init__(self, connect: Any = None, publish: Any = None) -> None:
        self.asked: list[Any] = []
        self._connect = connect
        self._publish = publish

    def connect(self, request):
        self.asked.append(request)
        return self._connect() if callable(self._connect) else self._connect

    def publish(self, request):
        self.asked.append(request)
        return self._publish() if callable(self._publish) else self._publish

    def play(self, request):
        return None


def refuse(why: str = "Not you.") -> Any:
    raise Refused(why)


def shape(replies: list[Any]) -> list[tuple[Any, ...]]:
    """Chunk stream, message stream, name, transaction id; code where there is one."""
    return [
        (r.csid, r.streamId, r.values[0], r.values[1], r.code)
        for r in replies
        if r.typeId == COMMAND
    ]


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


# Decisions


def test_questions(clock: Clock) -> None:
    ask = Ask()
    client = Client(RTMPFactory(clock, authorizer=ask))
    client.connect("live?a=1", flashVer="x")
    client.command("createStream", 2.0, None)
    client.command("publish", 3.0, None, "key?token=2", "live", streamId=1)
    connect, publish = ask.asked
    assert isinstance(connect, ConnectRequest)
    assert (connect.application, connect.query) == ("live", "a=1")
    assert connect.address == client.address
    assert connect.properties["flashVer"] == "x"
    assert isinstance(publish, StreamRequest)
    assert (publish.application, publish.name, publish.query) == (
        "live",
        "key",
        "token=2",
    )
    assert publish.connect is connect
    assert "token" not in repr(publish)
    client.leave()


async def soon(value: Any) -> Any:
    return value


async def later(deferred: Deferred[Any]) -> Any:
    return await deferred


@pytest.mark.parametrize(
    "answer", ["public", lambda: succeed("public"), lambda: soon("public")]
)
def test_rename(clock: Clock, answer: Any) -> None:
    """The stream has the public name, the peer is told its own."""
    sinks = Sinks()
    client = Client(
        RTMPFactory(clock, sinkFactories=[sinks], authorizer=Ask(publish=answer))
    )
    client.publish("secret")
    assert sinks.labels == ["live/public"]
    assert client.take()[-1].values[3]["details"] == "secret"
    client.command("FCUnpublish", 4.0, None, "secret")
    assert sinks[0].ended
    client.leave()


@pytest.mark.parametrize("wrapped", [lambda d: d, later])
def test_nothingHappensMeanwhile(clock: Clock, wrapped: Any) -> None:
    """Bytes that come before the decision wait, in their order."""
    decision: Deferred[Any] = Deferred()
    sinks = Sinks()
    client = Client(
        RTMPFactory(
            clock,
            sinkFactories=[sinks],
            authorizer=Ask(publish=lambda: wrapped(decision)),
        )
    )
    client.connect()
    client.command("createStream", 2.0, None)
    client.take()
    connection = client.connection
    connection.sendCommand("publish", 3, None, "key", "live", streamId=1)
    connection.sendCommand("createStream", 4, None)
    data = connection.dataToSend()
    data += connection.writer.encode(6, VIDEO, 0, 1, AVC_KEY_FRAME)
    client.sendBytes(data)
    assert not client.transport.reading
    client.media(VIDEO, AVC_FRAME, 40)
    assert client.take() == []
    assert sinks.all == []
    decision.callback(None)
    client.pump()
    assert [r.name for r in client.commands()] == ["onStatus", "_result"]
    assert sinks[0].payloads == [AVC_KEY_FRAME, AVC_FRAME]
    assert client.transport.reading
    client.leave()


def test_sinkThatThrottlesAtItsOpening(clock: Clock) -> None:
    """What waits behind C{publish} is not stray where a sink lets reading go on."""
    decision: Deferred[Any] = Deferred()

    def make(stream: Any) -> Sink:
        throttle = stream.throttle()
        throttle.pauseProducing()
        throttle.resumeProducing()
        return Sink()

    sinks = Sinks(make)
    factory = RTMPFactory(
        clock, sinkFactories=[sinks], authorizer=Ask(publish=lambda: decision)
    )
    client = Client(factory)
    client.connect()
    connection = client.connection
    connection.sendCommand("publish", 3, None, "key", "live", streamId=1)
    data = connection.dataToSend()
    data += connection.writer.encode(6, VIDEO, 0, 1, AVC_KEY_FRAME)
    client.sendBytes(data)
    decision.callback(None)
    client.pump()
    assert factory.counters.strayMessages == 0
    assert sinks[0].payloads == [AVC_KEY_FRAME]
    client.leave()


@pytest.mark.parametrize("how", ["raise", "deferred", "coroutine"])
def test_connectRefused(clock: Clock, how: str) -> None:
    """The error goes out, then the connection closes."""
    decision: Deferred[Any] = Deferred()
    answers = {
        "raise": refuse,
        "deferred": lambda: decision,
        "coroutine": lambda: later(decision),
    }
    factory = RTMPFactory(clock, authorizer=Ask(connect=answers[how]))
    client = Client(factory)
    client.connect()
    if how != "raise":
        assert client.take() == []
        decision.errback(Refused("Not you."))
        client.pump()
    [reply] = client.take()
    assert (reply.csid, reply.streamId) == (3, 0)
    assert reply.values == [
        "_error",
        1.0,
        None,
        {
            "level": "error",
            "code": "NetConnection.Connect.Rejected",
            "description": "Not you.",
        },
    ]
    assert client.transport.disconnected
    assert not client.transport.aborted
    assert factory.counters.refused == 1
    assert not factory.connections
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("how", ["raise", "deferred", "coroutine"])
def test_publishRefused(clock: Clock, how: str) -> None:
    """OBS shows it and stays away; no Publish.Start was sent before."""
    decision: Deferred[Any] = Deferred()
    answers = {
        "raise": refuse,
        "deferred": lambda: decision,
        "coroutine": lambda: later(decision),
    }
    factory = RTMPFactory(clock, authorizer=Ask(publish=answers[how]))
    client = Client(factory)
    client.connect()
    client.command("createStream", 2.0, None)
    client.take()
    client.command("publish", 3.0, None, "key", "live", streamId=1)
    if how != "raise":
        decision.errback(Refused("Not you."))
        client.pump()
    [reply] = client.take()
    assert (reply.csid, reply.streamId) == (5, 1)
    status = reply.values[3]
    assert status["level"] == "error"
    assert status["code"] == "NetStream.Publish.Denied"
    assert status["description"] == "Not you."
    assert client.transport.disconnected
    assert not factory.streams
    assert factory.counters.refused == 1


def stumble() -> Any:
    raise ZeroDivisionError("a bug")


async def stumbleLater() -> Any:
    stumble()


@pytest.mark.parametrize("answer", [stumble, stumbleLater])
def test_decisionFails(clock: Clock, loggedFailures: Any, answer: Any) -> None:
    """A bug of the authorizer's is logged, and no permission."""
    factory = RTMPFactory(clock, authorizer=Ask(publish=answer))
    client = Client(factory)
    client.publish()
    assert client.codes()[-1] == "NetStream.Publish.Denied"
    assert client.transport.disconnected
    assert not factory.streams
    assert len(loggedFailures.take(ZeroDivisionError)) == 1


@pytest.mark.parametrize("wrapped", [lambda d: d, later])
def test_lostWhileDeciding(clock: Clock, wrapped: Any) -> None:
    """The question is withdrawn, and nothing is logged as unhandled."""
    withdrawn: list[object] = []
    decision: Deferred[Any] = Deferred(withdrawn.append)
    factory = RTMPFactory(clock, authorizer=Ask(publish=lambda: wrapped(decision)))
    client = Client(factory)
    client.publish()
    client.leave()
    assert withdrawn == [decision]
    assert not factory.streams
    assert clock.getDelayedCalls() == []


def test_decidedAfterTheEnd(clock: Clock) -> None:
    """A decision that comes once the connection is closing changes nothing."""
    decision: Deferred[Any] = Deferred(lambda d: None)
    sinks = Sinks()
    factory = RTMPFactory(
        clock, sinkFactories=[sinks], authorizer=Ask(publish=lambda: decision)
    )
    client = Client(factory)
    client.publish()
    client.transport.taking = False
    assert not client.transport.reading
    resumed: list[bool] = []
    client.transport.resumeProducing = (  # type: ignore[method-assign]
        lambda: resumed.append(client.transport.disconnecting)
    )
    client.protocol.close()
    assert resumed == [False]
    decision.callback(None)
    assert sinks.all == []
    assert resumed == [False]
    client.transport.taking = True
    client.pump()
    assert client.transport.disconnected
    assert START not in client.codes()


def test_decisionTakesTooLong(clock: Clock) -> None:
    failures: list[Any] = []
    decision: Deferred[Any] = Deferred()
    decision.addErrback(lambda f: (failures.append(f.trap(CancelledError)), f)[1])
    factory = RTMPFactory(clock, authorizer=Ask(connect=lambda: decision))
    client = Client(factory)
    client.connect()
    clock.advance(10)
    client.pump()
    assert client.transport.disconnected
    assert failures == [CancelledError]
    assert factory.counters.cut == 1


def test_slowDecisionIsNotIdleness(clock: Clock) -> None:
    """A peer that asked late has its answer all the same."""
    decision: Deferred[Any] = Deferred()
    client = Client(RTMPFactory(clock, authorizer=Ask(publish=lambda: decision)))
    client.connect()
    clock.advance(8)
    client.command("publish", 3.0, None, "key", "live", streamId=1)
    clock.advance(9.9)
    decision.callback(None)
    assert client.codes()[-1] == START
    clock.advance(9.9)
    assert client.open
    client.leave()


def test_manyDecisionsAtOnce(clock: Clock) -> None:
    """Two thousand publish commands in one read nest nothing."""
    sinks = Sinks()
    client = Client(
        RTMPFactory(
            clock, sinkFactories=[sinks], authorizer=Ask(publish=lambda: soon(None))
        )
    )
    client.publish("first")
    client.take()
    connection = client.connection
    for number in range(2000):
        connection.sendCommand("publish", 0, None, f"s{number}", "live", streamId=1)
    client.flush()
    assert sinks.labels[-1] == "live/s1999"
    assert len(sinks.all) == 2001
    client.leave()


# Deadlines


def test_handshakeDeadline(clock: Clock) -> None:
    """Promise P4: a byte a second is no handshake."""
    factory = RTMPFactory(clock)
    client = Client(factory)
    client.protocol.dataReceived(b"\x03")
    for _ in range(9):
        clock.advance(1)
        client.protocol.dataReceived(b"\x00")
        assert client.open
    clock.advance(1)
    assert not client.open
    client.pump()
    assert client.transport.disconnected
    assert factory.counters.cut == 1
    assert clock.getDelayedCalls() == []


def test_connectDeadline(clock: Clock) -> None:
    """It counts from the handshake, and pings do not stretch it."""
    client = Client(RTMPFactory(clock))
    clock.advance(9)
    client.shakeHands()
    for _ in range(9):
        clock.advance(1)
        client.connection.sendUserControl(6, 1)
        client.flush()
        assert client.open
    clock.advance(1)
    assert not client.open
    client.pump()
    assert client.transport.disconnected


def test_idleDeadline(clock: Clock) -> None:
    client = Client(RTMPFactory(clock))
    clock.advance(5)
    client.connect()
    clock.advance(5)
    client.command("createStream", 2.0, None)
    clock.advance(4.99)
    assert client.open
    clock.advance(0.01)
    assert not client.open
    client.pump()
    assert client.transport.disconnected


@pytest.mark.parametrize("data", [False, True])
def test_publisherIdle(clock: Clock, data: bool, lines: list[str]) -> None:
    """Without audio or video, whatever metadata there is."""
    sinks = Sinks()
    factory = RTMPFactory(clock, sinkFactories=[sinks])
    client = Client(factory)
    client.publish()
    for _ in range(30):
        clock.advance(1)
        client.media(AUDIO, AAC_FRAME)
    for _ in range(9):
        clock.advance(1)
        if data:
            client.media(DATA, amf0.encode("onMetaData", {}))
        assert client.open
    clock.advance(1)
    assert not client.open
    assert sinks[0].ended
    client.pump()
    assert factory.counters.cut == 1
    assert any("no audio or video for 10 s" in line for line in lines)
    assert clock.getDelayedCalls() == []


def test_idleAfterPublication(clock: Clock) -> None:
    client = Client(RTMPFactory(clock))
    client.publish()
    clock.advance(8)
    client.command("closeStream", 0, None, streamId=1)
    clock.advance(9.9)
    assert client.open
    clock.advance(0.2)
    assert not client.open
    client.pump()


def test_repliesNotTaken(clock: Clock) -> None:
    """Promise P12: a flood of questions, and no ear for the answers."""
    factory = RTMPFactory(clock, limits=SMALL)
    client = Client(factory)
    client.connect()
    client.transport.taking = False
    for _ in range(200):
        for _ in range(100):
            client.connection.sendCommand("_checkbw", 5, None)
        client.flush()
    assert not client.transport.reading
    assert client.transport.most < 2 * 65_536
    clock.advance(9.99)
    assert not client.transport.disconnected
    clock.advance(0.01)
    assert client.transport.aborted
    assert factory.counters.cut == 1
    assert not factory.connections
    assert clock.getDelayedCalls() == []


def test_repliesTakenAfterAll(clock: Clock) -> None:
    """Dispatch stops meanwhile, goes on afterwards, and loses nothing."""
    client = Client(RTMPFactory(clock, limits=SMALL))
    client.connect()
    client.take()
    client.transport.taking = False
    connection = client.connection
    for tid in range(1, 5001):
        connection.sendCommand("_checkbw", tid, None)
    client.flush()
    assert not client.transport.reading
    clock.advance(9)
    client.transport.taking = True
    client.pump()
    assert [r.values[1] for r in client.commands()] == list(range(1, 5001))
    assert client.transport.reading
    assert client.open
    client.leave()


def test_pingFlood(clock: Clock) -> None:
    """The wire answers pings by itself: what it queues is bounded all the same."""
    client = Client(RTMPFactory(clock, limits=SMALL))
    client.connect()
    client.transport.taking = False
    for number in range(20_000):
        client.connection.sendUserControl(6, number)
    client.flush()
    assert not client.transport.reading
    assert client.transport.most < 2 * 65_536
    client.transport.taking = True
    client.pump()
    answers = [r for r in client.take() if r.typeId == 4 and r.payload[1] == 7]
    assert len(answers) == 20_000
    client.leave()


def test_closingDeadline(clock: Clock) -> None:
    """loseConnection waits for the peer to read; we do not for ever."""
    client = Client(RTMPFactory(clock, authorizer=Ask(publish=refuse)))
    client.connect()
    client.command("createStream", 2.0, None)
    client.transport.taking = False
    client.command("publish", 3.0, None, "key", "live", streamId=1)
    assert client.transport.disconnecting
    clock.advance(9.99)
    assert not client.transport.disconnected
    clock.advance(0.01)
    assert client.transport.aborted
    assert clock.getDelayedCalls() == []


def test_closedWhileHeld(clock: Clock) -> None:
    """
    The holds go: TLS can end only when it may read, and what it reads then is
    neither dispatched nor kept.
    """
    throttles = []

    def make(stream: Any) -> Sink:
        throttles.append(stream.throttle())
        return Sink()

    sinks = Sinks(make)
    client = Client(RTMPFactory(clock, sinkFactories=[sinks]))
    client.publish()
    throttles[0].pauseProducing()
    assert not client.transport.reading
    resumed: list[bool] = []
    client.transport.resumeProducing = (  # type: ignore[method-assign]
        lambda: resumed.append(client.transport.disconnecting)
    )
    client.transport.taking = False
    client.transport.write(b"")
    client.protocol.close()
    assert resumed == [False]
    assert client.transport.disconnecting
    client.protocol.dataReceived(b"\xff" * 100_000)
    assert client.protocol.wire.bytesReceived < 100_000
    throttles[0].resumeProducing()
    client.transport.taking = True
    client.pump()
    assert client.transport.disconnected


class TLSClient(Client):
    """The same over TLS, as the server's end has it from Twisted."""

    def __init__(self, factory: RTMPFactory, certificate: ssl.ContextFactory):
        self.closeNotified = False
        self._tls = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        self._tls.set_connect_state()
        self._shaken = False
        super().__init__(
            TLSMemoryBIOFactory(certificate, False, factory, factory.clock),
            factory.clock,
        )
        self._shake()

    def _shake(self) -> None:
        with contextlib.suppress(SSL.WantReadError):
            self._tls.do_handshake()
            self._shaken = True
        self._carry()

    def _carry(self) -> None:
        with contextlib.suppress(SSL.WantReadError):
            while True:
                super().sendBytes(self._tls.bio_read(65_536))

    def sendBytes(self, data: bytes) -> None:
        self._tls.sendall(data)
        self._carry()

    def heard(self, data: bytes) -> None:
        self._tls.bio_write(data)
        if not self._shaken:
            self._shake()
        with contextlib.suppress(SSL.WantReadError):
            try:
                while True:
                    super().heard(self._tls.recv(65_536))
                    answer = self.connection.dataToSend()
                    if answer:
                        self.sendBytes(answer)
            except SSL.ZeroReturnError:
                self.closeNotified = True
                self._tls.shutdown()
                self._carry()


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.ContextFactory:
    path = tmp_path / "server.pem"
    path.write_bytes(selfSigned())
    return ssl.DefaultOpenSSLContextFactory(str(path), str(path))


@pytest.mark.parametrize("held", [False, True])
def test_TLSEndsUnderHolds(
    clock: Clock, certificate: ssl.ContextFactory, held: bool
) -> None:
    """
    The refusal arrives, then both ends say that they close: for that, the server
    reads on, though a decision has kept it from reading.
    """
    decision: Deferred[Any] = Deferred(lambda d: None)
    factory = RTMPFactory(clock, authorizer=Ask(publish=lambda: decision))
    client = TLSClient(factory, certificate)
    client.publish()
    [protocol] = factory.connections
    assert not client.transport.reading
    if held:
        protocol.close()
    else:
        decision.errback(Refused("Not you."))
    client.pump()
    assert client.closeNotified
    assert client.transport.disconnected
    assert not client.transport.aborted
    assert not factory.connections
    expected = ["NetStream.Publish.Denied"] * (not held)
    assert client.codes() == ["NetConnection.Connect.Success", *expected]


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


# Turns


def test_othersHaveTheirTurn(clock: Clock) -> None:
    """A peer whose messages take long is dispatched by and by, in order."""
    factory = RTMPFactory(clock)
    client = Client(factory)
    client.publish("key")
    [stream] = factory.streams.values()
    taken: list[int] = []

    @implementer(IMediaSink)
    class SlowSink:
        def mediaReceived(self, message):
            taken.append(message.timestamp)
            clock.rightNow += TURN_SECONDS / TURN_MESSAGES * 1.5

        def streamEnded(self):
            pass

    stream.addSink(SlowSink())
    count = TURN_MESSAGES * 3
    for time in range(count):
        client.connection.sendMessage(Message(AUDIO, time, 1, AAC_FRAME), 4)
    data = client.connection.dataToSend()
    client.protocol.dataReceived(data)
    assert taken == list(range(TURN_MESSAGES))
    assert not client.transport.reading
    [turn] = [call for call in clock.getDelayedCalls() if call.func.__name__ == "_turn"]
    assert turn.getTime() <= clock.seconds()
    clock.advance(0)
    assert taken == list(range(count))
    assert client.transport.reading


def test_theTurnOfAPeerThatIsGone(clock: Clock) -> None:
    def slow() -> None:
        clock.rightNow += TURN_SECONDS

    authorizer = Ask(publish=slow)
    client = Client(RTMPFactory(clock, authorizer=authorizer))
    client.connect()
    for number in range(2):
        client.connection.sendCommand(
            "publish", 0, None, str(number), "live", streamId=number + 1
        )
    for _ in range(TURN_MESSAGES):
        client.connection.sendCommand("unknown", 0, None)
    client.protocol.dataReceived(client.connection.dataToSend())
    assert [request.name for request in authorizer.asked[1:]] == ["0", "1"]
    assert not client.transport.reading
    client.leave()
    assert not clock.getDelayedCalls()


# Paced reads, on real sockets


class PacedPair:
    """A publisher's connection whose reads are called as at a tick."""

    def __init__(self, factory: RTMPFactory) -> None:
        from twisted.internet import reactor

        ours, self.peer = socket.socketpair()
        self.protocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        assert self.protocol is not None
        ours.setblocking(False)
        self.transport = ConnectedSocket(ours, self.protocol, reactor)
        self.protocol.makeConnection(self.transport)

    def close(self) -> None:
        self.peer.close()
        if self.transport.connected:
            self.transport.connectionLost(Failure(ConnectionDone()))


class ConnectedSocket(TCPConnection):
    """A transport that notes whether the reactor would read it."""

    connected = 1
    reading = True

    def startReading(self):
        self.reading = True

    def stopReading(self):
        self.reading = False

    def setTcpNoDelay(self, enabled):
        """A socket of a pair has no such option."""

    def setTcpKeepAlive(self, enabled):
        """Nor this one."""


@pytest.fixture
def pair(clock: Clock) -> Iterator[PacedPair]:
    pair = PacedPair(RTMPFactory(clock))
    yield pair
    pair.close()


def test_aPacedReadTakesWhatHasCome(pair: PacedPair) -> None:
    pair.protocol.holdPace()
    assert not pair.transport.reading
    client = Connection(Role.CLIENT, handshake=ClientHandshake(digest=False))
    client.start()
    pair.peer.sendall(client.dataToSend())
    data = pair.protocol.readPaced()
    assert len(data) == 1537
    assert not pair.transport.reading
    pair.protocol.takePaced(data)
    assert pair.transport.reading


def test_aPacedReadOfNothingGoesOnAsUsual(pair: PacedPair) -> None:
    pair.protocol.holdPace()
    assert pair.protocol.readPaced() == b""
    assert pair.transport.reading


def test_theEndIsLeftToTheReactor(pair: PacedPair) -> None:
    pair.protocol.holdPace()
    pair.peer.close()
    assert pair.protocol.readPaced() == b""
    assert pair.transport.connected
    assert pair.transport.reading


def test_aPacedReadThatFailsEndsTheConnection(pair: PacedPair, clock: Clock) -> None:
    pair.protocol.holdPace()
    pair.transport.socket.close()
    assert pair.protocol.readPaced() == b""
    assert not pair.transport.connected
    assert not pair.protocol.factory.connections
    assert not clock.getDelayedCalls()


def test_aBugInAPacedReadEndsItsConnectionOnly(
    pair: PacedPair, loggedFailures: Any, monkeypatch: Any
) -> None:
    def broken(data: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(pair.protocol, "dataReceived", broken)
    pair.protocol.holdPace()
    pair.peer.sendall(b"x")
    pair.protocol.takePaced(pair.protocol.readPaced())
    assert not pair.transport.connected
    assert len(loggedFailures.take(ZeroDivisionError)) == 1


def test_whatIsGatheredIsSentBehindWhatWasWritten(clock: Clock) -> None:
    factory = RTMPFactory(clock)
    client = Client(factory)
    client.connect()
    client.command("createStream", 2, None)
    client.take()
    protocol = client.protocol
    pacer = factory.pacer
    pacer.gathering = gathered = []
    protocol.writeMedia(encodeMessage(4, AUDIO, 1, 1, AAC_FRAME, 65536))
    protocol.wire.sendUserControl(0, 7)
    protocol.flush()
    protocol.writeMedia(encodeMessage(4, AUDIO, 2, 1, AAC_FRAME, 65536))
    pacer.gathering = None
    assert gathered == [protocol]
    assert client.take() == []
    protocol.sendGathered()
    assert [reply.typeId for reply in client.take()] == [AUDIO, 4, AUDIO]
    protocol.sendGathered()
    assert client.take() == []


def test_whatIsGatheredIsSentBeforeTheEnd(clock: Clock) -> None:
    factory = RTMPFactory(clock)
    client = Client(factory)
    client.connect()
    client.take()
    factory.pacer.gathering = []
    client.protocol.writeMedia(encodeMessage(4, AUDIO, 1, 1, AAC_FRAME, 65536))
    client.protocol.close()
    factory.pacer.gathering = None
    assert [reply.typeId for reply in client.take()] == [AUDIO]
    assert client.transport.disconnected


def test_muchIsNotGathered(clock: Clock) -> None:
    factory = RTMPFactory(clock)
    client = Client(factory)
    client.connect()
    client.take()
    factory.pacer.gathering = []
    frame = bytes(GATHERED_BYTES)
    client.protocol.writeMedia(encodeMessage(6, VIDEO, 1, 1, frame, 65536))
    factory.pacer.gathering = None
    assert [len(reply.payload) for reply in client.take()] == [GATHERED_BYTES]
