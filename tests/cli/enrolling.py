"""What tests of the commands of enrolment share: a device is invited, and enrols."""

from pathlib import Path

from tests.cli.conftest import Outcome, Run
from tests.io.enrolment_place import Place


def invite(run: Run, place: Place, name: str, *more: str) -> str:
    done = run(
        "device", "invite", name, "--aet", name.upper(), "--role", "modality", "--url", place.url, "--json", *more
    )
    assert done.code == 0, done.err
    return str(done.json["code"])


def enrol(run: Run, place: Place, code: str, out: Path, *more: str) -> Outcome:
    return run("enroll", "--server", place.url, "--code", code, "--out", out, "--no-echo", *more)
