"""
File names from names that come from the network.

Nothing here touches a disk.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from hashlib import sha256
from string import Formatter

#: Where recordings go unless the operator says otherwise: a folder for each
#: application, and names that sort by time.
DEFAULT_NAME = "{app}/{stream}-%Y%m%dT%H%M%SZ"

#: The end of each name.
EXTENSION = ".flv"

#: Bytes of a name on the disk: NAME_MAX of Linux and macOS file systems.
NAME_BYTES = 255

#: Bytes that L{EXTENSION}, the suffix of a name that is taken (C{-9999}) and that of a
#: track (C{.video255}) need.
_RESERVED_BYTES = len(EXTENSION) + 5 + 9

#: Bytes a stream's or application's name may take of a file's name: with the time of
#: L{DEFAULT_NAME} this stays below L{NAME_BYTES}.
_FIELD_BYTES = 200

#: Folders that an application may make of its slashes; real ones have up to three
#: (C{app/instance/...}), a hostile one thousands.  The rest becomes one name.
MAX_FOLDERS = 8

#: Hexadecimal digits that distinguish names that are cut: 64 bits.
_HASH_DIGITS = 16

#: Beside letters and digits of any script.  None has a meaning to a shell, a URL's
#: path or a file system, except C{.} and C{-} at the start, which are encoded there.
_PLAIN = frozenset("._-+=@,")

#: Stands for an empty name.  A stream that really has this name is encoded.
_EMPTY = "_"

_FIELDS = ("app", "stream")


class RecordName:
    """
    A template for the paths of recordings.

    It has the fields C{{app}} and C{{stream}} and those of C{strftime}, in UTC.
    Slashes make folders; the slashes in an application's name do, those in a
    stream's name do not.
    """

    def __init__(self, template: str = DEFAULT_NAME) -> None:
        """
        @raise ValueError: the template is invalid; the message is one line for its
            author.
        """
        self._parts: list[tuple[str, str | None]] = []
        try:
            parts = list(Formatter().parse(template))
        except ValueError:
            raise ValueError(
                "must have a } for each {, and {{ or }} for a plain one"
            ) from None
        for literal, field, specification, conversion in parts:
            if field is not None and (
                field not in _FIELDS or specification or conversion
            ):
                raise ValueError(
                    f"fields must be {{app}} or {{stream}}, not {{{field}}}"
                )
            if (len(literal) - len(literal.rstrip("%"))) % 2:
                raise ValueError(
                    "% must be followed by a letter of strftime, or by another %"
                )
            self._parts.append((literal, field))
        self._limit = _FIELD_BYTES
        sample = self._sample()
        fields = max(component.count("\0") for component in sample)
        self._limit = _FIELD_BYTES // max(fields, 1)
        self._validate(template)

    def _sample(self) -> list[str]:
        """Make a path's components, each field being one NUL."""
        moment = datetime.fromtimestamp(0, timezone.utc)
        return "".join(
            _moment(literal, moment) + ("\0" if field else "")
            for literal, field in self._parts
        ).split("/")

    def _validate(self, template: str) -> None:
        sample = self._sample()
        if not sample[0]:
            raise ValueError("must be a path below the record folder")
        if not sample[-1]:
            raise ValueError("must end with a name for the file")
        for component in sample:
            if component.startswith("."):
                raise ValueError(
                    f"{component!r} must not begin with a"
                    " dot, which hides files or leaves the record folder"
                )
            if any(letter < " " and letter != "\0" for letter in component):
                raise ValueError("must not have control characters")
            fields = component.count("\0")
            size = len(component.encode("utf-8", "surrogateescape")) - fields
            room = NAME_BYTES - _RESERVED_BYTES - fields * self._limit
            if size > room:
                raise ValueError(
                    f"{component!r} must have at most {room} bytes beside its fields"
                )

    def render(self, application: str, name: str, seconds: float) -> list[str]:
        """
        Make a path.

        @param application: the application's name, as it came.
        @param name: the stream's name, as it came.
        @param seconds: the time, in seconds since 1970.
        @return: the folders below the record folder, then the file's name without
            L{EXTENSION}.
        """
        moment = datetime.fromtimestamp(seconds, timezone.utc)
        values = {
            "app": encodeFolders(application, self._limit),
            "stream": encodeName(name, self._limit),
        }
        path = "".join(
            _moment(literal, moment) + (values[field] if field else "")
            for literal, field in self._parts
        )
        return [component for component in path.split("/") if component]


def _moment(literal: str, moment: datetime) -> str:
    # Some systems' strftime refuses surrogates, and what follows a NUL.
    return moment.strftime(literal) if "%" in literal else literal


def encodeName(name: str, limit: int = _FIELD_BYTES) -> str:
    """
    Make one plain name of any text; different texts give different names.

    Letters and digits of all scripts and C{._-+=@,} stay, all else becomes the
    C{%XX} of its bytes; so do a dot and a hyphen at the start.

    @param limit: bytes it may have; what is longer is cut and ends with a hash.
    """
    if not name:
        return _EMPTY
    if name == _EMPTY:
        return "%5F"
    # A ~ is in no name that was not cut.
    return joinPieces(_pieces(name, limit), name, limit, "~")


def _pieces(name: str, limit: int) -> list[str]:
    """Encode character by character; no more of them than can matter."""
    keepAll = sys.getfilesystemencoding() == "utf-8"
    pieces = []
    for position, letter in enumerate(name[: limit + 1]):
        plain = letter in _PLAIN and (position or letter not in ".-")
        if plain or (letter.isalnum() and (keepAll or letter.isascii())):
            pieces.append(letter)
        else:
            pieces.append(_percent(letter))
    return pieces


def joinPieces(pieces: Sequence[str], name: str, limit: int, mark: str) -> str:
    """
    Join the encoded characters of a name, and cut them if they are too many.

    @param limit: bytes that there may be.
    @param mark: what stands before the hash of a name that is cut.
    """
    size = sum(map(len, (piece.encode("utf-8") for piece in pieces)))
    if size <= limit:
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


def encodeFolders(
    application: str,
    limit: int = _FIELD_BYTES,
    encode: Callable[[str, int], str] = encodeName,
) -> str:
    """
    Make folders of an application's name.

    @param limit: bytes each of them may have.
    @param encode: makes one of them.
    @return: names joined by slashes; at least one.
    """
    names = [name for name in application.split("/") if name]
    if len(names) > MAX_FOLDERS:
        names[MAX_FOLDERS - 1 :] = ["/".join(names[MAX_FOLDERS - 1 :])]
    return "/".join(encode(name, limit) for name in names) or _EMPTY


def _percent(letter: str) -> str:
    try:
        data = letter.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = letter.encode("utf-8", "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in data)
