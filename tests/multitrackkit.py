"""An offer of several tracks, and requests for it as OBS sends them."""

from __future__ import annotations

import json

from httpclient import Getter

from twisted_rtmp.multitrack.encoders import Canvas, EncoderRequest, FrameRate
from twisted_rtmp.multitrack.offers import Offer, OfferFile
from twisted_rtmp.multitrack.resource import MultitrackResource
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
    """Make a request as OBS 32 sends it."""
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
    """Make a request as OBS 30.2 to 31.0 sends it: one canvas, nothing of audio."""
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


def serving(clock, factory, path, ingests):
    """Give a function that makes a site with an offer."""

    def serve(offer=OFFER, origins=("*",), **fields):
        path.write_text(json.dumps({**offer, **fields}))
        site = HTTPSite(factory.registry, origins=origins)
        file = OfferFile(str(path))
        resource = MultitrackResource(
            factory.registry, file, lambda: ingests, Origins(origins)
        )
        site.root.putChild(b"multitrack-config", resource)
        return site

    return serve


def post(site, asked, **headers):
    body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    client = Getter(site, TARGET, "POST", body, **headers)
    client.leave()
    return client


def answered(site, asked, **headers):
    """Read OBS' answer, which must not be an error."""
    client = post(site, asked, **headers)
    assert client.status == 200
    assert client.headers["content-type"] == "application/json"
    assert client.headers["cache-control"] == "no-store"
    answer = json.loads(client.body)
    assert "status" not in answer, answer["status"]
    assertOBSReads(answer)
    return answer


def refused(client, status=200):
    """Read the text that OBS shows to its user."""
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


def offered(wishes, **fields):
    return Offer.parse({**OFFER, **fields}).videoFor(wishes)


def wishesFor(*canvases, **fields):
    """Make a request; a canvas is (width, height, numerator, denominator)."""
    return EncoderRequest(
        tuple(Canvas(w, h, FrameRate(*fps)) for w, h, *fps in canvases), **fields
    )


FULL_HD = (1920, 1080, 60, 1)

ENCODERS, AUDIO = "encoder_configurations", "audio_configurations"
