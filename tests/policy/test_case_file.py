"""Policy tests are read: short tables become requests, and what can't be read is said."""

from dataclasses import fields
from datetime import UTC, datetime

import pytest

from dicomward.policy.case_file import REASONS, REQUEST_FIELDS, Caller, Case, CaseFileError, load_cases
from dicomward.policy.decision import Effect
from dicomward.policy.evaluate import evaluate
from dicomward.policy.facets import FACET_OF_REQUEST_FIELD
from dicomward.policy.request import IdentifierRequest
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Assurance
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import MODALITY_WORKLIST_FIND, USUAL_SOP_CLASS, Service
from tests.policy.builders import ACCESSION_NUMBER, CT, GRAYSCALE_PRINT_META, PATIENT_ID, policy

READER = 'role = "reader"\noperation = "c-find"\n'


def cases(text: str, known: dict[str, Caller] | None = None) -> tuple[Case, ...]:
    return load_cases(text, source="t.toml", known=known or {}).cases


def one(text: str, known: dict[str, Caller] | None = None) -> Case:
    (case,) = cases(f'[[test]]\nexpect = "allow"\n{text}', known)
    return case


def problems(text: str) -> list[str]:
    with pytest.raises(CaseFileError) as caught:
        cases(text)
    return [str(problem) for problem in caught.value.problems]


# Which field of a test states which field of a request; a field that is missing here can't be tested.
STATED_BY = {
    "principal.device": "device",
    "principal.role": "role",
    "principal.site": "site",
    "principal.assurance": "assurance",
    "principal.calling_ae_title": "calling_ae_title",
    "principal.floor_only": "floor_only",
    "principal.person": "person",
    "principal.groups": "group",
    "own_ae_titles": "own_ae_titles",
    "archive": "archive",
    "operation": "operation",
    "sop_class_uid": "sop_class",
    "context_sop_class_uid": "context_sop_class",
    "query_level": "query_level",
    "keys": "keys",
    "move_destination": "move_destination",
    "at": "time",
}


def test_everything_that_a_rule_can_depend_on_can_be_stated() -> None:
    deciding = {name for name, facet in FACET_OF_REQUEST_FIELD.items() if facet} | {"principal.floor_only"}
    assert set(STATED_BY) == deciding
    assert set(STATED_BY.values()) | {"service"} == set(REQUEST_FIELDS)


def test_all_of_it_arrives_in_the_request() -> None:
    case = one(
        'device = "D1"\nrole = "reader"\nsite = "north"\nassurance = "network-pin"\ncalling_ae_title = "A"\n'
        'own_ae_titles = ["A", "B"]\narchive = "pacs2"\noperation = "c-find"\nservice = "worklist"\n'
        'query_level = "study"\nkeys = ["PatientID", "0008,0050=1", "PatientName=*"]\ntime = "sat 08:30"\n'
        'context_sop_class = "BasicGrayscalePrintManagementMeta"\nfloor_only = true\n'
        'person = "anna"\ngroup = ["readers", "chiefs"]\n'
    )
    request = case.request
    assert isinstance(request, IdentifierRequest)
    caller = request.principal
    assert (caller.device, caller.role, caller.site, caller.calling_ae_title) == ("D1", "reader", "north", "A")
    assert (caller.assurance, caller.floor_only) == (Assurance.NETWORK_PIN, "test")
    assert (caller.person, caller.groups) == ("anna", frozenset({"readers", "chiefs"}))
    assert (request.own_ae_titles, request.archive) == (frozenset({"A", "B"}), "pacs2")
    assert (request.operation, request.sop_class_uid) == (Operation.C_FIND, MODALITY_WORKLIST_FIND)
    assert request.context_sop_class_uid == GRAYSCALE_PRINT_META
    assert (request.query_level, request.keys) == ("study", frozenset({PATIENT_ID, ACCESSION_NUMBER}))
    assert request.at == datetime(2026, 1, 10, 8, 30, tzinfo=UTC)


