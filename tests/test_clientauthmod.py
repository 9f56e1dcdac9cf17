"""
Adobe's and Limelight's authentication.

The responses were computed with coreutils' md5sum and base64, step by step.
"""

from __future__ import annotations

import pytest

from twisted_rtmp.client import authmod
from twisted_rtmp.client.authmod import Demand, demandOf

NEED_AUTH = "[ AccessManager.Reject ] : [ code=403 need auth; authmod={mod} ] : "
CHALLENGE = (
    "[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=needauth&user=alice"
    "&salt=s4+/lt==&challenge=Y2hh+A==&opaque=b3Bh/Q=="
)


@pytest.mark.parametrize(
    ("description", "demand"),
    [
        (NEED_AUTH.format(mod="adobe"), Demand("adobe", "")),
        (NEED_AUTH.format(mod="llnw"), Demand("llnw", "")),
        (
            CHALLENGE,
            Demand(
                "adobe",
                "needauth",
                {
                    "user": "alice",
                    "salt": "s4+/lt==",
                    "challenge": "Y2hh+A==",
                    "opaque": "b3Bh/Q==",
                },
            ),
        ),
        (
            "[ authmod=llnw ] : ?reason=needauth&user=alice&nonce=abc&x",
            Demand("llnw", "needauth", {"user": "alice", "nonce": "abc", "x": ""}),
        ),
        (
            "[ authmod=adobe ] : ?reason=authfailed&opaque=x",
            Demand("adobe", "authfailed", {"opaque": "x"}),
        ),
        (
            "[authmod=adobe] : ?reason=nosuchuser",
            Demand("adobe", "nosuchuser"),
        ),
        ("[ code=403 need auth; authmod=kerberos ]", Demand("kerberos", "")),
        ("Connection failed.", None),
        ("", None),
        ("authmod=", None),
    ],
)
def test_descriptions(description, demand):
    assert demandOf(description) == demand


def test_knownMods():
    assert Demand("adobe", "").known
    assert Demand("llnw", "").known
    assert not Demand("kerberos", "").known


def test_ALongDescriptionIsReadInPart():
    description = CHALLENGE + "&x=" + "y" * 100_000
    demand = demandOf(description)
    assert demand is not None
    assert len(demand.fields["x"]) < authmod.MAX_DESCRIPTION


@pytest.mark.parametrize("mod", ["adobe", "llnw"])
def test_theNameFirst(mod):
    query = authmod.answer(Demand(mod, ""), "live", "alice", "secret")
    assert query == f"authmod={mod}&user=alice"


def test_adobeWithOpaque():
    demand = demandOf(CHALLENGE)
    assert demand is not None
    query = authmod.answer(demand, "live", "alice", "secret", lambda: "0badcafe")
    assert query == (
        "authmod=adobe&user=alice&challenge=0badcafe"
        "&response=3mSVUNCvvXM9WFeBHpQGEg==&opaque=b3Bh/Q=="
    )


def test_adobeWithoutOpaque():
    demand = Demand("adobe", "needauth", {"salt": "s4+/lt==", "challenge": "Y2hh+A=="})
    query = authmod.answer(demand, "live", "alice", "secret", lambda: "0badcafe")
    assert query == (
        "authmod=adobe&user=alice&challenge=0badcafe&response=rb9l6yYoflYNMsQ2y8kanQ=="
    )


@pytest.mark.parametrize(
    ("application", "response"),
    [
        ("live", "3b5b549cfbb6ad751897e56a504da542"),
        ("live?a=/b", "3b5b549cfbb6ad751897e56a504da542"),
        ("live/inst", "481b363798b2e8eaa8efcacb2d095037"),
    ],
)
def test_limelight(application, response):
    demand = Demand("llnw", "needauth", {"user": "alice", "nonce": "abc123"})
    query = authmod.answer(
        demand, application, "alice", "s\u00e9cret", lambda: "0badcafe"
    )
    assert query == (
        "authmod=llnw&user=alice&nonce=abc123&cnonce=0badcafe&nc=00000001"
        f"&response={response}"
    )


def test_eachAnswerHasANonceOfItsOwn():
    demand = Demand("llnw", "needauth", {"nonce": "abc"})
    queries = {authmod.answer(demand, "live", "u", "p") for _ in range(9)}
    assert len(queries) == 9
