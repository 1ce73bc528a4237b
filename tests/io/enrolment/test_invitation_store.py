"""Invitations and waiting requests in the database: found, spent once, counted, and never two with one AE title."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from dicomward.enrolment.invitation import MOST_WRONG_GUESSES, Invitation, InvitationStatus
from dicomward.identity.registry import RegistryError, RegistrySnapshot
from dicomward.io.enrolment.invitation_store import (
    StoredInvitation,
    WaitingRequest,
    all_invitations,
    all_waiting,
    count_waiting,
    count_wrong_guess,
    decide_waiting,
    insert_invitation,
    insert_waiting,
    invitation_by_id,
    invitation_for_device,
    mark_used,
    mark_waiting_issued,
    revoke_invitations,
    verify_unclaimed,
    waiting_by_id,
    waiting_by_key,
)
from dicomward.io.registry.store import RegistryStore
from tests.identity.examples import archive
from tests.io.ca_helpers import NOW, grant

HOUR = timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RegistryStore]:
    with RegistryStore.open(f"sqlite:///{tmp_path / 'r.db'}", create=True) as store:
        yield store


def stored(identifier: str = "AAAAA", name: str = "ct3", *, hours: int = 0) -> StoredInvitation:
    invitation = Invitation(
        id=identifier,
        grant=grant(name),
        code_hash="ab" * 32,
        created_at=NOW + hours * HOUR,
        created_by="anna",
        expires_at=NOW + (hours + 2) * HOUR,
    )
    return StoredInvitation(invitation=invitation, cmp_secret="sealed")


def test_what_is_stored_is_found(store: RegistryStore) -> None:
    first, second = stored(), stored("BBBBB", hours=1)
    with store.writing() as connection:
        insert_invitation(connection, first)
        insert_invitation(connection, second)
        for lock in (False, True):
            assert invitation_by_id(connection, "AAAAA", lock=lock) == first
            # The newest counts.
            assert invitation_for_device(connection, "ct3", lock=lock) == second
            assert invitation_for_device(connection, "ct4", lock=lock) is None
        assert all_invitations(connection) == (second, first)
    with pytest.raises(IntegrityError), store._engine.begin() as connection:
        insert_invitation(connection, first)


def test_invitation_is_spent_once_and_its_secret_is_gone(store: RegistryStore) -> None:
    with store.writing() as connection:
        insert_invitation(connection, stored())
        mark_used(connection, "AAAAA", key_sha256="cd" * 32, address="10.0.0.1", now=NOW)
        found = invitation_by_id(connection, "AAAAA")
        assert found is not None
        assert (found.invitation.status, found.invitation.used_key) == (InvitationStatus.USED, "cd" * 32)
        assert (found.cmp_secret, found.closed_by, found.closed_at) == ("", "10.0.0.1", NOW)
        with pytest.raises(RegistryError, match="AAAAA is not open any more"):
            mark_used(connection, "AAAAA", key_sha256="ef" * 32, address="10.0.0.1", now=NOW)


def test_guesses_end_an_open_invitation_and_no_other(store: RegistryStore) -> None:
    with store.writing() as connection:
        insert_invitation(connection, stored())
        for count in range(1, MOST_WRONG_GUESSES + 2):
            found = invitation_by_id(connection, "AAAAA", lock=True)
            assert found is not None
            status = count_wrong_guess(connection, found.invitation, "10.0.0.1", NOW)
            expected = InvitationStatus.OPEN if count < MOST_WRONG_GUESSES else InvitationStatus.DEAD
            assert status is expected
        found = invitation_by_id(connection, "AAAAA")
        assert found is not None
        assert (found.invitation.wrong_guesses, found.cmp_secret) == (MOST_WRONG_GUESSES, "")
        assert revoke_invitations(connection, "ct3", by="anna", now=NOW) == 0


def test_open_invitations_are_revoked(store: RegistryStore) -> None:
    with store.writing() as connection:
        insert_invitation(connection, stored())
        assert revoke_invitations(connection, "ct4", by="bert", now=NOW) == 0
        assert revoke_invitations(connection, "ct3", by="bert", now=NOW) == 1
        (found,) = all_invitations(connection)
        assert (found.invitation.status, found.closed_by, found.cmp_secret) == (InvitationStatus.REVOKED, "bert", "")


def test_names_and_titles_belong_to_one(store: RegistryStore) -> None:
    taken = grant("ct1").as_device(())
    place = archive()
    snapshot = RegistrySnapshot(devices=(taken,), archives=(place,), revision=1)
    with store.writing() as connection:
        insert_invitation(connection, stored())
        for wanted, why in (
            (grant(place.name, "X1"), "is the name of an archive"),
            (grant("ct9", "CT1"), "belongs to 'ct1'"),
            (grant("ct9", place.ae_title), "belongs to the archive"),
            (grant("ct9", "CT3"), "is promised to 'ct3'"),
        ):
            with pytest.raises(RegistryError, match=why):
                verify_unclaimed(connection, wanted, snapshot, NOW)
        # Its own, those of an invitation that is over, and free ones.
        for wanted, moment in (
            (grant("ct1"), NOW),
            (grant("ct3"), NOW),
            (grant("ct9"), NOW),
            (grant("x", "CT3"), NOW + 3 * HOUR),
        ):
            verify_unclaimed(connection, wanted, snapshot, moment)


# --- requests that wait ----------------------------------------------------------------------------------------------


def waiting(number: int, address: str = "10.0.0.1") -> WaitingRequest:
    return WaitingRequest(
        id=f"W{number}",
        key_sha256=f"{number:064x}",
        common_name="ct3",
        address=address,
        asked_at=NOW + number * HOUR,
        expires_at=NOW + timedelta(days=7),
    )


def test_requests_wait_are_decided_and_issued_once(store: RegistryStore) -> None:
    with store.writing() as connection:
        for number in (2, 1):
            insert_waiting(connection, waiting(number))
        assert all_waiting(connection) == (waiting(1), waiting(2))
        assert waiting_by_id(connection, "W1") == waiting_by_key(connection, f"{1:064x}", lock=True) == waiting(1)
        assert waiting_by_id(connection, "W9") is None
        assert waiting_by_key(connection, "00") is None
        decided = {"by": "anna", "now": NOW, "expires_at": NOW + HOUR}
        decide_waiting(connection, "W1", granted=grant("ct3"), **decided)  # type: ignore[arg-type]
        decide_waiting(connection, "W2", granted=None, **decided)  # type: ignore[arg-type]
        assert waiting_by_id(connection, "W1") == replace(
            waiting(1),
            status="approved",
            granted=grant("ct3"),
            decided_by="anna",
            decided_at=NOW,
            expires_at=NOW + HOUR,
        )
        mark_waiting_issued(connection, "W1")
        for identifier in ("W1", "W2"):
            with pytest.raises(RegistryError, match="not approved any more"):
                mark_waiting_issued(connection, identifier)


def test_what_waits_is_counted_and_what_is_over_is_gone(store: RegistryStore) -> None:
    with store.writing() as connection:
        for number in (1, 2):
            insert_waiting(connection, waiting(number))
        insert_waiting(connection, waiting(3, "10.0.0.2"))
        assert count_waiting(connection, "10.0.0.1", NOW) == (3, 2)
        decide_waiting(connection, "W1", granted=grant(), by="anna", now=NOW, expires_at=NOW + HOUR)
        assert count_waiting(connection, "10.0.0.1", NOW) == (2, 1)
        assert count_waiting(connection, "10.0.0.1", NOW + timedelta(days=8)) == (0, 0)
        # What was approved is kept: it says who got in.
        assert [each.id for each in all_waiting(connection)] == ["W1"]
