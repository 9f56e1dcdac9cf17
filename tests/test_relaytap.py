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
    ("option", "text"),
    [
        ("push-file", b"\xff\n"),
        ("push-file", b"# none yet\n\n"),
        ("push-file", b"rtmp://b/live/s3cret\nlive/s3cret\n"),
        ("push-file", b"rtmp://b/live s3cret s3cret\n"),
        ("pull-file", b"# none yet\n"),
        ("pull-file", b"live/a=rtmp://b/live/s3cret\nlive/a=rtmp://b/live/s3cret\n"),
        ("pull-file", b"live/a=rtmp://b/s3cret"),
        ("origin-file", b"rtmp://u:s3cret@o\nrtmp://u:s3cret@p\n"),
        ("origin-file", b"http://u:s3cret@o"),
        ("origin-file", b"rtmp://u:s3cret/@o"),
    ],
)
def test_wrongFiles(option, text, tmp_path):
    file = tmp_path / "addresses"
    file.write_bytes(text)
    message = refused(f"--{option}", str(file))
    assert f"--{option} {file}" in message
    assert "s3cret" not in message


def test_noErrorShowsASecret():
    """Wherever a part of a URL is wrong."""
    for url in (
        "rtmp:/u:s3cret@o/live/s3cret",
        "rtmpx://u:s3cret@o/live/s3cret",
        "rtmp://u:s3cret@:1935/live/s3cret",
        "rtmp://u:s3cret@o:x/live/s3cret",
        "rtmp://u:s3cret/more@o/live/s3cret",
        "rtmp://u:s3cret@[::1/live/s3cret",
        "rtmp://u:s3cret@::1/live/s3cret",
        "rtmp://u:s3cret@o/live/\ts3cret x y",
        "rtmp://u:s3cret@{app}/live/s3cret x y",
    ):
        for option in ("--push", "--pull", "--origin"):
            text = f"live/a={url}" if option == "--pull" else url
            assert "s3cret" not in refused(option, text)


def test_anOriginIsGivenOnce(tmp_path):
    file = tmp_path / "origin"
    file.write_text("rtmp://o")
    for arguments in (
        ["--origin", "rtmp://o", "--origin-file", str(file)],
        ["--origin-file", str(file), "--origin-file", str(file)],
    ):
        assert "twice" in refused(*arguments)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_everythingMayStandInFiles(tmp_path, mark):
    for name, text in (
        ("push", "rtmp://b/live/s3cret\n"),
        (
            "pull",
            "live/a=rtmp://a/x/s3cret\n# b\nlive/b=rtmp://a/x/y/z s3cret\n",
        ),
        ("origin", "\n  rtmp://u:s3cret@o/prefix  \n"),
    ):
        (tmp_path / name).write_text(mark + text)
    relays = parse(
        *("--push-file", "push", "--pull-file", "pull"),
        *("--origin-file", "origin", "--origin-idle", "3"),
    ).relays
    assert [target.url.name for target in relays.pushes] == ["s3cret"]
    pulls = {key: (url.application, url.name) for key, url in relays.pulls.items()}
    assert pulls == {
        ("live", "a"): ("x", "s3cret"),
        ("live", "b"): ("x/y/z", "s3cret"),
    }
    assert relays.origin.password == "s3cret"
    assert relays.originIdleSeconds == 3


@pytest.mark.parametrize(
    ("text", "application", "name"),
    [
        ("rtmp://b/live?token=a/cam", "live?token=a", "cam"),
        ("rtmp://b/live?token=a", "live?token=a", "{stream}"),
        ("rtmp://b/a/b/c?token=1 {stream}?key=2", "a/b/c?token=1", "{stream}?key=2"),
        ("live/*=rtmp://b/{app}/x s3cret", "{app}/x", "s3cret"),
    ],
)
def test_applicationAndNameOfATarget(text, application, name):
    [target] = parse("--push", text).relays.pushes
    url = target.addressOf("{app}", "{stream}")
    assert (url.application, url.name) == (application, name)


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
