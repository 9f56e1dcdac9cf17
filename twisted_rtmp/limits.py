"""The bounds of what one peer may make the server use, and of each phase's time."""

from __future__ import annotations

from dataclasses import dataclass, field

from twisted_rtmp.wire.limits import MIB, WireLimits

#: From the accepted connection to a finished handshake, in seconds, however
#: it trickles.  Precedents: MediaMTX 10, Red5 5, SRS 30 for each read.
HANDSHAKE_SECONDS = 10.0

#: From the accepted connection, or from the last answer, to a complete request by HTTP,
#: in seconds, however it trickles.  Precedents: Apache 20 for the headers, nginx 60
#: after each read; browsers send a request in one piece.
REQUEST_SECONDS = 10.0

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

#: The name of an application or a stream, in bytes as UTF-8.  Keys have some dozens of
#: characters; nginx-rtmp cuts names at 255 bytes.
NAME_BYTES = 1024

#: What follows a name's C{?}, in bytes as UTF-8.  Signed tokens have up to 2 KiB.
QUERY_BYTES = 8 * 1024

#: One sequence header, in bytes: with a thumbnail in its parameter sets a phone's has
#: some hundred.  A larger one is discarded.
SEQUENCE_HEADER_BYTES = 64 * 1024

#: A stream's metadata, in bytes.  An hour's index of key frames has 100 KiB.
METADATA_BYTES = 256 * 1024

#: All sequence headers and the metadata of a stream together, in bytes: each newcomer
#: gets them.  What would go past it is discarded.
ALL_HEADER_BYTES = 1 * MIB

#: What waits for a player that does not keep up, in bytes and in seconds of media.
#: Past either, it loses whole GOPs.  3 MiB are 10 s of 2.5 Mb/s, 1 s of 25 Mb/s;
#: with the transport's own buffer it stays below 4 MB.
PLAYER_QUEUE_BYTES = 3 * MIB
PLAYER_QUEUE_SECONDS = 10.0

#: The same in messages: 10 s of 16 video tracks of 60 frames a second.  The smallest
#: ones cost 20 times their bytes, and all are looked through now and then.
PLAYER_QUEUE_MESSAGES = 10_000

#: A player that has lost frames for this long, in seconds, and took less than so many
#: bytes a second meanwhile, is cut: what it gets is of no use to anybody.  The smallest
#: streams of speech have 2 KiB/s, and lose nothing at that.
SLOW_PLAYER_SECONDS = 60.0
SLOW_PLAYER_RATE = 8 * 1024

#: Publishes and plays begun on one connection at once, and in each second after; past
#: that it is cut.  Each of its message streams may begin twice; a page that tries
#: several streams begins some dozens, a player that looks for one, one a second.
STREAM_BURST = 64
STREAM_RATE = 2.0

#: Bytes of cached GOPs that one connection is begun with at once, and in each second
#: after; past that it begins with the next key frame.  Two of the largest at once, or
#: one of a usual size each half a second.
GOP_BURST_BYTES = 16 * MIB
GOP_RATE_BYTES = 1 * MIB

#: What is kept of the current GOP for players that join, in bytes, in messages and in
#: seconds: 8 MiB are 10 s of 6 Mb/s.  SRS keeps 2500 frames, node-media-server 4096;
#: with audio these are half a minute.  A camera with a frame a second reaches neither
#: bound for long, but nobody wants to begin minutes behind.
GOP_BYTES = 8 * MIB
GOP_MESSAGES = 2500
GOP_SECONDS = 30.0

#: The tracks of all messages of a GOP together, of which some have several: for each
#: newcomer its tracks are chosen out of them, in a millisecond for each thousand.
GOP_TRACKS = 8_000


@dataclass(frozen=True)
class QueueLimits:
    """
    The bounds of what waits for a player.

    @ivar bytes: L{PLAYER_QUEUE_BYTES}
    @ivar seconds: L{PLAYER_QUEUE_SECONDS}, by the times of the media.
    @ivar messages: L{PLAYER_QUEUE_MESSAGES}
    @ivar slowSeconds: L{SLOW_PLAYER_SECONDS}
    @ivar slowRate: L{SLOW_PLAYER_RATE}, in bytes a second; 0 for none.
    """

    bytes: int = PLAYER_QUEUE_BYTES
    seconds: float = PLAYER_QUEUE_SECONDS
    messages: int = PLAYER_QUEUE_MESSAGES
    slowSeconds: float = SLOW_PLAYER_SECONDS
    slowRate: int = SLOW_PLAYER_RATE


