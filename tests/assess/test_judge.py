"""Verdicts: PASS needs a refusal that was seen, and what can mean two things is INCONCLUSIVE."""

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta

import pytest

from dicomward.assess.isolation import Verdict
from dicomward.assess.judge import judge_dimse
from dicomward.assess.observation import Control
from dicomward.assess.plan import GETS, STORAGE, STUDY_FIND, VERIFICATION
from dicomward.assess.seen import CertificateSeen, DimseSeen, OperationSeen, Outcome, RateSeen, TlsFacts
from tests.assess.builders import ACCEPTED, ANSWERED, CERTIFICATE, NOW, OPEN, TLS, ended, rejected

PASS, FAIL, INCONCLUSIVE, NOT_RUN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.NOT_RUN
OPERATIONS = (Control.ECHO, Control.FIND, Control.GET, Control.MOVE, Control.STORE, Control.WORKLIST)


def judged(
    seen: DimseSeen,
    tls: TlsFacts | None = None,
    *,
    names: Collection[str] = ("10.0.0.1",),
    host_offers_tls: bool = False,
    decides_later: bool = False,
) -> dict[Control, tuple[Verdict, str]]:
    results = judge_dimse(
        seen, tls=tls, names=names, now=NOW, host_offers_tls=host_offers_tls, decides_later=decides_later
    )
    found = {each.control: (each.verdict, each.why) for each in results}
    assert len(found) == len(results)
    assert all(why for _, why in found.values())
    return found


def verdicts(seen: DimseSeen, tls: TlsFacts | None = None, *, later: bool = False) -> dict[Control, Verdict]:
    return {control: verdict for control, (verdict, _) in judged(seen, tls, decides_later=later).items()}


def test_every_dicom_control_has_a_verdict() -> None:
    web = {Control.DICOMWEB_TOKEN, Control.WEB_ADMINISTRATION}
    assert set(verdicts(OPEN)) == set(verdicts(OPEN, TLS)) == set(Control) - web
    assert set(verdicts(DimseSeen())) == set(Control) - web


def test_open_server_fails_everything() -> None:
    found = verdicts(replace(OPEN, rate=RateSeen(tried=8, accepted=8)))
    for control in (*OPERATIONS, Control.CALLING_AE_TITLE, Control.CALLED_AE_TITLE, Control.USER_IDENTITY):
        assert found[control] is FAIL, control
    assert found[Control.STORAGE_CONTEXTS] is FAIL
    assert found[Control.RATE_LIMIT] is FAIL


def test_contexts_prove_nothing_where_the_operation_is_refused_later() -> None:
    for found in (
        verdicts(OPEN, later=True),
        verdicts(replace(OPEN, find=OperationSeen(outcome=Outcome.ABORTED))),
        verdicts(replace(OPEN, echo=OperationSeen(outcome=Outcome.ANSWERED, status=0x0124))),
    ):
        for control in (Control.GET, Control.MOVE, Control.STORE, Control.STORAGE_CONTEXTS):
            assert found[control] is INCONCLUSIVE


def test_contexts_that_are_not_accepted_pass() -> None:
    only = replace(ACCEPTED, accepted=frozenset({VERIFICATION}))
    found = verdicts(DimseSeen(hello=only, echo=ANSWERED))
    for control in (*OPERATIONS[1:], Control.STORAGE_CONTEXTS):
        assert found[control] is PASS


@pytest.mark.parametrize(
    ("operation", "verdict"),
    [
        (OperationSeen(outcome=Outcome.ANSWERED, status=0), FAIL),
        (OperationSeen(outcome=Outcome.ANSWERED, status=0xFF00), FAIL),
        (OperationSeen(outcome=Outcome.ANSWERED, status=0x0124), PASS),
        (OperationSeen(outcome=Outcome.ANSWERED, status=0xA700), INCONCLUSIVE),
        (OperationSeen(outcome=Outcome.ABORTED), PASS),
        (OperationSeen(outcome=Outcome.CLOSED), INCONCLUSIVE),
        (OperationSeen(outcome=Outcome.SILENT, detail="no answer"), INCONCLUSIVE),
        (OperationSeen(outcome=Outcome.BROKEN), INCONCLUSIVE),
        (None, NOT_RUN),
    ],
)
def test_operation(operation: OperationSeen | None, verdict: Verdict) -> None:
    assert verdicts(replace(OPEN, find=operation))[Control.FIND] is verdict


def test_unknown_called_title_leaves_the_rest_open() -> None:
    found = judged(DimseSeen(hello=rejected(1, 7)))
    assert found[Control.CALLED_AE_TITLE][0] is PASS
    assert "called_ae_titles" in found[Control.FIND][1]
    assert {found[control][0] for control in (*OPERATIONS, Control.CALLING_AE_TITLE)} == {INCONCLUSIVE}
    known = judged(DimseSeen(hello=rejected(1, 7), known=rejected(1, 7, "PACS"), known_titles=True))
    assert "none of the called AE titles" in known[Control.FIND][1]


