"""
Numbers that RTMP, AMF and FLV give a meaning to.

Imports the standard library only.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final, Literal


class NeedData(Enum):
    """The type of L{NEED_DATA}."""

    NEED_DATA = "need data"

    def __repr__(self) -> str:
        return "NEED_DATA"


#: What a parser returns when it has no complete value yet: feed it more.
NEED_DATA: Final[Literal[NeedData.NEED_DATA]] = NeedData.NEED_DATA

#: The version byte of plain RTMP.  RTMP 1.0, 5.2.2.
RTMP_VERSION = 3

#: C1, C2, S1 and S2, in bytes.  RTMP 1.0, 5.2.3.
HANDSHAKE_SIZE = 1536

#: The chunk size of both directions before any Set Chunk Size, in bytes.
#: RTMP 1.0, 5.4.1.
DEFAULT_CHUNK_SIZE = 128

#: A message's length has 24 bits.  RTMP 1.0, 6.1.1.
MAX_MESSAGE_LENGTH = 0xFFFFFF

#: A 24-bit timestamp field of this value (or more, when writing) says that
#: 32 bits follow the message header.  RTMP 1.0, 5.3.1.3.
EXTENDED_TIMESTAMP = 0xFFFFFF

#: The first and the last chunk stream id.  2 is for protocol control
#: messages; 0 and 1 select the longer basic headers.  RTMP 1.0, 5.3.1.1.
FIRST_CHUNK_STREAM_ID = 2
LAST_CHUNK_STREAM_ID = 65599


#: The code of an C{onStatus} that asks a client to reconnect.  E-RTMP v2, Reconnect
#: Request.
RECONNECT_REQUEST = "NetConnection.Connect.ReconnectRequest"


class MessageType(IntEnum):
    """Message type ids.  RTMP 1.0, 5.4 and 7.1."""

    SET_CHUNK_SIZE = 1
    ABORT = 2
    ACKNOWLEDGEMENT = 3
    USER_CONTROL = 4
    WINDOW_ACKNOWLEDGEMENT_SIZE = 5
    SET_PEER_BANDWIDTH = 6
    AUDIO = 8
    VIDEO = 9
    DATA_AMF3 = 15
    SHARED_OBJECT_AMF3 = 16
    COMMAND_AMF3 = 17
    DATA_AMF0 = 18
    SHARED_OBJECT_AMF0 = 19
    COMMAND_AMF0 = 20
    AGGREGATE = 22


class UserControlType(IntEnum):
    """
    Event types of user control messages.  RTMP 1.0, 7.1.7; the ones from 26
    on are Flash Media Server's, as librtmp knows them.
    """

    STREAM_BEGIN = 0
    STREAM_EOF = 1
    STREAM_DRY = 2
    SET_BUFFER_LENGTH = 3
    STREAM_IS_RECORDED = 4
    PING_REQUEST = 6
    PING_RESPONSE = 7
    SWF_VERIFY_REQUEST = 26
    SWF_VERIFY_RESPONSE = 27
    BUFFER_EMPTY = 31
    BUFFER_READY = 32


class PeerBandwidthLimit(IntEnum):
    """Limit types of Set Peer Bandwidth.  RTMP 1.0, 5.4.5."""

    HARD = 0
    SOFT = 1
    DYNAMIC = 2


class TagType(IntEnum):
    """FLV tag types; the same numbers as the message types'.  FLV 10.1, E.4.1."""

    AUDIO = 8
    VIDEO = 9
    SCRIPT_DATA = 18
