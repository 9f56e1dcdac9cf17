"""The GOP cache: the current group of pictures, with which newcomers begin."""

from __future__ import annotations

from collections.abc import Callable

from twisted_rtmp.limits import GOPLimits
from twisted_rtmp.live.budget import MESSAGE_BYTES, Share
from twisted_rtmp.live.selection import ChosenPart, Selection
from twisted_rtmp.media.parts import trackIdsOf
from twisted_rtmp.media.payloads import MULTITRACK
from twisted_rtmp.wire.messages import Message

#: How many further bytes and messages are charged at a time.
CHARGED_BYTES = 256 * 1024
CHARGED_MESSAGES = 256


class GOPCache:
    """
    The headers that the current GOP was coded with, then the GOP itself, in which
    other headers may come.

    It holds messages and nothing that was written of them: that is made for each
    newcomer as it takes it.  A selection may make other messages of them, though:
    those of the newest one are kept, since the next newcomer mostly asks for the same.

    @ivar limits: a GOP that grows past them is given up, and newcomers wait for the
        next key frame.
    @ivar messages: what a newcomer begins with; empty while there is no GOP.
    @ivar bytes: of their payloads.
    """

    def __init__(self, limits: GOPLimits, share: Share) -> None:
        """@param share: is charged for what is kept."""
        self.limits = limits
        self._share = share
        # How many bytes and messages there may be until something is to be done.
        self._markBytes = 0
        self._markMessages = 0
        self.messages: list[Message] = []
        self.bytes = 0
        self._until = 0.0
        # The tracks of the first messages, and how many these are.
        self._tracks = 0
        self._countedOf = 0
        # What was chosen for the newest newcomer, out of how many messages, and how
        # many tracks it was refused.
        self._selection: Selection | None = None
        self._chosen: list[Message] = []
        self._chosenOf = 0
        self._chosenBytes = 0
        self._refused = 0

    @property
    def cost(self) -> int:
        """The cost of beginning with it, in bytes, of which each message has some."""
        return self.bytes + MESSAGE_BYTES * len(self.messages)

    def start(self, headers: list[Message], keyFrame: Message) -> None:
        """Begin with a key frame, instead of what was there."""
        self._forgetChosen()
        self.messages = [*headers, keyFrame]
        self.bytes = sum(len(message.payload) for message in self.messages)
        self._tracks = self._countedOf = 0
        self._until = keyFrame.timestamp + self.limits.seconds * 1000
        self._charge()

    def append(self, message: Message) -> None:
        """Take a message of the GOP; give up where it grows past its limits."""
        messages = self.messages
        messages.append(message)
        self.bytes = size = self.bytes + len(message.payload)
        if (
            size > self._markBytes
            or len(messages) > self._markMessages
            or message.timestamp > self._until
        ):
            self._markPassed(message)

    def _markPassed(self, message: Message) -> None:
        """Give up past a limit; otherwise charge what is kept."""
        limits = self.limits
        uncounted = self.messages[self._countedOf :]
        self._countedOf += len(uncounted)
        several = [each for each in uncounted if each.flags & MULTITRACK]
        self._tracks += len(uncounted) - len(several)
        self._tracks += sum(len(trackIdsOf(each)) for each in several)
        if (
            self.bytes > limits.bytes
            or len(self.messages) > limits.messages
            or message.timestamp > self._until
            or self._tracks > limits.tracks
        ):
            self.clear()
        else:
            self._charge()

    def _charge(self) -> None:
        """Charge what is kept, and so much as may come before that is done again."""
        limits = self.limits
        self._markBytes = min(self.bytes + CHARGED_BYTES, limits.bytes)
        count = len(self.messages)
        self._markMessages = min(count + CHARGED_MESSAGES, limits.messages)
        self._share.set(
            self._markBytes + MESSAGE_BYTES * self._markMessages + self._chosenBytes
        )

    def clear(self) -> None:
        """Keep no GOP until the next key frame."""
        self._forgetChosen()
        self.messages = []
        self.bytes = 0
        self._share.set(0)

    def chosenFor(
        self,
        selection: Selection,
        choose: Callable[[Selection, list[Message]], tuple[list[Message], int]],
    ) -> tuple[list[Message], int]:
        """
        Choose out of the GOP.

        @param choose: makes the choice.
        @return: the messages, and how many tracks of them the player would have got,
            but cannot read.
        """
        if selection != self._selection:
            self._forgetChosen()
            self._selection = selection
        chosen, refused = choose(selection, self.messages[self._chosenOf :])
        chosen, refused = [*self._chosen, *chosen], self._refused + refused
        if self.bytes * 2 <= self.limits.bytes:
            # The GOP and what is made of it stay within its limit together.
            self._chosen, self._refused = chosen, refused
            self._chosenOf = len(self.messages)
            self._chosenBytes = sum(
                len(message.payload) + MESSAGE_BYTES
                for message in chosen
                if isinstance(message, ChosenPart)
            )
        else:
            self._forgetChosen()
        self._charge()
        return chosen, refused

    def _forgetChosen(self) -> None:
        self._selection = None
        self._chosen = []
        self._chosenOf = 0
        self._chosenBytes = 0
        self._refused = 0
