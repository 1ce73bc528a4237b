"""Command fields, elements and statuses, against pydicom's and pynetdicom's tables."""

import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pynetdicom.dimse_messages import _COMMAND_SET_KEYWORDS
from pynetdicom.status import code_to_category

from dicomward.vocab.dimse import (
    C_CANCEL_RQ,
    NO_DATA_SET,
    OPERATION_BY_LABEL,
    RESPONSE_BIT,
    Element,
    Operation,
    Priority,
    Status,
    is_pending,
)


def test_every_operation_has_the_command_field_of_the_standard() -> None:
    assert {operation.label: operation.value for operation in Operation} == {
        "c-store": 0x0001,
        "c-get": 0x0010,
        "c-find": 0x0020,
        "c-move": 0x0021,
        "c-echo": 0x0030,
        "n-event-report": 0x0100,
        "n-get": 0x0110,
        "n-set": 0x0120,
        "n-action": 0x0130,
        "n-create": 0x0140,
        "n-delete": 0x0150,
    }
    assert {label: operation.label for label, operation in OPERATION_BY_LABEL.items()} == {
        operation.label: operation.label for operation in Operation
    }
    assert (C_CANCEL_RQ, RESPONSE_BIT, NO_DATA_SET) == (0x0FFF, 0x8000, 0x0101)
    assert {p.name: p.value for p in Priority} == {"MEDIUM": 0, "HIGH": 1, "LOW": 2}


def keyword(element: Element) -> str:
    words = {"UID": "UID", "ID": "ID", "OF": "Of", "SOP": "SOP"}
    return "".join(words.get(word, word.capitalize()) for word in element.name.split("_"))


@pytest.mark.parametrize("element", list(Element), ids=lambda element: element.name)
def test_elements_are_those_of_the_dictionary(element: Element) -> None:
    assert tag_for_keyword(keyword(element)) == element.value
    assert dictionary_VR(element.value)


def test_no_element_of_a_message_is_missing() -> None:
    named = {name for names in _COMMAND_SET_KEYWORDS.values() for name in names}
    assert named <= {keyword(element) for element in Element}


def test_pending() -> None:
    assert [status for status in range(0x10000) if is_pending(status)] == [0xFF00, 0xFF01]


@pytest.mark.parametrize(
    ("status", "category"),
    [
        (Status.SUCCESS, "Success"),
        (Status.REFUSED_NOT_AUTHORISED, "Failure"),
        (Status.RESOURCE_LIMITATION, "Failure"),
        (Status.DUPLICATE_INVOCATION, "Failure"),
        (Status.UNRECOGNISED_OPERATION, "Failure"),
        (Status.SOP_CLASS_NOT_SUPPORTED, "Failure"),
        (Status.SUBOPERATIONS_COMPLETE_WITH_FAILURES, "Warning"),
        (Status.CANCEL, "Cancel"),
        (Status.PENDING, "Pending"),
        (Status.PENDING_WITH_WARNING, "Pending"),
    ],
)
def test_statuses_mean_what_the_standard_says(status: Status, category: str) -> None:
    assert code_to_category(status) == category
