"""A hospital's day is observed, the rules are suggested and enforced: nothing legitimate is refused, every attack is.

The devices: a CT over TLS (worklist, MPPS, exam, storage commitment with its report on a reverse association), an
ultrasound in a legacy zone, a workstation (query, prior fetch by C-MOVE to itself, C-GET), and an Orthanc that routes.
"""

import json
import struct
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
from pydicom import Dataset
from pydicom.uid import UID

from tests.real import raw_peer as raw
from tests.real.clients import Dcmtk, Outcome, Pynetdicom, Route, data_set_of, refused
from tests.real.gateway import Gateway
from tests.real.hospital import Hospital, credentials_of, open_association
from tests.real.pki import Authority, Credentials
from tests.real.processes import LOOPBACK, free_port
from tests.real.recording_archive import (
    COMMITMENT,
    COMMITMENT_INSTANCE,
    GRAYSCALE_PRINT,
    MPPS,
    PRIVATE_SOP_CLASS,
    STUDY_FIND,
    STUDY_GET,
    VERIFICATION,
    RecordingArchive,
)
from tests.real.samples import sample
from tests.real.servers import Orthanc
from tests.real.site import ARCHIVE, study_of, worklist_item

CT, US, MR = sample("CT_small.dcm"), sample("US1_J2KR.dcm"), sample("MR_small.dcm")
STUDIES_IN_BULK: Final = 40

SETTINGS: Final = """
[[legacy_zones]]
name = "old"
listen = "{host}:{port}"
networks = ["127.0.0.0/8"]
end_date = 2099-12-31

[limits.role.workstation]
matches_per_query = 20
"""

Step = Callable[[], bool]
Attack = Callable[[], bool]


@dataclass(slots=True)
class Department:
    """The hospital, and each device's way through the gateway."""

    hospital: Hospital
    directory: Path
    ct: Route
    ct_listener: RecordingArchive
    ultrasound: Route
    workstation: Route
    workstation_listener: RecordingArchive
    router: Orthanc
    router_route: Route
    instances: int = 0

    @property
    def gateway(self) -> Gateway:
        return self.hospital.gateway

    @property
    def archive(self) -> RecordingArchive:
        return self.hospital.archive

    def new_uid(self) -> str:
        """Return a UID that no step had before."""
        self.instances += 1
        return f"1.2.826.0.1.3680043.10.543.70.{self.instances}"


DEVICES: Final = ("ct1", "us1", "ws1", "router")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Department]:
    """A gateway whose policy allows nothing at all, and the department in front of it."""
    directory = tmp_path_factory.mktemp("day")
    with ExitStack() as stack:
        archive = stack.enter_context(RecordingArchive(ARCHIVE))
        archive.worklist = [worklist_item(number) for number in (1, 2, 3)]
        archive.hold(MR)
        gateway = Gateway(directory / "gateway", archive=ARCHIVE, archive_port=archive.port)
        stack.callback(gateway.stop)
        zone = free_port()
        with gateway.configuration.open("a", encoding="utf-8") as settings:
            settings.write(SETTINGS.format(host=LOOPBACK, port=zone))
        (gateway.directory / "policy.toml").write_text("version = 1\n")
        running = Hospital(archive, gateway, stack)
        ct, ct_listener = running.listening_device("ct1", "CT1", role="modality")
        workstation, workstation_listener = running.listening_device("ws1", "WS1", role="workstation")
        legacy = ("--aet", "US1", "--role", "modality", "--network", LOOPBACK, "--legacy", "old")
        gateway.must("device", "add", "us1", *legacy)
        credentials = gateway.add_device("router", "ROUTER", role="uploader", key="rsa")
        gateway.start()
        archive.destinations["WS1"] = gateway.archive_port
        archive.commitment_reports_to = ("CT1", gateway.archive_port)
        router = Orthanc(
            "ROUTER",
            directory / "router",
            modalities={},
            credentials=credentials,
            tls_modalities={ARCHIVE: gateway.port},
        )
        stack.callback(router.stop)
        yield Department(
            hospital=running,
            directory=directory,
            ct=ct,
            ct_listener=ct_listener,
            ultrasound=Route(port=zone, calling_ae_title="US1", called_ae_title=ARCHIVE),
            workstation=workstation,
            workstation_listener=workstation_listener,
            router=router,
            router_route=gateway.route(credentials, "ROUTER"),
        )


# --- the day ---------------------------------------------------------------------------------------------------------


