"""The memory budget: who is charged for what, and who gives up past a bound."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
from httpclient import Getter
from rtmpclient import AUDIO, AVC_FRAME, AVC_KEY_FRAME, VIDEO, Client
from twisted.internet.task import Clock

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.limits import (
    ALL_HEADER_BYTES,
    MemoryLimits,
    QueueLimits,
    ServerLimits,
)
from twisted_rtmp.live.budget import (
    CONNECTION_BYTES,
    PLAY_BYTES,
    Account,
    Budget,
    Share,
)
from twisted_rtmp.live.registry import MEMORY_LOG_SECONDS
from twisted_rtmp.live.snapshot import snapshot
from twisted_rtmp.settings import wireLimits
from twisted_rtmp.web import HTTPSite
from twisted_rtmp.wire.connection import Connection, Role
from twisted_rtmp.wire.constants import NEED_DATA
from twisted_rtmp.wire.limits import MIB
from twisted_rtmp.wire.messages import Message

KIB = 1024

LIMITS = MemoryLimits(
    connectionBytes=1 * MIB,
    addressBytes=2 * MIB,
    streamBytes=1 * MIB,
    serverBytes=8 * MIB,
)


class Holder:
    """
    Keeps what a test says.

    @ivar reasons: for which it had to give up.
    """

    def __init__(
        self,
        budget: Budget,
        host: str = "",
        size: int = 0,
        *,
        isPublishing: bool = False,
    ) -> None:
        self.isPublishing = isPublishing
        self.reasons: list[str] = []
        self.account: Account = budget.connection(self, host)
        self.share: Share = self.account.share(forAddress=True)
        self.share.set(size)

    def giveUp(self, why: str) -> None:
        self.reasons.append(why)
        self.account.close()


@pytest.fixture
def budget() -> Budget:
    return Budget(LIMITS)


# Accounts


def test_everythingIsChargedOnceAndRefunded(budget: Budget) -> None:
    one, two = Holder(budget, "a", 100), Holder(budget, "a", 50)
    more = one.account.share()
    more.set(30)
    assert one.account.bytes == 130
    assert budget.ofAddress("a") == 150
    assert budget.used == 180 + 2 * CONNECTION_BYTES
    one.share.set(20)
    assert budget.ofAddress("a") == 70
    one.account.close()
    more.set(1000)
    one.share.set(1000)
    assert budget.used == 50 + CONNECTION_BYTES
    two.account.close()
    assert budget.used == budget.ofAddress("a") == 0
    assert budget.addresses(10) == []


def test_aProxyTellsTheAddressLater(budget: Budget) -> None:
    holder = Holder(budget, "proxy", 100)
    holder.account.moveTo("peer")
    holder.share.set(300)
    assert budget.addresses(10) == [("peer", 300)]
    holder.account.close()
    assert budget.addresses(10) == []


def test_anAccountThatIsHeldStaysOpen(budget: Budget) -> None:
    holder = Holder(budget, "", 100)
    holder.account.hold()
    holder.account.close()
    assert budget.used > 0
    holder.account.close()
    assert budget.used == 0


# Bounds


def test_aConnectionPastItsBoundGivesUp(budget: Budget) -> None:
    one, two = Holder(budget, "a", MIB), Holder(budget, "b", MIB)
    assert not one.reasons
    one.share.set(MIB + 100_000)
    assert one.reasons == ["it takes 1.1 of 1 MiB of memory"]
    assert not two.reasons
    assert budget.gaveUp == 1


def test_ofAnAddressTheLargestGivesUp(budget: Budget) -> None:
    size = 900 * KIB
    publisher = Holder(budget, "a", size, isPublishing=True)
    large = Holder(budget, "a", size // 2)
    small = [Holder(budget, "a", 10 * KIB) for _ in range(20)]
    other = Holder(budget, "b", MIB)
    assert not large.reasons
    last = Holder(budget, "a", size)
    assert last.reasons == ["its address takes 2.4 of 2 MiB of memory"]
    for holder in (publisher, large, other, *small):
        assert not holder.reasons


def test_aPublisherGivesUpAfterAllOthersOfItsAddress(budget: Budget) -> None:
    small = [Holder(budget, "a", 100 * KIB) for _ in range(5)]
    publishers = [
        Holder(budget, "a", size * KIB, isPublishing=True) for size in (720, 700, 200)
    ]
    assert sum(bool(holder.reasons) for holder in small) == 2
    assert not any(holder.reasons for holder in publishers)
    publishers.append(Holder(budget, "a", 600 * KIB, isPublishing=True))
    assert all(holder.reasons for holder in small)
    assert [len(holder.reasons) for holder in publishers] == [1, 0, 0, 0]


def test_ofAllTheLargestGivesUpAndPublishersStay(budget: Budget) -> None:
    publishers = [Holder(budget, f"p{n}", MIB, isPublishing=True) for n in range(4)]
    large = [Holder(budget, f"l{n}", 800 * KIB) for n in range(2)]
    small = [Holder(budget, f"s{n}", 40 * KIB) for n in range(30)]
    assert budget.used < 7.5 * MIB
    assert not any(holder.reasons for holder in large)
    small += [Holder(budget, f"t{n}", 40 * KIB) for n in range(10)]
    assert [bool(holder.reasons) for holder in large] == [True, False]
    assert large[0].reasons == ["all peers take 7.5 of 8 MiB of memory"]
    assert not any(holder.reasons for holder in (*publishers, *small))
    assert not budget.isFull


def test_wherePublishersTakeAllNewcomersAreRefused(budget: Budget) -> None:
    """They may go on up to the bound itself; then the largest one is cut."""
    sizes = [MIB - 100 * n for n in range(7)] + [600 * KIB]
    publishers = [
        Holder(budget, str(n), size, isPublishing=True) for n, size in enumerate(sizes)
    ]
    assert budget.isFull
    assert not any(holder.reasons for holder in publishers)
    for size in range(600 * KIB, MIB, 1000):
        publishers[-1].share.set(size)
    assert [bool(holder.reasons) for holder in publishers] == [True] + [False] * 7
    assert not budget.isFull


def test_accountsAreNotSearchedForEachByte(budget: Budget) -> None:
    """Where nobody can give anything up."""
    looks = 0

    class Looked(Holder):
        @property
        def isPublishing(self) -> bool:
            nonlocal looks
            looks += 1
            return True

        @isPublishing.setter
        def isPublishing(self, value: bool) -> None: ...

    holders = [Looked(budget, str(n), 960 * KIB) for n in range(8)]
    assert budget.isFull
    looks = 0
    for size in range(960 * KIB, 980 * KIB, 10):
        holders[0].share.set(size)
    assert looks <= len(holders)


def test_itIsSaidOnceThatMemoryGetsShort() -> None:
    told: list[int] = []
    budget = Budget(LIMITS, lambda: told.append(budget.used))
    holders = [Holder(budget, str(n), MIB, isPublishing=True) for n in range(6)]
    assert not told
    holders.append(Holder(budget, "6", MIB, isPublishing=True))
    holders[-1].share.set(MIB - 100)
    holders[-1].share.set(MIB)
    assert len(told) == 1
    holders[-1].share.set(0)
    holders[-1].share.set(MIB)
    assert len(told) == 2


# Streams

KEY_FRAME = AVC_KEY_FRAME + bytes(100_000)
FRAME = AVC_FRAME + bytes(100_000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def factory(clock: Clock) -> RTMPFactory:
    return RTMPFactory(clock)


def playing(factory: RTMPFactory, name: str = "key", *, taking: bool = True) -> Client:
    """A client that plays, and maybe takes nothing of what comes."""
    client = Client(factory)
    client.connect()
    client.command("createStream", 2, None)
    client.take()
    client.transport.taking = taking
    client.command("play", 0, None, name, streamId=1)
    return client


def streamBytes(factory: RTMPFactory) -> int:
    """What the only stream is charged."""
    [stream] = factory.streams.values()
    return stream.keptBytes


def test_theGOPIsCharged(factory: RTMPFactory) -> None:
    source = Client(factory)
    source.publish()
    source.media(VIDEO, KEY_FRAME)
    assert 100_000 < streamBytes(factory) < 500_000
    for number in range(1, 20):
        source.media(VIDEO, FRAME, number * 40)
    assert 2_000_000 < streamBytes(factory) < 2_500_000
    source.media(VIDEO, KEY_FRAME, 2000)
    assert streamBytes(factory) < 500_000
    source.leave()
    assert factory.registry.budget.used == 0


def test_headersAreCharged(factory: RTMPFactory) -> None:
    source = Client(factory)
    source.publish()
    for track in range(32):
        header = b"\x96\x00avc1" + bytes((track,)) + bytes(50_000)
        source.media(VIDEO, header)
    assert ALL_HEADER_BYTES * 9 // 10 < streamBytes(factory) <= ALL_HEADER_BYTES


def test_whatAllPlayersWaitForIsChargedOnce(factory: RTMPFactory) -> None:
    source = Client(factory)
    source.publish()
    viewers = [playing(factory, taking=False) for _ in range(20)]
    for number in range(25):
        source.media(VIDEO, FRAME if number else KEY_FRAME, number * 40)
    source.media(VIDEO, KEY_FRAME, 1000)
    for number in range(20):
        source.media(VIDEO, FRAME, 1040 + 40 * number)
    queued = max(player.queuedBytes for player in factory.players("live", "key"))
    assert queued > 2_000_000
    assert streamBytes(factory) < 2 * queued
    for viewer in viewers:
        viewer.leave()
    source.leave()
    assert factory.registry.budget.used == 0


def test_whatIsLeftOfAStreamIsChargedUntilItIsTaken(factory: RTMPFactory) -> None:
    source = Client(factory)
    source.publish()
    viewers = [playing(factory, taking=False) for _ in range(2)]
    for number in range(25):
        source.media(VIDEO, FRAME if number else KEY_FRAME, number * 40)
    source.leave()
    budget = factory.registry.budget
    kept = budget.used
    assert kept > 2_000_000
    viewers[0].leave()
    assert budget.used > kept - 300_000
    viewers[1].transport.taking = True
    viewers[1].take()
    assert budget.used < 200_000


def test_aStreamPastItsBoundLosesWhatWaits(clock: Clock, lines: list[str]) -> None:
    """Its publisher stays, and so do its players."""
    limits = ServerLimits(memory=replace(MemoryLimits(), streamBytes=3 * MIB))
    factory = RTMPFactory(clock, limits=limits)
    source = Client(factory)
    source.publish()
    viewers = [playing(factory, taking=False), playing(factory)]
    got = 0
    for number in range(80):
        source.media(VIDEO, FRAME if number % 20 else KEY_FRAME, number * 40)
        assert streamBytes(factory) <= 3.2 * MIB
        got += len([reply for reply in viewers[1].take() if reply.typeId == VIDEO])
    assert source.open
    assert all(viewer.open for viewer in viewers)
    [line] = [line for line in lines if "loses its cached GOP" in line]
    assert "live/key" in line
    assert "of 3 MiB of memory" in line
    assert got == 80, "who keeps up loses nothing"


def test_whatAPlayerWantsNoMoreDoesNotWait(factory: RTMPFactory) -> None:
    source = Client(factory)
    source.publish()
    viewer = playing(factory, taking=False)
    for number in range(20):
        source.media(VIDEO, FRAME if number else KEY_FRAME, number * 40)
        source.media(AUDIO, b"\xaf\x01" + bytes(50_000), number * 40)
    [player] = factory.players("live", "key")
    assert player.queuedBytes > 2_500_000
    player.receive(video=False)
    assert 500_000 < player.queuedBytes < 1_100_000
    player.receive(audio=False)
    assert player.queuedBytes == 0
    assert player.dropped == 0
    assert viewer.open


def test_anOldBeginningIsNotKept(clock: Clock) -> None:
    """Each newcomer could make the server keep a GOP that no other one has."""
    limits = ServerLimits(playerQueue=QueueLimits(bytes=500_000))
    factory = RTMPFactory(clock, limits=limits)
    source = Client(factory)
    source.publish()
    for number in range(20):
        source.media(VIDEO, FRAME if number else KEY_FRAME, number * 40)
    playing(factory, taking=False)
    [player] = factory.players("live", "key")
    assert player.queuedBytes > 1_000_000
    player.receive(audio=False)
    for number in range(40):
        source.media(AUDIO, b"\xaf\x01" + bytes(50_000), number * 40)
    assert player.queuedBytes < 600_000


# The server


def fill(factory: RTMPFactory, size: int) -> Holder:
    """Let somebody who cannot give up take so much memory."""
    holder = Holder(factory.registry.budget, "other", isPublishing=True)
    holder.account.limit = 1 << 40
    share = holder.account.share()
    share.set(size)
    return holder


def test_newcomersAreRefusedWhenMemoryIsShort(clock: Clock, lines: list[str]) -> None:
    factory = RTMPFactory(clock, limits=ServerLimits(memory=LIMITS))
    source, viewer, late = Client(factory), Client(factory), Client(factory)
    source.publish()
    source.media(VIDEO, AVC_KEY_FRAME)
    for client in (viewer, late):
        client.connect()
        client.command("createStream", 2, None)
        client.take()
    other = fill(factory, int(7.6 * MIB))
    assert Client(factory).turnedAway
    viewer.command("play", 0, None, "key", streamId=1)
    late.command("publish", 0, None, "late", streamId=1)
    assert not viewer.open
    assert not late.open
    assert "NetStream.Play.Failed" in viewer.codes()
    source.media(VIDEO, AVC_FRAME, 40)
    assert source.open
    assert len([line for line in lines if "MiB of memory that they may" in line]) == 1
    other.account.close()
    assert not Client(factory).turnedAway
    assert playing(factory).open


def test_itIsSaidNowAndThenThatMemoryIsShort(clock: Clock, lines: list[str]) -> None:
    factory = RTMPFactory(clock, limits=ServerLimits(memory=LIMITS))
    for seconds in (0, 1, MEMORY_LOG_SECONDS):
        clock.advance(seconds)
        fill(factory, int(7.2 * MIB)).account.close()
    assert len([line for line in lines if "MiB of memory that they may" in line]) == 2


def test_theSnapshotShowsWhatIsUsed(factory: RTMPFactory) -> None:
    source = Client(factory)
    source.publish()
    source.media(VIDEO, KEY_FRAME)
    state = snapshot(factory.registry)
    assert state["memory"]["used"] > 100_000
    assert state["memory"]["limit"] == 2048 * MIB
    assert state["streams"][0]["keptBytes"] == streamBytes(factory)


def test_anEndedStreamIsFreeWithoutACollection(factory: RTMPFactory) -> None:
    """No circle is left, in which its messages would wait for the collector."""
    source = Client(factory)
    source.publish()
    source.media(VIDEO, KEY_FRAME)
    viewer = playing(factory)
    viewer.take()
    [stream] = factory.streams.values()
    kept = weakref.ref(stream)
    del stream
    gc.collect()
    gc.disable()
    try:
        source.leave()
        assert kept() is None
    finally:
        gc.enable()


# Connections


def unfinished(client: Client, size: int, csid: int = 20) -> None:
    """Send so much of a message that never ends, of a size that may be."""
    chunkSize = 1 << 24
    client.connection.sendChunkSize(chunkSize)
    client.flush()
    client.sendBytes(
        bytes((csid,))
        + bytes(3)
        + (size + 1).to_bytes(3, "big")
        + bytes((VIDEO,))
        + bytes(4)
        + bytes(size)
    )


def host(factory: RTMPFactory, address: str = "198.51.100.7") -> int:
    """What an address is charged."""
    return factory.registry.budget.ofAddress(address)


def test_unfinishedMessagesAreCharged(factory: RTMPFactory) -> None:
    client = Client(factory)
    client.connect()
    before = host(factory)
    unfinished(client, 5 * MIB)
    assert host(factory) == before + 5 * MIB
    client.sendBytes(bytes(1))
    assert host(factory) == before
    unfinished(client, 100_000)
    client.leave()
    assert host(factory) == factory.registry.budget.used == 0


def test_playersWithUnfinishedMessagesAreCut(
    factory: RTMPFactory, lines: list[str]
) -> None:
    """Of one address together; who sends nothing stays, and so does the publisher."""
    source = Client(factory)
    source.publish()
    source.media(VIDEO, AVC_KEY_FRAME)
    unfinished(source, 300_000)
    honest = [playing(factory) for _ in range(20)]
    greedy = [playing(factory) for _ in range(20)]
    for client in greedy:
        unfinished(client, 7 * MIB)
        assert host(factory) <= 64 * MIB
    assert sum(client.open for client in greedy) == 8
    assert all(client.open for client in (source, *honest))
    source.sendBytes(bytes(1))
    source.media(VIDEO, AVC_KEY_FRAME, 40)
    for client in honest:
        assert [r for r in client.take() if r.payload == AVC_KEY_FRAME]
    cut = [line for line in lines if "is cut: its address takes" in line]
    assert len(cut) == 12
    assert factory.counters.cut == 12
    assert "of 64 MiB of memory" in cut[0]


def test_manyConnectionsThatKeepALittle(factory: RTMPFactory) -> None:
    """A quarter of a MiB each is too much of a thousand, for one address."""
    source = Client(factory)
    source.publish()
    source.media(VIDEO, AVC_KEY_FRAME)
    many = [Client(factory) for _ in range(300)]
    for client in many:
        client.connect()
        unfinished(client, 256 * KIB)
        assert host(factory) <= 64 * MIB
    assert source.open
    assert sum(client.open for client in many) < 260


def test_anAggregateIsKeptUntilItsLastMessage() -> None:
    """Others may have their turn meanwhile."""
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    client.start()
    for _ in range(2):
        server.feed(client.dataToSend())
        server.nextEvent()
        client.feed(server.dataToSend())
        client.nextEvent()
    part = bytes((AUDIO,)) + (100).to_bytes(3, "big") + bytes(7) + bytes(100 + 4)
    client.sendMessage(Message(22, 0, 1, part * 2), 4)
    server.feed(client.dataToSend())
    for _ in range(2):
        assert isinstance(server.nextEvent(), Message)
        assert server.keptBytes == len(part) * 2
    assert server.nextEvent() is NEED_DATA
    assert server.keptBytes == 0


def test_whatALargerMessageNeedsIsAllowed(clock: Clock) -> None:
    limits = ServerLimits(wire=wireLimits(messageSize=15 * MIB))
    factory = RTMPFactory(clock, limits=limits)
    client = Client(factory)
    client.connect()
    unfinished(client, 14 * MIB)
    assert client.open


def test_manyPlayersOfOneAddress(clock: Clock) -> None:
    """Behind a proxy or of a load test: nobody is cut, however slow they are."""
    memory = replace(MemoryLimits(), addressBytes=2 * MIB)
    factory = RTMPFactory(clock, limits=ServerLimits(memory=memory))
    source = Client(factory)
    source.publish()
    source.media(VIDEO, KEY_FRAME)
    viewers = [playing(factory, taking=bool(n % 2)) for n in range(100)]
    for number in range(1, 31):
        source.media(VIDEO, FRAME, number * 40)
    assert source.open
    assert all(viewer.open for viewer in viewers)
    assert streamBytes(factory) < 8 * MIB
    assert host(factory) < MIB


def test_whatIsKeptOfConnectIsCharged(factory: RTMPFactory) -> None:
    client = Client(factory)
    client.connect(flashVer="x" * 1000 + "\N{PILE OF POO}", numbers=[1.0] * 100)
    assert 7500 < host(factory) < 12_000
    client.leave()
    assert host(factory) == 0


def test_playsThatWaitAreCharged(factory: RTMPFactory) -> None:
    client = Client(factory)
    client.connect()
    before = host(factory)
    for streamId in range(1, 11):
        client.command("play", 0, None, f"missing{streamId}", streamId=streamId)
    assert host(factory) == before + 10 * PLAY_BYTES
    for streamId in range(1, 11):
        client.command("closeStream", 0, None, streamId=streamId)
    assert host(factory) == before


def test_theRestOfAStreamIsNotKeptForEver(clock: Clock, lines: list[str]) -> None:
    """By HTTP, where a byte now and then is enough to be no dead peer."""
    factory = RTMPFactory(clock, limits=ServerLimits(drainSeconds=1000))
    source = Client(factory)
    source.publish()
    source.media(VIDEO, KEY_FRAME)
    getter = Getter(HTTPSite(factory.registry), "/live/key.flv")
    getter.transport.taking = False
    for number in range(1, 20):
        source.media(VIDEO, FRAME, number * 40)
    source.leave()
    budget = factory.registry.budget
    assert budget.used > 500_000
    clock.advance(59)
    assert getter.open
    clock.advance(1)
    assert getter.transport.aborted
    assert budget.used == 0
    assert any("has not taken the rest of its stream in 60 s" in line for line in lines)
    assert clock.getDelayedCalls() == []
