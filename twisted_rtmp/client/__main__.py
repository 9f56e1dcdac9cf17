"""
The commands C{python -m twisted_rtmp.client publish FILE URL} and C{... play URL FILE}.

One line on standard error says what was done, or what went wrong.  The exit status
is 0 if all is well, 1 if not, 2 if the command line is invalid, and 130 if it was
interrupted before it was done (a loop, or playing to a file, is done then).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver

from twisted_rtmp.client.commands import (
    INTERRUPTED,
    Command,
    PlayCommand,
    PublishCommand,
    describe,
    tlsOptionsFor,
)
from twisted_rtmp.client.connecting import CONNECT_ERRORS
from twisted_rtmp.client.errors import InvalidURL
from twisted_rtmp.client.limits import ClientLimits
from twisted_rtmp.client.url import RTMPURL
from twisted_rtmp.resolver import installResolver
from twisted_rtmp.wire.errors import FLVError


async def _run(reactor: Any, options: argparse.Namespace) -> None:  # noqa: ANN401
    """Run the command for L{react}, and leave with its status."""
    command: Command = options.command(reactor, options)
    done: Deferred[None] = Deferred()

    def stopping() -> Deferred[None]:
        command.interrupt()
        return done

    trigger = reactor.addSystemEventTrigger("before", "shutdown", stopping)
    try:
        status = await command.run()
    except CancelledError:
        status = INTERRUPTED
    except (*CONNECT_ERRORS, FLVError, OSError) as error:
        sys.stderr.write(f"{options.prog}: {describe(error, options.url)}\n")
        status = 1
    if not command.interrupted:
        reactor.removeSystemEventTrigger(trigger)
    done.callback(None)
    raise SystemExit(status)


def _speed(text: str) -> float:
    """Read C{--speed}; 0 is the greatest."""
    if text in ("max", "realtime"):
        return 0.0 if text == "max" else 1.0
    return _positive(text, "max, realtime or a number above 0")


def _positive(text: str, expected: str = "a number above 0") -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be {expected}, not {text!r}")
    return number


class _Parser(argparse.ArgumentParser):
    """A parser whose arguments may stand in files."""

    def convert_arg_line_to_args(self, line: str) -> list[str]:
        """Take each line as an argument, except empty lines and C{#} comments."""
        line = line.lstrip("\ufeff").strip()
        return [line] if line and not line.startswith("#") else []


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m twisted_rtmp.client",
        description="Publish an FLV file to an RTMP server, or play a stream to one.",
        epilog="@FILE stands for the arguments in a file, one a line: so a URL with a"
        " key or a password need not be on the command line, which other users of the"
        " machine can see.",
        fromfile_prefix_chars="@",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = _Parser(add_help=False)
    common.add_argument(
        "--key",
        metavar="NAME",
        help="the stream's name or key; then all of URL's path is the application",
    )
    common.add_argument(
        "--endpoint",
        metavar="ENDPOINT",
        help="connect to this Twisted client endpoint, such as unix:/run/rtmp.sock,"
        " instead of URL's host",
    )
    common.add_argument(
        "--ca",
        metavar="PEM",
        help="trust the certificates in this file, instead of the system's",
    )
    common.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_positive,
        help="give up when the server does nothing for this time",
    )
    common.add_argument(
        "--verbose", action="store_true", help="log the connection on standard error"
    )
    publish = commands.add_parser(
        "publish", parents=[common], help="publish an FLV file"
    )
    publish.add_argument("file", metavar="FILE")
    publish.add_argument("url", metavar="URL")
    publish.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="max|FACTOR",
        help="as fast as the server takes it, or a multiple of the file's own time",
    )
    publish.add_argument(
        "--loop", action="store_true", help="repeat the file until Ctrl-C"
    )
    publish.set_defaults(command=PublishCommand, prog=publish.prog)
    play = commands.add_parser("play", parents=[common], help="play to an FLV file")
    play.add_argument("url", metavar="URL")
    play.add_argument("file", metavar="FILE", help="or - for standard output")
    play.add_argument(
        "--duration",
        type=_positive,
        metavar="SECONDS",
        help="stop after this much of the stream's time",
    )
    play.add_argument(
        "--overwrite", action="store_true", help="overwrite a FILE that exists"
    )
    play.set_defaults(command=PlayCommand, prog=play.prog)
    return parser


def parse(
    reactor: Any,  # noqa: ANN401
    arguments: Sequence[str] | None = None,
) -> argparse.Namespace:
    """
    Read the command line.

    @param reactor: for the endpoint.
    @return: its options, C{limits} and C{tlsOptions}.
    @raise SystemExit: it is invalid; standard error says why.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.key is None:
            options.url = RTMPURL.parse(options.url)
        else:
            options.url = RTMPURL.ofServer(options.url, options.key)
    except InvalidURL as error:
        parser.error(str(error))
    if not options.url.name:
        parser.error(f"{options.url} must name a stream")
    options.tlsOptions = None
    if options.ca is not None:
        try:
            options.tlsOptions = tlsOptionsFor(options.ca, options.url.host)
        except (OSError, ValueError) as error:
            parser.error(f"--ca {options.ca}: {error}")
    options.limits = ClientLimits()
    if options.timeout is not None:
        seconds = options.timeout
        options.limits = ClientLimits(
            connectSeconds=seconds,
            commandSeconds=seconds,
            drainSeconds=seconds,
            silenceSeconds=seconds,
        )
    if options.endpoint is not None:
        try:
            options.endpoint = clientFromString(reactor, options.endpoint)
        except ValueError as error:
            parser.error(f"--endpoint: {error}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the command.

    @raise SystemExit: always, with the exit status.
    """
    # Not before it is needed: an importing program may want another one.
    from twisted.internet import reactor

    installResolver(reactor)
    options = parse(reactor, arguments)
    if options.verbose:
        globalLogBeginner.beginLoggingTo(
            [textFileLogObserver(sys.stderr)], redirectStandardIO=False
        )
    react(_run, [options])


if __name__ == "__main__":
    main()
