"""Abuse from devices: all is survived, others are served meanwhile, memory stays, and the archive sees none of it."""

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.abuse.answer_cases import ANSWERED, Answered
from tests.abuse.hold import CONTEXTS, Hold
from tests.abuse.place import Place, place
from tests.abuse.run import FAMILIES, cases
from tests.abuse.transcript import Transcript
from tests.real import raw_peer as raw

FEWEST_CASES = 150
PEAK_MIB, END_MIB = 64.0, 20.0


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("abuse")) as running:
        yield running


def test_there_are_enough_cases() -> None:
    assert sum(1 for _ in cases()) >= FEWEST_CASES


# cryptography and pydicom warn about the values of certificates and queries, which are odd on purpose.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_survived(here: Place, family: str) -> None:
    table = here.run(family)
    assert not table.hung, table.hung
    assert not table.slow, table.slow
    assert table.peak_mib - table.start_mib <= PEAK_MIB, table
    assert table.end_mib - table.start_mib <= END_MIB, table
    assert here.tap.associations
    assert here.breaches == []
    # Nothing of it was a defect of ours.
    assert "internal-error" not in here.gateway.reasons()


def _answer(here: Place, each: Answered) -> str:
    """Say it, and return what comes; what ends well is released, so that nothing unread is left out."""
    with ExitStack() as stack:
        device = stack.enter_context(raw.connect(here.abuser))
        transcript = Transcript(device.socket)
        if each.associated:
            device.send(raw.request_on(here.abuser, CONTEXTS))
            assert transcript.next(1) == "AC 1:0 3:0 5:1 7:3"
        # It may be answered, and closed, before all of it is said.
        with contextlib.suppress(OSError):
            for part in each.says(Hold(here.abuser, stack)):
                device.send(part)
        count = each.answer.count("|") + 1
        answer = transcript.next(count)
        if answer != each.answer or answer.endswith("EOF"):
            return answer
        device.send(raw.pdu(raw.RELEASE_RQ, bytes(4)))
        end = transcript.next(2)
        return answer if end == "RELEASE-RP | EOF" else f"{answer} | {end}"


def test_what_is_answered_is_answered_by_the_standard(here: Place) -> None:
    answers = {name: _answer(here, each) for name, each in ANSWERED.items()}
    assert answers == {name: each.answer for name, each in ANSWERED.items()}
    assert here.breaches == []
    # Each abort on an association is on record, with its reason.
    aborted = [each for each in ANSWERED.values() if each.associated and each.answer.startswith("ABORT")]
    ends = here.gateway.audit("--code", "DW-ASSOC-END", "--device", "abuser")
    reasons = [str(end.get("reason")) for end in ends]
    assert sum(reasons.count(each) for each in ("malformed-pdu", "unexpected-pdu", "limit-exceeded")) >= len(aborted)
