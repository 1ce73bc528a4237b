"""The spool's files: what was accepted is found again, what was not is gone, and a full disk refuses."""

import json
from pathlib import Path

import pytest

from dicomward.edge.queue import Waiting
from dicomward.io.edge.spool import (
    Spool,
    SpoolError,
    SpoolFull,
    alone_in,
    read_spool_key,
    release_quarantine,
    spool_report,
)
from dicomward.io.edge.spool_seal import Description
from dicomward.settings.edge import SpoolSettings

KEY = bytes(range(32))
WHO = Description(
    calling_ae_title="CT1",
    called_ae_title="PACS",
    sop_class_uid="1.2",
    sop_instance_uid="1.2.3",
    transfer_syntax_uid="1",
)


def settings(tmp_path: Path, *, quota: int = 10_000, free: int = 0, key: str = "key") -> SpoolSettings:
    return SpoolSettings(
        directory=tmp_path / "spool", key=key, quota_bytes=quota, free_bytes=free, order="oldest", alarm_minutes=15
    )


def opened(tmp_path: Path, *, quota: int = 10_000, free: int = 0) -> Spool:
    spool = Spool(settings(tmp_path, quota=quota, free=free), KEY, lambda: 1000.0)
    spool.open()
    return spool


def store(spool: Spool, data: bytes = b"data", study: bytes = b"1.9") -> Waiting:
    incoming = spool.receive("ct-1", WHO)
    incoming.write(data)
    return incoming.keep(study)


def test_accepted_is_found_after_a_restart_and_the_rest_is_gone(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    kept = [store(spool, b"one"), store(spool, b"two")]
    (tmp_path / "spool" / "incoming" / "1-1").write_bytes(b"half")
    again = Spool(settings(tmp_path), KEY)
    assert again.open() == {"ct-1": kept}
    assert list((tmp_path / "spool" / "incoming").iterdir()) == []
    unsealer = again.read(kept[1])
    assert list(unsealer.pieces()) == [(b"two", True)]
    unsealer.close()
    again.delivered(kept[0])
    assert Spool(settings(tmp_path), KEY).open() == {"ct-1": kept[1:]}


def test_study_is_not_named(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    first, second, other = store(spool), store(spool), store(spool, study=b"1.8")
    assert first.study == second.study != other.study
    assert "1.9" not in first.study
    assert [first.name, second.name, other.name] == sorted((first.name, second.name, other.name))


def test_quota_refuses_and_delivery_makes_room(tmp_path: Path) -> None:
    spool = opened(tmp_path, quota=300)
    kept = store(spool, b"x" * 300)
    with pytest.raises(SpoolFull, match="quota"):
        spool.receive("ct-1", WHO)
    spool.delivered(kept)
    store(spool)
    with pytest.raises(SpoolFull, match="of the disk are free"):
        opened(tmp_path, free=1 << 60).receive("ct-1", WHO)


def test_abandoned_leaves_nothing(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    incoming = spool.receive("ct-1", WHO)
    incoming.abandon()
    assert list((tmp_path / "spool" / "incoming").iterdir()) == []


def test_quarantine_keeps_the_object_and_its_reason(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    kept, refused = store(spool), store(spool)
    spool.set_aside(refused, "status C000H")
    report = json.loads(json.dumps(spool_report(settings(tmp_path), 1060.0)))
    assert report["waiting"] == {"ct-1": {"objects": 1, "bytes": kept.size, "oldest_seconds": 60.0}}
    assert [(each["device"], each["reason"]) for each in report["quarantine"]] == [("ct-1", "status C000H")]
    assert release_quarantine(settings(tmp_path)) == 1
    assert Spool(settings(tmp_path), KEY).open() == {"ct-1": [kept, refused]}
    assert spool_report(settings(tmp_path / "nowhere"), 0.0)["waiting"] == {}


def test_key_is_a_file_or_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    with pytest.raises(SpoolError, match="can't be read"):
        read_spool_key(settings(tmp_path, key=str(path)))
    path.write_bytes(KEY)
    assert read_spool_key(settings(tmp_path, key=str(path))) == KEY
    path.write_text(KEY.hex() + "\n", "ascii")
    assert read_spool_key(settings(tmp_path, key=str(path))) == KEY
    for wrong in (b"short", b"x" * 64):
        path.write_bytes(wrong)
        with pytest.raises(SpoolError, match="neither 32 bytes nor"):
            read_spool_key(settings(tmp_path, key=str(path)))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(SpoolError, match="no credentials"):
        read_spool_key(settings(tmp_path, key="credential:key"))
    path.write_bytes(KEY)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_spool_key(settings(tmp_path, key="credential:key")) == KEY


def test_one_agent_for_one_spool(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(SpoolError, match="another agent"), alone_in(tmp_path):
        pass
