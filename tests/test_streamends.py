"""What a stream kept is free when it has ended, without a collection of garbage."""

from __future__ import annotations

import gc
import weakref

import pytest
from httpclient import Getter, Socket
from rtmpclient import (
    AAC_FRAME,
    AAC_HEADER,
    AUDIO,
    AVC_FRAME,
    AVC_HEADER,
    AVC_KEY_FRAME,
    DATA,
    VIDEO,
    Client,
)

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.web import HTTPSite
from twisted_rtmp.wire import amf0

METADATA = amf0.encode("onMetaData", {"width": 64.0})


def byRTMP(site, factory):
    client = Client(factory)
    client.connect()
    client.command("createStream", 2.0, None)
    client.command("play", 0.0, None, "key", streamId=1)
    return client


def byHTTP(site, factory):
    return Getter(site, "/live/key.flv")


def byWebSocket(site, factory):
    return Socket(site, "/live/key.flv")


@pytest.fixture
def uncollected():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("play", [byRTMP, byHTTP, byWebSocket])
@pytest.mark.parametrize("grace", [0, 5])
@pytest.mark.parametrize("slow", [False, True], ids=["", "slow"])
@pytest.mark.parametrize("leavesFirst", [False, True], ids=["", "player first"])
def test_nothingIsLeft(clock, play, grace, slow, leavesFirst):
    factory = RTMPFactory(clock, latency=0, grace=grace)
    site = HTTPSite(factory.registry)
    source = Client(factory)
    source.publish("key")
    source.media(DATA, METADATA)
    source.media(VIDEO, AVC_HEADER)
    source.media(AUDIO, AAC_HEADER)
    source.media(VIDEO, AVC_KEY_FRAME)
    client = play(site, factory)
    client.transport.taking = not slow
    source.media(VIDEO, AVC_KEY_FRAME + bytes(100_000))
    clock.advance(0)
    for time in range(0, 400, 40):
        source.media(VIDEO, AVC_FRAME, time)
        source.media(AUDIO, AAC_FRAME, time)
        clock.advance(0)
        client.pump()
    [stream] = factory.streams.values()
    [player] = stream.players.everyone()
    assert bool(player.queuedBytes) is slow
    kept = [
        weakref.ref(each)
        for each in (stream, stream.players, stream.players.gop, player, player.queue)
    ]
    del stream, player
    if leavesFirst:
        client.leave()
    source.leave()
    clock.advance(grace)
    assert factory.streams == {}
    client.leave()
    assert [each() for each in kept] == [None] * len(kept)
