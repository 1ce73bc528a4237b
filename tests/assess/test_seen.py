"""What an association says of itself."""

from dataclasses import replace

from dicomward.assess.seen import DimseSeen
from tests.assess.builders import ACCEPTED, rejected


def test_reasons_of_rejections() -> None:
    assert rejected(1, 7).says_called
    assert rejected(1, 3).says_calling
    assert rejected(3, 1).says_busy
    assert not ACCEPTED.says_busy


def test_best_is_what_got_furthest() -> None:
    known = replace(ACCEPTED, called_ae_title="PACS")
    assert DimseSeen().best is None
    assert DimseSeen(hello=rejected(1, 7)).best == rejected(1, 7)
    assert DimseSeen(hello=rejected(1, 7), known=rejected(1, 3)).best == rejected(1, 3)
    assert DimseSeen(hello=rejected(1, 7), known=known).best is known
    assert DimseSeen(hello=rejected(1, 7), factory=(rejected(1, 7), known)).best is known
