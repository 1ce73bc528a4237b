"""Real servers, open, half open and closed: each verdict is right, and nobody is disturbed."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from dicomward.cli.main import main
from tests.real.clients import Dcmtk, Route
from tests.real.pki import Authority
from tests.real.processes import LOOPBACK, free_port
from tests.real.servers import DcmQrScp, Orthanc, Server, StoreScp, Wlmscpfs
from tests.real.site import worklist_item

pytestmark = pytest.mark.real

Verdicts = dict[str, str]
OPERATIONS = ("echo", "find", "get", "move", "store", "worklist", "storage-contexts")


def assess(
    directory: Path, capsys: pytest.CaptureFixture[str], *ports: int, web: tuple[int, ...] = (), more: str = ""
) -> dict[int, dict[str, Any]]:
    """Return what is seen of each port; the rest of the scope is the same for all."""
    today = datetime.now(UTC).date()  # noqa: TID251  real peers have a real clock
    scope = directory / "scope.toml"
    scope.write_text(
        f"""
owner = "Clinic"
authorisation = "A-17"
contact = "it@clinic.example"
valid_from = {today}
valid_until = {today}
dimse_ports = {list(ports)}
web_ports = {list(web)}
{more}
[[network]]
address = "{LOOPBACK}"
[pace]
rate_probe = 3
slow_floor = 5
"""
    )
    digest = sha256(scope.read_bytes()).hexdigest()
    capsys.readouterr()
    assert main(["assess", str(scope), "--out", str(directory / "out"), "--confirm", digest, "--json"]) == 0
    return {each["port"]: each for each in json.loads(capsys.readouterr().out)["servers"]}


def verdicts(server: dict[str, Any]) -> Verdicts:
    return {each["control"]: each["verdict"] for each in server["controls"]}


@contextmanager
def running(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        server.stop()


def echo(route: Route) -> float:
    """Return the seconds of an association with a C-ECHO, in this process: starting another one is not the server's."""
    ae = AE(route.calling_ae_title)
    ae.add_requested_context(UID(Verification))
    began = time.monotonic()
    association = ae.associate(LOOPBACK, route.port, ae_title=route.called_ae_title)
    assert association.is_established
    assert association.send_c_echo().Status == 0
    association.release()
    return time.monotonic() - began


@contextmanager
def good_echoes(route: Route) -> Iterator[list[float]]:
    """A client that goes on with C-ECHO meanwhile; yields how long each took, in seconds."""
    took: list[float] = []
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            took.append(echo(route))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield took
    finally:
        over.set()
        thread.join()


def test_open_orthanc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(Orthanc("ORTHANC", tmp_path / "data", modalities={})) as server:
        assert isinstance(server, Orthanc)
        route = Route(port=server.port, calling_ae_title="GOOD", called_ae_title="ORTHANC")
        alone = max(echo(route) for _ in range(5))
        with good_echoes(route) as took:
            seen = assess(tmp_path, capsys, server.port, web=(server.http_port,))
        assert len(took) > 2
        # A busy machine may need as long without us.
        assert max(took) < max(1.0, 2 * alone), (alone, took)
    dicom, web = verdicts(seen[server.port]), verdicts(seen[server.http_port])
    assert (dicom["echo"], dicom["find"], dicom["worklist"]) == ("FAIL", "FAIL", "PASS")
    # It accepts these contexts from anyone, and decides at the operation.
    assert {dicom[each] for each in ("get", "move", "store", "storage-contexts")} == {"INCONCLUSIVE"}
    assert (dicom["calling-ae-title"], dicom["called-ae-title"], dicom["tls-required"]) == ("FAIL", "FAIL", "FAIL")
    assert web["web-administration"] == "FAIL"
    product = seen[server.port]["product"]
    assert (product["product"], product["version"], product["confidence"]) == ("Orthanc", "1.10.1", "high")
    assert "CVE-2023-33466" in {each["id"] for each in seen[server.port]["vulnerabilities"]}


