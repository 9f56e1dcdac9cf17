"""
An RTMP server of your own for twistd: twistd -ny docs/server.tac

It listens on RTMP_ENDPOINT (tcp:1935 if that is not set), asks a thread who may
publish, and reports each stream's bit rate every second.
"""

import os

from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from zope.interface import implementer

from twisted_rtmp.factory import RTMPFactory
from twisted_rtmp.interfaces import IAuthorizer, IMediaSink, ISinkFactory, Refused
from twisted_rtmp.process import ServerProcess
from twisted_rtmp.service import Listener, RTMPService

KEYS = {"s3cret": "stage"}  # the key an encoder uses -> the name that others see


def lookUp(key):
    """Stands for a question to your database: a call that blocks."""
    if key not in KEYS:
        raise Refused("This key is not known.")
    return KEYS[key]


@implementer(IAuthorizer)
class Decisions:
    def connect(self, request):
        if request.application != "live":
            raise Refused("There is only one application here: live.")

    def publish(self, request):
        return deferToThread(lookUp, request.name)  # a Deferred

    def play(self, request):
        pass  # everybody may watch


@implementer(IMediaSink)
class Meter:
    log = Logger()

    def __init__(self, stream):
        self.stream, self.begin, self.size = stream, 0, 0

    def mediaReceived(self, message):
        self.size += len(message.payload)
        if message.timestamp - self.begin >= 1000:  # milliseconds
            rate = self.size * 8 / (message.timestamp - self.begin)
            self.begin, self.size = message.timestamp, 0
            self.log.info("{s.label}: {rate:.0f} kbit/s", s=self.stream, rate=rate)

    def streamEnded(self):
        self.log.info("{s.label}: no more", s=self.stream)


@implementer(ISinkFactory)
class Meters:
    sinkName = "meter"

    def openSink(self, stream):
        return Meter(stream)


description = os.environ.get("RTMP_ENDPOINT", "tcp:1935")
endpoint = serverFromString(reactor, description)
factory = RTMPFactory(reactor, authorizer=Decisions(), sinkFactories=[Meters()])

application = Application("rtmp")
ServerProcess(reactor).setServiceParent(application)
RTMPService(reactor, factory, [Listener(description, endpoint)]).setServiceParent(
    application
)
