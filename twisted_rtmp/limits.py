"""
What one peer may make the server use, and how long each phase may take.

Imports C{twisted_rtmp.wire} only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from twisted_rtmp.wire.limits import MIB, WireLimits

#: From the accepted connection to a finished handshake, in seconds, however
#: it trickles.  Precedents: MediaMTX 10, Red5 5, SRS 30 for each read.
HANDSHAKE_SECONDS = 10.0

#: From the handshake to an accepted C{connect}, in seconds.
CONNECT_SECONDS = 10.0

#: From C{connect} to the first publish or play, and between two of them, in
#: seconds.  An encoder does all its commands within one or two round trips.
IDLE_SECONDS = 10.0

#: A decision on a connect, publish or play, in seconds.  Encoders on phones give up
#: after 3, OBS after 15; what has not been decided by then helps nobody.
DECISION_SECONDS = 10.0

#: A publisher without audio or video, in seconds.  ffmpeg may probe its input
#: for more than 5 s after publish; nginx-rtmp never cuts, SRS does after 5.
PUBLISHER_IDLE_SECONDS = 10.0

#: A player that waits for a stream nobody publishes, in seconds.
PLAYER_WAIT_SECONDS = 30.0

#: A peer that does not take what is queued for it, in seconds.
DRAIN_SECONDS = 10.0

#: Replies queued for a peer that does not read, in bytes.  A reply is some
#: hundred bytes; no honest client is ever behind by thousands of them.
QUEUED_REPLY_BYTES = 1 * MIB

#: Message streams a connection may have open.  Clients use one; SRS bounds
#: its recursion at 3, nginx-rtmp has 32 (max_streams).
NET_STREAMS = 32

#: Connections at once.  Below the descriptors that twistd raises its soft
#: limit to; past it a newcomer is closed at once and counted.
CONNECTIONS = 16_384

#: A publisher that has been silent for this long, in seconds, is taken to be
#: gone when another one comes for its stream.
SILENT_SECONDS = 3.0

#: From the order to stop to the last closed recording, in seconds.  Leaving takes some
#: tenths more, and service managers think of 5 s as long.
STOP_SECONDS = 4.0


@dataclass(frozen=True)
class ServerLimits:
    """
    The bounds that a server keeps with each peer; times are in seconds.

    @ivar wire: the bounds of the wire layer.
    @ivar handshakeSeconds: L{HANDSHAKE_SECONDS}
    @ivar connectSeconds: L{CONNECT_SECONDS}
    @ivar idleSeconds: L{IDLE_SECONDS}
    @ivar decisionSeconds: L{DECISION_SECONDS}
    @ivar publisherIdleSeconds: L{PUBLISHER_IDLE_SECONDS}
    @ivar playerWaitSeconds: L{PLAYER_WAIT_SECONDS}
    @ivar drainSeconds: L{DRAIN_SECONDS}
    @ivar queuedReplyBytes: L{QUEUED_REPLY_BYTES}
    @ivar netStreams: L{NET_STREAMS}
    @ivar connections: L{CONNECTIONS}
    @ivar silentSeconds: L{SILENT_SECONDS}
    @ivar stopSeconds: L{STOP_SECONDS}
    """

    wire: WireLimits = field(default_factory=WireLimits)
    handshakeSeconds: float = HANDSHAKE_SECONDS
    connectSeconds: float = CONNECT_SECONDS
    idleSeconds: float = IDLE_SECONDS
    decisionSeconds: float = DECISION_SECONDS
    publisherIdleSeconds: float = PUBLISHER_IDLE_SECONDS
    playerWaitSeconds: float = PLAYER_WAIT_SECONDS
    drainSeconds: float = DRAIN_SECONDS
    queuedReplyBytes: int = QUEUED_REPLY_BYTES
    netStreams: int = NET_STREAMS
    connections: int = CONNECTIONS
    silentSeconds: float = SILENT_SECONDS
    stopSeconds: float = STOP_SECONDS
