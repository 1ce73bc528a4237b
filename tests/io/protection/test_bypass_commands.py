"""What `dicomward bypass` asks of a keeper, and what it hears. The other half: tests/cli/test_bypass.py."""

from pathlib import Path

import pytest

from dicomward.io.control import ControlError
from dicomward.io.protection.bypass_commands import change_bypass, list_bypasses, run_bypass
from dicomward.io.protection.bypass_keeper import BypassError
from dicomward.io.protection.bypass_store import write_bypass
from tests.directory_helpers import copy_directory
from tests.io.bypass_helpers import Ward
from tests.policy.test_bypass import bypass


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


def test_open_list_close_and_review(ward: Ward) -> None:
    opened = change_bypass(
        ward.keeper, {"action": "open", "site": "north", "minutes": 5, "reason": "x", "operator": "anna"}
    )
    assert (opened["ok"], opened["problem"]) == (True, "")
    bypass_id = "20260302-1"
    assert change_bypass(ward.keeper, {"action": "list"})["bypasses"] == [opened["bypass"]]
    assert change_bypass(ward.keeper, {"action": "close", "id": bypass_id, "operator": "anna"})["ok"] is True
    request = {"action": "review", "id": bypass_id, "operator": "anna", "note": "x"}
    assert change_bypass(ward.keeper, request)["ok"] is False
    assert change_bypass(ward.keeper, {**request, "is_only_operator": True})["ok"] is True


@pytest.mark.parametrize("request_", [{}, {"action": "widen"}, {"action": "close", "id": 7}, {"action": "open"}])
def test_what_is_no_request_is_refused(ward: Ward, request_: dict[str, object]) -> None:
    assert change_bypass(ward.keeper, request_)["ok"] is False
    assert ward.events == []


def test_gateway_that_does_not_answer_is_told_and_the_list_is_that_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: object) -> object:
        raise ControlError("the gateway did not answer: timed out")

    settings = copy_directory(tmp_path / "gateway")
    write_bypass(settings.gateway.state_directory, bypass())
    monkeypatch.setattr("dicomward.io.protection.bypass_commands.call", fails)
    listed = list_bypasses(settings)
    assert (listed.bypasses, listed.gateway_runs) == ((bypass(),), False)
    assert listed.problems == ("the gateway did not answer: timed out; this is what the files say",)
    with pytest.raises(BypassError, match="See `dicomward bypass list` for what is open"):
        run_bypass(settings, {"action": "close", "id": "20260302-1", "operator": "anna"})
