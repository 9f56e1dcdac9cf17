"""
Every packet type of E-RTMP v2, in every form: whole, cut off at every length, with
more behind, through a connection in any pieces, and beside a stream that they must
not touch.
"""

from __future__ import annotations

import random

import pytest
from feeding import Peer, Server, connected, outcome, randomPieces, ways
from mediavectors import (
    AUDIO,
    AUDIO_PACKETS,
    MOD_EX_CHAINS,
    VIDEO,
    VIDEO_PACKETS,
    Vector,
    commands,
    everything,
    manyTracks,
    ofPacketType,
    oneTrack,
    plainVector,
)

from twisted_rtmp.media.payloads import (
    EMPTY,
    MALFORMED,
    MAX_MOD_EX,
    MultichannelConfig,
    Track,
    audioFlags,
    exactTime,
    parseAudio,
    parseVideo,
    videoFlags,
)
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.connection import Role
from twisted_rtmp.wire.errors import MessageError
from twisted_rtmp.wire.messages import Message

#: The example of a colorInfo in the section Metadata Frame, for BT.2020 and PQ.
COLOR_INFO = {
    "colorConfig": {
        "bitDepth": 10.0,
        "colorPrimaries": 9.0,
        "transferCharacteristics": 16.0,
        "matrixCoefficients": 9.0,
    },
    "hdrCll": {"maxFall": 400.0, "maxCLL": 1000.0},
    "hdrMdcv": {
        "redX": 0.708,
        "redY": 0.292,
        "greenX": 0.17,
        "greenY": 0.797,
        "blueX": 0.131,
        "blueY": 0.046,
        "whitePointX": 0.3127,
        "whitePointY": 0.329,
        "maxLuminance": 1000.0,
        "minLuminance": 0.0001,
    },
}

FLAGS = {VIDEO: videoFlags, AUDIO: audioFlags}
PARSE = {VIDEO: parseVideo, AUDIO: parseAudio}

PACKETS = [
    *(pytest.param(VIDEO, number, id=name) for name, number in VIDEO_PACKETS.items()),
    *(
        pytest.param(AUDIO, number, id=f"audio {name}")
        for name, number in AUDIO_PACKETS.items()
    ),
]


def assertRead(vector: Vector) -> None:
    """The flags and the header are those that the message was made of."""
    assert FLAGS[vector.typeId](vector.payload) == vector.flags, vector.name
    header = PARSE[vector.typeId](vector.payload)
    assert header.flags == vector.flags, vector.name
    facts = dict(vector.facts)
    if "tracks" in facts:
        facts["tracks"] = tuple(Track(*track) for track in facts["tracks"])
    found = {name: getattr(header, name) for name in facts}
    assert found == facts, vector.name


def assertTruncations(
    vector: Vector, known: dict[bytes, int | None] | None = None
) -> None:
    """
    Compare what each beginning of the message is read as.

    @param known: beginnings that were read before, which many vectors share.
    """
    flagsOf, parse = FLAGS[vector.typeId], PARSE[vector.typeId]
    known = {} if known is None else known
    last = max(vector.ends)
    assert flagsOf(b"") == EMPTY
    for size in range(1, len(vector.payload)):
        piece = vector.payload[:size]
        expected = vector.ends.get(size)
        if size > last and vector.open:
            expected = vector.flags
        if piece in known:
            assert known[piece] == expected, (vector.name, size)
            continue
        known[piece] = expected
        if expected is None:
            assert flagsOf(piece) == MALFORMED, (vector.name, size)
            try:  # so many times that pytest.raises would cost as much as parsing
                parse(piece)
            except MessageError:
                continue
            pytest.fail(f"{vector.name} was read from {size} bytes")
        else:
            assert flagsOf(piece) == expected, (vector.name, size)
            assert parse(piece).flags == expected, (vector.name, size)


def assertExtensions(vector: Vector) -> None:
    """More behind belongs to the body, or is one more track, cut off."""
    flagsOf, parse = FLAGS[vector.typeId], PARSE[vector.typeId]
    for size in range(1, 4):
        longer = vector.payload + bytes(size)
        if vector.open:
            header = parse(longer)
            assert header.flags == flagsOf(longer)
            whole = parse(vector.payload)
            assert header.bodyOffset == whole.bodyOffset
            if header.tracks:
                assert header.tracks[0].end == len(longer)
        else:
            assert flagsOf(longer) == MALFORMED, vector.name
            with pytest.raises(MessageError):
                parse(longer)


