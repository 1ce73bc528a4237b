"""`[[canaries]]` and `[budgets]` in dicomward.toml."""

from pathlib import Path

import pytest

from dicomward.settings import SettingsError, parse_settings

SECRET = "ZZ-000017"


def test_canaries_are_read_as_texts_and_lists() -> None:
    settings = parse_settings(
        f"""
        [[canaries]]
        name = "vip"
        patient_id = "{SECRET}"
        [[canaries]]
        accession_number = ["A-1", " A-2 "]
        study_instance_uid = "1.2.3"
        """,
        path=Path("dicomward.toml"),
    )
    first, second = settings.canaries
    assert (first.name, first.patient_ids) == ("vip", (SECRET,))
    assert (second.name, second.accession_numbers, second.study_instance_uids) == (
        "canary 2",
        ("A-1", "A-2"),
        ("1.2.3",),
    )
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('canaries = "x"', "this is not a table"),
        ("canaries = [5]", "this is not a table"),
        ('[[canaries]]\npatient_ids = "x"', "did you mean 'patient_id'?"),
        ('[[canaries]]\nname = "x"', "nothing says which record the canary is"),
        ('[[canaries]]\nname = ""\npatient_id = "x"', "is not a name"),
        ("[[canaries]]\npatient_id = 5", "this is no text, and no list of texts"),
        ("[[canaries]]\npatient_id = []", "this is no text, and no list of texts"),
        (f'[[canaries]]\npatient_id = "{SECRET * 20}"', "write 1 to 64 characters"),
        (f'[[canaries]]\nname = "{SECRET}"\npatient_id = "{SECRET}"', "the name is one of its"),
        ('[[canaries]]\nname = "a"\npatient_id = "x"\n[[canaries]]\nname = "a"\npatient_id = "y"', "is there twice"),
    ],
)
def test_mistakes_are_named_without_the_value(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(text, path=Path("dicomward.toml"))
    assert message in str(caught.value)
    assert SECRET not in str(caught.value)


def test_budgets_are_read_and_mistakes_have_their_line() -> None:
    settings = parse_settings("[budgets.role.research]\npatients_per_day = 5\n", path=Path("dicomward.toml"))
    assert settings.budgets.for_device("x", "research").patients_per_day == 5
    with pytest.raises(SettingsError, match=r"dicomward.toml:2: budgets.patients_per_day: .*cannot be switched off"):
        parse_settings("[budgets]\npatients_per_day = 0\n", path=Path("dicomward.toml"))
    with pytest.raises(SettingsError, match="is not a table"):
        parse_settings("budgets = 5\n", path=Path("dicomward.toml"))
