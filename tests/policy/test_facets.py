"""The facets of requests: none is forgotten, and every request lies in an atom that rules treat like it."""

from dataclasses import fields

from dicomward.policy.decision import Decision
from dicomward.policy.facets import (
    FACET_OF_REQUEST_FIELD,
    FACET_OF_RULE_FIELD,
    Destination,
    Span,
    build_facets,
    moment_in,
)
from dicomward.policy.index import build_index
from dicomward.policy.model import TimeWindow
from dicomward.policy.request import IdentifierRequest
from dicomward.policy.rule import Rule
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Principal
from tests.policy.builders import CT, STUDY_MOVE, allow, operation, principal

FACETS = {facet.name: facet for facet in build_facets(build_index(()))}


def test_every_field_of_a_rule_has_its_facet() -> None:
    """A field that is missing here is one that `policy diff` does not see."""
    assert set(FACET_OF_RULE_FIELD) == {field.name for field in fields(Rule)}
    assert set(FACET_OF_RULE_FIELD.values()) == {"", "keys", *FACETS}


def test_every_field_of_a_request_has_its_facet() -> None:
    asked = {field.name for field in fields(IdentifierRequest)} - {"principal"}
    assert set(FACET_OF_REQUEST_FIELD) == asked | {f"principal.{field.name}" for field in fields(Principal)}
    assert set(FACET_OF_REQUEST_FIELD.values()) == {"", "keys", *FACETS}


def test_every_part_of_a_decision_is_compared() -> None:
    """What a decision says beyond these, diff._kind_of must compare. Identifiers leave no obligation behind."""
    assert {field.name for field in fields(Decision)} == {"effect", "reason", "rule_ids", "obligations", "detail"}


def test_other_values_are_values_that_no_rule_names() -> None:
    rule = allow(devices=frozenset({"other-device", "other-device-2"}), sites=frozenset({"", "other-site"}),
                 sop_classes=frozenset({"2.25.1", CT}), services=None)  # fmt: skip
    facets = {facet.name: facet for facet in build_facets(build_index((rule,)))}
    assert facets["device"].other == "other-device-3"
    assert facets["site"].other == "other-site-2"
    assert "2.25.2" in {what.sop_class_uid for what in facets["what"].atoms}
    place = facets["device"].place_of(operation())
    assert place is not None
    assert facets["device"].atoms[place] == "other-device-3"


def test_a_destination_may_be_the_device_itself() -> None:
    rule = allow(operations=frozenset({Operation.C_MOVE}), services=None, move_destinations=frozenset({"T2"}))
    facet = next(f for f in build_facets(build_index((rule,))) if f.name == "move_destination")
    own = operation(Operation.C_MOVE, STUDY_MOVE, move_destination="T1", principal=principal(calling_ae_title="T1"))
    place = facet.place_of(own)
    assert place is not None
    assert facet.atoms[place] == Destination("OTHER-AET", is_self=True)


def test_times_are_cut_at_the_edges_of_windows() -> None:
    window = TimeWindow(days=frozenset({6}), start_minute=1200, end_minute=360)
    facet = next(f for f in build_facets(build_index((allow(times=(window,)),))) if f.name == "time")
    assert facet.atoms == (Span(0, 360), Span(360, 6 * 1440 + 1200), Span(6 * 1440 + 1200, 7 * 1440))
    assert [moment_in(span).strftime("%a %H:%M") for span in facet.atoms] == ["Mon 00:00", "Mon 12:00", "Sun 20:00"]


def test_what_no_rule_is_asked_about_lies_in_no_atom() -> None:
    assert FACETS["what"].place_of(operation(Operation.C_FIND, CT)) is None
    assert FACETS["what"].chosen(FACETS["what"].everything) == FACETS["what"].atoms


def test_groups_are_cut_one_by_one_and_in_pairs() -> None:
    rule = allow(groups=frozenset({"a", "b", "c"}))
    facet = next(f for f in build_facets(build_index((rule,))) if f.name == "group")
    assert [sorted(atom) for atom in facet.atoms] == [[], ["a"], ["b"], ["c"], ["a", "b"], ["a", "c"], ["b", "c"]]
    assert facet.accepting == (0, 1, 1, 1, 1, 1, 1)
    place = facet.place_of(operation(principal=principal(person="anna", groups=frozenset({"b", "unknown"}))))
    assert place == 2
