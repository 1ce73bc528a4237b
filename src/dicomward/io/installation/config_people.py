"""What `check-config` says about operators and about the verifiers of persons."""

import ssl
from collections.abc import Iterator
from pathlib import Path

from dicomward.identity.operators import ALL, AT_ONCE, OperatorError, Operators, Permission
from dicomward.identity.passcodes import PasscodesError
from dicomward.io.people.file import read_passcodes
from dicomward.io.people.operators import read_operators
from dicomward.io.people.token import TokenKeysError, read_keys
from dicomward.settings import Settings


def find_operator_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield what keeps commands from working: where, and what and what to do."""
    path = str(settings.operators.file)
    try:
        operators = read_operators(settings)
    except OperatorError as error:
        yield path, str(error)
        return
    if operators is not None:
        for permission in _waiting_for_nobody(settings, operators):
            yield (
                "operators.second_person",
                f"{permission} needs a second operator, and fewer than two may do it; add one: dicomward operator add",
            )


def _waiting_for_nobody(settings: Settings, operators: Operators) -> Iterator[Permission]:
    words = settings.operators.second_person
    for permission in Permission:
        if permission not in AT_ONCE and (ALL in words or permission.value in words):
            able = [each for each in operators.entries if each.may(permission)]
            if len(able) < 2:
                yield permission


def find_verifier_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield what keeps persons from being verified: where, and what and what to do."""
    people = settings.people
    try:
        read_passcodes(people.passcodes)
    except PasscodesError as error:
        yield str(people.passcodes), str(error)
    if people.jwt_keys is not None:
        try:
            read_keys(people.jwt_keys)
        except TokenKeysError as error:
            yield str(people.jwt_keys), str(error)
    if people.ldap_url and people.ldap_ca is not None:
        yield from _judge_ca(people.ldap_ca)
    secret = people.ldap_bind_passcode_file
    if people.ldap_url and secret is not None:
        try:
            if secret.stat().st_mode & 0o077:
                yield str(secret), f"other users may read this passcode; run: chmod 600 {secret}"
        except OSError as error:
            yield str(secret), f"it can't be read: {error.strerror}"


def _judge_ca(path: Path) -> Iterator[tuple[str, str]]:
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:
        yield str(path), f"it holds no certificate of a CA: {error.strerror or error}"
