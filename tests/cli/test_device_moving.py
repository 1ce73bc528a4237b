"""`dicomward device import | legacy | observe | enforce | rollback`, and devices in legacy zones."""

from datetime import timedelta
from pathlib import Path

import pytest

from dicomward.identity.registry import Device, RegistrySnapshot
from dicomward.identity.registry_json import decode_snapshot
from dicomward.settings import Settings
from tests.cli.conftest import Run
from tests.directory_helpers import now

ZONE = """
[[legacy_zones]]
name = "old"
listen = "127.0.0.1:0"
networks = ["10.1.2.0/24"]
end_date = 2099-12-31
"""
DRAFT = """
format = 1
[[archive]]
name = "VNA"
ae_title = "VNA"
address = "10.9.0.5:104"
networks = ["10.9.0.5/32"]
[[device]]
name = "ct1"
ae_titles = ["CT1"]
role = "modality"
networks = ["10.1.2.3/32"]
[[device]]
name = "ws1"
ae_titles = ["WS1"]
role = "workstation"
networks = ["10.1.2.4/32"]
address = "10.1.2.4:104"
plain = true
seen."operations" = ["c-find"]
"""


@pytest.fixture
def zone(settings: Settings) -> None:
    with settings.path.open("a") as file:
        file.write(ZONE)


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    path = tmp_path / "draft.toml"
    path.write_text(DRAFT)
    return path


def snapshot(settings: Settings) -> RegistrySnapshot:
    return decode_snapshot(settings.registry.snapshot.read_text())


def device(settings: Settings, name: str = "ct1") -> Device:
    found = snapshot(settings).device_by_name(name)
    assert found is not None
    return found


def add_legacy(run: Run, network: str = "10.1.2.3") -> None:
    base = ("device", "add", "ct1", "--aet", "CT1", "--role", "modality", "--legacy", "old")
    done = run(*base, "--network", network)
    assert done.code == 0, done.err


# --- import ---


def test_dry_run_registers_nothing(run: Run, settings: Settings, draft: Path) -> None:
    before = settings.registry.snapshot.read_bytes()
    done = run("device", "import", draft, "--dry-run")
    assert done.code == 0, done.err
    assert "archive VNA would be registered: VNA" in done.out
    assert "device ct1 would be registered: CT1; modality; without a certificate" in done.out
    assert settings.registry.snapshot.read_bytes() == before


def test_draft_is_registered_and_what_is_missing_is_said(run: Run, settings: Settings, draft: Path) -> None:
    done = run("device", "import", draft)
    assert done.code == 0, done.err
    assert device(settings, "ws1").plain
    assert snapshot(settings).archive_by_name("VNA") is not None
    assert "archive VNA: the gateway refuses plaintext to another machine" in done.err
    assert "no certificate yet, so they can't connect: ct1, ws1" in done.err
    again = run("device", "import", draft, "--json")
    assert again.json["already_registered"] == ["VNA", "ct1", "ws1"]
    assert again.json["devices"] == []


def test_devices_of_a_draft_go_into_a_zone(run: Run, settings: Settings, draft: Path, zone: None) -> None:
    done = run("device", "import", draft, "--legacy", "old", "--json")
    assert done.code == 0, done.err
    assert done.json["dry_run"] is False
    assert device(settings).legacy_zone == "old"
    assert run("device", "list", "--plaintext").out.count("plaintext in old") == 2


@pytest.mark.parametrize(
    ("old", "new", "code", "problem"),
    [
        ("modality", "modalty", 2, "no rule of"),
        ('"WS1"', '"CT1"', 1, "AE title 'CT1' belongs to 'ct1'"),
        ('"CT1"', '"VNA"', 1, "AE title 'VNA' belongs to the archive 'VNA' and to the device 'ct1'"),
        ("10.1.2.4/32", "10.1.2.4/24", 2, "is not a network"),
        ("role =", "rolle =", 2, "'rolle' is not known"),
        ('name = "ws1"', 'name = "ws1"\nlegacy_zone = "nowhere"', 2, "no legacy zone 'nowhere'"),
    ],
)
def test_nothing_of_a_wrong_draft_is_registered(
    run: Run, settings: Settings, draft: Path, old: str, new: str, code: int, problem: str
) -> None:
    draft.write_text(DRAFT.replace(old, new))
    before = settings.registry.snapshot.read_bytes()
    done = run("device", "import", draft)
    assert done.code == code
    assert problem in done.err
    assert settings.registry.snapshot.read_bytes() == before


