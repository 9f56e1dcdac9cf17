"""FLV: tags by FLV 10.1, Annex E, however the bytes are cut, and damaged files."""

from __future__ import annotations

import random
import time

import pytest

from twisted_rtmp.flv import tags as flv
from twisted_rtmp.wire.constants import MAX_MESSAGE_LENGTH, NEED_DATA
from twisted_rtmp.wire.errors import FLVError, UsageError
from twisted_rtmp.wire.messages import Message

HEADER = bytes.fromhex("464c5601 05 00000009 00000000")

#: (tag with its back pointer, what it is).  FLV 10.1, E.4.1.
TAGS = [
    (
        bytes.fromhex("12 000003 000000 00 000000 02aabb 0000000e"),
        Message(18, 0, 0, b"\x02\xaa\xbb"),
    ),
    (
        bytes.fromhex("09 000002 123456 00 000000 1700 0000000d"),
        Message(9, 0x123456, 0, b"\x17\0"),
    ),
    # TimestampExtended holds bits 24 to 31, and comes after the other 24.
    (
        bytes.fromhex("08 000001 ffffff 7f 000000 af 0000000c"),
        Message(8, 0x7FFFFFFF, 0, b"\xaf"),
    ),
    (
        bytes.fromhex("09 000001 000000 80 000000 27 0000000c"),
        Message(9, 0x80000000, 0, b"\x27"),
    ),
    (
        bytes.fromhex("08 000000 000001 01 000000 0000000b"),
        Message(8, 0x01000001, 0, b""),
    ),
    # Not defined by FLV, and passed on: AMF3 data.
    (
        bytes.fromhex("0f 000001 000005 00 000000 00 0000000c"),
        Message(15, 5, 0, b"\0"),
    ),
    (
        b"\x09\x01\x00\x02\0\0\x09\0\0\0\0" + b"v" * 0x10002 + b"\x00\x01\x00\x0d",
        Message(9, 9, 0, b"v" * 0x10002),
    ),
]
FILE = HEADER + b"".join(tag for tag, _ in TAGS)
MESSAGES = [message for _, message in TAGS]
SMALL_FILE = HEADER + b"".join(tag for tag, _ in TAGS[:-1])
SMALL_MESSAGES = MESSAGES[:-1]


def read(chunks):
    """Feed the chunks; take every tag as soon as it is there."""
    reader = flv.FLVReader()
    messages = []
    for chunk in chunks:
        reader.feed(chunk)
        while (message := reader.nextTag()) is not NEED_DATA:
            messages.append(message)
    return reader, messages


