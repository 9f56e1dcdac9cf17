"""
The offer to encoders that send several tracks: the operator's file, and the choice of
what suits one encoder.

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
    written,
)
from twisted_rtmp.multitrack.encoders import (
    CODECS,
    ENCODERS,
    MAX_CANVASES,
    Canvas,
    Encoder,
    EncoderRequest,
    FrameRate,
    aSide,
)

#: The largest file that is read, in bytes.  A hundred configurations with all their
#: settings take 50 KiB.
MAX_FILE = 1024 * 1024

#: The most that one output of OBS can have: MAX_OUTPUT_VIDEO_ENCODERS and
#: MAX_OUTPUT_AUDIO_ENCODERS in its C{libobs/obs-output.h}.
MAX_VIDEO_TRACKS = 10
MAX_AUDIO_TRACKS = 6

#: The most configurations in a file.  An encoder gets at most L{MAX_VIDEO_TRACKS} of
#: them; the others may be for other canvases and codecs.
MAX_CONFIGURATIONS = 100

#: The difference of two proportions that still count as the same: 854x480 and 426x240
#: stand for 16:9.
SAME_PROPORTIONS = Fraction(1, 100)

#: The values that OBS knows; it silently takes any other for the first.
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

#: The way in which OBS makes a picture smaller by default.
DEFAULT_SCALE_TYPE = "OBS_SCALE_BICUBIC"

#: OBS cuts a template where this begins, and puts what follows a C{?} behind the key.
KEY_FIELD = "/{stream_key}"


class Unsuitable(Exception):
    """
    Raised if nothing in the offer suits an encoder.

    @ivar description: the reason, a sentence for the person at the encoder.
    """

    def __init__(self, description: str) -> None:
        super().__init__(description)
        self.description = description


#: A bit rate in kbit/s, up to 1 Gbit/s as in OBS's own settings.
aBitrate = aNumber(1, 1_000_000)


@dataclass(frozen=True)
class VideoConfiguration:
    """
    One video track, as the operator wants it.

    @ivar types: the encoders of OBS for it, by name, the preferred ones first.
    @ivar width: the picture's largest width, in pixels.
    @ivar height: the picture's largest height, in pixels.
    @ivar rate: the frame rate; L{None}: that of the canvas.
    @ivar bitrate: the bit rate in the encoder's settings, in kbit/s.
    @ivar canvasIndex: the canvas that it shows; 0 is the main one.
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

    def typeFor(self, asked: EncoderRequest) -> str | None:
        """
        Choose the encoder to use.

        OBS says for which codecs it has an encoder, but not which encoder: that follows
        from its graphics cards and system.  Where it does not say those either,
        software is safer than hardware that may be missing, and hardware better than
        nothing.

        @return: its name; L{None} if none suits.
        """
        certain: list[str] = []
        possible: list[str] = []
        for name, encoder in self.types:
            needs = (
                (asked.vendors, encoder.vendors),
                (asked.system, encoder.systems),
            )
            answers = [_has(theirs, needed) for theirs, needed in needs]
            if encoder.codec not in asked.codecs or False in answers:
                continue
            (possible if None in answers else certain).append(name)
        return next(iter(certain + possible), None)

    def ratio(self, canvas: Canvas) -> Fraction:
        """Compare its size with a canvas's: above 1, this is larger."""
        width, height = self._turned(canvas)
        return min(Fraction(width, canvas.width), Fraction(height, canvas.height))

    def sizeFor(self, canvas: Canvas) -> tuple[int, int]:
        """
        Fit the picture's width and height to a canvas: never larger, and in its
        proportions, since OBS would distort the picture otherwise.
        """
        width, height = self._turned(canvas)
        across, down = Fraction(width, canvas.width), Fraction(height, canvas.height)
        ratio = min(across, down, Fraction(1))
        if ratio < 1 and max(across, down) <= ratio * (1 + SAME_PROPORTIONS):
            return width, height
        return _even(canvas.width * ratio), _even(canvas.height * ratio)

    def _turned(self, canvas: Canvas) -> tuple[int, int]:
        """Give width and height for a canvas, which may stand upright."""
        if (self.width > self.height) == (canvas.width >= canvas.height):
            return self.width, self.height
        return self.height, self.width

    def answer(
        self, kind: str, size: tuple[int, int], rate: FrameRate | None
    ) -> dict[str, Any]:
        """Write the track as OBS reads it."""
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
    """Round a side down to a number that encoders take."""
    return max(2, int(side) // 2 * 2)


def _texts(value: object, where: str) -> list[str]:
    """Read one text, or a list of them."""
    if not isinstance(value, list):
        return [aText(value, where)]
    if not value:
        raise BadField(where, "must have at least one text")
    return [aText(each, f"{where}[{index}]") for index, each in enumerate(value)]


def _has(
    theirs: frozenset[int] | str | None, needed: frozenset[int] | frozenset[str]
) -> bool | None:
    """
    Tell whether an encoder has one of the things that are needed.

    @return: L{None} if it does not say.
    """
    if not needed:
        return True
    if theirs is None:
        return None
    return theirs in needed if isinstance(theirs, str) else bool(theirs & needed)


def _encoder(name: str, codec: str | None, fields: Fields) -> tuple[str, Encoder]:
    known = ENCODERS.get(name)
    if known is not None:
        if codec not in (None, known.codec):
            raise BadField(
                fields.name("codec"), f"must be {known.codec} for {shown(name)}"
            )
        return name, known
    if codec is None:
        raise BadField(
            fields.name("codec"),
            f"is missing, and needed: {shown(name)} is not a known encoder",
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

    @ivar channels: the number of channels; L{None}: as many as the encoder has.  OBS
        refuses fewer.
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

    def answer(self, trackId: int, asked: EncoderRequest | None) -> dict[str, Any]:
        """Write the track as OBS reads it, which needs all four fields."""
        return {
            "codec": self.codec,
            "track_id": trackId,
            "channels": self.channels or (asked.channels if asked else 2),
            **self.extra,
        }


@dataclass(frozen=True)
class IngestEndpoint:
    """
    An address to publish to.

    @ivar protocol: C{"RTMP"} or C{"RTMPS"}.
    @ivar template: the URL, with L{KEY_FIELD} in it.
    @ivar application: the application in the URL.
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
                f"must be like {protocol.lower()}://HOST/APPLICATION{KEY_FIELD}",
            )
        return cls(protocol, template, match[1].strip("/"))


@dataclass(frozen=True)
class Offer:
    """
    The content of the operator's file.

    @ivar endpoints: the addresses to publish to; empty: those where this server
        listens.
    @ivar host: the server's name in them; L{None}: the one that the encoder asked.
    @ivar application: the application to publish to.
    @ivar checksKey: whether only encoders that may publish get a configuration.
    @ivar bitrate: the most that all tracks together may have, in kbit/s; L{None}: any.
    @ivar videoTracks: the highest number of video tracks.
    @ivar video: the video tracks; plain players get the first.
    @ivar live: the audio tracks of the live stream.
    @ivar vod: the audio tracks for recordings; empty: the same.
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
        Read the content of a file.

        @raise BadField: a field is missing or wrong.
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
                f"must have at most {MAX_AUDIO_TRACKS} tracks in live and vod together"
                " (without vod, those of live count twice)",
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
                    raise BadField(field, "must not stand beside ingest_endpoints")
        offer = cls(
            endpoints=tuple(endpoints),
            host=fields.take("host", written(_parseHost)),
            application=(
                endpoints[0].application
                if endpoints
                else fields.take("application", written(_parseApplication)) or "live"
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

    def audioFor(self, asked: EncoderRequest | None) -> dict[str, Any]:
        """
        List the audio tracks for an encoder, as OBS reads them.

        @param asked: the encoder's request; L{None}: all tracks of the file.
        """
        vod = self.vod
        if asked is not None:
            # OBS does not start without them if it is set to send some.
            vod = (self.vod or self.live) if asked.vodTrack else ()
        answers = [
            each.answer(trackId, asked)
            for trackId, each in enumerate((*self.live, *vod), 1)
        ]
        audio = {"live": answers[: len(self.live)]}
        if vod:
            audio["vod"] = answers[len(self.live) :]
        return audio

    def videoFor(self, asked: EncoderRequest | None) -> list[dict[str, Any]]:
        """
        List the video tracks that an encoder can and wants to send, in the file's
        order, as OBS reads them.

        @param asked: the encoder's request; L{None}: the first tracks of the file.
        @raise Unsuitable: there is no such track.
        """
        if asked is None:
            return [
                each.answer(each.types[0][0], (each.width, each.height), each.rate)
                for each in self.video[: self.videoTracks]
            ]
        usable = [
            (each, kind)
            for each in self.video
            if each.canvasIndex < len(asked.canvases)
            and (kind := each.typeFor(asked)) is not None
        ]
        if not usable:
            types = sorted({name for each in self.video for name, _ in each.types})
            raise Unsuitable(
                f"This encoder has none of the types that are needed: "
                f"{', '.join(types)}."
            )
        chosen = self._within(asked, list(_notLarger(usable, asked.canvases)))
        return [
            each.answer(
                kind,
                each.sizeFor(asked.canvases[each.canvasIndex]),
                _rateFor(each, asked.canvases[each.canvasIndex]),
            )
            for each, kind in chosen
        ]

    def _within(
        self, asked: EncoderRequest, usable: Sequence[tuple[VideoConfiguration, str]]
    ) -> list[tuple[VideoConfiguration, str]]:
        """
        Leave out the tracks that are beyond the limits of either side.

        @raise Unsuitable: none is left.
        """
        videoTracks = self.videoTracks
        if asked.videoTracks is not None:
            videoTracks = min(videoTracks, asked.videoTracks)
        if videoTracks == 0:
            raise Unsuitable("The encoder's settings allow no video track at all.")
        limits = [each for each in (self.bitrate, asked.bitrate) if each is not None]
        if not limits:
            return list(usable[:videoTracks])
        audio = sum(each.bitrate for each in self.live)
        if asked.vodTrack:
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
    Leave out the tracks that are larger than their canvas; but if none is as large as
    the canvas, let the smallest of the larger ones stand for it.
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


def _parseHost(text: str) -> str:
    host = hostOf(text)
    if host is None:
        raise ValueError("must be a name or an address, without a port")
    return host


def _parseApplication(text: str) -> str:
    application = text.strip("/")
    if not application or re.search(r"[\s?#{}]", application):
        raise ValueError("must be the name of an application")
    return application


def hostOf(text: str) -> str | None:
    """
    Spell a host as a URL does: a name or an address, one of IPv6 in brackets.

    @param text: the host, with or without brackets.
    @return: L{None} if the text is neither a name nor an address.
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
    The operator's file, read again when it has changed.

    @ivar path: its absolute path.
    @ivar offer: the content when it was last valid.
    """

    def __init__(self, path: str) -> None:
        """
        Read the file.

        @raise BadField: its content is not valid.
        @raise OSError: it cannot be read.
        """
        self.path = os.path.abspath(path)
        self._seen = self._state()
        self.offer = self._read()

    def refresh(self) -> None:
        """
        Read the file again if it has changed since the last look.

        @raise BadField: its content is not valid now; L{offer} stays as it was.
        @raise OSError: it cannot be read now; the same.
        """
        seen = self._state()
        if seen != self._seen:
            self._seen = seen
            self.offer = self._read()

    def _state(self) -> tuple[int, ...]:
        """Give values that differ when the file has changed; empty if it is missing."""
        try:
            found = os.stat(self.path)
        except OSError:
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _read(self) -> Offer:
        with open(self.path, "rb") as file:
            text = file.read(MAX_FILE + 1)
        if len(text) > MAX_FILE:
            raise BadField("", f"must have at most {MAX_FILE} bytes")
        return Offer.parse(parseJSON(text))
