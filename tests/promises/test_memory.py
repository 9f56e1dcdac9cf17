"""P1, P2, P6 to P12, P16: what a peer may make the server keep."""

from __future__ import annotations

import contextlib
import threading

import pytest
from promiseserver import KIB, MIB
from scriptedpeer import (
    COMMAND,
    COMMAND_AMF3,
    DATA,
    DATA_AMF3,
    VIDEO,
    Peer,
    amf,
    basicHeader,
    command,
    header,
    message,
    numberedFrame,
    setChunkSize,
    tagsOf,
)

#: Nobody is cut for being idle, however slow the machine is at an attack.
OPTIONS = ("--drain-timeout=1", "--idle-timeout=120", "--publisher-idle=120")

NUMBER = amf(1.0)
OBJECT_END = b"\x00\x00\x09"


# P6, P7, P8


def test_declaredLengthsCostNothing(server, honest):
    before = server.resetPeak()
    with contextlib.ExitStack() as peers:
        for _ in range(50):
            peer = peers.enter_context(Peer(server.port)).open()
            peer.setChunkSize(1)
            for csid in range(10, 50):
                # 8 MB are told, 1 byte comes: 16 GB for all of them.
                peer.send(header(csid, VIDEO, 8 * MIB) + b"\x17")
            peer.ping(1)
        assert server.peak - before <= 32 * MIB


def test_messageOverTheLimitIsCut(server, honest):
    with Peer(server.port) as peer:
        peer.open()
        peer.trySend(header(6, VIDEO, 8 * MIB + 1))
        peer.waitForCut()
    server.waitFor(f"{peer.address} is cut for a protocol error: .* over the limit")


def test_messageAtTheLimitIsTaken(server, honest):
    with Peer(server.port) as peer:
        peer.publishes("largest")
        peer.setChunkSize(1 << 20)
        frame = numberedFrame(0, 8 * MIB)
        peer.sendMedia(VIDEO, frame)
        peer.end()
    server.waitFor("live/largest ended after")
    assert (VIDEO, 0, frame) in tagsOfRecording(server, "live/largest-")


def tagsOfRecording(server, start):
    return tagsOf(server.recorded(start))


def test_manyChunkStreamsAreCut(server, honest):
    with Peer(server.port) as peer:
        peer.open()
        peer.setChunkSize(1)
        for csid in range(3, 200):
            if not peer.trySend(header(csid, VIDEO, 100) + b"\x17"):
                break
        peer.waitForCut()
    server.waitFor(f"{peer.address} is cut for a protocol error: .*chunk streams")


def test_chunkStreamsOfEveryFormWork(server, honest):
    with Peer(server.port) as peer:
        peer.publishes("forms")
        frames = []
        for number, csid in enumerate((4, 63, 64, 319, 320, 65599)):
            frame = numberedFrame(number, 300)
            peer.send(message(csid, VIDEO, frame, number * 40, 1))
            frames.append((VIDEO, number * 40, frame))
        peer.end()
    server.waitFor("live/forms ended after")
    tags = tagsOfRecording(server, "live/forms-")
    assert [tag for tag in tags if tag[0] == VIDEO] == frames


def test_unfinishedMessagesAreBoundedTogether(server, honest):
    before = server.resetPeak()
    with Peer(server.port) as peer:
        peer.open()
        peer.send(setChunkSize(4 * MIB))
        for csid in range(4, 20):
            # Each 1 byte short of its end.
            size = 4 * MIB + 1
            if not peer.trySend(header(csid, VIDEO, size) + bytes(size - 1)):
                break
        peer.waitForCut()
    # The bound of unfinished messages, or the same one of all that a connection keeps:
    # it depends on where reads end which is passed first.
    server.waitFor(
        f"{peer.address} is cut(: it takes 12.0 of 12 MiB| for .*unfinished)"
    )
    assert server.peak - before <= 32 * MIB


# P10


@pytest.mark.parametrize("size", [0, 0x80000000, 0xFFFFFFFF, 0x80000080])
def test_chunkSizeThatIsNoneIsCut(server, honest, size):
    with Peer(server.port) as peer:
        peer.open()
        peer.send(message(2, 1, size.to_bytes(4, "big")))
        peer.waitForCut()
    server.waitFor(f"{peer.address} is cut for a protocol error: .*chunk size")


