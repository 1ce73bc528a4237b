"""What becomes of an object after the archive's answer."""

import pytest

from dicomward.edge.outcome import Outcome, judge_status, retry_seconds


@pytest.mark.parametrize("status", [0x0000, 0x0001, 0x0107, 0x0111, 0x0116, 0xB000, 0xB006, 0xB007])
def test_archive_has_it(status: int) -> None:
    assert judge_status(status) is Outcome.DELIVERED


@pytest.mark.parametrize("status", [0xA700, 0xA7FF, 0x0110, 0x0213])
def test_it_is_tried_again(status: int) -> None:
    assert judge_status(status) is Outcome.RETRY


@pytest.mark.parametrize("status", [0x0122, 0x0124, 0xA900, 0xC000, 0xCFFF, 0x1234])
def test_refused_for_good_or_unknown_is_for_a_person(status: int) -> None:
    assert judge_status(status) is Outcome.REFUSED


def test_patience_grows_to_half_a_minute() -> None:
    assert [retry_seconds(each) for each in (0, 1, 2, 100)] == [0.5, 1.0, 2.0, 30.0]
