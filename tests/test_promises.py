"""The table of promises: each has a number, and tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parent / "docs" / "promises.md"


def table() -> dict[str, list[str]]:
    """Read the tests of each promise."""
    rows = re.findall(
        r"^\| (P\d+) \|.*\| ([^|]*) \|$", DOCUMENT.read_text(), re.MULTILINE
    )
    return {number: re.findall(r"`([^`]+)`", tests) for number, tests in rows}


def namesIn(path: Path) -> set[str]:
    """Find the functions of a module of tests."""
    tree = ast.parse(path.read_text())
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


def test_thePromisesAreNumbered() -> None:
    assert list(table()) == [f"P{number + 1}" for number in range(len(table()))]
    assert len(table()) >= 40


def test_eachPromiseIsTested() -> None:
    for number, tests in table().items():
        assert tests, number
        for test in tests:
            file, _, name = test.partition("::")
            path = TESTS / file
            assert path.is_file(), f"{number}: {file}"
            assert not name or name in namesIn(path), f"{number}: {test}"


def test_eachNumberThatTestsHaveIsInTheTable() -> None:
    for path in TESTS.rglob("test_*.py"):
        documentation = ast.get_docstring(ast.parse(path.read_text())) or ""
        for number in re.findall(r"\bP\d+\b", documentation):
            assert number in table(), f"{path.name}: {number}"
