"""
What a stream sends before its first frame, for sinks that begin with that frame.

Without a frame there is nothing to see or to hear: a publisher that sends none costs
no file and no process.
"""

from __future__ import annotations

from twisted_rtmp.ledger import MediaCounts
from twisted_rtmp.media.metadata import isMetadata
from twisted_rtmp.wire.messages import Message

#: Messages that are kept until the first frame comes, and their bytes.  Encoders send
#: metadata and a header of each track, seldom more than a KiB; past it all of them are
#: lost, and the sink begins with the stream's newest headers.
EARLY_MESSAGES = 256
EARLY_BYTES = 256 * 1024


class EarlyMessages:
    """
    The messages before the first frame; of the metadata the newest.

    @ivar messages: those that are kept, in order.
    @ivar superseded: the metadata before the newest.
    @ivar bytes: of the payloads that are kept.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.superseded = MediaCounts()
        self.bytes = 0

    def add(self, message: Message) -> bool:
        """
        Keep a message.

        @return: whether there was room; else all of them are to be given up first.
        """
        if isMetadata(message):
            for position, other in enumerate(self.messages):
                if isMetadata(other):
                    self.superseded.count(self.messages.pop(position))
                    self.bytes -= len(other.payload)
                    break
        if len(self.messages) >= EARLY_MESSAGES or self.bytes > EARLY_BYTES:
            return False
        self.messages.append(message)
        self.bytes += len(message.payload)
        return True

    def take(self) -> tuple[list[Message], MediaCounts]:
        """Give L{messages} and L{superseded}, and keep none."""
        taken = self.messages, self.superseded
        self.messages, self.superseded = [], MediaCounts()
        self.bytes = 0
        return taken
