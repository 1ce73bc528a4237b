"""No limit of counting can be switched off, and the page lists them all."""

from dataclasses import fields

import pytest

from dicomward.assess.count_limits import CountLimits
from tests.docs.pages import read, rows_of, section_of


def test_a_limit_cannot_be_switched_off() -> None:
    with pytest.raises(ValueError, match="slice_seconds must be at least 1"):
        CountLimits(slice_seconds=0)


def test_page_lists_every_limit() -> None:
    limits = CountLimits()
    expected = [
        (f"`{item.name}`", f"{getattr(limits, item.name):,}", item.metadata["reason"]) for item in fields(CountLimits)
    ]
    assert rows_of(section_of(read("assessment-classes.md"), "What counting may cost")) == expected
