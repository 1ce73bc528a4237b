"""`dicomward policy`: run through main, on a directory with settings, a registry snapshot and a policy."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dicomward.cli.common import now
from dicomward.cli.main import main
from dicomward.identity.registry import Archive, Device, DeviceStatus, Endpoint, RegistrySnapshot
from dicomward.identity.registry_json import encode_snapshot
from dicomward.policy.ready import default_policy_text
from dicomward.vocab.principal import Assurance

HERE = Endpoint(host="127.0.0.1", port=4242)
DEVICES = (
    Device(name="CT1", ae_titles=("CT1",), role="modality", site="north", networks=("127.0.0.0/8",)),
    Device(
        name="READER",
        ae_titles=("READER", "READER_STORE"),
        role="workstation",
        site="north",
        networks=("127.0.0.0/8",),
        address=HERE,
    ),
    Device(name="TELE", ae_titles=("TELE",), role="teleradiology", networks=("127.0.0.0/8",)),
    Device(name="OLD", ae_titles=("OLD",), role="modality", networks=("127.0.0.0/8",), status=DeviceStatus.SUSPENDED),
)
PACS = Archive(
    name="pacs", ae_title="ORTHANC", endpoint=HERE, calling_ae_titles=("ORTHANC",), networks=("127.0.0.1/32",)
)
PINNED = Archive(
    name="cloud", ae_title="CLOUD", endpoint=HERE, tls=True, certificate_sha256="0" * 64, networks=("127.0.0.1/32",)
)


class Place:
    """A directory of a gateway, and the command on it."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.policy = directory / "policy.toml"
        self.config = directory / "dicomward.toml"
        self.snapshot = directory / "registry.json"
        self._capsys = capsys
        self.config.write_text("", encoding="utf-8")
        self.policy.write_text(default_policy_text(), encoding="utf-8")
        self.register(PACS)

    def register(self, *archives: Archive) -> None:
        snapshot = RegistrySnapshot(devices=DEVICES, archives=archives, revision=1)
        self.snapshot.write_text(encode_snapshot(snapshot), encoding="utf-8")

    def run(self, *arguments: str) -> tuple[int, str, str]:
        code = main(["policy", *arguments])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def check(self, *arguments: str) -> tuple[int, str, str]:
        return self.run("check", "--config", str(self.config), *arguments)

    def explain(self, device: str, operation: str, sop_class: str, *arguments: str) -> tuple[int, str, str]:
        asked = ("--device", device, "--operation", operation, "--sop-class", sop_class)
        return self.run("explain", "--config", str(self.config), *asked, *arguments)

    def explain_json(self, *arguments: str) -> dict[str, Any]:
        code, out, _ = self.explain(*arguments, "--json")
        assert code == 0
        found: dict[str, Any] = json.loads(out)
        return found


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    return Place(tmp_path, capsys)


# --- check ----------------------------------------------------------------------------------------------


def test_the_default_policy_is_sound(place: Place) -> None:
    code, out, err = place.check()
    assert (code, err) == (0, "")
    assert out.startswith(f"{place.policy}: sound, ")
    assert "warning" not in out


def test_errors_are_printed_with_their_lines_and_fail(place: Place) -> None:
    place.policy.write_text('[[rule]]\nid = "a"\neffect = "permit"\ndevice = []\n', encoding="utf-8")
    code, out, _ = place.check()
    assert code == 1
    assert 'error: policy.toml line 1, rule "a", effect: "permit" is not a known effect' in out
    assert 'error: policy.toml line 1, rule "a", device: the list is empty' in out
    assert out.endswith("2 errors; the gateway would not take this policy\n")


def test_one_error_is_one_error(place: Place) -> None:
    place.policy.write_text("x = 1\n", encoding="utf-8")
    assert ": 1 error; the gateway" in place.check()[1]


