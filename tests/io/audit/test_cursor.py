"""The cursor survives crashes and a full disk: it never stands further than what was delivered."""

from pathlib import Path

import pytest

from dicomward.io.audit.cursor import Cursor, cursor_path, read_cursor
from dicomward.settings.kinds import ListenAddress
from dicomward.settings.syslog import SyslogDestination


def destination(**changes: str) -> SyslogDestination:
    return SyslogDestination(
        address=ListenAddress(host="h", port=1),
        ca=Path("ca"),
        server_name="h",
        **changes,  # type: ignore[arg-type]
    )


def test_each_destination_has_a_cursor_of_its_own(tmp_path: Path) -> None:
    assert cursor_path(tmp_path, destination()) != cursor_path(tmp_path, destination(encoding="fhir"))


def test_a_new_cursor_stands_where_it_is_told_and_then_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x.cursor"
    assert read_cursor(path) is None
    first = Cursor(path, "a", start=5)
    assert first.seq == 5
    first.save(9)
    first.close()
    again = Cursor(path, "a", start=5)
    assert again.seq == 9
    again.close()


@pytest.mark.parametrize("torn", [0, 1])
def test_a_torn_write_leaves_the_other_slot(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "x.cursor"
    cursor = Cursor(path, "a", start=1)
    for seq in (2, 3, 4):
        cursor.save(seq)
    cursor.close()
    data = bytearray(path.read_bytes())
    size = len(data)
    data[torn * 512 + 70] ^= 1
    path.write_bytes(data)
    assert read_cursor(path) in (3, 4)
    assert size == 1024


def test_nothing_readable_is_no_cursor(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\0" * 1024)
    assert read_cursor(tmp_path / "x") is None


def test_saving_takes_no_more_space(tmp_path: Path) -> None:
    path = tmp_path / "x.cursor"
    cursor = Cursor(path, "n" * 500, start=0)
    before = path.stat().st_blocks
    for seq in range(20):
        cursor.save(seq * 10**9)
    cursor.close()
    assert (path.stat().st_blocks, path.stat().st_size) == (before, 1024)
