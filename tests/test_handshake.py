"""
The handshake: RTMP 1.0, 5.2, the digests that Flash Player brought, and peers that
speak something else.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
import tracemalloc

import pytest

from twisted_rtmp.wire.errors import HandshakeError, ProtocolError, UsageError
from twisted_rtmp.wire.handshake import ClientHandshake, ServerHandshake

#: C1 as ffmpeg 5.1 sent it: digest, schema 0.
FFMPEG_C1 = base64.b64decode(
    "AAAAAAkAfAL3eFUezquOHjYvB8WGinCyZtQCIOUIYRiiLjaX1fwrYynCLufHybC1s0XfqDmP6jvIeSCK"
    "EGhCWqEXTLVyWM/r4k2kLsT/naGce0BvGMlb/dBO5ItvgzIUpHuL9o6wUlTiWumpqLSWxUlvbpzXxoy2"
    "vMhBaeZ/Pjcv/hhtqFE4YsWv3rWhIYqGC6zN2GmyU9urig77WaSMRCCZh15Vt0/QehtprzA+CZhzy3fi"
    "2eLEdB6x9Qan8LKWKvkfUFHIkKMgmU9MizagH6nA8V9LfPe2w4F9pgkYYR07Av98yUA4k3U30zguQWvV"
    "dXeDTfnK90g1IVDOktDbtA6HH8Nk4Yt+NWnjmHbBrgy3n/bXqzL58BGGnI2kGR70bTwbxrctg4EvIkPR"
    "dSpBJjLWaiB19dMC9FzfK5i4AreYBdxIN9hO3tHMQsun7sMTe/ht0LLX9iTVIaP/ZVvPDfQQE0HSMOlG"
    "UWKORaer+BgxAc6YHl6GpvrsXHmqfscYHqRZ7ZZuDJMqb55L9VSrexyQXN4FTtQNL7ibv8ZXUuWM/eTy"
    "oE3DrR5e9Pxk1XsHHBQUakUfagQxVtKID1lX1439P/K4gPYkrHDycJTzdzTq8ZJPZqw9ZIriMpMFRKRC"
    "C2Xu1Glvf1D+BfyUhRZlC/ubZflT2EjjRWll0NdrYnqE416d2r2LQ/D62u5FjN9Z69dzki4K5QfV5kCS"
    "6Q7GfthDno8iHHU6n5IW8cuFtRB7x8x8T7LD7tGvxwmxkvUN5pwf/KVlDvtSO1+rWZfKxLfvWvK/WXPm"
    "KTuuH8HaSZvlUVB33k3bP3+810FxHGK32AO40FTPV4GCcU0cRFvWkrobg5oJ5yZvyF2qj61DPau9IGze"
    "HqVxdwxr+nlWwmbuhDXrAcqm9YPA2Dwz7vzz+X25F72ymfion7iGCrHNZEwegszhMjqet50l9dxXC3C0"
    "C7IAYXQzU9BTbs2r2C8id3ViKMtU/mkyxMm9Ew0r/HAL9dhdppRulvguCv2OnCDP6r+aahibsXu+9TnR"
    "2ec+6Wb8tda9v5hETehlvhYF40CHs0zfBOOv9VvUE3xSLS48e/JjTbMmsipHTbf4oJUqs1EN5VU5bBij"
    "eKg5C3O/93cvsnYPpXhqOwRZxFodGw3/TLu2XaDtNPMhFsPCzCuVglERvPuyRsFQWqAMlw0G12zJUM42"
    "iyINsgSHy6ArsfxUs2VntCkT1riFBizXeVYB0xpKjm1WRn+lxSFiZ2/VJhIlE8Pkfy5tnWoZxPh5VDGp"
    "TO0DkiHSesaKencOkwUlInFFm3HQVQXEl3tw6WhRIIus3N9+aCs4SIQIgPH+wqMvsUBoYryDytia33Kf"
    "O6b/0/6AjoQD58ag9tzaMhGJj28WUFsHjMeLgNtgDe0vIA8l/13LMdMsviBWuL3DEJFjGrvSrCjWH+Mk"
    "gOxQNbvzXxczk/DVmiHSMAsttLWeqmP/4Pk9ZdwChRaQXyKpx9/zh8TreMYwDn67sqZmPPvlqZd8r1dk"
    "uj8KulfbTmBR4K7G4Fsb2qZJqXh17bxAvMQhS7f+9ycw1DaKy9PhCrTHZCocU/k8om25x2ZVW+Jv3/Di"
    "pyFCW5V2Kwt3b9Pj6xcxPVMSnJ80ADyZpRlqjGqsttZLUd2YsnxbWacL2UGhugMA+3RM/EmdmX5tkzkt"
    "KKdn0RbfvCy560BUDRHrMErZMiOG/cWX1V09HGe8VN81R5r7Geos0gTdMx77ScHhcva7ifv1ggfcrmwS"
    "+KdZi+8ehywMNfIrTCnfEPm7Gt0664h6tfs4wDa4g0b3YcQvKV3+C0N9+08wpxJ2q31AnOQklj+eu08f"
    "R+UrGHhvJ5tahyJvZpgd1tCtEfSa8xBV/2lxD9o0V8S3hS2y45NtB3i/h58XNK06JP+xrpWEdgucsEUq"
    "U7oJYv/i9gWvUoML0hGlSIiUzAsFIlUEhxHNGYUQqelDv4uDkZhFX71BBzAF0wOZC4jZtjZW1Dz+yO2D"
    "dI9LDw/FEgIWeUsioFTlvFir2MQQlgcIhDk0U85QlpSvvqvg"
)

#: C1 of RTMP 1.0, 5.2.3: time, zeros, random bytes.
SIMPLE_C1 = bytes.fromhex("01020304 00000000") + random.Random(1).randbytes(1528)

#: Random bytes behind a version, as if there were a digest.
WRONG_C1 = bytes.fromhex("00000000 09007c02") + random.Random(2).randbytes(1528)

C2 = bytes(range(256)) * 6
TRAILING = b"\x02\0\0\0\0\0\x04\x01\0\0\0\0\0\0\x10\0"

COMMON = bytes.fromhex(
    "f0eec24a8068bee82e00d0d1029e7e576eec5d2d29806fab93b8e636cfeb31ae"
)
PLAYER = b"Genuine Adobe Flash Player 001"
SERVER = b"Genuine Adobe Flash Media Server 001"


# The digest once more, written another way, to hold the module against.


def sha(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def place(packet, schema):
    where = 772 if schema else 8
    a, b, c, d = packet[where : where + 4]
    return where + 4 + (a + b + c + d) % 728


def digestIsRight(packet, schema, key):
    at = place(packet, schema)
    return packet[at : at + 32] == sha(key, packet[:at] + packet[at + 32 :])


def withDigest(packet, schema, key):
    at = place(packet, schema)
    digest = sha(key, packet[:at] + packet[at + 32 :])
    return packet[:at] + digest + packet[at + 32 :]


def proves(echo, packet, schema, key):
    at = place(packet, schema)
    secret = sha(key + COMMON, packet[at : at + 32])
    return echo[-32:] == sha(secret, echo[:-32])


def drive(handshake, chunks):
    """Feed the chunks, as a connection does; what is sent, and what trails."""
    sent = trailing = b""
    for chunk in chunks:
        handshake.receive(chunk)
        sent += handshake.dataToSend()
        if handshake.done:
            trailing += handshake.trailing()
    return sent, trailing


def seeded(seed=0):
    return random.Random(seed).randbytes


class TestServer:
    def test_simple(self):
        server = ServerHandshake(time=0x0A0B0C0D, random=seeded())
        assert server.dataToSend() == b""
        server.receive(b"\x03" + SIMPLE_C1)
        sent = server.dataToSend()
        s0, s1, s2 = sent[:1], sent[1:1537], sent[1537:]
        assert s0 == b"\x03"
        # Zeros say to ffmpeg and librtmp that there is no digest.
        assert s1 == b"\x0a\x0b\x0c\x0d\0\0\0\0" + seeded()(1528)
        assert s2 == SIMPLE_C1
        assert (server.done, server.digest) == (False, False)
        server.receive(C2)
        assert server.dataToSend() == b""
        assert (server.done, server.trailing()) == (True, b"")

    @pytest.mark.parametrize("schema", [0, 1])
    def test_digest(self, schema):
        c1 = FFMPEG_C1 if schema == 0 else withDigest(WRONG_C1, 1, PLAYER)
        server = ServerHandshake(time=7)
        sent, trailing = drive(server, [b"\x03" + c1 + C2 + TRAILING])
        assert (server.done, server.digest, trailing) == (True, True, TRAILING)
        s1, s2 = sent[1:1537], sent[1537:]
        assert len(s2) == 1536
        assert s1[:4] == b"\0\0\0\x07"
        assert s1[4] >= 3  # or ffmpeg would not look for the digest
        assert digestIsRight(s1, schema, SERVER)
        assert proves(s2, c1, schema, SERVER)

    def test_digestOfEverySum(self):
        """The digest may begin at any of 728 places."""
        starts = set()
        for first in range(0, 256, 5):
            for rest in (0, 255):
                packet = bytearray(WRONG_C1)
                packet[8:12] = bytes((first, rest, rest, rest))
                c1 = withDigest(bytes(packet), 0, PLAYER)
                starts.add(place(c1, 0))
                server = ServerHandshake()
                server.receive(b"\x03" + c1)
                assert proves(server.dataToSend()[1537:], c1, 0, SERVER)
        assert len(starts) > 50
        assert 12 <= min(starts) <= max(starts) < 12 + 728

    @pytest.mark.parametrize(
        "c1",
        [
            WRONG_C1,
            FFMPEG_C1[:-1] + bytes((FFMPEG_C1[-1] ^ 1,)),
            # A right digest counts for nothing behind zeros.
            withDigest(SIMPLE_C1, 0, PLAYER),
            # The server's key is not the client's.
            withDigest(WRONG_C1, 0, SERVER),
        ],
        ids=["none", "one bit wrong", "no version", "other key"],
    )
    def test_digestThatIsNotRightFallsBack(self, c1):
        server = ServerHandshake()
        sent, trailing = drive(server, [b"\x03" + c1, C2 + TRAILING])
        assert (server.done, server.digest, trailing) == (True, False, TRAILING)
        assert sent[5:9] == b"\0\0\0\0"
        assert sent[1537:] == c1

    @pytest.mark.parametrize("c1", [SIMPLE_C1, FFMPEG_C1], ids=["simple", "digest"])
    def test_everySplit(self, c1):
        data = b"\x03" + c1 + C2 + TRAILING
        expected = drive(ServerHandshake(random=seeded()), [data])
        assert len(expected[0]) == 3073
        for cut in range(len(data) + 1):
            server = ServerHandshake(random=seeded())
            assert drive(server, [data[:cut], data[cut:]]) == expected, cut

    @pytest.mark.parametrize("c1", [SIMPLE_C1, FFMPEG_C1], ids=["simple", "digest"])
    def test_byteByByte(self, c1):
        data = b"\x03" + c1 + C2 + TRAILING
        expected = drive(ServerHandshake(random=seeded()), [data])
        pieces = [data[i : i + 1] for i in range(len(data))]
        assert drive(ServerHandshake(random=seeded()), pieces) == expected

    def test_truncated(self):
        """S0S1S2 with the last byte of C1 and not before; done with the last of C2."""
        data = b"\x03" + FFMPEG_C1 + C2
        for size in (0, 1, 2, 1000, 1536, 1537, 1538, 3072, 3073):
            server = ServerHandshake()
            sent, _ = drive(server, [data[:size]])
            assert len(sent) == (3073 if size >= 1537 else 0), size
            assert server.done == (size == 3073)

    @pytest.mark.parametrize("version", [0, 1, 2, 4, 5, 7, 31])
    def test_unknownVersionIsAnsweredWithOurs(self, version):
        server = ServerHandshake()
        sent, trailing = drive(server, [bytes((version,)) + SIMPLE_C1 + C2 + b"x"])
        assert sent[0] == 3
        assert (server.done, trailing) == (True, b"x")

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"\x06", "RTMPE"),
            (b"\x08" + bytes(1536), "RTMPE"),
            (b"\x09", "RTMPE"),
            (b"\x16\x03\x01\x02\x00\x01", "TLS"),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "b'GET / HTTP/1.1"),
            (b"G", "b'G'"),
            (b"\xf3\0\0", "not RTMP"),
            (b"\x20", "not RTMP"),
            (b"\xff" * 5000, "not RTMP"),
            (b"<policy-file-request/>\0", "policy"),
            (b"<", "policy"),
            (b"<html>", "b'<html>'"),
        ],
    )
    def test_refused(self, data, words):
        """With the first byte; the message quotes little, and nothing raw."""
        server = ServerHandshake()
        server.receive(data)
        for _ in range(2):
            with pytest.raises(HandshakeError, match=words) as caught:
                server.dataToSend()
            assert caught.value.got == data[0]
            assert caught.value.section == "RTMP 1.0, 5.2.2"
            assert str(caught.value).isprintable()
            assert len(str(caught.value)) < 200
        assert not server.done

    def test_trailingBeforeTheEnd(self):
        server = ServerHandshake()
        server.receive(b"\x03" + SIMPLE_C1)
        server.dataToSend()
        with pytest.raises(UsageError):
            server.trailing()

    def test_trailingIsGivenOnce(self):
        server = ServerHandshake()
        server.receive(b"\x03" + SIMPLE_C1 + C2 + b"abc")
        server.dataToSend()
        assert [server.trailing(), server.trailing()] == [b"abc", b""]
        assert server.dataToSend() == b""

    @pytest.mark.parametrize("c1", [SIMPLE_C1, FFMPEG_C1], ids=["simple", "digest"])
    def test_halfOpenConnectionsAreCheap(self, c1):
        """Neither C1 nor S1 is kept once S2 is sent; C2 is not kept at all."""
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            servers = [ServerHandshake() for _ in range(100)]
            for server in servers:
                for data in (b"\x03" + c1, C2[:1500]):
                    server.receive(data)
                    server.dataToSend()
            spent = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert spent / len(servers) < 400

    def test_notTwoAlike(self):
        """The usual source of random bytes is the system's."""
        sent = [drive(ServerHandshake(), [b"\x03" + FFMPEG_C1])[0] for _ in range(2)]
        assert sent[0][9:1537] != sent[1][9:1537]
        assert sent[0][1537:] != sent[1][1537:]


