"""The first decision point: may this A-ASSOCIATE-RQ become an association, and with which presentation contexts.

Order: protocol, identity and binding, route, the person at the device, policy for each context, limits. Nothing
upstream has been touched yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypedDict, assert_never

from dicomward.dicom.pdu import AAssociateRj, AAssociateRq
from dicomward.identity.identify import IdentityError, bind, identify_archive, identify_device, identify_legacy_device
from dicomward.identity.person import (
    ClaimError,
    Person,
    PersonClaim,
    PersonRefused,
    PersonUnavailable,
    Verdict,
    read_claim,
    with_person,
)
from dicomward.identity.registry import Archive, Device
from dicomward.limits.network import network_of
from dicomward.relay.correlations import PendingCommitment, PendingMove
from dicomward.relay.inputs import Caller, Instant, Listener
from dicomward.relay.messages import Refusal
from dicomward.relay.negotiation import LEAST_MAXIMUM_LENGTH, is_usable_maximum_length
from dicomward.relay.observe import is_observed
from dicomward.relay.refusals import APPLICATION_CONTEXT_NOT_SUPPORTED, PROTOCOL_VERSION_NOT_SUPPORTED
from dicomward.relay.replicas import serving
from dicomward.relay.rights import ArchiveRights, DeviceRights, Rights
from dicomward.relay.world import World
from dicomward.vocab.principal import Principal
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.uid import APPLICATION_CONTEXT

# What a caller that proves its key gets wrong itself; what a limit or a policy says is no failure of its own.
_FAILURES = frozenset(
    {
        ReasonCode.CALLING_AE_TITLE_NOT_BOUND,
        ReasonCode.CALLED_AE_TITLE_UNKNOWN,
        ReasonCode.NETWORK_NOT_ALLOWED,
        ReasonCode.CERTIFICATE_UNKNOWN,
        ReasonCode.CERTIFICATE_REVOKED,
        ReasonCode.USER_IDENTITY_NOT_CONFIGURED,
        ReasonCode.MALFORMED_PDU,
    }
)


class AssociationFacts(TypedDict, total=False):
    """What every record of an association holds, as far as it is known."""

    association: str
    device: str | None
    role: str | None
    site: str | None
    assurance: str | None
    calling_ae_title: str
    called_ae_title: str
    archive: str | None
    address: str
    certificate_sha256: str | None
    person: str | None
    rule_ids: tuple[str, ...]
    waived: tuple[str, ...]
    policy_revision: str
    registry_revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """An association that may be made: who, to whom, with which contexts, and how it is counted.

    `narrowed_by` is why it has less than it might; `answers_identity`: the requestor gets a 59H, for a verified person.
    """

    principal: Principal
    rights: Rights
    target: Archive | Device
    request: AAssociateRq
    permitted: frozenset[int]
    upstream_calling_ae_title: str
    upstream_called_ae_title: str
    network: str
    floor: bool
    facts: AssociationFacts
    observed: tuple[ReasonCode, ...] = ()
    detail: str | None = None
    narrowed_by: ReasonCode | None = None
    answers_identity: bool = False
    counted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """An association that may not be made. `reject` where the peer gets another code than the reason's own."""

    reason: ReasonCode
    detail: str = ""
    facts: AssociationFacts
    reject: AAssociateRj | None = None

    @property
    def counts_as_failure(self) -> bool:
        """Say if it counts against the certificate that was shown."""
        return self.reason in _FAILURES


