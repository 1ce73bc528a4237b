"""Backups of a gateway that runs, restored into another place: the same devices are served, and the log verifies."""

import json
import os
import socket
import sqlite3
import stat
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dicomward.audit.event import SecurityAlert
from dicomward.io.audit.log import append_offline
from dicomward.io.audit.verify import verify_directory
from dicomward.io.installation import backup as backup_module
from dicomward.io.installation.backup import BackupError, decode_manifest, encode_manifest, make_backup
from dicomward.io.installation.check import Severity, check_configuration
from dicomward.io.installation.compression import PackingError
from dicomward.io.installation.restore import restore_backup, verify_backup
from dicomward.io.registry.store import RegistryStore
from dicomward.relay.correlations import PendingCommitment
from dicomward.settings import Settings, load_settings
from tests.degraded.place import Place, application
from tests.directory_helpers import copy_directory, now
from tests.io.audit_helpers import records_of
from tests.io.world import SECONDS, RawArchive, raw_archive


@pytest.fixture
def archive() -> Iterator[RawArchive]:
    with raw_archive() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, archive: RawArchive) -> Iterator[Place]:
    made = Place(tmp_path / "gateway", archive)
    yield made
    made.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return copy_directory(tmp_path / "gateway")


def names_of(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return archive.getnames()


# -- the proof ---------------------------------------------------------------------------------------------------------


def test_backup_of_a_running_gateway_serves_the_same_devices_elsewhere(place: Place, tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "backup.tar.gz", tmp_path / "elsewhere"
    with application(place) as running:
        peer = place.peer().established()
        assert peer.echo() == 0
        made = make_backup(place.settings, path, now())
        # Records go on while the backup is made, and after it.
        assert peer.echo(2) == 0
        peer.release()
        peer.close()
        assert running.gateway._gate.wait_until_empty(SECONDS)
    assert made.left_out == ()
    restore_backup(path, elsewhere)
    assert verify_directory(elsewhere / "audit").report.findings == ()
    place.settings = load_settings(elsewhere / "dicomward.toml")
    with application(place):
        assert place.peer().established().echo() == 0
    assert verify_directory(elsewhere / "audit").report.findings == ()
    codes = [record.code for record in records_of(elsewhere / "audit")]
    assert "DW-AUDIT-LOST" not in codes
    assert codes[-1] == "DW-GW-STOP"


def test_restored_directory_has_no_findings(settings: Settings, tmp_path: Path) -> None:
    before = check_configuration(settings, now())
    make_backup(settings, tmp_path / "b.tar", now())
    restore_backup(tmp_path / "b.tar", tmp_path / "new")
    after = check_configuration(load_settings(tmp_path / "new" / "dicomward.toml"), now())
    assert [each for each in after if each.severity is Severity.ERROR] == []
    assert len(after) == len(before)


def test_log_is_cut_at_its_newest_checkpoint(place: Place, tmp_path: Path) -> None:
    """What is not signed yet would look like a log that a crash tore."""
    with application(place) as running:
        assert place.peer().established().echo() == 0
        audit = running.gateway._audit
        made = make_backup(place.settings, tmp_path / "b.tar", now())
        assert made.manifest.audit_records == audit.signed_seq
    restore_backup(tmp_path / "b.tar", tmp_path / "new")
    last = list(records_of(tmp_path / "new" / "audit"))[-1]
    assert last.seq == made.manifest.audit_records


def test_log_of_several_segments_is_whole(settings: Settings, tmp_path: Path) -> None:
    audit = settings.audit.directory
    for number in range(4):
        append_offline(audit, SecurityAlert(detail=f"{number}"))
    newest = sorted(audit.glob("audit-*.jsonl"))[-1]
    lines = newest.read_bytes().splitlines(keepends=True)
    seqs = [json.loads(line)["seq"] for line in lines]
    newest.write_bytes(b"".join(lines[:-2]))
    (audit / f"audit-{seqs[-2]:012d}.jsonl").write_bytes(b"".join(lines[-2:]))
    make_backup(settings, tmp_path / "b.tar", now())
    restore_backup(tmp_path / "b.tar", tmp_path / "new")
    assert len(list((tmp_path / "new" / "audit").glob("audit-*.jsonl"))) == len(list(audit.glob("audit-*.jsonl")))
    assert verify_directory(tmp_path / "new" / "audit").report.findings == ()


def test_segment_that_begins_after_the_checkpoint_waits_for_the_next_backup(settings: Settings, tmp_path: Path) -> None:
    append_offline(settings.audit.directory, SecurityAlert(detail="signed"))
    later = settings.audit.directory / "audit-000000009999.jsonl"
    later.write_text("not signed yet\n")
    made = make_backup(settings, tmp_path / "b.tar", now())
    assert f"gateway/audit/{later.name}" not in {entry.name for entry in made.manifest.entries}


def test_log_without_any_checkpoint_is_taken_as_it_is(settings: Settings, tmp_path: Path) -> None:
    for path in settings.audit.directory.iterdir():
        path.unlink()
    (settings.audit.directory / "audit-000000000001.jsonl").write_bytes(b'{"one":1}\nhalf a li')
    made = make_backup(settings, tmp_path / "b.tar", now())
    assert made.manifest.audit_records == 0
    restore_backup(tmp_path / "b.tar", tmp_path / "new")
    assert (tmp_path / "new" / "audit" / "audit-000000000001.jsonl").read_bytes() == b'{"one":1}\n'


def test_checkpoint_that_cannot_be_read_is_not_the_newest(settings: Settings, tmp_path: Path) -> None:
    append_offline(settings.audit.directory, SecurityAlert())
    with (settings.audit.directory / "checkpoints.jsonl").open("ab") as file:
        file.write(b"nonsense\n")
    made = make_backup(settings, tmp_path / "b.tar", now())
    assert made.manifest.audit_records > 0
    restore_backup(tmp_path / "b.tar", tmp_path / "new")
    assert b"nonsense" not in (tmp_path / "new" / "audit" / "checkpoints.jsonl").read_bytes()


# -- databases ---------------------------------------------------------------------------------------------------------


def test_database_is_copied_with_what_is_in_its_write_ahead_log(place: Place, tmp_path: Path) -> None:
    commitment = PendingCommitment(
        transaction_uid="1.2.3", archive="PACS", device="ct1", device_ae_title="CT1", called_ae_title="PACS"
    )
    with application(place) as running:
        done: list[bool] = []
        store = running.gateway._correlations
        store.register_commitment(commitment, done.append)
        store._writer.submit(lambda: None).result()
        make_backup(place.settings, tmp_path / "b.tar", now())
    assert not [name for name in names_of(tmp_path / "b.tar") if name.endswith(("-wal", "-shm", ".sock", "/lock"))]
    restore_backup(tmp_path / "b.tar", tmp_path / "new")
    with closing(sqlite3.connect(tmp_path / "new" / "run" / "correlations.db")) as database:
        assert database.execute("SELECT transaction_uid FROM commitment").fetchall() == [("1.2.3",)]


def test_registry_database_and_snapshot_belong_together(settings: Settings, tmp_path: Path) -> None:
    make_backup(settings, tmp_path / "b.tar", now())
    restore_backup(tmp_path / "b.tar", tmp_path / "new")
    restored = load_settings(tmp_path / "new" / "dicomward.toml")
    with RegistryStore.open(restored.registry.url, migrate=False) as store:
        assert store.read().archives[0].name == "PACS"


def test_database_that_is_broken_is_said_and_nothing_is_left_behind(settings: Settings, tmp_path: Path) -> None:
    (settings.directory / "broken.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 200)
    with pytest.raises(BackupError, match=r"broken\.db can't be copied"):
        make_backup(settings, tmp_path / "b.tar", now())
    assert [path.name for path in tmp_path.iterdir()] == ["gateway"]


def test_postgresql_is_named_as_left_out(settings: Settings, tmp_path: Path) -> None:
    away = replace(settings, registry=replace(settings.registry, url="postgresql+psycopg://h/registry"))
    assert "pg_dump" in make_backup(away, tmp_path / "b.tar", now()).left_out[0]


# -- files -------------------------------------------------------------------------------------------------------------


def test_backup_is_for_its_owner_only_and_so_are_the_restored_keys(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    make_backup(settings, path, now())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    restore_backup(path, tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "new" / "ca" / "ca.key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new" / "ca" / "ca.cert.pem").stat().st_mode) == 0o644


def test_what_is_outside_the_directory_comes_along(settings: Settings, tmp_path: Path) -> None:
    audit, policy = tmp_path / "log", tmp_path / "rules.toml"
    settings.audit.directory.rename(audit)
    policy.write_bytes(settings.policy.file.read_bytes())
    away = replace(
        settings,
        audit=replace(settings.audit, directory=audit, second_sink=tmp_path / "other" / "second.jsonl"),
        policy=replace(settings.policy, file=policy),
        registry=replace(settings.registry, url=f"sqlite:///{tmp_path / 'away.db'}"),
    )
    (settings.directory / "registry.db").rename(tmp_path / "away.db")
    made = make_backup(away, tmp_path / "b.tar", now())
    assert set(made.manifest.outside.values()) == {str(audit), str(policy), str(tmp_path / "away.db")}
    restore_backup(tmp_path / "b.tar", tmp_path / "new")
    folders = {origin: folder for folder, origin in made.manifest.outside.items()}
    assert verify_directory(tmp_path / "new" / folders[str(audit)]).report.findings == ()
    assert (tmp_path / "new" / folders[str(policy)] / "rules.toml").read_bytes() == policy.read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "operators.toml",
        "approvals.json",
        "people.toml",
        "run/moved.json",
        "run/lockdown.json",
        "run/bypass/20270301-1.json",
        "run/policy.revision",
        "run/budgets.key",
        "run/budgets.db",
        "run/correlations.db",
    ],
)
def test_everything_that_must_outlive_a_machine_comes_along(settings: Settings, tmp_path: Path, name: str) -> None:
    """Wherever the state directory is: inside the gateway's directory, as here, or elsewhere."""
    path = settings.directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".db"):
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE kept (number INTEGER)")
            database.commit()
    else:
        path.write_text("kept")
    made = make_backup(settings, tmp_path / "all.tar", now())
    assert f"gateway/{name}" in {entry.name for entry in made.manifest.entries}
    assert made.left_out == ()


