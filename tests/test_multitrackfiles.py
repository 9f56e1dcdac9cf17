"""The file with the offer to encoders, and the option that names it."""

from __future__ import annotations

import json
import re
from copy import deepcopy

import pytest
from httpclient import Getter
from multitrackkit import (
    AUDIO,
    ENCODERS,
    FULL_HD,
    OFFER,
    TARGET,
    answered,
    audio,
    post,
    refused,
    request,
    sizes,
    video,
    wishesFor,
)
from serverprocess import ROOT
from tapkit import parse
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError

from twisted_rtmp.assembly import makeServer
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.fields import parseJSON
from twisted_rtmp.multitrack.offers import MAX_CONFIGURATIONS, MAX_FILE, OfferFile
from twisted_rtmp.service import Listener, RTMPService, endpointFromString
from twisted_rtmp.web import HTTPSite


@pytest.fixture
def factory(clock):
    return RTMPFactory(clock)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "offer.json"


def changed(value, *path):
    """Change a value in the offer; with L{None}, take it out."""
    offer = deepcopy(OFFER)
    *parents, last = path
    inner = offer
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return offer


FIRST = (ENCODERS, 0)

WRONG = [
    ([], "must be an object"),
    (changed(None, ENCODERS), "encoder_configurations: is missing"),
    (changed({}, ENCODERS), "encoder_configurations: must be a list"),
    (changed([], ENCODERS), "encoder_configurations: must have 1 to 100 items"),
    (
        changed([video(2, 2, 1)] * (MAX_CONFIGURATIONS + 1), ENCODERS),
        "encoder_configurations: must have 1 to 100 items",
    ),
    (changed(1, *FIRST), "encoder_configurations[0]: must be an object"),
    (changed(None, ENCODERS, 1, "type"), "encoder_configurations[1].type: is missing"),
    (
        changed([], *FIRST, "type"),
        "encoder_configurations[0].type: must have at least one text",
    ),
    (changed(["obs_x264", 7], *FIRST, "type"), "encoder_configurations[0].type[1]: "),
    (
        changed("obs_x265", *FIRST, "type"),
        'encoder_configurations[0].codec: is missing, and needed: "obs_x265"',
    ),
    (changed("vp9", *FIRST, "codec"), "encoder_configurations[0].codec: must be one"),
    (
        changed("av1", *FIRST, "codec"),
        'encoder_configurations[0].codec: must be h264 for "obs_x264"',
    ),
    (changed("1920", *FIRST, "width"), "encoder_configurations[0].width: must be a"),
    (changed(0, *FIRST, "height"), "encoder_configurations[0].height: must be a"),
    (changed(True, *FIRST, "height"), "encoder_configurations[0].height: must be a"),
    (
        changed(60, *FIRST, "framerate"),
        "encoder_configurations[0].framerate: must be an object",
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
        "encoder_configurations[0].settings.bitrate: must be a whole number",
    ),
    (
        changed(10, *FIRST, "canvas_index"),
        "encoder_configurations[0].canvas_index: must be a whole number from 0 to 9",
    ),
    (
        changed(True, *FIRST, "canvas_index"),
        "encoder_configurations[0].canvas_index: must be a whole number from 0 to 9",
    ),
    (
        changed("bicubic", *FIRST, "gpu_scale_type"),
        "encoder_configurations[0].gpu_scale_type: must be one of OBS_SCALE_DISABLE,",
    ),
    (
        changed("HDR", *FIRST, "colorspace"),
        "encoder_configurations[0].colorspace: must be one of VIDEO_CS_DEFAULT,",
    ),
    (
        changed(3000, *FIRST, "bitrate"),
        "encoder_configurations[0].bitrate: is not a known field",
    ),
    (changed(None, AUDIO), "audio_configurations: is missing"),
    (changed(None, AUDIO, "live"), "audio_configurations.live: is missing"),
    (changed([], AUDIO, "live"), "audio_configurations.live: must have 1 to 6"),
    (changed([1], AUDIO, "vod"), "audio_configurations.vod[0]: must be an object"),
    (
        changed([audio(1)] * 4, AUDIO, "live"),
        "audio_configurations: must have at most 6 tracks in live and vod",
    ),
    (
        changed([audio(1, channels=9)], AUDIO, "live"),
        "audio_configurations.live[0].channels: must be a whole number from 1 to 8",
    ),
    (changed([], AUDIO, "vods"), "audio_configurations.vods: is not a known field"),
    (changed(0, "maximum_aggregate_bitrate"), "maximum_aggregate_bitrate: must be a"),
    (changed(11, "maximum_video_tracks"), "maximum_video_tracks: must be a whole"),
    (changed(1, "check_stream_key"), "check_stream_key: must be true or false"),
    (changed("a:1935", "host"), "host: must be a name or an address, without a port"),
    (changed("", "application"), "application: must be a text that is not empty"),
    (changed("a b", "application"), "application: must be the name of an application"),
    (changed(1, "maximum_bitrate"), "maximum_bitrate: is not a known field"),
    (
        changed([{"protocol": "SRT", "url_template": "x"}], "ingest_endpoints"),
        "ingest_endpoints[0].protocol: must be one of RTMP, RTMPS",
    ),
    (
        changed(
            [{"protocol": "RTMP", "url_template": "rtmp://a/live"}], "ingest_endpoints"
        ),
        "ingest_endpoints[0].url_template: must be like rtmp://HOST/APPLICATION/{str",
    ),
    (
        changed(
            [{"protocol": "RTMPS", "url_template": "rtmp://a/live/{stream_key}"}],
            "ingest_endpoints",
        ),
        "ingest_endpoints[0].url_template: must be like rtmps://",
    ),
    (
        {
            **changed("a", "host"),
            "ingest_endpoints": [
                {"protocol": "RTMP", "url_template": "rtmp://a/live/{stream_key}"}
            ],
        },
        "host: must not stand beside ingest_endpoints",
    ),
]


