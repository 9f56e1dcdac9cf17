"""What PyAV sends is in the recording: FFmpeg's libraries, newer than Debian's."""

from fractions import Fraction

import pytest
from capture import assertAllStored, assertSame, frames, mediaTags, needed

from twisted_rtmp.media import payloads as media
from twisted_rtmp.wire.constants import MessageType

try:
    import av
except ImportError:
    av = None

FRAMES = 60
RATE = 30
SAMPLE_RATE = 48000


@pytest.fixture(autouse=True)
def pyav():
    if av is None:
        needed("PyAV")


def pictures(stream):
    """Encode something that moves."""
    for number in range(FRAMES):
        frame = av.VideoFrame(stream.width, stream.height, "yuv420p")
        for index, plane in enumerate(frame.planes):
            plane.update(
                bytes((number * (index + 3) + byte) & 0xFF for byte in range(256))
                * (plane.buffer_size // 256)
                + bytes(plane.buffer_size % 256)
            )
        frame.pts = number
        frame.time_base = Fraction(1, RATE)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def sound(stream):
    """Encode a sawtooth for as long."""
    size = stream.codec_context.frame_size or 1024
    for start in range(0, FRAMES * SAMPLE_RATE // RATE, size):
        frame = av.AudioFrame(stream.codec_context.format.name, "stereo", size)
        for plane in frame.planes:
            plane.update(bytes(byte & 0x3F for byte in range(plane.buffer_size)))
        frame.sample_rate = SAMPLE_RATE
        frame.pts = start
        frame.time_base = Fraction(1, SAMPLE_RATE)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def publish(url, local, videoCodec, audioCodec):
    """Mux the same packets to the server and to a file."""
    options = {"rw_timeout": "20000000"}
    outputs = [
        av.open(url, "w", format="flv", options=options),
        av.open(str(local), "w", format="flv"),
    ]
    packets = []
    streams = []
    for name, encode in ((videoCodec, pictures), (audioCodec, sound)):
        if name is None:
            continue
        rate = RATE if encode is pictures else SAMPLE_RATE
        each = [output.add_stream(name, rate=rate) for output in outputs]
        for stream in each:
            if encode is pictures:
                stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
                stream.gop_size = 15
            else:
                stream.layout = "stereo"
        for packet in encode(each[0]):
            place = float(packet.dts * packet.time_base), len(packets)
            packets.append((place, packet, len(streams)))
        streams.append(each)
        # The second one's headers come from its encoder, which has to be opened.
        list(encode(each[1]))
    for _, packet, index in sorted(packets, key=lambda entry: entry[0]):
        kept = packet.pts, packet.dts, packet.time_base
        for number, output in enumerate(outputs):
            packet.pts, packet.dts, packet.time_base = kept
            packet.stream = streams[index][number]
            output.mux(packet)
    for output in outputs:
        output.close()


@pytest.mark.parametrize(
    ("videoCodec", "audioCodec"),
    [
        ("libx264", "aac"),
        ("libx264", None),
        (None, "aac"),
        ("libx265", "aac"),
        ("libsvtav1", "libopus"),
    ],
)
def test_publish(capture, tmp_path, videoCodec, audioCodec):
    local = tmp_path / "local.flv"
    publish(capture.url("test"), local, videoCodec, audioCodec)
    summary = capture.ended("test")["test"]
    sent = mediaTags(local)
    assert len(frames(sent, MessageType.VIDEO)) == (FRAMES if videoCodec else 0)
    assert bool(frames(sent, MessageType.AUDIO)) == bool(audioCodec)
    if videoCodec in ("libx265", "libsvtav1"):
        assert media.videoFlags(frames(sent, MessageType.VIDEO)[0].payload) & (
            media.ENHANCED
        )
    assertSame(mediaTags(capture.recording("test")), sent)
    assertAllStored(summary, sent)