def _procedure_step(route: Route, uid: str) -> bool:
    """N-CREATE as the patient comes, N-SET as the examination ends."""
    association = open_association(route, MPPS)
    created = data_set_of({"PerformedProcedureStepStatus": "IN PROGRESS", "PerformedProcedureStepID": "1"})
    completed = data_set_of({"PerformedProcedureStepStatus": "COMPLETED"})
    begun, _ = association.send_n_create(created, UID(MPPS), UID(uid))
    ended, _ = association.send_n_set(completed, UID(MPPS), UID(uid))
    association.release()
    return bool(begun.get("Status") == 0 and ended.get("Status") == 0)


def _commitment(here: Department, uid: str) -> bool:
    """Ask for commitment and go; the report comes on an association that the archive opens."""
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT.sop_class_uid, CT.sop_instance_uid
    request = Dataset()
    request.TransactionUID, request.ReferencedSOPSequence = uid, [reference]
    before = len(here.archive.report_statuses)
    association = open_association(here.ct, COMMITMENT)
    status, _ = association.send_n_action(request, 1, UID(COMMITMENT), UID(COMMITMENT_INSTANCE))
    association.release()
    told = here.archive.wait_until(lambda: len(here.archive.report_statuses) > before)
    reported = [m for m in here.ct_listener.messages if m.operation == "N-EVENT-REPORT"]
    return bool(status.get("Status") == 0 and told and here.archive.report_statuses[-1] == 0 and reported)


def _prior(here: Department) -> bool:
    before = len(here.workstation_listener.stored)
    moved = Pynetdicom().move(here.workstation, study_of(MR), "WS1")
    return moved.succeeded and len(here.workstation_listener.stored) == before + 1


def _get(here: Department) -> bool:
    got = Pynetdicom().get(here.workstation, study_of(MR))
    return got.succeeded and len(got.received) == 1


def _rest(router: Orthanc, path: str, body: bytes) -> Any:
    url = f"http://{LOOPBACK}:{router.http_port}{path}"
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=60) as answer:
        return json.load(answer)


def _route(here: Department) -> bool:
    """What came to the router by the back door goes on to the archive."""
    before = len(here.archive.stored)
    kept = _rest(here.router, "/instances", CT.path.read_bytes())
    sent = _rest(here.router, f"/modalities/{ARCHIVE.lower()}/store", json.dumps(kept["ID"]).encode())
    return sent["FailedInstancesCount"] == 0 and len(here.archive.stored) == before + 1


def _query(route: Route, **keys: str) -> bool:
    return Dcmtk().find(route, {"StudyInstanceUID": "", **keys}).statuses[-1:] == ("Success",)


def day(here: Department) -> dict[str, Step]:
    """What the devices do on an ordinary day, each with whether it worked."""
    dcmtk = Dcmtk()
    return {
        "CT: echo": lambda: dcmtk.echo(here.ct).succeeded,
        "CT: worklist": lambda: len(dcmtk.worklist(here.ct).matches) == 3,
        "CT: procedure step": lambda: _procedure_step(here.ct, here.new_uid()),
        "CT: exam": lambda: dcmtk.store(here.ct, [CT]).succeeded,
        "CT: commitment": lambda: _commitment(here, here.new_uid()),
        "ultrasound: echo": lambda: dcmtk.echo(here.ultrasound).succeeded,
        "ultrasound: worklist": lambda: len(dcmtk.worklist(here.ultrasound).matches) == 3,
        "ultrasound: exam": lambda: Pynetdicom().store(here.ultrasound, [US]).succeeded,
        "workstation: studies": lambda: _query(here.workstation, QueryRetrieveLevel="STUDY", PatientID="4MR1"),
        "workstation: series": lambda: _query(
            here.workstation, QueryRetrieveLevel="SERIES", StudyInstanceUID=study_of(MR), SeriesInstanceUID=""
        ),
        "workstation: priors": lambda: _prior(here),
        "workstation: retrieve": lambda: _get(here),
        "router: echo": lambda: _rest(here.router, f"/modalities/{ARCHIVE.lower()}/echo", b"{}") == {},
        "router: exam": lambda: _route(here),
    }


def failed(steps: dict[str, Step]) -> list[str]:
    return [name for name, step in steps.items() if not step()]


# --- the attacks -----------------------------------------------------------------------------------------------------


def _kept_out(outcome: Outcome) -> bool:
    """DCMTK's exit code says nothing of a refused query, nor of a context that it didn't get."""
    done = {"Success", "0000"}
    successes = [status for status in outcome.statuses if status in done or status.startswith("Success")]
    return not successes and not outcome.matches and not outcome.received


