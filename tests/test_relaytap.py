"""The options of twistd rtmp for relays, and their place in the service."""

from __future__ import annotations

import pytest
from tapkit import parse, refused, serverOf
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.relay import Origin, PullRelay, PushRelays
from twisted_rtmp.service import RTMPService


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A directory without anything in it."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--push", "b/live/s3cret"],
        ["--push", "rtmp://b"],
        ["--push", "http://u:s3cret@b/live"],
        ["--push", "live=rtmp://b/live/s3cret"],
        ["--push", "rtmp://b/live/s3cret", "--push", "rtmp://b/live/s3cret"],
        ["--push-file", "missing"],
        ["--pull", "rtmp://a/live/s3cret"],
        ["--pull", "live/key=rtmp://a/live"],
        ["--pull", "live/k=rtmp://a/b/c", "--pull", "live/k=rtmp://a/b/d"],
        ["--origin", "o"],
        ["--origin", "live/key=rtmp://o"],
        ["--origin", "rtmp://o", "--origin", "rtmp://p"],
        ["--origin-idle", "10"],
        ["--origin-idle", "-1", "--origin", "rtmp://o"],
    ],
    ids=" ".join,
)
def test_wrongOptions(arguments):
    message = refused(*arguments)
    names = [word.lstrip("-") for word in arguments if word.startswith("--")]
    assert any(f"--{name}" in message for name in names), message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    "text", [b"\xff\n", b"# none yet\n\n", b"rtmp://b/live/s3cret\nlive/s3cret\n"]
)
def test_wrongPushFiles(text, tmp_path):
    file = tmp_path / "targets"
    file.write_bytes(text)
    message = refused("--push-file", str(file))
    assert "--push-file" in message
    assert "s3cret" not in message


def test_rightOptions(tmp_path):
    file = tmp_path / "targets"
    file.write_text("# platforms\nrtmps://c/app/s3cret\n\nlive/*=rtmp://d/{app}\n")
    relays = parse(
        *("--push", "rtmp://b/live", "--push-file", str(file)),
        *("--pull", "live/one=rtmp://a/x/y", "--pull", "live/two=rtmp://a/x/z"),
        *("--origin", "rtmp://o/prefix", "--origin-idle", "0"),
    ).relays
    assert [target.url.host for target in relays.pushes] == ["b", "c", "d"]
    assert relays.pushes[2].pattern == "live/*"
    assert {key: url.name for key, url in relays.pulls.items()} == {
        ("live", "one"): "y",
        ("live", "two"): "z",
    }
    assert relays.origin.application == "prefix"
    assert relays.originIdleSeconds == 0.0


def test_makeService():
    assert serverOf("--port", "0").relays == []
    pull, origin, push = serverOf(
        *("--port", "0"),
        *("--push", "rtmp://b/live", "--pull", "live/key=rtmp://a/live/key"),
        *("--origin", "rtmp://o", "--origin-idle", "3"),
    ).relays
    assert isinstance(pull, PullRelay)
    assert isinstance(origin, Origin)
    assert isinstance(push, PushRelays)
    assert origin.idleSeconds == 3
    assert origin.url.host == "o"
    assert [target.url.host for target in push.targets] == ["b"]
    assert (pull.application, pull.streamName, pull.url.host) == ("live", "key", "a")


class Relay(Service):
    """Notes what happens to it."""

    def __init__(self, notes):
        self._notes = notes
        self.stopped = Deferred()

    def startService(self):
        Service.startService(self)
        self._notes.append("relay starts")

    def stopService(self):
        Service.stopService(self)
        self._notes.append("relay stops")
        return self.stopped


class Factory(RTMPFactory):
    """Notes when it stops."""

    def __init__(self, reactor, notes):
        super().__init__(reactor)
        self._notes = notes

    def stop(self):
        self._notes.append("factory stops")
        return super().stop()


def test_relaysStopWithTheFactory():
    reactor = MemoryReactorClock()
    notes = []
    relay = Relay(notes)
    factory = Factory(reactor, notes)
    service = RTMPService(reactor, factory, [], relays=[relay])
    service.startService()
    assert notes == ["relay starts"]
    stopped = service.stopService()
    assert notes == ["relay starts", "factory stops", "relay stops"]
    assert not stopped.called
    relay.stopped.callback(None)
    assert stopped.called


def test_aRelayThatDoesNotStopWellIsLogged(loggedFailures):
    reactor = MemoryReactorClock()
    relay = Relay([])
    service = RTMPService(reactor, RTMPFactory(reactor), [], relays=[relay])
    service.startService()
    stopped = service.stopService()
    relay.stopped.errback(RuntimeError("a relay's"))
    assert stopped.called
    assert len(loggedFailures.take(RuntimeError)) == 1
