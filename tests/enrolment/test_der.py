"""DER: what is written is read, and whatever else bytes may be is refused."""

import pytest

from dicomward.enrolment import der
from dicomward.enrolment.der import DerError, Reader


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 70_000])
def test_lengths(size: int) -> None:
    item = der.only(der.encode(der.OCTETS, bytes(size)), der.OCTETS)
    assert len(item.content) == size
    assert len(item.encoded) > size


@pytest.mark.parametrize("value", [0, 1, -1, 127, 128, -128, -129, 65_537])
def test_integers(value: int) -> None:
    assert der.decode_integer(der.only(der.encode_integer(value), der.INTEGER)) == value


@pytest.mark.parametrize(
    "data",
    [b"", b"\x04", b"\x1f\x01\x00", b"\x04\x02a", b"\x04\x80aa\0\0", b"\x04\x81\x01a", b"\x04\x82\0\x80", b"\x04\x84"],
)
def test_bad_elements(data: bytes) -> None:
    with pytest.raises(DerError):
        der.only(data, der.OCTETS)
    with pytest.raises(DerError):
        Reader(data).item()


def test_wrong_tags_and_rests() -> None:
    with pytest.raises(DerError, match="expected the tag"):
        der.only(der.encode(der.NULL), der.OCTETS)
    with pytest.raises(DerError, match="no place"):
        der.only(der.encode(der.OCTETS) * 2, der.OCTETS)
    reader = Reader(der.encode(der.NULL) * 2)
    assert reader.optional(der.OCTETS) is None
    assert reader.optional(der.NULL) is not None
    assert [each.tag for each in reader.items()] == [der.NULL]
    reader.end()


def test_contents() -> None:
    assert der.encode_oid("1.2.840.113549") == bytes.fromhex("06062a864886f70d")
    assert der.decode_bits(der.only(b"\x03\x02\x00a", der.BIT_STRING)) == b"a"
    for bad in (b"\x03\x02\x01a", b"\x03\x00"):
        with pytest.raises(DerError):
            der.decode_bits(der.only(bad, der.BIT_STRING))
    with pytest.raises(DerError):
        der.decode_integer(der.only(b"\x02\x00", der.INTEGER))
    inner = der.encode(der.SEQUENCE, der.encode(der.NULL))
    assert der.only(inner, der.SEQUENCE).reader().take(der.NULL).content == b""
