"""
An RTMP peer on a plain socket, with bytes of its own making.

Shares no code with the server, so that both cannot be wrong alike; and it sends
whatever it is told, right or wrong.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

#: For anything that is waited for, in seconds: far above what it takes.
PATIENCE = 60.0

AUDIO, VIDEO, DATA = 8, 9, 18
COMMAND_AMF3, DATA_AMF3, COMMAND = 17, 15, 20


def amf(*values):
    """Values as AMF0; bytes are taken for finished AMF0."""
    return b"".join(map(_amf, values))


def _amf(value):
    if isinstance(value, bytes):
        return value
    if value is None:
        return b"\x05"
    if isinstance(value, bool):
        return b"\x01" + bytes((value,))
    if isinstance(value, (int, float)):
        return b"\x00" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape")
        if len(data) > 0xFFFF:
            return b"\x0c" + struct.pack(">I", len(data)) + data
        return b"\x02" + struct.pack(">H", len(data)) + data
    assert isinstance(value, dict)
    members = b"".join(
        struct.pack(">H", len(key)) + key.encode() + _amf(member)
        for key, member in value.items()
    )
    return b"\x03" + members + b"\x00\x00\x09"


def basicHeader(headerFormat, csid):
    if csid < 64:
        return bytes((headerFormat << 6 | csid,))
    if csid < 320:
        return bytes((headerFormat << 6, csid - 64))
    return bytes((headerFormat << 6 | 1, (csid - 64) & 255, (csid - 64) >> 8))


def header(csid, typeId, length, timestamp=0, streamId=0):
    """The head of a format 0 chunk, for a length that need not come."""
    short = min(timestamp, 0xFFFFFF)
    return (
        basicHeader(0, csid)
        + short.to_bytes(3, "big")
        + length.to_bytes(3, "big")
        + bytes((typeId,))
        + streamId.to_bytes(4, "little")
        + (timestamp.to_bytes(4, "big") if short == 0xFFFFFF else b"")
    )


def message(csid, typeId, payload, timestamp=0, streamId=0, chunkSize=128):
    """A whole message: one format 0 chunk, then format 3."""
    extended = timestamp.to_bytes(4, "big") if timestamp >= 0xFFFFFF else b""
    pieces = [header(csid, typeId, len(payload), timestamp, streamId)]
    pieces.append(payload[:chunkSize])
    following = basicHeader(3, csid) + extended
    for at in range(chunkSize, len(payload), chunkSize):
        pieces += following, payload[at : at + chunkSize]
    return b"".join(pieces)


def setChunkSize(size):
    return message(2, 1, size.to_bytes(4, "big"))


def command(name, transactionId, *arguments, streamId=0):
    return message(3, COMMAND, amf(name, transactionId, *arguments), 0, streamId)


class Peer:
    """
    One connection to the server under test.

    @ivar chunkSize: of what is sent.
    @ivar sentBytes: how much has been sent.
    """

    def __init__(self, port, receiveBuffer=None, host=""):
        """@param host: the address that the peer comes from."""
        self.socket = socket.socket()
        self.socket.bind((host, 0))
        if receiveBuffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receiveBuffer)
        self.socket.settimeout(PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect(("127.0.0.1", port))
        self.address = "{}:{}".format(*self.socket.getsockname())
        self.chunkSize = 128
        self.sentBytes = 0
        self.acknowledged = []
        self._data = bytearray()
        self._theirChunkSize = 128
        self._streams = {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Close with a RST."""
        self.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)
        self.sentBytes += len(data)

    def trySend(self, data):
        """
        Send to a server that may cut or no longer read.

        @return: whether all went out.
        """
        try:
            self.send(data)
        except (ConnectionError, TimeoutError):
            return False
        return True

    def finishSending(self):
        """Close this direction; the server may have cut both already."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def waitForCut(self):
        """Read on until the server has closed the connection."""
        try:
            while self.socket.recv(1 << 16):
                pass
        except ConnectionError:
            pass

    # The usual course

    def shakeHands(self):
        self.send(b"\x03" + bytes(1536))
        self._receive(1 + 1536 + 1536)
        s1 = bytes(self._data[1:1537])
        del self._data[:3073]
        self.send(s1)

    def connect(self, app="live", **more):
        properties = {"app": app, "tcUrl": f"rtmp://127.0.0.1/{app[:1000]}", **more}
        self.send(command("connect", 1, properties))
        return self.reply("_result")

    def open(self, app="live"):
        """Shake hands and connect."""
        self.shakeHands()
        self.connect(app)
        return self

    def createStream(self, transactionId=2):
        self.send(command("createStream", transactionId, None))
        return self.reply("_result", transactionId)

    def publish(self, name, streamId=1):
        """@return: the code of the status that answers."""
        payload = amf("publish", 0, None, name, "live")
        self.send(message(8, COMMAND, payload, 0, streamId, self.chunkSize))
        reply = self.reply("onStatus")
        code = reply[reply.index(b"code") + 4 :]
        size = int.from_bytes(code[1:3], "big")
        return code[3 : 3 + size].decode()

    def publishes(self, name, app="live"):
        """From the handshake to Publish.Start."""
        self.open(app)
        self.createStream()
        assert self.publish(name) == "NetStream.Publish.Start"
        return self

    def sendMedia(self, typeId, payload, timestamp=0, streamId=1):
        csid = 4 if typeId == AUDIO else 6
        self.send(message(csid, typeId, payload, timestamp, streamId, self.chunkSize))

    def setChunkSize(self, size):
        payload = size.to_bytes(4, "big")
        self.send(message(2, 1, payload, chunkSize=self.chunkSize))
        self.chunkSize = size

    def end(self):
        """Delete the stream, and close when the server has heard it."""
        payload = amf("deleteStream", 0, None, 1)
        self.send(message(3, COMMAND, payload, chunkSize=self.chunkSize))
        self.finishSending()
        self.waitForCut()
        self.close()

    def ping(self, value):
        """Wait until the server has come to a ping, and answered."""
        ping = b"\x00\x06" + value.to_bytes(4, "big")
        self.send(message(2, 4, ping, chunkSize=self.chunkSize))
        wanted = b"\x00\x07" + value.to_bytes(4, "big")
        while self.nextMessage() != (4, wanted):
            pass

    # What the server says

    def reply(self, name, transactionId=None):
        """@return: the payload of the next command of this name."""
        start = amf(name) if transactionId is None else amf(name, transactionId)
        while True:
            typeId, payload = self.nextMessage()
            if typeId == COMMAND and payload.startswith(start):
                return payload
            refusal = payload.startswith(amf("_error"))
            assert not (typeId == COMMAND and refusal), payload

    def nextMessage(self):
        """@return: type id and payload."""
        while True:
            self._receive(1)
            csid, size = self._data[0] & 63, 1
            if csid < 2:
                size = csid + 2
            headerFormat = self._data[0] >> 6
            fields = (11, 7, 3, 0)[headerFormat]
            self._receive(size + fields)
            extended = 0
            if fields >= 3 and self._data[size : size + 3] == b"\xff\xff\xff":
                extended = 4
            stream = self._streams.setdefault(csid, [0, 0, bytearray()])
            if fields >= 7:
                stream[0] = int.from_bytes(self._data[size + 3 : size + 6], "big")
                stream[1] = self._data[size + 6]
            take = min(self._theirChunkSize, stream[0] - len(stream[2]))
            at = size + fields + extended
            self._receive(at + take)
            stream[2] += self._data[at : at + take]
            del self._data[: at + take]
            if len(stream[2]) == stream[0]:
                payload = bytes(stream[2])
                stream[2] = bytearray()
                if stream[1] == 1:
                    self._theirChunkSize = int.from_bytes(payload, "big")
                elif stream[1] == 3:
                    self.acknowledged.append(int.from_bytes(payload, "big"))
                return stream[1], payload

    def _receive(self, size):
        while len(self._data) < size:
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError("the server has closed the connection")
            self._data += data


#: AVC and AAC sequence headers that name no parameter sets.
AVC_HEADER = b"\x17\x00\x00\x00\x00\x01\x64\x00\x1f\xff\xe0\x00"
AAC_HEADER = b"\xaf\x00\x12\x10"


def numberedFrame(number, size=700):
    """
    Video frame number so-and-so, a key frame each 25th: its number as a word,
    again and again, so that no part of it fits another frame.
    """
    start = b"\x17\x01\x00\x00\x00" if number % 25 == 0 else b"\x27\x01\x00\x00\x00"
    return (start + struct.pack(">I", number) * (size // 4))[:size]


def tagsOf(data):
    """
    The whole tags of an FLV file that may end anywhere.

    @return: (type, timestamp, payload) for each.
    """
    assert data[:4] == b"FLV\x01", data[:16]
    tags = []
    at = int.from_bytes(data[5:9], "big") + 4
    while at + 11 <= len(data):
        typeId = data[at]
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        timestamp = int.from_bytes(data[at + 7 : at + 8] + data[at + 4 : at + 7], "big")
        end = at + 11 + size
        if end + 4 > len(data):
            break
        assert int.from_bytes(data[end : end + 4], "big") == size + 11
        tags.append((typeId, timestamp, data[at + 11 : end]))
        at = end + 4
    return tags


class HonestStream:
    """
    A publisher that sends numbered frames from a thread until it is told to end.

    @ivar sent: (type, timestamp, payload) of each frame.
    """

    #: Between two frames, in seconds: a load that leaves the processor to the attack.
    INTERVAL = 0.01

    def __init__(self, server, name):
        self.name = name
        self.sent = []
        self._server = server
        self._ending = threading.Event()
        self._error = None
        self._some = threading.Event()
        self._peer = Peer(server.port)
        self._peer.publishes(name, "honest")
        self._peer.setChunkSize(4096)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._some.wait(PATIENCE)

    def _run(self):
        try:
            self._send(VIDEO, 0, AVC_HEADER)
            self._send(AUDIO, 0, AAC_HEADER)
            number = 0
            while not self._ending.wait(self.INTERVAL):
                self._send(VIDEO, number * 10, numberedFrame(number))
                self._send(AUDIO, number * 10, b"\xaf\x01" + struct.pack(">I", number))
                number += 1
                self._some.set()
        except OSError as error:
            self._error = error

    def _send(self, typeId, timestamp, payload):
        self._peer.sendMedia(typeId, payload, timestamp)
        self.sent.append((typeId, timestamp, payload))

    @property
    def frames(self):
        """How many messages have been sent so far."""
        return len(self.sent)

    def goesOn(self, messages=20):
        """Wait until so many more have been sent and the server has read them."""
        until = time.monotonic() + PATIENCE
        wanted = self.frames + messages
        while self.frames < wanted:
            assert self._error is None, self._error
            assert time.monotonic() < until
            self._ending.wait(self.INTERVAL)

    def stop(self):
        """End the publication."""
        self._ending.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the server does not read it any more"
        assert self._error is None, self._error
        self._peer.end()

    def abandon(self):
        """End with a server that has gone."""
        self._ending.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self._peer.close()

    def compare(self):
        """End, and compare what is recorded with what was sent."""
        self.stop()
        self._server.waitFor(rf"honest/{self.name} ended after")
        recorded = self._server.recorded(f"honest/{self.name}-")
        media = [tag for tag in tagsOf(recorded) if tag[0] != DATA]
        assert len(media) == len(self.sent)
        assert media == self.sent
