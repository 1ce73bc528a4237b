"""A device that stores, verifies, asks for its worklist and for a commitment on one association, through its agent."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import build_role, evt

from tests.real.clients import Pynetdicom, data_set_of, pynetdicom_context
from tests.real.edge import Edge, Site, edge_site
from tests.real.line import Line
from tests.real.raw_store import send_raw_store
from tests.real.recording_archive import (
    COMMITMENT,
    COMMITMENT_INSTANCE,
    MPPS,
    PRIVATE_SOP_CLASS,
    STUDY_GET,
    VERIFICATION,
    WORKLIST,
    storage_contexts,
)
from tests.real.samples import Sample
from tests.real.site import worklist_item
from tests.real.test_edge_spool import SPOOL, copies, files, wait_for, wait_until_empty


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with edge_site(tmp_path_factory.mktemp("mixed")) as here:
        here.archive.worklist.append(worklist_item(1))
        yield here


@pytest.fixture
def line(site: Site) -> Iterator[Line]:
    line = Line(site.gateway.port)
    yield line
    line.close()


def spooling(site: Site, directory: Path, line: Line) -> Edge:
    (directory / "spool-key").write_bytes(bytes(range(32)))
    return site.edge(directory / "edge", upstream=line.port, store="spool", more=SPOOL.format(alarm=15))


class Device:
    """One association with everything on it."""

    def __init__(self, edge: Edge, samples: list[Sample]) -> None:
        client = Pynetdicom()
        self.reports: list[Dataset] = []
        self.changed = threading.Condition()
        contexts = [*storage_contexts(samples), *client.contexts(VERIFICATION, WORKLIST, MPPS, COMMITMENT)]
        self.association = client.associate(
            edge.route(), contexts, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._reported)]
        )
        assert self.association.is_established

    def _reported(self, event: Any) -> tuple[int, None]:
        with self.changed:
            self.reports.append(event.event_information)
            self.changed.notify_all()
        return 0x0000, None

    def accepted(self) -> set[str]:
        return {str(each.abstract_syntax) for each in self.association.accepted_contexts}

    def store(self, samples: list[Sample]) -> list[int | None]:
        return [send_raw_store(self.association, each, number) for number, each in enumerate(samples, 1)]

    def worklist(self) -> list[Dataset]:
        query = data_set_of({"PatientName": "", "PatientID": ""})
        answers = list(self.association.send_c_find(query, UID(WORKLIST)))
        assert answers[-1][0].Status == 0x0000
        return [identifier for _status, identifier in answers if identifier is not None]

    def ask_for_commitment(self, samples: list[Sample]) -> int | None:
        information = Dataset()
        information.TransactionUID = "2.25.1"
        information.ReferencedSOPSequence = []
        for each in samples:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = each.sop_class_uid, each.sop_instance_uid
            information.ReferencedSOPSequence.append(item)
        status, _ = self.association.send_n_action(information, 1, UID(COMMITMENT), UID(COMMITMENT_INSTANCE))
        number: int | None = status.get("Status")
        return number


def test_every_service_on_one_association_and_objects_go_to_the_spool(site: Site, line: Line, tmp_path: Path) -> None:
    edge = spooling(site, tmp_path, line)
    samples = copies(tmp_path / "images", 4)
    device = Device(edge, samples)
    assert device.association.send_c_echo().Status == 0x0000
    assert device.store(samples[:2]) == [0, 0]
    assert [str(each.PatientID) for each in device.worklist()] == ["P1"]
    attributes = data_set_of({"PerformedProcedureStepStatus": "IN PROGRESS", "Modality": "CT"})
    status, _ = device.association.send_n_create(attributes, UID(MPPS), UID("2.25.2"))
    assert status.Status == 0x0000
    assert device.store(samples[2:]) == [0, 0]
    # It is answered when the archive has everything, and by the archive.
    assert device.ask_for_commitment(samples) == 0x0000
    assert {each.sop_instance_uid for each in samples} <= {each.sop_instance_uid for each in site.archive.stored}
    with device.changed:
        assert device.changed.wait_for(lambda: device.reports, timeout=10)
    assert device.reports[0].TransactionUID == "2.25.1"
    device.association.release()
    assert device.association.is_released
    wait_until_empty(edge)
    allowed = site.gateway.audit("--code", "DW-OP-ALLOW", "--device", "ct1")
    assert {"c-store", "c-find", "n-create", "n-action"} <= {each["operation"] for each in allowed}


def test_line_that_is_cut_in_between_does_not_stop_storing(site: Site, line: Line, tmp_path: Path) -> None:
    edge = spooling(site, tmp_path, line)
    samples = copies(tmp_path / "images", 4)
    device = Device(edge, samples)
    assert device.store(samples[:1]) == [0]
    wait_for(site, samples[:1])
    wait_until_empty(edge)
    line.cut()
    assert device.store(samples[1:3]) == [0, 0]
    assert len(files(edge, "ready")) == 2
    # Without the line the other services aren't there; who only stores doesn't notice.
    offline = Device(edge, samples)
    assert offline.accepted() == {samples[0].sop_class_uid, VERIFICATION}
    assert offline.association.send_c_echo().Status == 0x0000
    assert offline.store(samples[3:]) == [0]
    offline.association.release()
    line.mend()
    # The association with the archive is made anew when it is needed.
    assert [str(each.PatientID) for each in device.worklist()] == ["P1"]
    device.association.release()
    wait_for(site, samples)
    wait_until_empty(edge)


def test_class_in_both_roles_is_spooled_one_way_and_passes_the_other(site: Site, line: Line, tmp_path: Path) -> None:
    edge = spooling(site, tmp_path, line)
    client = Pynetdicom()
    (image,) = copies(tmp_path / "images", 1)
    storage = [pynetdicom_context(image.sop_class_uid, [image.transfer_syntax_uid])]
    contexts = [*storage, *client.contexts(PRIVATE_SOP_CLASS, STUDY_GET)]
    role = build_role(UID(image.sop_class_uid), scu_role=True, scp_role=True)
    received: list[str] = []

    def on_store(event: Any) -> int:
        received.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    association = client.associate(edge.route(), contexts, ext_neg=[role], evt_handlers=[(evt.EVT_C_STORE, on_store)])
    assert association.is_established
    # The same class in both roles: what the device stores is spooled, what it retrieves passes through.
    assert send_raw_store(association, image, 1) == 0
    wait_for(site, [image])
    site.archive.hold(image)
    keys = {"QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": image.sop_instance_uid}
    statuses = [each[0].Status for each in association.send_c_get(data_set_of(keys), UID(STUDY_GET))]
    assert statuses[-1] == 0x0000
    assert received == [image.sop_instance_uid]
    status, _ = association.send_n_get([0x00100010], UID(PRIVATE_SOP_CLASS), UID("2.25.3"))
    assert status.Status == 0x0112
    association.release()
