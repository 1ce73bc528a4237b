from dataclasses import FrozenInstanceError

import pytest

from dicomward.policy.request import IdentifierRequest, OperationRequest
from dicomward.vocab.dimse import Operation
from tests.policy.builders import PATIENT_ID, STUDY_MOVE, UPS_PULL, UPS_PUSH, association, operation


def test_an_identifier_request_keeps_every_fact_of_its_operation() -> None:
    asked = operation(
        Operation.C_MOVE, STUDY_MOVE, own_ae_titles=frozenset({"T2"}), context_sop_class_uid=UPS_PULL, archive="ris"
    )
    found = IdentifierRequest.of(asked, query_level="STUDY", keys=frozenset({PATIENT_ID}))
    for name in OperationRequest.__dataclass_fields__:
        assert getattr(found, name) == getattr(asked, name)
    assert (found.query_level, found.keys) == ("STUDY", frozenset({PATIENT_ID}))


def test_requests_are_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        operation().archive = "other"  # type: ignore[misc]


def test_optional_facts_are_empty_and_never_open() -> None:
    assert association(UPS_PUSH).scp_role_sop_classes == frozenset()
    assert association(UPS_PUSH).own_ae_titles == operation().own_ae_titles == frozenset()
    assert operation().context_sop_class_uid == ""
