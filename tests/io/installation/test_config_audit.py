"""What check-config says of receivers, heads and lockdown."""

from pathlib import Path

from dicomward.io.installation.config_audit import find_outlet_warnings, find_receiver_problems
from dicomward.io.protection.lockdown import change_lockdown
from dicomward.settings import Settings, parse_settings
from tests.real.pki import Authority


def settings_of(tmp_path: Path, text: str = "") -> Settings:
    return parse_settings(text, path=tmp_path / "dicomward.toml")


def test_nothing_is_wrong_where_nothing_is_configured(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    assert list(find_receiver_problems(settings)) == []
    assert list(find_outlet_warnings(settings)) == []


def test_files_of_a_receiver_that_are_missing(tmp_path: Path) -> None:
    ((where, problem),) = find_receiver_problems(settings_of(tmp_path, '[audit.syslog]\naddress="h:1"\nca="no.pem"\n'))
    assert where == "[audit] syslog"
    assert "must be readable PEM files" in problem


def test_a_receiver_without_our_certificate_and_heads_beside_the_log_are_weak(tmp_path: Path) -> None:
    authority = Authority("CA", tmp_path / "pki")
    text = f'[audit]\nheads_file = "audit/heads"\n[audit.syslog]\naddress = "h:1"\nca = "{authority.path}"\n'
    settings = settings_of(tmp_path, text)
    assert list(find_receiver_problems(settings)) == []
    told = [problem for _where, problem, _hint in find_outlet_warnings(settings)]
    assert len(told) == 2


def test_a_lockdown_is_told_and_a_broken_file_too(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    change_lockdown(settings, "main", "anna", reason="", now="2026-01-31T12:00:00Z", lift=False)
    ((_, problem, hint),) = find_outlet_warnings(settings)
    assert "site main" in problem
    assert hint == "dicomward lockdown --site main --lift"
    (settings.gateway.state_directory / "lockdown.json").write_text("{")
    ((_, problem, _hint),) = find_outlet_warnings(settings)
    assert "can't be used" in problem
