"""Live streams: what sinks get, and what a publisher feels of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from publisherkit import StubPublisher
from rtmpclient import (
    AAC_FRAME,
    AAC_HEADER,
    AUDIO,
    AVC_FRAME,
    AVC_HEADER,
    AVC_KEY_FRAME,
    DATA,
    VIDEO,
)
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_rtmp.interfaces import IMediaSink
from twisted_rtmp.live.kinds import StreamKinds
from twisted_rtmp.live.pacing import Pacer
from twisted_rtmp.live.selection import EVERYTHING
from twisted_rtmp.live.streams import LiveStream
from twisted_rtmp.live.timeline import GAP_MILLISECONDS
from twisted_rtmp.media.metadata import propertiesOf
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.messages import Message


@implementer(IMediaSink)
class Sink:
    """
    Keeps what it got.

    @ivar do: called with each message.
    @ivar stored: what C{streamEnded} returns.
    """

    def __init__(
        self,
        do: Callable[[Message], object] = lambda message: None,
        stored: Deferred[None] | None = None,
    ) -> None:
        self.payloads: list[bytes] = []
        self.ends = 0
        self.do = do
        self.stored = stored

    def mediaReceived(self, message):
        assert not self.ends, "a message after the end"
        self.payloads.append(message.payload)
        self.do(message)

    def streamEnded(self):
        self.ends += 1
        return self.stored


@pytest.fixture
def publisher() -> StubPublisher:
    return StubPublisher()


@pytest.fixture
def stream(publisher: StubPublisher) -> LiveStream:
    return LiveStream("live", "key", publisher, Pacer(Clock()))


def say(stream: LiveStream, *messages: tuple[int, bytes], at: int = 0) -> None:
    for typeId, payload in messages:
        stream.messageReceived(Message(typeId, at, 1, payload))


def fail(message: Message) -> None:
    raise ZeroDivisionError("a sink's bug")


METADATA = amf0.encode("onMetaData", {"width": 64.0})


def test_interfaces(stream: LiveStream) -> None:
    verifyObject(IMediaSink, Sink())
    verifyObject(IPushProducer, stream.throttle())


# Messages


def test_everythingGoesToEverySink(stream: LiveStream) -> None:
    sinks = [Sink(), Sink()]
    for sink in sinks:
        stream.addSink(sink)
    said = [
        (DATA, METADATA),
        (VIDEO, AVC_HEADER),
        (AUDIO, AAC_HEADER),
        (VIDEO, AVC_KEY_FRAME),
        (AUDIO, AAC_FRAME),
        (VIDEO, b""),
        (AUDIO, b""),
    ]
    say(stream, *said)
    for sink in sinks:
        assert sink.payloads == [payload for _, payload in said]
    received = stream.ledger.received
    assert (received.video, received.audio, received.headers, received.data) == (
        1,
        1,
        4,
        1,
    )
    assert received.size == sum(len(payload) for _, payload in said)
    assert stream.ledger.lost == 0


def test_setDataFrameIsStripped(stream: LiveStream) -> None:
    sink = Sink()
    stream.addSink(sink)
    say(stream, (DATA, amf0.encode("@setDataFrame") + METADATA))
    assert sink.payloads == [METADATA]
    assert stream.metadata is not None
    assert stream.metadata.payload == METADATA


def test_metadataAreDecodedOnce(
    stream: LiveStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks gets what the stream has read; only of the newest it is kept."""
    calls: list[bytes] = []
    decode = amf0.decode

    def counted(payload: bytes) -> list[Any]:
        calls.append(payload)
        return decode(payload)

    monkeypatch.setattr(amf0, "decode", counted)
    messages: list[Message] = []
    stream.addSink(Sink(messages.append))
    assert stream.properties == {}
    said = [amf0.encode("onMetaData", {"width": float(n)}) for n in range(2)]
    for n, payload in enumerate(said):
        say(stream, (DATA, payload))
        assert stream.properties == {"width": float(n)}
        assert propertiesOf(messages[n]) == {"width": float(n)}
        assert StreamKinds(stream, EVERYTHING).settled is False
    assert calls == said
    assert [message.values is None for message in messages] == [True, False]
    say(stream, (DATA, amf0.encode("@clearDataFrame", "onMetaData")))
    assert messages[1].values is None
    assert stream.properties == {}
    say(stream, (DATA, amf0.encode("onMetaData", "none")))
    assert stream.properties == {}


def test_clearDataFrame(stream: LiveStream) -> None:
    sink = Sink()
    stream.addSink(sink)
    say(stream, (DATA, METADATA))
    say(stream, (DATA, amf0.encode("@clearDataFrame", "onMetaData")))
    assert stream.metadata is None
    assert stream.headers() == []
    assert sink.payloads == [METADATA]


