"""Suggested rules: they allow what was seen and nothing else, load as a policy, and say what was not observed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomward.policy.evaluate import evaluate
from dicomward.policy.levels import IDENTIFIER_OPERATIONS
from dicomward.policy.load import load_policy
from dicomward.policy.model import Policy
from dicomward.policy.request import IdentifierRequest, OperationRequest
from dicomward.policy.suggest import Seen, Suggestion, missing_times, suggest, suggestion_text
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Assurance, Principal

CT, MR, PRIVATE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.3.46.670589.11.0.0.12.1"
VERIFICATION, WORKLIST = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.31"
STUDY_FIND, STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2"
MPPS, COMMITMENT = "1.2.840.10008.3.1.2.3.3", "1.2.840.10008.1.20.1"
MONDAY = datetime(2026, 6, 1, 9, 30, tzinfo=UTC)


def seen(operation: Operation, uid: str, **changes: object) -> Seen:
    base = Seen(operation=operation, sop_class_uid=uid, archive="pacs", at=MONDAY)
    return replace(base, **changes)  # type: ignore[arg-type]


def policy_of(suggestion: Suggestion) -> Policy:
    policy = load_policy(suggestion_text(suggestion), source="suggested")
    assert policy.warnings == () or all("PS3.6" in warning.message for warning in policy.warnings)
    return policy


def allows(policy: Policy, each: Seen) -> bool:
    principal = Principal(
        device="CT1",
        calling_ae_title="CT1",
        role="modality",
        site="",
        assurance=Assurance.TLS_DEVICE,
        address="10.1.2.3",
    )
    request = OperationRequest(
        principal=principal,
        archive=each.archive,
        operation=each.operation,
        sop_class_uid=each.sop_class_uid,
        move_destination=each.move_destination,
        at=each.at,
        own_ae_titles=frozenset({"CT1", "CT1_QR"}),
    )
    if each.operation in IDENTIFIER_OPERATIONS:
        request = IdentifierRequest.of(request, query_level=each.query_level, keys=each.keys or frozenset())
    return evaluate(policy, request).allowed


DAY = [
    seen(Operation.C_ECHO, VERIFICATION),
    seen(Operation.C_FIND, WORKLIST),
    seen(Operation.C_STORE, CT),
    seen(Operation.C_STORE, MR, at=MONDAY + timedelta(days=1, hours=3)),
    seen(Operation.C_STORE, PRIVATE),
    seen(Operation.N_CREATE, MPPS),
    seen(Operation.N_ACTION, COMMITMENT),
    seen(Operation.C_FIND, STUDY_FIND, query_level="STUDY"),
    seen(Operation.C_FIND, STUDY_FIND, query_level="SERIES "),
    seen(Operation.C_MOVE, STUDY_MOVE, query_level="STUDY", move_destination="CT1_QR"),
    seen(Operation.C_MOVE, STUDY_MOVE, query_level="STUDY", move_destination="WS1"),
]


def test_a_days_work_is_allowed_and_nothing_else() -> None:
    policy = policy_of(suggest("CT1", DAY, ("CT1", "CT1_QR")))
    assert all(allows(policy, each) for each in DAY)
    others = [
        seen(Operation.C_STORE, "1.2.840.10008.5.1.4.1.1.7"),
        seen(Operation.C_STORE, CT, archive="vna"),
        seen(Operation.C_FIND, STUDY_FIND, query_level="PATIENT"),
        seen(Operation.C_MOVE, STUDY_MOVE, query_level="SERIES", move_destination="WS1"),
        seen(Operation.C_MOVE, STUDY_MOVE, query_level="STUDY", move_destination="WS2"),
        seen(Operation.C_GET, "1.2.840.10008.5.1.4.1.2.2.3", query_level="STUDY"),
        seen(Operation.N_GET, MPPS),
    ]
    assert not [each for each in others if allows(policy, each)]


def test_what_has_begun_may_end() -> None:
    policy = policy_of(suggest("CT1", DAY))
    assert allows(policy, seen(Operation.N_SET, MPPS))
    assert allows(policy, seen(Operation.N_EVENT_REPORT, COMMITMENT))


def test_rules_are_few_and_say_how_often() -> None:
    suggestion = suggest("CT1", DAY, ("CT1", "CT1_QR"))
    assert [(rule.operations, rule.count) for rule in suggestion.rules] == [
        (("c-store",), 3),
        (("c-find",), 2),
        (("c-find",), 1),
        (("c-move",), 2),
        (("c-echo",), 1),
        (("n-event-report", "n-action"), 2),
        (("n-set", "n-create"), 2),
    ]
    move = suggestion.rules[3]
    assert (move.move_destinations, move.query_levels) == (("WS1", "self"), ("STUDY",))
    assert suggestion.rules[1].query_levels == ("STUDY", "SERIES")
    assert suggestion.rules[0].sop_classes == (PRIVATE, "CTImageStorage", "MRImageStorage")


def test_times_that_were_not_observed_are_named() -> None:
    suggestion = suggest("CT1", DAY)
    assert (suggestion.operations, suggestion.days) == (11, 2)
    assert (suggestion.first, suggestion.last) == (MONDAY, MONDAY + timedelta(days=1, hours=3))
    assert missing_times(suggestion) == [
        "Days of the week without any operation: wed, thu, fri, sat, sun.",
        "Hours of the day without any operation: 00:00-08:59, 10:00-11:59, 13:00-23:59.",
    ]
    always = [seen(Operation.C_ECHO, VERIFICATION, at=MONDAY + timedelta(hours=hour)) for hour in range(24 * 7)]
    assert missing_times(suggest("CT1", always)) == [
        "Every day of the week was observed.",
        "Every hour of the day was observed.",
    ]


def test_nothing_seen_is_said() -> None:
    suggestion = suggest("CT1", [])
    assert suggestion.rules == ()
    assert missing_times(suggestion) == ["Nothing was seen of it at any time."]
    assert "# Nothing was seen" in suggestion_text(suggestion)


def test_level_that_is_missing_leaves_the_level_open() -> None:
    odd = [seen(Operation.C_FIND, STUDY_FIND), seen(Operation.C_FIND, STUDY_FIND, query_level="STUDY")]
    suggestion = suggest("CT1", odd)
    assert sorted(rule.query_levels for rule in suggestion.rules) == [(), ("STUDY",)]
    assert allows(policy_of(suggestion), odd[0])


def test_uid_that_no_rule_can_name_is_left_out_and_said() -> None:
    suggestion = suggest("CT1", [seen(Operation.C_STORE, "1.2.03"), seen(Operation.C_STORE, CT)])
    assert suggestion.strange == ("c-store of 1.2.03: a rule can't name a UID with a leading zero",)
    assert "# Left out: c-store of 1.2.03" in suggestion_text(suggestion)


@pytest.mark.parametrize("name", ["CT1", "a" * 64, "CT.1_x-"])
def test_rule_ids_are_ids(name: str) -> None:
    assert policy_of(suggest(name, DAY)).rules


COMBINATIONS = st.one_of(
    st.builds(
        seen,
        st.sampled_from([Operation.C_STORE]),
        st.sampled_from([CT, MR, PRIVATE]),
        archive=st.sampled_from(["pacs", "vna"]),
    ),
    st.builds(
        seen,
        st.just(Operation.C_FIND),
        st.sampled_from([STUDY_FIND, "1.2.840.10008.5.1.4.1.2.1.1"]),
        archive=st.sampled_from(["pacs", "vna"]),
        query_level=st.sampled_from(["PATIENT", "STUDY", "SERIES"]),
    ),
    st.builds(
        seen,
        st.just(Operation.C_MOVE),
        st.sampled_from([STUDY_MOVE, "1.2.840.10008.5.1.4.1.2.1.2"]),
        archive=st.sampled_from(["pacs", "vna"]),
        query_level=st.sampled_from(["PATIENT", "STUDY"]),
        move_destination=st.sampled_from(["CT1", "WS1", "WS2"]),
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.sets(COMBINATIONS, min_size=1, max_size=25), st.sets(COMBINATIONS, max_size=25))
def test_exactly_what_was_seen_is_allowed(done: set[Seen], other: set[Seen]) -> None:
    policy = policy_of(suggest("CT1", done, ("CT1", "CT1_QR")))
    assert all(allows(policy, each) for each in done)
    assert not [each for each in other - done if allows(policy, each)]


PATIENT_ID, NAME, STUDY, ACCESSION = 0x00100020, 0x00100010, 0x0020000D, 0x00080050


def find(*keys: int, level: str = "STUDY") -> Seen:
    return seen(Operation.C_FIND, STUDY_FIND, query_level=level, keys=frozenset(keys))


def required(*done: Seen) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(rule.required_keys, rule.required_any_key) for rule in suggest("CT1", done).rules]


@pytest.mark.parametrize(
    ("done", "all_keys", "any_keys"),
    [
        ((find(PATIENT_ID, NAME), find(PATIENT_ID, STUDY)), ("PatientID",), ()),
        (
            (find(PATIENT_ID), find(STUDY), find(STUDY, ACCESSION)),
            (),
            ("AccessionNumber", "PatientID", "StudyInstanceUID"),
        ),
        ((find(PATIENT_ID), find(NAME)), (), ()),
        ((find(PATIENT_ID), seen(Operation.C_FIND, STUDY_FIND, query_level="STUDY")), (), ()),
        ((seen(Operation.C_FIND, WORKLIST, keys=frozenset({PATIENT_ID})),), (), ()),
        ((seen(Operation.C_STORE, CT),), (), ()),
    ],
)
def test_keys_that_name_a_patient_or_study_are_required_if_they_always_were_there(
    done: tuple[Seen, ...], all_keys: tuple[str, ...], any_keys: tuple[str, ...]
) -> None:
    assert required(*done) == [(all_keys, any_keys)]


def test_keys_of_one_level_do_not_open_another() -> None:
    policy = policy_of(suggest("CT1", [find(STUDY), find(PATIENT_ID, level="SERIES")]))
    assert allows(policy, find(STUDY, NAME))
    assert not allows(policy, find(PATIENT_ID))
    assert not allows(policy, find(STUDY, level="SERIES"))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.builds(
            lambda level, keys: find(*keys, level=level),
            st.sampled_from(["STUDY", "SERIES", "IMAGE"]),
            st.sets(st.sampled_from([PATIENT_ID, NAME, STUDY, ACCESSION])),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_what_was_seen_is_allowed_with_the_keys_that_it_had(done: list[Seen]) -> None:
    policy = policy_of(suggest("CT1", done))
    assert all(allows(policy, each) for each in done)
