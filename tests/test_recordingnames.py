"""Names of recordings: none leaves the folder, none is another's."""

from __future__ import annotations

import os
import random

import pytest
from recordingkit import NOW, World, audio

from twisted_rtmp.recording import RecordName
from twisted_rtmp.spelling import encodeFolders, encodeName

#: Bytes of a path that may not be on the disk.
CONTROL = [chr(n) for n in range(32)] + ["\x7f"]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "record")


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("camera-1", "camera-1"),
        ("", "_"),
        ("_", "%5F"),
        ("a/b", "a%2Fb"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("-rf", "%2Drf"),
        ("a.b-c", "a.b-c"),
        ("100%", "100%25"),
        ("%2F", "%252F"),
        ("a b\n\x00", "a%20b%0A%00"),
        ("~x", "%7Ex"),
        ("Zürich", "Zürich"),
        ("放送", "放送"),
        ("a\u202etxt", "a%E2%80%AEtxt"),
        ("\udce9", "%E9"),
        ("\ud800", "%ED%A0%80"),
        ("\\..\\x", "%5C..%5Cx"),
    ],
)
def test_namesBecomePlain(name, plain):
    assert encodeName(name) == plain


def test_differentNamesStayDifferent():
    random.seed(7)
    alphabet = "a%_-.~/ 2F5é\udce9\0"
    names = {
        "".join(random.choices(alphabet, k=random.randrange(7))) for _ in range(3000)
    }
    assert len({encodeName(name) for name in names}) == len(names)


def test_longNamesAreCutAndStayDifferent():
    one, other = encodeName("放" * 4000), encodeName("放" * 3999 + "x")
    assert one != other
    assert len(one.encode()) <= 200
    assert one.startswith("放放")
    assert one[-17] == "~"
    # No piece of an encoded character remains.
    assert len(encodeName("/" * 300)[:-17]) % 3 == 0


def test_applicationsMakeFolders():
    assert encodeFolders("live/inst") == "live/inst"
    assert encodeFolders("/../etc//.") == "%2E./etc/%2E"
    assert encodeFolders("") == encodeFolders("///") == "_"
    assert encodeFolders("/".join("abcdefghijk")) == "a/b/c/d/e/f/g/h%2Fi%2Fj%2Fk"
    assert encodeFolders("a/" * 5000).count("/") == 7


@pytest.mark.parametrize(
    ("template", "path"),
    [
        (None, ["live", "test-20261123T093829Z"]),
        ("{stream}", ["test"]),
        ("%Y/%m/%d/{app}_{stream}", ["2026", "11", "23", "live_test"]),
        ("{{x}}{stream}", ["{x}test"]),
        ("a//{stream}%%", ["a", "test%"]),
    ],
)
def test_templates(template, path):
    name = RecordName() if template is None else RecordName(template)
    assert name.render("live", "test", NOW) == path


def test_namesAreNoTemplates():
    assert RecordName("{app}-{stream}").render("%Y", "{app}", 0) == ["%25Y-%7Bapp%7D"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{key}", "must be {app} or {stream}, not {key}"),
        ("{}", "must be {app} or {stream}, not {}"),
        ("{stream!r}", "fields must be {app} or {stream}"),
        ("{stream:>400}", "fields must be {app} or {stream}"),
        ("{stream", "must have a } for each {"),
        ("x%", "% must be followed by a letter of strftime"),
        ("%{stream}", "% must be followed by a letter of strftime"),
        ("", "must be a path below the record folder"),
        ("/tmp/{stream}", "must be a path below the record folder"),
        ("../{stream}", "leaves the record folder"),
        ("a/./{stream}", "leaves the record folder"),
        (".{stream}", "must not begin with a dot, which hides files"),
        ("{stream}/", "must end with a name for the file"),
        ("{stream}\n", "must not have control characters"),
        ("%n{stream}", "must not have control characters"),
        ("x" * 100 + "{stream}", "must have at most 37 bytes beside its fields"),
    ],
)
def test_wrongTemplatesAreExplained(template, message):
    with pytest.raises(ValueError, match="must") as caught:
        RecordName(template)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


HOSTILE = [
    "../../etc/passwd",
    "..",
    ".",
    "/etc/passwd",
    "//x",
    "..\\..\\x",
    "a\x00b",
    "\x00",
    "x" * 10_000,
    "é" * 10_000,
    "😀" * 300,
    "../" * 3000,
    "a/" * 5000,
    "a\nb\r",
    "\x1b[31m",
    "\u202e\u200b",
    ".htaccess",
    "-rf",
    "~root",
    "$(touch x)",
    "`id`",
    "con",
    "%2e%2e%2f",
    "..%00/",
    "\udcff\udcfe",
    "\ud800",
    "",
    " ",
    "\u2044\uff0f\uff0e\uff0e",
]


def test_hostileNamesStayInTheFolder(tmp_path):
    world = World(tmp_path / "a" / "record")
    for name in HOSTILE:
        for stream in (world.stream(name, "x"), world.stream("x", name)):
            stream.messageReceived(audio(0))
            stream.end()
    paths = world.paths()
    assert len(paths) == len(world.finished) == 2 * len(HOSTILE)
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == set(paths)
    for path in paths:
        for part in path.relative_to(world.folder).parts:
            assert len(os.fsencode(part)) <= 255
            assert not part.startswith((".", "-"))
            assert not any(character in part for character in CONTROL)
