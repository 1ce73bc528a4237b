import re
from pathlib import Path

import pytest

import dicomward.dicom
from dicomward.dicom.deviation import Deviation

SOURCES = Path(dicomward.dicom.__file__).parent


@pytest.mark.parametrize("deviation", Deviation)
def test_value_is_the_name_in_kebab_case(deviation: Deviation) -> None:
    assert deviation.value == deviation.name.lower().replace("_", "-")


def test_every_deviation_can_happen() -> None:
    used = "".join(path.read_text("utf-8") for path in SOURCES.glob("*.py") if path.name != "deviation.py")
    assert {name for name in Deviation.__members__ if not re.search(rf"Deviation\.{name}\b", used)} == set()