def test_otherDataIsPassedOn(stream: LiveStream) -> None:
    """Captions and cue points, also in @setDataFrame, are no metadata."""
    sink = Sink()
    stream.addSink(sink)
    caption = amf0.encode("onCaptionInfo", {"data": "x"})
    say(stream, (DATA, METADATA), (DATA, caption))
    assert sink.payloads == [METADATA, caption]
    assert stream.metadata is not None
    assert stream.metadata.payload == METADATA


@pytest.mark.parametrize(
    ("typeId", "payload", "reason"),
    [
        (VIDEO, b"\x90", "malformed"),
        (DATA, b"\x02\xff", "malformed data"),
        (DATA, b"\x0a" * 100, "malformed data"),
        (DATA, b"", "malformed data"),
        (DATA, amf0.encode(1.0, "onMetaData"), "malformed data"),
        (DATA, amf0.encode("@setDataFrame"), "malformed data"),
        (DATA, amf0.encode("@setDataFrame", None), "malformed data"),
    ],
)
def test_malformed(
    stream: LiveStream, lines: list[str], typeId: int, payload: bytes, reason: str
) -> None:
    """Promise P26: counted and dropped; what follows is passed on."""
    sink = Sink()
    stream.addSink(sink)
    for _ in range(5):
        say(stream, (typeId, payload))
    say(stream, (VIDEO, AVC_KEY_FRAME))
    assert sink.payloads == [AVC_KEY_FRAME]
    assert stream.ledger.discarded == {reason: 5}
    assert stream.ledger.received.messages == 6
    assert sum(f"discarded as {reason} (" in line for line in lines) == 1
    assert stream.headers() == []


def test_timeSteps(stream: LiveStream) -> None:
    """Gaps and backward steps are each track's own."""
    for at in (0, 40, 40 + GAP_MILLISECONDS, 30):
        say(stream, (VIDEO, AVC_FRAME), at=at)
    assert (stream.ledger.gaps, stream.ledger.backwardSteps) == (0, 1)
    say(stream, (AUDIO, AAC_FRAME), at=90_000)
    assert (stream.ledger.gaps, stream.ledger.backwardSteps) == (0, 1)
    say(stream, (AUDIO, AAC_FRAME), at=90_001 + GAP_MILLISECONDS)
    assert (stream.ledger.gaps, stream.ledger.backwardSteps) == (1, 1)


# Sinks


def test_headersFirst(stream: LiveStream) -> None:
    """For a sink that comes amid the stream: the newest of each kind."""
    newer = AVC_HEADER[:-1] + b"\xcf"
    say(
        stream,
        (DATA, METADATA),
        (AUDIO, AAC_HEADER),
        (VIDEO, AVC_HEADER),
        (VIDEO, AVC_KEY_FRAME),
        (VIDEO, newer),
    )
    sink = Sink()
    stream.addSink(sink)
    assert sink.payloads == [METADATA, AAC_HEADER, newer]
    say(stream, (VIDEO, AVC_FRAME))
    assert sink.payloads[3:] == [AVC_FRAME]


def test_sinkRaises(stream: LiveStream, loggedFailures: Any, lines: list[str]) -> None:
    """It is taken off and ended; the others miss nothing."""
    first, bad, last = Sink(), Sink(fail), Sink()
    stream.addSink(first)
    stream.addSink(bad, "fragile")
    stream.addSink(last)
    say(stream, (VIDEO, AVC_KEY_FRAME), (VIDEO, AVC_FRAME))
    assert first.payloads == last.payloads == [AVC_KEY_FRAME, AVC_FRAME]
    assert bad.payloads == [AVC_KEY_FRAME]
    assert bad.ends == 1
    assert len(loggedFailures.take(ZeroDivisionError)) == 1
    assert "live/key: its fragile failed and is taken off" in lines
    stream.end()
    assert (first.ends, bad.ends, last.ends) == (1, 1, 1)


def test_sinkRaisesAtItsHeaders(stream: LiveStream, loggedFailures: Any) -> None:
    say(stream, (VIDEO, AVC_HEADER), (AUDIO, AAC_HEADER))
    bad = Sink(fail)
    stream.addSink(bad)
    assert bad.payloads == [AVC_HEADER]
    assert bad.ends == 1
    assert len(loggedFailures.take(ZeroDivisionError)) == 1
    say(stream, (VIDEO, AVC_FRAME))
    assert bad.payloads == [AVC_HEADER]


