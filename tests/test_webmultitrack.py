"""What encoders of several tracks are offered: the file, and the answers."""

from __future__ import annotations

import json
import os
import re
from copy import deepcopy

import pytest
from httpclient import Getter
from serverprocess import ROOT
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.usage import UsageError
from zope.interface import implementer

from twisted_rtmp.auth import AllowList
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.fields import BadField, parseJSON, uniqueNames
from twisted_rtmp.interfaces import IAuthorizer, Refused
from twisted_rtmp.multitrack.encoders import Canvas, FrameRate, Wishes
from twisted_rtmp.multitrack.offers import (
    MAX_CONFIGURATIONS,
    MAX_FILE,
    Offer,
    OfferFile,
)
from twisted_rtmp.multitrack.resource import DECISION_SECONDS, MultitrackResource
from twisted_rtmp.service import Listener, RTMPService
from twisted_rtmp.tap import Options, endpointFromString, makeService
from twisted_rtmp.web import HTTPSite
from twisted_rtmp.web.answers import Origins

TARGET = "/multitrack-config"
KEY = "live_u4-S3cret"


def video(width, height, bitrate, **fields):
    return {
        "type": "obs_x264",
        "width": width,
        "height": height,
        "settings": {"bitrate": bitrate, "keyint_sec": 2},
        **fields,
    }


def audio(bitrate, **fields):
    return {"settings": {"bitrate": bitrate}, **fields}


OFFER = {
    "encoder_configurations": [
        video(1920, 1080, 6000),
        video(1280, 720, 3000, framerate={"numerator": 30, "denominator": 1}),
        video(854, 480, 1000, framerate={"numerator": 30, "denominator": 1}),
    ],
    "audio_configurations": {"live": [audio(160)]},
}


def rate(numerator, denominator=1):
    return {"numerator": numerator, "denominator": denominator}


def canvas(width=1920, height=1080, framerate=None):
    """As OBS describes one that it scales down to half its size."""
    return {
        "width": width // 2,
        "height": height // 2,
        "canvas_width": width,
        "canvas_height": height,
        "framerate": framerate or rate(60),
    }


def request(**preferences):
    """What OBS 32 sends."""
    return {
        "service": "IVS",
        "schema_version": "2025-01-25",
        "authentication": KEY,
        "client": {
            "name": "obs-studio",
            "version": "32.2.2",
            "supported_codecs": ["av1", "h264", "h265"],
        },
        "capabilities": {
            "cpu": {
                "physical_cores": 8,
                "logical_cores": 16,
                "speed": 3600,
                "name": "CPU",
            },
            "memory": {"total": 34_000_000_000, "free": 12_000_000_000},
            "gaming_features": None,
            "system": {
                "version": "10.0.22631",
                "name": "Windows",
                "build": 22631,
                "release": "23H2",
                "revision": "3007",
                "bits": 64,
                "arm": False,
                "armEmulation": False,
            },
            "gpu": [
                {
                    "model": "NVIDIA GeForce RTX 4070",
                    "vendor_id": 0x10DE,
                    "device_id": 10118,
                    "dedicated_video_memory": 12_600_000_000,
                    "shared_system_memory": 17_000_000_000,
                    "driver_version": "32.0.15.6094",
                }
            ],
        },
        "preferences": {
            "maximum_aggregate_bitrate": None,
            "maximum_video_tracks": None,
            "vod_track_audio": False,
            "composition_gpu_index": 0,
            "audio_samples_per_sec": 48000,
            "audio_channels": 2,
            "audio_max_buffering_ms": 1000,
            "audio_fixed_buffering": False,
            "canvases": [canvas()],
            **preferences,
        },
    }


def oldRequest():
    """What OBS 30.2 to 31.0 sends: one canvas, and nothing of audio."""
    asked = request()
    asked["schema_version"] = "2024-06-04"
    asked["preferences"] = {
        "maximum_aggregate_bitrate": None,
        "maximum_video_tracks": None,
        "vod_track_audio": False,
        "composition_gpu_index": 0,
        **canvas(1280, 720, rate(60)),
    }
    return asked


def assertOBSReads(answer):
    """
    OBS throws at a field that is not there, of those without a default in its
    C{models/multitrack-video.hpp}, and at one of another kind.
    """
    for field in ("service", "schema_version", "config_id"):
        assert isinstance(answer["meta"][field], str)
    for endpoint in answer["ingest_endpoints"]:
        assert endpoint["protocol"] in ("RTMP", "RTMPS")
        assert endpoint["url_template"].endswith("/{stream_key}")
    for each in answer["encoder_configurations"]:
        assert isinstance(each["type"], str)
        assert all(type(each[field]) is int for field in ("width", "height"))
        assert type(each["canvas_index"]) is int
        assert isinstance(each["settings"], dict)
        if "framerate" in each:
            assert sorted(each["framerate"]) == ["denominator", "numerator"]
            assert all(type(value) is int for value in each["framerate"].values())
    tracks = answer["audio_configurations"]
    assert set(tracks) <= {"live", "vod"}
    for each in [*tracks["live"], *tracks.get("vod", [])]:
        assert sorted(each) == ["channels", "codec", "settings", "track_id"]
        assert type(each["track_id"]) is int
        assert type(each["channels"]) is int


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def factory(clock):
    return RTMPFactory(clock)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "offer.json"


@pytest.fixture
def ingests():
    return [("RTMP", 1935)]


@pytest.fixture
def log():
    lines = []

    def observe(event):
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def serve(clock, factory, path, ingests):
    """Make a site of what a file says."""

    def serving(offer=OFFER, origins=("*",), **fields):
        path.write_text(json.dumps({**offer, **fields}))
        site = HTTPSite(clock, factory, origins=origins)
        file = OfferFile(str(path))
        resource = MultitrackResource(factory, file, lambda: ingests, Origins(origins))
        site.root.putChild(b"multitrack-config", resource)
        return site

    return serving


