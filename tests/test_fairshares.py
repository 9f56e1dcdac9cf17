"""Places that addresses, and their connections, share."""

from __future__ import annotations

from random import Random

from twisted_rtmp.live.shares import Payer, Shares


def always(item):
    return True


def test_placesAreTakenAndGivenBack():
    places = Shares(2, 1.0)
    assert places.take("a", Payer("x", "1"))
    assert places.take("b", Payer("y", "2"))
    assert not places.take("c", Payer("z", "3"))
    assert len(places) == 2
    assert "a" in places
    assert "c" not in places
    places.leave("a")
    places.leave("never")
    assert places.take("c", Payer("z", "3"))


def test_anAddressHasOneAtLeast():
    places = Shares(3, 0.1)
    assert places.perHost == 1
    assert places.take("a", Payer("x"))
    assert not places.take("b", Payer("x"))
    assert places.take("c", Payer())
    assert places.take("d", Payer()), "the server itself has no share"


def test_aPlaceMayBeCountedForAnother():
    places = Shares(4, 0.5)
    places.take("a", Payer("x"))
    places.take("b", Payer("x"))
    assert places.take("b", Payer("y"))
    assert places.take("c", Payer("x"))
    assert not places.take("d", Payer("x"))


def test_addressesAreServedInTurn():
    places = Shares(1, 1.0)
    places.take("first", Payer("x"))
    for item in ("x1", "x2", "y1"):
        places.wait(item, Payer(item[0]))
    places.wait("gone", Payer("z"))
    places.leave("gone")
    assert places.next() is None
    places.leave("first")
    served = []
    while (item := places.next()) is not None:
        assert places.take(item, Payer(item[0]))
        served.append(item)
        places.leave(item)
    assert served == ["x1", "y1", "x2"]


def test_whoHasMoreGivesOneUp():
    places = Shares(4, 1.0)
    for number in range(3):
        places.take(number, Payer("x", "1"))
    places.take("other", Payer("y", "2"))
    assert places.takeFrom("new", Payer("z", "3"), always) == 2
    # Nobody has two more than this one now.
    assert places.takeFrom("newer", Payer("z", "3"), always) is None
    assert places.takeFrom("last", Payer("x", "4"), always) == 1
    assert places.takeFrom("none", Payer("v", "5"), lambda item: False) is None


def test_nobodyTakesAllWhateverHappens():
    """At any time, an address that asks has as many as any other, or one fewer."""
    random = Random(7)
    for _ in range(200):
        places = Shares(random.randint(1, 8), random.choice((0.3, 1.0)))
        taken = {}
        for item in range(40):
            payer = Payer(random.choice("xyz"), random.choice("12"))
            if random.random() < 0.2 and taken:
                gone = random.choice(list(taken))
                places.leave(gone)
                del taken[gone]
            elif places.take(item, payer):
                taken[item] = payer
            elif (other := places.takeFrom(item, payer, always)) is not None:
                del taken[other]
                taken[item] = payer
            else:
                mine = sum(each.host == payer.host for each in taken.values())
                most = max(
                    sum(each.host == host for each in taken.values()) for host in "xyz"
                )
                assert mine >= min(most - 1, places.perHost)
            assert len(taken) == len(places) <= places.limit
            for host in "xyz":
                count = sum(each.host == host for each in taken.values())
                assert count <= places.perHost
