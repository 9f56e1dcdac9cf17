"""
OBS sends several video and audio tracks: it asks for its configuration, publishes what
that says where that says, and all tracks are in the recording.

What OBS makes of the answer and of its encoders' packets is written down here from its
sources (MultitrackVideoOutput.cpp, flv-mux.c); nothing of it is shared with what is
tested.
"""

from __future__ import annotations

import http.client
import io
import json
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from capture import assertAllStored, assertSame, capturing, ffmpeg, mediaTags, needed
from serverprocess import PATIENCE
from test_obs import OBS

from twisted_rtmp.wire import amf0
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.messages import Message

try:
    import av
except ImportError:
    av = None

#: Since FFmpeg 8.0 its FLV demuxer numbers tracks.
MULTITRACK_FFMPEG = 62

KEY = "s3cret-key"

#: Packet types of enhanced headers, E-RTMP v2.
SEQUENCE_START, CODED_FRAMES, SEQUENCE_END, CODED_FRAMES_X = range(4)
AUDIO_MULTITRACK, VIDEO_MULTITRACK = 5, 6

OFFER = {
    "encoder_configurations": [
        {
            "type": ["obs_nvenc_h264_tex", "obs_x264"],
            "width": width,
            "height": height,
            "framerate": {"numerator": 30, "denominator": 1},
            "settings": {"bitrate": bitrate, "keyint_sec": 1},
        }
        for width, height, bitrate in ((320, 180, 400), (160, 90, 200), (96, 54, 100))
    ],
    "audio_configurations": {
        "live": [{"settings": {"bitrate": 64}}, {"settings": {"bitrate": 96}}]
    },
}

#: What OBS tells of itself, as far as it matters here.
REQUEST = {
    "service": "IVS",
    "schema_version": "2025-01-25",
    "authentication": KEY,
    "client": {
        "name": "obs-studio",
        "version": "32.2.2",
        "supported_codecs": ["h264"],
    },
    "capabilities": {"gpu": None},
    "preferences": {
        "maximum_aggregate_bitrate": None,
        "maximum_video_tracks": None,
        "vod_track_audio": False,
        "audio_channels": 2,
        "canvases": [
            {
                "width": 320,
                "height": 180,
                "canvas_width": 320,
                "canvas_height": 180,
                "framerate": {"numerator": 30, "denominator": 1},
            }
        ],
    },
}


@pytest.fixture
def server(tmp_path):
    (tmp_path / "offer.json").write_text(json.dumps(OFFER))
    (tmp_path / "keys").write_text(f"{KEY} test\n")
    options = [
        *("--http", "tcp:0:interface=127.0.0.1"),
        *("--multitrack-config", str(tmp_path / "offer.json")),
        *("--stream-key-file", str(tmp_path / "keys")),
    ]
    with capturing(tmp_path, *options) as capture:
        match = capture.server.expect(r"Listening on 127\.0\.0\.1:(\d+) \(HTTP")
        capture.httpPort = int(match[1])
        yield capture


def connect(server):
    return http.client.HTTPConnection("127.0.0.1", server.httpPort, PATIENCE)


def configuration(server, key=KEY):
    """What OBS is told."""
    connection = connect(server)
    body = json.dumps({**REQUEST, "authentication": key})
    headers = {"Content-Type": "application/json", "User-Agent": "obs-basic 32.2.2"}
    connection.request("POST", "/multitrack-config", body, headers)
    response = connection.getresponse()
    assert response.status == 200
    answer = json.loads(response.read())
    connection.close()
    return answer


def service(answer, userKey):
    """Where and under which key OBS publishes then."""
    endpoint = next(
        each for each in answer["ingest_endpoints"] if each["protocol"] == "RTMP"
    )
    template = endpoint["url_template"]
    key, _, query = userKey.partition("?")
    key = endpoint.get("authentication") or key
    items = parse_qsl(urlsplit(template).query) + parse_qsl(query)
    items.append(("clientConfigId", answer["meta"]["config_id"]))
    url = urlsplit(template[: template.index("/{stream_key}")])
    return url, f"{key}?{urlencode(items)}"


def encode(path, *arguments):
    ffmpeg("-f", "lavfi", *arguments, "-t", 2, path)
    return path


