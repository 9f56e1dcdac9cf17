"""The options of twistd rtmp, and what they build."""

import os
import re

import pytest
from certificates import certificate
from tapkit import parse, refused, serverOf
from twisted.application.service import IService
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError
from zope.interface.verify import verifyObject

from twisted_rtmp.auth import AllowList
from twisted_rtmp.fields import BadField, parseDelay, parseDuration, parseSize
from twisted_rtmp.interfaces import (
    ConnectRequest,
    IAuthorizer,
    Refused,
    StreamRequest,
)
from twisted_rtmp.limits import AddressLimits, GOPLimits, QueueLimits, ServerLimits
from twisted_rtmp.live.policy import TakeOver
from twisted_rtmp.options import HEADINGS, LIMITS, WIRE
from twisted_rtmp.recording import RecordingSettings
from twisted_rtmp.service import LISTEN_BACKLOG, endpointFromString
from twisted_rtmp.settings import ApplicationSettings, Settings
from twisted_rtmp.tap import Options, makeService
from twisted_rtmp.wire.limits import WireLimits


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A directory without anything in it."""
    monkeypatch.chdir(tmp_path)


# Values


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("500M", 500 * 2**20),
        ("2G", 2 * 2**30),
        ("2GiB", 2 * 2**30),
        ("64kb", 65536),
        ("1.5K", 1536),
        ("1T", 2**40),
    ],
)
def test_sizes(text, size):
    assert parseSize(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "M", "5X", "1e9", "0.1", "1 G", "٣", "9" * 400]
)
def test_noSizes(text):
    with pytest.raises(ValueError, match="must be a number of bytes"):
        parseSize(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("90", 90), ("0.5", 0.5), ("250ms", 0.25), ("30m", 1800), ("1h", 3600)],
        *[("2d", 172800), ("5s", 5)],
    ],
)
def test_durations(text, seconds):
    assert parseDuration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "h", "1w", "inf", "nan", "1e3", "9" * 400]
)
def test_noDurations(text):
    with pytest.raises(ValueError, match="must be a time"):
        parseDuration(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("0s", 0), ("50ms", 0.05), ("3", 3)]
)
def test_delays(text, seconds):
    assert parseDelay(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "0x", "00"])
def test_noDelays(text):
    with pytest.raises(ValueError, match="must be 0 or a time"):
        parseDelay(text)


# Wrong options: one line, which names the option


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "70000"],
        ["--port", "-1"],
        ["--port", "1935x"],
        ["--port", "1", "--port", "2"],
        ["--port=1", "-p2"],
        ["--listen", "tcp:0", "--listen", "tcp:0"],
        ["--listen", "nonsense:1"],
        ["--listen", "tcp:x"],
        ["--listen", "tcp:1:bogus=2"],
        ["--listen", "tcp"],
        ["--listen", "ssl:0:privateKey=missing.pem"],
        ["--listen", "systemd:domain=INET:index=0"],
        ["--listen", "systemd:domain=INET:name=missing"],
        ["--record-name", "{nonsense}"],
        ["--record-name", "../{stream}"],
        ["--record-name", ""],
        ["--rotate-size", "5X"],
        ["--rotate-seconds", "0"],
        ["--record-min-free", "much"],
        ["--record-fsync", "often"],
        ["--max-message", "16M"],
        ["--max-message", "0"],
        ["--max-unfinished", "1M"],
        ["--max-connections", "0"],
        ["--handshake-timeout", "soon"],
        ["--takeover", "maybe"],
        ["--grace", "-1"],
        ["--latency", "none"],
        ["--latency", "50"],  # milliseconds were meant
        ["--stream-key", ""],
        ["--stream-key-file", "missing"],
        ["--application", ""],
        ["--application", "live", "--application", "live/"],
        ["--listen", "tcp:"],
        ["--listen", "haproxy:"],
        ["--rotate-size", "9" * 400],
        ["--rotate-seconds", "9" * 400],
        ["--max-memory", "0"],
        ["--record", "somewhere", "--no-record"],
        ["--record", ""],
        ["--pipe", ""],
        ["--pipe", "cat 'unfinished"],
    ],
    ids=" ".join,
)
def test_wrongOptions(arguments):
    names = [word.lstrip("-").partition("=")[0] for word in arguments]
    message = refused(*arguments)
    assert any(f"--{name}" in message for name in names if name), message


@pytest.mark.parametrize("arguments", [["--bogus"], ["extra"], ["--once=3"]])
def test_unknownOptions(arguments):
    refused(*arguments)


def test_theHelpStandsAside():
    options = Options()
    with pytest.raises(UsageError):
        options.parseOptions(["--port", "x"])
    assert len(str(options).splitlines()) <= 4
    options = Options()
    options.parseOptions([])
    assert "--rotate-size" in str(options)


def test_aFileWhereTheRecordDirectoryShouldBe(tmp_path):
    (tmp_path / "file").write_text("")
    assert "is not a directory" in refused("--record", "file")
    assert "is not a directory" in refused("--record", "file/below")


@pytest.mark.parametrize("folder", ["closed", "closed/below/that"])
def test_anUnwritableRecordDirectory(folder, tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    closed.mkdir()
    # Root may write anywhere, so the answer is made up.
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: path != str(closed) and access(path, mode)
    )
    assert f"{closed} is not writable" in refused("--record", folder)


@pytest.mark.parametrize(
    "text", [b"secret\xff\n", b"secret name and more\n", b"secret\nsecret other\n"]
)
def test_anErrorInAKeyFileDoesNotShowAKey(text, tmp_path):
    keys = tmp_path / "keys"
    keys.write_bytes(text)
    assert "secret" not in refused("--stream-key-file", str(keys))


def test_anEmptyKeyFileDoesNotLetEverybodyIn(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("# none yet\n\n")
    assert "must have a line" in refused("--stream-key-file", str(keys))


# Right ones


def test_defaults(tmp_path):
    recording = RecordingSettings(str(tmp_path / "recordings"))
    settings = parse()
    assert settings == Settings(default=ApplicationSettings(recording=recording))
    assert settings.default.limits == ServerLimits()
    assert settings.listen == ("tcp:1935",)
    assert not (tmp_path / "recordings").exists()


def test_limits():
    settings = parse(
        *("--max-message", "16777215", "--max-connections", "7"),
        *("--publisher-idle", "1m", "--handshake-timeout", "3"),
        *("--silent-seconds", "2.5", "--max-chunk-streams", "8"),
    )
    assert settings.default.limits == ServerLimits(
        wire=WireLimits(
            messageSize=16777215,
            unfinishedBytes=16777215 + 4 * 2**20,
            chunkStreams=8,
        ),
        connections=7,
        publisherIdleSeconds=60,
        handshakeSeconds=3,
        silentSeconds=2.5,
    )


def test_everyLimitOfTheTablesHasItsField():
    for group in (LIMITS, WIRE):
        for option in group.options:
            default = getattr(group.defaults, option.field)
            limits = parse(f"--{option.name}", str(default)).default.limits
            assert limits == ServerLimits()
            assert parse(f"--{option.name}", str(default + 1)).default.limits != limits


def test_listenReplacesThePort():
    settings = parse("--port", "1", "--listen", "tcp:0", "--listen", "tcp6:0")
    assert settings.listen == ("tcp:0", "tcp6:0")


# Endpoints


def backlogOf(description):
    reactor = MemoryReactorClock()
    endpointFromString(reactor, description).listen(None)
    calls = reactor.tcpServers + reactor.unixServers + reactor.sslServers
    (call,) = calls
    return call[3] if call in reactor.sslServers else call[2]


@pytest.mark.parametrize(
    ("description", "backlog"),
    [
        ("tcp:1935", LISTEN_BACKLOG),
        ("tcp:1935:interface=127.0.0.1", LISTEN_BACKLOG),
        ("tcp:port=1935", LISTEN_BACKLOG),
        ("tcp6:1935", LISTEN_BACKLOG),
        ("unix:/run/rtmp", LISTEN_BACKLOG),
        ("tcp:1935:backlog=7", 7),
        ("tcp:1935:127.0.0.1:9", 9),
        ("unix:/run/rtmp:backlog=8:mode=600", 8),
        ("haproxy:tcp:1935", LISTEN_BACKLOG),
    ],
)
def test_backlog(description, backlog):
    assert backlogOf(description) == backlog


def test_backlogIsPromised():
    assert LISTEN_BACKLOG >= 1024


def test_backlogOfTLS(tmp_path):
    pem = tmp_path / "server.pem"
    pem.write_bytes(certificate("localhost"))
    assert backlogOf(f"ssl:443:privateKey={pem}:certKey={pem}") == LISTEN_BACKLOG


def test_noBacklogWhereThereIsNone():
    endpoint = endpointFromString(MemoryReactorClock(), "stdio:")
    assert not isinstance(endpoint, TCP4ServerEndpoint)


# Who may publish


def connectTo(application):
    return ConnectRequest(application, "", None, {})


def publishTo(name, application="live"):
    return StreamRequest(application, name, "", None, connectTo(application))


def test_allowListIsAnAuthorizer():
    verifyObject(IAuthorizer, AllowList())


def test_allowListLetsAllIn():
    allow = AllowList()
    assert allow.connect(connectTo("any")) is None
    assert allow.publish(publishTo("any")) is None
    assert allow.play(publishTo("any")) is None


def test_applications():
    server = serverOf("--application", "live", "--application", "/tv/one/")
    (allow,) = server.factory.registry.guards
    allow.connect(connectTo("live"))
    allow.connect(connectTo("tv/one"))
    for application in ("", "tv", "LIVE", "live/"):
        with pytest.raises(Refused):
            allow.connect(connectTo(application))


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_streamKeys(tmp_path, mark):
    keys = tmp_path / "keys"
    keys.write_text(f"{mark}alpha\n# who\n\nbeta  public\ngamma public\n")
    server = serverOf("--stream-key", "key=1", "--stream-key-file", str(keys))
    allow = server.factory.registry.policyOf("any").authorizer
    assert allow.publish(publishTo("key=1")) == "key=1"
    assert allow.publish(publishTo("alpha")) == "alpha"
    assert allow.publish(publishTo("beta")) == "public"
    assert allow.publish(publishTo("gamma")) == "public"
    for name in ("", "alph", "alphaa", "public", "#", "\ud800"):
        with pytest.raises(Refused) as caught:
            allow.publish(publishTo(name))
        for key in allow.streamKeys:
            assert key not in caught.value.description


def test_aKeyThatIsAName(tmp_path, lines):
    keys = tmp_path / "keys"
    keys.write_text("alpha\nbeta public\n")
    serverOf("--stream-key-file", str(keys), "--stream-key", "gamma")
    (line,) = [line for line in lines if "no secret" in line]
    assert line.startswith("2 of 3 stream keys are no secret")
    assert "alpha" not in line
    keys.write_text("alpha name\n")
    serverOf("--stream-key-file", str(keys))
    assert [line for line in lines if "no secret" in line] == [line]


@pytest.mark.parametrize("option", ["--stream-key-file", "--push-file"])
def test_aFileFromWindows(option, tmp_path):
    lines = {
        "--stream-key-file": "one first\r\ntwo second\r\n",
        "--push-file": "rtmp://h/live/one\r\nrtmp://h/live/two\r\n",
    }
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbf" + lines[option].encode())
    settings = parse(option, str(path))
    if option == "--push-file":
        assert [target.url.name for target in settings.relays.pushes] == [
            "one",
            "two",
        ]
    else:
        assert settings.default.streamKeys == {"one": "first", "two": "second"}


# Limits, which a program may set one by one


@pytest.mark.parametrize(
    ("limits", "where"),
    [
        (ServerLimits(connections=0), "limits.connections"),
        (
            ServerLimits(addresses=AddressLimits(connectionShare=1.5)),
            "limits.addresses.connectionShare",
        ),
        (
            ServerLimits(playerQueue=QueueLimits(slowRate=-1)),
            "limits.playerQueue.slowRate",
        ),
        (ServerLimits(gop=GOPLimits(seconds=float("nan"))), "limits.gop.seconds"),
    ],
)
def test_wrongLimits(limits, where):
    with pytest.raises(BadField) as caught:
        ApplicationSettings(limits=limits)
    assert caught.value.where == where
    assert caught.value.problem.startswith("must be ")


def test_aRateOfNone():
    limits = ServerLimits(playerQueue=QueueLimits(slowRate=0))
    assert ApplicationSettings(limits=limits).limits is limits


# The help


def explained():
    """List the help's explanations: option and text."""
    text = Options().getUsage().partition("\nTakes streams")[0]
    parts = re.split(r"^  .{4}--([\w-]+)", text, flags=re.MULTILINE)[1:]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [(name, " ".join(doc.split())) for name, doc in pairs]


def test_theHelpExplainsEachOptionOnceUnderAHeading():
    names = [name for name, _ in explained()]
    assert sorted(names) == sorted({name.rstrip("=") for name in Options().longOpt})
    assert set(names) <= {name for group in HEADINGS.values() for name in group}


def test_theDefaultsThatTheHelpShowsMayBeGiven():
    plain = parse()
    shown = {
        name: default[1]
        for name, doc in explained()
        if (default := re.search(r"\[default: ([^]]*)\]", doc))
    }
    assert shown.pop("record-min-free") == "0"  # which is none
    assert shown.pop("origin-idle") == "10s"  # which needs an origin
    assert len(shown) > 15
    for name, value in shown.items():
        assert parse(f"--{name}", value) == plain, name


# The service


def test_makeService():
    options = Options()
    options.parseOptions(["--port", "0", "--takeover", "never"])
    verifyObject(IService, makeService(options))
    server = serverOf("--port", "0", "--takeover", "never")
    assert server.factory.limits == ServerLimits()
    policy = server.factory.registry.policy
    assert policy.takeOver is TakeOver.NEVER
    assert policy.sinkFactories == server.recordings
