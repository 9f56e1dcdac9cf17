"""
HTTP beside RTMP: live streams as FLV, by GET and by WebSocket.

L{HTTPSite} is what an endpoint listens with.
"""

from twisted_rtmp.web.site import HTTPSite

__all__ = ["HTTPSite"]
