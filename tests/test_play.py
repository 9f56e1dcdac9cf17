"""Playing a live stream over RTMP: what a player is told, and what it gets."""

from __future__ import annotations

import pytest
from rtmpclient import (
    AAC_FRAME,
    AAC_HEADER,
    AUDIO,
    AVC_FRAME,
    AVC_HEADER,
    AVC_KEY_FRAME,
    COMMAND,
    DATA,
    VIDEO,
    Client,
)

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.limits import (
    GOP_SECONDS,
    IDLE_SECONDS,
    PLAYER_QUEUE_SECONDS,
    PLAYER_WAIT_SECONDS,
    GOPLimits,
    QueueLimits,
    ServerLimits,
)
from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.connection import Connection, Role
from twisted_rtmp.wire.handshake import ClientHandshake
from twisted_rtmp.wire.messages import Message

USER_CONTROL = 4

METADATA = amf0.encode("onMetaData", {"width": 640.0})
BEGIN = (VIDEO, 0, AVC_KEY_FRAME)

STARTED = ["NetStream.Play.Reset", "NetStream.Play.Start"]
PUBLISHED = "NetStream.Play.PublishNotify"
OVER = ["NetStream.Play.UnpublishNotify", "NetStream.Play.Stop"]


class Listening(Connection):
    """Keeps the media that came."""

    def __init__(self):
        super().__init__(Role.CLIENT, handshake=ClientHandshake(digest=False))
        self.media = []

    def nextEvent(self):
        event = super().nextEvent()
        if isinstance(event, Message) and event.typeId in (AUDIO, VIDEO, DATA):
            self.media.append(event)
        return event


class Viewer(Client):
    """A client in memory that plays."""

    def __init__(self, factory, **properties):
        super().__init__(factory)
        self.connection = Listening()
        self.connect(**properties)
        self.take()

    def play(self, name="key", *arguments, streamId=1):
        self.command("play", 0, None, name, *arguments, streamId=streamId)

    def got(self, streamId=1):
        """
        Type, time and payload of each message of a stream since the last time; not
        what tells that samples may be read.
        """
        self.pump()
        media = self.connection.media
        found = [
            (m.typeId, m.timestamp, m.payload)
            for m in media
            if m.streamId == streamId and not m.payload.startswith(SAMPLE_ACCESS)
        ]
        media[:] = [m for m in media if m.streamId != streamId]
        return found

    def told(self):
        """What there was but media, in order: codes, and user control events."""
        told = []
        for reply in self.take():
            if reply.typeId == COMMAND:
                told.append(reply.code or reply.name)
            elif reply.typeId == USER_CONTROL:
                event = int.from_bytes(reply.payload[:2], "big")
                told.append((event, int.from_bytes(reply.payload[2:6], "big")))
        return told


SAMPLE_ACCESS = amf0.encode("|RtmpSampleAccess")

STREAM_BEGIN, STREAM_EOF = 0, 1


class Source(Client):
    """A client in memory that publishes."""

    def __init__(self, factory, name="key"):
        super().__init__(factory)
        self.publish(name)

    def send(self, *messages):
        """
        Send what is given by type, time and payload.

        @return: the same, as players are to get it.
        """
        for typeId, timestamp, payload in messages:
            sent = amf0.encode("@setDataFrame") * (payload == METADATA) + payload
            self.media(typeId, sent, timestamp)
        self.transport.clock.advance(0)
        return list(messages)

    def begin(self):
        return self.send(
            (DATA, 0, METADATA), (VIDEO, 0, AVC_HEADER), (AUDIO, 0, AAC_HEADER)
        )


def key(time, mark=b""):
    return VIDEO, time, AVC_KEY_FRAME + mark


def inter(time, mark=b""):
    return VIDEO, time, AVC_FRAME + mark


def sound(time):
    return AUDIO, time, AAC_FRAME


@pytest.fixture
def factory(clock):
    return RTMPFactory(clock)


# What is said at the beginning and at the end


