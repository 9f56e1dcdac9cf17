"""
Play a live stream into an FLV file with python3-librtmp: librtmpplayer.py URL FILE.

A program of its own: Debian has the module for its own Python only.
"""

import sys

import librtmp

url, path = sys.argv[1:]
connection = librtmp.RTMP(url, live=True)
connection.connect()
stream = connection.create_stream()
with open(path, "wb") as file:
    while True:
        data = stream.read(65_536)
        if not data:
            break
        file.write(data)
