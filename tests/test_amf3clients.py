"""Clients of objectEncoding 3: their commands and data, and what others get of them."""

from __future__ import annotations

import random
import signal
import struct

import pytest
from feeding import CollectingSink
from rtmpclient import (
    AAC_FRAME,
    AAC_HEADER,
    AUDIO,
    AVC_FRAME,
    AVC_HEADER,
    AVC_KEY_FRAME,
    COMMAND,
    DATA,
    VIDEO,
    Client,
    SocketClient,
)
from serverprocess import Server
from twisted.internet.task import Clock
from zope.interface import implementer

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.flv.tags import FLVReader
from twisted_rtmp.interfaces import IMediaSink
from twisted_rtmp.live.turns import TURN_SECONDS
from twisted_rtmp.wire import amf0, amf3
from twisted_rtmp.wire.amftranslation import (
    MAX_GROWTH,
    MAX_TRANSLATED_SIZE,
    withoutAMF3,
)
from twisted_rtmp.wire.amfvalues import (
    UNDEFINED,
    XML,
    Date,
    Dictionary,
    ECMAArray,
    TypedObject,
    Vector,
    VectorType,
    XMLDocument,
)
from twisted_rtmp.wire.limits import WireLimits
from twisted_rtmp.wire.messages import Message

DATA_AMF3, COMMAND_AMF3 = 15, 17

METADATA = {
    "width": 1280.0,
    "height": 720.0,
    "videocodecid": 7.0,
    "encoder": "an AMF3 encoder",
    "stereo": True,
    "trackInfo": [{"language": "eng"}, {"language": "deu"}],
}


def switched(*values):
    """Values in AMF3, each behind AMF0's marker; they refer to each other's strings."""
    out = bytearray()
    writer = amf3.AMF3Writer(out)
    for value in values:
        out.append(0x11)
        writer.write(value, 0)
    return bytes(out)


def named(name, *values):
    """The body of a message of type 15 or 17: names are AMF0 there."""
    return b"\x00" + amf0.encode(name) + switched(*values)


class Flex:
    """Speaks as Flash Player does with objectEncoding 3, by whatever transport."""

    def call(self, name, tid, *arguments, streamId=0):
        payload = b"\x00" + amf0.encode(name, tid) + switched(*arguments)
        message = Message(COMMAND_AMF3, 0, streamId, payload)
        self.connection.sendMessage(message, 3)
        self.flush()

    def data(self, name, *values, time=0, typeId=DATA_AMF3):
        payload = named(name, *values)
        message = Message(typeId, time, 1, payload if typeId == 15 else payload[1:])
        self.connection.sendMessage(message, 5)
        self.flush()


class FlexClient(Flex, Client):
    def told(self):
        """Name, values and whether it came as type 17, of each command since."""
        return [
            (amf0.decode(reply.payload[reply.typeId == COMMAND_AMF3 :]), reply)
            for reply in self.take()
            if reply.typeId in (COMMAND, COMMAND_AMF3)
        ]

    def begin(self, name="key"):
        self.connect("live", objectEncoding=3.0)
        self.call("createStream", 2.0, None)
        self.call("publish", 3.0, None, name, "live", streamId=1)
        self.take()


class FlexSocketClient(Flex, SocketClient):
    pass


@pytest.fixture
def factory():
    factory = RTMPFactory(Clock())
    factory.sinks = []

    def started(stream):
        factory.sinks.append(CollectingSink(stream))
        stream.addSink(factory.sinks[-1])

    factory.streamStarted.append(started)
    yield factory
    for connection in list(factory.connections):
        connection.transport.abortConnection()


def player(factory, name="key"):
    """A player of the older encoding."""
    client = Client(factory)
    client.connect("live")
    client.command("createStream", 2.0, None)
    client.command("play", 3.0, None, name, -2.0, streamId=1)
    client.take()
    return client


def dataOf(client):
    return [r for r in client.take() if r.typeId in (DATA, DATA_AMF3)]


# Commands


