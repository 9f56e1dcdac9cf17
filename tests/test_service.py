"""Listening, stopping, and what a process of its own needs."""

import resource
import signal
import socket
import subprocess
import sys

import pytest
from certificates import certificate
from serverprocess import TWISTD, Server, environment, program, publish
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import ServerFactory
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.process import ServerProcess
from twisted_rtmp.service import (
    LAST_SECONDS,
    CannotListen,
    Listener,
    RTMPService,
)


class Order:
    """Stands for whatever the service stops: notes when, ends when told."""

    def __init__(self, name, notes):
        self.name = name
        self.notes = notes
        self.stopped = Deferred()

    def stop(self, seconds=None):
        self.notes.append(self.name)
        self.seconds = seconds
        return self.stopped


class NotingFactory(Order, ServerFactory):
    limits = ServerLimits(stopSeconds=3.0)


@implementer(IStreamServerEndpoint)
class LateEndpoint:
    """An endpoint that does not know at once."""

    def __init__(self):
        self.cancelled = 0
        self.listening = Deferred(self._cancel)

    def _cancel(self, deferred):
        self.cancelled += 1

    def listen(self, factory):
        return self.listening


@implementer(IStreamServerEndpoint)
class TakenEndpoint:
    def listen(self, factory):
        return fail(CannotListenError("any", 1935, OSError(98, "Address in use")))


@pytest.fixture
def reactor():
    return MemoryReactorClock()


@pytest.fixture
def notes():
    return []


@pytest.fixture
def factory(notes):
    return NotingFactory("factory", notes)


def tcp(reactor, port):
    return Listener(f"tcp:{port}", TCP4ServerEndpoint(reactor, port))


def test_listensOnEveryEndpoint(reactor, factory):
    unix = Listener("unix:/run/r", UNIXServerEndpoint(reactor, "/run/r"))
    service = RTMPService(reactor, factory, [tcp(reactor, 1935), unix])
    service.privilegedStartService()
    service.startService()
    assert [call[:2] for call in reactor.tcpServers] == [(1935, factory)]
    assert [call[:2] for call in reactor.unixServers] == [("/run/r", factory)]
    assert len(service.addresses) == 2


def test_listensWithoutPrivilegedStart(reactor, factory):
    service = RTMPService(reactor, factory, [tcp(reactor, 1935)])
    service.startService()
    assert len(reactor.tcpServers) == 1


def test_listensAgainAfterAStop(reactor, factory):
    service = RTMPService(reactor, factory, [tcp(reactor, 1935)])
    service.startService()
    factory.stopped.callback(None)
    service.stopService()
    assert service.addresses == []
    service.startService()
    assert len(reactor.tcpServers) == 2


def test_aTakenPortIsAnErrorAndClosesTheOthers(reactor, factory):
    ports = []
    endpoint = RecordingEndpoint(TCP4ServerEndpoint(reactor, 1935).listen, ports)
    listeners = [Listener("tcp:1935", endpoint), Listener("taken", TakenEndpoint())]
    service = RTMPService(reactor, factory, listeners)
    with pytest.raises(
        CannotListen, match=r"Cannot listen on taken: .*in use"
    ) as caught:
        service.privilegedStartService()
    assert caught.value.code == 1
    assert [port.stops for port in ports] == [1]


@implementer(IStreamServerEndpoint)
class RecordingEndpoint:
    """Counts how often its port is stopped."""

    def __init__(self, listen, ports):
        self._listen = listen
        self._ports = ports

    def listen(self, factory):
        def opened(port):
            port.stops = 0
            stopListening = port.stopListening

            def counted():
                port.stops += 1
                return stopListening()

            port.stopListening = counted
            self._ports.append(port)
            return port

        return self._listen(factory).addCallback(opened)


def test_stopsInOrderAndWaits(reactor, factory, notes):
    recordings = Order("recordings", notes)
    ports = []
    endpoint = RecordingEndpoint(TCP4ServerEndpoint(reactor, 1935).listen, ports)
    service = RTMPService(
        reactor, factory, [Listener("tcp:1935", endpoint)], recordings=[recordings]
    )
    service.startService()
    done = service.stopService()
    assert ports[0].stops == 1
    assert notes == ["factory"]
    assert not done.called
    factory.stopped.callback(None)
    assert notes == ["factory", "recordings"]
    assert not done.called
    recordings.stopped.callback(None)
    assert done.called