class HalfOpenOrthanc(Orthanc):
    """As Debian installs it: C-ECHO and C-STORE for anyone, queries for known modalities only; REST behind a login."""

    def start(self, command: list[str | Path], **values: Any) -> None:
        path = Path(command[1])
        options = json.loads(path.read_text())
        options |= {f"DicomAlwaysAllow{each}": False for each in ("Find", "Get", "Move")}
        options |= {"DicomCheckCalledAet": True, "AuthenticationEnabled": True, "RegisteredUsers": {"a": "b"}}
        options |= {"RemoteAccessAllowed": True, "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"]}
        path.write_text(json.dumps(options))
        super().start(command, **values)


def test_half_open_orthanc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(HalfOpenOrthanc("PACS", tmp_path / "data", modalities={})) as server:
        assert isinstance(server, Orthanc)
        more = 'called_ae_titles = ["PACS"]'
        seen = assess(tmp_path, capsys, server.port, web=(server.http_port,), more=more)
        assert Dcmtk().echo(Route(port=server.port, calling_ae_title="GOOD", called_ae_title="PACS")).succeeded
    dicom, web = verdicts(seen[server.port]), verdicts(seen[server.http_port])
    assert dicom["called-ae-title"] == "PASS"
    assert (dicom["echo"], dicom["find"]) == ("FAIL", "PASS")
    assert dicom["store"] == "INCONCLUSIVE"
    assert (web["web-administration"], web["dicomweb-token"]) == ("PASS", "PASS")