def test_sinkRemovesItselfAndRaises(stream: LiveStream, loggedFailures: Any) -> None:
    def leave(message: Message) -> None:
        stream.removeSink(sink)
        raise ZeroDivisionError

    sink = Sink(leave)
    stream.addSink(sink)
    say(stream, (VIDEO, AVC_FRAME), (VIDEO, AVC_FRAME))
    assert sink.payloads == [AVC_FRAME]
    assert sink.ends == 1
    assert len(loggedFailures.take(ZeroDivisionError)) == 1


def test_sinkRemovesAnother(stream: LiveStream) -> None:
    """That one gets no message after its end."""
    victim = Sink()
    stream.addSink(Sink(lambda message: stream.removeSink(victim)))
    stream.addSink(victim)
    last = Sink()
    stream.addSink(last)
    say(stream, (VIDEO, AVC_FRAME))
    assert victim.payloads == []
    assert victim.ends == 1
    assert last.payloads == [AVC_FRAME]


def test_sinkAddsAnother(stream: LiveStream) -> None:
    added: list[Sink] = []

    def add(message: Message) -> None:
        if not added:
            added.append(Sink())
            stream.addSink(added[0])

    stream.addSink(Sink(add))
    say(stream, (VIDEO, AVC_HEADER), (VIDEO, AVC_FRAME))
    assert added[0].payloads == [AVC_HEADER, AVC_FRAME]


def test_removeSink(stream: LiveStream) -> None:
    stored: Deferred[None] = Deferred()
    sink = Sink(stored=stored)
    stream.addSink(sink)
    say(stream, (VIDEO, AVC_FRAME))
    removed: list[object] = []
    stream.removeSink(sink).addCallback(removed.append)
    say(stream, (VIDEO, AVC_FRAME))
    assert sink.payloads == [AVC_FRAME]
    assert removed == []
    stored.callback(None)
    assert removed == [None]
    assert stream.removeSink(sink).called
    assert sink.ends == 1


def test_end(stream: LiveStream) -> None:
    """It waits for every sink, also for those that were taken off before."""
    stored: list[Deferred[None]] = [Deferred(), Deferred()]
    sinks = [Sink(stored=deferred) for deferred in stored]
    for sink in (*sinks, Sink()):
        stream.addSink(sink)
    stream.removeSink(sinks[0])
    ended: list[object] = []
    stream.end().addCallback(ended.append)
    assert [sink.ends for sink in sinks] == [1, 1]
    stored[1].callback(None)
    assert ended == []
    stored[0].callback(None)
    assert ended == [None]


def test_sinkDoesNotEndWell(stream: LiveStream, loggedFailures: Any) -> None:
    class Broken(Sink):
        def streamEnded(self):
            raise ZeroDivisionError

    failing: Deferred[None] = Deferred()
    stream.addSink(Broken())
    stream.addSink(Sink(stored=failing))
    ended: list[object] = []
    stream.end().addCallback(ended.append)
    failing.errback(ZeroDivisionError())
    assert ended == [None]
    assert len(loggedFailures.take(ZeroDivisionError)) == 2


def test_sinkComesTooLate(stream: LiveStream) -> None:
    say(stream, (VIDEO, AVC_HEADER))
    stream.end()
    sink = Sink()
    stream.addSink(sink)
    assert sink.payloads == [AVC_HEADER]
    assert sink.ends == 1


# Throttles


def test_throttlesAreCounted(stream: LiveStream, publisher: StubPublisher) -> None:
    """The publisher is paused from the first one to the last."""
    first, second = stream.throttle(), stream.throttle()
    first.resumeProducing()
    assert publisher.calls == []
    first.pauseProducing()
    first.pauseProducing()
    second.pauseProducing()
    assert publisher.calls == ["pause"]
    assert stream.throttled
    first.resumeProducing()
    first.resumeProducing()
    assert publisher.calls == ["pause"]
    second.stopProducing()
    assert publisher.calls == ["pause", "resume"]
    assert not stream.throttled


def test_endReleasesThePublisher(stream: LiveStream, publisher: StubPublisher) -> None:
    """A sink that still stores must not hold a peer that goes on."""
    throttle = stream.throttle()
    throttle.pauseProducing()
    stream.end()
    assert publisher.calls == ["pause", "resume"]
    throttle.pauseProducing()
    throttle.resumeProducing()
    assert publisher.calls == ["pause", "resume"]
    assert not stream.throttled


def test_label() -> None:
    assert (
        LiveStream("a", "b\r\n\x1b", StubPublisher(), Pacer(Clock())).label
        == "a/b\\r\\n\\x1b"
    )
