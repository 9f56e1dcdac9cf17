"""Encoders of OBS, and the request that says what one of them can do and wants."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from twisted_rtmp.fields import (
    BadField,
    Fields,
    aFlag,
    aList,
    anObject,
    aNumber,
)

#: Canvases of a request that are read; OBS has two.
MAX_CANVASES = 10

#: The largest side of a picture, in pixels: twice what 8K has.
MAX_SIDE = 16384

#: PCI vendor ids of graphics cards, as OBS gives them.
NVIDIA, AMD, INTEL, APPLE = 0x10DE, 0x1002, 0x8086, 0x106B

#: Codecs by the names that encoders give them in C{supported_codecs}.
CODECS = ("h264", "h265", "av1")

#: Systems by the names that OBS gives them; on Linux that is the distribution's.
WINDOWS, MACOS, LINUX = "Windows", "macOS", "Linux"


class Encoder(NamedTuple):
    """
    An encoder of OBS.

    @ivar codec: one of L{CODECS}.
    @ivar vendors: the vendors of graphics cards of which it needs one; empty: it needs
        none.
    @ivar systems: the systems on which OBS has it; empty: all.
    """

    codec: str
    vendors: frozenset[int] = frozenset()
    systems: frozenset[str] = frozenset()


def _everyCodec(
    names: str, vendors: Iterable[int], systems: Iterable[str]
) -> dict[str, Encoder]:
    """List encoders of one kind of hardware: one a codec, in the order of L{CODECS}."""
    return {
        name: Encoder(codec, frozenset(vendors), frozenset(systems))
        for name, codec in zip(names.split(), CODECS, strict=False)
    }


_NVENC = ([NVIDIA], [WINDOWS, LINUX])
_VAAPI = ([AMD, INTEL], [LINUX])
_APPLE = "com.apple.videotoolbox.videoencoder.ave"

#: The encoders whose needs are known: those of OBS 30 to 32.
ENCODERS: dict[str, Encoder] = {
    "obs_x264": Encoder("h264"),
    "ffmpeg_openh264": Encoder("h264"),
    "ffmpeg_svt_av1": Encoder("av1"),
    "ffmpeg_aom_av1": Encoder("av1"),
    **_everyCodec("obs_nvenc_h264_tex obs_nvenc_hevc_tex obs_nvenc_av1_tex", *_NVENC),
    **_everyCodec("jim_nvenc jim_hevc_nvenc jim_av1_nvenc", *_NVENC),
    **_everyCodec(
        "h264_texture_amf h265_texture_amf av1_texture_amf", [AMD], [WINDOWS]
    ),
    **_everyCodec(
        "obs_qsv11_v2 obs_qsv11_hevc obs_qsv11_av1", [INTEL], [WINDOWS, LINUX]
    ),
    **_everyCodec(
        "ffmpeg_vaapi_tex hevc_ffmpeg_vaapi_tex av1_ffmpeg_vaapi_tex", *_VAAPI
    ),
    **_everyCodec(f"{_APPLE}.avc {_APPLE}.hevc", [APPLE], [MACOS]),
}

#: The numbers that OBS stores in 32 bits.
UINT32 = aNumber(0, 0xFFFFFFFF)
aSide = aNumber(2, MAX_SIDE)


@dataclass(frozen=True)
class FrameRate:
    """A number of frames a second, as the schema writes it."""

    numerator: int
    denominator: int

    @property
    def value(self) -> Fraction:
        return Fraction(self.numerator, self.denominator)

    @classmethod
    def parse(cls, value: object, where: str) -> FrameRate:
        fields = Fields(value, where)
        positive = aNumber(1, 0xFFFFFFFF)
        rate = cls(
            fields.need("numerator", positive), fields.need("denominator", positive)
        )
        fields.end()
        return rate

    def within(self, canvas: FrameRate) -> FrameRate:
        """
        Find the highest rate that OBS can make of a canvas's and that is not above
        this one.

        OBS leaves frames out evenly, every second or third.  It rounds up: asked to
        make 30 frames of 50, it keeps 50.  So it is asked for 25.
        """
        if self.value >= canvas.value:
            return canvas
        ratio = canvas.value / self.value
        if ratio.denominator == 1:
            return self
        return FrameRate(canvas.numerator, canvas.denominator * -(-ratio // 1))


@dataclass(frozen=True)
class Canvas:
    """
    A picture that an encoder composes.

    @ivar width: the width of the picture before it is scaled, in pixels.
    @ivar height: its height, in pixels.
    @ivar rate: its frame rate.
    """

    width: int
    height: int
    rate: FrameRate


@dataclass(frozen=True)
class EncoderRequest:
    """
    A request for a configuration: what an encoder can do, and what its user wants.

    @ivar canvases: the pictures that it can send, the main one first.
    @ivar codecs: the codecs of L{CODECS} that it supports.
    @ivar vendors: the vendors of its graphics cards; L{None}: not known.
    @ivar system: the system that it runs on; L{None}: not known.
    @ivar bitrate: the most that all tracks together may have, in kbit/s; L{None}: any.
    @ivar videoTracks: the highest number of video tracks; L{None}: any.
    @ivar vodTrack: whether it sends an audio track for recordings beside that of the
        live stream.
    @ivar channels: the audio channels that it has.
    """

    canvases: tuple[Canvas, ...]
    codecs: frozenset[str] = frozenset(CODECS)
    vendors: frozenset[int] | None = None
    system: str | None = None
    bitrate: int | None = None
    videoTracks: int | None = None
    vodTrack: bool = False
    channels: int = 2

    @classmethod
    def parse(cls, request: object) -> EncoderRequest:
        """
        Read a request as OBS 30.2 and later write it.

        Unknown fields are ignored: they belong to a newer schema.

        @param request: the JSON object.
        @raise BadField: a field is missing or wrong.
        """
        fields = Fields(request)
        client = Fields(fields.take("client", anObject) or {}, "client")
        codecs = client.take("supported_codecs", aList) or ["h264"]
        preferences = Fields(fields.need("preferences", anObject), "preferences")
        capabilities = fields.take("capabilities", anObject) or {}
        return cls(
            canvases=_parseCanvases(preferences),
            codecs=frozenset(codec for codec in codecs if codec in CODECS),
            vendors=_parseVendors(capabilities),
            system=_parseSystem(capabilities),
            bitrate=preferences.take(
                "maximum_aggregate_bitrate", aNumber(0, 2**64 - 1)
            ),
            videoTracks=preferences.take("maximum_video_tracks", UINT32),
            vodTrack=preferences.take("vod_track_audio", aFlag) or False,
            channels=preferences.take("audio_channels", aNumber(1, 8)) or 2,
        )


def _parseCanvases(preferences: Fields) -> tuple[Canvas, ...]:
    """Read the canvases; before 2025-01-25 there is one, in the preferences."""
    if not preferences.has("canvases"):
        return (_parseCanvas(preferences),)
    canvases = preferences.need("canvases", aList)
    if not canvases:
        raise BadField("preferences.canvases", "must have at least one canvas")
    return tuple(
        _parseCanvas(Fields(canvas, f"preferences.canvases[{index}]"))
        for index, canvas in enumerate(canvases[:MAX_CANVASES])
    )


def _parseCanvas(fields: Fields) -> Canvas:
    """Read a canvas, in its size before scaling if that is given."""
    width, height = fields.need("width", aSide), fields.need("height", aSide)
    return Canvas(
        fields.take("canvas_width", aSide) or width,
        fields.take("canvas_height", aSide) or height,
        fields.need("framerate", FrameRate.parse),
    )


def _parseVendors(capabilities: dict[str, Any]) -> frozenset[int] | None:
    cards = capabilities.get("gpu")
    if not isinstance(cards, list):
        return None
    return frozenset(
        card["vendor_id"]
        for card in cards
        if isinstance(card, dict) and isinstance(card.get("vendor_id"), int)
    )


def _parseSystem(capabilities: dict[str, Any]) -> str | None:
    system = capabilities.get("system")
    name = system.get("name") if isinstance(system, dict) else None
    if not isinstance(name, str):
        return None
    return name if name in (WINDOWS, MACOS) else LINUX
