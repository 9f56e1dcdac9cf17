"""Where a stream may be cut, and when that is due."""

from __future__ import annotations

import pytest
from recordingkit import aacHeader, audio, avcHeader, metadata, video
from test_recordingcodecs import AVC, picture

from twisted_rtmp.media.cuts import NO_VIDEO_MILLISECONDS, Cuts
from twisted_rtmp.media.payloads import flagsOf


def flagged(message):
    message.flags = flagsOf(message.typeId, message.payload)
    return message


@pytest.mark.parametrize(
    ("message", "may"),
    [
        (video(0, True), True),
        (video(0), False),
        (avcHeader(), False),
        (audio(0), True),
        (aacHeader(), False),
        (metadata(), False),
    ],
)
def test_aFileBeginsWithAKeyFrameOrWithAudio(message, may):
    assert Cuts().mayBegin(flagged(message)) == may


def test_audioBeginsNoFileBesideVideo():
    cuts = Cuts()
    cuts.messagePassed(flagged(video(1000)))
    assert not cuts.mayBegin(flagged(audio(1000 + NO_VIDEO_MILLISECONDS - 1)))
    assert cuts.mayBegin(flagged(audio(1000 + NO_VIDEO_MILLISECONDS)))


def test_theLeadingTrackDecides():
    cuts = Cuts()
    first, second = (
        flagged(picture(AVC, 0, key=True, track=track)) for track in (0, 1)
    )
    assert cuts.mayBegin(second), "no other has come"
    cuts.batchPassed(0, 0, hasVideo=True, leadingTrack=0)
    assert cuts.mayBegin(first)
    assert not cuts.mayBegin(second)


def test_cutsAreDueByTimeAndBySize():
    cuts = Cuts(2000, 500)
    assert cuts.flags == 0, "no file has begun"
    cuts.fileBegan(1000)
    key = flagged(video(2999, True))
    assert key.flags & cuts.flags
    assert not cuts.isDue(key, 499)
    assert cuts.isDue(key, 500)
    assert cuts.isDue(flagged(video(3000, True)), 0)
    # Once there is video, audio need not be looked at.
    cuts.batchPassed(1000, 1040, hasVideo=True, leadingTrack=0)
    assert not flagged(audio(3000)).flags & cuts.flags


def test_withoutLimitsNothingIsLookedAtUntilItIsDemanded():
    cuts = Cuts()
    cuts.fileBegan(0)
    assert cuts.flags == 0
    cuts.demand()
    assert cuts.isDue(flagged(audio(0)), 0)
    cuts.fileBegan(0)
    assert cuts.flags == 0
