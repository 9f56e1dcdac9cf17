"""
JSON that people write, read so that each mistake is told with the name of its field.

Imports the standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

_T = TypeVar("_T")


class BadField(ValueError):
    """
    A field is not what it has to be.

    @ivar where: its name, such as C{"encoder_configurations[1].width"}; empty for the
        whole.
    @ivar problem: what is wrong, without the name.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}" if where else problem)
        self.where = where
        self.problem = problem


def parseJSON(text: bytes | str) -> object:
    """
    Read JSON strictly: neither NaN nor a name that stands twice in an object.

    @raise BadField: it is no JSON.
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
        raise BadField("", "not JSON that anyone means: nested too deep") from None
    except BadField:
        raise
    except ValueError:
        # A number of more digits than Python reads.
        raise BadField("", "not JSON that anyone means: a number is too long") from None
    return value


def _refuse(constant: str) -> None:
    raise BadField("", f"not JSON: {constant}")


def uniqueNames(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """
    Make an object of its names and values.

    @raise BadField: a name stands twice.
    """
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise BadField("", f"{shown(name)} stands twice in an object")
        values[name] = value
    return values


def shown(value: object) -> str:
    """A value for a message: one line, and short."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:60] + "..."


class Fields:
    """
    The fields of a JSON object, each taken once and checked.

    @ivar where: the object's own name.
    """

    def __init__(self, value: object, where: str = "") -> None:
        """
        Look at an object.

        @raise BadField: it is none.
        """
        if not isinstance(value, dict):
            raise BadField(where, "this is an object")
        self.where = where
        self._left: dict[str, Any] = dict(value)

    def name(self, field: str) -> str:
        """What a field is called in messages."""
        return f"{self.where}.{field}" if self.where else field

    def has(self, field: str) -> bool:
        """Whether a field is there, and not null, and not taken yet."""
        return self._left.get(field) is not None

    def need(self, field: str, check: Callable[[Any, str], _T]) -> _T:
        """
        Take a field that has to be there.

        @raise BadField: it is not, or not right.
        """
        if not self.has(field):
            raise BadField(self.name(field), "is missing")
        return check(self._left.pop(field), self.name(field))

    def take(self, field: str, check: Callable[[Any, str], _T]) -> _T | None:
        """
        Take a field that may be there.

        @return: L{None} if it is not.
        @raise BadField: it is not right.
        """
        return self.need(field, check) if self.has(field) else None

    def end(self) -> None:
        """
        Nothing else may be there: it would be a name spelt wrongly.

        @raise BadField: something is.
        """
        for field, value in self._left.items():
            if value is not None:
                raise BadField(self.name(field), "there is no such field")


def anObject(value: object, where: str) -> dict[str, Any]:
    """Check that a value is an object."""
    if not isinstance(value, dict):
        raise BadField(where, "this is an object")
    return value


def aList(value: object, where: str) -> list[Any]:
    """Check that it is a list."""
    if not isinstance(value, list):
        raise BadField(where, "this is a list")
    return value


def aText(value: object, where: str) -> str:
    """Check that it is a text with something in it."""
    if not isinstance(value, str) or not value:
        raise BadField(where, "this is a text, and not an empty one")
    return value


def aFlag(value: object, where: str) -> bool:
    """Check that it is a truth value."""
    if not isinstance(value, bool):
        raise BadField(where, "this is true or false")
    return value


def aNumber(minimum: int, maximum: int) -> Callable[[Any, str], int]:
    """Make a check for whole numbers, both bounds included."""

    def check(value: object, where: str) -> int:
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or not minimum <= value <= maximum
        ):
            raise BadField(where, f"this is a whole number, {minimum} to {maximum}")
        return value

    return check


def oneOf(names: Sequence[str]) -> Callable[[Any, str], str]:
    """Make a check for one of these texts."""

    def check(value: object, where: str) -> str:
        if value not in names:
            raise BadField(where, "this is one of " + ", ".join(names))
        return str(value)

    return check


def listOf(
    parse: Callable[[object, str], _T], most: int
) -> Callable[[Any, str], list[_T]]:
    """Make a check for a list of one or more of something."""

    def check(value: object, where: str) -> list[_T]:
        items = aList(value, where)
        if not 1 <= len(items) <= most:
            raise BadField(where, f"this has 1 to {most} of them")
        return [parse(item, f"{where}[{index}]") for index, item in enumerate(items)]

    return check
