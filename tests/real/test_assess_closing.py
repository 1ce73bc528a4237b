"""From leak to proof: an open Orthanc is assessed, its plan is carried out, and it is proved that it is closed."""

import json
import socket
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.real.clients import Pynetdicom, Route
from tests.real.gateway import COMMAND, dicomward
from tests.real.pki import Credentials
from tests.real.processes import LOOPBACK, Child, free_port, run
from tests.real.samples import sample
from tests.real.servers import Orthanc

TITLE = "ORTHANC"
CLIENT = Pynetdicom()


def port_with_room() -> int:
    """Return a free port whose neighbours 10,000 above, where the plan moves the archive, are free too."""
    while True:
        port = free_port()
        try:
            for each in (port + 10_000, port + 10_001):
                with socket.socket() as probe:
                    probe.bind(("0.0.0.0", each))
        except OSError:
            continue
        return port


def write_scope(path: Path, dimse_port: int, web_port: int) -> Path:
    path.write_text(
        '[scope]\nowner = "Test Hospital"\nauthorisation = "test"\ncontact = "it@hospital.example"\n'
        f"valid_from = 2020-01-01\nvalid_until = 2099-12-31\ndimse_ports = [{dimse_port}]\nweb_ports = [{web_port}]\n"
        f'called_ae_titles = ["{TITLE}"]\n[[network]]\ncidr = "{LOOPBACK}/32"\ncountry = "DE"\nsite = "Test"\n'
        "counting = true\n"
    )
    return path


def must(*arguments: str | Path) -> str:
    done = dicomward(*arguments)
    assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
    return done.stdout


def assess(scope: Path, out: Path) -> dict[str, Any]:
    confirmation = sha256(scope.read_bytes()).hexdigest()
    return dict(json.loads(must("assess", scope, "--out", out, "--confirm", confirmation, "--json")))


def findings(assessment: dict[str, Any], port: int) -> set[str]:
    return {found["id"] for each in assessment["servers"] if each["port"] == port for found in each["findings"]}


def carry_out(plan: Path, step: dict[str, Any]) -> Path:
    """Type the commands of a gateway's step in the directory of the plan, but for the last, which runs it.

    Orthanc takes any called AE title, so the plan says where its own has to be written.
    """
    assert any("AE title was not learned" in line for line in step["do"])
    draft = plan / str(step["files"][2])
    draft.write_text(draft.read_text("utf-8").replace('"ARCHIVE"', f'"{TITLE}"'), encoding="utf-8")
    step["commands"][0] = step["commands"][0].replace("--pacs ARCHIVE@", f"--pacs {TITLE}@")
    for line in step["commands"][:-1]:
        script = f"cd '{plan}' && dicomward() {{ {' '.join(map(str, COMMAND))} \"$@\"; }} && {line}"
        done = run(["bash", "-c", script])
        assert done.returncode == 0, f"{line}\n{done.stdout}"
    return plan / str(step["files"][0]).replace("/dicomward.toml", "/gw/dicomward.toml")


def enrol(config: Path, name: str, title: str, role: str) -> Credentials:
    out = config.parent.parent / name
    must(
        *("device", "add", name, "--aet", title, "--role", role, "--network", "127.0.0.0/8", "--out", out),
        *("--config", config),
    )
    return Credentials(key=out / "key.pem", certificate=out / "cert.pem", authority=out / "ca.pem")


def test_open_orthanc_is_closed_by_its_plan_and_still_works(tmp_path: Path) -> None:
    port, http_port = port_with_room(), free_port()
    orthanc = Orthanc(TITLE, tmp_path / "orthanc", modalities={}, port=port, http_port=http_port)
    gateway: Child | None = None
    try:
        stranger = Route(port=port, calling_ae_title="STRANGER", called_ae_title=TITLE)
        assert CLIENT.store(stranger, [sample("CT_small.dcm")]).succeeded
        scope = write_scope(tmp_path / "scope.toml", port, http_port)
        before = assess(scope, tmp_path / "old")
        assert {"DWA-RECORDS-EXPOSED", "DWA-FIND-OPEN", "DWA-TLS-MISSING", "DWA-TLS-OPTIONAL"} <= findings(before, port)
        assert "DWA-WEB-ADMIN-OPEN" in findings(before, http_port)

        plan = tmp_path / "plan"
        must("assess", "report", tmp_path / "old", "--format", "plan", "--out", plan)
        steps = json.loads((plan / "plan.json").read_text("utf-8"))["steps"]
        assert steps[0]["title"] == "Close web administration and DICOMweb to strangers"
        (step,) = (each for each in steps if each["files"])

        orthanc.stop()
        orthanc = Orthanc(
            TITLE,
            tmp_path / "orthanc",
            modalities={},
            port=port + 10_000,
            http_port=http_port,
            settings={"AuthenticationEnabled": True, "RegisteredUsers": {"admin": "a long one of its own"}},
        )
        config = carry_out(plan, step)
        ct1 = enrol(config, "ct1", "CT1", "modality")
        reader = enrol(config, "reader", "READER", "workstation")
        gateway = Child("gateway", [*COMMAND, "gateway", "--config", config], tmp_path / "gateway.log")
        gateway.wait_until_listening(port)

        assess(scope, tmp_path / "new")
        compared = dicomward("assess", "--compare", tmp_path / "old", tmp_path / "new", "--json")
        comparison = json.loads(compared.stdout)
        # Whether the web behind its new login is of a mended version can't be seen, and the plan's update was not done.
        left = [each for each in comparison["findings"] if each["change"] != "closed"]
        assert {(each["port"], each["id"], each["change"]) for each in left} <= {
            (http_port, "DWA-KNOWN-VULNERABILITY", "INCONCLUSIVE")
        }
        assert compared.returncode == (1 if left else 0)
        assert len(comparison["findings"]) == sum(len(each["closes"]) for each in steps)

        # The archive works for who is enrolled, and each may do what the role needs.
        modality = Route(port=port, calling_ae_title="CT1", called_ae_title=TITLE, credentials=ct1)
        assert CLIENT.echo(modality).succeeded
        assert CLIENT.store(modality, [sample("MR_small.dcm")]).succeeded
        workstation = Route(port=port, calling_ae_title="READER", called_ae_title=TITLE, credentials=reader)
        found = CLIENT.find(workstation, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "", "PatientID": ""})
        assert found.succeeded
        assert len(found.matches) == 2
        assert not CLIENT.find(modality, {"QueryRetrieveLevel": "STUDY", "PatientID": ""}).succeeded

        # Switched off is not closed.
        gateway.stop()
        assess(scope, tmp_path / "off")
        off = dicomward("assess", "--compare", tmp_path / "old", tmp_path / "off", "--json")
        changes = {each["change"] for each in json.loads(off.stdout)["findings"] if each["port"] == port}
        assert (off.returncode, changes) == (1, {"INCONCLUSIVE"})
    finally:
        if gateway is not None:
            gateway.stop()
        orthanc.stop()
