"""Locked sites as values, and their file."""

import pytest

from dicomward.identity.lockdown import Lockdown, LockdownError, LockedSite, decode_lockdown, encode_lockdown

ANNA = LockedSite(since="2026-01-31T12:00:00Z", operator="anna", reason="ransomware")


def test_there_and_back() -> None:
    lockdown = Lockdown().with_site("main", ANNA)
    assert decode_lockdown(encode_lockdown(lockdown)) == lockdown


def test_a_site_is_covered_by_name_by_all_and_when_nothing_is_known() -> None:
    assert Lockdown().with_site("main", ANNA).covers("main")
    assert not Lockdown().with_site("main", ANNA).covers("")
    assert Lockdown().with_site("all", ANNA).covers("")
    assert Lockdown(everywhere=True).covers("anything")


def test_locking_twice_keeps_who_was_first_and_lifting_takes_it_away() -> None:
    twice = Lockdown().with_site("main", ANNA).with_site("main", LockedSite(since="later", operator="berta"))
    assert twice.sites["main"] == ANNA
    assert twice.without("main") == Lockdown()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"version": 2, "sites": {}}',
        '{"version": 1}',
        '{"version": 1, "sites": {"a": 1}}',
        '{"version": 1, "sites": {"a": {"since": "x", "operator": "y"}}}',
        '{"version": 1, "sites": {"a": {"since": 1, "operator": "y", "reason": ""}}}',
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(LockdownError):
        decode_lockdown(text)
