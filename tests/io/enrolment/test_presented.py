"""Who asks over mutual TLS is a registered device, active and where it belongs; everybody else is refused."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from dicomward.enrolment.http import Head, Peer, Request
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.identity.registry import RegistrySnapshot
from dicomward.io.enrolment.presented import identify_presented, presented_certificate
from dicomward.io.registry.store import RegistryStore
from dicomward.vocab.reason import ReasonCode
from tests.directory_helpers import now
from tests.io.enrolment_place import enrolment_place

GRACE = timedelta(days=14)


def request(der: bytes | None, address: str = "127.0.0.1") -> Request:
    head = Head(method="GET", path="/", fields={}, length=0)
    return Request(head=head, body=b"", peer=Peer(address=address, certificate_der=der))


def refused(registry: RegistrySnapshot, asked: Request, days: int = 0) -> ReasonCode:
    with pytest.raises(EnrolmentRefusedError) as caught:
        identify_presented(registry, asked, now() + timedelta(days=days), expiry_grace=GRACE)
    return caught.value.reason


def test_device_is_known_by_its_certificate_as_at_the_gateway(tmp_path: Path) -> None:
    with enrolment_place(tmp_path / "gateway") as place:
        der = place.enrol(place.invite("ct1")).certificate.public_bytes(Encoding.DER)
        with RegistryStore.open(place.settings.registry.url) as store:
            registry = store.read()
    assert presented_certificate(request(der)) == der
    assert identify_presented(registry, request(der), now(), expiry_grace=GRACE).device.name == "ct1"
    assert refused(registry, request(None)) is ReasonCode.CREDENTIALS_MISSING
    assert refused(registry, request(der, "192.0.2.7")) is ReasonCode.NETWORK_NOT_ALLOWED
    assert refused(registry, request(der), 110) is ReasonCode.CERTIFICATE_EXPIRED
