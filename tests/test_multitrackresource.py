"""The configuration service: its answers, and those who get none."""

from __future__ import annotations

import json
import os

import pytest
from httpclient import Getter
from multitrackkit import (
    KEY,
    OFFER,
    TARGET,
    answered,
    assertOBSReads,
    audio,
    canvas,
    oldRequest,
    post,
    rate,
    rates,
    refused,
    request,
    serving,
    sizes,
)
from rtmpclient import decideBy
from twisted.internet.defer import Deferred
from zope.interface import implementer

from twisted_rtmp.auth import AllowList
from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.fields import BadField, uniqueNames
from twisted_rtmp.interfaces import IAuthorizer, Refused
from twisted_rtmp.multitrack.resource import DECISION_SECONDS


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


def test_answer(serve, lines):
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
    (line,) = [line for line in lines if "198.51.100.8" in line]
    assert line.endswith(
        f"gets a configuration of 3 video tracks, 1920x1080, 1280x720, 854x480: {name}"
    )
    assert not any(KEY in line for line in lines)


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


# Who is answered


def test_onlyThoseThatMayPublishGetAnAnswer(serve, factory, lines):
    decideBy(factory, AllowList(["live"], {KEY: "stage"}))
    site = serve()
    answered(site, request())
    answered(site, {**request(), "authentication": KEY + "?bandwidthtest=true"})
    before = factory.counters.refused
    wrong = post(site, {**request(), "authentication": "guessed-key"})
    assert refused(wrong) == "The stream key is not valid."
    assert factory.counters.refused == before + 1
    assert "guessed" not in wrong.text
    assert any("gets no multitrack configuration: The stream key" in s for s in lines)
    assert not any(KEY in line or "guessed" in line for line in lines)


def test_aKeyThatIsNoText(serve, factory):
    """JSON has halves of characters that no encoding has."""
    decideBy(factory, AllowList(["live"], [KEY]))
    assert refused(post(serve(), {**request(), "authentication": "\ud800"}))
    site = serve(check_stream_key=False)
    answer = answered(site, {**request(), "authentication": "\ud800"})
    assert answer["ingest_endpoints"][0]["authentication"] == "\ud800"


def test_theApplicationCounts(serve, factory):
    decideBy(factory, AllowList(["live"]))
    site = serve(application="other")
    assert refused(post(site, request())) == "There is no such application."


def test_theKeyNeedNotBeChecked(serve, factory):
    decideBy(factory, AllowList(["live"], [KEY]))
    site = serve(check_stream_key=False)
    answered(site, {**request(), "authentication": "other"})


@implementer(IAuthorizer)
class Slow:
    """An authorizer that decides when it is told to, and keeps its requests."""

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


def test_theAuthorizersRequests(serve, factory):
    slow = decideBy(factory, Slow())
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
    slow = decideBy(factory, Slow())
    client = ask(serve())
    slow.decision.errback(Refused("Not <b>today</b> & not tomorrow."))
    client.leave()
    expected = "Not &lt;b&gt;today&lt;/b&gt; &amp; not tomorrow."
    assert refused(client) == expected


def test_noDecisionInTime(serve, factory, clock):
    slow = decideBy(factory, Slow())
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
    slow = decideBy(factory, Slow())
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
def test_anAuthorizerThatDecidesWhenItIsCancelled(serve, factory, lines, decide):
    slow = decideBy(factory, Slow())
    slow.decision = Deferred(decide)
    client = ask(serve())
    client.leave()
    assert client.status == 0
    assert factory.counters.refused == 0
    assert not any("configuration" in line for line in lines)


def test_theServerStopsBeforeTheDecision(serve, factory, clock):
    slow = decideBy(factory, Slow())
    client = ask(serve())
    client.protocol.close()
    assert not client.open
    client.leave()
    assert slow.cancellations == 1
    assert client.status == 0
    assert not clock.getDelayedCalls()


def test_anAuthorizersBug(serve, factory, loggedFailures):
    slow = decideBy(factory, Slow())
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
        (
            {**request(), "authentication": ""},
            "authentication: must be a text",
        ),
        (
            {**request(), "authentication": ["k"]},
            "authentication: must be a text",
        ),
        (without("preferences"), "preferences: is missing"),
        ({**request(), "preferences": 3}, "preferences: must be an object"),
        ({**request(), "client": []}, "client: must be an object"),
        (without("preferences", "canvases"), "preferences.width: is missing"),
        (request(canvases=[]), "preferences.canvases: must have at least one canvas"),
        (request(canvases=[7]), "preferences.canvases[0]: must be an object"),
        (
            request(canvases=[canvas(), {**canvas(), "height": 0}]),
            "preferences.canvases[1].height: must be a whole number from 2 to 16384",
        ),
        (
            request(canvases=[{**canvas(), "framerate": rate(60, 0)}]),
            "preferences.canvases[0].framerate.denominator: must be a whole number",
        ),
        (
            request(canvases=[{**canvas(), "width": 1920.5}]),
            "preferences.canvases[0].width: must be a whole number from 2 to 16384",
        ),
        (
            request(maximum_video_tracks=-1),
            "preferences.maximum_video_tracks: must be a whole number from 0 to 4294",
        ),
        (
            request(vod_track_audio="yes"),
            "preferences.vod_track_audio: must be true or false",
        ),
        ([], "must be an object"),
        ("text", "must be an object"),
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
        (b'{"a": 1, "a": 2}', "&quot;a&quot; is twice in one object"),
        (b"[" * 16_000, "not JSON"),
        (b"9" * 5_000, "not JSON: a number is too long"),
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
    """A body of 64 KiB had 8,000 names: to compare all of them took a second."""
    names = [Compared(number) for number in range(1000)]
    with pytest.raises(BadField, match='"999" is twice'):
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
    """A browser gets the whole offer, to be pasted into OBS."""
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


def test_head(serve, lines):
    """The address, which may have a key, is not logged."""
    shown = Getter(serve(), TARGET)
    shown.leave()
    client = Getter(serve(), TARGET + "?key=" + KEY, "HEAD")
    client.leave()
    assert client.status == 200
    assert client.headers["content-length"] == str(len(shown.body))
    assert client.body == b""
    assert not any(KEY in line for line in lines)


def test_streamsAreWhereTheyWere(serve):
    client = Getter(serve(), "/live/none.flv", "HEAD")
    client.leave()
    assert client.status == 404


# The file


def test_theFileIsReadAgain(serve, path, lines):
    site = serve()
    assert len(answered(site, request())["encoder_configurations"]) == 3
    path.write_text(json.dumps({**OFFER, "maximum_video_tracks": 1}))
    os.utime(path, ns=(1, 1))
    assert len(answered(site, request())["encoder_configurations"]) == 1
    # It is wrong, and then it is gone: what it said stays, and is told once.
    path.write_text("{")
    for _ in range(2):
        assert len(answered(site, request())["encoder_configurations"]) == 1
    (line,) = [line for line in lines if "is invalid; keeping the previous" in line]
    assert "not JSON" in line
    path.unlink()
    for _ in range(2):
        assert len(answered(site, request())["encoder_configurations"]) == 1
    assert (
        len([line for line in lines if "is invalid; keeping the previous" in line]) == 2
    )
    path.write_text(json.dumps(OFFER))
    assert len(answered(site, request())["encoder_configurations"]) == 3
