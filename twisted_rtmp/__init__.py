"""
RTMP for Twisted: a server, a recorder and the parts they are made of.

C{twisted_rtmp.wire} turns bytes into values and back and knows no I/O; the
modules above it put it on Twisted's transports.  This module must not import
any of them: the build reads C{__version__} from here.
"""

__version__ = "0.1.0"
