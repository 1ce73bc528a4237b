"""Single values of policy files: what is read, and what is said about what can't be."""

import re
from collections.abc import Callable

import pytest

from dicomward.policy.decision import Effect
from dicomward.policy.values import (
    BadValueError,
    lines_of,
    nearest,
    one_of,
    read_assurance,
    read_destination,
    read_effect,
    read_key,
    read_minute,
    read_name,
    read_rule_id,
    read_sop_class,
    read_text,
)
from dicomward.vocab.principal import Assurance

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (read_text, " as it is ", " as it is "),
        (read_name, "CT 1", "CT 1"),
        (read_rule_id, "a.b-c_1", "a.b-c_1"),
        (read_effect, "deny", Effect.DENY),
        (read_assurance, "tls-device", Assurance.TLS_DEVICE),
        (read_sop_class, "CTImageStorage", CT),
        (read_sop_class, CT, CT),
        (read_sop_class, "1.2.276.0.99.1", "1.2.276.0.99.1"),
        (read_key, "PatientID", 0x00100020),
        (read_destination, "READER", "READER"),
        (read_destination, "self", "self"),
        (read_minute, "24:00", 1440),
        (read_minute, "06:05", 365),
    ],
)
def test_what_is_meant_is_read(read: Callable[[object], object], text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "given", "message", "hint"),
    [
        (read_text, 5, "5 is not text", "in quotes"),
        (read_name, "*", "is not a name", "leave the field out"),
        (read_name, " x", "is not a name", "no spaces around it"),
        (read_rule_id, "-x", "is not an id", "1 to 64"),
        (read_effect, "permit", "not a known effect", "known: allow, deny"),
        (read_effect, "any", "not a known effect", "leave the field out"),
        (read_assurance, "tls-devic", "not a known assurance", 'did you mean "tls-device"?'),
        (read_sop_class, "CTImageStorag", "no SOP class with the keyword", 'did you mean "CTImageStorage"?'),
        (read_sop_class, "qqq", "no SOP class with the keyword", "see docs/policy.md"),
        (read_sop_class, "1..2", "1..2", "UID or its keyword"),
        (read_sop_class, "1.02.3", "leading zero", "take the zero out"),
        (read_sop_class, "1.2.840.10008.1.2", "a transfer syntax", "write a SOP class"),
        (read_key, "PatientId", "not the keyword", "A tag will do as well"),
        (read_key, "RetrieveAETitle", "does not narrow", "name another key"),
        (read_destination, "any", "not an AE title that a rule can name", "leave the field out"),
        (read_destination, "A" * 17, "AAAA", "write AE titles"),
        (read_minute, "7:30", "not a time of day", "HH:MM"),
        (read_minute, "24:01", "not a time of day", "HH:MM"),
        (read_minute, "23:60", "not a time of day", "HH:MM"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(
    read: Callable[[object], object], given: object, message: str, hint: str
) -> None:
    with pytest.raises(BadValueError) as caught:
        read(given)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_words_stand_for_values() -> None:
    assert one_of("day", {"mon": 0})("mon") == 0


def test_hints_name_the_nearest_word_or_the_few_there_are() -> None:
    assert nearest("MONN", ["mon", "tue"]) == 'did you mean "mon"?'
    assert nearest("x", ["mon", "tue"]) == "known: mon, tue"
    assert nearest("x", [f"word{i}" for i in range(30)]) == "see docs/policy.md"


def test_lines_are_those_of_every_match() -> None:
    text = "a\n\n[[rule]]\nid = 1\n[[rule]]\n\n\n[[rule]]"
    assert lines_of(re.compile(r"^\[\[rule\]\]", re.MULTILINE), text) == [3, 5, 8]
    assert lines_of(re.compile("rule"), "no match") == []
