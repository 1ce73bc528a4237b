"""What a reload loads besides the settings: what is good replaces the old one, what is broken changes nothing."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomward.audit.event import PolicyChanged, RegistryChanged
from dicomward.identity.registry import Endpoint, RegistryError
from dicomward.io.ca.local import KeyKind, LocalCa
from dicomward.io.gateway.policy_file import note_policy
from dicomward.io.gateway.reload import ReloadError
from dicomward.io.gateway.reload_parts import CertificatesPart, PolicyPart, RegistryPart
from tests.directory_helpers import now
from tests.io.world import POLICY, World, archive_at, running

PACS = archive_at(Endpoint(host="127.0.0.1", port=104))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running(tmp_path / "gateway", PACS) as made:
        made.settings.policy.file.write_text(POLICY, encoding="utf-8")
        made.settings.gateway.state_directory.mkdir(exist_ok=True)
        yield made


# -- policy ------------------------------------------------------------------------------------------------------------


def test_policy_is_swapped_recorded_and_remembered(world: World) -> None:
    before = world.gate.policy.revision
    world.settings.policy.file.write_text(f"# another\n{POLICY}", encoding="utf-8")
    loaded = PolicyPart(world.gate).load(world.settings, unattended=False)
    assert loaded.changed
    assert loaded.facts == {"revision": world.gate.policy.revision, "before": before}
    assert loaded.event is not None
    assert loaded.noted is not None
    assert loaded.event("anna", "reload") == PolicyChanged(
        operator="anna",
        action="reload",
        policy_revision=world.gate.policy.revision,
        detail=f"before it: {before}",
    )
    assert note_policy(world.gate.policy, world.settings.gateway.state_directory, "anna") is not None
    loaded.noted()
    assert note_policy(world.gate.policy, world.settings.gateway.state_directory, "anna") is None


def test_same_policy_is_no_change(world: World) -> None:
    before = world.gate.policy
    loaded = PolicyPart(world.gate).load(world.settings, unattended=False)
    assert not loaded.changed
    assert world.gate.policy is before


def test_a_signal_brings_no_policy_into_force_that_two_operators_have_to_agree_on(world: World) -> None:
    operators = replace(world.settings.operators, second_person=("policy-change",))
    settings = replace(world.settings, operators=operators)
    before, part = world.gate.policy, PolicyPart(world.gate)
    assert not part.load(settings, unattended=True).changed
    settings.policy.file.write_text(f"# another\n{POLICY}", encoding="utf-8")
    with pytest.raises(ReloadError, match=r"the policy is another one.*needs a second operator.*dicomward reload"):
        part.load(settings, unattended=True)
    assert world.gate.policy is before
    assert part.load(settings, unattended=False).changed


@pytest.mark.parametrize("text", [None, "version = 1\n[[rule]]\n"])
def test_policy_that_is_missing_or_broken_changes_nothing(world: World, text: str | None) -> None:
    before = world.gate.policy
    world.settings.policy.file.unlink() if text is None else world.settings.policy.file.write_text(text)
    with pytest.raises(ReloadError, match=r"policy\.toml.*`dicomward policy check` tells more"):
        PolicyPart(world.gate).load(world.settings, unattended=False)
    assert world.gate.policy is before


# -- registry ----------------------------------------------------------------------------------------------------------


def test_registry_that_is_new_is_recorded_with_what_it_has_ended(world: World) -> None:
    def use() -> int:
        world.gate.use_registry(replace(world.gate.registry, revision=2))
        return 3

    loaded = RegistryPart(world.gate, use).load(world.settings, unattended=False)
    assert loaded.facts == {"revision": 2, "before": 1, "aborted": 3}
    assert loaded.event is not None
    assert loaded.event(None, "reload") == RegistryChanged(action="reload", count=3, registry_revision=2)


def test_same_registry_is_no_change(world: World) -> None:
    assert not RegistryPart(world.gate, lambda: 0).load(world.settings, unattended=False).changed


def test_registry_that_is_broken_is_said_with_its_file(world: World) -> None:
    def use() -> int:
        raise RegistryError("it is torn")

    with pytest.raises(ReloadError, match=r"registry\.json: it is torn"):
        RegistryPart(world.gate, use).load(world.settings, unattended=False)


# -- certificates ------------------------------------------------------------------------------------------------------


def renew(world: World) -> None:
    pair = world.settings.tls.certificates[0]
    issued = LocalCa.load(world.settings.directory / "ca").issue_gateway(KeyKind.ECDSA, ("127.0.0.1",), now(), days=30)
    pair.key.write_bytes(issued.key_pem)
    pair.certificate.write_bytes(issued.certificate_pem)


def test_new_certificates_are_used_and_their_ends_told(world: World) -> None:
    part = CertificatesPart(world.gate, world.settings, now)
    assert not part.load(world.settings, unattended=False).changed
    assert part.facts() == {}
    before = world.gate._server_tls
    renew(world)
    loaded = part.load(world.settings, unattended=False)
    assert loaded.changed
    assert world.gate._server_tls is not before
    assert str(world.settings.tls.certificates[0].certificate) in str(loaded.facts["not_after"])
    assert not part.load(world.settings, unattended=False).changed


def test_another_minimum_version_is_a_change(world: World) -> None:
    part = CertificatesPart(world.gate, world.settings, now)
    newer = replace(world.settings, tls=replace(world.settings.tls, minimum_version="1.3"))
    assert part.load(newer, unattended=False).changed


def test_certificates_that_are_not_good_now_change_nothing(world: World) -> None:
    part = CertificatesPart(world.gate, world.settings, lambda: datetime(2020, 1, 1, tzinfo=UTC))
    before = world.gate._server_tls
    renew(world)
    with pytest.raises(ReloadError, match="is valid only from"):
        part.load(world.settings, unattended=False)
    assert world.gate._server_tls is before


def test_certificate_that_is_missing_changes_nothing(world: World) -> None:
    part = CertificatesPart(world.gate, world.settings, now)
    world.settings.tls.client_ca.unlink()
    with pytest.raises(ReloadError):
        part.load(world.settings, unattended=False)