def _may(route: Route, sop_class: str) -> bool:
    """Say if a context is accepted beside that of C-ECHO."""
    client = Pynetdicom()
    association = client.associate(route, client.contexts(VERIFICATION, sop_class))
    assert association.is_established
    accepted = {context.abstract_syntax for context in association.accepted_contexts}
    association.release()
    return sop_class in accepted


def _plaintext(here: Department) -> bool:
    return not Pynetdicom().echo(replace(here.ct, credentials=None)).succeeded


def _from_elsewhere(here: Department) -> bool:
    """The ultrasound's title from another address of the same network."""
    client = Pynetdicom()
    contexts = client.contexts(VERIFICATION)
    association = client.associate(here.ultrasound, contexts, bind_address=("127.0.0.9", 0))
    return not association.is_established and not refused(association).succeeded


def _deletes(here: Department) -> bool:
    """N-DELETE in a context that the device has: the service has none."""
    association = open_association(here.ct, MPPS)
    status = association.send_n_delete(UID(MPPS), UID(here.new_uid())).get("Status")
    if association.is_established:
        association.release()
    return status != 0 and not [m for m in here.archive.messages if m.operation == "N-DELETE"]


def _malformed(route: Route, *bytes_sent: bytes) -> bool:
    """Nothing of it reaches the archive, and the association is over."""
    contexts: raw.Contexts = {1: (VERIFICATION, [raw.IMPLICIT])}
    with raw.connect(route) as device:
        device.send(raw.request_on(route, contexts))
        device.expect(raw.ASSOCIATE_AC)
        device.send(*bytes_sent)
        return [each.kind for each in device.rest()] == [raw.ABORT]


def _wrong_class(here: Department) -> bool:
    """An MR image in the context of CT images."""
    contexts: raw.Contexts = {3: (CT.sop_class_uid, [CT.transfer_syntax_uid])}
    before = len(here.archive.stored)
    request: dict[int, raw.Value] = {
        raw.AFFECTED_SOP_CLASS_UID: MR.sop_class_uid,
        raw.COMMAND_FIELD: raw.C_STORE,
        raw.MESSAGE_ID: 1,
        raw.PRIORITY: 0,
        raw.DATA_SET_TYPE: raw.WITH_DATA_SET,
        raw.AFFECTED_SOP_INSTANCE_UID: MR.sop_instance_uid,
    }
    with raw.connect(here.ct) as device:
        device.send(raw.request_on(here.ct, contexts))
        device.expect(raw.ASSOCIATE_AC)
        device.send(raw.command(3, request), raw.p_data(3, MR.data_set[:4000], command=False))
        answer = device.receive()
    worked = answer is not None and answer.kind == raw.P_DATA and struct.pack("<HHIH", 0, 0x900, 2, 0) in answer.body
    return not worked and len(here.archive.stored) == before


def _image_of_the_wrong_uid(here: Department) -> bool:
    """The command says one SOP Instance UID, the data set another: an image that would land elsewhere."""
    contexts: raw.Contexts = {3: (CT.sop_class_uid, [CT.transfer_syntax_uid])}
    request: dict[int, raw.Value] = {
        raw.AFFECTED_SOP_CLASS_UID: CT.sop_class_uid,
        raw.COMMAND_FIELD: raw.C_STORE,
        raw.MESSAGE_ID: 1,
        raw.PRIORITY: 0,
        raw.DATA_SET_TYPE: raw.WITH_DATA_SET,
        raw.AFFECTED_SOP_INSTANCE_UID: "1.2.826.0.1.3680043.10.543.99.99",
    }
    before = len(here.archive.stored)
    with raw.connect(here.ct) as device:
        device.send(raw.request_on(here.ct, contexts))
        device.expect(raw.ASSOCIATE_AC)
        device.send(raw.command(3, request), raw.p_data(3, CT.data_set[:8000], command=False))
        answer = device.receive()
    worked = answer is not None and answer.kind == raw.P_DATA and struct.pack("<HHIH", 0, 0x900, 2, 0) in answer.body
    return not worked and len(here.archive.stored) == before


def _bulk(here: Department) -> bool:
    """A query for everything: it never ends in a success, and gets no more matches than the limit."""
    outcome = Pynetdicom().find(here.workstation, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""})
    return not outcome.succeeded and len(outcome.matches) <= 20


def _thief(here: Department) -> bool:
    """A destination that the registry knows, and one that only the archive knows."""
    client = Pynetdicom()
    known = client.move(here.workstation, study_of(MR), "CT1")
    unknown = client.move(here.workstation, study_of(MR), "THIEF")
    return _kept_out(known) and _kept_out(unknown) and not here.ct_listener.stored


