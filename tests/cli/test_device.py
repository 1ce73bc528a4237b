"""`dicomward device`: registered, listed, suspended, resumed, renewed, revoked; refused without a trace."""

import json
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dicomward.identity.registry import Device, DeviceStatus, Endpoint, RegistrySnapshot
from dicomward.identity.registry_json import decode_snapshot
from dicomward.io.audit.log import AuditLogError
from dicomward.io.ca.local import KeyKind, LocalCa, is_issued_by, load_certificates
from dicomward.io.registry import change as registry_change
from dicomward.settings import Settings
from tests.cli.conftest import Outcome, Run
from tests.directory_helpers import now, running_gateway


def snapshot(settings: Settings) -> RegistrySnapshot:
    return decode_snapshot(settings.registry.snapshot.read_text())


def device(settings: Settings, name: str = "ct1") -> Device:
    found = snapshot(settings).device_by_name(name)
    assert found is not None
    return found


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def add(run: Run, settings: Settings, out: Path) -> Run:
    def add_device(*options: object) -> Outcome:
        base = ("device", "add", "ct1", "--aet", "CT1", "--role", "modality", "--network", "10.1.2.0/24", "--out", out)
        return run(*base, *options)

    return add_device


# --- add ---


def test_device_is_registered_and_gets_its_files(add: Run, settings: Settings, out: Path) -> None:
    done = add()
    assert done.code == 0, done.err
    assert "device ct1 registered; registry revision 2; no gateway runs here, the next start uses it" in done.out
    assert f"{out}/key.pem {out}/cert.pem {out}/ca.pem" in done.out
    assert done.err == ""
    registered = device(settings)
    assert registered == Device(
        name="ct1",
        ae_titles=("CT1",),
        role="modality",
        networks=("10.1.2.0/24",),
        certificates=registered.certificates,
    )
    certificate = load_certificates(out / "cert.pem")[0]
    assert registered.certificates[0].sha256 == certificate.fingerprint(hashes.SHA256()).hex()
    assert (out / "ca.pem").read_bytes() == settings.tls.client_ca.read_bytes()
    assert is_issued_by(certificate, load_certificates(out / "ca.pem"))
    assert stat.S_IMODE((out / "key.pem").stat().st_mode) == 0o600
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)


def test_all_options_are_used(add: Run, settings: Settings, out: Path) -> None:
    done = add(
        *("--aet", "CT1 STORE", "--network", "2001:db8::/64", "--site", "Ward B", "--address", "192.0.2.7:104"),
        *("--key", "rsa", "--days", "30", "--operator", "bert", "--json"),
    )
    assert done.code == 0, done.err
    registered = device(settings)
    assert registered.ae_titles == ("CT1", "CT1 STORE")
    assert registered.networks == ("10.1.2.0/24", "2001:db8::/64")
    assert registered.site == "Ward B"
    assert registered.address == Endpoint(host="192.0.2.7", port=104)
    certificate = load_certificates(out / "cert.pem")[0]
    assert isinstance(certificate.public_key(), rsa.RSAPublicKey)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:dicom:ae:CT1", "urn:dicom:ae:CT1%20STORE"]
    assert list(map(str, names.get_values_for_type(x509.IPAddress))) == ["192.0.2.7"]
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 30
    value = done.json
    assert value["files"] == [str(out / name) for name in ("key.pem", "cert.pem", "ca.pem")]
    assert (value["revision"], value["gateway_runs"], value["aborted_associations"]) == (2, False, 0)
    assert value["address"] == {"host": "192.0.2.7", "port": 104}
    assert value["certificates"][0]["sha256"] == registered.certificates[0].sha256


def test_plain_device_is_registered_with_a_warning(add: Run, settings: Settings) -> None:
    done = add("--address", "192.0.2.7:104", "--plain")
    assert done.code == 0
    assert device(settings).plain
    assert "images will go to 192.0.2.7 in plaintext; make sure that nobody else is on that link" in done.err


def test_plain_device_on_this_machine_needs_no_warning(add: Run) -> None:
    assert add("--address", "127.0.0.1:104", "--plain").err == ""


