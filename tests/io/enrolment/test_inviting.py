"""Inviting: all of a list or none, codes that are only handed out once, one open invitation for each device."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from dicomward.enrolment.code import hash_of
from dicomward.enrolment.grant import Grant
from dicomward.identity.registry import DeviceStatus, RegistryError
from dicomward.io.enrolment.invitation_store import all_invitations
from dicomward.io.enrolment.inviting import Handed, Wish, invite, new_passphrase
from dicomward.io.enrolment.key import open_secret
from dicomward.io.registry.store import RegistryStore
from tests.io.ca_helpers import NOW, grant

KEY, ROOT = bytes(32), b"the root"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RegistryStore]:
    with RegistryStore.open(f"sqlite:///{tmp_path / 'r.db'}", create=True) as store:
        yield store


def invited(store: RegistryStore, *grants: Grant) -> tuple[Handed, ...]:
    wishes = [Wish(grant=each, expires_at=NOW + timedelta(hours=2)) for each in grants]
    return invite(store, wishes, by="anna", now=NOW, key=KEY, root=ROOT)


def statuses(store: RegistryStore) -> list[tuple[str, str]]:
    with store.reading() as connection:
        found = [each.invitation for each in all_invitations(connection)]
    return sorted((each.grant.device, each.status.value) for each in found)


def test_code_and_secret_are_handed_out_and_stored_so_that_nobody_reads_them(store: RegistryStore) -> None:
    (handed,) = invited(store, grant("ct3"))
    assert handed.code.pins(ROOT)
    assert handed.code.text not in repr(handed)
    assert handed.cmp_secret not in repr(handed)
    assert handed.uri("https://x").startswith("dicomward://enroll?code=D")
    with store.reading() as connection:
        (stored,) = all_invitations(connection)
    assert stored.invitation == handed.invitation
    assert stored.invitation.code_hash == hash_of(handed.code.secret, KEY)
    assert handed.cmp_secret not in stored.cmp_secret
    assert open_secret(stored.cmp_secret, KEY, handed.invitation.id) == handed.cmp_secret


def test_newer_invitation_of_a_device_ends_the_one_before(store: RegistryStore) -> None:
    invited(store, grant("ct3"))
    invited(store, grant("ct3"))
    assert statuses(store) == [("ct3", "open"), ("ct3", "revoked")]


def test_all_of_a_list_or_none(store: RegistryStore) -> None:
    with pytest.raises(RegistryError, match="is promised to 'ct3'"):
        invited(store, grant("ct3"), grant("ct4", "CT3"))
    assert statuses(store) == []
    invited(store, grant("ct3"), grant("ct4"))
    assert statuses(store) == [("ct3", "open"), ("ct4", "open")]


@pytest.mark.parametrize("status", [DeviceStatus.SUSPENDED, DeviceStatus.REVOKED])
def test_device_that_is_out_of_use_is_not_invited(store: RegistryStore, status: DeviceStatus) -> None:
    device = replace(grant("ct3").as_device(()), status=DeviceStatus.ACTIVE)
    store.add_device(device, by="anna", at=NOW)
    store.set_device_status("ct3", status, by="anna", at=NOW)
    with pytest.raises(RegistryError, match=f"ct3 is {status}; resume it"):
        invited(store, grant("ct3"))


def test_passphrase_can_be_typed() -> None:
    first = new_passphrase()
    assert [len(part) for part in first.split("-")] == [5, 5, 5, 5]
    assert first != new_passphrase()
