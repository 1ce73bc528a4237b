"""Counting real archives: Orthanc and dcmqrscp, plain, in TLS and by QIDO-RS, give exactly what was loaded."""

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file

from dicomward.cli.main import main
from tests.real.pki import Authority
from tests.real.processes import LOOPBACK
from tests.real.servers import DCMTK, DcmQrScp, Orthanc, Server, need

pytestmark = pytest.mark.real

WEB_PLUGIN = {"Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"]}
CANARY = "CANARYNAME"


def write_images(directory: Path) -> tuple[int, int]:
    """Write two images of each of 25 studies of 9 patients; return how many patients and studies pydicom reads."""
    directory.mkdir()
    for number in range(25):
        for series in range(2):
            image = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
            image.StudyInstanceUID = f"1.2.826.0.1.3680043.8.498.7.{number}"
            image.SeriesInstanceUID = f"{image.StudyInstanceUID}.{series}"
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{image.SeriesInstanceUID}.1"
            image.PatientID = f"{CANARY}{number % 9}"
            image.PatientName = f"{CANARY}^{number % 9}"
            image.StudyDate = f"20{10 + number % 7}0{1 + number % 9}15"
            image.save_as(directory / f"{number}-{series}.dcm")
    read = [pydicom.dcmread(path, stop_before_pixels=True) for path in directory.iterdir()]
    return len({each.PatientID for each in read}), len({each.StudyInstanceUID for each in read})


def assess(directory: Path, *ports: int, web: tuple[int, ...] = (), more: str = "") -> dict[int, dict[str, Any]]:
    today = datetime.now(UTC).date()  # noqa: TID251  real peers have a real clock
    scope = directory / "scope.toml"
    scope.write_text(
        f'owner = "Clinic"\nauthorisation = "A-17"\ncontact = "it@clinic.example"\nvalid_from = {today}\n'
        f"valid_until = {today}\ndimse_ports = {list(ports)}\nweb_ports = {list(web)}\n{more}\n"
        f'[[network]]\naddress = "{LOOPBACK}"\ncounting = true\n[pace]\nrate_probe = 0\nslow_floor = 5\n'
    )
    digest = sha256(scope.read_bytes()).hexdigest()
    assert main(["assess", str(scope), "--out", str(directory / "out"), "--confirm", digest]) == 0
    output = directory / "report.json"
    assert main(["assess", "report", str(directory / "out"), "--format", "json", "--out", str(output)]) == 0
    return {each["port"]: each for each in json.loads(output.read_text())["servers"]}


def load(images: Path, title: str, port: int, *options: str | Path) -> None:
    storescu = need(DCMTK / "storescu", "dcmtk")
    command = [storescu, *options, "-aec", title, "+sd", LOOPBACK, str(port), images]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def orthanc(directory: Path) -> tuple[Server, tuple[int, ...], str]:
    server = Orthanc("ORTHANC", directory, modalities={}, settings=WEB_PLUGIN)
    return server, (server.http_port,), ""


def orthanc_in_tls(directory: Path) -> tuple[Server, tuple[int, ...], str]:
    credentials = Authority("CA", directory.parent / "ca").issue("pacs")
    settings = {"DicomTlsRemoteCertificateRequired": False}
    server = Orthanc("ORTHANC", directory, modalities={}, credentials=credentials, settings=settings)
    return server, (), ""


def dcmqrscp(directory: Path) -> tuple[Server, tuple[int, ...], str]:
    return DcmQrScp("PACS", directory, destinations={}), (), 'called_ae_titles = ["PACS"]'


@pytest.mark.parametrize("start", [orthanc, orthanc_in_tls, dcmqrscp])
def test_counts_are_those_of_what_was_loaded(
    start: Callable[[Path], tuple[Server, tuple[int, ...], str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The process of the tests stays as it is; tests/io/assess/test_count_secrecy.py looks at the real thing.
    monkeypatch.setattr("dicomward.io.assess.hosts.forbid_dumps", lambda: None)
    images = tmp_path / "images"
    patients, studies = write_images(images)
    server, web, more = start(tmp_path / "data")
    try:
        tls: list[str | Path] = ["+tla", "-ic"] if start is orthanc_in_tls else []
        load(images, server.ae_title, server.port, *tls)
        seen = assess(tmp_path, server.port, web=web, more=more)
    finally:
        server.stop()
    for port in (server.port, *web):
        counts = {name: each["text"] for name, each in seen[port]["counts"].items()}
        assert (counts["patients"], counts["studies"]) == (str(patients), str(studies)), (port, counts)
        assert (counts["personal"], counts["medical"]) == (str(patients), str(studies))
        assert "DWA-RECORDS-EXPOSED" in seen[port]["findings"]
    if start is orthanc_in_tls:
        assert seen[server.port]["protocol"] == "dimse-tls"
    kept = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert kept
    assert not [path for path, data in kept.items() if CANARY.encode() in data]