@pytest.mark.parametrize("size", [1, 2, 127, 65536, 0xFFFFFF, 0x1000000, 0x7FFFFFFF])
def test_everyLegalChunkSizeWorks(server, honest, size):
    name = f"chunks{size}"
    with Peer(server.port) as peer:
        peer.publishes(name)
        peer.setChunkSize(size)
        frames = []
        for number in range(5):
            frames.append((VIDEO, number * 40, numberedFrame(number, 3000)))
            peer.sendMedia(VIDEO, frames[-1][2], frames[-1][1])
        peer.end()
    server.waitFor(f"live/{name} ended after")
    tags = tagsOfRecording(server, f"live/{name}-")
    assert [tag for tag in tags if tag[0] == VIDEO] == frames


def test_chunksOfOneByteCostTheirBytes(server, honest):
    size = 6 * MIB
    with Peer(server.port) as peer:
        peer.publishes("onebyte")
        before = server.resetPeak()
        peer.setChunkSize(1)
        # All but the end of it, in 6 million chunks.
        start = header(6, VIDEO, size + 1, 0, 1) + b"\x17"
        peer.send(start + b"\xc6\x00" * (size - 1))
        peer.ping(1)
        # Twice the bytes, and what the honest stream beside it moves.
        assert server.peak - before <= 2 * size + 8 * MIB


def test_manyUnfinishedChunksInTurn(server, honest):
    """Interleaved chunks of 1 byte, on as many chunk streams as there may be."""
    with Peer(server.port) as peer:
        peer.open()
        before = server.resetPeak()
        peer.setChunkSize(1)
        csids = range(4, 60)
        peer.send(b"".join(header(csid, VIDEO, 1 * MIB) + b"\x17" for csid in csids))
        turn = b"".join(basicHeader(3, csid) + b"\x00" for csid in csids)
        peer.send(turn * 10_000)
        peer.ping(1)
        assert server.peak - before <= 16 * MIB


# P11


def nestedObjects(depth):
    return b"\x03\x00\x01a" * depth + NUMBER + OBJECT_END * depth


def nestedArrays(depth):
    return b"\x0a\x00\x00\x00\x01" * depth + NUMBER


