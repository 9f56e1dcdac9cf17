"""Files that a crash left behind, and what the repair command makes of them."""

from __future__ import annotations

import fcntl
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from recordingkit import (
    DiskClock,
    StepPool,
    aacHeader,
    asTags,
    audio,
    avcHeader,
    headOf,
    makeFLV,
    makeStream,
    metadata,
    readTags,
    video,
)

from twisted_rtmp.flv import tags as flv
from twisted_rtmp.flv.head import HEAD_SIZE
from twisted_rtmp.recording import Recordings
from twisted_rtmp.recording.__main__ import Progress, main
from twisted_rtmp.recording.repair import WINDOW_BYTES, RepairError, repair


def record(folder: Path, messages, *, finish=True) -> Path:
    """
    Record messages.

    @param finish: whether the process lives to the end of the stream.
    """
    clock = DiskClock()
    recordings = Recordings(clock, str(folder), pool=StepPool())
    stream = makeStream()
    stream.addSink(recordings.openSink(stream), "recording")
    for message in messages:
        stream.messageReceived(message)
        clock.advance(0.02)
    clock.advance(1)
    if finish:
        stream.end()
    (path,) = folder.rglob("*.flv")
    # A process that has died holds no lock any more.
    kept = folder / "kept.flv"
    kept.write_bytes(path.read_bytes())
    if not finish:
        stream.end()
    path.unlink()
    return kept


def frames(seconds: int = 10, size: int = 500):
    messages = [metadata(encoder="x"), avcHeader(), aacHeader()]
    for n in range(25 * seconds):
        messages += [video(40 * n, key=not n % 25, size=size), audio(40 * n)]
    return messages


@pytest.fixture
def finished(tmp_path):
    return record(tmp_path, frames())


@pytest.fixture
def crashed(tmp_path):
    return record(tmp_path, frames(), finish=False)


def test_aFinishedFileIsLeftAlone(finished):
    data = finished.read_bytes()
    done = repair(str(finished))
    assert not done.changed
    assert done.tags == 502
    assert done.cut == done.damaged == 0
    assert finished.read_bytes() == data


def test_aCrashedFileBecomesWhatItWouldHaveBeen(tmp_path):
    crashed = record(tmp_path, frames(), finish=False)
    whole = record(tmp_path / "other", frames())
    assert crashed.read_bytes() != whole.read_bytes()
    assert "duration" not in headOf(crashed)
    done = repair(str(crashed))
    assert done.changed
    assert crashed.read_bytes() == whole.read_bytes()
    assert not repair(str(crashed)).changed


def test_anyCutIsRepaired(crashed):
    data = crashed.read_bytes()
    ends = []
    position = HEAD_SIZE
    for tag in readTags(crashed)[1:]:
        position += len(tag.payload) + 15
        ends.append(position)
    chance = random.Random(5)
    cuts = [chance.randrange(ends[2], len(data)) for _ in range(60)]
    for cut in [*cuts, *(ends[50] + n for n in range(-16, 17))]:
        crashed.write_bytes(data[:cut])
        done = repair(str(crashed))
        end = max(e for e in ends if e <= cut)
        assert crashed.stat().st_size == done.size == end
        assert done.cut == cut - end
        head = headOf(crashed)
        assert head["filesize"] == end
        assert head["duration"] == done.duration
        assert crashed.read_bytes()[HEAD_SIZE:] == data[HEAD_SIZE:end]


@pytest.mark.parametrize("tail", [b"\0" * 5000, b"\x09" * 700, os.urandom(300_000)])
def test_aTailOfSomethingElseIsCutOff(crashed, tail):
    data = crashed.read_bytes()
    crashed.write_bytes(data + tail)
    done = repair(str(crashed))
    assert done.cut == len(tail)
    assert crashed.read_bytes()[HEAD_SIZE:] == data[HEAD_SIZE:]


@pytest.mark.parametrize("cut", [40, 100, 250, 400, 4096])
def test_aHeadThatACrashHasTorn(crashed, tmp_path, cut):
    whole = record(tmp_path / "other", frames()).read_bytes()
    data = crashed.read_bytes()
    crashed.write_bytes(whole[:cut] + data[cut:])
    assert len(readTags(crashed)) == 503, "the file is whole all the same"
    repair(str(crashed))
    head = headOf(crashed)
    assert head["duration"] == 9.96
    assert head["width"] == 320
    assert len(head["keyframes"]["times"]) == 10
    assert crashed.read_bytes()[HEAD_SIZE:] == data[HEAD_SIZE:]


def test_audioAloneGetsAnIndexToo(tmp_path):
    path = record(
        tmp_path, [aacHeader(), *(audio(20 * n) for n in range(1000))], finish=False
    )
    repair(str(path))
    head = headOf(path)
    assert head["keyframes"]["times"] == [0, 5, 10, 15]
    assert head["audiosamplerate"] == 44100
    assert not head["hasVideo"]


