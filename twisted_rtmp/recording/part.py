"""One file of a recording: its head, its tags, and its way to the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred

from twisted_rtmp.disk import Disk, DiskFile, FileWriter
from twisted_rtmp.flv.head import FLAGS_OFFSET, HEAD_SIZE, encodeFlags
from twisted_rtmp.flv.muxer import FLVMuxer
from twisted_rtmp.flv.survey import MediaSurvey
from twisted_rtmp.flv.tags import encodeTag
from twisted_rtmp.interfaces import IStreamPart
from twisted_rtmp.ledger import MediaCounts
from twisted_rtmp.media.payloads import CODED
from twisted_rtmp.places import Places
from twisted_rtmp.recording.names import EXTENSION, RecordName
from twisted_rtmp.recording.settings import RecordingSettings
from twisted_rtmp.wire.messages import Message


@dataclass(frozen=True)
class FinishedFile:
    """
    A file that nothing more will be written to.

    @ivar path: where it is.
    @ivar application: the stream's application.
    @ivar name: the stream's name.
    @ivar duration: the last tag's time in the file, in seconds.
    @ivar size: bytes.
    @ivar finished: whether its length and index are written; if not, the repair
        command writes them.
    @ivar track: such as C{audio1}, of the file of one track; empty for the stream's
        own.
    """

    path: str
    application: str
    name: str
    duration: float
    size: int
    finished: bool = True
    track: str = ""


@dataclass
class Shared:
    """
    The things that all recorders of one folder share.

    @ivar settings: the folder's settings.
    @ivar disk: writes the files.
    @ivar name: makes their names.
    @ivar now: the time for names, in seconds since 1970.
    @ivar places: bounds how many there are.
    @ivar tellFinished: called with each finished file.
    @ivar tellFailed: called with the error of each file that fails.
    @ivar tellRefused: called with the label of each stream that gets no place, and why.
    """

    settings: RecordingSettings
    disk: Disk
    name: RecordName
    now: Callable[[], float]
    places: Places
    tellFinished: Callable[[FinishedFile], object]
    tellFailed: Callable[[OSError], object]
    tellRefused: Callable[[str, str], object]


class _Stored:
    """The state of a file once one more batch is stored: its checkpoint."""

    __slots__ = ("lastTime",)

    def __init__(self, lastTime: int) -> None:
        self.lastTime = lastTime


class RecordedFile:
    """
    One file of a recording.

    @ivar muxer: makes its tags, on its time line.
    @ivar begun: when, on the reactor's clock, in seconds.
    @ivar named: the time in its name, in seconds since 1970.
    @ivar error: why it takes nothing more, or L{None}.
    """

    def __init__(
        self,
        shared: Shared,
        stream: IStreamPart,
        headers: Sequence[Message],
        failed: Callable[[RecordedFile, OSError], object],
        track: str = "",
        beside: RecordedFile | None = None,
    ) -> None:
        """
        @param headers: metadata and sequence headers to begin with.
        @param failed: called when the file takes nothing more.
        @param track: what the name gets at its end.
        @param beside: a file whose name and time line this one shares.
        """
        self.muxer = FLVMuxer(HEAD_SIZE)
        if beside is not None:
            self.muxer.timeline.base = beside.muxer.timeline.base
        self.begun = shared.disk.reactor.seconds()
        self.named: float = shared.now() if beside is None else beside.named
        self.error: OSError | None = None
        self._empty = True
        self._headers = list(headers)
        self._survey = MediaSurvey()
        components = shared.name.render(stream.application, stream.name, self.named)
        if track:
            components[-1] += f".{track}"
        self._file = DiskFile(
            shared.settings.directory,
            components,
            suffix=EXTENSION,
            minFree=shared.settings.minFree,
        )
        self._writer = FileWriter(
            shared.disk,
            self._file,
            lambda error: failed(self, error),
            syncSeconds=shared.settings.fsyncSeconds,
            stallSeconds=shared.settings.stallSeconds,
            party=stream.connection,
            kept=stream.share().set,
        )
        self._writer.registerProducer(stream.throttle(), True)

    def send(self, messages: Sequence[Message], counts: MediaCounts) -> Deferred[None]:
        """
        Hand a batch to the disk.

        @param counts: the messages are added to it.
        @return: as L{FileWriter.send}.
        """
        if self._empty:
            return self._sendFirst(messages, counts)
        muxer = self.muxer
        survey = self._survey
        before = muxer.position
        buffers = muxer.mux(messages, counts)
        if survey.learnBatch(messages, counts):
            self._writer.overwrite(encodeFlags(survey.expectedKinds), FLAGS_OFFSET)
        return self._writer.send(
            buffers, muxer.position - before, _Stored(muxer.timeline.lastTime)
        )

    def _sendFirst(
        self, messages: Sequence[Message], counts: MediaCounts
    ) -> Deferred[None]:
        """Begin the file: head, headers, the first batch."""
        self._empty = False
        muxer = self.muxer
        survey = self._survey
        headers = [m for m in self._headers if not survey.takeMetadata(m)]
        self._headers = []
        for message in headers:
            survey.learnMessage(message)
        tags = [encodeTag(m.typeId, 0, m.payload) for m in headers]
        muxer.position += sum(map(len, tags))
        messages = self._takeMetadata(messages, counts)
        buffers = muxer.mux(messages, counts)
        survey.learnBatch(messages, counts)
        head = survey.encodeHead()
        buffers[:0] = [head.start, head.end, *tags]
        return self._writer.send(
            buffers,
            muxer.position - head.zeros,
            _Stored(muxer.timeline.lastTime),
            hole=head.zeros,
        )

    def _takeMetadata(
        self, messages: Sequence[Message], counts: MediaCounts
    ) -> Sequence[Message]:
        """
        Take the metadata that comes before the first frame for the head.

        @return: what is left to write as tags.
        """
        rest: list[Message] = []
        for position, message in enumerate(messages):
            if message.flags & CODED:
                return [*rest, *messages[position:]]
            if self._survey.takeMetadata(message):
                counts.count(message)
            else:
                rest.append(message)
        return rest

    def finish(self) -> Deferred[bool]:
        """
        Write duration and index, and close the file.

        @return: as L{FileWriter.close}.
        """
        return self._writer.close(self._finalHead)

    def _finalHead(self, size: int, stored: _Stored, hasRoom: bool) -> bytes:
        """
        Make the head, on the disk's thread, when nothing is added any more.

        @param hasRoom: whether the disk has room for the index.
        @return: all but the zeros at its end: they are there already.
        """
        times, positions = self.muxer.index.before(size if hasRoom else 0)
        head = self._survey.encodeFinalHead(size, stored.lastTime, times, positions)
        return head.start

    def forget(self) -> None:
        """Forget what wrote the file, which is closed: no circle of references."""
        self._headers = []
        del self._writer, self._survey

    @property
    def path(self) -> str:
        """The path of the file; empty as long as there is no file."""
        return self._file.path

    @property
    def size(self) -> int:
        """Bytes stored."""
        return self._file.size

    @property
    def duration(self) -> float:
        """The last time stored, in seconds."""
        stored = self._file.checkpoint
        return stored.lastTime / 1000 if stored else 0.0