@pytest.mark.parametrize(("offer", "message"), WRONG)
def test_wrongFiles(path, offer, message):
    """One line, which names the field."""
    path.write_text(json.dumps(offer))
    with pytest.raises(UsageError) as caught:
        parse("--no-record", "--http", "0", "--multitrack-config", str(path))
    said = str(caught.value)
    assert said.startswith(f"--multitrack-config {str(path)!r}: {message}")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{\n  nonsense", "not JSON: Expecting property name"),
        (b'{"host": "\xff"}', "not UTF-8"),
        (b" " * (MAX_FILE + 1), "must have at most 1048576 bytes"),
    ],
)
def test_noJSONInTheFile(path, text, message):
    path.write_bytes(text)
    with pytest.raises(UsageError) as caught:
        parse("--no-record", "--http", "0", "--multitrack-config", str(path))
    assert f": {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_aByteOrderMarkDoesNoHarm(path):
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(OFFER).encode())
    assert OfferFile(str(path)).offer.video


def test_noFile(path):
    with pytest.raises(UsageError, match=r"offer\.json': No such file or directory\."):
        parse("--no-record", "--http", "0", "--multitrack-config", str(path))


def test_theOptionNeedsHTTP(path):
    path.write_text(json.dumps(OFFER))
    with pytest.raises(UsageError, match=r"^--multitrack-config: must come with"):
        parse("--no-record", "--multitrack-config", str(path))


def test_theOptionNeedsSomewhereToPublish(path):
    path.write_text(json.dumps(OFFER))
    arguments = ["--http", "0", "--multitrack-config", str(path)]
    with pytest.raises(UsageError, match="ingest_endpoints: is missing"):
        parse("--no-record", "--listen", "unix:rtmp.sock", *arguments)
    endpoint = {"protocol": "RTMP", "url_template": "rtmp://a/live/{stream_key}"}
    path.write_text(json.dumps({**OFFER, "ingest_endpoints": [endpoint]}))
    assert parse(
        "--no-record", "--listen", "unix:rtmp.sock", *arguments
    ).http.multitrack


def test_theServiceHasIt(path, monkeypatch, tmp_path):
    path.write_text(json.dumps(OFFER))
    monkeypatch.chdir(tmp_path)
    settings = parse(
        "--no-record", "--http", "unix:h", "--multitrack-config", "offer.json"
    )
    monkeypatch.chdir("/")
    server = makeServer(settings, MemoryReactorClock())
    site = server.listeners[-1].factory
    assert "where it can be reached" in refused(post(site, request()))
    server.ingests.append(("RTMP", 1936))
    answer = answered(site, request())
    template = answer["ingest_endpoints"][0]["url_template"]
    assert template == "rtmp://localhost:1936/live/{stream_key}"


def test_withoutTheOptionThereIsNoResource(clock, factory):
    client = Getter(HTTPSite(factory.registry), TARGET)
    client.leave()
    assert client.status == 404


def test_whereEncodersCanPublish():
    """Each protocol and port once, and those of HTTP not at all."""
    reactor = MemoryReactorClock()
    factory = RTMPFactory(reactor)
    site = HTTPSite(factory.registry)
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
