"""The CA's signing keys: PEM files (mode 0600, perhaps with a passphrase), or objects of a PKCS#11 token by URI."""

import os
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dicomward.io.ca.pkcs11 import open_key
from dicomward.io.ca.terms import PKCS11_SCHEME, CaError, CaKey

KEY_KINDS: Final = ("ecdsa", "rsa")
# A CA lives for years, and its key can't be changed without the fleet.
_CA_RSA_BITS: Final = 3072


def make_key(kind: str) -> CaKey:
    """Make a key for a CA: `ecdsa` (P-256) or `rsa` (3072 bits, for devices that can't verify ECDSA)."""
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=_CA_RSA_BITS)
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: CaKey, passphrase: bytes | None) -> bytes:
    """Return PKCS#8 in PEM, encrypted if there is a passphrase."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def load_key(where: str, directory: Path, passphrase: bytes | None = None) -> CaKey:
    """Open a key: the name of a file in the directory, or a PKCS#11 URI. Raises CaError."""
    if where.startswith(PKCS11_SCHEME):
        return open_key(where)
    return load_key_file(directory / where, passphrase)


def load_key_file(path: Path, passphrase: bytes | None = None) -> CaKey:
    """Read a key file that nobody else may read. Raises CaError."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read()
    except OSError as error:
        raise CaError(
            f"the CA key {path} can't be read ({error.strerror}); bring it back, or run as its owner"
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise CaError(f"others than its owner may read the CA key {path}; chmod 600, and think about who has copied it")
    try:
        key = serialization.load_pem_private_key(data, passphrase)
    except TypeError as error:
        what = (
            "needs its passphrase: --passphrase-file FILE" if passphrase is None else "has no passphrase; leave it out"
        )
        raise CaError(f"the CA key {path} {what}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        why = "the passphrase is wrong, or it is no key in PEM" if passphrase is not None else "it is no key in PEM"
        raise CaError(f"the CA key {path} can't be used: {why}") from error
    if not isinstance(key, CaKey):
        raise CaError(f"the CA key {path} is neither RSA nor ECDSA; put the CA's own key there")
    return key