class TestPackets:
    @pytest.mark.parametrize(("typeId", "packetType"), PACKETS)
    def test_whole(self, typeId: int, packetType: int) -> None:
        for vector in ofPacketType(typeId, packetType):
            assertRead(vector)

    @pytest.mark.parametrize(("typeId", "packetType"), PACKETS)
    def test_cutOff(self, typeId: int, packetType: int) -> None:
        known: dict[bytes, int | None] = {}
        for vector in ofPacketType(typeId, packetType):
            assertTruncations(vector, known)

    @pytest.mark.parametrize(("typeId", "packetType"), PACKETS)
    def test_longer(self, typeId: int, packetType: int) -> None:
        for vector in ofPacketType(typeId, packetType):
            assertExtensions(vector)

    def test_commands(self) -> None:
        for vector in commands():
            assertRead(vector)
            assertTruncations(vector)
            assertExtensions(vector)

    def test_metadataOfACommandFrame(self) -> None:
        """The frame type is ignored if the packet type is Metadata."""
        for frameType in range(8):
            vector = plainVector(VIDEO, "hvc1", 4, frameType)
            assertRead(vector)
            assertTruncations(vector)

    def test_colorInfo(self) -> None:
        """A body that is read is read from where the header says that it begins."""
        for vector in (
            plainVector(VIDEO, "hvc1", 4, 5),
            oneTrack(VIDEO, "av01", 4, 3),
        ):
            body = amf0.encode("colorInfo", COLOR_INFO)
            payload = vector.payload[: max(vector.ends)] + body
            assert videoFlags(payload) == vector.flags
            header = parseVideo(payload)
            start = header.tracks[0].start if header.tracks else header.bodyOffset
            assert amf0.decode(payload[start:]) == ["colorInfo", COLOR_INFO]
            for size in range(max(vector.ends), len(payload)):
                assert videoFlags(payload[:size]) == vector.flags
                assert parseVideo(payload[:size]).flags == vector.flags

    def test_reservedFrameTypes(self) -> None:
        """0, 6 and 7: the frame passes, and is no key frame."""
        for frameType in (0, 6, 7):
            for packetType in VIDEO_PACKETS.values():
                assertRead(plainVector(VIDEO, "hvc1", packetType, frameType))

    def test_aMultichannelConfigOfEachTrack(self) -> None:
        """Each is read, and one that is cut off makes the message malformed."""
        whole = manyTracks(
            AUDIO, 4, [(0, "Opus", 0), (1, "Opus", 0), (2, "Opus", 0)], False
        )
        header = parseAudio(whole.payload)
        assert header.multichannel == MultichannelConfig(1, 6, mask=0x060F)
        sizes = [track.end - track.start for track in header.tracks]
        assert sizes == [6, 6, 6]
        for track in header.tracks:
            shorter = bytearray(whole.payload)
            shorter[track.start - 1] -= 1
            del shorter[track.end - 1]
            assert audioFlags(bytes(shorter)) == MALFORMED

    def test_aSequenceStartOfEachTrack(self) -> None:
        """One without a configuration is one too many."""
        whole = b"\x96\x10hvc1" + b"\x00\0\0\x01A" + b"\x01\0\0\x01B"
        assert not videoFlags(whole) & MALFORMED
        assert videoFlags(whole + b"\x02\0\0\0") == MALFORMED

    def test_someTracksWithoutAFrame(self) -> None:
        frames = b"\xa6\x13hvc1" + b"\x00\0\0\0" + b"\x01\0\0\x01B"
        whole = oneTrack(VIDEO, "hvc1", 3, 0)
        assert videoFlags(frames) == whole.flags
        assert videoFlags(frames[:10]) == whole.ends[7]


