"""Each storable file of pydicom and pydicom-data passes the gateway and arrives bit by bit, in its own syntax."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.clients import Dcmtk, Pynetdicom, Route
from tests.real.gateway import Gateway
from tests.real.hospital import Hospital, hospital
from tests.real.raw_store import send_raw_store
from tests.real.recording_archive import RecordingArchive, storage_contexts
from tests.real.samples import Sample, all_samples, sample
from tests.real.servers import StoreScp

SAMPLES = list(all_samples())
# Of pydicom 3.0.2 and pydicom-data 1.0.0; docs/relay.md says what is left out.
STORABLE = 250


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    with hospital(tmp_path_factory.mktemp("bits")) as running:
        yield running


@pytest.fixture(scope="module")
def scanner(here: Hospital) -> Route:
    return here.device("scanner", "SCANNER")


def _send_all(route: Route, archive: RecordingArchive, samples: list[Sample]) -> dict[str, str]:
    """Send the samples on one association; return what went wrong by file name."""
    archive.stored.clear()
    association = Pynetdicom().associate(route, storage_contexts(samples))
    assert association.is_established
    statuses: list[int | None] = []
    for number, each in enumerate(samples, 1):
        # What comes after the end of an association can't be sent.
        statuses.append(send_raw_store(association, each, number) if association.is_established else None)
    association.release()
    wrong = {}
    arrived = iter(archive.stored)
    for each, status in zip(samples, statuses, strict=True):
        stored = next(arrived, None)
        if status != 0 or stored is None:
            wrong[each.name] = f"status {status}"
        elif (stored.sop_instance_uid, stored.transfer_syntax_uid) != (each.sop_instance_uid, each.transfer_syntax_uid):
            wrong[each.name] = f"arrived as {stored.sop_instance_uid} in {stored.transfer_syntax_uid}"
        elif stored.data_set != each.data_set:
            wrong[each.name] = f"{len(each.data_set)} bytes sent, {len(stored.data_set)} arrived, not equal"
    return wrong


def test_there_are_many_real_files_in_many_transfer_syntaxes() -> None:
    assert len(SAMPLES) == STORABLE
    assert len({each.transfer_syntax_uid for each in SAMPLES}) >= 12


def test_direct_pair_keeps_every_bit() -> None:
    with RecordingArchive("ARCHIVE") as archive:
        route = Route(port=archive.port, calling_ae_title="SCANNER", called_ae_title="ARCHIVE")
        assert _send_all(route, archive, SAMPLES) == {}


def test_pair_through_the_gateway_keeps_every_bit(here: Hospital, scanner: Route) -> None:
    assert _send_all(scanner, here.archive, SAMPLES) == {}


def test_every_file_on_an_association_of_its_own_keeps_every_bit(here: Hospital, scanner: Route) -> None:
    by_syntax = {each.transfer_syntax_uid: each for each in SAMPLES}
    for each in by_syntax.values():
        assert _send_all(scanner, here.archive, [each]) == {}


@pytest.mark.parametrize("name", ["SC_rgb.dcm", "MR-SIEMENS-DICOM-WithOverlays.dcm"])
def test_storescu_through_the_gateway_to_storescp_keeps_every_bit(tmp_path: Path, name: str) -> None:
    image = sample(name)
    server = StoreScp("ARCHIVE", tmp_path / "storescp")
    gateway = Gateway(tmp_path / "gateway", archive="ARCHIVE", archive_port=server.port)
    try:
        gateway.permit_everything_to("tester")
        credentials = gateway.add_device("scanner", "SCANNER", role="tester")
        gateway.start()
        outcome = Dcmtk().store(gateway.route(credentials, "SCANNER"), [image])
    finally:
        gateway.stop()
        server.stop()
    assert outcome.succeeded, (outcome, gateway.log())
    kept = server.kept()
    assert len(kept) == 1
    assert kept[0].data_set == image.data_set
    assert kept[0].transfer_syntax_uid == image.transfer_syntax_uid


def test_a_large_image_passes_in_bounded_memory(here: Hospital, scanner: Route) -> None:
    large = max(SAMPLES, key=lambda each: len(each.data_set))
    assert _send_all(scanner, here.archive, [large] * 3) == {}
    with (Path("/proc") / str(here.gateway.child.process.pid) / "status").open() as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    assert peak < 200_000, f"peak of {peak} KiB"