def test_unknown_calling_title_closes_everything() -> None:
    found = verdicts(DimseSeen(hello=rejected(1, 7), known=rejected(1, 3, "PACS"), known_titles=True))
    assert found[Control.CALLING_AE_TITLE] is PASS
    assert {found[control] for control in OPERATIONS} == {PASS}
    assert found[Control.RATE_LIMIT] is NOT_RUN
    assert verdicts(DimseSeen(hello=rejected(1, 3)))[Control.CALLED_AE_TITLE] is INCONCLUSIVE


def test_rejection_without_a_reason() -> None:
    found = verdicts(DimseSeen(hello=rejected(1, 1)))
    assert {found[each] for each in (*OPERATIONS, Control.CALLING_AE_TITLE, Control.CALLED_AE_TITLE)} == {INCONCLUSIVE}
    # With a title that the operator knows to be right, a rejection is one of the stranger.
    known = verdicts(DimseSeen(hello=rejected(1, 1), known=rejected(1, 1, "PACS"), known_titles=True))
    assert {known[each] for each in OPERATIONS} == {PASS}


def test_busy_server_is_inconclusive() -> None:
    found = verdicts(DimseSeen(hello=rejected(3, 2)))
    assert {found[each] for each in (*OPERATIONS, Control.RATE_LIMIT)} == {INCONCLUSIVE}


@pytest.mark.parametrize("outcome", [Outcome.ABORTED, Outcome.CLOSED, Outcome.SILENT, Outcome.BROKEN])
def test_no_answer_proves_nothing(outcome: Outcome) -> None:
    found = verdicts(DimseSeen(hello=ended(outcome, "odd")))
    assert {found[each] for each in OPERATIONS} == {INCONCLUSIVE}


def test_factory_titles() -> None:
    def factory(**values: object) -> tuple[Verdict, str]:
        seen = DimseSeen(hello=rejected(1, 7), factory_is_allowed=True)
        return judged(replace(seen, **values))[Control.FACTORY_AE_TITLE]  # type: ignore[arg-type]

    assert factory(factory_is_allowed=False)[0] is NOT_RUN
    assert factory(hello=ACCEPTED)[0] is NOT_RUN
    assert factory()[0] is NOT_RUN
    assert factory(factory=(rejected(1, 7), rejected(1, 7)))[0] is PASS
    assert factory(factory=(rejected(1, 7), rejected(3, 1)))[0] is INCONCLUSIVE
    taken = replace(ACCEPTED, called_ae_title="ORTHANC")
    assert factory(factory=(rejected(1, 7), taken)) == (FAIL, "called ORTHANC, calling DW-ASSESS was accepted")


def test_factory_calling_title_does_not_count_as_unknown() -> None:
    taken = replace(ACCEPTED, called_ae_title="ORTHANC", calling_ae_title="ECHOSCU")
    seen = DimseSeen(hello=rejected(1, 7), factory=(rejected(1, 3), taken), factory_is_allowed=True, echo=ANSWERED)
    found = verdicts(seen)
    assert found[Control.CALLING_AE_TITLE] is PASS
    assert found[Control.FACTORY_AE_TITLE] is FAIL


def test_rate() -> None:
    def rate(value: RateSeen | None) -> Verdict:
        return verdicts(replace(OPEN, rate=value))[Control.RATE_LIMIT]

    assert rate(None) is NOT_RUN
    assert rate(RateSeen(tried=3, accepted=2, ended="rejected")) is PASS
    assert rate(RateSeen(tried=8, accepted=8)) is FAIL


def test_what_was_stopped_says_why() -> None:
    found = judged(replace(OPEN, find=None, rate=None, stopped="the host slows down"))
    assert found[Control.FIND] == found[Control.RATE_LIMIT] == (NOT_RUN, "the host slows down")
    assert judged(DimseSeen(stopped="too long"))[Control.ECHO] == (NOT_RUN, "too long")
    assert judged(DimseSeen())[Control.CALLED_AE_TITLE][0] is NOT_RUN


def test_called_title_that_was_not_tried() -> None:
    assert judged(DimseSeen(known=rejected(1, 3)))[Control.CALLED_AE_TITLE][0] is NOT_RUN


# --- TLS -------------------------------------------------------------------------------------------------------------


def test_plaintext_port() -> None:
    found = verdicts(OPEN)
    assert found[Control.TLS_OFFERED] is FAIL
    assert found[Control.TLS_REQUIRED] is FAIL
    assert found[Control.TLS_VERSION] is NOT_RUN
    assert judged(OPEN, host_offers_tls=True)[Control.TLS_OFFERED][0] is PASS