def post(site, asked, **headers):
    body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    client = Getter(site, TARGET, "POST", body, **headers)
    client.leave()
    return client


def answered(site, asked, **headers):
    """What OBS is told, if that is no error."""
    client = post(site, asked, **headers)
    assert client.status == 200
    assert client.headers["content-type"] == "application/json"
    assert client.headers["cache-control"] == "no-store"
    answer = json.loads(client.body)
    assert "status" not in answer, answer["status"]
    assertOBSReads(answer)
    return answer


def refused(client, status=200):
    """What OBS shows to its user."""
    assert client.status == status
    assert client.headers["content-type"] == "application/json"
    answer = json.loads(client.body)
    assertOBSReads(answer)
    assert answer["status"]["result"] == "error"
    assert answer["encoder_configurations"] == []
    assert answer["ingest_endpoints"] == []
    return answer["status"]["html_en_us"]


def sizes(answer):
    return [(each["width"], each["height"]) for each in answer]


def rates(answer):
    return [
        (each["framerate"]["numerator"], each["framerate"]["denominator"])
        for each in answer
    ]


# What is answered


def test_answer(serve, log):
    answer = answered(serve(), request())
    name = answer["meta"].pop("config_id")
    assert len(name) == 32
    assert answer == {
        "meta": {"service": "IVS", "schema_version": "2025-01-25"},
        "ingest_endpoints": [
            {
                "protocol": "RTMP",
                "url_template": "rtmp://localhost/live/{stream_key}",
                "authentication": KEY,
            }
        ],
        "encoder_configurations": [
            {
                **each,
                "framerate": each.get("framerate") or rate(60),
                "gpu_scale_type": "OBS_SCALE_BICUBIC",
                "canvas_index": 0,
            }
            for each in OFFER["encoder_configurations"]
        ],
        "audio_configurations": {
            "live": [
                {
                    "codec": "aac",
                    "track_id": 1,
                    "channels": 2,
                    "settings": {"bitrate": 160},
                }
            ]
        },
    }
    (line,) = [line for line in log if "198.51.100.8" in line]
    assert line.endswith(
        f"gets a configuration of 3 video tracks, 1920x1080, 1280x720, 854x480: {name}"
    )
    assert not any(KEY in line for line in log)


def test_eachAnswerHasANameOfItsOwn(serve):
    site = serve()
    answers = [answered(site, request()) for _ in range(3)]
    assert len({answer["meta"]["config_id"] for answer in answers}) == 3


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2024-06-04", "2024-06-04"),
        ("2025-01-25", "2025-01-25"),
        ("2027-01-01", "2025-01-25"),
        (None, "2025-01-25"),
        (7, "2025-01-25"),
    ],
)
def test_versions(serve, version, expected):
    asked = {**request(), "schema_version": version}
    assert answered(serve(), asked)["meta"]["schema_version"] == expected


def test_anOldOBS(serve):
    answer = answered(serve(), oldRequest())
    assert answer["meta"]["schema_version"] == "2024-06-04"
    assert sizes(answer["encoder_configurations"]) == [(1280, 720), (854, 480)]
    assert rates(answer["encoder_configurations"]) == [(30, 1), (30, 1)]


def test_unknownFieldsOfANewerOBS(serve):
    asked = request(hdr="maybe", canvases=[{**canvas(), "color": 3}])
    asked["new"] = {"deep": [1, {"a": None}]}
    asked["client"]["supported_codecs"].append("av2")
    assert len(answered(serve(), asked)["encoder_configurations"]) == 3


@pytest.mark.parametrize(
    ("host", "ingests", "fields", "templates"),
    [
        ("localhost:8080", [("RTMP", 1936)], {}, ["rtmp://localhost:1936/live/"]),
        ("a.example", [("RTMPS", 443)], {}, ["rtmps://a.example/live/"]),
        ("[::1]:8080", [("RTMP", 1935)], {}, ["rtmp://[::1]/live/"]),
        (
            "a",
            [("RTMP", 1), ("RTMPS", 2)],
            {},
            ["rtmp://a:1/live/", "rtmps://a:2/live/"],
        ),
        (
            "a",
            [("RTMP", 1935)],
            {"host": "b.example", "application": "in/eu"},
            ["rtmp://b.example/in/eu/"],
        ),
        ("a", [("RTMP", 9)], {"host": "2001:db8::1"}, ["rtmp://[2001:db8::1]:9/live/"]),
        # What is no host is not repeated.
        ('x"><b>', [("RTMP", 1935)], {}, ["rtmp://192.0.2.1/live/"]),
        ('[fe80::1%"><b>]', [("RTMP", 1935)], {}, ["rtmp://192.0.2.1/live/"]),
        ("[fe80::1%eth0]", [("RTMP", 1935)], {}, ["rtmp://[fe80::1%eth0]/live/"]),
        ("", [("RTMP", 1935)], {}, ["rtmp://192.0.2.1/live/"]),
    ],
)
def test_whereToPublish(serve, host, ingests, fields, templates):
    answer = answered(serve(**fields), request(), host=host)
    found = [each["url_template"] for each in answer["ingest_endpoints"]]
    assert [each.removesuffix("{stream_key}") for each in found] == templates
    protocols = [each["protocol"].lower() for each in answer["ingest_endpoints"]]
    assert protocols == [each.partition(":")[0] for each in templates]


def test_theFileSaysWhereToPublish(serve, ingests):
    ingests.clear()
    endpoint = {
        "protocol": "RTMPS",
        "url_template": "rtmps://in.example:4430/app/{stream_key}",
    }
    answer = answered(serve(ingest_endpoints=[endpoint]), request())
    assert answer["ingest_endpoints"] == [{**endpoint, "authentication": KEY}]