def test_damageInTheMiddle(crashed, tmp_path):
    data = bytearray(crashed.read_bytes())
    tags = readTags(crashed)
    positions = [HEAD_SIZE]
    for tag in tags[1:]:
        positions.append(positions[-1] + len(tag.payload) + 15)
    # From within one tag into another.
    start, end = positions[200] + 4, positions[230] + 9
    data[start:end] = bytes(end - start)
    crashed.write_bytes(data)
    with pytest.raises(RepairError, match=r"bytes in its middle are damaged.*--output"):
        repair(str(crashed))
    assert crashed.read_bytes() == data, "and nothing was changed"
    new = tmp_path / "new.flv"
    done = repair(str(crashed), str(new))
    assert done.damaged == positions[231] - positions[200]
    kept = tags[1:201] + tags[232:]
    assert asTags(readTags(new)[1:]) == asTags(kept)
    found = new.read_bytes()
    index = headOf(new)["keyframes"]
    assert 8 <= len(index["times"]) <= 10
    for time, position in zip(index["times"], index["filepositions"], strict=True):
        tag = found[int(position) :][:16]
        assert tag[0] == 9
        assert tag[11] == 0x17
        assert int.from_bytes(tag[4:7], "big") == time * 1000
    assert crashed.read_bytes() == data


def test_noiseDoesNotDeceive(crashed, tmp_path):
    seed = 12
    data = bytearray(crashed.read_bytes())
    start = HEAD_SIZE + 20_000
    data[start : start + 3 * WINDOW_BYTES] = random.Random(seed).randbytes(
        3 * WINDOW_BYTES
    )
    data += b"".join(
        flv.encodeTag(m.typeId, m.timestamp + 10_000, m.payload) for m in frames()[3:]
    )
    crashed.write_bytes(data)
    new = tmp_path / "new.flv"
    repair(str(crashed), str(new))
    tags = readTags(new)
    assert len(tags) > 500
    assert tags[-1].timestamp == 19_960
    assert {tag.typeId for tag in tags} == {8, 9, 18}


def test_hostileNoiseIsReadOnce(crashed, tmp_path, monkeypatch):
    """What looks like tags all over, with ends anywhere, costs no reading for each."""
    chance = random.Random(5)
    noise = b"".join(
        b"\x09" + chance.randrange(1_500_000).to_bytes(3, "big") + bytes(7)
        for _ in range(100_000)
    )
    data = crashed.read_bytes()
    tail = b"".join(
        flv.encodeTag(m.typeId, m.timestamp + 10_000, m.payload) for m in frames()[3:]
    )
    crashed.write_bytes(data + noise + tail)
    pread = os.pread
    taken = []

    def counted(fd, size, offset):
        found = pread(fd, size, offset)
        taken.append(len(found))
        return found

    monkeypatch.setattr(os, "pread", counted)
    repaired = repair(str(crashed), str(tmp_path / "new.flv"))
    assert repaired.damaged >= len(noise)
    # Once to look, once to copy, and a back pointer for each candidate.
    assert sum(taken) < 3 * crashed.stat().st_size
    assert len(taken) < 1.1 * len(noise) / 11


def test_filesOfOtherPrograms(tmp_path):
    path = tmp_path / "other.flv"
    makeFLV(path, seconds=3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(RepairError, match=r"no room for an index.*--output"):
        repair(str(path))
    new = tmp_path / "new.flv"
    done = repair(str(path), str(new))
    assert path.read_bytes() == whole[:-3]
    path.write_bytes(whole)
    tags = readTags(path)
    assert asTags(readTags(new)[1:]) == asTags(tags[1:-1])
    head = headOf(new)
    assert head["encoder"].startswith("Lavf")
    assert head["framerate"] == 30
    assert len(head["keyframes"]["times"]) == 3
    assert done.duration == head["duration"]
    # What was written can be finished in place.
    assert not repair(str(new)).changed


def test_filesOfOtherProgramsWithBadBackPointers(tmp_path):
    path = tmp_path / "zeros.flv"
    messages = frames(2)
    data = flv.encodeHeader()
    for message in messages:
        data += flv.encodeTag(message.typeId, message.timestamp, message.payload)[:-4]
        data += bytes(4)
    path.write_bytes(data)
    done = repair(str(path), str(tmp_path / "new.flv"))
    assert (done.tags, done.damaged, done.cut) == (102, 0, 0)


def test_metadataThatCannotBeReadIsKept(tmp_path):
    path = tmp_path / "odd.flv"
    odd = b"\x02\x00\x0aonMetaData\x03\x00"
    path.write_bytes(
        flv.encodeHeader()
        + flv.encodeTag(18, 0, odd)
        + flv.encodeTag(8, 0, b"\xaf\x01x")
    )
    repair(str(path), str(tmp_path / "new.flv"))
    tags = readTags(tmp_path / "new.flv")
    assert [tag.payload for tag in tags[1:]] == [odd, b"\xaf\x01x"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an FLV"),
        (b"FL", "not an FLV"),
        (b"FLV\x01\x05\0\0", "shorter than"),
        (b"MKV" * 100, "not an FLV"),
        (flv.encodeHeader(), "holds no audio"),
        (flv.encodeHeader() + bytes(10_000), "holds no audio"),
        (b"FLV\x01\x05\xff\xff\xff\xff\0\0\0\0", "holds no audio"),
    ],
)
def test_whatCannotBeRepaired(tmp_path, data, message):
    path = tmp_path / "x.flv"
    path.write_bytes(data)
    with pytest.raises(RepairError, match=message):
        repair(str(path))
    assert path.read_bytes() == data


