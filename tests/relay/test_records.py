"""The facts in the records of an operation."""

from dicomward.audit.event import OperationAllowed, OperationCompleted, OperationDenied
from dicomward.relay.effects import Record
from dicomward.relay.inputs import Leg
from dicomward.relay.messages import Exchange, Refusal
from dicomward.relay.negotiation import Context
from dicomward.relay.records import Records
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Assurance, Principal
from dicomward.vocab.reason import ReasonCode
from tests.relay.wire import STUDY_FIND, c_find_rq, response_to
from tests.relay.world import FakeWorld

PRINCIPAL = Principal(
    device="ws1", calling_ae_title="WS1", role="workstation", site="main", assurance=Assurance.TLS_DEVICE, address="::1"
)
CONTEXT = Context(
    context_id=5,
    abstract_syntax=STUDY_FIND,
    transfer_syntax="1.2.840.10008.1.2",
    requestor_is_scu=True,
    requestor_is_scp=False,
)


def records() -> Records:
    return Records(FakeWorld(), PRINCIPAL, {5: CONTEXT}, association="a-1", archive="pacs", called_ae_title="PACS_GW")


def exchange(**changes: object) -> Exchange:
    values: dict[str, object] = {
        "invoker": Leg.REQUESTOR,
        "context_id": 5,
        "command": c_find_rq(7),
        "operation": Operation.C_FIND,
        "started": 10.0,
        "rule_ids": ("reads",),
        "query_level": "STUDY",
        "matches": 3,
        "bytes": 900,
    }
    return Exchange(**values | changes)  # type: ignore[arg-type]


def test_every_record_says_who_asked_whom_for_what() -> None:
    facts = records().facts(exchange())
    assert (facts["association"], facts["device"], facts["role"], facts["site"]) == (
        "a-1",
        "ws1",
        "workstation",
        "main",
    )
    assert (facts["archive"], facts["called_ae_title"], facts["address"]) == ("pacs", "PACS_GW", "::1")
    assert (facts["operation"], facts["message_id"], facts["query_level"]) == ("c-find", 7, "STUDY")
    assert (facts["rule_ids"], facts["policy_revision"], facts["direction"]) == (
        ("reads",),
        "0123456789abcdef",
        "requestor",
    )


def test_allowed_and_denied() -> None:
    assert records().allowed(exchange()) == Record(OperationAllowed(**records().facts(exchange())))
    denied = records().denied(exchange(), Refusal(ReasonCode.QUERY_RATE), 0xA700).event
    assert isinstance(denied, OperationDenied)
    assert (denied.reason, denied.status, denied.detail) == (ReasonCode.QUERY_RATE, 0xA700, None)


def test_the_end_holds_what_the_invoker_was_told() -> None:
    event = (
        records().completed(exchange(cut=ReasonCode.MATCHES_PER_QUERY), response_to(c_find_rq(7), 0xA700), 10.25).event
    )
    assert isinstance(event, OperationCompleted)
    assert (event.reason, event.status, event.matches) == (ReasonCode.MATCHES_PER_QUERY, 0xA700, 3)
    assert (event.bytes, event.duration_ms) == (900, 250)


def test_only_queries_have_matches() -> None:
    event = records().completed(exchange(operation=Operation.C_MOVE), response_to(c_find_rq(7)), 10.0).event
    assert isinstance(event, OperationCompleted)
    assert event.matches is None


def test_what_had_no_result_has_the_reason_of_the_end() -> None:
    event = records().unfinished(exchange(matches=0), ReasonCode.PEER_ABORTED, 11.0).event
    assert isinstance(event, OperationCompleted)
    assert (event.reason, event.status, event.matches, event.duration_ms) == (ReasonCode.PEER_ABORTED, None, None, 1000)
