"""
What OBS sends is in the recording.

OBS needs a desktop, so its side is written down here: the commands of its
RTMP output in their order, and the chunks as its library forms them.  It shares
no code with what is tested but for reading the answers.
"""

import socket
import struct

import pytest
from capture import assertAllStored, assertSame, ffmpeg, frames, mediaTags
from serverprocess import PATIENCE

from twisted_rtmp.live.timeline import BREAK_MILLISECONDS, FRAME_MILLISECONDS
from twisted_rtmp.media import payloads as media
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.chunk import ChunkReader
from twisted_rtmp.wire.constants import NEED_DATA, MessageType
from twisted_rtmp.wire.messages import Message

CHUNK_SIZE = 4096
FLASH_VERSION = "FMLE/3.0 (compatible; FMSc/1.0)"

#: Chunk streams: protocol control, commands, and the stream with all its media.
CONTROL, COMMANDS, MEDIA = 2, 3, 4

#: Header forms, in the first byte's upper two bits.
LARGE, MEDIUM, SMALL, MINIMUM = range(4)


class OBS:
    """One connection of OBS's RTMP output."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.reader = ChunkReader()
        self.chunkSize = 128
        self.transaction = 0
        #: For each chunk stream the last message's time, type and size.
        self.sent = {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.socket.close()

    def receive(self, size):
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            assert piece, "the server has closed the connection"
            data += piece
        return data

    def shakeHands(self):
        challenge = bytes(8) + bytes(range(256)) * 5 + bytes(248)
        self.socket.sendall(b"\3" + challenge)
        answer = self.receive(1 + 2 * len(challenge))
        assert answer[0] == 3
        assert answer[1 + len(challenge) :] == challenge
        self.socket.sendall(answer[1 : 1 + len(challenge)])

    def send(self, csid, typeId, payload, time=0, streamId=0, form=MEDIUM):
        """Form a message's chunks as the library does."""
        last = self.sent.get(csid)
        if last is None:
            form = LARGE
        elif form != LARGE:
            if last[1:] == (typeId, len(payload)) and form == MEDIUM:
                form = SMALL
            if last[0] == time and form == SMALL:
                form = MINIMUM
        # A step back is a step forward of nearly 2^32 to the library.
        field = time if form == LARGE else (time - last[0]) & 0xFFFFFFFF
        self.sent[csid] = time, typeId, len(payload)
        header = bytearray([form << 6 | csid])
        extended = b""
        if form < MINIMUM:
            if field >= 0xFFFFFF:
                extended = struct.pack(">I", field)
            header += struct.pack(">I", min(field, 0xFFFFFF))[1:]
        if form < SMALL:
            header += struct.pack(">IB", len(payload), typeId)[1:]
        if form < MEDIUM:
            header += struct.pack("<I", streamId)
        header += extended
        parts = [bytes(header)]
        for start in range(0, len(payload), self.chunkSize):
            if start:
                parts.append(bytes([MINIMUM << 6 | csid]) + extended)
            parts.append(payload[start : start + self.chunkSize])
        self.socket.sendall(b"".join(parts))

    def setChunkSize(self, size):
        self.send(CONTROL, 1, struct.pack(">I", size), form=LARGE)
        self.chunkSize = size

    def command(self, name, *arguments, csid=COMMANDS, streamId=0, form=MEDIUM):
        self.transaction += 1
        payload = amf0.encode(name, self.transaction, *arguments)
        self.send(csid, 20, payload, streamId=streamId, form=form)
        return self.transaction

    def answer(self, name, transaction=0):
        """Wait for a command from the server: its message stream, its arguments."""
        while True:
            message = self.reader.nextMessage()
            if message is NEED_DATA:
                data = self.socket.recv(65536)
                assert data, f"the server has closed instead of {name}"
                self.reader.feed(data)
            elif message.typeId == MessageType.COMMAND_AMF0:
                got, number, *arguments = amf0.decode(message.payload)
                if got == "onBWDone":
                    self.command("_checkbw", None)
                    continue
                information = arguments[-1]
                if isinstance(information, dict):
                    assert information.get("level") != "error", information
                if (got, number) == (name, transaction):
                    return message.streamId, arguments

    def publish(self, application, key):
        """Everything up to the moment from which OBS reconnects by itself."""
        self.shakeHands()
        self.setChunkSize(CHUNK_SIZE)
        url = f"rtmp://127.0.0.1/{application}"
        request = {
            "app": application,
            "type": "nonprivate",
            "flashVer": FLASH_VERSION,
            "swfUrl": url,
            "tcUrl": url,
        }
        connected = self.command("connect", request, form=LARGE)
        _, (_, information) = self.answer("_result", connected)
        assert information["code"] == "NetConnection.Connect.Success"
        self.command("releaseStream", None, key)
        self.command("FCPublish", None, key)
        created = self.command("createStream", None)
        _, (_, number) = self.answer("_result", created)
        streamId = int(number)
        assert streamId > 0
        self.command(
            "publish",
            *(None, key, "live"),
            csid=MEDIA,
            streamId=streamId,
            form=LARGE,
        )
        where, (_, information) = self.answer("onStatus")
        assert where == streamId
        assert information["code"] == "NetStream.Publish.Start"
        return streamId

    def metadata(self, streamId, payload):
        payload = amf0.encode("@setDataFrame") + payload
        self.send(MEDIA, 18, payload, streamId=streamId, form=LARGE)

    def media(self, streamId, tag):
        form = MEDIUM if tag.timestamp else LARGE
        self.send(MEDIA, tag.typeId, tag.payload, tag.timestamp, streamId, form)

    def stop(self, key, streamId):
        self.command("FCUnpublish", None, key)
        self.command("deleteStream", None, streamId)
        self.socket.shutdown(socket.SHUT_WR)
        while self.socket.recv(65536):
            pass


