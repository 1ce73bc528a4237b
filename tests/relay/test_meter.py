"""Budgets on an association: who pays for what, what a refusal does, canaries, the delay of clinical roles."""

from dataclasses import replace

import pytest

from dicomward.audit.event import MatchesReturned, OperationCompleted, OperationDenied, SecurityAlert
from dicomward.limits.budget_settings import BudgetSettings
from dicomward.limits.budgets import BudgetBook, Measure, Span
from dicomward.policy.bypass import BypassTable, OpenBypass
from dicomward.relay.canaries import Canaries, Canary
from dicomward.relay.effects import KeepCharges, Pause, Record, StartTimer
from dicomward.relay.inputs import Leg, PeerClosed, Timer, TimerFired
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import Service
from tests.relay.test_operations import IDENTIFIER, last, moving, windowed
from tests.relay.wire import (
    CT_IMAGE,
    WORKLIST,
    Message,
    c_find_rq,
    c_get_rq,
    c_move_rq,
    c_store_rq,
    data_set,
    identifier,
    image,
    message,
    response_to,
)
from tests.relay.world import (
    ACCEPTOR,
    REQUESTOR,
    RULES,
    FakeWorld,
    Line,
    allow,
    established,
    established_by_archive,
    policy,
)


def world_with(**numbers: object) -> FakeWorld:
    world = FakeWorld()
    world.budgets.book = BudgetBook(BudgetSettings(device=numbers))
    return world


def refusing(**numbers: object) -> FakeWorld:
    return world_with(at_end="refuse", **numbers)


def head(instance: str, *, patient: str = "", study: str = "", **more: str) -> bytes:
    values: dict[int, bytes | str] = {0x00080016: CT_IMAGE, 0x00080018: instance, 0x7FE00010: b"p" * 50}
    if patient:
        values[0x00100020] = patient
    if study:
        values[0x0020000D] = study
    if "accession" in more:
        values[0x00080050] = more["accession"]
    return data_set(values)


def finding(world: FakeWorld, query: bytes = IDENTIFIER) -> Line:
    line = established(world, calling="WS1")
    line.say(REQUESTOR, 5, c_find_rq(1), query)
    return line


def heard(line: Line, leg: Leg) -> list[Message]:
    """Return the messages that a peer has got and nobody has looked at."""
    return [each for each in line.read(leg) if isinstance(each, Message)]


def match(line: Line, data: bytes, status: int = 0xFF00) -> None:
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1), status, has_data_set=True), data)


def used(world: FakeWorld, device: str, measure: Measure, role: str = "workstation") -> int:
    return world.budgets.used(device, role, measure)


# -- C-FIND ------------------------------------------------------------------------------------------------------------


def test_matches_count_for_who_asks_and_are_kept_before_anything_is_sent() -> None:
    world = FakeWorld()
    line = finding(world)
    effects_before = len(line.effects)
    for patient, study in (("1", "1.1"), ("1", "1.2"), ("2", "1.3")):
        match(line, identifier(patient_id=patient, study=study))
    assert isinstance(line.effects[effects_before], KeepCharges)
    assert used(world, "ws1", Measure.PATIENTS) == 2
    assert used(world, "ws1", Measure.STUDIES) == 3
    assert used(world, "ws1", Measure.MATCHES) == 3
    assert used(world, "ws1", Measure.BYTES) == 3 * len(identifier(patient_id="1", study="1.1"))


def told_matches(line: Line) -> list[tuple[str, ...]]:
    effects = [each.event for each in line.effects if isinstance(each, Record)]
    return [event.matched for event in effects if isinstance(event, MatchesReturned)]


def test_whose_data_went_out_in_matches_is_recorded() -> None:
    world = FakeWorld()
    world.settings = replace(world.settings, identify_patients=True)
    line = finding(world)
    for number in range(40):
        match(line, identifier(patient_id=f"P{number}", study=f"1.{number}"))
        match(line, identifier(patient_id=f"P{number}", study=f"1.{number}"))
    match(line, identifier(patient_id=""))
    (first,) = told_matches(line)
    assert len(first) == 32
    assert first[0] == "P0\\\\1.0"
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1)))
    _, second = told_matches(line)
    assert len(set(first) | set(second)) == 40
    records = [each.event.code for each in line.effects if isinstance(each, Record)]
    assert records.index("DW-OP-MATCH") < records.index("DW-OP-END")


