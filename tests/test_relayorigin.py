"""Servers that pull what is played: edges."""

from __future__ import annotations

import pytest
from clientkit import accept, refusing, silent
from feeding import CollectingSink
from relaykit import METADATA, Studio
from rtmpclient import AUDIO, AVC_FRAME, AVC_HEADER, AVC_KEY_FRAME, DATA, VIDEO, Client
from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_rtmp.auth import AllowList
from twisted_rtmp.client import InvalidURL
from twisted_rtmp.client.limits import FAREWELL_SECONDS
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import IAuthorizer, Refused
from twisted_rtmp.live.policy import TakeOver
from twisted_rtmp.relay import Origin, PushRelays, RelayState, parseOrigin
from twisted_rtmp.relay.base import RETRY_SECONDS
from twisted_rtmp.relay.origin import (
    IDLE_SECONDS,
    MAX_HOPS,
    MAX_PATH_SIZE,
    PATH_PROPERTY,
)


class Player(Client):
    """Plays a stream of a server in memory."""

    def __init__(
        self, studio, name="key", app="live", host="198.51.100.7", **properties
    ):
        super().__init__(studio.factory, studio.clock, host)
        self.got = []
        self._network = studio.network
        self._encoders = studio.network.encoders
        self._encoders.append(self)
        self.connect(app, **properties)
        self._streams = 0
        self.play(name)

    def play(self, name):
        """Play one more stream."""
        self._streams += 1
        self.command("createStream", 2, None)
        self.command("play", 3, None, name, streamId=self._streams)
        self._network.pump()

    def media(self):
        self.got += [(r.typeId, r.payload) for r in self.take()]
        return [payload for typeId, payload in self.got if typeId in (AUDIO, VIDEO)]

    def leave(self):
        self._encoders.remove(self)
        super().leave()


class Edge(Studio):
    """An edge; its origin is at the host C{o}."""

    def __init__(self, url="rtmp://o", settings=None, **options):
        super().__init__(**options)
        self.network.scripted("o")
        self.origin = Origin(
            self.clock,
            self.factory.registry,
            url,
            connect=self.network.connect,
            **(settings or {}),
        )
        self.origin.startService()

    def give(self, *messages, server=-1):
        self.network.pump()
        for message in messages:
            self.network.servers[server].media(*message)
        self.network.pump()

    def giveStream(self, server=-1):
        self.give((DATA, 0, METADATA), (VIDEO, 0, AVC_HEADER), server=server)
        self.give((VIDEO, 0, AVC_KEY_FRAME), (VIDEO, 33, AVC_FRAME), server=server)

    @property
    def pull(self):
        (pull,) = self.origin.pulls.values()
        return pull

    def settle(self):
        if self.origin.running:
            self.origin.stopService()
        super().settle()
        assert self.clock.getDelayedCalls() == []


STREAM = [AVC_HEADER, AVC_KEY_FRAME, AVC_FRAME]


@pytest.fixture
def edge():
    edge = Edge()
    yield edge
    edge.settle()


@pytest.mark.parametrize(
    ("url", "application"),
    [
        ("rtmp://o", "live/a"),
        ("rtmp://o/", "live/a"),
        ("rtmps://o:1936/x", "x/live/a"),
        ("rtmp://o/x/y/z/", "x/y/z/live/a"),
        ("rtmp://o/x?token=1", "x/live/a?token=1"),
    ],
)
def test_addresses(url, application):
    edge = Edge(url)
    address = edge.origin.addressOf("live/a", "key")
    assert (address.application, address.name) == (application, "key")
    edge.settle()


@pytest.mark.parametrize("url", ["o", "http://o", "live/a=rtmp://o", "rtmp://"])
def test_noOrigins(url):
    with pytest.raises(InvalidURL):
        parseOrigin(url)


def test_interfaces(edge):
    assert verifyObject(IService, edge.origin)
    [guard] = edge.factory.registry.guards
    assert verifyObject(IAuthorizer, guard)


def test_manyPlayersCostOneConnection(edge):
    players = [Player(edge) for _ in range(10)]
    edge.giveStream()
    players += [Player(edge) for _ in range(40)]
    edge.give((AUDIO, 40, b"\xaf\x01sound"))
    for player in players:
        assert player.media() == [*STREAM, b"\xaf\x01sound"]
    (server,) = edge.network.servers
    assert server.of("connect").argument(0)["app"] == "live"
    assert server.of("play").argument(1) == "key"
    assert len(edge.factory.players("live", "key")) == 50


