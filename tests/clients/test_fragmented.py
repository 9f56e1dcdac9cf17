"""However the network cuts the bytes, everything is in the recording."""

import itertools
import random
import socket
import threading
from contextlib import contextmanager

import pytest
from capture import assertAllStored, assertSame, ffmpeg, mediaTags, teed
from serverprocess import PATIENCE


def carry(source, target, sizes):
    """Pass bytes on in pieces of these sizes, each in a segment of its own."""
    try:
        target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := source.recv(65536):
            start = 0
            while start < len(data):
                end = start + next(sizes)
                target.sendall(data[start:end])
                start = end
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # One end has gone; so the other one is told.
        for end in (source, target):
            end.close()


@contextmanager
def proxy(port, sizes):
    """Relay one connection: the port to connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)

        def serve():
            client, _ = listener.accept()
            with client, socket.create_connection(("127.0.0.1", port)) as server:
                answers = threading.Thread(
                    target=carry, args=(server, client, itertools.repeat(65536))
                )
                answers.start()
                carry(client, server, sizes)
                answers.join()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(PATIENCE)
        assert not thread.is_alive()


def randomSizes(seed):
    """Mostly small pieces, at times big ones."""
    choose = random.Random(seed)
    while True:
        yield choose.choice((1, 2, 11, 12, choose.randrange(1, 200), 1460, 40000))


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(itertools.repeat(1), id="1"),
        pytest.param(itertools.repeat(3), id="3"),
        pytest.param(itertools.repeat(536), id="536"),
        pytest.param(randomSizes(1), id="random 1"),
        pytest.param(randomSizes(2), id="random 2"),
    ],
)
def test_pieces(capture, sample, tmp_path, sizes):
    local = tmp_path / "local.flv"
    with proxy(capture.port, sizes) as port:
        url = f"rtmp://127.0.0.1:{port}/live/test"
        ffmpeg("-i", sample, "-map", 0, "-c", "copy", *teed(local, url))
    summary = capture.ended("test")["test"]
    sent = mediaTags(local)
    assertSame(mediaTags(capture.recording("test")), sent)
    assertAllStored(summary, sent)