def test_what_went_out_before_the_association_broke_is_recorded() -> None:
    world = FakeWorld()
    world.settings = replace(world.settings, identify_patients=True)
    line = finding(world)
    match(line, identifier(patient_id="P1", study="1.1"))
    line.handle(PeerClosed(REQUESTOR, "gone"))
    assert told_matches(line) == [("P1\\\\1.1",)]


def test_no_patient_of_a_match_is_recorded_where_that_is_off() -> None:
    line = finding(FakeWorld())
    match(line, identifier(patient_id="P1", study="1.1"))
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1)))
    assert told_matches(line) == []


def test_a_match_without_ids_counts_by_the_next_best() -> None:
    world = FakeWorld()
    line = finding(world, data_set({0x00080052: "STUDY", 0x0020000D: "1.9"}))
    match(line, data_set({0x00080052: "STUDY"}))
    match(line, data_set({0x00080052: "STUDY", 0x00100010: "DOE^J", 0x00100030: "19700101"}))
    match(line, data_set({0x00080052: "STUDY", 0x00100010: "DOE^J", 0x00100030: "19800101"}))
    # The study of the key stands for the first one's patient.
    assert (used(world, "ws1", Measure.PATIENTS), used(world, "ws1", Measure.STUDIES)) == (3, 1)


def test_the_worklist_never_counts_and_is_never_read() -> None:
    world = refusing(matches_per_hour=1)
    world.settings = replace(world.settings, canaries=Canaries([Canary(name="decoy", patient_ids=("4711",))]))
    line = established(world, calling="WS1")
    find = c_find_rq(1, affected_sop_class_uid=WORKLIST)
    line.say(REQUESTOR, 11, find, IDENTIFIER)
    for data in (IDENTIFIER, IDENTIFIER, b"no data set"):
        line.say(ACCEPTOR, 11, response_to(find, 0xFF00, has_data_set=True), data)
    line.say(ACCEPTOR, 11, response_to(find, 0))
    assert [each.command.status for each in heard(line, REQUESTOR)] == [0xFF00, 0xFF00, 0xFF00, 0]
    assert world.budgets.charged == []
    assert line.recorded(SecurityAlert) == []


def test_images_into_the_archive_never_count() -> None:
    world = refusing(bytes_per_hour=1)
    line = established(world, calling="CT1")
    line.say(REQUESTOR, 3, c_store_rq(1, "1.2"), image("1.2"))
    assert line.said(ACCEPTOR)
    assert world.budgets.charged == []
    assert line.kept == 0


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ({"patients_per_hour": 1}, ReasonCode.PATIENT_BUDGET),
        ({"studies_per_day": 1}, ReasonCode.STUDY_BUDGET),
        ({"matches_per_30_days": 1}, ReasonCode.MATCH_BUDGET),
        ({"bytes_per_hour": 10}, ReasonCode.BYTE_BUDGET),
    ],
)
def test_a_query_whose_budget_ends_is_cut_and_never_a_success(numbers: dict[str, int], reason: ReasonCode) -> None:
    line = finding(refusing(**numbers))
    match(line, identifier(patient_id="1", study="1.1"))
    match(line, identifier(patient_id="2", study="1.2"))
    match(line, identifier(patient_id="3", study="1.3"))
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1), 0))
    *_, first, final = heard(line, REQUESTOR)
    assert (first.command.status, final.command.status) == (0xFF00, 0xA700)
    assert final.command.error_comment == f"Dicomward: {reason}"
    assert last(line, OperationCompleted).reason is reason
    assert last(line, OperationCompleted).matches == 1


def test_a_query_is_refused_at_once_where_no_match_is_left() -> None:
    line = finding(refusing(matches_per_hour=1))
    match(line, IDENTIFIER)
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1), 0))
    heard(line, REQUESTOR)
    heard(line, ACCEPTOR)
    line.say(REQUESTOR, 5, c_find_rq(2), IDENTIFIER)
    assert line.said(REQUESTOR) == ["C-FIND-RSP 2 on 5 status A700"]
    assert line.said(ACCEPTOR) == []
    assert last(line, OperationDenied).reason is ReasonCode.MATCH_BUDGET