def test_aFileThatIsRecordedIsLeftAlone(tmp_path):
    clock = DiskClock()
    recordings = Recordings(clock, str(tmp_path), pool=StepPool())
    stream = makeStream()
    stream.addSink(recordings.openSink(stream))
    stream.messageReceived(audio(0))
    clock.advance(1)
    (path,) = tmp_path.rglob("*.flv")
    with pytest.raises(RepairError, match="still being recorded"):
        repair(str(path))
    stream.end()
    assert not repair(str(path)).changed


def test_nothingIsOverwritten(crashed, tmp_path):
    taken = tmp_path / "taken.flv"
    taken.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        repair(str(crashed), str(taken))
    assert taken.read_bytes() == b"precious"


def test_largeFilesNeedLittleMemory(tmp_path):
    path = tmp_path / "large.flv"
    payload = b"\x27\x01\0\0\0" + bytes(1_000_000)
    key = b"\x17" + payload[1:]
    record(tmp_path / "a", frames(1), finish=False).rename(path)
    with path.open("ab") as file:
        for n in range(300):
            file.write(flv.encodeTag(9, 1000 + 40 * n, payload if n % 25 else key))
    program = (
        "import resource, sys\n"
        "from twisted_rtmp.recording.__main__ import main\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "status = main(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        "sys.exit(status)\n"
    )
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), "--output", str(tmp_path / "n.flv")],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert int(done.stdout.split()[-1]) < 16 * 1024  # kB
    assert len(headOf(tmp_path / "n.flv")["keyframes"]["times"]) == 13


def test_theCommand(crashed, tmp_path, capsys):
    data = crashed.read_bytes()
    crashed.write_bytes(data + b"\x09\0")
    missing = tmp_path / "missing.flv"
    bad = tmp_path / "bad.flv"
    bad.write_bytes(b"no")
    assert main([str(crashed), str(missing), str(bad)]) == 1
    out, err = capsys.readouterr()
    assert out == (
        f"{crashed}: repaired, 9.960 s, 502 tags, {len(data)} bytes;"
        " 2 bytes of an unfinished tag cut off\n"
    )
    assert err.splitlines() == [
        f"{missing}: not repaired: No such file or directory",
        f"{bad}: not repaired: it is not an FLV file of version 1",
    ]
    assert main([str(crashed)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["--output", "x", "a", "b"])
    assert caught.value.code == 2
    assert "--output is for one FILE" in capsys.readouterr().err


def test_theModuleRuns(crashed):
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-m", "twisted_rtmp.recording", str(crashed)],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "repaired" in done.stdout
    assert done.stderr == ""


def test_progressIsShownOnceASecond():
    now = [0.0]
    shown = []
    progress = Progress("x.flv", shown.append, lambda: now[0])
    for n in range(100):
        now[0] = n / 25
        progress(n, 100)
    assert shown == [
        "x.flv: 25 of 100 bytes, 25 %",
        "x.flv: 50 of 100 bytes, 50 %",
        "x.flv: 75 of 100 bytes, 75 %",
    ]


def test_progressComesToItsEnd(crashed, tmp_path):
    for output in (None, str(tmp_path / "new.flv")):
        seen = []
        repair(str(crashed), output, lambda *figures, seen=seen: seen.append(figures))
        assert seen == sorted(seen)
        assert all(done <= total for done, total in seen)
        assert len(seen) >= 1


def test_theLockGoesWithTheFile(crashed):
    repair(str(crashed))
    with crashed.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_fuzz(crashed):
    seed = 21
    chance = random.Random(seed)
    data = crashed.read_bytes()
    for _ in range(150):
        mutated = bytearray(data[: chance.randrange(HEAD_SIZE, len(data))])
        for _ in range(chance.randrange(4)):
            position = chance.choice(
                (chance.randrange(30), chance.randrange(len(mutated)))
            )
            mutated[position : position + 4] = struct.pack(
                ">I", chance.choice((0, 0xFFFFFFFF, chance.randrange(2**32)))
            )
        crashed.write_bytes(mutated)
        try:
            repair(str(crashed))
        except RepairError:
            assert crashed.read_bytes() == mutated, seed
            continue
        assert not repair(str(crashed)).changed, seed
        assert headOf(crashed)["filesize"] == crashed.stat().st_size
