"""The system calls do what the audit log needs of them."""

import os
import threading
from pathlib import Path

import pytest

from dicomward.io.audit.files import AuditFiles, AuditLogBusyError, wait_for_writer

FILES = AuditFiles()


def test_a_directory_is_for_its_owner_only_and_made_once(tmp_path: Path) -> None:
    FILES.make_directory(tmp_path / "a" / "b")
    FILES.make_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_file_is_for_its_owner_only_and_not_inherited(tmp_path: Path) -> None:
    descriptor = FILES.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    assert not os.get_inheritable(descriptor)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600
    FILES.write(descriptor, b"x" * 100_000)
    FILES.truncate(descriptor, 3)
    FILES.sync(descriptor)
    FILES.close(descriptor)
    FILES.sync_directory(tmp_path)
    assert (tmp_path / "f").read_bytes() == b"xxx"
    FILES.unlink(tmp_path / "f")
    FILES.unlink(tmp_path / "f")


def test_a_short_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = FILES.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda where, data: real_write(where, data[:3]))
    FILES.write(descriptor, b"0123456789")
    monkeypatch.undo()
    FILES.close(descriptor)
    assert (tmp_path / "f").read_bytes() == b"0123456789"


def test_preallocated_space_is_taken(tmp_path: Path) -> None:
    descriptor = FILES.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    FILES.preallocate(descriptor, 65_536)
    assert os.fstat(descriptor).st_size == 65_536
    assert os.fstat(descriptor).st_blocks * 512 >= 65_536
    FILES.close(descriptor)


def test_only_one_can_hold_the_lock(tmp_path: Path) -> None:
    first = FILES.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    second = FILES.open(tmp_path / "lock", os.O_RDWR)
    FILES.lock(first)
    with pytest.raises(AuditLogBusyError, match="another process writes this audit log"):
        FILES.lock(second)
    FILES.close(first)
    FILES.lock(second)
    FILES.close(second)


def test_what_root_makes_belongs_to_the_owner_of_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "lchown", lambda path, uid, gid: given.append((Path(path).name, uid, gid)))
    owner = tmp_path.stat()
    FILES.close(FILES.open(tmp_path / "f", os.O_RDWR | os.O_CREAT))
    FILES.close(FILES.open(tmp_path / "f", os.O_RDWR | os.O_CREAT))
    FILES.make_directory(tmp_path / "d")
    assert given == [("f", owner.st_uid, owner.st_gid), ("d", owner.st_uid, owner.st_gid)]


def test_what_others_make_is_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "lchown", lambda *_: pytest.fail("only root gives files away"))
    FILES.close(FILES.open(tmp_path / "f", os.O_RDWR | os.O_CREAT))


def test_writer_is_waited_for_until_it_has_ended(tmp_path: Path) -> None:
    assert wait_for_writer(tmp_path, 0.0)
    files = AuditFiles()
    lock = files.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    files.lock(lock)
    assert not wait_for_writer(tmp_path, 0.05)
    ended = threading.Timer(0.1, lambda: files.close(lock))
    ended.start()
    assert wait_for_writer(tmp_path, 20.0)
    ended.join()
    again = files.open(tmp_path / "lock", os.O_RDWR)
    files.lock(again)
    files.close(again)