def test_who_is_only_slowed_down_gets_everything_a_little_later() -> None:
    line = finding(world_with(patients_per_hour=1))
    match(line, identifier(patient_id="1"))
    assert line.paused == set()
    match(line, identifier(patient_id="2"))
    assert line.paused == {ACCEPTOR}
    assert line.timers[Timer.BUDGET_FROM_ACCEPTOR] == 0.5
    line.handle(TimerFired(Timer.BUDGET_FROM_ACCEPTOR))
    assert line.paused == set()
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1), 0))
    assert [each.command.status for each in heard(line, REQUESTOR)] == [0xFF00, 0xFF00, 0]


def test_delays_of_one_read_add_up_to_a_bound() -> None:
    line = finding(world_with(patients_per_hour=1))
    wire = b"".join(
        message(5, response_to(c_find_rq(1), 0xFF00, has_data_set=True), identifier(patient_id=str(i)))
        for i in range(100)
    )
    effects = line.send(ACCEPTOR, wire)
    assert sum(isinstance(each, Pause) for each in effects) == 1
    assert [each.seconds for each in effects if isinstance(each, StartTimer)][-1] == 10.0


@pytest.mark.parametrize("size", [1, 4096])
def test_a_match_that_is_too_long_is_held_back_alone(size: int) -> None:
    world = FakeWorld().limited(max_response_identifier_bytes=100, max_held_bytes=500)
    line = finding(world)
    long = identifier(patient_id="1" * 200)
    line.send(ACCEPTOR, message(5, response_to(c_find_rq(1), 0xFF00, has_data_set=True), long, size=size))
    match(line, IDENTIFIER)
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1), 0))
    assert [each.command.status for each in heard(line, REQUESTOR)] == [0xFF00, 0xA700]
    assert last(line, OperationDenied).reason is ReasonCode.RESPONSE_TOO_LONG
    assert last(line, OperationCompleted).matches == 1


def test_a_match_in_pieces_goes_out_as_it_came() -> None:
    line = finding(FakeWorld())
    line.send(ACCEPTOR, message(5, response_to(c_find_rq(1), 0xFF00, has_data_set=True), IDENTIFIER, size=3))
    (sent,) = heard(line, REQUESTOR)
    assert sent.data == IDENTIFIER


def test_while_budgets_cannot_be_kept_nothing_is_read() -> None:
    world = FakeWorld()
    line = finding(world)
    world.budgets.lost = ReasonCode.BUDGETS_UNAVAILABLE
    match(line, IDENTIFIER)
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1), 0))
    (final,) = heard(line, REQUESTOR)
    assert (final.command.status, final.command.error_comment) == (0xA700, "Dicomward: budgets-unavailable")


# -- stripping ---------------------------------------------------------------------------------------------------------


def stripping(*tags: int) -> FakeWorld:
    world = FakeWorld()
    world.policy = policy(
        *(replace(rule, strip=frozenset(tags)) if rule.id == "workstation-reads" else rule for rule in RULES)
    )
    return world


def test_an_attribute_that_was_not_asked_for_is_stripped_without_a_warning() -> None:
    line = finding(stripping(0x00101040))
    match(line, data_set({0x00080052: "STUDY", 0x00101040: "1 Main St"}))
    (sent,) = heard(line, REQUESTOR)
    assert (sent.command.status, sent.data) == (0xFF00, data_set({0x00080052: "STUDY"}))


def test_a_required_key_stays_without_a_value() -> None:
    line = finding(stripping(0x00080020), data_set({0x00080052: "STUDY", 0x00080020: ""}))
    match(line, data_set({0x00080052: "STUDY", 0x00080020: "20260101"}))
    (sent,) = heard(line, REQUESTOR)
    assert (sent.command.status, sent.data) == (0xFF01, data_set({0x00080052: "STUDY", 0x00080020: ""}))


