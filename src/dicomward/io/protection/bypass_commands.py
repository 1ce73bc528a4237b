"""What `dicomward bypass` asks: of the running gateway over the control socket, or done here while none runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from dicomward.audit.event import AuditEvent
from dicomward.io.audit.log import AuditLogBusyError, AuditLogError, append_offline
from dicomward.io.control import Answer, ControlError, call
from dicomward.io.private_file import FileBusyError
from dicomward.io.protection.bypass_keeper import BypassError, BypassKeeper, Changed
from dicomward.io.protection.bypass_store import (
    BypassFileError,
    bypass_lock,
    decode_bypass,
    encode_bypass,
    read_bypasses,
)
from dicomward.policy.bypass import Bypass
from dicomward.settings import Settings

_ANSWER_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Done:
    """What a command has done, and whether a gateway runs, so that it is in force."""

    changed: Changed
    gateway_runs: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """All bypasses, and what is wrong with their files or with the gateway's answer."""

    bypasses: tuple[Bypass, ...]
    gateway_runs: bool
    problems: tuple[str, ...]


# -- in the gateway ---------------------------------------------------------------------------------------------------


def change_bypass(keeper: BypassKeeper, request: Mapping[str, object]) -> Answer:
    """Do what a request asks of the running gateway."""
    try:
        if request.get("action") == "list":
            return {"ok": True, "bypasses": [encode_bypass(bypass) for bypass in keeper.all()]}
        changed = _change(keeper, request)
    except BypassError as error:
        return {"ok": False, "error": str(error)}
    return {"ok": True, "bypass": encode_bypass(changed.bypass), "problem": changed.problem}


def _change(keeper: BypassKeeper, request: Mapping[str, object]) -> Changed:
    operator = _text(request, "operator")
    match request.get("action"):
        case "open":
            minutes = request.get("minutes")
            return keeper.open(
                device=_text(request, "device") or None,
                site=_text(request, "site") or None,
                minutes=minutes if isinstance(minutes, int) else 0,
                reason=_text(request, "reason"),
                operator=operator,
            )
        case "close":
            return keeper.close(_text(request, "id"), operator)
        case "review":
            is_only = request.get("is_only_operator") is True
            return keeper.review(_text(request, "id"), operator, _text(request, "note"), is_only_operator=is_only)
    raise BypassError(f"unknown action {request.get('action')!r}")


def _text(request: Mapping[str, object], key: str) -> str:
    value = request.get(key)
    return value if isinstance(value, str) else ""


# -- for the command line ---------------------------------------------------------------------------------------------


def run_bypass(settings: Settings, request: Mapping[str, object]) -> Done:
    """Have the running gateway open, close or review a bypass, or do it here. Raises BypassError, OSError."""
    try:
        answer = call(settings.gateway.state_directory, {**request, "do": "bypass"}, _ANSWER_SECONDS)
    except ControlError as error:
        raise BypassError(f"{error}. See `dicomward bypass list` for what is open; restart the gateway") from error
    if answer is None:
        return Done(_do_here(settings, request), gateway_runs=False)
    if answer.get("ok") is not True:
        raise BypassError(str(answer.get("error") or answer))
    return Done(Changed(_decoded(answer.get("bypass")), str(answer.get("problem") or "")), gateway_runs=True)


def list_bypasses(settings: Settings) -> Listed:
    """Return all bypasses as the gateway has them, or as the files have them while none runs."""
    state_directory = settings.gateway.state_directory
    stored = read_bypasses(state_directory)
    problems = list(stored.problems)
    try:
        answer = call(state_directory, {"do": "bypass", "action": "list"}, _ANSWER_SECONDS)
    except ControlError as error:
        problems.append(f"{error}; this is what the files say")
        answer = None
    if answer is None or answer.get("ok") is not True:
        found = sorted(stored.bypasses.values(), key=lambda each: each.opened_at)
        return Listed(tuple(found), answer is not None, tuple(problems))
    entries = answer.get("bypasses")
    bypasses = tuple(_decoded(entry) for entry in entries) if isinstance(entries, list) else ()
    return Listed(bypasses, True, tuple(problems))


def _decoded(value: object) -> Bypass:
    try:
        bypass_id = str(value.get("bypass_id")) if isinstance(value, dict) else ""
        return decode_bypass(json.dumps(value), bypass_id)
    except BypassFileError as error:
        raise BypassError(f"the gateway's answer can't be read: {error}") from error


def _do_here(settings: Settings, request: Mapping[str, object]) -> Changed:
    """Change the files while no gateway runs; the next start puts them in force."""
    directory = settings.gateway.state_directory

    def record(event: AuditEvent) -> bool:
        try:
            append_offline(settings.audit.directory, event)
        except AuditLogBusyError as error:
            raise BypassError("nothing was done: a gateway is starting or stopping just now; try again") from error
        except (AuditLogError, OSError) as error:
            raise BypassError(f"nothing was done: the audit log can't be written: {error}") from error
        return True

    try:
        with bypass_lock(directory):
            keeper = BypassKeeper(directory, settings.audit.directory, record, lambda _table: None)
            keeper.load()
            return _change(keeper, request)
    except FileBusyError as error:
        raise BypassError(f"nothing was done: {error}") from error
