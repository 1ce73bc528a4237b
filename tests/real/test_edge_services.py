"""The agent in front of everything: each service passes through, the client stacks see no difference, 64 at once."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import evt

from tests.real.clients import STACKS, Dcmtk, Outcome, Pynetdicom, Stack, data_set_of
from tests.real.edge import Edge, Site, edge_site
from tests.real.hospital import TESTER, direct_route, open_association
from tests.real.interoperability import ALL_STACKS
from tests.real.processes import free_port
from tests.real.raw_store import send_raw_store
from tests.real.recording_archive import COMMITMENT, COMMITMENT_INSTANCE, MPPS, RecordingArchive, storage_contexts
from tests.real.samples import sample
from tests.real.site import IMAGES, SENT, study_of, worklist_item
from tests.real.test_edge_spool import SPOOL, copies, wait_for, wait_until_empty

ALL = ("echo", "store", "find", "worklist", "get")
# `make interoperability` runs every case; otherwise the stacks that take longest to start do two.
EVERY = os.environ.get("DICOMWARD_EDGE_MATRIX") == "every"
CASES = [
    (stack, service, kind)
    for kind in ("spool", "pass-through")
    for stack in (ALL_STACKS if EVERY else STACKS)
    for service in ALL
    if EVERY or service == "store" or (kind == "spool" and stack.name in ("dcmtk", "pynetdicom"))
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with edge_site(tmp_path_factory.mktemp("services")) as here:
        for name in IMAGES:
            here.archive.hold(sample(name))
        here.archive.worklist.append(worklist_item(1))
        yield here


@pytest.fixture(scope="module")
def agents(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Edge]:
    directory = tmp_path_factory.mktemp("agents")
    (directory / "spool-key").write_bytes(bytes(range(32)))
    more = SPOOL.format(alarm=15)
    return {kind: site.edge(directory / kind, store=kind, more=more) for kind in ("spool", "pass-through")}


def done(stack: Stack, service: str, route: Any) -> Outcome:
    match service:
        case "echo":
            return stack.echo(route)
        case "store":
            return stack.store(route, [sample(name) for name in SENT])
        case "find":
            keys = {"QueryRetrieveLevel": "STUDY", "PatientID": "1CT1", "StudyInstanceUID": "", "StudyDate": ""}
            return stack.find(route, keys)
        case "worklist":
            return stack.worklist(route)
    return stack.get(route, study_of(sample("CT_small.dcm")))


@pytest.mark.parametrize(
    "case",
    [each for each in CASES if each[1] in each[0].services],
    ids=lambda case: f"{case[0].name}-{case[1]}-{case[2]}",
)
def test_client_stack_has_the_same_result_through_the_agent(
    site: Site, agents: dict[str, Edge], case: tuple[Stack, str, str]
) -> None:
    stack, service, kind = case
    direct = done(stack, service, direct_route(site.archive, "CT1"))
    assert done(stack, service, agents[kind].route()) == direct
    assert direct.succeeded


def test_images_go_where_the_device_has_them_moved(site: Site, agents: dict[str, Edge]) -> None:
    study = study_of(sample("CT_small.dcm"))
    port = free_port()
    site.gateway.add_device("workstation", "WORKSTATION", role=TESTER, address=port, plain=True)
    with RecordingArchive("WORKSTATION", port=port) as workstation, RecordingArchive("NEAR") as near:
        site.archive.destinations |= {"WORKSTATION": site.gateway.archive_port, "NEAR": near.port}
        for stack, kind in ((Dcmtk(), "spool"), (Pynetdicom(), "pass-through")):
            direct = stack.move(direct_route(site.archive, "CT1"), study, "NEAR")
            assert stack.move(agents[kind].route(), study, "WORKSTATION") == direct
            assert direct.succeeded
        assert len(workstation.stored) == len(near.stored) == 2


@pytest.mark.parametrize("kind", ["spool", "pass-through"])
def test_procedure_step_and_commitment_pass_through(site: Site, agents: dict[str, Edge], kind: str) -> None:
    reports: list[Dataset] = []
    came = threading.Event()

    def reported(event: Any) -> tuple[int, None]:
        reports.append(event.event_information)
        came.set()
        return 0x0000, None

    association = open_association(
        agents[kind].route(), MPPS, COMMITMENT, evt_handlers=[(evt.EVT_N_EVENT_REPORT, reported)]
    )
    step = UID(f"2.25.{len(site.archive.created) + 1}")
    begun = data_set_of({"PerformedProcedureStepStatus": "IN PROGRESS", "Modality": "CT"})
    assert association.send_n_create(begun, UID(MPPS), step)[0].Status == 0x0000
    ended = data_set_of({"PerformedProcedureStepStatus": "COMPLETED"})
    assert association.send_n_set(ended, UID(MPPS), step)[0].Status == 0x0000
    assert site.archive.created[step].PerformedProcedureStepStatus == "COMPLETED"
    information = Dataset()
    information.TransactionUID = f"{step}.1"
    item = Dataset()
    image = sample("CT_small.dcm")
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.sop_class_uid, image.sop_instance_uid
    information.ReferencedSOPSequence = [item]
    status, _ = association.send_n_action(information, 1, UID(COMMITMENT), UID(COMMITMENT_INSTANCE))
    assert status.Status == 0x0000
    assert came.wait(10)
    assert reports[0].TransactionUID == information.TransactionUID
    association.release()


def test_64_associations_at_once_from_the_device(site: Site, agents: dict[str, Edge], tmp_path: Path) -> None:
    samples = copies(tmp_path / "images", 64)
    with ExitStack() as stack:
        associations = []
        for _ in range(64):
            association = Pynetdicom().associate(agents["spool"].route(), storage_contexts(samples))
            assert association.is_established
            stack.callback(association.release)
            associations.append(association)
        # All are open, and each stores: none waits for another.
        assert [
            send_raw_store(association, each, 1) for association, each in zip(associations, samples, strict=True)
        ] == [0] * 64
    wait_for(site, samples)
    wait_until_empty(agents["spool"])