@pytest.mark.parametrize(("took", "left"), [(1.0, 2.0), (3.0, LAST_SECONDS)])
def test_allHasOneTimeToStop(reactor, factory, notes, took, left):
    """A disk that does not answer is waited for by the streams already."""
    recordings = Order("recordings", notes)
    service = RTMPService(
        reactor, factory, [tcp(reactor, 1935)], recordings=[recordings]
    )
    service.startService()
    done = service.stopService()
    reactor.advance(took)
    factory.stopped.callback(None)
    assert recordings.seconds == left
    recordings.stopped.callback(None)
    assert done.called


def test_aFailureWhileStoppingIsLoggedAndTheRestStops(
    reactor, factory, notes, loggedFailures
):
    recordings = Order("recordings", notes)
    service = RTMPService(
        reactor, factory, [tcp(reactor, 1935)], recordings=[recordings]
    )
    service.startService()
    done = service.stopService()
    factory.stopped.errback(ZeroDivisionError("oh"))
    recordings.stopped.callback(None)
    assert done.called
    assert notes == ["factory", "recordings"]
    assert len(loggedFailures.take(ZeroDivisionError)) == 1


def test_anEndpointThatFailsLateIsTold(reactor, factory):
    endpoint = LateEndpoint()
    told = []
    service = RTMPService(
        reactor,
        factory,
        [Listener("late", endpoint)],
        listenFailed=lambda: told.append(True),
    )
    service.startService()
    assert not told
    endpoint.listening.errback(CannotListenError("late", 1, OSError(98, "in use")))
    assert told == [True]


def test_stoppingBeforeALateEndpointHasOpened(reactor, factory):
    endpoint = LateEndpoint()
    told = []
    service = RTMPService(
        reactor,
        factory,
        [Listener("late", endpoint)],
        listenFailed=lambda: told.append(True),
    )
    service.startService()
    factory.stopped.callback(None)
    assert service.stopService().called
    assert endpoint.cancelled == 1
    assert not told


# A process of its own


class SignalReactor(MemoryReactorClock):
    def __init__(self):
        super().__init__()
        self.stops = 0

    def callFromThread(self, function, *arguments):
        self.callLater(0, function, *arguments)

    def stop(self):
        self.stops += 1


@pytest.fixture
def handlers():
    """Puts back what the test takes of the process."""
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGXFSZ)
    before = {number: signal.getsignal(number) for number in numbers}
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_aSignalStopsTheReactorOnce(number):
    reactor = SignalReactor()
    process = ServerProcess(reactor)
    process.startService()
    signal.raise_signal(number)
    signal.raise_signal(number)
    assert reactor.stops == 0  # never within the handler
    reactor.advance(0)
    assert reactor.stops == 1


@pytest.mark.usefixtures("handlers")
def test_aDaemonIgnoresAHangUp(lines):
    reactor = SignalReactor()
    ServerProcess(reactor, isDaemon=True).startService()
    signal.raise_signal(signal.SIGHUP)
    reactor.advance(0)
    assert reactor.stops == 0
    assert [line for line in lines if "Ignoring SIGHUP" in line]


@pytest.mark.usefixtures("handlers")
def test_nohupIsLeftAlone():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ServerProcess(SignalReactor()).startService()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.usefixtures("handlers")
def test_aFileSizeLimitDoesNotKill():
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    ServerProcess(SignalReactor()).startService()
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN


@pytest.mark.usefixtures("handlers")
def test_raisesTheDescriptorLimit():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    ServerProcess(SignalReactor()).privilegedStartService()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(hard, 10_240)


# The real thing


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_leavesWithZero(number, tmp_path):
    with Server.twistd(["--listen", "tcp:0:interface=127.0.0.1"], tmp_path) as server:
        server.port()
        server.signal(number)
        assert server.wait() == 0, server.output
        assert f"Received {number.name}, finishing" in server.output
        assert "Traceback" not in server.output
    assert not (tmp_path / "twistd.pid").exists()


def test_manySignalsAtOnce(tmp_path):
    with Server.twistd(["--port", "0"], tmp_path) as server:
        server.port()
        for _ in range(5):
            server.signal(signal.SIGINT)
        assert server.wait() == 0, server.output
        assert "Traceback" not in server.output


def test_aTakenPortEndsTwistdWithOneLine(tmp_path):
    (tmp_path / "other").mkdir()
    listen = "tcp:{}:interface=127.0.0.1"
    with Server.twistd(["--listen", listen.format(0)], tmp_path) as first:
        port = first.port()
        with Server.twistd(
            ["--listen", listen.format(port)], tmp_path / "other"
        ) as second:
            assert second.wait() == 1
            assert "Traceback" not in second.output
            lines = [line for line in second.lines if "Cannot listen" in line]
            assert len(lines) == 1, second.output
            assert str(port) in lines[0]
            assert "in use" in lines[0]
    assert not (tmp_path / "other" / "twistd.pid").exists()


