"""
Publish 60 frames to a server that is starting, and look for them in its
recording: python3 .ci/publish.py LOG RECORDINGS.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

#: For pip to install from a slow mirror, and the server to start, in seconds.
START_SECONDS = 180

log, recordings = map(Path, sys.argv[1:])

deadline = time.monotonic() + START_SECONDS
while True:
    match = re.search(r"Listening on 0\.0\.0\.0:(\d+)", log.read_text())
    if match:
        break
    if time.monotonic() > deadline:
        sys.exit("the server does not listen:\n" + log.read_text())
    time.sleep(0.1)

subprocess.run(
    [
        "ffmpeg",
        "-nostdin",
        "-v",
        "error",
        "-re",
        "-f",
        "lavfi",
        "-i",
        "testsrc=size=320x240:rate=30",
        "-t",
        "2",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-g",
        "30",
        "-f",
        "flv",
        f"rtmp://localhost:{match[1]}/live/test",
    ],
    check=True,
    timeout=60,
)
deadline = time.monotonic() + 5
while "60 video 0 audio received, 60 and 0 written, 0 lost" not in log.read_text():
    if time.monotonic() > deadline:
        sys.exit("the log does not say that all 60 frames are there")
    time.sleep(0.1)
(recording,) = recordings.glob("live/test-*.flv")
frames = subprocess.run(
    [
        "ffprobe",
        "-v",
        "error",
        "-count_packets",
        "-show_entries",
        "stream=nb_read_packets",
        "-of",
        "csv=p=0",
        str(recording),
    ],
    check=True,
    capture_output=True,
    text=True,
).stdout.strip()
print(f"{recording}: {frames} video frames of 60")
sys.exit(frames != "60")
