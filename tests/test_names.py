"""Names, as peers spell them."""

from __future__ import annotations

import random
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from twisted_rtmp.names import (
    SHOWN_CHARACTERS,
    parseApplication,
    parseStreamName,
    peerName,
    printable,
    splitQuery,
)


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"app": "live"}, ("live", "")),
        ({"app": "live/"}, ("live", "")),
        ({"app": "/live//x/"}, ("live/x", "")),
        ({"app": "live/_definst_"}, ("live", "")),
        ({"app": "live?a=1"}, ("live", "a=1")),
        ({"app": "live/?a=1?b=2"}, ("live", "a=1?b=2")),
        ({"app": "live?a=1", "tcUrl": "rtmp://h/live?b=2"}, ("live", "a=1")),
        ({"app": "live", "tcUrl": "rtmp://h/live?b=2"}, ("live", "b=2")),
        ({"tcUrl": "rtmp://h:1935/a/b?c"}, ("a/b", "c")),
        ({"tcurl": "rtmp://h/a"}, ("a", "")),
        ({"tcUrl": '"rtmp://h/a"'}, ("a", "")),
        ({"app": ' "live" '}, ("live", "")),
        ({"app": None, "tcUrl": 5.0}, ("", "")),
        ({"app": "", "tcUrl": "rtmp://h/a"}, ("", "")),
        ({"tcUrl": "rtmp://h"}, ("", "")),
        ({"tcUrl": "no url"}, ("", "")),
        ({}, ("", "")),
    ],
)
def test_application(properties: dict[str, Any], expected: tuple[str, str]) -> None:
    assert parseApplication(properties) == expected


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("key", ("key", "")),
        ("key?a=b?c=d", ("key", "a=b?c=d")),
        ("?token", ("", "token")),
        ("/a/b/", ("a/b", "")),
        (" key ", ("key", "")),
        (7.0, ("7", "")),
        (1.5, ("1.5", "")),
        (None, ("", "")),
        ({"a": 1}, ("", "")),
        (True, ("", "")),
    ],
)
def test_stream(argument: object, expected: tuple[str, str]) -> None:
    assert parseStreamName(argument) == expected


def test_query() -> None:
    assert splitQuery("a?b?c") == ("a", "b?c")
    assert splitQuery("a") == ("a", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("gr\u00fcn", "gr\u00fcn"),
        ("a\r\nb", "a\\r\\nb"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202eabc", "\\u202eabc"),
        ("\u2028", "\\u2028"),
        ("a\udcff", "a\\udcff"),
        ("", ""),
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_printableIsShort() -> None:
    assert printable("x" * 5000) == "x" * SHOWN_CHARACTERS + "..."


def test_printableOfAnything() -> None:
    """Any text that the network can bring, one line comes out."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    pick = random.Random(seed)
    for _ in range(500):
        data = bytes(pick.randrange(256) for _ in range(60))
        assert printable(data.decode("utf-8", "surrogateescape")).isprintable()
        text = "".join(chr(pick.randrange(0x110000)) for _ in range(30))
        assert printable(text).isprintable()


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (IPv4Address("TCP", "192.0.2.1", 1935), "192.0.2.1:1935"),
        (IPv6Address("TCP", "::1", 1234), "[::1]:1234"),
        (IPv6Address("TCP", "fe80::1%eth0", 1234), "[fe80::1%eth0]:1234"),
        (UNIXAddress(b"/run/rtmp\n.sock"), "/run/rtmp\\n.sock"),
        (UNIXAddress(b""), "local"),
        (UNIXAddress(None), "local"),
        (None, "local"),
    ],
)
def test_peers(address: object, name: str) -> None:
    assert peerName(address) == name
