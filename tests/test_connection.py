"""
A connection without its transport: protocol control, both roles, the order of
events and errors.
"""

from __future__ import annotations

import struct

import pytest
from feeding import (
    HANDSHAKE,
    bytewise,
    chunk,
    connected,
    control,
    outcome,
    payloadOf,
    plain,
    readConnection,
    setChunkSize,
    ways,
)

from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.connection import (
    CONTROL_CHUNK_STREAM,
    MAX_COMMAND_SIZE,
    MIN_WINDOW,
    Connection,
    Role,
)
from twisted_rtmp.wire.constants import NEED_DATA, MessageType, UserControlType
from twisted_rtmp.wire.errors import (
    AMFError,
    ChunkError,
    HandshakeError,
    LimitError,
    MessageError,
    ProtocolError,
    UsageError,
)
from twisted_rtmp.wire.handshake import ClientHandshake
from twisted_rtmp.wire.limits import WireLimits
from twisted_rtmp.wire.messages import Command, HandshakeDone, Ignored, Message

BOTH = pytest.mark.parametrize("role", list(Role))


def events(connection):
    found = []
    while (event := connection.nextEvent()) is not NEED_DATA:
        found.append(event)
    return found


def feed(connection, *data):
    """The events of some bytes, as plain values."""
    connection.feed(b"".join(data))
    return [plain(event) for event in events(connection)]


def sent(connection):
    """The messages in what a connection sends: all of them, controls too."""
    reader = connected(Role.CLIENT).reader
    reader.feed(connection.dataToSend())
    messages = []
    while (message := reader.nextMessage()) is not NEED_DATA:
        messages.append((message.typeId, message.streamId, message.payload))
    return messages


def number(value):
    return struct.pack(">I", value)


def command(*values, type=20, stream=0):  # noqa: A002
    return chunk(0, 3, amf0.encode(*values), type=type, stream=stream)


class TestBothEnds:
    """A client's and a server's connection, talking to each other."""

    def pair(self):
        client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
        client.start()
        return client, server

    def exchange(self, client, server, cut=None):
        """Until neither has more to say; what each heard."""
        heard = {client: [], server: []}
        while True:
            silent = True
            for one, other in ((client, server), (server, client)):
                data = one.dataToSend()
                silent = silent and not data
                for piece in bytewise(data) if cut else [data]:
                    other.feed(piece)
                    heard[other] += [plain(event) for event in events(other)]
            if silent:
                return heard[client], heard[server]

    @pytest.mark.parametrize("cut", [False, True])
    def test_handshake(self, cut):
        client, server = self.pair()
        assert self.exchange(client, server, cut) == (
            [("HandshakeDone",)],
            [("HandshakeDone",)],
        )
        assert client.handshakeDone
        assert server.handshakeDone
        assert client.bytesSent == server.bytesReceived == HANDSHAKE
        assert server.bytesSent == client.bytesReceived == HANDSHAKE

    def test_serverSaysNothingFirst(self):
        client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
        server.start()
        assert server.dataToSend() == b""
        assert client.dataToSend() == b""

    @pytest.mark.parametrize("cut", [False, True])
    def test_conversation(self, cut):
        client, server = self.pair()
        self.exchange(client, server, cut)
        client.sendChunkSize(300)
        client.sendCommand("connect", 1, {"app": "live", "x": [1.0, None, True]})
        client.sendMessage(Message(9, 5000, 7, payloadOf(2000)), 6)
        client.sendData("onMetaData", {"a": 1}, streamId=7, csid=4)
        client.sendUserControl(UserControlType.SET_BUFFER_LENGTH, 7, 3000)
        server.sendChunkSize(1)
        server.sendCommand("_result", 1, None, 7, streamId=3, csid=5)
        server.sendMessage(Message(8, 2**32 + 5, 7, b"sound"), 4)
        server.sendUserControl(UserControlType.STREAM_BEGIN, 7)
        byClient, byServer = self.exchange(client, server, cut)
        assert byServer == [
            (
                "connect",
                "1.0",
                "[{'app': 'live', 'x': [1.0, None, True]}]",
                0,
                False,
            ),
            (9, 7, 5000, payloadOf(2000)),
            (18, 7, 0, amf0.encode("onMetaData", {"a": 1})),
            ("user control", 3, 7, 3000),
        ]
        assert byClient == [
            ("_result", "1.0", "[None, 7.0]", 3, False),
            (8, 7, 5, b"sound"),
            ("user control", 0, 7, None),
        ]

    def test_amf3(self):
        client, server = self.pair()
        self.exchange(client, server)
        client.sendCommand("createStream", 2, None, amf3=True)
        assert self.exchange(client, server)[1] == [
            ("createStream", "2.0", "[None]", 0, True)
        ]

    def test_acknowledgementsAsAsked(self):
        """One each half window, and each end knows what the other got."""
        client, server = self.pair()
        self.exchange(client, server)
        server.sendWindowAcknowledgementSize(20_000)
        self.exchange(client, server)
        assert client.window == 20_000
        for n in range(50):
            server.sendMessage(Message(9, n, 1, bytes(1000)), 6)
            self.exchange(client, server)
            unacknowledged = server.bytesSent - server.acknowledged
            assert unacknowledged <= 10_000 + 1100, n
        assert server.acknowledged > 40_000

    def test_nothingIsGivenTwice(self):
        client, _ = self.pair()
        assert len(client.dataToSend()) == 1537
        assert client.dataToSend() == b""


