import pytest

from dicomward.policy.levels import NO_LEVEL, QUERY_LEVELS, UNCLEAR, WORKLIST, level_of, possible_levels
from dicomward.vocab.services import MODALITY_WORKLIST_FIND, SERVICE_OF_SOP_CLASS
from tests.policy.builders import HANGING_PROTOCOL_FIND, PRIVATE, STUDY_FIND, UPS_PULL


@pytest.mark.parametrize("uid", [STUDY_FIND, PRIVATE])
@pytest.mark.parametrize(
    ("typed", "level"),
    [
        ("STUDY", "STUDY"),
        ("PATIENT", "PATIENT"),
        ("IMAGE ", "IMAGE"),
        ("frame", "FRAME"),
        ("SERIES\0", "SERIES"),
        (None, UNCLEAR),
        ("", UNCLEAR),
        ("STUDY\\PATIENT", UNCLEAR),
        ("WORKLIST", UNCLEAR),
        ("?", UNCLEAR),
    ],
)
def test_a_level_that_is_not_one_of_the_standard_is_unclear(uid: str, typed: str | None, level: str) -> None:
    assert level_of(uid, typed) == level


@pytest.mark.parametrize("typed", [None, "STUDY", "WORKLIST"])
def test_levels_of_worklist_and_others_do_not_depend_on_what_is_typed(typed: str | None) -> None:
    assert level_of(MODALITY_WORKLIST_FIND, typed) == level_of(UPS_PULL, typed) == WORKLIST
    assert level_of(HANGING_PROTOCOL_FIND, typed) == NO_LEVEL


@pytest.mark.parametrize("uid", [*SERVICE_OF_SOP_CLASS, PRIVATE])
def test_every_level_is_a_possible_one(uid: str) -> None:
    assert {level_of(uid, typed) for typed in (*QUERY_LEVELS, None, "X")} == set(possible_levels(uid))
