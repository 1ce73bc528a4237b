"""The frame of CMP messages: what is written is read; what can't be read, or isn't taken, has its reason."""

import pytest

from dicomward.enrolment import der
from dicomward.enrolment.cmp_message import Kind, decode_header, decode_message
from dicomward.enrolment.refusal import EnrolmentRefusedError
from tests.enrolment.cmp_client import EMPTY_NAME, header, with_mac

BODY = der.encode(der.SEQUENCE)


@pytest.mark.parametrize("is_implicit", [True, False])
def test_message_is_read_as_it_was_written(is_implicit: bool) -> None:
    message = decode_message(with_mac(Kind.GENM, BODY, is_implicit=is_implicit, recipient_nonce=b"n"))
    assert (message.kind, message.body) == (Kind.GENM, BODY)
    assert message.header.sender_key_id == b"CT"
    assert message.header.recipient_nonce == b"n"
    assert message.header.is_implicit is is_implicit
    assert message.protection
    assert message.certificates == ()


def test_message_without_protection_is_read() -> None:
    head = der.encode(
        der.SEQUENCE,
        der.encode_integer(2),
        *(EMPTY_NAME, EMPTY_NAME, der.encode(0xA4, der.encode(der.OCTETS, bytes(16)))),
        der.encode(0xA5, der.encode(der.OCTETS, bytes(16))),
    )
    message = decode_message(der.encode(der.SEQUENCE, head, der.encode(0xA0 + Kind.GENM, BODY)))
    assert message.protection == b""
    assert message.header.algorithm == b""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cmp-unreadable"),
        (b"garbage", "cmp-unreadable"),
        (with_mac(Kind.GENM, BODY)[:-1], "cmp-unreadable"),
        (with_mac(Kind.GENM, BODY) + b"x", "cmp-unreadable"),
        (with_mac(Kind.GENM, BODY, version=1), "cmp-version"),
        (with_mac(Kind.GENM, BODY, sender_nonce=b"short"), "cmp-unreadable"),
        (with_mac(Kind.GENM, BODY, transaction_id=b""), "cmp-unreadable"),
        (with_mac(Kind.GENM, BODY).replace(b"\xb5\x02\x30\x00", b"\xbb\x02\x30\x00"), "cmp-not-offered"),
    ],
)
def test_bad_messages(data: bytes, reason: str) -> None:
    with pytest.raises(EnrolmentRefusedError) as caught:
        decode_message(data)
    assert caught.value.reason == reason


def test_field_that_comes_twice_is_refused() -> None:
    twice = der.encode(0xA4, der.encode(der.OCTETS, bytes(16))) * 2
    head = der.encode(der.SEQUENCE, der.encode_integer(2), EMPTY_NAME, EMPTY_NAME, twice)
    assert decode_header(der.encode(der.SEQUENCE, head)) is None


def test_header_is_read_where_it_can_be() -> None:
    found = decode_header(with_mac(Kind.GENM, BODY)[:-1] + b"")
    assert found is None
    found = decode_header(with_mac(Kind.GENM, b"\xff"))
    assert found is not None
    assert found.transaction_id == header().transaction_id
