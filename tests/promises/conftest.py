"""A server for each module, and an honest stream beside each attack."""

from __future__ import annotations

import itertools

import pytest
from promiseserver import Server
from scriptedpeer import HonestStream

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(request, tmp_path_factory):
    """The module's server; C{OPTIONS} there are its options."""
    options = getattr(request.module, "OPTIONS", ())
    with Server(tmp_path_factory.mktemp("server"), *options) as server:
        yield server
        server.noTraceback()
        assert server.terminate() == 0


@pytest.fixture
def honest(server):
    """A stream that must lose nothing while the test runs."""
    stream = HonestStream(server, f"stream{next(_numbers)}")
    yield stream
    stream.goesOn()
    stream.compare()
    server.serves()
