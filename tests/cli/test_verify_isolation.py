"""`dicomward verify-isolation`: verdicts, exit codes, and nobody touched but registered archives."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dicomward.identity.registry import Endpoint, RegistrySnapshot
from dicomward.identity.registry_json import decode_snapshot
from dicomward.io.registry.store import write_snapshot
from dicomward.settings import Settings
from tests.cli.conftest import Outcome, Run
from tests.directory_helpers import running_gateway
from tests.io.audit_helpers import records_of
from tests.io.listening import ACCEPT, REJECT, Listening, dicom, listening, web

CLOSED = 1


def register(settings: Settings, *endpoints: Endpoint) -> None:
    path = settings.registry.snapshot
    snapshot = decode_snapshot(path.read_text())
    (pacs,) = snapshot.archives
    archives = tuple(
        replace(pacs, name=f"PACS{n}", ae_title=f"PACS{n}", called_ae_titles=(f"PACS{n}",), endpoint=endpoint)
        for n, endpoint in enumerate(endpoints, 1)
    )
    write_snapshot(path, RegistrySnapshot(devices=(), archives=archives, revision=snapshot.revision + 1))


def at(peer: Listening) -> Endpoint:
    return Endpoint(host="127.0.0.1", port=peer.port)


def verify(run: Run, *options: object) -> Outcome:
    return run("verify-isolation", "--ports", CLOSED, "--timeout", "5", *options)


def test_archive_that_answers_another_address_fails(run: Run, settings: Settings) -> None:
    with listening(dicom(ACCEPT)) as peer:
        register(settings, at(peer))
        done = verify(run, "--from", "127.0.0.2")
    assert done.code == 1
    assert done.out.splitlines() == [
        f"FAIL  archive PACS1: port {peer.port}: it accepts an association of a stranger",
        f"  FAIL  127.0.0.1 port {peer.port} dimse: it accepts an association of a stranger",
        "  PASS  127.0.0.1 port 1: the connection is refused",
    ]
    assert set(peer.sources) == {"127.0.0.2"}


def test_archive_that_is_closed_passes(run: Run, settings: Settings) -> None:
    register(settings, Endpoint(host="127.0.0.1", port=2))
    done = verify(run)
    assert (done.code, done.out.splitlines()[0]) == (0, "PASS  archive PACS1: nothing answers from here")


def test_on_the_machine_of_the_archive_an_answer_is_inconclusive(run: Run, settings: Settings) -> None:
    with listening(web("401 Unauthorized")) as peer:
        register(settings, at(peer))
        done = verify(run)
        assert done.code == 1
        assert "INCONCLUSIVE  archive PACS1" in done.out
        assert "the archive is on this machine" in done.out
        assert "--from" in done.out
        with running_gateway(settings, {"ok": True}):
            assert verify(run).code == 1


def test_json_holds_every_check_and_the_worst_verdict_counts(run: Run, settings: Settings) -> None:
    with listening(dicom(REJECT)) as peer:
        register(settings, at(peer), Endpoint(host="127.0.0.1", port=2), Endpoint(host="no-such-host.invalid", port=2))
        done = verify(run, "--from", "127.0.0.2", "--json")
    value = done.json
    assert (done.code, value["verdict"]) == (1, "FAIL")
    assert [each["verdict"] for each in value["archives"]] == ["FAIL", "PASS", "NOT_RUN"]
    assert "can't be resolved here" in value["archives"][2]["why"]
    assert value["archives"][0]["checks"][0] == {
        "address": "127.0.0.1",
        "port": peer.port,
        "service": "dimse",
        "verdict": "FAIL",
        "why": "it answers DICOM, and rejects by AE title, which anybody can type",
    }


def test_only_the_named_archive_is_touched_and_only_registered_ones_can_be_named(run: Run, settings: Settings) -> None:
    with listening(dicom(ACCEPT)) as one, listening(dicom(ACCEPT)) as other:
        register(settings, at(one), at(other))
        assert verify(run, "--archive", "PACS1", "--from", "127.0.0.2").code == 1
        assert (len(one.sources), other.sources) == (1, [])
        wrong = verify(run, "--archive", "PACS3")
        assert wrong.code == 1
        assert "Only registered archives are looked at" in wrong.err
        assert other.sources == []


def test_verdicts_are_recorded(run: Run, settings: Settings) -> None:
    with listening(dicom(ACCEPT)) as peer:
        register(settings, at(peer), Endpoint(host="127.0.0.1", port=2))
        verify(run, "--from", "127.0.0.2", "--record")
    records = [r.members for r in records_of(settings.audit.directory) if r.members["code"] == "DW-ISOLATION"]
    assert [(each["archive"], each["state"], each.get("reason")) for each in records] == [
        ("PACS1", "FAIL", "archive-not-isolated"),
        ("PACS2", "PASS", None),
    ]
    assert records[0]["operator"] == "anna"


def test_record_that_cannot_be_written_is_told(run: Run, settings: Settings) -> None:
    register(settings, Endpoint(host="127.0.0.1", port=2))
    shutil.rmtree(settings.audit.directory)
    settings.audit.directory.write_text("in the way")
    done = verify(run, "--record")
    assert done.code == 0
    assert "the verdict on PACS1 could not be recorded" in done.err


def test_a_copy_of_the_registry_is_enough_on_another_machine(
    run: Run, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(settings, Endpoint(host="127.0.0.1", port=2))
    copy = tmp_path / "registry.json"
    copy.write_text(settings.registry.snapshot.read_text())
    monkeypatch.setenv("DICOMWARD_CONFIG", str(tmp_path / "none.toml"))
    assert verify(run, "--registry", copy).code == 0
    assert "can't be read" in verify(run, "--registry", tmp_path / "none.json").err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ports", "x"), "'x' is neither a port nor a range"),
        (("--ports", "0"), "is not within 1 to 65535"),
        (("--ports", "2-1"), "is not within 1 to 65535"),
        (("--ports", "1-65535"), "or is more than 64 ports"),
        (("--ports", "1-40,100-140"), "it is no scanner"),
        (("--timeout", "0"), "--timeout must be within"),
    ],
)
def test_wrong_use_touches_nobody(run: Run, settings: Settings, options: tuple[str, ...], message: str) -> None:
    with listening(dicom(ACCEPT)) as peer:
        register(settings, at(peer))
        done = run("verify-isolation", *options)
        assert (done.code, peer.sources) == (2, [])
    assert message in done.err


def test_usual_ports_are_looked_at_where_none_are_named(run: Run, settings: Settings) -> None:
    register(settings, Endpoint(host="127.0.0.1", port=2))
    value = run("verify-isolation", "--json", "--timeout", "0.2").json
    assert [each["port"] for each in value["archives"][0]["checks"]] == [
        2, 104, 11112, 2762, 4242, 80, 443, 8042, 8080, 8443,
    ]  # fmt: skip


def test_no_archive_is_nothing_to_look_at(run: Run, settings: Settings) -> None:
    register(settings)
    assert "no archive is registered" in verify(run).err


def test_gateway_that_runs_but_does_not_answer_counts_as_running(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicomward.io.control import ControlError

    def fails(*_arguments: object) -> object:
        raise ControlError("no answer")

    monkeypatch.setattr("dicomward.io.control.call", fails)
    monkeypatch.setattr("dicomward.io.protection.isolation.is_own_address", lambda _address: False)
    with listening(dicom(ACCEPT)) as peer:
        register(settings, at(peer))
        done = verify(run)
    assert done.code == 1
    assert "the gateway runs on this machine" in done.out