@pytest.mark.parametrize("start", [(), (-2,), (-1,), (0,), (-2000,), (5000.0, 10.0)])
def test_aStreamThatIsThere(factory, start):
    source = Source(factory)
    headers = source.begin()
    gop = source.send(key(0), sound(10), inter(40))
    viewer = Viewer(factory)
    viewer.play("key", *start)
    replies = viewer.take()
    assert [(r.csid, r.typeId, r.streamId) for r in replies[:4]] == [
        (2, USER_CONTROL, 0),
        (5, COMMAND, 1),
        (5, COMMAND, 1),
        (5, DATA, 1),
    ]
    assert replies[0].payload == bytes((0, STREAM_BEGIN, 0, 0, 0, 1))
    assert [reply.code for reply in replies[1:3]] == STARTED
    assert replies[1].values[3]["level"] == "status"
    assert replies[3].values == ["|RtmpSampleAccess", True, True]
    assert [reply.csid for reply in replies[4:]] == [7, 6, 4, 6, 4, 6]
    assert viewer.got() == headers + gop


@pytest.mark.parametrize(
    ("reset", "said"), [(True, STARTED), (False, STARTED[1:]), (0.0, STARTED[1:])]
)
def test_reset(factory, reset, said):
    viewer = Viewer(factory)
    viewer.play("key", -2, -1, reset)
    assert viewer.codes() == said


def test_aStreamThatIsWaitedFor(factory):
    viewer = Viewer(factory)
    viewer.play()
    assert viewer.told() == [(STREAM_BEGIN, 1), *STARTED]
    source = Source(factory)
    assert viewer.told() == [(STREAM_BEGIN, 1), PUBLISHED]
    sent = source.begin() + source.send(key(0), sound(5), inter(40))
    assert viewer.got() == sent


def leave(source):
    source.leave()


def unpublish(source):
    source.command("FCUnpublish", 5, None, "key")


def deleteStream(source):
    source.command("deleteStream", 5, None, 1)


def closeStream(source):
    source.command("closeStream", 0, None, streamId=1)


@pytest.mark.parametrize("end", [leave, unpublish, deleteStream, closeStream])
def test_theEnd(factory, end):
    """Behind the last frame, and however it comes: players hang without it."""
    viewer = Viewer(factory)
    viewer.play()
    source = Source(factory)
    viewer.take()
    sent = source.send(key(0), inter(40))
    end(source)
    *media, unpublished, over, stopped = viewer.take()
    assert [reply.typeId for reply in media] == [VIDEO, VIDEO]
    assert [unpublished.code, stopped.code] == OVER
    assert unpublished.streamId == stopped.streamId == 1
    assert over.payload == bytes((0, STREAM_EOF, 0, 0, 0, 1))
    assert viewer.got() == sent
    assert viewer.open


def test_aStreamThatComesBack(clock, factory):
    viewer = Viewer(factory)
    viewer.play()
    viewer.told()
    for _ in range(3):
        source = Source(factory)
        assert viewer.told() == [(STREAM_BEGIN, 1), PUBLISHED]
        assert viewer.got() == []
        sent = source.begin() + source.send(key(0), inter(40))
        assert viewer.got() == sent
        source.leave()
        assert viewer.told()[-3:] == [OVER[0], (STREAM_EOF, 1), OVER[1]]
        clock.advance(PLAYER_WAIT_SECONDS - 1)
    assert viewer.open
    clock.advance(1)
    viewer.pump()
    assert not viewer.open


def test_whoPlaysIsNotIdle(clock, factory):
    source = Source(factory)
    viewer = Viewer(factory)
    viewer.play()
    for second in range(100):
        clock.advance(1)
        source.send(sound(second * 1000))
    assert viewer.open
    assert len(viewer.got()) == 100


# Pause, seek, audio and video off and on


