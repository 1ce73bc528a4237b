"""Keys in a token: SoftHSM, made as an administrator would make it."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from dicomward.cli.main import main
from dicomward.io.ca.directory import CaDirectory
from dicomward.io.ca.pkcs11 import open_key, parse_uri
from dicomward.io.ca.sign import make_root
from dicomward.io.ca.terms import CaError
from dicomward.io.registry.store import RegistryStore
from tests.io.ca_helpers import NOW, PASSPHRASE, grant, issuer, make_ca, spki

MODULE = next((path for path in map(Path, ("/usr/lib/softhsm/libsofthsm2.so",)) if path.exists()), None)
PIN = "5678"


def test_uris_are_read() -> None:
    path, query = parse_uri("pkcs11:token=My%20CA;object=issuing-1?module-path=/x.so&pin-source=/a+b")
    assert path == {"token": "My CA", "object": "issuing-1"}
    assert query == {"module-path": "/x.so", "pin-source": "/a+b"}


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file:/x", "is no PKCS#11 URI"),
        ("pkcs11:token=a;object=b", "needs token="),
        ("pkcs11:token=a?module-path=/x", "needs token="),
        ("pkcs11:token=a;object=b;slot=1?module-path=/x", "'slot' that is not known"),
    ],
)
def test_uris_that_say_too_little_or_too_much_are_refused(uri: str, message: str) -> None:
    with pytest.raises(CaError, match=message):
        parse_uri(uri)


def test_a_module_that_is_missing_is_told() -> None:
    with pytest.raises(CaError, match="can't be used"):
        open_key("pkcs11:token=a;object=b?module-path=/nowhere/x.so")
    with pytest.raises(CaError, match="the PIN in /nowhere/pin can't be read"):
        open_key("pkcs11:token=a;object=b?module-path=/nowhere/x.so&pin-source=/nowhere/pin")


@contextmanager
def environment(**values: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A token with an EC and an RSA key; yields a URI without its object."""
    if MODULE is None or shutil.which("softhsm2-util") is None:
        pytest.skip("softhsm2 is not installed")
    place = tmp_path_factory.mktemp("hsm")
    (place / "tokens").mkdir()
    (place / "softhsm2.conf").write_text(f"directories.tokendir = {place}/tokens\nobjectstore.backend = file\n")
    (place / "pin").write_text(f"{PIN}\n")
    with environment(SOFTHSM2_CONF=str(place / "softhsm2.conf")):
        subprocess.run(
            ["softhsm2-util", "--init-token", "--free", "--label", "CA", "--so-pin", "1234", "--pin", PIN],
            check=True,
            capture_output=True,
        )
        import pkcs11
        from pkcs11.util.ec import encode_named_curve_parameters

        with pkcs11.lib(str(MODULE)).get_token(token_label="CA").open(user_pin=PIN, rw=True) as session:
            curve = session.create_domain_parameters(
                pkcs11.KeyType.EC,
                {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")},
                local=True,
            )
            curve.generate_keypair(store=True, label="ec")
            session.generate_keypair(pkcs11.KeyType.RSA, 2048, store=True, label="rsa")
        yield f"pkcs11:token=CA;object={{}}?module-path={MODULE}&pin-source={place}/pin"


@pytest.mark.parametrize("label", ["ec", "rsa"])
def test_the_token_signs_certificates(token: str, label: str) -> None:
    key = open_key(token.format(label))
    certificate = make_root("HSM", key, NOW, days=1)
    certificate.verify_directly_issued_by(certificate)
    assert key.key_size >= 256


def test_the_key_stays_in_its_token(token: str) -> None:
    from cryptography.hazmat.primitives import serialization

    for label in ("ec", "rsa"):
        key = open_key(token.format(label))
        with pytest.raises(CaError, match="stays in its token"):
            key.private_numbers()
        with pytest.raises(CaError, match="stays in its token"):
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )


def test_a_wrong_label_or_pin_is_told(token: str, tmp_path: Path) -> None:
    with pytest.raises(CaError, match="the key 'other' of the token 'CA' can't be used"):
        open_key(token.format("other"))


def test_a_ca_whose_issuing_key_is_in_a_token(token: str, tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca", key_uri=token.format("ec"))
    assert not (ca.path / "issuing-1.key.pem").exists()
    with RegistryStore.open(f"sqlite:///{tmp_path / 'r.db'}", create=True) as store:
        first = issuer(store, ca).issue(spki(), grant(), NOW)
        rolled = ca.roll_over(ca.open_root(PASSPHRASE), NOW, key_uri=token.format("rsa"))
        second = issuer(store, CaDirectory(rolled.path)).renew(spki(), first.sha256, NOW + timedelta(days=60))
    assert (second.generation, second.chain != first.chain) == (2, True)


def test_a_ca_whose_root_is_in_a_token_from_the_command_line(
    token: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, uri = str(tmp_path / "ca"), token.format("rsa")
    assert main(["ca", "init", directory, "--root-pkcs11", uri, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["root_key"], told["passphrase"]) == ("pkcs11:token=CA;object=rsa", None)
    assert not (tmp_path / "ca/root.key.pem").exists()
    first = CaDirectory(tmp_path / "ca")
    assert first.root.public_key() == open_key(uri).public_key()
    assert main(["ca", "rollover", directory, "--root-key", token.format("ec")]) == 1
    assert "is not the key of" in capsys.readouterr().err
    assert main(["ca", "rollover", directory, "--root-key", uri]) == 0
    rolled = CaDirectory(tmp_path / "ca")
    rolled.open().certificate.verify_directly_issued_by(rolled.root)
    assert rolled.state.active.name == "issuing-2"
    assert main(["ca", "init", f"{directory}2", "--root-pkcs11", uri, "--offline-root"]) == 2
    assert main(["ca", "init", f"{directory}2", "--root-pkcs11", f"{uri}&pin-value=1"]) == 2