class TestHandshake:
    def test_chunksInTheSameRead(self):
        """C2 and the first chunks often share a segment, at any cut."""
        data = b"\x03" + bytes(1536) + bytes(1536) + chunk(0, 6, b"x")
        for cut in (None, 1, 1537, 3072, HANDSHAKE, HANDSHAKE + 5, len(data) - 1):
            server = Connection(Role.SERVER)
            found = feed(server, data[:cut])
            if cut is not None:
                found += feed(server, data[cut:])
            assert found == [("HandshakeDone",), (9, 1, 0, b"x")]
            assert len(server.dataToSend()) == HANDSHAKE

    def test_digestIsTold(self):
        for digest in (False, True):
            client = Connection(Role.CLIENT, handshake=ClientHandshake(digest=digest))
            server = Connection(Role.SERVER)
            client.start()
            server.feed(client.dataToSend())
            assert server.nextEvent() is NEED_DATA
            client.feed(server.dataToSend())
            [done] = events(client)
            assert isinstance(done, HandshakeDone)
            assert done.digest == digest

    def test_errorIsRaisedAgain(self):
        server = Connection(Role.SERVER)
        server.feed(b"GET / HTTP/1.1\r\n\r\n")
        for _ in range(3):
            with pytest.raises(HandshakeError):
                server.nextEvent()


class TestAcknowledgement:
    """RTMP 1.0, 5.4.3 and 5.4.4."""

    @BOTH
    def test_noneUnlessAsked(self, role):
        """A publisher that reads nothing would lose its end to a reset."""
        connection = connected(role)
        connection.feed(setChunkSize(2**20))
        events(connection)
        message = chunk(0, 6, bytes(99_988))
        for _ in range(60):
            connection.feed(message)
            events(connection)
        assert sent(connection) == []
        assert connection.window == 0

    @BOTH
    def test_halfTheWindow(self, role):
        """Half of what the peer asks for, then as many more."""
        window = 2_500_000
        connection = connected(role)
        connection.feed(control(5, window) + setChunkSize(2**20))
        events(connection)
        got = []
        message = chunk(0, 6, bytes(99_988))
        for _ in range(26):
            connection.feed(message)
            events(connection)
            got += sent(connection)
        [(typeId, streamId, first), (_, _, second)] = got
        assert (typeId, streamId) == (3, 0)
        half = window // 2
        assert half <= int.from_bytes(first, "big") < half + 100_000
        assert 2 * half <= int.from_bytes(second, "big") < 2 * half + 200_000

    @BOTH
    def test_countsEverythingReceived(self, role):
        connection = Connection(role)
        connection.start()
        connection.dataToSend()
        connection.feed(b"\x03" + bytes(3072))
        events(connection)
        connection.dataToSend()
        connection.feed(control(5, 2000))
        events(connection)
        assert sent(connection) == [(3, 0, number(HANDSHAKE + 16))]

    @pytest.mark.parametrize("window", [0, 1, MIN_WINDOW - 1])
    def test_smallWindows(self, window):
        """A window of nothing must not mean an acknowledgement a byte."""
        connection = connected()
        feed(connection, control(5, window))
        assert connection.window == MIN_WINDOW
        acknowledgements = 0
        for byte in bytewise(chunk(0, 6, payloadOf(128)) * 100):
            connection.feed(byte)
            events(connection)
            acknowledgements += len(sent(connection))
        assert acknowledgements == 14_000 // (MIN_WINDOW // 2)

    def test_largestWindow(self):
        connection = connected()
        assert feed(connection, control(5, 2**32 - 1)) == []
        assert connection.window == 2**32 - 1
        assert connection.dataToSend() == b""

    def test_sequenceNumberWraps(self):
        """After 4 GiB: 32 bits of the count, and the count goes on."""
        connection = connected()
        feed(connection, control(5, 2000))
        connection.dataToSend()
        connection.bytesReceived = connection._lastAcknowledged = 2**32 - 500
        connection._acknowledge()
        numbers = []
        for _ in range(40):
            feed(connection, chunk(0, 6, payloadOf(100)))
            numbers += [int.from_bytes(p, "big") for _, _, p in sent(connection)]
        assert connection.bytesReceived == 2**32 - 500 + 40 * 112
        assert numbers == [2**32 - 500 + 1008 * n - 2**32 for n in (1, 2, 3, 4)]

    def test_peersNumberIsKept(self):
        connection = connected()
        for value in (5, 2**32 - 1, 3):
            assert feed(connection, control(3, value)) == []
            assert connection.acknowledged == value

    def test_neverTwiceForTheSameBytes(self):
        connection = connected()
        feed(connection, control(5, 3000), *[control(5, 3000 + n) for n in range(9)])
        assert sent(connection) == []
        feed(connection, chunk(0, 6, bytes(128)) * 20)
        assert len(sent(connection)) == 1
        feed(connection, *[control(5, 3000 + n) for n in range(9)])
        assert len(sent(connection)) == 0


