"""The passcode file as a source."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomward.identity.passcodes import PasscodeRecord, Passcodes, PasscodesError, hash_passcode
from dicomward.identity.person import Person, PersonClaim, PersonRefused, PersonUnavailable
from dicomward.io.people import file as module
from dicomward.io.people.file import PasscodeFile, read_passcodes, write_passcodes
from dicomward.vocab.association import UserIdentityType
from dicomward.vocab.reason import ReasonCode

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
ANNA = PasscodeRecord(name="anna", hash=hash_passcode(b"correct horse", bytes(16)), groups=("readers",))


def claim(name: str = "anna", secret: bytes = b"correct horse") -> PersonClaim:
    return PersonClaim(
        type=UserIdentityType.USERNAME_AND_PASSCODE, name=name, secret=secret, device="ws1", address="127.0.0.1"
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "people.toml"


def source(path: Path) -> PasscodeFile:
    return PasscodeFile(path, timedelta(hours=12))


def test_a_person_of_the_file_is_verified(path: Path) -> None:
    write_passcodes(path, Passcodes((ANNA,)))
    expected = Person(name="anna", groups=frozenset({"readers"}), until=NOW + timedelta(hours=12))
    assert source(path).verify(claim(), NOW) == expected
    refused = source(path).verify(claim(secret=b"wrong"), NOW)
    assert refused == PersonRefused(ReasonCode.USER_IDENTITY_REFUSED, "wrong name or passcode")


def test_somebody_else_is_left_to_others_and_takes_as_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_passcodes(path, Passcodes((ANNA,)))
    compared: list[str] = []
    monkeypatch.setattr(module, "is_passcode", lambda text, _secret: compared.append(text))
    assert source(path).verify(claim("bert"), NOW) is None
    assert len(compared) == 1


def test_the_file_comes_changes_and_goes_while_the_gateway_runs(path: Path) -> None:
    file = source(path)
    assert not file.is_configured()
    assert file.verify(claim(), NOW) is None
    write_passcodes(path, Passcodes((ANNA,)))
    assert file.is_configured()
    assert isinstance(file.verify(claim(), NOW), Person)
    write_passcodes(path, Passcodes(()))
    assert file.verify(claim(), NOW) is None
    path.unlink()
    assert not file.is_configured()


def test_nobody_can_tell_while_the_file_is_broken(path: Path) -> None:
    path.write_text("version =", encoding="utf-8")
    file = source(path)
    assert file.is_configured()
    assert isinstance(file.verify(claim(), NOW), PersonUnavailable)


def test_files_that_can_not_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"\xff")
    with pytest.raises(PasscodesError, match="can't be read"):
        read_passcodes(path)
    monkeypatch.setattr(module, "_MOST_BYTES", 0)
    with pytest.raises(PasscodesError, match="larger than"):
        read_passcodes(path)


def test_the_file_is_private(path: Path) -> None:
    write_passcodes(path, Passcodes((ANNA,)))
    assert os.stat(path).st_mode & 0o777 == 0o600
