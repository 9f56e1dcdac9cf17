"""
What a current FFmpeg publishes of every codec is recorded and played as it was sent.

What is published comes from the tables of docs/codecs.md.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from capture import (
    Capture,
    assertAllStored,
    assertDecodes,
    assertSame,
    capturing,
    frames,
    mediaTags,
    metadata,
)
from encoding import AUDIO, PICTURES, VIDEO, av, checkFFmpeg, publish
from serverprocess import PATIENCE, ROOT

from twisted_rtmp.flv.tags import FLVReader
from twisted_rtmp.media import payloads as media
from twisted_rtmp.media.parts import splitTracks
from twisted_rtmp.wire.constants import NEED_DATA, MessageType
from twisted_rtmp.wire.messages import Message

if av is not None:
    from pyavreader import read

READER = Path(__file__).with_name("pyavreader.py")


@pytest.fixture(autouse=True)
def ffmpeg8() -> None:
    checkFFmpeg()


def rowsOf(text: str) -> list[list[str]]:
    """The rows of the Markdown tables in a text, heads included."""
    lines = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [row for row in rows if set(row[0]) != {"-"}]


PAGE = (ROOT / "docs" / "codecs.md").read_text()
_HEAD, _PAIRS, _TRACKS = re.split(
    r"^(?=## What is tested|These are sent as tracks)", PAGE, flags=re.MULTILINE
)


class Row(NamedTuple):
    """A codec in the first table."""

    codec: str
    number: str
    fourCC: str
    written: str
    dimensions: str
    senders: str
    players: str

    @property
    def forms(self) -> list[int | str]:
        """What names the codec in the first track, and in a further one."""
        if not self.written:
            return []
        forms = [
            int(form) if form.isdigit() else form.strip("`")
            for form in self.written.split(", ")
        ]
        return forms if len(forms) == 2 else forms * 2


TABLE = {row[0]: Row(*row) for row in rowsOf(_HEAD)[1:]}
PAIRS = [(video, audio) for video, audio in rowsOf(_PAIRS)[1:]]
SEVERAL = [
    (video.split(", "), audio.split(", ")) for video, audio in rowsOf(_TRACKS)[1:]
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Capture]:
    with capturing(tmp_path, "--http", "tcp:0:interface=127.0.0.1") as capture:
        yield capture


class Outcome(NamedTuple):
    """
    What became of a stream.

    @ivar sent: the tags of an FLV file that FFmpeg wrote of the same packets.
    @ivar expected: what FFmpeg reads of that file.
    @ivar recording: the server's file.
    @ivar played: what FFmpeg reads as a player, by the address' beginning.
    @ivar summary: the log's line at the end.
    """

    sent: list[Message]
    expected: list[dict]
    recording: Path
    played: dict[str, list[dict]]
    summary: str


def perform(server: Capture, video: Sequence[str], audio: Sequence[str]) -> Outcome:
    """Publish, to a recording and to players that wait for it."""
    # FFmpeg does not say that it reads several tracks.
    query = "?tracks=all" if len(video) + len(audio) > 2 else ""
    urls = {
        "rtmp": server.url("test") + query,
        "http": f"http://127.0.0.1:{server.server.port()}/live/test.flv{query}",
    }
    folder = server.folder.parent
    outputs = {scheme: folder / f"{scheme}.json" for scheme in urls}
    with ExitStack() as stack:
        players = []
        for scheme, url in urls.items():
            command = [sys.executable, str(READER), url, str(outputs[scheme])]
            player = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            stack.callback(player.wait)
            stack.callback(player.kill)
            players.append(player)
            server.server.expect(r"plays live/test\b.*, which is not being published")
        local = publish(server.url("test"), video, audio)
        summary = server.ended("test")["test"]
        assert [player.wait(PATIENCE) for player in players] == [0, 0]
    reader = FLVReader()
    reader.feed(local)
    sent = list(iter(reader.nextTag, NEED_DATA))
    return Outcome(
        [tag for tag in sent if tag.typeId != MessageType.DATA_AMF0],
        read(io.BytesIO(local)),
        server.recording("test"),
        {scheme: json.loads(path.read_text()) for scheme, path in outputs.items()},
        summary,
    )


def fromZero(streams: list[dict]) -> list[dict]:
    """With times from the first packet on."""
    first = min(packet[2] for stream in streams for packet in stream["packets"])
    return [
        {
            **stream,
            "packets": [
                [packet, pts - first, dts - first, key]
                for packet, pts, dts, key in stream["packets"]
            ],
        }
        for stream in streams
    ]


def formsOf(messages: Sequence[Message], typeId: int) -> list[int | str]:
    """What names the codec of each track, in their order."""
    forms: dict[int, int | str] = {}
    for message in frames(messages, typeId):
        for track in splitTracks(typeId, message.payload):
            forms.setdefault(track.trackId, track.codec)
    return [forms[number] for number in sorted(forms)]


def numberOf(form: int | str) -> int:
    """A codec as onMetaData has it."""
    return form if isinstance(form, int) else int.from_bytes(form.encode(), "big")


def assertPerformed(
    outcome: Outcome, video: Sequence[str], audio: Sequence[str]
) -> None:
    # The bytes that came.
    recorded = mediaTags(outcome.recording)
    assertSame(recorded, outcome.sent)
    assertAllStored(outcome.summary, outcome.sent)
    # In the form that the table says.
    for typeId, codecs in ((MessageType.VIDEO, video), (MessageType.AUDIO, audio)):
        assert formsOf(recorded, typeId) == [
            TABLE[codec].forms[min(number, 1)] for number, codec in enumerate(codecs)
        ]
    # What FFmpeg makes of them: every stream, packet, time, and configuration.
    expected = fromZero(outcome.expected)
    kinds = [stream["kind"] for stream in expected]
    assert kinds == ["video"] * len(video) + ["audio"] * len(audio)
    with outcome.recording.open("rb") as file:
        assert fromZero(read(file)) == expected
    for stream in expected[: len(video)]:
        assert len(stream["packets"]) == PICTURES
        assert [key for *_, key in stream["packets"]].count(True) == 3
    assert fromZero(outcome.played["rtmp"]) == expected
    assert fromZero(outcome.played["http"]) == expected
    # What the file says of itself.
    head = metadata(outcome.recording)
    assert head["videocodecid"] == numberOf(TABLE[video[0]].forms[0])
    assert head["audiocodecid"] == numberOf(TABLE[audio[0]].forms[0])
    assert (head["width"], head["height"]) == (64, 48)
    # An index of the first track's key frames, with the times of its tags.
    times = [dts for _, _, dts, key in expected[0]["packets"] if key]
    assert [
        round(1000 * (time - head["keyframes"]["times"][0]))
        for time in head["keyframes"]["times"]
    ] == [time - times[0] for time in times]


@pytest.mark.parametrize(("video", "audio"), PAIRS)
def test_pairs(server, video, audio):
    outcome = perform(server, [video], [audio])
    assertPerformed(outcome, [video], [audio])


@pytest.mark.parametrize(("video", "audio"), SEVERAL)
def test_severalTracks(server, video, audio):
    outcome = perform(server, video, audio)
    assertPerformed(outcome, video, audio)


def inOrder(streams: list[dict]) -> list[dict]:
    """Streams in the order of their first packets' hashes, which no two share."""
    return sorted(streams, key=lambda stream: stream["packets"][0][0])


