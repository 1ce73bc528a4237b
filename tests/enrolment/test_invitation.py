"""Who may use an invitation: each verdict and each refusal."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dicomward.enrolment.code import Code, hash_of
from dicomward.enrolment.grant import Grant
from dicomward.enrolment.invitation import (
    MOST_WRONG_GUESSES,
    Invitation,
    InvitationStatus,
    Verdict,
    after_wrong_guess,
    decode_grant,
    encode_grant,
    judge_code,
    network_of,
    verify_network,
)
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.identity.registry import Endpoint, RegistryError
from dicomward.vocab.reason import ReasonCode

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
KEY = b"k" * 32
CODE = Code("ABCDE", "S" * 16, "P" * 16)
GRANT = Grant(device="CT-1", ae_titles=("CT1",), role="modality", networks=("10.1.2.0/24",), life=timedelta(days=90))
OPEN = Invitation(
    id="ABCDE",
    grant=GRANT,
    code_hash=hash_of(CODE.secret, KEY),
    created_at=NOW,
    created_by="anna",
    expires_at=NOW + timedelta(hours=2),
)
USED = replace(OPEN, status=InvitationStatus.USED, used_key="aa")


def refusal(
    invitation: Invitation, code: Code | None = CODE, *, now: datetime = NOW, repeats: bool = False
) -> ReasonCode:
    with pytest.raises(EnrolmentRefusedError) as caught:
        judge_code(invitation, code, KEY, now, key_sha256="bb", may_repeat=repeats)
    return caught.value.reason


def test_right_code_is_right() -> None:
    assert judge_code(OPEN, CODE, KEY, NOW) is Verdict.RIGHT


@pytest.mark.parametrize("code", [None, replace(CODE, secret="T" * 16), replace(CODE, selector="BBBBB")])
def test_wrong_code_is_counted_whatever_the_invitation_is(code: Code | None) -> None:
    for invitation in (OPEN, USED, replace(OPEN, status=InvitationStatus.REVOKED)):
        assert refusal(invitation, code) is ReasonCode.CODE_WRONG


def test_dead_one_stays_dead_for_the_right_code() -> None:
    assert refusal(replace(OPEN, status=InvitationStatus.DEAD)) is ReasonCode.CODE_DEAD


def test_used_revoked_and_expired_ones_are_told_apart() -> None:
    assert refusal(USED) is ReasonCode.CODE_USED
    assert refusal(replace(OPEN, status=InvitationStatus.REVOKED)) is ReasonCode.CODE_REVOKED
    assert refusal(OPEN, now=OPEN.expires_at) is ReasonCode.CODE_EXPIRED


def test_lost_answer_comes_again_for_the_same_key_only() -> None:
    assert judge_code(USED, CODE, KEY, NOW, key_sha256="aa", may_repeat=True) is Verdict.REPEATED
    assert refusal(USED, repeats=True) is ReasonCode.CODE_USED
    with pytest.raises(EnrolmentRefusedError):
        judge_code(USED, CODE, KEY, NOW, key_sha256="aa")
    with pytest.raises(EnrolmentRefusedError):
        judge_code(USED, CODE, KEY, USED.expires_at, key_sha256="aa", may_repeat=True)


def test_five_wrong_guesses_end_it() -> None:
    count, statuses = 0, []
    for _ in range(MOST_WRONG_GUESSES):
        count, status = after_wrong_guess(count)
        statuses.append(status)
    assert statuses == [InvitationStatus.OPEN] * 4 + [InvitationStatus.DEAD]


def test_network_is_asked_before_anything() -> None:
    verify_network(OPEN, "10.1.2.9")
    verify_network(replace(OPEN, grant=replace(GRANT, networks=("any",))), "192.0.2.1")
    verify_network(replace(OPEN, grant=replace(GRANT, networks=())), "192.0.2.1")
    with pytest.raises(EnrolmentRefusedError) as caught:
        verify_network(OPEN, "10.1.3.9")
    assert caught.value.reason is ReasonCode.NETWORK_NOT_ALLOWED


def test_state_in_a_word() -> None:
    assert (OPEN.state(NOW), OPEN.state(OPEN.expires_at), USED.state(OPEN.expires_at)) == ("open", "expired", "used")


def test_network_of_one_address() -> None:
    assert (network_of("10.0.0.7"), network_of("2001:db8::1")) == ("10.0.0.7/32", "2001:db8::1/128")


@pytest.mark.parametrize("address", [None, Endpoint(host="10.1.2.3", port=104)])
def test_grant_survives_the_store(address: Endpoint | None) -> None:
    grant = replace(GRANT, address=address, site="main", revoke_others=True)
    assert decode_grant(encode_grant(grant)) == grant


def test_grant_of_a_device_behind_an_agent_survives_the_store() -> None:
    grant = replace(GRANT, reverse=True)
    assert decode_grant(encode_grant(grant)) == grant
    older = json.loads(encode_grant(grant))
    del older["reverse"]
    assert decode_grant(json.dumps(older)) == GRANT


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", json.dumps({**json.loads(encode_grant(GRANT)), "address": [1]}), encode_grant(GRANT)[:-9]]
)
def test_broken_grant_is_explained(text: str) -> None:
    with pytest.raises(RegistryError):
        decode_grant(text)
