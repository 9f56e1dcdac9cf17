"""
An RTMP client: publishes to servers and plays from them.

Start with L{connectRTMP}.  It shares C{link} with the server, and knows neither its
protocol nor its live streams.
"""

from twisted_rtmp.client.connecting import connectRTMP
from twisted_rtmp.client.errors import (
    ClientError,
    CommandFailed,
    ConnectionEnded,
    ConnectRejected,
    ConnectUnauthorized,
    InvalidApplication,
    InvalidURL,
    NameTaken,
    PlayRefused,
    PlayUnauthorized,
    PublishRefused,
    PublishUnauthorized,
    ServerRefused,
    StreamNotFound,
    TimeLimitPassed,
    Unauthorized,
)
from twisted_rtmp.client.limits import ClientLimits
from twisted_rtmp.client.protocol import RTMPClient
from twisted_rtmp.client.status import ReconnectRequest, Status
from twisted_rtmp.client.streams import Publication, Subscription
from twisted_rtmp.client.url import RTMPURL

__all__ = [
    "RTMPURL",
    "ClientError",
    "ClientLimits",
    "CommandFailed",
    "ConnectRejected",
    "ConnectUnauthorized",
    "ConnectionEnded",
    "InvalidApplication",
    "InvalidURL",
    "NameTaken",
    "PlayRefused",
    "PlayUnauthorized",
    "Publication",
    "PublishRefused",
    "PublishUnauthorized",
    "RTMPClient",
    "ReconnectRequest",
    "ServerRefused",
    "Status",
    "StreamNotFound",
    "Subscription",
    "TimeLimitPassed",
    "Unauthorized",
    "connectRTMP",
]
