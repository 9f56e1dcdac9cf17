"""
HTTP beside RTMP: live streams as FLV, by GET and by WebSocket.

L{HTTPSite} is what an endpoint listens with.  This package imports the factory and what
is below it, and C{twisted.web}; nothing else of the package imports it but the tap.
"""

from twisted_rtmp.web.site import HTTPSite

__all__ = ["HTTPSite"]
