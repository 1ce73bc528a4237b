"""The statements for buyers and integrators: whole, and honest where the answer is no."""

import re
from typing import Final

from tests.docs.pages import read

SECTIONS: Final = (
    *("MPII", "ALOF", "AUDT", "AUTH", "CSUP", "DIDT", "DTBK", "EMRG", "IGAU", "MLDP", "NAUT", "CONN"),
    *("PAUT", "PLOK", "RDMP", "SBOM", "SAHD", "SGUD", "STCF", "TXCF", "TXIG", "RMOT", "OTHR"),
)


def rows(page: str) -> list[list[str]]:
    """Return the cells of every row of a page's tables."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")
    ]


def test_mds2_answers_every_section_once_and_in_order() -> None:
    found = [row[0] for row in rows(read("mds2.md")) if re.fullmatch("[A-Z]{4}", row[0])]
    assert tuple(found) == SECTIONS


def test_every_yes_names_where_it_is_shown() -> None:
    for row in rows(read("mds2.md")):
        if row[2].startswith("yes"):
            assert re.search(r"`tests/|\]\(", row[3]), row[0]


def test_atna_says_for_each_transaction_whether_it_is_claimed() -> None:
    table = [row for row in rows(read("ihe-atna.md")) if row[0].startswith("ITI-")]
    assert len(table) >= 8
    for row in table:
        assert re.match(r"(yes|no|grouped)\b", row[1]), row[0]
        if row[1].startswith("yes"):
            assert "`tests/" in row[2], row[0]
    assert any(row[1] == "no" for row in table)
