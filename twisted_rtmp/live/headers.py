"""The headers of a stream: what newcomers need before the first frame, bounded."""

from __future__ import annotations

from twisted_rtmp.limits import HeaderLimits
from twisted_rtmp.live.budget import Share
from twisted_rtmp.media import payloads as media
from twisted_rtmp.media.parts import headerKey
from twisted_rtmp.wire.messages import Message

#: Sequence headers that are kept for players that join later: of two kinds for each of
#: 16 video and 16 audio tracks.  OBS sends up to 6 of each.
MAX_HEADERS = 64

#: Flags of the messages that are headers.
HEADER = media.SEQUENCE_HEADER | media.METADATA


class Headers:
    """
    The newest metadata of a stream, and its newest sequence header of each kind.

    @ivar limits: the bounds.
    @ivar metadata: the newest C{onMetaData} message, or L{None}.
    @ivar bytes: of all payloads together.
    """

    def __init__(self, limits: HeaderLimits, share: Share) -> None:
        """@param share: is charged for what is kept."""
        self.limits = limits
        self._share = share
        self.metadata: Message | None = None
        self.bytes = 0
        # By kind, in the order in which the kinds first came.
        self._byKind: dict[tuple[int, ...], Message] = {}

    def all(self) -> list[Message]:
        """List what a decoder needs before the first frame: the metadata first."""
        first = [] if self.metadata is None else [self.metadata]
        return first + list(self._byKind.values())

    def keep(self, message: Message) -> bool:
        """
        Keep a sequence header, instead of the last one of its kind.

        @return: whether it is within the limits; if not it is to be discarded.
        """
        kind = headerKey(message)
        size = len(message.payload)
        change = size - _sizeOf(self._byKind.get(kind))
        limits = self.limits
        if size > limits.bytes or self.bytes + change > limits.allBytes:
            return False
        self._byKind[kind] = message
        self.bytes += change
        if len(self._byKind) > MAX_HEADERS:
            oldest = self._byKind.pop(next(iter(self._byKind)))
            self.bytes -= len(oldest.payload)
        self._share.set(self.bytes)
        return True

    def keepMetadata(self, message: Message | None) -> bool:
        """
        Replace the metadata; the values of the last ones are not kept.

        @return: as L{keep}.
        """
        size = _sizeOf(message)
        change = size - _sizeOf(self.metadata)
        limits = self.limits
        if size > limits.metadataBytes or self.bytes + change > limits.allBytes:
            return False
        if self.metadata is not None:
            self.metadata.values = None
        self.metadata = message
        self.bytes += change
        self._share.set(self.bytes)
        return True

    def forget(self) -> None:
        """Keep nothing: the next publisher sends its own."""
        self.keepMetadata(None)
        self._byKind.clear()
        self.bytes = 0
        self._share.set(0)


def _sizeOf(message: Message | None) -> int:
    """Give the bytes of a payload."""
    return 0 if message is None else len(message.payload)