class _RefusedError(Exception):
    """Ends the judging with a reason; never leaves this module."""

    def __init__(self, reason: ReasonCode, detail: str = "", reject: AAssociateRj | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail
        self.reject = reject


def judge_caller(world: World, caller: Caller, now: Instant) -> IdentityError | None:
    """Judge a device's certificate as soon as the handshake is over; resumed handshakes are no exception."""
    if caller.listener is not Listener.DEVICE or caller.certificate is None:
        return None
    try:
        identify_device(
            world.registry, caller.certificate, caller.address, now.local, expiry_grace=world.settings.expiry_grace
        )
    except IdentityError as error:
        return error
    return None


def judge_request(
    world: World, caller: Caller, request: AAssociateRq, now: Instant, verdict: Verdict | None = None
) -> Admitted | Rejected | PersonClaim:
    """Judge an A-ASSOCIATE-RQ; an admitted one is counted in the limits.

    A claim comes back where a person has to be verified first: judge again with the `verdict`. Only a device that is
    bound and routed gets that far, so strangers can't try passcodes.
    """
    facts = AssociationFacts(
        association=caller.association,
        calling_ae_title=request.calling_ae_title,
        called_ae_title=request.called_ae_title,
        address=caller.address,
        certificate_sha256=caller.certificate.sha256 if caller.certificate else None,
        policy_revision=world.policy.revision,
        registry_revision=world.registry.revision,
    )
    _note_owner(facts, world, caller)
    try:
        return _judge(world, caller, request, now, facts, verdict)
    except _RefusedError as refused:
        return Rejected(reason=refused.reason, detail=refused.detail, facts=facts, reject=refused.reject)
    except IdentityError as error:
        return Rejected(reason=error.reason, detail=error.detail, facts=facts)


def _judge(
    world: World,
    caller: Caller,
    request: AAssociateRq,
    now: Instant,
    facts: AssociationFacts,
    verdict: Verdict | None,
) -> Admitted | PersonClaim:
    _judge_protocol(world, caller, request)
    rights: Rights
    if caller.listener is Listener.DEVICE:
        principal, target, rights, calling = _judge_device(world, caller, request, now)
        _note_principal(facts, principal, target)
        claim = _claim_of(request, principal)
        if claim is not None:
            if verdict is None:
                return claim
            facts["person"] = claim.name or None
            principal = _judge_person(principal, verdict, facts)
            facts["assurance"] = principal.assurance.label
            rights = DeviceRights(world, principal, target)
    elif caller.listener is Listener.LEGACY:
        principal, target, rights, calling = _judge_legacy_device(world, caller, request, now)
        _note_principal(facts, principal, target)
    else:
        principal, target, rights, calling = _judge_archive(world, caller, request)
        _note_principal(facts, principal, target)
    contexts = rights.judge_contexts(request, now)
    facts["rule_ids"] = contexts.rule_ids
    if contexts.refusal is not None:
        facts["rule_ids"] = contexts.refusal.rule_ids
        raise _why_none(contexts.refusal, principal)
    network = network_of(caller.address)
    lifts = contexts.lifts
    admit = partial(
        world.limits.admit_association,
        device=principal.device,
        role=principal.role,
        network=network,
        archive=target.name,
        floor=contexts.floor,
        now=now.monotonic,
    )
    reason = admit()
    if reason is not None:
        lift = rights.lift(reason, now)
        if lift is None:
            raise _RefusedError(reason)
        reason = admit(lifted=True, own_only=is_observed(lift))
        if reason is ReasonCode.ARCHIVE_ASSOCIATIONS and is_observed(lift):
            raise _RefusedError(reason)
        lifts = (*lifts, lift)
    if lifts:
        facts["rule_ids"] = (*contexts.rule_ids, *dict.fromkeys(lift.rule_id for lift in lifts))
        facts["waived"] = tuple(dict.fromkeys(lift.reason for lift in lifts))
    if caller.certificate is not None and caller.listener is Listener.DEVICE:
        _note_moved(world, principal)
    proposed = len(request.presentation_contexts)
    left = len(contexts.permitted)
    detail = None if left == proposed else f"{left} of {proposed} presentation contexts permitted"
    narrowed_by = ReasonCode(principal.floor_only) if principal.floor_only is not None else None
    if isinstance(verdict, PersonUnavailable):
        narrowed_by = narrowed_by or ReasonCode.PERSON_VERIFIER_UNAVAILABLE
        detail = "; ".join(part for part in (verdict.detail, detail) if part)
    identity = request.user_information.user_identity
    return Admitted(
        principal=principal,
        rights=rights,
        target=target,
        request=request,
        permitted=contexts.permitted,
        upstream_calling_ae_title=calling,
        upstream_called_ae_title=target.ae_title if isinstance(target, Archive) else request.called_ae_title,
        network=network,
        floor=contexts.floor,
        facts=facts,
        observed=tuple(dict.fromkeys(lift.reason for lift in lifts if is_observed(lift))),
        detail=detail,
        narrowed_by=narrowed_by,
        answers_identity=bool(principal.person and identity is not None and identity.positive_response_requested),
    )


def _note_moved(world: World, principal: Principal) -> None:
    """Remember that a device of a legacy zone can do TLS: from now on its plaintext is refused."""
    device = world.registry.device_by_name(principal.device)
    if device is not None and device.legacy_zone:
        world.moved.note(device.name, principal.certificate_sha256)


def _note_owner(facts: AssociationFacts, world: World, caller: Caller) -> None:
    """Note whose key was proved, so that a denial is found under the device whatever it is denied for."""
    if caller.listener is not Listener.DEVICE or caller.certificate is None:
        return
    owner = world.registry.device_by_certificate(caller.certificate.sha256)
    if owner is not None:
        facts["device"] = owner.name
        facts["role"] = owner.role
        facts["site"] = owner.site


def _note_principal(facts: AssociationFacts, principal: Principal, target: Archive | Device) -> None:
    facts["device"] = principal.device
    facts["role"] = principal.role
    facts["site"] = principal.site
    facts["assurance"] = principal.assurance.label
    facts["archive"] = target.name


def _claim_of(request: AAssociateRq, principal: Principal) -> PersonClaim | None:
    """Return what the request says about a person."""
    identity = request.user_information.user_identity
    if identity is None:
        return None
    try:
        return read_claim(
            identity.type,
            identity.primary,
            identity.secondary,
            device=principal.device,
            address=principal.address,
        )
    except ClaimError as error:
        raise _RefusedError(ReasonCode.USER_IDENTITY_REFUSED, str(error)) from error


def _judge_person(principal: Principal, verdict: Verdict, facts: AssociationFacts) -> Principal:
    """Return the principal with its person; without one where nobody could tell."""
    match verdict:
        case Person():
            facts["person"] = verdict.name
            return with_person(principal, verdict)
        case PersonRefused(reason=reason, detail=detail, name=name):
            facts["person"] = name or facts["person"]
            raise _RefusedError(reason, detail)
        case PersonUnavailable():
            return principal
        case _:
            assert_never(verdict)


def _why_none(refusal: Refusal, principal: Principal) -> _RefusedError:
    """Return why no context is left; where only the floor is, the operator reads what has narrowed it."""
    if refusal.reason is ReasonCode.NOT_CONFIRMED:
        return _RefusedError(refusal.reason, f"only C-ECHO is open until: dicomward device confirm {principal.device}")
    if refusal.reason is not ReasonCode.CLINICAL_FLOOR_ONLY:
        return _RefusedError(refusal.reason, refusal.detail)
    if principal.floor_only == ReasonCode.CERTIFICATE_BACK_OFF:
        return _RefusedError(ReasonCode.CERTIFICATE_BACK_OFF, "only the clinical floor is left to it for a while")
    return _RefusedError(refusal.reason, f"because of {principal.floor_only}")


def _judge_protocol(world: World, caller: Caller, request: AAssociateRq) -> None:
    if not request.protocol_version & 1:
        raise _RefusedError(
            ReasonCode.MALFORMED_PDU, "protocol version without bit 0", reject=PROTOCOL_VERSION_NOT_SUPPORTED
        )
    if request.application_context != APPLICATION_CONTEXT:
        raise _RefusedError(
            ReasonCode.MALFORMED_PDU, "not the DICOM application context", reject=APPLICATION_CONTEXT_NOT_SUPPORTED
        )
    if not is_usable_maximum_length(request.user_information.maximum_length):
        raise _RefusedError(
            ReasonCode.MALFORMED_PDU,
            f"maximum length of {request.user_information.maximum_length} bytes, less than {LEAST_MAXIMUM_LENGTH}",
        )
    identity = request.user_information.user_identity
    if identity is not None and not (caller.listener is Listener.DEVICE and world.verifies_identity(identity.type)):
        # Trap: an identity that nobody verifies must not look as if it had been accepted.
        raise _RefusedError(
            ReasonCode.USER_IDENTITY_NOT_CONFIGURED,
            f"user identity of type {identity.type}, and no verifier is configured for it",
        )


def _judge_device(
    world: World, caller: Caller, request: AAssociateRq, now: Instant
) -> tuple[Principal, Archive | Device, Rights, str]:
    certificate = caller.certificate
    if certificate is None:
        raise _RefusedError(ReasonCode.NO_CERTIFICATE)
    identified = identify_device(
        world.registry, certificate, caller.address, now.local, expiry_grace=world.settings.expiry_grace
    )
    principal = bind(identified, request.calling_ae_title, certificate, caller.address)
    if principal.floor_only is None:
        if world.limits.certificate_back_off(certificate.sha256, now.monotonic) > 0:
            principal = replace(principal, floor_only=ReasonCode.CERTIFICATE_BACK_OFF)
        elif (floor := world.floor_reason(principal.site)) is not None:
            principal = replace(principal, floor_only=floor)
    target = _target_of_device(world, request)
    return principal, target, DeviceRights(world, principal, target), request.calling_ae_title


def _judge_legacy_device(
    world: World, caller: Caller, request: AAssociateRq, now: Instant
) -> tuple[Principal, Archive | Device, Rights, str]:
    """Judge a device that calls in plaintext, in a zone that may be over by now."""
    zone = world.legacy_zone(caller.listener_name)
    if zone is None:
        raise _RefusedError(ReasonCode.NOT_IN_LEGACY_ZONE, f"there is no zone {caller.listener_name!r}")
    registered = world.registry.device_by_ae_title(request.calling_ae_title)
    _device, principal = identify_legacy_device(
        world.registry,
        zone,
        calling_ae_title=request.calling_ae_title,
        address=caller.address,
        has_moved=registered is not None and world.moved.has_moved(registered),
        now=now.local,
    )
    if principal.floor_only is None and (floor := world.floor_reason(principal.site)) is not None:
        principal = replace(principal, floor_only=floor)
    target = _target_of_device(world, request)
    return principal, target, DeviceRights(world, principal, target, zone), request.calling_ae_title


def _target_of_device(world: World, request: AAssociateRq) -> Archive | Device:
    target = world.registry.route(request.called_ae_title)
    if target is None:
        raise _RefusedError(
            ReasonCode.CALLED_AE_TITLE_UNKNOWN,
            "no archive, and no device with an address, has the called AE title",
        )
    return serving(world.registry, target, world.is_down)


def _judge_archive(
    world: World, caller: Caller, request: AAssociateRq
) -> tuple[Principal, Archive | Device, Rights, str]:
    archive, principal = identify_archive(
        world.registry,
        calling_ae_title=request.calling_ae_title,
        address=caller.address,
        certificate=caller.certificate,
    )
    target = world.registry.route(request.called_ae_title)
    if target is None or target.name == archive.name:
        raise _RefusedError(
            ReasonCode.CALLED_AE_TITLE_UNKNOWN,
            "no device with an address has the called AE title: see `dicomward device add --address`",
        )
    rights = ArchiveRights(world, principal, target, request.called_ae_title)
    pending: list[PendingMove | PendingCommitment] = [
        *world.correlations.moves_towards(archive.name, request.called_ae_title),
        *world.correlations.commitments_towards(archive.name, request.called_ae_title),
    ]
    return principal, target, rights, _known_as(archive, pending)


def _known_as(archive: Archive, pending: Sequence[PendingMove | PendingCommitment]) -> str:
    """Return the title under which the device knows the archive: the one that it called, where that is unambiguous."""
    called = {each.called_ae_title for each in pending}
    return called.pop() if len(called) == 1 else archive.ae_title
