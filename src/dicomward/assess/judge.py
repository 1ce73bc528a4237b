"""The verdict on each control of a DIMSE port, from what its probes have seen.

Rules of this file: PASS needs a refusal that was seen. Silence, congestion and answers that can mean two things are
INCONCLUSIVE; what was not tried is NOT_RUN, with its reason. Where a product accepts contexts and refuses at the
operation, contexts prove nothing.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final

from dicomward.assess.isolation import Verdict
from dicomward.assess.observation import Control, ControlResult
from dicomward.assess.plan import GETS, MOVES, PATIENT_FIND, STORAGE, STORE, STUDY_FIND, VERIFICATION, WORKLIST_FIND
from dicomward.assess.seen import (
    AssociationSeen,
    CertificateSeen,
    DimseSeen,
    OperationSeen,
    Outcome,
    RateSeen,
    TlsFacts,
)

# PS3.7 Annex C: SOP class not supported, not authorised, unrecognised operation, no such SOP class.
_REFUSALS: Final = frozenset({0x0122, 0x0124, 0x0211, 0x0118})
_PENDING: Final = frozenset({0xFF00, 0xFF01})
_WEAK_HASHES: Final = frozenset({"md5", "sha1"})
_LEAST_RSA_BITS: Final = 2048
_LEAST_CURVE_BITS: Final = 224
_DICOM_CONTROLS: Final = (
    Control.CALLING_AE_TITLE, Control.CALLED_AE_TITLE, Control.FACTORY_AE_TITLE, Control.USER_IDENTITY, Control.ECHO,
    Control.FIND, Control.GET, Control.MOVE, Control.STORE, Control.WORKLIST, Control.STORAGE_CONTEXTS,
    Control.RATE_LIMIT,
)  # fmt: skip
_CERTIFICATE_CONTROLS: Final = (
    Control.CERTIFICATE_EXPIRY, Control.CERTIFICATE_NAME, Control.CERTIFICATE_KEY, Control.CERTIFICATE_CHAIN,
)  # fmt: skip

_Judgement = tuple[Verdict, str]


def judge_dimse(
    seen: DimseSeen,
    *,
    tls: TlsFacts | None,
    names: Collection[str],
    now: datetime,
    host_offers_tls: bool = False,
    decides_later: bool = False,
) -> tuple[ControlResult, ...]:
    """Return the verdict on every control of a DIMSE port.

    `tls` is None on a plaintext port; `names` are the address and the host name under which the server is called;
    `host_offers_tls`: another port of the same address speaks DICOM over TLS.
    """
    results = judge_tls(tls, names=names, now=now, host_offers_tls=host_offers_tls, stopped=seen.stopped)
    if tls is not None and tls.wants_certificate:
        results += [_of(each, _behind_certificate(each)) for each in _DICOM_CONTROLS]
    else:
        results += _judge_dicom(seen, decides_later=decides_later)
    return tuple(results)


def _of(control: Control, judgement: _Judgement) -> ControlResult:
    return ControlResult(control=control, verdict=judgement[0], why=judgement[1])


def _behind_certificate(control: Control) -> _Judgement:
    if control in (
        Control.CALLING_AE_TITLE,
        Control.CALLED_AE_TITLE,
        Control.FACTORY_AE_TITLE,
        Control.USER_IDENTITY,
        Control.RATE_LIMIT,
    ):
        return Verdict.NOT_RUN, "without a client certificate there is no association to see it in"
    return Verdict.PASS, "strangers get no association: TLS wants a client certificate"


# --- TLS -------------------------------------------------------------------------------------------------------------


def judge_tls(
    tls: TlsFacts | None, *, names: Collection[str], now: datetime, host_offers_tls: bool, stopped: str = ""
) -> list[ControlResult]:
    """Return the verdicts on TLS and the certificate."""
    if tls is None:
        offered = (
            (Verdict.PASS, "another port of this address offers it")
            if host_offers_tls
            else (Verdict.FAIL, "no port that was looked at offers DICOM over TLS")
        )
        plain = (Verdict.NOT_RUN, "the port speaks plaintext")
        return [
            _of(Control.TLS_OFFERED, offered),
            _of(Control.TLS_REQUIRED, (Verdict.FAIL, "this port takes DICOM in plaintext")),
            _of(Control.TLS_VERSION, plain),
            *(_of(each, plain) for each in _CERTIFICATE_CONTROLS),
            _of(Control.CLIENT_CERTIFICATE, plain),
        ]
    return [
        _of(Control.TLS_OFFERED, (Verdict.PASS, f"{tls.version} {tls.cipher}".strip())),
        _of(Control.TLS_REQUIRED, (Verdict.PASS, "plaintext was not answered on this port")),
        _of(Control.TLS_VERSION, _version(tls, stopped)),
        *_judge_certificate(tls, names, now),
        _of(Control.CLIENT_CERTIFICATE, _client_certificate(tls)),
    ]


def _version(tls: TlsFacts, stopped: str) -> _Judgement:
    if tls.obsolete:
        return Verdict.FAIL, f"it takes {', '.join(tls.obsolete)}"
    if not tls.obsolete_was_tried:
        return Verdict.NOT_RUN, stopped or "obsolete versions were not tried"
    return Verdict.PASS, f"versions below 1.2 are refused; {tls.version or 'a newer one'} is taken"


def _client_certificate(tls: TlsFacts) -> _Judgement:
    if tls.wants_certificate:
        return Verdict.PASS, "without one the connection ends"
    return Verdict.FAIL, "an association was answered without one"


def _judge_certificate(tls: TlsFacts, names: Collection[str], now: datetime) -> list[ControlResult]:
    certificate = tls.certificate
    if certificate is None:
        return [_of(each, (Verdict.INCONCLUSIVE, "its certificate was not shown")) for each in _CERTIFICATE_CONTROLS]
    return [
        _of(Control.CERTIFICATE_EXPIRY, _expiry(certificate, now)),
        _of(Control.CERTIFICATE_NAME, _name(certificate, names)),
        _of(Control.CERTIFICATE_KEY, _key(certificate)),
        _of(Control.CERTIFICATE_CHAIN, _chain(tls, certificate)),
    ]


def _expiry(certificate: CertificateSeen, now: datetime) -> _Judgement:
    if now < certificate.not_before:
        return Verdict.FAIL, f"it is valid only from {certificate.not_before:%Y-%m-%d}"
    if now >= certificate.not_after:
        return Verdict.FAIL, f"it ended on {certificate.not_after:%Y-%m-%d}"
    soon = ": within 30 days" if certificate.not_after - now < timedelta(days=30) else ""
    return Verdict.PASS, f"it ends on {certificate.not_after:%Y-%m-%d}{soon}"


def _name(certificate: CertificateSeen, names: Collection[str]) -> _Judgement:
    stated = (*certificate.dns_names, *certificate.addresses)
    if not stated:
        return Verdict.FAIL, "it names no host: there is no subject alternative name"
    if any(_is_same_name(each, name) for each in stated for name in names):
        return Verdict.PASS, "it names the host"
    if certificate.dns_names and all(_is_address(name) for name in names):
        return Verdict.INCONCLUSIVE, f"it names {', '.join(stated[:4])}; the server was called by its address"
    return Verdict.FAIL, f"it names {', '.join(stated[:4])}"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_same_name(stated: str, name: str) -> bool:
    if _is_address(stated) and _is_address(name):
        return ip_address(stated) == ip_address(name)
    one, other = stated.lower().rstrip("."), name.lower().rstrip(".")
    if one.startswith("*."):
        return other.partition(".")[2] == one[2:]
    return one == other


def _key(certificate: CertificateSeen) -> _Judgement:
    what = f"{certificate.key_type} {certificate.key_bits} bits, {certificate.signature_hash or 'no hash of its own'}"
    least = _LEAST_RSA_BITS if certificate.key_type in ("RSA", "DSA") else _LEAST_CURVE_BITS
    if certificate.key_bits < least or certificate.signature_hash in _WEAK_HASHES or certificate.key_type == "DSA":
        return Verdict.FAIL, what
    return Verdict.PASS, what


def _chain(tls: TlsFacts, certificate: CertificateSeen) -> _Judgement:
    if tls.chain_problem is None:
        return Verdict.NOT_RUN, "it was not checked"
    if not tls.chain_problem:
        return Verdict.PASS, "it leads to a CA that is trusted"
    if tls.trust_is_own or certificate.is_self_signed:
        return Verdict.FAIL, tls.chain_problem
    return Verdict.INCONCLUSIVE, f"{tls.chain_problem}; with ca_file in the scope it is checked against your own CA"


# --- DICOM -----------------------------------------------------------------------------------------------------------


def _judge_dicom(seen: DimseSeen, *, decides_later: bool) -> list[ControlResult]:
    best = seen.best
    if best is None:
        return [_of(each, (Verdict.NOT_RUN, seen.stopped or "no association was tried")) for each in _DICOM_CONTROLS]
    results = [
        _of(Control.CALLING_AE_TITLE, _calling(seen, best)),
        _of(Control.CALLED_AE_TITLE, _called(seen.hello)),
        _of(Control.FACTORY_AE_TITLE, _factory(seen)),
        _of(Control.USER_IDENTITY, _user_identity(best)),
    ]
    if not best.is_accepted:
        operation = _without_association(seen, best)
        controls = _DICOM_CONTROLS[_DICOM_CONTROLS.index(Control.ECHO) :]
        return results + [
            _of(each, operation if each is not Control.RATE_LIMIT else _rate_without_association(best))
            for each in controls
        ]
    later = decides_later or any(_is_refused(each) for each in (seen.echo, seen.find, seen.worklist))
    return [
        *results,
        _of(Control.ECHO, _operation(seen.echo, best, (VERIFICATION,), seen.stopped, "C-ECHO")),
        _of(Control.FIND, _operation(seen.find, best, (STUDY_FIND, PATIENT_FIND), seen.stopped, "C-FIND")),
        _of(Control.GET, _context(best, GETS, "C-GET", later=later)),
        _of(Control.MOVE, _context(best, MOVES, "C-MOVE", later=later)),
        _of(Control.STORE, _context(best, (STORE,), "C-STORE", later=later)),
        _of(Control.WORKLIST, _operation(seen.worklist, best, (WORKLIST_FIND,), seen.stopped, "the worklist query")),
        _of(Control.STORAGE_CONTEXTS, _storage(best, later=later)),
        _of(Control.RATE_LIMIT, _rate(seen.rate, seen.stopped)),
    ]


def _in_words(association: AssociationSeen) -> str:
    if association.outcome is Outcome.REJECTED:
        return f"rejected (source {association.source}, reason {association.reason})"
    words = {
        Outcome.ABORTED: "aborted",
        Outcome.CLOSED: "the connection was closed",
        Outcome.SILENT: "there was no answer in time",
        Outcome.BROKEN: f"the answer broke the protocol: {association.detail}",
    }
    return words.get(association.outcome, association.outcome.value)


def _calling(seen: DimseSeen, best: AssociationSeen) -> _Judgement:
    if best.is_accepted and seen.hello is not None and best.calling_ae_title != seen.hello.calling_ae_title:
        return Verdict.PASS, "an unknown calling AE title was not recognised; one of a factory was"
    if best.is_accepted:
        return Verdict.FAIL, f"{best.calling_ae_title}, which it can't know, was accepted"
    if best.says_calling:
        return Verdict.PASS, "the calling AE title was not recognised"
    if best.says_called:
        return Verdict.INCONCLUSIVE, _no_called_title(seen)
    return Verdict.INCONCLUSIVE, f"it does not say why: {_in_words(best)}"


def _no_called_title(seen: DimseSeen) -> str:
    if seen.known_titles:
        return "none of the called AE titles of the scope was recognised"
    return "the called AE title was not recognised; name it in called_ae_titles to see more"


def _called(hello: AssociationSeen | None) -> _Judgement:
    if hello is None:
        return Verdict.NOT_RUN, "it was not tried"
    if hello.is_accepted:
        return Verdict.FAIL, f"it answers to {hello.called_ae_title}"
    if hello.says_called:
        return Verdict.PASS, "an unknown called AE title was not recognised"
    if hello.says_calling:
        return Verdict.INCONCLUSIVE, "the calling AE title was refused first"
    return Verdict.INCONCLUSIVE, f"it does not say why: {_in_words(hello)}"


def _factory(seen: DimseSeen) -> _Judgement:
    if not seen.factory_is_allowed:
        return Verdict.NOT_RUN, "the scope does not allow it (factory_titles)"
    if seen.hello is not None and seen.hello.is_accepted:
        return Verdict.NOT_RUN, "any title is accepted"
    if not seen.factory:
        return Verdict.NOT_RUN, seen.stopped or "it was not tried"
    for each in seen.factory:
        if each.is_accepted:
            return Verdict.FAIL, f"called {each.called_ae_title}, calling {each.calling_ae_title} was accepted"
    if all(each.outcome is Outcome.REJECTED and not each.says_busy for each in seen.factory):
        return Verdict.PASS, f"{len(seen.factory)} of them were rejected"
    return Verdict.INCONCLUSIVE, "not every one of them was answered"


def _user_identity(best: AssociationSeen) -> _Judgement:
    if best.is_accepted:
        return Verdict.FAIL, "an association without a user identity was accepted"
    return Verdict.INCONCLUSIVE, f"{_in_words(best)}; whether a user identity would help is not tried"


def _without_association(seen: DimseSeen, best: AssociationSeen) -> _Judgement:
    if best.says_calling:
        return Verdict.PASS, "strangers get no association: the calling AE title was not recognised"
    if best.says_called:
        return Verdict.INCONCLUSIVE, _no_called_title(seen)
    if best.outcome is Outcome.REJECTED and not best.says_busy and seen.known is best:
        return Verdict.PASS, f"strangers get no association: {_in_words(best)}"
    return Verdict.INCONCLUSIVE, f"no association: {_in_words(best)}"


def _rate_without_association(best: AssociationSeen) -> _Judgement:
    if best.says_busy:
        return Verdict.INCONCLUSIVE, f"{_in_words(best)}: a limit, or an overload"
    return Verdict.NOT_RUN, "there is no association to repeat"


def _is_refused(operation: OperationSeen | None) -> bool:
    """Say if an operation was refused on a context that had been accepted."""
    return operation is not None and (
        operation.outcome in (Outcome.ABORTED, Outcome.CLOSED)
        or (operation.outcome is Outcome.ANSWERED and operation.status in _REFUSALS)
    )


def _operation(
    operation: OperationSeen | None, best: AssociationSeen, contexts: Sequence[str], stopped: str, name: str
) -> _Judgement:
    if not best.accepted.intersection(contexts):
        return Verdict.PASS, f"no presentation context for {name} was accepted"
    if operation is None:
        return Verdict.NOT_RUN, stopped or f"{name} was not sent"
    match operation.outcome:
        case Outcome.ANSWERED if operation.status == 0 or operation.status in _PENDING:
            return Verdict.FAIL, f"{name} of a stranger was answered (status {operation.status:04X}H)"
        case Outcome.ANSWERED if operation.status in _REFUSALS:
            return Verdict.PASS, f"{name} was refused (status {operation.status:04X}H)"
        case Outcome.ANSWERED:
            return Verdict.INCONCLUSIVE, f"{name} failed (status {operation.status:04X}H): refused, or unable"
        case Outcome.ABORTED:
            return Verdict.PASS, f"{name} was refused: the association was aborted"
        case Outcome.CLOSED:
            return Verdict.INCONCLUSIVE, f"the connection was closed at {name}: refused, or broken"
    return Verdict.INCONCLUSIVE, f"{name}: {operation.detail or operation.outcome}"


def _context(best: AssociationSeen, contexts: Sequence[str], name: str, *, later: bool) -> _Judgement:
    if not best.accepted.intersection(contexts):
        return Verdict.PASS, f"no presentation context for {name} was accepted"
    if later:
        return Verdict.INCONCLUSIVE, f"a context for {name} was accepted, but this server decides at the operation"
    return Verdict.FAIL, f"a presentation context for {name} was accepted; {name} itself was not sent"


def _storage(best: AssociationSeen, *, later: bool) -> _Judgement:
    count = len(best.accepted.intersection(STORAGE))
    if not count:
        return Verdict.PASS, f"none of {len(STORAGE)} storage contexts was accepted"
    if later:
        return (
            Verdict.INCONCLUSIVE,
            f"{count} of {len(STORAGE)} storage contexts were accepted, but this server decides at the operation",
        )
    return Verdict.FAIL, f"{count} of {len(STORAGE)} storage contexts were accepted: records can be added or replaced"


def _rate(rate: RateSeen | None, stopped: str) -> _Judgement:
    if rate is None or not rate.tried:
        return Verdict.NOT_RUN, stopped or "the scope does not ask for it, or the network is fragile"
    if rate.ended:
        return Verdict.PASS, f"after {rate.accepted} associations: {rate.ended}"
    return Verdict.FAIL, f"{rate.accepted} associations one after the other were all accepted"
