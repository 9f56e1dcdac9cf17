"""Commands in whose words names from the network stand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from twisted_rtmp.spelling import SPELT_BYTES, encodeFolders, encodeWord

_FIELD = re.compile(r"\{(app|stream)\}")


class Command:
    """A command whose arguments may have C{{app}} and C{{stream}} in them."""

    def __init__(self, text: str) -> None:
        """
        Split a command as a shell does its words; nothing else of a shell is there.

        @raise ValueError: it is empty, or a quote is not closed; the message is one
            line.
        """
        try:
            self.arguments = shlex.split(text)
        except ValueError as error:
            raise ValueError(f"command {text!r}: {error}") from None
        if not self.arguments:
            raise ValueError("the command must not be empty")

    @staticmethod
    def fieldsOf(application: str, name: str) -> dict[str, str]:
        """Spell the names of a stream; an application's slashes stay."""
        return {
            "app": encodeFolders(application, SPELT_BYTES, encodeWord),
            "stream": encodeWord(name),
        }

    def fill(self, fields: Mapping[str, str]) -> list[str]:
        """Make the arguments for a stream, of what L{fieldsOf} gives."""
        return [
            _FIELD.sub(lambda match: fields[match[1]], argument)
            for argument in self.arguments
        ]
