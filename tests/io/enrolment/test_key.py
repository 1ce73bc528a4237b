"""The enrolment key: made once, private, and what is sealed with it opens with it alone."""

import base64
from pathlib import Path

import pytest

from dicomward.io.enrolment.key import EnrolmentKeyError, load_enrolment_key, open_secret, seal_secret


def test_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "enrolment.key"
    key = load_enrolment_key(path, create=True)
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_enrolment_key(path, create=True) == load_enrolment_key(path) == key


def test_missing_open_and_broken_keys_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "enrolment.key"
    with pytest.raises(EnrolmentKeyError, match="can't be read"):
        load_enrolment_key(path)
    for content in (b"???", base64.b64encode(b"short")):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(EnrolmentKeyError, match="holds no enrolment key"):
            load_enrolment_key(path)
    path.chmod(0o640)
    with pytest.raises(EnrolmentKeyError, match="others than its owner"):
        load_enrolment_key(path)
    (tmp_path / "file").touch()
    with pytest.raises(EnrolmentKeyError, match=r"can't be (written|read)"):
        load_enrolment_key(tmp_path / "file" / "enrolment.key", create=True)


def test_secret_is_bound_to_key_and_invitation() -> None:
    sealed = seal_secret("SECRET", bytes(32), "ABCDE")
    assert "SECRET" not in sealed
    assert open_secret(sealed, bytes(32), "ABCDE") == "SECRET"
    assert sealed != seal_secret("SECRET", bytes(32), "ABCDE")
    for key, invitation in ((bytes(31) + b"x", "ABCDE"), (bytes(32), "ABCDF")):
        with pytest.raises(EnrolmentKeyError, match="another enrolment key"):
            open_secret(sealed, key, invitation)
