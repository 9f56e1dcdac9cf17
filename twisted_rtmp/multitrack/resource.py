"""
The configuration that an encoder asks for before it publishes several tracks.

OBS 30.2 and later POST what they can do and what their user wants, and get the tracks
to encode and the address to publish to: OBS, C{frontend/utility/GoLiveAPI_Network.cpp};
Amazon IVS, Multitrack Video Integration API Reference, GetClientConfiguration.
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
from twisted_rtmp.multitrack.encoders import EncoderRequest
from twisted_rtmp.multitrack.offers import (
    KEY_FIELD,
    Offer,
    OfferFile,
    Unsuitable,
    hostOf,
)
from twisted_rtmp.names import parseStreamName, printable
from twisted_rtmp.web.answers import notAllowed
from twisted_rtmp.web.asking import connectRequest
from twisted_rtmp.web.channel import channelOf
from twisted_rtmp.web.cors import Origins

if TYPE_CHECKING:
    from twisted_rtmp.live.registry import Registry

#: The resource's path.
MULTITRACK_PATH = b"multitrack-config"

METHODS = (b"GET", b"HEAD", b"POST", b"OPTIONS")

#: The longest time for the decision whether an encoder may publish, in seconds.  OBS
#: waits 5 for the whole answer, and then tells its user only that there was none.
DECISION_SECONDS = 4.0

#: The only service in the schema.
SERVICE = "IVS"

#: Versions of the schema: of OBS 30.2 to 31.0, and of OBS since.  An answer has the
#: version that was asked for, or the newest.
SCHEMA_VERSIONS = ("2024-06-04", "2025-01-25")

#: The ports that a URL may leave out.
DEFAULT_PORTS = {"RTMP": 1935, "RTMPS": 443}


class MultitrackResource(Resource):
    """
    The offer to encoders.

    The answer to a C{POST} is for the encoder that the request describes; the answer to
    a C{GET} has everything, for people who paste it into OBS.  A fault in an encoder's
    request is answered with status 200, in the form that OBS shows to its user: of any
    other status OBS shows only the number.
    """

    isLeaf = True
    log = Logger()

    def __init__(
        self,
        registry: Registry,
        file: OfferFile,
        ingests: Callable[[], Iterable[tuple[str, int]]],
        origins: Origins,
    ) -> None:
        """
        @param registry: decides whether an encoder may publish.
        @param file: the operator's offer.
        @param ingests: lists where the server listens for encoders: protocols of
            L{DEFAULT_PORTS}, with TCP ports.
        @param origins: the web pages that may read the answers.
        """
        Resource.__init__(self)
        self._registry = registry
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
        """Read the file; if it has become invalid, keep its previous content."""
        try:
            self._file.refresh()
        except (BadField, OSError) as error:
            self.log.error(
                "{path} is invalid; keeping the previous configuration: {error}",
                path=self._file.path,
                error=error,
            )
        return self._file.offer

    def _show(self, request: Request, offer: Offer) -> bytes:
        """Show people the whole offer."""
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
        """Answer an encoder with what suits it, if it may publish."""
        assert request.content is not None
        try:
            value = parseJSON(request.content.read())
        except BadField as error:
            return self._fail(request, f"The request is {error}.", http.BAD_REQUEST)
        try:
            key = Fields(value).need("authentication", aText)
            asked = EncoderRequest.parse(value)
        except BadField as error:
            return self._fail(request, f"The server cannot read this request: {error}.")
        version = value.get("schema_version") if isinstance(value, dict) else None
        if version not in SCHEMA_VERSIONS:
            version = SCHEMA_VERSIONS[-1]
        Deferred.fromCoroutine(self._respond(request, offer, key, asked, str(version)))
        return NOT_DONE_YET

    async def _respond(
        self,
        request: Request,
        offer: Offer,
        key: str,
        asked: EncoderRequest,
        version: str,
    ) -> None:
        """Answer an encoder once it is decided whether it may publish."""
        asking = Deferred.fromCoroutine(self._ask(request, offer, key))
        gone = request.notifyFinish().addErrback(lambda failure: asking.cancel())
        try:
            await asking
        except Refused as refusal:
            if gone.called:
                return
            if not isinstance(refusal, Undecided):
                self._registry.counters.refused += 1
            body = self._fail(request, refusal.description)
        except CancelledError:
            return  # the encoder has left
        else:
            if gone.called:
                return
            body = self._offered(request, offer, key, asked, version)
        request.setHeader(b"content-length", b"%d" % len(body))
        request.write(body)
        request.finish()

    async def _ask(self, request: Request, offer: Offer, key: str) -> None:
        """
        Ask the deciders as if the encoder published.

        @raise Refused: the encoder may not publish.
        """
        if not offer.checksKey:
            return
        name, query = parseStreamName(key)
        connect = connectRequest(request, offer.application, "")
        await self._registry.decide(Action.CONNECT, connect, DECISION_SECONDS)
        publish = StreamRequest(
            offer.application, name, query, connect.address, connect
        )
        await self._registry.decide(Action.PUBLISH, publish, DECISION_SECONDS)

    def _offered(
        self,
        request: Request,
        offer: Offer,
        key: str,
        asked: EncoderRequest,
        version: str,
    ) -> bytes:
        """Write what suits an encoder, or the reason why nothing does."""
        try:
            video = offer.videoFor(asked)
            endpoints = self._endpoints(request, offer, parseStreamName(key)[0])
        except Unsuitable as error:
            return self._fail(request, error.description)
        name = uuid.uuid4().hex
        channelOf(request).note(
            "{peer} gets a configuration of {tracks} video tracks, {sizes}: {name}",
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
                "audio_configurations": offer.audioFor(asked),
            },
        )

    def _endpoints(
        self, request: Request, offer: Offer, key: str | None = None
    ) -> list[dict[str, str]]:
        """
        List the addresses to publish to: those of the file, or those where the server
        listens.

        @param key: the encoder's stream key, which others than OBS want back.
        @raise Unsuitable: there is no such address.
        """
        endpoints = [(each.protocol, each.template) for each in offer.endpoints]
        if not endpoints:
            host = offer.host or _askedHost(request)
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
        """Answer with the reason for no configuration, which OBS shows."""
        channelOf(request).warn(
            "{peer} gets no multitrack configuration: {why}", why=printable(text)
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
    """Describe a configuration; OBS needs all three fields."""
    return {"service": SERVICE, "schema_version": version, "config_id": name}


def _written(request: Request, value: dict[str, Any], code: int = http.OK) -> bytes:
    """Answer a request with a JSON object."""
    request.setResponseCode(code)
    request.setHeader(b"content-type", b"application/json")
    request.setHeader(b"cache-control", b"no-store")
    body = json.dumps(value, indent=2).encode("ascii") + b"\n"
    if request.method == b"HEAD":
        # twisted.web would leave the body out, too, but log the address and its tokens.
        request.setHeader(b"content-length", b"%d" % len(body))
        return b""
    return body


def _askedHost(request: Request) -> str | None:
    """Find the name by which the server was asked, as a URL spells it."""
    if request.getHeader(b"host"):
        host = hostOf(request.getRequestHostname().decode("ascii", "replace"))
        if host is not None:
            return host
    return hostOf(getattr(request.getHost(), "host", ""))
