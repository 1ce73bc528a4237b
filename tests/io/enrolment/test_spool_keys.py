"""A device gets the key of its spool, always the same, and nobody else does."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from dicomward.audit.event import AuditEvent
from dicomward.enrolment.http import Head, HttpError, Peer, Request
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.identity.registry import DeviceStatus, RegistrySnapshot
from dicomward.io.edge.spool_keys import SPOOL_KEY_PATH
from dicomward.io.enrolment.spool_keys import FILE_NAME, SpoolKeys
from tests.io.enrolment_place import Place, enrolment_place, new_key, own_file, request


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with enrolment_place(tmp_path_factory.mktemp("keys") / "gateway") as made:
        yield made


@pytest.fixture(scope="module")
def own(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = new_key()
    told = place.enrol(place.invite(), key)
    return own_file(tmp_path_factory.mktemp("own") / "own.pem", told.certificate, key)


class Server:
    """The service alone, with a registry that can be changed and a record that can fail."""

    def __init__(self, place: Place, directory: Path) -> None:
        self._place = place
        self.status = DeviceStatus.ACTIVE
        self.later = timedelta(0)
        self.events: list[AuditEvent] = []
        self.problem: str | None = None
        self.keys = SpoolKeys(directory, self._read, self._record, lambda: place.now() + self.later)

    def _read(self) -> RegistrySnapshot:
        snapshot = self._place.server._store.read()
        return replace(snapshot, devices=tuple(replace(each, status=self.status) for each in snapshot.devices))

    def _record(self, event: AuditEvent) -> str | None:
        self.events.append(event)
        return self.problem

    def ask(self, own: Path | None, address: str = "127.0.0.1") -> bytes:
        der = None
        if own is not None:
            der = x509.load_pem_x509_certificate(own.read_bytes()).public_bytes(Encoding.DER)
        head = Head(method="GET", path=SPOOL_KEY_PATH, query="", fields={}, length=0)
        response = self.keys.answer(Request(head=head, body=b"", peer=Peer(address=address, certificate_der=der)))
        told = json.loads(response.body)
        assert told["device"] == "ct3"
        return base64.b64decode(told["key"])


def test_key_is_the_devices_own_and_stays_when_its_certificate_is_renewed(
    place: Place, own: Path, tmp_path: Path
) -> None:
    told = place.ask("GET", SPOOL_KEY_PATH, own=own)
    assert told.status == 200
    key = new_key()
    renewed = place.est("simplereenroll", request(key, "ct3"), own=own)
    new = own_file(tmp_path / "new.pem", renewed.certificate, key)
    assert place.ask("GET", SPOOL_KEY_PATH, own=new).body == told.body
    other_key = new_key()
    other = own_file(tmp_path / "other.pem", place.enrol(place.invite("mr1"), other_key).certificate, other_key)
    assert json.loads(place.ask("GET", SPOOL_KEY_PATH, own=other).body)["key"] != json.loads(told.body)["key"]
    assert (place.settings.enrolment.ca / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert place.ask("GET", SPOOL_KEY_PATH).status == HTTPStatus.UNAUTHORIZED


def test_every_key_hangs_on_the_secret_and_is_recorded(place: Place, own: Path, tmp_path: Path) -> None:
    server = Server(place, tmp_path)
    key = server.ask(own)
    assert len(key) == 32
    assert server.ask(own) == key
    assert [(type(each).__name__, each.device) for each in server.events] == [("EnrolmentChanged", "ct3")] * 2
    (tmp_path / FILE_NAME).unlink()
    assert server.ask(own) != key
    server.problem = "the log is away"
    with pytest.raises(HttpError, match="can't be recorded"):
        server.ask(own)


@pytest.mark.parametrize("status", [DeviceStatus.SUSPENDED, DeviceStatus.REVOKED])
def test_who_may_not_call_gets_no_key(place: Place, own: Path, tmp_path: Path, status: DeviceStatus) -> None:
    server = Server(place, tmp_path)
    server.status = status
    with pytest.raises(EnrolmentRefusedError, match=f"device-{status}"):
        server.ask(own)
    server.status, server.later = DeviceStatus.ACTIVE, timedelta(days=5000)
    with pytest.raises(EnrolmentRefusedError, match="certificate-expired"):
        server.ask(own)
    server.later = timedelta(0)
    with pytest.raises(EnrolmentRefusedError, match="network-not-allowed"):
        server.ask(own, "203.0.113.9")
    with pytest.raises(EnrolmentRefusedError, match="credentials-missing"):
        server.ask(None)
    assert server.events == []


def test_damaged_secret_gives_no_key(place: Place, own: Path, tmp_path: Path) -> None:
    server = Server(place, tmp_path)
    (tmp_path / FILE_NAME).write_bytes(b"short")
    with pytest.raises(HttpError, match="can't be read"):
        server.ask(own)
