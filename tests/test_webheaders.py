"""The FLV header: how long it waits until a stream has shown what it has."""

from __future__ import annotations

import pytest
from httpclient import Getter, Socket
from rtmpclient import (
    AAC_HEADER,
    AUDIO,
    AVC_FRAME,
    AVC_HEADER,
    AVC_KEY_FRAME,
    DATA,
    VIDEO,
)
from webkit import METADATA, Answers, Publisher, flagsOf

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.live.kinds import SETTLE_FRAMES
from twisted_rtmp.web import HTTPSite
from twisted_rtmp.web.flv import SETTLE_BYTES, SETTLE_SECONDS
from twisted_rtmp.wire import amf0


@pytest.fixture
def factory(clock):
    # Publishers that say nothing while tests wait for players.
    return RTMPFactory(clock, latency=0, limits=ServerLimits(publisherIdleSeconds=1000))


@pytest.fixture
def site(clock, factory):
    return HTTPSite(factory.registry)


@pytest.fixture(params=[Getter, Socket], ids=["response", "socket"])
def play(request):
    return Answers(request.param)


def test_theHeaderWaitsForWhatMetadataPromise(factory, site, play):
    client = play(site)
    publisher = Publisher(factory, headers=False)
    publisher.media(DATA, METADATA)
    publisher.media(VIDEO, AVC_HEADER)
    publisher.media(VIDEO, AVC_KEY_FRAME)
    assert client.tags == []
    publisher.media(AUDIO, AAC_HEADER)
    assert flagsOf(client) == (True, True)
    assert len(client.tags) == 4


@pytest.mark.parametrize(
    ("facts", "payload", "typeId", "flags"),
    [
        ({"videocodecid": 7.0}, AVC_HEADER, VIDEO, (False, True)),
        ({"audiocodecid": 10.0}, AAC_HEADER, AUDIO, (True, False)),
        ({"hasAudio": False, "hasVideo": True}, AVC_HEADER, VIDEO, (False, True)),
        ({"width": 640.0, "audiocodecid": ""}, AVC_HEADER, VIDEO, (False, True)),
    ],
)
def test_oneTrackBeginsAtOnce(factory, site, play, facts, payload, typeId, flags):
    client = play(site)
    publisher = Publisher(factory, headers=False)
    publisher.media(DATA, amf0.encode("onMetaData", facts))
    publisher.media(typeId, payload)
    assert flagsOf(client) == flags
    assert len(client.tags) == 2


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        amf0.encode("onMetaData", {"encoder": "x"}),
        amf0.encode("onMetaData"),
        amf0.encode("onMetaData", 5.0),
        METADATA,
    ],
)
def test_withoutPromisesTheHeaderWaitsAWhile(clock, factory, site, play, metadata):
    client = play(site)
    publisher = Publisher(factory, headers=False)
    clock.advance(5)
    if metadata:
        publisher.media(DATA, metadata)
    publisher.media(VIDEO, AVC_KEY_FRAME)
    clock.advance(SETTLE_SECONDS - 0.1)
    assert client.tags == []
    clock.advance(0.1)
    assert flagsOf(client) == (False, True)
    assert client.tags[-1] == (VIDEO, 0, AVC_KEY_FRAME)


def test_theHeaderWaitsForSoManyBytes(factory, site, play):
    client = play(site)
    publisher = Publisher(factory, headers=False)
    publisher.media(VIDEO, AVC_KEY_FRAME + bytes(SETTLE_BYTES // 2))
    assert client.tags == []
    publisher.media(VIDEO, AVC_FRAME + bytes(SETTLE_BYTES // 2))
    assert flagsOf(client) == (False, True)
    assert len(client.tags) == 2


def test_aStreamThatHasShownWhatItHasIsBelieved(factory, site, play):
    publisher = Publisher(factory, headers=False)
    publisher.media(DATA, METADATA)
    publisher.media(VIDEO, AVC_KEY_FRAME)
    assert play(site).tags == []
    for time in range(1, SETTLE_FRAMES):
        publisher.media(VIDEO, AVC_FRAME, time)
    client = play(site)
    assert flagsOf(client) == (False, True)
    assert len(client.tags) == 1 + SETTLE_FRAMES


def test_playersThatWaitCostNoDecoding(factory, site, play, monkeypatch):
    """Metadata are decoded once, however many players wait for what they promise."""
    calls = []
    decode = amf0.decode

    def counted(payload):
        calls.append(payload)
        return decode(payload)

    properties = {f"property{number}": 0.0 for number in range(5000)}
    metadata = amf0.encode("onMetaData", {"videocodecid": 7.0, **properties})
    publisher = Publisher(factory, headers=False)
    players = [play(site) for _ in range(20)]
    monkeypatch.setattr(amf0, "decode", counted)
    publisher.media(DATA, metadata)
    for time in range(SETTLE_FRAMES - 1):
        publisher.media(AUDIO, AAC_HEADER + bytes(10), time)
    assert not any(player.tags for player in players)
    assert calls.count(metadata) <= 1


def test_whatWaitedForTheHeaderComesBeforeTheEnd(factory, site, play):
    client = play(site)
    publisher = Publisher(factory, headers=False)
    publisher.media(VIDEO, AVC_KEY_FRAME)
    publisher.leave()
    assert client.tags == [(VIDEO, 0, AVC_KEY_FRAME)]
    assert play.ended(client)


def test_aStreamOfNothingIsAnFLVHeader(factory, site, play):
    client = play(site)
    publisher = Publisher(factory, headers=False)
    publisher.leave()
    assert play.ended(client)
    assert flagsOf(client) == (True, True)
    assert client.tags == []