class TestControl:
    @BOTH
    def test_ping(self, role):
        """The answer has the same time; RTMP 1.0, 7.1.7."""
        connection = connected(role)
        feed(connection, chunk(0, 2, b"\0\6" + number(123456), type=4, stream=0))
        assert sent(connection) == [(4, 0, b"\0\7" + number(123456))]

    def test_peerBandwidth(self):
        """Answered with a window of that size, unless it is known; 5.4.5."""
        connection = connected()
        bandwidth = chunk(0, 2, number(70_000) + b"\2", type=6, stream=0)
        feed(connection, bandwidth)
        assert sent(connection) == [(5, 0, number(70_000))]
        feed(connection, bandwidth)
        assert sent(connection) == []
        feed(connection, chunk(0, 2, number(80_000) + b"\2", type=6, stream=0))
        assert sent(connection) == [(5, 0, number(80_000))]

    def test_peerBandwidthOfNothing(self):
        connection = connected()
        feed(connection, chunk(0, 2, number(0) + b"\0", type=6, stream=0))
        assert sent(connection) == []

    def test_peerBandwidthWithoutLimitType(self):
        connection = connected()
        feed(connection, control(6, 70_000))
        assert sent(connection) == [(5, 0, number(70_000))]

    @pytest.mark.parametrize(
        ("typeId", "section"), [(3, "5.4.3"), (5, "5.4.4"), (6, "5.4.5")]
    )
    def test_shortNumbers(self, typeId, section):
        for size in range(4):
            data = chunk(0, 2, bytes(size), type=typeId, stream=0)
            result = readConnection([chunk(0, 6, b"x") + data])
            assert result.events == [(9, 1, 0, b"x")]
            assert result.error == (MessageError, f"RTMP 1.0, {section}", 4)

    def test_controlsAreSentOnTheirChunkStream(self):
        """On any other, Larix drops the connection."""
        connection = connected()
        connection.sendWindowAcknowledgementSize(5_000_000)
        connection.sendPeerBandwidth(5_000_000)
        connection.sendUserControl(UserControlType.STREAM_BEGIN, 1)
        connection.sendChunkSize(4096)
        data = connection.dataToSend()
        assert data == (
            control(5, 5_000_000)
            + chunk(1, 2, number(5_000_000) + b"\2", type=6)
            + chunk(1, 2, b"\0\0" + number(1), type=4)
            + chunk(1, 2, number(4096), type=1)
        )
        assert {CONTROL_CHUNK_STREAM} == {2}

    def test_chunkSizeIsUsedBehindItsMessage(self):
        connection = connected()
        payload = payloadOf(200)
        connection.sendMessage(Message(9, 0, 1, payload), 6)
        connection.sendChunkSize(1000)
        connection.sendMessage(Message(9, 10, 1, payload), 6)
        assert connection.dataToSend() == (
            chunk(0, 6, payload[:128], length=200)
            + chunk(3, 6, payload[128:])
            + setChunkSize(1000)
            + chunk(1, 6, payload, time=10)
        )

    @pytest.mark.parametrize("size", [0, -1, 2**31])
    def test_chunkSizesThatCannotBe(self, size):
        with pytest.raises((UsageError, OverflowError)):
            connected().sendChunkSize(size)

    @pytest.mark.parametrize("size", range(6))
    def test_shortUserControl(self, size):
        """Some cameras pad with these: ignored, told of once."""
        connection = connected()
        data = chunk(0, 2, bytes(size), type=4, stream=0)
        assert feed(connection, data * 3) == []
        assert connection.ignored == {MessageType.USER_CONTROL: 3}

    @pytest.mark.parametrize("eventType", [0, 1, 2, 4, 7, 26, 31, 32, 99, 65535])
    def test_userControl(self, eventType):
        data = struct.pack(">HI", eventType, 2**32 - 1)
        assert feed(connected(), chunk(0, 2, data, type=4, stream=0)) == [
            ("user control", eventType, 2**32 - 1, None)
        ]

    @pytest.mark.parametrize("typeId", [0, 7, 10, 16, 19, 21, 23, 255])
    def test_ignored(self, typeId):
        """Types that mean nothing are told of once each, and counted."""
        connection = connected()
        data = chunk(0, 6, b"?", type=typeId)
        found = feed(connection, data, data, chunk(0, 4, b"x", type=8), data)
        assert found == [("ignored", typeId), (8, 1, 0, b"x")]
        assert connection.ignored == {typeId: 3}


