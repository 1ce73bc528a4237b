"""How fields are treated: none is left unclassified."""

import re

import pytest

from dicomward.audit.event import EVENT_CLASSES, AuditEvent, field_names
from dicomward.audit.fields import FIELD_RULES, MAX_IDENTIFIER_CHARACTERS, Classification, Kind, field_rule

CHAIN_MEMBERS = {"seq", "prev", "time", "hash", "v", "code", "sink"}


@pytest.mark.parametrize("event_class", EVENT_CLASSES)
def test_every_field_is_classified(event_class: type[AuditEvent]) -> None:
    for name in field_names(event_class):
        assert name in FIELD_RULES, f"classify {name} in FIELD_RULES"
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert name not in CHAIN_MEMBERS


def test_no_rule_is_left_over() -> None:
    used = {name for each in EVENT_CLASSES for name in field_names(each)}
    assert set(FIELD_RULES) == used


def test_a_field_that_nobody_classified_is_secret() -> None:
    assert field_rule("patient_name").classification is Classification.SECRET


def test_what_leads_to_a_person_is_not_public() -> None:
    for name in ("sop_instance_uid", "operator", "address", "detail", "calling_ae_title"):
        assert field_rule(name).classification is Classification.SENSITIVE


def test_only_details_and_identifiers_of_queries_may_be_long() -> None:
    assert field_rule("detail").max_characters == 1024
    assert field_rule("identifier").max_characters == MAX_IDENTIFIER_CHARACTERS
    assert {rule.max_characters for name, rule in FIELD_RULES.items() if name not in ("detail", "identifier")} == {128}


def test_kinds_of_lists() -> None:
    assert field_rule("rule_ids").kind is Kind.TEXTS
    assert field_rule("deviations").kind is Kind.COUNTS
