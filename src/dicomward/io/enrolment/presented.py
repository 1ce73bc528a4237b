"""Who asks over mutual TLS: a registered device that is active, within its dates, and where it belongs."""

import hashlib
from datetime import datetime, timedelta

from cryptography import x509

from dicomward.enrolment.http import Request
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.identity.certificate import PeerCertificate
from dicomward.identity.identify import Identified, IdentityError, identify_device
from dicomward.identity.registry import RegistrySnapshot
from dicomward.vocab.reason import ReasonCode


def presented_certificate(request: Request) -> bytes:
    """Return the certificate (DER) that was shown over TLS. Raises EnrolmentRefusedError."""
    presented = request.peer.certificate_der
    if presented is None:
        raise EnrolmentRefusedError(ReasonCode.CREDENTIALS_MISSING, "no certificate was shown over TLS")
    return presented


def identify_presented(
    registry: RegistrySnapshot, request: Request, now: datetime, *, expiry_grace: timedelta
) -> Identified:
    """Return the device that asks, as the gateway would know it. Raises EnrolmentRefusedError."""
    der = presented_certificate(request)
    read = x509.load_der_x509_certificate(der)
    shown = PeerCertificate(
        sha256=hashlib.sha256(der).hexdigest(),
        not_before=read.not_valid_before_utc,
        not_after=read.not_valid_after_utc,
        subject=read.subject.rfc4514_string(),
    )
    try:
        return identify_device(registry, shown, request.peer.address, now, expiry_grace=expiry_grace)
    except IdentityError as error:
        raise EnrolmentRefusedError(error.reason, error.detail) from error
