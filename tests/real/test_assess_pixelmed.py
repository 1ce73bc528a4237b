"""PixelMed's servers, open, half open and closed: each verdict is right, and its own client is not disturbed."""

from pathlib import Path

import pytest

from tests.real.clients import Route
from tests.real.pixelmed import PixelmedArchive, PixelmedReceiver
from tests.real.pixelmed_client import PixelmedClient
from tests.real.pki import Authority
from tests.real.test_assess import OPERATIONS, assess, echo, good_echoes, running, verdicts

pytestmark = pytest.mark.real


def test_archive_whose_title_is_known_is_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(PixelmedArchive("PIXELMED", tmp_path / "data")) as server:
        route = Route(port=server.port, calling_ae_title="GOOD", called_ae_title="PIXELMED")
        alone = max(echo(route) for _ in range(5))
        with good_echoes(route) as took:
            seen = assess(tmp_path, capsys, server.port, more='called_ae_titles = ["PIXELMED"]')[server.port]
        assert len(took) > 2
        # A busy machine may need as long without us.
        assert max(took) < max(1.0, 2 * alone), (alone, took)
        assert PixelmedClient().echo(route).succeeded
    found = verdicts(seen)
    assert {each: found[each] for each in OPERATIONS} == {**dict.fromkeys(OPERATIONS, "FAIL"), "worklist": "PASS"}
    assert (found["calling-ae-title"], found["called-ae-title"], found["tls-required"]) == ("FAIL", "PASS", "FAIL")
    assert (seen["product"]["product"], seen["product"]["vendor"]) == ("PixelMed", "PixelMed")


def test_archive_whose_title_nobody_told_is_not_certainly_closed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(PixelmedArchive("PIXELMED", tmp_path / "data")) as server:
        found = verdicts(assess(tmp_path, capsys, server.port)[server.port])
    assert {found[each] for each in OPERATIONS} == {"INCONCLUSIVE"}
    assert (found["called-ae-title"], found["calling-ae-title"]) == ("PASS", "INCONCLUSIVE")


def test_receiver_is_half_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(PixelmedReceiver("STORE", tmp_path / "data")) as server:
        seen = assess(tmp_path, capsys, server.port, more='called_ae_titles = ["STORE"]')[server.port]
        found = verdicts(seen)
        assert server.kept() == []
    assert (found["echo"], found["worklist"]) == ("FAIL", "PASS")
    # It accepts contexts for everything and hangs up at a query without a word: its contexts prove nothing.
    assert {found[each] for each in ("find", "get", "move", "store", "storage-contexts")} == {"INCONCLUSIVE"}


def test_receiver_in_tls_wants_no_client_certificate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    credentials = Authority("CA", tmp_path / "ca").issue("pacs", key="rsa")
    with running(PixelmedReceiver("STORE", tmp_path / "data", credentials=credentials)) as server:
        more = f'ca_file = "{credentials.authority}"\ncalled_ae_titles = ["STORE"]'
        seen = assess(tmp_path, capsys, server.port, more=more)[server.port]
    found = verdicts(seen)
    assert seen["protocol"] == "dimse-tls"
    assert (found["tls-required"], found["client-certificate"], found["certificate-chain"]) == ("PASS", "FAIL", "PASS")
    assert (found["echo"], found["find"]) == ("FAIL", "INCONCLUSIVE")
