"""
Newcomers begin with what is alive: nothing of a track that has ended, nor of another
publisher than the present one.
"""

from __future__ import annotations

import pytest
from httpclient import Getter
from rtmpclient import (
    AAC_FRAME,
    AAC_HEADER,
    AUDIO,
    AVC_FRAME,
    AVC_HEADER,
    AVC_KEY_FRAME,
    DATA,
    VIDEO,
    Client,
)
from webkit import flagsOf

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.limits import ServerLimits
from twisted_rtmp.live.timeline import ENDED_MILLISECONDS
from twisted_rtmp.media.capabilities import clientProperties
from twisted_rtmp.web import HTTPSite
from twisted_rtmp.wire import amf0

METADATA = amf0.encode(
    "onMetaData",
    {"videocodecid": 7.0, "width": 64.0, "audiocodecid": 10.0, "encoder": "x"},
)
WITHOUT_AUDIO = amf0.encode(
    "onMetaData", {"videocodecid": 7.0, "width": 64.0, "encoder": "x"}
)
WITHOUT_VIDEO = amf0.encode("onMetaData", {"audiocodecid": 10.0, "encoder": "x"})

HEADERS = [(DATA, METADATA), (VIDEO, AVC_HEADER), (AUDIO, AAC_HEADER)]

#: After the last frame of what has ended.
LATER = ENDED_MILLISECONDS + 1000

STEP = 40
GOP = 25


def opus(track, packet=1):
    return bytes((0x95, packet)) + b"Opus" + bytes((track,)) + b"sound"


