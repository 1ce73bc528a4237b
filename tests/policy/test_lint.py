from dicomward.policy.lint import RegisteredNames, find_unknown_names
from dicomward.vocab.dimse import Operation
from tests.policy.builders import allow, deny, policy

NAMES = RegisteredNames(devices={"CT1", "pacs"}, sites={"north"}, targets={"pacs"}, ae_titles={"CT1", "OR1"})


def test_names_of_the_registry_pass() -> None:
    rule = deny(
        "r",
        devices=frozenset({"CT1", "pacs"}),
        sites=frozenset({"north"}),
        archives=frozenset({"pacs"}),
        operations=frozenset({Operation.C_MOVE}),
        move_destinations=frozenset({"OR1"}),
    )
    assert find_unknown_names(policy(rule, allow("open")), NAMES) == ()


def test_every_unknown_name_is_a_warning_with_the_nearest_one() -> None:
    rule = deny(
        "r",
        devices=frozenset({"CT11"}),
        sites=frozenset({"elsewhere"}),
        archives=frozenset({"pcas"}),
        operations=frozenset({Operation.C_MOVE}),
        move_destinations=frozenset({"ZZZZ"}),
    )
    assert [(w.location, w.message, w.hint) for w in find_unknown_names(policy(rule), NAMES)] == [
        (', rule "r", device', 'the registry has no device or archive "CT11"', 'did you mean "CT1"?'),
        (', rule "r", site', 'the registry has no site "elsewhere"', "register it, or correct the rule"),
        (
            ', rule "r", archive',
            'the registry has no archive, or device with an address, "pcas"',
            'did you mean "pacs"?',
        ),
        (', rule "r", move_destination', 'the registry has no AE title "ZZZZ"', "register it, or correct the rule"),
    ]
