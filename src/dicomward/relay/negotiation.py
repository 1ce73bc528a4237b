"""What the gateway says on each leg while an association is made: PS3.8 §9.3.2-3, §D; PS3.7 §D.3.

Each function makes one PDU from what the other leg said. docs/relay.md has the same as a table, one row an item; the
test of this module has one test a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import (
    AAssociateAc,
    AAssociateRj,
    AAssociateRq,
    AsyncOperationsWindow,
    PresentationContextAc,
    PresentationContextRq,
    RoleSelection,
    UserInformation,
)
from dicomward.vocab.association import PresentationResult, RejectResult, RejectSource
from dicomward.vocab.uid import APPLICATION_CONTEXT, IMPLICIT_VR_LITTLE_ENDIAN

LEAST_MAXIMUM_LENGTH = 128
"""Bytes of a P-DATA variable field that a peer must be able to read. Real peers state 4 KiB and more; a few bytes would
make us cut each image into millions of PDUs."""

MOST_TRANSFER_SYNTAXES = 50
"""Of one context, towards the acceptor. DCMTK's readers never answer one that has more, and an Orthanc that hangs in it
serves nobody else meanwhile; real devices offer under 30."""

_CONTEXT_RESULTS = frozenset(PresentationResult)
_REJECT_RESULTS = frozenset(RejectResult)
_REJECT_SOURCES = frozenset(RejectSource)

IMPLEMENTATION_CLASS_UID = "2.25.222835477831727847109691559466274088136"
IMPLEMENTATION_VERSION_NAME = "DICOMWARD_0_1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One accepted presentation context, with what the requestor may be in it."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    requestor_is_scu: bool = True
    requestor_is_scp: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Negotiated:
    """What both legs have agreed on, for the time of the association."""

    contexts: Mapping[int, Context]
    maximum_length_towards_requestor: int
    maximum_length_towards_acceptor: int
    window_towards_requestor: int
    window_towards_acceptor: int
    window_granted_to_requestor: int


def clamp_maximum_length(stated: int, ours: int) -> int:
    """Return the smaller of a peer's maximum length and ours; 0 means "no maximum" (PS3.8 §D.1), so ours counts."""
    return ours if stated == 0 else min(stated, ours)


def is_usable_maximum_length(stated: int) -> bool:
    """Say if PDUs that small, or without a maximum (0), can carry messages."""
    return stated == 0 or stated >= LEAST_MAXIMUM_LENGTH


def plan_upstream_request(
    request: AAssociateRq,
    *,
    calling_ae_title: str,
    called_ae_title: str,
    permitted: frozenset[int],
    limits: Limits,
) -> AAssociateRq:
    """Make the A-ASSOCIATE-RQ for the acceptor: only permitted contexts, and the items that belong to them."""
    contexts = tuple(_readable(c) for c in request.presentation_contexts if c.context_id in permitted)
    classes = {c.abstract_syntax for c in contexts}
    asked = request.user_information
    window = asked.async_operations_window
    return AAssociateRq(
        called_ae_title=called_ae_title,
        calling_ae_title=calling_ae_title,
        application_context=APPLICATION_CONTEXT,
        presentation_contexts=contexts,
        user_information=UserInformation(
            maximum_length=clamp_maximum_length(asked.maximum_length, limits.max_pdu_bytes),
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            # Only where the requestor has asked: some archives drop the connection at an item that they don't know.
            async_operations_window=_bounded_window(window, limits) if window else None,
            role_selections=tuple(r for r in asked.role_selections if r.sop_class_uid in classes),
            extended_negotiations=tuple(e for e in asked.extended_negotiations if e.sop_class_uid in classes),
            common_extended_negotiations=tuple(
                e for e in asked.common_extended_negotiations if e.sop_class_uid in classes
            ),
        ),
    )


def _readable(context: PresentationContextRq) -> PresentationContextRq:
    if len(context.transfer_syntaxes) <= MOST_TRANSFER_SYNTAXES:
        return context
    return replace(context, transfer_syntaxes=context.transfer_syntaxes[:MOST_TRANSFER_SYNTAXES])


def is_standard_reject(reject: AAssociateRj) -> bool:
    """Say if PS3.8 §9.3.4 has the result and the source; reasons that it reserves may come to mean something."""
    return reject.result in _REJECT_RESULTS and reject.source in _REJECT_SOURCES