@pytest.fixture(scope="module")
def tracks(tmp_path_factory):
    """Each track as an FLV file of its own: three of video, two of audio."""
    folder = tmp_path_factory.mktemp("tracks")
    video = [
        encode(
            folder / f"video{index}.flv",
            *("-i", f"testsrc=size={size}:rate=30"),
            *("-c:v", "libx264", "-preset", "veryfast", "-bf", bFrames, "-g", 30),
        )
        for index, (size, bFrames) in enumerate(
            (("320x180", 2), ("160x90", 2), ("96x54", 0))
        )
    ]
    audio = [
        encode(
            folder / f"audio{index}.flv",
            *("-i", f"sine=frequency={440 * (index + 1)}:sample_rate=48000"),
            *("-ac", 2, "-c:a", "aac", "-b:a", rate),
        )
        for index, rate in enumerate(("64k", "96k"))
    ]
    return video, audio


def videoMessage(tag, index):
    """A packet of a further track, as OBS writes it from what the encoder gave."""
    payload = tag.payload
    frameType = payload[0] & 0xF0
    offset = payload[2:5]
    kind = {0: SEQUENCE_START, 1: CODED_FRAMES, 2: SEQUENCE_END}[payload[1]]
    if kind == CODED_FRAMES and offset == bytes(3):
        kind = CODED_FRAMES_X
    head = bytes([0x80 | frameType | VIDEO_MULTITRACK, kind]) + b"avc1" + bytes([index])
    if kind == CODED_FRAMES:
        head += offset
    return Message(MessageType.VIDEO, tag.timestamp, 0, head + payload[5:])


def audioMessage(tag, index):
    kind = {0: SEQUENCE_START, 1: CODED_FRAMES}[tag.payload[1]]
    head = bytes([0x90 | AUDIO_MULTITRACK, kind]) + b"mp4a" + bytes([index])
    return Message(MessageType.AUDIO, tag.timestamp, 0, head + tag.payload[2:])


def isHeader(tag):
    return tag.payload[1] == 0


def isEnd(tag):
    return tag.typeId == MessageType.VIDEO and tag.payload[1] == 2


def output(tracks):
    """
    What OBS sends of all tracks: headers of audio, then of video, frames in the order
    of time, and the ends of what is not plain H.264.
    """
    video, audio = ([mediaTags(path) for path in paths] for paths in tracks)
    headers, packets, ends = [], [], []
    for wrap, files in ((audioMessage, audio), (videoMessage, video)):
        for index, tags in enumerate(files):
            for tag in tags:
                message = wrap(tag, index) if index else tag
                if isHeader(tag):
                    headers.append(message)
                elif not isEnd(tag):
                    packets.append(message)
                elif index:
                    ends.append(message)
    packets.sort(key=lambda message: message.timestamp)
    return [*headers, *packets, *ends]


def publish(server, sent, answer, userKey=KEY):
    """One output from start to stop: the log's summary."""
    url, key = service(answer, userKey)
    assert url.scheme == "rtmp"
    assert url.port == server.port
    with OBS(url.port) as obs:
        streamId = obs.publish(url.path.strip("/"), key)
        obs.metadata(streamId, amf0.encode("onMetaData", {"encoder": "obs-output"}))
        for message in sent:
            obs.media(streamId, message)
        obs.stop(key, streamId)
    return server.ended("test")["test"]


def demuxed(path):
    """The packets of each stream of a file, by kind."""
    found = {"video": [], "audio": []}
    with av.open(path if isinstance(path, io.BytesIO) else str(path)) as container:
        packets = {stream.index: [] for stream in container.streams}
        for packet in container.demux():
            if packet.size:  # FFmpeg makes empty ones of headers and ends
                packets[packet.stream.index].append(packet)
        for stream in container.streams:
            found[stream.type].append(
                (
                    bytes(stream.codec_context.extradata),
                    (stream.codec_context.width, stream.codec_context.height)
                    if stream.type == "video"
                    else stream.codec_context.sample_rate,
                    [(bytes(p), p.pts, p.dts) for p in packets[stream.index]],
                )
            )
    return found


