"""The client's way to a connection: authentication, endpoints, TLS."""

from __future__ import annotations

import socket

import pytest
import pytest_twisted
from authserver import PASSWORD, USER, Challenger
from certificates import certificate
from clientkit import (
    LIMITS,
    Collector,
    MemoryEndpoint,
    Outcome,
    refusing,
)
from rtmpclient import AAC_FRAME, AUDIO
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.error import ConnectError
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.internet.task import Clock

from twisted_rtmp.client import (
    RTMPURL,
    ConnectionEnded,
    ConnectUnauthorized,
    connectRTMP,
)
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.wire.messages import Message

#: Twisted 26.10 gives pyOpenSSL objects of pyOpenSSL's own, which 26 dislikes.
twistedsCertificates = pytest.mark.filterwarnings(
    "ignore:Passing pyOpenSSL (X509|PKey) objects is deprecated"
)

NEED_AUTH = "[ AccessManager.Reject ] : [ code=403 need auth; authmod=adobe ] : "


@pytest.fixture
def reactor():
    from twisted.internet import reactor

    return reactor


class Served:
    """A factory on an endpoint, and the way to leave no trace of it."""

    def __init__(self, reactor, authorizer=None):
        self.factory = RTMPFactory(reactor, authorizer=authorizer)
        self.port = None

    async def listen(self, endpoint):
        self.port = await endpoint.listen(self.factory)
        return self

    @property
    def number(self):
        return self.port.getHost().port

    async def stop(self):
        await self.port.stopListening()
        await self.factory.stop()


async def roundTrip(served, client, name="test"):
    """Publish and play on one connection; what came is what was sent."""
    sink = Collector()
    publication = await client.publish(name)
    subscription = await client.play(name, sink)
    sent = [Message(AUDIO, 20 * n, 0, AAC_FRAME * (n + 1)) for n in range(500)]
    for message in sent:
        publication.send(message)
        await publication.whenReady()
    await publication.close()
    assert await subscription.whenEnded() is None
    assert [(m.timestamp, m.payload) for m in sink.messages] == [
        (m.timestamp, m.payload) for m in sent
    ]
    await client.disconnect()
    await served.stop()


# Authentication


