"""
The configuration that an encoder of several tracks asks for before it publishes.

Imports C{twisted.web}, the factory for typing, and C{multitrackconfig}.

OBS 30.2 and later POST what they can do and what their user wants, and get what to
encode and where to publish: OBS, C{frontend/utility/GoLiveAPI_Network.cpp}; Amazon
IVS, Multitrack Video Integration API Reference, GetClientConfiguration.
"""

from __future__ import annotations

import html
import json
import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from twisted_rtmp.fields import BadField, Fields, aText, parseJSON
from twisted_rtmp.interfaces import Refused, StreamRequest
from twisted_rtmp.live.decisions import Action, Undecided
from twisted_rtmp.multitrack.encoders import Wishes
from twisted_rtmp.multitrack.offers import (
    KEY_FIELD,
    Offer,
    OfferFile,
    Unsuitable,
    hostOf,
)
from twisted_rtmp.names import peerName, printable, streamOf
from twisted_rtmp.web.answers import Origins, notAllowed
from twisted_rtmp.web.asking import connectRequest

if TYPE_CHECKING:
    from twisted_rtmp.live.registry import Registry

#: Where it is.
MULTITRACK_PATH = b"multitrack-config"

METHODS = (b"GET", b"HEAD", b"POST", b"OPTIONS")

#: How long the decision may take whether somebody may publish, in seconds.  OBS waits 5
#: for all of an answer, and then tells its user only that there was none.
DECISION_SECONDS = 4.0

#: The only service that the schema knows.
SERVICE = "IVS"

#: Versions of the schema: of OBS 30.2 to 31.0, and of those since.  An answer is of
#: the version that was asked for, or of the newest.
SCHEMA_VERSIONS = ("2024-06-04", "2025-01-25")

#: What a URL need not say.
DEFAULT_PORTS = {"RTMP": 1935, "RTMPS": 443}


