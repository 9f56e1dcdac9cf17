"""
Makes C{twistd rtmp} known.  Must not import anything but this one name: every
C{twistd} on the machine reads this file.
"""

from twisted.application.service import ServiceMaker

rtmp = ServiceMaker(
    "RTMP server",
    "twisted_rtmp.tap",
    "An RTMP server that records what encoders publish.",
    "rtmp",
)
