"""`dicomward archive`: targets by name, each link explicit."""

import hashlib
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from dicomward.cli.archive import name_for
from dicomward.identity.registry import Archive, Endpoint
from dicomward.identity.registry_json import decode_snapshot
from dicomward.io.ca.local import LocalCa
from dicomward.io.gateway.archive_link import LOOPBACK_NETWORKS
from dicomward.settings import Settings, load_settings
from tests.cli.conftest import Run
from tests.directory_helpers import now, running_gateway


def archive(settings: Settings, name: str) -> Archive:
    found = decode_snapshot(settings.registry.snapshot.read_text()).archive_by_name(name)
    assert found is not None
    return found


@pytest.fixture
def pin(tmp_path: Path) -> tuple[Path, str]:
    certificate = LocalCa.make("ris", now()).certificate
    (tmp_path / "ris.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return tmp_path / "ris.pem", hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def test_archive_on_this_machine_needs_nothing_more(run: Run, settings: Settings) -> None:
    done = run("archive", "add", "ris", "RIS@localhost:1104")
    assert done.code == 0, done.err
    assert "archive ris registered: devices reach it as RIS; registry revision 2; no gateway runs here" in done.out
    assert archive(settings, "ris") == Archive(
        name="ris",
        ae_title="RIS",
        calling_ae_titles=("RIS",),
        endpoint=Endpoint(host="localhost", port=1104),
        networks=LOOPBACK_NETWORKS,
    )


def test_all_options_are_used(run: Run, settings: Settings, pin: tuple[Path, str]) -> None:
    done = run(
        *("archive", "add", "ris", "RIS@10.0.0.9:104", "--called", "WORKLIST", "--called", "MPPS", "--calling", "RIS1"),
        *("--calling", "RIS2", "--network", "10.0.0.0/24", "--tls", "--pin", pin[0], "--site", "Basement", "--json"),
    )
    assert done.code == 0, done.err
    assert archive(settings, "ris") == Archive(
        name="ris",
        ae_title="RIS",
        called_ae_titles=("WORKLIST", "MPPS"),
        calling_ae_titles=("RIS1", "RIS2"),
        endpoint=Endpoint(host="10.0.0.9", port=104),
        networks=("10.0.0.0/24",),
        tls=True,
        certificate_sha256=pin[1],
        site="Basement",
    )
    assert done.json["called_ae_titles"] == ["WORKLIST", "MPPS"]
    assert done.json["revision"] == 2


def test_dedicated_link_is_explicit(run: Run, settings: Settings) -> None:
    refused = run("archive", "add", "ris", "RIS@10.0.0.9:104")
    assert refused.code == 2
    assert "use TLS with the archive's pinned certificate (--tls --pin CERT), or say --dedicated-link" in refused.err
    assert run("archive", "add", "ris", "RIS@10.0.0.9:104", "--dedicated-link").code == 0
    assert archive(settings, "ris").dedicated_link
    assert archive(settings, "ris").networks == ("10.0.0.9/32",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["r/s", "RIS@127.0.0.1:104"], "'r/s' is not a name"),
        (["ris", "127.0.0.1:104"], "is not AET@HOST:PORT"),
        (["ris", "RIS@127.0.0.1:104", "--tls"], "--tls and --pin CERT go together"),
        (["ris", "RIS@127.0.0.1:104", "--called", ""], "AE title ''"),
        (["ris", "RIS@127.0.0.1:104", "--network", "any"], '"any" is for archives with a pinned certificate only'),
        (["ris", "RIS@127.0.0.1:104", "--max-associations", "0"], "--max-associations 0: dicomward.toml:"),
        (["ris", "RIS@127.0.0.1:104", "--max-associations", "x"], "invalid int value"),
        (["ris"], "the following arguments are required: AET@HOST:PORT"),
    ],
)
def test_what_cannot_be_right_is_a_usage_error(
    run: Run, settings: Settings, arguments: list[str], message: str
) -> None:
    before = {path: path.read_bytes() for path in (settings.path, settings.registry.snapshot)}
    done = run("archive", "add", *arguments)
    assert done.code == 2
    assert message in done.err
    assert {path: path.read_bytes() for path in before} == before


def test_taken_title_is_refused(run: Run, settings: Settings) -> None:
    done = run("archive", "add", "second", "PACS@127.0.0.1:105", "--max-associations", "5")
    assert done.code == 1
    assert "the called AE title 'PACS' leads to 'PACS' and to 'second'" in done.err
    assert load_settings(settings.path).limits.archives == {}