def test_streamsArePulledApart(edge):
    one, two = Player(edge, "one"), Player(edge, "two", "other/app")
    edge.giveStream(server=0)
    assert one.media() == STREAM
    assert two.media() == []
    edge.giveStream(server=1)
    assert two.media() == STREAM
    assert edge.network.servers[1].of("connect").argument(0)["app"] == "other/app"


def test_anIdleStreamIsDropped(edge):
    player = Player(edge)
    edge.giveStream()
    pull = edge.pull
    player.leave()
    edge.advance(IDLE_SECONDS - 1)
    assert pull.state is RelayState.RELAYING
    # Who comes back in time gets what is there.
    player = Player(edge)
    assert player.media() == STREAM
    edge.give((VIDEO, 9000, AVC_FRAME))
    edge.advance(IDLE_SECONDS * 2)
    assert pull.state is RelayState.RELAYING
    edge.give((VIDEO, 29000, AVC_FRAME))
    player.leave()
    edge.advance(IDLE_SECONDS + 1)
    assert edge.origin.pulls == {}
    assert edge.factory.streams == {}
    assert edge.network.servers[0].names()[-1] == "deleteStream"
    edge.network.servers[0].close()
    edge.network.pump()
    assert pull.state is RelayState.ENDED
    # And the next one starts again.
    player = Player(edge)
    edge.giveStream()
    assert player.media() == STREAM
    assert len(edge.network.servers) == 2


def test_theIdleTimeIsConfigurable():
    edge = Edge(settings={"idleSeconds": 60.0})
    player = Player(edge)
    edge.giveStream()
    player.leave()
    edge.advance(IDLE_SECONDS * 2)
    assert edge.pull.state is RelayState.RELAYING
    edge.settle()


def test_aStreamThatTheOriginHasNotYetIsAwaited(edge):
    player = Player(edge)
    edge.advance(8)
    assert edge.pull.state is RelayState.EXPECTING
    edge.giveStream()
    assert player.media() == STREAM


def test_aStreamThatNobodyAwaitsAnyMoreIsDropped(edge):
    one, two = Player(edge), Player(edge)
    assert edge.pull.state is RelayState.EXPECTING
    one.leave()
    assert edge.pull.state is RelayState.EXPECTING
    two.leave()
    assert edge.origin.pulls == {}
    edge.network.pump()
    assert edge.network.servers[0].names()[-1] == "deleteStream"


def test_anOriginThatRefusesIsAskedAgainWhilePlayersWait(edge):
    edge.network.scripted("o", play=refusing("NetStream.Play.StreamNotFound"))
    player = Player(edge)
    assert edge.pull.state is RelayState.WAITING
    edge.network.scripted("o")
    edge.advance(3 * RETRY_SECONDS + FAREWELL_SECONDS)
    edge.giveStream()
    assert player.media() == STREAM


def test_anOriginThatIsGoneIsTriedAgain(edge):
    player = Player(edge)
    edge.giveStream()
    edge.network.errors["o"] = ConnectError()
    edge.network.servers[0].breakOff()
    edge.advance(6)
    assert edge.pull.state is RelayState.WAITING
    assert "NetStream.Play.UnpublishNotify" in player.codes()
    del edge.network.errors["o"]
    edge.until(edge.pull, RelayState.EXPECTING)
    edge.giveStream()
    assert player.media() == STREAM


def test_theOriginsPublicationEndsAndPlayersLeave(edge):
    player = Player(edge)
    edge.giveStream()
    edge.network.servers[0].status("NetStream.Play.UnpublishNotify")
    edge.network.pump()
    assert edge.pull.state is RelayState.WAITING
    player.leave()
    assert edge.origin.pulls == {}


def test_theOriginsPublicationEndsWithoutPlayers(edge):
    player = Player(edge)
    edge.giveStream()
    player.leave()
    edge.network.servers[0].status("NetStream.Play.UnpublishNotify")
    edge.network.pump()
    assert edge.origin.pulls == {}


def test_pushesDoNotKeepAStream(edge):
    edge.network.scripted("b")
    pushes = PushRelays(
        edge.clock,
        edge.factory.registry,
        ["rtmp://b/live"],
        connect=edge.network.connect,
    )
    pushes.startService()
    player = Player(edge)
    edge.giveStream()
    assert len(edge.network.servers) == 2
    player.leave()
    edge.advance(IDLE_SECONDS + 1)
    assert edge.origin.pulls == {}
    assert edge.network.servers[1].names()[-1] == "deleteStream"


# Streams that are published here


