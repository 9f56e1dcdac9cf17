"""Secrets: the parts of addresses that the log must not show."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from twisted_rtmp.names import printable

if TYPE_CHECKING:
    from twisted_rtmp.client.url import RTMPURL


class Secrets:
    """The keys, queries and passwords of one relay's addresses."""

    def __init__(self, public: Iterable[str] = ()) -> None:
        """@param public: names that may be shown, though they are in the addresses."""
        self._public = frozenset(public)
        # The longest first: one may be part of another.
        self._secrets: list[str] = []

    def add(self, url: RTMPURL) -> None:
        """Hide the secrets of one more address."""
        name, _, query = url.name.partition("?")
        _, _, more = url.application.partition("?")
        parts = {url.name, name, query, more, url.password, *self._secrets}
        self._secrets = sorted(parts - {"", *self._public}, key=len, reverse=True)

    def hide(self, text: str) -> str:
        """Replace what a server's words repeat of the secrets."""
        for secret in self._secrets:
            # As it stands, and as a log line would spell it.
            for spelling in {secret, printable(secret)}:
                text = re.sub(rf"(?<!\w){re.escape(spelling)}(?!\w)", "(key)", text)
        return text
