"""
Parts: one track out of several, and back; enhanced messages in their legacy form.

For players that read fewer dialects than the publisher writes, and for files of one
track each.  The bytes of a frame stay what they are: only headers are rewritten.
Messages that pass as they came are not taken apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from twisted_rtmp.media.audio import (
    EX_HEADER,
    AudioHeader,
    AudioPacketType,
    audioFlags,
    parseAudio,
)
from twisted_rtmp.media.exheader import (
    TIMED,
    MultitrackType,
    codecNumber,
    readModEx,
)
from twisted_rtmp.media.flags import (
    EMPTY,
    ENHANCED,
    FOREIGN,
    MALFORMED,
    METADATA,
    MOD_EX,
    MULTICHANNEL,
    MULTITRACK,
    SEQUENCE_HEADER,
)
from twisted_rtmp.media.video import (
    FrameType,
    VideoHeader,
    VideoPacketType,
    parseVideo,
    videoFlags,
)
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.errors import UsageError
from twisted_rtmp.wire.messages import Message

_SECTIONS: dict[int, str] = {
    MessageType.AUDIO: "E-RTMP v2, Enhanced Audio",
    MessageType.VIDEO: "E-RTMP v2, Enhanced Video",
}

_MULTITRACK: dict[int, int] = {
    MessageType.AUDIO: AudioPacketType.MULTITRACK,
    MessageType.VIDEO: VideoPacketType.MULTITRACK,
}

# As plain numbers, since comparing with an enum member costs 40 ns.
_VIDEO = MessageType.VIDEO.value

#: The packet type of ModEx, which is the same for both.
_MOD_EX = VideoPacketType.MOD_EX.value

#: First bytes of legacy audio: AAC says 44.1 kHz, 16 bits, stereo whatever it is.  FLV
#: 10.1, E.4.2.1.
_LEGACY_AAC = b"\xaf"

_LEGACY_AVC = 7
_LEGACY_MP3 = 2

#: The packet types of AVC that stand for enhanced ones.
_AVC_PACKETS: dict[int | None, int] = {
    VideoPacketType.SEQUENCE_START: 0,
    VideoPacketType.CODED_FRAMES: 1,
    VideoPacketType.CODED_FRAMES_X: 1,
    VideoPacketType.SEQUENCE_END: 2,
}

#: Hz of MPEG audio by index, for MPEG-1, which halves for MPEG-2 and again for 2.5.
#: ISO/IEC 11172-3, 2.4.2.3; ISO/IEC 13818-3, 2.4.2.3.
_MP3_RATES = (44100, 48000, 32000)
_MP3_HALVINGS = {3: 0, 2: 1, 0: 2}

#: Hz by the two bits of a legacy header.  FLV 10.1, E.4.2.1.
_LEGACY_RATES = (5512, 11025, 22050, 44100)


class PlainTrack(NamedTuple):
    """
    A message's part of one track.

    @ivar trackId: 0 to 255; 0 for what was not numbered: an encoder of several tracks
        may send its first as if it were the only one (OBS does).
    @ivar codec: the FourCC; or the legacy codec id or sound format; or empty where none
        is said.
    @ivar payload: the payload of a message of this track alone.
    @ivar flags: of that payload.
    """

    trackId: int
    codec: int | str
    payload: bytes
    flags: int


def splitTracks(typeId: int, payload: bytes) -> list[PlainTrack]:
    """
    Take a message apart by its tracks.

    ModEx stands before all tracks and goes with each.  A message that is not numbered
    comes back as it is.  1.5 us for OneTrack, which is what encoders send most, 5 us a
    track for the other layouts (CPython 3.11).

    @param typeId: the message type id, of audio or video.
    @return: the tracks in their order, in which an id may come twice; none if their
        layout is one that is not known.
    @raise MessageError: the payload is malformed.
    """
    section = _section(typeId)
    if not payload:
        return [PlainTrack(0, "", payload, EMPTY)]
    only = _splitOneTrack(typeId, payload)
    if only is not None:
        return [only]
    header = _parse(typeId, payload)
    if header.multitrackType is None:
        return [PlainTrack(0, header.codec, payload, header.flags)]
    packetType = header.packetType
    if packetType is None or packetType == _MOD_EX:
        return []  # ModEx stands before Multitrack; here it means nothing
    _, offset, _ = readModEx(payload, _MOD_EX, section)
    start = payload[: offset - 1] + _byte(payload[offset - 1] & 0xF0 | packetType)
    timed = typeId == _VIDEO and packetType == VideoPacketType.CODED_FRAMES
    tracks = []
    for track in header.tracks:
        time = 3 if timed and track.fourCC in TIMED else 0
        body = payload[track.start - time : track.end]
        plain = start + track.fourCC.encode("latin-1") + body
        tracks.append(
            PlainTrack(track.trackId, track.fourCC, plain, _flags(typeId, plain))
        )
    return tracks


def partsOf(message: Message) -> Sequence[PlainTrack]:
    """
    Take a message apart as L{splitTracks} does, but once for all who ask.

    The parts copy the payload: L{forgetParts} is for messages that are kept.
    """
    parts = getattr(message, "parts", None)
    if parts is None:
        parts = message.parts = splitTracks(message.typeId, message.payload)
    return parts


def forgetParts(messages: Iterable[Message]) -> None:
    """Free the memory of the parts of messages whose flags are set."""
    for message in messages:
        if message.flags & ENHANCED:
            message.parts = None


def trackIdsOf(message: Message) -> Sequence[int]:
    """
    Say whose frames, headers or metadata an audio or video message has.

    @param message: one that is not malformed, whose flags are set.
    @return: the ids in their order; 0 of a message that is not numbered.
    """
    flags = message.flags
    if not flags & MULTITRACK:
        return (0,)
    try:
        return message.trackIds
    except AttributeError:
        return readTrackIds(message.typeId, message.payload, flags)


def readTrackIds(typeId: int, payload: bytes, flags: int) -> Sequence[int]:
    """
    Read whose frames, headers or metadata a payload has.

    @param typeId: the message type id, of audio or video.
    @param payload: of a single track its beginning is enough.
    @param flags: of the payload; not malformed.
    @return: the ids in their order; 0 of a message that is not numbered.
    """
    if not flags & MULTITRACK:
        return (0,)
    if not flags & MOD_EX and payload[1] < 16:
        return payload[6:7]  # OneTrack, which is what encoders send most
    return tuple(track.trackId for track in _parse(typeId, payload).tracks)


def headerKey(message: Message) -> tuple[int, ...]:
    """
    Say which headers of a stream a header replaces: those of an equal key.

    @param message: a sequence header or metadata of audio or video; its flags are set.
    """
    typeId = message.typeId
    flags = message.flags
    kind = flags & (SEQUENCE_HEADER | METADATA | MULTICHANNEL)
    if flags & FOREIGN:
        # Of one track for each codec, as far as can be known.
        return typeId, kind, -1, codecNumber(parseVideo(message.payload).codec)
    if not flags & MULTITRACK:
        return typeId, kind
    return typeId, kind, *trackIdsOf(message)


def wrapTrack(typeId: int, payload: bytes, trackId: int) -> bytes:
    """
    Give a message's track a number: Multitrack, OneTrack.

    @param typeId: the message type id, of audio or video.
    @param payload: an enhanced one with a FourCC, not numbered yet.  ModEx is kept.
    @param trackId: 0 to 255.
    @raise MessageError: the payload is malformed.
    @raise UsageError: there is no such track id; or the payload is numbered already, or
        has no FourCC: legacy codecs, commands, silence.
    """
    section = _section(typeId)
    if not 0 <= trackId <= 255:
        raise UsageError(f"there is no track id {trackId}")
    header = _parse(typeId, payload) if payload else None
    if header is None or not isinstance(header.codec, str) or not header.codec:
        raise UsageError("only messages with a FourCC can have a numbered track")
    if header.multitrackType is not None:
        raise UsageError("the tracks of the message are numbered already")
    if isinstance(header, VideoHeader) and header.frameType == FrameType.COMMAND:
        # Metadata, whose frame type is ignored, and FFmpeg writes this one; but before
        # Multitrack it would mean a command.  E-RTMP v2, ExVideoTagHeader.
        payload = _byte(payload[0] & 0x8F | FrameType.INTER_FRAME << 4) + payload[1:]
    _, offset, _ = readModEx(payload, _MOD_EX, section)
    last = payload[offset - 1]
    return b"".join(
        (
            payload[: offset - 1],
            _byte(last & 0xF0 | _MULTITRACK[typeId]),
            _byte(MultitrackType.ONE_TRACK << 4 | last & 15),
            payload[offset : offset + 4],
            _byte(trackId),
            payload[offset + 4 :],
        )
    )


def withoutModEx(typeId: int, payload: bytes) -> bytes:
    """
    Take off the extensions, for a player that cannot read past them.

    What is lost are fractions of a millisecond of its time.  E-RTMP v2: extensions
    modify a packet, which remains one without them.

    @raise MessageError: the extensions are malformed.
    """
    section = _section(typeId)
    if not payload or not _enhanced(typeId, payload):
        return payload
    packetType, offset, modEx = readModEx(payload, _MOD_EX, section)
    if not modEx:
        return payload
    return _byte(payload[0] & 0xF0 | packetType) + payload[offset:]


def toLegacy(typeId: int, payload: bytes) -> bytes | None:
    """
    Write a message the way that players without enhanced capabilities read it.

    avc1, mp4a and .mp3 have such a form, and so have commands.  (Codec id 12 for HEVC
    is in no specification, and players that know it are rare.)  ModEx is taken off.

    @param typeId: the message type id, of audio or video.
    @param payload: one whose tracks are not numbered; a legacy one comes back as it is.
    @return: L{None} if it has no legacy form.
    @raise MessageError: the payload is malformed.
    """
    _section(typeId)
    if not payload or not _enhanced(typeId, payload):
        return payload
    header = _parse(typeId, payload)
    if header.multitrackType is not None:
        return None
    body = payload[header.bodyOffset :]
    if isinstance(header, VideoHeader):
        return _legacyVideo(header, body)
    return _legacyAudio(header, body)


def _legacyVideo(header: VideoHeader, body: bytes) -> bytes | None:
    if header.command is not None:
        # No codec is said; any that stands here is passed over by players.
        return bytes((FrameType.COMMAND << 4 | _LEGACY_AVC, header.command))
    packetType = _AVC_PACKETS.get(header.packetType)
    if header.codec != "avc1" or packetType is None:
        return None
    time = header.compositionTime.to_bytes(3, "big", signed=True)
    first = header.frameType << 4 | _LEGACY_AVC
    return bytes((first, packetType)) + time + body


def _legacyAudio(header: AudioHeader, body: bytes) -> bytes | None:
    packetType = header.packetType
    if header.codec not in ("mp4a", ".mp3"):
        return None
    if packetType == AudioPacketType.SEQUENCE_END:
        # "no less than the same meaning as a silence message", which is empty.
        # E-RTMP v2, AudioPacketType.
        return b""
    if header.codec == "mp4a":
        if packetType == AudioPacketType.SEQUENCE_START:
            # Without a configuration nothing begins, and legacy AAC must have one.
            return _LEGACY_AAC + b"\x00" + body if body else None
        if packetType == AudioPacketType.CODED_FRAMES:
            return _LEGACY_AAC + b"\x01" + body
    elif packetType == AudioPacketType.CODED_FRAMES:
        return _byte(_mp3FirstByte(body)) + body
    return None


def _mp3FirstByte(frame: bytes) -> int:
    """
    The first byte of legacy MP3.

    Its rates are fewer than MP3's, so that the nearest is said, as encoders do;
    decoders go by the frame.  There is a sound format of its own for 8 kHz, 14, but
    FFmpeg does not read it.  Without a frame header to go by: 44.1 kHz, stereo.
    """
    rate, stereo = 44100, 1
    if len(frame) > 3 and frame[0] == 0xFF and frame[1] & 0xE0 == 0xE0:
        halvings = _MP3_HALVINGS.get(frame[1] >> 3 & 3)
        index = frame[2] >> 2 & 3
        if halvings is not None and index < len(_MP3_RATES):
            rate = _MP3_RATES[index] >> halvings
            stereo = int(frame[3] >> 6 != 3)
    nearest = min(range(4), key=lambda bits: abs(_LEGACY_RATES[bits] - rate))
    return _LEGACY_MP3 << 4 | nearest << 2 | 0b10 | stereo


def _splitOneTrack(typeId: int, payload: bytes) -> PlainTrack | None:
    """
    Take OneTrack apart without reading it twice.

    @return: L{None} if this is something else, or malformed.
    """
    first = payload[0]
    if typeId == _VIDEO:
        # Bit 7 and packet type 6, but a command has no tracks.
        if first & 0x8F != 0x86 or first == 0xD6:
            return None
    elif first != 0x95:
        return None
    if len(payload) < 7 or payload[1] > 15 or payload[1] == _MOD_EX:
        return None
    if payload[1] == _MULTITRACK[typeId]:
        return None
    plain = _byte(first & 0xF0 | payload[1]) + payload[2:6] + payload[7:]
    flags = _flags(typeId, plain)
    if flags & MALFORMED:
        return None
    return PlainTrack(payload[6], payload[2:6].decode("latin-1"), plain, flags)


def _section(typeId: int) -> str:
    """Where the rules for a message type stand."""
    section = _SECTIONS.get(typeId)
    if section is None:
        raise UsageError(f"a message of type {typeId} has no tracks")
    return section


def _parse(typeId: int, payload: bytes) -> VideoHeader | AudioHeader:
    return parseVideo(payload) if typeId == _VIDEO else parseAudio(payload)


def _flags(typeId: int, payload: bytes) -> int:
    return videoFlags(payload) if typeId == _VIDEO else audioFlags(payload)


def _enhanced(typeId: int, payload: bytes) -> bool:
    return payload[0] >= 0x80 if typeId == _VIDEO else payload[0] >> 4 == EX_HEADER


def _byte(value: int) -> bytes:
    return bytes((value,))
