"""The policy in force, and the record of a change."""

from pathlib import Path

import pytest

from dicomward.audit.event import PolicyChanged
from dicomward.io.gateway.policy_file import note_policy, read_policy, remember_policy
from dicomward.policy.load import PolicyError
from dicomward.policy.ready import default_policy_text


def test_read_policy_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(default_policy_text(), encoding="utf-8")
    assert read_policy(path).rules


def test_the_mark_that_editors_of_windows_put_in_front_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(default_policy_text(), encoding="utf-8-sig")
    assert read_policy(path).rules


def test_read_policy_names_the_file_of_a_broken_one(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("[[rule]]\nid = 1\n", encoding="utf-8")
    with pytest.raises(PolicyError, match=r"policy\.toml"):
        read_policy(path)


def test_file_that_is_no_text_is_a_broken_policy(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match=r"policy\.toml: it is not UTF-8 text"):
        read_policy(path)


def test_change_is_noted_once_with_its_operator(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(default_policy_text(), encoding="utf-8")
    first = read_policy(path)
    assert note_policy(first, tmp_path, "ada") == PolicyChanged(
        operator="ada", action="gateway started", policy_revision=first.revision, detail="before it: none"
    )
    # Until it is on record, it is noted again.
    assert note_policy(first, tmp_path, "ada") is not None
    remember_policy(first, tmp_path)
    assert note_policy(first, tmp_path, "ada") is None
    path.write_text(default_policy_text() + "\n# another\n", encoding="utf-8")
    changed = note_policy(read_policy(path), tmp_path, "bob")
    assert changed is not None
    assert (changed.operator, changed.detail) == ("bob", f"before it: {first.revision}")


def test_policy_that_cannot_be_remembered_is_noted_again(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(default_policy_text(), encoding="utf-8")
    policy = read_policy(path)
    (tmp_path / "policy.new").mkdir()
    remember_policy(policy, tmp_path)
    assert note_policy(policy, tmp_path, "ada") is not None
