"""
The errors of the wire layer.

A peer's violation is a L{ProtocolError}; our own misuse of the API is a
L{UsageError}; a damaged file is an L{FLVError}.  Any other exception that
leaves C{twisted_rtmp.wire} is a bug of ours.  Imports the standard library
only.
"""

from __future__ import annotations


class RTMPError(Exception):
    """The base of every error of this package."""


class UsageError(RTMPError):
    """Our own side asked for something that the protocol does not allow."""


class ProtocolError(RTMPError):
    """
    The peer sent what the protocol, or a limit of ours, does not allow.

    @ivar section: where the rule stands, such as C{"RTMP 1.0, 5.4.1"}; may be
        empty.
    @ivar limit: the bound that was passed, in the unit the message names, or
        L{None} where no bound is involved.
    @ivar got: what came instead, or L{None}.
    """

    def __init__(
        self,
        message: str,
        *,
        section: str = "",
        limit: int | None = None,
        got: int | None = None,
    ) -> None:
        super().__init__(message)
        self.section = section
        self.limit = limit
        self.got = got


class HandshakeError(ProtocolError):
    """The handshake cannot be completed."""


class ChunkError(ProtocolError):
    """The chunk stream cannot be followed any further."""


class MessageError(ProtocolError):
    """A message is whole, but its contents are malformed."""


class AMFError(ProtocolError):
    """AMF0 or AMF3 data is malformed or runs past its message."""


class LimitError(ProtocolError):
    """A bound on what one peer may use was passed; C{limit} says which."""


class FLVError(RTMPError):
    """
    An FLV file or stream is malformed.

    @ivar offset: where, in bytes from the start of the input.
    """

    def __init__(self, message: str, *, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset
