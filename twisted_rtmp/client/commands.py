"""The client's commands: publishing a file, and playing to one."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.task import LoopingCall

from twisted_rtmp.client.connecting import connectRTMP, rejectedTo
from twisted_rtmp.client.errors import ClientError, ConnectionEnded, ConnectRejected
from twisted_rtmp.client.mover import Mover, MovingSink
from twisted_rtmp.client.publishing import FilePublisher, readMessages
from twisted_rtmp.client.storing import (
    BlockingOutput,
    FileOutput,
    FLVSink,
    PipeOutput,
    outputFor,
)
from twisted_rtmp.client.url import RTMPURL
from twisted_rtmp.names import printable
from twisted_rtmp.wire.errors import FLVError

if TYPE_CHECKING:
    from twisted_rtmp.client.protocol import RTMPClient
    from twisted_rtmp.client.streams import Publication, Subscription

#: Seconds between two progress lines.
PROGRESS_SECONDS = 0.5

#: The exit status that a shell has for a command that Ctrl-C ended.
INTERRUPTED = 130

#: From Ctrl-C to the end of a pipe whose reader does not read, in seconds.
PIPE_SECONDS = 5.0

_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL
)

_Stream = TypeVar("_Stream")


class Progress:
    """
    A line with the progress so far, written again and again; on a terminal only.

    A context manager, which leaves no trace of itself.
    """

    def __init__(
        self,
        clock: Any,  # noqa: ANN401
        stream: TextIO,
        text: Callable[[], str],
    ) -> None:
        """@param text: makes the line."""
        self._stream = stream
        self._text = text
        self._width = 0
        self._loop = LoopingCall(self._show)
        self._loop.clock = clock

    def _show(self) -> None:
        text = self._text()
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = max(self._width, len(text))

    def __enter__(self) -> None:
        if self._stream.isatty():
            self._loop.start(PROGRESS_SECONDS, now=False)

    def __exit__(self, *exception: object) -> None:
        if self._loop.running:
            self._loop.stop()
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()


def figures(milliseconds: float, messages: int, size: int) -> str:
    """Put into words: media time, messages, bytes, bits a second of media time."""
    text = f"{milliseconds / 1000:.1f} s, {messages} messages, {size / 1e6:.2f} MB"
    if milliseconds > 0:
        text += f", {8 * size / milliseconds:.0f} kbit/s"
    return text


class Command:
    """
    A command on a connection.

    @ivar interrupted: whether Ctrl-C was pressed.
    """

    def __init__(self, reactor: Any, options: argparse.Namespace) -> None:  # noqa: ANN401
        self.reactor = reactor
        self.options = options
        self.interrupted = False
        self._waiting: Deferred[Any] | None = None
        # All connections that there have been.
        self._clients: list[RTMPClient] = []
        self._mover = Mover(reactor, self)

    async def run(self) -> int:
        """
        Connect, and do it.

        @return: the exit status.
        """
        self.prepare()
        client: RTMPClient = await self.interruptible(self.reach(self.options.url))
        self._mover.follow(client)
        try:
            return await self.use(client)
        finally:
            self._mover.cancel()
            for client in self._clients:
                await client.disconnect()

    # Moving, where the server asks for it

    def reach(self, url: RTMPURL) -> Deferred[RTMPClient]:
        options = self.options
        tlsOptions = options.tlsOptions
        if options.ca is not None and url.host != options.url.host:
            try:
                tlsOptions = tlsOptionsFor(options.ca, url.host)
            except (OSError, ValueError) as error:
                return fail(ClientError(f"--ca {options.ca}: {error}"))
        connecting = connectRTMP(
            self.reactor,
            url,
            endpoint=options.endpoint,
            tlsOptions=tlsOptions,
            limits=options.limits,
        )

        def connected(client: RTMPClient) -> RTMPClient:
            self._clients.append(client)
            return client

        return connecting.addCallback(connected)

    def mayMove(self) -> bool:
        return not self.interrupted

    def moveFailed(self, url: RTMPURL, error: Exception) -> None:
        if not self.interrupted:
            sys.stderr.write(
                f"asked to go to another server, but stays: {describe(error, url)}\n"
            )

    def movesIgnored(self, count: int, seconds: float) -> None:
        """Stay where it is: the server may be right, or ask for ever."""

    def takeNext(self) -> RTMPClient | None:
        """Take the connection to continue on, if there is one."""
        client = self._mover.take()
        if client is not None:
            self._mover.follow(client)
        return client

    def moved(self) -> None:
        """Continue on another connection: L{takeNext} takes it."""
        raise NotImplementedError

    async def start(
        self,
        client: RTMPClient,
        ask: Callable[[RTMPClient], Deferred[_Stream]],
        redirects: int = 0,
    ) -> _Stream:
        """
        Start a stream, at another server if this one redirects its clients.

        @param ask: publishes or plays it on a connection.
        @param redirects: how many servers have done so before.
        @raise CancelledError: Ctrl-C was pressed.
        """
        try:
            return cast("_Stream", await self.interruptible(ask(client)))
        except ConnectRejected as error:
            if not error.redirect:
                raise
            url = rejectedTo(client.url, error, redirects)
        following = await self.interruptible(self.reach(url))
        self._mover.follow(following)
        return await self.start(following, ask, redirects + 1)

    def prepare(self) -> None:
        """
        Check that it can be done, before the server is connected to.

        @raise FLVError: the file is not FLV.
        @raise OSError: the file cannot be read or made.
        """
        raise NotImplementedError

    async def use(self, client: RTMPClient) -> int:
        """
        Do it on a connection.

        @return: the exit status.
        """
        raise NotImplementedError

    async def interruptible(self, waiting: Deferred[Any]) -> Any:  # noqa: ANN401
        """
        Wait, until Ctrl-C at most.

        @raise CancelledError: it was pressed.
        """
        if self.interrupted:
            waiting.cancel()
        self._waiting = waiting
        try:
            return await waiting
        finally:
            self._waiting = None

    def interrupt(self) -> None:
        """End early, and leave nothing unfinished."""
        self.interrupted = True
        if self._waiting is not None:
            self._waiting.cancel()


class PublishCommand(Command):
    """Publishes a file."""

    _publisher: FilePublisher | None = None
    _publication: Publication | None = None

    def prepare(self) -> None:
        with open(self.options.file, "rb") as file:
            if next(readMessages(file), None) is None:
                raise FLVError("there is nothing in the file")

    async def use(self, client: RTMPClient) -> int:
        options = self.options
        publication = await self.start(client, lambda each: each.publish())
        self._publication = publication
        self._publisher = publisher = FilePublisher(
            self.reactor, publication, options.file, options.speed
        )
        if self._mover.next is not None:
            publisher.move = self._publishThere

        def told() -> str:
            return figures(publisher.time, publisher.messages, publisher.sent)

        running = Deferred.fromCoroutine(publisher.run(lambda: options.loop))
        self._running = running
        self._watch(publication)
        try:
            with Progress(self.reactor, sys.stderr, told):
                await self.interruptible(running)
        except CancelledError:
            if not self.interrupted:
                assert self._publication is not None
                error = await self._publication.whenEnded()
                raise error or ClientError("The server has ended it.") from None
        # Nothing waits for the server to confirm the end: some never do, and all of
        # them read what was sent before they see the connection's end.
        for each in self._clients:
            await each.disconnect()
        sys.stderr.write(f"published {told()}\n")
        return INTERRUPTED if self.interrupted and not options.loop else 0

    def _watch(self, publication: Publication) -> None:
        """Notice at once that the server ends it, and not when a frame is due."""

        def ended(_: object) -> None:
            if publication is self._publication:
                self._running.cancel()

        publication.whenEnded().addCallback(ended)

    def moved(self) -> None:
        if self._publisher is not None:
            self._publisher.move = self._publishThere

    async def _publishThere(self) -> Publication:
        """
        Continue on the next connection.

        The old publication is ended first: where the request had no address it is the
        same server, which would refuse the name.
        """
        old, self._publication = self._publication, None
        client = self.takeNext()
        assert old is not None
        assert client is not None
        await old.close()
        old.client.disconnect()
        publication = await client.publish()
        self._publication = publication
        self._watch(publication)
        return publication


class PlayCommand(Command):
    """Plays to a file."""

    def __init__(self, reactor: Any, options: argparse.Namespace) -> None:  # noqa: ANN401
        super().__init__(reactor, options)
        self._subscription: Subscription | None = None
        self._stopped = False
        self._output: FileOutput | BlockingOutput | PipeOutput | None = None

    def prepare(self) -> None:
        options = self.options
        self._output = outputFor(
            options.file, options.overwrite, self.reactor, sys.stdout.buffer, self.stop
        )

    async def use(self, client: RTMPClient) -> int:
        output = self._output
        assert output is not None
        sink = FLVSink(output, self.stop, self.options.duration)
        moving = MovingSink(sink)
        if isinstance(output, PipeOutput):
            output.throttle(moving)
        counts = sink.counts

        def told() -> str:
            return figures(1000 * sink.duration, counts.messages, counts.size)

        error: ClientError | None = None
        subscription: Subscription
        try:
            with Progress(self.reactor, sys.stderr, told):
                following: RTMPClient | None = client
                while following is not None:
                    subscription = await self.start(
                        following, lambda each: each.play(None, moving)
                    )
                    self._subscription = subscription
                    moving.started(subscription)
                    if self._stopped or self._mover.next is not None:
                        subscription.close()
                    error = await subscription.whenEnded()
                    connecting = self._mover.connecting
                    if connecting is not None and not self._stopped:
                        await self.interruptible(connecting)
                    following = None if self._stopped else self.takeNext()
                    moving.moved()
        except CancelledError:
            # Interrupted before it started, here or at the server that it moved to.
            if not counts.messages:
                return INTERRUPTED
        finally:
            self._subscription = None
            # Whatever has ended it, what was received is to be a whole file.
            stored = sink.streamEnded()
            if stored is not None:
                await stored
        if counts.messages:
            sys.stderr.write(f"played {told()}\n")
        if sink.error is not None:
            raise sink.error
        if isinstance(error, ConnectionEnded) and error.clean and counts.messages:
            error = None  # some servers, such as ffmpeg, have no other end
        if error is not None:
            raise error
        if counts.messages:
            return 0
        if self.interrupted:
            return INTERRUPTED
        raise ClientError("The stream ended before anything of it was received.")

    def moved(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
            self._subscription.client.disconnect()

    def interrupt(self) -> None:
        super().interrupt()
        self.stop()
        if isinstance(self._output, PipeOutput):
            self.reactor.callLater(PIPE_SECONDS, self._output.abandon)

    def stop(self) -> None:
        """Finish the file: it is long enough, or nothing more can be stored."""
        self._stopped = True
        if self._subscription is not None:
            self._subscription.close()


def describe(error: BaseException, url: RTMPURL) -> str:
    """Say in one line what went wrong."""
    if isinstance(error, ConnectError | DNSLookupError):
        return f"{url}: no connection: {printable(str(error))}"
    if isinstance(error, FLVError):
        return f"{error} (at byte {error.offset})"
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror or error}"
    return f"{url}: {error}"


def tlsOptionsFor(path: str, host: str) -> Any:  # noqa: ANN401
    """
    Make TLS options that trust the certificates of a file.

    @raise OSError: it cannot be read.
    @raise ValueError: it has no certificate.
    """
    from twisted.internet.ssl import (
        Certificate,
        optionsForClientTLS,
        trustRootFromCertificates,
    )

    found = _CERTIFICATE.findall(Path(path).read_bytes())
    if not found:
        raise ValueError("it must have a certificate in PEM form")
    return optionsForClientTLS(
        host, trustRootFromCertificates([Certificate.loadPEM(pem) for pem in found])
    )
