"""Archives that are not ours: DCMTK's storescp, dcmqrscp and wlmscpfs, and Orthanc, each in a directory of its own."""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from tests.real.pki import Credentials
from tests.real.processes import LOOPBACK, Child, PeerError, free_port
from tests.real.samples import Sample, read_sample

# Absolute paths: pynetdicom's console scripts of the same names would come first in a virtual environment.
DCMTK: Final = Path("/usr/bin")
ORTHANC: Final = Path("/usr/sbin/Orthanc")


def need(path: Path, package: str) -> Path:
    """Return the path of a tool, or skip the test with the reason."""
    if not path.exists():
        pytest.skip(f"{path} is missing: install the Debian package {package} (tools/setup.sh does it as root)")
    return path


class Server:
    """A running archive: title, port, and a directory for what it keeps."""

    def __init__(self, ae_title: str, directory: Path, *, port: int = 0) -> None:
        self.ae_title = ae_title
        self.port = port or free_port()
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._child: Child | None = None

    def start(self, command: list[str | Path], *, environment: Mapping[str, str] | None = None) -> None:
        """Start it and wait until it accepts connections."""
        self._child = Child(
            str(command[0]), command, self.directory.parent / f"{self.directory.name}.log", environment=environment
        )
        self._child.wait_until_listening(self.port)

    @property
    def child(self) -> Child:
        """The running process."""
        if self._child is None:
            raise PeerError("the server was not started")
        return self._child

    def stop(self) -> None:
        """End it."""
        if self._child is not None:
            self._child.stop()

    def log(self) -> str:
        """Return the end of its log."""
        return "" if self._child is None else self._child.tail()

    def kept(self) -> list[Sample]:
        """Return the objects in its directory, raw."""
        found = [read_sample(path) for path in sorted(self.directory.rglob("*")) if path.is_file()]
        return [sample for sample in found if sample is not None]


class StoreScp(Server):
    """DCMTK storescp: keeps what arrives, bit by bit."""

    def __init__(
        self, ae_title: str, directory: Path, *, credentials: Credentials | None = None, port: int = 0
    ) -> None:
        super().__init__(ae_title, directory, port=port)
        tls: list[str | Path] = [] if credentials is None else [*credentials.dcmtk(), "-rc"]
        tool = need(DCMTK / "storescp", "dcmtk")
        self.start([tool, "--fork", "-aet", ae_title, "-od", directory, "-pm", "+xa", "+B", *tls, str(self.port)])


class DcmQrScp(Server):
    """DCMTK dcmqrscp: C-ECHO, C-STORE, C-FIND, C-GET and C-MOVE."""

    def __init__(self, ae_title: str, directory: Path, *, destinations: Mapping[str, int]) -> None:
        super().__init__(ae_title, directory)
        hosts = "\n".join(f"{title.lower()} = ({title}, {LOOPBACK}, {port})" for title, port in destinations.items())
        configuration = directory.parent / f"{directory.name}.cfg"
        configuration.write_text(
            f"NetworkTCPPort = {self.port}\nMaxPDUSize = 16384\nMaxAssociations = 64\n"
            f"HostTable BEGIN\n{hosts}\nHostTable END\n"
            "VendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\n{ae_title} {directory} RW (500, 1024mb) ANY\nAETable END\n"
        )
        self.start([need(DCMTK / "dcmqrscp", "dcmtk"), "-c", configuration, str(self.port)])


class Wlmscpfs(Server):
    """DCMTK wlmscpfs: a modality worklist from files."""

    def __init__(self, ae_title: str, directory: Path, *, worklist: list[Dataset]) -> None:
        super().__init__(ae_title, directory)
        folder = directory / ae_title
        folder.mkdir()
        (folder / "lockfile").touch()
        for number, item in enumerate(worklist):
            write_worklist_item(folder / f"item{number}.wl", item)
        self.start([need(DCMTK / "wlmscpfs", "dcmtk"), "-dfp", directory, "-dfr", str(self.port)])


class Orthanc(Server):
    """Orthanc with a configuration of its own."""

    def __init__(
        self,
        ae_title: str,
        directory: Path,
        *,
        modalities: Mapping[str, int],
        credentials: Credentials | None = None,
        port: int = 0,
        tls_modalities: Mapping[str, int] | None = None,
        http_port: int = 0,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """Start it; the `tls_modalities` are called over TLS, with its credentials; `settings` replace ours."""
        super().__init__(ae_title, directory, port=port)
        self.http_port = http_port or free_port()
        modalities_by_name: dict[str, object] = {
            title.lower(): [title, LOOPBACK, port] for title, port in modalities.items()
        }
        for title, called_port in (tls_modalities or {}).items():
            secure = {"AET": title, "Host": LOOPBACK, "Port": called_port, "UseDicomTls": True}
            modalities_by_name[title.lower()] = secure
        options: dict[str, object] = {
            "Name": ae_title,
            "StorageDirectory": str(directory),
            "IndexDirectory": str(directory),
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": ae_title,
            "DicomPort": self.port,
            "DicomCheckCalledAet": False,
            # Who may do what is the gateway's business in these tests; direct clients need to come through as well.
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "DicomModalities": modalities_by_name,
            "OverwriteInstances": True,
            "StableAge": 1,
        }
        if credentials is not None:
            options |= {
                "DicomTlsEnabled": True,
                "DicomTlsCertificate": str(credentials.certificate),
                "DicomTlsPrivateKey": str(credentials.key),
                "DicomTlsTrustedCertificates": str(credentials.authority),
                "DicomTlsRemoteCertificateRequired": True,
            }
        options |= settings or {}
        configuration = directory.parent / f"{directory.name}.json"
        configuration.write_text(json.dumps(options, indent=1))
        self.start([need(ORTHANC, "orthanc"), configuration])


def write_worklist_item(path: Path, item: Dataset) -> None:
    """Write one worklist file as wlmscpfs reads them."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.276.0.7230010.3.1.0.1"
    meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.10.543.8.1"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = FileDataset(os.fspath(path), item, file_meta=meta, preamble=b"\0" * 128)
        file.save_as(path, enforce_file_format=True)
