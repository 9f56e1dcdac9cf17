"""
What an audio or video payload is, in bits of one integer.

Imports nothing.
"""

from __future__ import annotations

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
