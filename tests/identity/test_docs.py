"""docs/identity.md names every reason that identity gives, in the order of the checks, and the code that is sent."""

import re
from pathlib import Path

import pytest

from dicomward.identity import identify
from dicomward.identity.operators import LEAST_ROLE, Permission
from dicomward.relay.refusals import reject_for
from dicomward.vocab.principal import Assurance
from dicomward.vocab.reason import ReasonCode
from tests.docs.pages import read, rows_of, section_of

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "identity.md").read_text(encoding="utf-8")
REASONS = {
    cells[0].strip("`"): cells[-1]
    for cells in (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in TEXT.partition("## Reasons")[2].splitlines()
        if line.startswith("| `")
    )
}


def test_every_reason_of_the_source_is_documented_and_no_other() -> None:
    source = Path(str(identify.__file__)).read_text(encoding="utf-8")
    given = {ReasonCode[name].value for name in re.findall(r"ReasonCode\.([A-Z_]+)", source)}
    assert set(REASONS) == given


@pytest.mark.parametrize(
    "reason", sorted(set(REASONS) - {"certificate-just-expired", "not-confirmed", "legacy-zone-over"})
)
def test_code_that_is_sent_is_documented_and_the_same_for_all(reason: str) -> None:
    reject = reject_for(ReasonCode(reason))
    code = f"RJ {int(reject.result)}/{int(reject.source)}/{int(reject.reason)}"
    assert REASONS[reason] == code == "RJ 1/1/3"


def test_assurance_levels_of_identity_are_documented() -> None:
    assert f"`{Assurance.TLS_DEVICE.label}`" in TEXT
    assert f"`{Assurance.NETWORK_PIN.label}`" in TEXT


def test_every_permission_has_its_row_with_its_least_role() -> None:
    rows = rows_of(section_of(read("operators.md"), "What each role may do"))
    assert {row[0].strip("`"): row[1] for row in rows} == {each.value: LEAST_ROLE[each].label for each in Permission}
