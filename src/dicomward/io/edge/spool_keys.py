"""Where the keys of the spool come from: a file, a credential of the system, or the enrolment server.

With a fetched key the agent needs the network once, at its first start: the public half stays in the state directory,
and objects are accepted with it from then on. The private half is only ever in memory, and fetched after each start.
"""

import base64
import json
import os
import ssl
import threading
from collections.abc import Callable, Iterable
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from dicomward.enrolment.est import CMC_RA
from dicomward.io.edge.spool import SpoolError
from dicomward.io.edge.spool_seal import KEY_BYTES, PairKey, SharedKey, SpoolKey
from dicomward.io.system import calls
from dicomward.io.tls import CertificateFiles, TlsConfigurationError, named_client_context
from dicomward.settings.edge import CREDENTIAL, FETCHED, SEALED, EdgeDevice, SpoolSettings

PUBLIC_NAME: Final = "spool.pub"
SPOOL_KEY_PATH: Final = "/.well-known/dicomward/spool-key"
_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
_KEY_HEX: Final = 2 * KEY_BYTES
_SECONDS: Final = 15.0
_MOST_ANSWER_BYTES: Final = 64 * 1024


class KeyUnavailable(Exception):
    """The key that reads can't be had now; what waits is safe."""


class SpoolKeys:
    """One key for everything, or one for each device."""

    def __init__(
        self, keys: Callable[[str], SpoolKey], open_: Callable[[str], None], prepare: Callable[[str], None]
    ) -> None:
        self._keys, self._open, self._prepare = keys, open_, prepare

    def open(self, device: str) -> None:
        """Make sure that a device's objects can be written; its first key needs the network. Raises SpoolError."""
        self._open(device)

    def of(self, device: str) -> SpoolKey:
        """Return what a device's objects are written with."""
        return self._keys(device)

    def prepare(self, device: str) -> None:
        """Make sure that a device's objects can be read; the network may be needed. Raises KeyUnavailable."""
        self._prepare(device)


def open_keys(settings: SpoolSettings, devices: Iterable[EdgeDevice], state_directory: Path) -> SpoolKeys:
    """Return the keys; each device is opened before it is served. Raises SpoolError."""
    if settings.key.startswith(FETCHED):
        fetched = {each.name: _Fetched(settings, each, state_directory / each.name) for each in devices}
        return SpoolKeys(
            lambda device: fetched[device].key,
            lambda device: fetched[device].open(),
            lambda device: fetched[device].prepare(),
        )
    key = SharedKey(_read_key(settings))
    return SpoolKeys(lambda _device: key, lambda _device: None, lambda _device: None)


def _read_key(settings: SpoolSettings) -> bytes:
    """Return the key: 32 bytes, or 64 hexadecimal digits, in a file or a credential. Raises SpoolError."""
    is_sealed = settings.key.startswith(SEALED)
    path = Path(settings.key.removeprefix(SEALED))
    if settings.key.startswith(CREDENTIAL):
        directory = os.environ.get(_CREDENTIALS)
        if directory is None:
            raise SpoolError(f"spool.key is {settings.key!r}, and the service manager has handed over no credentials")
        path = Path(directory) / settings.key.removeprefix(CREDENTIAL)
    try:
        key = calls.unseal(path.read_bytes()) if is_sealed else path.read_bytes()
    except OSError as error:
        raise SpoolError(
            f"the spool's key {path} can't be read: {error.strerror or error}; docs/edge.md says how"
        ) from error
    if len(key.strip()) == _KEY_HEX:
        try:
            key = bytes.fromhex(key.strip().decode("ascii"))
        except ValueError as error:
            raise SpoolError(f"the spool's key {path} is neither 32 bytes nor 64 hexadecimal digits") from error
    if len(key) != KEY_BYTES:
        raise SpoolError(f"the spool's key {path} is neither 32 bytes nor 64 hexadecimal digits")
    return key


class _Fetched:
    """The key of one device, from the enrolment server."""

    def __init__(self, settings: SpoolSettings, device: EdgeDevice, directory: Path) -> None:
        self._settings = settings
        self._device = device
        self._path = directory / PUBLIC_NAME
        self._lock = threading.Lock()
        self.key: PairKey

    def open(self) -> None:
        """Read the public half, or fetch both. Raises SpoolError."""
        try:
            if self._path.exists():
                self.key = PairKey(X25519PublicKey.from_public_bytes(bytes.fromhex(self._path.read_text("ascii"))))
                return
            private = self._fetch()
            self.key = PairKey(private.public_key())
            self.key.private = private
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = self._path.with_suffix(".new")
            new.write_text(self.key.public.public_bytes_raw().hex(), "ascii")
            calls.replace(new, self._path)
        except KeyUnavailable as error:
            raise SpoolError(f"{error}. The first start needs the enrolment server; later ones don't") from error
        except (OSError, ValueError) as error:
            raise SpoolError(f"the public key {self._path} can't be used: {error}") from error

    def prepare(self) -> None:
        """Fetch the private half if it isn't here. Raises KeyUnavailable."""
        with self._lock:
            if self.key.private is not None:
                return
            private = self._fetch()
            if private.public_key().public_bytes_raw() != self.key.public.public_bytes_raw():
                raise KeyUnavailable(
                    f"the enrolment server has another spool key for {self._device.name} than the one in {self._path}; "
                    "restore its edge-spool.secret from a backup; docs/edge.md says what else"
                )
            self.key.private = private

    def _fetch(self) -> X25519PrivateKey:
        """Raise KeyUnavailable."""
        parts = urlsplit(self._settings.key)
        host, port = parts.hostname or "", parts.port or 443
        where = f"the spool key of {self._device.name} can't be fetched from {host}:{port}"
        try:
            files = CertificateFiles(self._device.certificate, self._device.key)
            context = named_client_context(self._settings.key_ca or self._device.authority, files, host)
            connection = HTTPSConnection(host, port, timeout=_SECONDS, context=context)
        except TlsConfigurationError as error:
            raise KeyUnavailable(f"{where}: {error}") from error
        try:
            connection.connect()
            _verify_role(connection)
            connection.request("GET", SPOOL_KEY_PATH)
            answer = connection.getresponse()
            body = answer.read(_MOST_ANSWER_BYTES)
        except ssl.SSLError as error:
            raise KeyUnavailable(f"{where}: TLS: {error.reason or error}") from error
        except (OSError, HTTPException, KeyUnavailable) as error:
            raise KeyUnavailable(f"{where}: {error}") from error
        finally:
            connection.close()
        if answer.status != 200:
            text = body[:200].decode("utf-8", "replace").strip()
            raise KeyUnavailable(f"{where}: it refuses ({answer.status}): {text}")
        try:
            return X25519PrivateKey.from_private_bytes(base64.b64decode(json.loads(body)["key"], validate=True))
        except (ValueError, KeyError, TypeError) as error:
            raise KeyUnavailable(f"{where}: its answer can't be read") from error


def _verify_role(connection: HTTPSConnection) -> None:
    """Check that the server speaks for the CA. Raises KeyUnavailable."""
    der = connection.sock.getpeercert(binary_form=True) if isinstance(connection.sock, ssl.SSLSocket) else None
    certificate = x509.load_der_x509_certificate(der or b"")
    usages = [each.value for each in certificate.extensions if isinstance(each.value, x509.ExtendedKeyUsage)]
    if not any(CMC_RA in each for each in usages):
        raise KeyUnavailable("it shows a certificate that is not one of an enrolment server")
