"""The device's directory: key.pem, cert.pem, ca.pem, and enrol.json that renewal needs. Replaced whole, never half.

A renewal is prepared beside them: key.pem.next is written before it is asked for, and stays until the certificate for
it has come. So after a lost answer the same key asks again, and gets the same certificate.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dicomward.io.ca.local import LocalCaError, load_certificates, write_new_file
from dicomward.io.enrolment.client import ClientError, DeviceKey
from dicomward.io.system import calls

KEY_NAME: Final = "key.pem"
CERTIFICATE_NAME: Final = "cert.pem"
CA_NAME: Final = "ca.pem"
STATE_NAME: Final = "enrol.json"
NEXT_KEY_NAME: Final = "key.pem.next"
_NEXT: Final = ".new"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """What a renewal has to know."""

    server: str
    device: str
    key_kind: str
    ae_title: str = ""
    gateway: str = ""
    called_ae_title: str = ""


class DeviceDirectory:
    """The files of one device."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def key(self) -> Path:
        """Return the path of the key."""
        return self.path / KEY_NAME

    @property
    def certificate(self) -> Path:
        """Return the path of the certificate and its chain."""
        return self.path / CERTIFICATE_NAME

    @property
    def ca(self) -> Path:
        """Return the path of the CAs to trust."""
        return self.path / CA_NAME

    @property
    def is_asking(self) -> bool:
        """Say if a key waits for its certificate: the answer to an earlier request may be lost."""
        return (self.path / NEXT_KEY_NAME).exists()

    def prepare(self, kind: str) -> DeviceKey:
        """Return the key to ask with: the one of a try before, else a new one, which is stored first.

        Raises ClientError.
        """
        path = self.path / NEXT_KEY_NAME
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.exists():
                return _load_key(path)
            key = make_key(kind)
            write_new_file(path, _pem(key), 0o600)
            return key
        except OSError as error:
            raise ClientError(
                f"{path} can't be written ({error.strerror}); check the directory and its disk"
            ) from error

    def discard(self) -> None:
        """Forget a key that was refused for good, and the directory if nothing else is in it."""
        (self.path / NEXT_KEY_NAME).unlink(missing_ok=True)
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    def install(self, certificate: x509.Certificate, cas: list[x509.Certificate], state: Enrolled) -> None:
        """Put the prepared key, the certificate and the CAs in place. Raises ClientError.

        Each file is replaced in one step. Between the key and the certificate a reader may find a pair that does not
        match; that is why the old pair stays as key.pem.old and cert.pem.old, good until it ends.
        """
        anchors = _anchors(cas)
        chain = [
            each for each in cas if _is_ca(each) and each.subject != each.issuer and each.subject == certificate.issuer
        ]
        try:
            next_key = _load_key(self.path / NEXT_KEY_NAME)
            if next_key.public_key() != certificate.public_key():
                raise ClientError("the server's certificate is for another key; nothing was changed")
            contents = {
                CA_NAME: (_pem_of(anchors), 0o644),
                STATE_NAME: (json.dumps(asdict(state), indent=1).encode() + b"\n", 0o644),
                CERTIFICATE_NAME: (_pem_of([certificate, *chain]), 0o644),
            }
            for name, (data, mode) in contents.items():
                temporary = self.path / f"{name}{_NEXT}"
                temporary.unlink(missing_ok=True)
                write_new_file(temporary, data, mode)
            for name in (KEY_NAME, CERTIFICATE_NAME):
                if (self.path / name).exists():
                    old = self.path / f"{name}.old"
                    old.unlink(missing_ok=True)
                    os.link(self.path / name, old)
            for name in (CA_NAME, STATE_NAME):
                os.replace(self.path / f"{name}{_NEXT}", self.path / name)
            os.replace(self.path / NEXT_KEY_NAME, self.path / KEY_NAME)
            os.replace(self.path / f"{CERTIFICATE_NAME}{_NEXT}", self.path / CERTIFICATE_NAME)
            calls.sync_directory(self.path)
        except OSError as error:
            raise ClientError(
                f"the files can't be written to {self.path} ({error.strerror}); make room, and repeat the command"
            ) from error

    def store(self, state: Enrolled) -> None:
        """Replace what a renewal has to know. Raises ClientError."""
        self._replace(STATE_NAME, json.dumps(asdict(state), indent=1).encode() + b"\n")

    def trust(self, cas: list[x509.Certificate]) -> bool:
        """Trust the CAs that the server has now; False if they are the same as before. Raises ClientError."""
        anchors = _anchors(cas)
        if not anchors or set(anchors) == set(self.anchors()):
            return False
        self._replace(CA_NAME, _pem_of(anchors))
        return True

    def _replace(self, name: str, data: bytes) -> None:
        temporary = self.path / f"{name}{_NEXT}"
        try:
            temporary.unlink(missing_ok=True)
            write_new_file(temporary, data, 0o644)
            os.replace(temporary, self.path / name)
        except OSError as error:
            raise ClientError(f"{temporary} can't be written ({error.strerror})") from error

    def repair(self) -> bool:
        """Finish an installation that was cut off between key and certificate; say if there was one."""
        temporary = self.path / f"{CERTIFICATE_NAME}{_NEXT}"
        if not temporary.exists() or (self.path / NEXT_KEY_NAME).exists() or not self.key.exists():
            return False
        if load_certificates(temporary)[0].public_key() != _load_key(self.key).public_key():
            return False
        os.replace(temporary, self.certificate)
        calls.sync_directory(self.path)
        return True

    def state(self) -> Enrolled:
        """Return what was stored. Raises ClientError."""
        path = self.path / STATE_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return Enrolled(**values)
        except FileNotFoundError as error:
            raise ClientError(f"{self.path} holds no enrolled device; enrol first, with --server and --code") from error
        except (OSError, ValueError, TypeError) as error:
            raise ClientError(f"{path} can't be read ({error}); enrol anew") from error

    def current(self) -> x509.Certificate:
        """Return the certificate. Raises ClientError."""
        return self._certificates(self.certificate)[0]

    def anchors(self) -> tuple[x509.Certificate, ...]:
        """Return the CAs to trust. Raises ClientError."""
        return self._certificates(self.ca)

    @staticmethod
    def _certificates(path: Path) -> tuple[x509.Certificate, ...]:
        try:
            return load_certificates(path)
        except LocalCaError as error:
            raise ClientError(str(error)) from error


def make_key(kind: str) -> DeviceKey:
    """Make a key of the device."""
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def fingerprint_of(certificate: x509.Certificate) -> bytes:
    """Return the SHA-256 of the DER form."""
    return certificate.fingerprint(hashes.SHA256())


def _load_key(path: Path) -> DeviceKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise ClientError(f"{path} is no private key ({error}); remove it, and repeat the command") from error
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise ClientError(f"{path} is neither an ECDSA nor an RSA key; remove it, and repeat the command")
    return key


def _pem(key: DeviceKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _pem_of(certificates: list[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def _anchors(certificates: list[x509.Certificate]) -> list[x509.Certificate]:
    return [each for each in certificates if _is_ca(each) and each.subject == each.issuer]


def _is_ca(certificate: x509.Certificate) -> bool:
    return any(isinstance(each.value, x509.BasicConstraints) and each.value.ca for each in certificate.extensions)