def test_nowhereToPublish(serve, ingests):
    ingests.clear()
    assert "where it can be reached" in refused(post(serve(), request()))
    client = Getter(serve(), TARGET)
    client.leave()
    assert "where it can be reached" in refused(client, 503)


def test_theKeysQueryIsNoPartOfIt(serve):
    """OBS appends the query itself."""
    asked = {**request(), "authentication": KEY + "?bandwidthtest=true"}
    answer = answered(serve(), asked)
    assert answer["ingest_endpoints"][0]["authentication"] == KEY


# What suits an encoder


def offered(wishes, **fields):
    return Offer.parse({**OFFER, **fields}).videoFor(wishes)


def wishesFor(*canvases, **fields):
    """Wishes of who has canvases of (width, height, numerator, denominator)."""
    return Wishes(
        tuple(Canvas(w, h, FrameRate(*fps)) for w, h, *fps in canvases), **fields
    )


FULL_HD = (1920, 1080, 60, 1)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1920, 1080, [(1920, 1080), (1280, 720), (854, 480)]),
        (3840, 2160, [(1920, 1080), (1280, 720), (854, 480)]),
        # As large as the canvas, in the settings of what was larger.
        (1600, 900, [(1600, 900), (1280, 720), (854, 480)]),
        (1280, 720, [(1280, 720), (854, 480)]),
        (640, 360, [(640, 360)]),
        # Other proportions: nothing is distorted.
        (1440, 1080, [(1440, 1080), (960, 720), (640, 480)]),
        (2560, 1080, [(1920, 810), (1280, 540), (854, 360)]),
        (1080, 1920, [(1080, 1920), (720, 1280), (480, 854)]),
        (1000, 1000, [(1000, 1000), (720, 720), (480, 480)]),
        (853, 479, [(852, 478)]),
        (16384, 2, [(1920, 2), (1280, 2), (854, 2)]),
    ],
)
def test_nothingIsLargerThanTheCanvas(width, height, expected):
    assert sizes(offered(wishesFor((width, height, 60, 1)))) == expected


@pytest.mark.parametrize(
    ("canvas", "wanted", "expected"),
    [
        ((60, 1), (60, 1), (60, 1)),
        ((60, 1), (30, 1), (30, 1)),
        ((30, 1), (60, 1), (30, 1)),
        ((60, 1), None, (60, 1)),
        # OBS itself would make 50 frames of these, 59.94 and 60.
        ((50, 1), (30, 1), (50, 2)),
        ((60000, 1001), (30, 1), (60000, 2002)),
        ((60, 1), (48, 1), (60, 2)),
        ((60, 1), (25, 1), (60, 3)),
        ((60000, 1001), (30000, 1001), (30000, 1001)),
        ((144, 1), (60, 1), (144, 3)),
    ],
)
def test_frameRates(canvas, wanted, expected):
    only = video(640, 360, 500, framerate=wanted and rate(*wanted))
    answer = offered(wishesFor((1920, 1080, *canvas)), encoder_configurations=[only])
    assert rates(answer) == [expected]
    # What OBS makes of it: whole divisions of what it has.
    divisor = (canvas[0] * expected[1]) // (expected[0] * canvas[1])
    kept = canvas[0] / canvas[1] / max(1, divisor)
    assert kept <= max(wanted[0] / wanted[1], 0) if wanted else kept == 60
    assert kept == pytest.approx(expected[0] / expected[1])


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, [6000, 3000, 1000]),
        (10160, [6000, 3000, 1000]),
        (10159, [6000, 3000]),
        (7200, [6000, 1000]),
        (6000, [3000, 1000]),
        (1160, [1000]),
    ],
)
@pytest.mark.parametrize("whose", ["encoder", "server", "both"])
def test_bitrates(limit, expected, whose):
    wishes = wishesFor(FULL_HD, bitrate=None if whose == "server" else limit)
    fields = {}
    if whose != "encoder" and limit is not None:
        fields["maximum_aggregate_bitrate"] = limit
    answer = offered(wishes, **fields)
    assert [each["settings"]["bitrate"] for each in answer] == expected


@pytest.mark.parametrize("limit", [0, 1159])
def test_tooLittleForAnything(serve, limit):
    asked = request(maximum_aggregate_bitrate=limit)
    assert refused(post(serve(), asked)) == (
        f"The limit of {limit} kbit/s is too low: the smallest video track and the"
        " audio take 1160 kbit/s."
    )


@pytest.mark.parametrize(
    ("vod", "expected"), [(None, 4160 + 160), ([audio(320), audio(64)], 4160 + 384)]
)
def test_audioForRecordingsCounts(vod, expected):
    tracks = {"live": [audio(160)], "vod": vod}
    for limit, bitrates in ((expected, [3000, 1000]), (expected - 1, [3000])):
        wishes = wishesFor(FULL_HD, bitrate=limit, vodTrack=True)
        answer = offered(wishes, audio_configurations=tracks)
        assert [each["settings"]["bitrate"] for each in answer] == bitrates


def test_theLowerLimitHolds():
    wishes = wishesFor(FULL_HD, bitrate=20_000, videoTracks=2)
    limits = {"maximum_aggregate_bitrate": 7200, "maximum_video_tracks": 5}
    answer = offered(wishes, **limits)
    assert [each["settings"]["bitrate"] for each in answer] == [6000, 1000]


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [(None, None, 3), (2, None, 2), (9, 2, 2), (1, 2, 1), (4_000_000_000, None, 3)],
)
def test_videoTracks(theirs, ours, expected):
    fields = {} if ours is None else {"maximum_video_tracks": ours}
    answer = offered(wishesFor(FULL_HD, videoTracks=theirs), **fields)
    assert sizes(answer) == [(1920, 1080), (1280, 720), (854, 480)][:expected]


