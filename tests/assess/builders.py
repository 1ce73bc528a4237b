"""Observations of probes for the tests of what is judged from them."""

from dataclasses import replace
from datetime import UTC, datetime

from dicomward.assess.plan import OFFERED
from dicomward.assess.seen import AssociationSeen, CertificateSeen, DimseSeen, OperationSeen, Outcome, TlsFacts

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
ACCEPTED = AssociationSeen(
    calling_ae_title="DW-ASSESS",
    called_ae_title="DW-NOBODY-HERE",
    outcome=Outcome.ACCEPTED,
    offered=frozenset(OFFERED),
    accepted=frozenset(OFFERED),
    implementation_class_uid="1.2.826.0.1.3680043.9.3811.3.0.4",
    implementation_version_name="PYNETDICOM_304",
)
ANSWERED = OperationSeen(outcome=Outcome.ANSWERED)
OPEN = DimseSeen(hello=ACCEPTED, echo=ANSWERED, find=ANSWERED, worklist=ANSWERED)
CERTIFICATE = CertificateSeen(
    subject="CN=pacs.example",
    issuer="CN=CA",
    not_before=datetime(2026, 1, 1, tzinfo=UTC),
    not_after=datetime(2028, 1, 1, tzinfo=UTC),
    key_type="RSA",
    key_bits=2048,
    signature_hash="sha256",
    dns_names=("pacs.example",),
)
TLS = TlsFacts(version="TLSv1.3", cipher="X", certificate=CERTIFICATE, obsolete_was_tried=True, chain_problem="")


def rejected(source: int, reason: int, called: str = "DW-NOBODY-HERE", calling: str = "DW-ASSESS") -> AssociationSeen:
    return replace(
        ACCEPTED,
        outcome=Outcome.REJECTED,
        source=source,
        reason=reason,
        accepted=frozenset(),
        called_ae_title=called,
        calling_ae_title=calling,
    )


def ended(outcome: Outcome, detail: str = "") -> AssociationSeen:
    return replace(ACCEPTED, outcome=outcome, accepted=frozenset(), detail=detail)