def simpleS1():
    return b"\0\0\0\x01\0\0\0\0" + random.Random(3).randbytes(1528)


def digestS1(schema):
    noise = random.Random(4).randbytes(1528)
    return withDigest(b"\0\0\0\x01\x04\x05\0\x01" + noise, schema, SERVER)


class TestClient:
    @pytest.mark.parametrize("schema", [0, 1])
    def test_digest(self, schema):
        client = ClientHandshake(schema=schema, time=9)
        c0c1 = client.dataToSend()
        c0, c1 = c0c1[:1], c0c1[1:]
        assert c0 == b"\x03"
        assert len(c1) == 1536
        assert c1[:4] == b"\0\0\0\x09"
        assert c1[4:8] != b"\0\0\0\0"
        assert digestIsRight(c1, schema, PLAYER)
        assert client.dataToSend() == b""
        s1 = digestS1(schema)
        client.receive(b"\x03" + s1)
        c2 = client.dataToSend()
        assert len(c2) == 1536
        assert proves(c2, s1, schema, PLAYER)
        assert (client.done, client.digest) == (False, True)
        # S2 proves nothing here, and that is no matter.
        client.receive(C2 + TRAILING)
        assert client.dataToSend() == b""
        assert (client.done, client.trailing()) == (True, TRAILING)

    def test_simple(self):
        client = ClientHandshake(digest=False, time=2**32 + 5, random=seeded())
        c1 = b"\0\0\0\x05\0\0\0\0" + seeded()(1528)
        assert client.dataToSend() == b"\x03" + c1
        # Who sends a simple C1 echoes S1, whatever it looks like.
        s1 = digestS1(0)
        assert drive(client, [b"\x03" + s1 + c1]) == (s1, b"")
        assert (client.done, client.digest) == (True, False)

    @pytest.mark.parametrize(
        "s1", [simpleS1(), WRONG_C1, digestS1(0)[:-1] + b"?"], ids=range(3)
    )
    def test_fallsBackToEcho(self, s1):
        client = ClientHandshake()
        client.dataToSend()
        assert drive(client, [b"\x03" + s1 + C2]) == (s1, b"")
        assert (client.done, client.digest) == (True, False)

    def test_serverThatSpeaksFirst(self):
        client = ClientHandshake()
        client.receive(b"\x03" + simpleS1() + C2 + TRAILING)
        sent = client.dataToSend()
        assert sent[1537:] == simpleS1()
        assert (client.done, client.trailing()) == (True, TRAILING)

    @pytest.mark.parametrize("s1", [simpleS1(), digestS1(1)], ids=["simple", "digest"])
    def test_everySplit(self, s1):
        data = b"\x03" + s1 + C2 + TRAILING
        expected = drive(ClientHandshake(random=seeded()), [b"", data])
        assert len(expected[0]) == 3073
        for cut in range(len(data) + 1):
            client = ClientHandshake(random=seeded())
            assert drive(client, [data[:cut], data[cut:]]) == expected, cut
        pieces = [data[i : i + 1] for i in range(len(data))]
        assert drive(ClientHandshake(random=seeded()), pieces) == expected

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"\x06", "version 6"),
            (b"\x00", "version 0"),
            (b"HTTP/1.1 400 Bad Request\r\n", "b'HTTP/1.1"),
            (b"\xff", "not RTMP"),
        ],
    )
    def test_refused(self, data, words):
        client = ClientHandshake()
        client.dataToSend()
        client.receive(data)
        for _ in range(2):
            with pytest.raises(HandshakeError, match=words):
                client.dataToSend()

    def test_noSuchSchema(self):
        with pytest.raises(UsageError):
            ClientHandshake(schema=2)