def test_noVideoTrackAtAll(serve):
    text = refused(post(serve(), request(maximum_video_tracks=0)))
    assert "no video track" in text


def test_OBSHasTenVideoEncoders():
    many = [video(100 + 2 * n, 100, 100) for n in range(20)]
    assert len(offered(wishesFor(FULL_HD), encoder_configurations=many)) == 10


TYPES = [
    "obs_nvenc_h264_tex",
    "h264_texture_amf",
    "ffmpeg_vaapi_tex",
    "com.apple.videotoolbox.videoencoder.ave.avc",
    "obs_x264",
]
AV1 = ["obs_nvenc_av1_tex", "obs_x264"]


@pytest.mark.parametrize(
    ("types", "codecs", "vendors", "system", "expected"),
    [
        (TYPES, {"h264"}, {0x10DE}, "Windows", 0),
        (TYPES, {"h264"}, {0x10DE, 0x8086}, "Linux", 0),
        (TYPES, {"h264"}, {0x1002, 0x8086}, "Windows", 1),
        (TYPES, {"h264"}, {0x1002}, "Linux", 2),
        (TYPES, {"h264"}, {0x106B}, "macOS", 3),
        (TYPES, {"h264"}, {0x8086}, "Windows", 4),
        (TYPES, {"h264"}, set(), "Windows", 4),
        # Not told: software, if there is some, and otherwise what may be there.
        (TYPES, {"h264"}, None, "Windows", 4),
        (TYPES, {"h264"}, {0x10DE}, None, 4),
        (TYPES[:4], {"h264"}, None, None, 0),
        (TYPES[:4], {"h264"}, None, "macOS", 3),
        (TYPES[:4], {"h264"}, {0x1002}, None, 1),
        (AV1, {"h264"}, {0x10DE}, "Windows", 1),
        (AV1, {"av1"}, {0x10DE}, "Windows", 0),
    ],
)
def test_encoders(types, codecs, vendors, system, expected):
    wishes = wishesFor(
        FULL_HD,
        codecs=frozenset(codecs),
        vendors=None if vendors is None else frozenset(vendors),
        system=system,
    )
    only = video(640, 360, 500, type=types)
    (answer,) = offered(wishes, encoder_configurations=[only])
    assert answer["type"] == types[expected]


@pytest.mark.parametrize(
    ("told", "system"),
    [
        ({"name": "Windows"}, "Windows"),
        ({"name": "macOS"}, "macOS"),
        ({"name": "Debian GNU/Linux"}, "Linux"),
        ({}, None),
        (None, None),
        ("Windows", None),
    ],
)
def test_systems(told, system):
    asked = request()
    asked["capabilities"]["system"] = told
    assert Wishes.parse(asked).system == system


@pytest.mark.parametrize(
    ("told", "vendors"),
    [
        ([{"vendor_id": 4318}, {"vendor_id": 32902}], {0x10DE, 0x8086}),
        ([{"model": "unknown"}, 7], set()),
        ([], set()),
        (None, None),
        ({}, None),
    ],
)
def test_graphicsCards(told, vendors):
    asked = request()
    asked["capabilities"]["gpu"] = told
    assert Wishes.parse(asked).vendors == vendors


def test_whatAnEncoderCannotDoIsLeftOut(serve):
    both = [
        video(1920, 1080, 5000, type="obs_qsv11_av1"),
        video(1920, 1080, 8000, type="obs_nvenc_h264_tex"),
        video(1280, 720, 3000, type="com.apple.videotoolbox.videoencoder.ave.avc"),
        video(640, 360, 500, type="some_av1", codec="av1"),
    ]
    answer = answered(serve(encoder_configurations=both), request())
    types = [each["type"] for each in answer["encoder_configurations"]]
    assert types == ["obs_nvenc_h264_tex", "some_av1"]


def test_noEncoderSuits(serve):
    asked = request()
    asked["client"]["supported_codecs"] = ["h264"]
    only = [
        video(640, 360, 500, type="obs_nvenc_av1_tex"),
        video(640, 360, 500, type="obs_qsv11_v2"),
    ]
    assert refused(post(serve(encoder_configurations=only), asked)) == (
        "This encoder has none of what the server takes: obs_nvenc_av1_tex,"
        " obs_qsv11_v2."
    )


def test_whoTellsNoCodecsHasH264(serve):
    asked = request()
    del asked["client"], asked["capabilities"]
    two = [video(640, 360, 500), video(640, 360, 400, type="ffmpeg_svt_av1")]
    answer = answered(serve(encoder_configurations=two), asked)
    types = [each["type"] for each in answer["encoder_configurations"]]
    assert types == ["obs_x264"]


def test_canvases(serve):
    """The second canvas stands upright, and only some encoders have one."""
    both = [*OFFER["encoder_configurations"], video(720, 1280, 2500, canvas_index=1)]
    site = serve(encoder_configurations=both)
    answer = answered(site, request())["encoder_configurations"]
    assert [each["canvas_index"] for each in answer] == [0, 0, 0]
    two = [canvas(), canvas(1080, 1920, rate(30))]
    answer = answered(site, request(canvases=two))["encoder_configurations"]
    assert [each["canvas_index"] for each in answer] == [0, 0, 0, 1]
    assert sizes(answer)[-1] == (720, 1280)
    assert rates(answer)[-1] == (30, 1)


