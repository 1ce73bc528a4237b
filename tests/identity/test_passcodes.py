"""The passcode file: hashes that only the right passcode fits."""

import pytest

from dicomward.identity.passcodes import (
    PasscodeRecord,
    Passcodes,
    PasscodesError,
    hash_passcode,
    is_passcode,
    parse_passcodes,
    render_passcodes,
    verify_new_passcode,
)
from dicomward.identity.person import MOST_GROUPS

SALT = bytes(range(16))
HASH = hash_passcode(b"correct horse", SALT)
ANNA = PasscodeRecord(name="anna", hash=HASH, groups=("readers", "night"))
BERT = PasscodeRecord(name="bert", hash=HASH)


def test_only_the_right_passcode_fits() -> None:
    assert is_passcode(HASH, b"correct horse")
    assert is_passcode(HASH, b"correct horse ")
    assert is_passcode(HASH, b"correct horse\0")
    assert not is_passcode(HASH, b"correct hors")
    assert not is_passcode(HASH, b"")
    assert hash_passcode(b"correct horse", SALT[::-1]) != HASH


def test_a_hash_is_never_shown() -> None:
    assert HASH not in repr(ANNA)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plaintext",
        HASH.replace("scrypt", "md5"),
        HASH.replace("$32768$", "$16$"),
        HASH.replace("$32768$", "$32769$"),
        HASH.replace("$32768$", "$65536$"),
        HASH.replace("$32768$", "$x$"),
        HASH.replace("$8$", "$9$"),
        HASH.replace("$8$1$", "$8$2$"),
        HASH[:-4],
        HASH.rsplit("$", 2)[0] + "$$" + HASH.rsplit("$", 1)[1],
        HASH + "é",
    ],
)
def test_what_is_no_hash_of_ours_is_refused(text: str) -> None:
    with pytest.raises(PasscodesError, match="no hash of a passcode"):
        is_passcode(text, b"correct horse")


@pytest.mark.parametrize("passcode", [b"short", b"a" * 1025, b" spaces around ", b"12345678\0"])
def test_bad_new_passcodes_are_refused(passcode: bytes) -> None:
    with pytest.raises(PasscodesError):
        verify_new_passcode(passcode)


def test_good_new_passcodes_are_taken() -> None:
    verify_new_passcode("äöüäöüäö".encode())


def test_written_persons_are_read_again() -> None:
    both = Passcodes((ANNA, BERT))
    assert parse_passcodes(render_passcodes(both), source="people.toml") == both
    assert both.named("bert") == BERT
    assert both.named("carla") is None


def test_persons_come_change_and_go() -> None:
    both = Passcodes((ANNA,)).with_person(BERT)
    other = hash_passcode(b"another one", SALT)
    changed = both.with_hash("bert", other).named("bert")
    assert changed is not None
    assert changed.hash == other
    assert both.without("bert") == Passcodes((ANNA,))
    with pytest.raises(PasscodesError, match="'anna' is there twice"):
        both.with_person(ANNA)


@pytest.mark.parametrize("name", ["", "a" * 65, "a'b", 'a"b', "a\\b", " a", "a\n"])
def test_names_that_could_confuse_are_refused(name: str) -> None:
    with pytest.raises(PasscodesError, match="can't be a person's name"):
        PasscodeRecord(name=name, hash=HASH)
    with pytest.raises(PasscodesError, match="can't be a group's name"):
        PasscodeRecord(name="anna", hash=HASH, groups=(name,))


def test_groups_are_bounded() -> None:
    with pytest.raises(PasscodesError, match="more than"):
        PasscodeRecord(name="anna", hash=HASH, groups=tuple(f"g{i}" for i in range(MOST_GROUPS + 1)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version = ", "is not TOML"),
        ("", "needs version = 1"),
        ("version = 1\nx = 1", "knows"),
        ("version = 1\nperson = 1", r"start each with \[\[person\]\]"),
        ("version = 1\nperson = [1]", "a person has"),
        ('version = 1\n[[person]]\nname = "anna"\nhash = "x"\ngroups = []', "no hash"),
        (f'version = 1\n[[person]]\nname = "anna"\nhash = "{HASH}"\ngroups = [1]', "a person has"),
        (f'version = 1\n[[person]]\nname = "anna"\nhash = "{HASH}"\ngroups = []\nx = 1', "a person has"),
    ],
)
def test_broken_files_are_refused(text: str, says: str) -> None:
    with pytest.raises(PasscodesError, match=says):
        parse_passcodes(text, source="people.toml")