def test_whatIsPublishedHereIsNotPulled(edge):
    edge.begin()
    edge.gop(0)
    player = Player(edge)
    assert edge.network.urls == []
    assert len(player.media()) == 6


def test_anEncoderComesWhileTheOriginIsAwaited(edge):
    player = Player(edge)
    edge.begin()
    edge.gop(0)
    assert edge.origin.pulls == {}
    assert len(player.media()) == 6
    # When it leaves, the origin may have the stream.
    edge.leave()
    assert edge.pull.state is RelayState.EXPECTING


def test_anEncoderTakesOver():
    edge = Edge(takeOver=TakeOver.ALWAYS)
    player = Player(edge)
    edge.giveStream()
    edge.begin()
    edge.gop(0)
    assert edge.origin.pulls == {}
    assert len(player.media()) == 3 + 6
    edge.settle()


# Who may play


@implementer(IAuthorizer)
class Later:
    """Decides when the test does."""

    def __init__(self):
        self.asked = []

    def connect(self, request):
        return None

    publish = connect

    def play(self, request):
        self.asked.append(Deferred())
        return self.asked[-1]


def test_theEdgesAuthorizerDecidesFirst():
    authorizer = Later()
    edge = Edge(authorizer=authorizer)
    refused, allowed = Player(edge, "s3cret"), Player(edge, "ticket")
    assert edge.network.urls == []
    authorizer.asked[0].errback(Refused("No."))
    authorizer.asked[1].callback("public")
    edge.network.pump()
    assert [url.name for url in edge.network.urls] == ["public"]
    assert "NetStream.Play.Failed" in refused.codes()
    edge.giveStream()
    assert allowed.media() == STREAM
    edge.settle()
    assert edge.factory.registry.policy.authorizer is authorizer


def test_everythingElseIsTheAuthorizersToo():
    edge = Edge(authorizer=AllowList(["live"], {"key": "stage"}))
    edge.begin("key")
    assert list(edge.factory.streams) == [("live", "stage")]
    stranger = Client(edge.factory)
    stranger.connect("other")
    assert "NetConnection.Connect.Rejected" in stranger.codes()
    edge.settle()


# Circles and bounds


@pytest.mark.parametrize("url", ["rtmp://self", "rtmp://self/prefix"])
def test_anEdgeDoesNotPlayFromItself(url, lines):
    edge = Edge(url)
    edge.network.factories["self"] = edge.factory
    Player(edge)
    edge.advance(25)
    assert edge.pull.state is RelayState.WAITING
    assert "This edge would play from itself" in edge.pull.why
    assert len(edge.network.bridges) == edge.pull.counters.refused <= 4
    assert any("would play from itself" in line for line in lines)
    edge.settle()


def test_edgesDoNotPlayInACircle():
    edge = Edge("rtmp://other")
    other = RTMPFactory(edge.clock)
    back = Origin(
        edge.clock, other.registry, "rtmp://first/deeper", connect=edge.network.connect
    )
    back.startService()
    edge.network.factories.update(other=other, first=edge.factory)
    player = Player(edge)
    edge.advance(20)
    assert list(edge.origin.pulls) == [("live", "key")]
    assert list(back.pulls) == [("live", "key")]
    (refused,) = back.pulls.values()
    assert "would play from itself" in refused.why
    player.leave()
    edge.advance(5)
    assert edge.origin.pulls == back.pulls == {}
    back.stopService()
    other.stop()
    edge.settle()


def test_edgesOfEdges():
    edge = Edge("rtmp://region")
    region = RTMPFactory(edge.clock)
    middle = Origin(
        edge.clock, region.registry, "rtmp://o", connect=edge.network.connect
    )
    middle.startService()
    edge.network.factories["region"] = region
    player = Player(edge)
    edge.giveStream()
    assert player.media() == STREAM
    (server,) = edge.network.servers
    path = server.of("connect").argument(0)[PATH_PROPERTY]
    assert path.split() == [edge.origin.identifier, middle.identifier]
    middle.stopService()
    region.stop()
    edge.settle()


def test_aPathHasAnEnd(edge):
    path = " ".join(map(str, range(MAX_HOPS)))
    player = Player(edge, edgePath=path)
    assert "NetConnection.Connect.Rejected" in player.codes()
    assert edge.origin.pulls == {}
    player = Player(edge, edgePath=path[:-2])
    assert edge.pull.state is RelayState.EXPECTING