class TestCommands:
    def test_plain(self):
        found = feed(connected(), command("f", 3, None, "a", 2, stream=9))
        assert found == [("f", "3.0", "[None, 'a', 2.0]", 9, False)]

    @pytest.mark.parametrize("values", [("f",), ("f", None), ("f", "x"), ("f", {})])
    def test_withoutTransactionId(self, values):
        """Some cameras leave it out, or send null."""
        connection = connected()
        connection.feed(command(*values))
        [event] = events(connection)
        assert isinstance(event, Command)
        assert event.transactionId == 0

    def test_transactionIdIsNotANumber(self):
        connection = connected()
        found = feed(connection, command("f", float("nan")))
        assert found == [("f", "nan", "[]", 0, False)]

    @pytest.mark.parametrize("typeId", [17, 20])
    @pytest.mark.parametrize("values", [(), (5,), (None, "f"), ({"f": 1}, 2)])
    def test_withoutName(self, typeId, values):
        payload = b"\0" * (typeId == 17) + amf0.encode(*values)
        result = readConnection([chunk(0, 3, payload, type=typeId)])
        assert result.error == (MessageError, "RTMP 1.0, 7.1.1", None)

    @pytest.mark.parametrize("typeId", [17, 20])
    def test_malformed(self, typeId):
        whole = amf0.encode("connect", 1, {"app": "live"})
        data = chunk(0, 3, whole[:12], type=typeId)
        result = readConnection([chunk(0, 6, b"x") + data])
        assert result.events == [(9, 1, 0, b"x")]
        assert result.error is not None
        assert result.error[0] is AMFError

    def test_amfLimits(self):
        limits = WireLimits(amfDepth=2, amfValues=5)
        deep = command("f", 1, {"a": {"b": {"c": 1}}})
        assert readConnection([deep]).error is None
        for data in (deep, command("f", 1, 2, 3, 4, 5)):
            error = readConnection([data], limits=limits).error
            assert error is not None
            assert error[0] is LimitError

    @pytest.mark.parametrize("typeId", [17, 20])
    def test_size(self, typeId):
        """What is over the bound is not even looked at."""
        named = amf0.encode("f", 0)
        longest = amf0.encode("f", 0, "x" * (MAX_COMMAND_SIZE - len(named) - 3))
        assert len(longest) == MAX_COMMAND_SIZE
        first = b"\0" * (typeId == 17)
        for extra, refused in ((b"", False), (b"\x05", True)):
            payload = first + longest + extra
            message = setChunkSize(10**6) + chunk(0, 3, payload, type=typeId)
            result = readConnection([message])
            assert len(result.events) == (not refused)
            limit = (LimitError, "RTMP 1.0, 7.1.1", MAX_COMMAND_SIZE)
            assert result.error == (limit if refused else None)

    def test_argument(self):
        one = Command("f", 1.0, [None, "a"])
        assert one.argument(1) == "a"
        assert one.argument(2) is None
        assert one.argument(2, 5) == 5

    def test_textIsEscaped(self):
        assert repr(Command("\n\x1b", 1.0, [])) == r"<Command '\n\x1b' 1 on 0>"

    def test_encodingFails(self):
        connection = connected()
        with pytest.raises(UsageError):
            connection.sendCommand("f", 1, object())
        assert connection.dataToSend() == b""


