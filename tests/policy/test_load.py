import hashlib
import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from dicomward.policy.decision import Effect
from dicomward.policy.load import FIELDS, PolicyError, load_policy
from dicomward.policy.model import Problem
from dicomward.policy.rule import Rule, TimeWindow
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Assurance
from dicomward.vocab.services import MODALITY_WORKLIST_FIND, Service

HEAD = '[[rule]]\nid = "r"\neffect = "allow"\nrole = "modality"\noperation = "c-store"\n'


def load_one(body: str) -> Rule:
    (rule,) = load_policy(body, source="policy.toml").rules
    return rule


def problems(text: str) -> list[Problem]:
    with pytest.raises(PolicyError) as caught:
        load_policy(text, source="policy.toml")
    assert str(caught.value) == "\n".join(str(problem) for problem in caught.value.problems)
    return list(caught.value.problems)


def one_problem(text: str) -> Problem:
    (problem,) = problems(text)
    return problem


def one(*values: Any) -> frozenset[Any]:
    return frozenset(values)


# --- what can be said -----------------------------------------------------------------------------------------------


def test_an_allow_rule_with_every_field_of_an_allow_rule() -> None:
    rule = load_one(
        dedent(
            """\
            version = 1
            [[rule]]
            id = "tele-1"
            description = "Reading at night."
            effect = "allow"
            device = ["READER1", "READER2"]
            role = "teleradiology"
            site = "Nachtdienst GmbH"
            assurance = "tls-device"
            operation = "c-move"
            sop_class = ["StudyRootQueryRetrieveInformationModelMove", "1.2.840.10008.5.1.4.1.2.1.2", "1.2.276.0.99"]
            service = ["move", "other"]
            archive = "pacs"
            query_level = ["STUDY", "SERIES"]
            required_keys = ["StudyInstanceUID", "0008,0050"]
            required_any_key = "PatientID"
            move_destination = ["self", "OR 1"]
            person = "anna"
            group = ["readers", "night"]
            time = { days = ["fri", "sat"], from = "22:00", to = "06:30" }
            """
        )
    )
    assert rule == Rule(
        id="tele-1",
        effect=Effect.ALLOW,
        description="Reading at night.",
        devices=one("READER1", "READER2"),
        roles=one("teleradiology"),
        sites=one("Nachtdienst GmbH"),
        people=one("anna"),
        groups=one("readers", "night"),
        assurance=Assurance.TLS_DEVICE,
        operations=one(Operation.C_MOVE),
        sop_classes=one("1.2.840.10008.5.1.4.1.2.2.2", "1.2.840.10008.5.1.4.1.2.1.2", "1.2.276.0.99"),
        services=one(Service.MOVE, Service.OTHER),
        archives=one("pacs"),
        query_levels=one("STUDY", "SERIES"),
        required_keys=one(0x0020000D, 0x00080050),
        required_any_key=one(0x00100020),
        move_destinations=one("OR 1"),
        move_to_self=True,
        times=(TimeWindow(days=one(4, 5), start_minute=22 * 60, end_minute=6 * 60 + 30),),
    )


def test_a_deny_rule_with_the_words_of_deny_rules() -> None:
    rule = load_one(
        """
        [[rule]]
        id = "no-browsing"
        effect = "deny"
        operation = ["c-find"]
        service = ["query"]
        assurance_below = "device-and-person"
        unless_keys = ["AccessionNumber"]
        unless_any_key = ["PatientID", "StudyInstanceUID"]
        """
    )
    assert (rule.effect, rule.assurance_below) == (Effect.DENY, Assurance.DEVICE_AND_PERSON)
    assert (rule.unless_keys, rule.unless_any_key) == (one(0x00080050), one(0x00100020, 0x0020000D))


STRIPPING = """
[[rule]]
id = "finds"
effect = "allow"
role = "research"
operation = "c-find"
service = "query"
strip = {}
"""


def test_attributes_that_a_rule_strips_are_read_by_keyword_and_tag() -> None:
    rule = load_one(STRIPPING.format('["PatientAddress", "0010,2154", "PatientName"]'))
    assert rule.strip == one(0x00101040, 0x00102154, 0x00100010)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"PatientAdress"', 'did you mean "PatientAddress"?'),
        ('"StudyInstanceUID"', "is needed to read a match"),
        ('"0008,0005"', "is needed to read a match"),
        ('"0002,0010"', "is not an attribute of a data set"),
        ("5", "write it in quotes"),
        ("[]", "the list is empty"),
    ],
)
def test_attributes_that_nobody_can_strip_are_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(message)):
        load_one(STRIPPING.format(text))