@pytest.mark.parametrize("command", ["pause", "pauseRaw"])
def test_pause(factory, command):
    source, viewer = Source(factory), Viewer(factory)
    viewer.play()
    headers = source.begin() + source.send(key(0))
    viewer.told()
    viewer.command(command, 0, None, True, 0, streamId=1)
    assert viewer.told() == ["NetStream.Pause.Notify"]
    source.send(inter(40), sound(50), key(80), inter(120))
    changed = source.send((VIDEO, 130, AVC_HEADER + b"2"))
    assert viewer.got() == headers + changed  # what is needed later
    viewer.command(command, 0, None, False, 0, streamId=1)
    assert viewer.told() == ["NetStream.Unpause.Notify"]
    source.send(inter(160))
    assert viewer.got() == []
    assert viewer.got() == []
    later = source.send(sound(170), key(200), inter(240))
    assert viewer.got() == later


def test_aPauseOutlivesThePublication(factory):
    """Whoever has paused gets no frames because the encoder has come back."""
    source, viewer = Source(factory), Viewer(factory)
    viewer.play()
    viewer.command("pause", 0, None, True, 0, streamId=1)
    source.leave()
    viewer.told()
    source = Source(factory)
    assert viewer.told() == [(STREAM_BEGIN, 1), PUBLISHED]
    headers = source.begin()
    source.send(key(0), sound(10))
    assert viewer.got() == headers
    viewer.command("pause", 0, None, False, 10, streamId=1)
    assert viewer.got() == []
    sent = source.send(key(40))
    assert viewer.got() == sent


def test_pausedBeforeThereIsAStream(factory):
    viewer = Viewer(factory)
    viewer.play()
    viewer.command("pause", 0, None, True, 0, streamId=1)
    source = Source(factory)
    source.send(key(0), sound(10))
    assert viewer.got() == []


def test_audioOnlyIsPausedToo(factory):
    source, viewer = Source(factory), Viewer(factory)
    viewer.play()
    header = source.send((AUDIO, 0, AAC_HEADER))
    viewer.command("pause", 0, None, True, 0, streamId=1)
    source.send(sound(20))
    viewer.command("pause", 0, None, False, 0, streamId=1)
    sent = source.send(sound(40))
    assert viewer.got() == header + sent


def test_seek(factory):
    source, viewer = Source(factory), Viewer(factory)
    viewer.play()
    source.send(key(0))
    viewer.got()
    viewer.take()
    viewer.command("seek", 0, None, 5000, streamId=1)
    [status] = viewer.commands()
    assert status.code == "NetStream.Seek.Failed"
    assert status.values[3]["level"] == "error"
    assert status.streamId == 1
    sent = source.send(inter(40), key(80))
    assert viewer.got() == sent


def test_receiveAudio(factory):
    source, viewer = Source(factory), Viewer(factory)
    viewer.play()
    viewer.command("receiveAudio", 0, None, False, streamId=1)
    headers = source.begin()
    video = source.send(key(0))
    source.send(sound(10))
    assert viewer.got() == headers + video
    viewer.command("receiveAudio", 0, None, True, streamId=1)
    sent = source.send(inter(40), sound(50))
    assert viewer.got() == sent


def test_receiveVideo(factory):
    source, viewer = Source(factory), Viewer(factory)
    viewer.play()
    headers = source.begin() + source.send(key(0))
    viewer.command("receiveVideo", 0, None, False, streamId=1)
    source.send(inter(40))
    audio = source.send(sound(50))
    source.send(key(80))
    changed = source.send((VIDEO, 90, AVC_HEADER + b"2"))
    assert viewer.got() == headers + audio + changed
    viewer.command("receiveVideo", 0, None, True, streamId=1)
    source.send(inter(120))
    sent = source.send(sound(130), key(160), inter(200))
    assert viewer.got() == sent


@pytest.mark.parametrize(
    "name", ["pause", "pauseRaw", "seek", "receiveAudio", "receiveVideo", "closeStream"]
)
def test_whereNothingIsPlayed(factory, name):
    """Nothing happens, on message streams that exist and on others."""
    viewer = Viewer(factory)
    viewer.command("createStream", 2, None)
    viewer.take()
    for streamId in (0, 1, 7):
        viewer.command(name, 0, None, True, 0, streamId=streamId)
    assert viewer.told() == []
    assert viewer.open


