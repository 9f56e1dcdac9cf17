"""
Words of a command in which names from the network stand.

What a name is spelt with is read as nothing but a name by shells, C{printf}, globs,
URLs, and the tools that streams are fed to: ASCII letters and digits, C{. _ -} after
the first, and C{+} with two hexadecimal digits for any other byte.  So C{%s} is no
format to GStreamer's C{filesink}, C{@/etc/passwd} no file to curl, and C{-y},
C{concat:a} and C{~root} are nothing special to ffmpeg and a shell.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from twisted_rtmp.recording.names import encodeFolders, joinPieces

#: Bytes that one name may have: with a folder and an extension it stays below NAME_MAX.
WORD_BYTES = 200

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")

#: Stands for an empty name, and before a first character that is spelt in hexadecimal:
#: no tool takes it for an option, or for anything but a name's beginning.
_START = "_"

#: Stands before the hash of a name that was cut; no other name has it.
_CUT = "++"

_FIELD = re.compile(r"\{(app|stream)\}")


def encodeWord(name: str, limit: int = WORD_BYTES) -> str:
    """
    Spell a name for a command; different names give different words.

    @param limit: bytes it may have; what is longer is cut and ends with a hash.
    """
    pieces = [
        letter if letter in _PLAIN else _inHexadecimal(letter)
        for letter in name[: limit + 1]
    ]
    if not name or not name[0].isascii() or not name[0].isalnum():
        pieces[:1] = [_START + _inHexadecimal(name[:1])]
    return joinPieces(pieces, name, limit, _CUT)


def _inHexadecimal(letter: str) -> str:
    return "".join(f"+{byte:02X}" for byte in letter.encode("utf-8", "surrogatepass"))


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
            "app": encodeFolders(application, WORD_BYTES, encodeWord),
            "stream": encodeWord(name),
        }

    def fill(self, fields: Mapping[str, str]) -> list[str]:
        """Make the arguments for a stream, of what L{fieldsOf} gives."""
        return [
            _FIELD.sub(lambda match: fields[match[1]], argument)
            for argument in self.arguments
        ]
