"""Which associations go to the spool, and which of their contexts are accepted: those that the archive has accepted.

The archive is asked once for each pair of SOP class and transfer syntax; what it said is remembered, and is all that
counts while it can't be asked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
    """Say if an association only stores (and perhaps verifies): everything else needs the archive's own answer."""
    services = {SERVICE_OF_SOP_CLASS.get(each.abstract_syntax) for each in request.presentation_contexts}
    takes_back = any(each.scp_role for each in request.user_information.role_selections)
    return Service.STORAGE in services and services <= {Service.STORAGE, Service.VERIFICATION} and not takes_back


def asks_for_commitment(request: AAssociateRq) -> bool:
    """Say if an association may ask whether objects are kept: the archive has to have them before."""
    return any(each.abstract_syntax == STORAGE_COMMITMENT_PUSH_MODEL for each in request.presentation_contexts)


def unknown_pairs(request: AAssociateRq, known: Mapping[Pair, bool]) -> tuple[Pair, ...]:
    """Return what the archive was never asked, each pair once, in the order of the request."""
    pairs = (
        (each.abstract_syntax, syntax)
        for each in request.presentation_contexts
        for syntax in each.transfer_syntaxes
        if each.abstract_syntax != VERIFICATION
    )
    return tuple(dict.fromkeys(pair for pair in pairs if pair not in known))


def answer_contexts(request: AAssociateRq, known: Mapping[Pair, bool]) -> Answer:
    """Accept each context in its first transfer syntax that the archive takes; verification is ours."""
    answers: list[PresentationContextAc] = []
    accepted: dict[int, Pair] = {}
    for each in request.presentation_contexts:
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
