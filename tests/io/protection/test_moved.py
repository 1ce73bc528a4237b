"""Who has been seen with TLS is remembered across restarts, and said where it can't be."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from dicomward.io.protection.moved import MovedDevices
from tests.identity.examples import device, fingerprint, record

CT1 = device("CT1")


def test_device_is_remembered_across_restarts(tmp_path: Path) -> None:
    moved = MovedDevices(tmp_path / "moved.json")
    assert not moved.has_moved(CT1)
    moved.note("CT1", fingerprint("CT1"))
    moved.note("CT1", fingerprint("CT1"))
    assert moved.has_moved(CT1)
    assert MovedDevices(tmp_path / "moved.json").has_moved(CT1)


def test_revoked_certificate_counts_and_one_that_a_rollback_took_away_does_not() -> None:
    moved = MovedDevices()
    moved.note("CT1", fingerprint("CT1"))
    assert moved.has_moved(replace(CT1, certificates=(record("CT1", "revoked"), record("new"))))
    assert not moved.has_moved(replace(CT1, certificates=()))


def test_file_that_cannot_be_written_is_said_and_memory_has_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = MovedDevices(tmp_path / "none" / "moved.json")
    with caplog.at_level(logging.ERROR):
        moved.note("CT1", fingerprint("CT1"))
    assert moved.has_moved(CT1)
    assert "can't be written" in caplog.text


@pytest.mark.parametrize("text", ["{", "[]", '{"CT1": 3}'])
def test_broken_file_is_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "moved.json").write_text(text)
    assert not MovedDevices(tmp_path / "moved.json").has_moved(CT1)