def test_a_match_without_the_attribute_is_passed_as_it_is() -> None:
    line = finding(stripping(0x00101040))
    match(line, IDENTIFIER)
    (sent,) = heard(line, REQUESTOR)
    assert (sent.command.status, sent.data) == (0xFF00, IDENTIFIER)


def test_what_is_stripped_cannot_be_asked_for() -> None:
    line = finding(stripping(0x00101040), data_set({0x00080052: "STUDY", 0x00101040: "1 M*"}))
    assert line.said(REQUESTOR) == ["C-FIND-RSP 1 on 5 status 0124"]
    assert last(line, OperationDenied).reason is ReasonCode.STRIPPED_KEY


# -- C-GET -------------------------------------------------------------------------------------------------------------


def getting(world: FakeWorld, query: bytes = IDENTIFIER) -> Line:
    line = windowed(world, calling="WS1")
    line.say(REQUESTOR, 9, c_get_rq(5), query)
    return line


def test_instances_of_a_get_count_for_who_asks() -> None:
    world = FakeWorld()
    line = getting(world)
    heard(line, ACCEPTOR)
    data = head("1.5.1", patient="1", study="1.1")
    wire = message(3, c_store_rq(1, "1.5.1"), data, size=20)
    line.send(ACCEPTOR, wire[:-40])
    line.send(ACCEPTOR, wire[-40:])
    assert heard(line, REQUESTOR)[-1].data == data
    assert (used(world, "ws1", Measure.PATIENTS), used(world, "ws1", Measure.STUDIES)) == (1, 1)
    assert used(world, "ws1", Measure.MATCHES) == 0
    # Bytes are counted ahead; what nobody has used comes back.
    assert used(world, "ws1", Measure.BYTES) > len(data)
    line.send(REQUESTOR, b"\7\0\0\0\0\4\0\0\0\0")
    assert used(world, "ws1", Measure.BYTES) == len(data)


def test_an_instance_beyond_the_budget_is_refused_and_those_that_count_already_go_on() -> None:
    world = refusing(studies_per_hour=1)
    line = getting(world)
    heard(line, ACCEPTOR)
    for message_id, (instance, study) in enumerate((("1.5.1", "1.1"), ("1.5.2", "1.2"), ("1.5.3", "1.1")), start=1):
        data = head(instance, patient="1", study=study)
        line.say(ACCEPTOR, 3, c_store_rq(message_id, instance), data)
        for sent in heard(line, REQUESTOR):
            line.say(REQUESTOR, 3, response_to(sent.command))
    statuses = [each.command.status for each in heard(line, ACCEPTOR)]
    assert statuses == [0, 0xA700, 0]
    line.say(ACCEPTOR, 9, response_to(c_get_rq(5), 0))
    assert line.said(REQUESTOR) == ["C-GET-RSP 5 on 9 status B000"]


def test_a_get_of_something_new_is_refused_at_once_where_no_place_is_left() -> None:
    world = refusing(studies_per_hour=1)
    line = getting(world, data_set({0x00080052: "STUDY", 0x0020000D: "1.1"}))
    heard(line, ACCEPTOR)
    line.say(ACCEPTOR, 3, c_store_rq(1, "1.5.1"), head("1.5.1", patient="1", study="1.1"))
    for sent in heard(line, REQUESTOR):
        line.say(REQUESTOR, 3, response_to(sent.command))
    line.say(ACCEPTOR, 9, response_to(c_get_rq(5), 0))
    heard(line, REQUESTOR)
    heard(line, ACCEPTOR)
    line.say(REQUESTOR, 9, c_get_rq(6), data_set({0x00080052: "STUDY", 0x0020000D: "1.2"}))
    assert line.said(REQUESTOR) == ["C-GET-RSP 6 on 9 status A702"]
    line.say(REQUESTOR, 9, c_get_rq(7), data_set({0x00080052: "STUDY", 0x0020000D: "1.2\\1.1"}))
    assert line.said(ACCEPTOR) == ["C-GET-RQ 7 on 9 with 28 bytes"] or line.said(REQUESTOR) == []


