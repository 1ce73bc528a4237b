"""Transactions: each ID once, bounded in number and time."""

import pytest

from dicomward.enrolment.cmp_transactions import LIFE, MOST_TRANSACTIONS, Owner, Pending, Transactions
from dicomward.enrolment.refusal import EnrolmentRefusedError
from tests.enrolment.cmp_client import NOW

PENDING = Pending(owner=Owner(device="CT", secret="S3CRET"), certificate=b"c", nonce=b"n")


def test_id_is_good_once() -> None:
    book = Transactions()
    book.begin(b"1", NOW)
    with pytest.raises(EnrolmentRefusedError, match="cmp-replayed"):
        book.begin(b"1", NOW)
    book.begin(b"1", NOW + LIFE)


def test_certificate_waits_for_one_confirmation() -> None:
    book = Transactions()
    book.begin(b"1", NOW)
    with pytest.raises(EnrolmentRefusedError, match="cmp-certificate-wrong"):
        book.pending(b"1", NOW)
    book.wait(b"1", PENDING, NOW)
    assert book.pending(b"1", NOW) is PENDING
    book.close(b"1", NOW)
    for identifier in (b"1", b"2"):
        with pytest.raises(EnrolmentRefusedError, match="cmp-certificate-wrong"):
            book.pending(identifier, NOW)


def test_nothing_waits_for_ever_and_secrets_do_not_show() -> None:
    book = Transactions()
    book.begin(b"1", NOW)
    book.wait(b"1", PENDING, NOW)
    with pytest.raises(EnrolmentRefusedError, match="cmp-certificate-wrong"):
        book.pending(b"1", NOW + LIFE)
    assert "S3CRET" not in repr(PENDING)


def test_the_oldest_are_forgotten_when_there_are_too_many() -> None:
    book = Transactions()
    for number in range(MOST_TRANSACTIONS + 1):
        book.begin(str(number).encode(), NOW)
    book.begin(b"0", NOW)
    with pytest.raises(EnrolmentRefusedError, match="cmp-replayed"):
        book.begin(b"2", NOW)
