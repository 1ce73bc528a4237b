"""`dicomward ca`: from an empty directory to a fleet that has moved to another issuing CA."""

import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from dicomward.cli.common import now
from dicomward.enrolment.grant import Issued
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.io.ca.local import load_certificates
from dicomward.io.ca.service import open_issuer
from dicomward.settings import Settings, load_settings
from dicomward.vocab.reason import ReasonCode
from tests.cli.conftest import Run
from tests.io.ca_helpers import grant, spki


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text("correct horse battery\n")
    return path


@pytest.fixture
def ca(run: Run, settings: Settings, passphrase: Path) -> Path:
    """The CA where the settings expect it."""
    assert run("ca", "init", "--passphrase-file", passphrase).code == 0
    return settings.enrolment.ca


def issue(settings: Settings, name: str) -> Issued:
    with open_issuer(settings) as issuer:
        return issuer.issue(spki(), grant(name), now())


def test_init_makes_a_ca_that_the_gateway_trusts(run: Run, settings: Settings, passphrase: Path) -> None:
    done = run("ca", "init", "--passphrase-file", passphrase, "--name", "General Hospital")
    assert done.code == 0
    assert f"made the CA {settings.enrolment.ca}" in done.out
    assert "passphrase of the root" not in done.out
    assert "correct horse" not in done.out + done.err
    trusted = load_certificates(settings.tls.client_ca)
    assert [each.subject.rfc4514_string() for each in trusted][1:] == [
        "CN=General Hospital root CA",
        "CN=General Hospital issuing CA 1",
    ]
    assert (settings.enrolment.ca / "root.crl").exists()
    # Devices must believe the gateway's certificate, which the local CA has issued.
    assert trusted[0] in load_certificates(settings.enrolment.ca / "anchors.pem")
    assert run("check-config").code == 0
    assert "action=init" in run("audit", "search", "--code", "DW-CA-CHANGE").out


def test_the_local_ca_still_registers_devices(run: Run, ca: Path, tmp_path: Path) -> None:
    added = run(
        "device", "add", "ct9", "--aet", "CT9", "--role", "modality", "--network", "10.0.0.9", "--out", tmp_path / "ct9"
    )
    assert added.code == 0
    assert run("renew-gateway").code == 0


