"""The FLV muxer: the time line, the index, and the head of a file."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from recordingkit import audio, avcHeader, metadata, mux, timesOf, video

from twisted_rtmp.flv import tags as flv
from twisted_rtmp.flv.head import HEAD_PAYLOAD, HEAD_SIZE, INDEX_ENTRIES, encodeHead
from twisted_rtmp.flv.kinds import BOTH, Kinds
from twisted_rtmp.flv.metadata import (
    METADATA_BYTES,
    lastingProperties,
)
from twisted_rtmp.flv.muxer import FLVMuxer
from twisted_rtmp.flv.survey import KeyFrameIndex
from twisted_rtmp.flv.timeline import MAX_TIME
from twisted_rtmp.ledger import MediaCounts
from twisted_rtmp.media.metadata import propertiesOf
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import ECMAArray
from twisted_rtmp.wire.errors import UsageError
from twisted_rtmp.wire.messages import Message


def test_muxedTagsAreThoseOfTheWire():
    messages = [
        metadata(5),
        avcHeader(5),
        video(5, True),
        Message(8, 6, 1, b""),
        Message(9, 0x1234567, 1, b"\xff" * 70_000),
        audio(MAX_TIME + 5),
    ]
    data, counts, muxer = mux(messages)
    assert data == b"".join(
        flv.encodeTag(m.typeId, m.timestamp - 5, m.payload) for m in messages
    )
    assert muxer.position == flv.HEADER_SIZE + len(data)
    expected = MediaCounts()
    for message in messages:
        expected.count(message)
    assert repr(counts) == repr(expected)
    assert muxer.mux([], counts) == []


@pytest.mark.parametrize(
    ("batches", "times", "breaks"),
    [
        ([[100, 90, 110], [95, 130]], [10, 0, 20, 5, 40], 0),
        # A little before the start: belongs to the first frames.
        ([[100, 140], [80, 180]], [0, 40, 0, 80], 1),
        # The encoder starts again at 0.
        ([[5000, 5040], [0, 40, 80]], [0, 40, 40, 80, 120], 1),
        # Far ahead: 2^31 and more do not fit.
        ([[0, 40], [2**33, 2**33 + 40]], [0, 40, 40, 80], 1),
        # Back and forth.
        ([[5000], [0], [2**40], [2**40 + 7]], [0, 0, 0, 7], 2),
        # 24.8 days: the time line starts again.
        ([[0], [MAX_TIME], [MAX_TIME + 40], [MAX_TIME + 80]], [0, MAX_TIME, 0, 40], 1),
        # The wrap of 32 bits has been unwrapped before.
        ([[2**32 - 40], [2**32], [2**32 + 40]], [0, 40, 80], 0),
    ],
)
def test_timeGoesOn(batches, times, breaks):
    muxer = FLVMuxer()
    data = b"".join(mux([video(t) for t in batch], muxer)[0] for batch in batches)
    assert timesOf(data) == times
    assert muxer.timeline.breaks == breaks


def test_oldHeadersDoNotMoveTheStart():
    data, _, muxer = mux([avcHeader(0), video(3_600_000, True), video(3_600_040)])
    assert timesOf(data) == [0, 0, 40]
    assert muxer.timeline.breaks == 0


def test_headersJustBeforeKeepTheirDistance():
    data, _, _ = mux([avcHeader(0), video(80, True), video(120)])
    assert timesOf(data) == [0, 80, 120]


def test_anyTimestampsGiveAFileThatCanBeRead():
    seed = 11
    chance = random.Random(seed)
    for _ in range(50):
        muxer = FLVMuxer()
        times = []
        for _ in range(10):
            batch = [
                video(chance.choice((0, 40, 2**31, 2**32, 2**40)) + chance.randrange(9))
                for _ in range(5)
            ]
            times += timesOf(mux(batch, muxer)[0])
        assert len(times) == 50, seed
        assert max(times) <= MAX_TIME, seed


def test_indexThinsByHalves():
    index = KeyFrameIndex(8)
    for n in range(1000):
        index.add(2000 * n, 10 * n)
    assert 4 <= len(index.times) <= 8
    steps = {b - a for a, b in pairwise(index.times)}
    assert len(steps) == 1, "even over the whole file"
    assert index.times[0] == 0
    assert index.times[-1] > 2000 * 700
    assert list(index.positions) == [t // 200 for t in index.times]
    index.add(0, 99_999)
    assert index.positions[-1] != 99_999, "times rise"
    assert index.before(10 * 300)[1][-1] < 3000


def test_audioAloneHasAnIndexUntilVideoComes():
    muxer = FLVMuxer()
    for start in range(0, 20_000, 200):
        mux([audio(start), audio(start + 100)], muxer)
    assert list(muxer.index.times) == [0, 5000, 10_000, 15_000]
    mux([video(20_000, True), video(20_040)], muxer)
    mux([audio(26_000)], muxer)
    assert list(muxer.index.times) == [20_000]


# -- the head ----------------------------------------------------------------


@pytest.mark.parametrize("extra", range(12))
@pytest.mark.parametrize("entries", [0, 1, 2, 500, INDEX_ENTRIES])
def test_headsAreOfOneSizeAndPlainAMF(entries, extra):
    times = [2000 * n for n in range(entries)]
    positions = [HEAD_SIZE + 7 * n for n in range(entries)]
    head = encodeHead({"encoder": "x" * extra}, Kinds(True, False), times, positions)
    assert head.size == len(head.whole()) == HEAD_SIZE
    reader = flv.FLVReader()
    reader.feed(head.whole())
    tag = reader.nextTag()
    assert reader.offset == HEAD_SIZE
    assert (reader.hasAudio, reader.hasVideo) == (True, False)
    assert len(tag.payload) == HEAD_PAYLOAD
    name, values = amf0.decode(tag.payload)  # with its limit of values
    assert name == "onMetaData"
    assert values["encoder"] == "x" * extra
    if entries > 1:
        assert values["keyframes"]["times"] == [t / 1000 for t in times]
        assert values["keyframes"]["filepositions"] == positions
    else:
        assert "keyframes" not in values


def readMetadata(payload):
    properties = propertiesOf(Message(18, 0, 0, payload))
    return None if properties is None else lastingProperties(properties)


def test_metadataThatDoesNotFit():
    with pytest.raises(UsageError):
        encodeHead({"x": "y" * 100_000}, BOTH)
    large = amf0.encode("onMetaData", {"x": "y" * METADATA_BYTES})
    assert readMetadata(large) is None
    assert readMetadata(amf0.encode("onMetaData", "text")) is None
    assert readMetadata(amf0.encode("onMetaData")) is None
    assert readMetadata(b"\x02\x00\x0aonMetaData\x03\x00") is None
    largest = {"x": "y" * (METADATA_BYTES - 20)}
    payload = amf0.encode("onMetaData", ECMAArray(largest))
    assert readMetadata(payload) == largest
    full = range(INDEX_ENTRIES)
    facts = dict.fromkeys(f"fact number {n}" for n in range(20))
    assert encodeHead({**largest, **facts}, BOTH, full, full).size == HEAD_SIZE


def test_theEncodersGuessesAreDropped():
    payload = metadata(duration=0.0, keyframes={}, width=5.0, reservedSpace_=[0.0])
    assert readMetadata(payload.payload) == {"width": 5.0}