def test_client_certificate_closes_everything_else() -> None:
    found = verdicts(DimseSeen(), replace(TLS, wants_certificate=True))
    assert found[Control.CLIENT_CERTIFICATE] is PASS
    assert {found[each] for each in OPERATIONS} == {PASS}
    assert found[Control.CALLING_AE_TITLE] is NOT_RUN
    assert verdicts(OPEN, TLS)[Control.CLIENT_CERTIFICATE] is FAIL


@pytest.mark.parametrize(
    ("tls", "verdict"),
    [
        (TLS, PASS),
        (replace(TLS, obsolete=("TLSv1",)), FAIL),
        (replace(TLS, obsolete_was_tried=False), NOT_RUN),
    ],
)
def test_version(tls: TlsFacts, verdict: Verdict) -> None:
    assert verdicts(OPEN, tls)[Control.TLS_VERSION] is verdict


def with_certificate(**values: object) -> TlsFacts:
    certificate: CertificateSeen = replace(CERTIFICATE, **values)  # type: ignore[arg-type]
    return replace(TLS, certificate=certificate)


@pytest.mark.parametrize(
    ("not_before", "not_after", "verdict"),
    [(-10, 300, PASS), (-10, 3, PASS), (-10, -1, FAIL), (1, 300, FAIL)],
)
def test_expiry(not_before: int, not_after: int, verdict: Verdict) -> None:
    tls = with_certificate(not_before=NOW + timedelta(days=not_before), not_after=NOW + timedelta(days=not_after))
    assert verdicts(OPEN, tls)[Control.CERTIFICATE_EXPIRY] is verdict


@pytest.mark.parametrize(
    ("dns", "addresses", "names", "verdict"),
    [
        (("pacs.example",), (), ("10.0.0.1", "pacs.example"), PASS),
        (("PACS.example.",), (), ("pacs.example",), PASS),
        (("*.example",), (), ("pacs.example",), PASS),
        (("*.example",), (), ("a.pacs.example",), FAIL),
        (("other.example",), (), ("pacs.example",), FAIL),
        (("other.example",), (), ("10.0.0.1",), INCONCLUSIVE),
        ((), ("10.0.0.1",), ("10.0.0.1",), PASS),
        ((), ("fd00::1",), ("fd00:0::1",), PASS),
        ((), ("10.0.0.2",), ("10.0.0.1",), FAIL),
        ((), (), ("10.0.0.1",), FAIL),
    ],
)
def test_name(dns: tuple[str, ...], addresses: tuple[str, ...], names: tuple[str, ...], verdict: Verdict) -> None:
    found = judged(OPEN, with_certificate(dns_names=dns, addresses=addresses), names=names)
    assert found[Control.CERTIFICATE_NAME][0] is verdict


@pytest.mark.parametrize(
    ("key_type", "bits", "hash_", "verdict"),
    [
        ("RSA", 2048, "sha256", PASS),
        ("RSA", 1024, "sha256", FAIL),
        ("RSA", 2048, "sha1", FAIL),
        ("EC", 256, "sha256", PASS),
        ("EC", 192, "sha256", FAIL),
        ("Ed25519", 256, "", PASS),
        ("DSA", 3072, "sha256", FAIL),
    ],
)
def test_key(key_type: str, bits: int, hash_: str, verdict: Verdict) -> None:
    tls = with_certificate(key_type=key_type, key_bits=bits, signature_hash=hash_)
    assert verdicts(OPEN, tls)[Control.CERTIFICATE_KEY] is verdict


@pytest.mark.parametrize(
    ("problem", "own", "self_signed", "verdict"),
    [
        (None, False, False, NOT_RUN),
        ("", False, False, PASS),
        ("unable to get local issuer certificate", False, False, INCONCLUSIVE),
        ("unable to get local issuer certificate", True, False, FAIL),
        ("self-signed certificate", False, True, FAIL),
    ],
)
def test_chain(problem: str | None, own: bool, self_signed: bool, verdict: Verdict) -> None:
    tls = replace(with_certificate(is_self_signed=self_signed), chain_problem=problem, trust_is_own=own)
    assert verdicts(OPEN, tls)[Control.CERTIFICATE_CHAIN] is verdict


def test_certificate_that_was_not_shown() -> None:
    assert verdicts(OPEN, replace(TLS, certificate=None))[Control.CERTIFICATE_KEY] is INCONCLUSIVE


def test_patient_root_counts_as_find() -> None:
    only = replace(ACCEPTED, accepted=frozenset({STUDY_FIND, *GETS[:1], *STORAGE[:2]}))
    found = judged(DimseSeen(hello=only, find=ANSWERED))
    assert found[Control.GET][0] is FAIL
    assert found[Control.STORAGE_CONTEXTS][1].startswith("2 of 8")