class MultitrackResource(Resource):
    """
    What encoders are offered.

    A C{POST} is answered for the encoder that it describes, a C{GET} with everything,
    as people paste it into OBS.  Whatever is wrong with what an encoder says is told it
    with status 200, in the form that OBS shows to its user: of any other status it says
    no more than the number.
    """

    isLeaf = True
    log = Logger()

    def __init__(
        self,
        server: Registry,
        file: OfferFile,
        ingests: Callable[[], Iterable[tuple[str, int]]],
        origins: Origins,
    ) -> None:
        """
        @param server: has the authorizer, and the clock.
        @param file: what the operator offers.
        @param ingests: tells where the server listens for encoders: protocols, of
            L{DEFAULT_PORTS}, with TCP ports.
        """
        Resource.__init__(self)
        self._server = server
        self._file = file
        self._ingests = ingests
        self._origins = origins

    def render(self, request: Request) -> bytes | int:
        self._origins.mark(request)
        if request.method == b"OPTIONS":
            return self._origins.preflight(request, METHODS)
        if request.method not in METHODS:
            return notAllowed(request, METHODS)
        offer = self._offer()
        if request.method == b"POST":
            return self._answer(request, offer)
        return self._show(request, offer)

    def _offer(self) -> Offer:
        """What the file says; if that has become wrong, what it said before."""
        try:
            self._file.refresh()
        except (BadField, OSError) as error:
            self.log.error(
                "{path} has changed and is not right, what it said stays: {error}",
                path=self._file.path,
                error=error,
            )
        return self._file.offer

    def _show(self, request: Request, offer: Offer) -> bytes:
        """Tell people everything there is."""
        try:
            endpoints = self._endpoints(request, offer)
        except Unsuitable as error:
            return self._fail(request, error.description, http.SERVICE_UNAVAILABLE)
        return _written(
            request,
            {
                # Without an id OBS appends none to the key.
                "meta": _meta(SCHEMA_VERSIONS[-1], ""),
                "ingest_endpoints": endpoints,
                "encoder_configurations": offer.videoFor(None),
                "audio_configurations": offer.audioFor(None),
            },
        )

    def _answer(self, request: Request, offer: Offer) -> bytes | int:
        """Tell an encoder what suits it, if it may publish."""
        assert request.content is not None
        try:
            asked = parseJSON(request.content.read())
        except BadField as error:
            return self._fail(request, f"The request is {error}.", http.BAD_REQUEST)
        try:
            key = Fields(asked).need("authentication", aText)
            wishes = Wishes.parse(asked)
        except BadField as error:
            return self._fail(request, f"The server cannot read this request: {error}.")
        version = asked.get("schema_version") if isinstance(asked, dict) else None
        if version not in SCHEMA_VERSIONS:
            version = SCHEMA_VERSIONS[-1]
        Deferred.fromCoroutine(self._respond(request, offer, key, wishes, str(version)))
        return NOT_DONE_YET

    async def _respond(
        self, request: Request, offer: Offer, key: str, wishes: Wishes, version: str
    ) -> None:
        """Answer when it is known whether the encoder may publish."""
        asking = Deferred.fromCoroutine(self._ask(request, offer, key))
        gone = request.notifyFinish().addErrback(lambda failure: asking.cancel())
        try:
            await asking
        except Refused as refusal:
            if gone.called:
                return
            if not isinstance(refusal, Undecided):
                self._server.counters.refused += 1
            body = self._fail(request, refusal.description)
        except CancelledError:
            return  # the encoder has left
        else:
            if gone.called:
                return
            body = self._offered(request, offer, key, wishes, version)
        request.setHeader(b"content-length", b"%d" % len(body))
        request.write(body)
        request.finish()

    async def _ask(self, request: Request, offer: Offer, key: str) -> None:
        """
        Ask the deciders as if the encoder published.

        @raise Refused: it may not.
        """
        if not offer.checksKey:
            return
        name, query = streamOf(key)
        connect = connectRequest(request, offer.application, "")
        await self._server.decide(Action.CONNECT, connect, DECISION_SECONDS)
        asked = StreamRequest(offer.application, name, query, connect.address, connect)
        await self._server.decide(Action.PUBLISH, asked, DECISION_SECONDS)

    def _offered(
        self, request: Request, offer: Offer, key: str, wishes: Wishes, version: str
    ) -> bytes:
        """What suits an encoder, or why there is nothing."""
        try:
            video = offer.videoFor(wishes)
            endpoints = self._endpoints(request, offer, streamOf(key)[0])
        except Unsuitable as error:
            return self._fail(request, error.description)
        name = uuid.uuid4().hex
        self.log.info(
            "{peer} gets a configuration of {tracks} video tracks, {sizes}: {name}",
            peer=_peerOf(request),
            tracks=len(video),
            sizes=", ".join(f"{each['width']}x{each['height']}" for each in video),
            name=name,
        )
        return _written(
            request,
            {
                "meta": _meta(version, name),
                "ingest_endpoints": endpoints,
                "encoder_configurations": video,
                "audio_configurations": offer.audioFor(wishes),
            },
        )

    def _endpoints(
        self, request: Request, offer: Offer, key: str | None = None
    ) -> list[dict[str, str]]:
        """
        Where to publish: what the file says, or where the server listens.

        @param key: the encoder's; OBS has it anyway, others want it back.
        @raise Unsuitable: nowhere.
        """
        endpoints = [(each.protocol, each.template) for each in offer.endpoints]
        if not endpoints:
            host = offer.host or _hostOf(request)
            if host is None:
                raise Unsuitable("The server does not know its own name.")
            for protocol, port in self._ingests():
                default = port == DEFAULT_PORTS[protocol]
                where = host if default else f"{host}:{port}"
                template = (
                    f"{protocol.lower()}://{where}/{offer.application}{KEY_FIELD}"
                )
                endpoints.append((protocol, template))
        if not endpoints:
            raise Unsuitable("The server does not know where it can be reached.")
        extra = {} if key is None else {"authentication": key}
        return [
            {"protocol": protocol, "url_template": template, **extra}
            for protocol, template in endpoints
        ]

    def _fail(self, request: Request, text: str, code: int = http.OK) -> bytes:
        """Tell why there is no configuration, so that OBS shows it."""
        self.log.warn(
            "{peer} gets no multitrack configuration: {why}",
            peer=_peerOf(request),
            why=printable(text),
        )
        return _written(
            request,
            {
                "meta": _meta(SCHEMA_VERSIONS[-1], ""),
                "status": {"result": "error", "html_en_us": html.escape(text)},
                "ingest_endpoints": [],
                "encoder_configurations": [],
                "audio_configurations": {"live": []},
            },
            code,
        )


def _meta(version: str, name: str) -> dict[str, str]:
    """What tells one configuration from another; OBS needs all three."""
    return {"service": SERVICE, "schema_version": version, "config_id": name}


def _written(request: Request, value: dict[str, Any], code: int = http.OK) -> bytes:
    """Make a request's answer a JSON object."""
    request.setResponseCode(code)
    request.setHeader(b"content-type", b"application/json")
    request.setHeader(b"cache-control", b"no-store")
    body = json.dumps(value, indent=2).encode("ascii") + b"\n"
    if request.method == b"HEAD":
        # twisted.web would leave it out, too, but logs the address, with its tokens.
        request.setHeader(b"content-length", b"%d" % len(body))
        return b""
    return body


def _peerOf(request: Request) -> str:
    return peerName(request.getClientAddress())


def _hostOf(request: Request) -> str | None:
    """How the server was addressed, as a URL spells it."""
    if request.getHeader("host"):
        host = hostOf(request.getRequestHostname().decode("ascii", "replace"))
        if host is not None:
            return host
    return hostOf(getattr(request.getHost(), "host", ""))