@pytest.mark.parametrize(
    "attribute", ["PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"]
)
@pytest.mark.parametrize("who", ['role = "workstation"', 'role = ["research", "modality"]', 'device = "X"'])
def test_what_tells_patients_apart_cannot_be_stripped_for_clinical_roles(attribute: str, who: str) -> None:
    text = STRIPPING.format(f'["{attribute}", "PatientAddress"]').replace('role = "research"', who)
    with pytest.raises(PolicyError, match=f"{attribute} can't be stripped for the clinical role"):
        load_one(text)


def test_accession_numbers_cannot_be_stripped_for_a_workstation() -> None:
    with pytest.raises(PolicyError, match="AccessionNumber can't be stripped"):
        load_one(STRIPPING.format('"AccessionNumber"').replace("research", "workstation"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('service = "query"', 'service = "worklist"'), "never those of the worklist"),
        (('operation = "c-find"\nservice = "query"', 'operation = "c-move"'), "allows no such query"),
        (('"allow"', '"deny"'), "no meaning in deny rules"),
        (("strip =", 'required_keys = "PatientName"\nstrip ='), "so it could never match"),
    ],
)
def test_a_rule_that_would_strip_nothing_is_refused(change: tuple[str, str], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        load_one(STRIPPING.format('"PatientName"').replace(*change))


def test_a_rule_that_allows_images_too_is_warned_about() -> None:
    text = STRIPPING.format('"PatientAddress"').replace('operation = "c-find"', 'operation = ["c-find", "c-get"]')
    loaded = load_policy(text.replace('service = "query"', 'service = ["query", "get"]'), source="p")
    assert [problem.message for problem in loaded.warnings] == ["only matches of c-find are stripped, not images"]
    assert loaded.stripped_by(["finds", "other"]) == one(0x00101040)
    assert loaded.stripped_by(["other"]) == frozenset()


def test_every_field_is_read_by_these_tests() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert not [field for field in FIELDS if f"{field} = " not in text]


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ('{ days = ["mon"] }', TimeWindow(days=one(0), start_minute=0, end_minute=1440)),
        ('{ from = "08:00" }', TimeWindow(days=one(*range(7)), start_minute=480, end_minute=1440)),
        ('{ to = "08:00" }', TimeWindow(days=one(*range(7)), start_minute=0, end_minute=480)),
        (
            '[{ days = "sun", from = "20:00", to = "24:00" }]',
            TimeWindow(days=one(6), start_minute=1200, end_minute=1440),
        ),
    ],
)
def test_windows_leave_out_what_is_open(text: str, window: TimeWindow) -> None:
    assert load_one(f"{HEAD}time = {text}\n").times == (window,)


def test_several_windows_as_tables() -> None:
    rule = load_one(f'{HEAD}[[rule.time]]\ndays = ["mon"]\n[[rule.time]]\ndays = ["tue"]\n')
    assert rule.times is not None
    assert [window.days for window in rule.times] == [one(0), one(1)]


def test_move_to_self_alone_is_not_open_to_every_destination() -> None:
    rule = load_one(HEAD.replace("c-store", "c-move") + 'move_destination = "self"\n')
    assert (rule.move_to_self, rule.move_destinations, rule.names_destinations) == (True, None, True)


def test_the_revision_is_that_of_the_text() -> None:
    policy = load_policy(HEAD, source="here")
    assert policy.revision == hashlib.sha256(HEAD.encode()).hexdigest()[:16]
    assert load_policy(HEAD + "\n", source="here").revision != policy.revision
    assert policy.source == "here"


# --- warnings -------------------------------------------------------------------------------------------------------


def warnings(text: str) -> list[str]:
    return [str(warning) for warning in load_policy(text, source="policy.toml").warnings]


def test_an_empty_policy_loads_with_a_warning_and_allows_nothing() -> None:
    policy = load_policy("", source="policy.toml")
    assert policy.rules == ()
    assert "nothing is allowed" in str(policy.warnings[0])


def test_a_role_that_is_not_ours_is_accepted_with_a_warning() -> None:
    (warning,) = warnings(HEAD.replace("modality", "dose-monitor"))
    assert warning.startswith('policy.toml line 1, rule "r", role: "dose-monitor" is not a ready role')


