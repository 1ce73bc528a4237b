"""A device's credential, kept by the agent, against a real enrolment server; the steps are taken one by one."""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dicomward.audit.event import EnrolmentChanged
from dicomward.enrolment.code import Code, make_code
from dicomward.enrolment.upkeep import LOOK_SECONDS
from dicomward.io.ca.local import load_certificates
from dicomward.io.edge import keeper as module
from dicomward.io.edge.codes import CodeBook
from dicomward.io.edge.keeper import Keeper, NotServed
from dicomward.io.enrolment.client import ClientError, LostAnswerError, RefusedByServerError
from dicomward.io.enrolment.enrolled import DeviceDirectory, fingerprint_of
from dicomward.settings.edge import EdgeEnrolment
from tests.directory_helpers import now
from tests.io.enrolment_place import Place, enrolment_place
from tests.io.world import Audit

SECONDS = 20.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with enrolment_place(tmp_path_factory.mktemp("keeper") / "gateway", queue=True) as made:
        yield made


class Kept:
    """A keeper, and what becomes of it; `days` is how far its clock is ahead."""

    def __init__(self, place: Place, path: Path, code: Code | None, *, ready: Callable[[], None], **root: Any) -> None:
        self.audit = Audit()
        self.days = 0
        self.directory = DeviceDirectory(path / "own")
        enrolment = EdgeEnrolment(server=place.url, ca=None, ca_sha256="", key_kind="ecdsa")
        self.keeper = Keeper(
            name="ct1",
            directory=self.directory,
            enrolment=replace(enrolment, **root),
            codes=CodeBook("ct1", path, code, path / "code"),
            ready=ready,
            audit=self.audit,
            clock=self._now,
            draw=lambda: 1.0,
        )

    def _now(self) -> datetime:
        return now() + timedelta(days=self.days)

    def step(self) -> float:
        return self.keeper._step(self.keeper._codes.current())

    def standing(self) -> object:
        return self.keeper.status()["standing"]

    def actions(self) -> list[str | None]:
        return [each.action for each in self.audit.events if isinstance(each, EnrolmentChanged)]


def kept(
    place: Place, path: Path, code: Code | None = None, *, ready: Callable[[], None] = lambda: None, **root: Any
) -> Kept:
    made = Kept(place, path, code, ready=ready, **root)
    made.keeper.load()
    return made


def test_code_brings_the_certificate_and_the_device_is_served(place: Place, tmp_path: Path) -> None:
    served: list[str] = []
    here = kept(place, tmp_path, place.invite("k1").code, ready=lambda: served.append("ct1"))
    assert not here.keeper.is_helpless
    assert here.step() == LOOK_SECONDS
    status = here.keeper.status()
    assert (status["standing"], status["problem"], status["text"]) == ("valid", False, "good for 89 days")
    assert str(status["not_after"])[:4].isdecimal()
    assert here.actions() == ["enrolled"]
    # It is served once, and the code is not used again.
    here.step()
    assert served == ["ct1"]
    assert here.directory.key.stat().st_mode & 0o777 == 0o600
    again = kept(place, tmp_path, here.keeper._codes._given)
    assert again.keeper.load()
    again.step()
    assert (again.standing(), again.actions()) == ("valid", [])


def test_device_that_can_not_be_served_yet_is_tried_again(place: Place, tmp_path: Path) -> None:
    problems = ["no key yet"]

    def ready() -> None:
        if problems:
            raise NotServed(problems.pop())

    here = kept(place, tmp_path, place.invite("k2").code, ready=ready)
    assert here.step() == 2.0
    assert (here.standing(), here.keeper.status()["text"]) == ("starting", "no key yet")
    here.step()
    assert here.standing() == "valid"


def test_renewal_at_its_time(place: Place, tmp_path: Path) -> None:
    here = kept(place, tmp_path, place.invite("k3").code)
    here.step()
    first = here.directory.current()
    here.days = 66
    here.step()
    assert here.directory.current() != first
    assert here.actions() == ["enrolled", "renewed"]
    assert here.keeper.status()["renewals"] == 1


