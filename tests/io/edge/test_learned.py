"""What the archive has accepted: asked once, kept in a file, and refusals for ten minutes only."""

from pathlib import Path
from typing import Any

import pytest

from dicomward.edge.contexts import Pair
from dicomward.io.edge.learned import Learned
from dicomward.io.edge.link import LinkDown

TITLES = ("CT1", "PACS")
TAKEN, NOT_TAKEN = ("1.2", "1.2.840.10008.1.2"), ("1.3", "1.2.840.10008.1.2")


class _Link:
    """What an archive would say that takes one class."""

    asked: list[int]

    def __init__(self, asked: list[int], proposed: Any) -> None:
        asked.append(len(proposed))
        pairs = {(each.abstract_syntax, each.transfer_syntaxes[0]): each.context_id for each in proposed}
        self.contexts = {pair: number for pair, number in pairs.items() if pair[0] == TAKEN[0]}
        self.refused: set[Pair] = pairs.keys() - self.contexts.keys()

    def release(self) -> None:
        """It has said what it knows."""


def learned(path: Path, asked: list[int]) -> Learned:
    def connect(*, calling_ae_title: str, called_ae_title: str, proposed: Any) -> Any:
        assert (calling_ae_title, called_ae_title) == TITLES
        return _Link(asked, proposed)

    return Learned(path / "accepted.json", connect)


def test_what_was_said_is_known_after_a_restart(tmp_path: Path) -> None:
    asked: list[int] = []
    first = learned(tmp_path, asked)
    assert first.known(TITLES) == {}
    first.ask(TITLES, [TAKEN, NOT_TAKEN])
    assert first.known(TITLES) == first.known_for_now(TITLES) == {TAKEN: True, NOT_TAKEN: False}
    again = learned(tmp_path, asked)
    assert again.known(TITLES) == {TAKEN: True, NOT_TAKEN: False}
    # Who was asked long ago may have learned something.
    assert again.known_for_now(TITLES) == {TAKEN: True}
    assert again.known(("CT2", "PACS")) == {}


def test_more_than_an_association_holds_is_asked_in_turns(tmp_path: Path) -> None:
    asked: list[int] = []
    learned(tmp_path, asked).ask(TITLES, [(f"1.4.{number}", TAKEN[1]) for number in range(200)])
    assert asked == [128, 72]


def test_what_a_device_was_accepted_is_known_from_then_on(tmp_path: Path) -> None:
    first = learned(tmp_path, [])
    first.note_accepted(TITLES, NOT_TAKEN)
    written = (tmp_path / "accepted.json").stat().st_mtime_ns
    first.note_accepted(TITLES, NOT_TAKEN)
    assert (tmp_path / "accepted.json").stat().st_mtime_ns == written
    assert learned(tmp_path, []).known(TITLES) == {NOT_TAKEN: True}


def test_archive_that_is_away_teaches_nothing(tmp_path: Path) -> None:
    def away(**_: Any) -> Any:
        raise LinkDown("no route")

    nothing = Learned(tmp_path / "accepted.json", away)
    with pytest.raises(LinkDown):
        nothing.ask(TITLES, [TAKEN])
    assert nothing.known(TITLES) == {}
