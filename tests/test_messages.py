"""Messages and the values inside them: equality, text for people, aggregates."""

from __future__ import annotations

import struct

import pytest

from twisted_rtmp.wire.errors import MessageError
from twisted_rtmp.wire.messages import (
    Command,
    Message,
    UserControl,
    splitAggregate,
)


def tag(typeId, time, payload):
    """The layout of an FLV tag with its size behind it: E.4.1."""
    head = struct.pack(">I", typeId << 24 | len(payload))
    head += struct.pack(">I", (time & 0xFFFFFF) << 8 | time >> 24) + bytes(3)
    return head + payload + struct.pack(">I", 11 + len(payload))


class TestMessage:
    def test_equality(self):
        one = Message(9, 40, 1, b"abc")
        assert one == Message(9, 40, 1, b"abc")
        assert one == Message(9, 40, 1, b"abc", flags=3)
        for other in (
            Message(8, 40, 1, b"abc"),
            Message(9, 41, 1, b"abc"),
            Message(9, 40, 2, b"abc"),
            Message(9, 40, 1, b"abd"),
            (9, 40, 1, b"abc"),
        ):
            assert one != other

    def test_unhashable(self):
        """It may be changed, so it is no key."""
        with pytest.raises(TypeError):
            hash(Message(9, 40, 1, b"abc"))

    def test_noDictionary(self):
        """One is made for every frame, so each is small."""
        assert not hasattr(Message(9, 0, 1, b""), "__dict__")

    def test_textHasNoPayload(self):
        text = repr(Message(9, 2**33, 1, b"secret"))
        assert text == f"<Message type 9 at {2**33} ms on stream 1, 6 bytes>"


def test_texts():
    assert repr(Command("play", 4.0, [None, "key"], 1)) == "<Command 'play' 4 on 1>"
    assert repr(UserControl(3, 1, 3000)) == "<UserControl 3 1 3000>"


class TestSplitAggregate:
    def split(self, payload, time=1000):
        return list(splitAggregate(Message(22, time, 7, payload)))

    def test_messages(self):
        payload = tag(8, 5, b"a") + tag(9, 8, b"bc") + tag(18, 3, b"")
        assert self.split(payload) == [
            Message(8, 1000, 7, b"a"),
            Message(9, 1003, 7, b"bc"),
            Message(18, 998, 7, b""),
        ]

    @pytest.mark.parametrize("first", [0, 2**24 - 1, 2**24, 2**31, 2**32 - 1])
    @pytest.mark.parametrize("step", [0, 1, 33, 2**24, 2**31 - 1, -1, -(2**31)])
    def test_offsets(self, first, step):
        """Any two times, up to 24.8 days apart, also across the wrap."""
        second = (first + step) % 2**32
        payload = tag(9, first, b"a") + tag(9, second, b"b")
        assert [m.timestamp for m in self.split(payload, 2**40)] == [
            2**40,
            2**40 + step,
        ]

    def test_everyTruncation(self):
        """Whole messages are given; what is no message is an error."""
        payload = tag(8, 0, b"aaa") + tag(9, 0, b"bb")
        first = len(tag(8, 0, b"aaa"))
        for size in range(len(payload) + 1):
            messages = splitAggregate(Message(22, 0, 1, payload[:size]))
            # The last back pointer may be missing in part.
            whole = [b"aaa"] * (size >= 14) + [b"bb"] * (size >= first + 13)
            assert [next(messages).payload for _ in whole] == whole
            if 0 < size < 14 or first < size < first + 13:
                with pytest.raises(MessageError) as raised:
                    next(messages)
                assert raised.value.section == "RTMP 1.0, 7.1.6"
            else:
                assert next(messages, None) is None

    def test_backPointersAreNotRead(self):
        payload = tag(8, 0, b"a")[:-4] + b"\xff\xff\xff\xff" + tag(9, 0, b"b")
        assert [m.payload for m in self.split(payload)] == [b"a", b"b"]

    def test_streamIdInsideIsNotUsed(self):
        """FLV tags have 0 there; the aggregate's own id holds."""
        payload = tag(8, 0, b"a")
        payload = payload[:8] + b"\1\2\3" + payload[11:]
        assert self.split(payload) == [Message(8, 1000, 7, b"a")]

    def test_oneAtATime(self):
        """The first is there before the last was looked at."""
        messages = splitAggregate(Message(22, 0, 1, tag(8, 0, b"a") + b"\xff" * 20))
        assert next(messages).payload == b"a"
        with pytest.raises(MessageError):
            next(messages)
