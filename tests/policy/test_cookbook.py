"""The cookbook: each recipe is sound, passes its tests, and each of its rules is determined by one of them."""

import re
import shlex
from pathlib import Path

import pytest

from dicomward.cli.main import build_parser
from dicomward.policy.case_file import load_cases
from dicomward.policy.case_run import cover, judge
from dicomward.policy.load import load_policy
from dicomward.policy.model import Policy
from dicomward.policy.ready import default_policy_text

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "cookbook.md").read_text(encoding="utf-8")
TESTS = sorted((DOCS / "cookbook").glob("*.test.toml"))
RECIPES = sorted(set((DOCS / "cookbook").glob("*.toml")) - set(TESTS))


def policy_of(recipe: Path) -> Policy:
    return load_policy(recipe.read_text(encoding="utf-8"), source=recipe.name)


def test_there_are_recipes_and_each_has_its_tests() -> None:
    assert len(RECIPES) >= 12
    assert [path.name.replace(".test.", ".") for path in TESTS] == [path.name for path in RECIPES]


def test_the_page_has_every_recipe_and_its_tests() -> None:
    assert set(re.findall(r"\]\(cookbook/([\w.-]+)\)", PAGE)) == {path.name for path in (*RECIPES, *TESTS)}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_sound(recipe: Path) -> None:
    warnings = [str(warning) for warning in policy_of(recipe).warnings]
    assert warnings == []


@pytest.mark.parametrize("file", TESTS, ids=lambda path: path.name.removesuffix(".test.toml"))
def test_a_recipe_does_what_its_tests_say_and_every_rule_is_tested(file: Path) -> None:
    found = load_cases(file.read_text(encoding="utf-8"), source=file.name, known={})
    policy = policy_of(file.parent / found.policy)
    verdicts = [judge(policy, case) for case in found.cases]
    assert [(verdict.case.where, verdict.failures) for verdict in verdicts if not verdict.passed] == []
    assert {verdict.decision.allowed for verdict in verdicts} == {True, False}
    assert cover(policy, verdicts).missing == ()


def test_recipes_and_ready_rules_can_stand_in_one_policy() -> None:
    texts = [default_policy_text(), *(recipe.read_text(encoding="utf-8") for recipe in RECIPES)]
    assert load_policy("\n".join(texts), source="all").rules


@pytest.mark.parametrize("path", [*RECIPES, DOCS / "cookbook.md"], ids=lambda path: path.stem)
def test_the_commands_that_are_named_exist(path: Path) -> None:
    for line in re.findall(r"^(?:#\s+)?(dicomward .*)$", path.read_text(encoding="utf-8"), re.MULTILINE):
        words = shlex.split(line)[1:]
        build_parser(words[0]).parse_args(words)