@dataclass(frozen=True)
class HeaderLimits:
    """
    The bounds of what is kept of a stream for newcomers besides its GOP.

    @ivar bytes: L{SEQUENCE_HEADER_BYTES}
    @ivar metadataBytes: L{METADATA_BYTES}
    @ivar allBytes: L{ALL_HEADER_BYTES}
    """

    bytes: int = SEQUENCE_HEADER_BYTES
    metadataBytes: int = METADATA_BYTES
    allBytes: int = ALL_HEADER_BYTES


@dataclass(frozen=True)
class GOPLimits:
    """
    The bounds of the GOP that is kept for newcomers.

    @ivar bytes: L{GOP_BYTES}
    @ivar messages: L{GOP_MESSAGES}
    @ivar seconds: L{GOP_SECONDS}, by the times of the media.
    @ivar tracks: L{GOP_TRACKS}
    """

    bytes: int = GOP_BYTES
    messages: int = GOP_MESSAGES
    seconds: float = GOP_SECONDS
    tracks: int = GOP_TRACKS


#: The share of all connections that one address may have.  Load balancers, offices and
#: test machines bring thousands from one address; the others have places left.
CONNECTION_SHARE = 7 / 8

#: Publishes begun by one address at once, and in each second after.  A city's encoders
#: behind one address come back within some seconds when its network does.
PUBLISH_BURST = 5000
PUBLISH_RATE = 100.0

#: Plays begun by one address at once, and in each second after.  An office in which
#: everybody opens one page at the same time has hundreds.
PLAY_BURST = 5000
PLAY_RATE = 500.0

#: Refusals that one address is told at once, and in each second after: no more than 20
#: guesses in any second.  An encoder with a wrong key tries every few seconds.
REFUSAL_BURST = 10
REFUSAL_RATE = 10.0

#: Files of recordings that are unfinished at once.  Each costs a descriptor, and 0.3 ms
#: when the server stops; past it a newcomer is live and not recorded.
RECORDINGS = 4096

#: Children that run at once for streams; past it a newcomer is live without one.  Each
#: is a process of some MiB.
PIPES = 512

#: The share of all unfinished recordings, and of all children, that one address may
#: have.
RECORDING_SHARE = 3 / 4

#: Log bytes on one address at once, and in each second after, besides those that it
#: has sent itself: what a peer makes the log grow by, it has paid for.
LOG_BURST = 64 * 1024
LOG_RATE = 1024.0

#: Streams that wait for their publisher to come back, and the part of them that were
#: published from one address.  Each keeps its recording's file open, and its GOP; a
#: site with more encoders than a quarter of them gets new recordings for the rest.
WAITING_STREAMS = 1024
WAITING_STREAM_SHARE = 1 / 4

#: Addresses that are remembered, the longest unheard of being forgotten first: 200
#: bytes each.  A forgotten one has its bursts again.
MAX_ADDRESSES = 16_384


@dataclass(frozen=True)
class AddressLimits:
    """
    The bounds of one address.

    A burst is what may happen at once, a rate how much more in each second.

    @ivar connectionShare: L{CONNECTION_SHARE}
    @ivar publishBurst: L{PUBLISH_BURST}
    @ivar publishRate: L{PUBLISH_RATE}
    @ivar playBurst: L{PLAY_BURST}
    @ivar playRate: L{PLAY_RATE}
    @ivar recordingShare: L{RECORDING_SHARE}
    @ivar refusalBurst: L{REFUSAL_BURST}
    @ivar refusalRate: L{REFUSAL_RATE}
    @ivar logBurst: L{LOG_BURST}
    @ivar logRate: L{LOG_RATE}
    @ivar waitingStreamShare: L{WAITING_STREAM_SHARE}
    @ivar addresses: L{MAX_ADDRESSES}
    """

    connectionShare: float = CONNECTION_SHARE
    publishBurst: int = PUBLISH_BURST
    publishRate: float = PUBLISH_RATE
    playBurst: int = PLAY_BURST
    playRate: float = PLAY_RATE
    recordingShare: float = RECORDING_SHARE
    refusalBurst: int = REFUSAL_BURST
    refusalRate: float = REFUSAL_RATE
    logBurst: float = LOG_BURST
    logRate: float = LOG_RATE
    waitingStreamShare: float = WAITING_STREAM_SHARE
    addresses: int = MAX_ADDRESSES


#: What one connection may make the server keep, in bytes: its unfinished messages, what
#: it has sent and waits for its turn, and what it does not take of what it asked for.
#: The same as all its unfinished messages, beside which an honest one keeps nothing.
CONNECTION_BYTES = 12 * MIB

