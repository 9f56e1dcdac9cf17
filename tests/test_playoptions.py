"""How a player begins: with the GOP or without, and what it is told."""

from __future__ import annotations

import pytest
from rtmpclient import AVC_FRAME, AVC_HEADER, AVC_KEY_FRAME, DATA, VIDEO, Client
from twisted.internet.task import Clock

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.live.playoptions import PlayOptions
from twisted_rtmp.media.capabilities import UNANNOUNCED


def play(factory, name, **properties):
    client = Client(factory)
    client.connect(**properties)
    client.command("createStream", 2, None)
    client.command("play", 0, None, name, streamId=1)
    return client


def payloads(client, typeId=VIDEO):
    return [reply.payload for reply in client.take() if reply.typeId == typeId]


@pytest.fixture
def publisher():
    client = Client(RTMPFactory(Clock()))
    client.publish("key")
    client.media(VIDEO, AVC_HEADER)
    client.media(VIDEO, AVC_KEY_FRAME)
    client.media(VIDEO, AVC_FRAME, 40)
    return client


@pytest.mark.parametrize(
    ("query", "default", "wanted"),
    [
        ("", True, True),
        ("", False, False),
        ("gop=0", True, False),
        ("token=x&gop=1", False, True),
        ("gop=maybe", True, True),
        ("gop", False, False),
    ],
)
def test_theGOPInTheQuery(query, default, wanted):
    options = PlayOptions.parse(query, UNANNOUNCED, default)
    assert options.gopCache is wanted


def test_aPlayerBeginsWithTheGOP(publisher):
    player = play(publisher.protocol.factory, "key")
    assert payloads(player) == [AVC_HEADER, AVC_KEY_FRAME, AVC_FRAME]


def test_orWithTheNextKeyFrame(publisher):
    player = play(publisher.protocol.factory, "key?gop=0")
    publisher.media(VIDEO, AVC_FRAME, 80)
    publisher.media(VIDEO, AVC_KEY_FRAME, 120)
    assert payloads(player) == [AVC_HEADER, AVC_KEY_FRAME]


def test_ifTheServerIsToldSo():
    factory = RTMPFactory(Clock(), gopCache=False)
    publisher = Client(factory)
    publisher.publish("key")
    publisher.media(VIDEO, AVC_HEADER)
    publisher.media(VIDEO, AVC_KEY_FRAME)
    assert payloads(play(factory, "key")) == [AVC_HEADER]
    assert payloads(play(factory, "key?gop=1")) == [AVC_HEADER, AVC_KEY_FRAME]


@pytest.mark.parametrize("agent", [None, 3.0, "LNX 10,0,32,18", "WIN 32,0,0,465"])
def test_samplesMayBeRead(publisher, agent):
    """What Flash Player and nginx-rtmp's other clients are used to."""
    properties = {} if agent is None else {"flashVer": agent}
    player = play(publisher.protocol.factory, "key", **properties)
    [access] = [reply.values for reply in player.take() if reply.typeId == DATA]
    assert access == ["|RtmpSampleAccess", True, True]


def test_ffmpegIsNotToldSo(publisher):
    """It would show a stream of data that nobody can decode."""
    player = play(publisher.protocol.factory, "key", flashVer="LNX 9,0,124,2")
    assert payloads(player, DATA) == []
