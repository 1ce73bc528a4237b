"""Tokens as a source: only what an issuer's key has signed, by an algorithm that fits it."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from dicomward.identity.person import Person, PersonClaim, PersonRefused, PersonUnavailable, TokenRules
from dicomward.io.people import token as module
from dicomward.io.people.token import TokenKeysError, TokenSource, read_keys
from dicomward.vocab.association import UserIdentityType
from dicomward.vocab.reason import ReasonCode

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
RULES = TokenRules(
    issuer="https://issuer.example",
    audience="dicomward",
    name_claim="sub",
    groups_claim="groups",
    leeway=timedelta(0),
    longest=timedelta(hours=12),
)
EC = ECKey.generate_key("P-256", {"kid": "ec"})
OTHER = ECKey.generate_key("P-256", {"kid": "ec"})
RSA = RSAKey.generate_key(2048, {"kid": "rsa", "alg": "RS256"})
PLAIN_RSA = RSAKey.import_key({k: v for k, v in RSA.as_dict(private=True).items() if k != "alg"})
ED = OKPKey.generate_key("Ed25519")
CLAIMS = {"iss": RULES.issuer, "aud": "dicomward", "exp": NOW.timestamp() + 600, "sub": "anna", "groups": ["readers"]}
ALGORITHMS = ("ES256", "EdDSA", "Ed25519", "PS256", "RS256")


def write(path: Path, *keys: Any) -> Path:
    entries = [key if isinstance(key, dict) else key.as_dict(private=False) for key in keys]
    path.write_text(json.dumps({"keys": entries}), encoding="utf-8")
    return path


def verify(path: Path, token: str | bytes, algorithms: tuple[str, ...] = ALGORITHMS) -> object:
    secret = token.encode() if isinstance(token, str) else token
    claim = PersonClaim(type=UserIdentityType.JWT, name="", secret=secret, device="ws1", address="127.0.0.1")
    return TokenSource(path, RULES, algorithms).verify(claim, NOW)


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    unknown = {"kty": "future"}
    encryption = {**EC.as_dict(private=False), "use": "enc", "kid": "enc"}
    return write(tmp_path / "jwks.json", EC, RSA, ED, unknown, encryption)


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.parametrize(
    ("key", "header"),
    [
        (EC, {"alg": "ES256", "kid": "ec"}),
        (EC, {"alg": "ES256"}),
        (RSA, {"alg": "RS256", "kid": "rsa"}),
        (ED, {"alg": "EdDSA"}),
        (ED, {"alg": "Ed25519"}),
    ],
)
def test_a_token_of_the_issuer_is_a_person(jwks: Path, key: Any, header: dict[str, str]) -> None:
    token = jwt.encode(header, CLAIMS, key, algorithms=list(ALGORITHMS))
    expected = Person(name="anna", groups=frozenset({"readers"}), until=NOW + timedelta(seconds=600))
    assert verify(jwks, token) == expected
    assert verify(jwks, token + " ") == expected


def encoded(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def confused() -> str:
    """Return a token whose secret is the public key, as some libraries believe."""
    signed = f"{encoded({'alg': 'HS256', 'kid': 'rsa'})}.{encoded(CLAIMS)}"
    return f"{signed}.{encoded(hmac.new(RSA.as_pem(private=False), signed.encode(), hashlib.sha256).digest())}"


SMALL_RSA = {"kty": "RSA", "e": "AQAB", "n": encoded((1 << 1535 | 1).to_bytes(192, "big"))}
GOOD = jwt.encode({"alg": "ES256", "kid": "ec"}, CLAIMS, EC)


@pytest.mark.parametrize(
    "token",
    [
        jwt.encode({"alg": "ES256", "kid": "ec"}, CLAIMS, OTHER),
        jwt.encode({"alg": "ES256", "kid": "nobody"}, CLAIMS, EC),
        jwt.encode({"alg": "PS256", "kid": "rsa"}, CLAIMS, PLAIN_RSA, algorithms=["PS256"]),
        jwt.encode({"alg": "HS256"}, CLAIMS, OctKey.import_key("a secret that is long enough for it")),
        confused(),
        f"{encoded({'alg': 'none'})}.{encoded(CLAIMS)}.",
        f"{encoded({'alg': 'ES256', 'kid': 'ec', 'crit': ['x'], 'x': 1})}.{GOOD.split('.', 1)[1]}",
        GOOD[:-8] + "AAAAAAAA",
        GOOD.replace(GOOD.split(".")[1], encoded({**CLAIMS, "sub": "root"})),
        jwt.encode({"alg": "ES256", "kid": "ec"}, {**CLAIMS, "aud": "other"}, EC),
        "",
        "a.b.c",
        "....",
        "a" * 40_000,
        b"\xff.\xff.\xff",
    ],
)
def test_refused_when_the_signature_is_no_signature_of_ours(jwks: Path, token: str | bytes) -> None:
    verdict = verify(jwks, token)
    assert isinstance(verdict, PersonRefused)
    assert verdict.reason is ReasonCode.USER_IDENTITY_REFUSED


def test_an_expired_token_has_its_own_reason(jwks: Path) -> None:
    token = jwt.encode({"alg": "ES256"}, {**CLAIMS, "exp": NOW.timestamp()}, EC)
    verdict = verify(jwks, token)
    assert isinstance(verdict, PersonRefused)
    assert verdict.reason is ReasonCode.USER_IDENTITY_EXPIRED


def test_an_algorithm_that_is_not_allowed_is_refused(jwks: Path) -> None:
    verdict = verify(jwks, GOOD, ("RS256",))
    assert isinstance(verdict, PersonRefused)
    assert "allowed are RS256" in verdict.detail


def test_new_keys_count_from_the_next_token_on(tmp_path: Path) -> None:
    path = write(tmp_path / "jwks.json", RSA)
    source = TokenSource(path, RULES, ALGORITHMS)
    assert source.is_configured()
    claim = PersonClaim(type=UserIdentityType.JWT, name="", secret=GOOD.encode(), device="ws1", address="127.0.0.1")
    assert isinstance(source.verify(claim, NOW), PersonRefused)
    write(path, EC, RSA)
    assert isinstance(source.verify(claim, NOW), Person)
    path.unlink()
    assert isinstance(source.verify(claim, NOW), PersonUnavailable)


@pytest.mark.filterwarnings("ignore:Key size")
@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ((OctKey.generate_key().as_dict(private=True),), "secret key"),
        ((EC.as_dict(private=True),), "private key"),
        ((SMALL_RSA,), "less than 2048 bits"),
        (({"kty": "EC"},), "no JWKS"),
        ((7,), "no JWKS"),
        ((), "0 keys"),
    ],
)
def test_files_of_keys_that_are_refused(tmp_path: Path, keys: tuple[Any, ...], says: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": keys}), encoding="utf-8")
    with pytest.raises(TokenKeysError, match=says):
        read_keys(path)


def test_files_that_are_no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "jwks.json"
    with pytest.raises(TokenKeysError, match="can't be read"):
        read_keys(path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(TokenKeysError, match="no JWKS"):
        read_keys(path)
    monkeypatch.setattr(module, "_MOST_FILE_BYTES", 1)
    with pytest.raises(TokenKeysError, match="larger than"):
        read_keys(path)
