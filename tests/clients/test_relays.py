"""Servers that relay to each other, and to nginx-rtmp, in processes of their own."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from capture import (
    MEDIA,
    Capture,
    assertSame,
    capturing,
    ffmpeg,
    frames,
    mediaTags,
    needed,
    tags,
    waitUntil,
)
from certificates import certificate
from playing import Player, Publisher, headersOf, isKeyFrame, lastKeyFrame, played
from rtmpclient import AVC_HEADER, SocketClient
from serverprocess import program

from twisted_rtmp.relay.states import RelayState
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.messages import Message

NGINX_MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")

#: How the log says that the source has let a pull play, and sends nothing yet.
EXPECTING = RelayState.EXPECTING.value

NGINX_CONFIGURATION = """
load_module {module};
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
rtmp {{
    server {{
        listen 127.0.0.1:{port};
        application live {{
            live on;
            record all;
            record_path {folder};
            record_suffix .flv;
        }}
        application closed {{
            live on;
            deny publish all;
        }}
    }}
}}
"""


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> list[Message]:
    """Four seconds of H.264 and AAC, a key frame every half second."""
    path = tmp_path_factory.mktemp("sent") / "sent.flv"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc=size=160x120:rate=30"),
        *("-f", "lavfi", "-i", "sine=sample_rate=44100", "-t", 4),
        *("-c:v", "libx264", "-preset", "veryfast", "-bf", 2, "-g", 15),
        *("-c:a", "aac", "-flvflags", "no_duration_filesize", path),
    )
    return tags(path)


def url(port: int, path: str) -> str:
    return f"rtmp://127.0.0.1:{port}/{path}"


def assertPart(recorded: Sequence[Message], sent: Sequence[Message]) -> None:
    """
    What was recorded is all of a stream from some key frame on, behind its headers.
    """
    got, all_ = played(recorded), played(sent)
    headers = len(headersOf(got))
    part = all_[-(len(got) - headers) :]
    assert isKeyFrame(part[0])
    assertSame(got, [*played(headersOf(sent)), *part])


def media(messages: Sequence[Message]) -> list[Message]:
    """The audio and video of a stream."""
    return [message for message in messages if message.typeId in MEDIA]


def headersIn(messages: Sequence[Message]) -> set[bytes]:
    """What a decoder needs besides the frames."""
    coded = frames(messages)
    return {m.payload for m in played(messages) if m not in coded}


def killed(capture: Capture) -> None:
    """As by the kernel, when memory is short."""
    capture.server.signal(signal.SIGKILL)
    assert capture.server.wait() == -signal.SIGKILL


class Viewer(SocketClient):
    """Plays a stream."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__("127.0.0.1", port)
        self.payloads: list[bytes] = []
        self.connect()
        self.untilResult(1)
        self.command("createStream", 2.0, None)
        streamId = int(self.untilResult(2).values[3])
        self.command("play", 3.0, None, name, streamId=streamId)
        self.untilCode("NetStream.Play.Start")
        self._keep()

    def _keep(self) -> None:
        self.payloads += [r.payload for r in self.take() if r.typeId in (8, 9)]

    def media(self, count: int) -> list[bytes]:  # type: ignore[override]
        """So many audio and video messages, from the first one on."""
        while len(self.payloads) < count:
            self.until(lambda reply: reply.typeId in (8, 9))
            self._keep()
        return self.payloads


@contextmanager
def nginx(folder: Path) -> Iterator[int]:
    """Run nginx-rtmp, which records to the folder: its port."""
    if not NGINX_MODULE.exists():
        needed("nginx-rtmp")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = folder / "nginx.conf"
    configuration.write_text(
        NGINX_CONFIGURATION.format(module=NGINX_MODULE, folder=folder, port=port)
    )
    folder.chmod(0o777)  # its worker may be somebody else
    command = [program("nginx"), "-p", str(folder), "-c", str(configuration)]
    process = subprocess.Popen(command)

    def listening() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        waitUntil(listening, "nginx listens")
        yield port
    finally:
        process.kill()
        process.wait()


