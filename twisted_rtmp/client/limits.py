"""Limits of a client: how long it waits, and how much a server may make it use."""

from __future__ import annotations

from dataclasses import dataclass, field

from twisted_rtmp.limits import DRAIN_SECONDS
from twisted_rtmp.wire.limits import WireLimits

#: From the first packet to an accepted C{connect}, in seconds; with the look-up of the
#: name, TLS, the handshake and up to two rounds of authentication.  OBS gives 30 to the
#: TCP connection alone, ffmpeg has no limit; a relay is to try again soon.
CONNECT_SECONDS = 15.0

#: From a command to its answer, in seconds.  Servers that ask a web hook before they
#: answer may wait for its time limit, often 10.
COMMAND_SECONDS = 15.0

#: From the end of a publication, or of this end of the connection, to the server's
#: confirmation or end, in seconds.  All has been sent then; some servers never answer.
FAREWELL_SECONDS = 5.0

#: The number of redirects that are followed in a row, from server to server.
MAX_REDIRECTS = 5

#: The number of reconnect requests that are obeyed at once.  Two servers that send a
#: client to each other would do so for ever; browsers follow 20 redirections, curl 50,
#: and a cluster needs one or two.
MAX_MOVES = 5

#: A connection that lasted for this time, in seconds, was a good one: failures before
#: it are forgotten.
STEADY_SECONDS = 10.0

#: The longest time until the next move is obeyed, in seconds.  Past L{MAX_MOVES} this
#: time doubles with each move, from L{STEADY_SECONDS} on; each move is forgotten after
#: as long.
MAX_MOVE_SECONDS = 600.0

#: Log lines about a server's requests on one connection: some at once, and a number of
#: them in each second after.  A server that asks all the time cannot fill the log.
REQUEST_LINES = 10
REQUEST_LINE_RATE = 1 / 60


@dataclass(frozen=True)
class ClientLimits:
    """
    The bounds that a client keeps; times are in seconds.

    @ivar wire: the bounds of the wire layer.
    @ivar connectSeconds: L{CONNECT_SECONDS}
    @ivar commandSeconds: L{COMMAND_SECONDS}
    @ivar drainSeconds: the time after which a server is left that takes nothing of
        what is queued for it; see L{DRAIN_SECONDS<twisted_rtmp.limits.DRAIN_SECONDS>}.
    @ivar silenceSeconds: the time after which a server is left that sends no audio or
        video of a stream that is played.  0, the default, waits for ever: the stream
        may not have started.
    @ivar farewellSeconds: L{FAREWELL_SECONDS}
    """

    wire: WireLimits = field(default_factory=WireLimits)
    connectSeconds: float = CONNECT_SECONDS
    commandSeconds: float = COMMAND_SECONDS
    drainSeconds: float = DRAIN_SECONDS
    silenceSeconds: float = 0.0
    farewellSeconds: float = FAREWELL_SECONDS
