"""Where the spool's keys come from; the fetched ones from a real enrolment server."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from dicomward.enrolment.http import Response
from dicomward.io.edge.spool import SpoolError
from dicomward.io.edge.spool_keys import SPOOL_KEY_PATH, KeyUnavailable, SpoolKeys, open_keys
from dicomward.io.edge.spool_seal import Description, Sealer, SealError, Unsealer
from dicomward.settings import ListenAddress
from dicomward.settings.edge import EdgeDevice, SpoolSettings
from tests.io.enrolment_place import Place, enrolment_place, new_key
from tests.real.pki import Authority

KEY = bytes(range(32))
WHO = Description(
    calling_ae_title="CT3",
    called_ae_title="PACS",
    sop_class_uid="1.2",
    sop_instance_uid="1.2.3",
    transfer_syntax_uid="1",
)


def settings(key: str, ca: Path | None = None) -> SpoolSettings:
    return SpoolSettings(
        directory=Path("spool"),
        key=key,
        key_ca=ca,
        quota_bytes=10_000,
        free_bytes=0,
        order="oldest",
        alarm_minutes=15,
        commitment="if-offered",
    )


def opened(key: str, tmp_path: Path) -> SpoolKeys:
    return open_keys(settings(key), (), tmp_path)


def works(keys: SpoolKeys, again: SpoolKeys, path: Path) -> bool:
    with path.open("wb") as file:
        sealer = Sealer(file, keys.of("ct3"), WHO)
        sealer.write(b"data")
        sealer.finish()
    unsealer = Unsealer(path, again.of("ct3"))
    unsealer.close()
    return unsealer.description == WHO


def test_key_is_a_file_or_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    with pytest.raises(SpoolError, match="can't be read"):
        opened(str(path), tmp_path)
    path.write_bytes(KEY)
    binary = opened(str(path), tmp_path)
    binary.prepare("ct3")
    path.write_text(KEY.hex() + "\n", "ascii")
    assert works(binary, opened(str(path), tmp_path), tmp_path / "file")
    for wrong in (b"short", b"x" * 64):
        path.write_bytes(wrong)
        with pytest.raises(SpoolError, match="neither 32 bytes nor"):
            opened(str(path), tmp_path)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(SpoolError, match="no credentials"):
        opened("credential:key", tmp_path)
    path.write_bytes(KEY)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert works(binary, opened("credential:key", tmp_path), tmp_path / "file")


def test_sealed_key_is_opened_by_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_bytes(b"sealed" + KEY)
    with pytest.raises(SpoolError, match="DPAPI is Windows'"):
        opened(f"dpapi:{tmp_path / 'key'}", tmp_path)
    monkeypatch.setattr("dicomward.io.system.posix.unseal", lambda sealed: sealed.removeprefix(b"sealed"))
    (tmp_path / "plain").write_bytes(KEY)
    sealed = opened(f"dpapi:{tmp_path / 'key'}", tmp_path)
    assert works(sealed, opened(str(tmp_path / "plain"), tmp_path), tmp_path / "file")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with enrolment_place(tmp_path_factory.mktemp("keys") / "gateway") as made:
        yield made


@pytest.fixture(scope="module")
def device(place: Place, tmp_path_factory: pytest.TempPathFactory) -> EdgeDevice:
    directory = tmp_path_factory.mktemp("device")
    key = new_key()
    told = place.enrol(place.invite(), key)
    (directory / "cert.pem").write_bytes(told.certificate.public_bytes(Encoding.PEM))
    (directory / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return EdgeDevice(
        name="ct3",
        ae_titles=("CT3",),
        listen=ListenAddress(host="127.0.0.1", port=0),
        networks=("127.0.0.1/32",),
        certificate=directory / "cert.pem",
        key=directory / "key.pem",
        authority=place.root,
        store="spool",
        operations=("c-store",),
    )


def fetched(place: Place, device: EdgeDevice, state: Path, *, url: str = "") -> SpoolKeys:
    return opened_keys(settings(url or place.url, place.root), device, state)


def opened_keys(spool: SpoolSettings, device: EdgeDevice, state: Path) -> SpoolKeys:
    keys = open_keys(spool, (device,), state)
    keys.open(device.name)
    return keys


def test_key_is_fetched_once_and_objects_are_accepted_without_the_network(
    place: Place, device: EdgeDevice, tmp_path: Path
) -> None:
    first = fetched(place, device, tmp_path)
    first.prepare("ct3")
    assert works(first, first, tmp_path / "file")
    content = b"".join(each.read_bytes() for each in tmp_path.rglob("*") if each.is_file() and each.name != "file")
    assert len(content) == 64
    # The next start is without a network: what comes is sealed, and can be read when the network is there.
    offline = fetched(place, device, tmp_path, url="https://127.0.0.1:1")
    with pytest.raises(SealError, match="the key that reads it is not here"):
        works(offline, offline, tmp_path / "file")
    with pytest.raises(KeyUnavailable, match="can't be fetched from"):
        offline.prepare("ct3")
    online = fetched(place, device, tmp_path)
    online.prepare("ct3")
    assert works(offline, online, tmp_path / "file")


def test_first_start_needs_the_server(device: EdgeDevice, place: Place, tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="The first start needs the enrolment server"):
        fetched(place, device, tmp_path, url="https://127.0.0.1:1")
    strange = settings(place.url, device.certificate)
    with pytest.raises(SpoolError, match="TLS: CERTIFICATE_VERIFY_FAILED"):
        opened_keys(strange, device, tmp_path)
    nobody = replace(device, certificate=tmp_path / "none.pem")
    with pytest.raises(SpoolError, match=r"none\.pem"):
        fetched(place, nobody, tmp_path)


def test_another_key_is_told_and_nothing_is_lost(place: Place, device: EdgeDevice, tmp_path: Path) -> None:
    fetched(place, device, tmp_path)
    public = tmp_path / "ct3" / "spool.pub"
    public.write_text(hashlib.sha256(b"x").hexdigest(), "ascii")
    keys = fetched(place, device, tmp_path)
    with pytest.raises(KeyUnavailable, match="another spool key for ct3"):
        keys.prepare("ct3")
    public.write_text("zz", "ascii")
    with pytest.raises(SpoolError, match="can't be used"):
        fetched(place, device, tmp_path)


def test_who_is_no_enrolment_server_is_not_believed(device: EdgeDevice, tmp_path: Path) -> None:
    authority = Authority("CA", tmp_path / "ca")
    own, other = authority.issue("server"), authority.issue("device")
    mine = replace(device, certificate=other.certificate, key=other.key)
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            plain, _peer = server.accept()
            with own.server_context().wrap_socket(plain, server_side=True) as sealed:
                asked.append(sealed.recv(100))

        thread = threading.Thread(target=serve)
        thread.start()
        told = settings(f"https://127.0.0.1:{server.getsockname()[1]}", authority.path)
        with pytest.raises(SpoolError, match="not one of an enrolment server"):
            opened_keys(told, mine, tmp_path)
        thread.join()
    assert asked == [b""]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (403, b"not from this network", "it refuses \\(403\\): not from this network"),
        (200, b"{}", "its answer can't be read"),
        (200, b'{"key": "AAAA"}', "its answer can't be read"),
    ],
)
def test_answer_that_is_no_key_is_told(
    place: Place, device: EdgeDevice, tmp_path: Path, status: int, body: bytes, message: str
) -> None:
    response = Response(status=HTTPStatus(status), content_type="text/plain", body=body)
    place.server.routes.add("GET", SPOOL_KEY_PATH, lambda _request: response)
    with pytest.raises(SpoolError, match=message):
        fetched(place, device, tmp_path)
