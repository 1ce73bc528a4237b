"""Classes of requests in words, and requests as fields of a policy test."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomward.policy.case_file import load_cases
from dicomward.policy.diff import ChangeKind, diff_policies
from dicomward.policy.load import load_policy
from dicomward.policy.model import Policy
from dicomward.policy.wording import describe_change, request_fields
from dicomward.vocab.dimse import Operation
from dicomward.vocab.services import SERVICE_OF_SOP_CLASS, Service, operations_of
from tests.policy.builders import operation, policies, policy

WHO = 'effect = "allow"\nrole = "reader"\n'


def described(text: str) -> list[dict[str, str]]:
    new = load_policy(
        "".join(f'[[rule]]\nid = "r{i}"\n{WHO}{rule}\n' for i, rule in enumerate(text.split(";"))), source="n"
    )
    changes = diff_policies(policy(), new).of_kind(ChangeKind.BECOMES_ALLOWED)
    return [{k: v for k, v in describe_change(change).items() if k != "role"} for change in changes]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ('operation = "c-echo"\nservice = "verification"', {"operation": "c-echo of Verification"}),
        ('operation = "c-store"\nservice = "storage"', {"operation": "c-store of service storage"}),
        ('operation = "c-store"\nservice = ["storage", "other"]',
         {"operation": "c-store of service storage, service other"}),
        ('operation = "c-find"\nsop_class = "ModalityWorklistInformationModelFind"',
         {"operation": "c-find of ModalityWorklistInformationModelFind"}),
        ('operation = ["n-create", "n-set"]\nsop_class = "ModalityPerformedProcedureStep"',
         {"operation": "n-set, n-create of ModalityPerformedProcedureStep"}),
        ('operation = "c-find"\nservice = "query"\nquery_level = "STUDY"\nrequired_keys = ["PatientID", "StudyDate"]\n'
         'required_any_key = ["AccessionNumber", "StudyID"]',
         {"keys": "with StudyDate and PatientID and with one of AccessionNumber, StudyID"}),
        ('operation = "c-move"\nservice = "move"\nmove_destination = "self"',
         {"move_destination": "the device itself"}),
        ('operation = "c-move"\nservice = "move"\nmove_destination = ["A", "self"]',
         {"move_destination": "the device itself or another device as A"}),
        ('operation = "c-echo"\ntime = { days = ["sat", "sun"] }', {"time": "sat, sun 00:00 to 24:00"}),
        ('operation = "c-echo"\ntime = { from = "22:00", to = "06:00" }',
         {"time": "every day 00:00 to 06:00, 22:00 to 24:00"}),
        ('operation = "c-echo"\nassurance = "tls-device"', {"assurance": "tls-device, device-and-person"}),
        ('operation = "c-echo"\nsite = ["north", "south"]', {"site": "north, south"}),
        ('operation = "c-store"\nservice = "storage"\narchive = "pacs"', {"archive": "pacs"}),
    ],
)  # fmt: skip
def test_what_a_class_has_in_common_is_said_in_the_words_of_rules(rule: str, words: dict[str, str]) -> None:
    (found,) = described(rule)
    assert {name: found[name] for name in words} == words


def test_long_lists_of_sop_classes_are_counted() -> None:
    uids = ['"CTImageStorage"', '"MRImageStorage"', *(f'"1.2.840.10008.5.1.4.1.1.{n}"' for n in (1, 6.1, 7, 20, 128))]
    (found,) = described(f'operation = "c-store"\nsop_class = [{", ".join(uids)}]')
    assert found["operation"].startswith("c-store of 7 SOP classes of service storage, such as ")


def test_what_is_left_is_said_by_what_is_missing() -> None:
    old = load_policy('[[rule]]\nid = "no"\neffect = "deny"\ndevice = ["D1", "D2"]\n'
                      f'[[rule]]\nid = "a"\n{WHO}operation = "c-echo"\n', source="o")  # fmt: skip
    (change,) = diff_policies(policy(), old).of_kind(ChangeKind.BECOMES_ALLOWED)
    assert describe_change(change)["device"] == "any but D1, D2"


def test_a_context_is_named_only_where_it_makes_the_difference() -> None:
    (found,) = described('operation = "n-set"\nsop_class = "BasicGrayscalePrintManagementMeta"')
    assert "BasicFilmSession in a context of BasicGrayscalePrintManagementMeta" in found["operation"]


@settings(max_examples=40, deadline=None)
@given(policies(), policies(), st.integers(0, 10))
def test_who_pastes_an_example_into_a_test_asks_the_same(old: Policy, new: Policy, place: int) -> None:
    changes = diff_policies(old, new).changes
    if not changes:
        return
    change = changes[place % len(changes)]
    fields = "".join(f"{name} = {json.dumps(value)}\n" for name, value in request_fields(change.request).items())
    (case,) = load_cases(f'[[test]]\nexpect = "{change.new.effect}"\n{fields}', source="t", known={}).cases
    assert change.contains(case.request)


def test_neighbouring_spans_are_one() -> None:
    """Another rule cuts the day at noon; what is decided alike is said in one."""
    noon = '[[rule]]\nid = "noon"\neffect = "deny"\nrole = "x"\ntime = { from = "12:00" }\n'
    day = f'[[rule]]\nid = "a"\n{WHO}operation = "c-echo"\ntime = {{ from = "08:00", to = "18:00" }}\n'
    (change,) = diff_policies(load_policy(noon, source="o"), load_policy(noon + day, source="n")).of_kind(
        ChangeKind.BECOMES_ALLOWED
    )
    assert describe_change(change)["time"] == "every day 08:00 to 18:00"


def test_all_known_classes_of_a_service_without_the_private_ones_are_no_whole_service() -> None:
    known = [
        uid
        for uid, service in SERVICE_OF_SOP_CLASS.items()
        if service is Service.OTHER and Operation.N_CREATE in operations_of(uid)
    ]
    (found,) = described(f'operation = "n-create"\nsop_class = {json.dumps(known)}')
    assert found["operation"].startswith(f"n-create of {len(known)} SOP classes of service other")


def test_other_titles_of_a_device_are_a_field_too() -> None:
    assert request_fields(operation(own_ae_titles=frozenset({"B", "A"})))["own_ae_titles"] == ["A", "B"]
