"""
The handshake: what either end says before the first chunk.

::

    client   C0 C1 ->          C2 ->           chunks
    server            <- S0 S1 S2     chunks

C0 and S0 are one byte, the version.  The others are 1,536 bytes each: C1 and S1 a
time, four bytes of zeros and random bytes; C2 and S2 echo them.  RTMP 1.0, 5.2.

Flash Player 9 and its successors put their version in place of the zeros and a
digest among the random bytes.  Then C2 and S2 prove with a digest that C1 and S1
were understood, and echo nothing.  No document of the protocol's owner says so; its
clients and servers do.  A C1 and S1 of that kind::

    schema 0   time 4 | version 4 | offset 4 | digest 32 among 760 bytes | 764
    schema 1   time 4 | version 4 | 764      | offset 4 | digest 32 among 760 bytes

Imports the standard library and its own package's constants and errors.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections.abc import Callable
from enum import Enum

from twisted_rtmp.wire.constants import HANDSHAKE_SIZE, RTMP_VERSION
from twisted_rtmp.wire.errors import HandshakeError, UsageError

_SECTION = "RTMP 1.0, 5.2.2"

#: Versions that are RTMP, but encrypted: RTMPE, and with XTEA and Blowfish.
RTMPE_VERSIONS = (6, 8, 9)

#: Versions from here on are not allowed, so that text can be told.  RTMP 1.0, 5.2.2.
FIRST_TEXT_VERSION = 32

#: The first byte of a TLS record that carries a handshake.  RFC 8446, 5.1.
_TLS = 22

#: How much of a text is quoted to people, in bytes.
_QUOTED = 24

#: How Flash begins to ask whether it may connect.
_POLICY = b"<policy-file-request"

#: Where the offset of the digest stands, in bytes, by schema.
_BASES = (8, 772)

#: The digest begins after the offset's four bytes, within so many places.
_PLACES = 728

_DIGEST_SIZE = 32

# The keys are public: every client and server of the kind has them.
_COMMON_KEY = bytes.fromhex(
    "f0eec24a8068bee82e00d0d1029e7e576eec5d2d29806fab93b8e636cfeb31ae"
)
_CLIENT_KEY = b"Genuine Adobe Flash Player 001"
_SERVER_KEY = b"Genuine Adobe Flash Media Server 001"

#: Bytes 4 to 7 of C1 and S1 with a digest.  ffmpeg as a player looks for a digest
#: when the first of S1's is 3 or more, librtmp when it is not 0; so they are zeros
#: without one.
_CLIENT_VERSION = b"\x09\x00\x7c\x02"
_SERVER_VERSION = b"\x04\x05\x00\x01"
_NO_VERSION = b"\0\0\0\0"


class _State(Enum):
    """The part that is awaited of the peer."""

    VERSION = "C0 or S0"
    PACKET = "C1 or S1"
    ECHO = "C2 or S2"
    DONE = "nothing"


#: From a state to the one after it: there is one way.
_NEXT = {
    _State.VERSION: _State.PACKET,
    _State.PACKET: _State.ECHO,
    _State.ECHO: _State.DONE,
}


class _Handshake:
    """
    The common part of both ends: takes bytes, and says what to answer.

    Between two reads a C1 or S1 that has partly come is all that is kept; of a C2 or
    S2 its length, since nothing in it could change what follows.

    @ivar digest: whether both ends used digests.
    """

    def __init__(self, time: int, random: Callable[[int], bytes]) -> None:
        self.digest = False
        self._time = time
        self._random = random
        self._state = _State.VERSION
        self._received = bytearray()
        self._echoMissing = HANDSHAKE_SIZE

    @property
    def done(self) -> bool:
        """Tell whether chunks may be sent, and are what the peer sends."""
        return self._state is _State.DONE

    def receive(self, data: bytes) -> None:
        """Take what a read brought; L{dataToSend} looks at it."""
        self._received += data

    def dataToSend(self) -> bytes:
        """
        Go on with what has been received.

        @return: what is to be sent to the peer now, often nothing; each byte is
            given once.
        @raise HandshakeError: the peer's version is not one of RTMP.  All
            further calls raise it again.
        """
        received = self._received
        reply = b""
        if self._state is _State.VERSION and received:
            self._checkVersion(received[0])
            self._advance()
        if self._state is _State.PACKET and len(received) > HANDSHAKE_SIZE:
            reply = self._answer(bytes(received[1 : HANDSHAKE_SIZE + 1]))
            del received[: HANDSHAKE_SIZE + 1]
            self._advance()
        if self._state is _State.ECHO:
            size = min(len(received), self._echoMissing)
            del received[:size]
            self._echoMissing -= size
            if not self._echoMissing:
                self._advance()
        return reply

    def trailing(self) -> bytes:
        """
        Take the bytes that came after the handshake; each is given once.

        @raise UsageError: the handshake is not L{done}.
        """
        if not self.done:
            raise UsageError("the handshake is not done")
        trailing = bytes(self._received)
        self._received.clear()
        return trailing

    def _advance(self) -> None:
        self._state = _NEXT[self._state]

    def _checkVersion(self, version: int) -> None:
        """Raise HandshakeError for a version that is not one of RTMP."""
        raise NotImplementedError

    def _answer(self, packet: bytes) -> bytes:
        """Make the answer to C1 or S1."""
        raise NotImplementedError

    def _text(self, version: int) -> HandshakeError:
        """The error for a peer that speaks no RTMP."""
        quoted = bytes(self._received[:_QUOTED])
        message = f"this is not RTMP, but something that begins with {quoted!r}"
        if quoted[: len(_POLICY)] == _POLICY[: len(quoted)]:
            message = "a request for a Flash policy file, which is not served here"
        return HandshakeError(message, section=_SECTION, got=version)


class ServerHandshake(_Handshake):
    """
    The server's part.

    S0, S1 and S2 go out as soon as C0 and C1 are there; any C2 will do.  A C1 with a
    digest that is right is answered with digests, in its schema.  Any other C1 is
    echoed, also one whose digest is wrong: that is no reason to refuse a client.
    """

    def __init__(
        self, *, time: int = 0, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        """
        @param time: milliseconds, for S1: the time that this end's timestamps count
            from.
        @param random: gives so many random bytes.
        """
        super().__init__(time, random)

    def _checkVersion(self, version: int) -> None:
        # A version that is only unknown is answered with ours: the client may come
        # down to it, or go.  RTMP 1.0, 5.2.2.
        if version in RTMPE_VERSIONS:
            raise HandshakeError(
                "the client wants RTMPE, which is obsolete; RTMPS is the safe one",
                section=_SECTION,
                got=version,
            )
        if version == _TLS:
            raise HandshakeError(
                "the client speaks TLS (RTMPS), but here plain RTMP is spoken",
                section=_SECTION,
                got=version,
            )
        if version >= FIRST_TEXT_VERSION:
            raise self._text(version)

    def _answer(self, packet: bytes) -> bytes:
        s0 = bytes((RTMP_VERSION,))
        found = _findDigest(packet, _CLIENT_KEY)
        if found is None:
            s1 = _packet(self._time, _NO_VERSION, self._random)
            return s0 + s1 + packet
        self.digest = True
        schema, digest = found
        s1 = _packet(self._time, _SERVER_VERSION, self._random)
        return (
            s0
            + _withDigest(s1, schema, _SERVER_KEY)
            + _proof(digest, _SERVER_KEY, self._random)
        )


class ClientHandshake(_Handshake):
    """
    The client's part.

    C0 and C1 are what the first L{dataToSend} gives; C2 goes out when S1 is there,
    and the handshake is done after S2.  Nothing that the server proves is checked,
    since nothing would depend on it; an S1 without a right digest is echoed.
    """

    def __init__(
        self,
        *,
        digest: bool = True,
        schema: int = 0,
        time: int = 0,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """
        @param digest: send a C1 with a digest, as ffmpeg and librtmp do.
        @param schema: where the digest goes: 0, as ffmpeg does, or 1.
        @param time: milliseconds, for C1: the time that this end's timestamps count
            from.
        @param random: gives so many random bytes.
        @raise UsageError: there is no such schema.
        """
        super().__init__(time, random)
        if schema not in (0, 1):
            raise UsageError(f"there is no digest schema {schema}")
        self._wantsDigest = digest
        self._schema = schema
        self._started = False

    def dataToSend(self) -> bytes:
        if self._started:
            return super().dataToSend()
        self._started = True
        c0 = bytes((RTMP_VERSION,))
        if self._wantsDigest:
            c1 = _packet(self._time, _CLIENT_VERSION, self._random)
            c1 = _withDigest(c1, self._schema, _CLIENT_KEY)
        else:
            c1 = _packet(self._time, _NO_VERSION, self._random)
        # A server that spoke first is heard, too.
        return c0 + c1 + super().dataToSend()

    def _checkVersion(self, version: int) -> None:
        if version >= FIRST_TEXT_VERSION:
            raise self._text(version)
        if version != RTMP_VERSION:
            raise HandshakeError(
                f"the server speaks version {version} of RTMP, not {RTMP_VERSION}",
                section=_SECTION,
                limit=RTMP_VERSION,
                got=version,
            )

    def _answer(self, packet: bytes) -> bytes:
        found = _findDigest(packet, _SERVER_KEY) if self._wantsDigest else None
        if found is None:
            return packet
        self.digest = True
        return _proof(found[1], _CLIENT_KEY, self._random)


def _packet(time: int, version: bytes, random: Callable[[int], bytes]) -> bytes:
    """A C1 or S1, still without a digest."""
    return struct.pack(">I", time & 0xFFFFFFFF) + version + random(HANDSHAKE_SIZE - 8)


def _digestStart(packet: bytes, schema: int) -> int:
    """Find where the digest of a C1 or S1 begins, in bytes."""
    base = _BASES[schema]
    return base + 4 + sum(packet[base : base + 4]) % _PLACES


def _digestOf(packet: bytes, start: int, key: bytes) -> bytes:
    """The digest of a C1 or S1: of all but the place where it stands."""
    rest = packet[:start] + packet[start + _DIGEST_SIZE :]
    return hmac.digest(key, rest, "sha256")


def _withDigest(packet: bytes, schema: int, key: bytes) -> bytes:
    start = _digestStart(packet, schema)
    digest = _digestOf(packet, start, key)
    return packet[:start] + digest + packet[start + _DIGEST_SIZE :]


def _findDigest(packet: bytes, key: bytes) -> tuple[int, bytes] | None:
    """
    Look for a digest that is right.

    @return: its schema and the digest; L{None} if there is none.
    """
    if packet[4:8] == _NO_VERSION:
        return None
    for schema in (1, 0):
        start = _digestStart(packet, schema)
        digest = packet[start : start + _DIGEST_SIZE]
        if digest == _digestOf(packet, start, key):
            return schema, digest
    return None


def _proof(digest: bytes, key: bytes, random: Callable[[int], bytes]) -> bytes:
    """A C2 or S2 that proves that the other end's digest was understood."""
    noise = random(HANDSHAKE_SIZE - _DIGEST_SIZE)
    return noise + hmac.digest(
        hmac.digest(key + _COMMON_KEY, digest, "sha256"), noise, "sha256"
    )
