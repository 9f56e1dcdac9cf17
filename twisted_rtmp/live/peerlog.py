"""
The log lines that peers cause, bounded by what they have sent themselves.

Without that, a peer that asks for the same again and again fills a disk for nothing.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger, LogLevel

from twisted_rtmp.live.addresses import Addresses
from twisted_rtmp.live.counters import Counters

#: What a line has besides its text, in bytes: the time, the level, who says it.
LINE_BYTES = 90


class PeerLog:
    """
    Writes the lines that peers cause, as long as their addresses may cause more.

    @ivar addresses: what each may.
    @ivar counters: count the lines that are left out.
    """

    def __init__(self, addresses: Addresses, counters: Counters) -> None:
        self.addresses = addresses
        self.counters = counters

    def emit(
        self,
        log: Logger,
        level: LogLevel,
        format: str,  # noqa: A002  as Twisted's Logger calls it
        fields: dict[str, Any],
        host: str,
        received: int,
    ) -> None:
        """
        Write a line on a peer, or count it.

        @param log: what writes it.
        @param format: as for L{Logger.emit}, with its C{fields}.
        @param host: the peer's address; see L{hostOf
            <twisted_rtmp.live.addresses.hostOf>}.
        @param received: bytes that came from the peer and have paid for no line yet.
        """
        text = format.format_map(fields)
        size = len(text.encode("utf-8", "replace")) + LINE_BYTES
        leftOut = self.addresses.mayLog(host, size, received)
        if leftOut is None:
            self.counters.linesLeftOut += 1
            return
        if leftOut:
            text += f" ({leftOut} lines on this address were left out before)"
        # What is written has no field left: Twisted takes 30 us to fill one in.
        text = text.replace("{", "{{").replace("}", "}}")
        log.emit(level, text, leftOut=leftOut, **fields)
