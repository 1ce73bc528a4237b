import pytest

from dicomward.policy.families import command_sop_classes
from dicomward.vocab.services import MPPS, SERVICE_OF_SOP_CLASS, SOP_CLASS_BY_KEYWORD, service_of
from tests.policy.builders import CT, PRIVATE, UPS_PULL, UPS_PUSH


@pytest.mark.parametrize("uid", [CT, PRIVATE, MPPS, UPS_PUSH, "1.2.840.10008.5.1.1.16"])
def test_most_contexts_carry_their_own_sop_class_only(uid: str) -> None:
    assert command_sop_classes(uid) == {uid}


@pytest.mark.parametrize(
    ("context", "members"),
    [
        (
            "BasicGrayscalePrintManagementMeta",
            {"BasicFilmSession", "BasicFilmBox", "BasicGrayscaleImageBox", "Printer"},
        ),
        ("BasicColorPrintManagementMeta", {"BasicFilmSession", "BasicFilmBox", "BasicColorImageBox", "Printer"}),
        (
            "ReferencedGrayscalePrintManagementMeta",
            {"BasicFilmSession", "BasicFilmBox", "ReferencedImageBox", "Printer"},
        ),
        ("ReferencedColorPrintManagementMeta", {"BasicFilmSession", "BasicFilmBox", "ReferencedImageBox", "Printer"}),
        ("UnifiedProcedureStepPull", {"UnifiedProcedureStepPush"}),
        ("UnifiedProcedureStepWatch", {"UnifiedProcedureStepPush"}),
        ("ModalityPerformedProcedureStepRetrieve", {"ModalityPerformedProcedureStep"}),
        ("ModalityPerformedProcedureStepNotification", {"ModalityPerformedProcedureStep"}),
    ],
)
def test_meta_and_companion_classes_carry_their_members(context: str, members: set[str]) -> None:
    uid = SOP_CLASS_BY_KEYWORD[context]
    assert command_sop_classes(uid) == {uid, *(SOP_CLASS_BY_KEYWORD[member] for member in members)}


def test_members_belong_to_the_service_of_their_context() -> None:
    for uid in SERVICE_OF_SOP_CLASS:
        assert {service_of(member) for member in command_sop_classes(uid)} == {service_of(uid)}


def test_pull_contexts_carry_push_commands() -> None:
    assert UPS_PUSH in command_sop_classes(UPS_PULL)
