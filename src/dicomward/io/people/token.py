"""Persons by signed tokens (JWT, RFC 7519), against the keys of a JWKS file (RFC 7517).

Only signatures with asymmetric keys, by algorithms that the settings name and that fit the key: neither `none` nor a
public key taken for a secret can pass. A token in a token, or an encrypted one, is no token here.
"""

import json
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicomward.identity.person import (
    PersonClaim,
    PersonRefused,
    PersonUnavailable,
    TokenError,
    TokenRules,
    Verdict,
    judge_token,
)
from dicomward.vocab.association import UserIdentityType

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    Key = RSAKey | ECKey | OKPKey

_KEY_TYPES: Final = {"RSA": ("RS", "PS"), "EC": ("ES",), "OKP": ("Ed",)}
_LEAST_RSA_BITS: Final = 2048
_MOST_TOKEN_BYTES: Final = 32 * 1024
_MOST_KEYS: Final = 64
_MOST_FILE_BYTES: Final = 1024 * 1024


class TokenKeysError(Exception):
    """The file of keys can't be used; the message says why and what to do."""


def read_keys(path: Path) -> "tuple[Key, ...]":
    """Return the public keys of a JWKS file that signatures can be proved with. Raises TokenKeysError."""
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    kinds: dict[str, type[RSAKey | ECKey | OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    try:
        if path.stat().st_size > _MOST_FILE_BYTES:
            raise TokenKeysError(f"{path} is larger than {_MOST_FILE_BYTES} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
        keys: list[Key] = []
        for entry in document["keys"]:
            kind = kinds.get(entry["kty"])
            if entry["kty"] == "oct":
                raise TokenKeysError(f"{path} holds a secret key (oct); only public keys belong there")
            if kind is None or entry.get("use", "sig") != "sig":
                continue
            key = kind.import_key(entry)
            if key.is_private:
                raise TokenKeysError(f"{path} holds a private key; only public keys belong there")
            if isinstance(key, RSAKey) and key.raw_value.key_size < _LEAST_RSA_BITS:
                raise TokenKeysError(f"{path} holds an RSA key of less than {_LEAST_RSA_BITS} bits")
            keys.append(key)
    except OSError as error:
        raise TokenKeysError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, JoseError) as error:
        raise TokenKeysError(f"{path} is no JWKS: {error!r}") from error
    if not 0 < len(keys) <= _MOST_KEYS:
        raise TokenKeysError(f"{path} holds {len(keys)} keys for signatures; there have to be 1 to {_MOST_KEYS}")
    return tuple(keys)


def read_claims(token: bytes, keys: "Sequence[Key]", algorithms: Sequence[str]) -> dict[str, object]:
    """Return the claims of a token whose signature is proved by one of the keys. Raises TokenError."""
    from joserfc import jws, jwt
    from joserfc.errors import JoseError

    token = token.strip(b" \0")
    if len(token) > _MOST_TOKEN_BYTES or token.count(b".") != 2:
        raise TokenError("it is no signed token")
    try:
        header = jws.extract_compact(token).headers()
    except (JoseError, ValueError, TypeError) as error:
        raise TokenError(f"it is no signed token: {error!r}") from error
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in algorithms:
        raise TokenError(f"the algorithm is {algorithm!r:.40}; allowed are {', '.join(algorithms)}")
    fitting = [key for key in keys if _fits(key, str(algorithm)) and (key_id is None or key.kid in (key_id, None))]
    for key in fitting:
        try:
            return dict(jwt.decode(token, key, algorithms=[str(algorithm)]).claims)
        except (JoseError, ValueError, TypeError):
            continue
    raise TokenError(f"no key of ours has signed it (kid {key_id!r:.60}, {len(fitting)} keys tried)")


def _fits(key: "Key", algorithm: str) -> bool:
    declared = key.get("alg")
    return algorithm.startswith(_KEY_TYPES[key.key_type]) and declared in (None, algorithm)


class TokenSource:
    """Tokens as a source; a changed file of keys counts from the next claim on."""

    type = UserIdentityType.JWT

    def __init__(self, keys_file: Path, rules: TokenRules, algorithms: Sequence[str]) -> None:
        self._path = keys_file
        self._rules = rules
        self._algorithms = algorithms
        self._lock = threading.Lock()
        self._read: tuple[object, tuple[Key, ...]] | None = None

    def is_configured(self) -> bool:
        """Say yes: the settings name it. A file that is missing makes verdicts unavailable, not tokens unknown."""
        return True

    def verify(self, claim: PersonClaim, now: datetime) -> Verdict | None:
        """Judge a token."""
        try:
            keys = self._keys()
        except TokenKeysError as error:
            return PersonUnavailable(str(error))
        try:
            return judge_token(read_claims(claim.secret, keys, self._algorithms), self._rules, now)
        except TokenError as error:
            return PersonRefused(error.reason, f"token: {error}")

    def _keys(self) -> "tuple[Key, ...]":
        try:
            found = self._path.stat()
        except OSError as error:
            raise TokenKeysError(f"{self._path} can't be read: {error.strerror}") from error
        standing = (found.st_mtime_ns, found.st_size, found.st_ino)
        with self._lock:
            if self._read is None or self._read[0] != standing:
                self._read = (standing, read_keys(self._path))
            return self._read[1]