class TestReading:
    def test_whole(self):
        reader, messages = read([FILE])
        assert messages == MESSAGES
        assert reader.offset == len(FILE)
        assert reader.tagOffset == len(FILE) - len(TAGS[-1][0])
        assert (reader.badPreviousTagSizes, reader.filteredTags) == (0, 0)

    def test_everySplit(self):
        for cut in range(len(SMALL_FILE) + 1):
            reader, messages = read([SMALL_FILE[:cut], SMALL_FILE[cut:]])
            assert messages == SMALL_MESSAGES, cut
            assert reader.offset == len(SMALL_FILE)

    def test_byteByByte(self):
        reader, messages = read(FILE[i : i + 1] for i in range(len(FILE)))
        assert messages == MESSAGES
        assert reader.offset == len(FILE)

    @pytest.mark.parametrize("seed", range(3))
    def test_randomSplits(self, seed):
        source = random.Random(seed)
        for _ in range(50):
            cuts = sorted(source.choices(range(len(FILE)), k=source.randrange(1, 9)))
            chunks = [
                FILE[a:b] for a, b in zip([0, *cuts], [*cuts, len(FILE)], strict=True)
            ]
            assert read(chunks)[1] == MESSAGES

    def test_truncatedAnywhere(self):
        """Whatever is cut off, the tags before it come, and offset is their end."""
        ends = [len(HEADER)]
        for tag, _ in TAGS[:-1]:
            ends.append(ends[-1] + len(tag))
        for cut in range(len(SMALL_FILE)):
            reader, messages = read([SMALL_FILE[:cut]])
            count = sum(end <= cut for end in ends[1:])
            assert messages == SMALL_MESSAGES[:count], cut
            assert reader.offset == (ends[count] if cut >= ends[0] else 0)

    def test_offsetsOfEachTag(self):
        """Also between feeds, when what was consumed has left the buffer."""
        for step in (1, 7, 64, len(SMALL_FILE)):
            reader = flv.FLVReader()
            spans = []
            for start in range(0, len(SMALL_FILE), step):
                reader.feed(SMALL_FILE[start : start + step])
                while reader.nextTag() is not NEED_DATA:
                    spans.append((reader.tagOffset, reader.offset))
            pieces = [SMALL_FILE[start:end] for start, end in spans]
            assert pieces == [tag for tag, _ in TAGS[:-1]]

    def test_headerAloneTellsWhereTheFirstTagBegins(self):
        reader, messages = read([HEADER])
        assert messages == []
        assert (reader.offset, reader.tagOffset) == (13, 13)

    @pytest.mark.parametrize(
        ("flags", "audio", "video"),
        [(0, False, False), (1, False, True), (4, True, False), (0xFF, True, True)],
    )
    def test_headerFlags(self, flags, audio, video):
        """Reserved bits of the header are ignored."""
        reader = flv.FLVReader()
        assert (reader.hasAudio, reader.hasVideo) == (False, False)
        reader.feed(b"FLV\x01" + bytes((flags,)) + HEADER[5:])
        assert reader.nextTag() is NEED_DATA
        assert (reader.hasAudio, reader.hasVideo) == (audio, video)

    def test_longerHeader(self):
        data = b"FLV\x01\x05\x00\x00\x00\x0cxyz\0\0\0\0" + TAGS[1][0]
        for cut in range(len(data)):
            assert read([data[:cut], data[cut:]])[1] == [MESSAGES[1]]

    def test_reservedBitsOfATag(self):
        data = bytearray(TAGS[1][0])
        data[0] |= 0xC0
        data[8:11] = b"\x01\x02\x03"  # and the stream id, which is always 0
        assert read([HEADER, bytes(data)])[1] == [MESSAGES[1]]

    def test_filteredTagIsIgnoredAndCounted(self):
        data = bytearray(TAGS[1][0])
        data[0] |= 0x20
        reader, messages = read([HEADER, bytes(data), TAGS[2][0]])
        assert messages == [MESSAGES[2]]
        assert reader.filteredTags == 1
        assert reader.tagOffset == len(HEADER) + len(data)

    def test_badPreviousTagSizesAreCounted(self):
        data = HEADER[:-1] + b"\x07" + TAGS[1][0][:-4] + b"\0\0\0\0" + TAGS[2][0]
        reader, messages = read([data])
        assert messages == MESSAGES[1:3]
        assert reader.badPreviousTagSizes == 2

    def test_timeIsLinear(self):
        """4 MiB in one tag, 4 bytes at a time; a quadratic reader takes minutes."""
        payload = bytes(1 << 22)
        data = HEADER + flv.encodeTag(9, 0, payload)
        reader = flv.FLVReader()
        began = time.process_time()
        for start in range(0, len(data), 4):
            reader.feed(data[start : start + 4])
            message = reader.nextTag()
        assert message.payload == payload
        assert time.process_time() - began < 20

    def test_manyTagsInOneFeed(self):
        tag = flv.encodeTag(8, 5, b"\xaf\x01x")
        reader, messages = read([HEADER + tag * 50_000])
        assert messages == [Message(8, 5, 0, b"\xaf\x01x")] * 50_000
        assert reader.offset == len(HEADER) + 50_000 * len(tag)

    def test_tagsLeftInTheBufferMayBeFedUpon(self):
        """No view of the buffer outlives a call."""
        reader = flv.FLVReader()
        reader.feed(FILE)
        kept = [reader.nextTag()]
        for _ in TAGS[1:]:
            reader.feed(b"")
            kept.append(reader.nextTag())
            reader.feed(TAGS[0][0])
        assert kept == MESSAGES


