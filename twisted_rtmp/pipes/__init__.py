"""
Streams into child processes: each stream as FLV on a command's standard input.

C{{app}} and C{{stream}} in the command's arguments are replaced by the stream's names,
spelt as L{twisted_rtmp.pipes.words} says.
"""

from twisted_rtmp.pipes.sink import IPipeReactor, PipeSink, PipeSinks, pipePlaces
from twisted_rtmp.pipes.words import Command

__all__ = ["Command", "IPipeReactor", "PipeSink", "PipeSinks", "pipePlaces"]
