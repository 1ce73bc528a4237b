"""A day is observed, the rules are suggested and enforced: no legitimate operation is refused, the attacks all are."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.real.clients import Dcmtk, Outcome, Pynetdicom, Route
from tests.real.gateway import Gateway
from tests.real.hospital import Hospital
from tests.real.recording_archive import RecordingArchive
from tests.real.samples import sample
from tests.real.site import ARCHIVE
from tests.real.test_services import _procedure_step

STUDY = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "", "PatientID": "1CT1"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """A gateway whose policy allows nothing at all."""
    directory = tmp_path_factory.mktemp("observe")
    with ExitStack() as stack:
        archive = stack.enter_context(RecordingArchive(ARCHIVE))
        gateway = Gateway(directory / "gateway", archive=ARCHIVE, archive_port=archive.port)
        stack.callback(gateway.stop)
        (gateway.directory / "policy.toml").write_text("version = 1\n")
        gateway.start()
        yield Hospital(archive, gateway, stack)


def day(route: Route) -> list[Callable[[], bool]]:
    """What the device does on an ordinary day, each with whether it worked."""

    def worked(outcome: Outcome) -> bool:
        return outcome.succeeded

    return [
        lambda: worked(Dcmtk().echo(route)),
        lambda: worked(Dcmtk().worklist(route)),
        lambda: _procedure_step(route, "1.2.826.0.1.3680043.10.543.77.1")[0][0] in (0x0000, 0x0111),
        lambda: worked(Dcmtk().store(route, [sample("CT_small.dcm")])),
        lambda: worked(Dcmtk().find(route, STUDY)),
        lambda: worked(Pynetdicom().get(route, "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322")),
    ]


def attacks(route: Route) -> list[Callable[[], Outcome]]:
    """What it never does, and what somebody would do who has its key."""
    return [
        lambda: Dcmtk().find(route, {"QueryRetrieveLevel": "PATIENT", "PatientID": "*"}),
        lambda: Dcmtk().move(route, "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322", "THIEF"),
        lambda: Dcmtk().store(route, [sample("MR_small.dcm")]),
    ]


def denials(gateway: Gateway) -> list[dict[str, Any]]:
    """Return what was refused to the device, associations and operations."""
    found = [gateway.audit("--code", code, "--device", "ct1") for code in ("DW-ASSOC-DENY", "DW-OP-DENY")]
    return [*found[0], *found[1]]


def test_observe_suggest_enforce(here: Hospital) -> None:
    gateway = here.gateway
    route = here.device("ct1", "CT1", role="modality")
    other = here.device("ct2", "CT2", role="modality")
    assert not Dcmtk().echo(route).succeeded
    gateway.must("device", "observe", "ct1", "--until", "1d")
    assert all(step() for step in day(route))
    assert not Dcmtk().echo(other).succeeded
    observed = {(each.get("operation"), each["reason"]) for each in gateway.audit("--code", "DW-OBSERVED")}
    assert {(None, "no-matching-rule"), ("c-store", "no-matching-rule"), ("c-find", "no-matching-rule")} <= observed
    suggested = gateway.directory.parent / "suggested.toml"
    gateway.must("policy", "suggest", "--device", "ct1", "--out", suggested)
    gateway.must("policy", "check", suggested)
    (gateway.directory / "policy.toml").write_text(suggested.read_text("utf-8"), "utf-8")
    gateway.must("reload")
    gateway.must("device", "enforce", "ct1")
    before = len(gateway.audit("--code", "DW-OBSERVED"))
    assert all(step() for step in day(route))
    refused = denials(gateway)
    # Only the C-ECHO before it was observed.
    assert [each["reason"] for each in refused] == ["no-permitted-context"]
    for attack in attacks(route):
        outcome = attack()
        # DCMTK's exit code says nothing of a refused query, nor of a context that it didn't get.
        assert not any(status.startswith("Success") for status in outcome.statuses), outcome
        assert not outcome.matches
    assert {each["reason"] for each in denials(gateway)} >= {"query-level-not-allowed", "no-permitted-context"}
    assert not Dcmtk().echo(other).succeeded
    assert len(gateway.audit("--code", "DW-OBSERVED")) == before