def test_failing_renewal_alarms_and_is_tried_again_while_the_old_certificate_is_good(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = kept(place, tmp_path, place.invite("k4").code)
    here.step()
    here.days = 66

    def fail(*_arguments: object) -> None:
        raise LostAnswerError("nobody answers")

    with monkeypatch.context() as patched:
        patched.setattr(module, "renew", fail)
        pauses = [here.step() for _ in range(3)]
        assert pauses == [2.0, 4.0, 8.0]
        assert (here.standing(), here.keeper.status()["problem"]) == ("renewal-fails", True)
        alarms = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
        assert len(alarms) == 1
        assert alarms[0].startswith("ALARM ct1 (certificate): renewal-fails: nobody answers; the certificate is good")
        here.days = 91
        here.step()
        assert here.standing() == "ended"
    here.days = 66
    here.step()
    assert (here.standing(), here.actions()[-1]) == ("valid", "renewed")


def test_server_that_is_away_for_a_while_is_no_alarm(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = kept(place, tmp_path, place.invite("k12").code)
    here.step()
    here.keeper._looked_at = float("-inf")

    def fail(*_arguments: object) -> None:
        raise LostAnswerError("nobody answers")

    with monkeypatch.context() as patched:
        patched.setattr(module, "told_about", fail)
        assert [here.step() for _ in range(2)] == [2.0, 4.0]
    status = here.keeper.status()
    assert (status["standing"], status["problem"]) == ("valid", False)
    assert status["text"] == "good for 89 days; the enrolment server can't be asked: nobody answers"
    assert "ALARM" not in caplog.text
    assert caplog.text.count("can't be asked if everything is as before") == 1
    assert here.step() == LOOK_SECONDS
    assert here.keeper.status()["text"] == "good for 89 days"


def test_file_that_renewal_needs_and_that_is_damaged_is_an_alarm(place: Place, tmp_path: Path) -> None:
    here = kept(place, tmp_path, place.invite("k13").code)
    here.step()
    (here.directory.path / "enrol.json").write_text("{", "utf-8")
    here.step()
    assert (here.standing(), here.keeper.status()["problem"]) == ("renewal-fails", True)
    assert "can't be read" in str(here.keeper.status()["text"])


def test_renewal_that_is_held_is_told_and_asked_for_seldom(place: Place, tmp_path: Path) -> None:
    here = kept(place, tmp_path / "one", place.invite("k5").code)
    here.step()
    copy = tmp_path / "two" / "own"
    copy.mkdir(parents=True)
    for each in here.directory.path.iterdir():
        (copy / each.name).write_bytes(each.read_bytes())
    thief = kept(place, tmp_path / "two")
    thief.days = here.days = 66
    thief.step()
    assert thief.standing() == "valid"
    assert here.step() == 750.0
    assert here.standing() == "renewal-held"
    assert "renewal list" in str(here.keeper.status()["text"])


def test_wrong_code_is_said_once_and_another_one_brings_the_certificate(place: Place, tmp_path: Path) -> None:
    good = place.invite("k6").code
    wrong = Code(good.selector, make_code(bytes(range(14)), b"x").secret, good.pin)
    here = kept(place, tmp_path, wrong)
    here.step()
    assert here.standing() == "code-refused"
    assert "the name or the code is wrong" in str(here.keeper.status()["text"])
    assert here.keeper._codes.current() is None
    assert here.step() == LOOK_SECONDS
    assert here.standing() == "code-refused"
    (tmp_path / "code").write_text(good.text)
    here.step()
    assert here.standing() == "valid"
    assert not (tmp_path / "code").exists()


def test_new_code_replaces_the_certificate_and_a_bad_one_changes_nothing(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = kept(place, tmp_path, place.invite("k7").code)
    here.step()
    first = here.directory.current()
    used = place.invite("k8")
    assert place.enrol(used).status == 200
    (tmp_path / "code").write_text(used.code.text)
    here.step()
    assert (here.standing(), here.directory.current()) == ("valid", first)
    assert "the new code brought nothing, the old one stays" in caplog.text
    (tmp_path / "code").write_text(place.invite("k7").code.text)
    here.step()
    assert here.standing() == "valid"
    assert here.directory.current() != first


@pytest.mark.parametrize("by", ["ca", "ca_sha256"])
def test_request_without_a_code_waits_for_its_approval(place: Place, tmp_path: Path, by: str) -> None:
    (root,) = load_certificates(place.root)
    root_of: dict[str, Any] = {by: place.root if by == "ca" else fingerprint_of(root).hex()}
    here = kept(place, tmp_path, None, **root_of)
    assert not here.keeper.is_helpless
    assert here.step() == 2.0
    assert (here.standing(), here.keeper.status()["problem"]) == ("waits-for-approval", False)
    assert here.directory.is_asking
    # It is the same request that is asked about.
    text = here.keeper.status()["text"]
    here.step()
    assert here.keeper.status()["text"] == text


def test_device_that_is_not_confirmed_yet_says_so(tmp_path: Path) -> None:
    with enrolment_place(tmp_path / "gateway", confirm=True) as place:
        served: list[str] = []
        here = kept(place, tmp_path, place.invite("k11").code, ready=lambda: served.append("ct1"))
        here.step()
        assert (here.standing(), here.keeper.status()["problem"]) == ("waits-for-confirmation", False)
        assert "`dicomward device confirm`" in str(here.keeper.status()["text"])
        # C-ECHO works, and what is stored waits in the spool.
        assert served == ["ct1"]


def test_rejected_request_is_not_repeated(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = kept(place, tmp_path, ca=place.root)

    def rejected(*_arguments: object, **_more: object) -> None:
        raise RefusedByServerError(403, "the request was rejected")

    with monkeypatch.context() as patched:
        patched.setattr(module, "ask_for_approval", rejected)
        assert here.step() == LOOK_SECONDS
    assert here.standing() == "rejected"
    assert here.step() == LOOK_SECONDS
    assert here.standing() == "rejected"


def test_without_a_code_it_says_what_to_do(place: Place, tmp_path: Path) -> None:
    here = kept(place, tmp_path)
    here.step()
    assert here.standing() == "no-code"
    assert "start with --code ct1=CODE" in str(here.keeper.status()["text"])
    here.keeper._codes._file = None
    assert here.keeper.is_helpless


def test_server_that_is_away_or_another_one_gets_no_code(place: Place, tmp_path: Path) -> None:
    here = kept(place, tmp_path, make_code(bytes(14), b"another CA"))
    here.step()
    assert here.standing() == "enrolling"
    assert "nothing of the code was sent" in str(here.keeper.status()["text"])
    pinned = kept(place, tmp_path / "pinned", ca_sha256="ab" * 32)
    pinned.step()
    assert "does not have the CA that `ca_sha256` pins" in str(pinned.keeper.status()["text"])
    with pytest.raises(ClientError, match=r"\[enrolment\] ca: "):
        kept(place, tmp_path / "none", ca=tmp_path / "none.pem")


def test_other_cas_of_the_server_are_trusted_from_then_on(place: Place, tmp_path: Path) -> None:
    here = kept(place, tmp_path, place.invite("k9").code)
    here.step()
    cas = here.directory.ca.read_bytes()
    # What the server had before: of its CAs only the root.
    here.directory.ca.write_bytes(place.root.read_bytes())
    here.keeper._looked_at = float("-inf")
    here.step()
    assert here.directory.ca.read_bytes() == cas


def test_lost_answer_is_asked_for_again(place: Place, tmp_path: Path) -> None:
    here = kept(place, tmp_path)
    certificate = load_certificates(place.root)[0]
    asked: list[bool] = []

    def ask(is_repeated: bool) -> object:
        asked.append(is_repeated)
        if len(asked) < 3:
            raise LostAnswerError("lost")
        return certificate

    assert here.keeper._insist(ask) is certificate  # type: ignore[arg-type]
    assert asked == [False, True, True]


def test_thread_goes_on_after_a_defect_and_ends_when_asked(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served = threading.Event()
    defects = ["a defect"]

    def ready() -> None:
        if defects:
            raise ValueError(defects.pop())
        served.set()

    here = kept(place, tmp_path, place.invite("k10").code, ready=ready)
    here.keeper.start()
    assert served.wait(SECONDS)
    here.keeper.stop()
    assert not here.keeper._thread.is_alive()
    assert "keeping the certificate failed" in caplog.text
