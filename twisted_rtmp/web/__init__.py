"""
HTTP beside RTMP: live streams as FLV, in responses and in WebSockets.

L{HTTPSite} is what an endpoint listens with.
"""

from twisted_rtmp.web.site import HTTPSite

__all__ = ["HTTPSite"]
