"""
The bounds of what one peer may make the wire layer use, each with its reason.

Imports the standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

MIB = 1024 * 1024

#: Largest message, in bytes.  A 4K key frame at 80 Mb/s is about 3 MB.
#: Precedents: nginx-rtmp 1 MB (too small for 4K), MediaMTX 10 MiB, the
#: 24-bit field itself 16 MiB - 1, which is the most that can be set here.
MAX_MESSAGE_SIZE = 8 * MIB

#: All unfinished messages of a connection together, in bytes received.  One
#: message of the largest size beside a fair share of others; interleaving
#: clients have an audio message of some hundred bytes there.
MAX_UNFINISHED_BYTES = 12 * MIB

#: Chunk streams a connection may have used.  Clients use up to 6; nginx-rtmp
#: allows 32.  Each costs some hundred bytes for as long as the connection.
MAX_CHUNK_STREAMS = 64

#: Containers within containers in one AMF value.  Real commands nest 3 deep
#: (E-RTMP's capability maps), onMetaData 4 (track maps).
MAX_AMF_DEPTH = 32

#: Values in one AMF message.  An index of key frames in
#: onMetaData has two numbers for each, so an hour at one a second fits.
MAX_AMF_VALUES = 10_000

#: The part of them that may be properties with a name, and containers: these take twice
#: as long as others, and one message must not hold everybody up for more than 20 ms.
DEAR_VALUES = 0.5

#: Values in one command, keys not counted.  OBS' connect has 11, one with every
#: capability of Enhanced RTMP some 40; each costs a hundred times its bytes for as long
#: as the connection.
MAX_COMMAND_VALUES = 500


@dataclass(frozen=True)
class WireLimits:
    """
    The bounds that one connection's wire layer keeps.

    @ivar messageSize: bytes a message, at most 16777215.
    @ivar unfinishedBytes: bytes of all unfinished messages together.
    @ivar chunkStreams: chunk stream ids in use.
    @ivar amfDepth: nesting of AMF containers.
    @ivar amfValues: values in one AMF message.
    @ivar commandValues: values in one command.
    """

    messageSize: int = MAX_MESSAGE_SIZE
    unfinishedBytes: int = MAX_UNFINISHED_BYTES
    chunkStreams: int = MAX_CHUNK_STREAMS
    amfDepth: int = MAX_AMF_DEPTH
    amfValues: int = MAX_AMF_VALUES
    commandValues: int = MAX_COMMAND_VALUES

    @cached_property
    def dearValues(self) -> int:
        """The properties and containers in one AMF message; few are always allowed."""
        few = min(self.amfValues, self.commandValues)
        return max(int(self.amfValues * DEAR_VALUES), few)

    @cached_property
    def forCommands(self) -> WireLimits:
        """The same bounds, with those of a command's values."""
        return replace(self, amfValues=min(self.amfValues, self.commandValues))


#: The bounds of a connection that was given none.
DEFAULT_WIRE_LIMITS = WireLimits()
