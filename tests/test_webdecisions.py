"""Decisions about players over HTTP and WebSocket."""

from __future__ import annotations

import pytest
from httpclient import Getter, Socket
from rtmpclient import decideBy
from twisted.internet.defer import Deferred
from webkit import Answers, Authorizer, Publisher

from twisted_rtmp.auth import AllowList
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import Refused
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.web import HTTPSite


@pytest.fixture
def factory(clock):
    # Publishers that say nothing while tests wait for players.
    return RTMPFactory(clock, latency=0, limits=ServerLimits(publisherIdleSeconds=1000))


@pytest.fixture
def site(clock, factory):
    return HTTPSite(factory.registry)


@pytest.fixture(params=[Getter, Socket], ids=["response", "socket"])
def play(request):
    return Answers(request.param)


@pytest.fixture
def authorizer(factory):
    return decideBy(factory, Authorizer())


def test_theAuthorizerIsAskedAsOverRTMP(factory, authorizer, site, play):
    publisher = Publisher(factory)
    authorizer.connects.clear()
    client = play(
        site,
        "/live/key.flv?token=1&x=%20",
        user_agent="Mozilla/5.0",
        referer="http://a/",
    )
    assert play.isThere(client)
    [connect], [request] = authorizer.connects, authorizer.plays
    assert (connect.application, connect.query) == ("live", "token=1&x=%20")
    assert connect.address == client.address
    host = "localhost" if play.kind is Socket else "localhost:8080"
    assert connect.properties == {
        "app": "live",
        "tcUrl": f"http://{host}/live",
        "flashVer": "Mozilla/5.0",
        "pageUrl": "http://a/",
    }
    assert (request.application, request.name) == ("live", "key")
    assert request.query == "token=1&x=%20"
    assert request.connect is connect
    publisher.leave()


@pytest.mark.parametrize("which", ["connectAnswer", "playAnswer"])
def test_refusals(factory, authorizer, site, play, lines, which):
    Publisher(factory)
    setattr(authorizer, which, Refused("Pay first, caf\xe9."))
    client = play(site)
    assert play.status(client) == 403
    body = client.body if isinstance(client, Getter) else client.rejection
    assert body.decode() == "Pay first, caf\xe9.\n"
    assert factory.counters.refused == 1
    assert any("is refused live/key to play: Pay first" in line for line in lines)
    assert factory.players("live", "key") == []
    head = Getter(site, "/live/key.flv", "HEAD")
    assert (head.status, head.body) == (403, b"")


def test_applicationsThatAreNotAllowed(factory, site, play):
    decideBy(factory, AllowList(["live"]))
    assert play.status(play(site, "/other/key.flv")) == 403


def test_anotherName(factory, authorizer, site, play):
    Publisher(factory, "secret")
    authorizer.playAnswer = "secret"
    client = play(site, "/live/public.flv")
    assert play.isThere(client)
    assert Getter(site, "/live/public.flv", "HEAD").status == 200


def test_aDecisionThatTakesTime(factory, authorizer, site, play):
    Publisher(factory)
    authorizer.playAnswer = Deferred()
    client = play(site)
    client.pump()
    assert not client.raw
    authorizer.playAnswer.callback(None)
    assert play.isThere(client)


def test_aRefusalThatTakesTime(factory, authorizer, site, play):
    async def refuse():
        await waiting
        raise Refused("Too late.")

    waiting = Deferred()
    authorizer.playAnswer = refuse()
    client = play(site)
    waiting.callback(None)
    assert play.status(client) == 403


def test_anAuthorizerThatHangs(clock, factory, authorizer, site, play, lines):
    """The log names the authorizer, and does not blame the peer."""
    cancelled = []
    authorizer.playAnswer = Deferred(cancelled.append)
    client = play(site)
    clock.advance(factory.limits.decisionSeconds - 1)
    client.pump()
    assert not client.raw
    clock.advance(1)
    assert play.status(client) == 503
    assert len(cancelled) == 1
    [line] = [line for line in lines if "has not decided within 10 s" in line]
    assert "webkit.Authorizer" in line
    assert factory.counters.refused == factory.counters.cut == 0
    client.leave()
    assert not factory.connections


def test_guessesAreSlowedDown(clock, factory, authorizer, site, play):
    authorizer.playAnswer = Refused()
    limits = factory.limits.addresses
    guesses = [play(site) for _ in range(int(limits.refusalBurst) * 2)]

    def answers():
        return [play.status(guess) for guess in guesses].count(403)

    assert answers() == limits.refusalBurst
    clock.pump([1 / limits.refusalRate] * 5)
    assert abs(answers() - limits.refusalBurst - 5) <= 1
    # Those who must wait too long, for connect or for play, are told so.
    more = [play(site) for _ in range(int(limits.refusalRate * 15))]
    for _ in range(int(2 * factory.limits.decisionSeconds) + 1):
        clock.advance(1)
        statuses = {play.status(guess) for guess in more}
    assert statuses == {403, 503}


def test_aPeerThatLeavesDuringADecision(factory, authorizer, site, play):
    cancelled = []
    authorizer.connectAnswer = Deferred(cancelled.append)
    client = play(site)
    client.leave()
    assert len(cancelled) == 1
    assert authorizer.plays == []
    assert not factory.connections


def test_anAuthorizerThatFails(factory, authorizer, site, play, loggedFailures):
    authorizer.playAnswer = ZeroDivisionError("oh")
    client = play(site)
    assert play.status(client) == 503
    assert len(loggedFailures.take(ZeroDivisionError)) == 1
