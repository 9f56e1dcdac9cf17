"""
Authentication of publishers: C{authmod=adobe} and C{authmod=llnw}.

A server that wants it rejects C{connect} and says how in the description; the client
connects again and adds a query to the application::

    connect app                          -> rejected: code=403 need auth; authmod=adobe
    connect app?authmod=adobe&user=U     -> rejected: ?reason=needauth&user=U&salt=S&
                                            challenge=C&opaque=O
    connect app?authmod=adobe&user=U&challenge=D&response=R&opaque=O  -> accepted, or
                                            rejected: ?reason=authfailed

Adobe's is an add-on of Flash Media Server that Wowza and others took over; Limelight's
(llnw) is HTTP's digest authentication (RFC 2617) in the same form.  There is no
document; ffmpeg, librtmp and GStreamer agree on what is here.  Both hash with MD5 and
protect a password from being read, no more: where it matters use RTMPS.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import md5
from secrets import token_hex

#: Characters of a description that are read; real ones have some 150.
MAX_DESCRIPTION = 2048

#: Limelight's realm, method and quality of protection never change.
_REALM = "live"
_METHOD = "publish"
_QUALITY = "auth"

#: The number of times that a client nonce was used: each is new.
_NONCE_COUNT = "00000001"

#: The instance of an application that names none; Limelight hashes it.
_DEFAULT_INSTANCE = "_definst_"

ADOBE = "adobe"
LIMELIGHT = "llnw"

_MOD = re.compile(r"authmod=(\w+)")
_REASON = re.compile(r"\?reason=(\w+)([^\]\s]*)")


@dataclass(frozen=True)
class AuthChallenge:
    """
    A server's demand for authentication, in the description of a rejected C{connect}.

    @ivar mod: C{"adobe"}, C{"llnw"}, or one that is not known here.
    @ivar reason: C{"needauth"}, C{"authfailed"}, C{"nosuchuser"} and the like; empty
        if it wants the user's name first.
    @ivar fields: salt, challenge, opaque, nonce.
    """

    mod: str
    reason: str
    fields: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def known(self) -> bool:
        """Tell whether L{answer} can answer it."""
        return self.mod in (ADOBE, LIMELIGHT)


def parseChallenge(description: str) -> AuthChallenge | None:
    """
    Read the description of a rejected C{connect}.

    @return: L{None} if it has nothing to do with authentication.
    """
    description = description[:MAX_DESCRIPTION]
    mod = _MOD.search(description)
    if mod is None:
        return None
    reason = _REASON.search(description)
    if reason is None:
        return AuthChallenge(mod[1], "")
    pairs = (part.partition("=") for part in reason[2].split("&"))
    # Values are taken as they are: salts are base64, with its pluses.
    fields = {name: value for name, _, value in pairs if name}
    return AuthChallenge(mod[1], reason[1], fields)


def answer(
    challenge: AuthChallenge,
    application: str,
    username: str,
    password: str,
    nonce: Callable[[], str] = lambda: token_hex(4),
) -> str:
    """
    Make the query that answers a challenge.

    @param challenge: one that is known and gives no reason or C{needauth}.
    @param application: with or without a query.
    @param nonce: makes eight hexadecimal digits, new ones each time.
    @return: the query, without its question mark; to be added to the application.
    """
    # The name goes as it is, as all clients send it.
    query = f"authmod={challenge.mod}&user={username}"
    if not challenge.reason:
        return query
    fields = challenge.fields
    ours = nonce()
    if challenge.mod == ADOBE:
        opaque = fields.get("opaque", "")
        response = adobeResponse(
            username,
            password,
            fields.get("salt", ""),
            opaque or fields.get("challenge", ""),
            ours,
        )
        query += f"&challenge={ours}&response={response}"
        return f"{query}&opaque={opaque}" if opaque else query
    theirs = fields.get("nonce", "")
    response = limelightResponse(username, password, application, theirs, ours)
    return f"{query}&nonce={theirs}&cnonce={ours}&nc={_NONCE_COUNT}&response={response}"


def adobeResponse(
    username: str, password: str, salt: str, challenge: str, clientChallenge: str
) -> str:
    """
    Prove that the password is known.

    @param challenge: the server's C{opaque}, or if it gave none its C{challenge}.
    @return: base64, 24 characters.
    """
    salted = _base64(username + salt + password)
    return _base64(salted + challenge + clientChallenge)


def limelightResponse(
    username: str, password: str, application: str, nonce: str, clientNonce: str
) -> str:
    """
    Prove that the password is known.

    @param application: with or without a query, which is not hashed.
    @return: hexadecimal, 32 characters.
    """
    path = application.partition("?")[0]
    if "/" not in path:
        path = f"{path}/{_DEFAULT_INSTANCE}"
    account = _hex(f"{username}:{_REALM}:{password}")
    request = _hex(f"{_METHOD}:/{path}")
    return _hex(f"{account}:{nonce}:{_NONCE_COUNT}:{clientNonce}:{_QUALITY}:{request}")


def _md5(text: str) -> bytes:
    # The protocol requires it.
    return md5(text.encode("utf-8"), usedforsecurity=False).digest()


def _base64(text: str) -> str:
    return b64encode(_md5(text)).decode("ascii")


def _hex(text: str) -> str:
    return _md5(text).hex()