# Several plays, and their ends


def test_severalPlaysOfAConnection(factory):
    first, second = Source(factory, "a"), Source(factory, "b")
    viewer = Viewer(factory)
    for streamId, name in enumerate(("a", "b", "a"), 1):
        viewer.command("createStream", streamId + 1, None)
        viewer.play(name, streamId=streamId)
    a, b = first.send(key(0)), second.send(sound(7))
    assert [viewer.got(streamId) for streamId in (1, 2, 3)] == [a, b, a]
    viewer.take()
    viewer.command("deleteStream", 0, None, 1)
    a, b = first.send(inter(40)), second.send(sound(30))
    assert [viewer.got(streamId) for streamId in (1, 2, 3)] == [[], b, a]
    assert viewer.told() == []
    first.leave()
    assert viewer.told()[-3:] == [OVER[0], (STREAM_EOF, 3), OVER[1]]
    assert viewer.got(2) == []
    sent = second.send(sound(50))
    assert viewer.got(2) == sent


def test_largeMessagesOfSeveralPlays(factory):
    """They go on one chunk stream, so each has to be whole before the next begins."""
    first, second = Source(factory, "a"), Source(factory, "b")
    viewer = Viewer(factory)
    for streamId, name in enumerate(("a", "b"), 1):
        viewer.play(name, streamId=streamId)
    viewer.take()
    viewer.transport.taking = False
    b = second.send(key(0, bytes(500_000)))
    a = first.send(key(0, bytes(500_000)), sound(20))
    b += second.send(sound(20))
    viewer.transport.taking = True
    assert [viewer.got(streamId) for streamId in (1, 2)] == [a, b]


def test_anotherPlayOnTheSameMessageStream(factory):
    first, second = Source(factory, "a"), Source(factory, "b")
    viewer = Viewer(factory)
    viewer.play("a")
    sent = first.send(key(0))
    assert viewer.got() == sent
    viewer.told()
    viewer.play("b")
    assert viewer.told() == [(STREAM_BEGIN, 1), *STARTED]
    first.send(inter(40))
    sent = second.send(key(3))
    assert viewer.got() == sent


@pytest.mark.parametrize("waiting", [False, True])
@pytest.mark.parametrize(
    ("name", "arguments", "streamId"),
    [
        ("closeStream", (), 1),
        ("deleteStream", (1,), 0),
        ("deleteStream", (1,), 1),
        ("deleteStream", ("key",), 0),
    ],
)
def test_thePlayersEnd(clock, factory, name, arguments, streamId, waiting):
    """In the middle of a GOP: nothing comes any more, and nobody else notices."""
    source = None if waiting else Source(factory)
    viewer, other = Viewer(factory), Viewer(factory)
    viewer.play()
    other.play()
    if source is not None:
        source.send(key(0))
    viewer.command(name, 0, None, *arguments, streamId=streamId)
    viewer.take()
    viewer.got()
    other.got()
    assert [player.name for player in factory.players("live", "key")] == ["key"]
    source = source or Source(factory)
    sent = source.send(key(40), sound(50))
    assert viewer.take() == viewer.got() == []
    assert other.got() == sent
    viewer.play()
    assert viewer.got() == [*sent]
    clock.advance(0)
    viewer.command("closeStream", 0, None, streamId=1)
    for _ in range(int(IDLE_SECONDS)):
        assert viewer.open
        clock.advance(1)
        source.send(sound(60))
    viewer.pump()
    assert not viewer.open
    assert other.open


def test_aPlayerLeavesWithoutAWord(factory):
    source = Source(factory)
    viewer, other = Viewer(factory), Viewer(factory)
    viewer.play()
    other.play()
    source.send(key(0))
    other.got()
    viewer.leave()
    sent = source.send(inter(40))
    assert other.got() == sent
    other.leave()
    assert not factory.players("live", "key")
    assert source.open


