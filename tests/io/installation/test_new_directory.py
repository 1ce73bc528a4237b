"""A new gateway directory: complete, private, and all or nothing."""

import os
import ssl
import stat
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from dicomward.identity.registry import Endpoint, RegistryError
from dicomward.identity.registry_json import decode_snapshot
from dicomward.io.ca.local import LocalCa, is_issued_by, load_certificates
from dicomward.io.installation import new_directory
from dicomward.io.installation.check import check_configuration
from dicomward.io.installation.new_directory import DirectoryTakenError, make_gateway_directory, render_config, to_toml
from dicomward.io.registry.store import RegistryStore
from dicomward.settings import ListenAddress, Settings, load_settings, parse_settings
from tests.directory_helpers import PACS, copy_directory, new_gateway, now

NAMES = [
    "audit",
    "ca",
    "dicomward.toml",
    "policy.toml",
    "registry.db",
    "registry.json",
    "registry.json.lock",
    "run",
    "tls",
]


def listing(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return copy_directory(tmp_path / "gateway")


def test_everything_is_there_and_nothing_else(settings: Settings) -> None:
    assert listing(settings.directory) == NAMES
    assert listing(settings.directory.parent) == ["gateway"]
    assert listing(settings.directory / "ca") == ["ca.cert.pem", "ca.key.pem"]
    assert listing(settings.directory / "tls") == [
        "gateway-ecdsa.cert.pem",
        "gateway-ecdsa.key.pem",
        "gateway-rsa.cert.pem",
        "gateway-rsa.key.pem",
    ]


def test_what_is_made_passes_its_own_check(settings: Settings) -> None:
    assert check_configuration(settings, now()) == ()


def test_secrets_are_for_their_owner_only(settings: Settings) -> None:
    for path in [settings.directory, *settings.directory.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir() or "key" in path.name.split(".") or path.name.startswith("registry"):
            assert mode & 0o077 == 0, path


def test_archive_is_registered_and_on_record(settings: Settings) -> None:
    snapshot = decode_snapshot(settings.registry.snapshot.read_text())
    assert snapshot.archives == (PACS,)
    with RegistryStore.open(settings.registry.url) as store:
        assert store.read() == snapshot
        assert [(change.operator, change.audited) for change in store.changes_of("PACS")] == [("anna", True)]


def test_gateway_certificates_are_for_localhost_and_the_listen_host(tmp_path: Path) -> None:
    listen = ListenAddress(host="192.0.2.9", port=11112)
    make_gateway_directory(tmp_path / "g", new_gateway(listen=listen, hosts=("dicom.hospital.example",)), now())
    settings = load_settings(tmp_path / "g" / "dicomward.toml")
    assert settings.gateway.listen == listen
    authority = load_certificates(settings.tls.client_ca)
    kinds = []
    for pair in settings.tls.certificates:
        certificate = load_certificates(pair.certificate)[0]
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["localhost", "dicom.hospital.example"]
        assert list(map(str, names.get_values_for_type(x509.IPAddress))) == ["127.0.0.1", "::1", "192.0.2.9"]
        assert is_issued_by(certificate, authority)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        kinds.append(type(certificate.public_key()).__name__)
    assert len(set(kinds)) == 2


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_wildcard_addresses_are_not_names(tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_gateway_directory(tmp_path / "g", new_gateway(listen=ListenAddress(host=host, port=1)), now())
    certificate = load_certificates(tmp_path / "g" / "tls" / "gateway-ecdsa.cert.pem")[0]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(map(str, names.get_values_for_type(x509.IPAddress))) == ["127.0.0.1", "::1"]


def test_two_installations_have_authorities_with_different_names(tmp_path: Path, settings: Settings) -> None:
    make_gateway_directory(tmp_path / "other", new_gateway(), now())
    one, other = LocalCa.load(settings.directory / "ca"), LocalCa.load(tmp_path / "other" / "ca")
    assert one.certificate.subject != other.certificate.subject


def test_archive_with_tls_must_show_its_certificate_when_it_calls(tmp_path: Path) -> None:
    archive = replace(PACS, tls=True, certificate_sha256="a" * 64)
    make_gateway_directory(tmp_path / "g", new_gateway(archive), now())
    settings = load_settings(tmp_path / "g" / "dicomward.toml")
    assert settings.gateway.archive_listen_tls is True
    assert check_configuration(settings, now()) == ()


# --- all or nothing ---


@pytest.mark.parametrize("name", [name for name in NAMES if name != "registry.json.lock"])
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "g"
    directory.mkdir()
    (directory / name).symlink_to("nowhere")
    with pytest.raises(DirectoryTakenError, match=f"has {name} already, and nothing is overwritten"):
        make_gateway_directory(directory, new_gateway(), now())
    assert listing(directory) == [name]
    assert listing(tmp_path) == ["g"]


def test_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "g").write_text("mine")
    with pytest.raises(DirectoryTakenError, match="is not a directory"):
        make_gateway_directory(tmp_path / "g", new_gateway(), now())
    assert (tmp_path / "g").read_text() == "mine"


def test_existing_directory_keeps_its_own_files_and_its_identity(tmp_path: Path) -> None:
    directory = tmp_path / "g"
    directory.mkdir()
    (directory / "notes.txt").write_text("mine")
    inode = directory.stat().st_ino
    make_gateway_directory(directory, new_gateway(), now())
    assert listing(directory) == sorted([*NAMES, "notes.txt"])
    assert directory.stat().st_ino == inode
    assert listing(tmp_path) == ["g"]


def test_missing_parents_are_made(tmp_path: Path) -> None:
    make_gateway_directory(tmp_path / "a" / "b", new_gateway(), now())
    assert listing(tmp_path / "a") == ["b"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("exists", [False, True])
def test_failure_on_the_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, exists: bool
) -> None:
    if exists:
        (tmp_path / "g").mkdir()

    def fail(*_arguments: object, **_options: object) -> None:
        raise failure

    monkeypatch.setattr(new_directory, "apply_change", fail)
    with pytest.raises(type(failure)):
        make_gateway_directory(tmp_path / "g", new_gateway(), now())
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == (["g"] if exists else [])


def test_failure_while_moving_takes_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "g"
    directory.mkdir()
    (directory / "notes.txt").write_text("mine")
    real = Path.rename

    def fail_late(path: Path, target: Path) -> Path:
        if path.name == "registry.db" and target.parent == directory:
            raise OSError(5, "Input/output error")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", fail_late)
    with pytest.raises(OSError, match="Input/output error"):
        make_gateway_directory(directory, new_gateway(), now())
    assert listing(directory) == ["notes.txt"]
    assert listing(tmp_path) == ["g"]


def test_refused_archive_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise RegistryError("no")

    monkeypatch.setattr(RegistryStore, "add_archive", refuse)
    with pytest.raises(RegistryError, match="no"):
        make_gateway_directory(tmp_path / "g", new_gateway(), now())
    assert listing(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_directory_without_rights_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir(mode=0o500)
    with pytest.raises(PermissionError):
        make_gateway_directory(tmp_path / "p" / "g", new_gateway(), now())


# --- the settings file ---


def test_settings_file_shows_every_setting_with_its_default() -> None:
    text = render_config({})
    path = Path("/x/dicomward.toml")
    assert parse_settings(text, path=path) == parse_settings("", path=path)
    uncommented = []
    for line in text.splitlines():
        bare = line.removeprefix("# ")
        is_setting = " = " in bare and bare.split(" = ")[0].replace("_", "").isalpha()
        uncommented.append(bare if is_setting or bare.startswith("[") else line)
    every, none = parse_settings("\n".join(uncommented), path=path), parse_settings("", path=path)
    assert replace(every, limits=none.limits) == none
    for settings in (every, none):
        assert settings.limits.for_device("", "") == none.limits.for_device("", "")
        assert settings.limits.for_archive("") == none.limits.for_archive("")
    document = tomllib.loads("\n".join(uncommented))
    assert "idle_seconds" in document["gateway"]
    assert "second_sink" in document["audit"]


def test_values_replace_defaults() -> None:
    text = render_config({"gateway.listen": "[::]:2762", "gateway.archive_listen_tls": True})
    settings = parse_settings(text, path=Path("/x/dicomward.toml"))
    assert settings.gateway.listen == ListenAddress(host="::", port=2762)
    assert settings.gateway.archive_listen_tls is True


@pytest.mark.parametrize(
    "value", [True, False, 5, 0.5, "text", ["a", 1], {"a": "b", "c": [False]}, [{"certificate": "c", "key": "k"}]]
)
def test_defaults_are_written_as_toml_reads_them(value: object) -> None:
    assert tomllib.loads(f"x = {to_toml(value)}")["x"] == value


def test_endpoint_of_the_archive_may_be_anywhere(tmp_path: Path) -> None:
    archive = replace(PACS, endpoint=Endpoint(host="pacs.example", port=104), dedicated_link=True)
    make_gateway_directory(tmp_path / "g", new_gateway(archive), now())
    assert decode_snapshot((tmp_path / "g" / "registry.json").read_text()).archives == (archive,)