def run(capture, key, messages):
    """One output from start to stop: the log's summary."""
    with OBS(capture.port) as obs:
        streamId = obs.publish("live", key)
        obs.metadata(streamId, amf0.encode("onMetaData", {"encoder": "obs-output"}))
        for message in messages:
            obs.media(streamId, message)
        obs.stop(key, streamId)
    return capture.ended("test")["test"]


def test_publish(capture, sample):
    sent = mediaTags(sample)
    summary = run(capture, "test", sent)
    assertSame(mediaTags(capture.recording("test")), sent)
    assertAllStored(summary, sent)


@pytest.mark.parametrize("key", ["test?clientConfigId=1a2b", "test?user=me&pass=x"])
def test_query(capture, sample, key):
    """Multitrack video and logins add a query to the key; the name goes without."""
    sent = mediaTags(sample)
    summary = run(capture, key, sent)
    assertSame(mediaTags(capture.recording("test")), sent)
    assertAllStored(summary, sent)


def test_bigMessages(capture, tmp_path):
    """
    Frames of many chunks, with a step in time of more than 24 bits: they are read,
    and the stream's time goes on without the step.
    """
    path = tmp_path / "big.flv"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=size=640x480,noise=alls=60", "-t", 1),
        *("-c:v", "libx264", "-preset", "ultrafast", "-qp", 20, "-g", 5, path),
    )
    sent = mediaTags(path)
    assert max(len(tag.payload) for tag in sent) > 50 * CHUNK_SIZE
    middle = frames(sent)[len(frames(sent)) // 2].timestamp
    for tag in sent:
        if tag.timestamp >= middle:
            tag.timestamp += 1 << 24
    before = sum(tag.timestamp < middle for tag in sent)
    summary = run(capture, "test", sent)
    recorded = mediaTags(capture.recording("test"))
    assertSame(recorded[:before], sent[:before])
    assertSame(recorded[before:], sent[before:])
    step = recorded[before].timestamp - recorded[before - 1].timestamp
    assert FRAME_MILLISECONDS <= step <= BREAK_MILLISECONDS
    assert ", 0 lost, 1 breaks of the publisher's clock repaired" in summary


def test_enhancedWithoutNegotiation(capture):
    """HEVC comes in enhanced headers, although nobody has spoken of them."""
    sent = [
        Message(MessageType.VIDEO, 0, 0, b"\x90hvc1" + bytes(40)),
        Message(MessageType.VIDEO, 0, 0, b"\x91hvc1\0\0\x42" + bytes(5000)),
        Message(MessageType.VIDEO, 33, 0, b"\xa1hvc1\0\0\x21" + bytes(300)),
        Message(MessageType.VIDEO, 66, 0, b"\xa3hvc1" + bytes(299)),
        # The second video track.
        Message(MessageType.VIDEO, 66, 0, b"\xa6\x01hvc1\x01\0\0\0" + bytes(99)),
        Message(MessageType.VIDEO, 66, 0, b"\x92hvc1"),
    ]
    assert all(media.videoFlags(tag.payload) & media.ENHANCED for tag in sent)
    summary = run(capture, "test", sent)
    assertSame(mediaTags(capture.recording("test")), sent)
    assert summary.endswith(", 0 lost")


def test_secondOutputOfAName(capture, sample):
    """OBS takes BadName for an answer, and shows it."""
    with OBS(capture.port) as first, OBS(capture.port) as second:
        streamId = first.publish("live", "test")
        sent = mediaTags(sample)
        for message in sent:
            first.media(streamId, message)
        with pytest.raises(AssertionError, match=r"NetStream\.Publish\.BadName"):
            second.publish("live", "test")
        first.stop("test", streamId)
    summary = capture.ended("test")["test"]
    assertSame(mediaTags(capture.recording("test")), sent)
    assertAllStored(summary, sent)