def test_an_instance_without_a_study_in_its_head_counts_as_one_of_its_own() -> None:
    world = FakeWorld().limited(max_head_bytes=300)
    line = getting(world)
    heard(line, ACCEPTOR)
    data = data_set(
        {0x00080016: CT_IMAGE, 0x00080018: "1.5.1", 0x00100020: "1", 0x00181000: "x" * 400, 0x0020000D: "1.1"}
    )
    line.say(ACCEPTOR, 3, c_store_rq(1, "1.5.1"), data)
    assert heard(line, REQUESTOR)[-1].data == data
    assert (used(world, "ws1", Measure.PATIENTS), used(world, "ws1", Measure.STUDIES)) == (1, 1)


# -- C-MOVE ------------------------------------------------------------------------------------------------------------


def moving_to(world: FakeWorld, destination: str) -> Line:
    world.policy = policy(*RULES, allow("moves", "workstation", Service.MOVE))
    line = established(world, calling="WS1")
    line.say(REQUESTOR, 7, c_move_rq(1, destination), IDENTIFIER)
    return line


def delivered(world: FakeWorld, called: str, *instances: bytes) -> list[int]:
    """Let the archive send the sub-operations; return the statuses that it gets."""
    line = established_by_archive(world, called=called)
    for message_id, data in enumerate(instances, start=1):
        instance = f"1.5.{message_id}"
        line.say(REQUESTOR, 3, c_store_rq(message_id, instance), data)
        for sent in heard(line, ACCEPTOR):
            line.say(ACCEPTOR, 3, response_to(sent.command))
    return [each.command.status or 0 for each in heard(line, REQUESTOR)]


def test_a_move_to_somebody_else_counts_for_both() -> None:
    world = FakeWorld()
    moving_to(world, "CT1")
    assert delivered(world, "CT1", head("1.5.1", patient="1", study="1.1")) == [0]
    assert used(world, "ct1", Measure.PATIENTS, "modality") == 1
    assert used(world, "ws1", Measure.PATIENTS) == 1


def test_a_move_to_oneself_counts_once() -> None:
    world = FakeWorld()
    moving(world)
    delivered(world, "WS1", head("1.5.1", patient="1", study="1.1"))
    assert [holders for holders, _ in world.budgets.charged] == [(("ws1", "workstation"),)]
    assert used(world, "ws1", Measure.STUDIES) == 1


@pytest.mark.parametrize("poor", ["ct1", "ws1"])
def test_a_move_whose_budget_ends_in_the_middle_is_no_success(poor: str) -> None:
    world = FakeWorld()
    world.budgets.book = BudgetBook(BudgetSettings(devices={poor: {"patients_per_hour": 1, "at_end": "refuse"}}))
    line = moving_to(world, "CT1")
    heard(line, ACCEPTOR)
    statuses = delivered(
        world,
        "CT1",
        head("1.5.1", patient="1", study="1.1"),
        head("1.5.2", patient="2", study="1.2"),
        head("1.5.3", patient="1", study="1.1"),
    )
    assert statuses == [0, 0xA700, 0]
    line.say(ACCEPTOR, 7, response_to(c_move_rq(1, "CT1"), 0))
    assert line.said(REQUESTOR) == ["C-MOVE-RSP 1 on 7 status B000"]
    assert used(world, "ct1", Measure.PATIENTS, "modality") == 1


def test_a_move_is_refused_at_once_if_the_receiver_has_nothing_left() -> None:
    world = FakeWorld()
    world.budgets.book = BudgetBook(BudgetSettings(devices={"ct1": {"patients_per_day": 1, "at_end": "refuse"}}))
    line = moving_to(world, "CT1")
    delivered(world, "CT1", head("1.5.1", patient="1", study="1.1"))
    line.say(ACCEPTOR, 7, response_to(c_move_rq(1, "CT1"), 0))
    heard(line, REQUESTOR)
    heard(line, ACCEPTOR)
    line.say(REQUESTOR, 7, c_move_rq(2, "CT1"), data_set({0x00080052: "PATIENT", 0x00100020: "9"}))
    assert line.said(REQUESTOR) == ["C-MOVE-RSP 2 on 7 status A702"]
    assert last(line, OperationDenied).reason is ReasonCode.PATIENT_BUDGET