@pytest.mark.parametrize(
    ("wanted", "vod", "expected"),
    [
        (False, None, None),
        (False, [audio(320)], None),
        (True, [audio(320), audio(64)], [(2, 320), (3, 64)]),
        # OBS would not begin without: the same once more.
        (True, None, [(2, 160)]),
    ],
)
def test_audioForRecordings(serve, wanted, vod, expected):
    tracks = {"live": [audio(160)], "vod": vod}
    site = serve(audio_configurations=tracks)
    answer = answered(site, request(vod_track_audio=wanted))["audio_configurations"]
    assert [each["track_id"] for each in answer["live"]] == [1]
    if expected is None:
        assert "vod" not in answer
    else:
        found = [(e["track_id"], e["settings"]["bitrate"]) for e in answer["vod"]]
        assert found == expected


@pytest.mark.parametrize(("written", "expected"), [(None, 6), (2, 2), (8, 8)])
def test_channels(serve, written, expected):
    """Unless the file says otherwise, as many as the encoder has."""
    site = serve(audio_configurations={"live": [audio(160, channels=written)]})
    answer = answered(site, request(audio_channels=6))
    assert answer["audio_configurations"]["live"][0]["channels"] == expected


def test_whatElseOBSCanBeTold(serve):
    extra = {
        "gpu_scale_type": "OBS_SCALE_LANCZOS",
        "colorspace": "VIDEO_CS_709",
        "range": "VIDEO_RANGE_PARTIAL",
        "format": "VIDEO_FORMAT_NV12",
        "bitrate_interpolation_points": [0, 100, 500],
    }
    only = video(1920, 1080, 6000, **extra)
    answer = answered(serve(encoder_configurations=[only]), request())
    (found,) = answer["encoder_configurations"]
    assert {field: found[field] for field in extra} == extra


# Who is answered


def test_onlyWhoMayPublishIsAnswered(serve, factory, log):
    factory.authorizer = AllowList(["live"], {KEY: "stage"})
    site = serve()
    answered(site, request())
    answered(site, {**request(), "authentication": KEY + "?bandwidthtest=true"})
    before = factory.counters.refused
    wrong = post(site, {**request(), "authentication": "guessed-key"})
    assert refused(wrong) == "The stream key is not valid."
    assert factory.counters.refused == before + 1
    assert "guessed" not in wrong.text
    assert any("gets no multitrack configuration: The stream key" in s for s in log)
    assert not any(KEY in line or "guessed" in line for line in log)


def test_aKeyThatIsNoText(serve, factory):
    """JSON has halves of characters that no encoding has."""
    factory.authorizer = AllowList(["live"], [KEY])
    assert refused(post(serve(), {**request(), "authentication": "\ud800"}))
    site = serve(check_stream_key=False)
    answer = answered(site, {**request(), "authentication": "\ud800"})
    assert answer["ingest_endpoints"][0]["authentication"] == "\ud800"


def test_theApplicationCounts(serve, factory):
    factory.authorizer = AllowList(["live"])
    site = serve(application="other")
    assert refused(post(site, request())) == "There is no such application."


def test_theKeyNeedNotBeChecked(serve, factory):
    factory.authorizer = AllowList(["live"], [KEY])
    site = serve(check_stream_key=False)
    answered(site, {**request(), "authentication": "other"})


@implementer(IAuthorizer)
class Slow:
    """Decides when it is told to, and keeps what it was asked."""

    def __init__(self):
        self.decision = Deferred(lambda _: self.cancelled())
        self.asked = []
        self.cancellations = 0

    def cancelled(self):
        self.cancellations += 1

    def connect(self, request):
        self.asked.append(request)

    def publish(self, request):
        self.asked.append(request)
        return self.decision

    def play(self, request):
        raise AssertionError("nobody plays")


def ask(site, key=KEY):
    body = json.dumps({**request(), "authentication": key}).encode()
    return Getter(site, TARGET, "POST", body, user_agent="obs-basic 32.2.2")


def test_whatTheAuthorizerIsAsked(serve, factory):
    factory.authorizer = slow = Slow()
    client = ask(serve(), KEY + "?user=me")
    connect, publish = slow.asked
    assert (connect.application, connect.query) == ("live", "")
    assert connect.address.host == "198.51.100.8"
    assert connect.properties == {
        "app": "live",
        "tcUrl": "http://localhost:8080/live",
        "flashVer": "obs-basic 32.2.2",
    }
    assert (publish.application, publish.name) == ("live", KEY)
    assert publish.query == "user=me"
    assert publish.address is connect.address
    assert publish.connect is connect
    assert client.status == 0
    slow.decision.callback("stage")
    client.leave()
    assert client.status == 200
    assert len(json.loads(client.body)["encoder_configurations"]) == 3


def test_refusedLater(serve, factory):
    factory.authorizer = slow = Slow()
    client = ask(serve())
    slow.decision.errback(Refused("Not <b>today</b> & not tomorrow."))
    client.leave()
    expected = "Not &lt;b&gt;today&lt;/b&gt; &amp; not tomorrow."
    assert refused(client) == expected


def test_noDecisionInTime(serve, factory, clock):
    factory.authorizer = slow = Slow()
    client = ask(serve())
    clock.advance(DECISION_SECONDS - 0.1)
    client.pump()
    assert client.status == 0
    clock.advance(0.2)
    client.leave()
    assert slow.cancellations == 1
    assert refused(client) == "The server could not decide in time."


def test_goneBeforeTheDecision(serve, factory, clock):
    """Nobody is answered, and nothing is left running."""
    factory.authorizer = slow = Slow()
    client = ask(serve())
    client.leave()
    assert slow.cancellations == 1
    assert client.status == 0
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize(
    "decide",
    [
        lambda decision: decision.callback(None),
        lambda decision: decision.errback(Refused("There was no time.")),
    ],
    ids=["it may", "it may not"],
)
def test_anAuthorizerThatDecidesWhenItIsCancelled(serve, factory, log, decide):
    factory.authorizer = slow = Slow()
    slow.decision = Deferred(decide)
    client = ask(serve())
    client.leave()
    assert client.status == 0
    assert factory.counters.refused == 0
    assert not any("configuration" in line for line in log)