def test_connectInAMF0(factory):
    """As Flash Player connects: only then it begins to speak AMF3."""
    client = FlexClient(factory)
    client.connect("live", objectEncoding=3.0)
    replies = client.told()
    assert {reply.typeId for _, reply in replies} == {COMMAND}
    [result] = [values for values, _ in replies if values[0] == "_result"]
    assert result[3]["objectEncoding"] == 3.0
    client.call("createStream", 2.0, None)
    [(values, reply)] = client.told()
    assert (reply.typeId, values) == (COMMAND_AMF3, ["_result", 2.0, None, 1.0])


def test_connectInAMF3(factory):
    client = FlexClient(factory)
    client.shakeHands()
    client.call(
        "connect",
        1.0,
        {
            "app": "live",
            "tcUrl": "rtmp://localhost/live",
            "objectEncoding": 3,
            "fourCcList": ["*"],
            "videoFourCcInfoMap": {"*": 4},
            "capsEx": 15,
        },
    )
    [(values, reply), *_] = client.told()
    assert reply.typeId == COMMAND_AMF3
    assert values[:2] == ["_result", 1.0]
    assert values[3]["objectEncoding"] == 3.0
    assert values[3]["capsEx"] == 15.0
    protocol = client.protocol
    assert protocol.application == "live"
    assert protocol.capabilities.reconnect
    assert protocol.capabilities.takesVideo("av01")
    assert protocol.requestReconnect("/other")
    [(values, reply)] = client.told()
    assert (reply.typeId, reply.streamId) == (COMMAND_AMF3, 0)
    assert values[3]["tcUrl"] == "/other"


@pytest.mark.parametrize("asked", [1.0, -3.0, float("nan"), "3", None, [3.0], 1e300])
def test_otherEncodings(factory, asked):
    client = FlexClient(factory)
    client.connect("live", objectEncoding=asked)
    [result] = [values for values, _ in client.told() if values[0] == "_result"]
    assert result[3]["objectEncoding"] == 0.0


def test_wholeLife(factory):
    """Publish, play, pause and the end; everything is told as type 17."""
    publisher = FlexClient(factory)
    publisher.begin("a/b?x=y")
    playing = FlexClient(factory)
    playing.connect("live", objectEncoding=3.0)
    playing.call("createStream", 2.0, None)
    playing.call("play", 0.0, None, "a/b", -2, -1, True, streamId=1)
    told = playing.told()
    assert [reply.typeId for _, reply in told][-3:] == [COMMAND_AMF3] * 3
    assert [values[-1]["code"] for values, _ in told[-2:]] == [
        "NetStream.Play.Reset",
        "NetStream.Play.Start",
    ]
    publisher.data("@setDataFrame", "onMetaData", METADATA)
    sent = [(VIDEO, AVC_HEADER), (AUDIO, AAC_HEADER), (VIDEO, AVC_KEY_FRAME)]
    for typeId, payload in sent:
        publisher.media(typeId, payload)
    got = [(r.typeId, r.payload) for r in playing.take()]
    assert got == [(DATA, amf0.encode("onMetaData", METADATA)), *sent]
    playing.call("pause", 0.0, None, True, 0, streamId=1)
    publisher.media(VIDEO, AVC_FRAME, 40)
    [(values, reply)] = playing.told()
    assert reply.typeId == COMMAND_AMF3
    assert values[3]["code"] == "NetStream.Pause.Notify"
    playing.call("pause", 0.0, None, False, 0, streamId=1)
    playing.call("receiveAudio", 0.0, None, False, streamId=1)
    publisher.media(AUDIO, AAC_FRAME, 50)
    publisher.media(VIDEO, AVC_KEY_FRAME, 80)
    got = [(r.typeId, r.timestamp) for r in playing.take()]
    assert (VIDEO, 80) in got
    assert all(typeId != AUDIO for typeId, _ in got)
    publisher.call("FCUnpublish", 4.0, None, "a/b")
    told = publisher.told()
    assert {reply.typeId for _, reply in told} == {COMMAND_AMF3}
    assert "NetStream.Unpublish.Success" in [
        values[-1]["code"] for values, _ in told if isinstance(values[-1], dict)
    ]
    publisher.call("deleteStream", 0.0, None, 1)
    assert factory.streams == {}
    codes = [v[-1]["code"] for v, _ in playing.told() if isinstance(v[-1], dict)]
    assert codes == ["NetStream.Play.UnpublishNotify", "NetStream.Play.Stop"]
    playing.call("deleteStream", 0.0, None, 1)
    assert playing.open
    assert publisher.open


