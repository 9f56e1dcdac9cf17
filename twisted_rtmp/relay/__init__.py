"""
Relays: streams pushed to other servers and pulled from them.

Each is a service, for a server's own or an application's.
"""

from twisted_rtmp.relay.origin import Origin, parseOrigin
from twisted_rtmp.relay.pull import Pull, PullRelay, parsePull
from twisted_rtmp.relay.push import Push
from twisted_rtmp.relay.pushes import PushRelays
from twisted_rtmp.relay.states import RelayCounters, RelayState
from twisted_rtmp.relay.targets import PushTarget

__all__ = [
    "Origin",
    "Pull",
    "PullRelay",
    "Push",
    "PushRelays",
    "PushTarget",
    "RelayCounters",
    "RelayState",
    "parseOrigin",
    "parsePull",
]
