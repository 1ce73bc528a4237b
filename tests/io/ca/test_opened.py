"""The issuing CA that issues now: a rollover is noticed, and what can't be opened issues nothing."""

from pathlib import Path

import pytest

from dicomward.io.ca.opened import OpenedCa
from dicomward.io.ca.sign import der_of, fingerprint_of
from dicomward.io.ca.terms import CaError
from tests.io.ca_helpers import NOW, PASSPHRASE, make_ca


def test_rollover_is_noticed_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ca = make_ca(tmp_path / "ca")
    opened = OpenedCa(ca.path)
    first = opened.current()
    assert opened.current() is first
    assert first.chain == (der_of(first.authority.certificate),)
    assert first.anchors[0] == der_of(ca.root)
    rolled = ca.roll_over(ca.open_root(PASSPHRASE), NOW)
    second = opened.current()
    assert second.issuer_sha256 == fingerprint_of(rolled.open().certificate)
    assert opened.current() is second
    assert "issuing-2 issues from now on" in caplog.text


def test_key_that_can_not_be_opened_issues_nothing_until_it_can(tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca")
    opened = OpenedCa(ca.path)
    ca.roll_over(ca.open_root(PASSPHRASE), NOW)
    key = ca.path / "issuing-2.key.pem"
    key.rename(tmp_path / "away")
    with pytest.raises(CaError, match="can't be read"):
        opened.current()
    (tmp_path / "away").rename(key)
    assert opened.current().directory.state.active.name == "issuing-2"


def test_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca")
    opened = OpenedCa(ca.path)
    (ca.path / "ca.json").unlink()
    with pytest.raises(CaError, match="bring it back, or make a CA"):
        opened.current()
