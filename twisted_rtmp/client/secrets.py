"""Secrets: the parts of an address that no log line and no error may show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_rtmp.names import SHOWN_CHARACTERS, printable

if TYPE_CHECKING:
    from twisted_rtmp.client.url import RTMPURL

#: Put in the place of a secret.
HIDDEN = "(key)"


class Secrets:
    """The key, queries and password of one address."""

    def __init__(self, url: RTMPURL) -> None:
        name, _, query = url.name.partition("?")
        _, _, more = url.application.partition("?")
        parts = {url.name, name, query, more, url.password}
        # As they stand, and as a log line would spell them.
        spellings = parts | {printable(part) for part in parts}
        # The longest first: one may be part of another.
        self._secrets = sorted(spellings - {""}, key=len, reverse=True)

    def shown(self, text: str) -> str:
        """
        Make a server's words fit for a log line, without what they repeat of secrets.

        The cost is that of a line, however long the words are.
        """
        longest = len(self._secrets[0]) if self._secrets else 0
        window = text[: SHOWN_CHARACTERS + longest]
        covered: list[tuple[int, int]] = []
        for secret in self._secrets:
            begin = window.find(secret)
            while 0 <= begin < SHOWN_CHARACTERS:
                end = begin + len(secret)
                if _isWhole(window, begin, end) and not any(
                    start < end and begin < stop for start, stop in covered
                ):
                    covered.append((begin, end))
                begin = window.find(secret, begin + 1)
        shown, at = "", 0
        for begin, end in sorted(covered):
            shown += text[at:begin] + HIDDEN
            at = end
        rest = max(at, SHOWN_CHARACTERS)
        shown += text[at:rest]
        isCut = len(text) > rest and len(shown) <= SHOWN_CHARACTERS
        return printable(shown) + ("..." if isCut else "")


def _isWhole(text: str, begin: int, end: int) -> bool:
    """Tell whether a part of a text is a word of its own."""
    before, after = text[begin - 1 : begin], text[end : end + 1]
    return not (_isWord(before) or _isWord(after))


def _isWord(character: str) -> bool:
    return character.isalnum() or character == "_"
