"""
Checks of values that people write: on the command line, in JSON and in files.

A check either gives the value or raises an error that says what it must be, so that
the same mistake is told in the same words wherever it is made.  Checks of text take
what was written; checks of fields take a value with the name of its field, and their
errors have that name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from enum import Enum
from typing import Any, TypeVar

_T = TypeVar("_T")
_E = TypeVar("_E", bound=Enum)

_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
#: Fifteen digits are 30 million years, or a thousand disks.
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,15})?"
_TIME_UNITS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class BadField(ValueError):
    """
    A field with a value that it must not have.

    @ivar where: the field's name, such as C{"encoder_configurations[1].width"}; empty
        for the whole.
    @ivar problem: what the value must be, without the name.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}" if where else problem)
        self.where = where
        self.problem = problem


# Text


def parsePort(text: str) -> int:
    """
    Read a TCP port.

    @raise ValueError: it must be another text.
    """
    if not (text.isascii() and text.isdecimal() and int(text) <= 0xFFFF):
        raise ValueError("must be a port from 0 to 65535")
    return int(text)


def parseCount(text: str) -> int:
    """
    Read a number of things, at least one.

    @raise ValueError: it must be another text.
    """
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise ValueError("must be a whole number from 1 up")
    return int(text)


def parseSize(text: str) -> int:
    """
    Read a size such as C{500M}, in bytes; the units are powers of 1024.

    @raise ValueError: it must be another text.
    """
    match = re.fullmatch(rf"({_NUMBER})([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    size = int(float(match[1]) * _SIZE_UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise ValueError("must be a number of bytes, such as 500000, 500M or 2G")
    return size


def parseDuration(text: str) -> float:
    """
    Read a time such as C{30m}, in seconds.

    @raise ValueError: it must be another text; 0 is no duration.
    """
    match = re.fullmatch(rf"({_NUMBER})(ms|[smhd]?)", text)
    seconds = float(match[1]) * _TIME_UNITS[match[2]] if match else 0.0
    if not seconds > 0:
        raise ValueError(
            "must be a time of more than 0 seconds, such as 10, 250ms, 30m or 1h"
        )
    return seconds


def parseDelay(text: str) -> float:
    """
    Read a time such as C{50ms}, in seconds; 0 stands for no delay.

    @raise ValueError: it must be another text.
    """
    try:
        return parseDuration(text)
    except ValueError:
        if re.fullmatch(r"0(ms|[smhd])?", text):
            return 0.0
        raise ValueError("must be 0 or a time such as 10, 250ms, 30m or 1h") from None


def memberOf(members: type[_E]) -> Callable[[str], _E]:
    """Make a check of text that is the value of a member of an enumeration."""

    def parse(text: str) -> _E:
        names = [member.value for member in members]
        if text not in names:
            raise ValueError("must be one of " + ", ".join(names))
        return members(text)

    return parse


# Files


def readLines(path: str) -> list[tuple[int, str]]:
    """
    Read a file of an operator's: text in UTF-8, maybe with a byte order mark.

    @return: the number of each line that is not empty and no C{#} comment, and the line
        without white space at its ends.
    @raise ValueError: it cannot be read, is other text, or has no such line.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except UnicodeDecodeError:
        raise ValueError("must be UTF-8") from None
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    found = [(n, line) for n, line in enumerate(lines, 1) if line and line[0] != "#"]
    if not found:
        raise ValueError("must have a line that is not a comment")
    return found


# JSON


def parseJSON(text: bytes | str) -> object:
    """
    Read JSON strictly: without NaN, and each name once in its object.

    @raise BadField: the text is not JSON.
    """
    try:
        value: object = json.loads(
            text, parse_constant=_refuse, object_pairs_hook=uniqueNames
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise BadField("", f"not JSON: {error.msg}, {where}") from None
    except UnicodeDecodeError:
        raise BadField("", "not UTF-8") from None
    except RecursionError:
        raise BadField("", "not JSON: nested too deeply") from None
    except BadField:
        raise
    except ValueError:
        # A number of more digits than Python reads.
        raise BadField("", "not JSON: a number is too long") from None
    return value


def _refuse(constant: str) -> None:
    raise BadField("", f"not JSON: {constant}")


def uniqueNames(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """
    Make an object of its names and values.

    @raise BadField: a name is repeated.
    """
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise BadField("", f"not usable: {shown(name)} is twice in one object")
        values[name] = value
    return values


def shown(value: object) -> str:
    """Show a value in a message: one line, and short."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:60] + "..."


# Fields


class Fields:
    """
    The fields of an object, such as JSON and TOML have; each is taken once and checked.

    @ivar where: the object's own name.
    """

    def __init__(self, value: object, where: str = "") -> None:
        """
        Begin with all fields of an object.

        @raise BadField: the value must be an object.
        """
        self.where = where
        self._left: dict[str, Any] = dict(anObject(value, where))

    def name(self, field: str) -> str:
        """Give a field's name as messages have it."""
        return f"{self.where}.{field}" if self.where else field

    def has(self, field: str) -> bool:
        """Tell whether a field is there, is not null, and is not taken yet."""
        return self._left.get(field) is not None

    def need(self, field: str, check: Callable[[Any, str], _T]) -> _T:
        """
        Take a field that must be there.

        @raise BadField: it is missing, or its value is wrong.
        """
        if not self.has(field):
            raise BadField(self.name(field), "is missing")
        return check(self._left.pop(field), self.name(field))

    def take(self, field: str, check: Callable[[Any, str], _T]) -> _T | None:
        """
        Take a field that may be there.

        @return: L{None} if it is not.
        @raise BadField: its value is wrong.
        """
        return self.need(field, check) if self.has(field) else None

    def end(self) -> None:
        """
        Check that all fields have been taken: another one has a misspelt name.

        @raise BadField: there is another one.
        """
        for field, value in self._left.items():
            if value is not None:
                raise BadField(self.name(field), "is not a known field")


def anObject(value: object, where: str) -> dict[str, Any]:
    """Check that a value is an object."""
    if not isinstance(value, dict):
        raise BadField(where, "must be an object")
    return value


def aList(value: object, where: str) -> list[Any]:
    """Check that a value is a list."""
    if not isinstance(value, list):
        raise BadField(where, "must be a list")
    return value


def aText(value: object, where: str) -> str:
    """Check that a value is a text with something in it."""
    if not isinstance(value, str) or not value:
        raise BadField(where, "must be a text that is not empty")
    return value


def aFlag(value: object, where: str) -> bool:
    """Check that a value is true or false."""
    if not isinstance(value, bool):
        raise BadField(where, "must be true or false")
    return value


def aNumber(minimum: int, maximum: int) -> Callable[[Any, str], int]:
    """Make a check for whole numbers, both bounds included."""

    def check(value: object, where: str) -> int:
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or not minimum <= value <= maximum
        ):
            raise BadField(where, f"must be a whole number from {minimum} to {maximum}")
        return value

    return check


def oneOf(names: Collection[str]) -> Callable[[Any, str], str]:
    """Make a check for one of these texts."""

    def check(value: object, where: str) -> str:
        if value not in names:
            raise BadField(where, "must be one of " + ", ".join(names))
        return str(value)

    return check


def listOf(
    parse: Callable[[object, str], _T], most: int
) -> Callable[[Any, str], list[_T]]:
    """Make a check for a list of one or more of something."""

    def check(value: object, where: str) -> list[_T]:
        items = aList(value, where)
        if not 1 <= len(items) <= most:
            raise BadField(where, f"must have 1 to {most} items")
        return [parse(item, f"{where}[{index}]") for index, item in enumerate(items)]

    return check


def written(parse: Callable[[str], _T]) -> Callable[[Any, str], _T]:
    """Make a check of a field from one of text."""

    def check(value: object, where: str) -> _T:
        try:
            return parse(aText(value, where))
        except BadField:
            raise
        except ValueError as error:
            raise BadField(where, str(error)) from None

    return check