#: What the connections of one address may keep of that together, in bytes, besides the
#: media that are sent to them.  A hundred encoders behind one address that are all in
#: the middle of a key frame of half a MiB stay below.
ADDRESS_BYTES = 64 * MIB

#: What one stream may keep for its players and recordings, in bytes: 1 MiB of headers,
#: 8 MiB of a GOP, and where players or the disk do not keep up, 3 MiB and 8 MiB more,
#: with room for what a second form of its messages takes.
STREAM_BYTES = 32 * MIB

#: All of it together, in bytes.  A hundred publishers with 10 MiB each and a thousand
#: players with 256 KiB each are 1.3 GiB.
SERVER_BYTES = 2048 * MIB


@dataclass(frozen=True)
class MemoryLimits:
    """
    The bounds of the memory that peers make the server keep, each in bytes.

    @ivar connectionBytes: L{CONNECTION_BYTES}; if L{WireLimits.unfinishedBytes} is
        more, that counts.
    @ivar addressBytes: L{ADDRESS_BYTES}
    @ivar streamBytes: L{STREAM_BYTES}
    @ivar serverBytes: L{SERVER_BYTES}
    """

    connectionBytes: int = CONNECTION_BYTES
    addressBytes: int = ADDRESS_BYTES
    streamBytes: int = STREAM_BYTES
    serverBytes: int = SERVER_BYTES


@dataclass(frozen=True)
class ServerLimits:
    """
    The bounds that a server keeps with each peer; times are in seconds.

    @ivar wire: the bounds of the wire layer.
    @ivar handshakeSeconds: L{HANDSHAKE_SECONDS}
    @ivar requestSeconds: L{REQUEST_SECONDS}
    @ivar connectSeconds: L{CONNECT_SECONDS}
    @ivar idleSeconds: L{IDLE_SECONDS}
    @ivar decisionSeconds: L{DECISION_SECONDS}
    @ivar publisherIdleSeconds: L{PUBLISHER_IDLE_SECONDS}
    @ivar playerWaitSeconds: L{PLAYER_WAIT_SECONDS}
    @ivar drainSeconds: L{DRAIN_SECONDS}
    @ivar queuedReplyBytes: L{QUEUED_REPLY_BYTES}
    @ivar netStreams: L{NET_STREAMS}
    @ivar streamBurst: L{STREAM_BURST}
    @ivar streamRate: L{STREAM_RATE}
    @ivar gopBurstBytes: L{GOP_BURST_BYTES}
    @ivar gopRateBytes: L{GOP_RATE_BYTES}
    @ivar connections: L{CONNECTIONS}
    @ivar recordings: L{RECORDINGS}
    @ivar pipes: L{PIPES}
    @ivar addresses: the bounds of one address.
    @ivar silentSeconds: L{SILENT_SECONDS}
    @ivar waitingStreams: L{WAITING_STREAMS}
    @ivar stopSeconds: L{STOP_SECONDS}
    @ivar playerQueue: what may wait for a player that does not keep up.
    @ivar gop: how much of a GOP is kept for newcomers.
    @ivar headers: how much of sequence headers and metadata is kept for them.
    @ivar memory: how much peers may make the server keep.
    """

    wire: WireLimits = field(default_factory=WireLimits)
    handshakeSeconds: float = HANDSHAKE_SECONDS
    requestSeconds: float = REQUEST_SECONDS
    connectSeconds: float = CONNECT_SECONDS
    idleSeconds: float = IDLE_SECONDS
    decisionSeconds: float = DECISION_SECONDS
    publisherIdleSeconds: float = PUBLISHER_IDLE_SECONDS
    playerWaitSeconds: float = PLAYER_WAIT_SECONDS
    drainSeconds: float = DRAIN_SECONDS
    queuedReplyBytes: int = QUEUED_REPLY_BYTES
    netStreams: int = NET_STREAMS
    streamBurst: int = STREAM_BURST
    streamRate: float = STREAM_RATE
    gopBurstBytes: int = GOP_BURST_BYTES
    gopRateBytes: int = GOP_RATE_BYTES
    connections: int = CONNECTIONS
    recordings: int = RECORDINGS
    pipes: int = PIPES
    addresses: AddressLimits = field(default_factory=AddressLimits)
    silentSeconds: float = SILENT_SECONDS
    waitingStreams: int = WAITING_STREAMS
    stopSeconds: float = STOP_SECONDS
    playerQueue: QueueLimits = field(default_factory=QueueLimits)
    gop: GOPLimits = field(default_factory=GOPLimits)
    headers: HeaderLimits = field(default_factory=HeaderLimits)
    memory: MemoryLimits = field(default_factory=MemoryLimits)