def test_cap_goes_into_the_settings_file(run: Run, settings: Settings) -> None:
    settings.path.chmod(0o640)
    before = settings.path.read_text()
    done = run("archive", "add", "ris.1", "RIS@127.0.0.1:105", "--max-associations", "5")
    assert done.code == 0
    assert (
        f"the cap of 5 associations is in {settings.path}; a running gateway takes it with: dicomward reload"
        in done.err
    )
    changed = load_settings(settings.path)
    assert changed.limits.for_archive("ris.1").associations == 5
    assert settings.path.read_text().startswith(before.rstrip("\n"))
    assert stat.S_IMODE(settings.path.stat().st_mode) == 0o640
    assert "at most 5" in run("archive", "show", "ris.1").out


def test_cap_that_is_there_already_is_for_the_person_to_change(run: Run, settings: Settings) -> None:
    with settings.path.open("a") as file:
        file.write("\n[limits.archive.ris]\nassociations = 3\n")
    done = run("archive", "add", "ris", "RIS@127.0.0.1:105", "--max-associations", "5")
    assert done.code == 2
    assert 'has [limits.archive."ris"] already; change the number there' in done.err


def test_list_shows_all_archives(run: Run, settings: Settings, pin: tuple[Path, str]) -> None:
    run("archive", "add", "ris", "RIS@10.0.0.9:104", "--dedicated-link", "--site", "Basement")
    run("archive", "add", "dose", "DOSE@[2001:db8::1]:104", "--tls", "--pin", pin[0])
    lines = [" ".join(line.split()) for line in run("archive", "list").out.splitlines()]
    assert lines == [
        "NAME CALLED AS TARGET LINK SITE",
        "PACS PACS PACS@127.0.0.1:4242 plaintext, loopback -",
        "dose DOSE DOSE@[2001:db8::1]:104 mutual TLS -",
        "ris RIS RIS@10.0.0.9:104 plaintext, dedicated link Basement",
    ]
    assert [entry["name"] for entry in run("archive", "list", "--json").json] == ["PACS", "dose", "ris"]


def test_show_tells_everything_and_the_history(run: Run, settings: Settings) -> None:
    text = run("archive", "show", "PACS").out
    for part in (
        "listens at       127.0.0.1:4242 (plaintext, loopback)",
        "calls us with    PACS",
        "calls from       127.0.0.0/8",
        "pinned           -",
        "anna: add-archive (AE title PACS at 127.0.0.1 port 4242)",
    ):
        assert part in text
    value = run("archive", "show", "PACS", "--json").json
    assert value["endpoint"] == {"host": "127.0.0.1", "port": 4242}
    assert value["history"][0]["action"] == "add-archive"


def test_unknown_archive_is_refused_with_the_nearest_name(run: Run, settings: Settings) -> None:
    for action in ("show", "remove"):
        done = run("archive", action, "PAC")
        assert (done.code, done.out) == (1, "")
        assert "there is no archive 'PAC'; did you mean 'PACS'?" in done.err


def test_removed_archive_is_gone_when_the_command_returns(run: Run, settings: Settings) -> None:
    with running_gateway(settings, {"ok": True, "aborted": 4}):
        done = run("archive", "remove", "PACS")
    assert done.out == "archive PACS removed; registry revision 2; in force, 4 open associations aborted\n"
    assert decode_snapshot(settings.registry.snapshot.read_text()).archives == ()
    assert run("archive", "add", "PACS", "PACS@127.0.0.1:4242").code == 0
    assert run("archive", "remove", "PACS", "--json").json == {
        "name": "PACS",
        "revision": 4,
        "gateway_runs": False,
        "aborted_associations": 0,
    }


@pytest.mark.parametrize(
    ("ae_title", "name"),
    [("PACS", "PACS"), ("MY PACS", "MY-PACS"), ("_x", "x"), ("-", "archive"), ("A.b_c-1", "A.b_c-1")],
)
def test_title_becomes_a_name(ae_title: str, name: str) -> None:
    assert name_for(ae_title) == name


def test_replica_is_registered_and_its_archive_stays(run: Run, settings: Settings) -> None:
    only = decode_snapshot(settings.registry.snapshot.read_text()).archives[0]
    primary, target = only.name, f"{only.ae_title}@127.0.0.1:4243"
    assert run("archive", "add", "stand-in", target, "--replica-of", primary).code == 0
    assert f"stands in for    {primary}" in run("archive", "show", "stand-in").out
    refused = run("archive", "remove", primary)
    assert refused.code == 1
    assert "stand-in is a replica of" in refused.err
    unknown = run("archive", "add", "other", target, "--replica-of", "nobody")
    assert unknown.code == 1
    assert "there is no such archive" in unknown.err
