"""The verifiers of persons that the settings name. LDAP and JWT libraries are imported with the first claim only."""

from collections.abc import Callable
from datetime import timedelta

from dicomward.audit.event import AuditEvent
from dicomward.identity.person import TokenRules
from dicomward.io.people.file import PasscodeFile
from dicomward.io.people.ldap import LdapSettings, LdapSource
from dicomward.io.people.token import TokenSource
from dicomward.io.people.verifier import PersonVerifier, Source
from dicomward.settings import PeopleSettings
from dicomward.settings.people import parse_ldap_url


def person_verifier(people: PeopleSettings, record: Callable[[AuditEvent], object]) -> PersonVerifier:
    """Return the verifier: the local file first, so that what is in it works while the directory is away."""
    verdict = timedelta(hours=people.verdict_hours)
    sources: list[Source] = [PasscodeFile(people.passcodes, verdict)]
    directory = parse_ldap_url(people.ldap_url) if people.ldap_url else None
    if directory is not None and people.ldap_ca is not None:
        settings = LdapSettings(
            host=directory.host,
            port=directory.port,
            is_ldaps=directory.is_ldaps,
            ca=people.ldap_ca,
            person_dn=people.ldap_person_dn,
            search_base=people.ldap_search_base,
            search_filter=people.ldap_search_filter,
            bind_dn=people.ldap_bind_dn,
            bind_passcode_file=people.ldap_bind_passcode_file,
            group_attribute=people.ldap_group_attribute,
            seconds=people.verify_seconds,
        )
        sources.append(LdapSource(settings, verdict))
    if people.jwt_keys is not None:
        rules = TokenRules(
            issuer=people.jwt_issuer,
            audience=people.jwt_audience,
            name_claim=people.jwt_name_claim,
            groups_claim=people.jwt_groups_claim,
            leeway=timedelta(seconds=people.jwt_leeway_seconds),
            longest=verdict,
        )
        sources.append(TokenSource(people.jwt_keys, rules, people.jwt_algorithms))
    return PersonVerifier(tuple(sources), record)
