"""Operators: the named people at the command line, their roles, and what each role may do. docs/operators.md.

Rules of this file: what is not given is refused; an emergency (bypass, lockdown, suspending a device) never waits for
a second person, because a patient may be waiting as well.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from typing import Final

OPERATORS_VERSION: Final = 1
ALL: Final = "all"
_MOST_CHARACTERS: Final = 64


class OperatorRole(IntEnum):
    """What an operator is, weakest first: each may do what the one before may."""

    VIEWER = 1
    OPERATOR = 2
    ADMINISTRATOR = 3

    @property
    def label(self) -> str:
        """Name as commands and the file write it."""
        return self.name.lower()


ROLE_BY_LABEL: Final[dict[str, OperatorRole]] = {role.label: role for role in OperatorRole}


class Permission(StrEnum):
    """What a command asks for. Append only: `operators.second_person` names them."""

    VIEW = "view"
    AUDIT_READ = "audit-read"
    DEVICE_SUSPEND = "device-suspend"
    DEVICE_RESUME = "device-resume"
    DEVICE_CHANGE = "device-change"
    ARCHIVE_CHANGE = "archive-change"
    POLICY_CHANGE = "policy-change"
    LEGACY_ZONE = "legacy-zone"
    OBSERVE = "observe"
    BUDGET_RESET = "budget-reset"
    LOCKDOWN = "lockdown"
    LOCKDOWN_LIFT = "lockdown-lift"
    BYPASS = "bypass"
    BYPASS_REVIEW = "bypass-review"
    RELOAD = "reload"
    GATEWAY_CERTIFICATES = "gateway-certificates"
    AUDIT_PRUNE = "audit-prune"
    BACKUP = "backup"
    USER_CHANGE = "user-change"
    OPERATOR_CHANGE = "operator-change"
    APPROVE = "approve"
    CA_CHANGE = "ca-change"


LEAST_ROLE: Final[dict[Permission, OperatorRole]] = {
    Permission.VIEW: OperatorRole.VIEWER,
    Permission.AUDIT_READ: OperatorRole.VIEWER,
    Permission.DEVICE_SUSPEND: OperatorRole.OPERATOR,
    Permission.DEVICE_RESUME: OperatorRole.OPERATOR,
    Permission.DEVICE_CHANGE: OperatorRole.ADMINISTRATOR,
    Permission.ARCHIVE_CHANGE: OperatorRole.ADMINISTRATOR,
    Permission.POLICY_CHANGE: OperatorRole.ADMINISTRATOR,
    Permission.LEGACY_ZONE: OperatorRole.ADMINISTRATOR,
    Permission.OBSERVE: OperatorRole.ADMINISTRATOR,
    Permission.BUDGET_RESET: OperatorRole.OPERATOR,
    Permission.LOCKDOWN: OperatorRole.OPERATOR,
    Permission.LOCKDOWN_LIFT: OperatorRole.OPERATOR,
    Permission.BYPASS: OperatorRole.OPERATOR,
    Permission.BYPASS_REVIEW: OperatorRole.ADMINISTRATOR,
    Permission.RELOAD: OperatorRole.OPERATOR,
    Permission.GATEWAY_CERTIFICATES: OperatorRole.ADMINISTRATOR,
    Permission.AUDIT_PRUNE: OperatorRole.ADMINISTRATOR,
    Permission.BACKUP: OperatorRole.ADMINISTRATOR,
    Permission.USER_CHANGE: OperatorRole.ADMINISTRATOR,
    Permission.OPERATOR_CHANGE: OperatorRole.ADMINISTRATOR,
    Permission.APPROVE: OperatorRole.OPERATOR,
    Permission.CA_CHANGE: OperatorRole.ADMINISTRATOR,
}

# These look, narrow rights, or are for an emergency: they never wait for a second person.
AT_ONCE: Final = frozenset(
    {
        Permission.VIEW,
        Permission.AUDIT_READ,
        Permission.DEVICE_SUSPEND,
        Permission.LOCKDOWN,
        Permission.BYPASS,
        Permission.APPROVE,
    }
)
SECOND_PERSON_WORDS: Final = (ALL, *(each.value for each in Permission if each not in AT_ONCE))


class OperatorError(ValueError):
    """The operators can't be read, or not be changed like this; the message says why and what to do."""


