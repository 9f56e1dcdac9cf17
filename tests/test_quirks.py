"""
What clients and servers out there do that the specification does not say, or says
otherwise: each with the number that our list of quirks gives it, and with those
who do it.

First what the wire layer sees to, as vectors of bytes and messages read at every
cut; then what the server sees to, with a client in memory.
"""

from __future__ import annotations

import struct

import pytest
from feeding import (
    Peer,
    Server,
    abort,
    chunk,
    codes,
    connected,
    control,
    outcome,
    payloadOf,
    readChunks,
    readConnection,
    setChunkSize,
    ways,
)

from twisted_rtmp.media import payloads as media
from twisted_rtmp.names import parseApplication, parseStreamName
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.chunk import ChunkReader, ChunkWriter
from twisted_rtmp.wire.connection import Role
from twisted_rtmp.wire.constants import NEED_DATA
from twisted_rtmp.wire.errors import ChunkError, LimitError

A = b"audio"
P = payloadOf(300)
EXT = 0x01020304
BASE = 2**32


def video(time, payload, stream=1):
    return (9, stream, time, payload)


def audio(time, payload=A, stream=1):
    return (8, stream, time, payload)


def submessage(typeId, time, payload, pointer=True):
    """A message in an aggregate message, laid out as an FLV tag."""
    data = bytes((typeId,)) + len(payload).to_bytes(3, "big")
    data += (time & 0xFFFFFF).to_bytes(3, "big") + bytes((time >> 24,)) + bytes(3)
    data += payload
    return data + struct.pack(">I", len(data)) if pointer else data