def test_draft_that_cannot_be_read_is_a_usage_error(run: Run, settings: Settings, tmp_path: Path) -> None:
    assert "can't be read" in run("device", "import", tmp_path / "none.toml").err
    (tmp_path / "bad").write_bytes(b"\xff")
    done = run("device", "import", tmp_path / "bad")
    assert done.code == 2
    assert "is not UTF-8 text" in done.err


# --- legacy ---


def test_device_in_a_zone_needs_no_certificate(run: Run, settings: Settings, zone: None) -> None:
    base = ("device", "add", "ct1", "--aet", "CT1", "--role", "modality", "--network", "10.1.2.3", "--legacy", "old")
    done = run(*base)
    assert done.code == 0, done.err
    assert "device ct1 registered for plaintext in the legacy zone old; registry revision 2" in done.out
    assert done.err == ""
    assert device(settings).certificates == ()
    assert "plaintext in old" in run("device", "show", "ct1").out


def test_device_in_a_zone_can_be_printed_as_json(run: Run, settings: Settings, zone: None) -> None:
    base = ("device", "add", "ct1", "--aet", "CT1", "--role", "modality", "--network", "10.1.2.3", "--legacy", "old")
    assert run(*base, "--json").json["legacy_zone"] == "old"


@pytest.mark.parametrize(
    ("network", "problem"),
    [
        ("10.1.3.3", "10.1.3.3 is not inside the networks of the zone 'old' (10.1.2.0/24)"),
        ("any", '"any" is not for a legacy zone'),
    ],
)
def test_address_outside_the_zone_is_refused(
    run: Run, settings: Settings, zone: None, network: str, problem: str
) -> None:
    base = ("device", "add", "ct1", "--aet", "CT1", "--role", "modality", "--legacy", "old")
    done = run(*base, "--network", network)
    assert done.code == 2
    assert problem in done.err


def test_network_of_many_addresses_is_warned_about(run: Run, settings: Settings, zone: None) -> None:
    base = ("device", "add", "ct1", "--aet", "CT1", "--role", "modality", "--legacy", "old")
    assert "name a single address" in run(*base, "--network", "10.1.2.0/28").err


def test_zone_must_be_in_the_settings(run: Run, settings: Settings) -> None:
    base = ("device", "add", "ct1", "--aet", "CT1", "--role", "modality", "--network", "10.1.2.3", "--legacy", "old")
    done = run(*base)
    assert done.code == 2
    assert "the settings have no legacy zone 'old'; there is none yet" in done.err


def test_zone_or_certificate_must_be_chosen(run: Run, settings: Settings, zone: None, tmp_path: Path) -> None:
    base = ("device", "add", "ct1", "--aet", "CT1", "--role", "modality", "--network", "10.1.2.3")
    assert run(*base).code == 2
    assert run(*base, "--legacy", "old", "--out", tmp_path / "x").code == 2


def test_renewed_device_stays_in_plaintext_until_it_is_seen_with_tls(
    run: Run, settings: Settings, zone: None, tmp_path: Path
) -> None:
    add_legacy(run)
    done = run("device", "renew", "ct1", "--out", tmp_path / "out")
    assert "it is accepted in plaintext in the legacy zone old until its first association over TLS" in done.out
    assert not device(settings).legacy_always
    done = run("device", "renew", "ct1", "--out", tmp_path / "out2", "--keep-plaintext")
    assert "also after that" in done.out
    assert device(settings).legacy_always


