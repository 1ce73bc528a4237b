"""New certificates for the gateway itself, issued by the local CA for the same names, in the same files."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from dicomward.io.ca.local import (
    LEAF_DAYS,
    KeyKind,
    LocalCa,
    LocalCaError,
    is_issued_by,
    load_certificates,
    write_new_file,
)
from dicomward.settings import CertificatePair, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """One renewed certificate."""

    pair: CertificatePair
    hosts: tuple[str, ...]
    not_after: datetime


def renew_gateway_certificates(
    settings: Settings, now: datetime, *, more_hosts: Iterable[str] = (), days: int = LEAF_DAYS
) -> tuple[Renewed, ...]:
    """Replace the gateway's certificates and keys. Raises LocalCaError, OSError.

    All are issued before the first file is replaced. One that somebody else issued is an error: it isn't ours to renew.
    """
    authority = LocalCa.load(settings.tls.client_ca.parent)
    planned = []
    for pair in settings.tls.certificates:
        old = load_certificates(pair.certificate)[0]
        if not is_issued_by(old, [authority.certificate]):
            raise LocalCaError(f"{pair.certificate} is not of the local CA; renew it where it was issued")
        kind = KeyKind.RSA if isinstance(old.public_key(), rsa.RSAPublicKey) else KeyKind.ECDSA
        hosts = tuple(dict.fromkeys((*_hosts_of(old), *more_hosts)))
        planned.append((pair, hosts, authority.issue_gateway(kind, hosts, now, days=days)))
    for pair, _hosts, issued in planned:
        # If we stop between the two, check-config finds that they don't match, and repeating repairs it.
        _replace(pair.key, issued.key_pem, 0o600)
        _replace(pair.certificate, issued.certificate_pem, 0o644)
    return tuple(Renewed(pair=pair, hosts=hosts, not_after=issued.record.not_after) for pair, hosts, issued in planned)


def _hosts_of(certificate: x509.Certificate) -> tuple[str, ...]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = names.get_values_for_type(x509.IPAddress)
    return (*names.get_values_for_type(x509.DNSName), *map(str, addresses))


def _replace(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    write_new_file(temporary, data, mode)
    owner = path.stat()
    # With sudo: the user that the gateway runs as must still be able to read it.
    if os.geteuid() == 0:
        os.chown(temporary, owner.st_uid, owner.st_gid)
    temporary.replace(path)
