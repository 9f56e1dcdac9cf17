"""
The identity of a stream: its path, wherever a peer divides it.

C{rtmp://host/g1/g2/cam} is application C{g1/g2} with stream C{cam} to GStreamer, and
application C{g1} with stream C{g2/cam} to FFmpeg; a web page asks for the path
C{/g1/g2/cam.flv}.  All mean the same stream.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TypeVar

from twisted_rtmp.names import pathOf

#: An application and a stream's name, as some peer divides a path.
Key = tuple[str, str]

_V = TypeVar("_V")


class ByPath(MutableMapping[Key, _V]):
    """
    A mapping whose keys are equal if their paths are.

    It gives each key as it was set first.
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[str, tuple[Key, _V]] = {}

    def __getitem__(self, key: Key) -> _V:
        return self._entries[pathOf(*key)][1]

    def __setitem__(self, key: Key, value: _V) -> None:
        path = pathOf(*key)
        present = self._entries.get(path)
        self._entries[path] = (key if present is None else present[0], value)

    def __delitem__(self, key: Key) -> None:
        del self._entries[pathOf(*key)]

    def __iter__(self) -> Iterator[Key]:
        return iter([key for key, _ in self._entries.values()])

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return repr(dict(self))

    def spelling(self, key: Key) -> Key:
        """Give a key as it was set, if it is there; otherwise the key itself."""
        entry = self._entries.get(pathOf(*key))
        return key if entry is None else entry[0]
