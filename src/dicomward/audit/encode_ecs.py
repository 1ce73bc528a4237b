"""Records as Elastic Common Schema: one JSON object for each record, none left out."""

import json
from typing import Final

from dicomward.audit.chain import Record
from dicomward.audit.encode_json import MemberValue

ECS_VERSION: Final = "8.11.0"

# event.category and event.type of each event code; ECS has closed lists for both.
_KINDS: Final[dict[str, tuple[list[str], list[str]]]] = {
    "DW-ASSOC-ALLOW": (["authentication", "network"], ["start", "allowed"]),
    "DW-ASSOC-DENY": (["authentication", "network"], ["denied"]),
    "DW-ASSOC-END": (["network"], ["end"]),
    "DW-OP-ALLOW": (["network"], ["access", "allowed"]),
    "DW-OP-DENY": (["network"], ["access", "denied"]),
    "DW-OP-END": (["network"], ["access", "end"]),
    "DW-CONN-FAIL": (["authentication", "network"], ["denied"]),
    "DW-CONN-COALESCE": (["authentication", "network"], ["denied"]),
    "DW-GW-START": (["process"], ["start"]),
    "DW-GW-STOP": (["process"], ["end"]),
    "DW-AUDIT-ACCESS": (["file"], ["access"]),
}
_CHANGES: Final = (["configuration"], ["change"])
_ALERTS: Final = ("DW-SEC-ALERT", "DW-DEGR-ENTER", "DW-AUDIT-LOST")
_FAILURES: Final = ("DW-ASSOC-DENY", "DW-OP-DENY", "DW-CONN-FAIL", "DW-CONN-COALESCE", *_ALERTS)


def encode_ecs(record: Record) -> bytes:
    """Return the document as JSON in UTF-8."""
    return json.dumps(ecs_document(record), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def ecs_document(record: Record) -> dict[str, object]:
    """Return the document; every member of the record is also in `dicomward`, under its own name."""
    members = record.members
    category, kind = _KINDS.get(record.code, _CHANGES)
    is_failure = record.code in _FAILURES or (record.code == "DW-OP-END" and "reason" in members)
    document: dict[str, object] = {
        "@timestamp": record.time,
        "ecs": {"version": ECS_VERSION},
        "event": _known(
            kind="alert" if record.code in _ALERTS else "event",
            category=category,
            type=kind,
            code=record.code,
            action=members.get("operation") or members.get("action"),
            outcome="failure" if is_failure else "success",
            reason=members.get("reason"),
            sequence=record.seq,
            hash=record.hash,
            duration=_nanoseconds(members.get("duration_ms")),
            dataset="dicomward.audit",
            module="dicomward",
        ),
        "observer": {"vendor": "Dicomward", "product": "Dicomward", "type": "gateway"},
        "dicomward": dict(members),
    }
    for name, part in (
        ("source", _known(ip=members.get("address"), bytes=members.get("bytes"))),
        ("user", _known(name=members.get("person") or members.get("operator"))),
        ("tls", _known(version=members.get("tls_version"))),
        ("rule", _known(id=members.get("rule_ids"))),
    ):
        if part:
            document[name] = part
    if "detail" in members:
        document["message"] = members["detail"]
    return document


def _known(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _nanoseconds(milliseconds: MemberValue | None) -> int | None:
    return milliseconds * 1_000_000 if isinstance(milliseconds, int) else None
