"""Restoring: a backup is believed only as far as it has been checked, and what fails leaves nothing behind."""

import gzip
import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomward.io.installation.backup import BackupError, make_backup
from dicomward.io.installation.compression import PackingError
from dicomward.io.installation.restore import restore_backup, verify_backup
from dicomward.settings import Settings
from tests.directory_helpers import copy_directory, now


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return copy_directory(tmp_path / "gateway")


@pytest.fixture
def path(settings: Settings, tmp_path: Path) -> Path:
    made = tmp_path / "b.tar"
    make_backup(settings, made, now())
    return made


Member = tuple[tarfile.TarInfo, bytes]


def rewritten(path: Path, change: Callable[[list[Member]], list[Member]]) -> Path:
    """Write a backup again, with other members."""
    with tarfile.open(path) as archive:
        members = [(each, archive.extractfile(each).read()) for each in archive]  # type: ignore[union-attr]
    target = path.with_name("changed.tar")
    with tarfile.open(target, "w") as archive:
        for header, data in change(members):
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return target


def refused(path: Path, tmp_path: Path) -> str:
    """Return why a backup is refused; nothing of it may be left."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BackupError) as by_verify:
        verify_backup(path)
    with pytest.raises(BackupError) as by_restore:
        restore_backup(path, tmp_path / "new")
    assert str(by_verify.value) == str(by_restore.value)
    assert sorted(tmp_path.rglob("*")) == before
    return str(by_restore.value)


def test_backup_is_verified_without_being_extracted(path: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    manifest = verify_backup(path)
    assert manifest.configuration == "gateway/dicomward.toml"
    assert sorted(tmp_path.rglob("*")) == before


def test_every_file_comes_back_as_it_was(settings: Settings, path: Path, tmp_path: Path) -> None:
    restore_backup(path, tmp_path / "new")
    for name in ("dicomward.toml", "policy.toml", "registry.json", "ca/ca.key.pem", "tls/gateway-rsa.key.pem"):
        assert (tmp_path / "new" / name).read_bytes() == (settings.directory / name).read_bytes()


def test_empty_directory_is_filled(path: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    restore_backup(path, tmp_path / "new")
    assert (tmp_path / "new" / "dicomward.toml").exists()


def test_directory_that_holds_something_is_left_alone(path: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").write_text("x")
    with pytest.raises(BackupError, match="nothing is overwritten"):
        restore_backup(path, tmp_path / "new")
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["mine"]


def test_file_in_the_place_of_the_directory_is_left_alone(path: Path, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("x")
    with pytest.raises(BackupError, match="nothing is overwritten"):
        restore_backup(path, tmp_path / "new")


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "gateway/../../evil",
        "/etc/evil",
        "gateway/./x",
        "gateway//x",
        "gateway/",
        "elsewhere/x",
        "outside/x/y",
        "outside/12345/y",
        "gateway/a\\..\\b",
        "gateway/a\nb",
        "evil",
    ],
)
def test_name_that_leads_elsewhere_is_refused(path: Path, tmp_path: Path, name: str) -> None:
    changed = rewritten(path, lambda members: [(tarfile.TarInfo(name), b"evil"), *members])
    assert "belongs nowhere" in refused(changed, tmp_path) or "no ordinary file" in refused(changed, tmp_path)
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_what_is_no_file_is_refused(path: Path, tmp_path: Path, kind: bytes) -> None:
    header = tarfile.TarInfo("gateway/x")
    header.type, header.linkname = kind, "/etc/passwd"
    changed = rewritten(path, lambda members: [(header, b""), *members])
    assert "no ordinary file" in refused(changed, tmp_path)


def test_changed_file_is_refused(path: Path, tmp_path: Path) -> None:
    def change(members: list[Member]) -> list[Member]:
        return [
            (header, data.replace(b"version = 1", b"version = 2") if header.name == "gateway/policy.toml" else data)
            for header, data in members
        ]

    assert "gateway/policy.toml" in refused(rewritten(path, change), tmp_path)


def test_changed_mode_is_refused(path: Path, tmp_path: Path) -> None:
    def change(members: list[Member]) -> list[Member]:
        for header, _ in members:
            header.mode = 0o777
        return members

    assert "is not the file that the manifest names" in refused(rewritten(path, change), tmp_path)


def test_lost_file_is_refused(path: Path, tmp_path: Path) -> None:
    changed = rewritten(path, lambda members: members[1:])
    assert "has lost gateway/" in refused(changed, tmp_path)


def test_added_file_is_refused(path: Path, tmp_path: Path) -> None:
    changed = rewritten(path, lambda members: [(tarfile.TarInfo("gateway/more"), b"x"), *members])
    assert "its manifest does not name" in refused(changed, tmp_path)


def test_file_that_is_there_twice_is_refused(path: Path, tmp_path: Path) -> None:
    changed = rewritten(path, lambda members: [members[0], *members])
    assert "twice" in refused(changed, tmp_path)


def test_file_after_the_manifest_is_refused(path: Path, tmp_path: Path) -> None:
    changed = rewritten(path, lambda members: [*members, (tarfile.TarInfo("gateway/more"), b"x")])
    assert "goes on after its manifest" in refused(changed, tmp_path)


def test_backup_without_manifest_is_refused(path: Path, tmp_path: Path) -> None:
    changed = rewritten(path, lambda members: members[:-1])
    assert "has no manifest.json" in refused(changed, tmp_path)


def test_backup_without_settings_is_refused(path: Path, tmp_path: Path) -> None:
    def change(members: list[Member]) -> list[Member]:
        header, data = members[-1]
        return [*members[:-1], (header, data.replace(b'"gateway/dicomward.toml",\n "audit', b'"gateway/x",\n "audit'))]

    assert "is no backup of a gateway" in refused(rewritten(path, change), tmp_path)


def test_own_file_with_the_name_of_our_folder_is_not_mixed_up(settings: Settings, tmp_path: Path) -> None:
    (settings.directory / "outside").mkdir()
    (settings.directory / "outside" / "x").write_text("mine")
    make_backup(settings, tmp_path / "b.tar", now())
    verify_backup(tmp_path / "b.tar")
    with pytest.raises(BackupError, match="restore it by hand"):
        restore_backup(tmp_path / "b.tar", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_backup_that_breaks_off_is_refused(path: Path, tmp_path: Path, share: float) -> None:
    packed = tmp_path / "cut.tar.gz"
    data = gzip.compress(path.read_bytes())
    packed.write_bytes(data[: int(len(data) * share)])
    assert refused(packed, tmp_path)


def test_damaged_packing_is_refused(path: Path, tmp_path: Path) -> None:
    packed = tmp_path / "bad.tar.gz"
    data = bytearray(gzip.compress(path.read_bytes()))
    data[len(data) // 2] ^= 0xFF
    packed.write_bytes(data)
    assert refused(packed, tmp_path)


def test_what_is_no_backup_at_all_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.tar"
    other.write_text("nonsense " * 500)
    assert "no whole backup" in refused(other, tmp_path)


def test_missing_backup_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        verify_backup(tmp_path / "gone.tar")


def test_zstd_that_is_damaged_is_refused(tmp_path: Path) -> None:
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    bad = tmp_path / "bad.tar.zst"
    bad.write_bytes(b"\x28\xb5\x2f\xfd" + b"nonsense" * 40)
    assert refused(bad, tmp_path)


def test_packing_that_cannot_be_undone_here_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> str:
        raise PackingError("the program zstd is not installed")

    monkeypatch.setattr("dicomward.io.installation.compression._zstd", fails)
    bad = tmp_path / "bad.tar.zst"
    bad.write_bytes(b"\x28\xb5\x2f\xfd")
    assert "zstd is not installed" in refused(bad, tmp_path)
