"""The books of a stream, and the line that they make in the log."""

from __future__ import annotations

import pytest
from rtmpclient import AAC_FRAME, AAC_HEADER, AVC_HEADER, AVC_KEY_FRAME

from twisted_rtmp.ledger import Ledger, MediaCounts
from twisted_rtmp.media import payloads as media
from twisted_rtmp.wire.messages import Message


def counted(*messages: tuple[int, bytes]) -> MediaCounts:
    counts = MediaCounts()
    for typeId, payload in messages:
        message = Message(typeId, 0, 1, payload)
        message.flags = 0 if typeId == 18 else media.flagsOf(typeId, payload)
        counts.count(message)
    return counts


def figures(counts: MediaCounts) -> tuple[int, ...]:
    return (counts.video, counts.audio, counts.headers, counts.data, counts.size)


@pytest.mark.parametrize(
    ("typeId", "payload", "expected"),
    [
        (9, AVC_KEY_FRAME, (1, 0, 0, 0, len(AVC_KEY_FRAME))),
        (8, AAC_FRAME, (0, 1, 0, 0, len(AAC_FRAME))),
        (9, AVC_HEADER, (0, 0, 1, 0, len(AVC_HEADER))),
        (8, AAC_HEADER, (0, 0, 1, 0, len(AAC_HEADER))),
        (9, b"", (0, 0, 1, 0, 0)),
        (8, b"", (0, 0, 1, 0, 0)),
        (18, b"\x05", (0, 0, 0, 1, 1)),
    ],
)
def test_count(typeId: int, payload: bytes, expected: tuple[int, ...]) -> None:
    counts = counted((typeId, payload))
    assert figures(counts) == expected
    assert counts.messages == 1


def test_add() -> None:
    counts = counted((9, AVC_KEY_FRAME), (18, b"\x05"))
    counts.add(counted((8, AAC_FRAME), (8, AAC_HEADER)))
    size = len(AVC_KEY_FRAME) + 1 + len(AAC_FRAME) + len(AAC_HEADER)
    assert figures(counts) == (1, 1, 1, 1, size)
    assert counts.messages == 4
    assert repr(counts) == (
        f"<MediaCounts 1 video 1 audio 1 headers 1 data, {size} bytes>"
    )


def test_summaryOfNothing() -> None:
    assert Ledger().summary() == "0 video 0 audio received, 0 lost"


def test_summaryOfARecording() -> None:
    ledger = Ledger()
    ledger.received.video, ledger.received.audio = 60, 87
    written = ledger.writer("recording")
    written.video, written.audio = 60, 87
    assert ledger.summary() == "60 video 87 audio received, 60 and 87 written, 0 lost"


def test_summaryOfTrouble() -> None:
    ledger = Ledger()
    ledger.received.video, ledger.received.audio = 3, 2
    ledger.writer("recording").video = 1
    ledger.writer("pipe").audio = 2
    ledger.discard("malformed")
    ledger.discard("disk full", 4)
    ledger.discard("malformed")
    ledger.discard("never", 0)
    ledger.gaps, ledger.backwardSteps = 1, 5
    assert ledger.lost == 6
    assert ledger.summary() == (
        "3 video 2 audio received, 1 and 0 written, 0 and 2 written to pipe,"
        " 6 lost (2 malformed, 4 disk full), 1 gaps and 5 backward steps in time"
    )


def test_writersOfOneNameShare() -> None:
    """A recording in several files is one line in the books."""
    ledger = Ledger()
    assert ledger.writer("recording") is ledger.writer("recording")
    assert ledger.writer("recording") is not ledger.writer("pipe")
