"""
Values of AMF that Python has no type of its own for.

The others are plain: a number is a L{float} (in AMF3's integer type too), a
Boolean a L{bool}, a string a L{str}, null is L{None}, an anonymous object a
L{dict}, an array without names a L{list}, an AMF3 ByteArray L{bytes}.

Imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

#: Whatever AMF can carry; the types are told apart when they are used.
AMFValue: TypeAlias = Any


class Undefined(Enum):
    """The type of L{UNDEFINED}."""

    UNDEFINED = "undefined"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "UNDEFINED"


#: ActionScript's undefined, and what AMF0's "unsupported" marker reads as.
#: AMF0, 2.8 and 2.15; AMF3, 3.2.
UNDEFINED: Final[Literal[Undefined.UNDEFINED]] = Undefined.UNDEFINED


class ECMAArray(dict[str, Any]):
    """
    An array with names.  AMF0, 2.10; AMF3, 3.11.

    @ivar dense: the part without names that an AMF3 array may have beside the
        other; AMF0 writes it with the indices as names.
    """

    def __init__(self, *args: AMFValue, dense: list[Any] | None = None) -> None:
        super().__init__(*args)
        self.dense = [] if dense is None else dense

    def __eq__(self, other: object) -> bool:
        return dict.__eq__(self, other) and self.dense == getattr(other, "dense", [])

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __repr__(self) -> str:
        dense = f", dense={self.dense!r}" if self.dense else ""
        return f"ECMAArray({dict.__repr__(self)}{dense})"


class TypedObject(dict[str, Any]):
    """
    An object of a named class.  AMF0, 2.18; AMF3, 3.12.

    @ivar className: the alias its class is registered by.
    """

    def __init__(self, className: str, *args: AMFValue) -> None:
        super().__init__(*args)
        self.className = className

    def __eq__(self, other: object) -> bool:
        return dict.__eq__(self, other) and self.className == getattr(
            other, "className", ""
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __repr__(self) -> str:
        return f"TypedObject({self.className!r}, {dict.__repr__(self)})"


class XMLDocument(str):
    """The text of an XMLDocument.  AMF0, 2.17; AMF3, 3.9."""

    __slots__ = ()


class XML(XMLDocument):
    """The text of an E4X XML value; AMF0 has only the older type.  AMF3, 3.13."""

    __slots__ = ()


@dataclass(frozen=True)
class Date:
    """
    A point in time.  AMF0, 2.13; AMF3, 3.10.

    @ivar milliseconds: since 1970-01-01 00:00 UTC; fractions, infinities and
        NaN may come.
    @ivar timezone: AMF0's reserved field, 16 bits signed, which peers should
        leave 0; AMF3 does not carry it.
    """

    milliseconds: float
    timezone: int = 0


class VectorType(Enum):
    """The kind of values in a L{Vector}, by its AMF3 marker.  AMF3, 3.15."""

    INT = 0x0D
    UINT = 0x0E
    DOUBLE = 0x0F
    OBJECT = 0x10


class Vector(list[Any]):
    """
    A Vector of one base type.  AMF3, 3.15.

    @ivar type: the base type.
    @ivar fixed: whether its length is.
    @ivar className: of the items of a Vector of objects; C{"*"} is any type.
    """

    def __init__(
        self,
        type: VectorType,  # noqa: A002
        items: Iterable[AMFValue] = (),
        *,
        fixed: bool = False,
        className: str = "*",
    ) -> None:
        super().__init__(items)
        self.type = type
        self.fixed = fixed
        self.className = className

    def __repr__(self) -> str:
        return f"Vector({self.type}, {list.__repr__(self)})"


class Dictionary(list[tuple[Any, Any]]):
    """
    A Dictionary: pairs, since a key may be any value.  AMF3, 3.16.

    @ivar weakKeys: whether it keeps weak references to its keys.
    """

    def __init__(
        self, pairs: Iterable[tuple[AMFValue, AMFValue]] = (), *, weakKeys: bool = False
    ) -> None:
        super().__init__(pairs)
        self.weakKeys = weakKeys

    def __repr__(self) -> str:
        return f"Dictionary({list.__repr__(self)})"