class TestLegacyHEVC:
    """Codec id 12, as CDNs, cameras and patched encoders have it."""

    @pytest.mark.parametrize("frameType", range(8))
    @pytest.mark.parametrize("packetType", [0, 1, 2, 3, 255])
    def test_likeAVC(self, frameType: int, packetType: int) -> None:
        for time in (0, 40, -40):
            fields = bytes((packetType,)) + time.to_bytes(3, "big", signed=True)
            hevc = bytes((frameType << 4 | 12,)) + fields + b"\1body\2"
            avc = bytes((frameType << 4 | 7,)) + fields + b"\1body\2"
            for size in range(len(hevc) + 1):
                assert videoFlags(hevc[:size]) == videoFlags(avc[:size])
            header = parseVideo(hevc)
            assert (header.codec, header.codecName) == (12, "HEVC")
            if frameType != 5:
                expected = time if packetType == 1 else 0
                assert header.compositionTime == expected
                assert header.bodyOffset == 5


class TestModEx:
    def test_nanoseconds(self) -> None:
        """The last one counts, all of three bytes is read, and more data is passed."""
        for nanoseconds in (0, 1, 999_999, 1_048_575, 0xFFFFFF):
            data = nanoseconds.to_bytes(3, "big")
            for chain in (
                ((0, data),),
                ((0, data + b"more"),),
                ((0, b"\1\2\3"), (0, data)),
                ((0, data), (1, b"\1\2\3")),
            ):
                for typeId, fourCC in ((VIDEO, "av01"), (AUDIO, "Opus")):
                    header = PARSE[typeId](
                        plainVector(typeId, fourCC, 1, 2, chain).payload
                    )
                    assert header.nanoseconds == nanoseconds
                    assert header.modEx == chain

    @pytest.mark.parametrize(
        "timestamp", [0, 1 << 24, (1 << 32) - 1, 1 << 32, (1 << 40) + 7]
    )
    def test_exactTime(self, timestamp: int) -> None:
        """In every form of message, whether a stream has looked at it or not."""
        for typeId, fourCC in ((VIDEO, "hvc1"), (AUDIO, "Opus")):
            for chain in MOD_EX_CHAINS.values():
                for vector in (
                    plainVector(typeId, fourCC, 1, 2, chain),
                    oneTrack(typeId, fourCC, 1, 3, chain),
                    manyTracks(
                        typeId, 1, [(0, fourCC, 0), (1, fourCC, 0)], True, chain
                    ),
                ):
                    nanoseconds = timestamp * 1_000_000 + vector.facts["nanoseconds"]
                    for flags in (0, vector.flags):
                        message = Message(typeId, timestamp, 1, vector.payload, flags)
                        assert exactTime(message) == nanoseconds

    def test_exactTimeOfOtherMessages(self) -> None:
        for typeId, payload in (
            (VIDEO, b"\x17\x01\0\0\0B"),
            (AUDIO, b""),
            (AUDIO, b"\x97\x02\0\0"),
            (18, b"\x97\x02\0\0\1\x01Opus"),
        ):
            assert exactTime(Message(typeId, 5, 1, payload)) == 5_000_000

    @pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 65535, 65536])
    def test_sizes(self, size: int) -> None:
        """1 to 255 in a byte, more in two more."""
        chain = ((9, b"x" * size), (0, b"\0\0\7"))
        for typeId, fourCC in ((VIDEO, "hvc1"), (AUDIO, "fLaC")):
            vector = plainVector(typeId, fourCC, 1, 2, chain)
            assertRead(vector)
            for cut in (*range(1, 8), size, size + 3, size + 7):
                if cut < max(vector.ends):
                    assert FLAGS[typeId](vector.payload[:cut]) == MALFORMED

    @pytest.mark.parametrize("typeId", [VIDEO, AUDIO])
    def test_asManyAsAreReadAndOneMore(self, typeId: int) -> None:
        fourCC = "av01" if typeId == VIDEO else "Opus"
        chain = ((0, b"\0\0\1"),) * MAX_MOD_EX
        assertRead(plainVector(typeId, fourCC, 1, 2, chain))
        longer = plainVector(typeId, fourCC, 1, 2, (*chain, (0, b"\0\0\1")))
        assert FLAGS[typeId](longer.payload) == MALFORMED
        endless = (b"\xa7" if typeId == VIDEO else b"\x97") + b"\0x\7" * 100_000
        assert FLAGS[typeId](endless) == MALFORMED