# -- canaries ----------------------------------------------------------------------------------------------------------

CANARY = Canary(name="decoy", patient_ids=("ZZ-1",), accession_numbers=("A-9",), study_instance_uids=("1.9.9",))


def watched(world: FakeWorld) -> FakeWorld:
    world.settings = replace(world.settings, canaries=Canaries([CANARY]))
    return world


@pytest.mark.parametrize(
    "found", [{0x00100020: "ZZ-1 "}, {0x00080050: "A-9"}, {0x0020000D: "1.9.9"}], ids=["patient", "accession", "study"]
)
def test_a_canary_raises_an_alarm_and_goes_out(found: dict[int, bytes | str]) -> None:
    line = finding(watched(FakeWorld()))
    for _ in range(2):
        match(line, data_set({0x00080052: "STUDY", **found}))
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1), 0))
    assert [each.command.status for each in heard(line, REQUESTOR)] == [0xFF00, 0xFF00, 0]
    (alarm,) = line.recorded(SecurityAlert)
    assert (alarm.reason, alarm.device, alarm.archive) == (ReasonCode.CANARY, "ws1", "pacs")
    assert alarm.detail == "canary 'decoy' went out in a c-find"
    assert not any("ZZ-1" in str(each) or "A-9" in str(each) or "1.9.9" in str(each) for each in line.records)


def test_a_canary_of_a_move_names_who_asked() -> None:
    world = watched(FakeWorld())
    moving_to(world, "CT1")
    line = established_by_archive(world, called="CT1")
    for i in (1, 2):
        line.say(REQUESTOR, 3, c_store_rq(i, f"1.5.{i}"), head(f"1.5.{i}", patient="ZZ-1", study="1.1"))
        for sent in heard(line, ACCEPTOR):
            line.say(ACCEPTOR, 3, response_to(sent.command))
    (alarm,) = line.recorded(SecurityAlert)
    assert alarm.detail == "canary 'decoy' went out in a c-store that ws1 asked for"


def test_other_patients_raise_nothing() -> None:
    line = finding(watched(FakeWorld()))
    match(line, identifier(patient_id="ZZ-10"))
    assert line.recorded(SecurityAlert) == []


# -- what lifts a budget -----------------------------------------------------------------------------------------------


def test_an_open_bypass_lifts_budgets_and_what_goes_out_still_counts() -> None:
    world = refusing(patients_per_hour=1)
    world.bypasses = BypassTable(devices={"ws1": OpenBypass("bypass:7", until=5000.0)})
    line = finding(world)
    for patient in ("1", "2", "3"):
        match(line, identifier(patient_id=patient))
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1), 0))
    assert [each.command.status for each in heard(line, REQUESTOR)] == [0xFF00, 0xFF00, 0xFF00, 0]
    assert used(world, "ws1", Measure.PATIENTS) == 3
    assert last(line, OperationCompleted).waived == ("patient-budget",)


def test_a_bypass_lifts_the_delay_too_and_the_stripped_key() -> None:
    world = stripping(0x00101040)
    world.budgets.book = BudgetBook(BudgetSettings(device={"patients_per_hour": 1}))
    world.bypasses = BypassTable(devices={"ws1": OpenBypass("bypass:7", until=5000.0)})
    line = finding(world, data_set({0x00080052: "STUDY", 0x00101040: "1 M*"}))
    for patient in ("1", "2"):
        match(line, identifier(patient_id=patient))
    assert line.paused == set()
    assert len(heard(line, REQUESTOR)) == 2


def test_a_move_under_a_bypass_is_delivered_beyond_the_budget() -> None:
    world = refusing(studies_per_hour=1)
    world.bypasses = BypassTable(devices={"ws1": OpenBypass("bypass:7", until=5000.0)})
    moving_to(world, "CT1")
    statuses = delivered(world, "CT1", head("1.5.1", patient="1", study="1.1"), head("1.5.2", patient="2", study="1.2"))
    assert statuses == [0, 0]


def test_the_spans_have_the_names_of_the_settings() -> None:
    assert [span.label for span in Span] == ["hour", "day", "30_days"]
