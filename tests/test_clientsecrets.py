"""Secrets of addresses, in what servers say."""

from __future__ import annotations

import pytest
from clientkit import Collector, MemoryEndpoint, Outcome, refusing

from twisted_rtmp.client import RTMPURL, connectRTMP
from twisted_rtmp.client.secrets import Secrets
from twisted_rtmp.names import SHOWN_CHARACTERS


@pytest.mark.parametrize(
    ("url", "text", "shown"),
    [
        ("rtmp://b/live/s3cret", "s3cret is taken", "(key) is taken"),
        ("rtmp://b/live/a?token=s3cret", "no a?token=s3cret", "no (key)"),
        ("rtmp://b/live/a?token=s3cret", "token=s3cret is bad", "(key) is bad"),
        ("rtmp://u:pa$$@b/live", "pa$$ is wrong", "(key) is wrong"),
        ("rtmp://b/live/a", "a bad name, at all", "(key) bad name, at all"),
        ("rtmp://b/live/a", "a, a and a_a", "(key), (key) and a_a"),
        ("rtmp://b/live/\u00e4\u200b", "no \u00e4\u200b here", "no (key) here"),
        ("rtmp://b/live/\u00e4\u200b", "no \u00e4\\u200b here", "no (key) here"),
        ("rtmp://b/live", "all is well", "all is well"),
        ("rtmp://b/live/a", "two\nlines", "two\\nlines"),
        ("rtmp://b/live/key", "", ""),
    ],
)
def test_keysAreHidden(url, text, shown):
    assert Secrets(RTMPURL.parse(url)).shown(text) == shown


def test_aKeyThatIsCutOffIsHiddenToo():
    """No beginning of one is shown."""
    key = "s3cret" + "x" * 5000
    secrets = Secrets(RTMPURL.parse(f"rtmp://b/live/{key}"))
    for before in range(SHOWN_CHARACTERS + 9):
        shown = secrets.shown("." * before + key + " is taken")
        assert "s3cret" not in shown
        assert len(shown) <= SHOWN_CHARACTERS + len("(key)...")
    assert secrets.shown(f"{key} {key} {key}") == "(key)..."


def test_longWordsAreCut():
    secrets = Secrets(RTMPURL.parse("rtmp://b/live/key"))
    assert secrets.shown("x" * 1_000_000) == "x" * SHOWN_CHARACTERS + "..."
    assert secrets.shown("x" * SHOWN_CHARACTERS) == "x" * SHOWN_CHARACTERS


@pytest.mark.parametrize("command", ["connect", "createStream", "publish", "play"])
def test_noErrorAndNoLineHasTheKey(clock, lines, command):
    code = f"NetConnection.{command}.s3cret"
    words = refusing(code, "There is no s3cret, token=s3cret.")
    endpoint = MemoryEndpoint(clock, **{command: words})
    url = "rtmp://a/app/s3cret?token=s3cret"
    connecting = Outcome(connectRTMP(clock, url, endpoint=endpoint))
    errors = connecting.errors
    if not errors:
        client = connecting.result
        asking = (
            client.play(None, Collector()) if command == "play" else client.publish()
        )
        errors = Outcome(asking).errors
        client.abort()
    [error] = errors
    assert "s3cret" not in str(error)
    assert "(key)" in str(error)
    assert error.code == code, "programs may read it all the same"
    clock.advance(0)
    assert not any("s3cret" in line for line in lines)
