"""
A server that wants Adobe's or Limelight's authentication, in two rounds as others do.

The application's name chooses the kind: adobe, adobe-opaque, llnw.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from zope.interface import implementer

from twisted_rtmp.client.authmod import adobeResponse, limelightResponse
from twisted_rtmp.interfaces import ConnectRequest, IAuthorizer, Refused, StreamRequest

USER, PASSWORD = "alice", "secret"
SALT, CHALLENGE, OPAQUE, NONCE = "s4+/lt==", "Y2hh+A==", "b3Bh/Q==", "N0nc3/+="


@implementer(IAuthorizer)
class Challenger:
    """Lets those connect who prove that they know the password."""

    def __init__(self) -> None:
        self.rounds: list[str] = []

    def connect(self, request: ConnectRequest) -> None:
        kind = request.application.partition("/")[0]
        mod = "llnw" if kind == "llnw" else "adobe"
        # A plus is a plus: nobody escapes what base64 has.
        query = dict(parse_qsl(request.query.replace("+", "%2B")))
        if query.get("authmod") != mod:
            self.rounds.append("need auth")
            raise Refused(
                f"[ AccessManager.Reject ] : [ code=403 need auth; authmod={mod} ] : "
            )
        if query["user"] != USER:
            self._reject(mod, "nosuchuser")
        if "response" not in query:
            self.rounds.append("challenge")
            more = f"&salt={SALT}&challenge={CHALLENGE}"
            if kind == "adobe-opaque":
                more += f"&opaque={OPAQUE}"
            if kind == "llnw":
                more = f"&nonce={NONCE}"
            self._reject(mod, f"needauth&user={USER}{more}")
        if kind == "llnw":
            wanted = limelightResponse(
                USER, PASSWORD, request.application, NONCE, query["cnonce"]
            )
        else:
            wanted = adobeResponse(
                USER,
                PASSWORD,
                SALT,
                OPAQUE if kind == "adobe-opaque" else CHALLENGE,
                query["challenge"],
            )
        if query["response"] != wanted:
            self.rounds.append("wrong")
            self._reject(mod, "authfailed&opaque=x")
        self.rounds.append("right")

    @staticmethod
    def _reject(mod: str, reason: str) -> None:
        raise Refused(
            f"[ AccessManager.Reject ] : [ authmod={mod} ] : ?reason={reason}"
        )

    def publish(self, request: StreamRequest) -> None:
        pass

    def play(self, request: StreamRequest) -> None:
        pass
