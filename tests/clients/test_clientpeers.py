"""The client against servers that others wrote, and its arithmetic against clients."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_twisted
from authserver import PASSWORD, USER, Challenger
from capture import MEDIA, assertSame, frames, mediaTags, needed, tags
from serverprocess import PATIENCE, Server, environment, program
from test_clienturl import SPLITS
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.utils import getProcessOutputAndValue
from zope.interface import implementer

from twisted_rtmp.client import RTMPURL
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import IAuthorizer, Refused

CLIENT = [sys.executable, "-m", "twisted_rtmp.client"]

MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")

NGINX = """
load_module {module};
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr info;
events {{ worker_connections 64; }}
rtmp {{
    server {{
        listen 127.0.0.1:{port};
        application live {{ live on; }}
        application closed {{ live on; deny publish all; deny play all; }}
    }}
}}
"""


def freePort():
    """A port for a program that has to be told one."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def run(*arguments):
    """Run the command to its end; no server there yet is no end."""
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(
            [*CLIENT, *map(str, arguments)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        if "no connection: " not in done.stderr or time.monotonic() > deadline:
            return done


def assertSameTracks(one, other):
    """Each track is the same; players get headers in another order."""
    for kind in MEDIA:
        assertSame(
            [tag for tag in one if tag.typeId == kind],
            [tag for tag in other if tag.typeId == kind],
        )


# ffmpeg as a server


def test_publishToFfmpeg(sample, tmp_path):
    got = tmp_path / "got.flv"
    url = f"rtmp://127.0.0.1:{freePort()}/live/a"
    command = [program("ffmpeg"), "-v", "error", "-nostdin", "-listen", "1", "-i", url]
    with Server([*command, "-c", "copy", str(got)], tmp_path) as ffmpeg:
        done = run("publish", sample, url, "--speed", "max")
        assert done.returncode == 0, done.stderr
        ffmpeg.wait()
    assertSame(mediaTags(got), mediaTags(sample))


def test_playFromFfmpeg(sample, tmp_path):
    got = tmp_path / "got.flv"
    url = f"rtmp://127.0.0.1:{freePort()}/live/a"
    command = [program("ffmpeg"), "-v", "error", "-nostdin", "-re", "-i", str(sample)]
    options = ["-c", "copy", "-f", "flv", "-listen", "1", url]
    with Server([*command, *options], tmp_path):
        done = run("play", url, got)
        assert done.returncode == 0, done.stderr
    assertSame(mediaTags(got), mediaTags(sample))


# nginx-rtmp


@contextmanager
def nginx(folder):
    """Run it; the address of its server."""
    path = program("nginx")
    if not MODULE.exists():
        needed("nginx's RTMP module")
    port = freePort()
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(module=MODULE, folder=folder, port=port))
    command = [path, "-p", str(folder), "-e", "stderr", "-c", str(configuration)]
    with Server(command, folder) as server:
        server.expect("using the")  # it listens before it says so
        yield f"rtmp://127.0.0.1:{port}", server


def test_publishToNginxAndPlayFromIt(sample, tmp_path):
    got = tmp_path / "got.flv"
    with nginx(tmp_path) as (address, server):
        url = f"{address}/live/a"
        with Server([*CLIENT, "play", url, str(got)], tmp_path) as player:
            server.expect("play: name='a'")
            done = run("publish", sample, url, "--speed", 4)
            assert done.returncode == 0, done.stderr
            assert player.wait() == 0, player.output
    assertSameTracks(mediaTags(got), mediaTags(sample))


def test_refusedByNginx(sample, tmp_path):
    with nginx(tmp_path) as (address, server):
        url = f"{address}/live/a"
        loop = [*CLIENT, "publish", str(sample), url, "--loop"]
        with Server(loop, tmp_path) as publisher:
            server.expect("publish: name='a'")
            done = run("publish", sample, url)
            assert done.returncode == 1
            assert "(NetStream.Publish.BadName)" in done.stderr
            publisher.signal(signal.SIGTERM)
            assert publisher.wait() == 0
        done = run("publish", sample, f"{address}/closed/a")
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1


# Clients that know what ours should


class Served:
    """Our server in this process."""

    def __init__(self, authorizer):
        from twisted.internet import reactor

        self.reactor = reactor
        self.factory = RTMPFactory(reactor, authorizer=authorizer)
        self.streams = []
        self.factory.streamStarted.append(
            lambda stream: self.streams.append((stream.application, stream.name))
        )

    async def run(self, *command):
        """Run a program with our port in its arguments; its exit status."""
        endpoint = TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")
        port = await endpoint.listen(self.factory)
        number = str(port.getHost().port)
        path, *arguments = (word.replace("PORT", number) for word in command)
        _, errors, status = await getProcessOutputAndValue(path, arguments)
        await port.stopListening()
        await self.factory.stop()
        return status, errors


def ffmpegTo(url):
    return [
        *(program("ffmpeg"), "-v", "error", "-nostdin", "-f", "lavfi"),
        *("-i", "sine=duration=0.1", "-c:a", "aac", "-f", "flv", url),
    ]


@pytest.mark.parametrize("application", ["adobe", "adobe-opaque", "llnw", "llnw/inst"])
@pytest.mark.parametrize("password", [PASSWORD, "guess"])
@pytest_twisted.ensureDeferred
async def test_ffmpegsArithmetic(application, password):
    challenger = Challenger()
    served = Served(challenger)
    url = f"rtmp://{USER}:{password}@127.0.0.1:PORT/{application}/a"
    status, errors = await served.run(*ffmpegTo(url))
    right = password == PASSWORD
    assert challenger.rounds == [
        "need auth",
        "challenge",
        "right" if right else "wrong",
    ]
    assert (status == 0) == right, errors
    assert served.streams == ([(application, "a")] if right else [])


@pytest.mark.parametrize("application", ["adobe", "adobe-opaque"])
@pytest_twisted.ensureDeferred
async def test_gstreamersArithmetic(application):
    challenger = Challenger()
    served = Served(challenger)
    url = f"rtmp://{USER}:{PASSWORD}@127.0.0.1:PORT/{application}/a"
    status, errors = await served.run(
        *(program("gst-launch-1.0"), "-q", "audiotestsrc", "num-buffers=9", "!"),
        *("voaacenc", "!", "flvmux", "streamable=true", "!"),
        *("rtmp2sink", f"location={url}"),
    )
    assert status == 0, errors
    assert challenger.rounds[-1] == "right"


@pytest_twisted.ensureDeferred
async def test_librtmpsArithmetic():
    """Of Adobe's it overruns a buffer of its own, and ends there."""
    challenger = Challenger()
    served = Served(challenger)
    url = f"rtmp://127.0.0.1:PORT/llnw/a pubUser={USER} pubPasswd={PASSWORD}"
    status, errors = await served.run(
        *(program("gst-launch-1.0"), "-q", "audiotestsrc", "num-buffers=9", "!"),
        *("voaacenc", "!", "flvmux", "streamable=true", "!"),
        *("rtmpsink", f"location={url}"),
    )
    assert status == 0, errors
    assert challenger.rounds[-1] == "right"


@implementer(IAuthorizer)
class Curious:
    """Wants to know what a client makes of a URL, and nothing else."""

    def __init__(self):
        self.asked = None

    def connect(self, request):
        pass

    def publish(self, request):
        query = f"?{request.query}" if request.query else ""
        app = request.connect.properties["app"]
        self.asked = (app, request.name + query)
        raise Refused("Thank you.")

    def play(self, request):
        raise Refused("Thank you.")


@pytest.mark.parametrize(("path", "application", "name"), SPLITS)
@pytest_twisted.ensureDeferred
async def test_ffmpegSplitsPathsSo(path, application, name):
    curious = Curious()
    await Served(curious).run(*ffmpegTo(f"rtmp://u:p@127.0.0.1:PORT{path}"))
    assert curious.asked == (application, name)
    url = RTMPURL.parse(f"rtmp://u:p@127.0.0.1{path}")
    assert curious.asked == (url.application, url.name)


def test_samplesHaveBothTracks(sample):
    """What the comparisons above would miss otherwise."""
    for kind in MEDIA:
        assert len(frames(tags(sample), kind)) > 50
