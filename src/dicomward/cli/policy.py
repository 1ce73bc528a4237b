"""`dicomward policy check | explain`: is the policy sound, and why would it decide so."""

import argparse
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicomward.cli.common import (
    UsageError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    load_settings_of,
    nearest,
    now,
    print_json,
    require,
    warn,
)
from dicomward.vocab.dimse import OPERATION_BY_LABEL, Operation
from dicomward.vocab.principal import Assurance, Role
from dicomward.vocab.services import (
    MODALITY_WORKLIST_FIND,
    MPPS,
    SOP_CLASS_BY_KEYWORD,
    STORAGE_COMMITMENT_PUSH_MODEL,
    VERIFICATION,
    Service,
    service_of,
)

if TYPE_CHECKING:
    from dicomward.identity.registry import Archive, Device, RegistrySnapshot
    from dicomward.policy.explain import Explanation
    from dicomward.policy.lint import RegisteredNames
    from dicomward.policy.model import Policy, Problem
    from dicomward.policy.request import OperationRequest
    from dicomward.settings import Settings

# A usual SOP class for each service, where somebody asks about the service as a whole.
_EXAMPLES: Final = {
    Service.VERIFICATION: VERIFICATION,
    Service.STORAGE: SOP_CLASS_BY_KEYWORD["CTImageStorage"],
    Service.QUERY: SOP_CLASS_BY_KEYWORD["StudyRootQueryRetrieveInformationModelFind"],
    Service.MOVE: SOP_CLASS_BY_KEYWORD["StudyRootQueryRetrieveInformationModelMove"],
    Service.GET: SOP_CLASS_BY_KEYWORD["StudyRootQueryRetrieveInformationModelGet"],
    Service.WORKLIST: MODALITY_WORKLIST_FIND,
    Service.MPPS: MPPS,
    Service.STORAGE_COMMITMENT: STORAGE_COMMITMENT_PUSH_MODEL,
    Service.PRINT: SOP_CLASS_BY_KEYWORD["BasicFilmSession"],
    Service.UPS: SOP_CLASS_BY_KEYWORD["UnifiedProcedureStepPush"],
}
_ASSURANCES: Final = {assurance.label: assurance for assurance in Assurance}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the commands."""
    parser.description = "Check the rules, and explain what they decide. Neither needs a running gateway."
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    check = commands.add_parser("check", help="say if the policy is sound; exit 1 if the gateway would not take it")
    check.add_argument("file", metavar="FILE", type=Path, nargs="?", help="the policy (default: that of the settings)")
    add_config_argument(check)
    add_json_argument(check)

    explain = commands.add_parser("explain", help="say what the policy decides, why, and what would have to change")
    add_config_argument(explain)
    explain.add_argument("--device", metavar="NAME", required=True, help="who asks: a registered device or archive")
    explain.add_argument("--operation", metavar="OPERATION", required=True, help="c-store, c-find, n-create, ...")
    explain.add_argument(
        "--sop-class", metavar="CLASS", required=True, help="UID, keyword of PS3.6, or the name of a service"
    )
    explain.add_argument("--archive", metavar="NAME", help="who is asked (default: the only registered archive)")
    explain.add_argument("--aet", metavar="AET", help="calling AE title (default: the first of the device)")
    explain.add_argument("--level", metavar="LEVEL", help="query level: PATIENT, STUDY, SERIES, IMAGE")
    explain.add_argument(
        "--key",
        metavar="KEY[=VALUE]",
        action="append",
        default=[],
        help="a key of the query: PatientID=4711, 0010,0020",
    )
    explain.add_argument("--destination", metavar="AET", help="C-MOVE destination")
    explain.add_argument("--at", metavar="TIME", help="2026-01-31T14:00, local unless it has a zone (default: now)")
    explain.add_argument(
        "--assurance", metavar="LEVEL", choices=_ASSURANCES, help=f"how well it is known: {', '.join(_ASSURANCES)}"
    )
    explain.add_argument("--expect", choices=("allow", "deny"), help="exit 1 if the decision is another one")
    add_operator_argument(explain)
    add_json_argument(explain)


def run(args: argparse.Namespace) -> int:
    """Do one action; see main for exit codes."""
    return _check(args) if args.action == "check" else _explain(args)


# --- check -----------------------------------------------------------------------------------------------------------


def _check(args: argparse.Namespace) -> int:
    from dicomward.policy.lint import find_unknown_names
    from dicomward.policy.load import PolicyError, load_policy

    settings: Settings | None = None
    path: Path | None = args.file
    # A file that is named stands alone, so that a draft can be checked anywhere.
    if path is None or args.config is not None:
        settings = load_settings_of(args)
        path = path or settings.policy.file
    try:
        policy = load_policy(_read(path), source=path.name)
    except PolicyError as error:
        _print_check(args, path, None, error.problems, ())
        return 1
    warnings = policy.warnings
    if settings is not None and settings.registry.snapshot.exists():
        warnings += find_unknown_names(policy, _names_of(_registry_of(settings)))
    _print_check(args, path, policy, (), warnings)
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: save it as UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror}): check the file and its rights") from error


def _print_check(
    args: argparse.Namespace,
    path: Path,
    policy: "Policy | None",
    problems: "tuple[Problem, ...]",
    warnings: "tuple[Problem, ...]",
) -> None:
    if args.json:
        print_json(
            {
                "file": str(path),
                "valid": policy is not None,
                "rules": 0 if policy is None else len(policy.rules),
                "revision": None if policy is None else policy.revision,
                "problems": [problem._asdict() for problem in problems],
                "warnings": [warning._asdict() for warning in warnings],
            }
        )
        return
    for warning in warnings:
        print(f"warning: {warning}")
    for problem in problems:
        print(f"error: {problem}")
    if policy is None:
        print(f"{path}: {_count(len(problems), 'error')}; the gateway would not take this policy")
    else:
        print(f"{path}: sound, {_count(len(policy.rules), 'rule')}, revision {policy.revision}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


# --- explain ---------------------------------------------------------------------------------------------------------


def _explain(args: argparse.Namespace) -> int:
    from dicomward.identity.operators import Permission
    from dicomward.policy.explain import explain
    from dicomward.policy.load import PolicyError, load_policy

    settings = load_settings_of(args)
    require(args, Permission.VIEW, settings=settings)
    path = settings.policy.file
    try:
        policy = load_policy(_read(path), source=path.name)
    except PolicyError as error:
        raise UsageError(f"{error}\nthe policy has errors: correct them first") from error
    registry = _registry_of(settings)
    caller = _principal_named(registry, args.device)
    request = _request_of(args, registry, caller)
    explanation = explain(policy, request)
    if args.json:
        print_json(_explanation_to_json(policy, request, explanation))
    else:
        _print_explanation(request, explanation)
    _warn_of_status(caller)
    effect = explanation.decision.effect
    if args.expect is not None and args.expect != effect:
        warn(f"expected {args.expect}, the decision is {effect}")
        return 1
    return 0


def _registry_of(settings: "Settings") -> "RegistrySnapshot":
    from dicomward.identity.registry import RegistryError, decode_snapshot

    try:
        return decode_snapshot(_read(settings.registry.snapshot))
    except RegistryError as error:
        raise UsageError(str(error)) from error


def _names_of(registry: "RegistrySnapshot") -> "RegisteredNames":
    from dicomward.policy.lint import RegisteredNames

    devices, archives = registry.devices, registry.archives
    titles = {title for device in devices for title in device.ae_titles}
    return RegisteredNames(
        devices={device.name for device in devices} | {archive.name for archive in archives},
        sites={device.site for device in devices} | {archive.site for archive in archives},
        targets={archive.name for archive in archives} | {d.name for d in devices if d.address is not None},
        ae_titles=titles | {title for archive in archives for title in archive.called_ae_titles},
    )


def _principal_named(registry: "RegistrySnapshot", name: str) -> "Device | Archive":
    found = registry.device_by_name(name) or registry.archive_by_name(name)
    if found is None:
        known = [*(device.name for device in registry.devices), *(archive.name for archive in registry.archives)]
        raise UsageError(f"the registry has no device {name!r}: {nearest(name, known)}")
    return found


def _request_of(
    args: argparse.Namespace, registry: "RegistrySnapshot", caller: "Device | Archive"
) -> "OperationRequest":
    from dicomward.policy.request import IdentifierRequest, OperationRequest
    from dicomward.vocab.principal import Principal

    titles, role, assurance = _facts_of(caller)
    operation = _operation_named(args.operation)
    request = OperationRequest(
        principal=Principal(
            device=caller.name,
            calling_ae_title=_title_of(args.aet, caller.name, titles),
            role=role,
            site=caller.site,
            assurance=assurance if args.assurance is None else _ASSURANCES[args.assurance],
            address="",
        ),
        archive=_target_named(registry, args.archive),
        operation=operation,
        sop_class_uid=_sop_class_named(args.sop_class),
        move_destination=_destination_of(args, operation),
        at=_moment(args.at),
        own_ae_titles=frozenset(titles),
    )
    if args.level is None and not args.key:
        return request
    keys = frozenset(tag for text in args.key if (tag := _narrowing_key(text)) is not None)
    return IdentifierRequest.of(request, query_level=args.level, keys=keys)


def _facts_of(caller: "Device | Archive") -> tuple[tuple[str, ...], str, Assurance]:
    """Return the AE titles that it calls with, its role, and how well the gateway knows it when it calls."""
    from dicomward.identity.registry import Device

    if isinstance(caller, Device):
        return caller.ae_titles, caller.role, Assurance.TLS_DEVICE
    assurance = Assurance.NETWORK_PIN if caller.certificate_sha256 is None else Assurance.TLS_DEVICE
    return caller.calling_ae_titles or (caller.ae_title,), Role.ARCHIVE, assurance


def _title_of(title: str | None, name: str, titles: tuple[str, ...]) -> str:
    if title is None:
        return titles[0]
    if title not in titles:
        raise UsageError(
            f"AE title {title!r} is not bound to {name}, so the gateway rejects it before any rule is asked; "
            f"bound are {', '.join(titles)}"
        )
    return title


def _target_named(registry: "RegistrySnapshot", name: str | None) -> str:
    if name is None:
        if len(registry.archives) == 1:
            return registry.archives[0].name
        raise UsageError("name the target with --archive NAME: the registry has none or several archives")
    targets = sorted(_names_of(registry).targets)
    if name not in targets:
        raise UsageError(f"the registry has no archive {name!r}, and no such device with an address: "
                         f"{nearest(name, targets)}")  # fmt: skip
    return name


def _operation_named(label: str) -> Operation:
    if label not in OPERATION_BY_LABEL:
        raise UsageError(f"{label!r} is not an operation: {nearest(label.lower(), tuple(OPERATION_BY_LABEL))}")
    return OPERATION_BY_LABEL[label]


def _sop_class_named(text: str) -> str:
    from dicomward.vocab.uid import UidError, parse_uid

    if text in _EXAMPLES:
        return _EXAMPLES[Service(text)]
    if text in SOP_CLASS_BY_KEYWORD:
        return SOP_CLASS_BY_KEYWORD[text]
    try:
        return parse_uid(text)
    except UidError as error:
        known = (*_EXAMPLES, *SOP_CLASS_BY_KEYWORD)
        raise UsageError(f"{text!r} is no SOP class UID, keyword or service: {nearest(text, known)}") from error


def _destination_of(args: argparse.Namespace, operation: Operation) -> str | None:
    from dicomward.vocab.ae_title import AeTitleError, parse_ae_title

    if operation is not Operation.C_MOVE:
        if args.destination is not None:
            raise UsageError("only c-move has a --destination")
        return None
    if args.destination is None:
        raise UsageError("a c-move has a --destination AET")
    try:
        return parse_ae_title(args.destination)
    except AeTitleError as error:
        raise UsageError(f"--destination: {error}") from error


def _narrowing_key(text: str) -> int | None:
    """Return the tag of a key, or None where its value narrows nothing. Raises UsageError."""
    from dicomward.policy.keys import QueryKeyError, parse_query_key

    name, equals, value = text.partition("=")
    try:
        tag = parse_query_key(name)
    except QueryKeyError as error:
        raise UsageError(f"--key: {error}") from error
    return None if equals and not value.strip("*? ") else tag


def _moment(text: str | None) -> datetime:
    """Return the wall time of this machine, which is what windows are about."""
    if text is None:
        return now().astimezone()
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise UsageError(f"--at: {text!r} isn't a time: write 2026-01-31T14:00") from error


def _warn_of_status(caller: "Device | Archive") -> None:
    from dicomward.identity.registry import Device

    if isinstance(caller, Device) and not caller.is_active:
        warn(f"{caller.name} is {caller.status}: the gateway rejects it before any rule is asked")


def _print_explanation(request: "OperationRequest", explanation: "Explanation") -> None:
    from dicomward.vocab.uid import uid_keyword

    decision, principal = explanation.decision, request.principal
    print(f"{decision.effect}: {decision.reason}" + (f" ({decision.detail})" if decision.detail else ""))
    print(f"rules: {', '.join(decision.rule_ids) or 'none matched'}")
    destination = "" if request.move_destination is None else f" to {request.move_destination}"
    print(
        f"asked: {principal.device} as {principal.calling_ae_title} (role {principal.role}, "
        f"site {principal.site or 'none'}, {principal.assurance.label}): {request.operation.label} of "
        f"{uid_keyword(request.sop_class_uid)} (service {service_of(request.sop_class_uid)}){destination} "
        f"at {request.archive}, {request.at:%a %Y-%m-%d %H:%M}"
    )
    for condition in explanation.identifier_conditions:
        print(f"depends: {condition}")
    for change in explanation.changes:
        print(f"to allow it: {change}")


def _explanation_to_json(
    policy: "Policy", request: "OperationRequest", explanation: "Explanation"
) -> dict[str, object]:
    decision, principal = explanation.decision, request.principal
    return {
        "effect": decision.effect,
        "reason": decision.reason,
        "rules": list(decision.rule_ids),
        "obligations": sorted(decision.obligations),
        "detail": decision.detail,
        "policy_revision": policy.revision,
        "request": {
            "device": principal.device,
            "calling_ae_title": principal.calling_ae_title,
            "role": principal.role,
            "site": principal.site,
            "assurance": principal.assurance.label,
            "operation": request.operation.label,
            "sop_class_uid": request.sop_class_uid,
            "service": service_of(request.sop_class_uid),
            "archive": request.archive,
            "move_destination": request.move_destination,
            "at": request.at.isoformat(),
        },
        "identifier_conditions": list(explanation.identifier_conditions),
        "near_rules": [
            {"rule": near.rule_id, "mismatches": [mismatch._asdict() for mismatch in near.mismatches]}
            for near in explanation.near_rules
        ],
        "changes": list(explanation.changes),
    }
