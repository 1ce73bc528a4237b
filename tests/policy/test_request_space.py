"""The table of both policies' rules, and requests in boxes."""

from dicomward.policy.key_region import KeyRegion
from dicomward.policy.request import IdentifierRequest, OperationRequest
from dicomward.policy.request_space import Box, build_space
from dicomward.vocab.dimse import Operation
from tests.policy.builders import PATIENT_ID, STUDY_FIND, allow, deny, identifier, operation, policy

FIND = allow("find", operations=frozenset({Operation.C_FIND}), required_keys=frozenset({PATIENT_ID}))
SPACE = build_space(policy(FIND, deny("x", sites=frozenset({"a"}))), policy(allow("same", **{
    "operations": frozenset({Operation.C_FIND}), "required_keys": frozenset({PATIENT_ID})})))  # fmt: skip
EVERYTHING = Box(tuple(facet.everything for facet in SPACE.facets), (KeyRegion(),))
WHAT = next(place for place, facet in enumerate(SPACE.facets) if facet.name == "what")


def test_equal_rules_stand_there_once_whatever_they_are_called() -> None:
    assert len(SPACE.rules) == 2
    assert (SPACE.old, SPACE.new, SPACE.differing) == (0b11, 0b01, 0b10)
    assert SPACE.key_condition(0) == (1, 0)


def test_a_policy_at_fault_has_no_rules() -> None:
    space = build_space(policy(FIND), policy(FIND, deny("bad", operations=frozenset())))
    assert (space.old, space.new) == (1, 0)


def test_the_example_of_a_box_lies_in_it() -> None:
    for region in (KeyRegion(), KeyRegion(0, (1,)), KeyRegion(1)):
        atoms = 1 << SPACE.facets[WHAT].place_of(identifier(uid=STUDY_FIND))  # type: ignore[operator]
        box = Box(EVERYTHING.atoms, (region,)).within(WHAT, atoms)
        example = SPACE.example_of(box)
        assert isinstance(example, IdentifierRequest)
        assert example.query_level == "STUDY"
        assert SPACE.contains(box, example)


def test_an_identifier_that_is_not_known_may_be_any() -> None:
    box = Box(EVERYTHING.atoms, (KeyRegion(0, (1,)),))
    known: OperationRequest = identifier()
    assert not SPACE.contains(box, known)
    assert SPACE.contains(box, identifier(keys=frozenset({PATIENT_ID})))
    assert SPACE.contains(box, operation(Operation.C_FIND, STUDY_FIND))


def test_what_the_evaluator_refuses_outside_all_rules_lies_in_no_box() -> None:
    assert not SPACE.contains(EVERYTHING, operation(Operation.C_STORE, STUDY_FIND))
