"""`dicomward check-config`: 0 without errors, else 2; every problem with its remedy."""

from dicomward.settings import Settings
from tests.cli.conftest import Run


def test_fresh_directory_is_fine(run: Run, settings: Settings) -> None:
    done = run("check-config")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{settings.path}: 0 errors, 0 warnings\n"
    assert run("check-config", "--json").json == {"ok": True, "problems": []}


def test_warnings_do_not_fail(run: Run, settings: Settings) -> None:
    settings.audit.directory.chmod(0o755)
    done = run("check-config")
    assert done.code == 0
    audit = settings.audit.directory
    assert done.err == f"warning: {audit}: other users may look into it; run: chmod 700 {audit}\n"
    assert done.out.endswith(": 0 errors, 1 warnings\n")


def test_errors_fail_with_2_and_all_are_named(run: Run, settings: Settings) -> None:
    settings.tls.client_ca.unlink()
    settings.policy.file.unlink()
    done = run("check-config")
    assert done.code == 2
    assert len(done.err.splitlines()) == 2
    assert done.out.endswith(": 2 errors, 0 warnings\n")
    value = run("check-config", "--json").json
    assert value["ok"] is False
    assert [problem["severity"] for problem in value["problems"]] == ["error", "error"]
    assert set(value["problems"][0]) == {"severity", "location", "message", "hint"}


def test_mistakes_in_the_settings_are_named_with_their_lines(run: Run, settings: Settings) -> None:
    settings.path.write_text("[gateway]\nlistn = 1\nworkers = -1\n")
    done = run("check-config")
    assert done.code == 2
    assert "error: dicomward.toml:2: gateway.listn: there is no such setting; did you mean 'listen'?" in done.err
    assert "error: dicomward.toml:3: gateway.workers: -1 is not a whole number" in done.err
    assert run("check-config", "--json").json["ok"] is False


def test_missing_file_is_an_error(run: Run, settings: Settings) -> None:
    settings.path.unlink()
    assert run("check-config").code == 2