def test_theServerStopsBeforeTheDecision(serve, factory, clock):
    factory.authorizer = slow = Slow()
    client = ask(serve())
    client.protocol.close()
    assert not client.open
    client.leave()
    assert slow.cancellations == 1
    assert client.status == 0
    assert not clock.getDelayedCalls()


def test_anAuthorizersBug(serve, factory, loggedFailures):
    factory.authorizer = slow = Slow()
    client = ask(serve())
    slow.decision.errback(ZeroDivisionError())
    client.leave()
    assert refused(client) == "The server could not decide."
    assert len(loggedFailures.take(ZeroDivisionError)) == 1


# Requests that are none


def without(*path):
    """A request in which something is missing."""
    asked = request()
    *parents, last = path
    inner = asked
    for parent in parents:
        inner = inner[parent]
    del inner[last]
    return asked


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (without("authentication"), "authentication: is missing"),
        ({**request(), "authentication": ""}, "authentication: this is a text"),
        ({**request(), "authentication": ["k"]}, "authentication: this is a text"),
        (without("preferences"), "preferences: is missing"),
        ({**request(), "preferences": 3}, "preferences: this is an object"),
        ({**request(), "client": []}, "client: this is an object"),
        (without("preferences", "canvases"), "preferences.width: is missing"),
        (request(canvases=[]), "preferences.canvases: this has one canvas or more"),
        (request(canvases=[7]), "preferences.canvases[0]: this is an object"),
        (
            request(canvases=[canvas(), {**canvas(), "height": 0}]),
            "preferences.canvases[1].height: this is a whole number, 2 to 16384",
        ),
        (
            request(canvases=[{**canvas(), "framerate": rate(60, 0)}]),
            "preferences.canvases[0].framerate.denominator: this is a whole number",
        ),
        (
            request(canvases=[{**canvas(), "width": 1920.5}]),
            "preferences.canvases[0].width: this is a whole number, 2 to 16384",
        ),
        (
            request(maximum_video_tracks=-1),
            "preferences.maximum_video_tracks: this is a whole number, 0 to 4294967295",
        ),
        (
            request(vod_track_audio="yes"),
            "preferences.vod_track_audio: this is true or false",
        ),
        ([], "this is an object"),
        ("text", "this is an object"),
    ],
)
def test_badRequests(serve, asked, problem):
    """With status 200: OBS shows the text of no other."""
    text = refused(post(serve(), asked))
    assert text.startswith("The server cannot read this request: " + problem)
    assert KEY not in text


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{", "not JSON: Expecting property name enclosed in double quotes"),
        (b"key=value", "not JSON: Expecting value, line 1 column 1"),
        (b"\xff\xfe\xfd", "not UTF-8"),
        (b'{"a": NaN}', "not JSON: NaN"),
        (b'{"a": 1, "a": 2}', "&quot;a&quot; stands twice in an object"),
        (b"[" * 60_000, "not JSON"),
        (b"9" * 5_000, "not JSON that anyone means: a number is too long"),
    ],
)
def test_noJSON(serve, body, problem):
    assert problem in refused(post(serve(), body), 400)


class Compared(str):
    """A name that counts how often it is compared."""

    __slots__ = ()
    count = 0

    def __eq__(self, other: object) -> bool:
        Compared.count += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_manyNames():
    """A body of 64 KiB has 8,000 names: to compare all of them took a second."""
    names = [Compared(number) for number in range(1000)]
    with pytest.raises(BadField, match='"999" stands twice'):
        uniqueNames([(name, None) for name in [*names, Compared("999")]])
    assert Compared.count < 2 * len(names)


def test_noBody(serve):
    assert "not JSON" in refused(post(serve(), b""), 400)


def test_aBodyThatIsTooLarge(serve, factory):
    client = post(serve(), json.dumps(request()).encode() + b" " * 70_000)
    assert client.status == 413
    assert factory.counters.violations == 1


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_otherMethods(serve, method):
    client = Getter(serve(), TARGET, method)
    client.leave()
    assert client.status == 405
    assert client.headers["allow"] == "GET, HEAD, POST, OPTIONS"


def test_otherOrigins(serve):
    site = serve(origins=["https://a.example"])
    client = post(site, request(), origin="https://a.example")
    assert client.headers["access-control-allow-origin"] == "https://a.example"
    client = post(site, request(), origin="https://b.example")
    assert "access-control-allow-origin" not in client.headers
    client = Getter(serve(), TARGET, "OPTIONS", origin="https://b.example")
    client.leave()
    assert client.status == 204
    assert client.headers["access-control-allow-origin"] == "*"
    assert "POST" in client.headers["access-control-allow-methods"]


def test_aConnectionCanBeUsedAgain(serve):
    site = serve()
    one = Getter(site, TARGET, "POST", json.dumps(request()).encode())
    assert one.complete
    assert one.open
    one.leave()


# What is for people


def test_everything(serve):
    """Without an encoder: all there is, to be pasted into OBS."""
    tracks = {"live": [audio(160)], "vod": [audio(320, channels=1)]}
    client = Getter(serve(audio_configurations=tracks), TARGET)
    client.leave()
    assert client.status == 200
    answer = json.loads(client.body)
    assertOBSReads(answer)
    # OBS appends no empty id to the key.
    assert answer["meta"]["config_id"] == ""
    assert "authentication" not in answer["ingest_endpoints"][0]
    found = answer["encoder_configurations"]
    assert sizes(found) == [(1920, 1080), (1280, 720), (854, 480)]
    assert ["framerate" in each for each in found] == [False, True, True]
    assert [each["track_id"] for each in answer["audio_configurations"]["vod"]] == [2]
    assert answer["audio_configurations"]["vod"][0]["channels"] == 1