def test_zone_is_given_and_taken(run: Run, settings: Settings, zone: None, tmp_path: Path) -> None:
    base = ("device", "add", "ct1", "--aet", "CT1", "--role", "modality", "--network", "10.1.2.3")
    run(*base, "--out", tmp_path / "out")
    done = run("device", "legacy", "ct1", "--zone", "old", "--keep-plaintext")
    assert "device ct1 may call in plaintext in the legacy zone old; registry revision 3" in done.out
    assert (device(settings).legacy_zone, device(settings).legacy_always) == ("old", True)
    assert run("device", "legacy", "ct1", "--off", "--keep-plaintext").code == 2
    done = run("device", "legacy", "ct1", "--off", "--json")
    assert done.json["legacy_zone"] == ""
    assert device(settings).legacy_zone == ""
    assert run("device", "legacy", "ct2", "--off").code == 1
    assert run("device", "list", "--plaintext", "--json").json == []


# --- observe and enforce ---


@pytest.mark.parametrize(("until", "days"), [((), 30), (("--until", "14d"), 14), (("--until", "36h"), 1.5)])
def test_device_is_observed_for_a_time(
    run: Run, settings: Settings, zone: None, until: tuple[str, ...], days: float
) -> None:
    add_legacy(run)
    done = run("device", "observe", "ct1", *until)
    assert done.code == 0, done.err
    assert "is let through and recorded" in done.out
    observed = device(settings).observe_until
    assert observed is not None
    assert abs(observed - now() - timedelta(days=days)) < timedelta(minutes=1)
    assert "observed until" in run("device", "list").out
    assert run("device", "enforce", "ct1").code == 0
    assert device(settings).observe_until is None
    assert "MOVING OVER" in run("device", "list").out


@pytest.mark.parametrize("until", ["2020-01-01", "soon", "0d"])
def test_end_of_observing_must_be_to_come(run: Run, settings: Settings, zone: None, until: str) -> None:
    add_legacy(run)
    assert run("device", "observe", "ct1", "--until", until).code == 2
    assert device(settings).observe_until is None


# --- rollback ---


def test_rollback_brings_back_what_was_before(run: Run, settings: Settings, zone: None, tmp_path: Path) -> None:
    add_legacy(run)
    first = device(settings)
    run("device", "observe", "ct1")
    second = device(settings)
    run("device", "renew", "ct1", "--out", tmp_path / "out")
    run("device", "legacy", "ct1", "--off")
    done = run("device", "rollback", "ct1")
    assert "device ct1 is as it was before its last change; registry revision 6" in done.out
    assert device(settings).legacy_zone == "old"
    assert len(device(settings).certificates) == 1
    run("device", "rollback", "ct1")
    assert device(settings) == second
    run("device", "rollback", "ct1", "--json")
    assert device(settings) == first
    done = run("device", "rollback", "ct1")
    assert done.code == 1
    assert "nothing is known of it before that; no changes can be undone" in done.err
    history = run("device", "show", "ct1").out
    assert "anna: rollback-device (as it was at revision 4; undone: legacy-device)" in history


def test_several_changes_are_rolled_back_at_once(run: Run, settings: Settings, zone: None) -> None:
    add_legacy(run)
    first = device(settings)
    run("device", "observe", "ct1")
    run("device", "suspend", "ct1")
    assert "1 change can" not in run("device", "rollback", "ct1", "--changes", "3").err
    assert "before its last 2 changes" in run("device", "rollback", "ct1", "--changes", "2").out
    assert device(settings) == first
    run("device", "suspend", "ct1")
    assert run("device", "rollback", "ct1").code == 0
    assert device(settings) == first


def test_revoked_device_is_not_brought_back(run: Run, settings: Settings, zone: None) -> None:
    add_legacy(run)
    run("device", "revoke", "ct1")
    done = run("device", "rollback", "ct1")
    assert done.code == 1
    assert "it is revoked; register the device anew" in done.err


def test_rollback_of_nothing_is_a_usage_error(run: Run, settings: Settings) -> None:
    assert run("device", "rollback", "ct1", "--changes", "0").code == 2
    assert "there is no device 'ct1'" in run("device", "rollback", "ct1").err
