"""Files that are replaced whole and changed under a lock."""

import os
from pathlib import Path

import pytest

from dicomward.io.private_file import FileBusyError, file_lock, replace_file


def test_a_file_is_replaced_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, "one")
    replace_file(path, "two")
    assert path.read_text(encoding="utf-8") == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_refused_while_another_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with (
        file_lock(path),
        pytest.raises(FileBusyError, match="wait for it to end, then repeat"),
        file_lock(path, wait_seconds=0),
    ):
        pass
    with file_lock(path, wait_seconds=0):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write for others")
def test_what_root_writes_belongs_to_the_owner_of_the_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, 4711, 4712)
    replace_file(tmp_path / "file", "one")
    with file_lock(tmp_path / "file"):
        pass
    owners = {(each.stat().st_uid, each.stat().st_gid) for each in tmp_path.iterdir()}
    assert owners == {(4711, 4712)}
