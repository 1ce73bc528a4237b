"""The recipe of the container image, as far as it can be read without building it."""

import re
import shlex
from typing import Final

from dicomward.cli.main import COMMANDS
from tests.docs.pages import ROOT, read

RECIPE: Final = ROOT / "packaging" / "oci" / "Containerfile"
KNOWN: Final = frozenset(
    [
        "ARG",
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "ENV",
        "USER",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
        "LABEL",
    ]
)


def instructions() -> list[tuple[str, str]]:
    """Return each instruction with its arguments, lines joined."""
    text = re.sub(r"^#.*\n", "", RECIPE.read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def test_every_instruction_is_known() -> None:
    assert {word for word, _ in instructions()} <= KNOWN
    assert [word for word, _ in instructions()][:2] == ["ARG", "FROM"]


def test_what_is_copied_exists() -> None:
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            for name in shlex.split(rest)[:-1]:
                assert (ROOT / name).exists(), name


def test_it_does_not_run_as_root_and_starts_the_gateway() -> None:
    last = dict(instructions())
    assert last["USER"] == "dicomward"
    assert last["ENTRYPOINT"] == '["dicomward"]'
    assert last["CMD"].strip('[]"') in COMMANDS
    assert last["STOPSIGNAL"] == "SIGTERM"


def test_it_holds_no_secret() -> None:
    text = RECIPE.read_text("utf-8").lower()
    assert not re.search(r"password|passcode|token|private key|\.key\.pem", text)


def test_shell_commands_are_well_formed() -> None:
    for word, rest in instructions():
        if word == "RUN":
            assert shlex.split(rest)


def test_page_says_that_it_was_never_built() -> None:
    assert "the image was never built here" in read("packaging.md")
