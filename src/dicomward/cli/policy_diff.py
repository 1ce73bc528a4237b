"""`dicomward policy diff`: say what a new policy allows and denies that the old one does not."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicomward.cli.common import RefusedError, add_json_argument, print_json
from dicomward.cli.policy_files import count, read_policy_file

if TYPE_CHECKING:
    from dicomward.policy.decision import Decision
    from dicomward.policy.diff import Change, ChangeKind, PolicyDiff

_FAIL_ON: Final = ("widening", "any", "never")
_HEADINGS: Final = {
    "becomes-allowed": "becomes allowed",
    "shows-more": "shows more in the matches of queries",
    "becomes-denied": "becomes denied",
    "shows-less": "shows less in the matches of queries",
    "reason-only": "stays as it is, for another reason or by other rules",
}


def add_arguments(diff: argparse.ArgumentParser) -> None:
    """Describe the command."""
    diff.add_argument("old", metavar="OLD", type=Path, help="the policy as it is")
    diff.add_argument("new", metavar="NEW", type=Path, help="the policy as it is to be")
    diff.add_argument(
        "--fail-on",
        choices=_FAIL_ON,
        default="widening",
        help="exit 1 if anything becomes allowed or shown (the default), if any decision changes, or never",
    )
    add_json_argument(diff)


def run(args: argparse.Namespace) -> int:
    """Compare; see main for exit codes."""
    from dicomward.policy.diff import ChangeKind, DiffError, diff_policies

    old, new = read_policy_file(args.old), read_policy_file(args.new)
    try:
        found = diff_policies(old, new)
    except DiffError as error:
        raise RefusedError(f"{error}: please report this defect, and take the new policy for wider") from error
    if args.json:
        print_json({"old": str(args.old), "new": str(args.new), **_to_json(found)})
    else:
        _print(found)
    decided = any(change.kind is not ChangeKind.REASON_ONLY for change in found.changes)
    failing = {"widening": found.widens, "any": decided, "never": False}
    return 1 if failing[args.fail_on] else 0


def _print(found: "PolicyDiff") -> None:
    from dicomward.policy.diff import ChangeKind

    print(f"rules: {', '.join(map(str, found.rules)) or 'none is another one'}")
    for kind in ChangeKind:
        changes = found.of_kind(kind)
        if changes:
            print(f"\n{_HEADINGS[kind]}:")
        for change in changes:
            _print_change(change)
    if not found.reasons_complete:
        print("\nthere are more cases in which only the reason is another one: too many to list")
    print(f"\n{_summary(found)}")


def _print_change(change: "Change") -> None:
    from dicomward.policy.wording import describe_change, request_fields

    where = describe_change(change)
    asked = where.pop("operation")
    conditions = "".join(f", {facet.replace('_', ' ')} {words}" for facet, words in where.items())
    print(f"- {asked}{conditions}")
    print(f"  because of: {', '.join(map(str, change.because_of))}")
    if change.old_strip != change.new_strip:
        print(f"  stripped: {_attributes(change.old_strip)}; will be: {_attributes(change.new_strip)}")
    print(f"  was: {_decision(change.old)}; will be: {_decision(change.new)}")
    fields = ", ".join(f"{name} = {json.dumps(value)}" for name, value in request_fields(change.request).items())
    print(f"  for example: {{ {fields} }}")


def _attributes(tags: frozenset[int]) -> str:
    from dicomward.policy.strip import attribute_name

    return ", ".join(sorted(map(attribute_name, tags))) or "nothing"


def _decision(decision: "Decision") -> str:
    by = f" by {', '.join(decision.rule_ids)}" if decision.rule_ids else ""
    return f"{decision.effect}: {decision.reason}{by}"


def _summary(found: "PolicyDiff") -> str:
    from dicomward.policy.diff import ChangeKind

    numbers = {kind: len(found.of_kind(kind)) for kind in ChangeKind}
    if not any(numbers.values()):
        return "every request is decided as before"
    wider = "the new policy is wider" if found.widens else "the new policy is not wider"
    parts = [
        f"{count(numbers[ChangeKind.BECOMES_ALLOWED], 'kind')} of requests allowed",
        f"{numbers[ChangeKind.BECOMES_DENIED]} denied",
        f"{numbers[ChangeKind.REASON_ONLY]} with another reason only",
    ]
    shown = {kind: numbers[kind] for kind in (ChangeKind.SHOWS_MORE, ChangeKind.SHOWS_LESS) if numbers[kind]}
    parts[2:2] = [f"{number} with {'more' if kind.widens else 'less'} in the matches" for kind, number in shown.items()]
    return f"{wider}: {', '.join(parts)}"


def _to_json(found: "PolicyDiff") -> dict[str, object]:
    from dicomward.policy.diff import ChangeKind

    def listed(kind: "ChangeKind") -> list[dict[str, object]]:
        return [_change_to_json(change) for change in found.of_kind(kind)]

    return {
        "wider": found.widens,
        "rules": [change._asdict() for change in found.rules],
        "becomes_allowed": listed(ChangeKind.BECOMES_ALLOWED),
        "shows_more": listed(ChangeKind.SHOWS_MORE),
        "becomes_denied": listed(ChangeKind.BECOMES_DENIED),
        "shows_less": listed(ChangeKind.SHOWS_LESS),
        "reason_only": listed(ChangeKind.REASON_ONLY),
        "reasons_complete": found.reasons_complete,
    }


def _change_to_json(change: "Change") -> dict[str, object]:
    from dicomward.policy.wording import describe_change, request_fields

    return {
        "where": describe_change(change),
        "because_of": [rule._asdict() for rule in change.because_of],
        "request": request_fields(change.request),
        "old": _decision_to_json(change.old, change.old_strip),
        "new": _decision_to_json(change.new, change.new_strip),
    }


def _decision_to_json(decision: "Decision", strip: frozenset[int]) -> dict[str, object]:
    from dicomward.policy.strip import attribute_name

    return {
        "effect": decision.effect,
        "reason": decision.reason,
        "rules": list(decision.rule_ids),
        "strip": sorted(map(attribute_name, strip)),
    }