class Encoder(Client):
    """Sends pictures and sound, each with a time line of its own."""

    def __init__(self, factory, headers=HEADERS):
        super().__init__(factory)
        self.publish("key")
        self.frames = 0
        for typeId, payload in headers:
            self.media(typeId, payload)
        factory.clock.advance(0)

    def send(self, milliseconds, *, video=True, audio=True, tracks=(), apart=0):
        """@param apart: how far the times of audio are ahead."""
        for _ in range(milliseconds // STEP):
            time = self.frames * STEP
            if video:
                isKey = self.frames % GOP == 0
                self.media(VIDEO, AVC_KEY_FRAME if isKey else AVC_FRAME, time)
            if audio:
                self.media(AUDIO, AAC_FRAME, time + apart)
            for track in tracks:
                self.media(AUDIO, opus(track), time + apart)
            self.frames += 1
        self.transport.clock.advance(0)


class Viewer(Client):
    def __init__(self, factory, query="", **properties):
        super().__init__(factory)
        self.connect(**properties)
        self.command("createStream", 2.0, None)
        self.command("play", 0.0, None, "key" + query, streamId=1)

    def got(self):
        """Type and payload of each message since the last time."""
        return [
            (reply.typeId, reply.payload)
            for reply in self.take()
            if reply.typeId in (AUDIO, VIDEO)
            or (reply.typeId == DATA and b"SampleAccess" not in reply.payload)
        ]


@pytest.fixture
def factory(clock):
    limits = ServerLimits(publisherIdleSeconds=1000)
    return RTMPFactory(clock, latency=0, limits=limits, grace=5.0)


@pytest.fixture
def page(clock, factory):
    site = HTTPSite(factory.registry)

    def opened(query=""):
        client = Getter(site, f"/live/key.flv{query}")
        clock.advance(1.1)
        return client

    return opened


def kindsOf(messages):
    return {typeId for typeId, _ in messages}


# A kind that has ended


@pytest.mark.parametrize("apart", [0, -20_000, 3_600_000])
def test_soundThatHasEnded(factory, page, apart):
    """Wherever the encoder's clock of sound stands."""
    encoder = Encoder(factory)
    encoder.send(2000, apart=apart)
    encoder.send(LATER, audio=False)
    viewer, client = Viewer(factory), page()
    got = viewer.got()
    assert got[:3] == [
        (DATA, WITHOUT_AUDIO),
        (VIDEO, AVC_HEADER),
        (VIDEO, AVC_KEY_FRAME),
    ]
    assert kindsOf(got) == {DATA, VIDEO}
    assert flagsOf(client) == (False, True)


@pytest.mark.parametrize("gop", [GOP, 10_000])
def test_nothingOfTheGOPEither(factory, page, monkeypatch, gop):
    """However long that is."""
    monkeypatch.setitem(globals(), "GOP", gop)
    encoder = Encoder(factory)
    encoder.send(3000)
    encoder.send(LATER, audio=False)
    assert kindsOf(Viewer(factory).got()) == {DATA, VIDEO}
    assert flagsOf(page()) == (False, True)


def test_picturesThatHaveEnded(factory, page):
    """A newcomer is not put back to the last picture."""
    encoder = Encoder(factory)
    encoder.send(2000)
    encoder.send(LATER, video=False)
    viewer, client = Viewer(factory), page()
    assert viewer.got() == [(DATA, WITHOUT_VIDEO), (AUDIO, AAC_HEADER)]
    encoder.send(400, video=False)
    assert viewer.got() == [(AUDIO, AAC_FRAME)] * 10
    assert flagsOf(client) == (True, False)


def test_soundThatNeverCame(factory, page):
    """Its header has."""
    encoder = Encoder(factory)
    assert (AUDIO, AAC_HEADER) in Viewer(factory).got()
    encoder.send(LATER, audio=False)
    assert kindsOf(Viewer(factory).got()) == {DATA, VIDEO}
    assert flagsOf(page()) == (False, True)


@pytest.mark.parametrize("pause", [0, 2000, ENDED_MILLISECONDS - 1000])
def test_aPauseIsNoEnd(factory, page, pause):
    encoder = Encoder(factory)
    encoder.send(3000)
    encoder.send(pause, audio=False)
    assert (AUDIO, AAC_HEADER) in Viewer(factory).got()
    client = page()
    encoder.send(40)
    assert flagsOf(client) == (True, True)


def test_slidesAreNoEnd(factory, page):
    """A picture a minute beside sound."""
    encoder = Encoder(factory)
    for _ in range(3):
        encoder.media(VIDEO, AVC_KEY_FRAME, encoder.frames * STEP)
        encoder.send(60_000, video=False)
    assert (VIDEO, AVC_HEADER) in Viewer(factory).got()
    assert flagsOf(page()) == (True, True)
    encoder.send(70_000, video=False)
    assert kindsOf(Viewer(factory).got()) == {DATA, AUDIO}


def test_theEncoderStalls(clock, factory, page):
    """Nothing has ended where nothing goes on."""
    encoder = Encoder(factory)
    encoder.send(3000)
    clock.advance(LATER / 1000)
    assert kindsOf(Viewer(factory).got()) == {DATA, VIDEO, AUDIO}
    assert flagsOf(page()) == (True, True)


@pytest.mark.parametrize("behind", [0, LATER])
def test_soundThatComesBack(factory, page, behind):
    """
    Its header comes before it, for all that began without.

    @param behind: how far its clock stands behind, as it stood still meanwhile.
    """
    encoder = Encoder(factory)
    encoder.send(2000)
    encoder.send(LATER, audio=False)
    viewers = [Viewer(factory), Viewer(factory)]
    client = page()
    for viewer in viewers:
        viewer.got()
    encoder.send(40, apart=-behind)
    for viewer in viewers:
        got = viewer.got()
        sound = [message for message in got if message[0] != VIDEO]
        assert sound == [(DATA, METADATA), (AUDIO, AAC_HEADER), (AUDIO, AAC_FRAME)]
    encoder.send(40, apart=-behind)
    assert (AUDIO, AAC_HEADER) not in viewers[0].got()
    client.pump()
    assert (AUDIO, AAC_HEADER) in [(tag[0], tag[2]) for tag in client.tags]
    encoder.send(3000, apart=-behind)
    assert (AUDIO, AAC_HEADER) in Viewer(factory).got()
    assert flagsOf(page()) == (True, True)


def test_theEncoderSendsTheHeaderAgain(factory):
    encoder = Encoder(factory)
    encoder.send(2000)
    encoder.send(LATER, audio=False)
    viewer = Viewer(factory)
    viewer.got()
    encoder.media(AUDIO, AAC_HEADER, encoder.frames * STEP)
    encoder.send(40)
    sound = [message for message in viewer.got() if message[0] == AUDIO]
    assert sound == [(AUDIO, AAC_HEADER), (AUDIO, AAC_FRAME)]


def test_picturesThatComeBack(factory):
    encoder = Encoder(factory)
    encoder.send(2000)
    encoder.send(LATER, video=False)
    viewer = Viewer(factory)
    viewer.got()
    encoder.frames += 1  # within a GOP
    encoder.send(1000)
    pictures = [payload for typeId, payload in viewer.got() if typeId == VIDEO]
    assert pictures[:2] == [AVC_HEADER, AVC_KEY_FRAME]


# A track that has ended

TRACKS = [*HEADERS, (AUDIO, opus(1, 0)), (AUDIO, opus(2, 0))]
RELAY = dict(clientProperties())


def test_aTrackOfSeveral(factory):
    encoder = Encoder(factory, TRACKS)
    encoder.send(2000, tracks=(1, 2))
    encoder.send(LATER, tracks=(2,))
    viewer = Viewer(factory, **RELAY)
    got = viewer.got()
    assert (AUDIO, opus(2, 0)) in got
    assert (AUDIO, opus(1, 0)) not in got
    assert (DATA, METADATA) in got, "there is sound"
    encoder.send(40, tracks=(1, 2))
    assert viewer.got()[1:] == [
        (AUDIO, AAC_FRAME),
        (AUDIO, opus(1, 0)),
        (AUDIO, opus(1)),
        (AUDIO, opus(2)),
    ]


def test_theFirstTrackOfSeveral(factory, page):
    """It has no number.  A page that gets that one alone gets no sound."""
    encoder = Encoder(factory, TRACKS)
    encoder.send(2000, tracks=(1, 2))
    encoder.send(LATER, audio=False, tracks=(1, 2))
    got = Viewer(factory, **RELAY).got()
    assert (AUDIO, AAC_HEADER) not in got
    assert (AUDIO, opus(1, 0)) in got
    assert flagsOf(page()) == (False, True)
    assert flagsOf(page("?audio=1")) == (True, True)
    assert flagsOf(page("?audio=7")) == (False, True)


def test_theListOfTracks(factory):
    encoder = Encoder(factory, TRACKS)
    encoder.send(2000, tracks=(1, 2))
    encoder.send(LATER, tracks=(2,))
    [stream] = factory.streams.values()
    assert {(track.kind, track.id): track.ended for track in stream.tracks} == {
        ("video", 0): False,
        ("audio", 0): False,
        ("audio", 1): True,
        ("audio", 2): False,
    }


# Another publisher


def test_otherMediaOfTheNextPublisher(clock, factory, page):
    """Newcomers get its facts, and nothing of the one before."""
    first = Encoder(factory)
    first.send(2000)
    first.leave()
    early = page()
    waiting = Viewer(factory)
    assert waiting.got() == []
    headers = [(DATA, WITHOUT_VIDEO), (AUDIO, AAC_HEADER)]
    second = Encoder(factory, headers)
    second.send(400, video=False)
    assert waiting.got() == headers + [(AUDIO, AAC_FRAME)] * 10
    assert Viewer(factory).got() == headers
    clock.advance(1.1)
    assert flagsOf(early) == flagsOf(page()) == (True, False)
    [stream] = factory.streams.values()
    assert stream.properties == {"audiocodecid": 10.0, "encoder": "x"}
    assert not stream.enhanced


def test_theNextPublisherSendsNoMetadata(factory):
    Encoder(factory).leave()
    second = Encoder(factory, [(VIDEO, AVC_HEADER)])
    second.send(40, audio=False)
    assert Viewer(factory).got() == [(VIDEO, AVC_HEADER), (VIDEO, AVC_KEY_FRAME)]


def test_aPlayerThatStays(factory):
    first = Encoder(factory)
    viewer = Viewer(factory)
    first.send(400)
    first.leave()
    viewer.got()
    headers = [(DATA, WITHOUT_VIDEO), (AUDIO, b"\xaf\x00\x11\x90")]
    second = Encoder(factory, headers)
    second.send(40, video=False)
    assert viewer.got() == [*headers, (AUDIO, AAC_FRAME)]


# Metadata of a file


def test_aLiveStreamIsNoFile(factory, page):
    """Players seek in what has a length, a size or an index."""
    lasting = {"width": 64.0, "encoder": "x"}
    facts = {
        "duration": 12.5,
        "filesize": 100_000.0,
        "keyframes": {"times": [0.0], "filepositions": [13.0]},
        "hasAudio": False,
        "canSeekToEnd": True,
        "lasttimestamp": 12.5,
        "reservedSpace": [0.0],
    }
    early = Viewer(factory)
    encoder = Encoder(factory, [(DATA, amf0.encode("onMetaData", lasting | facts))])
    encoder.send(40, audio=False)
    stripped = (DATA, amf0.encode("onMetaData", lasting))
    assert stripped in early.got()
    assert stripped in Viewer(factory).got()
    tags = page().tags
    assert stripped in [(typeId, payload) for typeId, _, payload in tags]


def test_nothingSaidIsNothingToTakeOut(factory):
    """ffmpeg sends these with every live stream."""
    said = amf0.encode("onMetaData", {"duration": 0.0, "filesize": 0.0})
    Encoder(factory, [(DATA, said)])
    assert (DATA, said) in Viewer(factory).got()
