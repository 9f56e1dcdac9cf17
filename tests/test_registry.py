"""The registry: names claimed elsewhere, rules by application, descriptions."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from httpclient import Getter
from protocolkit import BAD_NAME, START, Ask, Sinks, refuse
from recordingkit import DiskClock, StepPool
from relaykit import Studio
from rtmpclient import AVC_HEADER, AVC_KEY_FRAME, VIDEO, Client
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_rtmp.auth import AllowList
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import ILiveStream, Refused
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.live.directory import IDirectory, LocalDirectory, NameTaken
from twisted_rtmp.live.policy import Policy, TakeOver
from twisted_rtmp.live.registry import Registry
from twisted_rtmp.live.snapshot import snapshot
from twisted_rtmp.recording import Recordings
from twisted_rtmp.relay import PullRelay
from twisted_rtmp.web import HTTPSite


@implementer(IDirectory)
class Elsewhere:
    """A directory that takes its time."""

    def __init__(self) -> None:
        self.claims: list[Deferred[None]] = []
        self.locations: list[Deferred[None]] = []
        self.released: list[tuple[str, str]] = []
        self.requests: list[Any] = []

    def claim(self, application, name):
        self.claims.append(Deferred())
        return self.claims[-1]

    def release(self, application, name):
        self.released.append((application, name))

    def locate(self, application, name, request):
        self.requests.append(request)
        self.locations.append(Deferred())
        return self.locations[-1]


def play(factory, name="key", app="live"):
    client = Client(factory)
    client.connect(app)
    client.command("createStream", 2, None)
    client.command("play", 0, None, name, streamId=1)
    return client


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory() -> Elsewhere:
    return Elsewhere()


@pytest.fixture
def factory(clock, directory):
    return RTMPFactory(clock, registry=Registry(clock, directory=directory))


def test_interfaces(factory, directory):
    assert verifyObject(IDirectory, directory)
    assert verifyObject(IDirectory, LocalDirectory())
    client = Client(RTMPFactory(Clock()))
    client.publish("key")
    [stream] = client.protocol.registry.streams.values()
    assert verifyObject(ILiveStream, stream)
    assert verifyObject(ILiveStream, stream) == isinstance(stream.startedAt, float)


# Claiming a name


def test_aNameIsClaimedBeforeItsStreamBegins(factory, directory):
    client = Client(factory)
    client.publish("key")
    assert START not in client.codes()
    assert factory.streams == {}
    directory.claims[0].callback(None)
    client.pump()
    assert START in client.codes()
    assert list(factory.streams) == [("live", "key")]
    client.leave()
    assert directory.released == [("live", "key")]


def test_aNameThatIsTakenElsewhere(factory, directory):
    client = Client(factory)
    client.publish("key")
    directory.claims[0].errback(NameTaken())
    client.pump()
    assert client.codes() == ["NetConnection.Connect.Success", BAD_NAME]
    assert client.transport.disconnected
    assert factory.streams == {}


def test_mediaThatCameMeanwhileIsKept(clock, directory):
    sinks = Sinks()
    registry = Registry(clock, Policy(sinkFactories=[sinks]), directory=directory)
    client = Client(RTMPFactory(clock, registry=registry))
    client.publish("key")
    client.media(VIDEO, AVC_HEADER)
    client.media(VIDEO, AVC_KEY_FRAME)
    assert sinks.all == []
    directory.claims[0].callback(None)
    client.pump()
    [(_, sink)] = sinks.all
    assert sink.payloads == [AVC_HEADER, AVC_KEY_FRAME]
    client.leave()


def test_aDirectoryThatDoesNotAnswer(factory, clock, lines):
    client = Client(factory)
    client.publish("key")
    clock.advance(factory.limits.decisionSeconds)
    client.pump()
    assert client.transport.disconnected
    assert any("the directory of streams has not answered" in line for line in lines)
    assert clock.getDelayedCalls() == []


def test_aPulledStreamClaimsItsName(directory):
    studio = Studio()
    studio.factory.registry.directory = directory
    studio.network.scripted("a")
    pulling = PullRelay(
        *(studio.clock, studio.factory.registry, "live", "key", "rtmp://a/there/key"),
        connect=studio.network.connect,
    )
    pulling.startService()
    studio.network.pump()
    [source] = studio.network.servers
    source.media(VIDEO, 0, AVC_HEADER)
    studio.network.pump()
    source.media(VIDEO, 40, AVC_KEY_FRAME)
    studio.network.pump()
    assert studio.factory.streams == {}
    directory.claims[0].callback(None)
    studio.network.pump()
    [stream] = studio.factory.streams.values()
    assert stream.ledger.received.messages == 2
    pulling.stopService()
    studio.settle()
    assert directory.released == [("live", "key")]


# Finding a stream


def test_aStreamIsLookedForBeforeItIsPlayed(factory, directory):
    client = play(factory, "key")
    assert "NetStream.Play.Start" not in client.codes()
    [request] = directory.requests
    assert (request.application, request.name) == ("live", "key")
    directory.locations[0].callback(None)
    client.pump()
    assert "NetStream.Play.Start" in client.codes()
    assert len(factory.players("live", "key")) == 1
    client.leave()
    assert factory.registry.idle


def test_aStreamThatIsHereIsNotLookedFor(factory, directory):
    publisher = Client(factory)
    publisher.publish("key")
    directory.claims[0].callback(None)
    player = play(factory, "key")
    assert directory.locations == []
    assert "NetStream.Play.Start" in player.codes()


def test_aStreamIsLookedForOverHTTP(factory, directory, clock):
    client = Getter(HTTPSite(factory.registry), "/live/key.flv")
    [request] = directory.requests
    assert (request.application, request.name) == ("live", "key")
    assert request.connect.kind == "http"
    client.leave()
    assert factory.registry.idle


# Rules by application


def test_rulesAreAnApplicationsOwn(clock):
    mine, others = Sinks(), Sinks()
    factory = RTMPFactory(
        clock,
        sinkFactories=[others],
        takeOver=TakeOver.NEVER,
        policies={
            "mine": Policy(
                authorizer=AllowList(["mine"], {"s3cret": "stage"}),
                sinkFactories=[mine],
                takeOver=TakeOver.ALWAYS,
                grace=10.0,
                limits=ServerLimits(publisherIdleSeconds=5),
            )
        },
    )
    refused = Client(factory)
    refused.publish("wrong", app="mine")
    assert START not in refused.codes()
    first = Client(factory)
    first.publish("s3cret", app="mine")
    first.media(VIDEO, AVC_HEADER)
    second = Client(factory)
    second.publish("s3cret", app="mine")
    first.pump()
    assert first.transport.disconnected
    other = Client(factory)
    other.publish("s3cret", app="live")
    late = Client(factory)
    late.publish("s3cret", app="live")
    assert BAD_NAME in late.codes()
    assert [label for label, _ in mine.all] == ["mine/stage"], "it is continued"
    assert [label for label, _ in others.all] == ["live/s3cret"]
    clock.advance(5)
    second.pump()
    assert second.transport.disconnected, "the publisher idles in its own application"
    assert not other.transport.disconnected
    assert set(factory.streams) == {("live", "s3cret"), ("mine", "stage")}
    clock.advance(5)
    assert list(factory.streams) == [("mine", "stage")], "it waits for its publisher"
    clock.advance(5)
    assert list(factory.streams) == []


def test_aStreamKeepsTheRulesThatItBeganWith(clock):
    factory = RTMPFactory(clock, grace=10.0)
    client = Client(factory)
    client.publish("key")
    client.media(VIDEO, AVC_HEADER)
    registry = factory.registry
    registry.policy = replace(registry.policy, grace=0.0)
    client.leave()
    assert list(factory.streams) == [("live", "key")]
    later = Client(factory)
    later.publish("other")
    later.leave()
    assert list(factory.streams) == [("live", "key")]
    clock.advance(10)
    assert registry.idle


# One path, one stream


@pytest.mark.parametrize(
    ("published", "played"),
    [
        (("g1/g2/g3", "cam"), ("g1/g2", "g3/cam")),
        (("live", "eu/cam1"), ("live/eu", "cam1")),
        (("live/eu", "cam1"), ("live", "eu/cam1")),
        (("", "live/key"), ("live", "key")),
        (("live", "key"), ("", "live/key")),
    ],
)
@pytest.mark.parametrize("waits", [False, True])
def test_aPathIsOneStreamWhereverItIsDivided(clock, published, played, waits):
    factory = RTMPFactory(clock)
    changes: list[Any] = []
    factory.playersChanged.append(lambda *change: changes.append(change))
    publisher = Client(factory)
    if waits:
        player = play(factory, played[1], app=played[0])
    publisher.publish(published[1], app=published[0])
    if not waits:
        player = play(factory, played[1], app=played[0])
    publisher.media(VIDEO, AVC_HEADER)
    publisher.media(VIDEO, AVC_KEY_FRAME)
    got = [reply.payload for reply in player.take() if reply.typeId == VIDEO]
    assert got == [AVC_HEADER, AVC_KEY_FRAME]
    assert list(factory.streams) == [published]
    assert played in factory.streams
    assert len(factory.players(*published)) == 1
    late = Client(factory)
    late.publish(played[1], app=played[0])
    assert BAD_NAME in late.codes()
    watcher = Getter(HTTPSite(factory.registry), f"/{'/'.join(played)}.flv")
    assert len(factory.players(*played)) == 2
    watcher.leave()
    player.leave()
    assert [change[2] for change in changes] == [1, 2, 1, 0]
    assert {change[:2] for change in changes[-2:]} == {published}
    publisher.leave()
    late.leave()
    assert factory.registry.idle


def test_theDeciderSeesWhatEachSent(clock):
    ask = Ask()
    factory = RTMPFactory(clock, authorizer=ask)
    Client(factory).publish("eu/cam1", app="live")
    play(factory, "cam1", app="live/eu")
    assert [(each.application, getattr(each, "name", None)) for each in ask.asked] == [
        ("live", None),
        ("live", "eu/cam1"),
        ("live/eu", None),
        ("live/eu", "cam1"),
    ]


@pytest.mark.parametrize("app", ["", "events", "events/eu"])
def test_nobodyGetsRoundTheRulesOfAnApplication(clock, app):
    """However a peer divides the path, its stream is in the application."""
    guests = Ask(publish=lambda: refuse("Guests only."))
    factory = RTMPFactory(clock, policies={"events": Policy(authorizer=guests)})
    client = Client(factory)
    client.publish("events/eu/cam".removeprefix(app).strip("/"), app=app)
    assert "NetStream.Publish.Denied" in client.codes()


@pytest.mark.parametrize(("app", "fine"), [("live/eu", True), ("lively", False)])
def test_anAllowedApplicationHasAllThatIsBelowIt(clock, app, fine):
    client = Client(RTMPFactory(clock, authorizer=AllowList(["live"])))
    client.publish("cam", app=app)
    assert (START in client.codes()) == fine


# Decisions


def test_aDeciderThatHangsIsNamedOverHTTPToo(clock, lines):
    decision: Deferred[Any] = Deferred()
    factory = RTMPFactory(clock, authorizer=Ask(play=lambda: decision))
    client = Getter(HTTPSite(factory.registry), "/live/key.flv")
    clock.advance(factory.limits.decisionSeconds)
    client.pump()
    assert client.status == 503
    assert "in time" in client.body.decode()
    [line] = [line for line in lines if "has not decided" in line]
    assert "Ask" in line
    assert "play a stream of live" in line
    assert "key" not in line, "a name may be a key"
    client.leave()
    assert clock.getDelayedCalls() == []


def test_guardsAreAskedFirst(clock):
    asked: list[str] = []

    def note(who: str, *, refuse: bool = False) -> None:
        asked.append(who)
        if refuse:
            raise Refused("Not here.")

    factory = RTMPFactory(clock, authorizer=Ask(publish=lambda: note("own")))
    factory.registry.guards.append(Ask(publish=lambda: note("guard")))
    Client(factory).publish("one")
    assert asked == ["guard", "own"]
    factory.registry.guards[0] = Ask(publish=lambda: note("guard", refuse=True))
    client = Client(factory)
    client.publish("two")
    assert asked == ["guard", "own", "guard"]
    assert "NetStream.Publish.Denied" in client.codes()


# What is live


def test_connectionsDescribeThemselves(clock):
    factory = RTMPFactory(clock)
    clock.advance(100)
    publisher = Client(factory)
    publisher.publish("key")
    publisher.media(VIDEO, AVC_HEADER)
    player = play(factory, "key")
    watcher = Getter(HTTPSite(factory.registry), "/live/key.flv", user_agent="x")
    clock.advance(1)
    idle = Client(factory)
    described = [each.describe() for each in factory.connections]
    assert [(d.kind, d.state) for d in described] == [
        ("rtmp", "streams"),
        ("rtmp", "streams"),
        ("http", "playing"),
        ("rtmp", "handshake"),
    ]
    assert [d.publishes for d in described] == [("live/key",), (), (), ()]
    assert [d.plays for d in described] == [(), ("live/key",), ("live/key",), ()]
    assert [d.since for d in described] == [100.0, 100.0, 100.0, 101.0]
    assert len({d.id for d in described}) == 4
    first = described[0]
    assert first.peer == f"{publisher.address.host}:{publisher.address.port}"
    assert first.bytesReceived == publisher.protocol.wire.bytesReceived > 3000
    assert first.bytesSent == publisher.protocol.wire.bytesSent > 3000
    assert described[2].bytesSent > 0
    assert described[2].agent == "x"
    found = factory.connections.byId(first.id)
    assert found is publisher.protocol
    found.abort()
    publisher.pump()
    assert publisher.transport.aborted
    assert factory.counters.cut == 0, "nobody was cut for a fault"
    for client in (player, watcher, idle):
        client.leave()
    assert factory.registry.idle


def test_aSnapshotHasEverythingAsPlainValues(clock):
    factory = RTMPFactory(clock, sinkFactories=[Sinks()])
    publisher = Client(factory)
    publisher.publish("k\u00e9y\x1b!")
    publisher.media(VIDEO, AVC_HEADER)
    publisher.media(VIDEO, AVC_KEY_FRAME)
    play(factory, "k\u00e9y\x1b!")
    play(factory, "none")
    clock.advance(2)
    seen = json.loads(json.dumps(snapshot(factory.registry)))
    assert seen["now"] == 2
    assert seen["counters"]["accepted"] == 3
    assert len(seen["connections"]) == 3
    [stream] = seen["streams"]
    assert stream["name"] == "k\u00e9y\x1b!"
    assert stream["label"] == "live/k\u00e9y\\x1b!"
    assert stream["publisher"] == seen["connections"][0]["peer"]
    assert stream["since"] == 0
    [track] = stream["tracks"]
    assert (track["kind"], track["frames"], track["headers"]) == ("video", 1, 1)
    assert stream["media"]["received"]["video"] == 1
    [played] = stream["players"]
    assert played["peer"] == seen["connections"][1]["peer"]
    assert played["sent"] >= 2
    assert seen["waiting"] == [{"application": "live", "name": "none", "players": 1}]
    assert stream["sinks"] == ["players", Sinks.sinkName]
    assert seen["sinks"] == [{"name": Sinks.sinkName}]


def test_aSnapshotHasRecordingsAndRelays(clock, tmp_path):
    recordings = Recordings(DiskClock(), str(tmp_path), pool=StepPool())
    factory = RTMPFactory(clock, sinkFactories=[recordings])
    pull = PullRelay(
        clock,
        factory.registry,
        "live",
        "cam",
        "rtmp://127.0.0.1/live/a",
        connect=lambda *arguments, **options: Deferred(),
    )
    pull.startService()
    seen = json.loads(json.dumps(snapshot(factory.registry)))
    assert seen["sinks"] == [
        {
            "name": "recording",
            "directory": str(tmp_path),
            "recorders": 0,
            "files": 0,
            "failures": 0,
            "refused": 0,
        }
    ]
    [relay] = seen["connections"]
    assert (relay["kind"], relay["application"]) == ("pull", "live")
