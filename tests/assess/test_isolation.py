"""Judging what was seen of an archive's ports: an answer is an answer, and what could not tell is never a pass."""

import pytest

from dicomward.assess.isolation import (
    Observation,
    Place,
    Seen,
    Verdict,
    judge_archive,
    judge_port,
    worst,
)

ELSEWHERE = Place(gateway_runs_here=False, archive_is_here=False)
GATEWAY = Place(gateway_runs_here=True, archive_is_here=False)


def port(seen: Seen, number: int = 104, **changes: object) -> Observation:
    return Observation(address="192.0.2.1", port=number, seen=seen, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "verdict", "service", "words"),
    [
        (Seen.REFUSED, Verdict.PASS, "", "refused"),
        (Seen.SILENT, Verdict.PASS, "", "dropped"),
        (Seen.UNREACHABLE, Verdict.PASS, "", "not reachable"),
        (Seen.CERTIFICATE_WANTED, Verdict.PASS, "tls", "without a client certificate"),
        (Seen.ACCEPTED, Verdict.FAIL, "dimse", "accepts an association of a stranger"),
        (Seen.REJECTED, Verdict.FAIL, "dimse", "which anybody can type"),
        (Seen.ABORTED, Verdict.FAIL, "dimse", "with an abort"),
        (Seen.HTTP, Verdict.FAIL, "http", "a web server answers"),
        (Seen.OPEN, Verdict.INCONCLUSIVE, "", "neither DICOM nor HTTP"),
        (Seen.NOT_TRIED, Verdict.NOT_RUN, "", ""),
    ],
)
def test_each_answer_has_its_verdict(seen: Seen, verdict: Verdict, service: str, words: str) -> None:
    check = judge_port(port(seen), ELSEWHERE)
    assert (check.verdict, check.service) == (verdict, service)
    assert words in check.why


def test_answers_inside_tls_say_so() -> None:
    assert "inside TLS, without a client certificate" in judge_port(port(Seen.ACCEPTED, is_tls=True), ELSEWHERE).why
    check = judge_port(port(Seen.HTTP, is_tls=True, detail="/ 401"), ELSEWHERE)
    assert (check.service, check.why) == ("https", "a web server answers (/ 401)")


def test_where_the_gateway_may_call_from_an_answer_proves_nothing_and_a_refusal_does() -> None:
    check = judge_port(port(Seen.ACCEPTED), GATEWAY)
    assert check.verdict is Verdict.INCONCLUSIVE
    assert "the gateway runs on this machine" in check.why
    assert "run this from another machine" in check.why
    assert judge_port(port(Seen.REFUSED), GATEWAY).verdict is Verdict.PASS
    here = Place(gateway_runs_here=False, archive_is_here=True)
    assert "bind the archive to 127.0.0.1" in judge_port(port(Seen.HTTP), here).why


def test_another_address_of_this_machine_stands_for_somebody_else() -> None:
    place = Place(gateway_runs_here=True, archive_is_here=True, source="127.0.0.2")
    assert judge_port(port(Seen.ACCEPTED), place).verdict is Verdict.FAIL


def test_archive_is_as_good_as_its_worst_port() -> None:
    seen = [port(Seen.REFUSED), port(Seen.OPEN, 80), *(port(Seen.REJECTED, number) for number in (1, 2, 3, 4))]
    judged = judge_archive("pacs", seen, ELSEWHERE)
    assert judged.verdict is Verdict.FAIL
    assert judged.why.startswith("port 1: it answers DICOM")
    assert judged.why.endswith("; and 1 more")
    assert len(judged.checks) == 6
    assert judge_archive("pacs", [port(Seen.REFUSED)], ELSEWHERE).why == "nothing answers from here"


def test_silence_alone_is_no_pass_unless_somebody_vouches_for_the_archive() -> None:
    silent = [port(Seen.SILENT), port(Seen.UNREACHABLE, 80)]
    judged = judge_archive("pacs", silent, ELSEWHERE)
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert "--archive-is-up" in judged.why
    up = Place(gateway_runs_here=False, archive_is_here=False, archive_is_up=True)
    assert judge_archive("pacs", silent, up).verdict is Verdict.PASS
    assert judge_archive("pacs", [*silent, port(Seen.REFUSED, 8042)], ELSEWHERE).verdict is Verdict.PASS


def test_what_was_not_looked_at_is_not_run() -> None:
    assert judge_archive("pacs", [], ELSEWHERE).why == "no port of it was looked at"
    judged = judge_archive("pacs", [], ELSEWHERE, problem="it can't be resolved")
    assert (judged.verdict, judged.why) == (Verdict.NOT_RUN, "it can't be resolved")


def test_verdict_of_several_is_the_worst() -> None:
    assert worst([Verdict.PASS, Verdict.NOT_RUN, Verdict.INCONCLUSIVE, Verdict.FAIL]) is Verdict.FAIL
    assert worst([Verdict.PASS, Verdict.NOT_RUN, Verdict.INCONCLUSIVE]) is Verdict.INCONCLUSIVE
    assert worst([Verdict.PASS, Verdict.NOT_RUN]) is Verdict.NOT_RUN
    assert worst([]) is Verdict.NOT_RUN
