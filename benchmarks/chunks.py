"""
CPU seconds a GB of the hot path, without sockets and disks.

Reads a synthetic publication (frames of 6 Mb/s at 30 a second beside AAC at
47 packets a second, in reads of 64 KiB) with the chunk reader alone, and with
the whole server protocol down to a stream without sinks::

    python benchmarks/chunks.py
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.wire.chunk import ChunkReader
from twisted_rtmp.wire.connection import Connection, Role
from twisted_rtmp.wire.constants import NEED_DATA, MessageType
from twisted_rtmp.wire.messages import Message

READ_SIZE = 65_536
SECONDS = 60
REPETITIONS = 3


def publication() -> list[Message]:
    """A minute of audio and video messages on message stream 1."""
    rng = random.Random(1)
    messages = []
    for frame in range(SECONDS * 30):
        key = frame % 60 == 0
        size = rng.randrange(60_000, 90_000) if key else rng.randrange(15_000, 33_000)
        body = (b"\x17\x01\0\0\0" if key else b"\x27\x01\0\0\0") + rng.randbytes(size)
        messages.append(Message(MessageType.VIDEO, frame * 1000 // 30, 1, body))
    for packet in range(SECONDS * 47):
        body = b"\xaf\x01" + rng.randbytes(340)
        messages.append(Message(MessageType.AUDIO, packet * 1000 // 47, 1, body))
    messages.sort(key=lambda message: message.timestamp)
    return messages


def encode(messages: list[Message], chunkSize: int) -> tuple[bytes, bytes]:
    """A client's handshake and commands; its media as chunks."""
    client = Connection(Role.CLIENT)
    client.start()
    handshake = client.dataToSend()
    client.feed(b"\x03" + bytes(3072))
    client.nextEvent()
    handshake += client.dataToSend()
    client.sendChunkSize(chunkSize)
    client.sendCommand("connect", 1, {"app": "live"})
    client.sendCommand("createStream", 2, None)
    client.sendCommand("publish", 3, None, "s", "live", streamId=1)
    commands = client.dataToSend()
    for message in messages:
        client.sendMessage(message, 4 if message.typeId == MessageType.AUDIO else 6)
    return handshake + commands, client.dataToSend()


def readChunks(media: bytes, chunkSize: int) -> Callable[[], None]:
    """The chunk reader alone."""
    reader = ChunkReader()
    reader.chunkSize = chunkSize

    def run() -> None:
        for at in range(0, len(media), READ_SIZE):
            reader.feed(media[at : at + READ_SIZE])
            while reader.nextMessage() is not NEED_DATA:
                pass

    return run


def readAll(commands: bytes, media: bytes) -> Callable[[], None]:
    """The server's protocol, down to a live stream."""
    factory = RTMPFactory(Clock())
    protocol = factory.buildProtocol(None)
    assert protocol is not None
    protocol.makeConnection(StringTransport())
    protocol.dataReceived(commands)
    assert factory.streams, "the publication was not accepted"

    def run() -> None:
        for at in range(0, len(media), READ_SIZE):
            protocol.dataReceived(media[at : at + READ_SIZE])

    return run


def main() -> None:
    """Measure and print a table."""
    messages = publication()
    print("chunk size  what           CPU s/GB  us a message")
    for chunkSize in (128, 1024, 4096, 65_536):
        commands, media = encode(messages, chunkSize)
        for what, make in (
            ("chunk reader", partial(readChunks, media, chunkSize)),
            ("protocol", partial(readAll, commands, media)),
        ):
            best = float("inf")
            for _ in range(REPETITIONS):
                run = make()
                before = time.process_time()
                run()
                best = min(best, time.process_time() - before)
            print(
                f"{chunkSize:10d}  {what:13s} {1e9 * best / len(media):9.3f}"
                f"  {1e6 * best / len(messages):12.2f}"
            )


if __name__ == "__main__":
    main()
