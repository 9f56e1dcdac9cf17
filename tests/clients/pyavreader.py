"""
Read streams from a URL, or a file, to the end: pyavreader.py URL FILE [OPTION=VALUE].

FILE gets what FFmpeg makes of them, as JSON: of each its kind, codec, configuration,
and its packets with their times.  A program of its own for live streams, since opening
one blocks until it begins.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from typing import IO, Any

import av

#: Microseconds that FFmpeg waits for the peer: as long as for anything else here.
PATIENCE = "60000000"


def read(source: str | IO[bytes], *more: str) -> list[dict[str, Any]]:
    """
    The streams of a source that have packets, those of video first; times are in
    milliseconds.  (FFmpeg may make up one from what the metadata say.)

    @param more: options of FFmpeg's, with their values.
    """
    options = {"rw_timeout": PATIENCE} if isinstance(source, str) else {}
    options.update(option.split("=", 1) for option in more)
    with av.open(source, format="flv", options=options) as container:
        packets: dict[int, list[list[object]]] = {}
        for packet in container.demux():
            if packet.size:  # FFmpeg makes empty ones of headers and ends
                assert packet.time_base * 1000 == 1
                packets.setdefault(packet.stream_index, []).append(
                    [
                        sha256(bytes(packet)).hexdigest(),
                        packet.pts,
                        packet.dts,
                        packet.is_keyframe,
                    ]
                )
        return [
            {
                "kind": stream.type,
                "codec": stream.codec_context.codec.canonical_name,
                "configuration": bytes(stream.codec_context.extradata or b"").hex(),
                "packets": packets[stream.index],
            }
            for stream in sorted(
                container.streams, key=lambda s: (s.type != "video", s.index)
            )
            if stream.type in ("video", "audio") and stream.index in packets
        ]


if __name__ == "__main__":
    url, path, *options = sys.argv[1:]
    streams = read(url, *options)
    with open(path, "w", encoding="ascii") as file:
        json.dump(streams, file)
