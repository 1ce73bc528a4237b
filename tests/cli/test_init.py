"""`dicomward init`: one command to a gateway directory; what can't be right is refused and leaves nothing."""

from pathlib import Path

import pytest

from dicomward.identity.registry import Archive, Endpoint, RegistryError
from dicomward.identity.registry_json import decode_snapshot
from dicomward.io.ca.local import LocalCa
from dicomward.io.gateway.archive_link import LOOPBACK_NETWORKS
from dicomward.io.installation import new_directory
from dicomward.settings import ListenAddress, load_settings
from tests.cli.conftest import Run
from tests.directory_helpers import now


def archive_of(directory: Path) -> Archive:
    (archive,) = decode_snapshot((directory / "registry.json").read_text()).archives
    return archive


@pytest.fixture
def pin(tmp_path: Path) -> Path:
    path = tmp_path / "pacs.pem"
    path.write_bytes(LocalCa.make("pacs", now()).certificate_pem)
    return path


def nothing_else(tmp_path: Path, *names: str) -> None:
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_one_command_makes_a_directory_that_passes_its_check(run: Run, tmp_path: Path) -> None:
    directory = tmp_path / "gateway"
    done = run("init", directory, "--pacs", "ORTHANC@127.0.0.1:4242")
    assert done.code == 0
    assert f"made {directory}: settings, CA, certificates, policy, registry with the archive ORTHANC" in done.out
    assert f"dicomward gateway --config {directory}/dicomward.toml" in done.out
    assert "keep" in done.err
    assert archive_of(directory) == Archive(
        name="ORTHANC",
        ae_title="ORTHANC",
        called_ae_titles=("ORTHANC",),
        calling_ae_titles=("ORTHANC",),
        endpoint=Endpoint(host="127.0.0.1", port=4242),
        networks=LOOPBACK_NETWORKS,
    )
    settings = load_settings(directory / "dicomward.toml")
    assert settings.gateway.listen == ListenAddress(host="127.0.0.1", port=11112)
    assert settings.gateway.archive_listen == ListenAddress(host="127.0.0.1", port=11113)
    checked = run("check-config", "--config", directory / "dicomward.toml")
    assert (checked.code, checked.err) == (0, "")
    nothing_else(tmp_path, "gateway")


def test_all_options_are_used(run: Run, tmp_path: Path, pin: Path) -> None:
    directory = tmp_path / "gateway"
    done = run(
        *("init", directory, "--pacs", "MY PACS@x@10.0.0.5:104", "--listen", "[::1]:0", "--archive-listen", "[::1]:0"),
        *("--pacs-tls", "--pacs-pin", pin, "--pacs-network", "10.0.0.0/24", "--pacs-network", "10.0.1.0/24"),
        *("--host", "dicom.example", "--operator", "bert", "--json"),
    )
    assert done.code == 0, done.err
    assert done.json == {
        "directory": str(directory),
        "config": str(directory / "dicomward.toml"),
        "archive": "MY-PACS-x",
    }
    archive = archive_of(directory)
    assert archive.ae_title == "MY PACS@x"
    assert archive.tls
    assert archive.networks == ("10.0.0.0/24", "10.0.1.0/24")
    settings = load_settings(directory / "dicomward.toml")
    assert settings.gateway.listen == ListenAddress(host="::1", port=0)
    assert settings.gateway.archive_listen_tls
    shown = run("archive", "show", "MY-PACS-x", "--json", "--config", settings.path).json
    assert shown["history"][0]["operator"] == "bert"


def test_plaintext_to_another_machine_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    done = run("init", tmp_path / "gateway", "--pacs", "PACS@10.0.0.5:104")
    assert done.code == 2
    assert "plaintext to it could be read and changed on the way" in done.err
    assert "(--pacs-tls --pacs-pin CERT), or say --dedicated-link" in done.err
    nothing_else(tmp_path)


