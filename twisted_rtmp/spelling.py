"""
Spellings of names from the network that are plain names wherever they are written.

L{encodeName} makes names of files, which keep the letters of all scripts.
L{encodeWord} makes words of commands, which no tool reads as more than a name: no
format of C{printf}, option, response file, protocol, glob or shell's variable comes of
one.  Different names are spelt differently.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from hashlib import sha256

#: Bytes that one name may have: with a time or an extension it stays below the 255 of
#: file systems.
SPELT_BYTES = 200

#: Folders that an application may make of its slashes; real ones have up to three
#: (C{app/instance/...}), a hostile one thousands.  The rest becomes one name.
MAX_FOLDERS = 8

#: Hexadecimal digits that distinguish names that are cut: 64 bits.
_HASH_DIGITS = 16

#: Stands for an empty name, and at the start of a word before what is not plain there.
#: A name that begins so is encoded.
_EMPTY = "_"

#: Characters of a file's name beside letters and digits of any script.  None has a
#: meaning to a shell, a URL's path or a file system, except C{.} and C{-} at the start,
#: which are encoded there.
_PLAIN_IN_NAMES = frozenset("._-+=@,")

#: Characters of a word beside ASCII letters and digits, behind the first.
_PLAIN_IN_WORDS = frozenset("._-")


def encodeName(name: str, limit: int = SPELT_BYTES) -> str:
    """
    Make one plain name of a file of any text.

    Letters and digits of all scripts and C{._-+=@,} stay, all else becomes the
    C{%XX} of its bytes; so do a dot and a hyphen at the start.

    @param limit: bytes it may have; what is longer is cut and ends with a hash.
    """
    if not name:
        return _EMPTY
    if name == _EMPTY:
        return "%5F"
    keepAll = sys.getfilesystemencoding() == "utf-8"
    pieces = []
    for position, letter in enumerate(name[: limit + 1]):
        plain = letter in _PLAIN_IN_NAMES and (position or letter not in ".-")
        if plain or (letter.isalnum() and (keepAll or letter.isascii())):
            pieces.append(letter)
        else:
            pieces.append(_inHexadecimal(_octetsOf(letter), "%"))
    # A ~ is in no name that was not cut.
    return _join(pieces, name, limit, "~")


def encodeWord(name: str, limit: int = SPELT_BYTES) -> str:
    """
    Make one word of a command of any text.

    ASCII letters and digits stay, and C{._-} behind the first character; all else
    becomes the C{+XX} of its bytes, with C{_} before it at the start.

    @param limit: as of L{encodeName}.
    """
    pieces = []
    for position, letter in enumerate(name[: limit + 1]):
        plain = position and letter in _PLAIN_IN_WORDS
        if plain or (letter.isascii() and letter.isalnum()):
            pieces.append(letter)
        else:
            start = "" if position else _EMPTY
            # A lone surrogate gets bytes of its own, which no other letter has.
            data = letter.encode("utf-8", "surrogatepass")
            pieces.append(start + _inHexadecimal(data, "+"))
    return _join(pieces, name, limit, "++") or _EMPTY


def encodeFolders(
    application: str,
    limit: int = SPELT_BYTES,
    encode: Callable[[str, int], str] = encodeName,
) -> str:
    """
    Make folders of an application's name.

    @param limit: bytes each of them may have.
    @param encode: spells one of them.
    @return: names joined by slashes; at least one.
    """
    names = [name for name in application.split("/") if name]
    if len(names) > MAX_FOLDERS:
        names[MAX_FOLDERS - 1 :] = ["/".join(names[MAX_FOLDERS - 1 :])]
    return "/".join(encode(name, limit) for name in names) or _EMPTY


def _join(pieces: Sequence[str], name: str, limit: int, mark: str) -> str:
    """
    Join the encoded characters of a name, and cut them if they are too many.

    @param mark: what stands before the hash of a name that is cut, and nowhere else.
    """
    if sum(len(piece.encode("utf-8")) for piece in pieces) <= limit:
        return "".join(pieces)
    digest = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
    room = limit - len(mark) - _HASH_DIGITS
    kept = []
    for piece in pieces:
        room -= len(piece.encode("utf-8"))
        if room < 0:
            break
        kept.append(piece)
    return "".join(kept) + mark + digest


def _inHexadecimal(data: bytes, mark: str) -> str:
    return "".join(f"{mark}{byte:02X}" for byte in data)


def _octetsOf(letter: str) -> bytes:
    """Give a character's bytes, or the byte that was none of a character."""
    try:
        return letter.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return letter.encode("utf-8", "surrogatepass")
