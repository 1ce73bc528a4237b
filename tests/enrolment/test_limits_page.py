"""docs/limits.md has the numbers of the code."""

from dicomward.enrolment.cmp_protection import MOST_ITERATIONS
from dicomward.enrolment.cmp_transactions import LIFE, MOST_OF_STRANGERS, MOST_TRANSACTIONS
from dicomward.enrolment.failures import FAILURES_A_MINUTE
from dicomward.enrolment.http import MOST_BODY_BYTES, MOST_HEAD_BYTES
from dicomward.enrolment.invitation import MOST_WRONG_GUESSES
from dicomward.enrolment.request import MOST_REQUEST_BYTES
from dicomward.io.enrolment.desk import MOST_WAITING, MOST_WAITING_OF_AN_ADDRESS, WAITING_DAYS
from dicomward.io.enrolment.http import MOST_CONNECTIONS, MOST_OF_AN_ADDRESS, REQUEST_SECONDS
from tests.docs.pages import read, section_of


def test_numbers_of_enrolment_are_documented() -> None:
    lines = section_of(read("limits.md"), "Enrolment").splitlines()
    numbers = [line.split("|")[2].strip() for line in lines if line.startswith("| ")][1:]
    assert numbers == [
        f"{number:,}"
        for number in (
            MOST_HEAD_BYTES,
            MOST_BODY_BYTES,
            MOST_REQUEST_BYTES,
            round(REQUEST_SECONDS),
            MOST_CONNECTIONS,
            MOST_OF_AN_ADDRESS,
            FAILURES_A_MINUTE,
            MOST_WRONG_GUESSES,
            MOST_WAITING,
            MOST_WAITING_OF_AN_ADDRESS,
            WAITING_DAYS,
            MOST_ITERATIONS,
            MOST_OF_STRANGERS,
            MOST_TRANSACTIONS,
            round(LIFE.total_seconds()),
        )
    ]