# Push


def test_aTargetThatIsKilledHarmsNobody(tmp_path: Path, sent: list[Message]) -> None:
    """
    A pushes to B and C; B dies and comes again, by itself it gets the stream again;
    C and its player never lose a frame.
    """
    folders = [tmp_path / name for name in "abcd"]
    for folder in folders:
        folder.mkdir()
    third, half = len(sent) // 3, len(sent) * 2 // 3
    with ExitStack() as stack:
        b = stack.enter_context(capturing(folders[1]))
        c = stack.enter_context(capturing(folders[2]))
        a = stack.enter_context(
            capturing(
                *(folders[0], "--push", url(b.port, "live")),
                *("--push", f"other/*={url(b.port, 'other')}"),
                *("--push", url(c.port, "{app}/relayed-{stream}")),
            )
        )
        player = stack.enter_context(Player("ffmpeg", c.url("relayed-cam"), folders[2]))
        c.server.expect("plays live/relayed-cam")
        publisher = stack.enter_context(Publisher(a.port, "cam"))
        publisher.send(sent[:third])
        b.server.expect(" publishes live/cam")
        killed(b)
        toB = rf"push of live/cam to rtmp://127\.0\.0\.1:{b.port}/live"
        a.server.expect(f"{toB}: waiting")
        publisher.send(sent[third:half])
        again = stack.enter_context(
            capturing(folders[3], "--listen", f"tcp:{b.port}:interface=127.0.0.1")
        )
        a.server.expect(f"{toB}: relaying")
        publisher.send(sent[half:])
        publisher.end()
        c.ended("relayed-cam")
        again.ended("cam")
        a.server.expect(f"{toB}: ended: .* 0 dropped; attempts: .*, reconnects: 1$")
        assert f"127.0.0.1:{b.port}/other" not in a.server.output
        a.server.signal(signal.SIGTERM)
        assert a.server.wait() == 0
        whole = f"{len(sent)} messages relayed, 0 dropped; attempts: 1, reconnects: 0"
        assert f"to rtmp://127.0.0.1:{c.port}/live: ended: {whole}" in a.server.output
        assert player.wait() == 0
        assertSame(played(player.written()), played(sent))
    assertSame(mediaTags(a.recording("cam")), media(sent))
    assertSame(mediaTags(c.recording("relayed-cam")), media(sent))
    # B has the current GOP as it was when the first one was killed, and all since.
    recorded = mediaTags(again.recording("cam"))
    assertPart(recorded, sent)
    since = lastKeyFrame(sent[:third])
    assert len(frames(recorded)) == len(frames(sent[since:]))


def test_aTargetThatIsFrozenHarmsNobody(tmp_path: Path) -> None:
    """
    It is there and takes nothing: it is left after a while, what it misses is counted,
    and when it goes on, it gets the stream again.
    """
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    # More than any buffers on the way hold; each GOP is a quarter of a second.
    frame = b"\x17\x01\0\0\0" + bytes(100_000)
    header = Message(MessageType.VIDEO, 0, 1, AVC_HEADER)
    stream = [header]
    for number in range(400):
        stream.append(Message(MessageType.VIDEO, 25 * number, 1, frame))
        frame = b"\x17" if number % 10 == 9 else b"\x27"
        frame += b"\x01\0\0\0" + number.to_bytes(2, "big") * 50_000
    with (
        capturing(folders[1]) as b,
        capturing(folders[2]) as c,
        capturing(
            *(folders[0], "--drain-timeout", "2", "--push", url(b.port, "live")),
            *("--push", url(c.port, "live")),
        ) as a,
        Viewer(c.port, "cam") as viewer,
        Publisher(a.port, "cam") as publisher,
    ):
        sent = 0

        def send(count: int) -> None:
            """Send no faster than a player of C gets it."""
            nonlocal sent
            for at in range(sent, count, 10):
                publisher.send(stream[at : at + 10])
                got = viewer.media(min(at + 10, count))
                assert got[at:] == [m.payload for m in stream[at : at + 10]]
            sent = count

        toB = rf"push of live/cam to rtmp://127\.0\.0\.1:{b.port}/live"
        send(20)
        b.server.expect(" publishes live/cam")
        b.server.signal(signal.SIGSTOP)
        send(390)
        # Its system may have confirmed nothing for longer than it has taken nothing.
        a.server.expect(f"{toB}: waiting, since The (server takes|connection is lost)")
        b.server.signal(signal.SIGCONT)
        a.server.expect(f"{toB}: relaying")
        publisher.send(stream[390:])
        publisher.end()
        c.ended("cam")
        a.server.expect(f"{toB}: ended: .* [1-9][0-9]* dropped; .* reconnects: 1$")
        assert f":{c.port}/live: waiting" not in a.server.output
        b.server.signal(signal.SIGTERM)
        assert b.server.wait() == 0
    assertSame(mediaTags(a.recording("cam")), stream)
    assertSame(mediaTags(c.recording("cam")), stream)
    before, after = sorted(b.folder.glob("live/cam-*.flv"))
    recorded = mediaTags(after)
    assert isKeyFrame(recorded[1])
    assert recorded[-1].payload == stream[-1].payload
    assertSame(mediaTags(before)[:20], stream[:20])


