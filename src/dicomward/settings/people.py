"""`[people]`: who verifies the persons behind devices (user identity, 58H)."""
# ruff: noqa: RUF009  (setting is dataclasses.field with our metadata)

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from dicomward.settings.kinds import OPTIONAL_PATH, OPTIONAL_TEXT, PATH, TEXT, number, setting, words

USERNAME: Final = "{username}"
ALGORITHMS: Final = (
    "ES256",
    "ES384",
    "ES512",
    "Ed25519",
    "EdDSA",
    "PS256",
    "PS384",
    "PS512",
    "RS256",
    "RS384",
    "RS512",
)
_LDAP_URL: Final = re.compile(
    r"(?P<scheme>ldaps?)://(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?/?\Z", re.ASCII
)
_PORTS: Final = {"ldaps": 636, "ldap": 389}


class LdapUrl(NamedTuple):
    """Where a directory is; without `is_ldaps` TLS begins with StartTLS."""

    host: str
    port: int
    is_ldaps: bool


def parse_ldap_url(text: str) -> LdapUrl | None:
    """Read `ldaps://HOST[:PORT]` or `ldap://HOST[:PORT]`; None for anything else."""
    match = _LDAP_URL.match(text)
    if match is None or int(match["port"] or 1) not in range(1, 0x1_0000):
        return None
    scheme = match["scheme"]
    return LdapUrl(match["host"].strip("[]"), int(match["port"] or _PORTS[scheme]), scheme == "ldaps")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeopleSettings:
    """`[people]`: who verifies persons. docs/people.md."""

    passcodes: Path = setting(
        PATH,
        "people.toml",
        "",
        "persons with the hashes of their passcodes; nobody is in it before `dicomward user add`",
    )
    ldap_url: str = setting(OPTIONAL_TEXT, "", "", "a directory: ldaps://HOST, or ldap://HOST (StartTLS); no plaintext")
    ldap_ca: Path | None = setting(OPTIONAL_PATH, "", "", "the CA of the directory's certificate (PEM)")
    ldap_person_dn: str = setting(
        OPTIONAL_TEXT, "", "", "the DN of a person: uid={username},ou=people,dc=example; without it a search"
    )
    ldap_search_base: str = setting(OPTIONAL_TEXT, "", "", "where persons are searched for")
    ldap_search_filter: str = setting(TEXT, "(uid={username})", "", "how they are; Active Directory: sAMAccountName")
    ldap_bind_dn: str = setting(OPTIONAL_TEXT, "", "", "the gateway's own account for the search; without it anonymous")
    ldap_bind_passcode_file: Path | None = setting(
        OPTIONAL_PATH, "", "", "a file that holds nothing but its passcode (mode 0600)"
    )
    ldap_group_attribute: str = setting(
        OPTIONAL_TEXT, "memberOf", "", 'the attribute of a person\'s entry that names groups; "" for none'
    )
    jwt_keys: Path | None = setting(
        OPTIONAL_PATH, "", "", "the issuer's public keys, a JWKS file; without it no tokens"
    )
    jwt_issuer: str = setting(OPTIONAL_TEXT, "", "", "what a token has to say in iss")
    jwt_audience: str = setting(OPTIONAL_TEXT, "", "", "what a token has to say in aud")
    jwt_algorithms: tuple[str, ...] = setting(
        words(*ALGORITHMS), ["ES256", "ES384", "Ed25519", "EdDSA", "PS256", "RS256"], "", "signatures that are believed"
    )
    jwt_name_claim: str = setting(TEXT, "sub", "", "the claim that names the person; many issuers: preferred_username")
    jwt_groups_claim: str = setting(TEXT, "groups", "", "the claim that names groups")
    jwt_leeway_seconds: float = setting(number(0, 300), 30, "s", "how far the issuer's clock may be off")
    verify_seconds: float = setting(
        number(0.5, 30),
        5,
        "s",
        "a verdict that takes longer is none: the device goes on alone, most give up after 10 s",
    )
    verdict_hours: float = setting(
        number(0.05, 24), 12, "hours", "a verdict ends after so long, or with its token: a shift, not a week"
    )


def find_people_problems(people: PeopleSettings) -> Iterator[tuple[str, str, str]]:
    """Yield key, message and hint of values that are wrong together."""
    if people.ldap_url:
        if parse_ldap_url(people.ldap_url) is None:
            yield "ldap_url", f"{people.ldap_url!r} is no directory", "write ldaps://HOST or ldap://HOST (StartTLS)"
        if people.ldap_ca is None:
            yield "ldap_url", "ldap_ca is missing", "name the CA of the directory's certificate"
        if people.ldap_person_dn:
            if USERNAME not in people.ldap_person_dn:
                yield "ldap_person_dn", f"{USERNAME} is missing", f"as in uid={USERNAME},ou=people,dc=example"
        elif not people.ldap_search_base:
            yield "ldap_url", "ldap_person_dn and ldap_search_base are missing", "one of them says who is who"
        elif USERNAME not in people.ldap_search_filter:
            yield "ldap_search_filter", f"{USERNAME} is missing", f"as in (uid={USERNAME})"
    if people.jwt_keys is not None:
        for key in ("jwt_issuer", "jwt_audience", "jwt_name_claim", "jwt_algorithms"):
            if not getattr(people, key):
                yield "jwt_keys", f"{key} is missing", "a token for somebody else must not be good here"
