"""
The time line of a live stream: it goes on, whatever its publisher's clock does.

A publisher's timestamps become the stream's times by a shift, which is 0 until its
clock breaks: the encoder starts again at 0 on the same publication, or its clock is
set.  From there on another shift lets the stream go on where it stands.  Audio and
video have a shift each, since their messages do not reach a break together; the second
takes the shift that the first has got, so that they stay in step.  The shift before is
kept, so that a single wrong timestamp moves nothing but its own frame.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted_rtmp.wire.messages import Message

#: A frame this much after the one before it, in milliseconds, follows it without a
#: closer look; more is counted as a gap.  A camera at one frame a second has none.
GAP_MILLISECONDS = 2000

#: Steps back that are no break, in milliseconds.  Some phones send the presentation
#: times of B-frames as timestamps; AVC and HEVC reorder up to 16 frames, which are
#: 3.2 s at 5 frames a second.
BACK_MILLISECONDS = 4000

#: Steps ahead that are no break, in milliseconds, of a publisher that sends in real
#: time: what it could not send while the network was congested comes in one burst, with
#: a gap for the frames that it has dropped meanwhile.  OBS drops them after 0.9 s.
AHEAD_MILLISECONDS = 10_000

#: The longest that a break takes in the stream's time, in milliseconds: a publisher
#: that was silent for longer is closed, unless it was held
#: (L{PUBLISHER_IDLE_SECONDS<twisted_rtmp.limits.PUBLISHER_IDLE_SECONDS>}).
BREAK_MILLISECONDS = 10_000

#: The shortest: a frame's time at 25 frames a second.
FRAME_MILLISECONDS = 40

#: A kind of media or a track of which nothing comes for so long while others go on, in
#: milliseconds, has ended for players that join: a page that is told of sound waits for
#: it for ever, ffmpeg 5 s.  More than L{GAP_MILLISECONDS}, and than an encoder takes to
#: change its microphone.
ENDED_MILLISECONDS = 5000

#: The same in intervals, where it has come slowly before: the slides of a talk may be a
#: minute apart.
ENDED_INTERVALS = 2

#: After every timestamp, so that the first frame follows no other.
NEVER = 1 << 80


class MediaTime:
    """
    The stream's time of one kind of media, audio or video.

    @ivar shift: from the publisher's timestamps to the stream's times, milliseconds.
    @ivar last: the stream's time of the last frame, milliseconds; L{NEVER} before the
        first one of a publisher.
    @ivar before: the shift before this one.
    @ivar floor: the time before which no message is placed, milliseconds.
    @ivar first: the time of a publisher's first frame, milliseconds.
    """

    __slots__ = (
        "_gap",
        "_gapEnd",
        "_newest",
        "before",
        "first",
        "floor",
        "last",
        "shift",
    )

    def __init__(self) -> None:
        self.shift = 0
        self.first = 0
        self.last = NEVER
        self.before = 0
        self.floor = -NEVER
        # The largest time but for those frames of late that just follow each other.
        self._newest: int | None = None
        # The last gap between two frames, and the time of the second one.
        self._gap = 0
        self._gapEnd = NEVER

    @property
    def hasBegun(self) -> bool:
        """Tell whether a frame of the present publisher has come."""
        return self.last != NEVER

    @property
    def interval(self) -> int:
        """The time between the last two frames where that was a gap, or else 0."""
        return self._gap if self.last == self._gapEnd else 0

    def noteStep(self, step: int) -> None:
        """Note the time between the last two frames, milliseconds."""
        if step > GAP_MILLISECONDS:
            self._gap, self._gapEnd = step, self.last

    @property
    def newest(self) -> int | None:
        """The largest time so far, milliseconds; L{None} before the first frame."""
        if self.last != NEVER and (self._newest is None or self.last > self._newest):
            self._newest = self.last
        return self._newest

    @newest.setter
    def newest(self, newest: int) -> None:
        self._newest = newest

    def move(self, shift: int) -> None:
        """Take another shift."""
        self.before, self.shift = self.shift, shift


class Timeline:
    """
    Gives every message of a stream its time.

    @ivar video: the time of the video.
    @ivar audio: the time of the audio.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        """@param seconds: the clock's time."""
        self.video = MediaTime()
        self.audio = MediaTime()
        self._seconds = seconds
        # Where the first frame of another publisher is placed.
        self._begin: int | None = None
        # How far the stream's time is ahead of the clock's, milliseconds: at the
        # publisher's first frame, at most and of late.
        self._firstLead = self._largestLead = self._lead = 0.0
        # The times of video and audio at moments at which both had just come, the
        # newest two: from there on it is seen which of them goes on.
        self._marks: list[tuple[int, int]] = []

    @property
    def newest(self) -> int:
        """The largest time of a frame so far, milliseconds; 0 before any."""
        return max(self.video.newest or 0, self.audio.newest or 0)

    def resume(self, milliseconds: int) -> None:
        """
        Go on with another publisher: its first frame is placed behind all others.

        @param milliseconds: the time since the publisher before it left.
        """
        newest = self.newest
        begin = self._begin = newest + max(1, milliseconds)
        self._marks.clear()
        for kind in (self.video, self.audio):
            kind.floor = newest
            kind.last = NEVER
            kind.newest = begin

    def keyFrameAt(self, timestamp: int) -> None:
        """Compare the stream's time with the clock's, as is done now and then."""
        self._note(timestamp - self._seconds() * 1000)
        self._mark()

    def _mark(self) -> None:
        """Note where video and audio are, if both have gone on."""
        video, audio = self.video.last, self.audio.last
        if NEVER in (video, audio):
            return
        if not self._marks or (
            video != self._marks[-1][0] and audio != self._marks[-1][1]
        ):
            self._marks = [*self._marks[-1:], (video, audio)]

    def silence(self, own: MediaTime) -> int:
        """
        Measure how long a kind has been silent while the other one went on: by the
        times of both, which may be any time apart.

        @param own: the time of the kind, which has begun.
        @return: milliseconds; 0 or less where it goes on as the other one does.
        """
        if not self._marks:
            return 0
        mine, others = (0, 1) if own is self.video else (1, 0)
        # The newest mark that came before its last frame.
        mark = next(
            (mark for mark in reversed(self._marks) if mark[mine] != own.last),
            self._marks[0],
        )
        other = self.audio if own is self.video else self.video
        return (other.last - mark[others]) - (own.last - mark[mine])

    def place(self, message: Message, own: MediaTime) -> int | None:
        """
        Give a frame its time, where it does not just follow the last one of its kind.

        @param own: the time of its kind.
        @return: the step from the last frame, in milliseconds, 0 for the first one;
            L{None} where the publisher's clock has broken.
        """
        sent = message.timestamp
        other = self.audio if own is self.video else self.video
        last = own.last
        if last == NEVER:
            self._begins(sent, own, other)
        newest = own.newest
        if newest is None:
            newest = sent + own.shift
        shift = self._shiftOf(sent, newest, own, other)
        broken = shift is None
        if shift is None:
            shift = self._break(sent)
        if shift != own.shift:
            if shift == other.shift != own.before:
                own.floor = newest
            own.move(shift)
        own.last = timestamp = max(own.floor, sent + shift)
        if timestamp != sent:
            message.moveTo(timestamp)
        if last == NEVER:
            own.first = timestamp
            self._mark()
            return None if broken else 0
        own.noteStep(timestamp - last)
        return None if broken else timestamp - last

    def placeHeader(self, message: Message, own: MediaTime | None = None) -> None:
        """
        Give its time to a message that is no frame, such as a header: where it cannot
        be right (ffmpeg sends headers at 0), that of the newest frame.

        @param own: the time of its kind, if it is of one.
        """
        sent = message.timestamp
        if self._begin is not None:
            timestamp = self._begin
        else:
            if own is None or own.newest is None:
                own = self.audio if self.video.newest is None else self.video
            newest = own.newest
            if newest is None:
                return
            timestamp = sent + own.shift
            if self._follows(timestamp, newest):
                timestamp = max(own.floor, timestamp)
            else:
                timestamp = newest
        if timestamp != sent:
            message.moveTo(timestamp)

    def _begins(self, sent: int, own: MediaTime, other: MediaTime) -> None:
        """Take the first frame of a kind, or of another publisher."""
        if self._begin is not None:
            shift = self._begin - sent
            self._begin = None
            for kind in (own, other):
                kind.shift = kind.before = shift
        elif own.newest is None and other.newest is not None:
            if other.shift:
                own.shift, own.before = other.shift, other.before
                own.newest = other.newest
            return
        elif other.last != NEVER:
            return
        lead = sent + own.shift - self._seconds() * 1000
        self._firstLead = self._largestLead = self._lead = lead

    def _shiftOf(
        self, sent: int, newest: int, own: MediaTime, other: MediaTime
    ) -> int | None:
        """
        Find the shift by which a timestamp is in the stream's time line.

        @return: L{None} if there is none.
        """
        shift = own.shift
        if 0 <= sent + shift - newest <= AHEAD_MILLISECONDS:
            return shift
        shifts = (shift, own.before, other.shift)
        shift = min(shifts, key=lambda shift: abs(sent + shift - newest))
        timestamp = sent + shift
        if self._follows(timestamp, newest):
            return shift
        # Video of a frame a minute beside sound.
        if (
            timestamp > newest
            and shift == other.shift
            and other.newest is not None
            and abs(timestamp - other.newest) <= GAP_MILLISECONDS
        ):
            return shift
        return None

    def _follows(self, timestamp: int, newest: int) -> bool:
        """
        Decide whether a time can come after the newest one.

        A step ahead that took as long is no jump of the clock, however long.  A
        publisher that has sent faster than in real time, such as a file, is no measure:
        one step may be as long as it is ahead.
        """
        step = timestamp - newest
        if -BACK_MILLISECONDS <= step <= AHEAD_MILLISECONDS:
            return True
        if step < 0:
            return False
        now = self._seconds() * 1000
        self._largestLead = max(self._largestLead, newest - now)
        return timestamp - now - self._largestLead <= max(
            AHEAD_MILLISECONDS, self._largestLead - self._firstLead
        )

    def _break(self, sent: int) -> int:
        """Find the shift that goes on behind the newest frame."""
        newest = self.newest
        now = self._seconds() * 1000
        passed = round(now + self._lead) - newest
        timestamp = newest + max(FRAME_MILLISECONDS, min(BREAK_MILLISECONDS, passed))
        self._note(timestamp - now)
        return timestamp - sent

    def _note(self, lead: float) -> None:
        """Note how far the stream's time is ahead of the clock's."""
        self._lead = lead
        if lead > self._largestLead:
            self._largestLead = lead
