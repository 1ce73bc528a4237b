"""Each degraded state of docs/patient-safety.md is made to happen with real peers: what works, and the way back."""

import logging
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from dicomward.identity.registry import Device
from dicomward.io.ca.local import KeyKind, LocalCa
from dicomward.io.enrolment.credential_files import credential_files
from dicomward.io.registry.change import apply_change
from dicomward.settings import load_settings
from tests.docs.pages import read
from tests.real.clients import Pynetdicom, Route, data_set_of
from tests.real.gateway import Gateway, dicomward
from tests.real.hospital import TESTER, Hospital, credentials_of, hospital, open_association
from tests.real.pki import Credentials
from tests.real.processes import LOOPBACK, free_port
from tests.real.recording_archive import STUDY_FIND, VERIFICATION, RecordingArchive
from tests.real.samples import sample
from tests.real.site import ARCHIVE, worklist_item

pytestmark = pytest.mark.real

KEYS: Final = {"QueryRetrieveLevel": "STUDY", "PatientID": "1CT1"}
CONGESTION: Final = "rejected 2/3/1"
FLOOR: Final = "only the floor"
EVERYTHING: Final = "everything"
NOTHING: Final = "nothing"


@pytest.fixture(autouse=True)
def _quiet_pynetdicom() -> Iterator[None]:
    log = logging.getLogger("pynetdicom")
    before = log.level
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(before)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Hospital]:
    with hospital(tmp_path) as running:
        running.archive.worklist = [worklist_item(1)]
        yield running


def what_works(route: Route) -> str:
    """Try the floor and a query; say what is left."""
    client = Pynetdicom()
    floor = [client.echo(route), client.store(route, [sample("CT_small.dcm")]), client.worklist(route)]
    reading = client.find(route, KEYS)
    worked = [outcome.succeeded for outcome in floor]
    if all(worked):
        return EVERYTHING if reading.succeeded else FLOOR
    return f"{worked}, reading {reading.succeeded}" if any(worked) or reading.succeeded else NOTHING


def until(what: Callable[[], bool], *, seconds: float = 20.0) -> bool:
    """Ask again until it is so."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
    return True


def states(gateway: Gateway, component: str) -> list[str]:
    """Return the codes of the records about a component, oldest first."""
    return [str(record["code"]) for record in gateway.audit() if record.get("component") == component]


@contextmanager
def full_disk(gateway: Gateway, bytes_left: int = 0) -> Iterator[None]:
    """Let no file of the gateway grow beyond its newest audit segment's size: for the log the same as a full disk."""
    segment = max((gateway.directory / "audit").glob("audit-*.jsonl"))
    _limit_files(gateway, segment.stat().st_size + bytes_left)
    try:
        yield
    finally:
        _limit_files(gateway, resource.RLIM_INFINITY)


