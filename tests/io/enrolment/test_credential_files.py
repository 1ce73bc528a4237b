"""A device's three files: whole or not at all, never over others."""

import stat
from pathlib import Path

import pytest

from dicomward.io.ca.local import Issued, KeyKind, LocalCa, write_new_file
from dicomward.io.enrolment import credential_files as module
from dicomward.io.enrolment.credential_files import NAMES, CredentialFilesError, credential_files
from tests.directory_helpers import now


@pytest.fixture(scope="module")
def ca() -> LocalCa:
    return LocalCa.make("CA", now())


@pytest.fixture
def issued(ca: LocalCa) -> Issued:
    return ca.issue_device("ct1", ["CT1"], KeyKind.ECDSA, now())


class StoredAnywayError(Exception):
    """Stands for: the device is registered, but perhaps not in force."""


def write(directory: Path, issued: Issued, failure: BaseException | None = None) -> None:
    with credential_files(directory, issued, b"CA", keep_on=StoredAnywayError):
        assert (directory / "key.pem").read_bytes() == issued.key_pem
        if failure is not None:
            raise failure


def test_files_are_written_with_their_rights(tmp_path: Path, issued: Issued) -> None:
    directory = tmp_path / "a" / "b"
    write(directory, issued)
    assert (directory / "cert.pem").read_bytes() == issued.certificate_pem
    assert (directory / "ca.pem").read_bytes() == b"CA"
    modes = [stat.S_IMODE((directory / name).stat().st_mode) for name in NAMES]
    assert modes == [0o600, 0o644, 0o644]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_overwritten(tmp_path: Path, issued: Issued, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(CredentialFilesError, match=f"has {name} already, and nothing is overwritten"):
        write(tmp_path, issued)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_dangling_link_is_not_followed(tmp_path: Path, issued: Issued) -> None:
    (tmp_path / "key.pem").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CredentialFilesError, match="nothing is overwritten"):
        write(tmp_path, issued)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("failure", [ValueError("refused"), KeyboardInterrupt(), OSError(5, "elsewhere")])
def test_refused_device_leaves_no_files(tmp_path: Path, issued: Issued, failure: BaseException) -> None:
    with pytest.raises(type(failure)):
        write(tmp_path / "new", issued, failure)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "notes.txt").write_text("mine")
    with pytest.raises(type(failure)):
        write(tmp_path / "old", issued, failure)
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["notes.txt"]


def test_stored_device_keeps_its_files(tmp_path: Path, issued: Issued) -> None:
    with pytest.raises(StoredAnywayError):
        write(tmp_path / "new", issued, StoredAnywayError())
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(NAMES)


def test_full_disk_leaves_no_files(tmp_path: Path, issued: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    real = write_new_file

    def fill_up(path: Path, data: bytes, mode: int) -> None:
        if path.name == "ca.pem":
            raise OSError(28, "No space left on device")
        real(path, data, mode)

    monkeypatch.setattr(module, "write_new_file", fill_up)
    with pytest.raises(CredentialFilesError, match=r"can't be written to .*new \(No space left on device\); check"):
        write(tmp_path / "new", issued)
    assert list(tmp_path.iterdir()) == []


def test_file_in_place_of_the_directory_is_explained(tmp_path: Path, issued: Issued) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CredentialFilesError, match=r"can't be written to .*file \(File exists\)"):
        write(tmp_path / "file", issued)
    assert (tmp_path / "file").read_text() == "mine"