def test_link_is_followed_to_a_file_and_named_otherwise(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "real.pem").write_text("content")
    (settings.directory / "link.pem").symlink_to(tmp_path / "real.pem")
    (settings.directory / "nowhere").symlink_to(tmp_path / "gone")
    (settings.directory / "folder").symlink_to(tmp_path)
    os.mkfifo(settings.directory / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(settings.directory / "some.sock"))
        made = make_backup(settings, tmp_path / "b.tar", now())
    told = " ".join(made.left_out)
    assert "nowhere: a link to nowhere" in told
    assert "folder: a link to a directory" in told
    assert "pipe: it is no file" in told
    assert "some.sock" not in told
    restore_backup(tmp_path / "b.tar", tmp_path / "new")
    assert (tmp_path / "new" / "link.pem").read_text() == "content"
    assert not (tmp_path / "new" / "link.pem").is_symlink()


def test_file_that_vanishes_is_named(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    going = settings.directory / "going.txt"
    going.write_text("x")
    real = backup_module._plan

    def plan(of: Settings) -> object:
        made = real(of)
        going.unlink()
        return made

    monkeypatch.setattr(backup_module, "_plan", plan)
    assert "going.txt: it has gone meanwhile" in make_backup(settings, tmp_path / "b.tar", now()).left_out[0]


def test_name_like_a_companion_of_no_database_is_taken(settings: Settings, tmp_path: Path) -> None:
    (settings.directory / "notes-wal").write_text("mine")
    make_backup(settings, tmp_path / "b.tar", now())
    assert "gateway/notes-wal" in names_of(tmp_path / "b.tar")


def test_directory_of_something_else_is_refused(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_module, "MOST_FILES", 3)
    with pytest.raises(BackupError, match="give the gateway a directory of its own"):
        make_backup(settings, tmp_path / "b.tar", now())


# -- the place of the backup -------------------------------------------------------------------------------------------


def test_nothing_is_overwritten(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    path.write_text("precious")
    with pytest.raises(BackupError, match="nothing is overwritten"):
        make_backup(settings, path, now())
    assert path.read_text() == "precious"


def test_backup_inside_what_it_is_of_is_refused(settings: Settings) -> None:
    with pytest.raises(BackupError, match="inside the gateway's directory"):
        make_backup(settings, settings.directory / "audit" / "b.tar", now())


def test_unknown_packing_is_refused_before_anything_is_read(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(PackingError):
        make_backup(settings, tmp_path / "b.zip", now())


# -- the manifest ------------------------------------------------------------------------------------------------------


def test_manifest_comes_back(settings: Settings, tmp_path: Path) -> None:
    made = make_backup(settings, tmp_path / "b.tar", now())
    assert decode_manifest(encode_manifest(made.manifest)) == made.manifest
    assert verify_backup(tmp_path / "b.tar") == made.manifest
    assert made.manifest.bytes == sum(entry.bytes for entry in made.manifest.entries)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format": 1}',
        b"\xff",
        b"[" * 100_000,
        b'{"format":1,"dicomward":"x","made":"x","configuration":"x","audit_records":1,"audit_signed":"","outside":{},'
        b'"files":[{"name":"a","bytes":"1","sha256":"","mode":1}]}',
    ],
)
def test_manifest_that_is_none_is_said(data: bytes) -> None:
    with pytest.raises(BackupError, match="no whole backup of ours"):
        decode_manifest(data)


def test_manifest_of_a_later_format_is_said() -> None:
    with pytest.raises(BackupError, match="restore it with the release that made it"):
        decode_manifest(b'{"format": 2}')