def test_any_network_must_be_typed_and_is_warned_about(run: Run, settings: Settings, out: Path) -> None:
    base = ("device", "add", "ct1", "--aet", "CT1", "--role", "modality", "--out", out)
    refused = run(*base)
    assert refused.code == 2
    assert "the following arguments are required: --network" in refused.err
    assert not out.exists()
    done = run(*base, "--network", "any")
    assert done.code == 0
    assert device(settings).networks == ("any",)
    assert 'ct1 may call from every address, because you typed "any"' in done.err


def test_role_that_the_policy_names_is_known(run: Run, settings: Settings, out: Path) -> None:
    with settings.policy.file.open("a") as file:
        file.write('\n[[rule]]\nid = "own"\neffect = "allow"\nrole = ["dose-server"]\noperation = ["c-echo"]\n')
    base = ("device", "add", "dose", "--aet", "DOSE", "--network", "10.0.0.0/8", "--out", out)
    assert run(*base, "--role", "dose-server").code == 0
    assert device(settings, "dose").role == "dose-server"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--aet", "A_TITLE_THAT_IS_TOO_LONG"], "an AE title has at most 16 characters"),
        (["--aet", "CT1"], "an AE title is listed twice"),
        (["--network", "10.1.2.3/24"], "'10.1.2.3/24' is not a network"),
        (["--network", "0.0.0.0/0"], "'0.0.0.0/0' is every address; if that is what you want, write \"any\""),
        (["--role", "modallity"], "names the role 'modallity'; did you mean 'modality'?"),
        (["--address", "nowhere"], "'nowhere' is not HOST:PORT"),
        (["--plain"], "--plain is about the place where the device listens; add --address"),
        (["--site", "x" * 65], "a site has at most 64 printable characters"),
        (["--key", "dsa"], "there is no 'dsa'; the known ones are ecdsa, rsa"),
        (["--certificate", "x.pem"], "not allowed with argument --out"),
        (["--operator", "\x00"], "the operator's name must have"),
    ],
)
def test_what_cannot_be_right_is_a_usage_error_and_leaves_nothing(
    add: Run, settings: Settings, out: Path, options: list[str], message: str
) -> None:
    before = settings.registry.snapshot.read_bytes()
    done = add(*options)
    assert done.code == 2
    assert message in done.err
    assert settings.registry.snapshot.read_bytes() == before
    assert not out.exists()


@pytest.mark.parametrize("content", [None, b"\xff", b"no policy"])
def test_unknown_role_with_an_unreadable_policy_says_so(add: Run, settings: Settings, content: bytes | None) -> None:
    if content is None:
        settings.policy.file.unlink()
    else:
        settings.policy.file.write_bytes(content)
    done = add("--role", "dose-server")
    assert done.code == 2
    assert "'dose-server' is no ready role, and the policy can't be read to look for it" in done.err


def test_ready_role_needs_no_policy(add: Run, settings: Settings) -> None:
    settings.policy.file.unlink()
    assert add().code == 0


@pytest.mark.parametrize(
    ("name", "title", "message"),
    [
        ("ct1", "OTHER", "the name 'ct1' is used twice"),
        ("ct2", "CT1", "AE title 'CT1' belongs to 'ct1'"),
        ("ct2", "PACS", "AE title 'PACS' belongs to the archive 'PACS'"),
    ],
)
def test_taken_name_or_title_is_refused_and_leaves_no_key(
    add: Run, run: Run, settings: Settings, tmp_path: Path, name: str, title: str, message: str
) -> None:
    assert add().code == 0
    before = settings.registry.snapshot.read_bytes()
    done = run(
        *("device", "add", name, "--aet", title, "--role", "modality", "--network", "10.0.0.0/8"),
        *("--out", tmp_path / "second"),
    )
    assert done.code == 1
    assert message in done.err
    assert not (tmp_path / "second").exists()
    assert settings.registry.snapshot.read_bytes() == before


def test_files_are_never_overwritten(add: Run, settings: Settings, out: Path) -> None:
    out.mkdir()
    (out / "cert.pem").write_text("mine")
    done = add()
    assert done.code == 1
    assert "has cert.pem already, and nothing is overwritten" in done.err
    assert [path.name for path in out.iterdir()] == ["cert.pem"]
    assert snapshot(settings).revision == 1