class NotPermittedError(Exception):
    """Somebody may not do what they asked for; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """A named operator. `unix_users` are the accounts that are this person. Raises OperatorError."""

    name: str
    role: OperatorRole
    unix_users: tuple[str, ...]

    def __post_init__(self) -> None:
        for what, text in (("name", self.name), *(("Unix user", user) for user in self.unix_users)):
            if not _is_name(text):
                raise OperatorError(
                    f"{text!r} can't be the {what} of an operator: write 1 to {_MOST_CHARACTERS} printable characters, "
                    "no quotes or backslashes, no spaces around it"
                )

    def may(self, permission: Permission) -> bool:
        """Say if the role has the permission."""
        return self.role >= LEAST_ROLE[permission]


def _is_name(text: str) -> bool:
    plain = text.isprintable() and text == text.strip() and not set(text) & set("\"'\\")
    return 0 < len(text) <= _MOST_CHARACTERS and plain


@dataclass(frozen=True, slots=True)
class Operators:
    """All operators. Raises OperatorError for two with one name or one Unix user, and where no administrator is."""

    entries: tuple[Operator, ...]

    def __post_init__(self) -> None:
        for what, texts in (
            ("name", [each.name for each in self.entries]),
            ("Unix user", [user for each in self.entries for user in each.unix_users]),
        ):
            double = next((text for text in texts if texts.count(text) > 1), None)
            if double is not None:
                raise OperatorError(f"two operators have the {what} {double!r}; each is one person")
        if not any(each.role is OperatorRole.ADMINISTRATOR for each in self.entries):
            raise OperatorError("no operator would be an administrator, so nobody could change anything any more")

    def named(self, name: str) -> Operator | None:
        """Return an operator by name."""
        return next((each for each in self.entries if each.name == name), None)

    def of_unix_user(self, user: str) -> Operator | None:
        """Return the operator that a Unix user is."""
        return next((each for each in self.entries if user in each.unix_users), None)

    def with_operator(self, operator: Operator) -> "Operators":
        """Return them with one more. Raises OperatorError."""
        return Operators((*self.entries, operator))

    def with_role(self, name: str, role: OperatorRole) -> "Operators":
        """Return them with another role for one. Raises OperatorError."""
        return Operators(tuple(replace(each, role=role) if each.name == name else each for each in self.entries))

    def without(self, name: str) -> "Operators":
        """Return them without one. Raises OperatorError."""
        return Operators(tuple(each for each in self.entries if each.name != name))

    def others_who_may(self, permission: Permission, name: str) -> list[str]:
        """Return who but `name` could be the second person for a permission."""
        return [
            each.name
            for each in self.entries
            if each.name != name and each.may(permission) and each.may(Permission.APPROVE)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who runs a command: the Unix user (of sudo: who typed it), and whether it is root itself, without sudo."""

    unix_user: str
    is_root: bool


def identify_operator(operators: Operators, caller: Caller, claimed: str | None) -> Operator:
    """Return the operator that the caller is, or claims to be with `--operator`. Raises NotPermittedError.

    Root can do everything anyhow, so it may say for whom it acts. A directory with one operator has nobody to tell
    apart: there a claimed name is only the name for the record.
    """
    own = operators.of_unix_user(caller.unix_user)
    if claimed is None or (own is not None and claimed == own.name):
        if own is None:
            raise NotPermittedError(
                f"the Unix user {caller.unix_user!r} is no operator of this gateway; an administrator can change that: "
                f"dicomward operator add NAME --role ROLE --user {caller.unix_user}"
            )
        return own
    if own is not None and len(operators.entries) == 1:
        return replace(own, name=claimed)
    named = operators.named(claimed)
    if named is None:
        known = ", ".join(each.name for each in operators.entries)
        raise NotPermittedError(f"there is no operator {claimed!r}; the known ones are {known}")
    if not caller.is_root:
        raise NotPermittedError(
            f"the Unix user {caller.unix_user!r} is not {claimed!r}: nobody acts under another's name; "
            "leave --operator out"
        )
    return named


def verify_permission(operator: Operator, permission: Permission) -> None:
    """Raise NotPermittedError if the operator's role doesn't have the permission."""
    if not operator.may(permission):
        raise NotPermittedError(
            f"{operator.name} is {_article(operator.role)}, and this ({permission}) needs "
            f"{_article(LEAST_ROLE[permission])}; ask one, see: dicomward operator list"
        )


def _article(role: OperatorRole) -> str:
    return f"{'an' if role.label[0] in 'ao' else 'a'} {role.label}"


def is_for_two(permission: Permission, second_person: Iterable[str]) -> bool:
    """Say if the settings want two operators for this, whoever they are."""
    return permission not in AT_ONCE and bool(frozenset(second_person) & {ALL, permission.value})


def needs_second_person(
    operators: Operators, operator: Operator, permission: Permission, second_person: Iterable[str]
) -> bool:
    """Say if another operator has to approve.

    The one administrator of a new gateway can add a second one alone: else nobody ever could.
    """
    if not is_for_two(permission, second_person):
        return False
    return permission is not Permission.OPERATOR_CHANGE or bool(operators.others_who_may(permission, operator.name))


def parse_operators(text: str, *, source: str) -> Operators:
    """Read `operators.toml`; `source` names it in messages. Raises OperatorError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise OperatorError(f"{source} is not TOML: {error}; correct the line") from error
    unknown = set(document) - {"version", "operator"}
    if unknown or document.get("version") != OPERATORS_VERSION:
        raise OperatorError(f"{source} needs version = {OPERATORS_VERSION}, and knows [[operator]] tables besides")
    tables = document.get("operator", [])
    if not isinstance(tables, list):
        raise OperatorError(f"{source}: operators are tables; start each with [[operator]]")
    try:
        return Operators(tuple(_parse_operator(table) for table in tables))
    except OperatorError as error:
        raise OperatorError(f"{source}: {error}") from error


def _parse_operator(table: object) -> Operator:
    match table:
        case {"name": str(name), "role": str(role), "users": [*users], **rest} if not rest and role in ROLE_BY_LABEL:
            if all(isinstance(user, str) for user in users):
                return Operator(name=name, role=ROLE_BY_LABEL[role], unix_users=tuple(users))
    raise OperatorError(
        f"{table!r} is no operator: it has a name, a role ({', '.join(ROLE_BY_LABEL)}) and a list of users"
    )


def render_operators(operators: Operators) -> str:
    """Return the text of `operators.toml`."""
    lines = [
        "# Who may use the commands of this gateway: docs/operators.md. Change it with: dicomward operator",
        f"version = {OPERATORS_VERSION}",
    ]
    for each in operators.entries:
        users = ", ".join(f'"{user}"' for user in each.unix_users)
        lines += ["", "[[operator]]", f'name = "{each.name}"', f'role = "{each.role.label}"', f"users = [{users}]"]
    return "\n".join([*lines, ""])