#: What no reading makes sense of.
MALFORMED_MESSAGES = [
    (VIDEO, b"\x91hvc"),
    (VIDEO, b"\x90"),
    (AUDIO, b"\x91Opu"),
    (VIDEO, b"\x96\x13hvc1\x00\xff\xff\xffbody"),
    (VIDEO, b"\x96\x23hvc1\x00\0\0\2ab\x01"),
    (VIDEO, b"\x96\x11hvc1\x00\0\0\2ab"),
    (AUDIO, b"\x95\x11Opus\x00\0\0\5ab"),
    (AUDIO, b"\x95\x05Opus\x00body"),
    (VIDEO, b"\xa7" + b"\0x\7" * 1000),
    (AUDIO, b"\x97" + b"\xff\0\0x\7" * 1000),
    (VIDEO, b"\xa7\xff\xff\xffdata"),
    (VIDEO, b"\xd1"),
    (AUDIO, b"\x94Opus\x02\xff\0"),
]


class TestThroughAServer:
    def test_inAnyPieces(self) -> None:
        """Whole, byte by byte and in random pieces, what comes out is what went in."""
        sender = connected(Role.CLIENT)
        sender.dataToSend()
        vectors = list(everything())[::23]
        assert len(vectors) > 100
        for number, vector in enumerate(vectors):
            sender.sendMessage(Message(vector.typeId, number, 1, vector.payload), 6)
        data = sender.dataToSend()
        expected = [(v.typeId, 1, n, v.payload) for n, v in enumerate(vectors)]
        source = random.Random(5)
        for pieces in (
            [data],
            [data[i : i + 1] for i in range(len(data))],
            *(randomPieces(data, source, mean) for mean in (2, 30, 700)),
        ):
            reader = connected()
            result = outcome(reader.feed, reader.nextEvent, pieces)
            assert result.error is None
            assert result.events == expected

    def test_cutAnywhere(self) -> None:
        """Each by itself, in chunks of 16 bytes, cut in two at every place."""
        vectors = list(everything())[::37]
        assert {v.typeId for v in vectors} == {VIDEO, AUDIO}
        for vector in vectors:
            sender = connected(Role.CLIENT)
            sender.sendChunkSize(16)
            sender.sendMessage(Message(vector.typeId, 7, 1, vector.payload), 6)
            data = sender.dataToSend()
            for name, pieces in ways(data):
                reader = connected()
                result = outcome(reader.feed, reader.nextEvent, pieces)
                assert result.error is None, name
                assert result.events == [(vector.typeId, 1, 7, vector.payload)], name

    def test_passedOnWhole(self) -> None:
        """A sink gets every vector's bytes, known or not, and nothing is lost."""
        server = Server()
        peer = Peer(server)
        peer.connect()
        peer.publish()
        vectors = list(everything())[::7]
        for number, vector in enumerate(vectors):
            peer.wire.sendMessage(Message(vector.typeId, number, 1, vector.payload), 6)
        peer.exchange()
        peer.close()
        (messages,) = server.streams
        assert messages == [(v.typeId, 1, n, v.payload) for n, v in enumerate(vectors)]
        assert server.sinks[0].stream.ledger.discarded == {}

    def test_malformedOnesAreCountedAndTouchNoOtherStream(self) -> None:
        server = Server()
        good, bad = Peer(server), Peer(server)
        for peer, name in ((good, "good"), (bad, "bad")):
            peer.connect()
            peer.publish(name)
        frame = plainVector(VIDEO, "hvc1", 1, 1).payload
        for number, (typeId, payload) in enumerate(MALFORMED_MESSAGES):
            assert FLAGS[typeId](payload) == MALFORMED
            bad.wire.sendMessage(Message(typeId, number, 1, payload), 6)
            bad.exchange()
            good.wire.sendMessage(Message(VIDEO, number, 1, frame), 6)
            good.exchange()
        bad.wire.sendMessage(Message(VIDEO, 99, 1, frame), 6)
        bad.exchange()
        assert not bad.transport.disconnecting
        good.close()
        bad.close()
        ledgers = {sink.stream.name: sink.stream.ledger for sink in server.sinks}
        assert ledgers["good"].discarded == {}
        assert ledgers["good"].received.video == len(MALFORMED_MESSAGES)
        assert ledgers["bad"].discarded == {"malformed": len(MALFORMED_MESSAGES)}
        assert ledgers["bad"].received.video == 1
        sent = len(MALFORMED_MESSAGES)
        assert [len(messages) for messages in server.streams] == [sent, 1]
