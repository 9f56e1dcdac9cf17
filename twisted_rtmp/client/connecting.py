"""
Connecting to a server: endpoints, TLS, and authentication.

Needs pyOpenSSL for rtmps only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    DNSLookupError,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_rtmp.client import authmod
from twisted_rtmp.client.errors import (
    ClientError,
    ConnectRejected,
    ConnectUnauthorized,
    InvalidURL,
    TimeLimitPassed,
)
from twisted_rtmp.client.limits import MAX_REDIRECTS, ClientLimits
from twisted_rtmp.client.protocol import RTMPClient
from twisted_rtmp.client.url import RTMPURL
from twisted_rtmp.reconnect import MAX_TC_URL_BYTES

if TYPE_CHECKING:
    from twisted.internet.interfaces import (
        IAddress,
        IOpenSSLClientConnectionCreator,
        IReactorTime,
    )

#: The errors with which L{connectRTMP} fails, unless it is cancelled.
CONNECT_ERRORS = (ClientError, ConnectError, DNSLookupError)

#: Connections that one authentication takes: to learn that it is wanted, to get the
#: challenge, to answer it.
AUTHENTICATION_CONNECTIONS = 3

#: Gives the endpoint of a URL.
EndpointFor = Callable[[RTMPURL], "IStreamClientEndpoint"]

_log = Logger()

#: The reasons of a refused authentication, for people.
_REASONS = {
    "authfailed": "the password is wrong",
    "nosuchuser": "there is no such user",
}


class _ClientFactory(Factory):
    """Makes the protocol of one connection."""

    noisy = False

    def __init__(self, clock: IReactorTime, url: RTMPURL, **settings: Any) -> None:  # noqa: ANN401
        self._clock = clock
        self._url = url
        self._settings = settings

    def buildProtocol(self, address: IAddress | None) -> RTMPClient:
        client = RTMPClient(self._clock, self._url, address, **self._settings)
        client.factory = self
        return client


def connectRTMP(
    reactor: Any,  # noqa: ANN401
    url: RTMPURL | str,
    *,
    endpoint: IStreamClientEndpoint | EndpointFor | None = None,
    tlsOptions: IOpenSSLClientConnectionCreator | None = None,
    limits: ClientLimits | None = None,
    properties: Mapping[str, Any] | None = None,
) -> Deferred[RTMPClient]:
    """
    Connect to an RTMP server and its application.

    @param reactor: for the time and, without an endpoint, for the network.
    @param url: a stream's address, or its text; see L{RTMPURL.parse}.  Its user name
        and password are used if the server asks for them.
    @param endpoint: where to connect to, such as a UNIX socket or a proxy, in place of
        the URL's host and port; or a function that gives it for a URL.  With an
        endpoint alone, a redirect to another server is an error.
    @param tlsOptions: for C{rtmps}, in place of those that trust the system's
        certificates and want the host's name in the server's.
    @param properties: added to those of C{connect}.
    @return: fires when the server has accepted C{connect}; fails with one of
        L{CONNECT_ERRORS}: a L{ClientError<twisted_rtmp.client.errors.ClientError>}, or
        a L{ConnectError<twisted.internet.error.ConnectError>} or L{DNSLookupError
        <twisted.internet.error.DNSLookupError>} if there is no connection.  Cancelling
        it closes the connection.
    """
    limits = ClientLimits() if limits is None else limits
    try:
        if isinstance(url, str):
            url = RTMPURL.parse(url)
    except ClientError:
        return fail()
    seconds = limits.connectSeconds
    passed = f"Waited {seconds:g} s for a connection to {url.authority}."

    def ofHost(url: RTMPURL) -> IStreamClientEndpoint:
        return _endpointFor(reactor, url, tlsOptions, seconds)

    def given(url: RTMPURL) -> IStreamClientEndpoint:
        return cast("IStreamClientEndpoint", endpoint)

    def tooLate(result: object, _: float) -> Failure:
        return Failure(TimeLimitPassed(passed, seconds=seconds))

    endpointFor: EndpointFor = ofHost
    if IStreamClientEndpoint.providedBy(endpoint):
        endpointFor = given
    elif endpoint is not None:
        endpointFor = endpoint
    factory = partial(_ClientFactory, reactor, limits=limits, properties=properties)
    connecting = Deferred.fromCoroutine(
        _connect(url, endpointFor, factory, follows=endpointFor is not given)
    )
    return connecting.addTimeout(seconds, reactor, onTimeoutCancel=tooLate)


def _endpointFor(
    reactor: Any,  # noqa: ANN401
    url: RTMPURL,
    tlsOptions: IOpenSSLClientConnectionCreator | None,
    seconds: float,
) -> IStreamClientEndpoint:
    """Make the endpoint of a URL's host and port."""
    endpoint = HostnameEndpoint(reactor, url.host, url.port, timeout=seconds)
    if not url.secure:
        return endpoint
    if tlsOptions is None:
        try:
            from twisted.internet.ssl import optionsForClientTLS
        except ImportError as error:
            raise ClientError(
                "rtmps needs pyOpenSSL: pip install 'twisted-rtmp[tls]'"
            ) from error
        try:
            tlsOptions = optionsForClientTLS(url.host)
        except ValueError as error:
            raise _noHost(url) from error
    return wrapClientTLS(tlsOptions, endpoint)