def test_without_an_identifier_the_command_is_asked_about() -> None:
    assert not isinstance(one(READER).request, IdentifierRequest)
    assert isinstance(one(READER + "keys = []").request, IdentifierRequest)
    assert one(READER).request.sop_class_uid == USUAL_SOP_CLASS[Service.QUERY]


def test_the_words_of_explain_work_too() -> None:
    request = one(READER + 'aet = "A"\nlevel = "STUDY"\nkey = "PatientID"\nat = "2026-01-31T14:00"').request
    assert isinstance(request, IdentifierRequest)
    assert (request.principal.calling_ae_title, request.keys) == ("A", frozenset({PATIENT_ID}))
    assert request.at == datetime(2026, 1, 31, 14, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('"mon 00:00"', datetime(2026, 1, 5, tzinfo=UTC)),
        ('"08:15"', datetime(2026, 1, 7, 8, 15, tzinfo=UTC)),
        ("2026-01-31T14:00:00", datetime(2026, 1, 31, 14, 0, tzinfo=UTC)),
        ("2026-01-31T14:00:00+05:00", datetime(2026, 1, 31, 14, 0, tzinfo=UTC)),
    ],
)
def test_times_are_those_of_the_clock_on_the_wall(written: str, read: datetime) -> None:
    assert one(f"{READER}time = {written}").request.at == read


def test_a_device_brings_what_it_is_registered_with() -> None:
    known = {"ct1": Caller(role="modality", site="north", ae_titles=("CT1", "CT2"))}
    caller = one('device = "ct1"\noperation = "c-echo"', known).request
    assert (caller.principal.role, caller.principal.calling_ae_title, caller.own_ae_titles) == (
        "modality",
        "CT1",
        frozenset({"CT1", "CT2"}),
    )
    moved = one('device = "ct1"\nrole = "reader"\noperation = "c-move"\nmove_destination = "self"', known).request
    assert (moved.principal.role, moved.move_destination) == ("reader", "CT1")


def test_a_file_can_describe_its_devices_and_name_its_policy() -> None:
    text = (
        'version = 1\npolicy = "p.toml"\n[device.ct1]\nrole = "modality"\nsite = ""\nae_titles = "CT1"\n'
        'assurance = "network-pin"\n[[test]]\nexpect = "deny"\ndevice = "ct1"\noperation = "c-echo"'
    )
    found = load_cases(text, source="t.toml", known={"ct1": Caller(role="reader")})
    assert found.policy == "p.toml"
    assert found.cases[0].request.principal.role == "modality"
    assert found.cases[0].request.principal.assurance is Assurance.NETWORK_PIN


