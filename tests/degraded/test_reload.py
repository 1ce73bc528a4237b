"""Reload of a running gateway: no association is dropped for it, and what is broken is kept as it was."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicomward.audit.event import ConfigurationReloaded
from dicomward.dicom.pdu import AAbort
from dicomward.identity.registry import DeviceStatus
from dicomward.io.audit.verify import verify_directory
from dicomward.io.ca.local import KeyKind, LocalCa
from dicomward.io.control import Answer, call
from dicomward.io.gateway.reload import KEPT_OLD
from dicomward.io.tls import CertificateFiles
from tests.degraded.place import Place, application, process
from tests.directory_helpers import now
from tests.io.world import ALL, POLICY, SECONDS, Credentials, GoneError, Peer, RawArchive, device, raw_archive
from tests.relay.wire import a_associate_rq, c_find_rq, c_store_rq, identifier, image, message, response_to

DENIED = 0x0124
ECHO_AND_STORE = POLICY.replace(', "c-find", "c-get", "c-move"', "")


@pytest.fixture
def archive() -> Iterator[RawArchive]:
    with raw_archive() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, archive: RawArchive) -> Iterator[Place]:
    made = Place(tmp_path / "gateway", archive)
    yield made
    made.close()


def reload(place: Place) -> Answer:
    request: Answer = {"do": "reload", "audit": {"operator": "anna"}}
    answer = call(place.settings.gateway.state_directory, request, SECONDS)
    assert answer is not None
    return answer


def part(answer: Answer, name: str) -> dict[str, object]:
    said = answer[name]
    assert isinstance(said, dict)
    return said


def find(peer: Peer) -> int | None:
    peer.send(message(5, c_find_rq(50), identifier()))
    return peer.next_message().command.status


def test_open_association_sees_the_new_policy_with_its_next_operation(place: Place) -> None:
    with application(place):
        peer = place.peer().established()
        assert find(peer) == 0
        place.settings.policy.file.write_text(ECHO_AND_STORE, encoding="utf-8")
        answer = reload(place)
        assert answer["ok"] is True
        assert part(answer, "policy")["state"] == "changed"
        assert find(peer) == DENIED
        assert peer.echo() == 0
        place.settings.policy.file.write_text(POLICY, encoding="utf-8")
        reload(place)
        assert find(peer) == 0
        peer.release()
    told = place.records()
    first, second, third = (
        str(record["policy_revision"])
        for record in told
        if record["code"] in ("DW-OP-ALLOW", "DW-OP-DENY") and record.get("operation") == "c-find"
    )
    assert first == third != second
    changes = [record for record in told if record["code"] == "DW-POLICY-CHANGE"]
    assert [(change["operator"], change["policy_revision"]) for change in changes[-2:]] == [
        ("anna", second),
        ("anna", third),
    ]


def test_operation_that_is_under_way_goes_on(place: Place) -> None:
    with raw_archive(serves=False) as slow:
        place.archive = slow
        place.register(device("ct1", place.scanner))
        with application(place):
            peer = place.peer()
            asked = threading.Thread(target=peer.established)
            asked.start()
            theirs, _ = slow.take_association()
            asked.join(SECONDS)
            peer.send(message(3, c_store_rq(1), image()))
            request = theirs.next_message()
            reload(place)
            theirs.send(message(3, response_to(request.command)))
            assert peer.next_message().command.status == 0
            peer.close()
            theirs.close()


def test_broken_policy_is_kept_out_and_said(place: Place) -> None:
    with application(place) as running:
        peer = place.peer().established()
        revision = running.gateway._gate.policy.revision
        place.settings.policy.file.write_text('version = 1\n[[rule]]\nid = "x"\neffect = "alow"\n', encoding="utf-8")
        answer = reload(place)
        assert answer["ok"] is False
        said = part(answer, "policy")
        assert (said["state"], said["revision"]) == (KEPT_OLD, revision)
        assert "alow" in str(said["problem"])
        assert find(peer) == 0
        place.settings.policy.file.write_text(POLICY, encoding="utf-8")
        assert reload(place)["ok"] is True
        peer.close()
    told = [(record["code"], record.get("component")) for record in place.records()]
    assert told.index(("DW-DEGR-ENTER", "policy")) < told.index(("DW-DEGR-LEAVE", "policy"))


def new_certificate(place: Place, *, days: int = 30, born: object = None) -> None:
    pair = place.settings.tls.certificates[0]
    issued = LocalCa.load(place.settings.directory / "ca").issue_gateway(
        KeyKind.ECDSA,
        ("127.0.0.1",),
        born or now(),  # type: ignore[arg-type]
        days=days,
    )
    pair.key.write_bytes(issued.key_pem)
    pair.certificate.write_bytes(issued.certificate_pem)


def shown(place: Place) -> bytes:
    """Return the certificate that the gateway shows."""
    der = place.peer().socket.getpeercert(binary_form=True)  # type: ignore[attr-defined]
    assert isinstance(der, bytes)
    return der


def test_new_certificate_is_shown_to_the_next_connection(place: Place) -> None:
    with application(place):
        peer = place.peer().established()
        before = shown(place)
        new_certificate(place)
        answer = reload(place)
        assert part(answer, "certificates")["state"] == "changed"
        assert shown(place) != before
        assert peer.echo() == 0


@pytest.mark.parametrize("what", ["torn", "mismatch", "expired", "missing", "ca"])
def test_broken_certificate_is_kept_out_and_said(place: Place, what: str) -> None:
    with application(place):
        before = shown(place)
        pair = place.settings.tls.certificates[0]
        match what:
            case "torn":
                pair.certificate.write_bytes(pair.certificate.read_bytes()[:200])
            case "mismatch":
                pair.key.write_bytes(
                    LocalCa.load(place.settings.directory / "ca")
                    .issue_gateway(KeyKind.ECDSA, ("127.0.0.1",), now())
                    .key_pem
                )
            case "expired":
                new_certificate(place, days=1, born=now().replace(year=2020))
            case "missing":
                pair.certificate.unlink()
            case "ca":
                place.settings.tls.client_ca.write_text("nonsense")
        answer = reload(place)
        assert answer["ok"] is False
        said = part(answer, "certificates")
        assert said["state"] == KEPT_OLD
        named = place.settings.tls.client_ca if what == "ca" else pair.certificate
        assert named.name in str(said["problem"])
        if what != "ca":
            assert shown(place) == before
    assert "DW-DEGR-ENTER" in {
        record["code"] for record in place.records() if record.get("component") == "certificates"
    }


def other_authority(place: Place, directory: Path) -> Credentials:
    """Return credentials of ct2 that another CA has issued; the CA is `other.pem`. The gateway's own is believed."""
    own = directory / "own.pem"
    own.write_bytes(place.settings.tls.client_ca.read_bytes())
    other = LocalCa.make("other", now())
    (directory / "other.pem").write_bytes(other.certificate_pem)
    issued = other.issue_device("ct2", ("CT2",), KeyKind.ECDSA, now(), days=30)
    files = CertificateFiles(directory / "ct2.cert.pem", directory / "ct2.key.pem")
    files.certificate.write_bytes(issued.certificate_pem)
    files.key.write_bytes(issued.key_pem)
    return Credentials(files, issued.record, own)