def test_allTracksAreRecorded(server, tracks):
    answer = configuration(server)
    encoders = answer["encoder_configurations"]
    assert [each["type"] for each in encoders] == ["obs_x264"] * 3
    sizes = [(each["width"], each["height"]) for each in encoders]
    assert sizes == [(320, 180), (160, 90), (96, 54)]
    assert len(answer["audio_configurations"]["live"]) == 2
    sent = output(tracks)
    kinds = {message.payload[:2] for message in sent if message.payload[0] & 0x80}
    # Further tracks come with and without a composition time, the first is plain.
    assert {b"\x96\0", b"\x96\1", b"\x96\3", b"\xa6\1", b"\xa6\3"} <= kinds
    summary = publish(server, sent, answer)
    path = server.recording("test")
    assertSame(mediaTags(path), sent)
    assertAllStored(summary, sent)
    assert KEY not in server.server.output
    if av is None or av.library_versions["libavformat"][0] < MULTITRACK_FFMPEG:
        needed("PyAV with FFmpeg 8")
    recorded = demuxed(path)
    video, audio = tracks
    assert [each[1] for each in recorded["video"]] == sizes
    assert len(recorded["audio"]) == 2
    for kind, files in (("video", video), ("audio", audio)):
        for found, file in zip(recorded[kind], files, strict=True):
            (expected,) = demuxed(file)[kind]
            assert len(expected[2]) >= 60
            assert found[:2] == expected[:2]
            # Not compared by the assertion itself: pytest would explain megabytes.
            same = found[2] == expected[2]
            assert same, f"{kind} of {file.name} differs"


def test_queryOfTheKey(server, tracks):
    """OBS puts the user's own query in front of the id; the name goes without."""
    userKey = KEY + "?bandwidthtest=true"
    answer = configuration(server, userKey)
    _, key = service(answer, userKey)
    identity = answer["meta"]["config_id"]
    assert key == f"{KEY}?bandwidthtest=true&clientConfigId={identity}"
    sent = output(tracks)
    assertAllStored(publish(server, sent, answer, userKey), sent)
    assert identity in server.server.output
    assert KEY not in server.server.output


def test_wrongKey(server):
    """OBS's user reads why, and nothing is published."""
    answer = configuration(server, "guessed")
    assert answer["status"] == {
        "result": "error",
        "html_en_us": "The stream key is not valid.",
    }
    assert answer["ingest_endpoints"] == []
    server.server.expect("gets no multitrack configuration: The stream key is not")
    assert "guessed" not in server.server.output


def test_timestampsBeyond24Bits(server, tracks):
    """A day later every track is still in step."""
    sent = output(tracks)
    for message in sent:
        message.timestamp += 86_400_000
    answer = configuration(server)
    assertAllStored(publish(server, sent, answer), sent)
    assertSame(mediaTags(server.recording("test")), sent)


def play(server, query):
    """Play the stream by HTTP: all of it, as a file."""
    connection = connect(server)
    connection.request("GET", f"/live/test.flv{query}")
    response = connection.getresponse()
    assert response.status == 200
    data = io.BytesIO(response.read())
    connection.close()
    return data


def test_viewers(server, tracks):
    """Who asks for nothing gets the first tracks; others can be asked for."""
    if av is None:
        needed("PyAV")
    answer = configuration(server)
    sent = output(tracks)
    queries = {"": 0, "?track=1": 1, "?video=2&audio=0": (2, 0)}
    with ThreadPoolExecutor(len(queries)) as pool:
        playing = {query: pool.submit(play, server, query) for query in queries}
        for _ in queries:
            server.server.expect("plays live/test by HTTP, which is not being")
        publish(server, sent, answer)
        played = {query: player.result() for query, player in playing.items()}
    for query, wanted in queries.items():
        numbers = wanted if isinstance(wanted, tuple) else (wanted, wanted)
        found = demuxed(played[query])
        for kind, files, number in zip(
            ("video", "audio"), tracks, numbers, strict=True
        ):
            assert len(found[kind]) == 1, query
            (expected,) = demuxed(files[number])[kind]
            same = found[kind][0] == expected
            assert same, f"{kind} of {query or 'the plain stream'}"
