"""
Parts: one track out of several; enhanced messages in their legacy form.

For players that read fewer dialects than the publisher writes, and for files of one
track each.  The bytes of a frame stay what they are: only headers are rewritten.
Messages that pass as they came are not taken apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

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
    CODED,
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

# As plain numbers, since comparing with an enum member costs 40 ns.
_VIDEO = MessageType.VIDEO.value

_ONE_TRACK = MultitrackType.ONE_TRACK.value
_CODED_FRAMES = VideoPacketType.CODED_FRAMES.value
_TIMED = frozenset(codec.encode("ascii") for codec in TIMED)
_MANY_CODECS = MultitrackType.MANY_TRACKS_MANY_CODECS.value

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


#: Where a numbered message has one track: its number; the FourCC of its codec; where it
#: begins in the payload, with its number, and before it its FourCC if it has one of its
#: own; where its body begins, and with it its composition time; where it ends; and
#: whether it has a body.  A plain tuple, since there are dozens to a message.
_Place: TypeAlias = tuple[int, bytes, int, int, int, bool]


def _placesIn(typeId: int, payload: bytes, flags: int) -> tuple[bytes, list[_Place]]:
    """
    Find the tracks of a message: 0.4 us each.

    @param flags: of the payload: numbered, and not malformed.
    @return: how a message of one of them alone begins, up to the FourCC; and the
        tracks, none if their layout is one that is not known.
    """
    at = 1
    if flags & MOD_EX:
        _, at, _ = readModEx(payload, _MOD_EX, _section(typeId))
    layout = payload[at] >> 4
    packetType = payload[at] & 15
    start = payload[: at - 1] + _byte(payload[at - 1] & 0xF0 | packetType)
    if layout > _MANY_CODECS or packetType == _MOD_EX:
        return start, []  # ModEx stands before Multitrack; here it means nothing
    at += 1
    fourCC = b""
    if layout != _MANY_CODECS:
        fourCC = payload[at : at + 4]
        at += 4
    isTimed = typeId == _VIDEO and packetType == _CODED_FRAMES
    places = []
    end = len(payload)
    while True:
        begin = at
        if layout == _MANY_CODECS:
            fourCC = payload[at : at + 4]
            at += 4
        trackId = payload[at]
        if layout == _ONE_TRACK:
            body, at = at + 1, end
        else:
            body = at + 4
            at = body + int.from_bytes(payload[at + 1 : body], "big")
        time = 3 if isTimed and fourCC in _TIMED else 0
        places.append((trackId, fourCC, begin, body, at, at - body > time))
        if at >= end:
            return start, places


def _plainTrack(start: bytes, payload: bytes, flags: int, place: _Place) -> PlainTrack:
    """Make a message of one track."""
    trackId, fourCC, _, body, end, hasBody = place
    return PlainTrack(
        trackId,
        fourCC.decode("latin-1"),
        start + fourCC + payload[body:end],
        _flagsWith(flags & ~MULTITRACK, hasBody),
    )


def _flagsWith(flags: int, hasBody: bool) -> int:
    """Give the flags of a part of a message: without a body it is no frame."""
    if flags & CODED and not hasBody:
        return flags & (ENHANCED | MOD_EX | MULTITRACK) | EMPTY
    return flags


def splitTracks(
    typeId: int, payload: bytes, flags: int | None = None
) -> list[PlainTrack]:
    """
    Take a message apart by its tracks.

    ModEx stands before all tracks and goes with each.  A message that is not numbered
    comes back as it is.  1.5 us for a message of one track (CPython 3.11), 1 us for
    each track of others.

    @param typeId: the message type id, of audio or video.
    @param flags: of the payload, if they are known.
    @return: the tracks in their order, in which an id may come twice; none if their
        layout is one that is not known.
    @raise MessageError: the payload is malformed.
    """
    _section(typeId)
    if not payload:
        return [PlainTrack(0, "", payload, EMPTY)]
    if flags is None:
        flags = _flags(typeId, payload)
    if not flags & MULTITRACK or flags & MALFORMED:
        header = _parse(typeId, payload)
        return [PlainTrack(0, header.codec, payload, header.flags)]
    start, places = _placesIn(typeId, payload, flags)
    return [_plainTrack(start, payload, flags, place) for place in places]


def partsOf(message: Message) -> Sequence[PlainTrack]:
    """
    Take a message apart as L{splitTracks} does, but once for all callers.

    The parts copy the payload: L{forgetParts} is for messages that are kept.

    @param message: one that is not malformed, whose flags are set.
    """
    parts = getattr(message, "parts", None)
    if parts is None:
        parts = message.parts = splitTracks(
            message.typeId, message.payload, message.flags
        )
    return parts


def partOf(message: Message, trackId: int) -> list[PlainTrack] | None:
    """
    Take one track out of a message.

    @param message: one whose tracks are numbered, not malformed, whose flags are set.
    @return: the track, seldom several of the number, or none; L{None} if the layout is
        one that is not known.
    """
    flags, payload = message.flags, message.payload
    if not flags & MOD_EX and payload[1] < 16 and payload[6] != trackId:
        return []  # OneTrack, which is what encoders send most
    start, places = _placesIn(message.typeId, payload, flags)
    if not places:
        return None
    return [
        _plainTrack(start, payload, flags, place)
        for place in places
        if place[0] == trackId
    ]


def onlyCodecs(
    typeId: int, payload: bytes, flags: int, takes: Callable[[str], bool]
) -> tuple[bytes, int, int]:
    """
    Leave the tracks out of a message whose codec a player does not take.

    @param flags: of the payload: numbered, and not malformed.
    @param takes: tells by its FourCC whether a codec is taken.
    @return: the payload, empty if no track is left; its flags; and how many tracks have
        been left out.  A layout that is not known stays as it is.
    """
    if not flags & MOD_EX and payload[1] < 16:  # OneTrack
        if takes(payload[2:6].decode("latin-1")):
            return payload, flags, 0
        return b"", 0, 1
    _, places = _placesIn(typeId, payload, flags)
    codecs = {place[1] for place in places}
    taken = {codec for codec in codecs if takes(codec.decode("latin-1"))}
    if len(taken) == len(codecs):
        return payload, flags, 0
    if not taken:
        return b"", 0, len(places)
    # There is more than one codec, so that each track has its own.
    kept = [place for place in places if place[1] in taken]
    first = places[0][2]
    if len(kept) == 1:
        [(trackId, fourCC, _, body, end, _)] = kept
        start = payload[: first - 1] + _byte(_ONE_TRACK << 4 | payload[first - 1] & 15)
        pieces = [start, fourCC, _byte(trackId), payload[body:end]]
    else:
        pieces = [payload[:first]]
        pieces += [payload[begin:end] for _, _, begin, _, end, _ in kept]
    hasBody = any(place[5] for place in kept)
    return b"".join(pieces), _flagsWith(flags, hasBody), len(places) - len(kept)


def forgetParts(messages: Iterable[Message]) -> None:
    """Free the memory of the parts of messages whose flags are set."""
    for message in messages:
        if message.flags & ENHANCED:
            message.parts = None


def trackIdsOf(message: Message) -> Sequence[int]:
    """
    List the tracks of which an audio or video message has frames, headers or metadata.

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
    Make the key of a header: it replaces the headers of a stream with an equal key.

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
        # It names no codec; players ignore the one that stands here.
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
    Make the first byte of legacy MP3.

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


def _section(typeId: int) -> str:
    """Name the section with the rules for a message type."""
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
