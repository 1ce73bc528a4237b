"""The person behind a device: what a user identity (58H, PS3.7 §D.3.3.7) claims, and what a verifier says about it.

Rules of this file: a claim proves nothing; only a verifier makes a `Person`. A verdict ends with its token, or after a
time of ours. docs/people.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from dicomward.vocab.association import UserIdentityType
from dicomward.vocab.principal import Assurance, Principal
from dicomward.vocab.reason import ReasonCode

MOST_NAME_CHARACTERS: Final = 64
MOST_GROUPS: Final = 256
_LONGEST_GROUP: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonClaim:
    """What a device says about the person at it; `secret` (a passcode or a token) is never shown.

    `name` is "" for a token, which names its person itself.
    """

    type: UserIdentityType
    name: str
    secret: bytes = field(repr=False)
    device: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A person that a verifier vouches for, until `until` (aware)."""

    name: str
    groups: frozenset[str] = frozenset()
    until: datetime


@dataclass(frozen=True, slots=True)
class PersonRefused:
    """The claim is wrong: the association is rejected. `detail` is for the audit only; `name` as it was claimed."""

    reason: ReasonCode
    detail: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class PersonUnavailable:
    """Nobody could tell: the device goes on alone, with what its own assurance permits."""

    detail: str


Verdict = Person | PersonRefused | PersonUnavailable


class ClaimError(ValueError):
    """The user identity can't be a claim of a person; the message says why."""


def read_claim(identity_type: int, primary: bytes, secondary: bytes, *, device: str, address: str) -> PersonClaim:
    """Return the claim of a user identity of a type that is verified. Raises ClaimError."""
    kind = UserIdentityType(identity_type)
    if kind is UserIdentityType.JWT:
        return PersonClaim(type=kind, name="", secret=primary, device=device, address=address)
    try:
        name = primary.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ClaimError("the username is not UTF-8") from error
    # PS3.5 §6.2: leading and trailing spaces are no part of a value, and peers pad to an even length.
    name = name.rstrip("\0").strip(" ")
    if not is_person_name(name):
        raise ClaimError(f"the username is empty, too long, or not printable: {name[:MOST_NAME_CHARACTERS]!r}")
    if not secondary:
        # LDAP takes an empty passcode for an anonymous bind, which succeeds (RFC 4513 §5.1.2).
        raise ClaimError(f"no passcode for {name!r}")
    return PersonClaim(type=kind, name=name, secret=secondary, device=device, address=address)


def is_person_name(name: str) -> bool:
    """Say if a text can be the name of a person."""
    return 0 < len(name) <= MOST_NAME_CHARACTERS and name.isprintable() and name == name.strip()


def with_person(principal: Principal, person: Person) -> Principal:
    """Return the device with its person. A device that is known by its network only stays what it is."""
    known = principal.assurance >= Assurance.TLS_DEVICE
    return replace(
        principal,
        person=person.name,
        groups=person.groups,
        person_until=person.until,
        assurance=Assurance.DEVICE_AND_PERSON if known else principal.assurance,
    )


def without_expired_person(principal: Principal, now: datetime) -> Principal:
    """Return what is left of a principal: after its person's time the device alone, with the clinical floor only."""
    if principal.person_until is None or now < principal.person_until:
        return principal
    return replace(
        principal,
        person="",
        groups=frozenset(),
        person_until=None,
        assurance=min(principal.assurance, Assurance.TLS_DEVICE),
        floor_only=principal.floor_only or ReasonCode.USER_IDENTITY_EXPIRED,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """What a token has to say."""

    issuer: str
    audience: str
    name_claim: str
    groups_claim: str
    leeway: timedelta
    longest: timedelta


class TokenError(ValueError):
    """A token's claims are not good enough: `reason` is the stable code, the message for the audit only."""

    def __init__(self, message: str, reason: ReasonCode = ReasonCode.USER_IDENTITY_REFUSED) -> None:
        super().__init__(message)
        self.reason = reason


def judge_token(claims: Mapping[str, object], rules: TokenRules, now: datetime) -> Person:
    """Return the person of a token whose signature is proved (RFC 7519 §4.1). Raises TokenError.

    Issuer, audience and expiry have to be there. The verdict ends with the token, or after `longest` if that is sooner.
    """
    if claims.get("iss") != rules.issuer:
        raise TokenError(f"the issuer is {_shown(claims.get('iss'))}, not {rules.issuer!r}")
    audience = claims.get("aud")
    if rules.audience not in (audience if isinstance(audience, list) else [audience]):
        raise TokenError(f"the audience is {_shown(audience)}, not {rules.audience!r}")
    expires = _moment(claims, "exp")
    if expires is None:
        raise TokenError("it has no expiry (exp)")
    if now >= expires + rules.leeway:
        raise TokenError(f"it expired at {expires.isoformat()}", ReasonCode.USER_IDENTITY_EXPIRED)
    for name in ("nbf", "iat"):
        since = _moment(claims, name)
        if since is not None and now + rules.leeway < since:
            raise TokenError(f"it is valid from {since.isoformat()} ({name}) on; are the clocks right?")
    person = claims.get(rules.name_claim)
    if not isinstance(person, str) or not is_person_name(person):
        raise TokenError(f"its claim {rules.name_claim!r} names no person: {_shown(person)}")
    return Person(
        name=person,
        groups=clean_groups(claims.get(rules.groups_claim)),
        until=min(expires + rules.leeway, now + rules.longest),
    )


def clean_groups(value: object) -> frozenset[str]:
    """Return the groups of a claim or an attribute: a text, or a list of texts; anything else is none."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list):
        return frozenset()
    good = [each for each in values if isinstance(each, str) and 0 < len(each) <= _LONGEST_GROUP]
    return frozenset(good[:MOST_GROUPS])


def _moment(claims: Mapping[str, object], name: str) -> datetime | None:
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TokenError(f"{name} is {_shown(value)}, not a number of seconds")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise TokenError(f"{name} is {_shown(value)}, no time at all") from error


def _shown(value: object) -> str:
    return repr(value)[:100]