def _limit_files(gateway: Gateway, size: int) -> None:
    resource.prlimit(gateway.child.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


# --- the audit log ---------------------------------------------------------------------------------------------------


def test_full_disk_leaves_the_floor_and_records_go_to_the_second_sink(here: Hospital) -> None:
    route = here.device("scanner", "SCANNER")
    # So that the log is longer than what its second sink, standard error, will have to take.
    for _ in range(20):
        assert Pynetdicom().echo(route).succeeded
    reading = open_association(route, VERIFICATION, STUDY_FIND)
    with full_disk(here.gateway):
        assert until(lambda: not Pynetdicom().find(route, KEYS).succeeded)
        assert what_works(route) == FLOOR
        # What was open before the state goes on with the floor too.
        assert reading.send_c_echo().Status == 0
        (status, _identifier), *_rest = reading.send_c_find(data_set_of(KEYS), STUDY_FIND)
        assert status.Status == 0x0124
        second_sink = here.gateway.child.log.read_text(encoding="utf-8")
        assert '"code":"DW-DEGR-ENTER","component":"audit log"' in second_sink
        assert '"code":"DW-OP-ALLOW"' in second_sink
    reading.release()
    assert until(lambda: Pynetdicom().find(route, KEYS).succeeded)
    assert what_works(route) == EVERYTHING
    assert states(here.gateway, "audit log") == ["DW-DEGR-ENTER", "DW-DEGR-LEAVE"]
    assert not [record for record in here.gateway.audit() if record["code"] == "DW-AUDIT-LOST"]
    assert "good" in here.gateway.must("audit", "verify")


def test_without_any_sink_everything_ends_and_comes_back_by_itself(here: Hospital) -> None:
    route = here.device("scanner", "SCANNER")
    assert what_works(route) == EVERYTHING
    open_before = open_association(route, VERIFICATION)
    # Standard error is a file here, so it can't grow either.
    _limit_files(here.gateway, 1)
    try:
        assert until(lambda: Pynetdicom().echo(route).statuses == (CONGESTION,))
        assert what_works(route) == NOTHING
        assert until(lambda: bool(open_before.is_aborted))
    finally:
        _limit_files(here.gateway, resource.RLIM_INFINITY)
    assert until(lambda: what_works(route) == EVERYTHING)
    assert [record["code"] for record in here.gateway.audit()].count("DW-AUDIT-LOST") == 1


def test_log_that_cannot_be_opened_at_the_start_leaves_the_floor(tmp_path: Path) -> None:
    with _prepared(tmp_path) as (gateway, route):
        shutil.rmtree(gateway.directory / "audit")
        (gateway.directory / "audit").touch()
        gateway.start()
        assert what_works(route) == FLOOR
        (gateway.directory / "audit").unlink()
        assert until(lambda: what_works(route) == EVERYTHING)


# --- the databases ---------------------------------------------------------------------------------------------------


def test_without_the_registry_database_everything_works_but_changes(here: Hospital) -> None:
    route = here.device("scanner", "SCANNER")
    database = here.gateway.directory / "registry.db"
    database.rename(database.with_name("away.db"))
    assert what_works(route) == EVERYTHING
    assert here.gateway.run("device", "suspend", "scanner").returncode == 1
    assert what_works(route) == EVERYTHING
    database.with_name("away.db").rename(database)
    here.gateway.must("device", "suspend", "scanner")
    assert what_works(route) == NOTHING


def test_gateway_starts_without_the_registry_database(tmp_path: Path) -> None:
    with _prepared(tmp_path) as (gateway, route):
        (gateway.directory / "registry.db").unlink()
        gateway.start()
        assert what_works(route) == EVERYTHING


def test_gateway_starts_and_serves_without_the_database_of_commitments(tmp_path: Path) -> None:
    with _prepared(tmp_path) as (gateway, route):
        (gateway.directory / "run" / "correlations.db").mkdir(parents=True)
        gateway.start()
        assert what_works(route) == EVERYTHING
        assert until(lambda: states(gateway, "correlations")[:1] == ["DW-DEGR-ENTER"])


def test_budgets_that_cannot_be_kept_leave_the_floor_until_they_can(tmp_path: Path) -> None:
    with _prepared(tmp_path) as (gateway, route):
        blocker = gateway.directory / "run" / "budgets.db"
        blocker.mkdir(parents=True)
        gateway.start()
        assert what_works(route) == FLOOR
        assert until(lambda: states(gateway, "budgets")[:1] == ["DW-DEGR-ENTER"])
        blocker.rmdir()
        assert until(lambda: states(gateway, "budgets") == ["DW-DEGR-ENTER", "DW-DEGR-LEAVE"])
        assert what_works(route) == EVERYTHING


# --- one device ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days_ago", "left"), [(1, FLOOR), (13, FLOOR), (15, NOTHING)])
def test_expired_certificate_keeps_the_floor_within_the_grace(tmp_path: Path, days_ago: int, left: str) -> None:
    with _prepared(tmp_path) as (gateway, route):
        credentials = _expired_device(gateway, "late", "LATE", days_ago)
        gateway.start()
        late = gateway.route(credentials, "LATE")
        assert what_works(late) == left
        assert what_works(route) == EVERYTHING
        reason = "certificate-just-expired" if left == FLOOR else "certificate-expired"
        assert reason in gateway.reasons()


def test_certificate_in_back_off_keeps_the_floor_and_nobody_else_is_touched(here: Hospital) -> None:
    route, other = here.device("scanner", "SCANNER"), here.device("other", "OTHER")
    stranger = replace(route, calling_ae_title="NOBODY")
    for _ in range(10):
        assert Pynetdicom().echo(stranger).statuses == ("rejected 1/1/3",)
    assert what_works(route) == FLOOR
    assert what_works(other) == EVERYTHING
    assert "certificate-back-off" in here.gateway.reasons()


# --- the archive and the gateway -------------------------------------------------------------------------------------


def test_archive_away_is_a_transient_rejection_and_other_archives_go_on(tmp_path: Path) -> None:
    with _prepared(tmp_path) as (gateway, route):
        port = free_port()
        gateway.must("archive", "add", "broker", f"BROKER@127.0.0.1:{port}")
        gateway.start()
        away = replace(route, called_ae_title="BROKER")
        assert Pynetdicom().echo(away).statuses == (CONGESTION,)
        assert what_works(route) == EVERYTHING
        with RecordingArchive("BROKER", port=port):
            assert Pynetdicom().echo(away).succeeded


def test_copy_of_the_directory_takes_over_when_the_gateway_is_dead(here: Hospital, tmp_path: Path) -> None:
    route = here.device("scanner", "SCANNER")
    assert what_works(route) == EVERYTHING
    here.gateway.signal(signal.SIGKILL)
    here.gateway.child.process.wait()
    assert _echo(route).returncode == 1
    directory = tmp_path / "copy" / "elsewhere"
    # A socket is no file; backups leave it out.
    shutil.copytree(here.gateway.directory, directory, ignore=shutil.ignore_patterns("*.sock"))
    taking_over = copy(here.gateway)
    taking_over.directory = directory
    taking_over.start()
    try:
        assert what_works(route) == EVERYTHING
        assert "audit-not-closed" in taking_over.reasons()
        assert "good" in taking_over.must("audit", "verify")
    finally:
        taking_over.stop()


def test_broken_policy_keeps_a_gateway_from_starting_and_disturbs_no_running_one(here: Hospital) -> None:
    route = here.device("scanner", "SCANNER")
    policy = here.gateway.directory / "policy.toml"
    policy.write_text(policy.read_text(encoding="utf-8").replace('effect = "allow"', 'effect = "allwo"', 1), "utf-8")
    assert what_works(route) == EVERYTHING
    assert here.gateway.run("check-config").returncode == 2
    assert dicomward("gateway", "--config", here.gateway.configuration).returncode == 2
    assert what_works(route) == EVERYTHING
    here.gateway.stop()
    assert dicomward("gateway", "--config", here.gateway.configuration).returncode == 2


# --- the page --------------------------------------------------------------------------------------------------------


def test_page_names_the_tests_of_this_file() -> None:
    own = set(re.findall(r"^def (test_\w+)", Path(__file__).read_text(encoding="utf-8"), re.MULTILINE))
    own.discard("test_page_names_the_tests_of_this_file")
    named = set(re.findall(r"test_patient_safety\.py::(test_\w+)", read("patient-safety.md")))
    assert named == own


# --- helpers ---------------------------------------------------------------------------------------------------------


def _echo(route: Route) -> "subprocess.CompletedProcess[str]":
    credentials = credentials_of(route)
    own = ("--cert", credentials.certificate, "--key", credentials.key, "--ca", credentials.authority)
    titles = ("-aet", route.calling_ae_title, "-aec", route.called_ae_title)
    return dicomward("echo", LOOPBACK, str(route.port), *titles, *own)


@contextmanager
def _prepared(directory: Path) -> Iterator[tuple[Gateway, Route]]:
    """Yield a gateway that isn't started yet, and a device's way through it."""
    with ExitStack() as stack:
        archive = stack.enter_context(RecordingArchive(ARCHIVE))
        archive.worklist = [worklist_item(1)]
        gateway = Gateway(directory / "gateway", archive=ARCHIVE, archive_port=archive.port)
        stack.callback(gateway.stop)
        gateway.permit_everything_to(TESTER)
        route = gateway.route(gateway.add_device("scanner", "SCANNER", role=TESTER), "SCANNER")
        yield gateway, route


def _expired_device(gateway: Gateway, name: str, title: str, days_ago: int) -> Credentials:
    """Register a device whose certificate ended some days ago."""
    settings = load_settings(gateway.configuration)
    authority = LocalCa.load(settings.tls.client_ca.parent)
    now = datetime.now(UTC)  # noqa: TID251  certificates are compared with the real clock
    issued = authority.issue_device(name, (title,), KeyKind.ECDSA, now - timedelta(days=days_ago + 1), days=1)
    device = Device(
        name=name,
        ae_titles=(title,),
        role=TESTER,
        site="",
        networks=("127.0.0.0/8",),
        address=None,
        plain=False,
        certificates=(issued.record,),
    )
    out = gateway.directory.parent / name
    with credential_files(out, issued, authority.certificate_pem, keep_on=KeyError):
        apply_change(settings, lambda store: store.add_device(device, by="tests", at=now))
    return Credentials(key=out / "key.pem", certificate=out / "cert.pem", authority=out / "ca.pem")