def test_a_uid_below_dicoms_root_that_is_not_in_the_standard_is_warned_of() -> None:
    (warning,) = warnings(HEAD + 'sop_class = ["1.2.840.10008.5.1.4.1.1.999", "1.2.276.0.99"]\n')
    assert "PS3.6 has no SOP class 1.2.840.10008.5.1.4.1.1.999" in warning


def test_a_title_that_looks_like_self_is_warned_of() -> None:
    (warning,) = warnings(HEAD.replace("c-store", "c-move") + 'move_destination = ["Self", "A"]\n')
    assert '"Self" is read as an AE title' in warning


def test_a_rule_that_denies_everything_is_warned_of() -> None:
    (warning,) = warnings('[[rule]]\nid = "lock"\neffect = "deny"\ndescription = "Emergency."\n')
    assert "denies everything to everybody" in warning
    assert warnings('[[rule]]\nid = "lock"\neffect = "deny"\nrole = "modality"\n') == []


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ('devices = "CT1"', "devices: this field is not known", 'did you mean "device"?'),
        ("zzz = 1", "zzz: this field is not known", "known: id, description"),
        ("device = []", "device: the list is empty", "leave the field out"),
        ("time = []", "time: the list is empty", "leave the field out"),
        ("device = [1]", "device: 1 is not text", "quotes"),
        ("device = true", "device: True is not text", "quotes"),
        ('device = "*"', 'device: "*" is not a name', "leave the field out"),
        ('device = "CT*"', 'device: "CT*" is not a name', "leave the field out"),
        ('site = "Any"', 'site: "Any" is not a name', "leave the field out"),
        ('site = " x"', "site: ' x' is not a name", "no spaces around it"),
        ('archive = ""', "archive: '' is not a name", "no spaces around it"),
        ('archive = "a\\tb"', "archive: 'a\\tb' is not a name", "control characters"),
        ("description = 1", "description: 1 is not text", "quotes"),
        ('assurance = "tls"', 'assurance: "tls" is not a known assurance', "known: network-pin, tls-device"),
        ('service = "STORAGE"', 'service: "STORAGE" is not a known service', 'did you mean "storage"?'),
        ('service = "all"', 'service: "all" is not a known service', "leave the field out"),
        ('query_level = "study"', 'query_level: "study" is not a known query level', 'did you mean "STUDY"?'),
        ('query_level = "X"', 'query_level: "X" is not a known query level', "known: PATIENT, STUDY"),
        ('sop_class = "CTImage"', 'sop_class: PS3.6 has no SOP class with the keyword "CTImage"', '"CTImageStorage"?'),
        ('sop_class = "?"', 'sop_class: PS3.6 has no SOP class with the keyword "?"', "docs/policy.md"),
        ('sop_class = ""', 'sop_class: PS3.6 has no SOP class with the keyword ""', "docs/policy.md"),
        ('sop_class = "1..2"', 'sop_class: "1..2": a UID has digits and dots only', "or its keyword"),
        ('sop_class = "1.02"', 'sop_class: "1.02" has a component with a leading zero', "PS3.5"),
        (
            'sop_class = "1.2.840.10008.1.2.1"',
            'sop_class: "1.2.840.10008.1.2.1" is ExplicitVRLittleEndian, a transfer syntax',
            "write a SOP class",
        ),
        ('required_keys = "PatientId"', 'required_keys: "PatientId" is not the keyword', 'did you mean "PatientID"?'),
        ('required_keys = "0040,0001"', "ScheduledStationAETitle (0040,0001) lies inside a sequence", ""),
        ('move_destination = "*"', 'move_destination: "*" is not an AE title', "leave the field out"),
        ('move_destination = "any"', 'move_destination: "any" is not an AE title', "leave the field out"),
        (f'move_destination = "{"A" * 17}"', "an AE title has at most 16 characters", 'write AE titles, or "self"'),
        ('move_destination = "A\\\\B"', "and no backslash", "write AE titles"),
        ("time = 8", "time: a window is a table", "days"),
        ("time = {}", "time: the window is empty", "days"),
        ('time = { form = "08:00" }', 'time: "form" is not known in a window', 'did you mean "from"?'),
        ('time = { days = ["monday"] }', 'days: "monday" is not a known day', 'did you mean "mon"?'),
        ('time = { from = "8:00" }', 'from: "8:00" is not a time of day', "HH:MM"),
        ('time = { from = "24:01" }', 'from: "24:01" is not a time of day', "HH:MM"),
        ('time = { to = "12:60" }', 'to: "12:60" is not a time of day', "HH:MM"),
        ('time = { from = "24:00" }', "time: a window lies outside the day", "from is 00:00 to 23:59"),
        ('time = { from = "08:00", to = "08:00" }', "time: a window starts and ends at the same minute", "leave out"),
        ("time = { from = 08:00:00 }", "is not text", "quotes"),
    ],
)
def test_each_wrong_value_is_refused_with_a_hint(line: str, message: str, hint: str) -> None:
    found = problems(HEAD + line + "\n")
    assert any(message in str(problem) and hint in problem.hint for problem in found), [str(p) for p in found]
    assert all(problem.location.startswith('policy.toml line 1, rule "r"') for problem in found)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("x = ", "this is not TOML", "correct the line"),
        (HEAD + 'role = "twice"\n', "this is not TOML", "correct the line"),
        ("[[rules]]", '"rules" is not known here', 'did you mean "rule"?'),
        ("version = 2", "version 2 is not known", "version = 1"),
        ("version = true", "version True is not known", "version = 1"),
        ("[rule]", "rules are tables", "[[rule]]"),
        ("rule = [1]", "rules are tables", "[[rule]]"),
        (HEAD.replace('"allow"', '"permit"'), '"permit" is not a known effect', "known: allow, deny"),
        (HEAD.replace('effect = "allow"\n', ""), "the effect is missing", "allow"),
        (HEAD.replace('id = "r"\n', ""), "the id is missing", "every rule has an id"),
        (HEAD.replace('"r"', '"a b"'), "'a b' is not an id", "letters, digits"),
        (HEAD.replace('"r"', "7"), "7 is not text", "quotes"),
        (HEAD.replace("c-store", "c-stroe"), '"c-stroe" is not a known operation', 'did you mean "c-store"?'),
        (HEAD.replace("c-store", "C-STORE"), '"C-STORE" is not a known operation', 'did you mean "c-store"?'),
        (
            HEAD.replace('role = "modality"\n', ""),
            "the rule would allow this to everybody",
            "device, role, site, person or group",
        ),
        (HEAD + HEAD, 'this id is taken by policy.toml line 1, rule "r"', "every id names one rule"),
    ],
)
def test_each_wrong_document_is_refused_with_a_hint(text: str, message: str, hint: str) -> None:
    problem = one_problem(text)
    assert message in problem.message
    assert hint in problem.hint


