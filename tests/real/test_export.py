"""What `dicomward export` prints, in the archives that it is for: they start with it, and C-MOVE works through it."""

import json
from pathlib import Path

import pytest

from tests.real.clients import Pynetdicom
from tests.real.gateway import Gateway
from tests.real.processes import LOOPBACK, free_port
from tests.real.recording_archive import RecordingArchive
from tests.real.samples import sample
from tests.real.servers import DCMTK, ORTHANC, Server, need
from tests.real.site import study_of

CT = sample("CT_small.dcm")


class ExportedOrthanc(Server):
    """Orthanc started with a folder: a small configuration, and the exported one beside it."""

    def __init__(self, directory: Path, exported: str, port: int) -> None:
        super().__init__("ORTHANC", directory / "store", port=port)
        folder = directory / "configuration"
        folder.mkdir()
        own = {
            "StorageDirectory": str(self.directory),
            "IndexDirectory": str(self.directory),
            "HttpPort": free_port(),
            "AuthenticationEnabled": False,
            "DicomAet": "ORTHANC",
            "DicomPort": port,
        }
        (folder / "orthanc.json").write_text(json.dumps(own))
        (folder / "gateway.json").write_text(exported)
        self.start([need(ORTHANC, "orthanc"), folder])


class ExportedQrScp(Server):
    """dcmqrscp with the exported HostTable, and nobody let in but its group."""

    def __init__(self, directory: Path, exported: str, port: int) -> None:
        super().__init__("QRSCP", directory / "store", port=port)
        configuration = directory / "dcmqrscp.cfg"
        configuration.write_text(
            f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n{exported}"
            "VendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\nQRSCP {self.directory} RW (500, 1024mb) dicomward\nAETable END\n"
        )
        self.start([need(DCMTK / "dcmqrscp", "dcmtk"), "--disable-host-lookup", "-c", configuration, str(port)])


@pytest.mark.parametrize("kind", ["orthanc", "dcmtk"])
def test_archive_starts_with_what_is_exported_and_moves_through_the_gateway(kind: str, tmp_path: Path) -> None:
    title = "ORTHANC" if kind == "orthanc" else "QRSCP"
    gateway = Gateway(tmp_path / "gateway", archive=title, archive_port=(port := free_port()))
    gateway.permit_everything_to("tester")
    destination_port = free_port()
    reader = gateway.route(gateway.add_device("reader", "READER", role="tester"), "READER")
    credentials = gateway.add_device("station", "STATION", role="tester", address=destination_port)
    exported = gateway.must("export", kind)
    archive = (ExportedOrthanc if kind == "orthanc" else ExportedQrScp)(tmp_path, exported, port)
    try:
        gateway.start()
        with RecordingArchive("STATION", credentials=credentials, port=destination_port) as station:
            assert Pynetdicom().store(reader, [CT]).succeeded
            assert Pynetdicom().move(reader, study_of(CT), "STATION").succeeded
            assert [each.sop_instance_uid for each in station.stored] == [CT.sop_instance_uid]
    finally:
        gateway.stop()
        archive.stop()
    assert LOOPBACK in exported