#: Name, bytes after the handshake, events of a server's connection.
VECTORS = [
    # The spec, ffmpeg, librtmp, GStreamer, SRS; nginx-rtmp and gortmplib use 0.
    (
        "quirk01_type3AfterType0AddsItsTimestamp",
        chunk(0, 6, A, time=1000) + chunk(3, 6, A) + chunk(3, 6, A),
        [video(1000, A), video(2000, A), video(3000, A)],
    ),
    (
        "quirk01_type3AfterType1AddsItsDelta",
        chunk(0, 6, A, time=1000) + chunk(1, 6, A, time=40) + chunk(3, 6, A),
        [video(1000, A), video(1040, A), video(1080, A)],
    ),
    (
        "quirk01_type3AfterType2AddsItsDelta",
        chunk(0, 6, A, time=1000) + chunk(2, 6, A, time=33) + chunk(3, 6, A),
        [video(1000, A), video(1033, A), video(1066, A)],
    ),
    # Old librtmp and nginx-rtmp mean "the same time", and are read by the spec.
    (
        "quirk02_type3ForEqualTimesAddsTheDeltaAgain",
        chunk(0, 4, A, type=8)
        + chunk(1, 4, A, time=23, type=8)
        + chunk(3, 4, A)
        + chunk(0, 4, A, time=46, type=8),
        [audio(0), audio(23), audio(46), audio(46)],
    ),
    # ffmpeg, GStreamer, SRS, nginx-rtmp
    (
        "quirk03_extendedIsRepeatedInType3",
        chunk(0, 6, P[:128], length=300, time=EXT)
        + chunk(3, 6, P[128:256], time=EXT)
        + chunk(3, 6, P[256:], time=EXT),
        [video(EXT, P)],
    ),
    # OBS before 31, and writers of Flash's time
    (
        "quirk03_extendedIsNotRepeatedInType3",
        chunk(0, 6, P[:128], length=300, time=EXT)
        + chunk(3, 6, P[128:256])
        + chunk(3, 6, P[256:]),
        [video(EXT, P)],
    ),
    (
        "quirk03_dataThatLookLikeItAreTakenForIt",
        chunk(0, 6, P[:128], length=300, time=EXT)
        + chunk(3, 6, EXT.to_bytes(4, "big") + P[128:256])
        + chunk(3, 6, P[256:]),
        [video(EXT, P)],
    ),
    (
        "quirk03_dataThatOnlyBeginLikeIt",
        chunk(0, 6, P[:128], length=132, time=EXT)
        + chunk(3, 6, b"\x01\x02\x03\x05")
        + chunk(1, 6, A, time=1),
        [video(EXT, P[:128] + b"\x01\x02\x03\x05"), video(EXT + 1, A)],
    ),
    # librtmp: not where type 3 opens a message, but within it
    (
        "quirk04_type3OpensWithoutExtended",
        chunk(0, 6, P[:128], length=200, time=EXT)
        + chunk(3, 6, P[128:200], time=EXT)
        + chunk(3, 6, P[:128])
        + chunk(3, 6, P[128:200], time=EXT),
        [video(EXT, P[:200]), video(2 * EXT, P[:200])],
    ),
    (
        "quirk04_type3OpensWithExtended",
        chunk(0, 6, A, time=EXT) + chunk(3, 6, A, time=EXT),
        [video(EXT, A), video(2 * EXT, A)],
    ),
    # The spec; SRS took it for the absolute time until 7.0.37.
    (
        "quirk05_extendedOfType1IsADelta",
        chunk(0, 6, A, time=1000) + chunk(1, 6, A, time=EXT),
        [video(1000, A), video(1000 + EXT, A)],
    ),
    (
        "quirk05_extendedOfType2IsADelta",
        chunk(0, 6, A, time=1000) + chunk(2, 6, A, time=EXT),
        [video(1000, A), video(1000 + EXT, A)],
    ),
    (
        "quirk06_allOnesIsExtended",
        chunk(0, 6, A, time=0xFFFFFF) + chunk(1, 6, A, time=0xFFFFFF),
        [video(0xFFFFFF, A), video(2 * 0xFFFFFF, A)],
    ),
    (
        "quirk06_oneLessIsNot",
        chunk(0, 6, A, time=0xFFFFFE) + chunk(1, 6, A, time=1),
        [video(0xFFFFFE, A), video(0xFFFFFF, A)],
    ),
    # After 4 h 39 min: by deltas as ffmpeg, by absolute times as librtmp
    (
        "quirk07_deltasPast16777215",
        chunk(0, 6, A, time=0xFFFFFF - 30)
        + chunk(1, 6, A, time=40)
        + chunk(2, 6, A, time=40)
        + chunk(3, 6, A),
        [video(0xFFFFFF + n, A) for n in (-30, 10, 50, 90)],
    ),
    (
        "quirk07_absoluteTimesPast16777215",
        chunk(0, 6, A, time=0xFFFFFF - 30)
        + chunk(0, 6, P[:128], length=300, time=0xFFFFFF + 10)
        + chunk(3, 6, P[128:256], time=0xFFFFFF + 10)
        + chunk(0, 4, A, time=0xFFFFFF + 12, type=8)
        + chunk(3, 6, P[256:], time=0xFFFFFF + 10),
        [
            video(0xFFFFFF - 30, A),
            audio(0xFFFFFF + 12),
            video(0xFFFFFF + 10, P),
        ],
    ),
    # After 24.8 and 49.7 days
    (
        "quirk08_past2To31",
        chunk(0, 6, A, time=2**31 - 10) + chunk(0, 6, A, time=2**31 + 10),
        [video(2**31 - 10, A), video(2**31 + 10, A)],
    ),
    (
        "quirk08_absoluteTimesWrap",
        chunk(0, 6, A, time=BASE - 10)
        + chunk(0, 6, A, time=10)
        + chunk(0, 4, A, time=BASE - 2, type=8)
        + chunk(0, 4, A, time=21, type=8),
        [
            video(BASE - 10, A),
            video(BASE + 10, A),
            audio(BASE - 2),
            audio(BASE + 21),
        ],
    ),
    (
        "quirk08_deltasWrap",
        chunk(0, 6, A, time=BASE - 10) + chunk(1, 6, A, time=20) + chunk(3, 6, A),
        [video(BASE - 10, A), video(BASE + 10, A), video(BASE + 30, A)],
    ),
    # OBS, DJI
    (
        "quirk09_negativeDelta",
        chunk(0, 6, A, time=1000)
        + chunk(1, 6, P[:128], length=300, time=BASE - 40)
        + chunk(3, 6, P[128:256], time=BASE - 40)
        + chunk(3, 6, P[256:], time=BASE - 40)
        + chunk(1, 6, A, time=50),
        [video(1000, A), video(960, P), video(1010, A)],
    ),
    (
        "quirk09_restartAt0",
        chunk(0, 6, A, time=60000) + chunk(0, 6, A) + chunk(1, 6, A, time=40),
        [video(60000, A), video(0, A), video(40, A)],
    ),
    # OBS, ffmpeg
    (
        "quirk10_setChunkSizeAmidAMessage",
        chunk(0, 6, P[:128], length=300)
        + setChunkSize(150)
        + chunk(3, 6, P[128:278])
        + control(3, 5000)
        + chunk(3, 6, P[278:]),
        [video(0, P)],
    ),
    # OBS (before connect), HaishinKit (after it), mobile encoders (after publish)
    (
        "quirk11_setChunkSizeAtAnyTime",
        setChunkSize(4096)
        + chunk(0, 3, amf0.encode("connect", 1, {"app": "a"}), type=20, stream=0)
        + setChunkSize(200)
        + chunk(0, 3, amf0.encode("publish", 5, None, "n"), type=20)
        + setChunkSize(4096)
        + setChunkSize(4096)
        + chunk(0, 6, P),
        [
            ("connect", "1.0", "[{'app': 'a'}]", 0, False),
            ("publish", "5.0", "[None, 'n']", 1, False),
            video(0, P),
        ],
    ),
    # gortmplib ends there, node-media-server and pyrtmp read another id.
    (
        "quirk13_csid64In2And3Bytes",
        chunk(0, 64, P[:128], length=300, size=2)
        + chunk(3, 64, P[128:256], size=3)
        + chunk(3, 64, P[256:], size=2)
        + chunk(1, 64, A, time=9, size=3),
        [video(0, P), video(9, A)],
    ),
    (
        "quirk13_csidIsLittleEndian",
        b"\x01\x01\x02" + chunk(0, 2, A)[1:] + chunk(1, 64 + 1 + 512, A, time=5),
        [video(0, A), video(5, A)],
    ),
    # librtmp's ping, srs-bench by an edge
    (
        "quirk14_type1OnAFreshChunkStream",
        chunk(1, 4, A, time=500, type=8) + chunk(1, 4, A, time=23, type=8),
        [audio(500, stream=0), audio(523, stream=0)],
    ),
    # No client read does it; SRS and gortmplib close.
    (
        "quirk15_anotherHeaderAmidAMessage",
        chunk(0, 6, P[:128], length=300, time=10)
        + chunk(0, 6, A, time=20)
        + chunk(1, 6, P[:128], length=300, time=5)
        + chunk(1, 6, A, time=5),
        [video(20, A), video(30, A)],
    ),
    # Silence and filler in E-RTMP v2; gortmplib closes.
    (
        "quirk16_emptyMedia",
        chunk(0, 6) + chunk(0, 4, type=8) + chunk(3, 4) + chunk(1, 6, A, time=1),
        [video(0, b""), audio(0, b""), audio(0, b""), video(1, A)],
    ),
    # Flash, some encoders in Java
    (
        "quirk23_amf3Command",
        chunk(
            0,
            3,
            b"\0" + amf0.encode("createStream", 2, None),
            type=17,
            stream=0,
        ),
        [("createStream", "2.0", "[None]", 0, True)],
    ),
    (
        "quirk23_amf3CommandWithoutTheByte",
        chunk(0, 3, amf0.encode("createStream", 2, None), type=17, stream=0),
        [("createStream", "2.0", "[None]", 0, True)],
    ),
    (
        "quirk23_amf3Data",
        chunk(0, 4, b"\0" + amf0.encode("onMetaData", {}), type=15),
        [(18, 1, 0, amf0.encode("onMetaData", {}))],
    ),
    (
        "quirk24_connectInSeveralChunks",
        b"".join(
            chunk(3 if at else 0, 3, data[at : at + 128], length=len(data), type=20)
            for data in [amf0.encode("connect", 1, {"tcUrl": "rtmp://" + "h" * 500})]
            for at in range(0, len(data), 128)
        ),
        [("connect", "1.0", f"[{{'tcUrl': 'rtmp://{'h' * 500}'}}]", 1, False)],
    ),
    # Servers do it; a client must not take the second one for something else.
    (
        "quirk25_acknowledgementsAsType2AndType3",
        control(3, 1000)
        + chunk(2, 2, struct.pack(">I", 2000))
        + chunk(3, 2, struct.pack(">I", 3000))
        + chunk(0, 6, A),
        [video(0, A)],
    ),
    (
        "quirk26_abortWithoutAMessage",
        abort(6) + chunk(0, 6, A) + abort(6) + abort(65599) + chunk(1, 6, A, time=5),
        [video(0, A), video(5, A)],
    ),
    # FMS, Red5, Wowza relays
    (
        "quirk27_aggregateTimesAreRelative",
        chunk(
            0,
            6,
            submessage(8, 5000, b"a")
            + submessage(9, 5010, b"v")
            + submessage(18, 5020, b"\x02\0\1x"),
            time=77,
            type=22,
        ),
        [audio(77, b"a"), video(87, b"v"), (18, 1, 97, b"\x02\0\1x")],
    ),
    (
        "quirk27_aggregateWithoutItsLastPointer",
        chunk(
            0,
            6,
            submessage(8, 0, b"a") + submessage(9, 4, b"v", pointer=False),
            time=77,
            type=22,
        ),
        [audio(77, b"a"), video(81, b"v")],
    ),
    (
        "quirk27_aggregateTimesWrap",
        chunk(
            0,
            6,
            submessage(8, BASE - 5, b"a") + submessage(9, 5, b"v"),
            time=77,
            type=22,
        ),
        [audio(77, b"a"), video(87, b"v")],
    ),
    (
        "quirk31_oneByteChunks",
        setChunkSize(1)
        + chunk(0, 6, A[:1], length=5)
        + b"".join(b"\xc6" + A[n : n + 1] for n in range(1, 5)),
        [video(0, A)],
    ),
]