def test_aTakenPortIsToldByTheDaemon(tmp_path):
    listen = "tcp:{}:interface=127.0.0.1"
    with Server.twistd(["--listen", listen.format(0)], tmp_path) as first:
        port = first.port()
        result = subprocess.run(
            [
                *(sys.executable, "-c", TWISTD, "--pidfile=daemon.pid", "rtmp"),
                *("--listen", listen.format(port)),
            ],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert result.returncode == 1
        assert "Cannot listen" in result.stderr
        assert "in use" in (tmp_path / "twistd.log").read_text()


def test_listensOnASocketFromSystemd(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as opened:
        # The protocol of sd_listen_fds(3): descriptor 3, and whom it is for.
        code = (
            f"import os; os.dup2({opened.fileno()}, 3); os.environ.update("
            "LISTEN_FDS='1', LISTEN_FDNAMES='rtmp', LISTEN_PID=str(os.getpid()));"
        )
        command = [sys.executable, "-c", code + TWISTD, "-n", "rtmp"]
        command += ["--listen", "systemd:domain=INET:name=rtmp"]
        with Server(command, tmp_path, descriptors=[opened.fileno()]) as server:
            assert server.port() == opened.getsockname()[1]
            publish(f"rtmp://127.0.0.1:{opened.getsockname()[1]}/live/test")
            server.expect("live/test ended .* 30 video 0 audio received")
            server.signal(signal.SIGTERM)
            assert server.wait() == 0, server.output


def test_listensWithTLSAndOnAUnixSocket(tmp_path):
    (tmp_path / "server.pem").write_bytes(certificate("localhost"))
    listen = ["--listen", "ssl:0:interface=127.0.0.1", "--listen", "unix:s.sock"]
    with Server.twistd(listen, tmp_path) as server:
        publish(f"rtmps://127.0.0.1:{server.port()}/live/test?x=y")
        server.expect("live/test ended .* 30 video 0 audio received")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s.sock"))
            client.sendall(b"\x03" + bytes(1536))
            assert client.recv(1) == b"\x03"
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output


def test_onceLeavesAfterTheFirstStream(tmp_path):
    with Server.twistd(["--port", "0", "--once"], tmp_path) as server:
        publish(f"rtmp://127.0.0.1:{server.port()}/live/first")
        assert server.wait() == 0, server.output
        assert "live/first ended" in server.output
        assert "30 and 0 written, 0 lost" in server.output
    assert len(list(tmp_path.glob("recordings/live/first-*.flv"))) == 1


def test_anInterruptedStreamIsFinished(tmp_path):
    ffmpeg = program("ffmpeg")
    with Server.twistd(["--port", "0"], tmp_path) as server:
        url = f"rtmp://127.0.0.1:{server.port()}/live/long"
        picture = "testsrc=size=64x48:rate=30"
        command = [ffmpeg, "-nostdin", "-v", "quiet", "-re", "-f", "lavfi"]
        command += ["-i", picture, "-c:v", "flv", "-f", "flv", url]
        with subprocess.Popen(command) as encoder:
            server.expect("publishes live/long")
            server.signal(signal.SIGINT)
            assert server.wait() == 0, server.output
            encoder.kill()
        assert "live/long ended" in server.output
        assert "0 lost" in server.output


LATE_PARSER = """
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IStreamServerEndpoint, IStreamServerEndpointStringParser
)
from twisted.plugin import IPlugin
from zope.interface import implementer

@implementer(IStreamServerEndpoint)
class Late:
    def listen(self, factory):
        listening = Deferred()
        reactor.callLater(0, listening.errback, OSError("no such thing"))
        return listening

@implementer(IPlugin, IStreamServerEndpointStringParser)
class Parser:
    prefix = "late"
    def parseStreamServer(self, reactor, *args, **kwargs):
        return Late()

late = Parser()
"""


def test_anEndpointThatFailsLateEndsTwistd(tmp_path):
    plugins = tmp_path / "path" / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "late.py").write_text(LATE_PARSER)
    code = f"import sys; sys.path.append({str(tmp_path / 'path')!r}); {TWISTD}"
    command = [sys.executable, "-c", code, "-n", "rtmp", "--listen", "late:"]
    with Server(command, tmp_path) as server:
        assert server.wait() == 1, server.output
        assert "Cannot listen on late:: no such thing" in server.output
        assert "Traceback" not in server.output
    assert not (tmp_path / "twistd.pid").exists()