def test_eachIsToldInItsOwnForm(factory):
    client = FlexClient(factory)
    client.connect("live", objectEncoding=3.0)
    client.call("createStream", 2.0, None)
    client.command("createStream", 3.0, None)
    client.call("nonsense", 4.0, {"a": [1]})
    told = client.told()[-3:]
    assert [reply.typeId for _, reply in told] == [17, 20, 17]
    assert [values[0] for values, _ in told] == ["_result"] * 3


def test_refusals(factory):
    FlexClient(factory).begin()
    other = FlexClient(factory)
    other.connect("live", objectEncoding=3.0)
    other.call("createStream", 2.0, None)
    other.call("publish", 3.0, None, "key", "live", streamId=1)
    values, reply = other.told()[-1]
    assert reply.typeId == COMMAND_AMF3
    assert values[3]["code"] == "NetStream.Publish.BadName"


@pytest.mark.parametrize(
    "body",
    [
        b"\x00" + amf0.encode("publish", 3.0) + b"\x11\x0a",  # cut off
        b"\x00" + amf0.encode("publish", 3.0) + b"\x11\x55",  # no marker of AMF3
        b"\x00" + amf0.encode("publish", 3.0) + b"\x11\x06\x08",  # no such string
        b"\x00" + b"\x11\x06\x0fconnec",
        b"\x00",
    ],
)
def test_malformedCommandsClose(factory, body):
    client = FlexClient(factory)
    client.connect("live", objectEncoding=3.0)
    client.connection.sendMessage(Message(COMMAND_AMF3, 0, 0, body), 3)
    client.flush()
    assert not client.open
    assert factory.counters.violations == 1


def test_sharedObjectsAreIgnored(factory, lines):
    client = FlexClient(factory)
    client.begin()
    for typeId in (16, 19, 16, 19):
        body = b"\x00" * (typeId == 16) + b"\x00\x04chat" + bytes(8)
        client.connection.sendMessage(Message(typeId, 0, 0, body), 3)
    client.flush()
    client.media(VIDEO, AVC_HEADER)
    assert factory.sinks[0].messages == [(VIDEO, 1, 0, AVC_HEADER)]
    assert client.protocol.wire.ignored == {16: 2, 19: 2}
    assert len([line for line in lines if "ignored" in line]) == 2


# Data


@pytest.mark.parametrize("typeId", [DATA_AMF3, DATA])
def test_dataForPlayers(factory, typeId):
    """Who plays before and who joins later gets what every reader of FLV knows."""
    publisher = FlexClient(factory)
    publisher.begin()
    early = player(factory)
    publisher.data("onMetaData", METADATA, typeId=typeId)
    publisher.data("onCaptionInfo", {"type": "708", "data": b"\xff\x00"}, typeId=typeId)
    expected = amf0.encode("onMetaData", METADATA)
    captions = amf0.encode("onCaptionInfo", {"type": "708", "data": "/wA="})
    got = dataOf(early)
    assert [(r.typeId, r.payload) for r in got] == [(DATA, expected), (DATA, captions)]
    late = player(factory)
    publisher.media(AUDIO, AAC_FRAME)
    late.take()
    assert factory.streams["live", "key"].metadata.payload == expected
    # And the recording, and every other sink.
    assert [m[3] for m in factory.sinks[0].messages[:2]] == [expected, captions]
    assert factory.streams["live", "key"].ledger.lost == 0


def test_dataForThoseOfAMF3(factory):
    """AMF0 is read by all: it goes to them as it came."""
    publisher = Client(factory)
    publisher.publish()
    playing = FlexClient(factory)
    playing.connect("live", objectEncoding=3.0)
    playing.call("createStream", 2.0, None)
    playing.call("play", 0.0, None, "key", streamId=1)
    playing.take()
    payload = amf0.encode("onMetaData", ECMAArray(METADATA))
    publisher.media(DATA, payload)
    assert [(r.typeId, r.payload) for r in dataOf(playing)] == [(DATA, payload)]


