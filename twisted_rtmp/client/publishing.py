"""Publishes an FLV file, in its own time or faster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, BinaryIO

from twisted.internet.task import deferLater

from twisted_rtmp.client.mover import SuccessiveTimes
from twisted_rtmp.flv.metadata import withoutFileFacts
from twisted_rtmp.flv.tags import FLVReader
from twisted_rtmp.media.cuts import Cuts
from twisted_rtmp.media.flags import MALFORMED, METADATA, SEQUENCE_HEADER
from twisted_rtmp.media.metadata import isMetadata
from twisted_rtmp.media.parts import headerKey
from twisted_rtmp.media.payloads import flagsOf
from twisted_rtmp.wire.constants import NEED_DATA, MessageType
from twisted_rtmp.wire.errors import FLVError
from twisted_rtmp.wire.messages import Message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted_rtmp.client.streams import Publication

#: Bytes that are read from the file at a time.
READ_SIZE = 256 * 1024

#: Bytes that are written to the connection at a time at full speed: its pause mark.
WRITE_SIZE = 64 * 1024

#: A pause of the file's clock that is not waited for, in milliseconds: a file that was
#: cut or joined has holes of hours in its time.
MAX_PAUSE = 10_000

#: Headers that are kept for a server that has not had them, as many as a server keeps
#: for a player, and the bytes of one: a file may have as many as it likes.
KEPT_HEADERS = 64
KEPT_HEADER_BYTES = 256 * 1024

#: Metadata with more bytes than this are sent as they are: no server keeps them.
READ_METADATA_BYTES = 1024 * 1024

_DATA: int = MessageType.DATA_AMF0
_VIDEO: int = MessageType.VIDEO
_SENT = frozenset((int(MessageType.AUDIO), int(MessageType.VIDEO), _DATA))


def readMessages(file: BinaryIO) -> Iterator[Message]:
    """
    Read the tags of an FLV file.

    Facts about the file are left out of its metadata, unless these are too large to be
    read: duration, index, sizes.

    @raise FLVError: this is not FLV, or it ends within a tag; what came before has been
        given out.
    """
    reader = FLVReader()
    while data := file.read(READ_SIZE):
        reader.feed(data)
        while (message := reader.nextTag()) is not NEED_DATA:
            assert isinstance(message, Message)
            if message.typeId in _SENT:
                if len(message.payload) <= READ_METADATA_BYTES:
                    message.payload = withoutFileFacts(message)
                yield message
    if reader.offset != file.tell():
        raise FLVError("the file ends within a tag", offset=reader.offset)


class FilePublisher:
    """
    Sends a file's messages to a publication.

    @ivar messages: how many have been sent.
    @ivar sent: bytes of their payloads.
    @ivar time: how far it is in the file, in milliseconds of its time: all rounds
        together, without holes.
    @ivar move: if set, it is awaited at the next place where a decoder can begin, and
        gives the publication to continue with.
    """

    def __init__(
        self,
        clock: Any,  # noqa: ANN401
        publication: Publication,
        path: str,
        speed: float = 1.0,
    ) -> None:
        """@param speed: a multiple of the file's own; 0 is as fast as possible."""
        self.messages = 0
        self.sent = 0
        self.time = 0
        self.move: Callable[[], Awaitable[Publication]] | None = None
        self._clock = clock
        self._publication = publication
        self._path = path
        self._speed = speed
        self._times = SuccessiveTimes()
        self._last: int | None = None  # frame's timestamp in the file
        self._startedAt = 0.0
        self._pending: list[bytes] = []
        self._pendingBytes = 0
        # The newest header of each kind, for a server that has not had them.
        self._headers: dict[tuple[int, ...], Message] = {}
        self._cuts = Cuts()

    async def run(self, again: Callable[[], bool] = lambda: False) -> None:
        """
        Send the file, with its own timestamps.

        @param again: asked after each round whether there is to be another, whose
            timestamps continue those of the last one.
        @raise FLVError: this is not FLV, or not whole.
        @raise ClientError: the server does not take it any more.
        @raise OSError: the file cannot be read.
        """
        self._startedAt = self._clock.seconds()
        while True:
            before = self.messages
            with open(self._path, "rb") as file:
                try:
                    for message in readMessages(file):
                        await self._send(message)
                finally:
                    self._flush()
            if self.messages == before or not again():
                return
            self._times.streamFollows()
            self._last = None

    async def _send(self, message: Message) -> None:
        """Send a message when it is due and the server takes it."""
        if message.typeId != _DATA:
            await self._wait(message.timestamp)
        self._times.place(message)
        message.flags = flagsOf(message.typeId, message.payload)
        if self.move is not None and self._cuts.mayBegin(message):
            await self._go(self.move)
        self._note(message)
        self._write(message)
        self.messages += 1
        self.sent += len(message.payload)
        if self._pendingBytes >= WRITE_SIZE:
            self._flush()
            # The reactor is to have its turn, too.
            await deferLater(self._clock, 0)
            await self._publication.whenReady()

    def _write(self, message: Message) -> None:
        data = self._publication.packaging.encode(message)
        self._pending.append(data)
        self._pendingBytes += len(data)

    # Continuing elsewhere

    async def _go(self, move: Callable[[], Awaitable[Publication]]) -> None:
        """Publish elsewhere from here on, headers first."""
        self.move = None
        self._flush()
        self._publication = await move()
        time = self._times.newest
        for header in self._headers.values():
            self._write(Message(header.typeId, time, 0, header.payload))

    def _note(self, message: Message) -> None:
        """Keep what decoders need."""
        if message.typeId == _DATA:
            if isMetadata(message):
                self._keep((_DATA,), message)
            return
        flags = message.flags
        self._cuts.messagePassed(message)
        if flags & (SEQUENCE_HEADER | METADATA) and not flags & MALFORMED:
            self._keep(headerKey(message), message)

    def _keep(self, kind: tuple[int, ...], message: Message) -> None:
        """Keep a header instead of the last one of its kind."""
        headers = self._headers
        if len(message.payload) > KEPT_HEADER_BYTES:
            headers.pop(kind, None)
            return
        headers[kind] = message
        if len(headers) > KEPT_HEADERS:
            del headers[next(iter(headers))]

    async def _wait(self, time: int) -> None:
        """
        Wait until a frame is due.

        @param time: its timestamp in the file, in milliseconds.
        """
        last = self._last
        if last is None:
            self._last = time
            return
        step = time - last
        if -MAX_PAUSE < step <= 0:
            return  # audio and video take turns
        self._last = time
        if not 0 < step <= MAX_PAUSE:
            return
        self.time += step
        if self._speed:
            due = self._startedAt + self.time / 1000 / self._speed
            seconds = due - self._clock.seconds()
            if seconds > 0:
                self._flush()
                await deferLater(self._clock, seconds)
                await self._publication.whenReady()

    def _flush(self) -> None:
        if self._pending:
            self._publication.writeMedia(b"".join(self._pending))
            self._pending = []
            self._pendingBytes = 0