def test_a_draft_is_checked_without_any_configuration(place: Place, tmp_path: Path) -> None:
    draft = tmp_path / "draft.toml"
    draft.write_text('[[rule]]\nid = "a"\neffect = "deny"\ndevice = "GONE"\n', encoding="utf-8")
    place.config.unlink()
    assert place.run("check", str(draft))[:2] == (0, place.run("check", str(draft))[1])
    code, out, _ = place.run("check", str(draft), "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["valid"], found["rules"], found["problems"], found["warnings"]) == (True, 1, [], [])
    assert (found["file"], len(found["revision"])) == (str(draft), 16)


def test_names_that_the_registry_does_not_have_are_warned_of(place: Place, tmp_path: Path) -> None:
    draft = tmp_path / "draft.toml"
    draft.write_text(
        '[[rule]]\nid = "a"\neffect = "deny"\ndevice = ["CT1", "CT2", "pacs"]\narchive = ["READER", "CT1"]\n'
        '[[rule]]\nid = "b"\neffect = "deny"\noperation = "c-move"\nmove_destination = ["ORTHANC", "READR"]\n'
        'site = "north"\n',
        encoding="utf-8",
    )
    code, out, _ = place.check(str(draft))
    warnings = [line for line in out.splitlines() if line.startswith("warning")]
    assert code == 0
    assert [line.split(", ", 1)[1].split(" (")[0] for line in warnings] == [
        'rule "a", device: the registry has no device or archive "CT2"',
        'rule "a", archive: the registry has no archive, or device with an address, "CT1"',
        'rule "b", move_destination: the registry has no AE title "READR"',
    ]


def test_without_a_registry_the_policy_is_checked_alone(place: Place) -> None:
    place.snapshot.unlink()
    assert place.check()[0] == 0


def test_problems_as_json(place: Place) -> None:
    place.policy.write_text("x = 1\n", encoding="utf-8")
    code, out, _ = place.check("--json")
    found = json.loads(out)
    assert (code, found["valid"], found["rules"], found["revision"]) == (1, False, 0, None)
    assert found["problems"][0]["location"] == "policy.toml, x"
    assert found["problems"][0]["hint"]


@pytest.mark.parametrize("content", [b"\xff", None])
def test_a_file_that_cannot_be_read_is_a_usage_error(place: Place, content: bytes | None) -> None:
    place.policy.unlink()
    if content is not None:
        place.policy.write_bytes(content)
    code, out, err = place.check()
    assert (code, out) == (2, "")
    assert "policy.toml" in err


def test_a_registry_that_cannot_be_read_is_a_configuration_error(place: Place) -> None:
    place.snapshot.write_text("{", encoding="utf-8")
    assert place.check()[0] == 2


def test_an_action_is_needed(place: Place) -> None:
    assert place.run()[0] == 2


# --- explain --------------------------------------------------------------------------------------------


def test_an_allowed_operation_names_its_rule(place: Place) -> None:
    code, out, err = place.explain("CT1", "c-store", "CTImageStorage", "--archive", "pacs", "--at", "2026-07-01T12:00")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "allow: allowed",
        "rules: modality-store",
        "asked: CT1 as CT1 (role modality, site north, tls-device): c-store of CTImageStorage (service storage) "
        "at pacs, Wed 2026-07-01 12:00",
    ]


def test_a_denial_says_what_would_have_to_change(place: Place) -> None:
    code, out, _ = place.explain("CT1", "c-find", "query")
    assert code == 0
    assert out.startswith("deny: no-matching-rule\nrules: none matched\n")
    assert "to allow it: rule workstation-query would allow it, but role: the rule wants workstation" in out
    assert 'to allow it: or write an allow rule that fits, for example for role "modality"' in out


def test_conditions_on_the_identifier_are_shown_until_it_is_given(place: Place) -> None:
    asked = ("TELE", "c-find", "query")
    _, out, _ = place.explain(*asked)
    assert "allow: allowed (depends on the identifier)" in out
    assert "depends: rule teleradiology-query allows it if the level is IMAGE, SERIES, STUDY and the query has" in out
    given = place.explain_json(*asked, "--level", "STUDY", "--key", "PatientID=4711", "--key", "PatientName=*")
    assert (given["effect"], given["rules"], given["obligations"]) == ("allow", ["teleradiology-query"], [])
    browsing = place.explain_json(*asked, "--level", "STUDY", "--key", "PatientID=*", "--key", "0008,0050=")
    assert browsing["reason"] == "required-keys-missing"
    assert place.explain_json(*asked, "--key", "PatientID")["reason"] == "query-level-not-allowed"


def test_a_move_needs_its_destination(place: Place) -> None:
    asked = ("READER", "c-move", "move")
    own = place.explain_json(*asked, "--destination", "READER_STORE")
    assert (own["effect"], own["request"]["move_destination"]) == ("allow", "READER_STORE")
    code, out, _ = place.explain(*asked, "--destination", "EVIL", "--expect", "deny")
    assert code == 0
    assert "deny: move-destination-not-allowed" in out
    assert " to EVIL at pacs" in out
    assert place.explain(*asked)[0] == 2
    assert place.explain(*asked, "--destination", "A" * 17)[0] == 2
    assert place.explain("READER", "c-find", "query", "--destination", "READER")[0] == 2


@pytest.mark.parametrize(
    ("operation", "sop_class"),
    [
        ("c-echo", "Verification"),
        ("C-STORE", "CTImageStorage"),
        ("c-find", "StudyRootQueryRetrieveInformationModelFind"),
        ("c-get", "StudyRootQueryRetrieveInformationModelGet"),
    ],
)
def test_a_c_operation_is_about_its_usual_sop_class_unless_another_is_named(
    place: Place, operation: str, sop_class: str
) -> None:
    asked = ("explain", "--config", str(place.config), "--device", "CT1", "--operation", operation)
    code, out, _ = place.run(*asked)
    assert code == 0
    assert f"{operation.lower()} of {sop_class} (" in out


def test_an_n_operation_needs_its_sop_class(place: Place) -> None:
    asked = ("explain", "--config", str(place.config), "--device", "CT1", "--operation", "n-create")
    code, out, err = place.run(*asked)
    assert (code, out) == (2, "")
    assert err == "dicomward: --sop-class CLASS is missing: n-create belongs to several services\n"


