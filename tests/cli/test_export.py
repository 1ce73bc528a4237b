"""`dicomward export`: what the archive needs, from the registry alone."""

import re

import pytest

from dicomward.identity.registry import Device, DeviceStatus, Endpoint, RegistrySnapshot
from dicomward.identity.registry_json import decode_snapshot
from dicomward.io.registry.store import write_snapshot
from dicomward.settings import Settings
from tests.cli.conftest import Run


def write(settings: Settings, archive_listen: str = "127.0.0.1:11113", tls: bool = False) -> None:
    text = settings.path.read_text()
    text = text.replace('archive_listen = "127.0.0.1:0"', f'archive_listen = "{archive_listen}"')
    if tls:
        text = re.sub(r"(?m)^(# )?archive_listen_tls = .*\n", "", text)
        text = text.replace("[gateway]\n", "[gateway]\narchive_listen_tls = true\n", 1)
    settings.path.write_text(text)


@pytest.fixture
def ward(run: Run, settings: Settings) -> Settings:
    path = settings.registry.snapshot
    snapshot = decode_snapshot(path.read_text())
    devices = (
        Device(
            name="ct1",
            ae_titles=("CT1",),
            role="modality",
            networks=("10.1.2.0/24",),
            address=Endpoint(host="10.1.2.3", port=104),
        ),
        Device(name="mr1", ae_titles=("MR1",), role="modality", networks=("10.1.2.0/24",)),
        Device(name="gone", ae_titles=("GONE",), role="modality", networks=("any",), status=DeviceStatus.REVOKED),
    )
    write_snapshot(path, RegistrySnapshot(devices=devices, archives=snapshot.archives, revision=snapshot.revision))
    (settings.directory / "registry.db").unlink()
    return settings


def test_each_kind_has_every_active_device_at_the_archive_side(run: Run, ward: Settings) -> None:
    write(ward)
    orthanc = run("export", "orthanc")
    assert (orthanc.code, '"AET": "CT1"' in orthanc.out, '"AET": "MR1"' in orthanc.out) == (0, True, True)
    assert "GONE" not in orthanc.out
    assert '"Host": "127.0.0.1",\n      "Port": 11113' in orthanc.out
    assert "no address, so nothing can be sent there (dicomward device add --address): mr1\n" in orthanc.err
    ldif = run("export", "dcm4chee", "--base", "cn=DICOM Configuration,dc=hospital").out
    assert "dicomDeviceName=ct1,cn=Devices,cn=DICOM Configuration,dc=hospital" in ldif
    assert "d_ct1_ct1 = (CT1, 127.0.0.1, 11113)" in run("export", "dcmtk").out


def test_one_device_and_another_host(run: Run, ward: Settings) -> None:
    write(ward)
    done = run("export", "dcmtk", "--device", "ct1", "--gateway-host", "gw.hospital.example")
    assert "(CT1, gw.hospital.example, 11113)" in done.out
    assert "MR1" not in done.out
    wrong = run("export", "orthanc", "--device", "ct2")
    assert wrong.code == 1
    assert "did you mean 'ct1'?" in wrong.err


def test_listener_on_every_address_needs_a_name(run: Run, ward: Settings) -> None:
    write(ward, "0.0.0.0:11113")
    done = run("export", "orthanc")
    assert done.code == 2
    assert "with --gateway-host HOST" in done.err
    assert run("export", "orthanc", "--gateway-host", "192.0.2.1").code == 0
    ward.path.write_text(ward.path.read_text().replace("0.0.0.0:11113", "localhost:11113"))
    assert "(CT1, localhost, 11113)" in run("export", "dcmtk").out
    assert run("export", "orthanc", "--gateway-host", "not a host").code == 2


def test_tls_of_the_archive_side_is_said(run: Run, ward: Settings) -> None:
    write(ward, tls=True)
    assert '"UseDicomTls": true' in run("export", "orthanc").out
    assert "dcmqrscp can't do TLS" in run("export", "dcmtk").err


def test_registry_that_cannot_be_read_is_named(run: Run, ward: Settings) -> None:
    write(ward)
    ward.registry.snapshot.write_text("{")
    done = run("export", "dcmtk")
    assert done.code == 1
    assert "the registry can't be read" in done.err
