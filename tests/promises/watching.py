"""Publications that go on when they are told to, and players that read when told."""

from __future__ import annotations

from promiseserver import KIB
from scriptedpeer import AVC_HEADER, COMMAND, VIDEO, Peer, command, numberedFrame

#: What a slow player's kernel keeps for it: as little as it can.
RECEIVE_BUFFER = 4 * KIB

#: Frames of a GOP, as L{numberedFrame} has it.
GOP = 25

#: Bytes of a frame: a GOP is a megabyte.
FRAME = 40 * KIB


class Stream:
    """
    A publication that goes on by a GOP when it is told to.

    @ivar frames: how many frames there are so far.
    """

    def __init__(self, server, name, frameSize=FRAME, interval=40):
        self.name = name
        self.frames = 0
        self._frameSize = frameSize
        self._interval = interval
        self._pings = 0
        self._peer = Peer(server.port).publishes(name)
        self._peer.setChunkSize(1 << 20)
        self._peer.sendMedia(VIDEO, AVC_HEADER)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._peer.close()

    def go(self, gops=1):
        """Send whole GOPs; the server has read them afterwards."""
        for number in range(self.frames, self.frames + GOP * gops):
            frame = numberedFrame(number, self._frameSize)
            self._peer.sendMedia(VIDEO, frame, number * self._interval)
        self.frames += GOP * gops
        self._pings += 1
        self._peer.ping(self._pings)

    def end(self):
        self._peer.end()


class Viewer(Peer):
    """
    A player.

    @ivar numbers: of the frames that it has got, in order.
    """

    def __init__(self, server, name, receiveBuffer=RECEIVE_BUFFER, streamId=1):
        super().__init__(server.port, receiveBuffer)
        self.numbers = []
        self.open()
        self.createStream()
        self.send(command("play", 0, None, name, streamId=streamId))
        server.waitFor(f"{self.address} plays live/{name}")

    def receiveSome(self, size):
        """Read so many bytes, of whatever it is."""
        self._receive(len(self._data) + size)

    def upTo(self, frames=None):
        """Read until there have been so many frames, or until the stream's end."""
        while frames is None or len(self.numbers) < frames:
            typeId, payload = self.nextMessage()
            if typeId == VIDEO and payload != AVC_HEADER:
                number = int.from_bytes(payload[5:9], "big")
                assert payload == numberedFrame(number, len(payload))
                self.numbers.append(number)
            elif typeId == COMMAND and b"NetStream.Play.Stop" in payload:
                return

    def checkDecodes(self):
        """After whatever is missing there comes a key frame."""
        last = None
        for number in self.numbers:
            follows = last is not None and number == last + 1
            assert follows or number % GOP == 0, f"{number} comes after {last}"
            last = number
