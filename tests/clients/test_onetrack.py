"""
What a current FFmpeg muxes as several tracks, taken apart: each track is a stream that
FFmpeg reads as it read the whole, in its plain form and in its legacy one.
"""

from __future__ import annotations

import io
from fractions import Fraction

import pytest
from capture import needed

from twisted_rtmp.flv import tags as flv
from twisted_rtmp.media.parts import splitTracks, toLegacy
from twisted_rtmp.media.payloads import audioFacts, videoFacts
from twisted_rtmp.wire.constants import MessageType, NeedData

try:
    import av
except ImportError:
    av = None

#: Since FFmpeg 8.0 its FLV muxer numbers tracks.
MULTITRACK_FFMPEG = 62

RATE = 25
SAMPLE_RATE = 48000

#: Encoders by what the headers name their codecs, in the order of their tracks.  The
#: first of each kind is sent as if it were the only one.
VIDEO = {
    "first": "libx264",
    "avc1": "libx264",
    "hvc1": "libx265",
    "vp09": "libvpx-vp9",
    "av01": "libsvtav1",
}
AUDIO = {
    "first": "aac",
    "mp4a": "aac",
    "Opus": "libopus",
    "fLaC": "flac",
    "ac-3": "ac3",
    "ec-3": "eac3",
    ".mp3": "libmp3lame",
}
LEGACY = ("avc1", "mp4a", ".mp3")

TRACKS = [
    *((MessageType.VIDEO, n, name) for n, name in enumerate(VIDEO)),
    *((MessageType.AUDIO, n, name) for n, name in enumerate(AUDIO)),
]


def encoded(stream):
    """The packets of half a second."""
    if stream.type == "video":
        for number in range(12):
            frame = av.VideoFrame(stream.width, stream.height, "yuv420p")
            for index, plane in enumerate(frame.planes):
                shade = (number * (index + 3) * 7) % 256
                plane.update(bytes((shade,)) * plane.buffer_size)
            frame.pts = number
            frame.time_base = Fraction(1, RATE)
            yield from stream.encode(frame)
    else:
        size = stream.codec_context.frame_size or 1024
        for start in range(0, SAMPLE_RATE // 2, size):
            frame = av.AudioFrame(stream.codec_context.format.name, "stereo", size)
            for plane in frame.planes:
                plane.update(bytes(byte & 0x3F for byte in range(plane.buffer_size)))
            frame.sample_rate = SAMPLE_RATE
            frame.pts = start
            frame.time_base = Fraction(1, SAMPLE_RATE)
            yield from stream.encode(frame)
    yield from stream.encode(None)


@pytest.fixture(scope="module")
def muxed():
    """An FLV file of all tracks, as FFmpeg writes it."""
    if av is None:
        needed("PyAV")
    if av.library_versions["libavformat"][0] < MULTITRACK_FFMPEG:
        needed("PyAV with FFmpeg 8")
    output = io.BytesIO()
    with av.open(output, "w", format="flv") as container:
        streams = []
        for encoder in VIDEO.values():
            stream = container.add_stream(encoder, rate=RATE)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            if encoder == "libx265":
                stream.options = {"x265-params": "log-level=none"}
            elif encoder == "libsvtav1":
                stream.options = {"preset": "12"}
            streams.append(stream)
        streams += [
            container.add_stream(encoder, rate=SAMPLE_RATE)
            for encoder in AUDIO.values()
        ]
        packets = [packet for stream in streams for packet in encoded(stream)]
        for packet in sorted(packets, key=lambda p: (p.dts or 0) * p.time_base):
            container.mux(packet)
    return output.getvalue()


def demuxed(data):
    """The streams of a file as codec, configuration and packets."""
    with av.open(io.BytesIO(data), format="flv") as container:
        packets = {stream.index: [] for stream in container.streams}
        for packet in container.demux():
            if packet.size:  # FFmpeg makes empty ones of headers and ends
                packets[packet.stream.index].append(
                    (bytes(packet), packet.pts, packet.dts)
                )
        return [
            (
                stream.type,
                stream.codec_context.codec.canonical_name,
                bytes(stream.codec_context.extradata or b""),
                packets[stream.index],
            )
            for stream in container.streams
        ]


def messages(data):
    reader = flv.FLVReader()
    reader.feed(data)
    found = []
    while not isinstance(tag := reader.nextTag(), NeedData):
        found.append(tag)
    return [tag for tag in found if tag.typeId != MessageType.DATA_AMF0]


def file(kind, tags):
    header = flv.encodeHeader(kind == MessageType.AUDIO, kind == MessageType.VIDEO)
    return header + b"".join(flv.encodeTag(kind, *tag) for tag in tags)


def ofTrack(data, kind, trackId, name):
    """The timestamps and plain payloads of one track."""
    return [
        (message.timestamp, track.payload)
        for message in messages(data)
        if message.typeId == kind
        for track in splitTracks(kind, message.payload)
        # FFmpeg sends colorInfo of any track without its number.
        if track.trackId == trackId and (not trackId or track.codec == name)
    ]


@pytest.mark.parametrize(("kind", "trackId", "name"), TRACKS)
def test_oneTrackIsWhatItWasAmongOthers(muxed, kind, trackId, name):
    index = trackId + (len(VIDEO) if kind == MessageType.AUDIO else 0)
    expected = demuxed(muxed)[index]
    assert len(expected[3]) > 5
    tags = ofTrack(muxed, kind, trackId, name)
    assert demuxed(file(kind, tags)) == [expected]
    legacy = [(time, toLegacy(kind, payload)) for time, payload in tags]
    written = [tag for tag in legacy if tag[1] is not None]
    if name in LEGACY or not trackId:
        assert demuxed(file(kind, written)) == [expected]
    else:
        assert written == []


def test_facts(muxed):
    """Each track says what it is: its codec, its size, its rate."""
    for kind, trackId, name in TRACKS:
        facts = {}
        for _, payload in ofTrack(muxed, kind, trackId, name):
            read = videoFacts if kind == MessageType.VIDEO else audioFacts
            facts |= read(payload)
        if trackId:
            number = int.from_bytes(name.encode(), "big")
            codecs = (facts.get("videocodecid"), facts.get("audiocodecid"))
            assert number in codecs
        if name in ("avc1", "hvc1"):
            assert (facts["width"], facts["height"]) == (64, 64)
        if name in ("mp4a", "Opus", "fLaC"):
            assert (facts["audiosamplerate"], facts["audiochannels"]) == (48000, 2)
