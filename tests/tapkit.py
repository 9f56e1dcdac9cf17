"""Command lines of twistd rtmp, parsed, and the servers that they describe."""

from __future__ import annotations

import pytest
from twisted.python.usage import UsageError

from twisted_rtmp.service import RTMPService
from twisted_rtmp.tap import Options, makeService


def parse(*arguments):
    """Parse a command line; return its settings."""
    options = Options()
    options.parseOptions(list(arguments))
    return options.settings


def refused(*arguments):
    """Parse a command line that is wrong; return the message, which is one line."""
    with pytest.raises(UsageError) as caught:
        parse(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def serverOf(*arguments):
    """Make the server of a command line."""
    options = Options()
    options.parseOptions(list(arguments))
    (server,) = (part for part in makeService(options) if isinstance(part, RTMPService))
    return server
