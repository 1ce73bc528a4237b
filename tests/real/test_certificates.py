"""TLS sessions and certificates over time: what is checked after every handshake, resumed ones too."""

import datetime
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real import raw_peer as raw
from tests.real.clients import Pynetdicom, Route
from tests.real.gateway import Gateway
from tests.real.hospital import Hospital, credentials_of, hospital
from tests.real.pki import Authority, Credentials
from tests.real.recording_archive import STUDY_FIND, VERIFICATION, RecordingArchive
from tests.real.site import ARCHIVE

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
# Long enough for a start, a registration and an association on a busy machine.
LIFE = datetime.timedelta(seconds=8)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    with hospital(tmp_path_factory.mktemp("certificates")) as running:
        yield running


class Resumer:
    """A device that resumes its TLS session each time that it calls."""

    def __init__(self, route: Route, version: ssl.TLSVersion) -> None:
        self._route = route
        self._context = credentials_of(route).client_context(minimum=version, maximum=version)
        self._session: ssl.SSLSession | None = None
        self.resumed: bool | None = None

    def associate(self, *sop_classes: str) -> raw.Pdu:
        """Ask for an association; return the answer, and abort what was accepted."""
        with raw.connect(self._route, context=self._context, session=self._session) as connection:
            secure = connection.socket
            if not isinstance(secure, ssl.SSLSocket):
                raise AssertionError("no TLS")
            self.resumed = secure.session_reused
            contexts = {2 * number + 1: (uid, [raw.IMPLICIT]) for number, uid in enumerate(sop_classes)}
            connection.send(raw.request_on(self._route, contexts))
            answer = connection.receive()
            if answer is None:
                raise AssertionError("the gateway closed without an answer")
            # The first session is kept: a new ticket of a later handshake would tell of a later certificate check.
            self._session = self._session or secure.session
            if answer.kind == raw.ASSOCIATE_AC:
                connection.send(raw.pdu(raw.ABORT, bytes(4)))
            return answer


@pytest.mark.parametrize("version", VERSIONS)
def test_device_that_behaves_resumes_its_session(here: Hospital, version: ssl.TLSVersion) -> None:
    """Without this the refusals below would prove nothing about resumption."""
    resumer = Resumer(here.device(f"good{version}", f"GOOD{version}"), version)
    assert resumer.associate(VERIFICATION).kind == raw.ASSOCIATE_AC
    assert resumer.associate(VERIFICATION).kind == raw.ASSOCIATE_AC
    assert resumer.resumed


@pytest.mark.parametrize("command", ["suspend", "revoke"])
@pytest.mark.parametrize("version", VERSIONS)
def test_resumed_session_of_a_device_that_is_out_is_rejected(
    here: Hospital, version: ssl.TLSVersion, command: str
) -> None:
    name = f"{command}-{version}"
    resumer = Resumer(here.device(name, name.upper()), version)
    assert resumer.associate(VERIFICATION).kind == raw.ASSOCIATE_AC
    here.gateway.must("device", command, name)
    answer = resumer.associate(VERIFICATION)
    assert resumer.resumed
    assert (answer.kind, answer.numbers) == (raw.ASSOCIATE_RJ, "1/1/3")
    reasons = {record["reason"] for record in here.gateway.audit("--device", name) if record.get("reason")}
    assert f"device-{'suspended' if command == 'suspend' else 'revoked'}" in reasons | here.gateway.reasons()


def test_resumed_session_of_a_replaced_certificate_is_rejected(here: Hospital, tmp_path: Path) -> None:
    resumer = Resumer(here.device("renewed", "RENEWED"), ssl.TLSVersion.TLSv1_3)
    assert resumer.associate(VERIFICATION).kind == raw.ASSOCIATE_AC
    here.gateway.must("device", "renew", "renewed", "--out", tmp_path / "new", "--revoke-old")
    answer = resumer.associate(VERIFICATION)
    assert resumer.resumed
    assert (answer.kind, answer.numbers) == (raw.ASSOCIATE_RJ, "1/1/3")
    assert "certificate-revoked" in here.gateway.reasons()


