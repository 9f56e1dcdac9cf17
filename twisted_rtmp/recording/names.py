"""
File names from names that come from the network.

Nothing here touches a disk.
"""

from __future__ import annotations

from datetime import datetime, timezone
from string import Formatter

from twisted_rtmp.spelling import SPELT_BYTES, encodeFolders, encodeName

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
        self._limit = SPELT_BYTES
        sample = self._sample()
        fields = max(component.count("\0") for component in sample)
        self._limit = SPELT_BYTES // max(fields, 1)
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
