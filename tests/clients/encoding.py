"""A publisher of every codec that FFmpeg writes into FLV: PyAV, with its encoders."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from capture import needed

try:
    import av
except ImportError:  # pragma: no cover
    av = None

#: Since FFmpeg 8.0 its FLV muxer takes all these, and numbers tracks.
LIBAVFORMAT = 62

RATE = 25
SAMPLE_RATE = 48000

#: Pictures of a second and some: three key frames.
PICTURES = 30
GOP = 12

#: Encoders and their options, by the codec's name in the documentation.
VIDEO: dict[str, tuple[str, dict[str, str]]] = {
    "H.264": ("libx264", {"preset": "veryfast", "bf": "2"}),
    "HEVC": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none"}),
    "AV1": ("libsvtav1", {"preset": "12"}),
    "VP9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
}
AUDIO: dict[str, tuple[str, dict[str, str]]] = {
    "AAC": ("aac", {}),
    "MP3": ("libmp3lame", {}),
    "Opus": ("libopus", {}),
    "FLAC": ("flac", {}),
    "AC-3": ("ac3", {}),
    "E-AC-3": ("eac3", {}),
}


def checkFFmpeg() -> None:
    """Skip the test if PyAV or what it carries is missing or too old."""
    if av is None:
        needed("PyAV")
    if av.library_versions["libavformat"][0] < LIBAVFORMAT:
        needed("PyAV with FFmpeg 8")


def _frames(stream: Any, number: int) -> Iterator[Any]:
    """
    Something that moves and sounds.

    @param number: of the track, since no two are alike.
    """
    if stream.type == "video":
        for picture in range(PICTURES):
            frame = av.VideoFrame(stream.width, stream.height, "yuv420p")
            for index, plane in enumerate(frame.planes):
                start = picture * (index + 3) + 50 * number
                row = bytes((start + byte) & 0xFF for byte in range(256))
                plane.update(
                    (row * (plane.buffer_size // 256 + 1))[: plane.buffer_size]
                )
            frame.pts = picture
            frame.time_base = Fraction(1, RATE)
            yield frame
        return
    context = stream.codec_context
    size = context.frame_size or 1024
    for start in range(0, SAMPLE_RATE * PICTURES // RATE, size):
        frame = av.AudioFrame(context.format.name, "stereo", size)
        for plane in frame.planes:
            wave = bytes((byte * (number + 1)) & 0x3F for byte in range(256))
            plane.update((wave * (plane.buffer_size // 256 + 1))[: plane.buffer_size])
        frame.sample_rate = SAMPLE_RATE
        frame.pts = start
        frame.time_base = Fraction(1, SAMPLE_RATE)
        yield frame


def _encode(stream: Any, number: int) -> Iterator[Any]:
    for frame in _frames(stream, number):
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _addStreams(output: Any, video: Sequence[str], audio: Sequence[str]) -> list[Any]:
    streams = []
    for codec in video:
        encoder, options = VIDEO[codec]
        stream = output.add_stream(encoder, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.gop_size = GOP
        streams.append(stream)
    for codec in audio:
        encoder, options = AUDIO[codec]
        stream = output.add_stream(encoder, rate=SAMPLE_RATE, options=options)
        stream.layout = "stereo"
        streams.append(stream)
    return streams


def publish(url: str, video: Sequence[str], audio: Sequence[str]) -> bytes:
    """
    Publish streams of these codecs, each kind in the order of its tracks.

    @return: an FLV file of the same packets, written by FFmpeg at the same time.
    """
    local = io.BytesIO()
    outputs = [
        av.open(url, "w", format="flv"),
        av.open(local, "w", format="flv"),
    ]
    columns = list(
        zip(*(_addStreams(each, video, audio) for each in outputs), strict=True)
    )
    packets = []
    for number, (stream, other) in enumerate(columns):
        for packet in _encode(stream, number):
            place = packet.dts * packet.time_base, number, len(packets)
            packets.append((place, packet))
        # Its headers come from its own encoder, which has to be opened.
        for _ in _encode(other, number):
            pass
    for (_, number, _), packet in sorted(packets, key=lambda entry: entry[0]):
        kept = packet.pts, packet.dts, packet.time_base
        for output, stream in zip(outputs, columns[number], strict=True):
            packet.pts, packet.dts, packet.time_base = kept
            packet.stream = stream
            output.mux(packet)
    for output in outputs:
        output.close()
    return local.getvalue()
