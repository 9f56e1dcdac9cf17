"""A publisher that has closed its end is read to the end, and written nothing."""

from __future__ import annotations

import select
import socket

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.wire.connection import Connection, Role
from twisted_rtmp.wire.messages import Message

pytestmark = pytest.mark.skipif(
    not hasattr(select, "POLLRDHUP"), reason="only Linux tells of a peer's close"
)


class SocketTransport(StringTransport):
    """Remembers what is written; its descriptor is a real socket's."""

    def __init__(self, ours):
        super().__init__()
        self.fileno = ours.fileno


@pytest.fixture
def sockets():
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def publish(factory, transport):
    """A server's protocol to which a client publishes, and the client's end."""
    client = Connection(Role.CLIENT)
    client.start()
    protocol = factory.buildProtocol(None)
    protocol.makeConnection(transport)
    protocol.dataReceived(client.dataToSend())
    client.feed(transport.value())
    client.nextEvent()
    client.sendChunkSize(65_536)
    client.sendWindowAcknowledgementSize(1000)
    client.sendCommand("connect", 1, {"app": "live"})
    client.sendCommand("createStream", 2, None)
    client.sendCommand("publish", 3, None, "s", "live", streamId=1)
    protocol.dataReceived(client.dataToSend())
    transport.clear()
    return protocol, client


def frames(client, count):
    for i in range(count):
        client.sendMessage(Message(9, i, 1, b"\x17\x01\0\0\0" + bytes(5000)), 6)
    return client.dataToSend()


def test_acknowledgedWhileItIsThere(sockets):
    factory = RTMPFactory(Clock())
    transport = SocketTransport(sockets[0])
    protocol, client = publish(factory, transport)
    protocol.dataReceived(frames(client, 2))
    assert transport.value()


def test_readToTheEndAndWrittenNothing(sockets):
    factory = RTMPFactory(Clock())
    transport = SocketTransport(sockets[0])
    protocol, client = publish(factory, transport)
    [stream] = factory.streams.values()
    sockets[1].close()
    for _ in range(3):
        protocol.dataReceived(frames(client, 2))
    client.sendCommand("FCUnpublish", 4, None, "s")
    protocol.dataReceived(client.dataToSend())
    assert transport.value() == b""
    assert stream.ledger.received.video == 6
    assert not factory.streams