def _stolen_association_of_the_archive(here: Department) -> bool:
    """Who speaks as the archive pushes nothing into a device, and reports no commitment that nobody asked for."""
    route = Route(port=here.gateway.archive_port, calling_ae_title=ARCHIVE, called_ae_title="WS1")
    before = len(here.workstation_listener.stored)
    return not Pynetdicom().store(route, [MR]).succeeded and len(here.workstation_listener.stored) == before


def attacks(here: Department, other: Route, foreign: Credentials) -> dict[str, Attack]:
    """What somebody does who is in the network, or has a device's key; each with whether it was kept out."""
    dcmtk, client = Dcmtk(), Pynetdicom()
    study = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "", "PatientID": "4MR1"}
    return {
        "title of another device": lambda: _kept_out(client.echo(replace(other, calling_ae_title="CT1"))),
        "title that nobody has": lambda: _kept_out(client.echo(replace(other, calling_ae_title="NOBODY"))),
        "archive that nobody has": lambda: _kept_out(client.echo(replace(here.ct, called_ae_title="NOWHERE"))),
        "foreign certificate": lambda: _kept_out(client.echo(replace(here.ct, credentials=foreign))),
        "plaintext to the TLS port": lambda: _plaintext(here),
        "TLS device in the legacy zone": lambda: _kept_out(
            dcmtk.echo(replace(here.ct, port=here.ultrasound.port, credentials=None))
        ),
        "legacy title from another address": lambda: _from_elsewhere(here),
        "registered, and without rules": lambda: _kept_out(client.echo(other)),
        "another device's worklist query": lambda: _kept_out(client.worklist(other)),
        "scanner that searches": lambda: _kept_out(dcmtk.find(here.ct, study)),
        "scanner that retrieves": lambda: not _may(here.ct, STUDY_GET),
        "ultrasound that searches": lambda: _kept_out(dcmtk.find(here.ultrasound, study)),
        "router that searches": lambda: _kept_out(client.find(here.router_route, study)),
        "router that moves": lambda: _kept_out(client.move(here.router_route, study_of(MR), "WS1")),
        "workstation that stores": lambda: _kept_out(client.store(here.workstation, [MR])),
        "workstation that reads the worklist": lambda: _kept_out(client.worklist(here.workstation)),
        "levels that were not seen": lambda: _kept_out(
            client.find(here.workstation, {"QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": study_of(MR)})
        ),
        "move to a thief": lambda: _thief(here),
        "query for everything": lambda: _bulk(here),
        "class that was not seen": lambda: _kept_out(dcmtk.store(here.ct, [MR])),
        "class that isn't the context's": lambda: _wrong_class(here),
        "UID that isn't the image's": lambda: _image_of_the_wrong_uid(here),
        "services that nobody uses": lambda: (
            not _may(here.ct, PRIVATE_SOP_CLASS) and not _may(here.ct, GRAYSCALE_PRINT)
        ),
        "N-DELETE in the context of MPPS": lambda: _deletes(here),
        "images as if from the archive": lambda: _stolen_association_of_the_archive(here),
        "oversized PDU": lambda: _malformed(here.ct, struct.pack(">BBI", raw.P_DATA, 0, 0xFFFFFFF0)),
        "unknown PDU": lambda: _malformed(here.ct, raw.pdu(0x2A, b"what")),
        "PDV beyond its PDU": lambda: _malformed(
            here.ct, raw.pdu(raw.P_DATA, struct.pack(">IBB", 4000, 1, 0) + b"short")
        ),
        "garbage for a command": lambda: _malformed(here.ct, raw.p_data(1, b"\xff" * 40, command=True)),
    }


# --- observe, suggest, enforce ---------------------------------------------------------------------------------------