def test_a_service_in_the_words_of_the_standard_is_met_with_its_name(place: Place) -> None:
    code, _, err = place.explain("CT1", "c-find", "Modality Worklist")
    assert code == 2
    assert "did you mean 'worklist'?" in err


def test_expectations_make_policies_testable(place: Place) -> None:
    asked = ("CT1", "c-echo", "verification")
    assert place.explain(*asked, "--expect", "allow")[0] == 0
    code, out, err = place.explain(*asked, "--expect", "deny")
    assert (code, out.splitlines()[0]) == (1, "allow: allowed")
    assert "expected deny, the decision is allow" in err


def test_time_and_assurance_can_be_chosen(place: Place) -> None:
    place.policy.write_text(
        '[[rule]]\nid = "a"\neffect = "allow"\nsite = "north"\nservice = "verification"\nassurance = "tls-device"\n'
        'time = { from = "08:00", to = "09:00" }\n',
        encoding="utf-8",
    )
    asked = ("CT1", "c-echo", "1.2.840.10008.1.1")
    assert place.explain_json(*asked, "--at", "2026-07-01T08:30")["effect"] == "allow"
    assert place.explain_json(*asked, "--at", "2026-07-01T09:00")["reason"] == "outside-permitted-times"
    weak = place.explain_json(*asked, "--at", "2026-07-01T08:30", "--assurance", "network-pin")
    assert (weak["reason"], weak["near_rules"][0]["mismatches"][0]["field"]) == ("assurance-too-low", "assurance")


def test_without_a_time_it_is_now(place: Place) -> None:
    at = datetime.fromisoformat(place.explain_json("CT1", "c-echo", "verification")["request"]["at"])
    assert abs(now() - at) < timedelta(minutes=5)


def test_archives_are_callers_too(place: Place) -> None:
    place.register(PACS, PINNED)
    pushed = place.explain_json("pacs", "c-store", "storage", "--archive", "READER")
    assert (pushed["effect"], pushed["request"]["role"]) == ("deny", "archive")
    assert pushed["request"]["assurance"] == Assurance.NETWORK_PIN.label
    pinned = place.explain_json("cloud", "c-echo", "verification", "--archive", "READER")
    assert (pinned["effect"], pinned["request"]["assurance"]) == ("allow", "tls-device")
    assert pinned["request"]["calling_ae_title"] == "CLOUD"


def test_the_calling_title_must_be_bound(place: Place) -> None:
    found = place.explain_json("READER", "c-echo", "verification", "--aet", "READER_STORE")
    assert found["request"]["calling_ae_title"] == "READER_STORE"
    code, _, err = place.explain("READER", "c-echo", "verification", "--aet", "CT1")
    assert code == 2
    assert "not bound to READER" in err


def test_a_device_that_is_not_active_is_pointed_out(place: Place) -> None:
    code, out, err = place.explain("OLD", "c-echo", "verification")
    assert (code, out.splitlines()[0]) == (0, "allow: allowed")
    assert "OLD is suspended: the gateway rejects it" in err
    assert "site none" in out


def test_one_archive_needs_no_name_several_do(place: Place) -> None:
    place.register(PACS, PINNED)
    code, _, err = place.explain("CT1", "c-echo", "verification")
    assert code == 2
    assert "--archive NAME" in err
    assert place.explain_json("CT1", "c-echo", "verification", "--archive", "cloud")["effect"] == "allow"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("CT11", "c-echo", "verification"), "the registry has no device 'CT11': did you mean 'CT1'?"),
        (("CT1", "C-ECO", "verification"), "'C-ECO' is not an operation: did you mean 'c-echo'?"),
        (("CT1", "c-echo", "verify"), "'verify' is no SOP class UID, keyword or service"),
        (("CT1", "c-echo", "verification", "--archive", "pcas"), "did you mean 'pacs'?"),
        (("CT1", "c-find", "query", "--key", "PatientId"), '--key: "PatientId" is not the keyword'),
        (("CT1", "c-find", "query", "--at", "noon"), "--at: 'noon' isn't a time"),
    ],
)
def test_what_is_not_known_is_a_usage_error(place: Place, arguments: tuple[str, str, str], message: str) -> None:
    code, out, err = place.explain(*arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_a_policy_with_errors_is_not_explained(place: Place) -> None:
    place.policy.write_text("x = 1\n", encoding="utf-8")
    code, _, err = place.explain("CT1", "c-echo", "verification")
    assert code == 2
    assert "correct them first" in err


def test_as_json_everything_is_there(place: Place) -> None:
    found = place.explain_json("CT1", "c-get", "get")
    assert set(found) == {
        "effect",
        "reason",
        "rules",
        "obligations",
        "detail",
        "policy_revision",
        "request",
        "identifier_conditions",
        "near_rules",
        "changes",
    }
    assert found["near_rules"]
    assert found["changes"]