class TestData:
    def test_amf0(self):
        payload = amf0.encode("onMetaData", {})
        found = feed(connected(), chunk(0, 4, payload, type=18, time=5))
        assert found == [(18, 1, 5, payload)]

    def test_amf3BecomesAMF0(self):
        """Message type 15 is a byte of 0, then AMF0; RTMP 1.0, 7.1.2."""
        payload = amf0.encode("onMetaData", {})
        for data in (b"\0" + payload, payload):
            found = feed(connected(), chunk(0, 4, data, type=15, time=5))
            assert found == [(18, 1, 5, payload)]

    def test_contentsAreNotLookedAt(self):
        found = feed(connected(), chunk(0, 4, b"\xff\xff", type=18))
        assert found == [(18, 1, 0, b"\xff\xff")]


def submessage(typeId, time, payload):
    data = bytes((typeId,)) + len(payload).to_bytes(3, "big")
    data += (time & 0xFFFFFF).to_bytes(3, "big") + bytes((time >> 24 & 255,)) + bytes(3)
    return data + payload + struct.pack(">I", len(data) + len(payload))


def aggregate(*parts, time=0, stream=1):
    return chunk(0, 6, b"".join(parts), type=22, time=time, stream=stream)


class TestAggregates:
    """RTMP 1.0, 7.1.6."""

    def test_order(self):
        data = (
            setChunkSize(1000)
            + chunk(0, 4, b"before", type=8)
            + aggregate(
                submessage(8, 10, b"a"),
                submessage(9, 12, b"v"),
                submessage(18, 13, b"d"),
                time=1000,
                stream=5,
            )
            + chunk(0, 4, b"after", type=8)
        )
        for how, pieces in ways(data):
            assert readConnection(pieces).events == [
                (8, 1, 0, b"before"),
                (8, 5, 1000, b"a"),
                (9, 5, 1002, b"v"),
                (18, 5, 1003, b"d"),
                (8, 1, 0, b"after"),
            ], how

    def test_timeAbove24Bits(self):
        data = aggregate(
            submessage(9, 0x01000000, b"v"), submessage(9, 0x02000001, b"w"), time=7
        )
        found = feed(connected(), setChunkSize(1000), data)
        assert found == [(9, 1, 7, b"v"), (9, 1, 7 + 0x01000001, b"w")]

    def test_timeGoesBack(self):
        data = aggregate(submessage(9, 50, b"v"), submessage(8, 40, b"a"), time=1000)
        assert feed(connected(), data) == [(9, 1, 1000, b"v"), (8, 1, 990, b"a")]

    def test_empty(self):
        found = feed(connected(), aggregate(), chunk(0, 4, b"x", type=8))
        assert found == [(8, 1, 0, b"x")]

    def test_emptyMessagesInside(self):
        data = aggregate(submessage(9, 0, b""), submessage(8, 0, b""))
        assert feed(connected(), data) == [(9, 1, 0, b""), (8, 1, 0, b"")]

    @pytest.mark.parametrize("typeId", [1, 2, 3, 5, 6, 17, 20, 22])
    def test_onlyMediaInside(self, typeId):
        """Controls, commands and further aggregates would nest without end."""
        connection = connected()
        data = aggregate(
            submessage(typeId, 0, number(1)), submessage(8, 0, b"a"), time=3
        )
        assert feed(connection, data) == [(8, 1, 3, b"a")]
        assert connection.ignored == {typeId: 1}
        assert connection.reader.chunkSize == 128

    def test_typeBitsBeyondFive(self):
        """An FLV tag's first byte has a filter bit above the type."""
        data = aggregate(submessage(9 | 0x20, 0, b"v"))
        assert feed(connected(), data) == [(9, 1, 0, b"v")]

    def test_messageRunsPastTheEnd(self):
        """What was whole before it is given first."""
        broken = submessage(9, 5, bytes(50))[:30]
        data = aggregate(submessage(8, 0, b"a"), broken)
        for how, pieces in ways(data):
            result = readConnection(pieces)
            assert result.events == [(8, 1, 0, b"a")], how
            assert result.error == (MessageError, "RTMP 1.0, 7.1.6", 19)

    def test_endsAmidAHeader(self):
        for size in range(1, 11):
            data = aggregate(submessage(8, 0, b"a"), b"\x09" + bytes(size - 1))
            result = readConnection([data])
            assert result.events == [(8, 1, 0, b"a")]
            assert result.error == (MessageError, "RTMP 1.0, 7.1.6", 11)

    def test_cutInTheLastPointer(self):
        whole = submessage(8, 0, b"a")
        for cut in range(1, 5):
            assert feed(connected(), aggregate(whole[:-cut])) == [(8, 1, 0, b"a")]

    def test_manyInOne(self):
        """A chunk of 20,000 messages is given out one at a time."""
        connection = connected()
        connection.feed(setChunkSize(10**6) + aggregate(submessage(8, 0, b"") * 20_000))
        assert len(events(connection)) == 20_000


