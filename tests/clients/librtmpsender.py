"""
Publish an FLV file with librtmp: python librtmpsender.py LIBRARY FILE URL.

A program of its own, since the library blocks, and ends the process where it
does not like what it gets.
"""

import ctypes
import sys

library, path, url = sys.argv[1:]
rtmp = ctypes.CDLL(library)
for function, result, *arguments in [
    ("RTMP_Alloc", ctypes.c_void_p),
    ("RTMP_Init", None, ctypes.c_void_p),
    ("RTMP_SetupURL", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p),
    ("RTMP_EnableWrite", None, ctypes.c_void_p),
    ("RTMP_Connect", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
    ("RTMP_ConnectStream", ctypes.c_int, ctypes.c_void_p, ctypes.c_int),
    ("RTMP_Write", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int),
    ("RTMP_Close", None, ctypes.c_void_p),
    ("RTMP_Free", None, ctypes.c_void_p),
]:
    getattr(rtmp, function).restype = result
    getattr(rtmp, function).argtypes = arguments

with open(path, "rb") as file:
    data = file.read()
session = rtmp.RTMP_Alloc()
rtmp.RTMP_Init(session)
buffer = ctypes.create_string_buffer(url.encode())  # the library keeps pointers to it
if not rtmp.RTMP_SetupURL(session, buffer):
    sys.exit("librtmp does not understand the URL")
rtmp.RTMP_EnableWrite(session)
if not rtmp.RTMP_Connect(session, None):
    sys.exit("librtmp does not connect")
if not rtmp.RTMP_ConnectStream(session, 0):
    sys.exit("librtmp does not publish")
written = rtmp.RTMP_Write(session, data, len(data))
rtmp.RTMP_Close(session)
rtmp.RTMP_Free(session)
if written != len(data):
    sys.exit(f"librtmp wrote {written} bytes of {len(data)}")