def test_authority_that_is_taken_out_lets_nobody_new_in(place: Place, tmp_path: Path) -> None:
    credentials = other_authority(place, tmp_path)
    with application(place):
        peer = place.peer().established()
        place.settings.tls.client_ca.write_bytes((tmp_path / "other.pem").read_bytes())
        assert reload(place)["ok"] is True
        assert peer.echo() == 0
        with pytest.raises((GoneError, OSError)):
            place.peer(replace(place.scanner, authority=credentials.authority)).associate()


def test_limits_count_at_once_and_buckets_keep_their_state(place: Place) -> None:
    with application(place):
        peer = place.peer().established()
        assert find(peer) == 0
        with place.settings.path.open("a", encoding="utf-8") as file:
            file.write("\n[limits.device.ct1]\nqueries_per_minute = 1\n")
        answer = reload(place)
        assert part(answer, "settings")["changed"] == ["limits"]
        assert find(peer) == 0
        assert find(peer) != 0


def test_what_needs_a_restart_is_named(place: Place) -> None:
    with application(place):
        place.configure(archive_listen="127.0.0.1:1", idle_seconds=5, workers=3)
        said = part(reload(place), "settings")
        assert said["needs_restart"] == ["gateway.archive_listen", "gateway.workers"]
        assert said["changed"] == ["gateway.idle_seconds"]


