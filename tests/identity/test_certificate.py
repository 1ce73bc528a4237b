"""The value that io makes of a peer's certificate."""

from dataclasses import FrozenInstanceError

import pytest

from tests.identity.examples import NOT_AFTER, NOT_BEFORE, fingerprint, peer


def test_holds_what_identity_needs() -> None:
    certificate = peer("CT1")
    assert certificate.sha256 == fingerprint("CT1")
    assert (certificate.not_before, certificate.not_after) == (NOT_BEFORE, NOT_AFTER)
    assert certificate.subject == "CN=CT1"


def test_cannot_be_changed_after_the_handshake() -> None:
    certificate = peer("CT1")
    with pytest.raises(FrozenInstanceError):
        certificate.sha256 = fingerprint("CT2")  # type: ignore[misc]
