"""Persons: claims that can be somebody, tokens that are good enough, and the end of their time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dicomward.identity.person import (
    MOST_GROUPS,
    ClaimError,
    Person,
    TokenError,
    TokenRules,
    clean_groups,
    judge_token,
    read_claim,
    with_person,
    without_expired_person,
)
from dicomward.vocab.association import UserIdentityType
from dicomward.vocab.principal import Assurance, Principal
from dicomward.vocab.reason import ReasonCode

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
RULES = TokenRules(
    issuer="https://issuer.example",
    audience="dicomward",
    name_claim="sub",
    groups_claim="groups",
    leeway=timedelta(seconds=30),
    longest=timedelta(hours=12),
)


def principal(assurance: Assurance = Assurance.TLS_DEVICE) -> Principal:
    return Principal(
        device="ws1", calling_ae_title="WS1", role="workstation", site="", assurance=assurance, address="10.0.0.1"
    )


def claims(**changes: Any) -> dict[str, object]:
    at = NOW.timestamp()
    values = {"iss": RULES.issuer, "aud": RULES.audience, "exp": at + 600, "iat": at, "sub": "anna", **changes}
    return {key: value for key, value in values.items() if value is not None}


@pytest.mark.parametrize("primary", [b"anna", b"anna ", b" anna", b"anna\0"])
def test_padding_is_no_part_of_a_name(primary: bytes) -> None:
    claim = read_claim(2, primary, b"secret", device="ws1", address="10.0.0.1")
    assert (claim.name, claim.secret) == ("anna", b"secret")
    assert "secret" not in repr(claim)


def test_a_token_names_its_person_itself() -> None:
    claim = read_claim(5, b"a.b.c", b"", device="ws1", address="10.0.0.1")
    assert (claim.type, claim.name, claim.secret) == (UserIdentityType.JWT, "", b"a.b.c")


@pytest.mark.parametrize(
    ("primary", "secondary"), [(b"", b"x"), (b"\xff", b"x"), (b"a" * 65, b"x"), (b"a\nb", b"x"), (b"anna", b"")]
)
def test_claims_that_can_be_nobody(primary: bytes, secondary: bytes) -> None:
    with pytest.raises(ClaimError):
        read_claim(2, primary, secondary, device="ws1", address="10.0.0.1")


def test_a_person_raises_what_tls_has_proved_and_nothing_else() -> None:
    anna = Person(name="anna", groups=frozenset({"readers"}), until=NOW)
    known = with_person(principal(), anna)
    assert (known.person, known.groups, known.assurance) == (
        "anna",
        frozenset({"readers"}),
        Assurance.DEVICE_AND_PERSON,
    )
    assert with_person(principal(Assurance.NETWORK_PIN), anna).assurance is Assurance.NETWORK_PIN


def test_after_its_time_the_device_is_alone_with_the_floor() -> None:
    known = with_person(principal(), Person(name="anna", groups=frozenset({"readers"}), until=NOW))
    assert without_expired_person(known, NOW - timedelta(microseconds=1)) is known
    left = without_expired_person(known, NOW)
    assert (left.person, left.groups, left.assurance) == ("", frozenset(), Assurance.TLS_DEVICE)
    assert left.floor_only == ReasonCode.USER_IDENTITY_EXPIRED
    assert without_expired_person(left, NOW + timedelta(days=1)) is left


def test_a_good_token_is_a_person_for_its_time() -> None:
    anna = judge_token(claims(groups=["readers"], aud=["other", "dicomward"]), RULES, NOW)
    assert anna == Person(name="anna", groups=frozenset({"readers"}), until=NOW + timedelta(seconds=630))
    long = judge_token(claims(exp=NOW.timestamp() + 10**7), RULES, NOW)
    assert long.until == NOW + RULES.longest


def test_the_clocks_may_be_off_a_little() -> None:
    at = NOW.timestamp()
    assert judge_token(claims(nbf=at + 30, iat=at + 29, exp=at + 60), RULES, NOW).name == "anna"
    assert judge_token(claims(exp=at - 29), RULES, NOW).until == NOW + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"iss": "https://other.example"}, "the issuer is"),
        ({"iss": None}, "the issuer is None"),
        ({"aud": "other"}, "the audience is"),
        ({"aud": ["other"]}, "the audience is"),
        ({"aud": None}, "the audience is None"),
        ({"exp": None}, "no expiry"),
        ({"exp": "tomorrow"}, "not a number"),
        ({"exp": True}, "not a number"),
        ({"exp": 1e300}, "no time at all"),
        ({"exp": float("nan")}, "no time at all"),
        ({"exp": NOW.timestamp() - 30}, "it expired at"),
        ({"nbf": NOW.timestamp() + 31}, r"\(nbf\) on"),
        ({"iat": NOW.timestamp() + 31}, r"\(iat\) on"),
        ({"sub": None}, "names no person"),
        ({"sub": 7}, "names no person"),
        ({"sub": "a\0"}, "names no person"),
    ],
)
def test_tokens_that_are_not_good_enough(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(TokenError, match=says) as caught:
        judge_token(claims(**changes), RULES, NOW)
    expired = ReasonCode.USER_IDENTITY_EXPIRED if "expired" in says else ReasonCode.USER_IDENTITY_REFUSED
    assert caught.value.reason is expired


def test_groups_are_texts_and_bounded() -> None:
    assert clean_groups("readers") == {"readers"}
    assert clean_groups(["a", 7, "", "b" * 257]) == {"a"}
    assert clean_groups({"a": 1}) == clean_groups(None) == frozenset()
    assert len(clean_groups([str(i) for i in range(MOST_GROUPS + 5)])) == MOST_GROUPS
