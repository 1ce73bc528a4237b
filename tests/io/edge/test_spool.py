"""The spool's files: what was accepted is found again, what was not is gone, and a full disk refuses."""

import json
import threading
from pathlib import Path

import pytest

from dicomward.edge.queue import Waiting
from dicomward.io.edge.spool import (
    Found,
    Spool,
    SpoolError,
    SpoolFull,
    alone_in,
    release_quarantine,
    spool_report,
)
from dicomward.io.edge.spool_seal import Description, SharedKey
from dicomward.settings.edge import SpoolSettings

KEY = bytes(range(32))
WHO = Description(
    calling_ae_title="CT1",
    called_ae_title="PACS",
    sop_class_uid="1.2",
    sop_instance_uid="1.2.3",
    transfer_syntax_uid="1",
)


def settings(
    tmp_path: Path, *, quota: int = 10_000, free: int = 0, key: str = "key", commitment: str = "if-offered"
) -> SpoolSettings:
    return SpoolSettings(
        directory=tmp_path / "spool",
        key=key,
        key_ca=tmp_path / "ca.pem",
        quota_bytes=quota,
        free_bytes=free,
        order="oldest",
        alarm_minutes=15,
        commitment=commitment,
    )


def opened(tmp_path: Path, *, quota: int = 10_000, free: int = 0, commitment: str = "if-offered") -> Spool:
    spool = Spool(
        settings(tmp_path, quota=quota, free=free, commitment=commitment),
        lambda _device: SharedKey(KEY),
        lambda: 1000.0,
    )
    spool.open()
    return spool


def reopened(tmp_path: Path) -> tuple[Spool, Found]:
    spool = Spool(settings(tmp_path), lambda _device: SharedKey(KEY), lambda: 1000.0)
    return spool, spool.open().get("ct-1", Found())


def store(spool: Spool, data: bytes = b"data", study: bytes = b"1.9") -> Waiting:
    incoming = spool.receive("ct-1", WHO)
    incoming.write(data)
    return incoming.keep(study)


def test_accepted_is_found_after_a_restart_and_the_rest_is_gone(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    kept = [store(spool, b"one"), store(spool, b"two")]
    (tmp_path / "spool" / "incoming" / "1-1").write_bytes(b"half")
    again, found = reopened(tmp_path)
    assert found == Found(ready=tuple(kept))
    assert list((tmp_path / "spool" / "incoming").iterdir()) == []
    unsealer = again.read(kept[1])
    assert list(unsealer.pieces()) == [(b"two", True)]
    unsealer.close()
    again.delivered(kept[0])
    assert reopened(tmp_path)[1] == Found(ready=tuple(kept[1:]))


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
    assert [(each["device"], each["state"], each["reason"]) for each in report["quarantine"]] == [
        ("ct-1", "refused", "status C000H")
    ]
    # Whatever is left of the reason, the object was refused.
    (note,) = (tmp_path / "spool" / "quarantine").glob("*.json")
    note.write_text("", "utf-8")
    assert spool_report(settings(tmp_path), 1060.0)["quarantine"] == [report["quarantine"][0] | {"reason": "unknown"}]
    assert reopened(tmp_path)[1] == Found(ready=(kept,))
    assert release_quarantine(settings(tmp_path)) == 1
    assert reopened(tmp_path)[1] == Found(ready=(kept, refused))
    assert spool_report(settings(tmp_path / "nowhere"), 0.0)["waiting"] == {}


def test_one_agent_for_one_spool(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(SpoolError, match="another agent"), alone_in(tmp_path):
        pass


def test_overdue_lies_in_quarantine_and_is_still_read_and_delivered(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    first, second, gone = store(spool, b"one"), store(spool, b"two"), store(spool)
    spool.delivered(gone)
    spool.mark_overdue([first, second, gone])
    assert list((tmp_path / "spool" / "ready").iterdir()) == []
    report = json.loads(json.dumps(spool_report(settings(tmp_path), 1960.0)))
    assert report["waiting"]["ct-1"]["objects"] == 2
    assert {each["state"] for each in report["quarantine"]} == {"overdue"}
    assert "older than 15 minutes" in report["quarantine"][0]["reason"]
    # No operator has to take them back.
    assert release_quarantine(settings(tmp_path)) == 0
    again, found = reopened(tmp_path)
    assert found == Found(overdue=(first, second))
    for each in (spool, again):
        unsealer = each.read(first)
        assert list(unsealer.pieces()) == [(b"one", True)]
        unsealer.close()
    again.set_aside(second, "status C000H")
    again.delivered(first)
    assert reopened(tmp_path)[1] == Found()
    assert spool_report(settings(tmp_path), 0.0)["waiting"] == {}


def test_stored_is_kept_until_it_is_committed(tmp_path: Path) -> None:
    spool = opened(tmp_path, quota=1000)
    first, second = store(spool), store(spool)
    spool.mark_overdue([second])
    for each in (first, second):
        spool.store(each)
        assert spool.describe_stored(each) == WHO
    report = spool_report(settings(tmp_path), 1000.0)
    assert report["waiting"] == {}
    assert report["uncommitted"] == {"ct-1": {"objects": 2, "bytes": first.size + second.size, "oldest_seconds": 0.0}}
    assert reopened(tmp_path)[1] == Found(stored=(first, second))
    spool.committed(first)
    spool.send_again(second)
    assert reopened(tmp_path)[1] == Found(ready=(second,))


def test_what_the_archive_has_gives_way_to_what_it_does_not_have(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = opened(tmp_path, quota=600)
    old, new, waits = store(spool), store(spool), store(spool)
    spool.store(old)
    spool.store(new)
    more = store(spool)
    assert (spool.is_uncommitted(old), spool.is_uncommitted(new)) == (False, True)
    assert "is deleted without a commitment, though the archive has taken it" in caplog.text
    again = store(spool)
    assert not spool.is_uncommitted(new)
    # What the archive does not have is never deleted.
    with pytest.raises(SpoolFull):
        store(spool)
    spool.committed(new)
    assert reopened(tmp_path)[1] == Found(ready=(waits, more, again))
    strict = opened(tmp_path / "strict", quota=300, commitment="required")
    strict.store(store(strict))
    store(strict)
    with pytest.raises(SpoolFull):
        store(strict)


def test_running_agent_takes_back_what_an_operator_asks_for(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    assert spool.retry_if_asked() is None
    refused = store(spool)
    spool.set_aside(refused, "status C000H")
    counts: list[int] = []
    with alone_in(tmp_path / "spool"):
        asking = threading.Thread(target=lambda: counts.append(release_quarantine(settings(tmp_path))))
        asking.start()
        while (taken := spool.retry_if_asked()) is None:
            assert asking.is_alive()
        asking.join()
    assert taken == [("ct-1", refused)]
    assert counts == [1]
    unsealer = spool.read(refused)
    unsealer.close()
    assert spool.retry_if_asked() is None


def test_agent_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path)
    monkeypatch.setattr("dicomward.io.edge.spool._RETRY_SECONDS", 0.0)
    with alone_in(tmp_path / "spool"), pytest.raises(SpoolError, match="has not answered"):
        release_quarantine(settings(tmp_path))
