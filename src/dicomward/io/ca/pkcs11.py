"""Signing keys in a PKCS#11 token (HSM, smart card, SoftHSM), by URI (RFC 7512). Needs python-pkcs11.

    pkcs11:token=CA;object=issuing-1?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/etc/dicomward/pin

The key never leaves the token: what is here has the face of a key of `cryptography`, and lets the token sign.
"""

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl, unquote

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from dicomward.io.ca.terms import PKCS11_SCHEME, CaError, CaKey

_PATH_ATTRIBUTES: Final = frozenset({"token", "object", "id", "serial", "type", "manufacturer", "model"})
_QUERY_ATTRIBUTES: Final = frozenset({"module-path", "pin-source", "pin-value"})


def parse_uri(uri: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return the path and query attributes of a PKCS#11 URI. Raises CaError."""
    if not uri.startswith(PKCS11_SCHEME):
        raise CaError(f"{uri!r} is no PKCS#11 URI; write pkcs11:token=NAME;object=LABEL?module-path=FILE")
    path_text, _, query_text = uri.removeprefix(PKCS11_SCHEME).partition("?")
    path: dict[str, str] = {}
    for part in filter(None, path_text.split(";")):
        name, _, value = part.partition("=")
        path[name] = unquote(value)
    query = dict(parse_qsl(query_text.replace("+", "%2B")))
    for name in (*path, *query):
        if name not in _PATH_ATTRIBUTES | _QUERY_ATTRIBUTES:
            raise CaError(f"the PKCS#11 URI has an attribute {name!r} that is not known here")
    if "token" not in path or not path.keys() & {"object", "id"} or "module-path" not in query:
        raise CaError("the PKCS#11 URI needs token=, object= (or id=) and module-path=; see docs/ca-guide.md")
    return path, query


def open_key(uri: str) -> CaKey:
    """Open a session with the token and find the key. Raises CaError."""
    path, query = parse_uri(uri)
    try:
        import pkcs11
    except ImportError as error:
        raise CaError("keys in a token need python-pkcs11; install dicomward[pkcs11]") from error
    pin = query.get("pin-value")
    if (source := query.get("pin-source")) is not None:
        try:
            pin = Path(source.removeprefix("file:")).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise CaError(f"the PIN in {source} can't be read ({error.strerror}); correct pin-source") from error
    which: dict[str, Any] = {}
    if "object" in path:
        which["label"] = path["object"]
    if "id" in path:
        which["id"] = path["id"].encode("latin-1")
    try:
        token = pkcs11.lib(query["module-path"]).get_token(token_label=path["token"])
        try:
            session = token.open(user_pin=pin)
        except pkcs11.UserAlreadyLoggedIn:
            # One login holds for the whole process.
            session = token.open()
        private = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, **which)
        public = session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, **which)
        return _wrap(private, public)
    except (pkcs11.PKCS11Error, RuntimeError, ValueError) as error:
        raise CaError(
            f"the key {path.get('object') or path.get('id')!r} of the token {path['token']!r} can't be used "
            f"({type(error).__name__} {error}); check module, token, label and PIN"
        ) from error


def _wrap(private: Any, public: Any) -> CaKey:
    from pkcs11 import KeyType
    from pkcs11.util.ec import encode_ec_public_key
    from pkcs11.util.rsa import encode_rsa_public_key

    lock = threading.Lock()
    if private.key_type is KeyType.EC:
        key = serialization.load_der_public_key(encode_ec_public_key(public))
        if isinstance(key, ec.EllipticCurvePublicKey):
            return _EcKey(private, key, lock)
    if private.key_type is KeyType.RSA:
        key = serialization.load_der_public_key(encode_rsa_public_key(public))
        if isinstance(key, rsa.RSAPublicKey):
            return _RsaKey(private, key, lock)
    raise ValueError(f"a key of type {private.key_type.name} signs no certificates")


def _stays(what: str) -> NoReturn:
    raise CaError(f"the private key {what}: it stays in its token")


def _require_sha256(algorithm: object) -> None:
    if not isinstance(algorithm, hashes.SHA256):
        raise CaError("keys in a token sign with SHA-256 here, and with nothing else")


class _EcKey(ec.EllipticCurvePrivateKey):
    """An EC key in a token."""

    def __init__(self, private: Any, public: ec.EllipticCurvePublicKey, lock: threading.Lock) -> None:
        self._private, self._public, self._lock = private, public, lock

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public key."""
        return self._public

    @property
    def curve(self) -> ec.EllipticCurve:
        """Return the curve."""
        return self._public.curve

    @property
    def key_size(self) -> int:
        """Return the bits of the curve."""
        return self._public.key_size

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Let the token sign; return the signature in DER."""
        from pkcs11 import Mechanism

        _require_sha256(signature_algorithm.algorithm)
        with self._lock:
            raw: bytes = self._private.sign(hashlib.sha256(data).digest(), mechanism=Mechanism.ECDSA)
        half = len(raw) // 2
        return utils.encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        """Refuse: the key is for signing."""
        _stays("is for signing")

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        """Refuse."""
        _stays("can't be exported")

    def private_bytes(self, *_args: object, **_named: object) -> bytes:
        """Refuse."""
        _stays("can't be exported")

    def __copy__(self) -> "_EcKey":
        return self

    def __deepcopy__(self, memo: object) -> "_EcKey":
        return self


class _RsaKey(rsa.RSAPrivateKey):
    """An RSA key in a token."""

    def __init__(self, private: Any, public: rsa.RSAPublicKey, lock: threading.Lock) -> None:
        self._private, self._public, self._lock = private, public, lock

    def public_key(self) -> rsa.RSAPublicKey:
        """Return the public key."""
        return self._public

    @property
    def key_size(self) -> int:
        """Return the bits of the modulus."""
        return self._public.key_size

    def sign(self, data: Any, padding: padding.AsymmetricPadding, algorithm: Any) -> bytes:
        """Let the token sign (PKCS #1 v1.5)."""
        from pkcs11 import Mechanism

        _require_sha256(algorithm)
        with self._lock:
            signature: bytes = self._private.sign(bytes(data), mechanism=Mechanism.SHA256_RSA_PKCS)
        return signature

    def decrypt(self, ciphertext: bytes, padding: padding.AsymmetricPadding) -> bytes:
        """Refuse: the key is for signing."""
        _stays("is for signing")

    def private_numbers(self) -> rsa.RSAPrivateNumbers:
        """Refuse."""
        _stays("can't be exported")

    def private_bytes(self, *_args: object, **_named: object) -> bytes:
        """Refuse."""
        _stays("can't be exported")

    def __copy__(self) -> "_RsaKey":
        return self

    def __deepcopy__(self, memo: object) -> "_RsaKey":
        return self
