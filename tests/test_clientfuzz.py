"""
What no server should send: the client ends the connection, or goes on; nothing else.
"""

from __future__ import annotations

import random
from types import SimpleNamespace

from clientkit import Collector, HalfCloseableTransport, Outcome, connected
from fuzzkit import SEED, SESSION_COUNT
from rtmpclient import AAC_FRAME, AUDIO, AVC_KEY_FRAME, DATA, VIDEO
from twisted.internet.task import Clock

from twisted_rtmp.client import RTMPURL, ClientError, ClientLimits, RTMPClient
from twisted_rtmp.link import LinkState
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.connection import Connection

SESSIONS = max(300, SESSION_COUNT // 10)

#: S0, S1 and S2, which the client reads without a look: they are seldom changed.
HANDSHAKE = 3073


def useAll(client, sink):
    """Publish and play as soon as the server lets it; the outcomes do not matter."""
    outcomes = []

    def accepted(_):
        outcomes.append(Outcome(client.publish("a")))
        outcomes.append(Outcome(client.play("b", sink)))

    client.accepted.addCallbacks(accepted, lambda failure: failure.trap(ClientError))
    return outcomes


def recordedSession():
    """All that a server says in a session of every kind of message."""
    data = []
    original = Connection.dataToSend

    def recording(connection):
        sent = original(connection)
        if connection.role.name == "SERVER":
            data.append(sent)
        return sent

    Connection.dataToSend = recording
    try:
        clock = Clock()
        client, server = connected(clock)
        asked = [client.publish("a"), client.play("b", Collector())]
        for each in asked:
            Outcome(each)
        server.command("onBWDone", 0, None)
        server.connection.sendChunkSize(300)
        server.connection.sendWindowAcknowledgementSize(2000)
        server.connection.sendPeerBandwidth(3000)
        server.connection.sendUserControl(6, 1)
        for number in range(4):
            server.media(VIDEO, 40 * number, AVC_KEY_FRAME * 40, streamId=2)
            server.media(AUDIO, 40 * number, AAC_FRAME, streamId=2)
        server.media(DATA, 0, amf0.encode("onMetaData", {"a": 1.0}), streamId=2)
        server.media(DATA, 0, amf0.encode("onPlayStatus", {"code": "x"}), streamId=2)
        server.command("_onbwcheck", 5, None, 1.0)
        server.status("NetStream.Play.UnpublishNotify", 2)
        server.connection.sendUserControl(1, 2)
        server.status("NetStream.Publish.BadName", 1, "error")
        server.pump()
        client.abort()
        clock.advance(0)
    finally:
        Connection.dataToSend = original
    return b"".join(data)


def changed(session, chooser):
    """A session with some faults."""
    data = bytearray(session)
    for _ in range(chooser.randint(1, 4)):
        lowest = HANDSHAKE if chooser.random() < 0.97 else 0
        at = chooser.randrange(lowest, len(data))
        kind = chooser.randrange(5)
        if kind == 0:
            data[at] = chooser.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << chooser.randrange(8)
        elif kind == 2:
            del data[at : at + chooser.randint(1, 40)]
        elif kind == 3:
            start = chooser.randrange(HANDSHAKE, len(data))
            data[at:at] = data[start : start + chooser.randint(1, 60)]
        else:
            data[at : at + 4] = chooser.randbytes(4)
    return bytes(data)


def test_changedSessions():
    session = recordedSession()
    chooser = random.Random(SEED)
    ends = {True: 0, False: 0}
    for _ in range(SESSIONS):
        data = changed(session, chooser)
        clock = Clock()
        url = RTMPURL.parse("rtmp://server/live/key")
        client = RTMPClient(clock, url, limits=ClientLimits())
        transport = HalfCloseableTransport(clock, SimpleNamespace(protocol=client))
        sink = Collector()
        outcomes = useAll(client, sink)
        client.makeConnection(transport)
        at = 0
        while at < len(data) and transport.reading and not transport.disconnected:
            size = chooser.choice((1, 50, 1000, len(data)))
            client.dataReceived(data[at : at + size])
            transport.deliver()
            at += size
        ends[client.state is LinkState.CLOSED] += 1
        client.abort()
        for _ in range(3):
            clock.advance(20)
            transport.deliver()
        assert client.state is LinkState.CLOSED
        for outcome in outcomes:
            assert outcome.results or isinstance(outcome.errors[0], ClientError)
        assert sink.ended <= 1
        assert not clock.getDelayedCalls()
    assert all(ends.values()), f"{ends}, seed {SEED}"


def test_theSessionItselfIsWhole():
    """Unchanged, it does what the others are changed from."""
    clock = Clock()
    url = RTMPURL.parse("rtmp://server/live/key")
    client = RTMPClient(clock, url)
    transport = HalfCloseableTransport(clock, SimpleNamespace(protocol=client))
    sink = Collector()
    outcomes = useAll(client, sink)
    client.makeConnection(transport)
    client.dataReceived(recordedSession())
    assert [len(outcome.results) for outcome in outcomes] == [1, 1]
    assert len(sink.messages) == 9
    assert sink.ended == 1
    client.abort()
    clock.advance(0)