def test_head(serve, log):
    """The address, which may have a key, is not logged."""
    shown = Getter(serve(), TARGET)
    shown.leave()
    client = Getter(serve(), TARGET + "?key=" + KEY, "HEAD")
    client.leave()
    assert client.status == 200
    assert client.headers["content-length"] == str(len(shown.body))
    assert client.body == b""
    assert not any(KEY in line for line in log)


def test_streamsAreWhereTheyWere(serve):
    client = Getter(serve(), "/live/none.flv", "HEAD")
    client.leave()
    assert client.status == 404


# The file


def test_theFileIsReadAgain(serve, path, log):
    site = serve()
    assert len(answered(site, request())["encoder_configurations"]) == 3
    path.write_text(json.dumps({**OFFER, "maximum_video_tracks": 1}))
    os.utime(path, ns=(1, 1))
    assert len(answered(site, request())["encoder_configurations"]) == 1
    # It is wrong, and then it is gone: what it said stays, and is told once.
    path.write_text("{")
    for _ in range(2):
        assert len(answered(site, request())["encoder_configurations"]) == 1
    (line,) = [line for line in log if "has changed and is not right" in line]
    assert "not JSON" in line
    path.unlink()
    for _ in range(2):
        assert len(answered(site, request())["encoder_configurations"]) == 1
    assert len([line for line in log if "has changed and is not right" in line]) == 2
    path.write_text(json.dumps(OFFER))
    assert len(answered(site, request())["encoder_configurations"]) == 3


def changed(value, *path):
    """The offer with another value in it; of L{None}, without one."""
    offer = deepcopy(OFFER)
    *parents, last = path
    inner = offer
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return offer


ENCODERS, AUDIO = "encoder_configurations", "audio_configurations"
FIRST = (ENCODERS, 0)
WRONG = [
    ([], "this is an object"),
    (changed(None, ENCODERS), "encoder_configurations: is missing"),
    (changed({}, ENCODERS), "encoder_configurations: this is a list"),
    (changed([], ENCODERS), "encoder_configurations: this has 1 to 100 of them"),
    (
        changed([video(2, 2, 1)] * (MAX_CONFIGURATIONS + 1), ENCODERS),
        "encoder_configurations: this has 1 to 100 of them",
    ),
    (changed(1, *FIRST), "encoder_configurations[0]: this is an object"),
    (changed(None, ENCODERS, 1, "type"), "encoder_configurations[1].type: is missing"),
    (changed([], *FIRST, "type"), "encoder_configurations[0].type: this is one text"),
    (changed(["obs_x264", 7], *FIRST, "type"), "encoder_configurations[0].type[1]: "),
    (
        changed("obs_x265", *FIRST, "type"),
        'encoder_configurations[0].codec: is missing: "obs_x265" is not known here',
    ),
    (changed("vp9", *FIRST, "codec"), "encoder_configurations[0].codec: this is one"),
    (
        changed("av1", *FIRST, "codec"),
        'encoder_configurations[0].codec: "obs_x264" makes h264',
    ),
    (changed("1920", *FIRST, "width"), "encoder_configurations[0].width: this is a"),
    (changed(0, *FIRST, "height"), "encoder_configurations[0].height: this is a"),
    (changed(True, *FIRST, "height"), "encoder_configurations[0].height: this is a"),
    (
        changed(60, *FIRST, "framerate"),
        "encoder_configurations[0].framerate: this is an object",
    ),
    (
        changed({"numerator": 60}, *FIRST, "framerate"),
        "encoder_configurations[0].framerate.denominator: is missing",
    ),
    (
        changed(None, *FIRST, "settings"),
        "encoder_configurations[0].settings: is missing",
    ),
    (
        changed({}, *FIRST, "settings"),
        "encoder_configurations[0].settings.bitrate: is missing",
    ),
    (
        changed("6M", *FIRST, "settings", "bitrate"),
        "encoder_configurations[0].settings.bitrate: this is a whole number",
    ),
    (
        changed(10, *FIRST, "canvas_index"),
        "encoder_configurations[0].canvas_index: this is a whole number, 0 to 9",
    ),
    (
        changed(True, *FIRST, "canvas_index"),
        "encoder_configurations[0].canvas_index: this is a whole number, 0 to 9",
    ),
    (
        changed("bicubic", *FIRST, "gpu_scale_type"),
        "encoder_configurations[0].gpu_scale_type: this is one of OBS_SCALE_DISABLE,",
    ),
    (
        changed("HDR", *FIRST, "colorspace"),
        "encoder_configurations[0].colorspace: this is one of VIDEO_CS_DEFAULT,",
    ),
    (
        changed(3000, *FIRST, "bitrate"),
        "encoder_configurations[0].bitrate: there is no such field",
    ),
    (changed(None, AUDIO), "audio_configurations: is missing"),
    (changed(None, AUDIO, "live"), "audio_configurations.live: is missing"),
    (changed([], AUDIO, "live"), "audio_configurations.live: this has 1 to 6"),
    (changed([1], AUDIO, "vod"), "audio_configurations.vod[0]: this is an object"),
    (changed([audio(1)] * 4, AUDIO, "live"), "audio_configurations: live and vod"),
    (
        changed([audio(1, channels=9)], AUDIO, "live"),
        "audio_configurations.live[0].channels: this is a whole number, 1 to 8",
    ),
    (changed([], AUDIO, "vods"), "audio_configurations.vods: there is no such field"),
    (changed(0, "maximum_aggregate_bitrate"), "maximum_aggregate_bitrate: this is a"),
    (changed(11, "maximum_video_tracks"), "maximum_video_tracks: this is a whole"),
    (changed(1, "check_stream_key"), "check_stream_key: this is true or false"),
    (changed("a:1935", "host"), "host: this is a name or an address, without a port"),
    (changed("", "application"), "application: this is a text"),
    (changed("a b", "application"), "application: this is the name of an application"),
    (changed(1, "maximum_bitrate"), "maximum_bitrate: there is no such field"),
    (
        changed([{"protocol": "SRT", "url_template": "x"}], "ingest_endpoints"),
        "ingest_endpoints[0].protocol: this is one of RTMP, RTMPS",
    ),
    (
        changed(
            [{"protocol": "RTMP", "url_template": "rtmp://a/live"}], "ingest_endpoints"
        ),
        "ingest_endpoints[0].url_template: this is like rtmp://HOST/APPLICATION/{str",
    ),
    (
        changed(
            [{"protocol": "RTMPS", "url_template": "rtmp://a/live/{stream_key}"}],
            "ingest_endpoints",
        ),
        "ingest_endpoints[0].url_template: this is like rtmps://",
    ),
    (
        {
            **changed("a", "host"),
            "ingest_endpoints": [
                {"protocol": "RTMP", "url_template": "rtmp://a/live/{stream_key}"}
            ],
        },
        "host: ingest_endpoints say that already",
    ),
]


