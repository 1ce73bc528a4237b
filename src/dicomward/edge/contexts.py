"""Which associations go to the spool, and which of their contexts are accepted: those that the archive has accepted.

The archive is asked once for each pair of SOP class and transfer syntax; what it said is remembered, and is all that
counts while it can't be asked. Contexts of other services on the same association are the archive's to answer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from dicomward.dicom.pdu import AAssociateRq, PresentationContextAc, PresentationContextRq
from dicomward.vocab.association import PresentationResult
from dicomward.vocab.services import SERVICE_OF_SOP_CLASS, STORAGE_COMMITMENT_PUSH_MODEL, VERIFICATION, Service
from dicomward.vocab.uid import IMPLICIT_VR_LITTLE_ENDIAN

MOST_CONTEXTS: Final = 128
"""Context IDs are the odd numbers of one byte (PS3.8 §9.3.2.2)."""

Pair = tuple[str, str]
"""SOP class UID and transfer syntax UID."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The contexts as they are answered, and for each accepted one its pair, by context ID."""

    contexts: tuple[PresentationContextAc, ...]
    accepted: Mapping[int, Pair]


def is_for_spool(request: AAssociateRq) -> bool:
    """Say if the device may store on an association; only what it stores is ours, whatever else it asks for."""
    return any(_may_store(request, each) for each in request.presentation_contexts)


def _may_store(request: AAssociateRq, context: PresentationContextRq) -> bool:
    # A vendor's own SOP class may be one for objects; what comes on it shows that.
    if SERVICE_OF_SOP_CLASS.get(context.abstract_syntax, Service.STORAGE) is not Service.STORAGE:
        return False
    roles = [each for each in request.user_information.role_selections if each.sop_class_uid == context.abstract_syntax]
    return all(each.scu_role for each in roles)


def is_own_context(request: AAssociateRq, context: PresentationContextRq) -> bool:
    """Say if the agent answers a context without the archive: it stores only, or verifies."""
    service = SERVICE_OF_SOP_CLASS.get(context.abstract_syntax)
    if service is Service.VERIFICATION:
        return True
    takes_back = any(
        each.scp_role and each.sop_class_uid == context.abstract_syntax
        for each in request.user_information.role_selections
    )
    return service is Service.STORAGE and not takes_back


def passed_request(request: AAssociateRq) -> AAssociateRq | None:
    """Return the request for the contexts that are the archive's to answer, with what belongs to them; or None."""
    contexts = tuple(each for each in request.presentation_contexts if not is_own_context(request, each))
    if not contexts:
        return None
    classes = {each.abstract_syntax for each in contexts}
    asked = request.user_information
    return replace(
        request,
        presentation_contexts=contexts,
        user_information=replace(
            asked,
            role_selections=tuple(each for each in asked.role_selections if each.sop_class_uid in classes),
            extended_negotiations=tuple(each for each in asked.extended_negotiations if each.sop_class_uid in classes),
            common_extended_negotiations=tuple(
                each for each in asked.common_extended_negotiations if each.sop_class_uid in classes
            ),
        ),
    )


def asks_for_commitment(request: AAssociateRq) -> bool:
    """Say if an association may ask whether objects are kept: the archive has to have them before."""
    return any(each.abstract_syntax == STORAGE_COMMITMENT_PUSH_MODEL for each in request.presentation_contexts)


def is_for_reports(request: AAssociateRq) -> bool:
    """Say if an association from the archive can only bring reports of Storage Commitment."""
    classes = {each.abstract_syntax for each in request.presentation_contexts}
    return STORAGE_COMMITMENT_PUSH_MODEL in classes and classes <= {STORAGE_COMMITMENT_PUSH_MODEL, VERIFICATION}


def unknown_pairs(request: AAssociateRq, known: Mapping[Pair, bool]) -> tuple[Pair, ...]:
    """Return what the archive was never asked, each pair once, in the order of the request."""
    pairs = (
        (each.abstract_syntax, syntax)
        for each in request.presentation_contexts
        for syntax in each.transfer_syntaxes
        if each.abstract_syntax != VERIFICATION and is_own_context(request, each)
    )
    return tuple(dict.fromkeys(pair for pair in pairs if pair not in known))


def answer_contexts(
    request: AAssociateRq, known: Mapping[Pair, bool], passed: Mapping[int, PresentationContextAc]
) -> Answer:
    """Accept each context in its first transfer syntax that the archive takes; verification is ours.

    `passed` is what the archive has just answered to the others, by context ID; empty if it can't be asked.
    """
    answers: list[PresentationContextAc] = []
    accepted: dict[int, Pair] = {}
    for each in request.presentation_contexts:
        answer = passed.get(each.context_id)
        if answer is not None:
            if answer.result == PresentationResult.ACCEPTANCE:
                accepted[each.context_id] = (each.abstract_syntax, answer.transfer_syntax)
            answers.append(answer)
            continue
        syntax = _accepted_syntax(each, known)
        if syntax is not None:
            accepted[each.context_id] = (each.abstract_syntax, syntax)
            result = PresentationResult.ACCEPTANCE
        elif any((each.abstract_syntax, offered) in known for offered in each.transfer_syntaxes):
            result = PresentationResult.TRANSFER_SYNTAXES_NOT_SUPPORTED
        else:
            result = PresentationResult.NO_REASON
        answers.append(
            PresentationContextAc(
                context_id=each.context_id, result=result, transfer_syntax=syntax or IMPLICIT_VR_LITTLE_ENDIAN
            )
        )
    return Answer(tuple(answers), accepted)


def _accepted_syntax(context: PresentationContextRq, known: Mapping[Pair, bool]) -> str | None:
    if context.abstract_syntax == VERIFICATION:
        return context.transfer_syntaxes[0] if context.transfer_syntaxes else None
    return next((each for each in context.transfer_syntaxes if known.get((context.abstract_syntax, each))), None)


def propose(pairs: Iterable[Pair]) -> tuple[PresentationContextRq, ...]:
    """Return a context for each pair, as many as an association may have."""
    return tuple(
        PresentationContextRq(context_id=2 * number + 1, abstract_syntax=sop_class, transfer_syntaxes=(syntax,))
        for number, (sop_class, syntax) in enumerate(list(dict.fromkeys(pairs))[:MOST_CONTEXTS])
    )
