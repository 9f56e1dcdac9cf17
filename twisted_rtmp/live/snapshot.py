"""
Everything that is live, as plain values.

An API, metrics and a page are views of this one thing: strings, numbers, lists and
dicts only, which any serializer takes.  Names are as peers sent them: what shows them
to people escapes them; C{label} is printable already.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

from twisted_rtmp.ledger import Ledger, MediaCounts
from twisted_rtmp.live.budget import Budget
from twisted_rtmp.live.player import Player
from twisted_rtmp.live.registry import Registry
from twisted_rtmp.live.streams import LiveStream
from twisted_rtmp.live.tracks import Track
from twisted_rtmp.live.turns import AwakeClock

#: Addresses that are listed with the memory they take: those that take the most.
SHOWN_ADDRESSES = 10


@runtime_checkable
class Described(Protocol):
    """A sink factory that can say what it has done so far, as recordings can."""

    def describe(self) -> dict[str, Any]:
        """Give its figures, as plain values."""


def snapshot(registry: Registry) -> dict[str, Any]:
    """
    Describe a server at this moment.

    @return: C{now} (the clock's seconds, as in all C{since}), C{stopping}, C{counters},
        C{memory} (what peers make the server keep, in bytes), C{turns} (how long the
        reactor was held, in seconds), C{connections} (see
        L{Description<twisted_rtmp.live.connections.Description>}; relays are among
        them), C{streams}, C{waiting} (the streams that players wait for, with their
        number), and C{sinks}: what streams go into besides, such as recordings.
    """
    return {
        "now": registry.clock.seconds(),
        "stopping": registry.stopping,
        "counters": registry.counters.asDict(),
        "memory": _memory(registry.budget),
        "turns": _turns(registry),
        "connections": [
            asdict(connection.describe()) for connection in registry.connections
        ],
        "streams": [_stream(stream) for stream in registry.streams.values()],
        "waiting": [
            {"application": application, "name": name, "players": players}
            for application, name, players in registry.waiting()
        ],
        "sinks": _sinks(registry),
    }


def _sinks(registry: Registry) -> list[dict[str, Any]]:
    policies = [registry.policy, *registry.policies.values()]
    factories = {
        id(factory): factory for policy in policies for factory in policy.sinkFactories
    }
    return [
        {
            "name": factory.sinkName,
            **(factory.describe() if isinstance(factory, Described) else {}),
        }
        for factory in factories.values()
    ]


def _memory(budget: Budget) -> dict[str, Any]:
    return {
        "used": budget.used,
        "limit": budget.limits.serverBytes,
        "gaveUp": budget.gaveUp,
        "addresses": [
            {"address": address, "used": used}
            for address, used in budget.addresses(SHOWN_ADDRESSES)
        ],
    }


def _turns(registry: Registry) -> dict[str, Any]:
    turns, clock = registry.turns, registry.clock
    return {
        "longest": turns.longest,
        "cause": turns.cause,
        "long": turns.long,
        "stalled": clock.stalled if isinstance(clock, AwakeClock) else 0.0,
    }


def _stream(stream: LiveStream) -> dict[str, Any]:
    publisher = stream.publisher
    return {
        "application": stream.application,
        "name": stream.name,
        "label": stream.label,
        "since": stream.startedAt,
        "publisher": None if publisher is None else publisher.peer,
        "publishers": stream.publishers,
        "throttled": stream.throttled,
        "keptBytes": stream.keptBytes,
        "tracks": [_track(track) for track in stream.tracks],
        "media": _ledger(stream.ledger),
        "sinks": stream.sinkNames,
        "players": [_player(player) for player in stream.players.everyone()],
    }


def _track(track: Track) -> dict[str, Any]:
    return {
        "kind": track.kind,
        "id": track.id,
        "codec": track.codecName,
        "frames": track.frames,
        "headers": track.headers,
        "bytes": track.size,
        "ended": track.ended,
    }


def _player(player: Player) -> dict[str, Any]:
    return {
        "peer": player.peer,
        "since": player.since,
        "sent": player.sent,
        "sentBytes": player.sentBytes,
        "queuedBytes": player.queuedBytes,
        "dropped": player.dropped,
        "droppedBytes": player.droppedBytes,
        "refusedTracks": player.refusedTracks,
    }


def _ledger(ledger: Ledger) -> dict[str, Any]:
    return {
        "received": _counts(ledger.received),
        "written": {name: _counts(counts) for name, counts in ledger.written.items()},
        "discarded": dict(ledger.discarded),
        "gaps": ledger.gaps,
        "backwardSteps": ledger.backwardSteps,
        "clockBreaks": ledger.clockBreaks,
    }


def _counts(counts: MediaCounts) -> dict[str, int]:
    return {
        "video": counts.video,
        "audio": counts.audio,
        "headers": counts.headers,
        "data": counts.data,
        "bytes": counts.size,
    }