def test_theQuestionsOfPlayers(factory):
    """What ffmpeg and librtmp ask before play is answered."""
    viewer = Viewer(factory)
    viewer.command("FCSubscribe", 4, None, "key")
    subscribed, result = viewer.commands()
    assert subscribed.name == "onFCSubscribe"
    assert subscribed.code == "NetStream.Play.Start"
    assert result.values[:2] == ["_result", 4]
    viewer.command("getStreamLength", 5, None, "key")
    [result] = viewer.commands()
    assert result.values == ["_result", 5, None, 0]


# What comes amid the stream


def test_dataInOrder(factory):
    """Cue points and captions keep their place, for newcomers too."""
    source, viewer = Source(factory), Viewer(factory)
    viewer.play()
    cue = amf0.encode("onCuePoint", {"name": "goal", "time": 0.04})
    text = amf0.encode("onTextData", {"text": "Tür", "language": "de"})
    caption = amf0.encode("onCaptionInfo", {"type": "708", "data": "zAEB"})
    sent = source.begin()
    gop = source.send(
        key(0),
        (DATA, 5, cue),
        sound(10),
        (DATA, 20, text),
        inter(40),
        (DATA, 40, caption),
    )
    assert viewer.got() == sent + gop
    newcomer = Viewer(factory)
    newcomer.play()
    assert newcomer.got() == sent + gop


def test_headersThatChange(factory):
    source, viewer = Source(factory), Viewer(factory)
    viewer.play()
    data, video, audio = source.begin()
    gop = source.send(key(0), inter(40))
    assert viewer.got() == [data, video, audio, *gop]
    changes = source.send(
        (VIDEO, 80, AVC_HEADER + b"2"), (AUDIO, 80, AAC_HEADER + b"2")
    )
    second = source.send(key(80), sound(90))
    assert viewer.got() == changes + second
    newcomer = Viewer(factory)
    newcomer.play()
    assert newcomer.got() == [data, *changes, *second]


def test_joiningBetweenANewHeaderAndItsFrames(factory):
    """The GOP before it comes with the header that it was coded with."""
    source = Source(factory)
    headers = source.begin()
    gop = source.send(key(0), sound(10), inter(40))
    gop += source.send((VIDEO, 80, AVC_HEADER + b"2"), (DATA, 80, METADATA))
    viewer = Viewer(factory)
    viewer.play()
    assert viewer.got() == headers + gop
    sent = source.send(key(80))
    assert viewer.got() == sent


def test_newcomersWithoutTheGOPGetTheNewHeader(factory):
    source = Source(factory)
    data, _, audio = source.begin()
    source.send(key(0), inter(40))
    changed = source.send((VIDEO, 80, AVC_HEADER + b"2"))
    viewer = Viewer(factory)
    viewer.play("key?gop=0")
    source.send(inter(85))
    assert viewer.got() == [data, *changed, audio]
    sent = source.send(key(120))
    assert viewer.got() == sent


# Nothing that cannot be decoded


def test_aPublisherThatBeginsAmidAGOP(factory):
    """Those who waited for it get no frame before a key frame either."""
    viewer = Viewer(factory)
    viewer.play()
    source = Source(factory)
    headers = source.begin()
    audio = source.send(sound(10))
    source.send(inter(20))
    audio += source.send(sound(30))
    source.send(inter(60))
    newcomer = Viewer(factory)
    newcomer.play()
    assert viewer.got() == headers + audio
    assert newcomer.got() == headers
    sent = source.send(key(100), inter(140))
    assert viewer.got() == newcomer.got() == sent
    [player, _] = factory.players("live", "key")
    assert player.dropped == 0  # it kept up


def test_aKeyFrameWithoutSound(factory):
    """A stream without audio begins at once, and needs none."""
    source = Source(factory)
    header = source.send((VIDEO, 0, AVC_HEADER))
    gop = source.send(key(0), inter(40))
    viewer = Viewer(factory)
    viewer.play()
    assert viewer.got() == header + gop


