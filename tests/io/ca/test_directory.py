"""The CA's directory: made whole or not at all, rolled over, its root far away."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from dicomward.io.ca.directory import CaDirectory, make_ca_directory
from dicomward.io.ca.local import LocalCa, load_certificates
from dicomward.io.ca.terms import CaError
from tests.io.ca_helpers import NOW, PASSPHRASE, make_ca

DAY = timedelta(days=1)


def test_root_and_issuing_ca_are_made(tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca")
    authority = ca.open()
    authority.certificate.verify_directly_issued_by(ca.root)
    constraints = authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert ca.root.not_valid_after_utc == NOW + 7305 * DAY
    assert authority.certificate.not_valid_after_utc == NOW + 1826 * DAY
    assert load_certificates(ca.path / "trust.pem") == (ca.root, authority.certificate)
    assert ca.anchors() == (ca.root,)
    for key in ("root.key.pem", "issuing-1.key.pem"):
        assert (ca.path / key).stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in (ca.path / "root.key.pem").read_bytes()


def test_rsa_for_devices_that_verify_nothing_else(tmp_path: Path) -> None:
    algorithm = make_ca(tmp_path / "ca", kind="rsa").open().certificate.signature_algorithm_oid
    assert algorithm == x509.SignatureAlgorithmOID.RSA_WITH_SHA256


def test_the_root_works_from_where_it_was_moved_to(tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca", root_key=tmp_path / "stick" / "root.pem")
    assert not (ca.path / "root.key.pem").exists()
    with pytest.raises(CaError, match="the root's key is not at"):
        ca.open_root(PASSPHRASE)
    assert ca.open_root(PASSPHRASE, tmp_path / "stick" / "root.pem").certificate == ca.root
    with pytest.raises(CaError, match="passphrase is wrong"):
        ca.open_root(b"another one", tmp_path / "stick" / "root.pem")
    other = make_ca(tmp_path / "other")
    with pytest.raises(CaError, match="is not the key of"):
        ca.open_root(PASSPHRASE, other.path / "root.key.pem")


def test_the_offline_root_in_the_directory_is_found(tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca", root_key=tmp_path / "ca" / "offline-root" / "root.key.pem")
    assert ca.open_root(PASSPHRASE).certificate == ca.root


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / "notes.txt").write_text("mine")
    with pytest.raises(CaError, match="not empty"):
        make_ca(tmp_path / "ca")


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(FileExistsError):
        make_ca(tmp_path / "ca", root_key=tmp_path / "taken")
    assert list((tmp_path / "ca").iterdir()) == []


def test_a_rollover_keeps_the_old_one_trusted(tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca")
    old = ca.open().certificate
    rolled = ca.roll_over(ca.open_root(PASSPHRASE), NOW + DAY)
    assert [(each.name, each.state) for each in rolled.state.issuing] == [
        ("issuing-1", "retired"),
        ("issuing-2", "active"),
    ]
    new = rolled.open().certificate
    assert new.subject != old.subject
    assert load_certificates(ca.path / "trust.pem") == (ca.root, old, new)
    again = rolled.roll_over(ca.open_root(PASSPHRASE), NOW + 2 * DAY, compromised=True)
    assert [each.state for each in again.state.issuing] == ["retired", "compromised", "active"]


def test_a_rollover_that_broke_off_is_repeated(tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca")
    state = (ca.path / "ca.json").read_text()
    ca.roll_over(ca.open_root(PASSPHRASE), NOW)
    (ca.path / "ca.json").write_text(state)
    assert CaDirectory(ca.path).state.active.name == "issuing-1"
    rolled = CaDirectory(ca.path).roll_over(ca.open_root(PASSPHRASE), NOW)
    assert rolled.open().certificate == rolled.certificate_of(rolled.state.active)


def test_a_restored_backup_goes_on(tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca")
    shutil.copytree(ca.path, tmp_path / "restored")
    assert CaDirectory(tmp_path / "restored").open().certificate == ca.open().certificate


def test_an_issuing_ca_never_outlives_its_root(tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca", root_days=10)
    assert ca.open().certificate.not_valid_after_utc == NOW + 10 * DAY


def test_the_local_ca_is_adopted_as_a_retired_one(tmp_path: Path) -> None:
    local = LocalCa.make("local", NOW)
    (tmp_path / "local").mkdir()
    local.save(tmp_path / "local")
    key = (tmp_path / "local" / "ca.key.pem").read_bytes()
    ca = make_ca(tmp_path / "ca").adopt("local", local.certificate_pem, key, NOW)
    assert ca.state.active.name == "issuing-1"
    assert ca.open(ca.state.issuing[1]).certificate == local.certificate
    with pytest.raises(CaError, match="already"):
        ca.adopt("local", local.certificate_pem, key, NOW)


def test_damage_is_told(tmp_path: Path) -> None:
    with pytest.raises(CaError, match="there is no CA"):
        CaDirectory(tmp_path)
    ca = make_ca(tmp_path / "ca")
    state = json.loads((ca.path / "ca.json").read_text())
    for text, message in (
        ("{", "is damaged"),
        (json.dumps(state | {"format": 2}), "not of format 1"),
        (json.dumps(state | {"issuing": [{"name": "x"}]}), "is no issuing CA"),
        (json.dumps(state | {"issuing": []}), "no issuing CA is active"),
    ):
        (ca.path / "ca.json").write_text(text)
        with pytest.raises(CaError, match=message):
            CaDirectory(ca.path).open()


def test_pairs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    ca, other = make_ca(tmp_path / "ca"), make_ca(tmp_path / "other")
    shutil.copy(other.path / "issuing-1.key.pem", ca.path / "issuing-1.key.pem")
    with pytest.raises(CaError, match="is not the one of"):
        ca.open()
    (ca.path / "issuing-1.cert.pem").unlink()
    with pytest.raises(CaError, match="can't be read"):
        ca.certificate_of(ca.state.active)


def test_keys_belong_to_the_owner_of_the_directory(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    (tmp_path / "ca").mkdir()
    os.chown(tmp_path / "ca", 65534, 65534)
    ca = make_ca_directory(tmp_path / "ca", name="x", passphrase=PASSPHRASE, now=NOW)
    assert (ca.path / "issuing-1.key.pem").stat().st_uid == 65534


def as_user(user: int, work: Callable[[], str]) -> str:
    """Do something in a process of another user; return what it returns."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            os.write(writer, work().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(child, 0)
    return told


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two other users")
def test_the_user_of_the_gateway_can_not_open_the_issuing_key() -> None:
    """What the packages set up: a directory of dicomward-ca, mode 0711, and a gateway that runs as somebody else."""
    ca_user, gateway_user = 64_001, 64_002

    def opened() -> str:
        ca = CaDirectory(home / "ca")
        try:
            ca.open()
        except CaError as error:
            return f"{ca.root.subject.rfc4514_string()}: {error}"
        return "opened"

    # The directories of pytest are for one user alone.
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        home.chmod(0o711)
        ca = make_ca(home / "ca")
        for path in (home, ca.path, *ca.path.iterdir()):
            os.chown(path, ca_user, ca_user)
        assert as_user(ca_user, opened) == "opened"
        told = as_user(gateway_user, opened)
    # Its certificates are for everybody.
    assert told.startswith("CN=Test root CA: ")
    assert "issuing-1.key.pem can't be read (Permission denied)" in told
