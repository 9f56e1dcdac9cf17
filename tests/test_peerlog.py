"""The log does not grow by more than its peers have sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from recordingkit import World
from rtmpclient import AUDIO, Client
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.limits import AddressLimits, ServerLimits
from twisted_rtmp.live.addresses import Addresses
from twisted_rtmp.live.counters import Counters
from twisted_rtmp.live.peerlog import LINE_BYTES, PeerLog
from twisted_rtmp.live.policy import Policy
from twisted_rtmp.live.registry import Registry

LIMITS = AddressLimits(logBurst=10 * (LINE_BYTES + 10), logRate=(LINE_BYTES + 10) / 10)


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Written:
    """Writes lines of ten bytes for an address."""

    def __init__(self, clock: Clock, lines: list[str]) -> None:
        self.counters = Counters()
        self._log = PeerLog(Addresses(clock, LIMITS), self.counters)
        self._lines = lines

    def write(self, count: int, host: str = "192.0.2.1", received: int = 0) -> int:
        """Try to write lines; give the number of those that were written."""
        before = len(self._lines)
        for _ in range(count):
            fields = {"what": "56789"}
            self._log.emit(
                Logger(), LogLevel.info, "0123 {what}", fields, host, received
            )
        return len(self._lines) - before


@pytest.fixture
def written(clock: Clock, lines: list[str]) -> Written:
    return Written(clock, lines)


def test_aBurstAndARate(written: Written, clock: Clock, lines: list[str]) -> None:
    assert written.write(50) == 10
    assert written.counters.linesLeftOut == 40
    assert written.write(50, host="192.0.2.2") == 10, "another address has its own"
    clock.advance(10)
    assert written.write(2) == 1
    assert lines[-1].endswith(
        "0123 56789 (40 lines on this address were left out before)"
    )


def test_bytesPayForLines(written: Written) -> None:
    written.write(10)
    assert written.write(5, received=LINE_BYTES + 10) == 5
    assert written.write(10, received=(LINE_BYTES + 10) // 2) == 5


def test_noAddressNoBound(written: Written) -> None:
    assert written.write(50, host="") == 50


def test_aFloodOfNames(clock: Clock, lines: list[str], tmp_path: Path) -> None:
    """Lines on streams, and on their recordings, are paid for, too."""
    limits = ServerLimits(
        streamBurst=100_000, addresses=AddressLimits(logBurst=1000, logRate=0)
    )
    world = World(tmp_path)
    policy = Policy(limits=limits, sinkFactories=[world.recordings])
    registry = Registry(clock, policy)
    factory = RTMPFactory(clock, registry=registry)
    client = Client(factory)
    client.connect()
    for number in range(500):
        client.command("publish", 0, None, f"s{number}", "live", streamId=1)
        client.media(AUDIO, b"\xaf\x01x", streamId=1)
        world.tick(1)
        client.command("closeStream", 0, None, streamId=1)
        world.tick(1)
    received = client.protocol.wire.bytesReceived
    assert len(world.paths()) == 500
    written = sum(len(line) for line in lines)
    assert 0 < written <= received + 1000
    assert registry.counters.linesLeftOut > 500
    client.leave()
    assert world.recordings.stop().called


def test_aPeerThatPlaysAgainAndAgain(clock: Clock, lines: list[str]) -> None:
    """And says something unknown between: the log takes less than it has sent."""
    limits = ServerLimits(
        streamBurst=100_000, addresses=AddressLimits(logBurst=1000, logRate=0)
    )
    factory = RTMPFactory(clock, limits=limits)
    client = Client(factory)
    client.connect()
    for number in range(2000):
        client.command("play", 0, None, f"s{number % 3}", streamId=1)
        client.command(f"unknown{number}", 0, None)
    received = client.protocol.wire.bytesReceived
    written = sum(len(line) for line in lines)
    assert 0 < written <= received + 1000
    assert factory.counters.linesLeftOut > 1000
    client.leave()


def test_aPlayerPaysForTheLinesOnWhatItLoses(clock: Clock, lines: list[str]) -> None:
    """As for all others: it may join again and again to lose something."""
    limits = ServerLimits(addresses=LIMITS)
    factory = RTMPFactory(clock, limits=limits)
    publisher = Client(factory)
    publisher.publish("key")
    player = Client(factory)
    player.connect()
    player.command("createStream", 2, None)
    player.command("play", 0, None, "key", streamId=1)
    [playing] = factory.players("live", "key")
    received = player.protocol.wire.bytesReceived
    before = len(lines)
    for _ in range(1000):
        playing.refusedTracks = 0
        playing.refuse(1)
    told = [line for line in lines[before:] if "is not sent all of" in line]
    assert 1 <= len(told) <= (LIMITS.logBurst + received) / LINE_BYTES
    assert factory.counters.linesLeftOut == 1000 - len(told)