def test_dedicated_link_is_allowed(run: Run, tmp_path: Path) -> None:
    assert run("init", tmp_path / "gateway", "--pacs", "PACS@10.0.0.5:104", "--dedicated-link").code == 0
    archive = archive_of(tmp_path / "gateway")
    assert archive.dedicated_link
    assert archive.networks == ("10.0.0.5/32",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pacs", "127.0.0.1:104"], "'127.0.0.1:104' is not AET@HOST:PORT"),
        (["--pacs", "@127.0.0.1:104"], "'': an AE title must not be empty"),
        (["--pacs", "A_TITLE_THAT_IS_TOO_LONG@127.0.0.1:104"], "an AE title has at most 16 characters"),
        (["--pacs", "PACS@127.0.0.1"], "'127.0.0.1' is not HOST:PORT"),
        (["--pacs", "PACS@127.0.0.1:0"], "port 0 is not in 1 to 65535"),
        (["--pacs", "PACS@127.0.0.1:104", "--listen", "nowhere"], "'nowhere' is not HOST:PORT"),
        (["--pacs", "PACS@127.0.0.1:104", "--archive-listen", "::1:1"], "'::1:1' is not HOST:PORT"),
        (
            ["--pacs", "PACS@127.0.0.1:104", "--listen", "[::1]:5", "--archive-listen", "[::1]:5"],
            "devices and archives can't both connect to [::1]:5",
        ),
        (
            ["--pacs", "PACS@127.0.0.1:104", "--listen", "127.0.0.1:104"],
            "the archive is at 127.0.0.1:104, where the gateway is to listen",
        ),
        (["--pacs", "PACS@127.0.0.1:104", "--pacs-tls"], "--pacs-tls and --pacs-pin CERT go together"),
        (["--pacs", "PACS@127.0.0.1:104", "--pacs-pin", "x.pem"], "--pacs-tls and --pacs-pin CERT go together"),
        (
            ["--pacs", "PACS@127.0.0.1:104", "--pacs-tls", "--pacs-pin", "/nowhere/x.pem"],
            "/nowhere/x.pem can't be read (No such file or directory)",
        ),
        (["--pacs", "PACS@127.0.0.1:104", "--pacs-network", "10.0.0.1/8"], "'10.0.0.1/8' is not a network"),
        (["--pacs", "PACS@127.0.0.1:104", "--pacs-network", "any"], '"any" is for archives with a pinned certificate'),
        (["--pacs", "PACS@127.0.0.1:104", "--operator", ""], "the operator's name must have"),
        (["--pacs", "PACS@127.0.0.1:104", "--config", "elsewhere/dicomward.toml"], "not in elsewhere/dicomward.toml"),
        ([], "the following arguments are required: --pacs"),
    ],
)
def test_what_cannot_be_right_is_a_usage_error_and_leaves_nothing(
    run: Run, tmp_path: Path, options: list[str], message: str
) -> None:
    done = run("init", tmp_path / "gateway", *options)
    assert done.code == 2
    assert message in done.err
    assert done.out == ""
    nothing_else(tmp_path)


@pytest.mark.parametrize("config", ["gateway/dicomward.toml", "gateway"])
def test_config_may_be_named_as_with_every_command(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("init", "gateway", "--pacs", "PACS@127.0.0.1:104", "--config", config).code == 0


def test_nothing_is_overwritten(run: Run, tmp_path: Path) -> None:
    directory = tmp_path / "gateway"
    directory.mkdir()
    (directory / "policy.toml").write_text("mine")
    done = run("init", directory, "--pacs", "PACS@127.0.0.1:104")
    assert done.code == 1
    assert "has policy.toml already, and nothing is overwritten" in done.err
    assert (directory / "policy.toml").read_text() == "mine"
    nothing_else(tmp_path, "gateway")


def test_second_init_changes_nothing(run: Run, settings: object, tmp_path: Path) -> None:
    directory = tmp_path / "gateway"
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert run("init", directory, "--pacs", "OTHER@127.0.0.1:104").code == 1
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


def test_host_that_cannot_stand_in_a_certificate_is_refused(run: Run, tmp_path: Path) -> None:
    done = run("init", tmp_path / "gateway", "--pacs", "PACS@127.0.0.1:104", "--host", "röntgen")
    assert done.code == 1
    assert "can't stand in a certificate" in done.err
    nothing_else(tmp_path)


def test_failure_on_the_way_is_1_and_leaves_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise RegistryError("the registry is full")

    monkeypatch.setattr(new_directory, "apply_change", fail)
    done = run("init", tmp_path / "gateway", "--pacs", "PACS@127.0.0.1:104")
    assert (done.code, done.err) == (1, "dicomward: the registry is full\n")
    nothing_else(tmp_path)


def test_title_that_is_no_name_becomes_one(run: Run, tmp_path: Path) -> None:
    assert run("init", tmp_path / "gateway", "--pacs", "..$@127.0.0.1:104").code == 0
    assert archive_of(tmp_path / "gateway").name == "archive"
