"""
Play a live stream into an FLV file with PyAV: pyavplayer.py URL FILE.

A program of its own, since opening a stream blocks until it begins.
"""

import sys

import av

url, path = sys.argv[1:]
source = av.open(url, options={"rw_timeout": "50000000"})
with source, av.open(path, "w", format="flv") as target:
    copies = {
        stream.index: target.add_stream_from_template(stream, opaque=True)
        for stream in source.streams
        if stream.type in ("audio", "video")
    }
    for packet in source.demux(*(source.streams[index] for index in copies)):
        if packet.dts is not None:  # else the stream's end
            packet.stream = copies[packet.stream_index]
            target.mux(packet)
