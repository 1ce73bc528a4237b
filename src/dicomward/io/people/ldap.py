"""Persons of a directory: a simple bind (RFC 4513 §5.1.3) over TLS. There is no plaintext way.

The person binds with their own passcode, so the gateway never sees a hash. The DN comes from a template, or from a
search under an account of the gateway's own.
"""

import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicomward.identity.person import (
    Person,
    PersonClaim,
    PersonRefused,
    PersonUnavailable,
    Verdict,
    clean_groups,
)
from dicomward.vocab.association import UserIdentityType
from dicomward.vocab.reason import ReasonCode

if TYPE_CHECKING:
    from ldap3 import Connection

RETRY_SECONDS: Final = 10.0
_WRONG: Final = PersonRefused(ReasonCode.USER_IDENTITY_REFUSED, "wrong name or passcode")
# RFC 4511 §A.1: what a directory says about a person's own name or passcode. Everything else is a problem of ours.
_INVALID_CREDENTIALS, _NO_SUCH_OBJECT, _INVALID_DN, _INAPPROPRIATE, _UNWILLING = 49, 32, 34, 48, 53


@dataclass(frozen=True, slots=True, kw_only=True)
class LdapSettings:
    """Where and how. `person_dn` holds `{username}`; without it `search_base` and `search_filter` find the person."""

    host: str
    port: int
    is_ldaps: bool
    ca: Path
    person_dn: str
    search_base: str
    search_filter: str
    bind_dn: str
    bind_passcode_file: Path | None
    group_attribute: str
    seconds: float


class _LdapFailed(Exception):
    """The directory could not tell."""


class LdapSource:
    """A directory as a source."""

    type = UserIdentityType.USERNAME_AND_PASSCODE

    def __init__(self, settings: LdapSettings, verdict: timedelta) -> None:
        self._settings = settings
        self._verdict = verdict
        self._retry_at = 0.0
        self._problem = ""

    def is_configured(self) -> bool:
        """Say yes: the settings name it."""
        return True

    def verify(self, claim: PersonClaim, now: datetime) -> Verdict | None:
        """Judge a claim by binding as the person."""
        from ldap3.core.exceptions import LDAPException

        if time.monotonic() < self._retry_at:
            # Who waits for a directory that is away waits at a scanner.
            return PersonUnavailable(self._problem)
        try:
            passcode = claim.secret.decode("utf-8").rstrip("\0 ")
        except UnicodeDecodeError:
            return _WRONG
        if not passcode:
            # An empty passcode would be an anonymous bind, which succeeds.
            return _WRONG
        try:
            distinguished_name = self._name_of(claim.name)
            if distinguished_name is None:
                return _WRONG
            with self._connected() as connection:
                if not self._bound(connection, distinguished_name, passcode):
                    return _WRONG
                groups = self._groups(connection, distinguished_name)
        except (LDAPException, OSError, _LdapFailed) as error:
            self._problem = f"the directory {self._settings.host} can't tell: {str(error)[:200]}"
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return PersonUnavailable(self._problem)
        return Person(name=claim.name, groups=groups, until=now + self._verdict)

    @contextmanager
    def _connected(self) -> "Iterator[Connection]":
        """Give a connection over verified TLS that is not bound yet. Raises LDAPException, OSError."""
        from ldap3 import NONE, Connection, Server, Tls

        settings = self._settings
        tls = Tls(
            validate=ssl.CERT_REQUIRED,
            version=ssl.PROTOCOL_TLS_CLIENT,
            ca_certs_file=str(settings.ca),
            valid_names=[settings.host],
        )
        server = Server(
            settings.host,
            settings.port,
            use_ssl=settings.is_ldaps,
            tls=tls,
            get_info=NONE,
            connect_timeout=_whole(settings.seconds),
        )
        connection = Connection(
            server,
            receive_timeout=_whole(settings.seconds),
            auto_referrals=False,
            raise_exceptions=False,
            read_only=True,
        )
        try:
            connection.open()
            if not settings.is_ldaps and not connection.start_tls():
                raise _LdapFailed("StartTLS was refused")
            yield connection
        finally:
            # Not `with connection`: that would open it once more, and after a failure its socket would stay.
            if connection.bound:
                connection.unbind()
            if connection.socket is not None:
                connection.socket.close()

    def _bound(self, connection: "Connection", distinguished_name: str, passcode: str) -> bool:
        """Bind; say if the directory took the passcode. Raises _LdapFailed where it says something else."""
        connection.user, connection.password, connection.authentication = distinguished_name, passcode, "SIMPLE"
        if connection.bind():
            return True
        result: Mapping[str, object] = connection.result
        if result.get("result") in (_INVALID_CREDENTIALS, _NO_SUCH_OBJECT, _INVALID_DN, _INAPPROPRIATE, _UNWILLING):
            return False
        raise _LdapFailed(f"bind: {result.get('description')}")

    def _name_of(self, username: str) -> str | None:
        """Return the DN of a person; None where the directory has none, or more than one."""
        from ldap3.utils.conv import escape_filter_chars
        from ldap3.utils.dn import escape_rdn

        settings = self._settings
        if settings.person_dn:
            return settings.person_dn.replace("{username}", escape_rdn(username))
        with self._connected() as connection:
            if settings.bind_dn and not self._bound(connection, settings.bind_dn, self._own_passcode()):
                raise _LdapFailed(f"the gateway's own account {settings.bind_dn} was refused")
            connection.search(
                settings.search_base,
                settings.search_filter.replace("{username}", escape_filter_chars(username)),
                attributes=[],
                size_limit=2,
                time_limit=_whole(settings.seconds),
            )
            found = [entry["dn"] for entry in connection.response or () if entry.get("type") == "searchResEntry"]
            if connection.result["result"] not in (0, 4, _NO_SUCH_OBJECT):
                raise _LdapFailed(f"search: {connection.result['description']}")
        return str(found[0]) if len(found) == 1 else None

    def _own_passcode(self) -> str:
        path = self._settings.bind_passcode_file
        return path.read_text(encoding="utf-8").strip("\r\n") if path is not None else ""

    def _groups(self, connection: "Connection", distinguished_name: str) -> frozenset[str]:
        """Return the groups that the person's own entry names, by the first part of their DN (`cn`)."""
        if not self._settings.group_attribute:
            return frozenset()
        attribute = self._settings.group_attribute
        connection.search(
            distinguished_name,
            "(objectClass=*)",
            search_scope="BASE",
            attributes=[attribute],
            time_limit=_whole(self._settings.seconds),
        )
        values: list[object] = []
        for entry in connection.response or ():
            if entry.get("type") == "searchResEntry":
                found = entry["attributes"].get(attribute, [])
                values += found if isinstance(found, list) else [found]
        return frozenset(_group_name(group) for group in clean_groups(values))


def _whole(seconds: float) -> int:
    """Return whole seconds: the library packs them into an integer."""
    return max(ceil(seconds), 1)


def _group_name(value: str) -> str:
    """Return `readers` of `cn=readers,ou=groups,dc=example`; what is no DN stays as it is."""
    from ldap3.core.exceptions import LDAPException
    from ldap3.utils.dn import parse_dn

    with suppress(LDAPException):
        parts = parse_dn(value)
        if parts:
            return str(parts[0][1])
    return value
