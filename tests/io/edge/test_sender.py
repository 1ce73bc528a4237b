"""What becomes of each object that waits, with an archive that answers as it is told."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from dicomward.edge.queue import Waiting
from dicomward.io.edge import sender
from dicomward.io.edge.committer import Committer
from dicomward.io.edge.learned import Learned
from dicomward.io.edge.link import Link, LinkDown, Response
from dicomward.io.edge.sender import Line, Senders
from dicomward.io.edge.spool import Found, Spool
from dicomward.io.edge.spool_keys import KeyUnavailable
from dicomward.io.edge.spool_seal import Description
from tests.io.edge.place import WHO, files, make_spool, put


class _Archive:
    """Answers C-STOREs with the statuses it is given, then with success; it can be away."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.stored: list[bytes] = []
        self.statuses: list[int] = []
        self.is_away = False
        self.refuses: set[str] = set()
        self.links = 0

    def connect(self, *, calling_ae_title: str, called_ae_title: str, proposed: Any) -> Link:
        if self.is_away:
            raise LinkDown("no route")
        self.links += 1
        return cast("Link", _Link(self, (calling_ae_title, called_ae_title), proposed))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, 20)


class _Link:
    window, has_room, in_flight = 1, False, 0

    def __init__(self, archive: _Archive, titles: tuple[str, str], proposed: Any) -> None:
        self.titles = titles
        pairs = {(each.abstract_syntax, each.transfer_syntaxes[0]): each.context_id for each in proposed}
        self.contexts = {pair: number for pair, number in pairs.items() if pair[0] not in archive.refuses}
        self.refused = pairs.keys() - self.contexts.keys()
        self._archive = archive
        self._number = 0

    def store(self, description: Description, pieces: Iterator[tuple[bytes, bool]]) -> int:
        data = b"".join(piece for piece, _last in pieces)
        if self._archive.is_away:
            raise LinkDown("cut")
        self._number += 1
        with self._archive.changed:
            self._archive.stored.append(data)
        return self._number

    def responses(self, *, wait: bool) -> Iterator[Response]:
        with self._archive.changed:
            status = self._archive.statuses.pop(0) if self._archive.statuses else 0
            self._archive.changed.notify_all()
        yield Response(self._number, status)

    def release(self) -> None:
        """Nothing to do."""

    close = release


@pytest.fixture
def archive() -> _Archive:
    return _Archive()


class _Place:
    def __init__(self, directory: Path, archive: _Archive) -> None:
        self.directory, self.archive = directory, archive
        self.spool: Spool = make_spool(directory)
        self.key_is_here = True
        learned = Learned(directory / "accepted.json", archive.connect)
        self.senders = Senders(
            name="ct1",
            spool=self.spool,
            learned=learned,
            connect=archive.connect,
            prepare=self._prepare,
            line=Line(((0, 1440, 1 << 30),)),
            associations=2,
            newest_first=False,
        )

    def _prepare(self) -> None:
        if not self.key_is_here:
            raise KeyUnavailable("the key is not here")

    def put(self, **changes: str) -> Waiting:
        waiting = put(self.spool, replace(WHO, **changes), b"data")
        self.senders.add(waiting)
        return waiting

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = threading.Event()
        for _ in range(2000):
            if condition():
                return
            deadline.wait(0.01)
        raise AssertionError("it does not happen")


@pytest.fixture
def place(tmp_path: Path, archive: _Archive) -> Iterator[_Place]:
    made = _Place(tmp_path, archive)
    yield made
    made.senders.stop(5.0)


def test_delivered_is_deleted_and_counted(place: _Place) -> None:
    found = put(place.spool, WHO, b"one")
    place.senders.start(Found(ready=(found,)))
    place.put()
    assert place.senders.wait_until_delivered(20)
    assert sorted(place.archive.stored) == [b"data", b"one"]
    assert files(place.directory, "ready") == []
    assert (place.senders.delivered, place.senders.waiting, place.senders.oldest()) == (2, 0, None)


def test_what_may_pass_is_tried_again_and_what_may_not_is_set_aside(
    place: _Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "retry_seconds", lambda _failures: 0.01)
    place.archive.statuses = [0xA700, 0x0110, 0xC000]
    place.senders.start(Found())
    place.put()
    place.wait(lambda: place.senders.set_aside == 1)
    assert len(place.archive.stored) == 3
    assert (len(files(place.directory, "quarantine")), files(place.directory, "ready")) == (1, [])
    # A device isn't kept waiting for it.
    assert place.senders.wait_until_delivered(0.0)


