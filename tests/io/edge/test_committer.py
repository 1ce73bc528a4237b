"""What is deleted and what is sent again, with an archive that commits as it is told; and the association itself."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from dicomward.dicom.dimse import CommandSet
from dicomward.edge.commitment import Report, make_transaction_uid
from dicomward.edge.queue import Waiting
from dicomward.io.edge.commit_link import Asked, CommitLink, Reported
from dicomward.io.edge.committer import Committer, transaction_key
from dicomward.io.edge.link import LinkDown
from dicomward.io.edge.spool_keys import KeyUnavailable
from tests.io.edge.place import CT, files, make_spool, put, upstreams
from tests.real.site import ARCHIVE

KEY = bytes(32)
REPORT = CommandSet(command_field=0x0100, has_data_set=True, message_id=1)


class _Archive:
    """Answers each request with the next of `answers`: a status, or the failure reason of what it reports."""

    def __init__(self) -> None:
        self.is_offered = True
        self.is_away = False
        self.status = 0
        self.reasons: list[int | None] = []
        self.strange = False
        self.strange_transaction = "2.25.9"
        self.asked: list[str] = []
        self.answered: list[int] = []

    def connect(self, *, calling_ae_title: str, called_ae_title: str) -> CommitLink:
        if self.is_away:
            raise LinkDown("no route")
        assert (calling_ae_title, called_ae_title) == ("CT1", ARCHIVE)
        return cast("CommitLink", _Link(self))


class _Link:
    def __init__(self, archive: _Archive) -> None:
        self._archive = archive
        self.is_offered = archive.is_offered
        self._said: list[Asked | Reported] = []

    def ask(self, transaction_uid: str, references: list[tuple[str, str]]) -> int:
        archive = self._archive
        archive.asked.append(transaction_uid)
        reason = archive.reasons.pop(0) if archive.reasons else None
        uids = frozenset(uid for _sop_class, uid in references)
        report = Report(transaction_uid, frozenset() if reason else uids, dict.fromkeys(uids, reason) if reason else {})
        if archive.strange:
            self._said += [
                Reported(1, REPORT, None),
                Reported(1, REPORT, Report(archive.strange_transaction, uids, {})),
            ]
        elif archive.status == 0:
            # A report may be faster than the answer.
            self._said.append(Reported(1, REPORT, report))
        self._said.append(Asked(7, archive.status))
        return 7

    def listen(self, seconds: float) -> Asked | Reported | None:
        return self._said.pop(0) if self._said else None

    def answer(self, reported: Reported, status: int) -> None:
        self._archive.answered.append(status)

    def release(self) -> None:
        """Nothing to do."""

    close = release


class _Place:
    def __init__(self, directory: Path, mode: str) -> None:
        self.directory = directory
        self.archive = _Archive()
        self.spool = make_spool(directory)
        self.again: list[Waiting] = []
        self.key_is_here = True
        self.committer = Committer(
            name="ct1",
            spool=self.spool,
            connect=self.archive.connect,
            prepare=self._prepare,
            mode=mode,
            key=KEY,
            send_again=self.again.append,
            report_seconds=0.2,
            gather_seconds=0.05,
        )

    def _prepare(self) -> None:
        if not self.key_is_here:
            raise KeyUnavailable("the key is not here")

    def stored(self) -> Waiting:
        waiting = put(self.spool)
        self.spool.store(waiting)
        return waiting

    def wait(self, condition: Callable[[], bool]) -> None:
        pause = threading.Event()
        for _ in range(2000):
            if condition():
                return
            pause.wait(0.01)
        raise AssertionError("it does not happen")


@pytest.fixture(params=["if-offered"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[_Place]:
    made = _Place(tmp_path, request.param)
    yield made
    made.committer.stop(5.0)


def test_committed_is_deleted(place: _Place) -> None:
    found = place.stored()
    place.committer.start([found])
    assert place.committer.oldest() == found.received
    place.wait(lambda: place.committer.committed == 1)
    place.wait(lambda: place.committer.waiting == 0)
    assert files(place.directory, "stored") == []
    place.committer.add(place.stored())
    place.wait(lambda: place.committer.committed == 2)
    assert place.archive.answered == [0, 0]
    assert len(set(place.archive.asked)) == 2


def test_failed_is_sent_again(place: _Place) -> None:
    place.archive.reasons = [0x0112]
    waiting = place.stored()
    place.committer.start([waiting])
    place.wait(lambda: place.again == [waiting])
    assert place.committer.waiting == 0
    assert len(files(place.directory, "stored")) == 1


def test_class_without_commitment_counts_as_delivered(place: _Place) -> None:
    place.archive.reasons = [0x0122]
    place.committer.start([place.stored()])
    place.wait(lambda: place.committer.waiting == 0)
    assert files(place.directory, "stored") == []
    assert (place.again, place.committer.committed) == ([], 0)


@pytest.mark.parametrize("change", [{"is_offered": False}, {"status": 0x0124}])
def test_where_it_is_not_offered_the_answer_to_the_store_counts(place: _Place, change: dict[str, Any]) -> None:
    for name, value in change.items():
        setattr(place.archive, name, value)
    place.committer.start([place.stored()])
    place.wait(lambda: files(place.directory, "stored") == [])
    # It isn't asked each time.
    asked = len(place.archive.asked)
    place.committer.add(place.stored())
    place.wait(lambda: place.committer.waiting == 0)
    assert len(place.archive.asked) == asked


@pytest.mark.parametrize("place", ["required"], indirect=True)
def test_required_and_not_offered_is_kept(place: _Place) -> None:
    place.archive.is_offered = False
    place.committer.start([place.stored()])
    place.wait(lambda: "it is required" in place.committer.problem)
    assert len(files(place.directory, "stored")) == 1
    place.archive.is_offered = True
    place.wait(lambda: place.committer.committed == 1)
    place.wait(lambda: place.committer.problem == "")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"is_away": True}, "no route"),
        ({"status": 0x0110}, "the archive has answered 0110H"),
        ({"strange": True}, "has not reported yet"),
    ],
)
def test_without_a_report_it_is_kept(place: _Place, change: dict[str, Any], problem: str) -> None:
    for name, value in change.items():
        setattr(place.archive, name, value)
    place.committer.start([place.stored()])
    place.wait(lambda: problem in place.committer.problem)
    assert len(files(place.directory, "stored")) == 1
    if "strange" in change:
        # Reports of others are for others: the archive is not told that they were taken.
        assert set(place.archive.answered) == {0x0110}


def test_report_on_an_association_of_its_own_is_taken_whenever_it_comes(place: _Place) -> None:
    place.archive.strange = True
    waiting = place.stored()
    place.committer.start([waiting])
    place.wait(lambda: bool(place.archive.asked))
    (transaction,) = place.archive.asked
    report = Report("2.25.9", frozenset({CT.sop_instance_uid}), {})
    assert not place.committer.take(report)
    # It may overtake the answer to the request, or come in the pause between two associations.
    place.wait(lambda: place.committer.problem != "")
    assert place.committer.take(replace(report, transaction_uid=transaction))
    place.wait(lambda: place.committer.committed == 1)
    assert files(place.directory, "stored") == []


def test_own_report_from_before_the_start_is_not_the_devices(place: _Place) -> None:
    waiting = place.stored()
    place.committer.start([])
    old = make_transaction_uid(KEY, b"12345678")
    assert place.committer.take(Report(old, frozenset({CT.sop_instance_uid}), {}))
    assert not place.committer.take(Report(make_transaction_uid(bytes(range(32)), b"12345678"), frozenset(), {}))
    # It was answered, and changes nothing: what it was about is asked for anew.
    assert files(place.directory, "stored") == [waiting.name]


def test_key_of_transactions_is_made_once(tmp_path: Path) -> None:
    key = transaction_key(tmp_path / "ct1")
    assert len(key) == 32
    assert transaction_key(tmp_path / "ct1") == key
    path = tmp_path / "ct1" / "transactions.key"
    assert path.stat().st_mode & 0o777 == 0o600
    # Half of it was written when the power went.
    path.write_bytes(key[:5])
    assert len(transaction_key(tmp_path / "ct1")) == 32


def test_old_report_on_the_association_is_answered(place: _Place) -> None:
    place.archive.strange = True
    place.archive.strange_transaction = make_transaction_uid(KEY, b"12345678")
    place.committer.start([place.stored()])
    place.wait(lambda: len(place.archive.answered) >= 2)
    # One that can't be read, and one that is ours.
    assert place.archive.answered[:2] == [0x0110, 0]


def test_without_the_key_nothing_is_asked(place: _Place) -> None:
    place.key_is_here = False
    place.committer.start([place.stored()])
    place.wait(lambda: place.committer.problem == "the key is not here")
    place.key_is_here = True
    place.wait(lambda: place.committer.committed == 1)


def test_what_had_to_give_way_is_forgotten(place: _Place, caplog: pytest.LogCaptureFixture) -> None:
    place.archive.strange = True
    first = place.stored()
    place.committer.start([first])
    place.wait(lambda: "has not reported yet" in place.committer.problem)
    place.spool.committed(first)
    second = place.stored()
    place.spool.committed(second)
    place.committer.add(second)
    place.wait(lambda: place.committer.waiting == 0)
    assert "can't be asked for" not in caplog.text


def test_damaged_file_is_told_and_left(place: _Place, caplog: pytest.LogCaptureFixture) -> None:
    waiting = place.stored()
    path = place.directory / "spool" / "stored" / waiting.name
    path.write_bytes(path.read_bytes()[:40])
    place.committer.start([waiting])
    place.wait(lambda: place.committer.waiting == 0)
    assert "can't be asked for" in caplog.text
    assert path.exists()


def test_real_archive_reports_on_the_association(tmp_path: Path) -> None:
    with upstreams(tmp_path) as place:
        link = CommitLink(place.upstream, place.context, calling_ae_title="CT1", called_ae_title=ARCHIVE)
        assert link.is_offered
        number = link.ask("2.25.1", [(CT.sop_class_uid, CT.sop_instance_uid)])
        said = [link.listen(10), link.listen(10)]
        assert Asked(number, 0) in said
        (report,) = (each for each in said if isinstance(each, Reported))
        assert report.report == Report("2.25.1", frozenset({CT.sop_instance_uid}), {})
        link.answer(report, 0)
        assert link.listen(0.01) is None
        link.release()
        assert place.archive.wait_until(lambda: place.archive.report_statuses == [0])
