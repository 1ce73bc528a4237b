"""What every part of the CA speaks of: its kinds of key, where one may lie, and its error."""

from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

CaKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PKCS11_SCHEME: Final = "pkcs11:"


class CaError(Exception):
    """The CA can't be made, read or used; the message says why and what to do."""