@pytest.mark.parametrize(
    ("application", "rounds"),
    [
        ("adobe", ["need auth", "challenge", "right"]),
        ("adobe-opaque", ["need auth", "challenge", "right"]),
        ("adobe/inst", ["need auth", "challenge", "right"]),
        ("llnw", ["need auth", "challenge", "right"]),
        ("llnw/inst", ["need auth", "challenge", "right"]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_authenticated(reactor, application, rounds):
    challenger = Challenger()
    served = await Served(reactor, challenger).listen(TCP4ServerEndpoint(reactor, 0))
    address = f"rtmp://{USER}:{PASSWORD}@127.0.0.1:{served.number}"
    client = await connectRTMP(reactor, f"{address}/{application}/test")
    assert challenger.rounds == rounds
    await roundTrip(served, client)


@pytest_twisted.ensureDeferred
async def test_authenticatedWithAQueryOfTheApplications(reactor):
    challenger = Challenger()
    served = await Served(reactor, challenger).listen(TCP4ServerEndpoint(reactor, 0))
    address = f"rtmp://{USER}:{PASSWORD}@127.0.0.1:{served.number}"
    url = RTMPURL.ofServer(f"{address}/llnw?token=1", "test")
    client = await connectRTMP(reactor, url)
    assert challenger.rounds[-1] == "right"
    await client.disconnect()
    await served.stop()


@pytest.mark.parametrize(
    ("credentials", "why"),
    [
        (f"{USER}:guess@", "the password is wrong"),
        ("bob:secret@", "there is no such user"),
        ("", "wants a user name and a password"),
        (f"{USER}@", "wants a user name and a password"),
    ],
)
@pytest.mark.parametrize("application", ["adobe", "llnw"])
@pytest_twisted.ensureDeferred
async def test_notAuthenticated(reactor, credentials, why, application):
    served = await Served(reactor, Challenger()).listen(TCP4ServerEndpoint(reactor, 0))
    url = f"rtmp://{credentials}127.0.0.1:{served.number}/{application}/test"
    with pytest.raises(ConnectUnauthorized) as caught:
        await connectRTMP(reactor, url)
    assert why in str(caught.value)
    assert caught.value.code == "NetConnection.Connect.Rejected"
    for secret in ("guess", PASSWORD):
        assert secret not in str(caught.value)
    await served.stop()


@pytest.mark.parametrize(
    ("descriptions", "why"),
    [
        ([NEED_AUTH, NEED_AUTH], "rejects the answer"),
        (
            [NEED_AUTH] + ["authmod=adobe : ?reason=needauth&salt=a"] * 2,
            "rejects the answer",
        ),
        (["authmod=adobe : ?reason=needauth&salt=a", NEED_AUTH], "rejects the answer"),
        (["authmod=adobe : ?reason=locked"], "its reason is locked"),
        (["code=403 need auth; authmod=kerberos"], "unknown authentication (kerberos)"),
    ],
)
def test_serversThatAskOnAndOn(descriptions, why):
    clock = Clock()
    left = list(descriptions)

    def refuse(server, command):
        refusing("NetConnection.Connect.Rejected", left.pop(0), close=True)(
            server, command
        )

    endpoint = MemoryEndpoint(clock, connect=refuse)
    outcome = Outcome(connectRTMP(clock, "rtmp://u:p@s/app", endpoint=endpoint))
    clock.advance(0)
    assert isinstance(outcome.error, ConnectUnauthorized)
    assert why in str(outcome.error)
    assert not left
    assert not any(server.open for server in endpoint.servers)
    assert not clock.getDelayedCalls()


# Endpoints


@pytest_twisted.ensureDeferred
async def test_tcp(reactor):
    served = await Served(reactor).listen(TCP4ServerEndpoint(reactor, 0))
    client = await connectRTMP(reactor, f"rtmp://localhost:{served.number}/live/test")
    await roundTrip(served, client)


@pytest_twisted.ensureDeferred
async def test_ipv6(reactor):
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    served = await Served(reactor).listen(
        TCP6ServerEndpoint(reactor, 0, interface="::1")
    )
    client = await connectRTMP(reactor, f"rtmp://[::1]:{served.number}/live/test")
    await roundTrip(served, client)


@pytest_twisted.ensureDeferred
async def test_unix(reactor, tmp_path):
    path = str(tmp_path / "rtmp.sock")
    served = await Served(reactor).listen(UNIXServerEndpoint(reactor, path))
    client = await connectRTMP(
        reactor, "rtmp://server/live/x", endpoint=UNIXClientEndpoint(reactor, path)
    )
    await roundTrip(served, client)


async def secured(reactor, *names):
    pem = certificate(*names)
    options = PrivateCertificate.loadPEM(pem).options()
    served = await Served(reactor).listen(
        SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1")
    )
    return served, trustRootFromCertificates([Certificate.loadPEM(pem)])


@twistedsCertificates
@pytest_twisted.ensureDeferred
async def test_rtmps(reactor):
    served, trusted = await secured(reactor, "localhost")
    client = await connectRTMP(
        reactor,
        f"rtmps://localhost:{served.number}/live/test",
        tlsOptions=optionsForClientTLS("localhost", trusted),
    )
    await roundTrip(served, client)


@twistedsCertificates
@pytest_twisted.ensureDeferred
async def test_rtmpsWithACertificateThatNobodyKnows(reactor):
    served, _ = await secured(reactor, "localhost")
    with pytest.raises(ConnectionEnded, match="certificate verify failed"):
        await connectRTMP(reactor, f"rtmps://localhost:{served.number}/live/test")
    await served.stop()


@twistedsCertificates
@pytest_twisted.ensureDeferred
async def test_rtmpsWithACertificateOfAnother(reactor):
    served, trusted = await secured(reactor, "example.org")
    with pytest.raises(ConnectionEnded, match="certificate is not for this host"):
        await connectRTMP(
            reactor,
            f"rtmps://localhost:{served.number}/live/test",
            tlsOptions=optionsForClientTLS("localhost", trusted),
        )
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_rtmpsToAServerWithoutTLS(reactor):
    served = await Served(reactor).listen(TCP4ServerEndpoint(reactor, 0))
    with pytest.raises(ConnectionEnded):
        await connectRTMP(reactor, f"rtmps://localhost:{served.number}/live/test")
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_nobodyListens(reactor):
    served = await Served(reactor).listen(TCP4ServerEndpoint(reactor, 0))
    number = served.number
    await served.stop()
    with pytest.raises(ConnectError):
        await connectRTMP(
            reactor, f"rtmp://127.0.0.1:{number}/live/test", limits=LIMITS
        )
