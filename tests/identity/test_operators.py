"""Operators: roles, names that nobody else can use, and what needs a second person."""

import pytest

from dicomward.identity.operators import (
    AT_ONCE,
    LEAST_ROLE,
    SECOND_PERSON_WORDS,
    Caller,
    NotPermittedError,
    Operator,
    OperatorError,
    OperatorRole,
    Operators,
    Permission,
    identify_operator,
    needs_second_person,
    parse_operators,
    render_operators,
    verify_permission,
)

ANNA = Operator(name="anna", role=OperatorRole.ADMINISTRATOR, unix_users=("anna", "anna-adm"))
BERT = Operator(name="bert", role=OperatorRole.OPERATOR, unix_users=("bert",))
CARLA = Operator(name="carla", role=OperatorRole.ADMINISTRATOR, unix_users=())
ALL = Operators((ANNA, BERT, CARLA))


def caller(unix_user: str, *, is_root: bool = False) -> Caller:
    return Caller(unix_user=unix_user, is_root=is_root)


def test_every_permission_has_its_least_role() -> None:
    assert set(LEAST_ROLE) == set(Permission)
    assert {p for p in Permission if LEAST_ROLE[p] is OperatorRole.VIEWER} == {Permission.VIEW, Permission.AUDIT_READ}


def test_the_emergency_never_waits_for_a_second_person() -> None:
    assert {Permission.BYPASS, Permission.LOCKDOWN, Permission.DEVICE_SUSPEND} <= AT_ONCE
    assert not AT_ONCE & {Permission(word) for word in SECOND_PERSON_WORDS if word != "all"}


def test_written_operators_are_read_again() -> None:
    assert parse_operators(render_operators(ALL), source="operators.toml") == ALL


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version = ", "is not TOML"),
        ("", "needs version = 1"),
        ("version = 1\nx = 1", "knows"),
        ("version = 1\noperator = 1", r"start each with \[\[operator\]\]"),
        ("version = 1", "nobody could change anything"),
        ("version = 1\noperator = [1]", "is no operator"),
        ('version = 1\n[[operator]]\nname = "a"\nrole = "king"\nusers = []', "viewer, operator, administrator"),
        ('version = 1\n[[operator]]\nname = "a"\nrole = "viewer"\nusers = [1]', "is no operator"),
        ('version = 1\n[[operator]]\nname = "a"\nrole = "viewer"\nusers = []\nx = 1', "is no operator"),
        ('version = 1\n[[operator]]\nname = " a"\nrole = "viewer"\nusers = []', "can't be the name"),
    ],
)
def test_broken_files_are_refused(text: str, says: str) -> None:
    with pytest.raises(OperatorError, match=says):
        parse_operators(text, source="operators.toml")


@pytest.mark.parametrize("name", ["", "a" * 65, "a\n", "a'b", 'a"b', "a\\b", "a "])
def test_names_that_could_confuse_are_refused(name: str) -> None:
    with pytest.raises(OperatorError, match="can't be the Unix user"):
        Operator(name="anna", role=OperatorRole.VIEWER, unix_users=(name,))


def test_each_operator_is_one_person() -> None:
    with pytest.raises(OperatorError, match="the name 'bert'"):
        ALL.with_operator(Operator(name="bert", role=OperatorRole.VIEWER, unix_users=("x",)))
    with pytest.raises(OperatorError, match="the Unix user 'bert'"):
        ALL.with_operator(Operator(name="other", role=OperatorRole.VIEWER, unix_users=("bert",)))


def test_the_last_administrator_stays() -> None:
    left = ALL.without("carla")
    with pytest.raises(OperatorError, match="nobody could change anything"):
        left.without("anna")
    with pytest.raises(OperatorError, match="nobody could change anything"):
        left.with_role("anna", OperatorRole.OPERATOR)
    assert left.with_role("bert", OperatorRole.VIEWER).named("bert") == Operator(
        name="bert", role=OperatorRole.VIEWER, unix_users=("bert",)
    )


def test_a_unix_user_is_its_operator() -> None:
    assert identify_operator(ALL, caller("anna-adm"), None) == ANNA
    assert identify_operator(ALL, caller("bert"), "bert") == BERT


def test_denied_when_the_unix_user_is_nobody() -> None:
    with pytest.raises(NotPermittedError, match="'root' is no operator"):
        identify_operator(ALL, caller("root", is_root=True), None)


def test_denied_when_acting_under_another_name() -> None:
    with pytest.raises(NotPermittedError, match="nobody acts under another's name"):
        identify_operator(ALL, caller("bert"), "anna")
    with pytest.raises(NotPermittedError, match="there is no operator 'dora'; the known ones are anna, bert, carla"):
        identify_operator(ALL, caller("root", is_root=True), "dora")


def test_root_says_for_whom_it_acts() -> None:
    assert identify_operator(ALL, caller("root", is_root=True), "carla") == CARLA


def test_with_one_operator_a_name_is_for_the_record() -> None:
    alone = Operators((ANNA,))
    assert identify_operator(alone, caller("anna"), "night shift").name == "night shift"
    with pytest.raises(NotPermittedError, match="there is no operator"):
        identify_operator(alone, caller("bert"), "night shift")


def test_denied_when_the_role_is_too_low() -> None:
    verify_permission(BERT, Permission.BYPASS)
    with pytest.raises(NotPermittedError, match=r"bert is an operator, and this \(device-change\) needs an admin"):
        verify_permission(BERT, Permission.DEVICE_CHANGE)
    viewer = Operator(name="dora", role=OperatorRole.VIEWER, unix_users=())
    with pytest.raises(NotPermittedError, match=r"dora is a viewer, and this \(bypass\) needs an operator"):
        verify_permission(viewer, Permission.BYPASS)


def test_what_needs_a_second_person() -> None:
    def needs(permission: Permission, *words: str, operators: Operators = ALL) -> bool:
        return needs_second_person(operators, ANNA, permission, words)

    assert needs(Permission.DEVICE_CHANGE, "device-change")
    assert needs(Permission.DEVICE_CHANGE, "all")
    assert not needs(Permission.DEVICE_CHANGE, "archive-change")
    assert not needs(Permission.BYPASS, "all")
    assert needs(Permission.OPERATOR_CHANGE, "all")
    assert not needs(Permission.OPERATOR_CHANGE, "all", operators=Operators((ANNA, BERT)))
    assert needs(Permission.DEVICE_CHANGE, "all", operators=Operators((ANNA,)))


def test_who_could_be_the_second_person() -> None:
    assert ALL.others_who_may(Permission.DEVICE_CHANGE, "anna") == ["carla"]
    assert ALL.others_who_may(Permission.BUDGET_RESET, "anna") == ["bert", "carla"]