def test_values_nested_without_end_are_refused() -> None:
    assert "nested too deeply" in one_problem("x = " + "[" * 100_000).message


def test_all_problems_are_reported_at_once_with_their_lines() -> None:
    text = "version = 1\n\n" + HEAD + "\n" + HEAD.replace('"r"', '"s"').replace("c-store", "x") + "y = 1\n"
    found = problems(text + 'role2 = ""\n')
    assert [problem.location for problem in found] == [
        'policy.toml line 9, rule "s", y',
        'policy.toml line 9, rule "s", role2',
        'policy.toml line 9, rule "s", operation',
    ]


def test_a_header_inside_a_text_misleads_nobody() -> None:
    text = HEAD + "description = '''\n[[rule]]\n'''\n" + HEAD.replace('"r"', '"s"') + "x = 1\n"
    assert one_problem(text).location == 'policy.toml, rule "s", x'


def test_a_rule_without_an_id_is_named_by_its_number() -> None:
    assert one_problem(HEAD + "[[rule]]\neffect = 'deny'\n").location == "policy.toml line 6, rule 2, id"


def test_trap_an_empty_list_never_means_everything() -> None:
    for field in ("device", "role", "site", "operation", "sop_class", "service", "archive", "move_destination"):
        text = '[[rule]]\nid = "r"\neffect = "deny"\n' + f"{field} = []\n"
        assert "the list is empty" in one_problem(text).message


def test_keywords_are_read_as_the_uids_of_the_standard() -> None:
    rule = load_one(HEAD.replace("c-store", "c-find") + 'sop_class = "ModalityWorklistInformationModelFind"\n')
    assert rule.sop_classes == one(MODALITY_WORKLIST_FIND)