@pytest.fixture(params=[0, 7], ids=["no-grace", "a-week-of-grace"])
def grace(request: pytest.FixtureRequest) -> int:
    days: int = request.param
    return days


def test_certificate_that_expires_is_noticed_on_resumption_and_on_a_new_handshake(tmp_path: Path, grace: int) -> None:
    """OpenSSL itself would take an expired certificate on resumption. With grace the clinical floor goes on."""
    authority = Authority("Hospital CA", tmp_path / "pki")
    with RecordingArchive(ARCHIVE) as archive:
        gateway = Gateway(tmp_path / "gateway", archive=ARCHIVE, archive_port=archive.port)
        try:
            gateway.trust(authority.path)
            gateway.configure("tls", expired_certificate_grace_days=grace)
            gateway.permit_everything_to("tester")
            gateway.start()
            issued, expires = _issue(authority)
            credentials = gateway.add_device("scanner", "SCANNER", role="tester", own=issued)
            route = gateway.route(credentials, "SCANNER")
            resumers = [Resumer(route, version) for version in VERSIONS]
            for resumer in resumers:
                first = resumer.associate(VERIFICATION, STUDY_FIND)
                assert (first.kind, raw.results_of(first)) == (raw.ASSOCIATE_AC, [0, 0])

            answers = [_associate_until_expired(resumer, expires) for resumer in resumers]
            assert all(resumer.resumed for resumer in resumers)
            answers += [Resumer(route, version).associate(VERIFICATION, STUDY_FIND) for version in VERSIONS]
            for answer in answers:
                if grace:
                    # User rejection of the query; C-ECHO stands for the floor.
                    assert (answer.kind, raw.results_of(answer)) == (raw.ASSOCIATE_AC, [0, 1])
                else:
                    assert (answer.kind, answer.numbers) == (raw.ASSOCIATE_RJ, "1/1/3")
            assert Pynetdicom().echo(route).succeeded == bool(grace)
            assert f"certificate-{'just-' if grace else ''}expired" in gateway.reasons()
        finally:
            gateway.stop()


def _issue(authority: Authority) -> tuple[Credentials, float]:
    issued = authority.issue("scanner", life=LIFE)
    return issued, time.monotonic() + LIFE.total_seconds()


def _associate_until_expired(resumer: Resumer, expires: float) -> raw.Pdu:
    """Resume again and again: nothing changes before the certificate's end, and then it does within two seconds."""
    while True:
        before = time.monotonic()
        answer = resumer.associate(VERIFICATION, STUDY_FIND)
        if answer.kind == raw.ASSOCIATE_RJ or raw.results_of(answer) != [0, 0]:
            # A certificate's times are whole seconds, cut off.
            assert time.monotonic() > expires - 1.5
            return answer
        assert before < expires + 2.0, "it has expired, and nothing has changed"


def test_foreign_authority_opens_nothing_for_a_certificate_that_is_not_bound(tmp_path: Path) -> None:
    """It chains to a CA that the gateway trusts, and is still nobody's."""
    authority = Authority("Hospital CA", tmp_path / "pki")
    with RecordingArchive(ARCHIVE) as archive:
        gateway = Gateway(tmp_path / "gateway", archive=ARCHIVE, archive_port=archive.port)
        try:
            gateway.trust(authority.path)
            gateway.start()
            bound = gateway.add_device("scanner", "SCANNER", role="modality", own=authority.issue("scanner"))
            other = Credentials(
                key=(unbound := authority.issue("visitor")).key,
                certificate=unbound.certificate,
                authority=bound.authority,
            )
            assert Pynetdicom().echo(gateway.route(bound, "SCANNER")).succeeded
            outcome = Pynetdicom().echo(gateway.route(other, "SCANNER"))
            assert outcome.statuses == ("rejected 1/1/3",)
            assert "certificate-unknown" in gateway.reasons()
        finally:
            gateway.stop()