def partsOf(folder: Path) -> list[Path]:
    """The files of a stream that was cut, in their order."""

    def place(path: Path) -> tuple[str, int]:
        time, _, number = path.stem.partition("Z")
        return time, int(number[1:] or 0)

    return sorted(folder.glob("live/test-*.flv"), key=place)


@pytest.mark.parametrize(
    ("video", "audio"), [*(([v], [a]) for v, a in PAIRS[::3]), *SEVERAL]
)
def test_everyPartCanBePlayed(tmp_path, video, audio):
    with capturing(tmp_path, "--rotate-seconds", "0.3") as server:
        local = publish(server.url("test"), video, audio)
        server.ended("test")
        paths = partsOf(server.folder)
    assert len(paths) == 3, "there are three key frames"
    expected = read(io.BytesIO(local))
    # A track is known by its packets.
    tracks = {
        packet: number
        for number, stream in enumerate(expected)
        for packet, *_ in stream["packets"]
    }
    found: list[list[str]] = [[] for _ in expected]
    for path in paths:
        with path.open("rb") as file:
            streams = read(file)
        assert len(streams) == len(expected)
        assert streams[0]["packets"][0][3], "begins with a key frame of the first track"
        for stream in streams:
            packets = [packet for packet, *_ in stream["packets"]]
            number = tracks[packets[0]]
            assert stream["configuration"] == expected[number]["configuration"]
            found[number] += packets
    assert found == [[packet for packet, *_ in s["packets"]] for s in expected]


