"""
Payloads of audio, video and data messages: what they are and what is in them.

Sans-IO like L{twisted_rtmp.wire}, on which it is built: no Twisted.
"""
