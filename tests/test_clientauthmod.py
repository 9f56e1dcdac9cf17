"""
Adobe's and Limelight's authentication.

The responses were computed with coreutils' md5sum and base64, step by step.
"""

from __future__ import annotations

import pytest

from twisted_rtmp.client import authmod
from twisted_rtmp.client.authmod import AuthChallenge, parseChallenge

NEED_AUTH = "[ AccessManager.Reject ] : [ code=403 need auth; authmod={mod} ] : "
CHALLENGE = (
    "[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=needauth&user=alice"
    "&salt=s4+/lt==&challenge=Y2hh+A==&opaque=b3Bh/Q=="
)


@pytest.mark.parametrize(
    ("description", "challenge"),
    [
        (NEED_AUTH.format(mod="adobe"), AuthChallenge("adobe", "")),
        (NEED_AUTH.format(mod="llnw"), AuthChallenge("llnw", "")),
        (
            CHALLENGE,
            AuthChallenge(
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
            AuthChallenge(
                "llnw", "needauth", {"user": "alice", "nonce": "abc", "x": ""}
            ),
        ),
        (
            "[ authmod=adobe ] : ?reason=authfailed&opaque=x",
            AuthChallenge("adobe", "authfailed", {"opaque": "x"}),
        ),
        (
            "[authmod=adobe] : ?reason=nosuchuser",
            AuthChallenge("adobe", "nosuchuser"),
        ),
        ("[ code=403 need auth; authmod=kerberos ]", AuthChallenge("kerberos", "")),
        ("Connection failed.", None),
        ("", None),
        ("authmod=", None),
    ],
)
def test_descriptions(description, challenge):
    assert parseChallenge(description) == challenge


def test_knownMods():
    assert AuthChallenge("adobe", "").known
    assert AuthChallenge("llnw", "").known
    assert not AuthChallenge("kerberos", "").known


def test_ALongDescriptionIsReadInPart():
    description = CHALLENGE + "&x=" + "y" * 100_000
    challenge = parseChallenge(description)
    assert challenge is not None
    assert len(challenge.fields["x"]) < authmod.MAX_DESCRIPTION


@pytest.mark.parametrize("mod", ["adobe", "llnw"])
def test_theNameFirst(mod):
    query = authmod.answer(AuthChallenge(mod, ""), "live", "alice", "secret")
    assert query == f"authmod={mod}&user=alice"


def test_adobeWithOpaque():
    challenge = parseChallenge(CHALLENGE)
    assert challenge is not None
    query = authmod.answer(challenge, "live", "alice", "secret", lambda: "0badcafe")
    assert query == (
        "authmod=adobe&user=alice&challenge=0badcafe"
        "&response=3mSVUNCvvXM9WFeBHpQGEg==&opaque=b3Bh/Q=="
    )


def test_adobeWithoutOpaque():
    challenge = AuthChallenge(
        "adobe", "needauth", {"salt": "s4+/lt==", "challenge": "Y2hh+A=="}
    )
    query = authmod.answer(challenge, "live", "alice", "secret", lambda: "0badcafe")
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
    challenge = AuthChallenge("llnw", "needauth", {"user": "alice", "nonce": "abc123"})
    query = authmod.answer(
        challenge, application, "alice", "s\u00e9cret", lambda: "0badcafe"
    )
    assert query == (
        "authmod=llnw&user=alice&nonce=abc123&cnonce=0badcafe&nc=00000001"
        f"&response={response}"
    )


def test_eachAnswerHasANonceOfItsOwn():
    challenge = AuthChallenge("llnw", "needauth", {"nonce": "abc"})
    queries = {authmod.answer(challenge, "live", "u", "p") for _ in range(9)}
    assert len(queries) == 9