def test_dicomweb_of_orthanc_without_a_login(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class WithDicomWeb(Orthanc):
        def start(self, command: list[str | Path], **values: Any) -> None:
            path = Path(command[1])
            options = json.loads(path.read_text())
            options["Plugins"] = ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"]
            path.write_text(json.dumps(options))
            super().start(command, **values)

    with running(WithDicomWeb("PACS", tmp_path / "data", modalities={})) as server:
        assert isinstance(server, Orthanc)
        seen = assess(tmp_path, capsys, web=(server.http_port,))
    assert verdicts(seen[server.http_port])["dicomweb-token"] == "FAIL"


def test_orthanc_behind_mutual_tls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    credentials = Authority("CA", tmp_path / "ca").issue("pacs")
    with running(Orthanc("PACS", tmp_path / "data", modalities={}, credentials=credentials)) as server:
        seen = assess(tmp_path, capsys, server.port, more=f'ca_file = "{credentials.authority}"')[server.port]
    found = verdicts(seen)
    assert (seen["protocol"], seen["reach"]) == ("dimse-tls", "certificate-wanted")
    assert {found[each] for each in OPERATIONS} == {"PASS"}
    assert found["client-certificate"] == found["tls-required"] == "PASS"


@pytest.mark.parametrize("known", [True, False])
def test_dcmqrscp(tmp_path: Path, capsys: pytest.CaptureFixture[str], known: bool) -> None:
    with running(DcmQrScp("PACS", tmp_path / "data", destinations={})) as server:
        more = 'called_ae_titles = ["PACS"]' if known else ""
        seen = assess(tmp_path, capsys, server.port, more=more)[server.port]
        assert Dcmtk().echo(Route(port=server.port, calling_ae_title="GOOD", called_ae_title="PACS")).succeeded
    found = verdicts(seen)
    assert found["called-ae-title"] == "PASS"
    expected = dict.fromkeys(OPERATIONS, "FAIL" if known else "INCONCLUSIVE")
    if known:
        expected["worklist"] = "PASS"
    assert {each: found[each] for each in OPERATIONS} == expected


def test_closed_dcmqrscp_knows_its_peers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Closed(DcmQrScp):
        def start(self, command: list[str | Path], **values: Any) -> None:
            path = Path(command[2])
            friends = "HostTable BEGIN\nct = (CT, 127.0.0.1, 104)\nfriends = ct"
            text = path.read_text().replace("HostTable BEGIN\n", f"{friends}\n").replace(") ANY\n", ") friends\n")
            path.write_text(text)
            super().start(command, **values)

    with running(Closed("PACS", tmp_path / "data", destinations={})) as server:
        seen = assess(tmp_path, capsys, server.port, more='called_ae_titles = ["PACS"]')[server.port]
    found = verdicts(seen)
    # It tells strangers that the *called* title is unknown, also where that is right: nobody can tell from outside.
    assert found["calling-ae-title"] == "INCONCLUSIVE"
    assert {found[each] for each in OPERATIONS} == {"INCONCLUSIVE"}


def test_wlmscpfs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(Wlmscpfs("RIS", tmp_path / "data", worklist=[worklist_item(1)])) as server:
        seen = assess(tmp_path, capsys, server.port, more='called_ae_titles = ["RIS"]')[server.port]
    found = verdicts(seen)
    assert (found["worklist"], found["echo"], found["find"], found["store"]) == ("FAIL", "FAIL", "PASS", "PASS")
    assert seen["product"]["product"] == "DCMTK"


def test_storescp_with_tls_and_no_client_certificate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    credentials = Authority("CA", tmp_path / "ca").issue("pacs")

    class WithoutClientCertificate(StoreScp):
        def start(self, command: list[str | Path], **values: Any) -> None:
            super().start(["-ic" if each == "-rc" else each for each in command], **values)

    with running(WithoutClientCertificate("STORE", tmp_path / "data", credentials=credentials)) as server:
        seen = assess(tmp_path, capsys, server.port, more=f'ca_file = "{credentials.authority}"')[server.port]
    found = verdicts(seen)
    assert seen["protocol"] == "dimse-tls"
    assert (found["client-certificate"], found["store"], found["find"]) == ("FAIL", "FAIL", "PASS")
    assert (found["certificate-chain"], found["certificate-expiry"], found["certificate-key"]) == ("PASS",) * 3
    assert seen["tls"]["version"] == "TLSv1.3"


def _refuse(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
    yield 0x0124, None


def _nothing(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
    return iter(())


def _match(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
    # A server that ignores the keys and gives everything away.
    while True:
        match = Dataset()
        match.PatientName = "CANARY^VALUE"
        match.QueryRetrieveLevel = "STUDY"
        yield 0xFF00, match


@pytest.mark.parametrize(
    ("find", "calling", "expected"),
    [
        (_nothing, [], {"find": "FAIL", "store": "FAIL", "echo": "FAIL", "get": "PASS"}),
        (_match, [], {"find": "FAIL", "store": "FAIL", "echo": "FAIL", "get": "PASS"}),
        (_refuse, [], {"find": "PASS", "store": "INCONCLUSIVE", "echo": "FAIL", "get": "PASS"}),
        (_nothing, ["CT"], {"find": "PASS", "store": "PASS", "echo": "PASS", "calling-ae-title": "PASS"}),
    ],
    ids=["open", "gives everything away", "half open", "closed"],
)
def test_pynetdicom(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    find: Callable[[evt.Event], Iterator[tuple[int, Dataset | None]]],
    calling: list[str],
    expected: Verdicts,
) -> None:
    ae = AE("PACS")
    ae.require_calling_aet = calling
    for uid in (Verification, CTImageStorage, StudyRootQueryRetrieveInformationModelFind):
        ae.add_supported_context(UID(uid))
    port = free_port()
    scp = ae.start_server((LOOPBACK, port), block=False, evt_handlers=[(evt.EVT_C_FIND, find)])
    try:
        seen = assess(tmp_path, capsys, port)[port]
    finally:
        scp.shutdown()
    found = verdicts(seen)
    assert {each: found[each] for each in expected} == expected
    if not calling:
        assert (seen["product"]["product"], seen["product"]["version"]) == ("pynetdicom", "3.0.4")
    kept = b"".join(each.read_bytes() for each in (tmp_path / "out").rglob("*") if each.is_file())
    assert kept
    assert b"CANARY" not in kept
