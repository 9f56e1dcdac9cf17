"""
The RTMP and FLV wire formats: bytes to values and back, without any I/O.

Only the standard library may be imported below this package.
"""
