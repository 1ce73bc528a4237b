"""Which archive answers: the one that is called, or a declared replica while that one is down."""

from dataclasses import replace

from dicomward.identity.registry import RegistrySnapshot
from dicomward.relay.replicas import is_served_by, name_in_rules, serving
from tests.relay.world import archive, device

PACS = archive("pacs", "PACS")
FIRST = replace(archive("pacs-b", "PACS"), replica_of="pacs")
SECOND = replace(archive("pacs-c", "PACS_C"), replica_of="pacs")
OTHER = archive("other", "OTHER")
LISTENER = device("viewer", "workstation", "VIEWER", address=True)
REGISTRY = RegistrySnapshot(devices=(LISTENER,), archives=(PACS, FIRST, SECOND, OTHER), revision=1)


def serving_while(*down: str) -> str:
    return serving(REGISTRY, PACS, lambda name: name in down).name


def test_archive_that_is_up_answers_itself() -> None:
    assert serving_while() == "pacs"
    assert serving_while("pacs-b", "other") == "pacs"


def test_first_replica_that_is_up_stands_in() -> None:
    assert serving_while("pacs") == "pacs-b"
    assert serving_while("pacs", "pacs-b") == "pacs-c"


def test_where_nobody_is_up_the_archive_itself_is_tried() -> None:
    assert serving_while("pacs", "pacs-b", "pacs-c") == "pacs"


def test_nobody_stands_in_who_was_not_declared() -> None:
    assert serving(REGISTRY, OTHER, lambda name: name == "other") is OTHER
    assert serving(REGISTRY, LISTENER, lambda _name: True) is LISTENER


def test_open_association_with_a_replica_goes_on() -> None:
    assert [is_served_by(REGISTRY, PACS, name) for name in ("pacs", "pacs-b", "other")] == [True, True, False]


def test_rules_about_an_archive_are_about_its_replicas() -> None:
    assert [name_in_rules(target) for target in (PACS, FIRST, LISTENER)] == ["pacs", "pacs", "viewer"]
