"""Reason codes are append-only: scripts, alarms and audit searches of our users depend on every one of them."""

import re

from dicomward.vocab.reason import ReasonCode

# Never take one away, never change one; new ones need no entry here.
PUBLISHED = """
allowed denied-by-rule no-matching-rule rule-error no-permitted-context clinical-floor-only operation-not-of-sop-class
move-destination-not-allowed query-level-not-allowed required-keys-missing outside-permitted-times assurance-too-low
not-tls tls-failed no-certificate certificate-unknown certificate-revoked certificate-expired certificate-not-yet-valid
certificate-just-expired device-suspended device-revoked calling-ae-title-not-bound network-not-allowed
user-identity-not-configured archive-unknown called-ae-title-unknown move-destination-unknown no-pending-move
ambiguous-move no-pending-commitment upstream-unreachable upstream-rejected upstream-aborted upstream-not-trusted
peer-aborted peer-closed device-associations network-associations archive-associations association-rate operation-rate
query-rate matches-per-query byte-rate certificate-back-off address-delay malformed-pdu unexpected-pdu limit-exceeded
malformed-command unexpected-command duplicate-message-id instance-uid-mismatch sop-class-mismatch
identifier-unreadable data-set-unreadable deadline idle draining audit-unavailable internal-error
"""


def test_published_codes_stay() -> None:
    assert {reason.value for reason in ReasonCode} >= set(PUBLISHED.split())


def test_codes_say_their_names_and_are_unique() -> None:
    for reason in ReasonCode:
        assert reason.value == reason.name.lower().replace("_", "-")
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", reason.value)
    assert len({reason.value for reason in ReasonCode}) == len(ReasonCode)
