"""`dicomward policy explain`: say what the policy decides, and why."""

import argparse
from datetime import datetime
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
from dicomward.cli.policy_files import facts_of, names_of, read_policy_file, registry_of
from dicomward.vocab.dimse import OPERATION_BY_LABEL, Operation
from dicomward.vocab.principal import Assurance
from dicomward.vocab.services import SOP_CLASS_BY_KEYWORD, USUAL_SOP_CLASS, Service, service_of

if TYPE_CHECKING:
    from dicomward.identity.registry import Archive, Device, RegistrySnapshot
    from dicomward.policy.explain import Explanation
    from dicomward.policy.model import Policy
    from dicomward.policy.request import OperationRequest

_ASSURANCES: Final = {assurance.label: assurance for assurance in Assurance}

_USUAL_SERVICE: Final = {
    Operation.C_ECHO: Service.VERIFICATION,
    Operation.C_STORE: Service.STORAGE,
    Operation.C_FIND: Service.QUERY,
    Operation.C_GET: Service.GET,
    Operation.C_MOVE: Service.MOVE,
}


def add_arguments(explain: argparse.ArgumentParser) -> None:
    """Describe the command."""
    add_config_argument(explain)
    explain.add_argument("--device", metavar="NAME", required=True, help="who asks: a registered device or archive")
    explain.add_argument("--operation", metavar="OPERATION", required=True, help="c-store, c-find, n-create, ...")
    explain.add_argument(
        "--sop-class",
        metavar="CLASS",
        help="UID, keyword of PS3.6, or the name of a service (default: the usual one of a c- operation)",
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
    explain.add_argument("--person", metavar="NAME", help="the verified person at the device (default: nobody)")
    explain.add_argument(
        "--group", metavar="GROUP", action="append", default=[], help="a group of that person; may be repeated"
    )
    explain.add_argument("--expect", choices=("allow", "deny"), help="exit 1 if the decision is another one")
    add_operator_argument(explain)
    add_json_argument(explain)


def run(args: argparse.Namespace) -> int:
    """Explain; see main for exit codes."""
    from dicomward.identity.operators import Permission
    from dicomward.policy.explain import explain

    settings = load_settings_of(args)
    require(args, Permission.VIEW, settings=settings)
    policy = read_policy_file(settings.policy.file)
    registry = registry_of(settings)
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


def _assurance_of(args: argparse.Namespace, of_device: Assurance) -> Assurance:
    """Return how well the caller is known; with a person as well as a device with TLS and a person can be."""
    if args.group and args.person is None:
        raise UsageError("--group belongs to --person NAME")
    if args.assurance is not None:
        return _ASSURANCES[args.assurance]
    return Assurance.DEVICE_AND_PERSON if args.person and of_device >= Assurance.TLS_DEVICE else of_device


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

    titles, role, assurance = facts_of(caller)
    operation = _operation_named(args.operation)
    request = OperationRequest(
        principal=Principal(
            device=caller.name,
            calling_ae_title=_title_of(args.aet, caller.name, titles),
            role=role,
            site=caller.site,
            assurance=_assurance_of(args, assurance),
            address="",
            person=args.person or "",
            groups=frozenset(args.group),
        ),
        archive=_target_named(registry, args.archive),
        operation=operation,
        sop_class_uid=_sop_class_of(args.sop_class, operation),
        move_destination=_destination_of(args, operation),
        at=_moment(args.at),
        own_ae_titles=frozenset(titles),
    )
    if args.level is None and not args.key:
        return request
    keys = frozenset(tag for text in args.key if (tag := _narrowing_key(text)) is not None)
    return IdentifierRequest.of(request, query_level=args.level, keys=keys)


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
    targets = sorted(names_of(registry).targets)
    if name not in targets:
        raise UsageError(f"the registry has no archive {name!r}, and no such device with an address: "
                         f"{nearest(name, targets)}")  # fmt: skip
    return name


def _operation_named(label: str) -> Operation:
    # The standard writes them in capitals, C-STORE.
    operation = OPERATION_BY_LABEL.get(label.lower())
    if operation is None:
        raise UsageError(f"{label!r} is not an operation: {nearest(label, tuple(OPERATION_BY_LABEL))}")
    return operation


def _sop_class_of(text: str | None, operation: Operation) -> str:
    """Return the SOP class that was typed, else the usual one of the operation. Raises UsageError."""
    if text is not None:
        return _sop_class_named(text)
    service = _USUAL_SERVICE.get(operation)
    if service is None:
        raise UsageError(f"--sop-class CLASS is missing: {operation.label} belongs to several services")
    return USUAL_SOP_CLASS[service]


def _sop_class_named(text: str) -> str:
    from dicomward.vocab.uid import UidError, parse_uid

    if text in USUAL_SOP_CLASS:
        return USUAL_SOP_CLASS[Service(text)]
    if text in SOP_CLASS_BY_KEYWORD:
        return SOP_CLASS_BY_KEYWORD[text]
    try:
        return parse_uid(text)
    except UidError as error:
        known = (*(str(service) for service in USUAL_SOP_CLASS), *SOP_CLASS_BY_KEYWORD)
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
    from dicomward.policy.keys import QueryKeyError, is_filled, parse_query_key

    name, equals, value = text.partition("=")
    try:
        tag = parse_query_key(name)
    except QueryKeyError as error:
        raise UsageError(f"--key: {error}") from error
    return None if equals and not is_filled(tag, value.encode()) else tag


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