class TestErrors:
    BROKEN = (
        ("chunk", setChunkSize(0), ChunkError),
        ("message", chunk(0, 2, b"", type=3, stream=0), MessageError),
        ("amf", chunk(0, 3, b"\xff", type=20), AMFError),
        ("limit", chunk(0, 7, length=2**24 - 1), LimitError),
    )

    @pytest.mark.parametrize(
        ("data", "error"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN]
    )
    def test_eventsBeforeAnErrorAreGiven(self, data, error):
        before = chunk(0, 6, b"x") + command("f", 1) + chunk(0, 6, b"y", time=4)
        expected = [
            (9, 1, 0, b"x"),
            ("f", "1.0", "[]", 0, False),
            (9, 1, 4, b"y"),
        ]
        for how, pieces in ways(before + data + chunk(0, 6, b"never")):
            result = readConnection(pieces)
            assert result.events == expected, how
            assert result.error is not None
            assert result.error[0] is error

    @pytest.mark.parametrize(
        ("data", "error"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN]
    )
    def test_errorIsRaisedAgain(self, data, error):
        """Also after more bytes that would be right."""
        connection = connected()
        connection.feed(data)
        with pytest.raises(error) as first:
            connection.nextEvent()
        for _ in range(3):
            connection.feed(chunk(0, 6, b"x"))
            with pytest.raises(error) as again:
                connection.nextEvent()
            assert vars(again.value) == vars(first.value)
            assert str(again.value) == str(first.value)
        assert connection.reader.pending == 0, "nothing more is kept"

    @pytest.mark.parametrize(
        ("data", "error"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN]
    )
    def test_repliesAreStillSent(self, data, error):
        """What was answered before the error is not lost."""
        connection = connected()
        ping = chunk(0, 2, b"\0\6" + number(9), type=4, stream=0)
        assert outcome(connection.feed, connection.nextEvent, [ping + data]).error
        assert sent(connection) == [(4, 0, b"\0\7" + number(9))]

    def test_errorsAreOneFamily(self):
        for error in (AMFError, ChunkError, HandshakeError, LimitError, MessageError):
            assert issubclass(error, ProtocolError)
        assert not issubclass(UsageError, ProtocolError)
        error = LimitError("too much", section="s", limit=1, got=2)
        assert (str(error), error.section, error.limit, error.got) == (
            "too much",
            "s",
            1,
            2,
        )


class TestBounds:
    def test_repliesToOneReadAreBounded(self):
        """
        Whatever a read of 64 KiB holds, the answers to it take no more than twice
        its size: a peer that asks cannot multiply what it sends.
        """
        ping = chunk(3, 2, b"\0\6" + number(1))
        flood = chunk(0, 2, b"\0\6" + number(1), type=4, stream=0) + ping * 9000
        connection = connected()
        connection.feed(flood)
        events(connection)
        assert len(connection.dataToSend()) <= 2 * len(flood)
        bandwidths = b"".join(
            chunk(0, 2, number(5000 + n) + b"\2", type=6, stream=0) for n in range(999)
        )
        connection.feed(bandwidths)
        events(connection)
        assert len(connection.dataToSend()) <= 2 * len(bandwidths)

    def test_ignoredTypes(self):
        """256 types are all there are."""
        connection = connected()
        for typeId in range(7, 256):
            if typeId not in (17, 20):
                connection.feed(chunk(0, 6, b"", type=typeId) * 3)
                told = [e for e in events(connection) if isinstance(e, Ignored)]
                assert len(told) <= 1
        assert len(connection.ignored) < 256
