"""P17 to P19: what names can do, on the disk, in the log and to others' streams."""

from __future__ import annotations

import os

import pytest
from promiseserver import KIB
from scriptedpeer import (
    COMMAND,
    VIDEO,
    HonestStream,
    Peer,
    amf,
    command,
    message,
    numberedFrame,
    tagsOf,
)

OPTIONS = ("--takeover=never",)

#: Bytes of the longest name that is taken.
LONGEST = 1024

#: Stream names; each is published in the application "live" and, without the NUL,
#: also serves as an application.
NAMES = [
    "",
    ".",
    "..",
    "...",
    "/",
    "//",
    "../escape",
    "../../escape",
    "../../../../../../../../tmp/escape",
    "..\\escape",
    "..\\..\\escape",
    "/etc/escape",
    "/tmp/escape",
    "//tmp//escape",
    "a/../../escape",
    "a/../../../escape",
    "./escape",
    "a/./escape",
    "a//escape",
    "a/",
    "/a",
    "a/..",
    "%2e%2e%2fescape",
    "..%2fescape",
    "%00",
    "nul\x00escape.flv",
    "\x00",
    "..\x00/escape",
    ".hidden",
    "a/.hidden",
    ".flv",
    "-rf",
    "--help",
    "~",
    "~root/escape",
    "$HOME",
    "`id`",
    "$(id)",
    "a;id",
    "a|id",
    "*",
    "?x",
    "con",
    "C:\\escape",
    "\\\\host\\share",
    "new\nline",
    "carriage\rreturn",
    "tab\tbell\x07",
    "\x1b[31mred\x1b]0;title\x07",
    "\x7f\x80",
    "\u202eright to left",
    "\u00e9\u4e2d\U0001f600",
    "e\u0301",
    "\ufeffmark",
    "x" * 255,
    "x" * LONGEST,
    "\u4e2d" * (LONGEST // 3),
    "../" * 300 + "escape",
    "a/" * (LONGEST // 2),
    "{app}{stream}",
    "%Y%n%t",
    "\udcff\udcfe",
    "a" * 251 + "\U0001f600",
]

#: Names of streams and applications that are refused.
TOO_LONG = [
    "x" * (LONGEST + 1),
    "x" * 10_000,
    "\u4e2d" * 10_000,
    "../" * 3000 + "escape",
    "a/" * 3000,
    "\x1b[2J" * 1000,
]


#: A frame that nobody may record.
UNWANTED = numberedFrame(9_999_999)


def entriesBelow(folder):
    for path, folders, files in os.walk(folder):
        for name in folders + files:
            yield path, name


def checkFiles(server):
    outside = [n for n in os.listdir(server.folder) if n != server.record.name]
    # twistd's own.
    assert set(outside) <= {"twistd.pid"}, outside
    assert not os.path.exists("/tmp/escape")
    assert not os.path.exists("/etc/escape")
    for path, name in entriesBelow(server.record):
        data = os.fsencode(name)
        assert len(data) <= 255, name
        assert not name.startswith((".", "-", "~")), name
        assert not [b for b in data if b < 0x20 or b == 0x7F], name
        assert "\\" not in name
        assert not os.path.islink(os.path.join(path, name))


def checkLog(server):
    raw = {b for b in bytes(server.log) if b < 0x20 or b == 0x7F}
    assert raw <= {0x0A}, raw
    text = server.text
    for letter in "\u202e\ufeff\x80\x85\u2028":
        assert letter not in text
    assert max(map(len, server.lines)) < 4 * KIB


def recordingsOf(server, frame):
    """Find the recordings that hold a frame."""
    return [
        path
        for path in server.record.rglob("*.flv")
        # An application's name can end so too.
        if path.is_file() and (VIDEO, 0, frame) in tagsOf(path.read_bytes())
    ]


def publishOne(server, app, name):
    """
    Publish a frame that nobody else sends, and look that it was recorded once.

    @return: the recording's path.
    """
    publishOne.number += 1
    frame = numberedFrame(publishOne.number * 25)
    with Peer(server.port) as peer:
        peer.shakeHands()
        peer.connect(app)
        peer.createStream()
        assert peer.publish(name) == "NetStream.Publish.Start"
        peer.sendMedia(VIDEO, frame)
        ended = server.count(" ended after ") + 1
        peer.end()
    server.waitFor(" ended after ", ended)
    checkFiles(server)
    checkLog(server)
    [path] = recordingsOf(server, frame)
    return path


publishOne.number = 1000


def test_noStreamNameLeavesTheFolder(server, honest):
    assert len(NAMES) >= 55
    paths = {publishOne(server, "live", name) for name in NAMES}
    assert len(paths) == len(NAMES)


def test_noApplicationNameLeavesTheFolder(server, honest):
    for name in NAMES:
        publishOne(server, name, "stream")


@pytest.mark.parametrize("name", TOO_LONG, ids=range(len(TOO_LONG)))
def test_tooLongNameIsRefused(server, honest, name):
    """Nothing comes of it: no stream, no file, and no line of the log repeats it."""
    with Peer(server.port) as peer:
        peer.open()
        peer.createStream()
        assert peer.publish(name) == "NetStream.Publish.Denied"
        peer.trySend(message(6, VIDEO, UNWANTED, 0, 1))
        peer.waitForCut()
    limit = f"must be at most {LONGEST} bytes long"
    server.waitFor(f"{peer.address} is refused a stream of live: .*{limit}")
    with Peer(server.port) as peer:
        peer.shakeHands()
        peer.send(command("connect", 1, {"app": name}))
        while not (reply := peer.nextMessage()[1]).startswith(amf("_error", 1)):
            pass
        assert b"NetConnection.Connect.Rejected" in reply
        peer.waitForCut()
    server.waitFor(f"{peer.address} is refused .*{limit}")
    assert not recordingsOf(server, UNWANTED)
    checkFiles(server)
    checkLog(server)


def test_nameOfARecordingsFolder(server, honest):
    """A stream called as an application, and the other way round."""
    publishOne(server, "live", "folder")
    publishOne(server, "live/folder", "stream")
    publishOne(server, "", "live")


def test_symbolicLinkIsNotFollowed(server, honest, tmp_path):
    server.record.mkdir(exist_ok=True)
    (server.record / "linked").symlink_to(tmp_path)
    try:
        with Peer(server.port) as peer:
            peer.publishes("stream", "linked")
            peer.sendMedia(VIDEO, numberedFrame(0))
            peer.end()
        server.waitFor("linked/stream ended after")
        assert os.listdir(tmp_path) == []
    finally:
        (server.record / "linked").unlink()


@pytest.mark.parametrize(
    "text", ["a\nb", "\x1b[2J", "\r\n2026-01-01 forged", "\x00", "\x9b31m"]
)
def test_otherTextsNeverReachTheLogRaw(server, honest, text):
    with Peer(server.port) as peer:
        peer.shakeHands()
        peer.connect("live" + text, flashVer="FMLE" + text, tcUrl=text)
        for name in ("FCPublish", "releaseStream", "get" + text):
            peer.send(command(name, 5, None, text))
        peer.ping(1)
    with Peer(server.port) as peer:
        peer.shakeHands()
        peer.send(command("early" + text, 1, {}))
        peer.waitForCut()
    server.waitFor(f"{peer.address} is cut for a protocol error")
    checkLog(server)


# P17


def _refused(peer, name, streamId=1):
    assert peer.publish(name, streamId) == "NetStream.Publish.BadName"
    # What it sends nevertheless goes nowhere.
    peer.trySend(message(6, VIDEO, UNWANTED, 0, 1, 128))
    peer.waitForCut()


def test_secondPublisherIsRefused(server):
    stream = HonestStream(server, "kept")
    for _ in range(3):
        with Peer(server.port) as peer:
            peer.open("honest")
            peer.createStream()
            _refused(peer, "kept")
        stream.goesOn()
    stream.compare()
    # And the name is free again.
    with Peer(server.port) as peer:
        peer.publishes("kept", "honest")


def test_sameNameTwiceOnOneConnectionIsRefused(server):
    with Peer(server.port) as peer:
        peer.publishes("twice")
        peer.createStream(3)
        peer.sendMedia(VIDEO, numberedFrame(0))
        _refused(peer, "twice", 2)
    server.waitFor("live/twice ended after .* 1 video ")


def test_nobodyEndsAnothersStream(server):
    stream = HonestStream(server, "others")
    with Peer(server.port) as peer:
        peer.open("honest")
        peer.createStream()
        for streamId in range(5):
            for argument in (1, 0, -1, 1.5, 2**40, "others", "honest/others", None):
                peer.send(command("deleteStream", 7, None, argument, streamId=streamId))
            for name in ("releaseStream", "FCUnpublish", "closeStream", "publish"):
                arguments = (False,) if name == "publish" else ("others",)
                peer.trySend(command(name, 7, None, *arguments, streamId=streamId))
        peer.trySend(message(2, 4, b"\x00\x01\x00\x00\x00\x01"))
        peer.trySend(message(3, COMMAND, amf("closeStream", 0, None), 0, 1))
        peer.trySend(message(2, 2, b"\x00\x00\x00\x06"))
        peer.trySend(message(6, VIDEO, UNWANTED, 0, 1))
        peer.finishSending()
        peer.waitForCut()
    stream.goesOn()
    stream.compare()


def test_cutOffPublisherCanComeBackAtOnce(server):
    """Its old connection is reset: the name is free within the patience."""
    for number in range(3):
        with Peer(server.port) as peer:
            peer.publishes("again")
            peer.sendMedia(VIDEO, numberedFrame(0))
            peer.ping(1)
            peer.reset()
        server.waitFor("live/again ended after", number + 1)
