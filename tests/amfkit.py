"""Values, bounds and checks that the tests of AMF0 and AMF3 share."""

from __future__ import annotations

import math
import sys
from enum import IntEnum

from twisted_rtmp.wire.errors import AMFError, LimitError
from twisted_rtmp.wire.limits import WireLimits


def hexed(text):
    return bytes.fromhex(text)


def isSame(one, other):
    """Equal, with types and attributes, which lists do not compare."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, float) and math.copysign(1, one) != math.copysign(1, other):
        return False
    if getattr(one, "__dict__", None) != getattr(other, "__dict__", None):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(
            isSame(one[key], other[key]) for key in one
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(isSame, one, other))
    return True


def unfolded(value):
    return 1 + sum(map(unfolded, value))


def doubledList():
    value = []
    for _ in range(100):
        value = [value, value]
    return value


class Number(IntEnum):
    EIGHT = 8


def check(codec, data):
    """
    Decode, or AMFError or LimitError; and whatever is decoded is a tree that
    can be written, which reads as the same again.
    """
    try:
        values = codec.decode(data)
    except (AMFError, LimitError):
        return False
    written = codec.encode(*values)
    assert codec.encode(*codec.decode(written)) == written
    return True


def assertWorkIsLinear(codec, shape):
    def calls(data):
        counted = 0

        def profile(frame, event, arg):
            nonlocal counted
            counted += event in ("call", "c_call")

        sys.setprofile(profile)
        try:
            codec.decode(data, WireLimits(amfValues=10**6))
        finally:
            sys.setprofile(None)
        return counted

    # All counts of AMF3 have U29s of two octets here.
    one, two, three = (calls(shape(n)) for n in (300, 600, 900))
    assert two - one == three - two  # the same for each value more
    assert two - one <= 300 * 60