@pytest.mark.parametrize(
    ("data", "events"), [v[1:] for v in VECTORS], ids=[v[0] for v in VECTORS]
)
def test_wire(data, events):
    for how, pieces in ways(data):
        result = readConnection(pieces)
        assert result.events == events, how
        assert result.error is None


# The wire layer, beyond vectors


def test_quirk06_writerExtendsAllOnes():
    writer = ChunkWriter()
    assert writer.encode(6, 9, 0xFFFFFF, 1, A) == chunk(0, 6, A, time=0xFFFFFF)
    assert ChunkWriter().encode(6, 9, 0xFFFFFE, 1, A) == chunk(0, 6, A, time=0xFFFFFE)


def test_quirk12_peerIgnoresOurChunkSize():
    """The chunk sizes of both directions have nothing to do with each other."""
    connection = connected()
    connection.sendChunkSize(65536)
    data = chunk(0, 6, P[:128], length=300) + chunk(3, 6, P[128:256])
    data += chunk(3, 6, P[256:])
    result = outcome(connection.feed, connection.nextEvent, [data])
    assert result.events == [video(0, P)]
    assert connection.reader.chunkSize == 128


@pytest.mark.parametrize("headerFormat", [2, 3])
def test_quirk14_freshChunkStreamWithoutLength(headerFormat):
    """Osmo Action; ffmpeg over RTMPT: there is nothing to go on with."""
    result = readConnection([chunk(0, 4, A, type=8), chunk(headerFormat, 33, A)])
    assert result.events == [audio(0)]
    assert result.error is not None
    assert result.error[0] is ChunkError


