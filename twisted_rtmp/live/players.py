"""
Fan-out: the players of a live stream.

Each message is written once for all players of a stream whose L{Packaging
<twisted_rtmp.live.packaging.Packaging>} is the same, and so that a player can begin,
skip and resume at any message.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING

from zope.interface import implementer

from twisted_rtmp.interfaces import IMediaSink
from twisted_rtmp.limits import GOPLimits
from twisted_rtmp.live.beginnings import Beginnings, isVideoFrame
from twisted_rtmp.live.budget import MESSAGE_BYTES, Account
from twisted_rtmp.live.gop import GOPCache
from twisted_rtmp.live.packaging import Batch, Packaging
from twisted_rtmp.live.player import PlayedStream, Player
from twisted_rtmp.live.queue import PlayerQueue
from twisted_rtmp.live.selection import ChosenParts, Selection, choose
from twisted_rtmp.media.parts import forgetParts
from twisted_rtmp.media.payloads import CODED, KEY_FRAME, MULTITRACK
from twisted_rtmp.wire.constants import MessageType
from twisted_rtmp.wire.limits import MIB
from twisted_rtmp.wire.messages import Message

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from twisted_rtmp.live.pacing import Pacer

#: How far a stream goes on, in bytes, before what waits for its players is charged
#: again; and what a message costs a player that it waits for, in bytes, while its
#: payload is shared.
COUNTED_BYTES = 1 * MIB
PLACE_BYTES = 8

#: Messages that are looked at to find those that queues share.  Beyond, each queue is
#: taken to have messages of its own.
COUNTED_MESSAGES = 20_000

_AUDIO: int = MessageType.AUDIO
_VIDEO: int = MessageType.VIDEO


@implementer(IMediaSink)
class PlayerGroup:
    """
    All players of one live stream, and the GOP that newcomers begin with.

    @ivar players: by their packagings, each in the order in which they came.
    @ivar hasVideo: whether the stream has had a coded frame of video.
    @ivar stream: the live stream.
    @ivar gop: its current GOP.
    """

    def __init__(
        self,
        stream: PlayedStream,
        pacer: Pacer,
        account: Account,
        limits: GOPLimits | None = None,
    ) -> None:
        """
        @param pacer: tells when to flush.
        @param account: is charged for the GOP, and for what waits for players.
        @param limits: the bounds of the GOP that is kept.
        """
        self.players: dict[Packaging, dict[Player, None]] = {}
        self.hasVideo = False
        self.stream = stream
        self._received = stream.ledger.received
        self.gop = GOPCache(limits or GOPLimits(), account.share())
        self._account = account
        self._waiting = account.share()
        # How far the stream is, in bytes, when what waits is charged next.
        self._countAt = COUNTED_BYTES
        # Players that have not taken all of the stream, which has ended, and the calls
        # that end them if they do not within a time.
        self._keptFor: dict[Player, IDelayedCall] = {}
        self._pacer = pacer
        self._count = 0
        self._parts = ChosenParts()
        self._pending: list[Message] = []
        self._beginnings = Beginnings()

    def __len__(self) -> int:
        return self._count

    @property
    def now(self) -> float:
        """The clock's time, in seconds."""
        return self._pacer.clock.seconds()

    # From the stream

    def mediaReceived(self, message: Message) -> None:
        """Keep the GOP, and gather what the players get."""
        gop = self.gop
        flags = message.flags
        if (
            flags & KEY_FRAME
            and message.typeId == _VIDEO
            and (not flags & MULTITRACK or self.stream.isPrimary(message))
        ):
            self.hasVideo = True
            gop.start(self.stream.headers(), message)
            if self._waiting.bytes:
                self.chargeQueues()  # some may wait for the GOP before
        elif gop.messages:
            gop.append(message)
        elif message.typeId == _VIDEO and flags & CODED and not self.hasVideo:
            # The publisher has begun in the middle of a GOP.
            self.hasVideo = True
            for player in self.everyone():
                player.awaitKeyFrame()
        if self._count:
            if not self._pending:
                self._pacer.pending(self)
            self._pending.append(message)

    def flush(self) -> None:
        """Send all that waits to every player."""
        messages = self._pending
        if not messages:
            return
        received = self._received
        if received.videoSize + received.audioSize >= self._countAt:
            self.chargeQueues()
        self._pending = []
        if self._beginnings.withheld:
            messages = self._beginnings.completed(messages, self.stream.headers)
        self._pacer.sent(len(messages) * self._count)
        if len(self.players) == 1 and not self.stream.enhanced:
            [(packaging, players)] = self.players.items()
            if not packaging.selection.asksForOtherTracks:
                # The usual case: all players get all of it, in one form.
                self._deliver(players, messages, packaging.encodeAll(messages))
                return
        batches: dict[Hashable, Batch] = {}
        for packaging, players in list(self.players.items()):
            batch = batches.get(packaging.shared)
            if batch is None:
                chosen = self._choose(packaging.selection, messages)
                batch = batches[packaging.shared] = Batch(packaging, *chosen)
            if batch.refused:
                for player in players:
                    player.refuse(batch.refused)
            if batch.messages:
                self._deliver(players, batch.messages, batch.writtenFor(packaging))
        if self.stream.enhanced:
            forgetParts(messages)

    def _deliver(
        self, players: Iterable[Player], messages: list[Message], data: bytes
    ) -> None:
        """Give messages, as they are written, to all players of one packaging."""
        for player in list(players):
            try:
                player.deliver(messages, data)
            # A bug ends the player that it is in; the others go on.
            except Exception:  # noqa: PERF203  costs nothing where there is none
                self._playerFailed(player)

    def _playerFailed(self, player: Player) -> None:
        """Take a player off that raised; its error goes to the log."""
        player.log.failure(
            "{peer}: {name} cannot be sent on", peer=player.peer, name=player.label
        )
        self.remove(player)
        player.fail()

    def _choose(
        self, selection: Selection, messages: list[Message]
    ) -> tuple[list[Message], int]:
        """Choose as L{choose} does, or at once where everything passes."""
        # What has no enhanced header passes as it is: most streams have no other.
        needed = self.stream.enhanced or selection.asksForOtherTracks
        if needed and not selection.everything:
            return choose(selection, messages, self._parts)
        return messages, 0

    def streamEnded(self) -> None:
        """Send what is left; the registry tells the players of the end."""
        self.flush()
        self.gop.clear()
        self.chargeQueues()

    def forget(self) -> None:
        """Forget the stream, which has ended: no circle of references is left."""
        del self.stream

    def publisherChanged(self) -> None:
        """
        Prepare for another publisher of the stream: what it sends can be decoded from
        its first key frame on.
        """
        self.flush()
        self.gop.clear()
        self.chargeQueues()
        self._beginnings.forget()
        self.hasVideo = False
        for player in self.everyone():
            player.publisherChanged()

    # Players

    def add(self, player: Player, again: bool = False) -> None:
        """
        Begin to send to a player: headers, then the GOP or the next key frame.

        @param again: whether it has been told of a stream before.
        """
        self.flush()
        player.attach(self, again)
        refused = self._begin(player)
        if refused:
            player.refuse(refused)
        self.append(player)

    def _begin(self, player: Player) -> int:
        """
        Give a player what it begins with.

        @return: how many tracks of it the player would have got, but cannot read.
        """
        stream = self.stream
        gop = self.gop
        selection = player.packaging.selection
        ended = stream.ended()
        whole = gop.messages
        if ended:
            whole = self._beginnings.of(whole, ended)
            if not any(isVideoFrame(message) for message in whole):
                whole = []  # it would begin with sound of long ago
        if not whole or not player.mayBeginWith(gop.cost):
            headers = stream.headers()
            if ended:
                headers = self._beginnings.of(headers, ended)
            messages, refused = self._choose(selection, headers)
            player.startWith(messages)
            player.awaitKeyFrame()
            return refused
        if stream.hasVideoTracks:
            # It begins with a key frame of the first of them.
            player.awaitKeyFrame()
        if ended:
            messages, refused = self._choose(selection, whole)
        else:
            messages, refused = gop.chosenFor(selection, self._choose)
        if stream.enhanced:
            forgetParts(gop.messages)
        player.startWith(messages, self._position)
        return refused

    def videoTracks(self, packaging: Packaging) -> set[int]:
        """List which of several video tracks a packaging has, by their numbers."""
        return self.stream.videoTracks(packaging.selection)

    def append(self, player: Player) -> None:
        """Send to a player what comes from here on."""
        self.players.setdefault(player.packaging, {})[player] = None
        self._count += 1

    def remove(self, player: Player) -> None:
        """Send nothing more to a player."""
        players = self.players.get(player.packaging)
        if players is not None and player in players:
            del players[player]
            self._count -= 1
            if not players:
                del self.players[player.packaging]

    def everyone(self) -> Iterable[Player]:
        """List all players."""
        return [player for players in self.players.values() for player in players]

    # Memory

    @property
    def _position(self) -> int:
        """The bytes of the stream's audio and video so far."""
        return self._received.videoSize + self._received.audioSize

    def chargeQueues(self) -> None:
        """
        Charge what waits for the players.

        All that play the same of the stream wait for the newest of the same messages:
        the longest of their queues has them all.
        """
        position = self._position
        self._countAt = position + COUNTED_BYTES
        longest: dict[Selection, PlayerQueue] = {}
        unfinished: list[Message] = []
        places = 0
        for player in self.everyone():
            queue = player.queue
            if player.unfinished is not None:
                unfinished.append(player.unfinished)
            if not queue.messages:
                continue
            player.bindStart(position)
            places += len(queue.messages)
            selection = player.packaging.selection
            if selection not in longest or queue.bytes > longest[selection].bytes:
                longest[selection] = queue
        shared = 0
        if longest or unfinished:
            shared = self._sizeOf(longest.values(), unfinished)
        self._waiting.set(shared + PLACE_BYTES * places)

    def _sizeOf(
        self, queues: Iterable[PlayerQueue], unfinished: Iterable[Message]
    ) -> int:
        """Count the bytes of messages that wait, and are not the GOP's."""
        size = 0
        seen = {id(message) for message in self.gop.messages}
        waiting: list[Iterable[Message]] = [unfinished]
        count = len(seen)
        for queue in queues:
            count += len(queue.messages)
            if count > COUNTED_MESSAGES:
                size += queue.bytes
            else:
                waiting.append(queue.messages)
        for messages in waiting:
            for message in messages:
                if id(message) not in seen:
                    seen.add(id(message))
                    size += len(message.payload) + MESSAGE_BYTES
        return size

    def giveUp(self) -> None:
        """Free the GOP, and what waits for players that do not keep up."""
        self.gop.clear()
        players = [*self.everyone(), *self._keptFor]
        for player in players:
            if player.queue.messages:
                player.giveUp()
        self.chargeQueues()
        if self._account.bytes > self._account.limit:
            for player in players:
                player.giveUpUnfinished()

    def keepFor(self, player: Player) -> None:
        """Be charged until a player has taken what waits, after the stream's end."""
        self._keptFor[player] = self._pacer.clock.callLater(
            player.queue.limits.slowSeconds, player.tooLate
        )
        self._account.hold()

    def keptEnough(self, player: Player) -> None:
        """Be charged no more for what has waited for a player."""
        call = self._keptFor.pop(player)
        if call.active():
            call.cancel()
        self._account.close()
