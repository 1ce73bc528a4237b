"""Codes: the vectors of docs/enrolment-code.md, what may be typed, and what is found wrong with the rest."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.enrolment.code import (
    ALPHABET,
    CODE_CHARACTERS,
    PIN_CHARACTERS,
    Code,
    CodeError,
    check_of,
    encode_bits,
    hash_of,
    is_secret,
    make_code,
    parse_code,
    parse_uri,
    pin_of,
    uri_of,
)

CA = b"the certificate"
CODE = make_code(bytes(range(14)), CA)
PAGE = Path(__file__).parents[2] / "docs" / "enrolment-code.md"


def rows() -> list[list[str]]:
    text = PAGE.read_text(encoding="utf-8").partition("## Test vectors")[2]
    return [re.findall(r"`([^`]*)`", line) for line in text.splitlines() if line.startswith("| `")]


def test_vectors_of_the_page() -> None:
    assert len(rows()) >= 3
    for random_hex, certificate, typed, stored in rows():
        code = make_code(bytes.fromhex(random_hex), certificate.encode())
        assert code.text == typed
        assert hash_of(code.secret, bytes(32)) == stored


def test_alphabet_has_no_lookalikes() -> None:
    assert len(set(ALPHABET)) == 32
    assert not set(ALPHABET) & set("01OI")


def test_code_is_eight_groups_of_five() -> None:
    assert re.fullmatch(r"([2-9A-HJ-NP-Z]{5}-){7}[2-9A-HJ-NP-Z]{5}", CODE.text)
    assert CODE.secret not in repr(CODE)


@given(st.binary(min_size=14, max_size=32), st.binary(max_size=64))
def test_what_is_written_is_read(randomness: bytes, certificate: bytes) -> None:
    code = make_code(randomness, certificate)
    assert parse_code(code.text) == code
    assert code.pins(certificate)
    assert not code.pins(certificate + b"x")


@pytest.mark.parametrize(
    "typed",
    [
        CODE.text.lower(),
        CODE.text.replace("-", ""),
        CODE.text.replace("-", " "),
        CODE.text.replace("-", "\N{EN DASH}"),
        f"  {CODE.text.replace('-', '.')}\n",
        uri_of(CODE.text, ""),
        uri_of(CODE.text, "https://gw.example:8443/"),
    ],
)
def test_people_type_in_different_ways(typed: str) -> None:
    assert parse_code(typed) == CODE


@given(st.integers(0, CODE_CHARACTERS - 1), st.sampled_from(ALPHABET))
def test_one_wrong_character_is_nearly_always_found(at: int, character: str) -> None:
    plain = CODE.text.replace("-", "")
    wrong = plain[:at] + character + plain[at + 1 :]
    if wrong != plain and check_of(wrong[:-2]) != wrong[-2:]:
        with pytest.raises(CodeError, match="typing error"):
            parse_code(wrong)


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("", "this has 0"),
        (CODE.text[:-1], "this has 39"),
        ("x" * 600, "this has 600"),
        (CODE.text[:-1] + "0", "0, O, 1 and I are never used"),
        (CODE.text[:-1] + "*", "can't stand in a code; type"),
        ("dicomward:nonsense", "no URI of an invitation"),
        ("dicomward://enroll?code=a&code=b", "no URI of an invitation"),
        ("dicomward://enroll?" + "&".join(["a=b"] * 9), "no URI of an invitation"),
    ],
)
def test_what_is_no_code_is_explained(typed: str, why: str) -> None:
    with pytest.raises(CodeError, match=re.escape(why)):
        parse_code(typed)


def test_other_format_is_named() -> None:
    plain = "E" + CODE.text.replace("-", "")[1:-2]
    with pytest.raises(CodeError, match="format 'E'"):
        parse_code(plain + check_of(plain))


def test_uri_leads_to_the_server_and_the_code() -> None:
    assert parse_uri(uri_of(CODE.text, "https://gw:8443/a b")) == ("https://gw:8443/a b", CODE.text)
    assert parse_uri(uri_of(CODE.text, "")) == ("", CODE.text)


def test_too_little_randomness_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        make_code(bytes(13), CA)


def test_secret_is_known_only_with_the_key() -> None:
    stored = hash_of(CODE.secret, b"key")
    assert is_secret(CODE.secret, stored, b"key")
    assert not is_secret(CODE.secret, stored, b"another")
    assert not is_secret("A" * 16, stored, b"key")


def test_bits_are_taken_from_the_front() -> None:
    assert encode_bits(b"\x00\x00\x00\x00\x01", 8) == "22222223"
    assert encode_bits(b"\xff\x00", 1) == "Z"
    assert len(pin_of(b"x")) == PIN_CHARACTERS
    assert Code("A", "B", "C").text.startswith("DABC")
