"""What goes into the bundle of the edge agent for Windows; `make windows-wheels` asks an index for the wheels."""

import importlib
import importlib.metadata
import re
import struct
from pathlib import Path
from typing import Any

import pytest

windows: Any = importlib.import_module("tools.windows")
canonical = windows.canonical
TEXT = windows.LOCK.read_text("utf-8")


def test_every_locked_package_has_its_hashes_and_no_condition() -> None:
    pins = windows.pins(TEXT)
    assert len(pins) == len(re.findall(r"^[a-z0-9-]+==", TEXT, re.MULTILINE))
    for name, pin in pins.items():
        assert re.match(rf"{re.escape(name)}==\S+ \\\n(--hash=sha256:[0-9a-f]{{64}}( \\\n)?)+\Z", pin), name
    assert "tzdata" in pins


def test_agent_needs_what_its_packages_say_and_no_extras() -> None:
    needed = windows.of_an_agent(TEXT)
    assert {"cryptography", "cffi", "sqlalchemy"} <= needed
    assert not {"psycopg", "psycopg-binary", "typst", "python-pkcs11", "dnspython"} & needed
    for name in needed:
        for wanted in importlib.metadata.requires(name) or ():
            if ";" not in wanted:
                assert canonical(re.split(r"[<>=!~ \[(]", wanted)[0]) in needed, (name, wanted)


def test_dll_for_wine_forwards_its_name() -> None:
    made = windows.forwarding_dll("one.dll", {"First": "OTHER.Second"})
    (start,) = struct.unpack_from("<I", made, 60)
    assert made[start : start + 6] == b"PE\0\0" + struct.pack("<H", 0x8664)
    assert len(made) % 512 == 0
    assert made.endswith(b"one.dll\0First\0OTHER.Second\0".ljust(len(made) - made.index(b"one.dll"), b"\0"))


def test_python_that_nobody_has_looked_at_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def download(*command: str | Path, **_: str) -> None:
        Path(command[command.index("--dest") + 1], "python.tar.gz").write_bytes(b"other")

    monkeypatch.setattr(windows, "run", download)
    with pytest.raises(windows.WindowsError, match="not what was looked at"):
        windows.unpack_python(tmp_path)


@pytest.mark.parametrize("arguments", [[], ["all"], ["wheels", "now"]])
def test_wrong_usage_is_told(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["windows.py", *arguments])
    assert windows.main() == 2
    assert "tools/windows.py bundle" in capsys.readouterr().err