@pytest.mark.parametrize("days", ["0", "3651"])
def test_impossible_life_is_refused(add: Run, out: Path, days: str) -> None:
    done = add("--days", days)
    assert done.code == 2
    assert "a life of so many days is not possible" in done.err
    assert not out.exists()


def test_local_authority_that_is_gone_is_explained(add: Run, settings: Settings, out: Path) -> None:
    (settings.directory / "ca" / "ca.key.pem").unlink()
    done = add()
    assert done.code == 1
    assert "ca.key.pem can't be read" in done.err
    assert not out.exists()


def test_local_authority_that_the_gateway_does_not_trust_is_explained(add: Run, settings: Settings, out: Path) -> None:
    (settings.directory / "ca" / "own.pem").write_bytes(LocalCa.make("own", now()).certificate_pem)
    text = settings.path.read_text().replace('"ca/ca.cert.pem"', '"ca/own.pem"')
    settings.path.write_text(text)
    done = add()
    assert done.code == 1
    assert "own.pem does not hold the local CA, so the gateway would refuse its certificates" in done.err
    assert not out.exists()


# --- a certificate of the hospital's own PKI ---


def bind(run: Run, path: Path) -> Outcome:
    return run(
        *("device", "add", "ct1", "--aet", "CT1", "--role", "modality", "--network", "10.0.0.0/8"),
        *("--certificate", path),
    )


def test_own_certificate_is_bound_and_no_key_is_made(run: Run, settings: Settings, tmp_path: Path) -> None:
    issued = LocalCa.load(settings.directory / "ca").issue_device("ct1", ["CT1"], KeyKind.ECDSA, now())
    (tmp_path / "own.pem").write_bytes(issued.certificate_pem)
    done = bind(run, tmp_path / "own.pem")
    assert (done.code, done.err) == (0, "")
    assert device(settings).certificates == (issued.record,)
    assert "key.pem" not in done.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gateway", "own.pem"]


