"""Flags: the kind of an audio or video payload, in bits of one integer."""

from __future__ import annotations

from functools import cache

#: A coded frame, with something in it: what a ledger counts as a frame.
CODED = 0x001

#: A coded frame of video that decoding can start at; never without L{CODED}.
KEY_FRAME = 0x002

#: A decoder configuration, which a late player needs first.
SEQUENCE_HEADER = 0x004

#: The end of a sequence.
SEQUENCE_END = 0x008

#: Metadata in a video message, such as C{colorInfo}.
METADATA = 0x010

#: A video info or command frame: client-side seeking.
COMMAND = 0x020

#: The enhanced header, with FourCCs.
ENHANCED = 0x040

#: Enhanced, and the tracks are numbered.
MULTITRACK = 0x080

#: With L{SEQUENCE_HEADER}: an enhanced audio MultichannelConfig, which goes with the
#: other sequence header of its track and does not replace it.
MULTICHANNEL = 0x100

#: Nothing in it: a zero-length payload (legal, and silence for audio), or the header
#: of a coded frame without the frame.
EMPTY = 0x200

#: Too short for what it announces, or nested deeper than can be meant.
MALFORMED = 0x400

#: ModEx extensions stand before the packet type: not every player can read on.
MOD_EX = 0x800

#: With L{METADATA}: of another codec than track 0, but without a number; FFmpeg sends
#: further tracks' so.  One message cannot tell: a stream sets it, no parser does.
FOREIGN = 0x1000

# Flags are looked up by first byte, then by second.  A row of 256 is shared by all
# first bytes that mean the same: some 15 rows of 2 kB altogether.

#: Flags by the second byte of a payload.
Row = tuple[int, ...]


@cache
def rowOf(*flags: int) -> Row:
    """List the flags for second bytes 0, 1, ..., the last for all that follow."""
    return flags + flags[-1:] * (256 - len(flags))
