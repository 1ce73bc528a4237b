"""A fleet in front of a real gateway: enrolled, rolled over to another issuing CA, renewed, compromised."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from ssl import DER_cert_to_PEM_cert

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from dicomward.dicom.pdu import AAssociateAc, AAssociateRj
from dicomward.enrolment.grant import Issued
from dicomward.identity.registry import CertificateRecord, Endpoint
from dicomward.io.ca.directory import CaDirectory
from dicomward.io.ca.issuer import CaIssuer
from dicomward.io.ca.keys import key_pem
from dicomward.io.ca.publish import Publisher
from dicomward.io.ca.renewals import report_compromise
from dicomward.io.ca.service import gateway_anchors, issuing_terms, trust
from dicomward.io.control import call
from dicomward.io.registry.change import apply_change
from dicomward.io.registry.store import RegistryStore
from dicomward.io.tls import CertificateFiles
from tests.degraded.place import Place, application
from tests.directory_helpers import now
from tests.io.ca_helpers import PASSPHRASE, grant, make_ca, spki
from tests.io.world import ALL, SECONDS, Credentials, Peer, RawArchive, archive_at, raw_archive
from tests.relay.wire import a_associate_rq, c_store_rq, image, message

VERIFICATION, STORAGE = 1, 3


@pytest.fixture
def archive() -> Iterator[RawArchive]:
    with raw_archive() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, archive: RawArchive) -> Iterator[Place]:
    made = Place(tmp_path / "gateway", archive)
    settings = made.settings
    with RegistryStore.open(settings.registry.url) as store:
        store.remove_archive("PACS", by="anna", at=now())
        store.add_archive(archive_at(archive.endpoint), by="anna", at=now())
    apply_change(settings, lambda store: store.read())
    ca = make_ca(settings.enrolment.ca, now(), more_anchors=gateway_anchors(settings))
    trust(settings, [ca.root, ca.open().certificate])
    yield made
    made.close()


@dataclass
class Fleet:
    """What devices and the enrolment server do."""

    place: Place

    def issuer(self, store: RegistryStore) -> CaIssuer:
        return CaIssuer(store, CaDirectory(self.place.settings.enrolment.ca), issuing_terms(self.place.settings))

    def enrol(self, name: str, **granted: object) -> Credentials:
        key = ec.generate_private_key(ec.SECP256R1())
        address = Endpoint(host="127.0.0.1", port=104)
        wanted = grant(name, role="scanner", networks=("127.0.0.1/32",), address=address, **granted)
        with RegistryStore.open(self.place.settings.registry.url) as store:
            return self._keep(self.issuer(store).issue(spki(key), wanted, now()), key)

    def renew(self, old: Credentials) -> Credentials:
        key = ec.generate_private_key(ec.SECP256R1())
        with RegistryStore.open(self.place.settings.registry.url) as store:
            return self._keep(self.issuer(store).renew(spki(key), old.record.sha256, now()), key)

    def _keep(self, issued: Issued, key: ec.EllipticCurvePrivateKey) -> Credentials:
        assert Publisher(self.place.settings).publish(issued.revision) is None
        folder = self.place.settings.directory / "devices" / issued.sha256
        folder.mkdir(parents=True)
        files = CertificateFiles(folder / "cert.pem", folder / "key.pem")
        files.certificate.write_text(
            "".join(DER_cert_to_PEM_cert(each) for each in (issued.certificate, *issued.chain))
        )
        files.key.write_bytes(key_pem(key, None))
        record = CertificateRecord(
            sha256=issued.sha256,
            not_before=issued.not_before,
            not_after=issued.not_after,
            status="active",
            serial=f"{issued.serial:x}",
        )
        return Credentials(files, record, self.place.settings.enrolment.ca / "anchors.pem")

    def roll_over(self) -> None:
        settings = self.place.settings
        ca = CaDirectory(settings.enrolment.ca)
        rolled = ca.roll_over(ca.open_root(PASSPHRASE), now())
        trust(settings, [rolled.open().certificate])
        answer = call(settings.gateway.state_directory, {"do": "reload", "audit": {"operator": "anna"}}, SECONDS)
        assert answer is not None
        assert answer["ok"] is True


def store(peer: Peer) -> int | None:
    peer.send(message(3, c_store_rq(7), image()))
    return peer.next_message().command.status


def accepted(peer: Peer) -> set[int]:
    answer = peer.associate()
    assert isinstance(answer, AAssociateAc)
    return {context.context_id for context in answer.presentation_contexts if context.result == 0}


def test_new_or_replaced_credential_may_only_echo_until_a_second_person_has_confirmed_it(place: Place) -> None:
    def only_echo(credentials: Credentials) -> None:
        peer = place.peer(credentials)
        assert accepted(peer) == {VERIFICATION}
        assert peer.echo() == 0
        refused = place.peer(credentials).associate(a_associate_rq({STORAGE: ALL[STORAGE]}))
        assert isinstance(refused, AAssociateRj)
        denied = [each for each in place.records() if each["code"] == "DW-ASSOC-DENY"]
        assert denied[-1]["reason"] == "not-confirmed", denied[-1]
        assert (refused.result, refused.source, refused.reason) == (1, 1, 1)

    def confirm() -> None:
        applied = apply_change(place.settings, lambda store: store.confirm_device("ct1", by="bert", at=now()))
        assert applied.gateway_runs

    fleet = Fleet(place)
    with application(place):
        first = fleet.enrol("ct1", needs_confirmation=True)
        only_echo(first)
        confirm()
        assert store(place.peer(first).established()) == 0
        # A replacement with a key of its own has to be confirmed again; the one before goes on until then.
        second = fleet.enrol("ct1", needs_confirmation=True)
        assert store(place.peer(first).established()) == 0
        only_echo(second)
        confirm()
        assert store(place.peer(second).established()) == 0


def test_enrolled_rolled_over_renewed_and_compromised(place: Place) -> None:
    fleet = Fleet(place)
    with application(place):
        first = fleet.enrol("ct1")
        assert place.peer(first).established().echo() == 0
        fleet.roll_over()
        second = fleet.renew(first)
        # Old and new overlap, of two issuing CAs.
        assert place.peer(first).established().echo() == 0
        still_open = place.peer(second).established()
        assert still_open.echo() == 0
        applied = apply_change(place.settings, lambda store: report_compromise(store, "ct1", by="anna", at=now()))
        # It returns when all its associations are over.
        assert (applied.gateway_runs, applied.aborted) == (True, 3)
        assert place.peer(second).associate() is not None
    records = place.records()
    actions = [record.get("action") for record in records if record["code"] == "DW-REG-CHANGE"]
    assert actions[-3:] == ["enrol-device", "renew-device", "key-compromise"]
    denied = [record for record in records if record["code"] == "DW-ASSOC-DENY"]
    assert denied[-1]["reason"] == "certificate-revoked"
