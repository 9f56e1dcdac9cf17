"""The offer to encoders of several tracks: sizes, rates, codecs."""

from __future__ import annotations

import pytest
from multitrackkit import (
    FULL_HD,
    OFFER,
    answered,
    audio,
    canvas,
    offered,
    post,
    rate,
    rates,
    refused,
    request,
    serving,
    sizes,
    video,
    wishesFor,
)

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.multitrack.encoders import EncoderRequest


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
def serve(clock, factory, path, ingests):
    return serving(clock, factory, path, ingests)


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
    assert EncoderRequest.parse(asked).system == system


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
    assert EncoderRequest.parse(asked).vendors == vendors


def test_tracksThatAnEncoderCannotMakeAreLeftOut(serve):
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
        "This encoder has none of the types that are needed: obs_nvenc_av1_tex,"
        " obs_qsv11_v2."
    )


def test_anEncoderThatTellsNoCodecsHasH264(serve):
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


def test_furtherFieldsForOBS(serve):
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