def test_dataInAggregates(factory):
    publisher = FlexClient(factory)
    publisher.begin()
    body = b""
    for typeId, payload in [
        (DATA_AMF3, named("onMetaData", METADATA)),
        (VIDEO, AVC_HEADER),
    ]:
        body += bytes((typeId,)) + len(payload).to_bytes(3, "big") + bytes(7) + payload
        body += struct.pack(">I", 11 + len(payload))
    publisher.connection.sendMessage(Message(22, 0, 1, body), 5)
    publisher.flush()
    assert [(m[0], m[3]) for m in factory.sinks[0].messages] == [
        (DATA, amf0.encode("onMetaData", METADATA)),
        (VIDEO, AVC_HEADER),
    ]


@pytest.mark.parametrize(
    "body",
    [
        named("onMetaData", METADATA)[:-3],
        b"\x00" + amf0.encode("onMetaData") + b"\x11\x0a\x05",
        b"\x00" + amf0.encode("onMetaData") + b"\x11\x0a\x07\x0fa.b.c.D",
        b"\x00" + switched({"a": 1.0}),
    ],
)
def test_malformedDataAreDiscarded(factory, body):
    publisher = FlexClient(factory)
    publisher.begin()
    publisher.connection.sendMessage(Message(DATA_AMF3, 0, 1, body), 5)
    publisher.flush()
    assert publisher.open
    assert factory.sinks[0].messages == []
    assert factory.sinks[0].stream.ledger.discarded == {"malformed data": 1}


def test_othersHaveTheirTurnBetweenThem(factory):
    """Values are dear: after each such message it is looked how long that took."""
    clock = factory.clock
    client = FlexClient(factory)
    client.begin()
    taken = []

    @implementer(IMediaSink)
    class SlowSink:
        def mediaReceived(self, message):
            taken.append(message.timestamp)
            clock.rightNow += TURN_SECONDS * 1.1

        def streamEnded(self):
            """It keeps nothing."""

    [stream] = factory.streams.values()
    stream.addSink(SlowSink())
    for time in range(3):
        payload = named("onCuePoint", {"n": time})
        client.connection.sendMessage(Message(DATA_AMF3, time, 1, payload), 5)
    client.protocol.dataReceived(client.connection.dataToSend())
    assert taken == [0]
    assert not client.transport.reading
    clock.advance(0)
    assert taken == [0, 1, 2]
    assert client.transport.reading


# The translation


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        (None, None),
        (UNDEFINED, UNDEFINED),
        (True, True),
        (7, 7.0),
        (-(2**28), -268435456.0),
        (0.1, 0.1),
        ("text", "text"),
        ("x" * 70_000, "x" * 70_000),
        ("\udcff\udcfe", "\udcff\udcfe"),
        (Date(1.5e12), Date(1.5e12)),
        (XML("<a/>"), XMLDocument("<a/>")),
        (XMLDocument("<a/>"), XMLDocument("<a/>")),
        (b"\x00\xff\x11", "AP8R"),
        (b"", ""),
        ([1, [b"a"]], [1.0, ["YQ=="]]),
        ({"a": {"b": b"a"}}, {"a": {"b": "YQ=="}}),
        (TypedObject("a.B", {"c": b"a"}), TypedObject("a.B", {"c": "YQ=="})),
        (ECMAArray({"n": 1}, dense=[2, 3]), ECMAArray({"0": 2.0, "1": 3.0, "n": 1.0})),
        (Vector(VectorType.INT, [-1, 2]), [-1.0, 2.0]),
        (Vector(VectorType.DOUBLE, [0.5], fixed=True), [0.5]),
        (Vector(VectorType.OBJECT, [b"a", None], className="x.Y"), ["YQ==", None]),
        (Dictionary(), {}),
        (
            Dictionary([("a", b"a"), (2, "b"), (0.5, [])]),
            {"a": "YQ==", "2": "b", "0.5": []},
        ),
        (Dictionary([("1", "a"), (1, "b")]), [["1", "a"], [1.0, "b"]]),
        (Dictionary([({"k": b"a"}, 1)]), [[{"k": "YQ=="}, 1.0]]),
        (Dictionary([("", 1)]), [["", 1.0]]),
        (Dictionary([("x" * 70_000, 1)]), [["x" * 70_000, 1.0]]),
        (Dictionary([(float("inf"), 1)]), {"inf": 1.0}),
    ],
)
def test_values(value, becomes):
    data = amf0.encode("onCuePoint", 4.0) + switched(value) + amf0.encode(None)
    translated = withoutAMF3(data)
    reader = amf0.AMF0Reader(translated)
    assert [reader.readAMF0() for _ in range(4)] == ["onCuePoint", 4.0, becomes, None]
    assert not reader.switched
    assert reader.position == len(translated)


