"""The command line as scripts use it, against a real archive."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.clients import Pynetdicom
from tests.real.gateway import dicomward
from tests.real.hospital import Hospital, credentials_of, hospital
from tests.real.processes import LOOPBACK, free_port


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    with hospital(tmp_path_factory.mktemp("cli")) as running:
        yield running


def test_echo_speaks_mutual_tls_with_the_gateway(here: Hospital) -> None:
    route = here.device("scanner", "SCANNER")
    files = credentials_of(route)
    options: list[str | Path] = ["--cert", files.certificate, "--key", files.key, "--ca", files.authority]
    peer = [LOOPBACK, str(route.port), "-aec", "ARCHIVE"]
    assert dicomward("echo", *peer, "-aet", "SCANNER", *options).returncode == 0
    refused = dicomward("echo", *peer, "-aet", "SOMEBODY", *options)
    assert refused.returncode == 1
    assert refused.stderr.strip()


def test_echo_to_nobody_fails_with_1(here: Hospital) -> None:
    route = here.device("scanner2", "SCANNER2")
    files = credentials_of(route)
    options: list[str | Path] = ["--cert", files.certificate, "--key", files.key, "--ca", files.authority]
    done = dicomward("echo", LOOPBACK, str(free_port()), "-aet", "SCANNER2", "-aec", "ARCHIVE", *options)
    assert done.returncode == 1


def test_check_config_accepts_what_init_wrote_and_names_what_is_wrong(here: Hospital, tmp_path: Path) -> None:
    assert here.gateway.run("check-config").returncode == 0
    broken = tmp_path / "dicomward.toml"
    broken.write_text(here.gateway.configuration.read_text() + "\nunknown_key_of_nobody = 1\n")
    done = dicomward("check-config", "--config", broken)
    assert done.returncode == 2
    assert "unknown_key_of_nobody" in done.stderr


def test_init_overwrites_nothing(here: Hospital) -> None:
    before = {path: path.read_bytes() for path in here.gateway.directory.iterdir() if path.is_file()}
    done = dicomward("init", here.gateway.directory, "--pacs", f"OTHER@{LOOPBACK}:104")
    assert done.returncode != 0
    unchanged = {path: data for path, data in before.items() if path.suffix in {".toml", ".pem"}}
    assert {path: path.read_bytes() for path in unchanged} == unchanged


def test_device_list_show_and_audit_speak_json(here: Hospital) -> None:
    here.device("shown", "SHOWN")
    listed = json.loads(here.gateway.must("device", "list", "--json"))
    assert "shown" in json.dumps(listed)
    assert "SHOWN" in here.gateway.must("device", "show", "shown")
    assert here.gateway.audit()
    assert here.gateway.run("audit", "verify").returncode == 0


def test_nobody_is_registered_with_any_network_by_accident(here: Hospital, tmp_path: Path) -> None:
    done = here.gateway.run(
        "device", "add", "careless", "--aet", "CARELESS", "--role", "modality", "--out", tmp_path / "out"
    )
    assert done.returncode == 2
    assert not (tmp_path / "out" / "key.pem").exists()


def test_keys_are_readable_by_their_owner_only(here: Hospital) -> None:
    route = here.device("private", "PRIVATE")
    assert credentials_of(route).key.stat().st_mode & 0o077 == 0
    for path in here.gateway.directory.rglob("*key*"):
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path


def test_policy_check_and_explain(here: Hospital) -> None:
    assert here.gateway.run("policy", "check").returncode == 0


def test_unknown_command_and_missing_configuration_are_usage_errors(tmp_path: Path) -> None:
    assert dicomward("no-such-command").returncode == 2
    assert dicomward("gateway", "--config", tmp_path / "dicomward.toml").returncode == 2


def test_audit_verify_notices_a_changed_record_and_a_cut_tail(tmp_path: Path) -> None:
    with hospital(tmp_path) as running:
        assert Pynetdicom().echo(running.device("scanner", "SCANNER")).succeeded
        assert running.gateway.stop() == 0
        assert running.gateway.run("audit", "verify").returncode == 0
        (log,) = (running.gateway.directory / "audit").glob("audit-*.jsonl")
        original = log.read_bytes()
        log.write_bytes(original.replace(b"SCANNER", b"SKANNER", 1))
        changed = running.gateway.run("audit", "verify")
        assert changed.returncode == 1
        assert changed.stdout.strip() or changed.stderr.strip()
        log.write_bytes(original[: original.rstrip(b"\n").rindex(b"\n") + 1])
        assert running.gateway.run("audit", "verify").returncode == 1
