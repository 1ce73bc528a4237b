"""The compiled registry's file."""

from pathlib import Path

import pytest

from dicomward.identity.registry import RegistryError, RegistrySnapshot
from dicomward.io.registry.file import read_registry
from dicomward.io.registry.store import write_snapshot


def test_it_is_read(tmp_path: Path) -> None:
    snapshot = RegistrySnapshot(devices=(), archives=(), revision=3)
    write_snapshot(tmp_path / "registry.json", snapshot)
    assert read_registry(tmp_path / "registry.json") == snapshot


def test_one_that_is_no_text_is_a_registry_error(tmp_path: Path) -> None:
    (tmp_path / "registry.json").write_bytes(b"\xff\xfe")
    with pytest.raises(RegistryError, match="not UTF-8"):
        read_registry(tmp_path / "registry.json")
