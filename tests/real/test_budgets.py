"""Budgets, stripped matches and canaries end to end: DCMTK and pynetdicom, in front of pynetdicom and Orthanc."""

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from tests.real.clients import Dcmtk, Pynetdicom, Stack, data_set_of
from tests.real.gateway import Gateway
from tests.real.hospital import Hospital
from tests.real.recording_archive import STUDY_FIND, RecordingArchive
from tests.real.samples import sample
from tests.real.site import ARCHIVE, IMAGES, start_archive, study_of

CT, MR = sample("CT_small.dcm"), sample("MR_small.dcm")
SETTINGS = """
[budgets.role.narrow]
studies_per_hour = 1
[budgets.role.few]
matches_per_hour = 2
[budgets.role.slow]
patients_per_hour = 1
at_end = "slow"
[[canaries]]
name = "decoy"
patient_id = "4MR1"
"""
STRIPPING = """
[[rule]]
id = "stripped-find"
effect = "allow"
role = "stripped"
operation = "c-find"
service = "query"
strip = ["PatientAddress", "PatientTelephoneNumbers", "OtherPatientIDs", "PatientName"]
"""
ALL = {"QueryRetrieveLevel": "STUDY", "PatientID": "", "StudyInstanceUID": ""}


def prepare(gateway: Gateway) -> None:
    for role in ("narrow", "few", "slow", "tester"):
        gateway.permit_everything_to(role)
    with (gateway.directory / "policy.toml").open("a", encoding="utf-8") as policy:
        policy.write(STRIPPING)
    with gateway.configuration.open("a", encoding="utf-8") as configuration:
        configuration.write(SETTINGS)
    gateway.start()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    with ExitStack() as stack:
        archive = stack.enter_context(RecordingArchive(ARCHIVE))
        for name in IMAGES:
            archive.hold(sample(name))
        gateway = Gateway(tmp_path_factory.mktemp("budgets") / "gateway", archive=ARCHIVE, archive_port=archive.port)
        stack.callback(gateway.stop)
        prepare(gateway)
        yield Hospital(archive, gateway, stack)


def used(gateway: Gateway, device: str, measure: str, period: str = "hour") -> int:
    shown = json.loads(gateway.must("budget", "show", "--device", device, "--json"))
    return next(int(b["used"]) for b in shown["budgets"] if (b["measure"], b["period"]) == (measure, period))


def records(gateway: Gateway, code: str, **wanted: str) -> list[dict[str, Any]]:
    found = gateway.must("audit", "search", "--code", code, "--json").splitlines()
    return [r for line in found if (r := json.loads(line)) and all(r.get(k) == v for k, v in wanted.items())]


@pytest.mark.parametrize("client", [Dcmtk(), Pynetdicom()], ids=lambda client: client.name)
def test_a_query_whose_budget_ends_is_no_success(here: Hospital, client: Stack) -> None:
    name = f"few-{client.name}"
    device = here.device(name, name.upper(), role="few")
    outcome = client.find(device, ALL)
    assert len(outcome.matches) == 2
    assert outcome.statuses != ("Success",)
    assert outcome.statuses[-1] in ("A700", "Refused: OutOfResources")
    assert used(here.gateway, name, "matches") == 2
    again = client.find(device, ALL)
    assert (again.matches, again.statuses) == ((), outcome.statuses)
    assert len(records(here.gateway, "DW-BUDGET-END", device=name)) == 1
    # An operator lets it begin anew.
    assert "are reset" in here.gateway.must("budget", "reset", "--device", name, "--operator", "anna")
    assert used(here.gateway, name, "matches") == 0
    assert len(client.find(device, ALL).matches) == 2
    assert [r["operator"] for r in records(here.gateway, "DW-BUDGET-RESET", device=name)] == ["anna"]


