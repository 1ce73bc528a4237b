"""One-time codes: how they are written, typed, checked and hashed. docs/enrolment-code.md is the specification.

40 characters of an alphabet without 0, O, 1 and I, five bits each: a D for the format, 5 for which invitation, 16 of
secret (80 bits), 16 that pin the CA (80 bits of its certificate's SHA-256) and 2 to find typing errors.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit

ALPHABET: Final = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
FORMAT: Final = "D"
SELECTOR_CHARACTERS: Final = 5
SECRET_CHARACTERS: Final = 16
PIN_CHARACTERS: Final = 16
CHECK_CHARACTERS: Final = 2
CODE_CHARACTERS: Final = 1 + SELECTOR_CHARACTERS + SECRET_CHARACTERS + PIN_CHARACTERS + CHECK_CHARACTERS
CMP_SECRET_CHARACTERS: Final = 32
URI_SCHEME: Final = "dicomward"
_GROUP: Final = 5
_BITS: Final = 5
_BETWEEN: Final = re.compile(r"[\s._\-\u2010-\u2015\u2212]+")
_LOOKALIKES: Final = frozenset("01OI")
_MOST_TYPED: Final = 512


class CodeError(ValueError):
    """What was typed is no code; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Code:
    """A code in its parts, each in characters of the alphabet. Its secret never shows in repr."""

    selector: str
    secret: str
    pin: str

    def __repr__(self) -> str:
        return f"Code(selector={self.selector!r})"

    @property
    def text(self) -> str:
        """The code as it is typed, in groups of five."""
        plain = f"{FORMAT}{self.selector}{self.secret}{self.pin}"
        whole = plain + check_of(plain)
        return "-".join(whole[at : at + _GROUP] for at in range(0, len(whole), _GROUP))

    def pins(self, certificate: bytes) -> bool:
        """Say if the CA certificate (DER) is the one that the code pins."""
        return hmac.compare_digest(pin_of(certificate), self.pin)


def encode_bits(data: bytes, characters: int) -> str:
    """Return the first bits of the data, five for each character."""
    number = int.from_bytes(data, "big") >> (len(data) * 8 - characters * _BITS)
    return "".join(ALPHABET[number >> (_BITS * at) & 31] for at in reversed(range(characters)))


def pin_of(certificate: bytes) -> str:
    """Return what pins a CA certificate (DER): the first 80 bits of its SHA-256."""
    return encode_bits(hashlib.sha256(certificate).digest(), PIN_CHARACTERS)


def check_of(plain: str) -> str:
    """Return the characters that find typing errors."""
    return encode_bits(hashlib.sha256(plain.encode("ascii")).digest(), CHECK_CHARACTERS)


def make_code(randomness: bytes, ca_certificate: bytes) -> Code:
    """Make a code from at least 14 random bytes and the CA's certificate (DER). Raises ValueError for fewer bytes."""
    if len(randomness) * 8 < (SELECTOR_CHARACTERS + SECRET_CHARACTERS) * _BITS:
        raise ValueError(f"{len(randomness)} random bytes are too few for a code")
    drawn = encode_bits(randomness, SELECTOR_CHARACTERS + SECRET_CHARACTERS)
    return Code(drawn[:SELECTOR_CHARACTERS], drawn[SELECTOR_CHARACTERS:], pin_of(ca_certificate))


def parse_code(typed: str) -> Code:
    """Read what somebody typed: small letters, spaces, other hyphens, the URI of the QR. Raises CodeError."""
    text = typed.strip()
    if len(text) > _MOST_TYPED:
        raise CodeError(f"a code has {CODE_CHARACTERS} characters; this has {len(text)}")
    if text.lower().startswith(f"{URI_SCHEME}:"):
        text = parse_uri(text)[1]
    plain = _BETWEEN.sub("", text).upper()
    if strange := sorted(set(plain) - set(ALPHABET)):
        hint = "0, O, 1 and I are never used in codes; " if _LOOKALIKES & set(strange) else ""
        raise CodeError(f"{' '.join(strange)!r} can't stand in a code; {hint}type it again")
    if len(plain) != CODE_CHARACTERS:
        raise CodeError(f"a code has {CODE_CHARACTERS} characters, and this has {len(plain)}; type it again")
    if check_of(plain[:-CHECK_CHARACTERS]) != plain[-CHECK_CHARACTERS:]:
        raise CodeError("there is a typing error in the code; compare it group by group")
    if plain[0] != FORMAT:
        raise CodeError(f"a code of the format {plain[0]!r} is not known here; a newer Dicomward may know it")
    secret_at, pin_at = 1 + SELECTOR_CHARACTERS, 1 + SELECTOR_CHARACTERS + SECRET_CHARACTERS
    return Code(plain[1:secret_at], plain[secret_at:pin_at], plain[pin_at:-CHECK_CHARACTERS])


def uri_of(code: str, server: str) -> str:
    """Return what the QR holds: the code, and where the server is if that is known."""
    where = f"&server={quote(server, safe='')}" if server else ""
    return f"{URI_SCHEME}://enroll?code={code}{where}"


def parse_uri(text: str) -> tuple[str, str]:
    """Return the server ("" for none) and the code of a QR's URI. Raises CodeError."""
    try:
        parts = urlsplit(text)
        found = parse_qs(parts.query, max_num_fields=8)
    except ValueError as error:
        raise CodeError("this is no URI of an invitation; scan the QR again") from error
    if parts.scheme != URI_SCHEME or len(found.get("code", ())) != 1:
        raise CodeError("this is no URI of an invitation; scan the QR again")
    return found.get("server", [""])[0], found["code"][0]


def hash_of(secret: str, key: bytes) -> str:
    """Return what is stored of a secret: HMAC-SHA256 (hex) under the enrolment key, which isn't in the database.

    A slow hash is for what people choose. These are 80 random bits: 2^79 guesses, with the key; none at all without.
    """
    return hmac.new(key, b"dicomward code\0" + secret.encode("ascii"), hashlib.sha256).hexdigest()


def is_secret(presented: str, stored: str, key: bytes) -> bool:
    """Compare a presented secret with a stored hash, in the same time whatever it is."""
    return hmac.compare_digest(hash_of(presented, key), stored)