def test_quirk14_isCounted():
    reader = ChunkReader()
    reader.feed(chunk(1, 4, A))
    assert reader.nextMessage() is not NEED_DATA
    assert reader.assumed == 1


def test_quirk15_isCounted():
    reader = ChunkReader()
    reader.feed(chunk(0, 6, P[:128], length=300) + chunk(0, 6, A))
    assert reader.nextMessage().payload == A
    assert (reader.dropped, reader.droppedBytes) == (1, 128)


def test_quirk25_clientCountsAcknowledgements():
    connection = connected(Role.CLIENT)
    got = []
    for data in (
        control(3, 1000),
        chunk(2, 2, struct.pack(">I", 2000)),
        chunk(3, 2, struct.pack(">I", 3000)),
    ):
        connection.feed(data)
        assert connection.nextEvent() is NEED_DATA
        got.append(connection.acknowledged)
    assert got == [1000, 2000, 3000]


@pytest.mark.parametrize("size", [0, 2**31, 2**31 + 4096])
def test_quirk31_chunkSizesOutOfBounds(size):
    result = readConnection([chunk(0, 6, A) + setChunkSize(size) + chunk(0, 6, A)])
    assert result.events == [video(0, A)]
    assert result.error == (ChunkError, "RTMP 1.0, 5.4.1", 2**31 - 1)