def test_a_host_without_a_gateway_makes_a_ca(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passphrase: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("ca", "init", tmp_path / "ca", "--passphrase-file", passphrase, "--json")
    assert done.code == 0
    assert done.json["trusted"] == 0
    assert done.json["root_key"] == str(tmp_path / "ca" / "root.key.pem")
    assert done.json["passphrase"] is None
    assert run("ca", "init", "--passphrase-file", passphrase).code == 2
    again = run("ca", "init", tmp_path / "ca", "--passphrase-file", passphrase)
    assert again.code == 1
    assert "not empty" in again.err


def test_without_a_terminal_a_passphrase_is_made_and_shown_once(run: Run, settings: Settings, tmp_path: Path) -> None:
    done = run("ca", "init", tmp_path / "ca", "--json")
    assert done.code == 0
    made = tmp_path / "made"
    made.write_text(done.json["passphrase"])
    assert len(done.json["passphrase"]) == 34
    assert run("ca", "rollover", tmp_path / "ca", "--passphrase-file", made).code == 0


@pytest.mark.parametrize("where", ["here", "stick", "directory"])
def test_the_root_is_written_elsewhere(
    run: Run, settings: Settings, tmp_path: Path, passphrase: Path, where: str
) -> None:
    (tmp_path / "mnt").mkdir()
    argument = {"here": [], "stick": [tmp_path / "stick.pem"], "directory": [tmp_path / "mnt"]}[where]
    place = {
        "here": tmp_path / "ca" / "offline-root" / "root.key.pem",
        "stick": tmp_path / "stick.pem",
        "directory": tmp_path / "mnt" / "root.key.pem",
    }[where]
    done = run("ca", "init", tmp_path / "ca", "--passphrase-file", passphrase, "--offline-root", *argument)
    assert done.code == 0
    assert f'[enrolment] ca = "{tmp_path / "ca"}"' in done.out
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert not (tmp_path / "ca" / "root.key.pem").exists()
    moved = place.rename(tmp_path / "moved.pem")
    refused = run("ca", "rollover", tmp_path / "ca", "--passphrase-file", passphrase)
    assert (refused.code, "the root's key is not at" in refused.err) == (1, True)
    assert run("ca", "rollover", tmp_path / "ca", "--passphrase-file", passphrase, "--root-key", moved).code == 0


def test_bad_usage_is_told(run: Run, settings: Settings, tmp_path: Path, passphrase: Path) -> None:
    for arguments, message in (
        (["--passphrase-file", tmp_path / "missing"], "can't be read"),
        (["--passphrase-file", passphrase, "--issuing-days", "0"], "--issuing-days 0 is not possible"),
        (["--passphrase-file", passphrase, "--pkcs11", "file:x"], "is no PKCS#11 URI"),
        (
            ["--passphrase-file", passphrase, "--pkcs11", "pkcs11:token=a;object=b?module-path=/x&pin-value=1"],
            "pin-source=FILE",
        ),
    ):
        done = run("ca", "init", tmp_path / "ca", *arguments)
        assert (done.code, message in done.err) == (2, True)
    (tmp_path / "short").write_text("short\n")
    assert "fewer than 8" in run("ca", "init", tmp_path / "ca", "--passphrase-file", tmp_path / "short").err
    assert not (tmp_path / "ca").exists()


def test_status_shows_how_far_the_fleet_has_moved(run: Run, settings: Settings, ca: Path, passphrase: Path) -> None:
    first = issue(settings, "ct1")
    issue(settings, "ct2")
    assert run("ca", "status", "--json").json["issuing"][0]["devices"] == ["ct1", "ct2"]
    done = run("ca", "rollover", "--passphrase-file", passphrase)
    assert done.code == 0
    assert "issuing-2 issues from now on" in done.out
    assert len(load_certificates(settings.tls.client_ca)) == 4
    with open_issuer(settings) as issuer:
        issuer.renew(spki(), first.sha256, now())
    shown = run("ca", "status")
    assert "still with issuing-1: ct2" in shown.out
    by_name = {each["name"]: each for each in run("ca", "status", "--json").json["issuing"]}
    assert (by_name["issuing-1"]["devices"], by_name["issuing-2"]["devices"]) == (["ct2"], ["ct1"])
    assert (by_name["issuing-1"]["state"], by_name["issuing-1"]["crl_until"]) == ("retired", None)


def test_crl_lists_a_revoked_device(run: Run, settings: Settings, ca: Path, tmp_path: Path) -> None:
    issued = issue(settings, "ct1")
    assert run("device", "revoke", "ct1").code == 0
    done = run("ca", "crl", "--out", tmp_path / "crl.pem", "--pem")
    assert done.code == 0
    assert "1 certificates revoked, current until" in done.out
    crl = x509.load_pem_x509_crl((tmp_path / "crl.pem").read_bytes())
    assert [each.serial_number for each in crl] == [issued.serial]
    assert run("ca", "crl", "--if-due").out == "no CRL is due\n"
    assert run("ca", "crl", "--if-due", "--json").json == []
    assert run("ca", "crl", "--json").json[0]["entries"] == 1
    assert run("ca", "status", "--json").json["issuing"][0]["crl_until"] is not None


def test_a_compromised_issuing_ca_is_in_the_crl_of_the_root(
    run: Run, settings: Settings, ca: Path, passphrase: Path
) -> None:
    old = load_certificates(ca / "issuing-1.cert.pem")[0]
    assert run("ca", "rollover", "--passphrase-file", passphrase, "--compromised").code == 0
    crl = x509.load_der_x509_crl((ca / "root.crl").read_bytes())
    assert [each.serial_number for each in crl] == [old.serial_number]


def test_the_local_ca_is_adopted(run: Run, settings: Settings, ca: Path) -> None:
    done = run("ca", "adopt")
    assert done.code == 0
    assert [each["name"] for each in run("ca", "status", "--json").json["issuing"]] == ["issuing-1", "local"]
    assert run("ca", "crl").code == 0
    assert run("ca", "adopt").code == 1


def test_a_gateway_elsewhere_is_told_to_trust_it(
    run: Run, settings: Settings, tmp_path: Path, passphrase: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DICOMWARD_CONFIG")
    made = run("ca", "init", tmp_path / "ca", "--passphrase-file", passphrase)
    assert f"on the gateway's host: dicomward ca trust {tmp_path / 'ca' / 'trust.pem'}" in made.out
    config = ("--config", settings.path)
    done = run("ca", "trust", tmp_path / "ca" / "trust.pem", *config)
    assert (done.code, done.out) == (0, f"2 CAs added to {settings.tls.client_ca}; next: dicomward reload\n")
    assert run("ca", "trust", tmp_path / "ca" / "trust.pem", "--json", *config).json["added"] == 0
    leaf = settings.tls.certificates[0].certificate
    refused = run("ca", "trust", leaf, *config)
    assert (refused.code, "is no CA" in refused.err) == (1, True)
    assert run("ca", "trust", tmp_path / "missing", *config).code == 1


def test_a_directory_without_a_ca_is_refused(run: Run, settings: Settings, passphrase: Path) -> None:
    for action in ("status", "crl", "adopt"):
        done = run("ca", action)
        assert (done.code, "there is no CA in" in done.err) == (1, True)
    assert run("ca", "rollover", "--passphrase-file", passphrase).code == 1


def test_a_rollover_without_a_passphrase_is_refused(run: Run, ca: Path) -> None:
    done = run("ca", "rollover")
    assert (done.code, "--passphrase-file FILE" in done.err) == (2, True)


def test_a_wrong_passphrase_changes_nothing(run: Run, settings: Settings, ca: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("something else\n")
    done = run("ca", "rollover", "--passphrase-file", tmp_path / "wrong")
    assert (done.code, "the passphrase is wrong" in done.err) == (1, True)
    assert [each["name"] for each in run("ca", "status", "--json").json["issuing"]] == ["issuing-1"]


def test_lives_of_certificates_come_from_the_settings(run: Run, settings: Settings, ca: Path) -> None:
    text = settings.path.read_text()
    settings.path.write_text(text.replace("[enrolment]", '[enrolment]\nlife_days = 10\ncrl_url = "http://x/y.crl"'))
    with open_issuer(load_settings(settings.path)) as issuer:
        assert issuer.terms.life == timedelta(days=10)
        assert issuer.terms.crl_url == "http://x/y.crl"


def test_a_restored_backup_issues_and_renews_again(run: Run, settings: Settings, ca: Path, tmp_path: Path) -> None:
    before = issue(settings, "ct1")
    assert run("backup", tmp_path / "b.tar.gz").code == 0
    after = issue(settings, "ct2")
    assert run("restore", tmp_path / "b.tar.gz", tmp_path / "restored").code == 0
    restored = load_settings(tmp_path / "restored" / "dicomward.toml")
    assert restored.enrolment.ca == tmp_path / "restored" / "issuing-ca"
    with open_issuer(restored) as issuer:
        assert issuer.renew(spki(), before.sha256, now()).generation == 2
        # What was issued after the backup is bound no more, and its number does not come again.
        with pytest.raises(EnrolmentRefusedError) as caught:
            issuer.renew(spki(), after.sha256, now())
        assert caught.value.reason is ReasonCode.NOT_A_DEVICE_CERTIFICATE
        again = issuer.issue(spki(), grant("ct2"), now())
        assert (again.generation, again.serial != after.serial) == (1, True)