def parse(*arguments):
    options = Options()
    options.parseOptions(["--no-record", *arguments])
    return options


@pytest.mark.parametrize(("offer", "message"), WRONG)
def test_wrongFiles(path, offer, message):
    """One line, which names the field."""
    path.write_text(json.dumps(offer))
    with pytest.raises(UsageError) as caught:
        parse("--http", "0", "--multitrack-config", str(path))
    said = str(caught.value)
    assert said.startswith(f"--multitrack-config {str(path)!r}: {message}")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{\n  nonsense", "not JSON: Expecting property name"),
        (b'{"host": "\xff"}', "not UTF-8"),
        (b" " * (MAX_FILE + 1), "it has more than 1048576 bytes"),
    ],
)
def test_noJSONInTheFile(path, text, message):
    path.write_bytes(text)
    with pytest.raises(UsageError) as caught:
        parse("--http", "0", "--multitrack-config", str(path))
    assert f": {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_noFile(path):
    with pytest.raises(UsageError, match=r"offer\.json': No such file or directory\."):
        parse("--http", "0", "--multitrack-config", str(path))


def test_theOptionNeedsHTTP(path):
    path.write_text(json.dumps(OFFER))
    with pytest.raises(UsageError, match=r"^--multitrack-config: where\?"):
        parse("--multitrack-config", str(path))


def test_theOptionNeedsSomewhereToPublish(path):
    path.write_text(json.dumps(OFFER))
    arguments = ["--http", "0", "--multitrack-config", str(path)]
    with pytest.raises(UsageError, match="ingest_endpoints: is missing"):
        parse("--listen", "unix:rtmp.sock", *arguments)
    endpoint = {"protocol": "RTMP", "url_template": "rtmp://a/live/{stream_key}"}
    path.write_text(json.dumps({**OFFER, "ingest_endpoints": [endpoint]}))
    assert parse("--listen", "unix:rtmp.sock", *arguments)["multitrack-config"]


def test_theServiceHasIt(path, monkeypatch, tmp_path):
    path.write_text(json.dumps(OFFER))
    monkeypatch.chdir(tmp_path)
    options = parse("--http", "unix:h", "--multitrack-config", "offer.json")
    monkeypatch.chdir("/")
    service = makeService(options)
    (server,) = (part for part in service if isinstance(part, RTMPService))
    site = server._listeners[-1].factory
    assert "where it can be reached" in refused(post(site, request()))
    server.ingests.append(("RTMP", 1936))
    answer = answered(site, request())
    template = answer["ingest_endpoints"][0]["url_template"]
    assert template == "rtmp://localhost:1936/live/{stream_key}"


def test_withoutTheOptionThereIsNothing(clock, factory):
    client = Getter(HTTPSite(clock, factory), TARGET)
    client.leave()
    assert client.status == 404


def test_whereEncodersCanPublish():
    """Each protocol and port once, and those of HTTP not at all."""
    reactor = MemoryReactorClock()
    factory = RTMPFactory(reactor)
    site = HTTPSite(reactor, factory)
    listeners = [
        Listener(text, endpointFromString(reactor, text), listened)
        for text, listened in (
            ("tcp:1935", None),
            ("tcp:1935:interface=127.0.0.1", None),
            ("tcp:1936", None),
            ("unix:socket", None),
            ("tcp:8080", site),
        )
    ]
    service = RTMPService(reactor, factory, listeners)
    assert service.ingests == []
    service.startService()
    assert service.ingests == [("RTMP", 1935), ("RTMP", 1936)]
    # What listens with TLS is known by its description.
    for description in ("ssl:443:privateKey=key.pem", "haproxy:ssl:443"):
        tls = [Listener(description, endpointFromString(reactor, "tcp:443"))]
        service = RTMPService(reactor, factory, tls)
        service.startService()
        assert service.ingests == [("RTMPS", 443)]


def test_theExampleOfTheDocumentation(path):
    text = (ROOT / "docs" / "obs-multitrack.md").read_text()
    blocks = re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (example,) = [block for block in blocks if '"encoder_configurations"' in block]
    path.write_text(example)
    offer = OfferFile(str(path)).offer
    found = offer.videoFor(wishesFor(FULL_HD, vendors=frozenset()))
    assert sizes(found) == [(1920, 1080), (1280, 720), (854, 480)]
    assert {each["type"] for each in found} == {"obs_x264"}
    nvidia = wishesFor(FULL_HD, vendors=frozenset({0x10DE}), system="Windows")
    types = {each["type"] for each in offer.videoFor(nvidia)}
    assert types == {"obs_nvenc_h264_tex"}
    # All the other JSON on that page is JSON, too.
    assert all(parseJSON(block) for block in blocks)
