"""docs/security.md has a row for each bound of a server, with value and option."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.tap import Options

DOCUMENT = Path(__file__).parent.parent / "docs" / "security.md"

UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def bounds(limits: object, prefix: str = "") -> Iterator[tuple[str, float]]:
    for field in fields(limits):  # type: ignore[arg-type]
        value = getattr(limits, field.name)
        if is_dataclass(value):
            yield from bounds(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


def rows() -> dict[str, tuple[float, str]]:
    """Value and option of each row, by its field."""
    found = {}
    for line in DOCUMENT.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        field = re.fullmatch("`([a-zA-Z.]+)`", cells[2]) if len(cells) == 5 else None
        if field:
            number, _, unit = cells[1].replace(" of all", "").partition(" ")
            value = float(Fraction(number.replace(",", ""))) * UNITS.get(unit, 1)
            assert field[1] not in found, "one row each"
            found[field[1]] = value, cells[3].strip("`")
    return found


def test_eachBoundHasARow() -> None:
    assert {name: value for name, (value, _) in rows().items()} == dict(
        bounds(ServerLimits())
    )


@pytest.mark.parametrize(
    ("field", "value", "option"),
    [(name, value, option) for name, (value, option) in rows().items() if option],
)
def test_itsOptionSetsIt(field: str, value: float, option: str) -> None:
    options = Options()
    options.parseOptions([option, str(int(value) + 1)])
    changed = {
        name
        for name, bound in bounds(options.settings.default.limits)
        if bound != dict(bounds(ServerLimits()))[name]
    }
    # A larger message brings the room for others beside it along.
    assert changed - {"wire.unfinishedBytes"} == {field} - {"wire.unfinishedBytes"}