@pytest.mark.parametrize(("video", "audio"), SEVERAL)
def test_aFileForEachTrack(tmp_path, video, audio):
    with capturing(tmp_path, "--record-tracks", "separate") as server:
        local = publish(server.url("test"), video, audio)
        summary = server.ended("test")["test"]
        files = {
            path.name.partition("Z")[2]: path
            for path in server.folder.glob("live/test-*.flv")
        }
    tracks = [f"video{number}" for number in range(1, len(video))]
    tracks += [f"audio{number}" for number in range(1, len(audio))]
    assert set(files) == {".flv", *(f".{track}.flv" for track in tracks)}
    reader = FLVReader()
    reader.feed(local)
    assertAllStored(summary, list(iter(reader.nextTag, NEED_DATA)))
    streams = []
    for name, path in files.items():
        with path.open("rb") as file:
            found = read(file)
        assert len(found) == (2 if name == ".flv" else 1)
        streams += found

    # All have one time line.
    expected = fromZero(read(io.BytesIO(local)))
    assert inOrder(fromZero(streams)) == inOrder(expected)
    # Debian's FFmpeg reads what has a legacy form, which it would not with numbers.
    for name, codecs in ((".video1.flv", video), (".audio1.flv", audio)):
        if isinstance(TABLE[codecs[0]].forms[0], int) and codecs[1] in ("H.264", "MP3"):
            assertDecodes(files[name])


def test_theTableIsOfWhatIsTested():
    """Every codec that FFmpeg writes is in the pairs, and in both forms in tracks."""
    written = {codec for codec, row in TABLE.items() if row.forms}
    assert written == set(VIDEO) | set(AUDIO)
    assert len(PAIRS) == len(set(PAIRS)) == 12
    assert {video for video, _ in PAIRS} == set(VIDEO)
    assert {audio for _, audio in PAIRS} == set(AUDIO)
    further = {codec for tracks in SEVERAL for kind in tracks for codec in kind[1:]}
    both = {codec for codec, row in TABLE.items() if len(set(row.forms)) == 2}
    assert both <= further
    assert any(len(video) == 2 and len(audio) == 3 for video, audio in SEVERAL)
    # What readers of the wire know of these names.
    names = {row.fourCC.strip("`"): codec for codec, row in TABLE.items()}
    assert set(names) == set(media.FOUR_CCS)
    for codec, row in TABLE.items():
        assert row.senders
        assert row.players
        assert ("FFmpeg 8" in row.players) >= bool(row.forms) or "FFmpeg" in row.players
        number = re.match(r"\d+", row.number)
        if number is not None:
            known = media.AUDIO_CODECS if codec in AUDIO else media.VIDEO_CODECS
            form = known[int(number[0])]
            assert form in (codec, media.FOUR_CCS[row.fourCC.strip("`")])