@pytest.mark.parametrize("client", [Dcmtk(), Pynetdicom()], ids=lambda client: client.name)
def test_a_get_whose_budget_ends_is_refused_before_the_archive_is_asked(here: Hospital, client: Stack) -> None:
    name = f"narrow-{client.name}"
    device = here.device(name, f"NARROW{client.name[:4].upper()}", role="narrow")
    assert client.get(device, study_of(CT)).received
    refused = client.get(device, study_of(MR))
    assert (refused.received, "Success" in refused.statuses, "0000" in refused.statuses) == ((), False, False)
    # What counts already can be had again.
    assert client.get(device, study_of(CT)).received
    assert used(here.gateway, name, "studies") == 1


def _retrieve(device: Any, patient_ids: str) -> tuple[list[int], int, int]:
    """C-GET of all that the archive has; return all statuses, and how much was received."""
    from pydicom.uid import UID
    from pynetdicom import build_role, evt

    from tests.real.clients import COMMON_IMAGES, pynetdicom_context
    from tests.real.recording_archive import STUDY_GET, TRANSFER_SYNTAXES

    received: list[str] = []

    def on_store(event: Any) -> int:
        received.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    client = Pynetdicom()
    association = client.associate(
        device,
        [*client.contexts(STUDY_GET), *(pynetdicom_context(uid, TRANSFER_SYNTAXES) for uid in COMMON_IMAGES)],
        ext_neg=[build_role(UID(uid), scp_role=True) for uid in COMMON_IMAGES],
        evt_handlers=[(evt.EVT_C_STORE, on_store)],
    )
    assert association.is_established
    query = data_set_of({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": patient_ids})
    statuses = [status for status, _ in association.send_c_get(query, UID(STUDY_GET))]
    association.release()
    return [status.Status for status in statuses], statuses[-1].get("NumberOfFailedSuboperations", 0), len(received)


def test_a_get_whose_budget_ends_in_the_middle_says_how_much_failed(here: Hospital) -> None:
    device = here.device("middle", "MIDDLE", role="narrow")
    statuses, failed, received = _retrieve(device, "")
    assert statuses[-1] == 0xB000
    assert received >= 1
    assert failed == len(IMAGES) - received


@pytest.mark.parametrize("poor", ["asker", "receiver"])
def test_a_move_counts_for_who_receives_and_who_asks_and_is_no_success_without_budget(
    here: Hospital, poor: str
) -> None:
    roles = {"asker": "tester", "receiver": "tester", poor: "narrow"}
    asker = here.device(f"asker-{poor}", f"ASKER{poor[:3].upper()}", role=roles["asker"])
    title = f"RECV{poor[:3].upper()}"
    _, destination = here.listening_device(f"receiver-{poor}", title, role=roles["receiver"])
    here.archive.destinations[title] = here.gateway.archive_port
    assert Pynetdicom().move(asker, study_of(CT), title).statuses == ("0000",)
    for name in (f"asker-{poor}", f"receiver-{poor}"):
        assert used(here.gateway, name, "studies") == 1
    # A study and a new one: the new one is refused, the other arrives again.
    outcome = Pynetdicom().move(asker, "", title)
    assert outcome.statuses == ("B000",)
    assert {stored.sop_instance_uid for stored in destination.stored} == {CT.sop_instance_uid}
    assert Dcmtk().move(asker, study_of(MR), title).statuses[-1] != "Success"
    assert len(destination.stored) == 2


def test_a_clinical_role_is_warned_and_slowed_down_and_gets_everything(here: Hospital) -> None:
    device = here.device("slow", "SLOW", role="slow")
    outcome = Pynetdicom().find(device, ALL)
    assert outcome.statuses == ("0000",)
    assert len(outcome.matches) == len(Pynetdicom().find(here.direct, ALL).matches) > 2
    (ended,) = records(here.gateway, "DW-BUDGET-END", device="slow")
    assert (ended["measure"], ended["action"], ended["period"]) == ("patients", "slow", "hour")
    assert records(here.gateway, "DW-SEC-ALERT", device="slow", reason="patient-budget")


def test_a_canary_raises_a_security_alert_and_its_value_is_in_no_record(here: Hospital) -> None:
    device = here.device("curious", "CURIOUS")
    assert Pynetdicom().find(device, ALL | {"PatientID": "4MR1"}).statuses == ("0000",)
    assert Dcmtk().get(device, study_of(MR)).received
    alerts = records(here.gateway, "DW-SEC-ALERT", device="curious", reason="canary")
    assert [alert["detail"] for alert in alerts] == [
        "canary 'decoy' went out in a c-find",
        "canary 'decoy' went out in a c-store",
    ]
    assert not any("4MR1" in json.dumps(alert) for alert in alerts)
    assert "4MR1" not in here.gateway.log()


def test_matches_are_stripped_for_a_role_that_does_not_need_them(here: Hospital) -> None:
    record = Dataset()
    record.SpecificCharacterSet = "ISO_IR 100"
    record.QueryRetrieveLevel = "STUDY"
    record.PatientName, record.PatientID, record.StudyInstanceUID = "Doe^Jane", "STRIP1", "1.2.826.0.1.99"
    record.PatientAddress, record.PatientTelephoneNumbers = "1 Main Street", "555-1234"
    here.archive.worklist = [record]
    keys = {"QueryRetrieveLevel": "STUDY", "PatientID": "STRIP1", "PatientName": "", "PatientAddress": ""}
    device = here.device("stripped", "STRIPPED", role="stripped")
    client = Pynetdicom()
    association = client.associate(device, client.contexts(STUDY_FIND))
    responses = list(association.send_c_find(data_set_of(keys), STUDY_FIND))
    association.release()
    assert responses[-1][0].Status == 0
    for status, match in responses[:-1]:
        assert status.Status == 0xFF01
        assert "PatientAddress" not in match
        assert match.PatientName == ""
        assert match.PatientID == "STRIP1"
    denied = client.find(device, keys | {"PatientAddress": "1 M*"})
    assert denied.statuses == ("0124",)


def test_budgets_outlive_a_kill(here: Hospital) -> None:
    device = here.device("survivor", "SURVIVOR", role="few")
    assert len(Pynetdicom().find(device, ALL).matches) == 2
    before = used(here.gateway, "survivor", "matches")
    here.gateway.signal(signal.SIGKILL)
    here.gateway.child.process.wait(20)
    # Without a gateway the command reads the file.
    assert used(here.gateway, "survivor", "matches") == before == 2
    here.gateway.start()
    assert Pynetdicom().find(device, ALL).statuses == ("A700",)


def test_in_front_of_orthanc_too(tmp_path: Path) -> None:
    with ExitStack() as stack:
        archive = start_archive("orthanc", tmp_path / "orthanc", stack, destinations={})
        gateway = Gateway(tmp_path / "gateway", archive=ARCHIVE, archive_port=archive.port)
        stack.callback(gateway.stop)
        prepare(gateway)
        few = gateway.route(gateway.add_device("few", "FEW", role="few"), "FEW")
        outcome = Dcmtk().find(few, ALL)
        assert (len(outcome.matches), outcome.statuses[-1]) == (2, "Refused: OutOfResources")
        narrow = gateway.route(gateway.add_device("narrow", "NARROW", role="narrow"), "NARROW")
        statuses, failed, received = _retrieve(narrow, f"{study_of(CT)}\\{study_of(MR)}")
        assert (statuses[-1], failed, received) == (0xB000, 1, 1)
        stripped = gateway.route(gateway.add_device("stripped", "STRIPPED", role="stripped"), "STRIPPED")
        names = Pynetdicom().find(stripped, ALL | {"PatientName": ""})
        assert names.statuses == ("0000",)
        assert not any("CompressedSamples" in match for match in names.matches)
