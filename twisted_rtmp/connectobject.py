"""
The object that a peer sends with C{connect}: what is kept of it, and what it tells.

It is the peer's to fill, as much as a command may have, and lasts as long as the
connection: so only as much is kept as any real client sends.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted_rtmp.names import printable

#: What is kept of a C{connect} object, in characters and in values.  OBS' has 200
#: characters and 11 values, FFmpeg's with all codecs twice that; tokens in a tcUrl may
#: have some KiB.
KEPT_CHARACTERS = 16_384
KEPT_VALUES = 200

#: How ffmpeg's flashVer ends when it plays, behind the name of a system.
FFMPEG_PLAYER = " 9,0,124,2"

_PLAIN = frozenset((str, float, bool, type(None)))


def keptOf(properties: dict[str, Any]) -> dict[str, Any]:
    """
    Give what is kept of a peer's C{connect} as long as its connection lasts.

    Texts, numbers and short lists and maps of these, in the order in which they came,
    up to L{KEPT_CHARACTERS} of text and L{KEPT_VALUES} values: all of any real client.
    """
    kept: dict[str, Any] = {}
    left = KEPT_CHARACTERS
    values = KEPT_VALUES
    for name, value in properties.items():
        characters, count = _sizeOf(value)
        characters += len(name)
        if characters <= left and count <= values:
            kept[name] = value
            left -= characters
            values -= count
    return kept


def _sizeOf(value: object) -> tuple[int, int]:
    """Count the characters and the values of what came in a command, nested or not."""
    kind = value.__class__
    if kind is str:
        return len(value), 1  # type: ignore[arg-type]
    if kind in _PLAIN:
        return 0, 1
    items: list[object] = []
    characters = 0
    if isinstance(value, dict):
        items = list(value.values())
        characters = sum(map(len, value))
    elif isinstance(value, list):
        items = value
    sizes = [_sizeOf(item) for item in items]
    return (
        characters + sum(size[0] for size in sizes),
        1 + sum(size[1] for size in sizes),
    )


def bytesOf(value: object) -> int:
    """Measure the memory of what came in a command, nested or not."""
    size = sys.getsizeof(value)
    if isinstance(value, dict):
        size += sum(map(sys.getsizeof, value))
        items: list[object] = list(value.values())
    elif isinstance(value, list):
        items = value
    else:
        return size
    if _PLAIN.issuperset(map(type, items)):
        return size + sum(map(sys.getsizeof, items))
    return size + sum(map(bytesOf, items))


def isFFmpegPlayer(properties: dict[str, Any]) -> bool:
    """Recognize ffmpeg as a player: it makes an empty stream of unknown data."""
    agent = properties.get("flashVer")
    return isinstance(agent, str) and agent.endswith(FFMPEG_PLAYER)


def agentOf(properties: dict[str, Any]) -> str:
    """Give the peer's software as it names it, printable; empty if it does not."""
    agent = properties.get("flashVer")
    return printable(agent) if isinstance(agent, str) else ""