def nestedMixed(depth):
    level = b"\x08\x00\x00\x00\x01\x00\x01a" + b"\x0a\x00\x00\x00\x01"
    return level * (depth // 2) + NUMBER + OBJECT_END * (depth // 2)


def amf3Arrays(depth):
    """AMF3 behind AMF0's switch: dense arrays of one element."""
    return b"\x11" + b"\x09\x03\x01" * depth + b"\x04\x01"


def amf3Objects(depth):
    return b"\x11" + b"\x0a\x0b\x01\x03a" + b"\x0a\x01\x03a" * depth + b"\x04\x01"


def referencesToReferences(levels=60):
    """Arrays that name the one before twice: 2^60 values, if they were followed."""
    data = b"\x0a" + levels.to_bytes(4, "big") + b"\x0a\x00\x00\x00\x02" + NUMBER * 2
    for number in range(1, levels):
        reference = b"\x07" + number.to_bytes(2, "big")
        data += b"\x0a\x00\x00\x00\x02" + reference * 2
    return data


def amf3References(levels=60):
    data = (
        b"\x11\x09"
        + bytes((levels << 1 | 1,))
        + b"\x01"
        + b"\x09\x05\x01\x04\x01\x04\x01"
    )
    for number in range(1, levels):
        reference = b"\x09" + bytes((number << 1,))
        data += b"\x09\x05\x01" + reference * 2
    return data


BOMBS = {
    "objects": nestedObjects(100_000),
    "objectsWithoutEnd": b"\x03\x00\x01a" * 1_000_000,
    "arrays": nestedArrays(100_000),
    "mixed": nestedMixed(100_000),
    "depth33": nestedObjects(33),
    "amf3Arrays": amf3Arrays(100_000),
    "amf3Objects": amf3Objects(100_000),
    "manyValues": b"\x0a" + (500_000).to_bytes(4, "big") + b"\x05" * 500_000,
    "manyMembers": b"\x03" + b"\x00\x01a\x05" * 500_000 + OBJECT_END,
    "manyArguments": b"\x05" * 1_000_000,
    "toldArray": b"\x0a\xff\xff\xff\xff",
    "toldMap": b"\x08\xff\xff\xff\xff",
    "toldString": b"\x0c\xff\xff\xff\xff",
    "toldAMF3Array": b"\x11\x09\xff\xff\xff\xff\x01",
    "toldAMF3Vector": b"\x11\x0d\xff\xff\xff\xff\x00",
    "toldAMF3Bytes": b"\x11\x0c\xff\xff\xff\xff",
    "loop": b"\x0a\x00\x00\x00\x01\x07\x00\x00",
    "loopOfObject": b"\x03\x00\x01a\x07\x00\x00" + OBJECT_END,
    "amf3Loop": b"\x11\x09\x03\x01\x09\x00",
    "references": referencesToReferences(),
    "amf3References": amf3References(),
    "unknownMarker": b"\x7f" * 1000,
    "truncated": b"\x03\x00",
    "badUTF8": b"\x02\x00\x04\xff\xfe\xfd\xfc",
    "reference": b"\x07\xff\xff",
}


def _aliveOrCut(peer):
    """Whether the server answers or has closed: both are well; silence is not."""
    with contextlib.suppress(ConnectionError):
        peer.ping(77)


@pytest.mark.parametrize("bomb", BOMBS)
def test_amfBombInConnect(server, honest, bomb):
    before = server.resetPeak()
    for typeId, start in ((COMMAND, b""), (COMMAND_AMF3, b"\x00")):
        with Peer(server.port) as peer:
            peer.shakeHands()
            payload = start + amf("connect", 1) + BOMBS[bomb]
            peer.trySend(setChunkSize(1 << 20))
            peer.trySend(message(3, typeId, payload, chunkSize=1 << 20))
            _aliveOrCut(peer)
    assert server.peak - before <= 64 * MIB


@pytest.mark.parametrize("bomb", BOMBS)
def test_amfBombInData(server, honest, bomb):
    before = server.resetPeak()
    name = f"bombs{bomb}"
    with Peer(server.port) as peer:
        peer.publishes(name)
        peer.setChunkSize(1 << 20)
        for typeId, start in ((DATA, b""), (DATA_AMF3, b"\x00")):
            for names in (("@setDataFrame", "onMetaData"), ("onTextData",), ()):
                payload = start + amf(*names) + BOMBS[bomb]
                peer.trySend(message(4, typeId, payload, 0, 1, 1 << 20))
        _aliveOrCut(peer)
    server.waitFor(f"live/{name} ended after")
    assert server.peak - before <= 64 * MIB


def test_deepestAllowedAMFIsTaken(server, honest):
    with Peer(server.port) as peer:
        peer.shakeHands()
        peer.connect(deep=nestedObjects(30))


# P12, P16

PING = message(2, 4, b"\x00\x06\x00\x00\x00\x01")
FLOODS = {
    "pings": PING,
    "createStream": command("createStream", 5, None),
    "unknown": command("getAll", 5, None),
    "fcPublish": command("FCPublish", 5, None, "n" * 1000),
    "fcPublishLong": command("FCPublish", 5, None, "n" * 60_000),
    "bandwidth": message(2, 6, b"\x00\x00\x10\x00\x02")
    + message(2, 6, b"\x00\x00\x20\x00\x02"),
    "releaseStream": command("releaseStream", 5, None, "n"),
    "publish": command("publish", 5, None, "flooded", streamId=1),
    "deleteStream": command("createStream", 5, None)
    + command("deleteStream", 0, None, 1),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_floodByAPeerThatNeverReads(server, honest, flood):
    before = server.resetPeak()
    burst = FLOODS[flood] * (1 + 100_000 // len(FLOODS[flood]))
    with Peer(server.port, receiveBuffer=4096) as peer:
        peer.open()
        for _ in range(2000):
            if not peer.trySend(burst):
                break
        else:
            raise AssertionError("200 MB of it were answered")
        assert server.peak - before <= 16 * MIB
        peer.waitForCut()
    said = "cut: it takes nothing for 1 s"
    if flood == "publish":  # of which one connection may begin few, read or not
        said = "cut: it has begun more than 64 streams and more than 2 a second"
    server.waitFor(f"{peer.address} is {said}")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("FCPublish", (None, "n" * (7 * MIB))),
        ("publish", (None, "n" * (7 * MIB))),
        ("connect", ({"app": "n" * (7 * MIB)},)),
        ("n" * (7 * MIB), (None,)),
    ],
    ids=["fcPublish", "publish", "connect", "unknown"],
)
def test_hugeCommandIsNotAnswered(server, honest, name, arguments):
    """Names of 7 MB, which would be remembered, and said in replies."""
    before = server.resetPeak()
    with contextlib.ExitStack() as peers:
        for _ in range(8):
            peer = peers.enter_context(Peer(server.port, receiveBuffer=4096))
            peer.shakeHands()
            if name != "connect":
                peer.connect()
            peer.setChunkSize(1 << 20)
            payload = amf(name, 5, *arguments)
            peer.trySend(message(3, COMMAND, payload, chunkSize=1 << 20))
            server.waitFor(f"{peer.address} is cut for a protocol error: a command of")
        assert server.peak - before <= 32 * MIB


def test_netStreamsAreBounded(server, honest):
    with Peer(server.port) as peer:
        peer.open()
        for transactionId in range(2, 34):
            peer.createStream(transactionId)
        peer.send(command("createStream", 40, None))
        while True:
            typeId, payload = peer.nextMessage()
            if typeId == COMMAND:
                break
        assert payload.startswith(amf("_error", 40))


def test_netStreamsOfOnesOwnNumberAreBounded(server, honest):
    with Peer(server.port) as peer:
        peer.open()
        for streamId in range(100, 200):
            if not peer.trySend(
                command("publish", 0, None, f"n{streamId}", streamId=streamId)
            ):
                break
        peer.waitForCut()
    server.waitFor(f"{peer.address} is cut for a protocol error: .*message streams")


def test_unknownCommandsAreNotRemembered(server, honest):
    """Each has another name, of 60 kB."""
    with Peer(server.port) as peer:
        peer.open()
        before = server.resetPeak()
        peer.setChunkSize(1 << 20)
        for number in range(1000):
            payload = amf(f"c{number}" + "n" * 60_000, 0, None)
            peer.send(message(3, COMMAND, payload, chunkSize=1 << 20))
        peer.ping(1)
        assert server.peak - before <= 16 * MIB
    assert server.count(f"{peer.address} sent an unknown command") <= 32


def sendAndWait(peer, data):
    """Send, until the server has read it all."""
    peer.send(data)
    peer.ping(2)


@pytest.mark.alone
def test_costlyBytesLeaveOthersTheirTurn(server, honest):
    """
    Chunks of 1 byte, each of another chunk stream, are the most work a byte.

    Four peers send 512 KiB each of them; with each turn of the server's loop another
    peer is answered once, so few answers mean long turns.
    """
    turn = b"".join(basicHeader(3, csid) + b"\x00" for csid in range(4, 60))
    with contextlib.ExitStack() as peers:
        hostile = [peers.enter_context(Peer(server.port)).open() for _ in range(4)]
        other = peers.enter_context(Peer(server.port)).publishes("other")
        senders = []
        for peer in hostile:
            peer.setChunkSize(1)
            for csid in range(4, 60):
                peer.send(header(csid, VIDEO, 1 * MIB) + b"\x17")
            peer.ping(1)
            data = turn * (512 * KIB // len(turn))
            senders.append(threading.Thread(target=sendAndWait, args=(peer, data)))
        for sender in senders:
            sender.start()
        answers = 0
        while any(sender.is_alive() for sender in senders):
            other.sendMedia(VIDEO, numberedFrame(answers), answers * 40)
            other.ping(answers)
            answers += 1
        assert answers >= 25