@pytest.mark.parametrize("path", [5.0, None, {"a": 1.0}, "a" * (MAX_PATH_SIZE + 1)])
def test_aPathOfNonsenseIsNone(edge, path):
    Player(edge, edgePath=path)
    assert edge.pull.state is RelayState.EXPECTING
    [server] = edge.network.servers
    assert server.of("connect").argument(0)[PATH_PROPERTY] == edge.origin.identifier


def test_pathsOfDecisionsToCome():
    authorizer = Later()
    edge = Edge(authorizer=authorizer)
    Player(edge, "ticket", edgePath="far")
    authorizer.asked[0].callback("public")
    edge.network.pump()
    (server,) = edge.network.servers
    path = server.of("connect").argument(0)[PATH_PROPERTY]
    assert path.split() == ["far", edge.origin.identifier]
    edge.settle()


def test_aWayThatIsNotTrueHarmsNobodyElse(edge):
    """One that says it is behind the origin, or many edges, only keeps itself out."""
    paths = []

    def refuseFar(server, command):
        path = command.argument(0)[PATH_PROPERTY].split()
        paths.append(path)
        if len(path) > 1:
            refusing("NetConnection.Connect.Rejected")(server, command)
        else:
            accept(server, command)

    edge.network.scripted("o", connect=refuseFar)
    Player(edge, edgePath="far away")
    assert edge.pull.state is RelayState.WAITING
    near = Player(edge, edgePath="near")
    honest = Player(edge)
    Player(edge, edgePath="far away")
    edge.giveStream()
    assert honest.media() == near.media() == STREAM
    own = edge.origin.identifier
    assert paths == [["far", "away", own], ["near", own], [own]]
    # One that comes later changes nothing.
    Player(edge, edgePath="later")
    assert len(paths) == 3


def test_anotherSpellingIsTriedWhereOneFails(edge):
    """Origins of other kinds know a stream by one division of its path only."""

    def only(application):
        def answer(server, command):
            if command.argument(0)["app"] == application:
                accept(server, command)
            else:
                refusing("NetConnection.Connect.InvalidApp")(server, command)

        return answer

    edge.network.scripted("o", connect=only("live"))
    Player(edge, "live/key", app="")
    assert edge.pull.state is RelayState.WAITING
    honest = Player(edge)
    edge.giveStream()
    assert honest.media() == STREAM
    assert len(edge.network.urls) == 2


def test_theSpellingOfOneThatLeavesIsNotKept(edge):
    edge.network.scripted("o", connect=refusing("NetConnection.Connect.InvalidApp"))
    honest = Player(edge)
    other = Player(edge, "live/key", app="")
    edge.network.scripted("o")
    other.leave()
    edge.giveStream()
    assert honest.media() == STREAM
    assert edge.network.urls[-1].application == "live"


# Places for pulls


def crowded(maxPulls, share=1.0):
    return Edge(settings={"maxPulls": maxPulls, "pullShare": share})


def pulled(edge):
    """Name the streams that are pulled."""
    return {name for _, name in edge.origin.pulls}


def test_pullsAreBounded(lines):
    edge = crowded(3)
    players = [Player(edge, str(number)) for number in range(10)]
    assert len(edge.network.servers) == 3
    assert sum("is not pulled from the origin" in line for line in lines) == 1
    for player in players:
        player.leave()
    assert edge.origin.pulls == {}
    Player(edge, "later")
    assert pulled(edge) == {"later"}
    edge.settle()


def test_aPlaceThatIsLeftIsTheNextOnes():
    edge = crowded(1)
    first, second, third = (Player(edge, name) for name in ("1", "2", "3"))
    assert pulled(edge) == {"1"}
    second.leave()
    first.leave()
    assert pulled(edge) == {"3"}
    edge.giveStream()
    assert third.media() == STREAM
    edge.settle()


def test_oneThatIsRefusedTakesNoPlace():
    edge = Edge(
        authorizer=AllowList(["live"]), settings={"maxPulls": 2, "pullShare": 1.0}
    )
    for number in range(5):
        Player(edge, str(number), app="other")
    assert pulled(edge) == set()
    edge.settle()


def test_anAddressHasItsShareOfThePlaces():
    edge = crowded(8, 0.5)
    for number in range(8):
        Player(edge, str(number))
    assert len(pulled(edge)) == 4
    for number in range(4):
        Player(edge, f"other {number}", host="203.0.113.1")
    assert pulled(edge) == {*"0123", *(f"other {number}" for number in range(4))}
    edge.settle()


