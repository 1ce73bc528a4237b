"""How fields are treated."""

from dicomward.audit.event import EVENT_CLASSES, field_names
from dicomward.audit.fields import FIELD_RULES, UNCLASSIFIED, Classification, field_rule


def test_every_field_of_every_event_is_classified() -> None:
    used = {name for event_class in EVENT_CLASSES for name in field_names(event_class)}
    assert used == FIELD_RULES.keys()


def test_a_field_that_nobody_classified_is_secret() -> None:
    assert field_rule("never heard of") is UNCLASSIFIED
    assert UNCLASSIFIED.classification is Classification.SECRET
