from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest

from dicomward.dicom import pdu as module
from dicomward.dicom.pdu import AAssociateRq, PduType, PresentationContextRq, UserIdentity, UserInformation

TYPES = [
    value
    for value in vars(module).values()
    if isinstance(value, type) and is_dataclass(value) and value.__module__ == module.__name__
]


def request(**changes: object) -> AAssociateRq:
    values: dict[str, object] = {
        "called_ae_title": "ARCHIVE",
        "calling_ae_title": "CT1",
        "presentation_contexts": (
            PresentationContextRq(context_id=1, abstract_syntax="1.2", transfer_syntaxes=("1.3",)),
        ),
        "user_information": UserInformation(),
    }
    return AAssociateRq(**{**values, **changes})  # type: ignore[arg-type]


def test_pdu_types_are_the_standards() -> None:
    assert [kind.value for kind in PduType] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("kind", TYPES)
def test_values_are_frozen_and_slotted(kind: type) -> None:
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__slots__" in vars(kind)
    assert not hasattr(kind, "__dict__") or "__dict__" not in vars(kind)


def test_a_pdu_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        request().called_ae_title = "OTHER"  # type: ignore[misc]


def test_repr_hides_user_identity() -> None:
    identity = UserIdentity(type=2, positive_response_requested=True, primary=b"doctor", secondary=b"hunter2")
    user = UserInformation(user_identity=identity, user_identity_response=b"ticket")
    shown = repr(request(user_information=user))
    assert "UserIdentity(type=2" in shown
    for secret in ("doctor", "hunter2", "ticket"):
        assert secret not in shown


def test_deviations_do_not_count_for_equality() -> None:
    assert request(deviations=("uid-leading-zero",)) == request()
    assert request(called_ae_title="OTHER") != request()


def test_defaults_state_nothing() -> None:
    user = UserInformation()
    assert user.maximum_length == 0
    assert all(not getattr(user, item.name) for item in fields(user))
    assert request().application_context == "1.2.840.10008.3.1.1.1"
    assert request().protocol_version == 1