def _noHost(url: RTMPURL) -> InvalidURL:
    return InvalidURL(f"{url.host} is not a valid host name")


async def _connect(
    url: RTMPURL,
    endpointFor: EndpointFor,
    factoryFor: Callable[..., _ClientFactory],
    follows: bool,
) -> RTMPClient:
    """Connect, and follow servers that redirect their clients."""
    redirects = 0
    while True:
        try:
            return await _connectTo(url, endpointFor(url), factoryFor)
        except ConnectRejected as error:
            if not (follows and error.redirect):
                raise
            url = rejectedTo(url, error, redirects)
        redirects += 1


def rejectedTo(url: RTMPURL, error: ConnectRejected, redirects: int) -> RTMPURL:
    """
    Make the address that a server redirects its clients to.

    @param url: the server's.
    @param error: its answer, with a C{redirect}.
    @param redirects: how many servers have done so before.
    @raise ConnectRejected: the address is invalid, or this server is one too many.
    """
    if redirects == MAX_REDIRECTS:
        raise ConnectRejected(
            f"{MAX_REDIRECTS} servers in a row have redirected the client.",
            code=error.code,
        ) from error
    try:
        if len(error.redirect) > MAX_TC_URL_BYTES:
            raise InvalidURL(f"it has more than {MAX_TC_URL_BYTES} bytes")
        to = url.rejectedTo(error.redirect)
    except InvalidURL as invalid:
        raise ConnectRejected(
            f"The server's redirect is invalid: {invalid}.", code=error.code
        ) from error
    _log.info("{url} redirects to {to}", url=str(url), to=str(to))
    return to


async def _connectTo(
    url: RTMPURL,
    endpoint: IStreamClientEndpoint,
    factoryFor: Callable[..., _ClientFactory],
) -> RTMPClient:
    """Connect, and again with the credentials that the server asks for."""
    query = ""
    for _ in range(AUTHENTICATION_CONNECTIONS):
        factory = factoryFor(url, query=query)
        try:
            client = cast("RTMPClient", await endpoint.connect(factory))
        # An endpoint's error for a name that it cannot even look up.
        except ValueError as error:
            raise _noHost(url) from error
        except ConnectingCancelledError as error:
            # Endpoints have an error of their own for it.
            raise CancelledError from error
        try:
            await client.accepted
        except ConnectRejected as error:
            client.abort()
            challenge = authmod.parseChallenge(error.description)
            if challenge is None:
                raise
            query = _answer(challenge, url, error, query)
        except BaseException:
            # Cancelled, too: nobody else has this connection.
            client.abort()
            raise
        else:
            return client
    raise ConnectUnauthorized("The server asks for credentials again and again.")


def _answer(
    challenge: authmod.AuthChallenge, url: RTMPURL, error: ConnectRejected, before: str
) -> str:
    """
    Make the query for the next connection.

    @raise ConnectUnauthorized: the challenge cannot be answered.
    """
    if not challenge.known:
        why = f"it wants an unknown authentication ({challenge.mod})"
    elif challenge.reason in _REASONS:
        why = _REASONS[challenge.reason]
    elif not url.username or not url.password:
        why = "it wants a user name and a password"
    elif challenge.reason not in ("", "needauth"):
        why = f"its reason is {challenge.reason}"
    elif "&response=" in before or (before and not challenge.reason):
        why = "it rejects the answer to its challenge"
    else:
        return authmod.answer(challenge, url.application, url.username, url.password)
    raise ConnectUnauthorized(f"Unauthorized: {why}.", code=error.code) from error