TESTS: Final = """
policy = "suggested.toml"

[device.ct1]
role = "modality"
ae_titles = ["CT1"]

[device.ws1]
role = "workstation"
ae_titles = ["WS1"]

[[test]]
name = "the day goes on"
expect = "allow"
archive = "ARCHIVE"
cases = [
  { device = "ct1", operation = "c-store", sop_class = "CTImageStorage" },
  { device = "ct1", operation = "c-find", service = "worklist" },
  { device = "ct1", operation = ["n-create", "n-set"], service = "mpps" },
]

[[test]]
name = "studies that are named are fetched"
expect = "allow"
archive = "ARCHIVE"
keys = ["StudyInstanceUID=1.2.3"]
cases = [
  { device = "ws1", operation = "c-move", service = "move", level = "STUDY", move_destination = "WS1" },
]

[[test]]
name = "and no others"
reason = "required-keys-missing"
archive = "ARCHIVE"
keys = ["StudyInstanceUID=*"]
cases = [
  { device = "ws1", operation = "c-move", service = "move", level = "STUDY", move_destination = "WS1" },
]

[[test]]
name = "and nothing else"
reason = "no-matching-rule"
archive = "ARCHIVE"
cases = [
  { device = "ct1", operation = "c-store", sop_class = "MRImageStorage" },
  { device = "ws1", operation = "c-store", sop_class = "MRImageStorage" },
]
"""


def denials(gateway: Gateway, since: int) -> list[tuple[str, str, str]]:
    """Return who was refused what after a record of the log, and why."""
    return [
        (str(each.get("device")), str(each.get("operation")), str(each["reason"]))
        for each in gateway.audit()
        if each["code"] in {"DW-ASSOC-DENY", "DW-OP-DENY"} and each["seq"] > since
    ]


def last(gateway: Gateway) -> int:
    return int(gateway.audit()[-1]["seq"])


def test_day_is_observed_suggested_and_enforced(here: Department, authority: Authority) -> None:
    gateway = here.gateway
    other = here.hospital.device("ct2", "CT2", role="modality")
    # The policy is empty: nothing passes until a device is observed.
    assert not Pynetdicom().echo(here.ct).succeeded
    for name in DEVICES:
        gateway.must("device", "observe", name, "--until", "1d")
    before = last(gateway)
    assert failed(day(here)) == []
    assert denials(gateway, before) == []
    assert not Pynetdicom().echo(other).succeeded

    # Suggest, each device; one policy of it all.
    rules = []
    for name in DEVICES:
        suggested = here.directory / f"{name}.toml"
        gateway.must("policy", "suggest", "--device", name, "--out", suggested)
        gateway.must("policy", "check", suggested)
        rules.append(suggested.read_text("utf-8").split("[[rule]]", 1)[1])
    policy = here.directory / "suggested.toml"
    policy.write_text("version = 1\n\n[[rule]]" + "\n[[rule]]".join(rules), "utf-8")
    gateway.must("policy", "check", policy)
    (here.directory / "suggested.test.toml").write_text(TESTS, "utf-8")
    gateway.must("policy", "test", here.directory / "suggested.test.toml")

    # Enforce: the same day again, from another patient to another report.
    (gateway.directory / "policy.toml").write_text(policy.read_text("utf-8"), "utf-8")
    gateway.must("reload")
    for name in DEVICES:
        gateway.must("device", "enforce", name)
    observed = len(gateway.audit("--code", "DW-OBSERVED"))
    before = last(gateway)
    assert failed(day(here)) == []
    assert denials(gateway, before) == []
    assert len(gateway.audit("--code", "DW-OBSERVED")) == observed

    # The attacks.
    for number in range(STUDIES_IN_BULK):
        uid = f"1.2.826.0.1.3680043.10.543.71.{number}"
        here.archive.instances[uid] = data_set_of({"PatientID": f"B{number}", "StudyInstanceUID": uid})
    foreign = replace(authority.issue("day-foreign"), authority=credentials_of(here.ct).authority)
    stored, created = len(here.archive.stored), len(here.archive.created)
    got_in = [name for name, attack in attacks(here, other, foreign).items() if not attack()]
    assert got_in == []
    assert (len(here.archive.stored), len(here.archive.created)) == (stored, created)
    assert {
        "calling-ae-title-not-bound",
        "called-ae-title-unknown",
        "network-not-allowed",
        "not-tls",
        "no-permitted-context",
        "required-keys-missing",
        "query-level-not-allowed",
    } <= gateway.reasons()

    # Suspended, it is out; what it had open is gone. Resumed, it works as before.
    held = open_association(here.workstation, STUDY_FIND)
    gateway.must("device", "suspend", "ws1")
    held.join(10)
    assert not held.is_established
    assert _kept_out(Pynetdicom().find(here.workstation, {"QueryRetrieveLevel": "STUDY", "PatientID": "4MR1"}))
    gateway.must("device", "resume", "ws1")
    here.archive.instances = {MR.sop_instance_uid: here.archive.instances[MR.sop_instance_uid]}
    assert _query(here.workstation, QueryRetrieveLevel="STUDY", PatientID="4MR1")
    assert "good" in gateway.must("audit", "verify")