def test_soundWithoutVideo(factory):
    source = Source(factory)
    header = source.send((AUDIO, 0, AAC_HEADER))
    source.send(sound(20))
    viewer = Viewer(factory)
    viewer.play()
    assert viewer.got() == header
    sent = source.send(sound(40))
    assert viewer.got() == sent


def enhancedVideo(frameType, packetType, fourCC, body):
    """E-RTMP v2, Enhanced Video: the header, then the FourCC."""
    return bytes((0x80 | frameType << 4 | packetType,)) + fourCC + body


def enhancedAudio(packetType, fourCC, body):
    return bytes((0x90 | packetType,)) + fourCC + body


@pytest.mark.parametrize("fourCC", [b"hvc1", b"av01", b"vp09", b"vvc1", b"avc1"])
def test_enhancedStreamsBeginWithTheirHeaders(factory, fourCC):
    source = Source(factory)
    source.send((DATA, 0, METADATA))
    time = b"\0\0\0" if fourCC in (b"hvc1", b"vvc1", b"avc1") else b""
    headers = source.send(
        (DATA, 0, METADATA),
        (VIDEO, 0, enhancedVideo(1, 0, fourCC, b"configuration")),
        (AUDIO, 0, enhancedAudio(0, b"Opus", b"OpusHead")),
        (VIDEO, 0, enhancedVideo(1, 4, fourCC, amf0.encode("colorInfo", {}))),
    )
    source.send((VIDEO, 0, enhancedVideo(1, 1, fourCC, time + b"first")))
    source.send((VIDEO, 30, enhancedVideo(2, 3, fourCC, b"inter")))
    gop = source.send(
        (VIDEO, 60, enhancedVideo(1, 3, fourCC, b"key")),
        (AUDIO, 61, enhancedAudio(1, b"Opus", b"sound")),
        (VIDEO, 90, enhancedVideo(2, 1, fourCC, time + b"inter")),
    )
    viewer = Viewer(factory, fourCcList=["*"])
    viewer.play()
    assert viewer.got() == headers + gop


def test_enhancedAudioAlone(factory):
    source = Source(factory)
    header = source.send((AUDIO, 0, enhancedAudio(0, b"fLaC", b"fLaC")))
    source.send((AUDIO, 20, enhancedAudio(1, b"fLaC", b"frame")))
    viewer = Viewer(factory, fourCcList=["*"])
    viewer.play()
    sent = source.send((AUDIO, 40, enhancedAudio(1, b"fLaC", b"frame")))
    assert viewer.got() == header + sent


# A player that does not keep up


def stopTaking(viewer, source):
    """Let a player's queue begin: what is sent first fills its transport."""
    viewer.transport.taking = False
    size = viewer.transport.bufferSize
    return source.send(key(0), inter(1, bytes(size)))