def test_theAddressWithMostGivesAPlaceUp():
    edge = crowded(4)
    for number in range(4):
        Player(edge, str(number))
    honest = Player(edge, "honest", host="203.0.113.1")
    assert pulled(edge) == {*"012", "honest"}
    edge.giveStream()
    assert honest.media() == STREAM
    # No more than all have.
    Player(edge, "second", host="203.0.113.1")
    Player(edge, "third", host="203.0.113.1")
    assert pulled(edge) == {*"01", "honest", "second"}
    edge.settle()


def test_theConnectionWithMostGivesAPlaceUp():
    edge = crowded(4)
    greedy = Player(edge, "0")
    for number in range(1, 10):
        greedy.play(str(number))
    assert pulled(edge) == set("0123")
    Player(edge, "honest")
    assert pulled(edge) == {*"012", "honest"}
    # What it has lost it gets when there is room.
    assert len(edge.origin.pulls) == 4
    greedy.leave()
    assert pulled(edge) == {"honest"}
    edge.settle()


def test_aStreamThatIsThereKeepsItsPlace():
    edge = crowded(2)
    player = Player(edge, "0")
    edge.giveStream()
    player.play("1")
    edge.giveStream()
    Player(edge, "honest", host="203.0.113.1")
    assert pulled(edge) == set("01")
    player.leave()
    edge.advance(IDLE_SECONDS + 1)
    assert pulled(edge) == {"honest"}
    edge.settle()


def test_aPlaceIsCountedForAPlayerThatIsThere():
    """One that asks for others' streams first, and leaves, takes them no place."""
    edge = crowded(4)
    greedy = Player(edge, "shared")
    for number in range(3):
        greedy.play(str(number))
    honest = Player(edge, "shared", host="203.0.113.1")
    greedy.leave()
    assert pulled(edge) == {"shared"}
    for number in range(4):
        Player(edge, str(number), host="203.0.113.2")
    assert pulled(edge) == {"shared", *"012"}
    edge.giveStream(server=0)
    assert honest.media() == STREAM
    edge.settle()


def test_playersThatAreThereAlreadyCount():
    edge = Edge()
    edge.origin.stopService()
    player = Player(edge)
    edge.begin("other")
    other = Player(edge, "other")
    edge.origin.startService()
    edge.giveStream()
    assert player.media() == STREAM
    edge.leave("other")
    assert pulled(edge) == {"key", "other"}
    other.leave()
    assert pulled(edge) == {"key"}
    edge.settle()


def test_aStreamWithoutANameIsNotPulled(edge):
    Player(edge, "")
    assert edge.network.urls == []


# The end


def test_theServiceStops(edge):
    player, waiting = Player(edge), Player(edge, "other")
    edge.giveStream(server=0)
    stopped = edge.origin.stopService()
    assert edge.factory.streams == {}
    assert edge.factory.registry.guards == []
    for server in edge.network.servers:
        server.close()
    edge.network.pump()
    assert stopped.called
    Player(edge, "third")
    assert len(edge.network.urls) == 2
    assert player.media() == STREAM
    assert waiting.media() == []
    edge.origin.startService()


def test_theServerStops(edge):
    Player(edge)
    edge.giveStream()
    stopped = edge.factory.stop()
    edge.network.servers[0].close()
    edge.network.pump()
    assert edge.factory.streams == {}
    assert stopped.called
    assert edge.origin.pulls == {}


def test_nothingIsPulledByAServerThatStops(edge):
    edge.begin()
    Player(edge)
    edge.factory.stop()
    edge.network.pump()
    assert edge.network.urls == []


def test_aPullThatEndsByItselfIsForgotten(edge):
    Player(edge)
    edge.pull.close()
    edge.advance(FAREWELL_SECONDS + 1)
    assert edge.origin.pulls == {}


def test_aPullThatEndsByItselfIsNotDroppedLater(edge):
    """Its stream ends for the edge only when all of it is stored."""
    stored = Deferred()

    class Slow(CollectingSink):
        def streamEnded(self):
            return stored

    player = Player(edge)
    edge.giveStream()
    [stream] = edge.factory.streams.values()
    stream.addSink(Slow(stream))
    player.leave()
    edge.pull.close()
    edge.network.servers[0].close()
    edge.advance(IDLE_SECONDS + 1)
    assert edge.origin.pulls == {}
    stored.callback(None)


def test_theServerStopsWhileTheOriginIsSilent():
    edge = Edge()
    edge.network.scripted("o", connect=silent)
    Player(edge)
    stopped = edge.factory.stop()
    edge.network.pump()
    assert stopped.called
    assert edge.origin.pulls == {}
    edge.settle()
