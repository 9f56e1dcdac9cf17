"""
RTMP inside a program of your own: python docs/embed.py [ENDPOINT]

The program decides in a coroutine who may publish, and counts key frames.
"""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import deferLater, react
from zope.interface import implementer

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import IAuthorizer, IMediaSink, ISinkFactory, Refused
from twisted_rtmp.media import payloads as media


@implementer(IAuthorizer)
class Decisions:
    def __init__(self, reactor):
        self.reactor = reactor

    async def connect(self, request):
        if request.application != "live":
            raise Refused("There is only one application here: live.")

    async def publish(self, request):
        await deferLater(self.reactor, 0.01)  # stands for a question to your API
        if request.query != "token=1234":
            raise Refused("The token is not valid.")

    async def play(self, request):
        pass  # everybody may watch


@implementer(IMediaSink)
class KeyFrames:
    def __init__(self, stream):
        self.stream, self.count = stream, 0

    def mediaReceived(self, message):
        if message.flags & media.KEY_FRAME and message.flags & media.CODED:
            self.count += 1

    def streamEnded(self):
        print(f"{self.stream.label}: {self.count} key frames", flush=True)


@implementer(ISinkFactory)
class KeyFrameCounters:
    sinkName = "key frames"

    def openSink(self, stream):
        return KeyFrames(stream)


async def main(reactor, description="tcp:1935"):
    factory = RTMPFactory(
        reactor, authorizer=Decisions(reactor), sinkFactories=[KeyFrameCounters()]
    )
    port = await serverFromString(reactor, description).listen(factory)
    reactor.addSystemEventTrigger("before", "shutdown", factory.stop)
    print(f"Listening on {port.getHost().host}:{port.getHost().port}", flush=True)
    await Deferred()  # until Ctrl-C


if __name__ == "__main__":
    react(main, sys.argv[1:])
