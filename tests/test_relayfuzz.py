"""
Other servers that say anything at any time: relays wait, move, end or go on, without a
traceback, and at a bounded cost.
"""

from __future__ import annotations

import random

from clientkit import accept, createStream, startPlay, startPublish
from fuzzkit import SEED, SESSION_COUNT, named
from relaykit import RECONNECT, Moving
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

from twisted_rtmp.client.status import DISCONNECTS, ENDS, REJECTED, STARTS, UNPUBLISHED
from twisted_rtmp.link import LinkState
from twisted_rtmp.relay import Origin
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.amfvalues import UNDEFINED

SESSIONS = max(20, SESSION_COUNT // 400)

CODES = [
    *sorted(STARTS | ENDS | DISCONNECTS),
    UNPUBLISHED,
    REJECTED,
    RECONNECT,
    "NetConnection.Connect.Success",
    "NetStream.Publish.BadName",
    "NetStream.Play.StreamNotFound",
    "NetStream.Play.Failed",
    "",
    "s3cret",
    "\U0001f600" * 50,
]

NAMES = ["_result", "_error", "onStatus", "onFCUnpublish", "onBWDone", "close", "play"]

ADDRESSES = ["", "rtmp://a/there", "rtmp://b/there", "//b", "rtmps://a", "rtmp://", "?"]
ADDRESSES += [
    "rtmp://[::1/x",
    "http://a/b",
    "rtmp://a:0/x",
    "x" * 9000,
    "rtmp://nowhere",
]

TEXTS = ["", "s3cret", "token=s3cret is bad", "\r\nforged", "x" * 5000, "\ufeff\x7f"]

PAYLOADS = [AAC_HEADER, AAC_FRAME, AVC_HEADER, AVC_KEY_FRAME, AVC_FRAME, b"", b"\x17"]
PAYLOADS += [amf0.encode("onMetaData", {"width": 2.0}), amf0.encode("onPlayStatus", {})]
PAYLOADS += [amf0.encode("onPlayStatus", {"code": "NetStream.Play.Complete"})]


class Babbler:
    """What a server says instead of an answer, or besides."""

    def __init__(self, chooser):
        self._chooser = chooser

    def value(self, depth=0):
        """Make a value of any kind."""
        choose = self._chooser
        kind = choose.randrange(9 if depth < 3 else 6)
        if kind == 0:
            return choose.choice(
                (0.0, 1.0, -1.0, 2.5, 1e308, float("inf"), float("nan"))
            )
        if kind == 1:
            return choose.choice((*TEXTS, *ADDRESSES, *CODES))
        if kind < 6:
            return (None, True, False, UNDEFINED)[kind - 2]
        if kind == 6:
            return [self.value(depth + 1) for _ in range(choose.randrange(4))]
        return self.properties(depth)

    def properties(self, depth=0):
        """Make an object as of a status."""
        choose = self._chooser
        made = {
            "level": choose.choice(("status", "error", "warning", "", 7.0)),
            "code": choose.choice((*CODES, 5.0, None)),
            "description": choose.choice((*TEXTS, None, 3.0)),
            "tcUrl": choose.choice((*ADDRESSES, None)),
            "ex": choose.choice(
                ({"code": 302.0, "redirect": choose.choice(ADDRESSES)}, None, 3.0)
            ),
        }
        for key in list(made):
            if choose.random() < 0.3:
                del made[key]
        if depth < 2 and choose.random() < 0.2:
            made["more"] = self.value(depth + 1)
        return made

    def say(self, server, command=None):
        """Say one thing."""
        choose = self._chooser
        streamId = choose.choice((0, 1, 1, 2, 3, 1 << 31))
        kind = choose.randrange(8)
        if kind < 2:
            server.command("onStatus", 0, None, self.properties(), streamId=streamId)
        elif kind == 2:
            tid = command.transactionId if command else choose.choice((0.0, 1.0, 4.0))
            values = [self.value() for _ in range(choose.randrange(4))]
            server.command(choose.choice(NAMES), tid, *values, streamId=streamId)
        elif kind < 6:
            typeId = choose.choice((AUDIO, VIDEO, DATA, 15, 16, 22))
            time = choose.choice((0, 40, 10_000, 2**32 - 1))
            payload = choose.choice((*PAYLOADS, choose.randbytes(20)))
            server.media(typeId, time, payload, streamId=streamId)
        elif kind == 6:
            number = choose.choice((0, 1, 2, 2**32 - 1))
            server.connection.sendUserControl(choose.randrange(40), number)
            server.pump()
        elif choose.random() < 0.3:
            choose.choice((server.close, server.breakOff))()

    def answers(self):
        """Make the answers of one server."""
        return {
            name: self._answer(name)
            for name in ("connect", "createStream", "publish", "play", "deleteStream")
        }

    def _answer(self, name):
        choose = self._chooser
        usual = USUAL.get(name)

        def answer(server, command):
            for _ in range(choose.randrange(3)):
                self.say(server, command)
            if usual is not None and choose.random() < 0.8:
                usual(server, command)
            for _ in range(choose.randrange(3)):
                self.say(server, command)

        return answer


USUAL = {
    "connect": accept,
    "createStream": createStream,
    "publish": startPublish,
    "play": startPlay,
}


def edgeOf(studio):
    """Make a server an edge of one of the others."""
    origin = Origin(
        studio.clock,
        studio.factory.registry,
        "rtmp://a/there",
        connect=studio.network.connect,
    )
    origin.startService()
    return origin


def play(chooser, lines):
    """Let relays of every kind meet two such servers for a while."""
    studio = Moving()
    babbler = Babbler(chooser)
    for host in "ab":
        studio.network.scripted(host, **babbler.answers())
    origin = None
    if chooser.random() < 0.5:
        # Its streams have other names, so that what is a key is none for them.
        origin = edgeOf(studio)
    encoder = studio.begin("cam")
    pushes = studio.pushing()
    pulling = studio.pulling()
    player = Client(studio.factory, studio.clock)
    studio.network.encoders.append(player)
    player.connect("live")
    player.command("createStream", 2, None)
    player.command("play", 3, None, "wanted", streamId=1)
    for second in range(15):
        studio.gop(1000 * second, "cam")
        for server in studio.network.servers[-6:]:
            if server.open and chooser.random() < 0.4:
                babbler.say(server)
        studio.advance(1, 0.5)
    assert encoder.open, "an honest encoder notices nothing"
    assert len(studio.network.servers) < 300
    assert origin is not None or not any("s3cret" in line for line in lines)
    assert all(len(line) < 500 and line.isprintable() for line in lines)
    pulling.stop()
    pushes.stopService()
    if origin is not None:
        origin.stopService()
    studio.settle()
    for server in studio.network.servers:
        assert server.protocol.state is LinkState.CLOSED
    assert studio.factory.registry.idle
    assert not studio.clock.getDelayedCalls()


def test_otherServersSayAnything(lines):
    for number in range(SESSIONS):
        with named("session", number, "seed", SEED):
            play(random.Random(f"{SEED} {number}"), lines)
        lines.clear()
