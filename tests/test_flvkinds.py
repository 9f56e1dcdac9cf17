"""Which of audio and video there is: one answer for files, pipes and HTTP."""

from __future__ import annotations

import pytest
from recordingkit import (
    World,
    aacHeader,
    audio,
    avcHeader,
    headOf,
    makeStream,
    metadata,
    play,
    video,
)

from twisted_rtmp.flv.kinds import (
    BOTH,
    NEITHER,
    Kinds,
    lastingKinds,
    promisedKinds,
)
from twisted_rtmp.flv.survey import MediaSurvey
from twisted_rtmp.live.kinds import SETTLE_FRAMES, StreamKinds
from twisted_rtmp.live.selection import EVERYTHING
from twisted_rtmp.media.payloads import flagsOf

AUDIO = Kinds(True, False)
VIDEO = Kinds(False, True)


@pytest.mark.parametrize(
    ("properties", "kinds"),
    [
        ({}, NEITHER),
        ({"encoder": "x"}, NEITHER),
        ({"audiocodecid": 10.0}, AUDIO),
        ({"audiocodecid": 0.0, "width": 0.0}, NEITHER),
        ({"audiosamplerate": 44100.0}, AUDIO),
        ({"videocodecid": 7.0}, VIDEO),
        ({"width": 640.0, "audiocodecid": ""}, VIDEO),
        ({"hasAudio": False, "hasVideo": True}, VIDEO),
        ({"audiocodecid": None, "videocodecid": None}, NEITHER),
        ({"audiocodecid": "mp4a", "videocodecid": "avc1"}, BOTH),
    ],
)
def test_metadataPromise(properties, kinds):
    assert promisedKinds(properties) == kinds


@pytest.mark.parametrize(
    ("come", "promised", "kinds"),
    [
        (NEITHER, NEITHER, BOTH),
        (AUDIO, NEITHER, BOTH),  # video may come yet
        (AUDIO, AUDIO, AUDIO),
        (NEITHER, VIDEO, VIDEO),
        (AUDIO, VIDEO, BOTH),
    ],
)
def test_aHeaderThatStays(come, promised, kinds):
    assert lastingKinds(come, promised) == kinds


@pytest.mark.parametrize(
    ("messages", "kinds"),
    [
        ([], NEITHER),
        ([metadata(width=1.0)], NEITHER),
        ([avcHeader()], VIDEO),
        ([aacHeader(), video(0)], BOTH),
        ([audio(0)], AUDIO),
    ],
)
def test_whatHasCome(messages, kinds):
    """A live stream and a survey of the same messages give the same answer."""
    stream = makeStream()
    survey = MediaSurvey()
    for message in messages:
        stream.messageReceived(message)
        message.flags = flagsOf(message.typeId, message.payload)
        survey.learnMessage(message)
    assert StreamKinds(stream, EVERYTHING).received == survey.kinds == kinds


def test_aStreamSettles():
    stream = makeStream()
    assert not StreamKinds(stream, EVERYTHING).settled
    play(stream, [metadata(width=1.0, audiocodecid=10.0), avcHeader()])
    assert not StreamKinds(stream, EVERYTHING).settled, "audio is promised"
    for n in range(SETTLE_FRAMES):
        assert not StreamKinds(stream, EVERYTHING).settled
        stream.messageReceived(video(n))
    assert StreamKinds(stream, EVERYTHING).settled, "it would have come"
    stream = makeStream()
    play(stream, [metadata(width=1.0), avcHeader()])
    assert StreamKinds(stream, EVERYTHING).settled, "all that is promised has come"
    stream = makeStream()
    play(stream, [aacHeader(), avcHeader()])
    assert StreamKinds(stream, EVERYTHING).settled, "there are no more"


def test_aFileSaysWhatIsPromisedUntilItIsFinished(tmp_path):
    world = World(tmp_path)
    stream = world.stream()
    play(stream, [metadata(audiocodecid=10.0, videocodecid=7.0), audio(0)])
    world.tick()
    assert world.path().read_bytes()[4] == 5
    stream.end()
    assert world.path().read_bytes()[4] == 4
    head = headOf(world.path())
    assert (head["hasAudio"], head["hasVideo"]) == AUDIO


def test_aFileSaysWhatComesWithoutAPromise(tmp_path):
    world = World(tmp_path)
    stream = world.stream()
    play(stream, [metadata(audiocodecid=10.0), audio(0)])
    world.tick()
    assert world.path().read_bytes()[4] == 4
    play(stream, [video(40, key=True)])
    world.tick()
    assert world.path().read_bytes()[4] == 5
