"""The desk, where EST doesn't reach it: CMP's side, and what is broken here."""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dicomward.enrolment.invitation import MOST_WRONG_GUESSES
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.enrolment.request import decode_request
from dicomward.io.ca.issuer import CaIssuer
from dicomward.io.ca.sign import der_of
from dicomward.io.enrolment.desk import Desk
from dicomward.io.enrolment.invitation_store import all_invitations, revoke_invitations
from dicomward.io.enrolment.inviting import Handed, Wish, invite, new_passphrase
from dicomward.io.registry.store import RegistryStore
from dicomward.vocab.reason import ReasonCode
from tests.io.ca_helpers import NOW, TERMS, grant, make_ca, spki
from tests.io.enrolment_place import new_key, request

KEY = bytes(32)
HERE = "127.0.0.1"


class Office:
    """A desk with its database, and the revisions that it has published."""

    def __init__(self, directory: Path) -> None:
        ca = make_ca(directory / "ca")
        self.root = der_of(ca.root)
        self.store = RegistryStore.open(f"sqlite:///{directory}/registry.db", create=True)
        self.published: list[int] = []
        self.problem: str | None = None
        self.desk = Desk(self.store, CaIssuer(self.store, ca, TERMS), self.publish, KEY)

    def publish(self, revision: int) -> str | None:
        self.published.append(revision)
        return self.problem

    def invite(self, name: str = "ct3", **changed: object) -> Handed:
        wish = Wish(grant=grant(name, **changed), expires_at=NOW + timedelta(hours=1))
        (handed,) = invite(self.store, [wish], by="anna", now=NOW, key=KEY, root=self.root)
        return handed


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.store.close()


def reason_of(error: pytest.ExceptionInfo[EnrolmentRefusedError]) -> ReasonCode:
    return error.value.reason


def test_cmp_gets_the_secret_of_an_open_invitation(office: Office) -> None:
    handed = office.invite()
    for reference in ("ct3", handed.invitation.id):
        found = office.desk.cmp_invitation(reference, HERE, NOW)
        assert found.secret == handed.cmp_secret
        assert len(found.secret) * 5 >= 128
    issued = office.desk.enrol_cmp(found.id, spki(), HERE, NOW)
    assert (issued.device, office.published) == ("ct3", [issued.revision])
    with pytest.raises(EnrolmentRefusedError) as used:
        office.desk.cmp_invitation("ct3", HERE, NOW)
    assert reason_of(used) is ReasonCode.CODE_USED
    with pytest.raises(EnrolmentRefusedError) as again:
        office.desk.enrol_cmp(found.id, spki(), HERE, NOW)
    assert reason_of(again) is ReasonCode.CODE_USED
    with office.store.reading() as connection:
        (stored,) = all_invitations(connection)
    assert stored.cmp_secret == ""


def test_cmp_is_refused_for_every_reason(office: Office) -> None:
    def refused(reference: str, *, address: str = HERE, later: timedelta = timedelta(0)) -> ReasonCode:
        with pytest.raises(EnrolmentRefusedError) as caught:
            office.desk.cmp_invitation(reference, address, NOW + later)
        return reason_of(caught)

    assert refused("nobody") is ReasonCode.INVITATION_UNKNOWN
    handed = office.invite("ct1")
    assert refused("ct1", address="10.0.0.1") is ReasonCode.NETWORK_NOT_ALLOWED
    assert refused("ct1", later=timedelta(hours=1)) is ReasonCode.CODE_EXPIRED
    for _ in range(MOST_WRONG_GUESSES):
        office.desk.count_wrong_cmp(handed.invitation.id, HERE, NOW)
    office.desk.count_wrong_cmp(handed.invitation.id, HERE, NOW)
    office.desk.count_wrong_cmp("nobody", HERE, NOW)
    assert refused("ct1") is ReasonCode.CODE_DEAD
    office.invite("ct2")
    with office.store.writing() as connection:
        assert revoke_invitations(connection, "ct2", by="anna", now=NOW) == 1
    assert refused("ct2") is ReasonCode.CODE_REVOKED
    with pytest.raises(EnrolmentRefusedError) as unknown:
        office.desk.enrol_cmp("nobody", spki(), HERE, NOW)
    assert reason_of(unknown) is ReasonCode.INVITATION_UNKNOWN


def test_secret_of_another_key_is_not_the_devices_fault(office: Office) -> None:
    office.invite()
    other = Desk(office.store, office.desk.issuer, office.publish, b"x" * 32)
    with pytest.raises(EnrolmentRefusedError) as caught:
        other.cmp_invitation("ct3", HERE, NOW)
    assert reason_of(caught) is ReasonCode.CA_UNAVAILABLE


def test_certificate_is_handed_out_although_the_gateway_does_not_answer(office: Office) -> None:
    office.problem = "the gateway did not answer"
    handed, key = office.invite(), new_key()
    wanted = decode_request(base64.b64decode(request(key)))
    issued = office.desk.enrol("ct3", handed.code.text, wanted, HERE, NOW)
    assert hashlib.sha256(issued.certificate).hexdigest() == issued.sha256


def test_broken_database_refuses_and_counts_nothing(office: Office) -> None:
    handed = office.invite()
    with office.store.writing() as connection:
        connection.exec_driver_sql("UPDATE invitations SET granted = '{}'")
    wanted = decode_request(base64.b64decode(request(new_key())))
    with pytest.raises(EnrolmentRefusedError) as caught:
        office.desk.enrol("ct3", handed.code.text, wanted, HERE, NOW)
    assert reason_of(caught) is ReasonCode.CA_UNAVAILABLE


def test_what_is_stored_of_a_code_is_no_code(office: Office) -> None:
    handed = office.invite()
    with office.store.reading() as connection:
        row = connection.exec_driver_sql("SELECT * FROM invitations").mappings().one()
    assert handed.code.secret not in str(dict(row))
    assert handed.cmp_secret not in str(dict(row))
    assert handed.code.secret not in repr(handed) + repr(handed.invitation)


def test_passphrases_are_long_and_differ() -> None:
    assert len({new_passphrase() for _ in range(50)}) == 50
    assert len(new_passphrase().replace("-", "")) == 20


def test_holder_ends_its_certificate_and_hears_if_the_gateway_may_not_know(office: Office) -> None:
    found = office.desk.cmp_invitation(office.invite().invitation.id, HERE, NOW)
    issued = office.desk.enrol_cmp(found.id, spki(), HERE, NOW)
    office.desk.revoke(issued.sha256, NOW, detail="gone")
    device = office.store.read().device_by_name("ct3")
    assert device is not None
    assert [each.status for each in device.certificates] == ["revoked"]
    assert office.published[-1] > issued.revision
    office.problem = "no answer"
    with pytest.raises(EnrolmentRefusedError) as caught:
        office.desk.revoke(issued.sha256, NOW, detail="gone")
    assert reason_of(caught) is ReasonCode.CA_UNAVAILABLE


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0,
    reason="a really full disk needs a mount namespace (unshare), so root",
)
def test_a_really_full_disk_issues_nothing_and_the_code_stays_good(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    command = [sys.executable, "-m", "tests.io.enrolment.on_a_full_disk", str(mount)]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", *command],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["full"] == [503, "nothing can be issued now; try again later\n"]
    assert "database or disk is full" in done.stderr, "the operator reads why"
    assert told["same"], "no certificate, no binding, no change"
    assert (told["free"], told["more"], told["again"]) == (200, [1, 1, 1], 403)
