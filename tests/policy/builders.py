"""Short ways to write requests and rules, and strategies that generate them."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from dicomward.policy.decision import Effect
from dicomward.policy.levels import IDENTIFIER_OPERATIONS, QUERY_LEVELS, RULE_LEVELS
from dicomward.policy.model import Policy
from dicomward.policy.request import AssociationRequest, IdentifierRequest, OperationRequest
from dicomward.policy.rule import Rule, TimeWindow, find_faults
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Assurance, Principal
from dicomward.vocab.services import MODALITY_WORKLIST_FIND, MPPS, VERIFICATION, Service, operations_of

CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.3"
HANGING_PROTOCOL_FIND = "1.2.840.10008.5.1.4.38.2"
UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"
UPS_PULL = "1.2.840.10008.5.1.4.34.6.3"
GRAYSCALE_PRINT_META = "1.2.840.10008.5.1.1.9"
FILM_SESSION = "1.2.840.10008.5.1.1.1"
PRIVATE = "1.2.276.0.99.1"

PATIENT_ID, ACCESSION_NUMBER, STUDY_INSTANCE_UID = 0x00100020, 0x00080050, 0x0020000D

OTHER_PATIENT_IDS, PATIENT_ADDRESS = 0x00101000, 0x00101040

# Not UTC on purpose: windows are about the wall, not about UTC.
SITE_TIME = timezone(timedelta(hours=2))
# A Wednesday.
NOON = datetime(2026, 7, 1, 12, 0, tzinfo=SITE_TIME)


def principal(**changes: Any) -> Principal:
    values: dict[str, Any] = {
        "device": "D1",
        "calling_ae_title": "T1",
        "role": "workstation",
        "site": "north",
        "assurance": Assurance.TLS_DEVICE,
        "address": "127.0.0.1",
    }
    return Principal(**values | changes)


def operation(op: Operation = Operation.C_STORE, uid: str = CT, **changes: Any) -> OperationRequest:
    values: dict[str, Any] = {
        "principal": principal(),
        "archive": "pacs",
        "operation": op,
        "sop_class_uid": uid,
        "move_destination": "T1" if op is Operation.C_MOVE else None,
        "at": NOON,
    }
    return OperationRequest(**values | changes)


def identifier(
    op: Operation = Operation.C_FIND,
    uid: str = STUDY_FIND,
    *,
    level: str | None = "STUDY",
    keys: frozenset[int] = frozenset(),
    **changes: Any,
) -> IdentifierRequest:
    return IdentifierRequest.of(operation(op, uid, **changes), query_level=level, keys=keys)


def association(*uids: str, **changes: Any) -> AssociationRequest:
    values: dict[str, Any] = {
        "principal": principal(),
        "archive": "pacs",
        "contexts": tuple((2 * i + 1, uid) for i, uid in enumerate(uids)),
        "at": NOON,
    }
    return AssociationRequest(**values | changes)


def allow(rule_id: str = "yes", **fields: Any) -> Rule:
    """Return an allow rule for everything that role workstation can do, narrowed by the fields."""
    return Rule(
        **{"id": rule_id, "effect": Effect.ALLOW, "roles": frozenset({"workstation"}), "services": frozenset(Service)}
        | fields
    )


def deny(rule_id: str = "no", **fields: Any) -> Rule:
    return Rule(id=rule_id, effect=Effect.DENY, **fields)


def policy(*rules: Rule) -> Policy:
    return Policy(rules=rules, revision="0123456789abcdef")


# --- strategies ------------------------------------------------------------------------------------------------------

DEVICES, ROLES, SITES, ARCHIVES = ("D1", "D2"), ("workstation", "modality"), ("north", ""), ("pacs", "ris")
TITLES = ("T1", "T2", "T3")
UIDS = (
    VERIFICATION,
    CT,
    STUDY_FIND,
    STUDY_MOVE,
    STUDY_GET,
    HANGING_PROTOCOL_FIND,
    MODALITY_WORKLIST_FIND,
    MPPS,
    UPS_PUSH,
    UPS_PULL,
    GRAYSCALE_PRINT_META,
    FILM_SESSION,
    PRIVATE,
)
KEYS = (PATIENT_ID, ACCESSION_NUMBER, STUDY_INSTANCE_UID)
TYPED_LEVELS = (*QUERY_LEVELS, None)


def _some(*choices: Any, odds: int = 1) -> st.SearchStrategy[Any]:
    """Draw None, or one of the sets; `odds` to one for None. One draw for each: generation must stay cheap."""
    sets = [frozenset(choice) for choice in choices]
    return st.sampled_from([None] * (len(sets) * odds) + sets)


WINDOWS = st.builds(
    TimeWindow,
    days=st.frozensets(st.integers(0, 6), min_size=1),
    start_minute=st.integers(0, 1439),
    end_minute=st.integers(1, 1440),
).filter(lambda window: window.start_minute != window.end_minute)

_FIND, _GET, _MOVE = Operation.C_FIND, Operation.C_GET, Operation.C_MOVE
_ALWAYS = (TimeWindow(days=frozenset(range(7)), start_minute=0, end_minute=1440),)
_WHO = {
    "roles": _some({"workstation"}, {"modality"}, ROLES),
    "devices": _some({"D1"}, {"D2"}, DEVICES, odds=3),
    "sites": _some({"north"}, {""}, SITES, odds=3),
    "archives": _some({"pacs"}, {"ris"}, ARCHIVES, odds=3),
    "times": st.none() | st.none() | st.just(_ALWAYS) | st.lists(WINDOWS, min_size=1, max_size=2).map(tuple),
}
_WHAT = {
    "operations": _some(
        {Operation.C_STORE}, {Operation.C_ECHO, Operation.C_STORE, _FIND}, set(Operation) - {_FIND, Operation.N_SET}
    ),
    "services": _some(
        {Service.STORAGE, Service.OTHER, Service.UPS},
        {Service.QUERY, Service.WORKLIST, Service.MPPS, Service.VERIFICATION},
        {Service.PRINT, Service.GET, Service.MOVE, Service.OTHER},
        odds=2,
    ),
    "sop_classes": _some(UIDS[::2], UIDS[1::2], {GRAYSCALE_PRINT_META}, {FILM_SESSION, MPPS}, {UPS_PULL}, odds=2),
}
_LOOKS = {
    "operations": st.sampled_from(
        [frozenset(x) for x in ({_FIND}, {_GET}, {_MOVE}, {_FIND, _GET}, {_FIND, _GET, _MOVE})]
    ),
    "services": _some({Service.QUERY, Service.GET}, {Service.MOVE, Service.GET, Service.UPS, Service.WORKLIST}, odds=3),
    "sop_classes": _some({STUDY_FIND, STUDY_GET, STUDY_MOVE}, {PRIVATE, UPS_PULL}, odds=3),
    "query_levels": _some(
        {"STUDY"}, {"PATIENT"}, {"STUDY", "SERIES"}, {"PATIENT", "WORKLIST"}, {"WORKLIST"}, RULE_LEVELS
    ),
}
_STRIPS = _some({OTHER_PATIENT_IDS}, {OTHER_PATIENT_IDS, PATIENT_ADDRESS}, odds=2)
_ALL_KEYS = _some({PATIENT_ID}, {PATIENT_ID, STUDY_INSTANCE_UID}, {STUDY_INSTANCE_UID})
_ANY_KEY = _some({ACCESSION_NUMBER}, KEYS, {PATIENT_ID, ACCESSION_NUMBER})
_MOVES = {
    "operations": st.just(frozenset({_MOVE})),
    "move_destinations": _some({"T1"}, {"T2"}, {"T1", "T3"}, TITLES),
    "move_to_self": st.booleans(),
}
_KINDS = {
    "plain": _WHO | _WHAT,
    "identifier": _WHO | _LOOKS,
    "move": _WHO | _LOOKS | _MOVES,
}


_EVERYBODY = {"roles": st.just(frozenset(ROLES))} | dict.fromkeys(("devices", "sites", "archives", "times"), st.none())


@st.composite
def rules(draw: st.DrawFn, rule_id: str = "r", kinds: tuple[str, ...] = tuple(_KINDS), everybody: bool = False) -> Rule:
    """Draw a sound rule; some look at identifiers, some at destinations, some are about everybody."""
    effect = draw(st.sampled_from((Effect.ALLOW, Effect.ALLOW, Effect.DENY)))
    kind = draw(st.sampled_from(kinds))
    strategies = _KINDS[kind] | _EVERYBODY if everybody else _KINDS[kind]
    fields: dict[str, Any] = {name: draw(strategy) for name, strategy in strategies.items()}
    allows = effect is Effect.ALLOW
    if not everybody:
        fields["assurance" if allows else "assurance_below"] = draw(st.sampled_from((None, None, *Assurance)))
    if kind != "plain":
        fields["required_keys" if allows else "unless_keys"] = draw(_ALL_KEYS)
        fields["required_any_key" if allows else "unless_any_key"] = draw(_ANY_KEY)
    if allows and kind == "identifier":
        fields["strip"] = draw(_STRIPS)
    if allows and fields["devices"] is None and fields["sites"] is None:
        fields["roles"] = fields["roles"] or frozenset(ROLES)
    if allows and fields["services"] is None and fields["sop_classes"] is None:
        fields["operations"] = fields["operations"] or frozenset(Operation)
    rule = Rule(id=rule_id, effect=effect, **fields)
    if any(True for _ in find_faults(rule)):
        # The usual fault is that operation, service, level and SOP class exclude each other.
        open_fields = dict.fromkeys(("services", "sop_classes", "query_levels"))
        rule = Rule(id=rule_id, effect=effect, **fields | {"operations": frozenset({_FIND, _GET, _MOVE})} | open_fields)
    if any(True for _ in find_faults(rule)):
        rule = replace(rule, operations=frozenset({_MOVE}), strip=None)
    return rule


# Rules that differ in everything seldom meet; rules of one kind about everybody do.
_MIXES = [((kind,), True) for kind in _KINDS] + [((kind,), False) for kind in _KINDS] + [(tuple(_KINDS), False)]


@st.composite
def policies(draw: st.DrawFn, most: int = 5) -> Policy:
    kinds, everybody = draw(st.sampled_from(_MIXES))
    return policy(*(draw(rules(f"r{i}", kinds, everybody)) for i in range(draw(st.integers(0, most)))))


PRINCIPALS = st.builds(
    principal,
    device=st.sampled_from((*DEVICES, "D3")),
    role=st.sampled_from((*ROLES, *ROLES, "research")),
    site=st.sampled_from(SITES),
    calling_ae_title=st.sampled_from(TITLES),
    assurance=st.sampled_from(Assurance),
    floor_only=st.sampled_from((*([None] * 9), "certificate-just-expired")),
)
TIMES = st.builds(
    lambda minutes: datetime(2026, 7, 6, tzinfo=SITE_TIME) + timedelta(minutes=minutes), st.integers(0, 7 * 1440 - 1)
)
_PAIRS = [(op, uid) for uid in UIDS for op in sorted(operations_of(uid))]
_PAIRS += 6 * [(_MOVE, STUDY_MOVE), (_FIND, STUDY_FIND)] + 3 * [(_GET, STUDY_GET), (Operation.C_STORE, CT)]
_IDENTIFIER_PAIRS = [pair for pair in _PAIRS if pair[0] in IDENTIFIER_OPERATIONS]
# Contexts whose commands are about another SOP class, and one that no such command belongs to.
CONTEXTS = {FILM_SESSION: ("", GRAYSCALE_PRINT_META), UPS_PUSH: ("", UPS_PULL, CT)}


@st.composite
def operations(draw: st.DrawFn, pairs: Any = (*_PAIRS, (Operation.C_ECHO, CT))) -> OperationRequest:
    op, uid = draw(st.sampled_from(pairs))
    return OperationRequest(
        principal=draw(PRINCIPALS),
        archive=draw(st.sampled_from(ARCHIVES)),
        operation=op,
        sop_class_uid=uid,
        context_sop_class_uid=draw(st.sampled_from(CONTEXTS.get(uid, ("", uid)))),
        move_destination=draw(st.sampled_from((*TITLES, "T9"))) if op is Operation.C_MOVE else None,
        own_ae_titles=draw(st.sampled_from((frozenset(), frozenset({"T2"}), frozenset(TITLES)))),
        at=draw(TIMES),
    )


RETRIEVALS = operations(_IDENTIFIER_PAIRS)
IDENTIFIERS = st.builds(
    lambda request, level, keys: IdentifierRequest.of(request, query_level=level, keys=keys),
    RETRIEVALS,
    st.sampled_from((*TYPED_LEVELS, "STUDY", " study", "NOLEVEL")),
    st.sampled_from([frozenset(keys) for keys in ((), *((key,) for key in KEYS), KEYS, KEYS[1:], (0x00100010,))]),
)
ASSOCIATIONS = st.builds(
    lambda asked, uids, scp, own: association(
        *uids,
        principal=asked.principal,
        archive=asked.archive,
        at=asked.at,
        own_ae_titles=own,
        scp_role_sop_classes=scp,
    ),
    operations(),
    st.lists(st.sampled_from(UIDS), max_size=5)
    | st.sampled_from(([STUDY_GET, CT, PRIVATE], [STUDY_MOVE, STUDY_FIND], [GRAYSCALE_PRINT_META, UPS_PULL])),
    st.sampled_from((frozenset(), frozenset(UIDS), frozenset({CT}))),
    st.sampled_from((frozenset(), frozenset({"T2"}), frozenset(TITLES))),
)