#: What PyAMF writes, whose values refer to earlier ones of the message; it reads the
#: translation as it stands below.
PYAMF = bytes.fromhex(
    "02000a6f6e4d65746144617461110a0b010b7769647468048a000d68656967687405"
    "40868400000000000f656e636f646572060b5079414d46096c697374090701040104"
    "020a010361060401056f6e03096e6f6e6501097768656e08014276f6435cc880000b"
    "62797465730c070001ff01110902020007656e636f646572"
)


def test_anotherEncodersValues(factory):
    publisher = FlexClient(factory)
    publisher.begin()
    playing = player(factory)
    publisher.connection.sendMessage(Message(DATA_AMF3, 0, 1, b"\x00" + PYAMF), 5)
    publisher.flush()
    [reply] = dataOf(playing)
    items = [1.0, 2.0, {"a": "encoder"}]
    metadata = {
        "width": 1280.0,
        "height": 720.5,
        "encoder": "PyAMF",
        "list": items,
        "on": True,
        "none": None,
        "when": Date(1577934245000.0),
        "bytes": "AAH/",
    }
    assert reply.payload == amf0.encode("onMetaData", metadata, items, "encoder")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        amf0.encode("onMetaData", ECMAArray(METADATA)),
        # The marker's number, where it is something else.
        amf0.encode("on\x11", {"\x11": "\x11" * 17}, struct.unpack(">d", b"\x11" * 8)),
        # What AMF0 encoders write wrong is not set right either.
        b"\x02\x00\x01\x11" + b"\x08\x00\x00\x00\x63\x00\x01a\x01\x11",
    ],
)
def test_whatHasNoAMF3IsTheSameBytes(data):
    assert withoutAMF3(data) is data


def test_whatIsSaidAgain():
    """References are followed: AMF0's readers know few of them."""
    data = (
        amf0.encode("a") + b"\x11" + bytes.fromhex("0905 01 0a0b01 0361 0600 01 0a02")
    )
    assert amf0.decode(withoutAMF3(data)) == ["a", [{"a": "a"}, {"a": "a"}]]


def test_growthIsBounded():
    """A kilobyte that would become a megabyte for each player stays what it is."""
    text = "x" * 1000
    few = amf0.encode("a") + b"\x11" + amf3.encode([text] * 50)
    assert len(few) < 2000
    assert amf0.decode(withoutAMF3(few)) == ["a", [text] * 50]
    many = amf0.encode("a") + b"\x11" + amf3.encode([text] * 1000)
    assert len(many) < 4000
    assert withoutAMF3(many) is many
    # Numbers alone, however many, are well within.
    numbers = amf0.encode("a") + b"\x11" + amf3.encode([7] * 9990)
    translated = withoutAMF3(numbers)
    assert MAX_TRANSLATED_SIZE < len(translated) < MAX_GROWTH * len(numbers)
    assert amf0.decode(translated) == ["a", [7.0] * 9990]


def test_limitsHold():
    deep = b"\x11" + b"\x09\x03\x01" * 40 + b"\x01"
    assert withoutAMF3(deep) is deep
    wide = b"\x11" + amf3.encode([1] * 20)
    assert withoutAMF3(wide, WireLimits(amfValues=10)) is wide