def test_quirk32_longestMessageSlowly():
    """It is refused by its header, and so are many that are shorter."""
    error = readChunks([chunk(0, 6, b"", length=0xFFFFFF)]).error
    assert error is not None
    assert error[0] is LimitError
    size = 1 << 20
    reader = ChunkReader()
    reader.feed(setChunkSize(size))
    assert reader.nextMessage() is NEED_DATA
    for csid in range(3, 15):
        reader.feed(chunk(0, csid, bytes(size), length=8 * size))
        assert reader.nextMessage() is NEED_DATA
    assert reader.unfinished == 12 * size
    reader.feed(chunk(3, 3, b"x"))
    with pytest.raises(LimitError):
        reader.nextMessage()


# The server


@pytest.fixture
def server():
    return Server()


def publishing(server, name="s"):
    peer = Peer(server)
    assert codes(peer.connect()) == ["NetConnection.Connect.Success"]
    assert codes(peer.publish(name)) == ["NetStream.Publish.Start"]
    return peer


def sent(server, *chunks, name="s"):
    """What a sink gets of chunks that a publisher sends."""
    peer = publishing(server, name)
    peer.exchange(*chunks)
    [sink] = server.sinks
    assert not peer.transport.disconnecting
    peer.close()
    assert sink.ended
    return sink


AVC_HEADER = bytes.fromhex("17 00 000000 01 42c01e ff e100 00")
AVC_OTHER_HEADER = bytes.fromhex("17 00 000000 01 4d401e ff e100 00")
AVC_KEY = bytes.fromhex("17 01 000050 00000004 65888080")
AVC_FRAME = bytes.fromhex("27 01 ffffd8 00000004 41888080")
AVC_END = bytes.fromhex("17 02 000000")


def test_quirk11_chunkSizeAfterPublish(server):
    sink = sent(
        server,
        chunk(0, 6, P[:128], length=300),
        setChunkSize(4096),
        chunk(3, 6, P[128:]),
        chunk(0, 6, P),
    )
    assert sink.messages == [video(0, P), video(0, P)]


def test_quirk16_emptyMediaReachTheSink(server):
    sink = sent(server, chunk(0, 6, type=9), chunk(0, 4, type=8))
    assert sink.messages == [video(0, b""), audio(0, b"")]
    assert sink.stream.ledger.lost == 0


def test_quirk17_avcHeadersAndEnds(server):
    """
    Several sequence headers, the end of sequence, and composition times other
    than 0 and below it: all pass, in their order; the last header is kept.
    """
    payloads = [
        AVC_HEADER,
        AVC_KEY,
        AVC_FRAME,
        AVC_OTHER_HEADER,
        AVC_KEY,
        AVC_END,
    ]
    peer = publishing(server)
    peer.exchange(*(chunk(0, 6, p, time=n) for n, p in enumerate(payloads)))
    [sink] = server.sinks
    assert [m[3] for m in sink.messages] == payloads
    assert [m.payload for m in sink.stream.headers()] == [AVC_OTHER_HEADER]
    assert media.parseVideo(AVC_KEY).compositionTime == 80
    assert media.parseVideo(AVC_FRAME).compositionTime == -40
    peer.close()


def test_quirk18_tcpEndsWithoutDeleteStream(server):
    """RootEncoder, and every encoder whose network breaks."""
    peer = publishing(server)
    peer.close()
    assert server.factory.streams == {}
    assert server.sinks[0].ended
    publishing(server).close()


def test_quirk18_silenceOnly(server):
    """Behind a NAT that forgot the connection, neither FIN nor RST comes."""
    peer = publishing(server)
    server.clock.advance(9.9)
    assert not peer.transport.disconnecting
    server.clock.advance(0.2)
    assert peer.transport.disconnecting
    assert server.factory.streams == {}
    peer.close()


def test_quirk18_encoderComesBack(server):
    """Its old connection is still there, but silent: the name is given up."""
    ghost = publishing(server)
    ghost.exchange(chunk(0, 6, AVC_KEY))
    server.clock.advance(1)
    early = Peer(server)
    early.connect()
    assert codes(early.publish()) == ["NetStream.Publish.BadName"]
    early.close()
    server.clock.advance(3)
    publishing(server).close()
    assert ghost.transport.disconnecting
    ghost.close()
    assert [sink.ended for sink in server.sinks] == [True, True]