def test_lists_rows_and_defaults_make_many_cases_of_few_lines() -> None:
    found = cases(
        '[defaults]\narchive = "far"\nservice = "print"\n[[test]]\nname = "n"\nexpect = "deny"\nrules = "x"\n'
        'role = ["a", "b"]\ncases = [\n{ operation = ["c-store", "c-find"], sop_class = "CTImageStorage" },\n'
        '{ operation = "c-find", service = "query", keys = [["PatientID"], []], reason = "allowed" } ]'
    )
    assert [case.where for case in found] == [
        't.toml line 4, test "n", case 1 (role a, operation c-store)',
        't.toml line 4, test "n", case 1 (role a, operation c-find)',
        't.toml line 4, test "n", case 1 (role b, operation c-store)',
        't.toml line 4, test "n", case 1 (role b, operation c-find)',
        't.toml line 4, test "n", case 2 (role a, keys [PatientID])',
        't.toml line 4, test "n", case 2 (role a, keys [])',
        't.toml line 4, test "n", case 2 (role b, keys [PatientID])',
        't.toml line 4, test "n", case 2 (role b, keys [])',
    ]
    assert {case.request.archive for case in found} == {"far"}
    assert [case.request.sop_class_uid for case in found] == [CT] * 4 + [USUAL_SOP_CLASS[Service.QUERY]] * 4
    assert (found[0].effect, found[0].reason, found[0].rule_ids) == (Effect.DENY, None, frozenset({"x"}))
    assert (found[4].effect, found[4].reason, found[4].rule_ids) == (Effect.ALLOW, ReasonCode.ALLOWED, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.toml: there is no test, so nothing is tested"),
        ("[test", "this is not TOML"),
        ("test = 5", "test: tests are tables"),
        ("version = 2", "version 2 is not known"),
        ('[[tests]]\nrole = "x"', 'tests: this field is not known (did you mean "test"?)'),
        ("device = 5", "device: devices are tables"),
        ("[device.ct1]\nsite = 's'", 'device "ct1", role: the role is missing'),
        ("[device.ct1]\nrole = 's'\naet = 's'", 'device "ct1", aet: this field is not known'),
        ("defaults = 5", "defaults: this is no table"),
        ("[[test]]\ncases = []", "there is at least one"),
        ("[[test]]\ncases = 5", "cases are a list of rows"),
        (f"[[test]]\n{READER}", "nothing is expected"),
        (f"[[test]]\n{READER}expect = 'perhaps'", '"perhaps" is not a known effect'),
        (f"[[test]]\n{READER}expect = 'allow'\nreason = 'denied-by-rule'", "no decision is allow for the reason"),
        (f"[[test]]\n{READER}reason = 'no-permitted-context'", "is not a known reason of a decision"),
        ("[[test]]\nexpect = 'deny'\nrole = 'x'", "the operation is missing"),
        ("[[test]]\nexpect = 'deny'\noperation = 'c-echo'", 'the role of device "some-device" is not known'),
        ("[[test]]\nexpect = 'deny'\nrole = 'x'\noperation = 'n-set'", "what n-set is about is missing"),
        (f"[[test]]\n{READER}expect = 'deny'\nservice = 'query'\nsop_class = 'CTImageStorage'", "name one of them"),
        ("[[test]]\nexpect = 'deny'\nrole = 'x'\noperation = 'c-move'", "a c-move has a destination"),
        (f"[[test]]\n{READER}expect = 'deny'\nmove_destination = 'A'", "only c-move has this"),
        (
            "[[test]]\nexpect = 'deny'\nrole = 'x'\noperation = 'c-echo'\nkeys = []",
            "only c-find, c-get, c-move has this",
        ),
        (f"[[test]]\n{READER}expect = 'deny'\nsite = []", "the list is empty"),
        (f"[[test]]\n{READER}expect = 'deny'\nkeys = 'PatientId'", "is not the keyword of a query key"),
        (f"[[test]]\n{READER}expect = 'deny'\ntime = 'noon'", '"noon" is not a time'),
        (f"[[test]]\n{READER}expect = 'deny'\ntime = '2026-01-31T14:00Z'", "leave the zone out"),
        (f"[[test]]\n{READER}expect = 'deny'\nfloor_only = 'yes'", "neither true nor false"),
        (f"[[test]]\n{READER}expect = 'deny'\naet = '{'A' * 17}'", "write an AE title"),
        (f"[[test]]\n{READER}expect = 'deny'\nlevle = 'STUDY'", 'did you mean "level"?'),
    ],
)
def test_what_cannot_be_read_is_said(text: str, message: str) -> None:
    assert any(message in problem for problem in problems(text)), problems(text)


def test_every_problem_is_said_at_once_with_its_place() -> None:
    found = problems(f"[[test]]\n{READER}\n[[test]]\nname = 'b'\ncases = [{{ x = 1 }}]")
    assert [line.split(",")[0] for line in found] == ["t.toml line 1", *["t.toml line 5"] * 3]


def test_a_header_inside_a_text_does_not_mislead() -> None:
    assert "line" not in problems(f'[[test]]\n{READER}description = """\n[[test]]\n"""')[0]


def test_reasons_are_those_that_a_decision_can_have() -> None:
    assert evaluate(policy(), one(READER).request).reason in REASONS
    assert {field.name for field in fields(Case)} == {"where", "request", "effect", "reason", "rule_ids", "strip"}