def test_line_that_is_down_is_tried_again(place: _Place) -> None:
    place.archive.is_away = True
    place.senders.start(Found())
    waiting = place.put()
    place.wait(lambda: place.senders.problem == "no route")
    assert not place.senders.wait_until_delivered(0.01)
    assert place.senders.oldest() == waiting.received
    assert place.senders.mark_overdue(waiting.received + 1) == 1
    assert place.senders.mark_overdue(waiting.received + 1) == 1
    place.archive.is_away = False
    place.senders.retry([])
    place.wait(lambda: place.senders.delivered == 1)
    place.wait(lambda: place.senders.problem == "")
    assert files(place.directory, "quarantine") == []
    assert place.senders.mark_overdue(waiting.received + 1) == 0


def test_without_the_key_everything_waits(place: _Place) -> None:
    place.key_is_here = False
    place.senders.start(Found())
    place.put()
    place.wait(lambda: place.senders.problem == "the key is not here")
    assert len(files(place.directory, "ready")) == 1
    place.key_is_here = True
    place.wait(lambda: place.senders.delivered == 1)


def test_class_that_is_no_longer_accepted_and_damage_are_set_aside(place: _Place, tmp_path: Path) -> None:
    place.archive.refuses = {"1.9"}
    refused = put(place.spool, replace(WHO, sop_class_uid="1.9"), b"data")
    damaged = put(place.spool, WHO, b"x" * 200_000)
    path = tmp_path / "spool" / "ready" / damaged.name
    path.write_bytes(path.read_bytes()[:-1])
    gone = put(place.spool, WHO, b"data")
    (tmp_path / "spool" / "ready" / gone.name).unlink()
    place.senders.start(Found(ready=(refused, damaged, gone)))
    place.wait(lambda: place.senders.waiting == 0)
    assert files(tmp_path, "quarantine") == sorted([refused.name, damaged.name])
    assert place.senders.set_aside == 2
    # An operator has it sent again.
    place.archive.refuses = set()
    (tmp_path / "spool" / "retry").write_text("1", "utf-8")
    taken = place.spool.retry_if_asked()
    assert taken is not None
    place.senders.retry([waiting for _device, waiting in taken if waiting.name == refused.name])
    place.wait(lambda: place.senders.delivered == 1)


def test_titles_of_another_object_need_another_association(place: _Place) -> None:
    first = put(place.spool, WHO, b"data")
    second = put(place.spool, replace(WHO, calling_ae_title="CT2"), b"data")
    place.senders.start(Found(ready=(first,), overdue=(second,)))
    place.wait(lambda: place.senders.delivered == 2)
    assert place.archive.links >= 2


def test_with_commitment_an_object_is_kept_after_it_has_arrived(place: _Place, tmp_path: Path) -> None:
    class _Committer:
        waiting = 0

        def __init__(self) -> None:
            self.added: list[Waiting] = []

        def start(self, found: object) -> None:
            self.added += cast("tuple[Waiting, ...]", found)

        def add(self, waiting: Waiting) -> None:
            self.added.append(waiting)

        def stop(self, seconds: float) -> None:
            self.seconds = seconds

    committer = _Committer()
    place.senders.committer = cast("Committer", committer)
    before = put(place.spool, WHO, b"one")
    place.spool.store(before)
    place.senders.start(Found(stored=(before,)))
    after = place.put()
    place.wait(lambda: len(committer.added) == 2)
    assert committer.added == [before, after]
    assert files(tmp_path, "stored") == sorted([before.name, after.name])
    place.senders.send_again(after)
    place.wait(lambda: len(place.archive.stored) == 2)
    place.wait(lambda: place.senders.delivered == 2)
    (tmp_path / "spool" / "stored" / before.name).unlink()
    place.senders.send_again(before)
    assert place.senders.waiting == 0


def test_what_was_stored_is_deleted_when_commitment_is_switched_off(place: _Place, tmp_path: Path) -> None:
    before = put(place.spool, WHO, b"one")
    place.spool.store(before)
    place.senders.start(Found(stored=(before,)))
    assert files(tmp_path, "stored") == []
