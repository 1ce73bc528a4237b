"""What `dicomward bypass` asks of a keeper, and what it hears. The other half: tests/cli/test_bypass.py."""

from pathlib import Path

import pytest

from dicomward.io.bypass_commands import change_bypass, list_bypasses
from dicomward.io.control import SOCKET_NAME
from tests.directory_helpers import copy_directory
from tests.io.bypass_helpers import Ward


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


def test_list_falls_back_to_the_files_when_the_gateway_does_not_answer(tmp_path: Path) -> None:
    settings = copy_directory(tmp_path / "gateway")
    settings.gateway.state_directory.mkdir(exist_ok=True)
    (settings.gateway.state_directory / SOCKET_NAME).mkdir()
    listed = list_bypasses(settings)
    assert listed.bypasses == ()
    assert (listed.gateway_runs, len(listed.problems)) in ((False, 0), (False, 1))
