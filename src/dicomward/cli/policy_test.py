"""`dicomward policy test`: run files of requests with the decisions that they should get."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dicomward.cli.common import (
    UsageError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    load_settings_of,
    print_json,
    require,
)
from dicomward.cli.policy_files import count, facts_of, read_file, read_policy_file, registry_of

if TYPE_CHECKING:
    from dicomward.identity.registry import Archive, Device
    from dicomward.policy.case_file import Caller
    from dicomward.policy.case_run import Coverage, Verdict
    from dicomward.policy.model import Policy
    from dicomward.settings import Settings


def add_arguments(test: argparse.ArgumentParser) -> None:
    """Describe the command."""
    test.add_argument(
        "files", metavar="FILE", type=Path, nargs="+", help="policy tests, as docs/policy.md describes them"
    )
    test.add_argument(
        "--policy",
        metavar="FILE",
        type=Path,
        help="the policy (default: the one that the test file names, else that of the settings)",
    )
    add_config_argument(test)
    test.add_argument("--coverage", action="store_true", help="print the rules that no test determines")
    test.add_argument(
        "--min-coverage", metavar="PERCENT", type=_percent, help="exit 1 if the tests determine fewer of the rules"
    )
    add_operator_argument(test)
    add_json_argument(test)


def _percent(text: str) -> float:
    value = float(text.removesuffix("%"))
    if not 0 <= value <= 100:
        raise ValueError
    return value


@dataclass(slots=True)
class _Tested:
    """A policy with the verdicts of all files that are about it."""

    policy: "Policy"
    verdicts: "list[Verdict]" = field(default_factory=list)


def run(args: argparse.Namespace) -> int:
    """Run the tests; see main for exit codes."""
    from dicomward.policy.case_run import cover

    tested = _run_files(args)
    coverages = {path: cover(each.policy, each.verdicts) for path, each in tested.items()}
    if args.json:
        print_json(_to_json(tested, coverages))
    else:
        _print(args, tested, coverages)
    failed = any(not verdict.passed for each in tested.values() for verdict in each.verdicts)
    least = args.min_coverage
    thin = least is not None and any(coverage.percent < least for coverage in coverages.values())
    return 1 if failed or thin else 0


def _run_files(args: argparse.Namespace) -> dict[Path, _Tested]:
    from dicomward.identity.operators import Permission
    from dicomward.policy.case_file import CaseFileError, load_cases
    from dicomward.policy.case_run import judge

    # Only who names the settings means the registry: a test beside its policy runs anywhere.
    settings, known = None, {}
    if args.config is not None:
        settings = load_settings_of(args)
        require(args, Permission.VIEW, settings=settings)
        known = _callers_of(settings)
    tested: dict[Path, _Tested] = {}
    problems: list[str] = []
    for file in args.files:
        try:
            cases = load_cases(read_file(file), source=file.name, known=known)
        except CaseFileError as error:
            problems.append(str(error))
            continue
        path = args.policy or (file.parent / cases.policy if cases.policy else _policy_of(args, settings))
        entry = tested.get(path.resolve())
        if entry is None:
            entry = tested[path.resolve()] = _Tested(read_policy_file(path))
        entry.verdicts += [judge(entry.policy, case) for case in cases.cases]
    if problems:
        raise UsageError("\n".join(problems))
    return tested


def _policy_of(args: argparse.Namespace, settings: "Settings | None") -> Path:
    try:
        return (settings or load_settings_of(args)).policy.file
    except UsageError as error:
        raise UsageError(f"{error}\nname the policy with --policy, in the test file, or by the settings") from error


def _callers_of(settings: "Settings") -> "dict[str, Caller]":
    from dicomward.policy.case_file import Caller

    registry = registry_of(settings)
    found = {}
    callers: tuple[Archive | Device, ...] = (*registry.archives, *registry.devices)
    for caller in callers:
        titles, role, assurance = facts_of(caller)
        found[caller.name] = Caller(role=role, site=caller.site, ae_titles=titles, assurance=assurance)
    return found


def _print(args: argparse.Namespace, tested: dict[Path, _Tested], coverages: "dict[Path, Coverage]") -> None:
    for each in tested.values():
        for verdict in each.verdicts:
            if not verdict.passed:
                _print_failure(each.policy, verdict)
    verdicts = [verdict for each in tested.values() for verdict in each.verdicts]
    failed = sum(not verdict.passed for verdict in verdicts)
    print(f"{count(len(verdicts), 'case')}: {len(verdicts) - failed} passed, {failed} failed")
    if not args.coverage and args.min_coverage is None:
        return
    for path, coverage in coverages.items():
        done, total = len(coverage.determined), len(coverage.determined) + len(coverage.missing)
        print(f"{path.name}: {done} of {count(total, 'rule')} determine a case ({coverage.percent:.0f} %)")
        for rule_id in coverage.missing:
            print(f"  no case: {rule_id}")
        if args.min_coverage is not None and coverage.percent < args.min_coverage:
            print(f"  fewer than the {args.min_coverage:g} % that --min-coverage asks for")


def _print_failure(policy: "Policy", verdict: "Verdict") -> None:
    import json

    from dicomward.policy.explain import explain
    from dicomward.policy.wording import request_fields

    decision = verdict.decision
    print(f"FAILED {verdict.case.where}")
    for failure in verdict.failures:
        print(f"  {failure}")
    by = ", ".join(decision.rule_ids) or "no rule"
    print(f"  decision: {decision.effect}: {decision.reason}, by {by}")
    fields = ", ".join(f"{name} = {json.dumps(value)}" for name, value in request_fields(verdict.case.request).items())
    print(f"  asked: {{ {fields} }}")
    explanation = explain(policy, verdict.case.request)
    for condition in explanation.identifier_conditions:
        print(f"  depends: {condition}")
    for change in explanation.changes:
        print(f"  to allow it: {change}")


def _to_json(tested: dict[Path, _Tested], coverages: "dict[Path, Coverage]") -> dict[str, object]:
    from dicomward.policy.wording import request_fields

    verdicts = [verdict for each in tested.values() for verdict in each.verdicts]
    return {
        "passed": sum(verdict.passed for verdict in verdicts),
        "failed": sum(not verdict.passed for verdict in verdicts),
        "cases": [
            {
                "where": verdict.case.where,
                "passed": verdict.passed,
                "failures": list(verdict.failures),
                "request": request_fields(verdict.case.request),
                "effect": verdict.decision.effect,
                "reason": verdict.decision.reason,
                "rules": list(verdict.decision.rule_ids),
            }
            for verdict in verdicts
        ],
        "coverage": [
            {
                "policy": str(path),
                "policy_revision": tested[path].policy.revision,
                "percent": round(coverage.percent, 1),
                "determined": list(coverage.determined),
                "missing": list(coverage.missing),
            }
            for path, coverage in coverages.items()
        ],
    }