@pytest.mark.parametrize("streamId", [0, 1, 7, 2**32 - 1])
def test_quirk19_publishOnAnyMessageStream(server, streamId):
    """The answer comes on the id that the client used."""
    peer = Peer(server)
    peer.connect()
    peer.call("createStream", 2, None)
    answers = peer.call("publish", 3, None, "s", streamId=streamId)
    assert [(c.name, c.streamId) for c in answers] == [("onStatus", streamId)]
    assert codes(answers) == ["NetStream.Publish.Start"]
    peer.exchange(chunk(0, 6, AVC_KEY, stream=streamId))
    assert server.sinks[0].messages == [video(0, AVC_KEY, streamId)]
    peer.close()


def test_quirk19_mediaOnMessageStream0(server):
    """node-media-server's client publishes on 1 and sends on 0."""
    sink = sent(server, chunk(0, 6, AVC_KEY, stream=0))
    assert [m[3] for m in sink.messages] == [AVC_KEY]


def test_quirk20_severalStreams(server):
    peer = Peer(server)
    peer.connect()
    for n in (1, 2, 3):
        [answer] = peer.call("createStream", n, None)
        assert (answer.name, answer.transactionId) == ("_result", n)
        assert answer.arguments == [None, n]
    for n in (3, 1, 2):
        peer.call("publish", 0, None, f"s{n}", "live", streamId=n)
    peer.exchange(*(chunk(0, 5 + n, b"%d" % n * 9, stream=n) for n in (2, 3, 1)))
    got = {sink.stream.name: sink.messages for sink in server.sinks}
    assert got == {f"s{n}": [video(0, b"%d" % n * 9, n)] for n in (1, 2, 3)}
    peer.call("deleteStream", 0, None, 2.0)
    assert [sink.ended for sink in server.sinks] == [False, False, True]
    peer.close()
    assert server.factory.streams == {}


def test_quirk20_publishAgainOnTheSameStream(server):
    peer = publishing(server, "first")
    peer.call("closeStream", 0, None, streamId=1)
    assert codes(peer.call("publish", 0, None, "second", streamId=1)) == [
        "NetStream.Publish.Start"
    ]
    assert [sink.stream.name for sink in server.sinks] == ["first", "second"]
    assert [sink.ended for sink in server.sinks] == [True, False]
    peer.close()


METADATA = amf0.encode("onMetaData", {"width": 1280.0})
SET_DATA_FRAME = amf0.encode("@setDataFrame")
NUMBER_AS_TEXT = amf0.encode("onMetaData", {"width": "1280"})
WRONG_COUNT = (
    amf0.encode("onMetaData")
    + b"\x08\xff\xff\xff\xff\0\5width"
    + amf0.encode(1280)
    + b"\0\0\x09"
)


@pytest.mark.parametrize(
    ("data", "stored"),
    [
        pytest.param(SET_DATA_FRAME + METADATA, METADATA, id="setDataFrame"),
        pytest.param(METADATA, METADATA, id="plain"),
        pytest.param(NUMBER_AS_TEXT, NUMBER_AS_TEXT, id="numberAsText"),
        pytest.param(WRONG_COUNT, WRONG_COUNT, id="wrongCount"),
        pytest.param(WRONG_COUNT[:-3], WRONG_COUNT[:-3], id="noEnd"),
    ],
)
def test_quirk21_metadata(server, data, stored):
    peer = publishing(server)
    peer.exchange(chunk(0, 4, data, type=18))
    [sink] = server.sinks
    assert sink.messages == [(18, 1, 0, stored)]
    assert sink.stream.ledger.lost == 0
    metadata = sink.stream.metadata
    assert metadata is not None
    assert float(amf0.decode(metadata.payload)[1]["width"]) == 1280
    peer.close()


@pytest.mark.parametrize(
    ("properties", "application", "query"),
    [
        ({"app": "live"}, "live", ""),
        ({"app": "live/"}, "live", ""),
        ({"app": "live/_definst_"}, "live", ""),
        ({"app": "a/b"}, "a/b", ""),
        ({"app": "live?token=1"}, "live", "token=1"),
        ({"app": "live", "tcUrl": "rtmp://h/live?token=1"}, "live", "token=1"),
        ({"tcUrl": "rtmp://h:1935/live"}, "live", ""),
        ({"tcurl": "rtmp://h/live/x"}, "live/x", ""),
        ({"tcUrl": '"rtmp://h/live"'}, "live", ""),
        ({"app": "", "tcUrl": "rtmp://h/live"}, "", ""),
        ({}, "", ""),
        ({"app": 5.0, "tcUrl": None}, "", ""),
    ],
)
def test_quirk22_applications(server, properties, application, query):
    assert parseApplication(properties) == (application, query)
    peer = Peer(server)
    answers = peer.call("connect", 1, properties)
    assert codes(answers) == ["NetConnection.Connect.Success"]
    assert peer.protocol.application == application
    peer.close()