def plan_accept(
    request: AAssociateRq,
    upstream: AAssociateRq,
    accept: AAssociateAc,
    limits: Limits,
    *,
    answers_identity: bool = False,
) -> tuple[AAssociateAc, Negotiated]:
    """Make the A-ASSOCIATE-AC for the requestor from the acceptor's, and say what is agreed.

    A context that wasn't asked for upstream is answered with user rejection; a result or transfer syntax that the
    acceptor had no right to give counts as a refusal of that context. `answers_identity`: we have verified the person
    and say so (59H, empty for the types that we verify: PS3.7 §D.3.3.7.2).
    """
    answers = {answer.context_id: answer for answer in accept.presentation_contexts}
    asked_upstream = {context.context_id: context.transfer_syntaxes for context in upstream.presentation_contexts}
    roles = _agreed_roles(upstream, accept)
    results = []
    contexts = {}
    for proposed in request.presentation_contexts:
        answer = answers.get(proposed.context_id)
        if proposed.context_id not in asked_upstream:
            results.append(_refused(proposed.context_id, PresentationResult.USER_REJECTION))
        elif answer is None:
            results.append(_refused(proposed.context_id, PresentationResult.NO_REASON))
        elif answer.result != PresentationResult.ACCEPTANCE:
            known = answer.result if answer.result in _CONTEXT_RESULTS else PresentationResult.NO_REASON
            results.append(_refused(proposed.context_id, known))
        elif answer.transfer_syntax not in asked_upstream[proposed.context_id]:
            results.append(_refused(proposed.context_id, PresentationResult.TRANSFER_SYNTAXES_NOT_SUPPORTED))
        else:
            results.append(answer)
            role = roles.get(proposed.abstract_syntax)
            contexts[proposed.context_id] = Context(
                context_id=proposed.context_id,
                abstract_syntax=proposed.abstract_syntax,
                transfer_syntax=answer.transfer_syntax,
                requestor_is_scu=role.scu_role if role else True,
                requestor_is_scp=role.scp_role if role else False,
            )
    asked, answered = request.user_information, accept.user_information
    ours = limits.max_pdu_bytes
    towards_requestor = clamp_maximum_length(asked.maximum_length, ours)
    towards_acceptor = clamp_maximum_length(answered.maximum_length, ours)
    window = asked.async_operations_window
    upstream_window = answered.async_operations_window or AsyncOperationsWindow(maximum_invoked=1, maximum_performed=1)
    granted = None
    if window:
        # We serialise towards the acceptor, so the requestor gets our window, whatever the acceptor's is.
        bounded = _bounded_window(window, limits)
        performed = _bounded(
            min(_or_many(window.maximum_performed), _or_many(upstream_window.maximum_performed)), limits
        )
        granted = AsyncOperationsWindow(maximum_invoked=bounded.maximum_invoked, maximum_performed=performed)
    ac = AAssociateAc(
        called_ae_title=request.called_ae_title,
        calling_ae_title=request.calling_ae_title,
        application_context=APPLICATION_CONTEXT,
        presentation_contexts=tuple(results),
        user_information=UserInformation(
            # The acceptor's maximum is mirrored, so that PDUs pass as they stand.
            maximum_length=towards_acceptor,
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            async_operations_window=granted,
            role_selections=tuple(roles.values()),
            user_identity_response=b"" if answers_identity else None,
            extended_negotiations=tuple(
                e
                for e in answered.extended_negotiations
                if e.sop_class_uid in {x.sop_class_uid for x in upstream.user_information.extended_negotiations}
            ),
        ),
    )
    return ac, Negotiated(
        contexts=contexts,
        maximum_length_towards_requestor=towards_requestor,
        maximum_length_towards_acceptor=towards_acceptor,
        window_towards_requestor=granted.maximum_performed if granted else 1,
        window_towards_acceptor=min(granted.maximum_invoked, _or_many(upstream_window.maximum_invoked))
        if granted
        else 1,
        window_granted_to_requestor=granted.maximum_invoked if granted else 1,
    )


def _refused(context_id: int, result: int) -> PresentationContextAc:
    # PS3.8 §9.3.3.2: the transfer syntax of a refused context is there, and not significant.
    return PresentationContextAc(context_id=context_id, result=result, transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN)


def _agreed_roles(upstream: AAssociateRq, accept: AAssociateAc) -> dict[str, RoleSelection]:
    """Return the acceptor's answers to proposed roles; an acceptor can take a role away, never add one."""
    proposed = {role.sop_class_uid: role for role in upstream.user_information.role_selections}
    return {
        answer.sop_class_uid: RoleSelection(
            sop_class_uid=answer.sop_class_uid,
            scu_role=answer.scu_role and proposed[answer.sop_class_uid].scu_role,
            scp_role=answer.scp_role and proposed[answer.sop_class_uid].scp_role,
        )
        for answer in accept.user_information.role_selections
        if answer.sop_class_uid in proposed
    }


def _or_many(operations: int) -> int:
    """PS3.7 §D.3.3.3: 0 operations means "no maximum"."""
    return operations or 0xFFFF


def _bounded(operations: int, limits: Limits) -> int:
    return min(operations, limits.max_operations_window)


def _bounded_window(window: AsyncOperationsWindow, limits: Limits) -> AsyncOperationsWindow:
    return AsyncOperationsWindow(
        maximum_invoked=_bounded(_or_many(window.maximum_invoked), limits),
        maximum_performed=_bounded(_or_many(window.maximum_performed), limits),
    )
