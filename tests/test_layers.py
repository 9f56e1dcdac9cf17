"""
The layers: who imports whom in the package, as docs/architecture.md tells.

All imports count, those for typing and those within functions too.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "twisted_rtmp"
DOCUMENT = ROOT / "docs" / "architecture.md"

#: The names by which distributions are imported.
DISTRIBUTIONS = {
    "twisted": "Twisted",
    "zope": "Twisted",
    "wsproto": "wsproto",
    "h11": "h11",
}


class Imports(NamedTuple):
    """What a module or a room imports: of the package, and from elsewhere."""

    package: set[str]
    elsewhere: set[str]


def importsOf(source: str, names: set[str]) -> Imports:
    """
    Find all that a module imports.

    @param names: the package's modules, relative to it.
    """
    package, elsewhere = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in found:
            top, _, rest = name.partition(".")
            if top == PACKAGE.name:
                # What is no module is a name in one.
                package.add(rest if rest in names else rest.rpartition(".")[0])
            elif top not in sys.stdlib_module_names:
                elsewhere.add(DISTRIBUTIONS[top])
    return Imports(package - {""}, elsewhere)


def allModules() -> dict[str, Imports]:
    """Read the package's modules; a folder's C{__init__} has the folder's name."""
    paths = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
    }
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    root = importsOf(paths.pop("__init__").read_text(), set(paths))
    assert root == Imports(set(), set()), "the package itself imports nothing"
    return {name: importsOf(p.read_text(), set(paths)) for name, p in paths.items()}


MODULES = allModules()


def allRooms() -> dict[str, Imports]:
    """Sum up the modules of each room; what it imports of itself is left out."""
    rooms: dict[str, Imports] = {}
    for name, imports in MODULES.items():
        room = name.partition(".")[0]
        package, elsewhere = rooms.setdefault(room, Imports(set(), set()))
        package |= {other.partition(".")[0] for other in imports.package} - {room}
        elsewhere |= imports.elsewhere
    return rooms


def documented() -> dict[str, Imports]:
    """Read the document's table, from the top room to the lowest."""
    section = DOCUMENT.read_text().split("\n## Layers")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    rooms = {}
    for row in rows[2:]:
        room, _, package, elsewhere = map(str.strip, row.strip("|").split("|"))
        assert room not in rooms, f"{room} has two rows"
        rooms[room] = Imports(
            *(
                {name.strip() for name in cell.split(",") if name}
                for cell in (package, elsewhere)
            )
        )
    return rooms


def circles() -> set[frozenset[str]]:
    """Find the modules that import each other, directly or through others."""
    reached: dict[str, set[str]] = {}
    for name in MODULES:
        found: set[str] = set()
        left = [name]
        while left:
            new = MODULES[left.pop()].package - found
            found |= new
            left += new
        reached[name] = found
    return {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in MODULES
        if name in reached[name]
    }


def test_importsAreFoundWhereverTheyStand() -> None:
    source = """
from __future__ import annotations
import os.path, h11
from typing import TYPE_CHECKING
from twisted_rtmp import __version__, names
from twisted_rtmp.wire import amf0, errors
from twisted_rtmp.wire.errors import ProtocolError
if TYPE_CHECKING:
    from twisted_rtmp.live.streams import LiveStream
def late():
    import twisted_rtmp.disk
    from zope.interface import implementer
"""
    modules = {"names", "wire", "wire.amf0", "wire.errors", "live.streams", "disk"}
    found = importsOf(source, modules)
    assert found.package == modules - {"wire"}
    assert found.elsewhere == {"h11", "Twisted"}


def test_eachRoomImportsWhatTheTableAllows() -> None:
    table, code = documented(), allRooms()
    assert set(table) == set(code), "each room has a row, and each row a room"
    for room, imports in code.items():
        for found, allowed in zip(imports, table[room], strict=True):
            more = found - allowed
            assert not more, f"{DOCUMENT.name}: {room} imports {', '.join(more)}, too"


def test_importsGoDown() -> None:
    rooms = documented()
    above: set[str] = set()
    for room, imports in rooms.items():
        above.add(room)
        assert not imports.package & above, f"{room} imports from above"


def test_noCircles() -> None:
    assert not circles()


def test_wireAndMediaNeedTheStandardLibraryOnly() -> None:
    rooms = allRooms()
    assert not rooms["wire"].elsewhere
    assert not rooms["media"].elsewhere