def test_whatIsLostIsCounted(factory):
    source, viewer = Source(factory), Viewer(factory)
    viewer.play()
    headers = source.begin()
    sent = headers + stopTaking(viewer, source)
    late = int(PLAYER_QUEUE_SECONDS * 1000)
    lost = source.send(inter(40), inter(80), inter(late // 2), inter(120 + late))
    kept = source.send(sound(121 + late))
    lost += source.send(inter(160 + late))
    viewer.transport.taking = True
    assert viewer.got() == sent + kept
    lost += source.send(inter(200 + late))
    kept = source.send(key(240 + late), inter(280 + late))
    assert viewer.got() == kept
    [player] = factory.players("live", "key")
    assert player.dropped == len(lost)
    assert player.droppedBytes == sum(len(payload) for _, _, payload in lost)
    assert player.sent == len(sent) + 1 + len(kept)


def test_aGOPThatIsMoreThanMayWait(clock):
    """A newcomer gets all of it, by and by, and then the same bounds as others."""
    limits = ServerLimits(playerQueue=QueueLimits(bytes=1000))
    factory = RTMPFactory(clock, limits=limits)
    source, viewer = Source(factory), Viewer(factory)
    headers = source.begin()
    late = int(PLAYER_QUEUE_SECONDS * 1000)
    gop = source.send(key(0), sound(0), inter(late), sound(late), sound(2 * late))
    gop += source.send(*(inter(2 * late + n, bytes(100_000)) for n in range(9)))
    viewer.transport.taking = False
    viewer.play()
    assert viewer.transport.most < 400_000
    kept = source.send(inter(2 * late + 50, bytes(500)))
    viewer.transport.taking = True
    assert viewer.got() == headers + gop + kept
    newcomer = Viewer(factory)
    newcomer.transport.taking = False
    newcomer.play()
    source.send(inter(2 * late + 60, bytes(1000)))
    newcomer.transport.taking = True
    found = newcomer.got()
    assert found == (headers + gop)[: len(found)]
    assert newcomer.got() == []
    sent = source.send(key(2 * late + 100))
    assert newcomer.got() == sent
    [_, player] = factory.players("live", "key")
    assert player.sent + player.dropped == len(headers + gop + kept) + 2


def test_aStreamThatComesBackToASlowPlayer(factory):
    """What it has not got of the last one is lost; it is told in the right order."""
    source, viewer = Source(factory), Viewer(factory)
    viewer.play()
    headers = source.begin()
    sent = headers + stopTaking(viewer, source)
    lost = source.send(inter(40), sound(50))
    viewer.told()
    source.leave()
    source = Source(factory)
    source.begin()
    sent += headers + source.send(key(0))
    viewer.transport.taking = True
    assert viewer.got() == sent
    assert viewer.told() == [
        OVER[0],
        (STREAM_EOF, 1),
        OVER[1],
        (STREAM_BEGIN, 1),
        PUBLISHED,
    ]
    [player] = factory.players("live", "key")
    assert player.dropped == len(lost)
    sent = source.send(inter(40))
    assert viewer.got() == sent
    source.leave()
    assert viewer.told()[-1] == OVER[1]


# P14: the GOP that is kept


def cached(factory):
    """What a newcomer gets at once."""
    viewer = Viewer(factory)
    viewer.play()
    found = viewer.got()
    viewer.leave()
    return found


def test_theGOPIsBoundedInMessages(clock):
    limits = ServerLimits(gop=GOPLimits(messages=3 + 10))
    factory = RTMPFactory(clock, limits=limits)
    source = Source(factory)
    headers = source.begin()
    gop = source.send(key(0), *(sound(n) for n in range(9)))
    assert cached(factory) == headers + gop
    for n in range(30):  # a camera whose picture has died
        source.send(sound(10 + n))
        assert cached(factory) == headers
    gop = source.send(key(100), sound(101))
    assert cached(factory) == headers + gop


def test_theGOPIsBoundedInTime(factory):
    """Few and small frames must not put a newcomer minutes behind."""
    source = Source(factory)
    headers = source.begin()
    limit = int(GOP_SECONDS * 1000)
    gop = source.send(key(5), sound(5), inter(5 + limit // 3))
    gop += source.send(sound(5 + limit // 3), inter(5 + limit // 3 * 2))
    gop += source.send(sound(5 + limit // 3 * 2), inter(5 + limit), sound(5 + limit))
    assert cached(factory) == headers + gop
    source.send(inter(6 + limit))
    assert cached(factory) == headers


def test_theGOPIsBoundedWhenTheTimeGoesBack(factory):
    source = Source(factory)
    headers = source.begin()
    gop = source.send(key(1 << 20))
    source.send(inter(40), inter(80))
    times = [(1 << 20) + 40 * n for n in (1, 2)]
    assert cached(factory) == headers + gop + [inter(time) for time in times]


@pytest.mark.parametrize("count", [1, 5000])
def test_soundAloneIsNotKept(factory, count):
    source = Source(factory)
    header = source.send((AUDIO, 0, AAC_HEADER))
    source.send(*(sound(20 * n) for n in range(count)))
    assert cached(factory) == header
