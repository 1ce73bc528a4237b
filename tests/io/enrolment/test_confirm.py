"""A new credential may do only C-ECHO until a second person has confirmed its device."""

from pathlib import Path

import pytest

from dicomward.cli.main import main
from dicomward.identity.registry import RegistryError
from dicomward.io.registry.store import RegistryStore
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import VERIFICATION, is_left
from tests.directory_helpers import now
from tests.io.enrolment_place import enrolment_place, new_key, own_file, request

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


def test_only_an_echo_is_left_to_who_is_not_confirmed() -> None:
    assert is_left(ReasonCode.NOT_CONFIRMED, Operation.C_ECHO, VERIFICATION)
    assert not is_left(ReasonCode.NOT_CONFIRMED, Operation.C_STORE, CT_IMAGE)
    assert is_left(ReasonCode.CERTIFICATE_JUST_EXPIRED, Operation.C_STORE, CT_IMAGE)
    assert is_left(None, Operation.C_FIND, CT_IMAGE)


def test_new_credential_waits_for_a_second_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with enrolment_place(tmp_path / "gateway", confirm=True) as place:
        key, following = new_key(), new_key()
        handed = place.invite("ct1")
        certificate = place.enrol(handed, key).certificate
        own = own_file(tmp_path / "own.pem", certificate, key)

        def statuses() -> list[str]:
            with RegistryStore.open(place.settings.registry.url) as store:
                device = store.read().device_by_name("ct1")
            assert device is not None
            return [each.status for each in device.certificates]

        assert statuses() == ["unconfirmed"]
        # A renewal would be a way around.
        assert place.est("simplereenroll", request(following), own=own).status == 403
        monkeypatch.setenv("DICOMWARD_CONFIG", str(place.settings.path))
        # The directory has no named operators: the name is who has logged in.
        monkeypatch.setenv("SUDO_USER", "anna")
        assert main(["device", "confirm", "ct1"]) == 1
        assert "a second person has to look" in capsys.readouterr().err
        assert statuses() == ["unconfirmed"]
        monkeypatch.setenv("SUDO_USER", "bert")
        assert main(["device", "confirm", "ct1", "--json"]) == 0
        assert statuses() == ["active"]
        assert main(["device", "confirm", "ct1"]) == 1
        assert place.est("simplereenroll", request(following), own=own).status == 200
        assert statuses() == ["active", "active"]
        with (
            RegistryStore.open(place.settings.registry.url) as store,
            pytest.raises(RegistryError, match="nothing waits"),
        ):
            store.confirm_device("ct1", by="bert", at=now())
