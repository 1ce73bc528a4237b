"""Transactions: each ID once, bounded in number and time."""

import base64

import pytest

from dicomward.enrolment.cmp_message import Kind
from dicomward.enrolment.cmp_transactions import (
    LIFE,
    MOST_OF_STRANGERS,
    MOST_TRANSACTIONS,
    Owner,
    Pending,
    Polling,
    Transactions,
)
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.enrolment.request import decode_request
from tests.enrolment.cmp_client import NOW
from tests.io.enrolment_place import new_key
from tests.io.enrolment_place import request as device_request

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


def test_request_waits_for_approval_and_is_no_certificate() -> None:
    book = Transactions()
    request = decode_request(base64.b64decode(device_request(new_key())))
    polling = Polling(owner=Owner(device=""), kind=Kind.IR, number=0, request=request, nonce=b"n", is_implicit=False)
    book.begin(b"1", NOW)
    book.wait(b"1", polling, NOW)
    assert book.polling(b"1", NOW) is polling
    with pytest.raises(EnrolmentRefusedError, match="cmp-certificate-wrong"):
        book.pending(b"1", NOW)
    book.wait(b"1", PENDING, NOW)
    with pytest.raises(EnrolmentRefusedError, match="cmp-certificate-wrong"):
        book.polling(b"1", NOW)


def test_strangers_push_out_each_other_and_nobody_else() -> None:
    book = Transactions()
    book.begin(b"device", NOW)
    book.wait(b"device", PENDING, NOW)
    book.begin(b"s-kept", NOW, is_stranger=True)
    book.begin(b"s-lost", NOW, is_stranger=True)
    for number in range(MOST_OF_STRANGERS - 2):
        book.begin(b"s%d" % number, NOW, is_stranger=True)
    # Who has asked again is not the oldest any more.
    book.wait(b"s-kept", PENDING, NOW)
    book.begin(b"one more", NOW, is_stranger=True)
    assert book.pending(b"device", NOW) is PENDING
    assert book.pending(b"s-kept", NOW) is PENDING
    book.begin(b"s-lost", NOW)
    with pytest.raises(EnrolmentRefusedError, match="cmp-replayed"):
        book.begin(b"s-kept", NOW, is_stranger=True)
    # What is over counts for nothing.
    later = NOW + LIFE
    for number in range(MOST_OF_STRANGERS):
        book.begin(b"s%d" % number, later, is_stranger=True)
    with pytest.raises(EnrolmentRefusedError, match="cmp-replayed"):
        book.begin(b"s0", later, is_stranger=True)