class TestErrors:
    @pytest.mark.parametrize("data", [b"G", b"FLX", b"FLV\x02", b"\0" * 13])
    def test_notFLV(self, data):
        """As soon as it can be known; and again, since nothing was consumed."""
        reader = flv.FLVReader()
        reader.feed(data)
        for _ in range(2):
            with pytest.raises(FLVError) as caught:
                reader.nextTag()
            assert caught.value.offset == 0

    @pytest.mark.parametrize("offset", [0, 8, 4097, 0xFFFFFFFF])
    def test_dataOffsetOutOfBounds(self, offset):
        reader = flv.FLVReader()
        reader.feed(b"FLV\x01\x05" + offset.to_bytes(4, "big"))
        with pytest.raises(FLVError) as caught:
            reader.nextTag()
        assert caught.value.offset == 5

    def test_holeOfZeros(self):
        """What a crash leaves behind on some file systems."""
        reader = flv.FLVReader()
        reader.feed(HEADER + TAGS[1][0] + bytes(4096))
        assert reader.nextTag() == MESSAGES[1]
        for _ in range(2):
            with pytest.raises(FLVError) as caught:
                reader.nextTag()
            assert caught.value.offset == len(HEADER) + len(TAGS[1][0])
        assert reader.offset == len(HEADER) + len(TAGS[1][0])

    @pytest.mark.parametrize("seed", range(3))
    def test_mutations(self, seed):
        """Messages, NEED_DATA or FLVError, whatever the bytes are."""
        source = random.Random(seed)
        offsets = []
        for _ in range(1000):
            data = bytearray(SMALL_FILE)
            for _ in range(source.randrange(1, 6)):
                data[source.randrange(len(data))] = source.randrange(256)
            cut = source.randrange(len(data))
            try:
                reader, messages = read([bytes(data[:cut]), bytes(data[cut:])])
            except FLVError as error:
                offsets.append(error.offset)
            else:
                assert reader.offset <= len(data)
                assert sum(len(m.payload) + 15 for m in messages) <= len(data)
        assert offsets
        assert all(0 <= offset <= len(SMALL_FILE) for offset in offsets)


class TestWriting:
    @pytest.mark.parametrize(("data", "message"), TAGS)
    def test_tag(self, data, message):
        assert flv.encodeTag(message.typeId, message.timestamp, message.payload) == data
        size = len(message.payload)
        header = flv.encodeTagHeader(message.typeId, message.timestamp, size)
        assert header + message.payload == data[:-4]

    @pytest.mark.parametrize(
        ("audio", "video", "flags"),
        [(True, True, 5), (True, False, 4), (False, True, 1), (False, False, 0)],
    )
    def test_header(self, audio, video, flags):
        header = flv.encodeHeader(audio, video)
        assert header == HEADER[:4] + bytes((flags,)) + HEADER[5:]
        assert len(header) == flv.HEADER_SIZE

    @pytest.mark.parametrize(
        ("timestamp", "kept"),
        [(2**32, 0), (2**32 + 0x01020304, 0x01020304), (-1, 0xFFFFFFFF)],
    )
    def test_timestampKeepsItsLower32Bits(self, timestamp, kept):
        assert read([HEADER, flv.encodeTag(9, timestamp, b"x")])[1] == [
            Message(9, kept, 0, b"x")
        ]

    @pytest.mark.parametrize("size", [MAX_MESSAGE_LENGTH + 1, -1])
    def test_sizeBounds(self, size):
        with pytest.raises(UsageError):
            flv.encodeTagHeader(9, 0, size)
        assert flv.encodeTagHeader(9, 0, MAX_MESSAGE_LENGTH)[1:4] == b"\xff\xff\xff"

    @pytest.mark.parametrize("typeId", [0, 32, 256, -1])
    def test_typeBounds(self, typeId):
        with pytest.raises(UsageError):
            flv.encodeTagHeader(typeId, 0, 1)