def test_registry_is_loaded_and_what_it_forbids_is_ended(place: Place) -> None:
    with application(place):
        peer = place.peer().established()
        place.register(device("ct1", place.scanner, status=DeviceStatus.SUSPENDED))
        answer = reload(place)
        assert part(answer, "registry")["aborted"] == 1
        assert isinstance(peer.next(), AAbort)
    assert "DW-REG-CHANGE" in {record["code"] for record in place.records()}


def test_broken_registry_is_kept_out(place: Place) -> None:
    with application(place):
        peer = place.peer().established()
        place.settings.registry.snapshot.write_text("{", encoding="utf-8")
        assert part(reload(place), "registry")["state"] == KEPT_OLD
        assert peer.echo() == 0
        place.register(device("ct1", place.scanner))


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_sighup_reloads_and_drops_nobody(place: Place) -> None:
    with process(place) as running:
        peer = place.peer().established()
        place.settings.policy.file.write_text(ECHO_AND_STORE, encoding="utf-8")
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "policy changed" in running.log)
        assert find(peer) == DENIED
        assert peer.echo() == 0
        place.settings.path.write_text("[gateway\n", encoding="utf-8")
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "settings: the old version is kept" in running.log)
        assert peer.echo() == 0
        peer.release()
        peer.close()
        assert running.stop() == 0
    code = ConfigurationReloaded.code
    told = [(record["action"], record["state"]) for record in place.records() if record["code"] == code]
    assert told == [("SIGHUP", "ok"), ("SIGHUP", KEPT_OLD)]


def test_kill_in_the_middle_of_reloads_leaves_a_whole_log_and_a_record_of_the_policy(place: Place) -> None:
    """At whatever moment it dies, the next start knows which policy is in force, and says so if nobody has."""
    for round_ in range(4):
        with process(place) as running:
            over = threading.Event()

            def change(over: threading.Event = over, round_: int = round_) -> None:
                number = 0
                while not over.is_set():
                    number += 1
                    fresh = place.settings.policy.file.with_suffix(".new")
                    fresh.write_text(f"# {round_}.{number}\n{POLICY}", encoding="utf-8")
                    fresh.replace(place.settings.policy.file)
                    try:
                        reload(place)
                    except Exception:
                        return

            thread = threading.Thread(target=change)
            thread.start()
            running_for = threading.Event()
            running_for.wait(0.15 + 0.07 * round_)
            os.kill(running.process.pid, signal.SIGKILL)
            running._over()
            over.set()
            thread.join(SECONDS)
    with application(place) as last:
        revision = last.gateway._gate.policy.revision
        assert place.peer().established().echo() == 0
    changes = [record for record in place.records() if record["code"] == "DW-POLICY-CHANGE"]
    assert changes[-1]["policy_revision"] == revision
    assert verify_directory(place.settings.audit.directory).report.findings == ()


def test_authority_that_is_added_lets_its_devices_in(place: Place, tmp_path: Path) -> None:
    credentials = other_authority(place, tmp_path)
    place.register(device("ct1", place.scanner), device("ct2", credentials))
    request = a_associate_rq(ALL, calling="CT2")
    with application(place):
        with pytest.raises((GoneError, OSError)):
            place.peer(credentials).associate(request)
        with place.settings.tls.client_ca.open("ab") as file:
            file.write((tmp_path / "other.pem").read_bytes())
        assert part(reload(place), "certificates")["state"] == "changed"
        assert place.peer(credentials).established(request).echo() == 0
