"""
What an encoder of several tracks is offered: the operator's file, and what of it suits
one encoder.

Imports the standard library, C{encoders} and C{jsonfields} only.

The names are those of the schema that OBS calls multitrack video and Twitch Enhanced
Broadcasting: OBS, C{frontend/utility/models/multitrack-video.hpp}; Amazon IVS,
Multitrack Video Integration API Reference.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from ipaddress import AddressValueError, IPv6Address
from typing import Any

from twisted_rtmp.fields import (
    BadField,
    Fields,
    aFlag,
    aList,
    anObject,
    aNumber,
    aText,
    listOf,
    oneOf,
    parseJSON,
    shown,
)
from twisted_rtmp.multitrack.encoders import (
    CODECS,
    ENCODERS,
    MAX_CANVASES,
    Canvas,
    Encoder,
    FrameRate,
    Wishes,
    aSide,
)

#: Bytes of the operator's file that are read.  A hundred configurations with all their
#: settings take 50 KiB.
MAX_FILE = 1024 * 1024

#: What one output of OBS can have: MAX_OUTPUT_VIDEO_ENCODERS and
#: MAX_OUTPUT_AUDIO_ENCODERS in its C{libobs/obs-output.h}.
MAX_VIDEO_TRACKS = 10
MAX_AUDIO_TRACKS = 6

#: Configurations in a file: of which each encoder gets at most L{MAX_VIDEO_TRACKS}, but
#: there may be others for other canvases and codecs.
MAX_CONFIGURATIONS = 100

#: How far two proportions may be apart and still count as the same: 854x480 and 426x240
#: stand for 16:9.
SAME_PROPORTIONS = Fraction(1, 100)

#: Values of which OBS takes any other for the first, without a word.
SCALE_TYPES = tuple(
    f"OBS_SCALE_{name}"
    for name in ("DISABLE", "POINT", "BICUBIC", "BILINEAR", "LANCZOS", "AREA")
)
COLOR_SPACES = tuple(
    f"VIDEO_CS_{name}"
    for name in ("DEFAULT", "601", "709", "SRGB", "2100_PQ", "2100_HLG")
)
RANGES = tuple(f"VIDEO_RANGE_{name}" for name in ("DEFAULT", "PARTIAL", "FULL"))
FORMATS = tuple(
    f"VIDEO_FORMAT_{name}"
    for name in ("I420", "NV12", "BGRA", "I444", "I010", "P010", "P216", "P416")
)

#: What OBS does with a picture that is to be smaller, if it is not told.
DEFAULT_SCALE_TYPE = "OBS_SCALE_BICUBIC"

#: OBS cuts a template where this begins, and puts what follows a C{?} behind the key.
KEY_FIELD = "/{stream_key}"


class Unsuitable(Exception):
    """
    Nothing of what is offered suits an encoder.

    @ivar description: why, a sentence for the person at the encoder.
    """

    def __init__(self, description: str) -> None:
        super().__init__(description)
        self.description = description


#: kbit/s: up to 1 Gbit/s, which is where OBS's own setting ends.
aBitrate = aNumber(1, 1_000_000)


@dataclass(frozen=True)
class VideoConfiguration:
    """
    One video track, as the operator wants it.

    @ivar types: OBS's encoders by name, those to be preferred first.
    @ivar width: and L{height}: the picture is as large as fits in.
    @ivar bitrate: kbit/s, of the settings.
    @ivar extra: further fields, which OBS gets as they are.
    """

    types: tuple[tuple[str, Encoder], ...]
    width: int
    height: int
    rate: FrameRate | None
    bitrate: int
    canvasIndex: int
    extra: dict[str, Any]

    @classmethod
    def parse(cls, value: object, where: str) -> VideoConfiguration:
        fields = Fields(value, where)
        codec = fields.take("codec", oneOf(CODECS))
        types = fields.need("type", _texts)
        parsed = cls(
            types=tuple(_encoder(each, codec, fields) for each in types),
            width=fields.need("width", aSide),
            height=fields.need("height", aSide),
            rate=fields.take("framerate", FrameRate.parse),
            canvasIndex=fields.take("canvas_index", aNumber(0, MAX_CANVASES - 1)) or 0,
            **_settingsOf(fields),
        )
        extra = parsed.extra
        scaling = fields.take("gpu_scale_type", oneOf(SCALE_TYPES))
        extra["gpu_scale_type"] = scaling or DEFAULT_SCALE_TYPE
        for field, names in (
            ("colorspace", COLOR_SPACES),
            ("range", RANGES),
            ("format", FORMATS),
        ):
            if fields.has(field):
                extra[field] = fields.need(field, oneOf(names))
        if fields.has("bitrate_interpolation_points"):
            points = fields.need("bitrate_interpolation_points", aList)
            extra["bitrate_interpolation_points"] = points
        fields.end()
        return parsed

    def typeFor(self, wishes: Wishes) -> str | None:
        """
        The encoder to use, or L{None}.

        Whether it has an encoder for a codec OBS tells, but not which: that follows
        from its graphics cards and system.  What those are it may not tell either;
        then software is better than hardware that is not there, and hardware better
        than nothing.
        """
        certain: list[str] = []
        possible: list[str] = []
        for name, encoder in self.types:
            needs = (
                (wishes.vendors, encoder.vendors),
                (wishes.system, encoder.systems),
            )
            answers = [_has(theirs, needed) for theirs, needed in needs]
            if encoder.codec not in wishes.codecs or False in answers:
                continue
            (possible if None in answers else certain).append(name)
        return next(iter(certain + possible), None)

    def ratio(self, canvas: Canvas) -> Fraction:
        """How large this is beside a canvas: above 1, it is larger."""
        width, height = self._turned(canvas)
        return min(Fraction(width, canvas.width), Fraction(height, canvas.height))

    def sizeFor(self, canvas: Canvas) -> tuple[int, int]:
        """
        Width and height of the picture: in the canvas's proportions, since OBS would
        distort it, and never larger.
        """
        width, height = self._turned(canvas)
        across, down = Fraction(width, canvas.width), Fraction(height, canvas.height)
        ratio = min(across, down, Fraction(1))
        if ratio < 1 and max(across, down) <= ratio * (1 + SAME_PROPORTIONS):
            return width, height
        return _even(canvas.width * ratio), _even(canvas.height * ratio)

    def _turned(self, canvas: Canvas) -> tuple[int, int]:
        """Width and height as they are meant for a canvas that may stand upright."""
        if (self.width > self.height) == (canvas.width >= canvas.height):
            return self.width, self.height
        return self.height, self.width

    def answer(
        self, kind: str, size: tuple[int, int], rate: FrameRate | None
    ) -> dict[str, Any]:
        """Write it as OBS takes it."""
        configuration: dict[str, Any] = {
            "type": kind,
            "width": size[0],
            "height": size[1],
            "canvas_index": self.canvasIndex,
            **self.extra,
        }
        if rate is not None:
            configuration["framerate"] = {
                "numerator": rate.numerator,
                "denominator": rate.denominator,
            }
        return configuration


def _even(side: Fraction) -> int:
    """The next number below that encoders take."""
    return max(2, int(side) // 2 * 2)


def _texts(value: object, where: str) -> list[str]:
    """One text, or a list of them."""
    if not isinstance(value, list):
        return [aText(value, where)]
    if not value:
        raise BadField(where, "this is one text or more")
    return [aText(each, f"{where}[{index}]") for index, each in enumerate(value)]


def _has(
    theirs: frozenset[int] | str | None, needed: frozenset[int] | frozenset[str]
) -> bool | None:
    """Whether something needed is there; L{None}: that is not known."""
    if not needed:
        return True
    if theirs is None:
        return None
    return theirs in needed if isinstance(theirs, str) else bool(theirs & needed)


def _encoder(name: str, codec: str | None, fields: Fields) -> tuple[str, Encoder]:
    known = ENCODERS.get(name)
    if known is not None:
        if codec not in (None, known.codec):
            raise BadField(fields.name("codec"), f"{shown(name)} makes {known.codec}")
        return name, known
    if codec is None:
        raise BadField(
            fields.name("codec"), f"is missing: {shown(name)} is not known here"
        )
    return name, Encoder(codec)


def _settingsOf(fields: Fields) -> dict[str, Any]:
    settings = fields.need("settings", anObject)
    rate = Fields(settings, fields.name("settings")).need("bitrate", aBitrate)
    return {"bitrate": rate, "extra": {"settings": settings}}


@dataclass(frozen=True)
class AudioConfiguration:
    """
    One audio track, as the operator wants it.

    @ivar channels: how many; L{None}: those that the encoder has.  OBS takes no fewer
        than it has.
    """

    codec: str
    channels: int | None
    bitrate: int
    extra: dict[str, Any]

    @classmethod
    def parse(cls, value: object, where: str) -> AudioConfiguration:
        fields = Fields(value, where)
        parsed = cls(
            codec=fields.take("codec", aText) or "aac",
            channels=fields.take("channels", aNumber(1, 8)),
            **_settingsOf(fields),
        )
        fields.end()
        return parsed

    def answer(self, trackId: int, wishes: Wishes | None) -> dict[str, Any]:
        """Write it as OBS takes it, which needs all four fields."""
        return {
            "codec": self.codec,
            "track_id": trackId,
            "channels": self.channels or (wishes.channels if wishes else 2),
            **self.extra,
        }


@dataclass(frozen=True)
class IngestEndpoint:
    """
    Where to publish.

    @ivar protocol: C{"RTMP"} or C{"RTMPS"}.
    @ivar template: the URL, with L{KEY_FIELD} in it.
    @ivar application: of the URL.
    """

    protocol: str
    template: str
    application: str

    @classmethod
    def parse(cls, value: object, where: str) -> IngestEndpoint:
        fields = Fields(value, where)
        protocol = fields.need("protocol", oneOf(("RTMP", "RTMPS")))
        template = fields.need("url_template", aText)
        fields.end()
        form = rf"{protocol.lower()}://[^/?\s]+/([^?\s]*){re.escape(KEY_FIELD)}(\?\S*)?"
        match = re.fullmatch(form, template)
        if match is None:
            raise BadField(
                f"{where}.url_template",
                f"this is like {protocol.lower()}://HOST/APPLICATION{KEY_FIELD}",
            )
        return cls(protocol, template, match[1].strip("/"))


@dataclass(frozen=True)
class Offer:
    """
    What the operator's file says.

    @ivar endpoints: where to publish; empty: at the addresses where this server
        listens.
    @ivar host: the server's name in them; L{None}: by which it was asked.
    @ivar application: what to publish to.
    @ivar checksKey: whether only who may publish is answered.
    @ivar bitrate: kbit/s of all tracks together at most; L{None}: any.
    @ivar videoTracks: at most so many.
    @ivar video: the tracks, the first the one that plain players get.
    @ivar live: the audio tracks of the live stream.
    @ivar vod: those for recordings; empty: the same.
    """

    endpoints: tuple[IngestEndpoint, ...]
    host: str | None
    application: str
    checksKey: bool
    bitrate: int | None
    videoTracks: int
    video: tuple[VideoConfiguration, ...]
    live: tuple[AudioConfiguration, ...]
    vod: tuple[AudioConfiguration, ...]

    @classmethod
    def parse(cls, value: object) -> Offer:
        """
        Read what was in the file.

        @raise BadField: something is missing or wrong.
        """
        fields = Fields(value)
        video = fields.need(
            "encoder_configurations",
            listOf(VideoConfiguration.parse, MAX_CONFIGURATIONS),
        )
        tracks = listOf(AudioConfiguration.parse, MAX_AUDIO_TRACKS)
        audio = Fields(
            fields.need("audio_configurations", anObject), "audio_configurations"
        )
        live, vod = audio.need("live", tracks), audio.take("vod", tracks) or []
        audio.end()
        if len(live) + len(vod or live) > MAX_AUDIO_TRACKS:
            raise BadField(
                "audio_configurations",
                f"live and vod together have up to {MAX_AUDIO_TRACKS} (without vod,"
                " live counts twice)",
            )
        endpoints = (
            fields.take(
                "ingest_endpoints", listOf(IngestEndpoint.parse, MAX_CONFIGURATIONS)
            )
            or []
        )
        if endpoints:
            for field in ("host", "application"):
                if fields.has(field):
                    raise BadField(field, "ingest_endpoints say that already")
        offer = cls(
            endpoints=tuple(endpoints),
            host=fields.take("host", _host),
            application=(
                endpoints[0].application
                if endpoints
                else fields.take("application", _application) or "live"
            ),
            checksKey=fields.take("check_stream_key", aFlag) is not False,
            bitrate=fields.take("maximum_aggregate_bitrate", aBitrate),
            videoTracks=(
                fields.take("maximum_video_tracks", aNumber(1, MAX_VIDEO_TRACKS))
                or MAX_VIDEO_TRACKS
            ),
            video=tuple(video),
            live=tuple(live),
            vod=tuple(vod),
        )
        fields.end()
        return offer

    def audioFor(self, wishes: Wishes | None) -> dict[str, Any]:
        """
        The audio tracks.

        @param wishes: whose; L{None}: nobody's, everything there is.
        """
        vod = self.vod
        if wishes is not None:
            # OBS does not begin without, if it is to send some.
            vod = (self.vod or self.live) if wishes.vodTrack else ()
        answers = [
            each.answer(trackId, wishes)
            for trackId, each in enumerate((*self.live, *vod), 1)
        ]
        audio = {"live": answers[: len(self.live)]}
        if vod:
            audio["vod"] = answers[len(self.live) :]
        return audio

    def videoFor(self, wishes: Wishes | None) -> list[dict[str, Any]]:
        """
        The video tracks that an encoder can and wants to send, in the file's order.

        @param wishes: whose; L{None}: nobody's, the first that there are.
        @raise Unsuitable: there is none.
        """
        if wishes is None:
            return [
                each.answer(each.types[0][0], (each.width, each.height), each.rate)
                for each in self.video[: self.videoTracks]
            ]
        usable = [
            (each, kind)
            for each in self.video
            if each.canvasIndex < len(wishes.canvases)
            and (kind := each.typeFor(wishes)) is not None
        ]
        if not usable:
            types = sorted({name for each in self.video for name, _ in each.types})
            raise Unsuitable(
                f"This encoder has none of what the server takes: {', '.join(types)}."
            )
        chosen = self._within(wishes, list(_notLarger(usable, wishes.canvases)))
        return [
            each.answer(
                kind,
                each.sizeFor(wishes.canvases[each.canvasIndex]),
                _rateFor(each, wishes.canvases[each.canvasIndex]),
            )
            for each, kind in chosen
        ]

    def _within(
        self, wishes: Wishes, usable: Sequence[tuple[VideoConfiguration, str]]
    ) -> list[tuple[VideoConfiguration, str]]:
        """
        Leave out what is beyond the limits on both sides.

        @raise Unsuitable: nothing is left.
        """
        videoTracks = self.videoTracks
        if wishes.videoTracks is not None:
            videoTracks = min(videoTracks, wishes.videoTracks)
        if videoTracks == 0:
            raise Unsuitable("The encoder's settings allow no video track at all.")
        limits = [each for each in (self.bitrate, wishes.bitrate) if each is not None]
        if not limits:
            return list(usable[:videoTracks])
        audio = sum(each.bitrate for each in self.live)
        if wishes.vodTrack:
            audio += sum(each.bitrate for each in self.vod or self.live)
        left = min(limits) - audio
        chosen: list[tuple[VideoConfiguration, str]] = []
        for each, kind in usable:
            if each.bitrate <= left and len(chosen) < videoTracks:
                chosen.append((each, kind))
                left -= each.bitrate
        if not chosen:
            needed = audio + min(each.bitrate for each, _ in usable)
            raise Unsuitable(
                f"The limit of {min(limits)} kbit/s is too low: the smallest video"
                f" track and the audio take {needed} kbit/s."
            )
        return chosen


def _notLarger(
    usable: Iterable[tuple[VideoConfiguration, str]], canvases: Sequence[Canvas]
) -> Iterable[tuple[VideoConfiguration, str]]:
    """
    Leave out what is larger than its canvas; but if nothing is as large as that, let
    the smallest of what is larger stand for it.
    """
    ratios = [
        (each, kind, each.canvasIndex, each.ratio(canvases[each.canvasIndex]))
        for each, kind in usable
    ]
    most = {}
    for index in range(len(canvases)):
        here = [ratio for _, _, canvas, ratio in ratios if canvas == index]
        larger = [ratio for ratio in here if ratio > 1]
        full = any(1 - SAME_PROPORTIONS <= ratio <= 1 for ratio in here)
        most[index] = min(larger) if larger and not full else Fraction(1)
    return [
        (each, kind) for each, kind, canvas, ratio in ratios if ratio <= most[canvas]
    ]


def _rateFor(configuration: VideoConfiguration, canvas: Canvas) -> FrameRate:
    rate = configuration.rate
    return canvas.rate if rate is None else rate.within(canvas.rate)


def _host(value: object, where: str) -> str:
    host = hostOf(aText(value, where))
    if host is None:
        raise BadField(where, "this is a name or an address, without a port")
    return host


def _application(value: object, where: str) -> str:
    application = aText(value, where).strip("/")
    if not application or re.search(r"[\s?#{}]", application):
        raise BadField(where, "this is the name of an application")
    return application


def hostOf(text: str) -> str | None:
    """
    A host as a URL spells it: a name or an address, one of IPv6 in brackets.

    @param text: the same, with or without brackets.
    @return: L{None} if it is none.
    """
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,255}", text):
        return text
    address = text.removeprefix("[").removesuffix("]")
    # Python takes anything for a zone, whatever it would be in a URL.
    if not re.fullmatch(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]{1,255})?", address):
        return None
    try:
        return f"[{IPv6Address(address)}]"
    except AddressValueError:
        return None


class OfferFile:
    """
    The operator's file, read anew when it has changed.

    @ivar path: where it is.
    @ivar offer: what it said when it was right last.
    """

    def __init__(self, path: str) -> None:
        """
        Read it.

        @raise BadField: it is not right.
        @raise OSError: it cannot be read.
        """
        self.path = os.path.abspath(path)
        self._seen = self._state()
        self.offer = self._read()

    def refresh(self) -> None:
        """
        Read the file again if it has changed since it was looked at last.

        @raise BadField: it is not right any more; L{offer} is what it was.
        @raise OSError: it cannot be read any more; the same.
        """
        seen = self._state()
        if seen != self._seen:
            self._seen = seen
            self.offer = self._read()

    def _state(self) -> tuple[int, ...]:
        """What is different when it has changed; empty if it is not there."""
        try:
            found = os.stat(self.path)
        except OSError:
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _read(self) -> Offer:
        with open(self.path, "rb") as file:
            text = file.read(MAX_FILE + 1)
        if len(text) > MAX_FILE:
            raise BadField("", f"it has more than {MAX_FILE} bytes")
        return Offer.parse(parseJSON(text))
