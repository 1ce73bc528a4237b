"""Devices, archives and certificates that the tests of this folder speak of."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dicomward.identity.certificate import PeerCertificate
from dicomward.identity.registry import (
    Archive,
    CertificateRecord,
    CertificateStatus,
    Device,
    DeviceStatus,
    Endpoint,
    RegistrySnapshot,
)

NOT_BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime(2027, 1, 1, tzinfo=UTC)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
GRACE = timedelta(days=14)


def fingerprint(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def record(name: str, status: CertificateStatus = "active") -> CertificateRecord:
    return CertificateRecord(
        sha256=fingerprint(name), not_before=NOT_BEFORE, not_after=NOT_AFTER, status=status, serial="1f"
    )


def peer(name: str) -> PeerCertificate:
    return PeerCertificate(sha256=fingerprint(name), not_before=NOT_BEFORE, not_after=NOT_AFTER, subject=f"CN={name}")


def device(
    name: str = "CT1",
    *,
    ae_titles: tuple[str, ...] = ("CT1",),
    networks: tuple[str, ...] = ("10.1.2.0/24",),
    address: Endpoint | None = None,
    status: DeviceStatus = DeviceStatus.ACTIVE,
    certificates: tuple[CertificateRecord, ...] | None = None,
) -> Device:
    return Device(
        name=name,
        ae_titles=ae_titles,
        role="modality",
        site="main",
        networks=networks,
        address=address,
        status=status,
        certificates=(record(name),) if certificates is None else certificates,
    )


def archive(
    name: str = "PACS",
    *,
    calling_ae_titles: tuple[str, ...] = ("PACS",),
    called_ae_titles: tuple[str, ...] = (),
    networks: tuple[str, ...] = ("10.9.0.5/32",),
    pinned: str | None = None,
) -> Archive:
    return Archive(
        name=name,
        ae_title=name,
        called_ae_titles=called_ae_titles,
        calling_ae_titles=calling_ae_titles,
        endpoint=Endpoint(host="10.9.0.5", port=11112),
        networks=networks,
        tls=pinned is not None,
        certificate_sha256=fingerprint(pinned) if pinned else None,
        site="main",
    )


def snapshot(*principals: Device | Archive) -> RegistrySnapshot:
    return RegistrySnapshot(
        devices=tuple(p for p in principals if isinstance(p, Device)),
        archives=tuple(p for p in principals if isinstance(p, Archive)),
        revision=7,
    )


CT1 = device()
WORKSTATION = replace(
    device("WS1", ae_titles=("WS1", "WS1_MOVE"), networks=("10.1.3.0/24", "any")),
    role="workstation",
    address=Endpoint(host="10.1.3.7", port=11112),
    plain=True,
)
PACS = archive(called_ae_titles=("PACS", "ARCHIVE"), calling_ae_titles=("PACS", "PACS_MOVE"), pinned="pacs-key")
BROKER = replace(archive("RIS", calling_ae_titles=(), networks=()), sends_move_originator=False, dedicated_link=True)
SITE = snapshot(CT1, WORKSTATION, PACS, BROKER)