def test_aServerThatStopsSendsWhatItHas(tmp_path: Path, sent: list[Message]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with (
        capturing(tmp_path / "b") as b,
        capturing(tmp_path / "a", "--push", url(b.port, "live")) as a,
        Publisher(a.port, "cam") as publisher,
    ):
        publisher.send(sent)
        a.server.signal(signal.SIGTERM)
        assert a.server.wait() == 0
        b.ended("cam")
        assert "0 dropped" in a.server.output
    assertSame(mediaTags(b.recording("cam")), media(sent))


def test_pushToNginxAndPullFromIt(tmp_path: Path, sent: list[Message]) -> None:
    for name in ("nginx", "a", "b"):
        (tmp_path / name).mkdir()
    with (
        nginx(tmp_path / "nginx") as port,
        capturing(tmp_path / "a", "--push", url(port, "live/s3cret")) as a,
        capturing(
            tmp_path / "b", "--pull", f"live/copy={url(port, 'live/s3cret')}"
        ) as b,
    ):
        b.server.expect(f"pull of live/copy from .*: {EXPECTING}")
        with Publisher(a.port, "cam") as publisher:
            publisher.send(sent)
            b.server.expect("pull of live/copy from .*: relaying")
            publisher.end()
        a.server.expect("push of live/cam .*: ended: .* 0 dropped; attempts: 1,")
        b.ended("copy")
        for server in (a.server, b.server):
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
            assert "s3cret" not in server.output
    (recorded,) = (tmp_path / "nginx").glob("s3cret*.flv")
    for path in (recorded, b.recording("copy")):
        got = mediaTags(path)
        # nginx-rtmp has an order of its own for headers, and may repeat them.
        assertSame(frames(got), frames(sent))
        assert headersIn(got) == headersIn(sent)


def test_nginxRefuses(tmp_path: Path, sent: list[Message]) -> None:
    (tmp_path / "nginx").mkdir()
    with (
        nginx(tmp_path / "nginx") as port,
        capturing(tmp_path, "--push", url(port, "closed/s3cret")) as a,
        Publisher(a.port, "cam") as publisher,
    ):
        publisher.send(sent)
        a.server.expect("push of live/cam .*: waiting, since ")
        assert "s3cret" not in a.server.output


@pytest.mark.parametrize("trusted", [True, False])
def test_pushByTLS(
    tmp_path: Path,
    sent: list[Message],
    trusted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    pem, other = tmp_path / "server.pem", tmp_path / "other.pem"
    for path in (pem, other):
        path.write_bytes(certificate("localhost", isAuthority=True))
    monkeypatch.setenv("SSL_CERT_FILE", str(pem if trusted else other))
    tls = f"ssl:0:privateKey={pem}:certKey={pem}:interface=127.0.0.1"
    with capturing(tmp_path / "b", "--listen", tls) as b:
        port = b.server.port()
        target = f"rtmps://localhost:{port}/live/{{stream}}"
        with (
            capturing(tmp_path / "a", "--push", target) as a,
            Publisher(a.port, "cam") as publisher,
        ):
            publisher.send(sent)
            label = rf"push of live/cam to rtmps://localhost:{port}/live"
            if not trusted:
                a.server.expect(f"{label}: waiting, since .*TLS: certificate verify")
                return
            a.server.expect(f"{label}: relaying")
            publisher.end()
            b.ended("cam")
    assertSame(mediaTags(b.recording("cam")), media(sent))


# Edges


def test_anEdgeOfFiftyPlayers(tmp_path: Path, sent: list[Message]) -> None:
    """
    They cost the origin one connection.  The origin dies and comes again: so does the
    stream.  When all have left, the edge leaves the origin.
    """
    for name in ("origin", "again", "edge"):
        (tmp_path / name).mkdir()
    payloads = [message.payload for message in media(sent)]
    half = len(sent) // 2
    with ExitStack() as stack:
        origin = stack.enter_context(capturing(tmp_path / "origin"))
        edge = stack.enter_context(
            capturing(
                *(tmp_path / "edge", "--origin", url(origin.port, "")),
                *("--origin-idle", "0", "--no-gop-cache"),
            )
        )
        viewers = [stack.enter_context(Viewer(edge.port, "cam")) for _ in range(25)]
        pull = r"pull of live/cam from \S+"
        edge.server.expect(f"{pull}: {EXPECTING}")
        publisher = stack.enter_context(Publisher(origin.port, "cam"))
        publisher.send(sent[:half])
        edge.server.expect(f"{pull}: relaying")
        for viewer in viewers:  # so the edge has the first half
            viewer.media(len(media(sent[:half])))
        late = [stack.enter_context(Viewer(edge.port, "cam")) for _ in range(24)]
        program_ = stack.enter_context(Player("ffmpeg", edge.url("cam"), tmp_path))
        while edge.server.output.count(" plays live/cam") < 50:
            edge.server.expect(" plays live/cam")
        publisher.send(sent[half:])
        for viewer in viewers:
            assert viewer.media(len(payloads)) == payloads
        # These begin with the headers and the next key frame.
        key = half + [isKeyFrame(message) for message in sent[half:]].index(True)
        expected = [
            *headersOf(media(sent)),
            *(m for m in sent[half:key] if m.typeId != MessageType.VIDEO),
            *sent[key:],
        ]
        for viewer in late:
            assert viewer.media(len(expected)) == [m.payload for m in expected]
        killed(origin)
        assert origin.server.output.count(" plays live/cam") == 1
        assert origin.server.output.count(" connected to live") == 2
        edge.server.expect(f"{pull}: waiting, since")
        again = stack.enter_context(
            capturing(
                *(tmp_path / "again", "--listen"),
                f"tcp:{origin.port}:interface=127.0.0.1",
            )
        )
        edge.server.expect(f"{pull}: {EXPECTING}")
        with Publisher(origin.port, "cam") as anew:
            anew.send(sent)
            for viewer in viewers:
                assert viewer.media(2 * len(payloads)) == payloads * 2
            for viewer in (*viewers, *late):
                viewer.socket.close()
            assert program_.wait() == 0
            edge.server.expect(f"{pull}: ended")
            again.server.expect("disconnected")
            assert "plays live/cam" in again.server.output


def test_anEdgeIsNotItsOwnOrigin(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        capturing(
            *(tmp_path, "--listen", f"tcp:{port}:interface=127.0.0.1"),
            *("--origin", url(port, "deeper")),
        ) as edge,
        Viewer(port, "cam"),
    ):
        edge.server.expect("pull of live/cam .*: waiting, since This edge would play")
        assert edge.server.output.count("pull of") <= 3