def test_own_certificate_for_servers_only_is_refused_when_it_is_bound(
    run: Run, settings: Settings, tmp_path: Path
) -> None:
    # A gateway's certificate of another PKI is typed by mistake; it would fail in each handshake.
    key = ec.generate_private_key(ec.SECP256R1())
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(authority)
        .issuer_name(authority)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now())
        .not_valid_after(now() + timedelta(days=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "own.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    done = bind(run, tmp_path / "own.pem")
    assert done.code == 1
    assert "it is not for clients (EKU clientAuth), so each handshake would fail" in done.err


def test_own_certificate_of_an_unknown_authority_is_bound_with_a_warning(
    run: Run, settings: Settings, tmp_path: Path
) -> None:
    issued = LocalCa.make("Hospital CA", now()).issue_device("ct1", ["CT1"], KeyKind.ECDSA, now())
    (tmp_path / "own.pem").write_bytes(issued.certificate_pem)
    done = bind(run, tmp_path / "own.pem")
    assert done.code == 0
    assert "is not issued directly by a CA in" in done.err
    assert device(settings).certificates == (issued.record,)


def test_same_certificate_for_two_devices_is_refused(run: Run, settings: Settings, tmp_path: Path) -> None:
    issued = LocalCa.load(settings.directory / "ca").issue_device("ct1", ["CT1"], KeyKind.ECDSA, now())
    (tmp_path / "own.pem").write_bytes(issued.certificate_pem)
    assert bind(run, tmp_path / "own.pem").code == 0
    done = run(
        *("device", "add", "ct2", "--aet", "CT2", "--role", "modality", "--network", "10.0.0.0/8"),
        *("--certificate", tmp_path / "own.pem"),
    )
    assert done.code == 1
    assert "is bound twice; each device needs its own key" in done.err


def test_own_certificate_that_has_ended_is_refused(run: Run, settings: Settings, tmp_path: Path) -> None:
    authority = LocalCa.make("Old CA", now() - timedelta(days=20))
    issued = authority.issue_device("ct1", ["CT1"], KeyKind.ECDSA, now() - timedelta(days=10), days=5)
    (tmp_path / "own.pem").write_bytes(issued.certificate_pem)
    done = bind(run, tmp_path / "own.pem")
    assert done.code == 1
    assert "it ended at" in done.err
    assert snapshot(settings).revision == 1


@pytest.mark.parametrize("name", ["ca/ca.cert.pem", "tls/gateway-rsa.cert.pem", "tls/gateway-ecdsa.cert.pem"])
def test_certificate_of_the_gateway_itself_is_bound_to_nobody(run: Run, settings: Settings, name: str) -> None:
    done = bind(run, settings.directory / name)
    assert done.code == 1
    assert "that is the gateway's own" in done.err
    assert snapshot(settings).revision == 1


def test_file_without_a_certificate_is_refused(run: Run, settings: Settings, tmp_path: Path) -> None:
    done = bind(run, settings.path)
    assert done.code == 1
    assert "holds no certificate in PEM or DER" in done.err
    assert bind(run, tmp_path / "none.pem").code == 1


# --- suspend, resume, revoke ---


@pytest.mark.parametrize(
    ("action", "status"),
    [
        ("suspend", DeviceStatus.SUSPENDED),
        ("resume", DeviceStatus.ACTIVE),
        ("revoke", DeviceStatus.REVOKED),
    ],
)
def test_status_is_in_force_when_the_command_returns(
    add: Run, run: Run, settings: Settings, action: str, status: DeviceStatus
) -> None:
    assert add().code == 0
    with running_gateway(settings, {"ok": True, "aborted": 2}) as asked:
        done = run("device", action, "ct1")
    assert done.code == 0
    assert done.out == f"device ct1 is {status.value}; registry revision 3; in force, 2 open associations aborted\n"
    assert device(settings).status is status
    audit = asked[0]["audit"]
    assert isinstance(audit, dict)
    assert (audit["operator"], audit["action"], audit["device"]) == ("anna", f"{action}-device", "ct1")


def test_status_as_json(add: Run, run: Run) -> None:
    assert add().code == 0
    assert run("device", "suspend", "ct1", "--json").json == {
        "name": "ct1",
        "status": "suspended",
        "revision": 3,
        "gateway_runs": False,
        "aborted_associations": 0,
    }


def test_gateway_that_does_not_confirm_makes_the_command_fail(add: Run, run: Run, settings: Settings) -> None:
    assert add().code == 0
    with running_gateway(settings, {"ok": False, "error": "broken"}):
        done = run("device", "revoke", "ct1")
    assert done.code == 1
    assert "the change is stored (revision 3), but it may not be in force: the gateway answered: broken" in done.err
    assert device(settings).status is DeviceStatus.REVOKED


def test_device_that_is_stored_keeps_its_key_though_the_gateway_does_not_confirm(
    add: Run, settings: Settings, out: Path
) -> None:
    with running_gateway(settings, {"ok": False, "error": "broken"}):
        done = add()
    assert done.code == 1
    assert device(settings).name == "ct1"
    assert (out / "key.pem").exists()


def test_failed_audit_record_makes_the_command_fail(
    add: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise AuditLogError("disk full")

    monkeypatch.setattr(registry_change, "append_offline", fail)
    done = add()
    assert done.code == 1
    assert "it is not in the audit log: disk full" in done.err


def test_revoked_device_never_comes_back(add: Run, run: Run) -> None:
    assert add().code == 0
    assert run("device", "revoke", "ct1").code == 0
    done = run("device", "resume", "ct1")
    assert done.code == 1
    assert "it is revoked, and that is for good; register the device anew under another name" in done.err


@pytest.mark.parametrize("action", ["suspend", "resume", "revoke", "show"])
def test_unknown_device_is_refused_with_the_nearest_name(add: Run, run: Run, action: str) -> None:
    assert add().code == 0
    done = run("device", action, "ct2")
    assert (done.code, done.out) == (1, "")
    assert "there is no device 'ct2'; did you mean 'ct1'?" in done.err


def test_device_without_a_name_is_a_usage_error(run: Run, settings: Settings) -> None:
    assert run("device", "revoke").code == 2
    assert run("device").code == 2


# --- renew ---


def test_renewed_device_may_use_both_keys_for_a_while(add: Run, run: Run, settings: Settings, tmp_path: Path) -> None:
    assert add("--address", "127.0.0.1:104").code == 0
    done = run("device", "renew", "ct1", "--out", tmp_path / "new")
    assert done.code == 0, done.err
    assert "device ct1 renewed" in done.out
    records = device(settings).certificates
    assert [record.status for record in records] == ["active", "active"]
    certificate = load_certificates(tmp_path / "new" / "cert.pem")[0]
    assert certificate.fingerprint(hashes.SHA256()).hex() in {record.sha256 for record in records}
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(map(str, names.get_values_for_type(x509.IPAddress))) == ["127.0.0.1"]


def test_old_keys_end_if_asked(add: Run, run: Run, settings: Settings, tmp_path: Path) -> None:
    assert add().code == 0
    old = device(settings).certificates[0].sha256
    done = run("device", "renew", "ct1", "--out", tmp_path / "new", "--key", "rsa", "--revoke-old", "--json")
    assert done.code == 0
    statuses = {record["sha256"]: record["status"] for record in done.json["certificates"]}
    assert statuses[old] == "revoked"
    assert sorted(statuses.values()) == ["active", "revoked"]


def test_renewal_of_an_unknown_or_revoked_device_is_refused(add: Run, run: Run, tmp_path: Path) -> None:
    assert add().code == 0
    done = run("device", "renew", "ct2", "--out", tmp_path / "new")
    assert done.code == 1
    assert "there is no device 'ct2'; did you mean 'ct1'?" in done.err
    assert run("device", "revoke", "ct1").code == 0
    done = run("device", "renew", "ct1", "--out", tmp_path / "new")
    assert done.code == 1
    assert "it is revoked; register the device anew" in done.err
    assert not (tmp_path / "new").exists()


# --- list and show ---


def test_list_shows_all_devices(add: Run, run: Run) -> None:
    assert run("device", "list").out.splitlines() == [
        "NAME  AE TITLES  ROLE  SITE  NETWORKS  STATUS  CERTIFICATE UNTIL"
    ]
    assert run("device", "list", "--json").json == []
    assert add("--aet", "CT1S").code == 0
    lines = run("device", "list").out.splitlines()
    assert len(lines) == 2
    assert lines[1].split()[:6] == ["ct1", "CT1,CT1S", "modality", "-", "10.1.2.0/24", "active"]
    assert [entry["name"] for entry in run("device", "list", "--json").json] == ["ct1"]
    assert run("device", "revoke", "ct1").code == 0
    assert run("device", "list").out.splitlines()[1].split()[-2:] == ["revoked", "-"]


def test_show_tells_everything_and_the_history(add: Run, run: Run, settings: Settings) -> None:
    assert add("--address", "[2001:db8::7]:104", "--plain", "--site", "Ward B").code == 0
    assert run("device", "suspend", "ct1", "--operator", "bert").code == 0
    text = run("device", "show", "ct1").out
    for part in (
        "device ct1: suspended",
        "listens at   [2001:db8::7]:104 (plaintext)",
        "site         Ward B",
        device(settings).certificates[0].sha256,
        "anna: add-device (AE titles CT1; role modality; networks 10.1.2.0/24)",
        "bert: suspend-device",
    ):
        assert part in text
    value = run("device", "show", "ct1", "--json").json
    assert value["status"] == "suspended"
    assert [entry["action"] for entry in value["history"]] == ["add-device", "suspend-device"]
    json.dumps(value)


def test_show_without_address_and_site(add: Run, run: Run) -> None:
    assert add().code == 0
    text = run("device", "show", "ct1").out
    assert "listens at   -" in text
    assert "site         -" in text


def test_database_that_is_away_is_refused_with_words(run: Run, settings: Settings) -> None:
    (settings.directory / "registry.db").unlink()
    done = run("device", "list")
    assert done.code == 1
    assert "there is no registry at" in done.err
    assert run("device", "suspend", "ct1").code == 1