@pytest.mark.parametrize(
    ("options", "digest"),
    [({"schema": 0}, True), ({"schema": 1}, True), ({"digest": False}, False)],
)
@pytest.mark.parametrize("size", [1, 7, 1000, 1536, 1537, 4096])
def test_bothEnds(options, digest, size):
    """Client and server with each other, in pieces of one size."""
    client, server = ClientHandshake(**options), ServerHandshake()
    wires = {"up": client.dataToSend(), "down": b""}
    while wires["up"] or wires["down"]:
        for name, reader, back in (("up", server, "down"), ("down", client, "up")):
            piece, wires[name] = wires[name][:size], wires[name][size:]
            reader.receive(piece)
            wires[back] += reader.dataToSend()
    assert (client.done, server.done) == (True, True)
    assert (client.digest, server.digest) == (digest, digest)
    assert (client.trailing(), server.trailing()) == (b"", b"")


@pytest.mark.parametrize("seed", range(3))
def test_mutations(seed):
    """The handshake is done, or waits, or raises HandshakeError."""
    source = random.Random(seed)
    corpus = [
        b"\x03" + c1 + C2 + TRAILING for c1 in (SIMPLE_C1, FFMPEG_C1, digestS1(1))
    ]
    outcomes = set()
    for _ in range(300):
        data = bytearray(source.choice(corpus))
        for _ in range(source.randrange(4)):
            data[source.choice((0, source.randrange(16), source.randrange(3073)))] = (
                source.randrange(256)
            )
        data = bytes(data[: source.choice((len(data), source.randrange(len(data))))])
        cut = source.randrange(len(data) + 1)
        for handshake in (ServerHandshake(), ClientHandshake()):
            handshake.dataToSend()
            try:
                _, trailing = drive(handshake, [data[:cut], data[cut:]])
            except ProtocolError as error:
                outcomes.add(type(error))
                continue
            outcomes.add(handshake.done)
            assert handshake.done == (len(data) >= 3073)
            assert trailing == data[3073:]
    assert outcomes == {HandshakeError, True, False}