@pytest.mark.parametrize(
    ("key", "name", "query"),
    [
        ("key", "key", ""),
        ("key?a=b", "key", "a=b"),
        ("key?a=b?c=d", "key", "a=b?c=d"),
        ("key?clientConfigId=7&x=1", "key", "clientConfigId=7&x=1"),
        ("?token", "", "token"),
        ("", "", ""),
        ("/key/", "key", ""),
        (7.0, "7", ""),
        (None, "", ""),
    ],
)
def test_quirk22_keys(server, key, name, query):
    assert parseStreamName(key) == (name, query)
    publishing(server, key).close()
    assert [sink.stream.name for sink in server.sinks] == [name]


def test_quirk23_amf3RepliesToAMF3(server):
    peer = Peer(server)
    properties = {"app": "live", "objectEncoding": 3.0}
    answers = peer.call("connect", 1, properties, amf3=True)
    [result] = [c for c in answers if c.name == "_result"]
    assert result.amf3
    assert result.arguments[1]["objectEncoding"] == 3.0
    [result] = peer.call("createStream", 2, None, amf3=True)
    assert result.amf3
    peer.close()


ENHANCED = {
    # DJI sets the bit of enhanced headers, with a FourCC that nobody knows.
    "quirk28_unknownFourCC": (9, b"\x91\0\0\0\0" + bytes(20)),
    "quirk28_unknownFourCCOfAudio": (8, b"\x91\0\0\0\0" + bytes(20)),
    "quirk29_opusInSoundFormat9": (8, b"\x91Opus" + bytes(20)),
    "quirk29_soundFormat15": (8, b"\xff" + bytes(20)),
    # Size byte 255: a size of 16 bits follows; then the true packet type.
    "quirk30_modExOf256Bytes": (
        9,
        b"\x97" + b"\xff\x00\xff" + bytes(256) + b"\x11" + b"hvc1" + bytes(20),
    ),
    "quirk30_modExTwice": (
        9,
        b"\x97" + b"\x02" + bytes(3) + b"\x07" + b"\x00\x07" + b"\x11hvc1" + bytes(20),
    ),
}


@pytest.mark.parametrize("name", ENHANCED)
def test_enhanced(server, name):
    """Passed on as it came: neither closed nor discarded."""
    typeId, payload = ENHANCED[name]
    sink = sent(server, setChunkSize(4096), chunk(0, 6, payload, type=typeId))
    assert sink.messages == [(typeId, 1, 0, payload)]
    assert sink.stream.ledger.lost == 0


def test_quirk30_modExForEver(server):
    """ModEx upon ModEx ends somewhere: discarded and counted, not followed."""
    payload = b"\x97" + b"\x00\x00\x07" * 5000
    flags = media.videoFlags(payload)
    assert flags & media.MALFORMED
    sink = sent(server, setChunkSize(65536), chunk(0, 6, payload), chunk(0, 4, A))
    assert [m[3] for m in sink.messages] == [A]
    assert sink.stream.ledger.discarded == {"malformed": 1}


def test_quirk32_slowAttackIsCut(server):
    """A publisher that only ever begins messages is as good as silent."""
    peer = publishing(server)
    for n in range(101):
        server.clock.advance(0.1)
        if peer.transport.disconnecting:
            break
        peer.exchange(chunk(0, 10 + n % 40, b"x", length=1_000_000))
    assert peer.transport.disconnecting
    peer.close()


def test_everyQuirkOfTheWireHasItsTest():
    """The numbers run from 1 to 32, and none is left out."""
    names = [v[0] for v in VECTORS] + list(globals()) + list(ENHANCED)
    numbers = {int(n.split("quirk")[1][:2]) for n in names if "quirk" in n[:10]}
    assert numbers == set(range(1, 33))