def test_fuzz():
    """Whatever comes: the same bytes, or some that hold no AMF3 and can be read."""
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    values = [METADATA, b"abc", Vector(VectorType.UINT, [1, 2]), XML("<a/>"), Date(1.0)]
    whole = amf0.encode("onMetaData") + switched(
        *values, Dictionary([(values[0], b"x"), ("a", values)])
    )
    translated = 0
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        before = bytes(data)
        after = withoutAMF3(before)
        if after is not before:
            translated += 1
            reader = amf0.AMF0Reader(after)
            while reader.position < len(after):
                reader.readAMF0()
            assert not reader.switched, f"seed {seed}"
    assert translated > 300, f"seed {seed}"


# Over sockets


def code(reply):
    """Of a status in either form; of anything else C{""}."""
    if reply.typeId not in (COMMAND, COMMAND_AMF3):
        return ""
    status = amf0.decode(reply.payload[reply.typeId == COMMAND_AMF3 :])[-1]
    return status.get("code", "") if isinstance(status, dict) else ""


def resultOf(tid):
    def wanted(reply):
        if reply.typeId not in (COMMAND, COMMAND_AMF3):
            return False
        values = amf0.decode(reply.payload[reply.typeId == COMMAND_AMF3 :])
        return values[:2] == ["_result", tid]

    return wanted


def opened(client, command, *arguments):
    """Connect and publish or play; the server's answers are of type 17."""
    client.connect("live", objectEncoding=3.0)
    client.until(resultOf(1.0))
    client.call("createStream", 2.0, None)
    assert client.until(resultOf(2.0)).typeId == COMMAND_AMF3
    client.call(command, 3.0, None, "key", *arguments, streamId=1)
    begun = client.until(lambda reply: code(reply).endswith(".Start"))
    assert begun.typeId == COMMAND_AMF3


def test_overSockets(tmp_path):
    """A publisher and a player of AMF3, a player of AMF0, and what is recorded."""
    arguments = ["--listen", "tcp:0:interface=127.0.0.1", "--record", str(tmp_path)]
    with Server.twistd(arguments, tmp_path) as server:
        port = server.port()
        publisher = FlexSocketClient("127.0.0.1", port)
        playing = FlexSocketClient("127.0.0.1", port)
        plain = SocketClient("127.0.0.1", port)
        with publisher, playing, plain:
            opened(publisher, "publish", "live")
            opened(playing, "play", -2)
            plain.connect("live")
            plain.until(resultOf(1.0))
            plain.command("createStream", 2.0, None)
            plain.until(resultOf(2.0))
            plain.command("play", 3.0, None, "key", streamId=1)
            plain.until(lambda r: code(r) == "NetStream.Play.Start")
            publisher.data("@setDataFrame", "onMetaData", METADATA)
            publisher.media(VIDEO, AVC_HEADER)
            publisher.media(VIDEO, AVC_KEY_FRAME)
            publisher.media(VIDEO, AVC_FRAME, 40)
            expected = amf0.encode("onMetaData", METADATA)
            for client in (playing, plain):
                metadata = client.until(lambda r: r.payload[3:13] == b"onMetaData")
                assert (metadata.typeId, metadata.payload) == (DATA, expected)
                client.until(lambda r: (r.typeId, r.timestamp) == (VIDEO, 40))
            publisher.call("closeStream", 0.0, None, streamId=1)
            publisher.until(lambda r: code(r) == "NetStream.Unpublish.Success")
            publisher.call("deleteStream", 0.0, None, 1)
            over = playing.until(lambda r: code(r) == "NetStream.Play.Stop")
            assert over.typeId == COMMAND_AMF3
            plain.until(lambda r: code(r) == "NetStream.Play.Stop")
        server.expect("live/key ended")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    [recording] = tmp_path.glob("**/*.flv")
    reader = FLVReader()
    reader.feed(recording.read_bytes())
    [name, metadata] = amf0.decode(reader.nextTag().payload)
    assert name == "onMetaData"
    assert {key: metadata[key] for key in METADATA} == METADATA
