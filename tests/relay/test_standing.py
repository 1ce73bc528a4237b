from collections.abc import Callable
from dataclasses import replace

import pytest

from dicomward.identity.registry import DeviceStatus, RegistrySnapshot
from dicomward.vocab.reason import ReasonCode
from tests.relay.wire import c_move_rq, identifier
from tests.relay.world import REQUESTOR, FakeWorld, established, established_by_archive


def changed(registry: RegistrySnapshot, **changes: object) -> RegistrySnapshot:
    return replace(
        registry,
        devices=tuple(replace(d, **changes) if d.name == "ct1" else d for d in registry.devices),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: r, None),
        (lambda r: changed(r, status=DeviceStatus.SUSPENDED), ReasonCode.DEVICE_SUSPENDED),
        (lambda r: changed(r, status=DeviceStatus.REVOKED), ReasonCode.DEVICE_REVOKED),
        (lambda r: replace(r, devices=r.devices[1:]), ReasonCode.DEVICE_REVOKED),
        (lambda r: changed(r, ae_titles=("ELSE",)), ReasonCode.CALLING_AE_TITLE_NOT_BOUND),
        (lambda r: changed(r, certificates=()), ReasonCode.CERTIFICATE_REVOKED),
        (
            lambda r: changed(r, certificates=(replace(r.devices[0].certificates[0], status="revoked"),)),
            ReasonCode.CERTIFICATE_REVOKED,
        ),
        (lambda r: replace(r, archives=r.archives[1:]), ReasonCode.CALLED_AE_TITLE_UNKNOWN),
        (
            lambda r: replace(
                r,
                archives=(
                    replace(r.archives[0], ae_title="X", called_ae_titles=("X",)),
                    replace(r.archives[1], called_ae_titles=("PACS",)),
                ),
            ),
            ReasonCode.CALLED_AE_TITLE_UNKNOWN,
        ),
    ],
    ids=["same", "suspended", "revoked", "gone", "title", "certificate gone", "certificate revoked", "route", "other"],
)
def test_what_the_registry_no_longer_allows(
    change: Callable[[RegistrySnapshot], RegistrySnapshot], reason: ReasonCode | None
) -> None:
    world = FakeWorld()
    line = established(world)
    world.registry = change(world.registry)
    assert line.relay.no_longer_allowed() == reason


def test_what_the_registry_no_longer_allows_an_archive() -> None:
    world = FakeWorld()
    requester = established(world, calling="WS1")
    requester.say(REQUESTOR, 7, c_move_rq(1), identifier())
    line = established_by_archive(world)
    assert line.relay.no_longer_allowed() is None
    archives = world.registry.archives
    world.registry = replace(
        world.registry, archives=(replace(archives[0], ae_title="X", calling_ae_titles=()), archives[1])
    )
    assert line.relay.no_longer_allowed() is ReasonCode.CALLING_AE_TITLE_NOT_BOUND
