"""
Streams into child processes: each stream as FLV on a command's standard input.

C{{app}} and C{{stream}} in the command's arguments are replaced by the stream's names,
as L{encodeWord<twisted_rtmp.spelling.encodeWord>} spells them.
"""

from twisted_rtmp.pipes.command import Command
from twisted_rtmp.pipes.sink import IPipeReactor, PipeSink, PipeSinks, pipePlaces

__all__ = ["Command", "IPipeReactor", "PipeSink", "PipeSinks", "pipePlaces"]
